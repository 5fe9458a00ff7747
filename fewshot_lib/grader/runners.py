"""Where submissions of one exercise are run: the student package and warm sandboxes.

On this machine the grader holds a :class:`SandboxPool` itself. On many machines each Dask worker
holds one (:func:`run_on_worker`): what crosses between grader and worker, both ways, is bytes of
plain values in the form of :mod:`fewshot_lib.checker.values`, read with limits and trusted as
little as what comes out of a sandbox. No case's expected value and no check ever goes to a worker.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import math
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from fewshot_lib.checker import catalogue, values
from fewshot_lib.checker.course import course
from fewshot_lib.checker.run import LOST, Outcome
from fewshot_lib.grader.conversation import MAX_BYTES, REPLY_LIMITS, Job, RunReport, read_note
from fewshot_lib.grader.sandbox import Sandbox, SandboxLimits
from fewshot_lib.grader.student_package import build_student_package, source_digest

#: A job is read with these limits: it comes from the grader.
JOB_LIMITS = values.Limits(max_bytes=2**30, max_items=10**6, max_depth=16, max_header=2**27)
#: How often Dask gives a submission to another worker after an error of ours on one.
RETRIES = 3


class NoScheduler(RuntimeError):
    """The Dask scheduler cannot be used; says why, and what to do."""


class OtherCourse(RuntimeError):
    """A worker has another version of the course than the grader."""


@dataclass(frozen=True)
class Setting:
    """What a sandbox pool is made for.

    Arguments:
        exercise: the exercise's file name without ending.
        imports: the import statements that the warm worker executes.
        isolation: see ``sandbox.ISOLATIONS``.
        limits: for each submission.
    """

    exercise: str
    imports: tuple[str, ...]
    isolation: str
    limits: SandboxLimits


@dataclass(frozen=True)
class WorkerResult:
    """What came of a run, and what the worker that ran it says of itself."""

    ended: RunReport
    versions: Mapping[str, Any] = field(default_factory=dict)


class SandboxPool:
    """The student package of one exercise and sandboxes that run it; used by several threads.

    Arguments:
        setting: what for.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._folder = tempfile.TemporaryDirectory(prefix="fewshot-package-")
        self.package = Path(self._folder.name)
        self._package_is_made = False
        self._idle: SimpleQueue[Sandbox] = SimpleQueue()
        self._made: list[Sandbox] = []
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Make a sandbox now, so that a machine that cannot says so at once."""
        self._idle.put(self._sandbox())

    def close(self) -> None:
        """End every sandbox and remove the student package."""
        with self._lock:
            for sandbox in self._made:
                sandbox.close()
            self._made.clear()
        self._folder.cleanup()

    def _sandbox(self) -> Sandbox:
        setting = self.setting
        sandbox = Sandbox(
            self.package, setting.imports, setting.isolation, setting.limits, self._make_package
        )
        with self._lock:
            self._made.append(sandbox)
        return sandbox

    def _make_package(self) -> None:
        with self._lock:
            if not self._package_is_made:
                build_student_package(catalogue.exercise(self.setting.exercise), self.package)
                self._package_is_made = True

    def run(self, job: Job) -> WorkerResult:
        """Run a job in a sandbox of its own; see ``Sandbox.run``."""
        try:
            sandbox = self._idle.get_nowait()
        except Empty:
            sandbox = self._sandbox()
        try:
            ended = sandbox.run(job)
            if ended.why == "sandbox":  # ours, not the student's: once more, in a new one
                sandbox.close()
                ended = sandbox.run(job)
            return WorkerResult(ended, sandbox.versions)
        finally:
            self._idle.put(sandbox)


class LocalRunner:
    """Threads of this process, each with a sandbox.

    Attributes:
        size: how many runs to have under way.
    """

    def __init__(self, setting: Setting, workers: int) -> None:
        self._sandbox_pool = SandboxPool(setting)
        try:
            self._sandbox_pool.warm_up()
        except BaseException:
            self._sandbox_pool.close()
            raise
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")
        self.size = workers + 1

    def start(self, job: Job) -> Any:
        """Begin a run; give a future whose result is the argument of :meth:`finish`."""
        return self._threads.submit(self._sandbox_pool.run, job)

    def finish(self, result: Any, job: Job) -> WorkerResult:
        """Give the result as it is: it was read and checked on the way out of the sandbox."""
        done: WorkerResult = result
        return done

    def close(self) -> None:
        """End threads and sandboxes."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._sandbox_pool.close()


class DaskRunner:
    """The workers of a Dask scheduler, a warm sandbox each.

    Dask gives a submission whose worker was lost to another one; what came back counts once.

    Arguments:
        setting: what for.
        address: of the scheduler, "tcp://host:8786".

    Raises:
        NoScheduler: Dask is not installed, nobody answers there, or there are no workers.
    """

    def __init__(self, setting: Setting, address: str) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise NoScheduler(
                'Dask is not installed: pip install -c constraints.txt -e ".[classroom]"'
            ) from None
        self.setting = setting
        self._digest = source_digest(catalogue.exercise(setting.exercise).name)
        try:
            self._client = Client(address, timeout="10s", set_as_default=False, name="fewshot")
        except (OSError, ValueError, TimeoutError) as error:
            raise NoScheduler(
                f"no Dask scheduler answers at {address} ({type(error).__name__}): start one with "
                "`dask scheduler` and workers with `dask worker ADDRESS --nthreads 1`"
            ) from None
        try:
            self._client.wait_for_workers(1, timeout=10)
        except TimeoutError:
            self._client.close()
            raise NoScheduler(
                f"the scheduler at {address} has no workers: start some on machines that have the "
                "course, `dask worker ADDRESS --nthreads 1`"
            ) from None
        self._executor: Executor = self._client.get_executor(pure=False, retries=RETRIES)

    @property
    def size(self) -> int:
        """Twice the workers' threads: each has the next submission at hand."""
        return 2 * max(1, sum(self._client.nthreads().values())) + 1

    def start(self, job: Job) -> Any:
        """Send a run to whichever worker is free."""
        return self._executor.submit(run_on_worker, pack_job(self.setting, self._digest, job))

    def finish(self, result: Any, job: Job) -> WorkerResult:
        """Read what a worker sent; trust nothing in it."""
        return read_reply(result, job)

    def close(self) -> None:
        """Cancel what is left and leave the scheduler to others."""
        self._executor.shutdown(wait=False)
        self._client.close()


def pack_job(setting: Setting, digest: str, job: Job) -> bytes:
    """Write a run as bytes of plain values."""
    return values.pack(
        {
            "exercise": setting.exercise,
            "imports": list(setting.imports),
            "isolation": setting.isolation,
            "limits": vars(setting.limits),
            "module": course().module,
            "course": digest,
            "job": job.plain(),
        }
    )


_POOLS: dict[Setting, SandboxPool] = {}
_BUSY: Counter[Setting] = Counter()
_LOCK = threading.Lock()


@contextlib.contextmanager
def _shared_pool(setting: Setting) -> Iterator[SandboxPool]:
    """Give this process's sandbox pool of a setting; pools that are not in use are closed."""
    with _LOCK:
        if setting not in _POOLS:
            for other in [one for one in _POOLS if not _BUSY[one]]:
                _POOLS.pop(other).close()
            _POOLS[setting] = SandboxPool(setting)
        _BUSY[setting] += 1
        sandbox_pool = _POOLS[setting]
    try:
        yield sandbox_pool
    finally:
        with _LOCK:
            _BUSY[setting] -= 1


def run_on_worker(job: bytes) -> bytes:
    """Run a job in this process's warm sandbox; what a Dask worker is asked to do.

    Raises:
        OtherCourse: this machine has another version of the course than the grader.
        NoSandbox: this machine cannot.
    """
    wanted = values.unpack(job, JOB_LIMITS)
    importlib.import_module(wanted["module"])  # it says which course this is
    own = source_digest(catalogue.exercise(wanted["exercise"]).name)
    if own != wanted["course"]:
        raise OtherCourse(
            "a worker has another version of the course than the grader: bring both to the same "
            f"commit (the worker's {own[:12]}, the grader's {wanted['course'][:12]})"
        )
    limits, imports = SandboxLimits(**wanted["limits"]), tuple(wanted["imports"])
    setting = Setting(wanted["exercise"], imports, wanted["isolation"], limits)
    sent = Job.from_plain(wanted["job"])
    with _shared_pool(setting) as sandbox_pool:
        done = sandbox_pool.run(sent)
    return values.pack(
        {
            **vars(done.ended),
            "versions": {key: str(part) for key, part in done.versions.items()},
            "cells": [dict(note) for note in done.ended.cells],
            "at": list(done.ended.at),
            "outcomes": [
                [outcome.as_dict() for outcome in done.ended.outcomes[asked.answer]]
                for asked in sent.calls
            ],
        }
    )


@atexit.register
def _close_pools() -> None:
    for sandbox_pool in _POOLS.values():
        sandbox_pool.close()


def read_reply(reply: Any, job: Job) -> WorkerResult:
    """Read a worker's reply; anything else becomes a run that the sandbox failed.

    >>> read_reply(b"nonsense", Job([], [])).ended.why
    'sandbox'
    """
    calls = job.calls
    number = 1 + sum(len(asked.cases) for asked in calls)
    whole = values.Limits(
        max_bytes=2 * MAX_BYTES,
        max_items=number * REPLY_LIMITS.max_items,
        max_depth=REPLY_LIMITS.max_depth + 4,
        max_header=number * REPLY_LIMITS.max_header,
    )
    try:
        if not isinstance(reply, bytes):
            raise values.NotPlain("it is not bytes")
        said = values.unpack(reply, whole)
        groups = said["outcomes"]
        if [len(group) for group in groups] != [len(asked.cases) for asked in calls]:
            raise values.NotPlain("it has another length than the calls")
        ended = RunReport(
            {
                asked.answer: [Outcome.from_dict(part) for part in group]
                for asked, group in zip(calls, groups, strict=True)
            },
            str(said["why"])[:40],
            str(said["detail"])[:500],
            [read_note(note) for note in said["cells"][:1000]],
            (str(said["at"][0])[:20], str(said["at"][1])[:200]),
            _finite(said["seconds"]),
            _finite(said["memory_mb"]),
        )
        versions = {str(key)[:40]: str(part)[:80] for key, part in said["versions"].items()}
        return WorkerResult(ended, versions)
    except (values.NotPlain, LookupError, TypeError, ValueError, AttributeError) as error:
        return lost(job, f"a worker's reply could not be read: {error}")


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("a number is not finite")
    return number


def lost(job: Job, reason: str) -> WorkerResult:
    """Give what came of a run that no worker could finish."""
    outcomes = {
        asked.answer: [Outcome(LOST, message=reason)] * len(asked.cases) for asked in job.calls
    }
    return WorkerResult(RunReport(outcomes, "sandbox", reason))
