"""Surface distances against MONAI and a loop over all pairs of voxels, and their laws."""

from __future__ import annotations

import math
import warnings
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fewshot_lib.surfaces import _array, _distances, hausdorff, hausdorff95, surface_dice

SHAPES = {2: (9, 7), 3: (5, 7, 6)}
masks = st.tuples(st.integers(0, 2**31), st.sampled_from([2, 3]), st.floats(0.05, 0.9))
spacings = st.lists(st.floats(0.3, 5), min_size=3, max_size=3)


def drawn(setting: tuple[int, int, float]) -> tuple[Tensor, Tensor]:
    """Draw two masks of 2 or 3 dimensions that are not empty, with room for a shift by one."""
    seed, n_dims, share = setting
    generator = torch.Generator().manual_seed(seed)
    pair = torch.rand(2, *SHAPES[n_dims], generator=generator) < share
    pair[(slice(None), *[2] * n_dims)] = True
    for dim in range(1, n_dims + 1):
        pair.select(dim, -1).zero_()
    return pair[0], pair[1]


def distances(a: Tensor, b: Tensor, spacing: list[float]) -> list[Tensor]:
    """Give what the scores are made of: each mask's boundary voxels to the other's nearest."""
    return [torch.from_numpy(d) for d in _distances(_array(a), _array(b), tuple(spacing))]


def brute_force(a: Tensor, b: Tensor, spacing: list[float]) -> tuple[list[float], list[float]]:
    """Measure between all pairs of boundary voxels, one by one."""

    def boundary(mask: Tensor) -> list[tuple[int, ...]]:
        def marked(place: list[int]) -> bool:
            inside = all(0 <= i < n for i, n in zip(place, mask.shape, strict=True))
            return inside and bool(mask[tuple(place)])

        places = [tuple(place) for place in mask.nonzero().tolist()]
        steps = [(axis, step) for axis in range(mask.ndim) for step in (-1, 1)]
        return [
            place for place in places
            if not all(
                marked([i + step * (j == axis) for j, i in enumerate(place)])
                for axis, step in steps
            )
        ]  # fmt: skip

    def to(ours: list[tuple[int, ...]], others: list[tuple[int, ...]]) -> list[float]:
        return [
            min(math.dist(*([i * s for i, s in zip(p, spacing, strict=True)] for p in (x, y)))
                for y in others)
            for x in ours
        ]  # fmt: skip

    ours, others = boundary(a), boundary(b)
    return to(ours, others), to(others, ours)


@given(masks, spacings)
@settings(max_examples=25, deadline=None)
def test_distances_and_scores_agree_with_a_loop_over_all_pairs(setting, sides):
    a, b = drawn(setting)
    spacing = sides[: a.ndim]
    first, second = brute_force(a, b, spacing)
    found = distances(a, b, spacing)
    assert found[0].tolist() == pytest.approx(first)
    assert found[1].tolist() == pytest.approx(second)
    for percentile in (50, 95, 100):
        wanted = max(np.percentile(first, percentile), np.percentile(second, percentile))
        assert hausdorff(a, b, spacing, percentile).item() == pytest.approx(wanted)
    for tolerance in (0.0, spacing[0], 3.3):
        near = sum(d <= tolerance + 1e-6 for d in first + second)
        wanted = near / (len(first) + len(second))
        assert surface_dice(a, b, spacing, tolerance).item() == pytest.approx(wanted)


@given(masks, spacings)
@settings(max_examples=25, deadline=None)
def test_scores_agree_with_monai(setting, sides):
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    a, b = drawn(setting)
    spacing = sides[: a.ndim]
    pair = [mask[None, None].float() for mask in (a, b)]
    common = {"include_background": True, "spacing": spacing}
    for percentile in (95, 100):
        theirs = compute_hausdorff_distance(*pair, percentile=percentile, **common)
        assert hausdorff(a, b, spacing, percentile).item() == pytest.approx(theirs.item(), rel=1e-5)
    assert torch.equal(hausdorff95(a, b, spacing), hausdorff(a, b, spacing, 95))
    theirs = compute_surface_dice(*pair, class_thresholds=[1.7], **common)
    assert surface_dice(a, b, spacing, 1.7).item() == pytest.approx(theirs.item(), rel=1e-5)
    theirs = compute_average_surface_distance(*pair, symmetric=True, **common)
    mean = torch.cat(distances(a, b, spacing)).mean()
    assert mean.item() == pytest.approx(theirs.item(), rel=1e-5)


@given(masks, spacings, st.floats(0.1, 10), st.floats(0, 4))
@settings(max_examples=30, deadline=None)
def test_scores_are_symmetric_follow_the_spacing_and_do_not_see_a_shift_of_both(
    setting, sides, factor, tolerance
):
    a, b = drawn(setting)
    spacing = sides[: a.ndim]
    far, near = hausdorff95(a, b, spacing), surface_dice(a, b, spacing, tolerance)
    assert 0 <= near <= 1
    assert torch.equal(far, hausdorff95(b, a, spacing))
    assert torch.equal(near, surface_dice(b, a, spacing, tolerance))
    assert hausdorff95(a, a, spacing) == hausdorff(b, b, spacing) == 0
    assert surface_dice(a, a, spacing, 0.0) == 1
    wide = [factor * side for side in spacing]
    torch.testing.assert_close(hausdorff95(a, b, wide), factor * far)
    torch.testing.assert_close(surface_dice(a, b, wide, factor * tolerance), near)
    bounded = [torch.nn.functional.pad(m, (1, 1) * m.ndim) for m in (a, b)]
    far, near = hausdorff95(*bounded, spacing), surface_dice(*bounded, spacing, tolerance)
    for dim, step in product(range(a.ndim), (-1, 1)):
        moved = [mask.roll(step, dim) for mask in bounded]
        torch.testing.assert_close(hausdorff95(*moved, spacing), far)
        torch.testing.assert_close(surface_dice(*moved, spacing, tolerance), near)


def test_one_far_voxel_decides_the_largest_distance_and_hardly_moves_the_others():
    disc = torch.zeros(40, 60, dtype=torch.bool)
    disc[5:30, 5:30] = True  # a boundary of 96 pixels
    island = disc.clone()
    island[35, 55] = True
    far = math.hypot(2.0 * 6, 1.5 * 26)
    assert hausdorff(island, disc, (2.0, 1.5)).item() == pytest.approx(far)
    assert hausdorff95(island, disc, (2.0, 1.5)) == 0
    assert surface_dice(island, disc, (2.0, 1.5), 1.0).item() == pytest.approx(192 / 193)


def test_the_border_of_the_image_is_a_surface_and_so_is_a_hole():
    full = torch.ones(4, 5, dtype=torch.bool)
    assert len(distances(full, full, (1.0, 1.0))[0]) == 20 - 2 * 3
    holed = torch.ones(7, 7, dtype=torch.bool)
    holed[3, 3] = False
    assert len(distances(holed, holed, (1.0, 1.0))[0]) == 24 + 4


@pytest.mark.parametrize("spacing", [(2.0, 1.5), (5.0, 2.0, 1.5)])
def test_empty_masks_have_the_documented_scores(spacing):
    nothing = torch.zeros([6] * len(spacing))
    something = nothing.clone()
    something[(2,) * len(spacing)] = 1
    for a, b in ((nothing, something), (something, nothing)):
        assert hausdorff95(a, b, spacing) == math.inf
        assert surface_dice(a, b, spacing, 3.0) == 0
        assert {len(d) for d in distances(a, b, spacing)} == {0, 1}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from monai.metrics import compute_hausdorff_distance, compute_surface_dice

            pair = a[None, None], b[None, None]
            assert compute_hausdorff_distance(*pair, True).item() == math.inf
            assert compute_surface_dice(*pair, [3.0], True).item() == 0
    assert hausdorff95(nothing, nothing, spacing).isnan()
    assert surface_dice(nothing, nothing, spacing, 3.0).isnan()
    assert hausdorff95(nothing, nothing, spacing, empty=0.0) == 0
    assert surface_dice(nothing, nothing, spacing, 3.0, empty=1.0) == 1


def test_leading_dimensions_are_scored_one_by_one_and_broadcast():
    generator = torch.Generator().manual_seed(0)
    made = torch.rand(2, 3, 4, 6, 5, generator=generator) < 0.4
    truth = torch.rand(3, 4, 6, 5, generator=generator) < 0.4
    volumes = hausdorff95(made, truth, (3.0, 1.0, 1.0))
    assert volumes.shape == (2, 3)
    assert volumes.dtype == torch.float64
    assert volumes[1, 2] == hausdorff95(made[1, 2], truth[2], (3.0, 1.0, 1.0))
    slices = surface_dice(made.long(), truth.float(), (1.0, 1.0), 1.0)
    assert slices.shape == (2, 3, 4)
    assert slices[1, 2, 3] == surface_dice(made[1, 2, 3], truth[2, 3], (1.0, 1.0), 1.0)


PAIR = torch.ones(4, 4), torch.ones(4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hausdorff95(*PAIR, (1.0,)), "two or three positive lengths"),
        (lambda: hausdorff95(*PAIR, (1.0, 0.0)), "two or three positive lengths"),
        (lambda: hausdorff95(*PAIR, (1.0, 1.0, 1.0)), r"prediction must be \(…, Z, H, W\)"),
        (lambda: hausdorff95(PAIR[0], torch.ones(4, 5), (1.0, 1.0)), "of one size"),
        (lambda: surface_dice(0.5 * PAIR[0], PAIR[1], (1.0, 1.0), 1.0), "0 and 1 only"),
        (lambda: surface_dice(*PAIR, (1.0, 1.0), -1.0), "tolerance_mm must be a length"),
        (lambda: hausdorff(*PAIR, (1.0, 1.0), 101), "percentile must lie in 0 … 100"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
