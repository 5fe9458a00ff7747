"""Grade submissions: collect, read, run in the sandbox, judge outside it, write rows.

Nothing that decides a mark is where a student's code runs. The sandbox gets the notebook and
arguments and gives back plain data; this process draws the cases, from a seed that no student
knows, and judges.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fewshot_lib.checker import catalogue
from fewshot_lib.checker.course import course as used
from fewshot_lib.checker.notebook import answer_cells
from fewshot_lib.grader import results
from fewshot_lib.grader.marks import BadOption
from fewshot_lib.grader.places import NoSubmissions
from fewshot_lib.grader.plan import Plan, course_exercises, plan
from fewshot_lib.grader.pool import Pool
from fewshot_lib.grader.report import write_all
from fewshot_lib.grader.sandbox import SandboxLimits, require_sandbox
from fewshot_lib.grader.submissions import Collected, Submission, collect

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
        remarks: one sentence each, on the results folder.
        unrecognised: file and reason of what was found there and is not a submission.
    """

    graded: int = 0
    kept: int = 0
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    first_seconds: float = 0.0
    seconds: float = 0.0
    remarks: list[str] = field(default_factory=list)
    unrecognised: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class GradeOptions:
    """What a teacher asks of a run beyond the grading of what is new.

    Arguments:
        regrade: students who are graded again although they have a row; "all" means everyone.
        status: rows that ended so are graded again; see ``results.STATUSES``.
        due: ISO time with an offset, of the exercises of this run; "" leaves what was said before.
        late_per_day: percent of the points per begun day; None leaves what was said before.
        roster: who should hand in, the fields of ``RosterEntry``; None leaves what was said before.
    """

    regrade: Sequence[str] = ()
    status: Sequence[str] = ()
    due: str = ""
    late_per_day: float | None = None
    roster: Sequence[Mapping[str, Any]] | None = None


def collected(place: Path, only: str = "") -> Collected:
    """Collect the submissions at a place; see ``submissions.collect``.

    Raises:
        NoSubmissions: there are none.
        NoSuchExercise: ``only`` is not an exercise.
    """
    wanted = catalogue.exercise(only).stem if only else ""
    return collect(place, course_exercises(), wanted)


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
    options: GradeOptions | None = None,
    progress: Callable[[int, int, Mapping[str, Any]], None] | None = None,
) -> Summary:
    """Grade what stands at ``place`` into the results folder ``folder``.

    A submission that has a row is not graded again, unless it was asked for or the machine had
    spoilt the row. A changed submission takes the place of the earlier one, whose row stays.

    Arguments:
        place: submissions; see ``submissions.collect``.
        folder: of the results; rows that are there already are kept, not repeated.
        course: the course's folder.
        only: one exercise.
        seed: of the run; drawn once and recorded when omitted.
        workers: sandboxes side by side.
        limits: for each submission.
        isolation: "bubblewrap" or "none".
        scheduler: the address of a Dask scheduler whose workers do the running; "" for here.
        options: what is graded again, due dates, roster.
        progress: told the number of rows, of submissions, and the row, after each.

    Returns:
        A summary; the rows are in ``folder``.

    Raises:
        NoSubmissions, NoSuchExercise, NotBuilt, BadResults, BadOption: wrong use; one sentence.
        NoSandbox, NoScheduler, OtherCourse: this machine, or those machines, cannot.
    """
    begun = time.monotonic()
    limits, options = limits or SandboxLimits(), options or GradeOptions()
    if not scheduler:
        require_sandbox(isolation)
    there = collected(place, only)
    found = there.submissions
    unrecognised = [(one.name, one.why) for one in there.unrecognised]
    unrecognised += [("names", said) for said in there.clashes]
    _refuse_unknown(options, found, place)
    plans = {name: plan(name, course) for name in sorted({one.exercise for one in found})}
    summary = Summary(unrecognised=unrecognised)
    with results.Results(folder, course_digest()) as kept:
        summary.remarks = kept.remarks
        if seed is None:
            seed = int(kept.settings.get("seed", secrets.randbits(40)))
        if seed != kept.settings.get("seed", seed):
            raise results.BadResults(
                f"{folder} was begun with seed {kept.settings['seed']}, not {seed}: omit --seed to "
                "go on, or name a new results folder"
            )
        kept.remember(seed=seed, isolation=isolation, limits=vars(limits))
        again = _remember(kept, options, place, only, list(plans), unrecognised)
        todo = _left_to_do(kept, options, found, plans, again)
        summary.kept = len(found) - len(todo)
        for name, one_plan in plans.items():
            waiting = [one for one in todo if one.exercise == name]
            if not waiting:
                continue
            with Pool(one_plan, workers, isolation, limits, scheduler) as pool:
                for row in pool.grade(waiting, seed):
                    row = kept.append(row)
                    summary.graded += 1
                    summary.first_seconds = summary.first_seconds or time.monotonic() - begun
                    if progress:
                        progress(summary.graded + summary.kept, len(found), row)
        kept.remember(regrading=None)
        summary.failed = [
            (row["student"], row["exercise"], row["notes"][0] if row["notes"] else row["status"])
            for row in results.current(kept.rows)
            if row["status"] == "not read" or row["status"] in results.NOT_DONE
        ]
    summary.seconds = time.monotonic() - begun
    return summary


def _refuse_unknown(options: GradeOptions, found: Sequence[Submission], place: Path) -> None:
    students = {one.student for one in found}
    for student in options.regrade:
        if student != "all" and student not in students:
            near = get_close_matches(student, sorted(students), n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise BadOption(
                f"--regrade {student!r}: no such student at {place}{hint} (a student is named as "
                "in grades.csv; «all» means everyone)"
            )
    for status in options.status:
        if status not in results.STATUSES:
            known = ", ".join(results.STATUSES)
            raise BadOption(f"--status {status!r} is not a status of a row; there are {known}")


def _remember(
    kept: results.Results,
    options: GradeOptions,
    place: Path,
    only: str,
    exercises: Sequence[str],
    unrecognised: Sequence[tuple[str, str]],
) -> int:
    """Write the options into ``run.json``; give the number of the row where regrading begins.

    A run that grades again and is interrupted goes on where it stood when the same is asked.
    """
    settings = kept.settings
    due = {name: dict(rule) for name, rule in settings.get("due", {}).items()}
    for name in exercises:
        if options.due:
            due[name] = {"at": options.due, "percent": due.get(name, {}).get("percent", 0.0)}
        if options.late_per_day is not None:
            if name not in due:
                raise BadOption(
                    f"--late-per-day needs to know when {name} was due: add --due with the date"
                )
            due[name]["percent"] = options.late_per_day
    where = {"place": str(place.resolve()), "only": only, "unrecognised": list(unrecognised)}
    same = (where["place"], only)
    folders = [f for f in settings.get("folders", []) if (f["place"], f.get("only", "")) != same]
    asked = {"students": sorted(set(options.regrade)), "status": sorted(set(options.status))}
    before = settings.get("regrading") or {}
    again = len(kept.rows)
    if {name: before.get(name) for name in asked} == asked:
        again = min(int(before.get("from", again)), again)
    kept.remember(
        folders=[*folders, where],
        due=due or None,
        regrading={**asked, "from": again} if any(asked.values()) else None,
    )
    if options.roster is not None:
        kept.remember(roster=list(options.roster))
    return again


def _left_to_do(
    kept: results.Results,
    options: GradeOptions,
    found: Sequence[Submission],
    plans: Mapping[str, Plan],
    again: int,
) -> list[Submission]:
    """Choose what is graded; see ``grade``. Rows from number ``again`` on are already repeated."""
    latest = {(row["student"], row["exercise"]): row for row in results.current(kept.rows)}
    done, repeated = kept.done(), kept.done(again)
    ever = {(*results.key_of(row)[:3],) for row in kept.rows}

    def asked_for(one: Submission, row: Mapping[str, Any]) -> bool:
        named = one.student in options.regrade or "all" in options.regrade
        return named or row["status"] in options.status

    todo = []
    for one in found:
        key = one.student, one.exercise, one.digest(), plans[one.exercise].specification
        row = latest.get(key[:2])
        if row is None:
            todo.append(one)
        elif key[2] != row["receipt"]["submission"] and key[:3] in ever and not _newer(one, row):
            continue  # an earlier submission, from a folder graded before: its mark was replaced
        elif asked_for(one, row):
            todo += [] if key in repeated else [one]
        elif key not in done:
            todo.append(one)
    return todo


def _newer(submission: Submission, row: Mapping[str, Any]) -> bool:
    times = [submission.handed_in, row["handed_in"]]
    if not all(times):
        return False
    new, old = (datetime.fromisoformat(time).astimezone() for time in times)
    return new > old


def course_digest() -> str:
    """Name the course that a results folder belongs to: the set of its exercises' names."""
    return results.digest(used().name, *catalogue.names())[:16]


def write_reports(folder: Path, course: Path) -> Path:
    """Write marks, feedback and the teacher's report from a results folder.

    Returns:
        The teacher's report.

    Raises:
        BadResults: the folder is none of ours, or rows are damaged.
    """
    results.read_settings(folder)
    rows = results.current(results.read_rows(folder / "results.jsonl"))
    plans = {name: plan(name, course) for name in sorted({row["exercise"] for row in rows})}
    handed_out = {name: answer_cells(one.built, texts=True) for name, one in plans.items()}
    code = {(row["student"], row["exercise"]): row["code"] for row in rows}
    return write_all(folder, handed_out, code)


def submissions_of(
    rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[tuple[Mapping[str, Any], Submission | None]]:
    """Find the submission of each row in the folders that were graded; the same bytes if there."""
    there: dict[tuple[str, str], Submission] = {}
    exact: dict[tuple[str, str, str], Submission] = {}
    for where in settings.get("folders", []) if rows else []:
        try:
            found = collected(Path(where["place"]), where.get("only", "")).submissions
        except NoSubmissions as error:
            log.warning("submissions are no longer where they were graded from: %s", error)
            continue
        for one in found:
            there[one.student, one.exercise] = one
            exact[one.student, one.exercise, one.digest()] = one
    matched = []
    for row in rows:
        key = row["student"], row["exercise"]
        matched.append((row, exact.get((*key, row["receipt"]["submission"]), there.get(key))))
    return matched


def same_mark(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Say what differs between two rows of the same submission, of what decides the mark.

    What a submission printed, how long it took and how a message words it may vary.
    """
    differing = [name for name in ("status", "points", "max_points") if one[name] != other[name]]
    if _decisive(one) != _decisive(other):
        differing.append("checks")
    if one["receipt"]["submission"] != other["receipt"]["submission"]:
        differing.append("the submission itself")
    if one["receipt"]["specification"] != other["receipt"]["specification"]:
        differing.append("the specification")
    return differing


def _decisive(row: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    names = ("id", "points", "max_points", "status", "mistake")
    return [tuple(check[name] for name in names) for check in row["checks"]]


def verify(
    folder: Path, course: Path, *, workers: int = 1, isolation: str = "bubblewrap"
) -> list[tuple[str, str, list[str]]]:
    """Repeat every current row of a results folder and compare.

    Returns:
        Student, exercise and what differs, of each row that did not come out the same.

    Raises:
        BadResults: the folder is none of ours, or rows are damaged.
    """
    settings = results.read_settings(folder)
    if settings.get("course") != course_digest():
        raise results.BadResults(f"{folder} holds the results of another course")
    rows = results.current(results.read_rows(folder / "results.jsonl"))
    try:
        limits = SandboxLimits(**settings["limits"])
    except (KeyError, TypeError, ValueError):
        raise results.BadResults(
            f"{folder / 'run.json'} is damaged at 'limits': name a new results folder"
        ) from None
    differing: list[tuple[str, str, list[str]]] = []
    todo: dict[str, list[tuple[Mapping[str, Any], Submission]]] = {}
    for row, one in submissions_of(rows, settings):
        if row["status"] in results.NOT_DONE:
            why = f"it was not graded ({row['status']}): a fault of the machine or of the grader"
            differing.append((row["student"], row["exercise"], [why]))
        elif one is None:
            gone = ["the submission is no longer there"]
            differing.append((row["student"], row["exercise"], gone))
        else:
            todo.setdefault(one.exercise, []).append((row, one))
    for name, pairs in sorted(todo.items()):
        before = {row["student"]: row for row, _ in pairs}
        with Pool(plan(name, course), workers, isolation, limits) as pool:
            for row in pool.grade([one for _, one in pairs], settings["seed"]):
                differs = same_mark(before[row["student"]], row)
                if differs:
                    differing.append((row["student"], row["exercise"], differs))
    return sorted(differing)
