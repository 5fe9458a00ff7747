"""Grade submissions: find, assemble, run in the sandbox, judge outside it, write receipts.

Nothing that decides a mark is where a student's code runs. The sandbox gets code and arguments and
gives back plain data; this module draws the cases, from a seed that no student knows, and judges.

**A wrong answer does not cost the answers that call it.** First everything runs as written. An
answer that then lacks points gets a second run if an earlier one is wrong and is called somewhere
outside its own cell: in it the course's own source of each wrong earlier answer stands in, as
``carry_on`` does in the notebook, and only the later answer is called and judged; the better of its
two verdicts counts. What stands in can win nothing for its own answer: that one was judged before,
in a process that had ended and never held it; no reply about it counts in the second run, and no
word of a second run reaches feedback, so that our source cannot be carried out and handed in later.
What it gives a *later* answer is what the notebook gives; that it is not that answer itself is held
by ``tests/classroom/test_standing_in.py``.
"""

from __future__ import annotations

import ast
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from fewshot_lib.classroom import results as receipts
from fewshot_lib.classroom.assemble import Assembled, assemble, python
from fewshot_lib.classroom.edition import source_digest
from fewshot_lib.classroom.marks import BadOption
from fewshot_lib.classroom.report import write_all
from fewshot_lib.classroom.sandbox import (
    Calls,
    Ended,
    NoSandbox,
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
from fewshot_lib.classroom.workplace import Crew, Done, Elsewhere, Here, OtherCourse, Setting, lost
from fewshot_lib.exercises import catalogue
from fewshot_lib.exercises.diagnosis import (
    FAILED,
    PASSED,
    CheckVerdict,
    Verdict,
    judge,
    sheet,
)
from fewshot_lib.exercises.notebook import (
    BadSolution,
    answer_cells,
    grading,
    read,
    source_of,
    without_markers,
)
from fewshot_lib.exercises.running import LOST, TOO_SLOW, Outcome
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
        standing_in: the course's own source of each answer, by name.
    """

    exercise: Exercise
    built: Mapping[str, Any]
    specification: str
    standing_in: Mapping[str, str] = field(default_factory=dict)


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
        unrecognised: file and reason of what at the place was no submission.
    """

    graded: int = 0
    kept: int = 0
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    first_seconds: float = 0.0
    seconds: float = 0.0
    remarks: list[str] = field(default_factory=list)
    unrecognised: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Wishes:
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


def plan(name: str, folder: Path) -> Plan:
    """Make ready to grade an exercise.

    Arguments:
        name: "03_prototypes" or "prototypes".
        folder: the course's folder, with ``exercises/`` and ``solutions/``.

    Raises:
        NotBuilt: the exercise was never built here.
        catalogue.NoSuchExercise: there is none of that name.
    """
    exercise = catalogue.exercise(name)
    file = folder / "exercises" / f"{exercise.stem}.ipynb"
    try:
        built = read(file)
        solved = answer_cells(read(folder / "solutions" / f"{exercise.stem}.ipynb"))
    except BadSolution as error:
        raise NotBuilt(f"{error}; build it with `fewshot build {exercise.stem}`") from None
    own = {answer.name: without_markers(solved[answer.name]) for answer in exercise.answers}
    specification = receipts.digest(
        source_digest(exercise.name), file.read_bytes(), receipts.canonical(own)
    )
    return Plan(exercise, built, specification, own)


def student_seed(run_seed: int, student: str, exercise: str, submission: str) -> int:
    """Derive the seed of one submission's cases from the seed of the run.

    It depends on the submission, so that what one submission was asked is of no use to the next.

    Arguments:
        run_seed: of the run.
        student, exercise: whose and of what.
        submission: the digest of what was handed in.
    """
    return int(receipts.digest(str(run_seed), student, exercise, submission)[:12], 16)


def find_at(place: Path, only: str = "") -> tuple[list[Submission], list[tuple[str, str]]]:
    """Find submissions; give also the file and the reason of everything that is none."""
    return find(place, only), []


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
    wishes: Wishes | None = None,
    progress: Callable[[int, int, Mapping[str, Any]], None] | None = None,
) -> Summary:
    """Grade what stands at ``place`` into the results folder ``folder``.

    A submission that has a row is not graded again, unless it was asked for or the machine had
    spoilt the row. A changed submission takes the place of the earlier one, whose row stays.

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
        wishes: what is graded again, due dates, roster.
        progress: told the number of rows, of submissions, and the row, after each.

    Returns:
        A summary; the rows are in ``folder``.

    Raises:
        NoSubmissions, NoSuchExercise, NotBuilt, BadResults, BadOption: wrong use; one sentence.
        NoSandbox, NoScheduler, OtherCourse: this machine, or those machines, cannot.
    """
    begun = time.monotonic()
    limits, wishes = limits or SandboxLimits(), wishes or Wishes()
    if not scheduler:
        require_sandbox(isolation)
    found, unrecognised = find_at(place, only)
    _refuse_unknown(wishes, found, place)
    plans = {name: plan(name, course) for name in sorted({one.exercise for one in found})}
    summary = Summary(unrecognised=unrecognised)
    with receipts.Results(folder, course_digest(course)) as kept:
        summary.remarks = kept.remarks
        if seed is None:
            seed = int(kept.settings.get("seed", secrets.randbits(40)))
        if seed != kept.settings.get("seed", seed):
            raise receipts.BadResults(
                f"{folder} was begun with seed {kept.settings['seed']}, not {seed}: omit --seed to "
                "go on, or name a new results folder"
            )
        kept.remember(seed=seed, isolation=isolation, limits=vars(limits))
        again = _remember(kept, wishes, place, only, list(plans), unrecognised)
        todo = _left_to_do(kept, wishes, found, plans, again)
        summary.kept = len(found) - len(todo)
        for name, one_plan in plans.items():
            mine = [one for one in todo if one.exercise == name]
            if not mine:
                continue
            with Pool(one_plan, workers, isolation, limits, scheduler) as pool:
                for row in pool.grade(mine, seed):
                    row = kept.append(row)
                    summary.graded += 1
                    summary.first_seconds = summary.first_seconds or time.monotonic() - begun
                    if progress:
                        progress(summary.graded + summary.kept, len(found), row)
        kept.remember(regrading=None)
        summary.failed = [
            (row["student"], row["exercise"], row["notes"][0] if row["notes"] else row["status"])
            for row in receipts.current(kept.rows)
            if row["status"] == "not read" or row["status"] in receipts.NOT_DONE
        ]
    summary.seconds = time.monotonic() - begun
    return summary


def _refuse_unknown(wishes: Wishes, found: Sequence[Submission], place: Path) -> None:
    students = {one.student for one in found}
    for student in wishes.regrade:
        if student != "all" and student not in students:
            near = get_close_matches(student, sorted(students), n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise BadOption(
                f"--regrade {student!r}: no such student at {place}{hint} (a student is named as "
                "in grades.csv; «all» means everyone)"
            )
    for status in wishes.status:
        if status not in receipts.STATUSES:
            known = ", ".join(receipts.STATUSES)
            raise BadOption(f"--status {status!r} is no status of a row; there are {known}")


def _remember(
    kept: receipts.Results,
    wishes: Wishes,
    place: Path,
    only: str,
    exercises: Sequence[str],
    unrecognised: Sequence[tuple[str, str]],
) -> int:
    """Write the wishes into ``run.json``; give the number of the row where regrading begins.

    A run that grades again and is interrupted goes on where it stood when the same is asked.
    """
    settings = kept.settings
    due = {name: dict(rule) for name, rule in settings.get("due", {}).items()}
    for name in exercises:
        if wishes.due:
            due[name] = {"at": wishes.due, "percent": due.get(name, {}).get("percent", 0.0)}
        if wishes.late_per_day is not None:
            if name not in due:
                raise BadOption(
                    f"--late-per-day needs to know when {name} was due: add --due with the date"
                )
            due[name]["percent"] = wishes.late_per_day
    where = {"place": str(place.resolve()), "only": only, "unrecognised": list(unrecognised)}
    same = (where["place"], only)
    folders = [f for f in settings.get("folders", []) if (f["place"], f.get("only", "")) != same]
    asked = {"students": sorted(set(wishes.regrade)), "status": sorted(set(wishes.status))}
    before = settings.get("regrading") or {}
    again = len(kept.rows)
    if {name: before.get(name) for name in asked} == asked:
        again = min(int(before.get("from", again)), again)
    kept.remember(
        folders=[*folders, where],
        due=due or None,
        regrading={**asked, "from": again} if any(asked.values()) else None,
    )
    if wishes.roster is not None:
        kept.remember(roster=list(wishes.roster))
    return again


def _left_to_do(
    kept: receipts.Results,
    wishes: Wishes,
    found: Sequence[Submission],
    plans: Mapping[str, Plan],
    again: int,
) -> list[Submission]:
    """Choose what is graded; see ``grade``. Rows from number ``again`` on are already repeated."""
    latest = {(row["student"], row["exercise"]): row for row in receipts.current(kept.rows)}
    done, repeated = kept.done(), kept.done(again)
    ever = {(*receipts.key_of(row)[:3],) for row in kept.rows}

    def asked_for(one: Submission, row: Mapping[str, Any]) -> bool:
        named = one.student in wishes.regrade or "all" in wishes.regrade
        return named or row["status"] in wishes.status

    todo = []
    for one in found:
        key, row = _key(one, plans[one.exercise]), latest.get((one.student, one.exercise))
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
    mine, its = getattr(submission, "handed_in", ""), row.get("handed_in")
    if not mine or not its:
        return False
    return datetime.fromisoformat(mine).astimezone() > datetime.fromisoformat(its).astimezone()


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
    """Sandboxes of one exercise, side by side, here or elsewhere; judging stays in this thread.

    Arguments:
        one_plan: the exercise.
        workers: how many sandboxes here.
        isolation, limits: as for ``grade``.
        scheduler: the address of a Dask scheduler whose workers have the sandboxes; "" for here.
    """

    def __init__(
        self,
        one_plan: Plan,
        workers: int,
        isolation: str,
        limits: SandboxLimits,
        scheduler: str = "",
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.plan, self.workers, self.scheduler = one_plan, workers, scheduler
        modules = (*WARM_MODULES, *imported(one_plan.built))
        self.setting = Setting(one_plan.exercise.stem, modules, isolation, limits)
        self._crew: Crew
        self._threads: int

    def __enter__(self) -> Pool:
        """Warm the first sandbox, so that a machine that cannot says so at once.

        Meanwhile torch computes with one thread in this process: the cases are small, and a second
        thread costs three times the processor time, which the sandboxes need.
        """
        self._crew = (
            Elsewhere(self.setting, self.scheduler)
            if self.scheduler
            else Here(self.setting, self.workers)
        )
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)
        return self

    def __exit__(self, *_: object) -> None:
        """End every sandbox."""
        torch.set_num_threads(self._threads)
        self._crew.close()

    def grade(self, submissions: Iterable[Submission], seed: int) -> Iterator[dict[str, Any]]:
        """Grade submissions; rows come as they are ready."""
        waiting: dict[Future[Any], Underway] = {}
        coming = iter(submissions)
        more = True
        while more or waiting:
            while more and len(waiting) < self._crew.size:
                submission = next(coming, None)
                if submission is None:
                    more = False
                    break
                prepared = prepare(self.plan, submission, seed)
                if prepared.assembled is None:
                    yield unread_row(self.plan, prepared)
                    continue
                underway = Underway(prepared, prepared.assembled)
                future = self._crew.start(prepared.assembled.cells, prepared.calls)
                waiting[future] = underway
            if not waiting:
                continue
            ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready:
                underway = waiting.pop(future)
                self._take(underway, future)
                cells = underway.second_run(self.plan)
                if cells is not None:
                    waiting[self._crew.start(cells, underway.calls)] = underway
                    continue
                yield row_of(self.plan, underway)

    def _take(self, underway: Underway, future: Future[Any]) -> None:
        calls = underway.calls
        try:
            done = self._crew.finish(future.result(), calls)
        except (NoSandbox, OtherCourse):  # a machine that cannot: nothing to blame on a student
            raise
        except Exception as error:
            if not self.scheduler:
                raise
            done = lost(calls, f"no worker could finish it: {type(error).__name__}: {error}"[:300])
        underway.take(self.plan, done)


@dataclass
class Underway:
    """A submission between its first run and its row.

    Arguments:
        prepared: what was read and drawn.
        assembled: what of it is run.
        ended: its first run.
        versions: what the worker of the first run says of itself.
        verdicts: the better one of each answer so far.
        stood_in: for each answer that counts with something standing in: the names of that.
        seconds: of all runs.
        asked: the answer that the run under way is for; "" in the first run.
        with_others: what stands in, in the run under way.
    """

    prepared: Prepared
    assembled: Assembled
    ended: Ended | None = None
    versions: Mapping[str, Any] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    stood_in: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0
    asked: str = ""
    with_others: list[str] = field(default_factory=list)
    _looked_at: set[str] = field(default_factory=set)

    @property
    def calls(self) -> Sequence[Calls]:
        """The calls of the run under way."""
        return [one for one in self.prepared.calls if self.asked in ("", one.answer)]

    def take(self, one_plan: Plan, done: Done) -> None:
        """Judge what came of the run under way."""
        ended = done.ended
        self.seconds += ended.seconds
        found = {
            asked.answer: _judged(
                one_plan, asked.answer, ended.outcomes[asked.answer], self.prepared.seed
            )
            for asked in self.calls
        }
        if self.ended is None:
            self.ended, self.versions, self.verdicts = ended, done.versions, found
            return
        old, new = self.verdicts[self.asked], found[self.asked]
        if (new.points, bool(new.mistakes)) > (old.points, bool(old.mistakes)):
            self.verdicts[self.asked] = _in_our_words(new, self.with_others)
            self.stood_in[self.asked] = self.with_others

    def second_run(self, one_plan: Plan) -> Sequence[Mapping[str, str]] | None:
        """Give the cells of the next run that an answer has a right to; None when there is none.

        Answers that were stubs, that had all points, or whose process gave no reply have none.
        """
        assert self.ended is not None
        wrong: list[str] = []
        for answer in one_plan.exercise.answers:
            name, verdict = answer.name, self.verdicts[answer.name]
            answered = any(o.status not in (LOST, TOO_SLOW) for o in self.ended.outcomes[name])
            if verdict.status == FAILED and answered and name not in self._looked_at:
                self._looked_at.add(name)
                called = [other for other in wrong if self._is_called(other)]
                if called:
                    self.asked, self.with_others = name, called
                    return self._standing_in(one_plan, called)
            if verdict.status != PASSED:
                wrong.append(name)
        return None

    def _is_called(self, name: str) -> bool:
        return any(name in cell["source"] for cell in self.assembled.cells if cell["id"] != name)

    def _standing_in(self, one_plan: Plan, names: Sequence[str]) -> list[Mapping[str, str]]:
        """Put the course's own source behind the cells of answers, and once more at the end."""
        own = {
            name: {"id": f"the course's {name}", "source": one_plan.standing_in[name]}
            for name in names
        }
        cells: list[Mapping[str, str]] = []
        for cell in self.assembled.cells:
            cells.append(cell)
            if cell["id"] in own:
                cells.append(own[cell["id"]])
        return [*cells, *own.values()]


def _judged(one_plan: Plan, name: str, outcomes: Sequence[Outcome], seed: int) -> Verdict:
    """Judge; a reply over which the judge itself stumbles costs that answer, not the batch."""
    answer = one_plan.exercise[name]
    try:
        return judge(one_plan.exercise, answer, outcomes, seed)
    except Exception as error:
        log.exception("the judge stumbled over a reply to %s", name)
        said = (
            f"the grader could not judge this reply ({type(error).__name__}); this is a fault of "
            "the grader, and a person must look at it"
        )
        checks = tuple(
            CheckVerdict(line.name, 0.0, line.points, FAILED, sentence=said)
            for line in answer.checks
        )
        return Verdict(one_plan.exercise.name, name, checks)


def _in_our_words(verdict: Verdict, others: Sequence[str]) -> Verdict:
    """Leave out whatever of a second run's verdict a student can word: it could be our source."""
    said = f"this is not right with the course's own {' and '.join(others)} in its place either"
    lines = [
        line if line.status == PASSED else replace(line, sentence=said, case="", drawn=None)
        for line in verdict.checks
    ]
    return replace(verdict, checks=tuple(lines), notes=(), relation="")


def imported(built: Mapping[str, Any]) -> list[str]:
    """List the modules that a handed-out notebook imports: warm workers have them at hand."""
    names: dict[str, None] = {}
    for cell in built["cells"]:
        if cell["cell_type"] != "code" or grading(cell).get("solution"):
            continue
        for statement in ast.parse(python(source_of(cell))).body:
            if isinstance(statement, ast.Import):
                names.update(dict.fromkeys(alias.name for alias in statement.names))
            elif isinstance(statement, ast.ImportFrom) and statement.module:
                names[statement.module] = None
                below = [f"{statement.module}.{alias.name}" for alias in statement.names]
                names.update(dict.fromkeys(below))
    return list(names)


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
    seed = student_seed(
        run_seed, submission.student, submission.exercise, submission_digest(submission)
    )
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


def row_of(one_plan: Plan, underway: Underway) -> dict[str, Any]:
    """Make the row of a submission that was run and judged."""
    ended, assembled = underway.ended, underway.assembled
    assert ended is not None
    checks: list[dict[str, Any]] = []
    reason = "" if ended.why == "done" else ended.detail
    for answer in one_plan.exercise.answers:
        verdict = underway.verdicts[answer.name]
        checks += [_check_row(answer, line, verdict, reason) for line in verdict.checks]
    notes = list(assembled.remarks)
    if ended.why != "done":
        notes.insert(0, f"The submission was stopped: {ended.detail or ended.why}.")
    for name, others in underway.stood_in.items():
        notes.append(
            f"{name} was judged with the course's own {' and '.join(others)} in place of "
            f"{'yours, which is' if len(others) == 1 else 'yours, which are'} not right yet."
        )
    names = set(assembled.sources)
    notes += [
        f"The cell of {note['id']!r} ended with {note['error']}"
        for note in ended.cells
        if note["error"] and (note["id"] in names or note["id"].startswith("added"))
    ][:20]
    printed = {
        note["id"][:80]: note["printed"][:500] for note in ended.cells if note["printed"].strip()
    }
    status = "graded" if ended.why == "done" else ended.why
    return _row(
        one_plan,
        underway.prepared,
        status,
        checks,
        notes,
        printed,
        underway.seconds,
        underway.versions,
    )


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

    Returns:
        The teacher's report.

    Raises:
        BadResults: the folder is none of ours, or rows are damaged.
    """
    settings = results_settings(folder)
    rows = receipts.current(receipts.read_rows(folder / "results.jsonl"))
    plans = {name: plan(name, course) for name in sorted({row["exercise"] for row in rows})}
    handed_out = {
        name: {
            str(grading(cell)["grade_id"]): source_of(cell)
            for cell in one_plan.built["cells"]
            if grading(cell).get("solution")
        }
        for name, one_plan in plans.items()
    }
    code = {(row["student"], row["exercise"]): row["code"] for row in rows if row.get("code")}
    code |= _read_again([row for row in rows if "code" not in row], settings, plans)
    return write_all(folder, handed_out, code)


def _read_again(
    rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], plans: Mapping[str, Plan]
) -> dict[tuple[str, str], Mapping[str, str]]:
    """Read the answers' sources of rows that do not hold them, where they were graded from."""
    sources = {}
    for row, one in submissions_of(rows, settings):
        if one is None or one.data is None:
            continue
        one_plan = plans[row["exercise"]]
        try:
            found = assemble(one_plan.exercise, one_plan.built, notebook(one.data))
        except Unreadable:
            continue  # its row says so
        sources[row["student"], row["exercise"]] = found.sources
    return sources


def submissions_of(
    rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[tuple[Mapping[str, Any], Submission | None]]:
    """Find the submission of each row in the folders that were graded; the same bytes if there."""
    there: dict[tuple[str, str], Submission] = {}
    exact: dict[tuple[str, str, str], Submission] = {}
    for where in settings.get("folders", []) if rows else []:
        try:
            found, _ = find_at(Path(where["place"]), where.get("only", ""))
        except NoSubmissions as error:
            log.warning("submissions are no longer where they were graded from: %s", error)
            continue
        for one in found:
            there[one.student, one.exercise] = one
            exact[one.student, one.exercise, submission_digest(one)] = one
    matched = []
    for row in rows:
        key = row["student"], row["exercise"]
        matched.append((row, exact.get((*key, row["receipt"]["submission"]), there.get(key))))
    return matched


def results_settings(folder: Path) -> dict[str, Any]:
    """Read what a results folder says of its run.

    Raises:
        BadResults: it is no results folder.
    """
    return receipts.read_settings(folder)


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
        BadResults: the folder is none of ours, or rows are damaged.
    """
    settings = results_settings(folder)
    if settings.get("course") != course_digest(course):
        raise receipts.BadResults(f"{folder} holds the results of another course")
    rows = receipts.current(receipts.read_rows(folder / "results.jsonl"))
    try:
        limits = SandboxLimits(**settings["limits"])
    except (KeyError, TypeError, ValueError):
        raise receipts.BadResults(
            f"{folder / 'run.json'} is damaged at 'limits': name a new results folder"
        ) from None
    differing: list[tuple[str, str, list[str]]] = []
    todo: dict[str, list[tuple[Mapping[str, Any], Submission]]] = {}
    for row, one in submissions_of(rows, settings):
        if row["status"] in receipts.NOT_DONE:
            why = f"it was not graded ({row['status']}): a fault of the machine or of the grader"
            differing.append((row["student"], row["exercise"], [why]))
        elif one is None:
            gone = ["the submission is no longer there"]
            differing.append((row["student"], row["exercise"], gone))
        else:
            todo.setdefault(one.exercise, []).append((row, one))
    count, total = 0, sum(map(len, todo.values()))
    for name, pairs in sorted(todo.items()):
        before = {row["student"]: row for row, _ in pairs}
        with Pool(plan(name, course), workers, isolation, limits) as pool:
            for row in pool.grade([one for _, one in pairs], settings["seed"]):
                count += 1
                differs = same_mark(before[row["student"]], row)
                if differs:
                    differing.append((row["student"], row["exercise"], differs))
                if progress:
                    progress(count, total)
    return sorted(differing)


__all__ = [
    "NoSandbox",
    "NotBuilt",
    "Plan",
    "Pool",
    "Summary",
    "Wishes",
    "grade",
    "plan",
    "verify",
]
