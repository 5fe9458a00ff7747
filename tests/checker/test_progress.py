"""The reader's progress: kept through crashes, two writers and damage; never in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from fewshot_lib.checker import progress
from fewshot_lib.checker.progress import Item, NoSuchName, Panel, ProgressNotSaved


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
        "from fewshot_lib.checker import progress\n"
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
        '{"version": 0, "rows": []}',
        '{"version": "2", "rows": []}',
        '{"version": true, "rows": []}',
        '{"version": 2, "rows": [{"key": "a.b", "ticked": ["x"]}]}',
        '{"version": 2, "rows": [{"key": "a.b", "ticked": 7}]}',
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


@pytest.fixture
def several():
    for key in ("a.b", "a.c", "question:a.q", "ab.b", "z.y", "question:z.b"):
        progress.attempt(key, 1, 1)


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("a", {"a.b", "a.c", "question:a.q"}),
        ("a.b", {"a.b"}),
        ("a.q", {"question:a.q"}),
        ("question:a.q", {"question:a.q"}),
        ("z", {"z.y", "question:z.b"}),
        ("", {"a.b", "a.c", "question:a.q", "ab.b", "z.y", "question:z.b"}),
    ],
)
def test_reset_forgets_what_it_is_told_and_nothing_else(several, name, gone):
    before = set(progress.load())
    assert progress.reset(name) == len(gone)
    assert set(progress.load()) == before - gone


@pytest.mark.parametrize("name", ["nonsense", "A", "a.", ".", "b", "a.b.c", "question", "*"])
def test_reset_of_what_does_not_exist_forgets_nothing_and_says_so(several, name):
    before = progress.load()
    with pytest.raises(NoSuchName, match="no exercise, answer or question is called"):
        progress.reset(name)
    assert progress.load() == before


def test_reset_of_what_was_not_begun_is_no_mistake(several):
    assert progress.reset("y", known=["y.x"]) == 0


@pytest.mark.parametrize("version", [progress.VERSION + 1, 99])
def test_a_file_of_a_newer_version_is_left_alone_and_not_called_damaged(file, capsys, version):
    content = json.dumps({"version": version, "rows": [{"key": "a.b", "unheard": 1}]})
    file.parent.mkdir()
    file.write_text(content)
    assert progress.load() == {}
    said = capsys.readouterr().out
    assert "newer version" in said
    assert "damaged" not in said
    changes = [
        lambda: progress.attempt("a.b", 1, 1),
        lambda: progress.hint_read("a.b", 1),
        lambda: progress.tick("a.b", [0], 1, 1),
        lambda: progress.predict("a.b", "0.5"),
        lambda: progress.reset(),
    ]
    for change in changes:
        with pytest.raises(ProgressNotSaved, match="newer version"):
            change()
    assert file.read_text() == content
    assert [path.name for path in file.parent.iterdir() if path.suffix == ".json"] == [file.name]


def test_a_file_of_the_first_version_is_read_and_kept(file):
    file.parent.mkdir()
    old = {"key": "a.b", "attempts": 2, "hints": 0, "points": 1.0, "max_points": 4.0,
           "passed": "", "attempts_to_pass": 0}  # fmt: skip
    file.write_text(json.dumps({"version": 1, "rows": [old]}))
    assert progress.load()["a.b"].attempts == 2
    progress.attempt("a.b", 4, 4)
    assert progress.load()["a.b"].attempts_to_pass == 3


def test_ticks_are_remembered_and_are_not_attempts():
    progress.tick("a.text", [0, 2], 2, 3)
    row = progress.load()["a.text"]
    assert (row.ticked, row.points, row.attempts, row.passed) == ((0, 2), 2, 0, "")
    progress.tick("a.text", [0, 1, 2], 3, 3)
    assert progress.load()["a.text"].passed
    progress.tick("a.text", [1], 1, 3)
    row = progress.load()["a.text"]
    assert (row.ticked, row.points, row.attempts, row.passed) == ((1,), 1, 0, "")


def test_the_newest_prediction_is_remembered_and_goes_with_its_notebook():
    progress.predict("prediction:a.one", "0.5")
    progress.predict("prediction:a.one", "")
    progress.predict("prediction:b.one", '"up"')
    assert progress.load()["prediction:a.one"].given == ""
    assert progress.reset("a") == 1
    assert list(progress.load()) == ["prediction:b.one"]


def test_every_row_links_to_its_notebook_and_one_line_says_what_is_next(tmp_path, monkeypatch):
    for name in ("exercises/01 a.ipynb", "notebooks/01.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "notebooks")
    items = [
        Item("a.b", "b", "01 A", 4, 10, "exercises/01 a.ipynb"),
        Item("a.c", "c", "01 A", 4, 5, "exercises/01 a.ipynb"),
        Item("question:a.q", "q", "01 A", file="notebooks/01.ipynb"),
    ]
    progress.attempt("a.b", 4, 4)
    panel = Panel(items, progress.load())
    page = panel._repr_html_()
    assert page.count('<a href="../exercises/01%20a.ipynb">') == 3  # b, c, and what is next
    assert page.count('<a href="01.ipynb">questions</a>') == 1
    last = repr(panel).splitlines()[-1]
    assert last == "Next: c in 01 A (5 min): exercises/01 a.ipynb"
    progress.attempt("a.c", 4, 4)
    assert "Next: the questions of 01 A" in repr(Panel(items, progress.load()))
    progress.attempt("question:a.q", 1, 1)
    assert "Everything is done" in repr(Panel(items, progress.load()))


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
    assert "not started" in lines[6]
    assert lines[7] == "Next: c in first (5 min)"
    page = panel._repr_html_()
    assert "y &lt;i&gt;" in page
    assert whole in page
    assert page.count("<tr>") == len(lines) - 2


def test_a_panel_of_nothing_says_so():
    assert "there are no exercises" in repr(Panel([], {}))
