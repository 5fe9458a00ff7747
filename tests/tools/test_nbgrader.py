"""A course made of these files goes through the real nbgrader, there and back."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from handed_in import NAME as STEM
from handed_in import SOLUTION, STUB, UNSQUARED, dump, with_answers

pytest.importorskip("nbgrader")

from fewshot_lib.checker import catalogue

pytestmark = pytest.mark.filterwarnings("ignore:Object of type:sqlalchemy.exc.SAWarning")


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    course = tmp_path_factory.mktemp("course")
    patch = pytest.MonkeyPatch()  # nbgrader calls alembic by its name, wherever Python stands
    patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    patch.setenv("FEWSHOT_PROGRESS", str(course / "progress.json"))
    config = Config()
    config.CourseDirectory.root = str(course)
    config.CourseDirectory.course_id = "few-shot"
    config.CourseDirectory.db_url = f"sqlite:///{course}/gradebook.db"
    yield NbGraderAPI(config=config)
    patch.undo()


@pytest.fixture(scope="module")
def course(api):
    return Path(api.coursedir.root)


@pytest.fixture(scope="module")
def released(api, course, root):
    """Release every exercise from its solution; give what generate_assignment said."""
    said = {}
    for exercise in catalogue.exercises():
        folder = course / "source" / exercise.stem
        folder.mkdir(parents=True)
        shutil.copy(root / "solutions" / f"{exercise.stem}.ipynb", folder)
        said[exercise.stem] = api.generate_assignment(exercise.stem)
    return said


@pytest.fixture(scope="module")
def graded(api, course, released):
    """Hand in a stub, a solution and a mistake; grade all; give points by student and cell."""
    wrong = with_answers(squared_euclidean=UNSQUARED, temperature="It makes it sharper.")
    students = {"ada": STUB, "bea": SOLUTION, "cyd": wrong}
    for student, notebook in students.items():
        folder = course / "submitted" / student / STEM
        folder.mkdir(parents=True)
        (folder / f"{STEM}.ipynb").write_bytes(dump(notebook))
        result = api.autograde(STEM, student, create=True)
        assert result["success"], result.get("error")
    points: dict = {}
    with api.gradebook as gradebook:
        for student in students:
            submission = gradebook.find_submission_notebook(STEM, STEM, student)
            points[student] = {
                grade.name: (grade.auto_score, grade.max_score, grade.needs_manual_grade)
                for grade in submission.grades
            }
    return points


def test_nbgrader_releases_every_exercise_without_its_solution(course, released):
    for stem, result in released.items():
        assert result["success"], result.get("error")
        text = (course / "release" / stem / f"{stem}.ipynb").read_text(encoding="utf-8")
        assert "SOLUTION" not in text
        if catalogue.exercise(stem).answers:
            assert "raise NotImplementedError" in text


def test_the_stub_gets_nothing_and_the_solution_everything(graded):
    exercise = catalogue.exercise("prototypes")
    for answer in exercise.answers:
        name = f"check-{answer.name}"
        assert graded["ada"][name] == (0, answer.points, False)
        assert graded["bea"][name] == (answer.points, answer.points, False)


def test_a_mistake_costs_its_own_points_and_no_other(graded):
    assert graded["cyd"]["check-squared_euclidean"][0] == 0
    assert graded["cyd"]["check-class_prototypes"][0] == 5
    assert graded["cyd"]["check-log_posterior"][0] == 6  # carried on with the library's distance


def test_prose_waits_for_the_teacher(graded):
    assert graded["cyd"]["temperature"] == (None, 2, True)


def test_the_feedback_page_shows_the_reply_to_the_mistake(api, course, graded):
    result = api.generate_feedback(STEM, "cyd")
    assert result["success"], result.get("error")
    page = (course / "feedback" / "cyd" / STEM / f"{STEM}.html").read_text(encoding="utf-8")
    assert "the exercise asks for its square" in page
