"""Every exercise, whole, through the real sandbox: nothing of it may be ungradable.

Solutions and stubs are graded by test_teachers_guide.py; here every accepted variant and every
typical mistake goes the same way, over the wire and to the judge. They are functions of the
exercises and of the tests, so these are laid beside the student package under another name, and the
answer's cell takes the function from there; one notebook holds one mistake of each answer.

All of them are about 250 notebooks. In the usual run each exercise grades every ninth, beginning at
its own number; ``FEWSHOT_ALL=1`` grades all.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
import variants
from handed_in import COURSE, rows_of

import fewshot_lib
from fewshot_lib.checker import catalogue
from fewshot_lib.checker.notebook import grading, read, source_of
from fewshot_lib.checker.spec import Answer, Exercise
from fewshot_lib.grader import pool, runners, student_package
from fewshot_lib.grader.grade import grade
from fewshot_lib.grader.sandbox import SandboxLimits

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(1200)]

EXERCISES = catalogue.exercises()
BESIDE = "whole_library"
OTHER_TYPES = [variant.name for variant in variants.in_other_types(len)]
STEP = 9 if os.environ.get("FEWSHOT_ALL", "0") == "0" else 1
LIMITS = SandboxLimits(wall_seconds=120, answer_seconds=30)


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[tuple[str, str], dict]:
    """Grade all of them, with the whole library, answers and all, beside the student package."""

    def build(exercise: Exercise, folder: Path) -> Path:
        student_package.build_student_package(exercise, folder)
        shutil.copytree(
            Path(fewshot_lib.__file__).parent,
            folder / BESIDE,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        shutil.copy(variants.__file__, folder / BESIDE)
        shutil.copytree(variants.HERE / "accepted", folder / BESIDE / "accepted")
        for file in (folder / BESIDE).rglob("*.py"):
            source = file.read_text(encoding="utf-8")
            file.write_text(source.replace("fewshot_lib", BESIDE), encoding="utf-8")
        return folder

    place = tmp_path_factory.mktemp("all")
    hand_in(place / "in")
    warm = (*pool.WARM_IMPORTS, *(f"import {BESIDE}.exercises.{e.name}" for e in EXERCISES))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runners, "build_student_package", build)
        patch.setattr(pool, "WARM_IMPORTS", warm)
        grade(place / "in", place / "out", COURSE, seed=1, limits=LIMITS)
    found = {(row["student"], row["exercise"]): row for row in rows_of(place / "out")}
    assert {row["status"] for row in found.values()} == {"graded"}
    return found


def number_of(exercise: Exercise, answer: Answer, kind: str) -> int:
    """Count the functions of a kind that an answer has."""
    if kind == "variants":
        return len(variants.accepted(exercise, answer))
    return len(OTHER_TYPES) if kind == "types" else len(answer.mistakes)


def taken(exercise: Exercise, answer: Answer, kind: str, number: int) -> str:
    """Give the source that binds an answer to a function of its specification; "" if none."""
    if number >= number_of(exercise, answer, kind):
        return ""
    functions = {
        "mistakes": "_answer.mistakes",
        "variants": "_variants.accepted(_found, _answer)",
        # of the reference: the solution of another answer may call this one
        "types": "_variants.in_other_types(_answer.reference)",
    }
    return (
        f"from {BESIDE}.exercises.{exercise.name} import EXERCISE as _found\n"
        f"import {BESIDE}.variants as _variants\n"
        f"_answer = _found[{answer.name!r}]\n"
        f"{answer.name} = {functions[kind]}[{number}].function"
    )


def notebook_of(exercise: Exercise, kind: str, number: int) -> dict:
    """Bind each answer of a solution to its mistake or variant of that number, if it has one."""
    notebook = copy.deepcopy(read(COURSE / "solutions" / f"{exercise.stem}.ipynb"))
    for cell in notebook["cells"]:
        name = grading(cell).get("grade_id")
        if cell["cell_type"] == "code" and name in {answer.name for answer in exercise.answers}:
            bound = taken(exercise, exercise[name], kind, number)
            if bound:
                cell["source"] = f"{source_of(cell)}\n{bound}"
    return notebook


def sampled(exercise: Exercise, kind: str) -> list[int]:
    """Give the numbers that are graded: every ninth, from the exercise's own number on."""
    total = max((number_of(exercise, answer, kind) for answer in exercise.answers), default=0)
    return [n for n in range(total) if n % STEP == exercise.number % STEP]


def hand_in(folder: Path) -> None:
    for exercise in EXERCISES:
        for kind in ("variants", "types", "mistakes"):
            for number in sampled(exercise, kind):
                place = folder / f"{kind}-{number:02d}" / f"{exercise.stem}.ipynb"
                place.parent.mkdir(parents=True, exist_ok=True)
                text = json.dumps(notebook_of(exercise, kind, number))
                place.write_text(text, encoding="utf-8")


def test_every_accepted_variant_has_full_marks(rows):
    lost = [
        f"{student} {stem}: {check['id']}: {check['message']}"
        for (student, stem), row in rows.items()
        for check in row["checks"]
        if not student.startswith("mistakes") and check["points"] < check["max_points"]
    ]
    assert not lost, "\n".join(lost)


def test_every_typical_mistake_loses_points_and_has_its_own_name(rows):
    problems = []
    for (student, stem), row in rows.items():
        kind, _, number = student.partition("-")
        if kind != "mistakes":
            continue
        place = int(number)
        for answer in catalogue.exercise(stem).answers:
            checks = [check for check in row["checks"] if check["answer"] == answer.name]
            named = {check["mistake"] for check in checks} - {""}
            lost = any(check["points"] < check["max_points"] for check in checks)
            mistake = answer.mistakes[place].name if place < len(answer.mistakes) else ""
            if named != ({mistake} if mistake else set()) or lost != bool(mistake):
                problems.append(f"{stem}.{answer.name}: {mistake!r} is told {named or 'nothing'}")
    assert not problems, "\n".join(problems)
