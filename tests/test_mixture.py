"""The mixture reading, T1 to T10: held to torch.distributions, scikit-learn, SciPy and loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import ive
from sklearn.discriminant_analysis import (
    LinearDiscriminantAnalysis,
    QuadraticDiscriminantAnalysis,
)
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from fewshot_lib.mixture import (
    gaussian_log_density,
    gaussian_log_posterior,
    geometric_median,
    linear_form,
    mean_direction,
    shared_variance,
    soft_kmeans_refine,
    support_size_correction,
    variance_from_scale,
    vmf_log_posterior,
)
from fewshot_lib.prototypes import class_prototypes, cosine_similarity, log_posterior

INFINITE = float("inf")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
PRECISION = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def covariances(*shape: int, seed: int = 0) -> Tensor:
    """Draw positive definite matrices (…, M, M)."""
    root = randn(*shape, shape[-1], seed=seed)
    return root @ root.mT + 0.5 * torch.eye(shape[-1])


def close(got: Tensor, expected, tolerance: float = 1e-9) -> bool:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    return got.shape == expected.shape and torch.allclose(
        got.double(), expected, rtol=tolerance, atol=tolerance
    )


def full(variance: Tensor | float, n_way: int, dimension: int) -> Tensor:
    """Write variances as covariances (…, K, M, M)."""
    wide = torch.as_tensor(variance, dtype=torch.float64).expand(n_way)
    return wide[:, None, None] * torch.eye(dimension, dtype=torch.float64)


def bayes(queries: Tensor, means: Tensor, covariance: Tensor, prior: Tensor) -> Tensor:
    """Bayes' rule with the densities of torch.distributions, nothing cancelled."""
    density = MultivariateNormal(means, covariance).log_prob(queries[:, None]).exp()
    return prior * density / (prior * density).sum(dim=-1, keepdim=True)


# --- T1, T8: Gaussians ----------------------------------------------------------------------------

QUERIES, MEANS = randn(7, 3), randn(4, 3, seed=1)
PRIOR = torch.tensor([0.1, 0.5, 0.15, 0.25]).double()
SPREADS = {
    "shared variance": {"variance": 0.7},
    "shared variance, a tensor": {"variance": torch.tensor(0.7)},
    "a variance each": {"variance": torch.tensor([0.2, 0.7, 1.5, 3.0]).double()},
    "shared covariance": {"covariance": covariances(3)},
    "shared covariance, (1, M, M)": {"covariance": covariances(1, 3)},
    "a covariance each": {"covariance": covariances(4, 3)},
    "nothing: one half": {},
}


def as_covariance(spread: dict) -> Tensor:
    if "covariance" in spread:
        return spread["covariance"]
    return full(spread.get("variance", 0.5), 4, 3)


@pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS)
def test_densities_are_those_of_torch_distributions(spread):
    expected = MultivariateNormal(MEANS, as_covariance(spread)).log_prob(QUERIES[:, None])
    assert close(gaussian_log_density(QUERIES, MEANS, **spread), expected)


@pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS)
def test_the_posterior_is_bayes_rule(spread):
    expected = bayes(QUERIES, MEANS, as_covariance(spread), PRIOR)
    got = gaussian_log_posterior(QUERIES, MEANS, log_prior=PRIOR.log(), **spread)
    assert close(got.exp(), expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.floats(0.05, 20))
def test_t1_the_prototypical_softmax_is_a_gaussian_posterior(seed, variance):
    """softmax(−α d²) is σ² = 1/(2α); the network itself is σ² = ½ with equal priors."""
    queries, means, log_prior = randn(5, 3, seed=seed), randn(4, 3, seed=seed + 1), PRIOR.log()
    network = log_posterior(queries, means, scale=1 / (2 * variance), log_prior=log_prior)
    assert close(gaussian_log_posterior(queries, means, variance, log_prior), network)
    equal = gaussian_log_posterior(queries, means)
    assert close(equal, log_posterior(queries, means))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.floats(-50, 50), st.permutations(range(4)))
def test_posteriors_do_not_notice_translation_and_follow_a_renaming(seed, shift, order):
    queries, means = randn(5, 3, seed=seed), randn(4, 3, seed=seed + 1)
    for spread in SPREADS.values():
        before = gaussian_log_posterior(queries, means, **spread)
        assert close(before.exp().sum(-1), [1.0] * 5)
        moved = gaussian_log_posterior(queries + shift, means + shift, **spread)
        assert close(moved, before, 1e-7)
    each = SPREADS["a covariance each"]["covariance"]
    before = gaussian_log_posterior(queries, means, covariance=each)
    after = gaussian_log_posterior(queries, means[order], covariance=each[order])
    assert close(after, before[:, order])


def test_t5_a_shared_covariance_is_the_prototypical_softmax_of_whitened_embeddings():
    covariance = covariances(3)
    values, basis = torch.linalg.eigh(covariance)
    whiten = basis / values.sqrt()
    expected = log_posterior(QUERIES @ whiten, MEANS @ whiten, scale=0.5)
    assert close(gaussian_log_posterior(QUERIES, MEANS, covariance=covariance), expected)


def test_t5_the_forgotten_log_determinant_changes_the_winner():
    """At the mean of the wider class, the narrower one may still be the more probable."""
    means, variance = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([1.0, 100.0]).double()
    query = torch.tensor([[1.0]]).double()
    assert gaussian_log_posterior(query, means, variance).argmax().item() == 0
    without = -((query[:, None] - means) ** 2).sum(-1) / (2 * variance)
    assert without.argmax().item() == 1


def test_episodes_may_each_have_their_own_spread():
    queries, means = randn(2, 5, 3), randn(2, 4, 3, seed=1)
    for name, value in (
        ("variance", torch.rand(2, 4).double() + 0.1),
        ("variance", torch.rand(2, 1).double() + 0.1),
        ("covariance", covariances(2, 4, 3)),
        ("covariance", covariances(2, 1, 3)),
    ):
        got = gaussian_log_posterior(queries, means, **{name: value})
        assert got.shape == (2, 5, 4)
        for e in range(2):
            alone = gaussian_log_posterior(queries[e], means[e], **{name: value[e]})
            assert close(got[e], alone)


def test_no_query_and_one_class_are_no_exception():
    for spread in ({}, {"covariance": covariances(3)}, {"covariance": covariances(1, 3)}):
        assert gaussian_log_posterior(randn(0, 3), MEANS, **spread).shape == (0, 4)
        assert not gaussian_log_posterior(QUERIES, MEANS[:1], **spread).any()


# --- T3: linear form ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in SPREADS if "each" not in name])
def test_t2_the_posterior_with_a_shared_spread_is_linear(name):
    weights, biases = linear_form(MEANS, log_prior=PRIOR.log(), **SPREADS[name])
    linear = (QUERIES @ weights.T + biases).log_softmax(dim=-1)
    expected = bayes(QUERIES, MEANS, as_covariance(SPREADS[name]), PRIOR)
    assert close(linear.exp(), expected)


def test_t2_the_prototypical_network_has_weights_2c_and_bias_minus_squared_length():
    weights, biases = linear_form(MEANS)
    assert close(weights, 2 * MEANS)
    assert close(biases, -(MEANS**2).sum(-1))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.floats(0.1, 5))
def test_t2_the_boundary_lies_where_the_formula_says(seed, variance):
    """(c_k−c_l)ᵀz = (‖c_k‖²−‖c_l‖²)/2 + σ² log(π_l/π_k), and there both are as probable."""
    one, two = randn(2, 3, seed=seed)
    prior = torch.tensor([0.2, 0.8]).double()
    target = (one @ one - two @ two) / 2 + variance * (prior[1] / prior[0]).log()
    point = randn(3, seed=seed + 1)
    across = one - two
    point = point + (target - across @ point) / (across @ across) * across
    got = gaussian_log_posterior(point[None], torch.stack([one, two]), variance, prior.log())
    assert close(got.exp(), [[0.5, 0.5]], 1e-7)
    weights, biases = linear_form(torch.stack([one, two]), variance, prior.log())
    assert ((weights[0] - weights[1]) @ point).item() == pytest.approx(
        (biases[1] - biases[0]).item(), abs=1e-7
    )


@pytest.mark.parametrize("name", ["a variance each", "a covariance each"])
def test_t2_there_is_no_linear_form_with_a_spread_for_each_class(name):
    with pytest.raises(ValueError, match="boundary is quadratic"):
        linear_form(MEANS, **SPREADS[name])


# --- T4: supervised fitting, scikit-learn as the oracle -------------------------------------------


def labelled(counts: list[int], dimension: int, seed: int) -> tuple[Tensor, Tensor]:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    mixing = randn(dimension, dimension, seed=seed + 1)
    centres = 2 * randn(len(counts), dimension, seed=seed + 2)
    return centres[labels] + randn(len(labels), dimension, seed=seed) @ mixing, labels


@pytest.mark.parametrize("counts", [[6, 6, 6], [3, 12, 7]])
def test_t3_is_linear_discriminant_analysis_with_a_shared_isotropic_covariance(counts):
    """Shrinkage 1 makes scikit-learn's covariance tr(Σ)/M · I."""
    embeddings, labels = labelled(counts, 4, seed=3)
    queries = randn(50, 4, seed=9) * 3
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1.0).fit(embeddings, labels)
    means = class_prototypes(embeddings, labels, 3)
    assert close(means, oracle.means_)
    variance = shared_variance(embeddings, labels, 3, unbiased=False)
    log_prior = (torch.tensor(counts).double() / sum(counts)).log()
    got = gaussian_log_posterior(queries, means, variance, log_prior)
    assert close(got.exp(), oracle.predict_proba(queries))
    weights, biases = linear_form(means, variance, log_prior)
    assert close(weights - weights.mean(0), oracle.coef_ - oracle.coef_.mean(0))
    assert close(biases - biases.mean(), oracle.intercept_ - oracle.intercept_.mean())


def test_t5_is_linear_discriminant_analysis_with_a_shared_full_covariance():
    embeddings, labels = labelled([9, 20, 14], 4, seed=5)
    queries = randn(50, 4, seed=9) * 3
    oracle = LinearDiscriminantAnalysis(solver="lsqr", store_covariance=True)
    oracle.fit(embeddings, labels)
    means, log_prior = class_prototypes(embeddings, labels, 3), torch.tensor(oracle.priors_).log()
    covariance = torch.tensor(oracle.covariance_)
    got = gaussian_log_posterior(queries, means, log_prior=log_prior, covariance=covariance)
    assert close(got.exp(), oracle.predict_proba(queries))


def test_t5_is_quadratic_discriminant_analysis_with_a_covariance_for_each_class():
    embeddings, labels = labelled([9, 20, 14], 4, seed=7)
    queries = randn(50, 4, seed=9) * 3
    oracle = QuadraticDiscriminantAnalysis(store_covariance=True).fit(embeddings, labels)
    means, log_prior = class_prototypes(embeddings, labels, 3), torch.tensor(oracle.priors_).log()
    covariance = torch.tensor(np.stack(oracle.covariance_))
    got = gaussian_log_posterior(queries, means, log_prior=log_prior, covariance=covariance)
    assert close(got.exp(), oracle.predict_proba(queries))


def test_shared_variance_pools_the_classes_by_the_loop():
    embeddings, labels = labelled([3, 12, 7], 4, seed=3)
    squared = 0.0
    for k in range(3):
        members = embeddings[labels == k].numpy()
        squared += ((members - members.mean(0)) ** 2).sum()
    assert close(shared_variance(embeddings, labels, 3), squared / (19 * 4))
    assert close(shared_variance(embeddings, labels, 3, unbiased=False), squared / (22 * 4))


def test_shared_variance_is_unbiased_and_batched():
    labels = torch.tensor([0, 0, 1, 1, 1]).expand(20_000, 5)
    estimates = shared_variance(3 * randn(20_000, 5, 2) + 7, labels, 2)
    assert estimates.shape == (20_000,)
    error = estimates.std() / math.sqrt(20_000)
    assert abs(estimates.mean() - 9) < 5 * error


def test_one_shot_says_nothing_of_a_variance():
    with pytest.raises(ValueError, match="one class at least needs two shots"):
        shared_variance(randn(2, 3), torch.tensor([1, 0]), 2)


# --- T5: Bregman divergences ----------------------------------------------------------------------

ROOT = covariances(3)
DIVERGENCES = {
    "squared Euclidean": lambda z, c: ((z - c) ** 2).sum(-1),
    "Mahalanobis": lambda z, c: (((z - c) @ ROOT) * (z - c)).sum(-1),
    "Kullback–Leibler": lambda z, c: (z * (z / c).log() - z + c).sum(-1),
    "Itakura–Saito": lambda z, c: (z / c - (z / c).log() - 1).sum(-1),
}


@pytest.mark.parametrize("divergence", DIVERGENCES.values(), ids=DIVERGENCES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999))
def test_t4_the_prototype_minimises_every_bregman_divergence(divergence, seed):
    """Exactly: Σ_i d(z_i, c) = Σ_i d(z_i, z̄) + n d(z̄, c), so that no c does better than z̄."""
    points, other = randn(6, 3, seed=seed).exp(), randn(1, 3, seed=seed + 1).exp()
    prototype = class_prototypes(points, torch.zeros(6, dtype=torch.int64), 1)
    best, there = divergence(points, prototype).sum(), divergence(points, other).sum()
    assert there.item() == pytest.approx((best + 6 * divergence(prototype, other)).item())
    assert best <= there


def test_t4_the_unsquared_distance_is_no_bregman_divergence():
    points = torch.tensor([[0.0], [0.0], [3.0]]).double()
    mean, other = points.mean(0), torch.tensor([0.0]).double()
    cost = [(points - c).norm(dim=-1).sum().item() for c in (mean, other)]
    assert cost[1] < cost[0]


# --- T6: un-squared distances ---------------------------------------------------------------------


def test_t6_the_unsquared_softmax_is_a_posterior_of_exponential_densities():
    queries, means = QUERIES.numpy(), MEANS.numpy()
    expected = np.zeros((7, 4))
    for q in range(7):
        densities = [math.exp(-np.linalg.norm(queries[q] - c)) for c in means]
        expected[q] = [p * f for p, f in zip(PRIOR.tolist(), densities, strict=True)]
        expected[q] /= expected[q].sum()
    got = log_posterior(QUERIES, MEANS, "euclidean", log_prior=PRIOR.log())
    assert close(got.exp(), expected)


def summed_distance(points: Tensor, centre: Tensor, weights: Tensor | float = 1.0) -> Tensor:
    return (weights * (points - centre[..., None, :]).norm(dim=-1)).sum(dim=-1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 4))
def test_t6_no_point_has_a_smaller_summed_distance_than_the_geometric_median(seed, n, dimension):
    points = randn(n, dimension, seed=seed)
    median = geometric_median(points)
    best = summed_distance(points, median).item()
    found = minimize(
        lambda c: summed_distance(points, torch.tensor(c)).item(), points.mean(0).numpy(),
        method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000},
    )  # fmt: skip
    assert best <= found.fun + 1e-9
    assert best <= min(summed_distance(points, point).item() for point in points) + 1e-12
    assert best <= summed_distance(points, points.mean(0)).item() + 1e-12


def test_t6_on_a_line_it_is_the_weighted_median():
    points = torch.tensor([[5.0], [-1.0], [2.0], [40.0], [3.0]]).double()
    assert close(geometric_median(points), [3.0])
    heavy = torch.tensor([1.0, 9.0, 1.0, 1.0, 1.0]).double()
    assert close(geometric_median(points, heavy), [-1.0])


def test_t6_repeated_and_coincident_points_are_no_obstacle():
    assert close(geometric_median(torch.ones(4, 2).double()), [1.0, 1.0])
    points = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 5.0], [2.0, -7.0]]).double()
    assert close(geometric_median(points), [0.0, 0.0])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.floats(0.01, 100), st.floats(-100, 100))
def test_t6_the_geometric_median_moves_and_grows_with_the_points(seed, factor, shift):
    points = randn(7, 3, seed=seed)
    moved = geometric_median(factor * points + shift)
    assert close(moved, factor * geometric_median(points) + shift, 1e-5)


@pytest.mark.parametrize(
    ("points", "weights", "error", "message"),
    [
        (randn(3), None, ValueError, r"\(…, N, M\)"),
        (randn(0, 2), None, ValueError, "N ≥ 1"),
        (randn(3, 2), torch.ones(4), ValueError, "N = 3"),
        (randn(3, 2), torch.tensor([1.0, -1.0, 1.0]), ValueError, "at least 0"),
        (randn(3, 2), torch.zeros(3), ValueError, "positive"),
        (randn(3, 2), torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]), ValueError, "positive"),
        (torch.ones(3, 2).long(), None, TypeError, "floating"),
    ],
)
def test_the_geometric_median_refuses_with_a_reason(points, weights, error, message):
    with pytest.raises(error, match=message):
        geometric_median(points, weights)


def test_a_median_that_has_not_converged_is_not_returned():
    with pytest.raises(RuntimeError, match="after 1 steps"):
        geometric_median(randn(9, 3), max_steps=1)


# --- T7: von Mises–Fisher -------------------------------------------------------------------------


def vmf_log_density(queries: Tensor, directions: Tensor, concentration: float) -> np.ndarray:
    """Return log C_M(κ) + κ μᵀẑ, the normaliser with SciPy's Bessel function."""
    order = queries.shape[-1] / 2 - 1
    log_normaliser = (
        order * math.log(concentration)
        - (order + 1) * math.log(2 * math.pi)
        - math.log(ive(order, concentration))
        - concentration
    )
    return log_normaliser + concentration * (queries @ directions.T).numpy()


@pytest.mark.parametrize("concentration", [0.3, 20.0])
def test_t7_the_scaled_cosine_is_a_von_mises_fisher_posterior(concentration):
    queries, directions = (v / v.norm(dim=-1, keepdim=True) for v in (QUERIES, MEANS))
    density = np.exp(vmf_log_density(queries, directions, concentration)) * PRIOR.numpy()
    got = vmf_log_posterior(QUERIES, MEANS, concentration, PRIOR.log())
    assert close(got.exp(), density / density.sum(axis=1, keepdims=True))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.floats(0.1, 100))
def test_t7_it_is_also_the_gaussian_posterior_of_unit_vectors(seed, scale):
    """softmax(κ cos) = softmax(−(κ/2)‖ẑ−μ‖²): α = κ = 1/σ²."""
    queries, directions = randn(5, 3, seed=seed), randn(4, 3, seed=seed + 1)
    units = [v / v.norm(dim=-1, keepdim=True) for v in (queries, directions)]
    gaussian = gaussian_log_posterior(*units, variance_from_scale(scale, "cosine"))
    assert close(vmf_log_posterior(queries, directions, scale), gaussian, 1e-8)
    assert close(log_posterior(queries, directions, "cosine", scale), gaussian, 1e-8)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.floats(1e-3, 1e3))
def test_a_scale_on_squared_distances_is_the_gaussian_of_its_variance(seed, scale):
    queries, means = randn(5, 3, seed=seed), randn(4, 3, seed=seed + 1)
    gaussian = gaussian_log_posterior(queries, means, variance_from_scale(scale))
    assert close(gaussian, log_posterior(queries, means, scale=scale), 1e-8)


def test_what_has_no_gaussian_reading_is_refused():
    with pytest.raises(ValueError, match="got 'euclidean'"):
        variance_from_scale(1.0, "euclidean")
    for value in (0.0, -1.0, torch.tensor([1.0, 0.0])):
        with pytest.raises(ValueError, match="must be positive"):
            variance_from_scale(value)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999))
def test_t7_no_direction_is_more_likely_than_the_mean_direction(seed):
    """The likelihood grows with Σ μᵀẑ; lengths of the embeddings have no say."""
    embeddings, labels = randn(8, 3, seed=seed), torch.arange(8) % 2
    best = mean_direction(embeddings, labels, 2)
    assert close(best.norm(dim=-1), [1.0, 1.0])
    lengths = randn(8, 1, seed=seed + 1).exp()
    assert close(mean_direction(embeddings * lengths, labels, 2), best)
    others = randn(200, 3, seed=seed + 2)
    for k in range(2):
        members = embeddings[labels == k]
        likelihood = cosine_similarity(members, torch.cat([best[k : k + 1], others])).sum(0)
        assert likelihood.argmax().item() == 0


def test_t7_directions_that_cancel_have_no_mean():
    embeddings, labels = (
        torch.tensor([[1.0, 2.0], [-2.0, -4.0], [1.0, 0.0]]),
        torch.tensor([1, 1, 0]),
    )
    with pytest.raises(ValueError, match="class 1 cancel"):
        mean_direction(embeddings, labels, 2)
    with pytest.raises(ValueError, match="class 0 cancel"):
        mean_direction(torch.zeros(1, 2), torch.tensor([0]), 1)


@pytest.mark.parametrize("concentration", [-1.0, INFINITE, math.nan, torch.tensor([1.0, 2.0])])
def test_t7_needs_one_concentration(concentration):
    with pytest.raises(ValueError, match="concentration κ must be"):
        vmf_log_posterior(QUERIES, MEANS, concentration)


# --- T10: soft k-means ----------------------------------------------------------------------------


def test_t8_one_step_is_the_loop_of_ren_et_al():
    support, labels = randn(9, 3), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    unlabelled = randn(11, 3, seed=1)
    prototypes = class_prototypes(support, labels, 3)
    expected = np.zeros((3, 3))
    for k in range(3):
        above, below = np.zeros(3), 0.0
        for z, y in zip(support.numpy(), labels.tolist(), strict=True):
            above, below = above + (y == k) * z, below + (y == k)
        for z in unlabelled.numpy():
            closeness = [math.exp(-((z - c) ** 2).sum()) for c in prototypes.numpy()]
            share = closeness[k] / sum(closeness)
            above, below = above + share * z, below + share
        expected[k] = above / below
    got = soft_kmeans_refine(prototypes, torch.bincount(labels), unlabelled)
    assert close(got, expected)


def semi_supervised_log_likelihood(
    centres: Tensor, support: Tensor, labels: Tensor, unlabelled: Tensor, variance: float
) -> float:
    components = MultivariateNormal(centres, variance * torch.eye(3).double())
    mixture = MixtureSameFamily(Categorical(PRIOR[:3]), components)
    seen = components.log_prob(support[:, None]).gather(1, labels[:, None])
    return (seen.sum() + mixture.log_prob(unlabelled).sum()).item()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.floats(0.1, 3))
def test_t8_each_step_raises_the_likelihood_as_em_must(seed, variance):
    support, labels = 2 * randn(9, 3, seed=seed), torch.arange(9) % 3
    unlabelled, log_prior = 2 * randn(20, 3, seed=seed + 1), PRIOR[:3].log()
    first, scale = class_prototypes(support, labels, 3), 1 / (2 * variance)
    before = -INFINITE
    for steps in range(5):
        centres = soft_kmeans_refine(
            first, torch.bincount(labels), unlabelled, scale, log_prior, steps
        )
        now = semi_supervised_log_likelihood(centres, support, labels, unlabelled, variance)
        assert now >= before - 1e-9
        before = now


def test_t8_without_steps_or_unlabelled_points_nothing_moves():
    counts = torch.ones(4)
    assert torch.equal(soft_kmeans_refine(MEANS, counts, QUERIES, steps=0), MEANS)
    assert close(soft_kmeans_refine(MEANS, counts, randn(0, 3), steps=3), MEANS)


def test_t8_an_impossible_class_takes_no_point():
    log_prior = torch.tensor([0.0, -INFINITE, 0.0, 0.0])
    got = soft_kmeans_refine(MEANS, torch.ones(4), QUERIES, log_prior=log_prior)
    assert close(got[1], MEANS[1])
    assert (got[0] - MEANS[0]).abs().max() > 1e-3


def test_t8_is_batched_and_does_not_notice_a_translation():
    means, counts, unlabelled = randn(2, 4, 3), torch.rand(2, 4) + 1, randn(2, 9, 3, seed=1)
    got = soft_kmeans_refine(means, counts, unlabelled, steps=2)
    for e in range(2):
        assert close(got[e], soft_kmeans_refine(means[e], counts[e], unlabelled[e], steps=2))
    moved = soft_kmeans_refine(means + 1e4, counts, unlabelled + 1e4, steps=2)
    assert close(moved - 1e4, got, 1e-7)


def test_t8_refuses_with_a_reason():
    for counts in (torch.tensor([1, 1, 0, 1]), torch.ones(3)):
        with pytest.raises(ValueError, match="counts must be"):
            soft_kmeans_refine(MEANS, counts, QUERIES)
    with pytest.raises(ValueError, match="steps"):
        soft_kmeans_refine(MEANS, torch.ones(4), QUERIES, steps=-1)


# --- T9: unequal supports -------------------------------------------------------------------------


def test_t9_few_examples_inflate_squared_distances_by_what_the_formula_says():
    variance, dimension, n_draws = 2.0, 16, 20_000
    for count in (1, 5):
        means = math.sqrt(variance) * randn(n_draws, count, dimension, seed=count).mean(1)
        squared = ((randn(dimension) - means) ** 2).sum(-1)
        excess = squared - (randn(dimension) ** 2).sum()
        expected = support_size_correction(torch.tensor([count]), variance, dimension).item()
        assert abs(excess.mean() - expected) < 5 * excess.std() / math.sqrt(n_draws)


def test_t9_unequal_supports_bias_decisions_and_the_correction_repairs_them():
    """Errors near 98 % and 0 % become 23 % and 25 %; 3000 supports, 4 queries each."""
    n_episodes, n_query, dimension, counts = 3000, 4, 64, (1, 20)
    offset = torch.zeros(2, dimension, dtype=torch.float64)
    offset[1, 0] = 4.0  # separation 4, σ = 1
    supports = [
        randn(n_episodes, count, dimension, seed=k) + offset[k] for k, count in enumerate(counts)
    ]
    labels = torch.tensor([0] * counts[0] + [1] * counts[1]).expand(n_episodes, -1)
    prototypes = class_prototypes(torch.cat(supports, dim=1), labels, 2)
    queries = randn(n_episodes, 2, n_query, dimension, seed=7) + offset[:, None]
    correction = support_size_correction(torch.tensor(counts), 1.0, dimension)
    assert correction.tolist() == pytest.approx([64.0, 3.2])

    def errors(log_prior: Tensor | None) -> list[float]:
        flat = queries.flatten(1, 2)
        predicted = log_posterior(flat, prototypes, log_prior=log_prior).argmax(dim=-1)
        wrong = predicted.view(n_episodes, 2, n_query) != torch.tensor([0, 1])[:, None]
        return (100 * wrong.double().mean(dim=(0, 2))).tolist()

    assert errors(None) == pytest.approx([98.6, 0], abs=0.8)
    assert errors(correction.double()) == pytest.approx([22.4, 24.9], abs=2)


def test_t9_variances_may_differ_and_bad_counts_are_refused():
    counts = torch.tensor([[1, 2], [4, 8]])
    got = support_size_correction(counts, torch.tensor([2.0, 4.0]), 8)
    assert got.tolist() == [[16.0, 16.0], [4.0, 4.0]]
    with pytest.raises(ValueError, match="no prototype"):
        support_size_correction(torch.tensor([1, 0]), 1.0, 8)
    with pytest.raises(ValueError, match="variance"):
        support_size_correction(torch.tensor([1]), -1.0, 8)
    with pytest.raises(ValueError, match="dimension"):
        support_size_correction(torch.tensor([1]), 1.0, 0)


# --- types, gradients, refusals -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_gives_the_double_precision_result_to_its_rounding(dtype):
    queries, means = QUERIES.to(dtype), MEANS.to(dtype)
    labels, log_prior = torch.arange(7) % 3, PRIOR.log().to(dtype)
    for spread in SPREADS.values():
        got = gaussian_log_posterior(queries, means, log_prior=log_prior, **spread)
        assert got.dtype == dtype
        exact = gaussian_log_posterior(QUERIES, MEANS, log_prior=PRIOR.log(), **spread)
        assert close(got.exp(), exact.exp(), PRECISION[dtype])
    pairs = [
        (gaussian_log_density(queries, means), gaussian_log_density(QUERIES, MEANS)),
        (
            vmf_log_posterior(queries, means, 5.0).exp(),
            vmf_log_posterior(QUERIES, MEANS, 5.0).exp(),
        ),
        (mean_direction(queries, labels, 3), mean_direction(QUERIES, labels, 3)),
        (shared_variance(queries, labels, 3), shared_variance(QUERIES, labels, 3)),
        (geometric_median(queries), geometric_median(QUERIES)),
        (linear_form(means)[0], linear_form(MEANS)[0]),
        (linear_form(means)[1], linear_form(MEANS)[1]),
        (
            soft_kmeans_refine(means, torch.ones(4), queries),
            soft_kmeans_refine(MEANS, torch.ones(4), QUERIES),
        ),
    ]
    for got, exact in pairs:
        assert got.dtype == dtype
        assert close(got, exact, PRECISION[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_posteriors_are_never_nan_however_far_the_query(dtype):
    queries = torch.tensor([[300.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=dtype)
    means = torch.tensor([[-300.0, 0.0, 0.0], [300.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    for spread in SPREADS.values():
        got = gaussian_log_posterior(queries, means.to(dtype), **spread)
        assert not got.isnan().any()
        assert close(got.exp().sum(-1), [1.0, 1.0], PRECISION[dtype])


def test_autocast_changes_nothing():
    queries, means = QUERIES.float(), MEANS.float()

    def everything():
        return [
            *(gaussian_log_posterior(queries, means, **spread) for spread in SPREADS.values()),
            *linear_form(means, covariance=covariances(3).float()),
            mean_direction(queries, torch.arange(7) % 3, 3),
            soft_kmeans_refine(means, torch.ones(4), queries),
            geometric_median(queries),
        ]

    plain = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = everything()
    assert all(torch.equal(one, other) for one, other in zip(plain, cast, strict=True))


@pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS)
def test_gradients_are_right(spread):
    queries, means = randn(3, 3).requires_grad_(), randn(4, 3, seed=1).requires_grad_()
    log_prior = randn(4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z, c, p: gaussian_log_posterior(z, c, log_prior=p, **spread),
        (queries, means, log_prior),
    )


def test_gradients_of_spread_refinement_and_direction_are_right():
    queries, means = randn(3, 3).requires_grad_(), randn(4, 3, seed=1).requires_grad_()
    variance = (torch.rand(4).double() + 0.5).requires_grad_()
    root = (randn(3, 3, seed=2) + 3 * torch.eye(3)).requires_grad_()
    check = torch.autograd.gradcheck
    assert check(lambda v: gaussian_log_density(queries, means, v), variance)
    assert check(lambda r: gaussian_log_density(queries, means, covariance=r @ r.mT), root)
    assert check(lambda c, z: soft_kmeans_refine(c, torch.ones(4), z, steps=2), (means, queries))
    assert check(lambda c: linear_form(c, 0.7), means)
    assert check(lambda z: mean_direction(z, torch.tensor([0, 1, 1]), 2), queries)


@pytest.mark.parametrize("function", [gaussian_log_density, gaussian_log_posterior])
@pytest.mark.parametrize(
    ("spread", "message"),
    [
        ({"variance": 1.0, "covariance": torch.eye(3)}, "not both"),
        ({"variance": 0.0}, "positive and finite"),
        ({"variance": torch.tensor([1.0, -1.0, 1.0, 1.0])}, "positive and finite"),
        ({"variance": INFINITE}, "positive and finite"),
        ({"variance": torch.ones(3)}, r"K = 4\), got \(3,\)"),
        ({"covariance": torch.eye(2)}, r"M = 3, got \(1, 2, 2\)"),
        ({"covariance": torch.eye(3).expand(2, 3, 3)}, r"K = 4 and M = 3, got \(2, 3, 3\)"),
        ({"covariance": torch.ones(3)}, "covariance must be"),
        ({"covariance": torch.ones(3, 3)}, "positive definite"),
        ({"covariance": -torch.eye(3)}, "positive definite"),
        ({"covariance": torch.eye(3) + torch.ones(3, 3).triu(1)}, "symmetric"),
        ({"covariance": torch.full((3, 3), math.nan)}, "symmetric"),
    ],
)
def test_a_spread_that_is_none_is_refused(function, spread, message):
    with pytest.raises(ValueError, match=message):
        function(QUERIES, MEANS, **spread)


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_symmetry_is_judged_by_the_size_of_the_covariance(size):
    skew = torch.zeros(3, 3).double()
    skew[0, 1] = 1.0
    covariance = size * torch.eye(3).double()
    gaussian_log_density(QUERIES, MEANS, covariance=covariance + 1e-5 * size * skew)
    with pytest.raises(ValueError, match="symmetric"):
        gaussian_log_density(QUERIES, MEANS, covariance=covariance + 1e-3 * size * skew)


def test_shapes_types_and_priors_are_checked_as_for_prototypes():
    with pytest.raises(ValueError, match="one D"):
        gaussian_log_posterior(randn(3, 2), MEANS)
    with pytest.raises(TypeError, match="one type"):
        vmf_log_posterior(QUERIES.float(), MEANS, 1.0)
    with pytest.raises(ValueError, match="log_prior"):
        gaussian_log_posterior(QUERIES, MEANS, log_prior=torch.zeros(3))
    with pytest.raises(ValueError, match="no class is possible"):
        linear_form(MEANS, log_prior=torch.full((4,), -INFINITE))
    with pytest.raises(TypeError, match="floating"):
        linear_form(MEANS.long())
    with pytest.raises(TypeError, match="tensor"):
        mean_direction([[1.0]], torch.tensor([0]), 1)
