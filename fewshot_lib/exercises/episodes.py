"""Exercise 02: drawing an episode, finding leaks, coverage, an accuracy repaired (note §2.1)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from fewshot_lib import episodes as library
from fewshot_lib.checker.spec import Answer, Case, Check, Exercise, Mistake
from fewshot_lib.checker.spec import Variant as V
from fewshot_lib.checker.values import Seed

DRAW_SECTION = "notebook 02, «Drawing an episode»; note §2.1"
LEAK_SECTION = "notebook 02, «Leaks, and how to see them»"
COVERAGE_SECTION = "notebook 02, «Coverage of the classes»"
ACCURACY_SECTION = "notebook 02, «The accuracy of an episode»"

# ----------------------------------------------------------------------------------- draw_episode

Drawn = tuple[Tensor, Tensor, Tensor]


def draw_episode(
    labels: Tensor, n_way: int, k_shot: int, n_query: int, generator: Generator
) -> Drawn:
    """Draw support and query indices and their classes: the library's, as three tensors.

    Raises:
        ValueError: too few classes, or too few examples of one.
    """
    drawn = library.draw_episode(labels, n_way, k_shot, n_query, generator)
    return drawn.support_index, drawn.query_index, drawn.classes


def _seed(g: Generator) -> Seed:
    return Seed(int(torch.randint(2**31, (), generator=g)))


def _labels(g: Generator, counts: dict[int, int]) -> Tensor:
    """Give labels with so many examples of each class, mixed."""
    labels = torch.cat([torch.full((n,), value) for value, n in counts.items()])
    return labels[torch.randperm(len(labels), generator=g)]


def _usual(g: Generator) -> Iterator[Case]:
    labels = _labels(g, {3: 6, 7: 9, 11: 7, 20: 6, 21: 8})
    yield Case("3 of 5 classes, 1 shot", (labels, 3, 1, 4, _seed(g)))
    yield Case("2 of 5 classes, 3 shots", (labels, 2, 3, 2, _seed(g)))
    yield Case("every class there is", (labels, 5, 2, 3, _seed(g)))
    yield Case("one class, one query", (labels, 1, 4, 1, _seed(g)))


def _tight(g: Generator) -> Iterator[Case]:
    labels = _labels(g, {0: 5, 4: 5, 9: 5})
    for _ in range(3):
        yield Case("just enough examples of each class", (labels, 3, 2, 3, _seed(g)))


def _seeds(g: Generator) -> Iterator[Case]:
    labels = _labels(g, dict.fromkeys(range(40, 52), 12))
    one, other = _seed(g), _seed(g)
    for name, seed in (("a seed", one), ("the same seed", one), ("another seed", other)):
        yield Case(name, (labels, 4, 3, 3, seed))


N_CLASS_DRAWS, N_EXAMPLE_DRAWS = 50, 40


def _many_classes(g: Generator) -> Iterator[Case]:
    counts = {1: 4, 2: 5, 4: 4, 5: 6, 8: 4, 9: 90, 12: 4, 13: 5, 15: 4}
    labels = _labels(g, counts)
    for number in range(N_CLASS_DRAWS):
        name = f"3 of 9 classes, draw {number + 1} of {N_CLASS_DRAWS}"
        yield Case(name, (labels, 3, 2, 2, _seed(g)))


def _many_examples(g: Generator) -> Iterator[Case]:
    labels = _labels(g, {2: 12, 5: 12, 6: 6, 8: 12})
    for number in range(N_EXAMPLE_DRAWS):
        name = f"all 4 classes, draw {number + 1} of {N_EXAMPLE_DRAWS}"
        yield Case(name, (labels, 4, 2, 2, _seed(g)))


def _impossible(g: Generator) -> Iterator[Case]:
    labels = _labels(g, {1: 4, 2: 4, 5: 9})
    yield Case("4 ways, 3 classes", (labels, 4, 1, 1, _seed(g)))
    yield Case("4 examples of a class, 3 shots and 2 queries", (labels, 3, 3, 2, _seed(g)))
    yield Case("4 examples of a class, 4 shots and 1 query", (labels, 3, 4, 1, _seed(g)))
    labels = _labels(g, {7: 3} | dict.fromkeys(range(20, 29), 6))
    for _ in range(4):
        yield Case("1 of 10 classes, of which one is too small", (labels, 1, 3, 2, _seed(g)))


def _read(case: Case, result: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = list(result.values()) if isinstance(result, dict) else list(result)
    support, query, classes = (np.asarray(part) for part in parts)
    return support, query, classes


def _fault(case: Case, result: Any) -> str:
    """Say what is wrong with one episode; "" if nothing is."""
    support, query, classes = _read(case, result)
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
    return ""


def _sound(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    for case, result in zip(cases, results, strict=True):
        if fault := _fault(case, result):
            return fault
    return True


def _apart(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    for case, result in zip(cases, results, strict=True):
        support, query, _ = _read(case, result)
        if len(np.intersect1d(support, query)):
            return f"an example is support and query at once ({case.name})"
        if len(np.unique(support)) < support.size or len(np.unique(query)) < query.size:
            return f"an example stands twice in the support or twice in the query ({case.name})"
    return True


def _from_the_seed(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    one, same, other = (
        np.concatenate([part.ravel() for part in _read(case, result)])
        for case, result in zip(cases, results, strict=True)
    )
    if not np.array_equal(one, same):
        return "the same seed gave two episodes: something is not drawn from the generator"
    if np.array_equal(one, other):
        return "another seed gave the very same episode: the generator is not used"
    return True


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
    drawn = np.stack(
        [np.isin(values, _read(case, one)[2]) for case, one in zip(cases, results, strict=True)]
    ).astype(int)  # (draws, classes)
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
    for number, (case, result) in enumerate(zip(cases, results, strict=True)):
        support, query, chosen = _read(case, result)
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


def _refuse(labels: Tensor, n_way: int, needed: int, exactly: bool = True) -> Tensor:
    """Give the classes, or raise."""
    classes, counts = labels.unique(return_counts=True)
    if len(classes) < n_way:
        raise ValueError("too few classes")
    if bool((counts < needed).any()) or (not exactly and bool((counts <= needed).any())):
        raise ValueError("too few examples")
    return classes


def _some(classes: Tensor, n_way: int, labels: Tensor, g: Generator) -> Tensor:
    return classes[torch.randperm(len(classes), generator=g)[:n_way]]


def _shuffled(places: Tensor, number: int, g: Generator) -> Tensor:
    return places[torch.randperm(len(places), generator=g)[:number]]


Choose = Callable[[Tensor, int, Tensor, Generator], Tensor]
Pick = Callable[[Tensor, int, Generator], Tensor]


def _draws(
    choose: Choose = _some,
    pick: Pick = _shuffled,
    split: Callable[[Tensor, int, int], tuple[Tensor, Tensor]] = lambda rows, k, q: (
        rows[:, :k],
        rows[:, k:],
    ),
    exactly: bool = True,
    refuses: bool = True,
) -> Callable[..., Any]:
    """Make a way of drawing that differs from the right one in what is given."""

    def draw(labels: Tensor, n_way: int, k_shot: int, n_query: int, g: Generator) -> Any:
        classes = _refuse(labels, n_way if refuses else 0, (k_shot + n_query) * refuses, exactly)
        chosen = choose(classes, n_way, labels, g)
        rows = [pick((labels == c).nonzero()[:, 0], k_shot + n_query, g) for c in chosen]
        return *split(torch.stack(rows), k_shot, n_query), chosen

    return draw


def _by_size(classes: Tensor, n_way: int, labels: Tensor, g: Generator) -> Tensor:
    found: list[int] = []
    for value in labels[torch.randperm(len(labels), generator=g)].tolist():
        if value not in found:
            found.append(value)
    return torch.tensor(found[:n_way])


def _independent(labels: Tensor, n_way: int, k_shot: int, n_query: int, g: Generator) -> Any:
    chosen = _some(_refuse(labels, n_way, k_shot + n_query), n_way, labels, g)
    places = [(labels == c).nonzero()[:, 0] for c in chosen]
    support = torch.stack([_shuffled(p, k_shot, g) for p in places])
    return support, torch.stack([_shuffled(p, n_query, g) for p in places]), chosen


def _any_query(labels: Tensor, n_way: int, k_shot: int, n_query: int, g: Generator) -> Any:
    support, _, chosen = _draws()(labels, n_way, k_shot, n_query, g)
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[support.flatten()] = False
    query = _shuffled(rest.nonzero()[:, 0], n_way * n_query, g)
    return support, query.view(n_way, n_query), chosen


def _renumbered(labels: Tensor, n_way: int, k_shot: int, n_query: int, g: Generator) -> Any:
    support, query, _ = _draws()(labels, n_way, k_shot, n_query, g)
    return support, query, torch.arange(n_way)


def _run_of_classes(classes: Tensor, n_way: int, labels: Tensor, g: Generator) -> Tensor:
    first = int(torch.randint(len(classes) - n_way + 1, (), generator=g))
    return classes[first : first + n_way]


def _run_of_places(places: Tensor, number: int, g: Generator) -> Tensor:
    first = int(torch.randint(len(places), (), generator=g))
    return places.roll(-first)[:number]


def _as_the_smallest(labels: Tensor, n_way: int, k_shot: int, n_query: int, g: Generator) -> Any:
    least = int(labels.unique(return_counts=True)[1].min())
    return _draws(pick=lambda p, number, g: _shuffled(p[:least], number, g))(
        labels, n_way, k_shot, n_query, g
    )


def _one_order(labels: Tensor, n_way: int, k_shot: int, n_query: int, g: Generator) -> Any:
    keys = torch.rand(int(labels.unique(return_counts=True)[1].max()), generator=g)
    return _draws(pick=lambda p, number, g: p[keys[: len(p)].argsort()[:number]])(
        labels, n_way, k_shot, n_query, g
    )


def _refused_when_met(labels: Tensor, n_way: int, k_shot: int, n_query: int, g: Generator) -> Any:
    chosen = _some(_refuse(labels, n_way, 0), n_way, labels, g)
    rows = [_shuffled((labels == c).nonzero()[:, 0], k_shot + n_query, g) for c in chosen]
    if min(map(len, rows)) < k_shot + n_query:
        raise ValueError("too few examples")
    drawn = torch.stack(rows)
    return drawn[:, :k_shot], drawn[:, k_shot:], chosen


def _within(labels: Tensor, n_way: int, k_shot: int, n_query: int, g: Generator) -> Any:
    return _draws(pick=lambda p, number, g: torch.randperm(len(p), generator=g)[:number])(
        labels, n_way, k_shot, n_query, g
    )


def _own_generator(labels: Tensor, n_way: int, k_shot: int, n_query: int, g: Generator) -> Any:
    return _draws()(labels, n_way, k_shot, n_query, Generator().manual_seed(0))


def _across(labels: Tensor, n_way: int, k_shot: int, n_query: int, g: Generator) -> Any:
    support, query, chosen = _draws()(labels, n_way, k_shot, n_query, g)
    return support.T, query.T, chosen


def _draw_lists(labels: Tensor, n_way: int, k_shot: int, n_query: int, g: Generator) -> Any:
    by_class: dict[int, list[int]] = {}
    for place, label in enumerate(labels.tolist()):
        by_class.setdefault(label, []).append(place)
    if len(by_class) < n_way or min(map(len, by_class.values())) < k_shot + n_query:
        raise ValueError("no such episode")
    pool, chosen = sorted(by_class), []
    for _ in range(n_way):
        chosen.append(pool.pop(int(torch.randint(len(pool), (), generator=g))))
    support, query = [], []
    for label in sorted(chosen):
        places = list(by_class[label])
        taken = [
            places.pop(int(torch.randint(len(places), (), generator=g)))
            for _ in range(k_shot + n_query)
        ]
        query.append(taken[:n_query])
        support.append(taken[n_query:])
    return support, query, sorted(chosen)


def _draw_sorted(labels: Tensor, n_way: int, k_shot: int, n_query: int, g: Generator) -> Any:
    """Draw a random key for each example and sort by it: no loop."""
    classes = _refuse(labels, n_way, k_shot + n_query)
    chosen = classes[torch.rand(len(classes), generator=g).argsort()[:n_way]]
    keys = torch.rand(len(labels), generator=g).masked_fill(labels != chosen[:, None], 2.0)
    order = keys.argsort(dim=1)
    return order[:, :k_shot], order[:, k_shot : k_shot + n_query], chosen


def _draw_numpy(labels: Tensor, n_way: int, k_shot: int, n_query: int, g: Generator) -> Any:
    _refuse(labels, n_way, k_shot + n_query)
    random = np.random.default_rng(int(torch.randint(2**62, (), generator=g)))
    chosen = random.choice(np.unique(labels.numpy()), n_way, replace=False)
    rows = np.stack(
        [
            random.choice(np.flatnonzero(labels.numpy() == c), k_shot + n_query, replace=False)
            for c in chosen
        ]
    )
    return rows[:, :k_shot], rows[:, k_shot:], chosen


def _draw_multinomial(labels: Tensor, n_way: int, k_shot: int, n_query: int, g: Generator) -> Any:
    classes = _refuse(labels, n_way, k_shot + n_query)
    chosen = classes[torch.ones(len(classes)).multinomial(n_way, generator=g)]
    member = (labels == chosen[:, None]).float()  # (n_way, N)
    rows = member.multinomial(k_shot + n_query, generator=g)
    return {"support": rows[:, n_query:], "query": rows[:, :n_query], "classes": chosen}


DRAW_EPISODE = Answer(
    name="draw_episode",
    reference=draw_episode,
    section=DRAW_SECTION,
    checks=[
        Check("distinct classes, and examples of just these", _usual, points=2, law=_sound),
        Check("no example twice: support and query apart", _tight, law=_apart),
        Check("the same seed, the same episode", _seeds, law=_from_the_seed),
        Check("every set of classes has the same chance", _many_classes, law=_even_classes),
        Check("every choice of examples has the same chance", _many_examples, law=_even_examples),
        Check("what cannot be drawn is refused", _impossible),
    ],
    mistakes=[
        Mistake(
            "classes with repetition",
            _draws(lambda c, n, labels, g: c[torch.randint(len(c), (n,), generator=g)]),
            "Your classes are drawn with repetition (`randint`, `choices`), so one can stand twice "
            "in an episode: two rows then compete for the same images and no answer is right.",
            DRAW_SECTION,
        ),
        Mistake(
            "one class only",
            _draws(lambda c, n, labels, g: c[torch.randint(len(c), (1,), generator=g)].expand(n)),
            "All rows of your episode are of one class. An accuracy measured on it would be 100 % "
            "and mean nothing.",
            DRAW_SECTION,
        ),
        Mistake(
            "always the same classes",
            _draws(lambda c, n, labels, g: c[:n]),
            "You always take the first n_way classes. The others would never be seen in training.",
            COVERAGE_SECTION,
        ),
        Mistake(
            "classes by their size",
            _draws(_by_size),
            "You draw classes by drawing examples, so a large class comes more often than a small "
            "one. In an episode all classes have the same chance; draw from the classes.",
            COVERAGE_SECTION,
        ),
        Mistake(
            "support leaks into query",
            _independent,
            "You draw support and query one after the other from the same examples, so an image "
            "can be in both, and its query is answered by looking at itself.",
            LEAK_SECTION,
        ),
        Mistake(
            "query begins at the support",
            _draws(split=lambda rows, k, q: (rows[:, :k], rows[:, :q])),
            "Your query takes the same first examples as the support. It has to begin where the "
            "support ends.",
            LEAK_SECTION,
        ),
        Mistake(
            "examples with repetition",
            _draws(pick=lambda p, n, g: p[torch.randint(len(p), (n,), generator=g)]),
            "Within a class you draw with repetition: an example can come twice, also once as "
            "support and once as query.",
            LEAK_SECTION,
        ),
        Mistake(
            "always the same examples",
            _draws(pick=lambda p, n, g: p[:n]),
            "You take the first examples of each class, in every episode the same ones. Shuffle "
            "the places before you cut.",
            DRAW_SECTION,
        ),
        Mistake(
            "no more than the smallest class",
            _as_the_smallest,
            "Of every class you draw from the first examples only, as many as the smallest class "
            "has. The others would never be seen; draw from all that a class has.",
            DRAW_SECTION,
        ),
        Mistake(
            "one order for all classes",
            _one_order,
            "You draw one random order and use it for every class, so that all classes of an "
            "episode have the same places drawn. Draw anew for each class.",
            DRAW_SECTION,
        ),
        Mistake(
            "a run of classes",
            _draws(_run_of_classes),
            "Your classes are neighbours in the sorted list: only the first is drawn, the others "
            "follow it. Classes that are far apart would never meet in an episode.",
            COVERAGE_SECTION,
        ),
        Mistake(
            "a run of examples",
            _draws(pick=_run_of_places),
            "Your examples follow each other in `labels`: only the first is drawn. In a scan these "
            "are neighbouring slices, which show nearly the same picture.",
            DRAW_SECTION,
        ),
        Mistake(
            "support before query",
            _draws(pick=lambda p, n, g: _shuffled(p, n, g).sort().values),
            "You sort the drawn places and cut them then: the support always comes before the "
            "query in `labels`. Cut them in the order in which they were drawn.",
            DRAW_SECTION,
        ),
        Mistake(
            "refused only when met",
            _refused_when_met,
            "You refuse a class that is too small only when it happens to be drawn. The same call "
            "then works with one seed and fails with another; look at all classes first.",
            DRAW_SECTION,
        ),
        Mistake(
            "places within the class",
            _within,
            "Your indices count within a class (its third example). Whoever uses them indexes the "
            "whole data set: translate them into places in `labels`.",
            DRAW_SECTION,
        ),
        Mistake(
            "classes numbered anew",
            _renumbered,
            "You return 0 … n_way−1 as classes. Those are the rows' numbers; `classes` says which "
            "labels they stand for.",
            DRAW_SECTION,
        ),
        Mistake(
            "queries of any class",
            _any_query,
            "Your queries come from all examples that are left, also from classes that are not in "
            "the episode. No prototype fits those.",
            DRAW_SECTION,
        ),
        Mistake(
            "a generator of its own",
            _own_generator,
            "Every seed gives the same episode: you draw from a generator of your own, not from "
            "the one you are given.",
            DRAW_SECTION,
        ),
        Mistake(
            "shots by ways",
            _across,
            "Your rows are shots and your columns classes. A row belongs to a class: (n_way, "
            "k_shot) and (n_way, n_query).",
            DRAW_SECTION,
        ),
        Mistake(
            "just enough is refused",
            _draws(exactly=False),
            "You refuse a class that has exactly k_shot + n_query examples. That is enough.",
            DRAW_SECTION,
        ),
        Mistake(
            "nothing refused",
            _draws(
                pick=lambda p, n, g: p[torch.randperm(len(p), generator=g)].repeat(n)[:n],
                refuses=False,
            ),
            "An episode that cannot be drawn comes out all the same, with fewer classes or with "
            "examples repeated. Say so with a ValueError instead.",
            DRAW_SECTION,
        ),
    ],
    variants=[
        V("lists and pop", _draw_lists),
        V("random keys, sorted", _draw_sorted),
        V("numpy's choice, seeded by the generator", _draw_numpy),
        V("multinomial, a dict of parts", _draw_multinomial),
    ],
    hints=[
        "Two draws follow each other: which classes, then which examples of each. In which of the "
        "two may something come twice?",
        "`torch.randperm(n, generator=generator)[:m]` draws m of n without repetition. For a class "
        "draw k_shot + n_query places at once and cut them in two: then nothing can be in both.",
        "In words: `unique` with counts; raise if there are too few; shuffle the classes, keep "
        "n_way; for each take the `nonzero` places of its label, shuffle, keep k_shot + n_query; "
        "stack, and cut behind column k_shot.",
    ],
    returns=("support", "query", "classes"),
    equivalent={
        "places = (labels == label).nonzero()[:, 0] → "
        "places = (labels == label).nonzero()[:, -1]": (
            "labels have one axis, so that nonzero gives one column, the first and the last"
        ),
    },
    withhold=[
        "episodes.draw_episode",
        "episodes.EpisodeSampler",
        "training.sample_episode",
        "training.sample_slices",
    ],
    difficulty=2,
    importance=5,
    minutes=20,
)

# ------------------------------------------------------------------------------------- find_leaks


def find_leaks(
    train_classes: Tensor, test_classes: Tensor, support: Tensor, query: Tensor, gap: int
) -> Drawn:
    """Say which classes are in both sets, which queries share a subject, which are neighbours."""
    shared = train_classes[torch.isin(train_classes, test_classes)].unique()
    same, near = _same(support, query), _away(support, query).abs() <= gap
    return shared, same.any(dim=1), (same & near).any(dim=1)


def _same(support: Tensor, query: Tensor) -> Tensor:
    return query[:, None, 0] == support[None, :, 0]  # (Q, S)


def _away(support: Tensor, query: Tensor) -> Tensor:
    return query[:, None, 1] - support[None, :, 1]  # (Q, S)


def _classes(g: Generator, shared: int) -> tuple[Tensor, Tensor]:
    """Draw training and test classes, of which so many are in both, with repetitions."""
    values = torch.randperm(30, generator=g)
    train, test = values[: 5 + shared], torch.cat([values[5 : 5 + shared], values[20:24]])
    train = torch.cat([train, train[-3:]])
    return train[torch.randperm(len(train), generator=g)], test.sort(descending=True).values


def _leaky_classes(g: Generator) -> Iterator[Case]:
    support, query = torch.tensor([[1, 10]]), torch.tensor([[2, 10], [3, 4]])
    yield Case("three classes in both", (*_classes(g, 3), support, query, 1))
    yield Case("one class in both", (*_classes(g, 1), support, query, 1))
    yield Case("no class in both", (*_classes(g, 0), support, query, 1))


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


def _clean(g: Generator) -> Iterator[Case]:
    slices = torch.randint(50, (4,), generator=g)
    support = torch.stack([torch.tensor([1, 2, 3, 5]), slices], dim=1)
    query = torch.stack([torch.tensor([4, 6, 8, 9]), slices.flip(0)], dim=1)
    yield Case("other subjects, the same slice numbers", (*_classes(g, 0), support, query, 2))


def _leaks(
    classes: Callable[[Tensor, Tensor], Tensor] | None = None,
    subjects: Callable[[Tensor], Tensor] = lambda same: same.any(1),
    neighbours: Callable[[Tensor, Tensor, int], Tensor] = lambda same, away, gap: (
        same & (away.abs() <= gap)
    ).any(1),
) -> Callable[..., Any]:
    """Make a detector that differs from the right one in what is given."""

    def find(train: Tensor, test: Tensor, support: Tensor, query: Tensor, gap: int) -> Any:
        shared = find_leaks(train, test, support, query, gap)[0]
        same, away = _same(support, query), _away(support, query)
        given = shared if classes is None else classes(train, test)
        return given, subjects(same), neighbours(same, away, gap)

    return find


def _leaks_sets(train: Tensor, test: Tensor, support: Tensor, query: Tensor, gap: int) -> Any:
    shared = sorted(set(train.tolist()) & set(test.tolist()))
    subjects = {s for s, _ in support.tolist()}
    near = [
        any(s == t and abs(i - j) <= gap for t, j in support.tolist()) for s, i in query.tolist()
    ]
    return shared, [s in subjects for s, _ in query.tolist()], near


def _leaks_numpy(train: Tensor, test: Tensor, support: Tensor, query: Tensor, gap: int) -> Any:
    a, b = support.numpy(), query.numpy()
    away = np.where(b[:, None, 0] == a[:, 0], np.abs(b[:, None, 1] - a[:, 1]), 10**9)
    shared = np.intersect1d(train.numpy(), test.numpy())
    return shared, np.isin(b[:, 0], a[:, 0]), away.min(axis=1) <= gap


def _leaks_distance(train: Tensor, test: Tensor, support: Tensor, query: Tensor, gap: int) -> Any:
    def far_apart(pairs: Tensor) -> Tensor:  # subjects so far apart that no gap reaches
        return (pairs[:, 0] * 1_000_000 + pairs[:, 1])[:, None].double()

    near = torch.cdist(far_apart(query), far_apart(support), p=1).min(dim=1).values <= gap
    shared = torch.tensor([c for c in train.unique().tolist() if bool((test == c).any())])
    return shared, torch.isin(query[:, 0], support[:, 0]), near


FIND_LEAKS = Answer(
    name="find_leaks",
    reference=find_leaks,
    section=LEAK_SECTION,
    checks=[
        Check("classes of training and of test", _leaky_classes),
        Check("queries of the support's subjects, and their neighbours", _leaky_slices, points=2),
        Check("no alarm where nothing leaks", _clean),
    ],
    mistakes=[
        Mistake(
            "neighbours across subjects",
            _leaks(neighbours=lambda same, away, gap: (away.abs() <= gap).any(1)),
            "You compare slice numbers without asking whose slices they are: slice 40 of one "
            "person is no neighbour of slice 40 of another.",
            LEAK_SECTION,
        ),
        Mistake(
            "two halves of two pairs",
            _leaks(neighbours=lambda same, away, gap: same.any(1) & (away.abs() <= gap).any(1)),
            "You ask whether some support slice is of the same subject and whether some support "
            "slice is near. It has to be one and the same: combine the two pair by pair, before "
            "`any`.",
            LEAK_SECTION,
        ),
        Mistake(
            "gap not included",
            _leaks(neighbours=lambda same, away, gap: (same & (away.abs() < gap)).any(1)),
            "A slice exactly `gap` away is a neighbour too; you leave it out.",
            LEAK_SECTION,
        ),
        Mistake(
            "one side only",
            _leaks(neighbours=lambda same, away, gap: (same & (away <= gap)).any(1)),
            "Your difference keeps its sign, so every slice below a support slice counts as near. "
            "A distance has no sign.",
            LEAK_SECTION,
        ),
        Mistake(
            "the gap forgotten",
            _leaks(neighbours=lambda same, away, gap: (same & (away == 0)).any(1)),
            "You find the support slice itself only. Its neighbours, a few millimetres away, look "
            "almost the same: that is what `gap` is for.",
            LEAK_SECTION,
        ),
        Mistake(
            "every slice of the subject",
            _leaks(neighbours=lambda same, away, gap: same.any(1)),
            "You call each slice of a support subject a neighbour. Neighbours lie within `gap` "
            "slices; the subject is reported by itself.",
            LEAK_SECTION,
        ),
        Mistake(
            "subject of all support slices",
            _leaks(subjects=lambda same: same.all(1)),
            "You report a query only if *all* support slices are of its subject. One is enough.",
            LEAK_SECTION,
        ),
        Mistake(
            "an answer for each support slice",
            _leaks(
                subjects=lambda same: same.any(0),
                neighbours=lambda same, away, gap: (same & (away.abs() <= gap)).any(0),
            ),
            "You give one answer for each support slice. Asked is one for each query.",
            LEAK_SECTION,
        ),
        Mistake(
            "all classes",
            _leaks(classes=lambda train, test: torch.cat([train, test]).unique()),
            "You listed the classes of training and test together. A leak is what is in both.",
            LEAK_SECTION,
        ),
        Mistake(
            "test classes never trained",
            _leaks(classes=lambda train, test: test[~torch.isin(test, train)].unique()),
            "You listed the test classes that training does not have: those are the honest ones.",
            LEAK_SECTION,
        ),
        Mistake(
            "classes with repetition",
            _leaks(classes=lambda train, test: train[torch.isin(train, test)].sort().values),
            "A class that stands several times in the training list comes several times from you. "
            "List each once.",
            LEAK_SECTION,
        ),
        Mistake(
            "turned round",
            _leaks(
                subjects=lambda same: ~same.any(1),
                neighbours=lambda same, away, gap: ~(same & (away.abs() <= gap)).any(1),
            ),
            "Your answer is turned round: True stands for a leak, not for a clean query.",
            LEAK_SECTION,
        ),
    ],
    variants=[
        V("sets and loops", _leaks_sets),
        V("numpy", _leaks_numpy),
        V("one distance for subject and slice", _leaks_distance),
        V("as found by masks", _leaks()),
    ],
    hints=[
        "Three questions, each by itself: classes in both lists, queries whose subject the support "
        "has, queries that lie near a support slice *of that subject*.",
        "Compare each query with each support slice: a table (Q, S) for «same subject», another "
        "for «within gap». Where must they be joined, before or after looking along a row?",
        "In words: `torch.isin` and `unique` for the classes; `query[:, None, 0] == support[None, "
        ":, 0]` for the subjects; the absolute difference of column 1, at most gap; `any` along "
        "axis 1 of the first, and of the two joined by `&`.",
    ],
    returns=("classes", "subjects", "neighbours"),
    equivalent={
        "near = (query[:, None, 1] - support[None, :, 1]).abs() <= gap → "
        "near = (support[None, :, 1] - query[:, None, 1]).abs() <= gap": (
            "the sign of a difference is lost in its absolute value"
        ),
        "same = query[:, None, 0] == support[None, :, 0] → "
        "same = query[:, 0, None] == support[None, :, 0]": (
            "a column with an axis behind it: taking the column first or the axis first is one"
        ),
        "near = (query[:, None, 1] - support[None, :, 1]).abs() <= gap → "
        "near = (query[:, 1, None] - support[None, :, 1]).abs() <= gap": (
            "a column with an axis behind it: taking the column first or the axis first is one"
        ),
    },
    difficulty=2,
    importance=5,
    minutes=15,
)

# ------------------------------------------------------------------------------ expected_coverage


def expected_coverage(n_classes: int, n_way: int, n_episodes: Any) -> Any:
    """Return N (1 − (1 − n/N)^T): how many classes T episodes are expected to show."""
    return n_classes * (1 - (1 - n_way / n_classes) ** n_episodes)


def _few_episodes(g: Generator) -> Iterator[Case]:
    n = 20 + int(torch.randint(60, (), generator=g))
    yield Case(f"5 of {n} classes, one episode", (n, 5, 1))
    yield Case(f"5 of {n} classes, 2 episodes", (n, 5, 2))
    yield Case(f"3 of {n} classes, 7 episodes", (n, 3, 7))
    yield Case("1 of 64 classes, 100 episodes", (64, 1, 100))


def _limits(g: Generator) -> Iterator[Case]:
    yield Case("no episode yet", (12, 5, 0))
    yield Case("every class in every episode", (6, 6, 3))
    yield Case("very many episodes", (10, 2, 500))


def _curve(g: Generator) -> Iterator[Case]:
    yield Case("a curve of 30 numbers of episodes", (25, 4, torch.arange(30)))
    yield Case("a table of them", (40, 5, torch.randint(60, (3, 4), generator=g)))


def _recursive(n_classes: int, n_way: int, n_episodes: Any) -> Any:
    most = int(torch.as_tensor(n_episodes).max())
    seen = [0.0]
    for _ in range(most):
        seen.append(seen[-1] + (n_classes - seen[-1]) * n_way / n_classes)
    return torch.tensor(seen)[n_episodes]


def _by_choices(n_classes: int, n_way: int, n_episodes: Any) -> Any:
    missed = math.comb(n_classes - 1, n_way) / math.comb(n_classes, n_way)
    return n_classes - n_classes * missed**n_episodes


def _by_logs(n_classes: int, n_way: int, n_episodes: Any) -> Any:
    episodes = torch.as_tensor(n_episodes).double()
    if n_way == n_classes:
        return n_classes * (episodes > 0).double()
    return -n_classes * torch.expm1(episodes * math.log1p(-n_way / n_classes))


EXPECTED_COVERAGE = Answer(
    name="expected_coverage",
    reference=expected_coverage,
    section=COVERAGE_SECTION,
    checks=[
        Check("expected number of classes seen", _few_episodes, points=2),
        Check("none at first, all in the end", _limits),
        Check("a whole curve at once", _curve),
    ],
    mistakes=[
        Mistake(
            "every draw a new class",
            lambda n, w, t: w * t * 1.0,
            "n_way times the number of episodes counts a class anew each time it comes. It grows "
            "beyond the number of classes there are.",
            COVERAGE_SECTION,
        ),
        Mistake(
            "new until all are there",
            lambda n, w, t: torch.clamp(torch.as_tensor(w * t) * 1.0, max=n),
            "You let every draw be a new class until none is left. Episodes know nothing of each "
            "other: classes come again long before all were seen.",
            COVERAGE_SECTION,
        ),
        Mistake(
            "one class an episode",
            lambda n, w, t: n * (1 - (1 - 1 / n) ** t),
            "You count one class an episode; an episode shows n_way of them.",
            COVERAGE_SECTION,
        ),
        Mistake(
            "with repetition within an episode",
            lambda n, w, t: n * (1 - (1 - 1 / n) ** (w * t)),
            "Your formula draws n_way · T classes independently. Within one episode classes are "
            "distinct, so one misses a class with probability 1 − n/N, not (1 − 1/N)^n.",
            COVERAGE_SECTION,
        ),
        Mistake(
            "classes not seen",
            lambda n, w, t: n * (1 - w / n) ** t,
            "This is how many classes are expected to be *missing*: it falls with the number of "
            "episodes.",
            COVERAGE_SECTION,
        ),
        Mistake(
            "share, not number",
            lambda n, w, t: 1 - (1 - w / n) ** t,
            "This is the probability that a given class was seen, the share. The number is that "
            "for all classes added up.",
            COVERAGE_SECTION,
        ),
        Mistake(
            "in every episode",
            lambda n, w, t: n * (1 - (w / n) ** t),
            "(n/N)^T is the probability that a class was in *every* episode. Seen at least once is "
            "the opposite of missed each time.",
            COVERAGE_SECTION,
        ),
        Mistake(
            "probability of all",
            lambda n, w, t: (1 - (1 - w / n) ** t) ** n,
            "You computed (about) the probability that all classes were seen. An expected number "
            "is a sum over the classes, not a product.",
            COVERAGE_SECTION,
        ),
        Mistake(
            "one episode too few",
            lambda n, w, t: n * (1 - (1 - w / n) ** (t - 1.0)) if w < n else n * 1.0 * (t > 1),
            "Your exponent is one too small: after one episode n_way classes have been seen, after "
            "none 0.",
            COVERAGE_SECTION,
        ),
        Mistake(
            "rounded",
            lambda n, w, t: torch.as_tensor(expected_coverage(n, w, t)).round(),
            "You rounded. An expected number need not be whole.",
            COVERAGE_SECTION,
        ),
    ],
    variants=[
        V("episode by episode", _recursive),
        V("by counting the choices", _by_choices),
        V("by logarithms", _by_logs),
        V("numpy", lambda n, w, t: n * (1 - np.power(1 - w / n, np.asarray(t)))),
    ],
    hints=[
        "Look at one class alone. With which probability is it in one episode? With which is it in "
        "none of T?",
        "The expected number of classes seen is the sum, over the classes, of the probability that "
        "each was seen, although classes are not independent of each other.",
        "In words: one minus n_way over n_classes, to the power of the episodes, is the chance to "
        "be missed; one minus that, times n_classes.",
    ],
    difficulty=2,
    importance=3,
    minutes=10,
)

# --------------------------------------------------------------------------------------- accuracy


def accuracy(log_p: Tensor) -> Tensor:
    """Give the share of queries whose most probable class is their row's; NaN is never right."""
    return _right(log_p).double().mean(dim=(-2, -1))


def _right(log_p: Tensor) -> Tensor:
    """Say of each query whether it is right: (…, n_way, n_query) bool."""
    return (log_p.argmax(-1) == _rows(log_p)) & ~log_p.isnan().any(-1)


def _rows(log_p: Tensor) -> Tensor:
    return torch.arange(log_p.shape[-1])[:, None]  # (n_way, 1)


def _posterior(g: Generator, *shape: int) -> Tensor:
    """Draw log-probabilities (…, n_way, n_query, n_way) that are right more often than not."""
    n_way = shape[-1]
    logits = torch.randn(shape, generator=g) + 1.5 * torch.eye(n_way)[:, None]
    logits[..., -1, 0, :] = torch.arange(n_way, 0, -1.0)  # the last class's first: wrong
    return logits.log_softmax(-1)


def _several_queries(g: Generator) -> Iterator[Case]:
    yield Case("5 ways, 4 queries", (_posterior(g, 5, 4, 5),))
    yield Case("3 ways, 7 queries", (_posterior(g, 3, 7, 3),))
    yield Case("4 ways, 4 queries", (_posterior(g, 4, 4, 4),))


def _single_query(g: Generator) -> Iterator[Case]:
    yield Case("5 ways, 1 query", (_posterior(g, 5, 1, 5),))
    right = (torch.randn(4, 1, 4, generator=g) + 20 * torch.eye(4)[:, None]).log_softmax(-1)
    yield Case("4 ways, 1 query, all right", (right,))


def _in_front(g: Generator) -> Iterator[Case]:
    yield Case("6 episodes", (_posterior(g, 6, 3, 5, 3),))
    yield Case("6 episodes, 1 query", (_posterior(g, 6, 4, 1, 4),))
    yield Case("2 × 3 episodes", (_posterior(g, 2, 3, 5, 2, 5),))


def _not_a_number(g: Generator) -> Iterator[Case]:
    collapsed = torch.full((3, 4, 3), math.nan)
    yield Case("nothing but NaN", (collapsed,))
    some = (torch.randn(4, 3, 4, generator=g) + 10 * torch.eye(4)[:, None]).log_softmax(-1)
    some[0, 1, 2] = math.nan
    some[1, 0, 3] = math.nan
    some[2, 0, 2] = math.nan
    some[3, 2] = math.nan
    yield Case("NaN in 4 of 12 queries", (some,))


def _as_found(log_p: Tensor) -> Tensor:
    n_way, n_query, _ = log_p.shape
    targets = torch.arange(n_way)[:, None].expand(n_way, n_query)
    return (log_p.argmax(dim=2).squeeze() == targets).double().mean()


def _unsqueezed(log_p: Tensor) -> Tensor:
    n_way, n_query, _ = log_p.shape
    targets = torch.arange(n_way)[:, None].expand(n_way, n_query)
    return (log_p.argmax(dim=2) == targets).double().mean()


def _share(right: Tensor) -> Tensor:
    return right.double().mean((-2, -1))


def _accuracy_loop(log_p: Tensor) -> Any:
    if log_p.ndim > 3:
        return torch.stack([torch.as_tensor(_accuracy_loop(part)) for part in log_p])
    right = 0
    for row, queries in enumerate(log_p.tolist()):
        for query in queries:
            right += not any(map(math.isnan, query)) and query.index(max(query)) == row
    return torch.tensor(right / (log_p.shape[0] * log_p.shape[1]))


def _accuracy_numpy(log_p: Tensor) -> Any:
    p = log_p.numpy()
    best = np.where(np.isnan(p).any(-1), -1, p.argmax(-1))
    return np.mean(best == np.arange(p.shape[-1])[:, None], axis=(-2, -1))


def _accuracy_flat(log_p: Tensor) -> Tensor:
    n_way, n_query = log_p.shape[-1], log_p.shape[-2]
    flat = log_p.flatten(-3, -2)  # (…, n_way · n_query, n_way)
    right = flat.argmax(-1) == torch.arange(n_way).repeat_interleave(n_query)
    return (right & flat.isfinite().all(-1)).sum(-1) / (n_way * n_query)


def _accuracy_one_hot(log_p: Tensor) -> Tensor:
    own = log_p.diagonal(dim1=-3, dim2=-1).mT  # (…, n_way, n_query): of the right class
    return (own[..., None] >= log_p).all(-1).double().mean((-2, -1))


ACCURACY = Answer(
    name="accuracy",
    reference=accuracy,
    section=ACCURACY_SECTION,
    checks=[
        Check("the share of right queries", _several_queries),
        Check("one query a class", _single_query, points=2),
        Check("a number for each episode", _in_front),
        Check("NaN is never right", _not_a_number),
    ],
    mistakes=[
        Mistake(
            "as found",
            _as_found,
            "This still does what the function you found does. It has three faults: try it with "
            "one query a class, with episodes in front, and with NaN.",
            ACCURACY_SECTION,
        ),
        Mistake(
            "the squeeze alone repaired",
            _unsqueezed,
            "The squeeze is gone; two faults are left. Try it with an axis of episodes in front, "
            "and with NaN.",
            ACCURACY_SECTION,
        ),
        Mistake(
            "still squeezed",
            lambda p: _share((p.argmax(-1).squeeze() == _rows(p)) & ~p.isnan().any(-1).squeeze()),
            "`squeeze()` still removes the query axis when there is one query; then (n_way,) meets "
            "(n_way, 1), broadcasting compares each with each, and a perfect answer gets 1/n_way.",
            ACCURACY_SECTION,
        ),
        Mistake(
            "NaN counted as class 0",
            lambda p: _share(p.argmax(-1) == _rows(p)),
            "`argmax` takes NaN for the largest, so a query of NaN is given the first class that "
            "has one, and is right by accident: a broken network seems to guess. Count NaN as "
            "wrong.",
            ACCURACY_SECTION,
        ),
        Mistake(
            "NaN made −∞",
            lambda p: _share(p.nan_to_num(-math.inf).argmax(-1) == _rows(p)),
            "You replaced NaN by −∞, so other classes of that query may still win, and a row of "
            "NaN goes to class 0. A query with NaN was not computed; it is wrong.",
            ACCURACY_SECTION,
        ),
        Mistake(
            "all episodes together",
            lambda p: _right(p).double().mean(),
            "You averaged over the episodes too. Each has its own accuracy: their spread is what "
            "an interval is made of.",
            ACCURACY_SECTION,
        ),
        Mistake(
            "a number for each class",
            lambda p: _right(p).double().mean(-1),
            "You averaged over the queries of each class and kept the classes. One number an "
            "episode is asked.",
            ACCURACY_SECTION,
        ),
        Mistake(
            "number of right ones",
            lambda p: _right(p).double().sum((-2, -1)),
            "You counted the right queries. The accuracy is their share.",
            ACCURACY_SECTION,
        ),
        Mistake(
            "share of wrong ones",
            lambda p: 1 - accuracy(p),
            "This is the share of *wrong* queries, the error rate.",
            ACCURACY_SECTION,
        ),
        Mistake(
            "least probable class",
            lambda p: _share((p.argmin(-1) == _rows(p)) & ~p.isnan().any(-1)),
            "You took the least probable class. (Distances want `argmin`, log-probabilities "
            "`argmax`.)",
            ACCURACY_SECTION,
        ),
        Mistake(
            "only whole classes of NaN",
            lambda p: _share((p.argmax(-1) == _rows(p)) & ~p.isnan().all(-1)),
            "You leave out queries all of whose classes are NaN. One NaN is enough to make its "
            "`argmax` worthless.",
            ACCURACY_SECTION,
        ),
    ],
    variants=[
        V("loops", _accuracy_loop),
        V("numpy", _accuracy_numpy),
        V("flattened queries", _accuracy_flat),
        V("own class at least as probable as each", _accuracy_one_hot),
    ],
    hints=[
        "Call the function as found with a perfect answer of one query a class, and print the "
        "shapes on both sides of its `==`.",
        "Three changes: no `squeeze`; axes counted from the end, and a mean over the last two; a "
        "query that has a NaN among its classes is not right, whatever `argmax` says.",
        "In words: compare the argmax over the last axis with a column 0 … n_way−1; join with «no "
        "NaN along the last axis»; average over axes −2 and −1.",
    ],
    withhold=["evaluation.episode_accuracy"],
    kind="repair",
    difficulty=2,
    importance=4,
    minutes=10,
)

EXERCISE = Exercise(
    number=2,
    name="episodes",
    title="Episodes, and what leaks into them",
    answers=[DRAW_EPISODE, FIND_LEAKS, EXPECTED_COVERAGE, ACCURACY],
)
