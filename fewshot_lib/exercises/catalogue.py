"""Find the exercises: every module of this package that defines ``EXERCISE``."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache
from pathlib import Path

from fewshot_lib.exercises.spec import Answer, Exercise

#: The modules of this package that are machinery, not an exercise.
MACHINERY = frozenset(
    (
        *("catalogue", "checking", "compare", "diagnosis", "given", "mutants", "notebook"),
        *("pictures", "proof", "render", "running", "spec", "standing", "values", "withheld"),
        "withholding",
    )
)


class NoSuchExercise(LookupError):
    """There is no exercise or answer of that name; the message lists what there is."""


def names() -> tuple[str, ...]:
    """Give the names of all exercises, in alphabetical order, without importing them."""
    here = str(Path(__file__).parent)
    return tuple(
        sorted(
            found.name
            for found in pkgutil.iter_modules([here])
            if found.name not in MACHINERY and not found.name.startswith("_")
        )
    )


@cache
def exercise(name: str) -> Exercise:
    """Give an exercise by its word ("prototypes") or its file's name ("03_prototypes").

    Raises:
        NoSuchExercise: there is none; lists the names.
    """
    word = name.split("/")[-1].removesuffix(".ipynb").lstrip("0123456789_")
    if word not in names():
        near = difflib.get_close_matches(word, names(), 1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise NoSuchExercise(f"no exercise {name!r}; there are {', '.join(names())}{guess}")
    module = importlib.import_module(f"fewshot_lib.exercises.{word}")
    found = module.EXERCISE
    if found.name != word:
        raise ValueError(f"fewshot_lib/exercises/{word}.py names its exercise {found.name!r}")
    return found


def exercises() -> list[Exercise]:
    """Give all exercises in the order of the course."""
    return sorted((exercise(name) for name in names()), key=lambda found: found.number)


def answer(name: str, function_name: str = "") -> tuple[Exercise, Answer]:
    """Give an answer by "exercise.answer", or by the exercise and the function's name.

    Raises:
        NoSuchExercise: there is none; lists the names.

    >>> answer("prototypes.class_prototypes")[1].name
    'class_prototypes'
    """
    word, _, wanted = name.partition(".")
    found = exercise(word)
    wanted = wanted or function_name
    try:
        return found, found[wanted]
    except KeyError as error:
        raise NoSuchExercise(str(error.args[0])) from None
