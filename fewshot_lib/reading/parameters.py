"""The parameters of ``explore``: what may be given, and what it becomes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fewshot_lib.figures import PlotData

Drawing = Callable[..., "tuple[Figure, PlotData]"]
Setting = dict[str, Any]
MOST_VALUES = 1000
#: How the parameters and values of this course read, where that is not their name with spaces.
TITLES = {"n_way": "ways", "k_shot": "shots", "n_shots": "shots", "n_query": "queries"}
VALUES = {"squared_euclidean": "squared Euclidean", "euclidean": "Euclidean"}


@dataclass(frozen=True)
class Control:
    """One parameter: its values, how they read, and where it starts."""

    name: str
    kind: str  # "range", "steps", "menu", "switch" or "text"
    values: tuple[Any, ...]
    labels: tuple[str, ...]
    start: int

    @property
    def title(self) -> str:
        """Return the parameter's name as words."""
        return TITLES.get(self.name, self.name.replace("_", " "))

    def label(self, value: Any) -> str:
        """Return how a value reads."""
        return self.labels[self.values.index(value)] if value in self.values else str(value)

    def nearest(self, value: Any) -> Any:
        """Return the one of a range's values that a slider stands at."""
        return min(self.values, key=lambda own: abs(own - value))

    def spread(self, count: int) -> list[int]:
        """Pick ``count`` of the values, ends included; one: where it starts."""
        last = len(self.values) - 1
        if count == 1:
            return [self.start]
        return [round(i * last / (count - 1)) for i in range(count)]


def read_parameters(function: Drawing, parameters: Mapping[str, Any]) -> list[Control]:
    """Turn the parameters of ``explore`` into controls, or say what is wrong with them."""
    if not callable(function):
        raise TypeError(f"explore needs a function that draws, got {type(function).__name__}")
    if not parameters:
        raise ValueError("nothing to explore: name a parameter, explore(f, shots=[1, 5])")
    signature = inspect.signature(function)
    try:
        signature.bind(**parameters)
    except TypeError as error:
        raise TypeError(
            f"{getattr(function, '__name__', 'the function')}({', '.join(signature.parameters)}) "
            f"cannot be called with {', '.join(parameters)}: {error}"
        ) from None
    controls = []
    for name, given in parameters.items():
        declared = signature.parameters.get(name)
        default = inspect.Parameter.empty if declared is None else declared.default
        controls.append(_control(name, given, default))
    return controls


def _control(name: str, given: Any, default: Any) -> Control:
    """Turn one parameter into a control."""
    if isinstance(given, bool):
        return Control(name, "switch", (False, True), ("off", "on"), int(given))
    if isinstance(given, str):
        return Control(name, "text", (given,), (given,), 0)
    if isinstance(given, Mapping):
        values, labels = tuple(given.values()), tuple(_written(label) for label in given)
        kind = "menu"
    elif isinstance(given, list):
        values, labels = tuple(given), tuple(_written(value) for value in given)
        kind = "steps" if all(_is_number(value) for value in given) else "menu"
    elif isinstance(given, tuple | range):
        values = _range_values(name, given)
        labels, kind = tuple(_written(value) for value in values), "range"
    else:
        raise TypeError(
            f"{name} = {given!r} is not something to explore: give a list of values, a tuple "
            "(low, high, step), a dictionary label → value, True or False, or a string; to hold a "
            "parameter fixed, use functools.partial"
        )
    if not values:
        raise ValueError(f"{name} has no values to explore")
    if len(set(labels)) < len(labels):
        raise ValueError(f"{name} has values that read alike: {', '.join(labels)}")
    known = default is not inspect.Parameter.empty and any(_same(v, default) for v in values)
    start = next(i for i, v in enumerate(values) if _same(v, default)) if known else 0
    return Control(name, kind, values, labels, start)


def _range_values(name: str, given: tuple[Any, ...] | range) -> tuple[Any, ...]:
    """List the values of (low, high) or (low, high, step), both ends included."""
    if isinstance(given, range):
        values: tuple[Any, ...] = tuple(given)
    else:
        if not (len(given) in (2, 3) and all(_is_number(value) for value in given)):
            raise TypeError(
                f"{name} = {given!r}: a tuple is a range (low, high) or (low, high, step) of "
                "numbers; for single values give a list"
            )
        low, high = given[:2]
        if len(given) == 2 and not (isinstance(low, Integral) and isinstance(high, Integral)):
            raise ValueError(
                f"{name} = {given!r}: a range that is not of whole numbers needs a step"
            )
        step = given[2] if len(given) == 3 else 1
        if not (step > 0 and low <= high):
            raise ValueError(f"{name} = {given!r}: a range runs upwards, low ≤ high and step > 0")
        count = math.floor((high - low) / step + 1e-9) + 1
        if count > MOST_VALUES:
            raise ValueError(
                f"{name} = {given!r} has {count} values, over {MOST_VALUES}: take a larger step"
            )
        whole = all(isinstance(value, Integral) for value in (low, step))
        values = tuple(low + i * step if whole else round(low + i * step, 10) for i in range(count))
    if len(values) > MOST_VALUES:
        raise ValueError(f"{name} has {len(values)} values, over {MOST_VALUES}")
    return values


def _written(value: Any) -> str:
    """Write a value as a reader would.

    >>> [_written(value) for value in ("squared_euclidean", 1 / 3, 0.25, 20)]
    ['squared Euclidean', '1/3', '0.25', '20']
    """
    if isinstance(value, str):
        return VALUES.get(value, value.replace("_", " "))
    if isinstance(value, Real) and not isinstance(value, Integral):
        short, exact = f"{value:g}", float(value)
        if math.isfinite(exact) and len(short.lstrip("-0.")) > 4:
            simple = Fraction(exact).limit_denominator(12)
            if abs(float(simple) - exact) < 1e-9:
                return str(simple)
        return short
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _same(value: Any, other: Any) -> bool:
    """Compare without tripping over arrays; 1 is 1.0 but not True."""
    if _is_number(value) and _is_number(other):
        return bool(value == other)
    return value is other or (type(value) is type(other) and bool(value == other))
