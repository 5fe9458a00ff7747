"""CI skips nothing, and an unknown stage is refused."""

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
"""


@pytest.mark.parametrize(
    ("variables", "count"),
    [({}, "1 passed, 2 skipped"), ({"CI": "true"}, "1 failed, 1 passed, 1 skipped")],
    ids=["at home", "in CI"],
)
def test_a_skip_is_a_failure_in_ci_only(tmp_path, variables, count):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "FEWSHOT_TEST_STAGES")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert count in done.stdout
    assert done.returncode == bool(variables)


def test_an_unknown_stage_is_refused_and_the_known_ones_are_named():
    done = subprocess.run(
        [sys.executable, "-m", "tests", "everything"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    for stage in ("lint", "format", "types", "build", "unit", "nbval", "grader", "browser"):
        assert stage in done.stdout
