"""The judge gives a verdict whatever comes back from a stranger's process, and soon."""

from __future__ import annotations

import dataclasses
import itertools
import resource
import time
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fewshot_lib.checker import catalogue
from fewshot_lib.checker import judge as diagnosis
from fewshot_lib.checker.compare import KIND
from fewshot_lib.checker.judge import ERROR, FAILED, LAW, PASSED, TIME, expected_results, judge
from fewshot_lib.checker.run import LOST, RAISED, TOO_SLOW, VALUE, Outcome, run, time_limit
from fewshot_lib.checker.spec import Answer, Exercise
from fewshot_lib.checker.values import Opaque, pack, unpack

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
    right = [outcome for group in expected_results(answer, seed).expected for outcome in group]
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
    outcomes = [Outcome(RAISED, error=(), message="") for _ in expected_results(answer, 5).flat]
    verdict = judge(exercise, answer, outcomes, 5)
    assert {check.status for check in verdict.checks} == {FAILED}


def as_mapping(make: Callable[[tuple[str, ...], list[Any]], Any]) -> Callable[..., Any]:
    def change(value: Any, names: tuple[str, ...]) -> Any:
        return make(names, list(value)) if isinstance(value, tuple) and names else value

    return change


def in_parts(change: Callable[[torch.Tensor], Any]) -> Callable[..., Any]:
    """Change each tensor of a result, keep its build."""

    def walk(value: Any, names: tuple[str, ...]) -> Any:
        if isinstance(value, tuple):
            return tuple(walk(part, names) for part in value)
        return change(torch.as_tensor(value)) if not isinstance(value, str) else value

    return walk


def stacked(value: Any, names: tuple[str, ...], stack: Callable[..., Any] = torch.stack) -> Any:
    if not isinstance(value, tuple):
        return value
    parts = [torch.as_tensor(part) for part in value]
    alike = len({(part.shape, part.dtype) for part in parts}) == 1
    return stack(parts) if alike else value


def scalar(number: torch.Tensor) -> Any:
    """Give one number as NumPy's scalar, real ones in the type in which little fits."""
    array = number.numpy()
    return array.astype(np.float32)[()] if array.dtype.kind == "f" else array[()]


#: What people really return, made of what the reference returns.
FORMS: dict[str, Callable[..., Any]] = {
    "a list of its parts": lambda value, names: list(value) if isinstance(value, tuple) else value,
    "a dict": as_mapping(lambda names, parts: dict(zip(names, parts, strict=True))),
    "a dict in another order": as_mapping(
        lambda names, parts: dict(reversed(list(zip(names, parts, strict=True))))
    ),
    "a named tuple": as_mapping(lambda names, parts: namedtuple("Result", names)(*parts)),
    "a data class": as_mapping(
        lambda names, parts: dataclasses.make_dataclass("Result", names)(*parts)
    ),
    "stacked": stacked,
    "stacked by NumPy": lambda value, names: stacked(value, names, lambda p: np.stack(p)),
    "NumPy arrays": in_parts(lambda tensor: tensor.numpy()),
    "NumPy's scalars": in_parts(lambda t: t if t.ndim else scalar(t)),
    "numbers as tensors": in_parts(lambda tensor: tensor),
    "Python's numbers": in_parts(lambda tensor: tensor.tolist()),
    "lists of rows": in_parts(lambda tensor: list(tensor) if tensor.ndim else tensor),
    "tuples of NumPy's scalars": in_parts(
        lambda t: tuple(map(scalar, t)) if t.ndim == 1 else t.numpy()
    ),
    "Fortran's order": in_parts(lambda tensor: np.array(tensor.numpy(), order="F")),
    "big-endian": in_parts(lambda t: t.numpy().astype(t.numpy().dtype.newbyteorder(">"))),
}


@pytest.mark.parametrize(("exercise", "answer"), ANSWERS)
def test_the_right_result_counts_in_every_form_and_on_both_sides_of_the_wire(
    exercise: Exercise, answer: Answer
) -> None:
    for name, form in FORMS.items():

        def function(*args: Any, form: Any = form, **kwargs: Any) -> Any:
            return form(answer.reference(*args, **kwargs), tuple(answer.returns))

        outcomes = run(function, expected_results(answer, 4).flat, seconds=60.0)
        sent = unpack(pack([outcome.as_dict() for outcome in outcomes]))
        for came in (outcomes, [Outcome.from_dict(part) for part in sent]):
            verdict = judge(exercise, answer, came, 4)
            assert verdict.status == PASSED, (name, [line.sentence for line in verdict.checks])


def exercise_with_parts() -> tuple[Exercise, Answer]:
    exercise = catalogue.exercise("dice")
    return exercise, exercise["bootstrap_interval"]


def judged(exercise: Exercise, answer: Answer, value: Any, seed: int = 5) -> diagnosis.Verdict:
    return judge(
        exercise, answer, [Outcome(VALUE, value) for _ in expected_results(answer, seed).flat], seed
    )


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "you returned nothing (None); 2 things (low, high) are expected: is a `return`"),
        ({"lower": 1.0, "upper": 2.0}, "a dict with lower, upper; 2 things (low, high)"),
        (np.zeros(3), "an array of shape (3,), float64; 2 things (low, high)"),
        ((1.0,), "a tuple of 1; 2 things (low, high)"),
    ],
)
def test_another_build_is_told_what_is_expected(value: Any, says: str) -> None:
    verdict = judged(*exercise_with_parts(), value)
    assert verdict.points == 0
    assert all(line.stage == KIND and says in line.sentence for line in verdict.checks)


LARGE: dict[str, Any] = {
    "rows": np.broadcast_to(np.int8(1), (20_000_000, 3)),
    "a text": "x" * 2_000_000,
    "a list": [0] * 50_000,
    "nested": [[[0.0] * 20] * 50] * 50,
    "keys": {str(number): 1 for number in range(20_000)},
    "long keys": {"x" * 200 + str(number): 1 for number in range(200)},
    "a pair": (np.broadcast_to(1.0, (5_000_000,)), np.zeros(5)),
}


@pytest.mark.parametrize(("exercise", "answer"), ANSWERS)
def test_what_is_far_too_large_is_told_so_before_any_law_looks_at_it(
    exercise: Exercise, answer: Answer
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    values = itertools.cycle(LARGE.values())
    outcomes = [Outcome(VALUE, next(values)) for _ in expected_results(answer, 5).flat]
    begun = time.perf_counter()
    verdict = judge(exercise, answer, outcomes, 5)
    assert time.perf_counter() - begun < SECONDS
    assert verdict.points == 0
    for line in verdict.checks:
        assert line.stage in (KIND, diagnosis.REFUSAL)
        assert len(line.sentence) < 600
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300 * 1024, f"the judge grew by {grown / 1024:.0f} MB"


def with_law(law: Callable[..., Any]) -> tuple[Exercise, Answer]:
    exercise, answer = exercise_with_parts()
    first = replace(answer.checks[0], law=law)
    changed = replace(answer, checks=[first, *answer.checks[1:]])
    return replace(exercise, answers=[changed]), changed


def right(answer: Answer, seed: int = 5) -> list[Outcome]:
    return [outcome for group in expected_results(answer, seed).expected for outcome in group]


def for_ever(*_: Any) -> bool:
    while True:
        time.sleep(0.01)


def test_a_law_that_takes_too_long_costs_this_answer_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(diagnosis, "JUDGE_SECONDS", 0.5)
    exercise, answer = with_law(for_ever)
    begun = time.perf_counter()
    verdict = judge(exercise, answer, right(answer), 5)
    assert time.perf_counter() - begun < 5
    assert verdict.checks[0].stage == TIME
    assert "could not be judged within" in verdict.checks[0].sentence
    assert any("No typical mistake was looked for" in note for note in verdict.notes)


@pytest.mark.parametrize(
    "error", [ValueError, MemoryError, RecursionError, KeyError, AttributeError]
)
def test_a_law_that_stumbles_costs_its_own_check_only(error: type[Exception]) -> None:
    def law(*_: Any) -> bool:
        raise error("a stranger's value")

    exercise, answer = with_law(law)
    verdict = judge(exercise, answer, right(answer), 5)
    assert verdict.checks[0].stage == LAW
    assert verdict.points == verdict.max_points - verdict.checks[0].max_points


def test_a_comparison_that_stumbles_is_told_and_costs_its_own_check_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stumble(*_: Any, **__: Any) -> None:
        raise FloatingPointError("strange")

    exercise, answer = exercise_with_parts()
    monkeypatch.setattr(diagnosis, "difference", stumble)
    verdict = judge(exercise, answer, right(answer), 5)
    assert {line.stage for line in verdict.checks} == {ERROR}
    assert "FloatingPointError: strange" in verdict.checks[0].sentence


def test_a_time_limit_inside_another_gives_it_the_time_that_is_left() -> None:
    begun = time.perf_counter()
    with pytest.raises(diagnosis.TimeIsUp), time_limit(0.6):  # noqa: PT012
        with time_limit(0.3):
            time.sleep(0.1)
        time.sleep(5)
    assert 0.4 < time.perf_counter() - begun < 2


@pytest.mark.parametrize("status", [LOST, TOO_SLOW])
def test_outcomes_without_a_value_have_no_points(status: str) -> None:
    exercise, answer = exercise_with_parts()
    outcomes = [Outcome(status, message="gone") for _ in expected_results(answer, 5).flat]
    assert judge(exercise, answer, outcomes, 5).points == 0
