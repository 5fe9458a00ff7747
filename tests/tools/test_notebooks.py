"""Re-running and saving notebooks: fresh, in order, without a trace of the machine or the hour."""

from __future__ import annotations

import base64
from pathlib import Path

import nbformat
import pytest

from fewshot_lib.tools import notebooks


def notebook(*sources: str) -> nbformat.NotebookNode:
    """Make a notebook as an author leaves it: counts and times of an earlier run."""
    cells = [
        nbformat.v4.new_code_cell(
            source, execution_count=40, metadata={"execution": {"iopub.status.busy": "noon"}}
        )
        for source in sources
    ]
    return nbformat.v4.new_notebook(
        cells=cells, metadata={"language_info": {"name": "python", "version": "3.0"}}
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder for notebooks, and an empty cache."""
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "notebooks"
    place.mkdir()
    return place


def test_a_rerun_saves_outputs_in_order_where_the_notebook_lies_and_a_failure_changes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = folder / "01_good.ipynb", folder / "02_bad.ipynb"
    where = "import os; os.path.basename(os.getcwd())"
    nbformat.write(notebook("x = 2", "x + 1", where), good)
    nbformat.write(notebook("1 / 0"), bad)
    before = bad.read_bytes()
    assert notebooks.rerun([bad, good]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert bad.read_bytes() == before
    saved = nbformat.read(good, as_version=4)
    assert [cell.execution_count for cell in saved.cells] == [1, 2, 3, 4]
    shown = [o.data["text/plain"] for cell in saved.cells for o in cell.outputs]
    assert shown == ["3", "'notebooks'"]
    text = good.read_text(encoding="utf-8")
    assert "iopub" not in text
    assert '"version"' not in text
    assert [path.name for path in sorted(folder.iterdir())] == ["01_good.ipynb", "02_bad.ipynb"]


def test_a_private_cache_has_the_scans_and_nothing_that_was_computed(
    folder: Path, tmp_path: Path
) -> None:
    for part in ("scans", "checkpoints"):
        (tmp_path / "cache" / part).mkdir(parents=True)
        (tmp_path / "cache" / part / "file").write_text(part)
    environment = notebooks.private_cache(tmp_path / "private")
    assert environment["FEWSHOT_CACHE"] == str(tmp_path / "private")
    files = [path for path in (tmp_path / "private").rglob("*") if path.is_file()]
    assert files == [tmp_path / "private" / "scans" / "file"]


def test_the_cover_is_the_picture_of_the_tagged_cell(folder: Path) -> None:
    picture = base64.b64encode(b"picture").decode()
    made = notebook("draw()")
    made.cells[0].outputs = [nbformat.v4.new_output("display_data", {"image/png": picture})]
    nbformat.write(made, folder / "05_lesson.ipynb")
    assert notebooks.cover(folder.parent) is False
    made.cells[0].metadata["tags"] = ["cover"]
    nbformat.write(made, folder / "05_lesson.ipynb")
    assert notebooks.cover(folder.parent) is True
    assert (folder / "cover.png").read_bytes() == b"picture"


def printed(text: str, source: str = "print(x)", *tags: str) -> nbformat.NotebookNode:
    """Make a cell that was saved with a text."""
    said = nbformat.v4.new_output("stream", text=text)
    metadata = {"tags": list(tags)} if tags else {}
    return nbformat.v4.new_code_cell(source, outputs=[said], metadata=metadata)


def test_cells_that_only_print_truth_values_are_folded_after_a_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = nbformat.v4.new_output("display_data", {"text/plain": "picture"})
    mixed = printed("a: True\n")
    mixed.outputs.append(picture)
    cells = [
        printed("a: True\nb: False\n"),
        printed("a: True\n0.5\n"),
        mixed,
        nbformat.v4.new_code_cell("x = 1"),
        printed("a: True\n", "def f():\n    return 1\nprint(f())", "other"),
        printed("0.5\n", "print(x)", "check"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "01.ipynb")
    monkeypatch.setattr(notebooks, "execute", lambda *_, **__: None)
    assert notebooks.rerun([folder / "01.ipynb"]) == 0
    _, *saved = nbformat.read(folder / "01.ipynb", as_version=4).cells
    whole = {"tags": ["check"], "jupyter": {"outputs_hidden": True, "source_hidden": True}}
    lesson = {"tags": ["other", "check"], "jupyter": {"outputs_hidden": True}}
    assert [cell.metadata for cell in saved] == [whole, {}, {}, {}, lesson, whole]


def test_folding_alone_runs_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat.write(nbformat.v4.new_notebook(cells=[printed("a: True\n")]), folder / "01.ipynb")
    monkeypatch.setattr(notebooks, "execute", lambda *_: pytest.fail("a notebook was run"))
    notebooks.main(["--fold", str(folder / "01.ipynb")])
    [cell] = nbformat.read(folder / "01.ipynb", as_version=4).cells
    assert cell.metadata.tags == ["check"]
    assert cell.outputs[0].text == "a: True\n"
