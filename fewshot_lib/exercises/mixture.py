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
from fewshot_lib.checker.spec import Answer, Case, Check, Exercise, Mistake, Prose, Tolerance
from fewshot_lib.checker.spec import Variant as V
from fewshot_lib.prototypes import squared_euclidean

#: All that measures, averages or classifies but ``squared_euclidean``, which the notebook imports.
GIVEN_AWAY = [
    "heads",
    "mixture",
    "networks",
    *(
        f"prototypes.{name}"
        for name in (
            *("class_prototypes", "masked_prototypes", "grid_prototypes", "cosine_similarity"),
            *("similarity", "local_similarity", "log_posterior"),
        )
    ),
]
STEPS = "notebook 04, «From the mixture to the softmax»"
PRIORS = "notebook 04, «Unequal priors»"
LINEAR = "notebook 04, «A linear classifier in disguise»"
COSINE = "notebook 04, «Cosine, and where its mean lies»"
SCALES = "notebook 04, «Scale, concentration, variance»"
BREAKS = "notebook 04, «One assumption at a time»"
SIZES = "notebook 04, «When supports differ in size»"
EPISODES = "notebook 03, «Six examples, by hand»"


def _log_prior(g: Generator, k: int) -> Tensor:
    return (1.2 * torch.randn(k, generator=g)).log_softmax(-1)


def _pairs(g: Generator, q: int, k: int, m: int, *leading: int) -> tuple[Tensor, Tensor]:
    return torch.randn(*leading, q, m, generator=g), torch.randn(*leading, k, m, generator=g)


def _close(one: Any, other: Any, atol: float = 1e-3) -> bool:
    return np.allclose(np.asarray(one), np.asarray(other), rtol=1e-3, atol=atol)


# -------------------------------------------------------------------------------------- log_joint


def log_joint(queries: Tensor, prototypes: Tensor, variance: float, log_prior: Tensor) -> Tensor:
    """Return log π_k + log N(z; c_k, σ²I): the library's density, and the prior."""
    return library.gaussian_log_density(queries, prototypes, variance) + log_prior


def _joint_cases(g: Generator) -> Iterator[Case]:
    yield Case("5 queries, 3 classes, σ² = 1.7", (*_pairs(g, 5, 3, 4), 1.7, _log_prior(g, 3)))
    yield Case("2 queries, 4 classes, σ² = 0.3", (*_pairs(g, 2, 4, 3), 0.3, _log_prior(g, 4)))
    equal = torch.full((2,), -math.log(2))
    yield Case("2 classes of equal priors", (*_pairs(g, 3, 2, 5), 0.5, equal))


def _joint_episodes(g: Generator) -> Iterator[Case]:
    yield Case("2 episodes", (*_pairs(g, 5, 3, 4, 2), 0.7, _log_prior(g, 3)))


def _moved(g: Generator) -> Iterator[Case]:
    queries, prototypes = _pairs(g, 4, 3, 3)
    log_prior = _log_prior(g, 3)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=g)).Q
    shift = 2 * torch.randn(3, generator=g)
    yield Case("as it is", (queries, prototypes, 0.6, log_prior))
    yield Case("all vectors shifted", (queries + shift, prototypes + shift, 0.6, log_prior))
    yield Case("all vectors rotated", (queries @ turn, prototypes @ turn, 0.6, log_prior))


def _all_equal(cases: Sequence[Case], results: Sequence[Any]) -> bool:
    return all(_close(results[0], other) for other in results[1:])


def _sum_over_space(cases: Sequence[Case], results: Sequence[Any]) -> bool:
    """Integrate exp of the answer over a line, which must give the priors."""
    (case,) = cases
    queries, _, _, log_prior = case.args
    step = float(queries[1, 0] - queries[0, 0])
    mass = np.exp(np.asarray(results[0], dtype=np.float64)).sum(-2) * step
    return _close(mass, log_prior.exp().numpy(), 5e-3)


def _line(g: Generator) -> Iterator[Case]:
    line = torch.linspace(-12, 12, 401)[:, None]
    centres = torch.randn(3, 1, generator=g).clamp(-2, 2)
    yield Case("a fine line of queries, one feature", (line, centres, 0.8, _log_prior(g, 3)))


def _joint(
    dimension: Callable[[int], float] = lambda m: m,
    half: float = 2.0,
    volume: Callable[[float], float] = lambda v: 0.5 * math.log(2 * math.pi * v),
    prior: Callable[[Tensor], Tensor | float] = lambda p: p,
    distance: Callable[[Tensor, Tensor], Tensor] = squared_euclidean,
    spread: Callable[[float], float] = lambda v: v,
    sign: float = -1.0,
) -> Callable[..., Tensor]:
    """Make a log joint with one thing changed."""

    def changed(queries: Tensor, prototypes: Tensor, variance: float, log_prior: Tensor) -> Tensor:
        exponent = sign * distance(queries, prototypes) / (half * spread(variance))
        return prior(log_prior) + exponent - dimension(queries.shape[-1]) * volume(variance)

    return changed


def _city(queries: Tensor, prototypes: Tensor) -> Tensor:
    return (queries[..., :, None, :] - prototypes[..., None, :, :]).abs().sum(-1)


def _joint_normal(q: Tensor, p: Tensor, variance: float, log_prior: Tensor) -> Tensor:
    normal = torch.distributions.Normal(p[..., None, :, :].double(), math.sqrt(variance))
    return (normal.log_prob(q[..., :, None, :].double()).sum(-1) + log_prior).float()


def _joint_multivariate(q: Tensor, p: Tensor, variance: float, log_prior: Tensor) -> Tensor:
    covariance = variance * torch.eye(q.shape[-1], dtype=q.dtype)
    normal = torch.distributions.MultivariateNormal(p[..., None, :, :], covariance)
    return normal.log_prob(q[..., :, None, :]) + log_prior


def _joint_loop(q: Tensor, p: Tensor, variance: float, log_prior: Tensor) -> Any:
    if q.ndim > 2:
        return np.stack([_joint_loop(a, b, variance, log_prior) for a, b in zip(q, p, strict=True)])
    found = np.zeros((len(q), len(p)))
    for i, z in enumerate(q.double().numpy()):
        for k, c in enumerate(p.double().numpy()):
            density = np.exp(-((z - c) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
            found[i, k] = float(log_prior[k]) + np.log(density).sum()
    return found


def _joint_expanded(q: Tensor, p: Tensor, variance: float, log_prior: Tensor) -> Tensor:
    q, p = q.double(), p.double()
    squared = q.square().sum(-1)[..., None] - 2 * q @ p.mT + p.square().sum(-1)[..., None, :]
    scaled = squared / variance + q.shape[-1] * math.log(2 * math.pi * variance)
    return log_prior - scaled / 2


LOG_JOINT = Answer(
    name="log_joint",
    reference=log_joint,
    section=STEPS,
    kind="derive",
    checks=[
        Check("log prior plus log density", _joint_cases, points=2),
        Check(
            "integrated over all z, what is left is the prior",
            _line,
            law=_sum_over_space,
            says="the exponential of your result, summed over a fine line of z, is not π_k: the "
            "density is not normalised, or the prior is missing",
        ),
        Check(
            "shifting or rotating all vectors changes nothing",
            _moved,
            law=_all_equal,
            says="shifting or rotating queries and prototypes together changes your result",
        ),
        Check("several episodes at once", _joint_episodes, pointer=EPISODES),
    ],
    mistakes=[
        Mistake(
            "the ½ forgotten",
            _joint(half=1.0),
            "The exponent of your Gaussian lacks its ½: it is the squared distance over *twice* "
            "the variance.",
            STEPS,
        ),
        Mistake(
            "σ for σ²",
            _joint(spread=math.sqrt, volume=lambda v: 0.5 * math.log(2 * math.pi * math.sqrt(v))),
            "You took the root of `variance`. It is σ² already, the square; nothing is to be "
            "rooted.",
            STEPS,
        ),
        Mistake(
            "variance squared",
            _joint(spread=lambda v: v * v, volume=lambda v: 0.5 * math.log(2 * math.pi * v * v)),
            "You squared `variance` as if it were σ. It is σ² already.",
            STEPS,
        ),
        Mistake(
            "normaliser of one dimension",
            _joint(dimension=lambda m: 1),
            "Your normaliser is that of one dimension. z has M features, and the density of the "
            "vector is the product of M of them: the log normaliser appears M times.",
            STEPS,
        ),
        Mistake(
            "normaliser forgotten",
            _joint(volume=lambda v: 0.0),
            "You left the normaliser out. It will cancel, but that is the *next* step; here the "
            "density still integrates to one.",
            STEPS,
        ),
        Mistake(
            "normaliser with the wrong sign",
            _joint(volume=lambda v: -0.5 * math.log(2 * math.pi * v)),
            "Your normaliser has the wrong sign. A density *divides* by it: a wider Gaussian is "
            "lower everywhere near its centre.",
            STEPS,
        ),
        Mistake(
            "σ² for log σ²",
            _joint(volume=lambda v: 0.5 * (math.log(2 * math.pi) + v)),
            "Your log normaliser adds σ² itself to log 2π. The logarithm of a product is the sum "
            "of the logarithms: log 2π + log σ².",
            STEPS,
        ),
        Mistake(
            "2π forgotten",
            _joint(volume=lambda v: 0.5 * math.log(v)),
            "Your normaliser has the variance but not the 2π; the density does not integrate to "
            "one.",
            STEPS,
        ),
        Mistake(
            "normaliser without its root",
            _joint(volume=lambda v: math.log(2 * math.pi * v)),
            "Your log normaliser is twice too large: the density of one feature divides by the "
            "*root* of 2πσ².",
            STEPS,
        ),
        Mistake(
            "prior forgotten",
            _joint(prior=lambda p: 0.0),
            "This is the log density alone. The joint also asks how frequent the class is: the "
            "prior multiplies, so its logarithm is added.",
            PRIORS,
        ),
        Mistake(
            "prior not in logs",
            _joint(prior=lambda p: p.exp()),
            "You added the prior itself to a logarithm. `log_prior` is log π_k already; it is "
            "added as it comes.",
            PRIORS,
        ),
        Mistake(
            "distance not squared",
            _joint(distance=lambda q, p: squared_euclidean(q, p).sqrt()),
            "You used the distance where its square belongs. exp(−‖z − c‖) falls too slowly for a "
            "Gaussian.",
            BREAKS,
        ),
        Mistake(
            "sum of absolute differences",
            _joint(distance=_city),
            "You summed absolute differences. That is a product of Laplace laws, and its level "
            "lines are diamonds: rotating the space changes it.",
            BREAKS,
        ),
        Mistake(
            "plus the distance",
            _joint(sign=1.0),
            "The sign of the exponent is lost: your density grows with the distance from its own "
            "centre.",
            STEPS,
        ),
        Mistake(
            "density without its log",
            lambda q, p, v, lp: log_joint(q, p, v, lp).exp(),
            "This is the joint density itself; asked is its logarithm, in which the product over "
            "the features becomes a sum.",
            STEPS,
        ),
    ],
    variants=[
        V("one normal law a feature", _joint_normal),
        V("a multivariate normal law", _joint_multivariate),
        V("loops in numpy", _joint_loop),
        V("the square expanded", _joint_expanded),
    ],
    hints=[
        "Write the density of N(c_k, σ²I) for a vector of M features as a product over features, "
        "multiply by π_k, then take the logarithm. Which three terms are there?",
        "log of a product: the prior's logarithm, an exponent with the squared distance over "
        "twice σ², and M times the logarithm of the root of 2πσ².",
        "In words: take squared_euclidean of queries and prototypes, divide by twice the variance, "
        "subtract that from log_prior, subtract half of M times the log of two π times the "
        "variance.",
    ],
    tolerance=Tolerance(rtol=1e-3, atol=1e-3),
    withhold=GIVEN_AWAY,
    difficulty=2,
    importance=4,
    minutes=8,
)

# -------------------------------------------------------------------------------------- cancelled


def cancelled(queries: Tensor, prototypes: Tensor, variance: float, log_prior: Tensor) -> Tensor:
    """Return log π_k − ‖z − c_k‖²/(2σ²)."""
    return log_prior - squared_euclidean(queries, prototypes) / (2 * variance)


def _between(values: Any) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    return array - array[..., :1]


def _same_differences(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    for case, result in zip(cases, results, strict=True):
        if not _close(_between(result), _between(log_joint(*case.args))):
            where = f"{case.name}: " if len(cases) > 1 else ""
            return (
                f"{where}the differences between two classes are not those of log_joint; "
                "something was dropped (or changed) that is not common to all classes"
            )
    return True


def _padded(g: Generator) -> Iterator[Case]:
    queries, prototypes = _pairs(g, 4, 3, 2)
    log_prior = _log_prior(g, 3)
    yield Case("2 features", (queries, prototypes, 1.7, log_prior))
    wide = F.pad(queries, (0, 3)), F.pad(prototypes, (0, 3))
    yield Case("and 3 more that are 0 everywhere", (*wide, 1.7, log_prior))


def _no_centre_norm(q: Tensor, p: Tensor, variance: float, log_prior: Tensor) -> Tensor:
    return log_prior + q @ p.mT / variance


CANCELLED = Answer(
    name="cancelled",
    reference=cancelled,
    section=STEPS,
    kind="derive",
    checks=[
        Check(
            "the differences between classes are kept",
            _joint_cases,
            points=2,
            law=_same_differences,
        ),
        Check(
            "the normaliser is gone",
            _padded,
            law=_all_equal,
            says="features that are 0 for every query and every prototype tell nothing about the "
            "class, and yet they change your result: a term with M in it is still there",
        ),
        Check(
            "the same in several episodes",
            _joint_episodes,
            law=_same_differences,
            pointer=EPISODES,
        ),
    ],
    mistakes=[
        Mistake(
            "nothing dropped",
            log_joint,
            "This is still the whole log joint. One of its terms has neither k nor c_k in it: it "
            "is the same for all classes.",
            STEPS,
        ),
        Mistake(
            "prior dropped",
            lambda q, p, v, lp: cancelled(q, p, v, 0 * lp),
            "You dropped the prior as well. It carries the index k; only *equal* priors cancel.",
            PRIORS,
        ),
        Mistake(
            "prior not in logs",
            lambda q, p, v, lp: cancelled(q, p, v, lp.exp()),
            "You added the prior itself. What is added to a log density is the log of the prior, "
            "as `log_prior` gives it.",
            PRIORS,
        ),
        Mistake(
            "variance dropped",
            lambda q, p, v, lp: cancelled(q, p, 0.5, lp),
            "You dropped 2σ² from under the distance. It is the same number for all classes, but "
            "a factor, not a term: it scales the differences, it does not cancel.",
            STEPS,
        ),
        Mistake(
            "the ½ dropped",
            lambda q, p, v, lp: cancelled(q, p, v / 2, lp),
            "Your differences between classes lack the ½: a factor common to all classes does not "
            "cancel, a common term does.",
            STEPS,
        ),
        Mistake(
            "norm of the prototype dropped",
            _no_centre_norm,
            "You dropped ‖c_k‖² together with ‖z‖². The first has an index k and stays; without it "
            "long prototypes win.",
            LINEAR,
        ),
        Mistake(
            "plus the distance",
            lambda q, p, v, lp: cancelled(q, p, -v, lp),
            "The sign of the distance turned over: the furthest class has the largest value now.",
            STEPS,
        ),
        Mistake(
            "distance not squared",
            lambda q, p, v, lp: lp - squared_euclidean(q, p).sqrt() / (2 * v),
            "Your distance is not squared; the differences between classes are no longer those of "
            "Gaussians.",
            BREAKS,
        ),
    ],
    variants=[
        V("the square expanded, without ‖z‖²", lambda q, p, v, lp: _shorter(q, p, v, lp)),
        V("the log posterior", lambda q, p, v, lp: cancelled(q, p, v, lp).log_softmax(-1)),
        V(
            "relative to the first class",
            lambda q, p, v, lp: (lambda x: x - x[..., :1])(cancelled(q, p, v, lp)),
        ),
        V(
            "relative to the class mean",
            lambda q, p, v, lp: (lambda x: x - x.mean(-1, keepdim=True))(log_joint(q, p, v, lp)),
        ),
        V(
            "numpy",
            lambda q, p, v, lp: (
                lp.numpy()
                - ((q.numpy()[..., :, None, :] - p.numpy()[..., None, :, :]) ** 2).sum(-1) / 2 / v
            ),
        ),
    ],
    hints=[
        "Underline every k and every c_k in your log joint. A term without either is the same for "
        "all classes.",
        "The posterior divides exp(log joint) by its sum over classes: a common term is a common "
        "factor above and below. That is true of added terms, not of factors inside them.",
        "In words: log_prior minus the squared distances over twice the variance; nothing else "
        "has an index k.",
    ],
    withhold=GIVEN_AWAY,
    difficulty=2,
    importance=5,
    minutes=5,
)


def _shorter(q: Tensor, p: Tensor, variance: float, log_prior: Tensor) -> Tensor:
    weights, biases = library.linear_form(p, variance, log_prior)
    return q @ weights.mT + biases[..., None, :]


# -------------------------------------------------------------------------------------- posterior


def posterior(squared: Tensor, variance: float = 0.5, log_prior: Tensor | None = None) -> Tensor:
    """Return softmax_k(−d_k²/(2σ²) + log π_k)."""
    logits = -squared / (2 * variance)
    if log_prior is not None:
        logits = logits + log_prior
    return torch.softmax(logits, dim=-1)


def _squared(g: Generator, q: int, k: int, *leading: int) -> Tensor:
    return squared_euclidean(*_pairs(g, q, k, 3, *leading))


def _default(g: Generator) -> Iterator[Case]:
    yield Case("4 queries, 3 classes", (_squared(g, 4, 3),))
    yield Case("3 queries, 3 classes", (_squared(g, 3, 3),))


def _spread_and_prior(g: Generator) -> Iterator[Case]:
    yield Case("σ² = 1.7", (_squared(g, 4, 3), 1.7))
    yield Case("σ² = 0.3 and priors", (_squared(g, 4, 3), 0.3, _log_prior(g, 3)))
    yield Case("priors alone", (_squared(g, 3, 3),), {"log_prior": _log_prior(g, 3)})
    never = torch.tensor([math.log(0.3), -math.inf, math.log(0.7)])
    yield Case("a class of prior 0", (_squared(g, 4, 3), 0.8, never))


def _with_a_constant(g: Generator) -> Iterator[Case]:
    squared, log_prior = _squared(g, 4, 3), _log_prior(g, 3)
    yield Case("as it is", (squared, 0.8, log_prior))
    common = 3 * torch.rand(4, 1, generator=g) + 0.5
    yield Case("each query a little further from all classes", (squared + common, 0.8, log_prior))
    yield Case("each query 1000 further from all classes", (squared + 1000, 0.8, log_prior))


def _permuted(g: Generator) -> Iterator[Case]:
    squared, log_prior = _squared(g, 4, 3), _log_prior(g, 3)
    yield Case("classes a, b, c", (squared, 1.3, log_prior))
    yield Case("classes c, a, b", (squared[:, [2, 0, 1]], 1.3, log_prior[[2, 0, 1]]))


def _permutes(cases: Sequence[Case], results: Sequence[Any]) -> bool:
    return _close(np.asarray(results[0])[:, [2, 0, 1]], results[1], 1e-4)


def _sums_to_one(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    for result in results:
        p = np.asarray(result, dtype=np.float64)
        if (p < -1e-6).any():
            return "some of your probabilities are negative"
        if not np.allclose(p.sum(-1), 1, atol=1e-4):
            return "a row of your result, all classes of one query, does not sum to one"
    return True


def _prior(log_prior: Tensor | None, k: int) -> Tensor:
    return torch.zeros(k) if log_prior is None else log_prior


def _after_softmax(s: Tensor, variance: float = 0.5, log_prior: Tensor | None = None) -> Tensor:
    return posterior(s, variance) * _prior(log_prior, s.shape[-1]).exp()


def _unstable(s: Tensor, variance: float = 0.5, log_prior: Tensor | None = None) -> Tensor:
    weight = (_prior(log_prior, s.shape[-1]) - s / (2 * variance)).exp()
    return weight / weight.sum(-1, keepdim=True)


def _without_exp(s: Tensor, variance: float = 0.5, log_prior: Tensor | None = None) -> Tensor:
    logits = s / (2 * variance) - _prior(log_prior, s.shape[-1])
    return logits / logits.sum(-1, keepdim=True)


def _log_sum_exp(s: Tensor, variance: float = 0.5, log_prior: Tensor | None = None) -> Tensor:
    logits = _prior(log_prior, s.shape[-1]) - s / (2 * variance)
    return (logits - logits.logsumexp(-1, keepdim=True)).exp()


def _odds(s: Tensor, variance: float = 0.5, log_prior: Tensor | None = None) -> Tensor:
    logits = (_prior(log_prior, s.shape[-1]) - s / (2 * variance)).double()
    return 1 / (logits[..., None, :] - logits[..., :, None]).exp().sum(-1)


def _odds_safe(s: Tensor, variance: float = 0.5, log_prior: Tensor | None = None) -> Tensor:
    return torch.nan_to_num(_odds(s, variance, log_prior))


def _numpy_shifted(s: Tensor, variance: float = 0.5, log_prior: Tensor | None = None) -> Any:
    logits = _prior(log_prior, s.shape[-1]).numpy() - s.numpy() / (2 * variance)
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)


def _multiplied(s: Tensor, variance: float = 0.5, log_prior: Tensor | None = None) -> Tensor:
    weight = posterior(s, variance) * _prior(log_prior, s.shape[-1]).exp()
    return weight / weight.sum(-1, keepdim=True)


POSTERIOR = Answer(
    name="posterior",
    reference=posterior,
    section=STEPS,
    kind="derive",
    checks=[
        Check("σ² = ½, equal priors: the prototypical softmax", _default, points=2),
        Check("any variance, any priors", _spread_and_prior, points=2, pointer=PRIORS),
        Check("probabilities sum to one over the classes", _spread_and_prior, law=_sums_to_one),
        Check(
            "what all classes have in common changes nothing",
            _with_a_constant,
            law=_all_equal,
            says="a number added to the squared distances of all classes changes your result",
        ),
        Check(
            "renaming the classes renames the probabilities",
            _permuted,
            law=_permutes,
            says="with the classes in another order, their probabilities are others",
        ),
        Check(
            "several episodes at once",
            lambda g: iter([Case("2 episodes", (_squared(g, 4, 3, 2), 0.8, _log_prior(g, 3)))]),
            pointer=EPISODES,
        ),
    ],
    mistakes=[
        Mistake(
            "plus the distance",
            lambda s, variance=0.5, log_prior=None: posterior(-s, variance, log_prior),
            "Your softmax prefers the class that is furthest away: the distance enters with a "
            "minus.",
            STEPS,
        ),
        Mistake(
            "the ½ forgotten",
            lambda s, variance=0.5, log_prior=None: posterior(s, variance / 2, log_prior),
            "You divided by σ², not by 2σ². The default would then be softmax(−2d²), which is not "
            "the prototypical network.",
            STEPS,
        ),
        Mistake(
            "variance ignored",
            lambda s, variance=0.5, log_prior=None: posterior(s, 0.5, log_prior),
            "Your result does not depend on the variance. softmax(−d²) is right for σ² = ½ alone.",
            SCALES,
        ),
        Mistake(
            "σ for σ²",
            lambda s, variance=0.5, log_prior=None: posterior(s, math.sqrt(variance), log_prior),
            "You took the root of the variance. `variance` is σ², and 2σ² stands below the "
            "distance.",
            STEPS,
        ),
        Mistake(
            "variance multiplies",
            lambda s, variance=0.5, log_prior=None: posterior(s, 0.25 / variance, log_prior),
            "You multiplied by 2σ². A *wide* Gaussian makes the posterior flat, so the variance "
            "divides.",
            SCALES,
        ),
        Mistake(
            "distance not squared",
            lambda s, variance=0.5, log_prior=None: posterior(s.sqrt(), variance, log_prior),
            "You took a root: `squared` holds squared distances, and the Gaussian's exponent "
            "wants them squared.",
            BREAKS,
        ),
        Mistake(
            "squared twice",
            lambda s, variance=0.5, log_prior=None: posterior(s * s, variance, log_prior),
            "You squared again: `squared` holds squared distances already.",
            STEPS,
        ),
        Mistake(
            "prior forgotten",
            lambda s, variance=0.5, log_prior=None: posterior(s, variance),
            "Your result is the same for every prior: the argument is not used. A class that is "
            "rare needs a query nearer to it.",
            PRIORS,
        ),
        Mistake(
            "prior after the softmax",
            _after_softmax,
            "You multiplied the prior onto the finished probabilities; they no longer sum to one. "
            "Its logarithm belongs inside the softmax.",
            PRIORS,
        ),
        Mistake(
            "prior not in logs",
            lambda s, variance=0.5, log_prior=None: posterior(
                s, variance, None if log_prior is None else log_prior.exp()
            ),
            "You added the prior itself to the logits. A logit is a logarithm: `log_prior` is "
            "added as it comes, and a prior of 0 forbids its class.",
            PRIORS,
        ),
        Mistake(
            "prior scaled with the distance",
            lambda s, variance=0.5, log_prior=None: posterior(
                s - _prior(log_prior, s.shape[-1]), variance
            ),
            "You divided the log prior by 2σ² together with the distance. Only the distance stands "
            "over the variance.",
            PRIORS,
        ),
        Mistake(
            "softmax over the queries",
            lambda s, variance=0.5, log_prior=None: (
                _prior(log_prior, s.shape[-1]) - s / (2 * variance)
            ).softmax(-2),
            "Your softmax runs over the queries; the classes compete for a query, not the queries "
            "for a class.",
            STEPS,
        ),
        Mistake(
            "exp without a shift",
            _unstable,
            "You divided exp by its sum. Far from all classes every exp is 0 in float32, and 0/0 "
            "is NaN; a term common to all classes may be dropped first, `softmax` does it.",
            "notebook 03, «From distance to probability»",
        ),
        Mistake(
            "normalised without exp",
            _without_exp,
            "You divided the logits by their sum. They are logarithms; probabilities are their "
            "exponentials, normalised.",
            STEPS,
        ),
        Mistake(
            "logs for probabilities",
            lambda s, variance=0.5, log_prior=None: posterior(s, variance, log_prior).log(),
            "These are log-probabilities; here the probabilities themselves are asked for.",
            STEPS,
        ),
    ],
    variants=[
        V("log-sum-exp, then exp", _log_sum_exp),
        V("one over a sum of odds", _odds_safe),
        V("numpy, shifted", _numpy_shifted),
        V("Bayes' rule with the equal-prior posterior", _multiplied),
    ],
    hints=[
        "Bayes' rule: the joint of one class over the sum of the joints of all. What is left of "
        "the joint after the last step, and which function of PyTorch does exp, sum and division?",
        "The logits are those of `cancelled`, only that the squared distances are given. Without "
        "log_prior all priors are equal, and equal terms cancel.",
        "In words: minus `squared` over twice the variance, plus log_prior if there is one, "
        "softmax over the last axis.",
    ],
    tolerance=Tolerance(rtol=1e-3, atol=1e-4),
    picture=pictures.matrix,
    withhold=GIVEN_AWAY,
    difficulty=2,
    importance=5,
    minutes=8,
)

# ------------------------------------------------------------------------------------ linear_form


def linear_form(
    prototypes: Tensor, variance: float = 0.5, log_prior: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return w_k = c_k/σ² and b_k = −‖c_k‖²/(2σ²) + log π_k: the library's."""
    return library.linear_form(prototypes, variance, log_prior)


def _centres(g: Generator) -> Iterator[Case]:
    yield Case("3 classes, σ² = ½", (torch.randn(3, 4, generator=g),))
    yield Case("2 classes, σ² = 1.7", (torch.randn(2, 3, generator=g), 1.7))


def _centres_with_priors(g: Generator) -> Iterator[Case]:
    yield Case("3 classes with priors", (torch.randn(3, 4, generator=g), 0.3, _log_prior(g, 3)))
    yield Case("priors, σ² = ½", (torch.randn(4, 2, generator=g),), {"log_prior": _log_prior(g, 4)})


def _centres_of_episodes(g: Generator) -> Iterator[Case]:
    yield Case("2 episodes", (torch.randn(2, 3, 4, generator=g), 0.8, _log_prior(g, 3)))


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


def _tilted(
    weight: float = 1.0,
    bias: float = 1.0,
    prior: Callable[[Tensor], Tensor | float] = lambda p: p,
    norm: Callable[[Tensor], Tensor] = lambda c: c.square().sum(-1),
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Make a linear form with one thing changed."""

    def changed(
        prototypes: Tensor, variance: float = 0.5, log_prior: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        biases = -bias * norm(prototypes) / (2 * variance)
        if log_prior is not None:
            biases = biases + prior(log_prior)
        return weight * prototypes / variance, biases

    return changed


def _bias_of_weights(
    prototypes: Tensor, variance: float = 0.5, log_prior: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    weights = prototypes / variance
    return weights, _prior(log_prior, prototypes.shape[-2]) - weights.square().sum(-1) / 2


def _linear_by_matrix(
    prototypes: Tensor, variance: float = 0.5, log_prior: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    covariance = variance * torch.eye(prototypes.shape[-1])
    return library.linear_form(prototypes, None, log_prior, covariance)


def _linear_by_gradient(
    prototypes: Tensor, variance: float = 0.5, log_prior: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Take the derivative and the value at z = 0 of the logits without ‖z‖²."""
    c = prototypes.double()
    origin = torch.zeros(c.shape, dtype=c.dtype, requires_grad=True)
    logits = (origin.square().sum(-1) - (origin - c).square().sum(-1)) / (2 * variance)
    (weights,) = torch.autograd.grad(logits.sum(), origin)
    biases = logits.detach() + _prior(log_prior, c.shape[-2])
    return weights.float(), biases.float()


def _linear_numpy(
    prototypes: Tensor, variance: float = 0.5, log_prior: Tensor | None = None
) -> tuple[Any, Any]:
    c = prototypes.numpy()
    biases = -np.einsum("...d,...d->...", c, c) / variance / 2
    return c / variance, biases if log_prior is None else biases + log_prior.numpy()


def _linear_loop(
    prototypes: Tensor, variance: float = 0.5, log_prior: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    if prototypes.ndim > 2:
        parts = [_linear_loop(c, variance, log_prior) for c in prototypes]
        return torch.stack([w for w, _ in parts]), torch.stack([b for _, b in parts])
    biases = [-float(c @ c) / (2 * variance) for c in prototypes]
    if log_prior is not None:
        biases = [b + float(p) for b, p in zip(biases, log_prior, strict=True)]
    return torch.stack([c / variance for c in prototypes]), torch.tensor(biases)


LINEAR_FORM = Answer(
    name="linear_form",
    reference=linear_form,
    section=LINEAR,
    kind="derive",
    returns=("weights", "biases"),
    checks=[
        Check("weights and biases without priors", _centres, points=2),
        Check("the log prior is part of the bias", _centres_with_priors, pointer=PRIORS),
        Check(
            "softmax(w_kᵀz + b_k) is the posterior at random z",
            _centres_with_priors,
            law=_is_the_posterior,
        ),
        Check("several episodes at once", _centres_of_episodes, pointer=EPISODES),
    ],
    mistakes=[
        Mistake(
            "weights without the 2",
            _tilted(weight=0.5),
            "The mixed term of the square comes twice: −‖z − c‖² holds *two* times cᵀz. The 2 and "
            "the ½ of the exponent cancel.",
            LINEAR,
        ),
        Mistake(
            "weights twice too large",
            _tilted(weight=2.0),
            "Your weights have the 2 of the mixed term, but not the ½ of the Gaussian's exponent. "
            "(w_k = 2c_k is the case σ² = ½, where both are in it.)",
            LINEAR,
        ),
        Mistake(
            "bias without the ½",
            _tilted(bias=2.0),
            "Your bias lacks the ½: the square of the prototype stands over twice the variance.",
            LINEAR,
        ),
        Mistake(
            "bias with the wrong sign",
            _tilted(bias=-1.0),
            "The sign of ‖c_k‖² in the bias is turned over: long prototypes are *penalised*, "
            "because a long w_k is ahead already.",
            LINEAR,
        ),
        Mistake(
            "no bias from the prototype",
            _tilted(bias=0.0),
            "You dropped ‖c_k‖². Only ‖z‖² is common to all classes; without ‖c_k‖² long "
            "prototypes win everywhere.",
            LINEAR,
        ),
        Mistake(
            "variance ignored",
            lambda prototypes, variance=0.5, log_prior=None: linear_form(
                prototypes, 0.5, log_prior
            ),
            "Your result does not depend on the variance: w_k = 2c_k, b_k = −‖c_k‖² is the case "
            "σ² = ½.",
            SCALES,
        ),
        Mistake(
            "σ for σ²",
            lambda prototypes, variance=0.5, log_prior=None: linear_form(
                prototypes, math.sqrt(variance), log_prior
            ),
            "You took the root of the variance; σ² divides, as it comes.",
            LINEAR,
        ),
        Mistake(
            "bias from the weights",
            _bias_of_weights,
            "Your bias is −½‖w_k‖². That is right for σ² = 1 alone: w_k has been divided by σ² "
            "already, so its square is divided by σ² once too often.",
            LINEAR,
        ),
        Mistake(
            "norm not squared",
            _tilted(norm=lambda c: c.norm(dim=-1)),
            "Your bias has ‖c_k‖ where its square belongs.",
            LINEAR,
        ),
        Mistake(
            "prior forgotten",
            _tilted(prior=lambda p: 0.0),
            "Your result is the same for every prior. A log prior does not depend on z: it moves "
            "the bias, and with it the boundary.",
            PRIORS,
        ),
        Mistake(
            "prior not in logs",
            _tilted(prior=lambda p: p.exp()),
            "You added the prior itself to the bias; a logit holds its logarithm.",
            PRIORS,
        ),
        Mistake(
            "prior over the variance",
            lambda prototypes, variance=0.5, log_prior=None: _tilted(
                prior=lambda p: p / (2 * variance)
            )(prototypes, variance, log_prior),
            "You divided the log prior by 2σ² together with the norm. The prior knows nothing of "
            "the variance.",
            PRIORS,
        ),
        Mistake(
            "plus the prior's opposite",
            _tilted(prior=lambda p: -p),
            "You subtracted the log prior: rare classes are favoured. It is added.",
            PRIORS,
        ),
    ],
    variants=[
        V("a full covariance", _linear_by_matrix),
        V("gradient and value at z = 0", _linear_by_gradient),
        V("numpy", _linear_numpy),
        V("a loop over the classes", _linear_loop),
    ],
    hints=[
        "Expand ‖z − c_k‖² into three terms and divide each by −2σ². Which has no k, which is "
        "linear in z, which is a constant of the class?",
        "The factor of z is w_k, everything with k but without z is b_k; the prior belongs to the "
        "second. ‖z‖² is common to all classes and goes.",
        "In words: weights are prototypes over variance; biases are minus the sum of squares of "
        "each prototype over twice the variance, plus log_prior if there is one.",
    ],
    tolerance=Tolerance(rtol=1e-3, atol=1e-4),
    withhold=GIVEN_AWAY,
    difficulty=3,
    importance=4,
    minutes=10,
)

# --------------------------------------------------------------------------------- mean_direction


def mean_direction(embeddings: Tensor) -> Tensor:
    """Return the normalised mean of the normalised vectors: the library's, for one class."""
    labels = torch.zeros(embeddings.shape[:-1], dtype=torch.long)
    return library.mean_direction(embeddings, labels, 1)[..., 0, :]


def _vectors(g: Generator, n: int, m: int, *leading: int) -> Tensor:
    lengths = 0.5 + 4 * torch.rand(*leading, n, 1, generator=g)
    around = torch.randn(*leading, 1, m, generator=g)
    around = 1.5 * around / around.norm(dim=-1, keepdim=True).clamp_min(1e-3)
    return lengths * (around + torch.randn(*leading, n, m, generator=g) / 2)


def _one_class(g: Generator) -> Iterator[Case]:
    yield Case("5 examples of 3 features", (_vectors(g, 5, 3),))
    yield Case("one example", (_vectors(g, 1, 4),))
    yield Case("4 examples of 4 features", (_vectors(g, 4, 4),))


def _of_classes(g: Generator) -> Iterator[Case]:
    yield Case("3 classes", (_vectors(g, 5, 4, 3),))


def _lengthened(g: Generator) -> Iterator[Case]:
    vectors = _vectors(g, 4, 3)
    yield Case("as it is", (vectors,))
    factors = torch.tensor([[10.0], [1.0], [0.2], [3.0]])
    yield Case("some vectors lengthened", (vectors * factors,))


MEAN_DIRECTION = Answer(
    name="mean_direction",
    reference=mean_direction,
    section=COSINE,
    checks=[
        Check("the direction of the summed directions", _one_class, points=2),
        Check(
            "how long a vector is does not matter",
            _lengthened,
            law=_all_equal,
            says="lengthening one example, its direction kept, moves your direction",
        ),
        Check("several classes at once", _of_classes, pointer=EPISODES),
    ],
    mistakes=[
        Mistake(
            "raw vectors averaged",
            lambda e: F.normalize(e.mean(-2), dim=-1),
            "You averaged the vectors as they are: long ones dominate. That is what PANet does; "
            "under the von Mises–Fisher law each example counts by its direction alone.",
            COSINE,
        ),
        Mistake(
            "not normalised again",
            lambda e: F.normalize(e, dim=-1).mean(-2),
            "Your mean of unit vectors is shorter than 1, the more the directions differ. A "
            "direction is a unit vector: normalise once more.",
            COSINE,
        ),
        Mistake(
            "plain mean",
            lambda e: e.mean(-2),
            "This is the plain mean of the vectors, the prototype for squared distance. Asked is a "
            "direction.",
            "notebook 04, «Why the mean»",
        ),
        Mistake(
            "sum of directions",
            lambda e: F.normalize(e, dim=-1).sum(-2),
            "You summed the directions and left the sum as it is; its length grows with the number "
            "of examples.",
            COSINE,
        ),
        Mistake(
            "normalised over the examples",
            lambda e: F.normalize(F.normalize(e, dim=-2).sum(-2), dim=-1),
            "You normalised along the examples, so that each *feature* has length 1. A vector's "
            "length runs over its features, the last axis.",
            COSINE,
        ),
        Mistake(
            "sum of squares for length",
            lambda e: F.normalize((e / e.square().sum(-1, keepdim=True)).sum(-2), dim=-1),
            "You divided by the squared length; short vectors dominate now. The length is its "
            "root.",
            COSINE,
        ),
        Mistake(
            "sum of absolute values for length",
            lambda e: F.normalize(F.normalize(e, p=1, dim=-1).sum(-2), dim=-1),
            "You took the sum of absolute values for the length of a vector; its Euclidean length "
            "is the root of the sum of squares.",
            COSINE,
        ),
    ],
    variants=[
        V(
            "mean of directions",
            lambda e: F.normalize(F.normalize(e, dim=-1).mean(-2), dim=-1),
        ),
        V("lengths by hand", lambda e: _direction_by_hand(e)),
        V("numpy", lambda e: _direction_numpy(e.numpy())),
        V("a loop over the examples", lambda e: _direction_loop(e)),
    ],
    hints=[
        "κ μᵀẑ is what each example adds to the log likelihood: which μ of length 1 maximises the "
        "sum over the examples?",
        "The sum is μᵀ times the sum of the ẑ; it is largest when μ points the way of that sum.",
        "In words: normalise each embedding over its features, sum over the examples, normalise "
        "what you have.",
    ],
    tolerance=Tolerance(rtol=1e-3, atol=1e-4),
    equivalent={
        "return F.normalize(unit.sum(dim=-2), dim=-1) → "
        "return F.normalize(unit.mean(dim=-2), dim=-1)": (
            "a mean is the sum over N; a positive factor is lost when the result is normalised"
        ),
    },
    withhold=GIVEN_AWAY,
    difficulty=2,
    importance=3,
    minutes=5,
)


def _direction_by_hand(e: Tensor) -> Tensor:
    total = (e / e.square().sum(-1, keepdim=True).sqrt()).sum(-2)
    return total / total.square().sum(-1, keepdim=True).sqrt()


def _direction_numpy(e: Any) -> Any:
    total = (e / np.linalg.norm(e, axis=-1, keepdims=True)).mean(-2)
    return total / np.linalg.norm(total, axis=-1, keepdims=True)


def _direction_loop(e: Tensor) -> Tensor:
    if e.ndim > 2:
        return torch.stack([_direction_loop(part) for part in e])
    total = torch.zeros(e.shape[-1])
    for vector in e:
        total = total + vector / vector.norm()
    return total / total.norm()


# ------------------------------------------------------------------------------ vmf_log_posterior


def vmf_log_posterior(
    queries: Tensor, directions: Tensor, kappa: float, log_prior: Tensor | None = None
) -> Tensor:
    """Return log softmax_k(κ cos(z, μ_k) + log π_k): the library's."""
    return library.vmf_log_posterior(queries, directions, kappa, log_prior)


def _angles(g: Generator) -> Iterator[Case]:
    yield Case("5 queries, 3 classes, κ = 5", (*_pairs(g, 5, 3, 4), 5.0))
    yield Case("3 queries, 3 classes, κ = 1", (*_pairs(g, 3, 3, 3), 1.0))
    yield Case("κ = 0: directions tell nothing", (*_pairs(g, 3, 2, 4), 0.0, _log_prior(g, 2)))


def _angles_with_priors(g: Generator) -> Iterator[Case]:
    yield Case("3 classes with priors, κ = 2", (*_pairs(g, 4, 3, 5), 2.0, _log_prior(g, 3)))


def _sharp(g: Generator) -> Iterator[Case]:
    far = Tolerance(rtol=1e-3, atol=1e-2)
    yield Case("κ = 400", (*_pairs(g, 5, 3, 3), 400.0, _log_prior(g, 3)), tolerance=far)


def _is_gaussian(cases: Sequence[Case], results: Sequence[Any]) -> bool:
    """Compare with Gaussians of σ² = 1/κ around unit vectors."""
    for case, result in zip(cases, results, strict=True):
        queries, directions, kappa, log_prior = [*case.args, None][:4]
        unit = [F.normalize(x.double(), dim=-1) for x in (queries, directions)]
        wanted = _prior(log_prior, directions.shape[-2]) - kappa / 2 * squared_euclidean(*unit)
        if not _close(result, wanted.log_softmax(-1)):
            return False
    return True


def _alike(q: Tensor, d: Tensor) -> Tensor:
    return F.normalize(q, dim=-1) @ F.normalize(d, dim=-1).mT


def _vmf(
    factor: Callable[[float], float] = lambda kappa: kappa,
    alike: Callable[[Tensor, Tensor], Tensor] = _alike,
    prior: Callable[[Tensor], Tensor | float] = lambda p: p,
    finish: Callable[[Tensor], Tensor] = lambda logits: logits.log_softmax(-1),
) -> Callable[..., Tensor]:
    """Make a von Mises–Fisher posterior with one thing changed."""

    def changed(
        queries: Tensor, directions: Tensor, kappa: float, log_prior: Tensor | None = None
    ) -> Tensor:
        bias = 0.0 if log_prior is None else prior(log_prior)
        return finish(factor(kappa) * alike(queries, directions) + bias)

    return changed


def _prior_scaled(q: Tensor, d: Tensor, kappa: float, log_prior: Tensor | None = None) -> Tensor:
    return (kappa * (_alike(q, d) + _prior(log_prior, d.shape[-2]))).log_softmax(-1)


def _vmf_distance(q: Tensor, d: Tensor, kappa: float, log_prior: Tensor | None = None) -> Tensor:
    squared = squared_euclidean(F.normalize(q, dim=-1), F.normalize(d, dim=-1))
    return (_prior(log_prior, d.shape[-2]) - kappa / 2 * squared).log_softmax(-1)


def _vmf_einsum(q: Tensor, d: Tensor, kappa: float, log_prior: Tensor | None = None) -> Tensor:
    lengths = q.norm(dim=-1)[..., :, None] * d.norm(dim=-1)[..., None, :]
    logits = kappa * torch.einsum("...qm,...km->...qk", q, d) / lengths
    logits = logits + _prior(log_prior, d.shape[-2])
    return logits - logits.logsumexp(-1, keepdim=True)


def _vmf_similarity(q: Tensor, d: Tensor, kappa: float, log_prior: Tensor | None = None) -> Tensor:
    cosine = F.cosine_similarity(q[..., :, None, :], d[..., None, :, :], dim=-1)
    return (kappa * cosine + _prior(log_prior, d.shape[-2])).log_softmax(-1)


def _vmf_numpy(q: Tensor, d: Tensor, kappa: float, log_prior: Tensor | None = None) -> Any:
    a, b = q.double().numpy(), d.double().numpy()
    a = a / np.linalg.norm(a, axis=-1, keepdims=True)
    b = b / np.linalg.norm(b, axis=-1, keepdims=True)
    logits = kappa * (a @ np.swapaxes(b, -1, -2)) + _prior(log_prior, d.shape[-2]).numpy()
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


VMF_LOG_POSTERIOR = Answer(
    name="vmf_log_posterior",
    reference=vmf_log_posterior,
    section=COSINE,
    checks=[
        Check("the log of a softmax of κ cos", _angles, points=2),
        Check("the log prior is added", _angles_with_priors, pointer=PRIORS),
        Check(
            "it is the Gaussian posterior of unit vectors with σ² = 1/κ",
            _angles_with_priors,
            law=_is_gaussian,
            says="Gaussians of variance 1/κ around the normalised directions give another "
            "posterior for the normalised queries",
        ),
        Check("finite for sharp classes", _sharp),
        Check(
            "several episodes at once",
            lambda g: iter([Case("2 episodes", (*_pairs(g, 5, 3, 4, 2), 3.0, _log_prior(g, 3)))]),
            pointer=EPISODES,
        ),
    ],
    mistakes=[
        Mistake(
            "lengths not divided out",
            _vmf(alike=lambda q, d: q @ d.mT),
            "You took the dot product: a long query is surer than a short one. Both vectors are "
            "directions, normalise them.",
            COSINE,
        ),
        Mistake(
            "only the queries normalised",
            _vmf(alike=lambda q, d: F.normalize(q, dim=-1) @ d.mT),
            "Your queries are unit vectors, the directions are not: long ones win. Only their "
            "directions matter.",
            COSINE,
        ),
        Mistake(
            "only the directions normalised",
            _vmf(alike=lambda q, d: q @ F.normalize(d, dim=-1).mT),
            "Your directions are unit vectors, the queries are not: a long query sharpens its own "
            "posterior.",
            COSINE,
        ),
        Mistake(
            "κ divides",
            _vmf(factor=lambda kappa: 1 / kappa if kappa else 0.0),
            "You divided by κ. It is a concentration: the larger, the narrower the class. 1/κ "
            "plays the variance.",
            SCALES,
        ),
        Mistake(
            "κ halved",
            _vmf(factor=lambda kappa: kappa / 2),
            "You halved κ. The ½ belongs to ‖ẑ − μ‖² = 2 − 2cos, whose 2 takes it away again.",
            SCALES,
        ),
        Mistake(
            "κ doubled",
            _vmf(factor=lambda kappa: 2 * kappa),
            "You doubled κ: the 2 of 2 − 2cos, without the ½ in front of the squared distance.",
            SCALES,
        ),
        Mistake(
            "κ ignored",
            _vmf(factor=lambda kappa: 1.0),
            "Your result does not depend on κ: the cosine is left as it is, as in the note, and "
            "the posterior stays nearly flat.",
            SCALES,
        ),
        Mistake(
            "minus the cosine",
            _vmf(factor=lambda kappa: -kappa),
            "You gave the cosine a minus, as if it were a distance. It is large where vectors are "
            "alike.",
            COSINE,
        ),
        Mistake(
            "prior forgotten",
            _vmf(prior=lambda p: 0.0),
            "Your result is the same for every prior; its logarithm is added to κ cos.",
            PRIORS,
        ),
        Mistake(
            "prior not in logs",
            _vmf(prior=lambda p: p.exp()),
            "You added the prior itself to κ cos. What is added is its logarithm, as it comes.",
            PRIORS,
        ),
        Mistake(
            "κ times the prior",
            _prior_scaled,
            "You multiplied the log prior by κ as well. The concentration scales the cosine only.",
            PRIORS,
        ),
        Mistake(
            "probabilities, not logs",
            _vmf(finish=lambda logits: logits.softmax(-1)),
            "These are probabilities; asked are their logarithms.",
            COSINE,
        ),
        Mistake(
            "log after softmax",
            _vmf(finish=lambda logits: logits.softmax(-1).log()),
            "log(softmax(…)): where classes are sharp a probability underflows to 0 and its log is "
            "−∞. `log_softmax` does both in one.",
            "notebook 03, «From distance to probability»",
        ),
        Mistake(
            "not normalised",
            _vmf(finish=lambda logits: logits),
            "You returned κ cos plus the prior, the logits. The posterior is normalised over the "
            "classes.",
            COSINE,
        ),
    ],
    variants=[
        V("squared distance of unit vectors", _vmf_distance),
        V("einsum, lengths divided after", _vmf_einsum),
        V("torch's cosine_similarity", _vmf_similarity),
        V("numpy in float64", _vmf_numpy),
    ],
    hints=[
        "The density of class k at the unit vector ẑ is C(κ) exp(κ μ_kᵀẑ), with the same κ for all "
        "classes. What cancels, as in the Gaussian case?",
        "C(κ) is common to all classes. μ_kᵀẑ of two unit vectors is their cosine; the rest is "
        "Bayes' rule again.",
        "In words: normalise queries and directions over their features, multiply the two as "
        "matrices, times κ, plus log_prior if there is one, log_softmax over the last axis.",
    ],
    tolerance=Tolerance(rtol=1e-3, atol=1e-4),
    withhold=GIVEN_AWAY,
    difficulty=2,
    importance=4,
    minutes=10,
)

# ---------------------------------------------------------------------------- variance_from_scale


def variance_from_scale(scale: float, distance: str = "squared_euclidean") -> float:
    """Return the σ² that a scale α stands for: the library's."""
    return library.variance_from_scale(scale, distance)  # type: ignore[arg-type]


def _scales(distance: str) -> Callable[[Generator], Iterator[Case]]:
    def draw(g: Generator) -> Iterator[Case]:
        for scale in (0.25, 20.0, round(float(0.3 + 4 * torch.rand(1, generator=g)), 3)):
            yield Case(f"α = {scale:g}", (scale, distance))

    return draw


def _no_gaussian(g: Generator) -> Iterator[Case]:
    yield Case("un-squared distance", (3.0, "euclidean"))
    yield Case("sum of absolute differences", (3.0, "taxicab"))


def _default_scale(g: Generator) -> Iterator[Case]:
    yield Case("α = 1, the prototypical network", (1.0,))
    yield Case("α = 5", (5.0,))


def _two_ways(squared: Callable[[float], float], cosine: Callable[[float], float]) -> Any:
    def changed(scale: float, distance: str = "squared_euclidean") -> float:
        if distance not in ("squared_euclidean", "cosine"):
            raise ValueError(distance)
        return squared(scale) if distance == "squared_euclidean" else cosine(scale)

    return changed


def _any_distance(scale: float, distance: str = "squared_euclidean") -> float:
    return 1 / scale if distance == "cosine" else 1 / (2 * scale)


def _by_table(scale: float, distance: str = "squared_euclidean") -> float:
    twice = {"squared_euclidean": 2.0, "cosine": 1.0}
    if distance not in twice:
        raise ValueError(f"no Gaussian reading of {distance}")
    return 1 / (twice[distance] * scale)


def _by_match(scale: float, distance: str = "squared_euclidean") -> Any:
    match distance:
        case "squared_euclidean":
            return torch.tensor(0.5 / scale)
        case "cosine":
            return np.float64(scale) ** -1
        case _:
            raise ValueError("un-squared distance")


VARIANCE_FROM_SCALE = Answer(
    name="variance_from_scale",
    reference=variance_from_scale,
    section=SCALES,
    checks=[
        Check("α times squared distance", _scales("squared_euclidean")),
        Check("α times cosine", _scales("cosine"), pointer=COSINE),
        Check("α = 1 without saying more", _default_scale),
        Check("a distance that is no Gaussian's is refused", _no_gaussian, pointer=BREAKS),
    ],
    mistakes=[
        Mistake(
            "the ½ forgotten",
            _two_ways(lambda a: 1 / a, lambda a: 1 / a),
            "For the squared distance you have 1/α: the ½ of the exponent is forgotten. The "
            "prototypical network, α = 1, would have another variance than ½.",
            SCALES,
        ),
        Mistake(
            "the ½ for the cosine as well",
            _two_ways(lambda a: 0.5 / a, lambda a: 0.5 / a),
            "For the cosine there is no ½ left: ‖ẑ − μ‖² = 2 − 2cos brings a 2 of its own.",
            COSINE,
        ),
        Mistake(
            "the two exchanged",
            _two_ways(lambda a: 1 / a, lambda a: 0.5 / a),
            "Your two cases are exchanged: the ½ belongs to the squared distance.",
            SCALES,
        ),
        Mistake(
            "α taken for the temperature",
            _two_ways(lambda a: a / 2, lambda a: a),
            "Your variance grows with α. That is right for a temperature τ = 1/α; a scale sharpens "
            "the posterior, so the variance shrinks.",
            SCALES,
        ),
        Mistake(
            "doubled, not halved",
            _two_ways(lambda a: 2 / a, lambda a: 1 / a),
            "For the squared distance your 2 stands above; α = 1/(2σ²), solved for σ², has it "
            "below.",
            SCALES,
        ),
        Mistake(
            "σ for σ²",
            _two_ways(lambda a: math.sqrt(0.5 / a), lambda a: math.sqrt(1 / a)),
            "You returned σ, the standard deviation; asked is its square.",
            SCALES,
        ),
        Mistake(
            "any distance accepted",
            _any_distance,
            "You gave a variance for a distance that no Gaussian has: exp(−α‖z − c‖) belongs to "
            "another law. Refuse it with a ValueError.",
            BREAKS,
        ),
    ],
    variants=[
        V("a table of factors", _by_table),
        V("match, and other number types", _by_match),
        V("by the library's inverse", lambda s, d="squared_euclidean": _inverse(s, d)),
        V("one-element tensors", lambda s, d="squared_euclidean": torch.tensor(_by_table(s, d))),
    ],
    hints=[
        "Set α‖z − c‖² equal to the exponent of the Gaussian and solve for σ². Then the same for "
        "α cos, where ‖ẑ − μ‖² = 2 − 2cos.",
        "One of the two has a 2 in it, the other had two that cancel.",
        "In words: for squared_euclidean one over twice the scale, for cosine one over the scale, "
        "for anything else a ValueError.",
    ],
    withhold=GIVEN_AWAY,
    difficulty=1,
    importance=3,
    minutes=5,
)


def _inverse(scale: float, distance: str) -> float:
    return library.scale_from_variance(scale, distance)  # type: ignore[arg-type]


# ------------------------------------------------------------------------ support_size_correction


def support_size_correction(counts: Tensor, variance: float, dimension: int) -> Tensor:
    """Return σ² M / n_k: the library's."""
    return library.support_size_correction(counts, variance, dimension)


def _supports(g: Generator) -> Iterator[Case]:
    yield Case("1 and 20 shots, 64 features, σ² = 1", (torch.tensor([1, 20]), 1.0, 64))
    yield Case("1, 2 and 5 shots, σ² = 0.3", (torch.tensor([1, 2, 5]), 0.3, 7))
    counts = torch.randint(2, 30, (4,), generator=g)
    yield Case("4 classes, σ² = 2.5", (counts, 2.5, 3))


def _doubled(g: Generator) -> Iterator[Case]:
    counts = torch.randint(1, 9, (3,), generator=g)
    for name, factor, dimension in (
        ("as it is", 1, 8),
        ("twice the shots and the features", 2, 16),
    ):
        yield Case(name, (counts * factor, 0.7, dimension))


def _no_support(g: Generator) -> Iterator[Case]:
    yield Case("a class without support", (torch.tensor([3, 0, 5]), 1.0, 4))


def _corrected(
    function: Callable[[Tensor, float, int], Tensor],
) -> Callable[[Tensor, float, int], Tensor]:
    def changed(counts: Tensor, variance: float, dimension: int) -> Tensor:
        if bool((counts <= 0).any()):
            raise ValueError("no support")
        return function(counts, variance, dimension)

    return changed


SUPPORT_SIZE_CORRECTION = Answer(
    name="support_size_correction",
    reference=support_size_correction,
    section=SIZES,
    checks=[
        Check("what the mean of n_k examples adds", _supports, points=2),
        Check(
            "twice the shots make up for twice the features",
            _doubled,
            law=_all_equal,
            says="with twice the shots and twice the features your correction is another",
        ),
        Check("a class without support is refused", _no_support),
    ],
    mistakes=[
        Mistake(
            "one feature",
            _corrected(lambda n, v, m: v / n),
            "You counted one feature. The squared distance sums over all M of them, and each of "
            "them carries the noise of the mean.",
            SIZES,
        ),
        Mistake(
            "shots ignored",
            _corrected(lambda n, v, m: v * m * torch.ones(n.shape)),
            "This is the spread of one example around its centre, whatever the number of shots. "
            "The mean of n examples is n times steadier.",
            SIZES,
        ),
        Mistake(
            "root of the shots",
            _corrected(lambda n, v, m: v * m / n.sqrt()),
            "You divided by √n. That is how the *standard deviation* of a mean shrinks; its "
            "variance shrinks with n.",
            SIZES,
        ),
        Mistake(
            "σ for σ²",
            _corrected(lambda n, v, m: math.sqrt(v) * m / n),
            "You took the root of the variance; the expectation of a squared distance holds σ².",
            SIZES,
        ),
        Mistake(
            "n minus one",
            _corrected(lambda n, v, m: v * m / (n - 1)),
            "You divided by n − 1. That belongs to *estimating* σ²; here σ² is known and a mean of "
            "n examples has the variance σ²/n.",
            SIZES,
        ),
        Mistake(
            "shots multiply",
            _corrected(lambda n, v, m: v * m * n),
            "Your correction grows with the number of shots. More examples make the mean better, "
            "so there is less to correct.",
            SIZES,
        ),
        Mistake(
            "shots of all classes",
            _corrected(lambda n, v, m: v * m / n.sum() * torch.ones(n.shape)),
            "You divided by the shots of all classes together. Each prototype is the mean of its "
            "own n_k examples; a correction common to all classes would cancel.",
            SIZES,
        ),
        Mistake(
            "half of it",
            _corrected(lambda n, v, m: v * m / (2 * n)),
            "You put a ½ in front. This is what the squared distance gains; the ½ comes when it is "
            "divided by 2σ².",
            SIZES,
        ),
        Mistake(
            "infinite for no support",
            lambda n, v, m: v * m / n,
            "A class without support divides by 0. It has no prototype that could be corrected: "
            "refuse it with a ValueError.",
            "notebook 03, «Labels kept as global numbers»",
        ),
    ],
    variants=[
        V("trace of the mean's covariance", lambda n, v, m: _trace(n, v, m)),
        V("a loop", lambda n, v, m: _correction_loop(n, v, m)),
        V("numpy", lambda n, v, m: _correction_numpy(n, v, m)),
        V("reciprocal of the counts", _corrected(lambda n, v, m: n.float().reciprocal() * (m * v))),
    ],
    hints=[
        "ĉ_k = μ_k + noise, where the noise is a mean of n_k draws. Write ‖z − ĉ_k‖² as a square "
        "of a difference and take the expectation over the support.",
        "The mixed term vanishes, the noise has mean 0; what is left is the expected squared "
        "length of the noise: M features, each with the variance of a mean.",
        "In words: refuse counts of 0 or less; variance times dimension over counts.",
    ],
    withhold=GIVEN_AWAY,
    difficulty=2,
    importance=3,
    minutes=8,
)


def _trace(counts: Tensor, variance: float, dimension: int) -> Tensor:
    if int(counts.min()) < 1:
        raise ValueError("every class needs support")
    covariance = variance * torch.eye(dimension) / counts[:, None, None]
    return covariance.diagonal(dim1=-2, dim2=-1).sum(-1)


def _correction_loop(counts: Tensor, variance: float, dimension: int) -> list[float]:
    found = []
    for n in counts.tolist():
        if n < 1:
            raise ValueError("every class needs support")
        found.append(sum(variance / n for _ in range(dimension)))
    return found


def _correction_numpy(counts: Tensor, variance: float, dimension: int) -> Any:
    if (counts.numpy() < 1).any():
        raise ValueError("every class needs support")
    return np.full(len(counts), variance * dimension) / counts.numpy()


# -------------------------------------------------------------------------- quadratic_log_posterior


def quadratic_log_posterior(
    queries: Tensor, prototypes: Tensor, variances: Tensor, priors: Tensor
) -> Tensor:
    """Return the log posterior of classes with variances of their own: the library's."""
    return library.gaussian_log_posterior(queries, prototypes, variances, priors.log())


def _spreads(g: Generator, q: int, k: int, m: int, *leading: int) -> tuple[Tensor, ...]:
    variances = 0.4 + 2 * torch.rand(k, generator=g)
    variances[0] = 3.5
    return (*_pairs(g, q, k, m, *leading), variances, _log_prior(g, k).exp())


def _quadratic(g: Generator) -> Iterator[Case]:
    yield Case("5 queries, 3 classes", _spreads(g, 5, 3, 4))
    yield Case("3 queries, 2 classes", _spreads(g, 3, 2, 2))


def _far_quadratic(g: Generator) -> Iterator[Case]:
    queries, *rest = _spreads(g, 4, 3, 3)
    yield Case("queries far from every class", (queries + 30, *rest))


def _same_place(g: Generator) -> Iterator[Case]:
    """Two classes with one centre: only spread and prior tell them apart."""
    centre = torch.randn(1, 2, generator=g)
    yield Case(
        "two classes with one centre, the query on it",
        (centre, centre.expand(2, 2).clone(), torch.tensor([1.0, 4.0]), torch.tensor([0.5, 0.5])),
    )


def _quadratic_but(
    volume: Callable[[Tensor, int], Tensor | float] = lambda v, m: m / 2 * v.log(),
    prior: Callable[[Tensor], Tensor] = torch.log,
    finish: Callable[[Tensor], Tensor] = lambda logits: logits.log_softmax(-1),
    spread: Callable[[Tensor], Tensor] = lambda v: v,
) -> Callable[..., Tensor]:
    """Make the repaired function with some of the faults left in, or with a new one."""

    def changed(queries: Tensor, prototypes: Tensor, variances: Tensor, priors: Tensor) -> Tensor:
        exponent = squared_euclidean(queries, prototypes) / (2 * spread(variances))
        return finish(prior(priors) - exponent - volume(variances, queries.shape[-1]))

    return changed


def _none(v: Tensor, m: int) -> float:
    return 0.0


def _as_it_is(p: Tensor) -> Tensor:
    return p


def _log_of_softmax(logits: Tensor) -> Tensor:
    return logits.softmax(-1).log()


def _quadratic_normal(q: Tensor, p: Tensor, variances: Tensor, priors: Tensor) -> Tensor:
    normal = torch.distributions.Normal(p[..., None, :, :], variances.sqrt()[:, None])
    joint = normal.log_prob(q[..., :, None, :]).sum(-1) + priors.log()
    return joint - joint.logsumexp(-1, keepdim=True)


def _quadratic_covariance(q: Tensor, p: Tensor, variances: Tensor, priors: Tensor) -> Tensor:
    covariance = variances[:, None, None] * torch.eye(q.shape[-1])
    return library.gaussian_log_posterior(q, p, None, priors.log(), covariance)


def _quadratic_numpy(q: Tensor, p: Tensor, variances: Tensor, priors: Tensor) -> Any:
    difference = q.double().numpy()[..., :, None, :] - p.double().numpy()[..., None, :, :]
    spread = variances.double().numpy()
    joint = np.log(priors.double().numpy()) - q.shape[-1] / 2 * np.log(2 * np.pi * spread)
    joint = joint - (difference**2).sum(-1) / spread / 2
    top = joint.max(-1, keepdims=True)
    return joint - top - np.log(np.exp(joint - top).sum(-1, keepdims=True))


QUADRATIC_LOG_POSTERIOR = Answer(
    name="quadratic_log_posterior",
    reference=quadratic_log_posterior,
    section=BREAKS,
    kind="repair",
    checks=[
        Check("each class with its own variance", _quadratic, points=2),
        Check("two classes in one place: the wider is the less likely", _same_place),
        Check(
            "finite however far the query",
            _far_quadratic,
            pointer="notebook 03, «From distance to probability»",
        ),
        Check(
            "several episodes at once",
            lambda g: iter([Case("2 episodes", _spreads(g, 5, 3, 4, 2))]),
            pointer=EPISODES,
        ),
    ],
    mistakes=[
        Mistake(
            "as it was found",
            _quadratic_but(_none, _as_it_is, _log_of_softmax),
            "This still does what the function you found does. Look at the three terms of a log "
            "joint one by one, and at what happens far away.",
            BREAKS,
        ),
        Mistake(
            "the prior alone repaired",
            _quadratic_but(_none, finish=_log_of_softmax),
            "The prior is right now; two faults are left. Does the *height* of a Gaussian depend "
            "on its width? And try a query far from all classes.",
            BREAKS,
        ),
        Mistake(
            "the volume alone repaired",
            _quadratic_but(prior=_as_it_is, finish=_log_of_softmax),
            "The normaliser is back; two faults are left. In which form is the prior given, and "
            "what is −∞ doing in the result far from all classes?",
            BREAKS,
        ),
        Mistake(
            "the underflow alone repaired",
            _quadratic_but(_none, _as_it_is),
            "Far queries are finite now; two faults are left, both in the log joint: a term that "
            "differs between the classes is missing, another is not a logarithm.",
            BREAKS,
        ),
        Mistake(
            "volume forgotten",
            _quadratic_but(_none),
            "One fault is left: −(M/2) log σ_k². It cancelled while all classes had one variance; "
            "now it has an index k and stays.",
            BREAKS,
        ),
        Mistake(
            "prior not in logs",
            _quadratic_but(prior=_as_it_is),
            "One fault is left: `priors` are probabilities, and you add them to a log density as "
            "they are.",
            PRIORS,
        ),
        Mistake(
            "log after softmax",
            _quadratic_but(finish=_log_of_softmax),
            "One fault is left: log(softmax(…)) is −∞ where a probability underflows, and its "
            "gradient NaN.",
            "notebook 03, «From distance to probability»",
        ),
        Mistake(
            "σ² for log σ²",
            _quadratic_but(lambda v, m: m / 2 * v),
            "Your volume term holds σ_k² where its logarithm belongs: the log density is lowered "
            "by (M/2) log σ_k².",
            BREAKS,
        ),
        Mistake(
            "volume of one feature",
            _quadratic_but(lambda v, m: v.log() / 2),
            "Your log normaliser is that of one feature; the determinant of σ_k²I is σ_k² to the "
            "power M.",
            BREAKS,
        ),
        Mistake(
            "volume twice",
            _quadratic_but(lambda v, m: m * v.log()),
            "Your volume term is twice too large: the density divides by the *root* of the "
            "determinant.",
            BREAKS,
        ),
        Mistake(
            "volume with the wrong sign",
            _quadratic_but(lambda v, m: -m / 2 * v.log()),
            "Your volume term favours wide classes. A wide Gaussian spreads the same mass over "
            "more room, so that it is lower at its centre.",
            BREAKS,
        ),
        Mistake(
            "one variance for all",
            _quadratic_but(lambda v, m: m / 2 * v.mean().log(), spread=lambda v: v.mean()),
            "You made one variance of all. That gives a linear boundary back, but these classes "
            "have spreads of their own.",
            BREAKS,
        ),
    ],
    variants=[
        V("normal laws of torch.distributions", _quadratic_normal),
        V("full covariances", _quadratic_covariance),
        V("numpy in float64", _quadratic_numpy),
        V("log-sum-exp", _quadratic_but(finish=lambda x: x - x.logsumexp(-1, keepdim=True))),
    ],
    hints=[
        "Compare it term by term with your log_joint. Which of the terms that cancelled there have "
        "an index k now?",
        "Try the witness above: two classes in one place. Then look at what is given: variances "
        "and *priors*; and at the order of log and softmax.",
        "In words: log of the priors, minus squared distances over twice the variances, minus half "
        "of M times the log of the variances; log_softmax over the last axis.",
    ],
    tolerance=Tolerance(rtol=1e-3, atol=1e-3),
    withhold=GIVEN_AWAY,
    difficulty=3,
    importance=4,
    minutes=10,
)

# ------------------------------------------------------------------------------------------ prose

THEOREM_LIMITS = Prose(
    name="theorem_limits",
    points=3,
    rubric=[
        "states the equality with its conditions: squared distance, one shared isotropic variance, "
        "equal priors, one Gaussian a class, prototypes taken as known",
        "says that it is a statement about embeddings given the class, and not a density on images",
        "says why: the encoder is trained to tell classes apart; nothing makes its embeddings "
        "Gaussian, and the posterior alone does not fix the densities",
        "names one condition that segmentation breaks (the background is several things, classes "
        "of very different frequency, supports of different size) and what it does",
    ],
    model=(
        "If the embeddings of class k are distributed as N(c_k, σ²I), with the same σ² for all, "
        "equal priors and known centres, then the posterior of the class is the softmax of "
        "−‖z − c_k‖²/(2σ²); at σ² = ½ that is the prototypical network. It is a statement about z "
        "given the class, after the encoder. It gives no density of images, and it does not say "
        "that embeddings *are* Gaussian: training maximises the posterior, and everything common "
        "to all classes cancels from it, so quite different densities have the same posterior. A "
        "far away query gets a sure answer, though it is unlikely under every class. In "
        "segmentation the conditions fail: the background is many things and no single Gaussian; "
        "with 3 % foreground equal priors leave out log-odds of about 3.5; and a prototype of few "
        "pixels looks further away than it is. What remains true is the algebra: a linear "
        "classifier in the embedding."
    ),
    minutes=10,
)

EXERCISE = Exercise(
    number=4,
    name="mixture",
    title="The Gaussian-mixture reading",
    answers=[
        LOG_JOINT,
        CANCELLED,
        POSTERIOR,
        LINEAR_FORM,
        MEAN_DIRECTION,
        VMF_LOG_POSTERIOR,
        VARIANCE_FROM_SCALE,
        SUPPORT_SIZE_CORRECTION,
        QUADRATIC_LOG_POSTERIOR,
    ],
    prose=[THEOREM_LIMITS],
)
