"""Disable, while an answer is called, what the student package lacks: check and grade agree.

An answer that calls the library's own ``squared_euclidean`` would pass here and fail there. So
while :func:`fewshot_lib.checker.cells.check` calls an answer, the functions that the exercise
asks for raise the same error as in the student package of the library. Each function keeps its
identity and gets other code for that time: names that were imported before mean it, too.
"""

from __future__ import annotations

import importlib
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from fewshot_lib.checker import strip
from fewshot_lib.checker.course import course
from fewshot_lib.checker.spec import Exercise

#: Where decorators, class methods, properties and cached properties keep the function.
_INNER = ("__wrapped__", "__func__", "fget", "func")

#: What is disabled now, and the code that it has otherwise.
_NOW: dict[types.FunctionType, types.CodeType] = {}


@contextmanager
def disabled(exercise: Exercise) -> Iterator[None]:
    """Disable what the answers of an exercise ask for, until the block ends.

    Arguments:
        exercise: its answers' ``strip`` lists say what.

    Raises:
        CannotStrip: one of those names does not exist.
    """
    names = frozenset(name for answer in exercise.answers for name in answer.strip)
    disabling = {f: raising for f, raising in _raisers(names).items() if f not in _NOW}
    _NOW.update({function: function.__code__ for function in disabling})
    try:
        for function, raising in disabling.items():
            function.__code__ = raising
        yield
    finally:
        for function in disabling:
            function.__code__ = _NOW.pop(function)


@contextmanager
def enabled() -> Iterator[None]:
    """Give everything its own code until the block ends: the library's function stands in here."""
    raising = {function: function.__code__ for function in _NOW}
    try:
        for function, code in _NOW.items():
            function.__code__ = code
        yield
    finally:
        for function, code in raising.items():
            function.__code__ = code


@cache
def _raisers(names: frozenset[str]) -> dict[types.FunctionType, types.CodeType]:
    found = {}
    used = course()
    passed_over = (*used.quiet, *used.absent)
    for module, path in sorted(strip.stripped(used.package, names, passed_over)):
        owner: Any = importlib.import_module(f"{used.library}.{module}".rstrip("."))
        *classes, name = path.split(".")
        for part in classes:
            owner = vars(owner)[part]
        function = _plain(vars(owner)[name])
        sentence = strip.MESSAGE.format(f"{module}.{path}")
        found[function] = _raising(sentence, function.__code__.co_freevars)
    return found


def _plain(thing: Any) -> types.FunctionType:
    """Give the function behind decorators, static and class methods, properties."""
    while True:
        inner = next(
            (getattr(thing, name) for name in _INNER if getattr(thing, name, None) is not None),
            None,
        )
        if inner is None:
            function: types.FunctionType = thing
            return function
        thing = inner


def _raising(sentence: str, free: tuple[str, ...]) -> types.CodeType:
    """Make code that raises; it has the free names of the code in whose place it stands."""
    binding = "".join(f"    {name} = None\n" for name in free)
    reading = f"        ({', '.join(free)},)\n" if free else ""
    space: dict[str, Any] = {}
    exec(
        f"def outer():\n{binding}    def disabled(*_, **__):\n"
        f"        raise RuntimeError({sentence!r})\n{reading}    return disabled",
        space,
    )
    code: types.CodeType = space["outer"]().__code__
    return code
