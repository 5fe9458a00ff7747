"""Read strangers' notebooks in a process of their own.

A notebook of a few megabytes can hold a parser for seconds and take gigabytes. This file is both
ends of a pipe: ``Reader`` in the grader, and, run as a program (``python -I reader.py``), the child
that parses. The child has limits on memory and time; one notebook that exceeds them ends the child
and costs nothing else. It imports the standard library only.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import gc
import json
import re
import signal
import struct
import subprocess
import symtable
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

#: A larger notebook is not read, bytes.
MAX_BYTES = 20 * 2**20
#: More cells than this are not read.
MAX_CELLS = 2_000
#: All code cells together, and all text cells together: at most this many bytes of UTF-8.
MAX_CODE = MAX_TEXT = 1_000_000
#: Wall time for one notebook.
SECONDS = 10.0
#: Address space of the child; reading 20 MiB of ordinary JSON takes a tenth of it.
MEMORY = 1_500 * 2**20
#: Code beyond this, from the top of the notebook, is not searched for definitions, characters.
MAX_SEARCHED = 200_000
#: Kinds of pictures that a text may bring; none of them can hold a program.
PICTURES = ("image/png", "image/jpeg", "image/gif")

_LENGTH = struct.Struct("!I")
_OUT_OF_MEMORY = 3
_KINDS = ("code", "markdown", "raw")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_NAME = 200


class Unreadable(ValueError):
    """A submission is not a notebook that can be graded; says what it is instead."""


@dataclass(frozen=True)
class SubmittedNotebook:
    """What was handed in: a notebook's cells without outputs.

    Arguments:
        cells: in order, each with ``cell_type`` ("code", "markdown" or "raw"), ``source``, ``id``
            and ``grade_id`` ("" if there is none). Text cells also have ``attachments``, pictures
            only: by name, base64 by MIME type. Code cells also have ``defines``, the names that
            their top level binds.
        remarks: a sentence for each thing that was passed over.
        language: that the notebook says it is in, whatever it says; "" if it says none.
    """

    cells: tuple[Mapping[str, Any], ...]
    remarks: tuple[str, ...] = ()
    language: str = ""


class Reader:
    """Read notebooks one at a time, in a child that is started when needed; safe among threads.

    Arguments:
        seconds: wall time for one notebook.
        memory: address space of the child, bytes; held on Linux only.

    >>> with Reader() as reader:
    ...     reader.read(b'{"nbformat": 4, "cells": []}').cells
    ()
    """

    def __init__(self, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        self._seconds, self._memory = seconds, memory
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Reader:
        """Give the reader itself; the child is started by the first notebook."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child."""
        self.close()

    def close(self) -> None:
        """End the child; a later ``read`` starts another."""
        with self._lock:
            self._end()

    def read(self, data: bytes) -> SubmittedNotebook:
        """Read a notebook.

        Arguments:
            data: the file's bytes.

        Raises:
            Unreadable: it is not a notebook of format 4 within the limits; says what it is.
        """
        if len(data) > MAX_BYTES:
            raise Unreadable(too_large(len(data)))
        with self._lock:
            reply = self._ask(data)
        if "problem" in reply:
            raise Unreadable(reply["problem"])
        return SubmittedNotebook(tuple(reply["cells"]), tuple(reply["remarks"]), reply["language"])

    def _ask(self, data: bytes) -> dict[str, Any]:
        if self._child is not None and self._child.poll() is not None:
            self._end()  # it died between two notebooks: no notebook is to blame
        child = self._child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            _send(child.stdin, data)
            answer = _receive(child.stdout)
        except (BrokenPipeError, EOFError):
            raise Unreadable(self._why(self._end())) from None
        except BaseException:  # half a reply stays in the pipe: the next notebook needs a new child
            self._end()
            raise
        reply: dict[str, Any] = json.loads(answer)
        return reply

    def _start(self) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
        return subprocess.Popen(
            [*program, str(self._seconds), str(self._memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
        )

    def _end(self) -> int:
        """End the child, if there is one; give its exit code."""
        child, self._child = self._child, None
        if child is None:
            return 0
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # the rest of a notebook that killed it
            child.stdin.close()
        try:
            return child.wait(1.0)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()

    def _why(self, code: int) -> str:
        if code == -signal.SIGALRM:
            return (
                f"reading the notebook takes more than {self._seconds:g} s: clear its outputs, "
                "shorten its cells and hand it in again"
            )
        if code == _OUT_OF_MEMORY:
            return (
                f"reading the notebook takes more than {self._memory // 2**20} MiB: clear its "
                "outputs and hand it in again"
            )
        return (
            f"the program that reads notebooks ended on this one (exit code {code}): save the "
            "notebook again in JupyterLab and hand it in again"
        )


def too_large(size: int) -> str:
    """Say that a file is larger than is read."""
    return (
        f"the file has {size / 2**20:.0f} MiB, at most {MAX_BYTES / 2**20:.0f} are read: clear its "
        "outputs and hand it in again"
    )


def _send(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    head = pipe.read(_LENGTH.size)
    data = pipe.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else b""
    if len(head) < _LENGTH.size or len(data) < _LENGTH.unpack(head)[0]:
        raise EOFError("the pipe was closed")
    return data


# What follows runs in the child.


def parse(data: bytes) -> dict[str, Any]:
    """Read a notebook's bytes into plain cells.

    Returns:
        ``cells``, ``remarks`` and ``language`` as ``SubmittedNotebook`` has them.

    Raises:
        Unreadable: it is not a notebook of format 4 within the limits.
    """
    if not data.strip():
        raise Unreadable("the file is empty")
    try:
        found = _loads(data)
    except UnicodeDecodeError:
        raise Unreadable("it is not a text file, so not a notebook") from None
    except RecursionError:
        raise Unreadable("the file is nested too deeply to be a notebook") from None
    except ValueError as error:
        if data.lstrip()[:1] == b"<":
            raise Unreadable(
                "the file is a web page, not a notebook: download the notebook itself and hand it "
                "in again"
            ) from None
        raise Unreadable(f"the file is damaged or cut off: {str(error)[:120]}") from None
    if not isinstance(found, dict) or "nbformat" not in found:
        raise Unreadable("the file is JSON, but not a notebook")
    if found["nbformat"] != 4:
        raise Unreadable(
            f"the notebook has format {str(found['nbformat'])[:20]}, 4 is needed: open it in "
            "JupyterLab and save it again"
        )
    cells = found.get("cells")
    if not isinstance(cells, list):
        raise Unreadable("the notebook has no list of cells")
    if len(cells) > MAX_CELLS:
        raise Unreadable(
            f"the notebook has {len(cells)} cells, at most {MAX_CELLS} are read: delete cells "
            "that are not needed and hand it in again"
        )
    kept = [cell for cell in map(_cell, cells) if cell]
    _check_sizes(kept)
    remarks = []
    lost = len(cells) - len(kept)
    if lost:
        remarks.append(
            f"{lost} of {len(cells)} cells have no type or source that Jupyter knows and were "
            "passed over."
        )
    left = MAX_SEARCHED
    for cell in (cell for cell in kept if cell["cell_type"] == "code"):
        left -= len(cell["source"])
        known = _defined_before if len(cell["source"]) < 10_000 else defined
        cell["defines"] = known(cell["source"]) if left >= 0 else []
    if left < 0:
        remarks.append(
            f"The code is longer than {MAX_SEARCHED // 1000} kB; what comes later was run, but not "
            "looked through for the names of answers."
        )
    metadata = found.get("metadata")
    own = metadata.get("fewshot") if isinstance(metadata, dict) else None
    said = _name(own.get("language")) if isinstance(own, dict) else ""
    return {"cells": kept, "remarks": remarks, "language": said}


def _loads(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:  # an integer of thousands of digits; none of those means anything here
        return json.loads(data, parse_int=lambda digits: int(digits[:20]))


def _cell(cell: Any) -> dict[str, Any] | None:
    if not isinstance(cell, dict) or cell.get("cell_type") not in _KINDS:
        return None
    source = _joined(cell.get("source") or "")
    if source is None:
        return None
    metadata = cell.get("metadata")
    grading = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    kept = {
        "cell_type": cell["cell_type"],
        "source": source,
        "id": _name(cell.get("id")),
        "grade_id": _name(grading.get("grade_id")) if isinstance(grading, dict) else "",
    }
    if kept["cell_type"] != "code":
        kept["attachments"] = pictures(cell.get("attachments"))
    return kept


def _joined(source: Any) -> str | None:
    """Give a text that a file may hold as lines; None if it is not a text."""
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    return _text(source) if isinstance(source, str) else None


def _text(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)


def _name(name: Any) -> str:
    return _text(name) if isinstance(name, str) and len(name) <= _LONGEST_NAME else ""


def pictures(attachments: Any) -> dict[str, dict[str, str]]:
    """Keep of a cell's attachments what is a picture and nothing else, each in one form."""
    kept: dict[str, dict[str, str]] = {}
    for name, forms in attachments.items() if isinstance(attachments, dict) else ():
        for kind in PICTURES if isinstance(forms, dict) and _name(name) else ():
            data = "".join((_joined(forms.get(kind)) or "").split())
            if data and _is_base64(data):
                kept[_name(name)] = {kind: data}
                break
    return kept


def _is_base64(data: str) -> bool:
    try:
        base64.b64decode(data, validate=True)
    except ValueError:
        return False
    return True


def _check_sizes(cells: list[dict[str, Any]]) -> None:
    sizes = {"code": 0, "text": 0}
    for cell in cells:
        size = len(cell["source"].encode("utf-8"))
        sizes["code" if cell["cell_type"] == "code" else "text"] += size
    for what, most in (("code", MAX_CODE), ("text", MAX_TEXT)):
        if sizes[what] > most:
            raise Unreadable(
                f"the notebook's {what} cells hold {sizes[what] / 1e6:.1f} MB, at most "
                f"{most / 1e6:g} MB is read: keep data in files, not in cells, and hand it in again"
            )


@lru_cache(maxsize=1024)  # most cells of most submissions are those that were handed out
def _defined_before(source: str) -> list[str]:
    return defined(source)


def defined(source: str) -> list[str]:
    """Give the names that a cell's top level binds, sorted; none if it is no Python.

    >>> defined("import os\\ndef f(): local = 1\\n%time\\ng = h = 1")
    ['f', 'g', 'h', 'os']
    """
    try:
        symbols = symtable.symtable(python(source), "cell", "exec").get_symbols()
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return sorted(s.get_name() for s in symbols if s.is_assigned() or s.is_imported())


# A line of IPython's own: %magic, !command, ?name, name?; also assigned: x = !ls, x = %timeit 1
_SHELL = re.compile(r"^(?P<before>\s*(?:[\w.,\s\[\]]+=\s*(?=[%!]))?)(?:[%!?]|[\w.%*]+\?{1,2}\s*$)")
_CELL_MAGIC = re.compile(r"\s*%%(?P<name>\w+)")
#: Cell magics that run their cell as Python; every other one makes the cell something else.
_PYTHON_MAGICS = frozenset(("time", "timeit", "capture", "prun"))


def python(source: str) -> str:
    """Turn a cell into plain Python: what only IPython understands becomes ``None``.

    >>> print(python("%matplotlib inline\\nfiles = !ls \\\\\\n  -l\\nx = 1\\nx?"))
    None
    files = None
    x = 1
    None
    """
    magic = _CELL_MAGIC.match(source)
    if magic:
        rest = source[magic.end() :].partition("\n")[2]
        return python(rest) if magic["name"] in _PYTHON_MAGICS else ""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass  # perhaps IPython's
    else:
        return source
    lines, goes_on = [], False
    for line in source.split("\n"):
        shell = None if goes_on else _SHELL.match(line)
        if shell:
            lines.append(f"{shell['before']}None")
        elif not goes_on:
            lines.append(line)
        goes_on = bool(shell or goes_on) and line.endswith("\\")
    return "\n".join(lines)


def serve(seconds: float, memory: int) -> None:
    """Answer notebooks on standard input with cells on standard output, until it is closed."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the grader's to answer
    coming, going = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            data = _receive(coming)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, seconds)  # its signal ends this process
        gc.disable()  # millions of small lists are not rubbish, but take seconds to look through
        try:
            reply = parse(data)
        except Unreadable as error:
            reply = {"problem": _text(str(error))}
        except MemoryError:
            sys.exit(_OUT_OF_MEMORY)
        except Exception as error:
            said = _text(f"{type(error).__name__}: {error}")[:200]
            reply = {"problem": f"the program that reads notebooks failed on this one ({said})"}
        gc.enable()
        answer = json.dumps(reply, ensure_ascii=False, allow_nan=False).encode("utf-8")
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(going, answer)


if __name__ == "__main__":
    serve(float(sys.argv[1]), int(sys.argv[2]))
