"""A real JupyterLab and a real Chromium, once for all browser tests."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jupyter_page import NotebookPage, patiently
from playwright.sync_api import Browser, sync_playwright

from fewshot_lib.tools import lab
from fewshot_lib.tools.machine import find_chromium, is_root

QUIET = [
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    "--disable-dev-shm-usage",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--screenshots DIR``."""
    parser.addoption("--screenshots", type=Path, help="keep a picture of every notebook here")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Start Chromium, headless."""
    flags = [*QUIET, *(["--no-sandbox"] if is_root() else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[lab.Server, Path]]:
    """Serve an empty folder as the course is served; notebooks are copied into it."""
    folder = tmp_path_factory.mktemp("served")
    settings = tmp_path_factory.mktemp("settings")
    (settings / "labconfig").mkdir()
    # Cells out of sight stay in the page, so that the test sees what a reader who scrolls sees.
    overrides = {"@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"}}
    (settings / "labconfig" / "default_setting_overrides.json").write_text(json.dumps(overrides))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_CONFIG_PATH", str(settings))
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"):
            patch.setenv(name, str(settings / name.lower()))
        patch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "2"))
        patch.delenv("FEWSHOT_LANGUAGE", raising=False)  # a notebook speaks its folder's language
        patch.setenv("LANGUAGE", "en")
        with (
            (settings / "jupyterlab.log").open("wb") as log,
            lab.serving(folder, random.randint(20_000, 40_000), log) as server,
        ):
            yield server, folder


@pytest.fixture
def visit(
    chromium: Browser, served: tuple[lab.Server, Path]
) -> Iterator[Callable[..., NotebookPage]]:
    """Give a function that opens a notebook (a path within the served folder) in a new page."""
    server, folder = served
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")

    def open_page(path: str, app: str = "lab") -> NotebookPage:
        """Open a notebook, in JupyterLab or in "notebooks", which is Jupyter Notebook 7."""
        notebook = NotebookPage(context.new_page(), server, folder, path, app)
        notebook.open()
        return notebook

    yield open_page
    context.close()
    for session in patiently(server, "/api/sessions"):
        with contextlib.suppress(OSError):  # a kernel that is already ending; the server ends all
            server.ask(f"/api/sessions/{session['id']}", "DELETE")
