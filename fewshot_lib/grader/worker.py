"""Run submissions inside the sandbox: a warm parent, and for each a fork with its own namespaces.

Started by :mod:`fewshot_lib.grader.sandbox` as ``python -I worker.py SOCKET LIBRARY``, inside
bubblewrap, where nothing lies but the interpreter, its packages and the student package of the
library. It knows no expected value, no check and no other submission.

The family of one submission:

- the *parent* imports torch and the student package once; then, for each submission, it makes
  init, watches the clock and the memory, and tells the grader how it ended, over a pipe that the
  student's process does not have. What a student wrote never reaches it: the request goes to the
  student's process over a socket of its own;
- *init* is born into user, process, mount, network, IPC and host-name namespaces of its own, as
  process 1 there; it waits, and when it ends the kernel kills whatever is left;
- the *student* has a private, small ``/scratch`` and nothing else to write to, no ``/proc``, no
  capabilities, limits, a filter of system calls, and one socket. It can write lies to it, and no
  lie there is worth a point: it replies to calls, and the grader, outside, decides.

Without isolation (``--isolation none``) there are no namespaces, no filter and no scratch of its
own: only the limits that one process can set itself.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import gc
import importlib
import importlib.util
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import cache, partial
from typing import Any, NoReturn

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 1 << 18
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_MAP_SHARED, _MAP_ANONYMOUS, _MADV_COLLAPSE = 0x01, 0x20, 25
_NOBODY = 65534
_PAGE_KILOBYTES = os.sysconf("SC_PAGE_SIZE") // 1024
_PAUSE = 0.02  # between two looks at a submission's memory, in seconds
_STUMBLED = 70
_NOT_MADE = 255  # init's exit status when it could not make the place; never passed on from below
_CLONE_NUMBERS = {"x86_64": 56, "aarch64": 220, "riscv64": 220, "ppc64le": 120}

#: The one place that a submission can write to. Not ``/tmp``: the interpreter may lie below it.
SCRATCH = "/scratch"

#: System calls that no answer needs and that an attack may: denied with EPERM.
DENIED_CALLS = (
    "ptrace process_vm_readv process_vm_writev kcmp pidfd_open pidfd_getfd pidfd_send_signal "
    "mount umount2 pivot_root chroot move_mount open_tree fsopen fsmount fsconfig mount_setattr "
    "unshare setns clone3 bpf perf_event_open userfaultfd io_uring_setup io_uring_enter "
    "io_uring_register keyctl add_key request_key kexec_load kexec_file_load init_module "
    "finit_module delete_module reboot swapon swapoff acct quotactl syslog settimeofday "
    "clock_settime adjtimex sethostname setdomainname iopl ioperm open_by_handle_at "
    "name_to_handle_at personality fanotify_init lookup_dcookie socket "
    "inotify_init inotify_init1 inotify_add_watch "  # it would show what runs elsewhere
    "shmget shmat shmctl semget msgget memfd_create memfd_secret"  # memory that nobody counts
)


def _c_library() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def receive_exactly(connection: socket.socket, size: int) -> bytes:
    """Read ``size`` bytes, or as many as come before the other side closes."""
    pieces = []
    while size > 0:
        piece = connection.recv(min(size, 1 << 20))
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def send_frames(connection: socket.socket, frames: Iterable[bytes]) -> None:
    """Write messages, each as its length (8 bytes, little endian) and its bytes.

    Small ones go together.
    """
    small = bytearray()
    for data in frames:
        small += struct.pack("<Q", len(data))
        if len(data) < 1 << 14:
            small += data
        else:
            connection.sendall(small)
            connection.sendall(data)
            small.clear()
    connection.sendall(small)


def main(arguments: list[str]) -> None:
    """Warm up, say so, then run one submission after the other as the grader announces them."""
    control = socket.socket(fileno=int(arguments[0]))
    isolated = arguments[3] == "bubblewrap"
    os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "Agg"})
    os.environ["TORCH_COMPILE_DISABLE"] = "1"  # there is no compiler, and a first compile is slow
    own = SCRATCH if isolated else tempfile.mkdtemp(prefix="fewshot-worker-")
    os.environ.update({"TMPDIR": own, "IPYTHONDIR": f"{own}/ipython"})
    os.environ["MPLCONFIGDIR"] = f"{own}/matplotlib"
    if isolated:
        os.environ["HOME"] = own
    import IPython.core.interactiveshell  # noqa: F401
    import torch

    if not control.recv(100):  # the student package is made meanwhile
        return
    sys.path.insert(0, arguments[1])
    import fewshot_lib.checker.run  # noqa: F401

    torch.set_num_threads(1)
    torch.backends.cpu.get_cpu_capability()  # found out here, once: submissions have no /proc
    with contextlib.suppress(RuntimeError):
        torch.set_num_interop_threads(1)
    for statement in json.loads(arguments[2]):
        try:
            exec(statement, {})
        except Exception as error:
            said = f"`{statement}` fails with {type(error).__name__}: {error}"[:500]
            control.sendall(json.dumps({"problem": said}).encode())
            return
    notebook = Notebook()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if seccomp_available():
        _call_filter()  # made once, here: each student's process only loads it
    gc.collect()
    gc.freeze()  # a collection in a fork then leaves the inherited memory shared
    _make_pages_large()
    own_limits = {
        **{"isolated": isolated, "seccomp": seccomp_available()},
        **{"user": os.getuid(), "group": os.getgid()},
        "virtual_kb": _own_kilobytes("VmSize"),
        "baseline_kb": _own_kilobytes("RssAnon"),
    }
    versions = {"python": sys.version.split()[0], "torch": torch.__version__}
    control.sendall(json.dumps({"versions": versions}).encode())
    while True:
        message, descriptors = _receive(control)
        if message is None:
            return
        if "kill" in message:  # it had ended before the grader asked for its end
            continue
        talk, report = descriptors
        limits = {**message["limits"], **own_limits, "ticket": message["ticket"]}
        ended = _submission(talk, report, limits, control, notebook)
        with contextlib.suppress(OSError):
            os.write(report, json.dumps(ended).encode())
        os.close(report)


def _make_pages_large() -> None:
    """Let this process's memory lie in pages of 2 MiB where the kernel has them.

    A fork copies an entry for each page: with those of 4 KiB that is the greater part of what a
    submission costs. Where there are none, everything is the same and slower.
    """
    libc, page = _c_library(), 2**21
    with open("/proc/self/maps") as file:  # noqa: PTH123
        areas = [line.split() for line in file]
    for place, rights, _, _, inode, *name in areas:
        if rights != "rw-p" or inode != "0" or name not in ([], ["[heap]"]):
            continue
        begin, end = (int(number, 16) for number in place.split("-"))
        for start in range(-(-begin // page) * page, end - page + 1, page):
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(page), _MADV_COLLAPSE)


def _own_kilobytes(field: str) -> int:
    with open("/proc/self/status") as file:  # noqa: PTH123
        return next(int(line.split()[1]) for line in file if line.startswith(field + ":"))


def _receive(control: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    descriptors = array.array("i")
    space = socket.CMSG_LEN(2 * descriptors.itemsize)
    data, ancillary, _, _ = control.recvmsg(65536, space)
    for level, kind, body in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(body[: len(body) - len(body) % descriptors.itemsize])
    return (json.loads(data) if data else None), list(descriptors)


def _submission(
    talk: int, report: int, limits: dict[str, Any], control: socket.socket, notebook: Notebook
) -> dict[str, Any]:
    """Start init, watch it to its end, and say how it ended. Closes ``talk``."""
    init = 0
    try:
        try:
            init = _fork_into_namespaces() if limits["isolated"] else os.fork()
            if init == 0:  # from here on everything ends in os._exit
                _init(talk, [report, control.fileno()], limits, notebook)
        finally:
            os.close(talk)
        return _watch(init, limits, control)
    except Exception as error:
        if init > 0:
            with contextlib.suppress(OSError):
                os.kill(init, signal.SIGKILL)
                os.waitpid(init, 0)
        return {"why": "sandbox", "detail": f"{type(error).__name__}: {error}"[:300]}


def _fork_into_namespaces() -> int:
    """Fork, with the child as process 1 of namespaces of its own: clone(2), as fork(2) calls it.

    ``os.unshare`` would do it with one fork more: a new process namespace begins with the *next*
    child. The call keeps Python's lock (``PyDLL``), for the child goes on in this very thread.

    Raises:
        OSError: the kernel refuses.
    """
    flags = _CLONE_NEWUSER | _CLONE_NEWPID | _CLONE_NEWNS | _CLONE_NEWIPC
    flags |= _CLONE_NEWNET | _CLONE_NEWUTS | signal.SIGCHLD
    machine = os.uname().machine
    if machine not in _CLONE_NUMBERS:
        raise OSError(f"clone(2) has a number on each kind of processor; not known: {machine}")
    libc = ctypes.PyDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    none = ctypes.c_void_p(None)  # no stack of its own, nowhere to write its number
    process = libc.syscall(
        ctypes.c_long(_CLONE_NUMBERS[machine]), ctypes.c_ulong(flags), none, none, none, none
    )
    if process < 0:
        _checked(-1, "new namespaces")
    return int(process)


def _map_user(user: int, group: int) -> None:
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{_NOBODY} {user} 1"),
        ("gid_map", f"{_NOBODY} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123
            file.write(line)


def _watch(init: int, limits: dict[str, Any], control: socket.socket) -> dict[str, Any]:
    begun = time.monotonic()
    why, peak = "", 0
    ending = os.pidfd_open(init)
    waiting: list[Any] = [ending, control]
    try:
        while True:
            ready, _, _ = select.select(waiting, [], [], _PAUSE)
            if ending in ready:
                break
            if control in ready and not _still_wanted(control, limits["ticket"]):
                why = why or "time"
                waiting = [ending]
            if not why:
                family, tasks = _family(init, limits["processes"] + 2)
                if tasks > limits["processes"] + 2:  # the kernel's own limit does not hold root
                    why = "processes"
                else:
                    used = memory_kilobytes(family, limits["baseline_kb"])
                    peak = max(peak, used)
                    if time.monotonic() - begun > limits["wall_seconds"]:
                        why = "time"
                    elif used > limits["memory_mb"] * 1024:
                        why = "memory"
            if why:
                os.kill(init, signal.SIGKILL)
    finally:
        os.close(ending)
    _, status = os.waitpid(init, 0)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    if code == _NOT_MADE:
        return {"why": "sandbox", "detail": "the namespaces or mounts for it could not be made"}
    return {
        "why": why or ("exit" if os.WIFEXITED(status) else "signal"),
        "detail": "",
        "code": code,
        "memory_mb": peak / 1024,
    }


def _still_wanted(control: socket.socket, ticket: int) -> bool:
    """Read what the grader says meanwhile: that it waits no longer, or, if it is gone, nothing."""
    message, descriptors = _receive(control)
    for descriptor in descriptors:
        os.close(descriptor)
    return message is not None and message.get("kill") != ticket


def memory_kilobytes(family: list[int], baseline: int) -> int:
    """Add up the memory of a family of processes, without what they inherited, in kB.

    A fork shares the inherited pages until it writes to them, which costs a fault per page; a
    program that was started anew has none of them. The kernel's exact counters are not read: that
    waits for every process that forks just now, and meanwhile they multiply.

    Arguments:
        family: init, the student's process, and all below, in the order in which they were found.
        baseline: what the warm parent has, which each fork inherits.
    """
    begins = _own_program()
    total = 0
    for position, process in enumerate(family):
        anonymous, shared = _status_kilobytes(process)
        where, faults = _program(process)
        inherited = baseline if position == 0 or where == begins else 0
        total += max(0, anonymous - inherited) + shared
        if position > 1:
            total += min(inherited, anonymous, faults * _PAGE_KILOBYTES)
    return total


@cache
def _own_program() -> bytes:
    return _program("self")[0]


def _program(process: int | str) -> tuple[bytes, int]:
    """Give where a process's program begins, which is the same for forks, and its page faults."""
    try:
        fields = _read(f"/proc/{process}/stat").rpartition(b")")[2].split()
        return fields[23], int(fields[7])
    except (OSError, IndexError, ValueError):
        return b"", 0


def _read(place: str) -> bytes:
    """Read one of the kernel's small files; Python's own files cost several times as much."""
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)


def _family(init: int, most: int) -> tuple[list[int], int]:
    """Give init and the processes below it, and how many threads they have together.

    Where there are more than ``most``, the rest is not looked for: they may multiply faster.
    """
    found, pending, threads = [], [init], 0
    while pending and threads <= most:
        process = pending.pop()
        found.append(process)
        with contextlib.suppress(OSError, ValueError):  # it ended meanwhile
            tasks = os.listdir(f"/proc/{process}/task")  # noqa: PTH208
            threads += len(tasks)
            for task in tasks:
                pending += map(int, _read(f"/proc/{process}/task/{task}/children").split())
    return found, threads


def _status_kilobytes(process: int) -> tuple[int, int]:
    """Read a process's anonymous and its shared memory."""
    try:
        said = _read(f"/proc/{process}/status")
        fields = [said.split(name)[1].split()[0] for name in (b"RssAnon:", b"RssShmem:")]
    except (OSError, LookupError):  # it has ended
        return 0, 0
    return int(fields[0]), int(fields[1])


def _init(talk: int, not_mine: list[int], limits: dict[str, Any], notebook: Notebook) -> NoReturn:
    """Be process 1: prepare the place, start the student, end when it ends. Never returns."""
    try:
        libc = _c_library()
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for descriptor in not_mine:
            os.close(descriptor)
        if limits["isolated"]:
            _map_user(limits["user"], limits["group"])
            _private_mounts(libc, limits)
        else:
            os.chdir(tempfile.mkdtemp(prefix="fewshot-answer-"))
        # the one signal with a handler: without it the kernel keeps all of them from process 1
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        student = os.fork()
    except BaseException as error:
        os.write(2, f"init: {error}\n".encode())
        os._exit(_NOT_MADE)
    if student == 0:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _student(talk, limits, libc, notebook)
        except BaseException:
            os._exit(_STUMBLED)
    try:
        os.close(talk)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        while True:
            process, status = os.wait()
            if process == student:
                break
    except BaseException:  # the place was made: whatever this is, it is the submission's doing
        os._exit(_STUMBLED)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
    os._exit(min(code, _NOT_MADE - 1))


def _private_mounts(libc: Any, limits: dict[str, Any]) -> None:
    _checked(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "private mounts")
    size = f"size={int(limits['disk_mb'])}m,nr_inodes=4096,mode=0700".encode()
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _checked(libc.mount(b"tmpfs", SCRATCH.encode(), b"tmpfs", flags, size), "scratch")
    shared = f"{SCRATCH}/.shm".encode()
    os.mkdir(shared, 0o700)  # noqa: PTH102
    _checked(libc.mount(shared, b"/dev/shm", None, _MS_BIND, None), "/dev/shm")
    _checked(
        libc.mount(b"tmpfs", b"/proc", b"tmpfs", flags | _MS_RDONLY, b"size=4k"), "empty /proc"
    )
    os.chdir(SCRATCH)


def _student(talk: int, limits: dict[str, Any], libc: Any, notebook: Notebook) -> NoReturn:
    """Give up every power, then run the submission and reply. Never returns."""
    os.setsid()
    _checked(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)

    os.dup2(talk, 3)
    os.closerange(4, 4096)
    connection = socket.socket(fileno=3)
    request = notebook.module.read_request(partial(receive_exactly, connection))
    _limit(limits)
    if limits["isolated"]:
        for capability in range(64):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
        _drop_capabilities(libc)
        if limits["seccomp"]:
            _load(libc, _call_filter())
    answer(request, connection, notebook)
    os._exit(0)


def _drop_capabilities(libc: Any) -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _checked(libc.capset(header, nothing), "drop capabilities")


def _limit(limits: dict[str, Any]) -> None:
    with open("/dev/null"):  # the descriptor table is in order before the limits come  # noqa: PTH123
        pass
    pages = limits["virtual_kb"] * 1024
    for kind, value in (
        (resource.RLIMIT_AS, pages + int(limits["memory_mb"]) * 2**20),
        (resource.RLIMIT_CPU, int(limits["wall_seconds"]) + 1),
        (resource.RLIMIT_FSIZE, int(limits["disk_mb"]) * 2**20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, int(limits["processes"])),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        if limits["isolated"] or kind != resource.RLIMIT_NPROC:  # it would count the user's others
            resource.setrlimit(kind, (value, value))


def seccomp_available() -> bool:
    """Say whether the filter of system calls is available (libseccomp and its binding)."""
    try:
        import pyseccomp  # noqa: F401
    except (ImportError, RuntimeError, OSError):
        return False
    return True


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def _load(libc: Any, program: bytes) -> None:
    """Hold this process to a filter of system calls, for good."""
    whole = _Program(len(program) // 8, program)
    none = ctypes.c_ulong(0)
    how = ctypes.c_ulong(_SECCOMP_MODE_FILTER)
    _checked(
        libc.prctl(_PR_SET_SECCOMP, how, ctypes.byref(whole), none, none), "filter of system calls"
    )


@cache
def _call_filter() -> bytes:
    """Make the filter of system calls: the program that the kernel runs at each."""
    import pyseccomp

    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in DENIED_CALLS.split():
        # A call that this kernel's table lacks needs no rule. clone3 must look missing, so that
        # the C library falls back to clone, whose flags can be looked at.
        wanted = errno.ENOSYS if name == "clone3" else errno.EPERM
        with contextlib.suppress(ValueError, OSError, RuntimeError):
            rules.add_rule(pyseccomp.ERRNO(wanted), name)
    with contextlib.suppress(ValueError, OSError, RuntimeError):
        rules.add_rule(
            pyseccomp.ERRNO(errno.EPERM),
            "clone",
            pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _CLONE_NEWUSER, _CLONE_NEWUSER),
        )
    shared = _MAP_SHARED | _MAP_ANONYMOUS  # memory that outlives its process and is hard to count
    rules.add_rule(
        pyseccomp.ERRNO(errno.EPERM), "mmap", pyseccomp.Arg(3, pyseccomp.MASKED_EQ, shared, shared)
    )
    for other in range(2, 46):  # a pair of sockets within the process is what asyncio begins with
        rules.add_rule(  # the kernel looks at the lower half of the number only
            pyseccomp.ERRNO(errno.EPERM),
            "socketpair",
            pyseccomp.Arg(0, pyseccomp.MASKED_EQ, 0xFFFFFFFF, other),
        )
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def answer(request: Any, connection: socket.socket, notebook: Any) -> None:
    """Run the notebook and call its answers; send what happens as it happens."""
    from fewshot_lib.checker import values

    notebook.module.run_notebook(
        request, notebook.shell, lambda *told: send_frames(connection, map(values.pack, told))
    )


class Notebook:
    """The shell that a student's notebook runs in; made once, in the warm parent."""

    def __init__(self) -> None:
        # by its place: its folder must not be a place to import from
        place = os.path.join(os.path.dirname(__file__), "student.py")  # noqa: PTH118, PTH120
        found = importlib.util.spec_from_file_location("_student", place)
        assert found is not None
        assert found.loader is not None
        self.module = importlib.util.module_from_spec(found)
        found.loader.exec_module(self.module)
        self.module.patch_loaders()
        self.shell = self.module.make_shell()
        self.module.warm_up(self.shell)


if __name__ == "__main__":
    main(sys.argv[1:])
