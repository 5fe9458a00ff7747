"""The embedding of digits: its encoder, its episodic training, its accuracy over tasks."""

from __future__ import annotations

import pytest
import torch
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from fewshot_lib.episodes import Episode, draw_episode
from fewshot_lib.evaluation import episode_accuracy
from fewshot_lib.networks import DigitEncoder


def tasks(labels: Tensor, n: int, n_way: int = 3, k_shot: int = 2) -> list[Episode]:
    generator = torch.Generator().manual_seed(1)
    return [draw_episode(labels, n_way, k_shot, 4, generator) for _ in range(n)]


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


def test_accuracy_is_that_of_scikit_learns_nearest_centroid() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 5 + 3
    embeddings = torch.randn(60, 4, generator=generator) + labels[:, None] * 0.7
    episodes = tasks(labels, 25)
    expected = []
    for episode in episodes:
        support, query = episode.support_index.flatten(), episode.query_index.flatten()
        model = NearestCentroid().fit(embeddings[support].numpy(), labels[support].numpy())
        expected.append(model.score(embeddings[query].numpy(), labels[query].numpy()))
    found = episode_accuracy(embeddings, episodes)
    assert 0.4 < found.mean() < 0.95  # neither guessing nor trivial
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))


def test_accuracy_of_cosine_does_not_see_the_length_of_embeddings() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(30) % 3
    embeddings = torch.randn(30, 4, generator=generator) + labels[:, None]
    longer = embeddings * 3
    episodes = tasks(labels, 10, k_shot=1)
    torch.testing.assert_close(
        episode_accuracy(embeddings, episodes, "cosine"),
        episode_accuracy(longer, episodes, "cosine"),
    )


def test_what_cannot_be_measured_is_refused() -> None:
    labels = torch.arange(30) % 3
    embeddings = torch.zeros(30, 4)
    with pytest.raises(ValueError, match="no episodes"):
        episode_accuracy(embeddings, [])
    with pytest.raises(ValueError, match="one size"):
        episode_accuracy(embeddings, tasks(labels, 1, k_shot=1) + tasks(labels, 1, k_shot=2))
    with pytest.raises(ValueError, match="largest index"):
        episode_accuracy(embeddings[:5], tasks(labels, 3))
    with pytest.raises(ValueError, match="at least 1"):
        episode_accuracy(
            embeddings, [draw_episode(labels, 3, 1, 0, torch.Generator().manual_seed(0))]
        )
