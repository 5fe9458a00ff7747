"""Exercises are what their solutions make, and nobody can forget to build them."""

from __future__ import annotations

import contextlib
import copy
import shutil

import nbformat
import pytest
from handed_in import NAME as STEM

from fewshot_lib.checker import catalogue
from fewshot_lib.checker.notebook import WIDE, BadSolution, answer_cells, grading, read, stub
from fewshot_lib.tools import build as building
from fewshot_lib.tools.build import build, digest, make_stub, problems_of, solutions, write_answers


@pytest.fixture
def course(root, tmp_path):
    """Give a course of one exercise, as it lies in the repository."""
    for folder in ("solutions", "exercises"):
        (tmp_path / folder).mkdir()
        shutil.copy(root / folder / f"{STEM}.ipynb", tmp_path / folder)
    return tmp_path


@pytest.fixture
def solution(root):
    return nbformat.read(root / "solutions" / f"{STEM}.ipynb", as_version=4)


def said(course, *names):
    lines: list[str] = []
    status = build(course, names or [STEM], check=True, say=lines.append)
    return status, "\n".join(lines)


@contextlib.contextmanager
def edited(course, folder):
    """Give the notebook of a folder to be changed, and save it."""
    path = course / folder / f"{STEM}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    yield notebook
    nbformat.write(notebook, path)


def answer_cell(notebook):
    return next(cell for cell in notebook.cells if "BEGIN SOLUTION" in cell.source)


def test_one_character_in_a_solution_makes_its_exercise_stale(course):
    assert said(course)[0] == 0
    with edited(course, "solutions") as notebook:
        cell = answer_cell(notebook)
        cell.source = cell.source.replace("dim=-2", "dim=-1", 1)
    status, text = said(course)
    assert status == 1
    assert "the cells of class_prototypes are not what" in text


@pytest.mark.parametrize("folder", ["solutions", "exercises"])
def test_one_character_in_the_text_around_or_in_the_exercise_is_found(course, folder):
    with edited(course, folder) as notebook:
        notebook.cells[0].source += "."
    assert "is not what the solution makes" in said(course)[1]


@pytest.mark.parametrize("folder", ["solutions", "exercises"])
def test_an_edited_output_is_found(course, folder):
    with edited(course, folder) as notebook:
        cell = next(c for c in notebook.cells if c.cell_type == "code" and c.outputs)
        cell.outputs[0].data["text/plain"] += "!"
    assert said(course)[0] == 1


def test_cleared_outputs_are_found(course):
    with edited(course, "exercises") as notebook:
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
    assert "not saved executed" in said(course)[1]


def test_a_missing_and_an_orphaned_exercise_are_found(course):
    path = course / "exercises" / f"{STEM}.ipynb"
    path.rename(course / "exercises" / "33_nothing.ipynb")
    assert "is missing" in said(course)[1]
    lines: list[str] = []
    build(course, check=True, say=lines.append)
    assert any("33_nothing.ipynb has no solution" in line for line in lines)


@pytest.mark.parametrize("content", ["", "{", '{"nbformat": 3, "worksheets": []}', "\x00"])
def test_a_file_that_is_no_notebook_gets_one_sentence(course, content):
    (course / "solutions" / f"{STEM}.ipynb").write_text(content)
    status, text = said(course)
    assert status == 1
    assert "03_prototypes.ipynb" in text


def test_a_solution_that_nobody_wrote_is_refused_with_what_there_is(course):
    with pytest.raises(BadSolution, match="03_prototypes"):
        solutions(course, ["cooking"])


def test_building_again_changes_not_a_byte(course, root):
    lines: list[str] = []
    assert build(course, [STEM], say=lines.append) == 0, lines
    for folder in ("solutions", "exercises"):
        built = (course / folder / f"{STEM}.ipynb").read_bytes()
        assert built == (root / folder / f"{STEM}.ipynb").read_bytes(), folder


def test_a_solution_that_fails_or_loses_points_is_not_saved(course, monkeypatch):
    with edited(course, "solutions") as notebook:
        cell = answer_cell(notebook)
        cell.source = cell.source.replace("return sums / counts", "return sums * counts")
    path = course / "solutions" / f"{STEM}.ipynb"
    before = path.read_bytes()
    ran = []

    def fake(notebook, folder, environment):
        ran.append(folder)
        one = nbformat.v4.new_output("execute_result", {"text/plain": "1"}, execution_count=1)
        by_id(notebook, "check-class_prototypes").outputs = [one]

    monkeypatch.setattr(building, "execute", fake)
    lines: list[str] = []
    assert build(course, [STEM], say=lines.append) == 1
    assert "class_prototypes has 1 points as saved, not 5" in "\n".join(lines)
    assert path.read_bytes() == before
    assert len(ran) == 2


# ------------------------------------------------------------------------------------- markers


def test_words_that_are_too_long_for_a_line_stand_on_their_own():
    words = "count what both masks have, then divide by what they have"
    made = stub(f"def f():\n    ### BEGIN SOLUTION: {words}\n    return 1\n    ### END SOLUTION")
    assert max(map(len, made.split("\n"))) <= WIDE
    names = {}
    exec(made, names)
    with pytest.raises(NotImplementedError, match=words):
        names["f"]()


def test_a_stub_keeps_signature_and_docstring_and_raises_in_words(solution):
    source = answer_cells(make_stub(solution))["class_prototypes"]
    names: dict = {}
    exec(source, names)
    assert "Raises:" in names["class_prototypes"].__doc__
    with pytest.raises(NotImplementedError, match="average per class"):
        names["class_prototypes"](None, None, None)


def test_no_line_of_a_solution_is_left_in_the_exercise(root):
    for path in (root / "solutions").glob("*.ipynb"):
        text = (root / "exercises" / path.name).read_text(encoding="utf-8")
        assert "SOLUTION" not in text
        assert not building._leaks(read(path), nbformat.read(root / "exercises" / path.name, 4))


def test_a_text_is_replaced_as_a_whole(solution):
    cell = next(c for c in make_stub(solution).cells if c.id.startswith("prose"))
    assert cell.source == "*Write your answer here.*"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def f():\n    ### BEGIN SOLUTION\n    1\n    ### END SOLUTION", "in words"),
        ("### BEGIN SOLUTION: x\n1", "without END"),
        ("1\n### END SOLUTION", "without a solution"),
        ("### BEGIN SOLUTION: x\n### END SOLUTION", "without a solution"),
        ("### BEGIN SOLUTION: x\n### BEGIN SOLUTION: y\n1\n### END SOLUTION", "inside"),
        ("x = 1  # BEGIN SOLUTION: here", "not understood"),
        ("# END SOLUTION soon", "not understood"),
        ("def f():\n    raise ValueError('no marker')", "no solution to take out"),
    ],
)
def test_bad_markers_are_refused_with_the_reason(source, says):
    with pytest.raises(BadSolution, match=says):
        stub(source)


@pytest.mark.parametrize(
    "marker",
    [
        "### BEGIN HIDDEN TESTS",
        "# end hidden tests",
        "x = 1  # BEGIN_HIDDEN_TEST",
        "### BEGIN  HIDDEN-TESTS",
        "=== BEGIN MARK SCHEME ===",
        "=== END MARKING SCHEME ===",
        "### AUTOTEST dice(a, b)",
        "### HASHED AUTOTEST dice(a, b)",
    ],
)
@pytest.mark.parametrize("where", ["check-class_prototypes", "temperature", ""])
def test_what_only_a_teacher_may_see_is_not_handed_out(course, marker, where):
    with edited(course, "solutions") as notebook:
        cell = by_id(notebook, where) if where else notebook.cells[0]
        cell.source = f"{cell.source}\n{marker}\nassert dice(1, 2) == 0.25"
    before = (course / "exercises" / f"{STEM}.ipynb").read_bytes()
    lines: list[str] = []
    assert build(course, [STEM], say=lines.append) == 1
    (line,) = lines
    assert "students must not see" in line
    assert said(course)[0] == 1
    assert (course / "exercises" / f"{STEM}.ipynb").read_bytes() == before


def test_an_answer_cell_that_was_edited_is_written_anew_from_the_module(course):
    with edited(course, "solutions") as notebook:
        before = answer_cell(notebook).source
        answer_cell(notebook).source = "def class_prototypes(embeddings, labels, n_way): ..."
    assert said(course)[0] == 1
    assert build(course, [STEM], say=lambda line: None) == 0
    assert answer_cell(nbformat.read(course / "solutions" / f"{STEM}.ipynb", 4)).source == before


def test_an_answer_without_cells_is_given_both_behind_those_of_the_answer_before(solution):
    exercise, new = catalogue.exercise("prototypes"), {"log_posterior", "check-log_posterior"}
    solution.cells = [c for c in solution.cells if grading(c).get("grade_id") not in new]
    by_id(solution, "check-class_prototypes").metadata.nbgrader.points = 4
    assert set(write_answers(solution, exercise)) == {"class_prototypes", "log_posterior"}
    assert problems_of(solution, exercise) == []
    assert write_answers(solution, exercise) == []
    names = [grading(c).get("grade_id") for c in solution.cells]
    before = exercise.answers[[a.name for a in exercise.answers].index("log_posterior") - 1].name
    place = names.index(f"check-{before}") + 1
    assert names[place : place + 2] == ["log_posterior", "check-log_posterior"]


def test_words_with_quotes_and_backslashes_survive():
    left = stub(
        'def f():\n    ### BEGIN SOLUTION: say "\\n" {x}\n    return 1\n    ### END SOLUTION'
    )
    names: dict = {}
    exec(left, names)
    with pytest.raises(NotImplementedError) as error:
        names["f"]()
    assert str(error.value) == 'say "\\n" {x}'


# -------------------------------------------------------------------------------------- rules


def by_id(notebook, name):
    return next(c for c in notebook.cells if grading(c).get("grade_id") == name)


def _set(name, **values):
    return lambda nb: by_id(nb, name).metadata.nbgrader.update(values)


BROKEN = {
    "not 5": _set("check-class_prototypes", points=4),
    "neither graded nor locked": _set("class_prototypes", locked=True),
    "no answer cell": _set("class_prototypes", grade_id="other"),
    "graded, locked": _set("check-class_prototypes", locked=False),
    "no check cell": _set("check-class_prototypes", grade_id="check-other"),
    "two cells have": _set("check-log_posterior", grade_id="log_posterior"),
    "must be a solution of 2 points": _set("temperature", points=7),
    "lack": lambda nb: by_id(nb, "log_posterior").metadata.nbgrader.pop("locked"),
    "must end with check": lambda nb: setattr(
        by_id(nb, "check-log_posterior"), "source", "check('prototypes', log_posterior); 6.0"
    ),
    "look away": lambda nb: nb.cells[3].metadata.update(tags=["nbval-skip"]),
    "has no docstring": lambda nb: setattr(
        by_id(nb, "log_posterior"),
        "source",
        "def log_posterior():\n    ### BEGIN SOLUTION: x\n    return 1\n    ### END SOLUTION",
    ),
    "does not define": lambda nb: setattr(by_id(nb, "log_posterior"), "source", "x = 1"),
}


@pytest.mark.parametrize("says", BROKEN)
def test_a_solution_against_the_rules_is_refused_with_the_reason(solution, says):
    exercise = catalogue.exercise("prototypes")
    broken = copy.deepcopy(solution)
    BROKEN[says](broken)
    assert problems_of(solution, exercise) == []
    assert any(says in line for line in problems_of(broken, exercise))


def test_the_digest_is_that_of_what_is_read_not_of_how_it_is_stored(course):
    path = course / "solutions" / f"{STEM}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    assert digest(notebook) == digest(read(path))
    notebook.cells[0].source += " "
    assert digest(notebook) != digest(read(path))
