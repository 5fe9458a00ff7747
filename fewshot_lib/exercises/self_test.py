"""Exercise 09: the note's self-test (note §6), its key formulas (§5.3) and the claim ledger."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fewshot_lib import mixture, networks
from fewshot_lib import prototypes as library
from fewshot_lib.checker import pictures
from fewshot_lib.exercises import segmentation
from fewshot_lib.checker.spec import Answer, Case, Check, Exercise, Mistake, Prose, Tolerance
from fewshot_lib.checker.spec import Variant as V

#: For differences of squared distances of hundreds, in single precision.
ROUGH = Tolerance(rtol=5e-3, atol=5e-4)

# ----------------------------------------------------------------------------------- key_formulas


def key_formulas(
    support: Tensor, labels: Tensor, queries: Tensor, n_way: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the three formulas of §5.3: prototypes, squared distances, probabilities."""
    prototypes = library.class_prototypes(support, labels, n_way)
    distances = library.squared_euclidean(queries, prototypes)
    return prototypes, distances, (-distances).softmax(dim=-1)


def _task(
    g: Generator, shots: Sequence[int], q: int, d: int, spread: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Draw a support of so many shots a class, mixed, and q queries."""
    labels = torch.tensor([k for k, n in enumerate(shots) for _ in range(n)])
    labels = labels[torch.randperm(len(labels), generator=g)]
    centres = 1.5 * torch.randn(len(shots), d, generator=g)
    support = centres[labels] + 0.4 * torch.randn(len(labels), d, generator=g)
    return support, labels, spread * torch.randn(q, d, generator=g), len(shots)


def _equal_shots(g: Generator) -> Iterator[Case]:
    yield Case("3 classes of 4 shots", _task(g, (4, 4, 4), 5, 2))
    yield Case("one shot, 4 queries, 4 classes", _task(g, (1, 1, 1, 1), 4, 3))


def _unequal_shots(g: Generator) -> Iterator[Case]:
    yield Case("classes of 1, 2 and 5 shots", _task(g, (1, 2, 5), 4, 3))


def _far(g: Generator) -> Iterator[Case]:
    support, labels, queries, n_way = _task(g, (3, 2), 4, 3)
    far = 20 * F.normalize(queries, dim=-1)  # squared distances of hundreds: exp(−d) is 0
    yield Case("queries twenty units away", (support, labels, far, n_way), tolerance=ROUGH)


def _doubled(g: Generator) -> Iterator[Case]:
    support, labels, queries, n_way = _task(g, (2, 3), 4, 3)
    yield Case("as it is", (support, labels, queries, n_way))
    yield Case("all vectors twice as long", (2 * support, labels, 2 * queries, n_way))


def _grows_by_the_square(cases: Sequence[Case], results: Sequence[Any]) -> bool:
    (_, once, _), (_, twice, _) = results
    return np.allclose(4 * np.asarray(once), np.asarray(twice), rtol=1e-3, atol=1e-4)


def _cards(
    mean: Callable[[Tensor, Tensor, int], Tensor] = library.class_prototypes,
    distance: Callable[[Tensor, Tensor], Tensor] = library.squared_euclidean,
    probability: Callable[[Tensor], Tensor] = lambda d: (-d).softmax(dim=-1),
) -> Callable[..., Any]:
    """Make the three formulas with one of them changed."""

    def changed(support: Tensor, labels: Tensor, queries: Tensor, n_way: int) -> Any:
        prototypes = mean(support, labels, n_way)
        distances = distance(queries, prototypes)
        return prototypes, distances, probability(distances)

    return changed


def _sums(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return F.one_hot(labels, n_way).to(support.dtype).mT @ support


def _root(queries: Tensor, prototypes: Tensor) -> Tensor:
    return library.squared_euclidean(queries, prototypes).sqrt()


def _naive(distances: Tensor) -> Tensor:
    weights = torch.exp(-distances)
    return weights / weights.sum(dim=-1, keepdim=True)


def _cards_loop(support: Tensor, labels: Tensor, queries: Tensor, n_way: int) -> Any:
    means = [support[labels == k].mean(dim=0) for k in range(n_way)]
    rows = [[float(((z - c) ** 2).sum()) for c in means] for z in queries]
    chances = []
    for row in rows:
        weights = [math.exp(min(row) - d) for d in row]
        chances.append([w / sum(weights) for w in weights])
    return torch.stack(means), rows, chances


def _cards_linear(support: Tensor, labels: Tensor, queries: Tensor, n_way: int) -> Any:
    inside = (labels == torch.arange(n_way)[:, None]).double()
    means = (inside / inside.sum(-1, keepdim=True)) @ support.double()
    lengths = queries.double().square().sum(-1, keepdim=True)
    logits = 2 * queries.double() @ means.T - means.square().sum(-1)
    return means, lengths - logits, torch.softmax(logits, dim=-1)


def _cards_numpy(support: Tensor, labels: Tensor, queries: Tensor, n_way: int) -> Any:
    x, y, z = support.double().numpy(), labels.numpy(), queries.double().numpy()
    means = np.array([x[y == k].mean(0) for k in range(n_way)])
    distances = ((z[:, None] - means) ** 2).sum(-1)
    weights = np.exp(distances.min(-1, keepdims=True) - distances)
    return means, distances, weights / weights.sum(-1, keepdims=True)


def _cards_einsum(support: Tensor, labels: Tensor, queries: Tensor, n_way: int) -> Any:
    sums = torch.zeros(n_way, support.shape[-1], dtype=support.dtype).index_add_(0, labels, support)
    means = sums / torch.bincount(labels, minlength=n_way)[:, None]
    apart = queries[:, None] - means
    distances = torch.einsum("qkd,qkd->qk", apart, apart)
    return means, distances, torch.log_softmax(-distances, dim=-1).exp()


# the text of mutants that nobody can tell from the solution, and why
GIVEN_AWAY = ["heads", "mixture", "networks", "prototypes"]
_APART = "(queries[:, None] - prototypes).square().sum(dim=-1)"
_TURNED = "(prototypes - queries[:, None]).square().sum(dim=-1)"
SQUARE = "the square of a difference does not depend on which is subtracted from which"
TWO_AXES = "there are two axes, so that axis 1 is the last"

FORMULAS = "note §5.3; notebook 03, «Six examples, by hand» and «From distance to probability»"

KEY_FORMULAS = Answer(
    name="key_formulas",
    reference=key_formulas,
    section=FORMULAS,
    returns=("prototypes", "distances", "probabilities"),
    checks=[
        Check("mean, squared distance, softmax of its negative", _equal_shots, points=2),
        Check("each class by its own number of shots", _unequal_shots),
        Check(
            "twice as far is four times the distance",
            _doubled,
            law=_grows_by_the_square,
            says="with all vectors twice as long your distances are not four times as large",
        ),
        Check("a far query still has probabilities", _far, pointer=FORMULAS),
    ],
    mistakes=[
        Mistake(
            "distance not squared",
            _cards(distance=_root),
            "Your distance is the Euclidean, as in the note's §2.2; its table in §5.3 squares it. "
            "The nearest prototype stays the nearest, but the probabilities are no Gaussian's.",
            FORMULAS,
        ),
        Mistake(
            "squared, then rooted for the softmax",
            _cards(probability=lambda d: (-d.sqrt()).softmax(dim=-1)),
            "Your distances are squared, but the softmax got their roots: two models in one "
            "function. Card 2 uses the d of card 3.",
            FORMULAS,
        ),
        Mistake(
            "sum, not mean",
            _cards(mean=_sums),
            "Your prototypes are sums. Card 1 divides by |S_k|, the number of the class's shots.",
            FORMULAS,
        ),
        Mistake(
            "divided by all shots",
            _cards(mean=lambda x, y, n: _sums(x, y, n) / len(y)),
            "You divided by the size of the whole support; |S_k| counts the shots of class k.",
            FORMULAS,
        ),
        Mistake(
            "plus the distance",
            _cards(probability=lambda d: d.softmax(dim=-1)),
            "The minus sign is lost: your most probable class is the farthest.",
            FORMULAS,
        ),
        Mistake(
            "∝ taken for =",
            _cards(probability=lambda d: torch.exp(-d)),
            "You wrote exp(−d). The card says ∝, proportional: it becomes a probability when each "
            "row is divided by its sum.",
            FORMULAS,
        ),
        Mistake(
            "log probabilities",
            _cards(probability=lambda d: (-d).log_softmax(dim=-1)),
            "You returned the logarithms of the probabilities. The loss wants these, the card does "
            "not.",
            FORMULAS,
        ),
        Mistake(
            "mean over the features",
            _cards(
                distance=lambda z, c: library.squared_euclidean(z, c) / z.shape[-1],
            ),
            "You averaged the squared differences over the features. ‖a − b‖² sums them; divided "
            "by D the softmax grows flatter with every feature that is added.",
            FORMULAS,
        ),
        Mistake(
            "softmax over the queries",
            _cards(probability=lambda d: (-d).softmax(dim=0)),
            "Your columns sum to one: the softmax went over the queries. Each query shares its one "
            "probability among the classes.",
            FORMULAS,
        ),
        Mistake(
            "half the distance",
            _cards(probability=lambda d: (-d / 2).softmax(dim=-1)),
            "You halved the distance before the softmax. That is the Gaussian of variance 1; the "
            "card has d itself, which is variance ½.",
            "note §5.3; notebook 04, «Scale, concentration, variance»",
        ),
        Mistake(
            "0 divided by 0",
            _cards(probability=_naive),
            "Far from all prototypes every exp(−d) is rounded to 0, and you divide 0 by 0. Only "
            "differences of distances count: take off the smallest first, as `softmax` does.",
            FORMULAS,
        ),
        Mistake(
            "cosine",
            _cards(
                distance=lambda z, c: F.normalize(z, dim=-1) @ F.normalize(c, dim=-1).T,
            ),
            "Your second part is a cosine, as in the note's code. That is a similarity, large for "
            "what is alike; the card has a squared distance.",
            FORMULAS,
        ),
        Mistake(
            "one minus cosine",
            _cards(
                distance=lambda z, c: 1 - F.normalize(z, dim=-1) @ F.normalize(c, dim=-1).T,
            ),
            "Your distance is 1 − cos. It does not see how long a vector is; ‖a − b‖² does.",
            FORMULAS,
        ),
    ],
    variants=[
        V("loops and lists", _cards_loop),
        V("the linear form", _cards_linear),
        V("numpy", _cards_numpy),
        V("index_add and einsum", _cards_einsum),
    ],
    hints=[
        "Three cards, three lines. Which of them did you write in exercise 03?",
        "One-hot labels, transposed, times the support are the sums of the classes. A query axis "
        "beside a class axis gives all differences at once. A softmax is safe where exp is not.",
        "In words: sums divided by the column sums of the one-hot labels; the difference of "
        "`queries[:, None]` and the prototypes, squared and summed over the last axis; softmax of "
        "minus that over the classes.",
    ],
    equivalent={
        "return (prototypes, distances, (-distances).softmax(dim=-1)) → "
        "return (prototypes, distances, (-distances).softmax(dim=1))": TWO_AXES,
        f"distances = {_APART} → distances = {_TURNED}": SQUARE,
    },
    withhold=GIVEN_AWAY,
    difficulty=1,
    importance=5,
    minutes=10,
)

# ---------------------------------------------------------------------------------- mixture_proof


def mixture_proof(
    queries: Tensor, prototypes: Tensor, variance: float = 0.5, log_prior: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Write the proof of question 2 in three lines: log joint, common part, posterior."""
    if log_prior is None:
        log_prior = torch.full(prototypes.shape[:1], -math.log(len(prototypes)))
    joint = mixture.gaussian_log_density(queries, prototypes, variance) + log_prior
    return joint, _shared(queries, variance), joint.softmax(dim=-1)


def _shared(queries: Tensor, variance: float) -> Tensor:
    volume = queries.shape[-1] / 2 * math.log(2 * math.pi * variance)
    return -queries.square().sum(-1) / (2 * variance) - volume


def _points(g: Generator, q: int, k: int, m: int) -> tuple[Tensor, Tensor]:
    return torch.randn(q, m, generator=g), torch.randn(k, m, generator=g)


def _priors(g: Generator, k: int) -> Tensor:
    return (1.2 * torch.randn(k, generator=g)).log_softmax(-1)


def _general(g: Generator) -> Iterator[Case]:
    yield Case("σ² = 1.7, unequal priors", (*_points(g, 5, 3, 4), 1.7, _priors(g, 3)))
    yield Case("σ² = 0.3, unequal priors", (*_points(g, 3, 4, 3), 0.3, _priors(g, 4)))


def _half(g: Generator) -> Iterator[Case]:
    yield Case("neither variance nor priors given", _points(g, 4, 3, 3))
    yield Case("2 classes, 2 queries", _points(g, 2, 2, 5))


def _on_a_line(g: Generator) -> Iterator[Case]:
    (start, end), prototypes = _points(g, 2, 3, 4)
    queries = torch.stack([start, (start + end) / 2, end])
    yield Case("two queries and the one half-way", (queries, prototypes, 0.8, _priors(g, 3)))


def _rest_is_linear(cases: Sequence[Case], results: Sequence[Any]) -> bool:
    joint, shared = (np.asarray(part, dtype=np.float64) for part in results[0][:2])
    rest = joint - shared[:, None]
    return np.allclose(rest[1], (rest[0] + rest[2]) / 2, rtol=1e-3, atol=1e-3)


def _far_queries(g: Generator) -> Iterator[Case]:
    queries, prototypes = _points(g, 3, 3, 3)
    far = 20 * F.normalize(queries, dim=-1)
    arguments = (far, prototypes, 0.5, _priors(g, 3))
    yield Case("queries twenty units away", arguments, tolerance=ROUGH)


def _proof(
    joint: Callable[..., Tensor] = lambda z, c, v, lp: mixture_proof(z, c, v, lp)[0],
    shared: Callable[..., Tensor] = lambda z, v, joint: _shared(z, v),
    posterior: Callable[..., Tensor] = lambda joint, lp: joint.softmax(dim=-1),
) -> Callable[..., Any]:
    """Make the proof with one of its lines changed."""

    def changed(
        queries: Tensor, prototypes: Tensor, variance: float = 0.5, log_prior: Any = None
    ) -> Any:
        if log_prior is None:
            log_prior = torch.full(prototypes.shape[:1], -math.log(len(prototypes)))
        first = joint(queries, prototypes, variance, log_prior)
        return first, shared(queries, variance, first), posterior(first, log_prior)

    return changed


def _gaussian(
    z: Tensor,
    c: Tensor,
    v: float,
    lp: Tensor,
    half: float = 2.0,
    m: int = 0,
    root: bool = False,
    volume: float | None = None,
) -> Tensor:
    distance = library.squared_euclidean(z, c)
    log_volume = math.log(2 * math.pi * v) if volume is None else volume
    exponent = (distance.sqrt() if root else distance) / (half * v)
    return lp - exponent - (m or z.shape[-1]) / 2 * log_volume


def _one_for_each(z: Tensor, c: Tensor, variance: float = 0.5, log_prior: Any = None) -> Any:
    log_prior = torch.zeros(len(c)) if log_prior is None else log_prior
    return mixture_proof(z, c, variance, log_prior)


def _proof_normal(z: Tensor, c: Tensor, variance: float = 0.5, log_prior: Any = None) -> Any:
    prior = torch.full((len(c),), 1 / len(c)).log() if log_prior is None else log_prior
    normal = torch.distributions.Normal(c.double(), math.sqrt(variance))
    joint = normal.log_prob(z.double()[:, None]).sum(-1) + prior
    origin = torch.distributions.Normal(0.0, math.sqrt(variance))  # ‖z‖² is the distance to 0
    return joint, origin.log_prob(z.double()).sum(-1), torch.softmax(joint, -1)


def _proof_linear(z: Tensor, c: Tensor, variance: float = 0.5, log_prior: Any = None) -> Any:
    prior = -math.log(len(c)) if log_prior is None else log_prior
    rest = z @ c.T / variance - c.square().sum(-1) / (2 * variance) + prior
    common = -(z.square().sum(-1) / variance + z.shape[1] * math.log(2 * math.pi * variance)) / 2
    return rest + common[:, None], common, rest.softmax(-1)


def _proof_loop(z: Tensor, c: Tensor, variance: float = 0.5, log_prior: Any = None) -> Any:
    prior = [-math.log(len(c))] * len(c) if log_prior is None else log_prior.tolist()
    normaliser = z.shape[1] * 0.5 * math.log(2 * math.pi * variance)
    joint = [
        [
            prior[k] - sum((a - b) ** 2 for a, b in zip(q, p, strict=True)) / (2 * variance)
            for k, p in enumerate(c.tolist())
        ]
        for q in z.tolist()
    ]
    posterior = [[1 / sum(math.exp(other - one) for other in row) for one in row] for row in joint]
    common = [-sum(a * a for a in q) / (2 * variance) - normaliser for q in z.tolist()]
    return [[one - normaliser for one in row] for row in joint], common, posterior


def _proof_numpy(z: Tensor, c: Tensor, variance: float = 0.5, log_prior: Any = None) -> Any:
    a, b = z.double().numpy(), c.double().numpy()
    prior = np.log(np.ones(len(b)) / len(b)) if log_prior is None else log_prior.numpy()
    normaliser = a.shape[1] * np.log(2 * np.pi * variance) / 2
    joint = prior - ((a[:, None] - b) ** 2).sum(-1) / (2 * variance) - normaliser
    weights = np.exp(joint - joint.max(-1, keepdims=True))
    common = -(a**2).sum(-1) / (2 * variance) - normaliser
    return joint, common, weights / weights.sum(-1, keepdims=True)


STEPS = "exercise 04, sections 1 to 3; notebook 04, «From the mixture to the softmax»"

MIXTURE_PROOF = Answer(
    name="mixture_proof",
    reference=mixture_proof,
    section=STEPS,
    kind="derive",
    returns=("joint", "common", "posterior"),
    checks=[
        Check("log π + log N, what all classes share, the posterior", _general, points=2),
        Check("σ² = ½ and equal priors: the prototypical softmax", _half, points=2),
        Check(
            "without the common part, what is left is linear in z",
            _on_a_line,
            law=_rest_is_linear,
            says="joint − common at the query half-way is not half-way between the two others: "
            "what is left still bends with z, so that something common to all classes is in it",
        ),
        Check("far queries still have a posterior", _far_queries, pointer=STEPS),
    ],
    mistakes=[
        Mistake(
            "the ½ forgotten",
            _proof(joint=lambda z, c, v, lp: _gaussian(z, c, v, lp, half=1.0)),
            "The exponent of a Gaussian is the squared distance over twice the variance. With "
            "the ½ lost, the theorem would need σ² = 1.",
            STEPS,
        ),
        Mistake(
            "σ for σ²",
            _proof(joint=lambda z, c, v, lp: mixture_proof(z, c, math.sqrt(v), lp)[0]),
            "You took the root of `variance` in the joint. It is σ² already.",
            STEPS,
        ),
        Mistake(
            "distance not squared",
            _proof(joint=lambda z, c, v, lp: _gaussian(z, c, v, lp, root=True)),
            "You used the distance where its square belongs. This is the step at which the note's "
            "«Euclidean» fails: exp(−‖z − c‖) is not a Gaussian.",
            STEPS,
        ),
        Mistake(
            "normaliser of one dimension",
            _proof(joint=lambda z, c, v, lp: _gaussian(z, c, v, lp, m=1)),
            "Your joint has the normaliser of one dimension. z has M features, so its logarithm "
            "appears M times.",
            STEPS,
        ),
        Mistake(
            "σ² for log σ²",
            _proof(
                joint=lambda z, c, v, lp: _gaussian(z, c, v, lp, volume=math.log(2 * math.pi) + v),
                shared=lambda z, v, joint: (
                    -z.square().sum(-1) / (2 * v) - z.shape[-1] / 2 * (math.log(2 * math.pi) + v)
                ),
            ),
            "Your log normaliser adds σ² itself to log 2π. The logarithm of a product is the sum "
            "of the logarithms: log 2π + log σ².",
            STEPS,
        ),
        Mistake(
            "prior forgotten",
            _proof(joint=lambda z, c, v, lp: mixture_proof(z, c, v, lp)[0] - lp),
            "Your joint is the log density alone. Bayes' rule asks how frequent the class is, too: "
            "its log prior is added.",
            STEPS,
        ),
        Mistake(
            "prior not in logs",
            _proof(joint=lambda z, c, v, lp: mixture_proof(z, c, v, lp)[0] - lp + lp.exp()),
            "You added the prior itself to a logarithm; `log_prior` is log π_k already.",
            STEPS,
        ),
        Mistake(
            "equal priors of one each",
            _one_for_each,
            "Without priors you added 0, a prior of 1 for every class. Equal priors are 1/K each; "
            "the posterior does not notice, the joint does.",
            STEPS,
        ),
        Mistake(
            "‖z‖² left in",
            _proof(shared=lambda z, v, joint: _shared(z, v) + z.square().sum(-1) / (2 * v)),
            "Your common part has the normaliser only. Multiply ‖z − c‖² out: −‖z‖²/(2σ²) is the "
            "same for all classes, too, and only without it the rest is linear.",
            STEPS,
        ),
        Mistake(
            "normaliser left in",
            _proof(shared=lambda z, v, joint: -z.square().sum(-1) / (2 * v)),
            "Your common part has ‖z‖² but not the normaliser. All classes have the same variance, "
            "so that −(M/2) log 2πσ² cancels as well.",
            STEPS,
        ),
        Mistake(
            "the evidence for the common part",
            _proof(shared=lambda z, v, joint: joint.logsumexp(dim=-1)),
            "You subtracted log p(z), the logarithm of the summed joints. That gives the log "
            "posterior at once, but it depends on the prototypes; asked are the terms in which no "
            "c_k and no π_k stands.",
            STEPS,
        ),
        Mistake(
            "common part with its sign turned",
            _proof(shared=lambda z, v, joint: -_shared(z, v)),
            "Your common part has the wrong sign: both its terms are negative in the log joint, "
            "and joint − common must lose them.",
            STEPS,
        ),
        Mistake(
            "the posterior's logarithm",
            _proof(posterior=lambda joint, lp: joint.log_softmax(dim=-1)),
            "Your third line is the log posterior; asked is the posterior, whose rows sum to one.",
            STEPS,
        ),
        Mistake(
            "not normalised",
            _proof(posterior=lambda joint, lp: joint.exp()),
            "Your third line is the joint density. The posterior is it divided by its sum over the "
            "classes.",
            STEPS,
        ),
        Mistake(
            "0 divided by 0",
            _proof(posterior=lambda joint, lp: joint.exp() / joint.exp().sum(-1, keepdim=True)),
            "Far from all centres every density is rounded to 0, and you divide 0 by 0. Take the "
            "softmax of the logarithms: what is common cancels before exp sees it.",
            STEPS,
        ),
        Mistake(
            "posterior over the queries",
            _proof(posterior=lambda joint, lp: joint.softmax(dim=0)),
            "You normalised over the queries. The posterior shares the probability of one query "
            "among the classes.",
            STEPS,
        ),
        Mistake(
            "prior twice",
            _proof(posterior=lambda joint, lp: (joint + lp).softmax(dim=-1)),
            "The prior enters your posterior twice: it is in the joint already.",
            STEPS,
        ),
    ],
    variants=[
        V("torch.distributions", _proof_normal),
        V("the linear form first", _proof_linear),
        V("loops", _proof_loop),
        V("numpy", _proof_numpy),
    ],
    hints=[
        "Write log π_k + log N(z; c_k, σ²I) on paper and multiply the square out. In which terms "
        "does no k stand?",
        "The joint is minus the squared distance over 2σ², minus M/2 · log 2πσ², plus the log "
        "prior. Common to all classes are −‖z‖²/(2σ²) and the normaliser. What is common to all "
        "classes does not change a softmax.",
        "In words: squared distances by broadcasting; normaliser = M / 2 times the log of 2πσ²; "
        "joint = log prior − squared / (2σ²) − normaliser; common = −‖z‖² / (2σ²) − normaliser; "
        "posterior = softmax of the joint over the classes.",
    ],
    equivalent={
        "return (joint, common, joint.softmax(dim=-1)) → "
        "return (joint, common, joint.softmax(dim=1))": TWO_AXES,
        f"squared = {_APART} → squared = {_TURNED}": SQUARE,
        "common = -queries.square().sum(dim=-1) / (2 * variance) - normaliser → "
        "common = -queries.square().sum(dim=1) / (2 * variance) - normaliser": TWO_AXES,
    },
    withhold=GIVEN_AWAY,
    difficulty=3,
    importance=4,
    minutes=15,
)

# ----------------------------------------------------------------------- compute_prototypes, again

COMPUTE_PROTOTYPES = dataclasses.replace(
    segmentation.COMPUTE_PROTOTYPES, minutes=10, difficulty=2, importance=5
)

# ---------------------------------------------------------------------------------------- segment


def segment(features: Tensor, masks: Tensor, queries: Tensor, scale: float = 20.0) -> Tensor:
    """Give class probabilities (Q, K, H, W) of the queries from a labelled support."""
    prototypes, valid = library.masked_prototypes(features, masks)
    if not valid.any():
        raise ValueError("no class has a single pixel in the support masks")
    logits = _upsampled(_alike(queries, prototypes), masks)
    return _probabilities(scale * logits, valid)


def _alike(queries: Tensor, prototypes: Tensor) -> Tensor:
    directions = F.normalize(prototypes, dim=-1)
    return torch.einsum("qdhw,kd->qkhw", F.normalize(queries, dim=1), directions)


def _upsampled(maps: Tensor, masks: Tensor, mode: str = "bilinear", corners: bool = False) -> Any:
    how: dict[str, Any] = {"align_corners": corners} if mode == "bilinear" else {}
    return F.interpolate(maps, size=masks.shape[-2:], mode=mode, **how)


def _probabilities(logits: Tensor, valid: Tensor) -> Tensor:
    return logits.masked_fill(~valid[:, None, None], -math.inf).softmax(dim=1)


def _scene(g: Generator, s: int, k: int, d: int, q: int, size: tuple[int, int], by: int = 1) -> Any:
    features = torch.randn(s, d, *size, generator=g)
    masks = segmentation._blocks(g, s, k, size[0] * by, size[1] * by)
    return features, masks, 2 * torch.randn(q, d, *size, generator=g)


def _same_size(g: Generator) -> Iterator[Case]:
    yield Case("2 shots, 3 classes, 4 queries", _scene(g, 2, 3, 4, 4, (5, 6)))
    yield Case("3 queries and 3 classes", _scene(g, 1, 3, 5, 3, (4, 6)))


def _at_a_stride(g: Generator) -> Iterator[Case]:
    yield Case("stride 4", _scene(g, 2, 2, 3, 2, (4, 4), by=4))
    features, masks, queries = _scene(g, 2, 3, 4, 1, (3, 5), by=2)
    yield Case("stride 2, masks of True and False", (features, masks.bool(), queries))


def _other_scales(g: Generator) -> Iterator[Case]:
    for scale in (1.0, 5.0):
        yield Case(f"scale {scale:g}", _scene(g, 1, 3, 4, 2, (4, 4)), {"scale": scale})


def _one_absent(g: Generator) -> Iterator[Case]:
    features, masks, queries = _scene(g, 2, 3, 4, 2, (4, 4), by=2)
    masks[:, 1] = 0
    yield Case("class 1 is nowhere in the support", (features, masks, queries))


def _all_absent(g: Generator) -> Iterator[Case]:
    features, masks, queries = _scene(g, 1, 2, 3, 1, (4, 4))
    yield Case("empty masks", (features, torch.zeros_like(masks), queries))


def _moving(g: Generator) -> Iterator[Case]:
    features, masks, queries = _scene(g, 1, 3, 4, 2, (5, 6))
    yield Case("as it is", (features, masks, queries))
    yield Case("queries moved by 2 and 3", (features, masks, queries.roll((2, 3), dims=(-2, -1))))


def _follows(cases: Sequence[Case], results: Sequence[Any]) -> bool:
    before, after = (np.asarray(result, dtype=np.float64) for result in results)
    return np.allclose(np.roll(before, (2, 3), axis=(-2, -1)), after, rtol=1e-3, atol=1e-4)


def _segment(
    pool: Callable[[Tensor, Tensor], Any] = library.masked_prototypes,
    alike: Callable[[Tensor, Tensor], Tensor] = _alike,
    finish: Callable[..., Any] | None = None,
    refuse: bool = True,
) -> Callable[..., Any]:
    """Make a segmenter with one step changed."""

    def changed(features: Tensor, masks: Tensor, queries: Tensor, scale: float = 20.0) -> Any:
        prototypes, valid = pool(features, masks)
        if refuse and not valid.any():
            raise ValueError("no class has a pixel")
        similarity = alike(queries, prototypes)
        if finish is not None:
            return finish(similarity, masks, valid, scale)
        return _probabilities(scale * _upsampled(similarity, masks), valid)

    return changed


def _note_maps(features: Tensor, masks: Tensor, queries: Tensor, scale: float = 20.0) -> Any:
    """Compare each place with itself, as the note's network does, but for many queries."""
    maps = networks._position_prototypes(features, masks)
    valid = masks.flatten(-2).any(-1).any(0)
    if not valid.any():
        raise ValueError("no class has a pixel")
    similarity = torch.einsum(
        "qdhw,kdhw->qkhw", F.normalize(queries, dim=1), F.normalize(maps, dim=1)
    )
    return _probabilities(scale * _upsampled(similarity, masks), valid)


def _shrunk_masks(features: Tensor, masks: Tensor) -> Any:
    small = F.interpolate(masks.float(), size=features.shape[-2:], mode="nearest")
    return library.masked_prototypes(features, small)


def _minus_distance(queries: Tensor, prototypes: Tensor) -> Tensor:
    return -(queries[:, None] - prototypes[:, :, None, None]).square().sum(2)


def _queries_upsampled(
    features: Tensor, masks: Tensor, queries: Tensor, scale: float = 20.0
) -> Tensor:
    prototypes, valid = library.masked_prototypes(features, masks)
    if not valid.any():
        raise ValueError("no class has a pixel")
    return _probabilities(scale * _alike(_upsampled(queries, masks), prototypes), valid)


def _first_query(features: Tensor, masks: Tensor, queries: Tensor, scale: float = 20.0) -> Any:
    return segment(features, masks, queries[:1].expand_as(queries), scale)


def _segment_loop(features: Tensor, masks: Tensor, queries: Tensor, scale: float = 20.0) -> Any:
    prototypes, valid = segmentation._pool_by_loop(features, masks)
    known = [k for k, there in enumerate(valid.tolist()) if there]
    if not known:
        raise ValueError("nothing to learn from")
    found = torch.zeros(len(queries), masks.shape[1], *masks.shape[-2:], dtype=features.dtype)
    for q, query in enumerate(queries):
        maps = [F.cosine_similarity(query, prototypes[k][:, None, None], dim=0) for k in known]
        large = _upsampled(torch.stack(maps)[None], masks)[0]
        found[q, known] = (scale * large).softmax(0)
    return found


def _segment_by_hand(features: Tensor, masks: Tensor, queries: Tensor, scale: float = 20.0) -> Any:
    prototypes, valid = segmentation._pool_by_matmul(features, masks)
    if len(valid.nonzero()) == 0:
        raise ValueError("no pixels at all")
    similarity = torch.tensordot(
        F.normalize(queries, dim=1), F.normalize(prototypes, dim=1).T, [[1], [0]]
    )
    large = _upsampled(similarity.movedim(-1, 1), masks)
    weights = torch.exp(scale * (large - 1)) * valid[:, None, None]  # cos − 1 ≤ 0: no overflow
    return weights / weights.sum(1, keepdim=True)


def _segment_network(features: Tensor, masks: Tensor, queries: Tensor, scale: float = 20.0) -> Any:
    prototypes, valid = library.masked_prototypes(features, masks)
    if not bool(valid.any()):
        raise ValueError("no class")
    logits = segmentation.match_features(queries, prototypes, valid, scale)
    safe = torch.where(valid[:, None, None], logits, 0.0)
    return torch.where(valid[:, None, None], _upsampled(safe, masks), -1e9).softmax(1)


def _segment_numpy(features: Tensor, masks: Tensor, queries: Tensor, scale: float = 20.0) -> Any:
    prototypes, valid = segmentation._pool_numpy(features, masks)
    if not valid.any():
        raise ValueError("no class")
    similarity = segmentation._match_numpy(
        queries, torch.tensor(prototypes), torch.tensor(valid), 1.0
    )
    kept = torch.tensor(similarity[:, valid])
    large = _upsampled(kept, masks).numpy() * scale
    weights = np.exp(large - large.max(1, keepdims=True))
    found = np.zeros((len(queries), len(valid), *masks.shape[-2:]))
    found[:, valid] = weights / weights.sum(1, keepdims=True)
    return found


COPYING = "notebook 05, «Why: a proposition of four lines»"
TEMPERATURE = "notebook 05, «The missing factor before the cosine»"
EMPTY = "notebook 05, «A class that nobody showed»"
SMALL = "notebook 05, «Small organs lost on the way»"
WHOLE = (
    "notebook 05, «What a prototype should be: masked average pooling» and «The missing factor "
    "before the cosine»"
)

_DIRECTIONS = "directions = F.normalize(prototypes"  # how lines of the solution begin
_COSINE = "cosine = torch.einsum('qdhw,kd->qkhw', F.normalize(queries"

SEGMENT = Answer(
    name="segment",
    reference=segment,
    section=WHOLE,
    checks=[
        Check(
            "probabilities from scaled cosines with one prototype a class",
            _same_size,
            2,
            pointer=WHOLE,
        ),
        Check("upsampled to the masks, then the softmax", _at_a_stride, points=2, pointer=WHOLE),
        Check("scale multiplies the cosine", _other_scales, pointer=WHOLE),
        Check(
            "a query that moves takes its answer along",
            _moving,
            law=_follows,
            says="the queries moved by 2 rows and 3 columns, and your probabilities did not move "
            "with them: something binds the answer to the place",
            pointer=COPYING,
        ),
        Check(
            "a class that the support does not show has probability 0", _one_absent, pointer=EMPTY
        ),
        Check("a support without any pixel is refused", _all_absent, pointer=EMPTY),
    ],
    mistakes=[
        Mistake(
            "one prototype a position",
            _note_maps,
            "You compare each place of the query with the same place of the support, as the note "
            "does: that copies the support mask. Pool over the positions, too.",
            COPYING,
        ),
        Mistake(
            "no scale",
            lambda f, m, q, scale=20.0: segment(f, m, q, 1.0),
            "`scale` does not enter: a softmax of bare cosines is nearly flat, however good the "
            "features.",
            TEMPERATURE,
        ),
        Mistake(
            "divided by the scale",
            lambda f, m, q, scale=20.0: segment(f, m, q, 1 / scale),
            "You divided by `scale`. A temperature would divide; α multiplies.",
            TEMPERATURE,
        ),
        Mistake(
            "raw similarities",
            _segment(
                finish=lambda s, m, valid, scale: (scale * _upsampled(s, m)).masked_fill(
                    ~valid[:, None, None], -math.inf
                )
            ),
            "You returned the scaled similarities, as the note returns its own. Probabilities need "
            "a softmax over the classes.",
            WHOLE,
        ),
        Mistake(
            "softmax over the queries",
            _segment(
                finish=lambda s, m, valid, scale: (
                    (scale * _upsampled(s, m)).softmax(0) * valid[:, None, None]
                )
            ),
            "Your softmax went over the queries, so that they compete with each other. It goes "
            "over the classes, axis 1.",
            WHOLE,
        ),
        Mistake(
            "softmax before upsampling",
            _segment(
                finish=lambda s, m, valid, scale: _upsampled(_probabilities(scale * s, valid), m)
            ),
            "You took the softmax at the features' size and upsampled probabilities. Upsample the "
            "similarities first, as the note does: the border then lies where two of them cross.",
            WHOLE,
        ),
        Mistake(
            "queries upsampled before the cosine",
            _queries_upsampled,
            "You upsampled the query features and took the cosine then. Between two positions the "
            "cosine of a mixed feature is not the mixture of the cosines; compare at the features' "
            "size and upsample the similarities.",
            WHOLE,
        ),
        Mistake(
            "queries standardised",
            lambda f, m, q, scale=20.0: segment(f, m, segmentation._standardised(q), scale),
            "You standardised each query's features over its positions before the cosine. The "
            "prototypes come from features as they are, so the two no longer fit each other.",
            WHOLE,
        ),
        Mistake(
            "upsampled by nearest",
            _segment(
                finish=lambda s, m, valid, scale: _probabilities(
                    scale * _upsampled(s, m, "nearest"), valid
                )
            ),
            "Your similarities were brought up by `nearest`, in blocks. Asked is bilinear.",
            WHOLE,
        ),
        Mistake(
            "corners aligned",
            _segment(
                finish=lambda s, m, valid, scale: _probabilities(
                    scale * _upsampled(s, m, corners=True), valid
                )
            ),
            "With `align_corners=True` the maps are stretched to the corners and no longer lie "
            "over their own pixels; the note has False.",
            WHOLE,
        ),
        Mistake(
            "zero prototype takes part",
            _segment(finish=lambda s, m, valid, scale: (scale * _upsampled(s, m)).softmax(1)),
            "A class without support pixels takes part with its placeholder of zeros: cosine 0, "
            "which beats every negative one. Its logit is −∞.",
            EMPTY,
        ),
        Mistake(
            "absent class zeroed after the softmax",
            _segment(
                finish=lambda s, m, valid, scale: (
                    (scale * _upsampled(s, m)).softmax(1) * valid[:, None, None]
                )
            ),
            "You set the absent class to 0 after the softmax, so that the others no longer sum to "
            "one. Take it out before, by a logit of −∞.",
            EMPTY,
        ),
        Mistake(
            "−∞ before upsampling",
            _segment(
                finish=lambda s, m, valid, scale: _upsampled(
                    (scale * s).masked_fill(~valid[:, None, None], -math.inf), m
                ).softmax(1)
            ),
            "The −∞ of the absent class went through the interpolation, where 0 times −∞ is NaN. "
            "Upsample finite numbers, then fill.",
            EMPTY,
        ),
        Mistake(
            "masks shrunk by nearest",
            _segment(pool=_shrunk_masks),
            "The masks were shrunk to the features by `nearest`, as in the note: pixels between "
            "the sampled ones are lost, and small organs with them. Bring the features up.",
            SMALL,
        ),
        Mistake(
            "inner product",
            _segment(alike=lambda q, p: torch.einsum("qdhw,kd->qkhw", q, p)),
            "Neither side is normalised: an inner product favours long prototypes.",
            WHOLE,
        ),
        Mistake(
            "prototypes not normalised",
            _segment(alike=lambda q, p: torch.einsum("qdhw,kd->qkhw", F.normalize(q, dim=1), p)),
            "You normalised the queries but not the prototypes: a class with a long prototype wins "
            "by its length.",
            WHOLE,
        ),
        Mistake(
            "squared distance",
            _segment(alike=_minus_distance),
            "You compared by minus the squared distance. That works too, but needs no scale of 20; "
            "this function is asked for the cosine, as in the note's code.",
            WHOLE,
        ),
        Mistake(
            "the farthest class",
            _segment(alike=lambda q, p: 1 - _alike(q, p)),
            "You gave the softmax 1 − cos, a distance: the least alike class wins.",
            WHOLE,
        ),
        Mistake(
            "labels",
            _segment(
                finish=lambda s, m, valid, scale: _probabilities(
                    scale * _upsampled(s, m), valid
                ).argmax(1)
            ),
            "You returned the label of each pixel. Asked are the probabilities of all classes; a "
            "label throws away how sure the answer was.",
            WHOLE,
        ),
        Mistake(
            "first query for all",
            _first_query,
            "Every query got the first one's answer.",
            WHOLE,
        ),
        Mistake(
            "empty support not refused",
            _segment(refuse=False),
            "With no pixel in any mask your answer is NaN everywhere, in silence. Raise a "
            "ValueError: without an example this method ends.",
            EMPTY,
        ),
    ],
    variants=[
        V("loops over queries and classes", _segment_loop),
        V("tensordot and exp", _segment_by_hand),
        V("parts of exercise 05", _segment_network),
        V("numpy", _segment_numpy),
    ],
    hints=[
        "You have all the parts: `compute_prototypes` above, `match_features` and `predict` of "
        "exercise 05. Which of the three needs the flag, and where?",
        "Refuse if no class is valid. Normalise queries over D and prototypes over D, one einsum "
        "gives (Q, K, H′, W′). Bring that to the masks' size before −∞ enters: interpolating "
        "with −∞ spoils its neighbours.",
        "In words: prototypes and flag; ValueError if no flag is set; einsum of the normalised; "
        "interpolate bilinearly; times scale; masked_fill where not valid with −∞; softmax over "
        "axis 1.",
    ],
    equivalent={
        f"{_DIRECTIONS}, dim=-1) → {_DIRECTIONS})": TWO_AXES + ", which is normalize's default",
        f"{_DIRECTIONS}, dim=-1) → {_DIRECTIONS}, dim=1)": TWO_AXES,
        f"{_COSINE}, dim=1), directions) → {_COSINE}), directions)": (
            "normalize's default is axis 1"
        ),
        "large = F.interpolate(cosine, size=masks.shape[-2:], mode='bilinear') → "
        "large = F.interpolate(cosine, size=masks.shape[2:], mode='bilinear')": (
            "masks have four axes here, so that the third is the last but one"
        ),
    },
    picture=lambda case, expected, got: pictures.matrix(case, expected[0, 0], got[0, 0]),
    withhold=GIVEN_AWAY,
    difficulty=3,
    importance=5,
    minutes=15,
)

# ---------------------------------------------------------------------------------- ledger_status

REPRODUCED, CORRECTED, CONDITIONS = "reproduced", "corrected", "holds under conditions"
UNTESTED, UNSOURCED = "cannot be tested here", "no source"


def ledger_status(low: Tensor, high: Tensor, sourced: bool) -> str:
    """Decide a claim's status from the intervals of its trials."""
    held, refuted = low > 0, high < 0
    if len(held) == 0:
        return UNTESTED if sourced else UNSOURCED
    if held.all():
        return REPRODUCED
    if held.any():
        return CONDITIONS
    return CORRECTED if refuted.any() else UNTESTED


def _trials(g: Generator, what: str) -> tuple[Tensor, Tensor]:
    """Draw an interval a letter: h(eld), r(efuted), u(ndecided), leaning up or down (U, D)."""
    centre, half = [], []
    for letter in what:
        wide = 0.05 + 0.1 * float(torch.rand((), generator=g))
        off = float(torch.rand((), generator=g))
        at = {"h": wide + 0.02 + 0.3 * off, "r": -wide - 0.02 - 0.3 * off}
        at |= {"U": wide * (0.2 + 0.6 * off), "D": -wide * (0.2 + 0.6 * off)}
        centre.append(at[letter])
        half.append(wide)
    middle, wide_ = torch.tensor(centre), torch.tensor(half)
    return middle - wide_, middle + wide_


def _claim(g: Generator, what: str, sourced: bool = True) -> Case:
    words = {"h": "above 0", "r": "below 0", "U": "across 0", "D": "across 0"}
    name = ", ".join(words[letter] for letter in what)
    low, high = _trials(g, what)
    return Case(f"intervals: {name}{'' if sourced else '; no source'}", (low, high, sourced))


def _clear(g: Generator) -> Iterator[Case]:
    yield _claim(g, "hhh")
    yield _claim(g, "h", sourced=False)
    yield _claim(g, "rr")
    yield _claim(g, "r", sourced=False)


def _mixed(g: Generator) -> Iterator[Case]:
    yield _claim(g, "hhr")
    yield _claim(g, "rrh", sourced=False)
    yield _claim(g, "hr")


def _undecided(g: Generator) -> Iterator[Case]:
    yield _claim(g, "UU")
    yield _claim(g, "D", sourced=False)
    yield _claim(g, "UD")


def _partly(g: Generator) -> Iterator[Case]:
    yield _claim(g, "hhU")
    yield _claim(g, "hD", sourced=False)
    yield _claim(g, "rU")
    yield _claim(g, "rDD")


def _no_trials(g: Generator) -> Iterator[Case]:
    for sourced in (True, False):
        yield Case(
            f"no trials, {'a' if sourced else 'no'} source",
            (torch.zeros(0), torch.zeros(0), sourced),
        )


def _touching(g: Generator) -> Iterator[Case]:
    wide = 0.1 + torch.rand(1, generator=g)
    yield Case("an interval that begins at 0", (torch.zeros(1), wide, True))
    yield Case("an interval that ends at 0", (-wide, torch.zeros(1), True))


def _by_estimate(low: Tensor, high: Tensor, sourced: bool) -> str:
    middle = (low + high) / 2
    return ledger_status(middle, middle, sourced)


def _by_majority(low: Tensor, high: Tensor, sourced: bool) -> str:
    held, refuted = int((low > 0).sum()), int((high < 0).sum())
    if held and refuted:
        return REPRODUCED if held > refuted else CORRECTED
    return ledger_status(low, high, sourced)


def _on_average(low: Tensor, high: Tensor, sourced: bool) -> str:
    if len(low) == 0:
        return ledger_status(low, high, sourced)
    return ledger_status(low.mean()[None], high.mean()[None], sourced)


def _one_is_enough(low: Tensor, high: Tensor, sourced: bool) -> str:
    return REPRODUCED if (low > 0).any() else ledger_status(low, high, sourced)


def _one_refutes(low: Tensor, high: Tensor, sourced: bool) -> str:
    return CORRECTED if (high < 0).any() else ledger_status(low, high, sourced)


def _vacuous(low: Tensor, high: Tensor, sourced: bool) -> str:
    return REPRODUCED if (low > 0).all() else ledger_status(low, high, sourced)


def _not_held_is_refuted(low: Tensor, high: Tensor, sourced: bool) -> str:
    if len(low) and not (low > 0).any():
        return CORRECTED
    return ledger_status(low, high, sourced)


def _source_first(low: Tensor, high: Tensor, sourced: bool) -> str:
    return ledger_status(low, high, sourced) if sourced else UNSOURCED


def _undecided_dropped(low: Tensor, high: Tensor, sourced: bool) -> str:
    kept = (low > 0) | (high < 0)
    return (
        ledger_status(low[kept], high[kept], True)
        if kept.any()
        else ledger_status(low, high, sourced)
    )


def _ends_count(low: Tensor, high: Tensor, sourced: bool) -> str:
    held, refuted = low >= 0, high <= 0
    return ledger_status(held.float() - 0.5, 0.5 - refuted.float(), sourced)


def _all_must_refute(low: Tensor, high: Tensor, sourced: bool) -> str:
    found = ledger_status(low, high, sourced)
    return UNTESTED if found == CORRECTED and not (high < 0).all() else found


def _status_loop(low: Tensor, high: Tensor, sourced: bool) -> str:
    seen = {"held": 0, "refuted": 0, "open": 0}
    for a, b in zip(low.tolist(), high.tolist(), strict=True):
        seen["held" if a > 0 else "refuted" if b < 0 else "open"] += 1
    if not any(seen.values()):
        return {True: UNTESTED, False: UNSOURCED}[bool(sourced)]
    if seen["held"]:
        return CONDITIONS if seen["refuted"] or seen["open"] else REPRODUCED
    return CORRECTED if seen["refuted"] else UNTESTED


def _status_by_extremes(low: Tensor, high: Tensor, sourced: bool) -> str:
    if low.numel() == 0:
        return UNTESTED if sourced else UNSOURCED
    if low.min() > 0:
        return REPRODUCED
    if low.max() > 0:
        return CONDITIONS
    return CORRECTED if high.min() < 0 else UNTESTED


def _status_numpy(low: Tensor, high: Tensor, sourced: bool) -> str:
    signs = np.sign(low.numpy()) + np.sign(high.numpy())  # 2 above, −2 below
    if signs.size == 0:
        return UNSOURCED if not sourced else UNTESTED
    if (signs == 2).any():
        return REPRODUCED if (signs == 2).all() else CONDITIONS
    return CORRECTED if (signs == -2).any() else UNTESTED


def _status_match(low: Tensor, high: Tensor, sourced: bool) -> str:
    n, held, refuted = len(low), int((low > 0).sum()), int((high < 0).sum())
    match (n, held, refuted):
        case (0, _, _):
            return UNTESTED if sourced else UNSOURCED
        case (_, 0, 0):
            return UNTESTED
        case (_, 0, _):
            return CORRECTED
    return REPRODUCED if held == n else CONDITIONS


LEDGER = "notebook 09, «The claim ledger»"
INTERVALS = "notebook 01, «Bootstrap intervals»"

LEDGER_STATUS = Answer(
    name="ledger_status",
    reference=ledger_status,
    section=LEDGER,
    checks=[
        Check("borne out by every trial, or refuted", _clear, pointer=LEDGER),
        Check("now borne out, now refuted", _mixed, pointer=LEDGER),
        Check("an interval across 0 decides nothing", _undecided, pointer=INTERVALS),
        Check("some trials decide and others do not", _partly, pointer=LEDGER),
        Check("no trials: then the source counts", _no_trials, pointer=LEDGER),
        Check("0 itself is not above 0", _touching, pointer=INTERVALS),
    ],
    mistakes=[
        Mistake(
            "estimates, not intervals",
            _by_estimate,
            "You decided by the middle of each interval. A difference of 0.02 in −0.05 … 0.09 may "
            "as well be none: only an interval that leaves 0 out decides.",
            INTERVALS,
        ),
        Mistake(
            "by majority",
            _by_majority,
            "You let the trials vote. A claim that holds in two trials and fails in the third is "
            "neither true nor false as stated: it holds under conditions, and the third trial "
            "says which.",
            LEDGER,
        ),
        Mistake(
            "averaged over the trials",
            _on_average,
            "You averaged the intervals first. Trials differ in their conditions; an average over "
            "them answers a question that nobody asked.",
            LEDGER,
        ),
        Mistake(
            "one success is enough",
            _one_is_enough,
            "One trial that bears the claim out made it «reproduced». That word needs all of them.",
            LEDGER,
        ),
        Mistake(
            "one failure is enough",
            _one_refutes,
            "One trial that refutes made the claim «corrected» although others bear it out. Then "
            "it holds under conditions.",
            LEDGER,
        ),
        Mistake(
            "nothing tested, all passed",
            _vacuous,
            "Without a single trial your answer is «reproduced»: `all` of nothing is True. Look "
            "first whether anything was tried.",
            LEDGER,
        ),
        Mistake(
            "undecided counted as refuted",
            _not_held_is_refuted,
            "Trials that decide nothing were counted against the claim. Absence of evidence is not "
            "evidence of absence; a claim falls only where an interval lies below 0.",
            INTERVALS,
        ),
        Mistake(
            "source before evidence",
            _source_first,
            "A claim without a source but with trials was called «no source». What has been tested "
            "has its status from the test.",
            LEDGER,
        ),
        Mistake(
            "undecided trials dropped",
            _undecided_dropped,
            "You left out the trials that decide nothing before looking. A claim borne out in two "
            "of three trials was not borne out in all: say «holds under conditions».",
            LEDGER,
        ),
        Mistake(
            "an end at 0 decides",
            _ends_count,
            "An interval that ends exactly at 0 was taken as decided. It contains 0: no difference "
            "is still possible.",
            INTERVALS,
        ),
        Mistake(
            "every trial must refute",
            _all_must_refute,
            "You asked that every trial refute. A statement about all cases falls with one clear "
            "counterexample, if nothing bears it out.",
            LEDGER,
        ),
        Mistake(
            "the source ignored",
            lambda low, high, sourced: ledger_status(low, high, True),
            "Without trials you never answer «no source». A number or a citation that nobody can "
            "trace is another matter than one that can be looked up but not tested here.",
            LEDGER,
        ),
    ],
    variants=[
        V("count in a loop", _status_loop),
        V("by the extremes", _status_by_extremes),
        V("numpy", _status_numpy),
        V("match", _status_match),
    ],
    hints=[
        "Which trials bear the claim out, which refute it, which do neither? Two comparisons with "
        "0 say it.",
        "Begin with the case without trials. Then: all borne out; at least one borne out; none "
        "borne out but one refuted; nothing decided.",
        "In words: held = low > 0, refuted = high < 0; no trials: by the source; all held: "
        "reproduced; any held: holds under conditions; any refuted: corrected; else cannot be "
        "tested here.",
    ],
    difficulty=2,
    importance=4,
    minutes=10,
)

# ------------------------------------------------------------------------------------------ texts

WHY = Prose(
    name="why_prototypes",
    points=3,
    rubric=[
        "says that a prototype is computed from the support, not learned: a new class needs no new "
        "weights and no training step",
        "says that a mean of K vectors has few free numbers and less scatter than one example "
        "(variance σ²/K along each axis), so that few examples are not overfitted",
        "says that what is learned, the embedding, is shared by all classes and learned from "
        "classes with many labels",
        "names what must hold: the embedding puts each class around one centre, alike in all "
        "directions and classes (the Gaussian reading)",
        "names a limit: a class of several parts (background), unequal shots, a new site whose "
        "images the encoder has not met",
    ],
    model=(
        "What must be learned from many examples and what must be learned from few are kept apart. "
        "The embedding has all the weights and is learned from classes with many labels. A new "
        "class brings only its prototype, the mean of its embedded support: it is computed, not "
        "learned, so that nothing can be overfitted by training on five images. As an estimate a "
        "mean is modest, too: its scatter is σ²/K along each axis, and with one shot it is the "
        "example itself. It suits if the embedding gathers each class around one centre, with the "
        "same spread in all directions and for all classes; then the nearest prototype is the most "
        "probable class. It fails where that fails: background has many parts and no one centre, "
        "classes with unequal shots are judged by prototypes of unequal quality, and an encoder "
        "that has never seen a scanner may put its images anywhere."
    ),
)

DEPLOYMENT = Prose(
    name="deployment",
    points=4,
    rubric=[
        "another scanner, protocol or population moves the embedding; support from the new site "
        "moves the prototypes, not the encoder",
        "which slices are labelled decides much: the result depends on the support, and its spread "
        "over supports must be reported",
        "evaluation that leaks (the extent of the organ in the query, organs or people seen in "
        "training) promises more than deployment keeps",
        "says how failure is noticed: slices without the organ, uncertainty and its calibration, a "
        "person who looks",
        "asks for a baseline: copying the support mask, registration, a network trained on the few "
        "labels, a foundation model",
        "asks what it saves: minutes of an expert for a label, against minutes of correction",
    ],
    model=(
        "A new site differs in scanner, protocol and patients. A few labelled slices from it move "
        "the prototypes to the right place, but they cannot repair an encoder that has lost the "
        "difference between two organs. Which slices are labelled matters as much as how many, so "
        "one number from one support promises nothing; the spread over supports belongs to the "
        "result. Published numbers often come from evaluations that know where in the query the "
        "organ begins and ends, and in deployment nobody knows that; slices without the organ are "
        "where false alarms come from. Someone has to notice failure: a probability that has been "
        "calibrated at the site, a rule for when a person must look. And the method must beat what "
        "is simpler: the copied support mask, registration, a network trained on the same labels. "
        "What decides in the end is whether the expert's minutes for labelling and correcting are "
        "fewer than for drawing by hand."
    ),
)

EXERCISE = Exercise(
    number=9,
    name="self_test",
    title="The note's self-test",
    answers=[KEY_FORMULAS, MIXTURE_PROOF, COMPUTE_PROTOTYPES, SEGMENT, LEDGER_STATUS],
    prose=[WHY, DEPLOYMENT],
)
