"""Submissions that are graded once for all tests of the grader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from handed_in import COURSE, hand_in
from students import EVERYBODY


@pytest.fixture(scope="session")
def marked(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Grade everybody as a teacher types it; give the folder, and how the command ended.

    The submissions are in ``submitted``, the results in ``marks``: a test that changes them takes
    a copy, or puts them back.
    """
    folder = tmp_path_factory.mktemp("marked")
    hand_in(folder / "submitted", EVERYBODY)
    words = ("grade", folder / "submitted", "--results", folder / "marks", "--seed", 4)
    done = subprocess.run(
        [sys.executable, "-m", "fewshot_lib.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=COURSE,
        check=False,
        timeout=600,
    )
    return folder, done
