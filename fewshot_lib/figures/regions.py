"""Two classifiers of the plane side by side, and where their probabilities differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from fewshot_lib.figures.spaces import GRID, borders, one_thread, tints
from fewshot_lib.figures.style import INK, PlotData, drawing, number, numpy_of, percent


class Reading(NamedTuple):
    """One classifier of the plane.

    Arguments:
        name: above its panel.
        log_posterior: (P, 2) float64 points → (P, K) log p(y = k | z).
        centres: (K, 2) drawn as stars; None: no stars.
    """

    name: str
    log_posterior: Callable[[torch.Tensor], torch.Tensor]
    centres: ArrayLike | torch.Tensor | None = None


def compare_regions(
    truth: Reading,
    model: Reading,
    names: Sequence[str],
    limits: tuple[float, float, float, float],
    axis_names: tuple[str, str] = ("embedding 1", "embedding 2"),
) -> tuple[Figure, PlotData]:
    """Draw the decision regions of two classifiers, and the largest difference of probabilities.

    max_k |p_truth(y = k | z) − p_model(y = k | z)| over the plane; regions as in ``embedding``.

    Arguments:
        truth, model: the two classifiers, left and middle panel.
        names: K class names.
        limits: (left, right, bottom, top) of the plane.
        axis_names: what the axes show.

    Returns:
        figure, and data with a row per class; ``numbers`` holds the difference on the grid, its
        maximum, and the share of the plane that the two decide otherwise. Notebook 04.

    Raises:
        ValueError: posteriors that are not (P, K) for K names, or limits that run backwards.

    >>> half = Reading("half", lambda z: torch.full((len(z), 2), 0.5).log())
    >>> compare_regions(half, half, ["a", "b"], (0, 1, 0, 1))[1].finding
    'half and half agree: no probability differs by more than 1e-06.'
    """
    left, right, bottom, top = limits
    if not (left < right and bottom < top):
        raise ValueError(f"limits must be (left, right, bottom, top), increasing, got {limits}")
    xs, ys = np.linspace(left, right, GRID), np.linspace(bottom, top, GRID)
    plane = torch.from_numpy(np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2))
    grids = [_on_plane(reading, plane, len(names)) for reading in (truth, model)]
    gap = np.abs(grids[0] - grids[1]).max(axis=-1)  # (G, G)
    with drawing("wide") as figure:
        panels = figure.subplots(1, 3, sharey=True)
        for axes, reading, grid in zip(panels, (truth, model), grids, strict=False):
            axes.imshow(
                tints(grid), extent=limits, origin="lower", aspect="auto", interpolation="bilinear"
            )
            axes.add_collection(LineCollection(borders(xs, ys, grid), colors=INK, linewidths=0.9))
            _stars(axes, reading, names)
            axes.set_title(reading.name)
        picture = panels[2].imshow(
            gap, extent=limits, origin="lower", aspect="auto", cmap="cividis", vmin=0, vmax=1
        )
        panels[2].set_title(f"largest |Δp|: {number(gap.max())}")
        bar = figure.colorbar(picture, ax=panels[2], label="|Δp|")
        bar.ax.locator_params(nbins=5)
        for axes in panels:
            axes.locator_params(nbins=4)
            axes.set(xlabel=axis_names[0], xlim=limits[:2], ylim=limits[2:])
        panels[0].set_ylabel(axis_names[1])
    return figure, _data(truth, model, names, grids, gap, (xs, ys))


def _on_plane(reading: Reading, plane: torch.Tensor, n_way: int) -> NDArray[Any]:
    """Return p(y = k | z) on the grid: (G, G, K)."""
    with one_thread():
        found = reading.log_posterior(plane)
    if tuple(found.shape) != (len(plane), n_way):
        raise ValueError(
            f"{reading.name} must give (P, K) = ({len(plane)}, {n_way}) log-probabilities for "
            f"{n_way} names, got {tuple(found.shape)}"
        )
    return found.exp().numpy().reshape(GRID, GRID, n_way)


def _stars(axes: Any, reading: Reading, names: Sequence[str]) -> None:
    """Mark and name the centres."""
    if reading.centres is None:
        return
    for name, centre in zip(names, numpy_of(reading.centres, "centres", 2), strict=True):
        axes.plot(*centre, "*", ms=9, color="white", mec=INK, zorder=5)
        axes.annotate(
            name, centre, (6, 5), textcoords="offset points", fontsize=8, zorder=6,
            bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.8}, annotation_clip=True,
        )  # fmt: skip


def _data(
    truth: Reading,
    model: Reading,
    names: Sequence[str],
    grids: list[NDArray[Any]],
    gap: NDArray[Any],
    axes: tuple[NDArray[Any], NDArray[Any]],
) -> PlotData:
    """Say what the picture shows."""
    decided = [grid.argmax(axis=-1) for grid in grids]
    otherwise = float((decided[0] != decided[1]).mean())
    most = float(gap.max())
    y, x = np.unravel_index(gap.argmax(), gap.shape)
    finding = f"{truth.name} and {model.name} agree: no probability differs by more than 1e-06."
    if most > 1e-6:
        finding = (
            f"A probability differs by up to {number(most)}, and {percent(otherwise)} of the plane "
            "is decided otherwise."
        )
    shares = [[float((one == k).mean()) for one in decided] for k in range(len(names))]
    owned = "; ".join(
        f"{name} owns {percent(a)} and {percent(b)}"
        for name, (a, b) in zip(names, shares, strict=True)
    )
    place = f" The largest difference is at ({number(axes[0][x])}, {number(axes[1][y])})."
    return PlotData(
        what=f"decision regions: {truth.name} and {model.name}",
        alt=f"Decision regions of {truth.name} and of {model.name} side by side, and a map of the "
        f"largest difference of their probabilities. {finding} Of the plane {owned}."
        + (place if most > 1e-6 else ""),
        columns=("class", f"share, {truth.name}", f"share, {model.name}"),
        rows=tuple(
            (name, percent(a), percent(b)) for name, (a, b) in zip(names, shares, strict=True)
        ),
        finding=finding,
        numbers={"difference": gap, "largest": most, "otherwise": otherwise},
    )
