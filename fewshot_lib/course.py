"""The one place that hands this course to what checks and grades, and what a notebook imports.

``from fewshot_lib.course import check, hint`` is what an exercise begins with.
"""

from __future__ import annotations

from fewshot_lib.checker.catalogue import NoSuchExercise
from fewshot_lib.checker.cells import Points, carry_on, check, example, hint, rubric, solution
from fewshot_lib.checker.course import Course, use
from fewshot_lib.reading.overview import panel
from fewshot_lib.tools.machine import course_folder

COURSE = use(
    Course(
        name="fewshot-course",
        module="fewshot_lib.course",
        exercises="fewshot_lib.exercises",
        library="fewshot_lib",
        fixtures="fewshot_lib.exercises.fixtures",
        folder=course_folder,
        quiet=("course", "exercises", "figures", "reading"),
        absent=("__main__", "checker", "cli", "grader", "tools"),
    )
)

__all__ = [
    "COURSE",
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
