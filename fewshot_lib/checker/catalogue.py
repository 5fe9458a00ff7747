"""Find the exercises of the course in use: every public module that defines ``EXERCISE``."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache
from pathlib import Path

from fewshot_lib.checker.course import course
from fewshot_lib.checker.language import language, words
from fewshot_lib.checker.spec import Answer, Exercise
from fewshot_lib.checker.specification import in_language

_ = words("checker")


class NoSuchExercise(LookupError):
    """There is no exercise or answer of that name; the message lists what there is."""


def names() -> tuple[str, ...]:
    """Give the names of all exercises, in alphabetical order, without importing them."""
    used = course()
    package = importlib.import_module(used.exercises)
    found = {module.name for module in pkgutil.iter_modules(package.__path__)}
    fixtures = used.fixtures.removeprefix(used.exercises + ".")
    return tuple(sorted(name for name in found - {fixtures} if not name.startswith("_")))


def exercise(name: str) -> Exercise:
    """Give an exercise by its word ("prototypes") or its file's name ("03_prototypes").

    Raises:
        NoSuchExercise: there is none; lists the names.
    """
    word = name.split("/")[-1].removesuffix(".ipynb").lstrip("0123456789_")
    if word not in names():
        near = difflib.get_close_matches(word, names(), 1)
        guess = _("; did you mean {name}?").format(name=repr(near[0])) if near else ""
        said = _("no exercise {name}; there are {names}")
        said = said.format(name=repr(name), names=", ".join(names()))
        raise NoSuchExercise(f"{said}{guess}")
    return _loaded(course().exercises, course().fixtures, word, language())


@cache
def _loaded(package: str, fixtures: str, word: str, language_name: str) -> Exercise:
    if fixtures:
        importlib.import_module(fixtures)
    module = importlib.import_module(f"{package}.{word}")
    found: Exercise = module.EXERCISE
    if found.name != word:
        raise ValueError(f"{Path(module.__file__ or word).name} names its exercise {found.name!r}")
    return in_language(found, language_name)


def exercises() -> list[Exercise]:
    """Give all exercises in the order of the course."""
    return sorted((exercise(name) for name in names()), key=lambda found: found.number)


def answer(name: str, function_name: str = "") -> tuple[Exercise, Answer]:
    """Give an answer by "exercise.answer", or by the exercise and the function's name.

    Raises:
        NoSuchExercise: there is none; lists the names.
    """
    word, wanted = (*name.split(".", 1), "")[:2]
    found = exercise(word)
    wanted = wanted or function_name
    try:
        return found, found[wanted]
    except KeyError:
        said = _("exercise {exercise} has no answer {answer}; it has {names}").format(
            exercise=repr(found.name),
            answer=repr(wanted),
            names=", ".join(one.name for one in found.answers),
        )
        raise NoSuchExercise(said) from None
