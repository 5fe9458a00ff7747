"""Where the reader stands in all exercises and questions: ``panel()`` in notebook 00."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewshot_lib.checker import catalogue, progress
from fewshot_lib.checker import language as speech
from fewshot_lib.reading.question import place, questions, words

_ = speech.words("reading")


def items() -> list[progress.Item]:
    """List every answer and question of the course, in its order."""
    groups: dict[int, list[progress.Item]] = {}
    titles: dict[int, str] = {}
    for exercise in catalogue.exercises():
        titles[exercise.number] = group = f"{exercise.number:02d} {exercise.title}"
        file = _edition(f"exercises/{exercise.stem}.ipynb")
        asked: list[tuple[Any, str]] = [(answer, answer.name) for answer in exercise.answers]
        asked += [(text, _("{name} (a text)").format(name=text.name)) for text in exercise.prose]
        groups[exercise.number] = [
            progress.Item(f"{exercise.name}.{one.name}", said, group, one.points, one.minutes, file)
            for one, said in asked
        ]
    for word in words():
        number, title = place(word)
        group = titles.setdefault(number, f"{number:02d} {title}")
        texts = _notebooks(number)
        groups.setdefault(number, []).extend(
            progress.Item(f"question:{one.id}", name, group, file=_edition(_asking(one.id, texts)))
            for name, one in questions(word).items()
        )
    return [item for number in sorted(groups) for item in groups[number]]


def _edition(file: str) -> str:
    """Give the notebook of the reader's language where there is one, else the English one."""
    spoken = speech.language()
    if spoken == speech.SOURCE or not file:
        return file
    part, name = file.split("/", 1)
    other = f"{part}/{speech.short(spoken)}/{name}"
    here = (Path.cwd(), *Path.cwd().parents)
    return other if any((folder / other).is_file() for folder in here) else file


def _notebooks(number: int) -> dict[str, str]:
    """Read the notebooks and then the exercise of a number: name seen from the course → text.

    A number may have two notebooks, 04 and 04b; {} if the course is not at hand.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        lessons = sorted(folder.glob(f"notebooks/{number:02d}*_*.ipynb"))
        if lessons:
            files = [*lessons, *sorted(folder.glob(f"exercises/{number:02d}_*.ipynb"))]
            return {f"{one.parent.name}/{one.name}": one.read_text("utf-8") for one in files}
    return {}


def _asking(id: str, texts: dict[str, str]) -> str:
    """Name the notebook that asks a question, or the first one; "" if there is none."""
    call = f'question(\\"{id}\\")'  # as it stands in the file, in JSON
    return next((name for name, text in texts.items() if call in text), next(iter(texts), ""))


def panel() -> progress.Panel:
    """Show what is done, what was tried and what is left; points and minutes of each.

    >>> "class_prototypes" in repr(panel())
    True
    """
    return progress.Panel(items(), progress.load())
