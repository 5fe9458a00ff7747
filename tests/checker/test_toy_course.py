"""A course about something else: the engines build its stub, check it and grade it."""

from __future__ import annotations

import copy
import importlib
import sys

import nbformat
import pytest
from handed_in import hand_in
from proof import namespace

from fewshot_lib.checker import catalogue
from fewshot_lib.checker.cells import examine
from fewshot_lib.checker.course import Course, course, use
from fewshot_lib.checker.specification import cell
from fewshot_lib.grader.grade import grade
from fewshot_lib.grader.results import read_rows

CODE = '''
from fewshot_lib.checker.spec import Case
from fewshot_lib.checker.specification import answer, exercise
from toy import arithmetic


@answer(reference=arithmetic.double, strip=["arithmetic.double"])
def double(x):
    """Give twice a number."""
    ### BEGIN SOLUTION: add the number to itself
    return x + x
    ### END SOLUTION


@double.check("twice a number", points=2)
def _numbers(g):
    for number in (1, -3, 2.5):
        yield Case(f"{number}", (number,))


@answer(strip=["arithmetic.double"])
def mean(numbers):
    """Average a list of numbers."""
    ### BEGIN SOLUTION: divide the sum by the count
    return sum(numbers) / len(numbers)
    ### END SOLUTION


@mean.check("sum over count")
def _lists(g):
    yield Case("three numbers", ([1.0, 2.0, 6.0],))


EXERCISE = exercise(__name__)
'''
WORDS = """
number = 1
title = "Sums"

[double]
minutes = 1
difficulty = 1
importance = 1
section = "chapter 1"
hints = ["Twice is once and once more."]
[double.mistake."squared"]
edit = "x + x → x * x"
says = "You squared the number."

[mean]
minutes = 1
difficulty = 1
importance = 1
section = "chapter 2"
hints = ["How many are there?"]
[mean.mistake."not divided"]
edit = "/ len(numbers) →"
says = "You forgot to divide by how many there are."
"""
COURSE = """
from pathlib import Path
from fewshot_lib.checker.course import Course, use
USED = Course(
    name="toy", module="toy.course", exercises="toy.exercises", library="toy",
    folder=lambda: Path(__file__).parents[1], absent=("exercises", "course"),
)
"""
FILES = {
    "toy/__init__.py": "",
    "toy/arithmetic.py": "def double(x):\n    return 2 * x\n\n\ndef third(x):\n    return x / 3\n",
    "toy/course.py": COURSE,
    "toy/exercises/__init__.py": "",
    "toy/exercises/sums.py": CODE,
    "toy/exercises/sums.toml": WORDS,
}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Write the toy course, hand it to the engines, and give its folder."""
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    before: Course = course()
    use(importlib.import_module("toy.course").USED)
    yield tmp_path
    use(before)
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy"]:
        del sys.modules[name]


def notebooks(exercise):
    """Make the solution's notebook and the stub."""
    from fewshot_lib.tools.build import make_stub

    solution = nbformat.v4.new_notebook()
    solution.cells.append(nbformat.v4.new_code_cell("from toy.arithmetic import third"))
    for answer in exercise.answers:
        nbgrader = {"grade_id": answer.name, "solution": True, "grade": False, "locked": False}
        nbgrader |= {"schema_version": 3, "points": answer.points, "task": False}
        written = nbformat.v4.new_code_cell(cell(answer.solution))
        written.metadata["nbgrader"] = nbgrader
        solution.cells.append(written)
    return solution, make_stub(solution)


@pytest.mark.hostile
def test_a_course_about_arithmetic_is_built_checked_and_graded(toy):
    exercise = catalogue.exercise("sums")
    assert exercise.stem == "01_sums"
    solution, stub = notebooks(exercise)
    assert 'raise NotImplementedError("add the number to itself")' in stub.cells[1].source
    wrong = copy.deepcopy(solution)
    wrong.cells[1].source = "def double(x):\n    return x * x"
    stolen = copy.deepcopy(stub)
    stolen.cells[1].source = "from toy.arithmetic import double"
    handed = {"ada": solution, "bob": stub, "eve": wrong, "mallory": stolen}
    hand_in(toy / "submitted", handed, "01_sums")
    for folder, notebook in (("solutions", solution), ("exercises", stub)):
        (toy / folder).mkdir()
        nbformat.write(notebook, toy / folder / "01_sums.ipynb")

    def checked(notebook) -> float:
        names = namespace(notebook)
        return sum(
            examine(exercise, one, names.get(one.name))[0].points for one in exercise.answers
        )

    summary = grade(toy / "submitted", toy / "marks", toy)
    rows = {row["student"]: row for row in read_rows(toy / "marks" / "results.jsonl")}
    assert set(rows) == set(handed), (summary, rows)
    assert summary.graded == 4
    for student, points in {"ada": 3.0, "bob": 0.0, "eve": 1.0, "mallory": 0.0}.items():
        assert rows[student]["points"] == points, student
        assert checked(handed[student]) == points, student
    told = [line["mistake"] for line in rows["eve"]["checks"] if line["mistake"]]
    assert told == ["squared"]
