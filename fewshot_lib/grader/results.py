"""Keep results: rows appended as they come, by one grader at a time.

``results.jsonl`` is the truth: one JSON row per graded submission, written and synced before the
next one begins. A later row of the same student and exercise takes the place of an earlier one;
the earlier one stays in the file. Every row carries a receipt: what ``--verify`` needs to repeat
it, when it was written, and a checksum that tells a damaged row from a whole one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fewshot_lib import __version__

FORMAT = 2
#: How a row can end. In the last two the grader or the machine failed, not the submission.
STATUSES = ("graded", "not read", "time", "memory", "died", "sandbox", "fault")
#: Rows that ended so are graded again by the next run.
NOT_DONE = frozenset(("sandbox", "fault"))
#: No row takes more than this, bytes.
MAX_ROW = 200_000
#: A string in a row is cut to this length; source and texts to the second.
_LONGEST, _LONGEST_SOURCE = 4_000, 20_000
_MOST_ITEMS, _DEEPEST = 500, 8
_SURROGATE = re.compile("[\ud800-\udfff]")
_NUMBERS, _RECEIPT = ("points", "max_points"), ("submission", "specification", "hash")
_CHECK = ("id", "answer", "status", "message", "mistake")


class BadResults(ValueError):
    """A results folder cannot be used: not ours, another course's, or damaged; says which."""


class NotWritten(RuntimeError):
    """A row could not be written; the rows before it are safe."""


def canonical(value: Any) -> bytes:
    """Write JSON in the one form that hashes are taken of."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def digest(*parts: bytes | str) -> str:
    """Hash parts, each with its length, so that no two lists of parts share a hash."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()


def row_hash(row: Mapping[str, Any]) -> str:
    """Give a row's checksum: the hash of everything in it but the checksum itself."""
    receipt = {key: part for key, part in row["receipt"].items() if key != "hash"}
    return digest(canonical({**row, "receipt": receipt}))


def versions(worker: Mapping[str, Any]) -> dict[str, str]:
    """Name what graded: the course, Python, and what the worker reports."""
    own = {"course": __version__, "system": platform.system()}
    return {**own, **{f"worker {key}": str(part) for key, part in worker.items()}}


# ------------------------------------------------------------------------------------------ a row


def cut_to_fit(row: Mapping[str, Any]) -> dict[str, Any]:
    """Give a row that can be written, whatever a submission made it hold.

    Strings, lists and keys that are too long are cut; what JSON cannot hold becomes text. If the
    row is still larger than ``MAX_ROW``, its strings are cut shorter until it fits. A row that was
    cut for its size says so in its notes.

    >>> len(cut_to_fit({"notes": ["x" * 10**6]})["notes"][0])
    4000
    """
    for shorter in (1, 4, 20, 100):
        cut = {
            key: part
            if key in ("student", "exercise") and not _SURROGATE.search(part)
            else _plain(part, _LONGEST_SOURCE if key in ("code", "texts") else _LONGEST, shorter)
            for key, part in row.items()
        }
        if shorter > 1:
            said = "This row was too large to be kept whole; its longer parts were cut."
            cut["notes"] = [said, *cut.get("notes", [])]
        if len(canonical(cut)) < MAX_ROW:
            return cut
    # what is left when even short strings are too many: the mark and how it came about
    kept = ("student", "exercise", "status", "points", "max_points", "checks", "seconds", "receipt")
    left = {key: type(part)() for key, part in cut.items() if key not in kept}
    return {**{key: cut[key] for key in kept if key in cut}, **left, "notes": [said]}


def _plain(value: Any, longest: int, shorter: int, depth: int = 0) -> Any:
    limit, most = longest // shorter, _MOST_ITEMS // shorter
    if isinstance(value, str):
        short = value if len(value) <= limit else value[: limit - 1] + "…"
        return _SURROGATE.sub("\ufffd", short)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value.bit_length() < 64 else "a number too large to be kept"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth >= _DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        pairs = list(value.items())[:most]
        return {
            _plain(str(key), 200, 1): _plain(part, longest, shorter, depth + 1)
            for key, part in pairs
        }
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return [_plain(part, longest, shorter, depth + 1) for part in islice(value, most)]
    return _plain(str(type(value).__name__), longest, shorter)


def parse_row(line: bytes) -> tuple[dict[str, Any] | None, str]:
    """Read one line of the file: the row, or None and what is wrong with it."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None, "it is not JSON"
    try:
        receipt = row["receipt"]
        whole = (
            all(isinstance(row[name], str) for name in ("student", "exercise", "status"))
            and all(_is_number(row[name]) for name in _NUMBERS)
            and all(isinstance(receipt[name], str) for name in _RECEIPT)
            and all(isinstance(note, str) for note in row["notes"])
            and all(
                all(_is_number(check[name]) for name in _NUMBERS)
                and all(isinstance(check[name], str) for name in _CHECK)
                for check in row["checks"]
            )
        )
        if not whole:
            return None, "it is not a row of a grader"
        if receipt["hash"] != row_hash(row):
            return None, "it was changed after it was written"
    except (KeyError, TypeError, AttributeError, UnicodeEncodeError):
        return None, "it is not a row of a grader"
    return row, ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# --------------------------------------------------------------------------------------- the file


@dataclass(frozen=True)
class Damage:
    """A line of ``results.jsonl`` that cannot be used.

    Arguments:
        number: of the line, from 1.
        why: what is wrong with it.
        about: whose row it seems to be, as far as that can be read.
    """

    number: int
    why: str
    about: str = ""


def examine(file: Path) -> Iterator[tuple[bytes, dict[str, Any] | None, Damage | None]]:
    """Go through a file of rows: each line with its row, or with what is wrong with it.

    A last line without an end is one that a kill or a full disk cut off: it is damage, too.
    """
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            row, why = parse_row(line)
            if not line.endswith(b"\n"):
                row, why = None, UNFINISHED
            yield line, row, None if row is not None else Damage(number, why, _about(line))


#: What is said of a last line that was cut off.
UNFINISHED = "it was cut off while it was written"


def _about(line: bytes) -> str:
    found = [
        re.search(rf'"{name}":\s?"([^"\\]{{1,200}})"'.encode(), line)
        for name in ("student", "exercise")
    ]
    return ", ".join(match[1].decode("utf-8", "replace") for match in found if match)


def read_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Read rows in the order they were written; a last row that is cut off is left out.

    Raises:
        BadResults: a row is damaged; says which, and the command that repairs it.
    """
    if not file.is_file():
        return
    for _, row, damage in examine(file):
        if row is not None:
            yield row
        elif damage is not None and damage.why != UNFINISHED:
            about = f" ({damage.about})" if damage.about else ""
            raise BadResults(
                f"row {damage.number} of {file}{about} is damaged: {damage.why}; "
                f"`fewshot report --repair {file.parent}` takes out what is damaged, keeps a copy "
                "of the file, and says what it took out"
            )


def unfinished(file: Path) -> bool:
    """Say whether the last row of a file was cut off."""
    if not file.is_file() or not file.stat().st_size:
        return False
    with file.open("rb") as lines:
        lines.seek(-1, os.SEEK_END)
        return lines.read(1) != b"\n"


def repair(folder: Path) -> tuple[list[Damage], Path | None]:
    """Take damaged rows out of a results folder; the file as it was is kept beside it.

    Returns:
        What was taken out, and where the old file is; None if nothing was damaged.

    Raises:
        BadResults: there is no file of rows, or a grader is at work on it.
    """
    file = folder / "results.jsonl"
    if not file.is_file():
        raise BadResults(
            f"{folder} is not a results folder of this grader: it has no results.jsonl"
        )
    lock = _lock(folder, wait=False)
    try:
        found = list(examine(file))
        damaged = [damage for _, _, damage in found if damage is not None]
        if not damaged:
            return [], None
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
        old, new = folder / f"results.damaged-{stamp}.jsonl", folder / f"results.new-{os.getpid()}"
        with new.open("wb") as out:
            out.writelines(line for line, row, _ in found if row is not None)
            out.flush()
            os.fsync(out.fileno())
        os.link(file, old)  # at no moment is there no file
        new.replace(file)
        return damaged, old
    finally:
        lock.release()


def _lock(folder: Path, wait: bool) -> FileLock:
    """Take the lock of a results folder, so that it has one writer at a time.

    Raises:
        BadResults: another grader holds it and ``wait`` is False.
    """
    # one lock per file and process: a second one in the same thread would wait for itself
    lock = FileLock(folder / "results.lock", is_singleton=True)
    if lock.is_locked:
        raise BadResults(f"{folder} is already open for writing in this program; close it first")
    try:
        lock.acquire(timeout=0)
        return lock
    except Timeout:
        if not wait:
            raise BadResults(
                f"another grader is at work on {folder}: repeat the command when it has ended"
            ) from None
    print(
        f"Another grader is at work on {folder}; this one waits until it has ended and then does "
        "what is left (Ctrl-C ends the waiting).",
        file=sys.stderr,
    )
    lock.acquire()
    return lock


class Results:
    """The rows of one results folder, open for writing; use it in a ``with`` statement.

    Only one can be open at a time: a second one, in whatever program, waits for the first.

    Arguments:
        folder: made if it is not there.
        course: what this run grades; a folder that was begun for another course is refused.

    Raises:
        BadResults: the folder belongs to something else, or rows are damaged. A last row that was
            cut off by a kill is taken back and graded again; ``remarks`` says so.
    """

    def __init__(self, folder: Path, course: str) -> None:
        self.folder, self.file = folder, folder / "results.jsonl"
        self.remarks: list[str] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadResults(f"{folder} cannot be made: {error.strerror}") from None
        self._refuse_foreign()
        self._held = _lock(folder, wait=True)
        try:
            self.settings = self._settings(course)
            self._drop_unfinished()
            self.rows = list(read_rows(self.file))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Results:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let the next grader in."""
        self.close()

    def close(self) -> None:
        """Let the next grader in."""
        self._held.release()

    def _refuse_foreign(self) -> None:
        ours = ("run.json", "results.lock")
        there = {path.name for path in self.folder.iterdir()}
        if "run.json" not in there and there - set(ours):
            raise BadResults(
                f"{self.folder} is not empty and was not begun by this grader; name a new folder"
            )

    def _settings(self, course: str) -> dict[str, Any]:
        self._refuse_foreign()  # once more: another grader may have begun here meanwhile
        if not (self.folder / "run.json").is_file():
            return {"course": course, "format": FORMAT}
        settings = read_settings(self.folder)
        if settings.get("course") != course:
            raise BadResults(
                f"{self.folder} holds the results of another course; name a new results folder"
            )
        return settings

    def remember(self, **settings: Any) -> None:
        """Save settings of the run (its seed), atomically; None forgets one."""
        self.settings.update(settings)
        kept = {key: part for key, part in self.settings.items() if part is not None}
        self.settings = kept
        write_atomically(self.folder / "run.json", json.dumps(kept, indent=1))

    def _drop_unfinished(self) -> None:
        if not unfinished(self.file):
            return
        with self.file.open("rb+") as file:
            data = file.read()
            end = data.rfind(b"\n") + 1
            about = _about(data[end:])
            file.truncate(end)
        self.remarks.append(
            f"The last row of {self.file}{f' ({about})' if about else ''} was cut off while it was "
            "written; it is taken out, and that submission is graded again."
        )

    def append(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Add a row with its receipt, and see that it is on the disk.

        Raises:
            NotWritten: it could not be written (a full disk); what is there stays as it was.
        """
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        written = cut_to_fit({**row, "receipt": {**row["receipt"], "at": now}})
        written["receipt"]["hash"] = row_hash(written)
        size = self.file.stat().st_size if self.file.exists() else None
        try:
            with self.file.open("ab") as file:
                file.write(canonical(written) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if size is None:
                self.file.unlink(missing_ok=True)
            else:
                os.truncate(self.file, size)
            raise NotWritten(
                f"a result could not be written ({error.strerror}); the {len(self.rows)} rows "
                "before it are safe. Make room and repeat the command: it goes on from there."
            ) from None
        self.rows.append(written)
        return written

    def done(self, since: int = 0) -> set[tuple[str, str, str, str]]:
        """Give what need not be graded again: student, exercise, hashes of submission and
        specification; only of rows from number ``since`` on.
        """
        return {key_of(row) for row in self.rows[since:] if row["status"] not in NOT_DONE}


def key_of(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Give what makes a row superfluous to repeat."""
    receipt = row["receipt"]
    return row["student"], row["exercise"], receipt["submission"], receipt["specification"]


def current(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the last row of each student and exercise, in the order of students."""
    last = {(row["student"], row["exercise"]): row for row in rows}
    return [last[key] for key in sorted(last)]


def earlier(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Give the rows that a later one of the same student and exercise took the place of."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["student"], row["exercise"]), []).append(row)
    return {key: its_rows[:-1] for key, its_rows in sorted(found.items()) if len(its_rows) > 1}


def read_settings(folder: Path) -> dict[str, Any]:
    """Read what a results folder says of its run.

    Raises:
        BadResults: it is not a results folder, of an older format, or ``run.json`` is damaged.
    """
    file = folder / "run.json"
    if not file.is_file():
        raise BadResults(f"{folder} is not a results folder of this grader: it has no run.json")
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise BadResults(
            f"{file} is damaged: name a new results folder; the rows in {folder / 'results.jsonl'} "
            "are not touched"
        ) from None
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise BadResults(
            f"{folder} holds results of another format than this grader's ({FORMAT}); name a new "
            "results folder"
        )
    wanted: dict[str, Callable[[Any], bool]] = {
        "course": lambda part: isinstance(part, str),
        "seed": lambda part: isinstance(part, int),
        "folders": lambda part: isinstance(part, list) and all(map(_is_folder, part)),
        "isolation": lambda part: isinstance(part, str),
        "limits": lambda part: isinstance(part, dict) and all(map(_is_number, part.values())),
        "due": lambda part: isinstance(part, dict) and all(map(_is_due, part.values())),
        "roster": lambda part: isinstance(part, list),
        "regrading": lambda part: isinstance(part, dict),
    }
    for name, fits in wanted.items():
        if name in settings and not fits(settings[name]):
            raise BadResults(f"{file} is damaged at {name!r}: name a new results folder")
    return settings


def _is_folder(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("place"), str)


def _is_due(part: Any) -> bool:
    try:
        return _is_number(part["percent"]) and bool(datetime.fromisoformat(part["at"]))
    except (KeyError, TypeError, ValueError):
        return False


def write_atomically(file: Path, content: str | bytes) -> Path:
    """Write a file so that an interruption leaves the old one or the new one, never half."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.new-{os.getpid()}")
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    temporary.write_bytes(data)
    temporary.replace(file)
    return file
