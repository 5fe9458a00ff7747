"""One submission on its way from what was handed in to its verdicts; it may take several runs.

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
  ``tests/grader/test_standing_in.py``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fewshot_lib.checker import language as speech
from fewshot_lib.checker.judge import FAILED, PASSED, CheckVerdict, Verdict, expected_results, judge
from fewshot_lib.checker.run import LOST, TOO_SLOW, Outcome
from fewshot_lib.grader import results
from fewshot_lib.grader.assemble import Assembled, assemble
from fewshot_lib.grader.conversation import Calls, Job, RunReport
from fewshot_lib.grader.plan import Plan
from fewshot_lib.grader.reader import Reader
from fewshot_lib.grader.runners import WorkerResult
from fewshot_lib.grader.submissions import Submission

log = logging.getLogger(__name__)

#: A notebook is run again without what ended it at most so often.
MOST_LEFT_OUT = 3
#: All runs of a submission together may take so many times what one may.
MOST_TIMES = 3
#: The stage of a check that the grader itself could not make.
FAULT = "fault"


def student_seed(run_seed: int, submission: Submission) -> int:
    """Derive the seed of a submission's cases from the seed of the run.

    It depends on the submission, too: what is handed in again is asked other cases.
    """
    parts = (submission.student, submission.exercise, submission.digest())
    return int(results.digest(str(run_seed), *parts)[:12], 16)


@dataclass(frozen=True)
class Prepared:
    """A submission that was read, with its seed, its calls and the seconds that it may take."""

    submission: Submission
    run_seed: int
    seed: int
    assembled: Assembled
    calls: Sequence[Calls]
    seconds: float = 60.0
    language: str = speech.SOURCE


def prepare(
    one_plan: Plan, submission: Submission, run_seed: int, reader: Reader, seconds: float = 60.0
) -> Prepared:
    """Read a submission, say what is what in it, and draw its cases.

    Raises:
        Unreadable: it is not a notebook that can be graded; says what it is instead.
    """
    handed = reader.read(submission.read())
    spoken = speech.claimed(handed.language)
    with speech.speaking(spoken):
        found = assemble(one_plan.template_in(spoken), handed.cells)
    assembled = replace(found, remarks=(*handed.remarks, *found.remarks))
    seed = student_seed(run_seed, submission)
    answers = one_plan.exercise_in(spoken).answers
    calls = [Calls(one.name, expected_results(one, seed).flat) for one in answers]
    return Prepared(submission, run_seed, seed, assembled, calls, seconds, spoken)


class Attempt:
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
        self._ended: RunReport | None = None
        self._outcomes: dict[str, Sequence[Outcome]] = {}
        self._uncalled = {asked.answer for asked in prepared.calls}
        self._asked = ""  # the answer that the run under way is for, with others standing in
        self._others: list[str] = []
        self._looked_at: set[str] = set()

    @property
    def complete(self) -> bool:
        """Whether every answer was called, even if that call ended the process."""
        return not self._uncalled

    def record(self, done: WorkerResult) -> None:
        """Note what came of the run under way."""
        ended = self._ended = done.ended
        self.seconds += ended.seconds
        if self._asked:
            self._record_second(ended)
            return
        self.versions = self.versions or done.versions
        if self.why == "done" and ended.why != "done":
            self.why, self.detail = ended.why, ended.detail
        for note in ended.cells:
            self.notes.setdefault(note["index"], note)
        names = [asked.answer for asked in self.job.calls]
        for name in names:
            self._outcomes[name] = ended.outcomes[name]
        if ended.why == "done":
            self._uncalled -= set(names)
        elif ended.at[0] == "answer" and ended.at[1] in names:
            self._uncalled -= set(names[: names.index(ended.at[1]) + 1])

    def next_run(self) -> bool:
        """Prepare the next run that this submission has a right to; False when there is none."""
        if self._asked == "" and not self.verdicts:
            if self._without_what_ended_it():
                return True
            for answer in self.plan.exercise.answers:
                self.verdicts[answer.name] = _judged(
                    self.plan, answer.name, self._outcomes[answer.name], self.prepared
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
            self.left_out.append(
                f"{upper_first(places[index])} {_how_ended(ended)}. It was left out."
            )
            self.job = replace(self.job, skip=(*self.job.skip, index))
            return True
        names = [asked.answer for asked in calls]
        if where not in names:
            return False
        self.left_out.append(f"Calling {where} {_how_ended(ended)}. The other answers were called.")
        self.job = replace(self.job, calls=calls[names.index(where) + 1 :])
        return bool(self.job.calls)

    def _record_second(self, ended: RunReport) -> None:
        name = self._asked
        old = self.verdicts[name]
        new = _judged(self.plan, name, ended.outcomes[name], self.prepared)
        if (new.points, bool(new.mistakes)) > (old.points, bool(old.mistakes)):
            self.verdicts[name] = _without_student_words(new, self._others)
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
                if called and self.seconds < MOST_TIMES * self.prepared.seconds:
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
        """Say whether something of the student's, or of what was handed out, can call an answer."""
        own = [cell for cell in self.prepared.assembled.cells if "binds" not in cell]
        return (
            any(name in cell["source"] for cell in own if cell["answer"] != name)
            or any(cell["source"].count(name) > 1 for cell in own)
            or any(name in source for source in self.plan.definitions)
        )


def upper_first(text: str) -> str:
    """Write a text's first letter large."""
    return text[:1].upper() + text[1:]


def _how_ended(ended: RunReport) -> str:
    if ended.why == "time":
        return "took longer than it may"
    if ended.why == "memory":
        return "used more memory than it may"
    status = re.search(r"exit status -?\d+", ended.detail)
    return f"ended the process ({status[0]})" if status else f"was stopped: {ended.detail}"


def _judged(one_plan: Plan, name: str, outcomes: Sequence[Outcome], prepared: Prepared) -> Verdict:
    """Judge, in the language of the submission; over a fault only that answer loses points."""
    exercise = one_plan.exercise_in(prepared.language)
    answer = exercise[name]
    try:
        with speech.speaking(prepared.language):
            return judge(exercise, answer, outcomes, prepared.seed)
    except Exception as error:
        log.exception("the judge failed on a reply to %s", name)
        said = (
            f"the grader could not judge this reply ({type(error).__name__}); this is a fault of "
            "the grader, and a person must look at it"
        )
        checks = tuple(
            CheckVerdict(line.name, 0.0, line.points, FAILED, FAULT, said) for line in answer.checks
        )
        return Verdict(one_plan.exercise.name, name, checks)


def _without_student_words(verdict: Verdict, others: Sequence[str]) -> Verdict:
    """Leave out whatever of a second run's verdict a student can word: it could be our source."""
    said = f"this is not right with the course's own {' and '.join(others)} in its place either"
    lines = [
        line if line.status == PASSED else replace(line, sentence=said, case="", drawn=None)
        for line in verdict.checks
    ]
    return replace(verdict, checks=tuple(lines), notes=(), relation="")
