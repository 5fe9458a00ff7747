"""Prototypes, distances, posteriors and grids, held to loops, SciPy, NumPy and to their laws."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist
from scipy.special import log_softmax
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fewshot_lib.prototypes import (
    DISTANCES,
    POOLINGS,
    cells_to_positions,
    class_prototypes,
    cosine_similarity,
    grid_prototypes,
    local_similarity,
    log_posterior,
    masked_prototypes,
    similarity,
    squared_euclidean,
)

INFINITE = float("inf")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
PRECISION = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 3e-3}


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def rand_masks(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, generator=generator) > 0.6).to(dtype)


def vectors(rows: tuple[int, int], columns: int):
    """Draw matrices of moderate numbers."""
    return st.integers(*rows).flatmap(
        lambda n: hnp.arrays(np.float64, (n, columns), elements=st.floats(-8, 8, width=32))
    )


def close(got: Tensor, expected, tolerance: float = 1e-9) -> bool:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    return got.shape == expected.shape and torch.allclose(
        got.double(), expected, rtol=tolerance, atol=tolerance
    )


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            # An expanded view costs nothing: count what is really stored.
            if isinstance(tensor, Tensor):
                self.numel = max(
                    self.numel, tensor.untyped_storage().nbytes() // tensor.element_size()
                )
        return out


# --- class prototypes -----------------------------------------------------------------------------


def prototypes_by_loop(embeddings: np.ndarray, labels: np.ndarray, n_way: int) -> np.ndarray:
    result = np.zeros((n_way, embeddings.shape[1]))
    for k in range(n_way):
        members = [embeddings[i] for i in range(len(labels)) if labels[i] == k]
        for member in members:
            result[k] += member / len(members)
    return result


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (0,)])
@pytest.mark.parametrize(
    ("n_way", "k_shot", "dimension"), [(1, 1, 1), (1, 4, 3), (5, 1, 2), (3, 4, 6)]
)
def test_class_prototypes_are_the_loop_specification(leading, n_way, k_shot, dimension):
    embeddings = randn(*leading, n_way * k_shot, dimension)
    rows = torch.arange(n_way * k_shot) % n_way
    shuffles = randn(math.prod(leading), len(rows), seed=1).argsort()
    labels = rows[shuffles]
    labels = labels.view(*leading, len(rows))
    got = class_prototypes(embeddings, labels, n_way)
    assert got.shape == (*leading, n_way, dimension)
    for index in itertools.product(*map(range, leading)):
        expected = prototypes_by_loop(embeddings[index].numpy(), labels[index].numpy(), n_way)
        assert close(got[index], expected)


@settings(max_examples=40, deadline=None)
@given(vectors((3, 9), 4), st.randoms(use_true_random=False))
def test_prototypes_do_not_depend_on_support_order(array, random):
    labels = [0, 1, 2, *(random.randrange(3) for _ in range(len(array) - 3))]
    order = random.sample(range(len(array)), len(array))
    embeddings, labels = torch.tensor(array), torch.tensor(labels)
    expected = class_prototypes(embeddings, labels, 3)
    assert close(class_prototypes(embeddings[order], labels[order], 3), expected)


@settings(max_examples=40, deadline=None)
@given(vectors((4, 9), 3), st.permutations(range(4)))
def test_renaming_the_classes_reorders_the_prototypes(array, renamed):
    embeddings, labels = torch.tensor(array), torch.arange(len(array)) % 4
    new = torch.tensor(renamed)
    before = class_prototypes(embeddings, labels, 4)
    assert close(class_prototypes(embeddings, new[labels], 4)[new], before)


@settings(max_examples=30, deadline=None)
@given(vectors((3, 9), 3), st.floats(-20, 20), st.floats(-20, 20))
def test_prototypes_follow_an_affine_map_of_the_embeddings(array, factor, offset):
    embeddings, labels = torch.tensor(array), torch.arange(len(array)) % 3
    before = class_prototypes(embeddings, labels, 3)
    assert close(
        class_prototypes(factor * embeddings + offset, labels, 3), factor * before + offset
    )


def test_a_mean_of_large_half_precision_numbers_does_not_overflow():
    embeddings = torch.full((100, 2), 60_000.0, dtype=torch.float16)
    got = class_prototypes(embeddings, torch.zeros(100, dtype=torch.int64), 1)
    assert got.dtype == torch.float16
    assert torch.equal(got, embeddings[:1])


@pytest.mark.parametrize(
    ("embeddings", "labels", "n_way", "error", "message"),
    [
        (randn(3, 2), torch.tensor([0, 1, 2]), 2, ValueError, r"0 … n_way−1 = 1, got 0 … 2"),
        (randn(3, 2), torch.tensor([0, -1, 1]), 2, ValueError, "number the episode's classes anew"),
        (randn(3, 2), torch.tensor([0, 0, 2]), 3, ValueError, "class 1 has no support"),
        (randn(2, 3, 2), torch.tensor([[0, 1, 1], [0, 0, 0]]), 2, ValueError, "class 1 has"),
        (randn(0, 2), torch.tensor([], dtype=torch.int64), 2, ValueError, "class 0, 1 has"),
        (randn(3, 2), torch.tensor([0, 1]), 2, ValueError, r"\(3, 2\) and \(2,\)"),
        (randn(2, 3, 2), torch.tensor([0, 1, 1]), 2, ValueError, "same leading dimensions"),
        (randn(3), torch.tensor([0, 1, 1]), 2, ValueError, r"\(…, N, D\)"),
        (randn(3, 2), torch.tensor([0, 0, 0]), 0, ValueError, "n_way"),
        (randn(3, 2), torch.tensor([0.0, 1.0, 1.0]), 2, TypeError, "integer"),
        (randn(3, 2), torch.tensor([True, False, True]), 2, TypeError, "integer"),
        (torch.ones(3, 2, dtype=torch.int64), torch.tensor([0, 1, 1]), 2, TypeError, "floating"),
        ([[1.0]], torch.tensor([0]), 1, TypeError, "tensor"),
    ],
)
def test_class_prototypes_refuse_with_a_reason(embeddings, labels, n_way, error, message):
    with pytest.raises(error, match=message):
        class_prototypes(embeddings, labels, n_way)


# --- distances and similarities -------------------------------------------------------------------

ORACLES = {
    "squared_euclidean": lambda z, c: -cdist(z, c, "sqeuclidean"),
    "euclidean": lambda z, c: -cdist(z, c, "euclidean"),
    "cosine": lambda z, c: 1 - cdist(z, c, "cosine"),
}


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("n_query", "n_class", "dimension"), [(1, 1, 1), (0, 3, 2), (4, 1, 3), (30, 40, 5)]
)
def test_similarities_are_scipys_distances(distance, n_query, n_class, dimension):
    queries, prototypes = randn(n_query, dimension), randn(n_class, dimension, seed=1)
    expected = ORACLES[distance](queries.numpy(), prototypes.numpy()).reshape(n_query, n_class)
    assert close(similarity(queries, prototypes, distance), expected)


@pytest.mark.parametrize("distance", DISTANCES)
def test_leading_dimensions_broadcast_and_inputs_may_be_non_contiguous(distance):
    queries, prototypes = randn(2, 1, 3, 4).mT, randn(5, 3, 6, seed=1).mT
    assert not queries.is_contiguous()
    got = similarity(queries, prototypes, distance)
    assert got.shape == (2, 5, 4, 6)
    for i, j in itertools.product(range(2), range(5)):
        assert close(got[i, j], ORACLES[distance](queries[i, 0].numpy(), prototypes[j].numpy()))


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_squared_distances_survive_a_large_common_offset(offset):
    """As torch.cdist's matrix-product path does not: the last line shows the pitfall."""
    vectors = randn(64, 32, dtype=torch.float32) + offset
    exact = torch.tensor(cdist(vectors.double().numpy(), vectors.double().numpy(), "sqeuclidean"))
    got = squared_euclidean(vectors, vectors)
    assert torch.equal(got.diagonal(), torch.zeros(64))
    assert close(got, exact, 1e-5)
    if offset:
        assert torch.cdist(vectors, vectors).diagonal().max() > 0.1


def test_gradients_of_squared_distances_survive_an_offset_too():
    queries = (randn(6, 3) + 1e4).float().requires_grad_()
    prototypes = (randn(4, 3, seed=1) + 1e4).float().requires_grad_()
    weights = randn(6, 4, seed=2)
    (squared_euclidean(queries, prototypes) * weights.float()).sum().backward()
    differences = queries.detach().double()[:, None] - prototypes.detach().double()[None]
    exact = 2 * weights[..., None] * differences
    assert close(queries.grad, exact.sum(1), 1e-5)
    assert close(prototypes.grad, -exact.sum(0), 1e-5)


def test_squared_distances_never_hold_all_differences_in_memory():
    queries = randn(200, 64, dtype=torch.float32).requires_grad_()
    prototypes = randn(50, 64, seed=1, dtype=torch.float32).requires_grad_()
    with Largest() as largest:
        squared_euclidean(queries, prototypes).sum().backward()
    assert largest.numel <= 200 * 64


def test_similarities_have_right_derivatives():
    queries = randn(2, 3, 4).requires_grad_()
    prototypes = randn(5, 4, seed=1).requires_grad_()
    for distance in DISTANCES:
        inputs = (queries, prototypes)
        assert torch.autograd.gradcheck(lambda z, c, d=distance: similarity(z, c, d), inputs)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("leading", [(), (2,), (0,)])
def test_without_a_query_the_gradient_is_zero(distance, leading):
    queries, prototypes = randn(*leading, 0, 4).requires_grad_(), randn(5, 4).requires_grad_()
    similarity(queries, prototypes, distance).sum().backward()
    assert queries.grad.shape == queries.shape
    assert torch.equal(prototypes.grad, torch.zeros(5, 4).double())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("distance", DISTANCES)
def test_coincident_and_zero_vectors_have_finite_values_and_gradients(distance, dtype):
    queries = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=dtype, requires_grad=True)
    prototypes = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=dtype, requires_grad=True)
    got = similarity(queries, prototypes, distance)
    got.sum().backward()
    expected = {
        "squared_euclidean": [[0.0, -5.0], [-5.0, 0.0]],
        "euclidean": [[0.0, -math.sqrt(5)], [-math.sqrt(5), 0.0]],
        "cosine": [[0.0, 0.0], [0.0, 1.0]],
    }[distance]
    assert close(got, expected, PRECISION[dtype])
    assert got.dtype == dtype
    assert queries.grad.isfinite().all()
    assert prototypes.grad.isfinite().all()


LIMITS = {torch.float64: 300, torch.float32: 37, torch.bfloat16: 37, torch.float16: 4}


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_cosine_knows_no_length(dtype, data):
    limit = LIMITS[dtype]
    size = st.integers(-limit, limit).map(lambda power: 10.0**power)
    one, other = data.draw(size), data.draw(size)
    # Rounded to ±1, so that the stretched vectors have exactly the same direction.
    queries, prototypes = randn(4, 3).sign().to(dtype), randn(5, 3, seed=1).sign().to(dtype)
    got = cosine_similarity(queries * one, prototypes * other)
    assert close(got, queries.double() @ prototypes.double().T / 3, PRECISION[dtype])
    assert got.abs().max() <= 1


@settings(max_examples=40, deadline=None)
@given(vectors((1, 5), 3))
def test_cosine_stays_between_minus_one_and_one(array):
    single = torch.tensor(array, dtype=torch.float32)
    assert cosine_similarity(single, single).abs().max() <= 1


@pytest.mark.parametrize(
    "function", [squared_euclidean, cosine_similarity, similarity, log_posterior]
)
def test_comparing_refuses_with_a_reason(function):
    queries = randn(3, 2)
    with pytest.raises(ValueError, match=r"with one D, got \(3, 2\) and \(4, 3\)"):
        function(queries, randn(4, 3))
    with pytest.raises(ValueError, match="leading dimensions"):
        function(randn(2, 3, 2), randn(3, 4, 2))
    with pytest.raises(ValueError, match=r"\(…, Q, D\)"):
        function(randn(2), randn(4, 2))
    with pytest.raises(TypeError, match="one type"):
        function(queries, queries.float())
    with pytest.raises(TypeError, match="prototypes must be floating point"):
        function(queries, queries.long())


def test_an_unknown_distance_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="squared_euclidean, euclidean, cosine, got 'manhattan'"):
        log_posterior(randn(3, 2), randn(4, 2), "manhattan")


# --- posteriors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_posterior_is_scipys_softmax(distance):
    queries, prototypes, log_prior = randn(4, 3), randn(5, 3, seed=1), randn(5, seed=2)
    logits = 2.5 * ORACLES[distance](queries.numpy(), prototypes.numpy()) + log_prior.numpy()
    got = log_posterior(queries, prototypes, distance, 2.5, log_prior)
    assert close(got, log_softmax(logits, axis=1))


@settings(max_examples=40, deadline=None)
@given(vectors((0, 5), 3), vectors((1, 5), 3), st.sampled_from(DISTANCES), st.floats(0, 50))
def test_a_posterior_sums_to_one(queries, prototypes, distance, scale):
    got = log_posterior(torch.tensor(queries), torch.tensor(prototypes), distance, scale)
    assert close(got.exp().sum(dim=-1), np.ones(len(queries)))
    assert (got <= 0).all()


@settings(max_examples=40, deadline=None)
@given(vectors((1, 5), 3), vectors((2, 5), 3), vectors((1, 1), 3))
def test_a_squared_euclidean_posterior_does_not_notice_a_translation(queries, prototypes, shift):
    queries, prototypes, shift = map(torch.tensor, (queries, prototypes, shift))
    before = log_posterior(queries, prototypes)
    assert close(log_posterior(queries + shift, prototypes + shift), before, 1e-8)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(5)), st.sampled_from(DISTANCES))
def test_reordering_the_classes_reorders_the_posterior(order, distance):
    queries, prototypes, log_prior = randn(4, 3), randn(5, 3, seed=1), randn(5, seed=2)
    before = log_posterior(queries, prototypes, distance, 1.5, log_prior)
    after = log_posterior(queries, prototypes[order], distance, 1.5, log_prior[order])
    assert close(after, before[:, order])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.floats(-30, 30))
def test_a_prior_need_not_be_normalised(seed, constant):
    queries, prototypes, log_prior = randn(4, 3), randn(5, 3, seed=1), randn(5, seed=seed)
    before = log_posterior(queries, prototypes, log_prior=log_prior)
    assert close(log_posterior(queries, prototypes, log_prior=log_prior + constant), before)


def test_an_impossible_class_is_as_if_it_were_not_there():
    queries, prototypes = randn(4, 3), randn(5, 3, seed=1)
    there = torch.tensor([True, False, True, True, False])
    log_prior = torch.where(there, 0.0, -INFINITE)
    by_prior = log_posterior(queries, prototypes, log_prior=log_prior)
    by_flag = log_posterior(queries, prototypes, valid=there)
    assert torch.equal(by_prior, by_flag)
    assert close(by_flag[:, there], log_posterior(queries, prototypes[there]))
    assert torch.equal(by_flag[:, ~there], torch.full((4, 2), -INFINITE).double())


def test_an_impossible_class_has_no_say_in_the_gradient():
    prototypes = randn(3, 2, seed=1).requires_grad_()
    valid = torch.tensor([True, True, False])
    log_posterior(randn(4, 2), prototypes, valid=valid)[:, 0].sum().backward()
    assert prototypes.grad.isfinite().all()
    assert prototypes.grad[:2].abs().min() > 0
    assert torch.equal(prototypes.grad[2], torch.zeros(2).double())


def test_priors_and_validity_may_differ_by_episode():
    queries, prototypes = randn(2, 4, 3), randn(2, 3, 3, seed=1)
    log_prior, valid = randn(2, 3, seed=2), torch.tensor([[True, True, False], [True, True, True]])
    got = log_posterior(queries, prototypes, log_prior=log_prior, valid=valid)
    for e in range(2):
        alone = log_posterior(queries[e], prototypes[e], log_prior=log_prior[e], valid=valid[e])
        assert close(got[e], alone)


def test_a_learnt_scale_and_prior_have_gradients():
    scale, log_prior = torch.tensor(1.3).double().requires_grad_(), randn(5).requires_grad_()
    queries, prototypes = randn(4, 3).requires_grad_(), randn(5, 3, seed=1).requires_grad_()
    for distance in DISTANCES:
        assert torch.autograd.gradcheck(
            lambda z, c, a, b, d=distance: log_posterior(z, c, d, a, b),
            (queries, prototypes, scale, log_prior),
        )


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_posteriors_are_never_nan_however_far_the_query(distance, dtype):
    queries = torch.tensor([[200.0, 0.0], [0.0, 0.0], [1.0, -3e4]], dtype=dtype, requires_grad=True)
    prototypes = torch.tensor([[-200.0, 0.0], [0.0, 0.0], [1e4, 1.0]], dtype=dtype)
    got = log_posterior(queries, prototypes, distance, 20.0)
    got.exp().sum().backward()
    assert got.dtype == dtype
    assert not got.isnan().any()
    assert close(got.exp().sum(-1), [1.0] * 3, PRECISION[dtype])
    assert queries.grad.isfinite().all()


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_gives_the_double_precision_posterior_to_its_rounding(distance, dtype):
    queries, prototypes = randn(20, 8).to(dtype), randn(5, 8, seed=1).to(dtype)
    exact = log_posterior(queries.double(), prototypes.double(), distance)
    assert close(log_posterior(queries, prototypes, distance).exp(), exact.exp(), PRECISION[dtype])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"scale": -1.0}, ValueError, "scale must be finite and at least 0, got -1.0"),
        ({"scale": INFINITE}, ValueError, "scale"),
        ({"scale": math.nan}, ValueError, "scale"),
        ({"log_prior": torch.zeros(4)}, ValueError, r"log_prior must be .* K = 5 .* \(4,\)"),
        ({"log_prior": torch.tensor(0.0)}, ValueError, "log_prior"),
        ({"log_prior": torch.full((5,), math.nan)}, ValueError, "finite or −inf"),
        ({"log_prior": torch.full((5,), INFINITE)}, ValueError, "finite or −inf"),
        ({"log_prior": torch.full((5,), -INFINITE)}, ValueError, "no class is possible"),
        ({"log_prior": torch.zeros(5, dtype=torch.int64)}, TypeError, "log_prior"),
        ({"valid": torch.zeros(5, dtype=torch.bool)}, ValueError, "no class is possible"),
        ({"valid": torch.ones(5)}, TypeError, "valid must be bool"),
        ({"valid": torch.ones(3, dtype=torch.bool)}, ValueError, "valid must be"),
    ],
)
def test_a_posterior_refuses_with_a_reason(changes, error, message):
    with pytest.raises(error, match=message):
        log_posterior(randn(3, 2), randn(5, 2), **changes)


# --- masked pooling -------------------------------------------------------------------------------


def upsampled(features: Tensor, size: tuple[int, int]) -> Tensor:
    flat = features.flatten(0, -4)
    up = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    return up.view(*features.shape[:-2], *size)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.integers(1, 9)] * 4),
    st.integers(1, 3),
    st.integers(0, 99),
    st.sampled_from(POOLINGS),
)
def test_masked_pooling_is_upsampling_then_averaging_at_every_size(sizes, n_support, seed, pooling):
    features = randn(n_support, 2, *sizes[:2], seed=seed)
    masks = torch.rand(n_support, 4, *sizes[2:], dtype=torch.float64)  # soft
    masks[:, 2] = 0  # a class that no image shows
    masks[0, 3] = 0  # a class that one image lacks
    prototypes, valid = masked_prototypes(features, masks, pooling)
    sums = torch.einsum("skhw,sdhw->skd", masks, upsampled(features, masks.shape[-2:]))
    mass = masks.sum(dim=(2, 3))[..., None]
    shown = (mass > 0).sum(0)
    of_pixels, of_images = sums.sum(0) / mass.sum(0), (sums / mass).nansum(0) / shown
    expected = of_pixels if pooling == "pixels" else of_images
    assert close(prototypes, expected.nan_to_num(0), 1e-10)
    assert torch.equal(valid, shown[:, 0] > 0)


def test_masked_pooling_never_makes_the_upsampled_features():
    features, masks = randn(2, 64, 8, 8).requires_grad_(), rand_masks(2, 3, 32, 32)
    with Largest() as largest:
        prototypes, _ = masked_prototypes(features, masks)
        prototypes.sum().backward()
    assert largest.numel <= max(features.numel(), masks.numel())


@pytest.mark.parametrize("pooling", POOLINGS)
def test_no_organ_is_too_small_to_be_pooled(pooling):
    """Shrinking masks with "nearest" at stride 8 loses most organs of 3 pixels; this loses none."""
    features, where = randn(1, 3, 4, 4), itertools.product(range(32), range(32))
    masks = torch.zeros(1, 1024, 32, 32, dtype=torch.float64)
    for k, (i, j) in enumerate(where):
        masks[0, k, i, j] = 1
    prototypes, valid = masked_prototypes(features, masks, pooling)
    assert valid.all()
    assert close(prototypes, upsampled(features, (32, 32))[0].flatten(1).T, 1e-12)
    shrunk = F.interpolate(masks, size=(4, 4), mode="nearest")
    assert (shrunk.sum(dim=(2, 3)) == 0).double().mean() > 0.9


@pytest.mark.parametrize("pooling", POOLINGS)
def test_support_order_does_not_matter_and_classes_are_reordered_with_their_masks(pooling):
    features, masks = randn(4, 3, 3, 5), rand_masks(4, 3, 6, 7)
    before, _ = masked_prototypes(features, masks, pooling)
    images, classes = [2, 0, 3, 1], [1, 2, 0]
    assert close(masked_prototypes(features[images], masks[images], pooling)[0], before)
    assert close(masked_prototypes(features, masks[:, classes], pooling)[0], before[classes])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_masked_pooling_is_batched_over_leading_dimensions(pooling):
    features, masks = randn(2, 3, 4, 5, 3, 6).transpose(0, 1), rand_masks(3, 2, 4, 2, 9, 7)
    assert not features.is_contiguous()
    masks[1, 0] = 0
    prototypes, valid = masked_prototypes(features, masks, pooling)
    assert prototypes.shape == (3, 2, 2, 5)
    assert valid.shape == (3, 2, 2)
    for i, j in itertools.product(range(3), range(2)):
        alone, alone_valid = masked_prototypes(features[i, j], masks[i, j], pooling)
        assert close(prototypes[i, j], alone, 1e-12)
        assert torch.equal(valid[i, j], alone_valid)


@pytest.mark.parametrize(
    "pool",
    [*(partial(masked_prototypes, pooling=p) for p in POOLINGS), partial(grid_prototypes, grid=2)],
)
@pytest.mark.parametrize("n_support", [0, 2])
def test_an_unsupported_class_is_flagged_and_harmless(pool, n_support):
    features = randn(n_support, 3, 2, 2).requires_grad_()
    prototypes, valid = pool(features, torch.zeros(n_support, 2, 4, 4))
    assert not valid.any()
    assert prototypes.shape[:2] == (2, 3)
    assert not prototypes.any()
    prototypes.sum().backward()
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_masks_of_any_type_mean_the_same():
    features, masks = randn(2, 3, 3, 3, dtype=torch.float32), rand_masks(2, 4, 7, 5)
    expected, _ = masked_prototypes(features, masks)
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32):
        assert torch.equal(masked_prototypes(features, masks.to(dtype))[0], expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_in_every_type_gives_the_double_precision_result_to_its_rounding(pooling, dtype):
    features = (100 * randn(2, 3, 16, 16)).to(dtype).requires_grad_()
    masks = torch.ones(2, 2, 128, 128, dtype=dtype)  # a mass far beyond half precision's integers
    masks[:, 1] = 0
    masks[0, 1, 5, 5] = 1
    prototypes, valid = masked_prototypes(features, masks, pooling)
    exact, _ = masked_prototypes(features.double(), masks.double(), pooling)
    assert prototypes.dtype == dtype
    assert valid.all()
    assert close(prototypes, exact, PRECISION[dtype])
    prototypes.sum().backward()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_coarsen_the_prototypes(dtype):
    features, masks = randn(2, 8, 12, 12, dtype=torch.float32), rand_masks(2, 3, 96, 96)
    queries, labels = randn(30, 8, dtype=torch.float32) + 50, torch.arange(30) % 3

    def everything():
        pooled = masked_prototypes(features, masks)[0]
        gridded = grid_prototypes(features, masks, 5)[0]
        means = class_prototypes(queries, labels, 3)
        return pooled, gridded, means, *(log_posterior(queries, means, d) for d in DISTANCES)

    plain = everything()
    with torch.autocast("cpu", dtype=dtype):
        cast = everything()
    for one, other in zip(plain, cast, strict=True):
        assert torch.equal(one, other)


def test_masked_pooling_has_right_gradients_for_features_and_soft_masks():
    features = randn(2, 3, 3, 2).requires_grad_()
    masks = torch.rand(2, 2, 5, 4, dtype=torch.float64).mul(0.8).add(0.1).requires_grad_()
    for pooling in POOLINGS:
        assert torch.autograd.gradcheck(
            lambda f, m, p=pooling: masked_prototypes(f, m, p)[0], (features, masks)
        )


@pytest.mark.parametrize("function", [masked_prototypes, lambda f, m: grid_prototypes(f, m, 2)])
@pytest.mark.parametrize(
    ("features", "masks", "error", "message"),
    [
        (randn(2, 3, 4, 4), torch.ones(3, 2, 8, 8), ValueError, "same leading dimensions and S"),
        (randn(2, 3, 4, 4), torch.ones(2, 8, 8), ValueError, r"\(…, S, K, H, W\)"),
        (randn(3, 4, 4), torch.ones(2, 8, 8), ValueError, r"\(…, S, D, H', W'\)"),
        (randn(2, 3, 4, 4), torch.ones(2, 2, 0, 8), ValueError, "expected features"),
        (randn(2, 3, 4, 4), torch.full((2, 2, 8, 8), 2), ValueError, "0 … 1, .* got 2 … 2"),
        (randn(2, 3, 4, 4), torch.full((2, 2, 8, 8), -0.1), ValueError, "one_hot"),
        (randn(2, 3, 4, 4), torch.full((2, 2, 8, 8), math.nan), ValueError, "nan"),
        (torch.ones(2, 3, 4, 4).long(), torch.ones(2, 2, 8, 8), TypeError, "floating"),
    ],
)
def test_pooling_refuses_with_a_reason(function, features, masks, error, message):
    with pytest.raises(error, match=message):
        function(features, masks)


def test_pooling_refuses_unknown_options():
    features, masks = randn(1, 2, 4, 4), torch.ones(1, 1, 8, 8)
    with pytest.raises(ValueError, match="pixels, images, got 'image'"):
        masked_prototypes(features, masks, "image")
    for share in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="min_share"):
            grid_prototypes(features, masks, 2, min_share=share)
    for grid in (0, 5, (1, 5), (-1, 2)):
        with pytest.raises(ValueError, match="1 … 4 by 1 … 4 cells"):
            grid_prototypes(features, masks, grid)


# --- grids ----------------------------------------------------------------------------------------

GRIDS = [(1, 1), (2, 3), (3, 2), (4, 4), (7, 5), (1, 5), (7, 1), (6, 4)]


def cell_by_loop(position: int, n_positions: int, n_cells: int) -> int:
    """Return the last cell whose left edge, at cell·n/cells, is not beyond the position."""
    return max(c for c in range(n_cells) if c * n_positions <= position * n_cells)


@pytest.mark.parametrize("grid", GRIDS)
def test_grid_prototypes_are_means_over_the_windows(grid):
    features, masks = randn(3, 4, 7, 5), torch.rand(3, 2, 7, 5, dtype=torch.float64)
    masks[:, 1, :4, :3] = 0
    prototypes, valid = grid_prototypes(features, masks, grid)
    assert prototypes.shape == (2, 4, *grid)
    for k, r, c in itertools.product(range(2), range(grid[0]), range(grid[1])):
        total, mass = torch.zeros(4, dtype=torch.float64), 0.0
        for s, i, j in itertools.product(range(3), range(7), range(5)):
            if cell_by_loop(i, 7, grid[0]) == r and cell_by_loop(j, 5, grid[1]) == c:
                total += masks[s, k, i, j] * features[s, :, i, j]
                mass += masks[s, k, i, j].item()
        assert valid[k, r, c].item() == (mass > 0)
        assert close(prototypes[k, :, r, c], total / mass if mass else total, 1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.data())
def test_windows_part_the_positions_evenly(n_positions, data):
    n_cells = data.draw(st.integers(1, n_positions))
    cells = cells_to_positions(torch.arange(n_cells)[None], (1, n_positions))[0].tolist()
    assert cells == [cell_by_loop(i, n_positions, n_cells) for i in range(n_positions)]
    sizes = [cells.count(c) for c in range(n_cells)]
    assert sum(sizes) == n_positions
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 4), st.integers(0, 99))
def test_one_cell_is_the_global_prototype(sizes, seed):
    features = randn(2, 3, 4, *sizes[:2], seed=seed)
    masks = rand_masks(2, 3, 5, *sizes[2:], seed=seed)
    masks[..., 3, :, :] = 0
    prototypes, valid = grid_prototypes(features, masks, 1)
    expected, expected_valid = masked_prototypes(features, masks)
    assert close(prototypes[..., 0, 0], expected, 1e-12)
    assert torch.equal(valid[..., 0, 0], expected_valid)


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(1, 7)] * 2), st.integers(0, 99), st.data())
def test_the_cells_together_hold_the_whole_mass(size, seed, data):
    """Weighted by their mass, the cells' prototypes average to the global one."""
    grid = tuple(data.draw(st.integers(1, n)) for n in size)
    features = randn(2, 3, *size, seed=seed)
    masks = torch.rand(2, 2, *size, dtype=torch.float64)
    prototypes, _ = grid_prototypes(features, masks, grid)
    index = cells_to_positions(torch.arange(grid[0] * grid[1]).view(grid), size).flatten()
    mass = torch.zeros(2, grid[0] * grid[1], dtype=torch.float64)
    mass.index_add_(1, index, masks.sum(0).flatten(1))
    mean = (prototypes.flatten(2) * mass[:, None]).sum(-1) / mass.sum(-1, keepdim=True)
    assert close(mean, masked_prototypes(features, masks)[0], 1e-10)


def test_min_share_is_what_a_class_must_exceed_of_a_cells_area():
    masks = torch.zeros(2, 1, 8, 8)
    masks[0, 0, :4, :4] = 1  # half of the first cell, as there are two images
    masks[:, 0, :4, 4:6] = 1  # half of the second
    masks[:, 0, 4:, :4] = 1  # all of the third
    features = randn(2, 3, 8, 8, dtype=torch.float32)
    flags = {
        share: grid_prototypes(features, masks, 2, share)[1].flatten().tolist()
        for share in (0, 0.49, 0.5, 0.95)
    }
    assert flags == {
        0: [True, True, True, False],
        0.49: [True, True, True, False],
        0.5: [False, False, True, False],
        0.95: [False, False, True, False],
    }


def test_grid_prototypes_have_right_gradients():
    features = randn(2, 2, 5, 3).requires_grad_()
    masks = torch.rand(2, 2, 7, 6, dtype=torch.float64).mul(0.8).add(0.1).requires_grad_()
    for grid in (2, (5, 3)):
        assert torch.autograd.gradcheck(
            lambda f, m, g=grid: grid_prototypes(f, m, g)[0], (features, masks)
        )


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_query_position_meets_the_prototypes_of_its_own_cell(grid, distance):
    queries, prototypes = randn(2, 3, 4, 7, 5), randn(2, 6, 4, *grid, seed=1)
    got = local_similarity(queries, prototypes, distance)
    assert got.shape == (2, 3, 6, 7, 5)
    for e, i, j in itertools.product(range(2), range(7), range(5)):
        cell = cell_by_loop(i, 7, grid[0]), cell_by_loop(j, 5, grid[1])
        there = prototypes[e, :, :, cell[0], cell[1]].numpy()
        assert close(got[e, :, :, i, j], ORACLES[distance](queries[e, :, :, i, j].numpy(), there))


def test_local_similarity_does_not_spread_the_prototypes_over_the_positions():
    queries, prototypes = randn(1, 32, 24, 24), randn(9, 32, 2, 2, seed=1)
    with Largest() as largest:
        local_similarity(queries, prototypes, "cosine")
    assert largest.numel <= queries.numel()


def test_local_similarity_has_right_gradients():
    queries, prototypes = randn(1, 2, 5, 3).requires_grad_(), randn(3, 2, 2, 2).requires_grad_()
    for distance in DISTANCES:
        assert torch.autograd.gradcheck(
            lambda q, c, d=distance: local_similarity(q, c, d), (queries, prototypes)
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_grids_work_in_every_type(dtype):
    features, masks = (50 * randn(2, 3, 8, 8)).to(dtype), rand_masks(2, 2, 64, 64, dtype=dtype)
    prototypes, valid = grid_prototypes(features, masks, 3)
    exact, _ = grid_prototypes(features.double(), masks.double(), 3)
    assert prototypes.dtype == dtype
    assert valid.all()
    assert close(prototypes, exact, 3 * PRECISION[dtype])
    for distance in DISTANCES:
        got = local_similarity(features, prototypes, distance)
        assert got.dtype == dtype
        assert not got.isnan().any()


def test_grid_helpers_refuse_with_a_reason():
    with pytest.raises(ValueError, match="with one D"):
        local_similarity(randn(1, 2, 4, 4), randn(3, 5, 2, 2))
    with pytest.raises(ValueError, match=r"\(…, Q, D, H', W'\)"):
        local_similarity(randn(2, 4, 4), randn(3, 2, 2, 2))
    with pytest.raises(ValueError, match=r"\(…, K, D, rows, columns\)"):
        local_similarity(randn(1, 2, 4, 4), randn(2, 2, 2))
    with pytest.raises(ValueError, match="3 × 2"):
        local_similarity(randn(1, 2, 2, 2), randn(3, 2, 3, 2))
    with pytest.raises(ValueError, match="rows, columns"):
        cells_to_positions(torch.zeros(3), (4, 4))
    with pytest.raises(ValueError, match="1 … 2 by 1 … 4 cells, got 3 × 3"):
        cells_to_positions(torch.zeros(3, 3), (2, 4))


# --- another device -------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("distance", DISTANCES)
def test_a_gpu_gives_what_the_cpu_gives(distance):
    features, masks = randn(2, 3, 8, 9, 7, dtype=torch.float32), rand_masks(2, 3, 4, 20, 30)
    labels, results = torch.arange(12) % 4, []
    for device in ("cpu", "cuda"):
        f, m = features.to(device), masks.to(device)
        pooled, valid = masked_prototypes(f, m, "images")
        gridded, _ = grid_prototypes(f, m, (4, 3))
        local = local_similarity(f, gridded, distance)
        queries = f.movedim(2, -1).flatten(1, 3)
        means = class_prototypes(queries[:, :12], labels.to(device).expand(2, 12), 4)
        posterior = log_posterior(queries, means, distance, log_prior=pooled[..., 0], valid=valid)
        results.append([t.cpu() for t in (pooled, gridded, local, means, posterior)])
    for cpu, gpu in zip(*results, strict=True):
        assert torch.allclose(cpu, gpu, rtol=1e-4, atol=1e-4)
