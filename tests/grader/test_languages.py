"""A submission made from another language's exercise: the same mark, feedback in its language."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from english import left_in_english
from handed_in import COURSE, rows_of, with_answers

from fewshot_lib.checker import language as speech
from fewshot_lib.checker.notebook import answer_cells, read
from fewshot_lib.grader import gradebook, marks, selfcheck
from fewshot_lib.grader.grade import grade, write_reports
from fewshot_lib.grader.plan import plan
from fewshot_lib.grader.reader import Reader, parse
from fewshot_lib.tools.language.editions import edition
from fewshot_lib.tools.language.extract import template_words

CHINESE = "zh_CN"
NAMES = sorted(path.stem for path in (COURSE / "exercises").glob("*.ipynb"))
#: A wrong way to write one answer of some exercises; the checker knows the mistake.
WRONG = {
    "01_dice": ("2 * overlap", "overlap"),
    "03_prototypes": (".square().sum(dim=-1)", ".square().sum(dim=-1).sqrt()"),
}


def notebook(name: str, language: str, filled: bool, wrong: tuple[str, str] | None = None) -> Any:
    """Give an exercise as a student hands it in: the stub of a language, with answers in it."""
    made = nbformat.read(COURSE / "exercises" / f"{name}.ipynb", as_version=4)
    if language != speech.SOURCE:
        made = edition(made, f"exercises/{name}", language, [])
    if not filled:
        return made
    own = answer_cells(read(COURSE / "solutions" / f"{name}.ipynb"))
    if wrong:
        assert any(wrong[0] in source for source in own.values()), f"{wrong[0]!r} is gone"
        own = {answer: source.replace(*wrong) for answer, source in own.items()}
    return with_answers(made, **own)


#: What the page itself says; the checks' names are the exercise's.
TEMPLATE = COURSE / "fewshot_lib" / "grader" / "templates" / "feedback.html.j2"
OWN = [text for *_, text, _ in template_words(TEMPLATE.open("rb")) if len(text) > 8]
OWN += [" passed</td>", " failed</td>", " not attempted</td>"]
KINDS = {"right": (True, False), "stub": (False, False), "wrong": (True, True)}


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, str], Any]]:
    folder = tmp_path_factory.mktemp("languages")
    for name in NAMES:
        for kind, (filled, broken) in KINDS.items():
            if broken and name not in WRONG:
                continue
            for language in (speech.SOURCE, CHINESE):
                place = folder / "submissions" / f"{kind} {language}"
                place.mkdir(parents=True, exist_ok=True)
                made = notebook(name, language, filled, WRONG.get(name) if broken else None)
                nbformat.write(made, place / f"{name}.ipynb")
    grade(folder / "submissions", folder / "results", COURSE, seed=11)
    write_reports(folder / "results", COURSE)
    rows = rows_of(folder / "results")
    return folder / "results", {(row["student"], row["exercise"]): row for row in rows}


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in KINDS for name in (WRONG if kind == "wrong" else NAMES)],
)
def test_a_mark_is_the_same_in_every_language(graded: Any, name: str, kind: str) -> None:
    rows = graded[1]
    english, other = (rows[f"{kind} {language}", name] for language in (speech.SOURCE, CHINESE))
    assert (english["language"], other["language"]) == (speech.SOURCE, CHINESE)
    decisive = ("id", "points", "max_points", "status", "mistake")
    assert [[check[key] for key in decisive] for check in english["checks"]] == [
        [check[key] for key in decisive] for check in other["checks"]
    ]
    assert english["points"] == other["points"]
    assert english["receipt"]["specification"] == other["receipt"]["specification"]
    assert english["texts"] == other["texts"], "an untouched placeholder is no text"
    if kind == "right":
        assert other["points"] == other["max_points"]
    if kind == "wrong":
        assert 0 < other["points"] < other["max_points"]


@pytest.mark.hostile
def test_feedback_is_in_the_language_of_the_submission(graded: Any) -> None:
    folder, rows = graded
    for (student, name), row in rows.items():
        found = list((folder / "feedback").glob(f"*{'-'.join(student.split())}*/{name}.html"))
        page = found[0].read_text(encoding="utf-8")
        if row["language"] == CHINESE:
            assert '<html lang="zh-CN">' in page
            assert [words for words in OWN if words in page] == []
            assert "分</b>" in page
        else:
            assert '<html lang="en">' in page
            assert not re.search(r"[\u4e00-\u9fff]", page)
    stub = rows["stub zh_CN", "03_prototypes"]
    assert {check["status"] for check in stub["checks"]} == {"not attempted"}
    assert "还没有作答" in (
        next((folder / "feedback").glob("*stub-zh_CN*/03_prototypes.html")).read_text("utf-8")
    )


@pytest.mark.hostile
def test_whatever_a_student_reads_is_in_the_language_of_the_submission(graded: Any) -> None:
    """Feedback, Gradescope's tests, Moodle's comment: no English sentence, whatever was wrong."""
    folder, rows = graded
    for (student, name), row in rows.items():
        place = "-".join(student.split())
        page = next((folder / "feedback").glob(f"*{place}*/{name}.html")).read_text("utf-8")
        file = next((folder / "gradescope").glob(f"*{place}*/results.json"))
        given = json.loads(file.read_text(encoding="utf-8"))
        texts = [re.sub(r"<style>.*?</style>|<pre>.*?</pre>", "", page, flags=re.S)]
        texts += [given["output"], *(one["name"] for one in given["tests"])]
        texts += [one["output"] for one in given["tests"]]
        texts.append(comment_of(row))
        if row["language"] == CHINESE:
            assert [left for text in texts for left in left_in_english(text)] == []
            assert "迟交" in texts[-1]
        else:
            assert not re.search(r"[\u4e00-\u9fff]", "".join(texts))


def comment_of(row: dict[str, Any]) -> str:
    """Give the comment that Moodle would show of a row, handed in two days late."""
    file = "A_1_assignsubmission_file_/x.ipynb"
    lms = {"kind": "moodle", "name": "A", "id": "1", "file": file, "late": ""}
    late = {**row, "lms": lms, "handed_in": "2026-11-03T00:00:00+00:00"}
    due = {row["exercise"]: {"at": "2026-11-01T00:00:00+00:00", "percent": 10}}
    made = marks.moodle([late], due, {(row["student"], row["exercise"]): "page"})
    (line,) = csv.DictReader(str(made[f"{row['exercise']}-grades.csv"]).splitlines())
    return line["Feedback comments"]


@pytest.mark.hostile
def test_nbgraders_copy_is_in_the_language_of_the_submission(graded: Any, tmp_path: Path) -> None:
    folder, rows = graded
    assert gradebook.write_notebooks(folder, COURSE, tmp_path) == len(rows)
    file = tmp_path / "autograded" / "wrong zh_CN" / "03_prototypes" / "03_prototypes.ipynb"
    made = nbformat.read(file, as_version=4)
    built = nbformat.read(COURSE / "exercises" / "zh" / "03_prototypes.ipynb", as_version=4)
    assert made.cells[0].source == built.cells[0].source
    said = [output.text for cell in made.cells for output in cell.get("outputs", [])]
    assert "未通过" in "".join(said)
    assert [left for text in said for left in left_in_english(text)] == []


@pytest.mark.hostile
def test_the_teacher_reads_which_language_a_submission_is_in(graded: Any) -> None:
    folder, _ = graded
    with (folder / "grades.csv").open(encoding="utf-8-sig") as file:
        lines = {line["student"]: line["language"] for line in csv.DictReader(file)}
    assert lines == {
        f"{kind} {language}": language for kind in KINDS for language in (speech.SOURCE, CHINESE)
    }
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert '<html lang="en">' in report
    assert report.count(f"<td>{CHINESE}</td>") == len(NAMES) * 2 + len(WRONG)


@pytest.mark.parametrize(
    "claimed", ["../../etc/passwd", "zh", "xx_YY", "", 7, None, ["zh_CN"], "zh_CN\u0000", "a" * 500]
)
def test_a_language_that_a_submission_claims_is_a_known_one_or_english(claimed: Any) -> None:
    text = json.dumps(
        {"nbformat": 4, "cells": [], "metadata": {"fewshot": {"language": claimed}}}
    ).encode()
    with Reader() as reader:
        assert speech.claimed(reader.read(text).language) == speech.SOURCE


@pytest.mark.parametrize("metadata", [None, [], "x", {"fewshot": None}, {"fewshot": "zh_CN"}, {}])
def test_a_notebook_without_a_language_is_english(metadata: Any) -> None:
    found = parse(json.dumps({"nbformat": 4, "cells": [], "metadata": metadata}).encode())
    assert speech.claimed(found["language"]) == speech.SOURCE


def test_check_knows_an_exercise_in_every_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWSHOT_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv(speech.VARIABLE, raising=False)
    said: dict[str, list[str]] = {}
    for language in (speech.SOURCE, CHINESE):
        file = tmp_path / language / "01_dice.ipynb"
        file.parent.mkdir()
        nbformat.write(notebook("01_dice", language, filled=True), file)
        said[language] = []
        selfcheck.check_notebook(file, said[language].append)
    assert "points" in said[speech.SOURCE][-1]
    assert re.search(r"(\d+) / \1 分", said[CHINESE][-1])
    wrong = tmp_path / "wrong" / "01_dice.ipynb"
    wrong.parent.mkdir()
    nbformat.write(notebook("01_dice", CHINESE, filled=True, wrong=WRONG["01_dice"]), wrong)
    monkeypatch.setenv("FEWSHOT_PROGRESS", str(tmp_path / "other.json"))
    assert selfcheck.check_notebook(wrong, said[CHINESE].append) == 1
    assert [left for line in said[CHINESE] for left in left_in_english(line)] == []
    rows = json.loads((tmp_path / "progress.json").read_text(encoding="utf-8"))["rows"]
    assert {row["key"]: row["attempts"] for row in rows} == {
        f"dice.{answer.name}": 2 for answer in plan("dice", COURSE).exercise.answers
    }, "one exercise, whatever its language"
