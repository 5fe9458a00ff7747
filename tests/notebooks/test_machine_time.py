"""Every lesson keeps the machine time that it states, by the clock of the nbval run.

``make test`` runs this after nbval, whose report it reads; the factor is generous because machines
differ and share. Exact times are measured by ``make bench``.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from saved import LESSONS, label, machine_seconds

FACTOR = 3.0


@pytest.fixture(scope="module")
def measured() -> dict[str, float]:
    """Read seconds by notebook, kernel start included, from nbval's report."""
    report = os.environ.get("FEWSHOT_NBVAL_REPORT", "")
    if not Path(report).is_file():
        pytest.skip("no times yet: make test runs nbval first (python -m tests nbval times)")
    seconds: dict[str, float] = defaultdict(float)
    for case in ElementTree.parse(report).iter("testcase"):
        seconds[case.get("classname", "")] += float(case.get("time", 0))
    return dict(seconds)


@pytest.mark.parametrize("path", LESSONS, ids=label)
def test_lesson_keeps_the_machine_time_it_states(path: Path, measured: dict[str, float]) -> None:
    stated = machine_seconds(path)
    assert stated is not None
    assert measured[f"notebooks.{path.name}"] <= FACTOR * stated


def test_all_lessons_together_keep_the_time_that_they_state(
    measured: dict[str, float], print_table: Callable[[str, str], None]
) -> None:
    taken = {p.name: measured[f"notebooks.{p.name}"] for p in LESSONS}
    lines = [f"{seconds:7.1f} s  {name}" for name, seconds in taken.items()]
    print_table("machine time of the lessons, nothing cached", "\n".join(lines))
    stated = [machine_seconds(path) or 0.0 for path in LESSONS]
    assert sum(taken.values()) <= FACTOR * sum(stated)
