"""Nobody is told a mistake that was not made: wrong functions of many kinds, over many seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from proof import verdict_of
from test_proof import each_answer

from fewshot_lib.checker import catalogue
from fewshot_lib.checker.judge import FAILED, ExpectedResults, expected_results, judge
from fewshot_lib.checker.run import VALUE, Outcome
from fewshot_lib.checker.spec import Answer, Exercise
from fewshot_lib.checker.values import Opaque

SEEDS = (0, 301)


def everywhere(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], Any]:
    """Change every array and number of a plain value, keep its build."""

    def walk(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return np.asarray(change(value))
        if isinstance(value, bool | int | float):
            return np.asarray(change(np.asarray(value))).item()
        if isinstance(value, dict):
            return {key: walk(part) for key, part in value.items()}
        if isinstance(value, tuple | list):
            return type(value)(walk(part) for part in value)
        return value

    return walk


def as_floats(formula: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], Any]:
    """Apply a formula to the real numbers of a value, cast back to their type."""

    def change(array: np.ndarray) -> np.ndarray:
        if array.dtype.kind != "f":
            return array
        with np.errstate(all="ignore"):
            return np.asarray(formula(array)).astype(array.dtype)

    return everywhere(change)


def filled(number: float) -> Callable[[Any], Any]:
    """Fill with one number, of the kind that is expected."""

    def change(array: np.ndarray) -> np.ndarray:
        fits = array.dtype.kind == "f" or number == number
        return np.full(array.shape, number if fits else 0).astype(array.dtype)

    return everywhere(change)


#: What someone may write who has not understood, or tries: none is a listed mistake by intention.
WRONG: dict[str, Callable[[Any], Any]] = {
    "zeros": filled(0.0),
    "ones": filled(1.0),
    "NaN": filled(math.nan),
    "halves": filled(0.5),
    "−∞": filled(-math.inf),
    "negated": as_floats(lambda a: np.where(np.isfinite(a), -a, a)),
    "three times as much": as_floats(lambda a: 3 * a),
    "a seventh of it": as_floats(lambda a: a / 7),
    "1.3 more": as_floats(lambda a: a + 1.3),
    "above 0": as_floats(lambda a: (a > 0) * 1.0),
    "above its mean": as_floats(lambda a: (a > a.mean()) * 1.0 if a.size else a),
    "rounded to thirds": as_floats(lambda a: np.round(3 * a) / 3),
    "its tanh": as_floats(np.tanh),
    "turned round": everywhere(lambda a: a[::-1].copy() if a.ndim else a),
    "without its first row": everywhere(lambda a: np.roll(a, 1, axis=0) if a.ndim else a),
    "whole numbers one more": everywhere(lambda a: a + 1 if a.dtype.kind in "iu" else a),
    "flags turned round": everywhere(lambda a: ~a if a.dtype.kind == "b" else a),
    "nothing": lambda value: None,
    "an object": lambda value: Opaque("thing"),
}


def wrong_outcomes(drawn: ExpectedResults) -> Iterator[tuple[str, list[Outcome]]]:
    """Give the outcomes of the wrong functions, named, where they differ from the right ones."""
    right = [outcome for group in drawn.expected for outcome in group]
    for name, change in WRONG.items():
        yield name, [Outcome(VALUE, change(o.value)) if o.status == VALUE else o for o in right]
    for name in ("zeros", "ones", "NaN"):
        some = next(o.value for o in right if o.status == VALUE)
        yield (
            f"{name}, never refused",
            [Outcome(VALUE, WRONG[name](o.value if o.status == VALUE else some)) for o in right],
        )


def is_made(drawn: ExpectedResults, name: str, outcomes: Sequence[Outcome]) -> bool:
    """Say whether a listed mistake gives the very same outcomes on all cases."""
    names = [mistake.name for mistake in drawn.answer.mistakes]
    its = [o for group in drawn.mistaken[names.index(name)] for o in group]
    return all(
        one.status == other.status and (one.status != VALUE or alike(one.value, other.value))
        for one, other in zip(its, outcomes, strict=True)
    )


def alike(one: Any, other: Any) -> bool:
    """Compare two plain values, loosely."""
    if isinstance(one, dict):
        return isinstance(other, dict) and all(alike(one[key], other.get(key)) for key in one)
    try:
        return np.allclose(one, other, rtol=1e-3, atol=1e-4, equal_nan=True)
    except (TypeError, ValueError):
        if isinstance(one, tuple | list) and isinstance(other, tuple | list):
            return len(one) == len(other) and all(map(alike, one, other))
        return type(one) is type(other) and one == other


@each_answer
def test_no_mistake_is_told_that_was_not_made(exercise: Exercise, answer: Answer) -> None:
    told = []
    for seed in SEEDS:
        drawn = expected_results(answer, seed)
        for name, outcomes in wrong_outcomes(drawn):
            verdict = judge(exercise, answer, outcomes, seed)
            told += [
                f"{name!r} is told {mistake.name!r} (seed {seed})"
                for mistake in verdict.mistakes
                if not is_made(drawn, mistake.name, outcomes)
            ]
    assert not told


@each_answer
def test_every_mistake_alone_in_a_check_is_told_by_name_or_not_at_all(
    exercise: Exercise, answer: Answer
) -> None:
    """All checks but one are right; what fails there may be told, if the cases show it."""
    told = []
    for seed in SEEDS:
        drawn = expected_results(answer, seed)
        for place, mistake in enumerate(answer.mistakes):
            for failing in range(len(answer.checks)):
                outcomes = [
                    outcome
                    for check, mine in enumerate(drawn.expected)
                    for outcome in (drawn.mistaken[place][check] if check == failing else mine)
                ]
                verdict = judge(exercise, answer, outcomes, seed)
                if verdict.checks[failing].status != FAILED:
                    continue
                others = {told.name for told in verdict.mistakes} - {mistake.name}
                whole = [name for name in others if is_made(drawn, name, outcomes)]
                if others - set(whole):
                    told.append(f"{mistake.name!r} is told {sorted(others)} (seed {seed})")
    assert not told


def _thresholded(network: Any, episodes: Any, seen: Any) -> Any:
    """Call a pixel organ where its logit is above 0, which a log-probability never is."""
    network.eval()
    scores = []
    with torch.no_grad():
        for support, masks, queries, targets, organ in episodes:
            for query, target in zip(queries, targets, strict=True):
                if organ not in seen:
                    found, truth = network(support, masks, query)[1] > 0, target[1] > 0
                    scores.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    if not scores:
        raise ValueError("nothing unseen")
    return torch.stack(scores).mean()


def _one_number(*_: Any) -> float:
    return 0.0


def _refuses_all(*_: Any) -> float:
    raise ValueError("no")


@pytest.mark.parametrize("wrong", [_thresholded, _one_number, _refuses_all])
def test_a_threshold_or_a_constant_is_not_called_training_mode(wrong: Callable[..., Any]) -> None:
    exercise, answer = catalogue.answer("training.evaluate_unseen")
    for seed in range(20):
        assert not verdict_of(exercise, answer, wrong, seed).mistakes


def test_a_samplers_fault_that_has_no_name_loses_points() -> None:
    """Samplers that prefer some classes or some examples, in ways that no mistake lists."""
    exercise, answer = catalogue.answer("episodes.draw_episode")

    def drawn(
        classes: Callable[..., Any] = lambda values, g: values[torch.randperm(9, generator=g)],
        order: Callable[..., Any] = lambda places, g: places[
            torch.randperm(len(places), generator=g)
        ],
    ) -> Callable[..., Any]:
        def draw(labels: Any, n_way: int, k_shot: int, n_query: int, g: Any) -> Any:
            values, counts = labels.unique(return_counts=True)
            if len(values) < n_way or counts.min() < k_shot + n_query:
                raise ValueError("no such episode")
            chosen = (
                classes(values, g)[:n_way]
                if len(values) == 9
                else values[torch.randperm(len(values), generator=g)[:n_way]]
            )
            rows = [order((labels == c).nonzero()[:, 0], g)[: k_shot + n_query] for c in chosen]
            both = torch.stack(rows)
            return both[:, :k_shot], both[:, k_shot:], chosen

        return draw

    def in_threes(values: Any, g: Any) -> Any:
        return values.view(3, 3)[int(torch.randint(3, (), generator=g))]

    def never_the_last(values: Any, g: Any) -> Any:
        return values[torch.randperm(8, generator=g)]

    def around_the_end(values: Any, g: Any) -> Any:
        return values.roll(int(torch.randint(9, (), generator=g)))

    def preferring(values: Any, g: Any) -> Any:
        return values[torch.arange(9).flip(0).add(1.0).square().multinomial(9, generator=g)]

    def every_second(places: Any, g: Any) -> Any:
        turned = places.roll(int(torch.randint(len(places), (), generator=g)))
        return torch.cat([turned[::2], turned[1::2]])

    def query_first(places: Any, g: Any) -> Any:
        four = places[torch.randperm(len(places), generator=g)[:4]]
        return four.sort(descending=True).values

    wrong = [drawn(classes=f) for f in (in_threes, never_the_last, around_the_end, preferring)]
    wrong += [drawn(order=f) for f in (every_second, query_first)]
    assert verdict_of(exercise, answer, drawn(), 1).points == answer.points
    for seed in SEEDS:
        for function in wrong:
            assert verdict_of(exercise, answer, function, seed).points < answer.points
