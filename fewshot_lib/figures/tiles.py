"""Images laid out in a grid, with organs drawn over them.

All tiles of a picture share one axes whose unit is the inch: a dozen axes would take matplotlib
longer to make than a slider may wait, and tiles that are placed by hand do not move.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
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

from fewshot_lib.checker import language
from fewshot_lib.figures.style import INK, LINES, QUIET, SIZES, Size, drawing, inch_axes

_ = language.words("figures")

#: Colours for outlines on grey images, brightest first; they stand out where PALETTE's blue sinks.
OVERLAY = ("#F0E442", "#56B4E9", "#D55E00", "#CC79A7", "#009E73", "#E69F00", "#0072B2")
#: Their second cue; as many as have no divisor in common with the colours: all pairs differ.
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "---", "ooo", "|||")
#: Organs that keep their look whatever the order of a data set's names.
FIXED = ("liver", "spleen", "stomach", "kidney_left", "kidney_right", "aorta", "vertebrae")
SAME_AS = {"kidneys": "kidney_right", "left kidney": "kidney_left", "right kidney": "kidney_right"}
LINE, GAP, MARGIN = 0.19, 0.03, 0.02  # inches: a line of text, between tiles, at the border
IN_A_ROW = 4  # organs that a legend below the pictures names
LEAST = 2.5  # inches: 240 px, the least width of a picture of anatomy


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


@dataclass(frozen=True)
class Layout:
    """Where the tiles of a picture lie, and the size of the figure that holds just them.

    Arguments:
        size, height: for ``drawing``.
        boxes: of the tiles.
    """

    size: Size
    height: float
    boxes: tuple[Box, ...]


def layout(
    count: int,
    columns: int,
    *,
    aspect: float = 1.0,
    above: int = 1,
    below: int = 0,
    below_from: int = 0,
    legend: int = 0,
    right: float = 0.0,
    gap: float = GAP,
    least: float = LEAST,
) -> Layout:
    """Lay out tiles: the narrowest figure in which they are wide enough, as high as its rows.

    Arguments:
        count: number of tiles; columns: tiles per row at most, fewer where they would be narrow.
        aspect: height of a tile over its width.
        above, below: lines of text over and under each tile; legend: under all of them.
        below_from: the first tile with text under it; a row without any keeps no room for it.
        right: inches kept free at the right (a legend, a colour bar).
        gap: inches between tiles.
        least: inches, what a tile's width should be; for ``LEAST`` there are fewer columns.

    >>> layout(8, 4, least=LEAST).size, round(96 * layout(8, 4, least=LEAST).boxes[0].width)
    ('wide', 240)
    """
    if count < 1 or columns < 1:
        raise ValueError(f"need a tile and a column at least, got {count} and {columns}")

    def wide(size: Size, columns: int) -> float:
        return (SIZES[size][0] - right - 2 * MARGIN - gap * (columns - 1)) / columns

    columns = min(count, columns)
    if least == LEAST:
        while columns > 1 and wide("wide", columns) < least:
            columns -= 1
        if columns > 2 and math.ceil(count / columns) == math.ceil(count / (columns - 1)):
            columns -= 1  # as many rows: four tiles make a square
    least = min(least, wide("wide", columns))
    narrow: tuple[Size, ...] = ("small", "single", "wide")
    size = next(size for size in narrow if wide(size, columns) >= least)
    side = wide(size, columns)
    boxes, top = [], MARGIN / 2 + LINE * above
    for first in range(0, count, columns):
        row = range(first, min(first + columns, count))
        boxes += [Box(MARGIN + (i - first) * (side + gap), top, side, side * aspect) for i in row]
        top += side * aspect + LINE * (above + below * (row[-1] >= below_from)) + gap
    bottom = top - LINE * above + MARGIN / 2
    return Layout(size, bottom + LINE * legend * 1.25 + 0.12 * bool(legend), tuple(boxes))


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


def organ_tiles(
    placed: Layout,
    images: Sequence[NDArray[Any]],
    labels: Sequence[NDArray[Any]],
    titles: Sequence[str],
    names: Sequence[str],
    window: tuple[float, float] | None,
    below: Mapping[str, str] = MappingProxyType({}),
    legend: Literal["lower center", "center right"] = "lower center",
) -> Figure:
    """Draw images (H, W) with their organs over them, and a legend of the organs that are seen.

    A tile has a title above and, where ``below`` has that title, words below.
    """
    low, high = window or black_and_white(np.stack(images))
    looks = organ_looks(names)
    with drawing(placed.size, placed.height) as figure:
        grid = Tiles(inch_axes(figure), placed.boxes)
        for i, title in enumerate(titles):
            words = below.get(title, "")
            grid.image(i, images[i], title, words, cmap="gray", vmin=low, vmax=high)
            grid.organs(i, labels[i], names, looks)
        handles = [
            Patch(fc=(*to_rgb(looks[names[i]].colour), 0.6), ec=INK, hatch=looks[names[i]].hatch,
                  ls=looks[names[i]].line, label=spoken(names[i]), lw=0.8)
            for i in np.unique(np.stack(labels))
            if i
        ]  # fmt: skip
        if handles:
            columns = min(len(handles), IN_A_ROW) if legend == "lower center" else 1
            figure.legend(
                handles=handles, handlelength=2.2, handleheight=1.3, loc=legend, ncols=columns
            )
    return figure


def legend_lines(labels: NDArray[Any]) -> int:
    """Return how many lines the legend below the pictures takes."""
    return math.ceil(int((np.unique(labels) > 0).sum()) / IN_A_ROW)


def black_and_white(image: NDArray[Any]) -> tuple[float, float]:
    """Return the intensities to draw black and white.

    Arguments:
        image: Hounsfield units of a CT scan (air lies below −500), or any other intensities.

    Returns:
        the soft-tissue window of −160 to 240 HU for a CT scan; else the 1st and 99th percentile.

    >>> black_and_white(np.array([-1000.0, 50.0]))
    (-160.0, 240.0)
    """
    if image.size and image.min() < -500:
        return -160.0, 240.0
    low, high = np.percentile(image, (1, 99))
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)


def folded(titles: Sequence[str], count: int, columns: int) -> tuple[list[str], int]:
    """Fold titles to the width of their tiles; return them and the most lines of one.

    >>> folded(["short", "a title that is longer than a tile of 240 px is wide"], 2, 2)[1]
    2
    """
    letters = round(layout(count, columns).boxes[0].width * 72 / 5.2)  # of 9 points
    parts = [textwrap.wrap(title, letters) or [""] for title in titles]
    return ["\n".join(lines) for lines in parts], max(map(len, parts))


def spoken(name: str) -> str:
    """Write a label's name as words.

    >>> spoken("kidney_left")
    'kidney left'
    """
    return name.replace("_", " ")


def told_of(name: str) -> str:
    """Write a label's name in the reader's language; a legend in a picture keeps its own.

    >>> told_of("kidney_left")
    'kidney left'
    """
    said = spoken(name)
    known = {
        "background": _("background"),
        "organ": _("organ"),
        "liver": _("liver"),
        "spleen": _("spleen"),
        "stomach": _("stomach"),
        "kidney left": _("kidney left"),
        "kidney right": _("kidney right"),
        "left kidney": _("left kidney"),
        "right kidney": _("right kidney"),
        "kidneys": _("kidneys"),
        "kidney": _("kidney"),
        "aorta": _("aorta"),
        "vertebrae": _("vertebrae"),
        "pancreas": _("pancreas"),
        "gallbladder": _("gallbladder"),
        "lesion": _("lesion"),
    }
    return known.get(said, said)


def _outline(mask: NDArray[Any]) -> Path:
    """Trace a mask (H, W): one path in pixel units, closed at the border too."""
    padded = np.pad(mask.astype(float), 1)
    rows, columns = (np.arange(-1, n + 1) for n in mask.shape)
    tracer = contour_generator(columns, rows, padded, line_type=LineType.SeparateCode)
    points: Any = tracer.lines(0.5)
    return Path(np.concatenate(points[0]), np.concatenate(points[1]))
