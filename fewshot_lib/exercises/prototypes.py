"""Exercise 03: prototypes, distances, posteriors (note §2.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from fewshot_lib import prototypes as library
from fewshot_lib.checker import pictures
from fewshot_lib.checker.spec import Case, Tolerance
from fewshot_lib.checker.specification import answer, exercise

GIVEN_AWAY = ["evaluation.episode_accuracy", "heads", "mixture", "networks", "prototypes"]

# ------------------------------------------------------------------------------- class_prototypes


def _prototype_picture(case: Case, expected: Any, got: Any) -> str | None:
    embeddings, labels, _ = case.args
    if embeddings.ndim == 2 and embeddings.shape[1] == 2:
        return pictures.scatter(
            embeddings.numpy(), labels.numpy(), np.asarray(expected), np.asarray(got), "prototypes"
        )
    return pictures.matrix(case, expected, got)


@answer(reference=library.class_prototypes, picture=_prototype_picture, strip=GIVEN_AWAY)
def class_prototypes(embeddings, labels, n_way):
    """Average each class's support embeddings.

    c_k = 1/|S_k| Σ f(x_i) over the i with y_i = k

    Arguments:
        embeddings: (…, N, D) float; leading dimensions are episodes.
        labels: (…, N) int64 in 0 … n_way−1, numbered anew in each episode.
        n_way: number of classes.

    Returns:
        (…, n_way, D); row k is c_k.

    Raises:
        ValueError: a label outside 0 … n_way−1, or a class without example.
    """
    ### BEGIN SOLUTION: average per class, a row each; refuse invalid labels
    if ((labels < 0) | (labels >= n_way)).any():
        raise ValueError(f"labels must lie in 0 … {n_way - 1}")
    member = labels[..., None] == torch.arange(n_way)  # (…, N, n_way)
    counts = member.sum(dim=-2)  # (…, n_way)
    if (counts == 0).any():
        raise ValueError("every class needs at least one example")
    sums = member.to(embeddings.dtype).mT @ embeddings  # (…, n_way, D)
    return sums / counts[..., None]
    ### END SOLUTION


def _labels(counts: Sequence[int], g: Generator) -> Tensor:
    """Give labels with so many of each class, mixed."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=g)]


@class_prototypes.check("a prototype is the mean of its own class", points=2)
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


def _all_equal(cases: Sequence[Case], results: Sequence[Any]) -> bool:
    return all(np.allclose(results[0], other, atol=1e-5) for other in results[1:])


@class_prototypes.check(
    "the order of the support does not matter",
    law=_all_equal,
    says="the same support in another order gives other prototypes",
)
def _shuffled(g: Generator) -> Iterator[Case]:
    embeddings, labels = torch.randn(6, 3, generator=g), torch.tensor([0, 0, 1, 1, 2, 2])
    for name in ("in the order of the classes", "mixed", "mixed otherwise"):
        yield Case(name, (embeddings, labels, 3))
        order = torch.randperm(6, generator=g)
        embeddings, labels = embeddings[order], labels[order]


@class_prototypes.check("several episodes at once", pointer="notebook 03, «Six examples, by hand»")
def _episodes(g: Generator) -> Iterator[Case]:
    labels = torch.stack([_labels([2, 3], g), _labels([1, 4], g), _labels([4, 1], g)])
    yield Case("3 episodes of 2 classes", (torch.randn(3, 5, 4, generator=g), labels, 2))
    labels = torch.stack([_labels([2, 2, 2], g) for _ in range(4)]).view(2, 2, 6)
    yield Case("2 × 2 episodes of 3 classes", (torch.randn(2, 2, 6, 3, generator=g), labels, 3))


@class_prototypes.check(
    "input that makes no sense is refused", pointer="the docstring: which error, and when"
)
def _senseless(g: Generator) -> Iterator[Case]:
    embeddings = torch.randn(5, 3, generator=g)
    yield Case("class 1 of 3 has no example", (embeddings, torch.tensor([0, 2, 0, 2, 2]), 3))
    yield Case("labels 3 and 7 in a 2-way episode", (embeddings, torch.tensor([3, 7, 3, 7, 7]), 2))
    yield Case("a label 2 in a 2-way episode", (embeddings, torch.tensor([0, 1, 2, 1, 0]), 2))
    yield Case("a label of −1", (embeddings, torch.tensor([0, 1, -1, 1, 0]), 2))


# ------------------------------------------------------------------------------ squared_euclidean


@answer(
    reference=library.squared_euclidean,
    tolerance=Tolerance(rtol=1e-3, atol=1e-5),
    picture=pictures.matrix,
    strip=GIVEN_AWAY,
)
def squared_euclidean(queries, prototypes):
    """Measure ‖z − c‖² of every query z to every prototype c.

    Arguments:
        queries: (…, Q, D) float.
        prototypes: (…, K, D) float, the same leading dimensions.

    Returns:
        (…, Q, K), never negative, also when a large offset is common to all
        vectors.
    """
    ### BEGIN SOLUTION: subtract each from each, square, sum over features
    # (…, Q, K, D)
    difference = queries[..., :, None, :] - prototypes[..., None, :, :]
    return difference.square().sum(dim=-1)
    ### END SOLUTION


def _pairs(g: Generator, q: int, k: int, d: int, *leading: int) -> tuple[Tensor, Tensor]:
    return torch.randn(*leading, q, d, generator=g), torch.randn(*leading, k, d, generator=g)


@squared_euclidean.check("squared differences, summed over the features", points=2)
def _queries(g: Generator) -> Iterator[Case]:
    yield Case("5 queries, 3 prototypes, 4 features", _pairs(g, 5, 3, 4))
    yield Case("one query, 2 prototypes", _pairs(g, 1, 2, 7))
    yield Case("one feature", _pairs(g, 4, 2, 1))


@squared_euclidean.check("every query with every prototype")
def _square(g: Generator) -> Iterator[Case]:
    yield Case("as many queries as prototypes", _pairs(g, 4, 4, 3))
    yield Case("as many queries as prototypes as features", _pairs(g, 3, 3, 3))
    yield Case("one query, one prototype", _pairs(g, 1, 1, 5))


@squared_euclidean.check("several episodes at once")
def _query_episodes(g: Generator) -> Iterator[Case]:
    yield Case("2 episodes", _pairs(g, 5, 3, 4, 2))
    yield Case("3 × 2 episodes", _pairs(g, 2, 4, 3, 3, 2))
    yield Case("3 episodes, 3 queries, 3 prototypes", _pairs(g, 3, 3, 2, 3))


@squared_euclidean.check(
    "far from the origin as near it", pointer="notebook 04b, «Two formulas that differ in float32»"
)
def _offset(g: Generator) -> Iterator[Case]:
    queries, prototypes = _pairs(g, 40, 6, 8)
    yield Case("40 queries, everything moved by 2000", (queries + 2000, prototypes + 2000))
    points = torch.randn(30, 4, generator=g) + 500
    yield Case("every point against itself", (points, points.clone()))
    queries, prototypes = _pairs(g, 5, 3, 4)
    far = (queries.double() + 1e6, prototypes.double() + 1e6)
    yield Case("float64, moved by a million", far)


# ---------------------------------------------------------------------------------- log_posterior


def _of_the_library(queries: Tensor, prototypes: Tensor, scale: float = 1.0) -> Tensor:
    return library.log_posterior(queries, prototypes, scale=scale)


@answer(
    reference=_of_the_library,
    picture=lambda case, expected, got: pictures.matrix(case, np.exp(expected), np.exp(got)),
    strip=GIVEN_AWAY,
)
def log_posterior(queries, prototypes, scale=1.0):
    """Return log p(y = k | z): log-softmax over k of −scale · ‖z − c_k‖².

    Arguments:
        queries: (…, Q, D) float.
        prototypes: (…, K, D) float, the same leading dimensions.
        scale: α ≥ 0, multiplies the squared distance.

    Returns:
        (…, Q, K), all ≤ 0 and finite; exp sums to one over the last axis.
    """
    ### BEGIN SOLUTION: log-softmax of minus scaled squared distances
    distances = squared_euclidean(queries, prototypes)
    return torch.log_softmax(-scale * distances, dim=-1)
    ### END SOLUTION


@log_posterior.check("the log of a softmax of minus squared distances", points=2)
def _near(g: Generator) -> Iterator[Case]:
    yield Case("5 queries, 3 classes", _pairs(g, 5, 3, 4))
    yield Case("as many queries as classes", _pairs(g, 3, 3, 2))
    yield Case("2 classes in a plane", _pairs(g, 4, 2, 2))


def _sums_to_one(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    for result in results:
        log_p = np.asarray(result, dtype=np.float64)
        if (log_p > 1e-5).any():
            return "a log-probability is above 0, hence a probability above 1"
        if not np.allclose(np.exp(log_p).sum(-1), 1, atol=1e-4):
            said = "exp of a row does not sum to one"
            if np.allclose(np.exp(log_p).sum(-2), 1, atol=1e-4):
                return f"{said}, but exp of a column does: the softmax runs over the queries"
            return f"{said} over the classes"
    return True


@log_posterior.check("probabilities sum to one over the classes", law=_sums_to_one)
def _normalised(g: Generator) -> Iterator[Case]:
    yield Case("5 queries, 4 classes", _pairs(g, 5, 4, 3))
    yield Case("4 queries, 4 classes, scale 3", _pairs(g, 4, 4, 3), {"scale": 3.0})


@log_posterior.check("scale multiplies the squared distance")
def _scaled(g: Generator) -> Iterator[Case]:
    for scale in (0.1, 4.0):
        yield Case(f"scale {scale:g}", _pairs(g, 4, 3, 3), {"scale": scale})
    yield Case("scale 0: every class alike", _pairs(g, 4, 3, 3), {"scale": 0.0})


@log_posterior.check(
    "finite however far the query", pointer="notebook 03, «From distance to probability»"
)
def _far(g: Generator) -> Iterator[Case]:
    queries, prototypes = _pairs(g, 4, 3, 4)
    far = Tolerance(rtol=1e-3, atol=1e-2)
    yield Case("classes 60 apart", (queries * 20, prototypes * 60), tolerance=far)
    yield Case("queries far from every class", (queries + 80, prototypes), tolerance=far)


@log_posterior.check("several episodes at once")
def _posterior_episodes(g: Generator) -> Iterator[Case]:
    yield Case("2 episodes", _pairs(g, 5, 3, 4, 2))
    yield Case("3 × 2 episodes, scale 2", _pairs(g, 2, 4, 3, 3, 2), {"scale": 2.0})


EXERCISE = exercise(__name__)
