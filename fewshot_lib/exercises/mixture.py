"""Exercise 04: the softmax over prototypes as the posterior of a mixture (note §6, question 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fewshot_lib import mixture as library
from fewshot_lib.checker import pictures
from fewshot_lib.checker.spec import Case, Tolerance
from fewshot_lib.checker.specification import answer, exercise
from fewshot_lib.exercises.prototypes import _pairs
from fewshot_lib.prototypes import squared_euclidean

#: All that measures, averages or classifies but ``squared_euclidean``, which the notebook imports.
GIVEN_AWAY = [
    *("heads", "mixture", "networks", "prototypes.class_prototypes"),
    *("prototypes.masked_prototypes", "prototypes.grid_prototypes", "prototypes.cosine_similarity"),
    *("prototypes.similarity", "prototypes.local_similarity", "prototypes.log_posterior"),
]
PRIORS = "notebook 04, «Unequal priors»"
EPISODES = "notebook 03, «Six examples, by hand»"


def _log_prior(g: Generator, k: int) -> Tensor:
    return (1.2 * torch.randn(k, generator=g)).log_softmax(-1)


def _close(one: Any, other: Any, atol: float = 1e-3) -> bool:
    return np.allclose(np.asarray(one), np.asarray(other), rtol=1e-3, atol=atol)


def _all_equal(cases: Sequence[Case], results: Sequence[Any]) -> bool:
    return all(_close(results[0], other) for other in results[1:])


# -------------------------------------------------------------------------------------- log_joint


def _density_and_prior(
    queries: Tensor, prototypes: Tensor, variance: float, log_prior: Tensor
) -> Tensor:
    return library.gaussian_log_density(queries, prototypes, variance) + log_prior


@answer(reference=_density_and_prior, tolerance=Tolerance(rtol=1e-3, atol=1e-3), strip=GIVEN_AWAY)
def log_joint(queries, prototypes, variance, log_prior):
    """Return log π_k + log N(z; c_k, σ²I), normaliser included.

    Arguments:
        queries: (…, Q, M) float, z.
        prototypes: (…, K, M) float, c_k.
        variance: σ² > 0, a number.
        log_prior: (K,) float, log π_k.

    Returns:
        (…, Q, K).
    """
    ### BEGIN SOLUTION: add three terms: log prior, exponent, log normaliser
    squared = squared_euclidean(queries, prototypes)  # (…, Q, K)
    log_normaliser = queries.shape[-1] / 2 * math.log(2 * math.pi * variance)
    return log_prior - squared / (2 * variance) - log_normaliser
    ### END SOLUTION


@log_joint.check("log prior plus log density", points=2)
def _joint_cases(g: Generator) -> Iterator[Case]:
    yield Case("5 queries, 3 classes, σ² = 1.7", (*_pairs(g, 5, 3, 4), 1.7, _log_prior(g, 3)))
    yield Case("2 queries, 4 classes, σ² = 0.3", (*_pairs(g, 2, 4, 3), 0.3, _log_prior(g, 4)))
    equal = torch.full((2,), -math.log(2))
    yield Case("2 classes of equal priors", (*_pairs(g, 3, 2, 5), 0.5, equal))


def _sum_over_space(cases: Sequence[Case], results: Sequence[Any]) -> bool:
    """Integrate exp of the answer over a line, which must give the priors."""
    (case,) = cases
    queries, _, _, log_prior = case.args
    step = float(queries[1, 0] - queries[0, 0])
    mass = np.exp(np.asarray(results[0], dtype=np.float64)).sum(-2) * step
    return _close(mass, log_prior.exp().numpy(), 5e-3)


@log_joint.check(
    "integrated over all z, what is left is the prior",
    law=_sum_over_space,
    says="the exponential of your result, summed over a fine line of z, is not π_k: the density is "
    "not normalised, or the prior is missing",
)
def _line(g: Generator) -> Iterator[Case]:
    line = torch.linspace(-12, 12, 401)[:, None]
    centres = torch.randn(3, 1, generator=g).clamp(-2, 2)
    yield Case("a fine line of queries, one feature", (line, centres, 0.8, _log_prior(g, 3)))


@log_joint.check(
    "shifting or rotating all vectors changes nothing",
    law=_all_equal,
    says="shifting or rotating queries and prototypes together changes your result",
)
def _moved(g: Generator) -> Iterator[Case]:
    queries, prototypes = _pairs(g, 4, 3, 3)
    log_prior = _log_prior(g, 3)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=g)).Q
    shift = 2 * torch.randn(3, generator=g)
    yield Case("as it is", (queries, prototypes, 0.6, log_prior))
    yield Case("all vectors shifted", (queries + shift, prototypes + shift, 0.6, log_prior))
    yield Case("all vectors rotated", (queries @ turn, prototypes @ turn, 0.6, log_prior))


@log_joint.check("several episodes at once", pointer=EPISODES)
def _joint_episodes(g: Generator) -> Iterator[Case]:
    yield Case("2 episodes", (*_pairs(g, 5, 3, 4, 2), 0.7, _log_prior(g, 3)))


# -------------------------------------------------------------------------------------- cancelled


@answer(strip=GIVEN_AWAY)
def cancelled(queries, prototypes, variance, log_prior):
    """Return log_joint without what is common to all classes.

    Arguments:
        queries, prototypes, variance, log_prior: as in log_joint.

    Returns:
        (…, Q, K); its differences between classes are those of log_joint.
    """
    ### BEGIN SOLUTION: keep the terms of log_joint that have an index k
    return log_prior - squared_euclidean(queries, prototypes) / (2 * variance)
    ### END SOLUTION


def _between(values: Any) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    return array - array[..., :1]


def _same_differences(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    for case, result in zip(cases, results, strict=True):
        if not _close(_between(result), _between(_density_and_prior(*case.args))):
            where = f"{case.name}: " if len(cases) > 1 else ""
            return (
                f"{where}the differences between two classes are not those of log_joint; "
                "something was dropped (or changed) that is not common to all classes"
            )
    return True


cancelled.check("the differences between classes are kept", points=2, law=_same_differences)(
    _joint_cases
)


@cancelled.check(
    "the normaliser is gone",
    law=_all_equal,
    says="features that are 0 for every query and every prototype tell nothing about the class, "
    "and yet they change your result: a term with M in it is still there",
)
def _padded(g: Generator) -> Iterator[Case]:
    queries, prototypes = _pairs(g, 4, 3, 2)
    log_prior = _log_prior(g, 3)
    yield Case("2 features", (queries, prototypes, 1.7, log_prior))
    wide = F.pad(queries, (0, 3)), F.pad(prototypes, (0, 3))
    yield Case("and 3 more that are 0 everywhere", (*wide, 1.7, log_prior))


cancelled.check("the same in several episodes", law=_same_differences, pointer=EPISODES)(
    _joint_episodes
)

# -------------------------------------------------------------------------------------- posterior


@answer(tolerance=Tolerance(rtol=1e-3, atol=1e-4), picture=pictures.matrix, strip=GIVEN_AWAY)
def posterior(squared, variance=0.5, log_prior=None):
    """Return p(y = k | z) from squared distances.

    Arguments:
        squared: (…, Q, K) float, ‖z − c_k‖².
        variance: σ² > 0, a number.
        log_prior: (K,) float, log π_k, −inf allowed; None: equal priors.

    Returns:
        (…, Q, K) in 0 … 1; sums to one over the last axis.
    """
    ### BEGIN SOLUTION: softmax over the classes of what is left
    logits = -squared / (2 * variance)
    if log_prior is not None:
        logits = logits + log_prior
    return torch.softmax(logits, dim=-1)
    ### END SOLUTION


def _squared(g: Generator, q: int, k: int, *leading: int) -> Tensor:
    return squared_euclidean(*_pairs(g, q, k, 3, *leading))


@posterior.check("σ² = ½, equal priors: the prototypical softmax", points=2)
def _default(g: Generator) -> Iterator[Case]:
    yield Case("4 queries, 3 classes", (_squared(g, 4, 3),))
    yield Case("3 queries, 3 classes", (_squared(g, 3, 3),))


def _sums_to_one(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    for result in results:
        p = np.asarray(result, dtype=np.float64)
        if (p < -1e-6).any():
            return "some of your probabilities are negative"
        if not np.allclose(p.sum(-1), 1, atol=1e-4):
            return "a row of your result, all classes of one query, does not sum to one"
    return True


@posterior.check("probabilities sum to one over the classes", law=_sums_to_one)
@posterior.check("any variance, any priors", points=2, pointer=PRIORS)
def _spread_and_prior(g: Generator) -> Iterator[Case]:
    yield Case("σ² = 1.7", (_squared(g, 4, 3), 1.7))
    yield Case("σ² = 0.3 and priors", (_squared(g, 4, 3), 0.3, _log_prior(g, 3)))
    yield Case("priors alone", (_squared(g, 3, 3),), {"log_prior": _log_prior(g, 3)})
    never = torch.tensor([math.log(0.3), -math.inf, math.log(0.7)])
    yield Case("a class of prior 0", (_squared(g, 4, 3), 0.8, never))


@posterior.check(
    "what all classes have in common changes nothing",
    law=_all_equal,
    says="a number added to the squared distances of all classes changes your result",
)
def _with_a_constant(g: Generator) -> Iterator[Case]:
    squared, log_prior = _squared(g, 4, 3), _log_prior(g, 3)
    yield Case("as it is", (squared, 0.8, log_prior))
    common = 3 * torch.rand(4, 1, generator=g) + 0.5
    yield Case("each query a little further from all classes", (squared + common, 0.8, log_prior))
    yield Case("each query 1000 further from all classes", (squared + 1000, 0.8, log_prior))


@posterior.check(
    "renaming the classes renames the probabilities",
    law=lambda cases, results: _close(np.asarray(results[0])[:, [2, 0, 1]], results[1], 1e-4),
    says="with the classes in another order, their probabilities are others",
)
def _permuted(g: Generator) -> Iterator[Case]:
    squared, log_prior = _squared(g, 4, 3), _log_prior(g, 3)
    yield Case("classes a, b, c", (squared, 1.3, log_prior))
    yield Case("classes c, a, b", (squared[:, [2, 0, 1]], 1.3, log_prior[[2, 0, 1]]))


@posterior.check("several episodes at once", pointer=EPISODES)
def _posterior_episodes(g: Generator) -> Iterator[Case]:
    yield Case("2 episodes", (_squared(g, 4, 3, 2), 0.8, _log_prior(g, 3)))


# ------------------------------------------------------------------------------------ linear_form


@answer(reference=library.linear_form, tolerance=Tolerance(rtol=1e-3, atol=1e-4), strip=GIVEN_AWAY)
def linear_form(prototypes, variance=0.5, log_prior=None):
    """Return w_k and b_k with p(y = k | z) = softmax_k(w_kᵀ z + b_k).

    Arguments:
        prototypes: (…, K, M) float, c_k.
        variance: σ² > 0, a number.
        log_prior: (K,) float, log π_k; None: equal priors, nothing is added.

    Returns:
        weights (…, K, M) and biases (…, K), by the expansion above.
    """
    ### BEGIN SOLUTION: w_k is the factor of z, b_k has an index k but no z
    weights = prototypes / variance
    biases = -prototypes.square().sum(dim=-1) / (2 * variance)
    if log_prior is not None:
        biases = biases + log_prior
    return weights, biases
    ### END SOLUTION


@linear_form.check("weights and biases without priors", points=2)
def _centres(g: Generator) -> Iterator[Case]:
    yield Case("3 classes, σ² = ½", (torch.randn(3, 4, generator=g),))
    yield Case("2 classes, σ² = 1.7", (torch.randn(2, 3, generator=g), 1.7))


def _is_the_posterior(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    queries = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    for case, (weights, biases) in zip(cases, results, strict=True):
        prototypes, variance, log_prior = [*case.args, 0.5, None][:3]
        log_prior = case.kwargs.get("log_prior", log_prior)
        z = queries[:, : prototypes.shape[-1]]
        wanted = posterior(squared_euclidean(z, prototypes), variance, log_prior)
        logits = z.numpy() @ np.asarray(weights, dtype=np.float32).T + np.asarray(biases)
        if not _close(torch.as_tensor(logits).softmax(-1), wanted):
            return f"{case.name}: softmax(w_kᵀz + b_k) at random z is not the posterior"
    return True


@linear_form.check("softmax(w_kᵀz + b_k) is the posterior at random z", law=_is_the_posterior)
@linear_form.check("the log prior is part of the bias", pointer=PRIORS)
def _centres_with_priors(g: Generator) -> Iterator[Case]:
    yield Case("3 classes with priors", (torch.randn(3, 4, generator=g), 0.3, _log_prior(g, 3)))
    yield Case("priors, σ² = ½", (torch.randn(4, 2, generator=g),), {"log_prior": _log_prior(g, 4)})


@linear_form.check("several episodes at once", pointer=EPISODES)
def _centres_of_episodes(g: Generator) -> Iterator[Case]:
    yield Case("2 episodes", (torch.randn(2, 3, 4, generator=g), 0.8, _log_prior(g, 3)))


# --------------------------------------------------------------------------------- mean_direction


def _of_one_class(embeddings: Tensor) -> Tensor:
    labels = torch.zeros(embeddings.shape[:-1], dtype=torch.long)
    return library.mean_direction(embeddings, labels, 1)[..., 0, :]


@answer(reference=_of_one_class, tolerance=Tolerance(rtol=1e-3, atol=1e-4), strip=GIVEN_AWAY)
def mean_direction(embeddings):
    """Return the maximum-likelihood direction of one class.

    Arguments:
        embeddings: (…, N, M) float, the support of one class, no vector zero;
            leading dimensions are classes or episodes.

    Returns:
        (…, M), of length 1.
    """
    ### BEGIN SOLUTION: normalise each example, sum, normalise the sum
    unit = F.normalize(embeddings, dim=-1)
    return F.normalize(unit.sum(dim=-2), dim=-1)
    ### END SOLUTION


def _vectors(g: Generator, n: int, m: int, *leading: int) -> Tensor:
    lengths = 0.5 + 4 * torch.rand(*leading, n, 1, generator=g)
    around = torch.randn(*leading, 1, m, generator=g)
    around = 1.5 * around / around.norm(dim=-1, keepdim=True).clamp_min(1e-3)
    return lengths * (around + torch.randn(*leading, n, m, generator=g) / 2)


@mean_direction.check("the direction of the summed directions", points=2)
def _one_class(g: Generator) -> Iterator[Case]:
    yield Case("5 examples of 3 features", (_vectors(g, 5, 3),))
    yield Case("one example", (_vectors(g, 1, 4),))
    yield Case("4 examples of 4 features", (_vectors(g, 4, 4),))


@mean_direction.check(
    "how long a vector is does not matter",
    law=_all_equal,
    says="lengthening one example, its direction kept, moves your direction",
)
def _lengthened(g: Generator) -> Iterator[Case]:
    vectors = _vectors(g, 4, 3)
    yield Case("as it is", (vectors,))
    factors = torch.tensor([[10.0], [1.0], [0.2], [3.0]])
    yield Case("some vectors lengthened", (vectors * factors,))


@mean_direction.check("several classes at once", pointer=EPISODES)
def _of_classes(g: Generator) -> Iterator[Case]:
    yield Case("3 classes", (_vectors(g, 5, 4, 3),))


# ------------------------------------------------------------------------------ vmf_log_posterior


@answer(
    reference=library.vmf_log_posterior, tolerance=Tolerance(rtol=1e-3, atol=1e-4), strip=GIVEN_AWAY
)
def vmf_log_posterior(queries, directions, kappa, log_prior=None):
    """Return log p(y = k | z) for von Mises–Fisher classes, one concentration.

    Arguments:
        queries: (…, Q, M) float, z; only their directions matter.
        directions: (…, K, M) float; only their directions μ_k matter.
        kappa: κ ≥ 0, a number.
        log_prior: (K,) float, log π_k; None: equal priors.

    Returns:
        (…, Q, K), all ≤ 0; exp sums to one over the last axis.
    """
    ### BEGIN SOLUTION: κ cos plus the log prior, normalised over the classes
    cosine = F.normalize(queries, dim=-1) @ F.normalize(directions, dim=-1).mT
    logits = kappa * cosine
    if log_prior is not None:
        logits = logits + log_prior
    return torch.log_softmax(logits, dim=-1)
    ### END SOLUTION


@vmf_log_posterior.check("the log of a softmax of κ cos", points=2)
def _angles(g: Generator) -> Iterator[Case]:
    yield Case("5 queries, 3 classes, κ = 5", (*_pairs(g, 5, 3, 4), 5.0))
    yield Case("3 queries, 3 classes, κ = 1", (*_pairs(g, 3, 3, 3), 1.0))
    yield Case("κ = 0: directions tell nothing", (*_pairs(g, 3, 2, 4), 0.0, _log_prior(g, 2)))


def _is_gaussian(cases: Sequence[Case], results: Sequence[Any]) -> bool:
    """Compare with Gaussians of σ² = 1/κ around unit vectors."""
    for case, result in zip(cases, results, strict=True):
        queries, directions, kappa, log_prior = case.args
        unit = [F.normalize(x.double(), dim=-1) for x in (queries, directions)]
        wanted = log_prior - kappa / 2 * squared_euclidean(*unit)
        if not _close(result, wanted.log_softmax(-1)):
            return False
    return True


@vmf_log_posterior.check(
    "it is the Gaussian posterior of unit vectors with σ² = 1/κ",
    law=_is_gaussian,
    says="Gaussians of variance 1/κ around the normalised directions give another posterior for "
    "the normalised queries",
)
@vmf_log_posterior.check("the log prior is added", pointer=PRIORS)
def _angles_with_priors(g: Generator) -> Iterator[Case]:
    yield Case("3 classes with priors, κ = 2", (*_pairs(g, 4, 3, 5), 2.0, _log_prior(g, 3)))


@vmf_log_posterior.check("finite for sharp classes")
def _sharp(g: Generator) -> Iterator[Case]:
    far = Tolerance(rtol=1e-3, atol=1e-2)
    yield Case("κ = 400", (*_pairs(g, 5, 3, 3), 400.0, _log_prior(g, 3)), tolerance=far)


@vmf_log_posterior.check("several episodes at once", pointer=EPISODES)
def _angles_of_episodes(g: Generator) -> Iterator[Case]:
    yield Case("2 episodes", (*_pairs(g, 5, 3, 4, 2), 3.0, _log_prior(g, 3)))


# ---------------------------------------------------------------------------- variance_from_scale


@answer(reference=library.variance_from_scale, strip=GIVEN_AWAY)
def variance_from_scale(scale, distance="squared_euclidean"):
    """Return the variance σ² that a scale α stands for.

    Arguments:
        scale: α > 0, a number.
        distance: what α multiplies, "squared_euclidean" or "cosine".

    Returns:
        σ² > 0, a number.

    Raises:
        ValueError: any other distance; "euclidean" (un-squared) has no
            Gaussian reading.
    """
    ### BEGIN SOLUTION: solve for σ² in both cases; refuse every other distance
    if distance == "squared_euclidean":
        return 1 / (2 * scale)
    if distance == "cosine":
        return 1 / scale
    raise ValueError(f"{distance!r} has no Gaussian reading")
    ### END SOLUTION


def _scales(distance: str) -> Callable[[Generator], Iterator[Case]]:
    def draw(g: Generator) -> Iterator[Case]:
        for scale in (0.25, 20.0, round(float(0.3 + 4 * torch.rand(1, generator=g)), 3)):
            yield Case(f"α = {scale:g}", (scale, distance))

    return draw


variance_from_scale.check("α times squared distance")(_scales("squared_euclidean"))
variance_from_scale.check(
    "α times cosine", pointer="notebook 04b, «Cosine, and where its mean lies»"
)(_scales("cosine"))


@variance_from_scale.check("α = 1 without saying more")
def _default_scale(g: Generator) -> Iterator[Case]:
    yield Case("α = 1, the prototypical network", (1.0,))
    yield Case("α = 5", (5.0,))


@variance_from_scale.check(
    "a distance that is no Gaussian's is refused",
    pointer="notebook 04b, «Scale, concentration, variance»",
)
def _no_gaussian(g: Generator) -> Iterator[Case]:
    yield Case("un-squared distance", (3.0, "euclidean"))
    yield Case("sum of absolute differences", (3.0, "taxicab"))


# ------------------------------------------------------------------------ support_size_correction


@answer(reference=library.support_size_correction, strip=GIVEN_AWAY)
def support_size_correction(counts, variance, dimension):
    """Return E‖z − ĉ_k‖² − ‖z − μ_k‖², the expectation over the support.

    Arguments:
        counts: (K,) int64, n_k, support examples of each class.
        variance: σ² > 0 within the classes, a number.
        dimension: M ≥ 1, features of the embedding.

    Returns:
        (K,) float.

    Raises:
        ValueError: a count that is not positive; such a class has no
            prototype.
    """
    ### BEGIN SOLUTION: refuse empty supports; mean squared length of ε_k
    if (counts <= 0).any():
        raise ValueError("every class needs at least one support example")
    return variance * dimension / counts
    ### END SOLUTION


@support_size_correction.check("what the mean of n_k examples adds", points=2)
def _supports(g: Generator) -> Iterator[Case]:
    yield Case("1 and 20 shots, 64 features, σ² = 1", (torch.tensor([1, 20]), 1.0, 64))
    yield Case("1, 2 and 5 shots, σ² = 0.3", (torch.tensor([1, 2, 5]), 0.3, 7))
    counts = torch.randint(2, 30, (4,), generator=g)
    yield Case("4 classes, σ² = 2.5", (counts, 2.5, 3))


@support_size_correction.check(
    "twice the shots make up for twice the features",
    law=_all_equal,
    says="with twice the shots and twice the features your correction is another",
)
def _doubled(g: Generator) -> Iterator[Case]:
    counts = torch.randint(1, 9, (3,), generator=g)
    yield Case("as it is", (counts, 0.7, 8))
    yield Case("twice the shots and the features", (counts * 2, 0.7, 16))


@support_size_correction.check("a class without support is refused")
def _no_support(g: Generator) -> Iterator[Case]:
    yield Case("a class without support", (torch.tensor([3, 0, 5]), 1.0, 4))


# -------------------------------------------------------------------------- quadratic_log_posterior


def _with_priors(queries: Tensor, prototypes: Tensor, variances: Tensor, priors: Tensor) -> Tensor:
    return library.gaussian_log_posterior(queries, prototypes, variances, priors.log())


@answer(reference=_with_priors, tolerance=Tolerance(rtol=1e-3, atol=1e-3), strip=GIVEN_AWAY)
def quadratic_log_posterior(queries, prototypes, variances, priors):
    """Return log p(y = k | z) when class k is N(c_k, σ_k² I) with prior π_k.

    Arguments:
        queries: (…, Q, M) float, z.
        prototypes: (…, K, M) float, c_k.
        variances: (K,) float > 0, σ_k².
        priors: (K,) float > 0, π_k, summing to one (probabilities, not logs).

    Returns:
        (…, Q, K), all ≤ 0 and finite; exp sums to one over the last axis.
    """
    ### BEGIN SOLUTION: log_posterior_as_found without its three faults
    squared = squared_euclidean(queries, prototypes)  # (…, Q, K)
    log_volume = queries.shape[-1] / 2 * variances.log()  # (K,)
    logits = priors.log() - squared / (2 * variances) - log_volume
    return torch.log_softmax(logits, dim=-1)
    ### END SOLUTION


def _spreads(g: Generator, q: int, k: int, m: int, *leading: int) -> tuple[Tensor, ...]:
    variances = 0.4 + 2 * torch.rand(k, generator=g)
    variances[0] = 3.5
    return (*_pairs(g, q, k, m, *leading), variances, _log_prior(g, k).exp())


@quadratic_log_posterior.check("each class with its own variance", points=2)
def _quadratic(g: Generator) -> Iterator[Case]:
    yield Case("5 queries, 3 classes", _spreads(g, 5, 3, 4))
    yield Case("3 queries, 2 classes", _spreads(g, 3, 2, 2))


@quadratic_log_posterior.check("two classes in one place: the wider is the less likely")
def _same_place(g: Generator) -> Iterator[Case]:
    """Two classes with one centre: only spread and prior tell them apart."""
    centre = torch.randn(1, 2, generator=g)
    yield Case(
        "two classes with one centre, the query on it",
        (centre, centre.expand(2, 2).clone(), torch.tensor([1.0, 4.0]), torch.tensor([0.5, 0.5])),
    )


@quadratic_log_posterior.check(
    "finite however far the query", pointer="notebook 03, «From distance to probability»"
)
def _far_quadratic(g: Generator) -> Iterator[Case]:
    queries, *rest = _spreads(g, 4, 3, 3)
    yield Case("queries far from every class", (queries + 30, *rest))


@quadratic_log_posterior.check("several episodes at once", pointer=EPISODES)
def _quadratic_episodes(g: Generator) -> Iterator[Case]:
    yield Case("2 episodes", _spreads(g, 5, 3, 4, 2))


EXERCISE = exercise(__name__)
