"""The curve of notebook 03: one-shot accuracy on novel letters against the number of base classes.

Three trainings per number of classes, each with base letters, first weights and tasks of its own;
4,000 training images whatever the number of classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fewshot_lib.data import glyphs
from fewshot_lib.episodes import draw_episode
from fewshot_lib.evaluation import episode_accuracy
from fewshot_lib.networks import DigitEncoder
from fewshot_lib.training import fit_encoder

SEEDS = range(3)
NUM_CLASSES = (5, 10, 40, 100, 400)
MOST_SECONDS = 30.0  # of processor time, one thread: on a quiet machine as long by the clock


def encoder_of(n: int, seed: int) -> tuple[nn.Module, float]:
    """Train on n base letters as the notebook does; give the encoder and its processor time."""
    base, _ = glyphs.letters()
    torch.manual_seed(seed)
    stem = nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU()
    encoder = nn.Sequential(*stem, DigitEncoder(16, width=16))
    generator = torch.Generator().manual_seed(100 + seed)
    chosen = torch.randperm(len(base), generator=generator)[:n].tolist()
    x, y = glyphs.draw("".join(base[i] for i in chosen), 4000 // n, generator)
    ways = min(20, n)
    size = {"n_way": ways, "n_query": 60 // ways - 1}
    began = time.process_time()
    optimizer = torch.optim.Adam(encoder.parameters(), 5e-3)
    fit_encoder(encoder, x, y, optimizer, 150, scale=0.05, seed=seed, progress=False, **size)
    return encoder, time.process_time() - began


def accuracy(embeddings: Tensor, labels: Tensor, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    tasks = [draw_episode(labels, 5, 1, 10, generator) for _ in range(400)]
    return episode_accuracy(embeddings, tasks).mean().item()


@pytest.mark.bench
@pytest.mark.usefixtures("one_thread")
@pytest.mark.timeout(1200)
def test_accuracy_on_novel_letters_grows_with_the_number_of_base_classes(
    bench: Callable[..., None],
) -> None:
    _, novel = glyphs.letters()
    images, labels = glyphs.draw(novel, 16, torch.Generator().manual_seed(0))
    pixels = [accuracy(images.flatten(1), labels, seed) for seed in SEEDS]
    bench("novel letters, raw pixels", sum(pixels) / len(pixels))
    seconds, scores = 0.0, {}
    for n in NUM_CLASSES:
        found = []
        for seed in SEEDS:
            encoder, taken = encoder_of(n, seed)
            seconds += taken
            with torch.no_grad():
                found.append(accuracy(encoder(images), labels, seed))
        scores[n] = found
        bench(f"novel letters, {n} base classes", sum(found) / 3, interval=(min(found), max(found)))
    gains = [many - few for many, few in zip(scores[400], scores[5], strict=True)]
    bench("novel letters, 400 minus 5 base classes, the least of 3", min(gains), goal=">= 0.1")
    bench("novel letters, 15 trainings", seconds, "s of processor time", goal=f"<= {MOST_SECONDS}")
