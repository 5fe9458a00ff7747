"""Read the notebooks of the exercises: answer cells, solution regions, stubs.

Works on the JSON of a notebook (a dict with ``cells``), so that it needs no Jupyter.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

BEGIN = re.compile(r"^(?P<indent>\s*)#+\s*BEGIN SOLUTION(?:\s*:\s*(?P<words>.*\S))?\s*$")
END = re.compile(r"^\s*#+\s*END SOLUTION\s*$")
#: nbgrader's markers of what only a teacher may see. They need nbgrader's own release step, which
#: takes them out; these exercises are handed out without it.
TEACHERS_ONLY = re.compile(
    r"\b(?:BEGIN|END)[\s_-]*(?:HIDDEN[\s_-]*TEST|MARK(?:ING)?[\s_-]*SCHEME)S?\b"
    r"|^\s*#+\s*(?:HASHED\s+)?AUTOTEST\b",
    re.IGNORECASE | re.MULTILINE,
)
#: What stands in a stub where a text is to be written.
WRITE_HERE = "*Write your answer here.*"
#: How long a line of a notebook's code may be: it is read in narrow windows, and on paper.
WIDE = 79


class BadSolution(ValueError):
    """A solution notebook breaks a rule of its trade; the message says which and where."""


def source_of(cell: Mapping[str, Any]) -> str:
    """Give a cell's source as one text (the file may hold it as lines)."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def grading(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Give a cell's nbgrader metadata, {} if it has none."""
    found = cell.get("metadata", {}).get("nbgrader", {})
    return dict(found) if isinstance(found, Mapping) else {}


def read(path: Path) -> dict[str, Any]:
    """Read a notebook's JSON.

    Raises:
        BadSolution: it is not a notebook of format 4.
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadSolution(f"{path.name} cannot be read: {error}") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if cells is None or notebook.get("nbformat") != 4 or "metadata" not in notebook:
        raise BadSolution(f"{path.name} is not a notebook of format 4")
    needed: dict[str, Any] = {"cell_type": str, "source": (str, list), "metadata": dict}
    for cell in cells if isinstance(cells, list) else [None]:
        if not isinstance(cell, dict) or not all(
            isinstance(cell.get(name), kind) for name, kind in needed.items()
        ):
            raise BadSolution(f"{path.name} has a cell that is none")
    return notebook


def answer_cells(notebook: Mapping[str, Any], texts: bool = False) -> dict[str, str]:
    """Give the source of every code cell to be answered, by its ``grade_id``, in order.

    Arguments:
        texts: the texts to be written, too.
    """
    return {
        grading(cell)["grade_id"]: source_of(cell)
        for cell in notebook["cells"]
        if (texts or cell["cell_type"] == "code") and grading(cell).get("solution")
    }


def stub(source: str, text: bool = False) -> str:
    """Replace each solution region by what the reader finds there.

    In code: ``raise NotImplementedError("<the words after BEGIN SOLUTION:>")``. In text:
    :data:`WRITE_HERE`.

    Raises:
        BadSolution: there is no region, or one is not closed, not opened, empty, or has no words.

    >>> print(stub("def f():\\n    ### BEGIN SOLUTION: return one\\n    return 1\\n"
    ...            "    ### END SOLUTION"))
    def f():
        raise NotImplementedError("return one")
    """
    lines, inside, kept, regions = [], False, 0, 0
    for line in source.split("\n"):
        begins, ends = BEGIN.match(line), END.match(line)
        if begins:
            if inside:
                raise BadSolution("BEGIN SOLUTION inside a solution")
            inside, kept, regions = True, 0, regions + 1
            words = begins["words"]
            if text:
                lines.append(begins["indent"] + WRITE_HERE)
                continue
            if not words:
                raise BadSolution("say after «BEGIN SOLUTION:» in words what is to be written")
            said = json.dumps(words, ensure_ascii=False)
            indent = begins["indent"]
            line = f"{indent}raise NotImplementedError({said})"
            broken = f"{indent}raise NotImplementedError(\n{indent}    {said}\n{indent})"
            lines.append(line if len(line) <= WIDE else broken)
        elif ends:
            if not inside or not kept:
                raise BadSolution("END SOLUTION without a solution before it")
            inside = False
        elif inside:
            kept += bool(line.strip())
        elif "BEGIN SOLUTION" in line or "END SOLUTION" in line:
            raise BadSolution(f"this marker is not understood: {line.strip()!r}")
        else:
            lines.append(line)
    if inside:
        raise BadSolution("BEGIN SOLUTION without END SOLUTION")
    if not regions:
        raise BadSolution(
            "it has no solution to take out: put «### BEGIN SOLUTION: in words» and "
            "«### END SOLUTION» around what students are to write"
        )
    return "\n".join(lines)


def without_markers(source: str) -> str:
    """Give a solution's source as a reader should see it, without the marker lines."""
    return "\n".join(
        line for line in source.split("\n") if not BEGIN.match(line) and not END.match(line)
    )


def definitions(sources: Iterable[str]) -> list[str]:
    """Keep of cells what answers may rely on: imports, functions, classes, constants.

    A constant is computed without calls, of what is kept. Cells with magics are left out.

    >>> definitions(["import math\\ntau = 2 * math.pi\\nx = math.sqrt(2)\\nx[0] = tau\\ny = x + 1"])
    ['import math', 'tau = 2 * math.pi']
    """
    kept: list[str] = []
    bound: set[str] = set(dir(builtins))
    for statement in (part for source in sources for part in _statements(source)):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
            bound.add(statement.name)
        elif isinstance(statement, ast.Assign) and _is_constant(statement, bound):
            bound |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
        else:
            continue
        kept.append(ast.unparse(statement))
    return kept


def _statements(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError:
        return []


def _is_constant(statement: ast.Assign, bound: set[str]) -> bool:
    names = {node.id for node in ast.walk(statement.value) if isinstance(node, ast.Name)}
    calls = any(isinstance(node, ast.Call) for node in ast.walk(statement.value))
    plain = all(isinstance(target, ast.Name) for target in statement.targets)
    return plain and not calls and names <= bound
