"""``fewshot grade`` as a teacher types it: five kinds of students, bad input, a full disk."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from handed_in import COURSE, NAME, SOLUTION, STUB, hand_in, rows_of
from students import EVERYBODY, FIVE

from fewshot_lib import cli
from fewshot_lib.checker.course import course as used
from fewshot_lib.checker.notebook import answer_cells, grading, source_of
from fewshot_lib.grader import results
from fewshot_lib.grader.command import CANNOT, DONE, WRONG_USE
from fewshot_lib.grader.labels import safe_file_name

UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


@pytest.fixture
def typed(monkeypatch, capsys):
    """Type a command line, within this process; give its exit status and what it prints."""

    def run(*words: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["fewshot", *map(str, words)])
        monkeypatch.chdir(COURSE)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(typed):
    """Type a command line that is wrong; give its exit status and its one sentence."""

    def run(*words: object) -> tuple[object, str]:
        status, _, said = typed(*words)
        return status, one_sentence(said)

    return run


def one_sentence(said: str) -> str:
    lines = [line for line in said.strip().splitlines() if "submissions" not in line[:40]]
    assert "Traceback" not in said
    assert len(lines) == 1, said
    return lines[0]


@pytest.mark.hostile
def test_the_command_says_how_many_it_graded(marked):
    _, done = marked
    assert done.returncode == DONE, done.stderr
    assert f"{len(EVERYBODY)} graded" in done.stdout


@pytest.mark.hostile
def test_everything_that_is_promised_is_written(marked):
    folder, _ = marked
    marks = folder / "marks"
    with (marks / "grades.csv").open(encoding="utf-8-sig") as file:
        table = {line["student"]: line["total"] for line in csv.DictReader(file)}
    assert table["anna, a solution"] == "16"
    assert table["eve, hostile"] == "0"
    for student in EVERYBODY:
        place = safe_file_name(student)
        page = (marks / "feedback" / place / f"{NAME}.html").read_text(encoding="utf-8")
        assert "of 16 points" in page
        scope = json.loads((marks / "gradescope" / place / "results.json").read_text("utf-8"))
        assert scope["score"] == sum(test["score"] for test in scope["tests"])
        assert sum(test["max_score"] for test in scope["tests"]) == 16
    report = (marks / "report.html").read_text(encoding="utf-8")
    for words in ("Distribution of points", "By check", "Typical mistakes met", "not squared"):
        assert words in report
    for words in ("Slowest", "Similar submissions"):
        assert words in report


@pytest.mark.hostile
def test_the_gradebook_gets_marks_and_formgrader_its_notebooks(marked, tmp_path, typed):
    folder, _ = marked
    url = f"sqlite:///{tmp_path}/gradebook.db"
    export = ("gradebook", "export", folder / "marks", "--db", url, "--course", tmp_path)
    status, out, _ = typed(*export)
    assert status == DONE
    assert f"{len(EVERYBODY)} submissions entered" in out
    assert f"{len(EVERYBODY)} notebooks written" in out
    for student, handed_in in FIVE.items():
        file = tmp_path / "autograded" / student / NAME / f"{NAME}.ipynb"
        seen = nbformat.read(file, as_version=4)
        nbformat.validate(seen)
        assert [cell.metadata for cell in seen.cells] == [c["metadata"] for c in STUB["cells"]]
        theirs = answer_cells(handed_in, texts=True)
        for cell, given in zip(seen.cells, STUB["cells"], strict=True):
            assert cell.source == theirs.get(grading(cell).get("grade_id"), source_of(given))
        outputs = [cell.outputs for cell in seen.cells if cell.cell_type == "code"]
        said = "".join(output.text for those in outputs for output in those)
        assert ("failed" in said) == (student[:4] == "carl"), said


def test_without_bubblewrap_it_is_exit_3_and_the_way_out(tmp_path, monkeypatch, refused):
    hand_in(tmp_path / "submitted", {"anna": SOLUTION})
    monkeypatch.setenv("PATH", str(tmp_path))
    status, said = refused("grade", tmp_path / "submitted", "--results", tmp_path / "marks")
    assert status == CANNOT
    assert "bubblewrap is not installed" in said
    assert "--isolation none" in said


@pytest.mark.hostile
@pytest.mark.parametrize("kind", ["nowhere", "empty", "no exercise", "no zip", "half a zip"])
def test_bad_input_is_one_sentence_and_exit_2(kind, tmp_path, refused):
    place, more = tmp_path / "submitted", []
    if kind == "empty":
        place.mkdir()
    elif kind == "no exercise":
        hand_in(place, {"anna": SOLUTION})
        more = ["--exercise", "12_nothing"]
    elif kind == "no zip":
        place = tmp_path / "export.zip"
        place.write_bytes(b"this is no zip")
    elif kind == "half a zip":
        hand_in(place, {"anna": SOLUTION})
        whole = Path(shutil.make_archive(str(tmp_path / "whole"), "zip", place)).read_bytes()
        place = tmp_path / "half.zip"
        place.write_bytes(whole[: len(whole) // 2])
    status, said = refused("grade", place, "--results", tmp_path / "marks", *more)
    assert status == WRONG_USE, said
    wanted = {"nowhere": "no such file", "empty": "no submission", "no exercise": "no exercise"}
    assert wanted.get(kind, "not a readable zip") in said
    assert not (tmp_path / "marks" / "results.jsonl").exists()


@pytest.mark.hostile
def test_an_exercise_that_nobody_built_is_one_sentence(tmp_path, monkeypatch):
    from fewshot_lib.grader import command as grading_command

    hand_in(tmp_path / "submitted", {"anna": SOLUTION})
    course = tmp_path / "course"
    (course / "exercises").mkdir(parents=True)
    monkeypatch.setattr(
        grading_command, "used", lambda: dataclasses.replace(used(), folder=lambda: course)
    )
    status, said = grading_command.grade(
        tmp_path / "submitted",
        tmp_path / "marks",
        exercise="",
        seed=None,
        workers=1,
        time_limit=20,
        memory_limit=512,
        isolation="bubblewrap",
    )
    assert status == WRONG_USE
    assert f"build it with `fewshot build {NAME}`" in said


@pytest.mark.hostile
def test_the_results_of_another_course_are_left_alone(marked, tmp_path, refused):
    folder, _ = marked
    marks = tmp_path / "marks"
    shutil.copytree(folder / "marks", marks)
    settings = json.loads((marks / "run.json").read_text(encoding="utf-8"))
    (marks / "run.json").write_text(json.dumps({**settings, "course": "another"}), encoding="utf-8")
    before = (marks / "results.jsonl").read_bytes()
    status, said = refused("grade", folder / "submitted", "--results", marks)
    assert status == WRONG_USE
    assert "another course" in said
    assert (marks / "results.jsonl").read_bytes() == before


@pytest.mark.hostile
def test_a_full_disk_keeps_what_is_written_and_goes_on_when_there_is_room(marked, tmp_path, typed):
    """The results lie on a file system of three pages, which is full after the first rows."""
    submitted = hand_in(tmp_path / "submitted", FIVE)
    marks, kept = tmp_path / "marks", tmp_path / "kept"
    marks.mkdir()
    words = ["grade", str(submitted), "--seed", "4", "--results"]
    script = 'mount -t tmpfs -o size=12k none "$1" || exit 77; shift; "$@"; s=$?; '
    script += f'cp -r "{marks}" "{kept}"; exit $s'
    program = [sys.executable, "-m", "fewshot_lib.cli", *words, str(marks)]
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", script, "sh", marks, *program],
        capture_output=True,
        text=True,
        cwd=COURSE,
        check=False,
        timeout=300,
    )
    assert done.returncode == CANNOT, done.stderr
    said = one_sentence(done.stderr)
    assert "could not be written (No space left on device)" in said
    assert "goes on from there" in said
    rows = list(results.read_rows(kept / "results.jsonl"))
    assert 0 < len(rows) < 5
    status, out, err = typed(*words, kept)
    assert status == DONE, err
    assert f"{5 - len(rows)} graded, {len(rows)} were graded before" in out
    points = {row["student"]: row["points"] for row in rows_of(marked[0] / "marks")}
    assert {row["student"]: row["points"] for row in rows_of(kept)} == {
        student: points[student] for student in FIVE
    }


BAD_OPTIONS = {
    "no such student": (("--regrade", "nobody at all"), "no such student at"),
    "no status": (("--status", "tired"), "is not a status of a row; there are graded"),
    "no date": (("--due", "next week"), "is not a date: write"),
    "negative": (("--due", "2026-12-01", "--late-per-day", "-1"), "from 0 to 100 percent"),
    "too much": (("--due", "2026-12-01", "--late-per-day", "101"), "from 0 to 100 percent"),
    "no number": (("--due", "2026-12-01", "--late-per-day", "nan"), "from 0 to 100 percent"),
    "late without due": (("--late-per-day", "10"), "add --due with the date"),
    "no roster": (("--roster", "/no/such/roster.csv"), "--roster: "),
    "a folder for a roster": (("--roster", "."), "--roster: "),
}


@pytest.mark.hostile
@pytest.mark.parametrize("kind", BAD_OPTIONS)
def test_a_bad_option_is_one_sentence_and_exit_2(kind, marked, tmp_path, refused):
    folder, _ = marked
    options, wanted = BAD_OPTIONS[kind]
    status, said = refused("grade", folder / "submitted", "--results", tmp_path / "marks", *options)
    assert (status, wanted in said) == (WRONG_USE, True), said
    assert not (tmp_path / "marks" / "results.jsonl").exists()


@pytest.mark.parametrize(
    "more",
    [
        *(["--regrade", "all"], ["--status", "time"], ["--due", "2026-12-01"], ["submitted"]),
        *(["--late-per-day", "5"], ["--roster", "x.csv"], ["--results", "x"], ["--seed", "1"]),
    ],
)
def test_verify_takes_nothing_that_it_would_not_obey(more, tmp_path, refused):
    status, said = refused("grade", "--verify", tmp_path, *more)
    assert status == WRONG_USE
    assert "--verify repeats a results folder as it was graded" in said


@pytest.mark.hostile
def test_regrading_resubmitting_and_weekly_folders(tmp_path, typed):
    first = hand_in(tmp_path / "week 1", {"anna": STUB, "ben": SOLUTION})
    second = hand_in(tmp_path / "week 2", {"anna": SOLUTION})
    marks = tmp_path / "marks"

    def said(*words: object) -> str:
        status, out, err = typed("grade", *words)
        assert status == DONE, err
        return out

    due = ("--due", "2000-01-01 12:00")
    assert "2 graded" in said(first, "--results", marks, "--seed", 4, *due)
    assert "1 graded" in said(second, "--results", marks)
    # the first folder once more: the older submission does not take its mark back
    assert "0 graded, 2 were graded before" in said(first, "--results", marks)
    again = said(first, "--results", marks, "--regrade", "ben")
    assert "1 graded, 1 were graded before" in again
    assert "1 graded" in said(second, "--results", marks, "--status", "graded")
    rows = list(results.read_rows(marks / "results.jsonl"))
    now = {row["student"]: row["points"] for row in results.current(rows)}
    assert now == {"anna": 16, "ben": 16}
    assert [row["student"] for row in rows] == ["anna", "ben", "anna", "ben", "anna"]
    seeds = [row["receipt"]["seed"] for row in rows]
    assert seeds[0] != seeds[2] == seeds[4]
    assert seeds[1] == seeds[3]
    settings = json.loads((marks / "run.json").read_text(encoding="utf-8"))
    assert sorted(Path(one["place"]).name for one in settings["folders"]) == ["week 1", "week 2"]
    assert settings["due"][NAME]["percent"] == 0
    assert "regrading" not in settings
    assert "Every row" in said("--verify", marks)


@pytest.mark.hostile
def test_two_graders_started_at_once_both_end_well(tmp_path):
    hand_in(tmp_path / "submitted", {"anna": SOLUTION, "ben": STUB})
    words = ("grade", tmp_path / "submitted", "--results", tmp_path / "marks")
    program = [sys.executable, "-m", "fewshot_lib.cli", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": COURSE}
    both = [subprocess.Popen(program, **pipes) for _ in range(2)]
    said = [one.communicate(timeout=300) for one in both]
    assert [one.returncode for one in both] == [DONE, DONE], said
    assert sorted(out[0] for out, _ in said) == ["0", "2"]
    rows = results.read_rows(tmp_path / "marks" / "results.jsonl")
    assert [row["student"] for row in rows] == ["anna", "ben"]


@pytest.mark.hostile
def test_an_interrupted_regrading_goes_on_where_it_stood(marked, tmp_path, monkeypatch):
    from fewshot_lib.grader import grade as module

    submitted, marks = hand_in(tmp_path / "submitted", FIVE), tmp_path / "marks"
    shutil.copytree(marked[0] / "marks", marks)
    honest, options = module.Pool.grade, module.GradeOptions(regrade=["all"])

    def interrupted(self, submissions, seed):
        for number, row in enumerate(honest(self, submissions, seed)):
            if number == 2:
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(module.Pool, "grade", interrupted)
    with pytest.raises(KeyboardInterrupt):
        module.grade(submitted, marks, COURSE, options=options)
    monkeypatch.setattr(module.Pool, "grade", honest)
    summary = module.grade(submitted, marks, COURSE, options=options)
    assert (summary.graded, summary.kept) == (3, 2)
    summary = module.grade(submitted, marks, COURSE, options=options)
    assert (summary.graded, summary.kept) == (5, 0)
