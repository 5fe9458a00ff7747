"""Every saved notebook is evidence: run in order, without errors, readable without running it."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from saved import (
    LESSONS,
    PICTURES,
    ROOT,
    SAVED,
    code_cells,
    headings,
    label,
    machine_seconds,
    number_of,
    opening,
    outputs,
    prose,
    read,
)  # fmt: skip

from fewshot_lib.checker.notebook import WIDE
from fewshot_lib.tools import install_cell
from fewshot_lib.tools.notebooks import pngs

LONGEST_CELL = 25  # lines; the aim is 12
VERBATIM = "note-class"  # the note's own class, which is as long as it is
LONGEST_LESSON = 60.0  # seconds of machine time on two cores
LONGER = {
    "03": 90.0,  # the letters: fifteen trainings more
    "06": 420.0,  # two long trainings, and three seeds of the short ones
    "10": 120.0,  # six short trainings
}
CLOSING = ("what we saw", "claim", "question", "references")

every_notebook = pytest.mark.parametrize("path", SAVED, ids=label)
every_lesson = pytest.mark.parametrize("path", LESSONS, ids=label)


@every_notebook
def test_notebook_is_saved_executed_in_order_on_a_fresh_kernel(path: Path) -> None:
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))


@every_notebook
def test_notebook_was_saved_without_an_error(path: Path) -> None:
    errors = [f"{o.ename}: {o.evalue}" for o in outputs(path) if o.output_type == "error"]
    assert errors == []


@every_notebook
def test_nothing_of_the_machine_that_ran_it_is_saved(path: Path) -> None:
    """No home or work folders in outputs, no times of execution, no interpreter's patch version."""
    text = path.read_text(encoding="utf-8")
    paths = r"(?<![\w.:/])/(?:home|Users|root|work|tmp|opt|var)/[\w.-]+|[A-Z]:\\\\Users"
    assert re.findall(paths, text) == []
    assert "iopub.status" not in text
    assert "version" not in read(path).metadata.get("language_info", {})


def test_nobodys_progress_is_saved() -> None:
    saved = (ROOT / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf-8")
    assert re.findall(r"Your progress: (\d+) of", saved) == ["0"]


@every_notebook
def test_the_first_code_cell_installs_the_course_elsewhere_and_says_nothing_here(
    path: Path,
) -> None:
    """Written by ``make notebooks`` and ``fewshot build``."""
    cell = code_cells(path)[0]
    assert cell.id == install_cell.INSTALL
    assert cell.source == install_cell.source(install_cell.repository(ROOT))
    assert cell.metadata == install_cell.METADATA
    assert cell.outputs == []
    assert max(map(len, cell.source.splitlines())) < 80


@every_notebook
def test_no_cell_hides_from_nbval(path: Path) -> None:
    """A cell may say that its output varies; it may not be left out, nor be expected to fail."""
    hidden = {"nbval-skip", "nbval-raises-exception", "raises-exception", "skip-execution"}
    for cell in code_cells(path):
        assert not hidden & set(cell.metadata.get("tags", [])), cell.source
        assert not re.search(r"^\s*#\s*(NBVAL_SKIP|NBVAL_RAISES_EXCEPTION)", cell.source, re.M)


@every_notebook
def test_every_picture_has_an_alternative_text(path: Path) -> None:
    for output in outputs(path):
        for kind in set(PICTURES) & set(output.get("data", {})):
            metadata = output.get("metadata", {})
            text = metadata.get(kind, {}).get("alt") or metadata.get("alt")
            # a bundle's HTML form, which JupyterLab prefers, carries the text itself
            in_html = re.search(r'alt="[^"]{10,}"', output.data.get("text/html", ""))
            assert in_html or len(text or "") >= 10, f"a picture without alternative text: {kind}"
    for text in prose(path):
        for alternative in re.findall(r"!\[([^\]]*)\]\(", text):
            assert len(alternative) >= 10, "a picture in the text without alternative text"


@every_notebook
def test_pictures_in_html_outputs_have_an_alternative_text(path: Path) -> None:
    for output in outputs(path):
        for tag in re.findall(r"<img\b[^>]*>", output.get("data", {}).get("text/html", "")):
            assert re.search(r'\balt="[^"]{10,}"', tag, re.S), tag[:80]


@every_lesson
def test_cells_are_short(path: Path) -> None:
    ours = [c.source for c in code_cells(path) if c.id != VERBATIM]
    long = [source for source in ours if len(source.splitlines()) > LONGEST_CELL]
    assert long == []


def test_no_line_of_code_is_wider_than_a_narrow_window_in_any_language() -> None:
    parts = [ROOT / part for part in ("notebooks", "exercises", "solutions")]
    every = [path for part in parts for path in sorted(part.rglob("*.ipynb"))]
    assert len(every) > len(SAVED)  # the other language's, too
    wide = [
        f"{path.relative_to(ROOT)}, {cell.id}: {line}"
        for path in every
        for cell in code_cells(path)
        for line in cell.source.splitlines()
        if len(line) > WIDE and cell.id != VERBATIM
    ]
    assert wide == []


@every_lesson
def test_no_cell_in_view_only_prints_truth_values(path: Path) -> None:
    """They are tagged and folded: repeat ``python -m fewshot_lib.tools.notebooks --fold``."""
    printed = [
        cell
        for cell in code_cells(path)
        if cell.outputs
        and all(
            output.output_type == "stream"
            and re.fullmatch(r"(?:.*: (?:True|False)\n?)+", output.text)
            for output in cell.outputs
        )
    ]
    for cell in printed:
        assert "check" in cell.metadata.get("tags", []), cell.source
    for cell in code_cells(path):
        if "check" in cell.metadata.get("tags", []):
            assert cell.metadata.get("jupyter", {}).get("outputs_hidden"), cell.source


@every_lesson
def test_the_output_that_varies_is_followed_by_a_line_that_does_not(path: Path) -> None:
    """After a cell tagged nbval-ignore-output some later cell shows something nbval compares."""
    cells = code_cells(path)
    ignored = [
        number
        for number, cell in enumerate(cells)
        if "nbval-ignore-output" in cell.metadata.get("tags", [])
        or re.search(r"^\s*#\s*NBVAL_IGNORE_OUTPUT", cell.source, re.M)
    ]
    held = [number for number, cell in enumerate(cells) if cell.outputs and number not in ignored]
    for number in ignored:
        assert any(later > number for later in held), cells[number].source


@every_lesson
def test_lesson_opens_with_what_it_gives_and_what_it_costs(path: Path) -> None:
    text = opening(path)
    assert text.startswith("# "), "a title first"
    assert re.search(r"you will be able to|after this notebook you can", text, re.I), "aims"
    assert re.search(r"\d+\s*(?:[–-]\s*\d+\s*)?min(ute)?s?\b", text), "the reader's minutes"
    assert machine_seconds(path) is not None, "the machine's seconds, on a line with 'machine'"


@every_lesson
def test_lesson_states_a_machine_time_within_the_course_budget(path: Path) -> None:
    stated = machine_seconds(path)
    assert stated is not None
    assert stated <= LONGER.get(number_of(path), LONGEST_LESSON)


@every_lesson
def test_lesson_closes_with_numbers_claims_questions_and_references(path: Path) -> None:
    if number_of(path) == "00":
        return  # the first one claims nothing: it shows the way
    found = headings(path)
    for part in CLOSING:
        assert any(part in heading for heading in found), f"no heading with '{part}': {found}"


def test_the_readme_shows_the_picture_that_a_notebook_was_saved_with() -> None:
    tagged = [
        source
        for path in LESSONS
        for cell in code_cells(path)
        if "cover" in cell.metadata.get("tags", [])
        for output in cell.outputs
        for source in pngs(output.get("data", {}))
    ]
    assert tagged, "no cell with a picture is tagged 'cover'"
    cover = LESSONS[0].parent / "cover.png"
    assert cover.read_bytes() == base64.b64decode(tagged[0]), "repeat: make notebooks"
