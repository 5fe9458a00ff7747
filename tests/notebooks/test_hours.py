"""The hours that README, notebook 00 and the book name are the sums of stated minutes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from saved import LESSONS, ROOT, code_cells, opening, prose

from fewshot_lib.checker import catalogue
from fewshot_lib.tools.install_cell import INSTALL
from fewshot_lib.tools.notebooks import CHECK


def reader_minutes(text: str) -> int:
    """Read the reader's minutes from a lesson's opening: "Reader: about 70 minutes."."""
    stated = re.search(r"^Reader: about (\d+) minutes", text, re.M)
    assert stated, f"no line «Reader: about … minutes» in {text[:80]!r}"
    return int(stated[1])


def hours(minutes: int) -> str:
    """Write minutes as hours, to the half."""
    return f"{round(minutes / 30) / 2:g}"


def told() -> str:
    """Write the sentence that both texts hold."""
    lessons = sum(reader_minutes(opening(path)) for path in LESSONS)
    answers = [
        one for exercise in catalogue.exercises() for one in (*exercise.answers, *exercise.prose)
    ]
    return (
        f"The notebooks take about {hours(lessons)} hours, "
        f"and the exercises about {hours(sum(one.minutes for one in answers))} hours more."
    )


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", LESSONS[0], ROOT / "fewshot_lib/tools/book/pages/index.md"],
    ids=lambda path: path.name,
)
def test_the_hours_of_the_course_are_the_sum_of_its_minutes(path: Path) -> None:
    notebook = path.suffix == ".ipynb"
    text = "\n\n".join(prose(path)) if notebook else path.read_text(encoding="utf-8")
    assert told() in text, f"{path.name} should say: {told()}"


def estimate(path: Path) -> float:
    """Estimate a reader's minutes: words / 150, code lines / 12, one for each thing to do."""
    text = "\n".join(prose(path))
    unread = {CHECK, INSTALL}  # folded
    code = [c.source for c in code_cells(path) if not unread & set(c.metadata.get("tags", []))]
    lines = sum(bool(line.strip()) for source in code for line in source.split("\n"))
    predictions = text.count("**Predict")
    called = r"^\s*(?:predict|question|show|explore)\("
    things = predictions + sum(len(re.findall(called, source, re.M)) for source in code)
    return len(text.split()) / 150 + lines / 12 + things


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_stated_minutes_of_a_lesson_are_the_estimate_to_a_tenth(path: Path) -> None:
    stated = reader_minutes(opening(path))
    assert stated <= 90
    assert stated == pytest.approx(estimate(path), rel=0.1)
