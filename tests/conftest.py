"""What every test may rely on: what the machine has, no silent skips in CI, tables at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import fewshot_lib.course  # noqa: F401 - what the engines are asked about in the tests
from fewshot_lib.grader.bubblewrap import bubblewrap_problem
from fewshot_lib.tools.machine import find_chromium, find_postgresql

ROOT = Path(__file__).resolve().parents[1]
os.environ["LANGUAGE"] = "en"  # whatever the tester's own language is
IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
MAY_SKIP_IN_CI = ("no GPU",)  # a skip in CI is a failure unless its reason begins so
# No clock decides whether a law holds: a busy machine draws its examples slowly.
settings.register_profile("course", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("course")
TABLES: pytest.StashKey[list[tuple[str, str]]] = pytest.StashKey()


@cache
def missing_browser() -> str | None:
    """Say why the browser tests cannot run here, or None."""
    if find_chromium() is None:
        return "no Chromium found (Debian, Ubuntu: apt install chromium); set FEWSHOT_CHROMIUM"
    return None


@cache
def missing_sandbox() -> str | None:
    """Say why strangers' code cannot be run here, or None."""
    return bubblewrap_problem()


@cache
def missing_postgresql() -> str | None:
    """Say why no PostgreSQL server can be started here, or None."""
    if find_postgresql() is None:
        return "no PostgreSQL found (Debian, Ubuntu: apt install postgresql)"
    return None


@cache
def missing_scans() -> str | None:
    """Say why the real scans cannot be read here, or None."""
    from fewshot_lib.data import scans

    for name in ("A", "B", "C"):
        try:
            scans.load(name)
        except FileNotFoundError as error:
            return f"the real scans are not on this machine (fewshot data fetch): {error}"
    return None


NEEDS: dict[str, Callable[[], str | None]] = {
    "browser": missing_browser,
    "hostile": missing_sandbox,
    "postgresql": missing_postgresql,
    "scans": missing_scans,
}


def pytest_configure(config: pytest.Config) -> None:
    """Begin with no tables to print."""
    config.stash[TABLES] = []


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, with the reason, what this machine cannot run; in CI the next hook makes it fail."""
    for marker, missing in NEEDS.items():
        if item.get_closest_marker(marker):
            reason = missing()
            if reason:
                pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Turn a skip into a failure in CI: what CI leaves out, nobody runs."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not reason.startswith(MAY_SKIP_IN_CI):
            report.outcome = "failed"
            report.longrepr = f"CI skips nothing, but {item.nodeid} was skipped: {reason}"
    return report


@pytest.fixture
def print_table(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Give a function (title, text) whose text is printed after the tests, passed or failed."""
    return lambda title, text: request.config.stash[TABLES].append((title, text))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the tables that tests asked for, and the stages when ``python -m tests`` runs us."""
    for title, text in config.stash[TABLES]:
        terminalreporter.section(title)
        terminalreporter.write_line(text)
    stages = os.environ.get("FEWSHOT_TEST_STAGES")
    if stages and Path(stages).is_file():
        terminalreporter.section("stages of make test so far")
        for name, seconds, status in json.loads(Path(stages).read_text(encoding="utf-8")):
            terminalreporter.write_line(f"{seconds:7.1f} s  {status:8} {name}")


@pytest.fixture(autouse=True)
def _own_progress(request: pytest.FixtureRequest, tmp_path_factory, monkeypatch) -> None:
    """Keep the tests of checks away from the reader's own progress."""
    own = {"checker", "exercises", "grader", "honest", "notebooks", "reading"}
    if own & set(request.node.path.parts):
        folder = tmp_path_factory.mktemp("progress")
        monkeypatch.setenv("FEWSHOT_PROGRESS", str(folder / "progress.json"))


@pytest.fixture(scope="module")
def one_encoder() -> Iterator[None]:
    """Let all segmentations of a module share an encoder that remembers its first slices."""
    from fewshot_lib import transfer

    encoder = transfer.RememberingEncoder(transfer.ImageNetEncoder())

    def forget(*_: object) -> None:
        for key in list(encoder.known)[24:]:
            del encoder.known[key]

    encoder.register_forward_hook(forget)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "ImageNetEncoder", lambda: encoder)
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """Give the folder of the course."""
    return ROOT
