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
class Job:
    """One run of a notebook.

    Arguments:
        cells: its code cells in order: ``{"index": …, "source": …, "answer": …}``, the last the
            name of the answer that the cell holds, or ""; an unchanged handed-out cell also has
            ``"binds"`` and ``"reads"``, see :func:`student.needed`.
        calls: the answers to call, in order.
        skip: indices of cells that are left out.
        stand_in: what stands in for wrong answers: ``{"names": […], "sources": […]}``, or None.
    """

    cells: Sequence[Mapping[str, Any]]
    calls: Sequence[Calls]
    skip: Sequence[int] = ()
    stand_in: Mapping[str, Any] | None = None

    def plain(self) -> dict[str, Any]:
        """Give the job as a plain value, to cross to another process."""
        return {
            "cells": [dict(cell) for cell in self.cells],
            "skip": list(self.skip),
            "stand_in": self.stand_in and {k: list(part) for k, part in self.stand_in.items()},
            "answers": [
                {
                    "name": asked.answer,
                    "cases": [
                        {"name": c.name, "args": list(c.args), "kwargs": dict(c.kwargs)}
                        for c in asked.cases
                    ],
                }
                for asked in self.calls
            ],
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Job:
        """Read a job that came from the grader."""
        calls = [
            Calls(
                asked["name"],
                [Case(c["name"], tuple(c["args"]), c["kwargs"]) for c in asked["cases"]],
            )
            for asked in data["answers"]
        ]
        return cls(data["cells"], calls, data["skip"], data["stand_in"])


@dataclass(frozen=True)
class Ended:
    """What came of one run.

    Arguments:
        outcomes: for each answer one outcome per case; LOST where no reply came.
        why: "done", "time", "memory", "died" or "sandbox" (could not be made).
        detail: a sentence for the teacher, "" if done.
        cells: a note on each cell of the student's that raised an error or printed: ``index``,
            ``error``, ``printed``, ``not_run`` (programs that were not started).
        at: where it was when it ended before all answers were called: ("cell", index) or
            ("answer", name); ("", "") if it never said, or reached the end.
        seconds: wall time, from the request to the end.
        memory_mb: the highest use seen, beyond what was inherited.
    """

    outcomes: Mapping[str, Sequence[Outcome]]
    why: str
    detail: str
    cells: Sequence[Mapping[str, Any]] = ()
    at: tuple[str, str] = ("", "")
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
        imports: import statements that the worker executes before the first fork.
        isolation: "bubblewrap", or "none".
        limits: for each submission.

    Raises:
        NoSandbox: it cannot be had, or did not come up.
    """

    def __init__(
        self,
        edition: Path,
        imports: Sequence[str] = (),
        isolation: str = "bubblewrap",
        limits: SandboxLimits | None = None,
    ) -> None:
        require_sandbox(isolation)
        self.edition, self.imports, self.isolation = edition, tuple(imports), isolation
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
            *(str(theirs.fileno()), library, json.dumps(self.imports), self.isolation),
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
        # the warm parent's own scratch; each submission has another one mounted over it
        command += ["--proc", "/proc", "--dev", "/dev", "--dir", "/tmp", "--tmpfs", SCRATCH]
        for folder in interpreter_folders():
            command += ["--ro-bind", str(folder), str(folder)]
        for folder in _library_in_packages():
            command += ["--tmpfs", str(folder)]
        for file in (worker, worker.with_name("student.py")):
            command += ["--ro-bind", str(file), f"/grader/{file.name}"]
        command += ["--ro-bind", str(self.edition), "/grader/library"]
        # nothing that outlives a submission may be written to: each gets a scratch of its own
        return [*command, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", SCRATCH, "--"]

    @property
    def alive(self) -> bool:
        """Whether the worker still runs."""
        return self._process is not None and self._process.poll() is None

    def run(self, job: Job) -> Ended:
        """Run one notebook's cells, then make the calls of each answer.

        A worker that is gone is started anew first; one that goes meanwhile, once more.
        """
        if self.alive:
            try:
                ended = self._run(job)
            except ConnectionError:  # it ended since it was last looked at
                pass
            else:
                if ended.why != "sandbox" or not self._gone_soon():
                    return ended
        self.close()
        self._start()
        return self._run(job)

    def _gone_soon(self) -> bool:
        """Say whether the worker has ended; it is given a second, for the kernel has to tell."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._process is not None:
                self._process.wait(1.0)
        return not self.alive

    def _run(self, job: Job) -> Ended:
        begun = time.monotonic()
        self._ticket += 1
        ours, theirs = socket.socketpair()
        heard, told = os.pipe()
        limits = self.limits
        try:
            try:
                self._announce(theirs.fileno(), told)
            finally:
                theirs.close()
                os.close(told)
            request = job.plain() | {
                "seconds": limits.wall_seconds,
                "cell_seconds": limits.answer_seconds,
            }
            for asked in request["answers"]:
                asked["seconds"] = limits.answer_seconds
            deadline = begun + limits.wall_seconds + _GRACE_SECONDS
            talk = Conversation(len(job.calls))
            talk.hold(ours, values.pack(request), deadline)
            report = self._report(heard, deadline)
        finally:
            ours.close()
            os.close(heard)
        why, detail = _reason(report, talk.odd, talk.complete)
        return Ended(
            {c.answer: outcomes_of(talk.replies.get(c.answer), c, why) for c in job.calls},
            why,
            detail,
            talk.notes,
            ("", "") if talk.complete else talk.at,
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


class Conversation:
    """What is heard from a student's process; none of it is believed.

    Arguments:
        expected: how many answers were asked.
    """

    #: More messages than this are not read: a cell and an answer send one or two each.
    MOST = 10_000

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.replies: dict[str, Any] = {}
        self.notes: list[dict[str, Any]] = []
        self.at = ("", "")
        self.odd = ""

    @property
    def complete(self) -> bool:
        """Whether every answer has been replied to."""
        return len(self.replies) >= self.expected

    def hold(self, connection: socket.socket, request: bytes, deadline: float) -> None:
        """Send the request and listen until all is told, the other side closes or time is up."""
        try:
            _send_all(connection, struct.pack("<Q", len(request)) + request, deadline)
            for _ in range(self.MOST):
                if self.complete:
                    return
                frame = _frame(connection, deadline)
                if frame is None:
                    return
                self.take(values.unpack(frame, REPLY_LIMITS))
            self.odd = "it sent more messages than a notebook has cells and answers"
        except values.NotPlain as error:
            self.odd = f"a reply could not be read: {error}"
        except TimeoutError:
            self.odd = "time"
        except OSError:  # the other side is gone
            return

    def take(self, message: Any) -> None:
        """Take one message.

        Raises:
            NotPlain: it is none.
        """
        if not isinstance(message, dict):
            raise values.NotPlain("it is no message")
        at, answer = message.get("at"), message.get("answer")
        if isinstance(at, list) and len(at) == 2 and all(isinstance(part, str) for part in at):
            self.at = (at[0][:20], at[1][:200])
        elif isinstance(message.get("cell"), dict):
            if len(self.notes) < 200:
                self.notes.append(read_note(message["cell"]))
        elif isinstance(answer, str):
            # the first reply counts: what comes after it cannot take it back
            self.replies.setdefault(answer[:200], message.get("outcomes"))
        else:
            raise values.NotPlain("it is no message")


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


def read_note(note: Any) -> dict[str, Any]:
    """Read a note on a cell; whatever it holds becomes short texts and a number."""
    note = note if isinstance(note, dict) else {}
    index, programs = note.get("index"), note.get("not_run")
    return {
        "index": index if type(index) is int and 0 <= index < 10**6 else -1,
        "error": _text(note.get("error"), 300),
        "printed": _text(note.get("printed"), 2000),
        "not_run": [_text(one, 200) for one in programs[:5]] if isinstance(programs, list) else [],
    }


def _text(value: Any, limit: int) -> str:
    return value[:limit] if isinstance(value, str) else ""


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


def outcomes_of(reply: Any, calls: Calls, why: str) -> list[Outcome]:
    """Read the reply about an answer: an outcome per call, LOST or TOO_SLOW where none came."""
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
    "Job",
    "NoSandbox",
    "Sandbox",
    "SandboxLimits",
    "require_sandbox",
]
