"""Show a figure with its alt text, caption and numbers, so that everyone gets them.

JupyterLab and nbconvert's default page drop an alt text that is kept in an output's metadata. So
the picture is saved in an HTML figure of its own, whose ``alt`` reaches every page: an SVG or a
sharp PNG, in an ``<img>``, which JupyterLab keeps in notebooks that it does not trust. What cannot
read HTML (LaTeX, PDF) finds it once more as image/png, unless it is large: a notebook stays small.
Terminals, screen readers and nbval read text/plain: caption, alt text and the numbers as a table.
"""

from __future__ import annotations

import base64
import html
import struct
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fewshot_lib.checker.frontend import choose_form, emit
from fewshot_lib.checker.language import translate, words
from fewshot_lib.checker.typography import typeset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fewshot_lib.figures import Picture, PlotData

_ = words("reading")

HOLE = "<!-- here -->"
ONCE = 20_000  # bytes: a larger PNG is saved in the HTML only
LEAST = 0.85  # of its width to which a page may shrink a picture; then it scrolls in its box
WIDTH = 96  # characters in a line of text/plain
MOST_ROWS = 24  # of a table; more are counted


def show(
    figure: Figure,
    data: PlotData | None = None,
    caption: str | None = None,
    *,
    varies: bool = False,
    predicted: str | None = None,
) -> None:
    """Display a figure with alt text and caption, and let go of it.

    Arguments:
        figure: from ``fewshot_lib.figures``, or any matplotlib figure.
        data: its ``PlotData``; carries the alt text.
        caption: the finding in words; by default ``data.finding``.
        varies: True when the numbers differ from machine to machine (something was trained): the
            text that nbval compares then names the picture without them.
        predicted: what the reader chose, from ``prediction``; told below the picture and in its alt
            text, not in the text that nbval compares.

    Raises:
        TypeError: no data: a picture without an alt text is not shown.

    Notebooks: all.

    >>> from fewshot_lib import figures
    >>> show(*figures.lines([1, 5], {"a": [0.5, 0.9]}, xlabel="shots", ylabel="accuracy"))
    accuracy at 1 and at 5: a 0.50 and 0.90.
    Picture: Line chart: accuracy against shots. a: from 0.50 at 1 to 0.90 at 5.
    shots  a
    1      0.50
    5      0.90
    """
    from fewshot_lib.figures import PlotData, picture

    if not isinstance(data, PlotData):
        raise TypeError(
            "show(figure, data) needs the figure's PlotData, which holds its alt text, got "
            f"{type(data).__name__}; the functions of fewshot_lib.figures return both: "
            "show(*figures.lines(…))"
        )
    caption = data.finding if caption is None else caption
    text = picture_text(data, caption)
    if varies:
        text = _(
            "Picture: {what}. "
            "Its numbers differ a little from machine to machine and are not part of this text."
        ).format(what=data.what)
    own = data.predicted
    if predicted:
        own = _("Your prediction: {given}.").format(given=predicted.rstrip("."))
    if own and choose_form() == "text":
        text = f"{wrap(own)}\n{text}"
    caption = translate(caption, "captions")
    alt, caption = (typeset(f"{words} {own}".strip()) for words in (data.alt, caption))
    table = table_html(data.columns, data.rows)
    emit(*picture_bundle(picture(figure), alt, caption, text, table))
    close(figure)


def picture_bundle(
    picture: Picture, alt: str, caption: str, text: str, details: str = "", around: str = HOLE
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (data, metadata) of an output that shows a picture.

    Arguments:
        picture: the picture; alt: what is to be seen; caption: under it; text: text/plain.
        details: HTML below the caption.
        around: HTML around all of it, with ``HOLE`` where it goes.
    """
    data = {
        "text/html": around.replace(HOLE, picture_html(picture, alt, caption, details)),
        "text/plain": text,
    }
    if len(picture.png) > ONCE:
        return data, {"alt": alt}
    data["image/png"] = base64.b64encode(picture.png).decode("ascii")
    size = {"width": picture.width, "height": picture.height}
    return data, {"image/png": {"alt": alt, **size}}


def picture_html(picture: Picture, alt: str, caption: str = "", details: str = "") -> str:
    """Return an HTML figure: picture with alt text, caption under it, details under that."""
    caption = translate(caption, "captions")
    below = f'<figcaption style="max-width:44em">{html.escape(caption)}</figcaption>'
    return (
        f'<figure class="fewshot-figure" style="margin:0">{card(picture, alt)}'
        f"{below if caption else ''}{details}</figure>"
    )


def card(picture: Picture, alt: str) -> str:
    """Return a picture on a white card with its alt text.

    Dark pages show the card, white ones do not. On a phone the picture keeps ``LEAST`` of its size
    and scrolls inside the card: shrunk to 360 px, the letters of a wide one would be 6 px high.
    """
    source = base64.b64encode(picture.content).decode("ascii")
    return (
        '<div class="fewshot-card" tabindex="0" role="group" '
        f'aria-label="{html.escape(_("Picture"))}" '
        'style="display:inline-block;max-width:100%;box-sizing:border-box;overflow-x:auto;'
        'background:#fff;padding:6px;border-radius:8px">'
        f'<img alt="{html.escape(alt)}" width="{picture.width}" height="{picture.height}" '
        f'style="display:block;max-width:100%;min-width:{round(LEAST * picture.width)}px;'
        f'height:auto;margin:0" src="data:{picture.kind};base64,{source}"></div>'
    )


def table_html(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return the numbers as a folded HTML table; nothing when there are none."""
    if not rows:
        return ""

    def line(cells: Sequence[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows[:MOST_ROWS])
    more = f"<p>{_more(len(rows) - MOST_ROWS)}</p>" if len(rows) > MOST_ROWS else ""
    return (
        f"<details><summary>{html.escape(_('The numbers in this picture'))}</summary>"
        f"<table><thead>{line(columns, 'th')}</thead><tbody>{body}</tbody></table>{more}</details>"
    )


def picture_text(data: PlotData, caption: str) -> str:
    """Return caption, alt text and numbers as lines of text."""
    parts = [wrap(translate(caption, "captions")), wrap(_("Picture: {alt}").format(alt=data.alt))]
    if data.rows:
        parts.append(table_text(data.columns, data.rows))
    return "\n".join(part for part in parts if part)


def table_text(
    columns: Sequence[str], rows: Sequence[Sequence[object]], most: int = MOST_ROWS
) -> str:
    """Return a table as aligned lines; the last column is wrapped.

    >>> print(table_text(("shots", "accuracy"), [(1, "0.50"), (10, "0.90")]))
    shots  accuracy
    1      0.50
    10     0.90
    """
    cells = [[str(cell) for cell in row] for row in (columns, *rows[:most])]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    before = sum(widths[:-1]) + 2 * (len(columns) - 1)
    lines = []
    for row in cells:
        start = "".join(f"{cell:<{width}}  " for cell, width in zip(row, widths[:-1], strict=False))
        folded = textwrap.wrap(row[-1], max(30, WIDTH - before)) or [""]
        lines += [start + folded[0], *(" " * before + rest for rest in folded[1:])]
    if len(rows) > most:
        lines.append(_more(len(rows) - most))
    return "\n".join(line.rstrip() for line in lines)


def _more(rows: int) -> str:
    return _("and {n} more rows").format(n=rows)


def wrap(text: str) -> str:
    """Fold text into lines of at most ``WIDTH`` characters."""
    return "\n".join(textwrap.wrap(text, WIDTH))


def png_size(png: bytes) -> tuple[int, int]:
    """Return (width, height) in pixels from a PNG's header."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def close(figure: Figure) -> None:
    """Let pyplot forget the figure, if it knows it: nothing is shown twice or kept for ever."""
    import sys

    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
