"""How an evaluation was made, and what that does to it: plans of folds, ranks by scoring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import ArrayLike

from fewshot_lib.checker import language
from fewshot_lib.figures.style import (
    HATCHES,
    LINES,
    MARKERS,
    PALETTE,
    QUIET,
    PlotData,
    drawing,
    listing,
    number,
    numpy_of,
)

_ = language.words("figures")

#: What a scan is to a fold: word, letter, colour, hatch.
ROLES = (
    ("training", "", "#E8E8E8", HATCHES[0]),
    ("support", "S", PALETTE[4], HATCHES[1]),
    ("query", "Q", PALETTE[5], HATCHES[0]),
    ("support and query", "!", PALETTE[1], HATCHES[3]),
    ("not used", "", "white", HATCHES[0]),
)


def ranks(scores: Mapping[str, Mapping[str, float]], *, what: str = "") -> tuple[Figure, PlotData]:
    """Draw how methods are ordered by several scorings of the same predictions (a bump chart).

    Rank 1 is the highest score. Scores that print alike (two digits) keep the order that they had
    in the scoring before, so that lines cross only where a printed number changes sides.

    Arguments:
        scores: scoring → method → score, from left to right; every scoring knows every method.
        what: names the picture; by default "Ranks of <n> methods by <m> scorings".

    Returns:
        figure, and data with (methods, scorings) ``ranks`` and ``scores``. Notebook 07.

    Raises:
        ValueError: fewer than two scorings or methods, methods that differ, a score that is NaN.

    >>> figure, data = ranks({"EP1": {"a": 0.8, "b": 0.7}, "EP2": {"a": 0.5, "b": 0.6}})
    >>> data.finding
    'First by EP1: a; by EP2: b. 1 of 1 pairs of methods changes its order.'
    """
    scorings = list(scores)
    methods = list(scores[scorings[0]]) if scorings else []
    if len(scorings) < 2 or len(methods) < 2:
        raise ValueError(
            f"expected two or more scorings and methods, got {len(scorings)} and {len(methods)}"
        )
    for scoring, values in scores.items():
        if set(values) != set(methods):
            raise ValueError(f"{scoring!r} scores {listing(list(values))}, not {listing(methods)}")
    table = np.array([[float(scores[s][m]) for s in scorings] for m in methods])
    if np.isnan(table).any():
        raise ValueError("a score is NaN and has no rank: leave that method or scoring out")
    places = np.zeros(table.shape, dtype=int)  # (methods, scorings)
    order = np.arange(len(methods))
    for j in range(len(scorings)):
        order = order[(-table[order, j].round(2)).argsort(kind="stable")]
        places[order, j] = np.arange(1, len(methods) + 1)
    what = what or _("Ranks of {methods} methods by {scorings} scorings").format(
        methods=len(methods), scorings=len(scorings)
    )
    with drawing("broad") as figure:
        axes = figure.subplots()
        for i, method in enumerate(methods):
            colour = PALETTE[i % len(PALETTE)]
            axes.plot(
                range(len(scorings)), places[i], color=colour, ls=LINES[i % len(LINES)],
                marker=MARKERS[i % len(MARKERS)], ms=8, lw=2,
            )  # fmt: skip
            for j in range(len(scorings)):
                offset, where = _clear_of(places[i], j)
                axes.annotate(
                    number(table[i, j]), (j, places[i, j]), offset, textcoords="offset points",
                    fontsize=8, **where,
                )  # fmt: skip
            for j, side, shift in ((0, "right", -12), (-1, "left", 12)):
                axes.annotate(
                    method, (range(len(scorings))[j], places[i, j]), (shift, 0),
                    textcoords="offset points", ha=side, va="center", fontsize=8,
                    annotation_clip=False,
                )  # fmt: skip
        axes.set_xticks(range(len(scorings)), scorings)
        axes.set_yticks(range(1, len(methods) + 1))
        axes.set(ylabel="rank", xlim=(-0.15, len(scorings) - 0.85))
        axes.set_ylim(len(methods) + 0.4, 0.4)
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.yaxis.set_visible(False)
        axes.grid(axis="x")
    pairs = [(a, b) for a in range(len(methods)) for b in range(a)]
    changed = sum(len(set(np.sign(places[a] - places[b]).tolist())) > 1 for a, b in pairs)
    firsts = [methods[int(places[:, j].argmin())] for j in range(len(scorings))]
    named = _("; by ").join(f"{s}{_(': ')}{m}" for s, m in zip(scorings, firsts, strict=True))
    orders = [
        f"{scoring}{_(': ')}"
        + _(", ").join(f"{methods[i]} {number(table[i, j])}" for i in places[:, j].argsort())
        for j, scoring in enumerate(scorings)
    ]
    return figure, PlotData(
        what=what,
        alt=_("Bump chart: {what}, best first. {orders}.").format(
            what=what, orders=_("; ").join(orders)
        ),
        columns=(_("method"), *scorings),
        rows=tuple(
            (method, *(f"{places[i, j]}  ({number(table[i, j])})" for j in range(len(scorings))))
            for i, method in enumerate(methods)
        ),
        finding=(
            _("First by {named}. {changed} of {pairs} pairs of methods changes its order.")
            if changed == 1
            else _("First by {named}. {changed} of {pairs} pairs of methods change their order.")
        ).format(named=named, changed=changed, pairs=len(pairs)),
        numbers={"ranks": places, "scores": table},
    )


def _clear_of(places: Any, j: int) -> tuple[tuple[int, int], dict[str, Any]]:
    """Return where the j-th number of a line goes, so that the line does not run through it."""
    steps = [int(np.sign(places[n] - places[j])) for n in (j - 1, j + 1) if 0 <= n < len(places)]
    if -1 not in steps:
        return (0, 7), {"ha": "center", "va": "bottom"}
    if 1 not in steps:
        return (0, -7), {"ha": "center", "va": "top"}
    rises = steps[0] > 0  # from the left below to the right above: the room is left above
    return (-6 if rises else 6, 4), {"ha": "right" if rises else "left", "va": "bottom"}


def folds(plans: Mapping[str, ArrayLike], n_scans: int) -> tuple[Figure, PlotData]:
    """Draw cross-validations: a row per fold, a column per scan, and how often each is queried.

    Arguments:
        plans: name → (R, 3) whole numbers, rows (fold, support, query): scan ``query`` is segmented
            with scan ``support``. What a fold neither supports with nor queries, it trains on.
        n_scans: N; scans are numbered 0 … N − 1.

    Returns:
        figure, and data with the (N,) counts of queries by plan in ``numbers``. Notebook 07.

    Raises:
        ValueError: no plan, rows of another form, a scan that does not exist.

    >>> folds({"leave one out": [[0, 1, 0], [1, 0, 1]]}, 2)[1].finding
    'leave one out: 0 of 2 scans never queried, 0 more than once.'
    """
    if not plans:
        raise ValueError("no plan to draw: give a dictionary name → rows (fold, support, query)")
    tables, times = {}, {}
    for name, rows in plans.items():
        plan = numpy_of(rows, name, 2)
        tables[name] = _roles(name, plan, n_scans)
        times[name] = np.bincount(plan[:, 2], minlength=n_scans)
    seen = {role for table in tables.values() for role in np.unique(table)}
    with drawing("broad" if len(plans) > 1 else "strip") as figure:
        rows_of_axes = np.ravel(figure.subplots(len(plans), 1))
        for axes, (name, table) in zip(rows_of_axes, tables.items(), strict=True):
            _draw_plan(axes, name, table, times[name])
        rows_of_axes[-1].set_xlabel("scan; below it how many folds query it")
        handles = [
            Patch(fc=colour, hatch=hatch, ec=QUIET, label=f"{word}{f' ({letter})' * bool(letter)}")
            for role, (word, letter, colour, hatch) in enumerate(ROLES)
            if role in seen
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    told = [
        _("{name}: {sum} of {n_scans} scans never queried, {sum2} more than once").format(
            name=name, sum=(t == 0).sum(), n_scans=n_scans, sum2=(t > 1).sum()
        )
        for name, t in times.items()
    ]
    finding = _("; ").join(told) + _(".")
    own = [name for name, table in tables.items() if (table == 3).any()]
    if own:
        finding += _(" Folds query their own support in {own}.").format(own=listing(own))
    return figure, PlotData(
        what=_("Plans of {listing} for {n_scans} scans").format(
            listing=listing(list(plans)), n_scans=n_scans
        ),
        alt=_("Grids of folds by scans: {finding}").format(finding=finding),
        columns=(_("plan"), *(_("scan {scan}").format(scan=scan) for scan in range(n_scans))),
        rows=tuple((name, *t.tolist()) for name, t in times.items()),
        finding=finding,
        numbers=times,
    )


def _roles(name: str, rows: Any, n_scans: int) -> Any:
    """Say what each scan is to each fold: (F, N) indices into ``ROLES``."""
    if rows.shape[1] != 3 or not len(rows) or rows.dtype.kind not in "iu":
        raise ValueError(
            f"{name!r}: expected rows of three whole numbers (fold, support, query), got "
            f"{rows.shape} of {rows.dtype}"
        )
    if rows.min() < 0 or rows[:, 1:].max() >= n_scans:
        raise ValueError(f"{name!r}: scans are 0 … {n_scans - 1}, got up to {rows[:, 1:].max()}")
    table = np.zeros((int(rows[:, 0].max()) + 1, n_scans), dtype=int)
    table[rows[:, 0], rows[:, 2]] = 2
    for fold, support in {(int(f), int(s)) for f, s, _ in rows}:
        table[fold, support] = 3 if table[fold, support] == 2 else 1
    return table


def _draw_plan(axes: Any, name: str, table: Any, times: Any) -> None:
    n_folds, n_scans = table.shape
    for fold, scan in np.ndindex(table.shape):
        _, letter, colour, hatch = ROLES[table[fold, scan]]
        place = (scan - 0.46, fold - 0.44)
        axes.add_patch(Rectangle(place, 0.92, 0.88, fc=colour, ec=QUIET, hatch=hatch, lw=0.5))
        axes.text(scan, fold, letter, ha="center", va="center", fontsize=8, weight="bold")
    wrong = times != 1
    axes.set_xticks(range(n_scans), [f"{scan}\n{times[scan]}×" for scan in range(n_scans)])
    for label, bad in zip(axes.get_xticklabels(), wrong, strict=True):
        label.set(color=PALETTE[1] if bad else QUIET, weight="bold" if bad else "normal")
    axes.tick_params(length=0, labelbottom=True)
    axes.set_yticks(range(n_folds), [f"fold {fold}" for fold in range(n_folds)])
    axes.set(xlim=(-0.5, n_scans - 0.5), title=name)
    axes.set_ylim(n_folds - 0.5, -0.5)
    axes.spines[:].set_visible(False)
