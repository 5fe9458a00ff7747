"""Run the checks of a reader's exercise notebook from the command line: ``fewshot check``."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fewshot_lib.exercises.notebook import WRITE_HERE, BadSolution, grading, read


class CannotRun(RuntimeError):
    """No kernel is available; the message says why."""


def check_notebook(path: Path, say: Callable[[str], None] = print) -> int:
    """Run a notebook from top to bottom on a fresh kernel and print what its checks say.

    The file is not changed. A cell that fails does not stop the others. If a cell ends the kernel
    or never ends, what was checked before it stands, and what comes after it is not checked. Texts
    are listed, and whether they are written; no program judges them.

    Arguments:
        path: the reader's notebook, made from ``exercises/``.
        say: is given the lines.

    Returns:
        The exit status: 0 full marks, 1 something is missing, 2 this is no exercise.

    Raises:
        CannotRun: no kernel starts.
    """
    import nbformat
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    from fewshot_lib.classroom.notebooks import execute

    refusal = _refusal(path)
    if refusal:
        say(refusal)
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
    begun: list[int] = []
    ended = ""
    try:
        execute(notebook, path.resolve().parent, begun=begun.append)
    except (CellTimeoutError, DeadKernelError) as error:
        if not begun:
            raise CannotRun(f"{type(error).__name__}: {str(error)[:300]}") from None
        slow = isinstance(error, CellTimeoutError)
        ended = "it did not end in time" if slow else "it ended the kernel"
    except Exception as error:  # whatever a kernel that does not start may raise
        raise CannotRun(f"{type(error).__name__}: {str(error)[:300]}") from None
    last = begun[-1] if ended else len(notebook.cells)
    reached, total = 0.0, 0.0
    for place, cell in enumerate(notebook.cells):
        name = grading(cell).get("grade_id", "")
        failed = [out for out in cell.get("outputs", []) if out.output_type == "error"]
        if failed and not name.startswith("check-"):
            where = f" ({name})" if name else ""
            say(f"A cell fails{where}: {failed[0].ename}: {failed[0].evalue}")
        if place == last:
            say(_blamed(cell, name, ended))
        if name.startswith("check-"):
            points = float(grading(cell).get("points", 0))
            total += points
            if place < last:
                reached += _points(cell, points)
                for line in _report(cell, name.removeprefix("check-")):
                    say(line)
            elif place > last:
                say(f"{name.removeprefix('check-')}: not checked, 0 of {points:g} points")
    missing = _tell_texts(path.name, texts, say) if texts else 0
    say(f"{path.name}: {reached:g} of {total:g} points")
    return 0 if reached >= total and not missing else 1


def _refusal(path: Path) -> str:
    """Say in a sentence why a file is not a notebook that can be checked; "" if it may be one."""
    if path.is_dir():
        return f"{path} is a folder; name a notebook in it, as exercises/03_prototypes.ipynb."
    if not path.is_file():
        known = {
            file.stem: file
            for folder in dict.fromkeys([path.parent, path.parent / "exercises"])
            for file in sorted(folder.glob("*.ipynb"))
        }
        close = difflib.get_close_matches(path.stem, known, n=1)
        meant = known[close[0]].as_posix() if close else "exercises/03_prototypes.ipynb"
        lead = "did you mean" if close else "name a notebook, as"
        return f"There is no file {path}; {lead} {meant}{'?' if close else '.'}"
    if path.suffix != ".ipynb":
        return f"{path.name} is not a notebook; name one of exercises/*.ipynb."
    try:
        read(path)
    except BadSolution as error:
        return f"{error}."
    return ""


def _blamed(cell: Any, name: str, how: str) -> str:
    """Say which answer, or which cell, ended the run."""
    who = name.removeprefix("check-")
    if who != name:
        points = float(grading(cell).get("points", 0))
        return f"{who}: {how} when it was checked, 0 of {points:g} points; nothing ran after it"
    first = next((line for line in cell.source.splitlines() if line.strip()), "")
    who = f"The cell of {name}" if name else f"The cell that begins with {first[:60]!r}"
    return f"{who}: {how}; nothing ran after it"


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
