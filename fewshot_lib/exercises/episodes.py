"""Exercise 02: drawing an episode, finding leaks, coverage, an accuracy repaired (note §2.1)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from fewshot_lib import episodes as library
from fewshot_lib.checker.spec import Case
from fewshot_lib.checker.specification import answer, exercise
from fewshot_lib.exercises.dice import _seed

# ----------------------------------------------------------------------------------- draw_episode


def _of_the_library(
    labels: Tensor, n_way: int, k_shot: int, n_query: int, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    drawn = library.draw_episode(labels, n_way, k_shot, n_query, generator)
    return drawn.support_index, drawn.query_index, drawn.classes


@answer(
    reference=_of_the_library,
    strip=[
        "episodes.draw_episode",
        "episodes.EpisodeSampler",
        "training.sample_episode",
        "training.sample_slices",
    ],
)
def draw_episode(labels, n_way, k_shot, n_query, generator):
    """Draw one N-way K-shot episode, nothing twice.

    Arguments:
        labels: (N,) int64, the class of each example; any values.
        n_way: number of classes; all classes have the same chance.
        k_shot: support examples of each class.
        n_query: query examples of each class.
        generator: the torch.Generator that everything random comes from.

    Returns:
        support: (n_way, k_shot) int64, places in `labels`; a row is a class.
        query: (n_way, n_query) int64, likewise.
        classes: (n_way,) int64, the label of each row.

    Raises:
        ValueError: fewer than n_way classes, or a class with fewer than
            k_shot + n_query examples.
    """
    ### BEGIN SOLUTION: draw classes, then examples of each; cut them in two
    values, counts = labels.unique(return_counts=True)
    if len(values) < n_way:
        raise ValueError(f"{len(values)} classes are too few for {n_way} ways")
    each = k_shot + n_query
    if (counts < each).any():
        raise ValueError(f"every class needs {each} examples")
    classes = values[torch.randperm(len(values), generator=generator)[:n_way]]
    rows = []
    for label in classes:
        places = (labels == label).nonzero()[:, 0]
        order = torch.randperm(len(places), generator=generator)[:each]
        rows.append(places[order])
    drawn = torch.stack(rows)  # (n_way, k_shot + n_query)
    return drawn[:, :k_shot], drawn[:, k_shot:], classes
    ### END SOLUTION


def _labels(g: Generator, counts: dict[int, int]) -> Tensor:
    """Give labels with so many examples of each class, mixed."""
    labels = torch.cat([torch.full((n,), value) for value, n in counts.items()])
    return labels[torch.randperm(len(labels), generator=g)]


def _read(result: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = list(result.values()) if isinstance(result, dict) else list(result)
    support, query, classes = (np.asarray(part) for part in parts)
    return support, query, classes


def _sound(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    for case, result in zip(cases, results, strict=True):
        support, query, classes = _read(result)
        labels = case.args[0].numpy()
        both = np.concatenate([support, query], axis=1)  # (n_way, k_shot + n_query)
        if len(np.unique(classes)) < len(classes):
            return f"a class stands twice in an episode ({case.name})"
        if not np.isin(classes, labels).all():
            return f"`classes` holds values that no label has ({case.name})"
        if both.min() < 0 or both.max() >= len(labels):
            return f"an index points outside `labels` ({case.name})"
        if not (labels[support] == classes[:, None]).all():
            return f"a support example is not of its row's class ({case.name})"
        if not (labels[query] == classes[:, None]).all():
            return f"a query is not of its row's class ({case.name})"
    return True


@draw_episode.check("distinct classes, and examples of just these", points=2, law=_sound)
def _usual(g: Generator) -> Iterator[Case]:
    labels = _labels(g, {3: 6, 7: 9, 11: 7, 20: 6, 21: 8})
    yield Case("3 of 5 classes, 1 shot", (labels, 3, 1, 4, _seed(g)))
    yield Case("2 of 5 classes, 3 shots", (labels, 2, 3, 2, _seed(g)))
    yield Case("every class there is", (labels, 5, 2, 3, _seed(g)))
    yield Case("one class, one query", (labels, 1, 4, 1, _seed(g)))


def _apart(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    for case, result in zip(cases, results, strict=True):
        support, query, _ = _read(result)
        if len(np.intersect1d(support, query)):
            return f"an example is support and query at once ({case.name})"
        if len(np.unique(support)) < support.size or len(np.unique(query)) < query.size:
            return f"an example stands twice in the support or twice in the query ({case.name})"
    return True


@draw_episode.check("no example twice: support and query apart", law=_apart)
def _tight(g: Generator) -> Iterator[Case]:
    labels = _labels(g, {0: 5, 4: 5, 9: 5})
    for _ in range(3):
        yield Case("just enough examples of each class", (labels, 3, 2, 3, _seed(g)))


def _from_the_seed(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    one, same, other = (
        np.concatenate([part.ravel() for part in _read(result)]) for result in results
    )
    if not np.array_equal(one, same):
        return "the same seed gave two episodes: something is not drawn from the generator"
    if np.array_equal(one, other):
        return "another seed gave the very same episode: the generator is not used"
    return True


@draw_episode.check("the same seed, the same episode", law=_from_the_seed)
def _seeds(g: Generator) -> Iterator[Case]:
    labels = _labels(g, dict.fromkeys(range(40, 52), 12))
    one, other = _seed(g), _seed(g)
    for name, seed in (("a seed", one), ("the same seed", one), ("another seed", other)):
        yield Case(name, (labels, 4, 3, 3, seed))


N_CLASS_DRAWS, N_EXAMPLE_DRAWS = 50, 40
#: Bounds of the sums below. A right sampler exceeds one of them less than once in 10 million
#: times; from 60,000 simulated sheets, with a gamma distribution for the tail.
CLASS_COUNTS, CLASS_PAIRS, EXAMPLE_USE, EXAMPLE_PAIRS = 40.0, 115.0, 155.0, 180.0
SAME_PLACES, SUPPORT_FIRST = 215, (219, 421)  # by six standard deviations


def _surprise(counts: np.ndarray, expected: float) -> float:
    """Sum (count − expected)²/expected: large where counts are more uneven than chance makes."""
    return float(((counts - expected) ** 2).sum() / expected)


def _even_classes(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    """Count over many draws how often each class came, and each pair; chance has its room."""
    if (sound := _sound(cases, results)) is not True:
        return sound
    values = cases[0].args[0].unique().numpy()
    drawn = np.stack([np.isin(values, _read(one)[2]) for one in results])  # (draws, classes)
    drawn = drawn.astype(int)
    n_way, count = cases[0].args[1], drawn.sum(0)
    usual = len(cases) * n_way / len(values)
    if _surprise(count, usual) > CLASS_COUNTS or not count.all():
        strangest = int(np.abs(count - usual).argmax())
        return (
            f"class {values[strangest]} was drawn in {count[strangest]} of {len(cases)} episodes; "
            f"each of the {len(values)} should have the same chance, whatever its size"
        )
    upper = np.triu_indices(len(values), 1)
    usual *= (n_way - 1) / (len(values) - 1)
    if _surprise((drawn.T @ drawn)[upper], usual) > CLASS_PAIRS:
        return (
            "some classes come together far too often and others never: every set of n_way "
            "classes should have the same chance"
        )
    return True


@draw_episode.check("every set of classes has the same chance", law=_even_classes)
def _many_classes(g: Generator) -> Iterator[Case]:
    counts = {1: 4, 2: 5, 4: 4, 5: 6, 8: 4, 9: 90, 12: 4, 13: 5, 15: 4}
    labels = _labels(g, counts)
    for number in range(N_CLASS_DRAWS):
        name = f"3 of 9 classes, draw {number + 1} of {N_CLASS_DRAWS}"
        yield Case(name, (labels, 3, 2, 2, _seed(g)))


def _even_examples(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    """Count over many draws which examples came, and in whose company; chance has its room."""
    if (apart := _apart(cases, results)) is not True:
        return apart
    if (sound := _sound(cases, results)) is not True:
        return sound
    labels, _, k_shot, n_query, _ = cases[0].args
    n, classes = len(cases), labels.unique().tolist()
    size = {value: int((labels == value).sum()) for value in classes}
    place = {value: (labels == value).nonzero()[:, 0].numpy() for value in classes}
    used = {value: np.zeros((2, n, size[value]), dtype=int) for value in classes}
    first = 0  # pairs of a support example and a query in which the support is first in `labels`
    for number, result in enumerate(results):
        support, query, chosen = _read(result)
        for shots, asked, value in zip(support, query, chosen.tolist(), strict=True):
            for part, these in enumerate((shots, asked)):
                used[value][part, number, np.searchsorted(place[value], these)] = 1
            first += int((shots[:, None] < asked).sum())
    use = sum(
        _surprise(used[value][part].sum(0), n * number / size[value])
        for value in classes
        for part, number in enumerate((k_shot, n_query))
    )
    if use > EXAMPLE_USE:
        return (
            "some examples come far too often and others far too seldom: within a class all should "
            "have the same chance, as support and as query"
        )
    if not SUPPORT_FIRST[0] < first < SUPPORT_FIRST[1]:
        return (
            f"in {first} of {n * len(classes) * k_shot * n_query} pairs the support example stands "
            "before the query in `labels`, where half should: the cut depends on the place"
        )
    large = [used[value].sum(0) for value in classes if size[value] == max(size.values())]
    same = sum(int((one * other).sum()) for one, other in itertools.combinations(large, 2))
    if same > SAME_PLACES:
        return (
            "classes of one size have the same places drawn (each its third and its seventh "
            "example): every class needs a draw of its own"
        )
    together = sum(one.T @ one for one in large)[np.triu_indices(max(size.values()), 1)]
    if _surprise(together, float(together.mean())) > EXAMPLE_PAIRS:
        return (
            "some examples of a class come together far too often and others never: every choice "
            "of examples should have the same chance"
        )
    return True


@draw_episode.check("every choice of examples has the same chance", law=_even_examples)
def _many_examples(g: Generator) -> Iterator[Case]:
    labels = _labels(g, {2: 12, 5: 12, 6: 6, 8: 12})
    for number in range(N_EXAMPLE_DRAWS):
        name = f"all 4 classes, draw {number + 1} of {N_EXAMPLE_DRAWS}"
        yield Case(name, (labels, 4, 2, 2, _seed(g)))


@draw_episode.check("what cannot be drawn is refused")
def _impossible(g: Generator) -> Iterator[Case]:
    labels = _labels(g, {1: 4, 2: 4, 5: 9})
    yield Case("4 ways, 3 classes", (labels, 4, 1, 1, _seed(g)))
    yield Case("4 examples of a class, 3 shots and 2 queries", (labels, 3, 3, 2, _seed(g)))
    yield Case("4 examples of a class, 4 shots and 1 query", (labels, 3, 4, 1, _seed(g)))
    labels = _labels(g, {7: 3} | dict.fromkeys(range(20, 29), 6))
    for _ in range(4):
        yield Case("1 of 10 classes, of which one is too small", (labels, 1, 3, 2, _seed(g)))


# ------------------------------------------------------------------------------------- find_leaks


@answer()
def find_leaks(train_classes, test_classes, support, query, gap):
    """Find the classes, subjects and neighbouring slices that leak.

    Arguments:
        train_classes: (A,) int64, possibly with repetitions.
        test_classes: (B,) int64, likewise.
        support: (S, 2) int64; column 0 is the subject, column 1 the number of
            the slice.
        query: (Q, 2) int64, likewise.
        gap: slices of one subject that are at most so far apart are
            neighbours; 0 or more.

    Returns:
        classes: the classes in both lists, ascending, each once.
        subjects: (Q,) bool, True where the query's subject is in the support.
        neighbours: (Q,) bool, True where a support slice of the same subject
            is a neighbour.
    """
    ### BEGIN SOLUTION: compare each query with each support slice
    shared = train_classes[torch.isin(train_classes, test_classes)].unique()
    same = query[:, None, 0] == support[None, :, 0]  # (Q, S)
    near = (query[:, None, 1] - support[None, :, 1]).abs() <= gap
    return shared, same.any(dim=1), (same & near).any(dim=1)
    ### END SOLUTION


def _classes(g: Generator, shared: int) -> tuple[Tensor, Tensor]:
    """Draw training and test classes, of which so many are in both, with repetitions."""
    values = torch.randperm(30, generator=g)
    train, test = values[: 5 + shared], torch.cat([values[5 : 5 + shared], values[20:24]])
    train = torch.cat([train, train[-3:]])
    return train[torch.randperm(len(train), generator=g)], test.sort(descending=True).values


@find_leaks.check("classes of training and of test")
def _leaky_classes(g: Generator) -> Iterator[Case]:
    support, query = torch.tensor([[1, 10]]), torch.tensor([[2, 10], [3, 4]])
    yield Case("three classes in both", (*_classes(g, 3), support, query, 1))
    yield Case("one class in both", (*_classes(g, 1), support, query, 1))
    yield Case("no class in both", (*_classes(g, 0), support, query, 1))


@find_leaks.check("queries of the support's subjects, and their neighbours", points=2)
def _leaky_slices(g: Generator) -> Iterator[Case]:
    base = 40 + int(torch.randint(20, (), generator=g))
    support = torch.tensor([[4, base], [7, base + 20], [4, base + 40]])
    query = torch.tensor(
        [
            [4, base + 1],  # next to a support slice
            [4, base - 3],  # three below
            [4, base + 4],
            [4, base + 20],  # near a support slice, of another subject
            [7, base + 18],
            [7, base + 20],  # the support slice itself
            [9, base],  # another subject, the same slice number
            [7, base + 60],
        ]
    )
    query = query[torch.randperm(len(query), generator=g)]
    classes = _classes(g, 2)
    for gap in (0, 1, 3, 4):
        yield Case(f"8 queries, gap {gap}", (*classes, support, query, gap))


@find_leaks.check("no alarm where nothing leaks")
def _clean(g: Generator) -> Iterator[Case]:
    slices = torch.randint(50, (4,), generator=g)
    support = torch.stack([torch.tensor([1, 2, 3, 5]), slices], dim=1)
    query = torch.stack([torch.tensor([4, 6, 8, 9]), slices.flip(0)], dim=1)
    yield Case("other subjects, the same slice numbers", (*_classes(g, 0), support, query, 2))


# ------------------------------------------------------------------------------ expected_coverage


@answer()
def expected_coverage(n_classes, n_way, n_episodes):
    """Give the expected number of classes that so many episodes have shown.

    Arguments:
        n_classes: N, how many there are.
        n_way: n, distinct classes in each episode, n ≤ N, all classes alike.
        n_episodes: T, an int or an int64 tensor of any shape.

    Returns:
        One float, or a tensor of T's shape.
    """
    ### BEGIN SOLUTION: N times the probability that a class is not missed
    return n_classes * (1 - (1 - n_way / n_classes) ** n_episodes)
    ### END SOLUTION


@expected_coverage.check("expected number of classes seen", points=2)
def _few_episodes(g: Generator) -> Iterator[Case]:
    n = 20 + int(torch.randint(60, (), generator=g))
    yield Case(f"5 of {n} classes, one episode", (n, 5, 1))
    yield Case(f"5 of {n} classes, 2 episodes", (n, 5, 2))
    yield Case(f"3 of {n} classes, 7 episodes", (n, 3, 7))
    yield Case("1 of 64 classes, 100 episodes", (64, 1, 100))


@expected_coverage.check("none at first, all in the end")
def _limits(g: Generator) -> Iterator[Case]:
    yield Case("no episode yet", (12, 5, 0))
    yield Case("every class in every episode", (6, 6, 3))
    yield Case("very many episodes", (10, 2, 500))


@expected_coverage.check("a whole curve at once")
def _curve(g: Generator) -> Iterator[Case]:
    yield Case("a curve of 30 numbers of episodes", (25, 4, torch.arange(30)))
    yield Case("a table of them", (40, 5, torch.randint(60, (3, 4), generator=g)))


# --------------------------------------------------------------------------------------- accuracy


@answer(strip=["evaluation.episode_accuracy"])
def accuracy(log_p):
    """Give the share of queries whose most probable class is the right one.

    Arguments:
        log_p: (…, n_way, n_query, n_way) float; row i holds queries of class
            i, the last axis the log-probabilities; leading dimensions are
            episodes.

    Returns:
        (…) float in [0, 1], one number per episode; a query with a NaN is
        never right.
    """
    ### BEGIN SOLUTION: accuracy_as_found without its three faults
    targets = torch.arange(log_p.shape[-1])[:, None]  # (n_way, 1)
    right = (log_p.argmax(dim=-1) == targets) & ~log_p.isnan().any(dim=-1)
    return right.double().mean(dim=(-2, -1))
    ### END SOLUTION


def _posterior(g: Generator, *shape: int) -> Tensor:
    """Draw log-probabilities (…, n_way, n_query, n_way) that are right more often than not."""
    n_way = shape[-1]
    logits = torch.randn(shape, generator=g) + 1.5 * torch.eye(n_way)[:, None]
    logits[..., -1, 0, :] = torch.arange(n_way, 0, -1.0)  # the last class's first: wrong
    return logits.log_softmax(-1)


@accuracy.check("the share of right queries")
def _several_queries(g: Generator) -> Iterator[Case]:
    yield Case("5 ways, 4 queries", (_posterior(g, 5, 4, 5),))
    yield Case("3 ways, 7 queries", (_posterior(g, 3, 7, 3),))
    yield Case("4 ways, 4 queries", (_posterior(g, 4, 4, 4),))


@accuracy.check("one query a class", points=2)
def _single_query(g: Generator) -> Iterator[Case]:
    yield Case("5 ways, 1 query", (_posterior(g, 5, 1, 5),))
    right = (torch.randn(4, 1, 4, generator=g) + 20 * torch.eye(4)[:, None]).log_softmax(-1)
    yield Case("4 ways, 1 query, all right", (right,))


@accuracy.check("a number for each episode")
def _in_front(g: Generator) -> Iterator[Case]:
    yield Case("6 episodes", (_posterior(g, 6, 3, 5, 3),))
    yield Case("6 episodes, 1 query", (_posterior(g, 6, 4, 1, 4),))
    yield Case("2 × 3 episodes", (_posterior(g, 2, 3, 5, 2, 5),))


@accuracy.check("NaN is never right")
def _not_a_number(g: Generator) -> Iterator[Case]:
    collapsed = torch.full((3, 4, 3), math.nan)
    yield Case("nothing but NaN", (collapsed,))
    some = (torch.randn(4, 3, 4, generator=g) + 10 * torch.eye(4)[:, None]).log_softmax(-1)
    some[0, 1, 2] = math.nan
    some[1, 0, 3] = math.nan
    some[2, 0, 2] = math.nan
    some[3, 2] = math.nan
    yield Case("NaN in 4 of 12 queries", (some,))


EXERCISE = exercise(__name__)
