"""Tasks without labels: regions, and the changed slices that they are looked for in."""

import pytest
import torch

from fewshot_lib.reading import models
from fewshot_lib.superpixels import SMALLEST, changed, superpixel_episodes, superpixels


@pytest.fixture(scope="module")
def images():
    return models.training_slices(2).images


def test_regions_are_numbered_large_enough_and_not_air(images):
    for image in images[:4, 0]:
        regions = superpixels(image)
        counts = torch.bincount(regions.flatten())[1:]
        assert counts.min() >= SMALLEST
        assert len(counts) >= 8
        assert regions[0, 0] == 0  # a corner is air
        assert all(image[regions == number].mean() > -0.8 for number in regions.unique()[1:])


def test_a_task_marks_its_regions_in_the_support_and_where_they_went_in_the_queries(images):
    item = next(superpixel_episodes(images, n_way=3, n_query=2, episodes=4, seed=1))
    assert [tuple(part.shape) for part in item] == [
        (4, 1, 1, 48, 64), (4, 1, 4, 48, 64), (4, 2, 1, 48, 64), (4, 2, 4, 48, 64)
    ]  # fmt: skip
    for masks in (item.support_masks, item.query_masks):
        assert torch.equal(masks.sum(dim=2), torch.ones_like(masks[:, :, 0]))
    assert (item.support_masks.sum(dim=(3, 4)) > 0).all()
    assert (item.query_masks[:, :, 0] != item.support_masks[:, :1, 0][:, [0, 0]]).any()


def test_the_same_seed_draws_the_same_tasks_and_another_one_others(images):
    first, again, other = (next(superpixel_episodes(images, seed=seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.support_images, other.support_images)


def test_a_region_keeps_its_shape_apart_from_turning_and_scaling():
    """Area by the square of the scale, which lies in 0.8 … 1.25, and a disc stays a disc."""
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(64), indexing="ij")
    disc = ((rows - 24) ** 2 + (columns - 32) ** 2 < 64).float()
    masks = torch.stack([1 - disc, disc])[None].repeat(50, 1, 1, 1)
    _, moved = changed(masks[:, 1:], masks, torch.Generator().manual_seed(0))
    whole = moved[moved[:, 1].sum(dim=(1, 2)) > 0][:, 1]
    area = whole.sum(dim=(1, 2)) / disc.sum()
    assert 0.55 < area.min() < 0.8
    assert 1.3 < area.max() < 1.7
    tall, wide = whole.any(dim=2).sum(dim=1), whole.any(dim=1).sum(dim=1)
    assert (tall - wide).abs().max() <= 3


def test_wrong_images_and_numbers_are_refused(images):
    with pytest.raises(ValueError, match="expected images"):
        superpixel_episodes(images[:, 0])
    with pytest.raises(ValueError, match="n_way must be at least 1"):
        superpixel_episodes(images, n_way=0)
    with pytest.raises(ValueError, match="scale > 0"):
        superpixels(images[0, 0], scale=0)
    with pytest.raises(TypeError, match="floating point"):
        superpixels(images[0, 0].long())


def test_training_on_superpixels_reads_no_label(images):
    known = models.training_slices(2)
    few = models.Recipe(steps=2, subjects=2, width=4, episodes_per_step=2)
    first, _ = models.train_superpixels(few, slices=known, cached=False, progress=False)
    known.labels = torch.zeros_like(known.labels)
    again, _ = models.train_superpixels(few, slices=known, cached=False, progress=False)
    pairs = zip(first.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
