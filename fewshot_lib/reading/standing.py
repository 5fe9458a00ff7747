"""Where the reader stands in all exercises and questions: ``panel()`` in notebook 00."""

from __future__ import annotations

from pathlib import Path

from fewshot_lib.checker import catalogue, progress
from fewshot_lib.reading.question import place, questions, words


def items() -> list[progress.Item]:
    """List every answer and question of the course, in its order."""
    groups: dict[int, list[progress.Item]] = {}
    titles: dict[int, str] = {}
    for exercise in catalogue.exercises():
        titles[exercise.number] = group = f"{exercise.number:02d} {exercise.title}"
        file = f"exercises/{exercise.stem}.ipynb"
        groups[exercise.number] = [
            progress.Item(
                f"{exercise.name}.{answer.name}",
                answer.name,
                group,
                answer.points,
                answer.minutes,
                file,
            )
            for answer in exercise.answers
        ] + [
            progress.Item(
                f"{exercise.name}.{text.name}",
                f"{text.name} (a text)",
                group,
                text.points,
                text.minutes,
                file,
            )
            for text in exercise.prose
        ]
    for word in words():
        number, title = place(word)
        group = titles.setdefault(number, f"{number:02d} {title}")
        groups.setdefault(number, []).extend(
            progress.Item(f"question:{name}", name, group, file=_lesson(number))
            for name in questions(word)
        )
    return [item for number in sorted(groups) for item in groups[number]]


def _lesson(number: int) -> str:
    """Name the notebook of a number, seen from the course's folder; "" if it is not at hand."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        found = sorted(folder.glob(f"notebooks/{number:02d}_*.ipynb"))
        if found:
            return f"notebooks/{found[0].name}"
    return ""


def panel() -> progress.Panel:
    """Show what is done, what was tried and what is left; points and minutes of each.

    >>> "class_prototypes" in repr(panel())
    True
    """
    return progress.Panel(items(), progress.load())
