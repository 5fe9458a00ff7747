"""Compare what an answer returned with what was expected, stage by stage, on plain values.

The stages are those in which a reader can be helped differently: kind (a list of things where an
array belongs), shape, number type, NaN, values. What is found is said in words that show where and
how, never the expected numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot_lib.checker.language import translate_message, words
from fewshot_lib.checker.spec import Tolerance
from fewshot_lib.checker.values import MAX_AXES, Opaque

_ = words("checker")

#: What :func:`describe` says is never longer.
MAX_DESCRIPTION = 300
#: The stages, in the order in which they are looked at.
KIND, SHAPE, NUMBERS, NAN, VALUES = "kind", "shape", "number type", "not a number", "values"


@dataclass(frozen=True)
class Finding:
    """A difference: the stage at which it showed, the sentence, and which part of the result."""

    stage: str
    sentence: str
    part: str = ""


def as_array(value: Any) -> np.ndarray | None:
    """Read a plain value as one array of numbers, if it is one.

    Numbers, arrays, and lists or tuples of equally shaped ones are; texts and mixtures are not.

    >>> as_array([np.zeros(2), [1, 2]]).shape
    (2, 2)
    """
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, bool | int | float | complex):
        return _of_numbers(value)
    if not isinstance(value, list | tuple):
        return None
    if all(type(part) in (bool, int, float, complex) for part in value):  # the usual, at once
        return _of_numbers(value)
    parts = [as_array(part) for part in value]
    first = parts[0]
    if first is None or first.ndim >= MAX_AXES:
        return None
    if all(part is not None and part.shape == first.shape for part in parts):
        return np.stack(parts)  # type: ignore[arg-type]
    return None


def _of_numbers(value: Any) -> np.ndarray | None:
    array = np.asarray(value)
    # integers beyond 64 bits are not numbers here
    return array if array.dtype.kind in "biufc" else None


def size(value: Any) -> int:
    """Count the numbers, characters and parts of a plain value.

    >>> size((np.zeros((2, 3)), "ab", [1]))
    13
    """
    if isinstance(value, np.ndarray):
        return int(value.size)
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return len(value) + sum(map(len, value)) + sum(map(size, value.values()))
    if isinstance(value, list | tuple):
        return len(value) + sum(map(size, value))
    return 1


def like(expected: Any, got: Any, names: tuple[str, ...] = ()) -> Any:
    """Give a plain value the build of the expected one, where it holds the same parts.

    Several results may come as a tuple, a list, a dict or data class with the documented names, or
    stacked in one array; numbers may come as Python's, in lists or as arrays. What looks at a value
    after this needs to know one form only. Numbers and their types stay as they are.

    Arguments:
        expected: the reference's plain value.
        got: the answer's.
        names: of the parts, where several things are expected.

    Returns:
        ``got`` in the form of ``expected``; as it was, if it has no such form.

    >>> like((1.0, np.zeros(2)), {"b": [1.0, 2.0], "a": np.ones(())}, names=("a", "b"))
    (1.0, array([1., 2.]))
    """
    labels = _labels(expected, names)
    if labels is not None:
        found = _split(labels, got)
        if found is None:
            return got
        wanted = expected.values() if isinstance(expected, dict) else expected
        parts = [like(*pair) for pair in zip(wanted, found, strict=True)]
        if isinstance(expected, dict):
            return dict(zip(labels, parts, strict=True))
        return type(expected)(parts)
    if isinstance(expected, np.ndarray | bool | int | float | complex):
        array = as_array(got)
        if array is None:
            return got
        if not isinstance(expected, np.ndarray):
            return array.item() if array.ndim == 0 else array
        return array if array.size else array.astype(expected.dtype)  # no numbers have any type
    return got


def _labels(expected: Any, names: tuple[str, ...]) -> list[str] | None:
    """Name the parts of an expected value; None if it is one thing: an array, a number, a text."""
    if isinstance(expected, dict):
        return list(expected)
    if not isinstance(expected, tuple | list):
        return None
    if names and len(names) == len(expected):
        return list(names)
    if as_array(expected) is not None:
        return None
    return _ordinals(len(expected))


def _split(labels: list[str], got: Any) -> list[Any] | None:
    """Find the parts of what was returned; None if it has other ones."""
    if isinstance(got, dict):
        return [got[label] for label in labels] if all(label in got for label in labels) else None
    if isinstance(got, tuple | list):
        return list(got) if len(got) == len(labels) else None
    if isinstance(got, np.ndarray) and got.ndim and len(got) == len(labels) > 1:
        return [np.asarray(part) for part in got]
    return None


def family(array: np.ndarray) -> str:
    """Name the family of an array's numbers: bool, whole, real or complex."""
    return {"b": "bool", "i": "whole", "u": "whole", "f": "real", "c": "complex"}[array.dtype.kind]


def difference(
    expected: Any,
    got: Any,
    tolerance: Tolerance,
    values: bool = True,
    names: tuple[str, ...] = (),
    part: str = "",
) -> Finding | None:
    """Find the first difference between an expected and a returned plain value.

    Arguments:
        expected: the reference's plain value.
        got: the answer's.
        tolerance: for real numbers.
        values: False to look at kind, shape, number type and NaN only.
        names: of the parts, where several things are expected.
        part: the part looked at, for the sentence.

    Returns:
        The finding of the earliest stage, or None if there is no difference.

    >>> difference(np.zeros(3), np.zeros((3, 1)), Tolerance()).stage
    'shape'
    """
    labels = _labels(expected, names)
    if labels is not None:
        wanted = list(expected.values()) if isinstance(expected, dict) else list(expected)
        return _parts(labels, wanted, got, tolerance, values, part)
    array = as_array(expected)
    if array is None:
        return _other(expected, got, values, part)
    return _arrays(array, got, tolerance, values, part)


def first_difference(
    expected: Any, got: Any, tolerance: Tolerance, names: tuple[str, ...] = ()
) -> tuple[str, str, str] | None:
    """Find the first number that differs: where it stands, what is expected, what it is.

    Both are written with as many digits as tell them apart.

    >>> first_difference(np.array([0.5, 0.571]), np.array([0.5, 0.582]), Tolerance())
    (' at [1]', '0.571', '0.582')
    """
    wanted, found = as_array(expected), as_array(got)
    if isinstance(expected, tuple) and names and len(names) == len(expected):
        wanted = None
    if wanted is None or found is None or wanted.shape != found.shape:
        if not isinstance(expected, tuple | list) or not isinstance(got, tuple | list | np.ndarray):
            return None
        if len(expected) != len(got):
            return None
        labels = names if len(names) == len(expected) else _ordinals(len(expected))
        for label, one, other in zip(labels, expected, got, strict=True):
            place = first_difference(one, other, tolerance)
            if place is not None:
                inside = _(" in «{part}»{place}").format(part=_label(label), place=place[0])
                return inside, *place[1:]
        return None
    for index in np.ndindex(wanted.shape):
        one, other = wanted[index].item(), found[index].item()
        if difference(one, other, tolerance) is not None:
            where = _(" at {index}").format(index=list(index)) if index else ""
            return where, *_written(one, other)
    return None


def _written(one: Any, other: Any) -> tuple[str, str]:
    if not isinstance(one, float) and not isinstance(other, float):
        return str(one), str(other)
    for digits in range(3, 18):
        written = f"{one:.{digits}g}", f"{other:.{digits}g}"
        if written[0] != written[1]:
            return written
    return repr(one), repr(other)


def _ordinals(count: int) -> list[str]:
    return [f"part {index}" for index in range(count)]


def _parts(
    labels: list[str],
    expected: list[Any],
    got: Any,
    tolerance: Tolerance,
    values: bool,
    part: str,
) -> Finding | None:
    parts = _split(labels, got)
    if parts is None:
        names = ", ".join(map(_label, labels))
        wanted = _("{n} things ({names}) are").format(n=len(labels), names=names)
        return _instead(got, wanted, part)
    found = [
        difference(wanted, one, tolerance, values, part=label)
        for label, wanted, one in zip(labels, expected, parts, strict=True)
    ]
    order = [KIND, SHAPE, NUMBERS, NAN, VALUES]
    present = [finding for finding in found if finding is not None]
    return min(present, key=lambda finding: order.index(finding.stage), default=None)


def _other(expected: Any, got: Any, values: bool, part: str) -> Finding | None:
    if type(expected) is not type(got):
        return _instead(got, _("{what} is").format(what=describe(expected)), part)
    if isinstance(expected, str):
        equal = expected.strip() == got.strip()
        said = _("another text is expected than {got}").format(got=repr(got.strip()[:40]))
        return None if equal or not values else Finding(VALUES, _of(part) + said, part)
    return None if expected == got or isinstance(expected, Opaque) else Finding(KIND, "", part)


def _instead(got: Any, wanted: str, part: str) -> Finding:
    said = _("you returned {got}; {wanted} expected").format(got=describe(got), wanted=wanted)
    asks = _(": is a `return` missing?") if got is None and not part else ""
    return Finding(KIND, f"{_of(part)}{said}{asks}", part)


def _of(part: str) -> str:
    return _("in «{part}»: ").format(part=_label(part)) if part else ""


def _label(part: str) -> str:
    """Say the name of a part: a documented one stays, a number is said in words."""
    number = re.fullmatch(r"part (\d+)", part)
    return _("part {index}").format(index=number[1]) if number else part


def _arrays(
    expected: np.ndarray, got: Any, tolerance: Tolerance, values: bool, part: str
) -> Finding | None:
    array = as_array(got)
    of = _of(part)
    if array is None:
        wanted = _("one number is") if expected.ndim == 0 else _("one array of numbers is")
        return _instead(got, wanted, part)
    if array.shape != expected.shape:
        return Finding(SHAPE, of + shape_sentence(expected.shape, array.shape), part)
    wanted, found = family(expected), family(array)
    whole_number = array.ndim == 0 and found in ("whole", "bool") and wanted in ("real", "whole")
    if wanted != found and array.size and not whole_number:
        return Finding(NUMBERS, of + _numbers_sentence(wanted, found), part)
    if np.array_equal(expected, array):  # the usual, at once
        return None
    if wanted in ("real", "complex") and array.size:
        surplus = np.isnan(array) & ~np.isnan(expected)
        if surplus.any():
            one = _("{numbers} of your result is NaN (not a number)")
            more = _("{numbers} of your result are NaN (not a number)")
            return Finding(NAN, of + _counted(surplus, one, more), part)
        if not values:
            return None
        return _reals(expected, array, tolerance, of, part)
    if not values:
        return None
    return Finding(VALUES, of + _differing(np.asarray(expected != array)), part)


def _reals(
    expected: np.ndarray, array: np.ndarray, tolerance: Tolerance, of: str, part: str
) -> Finding | None:
    wide = np.complex128 if np.iscomplexobj(expected) or np.iscomplexobj(array) else np.float64
    wanted, found = expected.astype(wide), array.astype(wide)
    with np.errstate(all="ignore"):
        near = np.abs(found - wanted) <= tolerance.atol + tolerance.rtol * np.abs(wanted)
    near &= np.isfinite(wanted) & np.isfinite(found)  # inf is near nothing
    near |= wanted == found  # but equals itself
    near |= np.isnan(wanted) & np.isnan(found)
    if near.all():
        return None
    if (where := np.isnan(wanted) & ~np.isnan(found)).any():
        one = _("{numbers} should be NaN (undefined) and is a number")
        more = _("{numbers} should be NaN (undefined) and are a number")
        return Finding(VALUES, of + _counted(where, one, more), part)
    if (where := np.isinf(found) & np.isfinite(wanted)).any():
        one = _("{numbers} is infinite; none should be")
        more = _("{numbers} are infinite; none should be")
        return Finding(VALUES, of + _counted(where, one, more), part)
    return Finding(VALUES, of + _differing(~near), part)


def _count(where: np.ndarray) -> str:
    if where.ndim == 0:
        return _("the number")
    number, size = int(where.sum()), where.size
    if number == size > 1:
        return _("all {size} numbers").format(size=size)
    return _("{number} of {size} numbers").format(number=number, size=size)


def _counted(where: np.ndarray, one: str, more: str) -> str:
    said = one if where.ndim == 0 or int(where.sum()) == 1 else more
    return said.format(numbers=_count(where))


def _differing(where: np.ndarray) -> str:
    one = _("{numbers} differs from what is expected")
    return _counted(where, one, _("{numbers} differ from what is expected"))


def shape_sentence(expected: tuple[int, ...], got: tuple[int, ...]) -> str:
    """Say how a shape differs from the expected one, with the likely reason if there is one.

    >>> shape_sentence((2, 5), (5, 2))
    'your result has shape (5, 2), expected (2, 5): two axes are exchanged'
    """
    start = _("your result has shape {got}, expected {expected}").format(got=got, expected=expected)
    if len(expected) == len(got) and sorted(expected) == sorted(got):
        return _("{start}: two axes are exchanged").format(start=start)
    if len(got) == len(expected) + 1 and 1 in got:
        rest = [tuple(np.delete(got, axis)) for axis, size in enumerate(got) if size == 1]
        if expected in rest:
            return _("{start}: an axis of length 1 is left over").format(start=start)
    if len(got) < len(expected) and not got:
        return _("{start}: you summed or averaged over everything").format(start=start)
    for axis, length in enumerate(expected):
        if expected[:axis] + expected[axis + 1 :] == got:
            lost = _("{start}: axis {axis} (length {length}) is lost")
            return lost.format(start=start, axis=axis, length=length)
    if len(got) == len(expected):
        wrong = [a for a in range(len(got)) if got[a] != expected[a]]
        look = _("{start}: look at axis {axes}")
        return look.format(start=start, axes=", ".join(map(str, wrong)))
    return start


def _numbers_sentence(expected: str, got: str) -> str:
    names = {
        "bool": _("True/False values"),
        "whole": _("whole numbers"),
        "real": _("real (floating) numbers"),
        "complex": _("complex numbers"),
    }
    said = _("your result holds {got}, expected are {expected}")
    return said.format(got=names[got], expected=names[expected])


def describe(value: Any) -> str:
    """Say what a plain value is, never what it holds.

    >>> describe(np.zeros((3, 4), dtype=np.float32))
    'an array of shape (3, 4), float32'
    """
    said = _description(value)
    return said if len(said) <= MAX_DESCRIPTION else said[: MAX_DESCRIPTION - 2] + " …"


def _description(value: Any) -> str:
    if value is None:
        return _("nothing (None)")
    if isinstance(value, Opaque):
        said = _("an {what}") if value.type_name[:1].lower() in "aeiou" else _("a {what}")
        return said.format(what=translate_message(value.type_name, "outcomes"))
    if isinstance(value, np.ndarray):
        said = _("an array of shape {shape}, {kind}")
        return said.format(shape=value.shape, kind=value.dtype.name)
    if isinstance(value, bool):
        return _("a bool")
    if isinstance(value, int | float | complex):
        return _("a number ({kind})").format(kind=type(value).__name__)
    if isinstance(value, str):
        return _("a text")
    if isinstance(value, dict):
        names = ", ".join(key[:40] for key in list(value)[:6]) or _("no entries")
        more = _(" and {n} more").format(n=len(value) - 6) if len(value) > 6 else ""
        return _("a dict with {names}{more}").format(names=names, more=more)
    if isinstance(value, tuple | list):
        return _("a {kind} of {n}").format(kind=type(value).__name__, n=len(value))
    return _("a {what}").format(what=type(value).__name__)
