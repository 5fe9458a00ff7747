"""A solution notebook that can be changed as students change theirs."""

from __future__ import annotations

import ast
import copy
import json
from functools import cache
from typing import Any

from handed_in import COURSE

from fewshot_lib.checker.notebook import answer_cells, grading, read, source_of
from fewshot_lib.tools.install_cell import INSTALL

STEMS = tuple(sorted(path.stem for path in (COURSE / "solutions").glob("*.ipynb")))


@cache
def _notebook(folder: str, stem: str) -> dict[str, Any]:
    return read(COURSE / folder / f"{stem}.ipynb")


class Book:
    """A notebook in which every answer is right, to be changed.

    Arguments:
        stem: of the exercise: "03_prototypes".
    """

    def __init__(self, stem: str) -> None:
        self.stem = stem
        self.notebook = copy.deepcopy(_notebook("solutions", stem))
        self.cells: list[dict[str, Any]] = self.notebook["cells"]
        for cell in self.cells:
            cell["source"] = source_of(cell)
        self.names = list(answer_cells(self.notebook))
        self.stubs = answer_cells(_notebook("exercises", stem))
        self.prefix = b""
        self.encode = {"ensure_ascii": False, "indent": 1}

    @property
    def last(self) -> str:
        """The name of the last answer."""
        return self.names[-1]

    @property
    def code(self) -> list[dict[str, Any]]:
        """All code cells but the one that installs the course where it is missing."""
        code = [cell for cell in self.cells if cell["cell_type"] == "code"]
        return [cell for cell in code if INSTALL not in cell["metadata"].get("tags", [])]

    def at(self, name: str) -> int:
        """Give the place of the cell with a ``grade_id``."""
        return next(i for i, cell in enumerate(self.cells) if grading(cell).get("grade_id") == name)

    def answer(self, name: str) -> dict[str, Any]:
        """Give the cell of an answer."""
        return self.cells[self.at(name)]

    def check(self, name: str) -> dict[str, Any]:
        """Give the cell that checks an answer."""
        return self.cells[self.at(f"check-{name}")]

    def before(self, name: str, source: str) -> None:
        """Add a code cell above an answer."""
        self.cells.insert(self.at(name), new(source))

    def after(self, name: str, source: str) -> None:
        """Add a code cell below an answer."""
        self.cells.insert(self.at(name) + 1, new(source))

    def append(self, source: str) -> None:
        """Add a code cell at the end."""
        self.cells.append(new(source))

    def top(self, source: str) -> None:
        """Add a code cell below the imports."""
        self.cells.insert(self.cells.index(self.code[0]) + 1, new(source))

    def inside(self, name: str, statements: str) -> None:
        """Put statements at the beginning of an answer's body."""
        cell = self.answer(name)
        cell["source"] = inside(cell["source"], name, statements)

    def lose(self, name: str) -> None:
        """Put the stub back in the place of an answer."""
        self.answer(name)["source"] = self.stubs[name]

    def data(self) -> bytes:
        """Write the file."""
        return self.prefix + json.dumps(self.notebook, **self.encode).encode()


def new(source: str, kind: str = "code") -> dict[str, Any]:
    """Make a cell as a front end does; without an id, which this format need not have."""
    cell: dict[str, Any] = {"cell_type": kind, "metadata": {}, "source": source}
    return cell | ({"outputs": [], "execution_count": None} if kind == "code" else {})


def function(source: str, name: str) -> ast.FunctionDef:
    """Give the definition of a function at the top level of a cell."""
    tree = ast.parse(source)
    return next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)


def inside(source: str, name: str, statements: str) -> str:
    """Put statements at the beginning of a function's body, below its docstring."""
    node = function(source, name)
    first = node.body[1 if ast.get_docstring(node) is not None else 0]
    lines = source.split("\n")
    added = [" " * first.col_offset + line for line in statements.split("\n")]
    lines[first.lineno - 1 : first.lineno - 1] = added
    return "\n".join(lines)
