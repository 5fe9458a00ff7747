"""The reader's progress: kept through crashes, two writers and damage; never in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from fewshot_lib.reading import progress
from fewshot_lib.reading.progress import Item, Panel, ProgressNotSaved


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "progress.json"
    monkeypatch.setenv("FEWSHOT_PROGRESS", str(path))
    monkeypatch.chdir(tmp_path)
    return path


def test_no_file_means_nothing_done():
    assert progress.load() == {}


def test_attempts_are_counted_and_the_pass_is_dated_once():
    progress.attempt("a.b", 1, 4)
    progress.attempt("a.b", 4, 4)
    first = progress.load()["a.b"]
    progress.attempt("a.b", 2, 4)
    row = progress.load()["a.b"]
    assert (row.attempts, row.points, row.max_points) == (3, 4, 4)
    assert row.attempts_to_pass == 2
    assert row.passed == first.passed
    assert row.passed.endswith("+00:00")


def test_hints_are_remembered_by_the_furthest_step():
    progress.hint_read("a.b", 2)
    progress.hint_read("a.b", 1)
    assert progress.load()["a.b"].hints == 2


def test_two_programs_that_write_at_once_lose_nothing(file):
    script = (
        "from fewshot_lib.reading import progress\n"
        "for _ in range(40): progress.attempt('a.b', 0, 1)"
    )
    running = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [program.wait(60) for program in running] == [0, 0]
    assert progress.load()["a.b"].attempts == 80


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"version": 1}',
        '{"version": 99, "rows": []}',
        '{"version": 1, "rows": [{"key": "a.b", "attempts": "many"}]}',
        '{"version": 1, "rows": [{"key": "a.b", "other": 1}]}',
        '{"version": 1, "rows": [7]}',
        "\x00\xff",
    ],
)
def test_a_damaged_file_is_kept_aside_and_said_so(file, capsys, content):
    file.parent.mkdir()
    file.write_text(content, encoding="latin-1")
    progress.attempt("c.d", 1, 1)
    said = capsys.readouterr()
    kept = list(file.parent.glob("progress.damaged-*.json"))
    assert "damaged" in said.out
    assert str(kept[0]) in said.out
    assert said.err == ""
    assert kept[0].read_text(encoding="latin-1") == content
    assert list(progress.load()) == ["c.d"]


def test_an_interrupted_write_leaves_the_old_file(file, monkeypatch):
    progress.attempt("a.b", 1, 1)
    before = file.read_text()

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ProgressNotSaved, match="no space"):
        progress.attempt("a.b", 1, 1)
    assert file.read_text() == before
    assert [path.name for path in file.parent.iterdir() if path.suffix == ".tmp"] == []
    assert not list(file.parent.glob(".progress-*"))


def test_a_folder_that_cannot_be_made_is_said_not_raised_as_a_crash(tmp_path, monkeypatch):
    (tmp_path / "plain").write_text("a file, not a folder")
    monkeypatch.setenv("FEWSHOT_PROGRESS", str(tmp_path / "plain" / "progress.json"))
    with pytest.raises(ProgressNotSaved, match="cannot be written"):
        progress.attempt("a.b", 1, 1)


def test_a_held_lock_is_waited_for_and_then_named(file, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr(progress, "LOCK_SECONDS", 0.05)
    file.parent.mkdir()
    with FileLock(f"{file}.lock"), pytest.raises(ProgressNotSaved, match="another program"):
        progress.attempt("a.b", 1, 1)


def test_reset_forgets_all_or_one_exercise_with_its_questions():
    for key in ("a.b", "a.c", "question:a.q", "z.y"):
        progress.attempt(key, 1, 1)
    assert progress.reset("a.") == 3
    assert list(progress.load()) == ["z.y"]
    assert progress.reset() == 1
    assert progress.load() == {}


def test_nothing_is_recorded_in_the_folder_of_the_solutions(tmp_path, monkeypatch):
    (tmp_path / "solutions").mkdir()
    assert progress.recording()
    monkeypatch.chdir(tmp_path / "solutions")
    assert not progress.recording()


def test_the_file_is_readable_json_with_one_row_a_key(file):
    progress.attempt("a.b", 1, 2)
    data = json.loads(file.read_text())
    assert [row["key"] for row in data["rows"]] == ["a.b"]


def test_the_panel_tells_passed_tried_and_untouched_apart():
    progress.attempt("a.b", 1, 4)
    progress.attempt("a.b", 4, 4)
    progress.attempt("a.c", 1, 2)
    progress.hint_read("a.c", 1)
    items = [
        Item("a.b", "b", "first", 4, 10),
        Item("a.c", "c", "first", 2, 5),
        Item("question:a.q", "q", "first"),
        Item("question:a.r", "r", "first"),
        Item("z.y", "y <i>", "last", 1),
    ]
    progress.attempt("question:a.r", 1, 1)
    panel = Panel(items, progress.load())
    lines = repr(panel).splitlines()
    whole = "1 of 3 answers passed, 1 of 2 questions answered, 5 of 7 points"
    assert lines[0] == f"Your progress: {whole}"
    assert lines[1] == "first  5 of 6 points"
    assert "● b" in lines[2]
    assert "passed" in lines[2]
    assert "attempt 2" in lines[2]
    assert "◐ c" in lines[3]
    assert "1 of 2 points after 1 attempt, 1 hint" in lines[3]
    assert lines[4].endswith("○● 1 of 2 answered")
    assert "not begun" in lines[6]
    page = panel._repr_html_()
    assert "y &lt;i&gt;" in page
    assert whole in page
    assert page.count("<tr>") == len(lines) - 1


def test_a_panel_of_nothing_says_so():
    assert "there are no exercises" in repr(Panel([], {}))
