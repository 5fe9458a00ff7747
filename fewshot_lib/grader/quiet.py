"""Stand for what shows, draws, asks or checks while a submission is run: it does nothing.

This file is copied into the student package of the library, whose packages ``exercises``,
``figures`` and ``reading`` consist of :class:`QuietModule`. Whatever a notebook does with their
results goes on: they may be called, unpacked, compared, formatted, entered or computed with.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Generator, Iterator
from typing import Any

_TEXT = "(nothing is shown while grading)"


def _itself(self: Any, *_: Any, **__: Any) -> Any:
    return self


def _true(self: Any, *_: Any) -> bool:
    return True


def _false(self: Any, *_: Any) -> bool:
    return False


class Quiet:
    """A result that nobody looks at: a number, a pair, a function, a decorator, a context.

    As a number it is 1, and it is enough for every comparison: equal to, at least and more than
    anything. As a sequence it has two parts, as in ``figure, data = …``. Every operation on it,
    every attribute and every call gives a quiet thing again; as a decorator it leaves the function
    alone.
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and isinstance(args[0], types.FunctionType | type):
            return args[0]  # "@explore(...)" above a function of the student's
        return Quiet()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Quiet()

    def __getitem__(self, key: object) -> Quiet:
        return Quiet()

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def __delitem__(self, key: object) -> None:
        pass

    def __iter__(self) -> Iterator[Quiet]:
        return iter((Quiet(), Quiet()))

    def __len__(self) -> int:
        return 2

    def __contains__(self, item: object) -> bool:
        return True

    def __int__(self) -> int:
        return 1

    __index__ = __int__

    def __float__(self) -> float:
        return 1.0

    def __complex__(self) -> complex:
        return 1.0 + 0.0j

    def __repr__(self) -> str:
        return _TEXT

    def __format__(self, specification: str) -> str:
        return _TEXT

    def __hash__(self) -> int:
        return 1

    def __exit__(self, *_: object) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass

    async def __aenter__(self) -> Quiet:
        return self

    def __await__(self) -> Generator[Any, None, Quiet]:
        yield from ()  # awaiting ends at once
        return self

    __enter__ = _itself
    __bool__ = __eq__ = __ge__ = __gt__ = _true
    __ne__ = __le__ = __lt__ = _false


_UNARY = ("neg", "pos", "abs", "invert", "round", "trunc", "floor", "ceil")
_BINARY = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "divmod", "pow", "matmul"),
    *("and", "or", "xor", "lshift", "rshift"),
)
for _name in (*_UNARY, *_BINARY, *(f"r{_name}" for _name in _BINARY)):
    setattr(Quiet, f"__{_name}__", _itself)


class QuietModule(types.ModuleType, Quiet):
    """A module of which every name is quiet; it may be called, if a function has its name."""

    __init__ = types.ModuleType.__init__
    __getattr__ = Quiet.__getattr__
    __repr__ = types.ModuleType.__repr__
    __hash__ = types.ModuleType.__hash__
    __eq__ = types.ModuleType.__eq__
    __ne__ = types.ModuleType.__ne__


def carry_on(name: str, answer: Callable[..., Any] | None = None) -> Callable[..., Any] | None:
    """Give back the student's own answer; what stands in for a wrong one is the grader's affair."""
    return answer
