"""Exercises and questions as a reader meets them: wrong answers, right ones, clicks and keys."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from jupyter_page import NotebookPage
from playwright.sync_api import expect

from fewshot_lib.checker import catalogue
from fewshot_lib.checker.language import catalogue as catalogue_of
from fewshot_lib.reading.question import find
from fewshot_lib.tools.lab import Server

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
STEM = "03_prototypes"
WRONG_AXIS = "    return torch.stack([embeddings[labels == k].mean(1) for k in range(n_way)])\n"
UNSQUARED = "    return (queries[..., :, None, :] - prototypes[..., None, :, :]).norm(dim=-1)\n"
PANEL = "from fewshot_lib.course import panel\npanel()"


def put(served: tuple[Server, Path], name: str, answers: dict[str, str], *more: str) -> str:
    """Serve a copy of exercise 03 in which some stubs are answered, with a progress of its own.

    The name has the folder, which says the language: "exercises/zh/mine.ipynb".
    """
    folder = Path(name).parent if Path(name).parent.name else Path("exercises")
    notebook = nbformat.read(ROOT / folder / f"{STEM}.ipynb", as_version=4)
    for cell in notebook.cells:
        answer = answers.get(cell.metadata.get("nbgrader", {}).get("grade_id", ""))
        if answer is not None:
            cell.source = cell.source[: cell.source.index("    raise NotImplemented")] + answer
    progress = str(served[1] / f"{name}.progress.json")
    first = f"import os\nos.environ['FEWSHOT_PROGRESS'] = {progress!r}"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(first))
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in more]
    (served[1] / name).parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, served[1] / name)
    return name


def reports(page: NotebookPage, number: int) -> list[str]:
    """Read what the checks of a notebook say, once that many are drawn."""
    drawn = page.page.locator(".fewshot-check")
    expect(drawn).to_have_count(number, timeout=30_000)
    return drawn.all_inner_texts()


def solved() -> dict[str, str]:
    """Give the bodies of the solutions."""
    notebook = nbformat.read(ROOT / "solutions" / f"{STEM}.ipynb", as_version=4)
    bodies = {}
    for cell in notebook.cells:
        if "### BEGIN SOLUTION" in cell.source and cell.cell_type == "code":
            name = cell.metadata.nbgrader.grade_id
            bodies[name] = cell.source.split("SOLUTION", 1)[1].split("\n", 1)[1]
            bodies[name] = bodies[name].split("    ### END")[0]
    return bodies


def test_wrong_answers_get_their_reason_and_right_ones_their_points(
    served: tuple[Server, Path], visit: Callable[[str], NotebookPage]
) -> None:
    every = sum(len(one.answers) + len(one.prose) for one in catalogue.exercises())
    wrong = {"class_prototypes": WRONG_AXIS, "squared_euclidean": UNSQUARED}
    page = visit(put(served, "wrong.ipynb", wrong, PANEL))
    page.run_all(120)
    text = page.page.locator(".jp-Notebook").inner_text()
    assert "You averaged along the wrong axis" in text
    assert "the exercise asks for its square" in text
    assert "prototypes.log_posterior: not attempted" in text
    assert f"0 of {every} answers passed" in text
    picture = page.page.locator(".fewshot-check svg[role=img]")
    assert picture.first.is_visible()
    assert page.failures() == []

    page = visit(put(served, "right.ipynb", solved(), PANEL))
    page.run_all(120)
    text = page.page.locator(".jp-Notebook").inner_text()
    assert f"3 of {every} answers passed" in text
    assert "stands in for it" not in text
    assert page.failures() == []


def test_in_chinese_a_wrong_answer_gets_its_reason_and_a_right_one_its_points(
    served: tuple[Server, Path], visit: Callable[[str], NotebookPage]
) -> None:
    known = catalogue_of("zh_CN", "exercises/prototypes")
    wrong_axis = next(one for one in known if one.startswith("You averaged along the wrong axis"))
    points = catalogue_of("zh_CN", "checker")["{points} of {most} points"]
    said = {}
    for name, answers in (("wrong", {"class_prototypes": WRONG_AXIS}), ("right", solved())):
        page = visit(put(served, f"exercises/zh/{name}.ipynb", answers))
        page.run_all(120)
        assert page.failures() == []
        said[name] = "\n".join(reports(page, 3))
    assert known[wrong_axis].split("：")[0] in said["wrong"]
    for answer in catalogue.exercise("prototypes").answers:
        most = f"{sum(check.points for check in answer.checks):g}"
        full = points.format(points=most, most=most)
        assert full in said["right"], answer.name
        assert full not in said["wrong"]


def test_a_question_is_answered_wrongly_and_rightly_from_the_keyboard(
    served: tuple[Server, Path], visit: Callable[[str], NotebookPage]
) -> None:
    source = 'from fewshot_lib.reading import question\nquestion("prototypes.{}")'
    more = [source.format("learned"), source.format("shift")]
    page = visit(put(served, "asked.ipynb", {}, *more))
    page.run_all(120)
    saved = json.dumps(page.contents(), ensure_ascii=False)
    asked = find("prototypes.learned")
    for option in asked.options:
        assert option.text in saved
        assert option.reply not in saved
    assert asked.hint not in saved
    assert find("prototypes.shift").reply not in saved

    box = page.page.locator(".fewshot-live-prototypes-learned").last
    right = next(letter for letter, option in asked.labelled if option.right)
    wrong = [letter for letter, option in asked.labelled if not option.right]
    for letter in wrong[:2]:
        press(box, letter)
    box.get_by_text("Hint:").wait_for(timeout=30_000)
    press(box, right)
    box.get_by_text("There is no parameter in a mean").wait_for(timeout=30_000)

    typed = page.page.locator(".fewshot-live-prototypes-shift").last
    field = typed.get_by_role("textbox", name="Your answer")
    field.fill("v")
    press(typed, "Check")
    typed.get_by_text("one shot only").wait_for(timeout=30_000)
    field.fill("")
    typed.get_by_text("one shot only").wait_for(state="detached", timeout=30_000)
    field.focus()
    page.page.keyboard.type("v/n", delay=0)  # and Enter at once: no key may be lost
    page.page.keyboard.press("Enter")
    typed.get_by_text("moves a 1-shot prototype").wait_for(timeout=30_000)
    rows = json.loads((served[1] / "asked.ipynb.progress.json").read_text())["rows"]
    assert {row["key"]: row["attempts"] for row in rows} == {
        "question:prototypes.learned": 3,
        "question:prototypes.shift": 2,
    }
    assert page.failures() == []


def test_the_words_of_an_option_are_its_name_and_are_clicked(
    served: tuple[Server, Path], visit: Callable[[str], NotebookPage]
) -> None:
    source = 'from fewshot_lib.reading import question\nquestion("prototypes.unsquared")'
    page = visit(put(served, "options.ipynb", {}, source))
    page.run_all(120)
    box = page.page.locator(".fewshot-live-prototypes-unsquared").last
    asked = find("prototypes.unsquared")
    for letter, option in asked.labelled:
        named = re.compile(rf"^{letter}\.\s+{re.escape(option.text)}")
        control = box.get_by_role("checkbox", name=named)
        assert control.count() == 1
        assert not control.is_checked()
        if option.right:
            box.get_by_text(option.text).click()
            assert control.is_checked()
    press(box, "Check")
    box.get_by_text("✓ Right").wait_for(timeout=30_000)
    assert page.failures() == []


def press(box, name: str) -> None:
    """Press a button, named by its first word, by the keyboard."""
    button = box.get_by_role("button", name=re.compile(f"^{name}\\b"))
    button.focus()
    button.press("Enter")
