"""What grading costs, beside nbgrader and otter-grader; and a large course, killed three times."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import time
from collections import deque
from pathlib import Path

import psutil
import pytest
from handed_in import SOLUTION, STUB, hand_in, with_code
from test_hostile import FILES

import fewshot_lib.course  # noqa: F401  (it says which course is graded)
from fewshot_lib.checker.judge import expected_results
from fewshot_lib.checker.notebook import namespace, read
from fewshot_lib.checker.run import run
from fewshot_lib.grader import results
from fewshot_lib.grader.bubblewrap import bubblewrap_problem
from fewshot_lib.grader.plan import plan
from fewshot_lib.grader.pool import Pool
from fewshot_lib.grader.sandbox import SandboxLimits
from fewshot_lib.grader.submissions import InMemory, Submission

pytestmark = [
    pytest.mark.bench,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bubblewrap_problem() is not None, reason="needs bubblewrap"),
]

ROOT = Path(__file__).resolve().parents[2]
NAME = "05_segmentation"
SEVERAL = 40
THOUSAND = int(os.environ.get("FEWSHOT_BENCH_SUBMISSIONS", "1000"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(submissions: Path, folder: Path, *more: str) -> list[str]:
    grade = ["grade", str(submissions), "--results", str(folder), "--seed", "1", *more]
    return [sys.executable, "-m", "fewshot_lib.cli", *grade]


def copies(folder: Path, number: int, name: str = NAME) -> Path:
    for student in range(number):
        place = folder / f"student{student:04d}"
        place.mkdir(parents=True)
        shutil.copy(ROOT / "solutions" / f"{name}.ipynb", place)
    return folder


def memory(process: psutil.Process) -> dict[int, float]:
    """Give the proportional memory (MB) of a process and of all below it."""
    found = {}
    for one in [process, *process.children(recursive=True)]:
        try:
            found[one.pid] = one.memory_full_info().pss / 1e6
        except psutil.Error:
            continue
    return found


def processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system + times.children_user + times.children_system


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Give the warm parents below a process: Python at the grader's program, no fork of one."""
    found = []
    for one in process.children(recursive=True):
        try:
            words = one.cmdline()
            forked = one.parent().cmdline() == words
        except (psutil.Error, AttributeError):
            continue
        if "/grader/worker.py" in words and "bwrap" not in words[0] and not forked:
            found.append(one)
    return found


def nbgrader_seconds(folder: Path, number: int) -> list[float]:
    """Time nbgrader's autograde on the same notebook, submission by submission."""
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    os.environ["FEWSHOT_PROGRESS"] = str(folder / "progress.json")
    config = Config()
    config.CourseDirectory.root = str(folder)
    config.CourseDirectory.db_url = f"sqlite:///{folder}/gradebook.db"
    api = NbGraderAPI(config=config)
    source = folder / "source" / NAME
    source.mkdir(parents=True)
    shutil.copy(ROOT / "solutions" / f"{NAME}.ipynb", source)
    assert api.generate_assignment(NAME)["success"]
    spent = []
    for student in range(number):
        place = folder / "submitted" / f"student{student}" / NAME
        place.mkdir(parents=True)
        shutil.copy(ROOT / "solutions" / f"{NAME}.ipynb", place)
        begun = time.perf_counter()
        result = api.autograde(NAME, f"student{student}", create=True)
        spent.append(time.perf_counter() - begun)
        assert result["success"], result.get("error")
    return spent


def otter_seconds(folder: Path, number: int) -> list[float]:
    """Time otter-grader on the same notebook, from a venv of its own on top of this one."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    inner = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", vars=inner))
    (packages / "below.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    install = [str(python), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*install, "otter-grader"], check=True)
    program = str(Path(__file__).with_name("otter_times.py"))
    notebook = str(ROOT / "solutions" / f"{NAME}.ipynb")
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [str(python), program, notebook, NAME, str(number)],
        env=ENVIRONMENT | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["shares"] == [1.0] * number
    return list(found["seconds"])


def test_throughput_beside_nbgrader_and_otter_and_overhead(bench, tmp_path):
    theirs = nbgrader_seconds(tmp_path / "nbgrader", 4)
    otters = otter_seconds(tmp_path / "otter", 4)
    one_plan = plan(NAME, ROOT)
    data = (ROOT / "solutions" / f"{NAME}.ipynb").read_bytes()
    students = [Submission(f"student{n}", NAME, "", InMemory(data)) for n in range(SEVERAL)]
    me = psutil.Process()
    names = namespace(read(ROOT / "solutions" / f"{NAME}.ipynb"))
    with Pool(one_plan, 1, "bubblewrap", SandboxLimits()) as pool:
        list(pool.grade(students[:3], 0))
        [worker] = workers_of(me)
        before, mine, begun = processor_seconds(worker), time.process_time(), time.perf_counter()
        rows = list(pool.grade(students, 1))
        wall = (time.perf_counter() - begun) / SEVERAL
        time.sleep(0.1)  # the last process is counted when the worker has waited for it
        spent = processor_seconds(worker) - before + time.process_time() - mine
    assert all(row["points"] == row["max_points"] for row in rows)
    begun = time.process_time()
    for seed in range(SEVERAL):
        for answer in one_plan.exercise.answers:
            cases = expected_results(answer, rows[seed]["receipt"]["seed"]).flat
            run(names[answer.name], cases)
    drawn = time.process_time() - begun
    own = drawn / 2  # half of it was the reference's, on the same cases
    bench("nbgrader autograde, a submission", statistics.median(theirs), "s")
    bench("otter-grader, a submission", statistics.median(otters), "s")
    bench("fewshot grade, a submission, one worker", wall, "s")
    bench("times as many as nbgrader", statistics.median(theirs) / wall, "", goal=">= 60")
    bench("times as many as otter-grader", statistics.median(otters) / wall, "")
    bench("the student's own compute", 1000 * own / SEVERAL, "ms")
    overhead = 1000 * (spent - own) / SEVERAL
    bench("overhead per submission, processor time", overhead, "ms", goal="<= 60")


def test_first_result_and_memory(bench, tmp_path):
    place = copies(tmp_path / "submissions", 60)
    begun = time.perf_counter()
    process = psutil.Popen(command(place, tmp_path / "marks"), env=ENVIRONMENT)
    rows = tmp_path / "marks" / "results.jsonl"
    first, highest = 0.0, 0.0
    while process.poll() is None:
        if not first and rows.exists() and rows.stat().st_size:
            first = time.perf_counter() - begun
        if first:  # to look at memory takes time from what is timed
            highest = max(highest, sum(memory(process).values()))
        time.sleep(0.2 if first else 0.02)
    assert process.returncode == 0
    bench("from the command to the first result", first, "s", goal="< 6")
    bench("memory of grader, warm parent and a submission", highest, "MB", goal="< 700")


def hostile(folder: Path, number: int) -> dict[str, str]:
    """Write submissions, every tenth hostile; give what each student handed in."""
    kinds = {}
    for student in range(number):
        who = f"student{student:04d}"
        if student % 10 == 9:
            attack = FILES[student // 10 % len(FILES)]
            kinds[who] = attack.stem
            code = attack.read_text(encoding="utf-8").replace("PORT_OF_THE_TEST", "22")
            hand_in(folder, {who: with_code(code)})
        else:
            kinds[who] = "stub" if student % 10 == 3 else "solution"
            hand_in(folder, {who: STUB if kinds[who] == "stub" else SOLUTION})
    return kinds


def test_a_thousand_submissions_killed_three_times(bench, tmp_path):
    kinds = hostile(tmp_path / "submissions", THOUSAND)
    rows = tmp_path / "marks" / "results.jsonl"
    more = ("--workers", "2", "--time-limit", "4", "--memory-limit", "400")
    begun, growth, peak, killed = time.perf_counter(), 0.0, 0.0, 0
    stops = [THOUSAND // 5, THOUSAND // 2, 3 * THOUSAND // 4]
    while True:
        process = psutil.Popen(
            command(tmp_path / "submissions", tmp_path / "marks", *more),
            env=ENVIRONMENT,
            stderr=subprocess.DEVNULL,
        )
        early, lately = 0.0, deque[float](maxlen=20)
        while process.poll() is None:
            done = rows.read_bytes().count(b"\n") if rows.exists() else 0
            if killed < len(stops) and done >= stops[killed]:
                process.send_signal(signal.SIGKILL)
                killed += 1
                process.wait()
                break
            try:
                now = process.memory_full_info().uss / 1e6
            except psutil.Error:
                continue
            if done > 40 and not early and (killed == 0 or done > stops[killed - 1] + 20):
                early = now
            if early:
                lately.append(now)
                peak = max(peak, now - early)
            if len(lately) == lately.maxlen:  # what stays, whatever is being read at a moment
                growth = max(growth, min(lately) - early)
            time.sleep(0.25)
        else:
            break
    seconds = time.perf_counter() - begun
    found = list(results.read_rows(rows))
    marks = {row["student"]: row for row in found}
    solutions = [marks[who] for who, kind in kinds.items() if kind == "solution"]
    stubs = [marks[who] for who, kind in kinds.items() if kind == "stub"]
    others = [marks[who] for who, kind in kinds.items() if kind not in ("solution", "stub")]
    wrong = [row for row in solutions if row["points"] != row["max_points"]]
    wrong += [row for row in stubs if row["points"] != 0]
    wrong += [row for row in others if row["points"] > 0.5 * row["max_points"]]
    bench("submissions without a row", len(kinds.keys() - marks.keys()), "", goal="<= 0")
    bench("submissions with two rows", len(found) - len(marks), "", goal="<= 0")
    bench("wrong marks", len(wrong), "", goal="<= 0")
    bench("times killed on the way", killed, "", goal=">= 3")
    bench("growth of the grader's own memory, what stays", growth, "MB", goal="< 50")
    bench("at the highest moment, a hostile reply being read", peak, "MB", goal="< 400")
    bench("seconds, kills and slow attacks included", seconds, "s", note=f"{THOUSAND} submissions")
    left = [p for p in psutil.process_iter() if _of(p, str(tmp_path))]
    bench("processes left over", len(left), "", goal="<= 0")
    print(json.dumps({row["student"]: row["points"] for row in wrong}))


def _of(process: psutil.Process, words: str) -> bool:
    try:
        return any(words in word for word in process.cmdline())
    except psutil.Error:
        return False
