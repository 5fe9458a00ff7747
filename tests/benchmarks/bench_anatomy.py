"""How fast synthetic anatomy is made, and how well it resists copying and brightness.

Goal: at least 200 slices of 96×96 a second on one core. Processor time is counted, so that a busy
machine does not change the figure.
"""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from torch import nn

from fewshot_lib.data.anatomy import NOVEL_ORGANS, make_volumes
from fewshot_lib.episodes import SliceDataset, Volume
from fewshot_lib.evaluation import bootstrap_interval, dice
from fewshot_lib.networks import FewShotSegmentationNet
from fewshot_lib.training import sample_slices

SUBJECTS, SLICES, REPEATS = 10, 12, 7


@pytest.mark.bench
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("alignment", [0.0, 1.0])
def test_slices_are_made_fast_enough_to_draw_subjects_while_training(bench, alignment):
    make_volumes(1, size=96, alignment=alignment)
    rates = []
    for repeat in range(REPEATS):
        start = time.process_time()
        make_volumes(SUBJECTS, n_slices=SLICES, size=96, alignment=alignment, seed=repeat)
        rates.append(SUBJECTS * SLICES / (time.process_time() - start))
    bench(
        f"96×96 slices a second, one core, alignment {alignment:g}",
        statistics.median(rates),
        "1/s",
        goal=">= 200",
        interval=(min(rates), max(rates)),
        note=f"median of {REPEATS} runs of {SUBJECTS * SLICES} slices, all of them in the interval",
    )


def one_shot_scores(
    volumes: list[Volume], organ: str, episodes: int
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Score 1-way 1-shot tasks on an organ; return Dice by method, and the queries' subjects."""
    slices = SliceDataset(volumes, [organ], min_pixels=20)
    generator = torch.Generator().manual_seed(0)
    drawn = [sample_slices(slices, 1, 1, generator=generator) for _ in range(episodes)]
    support = torch.stack([episode.support_index[0, 0] for episode in drawn])
    query = torch.stack([episode.query_index[0, 0] for episode in drawn])
    given, truth = slices.labels[support] == 1, slices.labels[query] == 1
    raw = FewShotSegmentationNet(encoder=nn.Identity(), similarity="squared_euclidean", scale=1.0)
    masks = torch.stack([~given, given], dim=1).float()  # (E, 2, H, W)
    logits = raw(slices.images[support][:, None], masks[:, None], slices.images[query][:, None])
    scores = {
        "copied mask": dice(given, truth),
        "raw intensity": dice(logits[:, 0].argmax(1) == 1, truth),
    }
    return scores, slices.subjects[query]


@pytest.mark.bench
@pytest.mark.parametrize("alignment", [0.0, 0.5, 1.0])
def test_what_needs_no_learning_reaches_on_novel_organs(bench, alignment):
    volumes = make_volumes(40, alignment=alignment, seed=2)
    scored = [one_shot_scores(volumes, organ, episodes=150) for organ in NOVEL_ORGANS]
    people = torch.cat([subjects for _, subjects in scored])
    for method in ("copied mask", "raw intensity"):
        every = torch.cat([scores[method] for scores, _ in scored])
        interval = bootstrap_interval(every, groups=people)
        organs = zip(NOVEL_ORGANS, scored, strict=True)
        bench(
            f"{method}, mean Dice of novel organs, alignment {alignment:g}",
            interval.estimate,
            goal="<= 0.3" if alignment == 0 else "",
            interval=(interval.low, interval.high),
            note=", ".join(f"{o} {float(s[method].mean()):.2f}" for o, (s, _) in organs),
        )
