"""Make the student package: a copy of the library without what an exercise asks for.

A submission is run beside this copy. What gives an answer away has lost its body and says so
when it is called; checks, solutions, references and the grader are not in it at all.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from fewshot_lib import checker, grader
from fewshot_lib.checker import catalogue
from fewshot_lib.checker.course import Course, course
from fewshot_lib.checker.spec import Exercise
from fewshot_lib.checker.strip import strip_answers

CHECKER, GRADER = (Path(str(package.__file__)).parent for package in (checker, grader))

#: Modules of the checker that know no answer; the worker needs them.
NEUTRAL = ("run", "spec", "values")
#: What a mark depends on besides: what judges, and what runs.
JUDGING = (*NEUTRAL, "compare", "judge", "strip")
RUNNING = ("assemble", "attempt", "conversation", "quiet", "student", "student_package", "worker")

_QUIET_MODULE = '''"""What a notebook imports; while grading it does nothing."""

import sys

from fewshot_lib.checker._quiet import QuietModule, carry_on

sys.modules[__name__].__class__ = QuietModule
'''


def build_student_package(exercise: Exercise, folder: Path) -> Path:
    """Write what students' notebooks import while an exercise is graded, below ``folder``.

    Arguments:
        exercise: whose answers' ``strip`` lists say what is left out.
        folder: an empty folder; it becomes the parent of the library's package.

    Returns:
        ``folder``, to be put on the worker's path.

    Raises:
        CannotStrip: a name to strip does not exist.
    """
    used = course()
    source, package = used.package, folder / used.library
    for file, quiet in _parts(used):
        target = package / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if quiet:  # to import matplotlib would cost a second
            target.write_text(_QUIET_MODULE, encoding="utf-8")
        else:
            shutil.copyfile(file, target)
    names = {name for answer in exercise.answers for name in answer.strip}
    strip_answers(package, names, (*used.quiet, *used.absent))
    _add_checker(folder / "fewshot_lib", used.fixtures)
    return folder


def _parts(used: Course) -> Iterator[tuple[Path, bool]]:
    """Give the files of the library that are copied, and whether they are quiet in the copy."""
    fixtures = used.file(used.fixtures) if used.fixtures else None
    for file in sorted(used.package.rglob("*")):
        part = file.relative_to(used.package).parts[0].removesuffix(".py")
        if not file.is_file() or "__pycache__" in file.parts or part in used.absent:
            continue
        quiet = part in used.quiet and file != fixtures
        if not quiet or file.suffix == ".py":
            yield file, quiet


def _add_checker(package: Path, fixtures: str) -> None:
    """Put the checker's neutral modules and the fixtures in; the rest of the checker is quiet."""
    target = package / "checker"
    target.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()
    shutil.copyfile(GRADER / "quiet.py", target / "_quiet.py")
    for file in CHECKER.glob("*.py"):
        (target / file.name).write_text(_QUIET_MODULE, encoding="utf-8")
    for name in NEUTRAL:
        shutil.copyfile(CHECKER / f"{name}.py", target / f"{name}.py")
    with (target / "__init__.py").open("a", encoding="utf-8") as initial:
        # by their whole names: a quiet module has every name, so that "from" would not import
        initial.writelines(f"import fewshot_lib.checker.{name}\n" for name in NEUTRAL)
        if fixtures:  # they enter themselves where cases look for them
            initial.write(f"import {fixtures}\n")


def source_digest(name: str) -> str:
    """Hash the sources that a mark of an exercise depends on: the same on every machine.

    What students get of the library, the exercise's specification (with that of an answer that it
    shares with another exercise), what judges it, what runs it.

    Arguments:
        name: the exercise's word, "prototypes".
    """
    used = course()
    modules = {f"{used.exercises}.{name}"}
    modules |= {one.solution.__module__ for one in catalogue.exercise(name).answers if one.solution}
    files = {f"library/{file.relative_to(used.package)}": file for file, q in _parts(used) if not q}
    for source in map(used.file, sorted(modules)):
        files |= {f"exercise/{file.name}": file for file in (source, source.with_suffix(".toml"))}
    files |= {f"checker/{part}": CHECKER / f"{part}.py" for part in JUDGING}
    files |= {f"grader/{part}": GRADER / f"{part}.py" for part in RUNNING}
    total = hashlib.sha256()
    for place, file in sorted(files.items()):
        data = file.read_bytes()
        total.update(f"{Path(place).as_posix()} {len(data)}\n".encode() + data)
    return total.hexdigest()
