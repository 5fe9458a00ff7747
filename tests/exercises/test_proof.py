"""Every exercise's checks are themselves checked; a new exercise is found and proved by itself."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

import proof
import pytest

from fewshot_lib.checker import catalogue
from fewshot_lib.checker.notebook import answer_cells, read

SOLUTIONS = Path(__file__).resolve().parents[2] / "solutions"
EVERY = [(exercise, answer) for exercise in catalogue.exercises() for answer in exercise.answers]
IDS = [f"{exercise.stem}.{answer.name}" for exercise, answer in EVERY]
FRESH = range(1, 201)

each_answer = pytest.mark.parametrize(("exercise", "answer"), EVERY, ids=IDS)


@cache
def notebook(stem: str):
    return read(SOLUTIONS / f"{stem}.ipynb")


@pytest.fixture
def entry(proofs, exercise, answer):
    if answer.name not in answer_cells(notebook(exercise.stem)):
        pytest.fail(f"no cell has {answer.name} yet: run fewshot build {exercise.name}", False)
    found = proofs.setdefault(
        f"{exercise.stem}.{answer.name}",
        proof.Proof(
            exercise.stem,
            answer.name,
            answer.points,
            equivalent=len(proof.equivalent(exercise, answer)),
        ),
    )
    begun = time.perf_counter()
    yield found
    found.seconds += time.perf_counter() - begun


@each_answer
def test_an_answer_has_enough_mistakes_variants_and_hints(exercise, answer, entry):
    assert not proof.prove_form(exercise, answer)


@each_answer
def test_the_stub_has_no_points_and_is_not_attempted(exercise, answer, entry):
    function = proof.stub_function(notebook(exercise.stem), answer)
    assert not proof.prove_stub(exercise, answer, function)


@each_answer
def test_the_solution_has_full_marks_for_200_fresh_seeds(exercise, answer, entry):
    function = proof.solution_function(notebook(exercise.stem), answer)
    assert not proof.prove_seeds(exercise, answer, function, [0, *FRESH])


@each_answer
def test_every_typical_mistake_loses_points_and_is_told_its_own_sentence(exercise, answer, entry):
    found = [proof.prove_mistakes(exercise, answer, seed) for seed in range(4)]
    entry.mistakes = len(answer.mistakes) - len(found[0]), len(answer.mistakes)
    assert not any(found), found


@each_answer
def test_right_variants_get_full_marks(exercise, answer, entry):
    function = proof.solution_function(notebook(exercise.stem), answer)
    problems = []
    for seed in (0, 1):
        total, lost = proof.prove_variants(exercise, answer, function, seed)
        entry.variants = total - len(lost), total
        problems += lost
    assert not problems


@each_answer
def test_mutants_of_the_solution_lose_points(exercise, answer, entry):
    found = proof.prove_mutants(exercise, answer, notebook(exercise.stem))
    entry.mutants, entry.survivors = (found.killed, found.total), found.survivors
    assert not found.stale, "these are argued equivalent but do not exist or are killed"
    assert found.killed >= 0.95 * found.total, found.survivors
    assert not proof.prove_every_check_can_fail(exercise, answer, found.killers)


@each_answer
def test_the_same_seed_gives_the_same_verdict(exercise, answer, entry):
    wrong = answer.mistakes[0].function
    once = proof.verdict_of(exercise, answer, wrong, 5)
    again = proof.verdict_of(exercise, answer, wrong, 5)
    assert (once, once.points) == (again, again.points)


def test_every_exercise_has_points_and_its_own_number():
    every = catalogue.exercises()
    assert len({exercise.number for exercise in every}) == len(every)
    assert all(exercise.points > 0 or exercise.prose for exercise in every)
