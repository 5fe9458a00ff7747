"""The hours that the README and notebook 00 name are the sums of the minutes stated elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from saved import LESSONS, ROOT, opening, prose

from fewshot_lib.checker import catalogue


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


@pytest.mark.parametrize("path", [ROOT / "README.md", LESSONS[0]], ids=lambda path: path.name)
def test_the_hours_of_the_course_are_the_sum_of_its_minutes(path: Path) -> None:
    notebook = path.suffix == ".ipynb"
    text = "\n\n".join(prose(path)) if notebook else path.read_text(encoding="utf-8")
    assert told() in text, f"{path.name} should say: {told()}"


def test_minutes_are_read_from_the_opening() -> None:
    assert reader_minutes("# A\n\nReader: about 70 minutes, and 90 more.  \nMachine: 5 s.") == 70
    assert [hours(60), hours(100), hours(690)] == ["1", "1.5", "11.5"]
