"""Episodes of slices, the loss, and training that can stop and go on (note §3.2, notebook 06)."""

from __future__ import annotations

import copy
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from fewshot_lib._tensors import full_precision, require_count, upcast
from fewshot_lib.episodes import Episode, SliceDataset, draw_episode
from fewshot_lib.networks import PixelClassifier
from fewshot_lib.prototypes import Distance, class_prototypes, log_posterior

Slices = SliceDataset | DataLoader[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]

# Tries at parting the subjects so that every class is on both sides.
SPLITS, ROUNDS = 32, 50


class SegmentationEpisode(NamedTuple):
    """Hold one episode, or E of them with a leading dimension, as a network takes them.

    Arguments:
        support_images: (S, C, H, W) or (E, S, C, H, W) float32, S = n_way·k_shot.
        support_masks: (S, K, H, W) or (E, S, K, H, W) float32 of 0 and 1, K = n_way + 1; channel 0
            is background, channel i + 1 the episode's class i; they sum to one.
        query_images: (Q, C, H, W) or (E, Q, C, H, W), Q = n_way·n_query.
        query_masks: (Q, K, H, W) or (E, Q, K, H, W).
    """

    support_images: Tensor
    support_masks: Tensor
    query_images: Tensor
    query_masks: Tensor


def sample_episode(
    dataset: Slices,
    n_way: int = 5,
    k_shot: int = 1,
    n_query: int = 1,
    generator: torch.Generator | None = None,
    episodes: int | None = None,
    all_classes: bool = False,
) -> SegmentationEpisode:
    """Draw an N-way K-shot segmentation task whose support and query show different people.

    Every set of n_way classes is equally likely. The subjects are parted at random into two halves,
    again until both halves show every class often enough; then k_shot slices that show class i come
    from the one half and n_query from the other, without replacement. *Every* class of the episode
    is marked in *every* image of it; all other organs are background. A slice that shows two
    classes may serve both.

    Arguments:
        dataset: a ``SliceDataset``, or a ``DataLoader`` over one (its batches are not used).
        n_way: organs in the episode, ≥ 1.
        k_shot: support slices of each, ≥ 1; K of "N-way K-shot".
        n_query: query slices of each, ≥ 0.
        generator: the source of randomness (on the CPU); None: torch's own, ``torch.manual_seed``.
        episodes: E ≥ 1 episodes at once, as a leading dimension; None: one, without.
        all_classes: mark every class of the data set that a slice shows, not only those that the
            episode asked for; see ``gather_episodes``.

    Returns:
        ``SegmentationEpisode``, a tuple of four. Rows are sorted by class, i·k_shot + j.

    Raises:
        ValueError: fewer than n_way classes; a class (named) that too few slices or subjects show,
            whether or not this draw would have met it; numbers out of range.
        TypeError: another kind of data set.

    Source: Vinyals et al. 2016; note §3.2, which calls it and does not define it. Notebooks 02, 06.

    >>> labels = torch.ones(2, 4, 4, dtype=torch.int64)
    >>> from fewshot_lib.episodes import Volume
    >>> slices = SliceDataset(
    ...     [Volume(torch.zeros(2, 1, 4, 4), labels, ("background", "a"), s) for s in "xy"], ["a"]
    ... )
    >>> [part.shape[1] for part in sample_episode(slices, n_way=1, k_shot=2)]
    [1, 2, 1, 2]
    """
    slices = _slice_dataset(dataset)
    index = _draw(slices, n_way, k_shot, n_query, generator, episodes or 1)
    drawn = _gathered(slices, *index, all_classes)
    return drawn if episodes is not None else SegmentationEpisode(*(part[0] for part in drawn))


def sample_slices(
    dataset: Slices,
    n_way: int = 5,
    k_shot: int = 1,
    n_query: int = 1,
    generator: torch.Generator | None = None,
) -> Episode:
    """Draw the same episode as ``sample_episode``, as indices into the data set.

    Arguments:
        dataset, n_way, k_shot, n_query, generator: as for ``sample_episode``.

    Returns:
        ``Episode`` with indices into ``dataset.images``; ``classes`` are the labels there (1 …).

    Raises:
        ValueError, TypeError: as ``sample_episode``.

    Source: notebook 02, which looks for leaks with it.

    >>> labels = torch.ones(2, 4, 4, dtype=torch.int64)
    >>> from fewshot_lib.episodes import Volume
    >>> slices = SliceDataset(
    ...     [Volume(torch.zeros(2, 1, 4, 4), labels, ("background", "a"), s) for s in "xy"], ["a"]
    ... )
    >>> sample_slices(slices, n_way=1, k_shot=2).support_index.shape
    torch.Size([1, 2])
    """
    slices = _slice_dataset(dataset)
    support, query, classes = _draw(slices, n_way, k_shot, n_query, generator, 1)
    return Episode(support[0], query[0], classes[0] + 1)


def gather_episodes(
    dataset: Slices, drawn: Sequence[Episode], all_classes: bool = False
) -> SegmentationEpisode:
    """Make episodes of the slices that ``sample_slices`` drew, and so keep track of their subjects.

    Arguments:
        dataset: what they were drawn from.
        drawn: E ≥ 1 episodes of the same ways, shots and queries.
        all_classes: mark every class of the data set that a slice shows, not only those that the
            episode asked for: more ways from the same slices. K = n_classes + 1, in the data set's
            order; a class that the support does not show has an empty mask there.

    Returns:
        ``SegmentationEpisode`` with a leading dimension E, as ``sample_episode`` gives it. The
        subject of each query is ``dataset.subjects[episode.query_index]``.

    Raises:
        ValueError: no episodes, or episodes of different sizes.
        TypeError: another data set.

    Source: notebook 06, whose intervals resample subjects.

    >>> labels = torch.ones(2, 4, 4, dtype=torch.int64)
    >>> from fewshot_lib.episodes import Volume
    >>> slices = SliceDataset(
    ...     [Volume(torch.zeros(2, 1, 4, 4), labels, ("background", "a"), s) for s in "xy"], ["a"]
    ... )
    >>> gather_episodes(slices, [sample_slices(slices, n_way=1)] * 3).query_masks.shape
    torch.Size([3, 1, 2, 4, 4])
    """
    slices = _slice_dataset(dataset)
    sizes = {(*one.support_index.shape, one.query_index.shape[1]) for one in drawn}
    if len(sizes) != 1:
        raise ValueError(
            "expected at least one episode, all of one size (n_way, k_shot, n_query), got "
            f"{sorted(sizes)}"
        )
    classes = torch.stack([one.classes for one in drawn]) - 1
    support = torch.stack([one.support_index for one in drawn])
    query = torch.stack([one.query_index for one in drawn])
    return _gathered(slices, support, query, classes, all_classes)


def random_orientation(
    episode: SegmentationEpisode, generator: torch.Generator
) -> SegmentationEpisode:
    """Turn or mirror a whole episode, support and query alike: one of eight ways of a square.

    A prototype is computed anew in each episode, so that an episode on its side is another task:
    what is textured from left to right is now textured from top to bottom, in support *and* query.
    A classifier with a fixed output for each class would be told that the two are the same.

    Arguments:
        episode: (S, …) or (E, S, …); all its episodes are turned alike.
        generator: the source of randomness.

    Returns:
        ``SegmentationEpisode`` with (…, H, W) or, turned by a quarter, (…, W, H).

    Source: for ``episodic_training_epoch(augment=…)``; notebook 06. Classes by rotation: notebook
    03 and Snell et al. 2017, §3.1.

    >>> image, mask = torch.rand(1, 1, 4, 6), torch.ones(1, 2, 4, 6)
    >>> task = SegmentationEpisode(image, mask, image, mask)
    >>> sorted(random_orientation(task, torch.Generator().manual_seed(0))[0].shape)
    [1, 1, 4, 6]
    """
    down, across, swap = (torch.rand(3, generator=generator) < 0.5).tolist()
    dims = [dim for dim, wanted in ((-2, down), (-1, across)) if wanted]

    def turned(part: Tensor) -> Tensor:
        part = part.flip(dims) if dims else part
        return part.mT.contiguous() if swap else part

    return SegmentationEpisode(*map(turned, episode))


def _slice_dataset(dataset: Slices) -> SliceDataset:
    held = dataset.dataset if isinstance(dataset, DataLoader) else dataset
    if not isinstance(held, SliceDataset):
        raise TypeError(
            "expected a SliceDataset or a DataLoader over one, got "
            f"{type(held).__name__}; make one of volumes with SliceDataset(volumes, classes)"
        )
    return held


def _draw(
    dataset: SliceDataset,
    n_way: int,
    k_shot: int,
    n_query: int,
    generator: torch.Generator | None,
    episodes: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return support (E, n_way, k_shot), query (E, n_way, n_query) and class columns (E, n_way)."""
    subject, shown = _class_counts(dataset, n_way, k_shot, n_query)
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    n_classes, n_subjects = shown.shape
    chances = torch.rand(episodes, n_classes, generator=generator)
    classes = chances.argsort(dim=1)[:, :n_way]  # (E, n_way)
    shown = shown[classes]  # (E, n_way, subjects)
    # Half the subjects support. Splits that leave a class short on a side are drawn again.
    supports = torch.zeros(episodes, n_subjects, dtype=torch.bool)
    settled = torch.zeros(episodes, dtype=torch.bool)
    enough = torch.zeros(episodes, SPLITS, n_way, dtype=torch.bool)
    for _ in range(ROUNDS):
        order = torch.rand(episodes, SPLITS, n_subjects, generator=generator).argsort(dim=2)
        split = order < max(1, n_subjects // 2)  # (E, splits, subjects)
        there = split.float() @ shown.float().mT  # (E, splits, n_way) slices on the support's side
        enough = (there >= k_shot) & (shown.sum(dim=2)[:, None] - there >= n_query)
        works = enough.all(dim=2)
        first = works.byte().argmax(dim=1)
        chosen = split[torch.arange(episodes), first]
        supports = torch.where(settled[:, None], supports, chosen)
        settled = settled | works.any(dim=1)
        if bool(settled.all()):
            break
    else:
        short = torch.unique(classes[~settled][~enough[~settled].any(dim=1)])
        names = [dataset.classes[number] for number in short.tolist()] or "together"
        raise ValueError(
            f"{ROUNDS * SPLITS} ways to part the subjects left some class with fewer than "
            f"{k_shot} support or {n_query} query slices ({names}): lower n_way, k_shot or "
            "n_query, or leave the rare classes out with .select(classes=…)"
        )
    shows = dataset.presence.mT[classes]  # (E, n_way, N)
    on_support_side = supports[:, subject][:, None]  # (E, 1, N)
    keys = torch.rand(shows.shape, generator=generator)
    support = torch.where(shows & on_support_side, keys, -1.0).topk(k_shot, dim=2).indices
    query = torch.where(shows & ~on_support_side, keys, -1.0).topk(n_query, dim=2).indices
    return support, query, classes


def _class_counts(
    dataset: SliceDataset, n_way: int, k_shot: int, n_query: int
) -> tuple[Tensor, Tensor]:
    """Number the subjects (N,), count each class's slices per subject (n_classes, subjects)."""
    for name, value, least in (("n_way", n_way, 1), ("k_shot", k_shot, 1), ("n_query", n_query, 0)):
        require_count(name, value, least)
    if n_way > len(dataset.classes):
        raise ValueError(
            f"n_way = {n_way} distinct classes were asked for, but the data set has only "
            f"{len(dataset.classes)} ({', '.join(dataset.classes)}); lower n_way or add classes"
        )
    subject = torch.unique(dataset.subjects, return_inverse=True)[1]
    n_subjects = int(subject.max()) + 1 if len(subject) else 0
    shown = torch.zeros(n_subjects, len(dataset.classes), dtype=torch.int64)
    shown = shown.index_add_(0, subject, dataset.presence.long()).mT
    slices, people = shown.sum(dim=1), (shown > 0).sum(dim=1)
    short = (slices < k_shot + n_query) | (people < (2 if n_query else 1))
    if bool(short.any()):
        found = "; ".join(
            f"{dataset.classes[number]} is on {slices[number]} slices of {people[number]} subjects"
            for number in short.nonzero()[:, 0].tolist()
        )
        raise ValueError(
            f"each class needs {k_shot} support and {n_query} query slices of different subjects "
            f"(with at least {dataset.min_pixels} pixels of it), but {found}: lower k_shot or "
            "n_query, add subjects, or leave the class out with .select(classes=…)"
        )
    return subject, shown


def _gathered(
    dataset: SliceDataset, support: Tensor, query: Tensor, classes: Tensor, all_classes: bool
) -> SegmentationEpisode:
    """Return the images and masks of slices (E, n_way, k_shot) and (E, n_way, n_query)."""
    if all_classes:
        classes = torch.arange(len(dataset.classes)).expand(len(classes), -1)
    n_way = classes.shape[1]
    # Each episode's own numbers: 0 for background and every organ it does not ask for.
    number = torch.zeros(len(classes), len(dataset.classes) + 1, dtype=torch.int64)
    number.scatter_(1, classes + 1, torch.arange(1, n_way + 1).expand(classes.shape))
    parts = []
    for index in (support.flatten(1), query.flatten(1)):  # (E, S), (E, Q)
        labels = dataset.labels[index]  # (E, S, H, W)
        labels = number.gather(1, labels.flatten(1)).view(labels.shape)
        masks = labels[:, :, None] == torch.arange(n_way + 1)[:, None, None]
        parts += [dataset.images[index], masks.float()]
    return SegmentationEpisode(*parts)


def segmentation_loss(
    logits: Tensor,
    masks: Tensor,
    dice_weight: float = 0.0,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """Compare logits with the true masks: cross-entropy, and a soft Dice if wished.

    L = −Σ_p Σ_k m_k(p) log softmax_k(ℓ(p)) / Σ_p Σ_k m_k(p)
        + w · (1 − mean_k 2 Σ_p m_k(p) p_k(p) / Σ_p (m_k(p) + p_k(p)))

    Both over the classes that can be predicted: where ℓ_k(p) = −inf the support says nothing of
    class k, no network could be right there, and that part of the target does not count. A pixel
    without any class (masks of organs only, as in the note) does not count either. The Dice is
    averaged over the classes that the image shows.

    Arguments:
        logits: (…, K, H, W) floating; −inf allowed.
        masks: (…, K, H, W) bool, integer or floating in 0 … 1, one channel per class.
        dice_weight: w ≥ 0.
        reduction: "mean" over the images that have a pixel that counts, or "none".

    Returns:
        A scalar, or (…), one value per image (0 for an image without a pixel that counts); float32,
        or float64 for float64 logits. Its gradient is finite.

    Raises:
        ValueError: shapes that differ, masks outside 0 … 1, logits of NaN or +inf, a negative
            weight; for "mean", no pixel that counts in any image.
        TypeError: logits that are not floating point.

    Source: note §3.2, which calls it and does not define it; PANet, equation 5. Notebook 06.

    >>> masks = torch.tensor([[[1.0]], [[0.0]]])
    >>> round(segmentation_loss(torch.zeros(2, 1, 1), masks).item(), 4)
    0.6931
    """
    if not logits.dtype.is_floating_point:
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    if logits.ndim < 3 or logits.shape != masks.shape:
        raise ValueError(
            f"expected logits and masks (…, K, H, W) of one shape, got {tuple(logits.shape)} and "
            f"{tuple(masks.shape)}; a map of labels becomes masks with one_hot, classes third last"
        )
    if not 0 <= dice_weight < math.inf:
        raise ValueError(f"dice_weight must be finite and at least 0, got {dice_weight}")
    if reduction not in ("mean", "none"):
        raise ValueError(f'reduction must be "mean" or "none", got {reduction!r}')
    if masks.dtype != torch.bool and bool(((masks < 0) | (masks > 1)).any()):
        raise ValueError("masks must lie in 0 … 1, one channel per class")
    with full_precision(logits):
        wide = upcast(logits)
        possible = wide != -math.inf
        if bool((wide.isnan() | (wide == math.inf)).any()):
            raise ValueError("logits must be finite or −inf, got NaN or +inf")
        target = masks.to(wide.dtype) * possible
        # A large negative number in the place of −inf: its softmax is 0, its gradient is not NaN.
        logs = wide.masked_fill(~possible, torch.finfo(wide.dtype).min / 4).log_softmax(dim=-3)
        entropy = -(target * logs).sum(dim=(-3, -2, -1))
        counted = target.sum(dim=(-3, -2, -1))
        losses = entropy / torch.where(counted > 0, counted, 1.0)
        if dice_weight:
            losses = losses + dice_weight * _soft_dice_loss(logs.exp() * possible, target)
    if reduction == "none":
        return losses
    some = counted > 0
    if not bool(some.any()):
        raise ValueError(
            "no pixel has a class that can be predicted, so there is nothing to learn from: are "
            "the masks empty, or of classes that the support does not show?"
        )
    return losses.sum() / some.sum()


def _soft_dice_loss(posterior: Tensor, target: Tensor) -> Tensor:
    # A pixel that does not count for the target does not count as a false alarm either.
    posterior = posterior * (target.sum(dim=-3, keepdim=True) > 0)
    shown = target.sum(dim=(-2, -1))
    shared = (target * posterior).sum(dim=(-2, -1))
    total = shown + posterior.sum(dim=(-2, -1))
    per_class = 1 - 2 * shared / torch.where(total > 0, total, 1.0)  # (…, K)
    present = (shown > 0).to(target.dtype)
    return (per_class * present).sum(dim=-1) / present.sum(dim=-1).clamp_min(1)


@dataclass(frozen=True)
class TrainingResult:
    """Hold what a training run did.

    Arguments:
        losses: one per episode (per step, for ``fit_pixel_classifier``), from the very first, those
            of earlier runs that a checkpoint brought back included.
        seconds: wall-clock time of all runs together.
        resumed_at: how many of the losses came from a checkpoint.
    """

    losses: tuple[float, ...]
    seconds: float
    resumed_at: int = 0

    def smoothed(self, window: int = 50) -> Tensor:
        """Return running means of up to ``window`` losses, (N,) float64, for a curve."""
        losses = torch.tensor(self.losses, dtype=torch.float64)
        sums = torch.cat([losses.new_zeros(1), losses.cumsum(0)])
        last = torch.arange(1, len(losses) + 1)
        first = (last - window).clamp_min(0)
        return (sums[last] - sums[first]) / (last - first)


def episodic_training_epoch(
    model: nn.Module,
    episodes: Slices | Iterable[SegmentationEpisode],
    optimizer: Optimizer,
    num_episodes: int = 100,
    *,
    n_way: int = 5,
    k_shot: int = 1,
    n_query: int = 1,
    episodes_per_step: int = 1,
    all_classes: bool = False,
    loss: Loss | None = None,
    dice_weight: float = 0.0,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    augment: Callable[[SegmentationEpisode, torch.Generator], SegmentationEpisode] | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 100,
    progress: bool = True,
    on_step: Callable[[list[float]], None] | None = None,
) -> TrainingResult:
    """Train a network on episodes; stop and go on at will.

    For each step: draw, predict, L = segmentation_loss, zero_grad, backward, step. All queries of
    an episode go through the network together (the note's network takes one; its loop passes many).

    With ``checkpoint`` the run saves itself, atomically, every ``checkpoint_every`` episodes and at
    the end: weights, optimizer, scheduler, the state of both random generators (its own and
    torch's, which dropout draws from) and all losses. Called again with the same arguments it goes
    on from there, with bit for bit the result of a run that was never interrupted (notebook 06
    shows it); called with more episodes it trains on; a finished run returns at once. The file
    loads with ``torch.load(path, weights_only=True)``.

    Arguments:
        model: ``FewShotSegmentationNet`` or any module of its call form. Left in training mode.
        episodes: a ``SliceDataset`` (or ``DataLoader`` over one) to draw from, or episodes made
            elsewhere, (S, …) or (E, S, …): one item per step. Resuming skips those already used.
        optimizer: over the model's parameters.
        num_episodes: in total, with those of the checkpoint, ≥ 0.
        n_way, k_shot, n_query: as for ``sample_episode``; unused with episodes made elsewhere.
        episodes_per_step: drawn and averaged in one step, ≥ 1. The last step may have fewer.
        all_classes: as for ``sample_episode``: more ways from the same slices.
        loss: (logits, masks) → scalar or a value per image; None: ``segmentation_loss``.
        dice_weight: for ``segmentation_loss``.
        scheduler: stepped after each optimizer step.
        augment: changes an episode before it is used, drawing from the generator it is given.
        seed: of the episodes, ≥ 0.
        checkpoint: a file, or None.
        checkpoint_every: episodes, ≥ 1.
        progress: show a progress bar (on stderr).
        on_step: called with all losses so far after each step, for a live curve.

    Returns:
        ``TrainingResult`` with a loss per episode.

    Raises:
        ValueError: settings out of range, a frozen model, an optimizer without the model's
            parameters, a checkpoint of another run (it says in what they differ), episodes that
            run out.
        FloatingPointError: a loss that is not finite, before it can spoil the weights.
        TypeError, ValueError: as ``sample_episode``.

    Source: note §3.2; Vinyals et al. 2016, §2.2. Notebook 06.

    >>> from fewshot_lib.networks import FewShotSegmentationNet
    >>> masks = torch.ones(1, 1, 8, 8)
    >>> task = SegmentationEpisode(torch.rand(1, 1, 8, 8), masks, torch.rand(1, 1, 8, 8), masks)
    >>> net = FewShotSegmentationNet(encoder=nn.Conv2d(1, 4, 2, stride=2))
    >>> optimizer = torch.optim.Adam(net.parameters())
    >>> len(episodic_training_epoch(net, [task] * 3, optimizer, 3, progress=False).losses)
    3
    """
    episodes_per_step = require_count("episodes_per_step", episodes_per_step, 1)
    n_way, k_shot = require_count("n_way", n_way, 1), require_count("k_shot", k_shot, 1)
    n_query = require_count("n_query", n_query, 0)
    slices: SliceDataset | None = None
    given: Iterator[SegmentationEpisode] = iter(())
    if isinstance(episodes, SliceDataset | DataLoader):
        slices = _slice_dataset(episodes)
    elif isinstance(episodes, Iterable):
        given = iter(episodes)
    else:
        raise TypeError(
            "episodes must be a SliceDataset, a DataLoader over one, or an iterable of "
            f"SegmentationEpisode, got {type(episodes).__name__}"
        )
    settings: dict[str, Any] = {"kind": "episodes", "n_way": n_way, "k_shot": k_shot}
    settings |= {"n_query": n_query, "episodes_per_step": episodes_per_step}
    settings |= {"all_classes": all_classes, "dice_weight": float(dice_weight)}
    settings |= {"loss": _name(loss), "augment": _name(augment), **_fingerprint(slices)}

    def losses_of(most: int, generator: torch.Generator, device: torch.device) -> Tensor:
        if slices is not None:
            count = min(most, episodes_per_step)
            drawn = sample_episode(slices, n_way, k_shot, n_query, generator, count, all_classes)
        elif (following := next(given, None)) is not None:
            drawn = following
        else:
            raise ValueError(
                f"the episodes ran out before num_episodes = {num_episodes}; give more of them"
            )
        if augment is not None:
            drawn = augment(drawn, generator)
        support_images, support_masks, queries, masks = (part.to(device) for part in drawn)
        logits = model(support_images, support_masks, queries)
        count = len(support_images) if support_images.ndim == 5 else 1
        if loss is None:
            values = segmentation_loss(logits, masks, dice_weight, reduction="none")
        else:
            values = loss(logits, masks)
        return values.reshape(count, -1).mean(dim=1) if values.ndim else values.expand(count)

    def skip(steps: int) -> None:
        next(islice(given, steps, steps), None)

    run = _Run(model, optimizer, scheduler, settings, seed, checkpoint, checkpoint_every)
    return run.train(num_episodes, losses_of, "episodes", progress, on_step, skip)


def fit_pixel_classifier(
    model: PixelClassifier,
    dataset: Slices,
    optimizer: Optimizer,
    num_steps: int = 100,
    *,
    batch_size: int = 8,
    dice_weight: float = 0.0,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 100,
    progress: bool = True,
    on_step: Callable[[list[float]], None] | None = None,
) -> TrainingResult:
    """Train an encoder in the ordinary way: classify the pixels of batches of slices.

    The same loss and the same encoder as ``episodic_training_epoch``, without episodes: what is
    left of a difference between the two is what the episodes did.

    Arguments:
        model: ``PixelClassifier`` with n_classes = len(dataset.classes) + 1. Left in training mode.
        dataset: a ``SliceDataset``, or a ``DataLoader`` over one (its batches are not used).
        optimizer: over the model's parameters.
        num_steps: in total, with those of the checkpoint, ≥ 0.
        batch_size: slices per step, drawn with replacement, each slice as likely as any, ≥ 1.
        dice_weight, scheduler, seed, checkpoint, checkpoint_every (in steps), progress, on_step: as
            for ``episodic_training_epoch``.

    Returns:
        ``TrainingResult`` with a loss per step.

    Raises:
        ValueError: a model with another number of classes, an empty data set, and as
            ``episodic_training_epoch``.

    Source: notebooks 01 and 06; Laenen and Bertinetto 2020 (are episodes needed?).

    >>> from fewshot_lib.episodes import Volume
    >>> labels = torch.ones(2, 4, 4, dtype=torch.int64)
    >>> volume = Volume(torch.zeros(2, 1, 4, 4), labels, ("background", "a"), "x")
    >>> model = PixelClassifier(nn.Identity(), 1, 2)
    >>> optimizer = torch.optim.Adam(model.parameters())
    >>> slices = SliceDataset([volume], ["a"])
    >>> len(fit_pixel_classifier(model, slices, optimizer, 3, progress=False).losses)
    3
    """
    slices = _slice_dataset(dataset)
    batch_size = require_count("batch_size", batch_size, 1)
    n_classes = len(slices.classes) + 1
    if model.n_classes != n_classes:
        raise ValueError(
            f"the data set has {n_classes} classes with background, the model {model.n_classes}"
        )
    if not len(slices):
        raise ValueError("the data set has no slices")
    settings = {"kind": "pixels", "batch_size": batch_size, "dice_weight": float(dice_weight)}
    settings |= _fingerprint(slices)

    def losses_of(most: int, generator: torch.Generator, device: torch.device) -> Tensor:
        index = torch.randint(len(slices), (batch_size,), generator=generator)
        labels = slices.labels[index][:, None]
        masks = (labels == torch.arange(n_classes)[:, None, None]).float()
        logits = model(slices.images[index].to(device))
        return segmentation_loss(logits, masks.to(device), dice_weight)[None]

    run = _Run(model, optimizer, scheduler, settings, seed, checkpoint, checkpoint_every)
    return run.train(num_steps, losses_of, "steps", progress, on_step)


def fit_encoder(
    encoder: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: Optimizer,
    num_episodes: int = 200,
    *,
    n_way: int = 5,
    k_shot: int = 1,
    n_query: int = 5,
    distance: Distance = "squared_euclidean",
    scale: float = 1.0,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 100,
    progress: bool = True,
    on_step: Callable[[list[float]], None] | None = None,
) -> TrainingResult:
    """Train an encoder of whole images on classification episodes, as Snell et al. do.

    For each step: draw an episode, embed support and query, average the support into prototypes,
    L = mean over the queries of −log p(y = k | z); zero_grad, backward, step.

    Arguments:
        encoder: images (B, C, H, W) → embeddings (B, D). Left in training mode.
        images: (N, C, H, W).
        labels: (N,) integer classes, any values.
        optimizer: over the encoder's parameters.
        num_episodes: in total, with those of the checkpoint, ≥ 0.
        n_way, k_shot, n_query: as for ``draw_episode``.
        distance, scale: as for ``log_posterior``.
        seed, checkpoint, checkpoint_every, progress, on_step: as for ``episodic_training_epoch``.

    Returns:
        ``TrainingResult`` with a loss per episode.

    Raises:
        ValueError, TypeError: as ``draw_episode``, for numbers of images and labels that differ,
            and as ``episodic_training_epoch``.

    Source: Snell et al. 2017, Algorithm 1. Notebook 03.

    >>> images, labels = torch.rand(12, 4), torch.arange(12) % 3
    >>> encoder = nn.Linear(4, 2)
    >>> optimizer = torch.optim.Adam(encoder.parameters())
    >>> len(fit_encoder(encoder, images, labels, optimizer, 3, n_way=2, n_query=1).losses)
    3
    """
    if len(images) != len(labels):
        raise ValueError(f"every image needs a label, got {len(images)} and {len(labels)}")
    n_way, k_shot = require_count("n_way", n_way, 1), require_count("k_shot", k_shot, 1)
    n_query = require_count("n_query", n_query, 0)
    settings: dict[str, Any] = {"kind": "classification", "n_way": n_way, "k_shot": k_shot}
    settings |= {"n_query": n_query, "distance": distance, "scale": float(scale)}
    settings |= {"classes": torch.unique(labels).tolist(), "images": len(images)}

    def losses_of(most: int, generator: torch.Generator, device: torch.device) -> Tensor:
        episode = draw_episode(labels, n_way, k_shot, n_query, generator)
        embeddings = encoder(images[episode.indices].to(device))
        support, query = embeddings.split([n_way * k_shot, n_way * n_query])
        prototypes = class_prototypes(support, episode.support_labels.flatten().to(device), n_way)
        logs = log_posterior(query, prototypes, distance, scale)
        return F.nll_loss(logs, episode.query_labels.flatten().to(device))[None]

    run = _Run(encoder, optimizer, None, settings, seed, checkpoint, checkpoint_every)
    return run.train(num_episodes, losses_of, "episodes", progress, on_step)


def fine_tune(
    encoder: nn.Module,
    feat_dim: int,
    support_images: Tensor,
    support_masks: Tensor,
    *,
    steps: int = 50,
    learning_rate: float = 1e-3,
    dice_weight: float = 0.0,
    freeze_encoder: bool = False,
) -> PixelClassifier:
    """Fit a new pixel classifier to a support set, starting from a trained encoder.

    The usual answer to "few labels, a pretrained network": a fresh linear classifier (zeros, so
    that nothing is random) on a *copy* of the encoder, and full-batch Adam steps on the support.

    Arguments:
        encoder: images (B, C, H, W) → features (B, D, H', W'); left as it is.
        feat_dim: D.
        support_images: (S, C, H, W).
        support_masks: (S, K, H, W) in 0 … 1.
        steps: ≥ 0.
        learning_rate: of Adam.
        dice_weight: as for ``segmentation_loss``.
        freeze_encoder: fit the linear classifier only, on features computed once.

    Returns:
        ``PixelClassifier`` in evaluation mode, images (B, C, H, W) → logits (B, K, H, W), −inf for
        a class that the support does not show.

    Raises:
        ValueError: shapes that do not fit, settings out of range, empty masks.

    Source: notebook 06 (the supervised row); Chen et al. 2019, "A closer look at few-shot
    classification" (fine-tuning as the baseline).

    >>> images = torch.tensor([[[[0.0, 1.0]]]])
    >>> masks = torch.cat([1 - images, images], dim=1)
    >>> tuned = fine_tune(nn.Identity(), 1, images, masks, learning_rate=0.1)
    >>> tuned(images).argmax(dim=1).tolist()
    [[[0, 1]]]
    """
    require_count("steps", steps, 0)
    if support_images.ndim != 4 or support_masks.ndim != 4:
        raise ValueError(
            "expected support_images (S, C, H, W) and support_masks (S, K, H, W), got "
            f"{tuple(support_images.shape)} and {tuple(support_masks.shape)}"
        )
    size = (support_images.shape[-2], support_images.shape[-1])
    with torch.enable_grad():
        model = PixelClassifier(copy.deepcopy(encoder), feat_dim, support_masks.shape[1])
        model = model.to(support_images)
        for parameter in model.classifier.parameters():
            nn.init.zeros_(parameter)
        model.possible = (support_masks > 0).any(dim=3).any(dim=2).any(dim=0)
        model.requires_grad_(True).train()
        trained = list(model.classifier.parameters())
        if freeze_encoder:
            model.encoder.requires_grad_(False).eval()
            features: Tensor = model.encoder(support_images).detach()
        else:
            trained += list(model.encoder.parameters())
        optimizer = torch.optim.Adam(trained, lr=learning_rate)
        for _ in range(steps):
            if not freeze_encoder:
                features = model.encoder(support_images)
            loss = segmentation_loss(model.classify(features, size), support_masks, dice_weight)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()


class FineTuner:
    """Fine-tune on each new support set, in the call form of ``FewShotSegmentationNet``.

    Calls with the very same support tensors as the last call (further queries) use its result.

    Arguments:
        encoder, feat_dim, **options: as for ``fine_tune``.

    Call: support_images (S, C, H, W), support_masks (S, K, H, W), queries (Q, C, H, W) → logits
        (Q, K, H, W), without gradient.

    Source: notebook 06, through ``evaluation.evaluate``.

    >>> images = torch.tensor([[[[0.0, 1.0]]]])
    >>> tuner = FineTuner(nn.Identity(), 1, learning_rate=0.1)
    >>> tuner(images, torch.cat([1 - images, images], dim=1), 1 - images).argmax(dim=1).tolist()
    [[[1, 0]]]
    """

    def __init__(self, encoder: nn.Module, feat_dim: int, **options: Any) -> None:
        self.encoder, self.feat_dim, self.options = encoder, feat_dim, options
        self._support: tuple[Tensor, Tensor] | None = None
        self._tuned: PixelClassifier | None = None

    def __call__(self, support_images: Tensor, support_masks: Tensor, queries: Tensor) -> Tensor:
        """Return logits (Q, K, H, W) of queries (Q, C, H, W)."""
        known = self._support
        if known is None or known[0] is not support_images or known[1] is not support_masks:
            self._support = (support_images, support_masks)
            self._tuned = fine_tune(
                self.encoder, self.feat_dim, support_images, support_masks, **self.options
            )
        assert self._tuned is not None
        with torch.no_grad():
            logits: Tensor = self._tuned(queries)
        return logits


@dataclass
class _Run:
    """One training run: the loop, and its checkpoint."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None
    settings: dict[str, Any]
    seed: int
    checkpoint: str | os.PathLike[str] | None
    every: int

    def train(
        self,
        total: int,
        losses_of: Callable[[int, torch.Generator, torch.device], Tensor],
        unit: str,
        progress: bool,
        on_step: Callable[[list[float]], None] | None,
        skip: Callable[[int], None] = lambda steps: None,
    ) -> TrainingResult:
        """Step until there are ``total`` losses; ``losses_of`` gives those of the next step."""
        from tqdm import tqdm  # only who trains pays for it

        total = require_count(f"num_{unit}", total, 0)
        self.seed = require_count("seed", self.seed, 0)
        self.every = require_count("checkpoint_every", self.every, 1)
        self._require_something_to_train()
        generator = torch.Generator().manual_seed(self.seed)
        losses, steps, before = self._resume(generator)
        resumed_at, saved_at, start = len(losses), len(losses), time.perf_counter()
        if len(losses) < total:
            skip(steps)
        device = next(self.model.parameters()).device
        self.model.train()
        bar = tqdm(
            total=total, initial=len(losses), unit=f" {unit}", disable=not progress, mininterval=0.5
        )
        with torch.enable_grad(), bar:  # a notebook may have switched gradients off
            while len(losses) < total:
                values = losses_of(total - len(losses), generator, device)
                loss = values.mean()
                if not bool(values.isfinite().all()):
                    raise FloatingPointError(
                        f"the loss of step {steps} is {loss.item()}: lower the learning rate or "
                        "clip the gradients; the weights are those of the step before"
                    )
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
                if self.scheduler is not None:
                    self.scheduler.step()
                losses += values.tolist()
                steps += 1
                bar.update(len(values))
                bar.set_postfix_str(f"loss {sum(losses[-50:]) / len(losses[-50:]):.3f}", False)
                if on_step is not None:
                    on_step(losses)
                if len(losses) // self.every > saved_at // self.every:
                    self._save(losses, steps, before + time.perf_counter() - start, generator)
                    saved_at = len(losses)
        seconds = before + time.perf_counter() - start
        if saved_at < len(losses):
            self._save(losses, steps, seconds, generator)
        return TrainingResult(
            tuple(losses), seconds if len(losses) > resumed_at else before, resumed_at
        )

    def _require_something_to_train(self) -> None:
        """Refuse what would run to its end and change no weight."""
        trained = {id(p) for p in self.model.parameters() if p.requires_grad}
        if not trained:
            raise ValueError(
                "the model has no parameter that can be trained: all are frozen, or there are none;"
                " unfreeze some with model.requires_grad_(True)"
            )
        if not any(id(p) in trained for g in self.optimizer.param_groups for p in g["params"]):
            raise ValueError(
                "the optimizer holds none of the model's trainable parameters, so that no step "
                "would change the model; make it with "
                f"torch.optim.{type(self.optimizer).__name__}(model.parameters())"
            )

    def _all_settings(self) -> dict[str, Any]:
        groups = self.optimizer.param_groups
        return {
            **self.settings,
            "seed": self.seed,
            "model": repr(self.model),
            "optimizer": type(self.optimizer).__name__,
            "learning_rate": [float(group.get("initial_lr", group["lr"])) for group in groups],
            "weight_decay": [float(group.get("weight_decay", 0.0)) for group in groups],
            "scheduler": type(self.scheduler).__name__,
        }

    def _resume(self, generator: torch.Generator) -> tuple[list[float], int, float]:
        """Bring everything back from the checkpoint, if there is one."""
        if self.checkpoint is None or not Path(self.checkpoint).exists():
            return [], 0, 0.0
        try:
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            found = state["settings"]
        except Exception as error:
            raise ValueError(
                f"{self.checkpoint} cannot be read as a checkpoint "
                f"({type(error).__name__}); delete it to begin again"
            ) from error
        wanted = self._all_settings()
        differing = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
        if differing:
            said = ", ".join(
                "the model"
                if name == "model"
                else f"{name} ({found.get(name)}, here {wanted.get(name)})"
                for name in differing
            )
            raise ValueError(
                f"{self.checkpoint} belongs to another run, which differs in {said}; give another "
                "file, or delete this one to begin again"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_generator"])
        return state["losses"].tolist(), state["steps"], state["seconds"]

    def _save(
        self, losses: list[float], steps: int, seconds: float, generator: torch.Generator
    ) -> None:
        """Write beside the file, then put in its place: a crash leaves the old one whole."""
        if self.checkpoint is None:
            return
        state = {
            "settings": self._all_settings(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "generator": generator.get_state(),
            "torch_generator": torch.get_rng_state(),
            "losses": torch.tensor(losses, dtype=torch.float64),
            "steps": steps,
            "seconds": seconds,
        }
        target = Path(self.checkpoint)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, written = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            Path(written).replace(target)
        except BaseException:
            Path(written).unlink(missing_ok=True)
            raise


def _fingerprint(slices: SliceDataset | None) -> dict[str, Any]:
    if slices is None:
        return {"classes": [], "slices": 0}
    return {"classes": list(slices.classes), "slices": len(slices)}


def _name(function: object) -> str:
    return getattr(function, "__qualname__", type(function).__name__)
