"""Save, close, come back: interactive things show their saved form, and live again when run."""

from __future__ import annotations

import html
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import ipywidgets
import nbformat
import pytest
from jupyter_page import NotebookPage, code_notebook, end_kernels
from playwright.sync_api import Browser

from fewshot_lib.reading.question import find
from fewshot_lib.tools import copies
from fewshot_lib.tools.lab import Server

pytestmark = pytest.mark.browser
ask = sys.modules["fewshot_lib.reading.question"]  # the package's `question` is its function

SINGLE, MULTIPLE, TYPED = "prototypes.learned", "prototypes.unsquared", "prototypes.shift"
IMPORTS = """
from fewshot_lib import figures
from fewshot_lib.course import check, rubric
from fewshot_lib.reading import explore, question
def ceiling(scale): return figures.softmax_ceiling((2, 5), [1, scale])
def squared_euclidean(queries, prototypes): return queries
"""
CELLS = [
    *(f'question("{name}")' for name in (SINGLE, MULTIPLE, TYPED)),
    'rubric("prototypes.temperature")',
    "explore(ceiling, scale=[1, 20])",
    'check("prototypes", squared_euclidean)',
]
#: What the saved form of each shows.
SHOWN = (
    *("To answer, run the code cells at the top",) * 3,
    "To tick the points, run this cell",
    "some of their settings|2 settings",
    "prototypes.squared_euclidean",
)


def put(served: tuple[Server, Path], name: str) -> str:
    """Serve a notebook with one of everything, and a progress of its own."""
    progress = str(served[1] / f"{name}.progress.json")
    first = f"import os\nos.environ['FEWSHOT_PROGRESS'] = {progress!r}\n{IMPORTS}"
    nbformat.write(code_notebook(first, *CELLS), served[1] / name)
    return name


def visible(page: NotebookPage) -> list[str]:
    """Give what each code cell's output shows to the eye, in order."""
    areas = page.page.locator(".jp-Notebook .jp-Cell-outputArea")
    return [areas.nth(place).inner_text() for place in range(1, areas.count())]


@pytest.mark.parametrize("app", ["lab", "notebooks"])
def test_everything_is_live_then_saved_then_live_again(
    app: str, served: tuple[Server, Path], visit: Callable[..., NotebookPage]
) -> None:
    name = put(served, f"reopened-{app}.ipynb")
    page = visit(name, app)
    at_opening = list(page.complaints)  # Notebook 7 has one of its own, whatever the notebook holds
    page.run_all(120)
    text = "\n".join(visible(page))
    assert "To answer, run the code cells" not in text, "the saved form is hidden while it lives"
    assert page.page.locator(".fewshot-live").count() == 5
    right = next(c for c, option in find(SINGLE).labelled if option.right)
    asked = page.page.locator(".fewshot-live-prototypes-learned")
    asked.get_by_role("button", name=re.compile(f"^{right}\\b")).click()
    page.page.get_by_text("✓ Right").wait_for(timeout=30_000)
    page.page.locator('.fewshot-live-prototypes-temperature input[type="checkbox"]').first.check()
    page.page.wait_for_timeout(500)
    page.save()
    assert [said for said in page.failures() if said not in at_opening] == []
    page.page.close()
    end_kernels(served[0])

    page = visit(name, app)
    page.page.wait_for_timeout(5_000)
    shown = visible(page)
    text = "\n".join(shown)
    for words in ("Error displaying widget", "Loading widget", "model not found"):
        assert words not in text
    for output, part in zip(shown, SHOWN, strict=True):
        assert any(words in output for words in part.split("|")), (part, output)

    page.run_all(120)
    text = "\n".join(visible(page))
    assert page.page.locator(".fewshot-live").count() == 5
    assert "You answered this correctly on" in text
    boxes = page.page.locator('.fewshot-live-prototypes-temperature input[type="checkbox"]')
    assert boxes.first.is_checked()
    assert "To answer, run the code cells" not in text
    rows = json.loads((served[1] / f"{name}.progress.json").read_text())["rows"]
    attempts = {row["key"]: row["attempts"] for row in rows}
    assert attempts["prototypes.temperature"] == 0


#: Outputs without JupyterLab's areas: VS Code has those of all cells in one page, Colab those of
#: each cell in a frame of its own.
ELSEWHERE = {
    "VS Code": """<body><div class="output">{first}</div><div class="output">{still}</div>
<div class="output">{other}</div></body>""",
    "Colab": """<body><iframe srcdoc="&lt;div>{first}&lt;/div>&lt;div>{still}&lt;/div>"></iframe>
<iframe srcdoc="{other}"></iframe></body>""",
}
LIVE = '<div class="{classes}">the controls</div>'


def bundles(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Give the classes of a live question and the page of its saved form."""
    from fewshot_lib.checker import frontend

    seen: list[dict[str, str]] = []
    made: list[ipywidgets.Widget] = []
    real = ask.as_widget
    monkeypatch.setattr(frontend, "emit", lambda data, kept=None: seen.append(dict(data)))
    monkeypatch.setattr(ask, "as_widget", lambda asked: made.append(real(asked)) or made[-1])
    ask.question(name, form="live")
    return " ".join(made[0]._dom_classes), seen[1]["text/html"]


@pytest.mark.parametrize("place", ELSEWHERE)
@pytest.mark.parametrize("alive", [True, False])
def test_without_jupyters_areas_a_live_widget_hides_its_own_saved_form_only(
    alive: bool, place: str, chromium: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes, still = bundles(SINGLE, monkeypatch)
    _, other = bundles(MULTIPLE, monkeypatch)
    page = chromium.new_page()
    first = LIVE.format(classes=classes) if alive else "what the front end says of a dead widget"
    parts = {"first": first, "still": still, "other": other}
    if place == "Colab":
        parts = {name: html.escape(part) for name, part in parts.items()}
    page.set_content(ELSEWHERE[place].format(**parts))
    said = [
        part.is_visible() for frame in page.frames for part in frame.locator(".fewshot-still").all()
    ]
    page.close()
    assert said == [not alive, True]


def test_a_copy_that_is_opened_and_read_is_not_edited(
    served: tuple[Server, Path], visit: Callable[[str], NotebookPage]
) -> None:
    name = "exercises/03_prototypes.ipynb"
    (served[1] / "exercises").mkdir(exist_ok=True)
    shutil.copyfile(Path(__file__).resolve().parents[2] / name, served[1] / name)
    copies.update(served[1])
    copy = served[1] / copies.FOLDER / name
    before = copy.read_bytes()
    page = visit(f"{copies.FOLDER}/{name}")
    page.page.wait_for_timeout(3_000)
    assert page.page.locator(".jp-mod-dirty").count() == 0, "nobody edited it"
    assert copy.read_bytes() == before
    page.run_all(120)
    metadata = json.loads(copy.read_text(encoding="utf-8"))["metadata"]
    assert metadata["language_info"] == json.loads(before)["metadata"]["language_info"]
    assert page.failures() == []
