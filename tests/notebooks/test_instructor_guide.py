"""The instructor's guide says what the exercises say: names, minutes, points, rubrics."""

from __future__ import annotations

import json
import re
from functools import cache

import pytest
from saved import COURSE, LESSONS, ROOT, number_of

from fewshot_lib.checker import catalogue

GUIDE = ROOT / "notebooks" / "instructor-guide.md"
HOURS = (4, 8, 12)
PLANNED = [name.partition("_")[0] for name in COURSE]


@cache
def sessions() -> dict[str, str]:
    """Give the text of each session, by its number: "04", "04b"."""
    parts = re.split(r"^### (\d\d[a-z]?) · .*$", GUIDE.read_text(encoding="utf-8"), flags=re.M)
    texts = (part.partition("\n## ")[0] for part in parts[2::2])
    return dict(zip(parts[1::2], texts, strict=True))


def session(exercise) -> str:
    """Give the text of the session that has an exercise, and of its second part, if it has one."""
    own = f"{exercise.number:02}"
    return "\n\n".join(text for name, text in sessions().items() if name.startswith(own))


every_exercise = pytest.mark.parametrize(
    "exercise", catalogue.exercises(), ids=lambda exercise: exercise.stem
)


def test_every_lesson_has_a_session_with_what_a_teacher_needs() -> None:
    assert list(sessions()) == [number_of(path) for path in LESSONS]
    for name, text in sessions().items():
        for part in ("**Ask.**", "**Where people get stuck.**", "**Assign.**"):
            assert part in text, f"session {name} has no {part}"


@pytest.mark.parametrize("column", range(3), ids=[f"{h} hours" for h in HOURS])
def test_the_minutes_of_a_course_add_up(column: int) -> None:
    rows = re.findall(
        r"^\| (\d\d[a-z]?|together)[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|",
        GUIDE.read_text("utf-8"),
        re.M,
    )
    minutes = {row[0]: int((re.findall(r"\d+", row[1 + column]) or [0])[0]) for row in rows}
    together = minutes.pop("together")
    assert list(minutes) == PLANNED
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
    place = f"{GUIDE.name}, session {exercise.number:02}"
    assert told in session(exercise), f"{place}, should say: {told}"


@every_exercise
def test_the_table_of_an_exercise_has_a_row_for_each_answer_as_specified(exercise) -> None:
    cells = json.loads((ROOT / "solutions" / f"{exercise.stem}.ipynb").read_text("utf-8"))["cells"]
    row = r"^\|(.*)\| ([●○]{5}) \| ([●○]{5}) \| (\d+) \| ([\d.]+)(, by rubric)? \|$"
    rows = re.findall(row, "".join(cells[0]["source"]), re.M)
    told = {name[0]: tuple(rest) for what, *rest in rows if (name := re.findall("`(.+?)`", what))}
    dots = ["○" * 5] + ["●" * n + "○" * (5 - n) for n in range(1, 6)]
    assert told == {
        one.name: (
            dots[one.difficulty], dots[one.importance], str(one.minutes), f"{one.points:g}", "",
        )
        for one in exercise.answers
    }  # fmt: skip
    texts = [(int(minutes), float(points)) for *_, minutes, points, rubric in rows if rubric]
    assert texts == [(one.minutes, one.points) for one in exercise.prose]


@every_exercise
def test_every_mistake_quoted_is_one_that_the_checks_know(exercise) -> None:
    known = {mistake.name for answer in exercise.answers for mistake in answer.mistakes}
    text = re.sub(r"^- .*$", "", session(exercise), flags=re.M)  # rubrics quote, too
    quoted = set(re.findall(r"«([^»]+)»", text))
    assert len(quoted) >= 4
    assert quoted - known == set()


@every_exercise
def test_every_answer_and_text_assigned_exists(exercise) -> None:
    assigned = re.findall(r"^\*\*Assign\.\*\*.*$", session(exercise), re.M)
    names = {one.name for one in (*exercise.answers, *exercise.prose)}
    quoted = set(re.findall(r"`([a-z_0-9]+)`", " ".join(assigned)))
    assert quoted
    assert quoted <= names


@every_exercise
def test_every_rubric_stands_in_the_guide_word_for_word(exercise) -> None:
    text = session(exercise)
    for one in exercise.prose:
        rubric = "\n".join(f"- {line}" for line in one.rubric)
        missing = (
            f"session {exercise.number:02} lacks the rubric of {one.name} ({one.points:g} points)"
        )
        assert f"Rubric of `{one.name}` ({one.points:g} points;" in text, missing
        assert rubric in text, missing


def test_the_memory_of_a_hub_is_what_the_benchmarks_hold_the_notebooks_to() -> None:
    text = (ROOT / "tests" / "benchmarks" / "bench_notebooks.py").read_text("utf-8")
    held = re.search(r"^MOST_MEGABYTES = (\d+)", text, re.M)
    set_to = re.search(r"limits\.memory (\d+)G", GUIDE.read_text(encoding="utf-8"))
    assert held
    assert set_to
    assert int(set_to[1]) * 1000 == int(held[1])
