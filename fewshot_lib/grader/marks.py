"""Give marks back: the table of grades, what is late, and the forms that each platform takes.

- ``grades.csv``: for a spreadsheet.
- ``gradescope/``: one ``results.json`` per student.
- ``moodle/``: per exercise a grading worksheet and a zip of feedback files.
- ``canvas/``: one gradebook table, and per exercise a zip of files with comments.

The last two are written for submissions that came from such an export.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from pathlib import PurePosixPath
from typing import Any

from fewshot_lib.checker import catalogue
from fewshot_lib.checker import language as speech
from fewshot_lib.checker.judge import PASSED
from fewshot_lib.checker.specification import words_of

_ = speech.words("feedback")

_DAY = timedelta(days=1)
_MOODLE = re.compile(r"[^/]+_\d+_assignsubmission_[a-z]+_?", re.I)
_FORMULA = frozenset("=+-@|%")


class BadOption(ValueError):
    """An option of a command does not mean anything; says what was got and what is expected."""


# ----------------------------------------------------------------------- what students are told


def language_of(row: Mapping[str, Any]) -> str:
    """Give the language of a row's submission; rows of earlier versions name none."""
    return speech.claimed(row.get("language"))


def check_name(row: Mapping[str, Any], check: Mapping[str, Any]) -> str:
    """Say what a check looks at, in the language of the page."""
    name = str(check["id"]).partition(": ")[2]
    try:
        exercise = catalogue.exercise(row["exercise"])
        words = words_of(exercise[check["answer"]], exercise.name)
    except (LookupError, ValueError):  # a row of an exercise that was removed
        return name
    return speech.translate(name, f"exercises/{words}")


def status_in_words(status: str) -> str:
    """Say how a check or a row ended, in the language of the page."""
    said = {
        "passed": _("passed"),
        "failed": _("failed"),
        "not attempted": _("not attempted"),
        "not read": _("not read"),
        "fault": _("fault"),
        "time": _("time"),
        "memory": _("memory"),
        "died": _("died"),
    }
    return said.get(status, status)


def told(text: str) -> str:
    """Say in the language of the page what the grader or the checker said in English."""
    return speech.translate_message(text, "feedback")


# ------------------------------------------------------------------------------------------- late


def read_due(text: str) -> str:
    """Read a due date as a teacher writes it; give it in ISO form with the offset from UTC.

    A day alone means its last minute; a time without an offset is this machine's.

    Raises:
        BadOption: it is not a date.

    >>> read_due("2026-12-01T23:59+01:00")
    '2026-12-01T23:59:00+01:00'
    """
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadOption(
            f'--due {text!r} is not a date: write "2026-12-01 23:59", or with an offset from UTC '
            '"2026-12-01 23:59+01:00"'
        ) from None
    if re.fullmatch(r"\d{4}-?\d\d-?\d\d", text.strip()):
        found = found.replace(hour=23, minute=59, second=59)
    try:
        return found.astimezone().isoformat() if found.tzinfo is None else found.isoformat()
    except (OverflowError, OSError):
        raise BadOption(f"--due {text!r} is a date that no calendar here can place") from None


@dataclass(frozen=True)
class Late:
    """How late a submission is and what its mark is worth.

    Arguments:
        days: begun days after the due date; 0 in time.
        points: that count.
        said: one sentence, "" in time.
    """

    days: int
    points: float
    said: str


def lateness(row: Mapping[str, Any], due: Mapping[str, Mapping[str, Any]]) -> Late:
    """Say how late a row's submission is.

    Arguments:
        row: with ``handed_in`` (ISO time, or "" if unknown) and ``lms``.
        due: for an exercise ``{"at": ISO time, "percent": of the points per begun day}``.
    """
    points, rule = float(row["points"]), due.get(row["exercise"])
    platform_says = bool((row.get("lms") or {}).get("late"))
    if rule is None or not row.get("handed_in"):
        if not platform_says:
            return Late(0, points, "")
        return Late(0, points, "The platform marks it as late; no points are taken off for that.")
    handed_in = datetime.fromisoformat(row["handed_in"]).astimezone()
    over = handed_in - datetime.fromisoformat(rule["at"]).astimezone()
    days = ceil(over / _DAY)
    if days <= 0:
        return Late(0, points, "")
    share = max(0.0, 1 - days * float(rule["percent"]) / 100)
    worth = round(points * share, 2)
    said = f"Handed in late by {_duration(over)}"
    if not rule["percent"]:
        return Late(days, points, f"{said}; no points are taken off for that.")
    return Late(
        days,
        worth,
        f"{said}: {number(rule['percent'])} % are taken off per begun day, so that {number(worth)} "
        f"of the {number(points)} points count.",
    )


def _duration(over: timedelta) -> str:
    """Write a time in the two largest units.

    >>> _duration(timedelta(days=1, hours=2, minutes=3))
    '1 day 2 h'
    """
    minutes = max(1, int(over.total_seconds() // 60))
    days, hours = minutes // 1440, minutes % 1440 // 60
    if days:
        whole = f"{days} days" if days > 1 else "1 day"
        return f"{whole} {hours} h" if hours else whole
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def number(points: float) -> str:
    """Write points without needless digits.

    >>> number(12.50)
    '12.5'
    """
    return f"{round(points, 2):g}"


def by_answer(checks: Iterable[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Add up for each answer the points of its checks, and how many there are to reach."""
    sums: dict[str, tuple[float, float]] = {}
    for check in checks:
        points, most = sums.get(check["answer"], (0.0, 0.0))
        sums[check["answer"]] = points + check["points"], most + check["max_points"]
    return sums


# ----------------------------------------------------------------------------------------- tables


def cell(text: str) -> str:
    """Make a stranger's text safe to stand in a cell of a table: no formula, no line of its own.

    >>> cell("＝HYPERLINK(1)"), cell(" @x"), cell("a;=1"), cell("Zoë")
    ("'＝HYPERLINK(1)", "'@x", "a;'=1", 'Zoë')
    """
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    # a spreadsheet whose separator is another one takes each piece for a cell
    pieces = re.split(r"([;,])", text)
    return "".join(f"'{piece.strip()}" if _is_formula(piece) else piece for piece in pieces).strip()


def _is_formula(piece: str) -> bool:
    bare = "".join(
        c for c in unicodedata.normalize("NFKC", piece) if unicodedata.category(c)[0] not in "CZ"
    )
    return bare.lstrip("\"'")[:1] in _FORMULA and bool(bare.lstrip("\"'"))


def table(lines: Iterable[Sequence[str]]) -> str:
    """Write lines as CSV, every text quoted where it must be."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def grades_csv(
    rows: Sequence[Mapping[str, Any]],
    due: Mapping[str, Mapping[str, Any]],
    missing: Iterable[tuple[str, str]] = (),
    unrecognised: Iterable[tuple[str, str]] = (),
) -> str:
    """Write the table of grades: a line per student, a column per exercise.

    Arguments:
        rows: the current ones.
        due: see ``lateness``.
        missing: student and exercise of what the roster expects and nobody handed in.
        unrecognised: file and reason of what was not a submission; lines without a student.
    """
    names = sorted({row["exercise"] for row in rows})
    highest = {
        name: max(row["max_points"] for row in rows if row["exercise"] == name) for name in names
    }
    by_student: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by_student.setdefault(row["student"], {})[row["exercise"]] = row
    lacking: dict[str, list[str]] = {}
    for student, exercise in missing:
        lacking.setdefault(student, []).append(exercise)
    lines = [["student", *names, "total", "maximum", "late", "note", "language"]]
    maximum = number(sum(highest.values()))
    for student in sorted({*by_student, *lacking}):
        graded = by_student.get(student, {})
        late = {name: lateness(row, due) for name, row in graded.items()}
        notes = [
            f"{name}: {row['status']}" for name, row in graded.items() if row["status"] != "graded"
        ]
        if student in lacking:
            notes.append("missing: " + " ".join(lacking[student]))
        lines.append(
            [
                cell(student),
                *(number(late[name].points) if name in late else "" for name in names),
                number(sum(one.points for one in late.values())),
                maximum,
                cell(" ".join(f"{name}: {one.said}" for name, one in late.items() if one.said)),
                cell(". ".join(notes)),
                cell(" ".join(sorted({language_of(row) for row in graded.values()}))),
            ]
        )
    for file, why in unrecognised:
        blank = [""] * (len(names) + 4)
        lines.append([*blank, cell(f"not recognised: {file}: {why}"), ""])
    return table(lines)


def gradescope(
    rows: Sequence[Mapping[str, Any]], due: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Make one student's results in the form that Gradescope's autograder reads.

    What it says is in the language of each submission.
    """
    late = {row["exercise"]: lateness(row, due) for row in rows}
    said: list[str] = []
    notes: list[str] = []
    tests: list[dict[str, Any]] = []
    for row in rows:
        with speech.speaking(language_of(row)):
            said += [told(late[row["exercise"]].said)]
            notes += map(told, row["notes"])
            tests += [_test(row, check) for check in row["checks"]]
    return {
        "score": round(sum(one.points for one in late.values()), 2),
        "output": "\n".join([*filter(None, said), *notes]),
        "output_format": "text",
        "visibility": "visible",
        "tests": tests,
    }


def _test(row: Mapping[str, Any], check: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": f"{row['exercise']}: {check['answer']}: {check_name(row, check)}",
        "score": check["points"],
        "max_score": check["max_points"],
        "status": "passed" if check["status"] == PASSED else "failed",
        "output": told(check["message"]),
        "output_format": "text",
    }


# -------------------------------------------------------------------------------- Moodle and Canvas


def moodle(
    rows: Sequence[Mapping[str, Any]],
    due: Mapping[str, Mapping[str, Any]],
    pages: Mapping[tuple[str, str], str],
) -> dict[str, str | bytes]:
    """Make what Moodle takes back, for the rows that came from there.

    Arguments:
        rows: the current ones.
        due: see ``lateness``.
        pages: feedback by student and exercise.

    Returns:
        By file name: per exercise a grading worksheet («Upload grading worksheet») and a zip
        («Upload multiple feedback files in a zip»); none if nothing came from Moodle.
    """
    files: dict[str, str | bytes] = {}
    for exercise, its_rows in _of_platform(rows, "moodle").items():
        head = ["Identifier", "Full name", "Grade", "Maximum grade", "Last modified (grade)"]
        lines = [[*head, "Feedback comments"]]
        entries = {}
        for row in its_rows:
            late = lateness(row, due)
            lines.append(
                [
                    f"Participant {_digits(row['lms']['id'])}",
                    cell(row["lms"]["name"]),
                    number(late.points),
                    number(row["max_points"]),
                    _utc(row["receipt"].get("at", "")),
                    cell(_comment(row, late)),
                ]
            )
            prefix = _MOODLE.match(_first_of(row["lms"]["file"], _MOODLE))
            if prefix:
                entries[f"{prefix[0].rstrip('/')}/{exercise}.html"] = pages[
                    row["student"], exercise
                ]
        files[f"{exercise}-grades.csv"] = table(lines)
        files[f"{exercise}-feedback.zip"] = _zip(entries)
    return files


def canvas(
    rows: Sequence[Mapping[str, Any]],
    due: Mapping[str, Mapping[str, Any]],
    pages: Mapping[tuple[str, str], str],
) -> dict[str, str | bytes]:
    """Make what Canvas takes back, for the rows that came from there.

    Canvas reads the student's and the file's number in a name and nothing else of it, so that
    feedback has the name of the submission with the ending of a page.

    Returns:
        By file name: ``grades.csv`` for the gradebook's import, with the row «Points Possible»,
        and per exercise a zip for «Upload submissions»; none if nothing came from Canvas.
    """
    by_exercise = _of_platform(rows, "canvas")
    if not by_exercise:
        return {}
    names = list(by_exercise)
    lines = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *names]]
    most = [number(max(row["max_points"] for row in by_exercise[name])) for name in names]
    lines.append(["    Points Possible", "", "", "", "", *most])
    students: dict[str, dict[str, Mapping[str, Any]]] = {}
    files: dict[str, str | bytes] = {}
    for name, its_rows in by_exercise.items():
        entries = {}
        for row in its_rows:
            students.setdefault(_digits(row["lms"]["id"]), {})[name] = row
            file = PurePosixPath(row["lms"]["file"].replace("\\", "/")).name
            entries[re.sub(r"(\.ipynb|\.zip)?$", ".html", file, count=1, flags=re.I)] = pages[
                row["student"], name
            ]
        files[f"{name}-feedback.zip"] = _zip(entries)
    for number_of, of_one in sorted(students.items(), key=lambda pair: pair[0].zfill(20)):
        who = cell(next(iter(of_one.values()))["lms"]["name"])
        marks = [
            number(lateness(of_one[name], due).points) if name in of_one else "" for name in names
        ]
        lines.append([who, number_of, "", "", "", *marks])
    files["grades.csv"] = table(lines)
    return files


def _of_platform(
    rows: Sequence[Mapping[str, Any]], kind: str
) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if (row.get("lms") or {}).get("kind") == kind:
            found.setdefault(row["exercise"], []).append(row)
    return dict(sorted(found.items()))


def _digits(text: Any) -> str:
    return re.sub(r"\D", "", str(text))


def _first_of(file: str, form: re.Pattern[str]) -> str:
    """Give the part of a path that has a platform's form, whatever folder the export lies in."""
    parts = PurePosixPath(file.replace("\\", "/")).parts
    return next((part for part in parts if form.match(part)), "")


def _utc(at: str) -> str:
    moment = datetime.fromisoformat(at) if at else datetime.now().astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S %z")


def _comment(row: Mapping[str, Any], late: Late) -> str:
    answers = by_answer(row["checks"]).items()
    with speech.speaking(language_of(row)):
        part = _("{points} of {most}")
        each = [
            f"{name} {part.format(points=number(got), most=number(most))}"
            for name, (got, most) in answers
        ]
        ended = row["status"]
        whole = _("{points} of {most} points{status}: {each}.").format(
            points=number(row["points"]),
            most=number(row["max_points"]),
            status="" if ended == "graded" else f" ({status_in_words(ended)})",
            each=_("; ").join(each),
        )
        return f"{whole} {told(late.said)}".strip()


def _zip(entries: Mapping[str, str]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, text in sorted(entries.items()):
            info = zipfile.ZipInfo(name)  # of no time: the same rows give the same bytes
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, text)
    return whole.getvalue()
