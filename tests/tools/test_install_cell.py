"""The cell that installs the course: the same everywhere, silent here, useful elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

from fewshot_lib.checker import catalogue
from fewshot_lib.tools import build, install_cell, notebooks

ROOT = Path(__file__).resolve().parents[2]
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


def test_the_library_alone_carries_a_notebook_without_the_course_around_it(tmp_path: Path) -> None:
    """As where the cell has installed it: pip makes the package, and nothing else is there."""
    source, alone = tmp_path / "source", tmp_path / "alone"
    shutil.copytree(ROOT / "fewshot_lib", source / "fewshot_lib")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [sys.executable, "-m", "pip", *install, "--target", str(alone), str(source)], check=True
    )
    exercise = catalogue.exercise("prototypes")
    solution = nbformat.read(ROOT / "solutions" / f"{exercise.stem}.ipynb", as_version=4)
    where = nbformat.v4.new_code_cell("import fewshot_lib\nprint(fewshot_lib.__file__)")
    solution.cells.append(where)
    environment = {
        **os.environ,
        "PYTHONPATH": str(alone),
        "FEWSHOT_PROGRESS": str(tmp_path / "progress.json"),
    }
    notebooks.execute(solution, tmp_path, environment=environment)
    assert build.score_problems(solution, exercise, full=True) == []
    assert solution.cells.pop().outputs[0].text.startswith(str(alone))
