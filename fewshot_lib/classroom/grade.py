"""Grade submissions: collect, read, run in the sandbox, judge outside it, write rows.

Nothing that decides a mark is where a student's code runs. The sandbox gets the notebook and
arguments and gives back plain data; this process draws the cases, from a seed that no student
knows, and judges.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot_lib.classroom import results as receipts
from fewshot_lib.classroom.plan import NotBuilt, Plan, plan
from fewshot_lib.classroom.pool import Pool
from fewshot_lib.classroom.report import fingerprint, write_all
from fewshot_lib.classroom.sandbox import NoSandbox, SandboxLimits, require_sandbox
from fewshot_lib.classroom.submissions import NoSubmissions, Submission, find
from fewshot_lib.exercises import catalogue

log = logging.getLogger(__name__)


@dataclass
class Summary:
    """How a run went.

    Arguments:
        graded: rows written now.
        kept: submissions whose row was there already.
        failed: student, exercise and reason of those that could not be graded.
        first_seconds: from the call to the first new row.
        seconds: from the call to the end.
    """

    graded: int = 0
    kept: int = 0
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    first_seconds: float = 0.0
    seconds: float = 0.0


def grade(
    place: Path,
    folder: Path,
    course: Path,
    *,
    only: str = "",
    seed: int | None = None,
    workers: int = 1,
    limits: SandboxLimits | None = None,
    isolation: str = "bubblewrap",
    scheduler: str = "",
    progress: Callable[[int, int, Mapping[str, Any]], None] | None = None,
) -> Summary:
    """Grade what stands at ``place`` into the results folder ``folder``.

    Arguments:
        place: submissions; see ``submissions.find``.
        folder: of the results; rows that are there already are kept, not repeated.
        course: the course's folder.
        only: one exercise.
        seed: of the run; drawn once and recorded when omitted.
        workers: sandboxes side by side.
        limits: for each submission.
        isolation: "bubblewrap" or "none".
        scheduler: the address of a Dask scheduler whose workers do the running; "" for here.
        progress: told the number of rows, of submissions, and the row, after each.

    Returns:
        A summary; the rows are in ``folder``.

    Raises:
        NoSubmissions, NoSuchExercise, NotBuilt, BadResults: wrong use; one sentence.
        NoSandbox, NoScheduler, OtherCourse: this machine, or those machines, cannot.
    """
    begun = time.monotonic()
    limits = limits or SandboxLimits()
    if not scheduler:
        require_sandbox(isolation)
    found = find(place, only)
    plans = {name: plan(name, course) for name in sorted({one.exercise for one in found})}
    kept = receipts.Results(folder, course_digest(course))
    if seed is None:
        seed = kept.settings.get("seed", secrets.randbits(40))
    if seed != kept.settings.get("seed", seed):
        raise receipts.BadResults(
            f"{folder} was begun with seed {kept.settings['seed']}, not {seed}: omit --seed to go "
            "on, or name a new results folder"
        )
    kept.remember(
        seed=seed,
        submissions=str(place.resolve()),
        isolation=isolation,
        limits=vars(limits),
    )
    done = kept.done()
    summary = Summary()
    for name, one_plan in plans.items():
        todo = [one for one in found if one.exercise == name and _key(one, one_plan) not in done]
        summary.kept += sum(one.exercise == name for one in found) - len(todo)
        if not todo:
            continue
        with Pool(one_plan, workers, isolation, limits, scheduler) as pool:
            for row in pool.grade(todo, seed):
                row = kept.append(row)
                summary.graded += 1
                summary.first_seconds = summary.first_seconds or time.monotonic() - begun
                if progress:
                    progress(summary.graded + summary.kept, len(found), row)
    summary.failed = [
        (row["student"], row["exercise"], row["notes"][0] if row["notes"] else row["status"])
        for row in receipts.current(kept.rows)
        if row["status"] in ("not read", "sandbox")
    ]
    summary.seconds = time.monotonic() - begun
    return summary


def course_digest(course: Path) -> str:
    """Name the course that a results folder belongs to: the set of its exercises' names."""
    return receipts.digest("fewshot-course", *catalogue.names())[:16]


def _key(submission: Submission, one_plan: Plan) -> tuple[str, str, str, str]:
    return (
        submission.student,
        submission.exercise,
        submission_digest(submission),
        one_plan.specification,
    )


def submission_digest(submission: Submission) -> str:
    """Hash what was handed in; for a file that was not read, the reason."""
    return receipts.digest(submission.data or b"", submission.problem)


def write_reports(folder: Path, course: Path) -> Path:
    """Write marks, feedback and the teacher's report from a results folder.

    Code is compared as far as the submissions are still where they were graded from.

    Returns:
        The teacher's report.

    Raises:
        BadResults: the folder is none of ours, or its chain is broken.
    """
    settings = results_settings(folder)
    try:
        found = find(Path(settings["submissions"]))
    except NoSubmissions as error:
        log.warning("submissions are not compared with each other: %s", error)
        found = []
    prints = {}
    plans: dict[str, Plan] = {}
    for one in found:
        if one.data is None:
            continue
        one_plan = plans.setdefault(one.exercise, plan(one.exercise, course))
        try:
            assembled = assemble(one_plan.exercise, one_plan.built, notebook(one.data))
        except Unreadable:
            continue
        stubs = answer_cells(one_plan.built)
        prints[one.student, one.exercise] = fingerprint(assembled.sources, stubs)
    return write_all(folder, prints)


def results_settings(folder: Path) -> dict[str, Any]:
    """Read what a results folder says of its run.

    Raises:
        BadResults: it is no results folder.
    """
    try:
        settings = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return dict(settings)
    except (OSError, ValueError, TypeError):
        raise receipts.BadResults(
            f"{folder} is no results folder of this grader: it has no readable run.json"
        ) from None


def same_mark(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Say what differs between two rows of the same submission; what may vary is left out."""
    differing = []
    for name in ("status", "points", "max_points", "checks", "notes", "printed"):
        if one[name] != other[name]:
            differing.append(name)
    if one["receipt"]["submission"] != other["receipt"]["submission"]:
        differing.append("the submission itself")
    if one["receipt"]["specification"] != other["receipt"]["specification"]:
        differing.append("the specification")
    return differing


def verify(
    folder: Path,
    course: Path,
    *,
    workers: int = 1,
    isolation: str = "bubblewrap",
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[str, str, list[str]]]:
    """Repeat every current row of a results folder and compare.

    Returns:
        Student, exercise and what differs, of each row that did not come out the same.

    Raises:
        BadResults: the folder is none of ours, or its chain is broken.
    """
    results_settings(folder)
    kept = receipts.Results(folder, course_digest(course))
    rows = {(row["student"], row["exercise"]): row for row in receipts.current(kept.rows)}
    found = [
        one
        for one in find(Path(kept.settings["submissions"]))
        if (one.student, one.exercise) in rows
    ]
    differing = [
        (student, exercise, ["the submission is no longer there"])
        for student, exercise in sorted(set(rows) - {(o.student, o.exercise) for o in found})
    ]
    limits = SandboxLimits(**kept.settings["limits"])
    count = 0
    for name in sorted({one.exercise for one in found}):
        todo = [one for one in found if one.exercise == name]
        with Pool(plan(name, course), workers, isolation, limits) as pool:
            for row in pool.grade(todo, kept.settings["seed"]):
                count += 1
                differs = same_mark(rows[row["student"], row["exercise"]], row)
                if differs:
                    differing.append((row["student"], row["exercise"], differs))
                if progress:
                    progress(count, len(found))
    return sorted(differing)


__all__ = ["NoSandbox", "NotBuilt", "Plan", "Pool", "Summary", "grade", "plan", "verify"]
