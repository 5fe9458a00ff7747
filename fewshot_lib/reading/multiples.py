"""Small multiples: pictures of a selection of settings, as many in a row as fit, with a table.

Of many pictures a few stand open and the others are folded below them; the book makes them one
picture with a slider.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from fewshot_lib.checker.language import translate_message
from fewshot_lib.checker.language import words as spoken
from fewshot_lib.checker.typography import typeset
from fewshot_lib.reading.parameters import Control, Drawing, Setting
from fewshot_lib.reading.show import HOLE, card, close, table_html, table_text, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fewshot_lib.figures import Picture, PlotData


_ = spoken("reading")

OPEN = 4  # pictures that stand open where others are folded
MOST_OPEN = 6  # pictures that stand open where none is folded


@dataclass(frozen=True)
class Sight:
    """What one setting shows: its values as they read, the finding, and the picture if drawn.

    ``place`` counts the settings in their order, ``first`` is said of those that stand open.
    """

    place: int
    first: bool
    labels: tuple[str, ...]
    heading: str
    seen: str
    what: str = ""
    picture: Picture | None = None


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
    """Return (data, metadata) of an output with pictures side by side and their table.

    Arguments:
        function, controls, title, panels: as in ``explore``.
        seconds: stop after the first picture that ends later than this.
        forgive: exceptions of ``function`` that become a sentence in the picture's place.
        around: HTML around the figure, with ``HOLE`` where it goes.
    """
    seen = look(function, controls, panels, seconds=seconds, forgive=forgive)
    sights = sorted(seen, key=lambda sight: sight.place)
    caption, table = summary(controls, sights, title)
    text = f"{wrap(caption)}\n{table_text(*table)}"
    drawn = [sight for sight in sights if sight.picture]
    if not drawn:
        unfolded = table_html(*table).replace("<details>", "<details open>")
        page = around.replace(HOLE, f"<p>{html.escape(caption)}</p>{unfolded}")
        return {"text/plain": text, "text/html": page}, {}
    told = " ".join(_said(sight) for sight in sights)
    folded = [sight for sight in drawn if not sight.first]
    more = _("{n} more settings") if len(folded) > 1 else _("{n} more setting")
    more = f"<summary>{html.escape(more.format(n=len(folded)))}</summary>{_row(folded)}"
    page = (
        '<figure class="fewshot-figure" style="margin:0">'
        f"{_row([sight for sight in drawn if sight.first])}"
        f"{f'<details>{more}</details>' if folded else ''}"
        f'<figcaption style="max-width:44em">{html.escape(caption)}</figcaption>'
        f"{table_html(*table)}</figure>"
    )
    data = {"text/plain": text, "text/html": around.replace(HOLE, page)}
    alt = _("{n} small pictures, {what}. {told}")
    return data, {"alt": typeset(alt.format(n=len(drawn), what=drawn[0].what, told=told))}


def _row(sights: Sequence[Sight]) -> str:
    """Return pictures under their settings side by side, as many in a row as fit."""
    panels = "".join(
        f'<div data-place="{sight.place}" style="max-width:100%">'
        f'<div style="font-weight:bold;line-height:1.4">{html.escape(sight.heading)}</div>'
        f"{card(sight.picture, _said(sight))}</div>"
        for sight in sights
        if sight.picture
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px 10px">{panels}</div>'


def _said(sight: Sight) -> str:
    """Say what one setting shows."""
    return typeset(_("{heading}: {seen}").format(heading=sight.heading, seen=sight.seen))


def small_table(function: Drawing, controls: Sequence[Control], title: str, panels: int) -> str:
    """Return the text form: one line per setting with what is seen in its picture."""
    sights = sorted(look(function, controls, panels, pictures=False), key=lambda s: s.place)
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

    Those that stand open come first: whoever stops early has a spread selection.

    Raises:
        whatever ``function`` raises that is not forgiven, or at every setting.
    """
    from fewshot_lib.figures import picture

    begun = time.perf_counter()
    problem: Exception | None = None
    succeeded = False
    chosen = list(select(controls, most))
    moved = [c for c in controls if len({c.label(setting[c.name]) for setting in chosen}) > 1]
    first = set(range(len(chosen))) if len(chosen) <= MOST_OPEN else _spread(controls, most)
    for place in sorted(range(len(chosen)), key=lambda i: i not in first):
        setting = chosen[place]
        labels = tuple(control.label(setting[control.name]) for control in controls)
        heading = words(moved or controls, setting)
        try:
            figure, data = draw(function, setting)
        except forgive as error:
            problem = error
            yield Sight(place, place in first, labels, heading, in_a_sentence(error))
            continue
        succeeded = True
        seen = translate_message(data.finding, "captions") or data.alt
        if pictures:
            _halve(figure)
        drawn = picture(figure) if pictures else None
        yield Sight(place, place in first, labels, heading, seen, data.what, drawn)
        close(figure)
        if time.perf_counter() - begun > seconds:
            return
    if problem is not None and not succeeded and forgive is ValueError:
        raise problem


def _halve(figure: Figure) -> None:
    """Make room for two charts in a row: a chart is laid out anew, its type stays as it is.

    Images keep their size: what lies at fixed places, as titles above tiles, would be cut.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from fewshot_lib.figures import SIZES

    laid_out = isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine)
    if laid_out and figure.get_size_inches()[0] < SIZES["wide"][0]:
        figure.set_size_inches(*SIZES["small"])


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
    counts = _counts([len(control.values) for control in controls], most)
    chosen = [control.spread(count) for control, count in zip(controls, counts, strict=True)]
    for indices in product(*chosen):
        yield {c.name: c.values[i] for c, i in zip(controls, indices, strict=True)}


def _counts(lengths: Sequence[int], most: int) -> list[int]:
    """Say how many values of each parameter a selection of at most ``most`` settings takes."""
    counts = [1] * len(lengths)
    growing = True
    while growing:
        growing = False
        for i, length in enumerate(lengths):
            larger = [*counts[:i], counts[i] + 1, *counts[i + 1 :]]
            if counts[i] < length and math.prod(larger) <= most:
                counts, growing = larger, True
    return counts


def _spread(controls: Sequence[Control], most: int) -> set[int]:
    """Pick the settings of a selection that stand open, ends included, by their places in it."""
    lengths = _counts([len(control.values) for control in controls], most)
    few = _counts(lengths, OPEN)
    chosen = [
        {round(i * (length - 1) / max(count - 1, 1)) for i in range(count)}
        for length, count in zip(lengths, few, strict=True)
    ]
    places = product(*map(range, lengths))
    return {n for n, at in enumerate(places) if all(map(set.__contains__, chosen, at))}


def words(controls: Sequence[Control], setting: Setting) -> str:
    """Write a setting: "shots = 5, distance = cosine"."""
    return ", ".join(f"{c.title} = {c.label(setting[c.name])}" for c in controls)


def summary(
    controls: Sequence[Control], sights: Sequence[Sight], title: str
) -> tuple[str, tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Return the caption, and the table (columns, rows) of what is seen."""
    total = math.prod(len(control.values) for control in controls)
    said = _("{title}: {total} settings.") if total > 1 else _("{title}: {total} setting.")
    caption = said.format(title=title, total=total)
    if len(sights) < total:
        ranges = [
            f"{c.title} {c.labels[0]} … {c.labels[-1]}"
            if len({sight.labels[i] for sight in sights}) > 1
            else _("{setting} only").format(setting=f"{c.title} = {sights[0].labels[i]}")
            for i, c in enumerate(controls)
        ]
        caption = _(
            "{title}: {n} of {total} settings ({ranges}). In JupyterLab, run "
            "the cell to see the others."
        ).format(title=title, n=len(sights), total=total, ranges=_("; ").join(ranges))
    columns = (*(control.title for control in controls), _("what is seen"))
    return caption, (columns, [(*sight.labels, sight.seen) for sight in sights])
