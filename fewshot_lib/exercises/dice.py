"""Exercise 01: Dice, its empty case, slices and volumes, an interval (note §1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from fewshot_lib import evaluation
from fewshot_lib.checker import pictures
from fewshot_lib.checker.spec import Answer, Case, Check, Exercise, Mistake, Prose
from fewshot_lib.checker.spec import Variant as V
from fewshot_lib.checker.values import Seed

GIVEN_AWAY = [
    *(
        f"evaluation.{name}"
        for name in (
            *("dice", "volume_dice", "mean_slice_dice", "_dice"),
            *("episode_dice", "segment_volume", "evaluate"),
        )
    ),
    "training.segmentation_loss",
    "training._soft_dice_loss",
]
DICE_SECTION = "notebook 01, «Dice»"
EMPTY_SECTION = "notebook 01, «Dice and its empty case»"
VOLUME_SECTION = "notebook 01, «Dice of slices and of volumes»"
INTERVAL_SECTION = "notebook 01, «Bootstrap intervals»"

# ------------------------------------------------------------------------------------------- dice


def dice(prediction: Tensor, target: Tensor, empty: float) -> Tensor:
    """Return 2 |P ∩ T| / (|P| + |T|) of each slice, ``empty`` where both are empty: the library's.

    Raises:
        ValueError: no masks of 0 and 1, or sizes that differ.
    """
    return evaluation.dice(prediction, target, empty)


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


def _one_slice(g: Generator) -> Iterator[Case]:
    yield Case("a slice of 5 by 7 pixels", (*_pair(g, 5, 7), math.nan))
    yield Case("a slice of 9 by 4 pixels", (*_pair(g, 9, 4), 1.0))
    prediction, target = _pair(g, 6, 6)
    yield Case("nothing shared", (prediction & ~target, target, math.nan))
    yield Case("the same twice", (target, target.clone(), 0.0))


def _many_slices(g: Generator) -> Iterator[Case]:
    yield Case("6 slices", (*_pair(g, 6, 5, 7), math.nan))
    yield Case("2 volumes of 3 slices", (*_pair(g, 2, 3, 4, 5), 0.0))


def _with_empty(g: Generator, empty: float) -> Case:
    prediction, target = _pair(g, 5, 4, 6)
    prediction[1] = target[1] = False  # rightly nothing
    prediction[3] = target[3] = False
    prediction[2] = False  # overlooked
    target[4] = False  # invented
    return Case(f"5 slices, two empty in both, `empty` {empty:g}", (prediction, target, empty))


def _empties(g: Generator) -> Iterator[Case]:
    for empty in (math.nan, 0.0, 1.0):
        yield _with_empty(g, empty)
    nothing = torch.zeros(4, 5, dtype=torch.bool)
    for empty in (math.nan, 0.0, 1.0, 0.5):
        yield Case(f"one slice without anything, `empty` {empty:g}", (nothing, nothing, empty))


def _one_sided(g: Generator) -> Iterator[Case]:
    for empty in (math.nan, 1.0):
        pixel = torch.zeros(4, 6, dtype=torch.bool)
        pixel[torch.randint(4, (), generator=g), torch.randint(6, (), generator=g)] = True
        nothing = torch.zeros_like(pixel)
        yield Case(f"one pixel invented, `empty` {empty:g}", (pixel, nothing, empty))
        yield Case(f"one pixel overlooked, `empty` {empty:g}", (nothing, pixel, empty))
        yield Case(f"an organ overlooked, `empty` {empty:g}", (nothing, _mask(g, 4, 6), empty))


def _zeros_and_ones(g: Generator) -> Iterator[Case]:
    prediction, target = _pair(g, 5, 6)
    yield Case("0. and 1. in float32", (prediction.float(), target.float(), math.nan))
    yield Case("0 and 1 in int64", (prediction.long(), target.long(), math.nan))
    yield Case("0. and 1. against True and False", (prediction.float(), target, math.nan))


def _sizes(p: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count what both, the prediction and the target have: (…) each."""
    p, t = p.bool(), t.bool()
    return tuple(m.sum((-2, -1)).double() for m in (p & t, p, t))  # type: ignore[return-value]


Formula = Callable[[Tensor, Tensor, Tensor], Tensor]


def _by(formula: Formula, rule: bool = True) -> Callable[..., Tensor]:
    """Make a score from a formula of the three counts; with the rule for the empty case or not."""

    def score(prediction: Tensor, target: Tensor, empty: float) -> Tensor:
        shared, p, t = _sizes(prediction, target)
        value = formula(shared, p, t)
        return torch.where(p + t == 0, empty, value) if rule else value

    return score


def _whole_stack(prediction: Tensor, target: Tensor, empty: float) -> Tensor:
    p, t = prediction.bool().flatten()[None], target.bool().flatten()[None]
    return dice(p, t, empty)


def _empty_if(condition: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def score(prediction: Tensor, target: Tensor, empty: float) -> Tensor:
        shared, p, t = _sizes(prediction, target)
        return torch.where(condition(p, t), empty, 2 * shared / (p + t))

    return score


def _all_or_nothing(prediction: Tensor, target: Tensor, empty: float) -> Tensor:
    shared, p, t = _sizes(prediction, target)
    if bool((p + t == 0).all()):
        return torch.full_like(shared, empty)
    return 2 * shared / (p + t)


def _agreement(prediction: Tensor, target: Tensor, empty: float) -> Tensor:
    same = (prediction.bool() == target.bool()).double().mean((-2, -1))
    _, p, t = _sizes(prediction, target)
    return torch.where(p + t == 0, empty, same)


def _dice_loop(prediction: Tensor, target: Tensor, empty: float) -> Any:
    if prediction.ndim > 2:
        pairs = zip(prediction, target, strict=True)
        return [_dice_loop(p, t, empty) for p, t in pairs]
    p = {tuple(i) for i in prediction.nonzero().tolist()}
    t = {tuple(i) for i in target.nonzero().tolist()}
    return 2 * len(p & t) / (len(p) + len(t)) if p or t else float(empty)


def _dice_numpy(prediction: Tensor, target: Tensor, empty: float) -> Any:
    p, t = prediction.numpy().astype(bool), target.numpy().astype(bool)
    sizes = p.sum((-2, -1)) + t.sum((-2, -1))
    with np.errstate(all="ignore"):
        return np.where(sizes > 0, 2.0 * (p & t).sum((-2, -1)) / sizes, empty)


def _dice_einsum(prediction: Tensor, target: Tensor, empty: float) -> Tensor:
    p, t = prediction.double(), target.double()
    shared = torch.einsum("...hw,...hw->...", p, t)
    sizes = torch.einsum("...hw->...", p + t)
    return (2 * shared / sizes).masked_fill(sizes == 0, empty)


def _dice_precision_recall(prediction: Tensor, target: Tensor, empty: float) -> Tensor:
    shared, p, t = _sizes(prediction, target)
    precision, recall = shared / p, shared / t
    f1 = 2 * precision * recall / (precision + recall)
    return torch.where(p + t == 0, empty, f1.nan_to_num(0.0))


DICE = Answer(
    name="dice",
    reference=dice,
    section=DICE_SECTION,
    checks=[
        Check("twice the overlap over the sum of the sizes", _one_slice, points=2),
        Check("each slice by itself", _many_slices),
        Check("both masks empty: what `empty` says", _empties, pointer=EMPTY_SECTION),
        Check("one mask empty: 0, whatever `empty` says", _one_sided, pointer=EMPTY_SECTION),
        Check("masks of 0 and 1 are as good as True and False", _zeros_and_ones),
    ],
    mistakes=[
        Mistake(
            "intersection over union",
            _by(lambda s, p, t: s / (p + t - s)),
            "You divided by the union: that is the Jaccard index (IoU), which is never above Dice. "
            "Dice divides twice the overlap by the sum of the two sizes.",
            DICE_SECTION,
        ),
        Mistake(
            "the 2 forgotten",
            _by(lambda s, p, t: s / (p + t)),
            "Two equal masks get 0.5 from you. The overlap is counted in both sizes below, so it "
            "has to be counted twice above.",
            DICE_SECTION,
        ),
        Mistake(
            "recall",
            _by(lambda s, p, t: torch.where(t == 0, 0.0, s / t)),
            "You divided by the size of the target alone: that is recall (sensitivity), and "
            "labelling everything gets 1.",
            DICE_SECTION,
        ),
        Mistake(
            "precision",
            _by(lambda s, p, t: torch.where(p == 0, 0.0, s / p)),
            "You divided by the size of the prediction alone: that is precision, and one pixel "
            "rightly placed gets 1.",
            DICE_SECTION,
        ),
        Mistake(
            "share of equal pixels",
            _agreement,
            "You counted the pixels where both agree, background included. An organ is small: "
            "predicting nothing at all would score high.",
            DICE_SECTION,
        ),
        Mistake(
            "ε above and below",
            _by(lambda s, p, t: (2 * s + 1e-7) / (p + t + 1e-7), rule=False),
            "A small number is added above and below the line, so two empty masks always come out "
            "as 1. That decides a question nobody asked your ε; it is `empty` that decides.",
            EMPTY_SECTION,
        ),
        Mistake(
            "ε below",
            _by(lambda s, p, t: 2 * s / (p + t + 1e-7), rule=False),
            "A small number is added below the line only, so two empty masks always come out as 0: "
            "finding rightly nothing counts as the worst of all. `empty` decides.",
            EMPTY_SECTION,
        ),
        Mistake(
            "smoothed by one pixel",
            _by(lambda s, p, t: (2 * s + 1) / (p + t + 1), rule=False),
            "You added 1 above and below the line. Losses do so for their gradients; as a score it "
            "raises every value, most of all for small organs.",
            EMPTY_SECTION,
        ),
        Mistake(
            "0/0 left as it is",
            _by(lambda s, p, t: 2 * s / (p + t), rule=False),
            "Two empty masks always come out as NaN, whatever `empty` is: the argument is not "
            "used.",
            EMPTY_SECTION,
        ),
        Mistake(
            "empty target excused",
            _empty_if(lambda p, t: t == 0),
            "You return `empty` whenever the target is empty, also when the prediction is not. An "
            "organ invented where there is none would go unpunished; there Dice is 0.",
            EMPTY_SECTION,
        ),
        Mistake(
            "empty prediction excused",
            _empty_if(lambda p, t: p == 0),
            "You return `empty` whenever the prediction is empty, also when the target is not. An "
            "overlooked organ would go unpunished; there Dice is 0.",
            EMPTY_SECTION,
        ),
        Mistake(
            "no overlap taken for empty",
            lambda p, t, empty: (lambda s: torch.where(s == 0, empty, s))(dice(p, t, 0.0)),
            "You return `empty` wherever the two masks share nothing. They may share nothing "
            "although both are full: then Dice is 0.",
            EMPTY_SECTION,
        ),
        Mistake(
            "empty only if all are",
            _all_or_nothing,
            "You look whether the whole stack is empty. Each slice has its own empty case: decide "
            "slice by slice (`torch.where`).",
            EMPTY_SECTION,
        ),
        Mistake(
            "one number for the stack",
            _whole_stack,
            "You put all slices together and got one number. Here each slice has its own; keep the "
            "leading axes and sum over the last two.",
            VOLUME_SECTION,
        ),
        Mistake(
            "averaged over the slices",
            lambda p, t, empty: dice(p, t, empty).mean(),
            "You averaged the slices' values. Keep them, one a slice: which mean is right is the "
            "next question.",
            VOLUME_SECTION,
        ),
    ],
    variants=[
        V("sets of pixels, in a loop", _dice_loop),
        V("numpy", _dice_numpy),
        V("einsum", _dice_einsum),
        V("harmonic mean of precision and recall", _dice_precision_recall),
        V(
            "from the Jaccard index",
            _by(lambda s, p, t: (lambda j: 2 * j / (1 + j))(s / (p + t - s))),
        ),
    ],
    hints=[
        "Three numbers of each slice are enough: how many pixels both masks have, how many the "
        "prediction has, how many the target has.",
        "For boolean masks `&` says «in both»; sum over the last two axes only, so that the slices "
        "stay apart. Then decide, slice by slice, where the denominator is 0.",
        "In words: make both boolean; sum their `&` over (−2, −1); sum each over (−2, −1) and add; "
        "`torch.where` the sizes are 0 take `empty`, elsewhere twice the overlap over the sizes.",
    ],
    picture=pictures.matrix,
    withhold=GIVEN_AWAY,
    difficulty=1,
    importance=5,
    minutes=10,
)

# ------------------------------------------------------------------------------------ volume_dice


def volume_dice(prediction: Tensor, target: Tensor, empty: float) -> Tensor:
    """Return the Dice of all slices of a volume together: the library's.

    Raises:
        ValueError: no masks of 0 and 1, or sizes that differ.
    """
    return evaluation.volume_dice(prediction, target, empty)


def _specks(g: Generator, n_slices: int, n_organ: int) -> tuple[Tensor, Tensor]:
    """Draw an organ in some slices, well found, and a stray pixel in each other slice."""
    target = torch.zeros(n_slices, 8, 9, dtype=torch.bool)
    target[:n_organ, 1:6, 2:7] = True
    prediction = target.clone()
    prediction[:n_organ, 1, 2 : 3 + int(torch.randint(3, (), generator=g))] = False
    prediction[n_organ:, 7, int(torch.randint(9, (), generator=g))] = True
    order = torch.randperm(n_slices, generator=g)
    return prediction[order], target[order]


def _volumes(g: Generator) -> Iterator[Case]:
    yield Case("5 slices with the organ, 7 with a stray pixel", (*_specks(g, 12, 5), math.nan))
    yield Case("4 slices", (*_pair(g, 4, 5, 6), math.nan))
    prediction, target = _pair(g, 3, 4, 5)
    prediction[1:, :3], target[1:, :3] = False, False
    yield Case("3 slices, much in the first and little in the others", (prediction, target, 1.0))


def _with_empty_slices(g: Generator) -> Iterator[Case]:
    for empty in (math.nan, 0.0, 1.0):
        prediction, target = _pair(g, 5, 4, 6)
        prediction[1:3] = target[1:3] = False
        prediction[4] = False
        yield Case(f"2 of 5 slices empty, `empty` {empty:g}", (prediction, target, empty))


def _empty_volumes(g: Generator) -> Iterator[Case]:
    nothing = torch.zeros(3, 4, 5, dtype=torch.bool)
    for empty in (math.nan, 0.0, 1.0):
        yield Case(f"a volume without anything, `empty` {empty:g}", (nothing, nothing, empty))
    yield Case("an organ invented", (_mask(g, 3, 4, 5), nothing, 1.0))


def _several(g: Generator) -> Iterator[Case]:
    yield Case("2 volumes of 4 slices", (*_pair(g, 2, 4, 5, 6), math.nan))
    prediction, target = _pair(g, 2, 3, 2, 4, 5)
    prediction[0, 1] = target[0, 1] = False
    yield Case("2 × 3 volumes of 2 slices, one empty", (prediction, target, 0.0))


def _slice_mean(empty: float | None) -> Callable[..., Tensor]:
    """Make the mean of slice Dices; empty slices count so much, or are left out (NaN)."""

    def score(prediction: Tensor, target: Tensor, given: float) -> Tensor:
        slices = dice(prediction, target, given if empty is None else empty)
        return slices.nanmean(-1) if empty is not None else slices.mean(-1)

    return score


def _organ_slices(prediction: Tensor, target: Tensor, empty: float) -> Tensor:
    shown = target.any(-1).any(-1)[..., None, None]
    return volume_dice(prediction & shown, target, empty)


def _weighted(prediction: Tensor, target: Tensor, empty: float) -> Tensor:
    weight = target.sum((-2, -1)).double()
    value = (dice(prediction, target, 0.0) * weight).sum(-1) / weight.sum(-1)
    none = (prediction | target).flatten(-3).any(-1).logical_not()
    return torch.where(none, empty, torch.where(weight.sum(-1) == 0, 0.0, value))


def _volume_loop(prediction: Tensor, target: Tensor, empty: float) -> Any:
    if prediction.ndim > 3:
        pairs = zip(prediction, target, strict=True)
        return torch.stack([torch.as_tensor(_volume_loop(p, t, empty)) for p, t in pairs])
    shared = sizes = 0
    for p, t in zip(prediction, target, strict=True):
        shared += int((p & t).sum())
        sizes += int(p.sum()) + int(t.sum())
    return torch.tensor(2 * shared / sizes if sizes else float(empty))


def _volume_numpy(prediction: Tensor, target: Tensor, empty: float) -> Any:
    p, t = prediction.numpy(), target.numpy()
    sizes = (p.astype(int) + t).sum((-3, -2, -1))
    with np.errstate(all="ignore"):
        return np.where(sizes == 0, empty, 2.0 * (p & t).sum((-3, -2, -1)) / sizes)


def _weighted_by_both(prediction: Tensor, target: Tensor, empty: float) -> Tensor:
    weight = (prediction.double() + target.double()).sum((-2, -1))  # (…, Z)
    value = (dice(prediction, target, 0.0) * weight).sum(-1) / weight.sum(-1)
    return torch.where(weight.sum(-1) == 0, empty, value)


VOLUME_DICE = Answer(
    name="volume_dice",
    reference=volume_dice,
    section=VOLUME_SECTION,
    checks=[
        Check("all slices of a volume together", _volumes, points=2),
        Check("empty slices neither help nor hurt", _with_empty_slices),
        Check("a volume that is empty in both", _empty_volumes, pointer=EMPTY_SECTION),
        Check("several volumes at once", _several),
    ],
    mistakes=[
        Mistake(
            "mean of slice Dices",
            _slice_mean(None),
            "You averaged the Dices of the slices, so that a slice with one stray pixel weighs as "
            "much as one full of organ. Asked is one overlap and one sum of sizes for the volume.",
            VOLUME_SECTION,
        ),
        Mistake(
            "mean of the slices that are not empty",
            _slice_mean(math.nan),
            "You averaged the slice Dices and left the empty slices out. It is still a mean of "
            "slices: each weighs the same, however little of the organ it shows.",
            VOLUME_SECTION,
        ),
        Mistake(
            "mean, empty slices right",
            _slice_mean(1.0),
            "You averaged the slice Dices and counted empty slices as 1: the more air above and "
            "below the organ is scanned, the better the score.",
            VOLUME_SECTION,
        ),
        Mistake(
            "slices as they are",
            dice,
            "You returned a number for each slice; a volume has one. Its slices belong together "
            "before anything is divided.",
            VOLUME_SECTION,
        ),
        Mistake(
            "only slices that show the organ",
            _organ_slices,
            "You left out the slices whose target is empty. What the prediction invents there is "
            "then never counted; it has to be.",
            VOLUME_SECTION,
        ),
        Mistake(
            "weighted by the target",
            _weighted,
            "You weighted each slice's Dice by the size of its target. Slices without target then "
            "weigh nothing, whatever was predicted there. Count over the volume first, then divide "
            "once.",
            VOLUME_SECTION,
        ),
        Mistake(
            "shadow of the volume",
            lambda p, t, empty: dice(p.any(-3), t.any(-3), empty),
            "You projected the volume onto one slice (any, max) and measured there. Pixels of "
            "different slices meet that lie apart in the body.",
            VOLUME_SECTION,
        ),
        Mistake(
            "all volumes together",
            _whole_stack,
            "With several volumes you made one number of all. Each volume has its own: only the "
            "last three axes are summed.",
            VOLUME_SECTION,
        ),
        Mistake(
            "`empty` forgotten",
            lambda p, t, empty: volume_dice(p, t, math.nan),
            "A volume without anything comes out as NaN, whatever `empty` is: hand the argument "
            "on.",
            EMPTY_SECTION,
        ),
    ],
    variants=[
        V("counted slice by slice", _volume_loop),
        V("numpy", _volume_numpy),
        V("mean weighted by both sizes", _weighted_by_both),
        V(
            "one very wide slice",
            lambda p, t, e: dice(p.flatten(-3)[..., None], t.flatten(-3)[..., None], e),
        ),
    ],
    hints=[
        "A volume is a set of voxels. Does it matter to a set in which slice its members lie?",
        "Your `dice` counts over the last two axes. If the slices were laid below each other, as "
        "one long slice, it would count over all of them.",
        "In words: flatten axes −3 and −2 of both masks into one, and hand them with `empty` to "
        "your dice.",
    ],
    equivalent={
        "return dice(prediction.flatten(-3, -2), target.flatten(-3, -2), empty) → "
        "return dice(target.flatten(-3, -2), prediction.flatten(-3, -2), empty)": (
            "Dice is symmetric in its two masks"
        ),
    },
    withhold=GIVEN_AWAY,
    difficulty=1,
    importance=4,
    minutes=5,
)

# ----------------------------------------------------------------------------- bootstrap_interval


def bootstrap_interval(
    values: Tensor, confidence: float, n_resamples: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Give the percentile bootstrap interval (low, high) of the mean of values that are not NaN."""
    means = _means(_known(values), n_resamples, generator)
    levels = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=means.dtype)
    low, high = means.quantile(levels)
    return low, high


def _known(values: Tensor) -> Tensor:
    return values[~values.isnan()]


def _resamples(values: Tensor, n_resamples: int, generator: Generator) -> Tensor:
    n = len(values)
    return values[torch.randint(n, (n_resamples, n), generator=generator)]


def _means(values: Tensor, n_resamples: int, generator: Generator) -> Tensor:
    return _resamples(values, n_resamples, generator).mean(dim=1)


N_RESAMPLES = 4_000


def _skewed(g: Generator, n: int) -> Tensor:
    """Draw values of which a few are far above the others, so that an interval is lopsided."""
    values = torch.randn(n, generator=g).exp()
    values[0] = 6 + 2 * torch.rand((), generator=g)
    return values[torch.randperm(n, generator=g)]


def _seed(g: Generator) -> Seed:
    return Seed(int(torch.randint(2**31, (), generator=g)))


def _intervals(g: Generator) -> Iterator[Case]:
    for n, confidence in ((12, 0.95), (8, 0.8), (20, 0.5)):
        name = f"{n} values, {confidence:.0%}"
        yield Case(name, (_skewed(g, n), confidence, N_RESAMPLES, _seed(g)))


def _undefined(g: Generator) -> Iterator[Case]:
    values = torch.full((20,), math.nan)
    values[torch.randperm(20, generator=g)[:9]] = 5 + _skewed(g, 9)
    yield Case("9 values and 11 NaN, 90%", (values, 0.9, N_RESAMPLES, _seed(g)))
    values = torch.tensor([math.nan, 0.2, math.nan, 0.8])  # three in ten means lie at each end
    values[1:] += torch.rand((), generator=g)
    yield Case("2 values and 2 NaN, 40%", (values, 0.4, N_RESAMPLES, _seed(g)))


def _single(g: Generator) -> Iterator[Case]:
    yield Case("one resample", (_skewed(g, 9), 0.9, 1, _seed(g)))
    yield Case("one resample of other values", (_skewed(g, 15), 0.5, 1, _seed(g)))


def _twice(g: Generator) -> Iterator[Case]:
    values, seed, other = _skewed(g, 11), _seed(g), _seed(g)
    for name, this in (("a seed", seed), ("the same seed", seed), ("another seed", other)):
        yield Case(name, (values, 0.9, 60, this))


def _right_width(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    """Hold both ends to the quantiles of many means, with room for the chance of resampling."""
    for case, result in zip(cases, results, strict=True):
        values, confidence, n_resamples, _ = case.args
        low, high = (float(end) for end in np.asarray(result, dtype=np.float64))
        if low > high:
            return "the lower end lies above the upper"
        means = _means(_known(values).double(), 40_000, Generator().manual_seed(1))
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


def _one_mean(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    for case, result in zip(cases, results, strict=True):
        low, high = (float(end) for end in np.asarray(result, dtype=np.float64))
        if not math.isclose(low, high, rel_tol=1e-4):
            return "one resample has one mean; every quantile of it is that mean"
        if not float(case.args[0].min()) - 1e-4 <= low <= float(case.args[0].max()) + 1e-4:
            return "the mean of a resample lies outside the values it is made of"
    return True


def _by_the_generator(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    one, same, other = (np.asarray(result, dtype=np.float64) for result in results)
    if not np.array_equal(one, same):
        return "the same seed gave two intervals: something is not drawn from the generator"
    if np.allclose(one, other, rtol=1e-6):
        return "another seed gave the very same interval: the generator is not used"
    return True


def _interval(
    values_of: Callable[[Tensor], Tensor] = _known,
    means_of: Callable[[Tensor, int, Generator], Tensor] = _means,
    ends: Callable[[Tensor, Tensor, float], Sequence[Tensor]] | None = None,
) -> Callable[..., Any]:
    """Make an interval that differs from the right one in what is given."""

    def interval(values: Tensor, confidence: float, n_resamples: int, generator: Generator) -> Any:
        used = values_of(values)
        means = means_of(used, n_resamples, generator)
        if ends is not None:
            low, high = ends(means, used, confidence)
        else:
            low, high = _quantiles(means, (1 - confidence) / 2, (1 + confidence) / 2)
        return low, high

    return interval


def _quantiles(means: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    return means.quantile(low), means.quantile(high)


def _plus_minus(means: Tensor, values: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
    z = math.sqrt(2) * torch.erfinv(torch.tensor(confidence))
    half = z * values.std() / math.sqrt(len(values))
    return values.mean() - half, values.mean() + half


def _mirrored(means: Tensor, values: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
    low, high = _quantiles(means, (1 - confidence) / 2, (1 + confidence) / 2)
    return 2 * values.mean() - high, 2 * values.mean() - low


def _one_deviation(means: Tensor, values: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
    spread = means.std(correction=0)
    return means.mean() - spread, means.mean() + spread


def _without_return(values: Tensor, n_resamples: int, generator: Generator) -> Tensor:
    order = torch.rand(n_resamples, len(values), generator=generator).argsort(dim=1)
    return values[order].mean(dim=1)


def _own_seed(
    values: Tensor, confidence: float, n_resamples: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    return bootstrap_interval(values, confidence, n_resamples, Generator().manual_seed(0))


def _interval_loop(
    values: Tensor, confidence: float, n_resamples: int, generator: Generator
) -> tuple[float, float]:
    known = [float(v) for v in values if not math.isnan(v)]
    drawn = torch.randint(len(known), (n_resamples, len(known)), generator=generator).tolist()
    means = sorted(sum(known[i] for i in row) / len(known) for row in drawn)
    last = n_resamples - 1
    low = means[math.floor((1 - confidence) / 2 * last)]
    return low, means[math.ceil((1 + confidence) / 2 * last)]


def _interval_counts(
    values: Tensor, confidence: float, n_resamples: int, generator: Generator
) -> Any:
    known = _known(values)
    even = torch.ones(n_resamples, len(known))
    drawn = even.multinomial(len(known), replacement=True, generator=generator)
    means = known[drawn].numpy().mean(axis=1)
    return np.percentile(means, [50 * (1 - confidence), 50 * (1 + confidence)])


def _interval_uniform(
    values: Tensor, confidence: float, n_resamples: int, generator: Generator
) -> Any:
    known = _known(values).double()
    n = len(known)
    drawn = (torch.rand(n_resamples, n, generator=generator) * n).long().clamp_max(n - 1)
    weights = (
        torch.zeros(n_resamples, n)
        .double()
        .scatter_add_(1, drawn, torch.ones(1).double().expand(n_resamples, n))
    )
    means = weights @ known / n
    alpha = 1 - confidence
    return [means.quantile(alpha / 2).item(), means.quantile(1 - alpha / 2).item()]


def _interval_rows(
    values: Tensor, confidence: float, n_resamples: int, generator: Generator
) -> Any:
    known = _known(values)
    n = len(known)
    rows = [known[torch.randint(n, (n,), generator=generator)].mean() for _ in range(n_resamples)]
    return _quantiles(torch.stack(rows), (1 - confidence) / 2, (1 + confidence) / 2)


_LOW, _HIGH = "quantile((1 - confidence) / 2)", "quantile((1 + confidence) / 2)"
_ENDS = f"return (means.{_LOW}, means.{_HIGH})"  # the last line of the solution

BOOTSTRAP_INTERVAL = Answer(
    name="bootstrap_interval",
    reference=bootstrap_interval,
    section=INTERVAL_SECTION,
    checks=[
        Check("two quantiles of the resampled means", _intervals, points=3, law=_right_width),
        Check("NaN is left out", _undefined, law=_right_width, pointer=EMPTY_SECTION),
        Check("as many resamples as asked for", _single, law=_one_mean),
        Check("randomness from the generator alone", _twice, law=_by_the_generator),
    ],
    mistakes=[
        Mistake(
            "spread of the values",
            _interval(ends=lambda m, v, c: _quantiles(v, (1 - c) / 2, (1 + c) / 2)),
            "These are quantiles of the values themselves: where the next value may lie. Asked is "
            "how well the *mean* is known, and that gets better with more values.",
            INTERVAL_SECTION,
        ),
        Mistake(
            "drawn without returning",
            _interval(means_of=_without_return),
            "Your resamples are the same values in another order, so all have the same mean and "
            "the interval has no width. Each draw has to be able to take any value again.",
            INTERVAL_SECTION,
        ),
        Mistake(
            "the whole of α on each side",
            _interval(ends=lambda m, v, c: _quantiles(m, 1 - c, c)),
            "You cut off 1 − confidence at each end, so twice as much is missing as should be. "
            "Half of it belongs to each side.",
            INTERVAL_SECTION,
        ),
        Mistake(
            "confidence taken for α",
            _interval(ends=lambda m, v, c: _quantiles(m, c / 2, 1 - c / 2)),
            "Your levels are confidence/2 and 1 − confidence/2. The confidence is what lies inside "
            "the interval; its complement is shared by the two sides.",
            INTERVAL_SECTION,
        ),
        Mistake(
            "ends exchanged",
            _interval(ends=lambda m, v, c: _quantiles(m, (1 + c) / 2, (1 - c) / 2)),
            "Your first number is the upper end. The interval is (low, high).",
            INTERVAL_SECTION,
        ),
        Mistake(
            "normal formula",
            _interval(ends=_plus_minus),
            "This is mean ± z standard errors: the same width on both sides, whatever the values. "
            "With few, lopsided values that is wrong, which is why one resamples.",
            INTERVAL_SECTION,
        ),
        Mistake(
            "mirrored",
            _interval(ends=_mirrored),
            "You mirrored the quantiles at the mean (2·mean − quantile): the «basic» bootstrap. "
            "Asked are the quantiles themselves, the percentile interval.",
            INTERVAL_SECTION,
        ),
        Mistake(
            "plus and minus one deviation",
            _interval(ends=_one_deviation),
            "You gave the resampled means' average plus and minus their standard deviation: 68 % "
            "or so, whatever confidence was asked for.",
            INTERVAL_SECTION,
        ),
        Mistake(
            "mean over the resamples",
            _interval(means_of=lambda v, b, g: _resamples(v, b, g).mean(dim=0)),
            "Your mean runs over the resamples, not within each. Average each resample over its "
            "own n values: one mean a resample.",
            INTERVAL_SECTION,
        ),
        Mistake(
            "resamples not averaged",
            _interval(means_of=lambda v, b, g: _resamples(v, b, g).flatten()),
            "You took the quantiles of all drawn values; the mean of each resample is missing.",
            INTERVAL_SECTION,
        ),
        Mistake(
            "median for mean",
            _interval(means_of=lambda v, b, g: _resamples(v, b, g).median(dim=1).values),
            "You took the median of each resample. The interval is asked for the mean.",
            INTERVAL_SECTION,
        ),
        Mistake(
            "NaN kept",
            _interval(values_of=lambda v: v),
            "One NaN among the values, and the mean of nearly every resample is NaN. A NaN here is "
            "a slice whose Dice is undefined: leave it out before you resample.",
            EMPTY_SECTION,
        ),
        Mistake(
            "NaN resampled",
            _interval(
                values_of=lambda v: v,
                means_of=lambda v, b, g: _resamples(v, b, g).nanmean(dim=1),
                ends=lambda m, v, c: (m.nanquantile((1 - c) / 2), m.nanquantile((1 + c) / 2)),
            ),
            "You draw NaN into the resamples and leave it out of their means. The resamples are "
            "then smaller than the number of values you know, by chance, and some are empty: leave "
            "NaN out before you draw.",
            EMPTY_SECTION,
        ),
        Mistake(
            "NaN made 0",
            _interval(values_of=lambda v: v.nan_to_num(0.0)),
            "You made NaN a 0, so that slices without organ count as the worst result. Undefined "
            "is no value: leave it out.",
            EMPTY_SECTION,
        ),
        Mistake(
            "a generator of its own",
            _own_seed,
            "Every seed gives the same interval: you draw from a generator of your own, not from "
            "the one you are given.",
            INTERVAL_SECTION,
        ),
        Mistake(
            "a fixed number of resamples",
            _interval(means_of=lambda v, b, g: _means(v, 1_000, g)),
            "You draw the same number of resamples whatever `n_resamples` says.",
            INTERVAL_SECTION,
        ),
    ],
    variants=[
        V("lists and a loop", _interval_loop),
        V("multinomial and numpy percentiles", _interval_counts),
        V("counts of each value", _interval_uniform),
        V("resample by resample", _interval_rows),
    ],
    hints=[
        "If you could scan as many patients again, the mean would come out otherwise. The values "
        "you have stand for the patients you might have had: how would you draw «again» from them?",
        "Leave NaN out. Draw n_resamples times n of the n values *with* replacement, average each "
        "resample, and ask between which two quantiles the middle `confidence` of the means lies.",
        "In words: index the values with `torch.randint(n, (n_resamples, n), generator=generator)`,"
        " average over axis 1, and take the quantiles (1 − confidence)/2 and (1 + confidence)/2.",
    ],
    returns=("low", "high"),
    equivalent={
        f"{_ENDS} → return (means.nan{_LOW}, means.{_HIGH})": "no mean is NaN",
        f"{_ENDS} → return (means.{_LOW}, means.nan{_HIGH})": "no mean is NaN",
    },
    withhold=["evaluation.bootstrap_interval"],
    difficulty=2,
    importance=4,
    minutes=15,
)

# -------------------------------------------------------------------------------------- mean_dice


def mean_dice(prediction: Tensor, target: Tensor, n_classes: int) -> Tensor:
    """Average the Dice of the organs 1 … n_classes−1 that either map shows; NaN if none does."""
    organs = torch.arange(1, n_classes)[:, None, None]
    return evaluation.dice(prediction == organs, target == organs, math.nan).nanmean()


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


def _all_shown(g: Generator) -> Iterator[Case]:
    for size, n_classes in (((9, 10), 4), ((12, 9), 2), ((10, 13), 6)):
        labels = range(1, n_classes)
        target = _maps(g, size, labels)
        prediction = _noisy(g, target, labels)
        prediction[:2] = target[:2] = 0
        prediction[0, :n_classes] = target[0, :n_classes] = torch.arange(n_classes)
        prediction[1, 0] = n_classes - 1  # so that no prediction is all right
        yield Case(f"{n_classes - 1} organs, all shown", (prediction, target, n_classes))


def _some_absent(g: Generator) -> Iterator[Case]:
    target = _maps(g, (9, 11), (1, 4))
    yield Case("organs 2 and 3 of 4 in neither", (_noisy(g, target, (1, 4)), target, 5))
    target = _maps(g, (8, 9), (2,))
    yield Case("the last of 3 organs in neither", (_noisy(g, target, (2,)), target, 4))


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


def _no_organ(g: Generator) -> Iterator[Case]:
    nothing = torch.zeros(4, 6, dtype=torch.long)
    yield Case("background only", (nothing, nothing.clone(), 4))


def _mean_as_found(prediction: Tensor, target: Tensor, n_classes: int) -> Tensor:
    return _mean_over(range(int(prediction.max()) + 1), 1.0)(prediction, target, n_classes)


def _mean_over(classes: Sequence[int] | None, smooth: float, first: int = 1) -> Callable[..., Any]:
    """Make a mean over classes of smoothed scores, 0/0 left out."""

    def score(prediction: Tensor, target: Tensor, n_classes: int) -> Tensor:
        scores = []
        for k in range(first, n_classes) if classes is None else classes:
            p, t = prediction == k, target == k
            scores.append((2 * (p & t).sum() + smooth) / (p.sum() + t.sum() + smooth))
        return torch.stack(scores).nanmean()

    return score


def _predicted_only(first: int, smooth: float) -> Callable[..., Any]:
    def score(prediction: Tensor, target: Tensor, n_classes: int) -> Tensor:
        classes = range(first, int(prediction.max()) + 1)
        if not len(classes):
            return torch.tensor(math.nan)
        return _mean_over(classes, smooth)(prediction, target, n_classes)

    return score


def _organ_scores(prediction: Tensor, target: Tensor, n_classes: int, empty: float) -> Tensor:
    organs = torch.arange(1, n_classes)[:, None, None]
    return evaluation.dice(prediction == organs, target == organs, empty)


def _target_only(prediction: Tensor, target: Tensor, n_classes: int) -> Tensor:
    scores = _organ_scores(prediction, target, n_classes, math.nan)
    shown = torch.stack([(target == k).any() for k in range(1, n_classes)])
    return scores[shown].nanmean()


def _mean_loop(prediction: Tensor, target: Tensor, n_classes: int) -> float:
    scores = []
    for k in range(1, n_classes):
        p, t = prediction == k, target == k
        if bool((p | t).any()):
            scores.append(2 * int((p & t).sum()) / (int(p.sum()) + int(t.sum())))
    return sum(scores) / len(scores) if scores else math.nan


def _mean_counts(prediction: Tensor, target: Tensor, n_classes: int) -> Tensor:
    table = torch.bincount(
        (target * n_classes + prediction).flatten(), minlength=n_classes**2
    ).view(n_classes, n_classes)
    sizes = (table.sum(0) + table.sum(1))[1:]
    return (2 * table.diagonal()[1:] / sizes)[sizes > 0].mean()


def _mean_one_hot(prediction: Tensor, target: Tensor, n_classes: int) -> Tensor:
    p, t = (
        torch.nn.functional.one_hot(m, n_classes).flatten(0, 1)[:, 1:].double()
        for m in (prediction, target)
    )
    return (2 * (p * t).sum(0) / (p.sum(0) + t.sum(0))).nanmean()


def _mean_numpy(prediction: Tensor, target: Tensor, n_classes: int) -> Any:
    p, t = prediction.numpy(), target.numpy()
    seen = [k for k in np.union1d(p, t) if k != 0]
    scores = [2 * ((p == k) & (t == k)).sum() / ((p == k).sum() + (t == k).sum()) for k in seen]
    return float(np.mean(scores)) if scores else np.nan


MEAN_SECTION = "notebook 01, «Dice: what a mean over organs hides»"

MEAN_DICE = Answer(
    name="mean_dice",
    reference=mean_dice,
    section=MEAN_SECTION,
    checks=[
        Check("the mean over the organs, without background", _all_shown, points=2),
        Check("an organ that neither map shows is left out", _some_absent),
        Check("an organ overlooked or invented counts as 0", _overlooked),
        Check("no organ in either: NaN", _no_organ),
    ],
    mistakes=[
        Mistake(
            "as found",
            _mean_as_found,
            "This still does what the function you found does. It has three faults: compare it by "
            "hand on a map with one small organ, with an organ nobody shows, and with one that the "
            "prediction overlooks.",
            MEAN_SECTION,
        ),
        Mistake(
            "background alone repaired",
            lambda p, t, n: _predicted_only(1, 1.0)(p, t, n) if p.max() else torch.tensor(math.nan),
            "The background is out; two faults are left. What does your function make of an organ "
            "that neither map shows, and of one that the prediction overlooks?",
            MEAN_SECTION,
        ),
        Mistake(
            "smoothing left in",
            _mean_over(None, 1.0),
            "The 1 above and below the line is still there: every score is raised by it, and an "
            "organ that neither map shows counts as perfect. Leave such organs out.",
            EMPTY_SECTION,
        ),
        Mistake(
            "a smaller ε",
            _mean_over(None, 1e-7),
            "You made the added number smaller. An organ that neither map shows still gets a score "
            "of 1 from it; it should not be in the mean at all.",
            EMPTY_SECTION,
        ),
        Mistake(
            "absent organs at 0",
            lambda p, t, n: _organ_scores(p, t, n, 0.0).mean(),
            "An organ that neither map shows counts as 0 in your mean. There is nothing to find "
            "and nothing was invented: leave it out.",
            EMPTY_SECTION,
        ),
        Mistake(
            "classes the prediction knows",
            _predicted_only(1, 0.0),
            "You count the classes up to the largest *predicted* one. An organ that the prediction "
            "overlooks then leaves the mean instead of pulling it down.",
            MEAN_SECTION,
        ),
        Mistake(
            "classes the target knows",
            _target_only,
            "You average over the organs that the target shows. An organ that is invented where "
            "there is none would go unpunished; its score is 0.",
            MEAN_SECTION,
        ),
        Mistake(
            "background counted",
            _mean_over(None, 0.0, first=0),
            "Background is still one of the classes. It is large and easy, so its Dice is near 1 "
            "and lifts every mean.",
            MEAN_SECTION,
        ),
        Mistake(
            "mean with NaN in it",
            lambda p, t, n: _organ_scores(p, t, n, math.nan).mean(),
            "One organ without a score makes your whole mean NaN. Average over those that have "
            "one.",
            EMPTY_SECTION,
        ),
        Mistake(
            "organs thrown together",
            lambda p, t, n: evaluation.dice(p > 0, t > 0, math.nan),
            "You compared organ with organ, whichever it is: a liver labelled as spleen counts as "
            "right. One score for each organ, then their mean.",
            MEAN_SECTION,
        ),
        Mistake(
            "no organ, no fault",
            lambda p, t, n: mean_dice(p, t, n).nan_to_num(1.0),
            "If no organ is shown at all you return 1. A mean of nothing is undefined: NaN.",
            EMPTY_SECTION,
        ),
        Mistake(
            "one organ too few",
            lambda p, t, n: mean_dice(
                torch.where(p == n - 1, 0, p), torch.where(t == n - 1, 0, t), n
            ),
            "The last organ is missing: n_classes counts the background, so the organs are "
            "1 … n_classes − 1, both included.",
            MEAN_SECTION,
        ),
    ],
    variants=[
        V("loop over the organs", _mean_loop),
        V("table of counts", _mean_counts),
        V("one-hot", _mean_one_hot),
        V("numpy, classes that occur", _mean_numpy),
    ],
    hints=[
        "Call the function as found with two maps of background alone; then with an organ in the "
        "target that the prediction does not have. Which classes does its loop run over?",
        "Background belongs out; the classes come from n_classes, not from what was predicted; and "
        "a 1 above and below the line makes something of nothing. You have a dice with a rule.",
        "In words: compare both maps with each of 1 … n_classes−1 (an axis in front), hand the two "
        "stacks of masks to your dice with NaN for empty, and take `nanmean`.",
    ],
    equivalent={
        "return dice(prediction == organs, target == organs, math.nan).nanmean() → "
        "return dice(target == organs, prediction == organs, math.nan).nanmean()": (
            "Dice is symmetric in its two masks"
        ),
    },
    withhold=GIVEN_AWAY,
    kind="repair",
    difficulty=2,
    importance=4,
    minutes=10,
)

TWO_SCORES = Prose(
    name="two_scores",
    points=2,
    rubric=[
        "says that a mean of slice Dices gives each slice the same weight, however little of the "
        "organ it shows",
        "says that a stray pixel in a slice without organ makes that slice 0, while in the volume "
        "it is one voxel among thousands",
        "says that the rule for slices empty in both has to be reported, because it moves the mean",
        "says which of the two scores fits which use (a volume to be measured, slices to be "
        "checked one by one), or that both are to be reported",
    ],
    model=(
        "The mean of slice Dices treats every slice alike: one stray pixel where there is no organ "
        "gives 0 for the whole slice, and two thirds of a scan may be such slices. The volume Dice "
        "counts voxels, so the same pixels hardly show. Slices that are empty in both have no "
        "Dice; left out, counted as 1 or as 0, they move the mean by tens of points, so the rule "
        "belongs beside the number. If the volume of the organ is wanted, the volume Dice is the "
        "nearer question; if somebody has to look at every slice, each invented speck is work, and "
        "the slice mean says so. A report gives both, with the rule."
    ),
)

EXERCISE = Exercise(
    number=1,
    name="dice",
    title="Dice, and how far to trust it",
    answers=[DICE, VOLUME_DICE, BOOTSTRAP_INTERVAL, MEAN_DICE],
    prose=[TWO_SCORES],
)
