"""Images laid out in a grid, with organs drawn over them.

All tiles of a picture share one axes whose unit is the inch: a dozen axes would take matplotlib
longer to make than a slider may wait, and tiles that are placed by hand do not move.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from contourpy import LineType, contour_generator
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, PathPatch, Rectangle
from matplotlib.path import Path
from numpy.typing import NDArray

from fewshot_lib.figures.style import HATCHES, INK, LINES, QUIET, SIZES, Size

#: Colours for outlines on grey images, brightest first; they stand out where PALETTE's blue sinks.
OVERLAY = ("#F0E442", "#56B4E9", "#D55E00", "#CC79A7", "#009E73", "#E69F00", "#0072B2")
#: Organs that keep their look whatever the order of a data set's names.
FIXED = ("liver", "spleen", "stomach", "kidney_left", "kidney_right", "aorta", "vertebrae")
SAME_AS = {"kidneys": "kidney_right", "left kidney": "kidney_left", "right kidney": "kidney_right"}
LINE, GAP, MARGIN = 0.19, 0.1, 0.08  # inches: a line of text, between tiles, at the border


class Look(NamedTuple):
    """How a class is drawn: colour, and hatch and line style as the second cue."""

    colour: str
    hatch: str
    line: Any


class Box(NamedTuple):
    """Where a tile lies: left, top, width and height in inches, top-down."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Tiles:
    """A figure's one axes and the boxes of its tiles.

    Outlines are added as artists, not as patches: their part in the axes' limits is not wanted and
    takes longer to work out than they take to draw.
    """

    axes: Axes
    boxes: tuple[Box, ...]

    def image(
        self, i: int, image: NDArray[Any], title: str = "", below: str = "", **how: Any
    ) -> AxesImage:
        """Draw ``image`` (H, W) into tile ``i`` with text above and below it."""
        box = self.boxes[i]
        drawn = self.axes.imshow(
            image, extent=(box.left, box.left + box.width, box.top + box.height, box.top), **how
        )
        middle = box.left + box.width / 2
        if title:
            self.axes.text(middle, box.top - 0.04, title, ha="center", va="bottom")
        if below:
            bottom = box.top + box.height + 0.05
            self.axes.text(middle, bottom, below, ha="center", va="top", fontsize=8)
        self.frame(i, QUIET, "-", 0.8)
        return drawn

    def frame(self, i: int, colour: str, line: Any, width: float) -> None:
        """Draw a frame around tile ``i``."""
        box = self.boxes[i]
        self.axes.add_artist(
            Rectangle(box[:2], box.width, box.height, fill=False, ec=colour, ls=line, lw=width)
        )

    def organs(
        self, i: int, labels: NDArray[Any], names: Sequence[str], looks: Mapping[str, Look]
    ) -> None:
        """Draw the organs of ``labels`` (H, W), tinted, hatched and outlined, over tile ``i``."""
        box = self.boxes[i]
        pixel = np.array([box.width / labels.shape[1], box.height / labels.shape[0]])
        corner = np.array([box.left, box.top])
        for label in np.unique(labels):
            if label:
                look = looks[names[label]]
                path = _outline(labels == label)
                path = Path((np.asarray(path.vertices) + 0.5) * pixel + corner, path.codes)
                self.axes.add_artist(PathPatch(path, fill=False, ec="black", lw=2.4, alpha=0.6))
                self.axes.add_artist(
                    PathPatch(path, fc=(*to_rgb(look.colour), 0.28), ec=look.colour, lw=1.2,
                              ls=look.line, hatch=look.hatch)
                )  # fmt: skip


def tiles(
    figure: Figure,
    count: int,
    *,
    columns: int | None = None,
    aspect: float = 1.0,
    above: int = 1,
    below: int = 0,
    legend: int = 0,
    right: float = 0.0,
) -> Tiles:
    """Lay out tiles as large as the figure allows.

    Arguments:
        figure: an empty figure.
        count: number of tiles; columns: tiles a row, by default all in one.
        aspect: height of a tile over its width.
        above, below: lines of text over and under each tile; legend: under all of them.
        right: inches kept free at the right (a legend, a colour bar).

    Returns:
        the tiles, empty.
    """
    figure.set_layout_engine("none")
    width, height = figure.get_size_inches()
    columns = min(columns or count, count)
    n_rows = math.ceil(count / columns)
    room = (width - right - 2 * MARGIN - GAP * (columns - 1)) / columns
    text = LINE * (above + below) + GAP
    tall = (height - LINE * legend - 0.12 * bool(legend) - MARGIN) / n_rows - text
    side = min(room, tall / aspect)
    if side <= 0.1:
        raise ValueError(f"{count} tiles in {columns} columns do not fit {width:g}×{height:g} in")
    left = max(MARGIN, (width - right - columns * side - GAP * (columns - 1)) / 2)
    boxes = tuple(
        Box(
            left + (i % columns) * (side + GAP),
            LINE * above + MARGIN / 2 + (i // columns) * (side * aspect + text),
            side,
            side * aspect,
        )
        for i in range(count)
    )
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_autoscale_on(False)
    return Tiles(axes, boxes)


def size_for(
    count: int,
    columns: int | None = None,
    *,
    aspect: float = 1.0,
    above: int = 1,
    below: int = 0,
    legend: int = 0,
    shrink: float = 0.88,
) -> Size:
    """Choose the lowest size in which tiles keep at least ``shrink`` of the width they could have.

    Arguments: as ``tiles``.

    >>> size_for(8, 4), size_for(4)
    ('broad', 'strip')
    """
    columns = min(columns or count, count)
    side = shrink * (SIZES["wide"][0] - 2 * MARGIN - GAP * (columns - 1)) / columns
    row = side * aspect + LINE * (above + below) + GAP
    needed = math.ceil(count / columns) * row + LINE * legend + 0.12 * bool(legend) + MARGIN
    sizes: tuple[Size, ...] = ("strip", "wide", "broad")
    return next((size for size in sizes if SIZES[size][1] >= needed), "tall")


def organ_looks(names: Sequence[str]) -> dict[str, Look]:
    """Give every class its look; no two classes of one picture share (colour, hatch).

    Arguments:
        names: the class names, ``names[0]`` the background.

    Returns:
        name → look, without the background.

    >>> organ_looks(["background", "spleen"])["spleen"].colour
    '#56B4E9'
    """
    taken: dict[str, int] = {}
    for name in names[1:]:
        known = SAME_AS.get(name, name)
        if known in FIXED and FIXED.index(known) not in taken.values():
            taken[name] = FIXED.index(known)
    free = (i for i in range(len(FIXED), len(OVERLAY) * len(HATCHES)))
    for name in names[1:]:
        if name not in taken:
            taken[name] = next(free)
    n = len(OVERLAY)  # and the number of hatches have no common divisor: all pairs differ
    return {
        name: Look(OVERLAY[i % n], HATCHES[i % len(HATCHES)], LINES[i % 4])
        for name, i in taken.items()
    }


def organ_legend(
    figure: Figure,
    labels: NDArray[Any],
    names: Sequence[str],
    looks: Mapping[str, Look],
    place: Literal["right", "below"],
) -> None:
    """Name the organs that are seen in ``labels``, beside the pictures or below them."""
    handles = [
        Patch(fc=(*to_rgb(looks[names[i]].colour), 0.6), ec=INK, hatch=looks[names[i]].hatch,
              ls=looks[names[i]].line, label=spoken(names[i]), lw=0.8)
        for i in np.unique(labels)
        if i
    ]  # fmt: skip
    if not handles:
        return
    how: dict[str, Any] = {"handles": handles, "handlelength": 2.2, "handleheight": 1.3}
    if place == "right":
        figure.legend(loc="center right", **how)
    else:
        figure.legend(loc="lower center", ncols=legend_columns(len(handles)), **how)


def legend_columns(count: int) -> int:
    """Return how many organs a legend below the pictures names in a row."""
    return min(count, 5)


def legend_lines(labels: NDArray[Any]) -> int:
    """Return how many lines the legend below the pictures takes."""
    return math.ceil(int((np.unique(labels) > 0).sum()) / 5)


def percentiles(image: NDArray[Any]) -> tuple[float, float]:
    """Return the intensities to draw black and white: 1st and 99th percentile."""
    low, high = np.percentile(image, (1, 99))
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)


def spoken(name: str) -> str:
    """Write a label's name as words.

    >>> spoken("kidney_left")
    'kidney left'
    """
    return name.replace("_", " ")


def _outline(mask: NDArray[Any]) -> Path:
    """Trace a mask (H, W): one path in pixel units, closed at the border too."""
    padded = np.pad(mask.astype(float), 1)
    rows, columns = (np.arange(-1, n + 1) for n in mask.shape)
    tracer = contour_generator(columns, rows, padded, line_type=LineType.SeparateCode)
    points: Any = tracer.lines(0.5)
    return Path(np.concatenate(points[0]), np.concatenate(points[1]))
