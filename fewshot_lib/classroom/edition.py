"""Make the student edition of the library: everything but what an exercise asks for.

A submission is run beside this copy. What an answer withholds has lost its body and says so when it
is called; checks, solutions, references and the grader are not in it at all.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import fewshot_lib
from fewshot_lib.classroom import quiet
from fewshot_lib.exercises import catalogue
from fewshot_lib.exercises.spec import Exercise
from fewshot_lib.exercises.withholding import QUIET, withhold

#: Modules of ``fewshot_lib.exercises`` that know no answer; the worker needs them.
NEUTRAL = ("values", "running", "given", "spec")

_QUIET_MODULE = '''"""What a notebook imports; while grading it does nothing."""

import sys

from fewshot_lib._quiet import QuietModule, carry_on

sys.modules[__name__].__class__ = QuietModule
'''


def build_edition(exercise: Exercise, folder: Path) -> Path:
    """Write the student edition for an exercise below ``folder``.

    Arguments:
        exercise: whose answers' ``withhold`` lists say what is left out.
        folder: an empty folder; it becomes the parent of the package ``fewshot_lib``.

    Returns:
        ``folder``, to be put on the worker's path.

    Raises:
        CannotWithhold: a withheld name does not exist, so that it would not be withheld either.
    """
    source = Path(fewshot_lib.__file__).parent
    package = folder / "fewshot_lib"
    package.mkdir(parents=True)
    for file in sorted(source.glob("*.py")):
        if file.name != "cli.py":
            shutil.copyfile(file, package / file.name)
    shutil.copytree(source / "data", package / "data", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(Path(quiet.__file__), package / "_quiet.py")
    for part in QUIET:  # to import matplotlib would cost a second
        for file in (source / part).rglob("*.py"):
            target = package / file.relative_to(source)
            target.parent.mkdir(exist_ok=True)
            target.write_text(_QUIET_MODULE, encoding="utf-8")
    for name in NEUTRAL:
        shutil.copyfile(source / "exercises" / f"{name}.py", package / "exercises" / f"{name}.py")
    with (package / "exercises" / "__init__.py").open("a", encoding="utf-8") as initial:
        # by their whole names: a quiet module has every name, so that "from" would not import
        initial.writelines(f"import fewshot_lib.exercises.{name}\n" for name in NEUTRAL)
    withhold(package, {name for answer in exercise.answers for name in answer.withhold})
    return folder


def source_digest(name: str) -> str:
    """Hash the sources that a mark of an exercise depends on: the same on every machine.

    The mathematics and the data, the exercise's specification, what judges it, and what runs it.

    Arguments:
        name: the exercise, "03_prototypes" or "prototypes".
    """
    package = Path(fewshot_lib.__file__).parent
    files = [file for file in package.glob("*.py") if file.name not in ("cli.py", "__init__.py")]
    files += package.glob("data/*.py")
    word = catalogue.exercise(name).name
    judging = ("compare", "diagnosis", "given", "running", "spec", "values", "withholding", word)
    files += [package / "exercises" / f"{part}.py" for part in judging]
    running = ("assemble", "conversation", "edition", "quiet", "student", "underway", "worker")
    files += [package / "classroom" / f"{part}.py" for part in running]
    total = hashlib.sha256()
    for file in sorted(files):
        data = file.read_bytes()
        total.update(f"{file.relative_to(package).as_posix()} {len(data)}\n".encode() + data)
    return total.hexdigest()
