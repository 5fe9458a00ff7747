"""Other right ways to write the answers of exercise 01."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats
from sklearn.metrics import f1_score


def dice__sets_of_pixels_in_a_loop(prediction, target, empty):
    if prediction.ndim > 2:
        pairs = zip(prediction, target, strict=True)
        return [dice__sets_of_pixels_in_a_loop(p, t, empty) for p, t in pairs]
    p, t = ({tuple(place) for place in mask.nonzero().tolist()} for mask in (prediction, target))
    return 2 * len(p & t) / (len(p) + len(t)) if p or t else float(empty)


def dice__scikit_learn(prediction, target, empty):
    if prediction.ndim > 2:
        pairs = zip(prediction, target, strict=True)
        return np.stack([dice__scikit_learn(p, t, empty) for p, t in pairs])
    p, t = prediction.bool().flatten().numpy(), target.bool().flatten().numpy()
    return np.asarray(f1_score(t, p) if (p | t).any() else empty)


def dice__einsum(prediction, target, empty):
    p, t = prediction.double(), target.double()
    sizes = torch.einsum("...hw->...", p + t)
    return (2 * torch.einsum("...hw,...hw->...", p, t) / sizes).masked_fill(sizes == 0, empty)


def dice__from_the_jaccard_index(prediction, target, empty):
    p, t = prediction.bool(), target.bool()
    union = (p | t).sum((-2, -1))
    jaccard = (p & t).sum((-2, -1)) / union
    return torch.where(union == 0, empty, 2 * jaccard / (1 + jaccard))


def volume_dice__counted_slice_by_slice(prediction, target, empty):
    if prediction.ndim > 3:
        pairs = zip(prediction, target, strict=True)
        return torch.stack([volume_dice__counted_slice_by_slice(p, t, empty) for p, t in pairs])
    shared = sizes = 0
    for p, t in zip(prediction, target, strict=True):
        shared += int((p & t).sum())
        sizes += int(p.sum()) + int(t.sum())
    return torch.tensor(2 * shared / sizes if sizes else float(empty))


def volume_dice__numpy(prediction, target, empty):
    p, t = prediction.numpy(), target.numpy()
    sizes = (p.astype(int) + t).sum((-3, -2, -1))
    with np.errstate(all="ignore"):
        return np.where(sizes == 0, empty, 2.0 * (p & t).sum((-3, -2, -1)) / sizes)


def volume_dice__mean_weighted_by_both_sizes(prediction, target, empty):
    weight = (prediction.double() + target.double()).sum((-2, -1))  # (…, Z)
    value = dice__einsum(prediction, target, 0.0) * weight
    return torch.where(weight.sum(-1) == 0, empty, value.sum(-1) / weight.sum(-1))


def bootstrap_interval__scipy(values, confidence, n_resamples, generator):
    known = values[~values.isnan()].numpy()
    seed = int(torch.randint(2**62, (), generator=generator))
    found = stats.bootstrap(
        (known,),
        np.mean,
        n_resamples=n_resamples,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def bootstrap_interval__lists_and_a_loop(values, confidence, n_resamples, generator):
    known = [float(v) for v in values if not math.isnan(v)]
    drawn = torch.randint(len(known), (n_resamples, len(known)), generator=generator).tolist()
    means = sorted(sum(known[i] for i in row) / len(known) for row in drawn)
    last = n_resamples - 1
    low = means[math.floor((1 - confidence) / 2 * last)]
    return low, means[math.ceil((1 + confidence) / 2 * last)]


def bootstrap_interval__counts_of_each_value(values, confidence, n_resamples, generator):
    known = values[~values.isnan()].double()
    n = len(known)
    drawn = (torch.rand(n_resamples, n, generator=generator) * n).long().clamp_max(n - 1)
    counts = torch.zeros(n_resamples, n).double()
    counts.scatter_add_(1, drawn, torch.ones(n_resamples, n).double())
    means = counts @ known / n
    alpha = 1 - confidence
    return [means.quantile(alpha / 2).item(), means.quantile(1 - alpha / 2).item()]


def mean_dice__scikit_learn(prediction, target, n_classes):
    if not (prediction + target).any():
        return math.nan
    scores = f1_score(
        target.flatten().numpy(),
        prediction.flatten().numpy(),
        labels=range(1, n_classes),
        average=None,
        zero_division=np.nan,
    )
    return float(np.nanmean(scores))


def mean_dice__loop_over_the_organs(prediction, target, n_classes):
    scores = []
    for k in range(1, n_classes):
        p, t = prediction == k, target == k
        if bool((p | t).any()):
            scores.append(2 * int((p & t).sum()) / (int(p.sum()) + int(t.sum())))
    return sum(scores) / len(scores) if scores else math.nan


def mean_dice__table_of_counts(prediction, target, n_classes):
    pairs = (target * n_classes + prediction).flatten()
    table = torch.bincount(pairs, minlength=n_classes**2).view(n_classes, n_classes)
    sizes = (table.sum(0) + table.sum(1))[1:]
    return (2 * table.diagonal()[1:] / sizes)[sizes > 0].mean()
