"""What is said between the grader and the process that runs a notebook, and how it is read.

The request goes in once; messages come out as things happen, each a length and a plain value.
None of it is trusted: it is read with limits, and what is not a message ends it.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewshot_lib.checker import values
from fewshot_lib.checker.run import LOST, TOO_SLOW, Outcome
from fewshot_lib.checker.spec import Case

#: What one message may hold: the outcome of one call, or a note.
REPLY_LIMITS = values.Limits(max_bytes=64 * 2**20, max_items=25_000, max_depth=12)
#: What all messages of one run may hold together, bytes, and the processor time to read them.
MAX_BYTES, MAX_SECONDS = 128 * 2**20, 5.0


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

    def request(self, seconds: float, part_seconds: float) -> bytes:
        """Write the job for the process that runs it: how long all of it may take, and a part."""
        return values.pack(self.plain() | {"seconds": seconds, "part_seconds": part_seconds})

    def plain(self) -> dict[str, Any]:
        """Give the job as a plain value, to cross to another process; its cells are JSON."""
        return {
            "cells": json.dumps([dict(cell) for cell in self.cells]),
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
        return cls(json.loads(data["cells"]), calls, data["skip"], data["stand_in"])


@dataclass(frozen=True)
class RunReport:
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


class Conversation:
    """The messages of a student's process; none of them is trusted.

    Arguments:
        job: what was asked.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.outcomes: dict[tuple[str, int], Outcome] = {}
        self.notes: list[dict[str, Any]] = []
        self.at = ("", "")
        self.fault = ""
        self._expected = {(c.answer, number) for c in job.calls for number in range(len(c.cases))}
        self._bytes, self._seconds = 0, 0.0

    @property
    def complete(self) -> bool:
        """Whether every call has been replied to."""
        return len(self.outcomes) == len(self._expected)

    def exchange(self, connection: socket.socket, request: bytes, deadline: float) -> None:
        """Send the request and listen until all is told, the other side closes or time is up."""
        try:
            _send_all(connection, struct.pack("<Q", len(request)) + request, deadline)
            frames = _Frames(connection, deadline)
            while not self.complete:
                frame = frames.frame()
                if frame is None:
                    return
                self.read(frame)
        except values.NotPlain as error:
            self.fault = f"a reply could not be read: {error}"
        except TimeoutError:
            self.fault = "time"
        except OSError:  # the other side is gone
            return

    def read(self, frame: bytes) -> None:
        """Read one message.

        Raises:
            NotPlain: it is none, or all messages together are too large or take too long to read.
        """
        begun = time.thread_time()
        self._bytes += len(frame)
        if self._bytes > MAX_BYTES:
            raise values.NotPlain(f"more than {MAX_BYTES >> 20} MiB came in all")
        self._take(values.unpack(frame, REPLY_LIMITS))
        self._seconds += time.thread_time() - begun
        if self._seconds > MAX_SECONDS:
            raise values.NotPlain(f"it took more than {MAX_SECONDS:.0f} s to read")

    def _take(self, message: Any) -> None:
        if not isinstance(message, dict):
            raise values.NotPlain("it is not a message")
        at, answer, number = message.get("at"), message.get("answer"), message.get("case")
        if isinstance(at, list) and len(at) == 2 and all(isinstance(part, str) for part in at):
            self.at = (at[0][:20], at[1][:200])
        elif isinstance(message.get("cell"), dict):
            if len(self.notes) < 200:
                self.notes.append(read_note(message["cell"]))
        elif isinstance(answer, str) and type(number) is int:
            if (answer, number) not in self._expected:
                raise values.NotPlain("it is about a call that was not made")
            # the first reply counts: what comes after it cannot take it back
            self.outcomes.setdefault((answer, number), Outcome.from_dict(message.get("outcome")))
        else:
            raise values.NotPlain("it is not a message")

    def of(self, calls: Calls, why: str) -> list[Outcome]:
        """Give an outcome per call of an answer: LOST, or TOO_SLOW, where no reply came."""
        missing = Outcome(TOO_SLOW if why == "time" else LOST)
        return [
            self.outcomes.get((calls.answer, number), missing) for number in range(len(calls.cases))
        ]


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


def _send_all(connection: socket.socket, data: bytes, deadline: float) -> None:
    view = memoryview(data)
    while view:
        connection.settimeout(max(deadline - time.monotonic(), 0.01))
        view = view[connection.send(view[: 1 << 20]) :]


class _Frames:
    """Cut what comes into messages; what came with one is kept for the next."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection, self._deadline = connection, deadline
        self._buffer = bytearray()

    def frame(self) -> bytes | None:
        """Give the next message; None if nothing more comes."""
        if not self._wait_for(8):
            return None
        (size,) = struct.unpack("<Q", self._buffer[:8])
        if size > REPLY_LIMITS.max_bytes:
            raise values.NotPlain(f"a reply of {size} bytes was announced")
        if not self._wait_for(8 + size):
            raise values.NotPlain("it ended in the middle")
        with memoryview(self._buffer) as buffer:
            frame = bytes(buffer[8 : 8 + size])
        del self._buffer[: 8 + size]
        return frame

    def _wait_for(self, size: int) -> bool:
        """Receive until so many bytes are there; False if the other side closes before."""
        while len(self._buffer) < size:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._connection.settimeout(left)
            piece = self._connection.recv(min(max(size - len(self._buffer), 1 << 16), 1 << 20))
            if not piece:
                return False
            self._buffer += piece
        return True
