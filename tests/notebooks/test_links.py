"""The course hangs together: lessons in a chain, each with its exercise, and links that arrive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from saved import (
    COURSE,
    LESSONS,
    ROOT,
    SAVED,
    code_cells,
    label,
    number_of,
    opening,
    prose,
)  # fmt: skip

from fewshot_lib.reading import overview

TEXTS = [
    *(ROOT / name for name in ("README.md", "README.zh.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "notebooks").glob("**/*.md")),
]
TAUGHT = [path for path in LESSONS if "01" <= number_of(path)[:2] <= "08"]


def links(text: str) -> Iterator[str]:
    """Give the targets of links and pictures that lead to a file here, without their anchors."""
    code = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)
    targets = re.findall(r"\]\(\s*([^)\s]+)", code)
    targets += re.findall(r"<(?:a|img)\b[^>]*?(?:href|src)=[\"']([^\"']+)", code)
    for target in targets:
        if not re.match(r"[a-z][a-z0-9+.-]*:|#", target):
            yield unquote(target.partition("#")[0])


def lost(path: Path, text: str) -> list[str]:
    """List the links of a text that lead nowhere."""
    return [target for target in links(text) if not (path.parent / target).exists()]


def test_the_lessons_are_those_of_the_course() -> None:
    assert tuple(path.stem for path in LESSONS) == COURSE


@pytest.mark.parametrize("path", SAVED, ids=label)
def test_every_relative_link_of_a_notebook_arrives(path: Path) -> None:
    assert lost(path, "\n\n".join(prose(path))) == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_relative_link_of_a_text_arrives(path: Path) -> None:
    assert lost(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", LESSONS, ids=label)
def test_a_lesson_leads_to_the_one_before_and_the_one_after(path: Path) -> None:
    here = COURSE.index(path.stem)
    before, after = COURSE[:here][-1:], COURSE[here + 1 :][:1]
    at_the_top, at_the_end = set(links(opening(path))), set(links(prose(path)[-1]))
    assert {f"{name}.ipynb" for name in before + after} <= at_the_top, "at the top"
    assert {f"{name}.ipynb" for name in after} <= at_the_end, "at the end"


@pytest.mark.parametrize("path", LESSONS[1:], ids=label)
def test_a_lesson_leads_to_its_exercise(path: Path) -> None:
    assert any(
        target.startswith(f"../exercises/{number_of(path)[:2]}_")
        for text in prose(path)
        for target in links(text)
    )


@pytest.mark.parametrize("path", TAUGHT, ids=label)
def test_a_lesson_can_be_explored_and_asks(path: Path) -> None:
    source = "\n".join(cell.source for cell in code_cells(path))
    assert len(re.findall(r"^\s*(?:explore|moving)\(", source, re.M)) >= 1
    assert len(re.findall(r"^\s*question\(", source, re.M)) >= 3


def test_progress_leads_to_the_notebook_that_asks_a_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    asked = {item.key: item.file for item in overview.items() if item.key.startswith("question:")}
    assert asked["question:mixture.boundary"] == "notebooks/04_mixture.ipynb"
    assert asked["question:mixture.witness"] == "notebooks/04b_mixture_more.ipynb"
    assert asked["question:episodes.squeeze"] == "exercises/02_episodes.ipynb"
    for key, file in asked.items():
        call = f'question("{key.removeprefix("question:")}")'
        assert any(call in cell.source for cell in code_cells(ROOT / file)), f"{file}: no {call}"
