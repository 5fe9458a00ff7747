"""Exercise 07: EP1 and EP2 from one prediction, choosing a slice, leaks of folds (note §4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from fewshot_lib import evaluation
from fewshot_lib.checker.spec import Case
from fewshot_lib.checker.specification import answer, exercise

EP_SECTION = "notebook 07, «EP1 and EP2»"
EMPTY_SECTION = "notebook 07, «The empty slice»"
GIVEN_AWAY = ["evaluation.segment_volume", "evaluation.chunk_centres", "evaluation.evaluate"]

Scored = tuple[Tensor, Tensor]
Span = tuple[int, int]  # first slice, number of slices


# ---------------------------------------------------------------------------------- what is shared


def _extent(mask: Tensor) -> Span:
    shown = mask.flatten(1).any(dim=1).nonzero()[:, 0]
    return (int(shown[0]), int(shown[-1] - shown[0]) + 1) if len(shown) else (0, 0)


def _supported(support_mask: Tensor, least: int) -> Span:
    first, n = _extent(support_mask)
    if n < least:
        raise ValueError(f"the support shows the organ in {n} slices; {least} are needed")
    return first, n


def _organ(g: Generator, n_slices: int, first: int, n: int, gap: Sequence[int] = ()) -> Tensor:
    """Draw an organ (n_slices, 6, 7) that slices first … first + n − 1 show, but for the gap."""
    mask = torch.rand(n_slices, 6, 7, generator=g) < 0.3
    mask[:, 2:4, 2:5] = True
    mask[:, 5, 6] = False  # a place for false alarms
    mask[:first] = mask[first + n :] = False
    mask[[first + step for step in gap]] = False
    return mask


def _predicted(g: Generator, n_supports: int, truth: Tensor) -> Tensor:
    """Draw what each support slice makes of each slice: the truth with errors, alarms anywhere."""
    shape = (n_supports, *truth.shape)
    wrong = torch.rand(shape, generator=g) < 0.1 + 0.25 * torch.rand(n_supports, generator=g).view(
        -1, 1, 1, 1
    )
    made = truth ^ wrong
    made[..., 5, 6] = True  # a false alarm in every slice
    return made


def _task(
    g: Generator,
    support: tuple[int, int, int],
    query: tuple[int, int, int],
    support_gap: Sequence[int] = (),
    query_gap: Sequence[int] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw (predictions, support mask, query mask); a triple is slices, first, number shown."""
    one, other = _organ(g, *support, gap=support_gap), _organ(g, *query, gap=query_gap)
    return _predicted(g, len(one), other), one, other


# --------------------------------------------------------------------------------------------- ep1


def _ep1_by_the_library(
    predictions: Tensor, support_mask: Tensor, query_mask: Tensor, chunks: int
) -> Scored:
    """Put a volume together as EP1 does, and score it: by the library's chunks and volume Dice.

    Raises:
        ValueError: the support's extent has fewer slices than there are chunks.
    """
    first, n = _supported(support_mask, chunks)
    centres = torch.tensor(evaluation.chunk_centres(first, first + n - 1, chunks))
    start, length = _extent(query_mask)
    volume = torch.zeros_like(query_mask)
    if length:
        slices = torch.arange(start, start + length)
        volume[slices] = predictions[centres[(slices - start) * chunks // length], slices]
    return volume, evaluation.volume_dice(volume, query_mask)


@answer(reference=_ep1_by_the_library, strip=GIVEN_AWAY)
def ep1(predictions, support_mask, query_mask, chunks):
    """Put a volume together chunk by chunk, as EP1 does, and give its Dice.

    Arguments:
        predictions: (S, Z, H, W) bool; [s, z] is query slice z as support
            slice s segments it.
        support_mask: (S, H, W) bool.
        query_mask: (Z, H, W) bool.
        chunks: how many; 1 or more.

    Returns:
        volume: (Z, H, W) bool; empty outside the query's extent.
        dice: one number, 2 |P ∩ T| / (|P| + |T|) over all voxels; NaN if both
            are empty.

    Raises:
        ValueError: the support's extent has fewer slices than there are
            chunks.
    """
    ### BEGIN SOLUTION: cut both extents; copy from the centre of each chunk
    labelled = support_mask.any(dim=(-2, -1)).nonzero().flatten()
    n = labelled[-1] - labelled[0] + 1 if len(labelled) else 0
    if n < chunks:
        raise ValueError(f"{chunks} chunks need as many slices, not {n}")
    volume = torch.zeros_like(query_mask)
    shown = query_mask.any(dim=(-2, -1)).nonzero().flatten()
    if len(shown):
        start, end = shown[0], shown[-1] + 1
        for z in range(start, end):
            chunk = (z - start) * chunks // (end - start)
            low = -(-chunk * n // chunks)  # this chunk's first slice
            high = -(-(chunk + 1) * n // chunks)  # the first of the next
            volume[z] = predictions[labelled[0] + (low + high) // 2, z]
    overlap = (volume & query_mask).sum()
    return volume, 2 * overlap / (volume.sum() + query_mask.sum())
    ### END SOLUTION


@ep1.check("each chunk by the centre slice of its own", points=2, pointer=EP_SECTION)
def _chunked(g: Generator) -> Iterator[Case]:
    yield Case("9 support and 12 query slices, 3 chunks", (*_task(g, (14, 3, 9), (15, 2, 12)), 3))
    yield Case("8 support and 6 query slices, 2 chunks", (*_task(g, (11, 1, 8), (13, 5, 6)), 2))


@ep1.check("extents that the chunks do not divide", points=2, pointer=EP_SECTION)
def _uneven(g: Generator) -> Iterator[Case]:
    yield Case("10 support and 13 query slices, 3 chunks", (*_task(g, (13, 1, 10), (16, 2, 13)), 3))
    yield Case("11 support and 7 query slices, 4 chunks", (*_task(g, (14, 2, 11), (12, 4, 7)), 4))
    yield Case("as many support slices as chunks", (*_task(g, (7, 2, 3), (12, 1, 8)), 3))
    yield Case("fewer query slices than chunks", (*_task(g, (10, 1, 8), (9, 3, 2)), 4))


@ep1.check("an extent has no gaps", pointer=EP_SECTION)
def _gaps(g: Generator) -> Iterator[Case]:
    task = _task(g, (14, 2, 10), (15, 1, 12), support_gap=(3, 4, 6), query_gap=(4, 5, 7))
    yield Case("slices in between that do not show the organ", (*task, 3))
    task = _task(g, (14, 2, 11), (13, 2, 9), support_gap=(1, 2, 3), query_gap=(5, 6))
    yield Case("two parts with a gap, 2 chunks", (*task, 2))


@ep1.check("nothing to find: nothing asked, no score", pointer=EMPTY_SECTION)
def _no_query(g: Generator) -> Iterator[Case]:
    predictions, support, query = _task(g, (9, 2, 6), (8, 2, 5))
    yield Case("the query does not show the organ", (predictions, support, query & False, 2))


@ep1.check("too few support slices are refused", pointer=EP_SECTION)
def _short(g: Generator) -> Iterator[Case]:
    predictions, support, query = _task(g, (9, 2, 3), (8, 2, 5))
    yield Case("3 support slices for 4 chunks", (predictions, support, query, 4))
    for chunks in (1, 2):
        name = f"a support without the organ, {chunks} chunks"
        yield Case(name, (predictions, support & False, query, chunks))


# --------------------------------------------------------------------------------------------- ep2


def _ep2_by_the_library(predictions: Tensor, support_mask: Tensor, query_mask: Tensor) -> Scored:
    """Let the centre support slice segment every query slice, and score all: the library's centre.

    Raises:
        ValueError: the support does not show the organ.
    """
    first, n = _supported(support_mask, 1)
    volume = predictions[evaluation.chunk_centres(first, first + n - 1, 1)[0]]
    return volume, evaluation.volume_dice(volume, query_mask)


@answer(reference=_ep2_by_the_library, strip=GIVEN_AWAY)
def ep2(predictions, support_mask, query_mask):
    """Let the centre support slice segment all query slices; give the Dice.

    Arguments:
        predictions: (S, Z, H, W) bool; [s, z] is query slice z as support
            slice s segments it.
        support_mask: (S, H, W) bool.
        query_mask: (Z, H, W) bool.

    Returns:
        volume: (Z, H, W) bool.
        dice: one number, over all voxels; NaN if both are empty.

    Raises:
        ValueError: the support does not show the organ.
    """
    ### BEGIN SOLUTION: the slice half-way between first and last, scored whole
    labelled = support_mask.any(dim=(-2, -1)).nonzero().flatten()
    if len(labelled) == 0:
        raise ValueError("the support does not show the organ")
    volume = predictions[(labelled[0] + labelled[-1] + 1) // 2]
    overlap = (volume & query_mask).sum()
    return volume, 2 * overlap / (volume.sum() + query_mask.sum())
    ### END SOLUTION


def _inside(volume: Tensor, query_mask: Tensor) -> Tensor:
    """Blank a prediction outside the query's extent."""
    first, n = _extent(query_mask)
    blanked = torch.zeros_like(volume)
    blanked[first : first + n] = volume[first : first + n]
    return blanked


@ep2.check("the centre slice segments every slice", points=2, pointer=EP_SECTION)
def _one_for_all(g: Generator) -> Iterator[Case]:
    yield Case("9 support slices", _task(g, (15, 5, 9), (12, 2, 7)))
    yield Case("8 support slices: the upper centre", _task(g, (16, 1, 8), (11, 4, 5)))
    yield Case("one support slice", _task(g, (9, 6, 1), (10, 1, 9)))


@ep2.check("the centre of the extent, gaps included", pointer=EP_SECTION)
def _gap_support(g: Generator) -> Iterator[Case]:
    yield Case("an organ in two parts", _task(g, (15, 3, 10), (12, 2, 7), support_gap=(1, 2, 4)))


@ep2.check("a query without the organ", pointer=EMPTY_SECTION)
def _absent(g: Generator) -> Iterator[Case]:
    predictions, support, query = _task(g, (9, 1, 5), (8, 2, 5))
    nothing = query & False
    yield Case(
        "the query does not show it, and something is predicted", (predictions, support, nothing)
    )
    yield Case("nothing shown, nothing predicted", (predictions & False, support, nothing))


@ep2.check("a support without the organ is refused", pointer=EP_SECTION)
def _no_support(g: Generator) -> Iterator[Case]:
    predictions, support, query = _task(g, (9, 1, 5), (8, 2, 5))
    yield Case("a support without the organ", (predictions, support & False, query))


# ------------------------------------------------------------------------------------ choose_slice


@answer()
def choose_slice(predictions, mask):
    """Choose the slice that segments the other slices of its own volume best.

    Arguments:
        predictions: (S, S, H, W) bool; [s, t] is slice t as slice s segments
            it.
        mask: (S, H, W) bool, the labels of the same volume.

    Returns:
        slice: the number of a slice that shows the organ; the lowest of
            equals.
        dice: its volume Dice over all slices but itself, those without the
            organ too; NaN if that is 0/0.

    Raises:
        ValueError: no slice shows the organ.
    """
    ### BEGIN SOLUTION: one Dice per row without the diagonal; then the best
    shown = mask.any(dim=(-2, -1))  # (S,)
    if not shown.any():
        raise ValueError("no slice shows the organ")
    itself = torch.eye(len(mask), dtype=torch.bool)  # (S, S)
    others = ~itself[:, :, None, None]
    made, truth = predictions & others, mask & others  # (S, S, H, W)
    overlap = (made & truth).sum(dim=(1, 2, 3))
    sizes = made.sum(dim=(1, 2, 3)) + truth.sum(dim=(1, 2, 3))
    scores = torch.where(shown, 2 * overlap / sizes, -1.0)  # (S,)
    return scores.argmax(), scores.max()
    ### END SOLUTION


def _candidates(g: Generator, n_slices: int, first: int, n: int) -> Case:
    """Draw a volume whose best slice is neither the largest, nor the centre, nor an end."""
    mask = _organ(g, n_slices, first, n)
    centre = first + n // 2
    mask[centre - 1, :5] = True  # the largest slice
    predictions = _predicted(g, n_slices, mask)
    free = [s for s in range(first + 1, first + n - 1) if s not in (centre, centre - 1)]
    good = free[int(torch.randint(len(free), (), generator=g))]
    predictions[good] = mask ^ (torch.rand(mask.shape, generator=g) < 0.03)
    predictions[good, :first, 5, 6] = True  # alarms where nothing is
    predictions[good, good] = False  # hopeless on itself
    predictions[first + n] = mask  # perfect, but it does not show the organ
    return Case(f"{n} of {n_slices} slices show the organ", (predictions, mask))


@choose_slice.check("the slice that segments the others best", points=2)
def _choices(g: Generator) -> Iterator[Case]:
    yield _candidates(g, 10, 2, 7)
    yield _candidates(g, 13, 3, 8)


@choose_slice.check("the first of equals")
def _nothing_found(g: Generator) -> Iterator[Case]:
    mask = _organ(g, 8, 2, 4)
    predictions = _predicted(g, 8, mask)
    predictions[2:6] = False
    predictions[3, 3, :2] = True  # finds itself, at least
    yield Case("no slice finds anything in the others", (predictions, mask))


@choose_slice.check("a single slice has no competitor")
def _lonely(g: Generator) -> Iterator[Case]:
    mask = _organ(g, 6, 2, 1)
    predictions = _predicted(g, 6, mask)
    yield Case("one slice shows the organ", (predictions, mask))
    predictions = predictions.clone()
    predictions[2] = mask
    yield Case("one slice shows the organ, and it finds nothing elsewhere", (predictions, mask))


@choose_slice.check("nothing to choose from is refused")
def _none_shown(g: Generator) -> Iterator[Case]:
    mask = _organ(g, 6, 1, 4)
    yield Case("no slice shows the organ", (_predicted(g, 6, mask), mask & False))


# --------------------------------------------------------------------------------- find_fold_leaks


@answer()
def find_fold_leaks(train, support, query):
    """Find scans that folds never query, query twice, or see beforehand.

    Arguments:
        train: (F, N) bool; fold f trains on scan n.
        support: (F,) int64; the scan that supports fold f.
        query: (F, N) bool; fold f queries scan n.

    Returns:
        never: (N,) bool, scans that no fold queries.
        twice: (N,) bool, scans that more than one fold queries.
        trained: (F, N) bool, where a fold queries a scan that this very fold
            trains on.
        own: (F, N) bool, where a fold queries the scan that supports it.
    """
    ### BEGIN SOLUTION: count over the folds; compare within each fold
    times = query.sum(dim=0)  # (N,)
    supports = torch.arange(query.shape[1]) == support[:, None]  # (F, N)
    return times == 0, times > 1, train & query, supports & query
    ### END SOLUTION


def _rounds(g: Generator, n_folds: int, n_scans: int) -> tuple[Tensor, Tensor, Tensor]:
    """Make clean folds: each scan queried once, the support from the next, the rest trained."""
    order = torch.randperm(n_scans, generator=g)
    fold_of = torch.arange(n_scans) * n_folds // n_scans
    query = torch.zeros(n_folds, n_scans, dtype=torch.bool)
    query[fold_of, order] = True
    support = torch.stack([order[fold_of == (f + 1) % n_folds][0] for f in range(n_folds)])
    train = ~query
    train[torch.arange(n_folds), support] = False
    return train, support, query


@find_fold_leaks.check("no alarm where nothing leaks")
def _clean_folds(g: Generator) -> Iterator[Case]:
    yield Case("5 folds of 20 scans, nothing wrong", _rounds(g, 5, 20))
    yield Case("3 folds of 11 scans, nothing wrong", _rounds(g, 3, 11))


@find_fold_leaks.check("scans queried never, or more than once", points=2)
def _uncovered(g: Generator) -> Iterator[Case]:
    train, support, query = _rounds(g, 4, 14)
    lost, twice = torch.randperm(14, generator=g)[:5].split([2, 3])
    query[:, lost] = False
    for scan, step in zip(twice.tolist(), (1, 2, 2), strict=True):
        fold = int(query[:, scan].nonzero()[0, 0])
        query[(fold + step) % 4, scan] = True
    train &= ~query
    for fold in range(4):  # no scan supports itself here
        if query[fold, support[fold]]:
            support[fold] = (~query[fold]).nonzero()[0, 0]
    train[torch.arange(4), support] = False
    yield Case("4 folds of 14 scans: 2 never queried, 3 twice", (train, support, query))
    query = query.clone()
    query[:, twice[0]] = True
    support = torch.stack([(~row).nonzero()[0, 0] for row in query])
    yield Case("one scan queried by every fold", (train & ~query, support, query))


@find_fold_leaks.check("a fold's own training scans")
def _trained(g: Generator) -> Iterator[Case]:
    train, support, query = _rounds(g, 5, 15)
    for fold in (1, 3):
        places = query[fold].nonzero()[:, 0]
        train[fold, places[int(torch.randint(len(places), (), generator=g))]] = True
    yield Case("two folds train on a scan that they query", (train, support, query))
    train, support, query = _rounds(g, 4, 9)
    yield Case("every fold trains on all scans", (torch.ones_like(train), support, query))


@find_fold_leaks.check("a fold that queries its support")
def _own_support(g: Generator) -> Iterator[Case]:
    train, support, query = _rounds(g, 4, 13)
    for fold in (0, 2):
        support[fold] = query[fold].nonzero()[-1, 0]
    yield Case("two folds query their own support", (train, support, query))
    train, support, query = _rounds(g, 3, 8)
    yield Case("one support for all folds", (train, support * 0 + support[1], query))


# -------------------------------------------------------------------------------------- make_folds


@answer()
def make_folds(n_scans, n_folds):
    """Plan a cross-validation in which every scan is queried exactly once.

    Arguments:
        n_scans: scans 0 … n_scans−1.
        n_folds: folds 0 … n_folds−1; the numbers of scans that they query
            differ by 1 at most.

    Returns:
        (n_scans, 3) int64, rows (fold, support, query) in any order; all rows
        of a fold have the same support, which that fold does not query.

    Raises:
        ValueError: fewer than two folds, or more folds than scans.
    """
    ### BEGIN SOLUTION: make_folds_as_found without its three faults
    if n_folds < 2 or n_folds > n_scans:
        raise ValueError(f"{n_folds} folds of {n_scans} scans cannot be made")
    fold_of = [scan * n_folds // n_scans for scan in range(n_scans)]
    rows = []
    for query, fold in enumerate(fold_of):
        support = fold_of.index((fold + 1) % n_folds)  # next fold's first scan
        rows.append((fold, support, query))
    return torch.tensor(rows)
    ### END SOLUTION


def _plan(case: Case, result: Any) -> tuple[str, list[tuple[int, int, int]]]:
    """Read a plan; a sentence if it is no plan at all."""
    table = np.asarray(result)
    if table.ndim != 2 or table.shape[1] != 3 or table.dtype.kind not in "iu":
        found = f"{table.dtype} of shape {table.shape}"
        words = "rows of three whole numbers are expected (fold, support, query), not"
        return f"{words} {found} ({case.name})", []
    rows = [(int(f), int(s), int(q)) for f, s, q in table]
    n_scans, n_folds = case.args
    if any(not 0 <= f < n_folds for f, _, _ in rows):
        return f"there is a fold outside 0 … {n_folds - 1} ({case.name})", []
    if any(not (0 <= s < n_scans and 0 <= q < n_scans) for _, s, q in rows):
        return f"there is a scan outside 0 … {n_scans - 1} ({case.name})", []
    return "", rows


def _once(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    for case, result in zip(cases, results, strict=True):
        fault, rows = _plan(case, result)
        if fault:
            return fault
        asked = [q for _, _, q in rows]
        for times, words in ((0, "never queried"), (2, "queried twice or more")):
            found = [s for s in range(case.args[0]) if min(asked.count(s), 2) == times]
            if found:
                return f"scan {found[0]} is {words} ({case.name})"
    return True


def _balanced(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    if (once := _once(cases, results)) is not True:
        return once
    for case, result in zip(cases, results, strict=True):
        folds = [f for f, _, _ in _plan(case, result)[1]]
        sizes = [folds.count(f) for f in range(case.args[1])]
        if max(sizes) - min(sizes) > 1:
            return f"the folds query {min(sizes)} to {max(sizes)} scans ({case.name})"
    return True


def _supports(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    for case, result in zip(cases, results, strict=True):
        fault, rows = _plan(case, result)
        if fault or not rows:
            return fault or f"there is no row at all ({case.name})"
        for fold in range(case.args[1]):
            supports = {s for f, s, _ in rows if f == fold}
            if len(supports) != 1:
                return f"fold {fold} has {len(supports)} supports; one is asked for ({case.name})"
            if supports & {q for f, _, q in rows if f == fold}:
                return f"fold {fold} queries its own support ({case.name})"
    return True


def _all_right(cases: Sequence[Case], results: Sequence[Any]) -> bool | str:
    if (balanced := _balanced(cases, results)) is not True:
        return balanced
    return _supports(cases, results)


@make_folds.check("every scan queried exactly once", law=_once, like_reference=False)
def _divided(g: Generator) -> Iterator[Case]:
    n_folds = 3 + int(torch.randint(3, (), generator=g))
    yield Case(f"{4 * n_folds} scans, {n_folds} folds", (4 * n_folds, n_folds))
    yield Case("20 scans, 5 folds", (20, 5))


@make_folds.check("folds that do not divide", points=2, law=_balanced, like_reference=False)
def _undivided(g: Generator) -> Iterator[Case]:
    yield Case("35 scans, 4 folds: 3 left over", (35, 4))
    yield Case("23 scans, 5 folds: 3 left over", (23, 5))
    yield Case("11 scans, 4 folds: 3 left over", (11, 4))


make_folds.check("one support per fold, from outside it", law=_supports, like_reference=False)(
    _divided
)


@make_folds.check("the smallest plans", law=_all_right, like_reference=False)
def _smallest(g: Generator) -> Iterator[Case]:
    yield Case("2 scans, 2 folds", (2, 2))
    yield Case("as many folds as scans", (6, 6))
    yield Case("two folds", (9, 2))


@make_folds.check("impossible plans are refused")
def _senseless(g: Generator) -> Iterator[Case]:
    yield Case("one fold", (8, 1))
    yield Case("more folds than scans", (4, 5))
    yield Case("no scans", (0, 2))


EXERCISE = exercise(__name__)
