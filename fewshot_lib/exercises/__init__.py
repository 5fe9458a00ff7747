"""Exercises: ``check`` and what stands behind it.

A notebook imports from here what a reader needs; an author reads ``spec.py`` and CONTRIBUTING.
"""

from fewshot_lib.exercises.catalogue import NoSuchExercise
from fewshot_lib.exercises.checking import Points, carry_on, check, example, hint, rubric, solution
from fewshot_lib.exercises.standing import panel

__all__ = [
    "NoSuchExercise",
    "Points",
    "carry_on",
    "check",
    "example",
    "hint",
    "panel",
    "rubric",
    "solution",
]
