"""The surprise of notebook 03, with intervals, and with other recipes than the notebook's.

Few-shot accuracy on novel digits of embeddings trained on five base digits, minus that of raw
pixels on the same tasks: four divisions of the digits × three training seeds, 200 tasks each.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fewshot_lib.data import digits
from fewshot_lib.episodes import draw_episode
from fewshot_lib.evaluation import bootstrap_interval, episode_accuracy
from fewshot_lib.networks import DigitEncoder
from fewshot_lib.training import fit_encoder

DIVISIONS = (range(5), range(5, 10), range(0, 10, 2), range(1, 10, 2))
SEEDS = range(3)
MATERIALS = ("5 classes", "5 classes, turned", "40 classes")
RECIPES = {
    "the notebook's": (150, 1e-3),
    "longer": (600, 1e-3),
    "faster": (150, 3e-3),
}


def material(images: Tensor, labels: Tensor, kind: str) -> tuple[Tensor, Tensor, dict[str, int]]:
    """Give training images, their classes, and the size of an episode, as the notebook does."""
    if kind == "5 classes":
        return images, labels, {"n_way": 5, "n_query": 5}
    classes = tuple(labels.unique().tolist())
    turned, variant = digits.rotate_and_mirror(digits.Digits(images, labels, classes))
    if kind == "5 classes, turned":
        return turned, variant // 8, {"n_way": 5, "n_query": 5}
    return turned, variant, {"n_way": 20, "n_query": 2}


def gains(kind: str, num_episodes: int, learning_rate: float) -> dict[str, list[float]]:
    """Train on every division with every seed; give accuracies minus those of raw pixels."""
    data = digits.load()
    images, labels = data.images, data.labels
    for_training = torch.rand(len(data), generator=torch.Generator().manual_seed(0)) < 0.5
    found: dict[str, list[float]] = {"novel, 1 shot": [], "novel, 5 shots": [], "base, 1 shot": []}
    for chosen in DIVISIONS:
        base = torch.isin(labels, torch.tensor([*chosen]))
        x, y, size = material(images[base & for_training], labels[base & for_training], kind)
        for seed in SEEDS:
            torch.manual_seed(seed)
            encoder = DigitEncoder()
            optimizer = torch.optim.Adam(encoder.parameters(), learning_rate)
            fit_encoder(encoder, x, y, optimizer, num_episodes, seed=seed, progress=False, **size)
            with torch.no_grad():
                embedded = encoder(images)
            for name, where, k_shot in (
                ("novel, 1 shot", ~base, 1),
                ("novel, 5 shots", ~base, 5),
                ("base, 1 shot", base & ~for_training, 1),
            ):
                generator = torch.Generator().manual_seed(k_shot)
                tasks = [draw_episode(labels[where], 5, k_shot, 15, generator) for _ in range(200)]
                scores = [
                    episode_accuracy(z[where], tasks).mean().item()
                    for z in (embedded, data.pixels())
                ]
                found[name].append(scores[0] - scores[1])
    return found


@pytest.mark.bench
@pytest.mark.usefixtures("one_thread")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("recipe", RECIPES)
def test_embeddings_of_few_and_of_many_classes_against_raw_pixels(
    bench: Callable[..., None], recipe: str
) -> None:
    num_episodes, learning_rate = RECIPES[recipe]
    goals = {"5 classes": "<= 0", "5 classes, turned": "<= 0", "40 classes": ">= -0.04"}
    for kind in MATERIALS:
        for name, values in gains(kind, num_episodes, learning_rate).items():
            interval = bootstrap_interval(values)
            below = sum(value < 0 for value in values)
            bench(
                f"{kind}, {name}, minus pixels ({num_episodes} episodes, rate {learning_rate:g})",
                interval.estimate,
                interval=(interval.low, interval.high),
                goal=goals[kind] if name.startswith("novel") else ">= 0",
                note=f"below pixels in {below} of {len(values)} trainings",
            )
