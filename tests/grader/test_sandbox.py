"""The sandbox's own ends: whose fault it was, and that the next submission does not notice."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import torch
from IPython.core.inputtransformer2 import TransformerManager

from fewshot_lib.checker import catalogue
from fewshot_lib.checker.notebook import read, source_of
from fewshot_lib.checker.spec import Case
from fewshot_lib.grader import sandbox
from fewshot_lib.grader.conversation import Calls, Job
from fewshot_lib.grader.sandbox import Sandbox, SandboxLimits
from fewshot_lib.grader.student import _Manager
from fewshot_lib.grader.student_package import build_student_package
from fewshot_lib.tools.machine import course_folder

pytestmark = pytest.mark.hostile

CALLS = [Calls("double", [Case("two", (2,)), Case("three", (3,))])]


def job(source: str) -> Job:
    return Job([{"index": 0, "source": source, "answer": "double"}], CALLS)


RIGHT = job("def double(x):\n    return 2 * x")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    return build_student_package(catalogue.exercise("03_prototypes"), folder)


@pytest.fixture(scope="module")
def warm(package):
    limits = SandboxLimits(wall_seconds=5, answer_seconds=4, memory_mb=256)
    with Sandbox(package, limits=limits) as one:
        yield one


def answers(ended: sandbox.RunReport) -> list[object]:
    return [outcome.value for outcome in ended.outcomes["double"]]


def test_it_serves_one_submission_after_the_other(warm):
    for _ in range(3):
        ended = warm.run(RIGHT)
        assert (ended.why, answers(ended)) == ("done", [4, 6])


def test_what_the_warm_worker_rehearsed_is_not_there(warm):
    assert warm.run(job("rehearsed")).cells[0]["error"].startswith("NameError")


def test_cells_mean_what_they_mean_to_ipython():
    cells = [
        *("%time x", "x = !ls", "x = %pwd", "f?", "?f", "!ls", "%%time\nx = 1", "await f()"),
        *(">>> x = 1\n>>> y = 2", "  x = 1\n  y = 2", "\n\nx = 1", "x = 5 \\\n  % 3"),
    ]
    for file in (course_folder() / "solutions").glob("*.ipynb"):
        cells += [source_of(c) for c in read(file)["cells"] if c["cell_type"] == "code"]
    ours, ipythons = _Manager(), TransformerManager()
    assert [ours.transform_cell(c) for c in cells] == [ipythons.transform_cell(c) for c in cells]


@pytest.mark.parametrize("status", [1, 70, 71, 254, 255])
def test_no_exit_status_of_a_student_passes_for_a_fault_of_the_machine(warm, status):
    ended = warm.run(job(f"import os\nos._exit({status})"))
    assert (ended.why, ended.at) == ("died", ("cell", "0"))
    assert answers(warm.run(RIGHT)) == [4, 6]


@pytest.mark.parametrize(
    "attack",
    [
        "[os.kill(1, s) for s in range(1, 65) if s not in (32, 33)]",
        "os.kill(-1, signal.SIGKILL)",
        "os.kill(os.getppid(), signal.SIGINT)",
        "signal.raise_signal(signal.SIGINT)",
        "[os.kill(os.getpid(), s) for s in (signal.SIGTERM, signal.SIGKILL)]",
    ],
)
def test_signals_cost_only_the_submission_that_sends_them(warm, attack):
    before = warm._process.pid
    source = f"import os, signal\n{attack}\ndef double(x): return 2 * x"
    ended = warm.run(job(source))
    assert ended.why in ("done", "died")
    again = warm.run(RIGHT)
    assert (again.why, answers(again)) == ("done", [4, 6])
    assert warm._process.pid == before


def test_a_place_that_cannot_be_made_is_not_the_students_fault(warm, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(warm, "limits", SandboxLimits(wall_seconds=5, disk_mb=-1))
        ended = warm.run(RIGHT)
    assert ended.why == "sandbox"
    assert "could not be made" in ended.detail
    assert answers(warm.run(RIGHT)) == [4, 6]


def test_a_grader_that_waits_no_longer_ends_the_submission(warm, monkeypatch):
    before = warm._process.pid
    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "_GRACE_SECONDS", -4.5)  # the grader gives up before the worker
        ended = warm.run(job("import time\ntime.sleep(60)"))
    assert ended.why == "time"
    assert ended.seconds < 3
    again = warm.run(RIGHT)
    assert (again.why, answers(again)) == ("done", [4, 6])
    assert warm._process.pid == before, "the warm parent lives on"


def test_a_worker_that_is_gone_is_started_anew(package):
    with Sandbox(package) as one:
        one._process.kill()
        one._process.wait()
        assert answers(one.run(RIGHT)) == [4, 6]


@pytest.mark.parametrize("refuses", [True, False])
def test_a_worker_that_ends_just_as_it_is_asked_is_started_anew(package, monkeypatch, refuses):
    with Sandbox(package) as one:
        announce = one._send_ticket

        def too_late(*descriptors: int) -> None:
            monkeypatch.setattr(one, "_send_ticket", announce)
            one._process.kill()
            if refuses:
                raise BrokenPipeError
            announce(*descriptors)

        monkeypatch.setattr(one, "_send_ticket", too_late)
        ended = one.run(RIGHT)
        assert (ended.why, answers(ended)) == ("done", [4, 6])


@pytest.mark.parametrize(
    "attack",
    [
        "libc.shmget(0, 2**20, 0o1600) >= 0",
        "libc.memfd_create(b'x', 0) >= 0",
        "libc.inotify_init() >= 0",
        "libc.socket(1, 1, 0) >= 0",
        "libc.mmap(None, 2**20, 3, 0x21, -1, 0) != 2**64 - 1",
    ],
)
def test_what_would_be_uncounted_or_seen_by_others_is_denied(warm, attack):
    source = (
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.mmap.restype = ctypes.c_ulong\n"
        f"allowed = {attack}\ndef double(x):\n    return allowed"
    )
    assert answers(warm.run(job(source))) == [False, False]


def test_a_cell_that_says_nothing_true_about_its_place_costs_only_itself(warm):
    forged = (
        "import os, struct\nfrom fewshot_lib.checker import values\n"
        "data = values.pack({'at': ['cell', '7' * 500]})\n"
        "os.write(3, struct.pack('<Q', len(data)) + data)\nos._exit(0)"
    )
    ended = warm.run(job(forged))
    assert (ended.why, ended.at[0], len(ended.at[1])) == ("died", "cell", 200)
    assert answers(warm.run(RIGHT)) == [4, 6]


@pytest.mark.parametrize(
    "attack",
    [
        "for _ in range(200):\n    try:\n        if os.fork() == 0:\n            time.sleep(60)\n"
        "    except OSError:\n        pass",
        "for _ in range(200):\n    try:\n        threading.Timer(60, print).start()"
        "\n    except RuntimeError:\n        pass",
    ],
    ids=["processes", "threads"],
)
def test_no_more_processes_and_threads_run_than_allowed(package, attack):
    limits = SandboxLimits(wall_seconds=10, answer_seconds=4, processes=16)
    source = f"import os, threading, time\n{attack}\ntime.sleep(2)\ndef double(x): return 2 * x"
    highest = 0
    with Sandbox(package, limits=limits) as one:
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(one.run, job(source))
            worker = psutil.Process(one._process.pid)
            while not ended.done():
                below = worker.children(recursive=True)
                highest = max(highest, sum(map(threads, below)))
                time.sleep(0.01)
        assert highest < 16 + 3 + 40  # bwrap, the warm parent; what starts between two looks
        assert answers(one.run(RIGHT)) == [4, 6]


def threads(process: psutil.Process) -> int:
    try:
        return process.num_threads()
    except psutil.Error:
        return 0


def test_pytorch_computes_with_the_same_kernels_as_outside(warm):
    source = "import torch\ndef double(x):\n    return torch.backends.cpu.get_cpu_capability()"
    assert set(answers(warm.run(job(source)))) == {torch.backends.cpu.get_cpu_capability()}
