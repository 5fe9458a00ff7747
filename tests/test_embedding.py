"""The embedding of digits: its encoder, its episodic training, its accuracy over tasks."""

from __future__ import annotations

import pytest
import torch

from fewshot_lib.networks import DigitEncoder


def test_an_image_has_one_embedding_whatever_else_is_in_its_batch() -> None:
    encoder = DigitEncoder(width=8)
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    together, alone = encoder(images), encoder(images[2:3])
    torch.testing.assert_close(together[2:3], alone)


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (9, 15), (28, 28)])
def test_the_embedding_has_the_length_that_is_promised(size: tuple[int, int]) -> None:
    embeddings = DigitEncoder(in_channels=2, width=4)(torch.rand(3, 2, *size))
    assert embeddings.shape == (3, 8 * (size[0] // 4) * (size[1] // 4))


def test_embeddings_point_into_all_directions() -> None:
    """No ReLU at the end: else every cosine would be positive."""
    embeddings = DigitEncoder(width=8)(torch.rand(20, 1, 8, 8))
    assert (embeddings < 0).any()
    assert (embeddings > 0).any()


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 2, 8, 8), (3, 1, 3, 8)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected images"):
        DigitEncoder()(torch.zeros(shape))


def test_settings_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="width must be at least 1"):
        DigitEncoder(width=0)
