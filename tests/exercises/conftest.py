"""The table of the proof, printed after the tests."""

from __future__ import annotations

import pytest
from proof import Proof, table

PROOFS: dict[str, Proof] = {}


@pytest.fixture(scope="session")
def proofs() -> dict[str, Proof]:
    """Give the collection into which a proof enters what it found."""
    return PROOFS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print exercise × (points, mistakes, mutants, variants), and the mutants that survive."""
    if PROOFS:
        terminalreporter.section("exercises: what their checks were proved to catch")
        terminalreporter.write_line(table([PROOFS[key] for key in sorted(PROOFS)]))
