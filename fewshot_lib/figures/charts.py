"""Charts other than lines: methods beside a baseline, calibration, distributions, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from fewshot_lib.checker import language
from fewshot_lib.figures.style import (
    HATCHES,
    INK,
    MARKERS,
    PALETTE,
    QUIET,
    PlotData,
    drawing,
    interval,
    legend_above,
    listing,
    luminance,
    number,
    numpy_of,
    tint,
)

_ = language.words("figures")

Interval = tuple[float, float, float]
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
NARROWEST = 0.2  # of the scores' axis that ``methods`` chooses


def methods(
    results: Mapping[str, float | Interval],
    *,
    baseline: str | None = "copied mask",
    xlabel: str = "Dice",
    limits: tuple[float, float] | None = None,
    within: tuple[float, float] = (0.0, 1.0),
    reference: tuple[str, float] | None = None,
    predicted: Mapping[str, float | None] | None = None,
) -> tuple[Figure, PlotData]:
    """Draw methods as points with intervals, one row each, beside a baseline.

    Arguments:
        results: method → mean, or (mean, low, high); drawn from top to bottom.
        baseline: the row drawn as a vertical line through all others; None: no baseline.
        xlabel: the score.
        limits: of the score's axis; None: what the rows need with a margin, at least 0.2 wide, so
            that small differences do not look large and intervals are wider than their markers.
        within: the least and the greatest value that the score can have; the axis that is chosen
            here stays inside. Not looked at when ``limits`` are given.
        reference: name and place of a vertical line, where no row is the baseline.
        predicted: method → the score that the reader predicted, drawn as a cross in its row.

    Returns:
        figure, and data with (mean, low, high) by method in ``numbers``. Notebooks 03, 06, 07, 08.

    Raises:
        ValueError: no result, a baseline or a predicted method that is not among them, a score that
            cannot be.

    >>> results = {"masked pooling": (0.7, 0.6, 0.8), "copied mask": (0.3, 0.2, 0.4)}
    >>> methods(results)[1].finding
    'Best: masked pooling, Dice 0.70 [0.60, 0.80]; copied mask 0.30 (difference +0.40).'
    """
    if not results:
        raise ValueError("no results to draw: give a dictionary method → (mean, low, high)")
    if baseline is not None and baseline not in results:
        raise ValueError(f"baseline {baseline!r} is not among the methods: {', '.join(results)}")
    triples = {name: _triple(name, value) for name, value in results.items()}
    own = {name: value for name, value in (predicted or {}).items() if value is not None}
    shown = limits or _zoomed(
        triples | {f"predicted {n}": (v, v, v) for n, v in own.items()}, within
    )
    with drawing("wide" if len(triples) > 6 else "single") as figure:
        axes = figure.subplots()
        for i, (name, (mean, low, high)) in enumerate(triples.items()):
            is_base = name == baseline
            colour = QUIET if is_base else PALETTE[0]
            axes.plot([low, high], [i, i], color=colour, lw=5, alpha=0.35, solid_capstyle="butt")
            axes.plot(mean, i, "s" if is_base else "o", color=colour, ms=5)
            axes.annotate(
                interval((mean, low, high)), (1.02, i), xycoords=("axes fraction", "data"),
                va="center", fontsize=8, annotation_clip=False,
            )  # fmt: skip
        if baseline is not None:
            axes.axvline(triples[baseline][0], color=QUIET, ls="--", lw=1.2, zorder=0)
        if reference is not None:
            name, place = reference
            axes.axvline(place, color=QUIET, ls="--", lw=1.2, zorder=0, label=name)
        if own:
            rows = [list(triples).index(name) for name in own]
            axes.plot(list(own.values()), rows, "X", color=INK, mfc="white", ms=9,
                      label="your prediction")  # fmt: skip
        if own or reference:
            figure.legend(loc="outside upper left", ncols=2)
        axes.set_yticks(range(len(triples)), list(triples))
        axes.set(xlabel=xlabel, xlim=shown, ylim=(len(triples) - 0.4, -0.6))
        axes.locator_params(axis="x", nbins=5, steps=[1, 2, 5, 10])
        axes.grid(axis="x")
    others = {name: triple for name, triple in triples.items() if name != baseline} or triples
    best = max(others, key=lambda name: others[name][0])
    finding = _("Best: {best}, {xlabel} {interval}").format(
        best=best, xlabel=xlabel, interval=interval(others[best])
    )
    if baseline is not None and best != baseline:
        gain = others[best][0] - triples[baseline][0]
        level, gap = number(triples[baseline][0]), number(gain, sign=True)
        finding += _("; {baseline} {level} (difference {gap})").format(
            baseline=baseline, level=level, gap=gap
        )
    guessed = listing([f"{n} {number(v)}" for n, v in own.items()])
    listed = _("; ").join(f"{name} {interval(t)}" for name, t in triples.items())
    return figure, PlotData(
        what=_("{xlabel} of {triples} methods").format(xlabel=xlabel, triples=len(triples)),
        alt=_(
            "Points with intervals: {xlabel} of {triples} methods, top to bottom: {listed}."
        ).format(xlabel=xlabel, triples=len(triples), listed=listed)
        + "".join(
            _(" A dashed line marks {baseline}.").format(baseline=name)
            for name in (baseline, reference and reference[0])
            if name
        ),
        columns=(_("method"), xlabel, _("low"), _("high")),
        rows=tuple((name, *map(number, triple)) for name, triple in triples.items()),
        finding=finding + _("."),
        numbers=triples,
        predicted=_("Your prediction: {listing}.").format(listing=guessed) if own else "",
    )


def reliability(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10
) -> tuple[Figure, PlotData]:
    """Draw how often the model is right against how sure it is, and the calibration error.

    ECE = Σ_b (n_b / n) |accuracy_b − confidence_b| over equal-width bins

    Arguments:
        confidence: (n,) probability of the predicted class, 0 … 1.
        correct: (n,) whether the prediction was right.
        n_bins: number of bins, ≥ 1.

    Returns:
        figure, and data with counts, confidence and accuracy by bin and ``ece`` in ``numbers``.
        Notebook 08.

    Raises:
        ValueError: lengths that differ, nothing to draw, or confidences outside 0 … 1.

    Source: Guo et al. 2017, "On calibration of modern neural networks", §2.

    >>> reliability([0.9, 0.9], [True, False], n_bins=5)[1].finding
    'Surer than right: mean confidence 0.90, accuracy 0.50; calibration error 0.40.'
    """
    sure = numpy_of(confidence, "confidence", 1).astype(float)
    right = numpy_of(correct, "correct", 1).astype(float)
    if len(sure) != len(right) or len(sure) == 0 or n_bins < 1:
        raise ValueError(
            f"need as many confidences as answers, at least one, and a bin: got {len(sure)}, "
            f"{len(right)} and n_bins = {n_bins}"
        )
    if not (sure.min() >= 0 and sure.max() <= 1):
        raise ValueError(f"confidence must lie in 0 … 1, got {sure.min():g} … {sure.max():g}")
    bins = np.minimum((sure * n_bins).astype(int), n_bins - 1)
    count = np.bincount(bins, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        mean_sure = np.bincount(bins, sure, n_bins) / count
        accuracy = np.bincount(bins, right, n_bins) / count
    used = count > 0
    ece = float((count[used] / len(sure) * np.abs(accuracy - mean_sure)[used]).sum())
    middles = (np.arange(n_bins) + 0.5) / n_bins
    with drawing("single") as figure:
        axes = figure.subplots()
        axes.bar(
            middles[used], accuracy[used], width=0.9 / n_bins, color=tint(PALETTE[0]),
            edgecolor=PALETTE[0], hatch="///", label="accuracy",
        )  # fmt: skip
        axes.plot(mean_sure[used], accuracy[used], color=PALETTE[1], marker="o", ls="-", ms=4,
                  label="accuracy at mean confidence")  # fmt: skip
        axes.plot([0, 1], [0, 1], color=QUIET, ls="--", lw=1.2, label="perfectly calibrated")
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        legend_above(axes)
    gap = float(sure.mean() - right.mean())
    manner = (
        _("Surer than right")
        if gap > 0.01
        else _("Less sure than right")
        if gap < -0.01
        else (_("As sure as right on average"))
    )
    finding = _(
        "{manner}: mean confidence {sure}, accuracy {right}; calibration error {ece}."
    ).format(manner=manner, sure=number(sure.mean()), right=number(right.mean()), ece=number(ece))
    return figure, PlotData(
        what=_("Reliability diagram"),
        alt=_("Reliability diagram over {n_bins} bins of {sure} predictions. {finding} ").format(
            n_bins=n_bins, sure=len(sure), finding=finding
        )
        + _("Accuracy by confidence: ")
        + _(", ").join(
            _("{a} at {c}").format(a=number(a), c=number(c))
            for a, c in zip(accuracy[used], mean_sure[used], strict=True)
        )
        + _("."),
        columns=(_("bin"), "n", _("confidence"), _("accuracy")),
        rows=tuple(
            (
                f"{b / n_bins:.2f}–{(b + 1) / n_bins:.2f}",
                int(count[b]),
                number(mean_sure[b]),
                number(accuracy[b]),
            )
            for b in np.flatnonzero(used)
        ),
        finding=finding,
        numbers={"count": count, "confidence": mean_sure, "accuracy": accuracy, "ece": ece},
    )


def score_histogram(
    scores: Mapping[str, ArrayLike],
    *,
    xlabel: str = "Dice",
    limits: tuple[float, float] | None = (0.0, 1.0),
    n_bins: int = 20,
) -> tuple[Figure, PlotData]:
    """Draw how scores are distributed, one panel below another, with medians.

    Arguments:
        scores: name → scores; NaN (an undefined score) is left out and counted.
        xlabel: the score.
        limits: of the axis; None: what the data need.
        n_bins: number of bins.

    Returns:
        figure, and data with the scores in ``numbers``. Notebooks 07 and 08.

    Raises:
        ValueError: nothing to draw.

    >>> score_histogram({"a": [0.2, 0.4, float("nan")]})[1].finding
    'Median Dice: a 0.30.'
    """
    arrays = {name: numpy_of(v, name).astype(float).ravel() for name, v in scores.items()}
    kept = {name: values[~np.isnan(values)] for name, values in arrays.items()}
    if not kept or any(len(values) == 0 for values in kept.values()):
        raise ValueError("nothing to draw: every name needs at least one score that is not NaN")
    low, high = limits or (
        min(values.min() for values in kept.values()),
        max(values.max() for values in kept.values()),
    )
    edges = np.linspace(low, high, n_bins + 1)
    with drawing("tall" if len(kept) > 2 else "single") as figure:
        panels = figure.subplots(len(kept), 1, sharex=True, squeeze=False)[:, 0]
        for i, (axes, (name, values)) in enumerate(zip(panels, kept.items(), strict=True)):
            colour = PALETTE[i % len(PALETTE)]
            axes.hist(values, edges, color=tint(colour), edgecolor=colour,
                      hatch=HATCHES[(i + 1) % len(HATCHES)])  # fmt: skip
            axes.axvline(np.median(values), color=INK, lw=1.6, ls="--")
            axes.set_title(f"{name}: median {number(np.median(values))}", loc="left")
            axes.set_ylabel("count")
        panels[-1].set_xlabel(xlabel)
    medians = listing([f"{name} {number(np.median(values))}" for name, values in kept.items()])
    rows = tuple(
        (name, len(v), len(arrays[name]) - len(v), *(number(np.quantile(v, q)) for q in QUANTILES))
        for name, v in kept.items()
    )
    described = _("; ").join(
        _("{name}: {n} scores, quartiles {low}, {median}, {high}").format(
            name=r[0], n=r[1], low=r[4], median=r[5], high=r[6]
        )
        for r in rows
    )
    return figure, PlotData(
        what=_("Distribution of {xlabel}").format(xlabel=xlabel),
        alt=_("Histograms of {xlabel} with medians. {described}.").format(
            xlabel=xlabel, described=described
        ),
        columns=(_("series"), "n", _("undefined"), _("min"), "25 %", _("median"), "75 %", _("max")),
        rows=rows,
        finding=_("Median {xlabel}: {medians}.").format(xlabel=xlabel, medians=medians),
        numbers=arrays,
    )


def dots(
    values: ArrayLike,
    row_names: Sequence[str],
    series: Sequence[str],
    *,
    label: str,
    what: str = "",
    limits: tuple[float, float] | None = None,
) -> tuple[Figure, PlotData]:
    """Draw several scores per row as marks on one axis, joined by a line from least to greatest.

    Arguments:
        values: (R, C) finite scores.
        row_names, series: R and C names; rows are drawn from top to bottom.
        label: what a value is, with its unit if it has one.
        what: names the picture; by default the label.
        limits: of the axis; by default the values' with a margin.

    Returns:
        figure, and data with ``values``. Notebooks 01, 04 and 08.

    Raises:
        ValueError: names that do not match the matrix, or a value that is not finite.

    >>> dots([[0.9, 0.1]], ["liver"], ["by volume", "by slice"], label="Dice")[1].finding
    'Dice from least to greatest: liver 0.10 … 0.90.'
    """
    matrix = _named(values, row_names, series)
    if not np.isfinite(matrix).all():
        raise ValueError("a value is not finite and has no place on the axis: leave its row out")
    what = what or label
    with drawing("single") as figure:
        axes = figure.subplots()
        rows = np.arange(len(matrix))
        axes.hlines(rows, matrix.min(axis=1), matrix.max(axis=1), color="#CCCCCC", lw=2, zorder=1)
        for i, name in enumerate(series):
            axes.plot(
                matrix[:, i], rows, ls="", marker=MARKERS[i % len(MARKERS)], label=name,
                color=PALETTE[i % len(PALETTE)], ms=9 - 4 * i / max(1, len(series) - 1),
                clip_on=False, zorder=3 + i,
            )  # fmt: skip
        axes.set_yticks(rows, list(row_names))
        axes.set(xlabel=label, xlim=limits, ylim=(len(matrix) - 0.4, -0.6))
        axes.grid(axis="x")
        legend_above(axes)
    told = [
        f"{name}{_(': ')}" + listing([f"{s} {number(v)}" for s, v in zip(series, row, strict=True)])
        for name, row in zip(row_names, matrix, strict=True)
    ]
    spans = [
        f"{name} {number(row.min())} … {number(row.max())}"
        for name, row in zip(row_names, matrix, strict=True)
    ]
    return figure, PlotData(
        what=what,
        alt=_("Dot chart: {what} in {n} rows. {told}.").format(
            what=what, n=len(matrix), told=_("; ").join(told)
        ),
        columns=("", *series),
        rows=tuple((name, *map(number, row)) for name, row in zip(row_names, matrix, strict=True)),
        finding=_("{what} from least to greatest: {spans}.").format(
            what=label, spans=_("; ").join(spans)
        ),
        numbers={"values": matrix},
    )


def heat_map(
    values: ArrayLike,
    row_names: Sequence[str],
    column_names: Sequence[str],
    *,
    label: str,
    what: str = "",
    limits: tuple[float, float] | None = None,
    digits: int = 2,
) -> tuple[Figure, PlotData]:
    """Draw a matrix with its numbers written in, where rows *and* columns are to be compared.

    A confusion matrix or a cross table of counts is one; several scores per row are ``dots``, and
    scores against a number are ``lines``.

    Arguments:
        values: (R, C).
        row_names, column_names: R and C names.
        label: what a value is, with its unit if it has one.
        what: names the picture; by default the label.
        limits: values at the ends of the colour scale; by default the data's.
        digits: decimals written.

    Returns:
        figure, and data with ``values``. Notebooks 05 and 09.

    Raises:
        ValueError: names that do not match the matrix.

    >>> heat_map([[0.9, 0.1]], ["query 0"], ["cat", "dog"], label="p")[1].finding
    'Largest p in each row: query 0: cat (0.90).'
    """
    matrix = _named(values, row_names, column_names)
    what = what or label
    finite = matrix[np.isfinite(matrix)]
    low, high = limits or ((finite.min(), finite.max()) if finite.size else (0.0, 1.0))
    with drawing("single") as figure:
        axes = figure.subplots()
        image = axes.imshow(matrix, cmap="cividis", vmin=low, vmax=high, aspect="auto")
        axes.set_xticks(range(len(column_names)), list(column_names))
        axes.set_yticks(range(len(row_names)), list(row_names))
        axes.spines[:].set_visible(False)
        if matrix.size <= 120:
            for (r, c), value in np.ndenumerate(matrix):
                share = (value - low) / (high - low) if high > low and np.isfinite(value) else 0.0
                rgb = image.cmap(float(np.clip(share, 0, 1)))[:3]
                bright = luminance(to_hex(rgb)) > 0.25
                text = "−∞" if value == -np.inf else number(value, digits)
                axes.text(c, r, text, ha="center", va="center", fontsize=8,
                          color="black" if bright else "white")  # fmt: skip
        figure.colorbar(image, label=label)
    top = matrix.argmax(axis=1)
    tops = [
        f"{name}{_(': ')}{column_names[c]} ({number(matrix[r, c], digits)})"
        for r, (name, c) in enumerate(zip(row_names, top, strict=True))
    ]
    shown = tops[:12]
    more = ""
    if len(tops) > len(shown):
        more = _("; and {n} more rows").format(n=len(tops) - len(shown))
    finding = _("Largest {what} in each row: {shown}{more}.").format(
        what=label, shown=_("; ").join(shown), more=more
    )
    return figure, PlotData(
        what=what,
        alt=_(
            "Heat map of {what}, {shape} rows by {shape2} columns, from {low} to {high}. {finding}"
        ).format(
            what=what,
            shape=matrix.shape[0],
            shape2=matrix.shape[1],
            low=number(low, digits),
            high=number(high, digits),
            finding=finding,
        ),
        columns=("", *column_names),
        rows=tuple(
            (name, *(number(value, digits) for value in row))
            for name, row in zip(row_names, matrix, strict=True)
        ),
        finding=finding,
        numbers={"values": matrix},
    )


def _named(values: ArrayLike, row_names: Sequence[str], columns: Sequence[str]) -> NDArray[Any]:
    """Bring values to (R, C), as many as there are names."""
    matrix = numpy_of(values, "values", 2).astype(float)
    if matrix.shape != (len(row_names), len(columns)) or matrix.size == 0:
        raise ValueError(
            f"a matrix of {matrix.shape[0]}×{matrix.shape[1]} with {len(row_names)} row names and "
            f"{len(columns)} column names"
        )
    return matrix


def _zoomed(triples: Mapping[str, Interval], within: tuple[float, float]) -> tuple[float, float]:
    """Return the part of the axis that holds all intervals, a tenth more on either side."""
    low = min(triple[1] for triple in triples.values())
    high = max(triple[2] for triple in triples.values())
    least, greatest = within
    if not least <= low <= high <= greatest:
        raise ValueError(
            f"a score from {low:g} to {high:g} lies outside {least:g} … {greatest:g}: say what it "
            "can be with within=(least, greatest)"
        )
    span = min(max(1.2 * (high - low), NARROWEST), greatest - least)
    start = min(max((low + high - span) / 2, least), greatest - span)
    return start, start + span


def _triple(name: str, value: float | Interval) -> Interval:
    """Bring one result to (mean, low, high)."""
    parts = tuple(np.ravel(np.asarray(value, dtype=float)).tolist())
    if len(parts) not in (1, 3):
        raise ValueError(f"{name!r} must be a number or (mean, low, high), got {value!r}")
    mean, low, high = parts * 3 if len(parts) == 1 else parts
    if not low <= mean <= high:
        raise ValueError(f"{name!r}: the interval [{low:g}, {high:g}] leaves out its mean {mean:g}")
    return mean, low, high
