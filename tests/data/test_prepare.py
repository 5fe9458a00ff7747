"""Windows, body outline, and grids that lose no organ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fewshot_lib.data import prepare, resize
from fewshot_lib.episodes import Volume


def volume(images: torch.Tensor, labels: torch.Tensor, spacing: float = 2.0) -> Volume:
    names = ("background", *(f"organ_{i}" for i in range(1, int(labels.max()) + 1)))
    return Volume(images[:, None], labels, names, "s", (3.0, spacing, spacing), "here")


# --- intensities


def test_the_abdominal_window_runs_from_minus_160_to_240() -> None:
    got = prepare.window(torch.tensor([-1000.0, -160, -60, 40, 240, 3000]))
    assert got.tolist() == pytest.approx([0, 0, 0.25, 0.5, 1, 1])
    with pytest.raises(ValueError, match="width must be positive"):
        prepare.window(torch.zeros(1), width=0)


@given(gain=st.floats(0.5, 50), offset=st.floats(-500, 500), seed=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_percentile_scaling_undoes_any_gain_and_offset(
    gain: float, offset: float, seed: int
) -> None:
    images = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(seed))
    one, other = (
        prepare.rescale_percentiles(images),
        prepare.rescale_percentiles(gain * images + offset),
    )
    assert torch.allclose(one, other, atol=1e-3)
    assert float(one.min()) == 0
    assert float(one.max()) == 1


def test_percentile_scaling_refuses_constant_images_and_odd_percentiles() -> None:
    with pytest.raises(ValueError, match="constant"):
        prepare.rescale_percentiles(torch.ones(5))
    with pytest.raises(ValueError, match="low < high"):
        prepare.rescale_percentiles(torch.rand(5), 60, 40)


def test_only_hounsfield_units_are_taken_for_ct() -> None:
    labels = torch.zeros(1, 2, 2, dtype=torch.int64)
    air = volume(torch.tensor([[[-1000.0, 40.0], [40.0, 240.0]]]), labels)
    assert prepare.modality(air) == "CT"
    assert prepare.scale_intensities(air).images.flatten().tolist() == [0, 0.5, 0.5, 1]
    mr = volume(torch.tensor([[[-40.0, 40.0], [40.0, 900.0]]]), labels)
    assert prepare.modality(mr) == "other"
    assert float(prepare.scale_intensities(mr).images.max()) == 1


# --- the body


def test_the_body_is_the_trunk_without_table_and_arm_and_with_its_gas() -> None:
    y, x = np.mgrid[0:120, 0:160] * 2.0
    trunk = ((x - 160) / 90) ** 2 + ((y - 110) / 70) ** 2 < 1
    gas = (x - 160) ** 2 + (y - 90) ** 2 < 20**2
    arm = (x - 35) ** 2 + (y - 120) ** 2 < 22**2
    table = (y > 196) & (y < 204)
    picture = np.where(trunk | arm | table, 40.0, -1000.0)
    picture[gas] = -900
    stack = torch.tensor(np.stack([picture] * 3), dtype=torch.float32)
    scan = volume(stack, torch.zeros(3, 120, 160, dtype=torch.int64))
    mask = prepare.body_mask(scan)
    assert mask.dtype == torch.bool
    for slice_mask in mask.numpy():
        assert slice_mask[gas].all()
        assert not slice_mask[arm].any()
        assert not slice_mask[table].any()
        assert (slice_mask ^ trunk).mean() < 0.01
    fine = volume(  # the same at half the pixel: the outline is found on a coarser grid
        stack.repeat_interleave(2, 1).repeat_interleave(2, 2),
        torch.zeros(3, 240, 320, dtype=torch.int64),
        spacing=1.0,
    )
    again = prepare.body_mask(fine)
    assert again.shape == (3, 240, 320)
    whole = trunk.repeat(2, 0).repeat(2, 1)
    assert (again[0].numpy() ^ whole).mean() < 0.02


def test_body_coordinates_run_from_minus_one_to_one_across_the_body() -> None:
    mask = torch.zeros(2, 20, 30, dtype=torch.bool)
    mask[0, 5:15, 10:20] = True
    got = prepare.body_coordinates(mask)
    assert got.shape == (2, 2, 20, 30)
    assert torch.equal(got[0], got[1])
    assert got[0, 0, 5, 0] == pytest.approx(-0.9)  # centre of the body's first row of ten
    assert got[0, 0, 14, 0] == pytest.approx(0.9)
    assert got[0, 1, 0, 10] == pytest.approx(-0.9)
    assert got[0, 1, 0, 19] == pytest.approx(0.9)
    with pytest.raises(ValueError, match="mask is empty"):
        prepare.body_coordinates(torch.zeros(1, 3, 3, dtype=torch.bool))


# --- grids


@given(
    seed=st.integers(0, 10_000),
    height=st.integers(4, 40),
    width=st.integers(4, 40),
    new=st.tuples(st.integers(4, 30), st.integers(4, 30)),
    n_classes=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_no_organ_is_lost_by_resampling_labels(
    seed: int, height: int, width: int, new: tuple[int, int], n_classes: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(2, height, width, dtype=torch.int64)
    for k in range(1, n_classes + 1):  # from one pixel to many, anywhere
        count = int(torch.randint(1, 6, (), generator=generator))
        where = torch.randint(height * width, (count,), generator=generator)
        labels[k % 2].view(-1)[where] = k
    after = resize.resize_labels(labels, new)
    assert after.shape == (2, *new)
    for z in range(2):
        here = set(labels[z].unique().tolist())
        kept = set(after[z].unique().tolist())
        assert kept <= here
        for k in here - kept - {0}:  # lost only where each cell it touches is another's last one
            touched = functional.adaptive_avg_pool2d((labels[z] == k)[None].float(), new)[0] > 0
            assert all(int((after[z] == other).sum()) == 1 for other in after[z][touched])
            assert 0 not in after[z][touched]


def test_organs_that_share_a_new_pixel_are_both_kept_if_there_is_room() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[0, 3, 2:4] = 1
    labels[0, 3, 4:7] = 2
    labels[0, 2, 3:5] = 3  # between the two, in both their cells
    assert set(resize.resize_labels(labels, (2, 4)).unique().tolist()) >= {1, 2, 3}


@pytest.mark.parametrize("side", [1, 3, 5, 7, 9])
def test_a_small_square_survives_an_eightfold_shrink_wherever_it_lies(side: int) -> None:
    for top in range(20, 28):
        for left in range(20, 28):
            labels = torch.zeros(1, 64, 64, dtype=torch.int64)
            labels[0, top : top + side, left : left + side] = 1
            assert resize.resize_labels(labels, 8).any()


def test_each_new_pixel_takes_the_class_that_covers_most_of_it() -> None:
    labels = torch.tensor([[[1, 1, 2, 2], [1, 2, 2, 2], [3, 3, 0, 0], [3, 3, 0, 0]]])
    assert resize.resize_labels(labels, 2).tolist() == [[[1, 2], [3, 0]]]
    assert torch.equal(resize.resize_labels(labels, 4), labels)
    doubled = resize.resize_labels(labels, 8)
    assert torch.equal(doubled, labels.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_images_keep_their_mean_when_shrunk_and_constants_stay_constant() -> None:
    images = torch.rand(2, 1, 64, 48, generator=torch.Generator().manual_seed(0))
    small = resize.resize_images(images, (16, 12))
    assert small.shape == (2, 1, 16, 12)
    assert float(small.mean()) == pytest.approx(float(images.mean()), abs=0.01)
    assert float(small.std()) < 0.4 * float(images.std())  # averaged, not picked
    assert torch.allclose(resize.resize_images(torch.full((1, 1, 9, 7), 3.0), 5), torch.tensor(3.0))


def test_a_square_cut_is_centred_padded_and_as_long_as_asked_for() -> None:
    images = torch.arange(30.0).reshape(1, 5, 6)
    scan = volume(images, (images > 0).long(), spacing=2.0)
    cut = resize.crop_square(scan, 6.0, (2.5, 3.5), fill=-1)
    assert torch.equal(cut.images[0, 0], images[0, 1:4, 2:5])
    padded = resize.crop_square(scan, 20.0, (2.5, 3.0), fill=-7)
    assert padded.images.shape == (1, 1, 10, 10)
    assert int((padded.images == -7).sum()) == 100 - 30
    assert int(padded.labels.sum()) == 29
    beside = resize.crop_square(scan, 4.0, (100.0, 100.0), fill=-7)
    assert (beside.images == -7).all()
    with pytest.raises(ValueError, match="must be positive"):
        resize.crop_square(scan, 0.0, (0, 0), 0)
    oblong = Volume(scan.images, scan.labels, scan.names, "s", (1.0, 1.0, 2.0))
    with pytest.raises(ValueError, match="pixels must be square"):
        resize.crop_square(oblong, 4.0, (0, 0), 0)


def test_a_resized_volume_covers_the_same_millimetres() -> None:
    scan = volume(torch.rand(2, 30, 40), torch.ones(2, 30, 40, dtype=torch.int64), spacing=2.0)
    small = resize.resize_volume(scan, (15, 10))
    assert small.spacing == (3.0, 4.0, 8.0)
    square = resize.pad_square(scan)
    assert square.images.shape == (2, 1, 40, 40)
    assert int(square.labels.sum()) == 2 * 30 * 40


@pytest.mark.parametrize("size", [0, (3, -1)])
def test_wrong_shapes_and_sizes_are_refused(size: int | tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1 pixel"):
        resize.resize_images(torch.zeros(1, 1, 4, 4), size)
    with pytest.raises(ValueError, match=r"\(Z, C, H, W\)"):
        resize.resize_images(torch.zeros(4, 4), 2)
    with pytest.raises(ValueError, match=r"\(Z, H, W\)"):
        resize.resize_labels(torch.zeros(4, 4, dtype=torch.int64), 2)
