"""Write what people read of the results: grades, feedback, the teacher's report, forms to upload.

Everything is made from ``results.jsonl`` and ``run.json`` and can be made again at any time.
Students' words are escaped and shown as quotations, and the pages forbid scripts and need no other
file, so that a page can be sent by mail.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from fewshot_lib.checker import language as speech
from fewshot_lib.checker.markup import inline
from fewshot_lib.grader import marks
from fewshot_lib.grader.item_analysis import analyse
from fewshot_lib.grader.labels import safe_file_name
from fewshot_lib.grader.likeness import Group, fingerprint, groups, side_by_side
from fewshot_lib.grader.marks import language_of
from fewshot_lib.grader.results import (
    current,
    earlier,
    read_rows,
    read_settings,
    unfinished,
    write_atomically,
)
from fewshot_lib.grader.words import rendered, visible, written_texts


def feedback_file(row: Mapping[str, Any]) -> str:
    """Give the path of a row's feedback below the results folder."""
    return f"feedback/{safe_file_name(row['student'])}/{row['exercise']}.html"


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fewshot_lib.grader"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters["number"] = marks.number
    environment.filters["markdown"] = rendered
    environment.filters["inline"] = lambda text: Markup(inline(visible(text)))
    environment.filters["page"] = lambda row: quote(feedback_file(row))
    environment.filters["told"] = marks.told
    environment.filters["language"] = language_of
    environment.globals |= {
        "_": speech.words("feedback"),
        "html_language": lambda: speech.language().replace("_", "-"),
        "check_name": marks.check_name,
        "status": marks.status_in_words,
    }
    environment.filters["when"] = lambda at: str(at or "")[:16].replace("T", " ")
    return environment


@speech.speaking(speech.SOURCE)
def write_all(
    folder: Path,
    handed_out: Mapping[str, Mapping[str, str]],
    code: Mapping[tuple[str, str], Mapping[str, str]],
) -> Path:
    """Write every file below a results folder.

    Arguments:
        folder: with ``results.jsonl`` and ``run.json``.
        handed_out: by exercise, the sources of its answers as handed out, by name.
        code: by student and exercise, the sources of answers as handed in, by name.

    Returns:
        The teacher's report.

    Raises:
        BadResults: the folder is none of ours, or rows are damaged.
    """
    every = list(read_rows(folder / "results.jsonl"))
    rows, settings = current(every), read_settings(folder)
    due = settings.get("due", {})
    isolation = settings["isolation"]
    missing, unrecognised = missing_ones(rows, settings), unrecognised_ones(settings)
    templates = _templates()
    pages = _write_feedback(folder, templates, rows, due, code, isolation)
    grades = marks.grades_csv(rows, due, missing, unrecognised)
    signed = grades.encode("utf-8-sig")  # else Excel takes it for ANSI
    write_atomically(folder / "grades.csv", signed)
    by_student: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_student.setdefault(row["student"], []).append(row)
    for student, its_rows in by_student.items():
        place = folder / "gradescope" / safe_file_name(student) / "results.json"
        written = json.dumps(marks.gradescope(its_rows, due), ensure_ascii=False, indent=1)
        write_atomically(place, written)
    for platform, made in (
        ("moodle", marks.moodle(rows, due, pages)),
        ("canvas", marks.canvas(rows, due, pages)),
    ):
        for name, content in made.items():
            write_atomically(folder / platform / name, content)
    prints = {
        key: fingerprint(sources, handed_out.get(key[1], {})) for key, sources in code.items()
    }
    found = groups(prints)
    by_key = {(row["student"], row["exercise"]): row for row in rows}
    _write_groups(folder, templates, found, by_key, code, isolation)
    report = templates.get_template("report.html.j2").render(
        rows=rows,
        students=len(by_student),
        others=[row for row in rows if language_of(row) != speech.SOURCE],
        seed=settings["seed"],
        isolation=isolation,
        look=[(row, row["look_at"]) for row in rows if row["look_at"]],
        texts=_texts(rows, handed_out),
        missing=missing,
        unrecognised=unrecognised,
        cut_off=unfinished(folder / "results.jsonl"),
        late=[(row, late) for row in rows if (late := marks.lateness(row, due)).said],
        earlier=[(by_key[key], its_rows) for key, its_rows in earlier(every).items()],
        exercises=[
            analyse(name, [row for row in rows if row["exercise"] == name])
            for name in sorted({row["exercise"] for row in rows})
        ],
        groups=[
            (number, group, [by_key[student, group.exercise] for student in group.students])
            for number, group in enumerate(found, 1)
        ],
    )
    return write_atomically(folder / "report.html", report)


def _write_feedback(
    folder: Path,
    templates: jinja2.Environment,
    rows: Sequence[Mapping[str, Any]],
    due: Mapping[str, Any],
    code: Mapping[tuple[str, str], Mapping[str, str]],
    isolation: str,
) -> dict[tuple[str, str], str]:
    page, pages = templates.get_template("feedback.html.j2"), {}
    for row in rows:
        key = row["student"], row["exercise"]
        answers: dict[str, list[dict[str, Any]]] = {}
        for check in row["checks"]:
            answers.setdefault(check["answer"], []).append(check)
        with speech.speaking(language_of(row)):
            pages[key] = page.render(
                row=row,
                answers=answers.items(),
                late=marks.lateness(row, due),
                code=code.get(key, {}),
                said=said_by(row),
                isolation=isolation,
            )
        write_atomically(folder / feedback_file(row), pages[key])
    return pages


def said_by(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """Give what a student's cells said: for each its name, its error and what it printed."""
    return [
        {name: str(said.get(name) or "") for name in ("cell", "error", "printed")}
        for said in row["said"]
    ]


def _write_groups(
    folder: Path,
    templates: jinja2.Environment,
    found: Sequence[Group],
    rows: Mapping[tuple[str, str], Mapping[str, Any]],
    code: Mapping[tuple[str, str], Mapping[str, str]],
    isolation: str,
) -> None:
    shutil.rmtree(folder / "alike", ignore_errors=True)  # groups of an earlier report
    page = templates.get_template("alike.html.j2")
    for number, group in enumerate(found, 1):
        text = page.render(
            group=group,
            rows=[rows[student, group.exercise] for student in group.students],
            answers=side_by_side(group, code),
            isolation=isolation,
        )
        write_atomically(folder / "alike" / f"{number}.html", text)


# ------------------------------------------------------------------------------- for a person's eye


def _texts(
    rows: Iterable[Mapping[str, Any]], handed_out: Mapping[str, Mapping[str, str]]
) -> list[tuple[str, str, list[Mapping[str, Any]]]]:
    waiting: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        for name in written_texts(row, handed_out.get(row["exercise"], {})):
            waiting.setdefault((row["exercise"], name), []).append(row)
    return [(*key, its_rows) for key, its_rows in sorted(waiting.items())]


def missing_ones(
    rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Give student and exercise of what the roster expects and no row has."""
    if not settings.get("roster"):
        return []
    from fewshot_lib.grader.roster import RosterEntry, missing

    entries = [RosterEntry(**entry) for entry in settings["roster"]]
    return missing(entries, rows)


def unrecognised_ones(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Give file and reason of everything in the submissions folders that was not recognised."""
    return [
        (str(name), str(why))
        for folder in settings.get("folders", [])
        for name, why in folder.get("unrecognised", [])
    ]
