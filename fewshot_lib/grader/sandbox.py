"""Keep strangers' code in a sandbox: bubblewrap outside, a warm worker inside, plain data between.

:class:`Sandbox` starts :mod:`fewshot_lib.grader.worker` inside bubblewrap and hands it one
submission at a time. What comes back is an :class:`RunReport`: the outcomes of the calls, in plain
data that was checked byte by byte, and how the process ended, as the warm worker tells.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot_lib.grader.bubblewrap import bubblewrap_problem
from fewshot_lib.grader.conversation import Conversation, Job, RunReport
from fewshot_lib.grader.worker import SCRATCH

#: What a sandbox may be made of: bubblewrap, or nothing (on the teacher's own risk).
ISOLATIONS = ("bubblewrap", "none")

_GRACE_SECONDS = 2.0
_END_SECONDS = 10.0  # many large processes take long to go on a busy machine
_WARM_SECONDS = 120.0


class NoSandbox(RuntimeError):
    """Strangers' code cannot be kept in a sandbox here; says why and what to do."""


@dataclass(frozen=True)
class SandboxLimits:
    """What one submission may use.

    Arguments:
        wall_seconds: from its fork to its end.
        memory_mb: beyond what it inherits from the warm parent, all its processes together.
        disk_mb: its private ``/scratch``.
        processes: processes and threads together.
        answer_seconds: all calls of one answer.
    """

    wall_seconds: float = 60.0
    memory_mb: int = 1024
    disk_mb: int = 64
    processes: int = 32
    answer_seconds: float = 20.0


def require_sandbox(isolation: str) -> None:
    """Make sure that ``isolation`` is available here.

    Raises:
        NoSandbox: bubblewrap is missing or may not make namespaces; says the way out.
        ValueError: an unknown isolation.
    """
    if isolation not in ISOLATIONS:
        raise ValueError(f"isolation must be one of {', '.join(ISOLATIONS)}, got {isolation!r}")
    problem = bubblewrap_problem() if isolation == "bubblewrap" else None
    if problem:
        raise NoSandbox(
            f"{problem}. Strangers' code is not run without a sandbox. Grade on a Linux machine "
            "with bubblewrap, or, if you trust every submission as your own code, add "
            "`--isolation none`."
        )


class Sandbox:
    """One warm worker in its sandbox; grades one submission at a time.

    Arguments:
        package: the folder with the student package of the library (the package's parent).
        make: makes the student package in that folder if it is not there yet; called while the
            worker imports what is not of the course.
        imports: import statements that the worker executes before the first fork.
        isolation: "bubblewrap", or "none".
        limits: for each submission.

    Raises:
        NoSandbox: it is not available, or did not start.
    """

    def __init__(
        self,
        package: Path,
        imports: Sequence[str] = (),
        isolation: str = "bubblewrap",
        limits: SandboxLimits | None = None,
        make: Callable[[], object] = lambda: None,
    ) -> None:
        require_sandbox(isolation)
        self._make = make
        self.package, self.imports, self.isolation = package, tuple(imports), isolation
        self.limits = limits or SandboxLimits()
        self._ticket = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def __enter__(self) -> Sandbox:
        """Return itself; the sandbox is warm."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the worker."""
        self.close()

    def close(self) -> None:
        """End the worker and whatever it still runs."""
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            self._control.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()
        self._process = None

    def _start(self) -> None:
        ours, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        worker = Path(__file__).with_name("worker.py")
        inside = "/grader/worker.py" if self.isolation == "bubblewrap" else str(worker)
        library = "/grader/library" if self.isolation == "bubblewrap" else str(self.package)
        command = [
            *(self._bubblewrap(worker) if self.isolation == "bubblewrap" else []),
            *(sys.executable, "-I", "-B", inside),
            *(str(child.fileno()), library, json.dumps(self.imports), self.isolation),
        ]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=(child.fileno(),),
            start_new_session=True,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        )
        child.close()
        self._control = ours
        ours.settimeout(_WARM_SECONDS)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        try:
            ours.send(b"the student package is there")
            message, process = _first_message(ours)
        except (TimeoutError, ConnectionError):  # it has ended: what it said is read below
            message, process = b"", 0
        warm: dict[str, Any] = json.loads(message) if message else {"problem": self._last_output()}
        if "problem" in warm:
            self.close()
            raise NoSandbox(f"the worker did not start in its sandbox: {warm['problem']}")
        self.versions: dict[str, str] = warm["versions"]
        if process and sys.platform == "linux":
            _let_go_ahead(process)

    def _last_output(self) -> str:
        self._log.seek(0)
        lines = self._log.read(20_000).decode("utf-8", "replace").strip().splitlines()
        return " / ".join(lines[-3:])[:500] or "it said nothing"

    def _bubblewrap(self, worker: Path) -> list[str]:
        program = shutil.which("bwrap") or "bwrap"
        command = [
            *(program, "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"),
            *("--setenv", "PATH", "/usr/bin:/bin", "--setenv", "LANG", "C.UTF-8"),
            *("--uid", "65534", "--gid", "65534", "--hostname", "sandbox", "--cap-drop", "ALL"),
            *("--ro-bind", "/usr", "/usr"),
        ]
        for name in ("bin", "lib", "lib64", "lib32", "sbin"):
            place = Path("/") / name
            if place.is_symlink():
                command += ["--symlink", str(place.readlink()), str(place)]
            elif place.is_dir():
                command += ["--ro-bind", str(place), str(place)]
        for name in ("/etc/ld.so.cache", "/etc/localtime", "/etc/ssl/certs"):
            command += ["--ro-bind-try", name, name]
        # the warm parent's own scratch; each submission has another one mounted over it
        command += ["--proc", "/proc", "--dev", "/dev", "--dir", "/tmp", "--tmpfs", SCRATCH]
        # it gives zeros as well, but no shared memory, which no process's own counters show
        command += ["--dev-bind", "/dev/full", "/dev/zero"]
        for folder in interpreter_folders():
            command += ["--ro-bind", str(folder), str(folder)]
        for folder in _library_in_packages():
            command += ["--tmpfs", str(folder)]
        for file in (worker, worker.with_name("student.py")):
            command += ["--ro-bind", str(file), f"/grader/{file.name}"]
        command += ["--ro-bind", str(self.package), "/grader/library"]
        # nothing that outlives a submission may be written to: each gets a scratch of its own
        return [*command, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", SCRATCH, "--"]

    @property
    def alive(self) -> bool:
        """Whether the worker still runs."""
        return self._process is not None and self._process.poll() is None

    def run(self, job: Job) -> RunReport:
        """Run one notebook's cells, then make the calls of each answer.

        A worker that is gone is started anew first; one that goes meanwhile, once more.
        """
        if self.alive:
            try:
                ended = self._run(job)
            except ConnectionError:  # it ended since it was last looked at
                pass
            else:
                if ended.why != "sandbox" or not self._has_ended():
                    return ended
        self.close()
        self._start()
        return self._run(job)

    def _has_ended(self) -> bool:
        """Say whether the worker has ended; it is given a second, for the kernel has to tell."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._process is not None:
                self._process.wait(1.0)
        return not self.alive

    def _run(self, job: Job) -> RunReport:
        begun = time.monotonic()
        self._ticket += 1
        ours, child = socket.socketpair()
        read_end, write_end = os.pipe()
        limits = self.limits
        try:
            try:
                self._send_ticket(child.fileno(), write_end)
            finally:
                child.close()
                os.close(write_end)
            request = job.request(limits.wall_seconds, limits.answer_seconds)
            deadline = begun + limits.wall_seconds + _GRACE_SECONDS
            conversation = Conversation(job)
            conversation.exchange(ours, request, deadline)
            report = self._report(read_end, deadline)
        finally:
            ours.close()
            os.close(read_end)
        why, detail = _reason(report, conversation.fault, conversation.complete)
        return RunReport(
            {c.answer: conversation.of(c, why) for c in job.calls},
            why,
            detail,
            conversation.notes,
            ("", "") if conversation.complete else conversation.at,
            time.monotonic() - begun,
            float(report.get("memory_mb", 0.0)),
        )

    def _send_ticket(self, connection: int, write_end: int) -> None:
        message = json.dumps({"ticket": self._ticket, "limits": vars(self.limits)}).encode()
        rights = array.array("i", [connection, write_end])
        self._control.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    def _report(self, read_end: int, deadline: float) -> dict[str, Any]:
        """Wait for what the worker says of a submission's end; have it ended when time is up."""
        data, asked = b"", False
        while len(data) < 4096:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([read_end], [], [], max(left, 0.05))
            if not ready and asked:  # it does not end it: all of it has to go
                self.close()
                return {"why": "time"}
            if not ready:
                asked, deadline = True, time.monotonic() + _END_SECONDS
                with contextlib.suppress(OSError):
                    self._control.send(json.dumps({"kill": self._ticket}).encode())
                continue
            piece = os.read(read_end, 4096)
            if not piece:
                break
            data += piece
        try:
            return dict(json.loads(data)) | ({"why": "time"} if asked else {})
        except ValueError:
            return {"why": "sandbox", "detail": "the worker ended without a report"}


def _first_message(connection: socket.socket) -> tuple[bytes, int]:
    """Receive the worker's first message, and its process number as it is here."""
    size = struct.calcsize("3i")
    data, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(size))
    for level, kind, body in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return data, int(struct.unpack("3i", body[:size])[0])
    return data, 0


def _let_go_ahead(process: int) -> None:
    """Let the warm parent run before its submissions, where this is allowed, that is, for root.

    Root's processes have no limit on their number: hundreds of them would leave no time to the one
    that is to end them. Those of other users have that limit.
    """
    with contextlib.suppress(PermissionError):
        how = os.SCHED_RR | os.SCHED_RESET_ON_FORK  # its forks are ordinary processes again
        os.sched_setscheduler(process, how, os.sched_param(1))


def interpreter_folders() -> list[Path]:
    """Give the folders that the interpreter and its packages need, the outermost only."""
    wanted = {
        Path(folder).resolve()
        for folder in (
            sys.prefix,
            sys.base_prefix,
            *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        )
    }
    wanted |= {Path(sys.prefix), Path(sys.base_prefix)}
    outside = {folder for folder in wanted if not folder.is_relative_to("/usr")}
    return sorted(f for f in outside if not any(f != o and f.is_relative_to(o) for o in outside))


def _library_in_packages() -> list[Path]:
    # installed as a copy, not as a link to the course's folder: hide the copy
    places = {Path(sysconfig.get_path(name)) / "fewshot_lib" for name in ("purelib", "platlib")}
    return sorted(place for place in places if place.is_dir())


def _reason(report: Mapping[str, Any], fault: str, complete: bool) -> tuple[str, str]:
    why = str(report.get("why", "sandbox"))
    if why == "sandbox":
        return "sandbox", str(report.get("detail", ""))
    if why in ("time", "memory") and not complete:
        said = {"time": "it ran longer than it may", "memory": "it used more memory than it may"}
        return why, said[why]
    if why == "processes" and not complete:
        return "died", "it started more processes and threads than it may"
    if fault == "time":
        return "time", "it ran longer than it may"
    if fault:
        return "died", fault
    if complete:
        return "done", ""
    code = report.get("code", 0)
    return "died", f"its process ended before it had answered (exit status {code})"
