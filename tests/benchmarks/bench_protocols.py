"""Notebook 07's reversals, repeated: other seeds of the training, other people.

Windows minus one prototype, volume Dice of the liver, paired over people; the lower end of the
interval by EP1 and its upper end by EP2. Above 0 and below 0: two protocols, two winners.
Windows minus the copied mask by EP1; the lower end for Dice and for HD95, of which small is good.
Both above 0: two scores, two winners.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from fewshot_lib.data import anatomy
from fewshot_lib.episodes import Volume
from fewshot_lib.evaluation import (
    EP1,
    EP2,
    bootstrap_interval,
    copy_mask_baseline,
    evaluate,
    segment_volume,
    volume_dice,
)
from fewshot_lib.networks import FewShotSegmentationNet
from fewshot_lib.reading.models import SIZE, normalised, novel_organ_network
from fewshot_lib.surfaces import hausdorff95

ONE = FewShotSegmentationNet(encoder=nn.Identity(), background_grid=8)
WINDOWS = FewShotSegmentationNet(encoder=nn.Identity(), prototypes="grid", grid=8)


SEEDS_AND_PEOPLE = pytest.mark.parametrize(
    ("seed", "first"), [(seed, first) for seed in (0, 1, 2) for first in (9000, 9500)]
)


def seen_by(network: FewShotSegmentationNet, first: int) -> tuple[list[Volume], list[Volume]]:
    """Draw twelve people; give them, and what the network's encoder makes of them."""
    people = anatomy.make_volumes(12, size=SIZE, n_slices=18, first_subject=first)
    with torch.no_grad():
        seen = [replace(p, images=network.encoder(normalised(p.images))) for p in people]
    return people, seen


@SEEDS_AND_PEOPLE
def test_the_order_of_two_methods_by_two_protocols(bench, seed: int, first: int) -> None:
    _, seen = seen_by(novel_organ_network(seed, progress=False), first)
    ends = {}
    for protocol in (EP1, EP2):
        windows, one = (evaluate(m, seen, protocol, ["liver"]).rows for m in (WINDOWS, ONE))
        lead = [w.dice - o.dice for w, o in zip(windows, one, strict=True)]
        ends[protocol.name] = bootstrap_interval(lead)
    where = f"liver, windows - one prototype, seed {seed}, people {first}"
    bench(f"{where}, EP1 low end", ends["EP1"].low, "Dice", goal=">= 0")
    bench(f"{where}, EP2 high end", ends["EP2"].high, "Dice", goal="<= 0")


def copied(images, masks, queries):
    return copy_mask_baseline(masks).expand(len(queries), -1, -1, -1)


@SEEDS_AND_PEOPLE
def test_the_order_of_two_methods_by_two_scores(bench, seed: int, first: int) -> None:
    people, seen = seen_by(novel_organ_network(seed, progress=False), first)
    truth = torch.stack([p.mask("liver") for p in people])
    pairs = list(zip(seen[1:] + seen[:1], seen, strict=True))
    windows, copy = (
        torch.stack([segment_volume(m, s, q, "liver", EP1)[0] for s, q in pairs])
        for m in (WINDOWS, copied)
    )
    dice = bootstrap_interval(volume_dice(windows, truth) - volume_dice(copy, truth))
    far = [hausdorff95(made, truth, people[0].spacing) for made in (windows, copy)]
    hd95 = bootstrap_interval(far[0] - far[1])
    where = f"liver, windows - copied mask, EP1, seed {seed}, people {first}"
    bench(f"{where}, Dice low end", dice.low, "Dice", goal=">= 0")
    bench(f"{where}, HD95 low end", hd95.low, "mm", goal=">= 0")
