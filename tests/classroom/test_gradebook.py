"""Marks in the real nbgrader gradebook: written, written again, and never over a person's."""

from __future__ import annotations

import contextlib
import json

import pytest
from nbgrader.api import Gradebook

from fewshot_lib.classroom import gradebook, results
from fewshot_lib.exercises import catalogue

NAME = "03_prototypes"


def row(student: str, share: float) -> dict:
    exercise = catalogue.exercise(NAME)
    checks = [
        {
            "id": f"{answer.name}: {check.name}",
            "answer": answer.name,
            "points": share * check.points,
            "max_points": check.points,
            "status": "passed" if share == 1 else "failed",
            "message": "",
            "mistake": "",
        }
        for answer in exercise.answers
        for check in answer.checks
    ]
    return {
        "student": student,
        "exercise": NAME,
        "status": "graded",
        "points": sum(check["points"] for check in checks),
        "max_points": exercise.points,
        "checks": checks,
        "notes": [],
        "printed": {},
        "seconds": 0.1,
        "file": "",
        "receipt": {"submission": student, "specification": "s", "seed": 1, "versions": {}},
    }


@pytest.fixture
def folder(tmp_path):
    kept = results.Results(tmp_path / "results", "course")
    kept.remember(seed=1, submissions="", isolation="bubblewrap", limits={})
    kept.append(row("anna", 1.0))
    kept.append(row("ben", 0.5))
    return tmp_path / "results"


def scores(url: str) -> dict[str, tuple[float, float, bool]]:
    with contextlib.closing(Gradebook(url)) as book:
        found = {}
        for student in ("anna", "ben"):
            submission = book.find_submission(NAME, student)
            found[student] = (submission.score, submission.max_score, submission.needs_manual_grade)
        return found


def test_marks_arrive_and_texts_wait_for_a_person(folder, tmp_path):
    url = f"sqlite:///{tmp_path}/gradebook.db"
    exercise = catalogue.exercise(NAME)
    assert gradebook.export(folder, url) == (2, 2 * len(exercise.prose))
    highest = exercise.points + sum(text.points for text in exercise.prose)
    assert scores(url) == {
        "anna": (exercise.points, highest, True),
        "ben": (0.5 * exercise.points, highest, True),
    }


def test_a_persons_marks_survive_when_marks_are_brought_again(folder, tmp_path):
    url = f"sqlite:///{tmp_path}/gradebook.db"
    gradebook.export(folder, url)
    text = catalogue.exercise(NAME).prose[0].name
    with contextlib.closing(Gradebook(url)) as book:
        written = book.find_grade(text, NAME, NAME, "ben")
        written.manual_score, written.needs_manual_grade = 1.5, False
        overruled = book.find_grade("check-log_posterior", NAME, NAME, "ben")
        overruled.manual_score = 6.0
        book.db.commit()
    results.Results(folder, "course").append(row("ben", 0.0))
    gradebook.export(folder, url)
    assert scores(url)["ben"][0] == 1.5 + 6.0
    assert scores(url)["anna"][0] == catalogue.exercise(NAME).points
    with contextlib.closing(Gradebook(url)) as book:
        assert not book.find_grade(text, NAME, NAME, "ben").needs_manual_grade


def test_a_database_that_refuses_is_one_sentence(folder, tmp_path):
    with pytest.raises(gradebook.NoGradebook, match="the database refuses"):
        gradebook.export(folder, f"sqlite:///{tmp_path}/no/such/folder/gradebook.db")
    (tmp_path / "text.db").write_text(json.dumps("no database") * 100, encoding="utf-8")
    with pytest.raises(gradebook.NoGradebook, match="Nothing of the results is lost"):
        gradebook.export(folder, f"sqlite:///{tmp_path}/text.db")
