"""Predictions from the keyboard: entered, skipped, seen in the next figure, kept and read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from jupyter_page import NotebookPage, code_notebook, end_kernels
from playwright.sync_api import expect

from fewshot_lib.tools import notebooks
from fewshot_lib.tools.lab import Server

pytestmark = pytest.mark.browser
#: With these words the saved form says how to record a prediction.
SAVED_FORM = "To record it, run the code cells at the top"

NUMBER, CHOICE, CURVE = "dice.two-pixels", "start.moved", "dice.labels-buy"
FIRST = """
import os
os.environ["FEWSHOT_PROGRESS"] = {progress!r}
from fewshot_lib import figures
from fewshot_lib.reading import predict, prediction, show
"""
FIGURE = """
own = [(2, prediction("{number}"))]
show(*figures.dice_against_shift([0, 2, 4], {{"liver": [1, 0.9, 0.8]}}, predicted=own))
show(*figures.learning_curve([1, 5, 20, 50], {{"net": [0.2, 0.4, 0.6, 0.8]}},
                             predicted=prediction("{curve}")),
     predicted=prediction("{choice}"))
print("the figures were drawn: True")
"""


def put(served: tuple[Server, Path], name: str) -> Path:
    """Serve a notebook that asks for all three kinds, and a progress of its own."""
    progress = str(served[1] / f"{name}.progress.json")
    figure = FIGURE.format(number=NUMBER, choice=CHOICE, curve=CURVE)
    asked = [f'predict("{id_}")' for id_ in (NUMBER, CHOICE, CURVE)]
    sources = [FIRST.format(progress=progress), *asked, figure]
    nbformat.write(code_notebook(*sources), served[1] / name)
    return served[1] / name


def alternatives(page: NotebookPage) -> list[str]:
    """Read the alternative texts of the figures in view."""
    pictures = page.page.locator(".fewshot-figure img")
    return [picture.get_attribute("alt") or "" for picture in pictures.all()]


def run_last(page: NotebookPage) -> None:
    """Run the notebook's last cell from the keyboard and wait for it."""
    page.page.locator(".jp-CodeCell .cm-content").last.click()
    prompt = page.page.locator(".jp-InputArea-prompt").last
    before = prompt.inner_text()
    page.page.keyboard.press("Shift+Enter")
    page.page.wait_for_function(
        "before => { const all = [...document.querySelectorAll('.jp-InputArea-prompt')]"
        ".map(e => e.innerText).filter(t => /\\d/.test(t));"
        " return all.at(-1) !== before && !all.some(t => t.includes('*')); }",
        arg=before,
        timeout=60_000,
    )
    page.wait_until_idle(60)


def test_a_prediction_is_entered_or_skipped_and_seen_in_the_next_figure(
    served: tuple[Server, Path], visit: Callable[[str], NotebookPage]
) -> None:
    name = "predicted.ipynb"
    put(served, name)
    page = visit(name)
    page.run_all(120)  # a prediction that nobody makes stops nothing
    assert not any("Your prediction" in text for text in alternatives(page))

    number, choice, curve = (
        page.page.locator(f".fewshot-live-prediction-{id_.replace('.', '-')}")
        for id_ in (NUMBER, CHOICE, CURVE)
    )
    number.get_by_role("textbox", name="Your prediction").focus()
    page.page.keyboard.type("0.35", delay=0)
    page.page.keyboard.press("Enter")
    number.get_by_text("You predict: 0.35").wait_for(timeout=30_000)
    choice.get_by_role("button", name="Skip").focus()
    page.page.keyboard.press("Enter")
    choice.get_by_text("Skipped").wait_for(timeout=30_000)
    sliders = curve.locator('[role="slider"]')
    assert sliders.count() == 4
    sliders.first.focus()
    for _ in range(4):
        stood = page.value(sliders.first)
        page.page.keyboard.press("ArrowDown")
        expect(sliders.first).not_to_have_attribute("aria-valuetext", stood, timeout=30_000)
    curve.get_by_role("button", name="Record").focus()
    page.page.keyboard.press("Enter")
    curve.get_by_text("You predict: 0.3 at 1, 0.5 at 5").wait_for(timeout=30_000)
    run_last(page)
    shifts, labels = alternatives(page)
    assert "Your prediction: 0.35 at 2." in shifts
    assert "Your prediction: 0.30 at 1, 0.50 at 5" in labels
    assert page.page.locator("figcaption", has_text="Your prediction: 0.35 at 2.").is_visible()
    page.save()
    assert "Your prediction: 0.35 at 2." in json.dumps(page.contents())
    assert page.complaints == []
    page.page.close()
    end_kernels(served[0])

    page = visit(name)
    page.page.get_by_text(SAVED_FORM).first.wait_for(timeout=30_000)
    assert page.page.get_by_text(SAVED_FORM).count() == 3
    assert page.page.locator(".fewshot-live").count() == 0
    assert "Your prediction: 0.35 at 2." in alternatives(page)[0]
    page.run_all(120)  # a new kernel knows what was entered
    assert "Your prediction: 0.35 at 2." in alternatives(page)[0]
    assert page.page.get_by_text(SAVED_FORM).first.is_hidden()
    rows = json.loads((served[1] / f"{name}.progress.json").read_text())["rows"]
    assert {row["key"]: row["given"] for row in rows} == {
        f"prediction:{NUMBER}": "0.35",
        f"prediction:{CHOICE}": "",
        f"prediction:{CURVE}": "[0.3, 0.5, 0.5, 0.5]",
    }


@pytest.mark.parametrize("app", ["lab", "notebooks"])
def test_a_folded_check_is_out_of_sight_also_when_run_and_opens_by_a_click(
    app: str,
    served: tuple[Server, Path],
    visit: Callable[..., NotebookPage],
    request: pytest.FixtureRequest,
) -> None:
    said = nbformat.v4.new_output("stream", text="it agrees: True\n")
    sources = [FIRST.format(progress=str(served[1] / "folded.json")), f'predict("{CHOICE}")',
               "print('it agrees:', True)", "print('seen:', 0.5)"]  # fmt: skip
    notebook = code_notebook(*sources)
    notebook.cells[2].update(outputs=[said], execution_count=1)
    assert notebooks.fold(notebook) == 1
    notebooks.save(notebook, served[1] / f"folded-{app}.ipynb")
    page = visit(f"folded-{app}.ipynb", app)
    at_opening = list(page.complaints)  # Notebook 7 has one of its own
    area = page.page.locator(".jp-Notebook")
    assert area.get_by_text("it agrees: True").filter(visible=True).count() == 0
    page.run_all(60)
    assert area.get_by_text("it agrees: True").filter(visible=True).count() == 0
    assert area.get_by_text("seen: 0.5").filter(visible=True).count() == 1
    folder = request.config.getoption("--screenshots")
    if folder:
        page.screenshot(folder / f"folded-{app}.png")
    page.page.locator(".jp-InputPlaceholder").click()
    area.get_by_text("it agrees: True").filter(visible=True).wait_for(timeout=5_000)
    assert [said for said in page.failures() if said not in at_opening] == []
