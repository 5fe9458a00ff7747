"""What a student sees in Jupyter and from ``fewshot check`` is what ``grade`` gives."""

from __future__ import annotations

import re

import nbformat
import pytest
from book import Book
from handed_in import COURSE
from handed_in import NAME as STEM
from shapes import SHAPES

from fewshot_lib.grader.marks import by_answer
from fewshot_lib.grader.plan import plan
from fewshot_lib.grader.pool import Pool
from fewshot_lib.grader.sandbox import SandboxLimits
from fewshot_lib.grader.selfcheck import check_notebook
from fewshot_lib.grader.submissions import InMemory, Submission

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(600)]

COMMAND = (
    "stub_left",
    "copied_and_the_last_is_a_stub",
    "answer_that_uses_a_wrong_one",
    "module_written_by_a_cell",
    "magics_in_an_answer_cell",
    "ends_the_process_at_the_end",
    "answers_as_objects",
)
JUPYTER = (
    "import_added_to_a_handed_out_cell",
    "magics_in_an_answer_cell",
    "answers_as_objects",
    "answer_that_uses_a_wrong_one",
    "the_librarys_own_is_called",
)


def the_librarys_own_is_called(book: Book) -> None:
    """Answer with what the student package lacks: it gives nothing anywhere."""
    source = book.answer("log_posterior")["source"]
    called = "fewshot_lib.prototypes.squared_euclidean("
    source = source.replace("squared_euclidean(", called)
    book.answer("log_posterior")["source"] = f"import fewshot_lib.prototypes\n{source}"


def notebook(name: str) -> Book:
    book = Book(STEM)
    change = the_librarys_own_is_called if name not in SHAPES else SHAPES[name].change
    change(book)
    return book


@pytest.fixture(scope="module")
def graded() -> dict[str, dict[str, float]]:
    """Grade the notebooks; points by answer, by name."""
    names = sorted({*COMMAND, *JUPYTER})
    handed = [Submission(name, STEM, "", InMemory(notebook(name).data())) for name in names]
    found: dict[str, dict[str, float]] = {}
    with Pool(plan(STEM, COURSE), 2, "bubblewrap", SandboxLimits()) as pool:
        for row in pool.grade(handed, 4):
            sums = by_answer(row["checks"])
            found[row["student"]] = {answer: points for answer, (points, _) in sums.items()}
    return found


@pytest.mark.parametrize("name", COMMAND)
def test_the_command_gives_what_grade_gives(graded, name, tmp_path):
    path = tmp_path / f"{STEM}.ipynb"
    path.write_bytes(notebook(name).data())
    said: list[str] = []
    check_notebook(path, said.append)
    text = "\n".join(said)
    for answer, points in graded[name].items():
        found = re.search(
            rf"^\W*(?:\w+\.)?{answer}: (?:([\d.]+) of [\d.]+ points|not attempted)", text, re.M
        )
        assert found, text
        assert float(found[1] or 0) == points, text
    assert f"{sum(graded[name].values()):g} of 16 points" in said[-1]


@pytest.mark.parametrize("name", JUPYTER)
def test_the_checks_in_jupyter_give_what_grade_gives(graded, name, tmp_path):
    from nbclient import NotebookClient

    book = notebook(name)
    cells = nbformat.reads(book.data().decode(), as_version=4)
    NotebookClient(
        cells,
        timeout=120,
        allow_errors=True,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    seen = {}
    for cell in cells.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        if cell.cell_type == "code" and grade_id.startswith("check-"):
            [result] = [o for o in cell.outputs if o.output_type == "execute_result"]
            seen[grade_id.removeprefix("check-")] = float(result.data["text/plain"])
    assert seen == graded[name]
