"""Keep strangers' code in a sandbox: bubblewrap outside, a warm worker inside, plain data between.

:class:`Sandbox` starts :mod:`fewshot_lib.classroom.worker` inside bubblewrap and hands it one
submission at a time. What comes back is an :class:`Ended`: the outcomes of the calls, in plain data
that was checked byte by byte, and how the process ended, as the warm worker tells.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot_lib.classroom.machine import bubblewrap_problem
from fewshot_lib.classroom.worker import SCRATCH
from fewshot_lib.exercises import values
from fewshot_lib.exercises.running import LOST, NOT_ATTEMPTED, TOO_SLOW, Outcome
from fewshot_lib.exercises.spec import Case

#: What a sandbox may be made of: bubblewrap, or nothing (on the teacher's own risk).
ISOLATIONS = ("bubblewrap", "none")

#: A reply may not be larger than this: bytes of one answer's outcomes.
REPLY_LIMITS = values.Limits(max_bytes=64 * 2**20, max_items=50_000, max_depth=12)
_GRACE_SECONDS = 2.0
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


@dataclass(frozen=True)
class Calls:
    """The calls to make of one answer."""

    answer: str
    cases: Sequence[Case]


@dataclass(frozen=True)
class Ended:
    """What came of one submission.

    Arguments:
        outcomes: for each answer one outcome a case; LOST where no reply came.
        why: "done", "time", "memory", "died" or "sandbox" (could not be made).
        detail: a sentence for the teacher, "" if done.
        cells: a note for each cell: its id, the error it raised, what it printed.
        seconds: wall time, from the request to the end.
        memory_mb: the highest use seen, beyond what was inherited.
    """

    outcomes: Mapping[str, Sequence[Outcome]]
    why: str
    detail: str
    cells: Sequence[Mapping[str, str]] = ()
    seconds: float = 0.0
    memory_mb: float = 0.0


def require_sandbox(isolation: str) -> None:
    """Make sure that ``isolation`` can be had here.

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
        edition: the folder with the student edition of the library (the package's parent).
        modules: what the worker imports before the first fork.
        isolation: "bubblewrap", or "none".
        limits: for each submission.

    Raises:
        NoSandbox: it cannot be had, or did not come up.
    """

    def __init__(
        self,
        edition: Path,
        modules: Sequence[str] = (),
        isolation: str = "bubblewrap",
        limits: SandboxLimits | None = None,
    ) -> None:
        require_sandbox(isolation)
        self.edition, self.modules, self.isolation = edition, tuple(modules), isolation
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
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        worker = Path(__file__).with_name("worker.py")
        inside = "/grader/worker.py" if self.isolation == "bubblewrap" else str(worker)
        library = "/grader/library" if self.isolation == "bubblewrap" else str(self.edition)
        command = [
            *(self._bubblewrap(worker) if self.isolation == "bubblewrap" else []),
            *(sys.executable, "-I", "-B", inside),
            *(str(theirs.fileno()), library, json.dumps(self.modules), self.isolation),
        ]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        )
        theirs.close()
        self._control = ours
        ours.settimeout(_WARM_SECONDS)
        try:
            message = ours.recv(65536)
        except TimeoutError:
            message = b""
        if not message:
            said = self._said()
            self.close()
            raise NoSandbox(f"the worker did not start in its sandbox: {said}")
        self.warm: dict[str, Any] = json.loads(message)
        if "problem" in self.warm:
            self.close()
            raise NoSandbox(f"the worker did not start in its sandbox: {self.warm['problem']}")

    def _said(self) -> str:
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
        command += ["--proc", "/proc", "--dev", "/dev", "--dir", "/tmp"]
        # for the imports of the warm parent; each submission mounts one of its own over it
        command += ["--tmpfs", SCRATCH]
        for folder in interpreter_folders():
            command += ["--ro-bind", str(folder), str(folder)]
        for folder in _library_in_packages():
            command += ["--tmpfs", str(folder)]
        command += ["--ro-bind", str(worker), "/grader/worker.py"]
        command += ["--ro-bind", str(self.edition), "/grader/library"]
        # nothing that outlives a submission may be written to: each gets a scratch of its own
        return [*command, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", SCRATCH, "--"]

    @property
    def alive(self) -> bool:
        """Whether the worker still runs."""
        return self._process is not None and self._process.poll() is None

    def run(self, cells: Sequence[Mapping[str, str]], calls: Sequence[Calls]) -> Ended:
        """Run one submission's cells, then make the calls of each answer.

        A worker that is gone is started anew first; one that goes meanwhile, once more.

        Arguments:
            cells: ``{"id": …, "source": …}`` in order.
            calls: the answers to call, in order.
        """
        if self.alive:
            try:
                ended = self._run(cells, calls)
            except ConnectionError:  # it ended since it was last looked at
                pass
            else:
                if ended.why != "sandbox" or not self._gone_soon():
                    return ended
        self.close()
        self._start()
        return self._run(cells, calls)

    def _gone_soon(self) -> bool:
        """Say whether the worker has ended; it is given a second, for the kernel has to tell."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._process is not None:
                self._process.wait(1.0)
        return not self.alive

    def _run(self, cells: Sequence[Mapping[str, str]], calls: Sequence[Calls]) -> Ended:
        begun = time.monotonic()
        self._ticket += 1
        ours, theirs = socket.socketpair()
        heard, told = os.pipe()
        try:
            try:
                self._announce(theirs.fileno(), told)
            finally:
                theirs.close()
                os.close(told)
            request = values.pack(
                {
                    "cells": [{"id": c["id"], "source": c["source"]} for c in cells],
                    "cell_seconds": self.limits.answer_seconds,
                    "answers": [
                        {
                            "name": asked.answer,
                            "seconds": self.limits.answer_seconds,
                            "cases": [
                                {"name": c.name, "args": list(c.args), "kwargs": dict(c.kwargs)}
                                for c in asked.cases
                            ],
                        }
                        for asked in calls
                    ],
                }
            )
            deadline = begun + self.limits.wall_seconds + _GRACE_SECONDS
            replies, notes, odd = _converse(ours, request, deadline, len(calls))
            report = self._report(heard, deadline)
        finally:
            ours.close()
            os.close(heard)
        why, detail = _reason(report, odd, len(replies) == len(calls))
        return Ended(
            {c.answer: _outcomes(replies.get(c.answer), c, why) for c in calls},
            why,
            detail,
            notes,
            time.monotonic() - begun,
            float(report.get("memory_mb", 0.0)),
        )

    def _announce(self, talk: int, told: int) -> None:
        limits = {
            "wall_seconds": self.limits.wall_seconds,
            "cpu_seconds": self.limits.wall_seconds,
            "memory_mb": self.limits.memory_mb,
            "disk_mb": self.limits.disk_mb,
            "processes": self.limits.processes,
            "virtual_kb": self.warm["virtual_kb"],
            "baseline_kb": self.warm["anonymous_kb"],
            "seccomp": self.warm["seccomp"],
        }
        message = json.dumps({"ticket": self._ticket, "limits": limits}).encode()
        rights = array.array("i", [talk, told])
        self._control.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    def _report(self, heard: int, deadline: float) -> dict[str, Any]:
        data = b""
        while len(data) < 4096:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([heard], [], [], max(left, 0.05))
            if not ready:
                with contextlib.suppress(OSError):
                    self._control.send(json.dumps({"kill": self._ticket}).encode())
                return {"why": "time"}
            piece = os.read(heard, 4096)
            if not piece:
                break
            data += piece
        try:
            return dict(json.loads(data))
        except ValueError:
            return {"why": "sandbox", "detail": "the worker ended without a report"}


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


def _converse(
    connection: socket.socket, request: bytes, deadline: float, expected: int
) -> tuple[dict[str, Any], list[Mapping[str, str]], str]:
    """Send the request and read replies until all came, the other side closes, or time is up."""
    replies: dict[str, Any] = {}
    notes: list[Mapping[str, str]] = []
    try:
        _send_all(connection, struct.pack("<Q", len(request)) + request, deadline)
        while len(replies) < expected or not notes:
            frame = _frame(connection, deadline)
            if frame is None:
                break
            message = values.unpack(frame, REPLY_LIMITS)
            if isinstance(message, dict) and isinstance(message.get("cells"), list):
                notes = notes or [_note(note) for note in message["cells"][:1000]]
            elif isinstance(message, dict) and isinstance(message.get("answer"), str):
                # the first reply counts: what comes after it cannot take it back
                replies.setdefault(message["answer"][:200], message.get("outcomes"))
            else:
                return replies, notes, "a reply was no reply"
            if len(replies) > expected:
                return replies, notes, "more replies came than were asked for"
    except values.NotPlain as error:
        return replies, notes, f"a reply could not be read: {error}"
    except TimeoutError:
        return replies, notes, "time"
    except OSError:
        return replies, notes, ""
    return replies, notes, ""


def _send_all(connection: socket.socket, data: bytes, deadline: float) -> None:
    view = memoryview(data)
    while view:
        connection.settimeout(max(deadline - time.monotonic(), 0.01))
        view = view[connection.send(view[: 1 << 20]) :]


def _frame(connection: socket.socket, deadline: float) -> bytes | None:
    head = _receive(connection, 8, deadline)
    if len(head) < 8:
        return None
    (size,) = struct.unpack("<Q", head)
    if size > REPLY_LIMITS.max_bytes:
        raise values.NotPlain(f"a reply of {size} bytes was announced")
    body = _receive(connection, size, deadline)
    if len(body) < size:
        raise values.NotPlain("it ended in the middle")
    return body


def _receive(connection: socket.socket, size: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(min(size - len(data), 1 << 20))
        if not piece:
            break
        data += piece
    return bytes(data)


def _note(note: Any) -> dict[str, str]:
    note = note if isinstance(note, dict) else {}
    return {key: str(note.get(key, ""))[:2000] for key in ("id", "error", "printed")}


def _reason(report: Mapping[str, Any], odd: str, complete: bool) -> tuple[str, str]:
    why = str(report.get("why", "sandbox"))
    if why == "sandbox":
        return "sandbox", str(report.get("detail", ""))
    if why in ("time", "memory") and not complete:
        said = {"time": "it ran longer than it may", "memory": "it used more memory than it may"}
        return why, said[why]
    if odd == "time":
        return "time", "it ran longer than it may"
    if odd:
        return "died", odd
    if complete:
        return "done", ""
    code = report.get("code", 0)
    return "died", f"its process ended before it had answered (exit status {code})"


def _outcomes(reply: Any, calls: Calls, why: str) -> list[Outcome]:
    if isinstance(reply, list) and len(reply) == len(calls.cases):
        return [Outcome.from_dict(part) for part in reply]
    status = TOO_SLOW if why == "time" else LOST
    said = "" if reply is None else "the reply has another length than the calls"
    return [Outcome(status, message=said)] * len(calls.cases)


__all__ = [
    "ISOLATIONS",
    "LOST",
    "NOT_ATTEMPTED",
    "Calls",
    "Ended",
    "NoSandbox",
    "Sandbox",
    "SandboxLimits",
    "require_sandbox",
]
