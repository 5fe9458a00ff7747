"""Other right ways to write the answers of exercise 02."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats


def _refuse(labels, n_way, needed):
    """Give the classes, or raise."""
    classes, counts = labels.unique(return_counts=True)
    if len(classes) < n_way or (counts < needed).any():
        raise ValueError("too few classes or examples")
    return classes


def draw_episode__lists_and_pop(labels, n_way, k_shot, n_query, g):
    by_class = {}
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


def draw_episode__random_keys_sorted(labels, n_way, k_shot, n_query, g):
    """Draw a random key for each example and sort by it: no loop."""
    classes = _refuse(labels, n_way, k_shot + n_query)
    chosen = classes[torch.rand(len(classes), generator=g).argsort()[:n_way]]
    keys = torch.rand(len(labels), generator=g).masked_fill(labels != chosen[:, None], 2.0)
    order = keys.argsort(dim=1)
    return order[:, :k_shot], order[:, k_shot : k_shot + n_query], chosen


def draw_episode__numpy_seeded_by_the_generator(labels, n_way, k_shot, n_query, g):
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


def draw_episode__multinomial_in_a_dict(labels, n_way, k_shot, n_query, g):
    classes = _refuse(labels, n_way, k_shot + n_query)
    chosen = classes[torch.ones(len(classes)).multinomial(n_way, generator=g)]
    member = (labels == chosen[:, None]).float()  # (n_way, N)
    rows = member.multinomial(k_shot + n_query, generator=g)
    return {"support": rows[:, n_query:], "query": rows[:, :n_query], "classes": chosen}


def find_leaks__sets_and_loops(train, test, support, query, gap):
    shared = sorted(set(train.tolist()) & set(test.tolist()))
    subjects = {s for s, _ in support.tolist()}
    near = [
        any(s == t and abs(i - j) <= gap for t, j in support.tolist()) for s, i in query.tolist()
    ]
    return shared, [s in subjects for s, _ in query.tolist()], near


def find_leaks__numpy(train, test, support, query, gap):
    a, b = support.numpy(), query.numpy()
    away = np.where(b[:, None, 0] == a[:, 0], np.abs(b[:, None, 1] - a[:, 1]), 10**9)
    shared = np.intersect1d(train.numpy(), test.numpy())
    return shared, np.isin(b[:, 0], a[:, 0]), away.min(axis=1) <= gap


def find_leaks__one_distance_for_subject_and_slice(train, test, support, query, gap):
    def far_apart(pairs):  # subjects so far apart that no gap reaches
        return (pairs[:, 0] * 1_000_000 + pairs[:, 1])[:, None].double()

    near = torch.cdist(far_apart(query), far_apart(support), p=1).min(dim=1).values <= gap
    shared = torch.tensor([c for c in train.unique().tolist() if bool((test == c).any())])
    return shared, torch.isin(query[:, 0], support[:, 0]), near


def expected_coverage__episode_by_episode(n_classes, n_way, n_episodes):
    most = int(torch.as_tensor(n_episodes).max())
    seen = [0.0]
    for _ in range(most):
        seen.append(seen[-1] + (n_classes - seen[-1]) * n_way / n_classes)
    return torch.tensor(seen)[n_episodes]


def expected_coverage__by_counting_the_choices(n_classes, n_way, n_episodes):
    missed = math.comb(n_classes - 1, n_way) / math.comb(n_classes, n_way)
    return n_classes - n_classes * missed**n_episodes


def expected_coverage__by_logarithms(n_classes, n_way, n_episodes):
    episodes = torch.as_tensor(n_episodes).double()
    if n_way == n_classes:
        return n_classes * (episodes > 0).double()
    return -n_classes * torch.expm1(episodes * math.log1p(-n_way / n_classes))


def expected_coverage__scipy(n_classes, n_way, n_episodes):
    missed = stats.binom.pmf(0, np.asarray(n_episodes), n_way / n_classes)
    return n_classes * (1 - missed)


def accuracy__loops(log_p):
    if log_p.ndim > 3:
        return torch.stack([torch.as_tensor(accuracy__loops(part)) for part in log_p])
    right = 0
    for row, queries in enumerate(log_p.tolist()):
        for query in queries:
            right += not any(map(math.isnan, query)) and query.index(max(query)) == row
    return torch.tensor(right / (log_p.shape[0] * log_p.shape[1]))


def accuracy__numpy(log_p):
    p = log_p.numpy()
    best = np.where(np.isnan(p).any(-1), -1, p.argmax(-1))
    return np.mean(best == np.arange(p.shape[-1])[:, None], axis=(-2, -1))


def accuracy__flattened_queries(log_p):
    n_way, n_query = log_p.shape[-1], log_p.shape[-2]
    flat = log_p.flatten(-3, -2)  # (…, n_way · n_query, n_way)
    right = flat.argmax(-1) == torch.arange(n_way).repeat_interleave(n_query)
    return (right & flat.isfinite().all(-1)).sum(-1) / (n_way * n_query)


def accuracy__own_class_at_least_as_probable_as_each(log_p):
    own = log_p.diagonal(dim1=-3, dim2=-1).mT  # (…, n_way, n_query): of the right class
    return (own[..., None] >= log_p).all(-1).double().mean((-2, -1))
