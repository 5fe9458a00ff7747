"""What a reader has done so far: one local file, one row an answer or question.

Nothing leaves the machine. The file survives two notebooks that write at once (a lock, and a new
file put in place of the old one), and a damaged file is kept aside and said so.
"""

from __future__ import annotations

import datetime as dt
import html
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

VERSION = 1
LOCK_SECONDS = 3.0


@dataclass(frozen=True)
class Row:
    """What is remembered of one answer or question.

    Arguments:
        key: "prototypes.class_prototypes", or "question:prototypes.mean".
        attempts: how often it was tried (the stub as it was is no attempt).
        hints: how many steps of its hints were read.
        points, max_points: of the best attempt.
        passed: when it was first right (UTC, ISO 8601), or "".
        attempts_to_pass: how many attempts that had taken.
    """

    key: str
    attempts: int = 0
    hints: int = 0
    points: float = 0.0
    max_points: float = 0.0
    passed: str = ""
    attempts_to_pass: int = 0


class ProgressNotSaved(RuntimeError):
    """The progress file cannot be written; the message says why. No reason to stop a lesson."""


def path() -> Path:
    """Give the progress file: ``$FEWSHOT_PROGRESS``, or one in the user's data folder."""
    override = os.environ.get("FEWSHOT_PROGRESS")
    if override:
        return Path(override).expanduser()
    return Path(platformdirs.user_data_dir("fewshot-course", appauthor=False)) / "progress.json"


def recording() -> bool:
    """Say whether attempts made here count: not in the folder of the solutions."""
    try:
        return Path.cwd().name != "solutions"
    except OSError:
        return True


def load() -> dict[str, Row]:
    """Read all rows, by key; an absent file has none.

    A damaged file is renamed (``progress.damaged-….json``) and a line says so; then there are none.

    >>> isinstance(load(), dict)
    True
    """
    return _read(path())


def attempt(key: str, points: float, max_points: float) -> Row:
    """Remember one attempt; all points make it passed.

    Returns:
        The row as it is now.

    Raises:
        ProgressNotSaved: the file cannot be written.
    """

    def change(row: Row) -> Row:
        attempts = row.attempts + 1
        row = replace(row, attempts=attempts, points=max(row.points, points), max_points=max_points)
        if points >= max_points and not row.passed:
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            row = replace(row, passed=now, attempts_to_pass=attempts)
        return row

    return _update(key, change)


def hint_read(key: str, steps: int) -> Row:
    """Remember that the first ``steps`` hints of an answer or question were read."""
    return _update(key, lambda row: replace(row, hints=max(row.hints, steps)))


def reset(prefix: str = "") -> int:
    """Forget all rows whose key begins with ``prefix`` (all, by default); say how many.

    Raises:
        ProgressNotSaved: the file cannot be written.
    """
    file = path()
    with _locked(file):
        rows = _read(file)
        kept = {key: row for key, row in rows.items() if not _begins(key, prefix)}
        _write(file, kept)
    return len(rows) - len(kept)


def _begins(key: str, prefix: str) -> bool:
    return key.startswith(prefix) or key.startswith(f"question:{prefix}")


def _update(key: str, change: Callable[[Row], Row]) -> Row:
    file = path()
    with _locked(file):
        rows = _read(file)
        rows[key] = change(rows.get(key, Row(key)))
        _write(file, rows)
    return rows[key]


class _locked:
    """Hold the progress file's lock; say in one sentence if it cannot be had."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(f"{self.file}.lock")
            self.lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise ProgressNotSaved(f"another program holds {self.file}.lock") from None
        except (OSError, NotImplementedError) as error:
            raise ProgressNotSaved(f"{self.file} cannot be written: {error}") from None

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def _read(file: Path) -> dict[str, Row]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        return _set_aside(file, str(error))
    try:
        data = json.loads(text)
        if data["version"] != VERSION:
            raise ValueError(f"it is of version {data['version']}, this library reads {VERSION}")
        rows = [_row(entry) for entry in data["rows"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return _set_aside(file, str(error))
    return {row.key: row for row in rows}


def _row(entry: object) -> Row:
    if not isinstance(entry, dict):
        raise TypeError("a row is no object")
    row = Row(**entry)
    for name, default in asdict(Row("")).items():
        value = getattr(row, name)
        wanted = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise TypeError(f"{name} of {row.key!r} is {value!r}")
    return row


def _set_aside(file: Path, reason: str) -> dict[str, Row]:
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S%f")
    aside = file.with_name(f"{file.stem}.damaged-{stamp}{file.suffix}")
    try:
        file.replace(aside)
    except OSError as error:
        print(f"The progress file {file} cannot be read ({reason}) nor set aside ({error}).")
        return {}
    print(f"The progress file was damaged ({reason[:120]}); it is kept as {aside}. Counting anew.")
    return {}


def _write(file: Path, rows: dict[str, Row]) -> None:
    body = {"version": VERSION, "rows": [asdict(row) for _, row in sorted(rows.items())]}
    name = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=file.parent, prefix=".progress-", delete=False
        ) as handle:
            name = handle.name
            json.dump(body, handle, indent=1)
            handle.flush()
            os.fsync(handle.fileno())
        Path(name).replace(file)
    except OSError as error:
        if name:
            Path(name).unlink(missing_ok=True)
        raise ProgressNotSaved(f"{file} cannot be written: {error}") from None


@dataclass(frozen=True)
class Item:
    """One thing that can be done: its key, how it is called, its group, points and minutes.

    Questions have no points; they are shown together, one mark each.
    """

    key: str
    title: str
    group: str
    points: float = 0.0
    minutes: int = 0

    @property
    def is_question(self) -> bool:
        """Whether this is a question, by its key."""
        return self.key.startswith("question:")


@dataclass(frozen=True)
class Panel:
    """Where a reader stands: text in a terminal, a table in a notebook.

    Arguments:
        items: all that can be done, in order.
        rows: what was done.
    """

    items: Sequence[Item]
    rows: dict[str, Row]

    def row(self, item: Item) -> Row:
        """Give what was done of an item."""
        return self.rows.get(item.key, Row(item.key))

    def lines(self) -> list[tuple[str, str, str, str]]:
        """Give the panel line by line: mark, title, minutes, words; a group has no mark."""
        lines = []
        for group in dict.fromkeys(item.group for item in self.items):
            members = [item for item in self.items if item.group == group]
            lines.append(("", group, "", self._score(members)))
            for item in members:
                if not item.is_question:
                    mark, words = _state(self.row(item))
                    lines.append((mark, item.title, f"{item.minutes} min", words))
            asked = [item for item in members if item.is_question]
            if asked:
                right = sum(bool(self.row(item).passed) for item in asked)
                marks = "".join(_state(self.row(item))[0] for item in asked)
                mark = "●" if right == len(asked) else "◐" if set(marks) - {"○"} else "○"
                lines.append((mark, "questions", "", f"{marks} {right} of {len(asked)} answered"))
        return lines

    def _score(self, items: Sequence[Item]) -> str:
        answers = [item for item in items if not item.is_question]
        if not answers:
            return ""
        got = sum(self.row(item).points for item in answers)
        return f"{got:g} of {sum(item.points for item in answers):g} points"

    @property
    def total(self) -> str:
        """The whole in one line."""
        answers = [item for item in self.items if not item.is_question]
        asked = [item for item in self.items if item.is_question]
        said = []
        for things, what in ((answers, "answers passed"), (asked, "questions answered")):
            if things:
                done = sum(bool(self.row(item).passed) for item in things)
                said.append(f"{done} of {len(things)} {what}")
        return ", ".join([*said, self._score(self.items)]) if said else "there are no exercises"

    def __repr__(self) -> str:
        lines = self.lines()
        width = max((len(title) for mark, title, _, _ in lines if mark), default=0)
        text = [f"Your progress: {self.total}"]
        for mark, title, minutes, words in lines:
            if mark:
                text.append(f"  {mark} {title:<{width}} {minutes:>7}  {words}")
            else:
                text.append(f"{title}  {words}".rstrip())
        return "\n".join(text)

    def _repr_html_(self) -> str:
        rows = []
        for mark, title, minutes, words in self.lines():
            if mark:
                rows.append(
                    f'<tr><td style="padding:.1em .6em .1em .4em">{mark}</td>'
                    f'<td style="text-align:left;padding:.1em 1.5em .1em 0">{html.escape(title)}'
                    f'</td><td style="text-align:right;padding:.1em 1.5em .1em 0">{minutes}</td>'
                    f'<td style="text-align:left">{html.escape(words)}</td></tr>'
                )
            else:
                rows.append(
                    '<tr><th scope="rowgroup" colspan="3" style="text-align:left;padding:.6em '
                    f'1.5em .1em 0">{html.escape(title)}</th><td style="text-align:left;'
                    f'padding:.6em 0 .1em">{html.escape(words)}</td></tr>'
                )
        return (
            '<table style="border-collapse:collapse"><caption style="text-align:left">'
            f"<b>Your progress</b>: {html.escape(self.total)}</caption><tbody>{''.join(rows)}"
            "</tbody></table>"
        )


def _state(row: Row) -> tuple[str, str]:
    hints = f", {_times(row.hints, 'hint')}" if row.hints else ""
    if row.passed:
        return "●", f"passed {row.passed[:10]}, attempt {row.attempts_to_pass}{hints}"
    if row.attempts:
        score = f"{row.points:g} of {row.max_points:g} points"
        return "◐", f"{score} after {_times(row.attempts, 'attempt')}{hints}"
    return "○", f"not begun{hints}"


def _times(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
