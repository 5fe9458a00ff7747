"""Exercise 07: EP1 and EP2 from one prediction, choosing a slice, leaks of folds (note §4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from fewshot_lib import evaluation
from fewshot_lib.checker.spec import Answer, Case, Check, Exercise, Mistake, Prose
from fewshot_lib.checker.spec import Variant as V

EP_SECTION = "notebook 07, «EP1 and EP2»"
SCORE_SECTION = "notebook 07, «Slices or volumes»"
EMPTY_SECTION = "notebook 07, «The empty slice»"
SUPPORT_SECTION = "notebook 07, «The choice of the support»"
FOLD_SECTION = "notebook 07, «Folds»"
GIVEN_AWAY = ["evaluation.segment_volume", "evaluation.chunk_centres", "evaluation.evaluate"]

_ONE_COLUMN = "one column: its rows, of one number each, index and subtract like the numbers"
_BELOW_ZERO = "no Dice is below 0, so that any negative number keeps a slice from being chosen"

Scored = tuple[Tensor, Tensor]
Span = tuple[int, int]  # first slice, number of slices

# ------------------------------------------------------------------------------- what is shared


def _shown(mask: Tensor) -> Tensor:
    """Give the numbers of the slices that show something."""
    return mask.flatten(1).any(dim=1).nonzero()[:, 0]


def _extent(mask: Tensor) -> Span:
    shown = _shown(mask)
    return (int(shown[0]), int(shown[-1] - shown[0]) + 1) if len(shown) else (0, 0)


def _whole(mask: Tensor) -> Span:
    return 0, len(mask)


def _dice(volume: Tensor, truth: Tensor) -> Tensor:
    return evaluation.volume_dice(volume, truth)


def _slice_mean(volume: Tensor, truth: Tensor) -> Tensor:
    return evaluation.mean_slice_dice(volume, truth)


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


# --------------------------------------------------------------------------------------------- ep1


def ep1(predictions: Tensor, support_mask: Tensor, query_mask: Tensor, chunks: int) -> Scored:
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
    return volume, _dice(volume, query_mask)


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


def _chunked(g: Generator) -> Iterator[Case]:
    yield Case("9 support and 12 query slices, 3 chunks", (*_task(g, (14, 3, 9), (15, 2, 12)), 3))
    yield Case("8 support and 6 query slices, 2 chunks", (*_task(g, (11, 1, 8), (13, 5, 6)), 2))


def _uneven(g: Generator) -> Iterator[Case]:
    yield Case("10 support and 13 query slices, 3 chunks", (*_task(g, (13, 1, 10), (16, 2, 13)), 3))
    yield Case("11 support and 7 query slices, 4 chunks", (*_task(g, (14, 2, 11), (12, 4, 7)), 4))
    yield Case("as many support slices as chunks", (*_task(g, (7, 2, 3), (12, 1, 8)), 3))
    yield Case("fewer query slices than chunks", (*_task(g, (10, 1, 8), (9, 3, 2)), 4))


def _gaps(g: Generator) -> Iterator[Case]:
    task = _task(g, (14, 2, 10), (15, 1, 12), support_gap=(3, 4, 6), query_gap=(4, 5, 7))
    yield Case("slices in between that do not show the organ", (*task, 3))
    task = _task(g, (14, 2, 11), (13, 2, 9), support_gap=(1, 2, 3), query_gap=(5, 6))
    yield Case("two parts with a gap, 2 chunks", (*task, 2))


def _no_query(g: Generator) -> Iterator[Case]:
    predictions, support, query = _task(g, (9, 2, 6), (8, 2, 5))
    yield Case("the query does not show the organ", (predictions, support, query & False, 2))


def _short(g: Generator) -> Iterator[Case]:
    predictions, support, query = _task(g, (9, 2, 3), (8, 2, 5))
    yield Case("3 support slices for 4 chunks", (predictions, support, query, 4))
    for chunks in (1, 2):
        name = f"a support without the organ, {chunks} chunks"
        yield Case(name, (predictions, support & False, query, chunks))


def _chunk_of(i: int, n: int, chunks: int, n_support: int) -> int:
    return i * chunks // n


def _middle(a: int, b: int) -> int:
    return (a + b) // 2


def _ep1(
    support_extent: Callable[[Tensor], Span] = _extent,
    query_extent: Callable[[Tensor], Span] = _extent,
    chunk_of: Callable[[int, int, int, int], int] = _chunk_of,
    centre: Callable[[int, int], int] = _middle,
    pick: Callable[[Tensor, int, int, int, int], Tensor] = lambda p, s, z, a, b: p[s, z],
    score: Callable[[Tensor, Tensor], Tensor] = _dice,
    least: Callable[[int], int] = lambda chunks: chunks,
) -> Callable[..., Scored]:
    """Make an EP1, slice by slice, that differs from the right one in what is given."""

    def assemble(predictions: Tensor, support: Tensor, query: Tensor, chunks: int) -> Scored:
        _supported(support, least(chunks))
        first, n = support_extent(support)
        start, length = query_extent(query)
        volume = torch.zeros_like(query)
        for i in range(length):
            c = min(chunk_of(i, length, chunks, n), chunks - 1)
            a, b = first - (-c * n // chunks), first - (-(c + 1) * n // chunks)
            source = min(centre(a, b), len(support) - 1)
            volume[start + i] = pick(predictions, source, start + i, a, b)
        return volume, score(volume, query)

    return assemble


def _without_last(mask: Tensor) -> Span:
    first, n = _extent(mask)
    return first, max(n - 1, 0)


def _closed(predictions: Tensor, support: Tensor, query: Tensor, chunks: int) -> Scored:
    """Leave out the slices within the extent that do not show the organ."""
    _supported(support, chunks)
    shown, asked = _shown(support), _shown(query)
    centres = torch.tensor(evaluation.chunk_centres(0, len(shown) - 1, chunks))
    volume = torch.zeros_like(query)
    if len(asked):
        chunk = torch.arange(len(asked)) * chunks // len(asked)
        volume[asked] = predictions[shown[centres[chunk]], asked]
    return volume, _dice(volume, query)


def _beyond(predictions: Tensor, support: Tensor, query: Tensor, chunks: int) -> Scored:
    """Let the outer chunks go on to the ends of the query volume."""
    first, n = _supported(support, chunks)
    start, length = _extent(query)
    if not length:
        return ep1(predictions, support, query, chunks)
    slices = torch.arange(len(query))
    chunk = ((slices - start) * chunks // length).clamp(0, chunks - 1)
    centres = torch.tensor(evaluation.chunk_centres(first, first + n - 1, chunks))
    volume = predictions[centres[chunk], slices]
    return volume, _dice(volume, query)


def _vote(p: Tensor, s: int, z: int, a: int, b: int) -> Tensor:
    return p[a:b, z].double().mean(0) > 0.5


def _one_centre(predictions: Tensor, support: Tensor, query: Tensor, chunks: int) -> Scored:
    first, n = _supported(support, chunks)
    start, length = _extent(query)
    volume = torch.zeros_like(query)
    volume[start : start + length] = predictions[first + n // 2, start : start + length]
    return volume, _dice(volume, query)


def _with_empty(value: float) -> Callable[..., Scored]:
    def assemble(*args: Any) -> Scored:
        volume, score = ep1(*args)
        return volume, score.nan_to_num(value)

    return assemble


def _ep1_groups(predictions: Tensor, support_mask: Tensor, query_mask: Tensor, chunks: int) -> Any:
    """Cut both extents into groups first, then go through the groups."""

    def groups(mask: Tensor) -> list[list[int]]:
        shown = [z for z in range(len(mask)) if bool(mask[z].any())]
        inside = list(range(shown[0], shown[-1] + 1)) if shown else []
        cut: list[list[int]] = [[] for _ in range(chunks)]
        for i, z in enumerate(inside):
            cut[math.floor(i * chunks / len(inside) + 1e-9)].append(z)
        return cut

    supports, queries = groups(support_mask), groups(query_mask)
    if not all(supports):
        raise ValueError("a chunk of the support is empty")
    volume = torch.zeros_like(query_mask)
    for theirs, ours in zip(supports, queries, strict=True):
        for z in ours:
            volume[z] = predictions[theirs[len(theirs) // 2], z]
    both, sizes = (volume & query_mask).sum().item(), (volume.sum() + query_mask.sum()).item()
    return volume, 2 * both / sizes if sizes else float("nan")


def _ep1_numpy(predictions: Tensor, support_mask: Tensor, query_mask: Tensor, chunks: int) -> Any:
    p, s, q = (t.numpy().astype(bool) for t in (predictions, support_mask, query_mask))
    rows = np.flatnonzero(s.any(axis=(1, 2)))
    if rows.size == 0 or np.ptp(rows) + 1 < chunks:
        raise ValueError("too few support slices")
    places = np.arange(rows[0], rows[-1] + 1)
    chunk = (places - rows[0]) * chunks // len(places)
    centres = np.array(
        [np.sort(places[chunk == c])[(chunk == c).sum() // 2] for c in range(chunks)]
    )
    volume = np.zeros_like(q)
    asked = np.flatnonzero(q.any(axis=(1, 2)))
    if asked.size:
        z = np.arange(asked[0], asked[-1] + 1)
        volume[z] = p[centres[(z - z[0]) * chunks // len(z)], z]
    with np.errstate(invalid="ignore"):
        return volume, 2.0 * np.sum(volume & q) / np.float64(volume.sum() + q.sum())


def _ep1_gather(predictions: Tensor, support_mask: Tensor, query_mask: Tensor, chunks: int) -> Any:
    """Choose a support slice for every query slice, gather, and blank what lies outside."""
    first, n = _supported(support_mask, chunks)
    start, length = _extent(query_mask)
    z = torch.arange(len(query_mask))
    inside = (z >= start) & (z < start + length)
    chunk = ((z - start).clamp(min=0) * chunks // max(length, 1)).clamp(max=chunks - 1)
    numbers = torch.arange(n) * chunks // n  # the chunk of each support slice
    half = torch.stack([(numbers == c).sum() // 2 for c in range(chunks)])
    centre = first + torch.searchsorted(numbers, torch.arange(chunks)) + half
    index = centre[chunk].view(1, -1, 1, 1).expand(1, *query_mask.shape)
    volume = predictions.gather(0, index)[0] & inside[:, None, None]
    return {"volume": volume, "dice": _dice(volume, query_mask)}


EP1 = Answer(
    name="ep1",
    reference=ep1,
    section=EP_SECTION,
    checks=[
        Check("each chunk by the centre slice of its own", _chunked, points=2, pointer=EP_SECTION),
        Check("extents that the chunks do not divide", _uneven, points=2, pointer=EP_SECTION),
        Check("an extent has no gaps", _gaps, pointer=EP_SECTION),
        Check("nothing to find: nothing asked, no score", _no_query, pointer=EMPTY_SECTION),
        Check("too few support slices are refused", _short, pointer=EP_SECTION),
    ],
    mistakes=[
        Mistake(
            "the whole query cut",
            _ep1(query_extent=_whole),
            "You cut the whole query volume into chunks. EP1 cuts the organ's extent, taken from "
            "the query's own labels, and predicts nothing outside. (Yours is the more honest one; "
            "it is not what is published.)",
            EP_SECTION,
        ),
        Mistake(
            "the whole support cut",
            _ep1(support_extent=_whole),
            "You cut the whole support volume into chunks, so a centre slice may lie outside the "
            "organ. Cut from the first to the last slice that shows it.",
            EP_SECTION,
        ),
        Mistake(
            "one slice for all chunks",
            _one_centre,
            "The centre of the whole extent segments all your chunks. Each chunk has a support "
            "slice of its own.",
            EP_SECTION,
        ),
        Mistake(
            "chunks in reverse",
            _ep1(chunk_of=lambda i, n, chunks, n_support: chunks - 1 - i * chunks // n),
            "Your chunks meet in reverse: the lowest part of the query is segmented by the highest "
            "part of the support. The first chunk of one meets the first of the other.",
            EP_SECTION,
        ),
        Mistake(
            "first slice of the chunk",
            _ep1(centre=lambda a, b: a),
            "You took the first support slice of each chunk. The centre resembles the others of "
            "its chunk more.",
            EP_SECTION,
        ),
        Mistake(
            "the lower centre",
            _ep1(centre=lambda a, b: (a + b - 1) // 2),
            "In a chunk with an even number of slices you take the lower of the two in the middle; "
            "the upper one is asked for, (a + b + 1) // 2 for slices a … b. (It hardly matters "
            "which; that everybody takes the same does.)",
            EP_SECTION,
        ),
        Mistake(
            "chunks as long as the support's",
            _ep1(chunk_of=lambda i, n, chunks, n_support: i * chunks // n_support),
            "You cut the query into chunks as long as the support's. Each volume is cut by its own "
            "extent, so that the lower third meets the lower third.",
            EP_SECTION,
        ),
        Mistake(
            "the rest to the last chunk",
            _ep1(chunk_of=lambda i, n, chunks, n_support: i // max(n // chunks, 1)),
            "Your query chunks have n // chunks slices each, and the last one all the rest. Chunk "
            "numbers are ⌊i · chunks / n⌋: sizes then differ by one at most.",
            EP_SECTION,
        ),
        Mistake(
            "the last slice left out",
            _ep1(query_extent=_without_last),
            "The last slice that shows the organ is missing: the extent includes both ends.",
            EP_SECTION,
        ),
        Mistake(
            "gaps closed",
            _closed,
            "You kept only the slices that show the organ. The extent runs from the first to the "
            "last of them, whatever lies between (two kidneys need not begin at the same height).",
            EP_SECTION,
        ),
        Mistake(
            "predicted outside, too",
            _beyond,
            "You predict slices outside the query's extent as well. EP1 does not ask for them: "
            "false alarms above and below the organ never count, and that is its leak.",
            EP_SECTION,
        ),
        Mistake(
            "all slices of the chunk",
            _ep1(pick=_vote),
            "All support slices of a chunk vote in yours. Only its centre is labelled; to use the "
            "others would be another number of shots.",
            EP_SECTION,
        ),
        Mistake(
            "mean of the slices",
            _ep1(score=_slice_mean),
            "Your volume is right, and its score is the mean of the slices' Dice. Here all voxels "
            "together have one overlap and one sum of sizes.",
            SCORE_SECTION,
        ),
        Mistake(
            "no organ, no fault",
            _with_empty(1.0),
            "A query that does not show the organ gets 1 from you. Nothing was asked: NaN.",
            EMPTY_SECTION,
        ),
        Mistake(
            "no organ, all wrong",
            _with_empty(0.0),
            "A query that does not show the organ gets 0 from you. Nothing was asked: NaN.",
            EMPTY_SECTION,
        ),
        Mistake(
            "just enough is refused",
            _ep1(least=lambda chunks: chunks + 1),
            "You refuse a support with exactly as many slices as chunks. That is enough: each "
            "chunk has one.",
            EP_SECTION,
        ),
        Mistake(
            "nothing refused",
            _ep1(least=lambda chunks: 0),
            "A support with fewer slices than chunks cannot give each chunk a slice of its own. "
            "Yours goes on with a slice of another chunk; say so with a ValueError instead.",
            EP_SECTION,
        ),
    ],
    variants=[
        V("groups, in loops", _ep1_groups),
        V("numpy", _ep1_numpy),
        V("gather, a dict of parts", _ep1_gather),
        V("slice by slice", _ep1()),
    ],
    hints=[
        "Two extents are cut into the same number of chunks, each by its own length. Which support "
        "slice belongs to a chunk, and to which chunk does a query slice belong?",
        "Query slice z is the i-th of n in its extent: its chunk is i · chunks // n. The support's "
        "chunk c begins at the ceiling of c · n / chunks and ends before that of c + 1.",
        "In words: find first and last slice of both masks; refuse fewer support slices than "
        "chunks; begin with an empty volume; for each z of the query's extent copy the prediction "
        "of its chunk's centre; then twice the overlap over the sum of sizes of the whole volume.",
    ],
    returns=("volume", "dice"),
    equivalent={
        "labelled = support_mask.any(dim=(-2, -1)).nonzero().flatten() → "
        "labelled = support_mask.any(dim=(-2, -1)).nonzero()": _ONE_COLUMN,
        "shown = query_mask.any(dim=(-2, -1)).nonzero().flatten() → "
        "shown = query_mask.any(dim=(-2, -1)).nonzero()": _ONE_COLUMN,
        "n = labelled[-1] - labelled[0] + 1 if len(labelled) else 0 → "
        "n = labelled[-1] - labelled[0] + 1 if len(labelled) else -1": (
            "fewer than one chunk is never asked for, so that 0 and −1 slices are refused alike"
        ),
    },
    withhold=GIVEN_AWAY,
    difficulty=3,
    importance=5,
    minutes=20,
)

# --------------------------------------------------------------------------------------------- ep2


def ep2(predictions: Tensor, support_mask: Tensor, query_mask: Tensor) -> Scored:
    """Let the centre support slice segment every query slice, and score all: the library's centre.

    Raises:
        ValueError: the support does not show the organ.
    """
    first, n = _supported(support_mask, 1)
    volume = predictions[evaluation.chunk_centres(first, first + n - 1, 1)[0]]
    return volume, _dice(volume, query_mask)


def _one_for_all(g: Generator) -> Iterator[Case]:
    yield Case("9 support slices", _task(g, (15, 5, 9), (12, 2, 7)))
    yield Case("8 support slices: the upper centre", _task(g, (16, 1, 8), (11, 4, 5)))
    yield Case("one support slice", _task(g, (9, 6, 1), (10, 1, 9)))


def _gap_support(g: Generator) -> Iterator[Case]:
    yield Case("an organ in two parts", _task(g, (15, 3, 10), (12, 2, 7), support_gap=(1, 2, 4)))


def _absent(g: Generator) -> Iterator[Case]:
    predictions, support, query = _task(g, (9, 1, 5), (8, 2, 5))
    nothing = query & False
    yield Case(
        "the query does not show it, and something is predicted", (predictions, support, nothing)
    )
    yield Case("nothing shown, nothing predicted", (predictions & False, support, nothing))


def _no_support(g: Generator) -> Iterator[Case]:
    predictions, support, query = _task(g, (9, 1, 5), (8, 2, 5))
    yield Case("a support without the organ", (predictions, support & False, query))


def _ep2(
    choose: Callable[[Tensor, Tensor, Tensor], int],
    score: Callable[[Tensor, Tensor], Tensor] = _dice,
    refuses: bool = True,
) -> Callable[..., Scored]:
    """Make an EP2 that differs in the slice it takes, or in the score."""

    def segment(predictions: Tensor, support: Tensor, query: Tensor) -> Scored:
        _supported(support, int(refuses))
        volume = predictions[choose(predictions, support, query)]
        return volume, score(volume, query)

    return segment


def _centre(predictions: Tensor, support: Tensor, query: Tensor) -> int:
    first, n = _extent(support)
    return first + n // 2


def _best_for_the_query(predictions: Tensor, support: Tensor, query: Tensor) -> int:
    shown = _shown(support)
    scores = _dice(predictions[shown], query.expand(len(shown), *query.shape))
    return int(shown[scores.nan_to_num(1.0).argmax()])


def _inside_only(predictions: Tensor, support: Tensor, query: Tensor) -> Scored:
    volume, _ = ep2(predictions, support, query)
    start, length = _extent(query)
    volume = volume.clone()
    volume[:start] = volume[start + length :] = False
    return volume, _dice(volume, query)


def _scored_inside(predictions: Tensor, support: Tensor, query: Tensor) -> Scored:
    volume, _ = ep2(predictions, support, query)
    return volume, _inside_only(predictions, support, query)[1]


def _voting(predictions: Tensor, support: Tensor, query: Tensor) -> Scored:
    _supported(support, 1)
    volume = predictions[_shown(support)].double().mean(0) > 0.5
    return volume, _dice(volume, query)


def _ep2_empty(value: float) -> Callable[..., Scored]:
    def segment(*args: Any) -> Scored:
        volume, score = ep2(*args)
        return volume, score.nan_to_num(value)

    return segment


def _never_undefined(predictions: Tensor, support: Tensor, query: Tensor) -> Scored:
    volume, score = ep2(predictions, support, query)
    return volume, score if bool(query.any()) else torch.full_like(score, math.nan)


def _ep2_loop(predictions: Tensor, support_mask: Tensor, query_mask: Tensor) -> Any:
    shown = [s for s in range(len(support_mask)) if bool(support_mask[s].any())]
    if not shown:
        raise ValueError("no support slice")
    volume = predictions[math.ceil((shown[0] + shown[-1]) / 2)].clone()
    both = sizes = 0
    for mine, theirs in zip(volume.flatten().tolist(), query_mask.flatten().tolist(), strict=True):
        both, sizes = both + (mine and theirs), sizes + mine + theirs
    return volume, 2 * both / sizes if sizes else math.nan


def _ep2_numpy(predictions: Tensor, support_mask: Tensor, query_mask: Tensor) -> Any:
    rows = np.flatnonzero(support_mask.numpy().any(axis=(1, 2)))
    if not rows.size:
        raise ValueError("no support slice")
    volume, truth = predictions.numpy()[(rows.min() + rows.max() + 1) // 2], query_mask.numpy()
    with np.errstate(invalid="ignore"):
        return volume, 2.0 * (volume & truth).sum() / np.float64(volume.sum() + truth.sum())


def _ep2_chunks(predictions: Tensor, support_mask: Tensor, query_mask: Tensor) -> Any:
    """Ask EP1 with one chunk and a query that is shown everywhere, then score."""
    volume, _ = ep1(predictions, support_mask, torch.ones_like(query_mask), 1)
    return volume, _dice(volume, query_mask)


def _ep2_precision(predictions: Tensor, support_mask: Tensor, query_mask: Tensor) -> Any:
    first, n = _supported(support_mask, 1)
    volume = predictions[range(first, first + n)[n // 2]]
    found = (volume & query_mask).sum().double()
    precision, recall = found / volume.sum(), found / query_mask.sum()
    harmonic = 2 / (1 / precision + 1 / recall)
    empty = torch.tensor(math.nan) if not (volume | query_mask).any() else torch.tensor(0.0)
    return {"dice": empty if not found else harmonic, "volume": volume}


EP2 = Answer(
    name="ep2",
    reference=ep2,
    section=EP_SECTION,
    checks=[
        Check("the centre slice segments every slice", _one_for_all, points=2, pointer=EP_SECTION),
        Check("the centre of the extent, gaps included", _gap_support, pointer=EP_SECTION),
        Check("a query without the organ", _absent, pointer=EMPTY_SECTION),
        Check("a support without the organ is refused", _no_support, pointer=EP_SECTION),
    ],
    mistakes=[
        Mistake(
            "centre of the volume",
            _ep2(lambda p, s, q: len(s) // 2),
            "You took the middle slice of the support volume. The organ may lie elsewhere: the "
            "centre of its extent is asked for.",
            EP_SECTION,
        ),
        Mistake(
            "largest slice",
            _ep2(lambda p, s, q: int(s.sum((1, 2)).argmax())),
            "You took the slice with the largest area. That is a choice with reasons, and another "
            "protocol; EP2 takes the centre of the extent.",
            SUPPORT_SECTION,
        ),
        Mistake(
            "first slice",
            _ep2(lambda p, s, q: _extent(s)[0]),
            "You took the first slice that shows the organ, where it is hardly more than a dot.",
            SUPPORT_SECTION,
        ),
        Mistake(
            "the lower centre",
            _ep2(lambda p, s, q: _extent(s)[0] + (_extent(s)[1] - 1) // 2),
            "With an even number of slices you take the lower of the two in the middle; the upper "
            "one is asked for, so that all use the same slice.",
            EP_SECTION,
        ),
        Mistake(
            "middle of those shown",
            _ep2(lambda p, s, q: int(_shown(s)[len(_shown(s)) // 2])),
            "You took the middle one of the slices that show the organ. The extent has no gaps: "
            "its centre lies half-way between the first and the last.",
            EP_SECTION,
        ),
        Mistake(
            "best for the query",
            _ep2(_best_for_the_query),
            "You tried all support slices and kept the one with the best Dice on the query. "
            "Nobody has that Dice before the query is labelled: this is choosing by the answer.",
            SUPPORT_SECTION,
        ),
        Mistake(
            "inside the query's extent only",
            _inside_only,
            "You blank the prediction outside the query's extent. That is EP1's privilege; EP2 "
            "predicts every slice, and an alarm above or below the organ costs.",
            EP_SECTION,
        ),
        Mistake(
            "scored inside only",
            _scored_inside,
            "Your volume is right, but you score only the slices between the query's first and "
            "last. EP2 scores all of them: alarms outside count.",
            EP_SECTION,
        ),
        Mistake(
            "all slices vote",
            _voting,
            "All slices of the support vote in yours. EP2 has one labelled slice.",
            EP_SECTION,
        ),
        Mistake(
            "mean of the slices",
            _ep2(_centre, _slice_mean),
            "Your score is the mean of the slices' Dice. Here all voxels together have one overlap "
            "and one sum of sizes.",
            SCORE_SECTION,
        ),
        Mistake(
            "0/0 made 1",
            _ep2_empty(1.0),
            "Nothing shown and nothing predicted gets 1 from you. The formula says 0/0: NaN here.",
            EMPTY_SECTION,
        ),
        Mistake(
            "0/0 made 0",
            _ep2_empty(0.0),
            "Nothing shown and nothing predicted gets 0 from you. The formula says 0/0: NaN here.",
            EMPTY_SECTION,
        ),
        Mistake(
            "empty query excused",
            _never_undefined,
            "A query without the organ always gets NaN from you. Under EP2 it was asked all the "
            "same: whatever was predicted there is wrong, and its Dice is 0.",
            EMPTY_SECTION,
        ),
        Mistake(
            "nothing refused",
            _ep2(_centre, refuses=False),
            "A support that does not show the organ gives a prediction all the same. It cannot say "
            "what is looked for; refuse it with a ValueError.",
            EP_SECTION,
        ),
    ],
    variants=[
        V("loops over voxels", _ep2_loop),
        V("numpy", _ep2_numpy),
        V("as EP1 with one chunk", _ep2_chunks),
        V("precision and recall, a dict of parts", _ep2_precision),
    ],
    hints=[
        "One support slice, all query slices. Nothing of the query's labels may be looked at "
        "before the score.",
        "The centre of slices a … b is (a + b + 1) // 2. The score counts the voxels of the whole "
        "volume at once.",
        "In words: find the slices of the support mask that show something; if there is none, "
        "refuse; take the predictions of the slice half-way between first and last; twice its "
        "overlap with the query's mask over the sum of both sizes.",
    ],
    returns=("volume", "dice"),
    withhold=GIVEN_AWAY,
    difficulty=1,
    importance=5,
    minutes=8,
)

# ------------------------------------------------------------------------------------ choose_slice


def choose_slice(predictions: Tensor, mask: Tensor) -> Scored:
    """Choose the slice that segments the others of its own volume best; the first of equals.

    Raises:
        ValueError: no slice shows the organ.
    """
    return _choose()(predictions, mask)


def _volume_score(made: Tensor, truth: Tensor) -> Tensor:
    """Score every row (S, S', H, W) as one volume."""
    return evaluation.volume_dice(made, truth)


def _choose(
    candidates: Callable[[Tensor], Tensor] = _shown,
    others: Callable[[Tensor, int], Tensor] = lambda mask, s: _numbers(mask) != s,
    score: Callable[[Tensor, Tensor], Tensor] = _volume_score,
    best: Callable[[Tensor], Tensor] = lambda scores: scores.nan_to_num(-1.0).argmax(),
    by_number: bool = True,
    across: bool = False,
) -> Callable[..., Scored]:
    """Make a choice that differs from the right one in what is given."""

    def choose(predictions: Tensor, mask: Tensor) -> Scored:
        if not len(_shown(mask)):
            raise ValueError("no slice shows the organ")
        able = candidates(mask)
        scores = []
        for s in able.tolist():
            kept = others(mask, s)
            if across:
                made, truth = predictions[kept, s], mask[s].expand(int(kept.sum()), -1, -1)
            else:
                made, truth = predictions[s, kept], mask[kept]
            scores.append(score(made, truth))
        place = best(torch.stack(scores))
        return (able[place] if by_number else place), scores[int(place)]

    return choose


def _numbers(mask: Tensor) -> Tensor:
    return torch.arange(len(mask))


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


def _choices(g: Generator) -> Iterator[Case]:
    yield _candidates(g, 10, 2, 7)
    yield _candidates(g, 13, 3, 8)


def _nothing_found(g: Generator) -> Iterator[Case]:
    mask = _organ(g, 8, 2, 4)
    predictions = _predicted(g, 8, mask)
    predictions[2:6] = False
    predictions[3, 3, :2] = True  # finds itself, at least
    yield Case("no slice finds anything in the others", (predictions, mask))


def _lonely(g: Generator) -> Iterator[Case]:
    mask = _organ(g, 6, 2, 1)
    predictions = _predicted(g, 6, mask)
    yield Case("one slice shows the organ", (predictions, mask))
    predictions = predictions.clone()
    predictions[2] = mask
    yield Case("one slice shows the organ, and it finds nothing elsewhere", (predictions, mask))


def _none_shown(g: Generator) -> Iterator[Case]:
    mask = _organ(g, 6, 1, 4)
    yield Case("no slice shows the organ", (_predicted(g, 6, mask), mask & False))


def _by_label(place: Callable[[Tensor], int]) -> Callable[..., Scored]:
    """Choose by the mask alone, whatever the predictions are, and score the choice rightly."""

    def choose(predictions: Tensor, mask: Tensor) -> Scored:
        return _choose(candidates=lambda mask: torch.tensor([place(mask)]))(predictions, mask)

    return choose


def _unrefused(predictions: Tensor, mask: Tensor) -> Scored:
    if len(_shown(mask)):
        return choose_slice(predictions, mask)
    return torch.tensor(0), torch.tensor(math.nan)


def _agreement(made: Tensor, truth: Tensor) -> Tensor:
    return (made == truth).double().mean()


def _choose_loop(predictions: Tensor, mask: Tensor) -> Any:
    best, score = -1, -math.inf
    for s in range(len(mask)):
        if not mask[s].any():
            continue
        both = sizes = 0
        for t in range(len(mask)):
            if t != s:
                both += int((predictions[s, t] & mask[t]).sum())
                sizes += int(predictions[s, t].sum()) + int(mask[t].sum())
        dice = 2 * both / sizes if sizes else math.nan
        if best < 0 or dice > score:
            best, score = s, dice
    if best < 0:
        raise ValueError("nothing to choose from")
    return best, score


def _choose_numpy(predictions: Tensor, mask: Tensor) -> Any:
    p, m = predictions.numpy(), mask.numpy()
    able = np.flatnonzero(m.any(axis=(1, 2)))
    if not able.size:
        raise ValueError("nothing to choose from")
    both = (p & m).sum(axis=(2, 3))
    sizes = p.sum(axis=(2, 3)) + m.sum(axis=(1, 2))
    np.fill_diagonal(both, 0)
    np.fill_diagonal(sizes, 0)
    with np.errstate(invalid="ignore"):
        scores = (2.0 * both.sum(axis=1) / sizes.sum(axis=1))[able]
    place = int(np.argmax(scores))
    return able[place], scores[place]


def _choose_einsum(predictions: Tensor, mask: Tensor) -> Any:
    """Count everything, then take off what each slice makes of itself."""
    p, m = predictions.double(), mask.double()
    both = torch.einsum("sthw,thw->st", p, m)
    sizes = p.sum((2, 3)) + m.sum((1, 2))
    both, sizes = both.sum(1) - both.diagonal(), sizes.sum(1) - sizes.diagonal()
    scores = torch.where(m.sum((1, 2)) > 0, 2 * both / sizes, -math.inf)
    if bool((scores == -math.inf).all()):
        raise ValueError("nothing to choose from")
    return {"slice": scores.argmax(), "dice": scores.max()}


def _choose_sorted(predictions: Tensor, mask: Tensor) -> Any:
    able = _shown(mask).tolist()
    if not able:
        raise ValueError("nothing to choose from")

    def score(s: int) -> float:
        rest = [t for t in range(len(mask)) if t != s]
        return float(evaluation.volume_dice(predictions[s, rest], mask[rest], empty=math.nan))

    best = sorted(able, key=lambda s: -score(s))[0]
    return best, score(best)


CHOOSE_SLICE = Answer(
    name="choose_slice",
    reference=choose_slice,
    section=SUPPORT_SECTION,
    checks=[
        Check("the slice that segments the others best", _choices, points=2),
        Check("the first of equals", _nothing_found),
        Check("a single slice has no competitor", _lonely),
        Check("nothing to choose from is refused", _none_shown),
    ],
    mistakes=[
        Mistake(
            "itself included",
            _choose(others=lambda mask, s: _numbers(mask) >= 0),
            "Each slice is also scored on itself in yours, and that is the one it copies best. "
            "What it makes of the other slices is asked.",
            SUPPORT_SECTION,
        ),
        Mistake(
            "largest area",
            _by_label(lambda mask: int(mask.sum((1, 2)).argmax())),
            "You chose the slice with the largest area. That may be a good guess; the predictions "
            "are there to tell whether it is.",
            SUPPORT_SECTION,
        ),
        Mistake(
            "centre of the extent",
            _by_label(lambda mask: _extent(mask)[0] + _extent(mask)[1] // 2),
            "You chose the centre of the extent without looking at the predictions.",
            SUPPORT_SECTION,
        ),
        Mistake(
            "turned round",
            _choose(across=True),
            "You found the slice that is segmented best by the others. Axis 0 is the supporting "
            "slice, axis 1 the slice that is segmented.",
            SUPPORT_SECTION,
        ),
        Mistake(
            "mean of the slices",
            _choose(score=lambda made, truth: evaluation.dice(made, truth).nanmean()),
            "You averaged the Dice of the other slices. All their voxels together make one Dice "
            "here.",
            SCORE_SECTION,
        ),
        Mistake(
            "every slice may support",
            _choose(candidates=_numbers),
            "A slice that does not show the organ cannot support it, however well its prediction "
            "comes out. Choose among those that show it.",
            SUPPORT_SECTION,
        ),
        Mistake(
            "scored where it is shown",
            _choose(others=lambda m, s: m.flatten(1).any(1) & (_numbers(m) != s)),
            "You score only the slices that show the organ. A slice that sees it everywhere then "
            "looks as good as one that does not: false alarms have to count.",
            SUPPORT_SECTION,
        ),
        Mistake(
            "neighbours only",
            _choose(others=lambda m, s: (_numbers(m) - s).abs() == 1),
            "You score the two neighbours alone. They look almost like the slice itself; all "
            "others are asked.",
            SUPPORT_SECTION,
        ),
        Mistake(
            "the worst",
            _choose(best=lambda scores: scores.nan_to_num(-1.0).argmin()),
            "You chose the slice with the lowest Dice.",
            SUPPORT_SECTION,
        ),
        Mistake(
            "the last of equals",
            _choose(best=lambda s: len(s) - 1 - s.nan_to_num(-1.0).flip(0).argmax()),
            "Of slices with equal scores you take the last; the first is asked for, so that two "
            "people choose the same.",
            SUPPORT_SECTION,
        ),
        Mistake(
            "place among the candidates",
            _choose(by_number=False),
            "Your number counts the candidates, not the slices of the volume. Look up which slice "
            "it is.",
            SUPPORT_SECTION,
        ),
        Mistake(
            "share of equal pixels",
            _choose(score=_agreement),
            "You counted pixels that agree, background included. A slice that predicts nothing "
            "does well by that.",
            SCORE_SECTION,
        ),
        Mistake(
            "nothing refused",
            _unrefused,
            "If no slice shows the organ there is nothing to choose. Say so with a ValueError "
            "instead of naming a slice.",
            SUPPORT_SECTION,
        ),
    ],
    variants=[
        V("loops", _choose_loop),
        V("numpy", _choose_numpy),
        V("einsum, its own taken off", _choose_einsum),
        V("sorted by a score", _choose_sorted),
    ],
    hints=[
        "You have labels of one volume and a table: what each slice, as support, makes of each "
        "slice. What would you compute for one candidate, and which entry must you leave out?",
        "`~torch.eye(S, dtype=torch.bool)` is True for every pair of different slices; `&` it into "
        "predictions and masks, and the diagonal counts no voxel. Then one Dice a row.",
        "In words: refuse a mask that is empty; blank the diagonal of predictions and masks; sum "
        "overlap and sizes over all axes but the first; give slices without the organ −1; "
        "`argmax`.",
    ],
    returns=("slice", "dice"),
    equivalent={
        "scores = torch.where(shown, 2 * overlap / sizes, -1.0) → "
        "scores = torch.where(shown, 2 * overlap / sizes, -2.0)": _BELOW_ZERO,
        "scores = torch.where(shown, 2 * overlap / sizes, -1.0) → "
        "scores = torch.where(shown, 2 * overlap / sizes, -0.5)": _BELOW_ZERO,
    },
    difficulty=2,
    importance=4,
    minutes=15,
)

# ------------------------------------------------------------------------------- find_fold_leaks

Leaks = tuple[Tensor, Tensor, Tensor, Tensor]


def find_fold_leaks(train: Tensor, support: Tensor, query: Tensor) -> Leaks:
    """Say which scans are never or repeatedly queried, which were trained on, which help selves."""
    times = query.sum(dim=0)
    own = torch.zeros_like(query)
    own[torch.arange(len(query)), support] = True
    return times == 0, times > 1, train & query, own & query


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


def _clean_folds(g: Generator) -> Iterator[Case]:
    yield Case("5 folds of 20 scans, nothing wrong", _rounds(g, 5, 20))
    yield Case("3 folds of 11 scans, nothing wrong", _rounds(g, 3, 11))


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


def _trained(g: Generator) -> Iterator[Case]:
    train, support, query = _rounds(g, 5, 15)
    for fold in (1, 3):
        places = query[fold].nonzero()[:, 0]
        train[fold, places[int(torch.randint(len(places), (), generator=g))]] = True
    yield Case("two folds train on a scan that they query", (train, support, query))
    train, support, query = _rounds(g, 4, 9)
    yield Case("every fold trains on all scans", (torch.ones_like(train), support, query))


def _own_support(g: Generator) -> Iterator[Case]:
    train, support, query = _rounds(g, 4, 13)
    for fold in (0, 2):
        support[fold] = query[fold].nonzero()[-1, 0]
    yield Case("two folds query their own support", (train, support, query))
    train, support, query = _rounds(g, 3, 8)
    yield Case("one support for all folds", (train, support * 0 + support[1], query))


def _folds(
    never: Callable[[Tensor], Tensor] = lambda query: query.sum(0) == 0,
    twice: Callable[[Tensor], Tensor] = lambda query: query.sum(0) > 1,
    trained: Callable[[Tensor, Tensor], Tensor] = lambda train, query: train & query,
    own: Callable[[Tensor, Tensor], Tensor] = lambda one_hot, query: one_hot & query,
) -> Callable[..., Leaks]:
    """Make a detector that differs from the right one in what is given."""

    def find(train: Tensor, support: Tensor, query: Tensor) -> Leaks:
        one_hot = torch.nn.functional.one_hot(support, query.shape[1]).bool()
        return never(query), twice(query), trained(train, query), own(one_hot, query)

    return find


def _folds_loop(train: Tensor, support: Tensor, query: Tensor) -> Any:
    n_folds, n_scans = query.shape
    never, twice = [], []
    for scan in range(n_scans):
        asking = [fold for fold in range(n_folds) if query[fold, scan]]
        never.append(not asking)
        twice.append(len(asking) >= 2)
    trained = [[bool(train[f, s] and query[f, s]) for s in range(n_scans)] for f in range(n_folds)]
    own = [
        [bool(query[f, s]) and int(support[f]) == s for s in range(n_scans)] for f in range(n_folds)
    ]
    return never, twice, trained, own


def _folds_numpy(train: Tensor, support: Tensor, query: Tensor) -> Any:
    t, s, q = train.numpy(), support.numpy(), query.numpy()
    counts = np.bincount(np.nonzero(q)[1], minlength=q.shape[1])
    return counts < 1, counts >= 2, np.logical_and(t, q), q & (np.arange(q.shape[1]) == s[:, None])


def _folds_scatter(train: Tensor, support: Tensor, query: Tensor) -> Any:
    own = torch.zeros_like(query).scatter(1, support[:, None], True) & query
    first = query.int().cumsum(0)[-1]
    return {"never": ~query.any(0), "twice": first >= 2, "trained": train * query, "own": own}


def _folds_where(train: Tensor, support: Tensor, query: Tensor) -> Any:
    alone = torch.einsum("fs->s", query.double())
    own = torch.where(torch.arange(query.shape[1]) == support[:, None], query, False)
    return alone.eq(0), alone.gt(1.5), torch.minimum(train.int(), query.int()).bool(), own


FIND_FOLD_LEAKS = Answer(
    name="find_fold_leaks",
    reference=find_fold_leaks,
    section=FOLD_SECTION,
    checks=[
        Check("no alarm where nothing leaks", _clean_folds),
        Check("scans queried never, or more than once", _uncovered, points=2),
        Check("a fold's own training scans", _trained),
        Check("a fold that queries its support", _own_support),
    ],
    mistakes=[
        Mistake(
            "never in some fold",
            _folds(never=lambda q: ~q.all(0)),
            "You report every scan that some fold does not query. Each scan belongs to one fold "
            "only; never means that no fold queries it.",
            FOLD_SECTION,
        ),
        Mistake(
            "queried at all",
            _folds(twice=lambda q: q.sum(0) >= 1),
            "You report scans that are queried at least once. Once is right; more than once is "
            "not.",
            FOLD_SECTION,
        ),
        Mistake(
            "exactly twice",
            _folds(twice=lambda q: q.sum(0) == 2),
            "You report scans that are queried exactly twice. Three times and more is worse.",
            FOLD_SECTION,
        ),
        Mistake(
            "by every fold",
            _folds(twice=lambda q: q.all(0)),
            "You report scans that every fold queries. Two folds are enough to count a person "
            "twice.",
            FOLD_SECTION,
        ),
        Mistake(
            "neighbouring folds only",
            _folds(twice=lambda q: (q & q.roll(1, 0)).any(0)),
            "You compare each fold with the one before it. Any two may query the same scan: count "
            "over all folds.",
            FOLD_SECTION,
        ),
        Mistake(
            "training of any fold",
            _folds(trained=lambda t, q: t.any(0) & q),
            "You join the training scans of all folds. In cross-validation every scan is trained "
            "on by the other folds; a leak is a scan that the same fold trains on and queries.",
            FOLD_SECTION,
        ),
        Mistake(
            "one answer for a scan",
            _folds(trained=lambda t, q: (t & q).any(0)),
            "You say of each scan whether some fold trained on and queried it. Keep the folds "
            "apart, (F, N): the reader has to know which number to throw away.",
            FOLD_SECTION,
        ),
        Mistake(
            "one answer for a fold",
            _folds(trained=lambda t, q: (t & q).any(1)),
            "You say of each fold whether it trained on a scan that it queries. Keep the scans "
            "apart, (F, N): it matters whose.",
            FOLD_SECTION,
        ),
        Mistake(
            "honest queries",
            _folds(trained=lambda t, q: ~t & q),
            "Your «trained» holds the queries that were not trained on: the honest ones.",
            FOLD_SECTION,
        ),
        Mistake(
            "a support of any fold",
            _folds(own=lambda s, q: s.any(0) & q),
            "You report every query that is a support somewhere. A scan may well support one fold "
            "and be queried in another; in one fold it must not do both.",
            FOLD_SECTION,
        ),
        Mistake(
            "all supports",
            _folds(own=lambda s, q: s),
            "You mark the support of every fold. It is a leak only if that fold queries it.",
            FOLD_SECTION,
        ),
        Mistake(
            "the support counted as queried",
            lambda t, s, q: (
                _folds()(t, s, q)[:1]
                + _folds()(t, s, q | torch.nn.functional.one_hot(s, q.shape[1]).bool())[1:2]
                + _folds()(t, s, q)[2:]
            ),
            "You count the support among the queries of its fold, so that it seems to be queried "
            "twice. A support is labelled, not asked.",
            FOLD_SECTION,
        ),
    ],
    variants=[
        V("loops", _folds_loop),
        V("numpy", _folds_numpy),
        V("scatter, a dict of parts", _folds_scatter),
        V("einsum and where", _folds_where),
        V("one-hot", _folds()),
    ],
    hints=[
        "Two questions are about a scan and all folds together, two are about each fold by itself.",
        "A sum over axis 0 counts how many folds query a scan. Within a fold, `train & query` "
        "needs no sum. Which column is the support's? Compare its number with 0 … N−1.",
        "In words: count over the folds; equal to 0; above 1; training and query together; the "
        "column number equals the support's number and the scan is queried.",
    ],
    returns=("never", "twice", "trained", "own"),
    difficulty=1,
    importance=5,
    minutes=10,
)

# -------------------------------------------------------------------------------------- make_folds


def make_folds(n_scans: int, n_folds: int) -> Tensor:
    """Plan a cross-validation: rows (fold, support, query), the support from the next fold.

    Raises:
        ValueError: fewer than two folds, or more folds than scans.
    """
    _countable(n_scans, n_folds)
    query = torch.arange(n_scans)
    fold = query * n_folds // n_scans
    first = torch.searchsorted(fold, torch.arange(n_folds))
    return torch.stack([fold, first[(fold + 1) % n_folds], query], dim=1)


def _countable(n_scans: int, n_folds: int) -> None:
    if n_folds < 2 or n_folds > n_scans:
        raise ValueError(f"{n_folds} folds of {n_scans} scans")


def _divided(g: Generator) -> Iterator[Case]:
    n_folds = 3 + int(torch.randint(3, (), generator=g))
    yield Case(f"{4 * n_folds} scans, {n_folds} folds", (4 * n_folds, n_folds))
    yield Case("20 scans, 5 folds", (20, 5))


def _undivided(g: Generator) -> Iterator[Case]:
    yield Case("35 scans, 4 folds: 3 left over", (35, 4))
    yield Case("23 scans, 5 folds: 3 left over", (23, 5))
    yield Case("11 scans, 4 folds: 3 left over", (11, 4))


def _smallest(g: Generator) -> Iterator[Case]:
    yield Case("2 scans, 2 folds", (2, 2))
    yield Case("as many folds as scans", (6, 6))
    yield Case("two folds", (9, 2))


def _senseless(g: Generator) -> Iterator[Case]:
    yield Case("one fold", (8, 1))
    yield Case("more folds than scans", (4, 5))
    yield Case("no scans", (0, 2))


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


def _as_found(n_scans: int, n_folds: int) -> Tensor:
    """One scan more for each fold, the middle one supports, the remainder forgotten."""
    size, rows = n_scans // n_folds, []
    for fold in range(n_folds):
        scans = [scan % n_scans for scan in range(fold * size, (fold + 1) * size + 1)]
        support = scans.pop(len(scans) // 2)
        rows += [(fold, support, query) for query in scans]
    return torch.tensor(rows)


Members = Callable[[int, int, int], list[int]]


def _even(fold: int, n: int, n_folds: int) -> list[int]:
    return [q for q in range(n) if q * n_folds // n == fold]


def _planned(
    members: Members = _even,
    support: Callable[[int, int, int], int] = lambda fold, n, n_folds: _even(
        (fold + 1) % n_folds, n, n_folds
    )[0],
    own_support: bool = False,
    refuses: Callable[[int, int], None] = _countable,
) -> Callable[..., Tensor]:
    """Make a plan that differs from the right one in what is given."""

    def plan(n_scans: int, n_folds: int) -> Tensor:
        refuses(n_scans, n_folds)
        rows = []
        for fold in range(n_folds):
            scans = members(fold, n_scans, n_folds)
            if own_support:
                rows += [(fold, scans[0], query) for query in scans[1:]]
            else:
                one = support(fold, n_scans, n_folds)
                rows += [(fold, one, query) for query in scans]
        return torch.tensor(rows).view(-1, 3)

    return plan


def _lenient(n_scans: int, n_folds: int) -> None:
    """Refuse nothing."""


def _bounded(n_scans: int, n_folds: int) -> None:
    if n_folds < 2:
        raise ValueError("one fold")


def _strict(n_scans: int, n_folds: int) -> None:
    if n_folds < 2 or n_folds >= n_scans:
        raise ValueError("too many folds")


def _short_blocks(fold: int, n: int, n_folds: int) -> list[int]:
    return list(range(fold * (n // n_folds), (fold + 1) * (n // n_folds)))


def _last_long(fold: int, n: int, n_folds: int) -> list[int]:
    return list(
        range(fold * (n // n_folds), n if fold == n_folds - 1 else (fold + 1) * (n // n_folds))
    )


def _shared(fold: int, n: int, n_folds: int) -> list[int]:
    scans = _even(fold, n, n_folds)
    return [*scans, (scans[-1] + 1) % n] if scans else []


def _unwrapped(fold: int, n: int, n_folds: int) -> int:
    return (_even(fold, n, n_folds) or [0])[-1] + 1


def _next_scan(n_scans: int, n_folds: int) -> Tensor:
    _countable(n_scans, n_folds)
    query = torch.arange(n_scans)
    return torch.stack([query * n_folds // n_scans, (query + 1) % n_scans, query], dim=1)


def _folds_by_dealing(n_scans: int, n_folds: int) -> Any:
    _countable(n_scans, n_folds)
    return [[q % n_folds, (q + 1) % n_folds, q] for q in range(n_scans)]


def _folds_by_split(n_scans: int, n_folds: int) -> Any:
    _countable(n_scans, n_folds)
    parts = np.array_split(np.random.default_rng(3).permutation(n_scans), n_folds)
    rows = [
        np.stack([np.full(len(part), f), np.full(len(part), parts[f - 1][-1]), part], axis=1)
        for f, part in enumerate(parts)
    ]
    return np.concatenate(rows)


def _folds_by_chunk(n_scans: int, n_folds: int) -> Any:
    _countable(n_scans, n_folds)
    rows: list[tuple[int, int, int]] = []
    parts = torch.tensor_split(torch.arange(n_scans), n_folds)
    for fold, part in enumerate(parts):
        outside = next(s for s in range(n_scans) if s not in part.tolist())
        rows += [(fold, outside, int(q)) for q in part]
    return torch.tensor(rows[::-1])


def _folds_by_edges(n_scans: int, n_folds: int) -> Any:
    if not 2 <= n_folds <= n_scans:
        raise ValueError("impossible")
    edges = [round(f * n_scans / n_folds) for f in range(n_folds + 1)]
    plan = torch.zeros(n_scans, 3, dtype=torch.int64)
    for f in range(n_folds):
        plan[edges[f] : edges[f + 1], 0] = f
        plan[edges[f] : edges[f + 1], 1] = edges[f + 1] % n_scans
    plan[:, 2] = torch.arange(n_scans)
    return plan


MAKE_FOLDS = Answer(
    name="make_folds",
    reference=make_folds,
    section=FOLD_SECTION,
    checks=[
        Check("every scan queried exactly once", _divided, law=_once, like_reference=False),
        Check("folds that do not divide", _undivided, 2, law=_balanced, like_reference=False),
        Check("one support a fold, from outside it", _divided, law=_supports, like_reference=False),
        Check("the smallest plans", _smallest, law=_all_right, like_reference=False),
        Check("impossible plans are refused", _senseless),
    ],
    mistakes=[
        Mistake(
            "as found",
            _as_found,
            "This still does what the function you found does. It has three faults: count how "
            "often each scan is queried for 20 scans, and for 23.",
            FOLD_SECTION,
        ),
        Mistake(
            "the remainder forgotten",
            _planned(_short_blocks, lambda f, n, k: (f + 1) % k * (n // k)),
            "Folds of n // n_folds scans leave the remainder out: of 23 scans in 5 folds three "
            "are never queried.",
            FOLD_SECTION,
        ),
        Mistake(
            "the remainder to the last fold",
            _planned(_last_long, lambda f, n, k: (f + 1) % k * (n // k)),
            "The last fold gets all scans that are left over, so a mean of folds weighs its scans "
            "less. Sizes may differ by one at most.",
            FOLD_SECTION,
        ),
        Mistake(
            "the shared scan kept",
            _planned(_shared, lambda f, n, k: _even((f + 2) % k, n, k)[-1]),
            "Each fold still queries the first scan of the next one, which is therefore queried "
            "twice.",
            FOLD_SECTION,
        ),
        Mistake(
            "support from its own fold",
            _planned(own_support=True),
            "You take a fold's support from its own scans, so that scan is never queried. Take it "
            "from outside the fold.",
            FOLD_SECTION,
        ),
        Mistake(
            "the support queried, too",
            _planned(support=lambda f, n, k: _even(f, n, k)[0]),
            "Every fold queries its own support: a scan is segmented with its own labels, and its "
            "Dice flatters the mean.",
            FOLD_SECTION,
        ),
        Mistake(
            "one support for all",
            _planned(support=lambda f, n, k: 0),
            "Scan 0 supports every fold, its own included. There it is segmented with its own "
            "labels.",
            FOLD_SECTION,
        ),
        Mistake(
            "the last fold does not wrap",
            _planned(support=_unwrapped),
            "The last fold's support is scan number n, which does not exist. After the last fold "
            "comes the first.",
            FOLD_SECTION,
        ),
        Mistake(
            "everybody with everybody",
            _planned(
                members=lambda f, n, k: [q for q in range(n) if q != f], support=lambda f, n, k: f
            ),
            "Every fold queries all scans but its support, so each scan is queried by several "
            "folds. Folds divide the scans among themselves.",
            FOLD_SECTION,
        ),
        Mistake(
            "folds of n_folds scans",
            _planned(
                lambda f, n, k: list(range(f * k, min((f + 1) * k, n))),
                lambda f, n, k: (f + 1) * k % n,
            ),
            "Your folds have n_folds scans each. There are n_folds folds.",
            FOLD_SECTION,
        ),
        Mistake(
            "a support for each query",
            _next_scan,
            "Each query has a support of its own, the next scan. A fold has one labelled scan for "
            "all its queries, and within a fold the next scan is queried as well.",
            FOLD_SECTION,
        ),
        Mistake(
            "nothing refused",
            _planned(
                support=lambda f, n, k: (_even((f + 1) % k, n, k) or [0])[0], refuses=_lenient
            ),
            "One fold has nothing outside from which to take a support, and more folds than scans "
            "leave some empty. Refuse both with a ValueError.",
            FOLD_SECTION,
        ),
        Mistake(
            "empty folds",
            _planned(
                support=lambda f, n, k: (_even((f + 1) % k, n, k) or [0])[0], refuses=_bounded
            ),
            "More folds than scans leave some folds empty; refuse that with a ValueError, too.",
            FOLD_SECTION,
        ),
        Mistake(
            "one scan a fold is refused",
            _planned(refuses=_strict),
            "You refuse as many folds as scans. Each scan is then a fold of its own, which is "
            "allowed (leave one out).",
            FOLD_SECTION,
        ),
    ],
    variants=[
        V("dealt out like cards", _folds_by_dealing),
        V("numpy's array_split, shuffled", _folds_by_split),
        V("tensor_split, in another order", _folds_by_chunk),
        V("rounded edges", _folds_by_edges),
    ],
    hints=[
        "Count the queries of each scan in the plan as found: which scans are queried twice, and "
        "where did the supports go? Then look at the scans behind the last fold.",
        "Which fold a scan belongs to must follow from the scan alone: ⌊scan · n_folds / n⌋, for "
        "example. Then no scan can be in two folds or in none.",
        "In words: refuse fewer than two folds or more than scans; give each scan its fold; take a "
        "fold's support from the fold after it, and after the last comes the first.",
    ],
    equivalent={
        "return torch.tensor(rows) → return rows": "a list of rows is as good as a tensor of them",
        "support = fold_of.index((fold + 1) % n_folds) → "
        "support = fold_of.index((fold - 1) % n_folds)": (
            "the fold before serves as well as the fold behind: any scan outside is right"
        ),
    },
    kind="repair",
    difficulty=2,
    importance=4,
    minutes=15,
)

READ_A_TABLE = Prose(
    name="read_a_table",
    points=3,
    rubric=[
        "asks over what the mean is taken: slices or volumes, and what an empty slice counts",
        "asks for the protocol: which query slices are asked for, and whether the query's extent "
        "comes from its labels (EP1) or not (EP2)",
        "asks for the number of subjects and an interval that resamples subjects, or calls a "
        "difference of two points in five folds no evidence without them",
        "asks how support volume and slice were chosen, and whether anybody chose after seeing the "
        "score",
        "asks whether the test organs were visible, unlabelled, in the training slices (setting 1) "
        "or not (setting 2)",
        "asks for a baseline on the same slices: the copied mask",
    ],
    model=(
        "I would not believe it yet, and not disbelieve it either. First: a mean over what? The "
        "mean of slices and the Dice of volumes can be far apart for one prediction, and a rule "
        "for empty slices moves the first by tens of points. Second: the protocol. If the query "
        "slices are cut to the organ's extent, which comes from the labels, false alarms outside "
        "never count; a method that marks too much gains most. Third: how many people? Four "
        "queries a fold are twenty subjects at most; I want an interval over subjects, and better "
        "one of the paired difference. Fourth: who chose the support scan and its slice, and when? "
        "Fifth: setting 1 or 2, for the test organs may have been in the training slices without "
        "their labels. And last, what does the copied mask score on the same slices?"
    ),
    minutes=8,
)

EXERCISE = Exercise(
    number=7,
    name="protocols",
    title="Protocols: one prediction, many scores",
    answers=[EP1, EP2, CHOOSE_SLICE, FIND_FOLD_LEAKS, MAKE_FOLDS],
    prose=[READ_A_TABLE],
)
