"""What a notebook calls: ``check``, ``carry_on``, ``hint``, ``solution``, ``rubric``."""

from __future__ import annotations

import html
import inspect
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fewshot_lib.checker import catalogue, progress
from fewshot_lib.checker.catalogue import NoSuchExercise
from fewshot_lib.checker.console import say
from fewshot_lib.checker.course import course
from fewshot_lib.checker.disabled import disabled, enabled
from fewshot_lib.checker.frontend import LOOK, choose_form, emit_live
from fewshot_lib.checker.judge import (
    MISSING,
    PASSED,
    CheckVerdict,
    Verdict,
    case_name,
    expected_results,
    judge,
)
from fewshot_lib.checker.language import words
from fewshot_lib.checker.markup import inline, plain
from fewshot_lib.checker.notebook import without_markers
from fewshot_lib.checker.report import Message, Report, number
from fewshot_lib.checker.run import run
from fewshot_lib.checker.spec import Answer, Exercise, Prose
from fewshot_lib.checker.specification import cell
from fewshot_lib.checker.values import revive

_ = words("checker")

#: The seed of the reader's cases. Grading draws its own.
PUBLIC_SEED = 0
#: After so many attempts the solution may be looked at.
ATTEMPTS_BEFORE_SOLUTION = 3
#: How long all calls of one check may take together, seconds.
TIME_LIMIT = 5.0

_LAST: dict[str, tuple[Any, Verdict]] = {}


class Points:
    """What a check returns: the points, as a number.

    Its text is the number alone: nbgrader reads partial credit from the text of a cell's result.
    Its HTML shows nothing, because the report above it has said the points already.
    The verdict is at hand for those who want more: ``check(...).verdict``.
    """

    def __init__(self, points: float, max_points: float, verdict: Verdict | None = None) -> None:
        self.points, self.max_points, self.verdict = points, max_points, verdict

    def __repr__(self) -> str:
        return number(self.points)

    def _repr_html_(self) -> str:
        return "<span hidden></span>"

    def __float__(self) -> float:
        return float(self.points)


class StandIn:
    """The library's function where an answer is missing; :func:`check` gives it no points."""

    def __init__(self, name: str, reference: Callable[..., Any]) -> None:
        self.reference = reference
        self.__name__ = name
        self.__doc__ = reference.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with enabled():  # the answer that is checked may call it
            return self.reference(*args, **kwargs)

    def __repr__(self) -> str:
        said = _("the library's {name}, standing in for yours")
        return f"<{said.format(name=self.__name__)}>"


def check(name: str, answer: Any = None, *, seed: int = PUBLIC_SEED) -> Points:
    """Check an answer, show the report, remember the attempt, return the points.

    Arguments:
        name: the exercise ("prototypes"), or exercise and answer ("prototypes.class_prototypes").
        answer: the function. Without it, the variable of that name in the calling notebook.
        seed: of the cases; any number shows other ones.

    Returns:
        Points. Never raises, whatever the answer does; only an interrupt by the user goes through.

    >>> check("prototypes.nothing", len)  # doctest: +ELLIPSIS
    exercise 'prototypes' has no answer 'nothing'; it has class_prototypes, ...
    0
    """
    try:
        if answer is None and "." in name:
            answer = sys._getframe(1).f_globals.get(name.rpartition(".")[2])
        called = _name_of(name, answer, sys._getframe(1).f_globals)
        exercise, specification = catalogue.answer(name, called)
    except NoSuchExercise as error:
        show(Message(str(error)))
        return Points(0, 0)
    try:
        return _check(exercise, specification, answer, seed)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # our own fault: say so, and let the notebook go on
        show(
            Message(
                _("This check itself failed, which is our fault, not yours: {error}").format(
                    error=f"{type(error).__name__}: {error}"
                ),
                _("Please report it, with what `fewshot doctor` prints."),
            )
        )
        return Points(0, specification.points)


def _check(exercise: Exercise, answer: Answer, function: Any, seed: int) -> Points:
    key = f"{exercise.name}.{answer.name}"
    verdict, remark = examine(exercise, answer, function, seed)
    suggestions = [remark] if remark else []
    if verdict.status != MISSING and seed == PUBLIC_SEED:
        suggestions += remember(key, verdict, answer)
    show(Report(verdict, answer, tuple(suggestions), numbers=seed == PUBLIC_SEED))
    _LAST[key] = (function, verdict)
    return Points(verdict.points, verdict.max_points, verdict)


def examine(
    exercise: Exercise, answer: Answer, function: Any, seed: int = PUBLIC_SEED
) -> tuple[Verdict, str]:
    """Run and judge an answer without showing or remembering anything.

    Returns:
        The verdict, and a remark if the answer was not looked at for a reason.
    """
    missing = Verdict(
        exercise.name,
        answer.name,
        tuple(CheckVerdict(line.name, 0.0, line.points, MISSING) for line in answer.checks),
    )
    if function is None:
        return missing, ""
    if isinstance(function, StandIn):
        return missing, _(
            "the library's function stands in here: run the cell of your answer first"
        )
    if function is answer.reference or _is_the_librarys(function):
        return missing, _("this is the library's own function; write yours")
    if not callable(function):
        return missing, _("{answer} is not a function but a {kind}").format(
            answer=answer.name, kind=type(function).__name__
        )
    # the reference runs here, before anything is disabled
    cases = expected_results(answer, seed).flat
    with disabled(exercise):
        outcomes = run(function, cases, TIME_LIMIT)
    return judge(exercise, answer, outcomes, seed), ""


def remember(key: str, verdict: Verdict, answer: Answer) -> list[str]:
    """Note an attempt in the reader's progress; give what to offer next, one line each."""
    if not progress.recording():
        return []
    try:
        row = progress.attempt(key, verdict.points, verdict.max_points)
    except progress.ProgressNotSaved as error:
        return [_("your progress could not be saved: {error}").format(error=error)]
    if verdict.status == PASSED:
        return [_('compare with our solution: `solution("{key}")`').format(key=key)]
    suggestions = []
    if any(line.case for line in verdict.checks):
        tried = _('the input that failed, to try it: `{answer}(*example("{key}"))`')
        suggestions.append(tried.format(answer=answer.name, key=key))
    if row.hints < len(answer.hints):
        offered = _('a hint (step {step} of {steps}): `hint("{key}")`')
        suggestions.append(offered.format(step=row.hints + 1, steps=len(answer.hints), key=key))
    if row.attempts >= ATTEMPTS_BEFORE_SOLUTION:
        opened = _('you can now view our solution: `solution("{key}")`')
        suggestions.append(opened.format(key=key))
    return suggestions


def carry_on(name: str, answer: Any) -> Any:
    """Give the answer if it passes its check, else the library's function under a banner.

    For the cells of an exercise that build on an answer: they run from top to bottom whether it is
    written or not. ``class_prototypes = carry_on("prototypes", class_prototypes)``

    Arguments:
        name: as for :func:`check`.
        answer: the function as it is now.

    Returns:
        ``answer``, or a :class:`StandIn`.

    Raises:
        NoSuchExercise: there is no such answer.
    """
    called = _name_of(name, answer, sys._getframe(1).f_globals)
    exercise, specification = catalogue.answer(name, called)
    if isinstance(answer, StandIn):
        return answer
    key = f"{exercise.name}.{specification.name}"
    last = _LAST.get(key)
    verdict = (
        last[1]
        if last is not None and last[0] is answer
        else examine(exercise, specification, answer)[0]
    )
    if verdict.status == PASSED:
        return answer
    if verdict.status == MISSING:
        said = _("{answer} is not written yet: from here on the course's own stands in for it.")
    else:
        said = _(
            "{answer} does not pass its check yet: from here on the course's own stands in for it."
        )
    show(
        Message(
            said.format(answer=specification.name),
            _(
                "What follows is computed with the course's function, not with yours. "
                "Run your cell, its check and this cell again when it is right."
            ),
            colour="#b58900",
        )
    )
    return StandIn(specification.name, specification.reference)


def example(name: str) -> tuple[Any, ...]:
    """Give the arguments of the first case that failed at the last check, to try for yourself.

    ``class_prototypes(*example("prototypes.class_prototypes"))``

    Arguments:
        name: "prototypes.class_prototypes".

    Returns:
        The positional arguments, made anew; those of the first case of all if none has failed.

    Raises:
        NoSuchExercise: there is no such answer.
    """
    exercise, answer = catalogue.answer(name)
    cases = expected_results(answer, PUBLIC_SEED).flat
    last = _LAST.get(f"{exercise.name}.{answer.name}")
    failed = [line.case for line in last[1].checks if line.case] if last else []
    named = (c for c in cases if failed and failed[0].startswith(f"{case_name(c)}:"))
    chosen = next(named, cases[0])
    call = answer.signature.bind(*revive(chosen.args), **revive(dict(chosen.kwargs)))
    return call.args


def hint(name: str, step: int | None = None) -> None:
    """Show the next step of an answer's hints, or a given one (1, 2, …); remembered.

    Arguments:
        name: "prototypes.class_prototypes".
        step: which; the first one not read yet when omitted.
    """
    try:
        exercise, answer = catalogue.answer(name)
    except NoSuchExercise as error:
        show(Message(str(error)))
        return
    key, count = f"{exercise.name}.{answer.name}", len(answer.hints)
    read, remark = 0, ""
    try:
        read = progress.load().get(key, progress.Row(key)).hints
        number_ = min(read + 1, count) if step is None else max(1, min(step, count))
        if progress.recording():
            progress.hint_read(key, number_)
    except progress.ProgressNotSaved as error:
        number_, remark = (
            step or 1,
            "\n" + _("(your progress could not be saved: {error})").format(error=error),
        )
    title = _("Hint {step} of {steps} to {answer}").format(
        step=number_, steps=count, answer=answer.name
    )
    show(Message(title, answer.hints[number_ - 1] + remark))


def solution(name: str) -> None:
    """Show our way of writing an answer: after a pass, or after three attempts."""
    try:
        exercise, answer = catalogue.answer(name)
    except NoSuchExercise as error:
        show(Message(str(error)))
        return
    key = f"{exercise.name}.{answer.name}"
    row = progress.load().get(key, progress.Row(key))
    left = ATTEMPTS_BEFORE_SOLUTION - row.attempts
    if not row.passed and left > 0:
        opens = (
            _("{answer}: the solution opens when yours passes, or after 1 more attempt.")
            if left == 1
            else _("{answer}: the solution opens when yours passes, or after {left} more attempts.")
        )
        until = _('Until then: `hint("{key}")`.').format(key=key)
        show(Message(opens.format(answer=answer.name, left=left), until))
        return
    source, origin = _solution_source(exercise, answer)
    show(Message(_("{answer}, {origin}").format(answer=answer.name, origin=origin), code=source))


def _solution_source(exercise: Exercise, answer: Answer) -> tuple[str, str]:
    if answer.solution is None:
        return textwrap.dedent(inspect.getsource(answer.reference)), _("as the library has it")
    origin = _("as in {file}").format(file=f"solutions/{exercise.stem}.ipynb")
    return without_markers(cell(answer.solution)), origin


def rubric(name: str, show_model: bool = False, form: str | None = None) -> None:
    """Show what a text is judged by; then a model answer to compare with.

    Where a person runs the cell the points can be ticked, which is remembered, and the model answer
    comes by a button; elsewhere ``show_model=True`` shows it.

    Arguments:
        name: "prototypes.temperature".
        show_model: after you have written yours.
        form: "live", "static" or "text"; chosen by the front end when omitted.
    """
    word, wanted = (*name.split(".", 1), "")[:2]
    try:
        texts = {text.name: text for text in catalogue.exercise(word).prose}
        if wanted not in texts:
            there = ", ".join(texts) or _("none")
            raise NoSuchExercise(
                _("no text {name}; there are {names}").format(name=repr(name), names=there)
            )
    except NoSuchExercise as error:
        show(Message(str(error)))
        return
    text = texts[wanted]
    ticked = _ticked(name, text)
    said = _saved_rubric(name, text, show_model, ticked)
    if choose_form(form) == "live":
        sentence = _(
            "{name}: run this cell to tick what your text says; the points are below."
        ).format(name=name)
        data = {"text/plain": repr(said), "text/html": said._repr_html_()}
        emit_live(_live_rubric(name, text, show_model, ticked), name, sentence, data, {})
    else:
        show(said)


def _ticked(name: str, text: Prose) -> list[int]:
    """Give the points of a rubric that were ticked before."""
    if not progress.recording():
        return []
    row = progress.load().get(name, progress.Row(name))
    return [place for place in row.ticked if 0 <= place < len(text.rubric)]


def _saved_rubric(name: str, text: Prose, show_model: bool, ticked: Sequence[int]) -> Message:
    """Give the rubric to be read."""
    points = "\n".join(
        f"{'☑' if place in ticked else '☐'} {line}" for place, line in enumerate(text.rubric)
    )
    if show_model:
        points += "\n\n" + _("A model answer. {model}").format(model=text.model)
    else:
        module = course().module
        how = f'import {module}; {module}.rubric("{name}", show_model=True)'
        first = _("Write first; then this line shows a model answer, in any cell:")
        points += f"\n{first}\n`{how}`"
    return Message(_("Does your text say this? (To tick the points, run this cell.)"), points)


def _live_rubric(name: str, text: Prose, show_model: bool, ticked: Sequence[int]) -> Any:
    """Make the rubric as boxes to tick; the ticks are remembered."""
    import ipywidgets as widgets

    first = html.escape(_("Write first. Then tick what your text says."))
    title = widgets.HTML(f"{LOOK}<b>{first}</b>")
    boxes = [
        widgets.Checkbox(description=plain(line), value=place in ticked, indent=False)
        for place, line in enumerate(text.rubric)
    ]
    for box in boxes:
        box.layout.width = "auto"
        box.add_class("fewshot-option")
    button = widgets.Button(description=_("Show a model answer"))
    button.layout.width = "14em"
    below = widgets.HTML()

    def remember(change: Any) -> None:
        chosen = [place for place, box in enumerate(boxes) if box.value]
        points = text.points * len(chosen) / len(boxes)
        try:
            if progress.recording():
                progress.tick(name, chosen, points, text.points)
        except progress.ProgressNotSaved as error:
            said = _("Your progress could not be saved: {error}").format(error=error)
            below.value = html.escape(said)

    def reveal(button: Any) -> None:
        below.value = (
            f'<div style="line-height:1.45;max-width:50em"><b>{html.escape(_("A model answer."))}'
            f"</b> {inline(text.model)}</div>"
        )

    for box in boxes:
        box.observe(remember, "value")
    button.on_click(reveal)
    if show_model:
        reveal(None)
    whole = widgets.VBox([title, *boxes, button, below])
    whole.layout.border_left, whole.layout.padding = "4px solid #4c5f7a", "0.3em 1em"
    whole.layout.max_width = "54em"
    return whole


def show(what: Report | Message) -> None:
    """Show something where this program runs: a notebook, IPython, a terminal, a file."""
    if "IPython" in sys.modules:
        from IPython import get_ipython

        if get_ipython() is not None:
            from IPython.display import display

            display(what)
            return
    if isinstance(what, Report):
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        say(what.terminal(colour, encoding))
    else:
        say(repr(what))


def _name_of(exercise: str, answer: Any, variables: Mapping[str, Any]) -> str:
    """Give the name of an answer: its own, or for what has another one the notebook's variable."""
    try:
        name = getattr(answer, "__name__", "")
    except KeyboardInterrupt:
        raise
    except BaseException:  # the answer's own __getattr__ may do anything
        name = ""
    name = name if type(name) is str else ""
    if answer is None or "." in exercise:
        return name
    names = [one.name for one in catalogue.exercise(exercise).answers]
    if name in names:
        return name
    return next((one for one in names if variables.get(one) is answer), name)


def _is_the_librarys(function: Any) -> bool:
    module = getattr(function, "__module__", "") or ""
    inside = module.startswith(course().library + ".")
    return inside and not module.startswith(course().exercises + ".")
