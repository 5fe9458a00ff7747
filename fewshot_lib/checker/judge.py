"""From outcomes to a verdict: points, what went wrong, and which typical mistake it was.

Everything here is decided from plain outcomes; nothing calls the answer. The reference and the
typical mistakes are run here, on the same cases, in the process that judges.

What is judged may come from a stranger: a value far larger than the expected one is looked at no
further, every other one is first given the form of the reference's (:func:`compare.like`), and
judging one answer takes no longer than :data:`JUDGE_SECONDS`.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import numpy as np
import torch

from fewshot_lib.checker import language as speech
from fewshot_lib.checker.compare import VALUES, as_array, describe, difference, like, size
from fewshot_lib.checker.run import (
    LOST,
    NOT_ATTEMPTED,
    RAISED,
    TOO_SLOW,
    VALUE,
    Outcome,
    TimeIsUp,
    run,
    time_limit,
)
from fewshot_lib.checker.spec import Answer, Case, Check, Exercise, Mistake, Tolerance
from fewshot_lib.checker.values import Fixture, Opaque, Seed

_ = speech.words("checker")

#: How a check may end. A check that is not passed has no points.
PASSED, FAILED, MISSING = "passed", "failed", "not attempted"
ERROR, REFUSAL, LAW, TIME = "error", "refusal", "law", "time"

#: How long judging one answer may take, in seconds; usual is less than one.
JUDGE_SECONDS = 30.0
#: A value may have this many numbers, characters and parts, whatever is expected, ...
ALWAYS_READ = 10_000
#: ... and this many times as many as the expected one.
TIMES_EXPECTED = 20


T = TypeVar("T")


@dataclass(frozen=True)
class CheckVerdict:
    """One line of the report.

    Arguments:
        name: of the check.
        points: reached.
        max_points: that can be reached.
        status: PASSED, FAILED or MISSING.
        stage: at which it failed (see :mod:`compare`, and ERROR, REFUSAL, LAW, TIME).
        sentence: what was found.
        case: the name of the first case that failed.
        mistake: the name of the typical mistake that explains this check, if one does.
        expected, got: plain values of that case, for a picture; None if there is nothing to draw.
    """

    name: str
    points: float
    max_points: float
    status: str
    stage: str = ""
    sentence: str = ""
    case: str = ""
    mistake: str = ""
    pointer: str = ""
    drawn: tuple[Case, Any, Any] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Verdict:
    """What is to be said of one answer.

    Arguments:
        exercise, answer: their names.
        checks: one line each.
        mistakes: the typical mistakes recognised, the one that explains most first.
        notes: remarks that cost no points (it printed, it wrote into its input, it was slow).
        relation: how the numbers relate to the expected ones where no mistake was recognised.
    """

    exercise: str
    answer: str
    checks: tuple[CheckVerdict, ...]
    mistakes: tuple[Mistake, ...] = ()
    notes: tuple[str, ...] = ()
    relation: str = ""

    @property
    def points(self) -> float:
        """Points reached."""
        return sum(check.points for check in self.checks)

    @property
    def max_points(self) -> float:
        """Points that can be reached."""
        return sum(check.max_points for check in self.checks)

    @property
    def status(self) -> str:
        """PASSED (all points), MISSING (the stub as it was) or FAILED."""
        if all(check.status == PASSED for check in self.checks):
            return PASSED
        return MISSING if all(check.status == MISSING for check in self.checks) else FAILED


#: The outcomes of an answer, by check.
Groups = tuple[tuple[Outcome, ...], ...]


class ExpectedResults:
    """An answer's cases for one seed, with what the reference makes of them, and the mistakes.

    Arguments:
        answer: the specification.
        seed: of the cases.
    """

    def __init__(self, answer: Answer, seed: int) -> None:
        self.answer = answer
        self.cases = tuple(tuple(part) for part in answer.draw(seed))
        self.expected = self.grouped(answer.reference)
        for case, outcome in zip(self.flat, (o for g in self.expected for o in g), strict=True):
            if outcome.status not in (VALUE, RAISED):
                raise RuntimeError(
                    f"the reference of {answer.name!r} ended {outcome.status!r} on {case.name!r}"
                )

    @property
    def flat(self) -> list[Case]:
        """All cases in order, as the answer is to be called."""
        return [case for cases in self.cases for case in cases]

    @cached_property
    def mistaken(self) -> tuple[Groups, ...]:
        """What each typical mistake makes of the cases; computed when first asked for."""
        functions = [mistake.function for mistake in self.answer.mistakes]
        return tuple(self.in_expected_form(self.grouped(function)) for function in functions)

    def in_expected_form(self, groups: Groups) -> Groups:
        """Give each outcome's value the form of the reference's on that case, or say it is large.

        A value far larger than the reference's becomes an :class:`values.Opaque`, so that no law,
        comparison or mistake has to do with it.
        """
        return tuple(
            tuple(self._in_expected_form(*pair) for pair in zip(expected, got, strict=True))
            for expected, got in zip(self.expected, groups, strict=True)
        )

    def _in_expected_form(self, expected: Outcome, got: Outcome) -> Outcome:
        if got.status != VALUE:
            return got
        if size(got.value) > max(ALWAYS_READ, TIMES_EXPECTED * size(expected.value)):
            with speech.speaking(speech.SOURCE):  # mistakes are compared with it: one form for all
                what = describe(got.value).partition(" ")[2]
            return replace(got, value=Opaque(f"{what} (far larger than what is expected)"))
        return replace(got, value=like(expected.value, got.value, tuple(self.answer.returns)))

    def grouped(self, function: Callable[..., Any]) -> Groups:
        """Run one of our own functions on all cases; outcomes by check."""
        outcomes = iter(run(function, self.flat, seconds=60.0, ours=True))
        return tuple(tuple(next(outcomes) for _ in cases) for cases in self.cases)


@lru_cache(maxsize=64)
def expected_results(answer: Answer, seed: int) -> ExpectedResults:
    """Draw an answer's cases for a seed and run the reference on them; the last 64 are kept."""
    return ExpectedResults(answer, seed)


def judge(exercise: Exercise, answer: Answer, outcomes: Sequence[Outcome], seed: int) -> Verdict:
    """Judge an answer's outcomes on the cases of a seed.

    Arguments:
        exercise: the exercise it belongs to.
        answer: its specification.
        outcomes: one for each of ``expected_results(answer, seed).flat``, in order.
        seed: with which the cases were drawn.

    Returns:
        The verdict; the same for the same outcomes and seed. Whatever the outcomes hold, it comes
        after about ``JUDGE_SECONDS`` at the latest; what could not be judged is failed and says so.

    Raises:
        ValueError: there are not as many outcomes as cases.
    """
    with speech.speaking(speech.language()):  # asked for once: thousands of sentences are made
        return _judge(exercise, answer, outcomes, seed)


def _judge(exercise: Exercise, answer: Answer, outcomes: Sequence[Outcome], seed: int) -> Verdict:
    drawn = expected_results(answer, seed)
    if len(outcomes) != len(drawn.flat):
        raise ValueError(
            f"{len(drawn.flat)} outcomes are needed, one per case; got {len(outcomes)}"
        )
    remaining = iter(outcomes)
    groups = tuple(tuple(next(remaining) for _ in part) for part in drawn.cases)
    if all(outcome.status == NOT_ATTEMPTED for outcome in outcomes):
        missing = tuple(
            CheckVerdict(check.name, 0.0, check.points, MISSING) for check in answer.checks
        )
        return Verdict(exercise.name, answer.name, missing)
    deadline = time.monotonic() + JUDGE_SECONDS
    groups, told = _guarded(lambda: drawn.in_expected_form(groups), groups, deadline)
    verdicts = [
        _failed(check, ERROR, told)
        if told
        else _in_time(answer, check, cases, expected, group, deadline)
        for check, cases, expected, group in zip(
            answer.checks, drawn.cases, drawn.expected, groups, strict=True
        )
    ]
    mistakes: list[Mistake] = []
    relation = ""
    notes = _notes(drawn, groups, verdicts)
    if not told and any(verdict.status == FAILED for verdict in verdicts):
        begun = time.monotonic()
        mistaken = drawn.mistaken  # outside the limit: it runs our own functions under another
        deadline += time.monotonic() - begun

        def explained() -> tuple[list[CheckVerdict], list[Mistake], str]:
            named, found = _recognise(answer, drawn, mistaken, groups, verdicts)
            return named, found, "" if found else _relation(named)

        (verdicts, mistakes, relation), told = _guarded(
            explained, (verdicts, mistakes, relation), deadline
        )
        notes += [_("No typical mistake was looked for: {told}.").format(told=told)] if told else []
    return Verdict(
        exercise.name, answer.name, tuple(verdicts), tuple(mistakes), tuple(notes), relation
    )


def _guarded(work: Callable[[], T], otherwise: T, deadline: float) -> tuple[T, str]:
    """Do a part of judging; over what a stranger's values do to it, give the reason instead."""
    left = deadline - time.monotonic()
    late = _("your results could not be judged within {seconds} s").format(
        seconds=f"{JUDGE_SECONDS:.0f}"
    )
    if left <= 0:
        return otherwise, late
    try:
        with time_limit(left), np.errstate(all="ignore"):
            return work(), ""
    except TimeIsUp:
        return otherwise, late
    except Exception as error:
        said = f"{type(error).__name__}: {error}".split("\n")[0][:200]
        return otherwise, _("your results could not be judged ({said})").format(said=said)


def _in_time(
    answer: Answer,
    check: Check,
    cases: Sequence[Case],
    expected: Sequence[Outcome],
    got: Sequence[Outcome],
    deadline: float,
) -> CheckVerdict:
    verdict, told = _guarded(
        lambda: _judge_check(answer, check, cases, expected, got), None, deadline
    )
    return verdict or _failed(check, TIME if time.monotonic() > deadline else ERROR, told)


def _failed(
    check: Check, stage: str, sentence: str, case: str = "", drawn: Any = None
) -> CheckVerdict:
    return CheckVerdict(
        check.name, 0.0, check.points, FAILED, stage, sentence, case, "", check.pointer, drawn
    )


def _judge_check(
    answer: Answer,
    check: Check,
    cases: Sequence[Case],
    expected_outcomes: Sequence[Outcome],
    outcomes: Sequence[Outcome],
) -> CheckVerdict:
    def failed(stage: str, sentence: str, case: Case | None, drawn: Any = None) -> CheckVerdict:
        name = f"{case_name(case)}: {_call(answer, case)}" if case else ""
        return _failed(check, stage, sentence, name, drawn)

    for case, expected, got in zip(cases, expected_outcomes, outcomes, strict=True):
        if expected.status == VALUE or got.status not in (VALUE, RAISED):
            problem = _no_value(got, answer)
            if problem:
                return failed(*problem, case)
        if expected.status == RAISED:
            if got.status == VALUE:
                said = _(
                    "this input makes no sense and must be refused with a {error}; "
                    "your function returned a result"
                )
                return failed(REFUSAL, said.format(error=expected.error[0]), case)
            if expected.error[0] not in got.error:
                said = _("this input must be refused with a {error}; your function raised {raised}")
                return failed(
                    REFUSAL, said.format(error=expected.error[0], raised=_error(got)), case
                )
            continue
        absent = got.value is None or isinstance(got.value, Opaque)
        if check.law is not None and not check.like_reference and not absent:
            continue
        found = difference(
            expected.value,
            got.value,
            case.tolerance or answer.tolerance,
            values=check.law is None,
            names=tuple(answer.returns),
        )
        if found is not None:
            drawn = (case, expected.value, got.value) if found.stage == VALUES else None
            return failed(found.stage, found.sentence, case, drawn)
    if check.law is not None:
        sentence = _broken_law(check, cases, outcomes)
        if sentence:
            return failed(LAW, sentence, cases[0] if len(cases) == 1 else None)
    return CheckVerdict(check.name, check.points, check.points, PASSED)


def case_name(case: Case) -> str:
    """Say what is special about a case, in the reader's language."""
    return speech.translate_message(case.name, "outcomes")


def _call(answer: Answer, case: Case) -> str:
    """Write what the answer was called with: shapes of arrays, values of short plain things."""
    names = [*answer.signature.parameters]
    said = [
        _argument(names[position] if position < len(names) else "", value)
        for position, value in enumerate(case.args)
    ]
    said += [_argument(name, value) for name, value in case.kwargs.items()]
    return ", ".join(said)


def _argument(name: str, value: Any) -> str:
    if isinstance(value, torch.Tensor | np.ndarray):
        shape = tuple(value.shape)
        return f"{name} {shape}" if value.ndim else _("{name} one number").format(name=name)
    if isinstance(value, Seed):
        return _("{name} with seed {seed}").format(name=name, seed=value.value)
    if isinstance(value, Fixture):
        return f"{name} {value.name}"
    short = repr(value)
    if len(short) <= 24:
        return f"{name}={short}"
    return _("{name} of {n}").format(name=name, n=len(value))


def _broken_law(check: Check, cases: Sequence[Case], got: Sequence[Outcome]) -> str:
    assert check.law is not None
    try:
        holds = check.law(cases, [outcome.value for outcome in got])
    except Exception:  # a stranger's values may be of any kind, infinite or NaN: it does not hold
        return check.says or _("the results are not of a kind for which this could hold")
    if isinstance(holds, str):
        return speech.translate_message(holds, "outcomes")
    return "" if holds else (check.says or _("this does not hold"))


def _error(outcome: Outcome) -> str:
    name = outcome.error[0] if outcome.error else _("an error")
    said = f"{name}: {outcome.message}" if outcome.message else name
    return f"{said}  ({_where(outcome)})" if outcome.where else said


def _where(outcome: Outcome) -> str:
    """Give the line that raised; it was said in English, where it ran."""
    found = re.fullmatch(r"line (\d+): (.*)", outcome.where, re.S)
    if not found:
        return outcome.where
    return _("line {number}: {code}").format(number=found[1], code=found[2])


def _message(outcome: Outcome) -> str:
    """Give what was said of a call without an end; it was said in English, where it ran."""
    found = re.fullmatch(r"stopped after ([\d.]+) s", outcome.message)
    if found:
        return _("stopped after {seconds} s").format(seconds=found[1])
    said = {
        "no time was left for this call": _("no time was left for this call"),
        "the reply is not an outcome": _("the reply is not an outcome"),
    }
    return said.get(outcome.message, outcome.message)


def _no_value(outcome: Outcome, answer: Answer) -> tuple[str, str] | None:
    if outcome.status == RAISED:
        name = outcome.error[0] if outcome.error else ""
        known = {
            "NotImplementedError": _(
                "your function calls one that is not written yet ({message})  ({where})"
            ),
            "RecursionError": _("your function calls itself without end  ({where})"),
            "SystemExit": _("your function ends the program (sys.exit, quit)  ({where})"),
        }
        if name in known:
            return ERROR, known[name].format(message=outcome.message, where=_where(outcome))
        if (
            name == "TypeError"
            and "argument" in outcome.message
            and (f"{answer.name}()" in outcome.message or not outcome.where)
        ):
            said = _("it is called as {call} and cannot be: {message}")
            call = f"{answer.name}{answer.signature}"
            return ERROR, said.format(call=call, message=outcome.message)
        return ERROR, _("your function raised {error}").format(error=_error(outcome))
    if outcome.status == TOO_SLOW:
        said = _("your function was too slow here: {message}")
        return TIME, said.format(message=_message(outcome))
    if outcome.status == LOST:
        said = _("no result came back: {message}")
        return ERROR, said.format(message=_message(outcome) or _("the process ended"))
    if outcome.status == NOT_ATTEMPTED:
        said = _("this branch is not written yet: {message}")
        return ERROR, said.format(message=outcome.message)
    return None


def _equal(one: Outcome, other: Outcome, tolerance: Tolerance) -> bool:
    if one.status != other.status:
        return False
    if one.status == VALUE:
        return difference(one.value, other.value, tolerance) is None
    return one.status == RAISED and one.error[:1] == other.error[:1]


def _recognise(
    answer: Answer,
    drawn: ExpectedResults,
    mistaken: Sequence[Groups],
    groups: Sequence[Sequence[Outcome]],
    verdicts: Sequence[CheckVerdict],
) -> tuple[list[CheckVerdict], list[Mistake]]:
    """Find the typical mistakes whose outcomes are the answer's.

    First the one that equals it on every case. Else, for each failed check, the one that equals it
    on all of the check's cases, if these cases can tell it from all else that comes to mind: from
    the reference by a *value* (two unlike answers often fail by the same exception, seldom by the
    same numbers), from every other mistake, and from a constant. A wrong diagnosis is worse than
    none.
    """
    equal, seen = [], []  # mistake × check: equals the answer on all cases; would be seen there
    for outcomes in mistaken:
        same, shows = [], []
        for cases, expected, got, mistaken_ones in zip(
            drawn.cases, drawn.expected, groups, outcomes, strict=True
        ):
            tolerances = [case.tolerance or answer.tolerance for case in cases]
            same.append(all(map(_equal, mistaken_ones, got, tolerances)))
            shows.append(
                same[-1]
                and not _is_constant(expected, got)
                and any(
                    given.status == VALUE and not _equal(right, given, tolerance)
                    for right, given, tolerance in zip(expected, got, tolerances, strict=True)
                )
            )
        equal.append(same)
        seen.append(shows)

    whole = [place for place, same in enumerate(equal) if all(same)]
    if len(whole) == 1:
        mistake = answer.mistakes[whole[0]]
        named = [_with_mistake(v, mistake) if v.status == FAILED else v for v in verdicts]
        return named, [mistake]

    failed = [place for place, verdict in enumerate(verdicts) if verdict.status == FAILED]
    fits = {check: [place for place, same in enumerate(equal) if same[check]] for check in failed}
    found = {
        check: fitting[0]
        for check, fitting in fits.items()
        if len(fitting) == 1 and seen[fitting[0]][check]
    }
    for check, fitting in fits.items():  # where several fit, the one that another check shows
        known = sorted(set(fitting) & set(found.values()))
        if check not in found and len(known) == 1 and seen[known[0]][check]:
            found[check] = known[0]
    counts = Counter(found[check] for check in sorted(found))
    named = [
        _with_mistake(verdict, answer.mistakes[found[place]]) if place in found else verdict
        for place, verdict in enumerate(verdicts)
    ]
    return named, [answer.mistakes[place] for place, _ in counts.most_common()]


def _is_constant(expected: Sequence[Outcome], outcomes: Sequence[Outcome]) -> bool:
    """Say whether each part that is wrong is one value throughout, or real 0s and 1s alone.

    Constants and thresholds give such results, whatever they are computed from.
    """
    parts: dict[tuple[Any, ...], set[Any]] = {}

    def collect(right: Any, value: Any, path: tuple[Any, ...]) -> None:
        array = as_array(value)
        if difference(right, value, Tolerance()) is None:
            return
        if array is not None and array.dtype.kind == "f":
            parts.setdefault(path, set()).update(np.unique(array[~np.isnan(array)]).tolist())
        elif array is not None:
            parts.setdefault(path, set()).update(map(str, np.unique(array)))
        elif isinstance(value, dict | tuple | list):
            pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
            like = isinstance(right, type(value)) and len(right) == len(value)
            for key, part in pairs:
                known = like and (not isinstance(right, dict) or key in right)
                collect(right[key] if known else None, part, (*path, key))
        else:
            parts.setdefault(path, set()).add(repr(value))

    for right, outcome in zip(expected, outcomes, strict=True):
        if outcome.status == VALUE:
            collect(right.value, outcome.value, ())
    return all(len(values) < 2 or values == {0.0, 1.0} for values in parts.values())


def _with_mistake(verdict: CheckVerdict, mistake: Mistake) -> CheckVerdict:
    return replace(verdict, mistake=mistake.name, pointer=mistake.pointer or verdict.pointer)


def _relation(verdicts: Sequence[CheckVerdict]) -> str:
    """Name the relation that holds in every case drawn, so that none is named by accident."""
    drawn = [verdict.drawn for verdict in verdicts if verdict.drawn is not None]
    said = {relation(expected, got) for _, expected, got in drawn}
    return said.pop() if len(said) == 1 else ""


def relation(expected: Any, got: Any) -> str:
    """Say how wrong numbers relate to the expected ones, if simply: sign, factor, offset, order.

    >>> relation(np.array([1.0, 2.0]), np.array([-1.0, -2.0]))
    'every number has the wrong sign'
    """
    arrays = as_array(expected), as_array(got)
    if any(array is None or array.dtype.kind not in "fiu" for array in arrays):
        return ""
    right, wrong = (np.asarray(array, dtype=float) for array in arrays)
    if right.shape != wrong.shape or right.size < 2:
        return ""
    if not (np.isfinite(right).all() and np.isfinite(wrong).all()) or np.ptp(right) == 0:
        return ""

    def near(one: np.ndarray, other: np.ndarray) -> bool:
        return bool(np.allclose(one, other, rtol=1e-3, atol=1e-6 * float(np.abs(one).max())))

    if near(right, -wrong):
        return _("every number has the wrong sign")
    if np.ptp(wrong) == 0:
        return _("all your numbers are the same; the expected ones are not")
    big = np.abs(right) > 1e-9 * np.abs(right).max()
    factors = wrong[big] / right[big]
    if near(factors, np.full_like(factors, factors.mean())) and near(wrong, right * factors.mean()):
        said = _("every number is {factor} times the expected one")
        return said.format(factor=f"{factors.mean():.3g}")
    offset, spread = wrong - right, 1e-3 * float(np.ptp(right))
    if np.ptp(offset) < spread:
        return _("every number is off by the same amount")
    if (right >= 0).all() and (wrong >= 0).all():
        if near(wrong, np.sqrt(right)):
            return _("your numbers are the square roots of the expected ones")
        if near(wrong, right**2):
            return _("your numbers are the squares of the expected ones")
    with np.errstate(all="ignore"):
        if near(np.nan_to_num(np.exp(right)), wrong):
            return _(
                "your numbers are the exponentials of the expected ones (probabilities for logs?)"
            )
        if (wrong > 0).all() and near(np.exp(wrong), right):
            return _("your numbers are the logarithms of the expected ones")
    if right.ndim >= 2:
        for axis in range(right.ndim):
            if right.shape[axis] > 1 and (np.ptp(offset, axis) < spread).all():
                return _(
                    "along axis {axis} your numbers are off by a constant: "
                    "something that should cancel or be normalised is left in"
                ).format(axis=axis)
        if right.shape[-1] == right.shape[-2] and near(right, np.swapaxes(wrong, -1, -2)):
            return _("your result is the transpose of the expected one")
    if near(np.sort(right, axis=None), np.sort(wrong, axis=None)):
        return _("your numbers are the expected ones, in other places")
    return ""


def _notes(
    drawn: ExpectedResults, groups: Sequence[Sequence[Outcome]], verdicts: Sequence[CheckVerdict]
) -> list[str]:
    outcomes = [outcome for group in groups for outcome in group]
    notes = []
    if any(outcome.changed_input for outcome in outcomes):
        notes.append(
            _(
                "Your function writes into its arguments; the data of whoever calls it are lost. "
                "Work on a copy, or avoid operations that end in an underscore."
            )
        )
    printed = sum(outcome.printed_chars for outcome in outcomes)
    if printed > 2_000:
        said = _("Your function printed {n} characters; they are not shown here.")
        notes.append(said.format(n=f"{printed:,}"))
    spent = sum(outcome.seconds for outcome in outcomes)
    times = sorted(outcome.seconds for part in drawn.expected for outcome in part)
    usual = len(times) * times[len(times) // 2]  # the first call of all may cost an import
    if spent > 0.5 and spent > 20 * usual and all(v.status == PASSED for v in verdicts):
        said = _(
            "Right, but slow: {spent} s where the library needs {usual} s. "
            "A loop over rows or classes can usually become one tensor expression."
        )
        notes.append(said.format(spent=f"{spent:.1f}", usual=f"{max(usual, 0.001):.3f}"))
    return notes
