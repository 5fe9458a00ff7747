"""Exercise 08: a new site. Intensities, adapted prototypes, which slices, calibration (note §4)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from fewshot_lib.checker.spec import Case
from fewshot_lib.checker.specification import answer, exercise
from fewshot_lib.data import prepare

# --------------------------------------------------------------------------------------- normalise


def _of_the_library(images: Tensor, low: float, high: float) -> Tensor:
    if images.isnan().any():
        raise ValueError("the image holds NaN")
    return prepare.rescale_percentiles(images, low, high)


@answer(
    reference=_of_the_library,
    strip=["data.prepare.rescale_percentiles", "data.prepare.scale_intensities"],
)
def normalise(images, low, high):
    """Map a volume's own percentiles to 0 and 1, and cut off what lies beyond.

    Arguments:
        images: (Z, H, W) float, one volume in whatever unit.
        low, high: percentiles of all its voxels, in percent:
            0 ≤ low < high ≤ 100; between two voxels interpolated linearly, as
            `torch.quantile` does.

    Returns:
        (Z, H, W) float in [0, 1].

    Raises:
        ValueError: the two percentiles are equal (there is no contrast to
            scale), or a voxel is NaN.
    """
    ### BEGIN SOLUTION: normalise_as_found without its three faults
    levels = torch.tensor([low, high], dtype=images.dtype) / 100
    bottom, top = images.quantile(levels)
    if not top > bottom:  # NaN is not above anything either
        raise ValueError("no contrast between the percentiles, or a NaN")
    return ((images - bottom) / (top - bottom)).clamp(0, 1)
    ### END SOLUTION


def _scan(g: Generator, *shape: int) -> Tensor:
    """Draw slices of different brightness, with one voxel of metal."""
    images = torch.rand(shape, generator=g) * 40 + 100
    images += 25 * torch.arange(shape[0]).view(-1, 1, 1)
    images[1, 1, 1] = 900 + 300 * torch.rand((), generator=g)
    images[0, 0, 1] = -400.0
    return images


@normalise.check("percentiles of the whole volume, cut off beyond", points=1.5)
def _volumes(g: Generator) -> Iterator[Case]:
    yield Case("5 slices of 7 by 6", (_scan(g, 5, 7, 6), 1.0, 99.0))
    yield Case("3 slices of 8 by 9, 10 to 80 percent", (_scan(g, 3, 8, 9), 10.0, 80.0))
    yield Case("4 slices, 0 to 100 percent", (_scan(g, 4, 5, 6), 0.0, 100.0))


@normalise.check("a volume in float64 as well", points=0.5)
def _in_double(g: Generator) -> Iterator[Case]:
    yield Case("3 slices in float64", (_scan(g, 3, 6, 5).double(), 5.0, 90.0))


def _alike(cases: Sequence[Case], results: Sequence[Any]) -> bool:
    return bool(np.allclose(results[0], results[1], atol=1e-4))


@normalise.check(
    "a scanner that amplifies and shifts gives the same",
    law=_alike,
    says="the same patient on a scanner with another gain and offset comes out different",
)
def _other_scanner(g: Generator) -> Iterator[Case]:
    images = _scan(g, 4, 6, 6)
    gain, offset = 0.5 + float(torch.rand((), generator=g)), float(torch.randn((), generator=g))
    yield Case("one scanner", (images, 5.0, 95.0))
    yield Case("the same, amplified and shifted", (images * gain + 50 * offset, 5.0, 95.0))


@normalise.check("a slice without contrast keeps its place")
def _air(g: Generator) -> Iterator[Case]:
    images = _scan(g, 5, 6, 6)
    images[-1] = 100.0
    yield Case("a slice of one intensity among others", (images, 2.0, 98.0))


@normalise.check("a volume without contrast is refused")
def _flat(g: Generator) -> Iterator[Case]:
    yield Case("one intensity everywhere", (torch.full((3, 4, 4), 37.0), 1.0, 99.0))
    speck = torch.zeros(3, 10, 10)
    speck[1, 2, 3] = 1.0
    yield Case("one intensity but for one voxel", (speck, 1.0, 99.0))


@normalise.check("a volume with NaN is refused")
def _holed(g: Generator) -> Iterator[Case]:
    images = _scan(g, 3, 4, 4)
    images[2, 1, 3] = math.nan
    yield Case("one voxel is NaN", (images, 1.0, 99.0))


# -------------------------------------------------------------------------------- adapt_prototypes


@answer(strip=["heads", "mixture", "networks", "prototypes"])
def adapt_prototypes(source, embeddings, labels, strength):
    """Move the source's prototypes towards a new site's labelled examples.

    Arguments:
        source: (K, D) float, the prototypes of the old site.
        embeddings: (N, D) float, labelled examples of the new site; N may be
            0.
        labels: (N,) int64, their classes, 0 … K−1.
        strength: m ≥ 0, as how many examples the source's prototype counts.

    Returns:
        (K, D) float; a class without a label keeps the source's prototype, for
        m = 0 too.

    Raises:
        ValueError: strength below 0, or a label outside 0 … K−1.
    """
    ### BEGIN SOLUTION: per class, the weighted mean of source and new examples
    if strength < 0:
        raise ValueError(f"strength must be 0 or more, got {strength}")
    if ((labels < 0) | (labels >= len(source))).any():
        raise ValueError(f"labels must lie in 0 … {len(source) - 1}")
    total = torch.zeros_like(source).index_add(0, labels, embeddings)
    count = labels.bincount(minlength=len(source))[:, None]  # (K, 1)
    mean = (strength * source + total) / (strength + count)
    return torch.where(count > 0, mean, source)
    ### END SOLUTION


def _site(g: Generator, counts: Sequence[int], n_dims: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw source prototypes, and a site's embeddings (moved and spread) with their labels."""
    source = 2 * torch.randn(len(counts), n_dims, generator=g)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=g)]
    moved = torch.randn(n_dims, generator=g) + 1
    embeddings = source[labels] + moved + torch.randn(len(labels), n_dims, generator=g)
    return source, embeddings, labels


@adapt_prototypes.check("source and site weighted by what each knows", points=2)
def _both_count(g: Generator) -> Iterator[Case]:
    yield Case("3 classes of 2, 5 and 9 labels, strength 4", (*_site(g, (2, 5, 9), 4), 4.0))
    yield Case("2 classes of 7 and 3 labels, strength 0.5", (*_site(g, (7, 3), 6), 0.5))
    yield Case("one class, one label, strength 1", (*_site(g, (1,), 3), 1.0))


@adapt_prototypes.check("strength 0: the site's own means")
def _the_site_alone(g: Generator) -> Iterator[Case]:
    yield Case("3 classes, strength 0", (*_site(g, (4, 2, 6), 5), 0.0))


@adapt_prototypes.check("a class without a label keeps its prototype")
def _unlabelled(g: Generator) -> Iterator[Case]:
    for strength in (0.0, 3.0):
        site = _site(g, (3, 0, 5, 0), 4)
        yield Case(f"2 of 4 classes without a label, strength {strength:g}", (*site, strength))
    source, embeddings, labels = _site(g, (2, 2), 3)
    yield Case("no label at all, strength 0", (source, embeddings[:0], labels[:0], 0.0))
    yield Case("no label at all, strength 2", (source, embeddings[:0], labels[:0], 2.0))


def _nearer(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    *more, limit = (np.asarray(r, float) for r in results)
    apart = [float(np.abs(r - limit).max()) for r in more]
    if all(later < earlier for earlier, later in itertools.pairwise(apart)):
        return True
    return "more labels of the site do not bring the prototypes nearer to its own means"


@adapt_prototypes.check("more labels, nearer to the site's means", law=_nearer)
def _portions(g: Generator) -> Iterator[Case]:
    source, embeddings, labels = _site(g, (4, 4, 4), 3)
    for times in (1, 4, 16):
        repeated = (embeddings.repeat(times, 1), labels.repeat(times))
        yield Case(f"the same labels {times} times", (source, *repeated, 6.0))
    yield Case("strength 0", (source, embeddings, labels, 0.0))


@adapt_prototypes.check("what cannot be is refused")
def _unusable(g: Generator) -> Iterator[Case]:
    source, embeddings, labels = _site(g, (3, 3), 4)
    yield Case("strength −1", (source, embeddings, labels, -1.0))
    yield Case("a label 2 with 2 prototypes", (source, embeddings, labels + 1, 2.0))
    yield Case("a label −1", (source, embeddings, labels - 1, 2.0))


# ----------------------------------------------------------------------------------- choose_slices


@answer()
def choose_slices(features, n_slices):
    """Choose the medoid, then each time the slice farthest from all chosen.

    Arguments:
        features: (Z, D) float, one vector per slice; distances are Euclidean.
        n_slices: how many to choose, 1 … Z.

    Returns:
        (n_slices,) int64, in the order chosen, each slice once; of equals the
        first.

    Raises:
        ValueError: n_slices below 1 or above Z.
    """
    ### BEGIN SOLUTION: smallest sum of distances; then farthest from chosen
    if not 1 <= n_slices <= len(features):
        raise ValueError(f"n_slices is not in 1 … {len(features)}: {n_slices}")
    apart = (features[:, None] - features[None]).norm(dim=-1)  # (Z, Z)
    chosen = [int(apart.sum(dim=1).argmin())]
    while len(chosen) < n_slices:
        nearest = apart[:, chosen].amin(dim=1)  # (Z,)
        nearest[chosen] = -torch.inf
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen)
    ### END SOLUTION


def _clusters(g: Generator, sizes: Sequence[int], n_dims: int = 4) -> Tensor:
    """Draw slices in clusters of different sizes, with one slice far away from all."""
    centres = 6 * torch.randn(len(sizes), n_dims, generator=g)
    which = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    features = centres[which] + torch.randn(len(which), n_dims, generator=g)
    features = features[torch.randperm(len(which), generator=g)]
    features[2] = 40 + torch.randn(n_dims, generator=g)
    return features


@choose_slices.check("the most typical one first")
def _the_first(g: Generator) -> Iterator[Case]:
    for sizes in ((6, 5), (9, 2, 3), (4, 4, 4)):
        yield Case(f"1 of {sum(sizes)} slices", (_clusters(g, sizes), 1))


@choose_slices.check("then the farthest from all chosen", points=2)
def _volumes_of_slices(g: Generator) -> Iterator[Case]:
    yield Case("5 of 18 slices", (_clusters(g, (9, 5, 4)), 5))
    yield Case("4 of 20 slices", (_clusters(g, (3, 8, 6, 3), 7), 4))
    yield Case("3 of 9 slices", (_clusters(g, (5, 4), 2), 3))


@choose_slices.check("each slice once")
def _equal_slices(g: Generator) -> Iterator[Case]:
    features = _clusters(g, (4, 4))
    features[5] = features[2]
    yield Case("8 of 8 slices, two of them equal", (features, 8))
    yield Case("all slices", (_clusters(g, (3, 3)), 6))


@choose_slices.check(
    "only distances matter",
    law=_alike,
    says="features that were moved, turned and enlarged together give another choice",
)
def _moved(g: Generator) -> Iterator[Case]:
    features = _clusters(g, (6, 5, 4))
    turn = torch.linalg.qr(torch.randn(4, 4, generator=g)).Q
    yield Case("as they are", (features, 4))
    yield Case("moved, turned and enlarged", (3 * features @ turn + 5, 4))


@choose_slices.check("too many or none is refused")
def _too_many(g: Generator) -> Iterator[Case]:
    features = _clusters(g, (4, 4))
    yield Case("9 of 8 slices", (features, 9))
    yield Case("none", (features, 0))


# ---------------------------------------------------------------------------------- most_uncertain


@answer()
def most_uncertain(log_p, n_slices, gap):
    """Choose the slices of the largest mean entropy, no two neighbours.

    Arguments:
        log_p: (Z, K, H, W) float, log-probabilities; −inf where a probability
            is 0, which adds nothing to the entropy.
        n_slices: how many to choose.
        gap: slices that are at most so far apart are neighbours; 0 or more.

    Returns:
        (n_slices,) int64, the most uncertain first, each the most uncertain of
        those still free.

    Raises:
        ValueError: so many slices so far apart are not found in this order.
    """
    ### BEGIN SOLUTION: mean entropy; take the best free, cross out neighbours
    entropy = torch.special.entr(log_p.exp()).flatten(1).sum(1)  # (Z,)
    free = torch.ones(len(entropy), dtype=torch.bool)
    chosen = []
    for _ in range(n_slices):
        if not free.any():
            raise ValueError(f"no {n_slices} slices are more than {gap} apart")
        best = int(entropy.where(free, -torch.inf).argmax())
        chosen.append(best)
        free &= (torch.arange(len(free)) - best).abs() > gap
    return torch.tensor(chosen)
    ### END SOLUTION


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


@most_uncertain.check("the largest mean entropy first", points=2)
def _by_entropy(g: Generator) -> Iterator[Case]:
    yield Case("1 of 12 slices", (_smooth(g, 12), 1, 0))
    yield Case("4 of 12 slices, neighbours allowed", (_smooth(g, 12, 4), 4, 0))
    kinds = torch.tensor([_SURE, _LEANING, _TORN, _SURE, _LIKELY, _OPEN])  # (Z, K)
    p = kinds[:, :, None, None].expand(6, 3, 4, 6).clone()
    p[3, :, :, 3:] = torch.tensor([0.0, 1.0, 0.0])[:, None, None]  # two parts, each sure
    p[0, :, 1, 2] = 1 / 3  # one pixel unknown
    order = torch.randperm(6, generator=g)
    yield Case("torn between two, leaning among three", (p[order].log(), 4, 0))


@most_uncertain.check("no two slices too near each other")
def _apart_enough(g: Generator) -> Iterator[Case]:
    for gap in (1, 2, 3):
        yield Case(f"3 slices of 16, gap {gap}", (_smooth(g, 16), 3, gap))
    yield Case("4 slices of 24, gap 2", (_smooth(g, 24), 4, 2))


@most_uncertain.check("a probability of 0 adds nothing")
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


@most_uncertain.check("too many slices are refused")
def _not_to_be_found(g: Generator) -> Iterator[Case]:
    yield Case("4 of 7 slices, gap 3", (_smooth(g, 7), 4, 3))
    yield Case("8 of 7 slices", (_smooth(g, 7), 8, 0))


# ------------------------------------------------------------------------------- calibration_error


@answer()
def calibration_error(confidence, right, n_bins):
    """Measure the expected calibration error, with equal bins on 0 … 1.

    Arguments:
        confidence: (N,) float in [0, 1], the probability of the predicted
            class.
        right: (N,) bool, whether the prediction was right.
        n_bins: number of bins; a confidence of exactly 1 belongs to the last,
            one on an edge between two bins to either. An empty bin counts
            nothing.

    Returns:
        One float in [0, 1].
    """
    ### BEGIN SOLUTION: per bin |confidence − share right|, weighted by size
    place = (confidence * n_bins).long().clamp(max=n_bins - 1)
    gap = place.bincount(confidence - right.double())  # a sum per bin
    return gap.abs().sum() / len(confidence)
    ### END SOLUTION


def _judged(
    g: Generator, n: int, n_bins: int, over: float, lowest: int = 0
) -> tuple[Tensor, Tensor, int]:
    """Draw confidences that lie well inside their bins, unevenly spread over them."""
    place = lowest + ((n_bins - lowest) * torch.rand(n, generator=g) ** 0.5).floor()
    confidence = (place + 0.1 + 0.6 * torch.rand(n, generator=g)) / n_bins
    right = torch.rand(n, generator=g) < confidence**over
    right[0] = True
    right[1] = False
    return confidence, right, n_bins


@calibration_error.check("gaps of the bins, weighted by their pixels", points=2)
def _over_and_under(g: Generator) -> Iterator[Case]:
    yield Case("200 pixels, too sure, 10 bins", _judged(g, 200, 10, 3.0))
    yield Case("150 pixels, not sure enough, 5 bins", _judged(g, 150, 5, 0.3))
    confidence, right, _ = _judged(g, 120, 8, 1.0)
    yield Case("too sure below, not sure enough above", (confidence, confidence > 0.5, 8))
    yield Case("one bin", (confidence, right, 1))


@calibration_error.check("an empty bin counts nothing")
def _with_gaps(g: Generator) -> Iterator[Case]:
    yield Case("bins that are empty", _judged(g, 60, 20, 2.0, lowest=14))
    yield Case("more bins than pixels", _judged(g, 7, 40, 2.0))


@calibration_error.check("confidences of 0 and of 1 have their bins")
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


# ------------------------------------------------------------------------------------ reject_curve


@answer()
def reject_curve(confidence, right, thresholds):
    """Give coverage and risk if only confidences ≥ a threshold are answered.

    Arguments:
        confidence: (N,) float in [0, 1].
        right: (N,) bool, whether the prediction was right.
        thresholds: (T,) float, in any order.

    Returns:
        coverage: (T,) float, the share of the N that is kept.
        risk: (T,) float, the share of wrong ones among the kept; NaN where
            nothing is kept.
    """
    ### BEGIN SOLUTION: per threshold, the share kept and the share wrong in it
    kept = confidence[None] >= thresholds[:, None]  # (T, N)
    n_kept = kept.sum(dim=1)
    return n_kept / len(confidence), (kept & ~right).sum(dim=1) / n_kept
    ### END SOLUTION


def _sorted_out(g: Generator, n: int) -> tuple[Tensor, Tensor]:
    """Draw confidences (in hundredths) and whether they were right: a fifth wrong at least."""
    confidence = (50 + torch.randint(0, 50, (n,), generator=g)) / 100
    right = torch.rand(n, generator=g) < confidence * 0.9
    right[: n // 5] = False
    right[-n // 5 :] = True
    return confidence, right


@reject_curve.check("what is kept, and how much of it is wrong", points=2)
def _levels(g: Generator) -> Iterator[Case]:
    thresholds = torch.tensor([0.555, 0.655, 0.755, 0.855])
    yield Case("80 pixels, 4 thresholds", (*_sorted_out(g, 80), thresholds))
    yield Case("30 pixels, 1 threshold", (*_sorted_out(g, 30), thresholds[1:2]))
    yield Case("60 pixels, thresholds in no order", (*_sorted_out(g, 60), thresholds[[2, 0, 3]]))


@reject_curve.check("a confidence equal to the threshold is kept")
def _equal_to_a_threshold(g: Generator) -> Iterator[Case]:
    confidence, right = _sorted_out(g, 40)
    confidence[:16] = 0.75
    right[:16] = torch.arange(16) < 5
    yield Case("confidences equal to the threshold", (confidence, right, torch.tensor([0.75])))


@reject_curve.check("everything kept, nothing kept")
def _all_or_none(g: Generator) -> Iterator[Case]:
    confidence, right = _sorted_out(g, 25)
    yield Case("everything kept", (confidence, right, torch.tensor([0.0, 0.1])))
    yield Case("nothing kept", (confidence, right, torch.tensor([0.2, 1.0])))


EXERCISE = exercise(__name__)
