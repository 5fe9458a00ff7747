"""What came after prototypes, on notebook 06's test, with several training seeds (notebook 10).

Every row of the notebook's table, trained from each seed, answers the 120 episodes of notebook 06.
The intervals resample seeds and people together. There is no goal: which idea is ahead after a
minute of training is what is to be found out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from bench_novel_organs import copying, interval
from torch import Tensor

from fewshot_lib.evaluation import episode_dice
from fewshot_lib.networks import FewShotSegmentationNet
from fewshot_lib.reading import models
from fewshot_lib.training import gather_episodes, sample_slices

SEEDS = (0, 1, 2)
ROWS = {
    "one mean": models.SHORT,
    "background in parts": models.PARTS,
    "local prototypes": models.LOCAL,
    "threshold": models.THRESHOLD,
    "attention": models.ATTENTION,
    "cross-blocks": models.CROSS,
}


@pytest.mark.bench
@pytest.mark.timeout(3 * 3600)
def test_after_prototypes(bench: Callable[..., None]) -> None:
    torch.set_num_threads(2)
    known, unseen = models.training_slices(), models.unseen_slices()
    tests, people, _ = models.unseen_tests(unseen)
    chance = torch.Generator().manual_seed(1)
    base = gather_episodes(known, [sample_slices(known, 1, 1, 1, chance) for _ in range(100)])
    scores: dict[str, list[Tensor]] = {}

    def score(name: str, network: Any) -> None:
        scores.setdefault(name, []).append(episode_dice(network, tests).flatten())
        print(name, round(float(scores[name][-1].mean()), 3), flush=True)

    for seed in SEEDS:
        score("copied mask", copying)
        score("no training", models.untrained(models.LOCAL, seed))
        networks = {}
        for name, recipe in ROWS.items():
            networks[name], _ = models.train(recipe, seed, slices=known, progress=False)
            score(name, networks[name])
        print(f"threshold {networks['threshold'].head.threshold.item():.2f}")
        unlabelled, _ = models.train_superpixels(models.LOCAL, seed, slices=known, progress=False)
        score("superpixels, no label", unlabelled)
        level = partial(FewShotSegmentationNet, prototypes="attention", votes="classes")
        score("attention, classes level at test", level(encoder=networks["attention"].encoder))
        use = FewShotSegmentationNet(encoder=networks["one mean"].encoder)
        score("threshold, fitted afterwards", models.fit_threshold(use, base))

    stacked = {name: torch.stack(each) for name, each in scores.items()}
    note = f"{len(SEEDS)} × {len(people)} episodes of {len(people.unique())} people"
    for name, each in stacked.items():
        within = interval(each, people)
        bench(f"Dice: {name}", float(each.mean()), interval=within, note=note)
    for first, other in (
        *((name, "one mean") for name in scores if name != "one mean"),
        *((name, "copied mask") for name in ("threshold", "cross-blocks", "no training")),
        ("threshold", "threshold, fitted afterwards"),
        ("local prototypes", "background in parts"),
        ("superpixels, no label", "no training"),
        ("superpixels, no label", "local prototypes"),
        ("attention, classes level at test", "attention"),
    ):
        ahead = stacked[first] - stacked[other]
        each_seed = ", ".join(f"{value:+.2f}" for value in ahead.mean(dim=1).tolist())
        bench(
            f"{first} − {other}", float(ahead.mean()), interval=interval(ahead, people),
            note=f"seed by seed {each_seed}",
        )  # fmt: skip
