"""One look for every picture: sizes, palette with a second cue, PNG, and what goes with it.

Nothing here changes matplotlib for others: the style applies inside ``drawing`` and ``png`` only,
and figures are made without pyplot, so none has to be closed and no window opens.
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
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

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
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "---", "ooo", "|||")

Size = Literal["small", "single", "strip", "wide", "broad", "tall"]
#: The closed vocabulary of sizes, in inches: (width, height).
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
        object.__setattr__(self, "numbers", MappingProxyType(dict(self.numbers)))


@contextmanager
def drawing(size: Size) -> Iterator[Figure]:
    """Give an empty figure of a named size, and the style while it is drawn.

    Arguments:
        size: a key of ``SIZES``.

    Returns:
        a context manager with a ``matplotlib.figure.Figure`` that pyplot does not know.

    Raises:
        ValueError: a size that is not in the vocabulary.

    >>> with drawing("small") as figure:
    ...     axes = figure.subplots()
    """
    if size not in SIZES:
        raise ValueError(f"no figure size {size!r}; there are {', '.join(SIZES)}")
    with mpl.rc_context(dict[Any, Any](STYLE)):
        yield Figure(figsize=SIZES[size], dpi=DPI, layout="constrained")


def png(figure: Figure, *, quick: bool = False) -> bytes:
    """Draw a figure as a PNG, small enough to be saved in a notebook.

    Arguments:
        figure: any matplotlib figure.
        quick: for a picture that is shown and thrown away: larger, a little sooner.

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
        canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    file = io.BytesIO()
    # 256 colours by octree stay within 15/255 of every pixel, where median cut would turn small
    # green marks blue; a third of the bytes.
    small = picture.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    small.save(file, "png", compress_level=3 if quick else 9)
    return file.getvalue()


def numpy_of(values: ArrayLike | torch.Tensor, what: str, ndim: int | None = None) -> NDArray[Any]:
    """Turn a tensor, an array or nested lists into a NumPy array of ``ndim`` dimensions."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{what} must have {ndim} dimensions, got shape {array.shape}")
    return array


def number(value: float, digits: int = 2) -> str:
    """Write a number for a reader: no more digits than are stable.

    >>> number(0.5), number(1234.0), number(float("nan"))
    ('0.50', '1234', '–')
    """
    value = float(value)
    if np.isnan(value):
        return "–"
    if abs(value) >= 100 or (value == int(value) and abs(value) >= 10):
        return f"{value:.0f}"
    return f"{value:.{digits}f}".replace("-", "−")


def percent(share: float, digits: int = 0) -> str:
    """Write a share of one as a percentage.

    >>> percent(0.998, 1)
    '99.8 %'
    """
    return "–" if np.isnan(share) else f"{100 * share:.{digits}f} %"


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
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def luminance(colour: str) -> float:
    """Return the relative luminance of "#rrggbb", 0 black … 1 white (WCAG 2.2).

    >>> luminance("#ffffff")
    1.0
    """
    levels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))
