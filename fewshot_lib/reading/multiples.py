"""Small multiples: one sheet of pictures over a selection of settings, with its table."""

from __future__ import annotations

import html
import io
import math
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from fewshot_lib.reading.parameters import Control, Drawing, Setting
from fewshot_lib.reading.show import HOLE, close, picture_bundle, table_html, table_text, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fewshot_lib.figures import PlotData

SHEET_WIDTH = 1010  # pixels: two figures of size "single" beside each other


@dataclass(frozen=True)
class Sight:
    """What one setting shows: its values as they read, the finding, and the picture if drawn."""

    labels: tuple[str, ...]
    heading: str
    seen: str
    what: str = ""
    png: bytes = b""


def small_multiples(
    function: Drawing,
    controls: Sequence[Control],
    title: str,
    panels: int,
    *,
    seconds: float = math.inf,
    forgive: type[Exception] = ValueError,
    around: str = HOLE,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (data, metadata) of an output with one sheet of pictures and its table.

    Arguments:
        function, controls, title, panels: as in ``explore``.
        seconds: stop after the first picture that ends later than this.
        forgive: exceptions of ``function`` that become a sentence in the picture's place.
        around: HTML around the figure, with ``HOLE`` where it goes.
    """
    sights = list(look(function, controls, panels, seconds=seconds, forgive=forgive))
    caption, table = summary(controls, sights, title)
    text = f"{wrap(caption)}\n{table_text(*table)}"
    drawn = [sight for sight in sights if sight.png]
    if not drawn:
        unfolded = table_html(*table).replace("<details>", "<details open>")
        page = around.replace(HOLE, f"<p>{html.escape(caption)}</p>{unfolded}")
        return {"text/plain": text, "text/html": page}, {}
    told = " ".join(f"{sight.heading}: {sight.seen}" for sight in sights)
    alt = f"{len(drawn)} small pictures, {drawn[0].what}. {told}"
    return picture_bundle(sheet(drawn), alt, caption, text, table_html(*table), around)


def small_table(function: Drawing, controls: Sequence[Control], title: str, panels: int) -> str:
    """Return the text form: one line a setting with what is seen in its picture."""
    sights = list(look(function, controls, panels, pictures=False))
    caption, table = summary(controls, sights, title)
    return f"{wrap(caption)}\n{table_text(*table)}"


def look(
    function: Drawing,
    controls: Sequence[Control],
    most: int,
    *,
    pictures: bool = True,
    seconds: float = math.inf,
    forgive: type[Exception] = ValueError,
) -> Iterator[Sight]:
    """Call ``function`` for a selection of at most ``most`` settings and say what each shows.

    Raises:
        whatever ``function`` raises that is not forgiven, or at every setting.
    """
    from fewshot_lib.figures import png

    begun = time.perf_counter()
    problem: Exception | None = None
    succeeded = False
    chosen = list(select(controls, most))
    moved = [c for c in controls if len({c.label(setting[c.name]) for setting in chosen}) > 1]
    for setting in chosen:
        labels = tuple(control.label(setting[control.name]) for control in controls)
        heading = words(moved or controls, setting)
        try:
            figure, data = draw(function, setting)
        except forgive as error:
            problem = error
            yield Sight(labels, heading, in_a_sentence(error))
            continue
        succeeded = True
        seen = data.finding or data.alt
        yield Sight(labels, heading, seen, data.what, png(figure, quick=True) if pictures else b"")
        close(figure)
        if time.perf_counter() - begun > seconds:
            return
    if problem is not None and not succeeded and forgive is ValueError:
        raise problem


def draw(function: Drawing, setting: Setting) -> tuple[Figure, PlotData]:
    """Call the function and hold it to its promise.

    Raises:
        TypeError: it returned something else than (figure, data).
    """
    from matplotlib.figure import Figure

    from fewshot_lib.figures import PlotData

    result = function(**setting)
    if isinstance(result, tuple) and len(result) == 2:
        figure, data = result
        if isinstance(figure, Figure) and isinstance(data, PlotData):
            return figure, data
    raise TypeError(
        "explore needs a function that returns (figure, data) like those of fewshot_lib.figures; "
        f"{getattr(function, '__name__', 'this one')} returned {type(result).__name__}"
    )


def in_a_sentence(error: Exception) -> str:
    """Say what went wrong; the kind of an error of one's own making is left out."""
    return str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"


def select(controls: Sequence[Control], most: int) -> Iterator[Setting]:
    """Give all settings, or a spread selection of at most ``most``, the first parameters first."""
    counts = [1] * len(controls)
    growing = True
    while growing:
        growing = False
        for i, control in enumerate(controls):
            larger = [*counts[:i], counts[i] + 1, *counts[i + 1 :]]
            if counts[i] < len(control.values) and math.prod(larger) <= most:
                counts, growing = larger, True
    chosen = [control.spread(count) for control, count in zip(controls, counts, strict=True)]
    for indices in product(*chosen):
        yield {c.name: c.values[i] for c, i in zip(controls, indices, strict=True)}


def words(controls: Sequence[Control], setting: Setting) -> str:
    """Write a setting: "shots = 5, distance = cosine"."""
    return ", ".join(f"{c.title} = {c.label(setting[c.name])}" for c in controls)


def summary(
    controls: Sequence[Control], sights: Sequence[Sight], title: str
) -> tuple[str, tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Return the caption, and the table (columns, rows) of what is seen."""
    total = math.prod(len(control.values) for control in controls)
    caption = f"{title}: {total} setting{'s' * (total > 1)}."
    if len(sights) < total:
        ranges = [
            f"{c.title} {c.labels[0]} … {c.labels[-1]}"
            if len({sight.labels[i] for sight in sights}) > 1
            else f"{c.title} = {sights[0].labels[i]} only"
            for i, c in enumerate(controls)
        ]
        caption = (
            f"{title}: {len(sights)} of {total} settings ({'; '.join(ranges)}). In JupyterLab, run "
            "the cell to see the others."
        )
    columns = (*(control.title for control in controls), "what is seen")
    return caption, (columns, [(*sight.labels, sight.seen) for sight in sights])


def sheet(sights: Sequence[Sight]) -> bytes:
    """Put pictures with headings on one sheet, as many beside each other as fit.

    Arguments:
        sights: with pictures.

    Returns:
        one PNG.
    """
    from pathlib import Path

    import matplotlib as mpl
    from PIL import Image, ImageDraw, ImageFont

    pictures = [Image.open(io.BytesIO(sight.png)).convert("RGB") for sight in sights]
    width = max(picture.width for picture in pictures)
    height = max(picture.height for picture in pictures)
    columns = max(1, min(len(pictures), SHEET_WIDTH // width))
    headings = [textwrap.wrap(sight.heading, max(20, width // 8)) for sight in sights]
    top = 12 + 15 * max(len(lines) for lines in headings)
    page = Image.new(
        "RGB", (columns * width, math.ceil(len(pictures) / columns) * (height + top)), "white"
    )
    font_file = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"
    font = ImageFont.truetype(str(font_file), 12)
    pen = ImageDraw.Draw(page)
    for i, (lines, picture) in enumerate(zip(headings, pictures, strict=True)):
        left, upper = (i % columns) * width, (i // columns) * (height + top)
        pen.text((left + 8, upper + 6), "\n".join(lines), fill="#222222", font=font)
        page.paste(picture, (left, upper + top))
    file = io.BytesIO()
    small = page.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    small.save(file, "png", compress_level=9)
    return file.getvalue()
