"""What the saved texts tell the reader to do works as printed, in a fresh kernel."""

from __future__ import annotations

import ast
import html
import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from saved import LESSONS, ROOT, code_cells, label, outputs, read

from fewshot_lib.checker import progress
from fewshot_lib.reading.question import as_html, as_text, questions, words

EXERCISES = sorted((ROOT / "exercises").glob("*.ipynb"))
EVERY = [asked for word in words() for asked in questions(word).values()]
#: Calls that a saved text may tell the reader to make.
CALLS = r"(?:fewshot_lib\.\w+\.)?(?:answer|predict|hint|solution|example|rubric|check|carry_on)"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def shown(path: Path) -> list[str]:
    """Give the texts of a notebook's saved outputs, as they read."""
    texts = []
    for output in outputs(path):
        data = output.get("data", {})
        page = re.sub(r"<[^>]+>", "", data.get("text/html", ""))
        texts += [data.get("text/plain", ""), html.unescape(page), output.get("text", "")]
    return [text for text in texts if text]


def instructions(text: str) -> list[str]:
    """Find the lines of code that a text tells the reader to run."""
    found = re.findall(rf"(?:import fewshot_lib[\w.]*; )?{CALLS}\([^()\n]*\)", text)
    return [line for line in found if '"' in line]


@pytest.mark.parametrize("path", LESSONS + EXERCISES, ids=label)
def test_every_saved_instruction_runs_in_a_fresh_kernel_and_after_the_notebook(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = {line for text in shown(path) for line in instructions(text)}
    taken = {name: "rebound by the notebook" for name in bound_in(path)} | {
        "answer": 3,
        "rubric": 4,
    }
    for line in sorted(lines):
        exec(compile(line, "cell", "exec"), {})
        exec(compile(line, "cell", "exec"), dict(taken))
    said = capsys.readouterr().out
    assert "no question" not in said
    assert "no prediction" not in said
    assert "no text" not in said
    assert bool(lines) == any("fewshot_lib.reading.answer" in text or "rubric(" in text
                              for text in shown(path))  # fmt: skip


@pytest.mark.parametrize("asked", EVERY, ids=lambda asked: asked.id)
def test_what_a_question_tells_the_reader_to_run_reaches_that_question(
    asked: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in (as_text(asked), html.unescape(re.sub(r"<[^>]+>", "", as_html(asked)))):
        [line] = instructions(text)
        for given in ("A", "1", "letter", "number"):
            line_ = re.sub(r'"[^"]*"\)$', f'"{given}")', line)
            exec(compile(line_, "cell", "exec"), {"answer": 7, "question": "rebound"})
            assert capsys.readouterr().out.strip()
    progress.reset()
    exec(compile(line, "cell", "exec"), {})  # as it is printed: says how to answer, is no attempt
    assert progress.load() == {}


def nodes(cells: Iterable[Any]) -> list[ast.AST]:
    """List the parts of cells' code, without the lines for IPython."""
    sources = [re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.M) for cell in cells]
    return [node for source in sources for node in ast.walk(ast.parse(source))]


def bound_in(path: Path) -> set[str]:
    """List the names that a notebook binds at its top level."""
    names = {
        node.id
        for node in nodes(code_cells(path))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    return names - {"fewshot_lib"}


@pytest.mark.parametrize("path", LESSONS + EXERCISES, ids=label)
def test_the_code_cells_at_the_top_and_then_a_question_or_rubric_are_enough(path: Path) -> None:
    """The saved form says: run the code cells at the top of this notebook and then this one."""
    at_the_top = itertools.takewhile(
        lambda cell: cell.cell_type == "code",
        itertools.dropwhile(lambda cell: cell.cell_type != "code", read(path).cells),
    )
    imported = {
        alias.asname or alias.name
        for node in nodes(at_the_top)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    everywhere = nodes(code_cells(path))
    called = {
        node.func.id
        for node in everywhere
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    # an exercise has an answer that is called predict
    defined = {node.name for node in everywhere if isinstance(node, ast.FunctionDef)}
    assert called & {"question", "predict", "rubric"} - defined <= imported


@pytest.mark.parametrize("path", EXERCISES, ids=label)
def test_what_a_check_offers_was_imported_with_it(path: Path) -> None:
    cells = [c.source for c in code_cells(path) if "fewshot_lib.course import" in c.source]
    names = set(re.findall(r"\w+", " ".join(cells)))
    assert {"check", "hint", "solution", "example"} <= names
