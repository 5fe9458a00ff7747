"""The cell that installs the course: the same everywhere, silent here, useful elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

from fewshot_lib.tools import install_cell, notebooks

ADDRESS = "https://example.org/somebody/course"


def lesson(*sources: str) -> nbformat.NotebookNode:
    """Make a notebook with a title and code cells."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title"), *cells])


def test_the_address_stands_in_one_place(tmp_path: Path) -> None:
    assert install_cell.repository(tmp_path) is None
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert install_cell.repository(tmp_path) is None
    with (tmp_path / "pyproject.toml").open("a") as file:
        file.write(f'[project.urls]\nRepository = "{ADDRESS}"\n')
    assert install_cell.repository(tmp_path) == ADDRESS


def test_the_cell_stands_before_the_first_code_and_is_put_there_once() -> None:
    made = lesson("import torch", "torch")
    assert install_cell.put(made, None) is True
    assert [cell.get("id") == "install" for cell in made.cells] == [False, True, False, False]
    assert install_cell.put(made, None) is False
    assert install_cell.put(made, ADDRESS) is True
    assert ADDRESS in made.cells[1].source
    made.cells[1], made.cells[2] = made.cells[2], made.cells[1]
    assert install_cell.put(made, ADDRESS) is True
    assert [cell.get("id") == "install" for cell in made.cells] == [False, True, False, False]
    nbformat.validate(made)


def test_a_notebook_that_is_run_again_gets_the_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebooks, "execute", lambda *_, **__: None)
    nbformat.write(lesson("x = 1"), tmp_path / "01.ipynb")
    assert notebooks.rerun([tmp_path / "01.ipynb"], ADDRESS) == 0
    assert ADDRESS in nbformat.read(tmp_path / "01.ipynb", as_version=4).cells[1].source


@pytest.mark.parametrize("address", [None, ADDRESS])
def test_where_the_course_is_installed_the_cell_does_nothing(address: str | None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", install_cell.source(address)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout + done.stderr == ""


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process find no course."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


@pytest.mark.usefixtures("missing")
def test_where_it_is_missing_and_has_no_address_one_sentence_says_what_to_do() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"upload its folder.* %pip install"):
        exec(install_cell.source(None), {})


@pytest.mark.usefixtures("missing")
def test_where_it_is_missing_it_is_installed_from_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[tuple[str, str]] = []
    shell = InteractiveShell()
    monkeypatch.setattr(shell, "run_line_magic", lambda name, line: ran.append((name, line)))
    exec(install_cell.source(ADDRESS), {"get_ipython": lambda: shell})
    asked = f"install --quiet 'fewshot-course[pretrained] @ git+{ADDRESS}'"
    assert ran == [("pip", asked)]
