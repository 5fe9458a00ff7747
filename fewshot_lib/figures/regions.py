"""Models of the plane side by side: where two differ, and what several densities share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from fewshot_lib.checker import language
from fewshot_lib.figures.spaces import GRID, draw_regions, one_thread
from fewshot_lib.figures.style import (
    MARKERS,
    PALETTE,
    PlotData,
    drawing,
    listing,
    number,
    numpy_of,
    percent,
)

_ = language.words("figures")

SAME = 1e-6  # probabilities that differ by less are called the same


class Reading(NamedTuple):
    """One classifier of the plane.

    Arguments:
        name: above its panel.
        log_posterior: (P, 2) float64 points → (P, K) log p(y = k | z).
        centres: (K, 2) drawn as marks; None: none.
    """

    name: str
    log_posterior: Callable[[torch.Tensor], torch.Tensor]
    centres: ArrayLike | torch.Tensor | None = None


class Mixture(NamedTuple):
    """One mixture of classes over the plane.

    Arguments:
        name: above its panel.
        log_joint: (P, 2) float64 points → (P, K) log π_k + log p(z | y = k).
        centres: (K, 2) drawn as marks.
        priors: (K,) written above the panel.
    """

    name: str
    log_joint: Callable[[torch.Tensor], torch.Tensor]
    centres: ArrayLike | torch.Tensor
    priors: ArrayLike | torch.Tensor


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
    xs, ys, plane = _plane(limits)
    grids = [_on_plane(one.name, one.log_posterior, plane, len(names)) for one in (truth, model)]
    gap = np.abs(grids[0] - grids[1]).max(axis=-1)  # (G, G)
    with drawing("wide") as figure:
        panels = figure.subplots(1, 3, sharey=True)
        for axes, reading, grid in zip(panels, (truth, model), grids, strict=False):
            draw_regions(axes, xs, ys, grid)
            _centres(axes, reading.centres)
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
        _legend(figure, names, "prototype")
    return figure, _data(truth, model, names, grids, gap, (xs, ys))


def mixtures(
    models: Sequence[Mixture],
    names: Sequence[str],
    limits: tuple[float, float, float, float],
    axis_names: tuple[str, str] = ("embedding 1", "embedding 2"),
) -> tuple[Figure, PlotData]:
    """Draw the densities of three mixtures, and the posterior of the first beside them.

    p(z) = Σ_k π_k p(z | y = k) with lines at a tenth, a half and nine tenths of its maximum;
    p(y = k | z) = π_k p(z | y = k) / p(z) in regions as in ``embedding``.

    Arguments:
        models: three mixtures.
        names: K class names.
        limits: (left, right, bottom, top) of the plane.
        axis_names: what the axes show.

    Returns:
        figure, and data with a row per mixture; ``numbers`` holds ``probability``, the largest
        difference of a probability from the first mixture's, and ``moved``, for each mixture the
        share of its mass on this plane that lies elsewhere than the first's. Notebook 04.

    Raises:
        ValueError: not three mixtures, log densities that are not (P, K) for K names, or limits
            that run backwards.

    >>> flat = Mixture("flat", lambda z: torch.zeros(len(z), 2), [[0, 0], [1, 1]], [0.5, 0.5])
    >>> mixtures([flat] * 3, ["a", "b"], (0, 1, 0, 1))[1].numbers["probability"]
    0.0
    """
    if len(models) != 3:
        raise ValueError(f"there is room for three mixtures, got {len(models)}")
    xs, ys, plane = _plane(limits)
    joint = [_on_plane(one.name, one.log_joint, plane, len(names)) for one in models]
    density = [grid.sum(axis=-1) for grid in joint]  # (G, G)
    posterior = [grid / grid.sum(axis=-1, keepdims=True) for grid in joint]  # (G, G, K)
    with drawing("tall") as figure:
        panels = figure.subplots(2, 2, sharex=True, sharey=True)
        for axes, model, height in zip(panels.flat, models, density, strict=False):
            axes.imshow(
                height, extent=limits, origin="lower", aspect="auto", cmap="cividis", vmin=0,
                interpolation="bilinear",
            )  # fmt: skip
            levels = height.max() * np.array([0.1, 0.5, 0.9])
            if height.min() < height.max():
                axes.contour(xs, ys, height, levels, colors="white", linewidths=(0.6, 0.9, 1.2))
            shares = numpy_of(model.priors, "priors", 1)
            told = [f"{name} {percent(p)}" for name, p in zip(names, shares, strict=True)]
            _centres(axes, model.centres)
            axes.set_title(f"density, {model.name}\n{', '.join(told)}")
        axes = panels[1, 1]
        draw_regions(axes, xs, ys, posterior[0], width=1)
        _centres(axes, models[0].centres)
        data = _mixture_data(models, names, density, posterior)
        same = data.numbers["probability"] < SAME
        axes.set_title("posterior of all three" if same else f"posterior, {models[0].name}")
        for axes in panels.flat:
            axes.locator_params(nbins=5)
            axes.set(xlim=limits[:2], ylim=limits[2:], aspect="equal")  # isotropic looks round
        for axes in panels[1]:
            axes.set_xlabel(axis_names[0])
        for axes in panels[:, 0]:
            axes.set_ylabel(axis_names[1])
        _legend(figure, names, "centre")
    return figure, data


def _mixture_data(
    models: Sequence[Mixture],
    names: Sequence[str],
    density: list[NDArray[Any]],
    posterior: list[NDArray[Any]],
) -> PlotData:
    """Say how far the densities of some mixtures are apart, and how far their posteriors are."""
    mass = [grid / grid.sum() for grid in density]
    moved = [float(np.abs(grid - mass[0]).sum() / 2) for grid in mass]
    apart = max(float(np.abs(grid - posterior[0]).max()) for grid in posterior)
    finding = _(
        "The densities differ: {both} of the second's and the third's mass lie elsewhere "
        "than the first's. "
    ).format(both=listing([*map(percent, moved[1:])])) + (
        _("The posterior is the same: no probability differs by more than 1e-06.")
        if apart < SAME
        else _("The posteriors differ, too: a probability by up to {apart}.").format(
            apart=number(apart)
        )
    )
    rows, told = [], []
    for model, share in zip(models, moved, strict=True):
        centres = numpy_of(model.centres, "centres", 2)
        shares = numpy_of(model.priors, "priors", 1)
        where = [
            _("{name} at ({x}, {y}) with prior {prior}").format(
                name=name, x=number(x), y=number(y), prior=percent(prior)
            )
            for name, (x, y), prior in zip(names, centres, shares, strict=True)
        ]
        told.append(_("{name}: {where}.").format(name=model.name, where=listing(where)))
        rows.append((model.name, *map(percent, shares), percent(share)))
    return PlotData(
        what=_("three mixtures of {names}").format(names=listing(names)),
        alt=_(
            "Density maps of three mixtures, and the decision regions of the first. {finding} "
            "{told}"
        ).format(finding=finding, told=" ".join(told)),
        columns=(
            _("mixture"),
            *(_("prior, {name}").format(name=name) for name in names),
            _("mass elsewhere"),
        ),
        rows=tuple(rows),
        finding=finding,
        numbers={"probability": apart, "moved": moved},
    )


def _plane(
    limits: tuple[float, float, float, float],
) -> tuple[NDArray[Any], NDArray[Any], torch.Tensor]:
    """Return the grid's lines (G,), (G,) and points (G·G, 2); refuse limits that run backwards."""
    left, right, bottom, top = limits
    if not (left < right and bottom < top):
        raise ValueError(f"limits must be (left, right, bottom, top), increasing, got {limits}")
    xs, ys = np.linspace(left, right, GRID), np.linspace(bottom, top, GRID)
    return xs, ys, torch.from_numpy(np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2))


def _on_plane(
    name: str, log: Callable[[torch.Tensor], torch.Tensor], plane: torch.Tensor, n_way: int
) -> NDArray[Any]:
    """Return the exponential of what a model says of each class, on the grid: (G, G, K)."""
    with one_thread():
        found = log(plane)
    if tuple(found.shape) != (len(plane), n_way):
        raise ValueError(
            f"{name} must give (P, K) = ({len(plane)}, {n_way}) log-probabilities for "
            f"{n_way} names, got {tuple(found.shape)}"
        )
    return found.exp().numpy().reshape(GRID, GRID, n_way)


def _centres(axes: Any, centres: ArrayLike | torch.Tensor | None) -> None:
    """Mark the centres by class: a label at each would cover what is drawn there."""
    if centres is not None:
        for k, centre in enumerate(numpy_of(centres, "centres", 2)):
            axes.plot(*centre, **_mark(k))


def _mark(k: int) -> dict[str, Any]:
    """Return the look of class ``k``, which is that of its points in ``embedding``."""
    colour, marker = PALETTE[k % len(PALETTE)], MARKERS[k % len(MARKERS)]
    return {"ls": "", "marker": marker, "color": colour, "ms": 8, "mec": "white", "mew": 1.2}


def _legend(figure: Figure, names: Sequence[str], what: str) -> None:
    """Name the classes' marks above the panels."""
    handles = [Line2D([], [], label=f"{what}, {name}", **_mark(k)) for k, name in enumerate(names)]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


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
    finding = _("{name} and {name2} agree: no probability differs by more than 1e-06.").format(
        name=truth.name, name2=model.name
    )
    if most > SAME:
        finding = _(
            "A probability differs by up to {most}, and {otherwise} of the plane is decided "
            "otherwise."
        ).format(most=number(most), otherwise=percent(otherwise))
    shares = [[float((one == k).mean()) for one in decided] for k in range(len(names))]
    owned = _("; ").join(
        _("{name} owns {a} and {b}").format(name=name, a=percent(a), b=percent(b))
        for name, (a, b) in zip(names, shares, strict=True)
    )
    place = _(" The largest difference is at ({number}, {number2}).").format(
        number=number(axes[0][x]), number2=number(axes[1][y])
    )
    return PlotData(
        what=_("decision regions: {name} and {name2}").format(name=truth.name, name2=model.name),
        alt=_(
            "Decision regions of {name} and of {name2} side by side, and a map of the largest "
            "difference of their probabilities. {finding} Of the plane {owned}."
        ).format(name=truth.name, name2=model.name, finding=finding, owned=owned)
        + (place if most > SAME else ""),
        columns=(
            _("class"),
            _("share, {name}").format(name=truth.name),
            _("share, {name}").format(name=model.name),
        ),
        rows=tuple(
            (name, percent(a), percent(b)) for name, (a, b) in zip(names, shares, strict=True)
        ),
        finding=finding,
        numbers={"difference": gap, "largest": most, "otherwise": otherwise},
    )
