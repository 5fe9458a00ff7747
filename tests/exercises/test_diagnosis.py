"""The judge gives a verdict whatever comes back from a stranger's process, and soon."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fewshot_lib.exercises import catalogue
from fewshot_lib.exercises.diagnosis import FAILED, judge, sheet
from fewshot_lib.exercises.running import RAISED, VALUE, Outcome
from fewshot_lib.exercises.spec import Answer, Exercise
from fewshot_lib.exercises.values import Opaque

ANSWERS = [
    pytest.param(exercise, answer, id=f"{exercise.stem}-{answer.name}")
    for exercise in map(catalogue.exercise, catalogue.names())
    for answer in exercise.answers
]
SECONDS = 20.0  # generous: the slowest takes a tenth of it here

Change = Callable[[np.ndarray], Any]


def in_arrays(change: Change) -> Callable[[Any], Any]:
    """Change every array and number of a plain value, keep its build."""

    def walk(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return change(value)
        if isinstance(value, int | float | str | Opaque) or value is None:
            return change(np.asarray(0.0)).item()
        if isinstance(value, dict):
            return {key: walk(part) for key, part in value.items()}
        return type(value)(walk(part) for part in value)

    return walk


def filled(number: float) -> Change:
    """Fill with a number, as far as the kind of array can hold it."""

    def change(array: np.ndarray) -> np.ndarray:
        if array.dtype.kind in "fc":
            return np.full_like(array, number)
        lowest, highest = (0, 1) if array.dtype.kind == "b" else _range(array.dtype)
        clipped = 0 if number != number else int(min(max(number, lowest), highest))
        return np.full(array.shape, clipped, dtype=array.dtype)

    return change


def _range(dtype: np.dtype) -> tuple[float, float]:
    # the largest float below 2**63, so that it can be cast back
    return float(np.iinfo(dtype).min), float(np.nextafter(float(np.iinfo(dtype).max), 0.0))


STRANGE: dict[str, Callable[[Any], Any]] = {
    "NaN": in_arrays(filled(float("nan"))),
    "infinite": in_arrays(filled(float("inf"))),
    "minus infinite": in_arrays(filled(float("-inf"))),
    "negative": in_arrays(filled(-1.0)),
    "zero": in_arrays(filled(0.0)),
    "nothing": lambda value: None,
    "a text": lambda value: "text",
    "an object": lambda value: Opaque("thing"),
    "a dict": lambda value: {"a": value, "": [value]},
    "an empty list": lambda value: [],
    "nested": lambda value: [[[[value]]], (), {}],
    "of no elements": lambda value: np.zeros((0, 3, 0), dtype=np.float32),
    "many numbers": lambda value: np.zeros(200_000, dtype=np.int64),
    "a table of many numbers": lambda value: np.arange(160_000).reshape(400, 400),
    "parts of many numbers": lambda value: (np.arange(100_000), np.arange(100_000) % 7, [0, 1]),
    "a list of many numbers": lambda value: [0.0] * 2_000,
}


@pytest.mark.parametrize(("exercise", "answer"), ANSWERS)
def test_whatever_comes_back_gets_a_verdict_and_no_full_marks(
    exercise: Exercise, answer: Answer
) -> None:
    seed = 5
    right = [outcome for group in sheet(answer, seed).expected for outcome in group]
    for name, change in STRANGE.items():
        outcomes = [
            Outcome(VALUE, change(one.value if one.status == VALUE else 0.0)) for one in right
        ]
        begun = time.perf_counter()
        verdict = judge(exercise, answer, outcomes, seed)
        assert time.perf_counter() - begun < SECONDS, name
        assert verdict.points < verdict.max_points, name


@pytest.mark.parametrize(("exercise", "answer"), ANSWERS)
def test_an_error_without_a_name_is_a_wrong_answer(exercise: Exercise, answer: Answer) -> None:
    outcomes = [Outcome(RAISED, error=(), message="") for _ in sheet(answer, 5).flat]
    verdict = judge(exercise, answer, outcomes, 5)
    assert {check.status for check in verdict.checks} == {FAILED}
