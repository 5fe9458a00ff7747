"""Dice, the baseline beside it, intervals, the field's protocols (note §4, notebooks 01 and 07)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_lib._tensors import require_masks
from fewshot_lib.episodes import Episode, Volume
from fewshot_lib.prototypes import Distance, class_prototypes, similarity

Segmenter = Callable[[Tensor, Tensor, Tensor], Tensor]
Method = Literal["percentile", "bca"]


def dice(prediction: Tensor, target: Tensor, empty: float = math.nan) -> Tensor:
    """Measure the overlap of two masks, slice by slice.

    Dice(A, B) = 2 |A ∩ B| / (|A| + |B|)

    Arguments:
        prediction: (…, H, W) bool, or 0 and 1 in any type.
        target: (…, H, W) likewise; leading dimensions broadcast.
        empty: the value where both masks are empty, and the formula says 0/0: NaN (leave the slice
            out), 1 (rightly nothing) or 0. The choice can decide a comparison (notebook 07).

    Returns:
        (…) float64 in [0, 1], or ``empty``; on the inputs' device.

    Raises:
        ValueError: fewer than two dimensions, sizes that differ, values other than 0 and 1.

    Source: Dice 1945; notebook 01.

    >>> dice(torch.tensor([[1, 1, 0]]), torch.tensor([[1, 0, 0]])).item()
    0.6666666666666666
    """
    return _dice(prediction, target, empty, 2, "(…, H, W)")


def volume_dice(prediction: Tensor, target: Tensor, empty: float = math.nan) -> Tensor:
    """Measure the overlap of two masks over whole volumes.

    As ``dice`` with A, B ⊂ slices × rows × columns: a slice counts by the pixels it has, and a
    false alarm in an empty slice costs. The mean of slice Dices can be 0.32 where this is 0.94.

    Arguments:
        prediction: (…, Z, H, W) bool, or 0 and 1 in any type.
        target: (…, Z, H, W) likewise; leading dimensions broadcast.
        empty: the value where both are empty.

    Returns:
        (…) float64 in [0, 1], or ``empty``.

    Raises:
        ValueError: as ``dice``.

    Source: notebook 07.

    >>> volume_dice(torch.ones(2, 1, 2), torch.tensor([[[1, 1]], [[0, 0]]])).item()
    0.6666666666666666
    """
    return _dice(prediction, target, empty, 3, "(…, Z, H, W)")


def mean_slice_dice(prediction: Tensor, target: Tensor, empty: float = math.nan) -> Tensor:
    """Average the Dice of the slices of each volume.

    mean_z Dice(A_z, B_z) over the slices where it is a number: with ``empty=nan`` a slice that
    neither mask marks is left out; with 1 every such slice adds a perfect score.

    Arguments:
        prediction: (…, Z, H, W) bool, or 0 and 1 in any type.
        target: (…, Z, H, W) likewise; leading dimensions broadcast.
        empty: the value of an empty slice.

    Returns:
        (…) float64 in [0, 1]; NaN where no slice has a number.

    Raises:
        ValueError: as ``dice``.

    Source: notebook 07.

    >>> mean_slice_dice(torch.ones(2, 1, 2), torch.tensor([[[1, 1]], [[0, 0]]])).item()
    0.5
    """
    return dice(prediction, target, empty).nanmean(dim=-1)


def _dice(prediction: Tensor, target: Tensor, empty: float, n_dims: int, shape: str) -> Tensor:
    require_masks(prediction, target, n_dims, shape)
    a, b = prediction.bool(), target.bool()
    dims = tuple(range(-n_dims, 0))
    shared = (a & b).sum(dims).double()
    total = a.sum(dims) + b.sum(dims)
    return torch.where(total > 0, 2 * shared / total, empty)


def copy_mask_baseline(support_masks: Tensor) -> Tensor:
    """Say what the support masks alone predict: the share of support images with each class.

    p_k(x) = 1/S Σ_s M_sk(x), whatever the query shows. The arg-max over K copies the mask of one
    support image, and takes the majority of several (the first class where they tie). Every Dice of
    the course stands beside the Dice of this.

    Arguments:
        support_masks: (…, S, K, H, W) bool, integer or floating, one channel per class.

    Returns:
        (…, K, H, W) float32 (float64 for float64 masks), shares to be compared or ``argmax``-ed.

    Raises:
        ValueError: fewer than four dimensions, no support image.

    Source: notebooks 01 and 05; what the note's network comes to (notebook 05).

    >>> copy_mask_baseline(torch.tensor([[[[1, 0]], [[0, 1]]]])).argmax(-3).tolist()
    [[0, 1]]
    """
    if support_masks.ndim < 4 or support_masks.shape[-4] == 0:
        raise ValueError(
            f"expected support_masks (…, S, K, H, W) with S ≥ 1, got {tuple(support_masks.shape)}"
        )
    masks = support_masks if support_masks.dtype == torch.float64 else support_masks.float()
    return masks.mean(dim=-4)


@dataclass(frozen=True)
class Interval:
    """Hold an estimate and its bootstrap interval.

    Arguments:
        estimate: the mean.
        low: lower end; NaN when fewer than two independent values leave nothing to resample.
        high: upper end, likewise.
        n: values that were numbers.
        n_groups: independent values: groups, or n without groups.
        confidence: the nominal coverage.
    """

    estimate: float
    low: float
    high: float
    n: int
    n_groups: int
    confidence: float

    def __str__(self) -> str:
        """Write it as 0.71 [0.65, 0.77]."""
        return f"{self.estimate:z.2f} [{self.low:z.2f}, {self.high:z.2f}]"


def bootstrap_interval(
    values: Tensor | Sequence[float],
    confidence: float = 0.95,
    method: Method = "percentile",
    groups: Sequence[object] | Tensor | None = None,
    n_resamples: int = 5000,
    seed: int = 0,
    *,
    second_groups: Sequence[object] | Tensor | None = None,
) -> Interval:
    """Estimate a mean with a bootstrap interval, resampling whole groups where values share one.

    Percentile: the α/2 and 1−α/2 quantiles of the resampled means. BCa: the same at levels shifted
    for bias z₀ and acceleration a, Φ(z₀ + (z₀ + z_α)/(1 − a (z₀ + z_α))). Both are too narrow for
    few groups: with 5 subjects and normal values a nominal 95 % covers about 84 %.

    Values of pairs, such as the Dice of a query of one person with a support of another, belong to
    two people of one population. With ``second_groups`` people are drawn, each into both roles at
    once: a value whose people i and j were drawn w_i and w_j times counts w_i·w_j times.

    Arguments:
        values: (N,) numbers; NaNs (empty slices) are left out.
        confidence: in (0, 1).
        method: "percentile" or "bca".
        groups: (N,) a label per value, such as its subject: values of one group are drawn together,
            for slices of one person are no independent evidence. None: each value is its own.
        n_resamples: ≥ 1. Resamples of pairs in which no value is left are not counted.
        seed: ≥ 0.
        second_groups: (N,) the label of each value's second role, such as its support's subject. A
            label means the same person in both roles, so that the order of the two is immaterial.
            None: values have one role.

    Returns:
        ``Interval``; its ``n_groups`` counts the people of both roles together. Of fewer than two
        groups (three, for pairs) it has no ends.

    Raises:
        ValueError: more than one dimension, groups of another length, ``second_groups`` without
            ``groups``, settings out of range.

    Source: Efron and Tibshirani 1993, chapters 13 and 14; Field and Welsh 2007 (clusters);
    Snijders and Borgatti 1999 (pairs; the pairs of a person with himself that they fill in are
    left out here). Notebooks 01, 02 and 07.

    >>> str(bootstrap_interval([0.5, 0.5, 0.5]))
    '0.50 [0.50, 0.50]'
    >>> pairs = {"groups": "aabbcc", "second_groups": "bcacab"}
    >>> bootstrap_interval([0.1, 0.5, 0.1, 0.6, 0.5, 0.6], **pairs).n_groups
    3
    """
    if method not in ("percentile", "bca"):
        raise ValueError(f'method must be "percentile" or "bca", got {method!r}')
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}; 95 % is 0.95")
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, got {n_resamples}")
    numbers = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    if numbers.ndim != 1:
        raise ValueError(f"values must be (N,), got shape {tuple(numbers.shape)}; flatten them")
    first, second = _group_numbers(groups, second_groups, len(numbers))
    known = ~numbers.isnan()
    numbers, first, second = numbers[known], first[known], second[known]
    if not len(numbers):
        return Interval(math.nan, math.nan, math.nan, 0, 0, confidence)
    n_groups = len({*first.tolist(), *second.tolist()})
    paired = second_groups is not None
    estimate, n = float(numbers.mean()), len(numbers)
    if n_groups < (3 if paired else 2):
        return Interval(estimate, math.nan, math.nan, n, n_groups, confidence)
    generator = torch.Generator().manual_seed(seed)
    resample = _resampled_pairs if paired else _resampled_groups
    means, left_out = resample(numbers, first, second, n_resamples, generator)
    levels = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    if method == "bca":
        levels = _bca_levels(levels, means, estimate, left_out)
    low, high = torch.quantile(means, levels).tolist()
    return Interval(estimate, low, high, n, n_groups, confidence)


def _group_numbers(
    groups: Sequence[object] | Tensor | None, second: Sequence[object] | Tensor | None, n: int
) -> tuple[Tensor, Tensor]:
    """Number the labels of both roles alike; without a second role it is the first again."""
    if groups is None:
        if second is not None:
            raise ValueError("second_groups needs groups: the label of each value's first role")
        return torch.arange(n), torch.arange(n)
    roles = []
    for name, given in (
        ("groups", groups),
        ("second_groups", groups if second is None else second),
    ):
        labels = given.tolist() if isinstance(given, Tensor) else list(given)
        if len(labels) != n:
            raise ValueError(
                f"{name} must have one label per value: {n} values, {len(labels)} labels"
            )
        roles.append(labels)
    number = {label: i for i, label in enumerate(dict.fromkeys(roles[0] + roles[1]))}
    first, other = (torch.tensor([number[x] for x in r], dtype=torch.int64) for r in roles)
    return first, other


def _resampled_groups(
    numbers: Tensor, member: Tensor, _: Tensor, n_resamples: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the means of resamples of groups, and the means without each group (jackknife)."""
    member = torch.unique(member, return_inverse=True)[1]
    n_groups = int(member.max()) + 1
    sums = torch.zeros(n_groups, dtype=torch.float64).index_add_(0, member, numbers)
    counts = torch.bincount(member, minlength=n_groups).double()
    drawn = torch.randint(n_groups, (n_resamples, n_groups), generator=generator)
    means = sums[drawn].sum(dim=1) / counts[drawn].sum(dim=1)
    return means, (sums.sum() - sums) / (counts.sum() - counts)


def _resampled_pairs(
    numbers: Tensor, first: Tensor, second: Tensor, n_resamples: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the same for people who are drawn into both roles at once."""
    people, member = torch.unique(torch.stack([first, second]), return_inverse=True)
    n = len(people)
    cell = member[0] * n + member[1]
    sums = torch.zeros(n * n, dtype=torch.float64).index_add_(0, cell, numbers).view(n, n)
    counts = torch.bincount(cell, minlength=n * n).double().view(n, n)
    drawn = torch.randint(n, (n_resamples, n), generator=generator)
    times = torch.zeros(n_resamples, n, dtype=torch.float64)
    times.scatter_add_(1, drawn, torch.ones_like(times))  # how often each person was drawn
    total, weight = (((times @ part) * times).sum(dim=1) for part in (sums, counts))
    without = [part.sum() - part.sum(0) - part.sum(1) + part.diagonal() for part in (sums, counts)]
    some, others = weight > 0, without[1] > 0
    return (total / weight)[some], (without[0] / without[1])[others]


def _bca_levels(levels: Tensor, means: Tensor, estimate: float, left_out: Tensor) -> Tensor:
    below = ((means < estimate).double() + (means == estimate).double() / 2).mean()
    bias = torch.special.ndtri(below)
    apart = left_out.mean() - left_out
    spread = apart.square().sum()
    if spread == 0 or bias.isinf():
        return levels
    acceleration = apart.pow(3).sum() / (6 * spread.pow(1.5))
    shifted = bias + torch.special.ndtri(levels)
    moved: Tensor = torch.special.ndtr(bias + shifted / (1 - acceleration * shifted))
    return moved


def episode_accuracy(
    embeddings: Tensor,
    episodes: Sequence[Episode],
    distance: Distance = "squared_euclidean",
) -> Tensor:
    """Measure how many queries of each episode the nearest prototype classifies rightly.

    accuracy = 1/|Q| Σ_{(z, y) ∈ Q} [arg max_k s(z, c_k) = y],   c_k the mean of the support of k

    All episodes are computed at once. Given the same episodes, two embeddings can be compared task
    by task.

    Arguments:
        embeddings: (N, D) floating, of the examples that the episodes index.
        episodes: drawn from those N examples, all of the same ways, shots and queries.
        distance: as in ``prototypes.similarity``.

    Returns:
        (number of episodes,) accuracies in 0 … 1, in the embeddings' type.

    Raises:
        ValueError: no episodes, episodes of different sizes or without queries, an index beyond N.
        TypeError: embeddings that are not floating point.

    Source: Snell et al. 2017, §3. Notebook 03.

    >>> from fewshot_lib.episodes import draw_episode
    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> task = draw_episode(labels, 2, 1, 1, torch.Generator().manual_seed(0))
    >>> episode_accuracy(torch.tensor([[0.0], [1.0], [8.0], [9.0]]), [task])
    tensor([1.])
    """
    if not episodes:
        raise ValueError("no episodes to measure: draw some with episodes.draw_episode")
    sizes = {(*e.support_index.shape, e.query_index.shape[1]) for e in episodes}
    if len(sizes) > 1 or 0 in next(iter(sizes)):
        raise ValueError(
            "episodes must have one size (n_way, k_shot, n_query), each at least 1, "
            f"got {sorted(sizes)}"
        )
    support = torch.stack([e.support_index.flatten() for e in episodes])  # (E, n_way·k_shot)
    query = torch.stack([e.query_index.flatten() for e in episodes])  # (E, n_way·n_query)
    last = int(torch.maximum(support.max(), query.max()))
    if embeddings.ndim != 2 or last >= len(embeddings):
        raise ValueError(
            f"embeddings must be (N, D) with N > {last}, the largest index of the episodes, got "
            f"{tuple(embeddings.shape)}"
        )
    n_way = episodes[0].support_index.shape[0]
    own = episodes[0].support_labels.flatten().expand(support.shape)
    prototypes = class_prototypes(embeddings[support], own, n_way)  # (E, n_way, D)
    predicted = similarity(embeddings[query], prototypes, distance).argmax(dim=-1)
    right = predicted == episodes[0].query_labels.flatten()
    return right.to(embeddings.dtype).mean(dim=-1)


def episode_dice(
    model: Segmenter,
    episodes: tuple[Tensor, Tensor, Tensor, Tensor],
    batch_size: int = 20,
    empty: float = math.nan,
) -> Tensor:
    """Measure the Dice of each class on each query of many episodes.

    The prediction is the arg-max of the logits; slices are scored one by one, as they were drawn:
    what the whole volume would say is another question (``evaluate``, notebook 07).

    Arguments:
        model: (E, S, C, H, W) images, (E, S, K, H, W) masks, (E, Q, C, H, W) queries →
            (E, Q, K, H, W) logits: a ``FewShotSegmentationNet`` or any function of that form,
            called under ``torch.no_grad``. An ``nn.Module`` is put in evaluation mode meanwhile.
        episodes: support images, support masks, query images and query masks with a leading E, as
            ``training.sample_episode`` and ``training.gather_episodes`` give them.
        batch_size: episodes a call, ≥ 1.
        empty: the Dice of a class that neither the query nor the prediction shows.

    Returns:
        (E, Q, K − 1) float64, class 0 (background) left out.

    Raises:
        ValueError: episodes without a leading dimension, a model that returns another shape.

    Source: notebooks 05 and 06.

    >>> masks = torch.tensor([[[[[0, 1]], [[1, 0]]]]])  # one episode, one image, two classes
    >>> def copy(images, masks, queries):
    ...     return copy_mask_baseline(masks)[:, None]
    >>> images = torch.zeros(1, 1, 1, 1, 2)
    >>> episode_dice(copy, (images, masks, images, masks)).item()
    1.0
    """
    support_images, support_masks, queries, targets = episodes
    if support_images.ndim != 5 or batch_size < 1:
        raise ValueError(
            "expected support images (E, S, C, H, W) and batch_size ≥ 1, got "
            f"{tuple(support_images.shape)} and {batch_size}; one episode needs [None]"
        )
    scores = []
    with _evaluating(model):
        for first in range(0, len(targets), batch_size):
            part = slice(first, first + batch_size)
            with torch.no_grad():
                logits = model(support_images[part], support_masks[part], queries[part])
            if logits.shape != targets[part].shape:
                raise ValueError(
                    f"the model must return logits (E, Q, K, H, W) = {tuple(targets[part].shape)}, "
                    f"got {tuple(logits.shape)}"
                )
            classes = torch.arange(1, logits.shape[2])[:, None, None].to(logits.device)
            predicted = logits.argmax(dim=2, keepdim=True) == classes  # (E, Q, K − 1, H, W)
            scores.append(dice(predicted, targets[part, :, 1:] > 0.5, empty))
    return torch.cat(scores)


@contextmanager
def _evaluating(model: Segmenter) -> Iterator[None]:
    """Put a module in evaluation mode for the length of a ``with`` block."""
    was_training = isinstance(model, nn.Module) and model.training
    if isinstance(model, nn.Module):
        model.eval()
    try:
        yield
    finally:
        if was_training and isinstance(model, nn.Module):
            model.train()


@dataclass(frozen=True)
class Protocol:
    """Say which slices support, which are queried, and what is scored.

    EP1 (SSL-ALPNet and others): the organ's extent in the support volume and, *from its labels*, in
    the query volume is cut into ``chunks``; the centre slice of each support chunk segments the
    query slices of the same chunk. Only the query's true extent is predicted and scored: the
    protocol tells the model where the organ begins and ends.
    EP2 (ADNet): ``chunks`` labelled slices of the support volume (1 there) segment *all* slices of
    the query volume, and all are scored.

    Arguments:
        name: "EP1" or "EP2".
        chunks: ≥ 1.
        support: whose labels are used. "next": each subject is queried once, with the next subject
            (the last with the first); "all": with each other subject in turn; a subject's name: all
            others are queried with this one.

    Raises:
        ValueError: an unknown name, fewer than one chunk.

    Source: Ouyang et al. 2020, §4.1 (EP1); Hansen et al. 2022, §4 (EP2). Notebook 07.

    >>> EP1
    Protocol(name='EP1', chunks=3, support='next')
    """

    name: Literal["EP1", "EP2"]
    chunks: int = 1
    support: str = "next"

    def __post_init__(self) -> None:
        if self.name not in ("EP1", "EP2"):
            raise ValueError(f'a protocol is "EP1" or "EP2", got {self.name!r}')
        if self.chunks < 1:
            raise ValueError(f"chunks must be at least 1, got {self.chunks}")


EP1 = Protocol("EP1", 3)
EP2 = Protocol("EP2", 1)


@dataclass(frozen=True)
class Row:
    """Hold one organ of one query volume, segmented with one support volume.

    Arguments:
        organ: its name.
        subject: the query.
        support_subject: whose labels were used.
        dice: volume Dice over the slices that the protocol scores.
        copied: the Dice of ``copy_mask_baseline`` on the same slices.
        slices: how many were scored.
        site: the query's.
    """

    organ: str
    subject: str
    support_subject: str
    dice: float
    copied: float
    slices: int
    site: str = ""


@dataclass(frozen=True)
class Evaluation:
    """Hold a protocol and its rows."""

    protocol: Protocol
    rows: tuple[Row, ...]

    @property
    def organs(self) -> tuple[str, ...]:
        """Return the organs in the order they were evaluated."""
        return tuple(dict.fromkeys(row.organ for row in self.rows))

    def interval(
        self,
        organ: str | None = None,
        score: Literal["dice", "copied", "gain"] = "dice",
        confidence: float = 0.95,
        method: Method = "percentile",
        seed: int = 0,
    ) -> Interval:
        """Average a score over subjects, with an interval that resamples subjects.

        Arguments:
            organ: a name, or None for all rows.
            score: "dice", "copied", or "gain", their difference row by row.
            confidence: in (0, 1).
            method: as in ``bootstrap_interval``.
            seed: ≥ 0.

        Raises:
            ValueError: an organ that was not evaluated.
        """
        rows = [row for row in self.rows if organ is None or row.organ == organ]
        if not rows:
            raise ValueError(f"no rows for {organ!r}; there are {', '.join(self.organs)}")
        values = [row.dice - row.copied if score == "gain" else getattr(row, score) for row in rows]
        subjects = [row.subject for row in rows]
        return bootstrap_interval(values, confidence, method, subjects, seed=seed)


def chunk_centres(first: int, last: int, chunks: int) -> list[int]:
    """Cut the slices first … last into equal chunks and return the middle slice of each.

    Chunk c holds the slices z with ⌊(z − first)·chunks/n⌋ = c, n = last − first + 1.

    Arguments:
        first: the first slice.
        last: the last slice, ≥ first.
        chunks: ≥ 1; more chunks than slices repeat slices.

    Returns:
        ``chunks`` slice numbers, ascending.

    Raises:
        ValueError: last < first, fewer than one chunk.

    Source: notebook 07.

    >>> chunk_centres(10, 18, 3)
    [11, 14, 17]
    """
    if last < first or chunks < 1:
        raise ValueError(
            f"expected first ≤ last and chunks ≥ 1, got {first} … {last} in {chunks} chunks"
        )
    n = last - first + 1
    edges = [-(-chunk * n // chunks) for chunk in range(chunks + 1)]  # ⌈chunk·n/chunks⌉
    return [first + min((start + end) // 2, n - 1) for start, end in pairwise(edges)]


def segment_volume(
    model: Segmenter,
    support: Volume,
    query: Volume,
    organ: str,
    protocol: Protocol = EP2,
    batch_size: int = 16,
) -> tuple[Tensor, Tensor]:
    """Segment one organ of a query volume with labelled slices of a support volume.

    A task of one way: the masks are background (everything else) and the organ.

    Arguments:
        model: (S, C, H, W) images, (S, 2, H, W) masks, (Q, C, H, W) queries → (Q, 2, H, W) logits:
            a ``FewShotSegmentationNet`` or any function of that form. It is called under
            ``torch.no_grad``, as it is (call ``model.eval()`` where that matters).
        support: the labelled volume; it must show the organ.
        query: the volume to segment; its labels are looked at by EP1 only, for the extent.
        organ: a name that both volumes have.
        protocol: see ``Protocol``.
        batch_size: query slices a call, ≥ 1.

    Returns:
        prediction (Z, H, W) bool, False where the protocol does not ask, and the slices asked for,
        (Z,) bool.

    Raises:
        ValueError: the organ is unknown or not shown by the support; a model that returns another
            shape.

    Source: Ouyang et al. 2020; Hansen et al. 2022. Notebook 07.

    >>> labels = torch.ones(3, 4, 4, dtype=torch.int64)
    >>> volume = Volume(torch.zeros(3, 1, 4, 4), labels, ("background", "a"), "s")
    >>> def copy(images, masks, queries):
    ...     return copy_mask_baseline(masks).expand(len(queries), -1, -1, -1)
    >>> segment_volume(copy, volume, volume, "a")[0].all().item()
    True
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    predicted = torch.zeros_like(query.labels, dtype=torch.bool)
    asked = torch.zeros(len(query.images), dtype=torch.bool)
    for shots, slices in _tasks(support, query, organ, protocol):
        images, shown = support.images[shots], support.mask(organ)[shots]
        masks = torch.stack([~shown, shown], dim=1).float()
        asked[slices] = True
        for part in torch.split(slices, batch_size):
            with torch.no_grad():
                logits = model(images, masks, query.images[part])
            expected = (len(part), 2, *query.labels.shape[1:])
            if tuple(logits.shape) != expected:
                raise ValueError(
                    f"the model must return logits (Q, 2, H, W) = {expected}, "
                    f"got {tuple(logits.shape)}"
                )
            predicted[part] = (logits.argmax(dim=1) == 1).cpu()
    return predicted, asked


def _tasks(
    support: Volume, query: Volume, organ: str, protocol: Protocol
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pairs of support slices and the query slices that they segment."""
    extent = _extent(support, organ)
    if extent is None:
        raise ValueError(
            f"subject {support.subject!r} shows no {organ!r} and cannot support it; choose another"
        )
    centres = torch.tensor(chunk_centres(*extent, protocol.chunks))
    if protocol.name == "EP2":
        yield torch.unique(centres), torch.arange(len(query.images))
        return
    query_extent = _extent(query, organ)
    if query_extent is None:
        return
    slices = torch.arange(query_extent[0], query_extent[1] + 1)
    chunk = (slices - slices[0]) * protocol.chunks // len(slices)
    for number in torch.unique(chunk).tolist():
        yield centres[number : number + 1], slices[chunk == number]


def _extent(volume: Volume, organ: str) -> tuple[int, int] | None:
    shown = volume.mask(organ).flatten(1).any(dim=1).nonzero()[:, 0]
    return (int(shown[0]), int(shown[-1])) if len(shown) else None


def _copied(images: Tensor, masks: Tensor, queries: Tensor) -> Tensor:
    """Copy the support's masks to every query, whatever it shows."""
    if masks.shape[-2:] != queries.shape[-2:]:
        masks = F.interpolate(masks, queries.shape[-2:], mode="nearest")
    return copy_mask_baseline(masks).expand(len(queries), -1, -1, -1)


def evaluate(
    model: Segmenter,
    volumes: Sequence[Volume],
    protocol: Protocol = EP2,
    organs: Sequence[str] | None = None,
    batch_size: int = 16,
    empty: float = math.nan,
) -> Evaluation:
    """Evaluate a model by volume Dice a subject and organ, beside the copied mask.

    Arguments:
        model: as for ``segment_volume``; an ``nn.Module`` is put in evaluation mode meanwhile.
        volumes: two or more subjects, all with the organs among their names; slices that the
            protocol copies from are never of the queried subject.
        protocol: ``EP1``, ``EP2`` or one of your own.
        organs: names; None: all names that every volume has.
        batch_size: query slices a call of the model.
        empty: the Dice where neither prediction nor truth marks anything.

    Returns:
        ``Evaluation`` with a row for every organ, query and support that the protocol pairs. A
        support volume that does not show the organ is passed over ("next" looks on for one that
        does). A query that does not show it scores 0 as soon as anything is marked (EP2), or NaN
        (EP1 has no slices then).

    Raises:
        ValueError: fewer than two subjects, a subject twice, an organ unknown somewhere or without
            any pair of subjects.

    Source: notebooks 06 and 07.

    >>> labels = torch.zeros(4, 4, 4, dtype=torch.int64)
    >>> labels[1:3, :2] = 1
    >>> names = ("background", "liver")
    >>> volumes = [Volume(torch.zeros(4, 1, 4, 4), labels, names, subject) for subject in "ab"]
    >>> ignorant = lambda images, masks, queries: torch.zeros(len(queries), 2, 4, 4)
    >>> [(row.subject, row.dice, row.copied) for row in evaluate(ignorant, volumes, EP1).rows]
    [('a', 0.0, 1.0), ('b', 0.0, 1.0)]
    """
    subjects = [volume.subject for volume in volumes]
    if len(subjects) < 2 or len(set(subjects)) < len(subjects):
        raise ValueError(
            f"expected two or more volumes of different subjects, got {subjects}: support and "
            "query are never the same person"
        )
    if protocol.support not in ("next", "all", *subjects):
        raise ValueError(
            f'support must be "next", "all" or one of {", ".join(subjects)}, '
            f"got {protocol.support!r}"
        )
    first, *others = volumes
    shared = [name for name in first.names[1:] if all(name in other.names for other in others)]
    rows = []
    with _evaluating(model):
        for organ in shared if organs is None else organs:
            pairs = _pairs(volumes, organ, protocol)
            if not pairs:
                raise ValueError(
                    f"no two subjects can be paired for {organ!r}: no support shows it"
                )
            for support, query in pairs:
                truth = query.mask(organ)
                made, asked = segment_volume(model, support, query, organ, protocol, batch_size)
                copied, _ = segment_volume(_copied, support, query, organ, protocol, batch_size)
                scores = volume_dice(torch.stack([made, copied])[:, asked], truth[asked], empty)
                rows.append(
                    Row(
                        organ=organ,
                        subject=query.subject,
                        support_subject=support.subject,
                        dice=float(scores[0]),
                        copied=float(scores[1]),
                        slices=int(asked.sum()),
                        site=query.site,
                    )
                )
    return Evaluation(protocol, tuple(rows))


def _pairs(
    volumes: Sequence[Volume], organ: str, protocol: Protocol
) -> list[tuple[Volume, Volume]]:
    """Return (support, query) pairs, no subject with itself, each support showing the organ."""
    able = {volume.subject for volume in volumes if _extent(volume, organ) is not None}
    if protocol.support not in ("next", "all"):
        able &= {protocol.support}
    pairs = []
    for place, query in enumerate(volumes):
        following = (*volumes[place + 1 :], *volumes[:place])
        supports = [volume for volume in following if volume.subject in able]
        used = supports[:1] if protocol.support == "next" else supports
        pairs += [(support, query) for support in used]
    return pairs
