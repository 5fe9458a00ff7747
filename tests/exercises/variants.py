"""Other right ways to write an answer, which must get full marks.

``accepted/NAME.py`` has them as plain functions ``answer__in_a_few_words``: as many as are really
different, one of them by another library where it has the thing.
"""

from __future__ import annotations

import runpy
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from fewshot_lib.checker import catalogue
from fewshot_lib.checker.spec import Answer, Exercise

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Variant:
    """An independent right implementation, which must get full points."""

    name: str
    function: Callable[..., Any]


def accepted(exercise: Exercise, answer: Answer) -> list[Variant]:
    """Give the accepted variants of an answer, in the order of their file.

    Raises:
        ValueError: a function of the file has a name that makes it nobody's variant.
    """
    file = home(exercise, answer)
    functions = _functions(file)
    known = {one.name for one in catalogue.exercise(file).answers} if functions else set()
    variants = []
    for whole, function in functions.items():
        name, _, words = whole.partition("__")
        if name not in known or not words:
            raise ValueError(
                f"accepted/{file}.py: {whole} belongs to no answer there; name it "
                "ANSWER__in_a_few_words, or begin it with _ if it only helps"
            )
        if name == answer.name:
            variants.append(Variant(words.replace("_", " "), function))
    return variants


def home(exercise: Exercise, answer: Answer) -> str:
    """Name the exercise that an answer was written for; another one may have it, too."""
    solution = answer.solution
    return solution.__module__.rpartition(".")[2] if solution is not None else exercise.name


@cache
def _functions(name: str) -> dict[str, Callable[..., Any]]:
    """Give the functions that an exercise's file defines, but for those that only help."""
    file, module = HERE / "accepted" / f"{name}.py", f"accepted_{name}"
    found = runpy.run_path(str(file), run_name=module) if file.is_file() else {}
    here = {key: one for key, one in found.items() if getattr(one, "__module__", "") == module}
    return {key: one for key, one in here.items() if not key.startswith("_")}


def in_other_types(function: Callable[..., Any]) -> list[Variant]:
    """Give one right function other clothes, in which it must be accepted as well."""

    def as_numpy(*args: Any, **kwargs: Any) -> Any:
        return _each(function(*args, **kwargs), lambda t: t.detach().numpy())

    def as_lists(*args: Any, **kwargs: Any) -> Any:
        return _each(function(*args, **kwargs), lambda t: t.tolist())

    def in_double(*args: Any, **kwargs: Any) -> Any:
        def widen(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.double() if tensor.dtype == torch.float32 else tensor

        return function(*_each(args, widen), **_each(kwargs, widen))

    def noisy(*args: Any, **kwargs: Any) -> Any:
        warnings.warn("this library is old", stacklevel=1)
        print("so far so good", args[:1])
        return function(*args, **kwargs)

    loading = [0.05]

    def slow(*args: Any, **kwargs: Any) -> Any:
        if loading:
            time.sleep(loading.pop())
        return function(*args, **kwargs)

    return [
        Variant("as numpy", as_numpy),
        Variant("as Python lists", as_lists),
        Variant("in float64", in_double),
        Variant("with prints and warnings", noisy),
        Variant("slow at first, as what loads a library", slow),
    ]


def _each(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value)
    if type(value) in (tuple, list):
        return type(value)(_each(part, change) for part in value)
    if isinstance(value, dict):
        return {key: _each(part, change) for key, part in value.items()}
    return value
