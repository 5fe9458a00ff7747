"""Lines with intervals: whatever is drawn against shots, grids, shifts, sizes or episodes.

Every line is told from the others twice: by colour, and by marker and line style.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from fewshot_lib.checker import language
from fewshot_lib.figures.style import (
    INK,
    LINES,
    MARKERS,
    PALETTE,
    QUIET,
    PlotData,
    Size,
    drawing,
    interval,
    legend_above,
    listing,
    number,
    numpy_of,
    percent,
)

_ = language.words("figures")

BESIDE = 18  # letters in a line right of the axes: a longer one would take the curves' room
TICK = 5.1  # points, the width of a figure of a tick's label

#: mean, or (mean, low, high): numbers of one length.
Series = ArrayLike | tuple[ArrayLike, ArrayLike, ArrayLike]
#: Points (x, y) that a reader predicted; a y of None was not predicted.
Predicted = Sequence[tuple[float, float | None]] | None


class Line(NamedTuple):
    """One series with its interval; ``low`` and ``high`` equal ``mean`` when it has none."""

    mean: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]


def lines(
    x: ArrayLike,
    series: Mapping[str, Series],
    *,
    xlabel: str,
    ylabel: str,
    what: str = "",
    references: Mapping[str, float] | None = None,
    levels: tuple[str, Mapping[str, float]] = ("", {}),
    ylim: tuple[float, float] | None = None,
    spacing: Literal["linear", "log", "equal"] = "linear",
    yscale: Literal["linear", "log"] = "linear",
    finding: str = "",
    size: Size = "single",
    predicted: Predicted = None,
) -> tuple[Figure, PlotData]:
    """Draw one or more series against x, each with its interval.

    Arguments:
        x: (P,) increasing numbers.
        series: name → (P,) means, or (means, low, high) with (P,) each.
        xlabel, ylabel: what the axes show, with units where there are any.
        what: names the picture; by default "<ylabel> against <xlabel>".
        references: name → a level drawn as a horizontal line (chance, a ceiling), named outside on
            the right; with an arrow where the axis does not reach it.
        levels: what they are, and series → a level of its own, a thin line of its colour with the
            number outside on the right.
        ylim: lowest and highest y shown; by default what the data need, and a reference that is no
            farther from them than they are from each other.
        spacing: of the x axis; "equal" puts the same distance between any two neighbours.
        yscale: "log" needs numbers above 0, and ``ylim``.
        finding: what the picture shows, in a sentence; by default where each line begins and ends.
        size: of the figure.
        predicted: points that the reader predicted, drawn as crosses.

    Returns:
        figure, and data with the series in ``numbers``.

    Raises:
        ValueError: no series, or lengths that differ.

    >>> figure, data = lines([1, 5], {"a": [0.5, 0.9]}, xlabel="shots", ylabel="accuracy")
    >>> data.alt
    'Line chart: accuracy against shots. a: from 0.50 at 1 to 0.90 at 5.'
    """
    where = numpy_of(x, "x", 1)
    drawn = {name: _line(name, values, len(where)) for name, values in series.items()}
    if not drawn:
        raise ValueError("no series to draw: give a dictionary name → numbers")
    references = dict(references or {})
    kind, own = levels
    what = what or _("{ylabel} against {xlabel}").format(ylabel=ylabel, xlabel=xlabel)
    place = np.arange(len(where)) if spacing == "equal" else where
    own_points = [(px, py) for px, py in predicted or () if py is not None]
    with drawing(size) as figure:
        axes = figure.subplots()
        for i, (name, line) in enumerate(drawn.items()):
            look = _look(i)
            thick = (len(drawn) - 1 - i) / max(1, len(drawn) - 1)  # lines that coincide stay seen
            axes.plot(
                place, line.mean, label=name, markevery=max(1, len(where) // 12),
                lw=1.4 + 1.2 * thick, ms=4.5 + 2.5 * thick, **look,
            )  # fmt: skip
            if (line.high > line.low).any():
                axes.fill_between(place, line.low, line.high, color=look["color"], alpha=0.18, lw=0)
            if name in own:
                axes.axhline(own[name], color=look["color"], lw=1.2, ls=":", zorder=1)
        if own:
            axes.plot([], [], color=QUIET, lw=1.2, ls=":", label=kind)
        for i, level in enumerate(references.values()):
            axes.axhline(level, color=QUIET, lw=1.4, ls=LINES[(i + 1) % len(LINES)], zorder=1)
        if own_points:
            px, py = zip(*own_points, strict=True)
            axes.plot(
                np.interp(px, where, place), py, "X:", color=INK, mfc="white", ms=9, lw=1.2,
                label="your prediction", zorder=6,
            )  # fmt: skip
        if spacing == "log":
            axes.set_xscale("log")
        if spacing != "linear" or len(where) <= 8:
            axes.set_xticks(place, _ticks(axes, place, where))
            axes.minorticks_off()
        shown = [*np.concatenate([np.concatenate(line) for line in drawn.values()]), *own.values()]
        bottom, top = ylim or _zoomed([*shown, *(py for _, py in own_points)], references.values())
        axes.set(xlabel=xlabel, ylabel=ylabel, yscale=yscale, ylim=(bottom, top))
        if yscale == "log":  # numbers of one size, where matplotlib writes powers of ten
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.9g}")
        axes.grid(axis="y")
        outside = [(level, f"{name} {number(level)}", QUIET) for name, level in references.items()]
        outside += [
            (own[name], number(own[name]), PALETTE[i % len(PALETTE)])
            for i, name in enumerate(drawn)
            if name in own
        ]
        _beside(axes, outside)
        if len(drawn) > 1 or own or own_points:
            legend_above(axes)
    alt = [_("Line chart: {what}.").format(what=what)]
    alt += [_line_in_words(name, line, where) for name, line in drawn.items()]
    alt += [
        _("Level {name}: {level}.").format(name=name, level=number(level))
        for name, level in references.items()
    ]
    alt += [
        _("Level {kind}, {name}: {level}.").format(kind=kind, name=name, level=number(level))
        for name, level in own.items()
    ]
    data = PlotData(
        what=what,
        alt=" ".join(alt),
        columns=(xlabel, *drawn),
        rows=tuple(
            (f"{value:g}", *(_cell(line, i) for line in drawn.values()))
            for i, value in enumerate(where)
        ),
        finding=finding or _ends(drawn, where, what.split(_(" against "))[0]),
        numbers={"x": where, **drawn},
        predicted=_predicted(own_points),
    )
    return figure, data


def accuracy_against_shots(
    shots: ArrayLike,
    accuracies: Mapping[str, Series],
    *,
    n_way: int,
    chance: bool = True,
) -> tuple[Figure, PlotData]:
    """Draw accuracy against the number of shots, with chance level.

    Arguments:
        shots: (P,) k_shot.
        accuracies: name → accuracies in 0 … 1, or (mean, low, high).
        n_way: classes in a task; chance is 1/n_way.
        chance: whether to draw that level.

    Returns:
        figure and data, as ``lines``. Notebook 03.

    >>> accuracy_against_shots([1, 5], {"pixels": [0.7, 0.9]}, n_way=5)[1].rows
    (('1', '0.70'), ('5', '0.90'))
    """
    return lines(
        shots,
        accuracies,
        xlabel="shots per class (k_shot)",
        ylabel=f"{n_way}-way accuracy",
        references={"chance": 1 / n_way} if chance else None,
        spacing="equal",
    )


def dice_against_grid(
    grid: ArrayLike, dice: Mapping[str, Series], *, copied: Mapping[str, float] | None = None
) -> tuple[Figure, PlotData]:
    """Draw Dice against the pooling grid, from one global prototype to one per position.

    Arguments:
        grid: (P,) cells along a side: 1 is the global prototype, the last one per position.
        dice: name (an alignment, say) → Dice in 0 … 1, or (mean, low, high).
        copied: the same names → Dice of the copied support mask, drawn as a level.

    Returns:
        figure and data, as ``lines``. Notebooks 01 and 05b.

    >>> dice_against_grid([1, 2], {"0": [0.7, 0.3]})[1].what
    'Dice against pooling grid'
    """
    where = numpy_of(grid, "grid", 1)
    drawn = {name: _line(name, values, len(where)) for name, values in dice.items()}
    return lines(
        grid,
        dice,
        xlabel="pooling grid (cells per side; 1 = global)",
        ylabel="Dice",
        what=_("Dice against pooling grid"),
        levels=("copied mask", copied or {}),
        spacing="equal",
        finding=_peaks(drawn, where, _("Dice (by grid)")),
    )


def dice_against_shift(
    shift: ArrayLike, dice: Mapping[str, Series], *, predicted: Predicted = None
) -> tuple[Figure, PlotData]:
    """Draw Dice against how far the object was moved between support and query.

    Arguments:
        shift: (P,) pixels.
        dice: name → Dice in 0 … 1, or (mean, low, high); "copied mask" belongs among them.
        predicted: as for ``lines``.

    Returns:
        figure and data, as ``lines``. Notebooks 01 and 05b.

    >>> dice_against_shift([0, 24], {"note": [0.99, 0.0]})[1].finding
    'Dice at 0 and at 24: note 0.99 and 0.00.'
    """
    return lines(
        shift,
        dice,
        xlabel="shift of the object (pixels)",
        ylabel="Dice",
        what=_("Dice against shift"),
        predicted=predicted,
    )


def learning_curve(
    labelled: ArrayLike,
    dice: Mapping[str, Series],
    *,
    copied: float | None = None,
    predicted: Predicted = None,
) -> tuple[Figure, PlotData]:
    """Draw Dice on unseen subjects against the number of labelled slices, on a log axis.

    Arguments:
        labelled: (P,) labelled slices used for training, ≥ 1.
        dice: name → Dice in 0 … 1, or (mean, low, high).
        copied: Dice of the copied support mask, drawn as a level.
        predicted: as for ``lines``.

    Returns:
        figure and data, as ``lines``. Notebook 01.

    >>> learning_curve([1, 10], {"U-Net": [0.2, 0.6]}, copied=0.3)[1].alt.endswith("mask: 0.30.")
    True
    """
    return lines(
        labelled, dice, xlabel="labelled slices", ylabel="Dice on unseen subjects",
        references=None if copied is None else {"copied mask": copied},
        spacing="log", predicted=predicted,
    )  # fmt: skip


def softmax_ceiling(
    n_ways: Sequence[int] = (2, 5),
    scales: ArrayLike = (0.5, 1, 2, 5, 10, 20, 50),
    *,
    nonnegative: bool = False,
) -> tuple[Figure, PlotData]:
    """Draw the highest probability that a softmax over scaled cosines can reach.

    max p = 1 / (1 + (K − 1) exp(−α r)),   r = 2 for cosines in [−1, 1], 1 for features ≥ 0

    Arguments:
        n_ways: K, one line each.
        scales: (P,) α > 0, the factor before the cosine (a temperature is its inverse).
        nonnegative: whether features are non-negative, so that cosines lie in [0, 1].

    Returns:
        figure and data, as ``lines``. Notebooks 01 and 05b.

    >>> softmax_ceiling((2, 5), [1.0])[1].rows
    (('1', '0.88', '0.65'),)
    """
    alpha = numpy_of(scales, "scales", 1).astype(float)
    if (alpha <= 0).any():
        raise ValueError(f"scales must be positive, got {alpha.tolist()}")
    reach = 1 if nonnegative else 2
    ceiling = {f"K = {k}": 1 / (1 + (k - 1) * np.exp(-alpha * reach)) for k in n_ways}
    i = int(np.abs(alpha - 1).argmin())
    told = listing(
        [
            _("{number} for {name}").format(number=number(values[i]), name=name)
            for name, values in ceiling.items()
        ]
    )
    return lines(
        alpha,
        ceiling,
        xlabel="scale α before the cosine",
        ylabel="highest probability",
        what=_("Ceiling of the softmax over scaled cosines")
        + (_(" (features ≥ 0)") if nonnegative else ""),
        spacing="log",
        finding=_("At α = {alpha} no probability exceeds {told}.").format(
            alpha=f"{alpha[i]:g}", told=told
        ),
    )


def mask_shrinking(
    side: ArrayLike, lost: Mapping[str, Series], *, stride: int
) -> tuple[Figure, PlotData]:
    """Draw how often a small square vanishes when its mask is shrunk, against its side.

    Arguments:
        side: (P,) pixels.
        lost: way of shrinking ("nearest", "bilinear", "area") → share of placements in 0 … 1 at
            which no mask is left.
        stride: how many pixels one cell of the feature map stands for.

    Returns:
        figure and data, as ``lines``. Notebooks 01 and 05b.

    >>> mask_shrinking([3, 5], {"nearest": [0.86, 0.61]}, stride=8)[1].what
    'Objects lost when masks are shrunk by 8'
    """
    where = numpy_of(side, "side", 1)
    first = {name: _line(name, values, len(where)).mean[0] for name, values in lost.items()}
    told = listing(
        [
            _("{name} loses {share}").format(name=name, share=percent(share))
            for name, share in first.items()
        ]
    )
    return lines(
        side,
        lost,
        xlabel="side of the square (pixels)",
        ylabel="share of placements lost",
        what=_("Objects lost when masks are shrunk by {stride}").format(stride=stride),
        finding=_("Of squares of side {where}, {told}.").format(where=f"{where[0]:g}", told=told),
    )


def loss_curve(
    losses: ArrayLike | Mapping[str, ArrayLike],
    *,
    total: int | None = None,
    window: int = 50,
    ylabel: str = "loss",
) -> tuple[Figure, PlotData]:
    """Draw a loss over episodes, faint as it came and bold as a running mean; fit for live use.

    Arguments:
        losses: (E,) losses so far, or name → losses.
        total: episodes planned, so that a live picture keeps its axis.
        window: episodes in the running mean, ≥ 1.
        ylabel: which loss.

    Returns:
        figure, and data with the running means in ``numbers``. Notebook 06.

    Raises:
        ValueError: no loss yet, or a window below 1.

    >>> loss_curve([2.0, 1.0], window=1)[1].finding
    'loss fell from 2.00 to 1.00 in 2 episodes.'
    """
    named = losses if isinstance(losses, Mapping) else {"": losses}
    arrays = {name: numpy_of(values, "losses", 1).astype(float) for name, values in named.items()}
    if not arrays or any(len(values) == 0 for values in arrays.values()):
        raise ValueError("no loss to draw yet: at least one episode must have run")
    if window < 1:
        raise ValueError(f"window must be at least 1 episode, got {window}")
    means = {name: _running_mean(values, window) for name, values in arrays.items()}
    with drawing("single") as figure:
        axes = figure.subplots()
        for i, (name, values) in enumerate(arrays.items()):
            episodes = np.arange(1, len(values) + 1)
            look = _look(i)
            axes.plot(episodes, values, color=look["color"], alpha=0.25, lw=0.6)
            axes.plot(
                episodes, means[name], color=look["color"], ls=look["linestyle"],
                label=f"{name or ylabel}, mean of {window}", lw=2,
            )  # fmt: skip
        longest = max(len(values) for values in arrays.values())
        axes.set(xlabel="episode", ylabel=ylabel, xlim=(0, max(total or longest, longest) + 1))
        usual = [np.nanpercentile(v, (0.5, 99.5)) for v in arrays.values()]
        axes.set_ylim(*_zoomed(np.concatenate([*usual, *means.values()])))
        axes.grid(axis="y")
        legend_above(axes)
    sentences, rows = [], []
    for name, mean in means.items():
        first, last = float(arrays[name][: min(window, len(mean))].mean()), float(mean[-1])
        verb = _("fell") if last < first else _("rose") if last > first else _("stayed")
        subject = f"{name}{_(': ')}{ylabel}" if name else ylabel
        sentences.append(
            _("{subject} {verb} from {first} to {last} in {mean} episodes.").format(
                subject=subject, verb=verb, first=number(first), last=number(last), mean=len(mean)
            )
        )
        rows.append((name or ylabel, len(mean), number(first), number(last)))
    return figure, PlotData(
        what=_("{ylabel} over episodes").format(ylabel=ylabel),
        alt=_("Line chart: {ylabel} against episode, as a running mean. ").format(ylabel=ylabel)
        + " ".join(sentences),
        columns=(
            _("series"),
            _("episodes"),
            _("first {window}").format(window=window),
            _("last {window}").format(window=window),
        ),
        rows=tuple(rows),
        finding=" ".join(sentences),
        numbers=means,
    )


def _look(i: int) -> dict[str, Any]:
    """Return colour, line style and marker of the i-th series; no two of the first 42 agree."""
    return {
        "color": PALETTE[i % len(PALETTE)],
        "linestyle": LINES[i % len(LINES)],
        "marker": MARKERS[i % len(MARKERS)],
    }


def _line(name: str, values: Series, length: int) -> Line:
    """Bring one series to (mean, low, high)."""
    parts = values if isinstance(values, tuple) and np.ndim(values[0]) == 1 else (values,) * 3
    if len(parts) != 3:
        raise ValueError(f"{name!r} must be means or (mean, low, high), got {len(parts)} parts")
    line = Line(*(numpy_of(part, name, 1).astype(float) for part in parts))
    if any(len(part) != length for part in line):
        raise ValueError(f"{name!r} has {len(line.mean)} numbers for {length} values of x")
    return line


def _cell(line: Line, i: int) -> str:
    """Write one entry of a table: the mean and its interval."""
    return interval((line.mean[i], line.low[i], line.high[i]))


def _line_in_words(name: str, line: Line, x: NDArray[Any]) -> str:
    """Describe one series by its ends and, when it lies between them, its peak."""
    last = len(x) - 1
    words = _("{name}: from {line} at {x} to {line2} at {x2}").format(
        name=name, line=_cell(line, 0), x=f"{x[0]:g}", line2=_cell(line, last), x2=f"{x[last]:g}"
    )
    if not np.isnan(line.mean).all():
        for extreme, word in ((np.nanargmax, _("highest")), (np.nanargmin, _("lowest"))):
            i = int(extreme(line.mean))
            if number(line.mean[i]) not in (number(line.mean[0]), number(line.mean[last])):
                words += _(", {word} {line} at {x}").format(
                    word=word, line=_cell(line, i), x=f"{x[i]:g}"
                )
    return words + _(".")


def _predicted(points: Sequence[tuple[float, float]]) -> str:
    """Say what a reader predicted; nothing if that was nothing."""
    told = listing([_("{y} at {x}").format(y=number(y), x=f"{x:g}") for x, y in points])
    return _("Your prediction: {told}.").format(told=told) if told else ""


def _zoomed(values: Iterable[float], references: Iterable[float] = ()) -> tuple[float, float]:
    """Return an axis that shows all values with a margin, and the references that lie near."""
    finite = [float(value) for value in values if np.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    span = max(high - low, 0.02 * max(abs(low), abs(high)), 1e-6)
    near = [level for level in references if low - span <= level <= high + span]
    low, high = min(low, *near, high), max(high, *near, low)
    margin = 0.06 * max(high - low, span)
    return low - margin, high + margin


def _ticks(axes: Axes, place: NDArray[Any], where: NDArray[Any]) -> list[str]:
    """Write the values under the ticks; where two would touch, the first of them is kept."""
    axes.get_xlim()  # matplotlib works it out when it is asked
    at = axes.transData.transform(np.column_stack([place, np.zeros(len(place))]))[:, 0]
    per_letter = TICK * axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]
    told, end = [], -np.inf
    for x, value in zip(at, where, strict=True):
        words = f"{value:g}"
        half = per_letter * (len(words) + 1) / 2  # a letter between neighbours
        told.append(words if x - half >= end else "")
        end = x + half if told[-1] else end
    return told


def _beside(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Write labels (level, words, colour) right of the axes, apart, at their level or its end."""
    bottom, top = axes.get_ylim()
    line = 0.065  # of the axes' height: a line of text
    end = -np.inf  # of the label below
    for level, words, colour in sorted(labels):
        share = (level - bottom) / (top - bottom)
        arrow = " ↓" if share < 0 else " ↑" if share > 1 else ""
        folded = textwrap.wrap(words + arrow, BESIDE)
        half = line * len(folded) / 2
        middle = max(min(max(share, 0.0), 1.0), end + half)
        end = middle + half
        axes.text(
            1.015, middle, "\n".join(folded), transform=axes.transAxes, va="center", color=colour,
            fontsize=8,
        )  # fmt: skip


def _ends(drawn: Mapping[str, Line], x: NDArray[Any], score: str) -> str:
    """State where every line begins and ends."""
    told = [
        f"{name} {number(line.mean[0])}"
        + (_(" and {number}").format(number=number(line.mean[-1])) if len(x) > 1 else "")
        for name, line in drawn.items()
    ]
    ends = (
        _("{x} and at {x2}").format(x=f"{x[0]:g}", x2=f"{x[-1]:g}") if len(x) > 1 else f"{x[0]:g}"
    )
    return _("{score} at {ends}: {told}.").format(score=score, ends=ends, told=_("; ").join(told))


def _peaks(drawn: Mapping[str, Line], x: NDArray[Any], score: str) -> str:
    """State where every line is highest."""
    told = []
    for name, line in drawn.items():
        best = int(np.nanargmax(line.mean))
        told.append(
            _("{name}: {number} at {x}").format(
                name=name, number=number(line.mean[best]), x=f"{x[best]:g}"
            )
        )
    return _("Highest {score}: {told}.").format(score=score, told=_("; ").join(told))


def _running_mean(values: NDArray[Any], window: int) -> NDArray[Any]:
    """Average each value with up to ``window − 1`` before it."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (total[ends] - total[starts]) / (ends - starts)
