"""The embedding of digits: its encoder, its episodic training, its accuracy over tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from fewshot_lib.episodes import Episode, draw_episode
from fewshot_lib.evaluation import episode_accuracy
from fewshot_lib.networks import DigitEncoder
from fewshot_lib.training import TrainingResult, fit_encoder


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


def two_moving_classes(n: int = 40) -> tuple[Tensor, Tensor]:
    """Four classes whose second feature tells them apart and whose first is large noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 4 + 5
    noise = torch.randn(n, 2, generator=generator) * torch.tensor([20.0, 0.1])
    return noise + torch.stack([torch.zeros(n), labels.float()], dim=1), labels


def trained(
    num_episodes: int, checkpoint: Path | None = None
) -> tuple[torch.nn.Module, TrainingResult]:
    features, labels = two_moving_classes()
    torch.manual_seed(0)
    encoder = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(encoder.parameters(), 0.05)
    result = fit_encoder(
        encoder, features, labels, optimizer, num_episodes, n_way=3, k_shot=2, n_query=4, seed=3,
        checkpoint=checkpoint, checkpoint_every=5, progress=False,
    )  # fmt: skip
    return encoder, result


def test_training_the_encoder_is_the_loop_of_snells_algorithm_1() -> None:
    features, labels = two_moving_classes()
    torch.manual_seed(0)
    encoder = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(encoder.parameters(), 0.05)
    generator = torch.Generator().manual_seed(3)
    expected = []
    for _ in range(8):
        task = draw_episode(labels, 3, 2, 4, generator)
        total = torch.zeros(())
        means = [encoder(features[row]).mean(dim=0) for row in task.support_index]
        for own, row in enumerate(task.query_index):
            for index in row:
                d = torch.stack(
                    [(encoder(features[index]) - mean).square().sum() for mean in means]
                )
                total = total + F.cross_entropy(-d[None], torch.tensor([own]))
        loss = total / 12
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    assert trained(8)[1].losses == pytest.approx(expected, rel=1e-4)


def test_training_on_episodes_teaches_the_encoder_which_feature_matters() -> None:
    features, labels = two_moving_classes()
    episodes = tasks(labels, 30, k_shot=1)
    before = episode_accuracy(features, episodes).mean()
    encoder, _ = trained(150)
    after = episode_accuracy(encoder(features).detach(), episodes).mean()
    assert after > before + 0.3


def test_training_of_an_encoder_that_was_interrupted_ends_in_the_same_weights(
    tmp_path: Path,
) -> None:
    whole, _ = trained(12)
    trained(7, tmp_path / "encoder.pt")
    resumed, result = trained(12, tmp_path / "encoder.pt")
    assert result.resumed_at == 7
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True)
    )


def test_a_checkpoint_of_other_classes_is_refused(tmp_path: Path) -> None:
    features, labels = two_moving_classes()
    encoder = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(encoder.parameters())
    options = {"n_way": 2, "checkpoint": tmp_path / "encoder.pt", "progress": False}
    fit_encoder(encoder, features, labels, optimizer, 2, **options)
    with pytest.raises(ValueError, match="differs in classes"):
        fit_encoder(encoder, features, labels + 1, optimizer, 2, **options)


def test_images_without_a_label_are_refused() -> None:
    encoder = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(encoder.parameters())
    with pytest.raises(ValueError, match="every image needs a label"):
        fit_encoder(encoder, torch.zeros(5, 2), torch.zeros(4).long(), optimizer, 1)
