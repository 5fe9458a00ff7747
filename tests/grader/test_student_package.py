"""The student package: what an exercise asks for is not in it, and everything else works."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fewshot_lib
from fewshot_lib.checker import catalogue, strip
from fewshot_lib.checker.course import course
from fewshot_lib.checker.notebook import read, source_of
from fewshot_lib.checker.strip import CannotStrip, strip_answers
from fewshot_lib.grader import student_package
from fewshot_lib.grader.quiet import Quiet
from fewshot_lib.grader.student_package import build_student_package

sys.path.insert(0, str(Path(__file__).parent))
import compositions
from compositions import Trial, given_away, student_modules

SOLUTIONS = Path(__file__).resolve().parents[2] / "solutions"
EXERCISES = catalogue.exercises()
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda one: one.stem)
SHORT = {
    "as they are",
    "an axis in front",
    "two axes behind",
    "labels as masks",
    "one class",
    "unit vectors",
}


def in_package(folder: Path, code: str) -> str:
    """Run code as a submission's interpreter would, beside the student package only."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def package(tmp_path):
    """Give a package to strip: a name of three steps, shared and unshared helpers."""
    folder = tmp_path / "fewshot_lib"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "data" / "__init__.py").write_text("def load():\n    return 1\n")
    (folder / "data" / "prepare.py").write_text(
        "from fewshot_lib.maths import _shared_abroad\n"
        "def rescale(x):\n    return _own(x) + _shared(x) + _shared_abroad(x)\n"
        "def free(x):\n    return _Kept.apply(x)\n"
        "def _own(x):\n    return _deeper(x)\n"
        "def _deeper(x):\n    return x\n"
        "def _shared(x):\n    return x\n"
        "class _Kept:\n    @staticmethod\n    def apply(x):\n        return _shared(x)\n"
    )
    (folder / "maths.py").write_text(
        "def _shared_abroad(x):\n    return x\n"
        "def public(x):\n    return _shared_abroad(x)\n"
        "class Both:\n"
        "    def one(self):\n        return self._helper()\n"
        "    def two(self):\n        return self._helper()\n"
        "    def _helper(self):\n        return 1\n"
    )
    return folder


def stripped(file: Path) -> set[str]:
    functions = strip._functions(ast.parse(file.read_text(encoding="utf-8")))
    return {name for name, node in functions if "disabled" in ast.unparse(node)}


def test_a_name_is_looked_for_in_the_longest_path_that_is_a_module(package):
    strip_answers(package, ["data.prepare.rescale"])
    assert "rescale" in stripped(package / "data" / "prepare.py")
    assert not stripped(package / "data" / "__init__.py")


def test_private_helpers_go_only_if_nothing_else_leads_to_them(package):
    strip_answers(package, ["data.prepare.rescale", "maths.Both.one"])
    assert stripped(package / "data" / "prepare.py") == {"rescale", "_own", "_deeper"}
    assert stripped(package / "maths.py") == {"Both.one"}


def test_a_whole_module_or_class_can_be_stripped(package):
    strip_answers(package, ["maths.Both", "data"])
    assert stripped(package / "maths.py") == {"Both.one", "Both.two", "Both._helper"}
    assert stripped(package / "data" / "__init__.py") == {"load"}


@pytest.mark.parametrize(
    "name", ["nothing", "data.prepare.nothing", "data.rescale", "maths.Nobody"]
)
def test_a_name_that_is_not_there_cannot_be_stripped(package, name):
    with pytest.raises(CannotStrip, match="there is no"):
        strip_answers(package, [name])


@each_exercise
def test_what_a_notebook_imports_is_whole(exercise, tmp_path):
    build_student_package(exercise, tmp_path)
    library = strip._Library(tmp_path / "fewshot_lib", (*course().quiet, *course().absent))
    lost = {place for place, node in library.functions.items() if "disabled" in ast.unparse(node)}
    cells = read(SOLUTIONS / f"{exercise.stem}.ipynb")["cells"]
    source = "\n".join(source_of(cell) for cell in cells if cell["cell_type"] == "code")
    lent = {
        place
        for module, name in strip._imports(ast.parse(source), "fewshot_lib").values()
        for place in library._named(module, name) | library._named(f"{module}.{name}", "")
    }
    assert not library._reached(lent, set()) & lost


@each_exercise
def test_no_answer_is_one_call_of_what_is_left_of_the_library(exercise, tmp_path, monkeypatch):
    if os.environ.get("FEWSHOT_ALL", "0") == "0":
        short = {name: change for name, change in compositions.ARGUMENTS.items() if name in SHORT}
        monkeypatch.setattr(compositions, "ARGUMENTS", short)
    trial = Trial(student_modules(exercise, tmp_path))
    found = [
        f"{answer.name}: {way}"
        for answer in exercise.answers
        for way in given_away(exercise, answer, trial)
    ]
    assert not found, "\n".join(found)


def test_a_function_that_gives_an_answer_away_is_found(tmp_path):
    exercise = catalogue.exercise("prototypes")
    little = [dataclasses.replace(a, strip=["prototypes.log_posterior"]) for a in exercise.answers]
    modules = student_modules(dataclasses.replace(exercise, answers=little), tmp_path)
    trial = Trial(modules)
    found = "\n".join(given_away(exercise, exercise["class_prototypes"], trial))
    assert "prototypes.class_prototypes" in found
    assert "prototypes.masked_prototypes" in found  # of feature maps of one pixel
    found = "\n".join(given_away(exercise, exercise["squared_euclidean"], trial))
    assert "prototypes.similarity" in found  # with the sign turned


# ----------------------------------------------------------------------------- quiet packages


def test_every_module_of_the_library_that_a_notebook_may_import_is_there(tmp_path):
    build_student_package(EXERCISES[0], tmp_path)
    source = Path(fewshot_lib.__file__).parent
    names = [
        ".".join(("fewshot_lib", *file.relative_to(source).with_suffix("").parts))
        for part in course().quiet
        for file in [*source.glob(f"{part}.py"), *source.joinpath(part).rglob("*.py")]
    ]
    names = [name.removesuffix(".__init__") for name in names]
    in_package(
        tmp_path,
        f"import importlib\nfor name in {names!r}:\n    importlib.import_module(name)\n"
        "from fewshot_lib.reading.models import train\n"
        "from fewshot_lib.figures import charts\n"
        "from fewshot_lib.course import check, question_of_mine\n"
        "from fewshot_lib.exercises import check as in_an_older_build\n"
        "import fewshot_lib.reading.question\n"
        "from fewshot_lib.reading import question\n"
        "question('x'), train(1), charts.heat_map(2)\n"
        "from fewshot_lib.checker import run, spec, values\n"
        "from fewshot_lib.exercises import fixtures\n"
        "assert values.FIXTURES and run.run and spec.Case and values.plain\n"
        "assert fixtures.segmenter('nothing') is not check\n",
    )


def test_the_data_of_the_course_can_be_drawn_in_the_student_package(tmp_path):
    build_student_package(catalogue.exercise("protocols"), tmp_path)
    code = (
        "from fewshot_lib.data import anatomy, digits\n"
        "print(len(digits.load().images), len(anatomy.make_subject(0).labels))\n"
    )
    assert all(int(number) > 0 for number in in_package(tmp_path, code).split())


def test_what_a_check_gives_survives_what_notebooks_do_with_it():
    points = Quiet()("prototypes.class_prototypes", len)
    figure, data = points
    assert float(points) == 1.0
    assert int(points) == 1
    assert bool(points)
    assert points == 5
    assert points >= 5
    assert not points < 5
    assert len(points) == 2
    assert points[0] == points["x"] == points[1:2, ...]
    assert isinstance(points + 1 - points * 2 / 3 // 4 % 5 @ points, Quiet)
    assert isinstance(sum([points, points]) ** 2, Quiet)
    assert isinstance(-abs(round(points, 2)), Quiet)
    assert f"{points:.2f} {points!r:>40} {points}"
    assert list(range(points)) == [0]
    assert {points: 1}
    figure.axes[0].set_title("x")
    data.title = points
    with points as inside, points.progress(total=3) as bar:
        inside.update(bar)
    points["a"] = 1
    del points["a"]
    points += 1

    @points.explore(slider=(0, 1))
    def mine(x):
        return x

    assert mine(3) == 3


def test_a_quiet_result_may_be_awaited():
    async def use():
        async with Quiet() as inside:
            return await inside

    assert isinstance(asyncio.run(use()), Quiet)


@each_exercise
def test_the_hash_of_a_mark_covers_everything_that_it_depends_on(exercise, monkeypatch):
    files = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: files.append(self.name) or original(self))
    student_package.source_digest(exercise.name)
    written = {exercise.name, *(one.solution.__module__.split(".")[-1] for one in exercise.answers)}
    specifications = {f"{word}.{ending}" for word in written for ending in ("py", "toml")}
    running = {"quiet.py", "student_package.py", "worker.py", "judge.py", "evaluation.py"}
    assert specifications | running <= set(files)
