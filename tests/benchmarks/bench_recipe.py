"""How the settings of ``TransferSegmenter`` were chosen: on synthetic people, not on real scans.

Ten pairs of synthetic people, each a support and a query, and every person once in a CT and once
in an MR. Each scan has a scanner of its own (contrast, texture, noise, blur and shading are drawn)
and its own field of view along the body. Six pairs choose, the other four test: no person is in
both. A support is either wholly labelled (sixteen slices of it), or has one labelled slice per
organ, the one where the organ is largest. All slices of the query are segmented; scored is the mean
volume Dice over five organs, on a grid of 64 × 64, with at most 1024 exemplars per class for speed.
How many exemplars, and how much correction for class size goes with them, is chosen by rows of
their own.

Each row of the table of choice differs from ``CHOSEN`` in one thing; its gain is paired, with an
interval over pairs of people. ``ideas`` scores, on one pair, what was left out. The last rows check
the library's settings on the real scans A, B and C, which choose nothing. About ten minutes of
processor time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bench_transfer import ORGANS as THREE
from bench_transfer import drawn, scored, showing
from torch import Tensor, nn

from fewshot_lib.data import scans
from fewshot_lib.data.anatomy import make_subject, render
from fewshot_lib.data.scanner import LOOKS, PRESETS, Scanner
from fewshot_lib.episodes import Volume
from fewshot_lib.evaluation import bootstrap_interval, volume_dice
from fewshot_lib.transfer import (
    ImageNetEncoder,
    RememberingEncoder,
    TransferSegmenter,
    pretrained_available,
    view,
)

ORGANS = ("liver", "spleen", "kidney_right", "kidney_left", "stomach")
CHOOSE, TEST = range(6), range(6, 10)
SIZE, MOST, SLICES, DIMENSIONS = 64, 1024, 16, 64
IDEA_PAIRS = 1  # of those that choose: ideas cost most
GROUPS = {"CTCT": "CT → CT", "MRMR": "MR → MR", "CTMR": "across", "MRCT": "across"}
LABELS = {"volume": "whole volume", "slices": "one slice per organ"}


@dataclass(frozen=True)
class Settings:
    """Settings of the recipe; ``place`` is λ/α, ``across_mm`` smooths from slice to slice."""

    place: float = 2 / 3
    top_k: int = 1
    scale: float = 60.0
    correction: float = 0.0
    smoothing_mm: float = 10.0
    across_mm: float = 0.0

    def options(self) -> dict[str, Any]:
        """Return what ``TransferSegmenter`` takes."""
        return {
            "scale": self.scale,
            "location_weight": self.scale * self.place,
            "top_k": self.top_k,
            "size_correction": self.correction,
            "smoothing_mm": self.smoothing_mm,
        }


CHOSEN = Settings()
EXEMPLARS = {2048: (0.0, 0.2, 0.4), 6144: (0.0,)}  # at most so many per class, and γ
BEFORE = Settings(4 / 3, 5, 30.0, 0.2, 5.0)
ROWS = {
    "before (chosen on A → B)": BEFORE,
    "mean of the 3 nearest exemplars": replace(CHOSEN, top_k=3),
    "mean of the 5 nearest exemplars": replace(CHOSEN, top_k=5),
    "λ = 80": replace(CHOSEN, place=4 / 3),
    "λ = 20": replace(CHOSEN, place=1 / 3),
    "α = 30, λ = 20": replace(CHOSEN, scale=30.0),
    "α = 120, λ = 80": replace(CHOSEN, scale=120.0),
    "γ = 0.2": replace(CHOSEN, correction=0.2),
    "smoothing 5 mm": replace(CHOSEN, smoothing_mm=5.0),
    "smoothing 15 mm": replace(CHOSEN, smoothing_mm=15.0),
    "smoothing 10 mm across slices, too": replace(CHOSEN, across_mm=10.0),
}


# --- people


def scanner(kind: str, chance: np.random.Generator) -> Scanner:
    """Draw a scanner: a preset's contrast, moved; its texture, noise, shading and blur."""
    preset = PRESETS[kind]
    levels = {name: look.level for name, look in LOOKS.items()} | preset.contrast
    moved = {
        name: float(np.clip(level + 0.05 * chance.normal(), 0, 1.1)) if level > 0.05 else level
        for name, level in levels.items()
    }
    return replace(
        preset,
        name=kind,
        contrast=moved,
        texture=float(chance.uniform(0.2, 1)),
        noise=float(chance.uniform(0.02, 0.07)),
        bias=float(preset.bias * chance.uniform(0.5, 1.5)),
        blur_mm=float(chance.uniform(2, 4)),
        level_spread=float(chance.uniform(0.02, 0.05)),
    )


def pair(i: int) -> dict[tuple[str, str], Volume]:
    """Make the two people of pair i: (role, modality) → scan of 19 to 29 slices, 10 mm apart."""
    chance = np.random.default_rng([16, i])
    found = {}
    for role, index in (("support", 2 * i), ("query", 2 * i + 1)):
        person = make_subject(
            index,
            n_slices=32,
            size=128,
            split_kidneys=True,
            alignment=float(chance.uniform(0.85, 1)),
            organ_size=float(chance.uniform(0.9, 1.1)),
            seed=7,
        )
        shown = slice(int(chance.integers(3, 10)), 32 - int(chance.integers(0, 4)))
        kinds = ("CT", "ct_a" if chance.random() < 0.5 else "ct_b"), ("MR", "mr")
        for modality, kind in kinds:
            scan = render(person, scanner(kind, chance))
            images, labels = scan.images[shown], scan.labels[shown]
            found[role, modality] = replace(scan, images=images, labels=labels)
    return found


def directions(i: int) -> list[tuple[str, str]]:
    """Give the modalities of support and query: both alike, and one way across."""
    return [("CT", "CT"), ("MR", "MR"), ("CT", "MR") if i % 2 == 0 else ("MR", "CT")]


@dataclass
class Pixels:
    """Hold the body's pixels of a scan: unit features (P, D), places (P, 2), slice (P,)."""

    features: Tensor
    places: Tensor
    labels: Tensor  # (Z, N, N)
    body: Tensor  # (Z, N, N)
    mm: tuple[float, float]  # from slice to slice, and in the slice

    @property
    def slice(self) -> Tensor:
        """Say in which slice each pixel lies: (P,)."""
        return self.body.nonzero()[:, 0]


def pixels(scan: Volume, encoder: nn.Module, turned: bool = False) -> Pixels:
    """Encode a scan once; ``turned``: with its greys turned round inside the body."""
    seen = view(scan, SIZE)
    greys = torch.where(seen.body[:, None], 1 - seen.images, seen.images) if turned else seen.images
    parts = []
    with torch.no_grad():
        for images, body in zip(greys.split(4), seen.body.split(4), strict=True):
            parts.append(F.normalize(encoder(images).movedim(1, -1)[body], dim=1))
    numbers = torch.tensor([ORGANS.index(n) + 1 if n in ORGANS else 0 for n in scan.names])
    places = seen.coordinates.movedim(1, -1)[seen.body]
    mm = (scan.spacing[0], seen.pixel_mm)
    return Pixels(torch.cat(parts), places, numbers[seen.labels], seen.body, mm)


# --- the recipe on remembered features


@dataclass
class Known:
    """Hold exemplars, class by class: directions (D, d), features (n, d), places (n, 2)."""

    span: Tensor
    features: Tensor
    places: Tensor
    counts: list[int]
    slice: Tensor  # (n,)


def spread(index: Tensor, n: int) -> Tensor:
    """Take n of them, evenly."""
    return index if len(index) <= n else index[((torch.arange(n) + 0.5) * len(index) / n).long()]


def labelled(labels: Tensor, how: str) -> Tensor:
    """Say which slices are labelled: of those that show an organ, or each organ's largest."""
    area = torch.stack([(labels == k).flatten(1).sum(1) for k in range(1, len(ORGANS) + 1)])
    if how == "volume":
        return spread(area.sum(0).nonzero()[:, 0], SLICES)
    return area.argmax(1)[area.amax(1) > 0].unique()


def fit(support: Pixels, index: Tensor, most: int = MOST) -> Known:
    """Remember the exemplars of the labelled slices."""
    numbers = support.labels[support.body]
    among = torch.isin(support.slice, index)
    rows = [spread((among & (numbers == k)).nonzero()[:, 0], most) for k in range(len(ORGANS) + 1)]
    kept = torch.cat(rows)
    features = support.features[kept].float()
    span = torch.linalg.eigh(features.mT @ features).eigenvectors[:, -DIMENSIONS:]
    counts = [len(row) for row in rows]
    return Known(span, features @ span, support.places[kept], counts, support.slice[kept])


def alike(query: Pixels, known: Known, place: float, shift: float | None = None) -> Tensor:
    """Give the mean of the 1 … 5 best cos − (λ/α)·d² of every pixel and class: (P, K, 5).

    With ``shift``, in slices, the distance along the body counts as well, a quarter as much.
    """
    here, there = query.places * math.sqrt(place), known.places * math.sqrt(place)
    if shift is not None:
        unit = query.mm[0] / 170 * math.sqrt(place / 4)  # 170 mm: half a body's width
        here = torch.cat([here, (query.slice[:, None] - shift) * unit], 1)
        there = torch.cat([there, known.slice[:, None] * unit], 1)
    rows = torch.cat([known.features, 2 * there, -there.square().sum(1, keepdim=True)], 1)
    asked = query.features.float() @ known.span
    asked = torch.cat([asked, here, torch.ones(len(here), 1)], 1)
    found = torch.full((len(asked), len(known.counts), 5), -math.inf)
    for at in range(0, len(asked), 1024):
        products = (asked[at : at + 1024] @ rows.mT).split(known.counts, 1)
        for k, part in enumerate(products):
            best = part.topk(min(5, part.shape[1]), 1).values
            found[at : at + 1024, k, : best.shape[1]] = best
    counted = (found > -math.inf).cumsum(2).clamp_min(1)
    return found.masked_fill(found == -math.inf, 0).cumsum(2) / counted


def posterior(alike: Tensor, counts: list[int], query: Pixels, settings: Settings) -> Tensor:
    """Give log-posteriors (Z, K, N, N), as ``TransferSegmenter`` does, before smoothing."""
    number = torch.tensor(counts).float()
    logits = settings.scale * alike[..., settings.top_k - 1].float()
    logits = logits - settings.correction * number.clamp_min(1).log()
    return laid_out(logits.masked_fill(number == 0, -math.inf), query)


def laid_out(logits: Tensor, query: Pixels) -> Tensor:
    """Put logits (P, K) of the body's pixels on the grid, as log-posteriors (Z, K, N, N)."""
    log_p = torch.full((*query.body.shape, logits.shape[1]), -8.0)
    log_p[..., 0] = 0.0
    log_p[query.body] = logits.log_softmax(1).clamp_min(-8.0)
    return log_p.movedim(-1, 1)


def blur(n: int, deviation: float) -> Tensor:
    """Make the matrix (n, n) that smooths n numbers."""
    place = torch.arange(n, dtype=torch.float32)
    weight = torch.exp(-0.5 * ((place[:, None] - place) / deviation).square())
    return weight / weight.sum(1, keepdim=True)


def smoothed(log_p: Tensor, query: Pixels, settings: Settings) -> Tensor:
    """Smooth log-posteriors in the slices, and across them where the settings say so."""
    within = blur(log_p.shape[-1], settings.smoothing_mm / query.mm[1])
    log_p = within @ log_p @ within.mT
    if settings.across_mm:
        across = blur(len(log_p), settings.across_mm / query.mm[0])
        log_p = torch.einsum("ab,bkhw->akhw", across, log_p)
    return log_p.log_softmax(1)


def dice(found: Tensor, query: Pixels, counts: list[int]) -> float:
    """Give the mean volume Dice of the organs that support and query show."""
    each = [
        volume_dice(found == k, query.labels == k).item()
        for k, number in enumerate(counts)
        if k and number and (query.labels == k).any()
    ]
    return sum(each) / len(each)


# --- ideas that are not part of the recipe


def largest_parts(found: Tensor) -> Tensor:
    """Keep the largest connected part of each organ."""
    from scipy import ndimage

    kept = torch.zeros_like(found)
    for k in range(1, len(ORGANS) + 1):
        parts, n = ndimage.label((found == k).numpy())
        if n:
            largest = 1 + int(np.bincount(parts.ravel())[1:].argmax())
            kept[torch.from_numpy(parts == largest)] = k
    return kept


def axial_shift(support: Pixels, query: Pixels) -> int:
    """Find by how many slices the two are shifted: where their mean features agree best."""
    means = []
    for scan in (support, query):
        n = len(scan.body)
        total = torch.zeros(n, scan.features.shape[1])
        total.index_add_(0, scan.slice, scan.features.float())
        mean = total / torch.bincount(scan.slice, minlength=n).clamp_min(1)[:, None]
        means.append(F.normalize(mean - mean.mean(0), dim=1))
    agree = means[0] @ means[1].mT  # (slices of the support, of the query)
    least = min(agree.shape) / 2
    shifts = [s for s in range(1 - len(agree), agree.shape[1]) if len(agree.diagonal(s)) >= least]
    return max(shifts, key=lambda s: float(agree.diagonal(s).mean()))


def self_trained(log_p: Tensor, query: Pixels, known: Known) -> Tensor:
    """Train a small network on the query's confident pixels; return its log-posteriors."""
    sure, said = log_p.exp().movedim(1, -1)[query.body].max(1)
    classes = range(len(known.counts))
    rows = torch.cat([spread(((said == k) & (sure > 0.9)).nonzero()[:, 0], 1500) for k in classes])
    inputs = torch.cat([query.features.float() @ known.span, query.places / 2], 1)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(inputs.shape[1], 64), nn.ReLU(), nn.Linear(64, len(known.counts))
    )
    weight = torch.bincount(said[rows], minlength=len(known.counts)).clamp_min(1).rsqrt()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2, weight_decay=1e-3)
    with torch.enable_grad():
        for _ in range(60):
            optimiser.zero_grad()
            F.cross_entropy(network(inputs[rows]), said[rows], weight).backward()
            optimiser.step()
    with torch.no_grad():
        return laid_out(network(inputs), query)


def segment(query: Pixels, known: Known, settings: Settings = CHOSEN) -> Tensor:
    """Give log-posteriors of the whole recipe."""
    raw = posterior(alike(query, known, settings.place), known.counts, query, settings)
    return smoothed(raw, query, settings)


def ideas(support: Pixels, query: Pixels, index: Tensor, turned: Pixels) -> dict[str, float]:
    """Score what could be added to the chosen settings."""
    known = fit(support, index)
    score = partial(dice, query=query, counts=known.counts)
    raw = posterior(alike(query, known, CHOSEN.place), known.counts, query, CHOSEN)
    log_p = smoothed(raw, query, CHOSEN)
    found = {"largest connected part of each organ": score(largest_parts(log_p.argmax(1)))}
    along = alike(query, known, CHOSEN.place, axial_shift(support, query))
    along = posterior(along, known.counts, query, CHOSEN)
    found["place along the body, shift estimated"] = score(smoothed(along, query, CHOSEN).argmax(1))
    again = self_trained(log_p, query, known)
    found["self-training on confident pixels"] = score(
        smoothed((raw + again) / 2, query, CHOSEN).argmax(1)
    )
    said = segment(support, known).argmax(1)
    marked = torch.isin(torch.arange(len(said)), index)[:, None, None]
    more = replace(support, labels=torch.where(marked, support.labels, said))
    wider = fit(more, labelled(more.labels, "volume"))
    found["labels spread to the support's own slices"] = score(segment(query, wider).argmax(1))
    other = segment(turned, known)
    surer = [float(p.amax(1)[query.body].mean()) for p in (log_p, other)]
    found["greys turned round where that is surer"] = score(
        (other if surer[1] > surer[0] else log_p).argmax(1)
    )
    return found


# --- the tables


def copied(support: Pixels, query: Pixels, index: Tensor) -> Tensor:
    """Copy, into every slice, the label that most labelled slices show at a place, if any does."""
    votes = F.one_hot(support.labels[index], len(ORGANS) + 1).float().mean(0)
    votes[..., 0] = 0.5  # an organ needs half of the slices
    return votes.argmax(-1).expand(len(query.body), -1, -1)


Scores = dict[tuple[str, str, str], dict[int, float]]  # (group, labels, row) → pair → Dice


def measured(
    pairs: range, rows: dict[str, Settings], some_ideas: int, encoder: nn.Module
) -> Scores:
    """Score the rows on pairs of people, each way and with each kind of labels."""
    scores: Scores = {}
    for i in pairs:
        scan = pair(i)
        seen = {key: pixels(volume, encoder) for key, volume in scan.items()}
        for one, other in directions(i):
            support, query = seen["support", one], seen["query", other]
            for how in LABELS:
                index = labelled(support.labels, how)
                known = fit(support, index)
                found: dict[float, Tensor] = {}
                answer = {"copied mask": dice(copied(support, query, index), query, known.counts)}
                for name, settings in rows.items():
                    if settings.place not in found:
                        found[settings.place] = alike(query, known, settings.place)
                    raw = posterior(found[settings.place], known.counts, query, settings)
                    labels = smoothed(raw, query, settings).argmax(1)
                    answer[name] = dice(labels, query, known.counts)
                for most, corrections in EXEMPLARS.items() if some_ideas else ():
                    many = fit(support, index, most)
                    near = alike(query, many, CHOSEN.place)
                    for correction in corrections:
                        settings = replace(CHOSEN, correction=correction)
                        raw = posterior(near, many.counts, query, settings)
                        labels = smoothed(raw, query, settings).argmax(1)
                        name = f"{most} exemplars per class, γ = {correction}"
                        answer[name] = dice(labels, query, known.counts)
                if i in pairs[:some_ideas]:
                    turned = pixels(scan["query", other], encoder, turned=True)
                    answer |= ideas(support, query, index, turned)
                for name, value in answer.items():
                    scores.setdefault((GROUPS[one + other], how, name), {})[i] = value
        print(f"pair {i}", flush=True)
    return scores


def told(bench: Callable[..., None], scores: Scores, among: str) -> None:
    """Print each row: Dice by group and labels, and its gain over the chosen settings."""
    pairs = sorted({i for values in scores.values() for i in values})
    for name in dict.fromkeys(row for _, _, row in scores):
        kinds = [key for key in scores if key[2] == name]
        counted = [i for i in pairs if i in scores[kinds[0]]]
        gains = [
            sum(
                scores[key][i] - scores[(*key[:2], "chosen")][i]
                for key in kinds
                if i in scores[key]
            )
            / sum(i in scores[key] for key in kinds)
            for i in counted
        ]
        gain = bootstrap_interval(gains)
        each = ", ".join(
            f"{group} {labels}: {np.mean(list(scores[group, labels, name].values())):.2f}"
            for group, labels, _ in kinds
        )
        bench(
            f"{among}: {name}, gain over the chosen settings",
            gain.estimate,
            interval=(gain.low, gain.high),
            note=f"{gain.n} pairs of people; {each}",
        )


def overall(scores: Scores, name: str) -> float:
    """Give the mean Dice of a row over groups, labels and pairs."""
    return float(
        np.mean([v for key, found in scores.items() if key[2] == name for v in found.values()])
    )


needs_encoder = pytest.mark.skipif(
    not pretrained_available(), reason="needs the extra pretrained (ImageNet encoder)"
)


@pytest.mark.bench
@pytest.mark.timeout(2 * 3600)
@needs_encoder
def test_settings_are_chosen_on_some_synthetic_people(bench: Callable[..., None]) -> None:
    scores = measured(CHOOSE, {"chosen": CHOSEN, **ROWS}, IDEA_PAIRS, ImageNetEncoder())
    told(bench, scores, "choice")


@pytest.mark.bench
@pytest.mark.timeout(2 * 3600)
@needs_encoder
def test_and_tested_on_others(bench: Callable[..., None]) -> None:
    rows = {"chosen": CHOSEN, "before (chosen on A → B)": BEFORE}
    scores = measured(TEST, rows, 0, ImageNetEncoder())
    told(bench, scores, "test")
    better = overall(scores, "chosen") - overall(scores, "before (chosen on A → B)")
    bench("test: the chosen settings, minus those before", better, goal=">= 0")


@pytest.mark.bench
@needs_encoder
def test_the_library_does_as_its_settings_were_chosen(bench: Callable[..., None]) -> None:
    encoder = RememberingEncoder(ImageNetEncoder())
    people = pair(0)
    support, query = people["support", "CT"], people["query", "CT"]
    ours, asked = pixels(support, encoder), pixels(query, encoder)
    index = labelled(ours.labels, "slices")
    here = segment(asked, fit(ours, index)).argmax(1)
    # its exemplars are drawn at random, those of this file evenly
    default = TransferSegmenter(encoder, size=SIZE, max_exemplars=MOST, **CHOSEN.options())
    answer = default.fit(support, ORGANS, index).predict(query).log_posterior.argmax(1)
    same = float((here == answer)[asked.body].float().mean())
    bench("the library's labels that are those of this file", same, goal=">= 0.95")


@pytest.mark.bench
@pytest.mark.timeout(3600)
@needs_encoder
@pytest.mark.skipif(not scans.available(), reason="needs the real scans (fewshot data fetch)")
def test_the_real_scans_check_the_choice(bench: Callable[..., None]) -> None:
    a, b, c = (scans.load(name) for name in "ABC")
    encoder = RememberingEncoder(ImageNetEncoder())
    chance = torch.Generator().manual_seed(0)
    values: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(3):
        for way, target, organs in (("A → B", b, THREE), ("A → C", c, (*THREE, *ORGANS[2:4]))):
            index = drawn(showing(a, organs), chance)
            before = {"max_exemplars": 6144, **BEFORE.options()}
            uncorrected = {"size_correction": 0.0}
            rows = {"chosen": {}, "chosen, γ = 0": uncorrected, "before": before}
            for name, options in rows.items():
                segmenter = TransferSegmenter(encoder, **options)
                answer = segmenter.fit(a, organs, index).predict(target)
                found = scored(answer, target, torch.arange(len(target.images)))
                for organ, value in found.items():
                    values.setdefault((way, name, organ), []).append(value)
    for (way, name, organ), found in values.items():
        bench(f"check {way}, {name}: {organ}", float(np.mean(found)), note="3 draws of 5 slices")
