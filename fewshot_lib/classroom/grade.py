"""Grade submissions: find, assemble, run in the sandbox, judge outside it, write receipts.

Nothing that decides a mark is where a student's code runs. The sandbox gets code and arguments and
gives back plain data; this module draws the cases, from a seed that no student knows, and judges.
"""

from __future__ import annotations

import json
import logging
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from fewshot_lib.classroom import results as receipts
from fewshot_lib.classroom.assemble import Assembled, assemble
from fewshot_lib.classroom.edition import build_edition
from fewshot_lib.classroom.report import fingerprint, write_all
from fewshot_lib.classroom.sandbox import (
    Calls,
    Ended,
    NoSandbox,
    Sandbox,
    SandboxLimits,
    require_sandbox,
)
from fewshot_lib.classroom.submissions import (
    NoSubmissions,
    Submission,
    Unreadable,
    find,
    notebook,
)
from fewshot_lib.exercises import catalogue
from fewshot_lib.exercises.diagnosis import FAILED, CheckVerdict, Verdict, judge, sheet
from fewshot_lib.exercises.notebook import BadSolution, answer_cells, read
from fewshot_lib.exercises.spec import Answer, Exercise

log = logging.getLogger(__name__)

#: What the warm worker imports before its first fork.
WARM_MODULES = (
    "numpy",
    "fewshot_lib.exercises.running",
    "fewshot_lib.exercises.given",
    "fewshot_lib.episodes",
    "fewshot_lib.prototypes",
)


class NotBuilt(ValueError):
    """An exercise has no built notebook to grade against."""


@dataclass(frozen=True)
class Plan:
    """An exercise, ready to grade against.

    Arguments:
        exercise: its specification.
        built: the notebook as handed out.
        specification: hash of everything that a mark depends on.
    """

    exercise: Exercise
    built: Mapping[str, Any]
    specification: str


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


def plan(name: str, folder: Path) -> Plan:
    """Make ready to grade an exercise.

    Arguments:
        name: "03_prototypes" or "prototypes".
        folder: the course's folder, with ``exercises/``.

    Raises:
        NotBuilt: the exercise was never built here.
        catalogue.NoSuchExercise: there is none of that name.
    """
    exercise = catalogue.exercise(name)
    file = folder / "exercises" / f"{exercise.stem}.ipynb"
    try:
        built = read(file)
    except BadSolution as error:
        raise NotBuilt(f"{error}; build it with `fewshot build {exercise.stem}`") from None
    package = Path(catalogue.__file__).parent
    parts = [package / f"{exercise.name}.py", file]
    parts += [package / f"{part}.py" for part in ("compare", "diagnosis", "running", "spec")]
    specification = receipts.digest(*(part.read_bytes() for part in parts))
    return Plan(exercise, built, specification)


def student_seed(run_seed: int, student: str, exercise: str) -> int:
    """Derive the seed of one student's cases from the seed of the run."""
    return int(receipts.digest(str(run_seed), student, exercise)[:12], 16)


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
        progress: told the number of rows, of submissions, and the row, after each.

    Returns:
        A summary; the rows are in ``folder``.

    Raises:
        NoSubmissions, NoSuchExercise, NotBuilt, BadResults: wrong use; one sentence.
        NoSandbox: this machine cannot.
    """
    begun = time.monotonic()
    limits = limits or SandboxLimits()
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
        with Pool(one_plan, workers, isolation, limits) as pool:
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


class Pool:
    """Sandboxes of one exercise, side by side; judging stays in this thread.

    Arguments:
        one_plan: the exercise.
        workers: how many sandboxes.
        isolation, limits: as for ``grade``.
    """

    def __init__(self, one_plan: Plan, workers: int, isolation: str, limits: SandboxLimits) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.plan, self.workers = one_plan, workers
        self.isolation, self.limits = isolation, limits
        self._folder = tempfile.TemporaryDirectory(prefix="fewshot-edition-")
        self.edition = build_edition(one_plan.exercise, Path(self._folder.name))
        self._idle: SimpleQueue[Sandbox] = SimpleQueue()
        self._made: list[Sandbox] = []
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")

    def __enter__(self) -> Pool:
        """Warm the first sandbox, so that a machine that cannot says so at once."""
        self._idle.put(self._sandbox())
        return self

    def __exit__(self, *_: object) -> None:
        """End every sandbox."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for sandbox in self._made:
            sandbox.close()
        self._folder.cleanup()

    def _sandbox(self) -> Sandbox:
        sandbox = Sandbox(self.edition, WARM_MODULES, self.isolation, self.limits)
        with self._lock:
            self._made.append(sandbox)
        return sandbox

    def grade(self, submissions: Iterable[Submission], seed: int) -> Iterator[dict[str, Any]]:
        """Grade submissions; rows come as they are ready."""
        waiting: dict[Future[Ended], Prepared] = {}
        coming = iter(submissions)
        more = True
        while more or waiting:
            while more and len(waiting) < self.workers + 1:
                submission = next(coming, None)
                if submission is None:
                    more = False
                    break
                prepared = prepare(self.plan, submission, seed)
                if prepared.assembled is None:
                    yield unread_row(self.plan, prepared)
                    continue
                waiting[self._threads.submit(self._run, prepared)] = prepared
            if not waiting:
                continue
            ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready:
                prepared = waiting.pop(future)
                yield row_of(self.plan, prepared, future.result(), self.worker_versions)

    @property
    def worker_versions(self) -> Mapping[str, Any]:
        """What the workers report of themselves."""
        return dict(self._made[0].warm["versions"])

    def _run(self, prepared: Prepared) -> Ended:
        try:
            sandbox = self._idle.get_nowait()
        except Empty:
            sandbox = self._sandbox()
        try:
            assert prepared.assembled is not None
            ended = sandbox.run(prepared.assembled.cells, prepared.calls)
            if ended.why == "sandbox":  # ours, not the student's: once more, in a new one
                sandbox.close()
                ended = sandbox.run(prepared.assembled.cells, prepared.calls)
            return ended
        finally:
            self._idle.put(sandbox)


@dataclass(frozen=True)
class Prepared:
    """A submission with its seed and calls; ``assembled`` is None if it cannot be read."""

    submission: Submission
    seed: int
    assembled: Assembled | None
    calls: Sequence[Calls]
    problem: str = ""


def prepare(one_plan: Plan, submission: Submission, run_seed: int) -> Prepared:
    """Read a submission, decide what of it is run, and draw its cases."""
    seed = student_seed(run_seed, submission.student, submission.exercise)
    if submission.data is None:
        return Prepared(submission, seed, None, (), submission.problem)
    try:
        assembled = assemble(one_plan.exercise, one_plan.built, notebook(submission.data))
    except Unreadable as error:
        return Prepared(submission, seed, None, (), str(error))
    calls = [Calls(one.name, sheet(one, seed).flat) for one in one_plan.exercise.answers]
    return Prepared(submission, seed, assembled, calls)


def unread_row(one_plan: Plan, prepared: Prepared) -> dict[str, Any]:
    """Make the row of a submission that is no notebook that can be graded."""
    checks = [
        _check_row(answer, CheckVerdict(line.name, 0.0, line.points, FAILED), None, "not read")
        for answer in one_plan.exercise.answers
        for line in answer.checks
    ]
    return _row(one_plan, prepared, "not read", checks, [prepared.problem], {}, 0.0, {})


def row_of(
    one_plan: Plan, prepared: Prepared, ended: Ended, worker: Mapping[str, Any]
) -> dict[str, Any]:
    """Judge what came back and make the row."""
    assert prepared.assembled is not None
    checks: list[dict[str, Any]] = []
    for answer in one_plan.exercise.answers:
        verdict = judge(one_plan.exercise, answer, ended.outcomes[answer.name], prepared.seed)
        reason = "" if ended.why == "done" else ended.detail
        checks += [_check_row(answer, line, verdict, reason) for line in verdict.checks]
    notes = list(prepared.assembled.remarks)
    if ended.why != "done":
        notes.insert(0, f"The submission was stopped: {ended.detail or ended.why}.")
    names = set(prepared.assembled.sources)
    notes += [
        f"The cell of {note['id']!r} ended with {note['error']}"
        for note in ended.cells
        if note["error"] and (note["id"] in names or note["id"].startswith("added"))
    ][:20]
    printed = {
        note["id"][:80]: note["printed"][:500] for note in ended.cells if note["printed"].strip()
    }
    status = "graded" if ended.why == "done" else ended.why
    return _row(one_plan, prepared, status, checks, notes, printed, ended.seconds, worker)


def _check_row(
    answer: Answer, line: CheckVerdict, verdict: Verdict | None, reason: str
) -> dict[str, Any]:
    mistake = next(
        (m for m in verdict.mistakes if m.name == line.mistake) if verdict else iter(()), None
    )
    message = line.sentence
    if mistake is not None:
        message = f"{mistake.says} ({mistake.pointer})" if mistake.pointer else mistake.says
    elif reason and line.status == FAILED:
        message = reason
    return {
        "id": f"{answer.name}: {line.name}",
        "answer": answer.name,
        "points": line.points,
        "max_points": line.max_points,
        "status": line.status,
        "message": message,
        "mistake": line.mistake,
    }


def _row(
    one_plan: Plan,
    prepared: Prepared,
    status: str,
    checks: list[dict[str, Any]],
    notes: list[str],
    printed: Mapping[str, str],
    seconds: float,
    worker: Mapping[str, Any],
) -> dict[str, Any]:
    submission = prepared.submission
    return {
        "student": submission.student,
        "exercise": submission.exercise,
        "status": status,
        "points": sum(check["points"] for check in checks),
        "max_points": sum(check["max_points"] for check in checks),
        "checks": checks,
        "notes": notes,
        "printed": dict(printed),
        "seconds": round(seconds, 3),
        "file": submission.name,
        "receipt": {
            "submission": submission_digest(submission),
            "specification": one_plan.specification,
            "seed": prepared.seed,
            "versions": receipts.versions(worker),
        },
    }


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
