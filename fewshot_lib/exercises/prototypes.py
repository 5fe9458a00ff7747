"""Exercise 03: prototypes, distances, posteriors (note §2.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fewshot_lib import prototypes as library
from fewshot_lib.checker import pictures
from fewshot_lib.checker.spec import Answer, Case, Check, Exercise, Mistake, Prose, Tolerance
from fewshot_lib.checker.spec import Variant as V

# ------------------------------------------------------------------------------- class_prototypes


def _labels(counts: Sequence[int], g: Generator) -> Tensor:
    """Give labels with so many of each class, mixed."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=g)]


def _one_episode(g: Generator) -> Iterator[Case]:
    plane = torch.randn(9, 2, generator=g) + 3
    yield Case("3 classes of 1, 3 and 5 shots in a plane", (plane, _labels([1, 3, 5], g), 3))
    yield Case(
        "2 classes, one shot each", (torch.randn(2, 4, generator=g), torch.tensor([1, 0]), 2)
    )
    yield Case(
        "4 classes, one number each", (torch.randn(8, 1, generator=g), _labels([2] * 4, g), 4)
    )
    yield Case("one class only", (torch.randn(3, 5, generator=g), torch.zeros(3).long(), 1))


def _episodes(g: Generator) -> Iterator[Case]:
    labels = torch.stack([_labels([2, 3], g), _labels([1, 4], g), _labels([4, 1], g)])
    yield Case("3 episodes of 2 classes", (torch.randn(3, 5, 4, generator=g), labels, 2))
    labels = torch.stack([_labels([2, 2, 2], g) for _ in range(4)]).view(2, 2, 6)
    yield Case("2 × 2 episodes of 3 classes", (torch.randn(2, 2, 6, 3, generator=g), labels, 3))


def _senseless(g: Generator) -> Iterator[Case]:
    embeddings = torch.randn(5, 3, generator=g)
    yield Case("class 1 of 3 has no example", (embeddings, torch.tensor([0, 2, 0, 2, 2]), 3))
    yield Case("labels 3 and 7 in a 2-way episode", (embeddings, torch.tensor([3, 7, 3, 7, 7]), 2))
    yield Case("a label 2 in a 2-way episode", (embeddings, torch.tensor([0, 1, 2, 1, 0]), 2))
    yield Case("a label of −1", (embeddings, torch.tensor([0, 1, -1, 1, 0]), 2))


def _shuffled(g: Generator) -> Iterator[Case]:
    embeddings, labels = torch.randn(6, 3, generator=g), torch.tensor([0, 0, 1, 1, 2, 2])
    for name in ("in the order of the classes", "mixed", "mixed otherwise"):
        yield Case(name, (embeddings, labels, 3))
        order = torch.randperm(6, generator=g)
        embeddings, labels = embeddings[order], labels[order]


def _all_equal(cases: Sequence[Case], results: Sequence[Any]) -> bool:
    return all(np.allclose(results[0], other, atol=1e-5) for other in results[1:])


def _member(labels: Tensor, n_way: int) -> Tensor:
    return (labels[..., None] == torch.arange(n_way)).float()  # (…, N, n_way)


def _refuse(labels: Tensor, n_way: int) -> None:
    if not bool(((labels >= 0) & (labels < n_way)).all()):
        raise ValueError("a label outside 0 … n_way−1")
    if bool((_member(labels, n_way).sum(-2) == 0).any()):
        raise ValueError("an empty class")


def _sums(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return _member(labels, n_way).mT @ embeddings


def _divided_by_all(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    _refuse(labels, n_way)
    return _sums(embeddings, labels, n_way) / embeddings.shape[-2]


def _sum_not_mean(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    _refuse(labels, n_way)
    return _sums(embeddings, labels, n_way)


def _whatever_the_class(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    _refuse(labels, n_way)
    mean = embeddings.mean(-2, keepdim=True)
    return mean.expand(*mean.shape[:-2], n_way, mean.shape[-1])


def _over_features(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return torch.stack([embeddings[labels == k].mean(dim=1) for k in range(n_way)])


def _one_number_a_class(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return torch.stack([embeddings[labels == k].mean() for k in range(n_way)])


def _supposes_order(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    _refuse(labels, n_way)
    *leading, _, dimension = embeddings.shape
    return embeddings.reshape(*leading, n_way, -1, dimension).mean(-2)


def _merges_episodes(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    _refuse(labels, n_way)
    return torch.stack([embeddings[labels == k].mean(0) for k in range(n_way)])


def _empty_is_nan(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return _sums(embeddings, labels, n_way) / _member(labels, n_way).sum(-2)[..., None]


def _empty_is_zero(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    counts = _member(labels, n_way).sum(-2).clamp_min(1)
    return _sums(embeddings, labels, n_way) / counts[..., None]


def _unit_length(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return F.normalize(library.class_prototypes(embeddings, labels, n_way), dim=-1)


def _normalised_first(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return library.class_prototypes(F.normalize(embeddings, dim=-1), labels, n_way)


def _median(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    _refuse(labels, n_way)
    inside = torch.where(
        _member(labels, n_way).bool()[..., None], embeddings[..., None, :], torch.nan
    )
    return inside.nanmedian(-3).values


def _running_halves(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    current, seen = _first_shot(embeddings, labels, n_way), torch.zeros(*labels.shape[:-1], n_way)
    member = _member(labels, n_way)  # (…, N, n_way)
    for n in range(labels.shape[-1]):
        now = member[..., n, :]
        moved = (current + embeddings[..., n, None, :]) / 2
        current = torch.where((now * seen)[..., None] > 0, moved, current)
        seen = seen + now
    return current


def _first_shot(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    _refuse(labels, n_way)
    first = _member(labels, n_way).argmax(-2)  # (…, n_way)
    return embeddings.gather(-2, first[..., None].expand(*first.shape, embeddings.shape[-1]))


def _loop(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    if embeddings.ndim > 2:
        return torch.stack([_loop(e, y, n_way) for e, y in zip(embeddings, labels, strict=True)])
    rows = []
    for k in range(n_way):
        mine = embeddings[labels == k]
        if len(mine) == 0 or labels.min() < 0 or labels.max() >= n_way:
            raise ValueError("class without example, or label that is no class")
        rows.append(mine.mean(0))
    return torch.stack(rows)


def _einsum(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    member = F.one_hot(labels, n_way).to(embeddings)  # raises RuntimeError beyond n_way
    return torch.einsum("...nk,...nd->...kd", member / member.sum(-2, keepdim=True), embeddings)


def _einsum_checked(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    _refuse(labels, n_way)
    return _einsum(embeddings, labels, n_way)


def _index_add(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    _refuse(labels, n_way)
    *leading, _, dimension = embeddings.shape
    index = labels[..., None].expand(embeddings.shape)
    total = torch.zeros(*leading, n_way, dimension, dtype=embeddings.dtype)
    total.scatter_add_(-2, index, embeddings)
    counts = torch.zeros_like(total).scatter_add_(-2, index, torch.ones_like(embeddings))
    return total / counts


def _numpy(embeddings: Tensor, labels: Tensor, n_way: int) -> Any:
    data, index = embeddings.numpy(), labels.numpy()
    inside = index[..., None] == np.arange(n_way)  # (…, N, n_way)
    if not inside.any(-1).all() or not inside.any(-2).all():
        raise ValueError("every label a class, every class a label")
    return np.swapaxes(inside / inside.sum(-2, keepdims=True), -1, -2) @ data


def _prototype_picture(case: Case, expected: Any, got: Any) -> str | None:
    embeddings, labels, _ = case.args
    if embeddings.ndim == 2 and embeddings.shape[1] == 2:
        return pictures.scatter(
            embeddings.numpy(), labels.numpy(), np.asarray(expected), np.asarray(got), "prototypes"
        )
    return pictures.matrix(case, expected, got)


GIVEN_AWAY = ["evaluation.episode_accuracy", "heads", "mixture", "networks", "prototypes"]
BY_LOOP = "notebook 03, «Six examples, by hand»; note §2.2"

CLASS_PROTOTYPES = Answer(
    name="class_prototypes",
    reference=library.class_prototypes,
    section=BY_LOOP,
    checks=[
        Check("a prototype is the mean of its own class", _one_episode, points=2),
        Check(
            "the order of the support does not matter",
            _shuffled,
            law=_all_equal,
            says="the same support in another order gives other prototypes",
        ),
        Check(
            "several episodes at once", _episodes, pointer="notebook 03, «Six examples, by hand»"
        ),
        Check(
            "input that makes no sense is refused",
            _senseless,
            pointer="the docstring: which error, and when",
        ),
    ],
    mistakes=[
        Mistake(
            "divided by all shots",
            _divided_by_all,
            "You divided each class's sum by the size of the whole support set, not by |S_k|, the "
            "number of examples of that class. All prototypes shrink toward the origin.",
            BY_LOOP,
        ),
        Mistake(
            "sum, not mean",
            _sum_not_mean,
            "You summed each class's embeddings and did not divide by their number: a class with "
            "more shots lands further from the origin.",
            BY_LOOP,
        ),
        Mistake(
            "class ignored",
            _whatever_the_class,
            "You averaged the whole support set: every class gets the same prototype. The mean for "
            "class k runs over the examples with label k only.",
            BY_LOOP,
        ),
        Mistake(
            "mean over the features",
            _over_features,
            "You averaged along the wrong axis: over the D numbers within each embedding, which "
            "leaves one number an example. The mean runs over the examples, axis 0 of "
            "`embeddings[labels == k]`, and leaves one vector of length D a class.",
            BY_LOOP,
        ),
        Mistake(
            "one number a class",
            _one_number_a_class,
            "Your mean runs over examples and features together, so that each class is left with "
            "one number. A prototype is a vector: say along which axis to average.",
            BY_LOOP,
        ),
        Mistake(
            "supposes sorted classes",
            _supposes_order,
            "You cut the support into n_way equal pieces without looking at the labels. That works "
            "only while classes come in order and all have the same number of shots.",
            "notebook 02, «What an episode looks like»",
        ),
        Mistake(
            "episodes merged",
            _merges_episodes,
            "With leading dimensions `embeddings[labels == k]` throws the examples of all episodes "
            "together. Each episode has prototypes of its own: keep the leading axes, for instance "
            "with a membership array of shape (…, N, n_way).",
            "notebook 03, «Six examples, by hand»",
        ),
        Mistake(
            "empty class is NaN",
            _empty_is_nan,
            "A class without examples divides 0 by 0, and a label outside 0 … n_way−1 silently "
            "belongs to nobody: NaN prototypes travel on into the loss. Refuse both with a "
            "ValueError. (Labels kept as global ids are the usual source.)",
            "notebook 03, «Labels kept as global numbers»",
        ),
        Mistake(
            "empty class is zero",
            _empty_is_zero,
            "You gave a class without examples the zero vector as its prototype. That is a place "
            "like any other, and queries near the origin will be told they belong to it.",
            "notebook 03, «Labels kept as global numbers»; note §3.1",
        ),
        Mistake(
            "prototypes of unit length",
            _unit_length,
            "Your prototypes are scaled to length 1. The formula is a plain mean; only cosine "
            "similarity looks at directions, and it normalises for itself.",
            "notebook 03, «Move a support point»",
        ),
        Mistake(
            "embeddings normalised first",
            _normalised_first,
            "You scaled every embedding to length 1 before averaging. That is the mean direction "
            "(von Mises–Fisher), another model; here long embeddings count with their length.",
            "notebook 04, «Cosine, and where its mean lies»",
        ),
        Mistake(
            "median for mean",
            _median,
            "You took the median. It is the centre for another distance; for squared Euclidean "
            "distance the mean minimises the sum.",
            "notebook 04, «Why the mean»",
        ),
        Mistake(
            "a running half",
            _running_halves,
            "You update a running average by halves: each example counts half of all before it "
            "together, so the last one counts most and the order matters. All shots count alike.",
            BY_LOOP,
        ),
        Mistake(
            "first shot only",
            _first_shot,
            "You took one example of each class, the first; the others are not used. With one shot "
            "that is the same, with more it is not.",
            BY_LOOP,
        ),
    ],
    variants=[
        V("loop over classes and episodes", _loop),
        V("one-hot and einsum", _einsum_checked),
        V("scatter_add", _index_add),
        V("numpy", _numpy),
    ],
    hints=[
        "The formula of §2.2, read as a program: for class k, take the embeddings whose label is k "
        "and average them. Begin with one episode and a loop over k; notebook 03 has it by hand.",
        "To do it at once, for any leading dimensions, build a membership array of shape "
        "(…, N, n_way): 1 where the example has that label. Its sums over the examples are the "
        "class sizes |S_k|; a matrix product with the embeddings gives the class sums.",
        "In words: compare `labels[..., None]` with `torch.arange(n_way)`; check that every class "
        "has a member and every example a class, else raise ValueError; transpose the membership, "
        "multiply it with the embeddings, divide by the class sizes.",
    ],
    picture=_prototype_picture,
    withhold=GIVEN_AWAY,
    difficulty=2,
    importance=5,
    minutes=15,
)

# ------------------------------------------------------------------------------ squared_euclidean


def _pairs(g: Generator, q: int, k: int, d: int, *leading: int) -> tuple[Tensor, Tensor]:
    return torch.randn(*leading, q, d, generator=g), torch.randn(*leading, k, d, generator=g)


def _queries(g: Generator) -> Iterator[Case]:
    yield Case("5 queries, 3 prototypes, 4 features", _pairs(g, 5, 3, 4))
    yield Case("one query, 2 prototypes", _pairs(g, 1, 2, 7))
    yield Case("one feature", _pairs(g, 4, 2, 1))


def _square(g: Generator) -> Iterator[Case]:
    yield Case("as many queries as prototypes", _pairs(g, 4, 4, 3))
    yield Case("as many queries as prototypes as features", _pairs(g, 3, 3, 3))
    yield Case("one query, one prototype", _pairs(g, 1, 1, 5))


def _query_episodes(g: Generator) -> Iterator[Case]:
    yield Case("2 episodes", _pairs(g, 5, 3, 4, 2))
    yield Case("3 × 2 episodes", _pairs(g, 2, 4, 3, 3, 2))
    yield Case("3 episodes, 3 queries, 3 prototypes", _pairs(g, 3, 3, 2, 3))


def _offset(g: Generator) -> Iterator[Case]:
    queries, prototypes = _pairs(g, 40, 6, 8)
    yield Case("40 queries, everything moved by 2000", (queries + 2000, prototypes + 2000))
    points = torch.randn(30, 4, generator=g) + 500
    yield Case("every point against itself", (points, points.clone()))
    queries, prototypes = _pairs(g, 5, 3, 4)
    far = (queries.double() + 1e6, prototypes.double() + 1e6)
    yield Case("float64, moved by a million", far)


def _unsquared(queries: Tensor, prototypes: Tensor) -> Tensor:
    return library.squared_euclidean(queries, prototypes).sqrt()


def _expanded(queries: Tensor, prototypes: Tensor) -> Tensor:
    cross = queries @ prototypes.mT
    return (
        queries.square().sum(-1)[..., None] - 2 * cross + prototypes.square().sum(-1)[..., None, :]
    )


def _no_two(queries: Tensor, prototypes: Tensor) -> Tensor:
    cross = queries @ prototypes.mT
    return queries.square().sum(-1)[..., None] - cross + prototypes.square().sum(-1)[..., None, :]


def _differences(queries: Tensor, prototypes: Tensor) -> Tensor:
    return queries[..., :, None, :] - prototypes[..., None, :, :]


def _cdist_default(queries: Tensor, prototypes: Tensor) -> Tensor:
    return torch.cdist(queries, prototypes, compute_mode="use_mm_for_euclid_dist") ** 2


def _double_loop(queries: Tensor, prototypes: Tensor) -> Tensor:
    if queries.ndim > 2:
        return torch.stack([_double_loop(q, p) for q, p in zip(queries, prototypes, strict=True)])
    return torch.stack([torch.stack([((q - p) ** 2).sum() for p in prototypes]) for q in queries])


DISTANCES_SECTION = "notebook 03, «From distance to probability»; note §2.2"

SQUARED_EUCLIDEAN = Answer(
    name="squared_euclidean",
    reference=library.squared_euclidean,
    section=DISTANCES_SECTION,
    checks=[
        Check("squared differences, summed over the features", _queries, points=2),
        Check("every query with every prototype", _square),
        Check("several episodes at once", _query_episodes),
        Check(
            "far from the origin as near it",
            _offset,
            pointer="notebook 04, «Two formulas that differ in float32»",
        ),
    ],
    mistakes=[
        Mistake(
            "not squared",
            _unsquared,
            "You returned ‖z − c‖, the distance itself; asked is its square. The nearest class "
            "stays the nearest, but every probability computed from it changes, and the Gaussian "
            "reading is lost.",
            "notebook 03, «Move a support point»; note §5.3",
        ),
        Mistake(
            "pairs only",
            lambda q, p: F.pairwise_distance(q, p, eps=0) ** 2,
            "You compared query i with prototype i only (`pairwise_distance` does that, in spite "
            "of its name). Asked is every query with every prototype: a table of shape (…, Q, K).",
            DISTANCES_SECTION,
        ),
        Mistake(
            "absolute differences",
            lambda q, p: _differences(q, p).abs().sum(-1),
            "You summed absolute differences (the city-block distance). Squared Euclidean distance "
            "sums the squares.",
            DISTANCES_SECTION,
        ),
        Mistake(
            "mean over the features",
            lambda q, p: _differences(q, p).square().mean(-1),
            "You averaged the squared differences over the features; the distance is their sum. "
            "The mean is D times smaller, which acts like a temperature of D on the posterior.",
            DISTANCES_SECTION,
        ),
        Mistake(
            "summed over everything",
            lambda q, p: _differences(q, p).square().sum(),
            "You summed over queries and prototypes, too, so one number is left. Sum over the last "
            "axis, the features, only.",
            DISTANCES_SECTION,
        ),
        Mistake(
            "terms that cancel",
            _expanded,
            "‖z‖² − 2 zᵀc + ‖c‖² is right on paper. In float32, far from the origin, it subtracts "
            "large numbers that are nearly equal, and the distance drowns in rounding; it can come "
            "out negative. Subtract first, then square.",
            "notebook 04, «Two formulas that differ in float32»",
        ),
        Mistake(
            "cdist by matrix product",
            _cdist_default,
            "`torch.cdist` switches to a matrix product for more than 25 points, and far from the "
            "origin that loses the digits that matter. Subtract first, then square, or ask cdist "
            "not to use it (`compute_mode`).",
            "notebook 04, «Two formulas that differ in float32»",
        ),
        Mistake(
            "in float32",
            lambda q, p: library.squared_euclidean(q.float(), p.float()),
            "You made float32 of float64 vectors. What they have in digits beyond the seventh is "
            "lost before you subtract; compute in the precision that is handed to you.",
            "notebook 04, «Two formulas that differ in float32»",
        ),
        Mistake(
            "the 2 forgotten",
            _no_two,
            "In the expanded square the mixed term comes twice: ‖z‖² − 2 zᵀc + ‖c‖². (And far from "
            "the origin even the right expansion loses its digits.)",
            DISTANCES_SECTION,
        ),
        Mistake(
            "minus the distance",
            lambda q, p: -library.squared_euclidean(q, p),
            "You returned minus the distance, a similarity. The minus belongs in front of the "
            "distance in the softmax, not in the distance.",
            "note §2.2, the formula for p(y = k | x)",
        ),
        Mistake(
            "prototypes by queries",
            lambda q, p: library.squared_euclidean(q, p).mT,
            "Your table has prototypes down and queries across. A row belongs to a query: (…, Q, "
            "K).",
            DISTANCES_SECTION,
        ),
        Mistake(
            "new axes in front",
            lambda q, p: (q[:, None] - p[None]).square().sum(-1),
            "`[:, None]` and `[None]` put the new axes in front, where the episodes are; with "
            "leading dimensions episodes meet episodes. Count axes from the end: `[..., :, None, "
            ":]`.",
            "notebook 03, «Six examples, by hand»",
        ),
        Mistake(
            "dot product",
            lambda q, p: q @ p.mT,
            "You computed the dot product, which is large for vectors that are alike; a distance "
            "is small for them.",
            DISTANCES_SECTION,
        ),
    ],
    variants=[
        V("broadcast differences", lambda q, p: _differences(q, p).pow(2).sum(-1)),
        V("double loop", _double_loop),
        V(
            "cdist without matrix product",
            lambda q, p: torch.cdist(q, p, compute_mode="donot_use_mm_for_euclid_dist") ** 2,
        ),
        V(
            "einsum of differences",
            lambda q, p: torch.einsum("...d,...d->...", *[_differences(q, p)] * 2),
        ),
        V("centred, then expanded", lambda q, p: _expanded(q - p[..., :1, :], p - p[..., :1, :])),
    ],
    hints=[
        "One number for each pair of a query and a prototype: how do the shapes (…, Q, D) and "
        "(…, K, D) have to be changed so that a subtraction pairs each with each?",
        "Give the queries an axis of length 1 where the prototypes have K, and the prototypes one "
        "where the queries have Q; broadcasting makes (…, Q, K, D). Subtract before squaring: the "
        "other order of operations loses digits far from the origin.",
        "In words: index the queries with `[..., :, None, :]`, the prototypes with "
        "`[..., None, :, :]`, subtract, square, sum over the last axis.",
    ],
    tolerance=Tolerance(rtol=1e-3, atol=1e-5),
    equivalent={
        "difference = queries[..., :, None, :] - prototypes[..., None, :, :] → "
        "difference = prototypes[..., None, :, :] - queries[..., :, None, :]": (
            "the sign of a difference is lost in its square"
        ),
        "difference = queries[..., :, None, :] - prototypes[..., None, :, :] → "
        "difference = queries[:, ..., None, :] - prototypes[..., None, :, :]": (
            "with two axes or more the first is kept and the new one stands before the last, "
            "wherever the dots are"
        ),
    },
    picture=pictures.matrix,
    withhold=GIVEN_AWAY,
    difficulty=2,
    importance=4,
    minutes=10,
)

# ---------------------------------------------------------------------------------- log_posterior


def log_posterior(queries: Tensor, prototypes: Tensor, scale: float = 1.0) -> Tensor:
    """Return log p(y = k | z) = log_softmax_k(−scale · ‖z − c_k‖²): the library's, in short."""
    return library.log_posterior(queries, prototypes, scale=scale)


def _near(g: Generator) -> Iterator[Case]:
    yield Case("5 queries, 3 classes", _pairs(g, 5, 3, 4))
    yield Case("as many queries as classes", _pairs(g, 3, 3, 2))
    yield Case("2 classes in a plane", _pairs(g, 4, 2, 2))


def _scaled(g: Generator) -> Iterator[Case]:
    for scale in (0.1, 4.0):
        yield Case(f"scale {scale:g}", _pairs(g, 4, 3, 3), {"scale": scale})
    yield Case("scale 0: every class alike", _pairs(g, 4, 3, 3), {"scale": 0.0})


def _far(g: Generator) -> Iterator[Case]:
    queries, prototypes = _pairs(g, 4, 3, 4)
    far = Tolerance(rtol=1e-3, atol=1e-2)
    yield Case("classes 60 apart", (queries * 20, prototypes * 60), tolerance=far)
    yield Case("queries far from every class", (queries + 80, prototypes), tolerance=far)


def _normalised_cases(g: Generator) -> Iterator[Case]:
    yield Case("5 queries, 4 classes", _pairs(g, 5, 4, 3))
    yield Case("4 queries, 4 classes, scale 3", _pairs(g, 4, 4, 3), {"scale": 3.0})


def _sums_to_one(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    for result in results:
        log_p = np.asarray(result, dtype=np.float64)
        if (log_p > 1e-5).any():
            return "a log-probability is above 0, hence a probability above 1"
        if not np.allclose(np.exp(log_p).sum(-1), 1, atol=1e-4):
            over_queries = np.allclose(np.exp(log_p).sum(-2), 1, atol=1e-4)
            return "exp of a row does not sum to one" + (
                ", but exp of a column does: the softmax runs over the queries"
                if over_queries
                else " over the classes"
            )
    return True


def _logits(queries: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    return -scale * library.squared_euclidean(queries, prototypes)


def _by_hand(queries: Tensor, prototypes: Tensor, scale: float = 1.0) -> Tensor:
    logits = _logits(queries, prototypes, scale)
    shifted = logits - logits.max(-1, keepdim=True).values
    return shifted - shifted.exp().sum(-1, keepdim=True).log()


def _gaussian(queries: Tensor, prototypes: Tensor, scale: float = 1.0) -> Tensor:
    if scale == 0:
        return torch.full_like(queries @ prototypes.mT, -float(np.log(prototypes.shape[-2])))
    spread = (0.5 / scale) ** 0.5
    joint = torch.distributions.Normal(prototypes[..., None, :, :].double(), spread)
    log_joint = joint.log_prob(queries[..., :, None, :].double()).sum(-1)
    return (log_joint - log_joint.logsumexp(-1, keepdim=True)).float()


def _linear(queries: Tensor, prototypes: Tensor, scale: float = 1.0) -> Tensor:
    q, c = queries.double(), prototypes.double()
    return (scale * (2 * q @ c.mT - c.square().sum(-1)[..., None, :])).log_softmax(-1)


POSTERIOR_SECTION = "notebook 03, «From distance to probability»; note §2.2"

LOG_POSTERIOR = Answer(
    name="log_posterior",
    reference=log_posterior,
    section=POSTERIOR_SECTION,
    checks=[
        Check("the log of a softmax of minus squared distances", _near, points=2),
        Check("probabilities sum to one over the classes", _normalised_cases, law=_sums_to_one),
        Check("scale multiplies the squared distance", _scaled),
        Check(
            "finite however far the query",
            _far,
            pointer="notebook 03, «From distance to probability»",
        ),
        Check(
            "several episodes at once",
            lambda g: iter(
                [
                    Case("2 episodes", _pairs(g, 5, 3, 4, 2)),
                    Case("3 × 2 episodes, scale 2", _pairs(g, 2, 4, 3, 3, 2), {"scale": 2.0}),
                ]
            ),
        ),
    ],
    mistakes=[
        Mistake(
            "plus the distance",
            lambda q, p, scale=1.0: (-_logits(q, p, scale)).log_softmax(-1),
            "The sign is lost: your softmax prefers the class that is *furthest*. A distance "
            "enters with a minus.",
            POSTERIOR_SECTION,
        ),
        Mistake(
            "distance not squared",
            lambda q, p, scale=1.0: (-scale * _unsquared(q, p)).log_softmax(-1),
            "You used ‖z − c‖ where ‖z − c‖² belongs. Under equal priors the same class wins, but "
            "the probabilities are others: the tails are far too heavy for the Gaussian reading.",
            "notebook 03, «Move a support point»; note §5.3",
        ),
        Mistake(
            "probabilities, not logs",
            lambda q, p, scale=1.0: _logits(q, p, scale).softmax(-1),
            "These are probabilities; asked are their logarithms, which the loss needs and which "
            "do not underflow.",
            POSTERIOR_SECTION,
        ),
        Mistake(
            "log after softmax",
            lambda q, p, scale=1.0: _logits(q, p, scale).softmax(-1).log(),
            "log(softmax(…)): far from a class its probability underflows to 0, and the log of "
            "that is −∞, with a gradient of NaN. `log_softmax` computes both in one, safely.",
            "notebook 03, «From distance to probability»",
        ),
        Mistake(
            "exp without a shift",
            lambda q, p, scale=1.0: (lambda e: (e / e.sum(-1, keepdim=True)).log())(
                _logits(q, p, scale).exp()
            ),
            "You wrote the softmax as exp divided by its sum. Far from all classes every exp is 0, "
            "and 0/0 is NaN. Shift the logits by their largest first, or use `log_softmax`.",
            "notebook 03, «From distance to probability»",
        ),
        Mistake(
            "softmax over the queries",
            lambda q, p, scale=1.0: _logits(q, p, scale).log_softmax(-2),
            "Your softmax runs over the queries, so the queries compete for a class. The classes "
            "compete for a query: the last axis.",
            POSTERIOR_SECTION,
        ),
        Mistake(
            "softmax over axis 1",
            lambda q, p, scale=1.0: _logits(q, p, scale).log_softmax(1),
            "`dim=1` is the class axis while there is one episode; with leading dimensions it is "
            "another. Count from the end: `dim=-1`.",
            "notebook 03, «Six examples, by hand»",
        ),
        Mistake(
            "not normalised",
            lambda q, p, scale=1.0: _logits(q, p, scale),
            "You returned the logits. The posterior is normalised: log_softmax subtracts the log "
            "of the sum of their exponentials.",
            POSTERIOR_SECTION,
        ),
        Mistake(
            "scale divides",
            lambda q, p, scale=1.0: (-library.squared_euclidean(q, p) / scale).log_softmax(-1),
            "You divided by the scale. That would be a temperature; the scale α multiplies, α = "
            "1/τ: a larger one makes the decision sharper.",
            "notebook 03, «Move a support point»",
        ),
        Mistake(
            "scale forgotten",
            lambda q, p, scale=1.0: _logits(q, p, 1.0).log_softmax(-1),
            "Your result is the same for every scale: the argument is not used.",
            "notebook 03, «Move a support point»",
        ),
        Mistake(
            "scale outside the softmax",
            lambda q, p, scale=1.0: scale * _logits(q, p, 1.0).log_softmax(-1),
            "You scaled the log-probabilities after the softmax; they no longer sum to one. The "
            "scale belongs on the distances, inside.",
            "notebook 03, «Move a support point»",
        ),
        Mistake(
            "scale inside the square",
            lambda q, p, scale=1.0: _logits(scale * q, scale * p, 1.0).log_softmax(-1),
            "You scaled the vectors before squaring, so that the scale acts as its square. It "
            "multiplies the squared distance.",
            "notebook 03, «Move a support point»",
        ),
        Mistake(
            "cosine for distance",
            lambda q, p, scale=1.0: (scale * library.cosine_similarity(q, p)).log_softmax(-1),
            "You compared directions (cosine); asked is squared Euclidean distance. The note mixes "
            "the two: its text says distance, its code takes the cosine.",
            "notebook 03, «Move a support point»; note §3.1",
        ),
        Mistake(
            "dot product for distance",
            lambda q, p, scale=1.0: (scale * q @ p.mT).log_softmax(-1),
            "You used zᵀc as the logit. The linear form of the posterior has two terms, "
            "2 cᵀz − ‖c‖²; without the second, long prototypes win.",
            "notebook 04, «A linear classifier in disguise»",
        ),
    ],
    variants=[
        V("log-sum-exp by hand", _by_hand),
        V("a Gaussian of variance 1/(2α)", _gaussian),
        V("the linear form", _linear),
        V("-torch.nn.Softmin", lambda q, p, scale=1.0: torch.log_softmax(_logits(q, p, scale), -1)),
    ],
    hints=[
        "§2.2 writes it as a fraction of exponentials. Which of its parts do you have already, and "
        "over which axis does the sum in the denominator run?",
        "The logits are minus scale times the squared distances, one for each query and class. "
        "Normalise them over the classes, in logs: exp of a distance of 200 is 0 in float32.",
        "In words: call your squared_euclidean, multiply by −scale, and hand the result to "
        "`log_softmax` along the last axis.",
    ],
    picture=lambda case, expected, got: pictures.matrix(case, np.exp(expected), np.exp(got)),
    withhold=GIVEN_AWAY,
    difficulty=2,
    importance=5,
    minutes=10,
)

TEMPERATURE = Prose(
    name="temperature",
    points=2,
    rubric=[
        "says that the temperature (1/scale) leaves the most probable class unchanged",
        "says that a high temperature makes the posterior flat and a low one makes it sharp",
        "names both limits: uniform over the classes, and one-hot at the nearest prototype",
        "says why squared distance can do without it but cosine cannot: the encoder can stretch "
        "its features, while a cosine stays between −1 and 1",
    ],
    model=(
        "Dividing the logits by a temperature τ (multiplying by a scale α = 1/τ) keeps their "
        "order, so the predicted class does not change; what changes is how sure the posterior "
        "is. As τ grows all classes come to the same probability 1/K, as τ falls to 0 the nearest "
        "prototype takes everything. In the Gaussian reading τ is twice the variance. With "
        "squared Euclidean distance the encoder can learn the temperature itself by stretching "
        "its features; a cosine lies between −1 and 1 whatever the encoder does, so without a "
        "scale (20 is usual) two classes never get beyond 0.88 to 0.12, and the loss has nothing "
        "left to gain."
    ),
)

EXERCISE = Exercise(
    number=3,
    name="prototypes",
    title="Prototypes, distances, posteriors",
    answers=[CLASS_PROTOTYPES, SQUARED_EUCLIDEAN, LOG_POSTERIOR],
    prose=[TEMPERATURE],
)
