"""The cell at the top of every notebook that installs the course where it is missing.

On Colab or Kaggle a notebook is opened without the course around it. The cell then installs the
course from its repository, whose address stands in one place: ``[project.urls]``, ``Repository``,
in ``pyproject.toml``. While no address stands there, the cell says in one sentence what to do
instead. Where the course is installed, the cell does nothing.

``make notebooks`` and ``fewshot build`` write the cell, so that it is the same everywhere: repeat
both when the address is there or changed, and give ``CITATION.cff`` the same one as
``repository-code``.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import nbformat

#: Its id, and its tag: it counts neither as reading nor as something to do.
INSTALL = "install"
#: MyST-NB leaves out of the web pages what has this tag.
NOT_ON_PAGES = "remove-cell"
#: Folded in JupyterLab and Notebook 7 (``jupyter``), and in Colab (``cellView``).
METADATA = {
    "cellView": "form",
    "jupyter": {"source_hidden": True},
    "tags": [INSTALL, NOT_ON_PAGES],
}
#: What a notebook needs beside Jupyter, which is there.
EXTRA = "pretrained"
TITLE = """\
# @title Installs the course where it is missing; elsewhere it does nothing
from importlib.util import find_spec

if find_spec("fewshot_lib") is None:
"""
FROM_REPOSITORY = """\
    course = "fewshot-course[{extra}] @ git+{address}"
    get_ipython().run_line_magic("pip", f"install --quiet '{{course}}'")"""
BY_HAND = """\
    raise ModuleNotFoundError(
        "the course is not installed here: upload its folder, run"
        " %pip install './FOLDER[{extra}]' and then this cell again"
    )"""


def repository(course: Path) -> str | None:
    """Read the address of the course's repository, or None while there is none.

    Arguments:
        course: a folder with ``pyproject.toml``, or without one: then there is no address, too.
    """
    file = course / "pyproject.toml"
    table = tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    address = table.get("project", {}).get("urls", {}).get("Repository")
    return str(address) if address else None


def source(address: str | None) -> str:
    """Write the cell's code.

    >>> compile(source(None), "cell", "exec") and compile(source("https://x.org/y"), "cell", "exec")
    ... # doctest: +ELLIPSIS
    <code object <module> at ...>
    """
    body = BY_HAND if address is None else FROM_REPOSITORY
    return TITLE + body.format(extra=EXTRA, address=address)


def put(notebook: nbformat.NotebookNode, address: str | None) -> bool:
    """Put the cell before the first code cell of a notebook, or bring it up to date.

    Arguments:
        notebook: is changed in place; a cell that is as it should be stays as it is.
        address: of the repository.

    Returns:
        Whether anything was changed.
    """
    code = [place for place, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    there = [place for place in code if notebook.cells[place].get("id") == INSTALL]
    if code and there == code[:1]:
        cell = notebook.cells[there[0]]
        if cell.source == source(address) and cell.metadata == METADATA:
            return False
    notebook.cells = [cell for cell in notebook.cells if cell.get("id") != INSTALL]
    first = next(
        (place for place, cell in enumerate(notebook.cells) if cell.cell_type == "code"),
        len(notebook.cells),
    )
    made = nbformat.v4.new_code_cell(source(address), metadata=METADATA, id=INSTALL)
    notebook.cells.insert(first, made)
    return True
