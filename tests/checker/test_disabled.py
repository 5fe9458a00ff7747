"""What the student package lacks is disabled by ``check`` in the notebook, too, and only then."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from proof import namespace

import fewshot_lib
from fewshot_lib import prototypes
from fewshot_lib.checker import catalogue, strip
from fewshot_lib.checker.cells import StandIn, examine
from fewshot_lib.checker.disabled import disabled
from fewshot_lib.checker.notebook import read
from fewshot_lib.episodes import EpisodeSampler
from fewshot_lib.grader.student_package import build_student_package

EXERCISE = catalogue.exercise("prototypes")
POINTS = (torch.zeros(1, 2), torch.ones(1, 2))


def posterior_by(distance):
    def log_posterior(queries, prototypes, scale=1.0):
        return torch.log_softmax(-scale * distance(queries, prototypes), dim=-1)

    return log_posterior


@pytest.mark.parametrize("name", ["squared_euclidean", "_distances"])
def test_an_answer_that_calls_what_is_asked_for_gets_no_points(name):
    answer = posterior_by(getattr(prototypes, name))
    verdict, _ = examine(EXERCISE, EXERCISE["log_posterior"], answer)
    assert verdict.points == 0
    assert "is what this exercise asks for, so it is disabled" in verdict.checks[0].sentence


def test_what_stands_in_for_an_answer_may_be_called():
    answer = posterior_by(StandIn("squared_euclidean", prototypes.squared_euclidean))
    verdict, _ = examine(EXERCISE, EXERCISE["log_posterior"], answer)
    assert verdict.points == verdict.max_points


def test_everything_works_again_afterwards_whatever_happens():
    said = r"prototypes\.squared_euclidean is what this"
    with disabled(EXERCISE):
        with pytest.raises(RuntimeError, match=said), disabled(EXERCISE):
            prototypes.squared_euclidean(*POINTS)
        with pytest.raises(RuntimeError, match=said):
            prototypes.squared_euclidean(*POINTS)
    torch.testing.assert_close(prototypes.squared_euclidean(*POINTS), torch.tensor([[2.0]]))
    assert "queries" in inspect.signature(prototypes.squared_euclidean).parameters


def test_methods_and_functions_with_free_names_are_disabled():
    with disabled(catalogue.exercise("episodes")), pytest.raises(RuntimeError, match="disabled"):
        EpisodeSampler()


@pytest.mark.parametrize("name", catalogue.names())
def test_check_disables_what_the_student_package_lacks(name, tmp_path):
    exercise = catalogue.exercise(name)
    names = {name for answer in exercise.answers for name in answer.strip}
    package = build_student_package(exercise, tmp_path) / "fewshot_lib"
    stripped = strip.stripped(Path(fewshot_lib.__file__).parent, names)
    found = {
        place
        for place in stripped
        if strip.MESSAGE.format(".".join(place))
        in (package / f"{place[0].replace('.', '/')}.py").read_text(encoding="utf-8")
    }
    assert found == stripped


@pytest.mark.parametrize("name", catalogue.names())
def test_every_solution_has_full_marks_while_that_is_disabled(root, name):
    exercise = catalogue.exercise(name)
    answers = namespace(read(root / "solutions" / f"{exercise.stem}.ipynb"))
    for answer in exercise.answers:
        verdict, _ = examine(exercise, answer, answers[answer.name])
        assert verdict.points == verdict.max_points, answer.name
