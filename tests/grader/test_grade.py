"""From submissions to rows: full marks, none, partial with the mistake named, odd but honest."""

from __future__ import annotations

import json

import pytest
from handed_in import COURSE, LIMITS, NAME, SOLUTION, STUB, hand_in, rows_of
from students import EVERYBODY

from fewshot_lib.grader import results
from fewshot_lib.grader.grade import grade, verify, write_reports

pytestmark = pytest.mark.hostile


@pytest.fixture(scope="module")
def rows(marked):
    return {row["student"]: row for row in rows_of(marked[0] / "marks")}


@pytest.mark.parametrize(
    ("student", "share"),
    [
        ("anna, a solution", 1),
        ("ben, a stub", 0),
        ("dora, right, warns and prints", 1),
        ("eve, hostile", 0),
        ("finn (lost the cell's identity)", 1),
        ("ida (leaves)", 0),
    ],
)
def test_marks_are_what_the_answers_deserve(rows, student, share):
    row = rows[student]
    assert row["points"] == share * row["max_points"]
    assert row["max_points"] == 16


def test_a_typical_mistake_is_named_and_costs_only_its_checks(rows):
    row = rows["carl, a typical mistake"]
    assert 0 < row["points"] < row["max_points"]
    failed = [check for check in row["checks"] if check["status"] == "failed"]
    assert {check["mistake"] for check in failed if check["answer"] == "squared_euclidean"} == {
        "not squared"
    }
    assert all(check["message"] for check in failed)


def test_numpy_results_count(rows):
    assert all(
        check["status"] == "passed"
        for check in rows["gail (numpy)"]["checks"]
        if check["answer"] == "squared_euclidean"
    )


def test_a_notebook_of_an_older_build_has_the_points_of_what_it_answers(rows):
    row = rows["hans (an older build)"]
    points = {
        name: sum(check["points"] for check in row["checks"] if check["answer"] == name)
        for name in ("class_prototypes", "squared_euclidean", "log_posterior")
    }
    assert points == {"class_prototypes": 5, "squared_euclidean": 5, "log_posterior": 0}
    stub = [check for check in row["checks"] if check["answer"] == "log_posterior"]
    assert {check["status"] for check in stub} == {"not attempted"}
    assert not any("identity" in note or "order" in note for note in row["notes"]), row["notes"]


def test_a_process_that_leaves_is_reported(rows):
    said = " ".join(rows["ida (leaves)"]["look_at"])
    for name in ("class_prototypes", "squared_euclidean", "log_posterior"):
        assert f"The cell of {name} ended the process (exit status 0). It was left out." in said


def test_verify_repeats_every_row_second_runs_too_and_sees_a_changed_submission(marked):
    folder, _ = marked
    file = folder / "submitted" / "anna, a solution" / f"{NAME}.ipynb"
    before = file.read_bytes()
    try:
        file.write_text(json.dumps(STUB), encoding="utf-8")
        ((student, _, differs),) = verify(folder / "marks", COURSE)
        assert student == "anna, a solution"
        assert "the submission itself" in differs
        assert "points" in differs
    finally:
        file.write_bytes(before)


def test_a_row_cut_off_by_a_kill_is_graded_again(marked, tmp_path):
    folder, _ = marked
    copy_of = tmp_path / "results"
    copy_of.mkdir()
    for name in ("results.jsonl", "run.json"):
        (copy_of / name).write_bytes((folder / "marks" / name).read_bytes())
    whole = (copy_of / "results.jsonl").read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    (copy_of / "results.jsonl").write_bytes(whole[: last + 40])
    again = grade(folder / "submitted", copy_of, COURSE, limits=LIMITS)
    assert (again.graded, again.kept) == (1, len(EVERYBODY) - 1)
    repeated, first = rows_of(copy_of), rows_of(folder / "marks")
    assert [(r["student"], r["points"]) for r in repeated] == [
        (r["student"], r["points"]) for r in first
    ]


def test_a_foreign_folder_is_not_written_into(tmp_path):
    hand_in(tmp_path / "submissions", {"anna": STUB})
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "thesis.tex").write_text("mine", encoding="utf-8")
    with pytest.raises(results.BadResults, match="not empty"):
        grade(tmp_path / "submissions", tmp_path / "results", COURSE)


def test_isolation_none_grades_and_warns_on_every_page(tmp_path, monkeypatch):
    hand_in(tmp_path / "submissions", {"anna": SOLUTION, "ben": STUB})
    monkeypatch.setenv("PATH", str(tmp_path))  # no bubblewrap here
    grade(tmp_path / "submissions", tmp_path / "marks", COURSE, isolation="none", limits=LIMITS)
    marks = [(row["student"], row["points"]) for row in rows_of(tmp_path / "marks")]
    assert marks == [("anna", 16), ("ben", 0)]
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
    grade(hand_in(tmp_path / "in", {"ada": SOLUTION}), tmp_path / "out", COURSE, limits=LIMITS)
    (row,) = rows_of(tmp_path / "out")
    for check in row["checks"]:
        if check["answer"] == "squared_euclidean":
            assert check["points"] == 0
            assert "a person must look at it" in check["message"]
        else:
            assert check["points"] == check["max_points"]
