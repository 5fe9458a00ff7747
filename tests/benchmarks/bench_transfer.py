"""The ladder of notebook 08 on the three real scans: A → B, A → C, and a few slices of C.

Volume Dice over all slices of B and of C; for the slices of C over those that are more than one
slice away from every labelled one. Each figure is a mean over draws of the five labelled slices
(one from each fifth of the range that shows every organ asked for), with the interval of that mean:
nothing else is random. Three scans: the interval says nothing about other people. The settings are
the library's own, which synthetic people chose (``bench_recipe.py``); these scans check them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fewshot_lib.data import scans
from fewshot_lib.data.prepare import body_mask, scale_intensities
from fewshot_lib.episodes import Volume
from fewshot_lib.evaluation import bootstrap_interval, copy_mask_baseline, volume_dice
from fewshot_lib.transfer import (
    ImageNetEncoder,
    RememberingEncoder,
    Segmentation,
    TransferSegmenter,
    pretrained_available,
    view,
)

DRAWS = 8
RUNGS: dict[str, dict[str, Any]] = {
    "place only": {"scale": 0.0},
    "one mean": {"prototypes": "mean", "location_weight": 0.0},
    "one mean + soft place": {"prototypes": "mean"},
    "exemplars": {"location_weight": 0.0},
}  # the whole recipe is each of A → B and A → C without a name
ORGANS = ("liver", "spleen", "stomach")
KIDNEYS = ("kidney_right", "kidney_left")
GOALS = {
    "A → B": {"liver": 0.95, "spleen": 0.88, "stomach": 0.75},
    "5 slices of C": {"liver": 0.88, "spleen": 0.75, "kidney_right": 0.70, "kidney_left": 0.70},
}


def drawn(shown: Tensor, chance: torch.Generator, n: int = 5) -> Tensor:
    """Draw one slice from each n-th part of those in ``shown``, in order."""
    place = (torch.arange(n) + torch.rand(n, generator=chance)) / n * len(shown)
    return shown[place.long()]


def showing(volume: Volume, organs: tuple[str, ...]) -> Tensor:
    """Give the slices that show all the organs."""
    seen = [volume.mask(name).flatten(1).any(1) for name in organs]
    return torch.stack(seen).all(0).nonzero()[:, 0]


def scored(answer: Segmentation, volume: Volume, where: Tensor) -> dict[str, float]:
    """Give the volume Dice of each organ over some slices."""
    return {
        name: volume_dice(answer.mask(name)[where], volume.mask(name)[where]).item()
        for name in answer.names[1:]
    }


def copied(
    source: Volume, index: Tensor, target: Volume, organs: tuple[str, ...]
) -> dict[str, float]:
    """Copy the majority of the support masks to the same place of the square, in every slice."""
    seen, asked = view(source).labels[index], view(target).labels
    found = {}
    for name in organs:
        share = copy_mask_baseline((seen == source.names.index(name))[:, None].float())[0]
        truth = asked == target.names.index(name)
        found[name] = volume_dice((share >= 0.5).expand(truth.shape), truth).item()
    return found


@pytest.mark.bench
@pytest.mark.timeout(3600)
@pytest.mark.skipif(
    not (scans.available() and pretrained_available()),
    reason="needs the real scans (fewshot data fetch) and the extra pretrained",
)
def test_transfer_between_real_scans(bench: Callable[..., None]) -> None:
    a, b, c = (scans.load(name) for name in "ABC")
    encoder = RememberingEncoder(ImageNetEncoder())
    everything = (*ORGANS, *KIDNEYS)
    found: dict[tuple[str, str], list[float]] = {}

    def keep(what: str, values: dict[str, float]) -> None:
        for name, value in values.items():
            found.setdefault((what, name), []).append(value)

    chance = torch.Generator().manual_seed(0)

    def turned(volume: Volume) -> Volume:
        scaled = scale_intensities(volume)
        inverted = torch.where(body_mask(volume)[:, None], 1 - scaled.images, scaled.images)
        return replace(scaled, images=inverted) if volume is c else scaled

    def climb(what: str, target: Volume, organs: tuple[str, ...], index: Tensor) -> None:
        everywhere = torch.arange(len(target.images))
        for rung, options in {"": {}, **RUNGS}.items():
            segmenter = TransferSegmenter(encoder, **options).fit(a, organs, index)
            answer = segmenter.predict(target)
            keep(f"{what}, {rung}" if rung else what, scored(answer, target, everywhere))

    whole_c = torch.arange(len(c.images))
    for _ in range(DRAWS):
        index = drawn(showing(a, ORGANS), chance)
        climb("A → B", b, ORGANS, index)
        keep("A → B, copied mask", copied(a, index, b, ORGANS))
        index = drawn(showing(a, everything), chance)
        climb("A → C", c, everything, index)
        segmenter = TransferSegmenter(encoder, intensities=turned).fit(a, everything, index)
        keep("A → C, C inverted", scored(segmenter.predict(c), c, whole_c))
        keep("A → C, copied mask", copied(a, index, c, everything))
        index = drawn(whole_c, chance)
        apart = (whole_c[:, None] - index).abs()
        far, nearest = apart.amin(1) > 1, index[apart.argmin(1)]
        segmenter = TransferSegmenter(encoder).fit(c, everything, index)
        keep("5 slices of C", scored(segmenter.predict(c), c, far))
        copies = {
            n: volume_dice(c.mask(n)[nearest][far], c.mask(n)[far]).item() for n in everything
        }
        keep("5 slices of C, copied nearest slice", copies)

    for (what, name), values in found.items():
        mean = bootstrap_interval(values)
        goal = GOALS.get(what, {}).get(name)
        bench(
            f"volume Dice {what}: {name}",
            mean.estimate,
            interval=(mean.low, mean.high),
            goal=f">= {goal}" if goal else "",
            note=f"{mean.n} draws of 5 slices",
        )
