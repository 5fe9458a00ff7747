"""Every notebook opens in a real JupyterLab, runs, and answers to its sliders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from jupyter_page import NotebookPage

from fewshot_lib.tools.lab import Server

ROOT = Path(__file__).resolve().parents[2]
ENGLISH = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOTEBOOKS = [*ENGLISH, ROOT / "notebooks" / "zh" / "03_prototypes.ipynb"]
LONGEST = 540.0  # seconds; the budgets themselves are held by tests/notebooks


def uses_explore(notebook: Path) -> int:
    """Count the calls of explore() in a notebook."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return sum("explore(" in source for source in sources)


def test_there_are_notebooks() -> None:
    assert ENGLISH, "notebooks/ is empty"


@pytest.mark.browser
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_notebook_runs_in_a_browser_and_its_explorers_answer_the_keyboard(
    notebook: Path,
    served: tuple[Server, Path],
    visit: Callable[[str], NotebookPage],
    request: pytest.FixtureRequest,
    print_table: Callable[[str, str], None],
) -> None:
    place = notebook.relative_to(ROOT)
    (served[1] / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(notebook, served[1] / place)
    page = visit(place.as_posix())
    page.run_all(LONGEST)
    explorers = page.explorers()
    waited = [page.move(explorer) for explorer in explorers]
    folder = request.config.getoption("--screenshots")
    if folder:
        page.screenshot(folder / f"{notebook.stem}.png")
    assert page.failures() == []
    assert len(explorers) >= uses_explore(notebook), "an explore() that shows no controls"
    assert None not in waited, f"moved controls that changed no picture: {waited}"
    if waited:
        times = ", ".join(f"{seconds * 1000:.0f} ms" for seconds in waited if seconds)
        print_table(f"from key to picture, {notebook.stem}", times)
