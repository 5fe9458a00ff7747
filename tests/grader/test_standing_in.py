"""A wrong answer does not cost the answers that call it, and what stands in wins nothing."""

from __future__ import annotations

import ast
import json
from itertools import combinations

import pytest
from handed_in import COURSE, SOLUTION, rows_of
from proof import namespace

from fewshot_lib.checker import catalogue
from fewshot_lib.checker.judge import PASSED, expected_results, judge
from fewshot_lib.checker.notebook import answer_cells, read
from fewshot_lib.checker.run import run
from fewshot_lib.grader import student
from fewshot_lib.grader.plan import plan

each_exercise = pytest.mark.parametrize(
    "exercise", [one for one in catalogue.exercises() if one.answers], ids=lambda one: one.name
)


@pytest.fixture(scope="module")
def graded(marked):
    return {row["student"]: row for row in rows_of(marked[0] / "marks")}


def points(row: dict, answer: str) -> tuple[float, float]:
    lines = [check for check in row["checks"] if check["answer"] == answer]
    return sum(c["points"] for c in lines), sum(c["max_points"] for c in lines)


@pytest.mark.hostile
@pytest.mark.parametrize(
    "student", ["wrong, then right", "unwritten, then right", "wrong, and both in one cell"]
)
def test_a_right_answer_that_calls_a_wrong_one_has_all_its_points(graded, student):
    row = graded[student]
    got, highest = points(row, "log_posterior")
    assert got == highest
    assert points(row, "squared_euclidean")[0] < points(row, "squared_euclidean")[1]
    assert any("the course's own squared_euclidean" in note for note in row["notes"])


@pytest.mark.hostile
def test_what_stands_in_does_not_make_a_wrong_answer_right(graded):
    row = graded["wrong, then wrong"]
    got, highest = points(row, "log_posterior")
    assert got < highest
    mistakes = {c["mistake"] for c in row["checks"] if c["answer"] == "log_posterior"}
    assert "plus the distance" in mistakes  # named, which beside a wrong distance it cannot be


@pytest.mark.hostile
def test_two_answers_that_are_right_only_together_keep_what_they_have_as_written(graded):
    row = graded["right together only"]
    got, highest = points(row, "log_posterior")
    assert got == highest
    assert not any("the course's own" in note for note in row["notes"])


@pytest.mark.hostile
def test_what_stands_in_wins_nothing_for_its_own_answer(graded):
    thief, honest = graded["thief"], graded["wrong, then right"]
    for name in ("thief", "forger"):
        stolen, _ = points(graded[name], "squared_euclidean")
        assert stolen <= points(honest, "squared_euclidean")[0], name
    before, highest = points(honest, "log_posterior")
    assert points(thief, "log_posterior")[0] == before == highest  # its second run counted
    shown = json.dumps(thief)
    for line in map(str.strip, answer_cells(SOLUTION)["squared_euclidean"].splitlines()):
        if line.startswith(("difference", "return")):  # which no stub has
            assert line not in shown, "the course's source was shown"


@each_exercise
def test_no_answer_is_given_away_by_one_that_may_stand_in_for_it(exercise):
    """Whatever stands in is called in place of the later answer, as it is: never all points."""
    notebook = read(COURSE / "solutions" / f"{exercise.stem}.ipynb")
    names = namespace(notebook)
    given_away = []
    for earlier, later in combinations(exercise.answers, 2):
        outcomes = run(names[earlier.name], expected_results(later, 11).flat, seconds=20)
        if judge(exercise, later, outcomes, 11).status == PASSED:
            given_away.append((earlier.name, later.name))
    assert given_away == []


@each_exercise
def test_a_cell_that_stands_in_binds_its_answers_name_and_no_other(exercise):
    notebook = read(COURSE / "solutions" / f"{exercise.stem}.ipynb")
    for name, source in answer_cells(notebook).items():
        assert [getattr(node, "name", "") for node in ast.parse(source).body] == [name]


@pytest.mark.parametrize("exercise", catalogue.exercises(), ids=lambda one: one.name)
def test_what_stands_in_can_be_made_beside_nothing_but_what_was_handed_out(exercise):
    one_plan = plan(exercise.stem, COURSE)
    names = [answer.name for answer in exercise.answers]
    wanted = {"names": names, "sources": [*one_plan.definitions, *map(one_plan.own.get, names)]}
    assert list(student._stand_ins(wanted)) == names
