"""Unusual but right notebooks have their points, and ``grade`` and ``check`` give the same ones.

``shapes.py`` holds the notebooks. Each is tried with one exercise, in turn; with ``FEWSHOT_ALL=1``
each with every exercise that it suits. Both commands run the same code; here it is called as they
call it, the check's side in warm processes without a sandbox, since a Python start per notebook
would take minutes. Some go through the commands themselves, and some through Jupyter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import pytest
from book import STEMS, Book
from handed_in import COURSE
from shapes import SHAPES, Shape

from fewshot_lib.checker.cells import PUBLIC_SEED
from fewshot_lib.checker.judge import expected_results
from fewshot_lib.grader.attempt import Attempt, prepare
from fewshot_lib.grader.marks import by_answer
from fewshot_lib.grader.plan import Plan, imports_of, plan
from fewshot_lib.grader.pool import WARM_IMPORTS, Pool
from fewshot_lib.grader.reader import Reader
from fewshot_lib.grader.runners import SandboxPool, Setting
from fewshot_lib.grader.sandbox import SandboxLimits
from fewshot_lib.grader.submissions import InMemory, Submission

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(1200)]

ALL = os.environ.get("FEWSHOT_ALL", "0") != "0"
USUAL = SandboxLimits(wall_seconds=60, answer_seconds=20)
QUICK = SandboxLimits(wall_seconds=8, answer_seconds=2)
#: One exercise per shape, in turn; 08 takes ten times as long as the others and comes less often.
ROTATION = [
    "03_prototypes" if stem.startswith("08") and number else stem
    for number in range(3)
    for stem in STEMS
]


@dataclass(frozen=True)
class Tried:
    """A shape of one exercise."""

    shape: Shape
    stem: str

    @property
    def name(self) -> str:
        """What the test is called."""
        return f"{self.shape.name}-{self.stem[:2]}"

    def book(self) -> Book:
        """Make the notebook."""
        book = Book(self.stem)
        self.shape.change(book)
        return book

    def expected(self) -> dict[str, float]:
        """Give the points that each answer must have."""
        exercise = _plan(self.stem).exercise
        lost = {exercise.answers[place].name for place in self.shape.loses}
        return {one.name: 0.0 if one.name in lost else one.points for one in exercise.answers}


def tried() -> list[Tried]:
    """Choose the exercises of each shape."""
    chosen = []
    for number, shape in enumerate(SHAPES.values()):
        stems = [shape.only] if shape.only else STEMS if ALL else [ROTATION[number % len(ROTATION)]]
        chosen += [Tried(shape, stem) for stem in stems]
    return chosen


TRIED = tried()


@cache
def _plan(stem: str) -> Plan:
    return plan(stem, COURSE)


def _groups() -> dict[tuple[str, bool], list[Tried]]:
    groups: dict[tuple[str, bool], list[Tried]] = {}
    for one in TRIED:
        groups.setdefault((one.stem, one.shape.quick), []).append(one)
    return groups


def _points(row: Mapping[str, object]) -> dict[str, float]:
    return {answer: points for answer, (points, _) in by_answer(row["checks"]).items()}


@pytest.fixture(scope="module")
def graded() -> dict[str, dict]:
    """Grade every shape in the sandbox; rows by name."""
    rows = {}
    for (stem, quick), group in _groups().items():
        submissions = [Submission(o.name, stem, "", InMemory(o.book().data())) for o in group]
        with Pool(_plan(stem), 2, "bubblewrap", QUICK if quick else USUAL) as pool:
            rows |= {row["student"]: row for row in pool.grade(submissions, 3)}
    return rows


@pytest.fixture(scope="module")
def checked() -> dict[str, dict[str, float]]:
    """Check every shape as ``fewshot check`` does; points by answer, by name."""
    found = {}
    for (stem, quick), group in _groups().items():
        limits = QUICK if quick else USUAL
        one_plan = _plan(stem)
        imports = (*WARM_IMPORTS, *imports_of(one_plan.built))
        place = SandboxPool(Setting(stem, imports, "none", limits))
        try:
            with Reader() as reader:
                for one in group:
                    held = Submission(one.name, stem, "", InMemory(one.book().data()))
                    prepared = prepare(one_plan, held, 0, reader, limits.wall_seconds)
                    calls = [
                        replace(
                            asked, cases=expected_results(one_plan.exercise[asked.answer], 0).flat
                        )
                        for asked in prepared.calls
                    ]
                    prepared = replace(prepared, seed=PUBLIC_SEED, calls=calls)
                    attempt = Attempt(one_plan, prepared)
                    attempt.record(place.run(attempt.job))
                    while attempt.next_run():
                        attempt.record(place.run(attempt.job))
                    found[one.name] = {k: v.points for k, v in attempt.verdicts.items()}
        finally:
            place.close()
    return found


def test_there_are_many_shapes_and_each_exercise_has_some():
    assert len(SHAPES) >= 60
    assert {one.stem for one in TRIED} == set(STEMS)


@pytest.mark.parametrize("one", TRIED, ids=lambda one: one.name)
def test_a_right_notebook_of_this_shape_has_its_points(graded, one):
    row = graded[one.name]
    assert row["status"] == "graded", (row["status"], row["notes"])
    assert _points(row) == one.expected(), (row["notes"], row["said"])


@pytest.mark.parametrize("one", TRIED, ids=lambda one: one.name)
def test_check_gives_what_grade_gives(graded, checked, one):
    assert checked[one.name] == _points(graded[one.name]), graded[one.name]["notes"]


@pytest.mark.parametrize("one", [one for one in TRIED if one.shape.says], ids=lambda one: one.name)
def test_what_is_not_there_while_grading_is_said_in_a_sentence(graded, one):
    said = graded[one.name]["look_at"]
    assert any(re.search(one.shape.says, line) for line in said), said
