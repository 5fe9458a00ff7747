"""Sandboxes of one exercise, side by side: submissions go in, rows come out."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

import torch

from fewshot_lib.grader.attempt import Attempt, prepare
from fewshot_lib.grader.plan import Plan, imports_of
from fewshot_lib.grader.reader import Reader, Unreadable
from fewshot_lib.grader.rows import row_of, unread_row
from fewshot_lib.grader.runners import DaskRunner, LocalRunner, OtherCourse, Setting, lost
from fewshot_lib.grader.sandbox import NoSandbox, SandboxLimits
from fewshot_lib.grader.submissions import Submission

log = logging.getLogger(__name__)

#: What the warm worker imports before its first fork.
WARM_IMPORTS = ("import numpy", "import fewshot_lib.checker.run")


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
        self._runner: LocalRunner | DaskRunner
        self._threads: int

    def __enter__(self) -> Pool:
        """Warm the first sandbox, so that a machine that cannot says so at once.

        Meanwhile torch computes with one thread in this process: the cases are small, and a second
        thread costs three times the processor time, which the sandboxes need.
        """
        self._runner = (
            DaskRunner(self.setting, self.scheduler)
            if self.scheduler
            else LocalRunner(self.setting, self.workers)
        )
        self._reader = Reader()
        gc.collect()
        gc.freeze()  # what was imported stays anyway: no collection looks through it again
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)
        return self

    def __exit__(self, *_: object) -> None:
        """End every sandbox."""
        torch.set_num_threads(self._threads)
        gc.unfreeze()
        self._reader.close()
        self._runner.close()

    def grade(self, submissions: Iterable[Submission], seed: int) -> Iterator[dict[str, Any]]:
        """Grade submissions; rows come as they are ready."""
        waiting: dict[Future[Any], Attempt] = {}
        coming = iter(submissions)
        more = True
        while more or waiting:
            while more and len(waiting) < self._runner.size:
                submission = next(coming, None)
                if submission is None:
                    more = False
                    break
                begun = self._begin(submission, seed)
                if isinstance(begun, Attempt):
                    waiting[self._runner.start(begun.job)] = begun
                else:
                    yield begun
            if not waiting:
                continue
            ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready:
                attempt = waiting.pop(future)
                row = self._go_on(attempt, future)
                if row is None:
                    waiting[self._runner.start(attempt.job)] = attempt
                else:
                    yield row

    def _begin(self, submission: Submission, seed: int) -> Attempt | dict[str, Any]:
        """Read a submission; give what is to be run, or the row of what cannot be."""
        try:
            seconds = self.setting.limits.wall_seconds
            prepared = prepare(self.plan, submission, seed, self._reader, seconds)
            return Attempt(self.plan, prepared)
        except Unreadable as error:
            return unread_row(self.plan, submission, seed, "not read", str(error))
        except Exception as error:
            return self._fault(submission, seed, error)

    def _go_on(self, attempt: Attempt, future: Future[Any]) -> dict[str, Any] | None:
        """Take what came of a run; give the row, or None if there is another run to make."""
        try:
            done = self._runner.finish(future.result(), attempt.job)
        except (NoSandbox, OtherCourse):  # a machine that cannot: nothing to blame on a student
            raise
        except Exception as error:
            if not self.scheduler:
                return self._fault(attempt.prepared.submission, attempt.prepared.run_seed, error)
            said = f"no worker could finish it: {type(error).__name__}: {error}"[:300]
            done = lost(attempt.job, said)
        try:
            attempt.record(done)
            if attempt.next_run():
                return None
            return row_of(self.plan, attempt)
        except Exception as error:
            return self._fault(attempt.prepared.submission, attempt.prepared.run_seed, error)

    def _fault(self, submission: Submission, seed: int, error: Exception) -> dict[str, Any]:
        """Give the row of a submission on which the grader itself failed; the rest goes on."""
        log.exception("the grader failed on %s of %s", submission.exercise, submission.student)
        said = (
            f"The grader failed on this submission ({type(error).__name__}: {str(error)[:200]}). "
            "This is a fault of the grader; a person must look at it."
        )
        return unread_row(self.plan, submission, seed, "fault", said)
