"""What the softmax over prototypes assumes: Gaussian, linear, von Mises–Fisher (note §2.2, §6).

z = f(x) ∈ R^M is an embedding, c_k a prototype, σ² a variance, π_k a prior (notebooks 04 and 04b).
Every statement is about embeddings given their class; none is about images.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor

from fewshot_lib._tensors import (
    class_bias,
    full_precision,
    require_floating,
    require_pair,
    unit_vectors,
    upcast,
)
from fewshot_lib.prototypes import (
    Distance,
    class_prototypes,
    log_posterior,
    squared_euclidean,
)

Number = TypeVar("Number", float, Tensor)


def gaussian_log_density(
    queries: Tensor,
    means: Tensor,
    variance: float | Tensor | None = None,
    covariance: Tensor | None = None,
) -> Tensor:
    """Return log N(z; c_k, Σ_k) of every query under every class.

    −½ (z−c_k)ᵀ Σ_k⁻¹ (z−c_k) − ½ log|Σ_k| − (M/2) log 2π

    Arguments:
        queries: (…, Q, M) floating, z.
        means: (…, K, M) of the same type, c_k.
        variance: Σ_k = σ_k² I with σ² > 0: a number or 0-d tensor (shared by the classes),
            or (…, K) (one for each). Not together with ``covariance``; both None: σ² = ½.
        covariance: Σ, symmetric positive definite: (M, M) or (…, 1, M, M) (shared by the classes),
            or (…, K, M, M) (one for each).

    Returns:
        (…, Q, K) log densities in the inputs' type.

    Raises:
        ValueError: shapes that do not match, variance and covariance both given, a variance that
            is not positive, a covariance that is not symmetric positive definite.
        TypeError: inputs that are not floating point, or of different types.

    Source: Bishop 2006, equation 2.43. Notebooks 04 (T1) and 04b (T8).

    >>> gaussian_log_density(torch.zeros(1, 1), torch.tensor([[0.0], [1.0]]), 1.0)
    tensor([[-0.9189, -1.4189]])
    """
    require_pair(queries, means)
    with full_precision(queries):
        return _log_density(queries, means, variance, covariance).to(queries.dtype)


def gaussian_log_posterior(
    queries: Tensor,
    means: Tensor,
    variance: float | Tensor | None = None,
    log_prior: Tensor | None = None,
    covariance: Tensor | None = None,
) -> Tensor:
    """Return log p(y = k | z) when each class is one Gaussian.

    log p(y = k | z) = log_softmax_k( log π_k + log N(z; c_k, Σ_k) )

    With a shared Σ = σ²I this is log_softmax_k(−‖z−c_k‖²/(2σ²) + log π_k); the prototypical network
    is σ² = ½ with equal priors, the default. With a Σ_k of its own for each class the boundary is
    quadratic and the term −½ log|Σ_k| stays.

    Arguments:
        queries: (…, Q, M) floating, z.
        means: (…, K, M) of the same type, c_k, taken as known.
        variance: as in ``gaussian_log_density``.
        log_prior: (…, K) log π_k, need not be normalised, −inf allowed. None: equal priors.
        covariance: as in ``gaussian_log_density``.

    Returns:
        (…, Q, K) ≤ 0 in the inputs' type; exp sums to one over K.

    Raises:
        ValueError, TypeError: as ``gaussian_log_density`` and ``prototypes.log_posterior``.

    Source: Snell et al. 2017, §2.3; Bishop 2006, §4.2.1. Notebooks 04 (T1) and 04b (T8).

    >>> queries, means = torch.tensor([[0.0]]), torch.tensor([[1.0], [-1.0]])
    >>> gaussian_log_posterior(queries, means).exp()
    tensor([[0.5000, 0.5000]])
    """
    require_pair(queries, means)
    with full_precision(queries):
        log_joint = _log_density(queries, means, variance, covariance)
        bias = class_bias(log_prior, None, means, log_joint.dtype)
        if bias is not None:
            log_joint = log_joint + bias[..., None, :]
        return log_joint.log_softmax(dim=-1).to(queries.dtype)


def linear_form(
    means: Tensor,
    variance: float | Tensor | None = None,
    log_prior: Tensor | None = None,
    covariance: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Write the posterior of Gaussians with one shared covariance as a linear classifier.

    log p(y = k | z) = log_softmax_k( w_kᵀ z + b_k )
    w_k = Σ⁻¹ c_k,  b_k = −½ c_kᵀ Σ⁻¹ c_k + log π_k;  with Σ = ½ I: w_k = 2 c_k, b_k = −‖c_k‖²

    zᵀΣ⁻¹z is the same for every class and cancels. Linear in the *embedding*, not in the image.
    The boundary between k and l is (w_k − w_l)ᵀ z = b_l − b_k. Embeddings with a large common
    offset lose digits here that ``gaussian_log_posterior`` keeps.

    Arguments:
        means: (…, K, M) floating, c_k.
        variance: σ² > 0, a number or 0-d tensor; not together with ``covariance``; both None: ½.
        log_prior: (…, K) log π_k; None: equal priors.
        covariance: (M, M) or (…, 1, M, M), shared by the classes.

    Returns:
        weights (…, K, M) and biases (…, K) in the means' type.

    Raises:
        ValueError: a variance or covariance for each class (the boundary is then not linear), and
            as ``gaussian_log_density``.
        TypeError: means that are not floating point.

    Source: Snell et al. 2017, §2.4. Notebooks 04 (T3) and 04b (T8).

    >>> weights, biases = linear_form(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
    >>> weights.tolist(), biases.tolist()
    ([[2.0, 0.0], [0.0, 6.0]], [-1.0, -9.0])
    """
    require_pair(means, means)
    n_classes = means.shape[-2]
    with full_precision(means):
        wide = upcast(means)
        spread, factor = _spread(wide, variance, covariance)
        shared = spread.ndim == 0 or spread.shape[-1] == 1
        if factor is not None:
            shared = factor.shape[-3] == 1
        if not shared and n_classes > 1:
            raise ValueError(
                "a linear form needs one variance or covariance for all classes; with one for each "
                "the boundary is quadratic, use gaussian_log_posterior"
            )
        if factor is None:
            weights = wide / spread[..., None]
        else:
            weights = torch.cholesky_solve(wide.mT, factor.squeeze(-3)).mT
        biases = -(weights * wide).sum(dim=-1) / 2
        bias = class_bias(log_prior, None, means, wide.dtype)
        if bias is not None:
            biases = biases + bias
    return weights.to(means.dtype), biases.to(means.dtype)


def vmf_log_posterior(
    queries: Tensor,
    directions: Tensor,
    concentration: float | Tensor,
    log_prior: Tensor | None = None,
) -> Tensor:
    """Return log p(y = k | z) when each class is a von Mises–Fisher law with one shared κ.

    p(ẑ | y = k) = C_M(κ) exp(κ μ_kᵀ ẑ) on ‖ẑ‖ = 1, so log p(y = k | z) =
    log_softmax_k( κ cos(z, μ_k) + log π_k ): C_M(κ) cancels because κ is shared.

    Since ‖ẑ − μ‖² = 2 − 2 cos, this is also the Gaussian posterior of unit vectors with σ² = 1/κ:
    the α = 20 that multiplies the cosine in PANet is κ = 20 is σ² = 0.05.

    Arguments:
        queries: (…, Q, M) floating, z; only their directions matter.
        directions: (…, K, M) of the same type; only their directions μ_k matter.
        concentration: κ ≥ 0, shared by the classes: a number or a 0-d tensor.
        log_prior: (…, K) log π_k; None: equal priors.

    Returns:
        (…, Q, K) ≤ 0 in the inputs' type; exp sums to one over K.

    Raises:
        ValueError: a negative κ, one κ for each class (C_M(κ_k) would not cancel), shapes.
        TypeError: inputs that are not floating point, or of different types.

    Source: Banerjee, Dhillon, Ghosh, Sra 2005 (JMLR 6). Notebook 04b (T7).

    >>> queries, directions = torch.tensor([[5.0, 0.0]]), torch.eye(2)
    >>> vmf_log_posterior(queries, directions, 20.0).argmax().item()
    0
    """
    if isinstance(concentration, Tensor) and concentration.ndim:
        raise ValueError(
            "concentration κ must be one number shared by the classes (its normaliser C_M(κ) then "
            f"cancels), got shape {tuple(concentration.shape)}"
        )
    if not 0 <= float(concentration) < math.inf:
        raise ValueError(f"concentration κ must be finite and at least 0, got {concentration}")
    return log_posterior(queries, directions, "cosine", concentration, log_prior)


def variance_from_scale(scale: Number, distance: Distance = "squared_euclidean") -> Number:
    """Return the Gaussian variance σ² that a scale α stands for.

    "squared_euclidean": α‖z−c‖² = ‖z−c‖²/(2σ²), so σ² = 1/(2α) (a temperature τ = 1/α is 2σ²).
    "cosine": α cos = κ cos = const − ‖ẑ−μ‖²/(2σ²) on unit vectors, so κ = α and σ² = 1/α.

    Arguments:
        scale: α > 0, a number or a tensor.
        distance: what α multiplies; "euclidean" has no Gaussian reading.

    Returns:
        σ² > 0, of the same kind and shape.

    Raises:
        ValueError: a scale that is not positive, or a distance without Gaussian reading.

    Source: Snell et al. 2017, §2.3; Banerjee et al. 2005 (JMLR 6). Notebooks 04 (T1) and 04b (T7).

    >>> variance_from_scale(1.0), variance_from_scale(20.0, "cosine")
    (0.5, 0.05)
    """
    if distance not in ("squared_euclidean", "cosine"):
        raise ValueError(
            f"only squared_euclidean and cosine stand for a Gaussian variance, got {distance!r}"
        )
    if not bool((torch.as_tensor(scale) > 0).all()):
        raise ValueError(f"scale must be positive, got {scale}")
    return 1 / (scale if distance == "cosine" else 2 * scale)


def shared_variance(
    embeddings: Tensor, labels: Tensor, n_way: int, unbiased: bool = True
) -> Tensor:
    """Estimate the one variance σ² of T1 from labelled embeddings.

    σ̂² = Σ_i ‖z_i − ĉ_{y_i}‖² / ((N − K) M), or / (N M) for maximum likelihood

    Arguments:
        embeddings: (…, N, M) floating.
        labels: (…, N) integer in 0 … n_way−1, every class present.
        n_way: K.
        unbiased: divide by N − K, the degrees of freedom left after K means; else by N.

    Returns:
        (…) ≥ 0 in the embeddings' type.

    Raises:
        ValueError: unbiased with N = K (one shot says nothing of a variance); as
            ``class_prototypes``.
        TypeError: as ``class_prototypes``.

    Source: Bishop 2006, §4.2.2. Notebooks 04 (T4) and 04b (T9).

    >>> embeddings = torch.tensor([[-1.0], [1.0], [9.0], [11.0]])
    >>> shared_variance(embeddings, torch.tensor([0, 0, 1, 1]), 2).item()
    2.0
    """
    centres = class_prototypes(upcast(embeddings), labels, n_way)
    n_examples, dimension = embeddings.shape[-2:]
    freedom = n_examples - n_way if unbiased else n_examples
    if freedom == 0:
        raise ValueError(
            f"{n_examples} examples of {n_way} classes leave nothing to estimate a variance from; "
            "one class at least needs two shots"
        )
    own = centres.gather(-2, labels[..., None].expand(*labels.shape, dimension))
    residual = (upcast(embeddings) - own).square().sum(dim=(-2, -1))
    return (residual / (freedom * dimension)).to(embeddings.dtype)


def mean_direction(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Return each class's maximum-likelihood direction under a von Mises–Fisher law.

    μ_k = r_k / ‖r_k‖,   r_k = Σ_{i ∈ S_k} z_i / ‖z_i‖

    The average of *normalised* vectors. PANet averages raw ones, so that long vectors dominate:
    (10, 0) and (0, 1) then give (0.995, 0.100) instead of (0.707, 0.707).

    Arguments:
        embeddings: (…, N, M) floating; a zero vector has no direction and adds nothing.
        labels: (…, N) integer in 0 … n_way−1, every class present.
        n_way: number of classes.

    Returns:
        (…, n_way, M) unit vectors in the embeddings' type.

    Raises:
        ValueError: a class whose directions cancel (‖r_k‖ = 0 to rounding): every direction is
            then as likely; as ``class_prototypes``.
        TypeError: as ``class_prototypes``.

    Source: Banerjee, Dhillon, Ghosh, Sra 2005 (JMLR 6). Notebook 04b (T7).

    >>> embeddings = torch.tensor([[10.0, 0.0], [0.0, 1.0]])
    >>> mean_direction(embeddings, torch.tensor([0, 0]), 1)
    tensor([[0.7071, 0.7071]])
    """
    require_floating("embeddings", embeddings)
    wide = upcast(embeddings)
    resultant = class_prototypes(unit_vectors(wide), labels, n_way)  # r_k / n_k
    length: Tensor = torch.linalg.vector_norm(resultant, dim=-1)
    lost = length <= 8 * torch.finfo(wide.dtype).eps
    if bool(lost.any()):
        cancelled = lost.reshape(-1, n_way).any(dim=0)
        raise ValueError(
            f"the directions of class {', '.join(map(str, cancelled.nonzero()[:, 0].tolist()))} "
            "cancel: the class has no mean direction"
        )
    return (resultant / length[..., None]).to(embeddings.dtype)


def support_size_correction(counts: Tensor, variance: float | Tensor, dimension: int) -> Tensor:
    """Return by how much a mean of few examples inflates squared distances.

    E‖z − ĉ_k‖² = ‖z − μ_k‖² + σ² M / n_k

    (expectation over the support). Classes with larger supports look nearer than they are. The
    repair: subtract it from the squared distances, or add α times it to the log prior,
    ``log_posterior(…, scale=α, log_prior=α * support_size_correction(…))``.

    Arguments:
        counts: (…, K) n_k > 0, support examples of each class.
        variance: σ² ≥ 0 within the classes; a number, or a tensor that broadcasts to (…, K).
        dimension: M ≥ 1, of the embedding.

    Returns:
        (…, K) σ² M / n_k ≥ 0, floating.

    Raises:
        ValueError: a count that is not positive, a negative variance, M < 1.

    Source: the variance of a mean, n_k draws. Notebook 04b (T9).

    >>> support_size_correction(torch.tensor([1, 20]), 1.0, 64)
    tensor([64.0000,  3.2000])
    """
    if dimension < 1:
        raise ValueError(f"dimension must be at least 1, got {dimension}")
    if bool((counts <= 0).any()):
        raise ValueError(
            f"counts must be positive, got {counts.tolist()}; a class without support has no "
            "prototype to correct"
        )
    if bool((torch.as_tensor(variance) < 0).any()):
        raise ValueError(f"variance must be at least 0, got {variance}")
    return variance * dimension / counts


def soft_kmeans_refine(
    prototypes: Tensor,
    counts: Tensor,
    unlabelled: Tensor,
    scale: float | Tensor = 1.0,
    log_prior: Tensor | None = None,
    steps: int = 1,
) -> Tensor:
    """Refine prototypes with unlabelled embeddings, softly assigned.

    r_jk = softmax_k( −α‖z_j − c_k‖² + log π_k )
    c_k ← (n_k ĉ_k + Σ_j r_jk z_j) / (n_k + Σ_j r_jk)

    ĉ_k the support's own mean. With σ² = 1/(2α) each step is one of expectation–maximisation for
    the centres of the mixture of T1, the support's labels held fixed.

    Arguments:
        prototypes: (…, K, M) floating, ĉ_k from the support.
        counts: (…, K) n_k > 0, how many examples (or how much mask) each ĉ_k stands for.
        unlabelled: (…, U, M) of the same type, z_j.
        scale: α > 0.
        log_prior: (…, K) log π_k; None: equal priors.
        steps: how often, ≥ 0.

    Returns:
        (…, K, M) refined prototypes in the prototypes' type; with U = 0 or no steps, the same.

    Raises:
        ValueError: a count that is not positive, negative steps; as ``log_posterior``.
        TypeError: as ``log_posterior``.

    Source: Ren et al. 2018 (ICLR; α = 1, one step). Notebook 04b (T10).

    >>> prototypes, unlabelled = torch.tensor([[0.0], [10.0]]), torch.tensor([[1.0], [11.0]])
    >>> soft_kmeans_refine(prototypes, torch.tensor([1, 1]), unlabelled).tolist()
    [[0.5], [10.5]]
    """
    require_pair(unlabelled, prototypes)
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}")
    if tuple(counts.shape[-1:]) != (prototypes.shape[-2],) or bool((counts <= 0).any()):
        raise ValueError(
            f"counts must be (…, K = {prototypes.shape[-2]}) and positive, got {counts.tolist()}"
        )
    with full_precision(prototypes):
        first, z = upcast(prototypes), upcast(unlabelled)
        weight = counts.to(first.dtype)[..., None]  # (…, K, 1)
        refined = first
        for _ in range(steps):
            share = log_posterior(z, refined, scale=scale, log_prior=log_prior).exp()  # (…, U, K)
            taken = share.sum(dim=-2)[..., None]  # (…, K, 1)
            # From the support's mean, by the weighted mean of the differences: no offset is summed.
            centre = first.mean(dim=-2, keepdim=True)
            pulled = share.mT @ (z - centre) - taken * (first - centre)
            refined = first + pulled / (weight + taken)
    return refined.to(prototypes.dtype)


def geometric_median(
    points: Tensor, weights: Tensor | None = None, tolerance: float = 1e-9, max_steps: int = 10_000
) -> Tensor:
    """Find the point with the smallest summed *un-squared* distance to the given ones.

    m = argmin_m Σ_i w_i ‖z_i − m‖

    What the mean is to the squared distance: the maximum-likelihood centre of the density
    ∝ exp(−‖z − c‖) that softmax(−‖z − c_k‖) stands for. A prototype that is a mean and a distance
    that is not squared do not belong together. For support sets: memory grows with N². When the
    points lie on a line and the median is not unique, one of the medians.

    Arguments:
        points: (…, N, M) floating, z_i, N ≥ 1.
        weights: (…, N) ≥ 0, some > 0; leading dimensions broadcast, so (K, N) memberships of (N, M)
            points give the K medians of K classes. None: all 1.
        tolerance: stop when a step is below this share of the points' spread.
        max_steps: Weiszfeld steps, ≥ 1.

    Returns:
        (…, M) in the points' type, without gradient.

    Raises:
        ValueError: shapes that do not match, no points, negative weights or none positive.
        TypeError: points that are not floating point.
        RuntimeError: not converged after max_steps.

    Source: Weiszfeld 1937; Vardi and Zhang 2000 (PNAS) for steps from a data point. Notebook 04b
    (T6).

    >>> geometric_median(torch.tensor([[0.0], [1.0], [100.0]])).tolist()
    [1.0]
    """
    require_floating("points", points)
    if points.ndim < 2 or points.shape[-2] < 1:
        raise ValueError(f"points must be (…, N, M) with N ≥ 1, got {tuple(points.shape)}")
    if weights is None:
        weights = torch.ones(points.shape[:-1], device=points.device)
    if weights.ndim < 1 or weights.shape[-1] != points.shape[-2]:
        raise ValueError(
            f"weights must be (…, N = {points.shape[-2]}) like the points, "
            f"got {tuple(weights.shape)}"
        )
    if bool((weights < 0).any()) or not bool((weights > 0).any(dim=-1).all()):
        raise ValueError("weights must be at least 0, and some of each set positive")
    with torch.no_grad(), full_precision(points):
        # In float64: at a data point the test is an equality of a sum of unit vectors.
        median = _weiszfeld(points.double(), weights.double(), tolerance, max_steps)
    return median.to(points.dtype)


def _weiszfeld(points: Tensor, weights: Tensor, tolerance: float, max_steps: int) -> Tensor:
    distances = squared_euclidean(points, points).sqrt()  # (…, N, N)
    cost = (distances * weights[..., None, :]).sum(dim=-1)  # (…, N) of each point as the median
    cost = torch.where(weights > 0, cost, math.inf)
    points = points.expand(*cost.shape[:-1], *points.shape[-2:])
    best = cost.argmin(dim=-1)[..., None, None].expand(*cost.shape[:-1], 1, points.shape[-1])
    median = points.gather(-2, best)  # (…, 1, M): no later step comes back to a data point
    spread = distances.amax(dim=(-2, -1))[..., None, None]
    for _ in range(max_steps):
        offset = points - median
        distance = offset.norm(dim=-1, keepdim=True)
        apart = distance > 0
        pull = torch.where(apart, weights[..., None] / torch.where(apart, distance, 1.0), 0.0)
        force = (pull * offset).sum(dim=-2, keepdim=True)  # −gradient of the other points' cost
        strength = force.norm(dim=-1, keepdim=True)
        held = torch.where(apart, 0.0, weights[..., None]).sum(dim=-2, keepdim=True)
        free = (1 - held / torch.where(strength > 0, strength, 1.0)).clamp_min(0.0)
        total = pull.sum(dim=-2, keepdim=True)
        step = free * force / torch.where(total > 0, total, 1.0)
        median = median + step
        if bool((step.norm(dim=-1, keepdim=True) <= tolerance * spread).all()):
            return median.squeeze(-2)
    raise RuntimeError(
        f"no geometric median to {tolerance:g} of the spread after {max_steps} steps; "
        "raise max_steps or tolerance"
    )


def _log_density(
    queries: Tensor, means: Tensor, variance: float | Tensor | None, covariance: Tensor | None
) -> Tensor:
    z, c = upcast(queries), upcast(means)
    dimension = means.shape[-1]
    spread, factor = _spread(c, variance, covariance)
    if factor is None:
        scale = spread if spread.ndim == 0 else spread[..., None, :]  # () or (…, 1, K)
        squared = squared_euclidean(z, c) / scale
        log_volume = dimension * scale.log()
    else:
        # L_k⁻¹ z and L_k⁻¹ c_k: whitened, the covariance is I. Seen from a common centre first.
        centre = c.mean(dim=-2, keepdim=True)
        white_z = _solved(factor, (z - centre)[..., None, :, :])  # (…, K or 1, Q, M)
        white_c = _solved(factor, (c - centre)[..., :, None, :])  # (…, K, 1, M)
        if factor.shape[-3] == 1:
            squared = squared_euclidean(white_z.squeeze(-3), white_c.squeeze(-2))
        else:
            squared = squared_euclidean(white_z, white_c).squeeze(-1).mT  # (…, Q, K)
        diagonal = factor.diagonal(dim1=-2, dim2=-1)
        log_volume = 2 * diagonal.log().sum(dim=-1)[..., None, :]  # log|Σ_k|, (…, 1, K or 1)
    return -(squared + log_volume + dimension * math.log(2 * math.pi)) / 2


def _solved(factor: Tensor, vectors: Tensor) -> Tensor:
    """Return L⁻¹ v for each row v: (…, M, M), (…, n, M) → (…, n, M)."""
    solved: Tensor = torch.linalg.solve_triangular(factor, vectors.mT, upper=False)
    return solved.mT


def _spread(
    means: Tensor, variance: float | Tensor | None, covariance: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Check what was given; return the variance () or (…, K), or the factor (…, K or 1, M, M)."""
    n_classes, dimension = means.shape[-2:]
    if variance is not None and covariance is not None:
        raise ValueError("give a variance or a covariance, not both")
    if covariance is None:
        given = 0.5 if variance is None else variance
        spread = torch.as_tensor(given, dtype=means.dtype, device=means.device)
        if spread.ndim and spread.shape[-1] not in (1, n_classes):
            raise ValueError(
                f"variance must be one number or (…, K = {n_classes}), got {tuple(spread.shape)}"
            )
        if not bool(((spread > 0) & spread.isfinite()).all()):
            raise ValueError(f"variance must be positive and finite, got {spread.tolist()}")
        return spread, None
    covariance = covariance.to(means)
    if covariance.ndim == 2:
        covariance = covariance[None]
    if covariance.ndim < 3 or tuple(covariance.shape[-3:]) not in (
        (1, dimension, dimension),
        (n_classes, dimension, dimension),
    ):
        raise ValueError(
            f"covariance must be (M, M), (…, 1, M, M) or (…, K, M, M) with K = {n_classes} and "
            f"M = {dimension}, got {tuple(covariance.shape)}"
        )
    skew = (covariance - covariance.mT).abs().amax()
    if not bool(skew <= 1e-4 * covariance.abs().amax()):
        raise ValueError("covariance must be symmetric")
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if bool(failed.any()):
        raise ValueError(
            "covariance must be positive definite (an estimate from fewer examples than dimensions "
            "is not): add a multiple of the identity or share it between classes"
        )
    return torch.ones((), dtype=means.dtype, device=means.device), factor
