"""A notebook in a real browser: open it, run it, move its sliders, and say all that went wrong.

The fixtures are for benchmarks, too: JupyterLab and Chromium are started once for all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

import nbformat
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Response, sync_playwright

from fewshot_lib.tools import lab
from fewshot_lib.tools.lab import Server
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
#: What JupyterLab itself says in every notebook, on every machine, whatever the notebook does.
JUPYTERLABS_OWN: tuple[tuple[str, str], ...] = (
    (r"403 .*/static/notebook/\w+\.woff2", "Notebook 7 is at times refused a font of its own"),
)


def patiently(server: Server, path: str, seconds: float = 60) -> Any:
    """Ask the server until it answers: a busy one is silent for longer than a question waits."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return server.ask(path)
        except OSError as error:
            if isinstance(error, HTTPError) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def end_kernels(server: Server) -> None:
    """End all kernels, as when a machine is switched off."""
    for session in patiently(server, "/api/sessions"):
        with contextlib.suppress(OSError):  # one that is ending already; the server ends all
            server.ask(f"/api/sessions/{session['id']}", "DELETE")


def code_notebook(*sources: str) -> nbformat.NotebookNode:
    """Make a notebook of code cells."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


@dataclass
class NotebookPage:
    """One notebook, open in one page; ``complaints`` collects console and network errors."""

    page: Page
    server: Server
    folder: Path  # which the server serves
    path: str
    app: str = "lab"  # or "notebooks": Jupyter Notebook 7, which the same server has
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen from the first moment."""
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.on("response", self._answered)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._complain(f"console: {message.text} ({message.location.get('url', '')})")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self._complain(f"{response.status} {response.request.method} {response.url}")

    def _complain(self, text: str) -> None:
        if not any(re.search(pattern, text) for pattern, _ in JUPYTERLABS_OWN):
            self.complaints.append(text)

    def open(self) -> None:
        """Open the notebook and wait until its kernel is ready."""
        if self.app == "notebooks":
            place = f"{self.server.url}/notebooks/{quote(self.path)}"
            self.page.goto(f"{place}?token={self.server.token}")
            self.page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
            self._wait_for_the_kernel(90)
            self.wait_until_idle(60)
            return
        workspace = re.sub(r"\W", "-", self.path)  # of its own, or it would reopen earlier ones
        address = self.server.address(self.path).replace("/lab/", f"/lab/workspaces/{workspace}/")
        self.page.goto(f"{address}&reset")
        self.page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
        self.page.get_by_text(re.compile(r"\| Idle$")).wait_for(timeout=60_000)
        self.wait_until_idle(60)

    def _wait_for_the_kernel(self, seconds: float) -> None:
        """Wait until the server has a kernel for this page that is connected and idle."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for session in patiently(self.server, "/api/sessions"):
                kernel = session["kernel"] or {}
                ready = kernel.get("execution_state") == "idle" and kernel.get("connections")
                if session["path"] == self.path and ready:
                    self.page.wait_for_timeout(1_000)  # what it said reaches the page
                    return
            self.page.wait_for_timeout(300)
        raise TimeoutError(f"{self.path}: no kernel was ready within {seconds:.0f} s")

    def wait_until_idle(self, seconds: float) -> None:
        """Wait until the kernel says that it is idle."""
        idle = self.page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
        idle.first.wait_for(state="attached", timeout=seconds * 1000)

    def run_all(self, seconds: float) -> None:
        """Clear what was saved, run all cells, both through the menus, wait for them, and save."""
        self.choose("Edit", "Clear Outputs of All Cells")
        prompts = self.page.locator(".jp-Notebook .jp-InputArea-prompt")
        self.choose("Run", "Run All Cells")
        deadline, quiet_since = time.monotonic() + seconds, None
        while True:
            texts, now = prompts.all_inner_texts(), time.monotonic()
            ran = [bool(re.search(r"\[\d+\]", text)) for text in texts if text.strip()]
            if any("*" in text for text in texts) or not any(ran):
                quiet_since = None  # running, or not begun: a busy machine takes its time
            else:
                quiet_since = quiet_since or now
            if all(ran) or (quiet_since and now - quiet_since > 5):  # an error stopped the rest
                break
            if now > deadline:
                raise TimeoutError(f"{self.path}: after {seconds:.0f} s the prompts are {texts}")
            self.page.wait_for_timeout(200)
        self.wait_until_idle(60)
        self.save()

    def choose(self, menu: str, item: str) -> None:
        """Choose an item of a menu, as a person does."""
        self.page.get_by_role("menuitem", name=menu, exact=True).click()
        self.page.get_by_role("menuitem", name=item, exact=True).click()

    def save(self) -> None:
        """Save through the keyboard and wait until the server has what the page shows.

        Two saves can overlap, and the first may hold what stood there before the cells ran; so the
        file counts as saved when the number of every cell that shows one is in it.
        """
        before, _ = self._saved()
        prompts = self.page.locator(".jp-Notebook .jp-InputArea-prompt")
        for trial in range(300):
            if trial % 50 == 0:  # a page that is still busy swallows the key
                self.page.locator(".jp-Notebook").first.click(position={"x": 3, "y": 3})
                self.page.keyboard.press("Control+s")
            when, kept = self._saved()
            counts = {cell.get("execution_count") for cell in kept["cells"]}
            shown = re.findall(r"\[(\d+)\]", " ".join(prompts.all_inner_texts()))
            if when != before and {int(one) for one in shown} <= counts:
                return
            self.page.wait_for_timeout(100)
        raise TimeoutError(f"{self.path} was not saved")

    def contents(self) -> dict:
        """Read the saved notebook."""
        return self._saved()[1]

    def _saved(self) -> tuple[int, dict]:
        """Read when the notebook was saved, and what; wait while the server is writing it.

        The server is not asked for it: where it finds a file half written, by itself, it takes the
        file for broken, puts the one before in its place, and the save is lost.
        """
        file, deadline = self.folder / self.path, time.monotonic() + 60
        while True:
            try:
                return file.stat().st_mtime_ns, json.loads(file.read_text(encoding="utf-8"))
            except (FileNotFoundError, ValueError):
                if time.monotonic() > deadline:
                    raise
                self.page.wait_for_timeout(100)

    def failures(self) -> list[str]:
        """List what a reader would call broken: cells not run, error outputs, complaints."""
        found = []
        cells = [c for c in self.contents()["cells"] if c["cell_type"] == "code"]
        filled = [cell for cell in cells if "".join(cell["source"]).strip()]
        counts = [cell["execution_count"] for cell in filled]
        if counts != list(range(1, len(filled) + 1)):
            found.append(f"execution counts are {counts}")
        for cell in filled:
            for output in cell["outputs"]:
                if output["output_type"] == "error":
                    found.append(f"{output['ename']}: {output['evalue']}")
        return found + self.complaints

    def explorers(self) -> list[Locator]:
        """List what explore() shows live: controls and a picture."""
        return self.page.locator(".fewshot-explore").all()

    def idle_controls(self, explorer: Locator) -> list[str]:
        """Move every control of an explorer through its values until the picture changes.

        Returns:
            The names of the controls of which no value changed the picture.
        """
        idle = []
        for line in explorer.locator(
            ".widget-slider, .widget-checkbox, .widget-toggle-buttons"
        ).all():
            sliders, buttons = line.locator('[role="slider"]'), line.locator("button")
            if sliders.count():
                steps = [(sliders.first, key) for key in ["ArrowRight"] * 12 + ["ArrowLeft"] * 24]
            elif buttons.count():
                steps = [(button, "Enter") for button in buttons.all()]
            else:
                steps = [(line.locator("input").first, "Space")]
            before = self.pictures(explorer)
            if not any(
                self._redrawn(explorer, *step)
                and self._changed(explorer, before, time.monotonic(), 1.5) is not None
                for step in steps
            ):
                idle.append(line.inner_text().strip("\u200b\n ").split("\n")[0])
        return idle

    def _redrawn(self, explorer: Locator, control: Locator, key: str, seconds: float = 15) -> bool:
        """Press a key on a control; say whether the picture was drawn anew."""
        words = explorer.locator("[role=status], [role=alert]")
        said, stood = words.inner_text(), self.value(control)
        if "mod-active" in (control.get_attribute("class") or ""):
            return False  # the button that is chosen already
        control.focus()
        self.page.keyboard.press(key)
        self.page.wait_for_timeout(50)
        if control.get_attribute("role") == "slider" and self.value(control) == stood:
            return False  # at this end
        for _ in range(int(seconds * 20)):
            if words.inner_text() != said:  # it names the setting, so it always changes
                return True
            self.page.wait_for_timeout(50)
        raise TimeoutError(f"{self.path}: {key} on a control, and nothing was drawn: {said}")

    def move(self, explorer: Locator, seconds: float = 10.0) -> float | None:
        """Move the first slider of an explorer by a key; where it has none, press a button.

        Returns:
            Seconds until the picture had changed; None when it never did.
        """
        sliders = explorer.locator('[role="slider"]')
        if not sliders.count():
            before = self.pictures(explorer)
            other = explorer.locator(".widget-toggle-button:not(.mod-active)").first
            other.focus()
            start = time.monotonic()
            self.page.keyboard.press("Enter")
            return self._changed(explorer, before, start, seconds)
        control, before = sliders.first, self.pictures(explorer)
        for key in ("ArrowRight", "ArrowLeft"):
            value = self.value(control)
            control.focus()
            start = time.monotonic()
            self.page.keyboard.press(key)
            self.page.wait_for_timeout(10)
            if self.value(control) != value:  # else it stood at this end
                return self._changed(explorer, before, start, seconds)
        return None

    def _changed(
        self, explorer: Locator, before: list[str], start: float, seconds: float
    ) -> float | None:
        while time.monotonic() - start < seconds:
            if self.pictures(explorer) != before:
                return time.monotonic() - start
            self.page.wait_for_timeout(10)
        return None

    @staticmethod
    def value(control: Locator) -> str:
        """Read where a slider stands; its number is rounded, its text is not."""
        script = (
            "e => e.getAttribute('aria-valuetext') ?? e.getAttribute('aria-valuenow') ?? e.value"
        )
        return str(control.evaluate(script))

    @staticmethod
    def pictures(area: Locator) -> list[str]:
        """Read the pictures of an output area, pixel data and all."""
        script = """async images => Promise.all(images.map(async image => {
            await image.decode().catch(() => null);
            const canvas = document.createElement('canvas');
            canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
            canvas.getContext('2d').drawImage(image, 0, 0);
            return canvas.toDataURL();
        }))"""
        return area.locator("img").evaluate_all(script)

    def screenshot(self, file: Path) -> None:
        """Photograph the whole notebook, for a person to look at."""
        height = self.page.evaluate(
            "Math.max(...[...document.querySelectorAll('.jp-WindowedPanel-outer, .jp-Notebook')]"
            ".map(e => e.scrollHeight))"
        )
        size = self.page.viewport_size or {"width": 1280, "height": 900}
        self.page.set_viewport_size({"width": size["width"], "height": min(height + 120, 15_000)})
        self.page.locator(".jp-Notebook .jp-Cell").first.scroll_into_view_if_needed()
        self.page.wait_for_timeout(500)
        file.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=file)
        self.page.set_viewport_size(size)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Start Chromium, headless."""
    flags = [*QUIET, *(["--no-sandbox"] if is_root() else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
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
def visit(chromium: Browser, served: tuple[Server, Path]) -> Iterator[Callable[..., NotebookPage]]:
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
    end_kernels(server)
