"""``make bench``: measurements with goals, printed as one table.

A benchmark is a test function in a file ``bench_<what>.py`` of this folder. It measures, says each
figure with ``bench(...)`` and asserts nothing: a missed goal is printed as missed and fails the run
at the end, after every other figure has been measured.

    def test_import_costs_hardly_more_than_torch(bench):
        bench("import fewshot_lib.prototypes / import torch", ratio, goal="<= 1.15")
"""

from __future__ import annotations

import json
import operator
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests" / part) for part in ("browser", "notebooks", "hostile")]
COMPARE = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
ROWS: list[Row] = []


@dataclass(frozen=True)
class Row:
    """One measured figure; ``met`` is None when there was no goal."""

    bench: str
    what: str
    value: float
    unit: str
    interval: tuple[float, float] | None
    goal: str
    met: bool | None
    note: str


def meets(value: float, goal: str) -> bool:
    """Say whether a figure meets a goal such as ``<= 1.15``."""
    sign, _, limit = goal.strip().partition(" ")
    return bool(COMPARE[sign](value, float(limit)))


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Give a function that records one figure of this benchmark."""

    def record(
        what: str,
        value: float,
        unit: str = "",
        *,
        goal: str = "",
        interval: tuple[float, float] | None = None,
        note: str = "",
    ) -> None:
        """Record ``value`` (``unit``) with an optional interval, goal (``"<= 1.15"``) and note."""
        met = meets(value, goal) if goal else None
        name = request.path.stem.removeprefix("bench_")
        ROWS.append(Row(name, what, float(value), unit, interval, goal, met, note))
        print(f"\n  {what}: {value:.4g} {unit} {goal and f'(goal {goal})'}", flush=True)

    return record


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute with one thread: on small images a second one costs more than it computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print all figures as one table and keep them in ``build/bench.json``."""
    if not ROWS:
        return
    terminalreporter.section(
        f"measured on {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    width = max(len(row.what) for row in ROWS)
    previous = ""
    for row in ROWS:
        if row.bench != previous:
            terminalreporter.write_line(f"{row.bench}")
            previous = row.bench
        between = f" [{row.interval[0]:.3g}, {row.interval[1]:.3g}]" if row.interval else ""
        verdict = {None: "", True: f"goal {row.goal}: met", False: f"goal {row.goal}: MISSED"}
        figure = f"{row.value:.4g} {row.unit}".strip() + between
        line = f"  {row.what:{width}}  {figure:24}  {verdict[row.met]}  {row.note}".rstrip()
        terminalreporter.write_line(line)
    kept = ROOT / "build" / "bench.json"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps([asdict(row) for row in ROWS], indent=1), encoding="utf-8")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when a goal was missed."""
    if any(row.met is False for row in ROWS) and session.exitstatus == 0:
        session.exitstatus = 1
