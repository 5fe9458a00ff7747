"""Exercise 01: Dice, its empty case, slices and volumes, an interval (note §1)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from fewshot_lib import evaluation
from fewshot_lib.checker import pictures
from fewshot_lib.checker.spec import Case
from fewshot_lib.checker.specification import answer, exercise
from fewshot_lib.checker.values import Seed

GIVEN_AWAY = [
    *("evaluation.dice", "evaluation.volume_dice", "evaluation.mean_slice_dice"),
    *("evaluation._dice", "evaluation.episode_dice", "evaluation.segment_volume"),
    *("evaluation.evaluate", "training.segmentation_loss", "training._soft_dice_loss"),
]
EMPTY_SECTION = "notebook 01, «Dice and its empty case»"

# ------------------------------------------------------------------------------------------- dice


@answer(reference=evaluation.dice, picture=pictures.matrix, strip=GIVEN_AWAY)
def dice(prediction, target, empty):
    """Measure 2 |P ∩ T| / (|P| + |T|), slice by slice.

    Arguments:
        prediction: (…, H, W), boolean, or 0 and 1 in any type; leading
            dimensions are slices.
        target: (…, H, W) likewise.
        empty: the value of a slice in which both masks are empty (NaN, 0, …).

    Returns:
        (…) float in [0, 1], or `empty`.
    """
    ### BEGIN SOLUTION: twice the overlap over the sum of the sizes, or `empty`
    prediction, target = prediction.bool(), target.bool()
    overlap = (prediction & target).sum(dim=(-2, -1))  # (…)
    sizes = prediction.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1))
    return torch.where(sizes == 0, empty, 2 * overlap / sizes)
    ### END SOLUTION


def _mask(g: Generator, *shape: int, share: float = 0.4) -> Tensor:
    """Draw a mask; its first pixel is set and its last is not, so that it is neither extreme."""
    mask = torch.rand(shape, generator=g) < share
    mask[..., 0, 0] = True
    mask[..., -1, -1] = False
    return mask


def _pair(g: Generator, *shape: int) -> tuple[Tensor, Tensor]:
    """Draw a prediction and a target that overlap, and differ by a pixel each at least."""
    prediction, target = _mask(g, *shape, share=0.6), _mask(g, *shape, share=0.35)
    prediction[..., 0, 1], target[..., 0, 1] = True, False
    prediction[..., 1, 0], target[..., 1, 0] = False, True
    return prediction, target


@dice.check("twice the overlap over the sum of the sizes", points=2)
def _one_slice(g: Generator) -> Iterator[Case]:
    yield Case("a slice of 5 by 7 pixels", (*_pair(g, 5, 7), math.nan))
    yield Case("a slice of 9 by 4 pixels", (*_pair(g, 9, 4), 1.0))
    prediction, target = _pair(g, 6, 6)
    yield Case("nothing shared", (prediction & ~target, target, math.nan))
    yield Case("the same twice", (target, target.clone(), 0.0))


@dice.check("each slice by itself")
def _many_slices(g: Generator) -> Iterator[Case]:
    yield Case("6 slices", (*_pair(g, 6, 5, 7), math.nan))
    yield Case("2 volumes of 3 slices", (*_pair(g, 2, 3, 4, 5), 0.0))


@dice.check("both masks empty: what `empty` says", pointer=EMPTY_SECTION)
def _empties(g: Generator) -> Iterator[Case]:
    for empty in (math.nan, 0.0, 1.0):
        prediction, target = _pair(g, 5, 4, 6)
        prediction[[1, 3]] = target[[1, 3]] = False  # rightly nothing
        prediction[2] = False  # overlooked
        target[4] = False  # invented
        yield Case(f"5 slices, two empty in both, `empty` {empty:g}", (prediction, target, empty))
    nothing = torch.zeros(4, 5, dtype=torch.bool)
    for empty in (math.nan, 0.0, 1.0, 0.5):
        yield Case(f"one slice without anything, `empty` {empty:g}", (nothing, nothing, empty))


@dice.check("one mask empty: 0, whatever `empty` says", pointer=EMPTY_SECTION)
def _one_sided(g: Generator) -> Iterator[Case]:
    for empty in (math.nan, 1.0):
        pixel = torch.zeros(4, 6, dtype=torch.bool)
        pixel[torch.randint(4, (), generator=g), torch.randint(6, (), generator=g)] = True
        nothing = torch.zeros_like(pixel)
        yield Case(f"one pixel invented, `empty` {empty:g}", (pixel, nothing, empty))
        yield Case(f"one pixel overlooked, `empty` {empty:g}", (nothing, pixel, empty))
        yield Case(f"an organ overlooked, `empty` {empty:g}", (nothing, _mask(g, 4, 6), empty))


@dice.check("masks of 0 and 1 are as good as True and False")
def _zeros_and_ones(g: Generator) -> Iterator[Case]:
    prediction, target = _pair(g, 5, 6)
    yield Case("0. and 1. in float32", (prediction.float(), target.float(), math.nan))
    yield Case("0 and 1 in int64", (prediction.long(), target.long(), math.nan))
    yield Case("0. and 1. against True and False", (prediction.float(), target, math.nan))


# ------------------------------------------------------------------------------------ volume_dice


@answer(reference=evaluation.volume_dice, strip=GIVEN_AWAY)
def volume_dice(prediction, target, empty):
    """Measure the Dice of a volume: one overlap, one sum of sizes.

    Arguments:
        prediction: (…, Z, H, W), boolean, or 0 and 1; leading dimensions are
            volumes.
        target: (…, Z, H, W) likewise.
        empty: the value of a volume that is empty in both.

    Returns:
        (…) float in [0, 1], or `empty`.
    """
    ### BEGIN SOLUTION: count over all slices of a volume, then divide once
    return dice(prediction.flatten(-3, -2), target.flatten(-3, -2), empty)
    ### END SOLUTION


def _specks(g: Generator, n_slices: int, n_organ: int) -> tuple[Tensor, Tensor]:
    """Draw an organ in some slices, well found, and a stray pixel in each other slice."""
    target = torch.zeros(n_slices, 8, 9, dtype=torch.bool)
    target[:n_organ, 1:6, 2:7] = True
    prediction = target.clone()
    prediction[:n_organ, 1, 2 : 3 + int(torch.randint(3, (), generator=g))] = False
    prediction[n_organ:, 7, int(torch.randint(9, (), generator=g))] = True
    order = torch.randperm(n_slices, generator=g)
    return prediction[order], target[order]


@volume_dice.check("all slices of a volume together", points=2)
def _volumes(g: Generator) -> Iterator[Case]:
    yield Case("5 slices with the organ, 7 with a stray pixel", (*_specks(g, 12, 5), math.nan))
    yield Case("4 slices", (*_pair(g, 4, 5, 6), math.nan))
    prediction, target = _pair(g, 3, 4, 5)
    prediction[1:, :3], target[1:, :3] = False, False
    yield Case("3 slices, much in the first and little in the others", (prediction, target, 1.0))


@volume_dice.check("empty slices neither help nor hurt")
def _with_empty_slices(g: Generator) -> Iterator[Case]:
    for empty in (math.nan, 0.0, 1.0):
        prediction, target = _pair(g, 5, 4, 6)
        prediction[1:3] = target[1:3] = False
        prediction[4] = False
        yield Case(f"2 of 5 slices empty, `empty` {empty:g}", (prediction, target, empty))


@volume_dice.check("a volume that is empty in both", pointer=EMPTY_SECTION)
def _empty_volumes(g: Generator) -> Iterator[Case]:
    nothing = torch.zeros(3, 4, 5, dtype=torch.bool)
    for empty in (math.nan, 0.0, 1.0):
        yield Case(f"a volume without anything, `empty` {empty:g}", (nothing, nothing, empty))
    yield Case("an organ invented", (_mask(g, 3, 4, 5), nothing, 1.0))


@volume_dice.check("several volumes at once")
def _several(g: Generator) -> Iterator[Case]:
    yield Case("2 volumes of 4 slices", (*_pair(g, 2, 4, 5, 6), math.nan))
    prediction, target = _pair(g, 2, 3, 2, 4, 5)
    prediction[0, 1] = target[0, 1] = False
    yield Case("2 × 3 volumes of 2 slices, one empty", (prediction, target, 0.0))


# ----------------------------------------------------------------------------- bootstrap_interval


@answer(strip=["evaluation.bootstrap_interval"])
def bootstrap_interval(values, confidence, n_resamples, generator):
    """Give the percentile bootstrap interval of a mean.

    Arguments:
        values: (N,) float; NaN (a slice without a score) is left out before
            anything else.
        confidence: the share of the resampled means that lies inside, in
            (0, 1).
        n_resamples: how many resamples.
        generator: the torch.Generator that everything random comes from.

    Returns:
        low, high: the quantiles (1 − confidence)/2 and (1 + confidence)/2 of
            the resampled means.
    """
    ### BEGIN SOLUTION: draw with replacement, average, take two quantiles
    values = values[~values.isnan()]
    n = len(values)
    drawn = torch.randint(n, (n_resamples, n), generator=generator)
    means = values[drawn].mean(dim=1)  # (n_resamples,)
    low, high = (1 - confidence) / 2, (1 + confidence) / 2
    return means.quantile(low), means.quantile(high)
    ### END SOLUTION


N_RESAMPLES = 4_000


def _skewed(g: Generator, n: int) -> Tensor:
    """Draw values of which a few are far above the others, so that an interval is lopsided."""
    values = torch.randn(n, generator=g).exp()
    values[0] = 6 + 2 * torch.rand((), generator=g)
    return values[torch.randperm(n, generator=g)]


def _seed(g: Generator) -> Seed:
    return Seed(int(torch.randint(2**31, (), generator=g)))


def _right_width(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    """Hold both ends to the quantiles of many means, with room for the chance of resampling."""
    for case, result in zip(cases, results, strict=True):
        values, confidence, n_resamples, _ = case.args
        low, high = (float(end) for end in np.asarray(result, dtype=np.float64))
        if low > high:
            return "the lower end lies above the upper"
        known = values[~values.isnan()].double()
        g = Generator().manual_seed(1)
        drawn = torch.randint(len(known), (40_000, len(known)), generator=g)
        means = known[drawn].mean(dim=1)
        levels = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
        room = 6 * (levels * (1 - levels) / n_resamples).sqrt()
        edges = torch.cat([levels - room, levels + room]).clamp(0, 1)
        bounds = means.quantile(edges).reshape(2, 2).T.tolist()  # sorted once
        for end, (least, most), which in zip((low, high), bounds, ("lower", "upper"), strict=True):
            rounding = 1e-5 * abs(end)
            if not least - rounding <= end <= most + rounding:
                away = "low" if end < least else "high"
                return (
                    f"the {which} end is too {away} ({case.name}): chance does not move a quantile "
                    f"of {n_resamples:,} resampled means so far"
                )
    return True


@bootstrap_interval.check("two quantiles of the resampled means", points=3, law=_right_width)
def _intervals(g: Generator) -> Iterator[Case]:
    for n, confidence in ((12, 0.95), (8, 0.8), (20, 0.5)):
        name = f"{n} values, {confidence:.0%}"
        yield Case(name, (_skewed(g, n), confidence, N_RESAMPLES, _seed(g)))


@bootstrap_interval.check("NaN is left out", law=_right_width, pointer=EMPTY_SECTION)
def _undefined(g: Generator) -> Iterator[Case]:
    values = torch.full((20,), math.nan)
    values[torch.randperm(20, generator=g)[:9]] = 5 + _skewed(g, 9)
    yield Case("9 values and 11 NaN, 90%", (values, 0.9, N_RESAMPLES, _seed(g)))
    values = torch.tensor([math.nan, 0.2, math.nan, 0.8])  # three in ten means lie at each end
    values[1:] += torch.rand((), generator=g)
    yield Case("2 values and 2 NaN, 40%", (values, 0.4, N_RESAMPLES, _seed(g)))


def _one_mean(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    for case, result in zip(cases, results, strict=True):
        low, high = (float(end) for end in np.asarray(result, dtype=np.float64))
        if not math.isclose(low, high, rel_tol=1e-4):
            return "one resample has one mean; every quantile of it is that mean"
        if not float(case.args[0].min()) - 1e-4 <= low <= float(case.args[0].max()) + 1e-4:
            return "the mean of a resample lies outside the values it is made of"
    return True


@bootstrap_interval.check("as many resamples as asked for", law=_one_mean)
def _single(g: Generator) -> Iterator[Case]:
    yield Case("one resample", (_skewed(g, 9), 0.9, 1, _seed(g)))
    yield Case("one resample of other values", (_skewed(g, 15), 0.5, 1, _seed(g)))


def _by_the_generator(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    one, same, other = (np.asarray(result, dtype=np.float64) for result in results)
    if not np.array_equal(one, same):
        return "the same seed gave two intervals: something is not drawn from the generator"
    if np.allclose(one, other, rtol=1e-6):
        return "another seed gave the very same interval: the generator is not used"
    return True


@bootstrap_interval.check("randomness from the generator alone", law=_by_the_generator)
def _twice(g: Generator) -> Iterator[Case]:
    values, seed, other = _skewed(g, 11), _seed(g), _seed(g)
    for name, this in (("a seed", seed), ("the same seed", seed), ("another seed", other)):
        yield Case(name, (values, 0.9, 60, this))


# -------------------------------------------------------------------------------------- mean_dice


@answer(strip=GIVEN_AWAY)
def mean_dice(prediction, target, n_classes):
    """Average the Dice over the organs that at least one map shows.

    Arguments:
        prediction: (H, W) int64 in 0 … n_classes−1; 0 is background.
        target: (H, W) likewise.
        n_classes: number of classes, background included.

    Returns:
        One number in [0, 1]: an organ that neither map shows is left out, one
        that only one of them shows counts as 0; NaN if no organ is shown.
    """
    ### BEGIN SOLUTION: mean_dice_as_found without its three faults
    organs = torch.arange(1, n_classes)[:, None, None]  # (n_classes−1, 1, 1)
    return dice(prediction == organs, target == organs, math.nan).nanmean()
    ### END SOLUTION


def _maps(g: Generator, size: tuple[int, int], labels: Sequence[int]) -> Tensor:
    """Draw a label map, mostly background, that shows each of the labels."""
    n = size[0] * size[1]
    values = torch.tensor([0, *labels])
    drawn = values[torch.randint(len(values), (n,), generator=g)]
    drawn[torch.rand(n, generator=g) < 0.4] = 0
    drawn[torch.randperm(n, generator=g)[: len(values)]] = values
    return drawn.view(size)


def _noisy(g: Generator, target: Tensor, labels: Sequence[int]) -> Tensor:
    """Change a third of a map, and keep each label in it that is to be there."""
    other = _maps(g, (target.shape[0], target.shape[1]), labels)
    return torch.where(torch.rand(target.shape, generator=g) < 0.35, other, target)


@mean_dice.check("the mean over the organs, without background", points=2)
def _all_shown(g: Generator) -> Iterator[Case]:
    for size, n_classes in (((9, 10), 4), ((12, 9), 2), ((10, 13), 6)):
        labels = range(1, n_classes)
        target = _maps(g, size, labels)
        prediction = _noisy(g, target, labels)
        prediction[:2] = target[:2] = 0
        prediction[0, :n_classes] = target[0, :n_classes] = torch.arange(n_classes)
        prediction[1, 0] = n_classes - 1  # so that no prediction is all right
        yield Case(f"{n_classes - 1} organs, all shown", (prediction, target, n_classes))


@mean_dice.check("an organ that neither map shows is left out")
def _some_absent(g: Generator) -> Iterator[Case]:
    target = _maps(g, (9, 11), (1, 4))
    yield Case("organs 2 and 3 of 4 in neither", (_noisy(g, target, (1, 4)), target, 5))
    target = _maps(g, (8, 9), (2,))
    yield Case("the last of 3 organs in neither", (_noisy(g, target, (2,)), target, 4))


@mean_dice.check("an organ overlooked or invented counts as 0")
def _overlooked(g: Generator) -> Iterator[Case]:
    target = _maps(g, (9, 10), (1, 2, 3))
    prediction = torch.where(target == 3, 0, target)
    prediction[0, 0] = 1
    yield Case("the last organ overlooked", (prediction, target, 4))
    yield Case("the last organ invented", (target, prediction, 4))
    yield Case(
        "an organ in the middle overlooked", (torch.where(target == 2, 0, target), target, 4)
    )
    nothing = torch.zeros_like(target)
    yield Case("nothing predicted", (nothing, target, 4))
    yield Case("all organs invented", (target, nothing, 4))


@mean_dice.check("no organ in either: NaN")
def _no_organ(g: Generator) -> Iterator[Case]:
    nothing = torch.zeros(4, 6, dtype=torch.long)
    yield Case("background only", (nothing, nothing.clone(), 4))


def _smoothed(prediction: Tensor, target: Tensor, classes: Sequence[int], add: float) -> Tensor:
    """Score each class as the function as found does: ``add`` above and below the line."""
    labels = torch.as_tensor(classes)[:, None, None]
    p, t = prediction == labels, target == labels
    return (2 * (p & t).sum((-2, -1)) + add) / (p.sum((-2, -1)) + t.sum((-2, -1)) + add)


EXERCISE = exercise(__name__)
