"""Exercise 09: the note's self-test (note §6), its key formulas (§5.3) and the claim ledger."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fewshot_lib import mixture
from fewshot_lib import prototypes as library
from fewshot_lib.checker import pictures
from fewshot_lib.checker.spec import Case, Tolerance
from fewshot_lib.checker.specification import answer, exercise
from fewshot_lib.exercises.mixture import _log_prior, _pairs
from fewshot_lib.exercises.segmentation import _blocks, compute_prototypes

GIVEN_AWAY = ["heads", "mixture", "networks", "prototypes"]
#: For differences of squared distances of hundreds, in single precision.
ROUGH = Tolerance(rtol=5e-3, atol=5e-4)

# ----------------------------------------------------------------------------------- key_formulas


def _formulas(
    support: Tensor, labels: Tensor, queries: Tensor, n_way: int
) -> tuple[Tensor, Tensor, Tensor]:
    prototypes = library.class_prototypes(support, labels, n_way)
    distances = library.squared_euclidean(queries, prototypes)
    return prototypes, distances, library.log_posterior(queries, prototypes).exp()


@answer(reference=_formulas, strip=GIVEN_AWAY)
def key_formulas(support, labels, queries, n_way):
    """Compute the three cards: c_k, d = ‖z − c_k‖² and p = softmax_k(−d).

    Arguments:
        support: (N, D) float, embeddings.
        labels: (N,) int64 in 0 … n_way−1, in any order; every class has at
            least one.
        queries: (Q, D) float, embeddings.
        n_way: number of classes.

    Returns:
        prototypes: (n_way, D), the mean of each class.
        distances: (Q, n_way), squared Euclidean.
        probabilities: (Q, n_way), rows sum to one, however far a query is.
    """
    ### BEGIN SOLUTION: class means, squared distances, softmax of minus those
    inside = F.one_hot(labels, n_way).to(support.dtype)  # (N, n_way)
    prototypes = (inside.T @ support) / inside.sum(dim=0)[:, None]
    distances = (queries[:, None] - prototypes).square().sum(dim=-1)
    return prototypes, distances, (-distances).softmax(dim=-1)
    ### END SOLUTION


def _task(g: Generator, shots: Sequence[int], q: int, d: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """Draw a support of so many shots per class, mixed, and q queries."""
    labels = torch.tensor([k for k, n in enumerate(shots) for _ in range(n)])
    labels = labels[torch.randperm(len(labels), generator=g)]
    centres = 1.5 * torch.randn(len(shots), d, generator=g)
    support = centres[labels] + 0.4 * torch.randn(len(labels), d, generator=g)
    return support, labels, torch.randn(q, d, generator=g), len(shots)


@key_formulas.check("mean, squared distance, softmax of its negative", points=2)
def _equal_shots(g: Generator) -> Iterator[Case]:
    yield Case("3 classes of 4 shots", _task(g, (4, 4, 4), 5, 2))
    yield Case("one shot, 4 queries, 4 classes", _task(g, (1, 1, 1, 1), 4, 3))


@key_formulas.check("each class by its own number of shots")
def _unequal_shots(g: Generator) -> Iterator[Case]:
    yield Case("classes of 1, 2 and 5 shots", _task(g, (1, 2, 5), 4, 3))


def _grows_by_the_square(cases: Sequence[Case], results: Sequence[Any]) -> bool:
    (_, once, _), (_, twice, _) = results
    return np.allclose(4 * np.asarray(once), np.asarray(twice), rtol=1e-3, atol=1e-4)


@key_formulas.check(
    "twice as far is four times the distance",
    law=_grows_by_the_square,
    says="with all vectors twice as long your distances are not four times as large",
)
def _doubled(g: Generator) -> Iterator[Case]:
    support, labels, queries, n_way = _task(g, (2, 3), 4, 3)
    yield Case("as it is", (support, labels, queries, n_way))
    yield Case("all vectors twice as long", (2 * support, labels, 2 * queries, n_way))


@key_formulas.check("a far query still has probabilities")
def _far(g: Generator) -> Iterator[Case]:
    support, labels, queries, n_way = _task(g, (3, 2), 4, 3)
    far = 20 * F.normalize(queries, dim=-1)  # squared distances of hundreds: exp(−d) is 0
    yield Case("queries twenty units away", (support, labels, far, n_way), tolerance=ROUGH)


# ---------------------------------------------------------------------------------- mixture_proof


def _in_three_lines(
    queries: Tensor, prototypes: Tensor, variance: float = 0.5, log_prior: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    if log_prior is None:
        log_prior = torch.full(prototypes.shape[:1], -math.log(len(prototypes)))
    joint = mixture.gaussian_log_density(queries, prototypes, variance) + log_prior
    origin = torch.zeros_like(prototypes[:1])  # ‖z‖² is the squared distance to it
    common = mixture.gaussian_log_density(queries, origin, variance)[:, 0]
    posterior = mixture.gaussian_log_posterior(queries, prototypes, variance, log_prior)
    return joint, common, posterior.exp()


@answer(reference=_in_three_lines, strip=GIVEN_AWAY)
def mixture_proof(queries, prototypes, variance=0.5, log_prior=None):
    """Write the proof in three lines: joint, common part, posterior.

    Arguments:
        queries: (Q, M) float, z.
        prototypes: (K, M) float, c_k.
        variance: σ², of every class in every direction; ½ gives the note's
            softmax.
        log_prior: (K,) float, log π_k; None: all classes equally probable.

    Returns:
        joint: (Q, K), log π_k + log N(z; c_k, σ²I), with its normaliser.
        common: (Q,), everything in the joint that is the same for all classes
            of this model: no c_k and no π_k stands in it.
        posterior: (Q, K), rows sum to one, however far a query is.
    """
    ### BEGIN SOLUTION: the log joint, what has no k in it, the softmax
    n_classes, n_features = prototypes.shape
    if log_prior is None:
        log_prior = torch.full((n_classes,), -math.log(n_classes))
    squared = (queries[:, None] - prototypes).square().sum(dim=-1)  # (Q, K)
    normaliser = n_features / 2 * math.log(2 * math.pi * variance)
    joint = log_prior - squared / (2 * variance) - normaliser
    common = -queries.square().sum(dim=-1) / (2 * variance) - normaliser
    return joint, common, joint.softmax(dim=-1)
    ### END SOLUTION


@mixture_proof.check("log π + log N, what all classes share, the posterior", points=2)
def _general(g: Generator) -> Iterator[Case]:
    yield Case("σ² = 1.7, unequal priors", (*_pairs(g, 5, 3, 4), 1.7, _log_prior(g, 3)))
    yield Case("σ² = 0.3, unequal priors", (*_pairs(g, 3, 4, 3), 0.3, _log_prior(g, 4)))


@mixture_proof.check("σ² = ½ and equal priors: the prototypical softmax", points=2)
def _half(g: Generator) -> Iterator[Case]:
    yield Case("neither variance nor priors given", _pairs(g, 4, 3, 3))
    yield Case("2 classes, 2 queries", _pairs(g, 2, 2, 5))


def _rest_is_linear(cases: Sequence[Case], results: Sequence[Any]) -> bool:
    joint, shared = (np.asarray(part, dtype=np.float64) for part in results[0][:2])
    rest = joint - shared[:, None]
    return np.allclose(rest[1], (rest[0] + rest[2]) / 2, rtol=1e-3, atol=1e-3)


@mixture_proof.check(
    "without the common part, what is left is linear in z",
    law=_rest_is_linear,
    says="joint − common at the query half-way is not half-way between the two others: what is "
    "left still bends with z, so that something common to all classes is in it",
)
def _on_a_line(g: Generator) -> Iterator[Case]:
    (start, end), prototypes = _pairs(g, 2, 3, 4)
    queries = torch.stack([start, (start + end) / 2, end])
    yield Case("two queries and the one half-way", (queries, prototypes, 0.8, _log_prior(g, 3)))


@mixture_proof.check("far queries still have a posterior")
def _far_queries(g: Generator) -> Iterator[Case]:
    queries, prototypes = _pairs(g, 3, 3, 3)
    far = 20 * F.normalize(queries, dim=-1)
    arguments = (far, prototypes, 0.5, _log_prior(g, 3))
    yield Case("queries twenty units away", arguments, tolerance=ROUGH)


# ---------------------------------------------------------------------------------------- segment

EMPTY = "notebook 05b, «A class that nobody showed»"


@answer(
    picture=lambda case, expected, got: pictures.matrix(case, expected[0, 0], got[0, 0]),
    strip=GIVEN_AWAY,
)
def segment(features, masks, queries, scale=20.0):
    """Segment queries by the support's prototypes.

    p_k(x) = softmax_k(α · cos(q, c_k) upsampled)

    Arguments:
        features: (S, D, H', W') float, of the support images.
        masks: (S, K, H, W) bool, or float weights in 0 … 1.
        queries: (Q, D, H', W') float, features of the query images.
        scale: α, multiplies the cosine.

    Returns:
        (Q, K, H, W), sums to one over K; 0 for a class without support.

    Raises:
        ValueError: no class has any support.
    """
    ### BEGIN SOLUTION: pool, refuse, compare, upsample, leave out, softmax
    prototypes, valid = compute_prototypes(features, masks)
    if not valid.any():
        raise ValueError("all support masks are empty: label a pixel")
    directions = F.normalize(prototypes, dim=-1)
    shown = F.normalize(queries, dim=1)
    cosine = torch.einsum("qdhw,kd->qkhw", shown, directions)
    large = F.interpolate(cosine, size=masks.shape[-2:], mode="bilinear")
    logits = (scale * large).masked_fill(~valid[:, None, None], -math.inf)
    return logits.softmax(dim=1)
    ### END SOLUTION


def _scene(g: Generator, s: int, k: int, d: int, q: int, size: tuple[int, int], by: int = 1) -> Any:
    features = torch.randn(s, d, *size, generator=g)
    masks = _blocks(g, s, k, size[0] * by, size[1] * by)
    return features, masks, 2 * torch.randn(q, d, *size, generator=g)


@segment.check("probabilities from scaled cosines with one prototype per class", points=2)
def _same_size(g: Generator) -> Iterator[Case]:
    yield Case("2 shots, 3 classes, 4 queries", _scene(g, 2, 3, 4, 4, (5, 6)))
    yield Case("3 queries and 3 classes", _scene(g, 1, 3, 5, 3, (4, 6)))


@segment.check("upsampled to the masks, then the softmax", points=2)
def _at_a_stride(g: Generator) -> Iterator[Case]:
    yield Case("stride 4", _scene(g, 2, 2, 3, 2, (4, 4), by=4))
    features, masks, queries = _scene(g, 2, 3, 4, 1, (3, 5), by=2)
    yield Case("stride 2, masks of True and False", (features, masks.bool(), queries))


@segment.check("scale multiplies the cosine")
def _other_scales(g: Generator) -> Iterator[Case]:
    for scale in (1.0, 5.0):
        yield Case(f"scale {scale:g}", _scene(g, 1, 3, 4, 2, (4, 4)), {"scale": scale})


def _follows(cases: Sequence[Case], results: Sequence[Any]) -> bool:
    before, after = (np.asarray(result, dtype=np.float64) for result in results)
    return np.allclose(np.roll(before, (2, 3), axis=(-2, -1)), after, rtol=1e-3, atol=1e-4)


@segment.check(
    "a query that moves takes its answer along",
    law=_follows,
    says="the queries moved by 2 rows and 3 columns, and your probabilities did not move with "
    "them: something binds the answer to the place",
    pointer="notebook 05, «Why: a proposition of four lines»",
)
def _moving(g: Generator) -> Iterator[Case]:
    features, masks, queries = _scene(g, 1, 3, 4, 2, (5, 6))
    yield Case("as it is", (features, masks, queries))
    yield Case("queries moved by 2 and 3", (features, masks, queries.roll((2, 3), dims=(-2, -1))))


@segment.check("a class that the support does not show has probability 0", pointer=EMPTY)
def _one_absent(g: Generator) -> Iterator[Case]:
    features, masks, queries = _scene(g, 2, 3, 4, 2, (4, 4), by=2)
    masks[:, 1] = 0
    yield Case("class 1 is nowhere in the support", (features, masks, queries))


@segment.check("a support without any pixel is refused", pointer=EMPTY)
def _all_absent(g: Generator) -> Iterator[Case]:
    features, masks, queries = _scene(g, 1, 2, 3, 1, (4, 4))
    yield Case("empty masks", (features, torch.zeros_like(masks), queries))


# ---------------------------------------------------------------------------------- ledger_status

INTERVALS = "notebook 01, «Bootstrap intervals»"


@answer()
def ledger_status(low, high, sourced):
    """Decide a statement's status from the intervals of its trials.

    Arguments:
        low: (T,) float, lower ends of the intervals; T may be 0.
        high: (T,) float, upper ends.
        sourced: whether the statement names a source that can be looked up.

    Returns:
        one of the five statuses in the table, as a text.
    """
    ### BEGIN SOLUTION: no trials, all hold, some hold, some refuted, undecided
    held, refuted = low > 0, high < 0
    if len(held) == 0:
        return "cannot be tested here" if sourced else "no source"
    if held.all():
        return "reproduced"
    if held.any():
        return "holds under conditions"
    return "corrected" if refuted.any() else "cannot be tested here"
    ### END SOLUTION


def _claim(g: Generator, what: str, sourced: bool = True) -> Case:
    """Draw an interval per letter: h(eld), r(efuted), undecided and leaning up or down (U, D)."""
    words = {"h": "above 0", "r": "below 0", "U": "across 0", "D": "across 0"}
    name = ", ".join(words[letter] for letter in what)
    centre, half = [], []
    for letter in what:
        wide = 0.05 + 0.1 * float(torch.rand((), generator=g))
        off = float(torch.rand((), generator=g))
        at = {"h": wide + 0.02 + 0.3 * off, "r": -wide - 0.02 - 0.3 * off}
        at |= {"U": wide * (0.2 + 0.6 * off), "D": -wide * (0.2 + 0.6 * off)}
        centre.append(at[letter])
        half.append(wide)
    low, high = (torch.tensor(centre) + sign * torch.tensor(half) for sign in (-1, 1))
    return Case(f"intervals: {name}{'' if sourced else '; no source'}", (low, high, sourced))


@ledger_status.check("borne out by every trial, or refuted")
def _clear(g: Generator) -> Iterator[Case]:
    yield _claim(g, "hhh")
    yield _claim(g, "h", sourced=False)
    yield _claim(g, "rr")
    yield _claim(g, "r", sourced=False)


@ledger_status.check("now borne out, now refuted")
def _mixed(g: Generator) -> Iterator[Case]:
    yield _claim(g, "hhr")
    yield _claim(g, "rrh", sourced=False)
    yield _claim(g, "hr")


@ledger_status.check("an interval across 0 decides nothing", pointer=INTERVALS)
def _undecided(g: Generator) -> Iterator[Case]:
    yield _claim(g, "UU")
    yield _claim(g, "D", sourced=False)
    yield _claim(g, "UD")


@ledger_status.check("some trials decide and others do not")
def _partly(g: Generator) -> Iterator[Case]:
    yield _claim(g, "hhU")
    yield _claim(g, "hD", sourced=False)
    yield _claim(g, "rU")
    yield _claim(g, "rDD")


@ledger_status.check("no trials: then the source counts")
def _no_trials(g: Generator) -> Iterator[Case]:
    nothing = torch.zeros(0)
    yield Case("no trials, a source", (nothing, nothing, True))
    yield Case("no trials, no source", (nothing, nothing, False))


@ledger_status.check("0 itself is not above 0", pointer=INTERVALS)
def _touching(g: Generator) -> Iterator[Case]:
    wide = 0.1 + torch.rand(1, generator=g)
    yield Case("an interval that begins at 0", (torch.zeros(1), wide, True))
    yield Case("an interval that ends at 0", (-wide, torch.zeros(1), True))


EXERCISE = exercise(__name__)
