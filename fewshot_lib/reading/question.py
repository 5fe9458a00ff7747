"""Questions for the reader: ``question(id)`` in three forms, ``answer(id, …)`` for two of them.

In a live notebook a question is answered by a click or by typing; in a saved page and in a terminal
it can be read, and answered with ``answer("prototypes.learned", "b")``. The notebook holds the
question's name only; the answers are in the package (``questions/*.toml``) and come to the page
when the reader has answered.
"""

from __future__ import annotations

import hashlib
import html
import random
import re
import string
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from fewshot_lib.checker import language as speech
from fewshot_lib.checker import progress
from fewshot_lib.checker.frontend import LOOK, emit
from fewshot_lib.checker.markup import NEUTRAL, RIGHT, WRONG, badge, inline, plain
from fewshot_lib.checker.typography import typeset
from fewshot_lib.reading.asking import FRAME, Shelf, framed, option_button, push_button, put, typed
from fewshot_lib.reading.expression import BadExpression, evaluate, rounding

_ = speech.words("reading")

KINDS = ("single", "multiple", "number", "expression")
#: After so many misses the hint is given.
MISSES_BEFORE_HINT = 2
_MISSES: dict[str, int] = {}


class BadQuestion(ValueError):
    """A question file breaks a rule; the message says which question and how."""


class NoSuchQuestion(LookupError):
    """There is no question of that name; the message lists what there is."""


@dataclass(frozen=True)
class Option:
    """One choice: what it says, whether it is right, and what to reply to who chose it."""

    text: str
    right: bool
    reply: str


@dataclass(frozen=True)
class Question:
    """One question.

    Arguments:
        id: "prototypes.learned": the notebook's word and a name.
        kind: "single", "multiple", "number" or "expression".
        text: the question; `code` in backticks.
        hint: given after the second miss.
        options: for "single" and "multiple", in the order in which they are shown.
        value: for typed answers, the right one as an expression.
        reply: to a right typed answer.
        wrong: expressions that people type, with the reply to each.
        names: variables of an expression.
        tolerance: relative, of typed answers.
    """

    id: str
    kind: str
    text: str
    hint: str
    options: tuple[Option, ...] = ()
    value: str = ""
    reply: str = ""
    wrong: tuple[tuple[str, str], ...] = ()
    names: tuple[str, ...] = ()
    tolerance: float = 0.01

    @property
    def labelled(self) -> list[tuple[str, Option]]:
        """The options with their letters."""
        return list(zip(self.letters, self.options, strict=True))

    @property
    def letters(self) -> str:
        """The letters of the options: "ABCD"."""
        return string.ascii_uppercase[: len(self.options)]


@dataclass(frozen=True)
class Reply:
    """What is said to an answer. ``counts`` is False where nothing was understood."""

    right: bool
    text: str
    counts: bool = True


def _read_one(table: dict[str, Any], name: str) -> Question:
    def refuse(reason: str) -> BadQuestion:
        return BadQuestion(f"{name}: {reason}")

    kind = table.pop("kind", "")
    if kind not in KINDS:
        raise refuse(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    for key in ("text", "hint"):
        if not str(table.get(key, "")).strip():
            raise refuse(f"{key} is missing")
    options = []
    for entry in table.pop("option", []):
        if set(entry) != {"text", "right", "reply"} or not isinstance(entry["right"], bool):
            raise refuse("an option has text, right (true or false) and reply")
        options.append(Option(_line(entry["text"]), entry["right"], _line(entry["reply"])))
    wrong = tuple((str(entry["value"]), _line(entry["reply"])) for entry in table.pop("wrong", []))
    names = tuple(table.pop("names", ()))
    made = Question(
        id=name,
        kind=kind,
        text=_line(table.pop("text")),
        hint=_line(table.pop("hint")),
        options=tuple(
            sorted(options, key=lambda o: hashlib.sha256((name + o.text).encode()).digest())
        ),
        value=str(table.pop("value", "")),
        reply=_line(table.pop("reply", "")),
        wrong=wrong,
        names=names,
        tolerance=float(table.pop("tolerance", 0.01)),
    )
    if table:
        raise refuse(f"unknown entries: {', '.join(table)}")
    rights = sum(option.right for option in made.options)
    if kind in ("single", "multiple"):
        if not 3 <= len(made.options) <= 6:
            raise refuse(f"3 to 6 options, not {len(made.options)}")
        if kind == "single" and rights != 1:
            raise refuse(f"a single choice has one right option, not {rights}")
        if kind == "multiple" and not 0 < rights < len(made.options):
            raise refuse("of a multiple choice some options are right, not all")
        if any(len(option.reply) < 10 for option in made.options):
            raise refuse("every option needs a reply that says why")
        return made
    if not made.value or not made.reply:
        raise refuse("a typed answer needs value and reply")
    if kind == "expression" and not names:
        raise refuse("an expression needs the names of its variables")
    try:
        for expression in (made.value, *(value for value, _ in wrong)):
            values(expression, made)
    except BadExpression as error:
        raise refuse(str(error)) from None
    for value, _ in wrong:
        if _matches(value, made.value, made):
            raise refuse(f"the wrong answer {value!r} is right")
    return made


def _line(text: str) -> str:
    return " ".join(str(text).split())


def _translated(asked: Question, say: Callable[[str], str]) -> Question:
    return replace(
        asked,
        text=say(asked.text),
        hint=say(asked.hint),
        options=tuple(
            replace(one, text=say(one.text), reply=say(one.reply)) for one in asked.options
        ),
        reply=say(asked.reply),
        wrong=tuple((value, say(reply)) for value, reply in asked.wrong),
    )


_shelf = Shelf("question", _read_one, _translated, BadQuestion, NoSuchQuestion)
read_questions, words, questions, find = _shelf.read, _shelf.words, _shelf.of, _shelf.find


def place(word: str) -> tuple[int, str]:
    """Give the number and the title of the notebook that a question file belongs to."""
    number, title = _place(word)
    return number, speech.translate(title, "questions")


@cache
def _place(word: str) -> tuple[int, str]:
    head = tomllib.loads(_shelf.file(word).read_text(encoding="utf-8"))
    if not isinstance(head.get("number"), int) or not isinstance(head.get("title"), str):
        raise BadQuestion(f"questions/{word}.toml must begin with number and title of the notebook")
    return head["number"], head["title"]


def judge(asked: Question, given: str | float | Sequence[str]) -> Reply:
    """Judge an answer: letters of options ("b", "a c"), or a number or expression as typed.

    >>> judge(find("prototypes.learned"), "?").counts
    False
    """
    if asked.kind in ("single", "multiple"):
        return _judge_choice(asked, given)
    try:
        typed = str(given)
        if _matches(typed, asked.value, asked):
            return Reply(True, asked.reply)
        for value, reply in asked.wrong:
            if _matches(typed, value, asked):
                return Reply(False, reply)
    except BadExpression as error:
        return Reply(False, f"{_upper(str(error))}.", counts=False)
    if asked.kind == "number" and _too_coarse(typed, asked):
        return Reply(False, _("Please give at least two digits, as 0.67."), counts=False)
    return Reply(False, _("Not this."))


def _too_coarse(typed: str, asked: Question) -> bool:
    """Whether the value was rounded to one digit, as 0.7: too few to be judged."""
    fine = rounding(typed)
    if fine is None or fine[0] > 1:
        return False
    [one], [value] = values(typed, asked), values(asked.value, asked)
    return value != round(value) and abs(one - value) <= fine[1]


def _judge_choice(asked: Question, given: str | float | Sequence[str]) -> Reply:
    text = " ".join(given) if isinstance(given, list | tuple | set) else str(given)
    chosen = {letter.upper() for letter in re.findall(r"[A-Za-z]", text)}
    if (
        not chosen
        or not chosen <= set(asked.letters)
        or (asked.kind == "single" and len(chosen) > 1)
    ):
        one, more = (
            _("Answer with one letter of {letters}."),
            _("Answer with letters of {letters}."),
        )
        said = one if asked.kind == "single" else more
        return Reply(False, said.format(letters=", ".join(asked.letters)), counts=False)
    picked = [(letter, asked.options[asked.letters.index(letter)]) for letter in sorted(chosen)]
    false = [(letter, option) for letter, option in picked if not option.right]
    missed = [o for letter, o in asked.labelled if o.right and letter not in chosen]
    if asked.kind == "single":
        return Reply(picked[0][1].right, picked[0][1].reply)
    if false:
        return Reply(False, " ".join(f"{letter}: {option.reply}" for letter, option in false))
    said = " ".join(f"{letter}: {option.reply}" for letter, option in picked)
    if missed:
        one, more = (
            _("So far so good; one more is right."),
            _("So far so good; {n} more are right."),
        )
        return Reply(False, f"{said} {one if len(missed) == 1 else more.format(n=len(missed))}")
    return Reply(True, said)


def points(asked: Question) -> list[dict[str, float]]:
    """Give the points at which formulas are compared; one without variables for a number."""
    draw = random.Random(asked.id)
    drawn = [{name: draw.uniform(0.5, 3.0) for name in asked.names} for _ in range(4)]
    return drawn[: 4 if asked.names else 1]


def values(expression: str, asked: Question) -> list[float]:
    """Give the values of a formula at the points of a question.

    Raises:
        BadExpression: it is no formula in the question's names.
    """
    return [evaluate(expression, point) for point in points(asked)]


def _matches(typed: str, value: str, asked: Question) -> bool:
    """Compare what was typed with a value: formulas at random points, numbers as they are rounded.

    A number is right if it is within the question's tolerance, or if it is the value rounded to
    the digits typed, two at least: 0.67 is two thirds. Whole numbers count something: they are
    right or wrong.
    """
    if asked.kind == "expression":
        return all(
            abs(one - other) <= 1e-6 * max(abs(other), 1e-9)
            for one, other in zip(values(typed, asked), values(value, asked), strict=True)
        )
    [one], [other] = values(typed, asked), values(value, asked)
    off = abs(one - other)
    if off <= 1e-9 * max(1.0, abs(other)):
        return True
    if other == round(other):
        return False
    fine = rounding(typed)
    rounded = fine is not None and fine[0] >= 2 and off <= fine[1] * (1 + 1e-9)
    return rounded or off <= asked.tolerance * abs(other)


def respond(asked: Question, given: str | float | Sequence[str]) -> Reply:
    """Judge an answer, remember it, and add the hint after the second miss."""
    reply = judge(asked, given)
    if not reply.counts:
        return reply
    remark = ""
    try:
        if progress.recording():
            progress.attempt(f"question:{asked.id}", float(reply.right), 1.0)
    except progress.ProgressNotSaved as error:
        remark = " " + _("(Your progress could not be saved: {error}.)").format(error=error)
    if reply.right:
        _MISSES.pop(asked.id, None)
        return Reply(True, typeset(reply.text + remark))
    _MISSES[asked.id] = _MISSES.get(asked.id, 0) + 1
    hint = ""
    if _MISSES[asked.id] >= MISSES_BEFORE_HINT:
        hint = " " + _("Hint: {hint}").format(hint=asked.hint)
    return Reply(False, typeset(reply.text + hint + remark))


# ---------------------------------------------------------------------------------------- forms


def _upper(words_: str) -> str:
    return words_[:1].upper() + words_[1:]


def _how(asked: Question) -> str:
    """Write the line that answers a question in any cell, whatever was imported or rebound."""
    example = {"single": "letter", "multiple": "letters", "number": "number"}
    given = example.get(asked.kind, "formula")
    return f'import fewshot_lib.reading; fewshot_lib.reading.answer("{asked.id}", "{given}")'


def as_text(asked: Question) -> str:
    """Give the question as plain text, for a terminal; without any answer."""
    lines = [_("Question {id}").format(id=asked.id), asked.text]
    lines += [f"  {letter}  {o.text}" for letter, o in asked.labelled]
    if asked.kind == "multiple":
        lines.append(f"  {_('(one or more are right)')}")
    if asked.names:
        said = _("(a formula in {names})").format(names=", ".join(asked.names))
        lines.append(f"  {said}")
    return "\n".join([*lines, _("To answer, run:"), f"  {_how(asked)}"])


def as_html(asked: Question) -> str:
    """Give the question as a static page shows it; without any answer."""
    rows = "".join(
        f'<li style="margin:.15em 0">{inline(option.text)}</li>' for option in asked.options
    )
    choices = (
        f'<ol type="A" style="list-style-type:upper-alpha;margin:.3em 0 .3em 1.6em">{rows}</ol>'
        if rows
        else ""
    )
    notes = [_("One or more are right.")] if asked.kind == "multiple" else []
    if asked.names:
        notes = [_("A formula in {names}.").format(names=html.escape(", ".join(asked.names)))]
    how = f"<code>{html.escape(_how(asked), quote=False)}</code>"
    run = _(
        "To answer, run the code cells at the top of this notebook and then this one; "
        "or run in any cell {how}"
    )
    return (
        f'<div class="fewshot-question" style="{FRAME}"><b>{_("Question.")}</b> '
        f"{inline(asked.text)}{choices}"
        f'<div style="font-size:90%">{typeset(" ".join([*notes, run])).format(how=how)}</div></div>'
    )


def _reply_html(reply: Reply) -> str:
    mark = badge(f"✓ {_('Right')}", RIGHT)
    if not reply.right:
        mark = badge(f"✗ {_('Not right')}", WRONG)
    if not reply.counts:
        mark = badge(_("Please try again"), NEUTRAL)
    return (
        f'<div role="status" style="line-height:1.45;max-width:50em">{mark} '
        f"{inline(reply.text)}</div>"
    )


def as_widget(asked: Question) -> Any:
    """Give the question as a live widget; the replies come from the kernel when they are due."""
    import ipywidgets as widgets

    form = _Form(asked)
    note = f'<div style="font-size:90%">{_("One or more are right.")}</div>'
    head = widgets.HTML(
        f'{LOOK}<div style="line-height:1.45"><b>{_("Question.")}</b> {inline(asked.text)}</div>'
        f"{note if asked.kind == 'multiple' else ''}"
    )
    earlier = progress.load().get(f"question:{asked.id}") if progress.recording() else None
    if earlier is not None and earlier.passed:
        form.reply.value = (
            f"<div>{badge('✓', RIGHT)} "
            + _("You answered this correctly on {day}.").format(day=earlier.passed[:10])
            + "</div>"
        )
    return framed([head, *form.controls(), form.reply])


class _Form:
    """The controls of a live question, and the reply below them.

    An answer that has its reply is not judged a second time; a reply goes when its answer changes.
    """

    def __init__(self, asked: Question) -> None:
        import ipywidgets

        self.asked, self.widgets = asked, ipywidgets
        self.reply = ipywidgets.HTML()
        self.judged: Any = None
        self.buttons: list[Any] = []

    def controls(self) -> list[Any]:
        if self.asked.kind == "single":
            return self._one_of()
        return self._some_of() if self.asked.options else self._field()

    def say(self, given: Any) -> Reply | None:
        """Judge an answer and show the reply; None if it has it already."""
        if given == self.judged:
            return None
        self.judged = given
        reply = respond(self.asked, given)
        self.reply.value = _reply_html(reply)
        return reply

    def forget(self, _: Any = None) -> None:
        """Take the reply away: the answer is another one now."""
        self.judged, self.reply.value = None, ""

    def _one_of(self) -> list[Any]:
        self.buttons = [
            option_button(f"{letter}. {option.text}", letter, self._press)
            for letter, option in self.asked.labelled
        ]
        return self.buttons

    def _press(self, pressed: Any, letter: str) -> None:
        reply = self.say(letter)
        if reply is None:
            return
        for button in self.buttons:
            button.style.button_color = button.style.text_color = None
        pressed.style.button_color = RIGHT if reply.right else WRONG
        pressed.style.text_color = "#ffffff"

    def _some_of(self) -> list[Any]:
        boxes = []
        for letter, option in self.asked.labelled:
            box = self.widgets.Checkbox(description=f"{letter}. {plain(option.text)}", indent=False)
            box.layout.width = "auto"
            box.add_class("fewshot-option")
            box.observe(self.forget, "value")
            boxes.append(box)

        def judge_ticked(_: Any) -> None:
            self.say([c for c, box in zip(self.asked.letters, boxes, strict=True) if box.value])

        return [*boxes, push_button(_("Check"), _("Check the answer"), judge_ticked)]

    def _field(self) -> list[Any]:
        names = ", ".join(self.asked.names)
        what = _("a number, or a formula for it")
        if names:
            what = _("a formula in {names}").format(names=names)
        field, submit = typed(_("Your answer"), what, "28em", self.say)
        field.observe(self.forget, "value")
        check = push_button(_("Check"), _("Check the answer"), submit)
        return [self.widgets.HBox([field, check])]


def question(name: str, form: str | None = None) -> None:
    """Ask the reader a question, in the form that fits where this runs.

    Where a person runs a cell it is a live widget, in a saved page it can be read, in a terminal it
    is text; see ``frontend.choose_form``. The answers are in none of them.

    Arguments:
        name: "prototypes.learned".
        form: "live", "static" or "text"; chosen by the front end when omitted.

    Raises:
        NoSuchQuestion: there is no such question; lists those of the notebook.
        ValueError: an unknown form.

    Notebooks: all.

    >>> question("prototypes.learned")  # doctest: +ELLIPSIS
    Question prototypes.learned
    ...
    """
    asked = find(name)
    sentence = _("Question {id}: run this cell to answer it; its text is below.").format(id=name)
    put(asked, form, (as_text, as_html, as_widget), name, sentence)


def answer(name: str, given: str | float | Sequence[str]) -> None:
    """Answer a question where there is nothing to click: in a terminal, or in a cell.

    Arguments:
        name: "prototypes.learned".
        given: a letter, letters, a number or a formula.

    Raises:
        NoSuchQuestion: there is no such question.
    """
    reply = respond(find(name), given)
    text = _("Right. {reply}").format(reply=reply.text) if reply.right else reply.text
    emit({"text/plain": text, "text/html": _reply_html(reply)})
