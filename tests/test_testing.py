"""The tests' own promises: CI skips nothing, stages are what they are called, goals are held."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SKIPPING = """
import pytest

def test_that_runs(): pass
def test_that_gives_up(): pytest.skip("no sandbox here")
@pytest.mark.skipif(True, reason="no GPU")
def test_for_a_gpu(): pass
@pytest.mark.xfail(reason="known")
def test_known(): assert False
def test_that_prints(print_table): print_table("a table", "its rows")
"""
MEASURING = """
def test_speed(bench):
    bench("ratio", {value}, goal="<= 2", interval=(1, 3))
"""


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a folder of its own."""
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "FEWSHOT_TEST_STAGES")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("variables", "status", "count"),
    [
        ({}, 0, "2 passed, 2 skipped, 1 xfailed"),
        ({"CI": "true"}, 1, "1 failed, 2 passed, 1 skipped, 1 xfailed"),
    ],
    ids=["at home", "in CI"],
)
def test_a_skip_is_a_failure_in_ci_only(
    tmp_path: Path, variables: dict[str, str], status: int, count: str
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    done = run(tmp_path, **variables)
    assert done.returncode == status
    assert count in done.stdout
    assert "its rows" in done.stdout
    assert ("CI skips nothing" in done.stdout) is bool(variables)


@pytest.mark.parametrize(("value", "status", "verdict"), [(1.5, 0, "met"), (2.5, 1, "MISSED")])
def test_a_missed_goal_fails_the_benchmarks(
    tmp_path: Path, value: float, status: int, verdict: str
) -> None:
    folder = tmp_path / "tests" / "benchmarks"
    folder.mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (folder / "bench_speed.py").write_text(MEASURING.format(value=value))
    shutil.copy(ROOT / "tests" / "benchmarks" / "conftest.py", folder)
    done = run(tmp_path, "-o", "python_files=bench_*.py")
    assert done.returncode == status
    assert f"goal <= 2: {verdict}" in done.stdout
    assert (tmp_path / "build" / "bench.json").is_file()


def test_an_unknown_stage_is_refused_and_the_known_ones_are_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests", "everything"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    for stage in ("lint", "format", "types", "build", "unit", "nbval", "browser"):
        assert stage in done.stdout
