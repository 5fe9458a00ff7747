"""Run the checks of a reader's exercise notebook from the command line: ``fewshot check``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fewshot_lib.exercises.notebook import WRITE_HERE, BadSolution, grading, read


class CannotRun(RuntimeError):
    """No kernel can be had here; the message says why."""


def check_notebook(path: Path, say: Callable[[str], None] = print) -> int:
    """Run a notebook from top to bottom on a fresh kernel and print what its checks say.

    The file is not changed. A cell that fails does not stop the others. Texts are listed, and
    whether they are written; no program judges them.

    Arguments:
        path: the reader's notebook, made from ``exercises/``.
        say: is given the lines.

    Returns:
        The exit status: 0 full marks, 1 something is missing, 2 this is no exercise.

    Raises:
        CannotRun: no kernel starts.
    """
    import nbformat

    from fewshot_lib.classroom.notebooks import execute

    try:
        read(path)
    except BadSolution as error:
        say(f"{error}.")
        return 2
    notebook = copy.deepcopy(nbformat.read(path, as_version=4))
    names = [grading(cell).get("grade_id", "") for cell in notebook.cells]
    texts = [cell for cell in notebook.cells if _is_text(cell)]
    if not any(name.startswith("check-") for name in names):
        if not texts:
            say(f"{path.name} has no checks and no texts; is it one of exercises/*.ipynb?")
            return 2
        return _tell_texts(path.name, texts, say)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            cell.metadata.setdefault("tags", []).append("raises-exception")
    try:
        execute(notebook, path.resolve().parent)
    except Exception as error:  # whatever a kernel that dies or does not start may raise
        raise CannotRun(f"{type(error).__name__}: {str(error)[:300]}") from None
    reached, total = 0.0, 0.0
    for cell in notebook.cells:
        name = grading(cell).get("grade_id", "")
        failed = [out for out in cell.get("outputs", []) if out.output_type == "error"]
        if failed and not name.startswith("check-"):
            where = f" ({name})" if name else ""
            say(f"A cell fails{where}: {failed[0].ename}: {failed[0].evalue}")
        if name.startswith("check-"):
            points = float(grading(cell).get("points", 0))
            total += points
            reached += _points(cell, points)
            for line in _report(cell, name.removeprefix("check-")):
                say(line)
    missing = _tell_texts(path.name, texts, say) if texts else 0
    say(f"{path.name}: {reached:g} of {total:g} points")
    return 0 if reached >= total and not missing else 1


def _is_text(cell: Any) -> bool:
    """Whether a cell is a text to write, which a person judges."""
    wanted = grading(cell)
    return bool(cell.cell_type == "markdown" and wanted.get("solution") and wanted.get("grade"))


def _tell_texts(name: str, texts: list[Any], say: Callable[[str], None]) -> int:
    """List the texts and say what to do with them; 0 all written, 1 one is missing."""
    unwritten = [cell for cell in texts if WRITE_HERE in cell.source or not cell.source.strip()]
    for cell in texts:
        state = "not written yet" if cell in unwritten else "written"
        points = float(grading(cell).get("points", 0))
        say(f"{grading(cell)['grade_id']}: a text, {state} ({points:g} points, by rubric)")
    say(f"{name}: no program judges texts; in the notebook rubric(...) below each says what counts")
    return 1 if unwritten else 0


def _points(cell: Any, most: float) -> float:
    for out in cell.outputs:
        if out.output_type == "error":
            return 0.0
        if out.output_type == "execute_result":
            try:
                return min(most, max(0.0, float(out.data.get("text/plain", "0"))))
            except ValueError:
                return 0.0
    return 0.0


def _report(cell: Any, name: str) -> list[str]:
    lines = []
    for out in cell.outputs:
        if out.output_type == "display_data":
            lines.append(out.data.get("text/plain", ""))
        elif out.output_type == "error":
            lines.append(f"{name}: the check could not run: {out.ename}: {out.evalue}")
    return lines
