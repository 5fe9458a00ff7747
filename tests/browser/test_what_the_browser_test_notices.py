"""The browser test can fail: broken notebooks are noticed, a sound one is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from jupyter_page import NotebookPage, code_notebook

from fewshot_lib.tools.lab import Server

pytestmark = pytest.mark.browser

SLIDER = """
import io, ipywidgets, numpy as np
from matplotlib.figure import Figure
def draw(value):
    figure = Figure(figsize=(2, 1)); figure.subplots().plot([0, value])
    file = io.BytesIO(); figure.savefig(file, format="png"); return file.getvalue()
slider, image = ipywidgets.IntSlider(1, 0, 5), ipywidgets.Image(value=draw(1))
"""
ALIVE = "slider.observe(lambda change: setattr(image, 'value', draw(change.new)), 'value')\n"
SHOW = "ipywidgets.VBox([slider, image]).add_class('fewshot-explore')"


def write(served: tuple[Server, Path], name: str, *sources: str) -> str:
    """Put a small notebook where JupyterLab serves it."""
    nbformat.write(code_notebook(*sources), served[1] / name)
    return name


def test_a_sound_notebook_has_no_failures_and_its_slider_moves_the_picture(
    served: tuple[Server, Path], visit: Callable[[str], NotebookPage]
) -> None:
    page = visit(write(served, "sound.ipynb", "1 + 1", SLIDER + ALIVE + SHOW))
    page.run_all(60)
    [explorer] = page.explorers()
    assert page.move(explorer) is not None
    assert page.failures() == []


@pytest.mark.parametrize("values", ["[1, 5, 20]", "{'one': 1, 'five': 5, 'twenty': 20}"])
def test_an_explorer_works_from_the_keyboard_and_leaves_no_pile_of_pictures(
    served: tuple[Server, Path], visit: Callable[[str], NotebookPage], values: str
) -> None:
    source = f"""
from fewshot_lib import figures
from fewshot_lib.reading import explore
def ceiling(scale): return figures.softmax_ceiling((2, 5), [1, scale])
explore(ceiling, scale={values})
"""
    page = visit(write(served, f"explorer-{len(values)}.ipynb", source))
    page.run_all(60)
    [explorer] = page.explorers()
    assert page.move(explorer) is not None
    assert explorer.locator("img").count() == 1
    assert page.failures() == []


def test_a_control_that_changes_no_picture_is_named(
    served: tuple[Server, Path], visit: Callable[[str], NotebookPage]
) -> None:
    source = """
from fewshot_lib import figures
from fewshot_lib.reading import explore
def ceiling(scale=2, way=2, rate=20, dashed=False, kind="a"):
    return figures.softmax_ceiling((way,) if kind == "a" else (way, 9), [1, scale])
explore(ceiling, scale=[2, 20], way=(2, 4), rate=[20, 60], dashed=False, kind=["a", "b"])
"""
    page = visit(write(served, "idle.ipynb", source))
    page.run_all(60)
    [explorer] = page.explorers()
    assert page.idle_controls(explorer) == ["rate", "dashed"]
    assert page.failures() == []


def test_errors_dead_sliders_and_console_errors_are_noticed(
    served: tuple[Server, Path], visit: Callable[[str], NotebookPage]
) -> None:
    shout = "from IPython.display import Javascript; Javascript('console.error(\"a shout\")')"
    page = visit(write(served, "broken.ipynb", SLIDER + SHOW, shout, "1 / 0", "2"))
    page.run_all(60)
    [explorer] = page.explorers()
    assert page.move(explorer, seconds=2) is None
    failures = "\n".join(page.failures())
    for part in ("execution counts", "ZeroDivisionError", "a shout"):
        assert part in failures
