"""A teacher in nbgrader's formgrader: our marks are there, and a mark given by hand stays."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from handed_in import COURSE, NAME, SOLUTION, STUB, hand_in
from nbgrader.api import Gradebook
from playwright.sync_api import Browser, Page, expect

from fewshot_lib.checker import catalogue
from fewshot_lib.grader import gradebook
from fewshot_lib.grader.grade import grade
from fewshot_lib.tools import lab

pytestmark = [pytest.mark.browser, pytest.mark.hostile]

TEXT = catalogue.exercise(NAME).prose[0].name


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Grade two students and bring their marks and notebooks into a course of nbgrader's."""
    folder = tmp_path_factory.mktemp("course")
    hand_in(folder / "handed in", {"anna": SOLUTION, "ben": STUB})
    grade(folder / "handed in", folder / "marks", COURSE, seed=3)
    url = f"sqlite:///{folder}/gradebook.db"
    # of the stub no text was written
    assert gradebook.export(folder / "marks", url, COURSE) == (2, 1)
    assert gradebook.write_notebooks(folder / "marks", COURSE, folder) == 2
    (folder / "nbgrader_config.py").write_text(
        f"c = get_config()\nc.CourseDirectory.root = {str(folder)!r}\n"
        f"c.CourseDirectory.db_url = {url!r}\n",
        encoding="utf-8",
    )
    return folder, url


@pytest.fixture(scope="module")
def address(
    course: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """Serve that course with JupyterLab, of which formgrader is a part; give address and token."""
    folder, _ = course
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path_factory.mktemp("settings")))
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        log = (tmp_path_factory.mktemp("log") / "jupyterlab.log").open("wb")
        with log, lab.serving(folder, random.randint(40_000, 60_000), log) as server:
            yield f"{server.url}/formgrader", server.token


@pytest.fixture
def page(chromium: Browser, address: tuple[str, str]) -> Iterator[Page]:
    """Open the list of submissions."""
    where, token = address
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    page = context.new_page()
    page.goto(f"{where.removesuffix('/formgrader')}/login?token={token}")  # it gives the cookie
    page.goto(f"{where}/manage_submissions/{NAME}")
    yield page
    context.close()


def test_formgrader_lists_the_marks_and_takes_one_by_hand(
    page: Page, course: tuple[Path, str], address: tuple[str, str]
) -> None:
    folder, url = course
    highest = catalogue.exercise(NAME).points
    row = page.locator("tr", has_text="anna")
    expect(row).to_contain_text(f"{highest:g}", timeout=30_000)
    expect(row).to_contain_text("needs manual grading")
    expect(page.locator("tr", has_text="ben")).to_contain_text("0 /")

    with contextlib.closing(Gradebook(url)) as book:
        submission = book.find_submission_notebook(NAME, NAME, "anna").id
    page.goto(f"{address[0]}/submissions/{submission}/")
    box = page.locator(f"input.score[id='{TEXT}']")
    expect(box).to_have_count(1, timeout=30_000)
    expect(page.locator("body")).to_contain_text("passed")
    box.fill("1.5")
    with page.expect_response(lambda one: one.request.method == "PUT") as saved:
        box.press("Tab")
    assert saved.value.ok

    gradebook.export(folder / "marks", url, COURSE)  # brought once more: what a person gave stays
    with contextlib.closing(Gradebook(url)) as book:
        assert book.find_grade(TEXT, NAME, NAME, "anna").manual_score == 1.5
        assert book.find_submission(NAME, "anna").score == highest + 1.5
