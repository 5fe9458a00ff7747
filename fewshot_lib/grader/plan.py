"""What an exercise of the course is, ready to grade against."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot_lib.checker import catalogue
from fewshot_lib.checker import language as speech
from fewshot_lib.checker.notebook import (
    BadSolution,
    answer_cells,
    definitions,
    grading,
    read,
    source_of,
    without_markers,
)
from fewshot_lib.checker.spec import Exercise
from fewshot_lib.grader import results
from fewshot_lib.grader.assemble import Template
from fewshot_lib.grader.recognise import KnownExercise
from fewshot_lib.grader.student_package import source_digest


class NotBuilt(ValueError):
    """An exercise has no built notebook to grade against."""


@dataclass(frozen=True)
class Plan:
    """An exercise, ready to grade against.

    Arguments:
        exercise: its specification.
        built: the notebook as handed out.
        template: the same, in the form in which submissions are compared with it.
        specification: hash of everything that a mark depends on.
        own: the course's own source of each answer, by name.
        definitions: what those sources rely on: imports and constants of the handed-out cells.
        templates: of the notebook in other languages, where it has been built; a mark depends on
            none of them.
    """

    exercise: Exercise
    built: Mapping[str, Any]
    template: Template
    specification: str
    own: Mapping[str, str]
    definitions: Sequence[str]
    templates: Mapping[str, Template] = field(default_factory=dict)

    def exercise_in(self, language: str) -> Exercise:
        """Give the exercise with its words in a language; the same object every time."""
        if language == speech.SOURCE:
            return self.exercise
        with speech.speaking(language):
            return catalogue.exercise(self.exercise.name)

    def template_in(self, language: str) -> Template:
        """Give what a submission in a language is compared with."""
        return self.templates.get(language, self.template)


def plan(name: str, folder: Path) -> Plan:
    """Make ready to grade an exercise.

    Arguments:
        name: "03_prototypes" or "prototypes".
        folder: the course's folder, with ``exercises/`` and ``solutions/``.

    Raises:
        NotBuilt: the exercise was never built here.
        catalogue.NoSuchExercise: there is none of that name.
    """
    with speech.speaking(speech.SOURCE):
        exercise = catalogue.exercise(name)
    file = folder / "exercises" / f"{exercise.stem}.ipynb"
    try:
        built = read(file)
        solved = answer_cells(read(folder / "solutions" / f"{exercise.stem}.ipynb"))
    except BadSolution as error:
        raise NotBuilt(f"{error}; build it with `fewshot build {exercise.stem}`") from None
    own = {answer.name: without_markers(solved[answer.name]) for answer in exercise.answers}
    specification = results.digest(
        source_digest(exercise.name), file.read_bytes(), results.canonical(own)
    )
    handed_out = [
        source_of(cell)
        for cell in built["cells"]
        if cell["cell_type"] == "code" and not grading(cell).get("solution")
    ]
    template = Template.of(exercise, built)
    others = {
        language: Template.of(exercise, read(other))
        for language in speech.languages()[1:]
        if (other := file.parent / speech.short(language) / file.name).is_file()
    }
    return Plan(exercise, built, template, specification, own, definitions(handed_out), others)


def course_exercises() -> list[KnownExercise]:
    """Say what each exercise of the course is recognised by."""
    known = []
    for exercise in catalogue.exercises():
        answers = frozenset(answer.name for answer in exercise.answers)
        ids = answers | {f"check-{name}" for name in answers} | {t.name for t in exercise.prose}
        known.append(KnownExercise(exercise.stem, exercise.name, ids, answers))
    return known


def imports_of(built: Mapping[str, Any]) -> list[str]:
    """List the import statements of a handed-out notebook: warm workers have them at hand."""
    found: dict[str, None] = {}
    for cell in built["cells"]:
        if cell["cell_type"] == "code" and not grading(cell).get("solution"):
            for statement in ast.parse(source_of(cell)).body:
                if isinstance(statement, ast.Import | ast.ImportFrom):
                    found[ast.unparse(statement)] = None
    return list(found)
