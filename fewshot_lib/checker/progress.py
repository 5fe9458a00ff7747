"""What a reader has done so far: one local file, one row per answer or question.

Nothing leaves the machine. The file survives two notebooks that write at once (a lock, and a new
file put in place of the old one), and a damaged file is kept aside and said so. It is JSON that a
reader can open; SQLite would need the same code for damaged and newer files.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import difflib
import html
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import quote

import platformdirs
from filelock import FileLock, Timeout

from fewshot_lib.checker.console import say
from fewshot_lib.checker.language import words

#: Of the file. 2: the ticks of a rubric. 3: predictions. Older files are read; newer ones are left
#: alone.
VERSION = 3
LOCK_SECONDS = 3.0
_ = words("checker")


@dataclass(frozen=True)
class Row:
    """What is remembered of one answer, question or prediction.

    Arguments:
        key: "prototypes.class_prototypes", "question:prototypes.mean" or "prediction:start.moved".
        attempts: how often it was tried (the untouched stub does not count).
        hints: how many steps of its hints were read.
        points, max_points: of the best attempt.
        passed: when it was first right (UTC, ISO 8601), or "".
        attempts_to_pass: how many attempts that had taken; 0 for a text, which is ticked.
        ticked: of a text, the points of its rubric that are ticked, from 0.
        given: of a prediction, what was entered last, as JSON; "" if it was skipped.
    """

    key: str
    attempts: int = 0
    hints: int = 0
    points: float = 0.0
    max_points: float = 0.0
    passed: str = ""
    attempts_to_pass: int = 0
    ticked: tuple[int, ...] = ()
    given: str = ""


class NoSuchName(LookupError):
    """There is no such exercise, answer or question; the message says what there is."""


class NewerProgress(RuntimeError):
    """The file was written by a newer version of the course; it is left as it is."""


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
    So there are if the file is of a newer version of the course, which stays where it is.

    >>> isinstance(load(), dict)
    True
    """
    try:
        return _read(path())
    except NewerProgress as error:
        say(_("Your progress is not shown: {error}.").format(error=error))
        return {}


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


def tick(key: str, ticked: Sequence[int], points: float, max_points: float) -> Row:
    """Remember which points of a text's rubric are ticked; that is not an attempt.

    Arguments:
        key: "prototypes.temperature".
        ticked: the places of the ticked points, from 0.
        points, max_points: what they are worth together, and what all are.

    Raises:
        ProgressNotSaved: the file cannot be written.
    """

    def change(row: Row) -> Row:
        row = replace(row, ticked=tuple(ticked), points=points, max_points=max_points)
        passed = row.passed or dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        return replace(row, passed=passed if points >= max_points else "")

    return _update(key, change)


def predict(key: str, given: str) -> Row:
    """Remember what was entered for a prediction; the newest entry replaces the one before.

    Arguments:
        key: "prediction:start.moved".
        given: the prediction as JSON; "" if it was skipped.

    Raises:
        ProgressNotSaved: the file cannot be written.
    """
    return _update(key, lambda row: replace(row, attempts=row.attempts + 1, given=given))


def reset(name: str = "", known: Sequence[str] = ()) -> int:
    """Forget an exercise with its questions and predictions, or one of them; say how many rows.

    Arguments:
        name: "prototypes", "prototypes.class_prototypes" or "question:prototypes.learned"; "" is
            all of them.
        known: keys that exist beside those of the file: resetting one that was never tried is not
            an error.

    Raises:
        NoSuchName: no key is called so; nothing was forgotten.
        ProgressNotSaved: the file cannot be written.
    """
    file = path()
    with _to_change(file) as rows:
        keys = dict.fromkeys([*known, *rows])
        if name and not any(_is_of(key, name) for key in keys):
            groups = sorted({_bare(key).partition(".")[0] for key in keys})
            close = difflib.get_close_matches(name, [*groups, *keys], n=1)
            meant = _("there are {names}").format(names=", ".join(groups))
            if close:
                meant = _("did you mean {name}?").format(name=repr(close[0]))
            said = _("no exercise, answer or question is called {name}; {meant}")
            raise NoSuchName(said.format(name=repr(name), meant=meant))
        kept = {key: row for key, row in rows.items() if name and not _is_of(key, name)}
        _write(file, kept)
    return len(rows) - len(kept)


def _is_of(key: str, name: str) -> bool:
    """Whether a key is called so, or belongs to the exercise or notebook called so."""
    bare = _bare(key)
    return name in (key, bare, bare.partition(".")[0])


def _bare(key: str) -> str:
    """Give a key without what says that it is a question or a prediction."""
    return key.removeprefix("question:").removeprefix("prediction:")


def _update(key: str, change: Callable[[Row], Row]) -> Row:
    file = path()
    with _to_change(file) as rows:
        rows[key] = change(rows.get(key, Row(key)))
        _write(file, rows)
    return rows[key]


@contextlib.contextmanager
def _to_change(file: Path) -> Iterator[dict[str, Row]]:
    """Hold the progress file's lock and give its rows; say in one sentence if that cannot be."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{file}.lock")
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        said = _("another program holds {file}").format(file=f"{file}.lock")
        raise ProgressNotSaved(said) from None
    except (OSError, NotImplementedError) as error:
        raise _unwritable(file, error) from None
    try:
        yield _read(file)
    except NewerProgress as error:
        raise ProgressNotSaved(str(error)) from None
    finally:
        lock.release()


def _read(file: Path) -> dict[str, Row]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        return _set_aside(file, str(error))
    try:
        data = json.loads(text)
        version = data["version"]
        if type(version) is not int or version < 1:
            raise ValueError(f"its version is {version!r}")
        if version > VERSION:
            said = _(
                "{file} was written by a newer version of the course (format {version}, this one "
                "knows {known}); update the course to see and change it"
            )
            raise NewerProgress(said.format(file=file, version=version, known=VERSION))
        rows = [_row(entry) for entry in data["rows"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return _set_aside(file, str(error))
    return {row.key: row for row in rows}


def _row(entry: object) -> Row:
    if not isinstance(entry, dict):
        raise TypeError("a row is not an object")
    row = Row(**{**entry, "ticked": tuple(entry.get("ticked", ()))})
    for name, default in asdict(Row("")).items():
        value = getattr(row, name)
        wanted = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise TypeError(f"{name} of {row.key!r} is {value!r}")
    if not all(type(place) is int for place in row.ticked):
        raise TypeError(f"ticked of {row.key!r} is {row.ticked!r}")
    return row


def _set_aside(file: Path, reason: str) -> dict[str, Row]:
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S%f")
    aside = file.with_name(f"{file.stem}.damaged-{stamp}{file.suffix}")
    try:
        file.replace(aside)
    except OSError as error:
        said = _("The progress file {file} cannot be read ({reason}) nor set aside ({error}).")
        say(said.format(file=file, reason=reason, error=error))
        return {}
    said = _("The progress file was damaged ({reason}); it is kept as {file}. Counting anew.")
    say(said.format(reason=reason[:120], file=aside))
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
        raise _unwritable(file, error) from None


def _unwritable(file: Path, error: Exception) -> ProgressNotSaved:
    said = _("{file} cannot be written: {error}")
    return ProgressNotSaved(said.format(file=file, error=error))


@dataclass(frozen=True)
class Item:
    """One thing that can be done.

    Arguments:
        key: as in :class:`Row`.
        title: how it is called.
        group: the heading it stands under.
        points, minutes: 0 for a question; questions are shown together, one mark each.
        file: the notebook it is done in, seen from the course's folder.
    """

    key: str
    title: str
    group: str
    points: float = 0.0
    minutes: int = 0
    file: str = ""

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

    def lines(self) -> list[Line]:
        """Give the panel line by line; a group has no mark."""
        lines = []
        for group in dict.fromkeys(item.group for item in self.items):
            members = [item for item in self.items if item.group == group]
            lines.append(Line("", group, "", self._score(members)))
            for item in members:
                if not item.is_question:
                    mark, words = _state(self.row(item))
                    minutes = _("{minutes} min").format(minutes=item.minutes)
                    lines.append(Line(mark, item.title, minutes, words, item.file))
            asked = [item for item in members if item.is_question]
            if asked:
                right = sum(bool(self.row(item).passed) for item in asked)
                marks = "".join(_state(self.row(item))[0] for item in asked)
                mark = "●" if right == len(asked) else "◐" if set(marks) - {"○"} else "○"
                words = _("{right} of {asked} answered").format(right=right, asked=len(asked))
                lines.append(Line(mark, _("questions"), "", f"{marks} {words}", asked[0].file))
        return lines

    @property
    def next(self) -> tuple[str, str]:
        """What to do next, in a line, and the notebook it is in: the first thing not yet passed."""
        left = [item for item in self.items if not self.row(item).passed]
        if not left:
            return _("Everything is done.") if self.items else "", ""
        item = next((item for item in left if not item.is_question), left[0])
        if item.is_question:
            return _("Next: the questions of {group}").format(group=item.group), item.file
        said = _("Next: {title} in {group} ({minutes} min)")
        return said.format(title=item.title, group=item.group, minutes=item.minutes), item.file

    def _score(self, items: Sequence[Item]) -> str:
        answers = [item for item in items if not item.is_question]
        if not answers:
            return ""
        got = sum(self.row(item).points for item in answers)
        most = sum(item.points for item in answers)
        return _("{points} of {most} points").format(points=f"{got:g}", most=f"{most:g}")

    @property
    def total(self) -> str:
        """The whole in one line."""
        answers = [item for item in self.items if not item.is_question]
        asked = [item for item in self.items if item.is_question]
        said = []
        passed, answered = _("{n} of {all} answers passed"), _("{n} of {all} questions answered")
        for things, told in ((answers, passed), (asked, answered)):
            if things:
                done = sum(bool(self.row(item).passed) for item in things)
                said.append(told.format(n=done, all=len(things)))
        if not said:
            return _("there are no exercises")
        return _(", ").join([*said, self._score(self.items)])

    def __repr__(self) -> str:
        lines = self.lines()
        width = max((len(line.title) for line in lines if line.mark), default=0)
        text = [_("Your progress: {total}").format(total=self.total)]
        for line in lines:
            if line.mark:
                start = f"  {line.mark} {line.title:<{width}} {line.minutes:>7}"
                text.append(f"{start}  {line.words}")
            else:
                text.append(f"{line.title}  {line.words}".rstrip())
        said, file = self.next
        if said:
            text.append(_("{said}: {file}").format(said=said, file=file) if file else said)
        return "\n".join(text)

    def _repr_html_(self) -> str:
        rows = []
        for line in self.lines():
            title = _linked(line.title, line.file)
            if line.mark:
                rows.append(
                    f'<tr><td style="padding:.1em .6em .1em .4em">{line.mark}</td>'
                    f'<td style="text-align:left;padding:.1em 1.5em .1em 0">{title}</td>'
                    f'<td style="text-align:right;padding:.1em 1.5em .1em 0">{line.minutes}</td>'
                    f'<td style="text-align:left">{html.escape(line.words)}</td></tr>'
                )
            else:
                rows.append(
                    '<tr><th scope="rowgroup" colspan="3" style="text-align:left;padding:.6em '
                    f'1.5em .1em 0">{title}</th><td style="text-align:left;'
                    f'padding:.6em 0 .1em">{html.escape(line.words)}</td></tr>'
                )
        said, file = self.next
        return (
            '<table style="border-collapse:collapse"><caption style="text-align:left">'
            + _("<b>Your progress</b>: {total}").format(total=html.escape(self.total))
            + f"<br>{_linked(said, file)}<br>{_('● passed, ◐ begun, ○ not started')}</caption>"
            f"<tbody>{''.join(rows)}</tbody></table>"
        )


@dataclass(frozen=True)
class Line:
    """One line of a panel: mark, title, minutes, words, and the notebook it is about."""

    mark: str
    title: str
    minutes: str
    words: str
    file: str = ""


def _linked(title: str, file: str) -> str:
    """Write a title as HTML, with a link to its notebook as seen from where this runs."""
    words, here = html.escape(title), Path.cwd()
    for folder in (here, *here.parents) if file else ():
        if (folder / file).is_file():
            target = os.path.relpath(folder / file, here).replace(os.sep, "/")
            return f'<a href="{quote(target)}">{words}</a>'
    return words


def _state(row: Row) -> tuple[str, str]:
    hints, day = "", row.passed[:10] if row.passed else ""
    if row.hints:
        read = _(", 1 hint") if row.hints == 1 else _(", {n} hints")
        hints = read.format(n=row.hints)
    if row.passed and row.ticked:
        return "●", _("all points ticked {day}").format(day=day)
    if row.passed:
        said = _("passed {day}, attempt {n}").format(day=day, n=row.attempts_to_pass)
        return "●", said + hints
    points = {"points": f"{row.points:g}", "most": f"{row.max_points:g}"}
    if row.ticked:
        return "◐", _("{points} of {most} points ticked").format(**points)
    if row.attempts:
        once, often = (
            _("{points} of {most} points after 1 attempt"),
            _("{points} of {most} points after {n} attempts"),
        )
        said = once if row.attempts == 1 else often
        return "◐", said.format(**points, n=row.attempts) + hints
    return "○", _("not started") + hints
