"""The claim ledger, and whether the saved notebooks show what it says."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch

from fewshot_lib.reading import claim, ledger
from fewshot_lib.reading.claims import (
    METADATA,
    STATUSES,
    TESTED,
    Claim,
    _read_text,
    claims,
    find_problems,
    readme_summary,
    scan,
    seen,
    summary,
)

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SECTIONS = ("1.1", "1.2", "2.1", "2.2", "3.1", "3.2", "4", "4.3", "5.1", "5.2", "5.3", "6")
EXAMPLE = claims()["2.2-prototype"]


def test_the_saved_notebooks_show_what_the_ledger_says() -> None:
    assert find_problems(NOTEBOOKS, strict=True) == []


def test_the_review_was_saved_after_the_notebooks_that_it_reads() -> None:
    """The ledger in notebook 09 names the cells where claims stand now."""
    [path] = NOTEBOOKS.glob("09_*.ipynb")
    outputs = [out for cell in nbformat.read(path, 4).cells for out in cell.get("outputs", [])]
    texts = [out.data["text/plain"] for out in outputs if "data" in out]
    [text] = [text for text in texts if text.startswith("The claim ledger:")]
    for row in scan(NOTEBOOKS):
        if row.notebook != "09":  # its own cells had no numbers while it ran
            there = re.search(
                rf"^{re.escape(row.id)} .*  {row.notebook} \[{row.count}\]", text, re.M
            )
            assert there, f"{row.id} has moved; save {path.name} again, last of all"


# ---- the ledger ---------------------------------------------------------------------------------


def test_the_ledger_holds_forty_claims_from_every_section() -> None:
    rows = claims().values()
    assert len(rows) >= 40
    counts = Counter(section for row in rows for section in re.split(", ", row.section))
    for section in (*SECTIONS, "title", "closing lines"):
        assert counts[section], f"no claim of section {section}"
    assert set(row.status for row in rows) == set(STATUSES)


@pytest.mark.parametrize("id", claims())
def test_every_row_is_whole(id: str) -> None:
    row = claims()[id]
    assert row.id.split("-")[0] in row.section or row.id.startswith("0-")
    assert row.says.endswith(".")
    assert row.why.endswith(".")
    assert row.why.replace("et al. ", "").count(". ") == 0, "one sentence"
    assert len(row.quote) <= 90, "a short quote"


def test_a_quarter_of_the_rows_at_least_is_chinese_and_none_is_empty() -> None:
    chinese = [row for row in claims().values() if re.search(r"[\u4e00-\u9fff]", row.quote)]
    assert len(chinese) > 0.5 * len(claims())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "true"}, "there are reproduced"),
        ({"why": " "}, "has no why"),
        ({"notebook": "3"}, "a number like 03"),
        ({"notebook": "03bb"}, "a number like 03"),
    ],
)
def test_a_row_that_breaks_a_rule_is_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(EXAMPLE, **change)


def test_the_summary_counts_every_claim_once() -> None:
    counts = [int(n) for n in re.findall(r"\d+", summary())]
    assert counts[0] == len(claims()) == sum(counts[1:])


# ---- claim() and ledger() -----------------------------------------------------------------------


def show_any(row: Claim) -> None:
    """Show a row as a notebook would."""
    if row.status in TESTED and not row.read:
        claim(row.id, "something", holds=True)
    else:
        claim(row.id)


@pytest.mark.parametrize("id", claims())
def test_the_printed_status_is_the_ledgers(id: str, outputs) -> None:
    row = claims()[id]
    show_any(row)
    [(bundle, metadata)] = outputs
    assert metadata[METADATA]["status"] == row.status
    for form in ("text/plain", "text/html"):
        printed = [name for name, sign in STATUSES.items() if f"): {sign} {name}" in bundle[form]]
        assert printed == [row.status]


def test_quotes_are_escaped_and_marked_as_chinese(outputs) -> None:
    claim("2.2-prototype", "a < b & c", holds=True)
    page = outputs[0][0]["text/html"]
    assert '<q lang="zh">' in page
    assert "a &lt; b &amp; c" in page


@pytest.mark.parametrize("true", [True, torch.tensor(True), np.bool_(True), np.array([True])])
def test_truth_may_come_from_a_comparison_of_tensors(true: Any, outputs) -> None:
    claim("2.2-prototype", "0.5 = 0.5", holds=true)
    assert outputs[0][1][METADATA]["holds"] is True


@pytest.mark.parametrize("odd", [1, "yes", torch.tensor([True, False]), 0.9])
def test_truth_is_not_guessed(odd: Any) -> None:
    with pytest.raises(TypeError, match="True or False"):
        claim("2.2-prototype", "0.5 = 0.5", holds=odd)


def test_evidence_against_a_verdict_says_so_in_every_form(outputs) -> None:
    claim("2.2-prototype", "0.5 against 0.7", holds=torch.tensor(0.5) == torch.tensor(0.7))
    bundle, metadata = outputs[0]
    assert "Evidence supports this verdict: NO." in " ".join(bundle["text/plain"].split())
    assert "Evidence supports this verdict: NO." in bundle["text/html"]
    assert metadata[METADATA]["holds"] is False


def test_a_wrong_id_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no claim '2.2-protoype'; did you mean 2.2-prototype"):
        claim("2.2-protoype", "x", holds=True)
    with pytest.raises(ValueError, match="lists them all"):
        claim("", "x", holds=True)


@pytest.mark.parametrize("missing", [{"observed": "x"}, {"holds": True}, {}, {"observed": " . "}])
def test_a_claim_that_can_be_tested_needs_what_was_seen_and_whether_it_supports_the_verdict(
    missing,
) -> None:
    with pytest.raises(ValueError, match=r"needs observed=.*holds="):
        claim("2.2-prototype", **missing)


def test_a_verdict_decided_by_reading_shows_no_evidence_and_takes_none(outputs) -> None:
    claim("5.1-contributions")
    bundle, metadata = outputs[0]
    assert "Decided by reading; nothing was run for it." in bundle["text/plain"]
    assert "Seen here" not in bundle["text/plain"]
    assert metadata[METADATA]["holds"] is None
    with pytest.raises(ValueError, match="decided by reading"):
        claim("5.1-contributions", "2019 is before 2021", holds=True)


def test_the_ledger_prints_all_rows_in_both_forms(outputs) -> None:
    ledger()
    [(bundle, _)] = outputs
    for row in claims().values():
        assert row.id in bundle["text/plain"]
        assert row.id in bundle["text/html"]
    assert bundle["text/html"].count("<tr>") == len(claims()) + 1
    assert summary() in " ".join(bundle["text/plain"].split())


def test_the_ledger_of_one_notebook_has_its_rows_only(outputs) -> None:
    ledger("04")
    text = outputs[0][0]["text/plain"]
    own = {row.id for row in claims().values() if row.notebook == "04"}
    assert {id for id in claims() if re.search(rf"^{re.escape(id)}\b", text, re.M)} == own
    with pytest.raises(ValueError, match="no claim is shown in notebook '4'"):
        ledger("4")


# ---- ledger and notebooks -----------------------------------------------------------------------


def printed(kept: dict) -> str:
    """Give the text of a claim as claim() prints it."""
    sign = STATUSES[kept["status"]]
    title = f"Claim {kept['id']} (note §2.2): {sign} {kept['status']}"
    seen_there = "  Seen here: 0.5 against\n  0.7. Evidence supports this verdict: yes."
    return f"{title}\n  The note: Something.\n{seen_there}\n  Why."


def saved(folder: Path, number: str, *cells: tuple[str, dict | None]) -> None:
    """Save a notebook of (source, kept row) cells."""
    made = [nbformat.v4.new_markdown_cell("# title")]
    for source, kept in cells:
        cell = nbformat.v4.new_code_cell(source, execution_count=1)
        if kept is not None:
            kept = dict(kept)
            text = kept.pop("text", None) or printed(kept)
            output = nbformat.v4.new_output(
                "display_data", {"text/plain": text}, metadata={METADATA: kept}
            )
            cell.outputs = [output]
        made.append(cell)
    nbformat.write(nbformat.v4.new_notebook(cells=made), folder / f"{number}_name.ipynb")


def right(row: Claim) -> tuple[str, dict]:
    kept = {"id": row.id, "status": row.status, "holds": True if row.status in TESTED else None}
    return f"x = 1\nclaim({row.id!r}, f'{{x}}', holds=x == 1)", kept


def whole_course(folder: Path) -> None:
    """Save notebooks that show the whole ledger."""
    for number in sorted({row.notebook for row in claims().values()}):
        own = [row for row in claims().values() if row.notebook == number]
        saved(folder, number, *(right(row) for row in own))


def test_a_course_that_shows_everything_has_no_problems(tmp_path: Path) -> None:
    whole_course(tmp_path)
    assert find_problems(tmp_path, strict=True) == []
    assert len(scan(tmp_path)) == len(claims())


def test_notebooks_that_do_not_exist_yet_are_asked_for_only_when_strict(tmp_path: Path) -> None:
    whole_course(tmp_path)
    (tmp_path / "04_name.ipynb").unlink()
    assert find_problems(tmp_path) == []
    missing = find_problems(tmp_path, strict=True)
    assert missing == ["6-mixture: no cell of notebook 04 shows it"]


WRONG: dict[str, tuple[tuple[str, dict | None], str]] = {
    "another status": (
        ("claim('6-mixture', 'x', holds=True)", {"id": "6-mixture", "status": "reproduced",
                                                 "holds": True}),
        "prints 'reproduced', the ledger says 'holds under conditions'",
    ),
    "a status that it does not print": (
        ("claim('6-mixture', 'x', holds=True)",
         {"id": "6-mixture", "status": "holds under conditions", "holds": True,
          "text": "Claim 6-mixture (note §6, question 2): = reproduced\n  The note: x."}),
        "keeps 'holds under conditions' but its text says 'reproduced'",
    ),
    "a status without its text": (
        ("claim('6-mixture', 'x', holds=True)",
         {"id": "6-mixture", "status": "holds under conditions", "holds": True, "text": "nothing"}),
        "but its text says None",
    ),
    "never run": (("claim('6-mixture', 'x', holds=True)", None), "has no saved output"),
    "not borne out": (
        ("claim('6-mixture', 'x', holds=False)",
         {"id": "6-mixture", "status": "holds under conditions", "holds": False}),
        "saw what does not support",
    ),
    "unknown": (("reading.claim(id='6-mix', observed='x')", None), "the ledger does not have"),
    "misplaced": (right(claims()["2.2-softmax"]), "in notebook 04, cell 2; the ledger says 03"),
    "left out": (("# claim('6-mixture')\nprint('claim(\"6-mixture\")')", None), "no cell of"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_where_ledger_and_notebook_disagree_it_is_told(case: str, tmp_path: Path) -> None:
    cell, message = WRONG[case]
    saved(tmp_path, "04", ("%time 1\n!ls\n1", None), cell)
    problems = find_problems(tmp_path)
    if case in ("unknown", "misplaced"):
        problems = [p for p in problems if "no cell of" not in p]
    assert len(problems) == 1
    assert message in problems[0]


def test_the_ledger_says_in_which_cell_each_claim_is_shown_and_leads_there(
    tmp_path: Path, outputs
) -> None:
    saved(tmp_path, "04b", ("1", None), right(claims()["6-euclidean"]))
    ledger(folder=tmp_path)
    text = outputs[0][0]["text/plain"]
    assert re.search(r"6-euclidean .* 04b \[1\]", text)
    assert re.search(r"6-mixture .* not yet", text)
    assert '<a href="04b_name.ipynb">04b [1]</a>' in outputs[0][0]["text/html"]


def test_what_the_notebooks_saw_is_read_from_their_saved_texts(tmp_path: Path, outputs) -> None:
    saved(tmp_path, "04", right(claims()["6-mixture"]))
    seen(["6-mixture", "6-euclidean"], tmp_path)
    [(bundle, _)] = outputs
    assert bundle["text/plain"].splitlines() == [
        "6-mixture, 04 [1]: 0.5 against 0.7",
        "6-euclidean, not yet: not yet",
    ]
    assert '<a href="04_name.ipynb">04 [1]</a>' in bundle["text/html"]
    with pytest.raises(ValueError, match="no claim '6-mix'"):
        seen(["6-mix"], tmp_path)


@pytest.mark.parametrize(
    "observed",
    [
        "0.71 with one shot, 0.93 with twenty",
        "a well-known, twenty-five-word-long sentence that is wrapped at a hyphen-bearing-compound "
        "word, so that reading it back has to join what was parted",
    ],
)
def test_what_claim_prints_can_be_read_back(observed: str, outputs) -> None:
    claim("6-mixture", observed, holds=True)
    status, saw = _read_text("6-mixture", outputs[0][0]["text/plain"])
    assert (status, saw) == (claims()["6-mixture"].status, observed)


# ---- the README ---------------------------------------------------------------------------------


def test_the_readme_sums_up_the_ledger_as_it_is() -> None:
    text = (NOTEBOOKS.parent / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- claim ledger -->\n(.*?)\n<!-- end -->", text, re.S)
    assert found, "README.md needs a block between <!-- claim ledger --> and <!-- end -->"
    told = "put the text of fewshot_lib.reading.claims.readme_summary() between the marks"
    assert found[1] == readme_summary(), told


def test_the_summary_for_the_readme_counts_every_claim() -> None:
    first = readme_summary().splitlines()[0]
    counts = [int(n) for n in re.findall(r"\d+", first)]
    assert counts[0] == len(claims()) == sum(counts[1:])
