"""Bring marks into nbgrader's gradebook, through its own API; formgrader then shows them.

An exercise becomes an assignment with one notebook of the same name. The marks of an answer go to
its check's grade cell as the automatic score; texts wait for a person. What a person has entered by
hand (manual scores, extra credit, comments) is never touched, however often marks are brought anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot_lib.classroom.assemble import assemble
from fewshot_lib.classroom.results import current, read_rows
from fewshot_lib.classroom.submissions import Unreadable, find, notebook
from fewshot_lib.exercises import catalogue
from fewshot_lib.exercises.notebook import grading
from fewshot_lib.exercises.spec import Exercise


class NoGradebook(ValueError):
    """The gradebook's database cannot be used; says why, and what to do."""


def export(folder: Path, url: str) -> tuple[int, int]:
    """Write the current rows of a results folder into a gradebook.

    Arguments:
        folder: with ``results.jsonl``.
        url: of the database, as SQLAlchemy has it: ``sqlite:///gradebook.db``, ``postgresql://…``.

    Returns:
        How many submissions were written, and how many texts wait for a person.

    Raises:
        NoGradebook: nbgrader is missing, or the database refuses.
        BadResults: the rows are damaged.
    """
    rows = current(read_rows(folder / "results.jsonl"))
    try:
        from nbgrader.api import Gradebook, InvalidEntry
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise NoGradebook(
            'nbgrader is not installed: pip install -c constraints.txt -e ".[classroom]"'
        ) from None
    try:
        address = with_driver(url)
        with _programs_beside_python(), contextlib.closing(Gradebook(address)) as gradebook:
            for name in sorted({row["exercise"] for row in rows}):
                _define(gradebook, catalogue.exercise(name))
            waiting = sum(_enter(gradebook, row) for row in rows)
    except (SQLAlchemyError, InvalidEntry, ImportError, OSError, ValueError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().split("\n")[0][:200]
        raise NoGradebook(
            f"the database refuses: {reason}. Nothing of the results is lost."
        ) from None
    return len(rows), waiting


def write_notebooks(folder: Path, course: Path, root: Path) -> int:
    """Write what formgrader opens: each student's answers and texts in the built exercise.

    Below ``root/autograded``, as nbgrader has it. Everything but the sources of answers is the
    built exercise's; under each check stands what the grader found. Nothing is run.

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
    from fewshot_lib.classroom.grade import plan, results_settings, submission_digest

    rows = {
        (row["student"], row["exercise"]): row
        for row in current(read_rows(folder / "results.jsonl"))
    }
    plans: dict[str, Any] = {}
    count = 0
    for one in find(Path(results_settings(folder)["submissions"])):
        row = rows.get((one.student, one.exercise))
        plain = one.student not in (".", "..") and "/" not in one.student and one.data is not None
        if row is None or not plain or submission_digest(one) != row["receipt"]["submission"]:
            continue
        one_plan = plans.setdefault(one.exercise, plan(one.exercise, course))
        try:
            found = assemble(one_plan.exercise, one_plan.built, notebook(one.data or b""))
        except Unreadable:
            continue
        place = root / "autograded" / one.student / one.exercise
        place.mkdir(parents=True, exist_ok=True)
        written = _filled_in(one_plan.built, {**found.sources, **found.texts}, row["checks"])
        file = place / f"{one.exercise}.ipynb"
        file.write_text(json.dumps(written, ensure_ascii=False, indent=1), encoding="utf-8")
        count += 1
    return count


def _filled_in(
    built: Mapping[str, Any], sources: Mapping[str, str], checks: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    filled: dict[str, Any] = json.loads(json.dumps(built))
    for cell in filled["cells"]:
        name = str(grading(cell).get("grade_id", ""))
        if name in sources:
            cell["source"] = sources[name]
        if cell["cell_type"] == "code":
            said = [
                f"{check['status']} ({check['points']:g} of {check['max_points']:g}) "
                f"{check['id']}{': ' if check['message'] else ''}{check['message']}\n"
                for check in checks
                if name == f"check-{check['answer']}"
            ]
            cell["outputs"] = (
                [{"output_type": "stream", "name": "stdout", "text": said}] if said else []
            )
    return filled


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


def _define(gradebook: Any, exercise: Exercise) -> None:
    """Enter an exercise's assignment, notebook and cells, or bring them up to date."""
    name = exercise.stem
    gradebook.update_or_create_assignment(name)
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


def _enter(gradebook: Any, row: Mapping[str, Any]) -> int:
    """Enter one submission's automatic scores; give how many texts wait for a person."""
    name, student = row["exercise"], row["student"]
    exercise = catalogue.exercise(name)
    gradebook.update_or_create_student(student)
    gradebook.update_or_create_submission(name, student)
    for answer, points in _by_answer(row["checks"]).items():
        grade = gradebook.find_grade(f"check-{answer}", name, name, student)
        grade.auto_score = points
        grade.needs_manual_grade = False
    waiting = 0
    for text in exercise.prose:
        grade = gradebook.find_grade(text.name, name, name, student)
        grade.needs_manual_grade = grade.manual_score is None
        waiting += grade.manual_score is None
    gradebook.db.commit()
    return waiting


def _by_answer(checks: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    points: dict[str, float] = {}
    for check in checks:
        points[check["answer"]] = points.get(check["answer"], 0.0) + check["points"]
    return points
