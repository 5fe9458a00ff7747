"""Other right ways to write the answers of exercise 07."""

from __future__ import annotations

import math

import numpy as np
import torch

from fewshot_lib import evaluation


def _extent(mask):
    shown = mask.flatten(1).any(dim=1).nonzero()[:, 0].tolist()
    return (shown[0], shown[-1] - shown[0] + 1) if shown else (0, 0)


def ep1__groups_in_loops(predictions, support_mask, query_mask, chunks):
    def groups(mask):
        first, n = _extent(mask)
        cut = [[] for _ in range(chunks)]
        for i in range(n):
            cut[math.floor(i * chunks / n + 1e-9)].append(first + i)
        return cut

    supports, queries = groups(support_mask), groups(query_mask)
    if not all(supports):
        raise ValueError("a chunk of the support is empty")
    volume = torch.zeros_like(query_mask)
    for shots, asked in zip(supports, queries, strict=True):
        for z in asked:
            volume[z] = predictions[shots[len(shots) // 2], z]
    both, sizes = (volume & query_mask).sum().item(), (volume.sum() + query_mask.sum()).item()
    return volume, 2 * both / sizes if sizes else float("nan")


def ep1__numpy(predictions, support_mask, query_mask, chunks):
    p, s, q = (t.numpy().astype(bool) for t in (predictions, support_mask, query_mask))
    rows = np.flatnonzero(s.any(axis=(1, 2)))
    if rows.size == 0 or np.ptp(rows) + 1 < chunks:
        raise ValueError("too few support slices")
    places = np.arange(rows[0], rows[-1] + 1)
    chunk = (places - rows[0]) * chunks // len(places)
    centres = np.array([places[chunk == c][(chunk == c).sum() // 2] for c in range(chunks)])
    volume = np.zeros_like(q)
    asked = np.flatnonzero(q.any(axis=(1, 2)))
    if asked.size:
        z = np.arange(asked[0], asked[-1] + 1)
        volume[z] = p[centres[(z - z[0]) * chunks // len(z)], z]
    with np.errstate(invalid="ignore"):
        return volume, 2.0 * np.sum(volume & q) / np.float64(volume.sum() + q.sum())


def ep1__gather_a_dict_of_parts(predictions, support_mask, query_mask, chunks):
    (first, n), (start, length) = _extent(support_mask), _extent(query_mask)
    if n < chunks:
        raise ValueError("too few support slices")
    z = torch.arange(len(query_mask))
    inside = (z >= start) & (z < start + length)
    chunk = ((z - start).clamp(min=0) * chunks // max(length, 1)).clamp(max=chunks - 1)
    numbers = torch.arange(n) * chunks // n  # the chunk of each support slice
    half = torch.stack([(numbers == c).sum() // 2 for c in range(chunks)])
    centre = first + torch.searchsorted(numbers, torch.arange(chunks)) + half
    index = centre[chunk].view(1, -1, 1, 1).expand(1, *query_mask.shape)
    volume = predictions.gather(0, index)[0] & inside[:, None, None]
    return {"volume": volume, "dice": evaluation.volume_dice(volume, query_mask)}


def ep2__loops_over_voxels(predictions, support_mask, query_mask):
    shown = [s for s in range(len(support_mask)) if bool(support_mask[s].any())]
    if not shown:
        raise ValueError("no support slice")
    volume = predictions[math.ceil((shown[0] + shown[-1]) / 2)].clone()
    both = sizes = 0
    for found, true in zip(volume.flatten().tolist(), query_mask.flatten().tolist(), strict=True):
        both, sizes = both + (found and true), sizes + found + true
    return volume, 2 * both / sizes if sizes else math.nan


def ep2__numpy(predictions, support_mask, query_mask):
    rows = np.flatnonzero(support_mask.numpy().any(axis=(1, 2)))
    if not rows.size:
        raise ValueError("no support slice")
    volume, truth = predictions.numpy()[(rows.min() + rows.max() + 1) // 2], query_mask.numpy()
    with np.errstate(invalid="ignore"):
        return volume, 2.0 * (volume & truth).sum() / np.float64(volume.sum() + truth.sum())


def ep2__precision_and_recall_a_dict_of_parts(predictions, support_mask, query_mask):
    first, n = _extent(support_mask)
    if not n:
        raise ValueError("no support slice")
    volume = predictions[range(first, first + n)[n // 2]]
    found = (volume & query_mask).sum().double()
    harmonic = 2 / (volume.sum() / found + query_mask.sum() / found)
    empty = torch.tensor(math.nan) if not (volume | query_mask).any() else torch.tensor(0.0)
    return {"dice": empty if not found else harmonic, "volume": volume}


def choose_slice__loops(predictions, mask):
    best, score = -1, -math.inf
    for s in range(len(mask)):
        if not mask[s].any():
            continue
        both = sizes = 0
        for t in range(len(mask)):
            if t != s:
                both += int((predictions[s, t] & mask[t]).sum())
                sizes += int(predictions[s, t].sum()) + int(mask[t].sum())
        dice = 2 * both / sizes if sizes else math.nan
        if best < 0 or dice > score:
            best, score = s, dice
    if best < 0:
        raise ValueError("nothing to choose from")
    return best, score


def choose_slice__numpy(predictions, mask):
    p, m = predictions.numpy(), mask.numpy()
    able = np.flatnonzero(m.any(axis=(1, 2)))
    if not able.size:
        raise ValueError("nothing to choose from")
    both = (p & m).sum(axis=(2, 3))
    sizes = p.sum(axis=(2, 3)) + m.sum(axis=(1, 2))
    np.fill_diagonal(both, 0)
    np.fill_diagonal(sizes, 0)
    with np.errstate(invalid="ignore"):
        scores = (2.0 * both.sum(axis=1) / sizes.sum(axis=1))[able]
    place = int(np.argmax(scores))
    return able[place], scores[place]


def choose_slice__the_librarys_dice_sorted(predictions, mask):
    able = mask.flatten(1).any(1).nonzero().flatten().tolist()
    if not able:
        raise ValueError("nothing to choose from")

    def score(s):
        rest = [t for t in range(len(mask)) if t != s]
        return float(evaluation.volume_dice(predictions[s, rest], mask[rest], empty=math.nan))

    best = sorted(able, key=lambda s: -score(s))[0]
    return best, score(best)


def find_fold_leaks__loops(train, support, query):
    n_folds, n_scans = query.shape
    asking = [[f for f in range(n_folds) if query[f, s]] for s in range(n_scans)]
    trained = [[bool(train[f, s] and query[f, s]) for s in range(n_scans)] for f in range(n_folds)]
    own = [
        [bool(query[f, s]) and int(support[f]) == s for s in range(n_scans)] for f in range(n_folds)
    ]
    return [not one for one in asking], [len(one) >= 2 for one in asking], trained, own


def find_fold_leaks__numpy(train, support, query):
    t, s, q = train.numpy(), support.numpy(), query.numpy()
    counts = np.bincount(np.nonzero(q)[1], minlength=q.shape[1])
    return counts < 1, counts >= 2, np.logical_and(t, q), q & (np.arange(q.shape[1]) == s[:, None])


def find_fold_leaks__scatter_a_dict_of_parts(train, support, query):
    own = torch.zeros_like(query).scatter(1, support[:, None], True) & query
    last = query.int().cumsum(0)[-1]
    return {"never": ~query.any(0), "twice": last >= 2, "trained": train * query, "own": own}


def make_folds__dealing_them_out(n_scans, n_folds):
    if not 2 <= n_folds <= n_scans:
        raise ValueError("impossible")
    return [[q % n_folds, (q + 1) % n_folds, q] for q in range(n_scans)]


def make_folds__numpy_drawn_at_random(n_scans, n_folds):
    if not 2 <= n_folds <= n_scans:
        raise ValueError("impossible")
    parts = np.array_split(np.random.default_rng(3).permutation(n_scans), n_folds)
    rows = [
        np.stack([np.full(len(part), f), np.full(len(part), parts[f - 1][-1]), part], axis=1)
        for f, part in enumerate(parts)
    ]
    return np.concatenate(rows)


def make_folds__between_edges(n_scans, n_folds):
    if not 2 <= n_folds <= n_scans:
        raise ValueError("impossible")
    edges = [round(f * n_scans / n_folds) for f in range(n_folds + 1)]
    plan = torch.zeros(n_scans, 3, dtype=torch.int64)
    for f in range(n_folds):
        plan[edges[f] : edges[f + 1], 0] = f
        plan[edges[f] : edges[f + 1], 1] = edges[f + 1] % n_scans
    plan[:, 2] = torch.arange(n_scans)
    return plan
