"""Other right ways to write the answers of exercise 08."""

from __future__ import annotations

import math

import numpy as np
import torch


def normalise__numpy(images, low, high):
    values = images.numpy()
    bottom, top = np.percentile(values, [low, high])
    if not top > bottom:
        raise ValueError("no contrast")
    return np.clip((values - bottom) / (top - bottom), 0.0, 1.0)


def normalise__percentiles_by_sorting(images, low, high):
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


def normalise__interpolation_between_the_percentiles(images, low, high):
    levels = torch.tensor([low, high]).double() / 100
    bottom, top = images.double().quantile(levels).tolist()
    if not bottom < top:
        raise ValueError("no contrast")
    return np.interp(images.numpy(), [bottom, top], [0.0, 1.0])


def adapt_prototypes__loop_over_classes(source, embeddings, labels, strength):
    if strength < 0 or any(not 0 <= k < len(source) for k in labels.tolist()):
        raise ValueError("unusable")
    rows = []
    for k, prototype in enumerate(source):
        own = embeddings[labels == k]
        mean = (strength * prototype + own.sum(0)) / (strength + len(own)) if len(own) else None
        rows.append(prototype if mean is None else mean)
    return torch.stack(rows)


def adapt_prototypes__one_hot_and_a_share(source, embeddings, labels, strength):
    if strength < 0:
        raise ValueError("unusable")
    try:
        one_hot = torch.nn.functional.one_hot(labels, len(source)).to(source.dtype)  # (N, K)
    except RuntimeError as error:
        raise ValueError("unusable") from error
    share = one_hot.sum(0) / (one_hot.sum(0) + strength)
    mean = one_hot.T @ embeddings / one_hot.sum(0).clamp(min=1)[:, None]
    return source + share.nan_to_num(0.0)[:, None] * (mean - source)


def adapt_prototypes__numpy(source, embeddings, labels, strength):
    s, z, y = source.numpy(), embeddings.numpy(), labels.numpy()
    if strength < 0 or (len(y) and (y.min() < 0 or y.max() >= len(s))):
        raise ValueError("unusable")
    total, count = np.zeros_like(s), np.zeros((len(s), 1))
    np.add.at(total, y, z)
    np.add.at(count, y, 1)
    with np.errstate(all="ignore"):
        return np.where(count > 0, (strength * s + total) / (strength + count), s)


def adapt_prototypes__label_by_label_a_running_mean(source, embeddings, labels, strength):
    if strength < 0 or ((labels < 0) | (labels >= len(source))).any():
        raise ValueError("unusable")
    current, weight = source.clone(), torch.full((len(source),), float(strength))
    for z, k in zip(embeddings, labels, strict=True):  # each label moves its prototype a little
        weight[k] += 1
        current[k] += (z - current[k]) / weight[k]
    return current


def choose_slices__lists_and_loops(features, n_slices):
    rows = features.tolist()
    if n_slices < 1 or n_slices > len(rows):
        raise ValueError("impossible")
    total = [math.fsum(math.dist(a, b) for b in rows) for a in rows]
    chosen = [total.index(min(total))]
    while len(chosen) < n_slices:
        left = [z for z in range(len(rows)) if z not in chosen]
        chosen.append(max(left, key=lambda z: min(math.dist(rows[z], rows[c]) for c in chosen)))
    return torch.tensor(chosen)


def choose_slices__numpy(features, n_slices):
    f = features.numpy().astype(float)
    if not 0 < n_slices <= len(f):
        raise ValueError("impossible")
    apart = np.sqrt(((f[:, None] - f[None]) ** 2).sum(-1))
    chosen = [int(apart.mean(0).argmin())]
    for _ in range(n_slices - 1):
        left = np.setdiff1d(np.arange(len(f)), chosen)
        chosen.append(int(left[apart[np.ix_(left, np.array(chosen))].min(1).argmax()]))
    return np.array(chosen)


def choose_slices__distance_to_the_nearest_kept_up_to_date(features, n_slices):
    if n_slices not in range(1, len(features) + 1):
        raise ValueError("impossible")
    apart = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    chosen, nearest = [int(apart.mean(1).argmin())], torch.full((len(features),), math.inf)
    for _ in range(1, n_slices):
        nearest = torch.minimum(nearest, apart[chosen[-1]])
        nearest[chosen[-1]] = -math.inf
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen)


def most_uncertain__loops(log_p, n_slices, gap):
    entropies = []
    for picture in log_p.exp().flatten(2).mT.tolist():  # slices, pixels, classes
        total = -sum(p * math.log(p) for pixel in picture for p in pixel if p > 0)
        entropies.append(total / len(picture))
    chosen = []
    for z in sorted(range(len(entropies)), key=lambda z: -entropies[z]):
        if len(chosen) < n_slices and all(abs(z - c) > gap for c in chosen):
            chosen.append(z)
    if len(chosen) < n_slices:
        raise ValueError("not to be found")
    return torch.tensor(chosen)


def most_uncertain__numpy_in_bits(log_p, n_slices, gap):
    lp = log_p.numpy().astype(float)
    p = np.exp(lp)
    entropy = -np.where(p > 0, p * np.where(p > 0, lp, 0.0), 0.0).sum(1).mean((-2, -1)) / np.log(2)
    chosen = []
    for _ in range(n_slices):
        if np.isneginf(entropy).all():
            raise ValueError("not to be found")
        best = int(entropy.argmax())
        chosen.append(best)
        entropy[max(best - gap, 0) : best + gap + 1] = -np.inf
    return np.array(chosen)


def most_uncertain__entropies_by_torch_distributions(log_p, n_slices, gap):
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


def calibration_error__bin_by_bin_in_a_loop(confidence, right, n_bins):
    total = 0.0
    for b in range(n_bins):
        low, high = b / n_bins, (b + 1) / n_bins
        inside = [
            c - r
            for c, r in zip(confidence.tolist(), right.tolist(), strict=True)
            if low < c <= high or (b == 0 and c == 0)
        ]
        total += abs(sum(inside))
    return total / len(confidence)


def calibration_error__numpys_histogram(confidence, right, n_bins):
    c, r = confidence.numpy().astype(float), right.numpy().astype(float)
    gap, _ = np.histogram(c, np.linspace(0, 1, n_bins + 1), weights=c - r)
    return np.abs(gap).sum() / len(c)


def calibration_error__bucketize(confidence, right, n_bins):
    edges = torch.arange(1, n_bins) / n_bins
    place = torch.bucketize(confidence, edges.to(confidence.dtype), right=True)
    parts = [(confidence - right.to(confidence.dtype))[place == b].sum() for b in place.unique()]
    return torch.stack(parts).abs().sum() / len(confidence)


def reject_curve__loop_over_thresholds(confidence, right, thresholds):
    coverage, risk = [], []
    for level in thresholds:
        kept = right[confidence >= level].tolist()
        coverage.append(len(kept) / len(right))
        risk.append(kept.count(False) / len(kept) if kept else math.nan)
    return torch.tensor(coverage), torch.tensor(risk)


def reject_curve__numpy(confidence, right, thresholds):
    kept = confidence.numpy() >= thresholds.numpy()[:, None]
    with np.errstate(all="ignore"):
        hits = (kept & right.numpy()).sum(1) / kept.sum(1)
    return kept.mean(1), 1 - hits


def reject_curve__sorted_and_sums_from_the_end(confidence, right, thresholds):
    order = confidence.argsort()
    first = torch.searchsorted(confidence[order].contiguous(), thresholds.contiguous())
    wrong = torch.cat([(~right[order]).long().flip(0).cumsum(0).flip(0), torch.zeros(1)])
    n_kept = len(right) - first
    return n_kept / len(right), wrong[first] / n_kept
