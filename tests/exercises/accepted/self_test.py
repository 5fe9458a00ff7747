"""Other right ways to write the answers of exercise 09."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import special, stats
from scipy.spatial import distance as metrics
from sklearn.neighbors import NearestCentroid
from torch.distributions import Normal


def key_formulas__loops_and_lists(support, labels, queries, n_way):
    means = [support[labels == k].mean(dim=0) for k in range(n_way)]
    rows = [[float(((z - c) ** 2).sum()) for c in means] for z in queries]
    chances = []
    for row in rows:
        weights = [math.exp(min(row) - d) for d in row]
        chances.append([w / sum(weights) for w in weights])
    return torch.stack(means), rows, chances


def key_formulas__the_linear_form(support, labels, queries, n_way):
    inside = (labels == torch.arange(n_way)[:, None]).double()
    means = (inside / inside.sum(-1, keepdim=True)) @ support.double()
    lengths = queries.double().square().sum(-1, keepdim=True)
    logits = 2 * queries.double() @ means.T - means.square().sum(-1)
    return means, lengths - logits, torch.softmax(logits, dim=-1)


def key_formulas__scikit_learn_and_scipy(support, labels, queries, n_way):
    means = NearestCentroid().fit(support.double().numpy(), labels.numpy()).centroids_
    distances = metrics.cdist(queries.double().numpy(), means, "sqeuclidean")
    return means, distances, special.softmax(-distances, axis=-1)


def key_formulas__index_add_and_einsum(support, labels, queries, n_way):
    sums = torch.zeros(n_way, support.shape[-1], dtype=support.dtype).index_add_(0, labels, support)
    means = sums / torch.bincount(labels, minlength=n_way)[:, None]
    apart = queries[:, None] - means
    distances = torch.einsum("qkd,qkd->qk", apart, apart)
    return means, distances, torch.log_softmax(-distances, dim=-1).exp()


def mixture_proof__torch_distributions(queries, prototypes, variance=0.5, log_prior=None):
    k = len(prototypes)
    prior = torch.full((k,), 1 / k).log() if log_prior is None else log_prior
    normal = Normal(prototypes.double(), math.sqrt(variance))
    joint = normal.log_prob(queries.double()[:, None]).sum(-1) + prior
    origin = Normal(0.0, math.sqrt(variance))  # ‖z‖² is the squared distance to 0
    return joint, origin.log_prob(queries.double()).sum(-1), torch.softmax(joint, -1)


def mixture_proof__scipy(queries, prototypes, variance=0.5, log_prior=None):
    z, c = queries.double().numpy(), prototypes.double().numpy()
    prior = -np.log(len(c)) if log_prior is None else log_prior.numpy()
    normal = stats.multivariate_normal(np.zeros(z.shape[-1]), variance)
    joint = normal.logpdf(z[:, None] - c) + prior
    return joint, normal.logpdf(z), special.softmax(joint, axis=-1)


def mixture_proof__the_linear_form_first(queries, prototypes, variance=0.5, log_prior=None):
    z, c = queries, prototypes
    prior = -math.log(len(c)) if log_prior is None else log_prior
    rest = z @ c.T / variance - c.square().sum(-1) / (2 * variance) + prior
    common = -(z.square().sum(-1) / variance + z.shape[1] * math.log(2 * math.pi * variance)) / 2
    return rest + common[:, None], common, rest.softmax(-1)


def _large(features, masks):
    return F.interpolate(features, size=masks.shape[-2:], mode="bilinear")


def segment__loops_over_queries_and_classes(features, masks, queries, scale=20.0):
    found = torch.zeros(len(queries), masks.shape[1], *masks.shape[-2:], dtype=features.dtype)
    large, known, prototypes = _large(features, masks), [], []
    for k in range(masks.shape[1]):
        if masks[:, k].any():
            inside = masks[:, k].to(large)[:, None]
            known.append(k)
            prototypes.append((large * inside).sum((0, 2, 3)) / inside.sum())
    if not known:
        raise ValueError("nothing to learn from")
    for q, query in enumerate(queries):
        maps = [F.cosine_similarity(query, c[:, None, None], dim=0) for c in prototypes]
        found[q, known] = (scale * _large(torch.stack(maps)[None], masks)[0]).softmax(0)
    return found


def segment__tensordot_and_exp(features, masks, queries, scale=20.0):
    inside = masks.to(features).transpose(0, 1).flatten(1)  # (K, S·H·W)
    mass = inside.sum(1, keepdim=True)
    if not mass.any():
        raise ValueError("no pixels at all")
    sums = inside @ _large(features, masks).transpose(0, 1).flatten(1).T
    directions = F.normalize(sums, dim=1)  # a sum points where the mean does
    cosine = torch.tensordot(F.normalize(queries, dim=1), directions.T, [[1], [0]])
    large = _large(cosine.movedim(-1, 1), masks)
    weights = torch.exp(scale * (large - 1)) * (mass > 0)[..., None]  # cos − 1 ≤ 0: no overflow
    return weights / weights.sum(1, keepdim=True)


def segment__numpy(features, masks, queries, scale=20.0):
    weights = masks.numpy().astype(float)
    mass = weights.sum((0, 2, 3))
    if not mass.any():
        raise ValueError("no class")
    valid = mass > 0
    sums = np.einsum("skhw,sdhw->kd", weights, _large(features, masks).numpy())[valid]
    c, q = sums / mass[valid, None], queries.double().numpy()
    cosine = np.einsum("qdhw,kd->qkhw", q, c / np.linalg.norm(c, axis=1, keepdims=True))
    cosine /= np.linalg.norm(q, axis=1, keepdims=True)
    found = np.zeros((len(q), len(valid), *masks.shape[-2:]))
    large = _large(torch.from_numpy(cosine), masks).numpy()
    found[:, valid] = special.softmax(scale * large, axis=1)
    return found


def ledger_status__count_in_a_loop(low, high, sourced):
    trials = list(zip(low.tolist(), high.tolist(), strict=True))
    if not trials:
        return "cannot be tested here" if sourced else "no source"
    held = sum(a > 0 for a, _ in trials)
    if held:
        return "reproduced" if held == len(trials) else "holds under conditions"
    return "corrected" if any(b < 0 for _, b in trials) else "cannot be tested here"


def ledger_status__by_the_extremes(low, high, sourced):
    if low.numel() == 0:
        return "cannot be tested here" if sourced else "no source"
    if low.min() > 0:
        return "reproduced"
    if low.max() > 0:
        return "holds under conditions"
    return "corrected" if high.min() < 0 else "cannot be tested here"


def ledger_status__numpy(low, high, sourced):
    signs = np.sign(low.numpy()) + np.sign(high.numpy())  # 2 above, −2 below
    if signs.size == 0:
        return "cannot be tested here" if sourced else "no source"
    if (signs == 2).any():
        return "reproduced" if (signs == 2).all() else "holds under conditions"
    return "corrected" if (signs == -2).any() else "cannot be tested here"
