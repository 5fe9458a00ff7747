"""Grade submissions: collect, read, run in the sandbox, judge outside it, write rows.

Nothing that decides a mark is where a student's code runs. The sandbox gets the notebook and
arguments and gives back plain data; this module draws the cases, from a seed that no student knows,
and judges. One submission may take several runs:

- **As handed in.** The whole notebook, then the calls of every answer.
- **Without what ended it.** If the process died or was stopped before all answers were called, the
  notebook runs again without the cell, or without the answer, in which that happened: it costs
  itself only.
- **With the course's own answers in place of wrong ones.** An answer that lacks points gets another
  run if an earlier wrong answer is called somewhere outside its own cell: in it the course's own
  source of each wrong earlier answer stands in, as ``carry_on`` does in the notebook, and only the
  later answer is called and judged; the better of its two verdicts counts. What stands in can win
  nothing for its own answer: that one was judged before, in a process that had ended and never held
  it; no reply about it counts in this run, and no word of this run reaches feedback, so that our
  source cannot be carried out and handed in later. What it gives a *later* answer is what the
  notebook gives; that it is not that answer itself is held by
  ``tests/classroom/test_standing_in.py``.
"""

from __future__ import annotations

import ast
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from fewshot_lib.classroom import results as receipts
from fewshot_lib.classroom.assemble import Assembled, Template, assemble, definitions
from fewshot_lib.classroom.edition import source_digest
from fewshot_lib.classroom.reader import Reader, Unreadable
from fewshot_lib.classroom.recognise import Known
from fewshot_lib.classroom.report import fingerprint, write_all
from fewshot_lib.classroom.sandbox import (
    Calls,
    Ended,
    Job,
    NoSandbox,
    SandboxLimits,
    require_sandbox,
)
from fewshot_lib.classroom.submissions import NoSubmissions, Submission, find
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
WARM_IMPORTS = (
    "import numpy",
    "import fewshot_lib.exercises.running",
    "import fewshot_lib.exercises.given",
    "import fewshot_lib.episodes",
    "import fewshot_lib.prototypes",
)
#: A notebook is run again without what ended it at most so often.
MOST_LEFT_OUT = 3


class NotBuilt(ValueError):
    """An exercise has no built notebook to grade against."""


@dataclass(frozen=True)
class Plan:
    """An exercise, ready to grade against.

    Arguments:
        exercise: its specification.
        built: the notebook as handed out.
        template: the same, in the form in which submissions are compared with it.
        specification: hash of everything that a mark depends on.
        own: the course's own source of each answer, by name.
        definitions: what those sources rely on: imports and constants of the handed-out cells.
    """

    exercise: Exercise
    built: Mapping[str, Any]
    template: Template
    specification: str
    own: Mapping[str, str]
    definitions: Sequence[str]


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
    handed_out = [
        source_of(cell)
        for cell in built["cells"]
        if cell["cell_type"] == "code" and not grading(cell).get("solution")
    ]
    template = Template.of(exercise, built)
    return Plan(exercise, built, template, specification, own, definitions(handed_out))


def course_exercises(folder: Path) -> list[Known]:
    """Say what each exercise of a course is recognised by.

    Arguments:
        folder: the course's, with ``exercises/``.

    Raises:
        NotBuilt: an exercise was never built here.
    """
    known = []
    for exercise in catalogue.exercises():
        try:
            built = read(folder / "exercises" / f"{exercise.stem}.ipynb")
        except BadSolution as error:
            raise NotBuilt(f"{error}; build it with `fewshot build {exercise.stem}`") from None
        ids = {str(grading(cell)["grade_id"]) for cell in built["cells"] if grading(cell)}
        answers = frozenset(answer.name for answer in exercise.answers)
        known.append(Known(exercise.stem, exercise.name, frozenset(ids), answers))
    return known


def student_seed(run_seed: int, submission: Submission) -> int:
    """Derive the seed of a submission's cases from the seed of the run.

    It depends on the submission, too: what is handed in again is asked other cases.
    """
    parts = (submission.student, submission.exercise, submission.digest())
    return int(receipts.digest(str(run_seed), *parts)[:12], 16)


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
        imports = (*WARM_IMPORTS, *imports_of(one_plan.built))
        self.setting = Setting(one_plan.exercise.stem, imports, isolation, limits)
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
        self._reader = Reader()
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)
        return self

    def __exit__(self, *_: object) -> None:
        """End every sandbox."""
        torch.set_num_threads(self._threads)
        self._reader.close()
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
                begun = self._begin(submission, seed)
                if isinstance(begun, Underway):
                    waiting[self._crew.start(begun.job)] = begun
                else:
                    yield begun
            if not waiting:
                continue
            ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready:
                underway = waiting.pop(future)
                row = self._go_on(underway, future)
                if row is None:
                    waiting[self._crew.start(underway.job)] = underway
                else:
                    yield row

    def _begin(self, submission: Submission, seed: int) -> Underway | dict[str, Any]:
        """Read a submission; give what is to be run, or the row of what cannot be."""
        try:
            return Underway(self.plan, prepare(self.plan, submission, seed, self._reader))
        except Unreadable as error:
            return unread_row(self.plan, submission, seed, "not read", str(error))
        except Exception as error:
            return self._fault(submission, seed, error)

    def _go_on(self, underway: Underway, future: Future[Any]) -> dict[str, Any] | None:
        """Take what came of a run; give the row, or None if there is another run to make."""
        try:
            done = self._crew.finish(future.result(), underway.job)
        except (NoSandbox, OtherCourse):  # a machine that cannot: nothing to blame on a student
            raise
        except Exception as error:
            if not self.scheduler:
                return self._fault(underway.prepared.submission, underway.prepared.run_seed, error)
            said = f"no worker could finish it: {type(error).__name__}: {error}"[:300]
            done = lost(underway.job, said)
        try:
            underway.take(done)
            if underway.next_run():
                return None
            return row_of(self.plan, underway)
        except Exception as error:
            return self._fault(underway.prepared.submission, underway.prepared.run_seed, error)

    def _fault(self, submission: Submission, seed: int, error: Exception) -> dict[str, Any]:
        """Give the row of a submission over which the grader itself stumbled; the rest goes on."""
        log.exception("the grader stumbled over %s of %s", submission.exercise, submission.student)
        said = (
            f"The grader failed on this submission ({type(error).__name__}: {str(error)[:200]}). "
            "This is a fault of the grader; a person must look at it."
        )
        return unread_row(self.plan, submission, seed, "fault", said)


class Underway:
    """A submission between its first run and its row.

    Arguments:
        one_plan: the exercise.
        prepared: what was read and drawn.
    """

    def __init__(self, one_plan: Plan, prepared: Prepared) -> None:
        self.plan, self.prepared = one_plan, prepared
        self.job = Job(prepared.assembled.cells, prepared.calls)
        self.seconds = 0.0
        self.why, self.detail = "done", ""  # how the first run that did not reach the end ended
        self.versions: Mapping[str, Any] = {}
        self.notes: dict[int, Mapping[str, Any]] = {}
        self.verdicts: dict[str, Verdict] = {}
        #: Sentences about cells and answers that the notebook was run without.
        self.left_out: list[str] = []
        #: For each answer that counts with something standing in: the names of that.
        self.stood_in: dict[str, list[str]] = {}
        self._ended: Ended | None = None
        self._outcomes: dict[str, Sequence[Outcome]] = {}
        self._asked = ""  # the answer that the run under way is for, with others standing in
        self._others: list[str] = []
        self._looked_at: set[str] = set()

    @property
    def complete(self) -> bool:
        """Whether every answer was called and replied to."""
        return all(
            any(outcome.status != LOST for outcome in outcomes) or not outcomes
            for outcomes in self._outcomes.values()
        )

    def take(self, done: Done) -> None:
        """Note what came of the run under way."""
        ended = self._ended = done.ended
        self.seconds += ended.seconds
        if self._asked:
            self._take_second(ended)
            return
        self.versions = self.versions or done.versions
        if self.why == "done" and ended.why != "done":
            self.why, self.detail = ended.why, ended.detail
        for note in ended.cells:
            self.notes.setdefault(note["index"], note)
        for asked in self.job.calls:
            self._outcomes[asked.answer] = ended.outcomes[asked.answer]

    def next_run(self) -> bool:
        """Prepare the next run that this submission has a right to; False when there is none."""
        if self._asked == "" and not self.verdicts:
            if self._without_what_ended_it():
                return True
            for answer in self.plan.exercise.answers:
                self.verdicts[answer.name] = _judged(
                    self.plan, answer.name, self._outcomes[answer.name], self.prepared.seed
                )
        return self._with_others()

    def _without_what_ended_it(self) -> bool:
        ended = self._ended
        assert ended is not None
        kind, where = ended.at
        enough = self.seconds > 2 * self.prepared.seconds or len(self.left_out) >= MOST_LEFT_OUT
        if ended.why not in ("time", "memory", "died") or not kind or enough:
            return False
        calls = list(self.job.calls)
        if kind == "cell":
            index = int(where) if where.isdecimal() and len(where) < 7 else -1
            places = self.prepared.assembled.places
            if not 0 <= index < len(places) or index in self.job.skip:
                return False
            self.left_out.append(f"{_upper(places[index])} {_how(ended)}. It was left out.")
            self.job = replace(self.job, skip=(*self.job.skip, index))
            return True
        names = [asked.answer for asked in calls]
        if where not in names:
            return False
        self.left_out.append(f"Calling {where} {_how(ended)}. The other answers were called.")
        self.job = replace(self.job, calls=calls[names.index(where) + 1 :])
        return bool(self.job.calls)

    def _take_second(self, ended: Ended) -> None:
        name = self._asked
        old = self.verdicts[name]
        new = _judged(self.plan, name, ended.outcomes[name], self.prepared.seed)
        if (new.points, bool(new.mistakes)) > (old.points, bool(old.mistakes)):
            self.verdicts[name] = _in_our_words(new, self._others)
            self.stood_in[name] = self._others

    def _with_others(self) -> bool:
        """Prepare a run with the course's own answers in place of wrong ones.

        Answers that were stubs, that had all points, or whose process gave no reply have none.
        """
        wrong: list[str] = []
        for position, answer in enumerate(self.plan.exercise.answers):
            name, verdict = answer.name, self.verdicts[answer.name]
            answered = any(o.status not in (LOST, TOO_SLOW) for o in self._outcomes[name])
            if verdict.status == FAILED and answered and name not in self._looked_at:
                self._looked_at.add(name)
                called = [other for other in wrong if self._is_called(other)]
                if called:
                    self._asked, self._others = name, called
                    before = [one.name for one in self.plan.exercise.answers[:position]]
                    own = [self.plan.own[other] for other in before]
                    self.job = replace(
                        self.job,
                        calls=[one for one in self.prepared.calls if one.answer == name],
                        stand_in={"names": called, "sources": [*self.plan.definitions, *own]},
                    )
                    return True
            if verdict.status != PASSED:
                wrong.append(name)
        return False

    def _is_called(self, name: str) -> bool:
        cells = self.prepared.assembled.cells
        return any(name in cell["source"] for cell in cells if cell["answer"] != name) or any(
            cell["source"].count(name) > 1 for cell in cells
        )


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _how(ended: Ended) -> str:
    if ended.why == "time":
        return "took longer than it may"
    if ended.why == "memory":
        return "used more memory than it may"
    return f"ended the process ({ended.detail})"


def _judged(one_plan: Plan, name: str, outcomes: Sequence[Outcome], seed: int) -> Verdict:
    """Judge; if judging a reply fails, only that answer loses points."""
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


def imports_of(built: Mapping[str, Any]) -> list[str]:
    """List the import statements of a handed-out notebook: warm workers have them at hand."""
    found: dict[str, None] = {}
    for cell in built["cells"]:
        if cell["cell_type"] == "code" and not grading(cell).get("solution"):
            for statement in ast.parse(source_of(cell)).body:
                if isinstance(statement, ast.Import | ast.ImportFrom):
                    found[ast.unparse(statement)] = None
    return list(found)


@dataclass(frozen=True)
class Prepared:
    """A submission that was read, with its seed, its calls and the seconds that it may take."""

    submission: Submission
    run_seed: int
    seed: int
    assembled: Assembled
    calls: Sequence[Calls]
    seconds: float = 60.0


def prepare(
    one_plan: Plan, submission: Submission, run_seed: int, reader: Reader, seconds: float = 60.0
) -> Prepared:
    """Read a submission, say what is what in it, and draw its cases.

    Raises:
        Unreadable: it is no notebook that can be graded; says what it is instead.
    """
    handed = reader.read(submission.read())
    assembled = assemble(one_plan.template, handed.cells)
    seed = student_seed(run_seed, submission)
    calls = [Calls(one.name, sheet(one, seed).flat) for one in one_plan.exercise.answers]
    return Prepared(submission, run_seed, seed, assembled, calls, seconds)


def unread_row(
    one_plan: Plan, submission: Submission, run_seed: int, status: str, problem: str
) -> dict[str, Any]:
    """Make the row of a submission that was not graded."""
    checks = [
        _check_row(answer, CheckVerdict(line.name, 0.0, line.points, FAILED), None, problem)
        for answer in one_plan.exercise.answers
        for line in answer.checks
    ]
    seed = student_seed(run_seed, submission)
    return _row(one_plan, submission, seed, status=status, checks=checks, notes=[problem])


def row_of(one_plan: Plan, underway: Underway) -> dict[str, Any]:
    """Make the row of a submission that was run and judged."""
    assembled = underway.prepared.assembled
    status = "graded" if underway.complete else underway.why
    reason = "" if status == "graded" else underway.detail
    checks = [
        _check_row(answer, line, underway.verdicts[answer.name], reason)
        for answer in one_plan.exercise.answers
        for line in underway.verdicts[answer.name].checks
    ]
    notes = [*assembled.remarks]
    look_at = [*underway.left_out]
    if status != "graded":
        look_at.insert(0, f"The submission was stopped: {underway.detail or underway.why}.")
    for name, others in underway.stood_in.items():
        notes.append(
            f"{name} was judged with the course's own {' and '.join(others)} in place of "
            f"{'yours, which is' if len(others) == 1 else 'yours, which are'} not right yet."
        )
    said = []
    for index, note in sorted(underway.notes.items()):
        place = assembled.places[index] if 0 <= index < len(assembled.places) else "a cell"
        said.append({"cell": place, "error": note["error"], "printed": note["printed"][:500]})
        look_at += not_available(place, note["error"], note["not_run"])
    for check in checks:
        look_at += not_available(f"the answer {check['answer']}", check["message"], ())
        if "a person must look at it" in check["message"]:
            look_at.append(f"{check['answer']}: {check['message']}")
    return _row(
        one_plan,
        underway.prepared.submission,
        underway.prepared.seed,
        status=status,
        checks=checks,
        notes=[*dict.fromkeys(look_at), *notes],
        look_at=list(dict.fromkeys(look_at)),
        said=said[:40],
        code={name: source[:20_000] for name, source in assembled.sources.items()},
        texts={name: text[:20_000] for name, text in assembled.texts.items()},
        seconds=underway.seconds,
        worker=underway.versions,
    )


#: What a notebook may ask for and grading does not give: how its errors look, and what to say.
_NOT_GIVEN = (
    (
        r"gaierror|URLError|HTTPError|ConnectionError|MaxRetryError|NewConnectionError|"
        r"getaddrinfo|Temporary failure in name resolution|ScansUnavailable",
        "a network",
    ),
    (r"ModuleNotFoundError: No module named '(?!fewshot_lib)([\w.]+)'", "the package {}"),
    (r"FileNotFoundError: .*'([^']+)'", "the file {}"),
    (r"EOFError|StdinNotImplementedError", "somebody who types"),
    (r"PermissionError|Operation not permitted", "what the operating system keeps from it here"),
    (r"BackendCompilerFailed|InvalidCxxCompiler", "a compiler"),
)


def not_available(place: str, error: str, programs: Sequence[str]) -> list[str]:
    """Say what a cell asked for and did not get because it is not there while grading.

    >>> not_available("the cell of dice", "URLError: <urlopen error ...>", ())[0][:47]
    'The cell of dice asks for a network, which is n'
    """
    said = []
    for pattern, what in _NOT_GIVEN:
        found = re.search(pattern, error)
        if found:
            thing = what.format(*(part[:60] for part in found.groups()))
            said.append(
                f"{_upper(place)} asks for {thing}, which is not there while grading. A person "
                "must look at what depends on it."
            )
            break
    for program in programs:
        said.append(
            f"{_upper(place)} starts {program[:60]!r}, which needs a network and was not run."
        )
    return said


def _check_row(
    answer: Answer, line: CheckVerdict, verdict: Verdict | None, reason: str
) -> dict[str, Any]:
    mistake = next(
        (m for m in verdict.mistakes if m.name == line.mistake) if verdict else iter(()), None
    )
    message = line.sentence
    if mistake is not None:
        message = f"{mistake.says} ({mistake.pointer})" if mistake.pointer else mistake.says
    elif reason and (not message or message.startswith("no result came back")):
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
    submission: Submission,
    seed: int,
    *,
    status: str,
    checks: list[dict[str, Any]],
    notes: Sequence[str],
    look_at: Sequence[str] | None = None,
    said: Sequence[Mapping[str, str]] = (),
    code: Mapping[str, str] | None = None,
    texts: Mapping[str, str] | None = None,
    seconds: float = 0.0,
    worker: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    notes = [*submission.notes, *notes]
    return {
        "student": submission.student,
        "exercise": submission.exercise,
        "status": status,
        "points": sum(check["points"] for check in checks),
        "max_points": sum(check["max_points"] for check in checks),
        "checks": checks,
        "notes": notes,
        "look_at": list(notes if look_at is None else look_at),
        "said": [dict(one) for one in said],
        "code": dict(code or {}),
        "texts": dict(texts or {}),
        "seconds": round(seconds, 3),
        "file": submission.name,
        "handed_in": submission.handed_in,
        "lms": dict(submission.lms),
        "receipt": {
            "submission": submission.digest(),
            "specification": one_plan.specification,
            "seed": seed,
            "versions": receipts.versions(worker or {}),
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
