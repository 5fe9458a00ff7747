"""Bring marks into nbgrader's gradebook, through its own API; formgrader then shows them.

An exercise becomes an assignment with one notebook of the same name. The marks of an answer go to
its check's grade cell as the automatic score; texts that somebody wrote wait for a person. What a
person has entered by hand (manual scores, extra credit, comments) is never touched, however often
marks are brought anew. Notebooks for formgrader hold what students wrote, made harmless: formgrader
shows them in the teacher's browser, where a text could otherwise act as the teacher.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fewshot_lib.checker import catalogue
from fewshot_lib.checker import language as speech
from fewshot_lib.checker.notebook import BadSolution, answer_cells, grading, read, source_of
from fewshot_lib.checker.spec import Exercise
from fewshot_lib.grader.assemble import Assembled, assemble
from fewshot_lib.grader.labels import tag
from fewshot_lib.grader.marks import (
    by_answer,
    check_name,
    language_of,
    lateness,
    status_in_words,
    told,
)
from fewshot_lib.grader.plan import plan
from fewshot_lib.grader.reader import Reader, Unreadable
from fewshot_lib.grader.results import current, read_rows, read_settings, write_atomically
from fewshot_lib.grader.words import harmless, visible, written_texts

_ = speech.words("feedback")

# what no folder of a student may be called on some system, or what acts instead of being seen
_UNFIT = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\u2028\u2029\ud800-\udfff]|^\.+')
_TAGGED = re.compile(r"-[0-9a-f]{8}$")  # a name that looks so gets a tag, too: none meets another's


class NoGradebook(ValueError):
    """The gradebook's database cannot be used; says why, and what to do."""


def export(folder: Path, url: str, course: Path) -> tuple[int, int]:
    """Write the current rows of a results folder into a gradebook.

    Arguments:
        folder: with ``results.jsonl``.
        url: of the database, as SQLAlchemy has it: ``sqlite:///gradebook.db``, ``postgresql://…``.
        course: the course's folder, with ``exercises/``.

    Returns:
        How many submissions were written, and how many texts wait for a person.

    Raises:
        NoGradebook: nbgrader is missing, or the database refuses.
        BadResults: the rows are damaged.
    """
    rows = current(read_rows(folder / "results.jsonl"))
    due = read_settings(folder).get("due", {})
    try:
        from nbgrader.api import Gradebook, InvalidEntry
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise NoGradebook(
            'nbgrader is not installed: pip install -c constraints.txt -e ".[classroom]"'
        ) from None
    handed_out = {
        name: _handed_out(course, catalogue.exercise(name))
        for name in sorted({row["exercise"] for row in rows})
    }
    try:
        address = with_driver(url)
        with _programs_beside_python(), contextlib.closing(Gradebook(address)) as gradebook:
            for name in handed_out:
                _define(gradebook, catalogue.exercise(name), due.get(name))
            waiting = sum(_enter(gradebook, row, handed_out[row["exercise"]], due) for row in rows)
    except (SQLAlchemyError, InvalidEntry, ImportError, OSError, ValueError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().split("\n")[0][:200]
        raise NoGradebook(
            f"the database refuses: {reason}. Nothing of the results is lost."
        ) from None
    return len(rows), waiting


def _handed_out(course: Path, exercise: Exercise) -> dict[str, str]:
    try:
        built = read(course / "exercises" / f"{exercise.stem}.ipynb")
    except BadSolution as error:
        raise NoGradebook(f"{error}; build it with `fewshot build {exercise.stem}`") from None
    return answer_cells(built, texts=True)


def label(student: str) -> str:
    """Give the name by which nbgrader knows a student: its folder and its key in the gradebook.

    nbgrader takes no slash and no leading dot, and its keys hold 128 characters; a folder's name
    holds 255 bytes. A name that fits stays as it is.

    >>> label("anna (right)"), label("a/b")
    ('anna (right)', 'a-b-c14cddc0')
    """
    fits = len(student) <= 120 and len(student.encode("utf-8", "replace")) <= 200
    safe = _UNFIT.sub("-", student).strip()
    if fits and safe == student and student and not _TAGGED.search(student):
        return student
    short = safe.encode("utf-8", "ignore")[:100].decode("utf-8", "ignore").lstrip(".") or "student"
    return f"{short}-{tag(student, 8)}"


def write_notebooks(folder: Path, course: Path, root: Path) -> int:
    """Write what formgrader opens: each student's answers and texts in the built exercise.

    Below ``root/autograded``, as nbgrader has it. Everything but the sources of answers is the
    built exercise's, in the student's language; under each check stands what the grader found.
    Nothing is run.

    Arguments:
        folder: of the results; a submission that changed since it was graded is left out.
        course: the course's folder.
        root: of nbgrader's course.

    Returns:
        How many notebooks were written.

    Raises:
        NoSubmissions: they are no longer where they were graded from.
        OSError: a file cannot be written.
    """
    from fewshot_lib.grader.grade import submissions_of

    rows = current(read_rows(folder / "results.jsonl"))
    plans: dict[str, Any] = {}
    count = 0
    reader = Reader()
    for row, one in submissions_of(rows, read_settings(folder)):
        if one is None or one.digest() != row["receipt"]["submission"]:
            continue
        exercise = row["exercise"]
        one_plan = plans.get(exercise) or plans.setdefault(exercise, plan(exercise, course))
        language = language_of(row)
        with speech.speaking(language):
            try:
                found = assemble(one_plan.template_in(language), reader.read(one.read()).cells)
            except Unreadable:
                continue  # its row says so
            other = course / "exercises" / speech.short(language) / f"{exercise}.ipynb"
            built = one_plan.built if language == speech.SOURCE else read(other)
            written = filled_in(built, found, row)
        file = root / "autograded" / label(row["student"]) / exercise / f"{exercise}.ipynb"
        write_atomically(file, json.dumps(written, ensure_ascii=False, indent=1))
        count += 1
    reader.close()
    return count


def filled_in(built: Mapping[str, Any], found: Assembled, row: Mapping[str, Any]) -> dict[str, Any]:
    """Put a student's answers into the built exercise, so that nothing of it can act.

    Arguments:
        built: the exercise as handed out.
        found: the student's code, which is shown and not run, and texts, whose tags and unsafe
            links are broken; pictures come along.
        row: of its grading; what its checks found is said in the language that is spoken.
    """
    filled: dict[str, Any] = json.loads(json.dumps(built))
    for cell in filled["cells"]:
        name = str(grading(cell).get("grade_id", ""))
        if cell["cell_type"] == "code":
            cell["source"] = found.sources.get(name, source_of(cell))
            said = [
                _line(row, check) for check in row["checks"] if name == f"check-{check['answer']}"
            ]
            cell["outputs"] = (
                [{"output_type": "stream", "name": "stdout", "text": visible("".join(said))}]
                if said
                else []
            )
        elif found.texts.get(name):
            attached = found.attachments.get(name, {})
            cell["source"] = harmless(found.texts[name], attached)
            if attached:
                cell["attachments"] = attached
    return filled


def _line(row: Mapping[str, Any], check: Mapping[str, Any]) -> str:
    points, most = f"{check['points']:g}", f"{check['max_points']:g}"
    of = _("{points} of {most}").format(points=points, most=most)
    line = f"{status_in_words(check['status'])} ({of}) {check['answer']}: {check_name(row, check)}"
    return f"{line}{': ' if check['message'] else ''}{told(check['message'])}\n"


def with_driver(url: str) -> str:
    """Name the driver that the course brings in a PostgreSQL address that names none.

    What SQLAlchemy takes by itself depends on its version.

    >>> with_driver("postgresql://teacher@host/marks")
    'postgresql+psycopg://teacher@host/marks'
    """
    kind, colon, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if kind in ("postgresql", "postgres") and colon else url


@contextlib.contextmanager
def _programs_beside_python() -> Iterator[None]:
    # nbgrader stamps a new database by running alembic, which it looks for on the search path
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), before])
    try:
        with warnings.catch_warnings():  # nbgrader's own remarks on its sessions help nobody here
            warnings.filterwarnings("ignore", module=r"nbgrader\.")
            yield
    finally:
        os.environ["PATH"] = before


def _define(gradebook: Any, exercise: Exercise, due: Mapping[str, Any] | None) -> None:
    """Enter an exercise's assignment, notebook and cells, or bring them up to date."""
    name = exercise.stem
    gradebook.update_or_create_assignment(name, duedate=_utc(due["at"]) if due else None)
    gradebook.update_or_create_notebook(name, name)
    for answer in exercise.answers:
        gradebook.update_or_create_grade_cell(
            f"check-{answer.name}", name, name, max_score=answer.points, cell_type="code"
        )
        gradebook.update_or_create_solution_cell(answer.name, name, name)
    for text in exercise.prose:
        gradebook.update_or_create_grade_cell(
            text.name, name, name, max_score=text.points, cell_type="markdown"
        )
        gradebook.update_or_create_solution_cell(text.name, name, name)


def _utc(at: str) -> datetime:
    """Read an ISO time as nbgrader keeps it: in UTC, without saying so."""
    return datetime.fromisoformat(at).astimezone(UTC).replace(tzinfo=None)


def _enter(
    gradebook: Any,
    row: Mapping[str, Any],
    handed_out: Mapping[str, str],
    due: Mapping[str, Mapping[str, Any]],
) -> int:
    """Enter one submission's automatic scores; give how many texts wait for a person."""
    name, student = row["exercise"], label(row["student"])
    exercise = catalogue.exercise(name)
    gradebook.update_or_create_student(student)
    handed_in = row.get("handed_in")
    gradebook.update_or_create_submission(
        name, student, timestamp=_utc(handed_in) if handed_in else None
    )
    lost = row["points"] - lateness(row, due).points
    gradebook.find_submission_notebook(name, name, student).late_submission_penalty = lost or None
    for answer, (points, _) in by_answer(row["checks"]).items():
        grade = gradebook.find_grade(f"check-{answer}", name, name, student)
        grade.auto_score = points
        grade.needs_manual_grade = False
    waiting = 0
    written = written_texts(row, handed_out)
    for text in exercise.prose:
        grade = gradebook.find_grade(text.name, name, name, student)
        # a row that holds no texts says nothing about them: a person has to see
        there = text.name in written or "texts" not in row
        grade.auto_score = None if there else 0.0
        grade.needs_manual_grade = there and grade.manual_score is None
        waiting += grade.needs_manual_grade
    gradebook.db.commit()
    return waiting
