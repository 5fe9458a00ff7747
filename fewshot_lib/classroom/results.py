"""Keep results: rows appended as they come, each a receipt in a chain of hashes.

``results.jsonl`` is the truth: one JSON row a graded submission, written and synced before the next
one begins. A later row of the same student and exercise takes the place of an earlier one. Every
row names the hash of the row before it, so that a changed, dropped or inserted row shows.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fewshot_lib import __version__

FORMAT = 1
FIRST = "0" * 64


class BadResults(ValueError):
    """A results folder cannot be used: not ours, another course's, or tampered with; says which."""


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
    """Hash a row without its own hash."""
    receipt = {key: part for key, part in row["receipt"].items() if key != "hash"}
    return digest(canonical({**row, "receipt": receipt}))


def versions(worker: Mapping[str, Any]) -> dict[str, str]:
    """Name what graded: the course, Python, and what the worker reports."""
    own = {"course": __version__, "system": platform.system()}
    return {**own, **{f"worker {key}": str(part) for key, part in worker.items()}}


class Results:
    """The rows of one results folder.

    Arguments:
        folder: made if it is not there.
        course: what this run grades; a folder that was begun for another course is refused.

    Raises:
        BadResults: the folder belongs to something else, or rows are damaged (a last row that was
            cut off by a kill is taken back silently: it was never complete).
    """

    def __init__(self, folder: Path, course: str) -> None:
        self.folder, self.file = folder, folder / "results.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadResults(f"{folder} cannot be made: {error.strerror}") from None
        self.settings = self._settings(course)
        self._drop_unfinished()
        self.rows = list(read_rows(self.file))
        self._last = self.rows[-1]["receipt"]["hash"] if self.rows else FIRST

    def _settings(self, course: str) -> dict[str, Any]:
        file = self.folder / "run.json"
        if file.is_file():
            try:
                settings = json.loads(file.read_text(encoding="utf-8"))
            except ValueError:
                raise BadResults(f"{file} is damaged; name a new results folder") from None
            if not isinstance(settings, dict) or settings.get("course") != course:
                raise BadResults(
                    f"{self.folder} holds the results of another course or of an older format; "
                    "name a new results folder"
                )
            return settings
        if self.file.exists() or any(self.folder.iterdir()):
            raise BadResults(
                f"{self.folder} is not empty and was not begun by this grader; name a new folder"
            )
        return {"course": course, "format": FORMAT}

    def remember(self, **settings: Any) -> None:
        """Save settings of the run (its seed), atomically."""
        self.settings.update(settings)
        temporary = self.folder / "run.json.new"
        temporary.write_text(json.dumps(self.settings, indent=1), encoding="utf-8")
        temporary.replace(self.folder / "run.json")

    def _drop_unfinished(self) -> None:
        if not self.file.is_file():
            return
        with self.file.open("rb+") as file:
            data = file.read()
            end = data.rfind(b"\n") + 1
            if end != len(data):
                file.truncate(end)

    def append(self, row: dict[str, Any]) -> dict[str, Any]:
        """Add a row with its receipt, and see that it is on the disk.

        Raises:
            NotWritten: it could not be written (a full disk); what is there stays as it was.
        """
        row = {**row, "receipt": {**row["receipt"], "previous": self._last}}
        row["receipt"]["hash"] = row_hash(row)
        line = canonical(row) + b"\n"
        size = self.file.stat().st_size if self.file.exists() else 0
        try:
            with self.file.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with self.file.open("rb+") as file:
                file.truncate(size)
            raise NotWritten(
                f"a result could not be written ({error.strerror}); the {len(self.rows)} rows "
                "before it are safe. Make room and repeat the command: it goes on from there."
            ) from None
        self._last = row["receipt"]["hash"]
        self.rows.append(row)
        return row

    def done(self) -> set[tuple[str, str, str, str]]:
        """Give what is graded: student, exercise, hash of submission, hash of specification."""
        return {key_of(row) for row in current(self.rows)}


def key_of(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Give what makes a row superfluous to repeat."""
    receipt = row["receipt"]
    return row["student"], row["exercise"], receipt["submission"], receipt["specification"]


def current(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the last row of each student and exercise, in the order of students."""
    last = {(row["student"], row["exercise"]): row for row in rows}
    return [last[key] for key in sorted(last)]


def read_rows(file: Path) -> Iterable[dict[str, Any]]:
    """Read rows and check the chain.

    Raises:
        BadResults: a row is damaged, or the chain is broken; says which row.
    """
    if not file.is_file():
        return
    previous = FIRST
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                linked = row["receipt"]["previous"] == previous
                whole = row["receipt"]["hash"] == row_hash(row)
            except (ValueError, KeyError, TypeError):
                raise BadResults(f"row {number} of {file} is damaged") from None
            if not linked or not whole:
                raise BadResults(
                    f"row {number} of {file} was changed after it was written, or a row before it "
                    "was taken out"
                )
            previous = row["receipt"]["hash"]
            yield row
