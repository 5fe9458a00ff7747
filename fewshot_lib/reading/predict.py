"""Predictions: ``predict(id)`` asks for one before a cell runs, ``prediction(id)`` gives it back.

A prediction is a number, a choice or a curve. It is never right or wrong, nobody has to make one,
and no result depends on it: the figure that follows gets ``predicted=prediction(id)`` and draws it,
and that is all. The words
are in ``predictions/*.toml``; what a reader entered is kept in the progress file.
"""

from __future__ import annotations

import html
import json
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from fewshot_lib.checker import language as speech
from fewshot_lib.checker import progress
from fewshot_lib.checker.frontend import LOOK, choose_form, emit
from fewshot_lib.checker.markup import NEUTRAL, badge, inline
from fewshot_lib.checker.typography import typeset
from fewshot_lib.reading.asking import FRAME, Shelf, framed, option_button, push_button, put, typed
from fewshot_lib.reading.expression import BadExpression, evaluate

_ = speech.words("reading")

#: What a reader entered: a number, the words of an option, or the points (x, y) of a curve.
Given = float | str | tuple[tuple[float, float], ...]
KEYS: Mapping[str, set[str]] = {
    "number": {"low", "high"},
    "choice": {"options"},
    "curve": {"low", "high", "x", "xlabel", "ylabel"},
}
STEPS = 20  # of a slider
#: What was entered in this kernel, by id; None: skipped.
_HERE: dict[str, Given | None] = {}


class BadPrediction(ValueError):
    """A prediction file breaks a rule; the message says which prediction and how."""


class NoSuchPrediction(LookupError):
    """There is no prediction of that name; the message lists what there is."""


class NotUsable(ValueError):
    """What was entered is not what is asked for; the message says what is."""


@dataclass(frozen=True)
class Prediction:
    """What is asked of the reader before a cell runs.

    Arguments:
        id: "start.moved": the notebook's word and a name.
        kind: "number", "choice" or "curve".
        text: what is to be predicted; `code` in backticks.
        options: of a choice, 2 to 6.
        low, high: the least and the largest number that can be predicted.
        x: of a curve, where it is sketched, increasing.
        xlabel, ylabel: of a curve, what the axes show.
        kept: the options in English, as which they are remembered in every language.
    """

    id: str
    kind: str
    text: str
    options: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    x: tuple[float, ...] = ()
    xlabel: str = ""
    ylabel: str = ""
    kept: tuple[str, ...] = ()

    @property
    def wanted(self) -> str:
        """Say what can be entered."""
        if self.kind == "choice":
            letters = ", ".join(string.ascii_uppercase[: len(self.options)])
            return _("one letter of {letters}").format(letters=letters)
        numbers = _("a number from {low} to {high}")
        if self.kind == "curve":
            numbers = _("{count} numbers from {low} to {high}")
        return numbers.format(count=len(self.x), low=f"{self.low:g}", high=f"{self.high:g}")


def _read_one(table: dict[str, Any], name: str) -> Prediction:
    kind = table.pop("kind", "")
    if kind not in KEYS:
        raise BadPrediction(f"{name}: kind must be one of {', '.join(KEYS)}, got {kind!r}")
    if set(table) != KEYS[kind] | {"text"}:
        wanted = ", ".join(sorted(KEYS[kind] | {"text"}))
        raise BadPrediction(f"{name}: a {kind} has {wanted}; got {', '.join(sorted(table))}")
    if not 2 <= len(table.get("options", "ab")) <= 6:
        raise BadPrediction(f"{name}: 2 to 6 options, not {len(table['options'])}")
    if not table.get("low", 0) < table.get("high", 1):
        raise BadPrediction(f"{name}: low must be below high")
    x = table.get("x", (0, 1))
    if len(x) < 2 or any(one >= other for one, other in pairwise(x)):
        raise BadPrediction(f"{name}: a curve needs two values of x or more, increasing")
    table["text"] = " ".join(table["text"].split())
    table |= {key: tuple(table[key]) for key in ("options", "x") if key in table}
    return Prediction(name, kind, **table)


def _translated(asked: Prediction, say: Callable[[str], str]) -> Prediction:
    options = tuple(say(option) for option in asked.options)
    return replace(
        asked,
        text=say(asked.text),
        options=options,
        xlabel=say(asked.xlabel),
        ylabel=say(asked.ylabel),
        kept=asked.options,
    )


_shelf = Shelf("prediction", _read_one, _translated, BadPrediction, NoSuchPrediction)
read_predictions, words, predictions, find = _shelf.read, _shelf.words, _shelf.of, _shelf.find


def understand(asked: Prediction, entered: str | float | Sequence[float]) -> Given:
    """Turn what was entered into a prediction.

    Arguments:
        asked: the prediction.
        entered: a letter or an option's words; a number, also as typed; for a curve a number for
            each of its x, also as typed with spaces between them.

    Raises:
        NotUsable: it is not what is asked for.

    >>> understand(Prediction("a.b", "curve", "?", x=(1, 5)), "0.25 0.5")
    ((1, 0.25), (5, 0.5))
    """
    refused = NotUsable(typeset(_("Please enter {wanted}.").format(wanted=asked.wanted)))
    if asked.kind == "choice":
        letters = dict(zip(string.ascii_uppercase, asked.options, strict=False))
        chosen = letters.get(str(entered).strip().upper(), entered)
        if chosen not in asked.options:
            raise refused
        return str(chosen)
    typed = entered.split() if isinstance(entered, str) and asked.kind == "curve" else entered
    parts = list(typed) if isinstance(typed, list | tuple) else [typed]
    try:
        numbers = [evaluate(str(part)) for part in parts]
    except BadExpression:
        raise refused from None
    if len(numbers) != max(1, len(asked.x)):
        raise refused
    if not all(asked.low <= number <= asked.high for number in numbers):
        raise refused
    return tuple(zip(asked.x, numbers, strict=True)) if asked.x else numbers[0]


def record(asked: Prediction, entered: str | float | Sequence[float] | None) -> str:
    """Remember a prediction, or that it was skipped, and say so.

    Arguments:
        asked: the prediction.
        entered: as for ``understand``; None: it is skipped.

    Raises:
        NotUsable: it is not what is asked for; nothing is remembered.
    """
    given = None if entered is None else understand(asked, entered)
    _HERE[asked.id] = given
    said = _("Skipped.")
    if given is not None:
        said = _("You predict: {given}.").format(given=in_words(given))
    try:
        if progress.recording():
            kept = "" if given is None else json.dumps(_plain(asked, given), ensure_ascii=False)
            progress.predict(f"prediction:{asked.id}", kept)
    except progress.ProgressNotSaved as error:
        said += " " + _("(Your progress could not be saved: {error}.)").format(error=error)
    return typeset(f"{said} {_('Go on with the next cell.')}")


def _plain(asked: Prediction, given: Given) -> str | float | list[float]:
    """Give what is remembered of a prediction: of a curve its heights, an option in English."""
    if asked.kept and given in asked.options:
        return asked.kept[asked.options.index(str(given))]
    return [y for _, y in given] if isinstance(given, tuple) else given


def in_words(given: Given) -> str:
    """Write a prediction for a sentence.

    >>> in_words(((1, 0.25), (5, 0.5)))
    '0.25 at 1, 0.5 at 5'
    """
    if isinstance(given, tuple):
        return _(", ").join(_("{y} at {x}").format(y=f"{y:g}", x=f"{x:g}") for x, y in given)
    return given.rstrip(".") if isinstance(given, str) else f"{given:g}"


def prediction(name: str) -> Any:
    """Give what the reader predicted, for the figure that follows.

    Where nobody sits before the page (nbconvert, nbval) only what a cell of this run entered
    counts, so that a saved notebook does not show what its author once predicted.

    Arguments:
        name: "start.moved".

    Returns:
        A number, the words of an option, or the points ((x, y), …) of a curve; None when there is
        no prediction or it was skipped.

    Raises:
        NoSuchPrediction: there is no such prediction.

    Notebooks: all.

    >>> prediction("start.moved") is None
    True
    """
    asked = find(name)
    if name in _HERE or choose_form() == "static":
        return _HERE.get(name)
    return _remembered(asked)


def _remembered(asked: Prediction) -> Given | None:
    """Read an earlier prediction; None if there is none, or none that fits what is asked today."""
    row = progress.load().get(f"prediction:{asked.id}") if progress.recording() else None
    if row is None or not row.given:
        return None
    try:
        entered = json.loads(row.given)
        if entered in asked.kept:
            return asked.options[asked.kept.index(entered)]
        return understand(asked, entered)
    except ValueError:  # of another version of the course
        return None


# ---------------------------------------------------------------------------------------- forms


def _how(asked: Prediction) -> str:
    """Write the line that records a prediction in any cell, whatever was imported or rebound."""
    example = {"choice": "letter", "number": "number", "curve": "numbers"}[asked.kind]
    return f'import fewshot_lib.reading; fewshot_lib.reading.predict("{asked.id}", "{example}")'


def _labelled(asked: Prediction) -> list[str]:
    """List what one chooses from, or fills in."""
    if asked.kind == "curve":
        point = _("{xlabel} {x}: {ylabel}")
        return [point.format(xlabel=asked.xlabel, x=f"{x:g}", ylabel=asked.ylabel) for x in asked.x]
    return [
        f"{letter}. {option}"
        for letter, option in zip(string.ascii_uppercase, asked.options, strict=False)
    ]


def as_text(asked: Prediction) -> str:
    """Give the request as plain text; what anybody entered is not in it."""
    title = _("Prediction {id}").format(id=asked.id)
    lines = [title, asked.text, *(f"  {one}" for one in _labelled(asked))]
    enter = _("Enter {wanted}, or skip it. To record it, run:").format(wanted=asked.wanted)
    enter = typeset(enter)
    return "\n".join([*lines, enter, f"  {_how(asked)}"])


def as_html(asked: Prediction) -> str:
    """Give the request as a static page shows it; what anybody entered is not in it."""
    rows = "".join(f"<div>{inline(one)}</div>" for one in _labelled(asked))
    how = f"<code>{html.escape(_how(asked), quote=False)}</code>"
    enter = _(
        "Enter {wanted}, or skip it. To record it, run the code cells at the top of this notebook "
        "and then this one; or run in any cell {how}"
    ).replace("{wanted}", asked.wanted)
    enter = html.escape(typeset(enter)).format(how=how)
    return (
        f'<div class="fewshot-predict" style="{FRAME}"><b>{_("Your prediction.")}</b> '
        f'{inline(asked.text)}<div style="margin:.3em 0 .3em 1.6em">{rows}</div>'
        f'<div style="font-size:90%">{enter}</div></div>'
    )


def _said_html(said: str) -> str:
    return f'<div role="status" style="line-height:1.45;max-width:50em">{inline(said)}</div>'


def as_widget(asked: Prediction) -> Any:
    """Give the request as a live widget: controls, a button to skip, and what was recorded."""
    import ipywidgets as widgets

    said = widgets.HTML()
    note = _("Nothing depends on it. The next figure shows it.")
    head = widgets.HTML(
        f'{LOOK}<div style="line-height:1.45"><b>{_("Your prediction.")}</b> {inline(asked.text)}'
        f'<div style="font-size:90%">{note}</div></div>'
    )

    def enter(entered: Any) -> None:
        try:
            said.value = _said_html(record(asked, entered))
        except NotUsable as error:
            said.value = _said_html(str(error))

    earlier = _HERE.get(asked.id) or _remembered(asked)
    if earlier is not None:
        told = _("You predicted: {given}.").format(given=inline(in_words(earlier)))
        said.value = f"<div>{badge('✓', NEUTRAL)} {told}</div>"
    make = {"choice": _choice, "number": _number, "curve": _curve}[asked.kind]
    controls, act = make(asked, earlier, enter)
    buttons = [] if act is None else [push_button(_("Record"), _("Record the prediction"), act)]
    skip = _("Skip"), _("Go on without a prediction")
    buttons.append(push_button(*skip, lambda button: enter(None)))
    return framed([head, *controls, widgets.HBox(buttons), said])


Enter = Callable[[Any], None]
Controls = tuple[list[Any], Callable[..., None] | None]  # and what the button "Record" does


def _choice(asked: Prediction, earlier: Given | None, enter: Enter) -> Controls:
    def press(_: Any, option: str) -> None:
        enter(option)

    rows = zip(_labelled(asked), asked.options, strict=True)
    return [option_button(said, option, press) for said, option in rows], None


def _number(asked: Prediction, earlier: Given | None, enter: Enter) -> Controls:
    field, submit = typed(_("Your prediction"), asked.wanted, "24em", enter)
    if isinstance(earlier, float | int):
        field.value = f"{earlier:g}"
    return [field], submit


def _curve(asked: Prediction, earlier: Given | None, enter: Enter) -> Controls:
    import ipywidgets as widgets

    middle, step = (asked.low + asked.high) / 2, (asked.high - asked.low) / STEPS
    heights = [y for _, y in earlier] if isinstance(earlier, tuple) else [middle] * len(asked.x)
    sliders = []
    for x, height in zip(asked.x, heights, strict=True):
        slider = widgets.FloatSlider(
            value=height, min=asked.low, max=asked.high, step=step, description=f"{x:g}",
            orientation="vertical", readout_format=".2f", continuous_update=False,
        )  # fmt: skip
        slider.layout.height = "11em"
        sliders.append(slider)
    told = _(
        "A slider for each of {count} points: {ylabel}, at {xlabel} {x}. The arrow keys move it."
    ).format(
        count=len(asked.x),
        ylabel=asked.ylabel,
        xlabel=asked.xlabel,
        x=", ".join(f"{x:g}" for x in asked.x),
    )
    words_ = widgets.HTML(f'<div style="font-size:90%">{told}</div>')
    return [words_, widgets.HBox(sliders)], lambda _: enter([slider.value for slider in sliders])


def predict(
    name: str, entered: str | float | Sequence[float] | None = None, *, form: str | None = None
) -> None:
    """Ask for a prediction, in the form that fits where this runs; or record one.

    Where a person runs a cell it is a live widget, in a saved page it can be read, in a terminal it
    is text; see ``frontend.choose_form``. It never waits: what is not entered is skipped.

    Arguments:
        name: "start.moved".
        entered: a letter, a number or the numbers of a curve: recorded, where nothing can be
            clicked. Without it the reader is asked.
        form: "live", "static" or "text"; chosen by the front end when omitted.

    Raises:
        NoSuchPrediction: there is no such prediction; lists those of the notebook.
        ValueError: an unknown form.

    Notebooks: all.

    >>> predict("start.moved")  # doctest: +ELLIPSIS
    Prediction start.moved
    ...
    """
    asked = find(name)
    if entered is not None:
        try:
            said = record(asked, entered)
        except NotUsable as error:
            said = str(error)
        emit({"text/plain": said, "text/html": _said_html(said)})
        return
    sentence = _("Prediction {id}: run this cell to make it; its text is below.").format(id=name)
    put(asked, form, (as_text, as_html, as_widget), f"prediction.{name}", sentence)
