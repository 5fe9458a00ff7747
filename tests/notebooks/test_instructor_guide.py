"""The instructor's guide says what the exercises say: names, minutes, points, rubrics."""

from __future__ import annotations

import json
import re
from functools import cache

import pytest
from saved import ROOT

from fewshot_lib.checker import catalogue

GUIDE = ROOT / "notebooks" / "instructor-guide.md"
HOURS = (4, 8, 12)


@cache
def sessions() -> dict[int, str]:
    """Give the text of each session, by its number."""
    parts = re.split(r"^### (\d\d) · .*$", GUIDE.read_text(encoding="utf-8"), flags=re.M)
    texts = (part.partition("\n## ")[0] for part in parts[2::2])
    return dict(zip(map(int, parts[1::2]), texts, strict=True))


every_exercise = pytest.mark.parametrize(
    "exercise", catalogue.exercises(), ids=lambda exercise: exercise.stem
)


def test_every_lesson_has_a_session_with_what_a_teacher_needs() -> None:
    assert sorted(sessions()) == list(range(11))
    for number, text in sessions().items():
        for part in ("**Ask.**", "**Where people get stuck.**", "**Assign.**"):
            assert part in text, f"session {number:02} has no {part}"


@pytest.mark.parametrize("column", range(3), ids=[f"{h} hours" for h in HOURS])
def test_the_minutes_of_a_course_add_up(column: int) -> None:
    rows = re.findall(
        r"^\| (\d\d|together)[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|", GUIDE.read_text("utf-8"), re.M
    )
    minutes = {row[0]: int((re.findall(r"\d+", row[1 + column]) or [0])[0]) for row in rows}
    together = minutes.pop("together")
    assert len(minutes) == 10  # notebook 10 is optional and in no plan
    assert sum(minutes.values()) == together == 60 * HOURS[column]


@every_exercise
def test_minutes_and_points_are_those_of_the_exercise(exercise) -> None:
    code = sum(answer.minutes for answer in exercise.answers)
    text = sum(one.minutes for one in exercise.prose)
    link = f"[exercise {exercise.number:02}](../exercises/{exercise.stem}.ipynb)"
    told = f"{link}: {code} minutes of code"
    told += f" and {text} of writing" if text else ""
    told += f", {exercise.points:g} points by program"
    if exercise.prose:
        told += f" and {sum(one.points for one in exercise.prose):g} by rubric"
    assert told in sessions()[exercise.number], f"the guide's session should say: {told}"
    cells = json.loads((ROOT / "solutions" / f"{exercise.stem}.ipynb").read_text("utf-8"))["cells"]
    table = "".join(cells[0]["source"])
    rows = re.findall(r"\| (\d+) \| [\d.]+(, by rubric)? \|$", table, re.M)
    assert sum(int(minutes) for minutes, by_rubric in rows if not by_rubric) == code
    assert sum(int(minutes) for minutes, by_rubric in rows if by_rubric) == text


@every_exercise
def test_every_mistake_quoted_is_one_that_the_checks_know(exercise) -> None:
    known = {mistake.name for answer in exercise.answers for mistake in answer.mistakes}
    text = re.sub(r"^- .*$", "", sessions()[exercise.number], flags=re.M)  # rubrics quote, too
    quoted = set(re.findall(r"«([^»]+)»", text))
    assert len(quoted) >= 4
    assert quoted - known == set()


@every_exercise
def test_every_answer_and_text_assigned_exists(exercise) -> None:
    _, _, assigned = sessions()[exercise.number].partition("**Assign.**")
    names = {one.name for one in (*exercise.answers, *exercise.prose)}
    quoted = set(re.findall(r"`([a-z_0-9]+)`", assigned))
    assert quoted
    assert quoted <= names


@every_exercise
def test_every_rubric_stands_in_the_guide_word_for_word(exercise) -> None:
    text = sessions()[exercise.number]
    for one in exercise.prose:
        rubric = "\n".join(f"- {line}" for line in one.rubric)
        missing = (
            f"session {exercise.number:02} lacks the rubric of {one.name} ({one.points:g} points)"
        )
        assert f"Rubric of `{one.name}` ({one.points:g} points;" in text, missing
        assert rubric in text, missing
