"""One look for every picture: sizes, palette with a second cue, SVG or PNG, and their words.

Nothing here changes matplotlib for others: the style applies inside ``drawing``, ``svg`` and
``png`` only, and figures are made without pyplot, so none has to be closed and no window opens.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from fewshot_lib.checker import language
from fewshot_lib.checker.typography import typeset
from fewshot_lib.figures import strokes

_ = language.words("figures")

#: Okabe and Ito's palette (2008), readable with any common colour vision, in our order.
PALETTE = (
    "#0072B2",  # blue
    "#D55E00",  # vermilion
    "#009E73",  # bluish green
    "#CC79A7",  # reddish purple
    "#E69F00",  # orange
    "#56B4E9",  # sky blue
    "#F0E442",  # yellow
)
INK = "#222222"
QUIET = "#767676"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
HATCHES = ("", "///", "xxx", "---", "\\\\\\", "|||", "...", "ooo")  # dots fill an SVG: last

Size = Literal["small", "single", "strip", "wide", "broad", "tall"]
#: The closed vocabulary of sizes, in inches: (width, height). The widest fits a column of text, so
#: that no browser shrinks a picture and its type: 9 points are 12 px on every page.
SIZES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "small": (3.6, 2.8),
        "single": (5.2, 3.4),
        "strip": (7.6, 2.3),
        "wide": (7.6, 3.4),
        "broad": (7.6, 4.3),
        "tall": (7.6, 5.4),
    }
)
DPI = 96
SHARP = 2  # device pixels per CSS pixel of a PNG
WELCOME = 50_000  # bytes: an SVG of this size is kept even where a PNG were smaller
MOST_POINTS = 4000  # vertices and marks of an SVG; a picture with more is a PNG

STYLE: Mapping[str, Any] = MappingProxyType(
    {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.labelsize": 9,
        "legend.fontsize": 8,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": QUIET,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": False,
        "grid.color": "#DDDDDD",
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.6,
        "lines.markersize": 5,
        "hatch.linewidth": 0.7,
        "legend.frameon": False,
        "image.interpolation": "nearest",
        "image.cmap": "gray",
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "text.usetex": False,
        "svg.fonttype": "path",  # a reader's machine may lack the font: widths would change
        "svg.hashsalt": "fewshot",
    }
)


@dataclass(frozen=True)
class PlotData:
    """What a picture shows, without the picture.

    Arguments:
        what: names the picture without its numbers ("Dice against pooling grid").
        alt: what is to be seen, with its numbers, for a reader who cannot see it.
        columns: headings of ``rows``.
        rows: the plotted numbers as a table; each row as long as ``columns``.
        finding: the picture's finding in one sentence, the caption unless the notebook has its own.
        numbers: the plotted arrays by name, as drawn.
        predicted: what the reader predicted, in a sentence: shown with the picture, and left out of
            the text that nbval compares.
    """

    what: str
    alt: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[object, ...], ...] = ()
    finding: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    predicted: str = ""

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ValueError("a picture needs an alt text: say what is to be seen, with numbers")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"a row has {len(row)} entries for the {len(self.columns)} columns "
                    f"{self.columns}: {row}"
                )
        for name in ("what", "alt", "finding", "predicted"):
            object.__setattr__(self, name, typeset(getattr(self, name)))
        object.__setattr__(self, "numbers", MappingProxyType(dict(self.numbers)))


@contextmanager
def drawing(size: Size, height: float | None = None) -> Iterator[Figure]:
    """Give an empty figure of a named size, and the style while it is drawn.

    Arguments:
        size: a key of ``SIZES``.
        height: in inches, for a grid of images, which is as high as its rows; None: the size's own.

    Returns:
        a context manager with a ``matplotlib.figure.Figure`` that pyplot does not know.

    Raises:
        ValueError: a size that is not in the vocabulary.

    >>> with drawing("small") as figure:
    ...     axes = figure.subplots()
    """
    if size not in SIZES:
        raise ValueError(f"no figure size {size!r}; there are {', '.join(SIZES)}")
    width, usual = SIZES[size]
    with mpl.rc_context(dict[Any, Any](STYLE)):
        yield Figure(figsize=(width, height or usual), dpi=DPI, layout="constrained")


@dataclass(frozen=True)
class Picture:
    """A drawn figure, ready to be saved.

    Arguments:
        content: the file to be seen.
        kind: "image/svg+xml" or "image/png".
        png: the same picture for what reads no SVG.
        width, height: on the page, in CSS pixels.
    """

    content: bytes
    kind: str
    png: bytes
    width: int
    height: int


def picture(figure: Figure, *, quick: bool = False) -> Picture:
    """Draw a figure in the form that suits it: lines as SVG, images as a PNG for sharp screens.

    A PNG is ``SHARP`` times as wide as it is shown. It is chosen for a figure that holds an image
    or a mesh, or more than ``MOST_POINTS`` points, and where an SVG over
    ``WELCOME`` bytes would be the larger file.

    Arguments:
        figure: any matplotlib figure.
        quick: for a picture that is shown and thrown away: always a ``quick`` PNG.

    Returns:
        the picture; the same figure gives the same bytes.

    >>> with drawing("small") as figure:
    ...     axes = figure.subplots()
    >>> picture(figure).kind, picture(figure).width
    ('image/svg+xml', 346)
    """
    width, height = (round(inches * DPI) for inches in figure.get_size_inches())
    dots = png(figure, quick=quick)
    if not quick and not _is_of_images(figure):
        lines = svg(figure)
        if len(lines) <= max(len(dots), WELCOME):
            return Picture(lines, "image/svg+xml", dots, width, height)
    return Picture(dots, "image/png", dots, width, height)


def _is_of_images(figure: Figure) -> bool:
    """Say whether a figure holds an image, a mesh or too many points to be kept as strokes."""
    from matplotlib.collections import PathCollection, QuadMesh
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D

    def held(artist: Any) -> bool:
        return isinstance(artist, AxesImage | QuadMesh)

    if figure.findobj(held):
        return True
    marks = sum(len(one.get_offsets()) for one in figure.findobj(PathCollection))  # type: ignore
    lines = sum(len(one.get_xdata()) for one in figure.findobj(Line2D))  # type: ignore
    return bool(marks + lines > MOST_POINTS)


def svg(figure: Figure) -> bytes:
    """Draw a figure as an SVG: letters as paths, coordinates to a hundredth of a point.

    Arguments:
        figure: any matplotlib figure.

    Returns:
        the file's bytes, free of dates and versions: the same figure gives the same bytes.

    >>> with drawing("small") as figure:
    ...     svg(figure)[:4]
    b'<svg'
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    file = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with mpl.rc_context(dict[Any, Any](STYLE)):
        FigureCanvasSVG(figure).print_svg(file, metadata=nothing)
    return strokes.shortened(file.getvalue()).encode("utf-8")


def png(figure: Figure, *, quick: bool = False) -> bytes:
    """Draw a figure as a PNG, small enough to be saved in a notebook.

    Arguments:
        figure: any matplotlib figure.
        quick: for a picture that is shown and thrown away: one dot per CSS pixel, sooner there.

    Returns:
        the file's bytes, free of dates and versions: the same figure gives the same bytes.

    >>> with drawing("small") as figure:
    ...     png(figure)[:4]
    b'\\x89PNG'
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    with mpl.rc_context(dict[Any, Any](STYLE)):
        canvas = FigureCanvasAgg(figure)
        usual = figure.dpi
        try:
            figure.dpi = DPI if quick else SHARP * DPI
            canvas.draw()
        finally:
            figure.dpi = usual
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    file = io.BytesIO()
    # 256 colours by octree stay within 15/255 of every pixel, where median cut would turn small
    # green marks blue; a third of the bytes.
    small = drawn.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    small.save(file, "png", compress_level=1 if quick else 9)
    return file.getvalue()


def inch_axes(figure: Figure) -> Axes:
    """Cover an empty figure with one axes whose unit is the inch, from the top left corner."""
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    width, height = figure.get_size_inches()
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_autoscale_on(False)
    return axes


def tint(colour: str, share: float = 0.35) -> tuple[float, ...]:
    """Mix a colour with white: an SVG draws a hatch with its area's opacity, so areas have none.

    >>> tint("#000000", 0.5)
    (0.5, 0.5, 0.5)
    """
    return tuple(1 - share * (1 - part) for part in to_rgb(colour))


def legend_above(axes: Axes) -> None:
    """Name the series above the axes, in as many columns as fit: a legend inside covers data."""
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure(root=True)
    if not labels or figure is None:
        return
    wide = 0.78 * figure.get_size_inches()[0]
    each = 0.062 * max(map(len, labels)) + 0.5  # inches: letters of 8 points, line and gaps
    columns = max(1, min(len(labels), int(wide / each)))
    axes.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(0, 1.01), ncols=columns,
        borderaxespad=0, columnspacing=1.2, handlelength=2.6,
    )  # fmt: skip


def numpy_of(values: ArrayLike | torch.Tensor, what: str, ndim: int | None = None) -> NDArray[Any]:
    """Turn a tensor, an array or nested lists into a NumPy array of ``ndim`` dimensions."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{what} must have {ndim} dimensions, got shape {array.shape}")
    return array


def number(value: float, digits: int = 2, sign: bool = False) -> str:
    """Write a number for a reader: no more digits than are stable, and no minus before a zero.

    Arguments:
        value: any number; NaN is written as a dash.
        digits: decimals of a number below 100.
        sign: whether a gain is written with its plus.

    >>> number(0.5), number(-1234.0), number(float("nan")), number(-0.001)
    ('0.50', '−1234', '–', '0.00')
    >>> number(0.1, sign=True), number(-0.1, sign=True), number(-0.001, sign=True)
    ('+0.10', '−0.10', '0.00')
    """
    value = float(value)
    if np.isnan(value):
        return "–"
    if abs(value) >= 100 or (value == int(value) and abs(value) >= 10):
        digits = 0
    size = f"{abs(value):.{digits}f}"
    if float(size) == 0:
        return size
    return f"{'−' if value < 0 else '+' if sign else ''}{size}"


def percent(share: float, digits: int = 0) -> str:
    """Write a share of one as a percentage.

    >>> percent(0.998, 1), percent(-0.0001)
    ('99.8 %', '0 %')
    """
    if np.isnan(share):
        return "–"
    size = f"{abs(100 * share):.{digits}f}"
    return f"{'−' if share < 0 and float(size) else ''}{size} %"


def counted(count: int, noun: str) -> str:
    """Write how many slices, organs, outlined organs or positions there are.

    >>> counted(1, "slice"), counted(3, "slice")
    ('1 slice', '3 slices')
    """
    one, more = {
        "slice": (_("{n} slice"), _("{n} slices")),
        "organ": (_("{n} organ"), _("{n} organs")),
        "outlined organ": (_("{n} outlined organ"), _("{n} outlined organs")),
        "position": (_("{n} position"), _("{n} positions")),
    }[noun]
    return (one if count == 1 else more).format(n=count)


def interval(triple: tuple[float, float, float]) -> str:
    """Write a mean with its interval, when it has one.

    >>> interval((0.5, 0.4, 0.6)), interval((0.5, 0.5, 0.5))
    ('0.50 [0.40, 0.60]', '0.50')
    """
    mean, low, high = triple
    return number(mean) + (f" [{number(low)}, {number(high)}]" if high > low else "")


def listing(items: Sequence[str]) -> str:
    """Join words as a sentence does.

    >>> listing(["a", "b", "c"])
    'a, b and c'
    """
    return _(" and ").join(filter(None, [_(", ").join(items[:-1]), *items[-1:]]))


def luminance(colour: str) -> float:
    """Return the relative luminance of "#rrggbb", 0 black … 1 white (WCAG 2.2).

    >>> luminance("#ffffff")
    1.0
    """
    levels = np.array(to_rgb(colour))
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))
