"""From submissions to rows: full marks, none, partial with the mistake named, odd but honest."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from fewshot_lib.grader import results
from fewshot_lib.grader.grade import grade, verify, write_reports
from fewshot_lib.grader.sandbox import SandboxLimits
from fewshot_lib.tools.machine import course_folder

pytestmark = pytest.mark.hostile

COURSE = course_folder(Path(__file__))
assert COURSE is not None
NAME = "03_prototypes"
SOLUTION = json.loads((COURSE / "solutions" / f"{NAME}.ipynb").read_text(encoding="utf-8"))
STUB = json.loads((COURSE / "exercises" / f"{NAME}.ipynb").read_text(encoding="utf-8"))
LIMITS = SandboxLimits(wall_seconds=20, answer_seconds=5, memory_mb=512)


def changed(old: str, new: str) -> dict:
    notebook = copy.deepcopy(SOLUTION)
    hits = 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["metadata"].get("nbgrader", {}).get("solution") and old in source:
            cell["source"], hits = source.replace(old, new), hits + 1
    assert hits, f"{old!r} is not in the solution any more"
    return notebook


def prefixed(code: str) -> dict:
    notebook = copy.deepcopy(SOLUTION)
    for cell in notebook["cells"]:
        grading = cell["metadata"].get("nbgrader", {})
        if grading.get("solution") and cell["cell_type"] == "code":
            cell["source"] = code + "\n" + "".join(cell["source"])
    return notebook


def recreated(name: str) -> dict:
    """Delete an answer's cell and write it anew, as a student does who lost it."""
    notebook = copy.deepcopy(SOLUTION)
    for cell in notebook["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == name:
            cell["metadata"], cell["id"] = {}, "brand-new"
    return notebook


def of_an_older_build() -> dict:
    """Hand in what an earlier build of the exercise would have been: other words, other cells."""
    notebook = copy.deepcopy(SOLUTION)
    notebook["metadata"] = {"kernelspec": {"name": "python2"}, "fewshot": {"run": "an older one"}}
    cells = []
    for number, cell in enumerate(notebook["cells"]):
        source, name = "".join(cell["source"]), cell["metadata"].get("nbgrader", {}).get("grade_id")
        if "example, hint, rubric" in source:
            source = source.replace("example, hint, rubric", "rubric") + "\nimport math\n"
        elif name == "log_posterior":  # not answered, and the stub of then read otherwise
            source = "def log_posterior(queries, prototypes, scale=1.0):\n"
            source += "    raise NotImplementedError('write it')"
        elif name == "check-squared_euclidean":
            cell["metadata"]["nbgrader"] |= {"grade_id": "tests_for_distance", "points": 99}
            source = "assert squared_euclidean is not None"
        elif not name:
            source = source.replace("Exercise 03", "Exercise 3") + "\n"
        cells.append({**cell, "source": source, "id": f"old-{number}"})
        if number == 5:
            added = "from fewshot_lib.exercises import not_there_any_more\n"
            cells.append({**cells[1], "source": added, "id": "old-import"})
    notebook["cells"] = cells
    return notebook


STUDENTS = {
    "anna (right)": SOLUTION,
    "ben (stub)": STUB,
    "carl (not squared)": changed(".square().sum(dim=-1)", ".square().sum(dim=-1).sqrt()"),
    "dora (warns and prints)": prefixed(
        "import sys, warnings\nwarnings.warn('careful')\nprint('x' * 10**6)\n"
        "print('oh', file=sys.stderr)\n%matplotlib inline"
    ),
    "eve (leaves)": prefixed("import os\nos._exit(0)"),
    "finn (lost the cell's identity)": recreated("squared_euclidean"),
    "gail (numpy)": changed(
        "return difference.square().sum(dim=-1)", "return difference.square().sum(dim=-1).numpy()"
    ),
    "hans (an older build)": of_an_older_build(),
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graded")
    for student, notebook in STUDENTS.items():
        place = folder / "submissions" / student
        place.mkdir(parents=True)
        (place / f"{NAME}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    summary = grade(folder / "submissions", folder / "results", COURSE, seed=7, limits=LIMITS)
    rows = results.current(results.read_rows(folder / "results" / "results.jsonl"))
    return folder, summary, {row["student"]: row for row in rows}


def test_every_submission_has_one_row(graded):
    _, summary, rows = graded
    assert summary.graded == len(rows) == len(STUDENTS)
    assert not summary.failed


@pytest.mark.parametrize(
    ("student", "share"),
    [
        ("anna (right)", 1),
        ("ben (stub)", 0),
        ("dora (warns and prints)", 1),
        ("eve (leaves)", 0),
        ("finn (lost the cell's identity)", 1),
    ],
)
def test_marks_are_what_the_answers_deserve(graded, student, share):
    row = graded[2][student]
    assert row["points"] == share * row["max_points"]
    assert row["max_points"] == 16


def test_a_typical_mistake_is_named_and_costs_only_its_checks(graded):
    row = graded[2]["carl (not squared)"]
    assert 0 < row["points"] < row["max_points"]
    failed = [check for check in row["checks"] if check["status"] == "failed"]
    assert {check["mistake"] for check in failed if check["answer"] == "squared_euclidean"} == {
        "not squared"
    }
    assert all(check["message"] for check in failed)


def test_numpy_results_count(graded):
    row = graded[2]["gail (numpy)"]
    assert all(
        check["status"] == "passed"
        for check in row["checks"]
        if check["answer"] == "squared_euclidean"
    )


def test_a_notebook_of_an_older_build_has_the_points_of_what_it_answers(graded):
    row = graded[2]["hans (an older build)"]
    points = {
        name: sum(check["points"] for check in row["checks"] if check["answer"] == name)
        for name in ("class_prototypes", "squared_euclidean", "log_posterior")
    }
    assert points == {"class_prototypes": 5, "squared_euclidean": 5, "log_posterior": 0}
    stub = [check for check in row["checks"] if check["answer"] == "log_posterior"]
    assert {check["status"] for check in stub} == {"not attempted"}
    assert not any("identity" in note or "order" in note for note in row["notes"]), row["notes"]


def test_a_process_that_leaves_is_reported(graded):
    row = graded[2]["eve (leaves)"]
    said = " ".join(row["look_at"])
    for name in ("class_prototypes", "squared_euclidean", "log_posterior"):
        assert f"The cell of {name} ended the process (exit status 0). It was left out." in said


def test_verify_repeats_every_row_and_sees_a_changed_submission(graded):
    folder, _, _ = graded
    assert verify(folder / "results", COURSE) == []
    file = folder / "submissions" / "anna (right)" / f"{NAME}.ipynb"
    before = file.read_bytes()
    try:
        file.write_text(json.dumps(STUB), encoding="utf-8")
        ((student, _, differs),) = verify(folder / "results", COURSE)
        assert student == "anna (right)"
        assert "the submission itself" in differs
        assert "points" in differs
    finally:
        file.write_bytes(before)


def test_a_row_cut_off_by_a_kill_is_graded_again(graded, tmp_path):
    folder, _, _ = graded
    copy_of = tmp_path / "results"
    copy_of.mkdir()
    for name in ("results.jsonl", "run.json"):
        (copy_of / name).write_bytes((folder / "results" / name).read_bytes())
    whole = (copy_of / "results.jsonl").read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    (copy_of / "results.jsonl").write_bytes(whole[: last + 40])
    again = grade(folder / "submissions", copy_of, COURSE, limits=LIMITS)
    assert (again.graded, again.kept) == (1, len(STUDENTS) - 1)
    repeated = results.current(results.read_rows(copy_of / "results.jsonl"))
    first = results.current(results.read_rows(folder / "results" / "results.jsonl"))
    assert [(r["student"], r["points"]) for r in repeated] == [
        (r["student"], r["points"]) for r in first
    ]


def test_a_foreign_folder_is_not_written_into(tmp_path):
    place = tmp_path / "submissions" / "anna"
    place.mkdir(parents=True)
    (place / f"{NAME}.ipynb").write_text(json.dumps(STUB), encoding="utf-8")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "thesis.tex").write_text("mine", encoding="utf-8")
    with pytest.raises(results.BadResults, match="not empty"):
        grade(tmp_path / "submissions", tmp_path / "results", COURSE)


def test_isolation_none_grades_and_warns_on_every_page(tmp_path, monkeypatch):
    for student, notebook in (("anna", SOLUTION), ("ben", STUB)):
        place = tmp_path / "submissions" / student
        place.mkdir(parents=True)
        (place / f"{NAME}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    monkeypatch.setenv("PATH", str(tmp_path))  # no bubblewrap here
    grade(tmp_path / "submissions", tmp_path / "marks", COURSE, isolation="none", limits=LIMITS)
    rows = results.current(results.read_rows(tmp_path / "marks" / "results.jsonl"))
    assert [(row["student"], row["points"]) for row in rows] == [("anna", 16), ("ben", 0)]
    write_reports(tmp_path / "marks", COURSE)
    pages = list((tmp_path / "marks").rglob("*.html"))
    assert len(pages) == 3
    assert all("Graded without a sandbox" in page.read_text(encoding="utf-8") for page in pages)


def test_a_reply_that_the_judge_stumbles_over_costs_its_answer_only(tmp_path, monkeypatch):
    from fewshot_lib.grader import attempt as module

    honest = module.judge

    def stumbling(exercise, answer, outcomes, seed):
        if answer.name == "squared_euclidean":
            raise ZeroDivisionError
        return honest(exercise, answer, outcomes, seed)

    monkeypatch.setattr(module, "judge", stumbling)
    (tmp_path / "in" / "ada").mkdir(parents=True)
    (tmp_path / "in" / "ada" / f"{NAME}.ipynb").write_text(json.dumps(SOLUTION), encoding="utf-8")
    grade(tmp_path / "in", tmp_path / "out", COURSE, limits=LIMITS)
    (row,) = results.current(results.read_rows(tmp_path / "out" / "results.jsonl"))
    for check in row["checks"]:
        if check["answer"] == "squared_euclidean":
            assert check["points"] == 0
            assert "a person must look at it" in check["message"]
        else:
            assert check["points"] == check["max_points"]
