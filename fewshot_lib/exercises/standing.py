"""Where the reader stands in all exercises and questions: ``panel()`` in notebook 00."""

from __future__ import annotations

from fewshot_lib.exercises import catalogue
from fewshot_lib.reading import progress
from fewshot_lib.reading.question import questions, words


def items() -> list[progress.Item]:
    """List every answer and question of the course, in its order."""
    found = []
    asked = set(words())
    for exercise in catalogue.exercises():
        group = f"{exercise.number:02d} {exercise.title}"
        for answer in exercise.answers:
            key = f"{exercise.name}.{answer.name}"
            found.append(progress.Item(key, answer.name, group, answer.points, answer.minutes))
        if exercise.name in asked:
            asked.remove(exercise.name)
            found += _questions(exercise.name, group)
    for word in sorted(asked):
        found += _questions(word, word.replace("_", " "))
    return found


def _questions(word: str, group: str) -> list[progress.Item]:
    return [
        progress.Item(f"question:{name}", f"question «{name.partition('.')[2]}»", group, 1.0)
        for name in questions(word)
    ]


def panel() -> progress.Panel:
    """Show what is done, what was tried and what is left; points and minutes of each.

    >>> "class_prototypes" in repr(panel())
    True
    """
    return progress.Panel(items(), progress.load())
