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
from collections.abc import Callable, Iterable, Sequence
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
    """One thing that can be done: its key, how it is called, its group, points and minutes."""

    key: str
    title: str
    group: str
    points: float
    minutes: int = 0


@dataclass(frozen=True)
class Panel:
    """Where a reader stands: text in a terminal, a table in a notebook.

    Arguments:
        items: all that can be done, in order.
        rows: what was done.
    """

    items: Sequence[Item]
    rows: dict[str, Row]

    def groups(self) -> list[tuple[str, list[tuple[Item, Row]]]]:
        """Give the items with their rows, by group, in order."""
        names = list(dict.fromkeys(item.group for item in self.items))
        return [
            (
                name,
                [
                    (item, self.rows.get(item.key, Row(item.key)))
                    for item in self.items
                    if item.group == name
                ],
            )
            for name in names
        ]

    def __repr__(self) -> str:
        if not self.items:
            return "There are no exercises."
        width = max(len(item.title) for item in self.items)
        lines = []
        for group, pairs in self.groups():
            lines.append(f"{group}   {_summary(pairs)}")
            for item, row in pairs:
                mark, words = _state(row)
                lines.append(f"  {mark} {item.title:<{width}}  {words}")
        lines.append(f"in all   {_summary([pair for _, pairs in self.groups() for pair in pairs])}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cells = []
        for group, pairs in self.groups():
            cells.append(
                f'<tr><th scope="rowgroup" colspan="3" style="text-align:left;padding:.7em .8em '
                f'.2em 0">{html.escape(group)}</th><td style="text-align:left;padding:.7em 0 .2em">'
                f"{html.escape(_summary(pairs))}</td></tr>"
            )
            for item, row in pairs:
                mark, words = _state(row)
                time = f"{item.minutes} min" if item.minutes else ""
                cells.append(
                    f'<tr><td style="padding:.1em .6em .1em .4em">{mark}</td>'
                    f'<td style="text-align:left;padding:.1em 1.5em .1em 0"><code>'
                    f"{html.escape(item.title)}</code></td>"
                    f'<td style="text-align:right;padding:.1em 1.5em .1em 0">{time}</td>'
                    f'<td style="text-align:left">{html.escape(words)}</td></tr>'
                )
        total = _summary([pair for _, pairs in self.groups() for pair in pairs])
        return (
            '<table style="border-collapse:collapse"><caption style="text-align:left">'
            f"<b>Your progress</b>: {html.escape(total)}</caption><tbody>{''.join(cells)}"
            "</tbody></table>"
        )


def _summary(pairs: Iterable[tuple[Item, Row]]) -> str:
    pairs = list(pairs)
    done = sum(bool(row.passed) for _, row in pairs)
    got = sum(row.points for _, row in pairs)
    return f"{done} of {len(pairs)} done, {got:g} of {sum(i.points for i, _ in pairs):g} points"


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
