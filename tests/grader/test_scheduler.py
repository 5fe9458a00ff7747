"""Grading by a real Dask scheduler and two workers, one of which is killed in the middle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from handed_in import COURSE, LIMITS, NAME, UNSQUARED, hand_in, rows_of, with_answers
from students import CALLS_IT, UNWRITTEN

from fewshot_lib.checker import values
from fewshot_lib.checker.run import LOST, VALUE, Outcome
from fewshot_lib.checker.spec import Case
from fewshot_lib.grader import results
from fewshot_lib.grader.command import CANNOT
from fewshot_lib.grader.command import grade as command
from fewshot_lib.grader.conversation import Calls, Job
from fewshot_lib.grader.grade import grade, same_mark
from fewshot_lib.grader.runners import (
    NoScheduler,
    OtherCourse,
    Setting,
    pack_job,
    read_reply,
    run_on_worker,
)

KINDS = {
    "right": with_answers(),
    "stub": with_answers(squared_euclidean=UNWRITTEN, log_posterior=CALLS_IT),
    "wrong": with_answers(squared_euclidean=UNSQUARED, log_posterior=CALLS_IT),
    "leaves": with_answers(squared_euclidean="import os\nos._exit(3)"),
    "slow": with_answers(squared_euclidean=f"import time\ntime.sleep(0.4)\n{UNSQUARED}"),
}


def daemon(log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]],
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )


def wait_for(log: Path, pattern: str, seconds: float = 60) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = re.search(pattern, log.read_text(encoding="utf-8", errors="replace"))
        if found:
            return found[0]
        time.sleep(0.1)
    raise TimeoutError(f"{pattern!r} did not come: {log.read_text()[-1000:]}")


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers on the loopback, as a person starts them; all ended after."""
    logs = [tmp_path / f"{name}.log" for name in ("scheduler", "one", "two")]
    started = [
        daemon(logs[0], "dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    ]
    try:
        address = wait_for(logs[0], r"tcp://127\.0\.0\.1:\d+")
        for log in logs[1:]:
            options = ["--nthreads", "1", "--no-dashboard", "--no-nanny", "--host", "127.0.0.1"]
            folder = ["--local-directory", str(tmp_path / f"space-{log.stem}")]
            started.append(daemon(log, "dask_worker", address, *options, *folder))
        for log in logs[1:]:
            wait_for(log, "Registered to")
        yield address, started[1:]
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def submissions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("submissions")
    students = {f"{kind} {number}": one for kind, one in KINDS.items() for number in range(4)}
    hand_in(folder, students)
    (folder / "broken").mkdir()
    (folder / "broken" / f"{NAME}.ipynb").write_text("{", encoding="utf-8")
    return folder


@pytest.mark.hostile
@pytest.mark.timeout(300)
def test_a_worker_killed_in_the_middle_loses_nothing_and_doubles_nothing(
    cluster, submissions, tmp_path
):
    address, workers = cluster
    ran: list[str] = []

    def kill_one(done: int, total: int, row) -> None:
        ran.append(row["student"])
        if len(ran) == 8:
            os.kill(workers[0].pid, signal.SIGKILL)

    there = grade(
        submissions,
        tmp_path / "there",
        COURSE,
        seed=5,
        limits=LIMITS,
        scheduler=address,
        progress=kill_one,
    )
    assert workers[0].wait(10) == -signal.SIGKILL
    assert workers[1].poll() is None
    here = grade(submissions, tmp_path / "here", COURSE, seed=5, workers=2, limits=LIMITS)
    assert there.graded == here.graded == len(ran) == len(set(ran)) == 21
    every = list(results.read_rows(tmp_path / "there" / "results.jsonl"))
    assert len(every) == 21  # no second row of anybody
    pairs = zip(rows_of(tmp_path / "there"), rows_of(tmp_path / "here"), strict=True)
    for one, other in pairs:
        assert one["student"] == other["student"]
        assert same_mark(one, other) == [], (one, other)
        assert one["receipt"]["seed"] == other["receipt"]["seed"]
        assert one["receipt"]["versions"] == other["receipt"]["versions"]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "no address"])
def test_a_scheduler_that_is_not_there_is_one_sentence_and_exit_3(address, submissions, tmp_path):
    status, said = command(
        submissions,
        tmp_path / "results",
        exercise="",
        seed=1,
        workers=1,
        time_limit=20,
        memory_limit=512,
        isolation="bubblewrap",
        scheduler=address,
    )
    assert status == CANNOT
    assert "no Dask scheduler answers" in said
    assert "dask scheduler" in said
    assert NoScheduler.__name__ not in said


SETTING = Setting(NAME, (), "bubblewrap", LIMITS)
JOB = Job([], [Calls("squared_euclidean", [Case("one", (1.0,)), Case("two", (2.0,))])])


def test_a_worker_of_another_version_of_the_course_is_refused():
    with pytest.raises(OtherCourse, match="same commit"):
        run_on_worker(pack_job(SETTING, "another", JOB))


def reply(outcomes: object, **changes: object) -> bytes:
    whole = {
        "versions": {"torch": "2"},
        "why": "done",
        "detail": "",
        "cells": [],
        "at": ["", ""],
        "seconds": 1.0,
        "memory_mb": 1.0,
        "outcomes": outcomes,
    }
    return values.pack({**whole, **changes})


GOOD = [[Outcome(VALUE, 1.0).as_dict(), Outcome(VALUE, 2.0).as_dict()]]


def test_a_reply_is_read():
    done = read_reply(reply(GOOD), JOB)
    assert done.ended.why == "done"
    assert [outcome.value for outcome in done.ended.outcomes["squared_euclidean"]] == [1.0, 2.0]


@pytest.mark.parametrize(
    "sent",
    [
        None,
        {"outcomes": GOOD},
        b"",
        b"\x80\x04K\x01.",
        reply([GOOD[0][:1]]),
        reply([]),
        reply(7),
        reply(GOOD, cells=7),
        reply(GOOD, seconds="long"),
        reply(GOOD, seconds=float("nan")),
        reply(GOOD, at=[]),
        reply(GOOD, versions=None),
        reply(GOOD)[:-1],
    ],
    ids=repr,
)
def test_a_reply_that_is_none_costs_no_student_points_and_says_so(sent):
    """What a worker sends is bytes of plain values; whatever else comes is not believed."""
    done = read_reply(sent, JOB)
    assert done.ended.why == "sandbox"  # listed for the teacher as not graded
    assert "could not be read" in done.ended.detail
    assert {outcome.status for outcome in done.ended.outcomes["squared_euclidean"]} == {LOST}
