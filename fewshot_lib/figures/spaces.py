"""Pictures of an embedding space in two dimensions: points, prototypes, decision regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from numpy.typing import ArrayLike, NDArray

from fewshot_lib.checker import language
from fewshot_lib.figures.style import (
    INK,
    MARKERS,
    PALETTE,
    PlotData,
    drawing,
    listing,
    number,
    numpy_of,
    percent,
)
from fewshot_lib.prototypes import Distance, log_posterior

_ = language.words("figures")

Points = ArrayLike | torch.Tensor
GRID = 96  # points a side at which the decision regions are computed


def embedding(
    points: Points,
    labels: Points,
    *,
    prototypes: Points | None = None,
    distance: Distance = "squared_euclidean",
    scale: float = 1.0,
    names: Sequence[str] | None = None,
    support: Points | None = None,
    support_labels: Points | None = None,
    moved_from: Points | None = None,
    limits: tuple[float, float, float, float] | None = None,
    axis_names: tuple[str, str] = ("embedding 1", "embedding 2"),
) -> tuple[Figure, PlotData]:
    """Draw embedded examples with prototypes and the decision regions that these make.

    A region has the colour of its most probable class, p(y = k | z) = softmax_k(α · s(z, c_k)), and
    is paler where that class is less probable, in bands of a tenth: a low scale makes it pale.

    Arguments:
        points: (N, 2) embedded examples; labels: (N,) integer classes 0 … K−1.
        prototypes: (K, 2); None: no regions.
        distance: s = −‖z−c‖² ("squared_euclidean"), −‖z−c‖ ("euclidean") or cos ("cosine").
        scale: α ≥ 0; a temperature is its inverse.
        names: K class names; by default the numbers.
        support: (S, 2) support examples, drawn large, and support_labels: (S,) their classes.
        moved_from: (S, 2) where the support examples were before they were moved.
        limits: (left, right, bottom, top) of the picture; by default what all points need.
        axis_names: what the axes show.

    Returns:
        figure, and data with a row per class; ``numbers`` holds the probabilities on the grid, the
        share of points that lie in their own class's region, and the regions' shares of the
        picture. Notebook 03.

    Raises:
        ValueError: shapes that do not match, labels without a name, support without labels.

    Source: Snell et al. 2017, equation 2.

    >>> figure, data = embedding([[0.0, 0.0], [1.0, 1.0]], [0, 1], prototypes=[[0, 0], [1, 1.0]])
    >>> data.finding
    "With squared Euclidean distance and α = 1, 100 % of the points lie in their class's region."
    """
    where = _pairs(points, "points")
    classes = numpy_of(labels, "labels", 1).astype(int)
    if len(classes) != len(where):
        raise ValueError(f"{len(classes)} labels for {len(where)} points")
    centres = None if prototypes is None else _pairs(prototypes, "prototypes")
    n_way = int(classes.max(initial=-1)) + 1 if centres is None else len(centres)
    names = [str(k) for k in range(n_way)] if names is None else list(names)
    if len(names) < n_way or (classes.size and not 0 <= classes.min() <= classes.max() < n_way):
        raise ValueError(
            f"labels {classes.min()} … {classes.max()} for {n_way} classes named {names}"
        )
    shown = None if support is None else _pairs(support, "support")
    owners = None if support_labels is None else numpy_of(support_labels, "support_labels", 1)
    if shown is not None and (owners is None or len(owners) != len(shown)):
        raise ValueError(f"{len(shown)} support points need as many support_labels")
    before = None if moved_from is None else _pairs(moved_from, "moved_from")
    if before is not None and (shown is None or before.shape != shown.shape):
        raise ValueError("moved_from must have the shape of support")
    everything = [a for a in (where, centres, shown, before) if a is not None and len(a)]
    left, right, bottom, top = limits or _limits(np.concatenate(everything))
    with drawing("single") as figure:
        axes = figure.subplots()
        grid = None
        if centres is not None:
            xs, ys = np.linspace(left, right, GRID), np.linspace(bottom, top, GRID)
            plane = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
            grid = _probabilities(plane, centres, distance, scale).reshape(GRID, GRID, n_way)
            draw_regions(axes, xs, ys, grid)
        for k in range(n_way):
            colour, marker = PALETTE[k % len(PALETTE)], MARKERS[k % len(MARKERS)]
            dots: dict[str, Any] = {"ls": "", "marker": marker, "color": colour}
            axes.plot(*where[classes == k].T, ms=4.5, mec="white", mew=0.4, **dots)
            if shown is not None and owners is not None:
                axes.plot(*shown[owners == k].T, ms=13, mec=INK, mew=1.2, zorder=4, **dots)
            if centres is not None:
                axes.plot(*centres[k], "*", ms=9, color="white", mec=INK, zorder=5)
        if before is not None and shown is not None:
            for start, end in zip(before, shown, strict=True):
                if not np.allclose(start, end):  # a ring where it was; the head ends at its marker
                    axes.plot(*start, "o", ms=9, mfc="none", mec=INK, mew=1.4, zorder=6)
                    axes.add_patch(FancyArrowPatch(
                        start, end, arrowstyle="-|>", mutation_scale=16, color=INK, lw=1.6,
                        shrinkA=5, shrinkB=9, zorder=6,
                    ))  # fmt: skip
        axes.locator_params(nbins=5)  # every tick costs a moving slider a millisecond
        axes.set(xlabel=axis_names[0], ylabel=axis_names[1], xlim=(left, right), ylim=(bottom, top))
        _legend(figure, names[:n_way], shown is not None, centres is not None)
    return figure, _data(where, classes, centres, grid, names, distance, scale, shown, before)


def _data(
    where: NDArray[Any],
    classes: NDArray[Any],
    centres: NDArray[Any] | None,
    grid: NDArray[Any] | None,
    names: Sequence[str],
    distance: Distance,
    scale: float,
    support: NDArray[Any] | None,
    before: NDArray[Any] | None,
) -> PlotData:
    """Say what the picture shows."""
    n_way = len(names) if centres is None else len(centres)
    counts = [int((classes == k).sum()) for k in range(n_way)]
    alt = _("Scatter of {where} embedded points in {n_way} classes").format(
        where=len(where), n_way=n_way
    )
    if support is not None:
        alt += _(", {support} support points").format(support=len(support))
        if before is not None:
            moved = int((~np.isclose(before, support).all(axis=1)).sum())
            alt += _(" ({moved} moved)").format(moved=moved)
    columns: tuple[str, ...] = (_("class"), _("points"))
    rows: tuple[tuple[object, ...], ...] = tuple(zip(names, counts, strict=False))
    finding = _("{where} points of {listing}.").format(
        where=len(where), listing=listing(list(names[:n_way]))
    )
    numbers: dict[str, Any] = {"points": where, "labels": classes}
    if centres is None or grid is None:
        return PlotData(
            _("embedding"),
            _("{alt}: {counts}.").format(alt=alt, counts=_listed(names, counts)),
            columns,
            rows,
            finding,
            numbers,
        )
    posterior = _probabilities(where, centres, distance, scale)
    right = posterior.argmax(axis=-1) == classes
    share = np.array([(grid.argmax(axis=-1) == k).mean() for k in range(n_way)])
    sure = float(grid.max(axis=-1).mean())
    accuracy = float(right.mean()) if len(right) else float("nan")
    measure = _("{distance} and α = {scale}").format(
        distance=_in_words(distance), scale=f"{scale:g}"
    )
    finding = _("With {measure}, {accuracy} of the points lie in their class's region.").format(
        measure=measure, accuracy=percent(accuracy)
    )
    placed = [
        _("{name} at ({x}, {y}) owns {s} of the plane shown").format(
            name=name, x=number(x), y=number(y), s=percent(s)
        )
        for name, (x, y), s in zip(names, centres, share, strict=False)
    ]
    return PlotData(
        what=_("embedding with decision regions"),
        alt=_(
            "{alt}, with prototypes and decision regions. {finding} Prototype of {placed}. Mean "
            "highest probability over the plane: {sure}."
        ).format(alt=alt, finding=finding, placed=_("; ").join(placed), sure=number(sure)),
        columns=(
            _("class"),
            _("points"),
            _("in own region"),
            _("prototype"),
            _("share of the plane"),
        ),
        rows=tuple(
            (
                names[k],
                counts[k],
                int(right[classes == k].sum()),
                f"({number(centres[k, 0])}, {number(centres[k, 1])})",
                percent(share[k]),
            )
            for k in range(n_way)
        ),
        finding=finding,
        numbers=numbers
        | {"probabilities": grid, "accuracy": accuracy, "share": share, "confidence": sure},
    )


def _in_words(distance: Distance) -> str:
    """Say what the regions are made with."""
    return {
        "squared_euclidean": _("squared Euclidean distance"),
        "euclidean": _("Euclidean distance (not squared)"),
        "cosine": _("cosine similarity"),
    }[distance]


def draw_regions(
    axes: Axes, xs: NDArray[Any], ys: NDArray[Any], grid: NDArray[Any], width: float = 0.9
) -> None:
    """Colour the plane by its most probable class, with a line where that changes."""
    frame = (xs[0], xs[-1], ys[0], ys[-1])
    axes.imshow(_tints(grid), extent=frame, origin="lower", aspect="auto", interpolation="bilinear")
    axes.add_collection(LineCollection(_borders(xs, ys, grid), colors=INK, linewidths=width))


def _tints(grid: NDArray[Any]) -> NDArray[Any]:
    """Colour the plane by its most probable class, paler where that is less sure: (G, G, 3)."""
    n_way = grid.shape[-1]
    colours = np.array([to_rgb(PALETTE[k % len(PALETTE)]) for k in range(n_way)])
    sure = (grid.max(axis=-1, keepdims=True) * 10).round() / 10
    strength = 0.08 + 0.42 * np.clip((sure - 1 / n_way) / max(1 - 1 / n_way, 1e-9), 0, 1)
    return 1 - strength * (1 - colours[grid.argmax(axis=-1)])


def _borders(xs: NDArray[Any], ys: NDArray[Any], grid: NDArray[Any]) -> list[NDArray[Any]]:
    """Trace where the most probable class changes: polylines (P, 2)."""
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log(grid), -700.0)  # (G, G, K)
    found: list[NDArray[Any]] = []
    for k in range(grid.shape[-1] if grid.shape[-1] > 1 else 0):
        lead = logs[..., k] - np.delete(logs, k, axis=-1).max(axis=-1)
        polylines: Any = contour_generator(xs, ys, lead).lines(0.0)
        found += polylines
    return found


def _probabilities(
    points: NDArray[Any], centres: NDArray[Any], distance: Distance, scale: float
) -> NDArray[Any]:
    """Return p(y = k | z) for points (N, 2): (N, K)."""
    queries = torch.from_numpy(np.ascontiguousarray(points, dtype=np.float64))
    prototypes = torch.from_numpy(np.ascontiguousarray(centres, dtype=np.float64))
    with one_thread():  # waking a second one takes longer than the sums, and a slider waits
        return log_posterior(queries, prototypes, distance, scale).exp().numpy()


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread meanwhile."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _limits(points: NDArray[Any]) -> tuple[float, float, float, float]:
    """Return a frame around all points with a margin of 8 %."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.08 * np.maximum(high - low, 1e-3)
    (left, bottom), (right, top) = low - margin, high + margin
    return float(left), float(right), float(bottom), float(top)


def _legend(figure: Figure, names: Sequence[str], with_support: bool, with_stars: bool) -> None:
    """Name the classes, and what a large point and a star mean."""
    from matplotlib.lines import Line2D

    def entry(label: str, marker: str, colour: str, size: float, edge: str) -> Line2D:
        return Line2D([], [], ls="", marker=marker, color=colour, label=label, ms=size,
                      markeredgecolor=edge)  # fmt: skip

    handles = [
        entry(name, MARKERS[k % len(MARKERS)], PALETTE[k % len(PALETTE)], 5, "white")
        for k, name in enumerate(names)
    ]
    if with_support:
        handles.append(entry("support (large)", "o", "#BBBBBB", 9, INK))
    if with_stars:
        handles.append(entry("prototype", "*", "white", 9, INK))
    figure.legend(handles=handles, loc="outside right upper")


def _pairs(values: Points, what: str) -> NDArray[Any]:
    """Bring points to (N, 2)."""
    array = numpy_of(values, what, 2).astype(float)
    if array.shape[1] != 2:
        raise ValueError(
            f"{what} must be (N, 2), got {array.shape}: project the embedding to two dimensions "
            "first, or train one of two"
        )
    return array


def _listed(names: Sequence[str], counts: Sequence[int]) -> str:
    return listing(
        [
            _("{count} of {name}").format(count=count, name=name)
            for name, count in zip(names, counts, strict=False)
        ]
    )
