"""Exercise 08: a new site. Intensities, adapted prototypes, which slices, calibration (note §4)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from fewshot_lib.data import prepare
from fewshot_lib.checker.spec import Answer, Case, Check, Exercise, Mistake
from fewshot_lib.checker.spec import Variant as V

INTENSITY_SECTION = "notebook 08, «Is it the intensities?»"
ADAPT_SECTION = "notebook 08, «A few labelled slices of the new site»"
CHOICE_SECTION = "notebook 08, «Which slices?»"
CALIBRATION_SECTION = "notebook 08, «Does it know when it is wrong?»"
REJECT_SECTION = "notebook 08, «Does it know when it is wrong?»"

# -------------------------------------------------------------------------------------- normalise


def normalise(images: Tensor, low: float, high: float) -> Tensor:
    """Map the volume's own percentiles to 0 … 1, cut off beyond: the library's.

    Raises:
        ValueError: no contrast between the percentiles, or NaN in the image.
    """
    if images.isnan().any():
        raise ValueError("the image holds NaN")
    return prepare.rescale_percentiles(images, low, high)


def _scan(g: Generator, *shape: int) -> Tensor:
    """Draw slices of different brightness, with one voxel of metal."""
    images = torch.rand(shape, generator=g) * 40 + 100
    images += 25 * torch.arange(shape[0]).view(-1, 1, 1)
    images[1, 1, 1] = 900 + 300 * torch.rand((), generator=g)
    images[0, 0, 1] = -400.0
    return images


def _volumes(g: Generator) -> Iterator[Case]:
    yield Case("5 slices of 7 by 6", (_scan(g, 5, 7, 6), 1.0, 99.0))
    yield Case("3 slices of 8 by 9, 10 to 80 percent", (_scan(g, 3, 8, 9), 10.0, 80.0))
    yield Case("4 slices, 0 to 100 percent", (_scan(g, 4, 5, 6), 0.0, 100.0))


def _in_double(g: Generator) -> Iterator[Case]:
    yield Case("3 slices in float64", (_scan(g, 3, 6, 5).double(), 5.0, 90.0))


def _other_scanner(g: Generator) -> Iterator[Case]:
    images = _scan(g, 4, 6, 6)
    gain, offset = 0.5 + float(torch.rand((), generator=g)), float(torch.randn((), generator=g))
    yield Case("one scanner", (images, 5.0, 95.0))
    yield Case("the same, amplified and shifted", (images * gain + 50 * offset, 5.0, 95.0))


def _air(g: Generator) -> Iterator[Case]:
    images = _scan(g, 5, 6, 6)
    images[-1] = 100.0
    yield Case("a slice of one intensity among others", (images, 2.0, 98.0))


def _flat(g: Generator) -> Iterator[Case]:
    yield Case("one intensity everywhere", (torch.full((3, 4, 4), 37.0), 1.0, 99.0))
    speck = torch.zeros(3, 10, 10)
    speck[1, 2, 3] = 1.0
    yield Case("one intensity but for one voxel", (speck, 1.0, 99.0))


def _holed(g: Generator) -> Iterator[Case]:
    images = _scan(g, 3, 4, 4)
    images[2, 1, 3] = math.nan
    yield Case("one voxel is NaN", (images, 1.0, 99.0))


def _percentiles(images: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    levels = torch.tensor([low, high], dtype=images.dtype) / 100
    bottom, top = images.flatten().quantile(levels)
    return bottom, top


def _refusing(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Refuse what has no contrast, then do what the function does."""

    def scaled(images: Tensor, low: float, high: float) -> Tensor:
        bottom, top = _percentiles(images, low, high)
        if not top > bottom:
            raise ValueError("no contrast")
        return function(images, low, high)

    return scaled


def _normalise_as_found(images: Tensor, low: float, high: float) -> Tensor:
    bottom, top = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
    return (images - bottom) / (top - bottom)


def _each_slice(images: Tensor, low: float, high: float) -> Tensor:
    levels = torch.tensor([low, high], dtype=images.dtype) / 100
    bottom, top = images.flatten(1).quantile(levels, dim=1)[..., None, None]
    return ((images - bottom) / (top - bottom).clamp(min=1e-8)).clamp(0, 1)


def _extremes(images: Tensor, low: float, high: float) -> Tensor:
    return (images - images.min()) / (images.max() - images.min())


def _not_clamped(images: Tensor, low: float, high: float) -> Tensor:
    bottom, top = _percentiles(images, low, high)
    return (images - bottom) / (top - bottom)


def _standardised(images: Tensor, low: float, high: float) -> Tensor:
    return (images - images.mean()) / images.std()


def _divided_by_top(images: Tensor, low: float, high: float) -> Tensor:
    bottom, top = _percentiles(images, low, high)
    return ((images - bottom) / top).clamp(0, 1)


def _unrefused(images: Tensor, low: float, high: float) -> Tensor:
    bottom, top = _percentiles(images, low, high)
    return ((images - bottom) / (top - bottom)).clamp(0, 1)


def _nan_handed_on(images: Tensor, low: float, high: float) -> Tensor:
    bottom, top = _percentiles(images, low, high)
    if top <= bottom:
        raise ValueError("no contrast")
    return _unrefused(images, low, high)


def _softened(images: Tensor, low: float, high: float) -> Tensor:
    bottom, top = _percentiles(images, low, high)
    return ((images - bottom) / (top - bottom + 1e-8)).clamp(0, 1)


def _fractions(images: Tensor, low: float, high: float) -> Tensor:
    bottom, top = _percentiles(images, low / 100, high / 100)
    return ((images - bottom) / (top - bottom).clamp(min=1e-8)).clamp(0, 1)


def _clipped_only(images: Tensor, low: float, high: float) -> Tensor:
    bottom, top = _percentiles(images, low, high)
    return images.clamp(float(bottom), float(top))


def _normalise_numpy(images: Tensor, low: float, high: float) -> Any:
    values = images.numpy()
    bottom, top = np.percentile(values, [low, high])
    if not top > bottom:
        raise ValueError("no contrast")
    return np.clip((values - bottom) / (top - bottom), 0.0, 1.0)


def _normalise_sorted(images: Tensor, low: float, high: float) -> Tensor:
    values = images.flatten().sort().values.double()
    found = []
    for level in (low, high):
        place = level / 100 * (len(values) - 1)
        below = math.floor(place)
        above = min(below + 1, len(values) - 1)
        found.append(values[below] + (place - below) * (values[above] - values[below]))
    if not found[1] - found[0] > 0:
        raise ValueError("no contrast")
    return ((images - found[0]) / (found[1] - found[0])).clamp(0, 1)


def _normalise_interpolated(images: Tensor, low: float, high: float) -> Any:
    bottom, top = (float(v) for v in _percentiles(images.double(), low, high))
    if not bottom < top:
        raise ValueError("no contrast")
    return np.interp(images.numpy(), [bottom, top], [0.0, 1.0])


def _normalise_clipped_first(images: Tensor, low: float, high: float) -> Tensor:
    bottom, top = _percentiles(images, low, high)
    if not bottom < top:
        raise ValueError("no contrast")
    return (images.clamp(float(bottom), float(top)) - bottom) / (top - bottom)


NORMALISE = Answer(
    name="normalise",
    reference=normalise,
    section=INTENSITY_SECTION,
    checks=[
        Check("percentiles of the whole volume, cut off beyond", _volumes, points=1.5),
        Check("a volume in float64 as well", _in_double, points=0.5),
        Check(
            "a scanner that amplifies and shifts gives the same",
            _other_scanner,
            law=lambda cases, results: bool(np.allclose(results[0], results[1], atol=1e-4)),
            says="the same patient on a scanner with another gain and offset comes out different",
        ),
        Check("a slice without contrast keeps its place", _air),
        Check("a volume without contrast is refused", _flat),
        Check("a volume with NaN is refused", _holed),
    ],
    mistakes=[
        Mistake(
            "as found",
            _normalise_as_found,
            "This still does what the function you found does: it scales slice by slice, by the "
            "extremes, and divides by 0 where a slice has no contrast.",
            INTENSITY_SECTION,
        ),
        Mistake(
            "each slice by itself",
            _refusing(_each_slice),
            "You took percentiles of each slice. The same tissue then has another grey in every "
            "slice, depending on what else the slice shows; take them of the volume.",
            INTENSITY_SECTION,
        ),
        Mistake(
            "by the extremes",
            _refusing(_extremes),
            "You scaled by the smallest and the largest value of the volume, so one voxel of metal "
            "decides the grey of everything. Use the percentiles that are given.",
            INTENSITY_SECTION,
        ),
        Mistake(
            "not cut off",
            _refusing(_not_clamped),
            "Values beyond the percentiles come out below 0 and above 1. The promise is 0 … 1: cut "
            "them off.",
            INTENSITY_SECTION,
        ),
        Mistake(
            "standardised",
            _refusing(_standardised),
            "You subtracted the mean and divided by the standard deviation. That undoes gain and "
            "offset, too, but it is not asked, and metal and air pull at both numbers.",
            INTENSITY_SECTION,
        ),
        Mistake(
            "divided by the upper percentile",
            _refusing(_divided_by_top),
            "You divided by the upper percentile, not by the distance between the two; the upper "
            "one does not come out as 1, and an offset of the scanner changes the result.",
            INTENSITY_SECTION,
        ),
        Mistake(
            "no contrast becomes NaN",
            _unrefused,
            "Without contrast between the percentiles you divide by 0 and hand on NaN (or let one "
            "voxel be everything). An empty scan is an error of the export; say so by ValueError.",
            INTENSITY_SECTION,
        ),
        Mistake(
            "no contrast hidden by ε",
            _softened,
            "A small number below the line turns an empty scan into zeros, silently. Someone will "
            "read them as an image; refuse it by ValueError.",
            INTENSITY_SECTION,
        ),
        Mistake(
            "NaN handed on",
            _nan_handed_on,
            "One voxel is NaN, both percentiles become NaN, and so does the whole volume. NaN is "
            "neither above nor below anything: `top <= bottom` does not notice it, `not top > "
            "bottom` does.",
            INTENSITY_SECTION,
        ),
        Mistake(
            "percent taken for percentiles of 1",
            _refusing(_fractions),
            "You divided the percents by 100 once too often: 99 means that 99 of 100 voxels are "
            "darker, not one in a hundred.",
            INTENSITY_SECTION,
        ),
        Mistake(
            "cut off, not scaled",
            _refusing(_clipped_only),
            "You cut the volume off at its percentiles and left the unit of the scanner. Map the "
            "lower percentile to 0 and the upper to 1.",
            INTENSITY_SECTION,
        ),
    ],
    variants=[
        V("numpy", _normalise_numpy),
        V("percentiles by sorting", _normalise_sorted),
        V("interpolation between the percentiles", _normalise_interpolated),
        V("cut off first", _normalise_clipped_first),
    ],
    hints=[
        "Put two slices of one patient side by side: does the same tissue get the same grey? And "
        "if there is a metal clip in one of them?",
        "`quantile` of the flattened volume takes numbers from 0 to 1. What is the difference of "
        "the two when there is no contrast?",
        "In words: quantiles of the flattened volume at low/100 and high/100; ValueError if the "
        "upper is not above the lower; subtract the lower, divide by the difference, clamp to 0 … "
        "1.",
    ],
    withhold=["data.prepare.rescale_percentiles", "data.prepare.scale_intensities"],
    kind="repair",
    difficulty=2,
    importance=4,
    minutes=10,
)

# ------------------------------------------------------------------------------- adapt_prototypes


def adapt_prototypes(source: Tensor, embeddings: Tensor, labels: Tensor, strength: float) -> Tensor:
    """Return (m s_k + Σ z_n) / (m + n_k), the source's prototype where the site has no label.

    Raises:
        ValueError: a strength below 0, or a label outside 0 … K−1.
    """
    if strength < 0:
        raise ValueError(f"strength must be 0 or more, got {strength}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(source):
        raise ValueError(f"labels must lie in 0 … {len(source) - 1}")
    total, count = _sums(source, embeddings, labels)
    return torch.where(count > 0, (strength * source + total) / (strength + count), source)


def _sums(source: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and count the embeddings of each class: (K, D), (K, 1)."""
    known = (labels >= 0) & (labels < len(source))
    total = torch.zeros_like(source).index_add(0, labels[known], embeddings[known])
    count = labels[known].bincount(minlength=len(source)).to(source.dtype)[:, None]
    return total, count


def _site(g: Generator, counts: Sequence[int], n_dims: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw source prototypes, and a site's embeddings (moved and spread) with their labels."""
    source = 2 * torch.randn(len(counts), n_dims, generator=g)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=g)]
    moved = torch.randn(n_dims, generator=g) + 1
    embeddings = source[labels] + moved + torch.randn(len(labels), n_dims, generator=g)
    return source, embeddings, labels


def _both_count(g: Generator) -> Iterator[Case]:
    yield Case("3 classes of 2, 5 and 9 labels, strength 4", (*_site(g, (2, 5, 9), 4), 4.0))
    yield Case("2 classes of 7 and 3 labels, strength 0.5", (*_site(g, (7, 3), 6), 0.5))
    yield Case("one class, one label, strength 1", (*_site(g, (1,), 3), 1.0))


def _the_site_alone(g: Generator) -> Iterator[Case]:
    yield Case("3 classes, strength 0", (*_site(g, (4, 2, 6), 5), 0.0))


def _unlabelled(g: Generator) -> Iterator[Case]:
    for strength in (0.0, 3.0):
        site = _site(g, (3, 0, 5, 0), 4)
        yield Case(f"2 of 4 classes without a label, strength {strength:g}", (*site, strength))
    source, embeddings, labels = _site(g, (2, 2), 3)
    yield Case("no label at all, strength 0", (source, embeddings[:0], labels[:0], 0.0))
    yield Case("no label at all, strength 2", (source, embeddings[:0], labels[:0], 2.0))


def _portions(g: Generator) -> Iterator[Case]:
    source, embeddings, labels = _site(g, (4, 4, 4), 3)
    for times in (1, 4, 16):
        repeated = (embeddings.repeat(times, 1), labels.repeat(times))
        yield Case(f"the same labels {times} times", (source, *repeated, 6.0))
    yield Case("strength 0", (source, embeddings, labels, 0.0))


def _nearer(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    *more, limit = (np.asarray(r, float) for r in results)
    apart = [float(np.abs(r - limit).max()) for r in more]
    if all(later < earlier for earlier, later in itertools.pairwise(apart)):
        return True
    return "more labels of the site do not bring the prototypes nearer to its own means"


def _unusable(g: Generator) -> Iterator[Case]:
    source, embeddings, labels = _site(g, (3, 3), 4)
    yield Case("strength −1", (source, embeddings, labels, -1.0))
    yield Case("a label 2 with 2 prototypes", (source, embeddings, labels + 1, 2.0))
    yield Case("a label −1", (source, embeddings, labels - 1, 2.0))


Mix = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def _mixed(formula: Mix, keep: bool = True, refuse: bool = True) -> Callable[..., Tensor]:
    """Make an adaptation from a formula of source, sum, count and strength."""

    def adapted(source: Tensor, embeddings: Tensor, labels: Tensor, strength: float) -> Tensor:
        if refuse:
            adapt_prototypes(source, embeddings, labels, strength)
        total, count = _sums(source, embeddings, labels)
        value = formula(source, total, count, strength)
        return torch.where(count > 0, value, source) if keep else value

    return adapted


def _one_vector(source: Tensor, embeddings: Tensor, labels: Tensor, strength: float) -> Tensor:
    adapt_prototypes(source, embeddings, labels, strength)
    if not len(labels):
        return source
    shift = (embeddings - source[labels]).sum(0) / (strength + len(labels))
    return source + shift


def _running_half(source: Tensor, embeddings: Tensor, labels: Tensor, strength: float) -> Tensor:
    current = adapt_prototypes(source, embeddings[:0], labels[:0], strength).clone()
    adapt_prototypes(source, embeddings, labels, strength)
    for z, k in zip(embeddings, labels, strict=True):
        current[k] = (current[k] + z) / 2
    return current


def _adapt_loop(source: Tensor, embeddings: Tensor, labels: Tensor, strength: float) -> Any:
    if strength < 0 or any(not 0 <= k < len(source) for k in labels.tolist()):
        raise ValueError("unusable")
    rows = []
    for k in range(len(source)):
        mine = embeddings[labels == k]
        rows.append(
            source[k]
            if len(mine) == 0
            else (strength * source[k] + mine.sum(0)) / (strength + len(mine))
        )
    return torch.stack(rows)


def _adapt_one_hot(source: Tensor, embeddings: Tensor, labels: Tensor, strength: float) -> Any:
    if strength < 0:
        raise ValueError("unusable")
    try:
        one_hot = torch.nn.functional.one_hot(labels, len(source)).to(source.dtype)  # (N, K)
    except RuntimeError as error:
        raise ValueError("unusable") from error
    share = one_hot.sum(0) / (one_hot.sum(0) + strength)
    mean = one_hot.T @ embeddings / one_hot.sum(0).clamp(min=1)[:, None]
    return source + share.nan_to_num(0.0)[:, None] * (mean - source)


def _adapt_numpy(source: Tensor, embeddings: Tensor, labels: Tensor, strength: float) -> Any:
    s, z, y = source.numpy(), embeddings.numpy(), labels.numpy()
    if strength < 0 or (len(y) and (y.min() < 0 or y.max() >= len(s))):
        raise ValueError("unusable")
    total, count = np.zeros_like(s), np.zeros((len(s), 1))
    np.add.at(total, y, z)
    np.add.at(count, y, 1)
    with np.errstate(all="ignore"):
        return np.where(count > 0, (strength * s + total) / (strength + count), s)


def _adapt_one_at_a_time(
    source: Tensor, embeddings: Tensor, labels: Tensor, strength: float
) -> Any:
    if strength < 0 or ((labels < 0) | (labels >= len(source))).any():
        raise ValueError("unusable")
    current, weight = source.clone(), torch.full((len(source),), float(strength))
    for z, k in zip(embeddings, labels, strict=True):  # each label moves its prototype a little
        weight[k] += 1
        current[k] += (z - current[k]) / weight[k]
    return current


ADAPT_PROTOTYPES = Answer(
    name="adapt_prototypes",
    reference=adapt_prototypes,
    section=ADAPT_SECTION,
    withhold=["heads", "mixture", "networks", "prototypes"],
    checks=[
        Check("source and site weighted by what each knows", _both_count, points=2),
        Check("strength 0: the site's own means", _the_site_alone),
        Check("a class without a label keeps its prototype", _unlabelled),
        Check("more labels, nearer to the site's means", _portions, law=_nearer),
        Check("what cannot be is refused", _unusable),
    ],
    mistakes=[
        Mistake(
            "source forgotten",
            _mixed(lambda s, t, n, m: t / n),
            "You took the means of the new labels and forgot the source. Two labelled pixels are a "
            "poor estimate; the source's prototype counts as `strength` more.",
            ADAPT_SECTION,
        ),
        Mistake(
            "halfway",
            _mixed(lambda s, t, n, m: (s + t / n) / 2),
            "You took the middle between the old prototype and the new mean, however many labels "
            "there are. One label must count less than a hundred.",
            ADAPT_SECTION,
        ),
        Mistake(
            "a running half",
            _running_half,
            "Each new label moves its prototype half-way to itself. The last label then counts as "
            "much as all before it, and `strength` does not enter; all labels of a class count "
            "alike.",
            ADAPT_SECTION,
        ),
        Mistake(
            "new mean counted once",
            _mixed(lambda s, t, n, m: (m * s + t / n) / (m + 1)),
            "Your new mean counts as one example, however many it was made of. The source counts "
            "as `strength` examples, the new labels as their number.",
            ADAPT_SECTION,
        ),
        Mistake(
            "source counted once",
            _mixed(lambda s, t, n, m: (s + t) / (1 + n)),
            "The source's prototype counts as one example with you; it should count as `strength`.",
            ADAPT_SECTION,
        ),
        Mistake(
            "divided by all labels",
            _mixed(lambda s, t, n, m: (m * s + t) / (m + n.sum())),
            "You divided by the number of all labels. Each class has its own number; a class with "
            "few would shrink towards 0.",
            ADAPT_SECTION,
        ),
        Mistake(
            "weights exchanged",
            _mixed(lambda s, t, n, m: (n * s + m * t / n) / (m + n)),
            "The weights are exchanged: with you, more labels pull towards the source.",
            ADAPT_SECTION,
        ),
        Mistake(
            "one weight for all classes",
            _mixed(lambda s, t, n, m: s + n.sum() / (n.sum() + m) * (t / n - s)),
            "You used one weight for all classes, from the number of all labels. A class with two "
            "labels deserves less trust than one with a hundred.",
            ADAPT_SECTION,
        ),
        Mistake(
            "strength taken for a share",
            _mixed(lambda s, t, n, m: m * s + (1 - m) * t / n),
            "You read `strength` as a share between 0 and 1. It is a number of examples: as many "
            "as the source's prototype is worth.",
            ADAPT_SECTION,
        ),
        Mistake(
            "everything moved by one vector",
            _one_vector,
            "You moved all prototypes by one vector, the average shift of the site. Worth trying "
            "when a scanner only shifts, but asked is each class by its own labels.",
            ADAPT_SECTION,
        ),
        Mistake(
            "0/0 where nothing is labelled",
            _mixed(lambda s, t, n, m: (m * s + t) / (m + n), keep=False),
            "With strength 0 a class without labels comes out as 0/0. Nothing was learnt about it; "
            "it keeps the source's prototype.",
            ADAPT_SECTION,
        ),
        Mistake(
            "zero where nothing is labelled",
            _mixed(lambda s, t, n, m: torch.where(n > 0, (m * s + t) / (m + n), 0), keep=False),
            "A class without labels gets the prototype 0 from you, and will win or lose by "
            "accident. It keeps the source's.",
            ADAPT_SECTION,
        ),
        Mistake(
            "made unit vectors",
            _mixed(lambda s, t, n, m: torch.nn.functional.normalize((m * s + t) / (m + n), dim=-1)),
            "You brought the result to length 1. A cosine does not mind, a distance does; and "
            "nobody asked.",
            ADAPT_SECTION,
        ),
        Mistake(
            "impossible things accepted",
            _mixed(lambda s, t, n, m: (m * s + t) / (m + n), refuse=False),
            "A negative strength, or a label without a prototype, is accepted in silence. A label "
            "map that is off by one organ looks just like this; refuse it by ValueError.",
            ADAPT_SECTION,
        ),
    ],
    variants=[
        V("loop over classes", _adapt_loop),
        V("one-hot and a share", _adapt_one_hot),
        V("numpy", _adapt_numpy),
        V("label by label, a running mean", _adapt_one_at_a_time),
    ],
    hints=[
        "Imagine that the source's prototype were `strength` labelled examples of the new site, "
        "all at one place. What would the class mean be?",
        "Sum and count the embeddings of each class. With strength 0 and no label both weights are "
        "0; what do you know about that class?",
        "In words: for each class, strength times source plus the sum of its embeddings, over "
        "strength plus their number; where the number is 0, the source; before that, ValueError "
        "for a negative strength or a label outside 0 … K−1.",
    ],
    difficulty=2,
    importance=5,
    minutes=15,
)

# ---------------------------------------------------------------------------------- choose_slices


def choose_slices(features: Tensor, n_slices: int) -> Tensor:
    """Choose the medoid, then again and again the slice farthest from all chosen ones.

    Raises:
        ValueError: fewer than 1 slice, or more than there are.
    """
    apart = _apart(features, n_slices)
    return _greedy(apart, int(apart.sum(1).argmin()), n_slices)


def _apart(features: Tensor, n_slices: int) -> Tensor:
    """Measure all distances, (Z, Z), after a look at the number."""
    if not 1 <= n_slices <= len(features):
        raise ValueError(f"n_slices must lie in 1 … {len(features)}, got {n_slices}")
    return (features[:, None] - features[None]).norm(dim=-1)


Nearness = Callable[[Tensor, list[int]], Tensor]


def _to_the_nearest(apart: Tensor, chosen: list[int]) -> Tensor:
    return apart[:, chosen].amin(1)


def _greedy(
    apart: Tensor,
    start: int,
    n_slices: int,
    score: Nearness = _to_the_nearest,
    again: bool = False,
) -> Tensor:
    chosen = [start]
    while len(chosen) < n_slices:
        distance = score(apart, chosen).clone()
        if not again:
            distance[chosen] = -1.0
        chosen.append(int(distance.argmax()))
    return torch.tensor(chosen)


def _clusters(g: Generator, sizes: Sequence[int], n_dims: int = 4) -> Tensor:
    """Draw slices in clusters of different sizes, with one slice far away from all."""
    centres = 6 * torch.randn(len(sizes), n_dims, generator=g)
    which = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    features = centres[which] + torch.randn(len(which), n_dims, generator=g)
    features = features[torch.randperm(len(which), generator=g)]
    features[2] = 40 + torch.randn(n_dims, generator=g)
    return features


def _volumes_of_slices(g: Generator) -> Iterator[Case]:
    yield Case("5 of 18 slices", (_clusters(g, (9, 5, 4)), 5))
    yield Case("4 of 20 slices", (_clusters(g, (3, 8, 6, 3), 7), 4))
    yield Case("3 of 9 slices", (_clusters(g, (5, 4), 2), 3))


def _the_first(g: Generator) -> Iterator[Case]:
    for sizes in ((6, 5), (9, 2, 3), (4, 4, 4)):
        yield Case(f"1 of {sum(sizes)} slices", (_clusters(g, sizes), 1))


def _equal_slices(g: Generator) -> Iterator[Case]:
    features = _clusters(g, (4, 4))
    features[5] = features[2]
    yield Case("8 of 8 slices, two of them equal", (features, 8))
    yield Case("all slices", (_clusters(g, (3, 3)), 6))


def _moved(g: Generator) -> Iterator[Case]:
    features = _clusters(g, (6, 5, 4))
    turn = torch.linalg.qr(torch.randn(4, 4, generator=g)).Q
    yield Case("as they are", (features, 4))
    yield Case("moved, turned and enlarged", (3 * features @ turn + 5, 4))


def _too_many(g: Generator) -> Iterator[Case]:
    features = _clusters(g, (4, 4))
    yield Case("9 of 8 slices", (features, 9))
    yield Case("none", (features, 0))


def _choosing(pick: Callable[[Tensor, Tensor, int], Any]) -> Callable[..., Any]:
    """Make a choice from features, distances and number, after a look at the number."""

    def chosen(features: Tensor, n_slices: int) -> Any:
        return pick(features, _apart(features, n_slices), n_slices)

    return chosen


def _scored(score: Nearness) -> Callable[..., Tensor]:
    return _choosing(lambda f, d, n: _greedy(d, int(d.sum(1).argmin()), n, score))


def _from(start: Callable[[Tensor, Tensor], int]) -> Callable[..., Tensor]:
    return _choosing(lambda f, d, n: _greedy(d, start(f, d), n))


def _evenly(features: Tensor, apart: Tensor, n_slices: int) -> Tensor:
    return torch.linspace(0, len(features) - 1, n_slices).round().long()


def _far_from_mean(features: Tensor, n_slices: int) -> Tensor:
    apart = _apart(features, n_slices)
    chosen = [int(apart.sum(1).argmin())]
    while len(chosen) < n_slices:
        distance = (features - features[chosen].mean(0)).norm(dim=-1)
        distance[chosen] = -1.0
        chosen.append(int(distance.argmax()))
    return torch.tensor(chosen)


def _repeating(features: Tensor, apart: Tensor, n_slices: int) -> Tensor:
    return _greedy(apart, int(apart.sum(1).argmin()), n_slices, again=True)


def _unchecked(features: Tensor, n_slices: int) -> Tensor:
    return choose_slices(features, min(max(n_slices, 1), len(features)))


def _choose_loop(features: Tensor, n_slices: int) -> Any:
    rows = features.tolist()
    if n_slices < 1 or n_slices > len(rows):
        raise ValueError("impossible")
    total = [math.fsum(math.dist(a, b) for b in rows) for a in rows]
    chosen = [total.index(min(total))]
    while len(chosen) < n_slices:
        left = [z for z in range(len(rows)) if z not in chosen]
        chosen.append(max(left, key=lambda z: min(math.dist(rows[z], rows[c]) for c in chosen)))
    return torch.tensor(chosen)


def _choose_numpy(features: Tensor, n_slices: int) -> Any:
    f = features.numpy().astype(float)
    if not 0 < n_slices <= len(f):
        raise ValueError("impossible")
    apart = np.sqrt(((f[:, None] - f[None]) ** 2).sum(-1))
    chosen = [int(apart.mean(0).argmin())]
    for _ in range(n_slices - 1):
        left = np.setdiff1d(np.arange(len(f)), chosen)
        chosen.append(int(left[apart[np.ix_(left, np.array(chosen))].min(1).argmax()]))
    return np.array(chosen)


def _choose_updating(features: Tensor, n_slices: int) -> Any:
    apart = _apart(features, n_slices)
    chosen, nearest = [int(apart.mean(1).argmin())], torch.full((len(features),), math.inf)
    for _ in range(1, n_slices):
        nearest = torch.minimum(nearest, apart[chosen[-1]])
        nearest[chosen[-1]] = -math.inf
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen)


def _choose_squared(features: Tensor, n_slices: int) -> Any:
    if n_slices not in range(1, len(features) + 1):
        raise ValueError("impossible")
    squared = ((features[:, None] - features[None]) ** 2).sum(-1)
    start = int(squared.sqrt().sum(1).argmin())
    return _greedy(squared, start, n_slices)  # squares keep the order of distances


CHOOSE_SLICES = Answer(
    name="choose_slices",
    reference=choose_slices,
    section=CHOICE_SECTION,
    checks=[
        Check("the most typical one first", _the_first),
        Check("then the farthest from all chosen", _volumes_of_slices, points=2),
        Check("each slice once", _equal_slices),
        Check(
            "only distances matter",
            _moved,
            law=lambda cases, results: bool(np.array_equal(results[0], results[1])),
            says="features that were moved, turned and enlarged together give another choice",
        ),
        Check("too many or none is refused", _too_many),
    ],
    mistakes=[
        Mistake(
            "begun with the first slice",
            _from(lambda f, d: 0),
            "You began with slice 0. The first slice of a scan is its edge; the choice should "
            "begin with the most typical slice, the medoid.",
            CHOICE_SECTION,
        ),
        Mistake(
            "begun with the strangest",
            _from(lambda f, d: int(d.sum(1).argmax())),
            "You began with the slice that is farthest from the others. That is the strangest one "
            "(and often an artefact); the smallest sum of distances is the most typical.",
            CHOICE_SECTION,
        ),
        Mistake(
            "begun nearest to the mean",
            _from(lambda f, d: int((f - f.mean(0)).norm(dim=-1).argmin())),
            "You began with the slice nearest to the mean. One strange slice pulls the mean away; "
            "the medoid has the smallest sum of distances and hardly minds.",
            CHOICE_SECTION,
        ),
        Mistake(
            "far from the last one only",
            _scored(lambda d, chosen: d[:, chosen[-1]]),
            "You look at the slice chosen last only, so the choice jumps to and fro between two "
            "ends. The distance that counts is the one to the nearest of all chosen.",
            CHOICE_SECTION,
        ),
        Mistake(
            "sum of distances",
            _scored(lambda d, chosen: d[:, chosen].sum(1)),
            "You add up the distances to the chosen slices. A slice next to one chosen slice and "
            "far from the others scores high although it brings nothing new: take the smallest "
            "distance.",
            CHOICE_SECTION,
        ),
        Mistake(
            "largest distance",
            _scored(lambda d, chosen: d[:, chosen].amax(1)),
            "You take the distance to the farthest chosen slice. New is what is far from the "
            "nearest.",
            CHOICE_SECTION,
        ),
        Mistake(
            "far from the mean of the chosen",
            _far_from_mean,
            "You measure the distance to the mean of the chosen slices, a slice that does not "
            "exist. Between two clusters it is near to nothing.",
            CHOICE_SECTION,
        ),
        Mistake(
            "nearest instead of farthest",
            _scored(lambda d, chosen: -d[:, chosen].amin(1) / 1e6),
            "You add the slice that is nearest to the chosen ones: the neighbours of the first, "
            "which show the same once more.",
            CHOICE_SECTION,
        ),
        Mistake(
            "the strangest ones",
            _choosing(lambda f, d, n: d.sum(1).argsort(descending=True, stable=True)[:n]),
            "You took the slices that are farthest from everything, all at once. They may be "
            "neighbours of each other; look again after each choice.",
            CHOICE_SECTION,
        ),
        Mistake(
            "the most typical ones",
            _choosing(lambda f, d, n: d.sum(1).argsort(stable=True)[:n]),
            "You took the most typical slices, all at once. They resemble each other; after the "
            "first, what is unlike it helps more.",
            CHOICE_SECTION,
        ),
        Mistake(
            "sorted",
            lambda features, n: choose_slices(features, n).sort().values,
            "You sorted the choice. Its order is part of the answer: whoever has time for two "
            "slices only labels the first two.",
            CHOICE_SECTION,
        ),
        Mistake(
            "evenly by number",
            _choosing(_evenly),
            "You spread the slices evenly over the scan. A good rule when nothing is known about "
            "them, but the features are not used.",
            CHOICE_SECTION,
        ),
        Mistake(
            "a slice twice",
            _choosing(_repeating),
            "When only copies of chosen slices are left, all distances are 0, and you choose a "
            "slice again. Leave the chosen ones out.",
            CHOICE_SECTION,
        ),
        Mistake(
            "number not looked at",
            _unchecked,
            "Asked for more slices than there are (or for none) you return another number of them "
            "in silence. Refuse it by ValueError.",
            CHOICE_SECTION,
        ),
    ],
    variants=[
        V("lists and loops", _choose_loop),
        V("numpy", _choose_numpy),
        V("distance to the nearest kept up to date", _choose_updating),
        V("squared distances after the first", _choose_squared),
    ],
    hints=[
        "Two questions: which slice is most like all others? And which slice, given some, is least "
        "like any of them?",
        "The table of all distances (Z, Z) answers both: sums of rows for the first, and for the "
        "others the smallest entry among the columns of the chosen slices.",
        "In words: begin with the row of the smallest sum; then, until there are enough, take the "
        "minimum over the chosen columns, set it to −1 at the chosen rows, and append the argmax.",
    ],
    equivalent={
        "return torch.tensor(chosen) → return chosen": "a list of whole numbers is accepted",
        "apart = (features[:, None] - features[None]).norm(dim=-1) → "
        "apart = (features[None] - features[:, None]).norm(dim=-1)": (
            "a length does not see the sign of a difference"
        ),
        "chosen = [int(apart.sum(dim=1).argmin())] → chosen = [int(apart.mean(dim=1).argmin())]": (
            "sum and mean of rows of one length have their minimum at the same row"
        ),
        "chosen = [int(apart.sum(dim=1).argmin())] → "
        "chosen = [int(apart.sum(dim=0).argmin())]": "the table of distances is symmetric",
    },
    difficulty=3,
    importance=4,
    minutes=20,
)

# --------------------------------------------------------------------------------- most_uncertain


def most_uncertain(log_p: Tensor, n_slices: int, gap: int) -> Tensor:
    """Choose slices by their mean entropy, no two of them ``gap`` or fewer apart.

    Raises:
        ValueError: so many slices so far apart are not to be found.
    """
    return _by_uncertainty(_entropy(log_p).mean((-2, -1)), n_slices, gap)


def _entropy(log_p: Tensor) -> Tensor:
    """Give the entropy of each pixel, 0 · log 0 = 0: (Z, K, H, W) → (Z, H, W)."""
    return torch.special.entr(log_p.exp()).sum(1)


def _by_uncertainty(uncertainty: Tensor, n_slices: int, gap: int) -> Tensor:
    free, chosen = torch.ones(len(uncertainty), dtype=torch.bool), []
    for _ in range(n_slices):
        if not free.any():
            raise ValueError(f"there are no {n_slices} slices more than {gap} apart")
        best = int(uncertainty.where(free, -math.inf).argmax())
        chosen.append(best)
        free &= (torch.arange(len(free)) - best).abs() > gap
    return torch.tensor(chosen, dtype=torch.long)


#: Posteriors (K = 3) of a pixel: sure, torn between two, leaning among three.
_SURE, _TORN, _LEANING = (1.0, 0.0, 0.0), (0.5, 0.5, 0.0), (0.6, 0.2, 0.2)
_OPEN, _LIKELY = (0.45, 0.275, 0.275), (0.9, 0.1, 0.0)


def _smooth(g: Generator, n_slices: int, n_classes: int = 3) -> Tensor:
    """Draw log-posteriors whose certainty changes smoothly along the scan, with its peak inside."""
    sure = torch.rand(n_slices, generator=g) * 0.6
    peak = int(torch.randint(3, n_slices - 3, (), generator=g))
    sure += 0.8 * (torch.arange(n_slices) - peak).abs()
    logits = torch.randn(n_slices, n_classes, 4, 5, generator=g)
    return (logits * (0.3 + sure).view(-1, 1, 1, 1)).log_softmax(1)


def _by_entropy(g: Generator) -> Iterator[Case]:
    yield Case("1 of 12 slices", (_smooth(g, 12), 1, 0))
    yield Case("4 of 12 slices, neighbours allowed", (_smooth(g, 12, 4), 4, 0))
    kinds = torch.tensor([_SURE, _LEANING, _TORN, _SURE, _LIKELY, _OPEN])  # (Z, K)
    p = kinds[:, :, None, None].expand(6, 3, 4, 6).clone()
    p[3, :, :, 3:] = torch.tensor([0.0, 1.0, 0.0])[:, None, None]  # two parts, each sure
    p[0, :, 1, 2] = 1 / 3  # one pixel unknown
    order = torch.randperm(6, generator=g)
    yield Case("torn between two, leaning among three", (p[order].log(), 4, 0))


def _apart_enough(g: Generator) -> Iterator[Case]:
    for gap in (1, 2, 3):
        yield Case(f"3 slices of 16, gap {gap}", (_smooth(g, 16), 3, gap))
    yield Case("4 slices of 24, gap 2", (_smooth(g, 24), 4, 2))


def _certain(g: Generator) -> Iterator[Case]:
    log_p = _smooth(g, 9)
    log_p[:, :, 0, 0] = torch.tensor([0.0, -math.inf, -math.inf])
    log_p[4] = torch.tensor([0.0, -math.inf, -math.inf])[:, None, None]
    yield Case("probabilities of exactly 0 and 1", (log_p, 3, 1))
    order = torch.randperm(14, generator=g)
    log_p = torch.randn(14, 3, 4, 5, generator=g) * (0.3 + 0.4 * order).view(-1, 1, 1, 1)
    log_p = log_p.log_softmax(1)
    log_p[:, :, 1, 1] = torch.tensor([-math.inf, 0.0, -math.inf])
    yield Case("one pixel certain in each of 14 slices", (log_p, 5, 0))


def _not_to_be_found(g: Generator) -> Iterator[Case]:
    yield Case("4 of 7 slices, gap 3", (_smooth(g, 7), 4, 3))
    yield Case("8 of 7 slices", (_smooth(g, 7), 8, 0))


def _uncertain_by(measure: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda log_p, n, gap: _by_uncertainty(measure(log_p), n, gap)


def _mean_entropy(log_p: Tensor) -> Tensor:
    return _entropy(log_p).mean((-2, -1))


def _entropy_of_mean(log_p: Tensor) -> Tensor:
    return torch.special.entr(log_p.exp().mean((-2, -1))).sum(-1)


def _torn(log_p: Tensor) -> Tensor:
    best = log_p.exp().topk(2, dim=1).values
    return -(best[:, 0] - best[:, 1]).mean((-2, -1))


def _no_gap(log_p: Tensor, n_slices: int, gap: int) -> Tensor:
    most_uncertain(log_p, n_slices, gap)
    return _mean_entropy(log_p).argsort(descending=True, stable=True)[:n_slices]


def _gap_smaller(log_p: Tensor, n_slices: int, gap: int) -> Tensor:
    most_uncertain(log_p, n_slices, gap)
    return _by_uncertainty(_mean_entropy(log_p), n_slices, max(gap - 1, 0))


def _last_gap_only(log_p: Tensor, n_slices: int, gap: int) -> Tensor:
    most_uncertain(log_p, n_slices, gap)
    uncertainty = _mean_entropy(log_p)
    chosen: list[int] = []
    places = torch.arange(len(log_p))
    for _ in range(n_slices):
        free = torch.ones(len(log_p), dtype=torch.bool)
        free[chosen] = False
        if chosen:
            free &= (places - chosen[-1]).abs() > gap
        chosen.append(int(uncertainty.where(free, -math.inf).argmax()))
    return torch.tensor(chosen)


def _upper_only(log_p: Tensor, n_slices: int, gap: int) -> Tensor:
    most_uncertain(log_p, n_slices, gap)
    uncertainty = _mean_entropy(log_p)
    chosen: list[int] = []
    free, places = torch.ones(len(log_p), dtype=torch.bool), torch.arange(len(log_p))
    for _ in range(n_slices):
        best = int(uncertainty.where(free, -math.inf).argmax())
        chosen.append(best)
        free &= (places < best) | (places - best > gap)
    return torch.tensor(chosen)


def _with_nan(log_p: Tensor) -> Tensor:
    return -(log_p.exp() * log_p).sum(1).mean((-2, -1))


def _fewer(log_p: Tensor, n_slices: int, gap: int) -> Tensor:
    for n in range(n_slices, 0, -1):
        try:
            return most_uncertain(log_p, n, gap)
        except ValueError:
            continue
    return torch.zeros(0, dtype=torch.long)


def _uncertain_loop(log_p: Tensor, n_slices: int, gap: int) -> Any:
    entropies = []
    for picture in log_p.exp().flatten(2).mT.tolist():  # slices, pixels, classes
        total = -sum(p * math.log(p) for pixel in picture for p in pixel if p > 0)
        entropies.append(total / len(picture))
    chosen: list[int] = []
    for z in sorted(range(len(entropies)), key=lambda z: -entropies[z]):
        if len(chosen) < n_slices and all(abs(z - c) > gap for c in chosen):
            chosen.append(z)
    if len(chosen) < n_slices:
        raise ValueError("not to be found")
    return torch.tensor(chosen)


def _uncertain_numpy(log_p: Tensor, n_slices: int, gap: int) -> Any:
    lp = log_p.numpy().astype(float)
    p = np.exp(lp)
    entropy = -np.where(p > 0, p * np.where(p > 0, lp, 0.0), 0.0).sum(1).mean((-2, -1))
    chosen = []
    for _ in range(n_slices):
        if np.isneginf(entropy).all():
            raise ValueError("not to be found")
        best = int(entropy.argmax())
        chosen.append(best)
        entropy[max(best - gap, 0) : best + gap + 1] = -np.inf
    return np.array(chosen)


def _uncertain_categorical(log_p: Tensor, n_slices: int, gap: int) -> Any:
    rows = log_p.exp().movedim(1, -1)
    entropy = torch.distributions.Categorical(probs=rows).entropy().mean((-2, -1))
    taken = torch.zeros(len(log_p), dtype=torch.bool)
    chosen = torch.zeros(n_slices, dtype=torch.long)
    for i in range(n_slices):
        if taken.all():
            raise ValueError("not to be found")
        chosen[i] = entropy.masked_fill(taken, -1.0).argmax()
        taken[max(int(chosen[i]) - gap, 0) : int(chosen[i]) + gap + 1] = True
    return chosen


MOST_UNCERTAIN = Answer(
    name="most_uncertain",
    reference=most_uncertain,
    section=CHOICE_SECTION,
    checks=[
        Check("the largest mean entropy first", _by_entropy, points=2),
        Check("no two slices too near each other", _apart_enough),
        Check("a probability of 0 adds nothing", _certain),
        Check("too many slices are refused", _not_to_be_found),
    ],
    mistakes=[
        Mistake(
            "the surest slices",
            _uncertain_by(lambda log_p: -_mean_entropy(log_p)),
            "You took the slices the model is surest of: a label there tells it what it knows. "
            "(Σ p log p without the minus is minus the entropy.)",
            CHOICE_SECTION,
        ),
        Mistake(
            "least confident",
            _uncertain_by(lambda log_p: -log_p.exp().amax(1).mean((-2, -1))),
            "You looked at the largest probability alone. A fair rule too, but it is not the "
            "entropy: (0.5, 0.5, 0) and (0.5, 0.25, 0.25) differ in how many classes are left.",
            CHOICE_SECTION,
        ),
        Mistake(
            "smallest margin",
            _uncertain_by(_torn),
            "You took the difference of the two largest probabilities. It does not see what is "
            "left to the other classes; the entropy does.",
            CHOICE_SECTION,
        ),
        Mistake(
            "entropy of the mean",
            _uncertain_by(_entropy_of_mean),
            "You averaged the probabilities over the pixels and took the entropy of that. A slice "
            "that is half surely liver and half surely background seems unsure then. First "
            "entropy, then mean.",
            CHOICE_SECTION,
        ),
        Mistake(
            "one unsure pixel",
            _uncertain_by(lambda log_p: _entropy(log_p).amax((-2, -1))),
            "You took the least sure pixel of each slice. Every slice has an edge somewhere; the "
            "mean over the pixels says how much of it is unsure.",
            CHOICE_SECTION,
        ),
        Mistake(
            "0 · log 0 is NaN",
            _uncertain_by(_with_nan),
            "Where a probability is exactly 0, 0 · (−∞) is NaN, and `argmax` takes NaN for the "
            "largest: the surest slice wins. The limit of p log p is 0.",
            CHOICE_SECTION,
        ),
        Mistake(
            "gap ignored",
            _no_gap,
            "You took the most uncertain slices whether or not they are neighbours. They show "
            "nearly the same picture; the second label then buys little.",
            CHOICE_SECTION,
        ),
        Mistake(
            "gap one too small",
            _gap_smaller,
            "Two of your slices are exactly `gap` apart. So far apart they still count as "
            "neighbours; the distance must be larger.",
            CHOICE_SECTION,
        ),
        Mistake(
            "gap to the last one only",
            _last_gap_only,
            "You keep the gap to the slice chosen last only; the third may be a neighbour of the "
            "first.",
            CHOICE_SECTION,
        ),
        Mistake(
            "gap on one side",
            _upper_only,
            "You leave a gap above each chosen slice and none below.",
            CHOICE_SECTION,
        ),
        Mistake(
            "in the order of the scan",
            lambda log_p, n, gap: most_uncertain(log_p, n, gap).sort().values,
            "You sorted the choice by place. The most uncertain comes first: whoever has time for "
            "one slice labels that.",
            CHOICE_SECTION,
        ),
        Mistake(
            "fewer than asked",
            _fewer,
            "When so many slices so far apart are not to be found you return fewer in silence. Say "
            "so by ValueError.",
            CHOICE_SECTION,
        ),
    ],
    variants=[
        V("loops", _uncertain_loop),
        V("numpy", _uncertain_numpy),
        V("entropies by torch.distributions", _uncertain_categorical),
        V(
            "in bits",
            _uncertain_by(lambda log_p: _mean_entropy(log_p) / math.log(2)),
        ),
    ],
    hints=[
        "What is the entropy of a pixel that is surely liver? And of one that may be liver or "
        "spleen?",
        "−Σ p log p over the classes, then the mean over the pixels; `torch.special.entr` knows "
        "that 0 · log 0 is 0. Then choose one slice at a time and cross its neighbours out.",
        "In words: keep a boolean of free slices; n times: ValueError if none is free, else the "
        "argmax of the entropy among the free ones; those at most gap away are free no more.",
    ],
    equivalent={
        "return torch.tensor(chosen) → return chosen": "a list of whole numbers is accepted",
        "entropy = torch.special.entr(log_p.exp()).flatten(1).sum(1) → "
        "entropy = torch.special.entr(log_p.exp()).flatten(1).mean(1)": (
            "all slices have the same number of pixels and classes: a factor changes no order"
        ),
        "best = int(entropy.where(free, -torch.inf).argmax()) → "
        "best = entropy.where(free, -torch.inf).argmax()": (
            "a tensor of one whole number counts like that number"
        ),
        "free &= (torch.arange(len(free)) - best).abs() > gap → "
        "free &= (best - torch.arange(len(free))).abs() > gap": (
            "the sign of a difference is lost in its absolute value"
        ),
    },
    difficulty=2,
    importance=3,
    minutes=15,
)

# ------------------------------------------------------------------------------ calibration_error


def calibration_error(confidence: Tensor, right: Tensor, n_bins: int) -> Tensor:
    """Return Σ_b n_b/N · |mean confidence − share right| over bins of equal width."""
    gap, count, _, _ = _bins(confidence, right, n_bins)
    return (gap * count).sum() / count.sum()


Bins = tuple[Tensor, Tensor, Tensor, Tensor]


def _bins(confidence: Tensor, right: Tensor, n_bins: int) -> Bins:
    """Give of each bin |gap|, count, mean confidence and share right: (n_bins,) float64."""
    place = (confidence.double() * n_bins).long().clamp(max=n_bins - 1)
    count = place.bincount(minlength=n_bins).double()
    sure = torch.zeros(n_bins, dtype=torch.double).index_add(0, place, confidence.double())
    hits = torch.zeros(n_bins, dtype=torch.double).index_add(0, place, right.double())
    mean, share = sure / count.clamp(min=1), hits / count.clamp(min=1)
    return (mean - share).abs(), count, mean, share


def _confidences(g: Generator, n: int, n_bins: int, lowest: int = 0) -> Tensor:
    """Draw confidences that lie well inside their bins, unevenly spread over them."""
    place = lowest + ((n_bins - lowest) * torch.rand(n, generator=g) ** 0.5).floor()
    return (place + 0.1 + 0.6 * torch.rand(n, generator=g)) / n_bins


def _judged(
    g: Generator, n: int, n_bins: int, over: float, lowest: int = 0
) -> tuple[Tensor, Tensor, int]:
    confidence = _confidences(g, n, n_bins, lowest)
    right = torch.rand(n, generator=g) < confidence**over
    right[0] = True
    right[1] = False
    return confidence, right, n_bins


def _over_and_under(g: Generator) -> Iterator[Case]:
    yield Case("200 pixels, too sure, 10 bins", _judged(g, 200, 10, 3.0))
    yield Case("150 pixels, not sure enough, 5 bins", _judged(g, 150, 5, 0.3))
    confidence, right, _ = _judged(g, 120, 8, 1.0)
    yield Case("too sure below, not sure enough above", (confidence, confidence > 0.5, 8))
    yield Case("one bin", (confidence, right, 1))


def _with_gaps(g: Generator) -> Iterator[Case]:
    yield Case("bins that are empty", _judged(g, 60, 20, 2.0, lowest=14))
    yield Case("more bins than pixels", _judged(g, 7, 40, 2.0))


def _ends(g: Generator) -> Iterator[Case]:
    confidence, right, _ = _judged(g, 50, 4, 2.0)
    right |= confidence >= 0.75  # the others of the last bin are better than they think
    confidence[:15], right[:15] = 1.0, torch.arange(15) < 6
    yield Case("confidences of exactly 1", (confidence, right, 4))
    confidence, right, _ = _judged(g, 50, 4, 0.5)
    right &= confidence >= 0.25  # the others of the first bin are worse than they think
    confidence[:15], right[:15] = 0.0, torch.arange(15) < 11
    yield Case("confidences of exactly 0", (confidence, right, 4))
    wrong = torch.zeros(10, dtype=torch.bool)
    yield Case("always sure, always wrong", (torch.ones(10), wrong, 10))
    yield Case("always sure, always right", (torch.ones(10), ~wrong, 10))


def _ece_loop(confidence: Tensor, right: Tensor, n_bins: int) -> Any:
    total = 0.0
    for b in range(n_bins):
        low, high = b / n_bins, (b + 1) / n_bins
        mine = [
            (c, r)
            for c, r in zip(confidence.tolist(), right.tolist(), strict=True)
            if low < c <= high or (b == 0 and c == 0)
        ]
        if mine:
            total += abs(sum(c - r for c, r in mine))
    return total / len(confidence)


def _ece_numpy(confidence: Tensor, right: Tensor, n_bins: int) -> Any:
    c, r = confidence.numpy().astype(float), right.numpy().astype(float)
    edges = np.linspace(0, 1, n_bins + 1)
    gap, _ = np.histogram(c, edges, weights=c - r)
    return np.abs(gap).sum() / len(c)


def _ece_one_hot(confidence: Tensor, right: Tensor, n_bins: int) -> Any:
    place = (confidence * n_bins).floor().clamp(0, n_bins - 1).long()
    member = torch.nn.functional.one_hot(place, n_bins).double()  # (N, bins)
    return (member.T @ (confidence.double() - right.double())).abs().sum() / len(confidence)


def _ece_sorted(confidence: Tensor, right: Tensor, n_bins: int) -> Any:
    edges = torch.arange(1, n_bins) / n_bins
    place = torch.bucketize(confidence, edges.to(confidence.dtype), right=True)
    parts = [(confidence - right.to(confidence.dtype))[place == b].sum() for b in place.unique()]
    return torch.stack(parts).abs().sum() / len(confidence)


def _of_bins(formula: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda confidence, right, n_bins: formula(*_bins(confidence, right, n_bins))


def _middle(confidence: Tensor, right: Tensor, n_bins: int) -> Tensor:
    _, count, _, share = _bins(confidence, right, n_bins)
    middle = (torch.arange(n_bins) + 0.5) / n_bins
    return (count * (middle - share).abs()).sum() / count.sum()


def _one_lost(confidence: Tensor, right: Tensor, n_bins: int) -> Tensor:
    inside = confidence < 1
    gap, count, _, _ = _bins(confidence[inside], right[inside], n_bins)
    return (gap * count).sum() / len(confidence)


def _zero_lost(confidence: Tensor, right: Tensor, n_bins: int) -> Tensor:
    inside = confidence > 0
    gap, count, _, _ = _bins(confidence[inside], right[inside], n_bins)
    return (gap * count).sum() / len(confidence)


def _equal_counts(confidence: Tensor, right: Tensor, n_bins: int) -> Tensor:
    order = confidence.argsort(stable=True)
    gap = (confidence.double() - right.double())[order]
    return torch.stack([part.sum().abs() for part in gap.tensor_split(n_bins)]).sum() / len(gap)


def _empty_bins_nan(confidence: Tensor, right: Tensor, n_bins: int) -> Tensor:
    gap, count, _, _ = _bins(confidence, right, n_bins)
    return (torch.where(count > 0, gap, math.nan) * count).sum() / count.sum()


CALIBRATION_ERROR = Answer(
    name="calibration_error",
    reference=calibration_error,
    section=CALIBRATION_SECTION,
    checks=[
        Check("gaps of the bins, weighted by their pixels", _over_and_under, points=2),
        Check("an empty bin counts nothing", _with_gaps),
        Check("confidences of 0 and of 1 have their bins", _ends),
    ],
    mistakes=[
        Mistake(
            "bins unweighted",
            _of_bins(lambda gap, n, c, a: gap[n > 0].mean()),
            "You averaged the bins, whether they hold one pixel or thousands. Each counts by the "
            "share of the pixels in it.",
            CALIBRATION_SECTION,
        ),
        Mistake(
            "all bins, empty ones too",
            _of_bins(lambda gap, n, c, a: gap.mean()),
            "You averaged over all bins, the empty ones as perfect: with more bins the error "
            "vanishes. Each counts by the share of the pixels in it.",
            CALIBRATION_SECTION,
        ),
        Mistake(
            "gaps with their sign",
            _of_bins(lambda gap, n, c, a: ((c - a) * n).sum() / n.sum()),
            "You added the gaps with their sign, so that too sure in one bin and not sure enough "
            "in another cancel. Take each gap's size.",
            CALIBRATION_SECTION,
        ),
        Mistake(
            "no bins",
            lambda confidence, right, n_bins: (confidence.double() - right.double()).mean().abs(),
            "You compared the mean confidence of all pixels with the share right of all: one bin. "
            "Too sure here and too modest there cancel.",
            CALIBRATION_SECTION,
        ),
        Mistake(
            "pixel by pixel",
            lambda confidence, right, n_bins: (confidence.double() - right.double()).abs().mean(),
            "You took |confidence − right| of each pixel. A single pixel is right or wrong; "
            "whether 0.7 was honest shows only in many pixels of such a confidence.",
            CALIBRATION_SECTION,
        ),
        Mistake(
            "middle of the bin",
            _middle,
            "You took the middle of each bin for its confidence. Its pixels may crowd at one end; "
            "take the mean of theirs.",
            CALIBRATION_SECTION,
        ),
        Mistake(
            "largest gap",
            _of_bins(lambda gap, n, c, a: gap.max()),
            "You took the worst bin: that is the maximum calibration error. Asked is the "
            "expected one, the weighted mean.",
            CALIBRATION_SECTION,
        ),
        Mistake(
            "squared gaps",
            _of_bins(lambda gap, n, c, a: (gap**2 * n).sum() / n.sum()),
            "You squared the gaps. Asked is their size.",
            CALIBRATION_SECTION,
        ),
        Mistake(
            "root of squared gaps",
            _of_bins(lambda gap, n, c, a: ((gap**2 * n).sum() / n.sum()).sqrt()),
            "You took the root of the mean squared gap, which is never smaller than the mean gap "
            "that is asked.",
            CALIBRATION_SECTION,
        ),
        Mistake(
            "share of errors",
            _of_bins(
                lambda gap, n, c, a: ((c - (1 - a)).abs() * n).where(n > 0, 0).sum() / n.sum()
            ),
            "You compared confidence with the share of wrong pixels. An honest 0.9 is right nine "
            "times of ten.",
            CALIBRATION_SECTION,
        ),
        Mistake(
            "confidence 1 left out",
            _one_lost,
            "Pixels with a confidence of exactly 1 fall into no bin with you (each bin ends just "
            "before its upper edge). They are the surest; the last bin is theirs.",
            CALIBRATION_SECTION,
        ),
        Mistake(
            "confidence 0 left out",
            _zero_lost,
            "Pixels with a confidence of exactly 0 fall into no bin with you (each bin begins just "
            "above its lower edge). The first bin is theirs.",
            CALIBRATION_SECTION,
        ),
        Mistake(
            "bins of equal count",
            _equal_counts,
            "You cut the sorted pixels into bins of equal count. A respectable choice, but asked "
            "are bins of equal width.",
            CALIBRATION_SECTION,
        ),
        Mistake(
            "NaN from an empty bin",
            _empty_bins_nan,
            "An empty bin has no mean: 0/0, and NaN times its weight 0 is still NaN. Leave empty "
            "bins out.",
            CALIBRATION_SECTION,
        ),
    ],
    variants=[
        V("bin by bin, in a loop", _ece_loop),
        V("numpy's histogram", _ece_numpy),
        V("one-hot and a product", _ece_one_hot),
        V("bucketize", _ece_sorted),
    ],
    hints=[
        "A forecast of 70 % rain is honest if it rains on seven of ten such days. Which days are "
        "«such»?",
        "The number of a pixel's bin is the whole part of confidence · n_bins, at most n_bins − 1. "
        "The weight n_b/N cancels the n_b of both means.",
        "In words: for each bin that has pixels, mean confidence minus mean of right, its size, "
        "times its number of pixels; add up, divide by the number of all pixels.",
    ],
    equivalent={
        "gap = place.bincount(confidence - right.double()) → "
        "gap = place.bincount(right.double() - confidence)": (
            "the sign of each bin's sum is lost in its absolute value"
        ),
    },
    difficulty=2,
    importance=4,
    minutes=15,
)

# ----------------------------------------------------------------------------------- reject_curve


def reject_curve(confidence: Tensor, right: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Return coverage and risk for each threshold; NaN is the risk where nothing is kept."""
    kept = confidence[None] >= thresholds[:, None]  # (T, N)
    wrong = (kept & ~right).sum(1)
    return kept.double().mean(1), wrong.double() / kept.sum(1)


def _sorted_out(g: Generator, n: int) -> tuple[Tensor, Tensor]:
    """Draw confidences (in hundredths) and whether they were right: a fifth wrong at least."""
    confidence = (50 + torch.randint(0, 50, (n,), generator=g)) / 100
    right = torch.rand(n, generator=g) < confidence * 0.9
    right[: n // 5] = False
    right[-n // 5 :] = True
    return confidence, right


def _levels(g: Generator) -> Iterator[Case]:
    thresholds = torch.tensor([0.555, 0.655, 0.755, 0.855])
    yield Case("80 pixels, 4 thresholds", (*_sorted_out(g, 80), thresholds))
    yield Case("30 pixels, 1 threshold", (*_sorted_out(g, 30), thresholds[1:2]))
    yield Case("60 pixels, thresholds in no order", (*_sorted_out(g, 60), thresholds[[2, 0, 3]]))


def _equal_to_a_threshold(g: Generator) -> Iterator[Case]:
    confidence, right = _sorted_out(g, 40)
    confidence[:16] = 0.75
    right[:16] = torch.arange(16) < 5
    yield Case("confidences equal to the threshold", (confidence, right, torch.tensor([0.75])))


def _all_or_none(g: Generator) -> Iterator[Case]:
    confidence, right = _sorted_out(g, 25)
    yield Case("everything kept", (confidence, right, torch.tensor([0.0, 0.1])))
    yield Case("nothing kept", (confidence, right, torch.tensor([0.2, 1.0])))


Sorted = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _kept(formula: Sorted, strict: bool = False) -> Callable[..., tuple[Tensor, Tensor]]:
    """Make a curve from a formula of (kept (T, N), right (N,))."""

    def curve(confidence: Tensor, right: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
        level = thresholds[:, None]
        return formula(confidence > level if strict else confidence >= level, right)

    return curve


def _share(kept: Tensor) -> Tensor:
    return kept.double().mean(1)


def _risk(kept: Tensor, right: Tensor) -> Tensor:
    return (kept & ~right).sum(1) / kept.double().sum(1)


def _expected_risk(confidence: Tensor, right: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    kept = confidence >= thresholds[:, None]
    return _share(kept), (kept * (1 - confidence.double())).sum(1) / kept.double().sum(1)


def _reject_loop(confidence: Tensor, right: Tensor, thresholds: Tensor) -> Any:
    coverage, risk = [], []
    for level in thresholds:
        kept = right[confidence >= level].tolist()
        coverage.append(len(kept) / len(right))
        risk.append(kept.count(False) / len(kept) if kept else math.nan)
    return torch.tensor(coverage), torch.tensor(risk)


def _reject_numpy(confidence: Tensor, right: Tensor, thresholds: Tensor) -> Any:
    kept = confidence.numpy() >= thresholds.numpy()[:, None]
    with np.errstate(all="ignore"):
        hits = (kept & right.numpy()).sum(1) / kept.sum(1)
    return kept.mean(1), 1 - hits


def _reject_sorted(confidence: Tensor, right: Tensor, thresholds: Tensor) -> Any:
    order = confidence.argsort()
    first = torch.searchsorted(confidence[order].contiguous(), thresholds.contiguous())
    wrong = torch.cat([(~right[order]).long().flip(0).cumsum(0).flip(0), torch.zeros(1)])
    n_kept = len(right) - first
    return n_kept / len(right), wrong[first] / n_kept


def _reject_masked_mean(confidence: Tensor, right: Tensor, thresholds: Tensor) -> Any:
    kept = confidence >= thresholds[:, None]
    wrong = (~right).double().expand(kept.shape)
    return _share(kept), torch.where(kept, wrong, math.nan).nanmean(1)


REJECT_CURVE = Answer(
    name="reject_curve",
    reference=reject_curve,
    section=REJECT_SECTION,
    checks=[
        Check("what is kept, and how much of it is wrong", _levels, points=2),
        Check("a confidence equal to the threshold is kept", _equal_to_a_threshold),
        Check("everything kept, nothing kept", _all_or_none),
    ],
    mistakes=[
        Mistake(
            "errors over all pixels",
            _kept(lambda kept, right: (_share(kept), (kept & ~right).double().mean(1))),
            "You divided the errors by all pixels. Rejecting everything would have risk 0; the "
            "risk is the share of errors among the pixels that are kept.",
            REJECT_SECTION,
        ),
        Mistake(
            "share right instead of wrong",
            _kept(lambda kept, right: (_share(kept), 1 - _risk(kept, right))),
            "You gave the share of right pixels among the kept. Risk is the share of wrong ones.",
            REJECT_SECTION,
        ),
        Mistake(
            "share rejected",
            _kept(lambda kept, right: (1 - _share(kept), _risk(kept, right))),
            "Your coverage is the share that is rejected. Coverage is the share kept.",
            REJECT_SECTION,
        ),
        Mistake(
            "unsure ones kept",
            _kept(lambda kept, right: (_share(~kept), _risk(~kept, right))),
            "You keep the pixels below the threshold and send the sure ones to the person.",
            REJECT_SECTION,
        ),
        Mistake(
            "risk of what is rejected",
            _kept(lambda kept, right: (_share(kept), _risk(~kept, right))),
            "Your risk is that of the rejected pixels. They go to a person; the risk that is left "
            "is among the kept.",
            REJECT_SECTION,
        ),
        Mistake(
            "equal is rejected",
            _kept(lambda kept, right: (_share(kept), _risk(kept, right)), strict=True),
            "A confidence equal to the threshold is rejected with you; the threshold is the least "
            "confidence that is kept.",
            REJECT_SECTION,
        ),
        Mistake(
            "no risk where nothing is kept",
            _kept(lambda kept, right: (_share(kept), _risk(kept, right).nan_to_num(0.0))),
            "Where nothing is kept you report risk 0, the best there is. There is no risk to "
            "speak of: NaN.",
            REJECT_SECTION,
        ),
        Mistake(
            "one more below",
            _kept(
                lambda kept, right: (
                    _share(kept),
                    (kept & ~right).sum(1) / (kept.double().sum(1) + 1),
                )
            ),
            "Your denominator is one too large. A number added against division by zero changes "
            "every risk; nothing kept is a case of its own.",
            REJECT_SECTION,
        ),
        Mistake(
            "numbers, not shares",
            _kept(lambda kept, right: (kept.double().sum(1), (kept & ~right).double().sum(1))),
            "You counted pixels. Coverage and risk are shares.",
            REJECT_SECTION,
        ),
        Mistake(
            "risk as the model sees it",
            _expected_risk,
            "You averaged 1 − confidence of the kept pixels: the risk the model believes in. "
            "Whether it is right in that is what the curve is for; count the errors.",
            REJECT_SECTION,
        ),
    ],
    variants=[
        V("loop over thresholds", _reject_loop),
        V("numpy", _reject_numpy),
        V("sorted, and sums from the end", _reject_sorted),
        V("mean of the kept, by NaN", _reject_masked_mean),
    ],
    hints=[
        "For one threshold: which pixels are kept? How many are they, of all? How many of them are "
        "wrong?",
        "Compare (1, N) with (T, 1) and all thresholds are done at once. 0/0 in tensors is NaN by "
        "itself.",
        "In words: kept is confidence[None] ≥ thresholds[:, None]; coverage its mean over the "
        "pixels; risk the number kept and not right over the number kept.",
    ],
    returns=("coverage", "risk"),
    difficulty=1,
    importance=4,
    minutes=10,
)

EXERCISE = Exercise(
    number=8,
    name="transfer",
    title="A new hospital",
    answers=[
        NORMALISE,
        ADAPT_PROTOTYPES,
        CHOOSE_SLICES,
        MOST_UNCERTAIN,
        CALIBRATION_ERROR,
        REJECT_CURVE,
    ],
)
