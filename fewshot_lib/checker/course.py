"""What the engines are told about a course: its exercises, its library, its folder.

The checker and the grader know nothing of what is taught. A course makes one :class:`Course` and
hands it over with :func:`use`; everything else asks :func:`course` for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Course:
    """One course.

    Arguments:
        name: in a few words; it stands in the reports and in what is hashed.
        module: the module that makes this object: importing it brings the course to another
            process.
        exercises: the package with a module for each exercise, which defines ``EXERCISE``:
            "fewshot_lib.exercises".
        library: the package that answers build on, and that students get a copy of.
        fixtures: the module that defines what :class:`~fewshot_lib.checker.values.Fixture` names;
            "" if no case needs one.
        folder: finds the folder with ``exercises/`` and ``solutions/``; None where there is none.
        quiet: parts of the library that show, draw, ask or check: in the students' copy they do
            nothing.
        absent: parts of the library that are not in the students' copy.
    """

    name: str
    module: str
    exercises: str
    library: str
    fixtures: str = ""
    folder: Callable[[], Path | None] = lambda: None
    quiet: Sequence[str] = ()
    absent: Sequence[str] = ()

    @property
    def package(self) -> Path:
        """The folder of the library's package."""
        return Path(str(importlib.import_module(self.library).__file__)).parent

    def file(self, module: str) -> Path:
        """Find the source of one of the library's modules, by its whole name."""
        parts = module.removeprefix(self.library).strip(".").split(".")
        return self.package.joinpath(*parts).with_suffix(".py")


_COURSES: list[Course] = []


def use(course: Course) -> Course:
    """Tell the engines which course they serve; the last one told counts."""
    _COURSES[:] = [course]
    return course


def course() -> Course:
    """Give the course that the engines serve.

    Raises:
        RuntimeError: none was named yet.
    """
    if not _COURSES:
        raise RuntimeError(
            "no course is in use: import the module that makes it (here fewshot_lib.course) first"
        )
    return _COURSES[0]
