"""Whose work is it, of which exercise, and which of several files counts."""

from __future__ import annotations

import ast
import copy
import io
import json
import os
import string
import subprocess
import sys
import time
import tracemalloc
import unicodedata
import zipfile
from pathlib import Path

import pytest
from handed_in import COURSE, NAME, SOLUTION, STUB, dump
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fewshot_lib.checker import notebook as notebooks
from fewshot_lib.grader import choice, places, submissions
from fewshot_lib.grader.labels import labels, printable, safe_file_name
from fewshot_lib.grader.places import NoSubmissions
from fewshot_lib.grader.plan import course_exercises
from fewshot_lib.grader.reader import MAX_BYTES, Reader, Unreadable
from fewshot_lib.grader.submissions import collect


def read(folder: str, stem: str) -> dict:
    return notebooks.read(COURSE / folder / f"{stem}.ipynb")


EXERCISES = course_exercises()
OTHER = read("solutions", "04_mixture")


def put(root: Path, path: str | bytes, content: dict | bytes = SOLUTION, age: int = 0) -> Path:
    """Write a file; ``age`` is in hours."""
    file = root / os.fsdecode(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else dump(content))
    os.utime(file, (1_700_000_000 - 3600 * age,) * 2)
    return file


def zipped(file: Path | io.BytesIO, members: dict, hours: dict | None = None) -> Path | io.BytesIO:
    """Write a zip; ``hours`` of the day by name, 12 for others."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, (2026, 11, 28, (hours or {}).get(name, 12), 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content if isinstance(content, bytes) else dump(content))
    return file


def inner(members: dict) -> bytes:
    file = io.BytesIO()
    zipped(file, members)
    return file.getvalue()


@pytest.fixture(scope="module")
def reader():
    with Reader() as one:
        yield one


@pytest.fixture
def at(reader, tmp_path):
    def at(place: Path | None = None, only: str = "") -> submissions.Collected:
        return collect(place or tmp_path, EXERCISES, only, reader)

    return at


def rows(collected: submissions.Collected) -> list[tuple[str, str]]:
    return [(one.student, one.exercise) for one in collected.submissions]


def changed(notebook: dict, words: str) -> dict:
    notebook = copy.deepcopy(notebook)
    notebook["cells"][-1]["source"] = words
    return notebook


def stripped(notebook: dict) -> dict:
    notebook = copy.deepcopy(notebook)
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        cell.pop("id", None)
    return notebook


# Whose work is it?


def test_a_folder_per_student(at, tmp_path):
    put(tmp_path, "anna/03_prototypes.ipynb")
    put(tmp_path, "ben/week 4/04_mixture.ipynb", OTHER)
    found = at()
    assert rows(found) == [("anna", NAME), ("ben", "04_mixture")]
    assert found.layout == "a folder per student"
    assert not found.unrecognised
    assert not found.clashes
    assert all(one.notes == () for one in found.submissions)


@pytest.mark.parametrize(
    "path",
    [
        "mallory/submitted/anna/x/03_prototypes.ipynb",
        "mallory/Anna Arn_1234567_assignsubmission_file_/03_prototypes.ipynb",
        "mallory/annaarn_45_678_03_prototypes.ipynb",
        "mallory/anna/03_prototypes.ipynb",
        "mallory/x/submitted/anna/03_prototypes/03_prototypes.ipynb",
        "mallory/Anna Arn_1234567_assignsubmission_file_03_prototypes.ipynb",
    ],
)
@pytest.mark.parametrize("prefix", ["", "submitted/"])
def test_nothing_in_a_students_folder_writes_anothers_row(at, tmp_path, path, prefix):
    put(tmp_path, f"{prefix}anna/03_prototypes.ipynb", STUB)
    put(tmp_path, prefix + path)
    put(tmp_path, f"{prefix}mallory/work.zip", inner({path: SOLUTION, "anna/03.ipynb": SOLUTION}))
    found = at()
    assert rows(found) == [("anna", NAME), ("mallory", NAME)]
    assert found.submissions[0].read() == dump(STUB)
    assert all(one.lms == {} for one in found.submissions)


def test_an_uploaded_name_that_looks_like_the_systems_own_changes_nothing(at, tmp_path):
    put(tmp_path, "annaarn_45_678_03_prototypes.ipynb", STUB)
    put(tmp_path, "mallory_46_679_annaarn_45_999_03_prototypes.ipynb")
    assert rows(at()) == [("annaarn_45", NAME), ("mallory_46", NAME)]
    moodle = tmp_path / "moodle"
    put(moodle, "Anna Arn_1_assignsubmission_file_/03_prototypes.ipynb", STUB)
    put(moodle, "Anna Arn_1_assignsubmission_file__2_assignsubmission_file_/x.ipynb")
    assert rows(at(moodle)) == [
        ("Anna Arn_1", NAME),
        ("Anna Arn_1_assignsubmission_file__2", NAME),
    ]


def test_nbgraders_tree_gives_its_students_and_never_its_other_folders(at, tmp_path):
    for folder in ("submitted/ann", "submitted/ben", "autograded/ann", "feedback/ann"):
        put(tmp_path, f"{folder}/03_prototypes/03_prototypes.ipynb")
        put(tmp_path, f"{folder}/04_mixture/04_mixture.ipynb", OTHER)
    for folder in ("source", "release", "solutions"):
        put(tmp_path, f"{folder}/03_prototypes/03_prototypes.ipynb")
    expected = [(who, what) for who in ("ann", "ben") for what in (NAME, "04_mixture")]
    assert rows(at()) == rows(at(tmp_path / "submitted")) == expected
    assert "only submitted/" in at().layout


@pytest.fixture
def two_hours_east(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Etc/GMT-2")
        time.tzset()
        yield
    time.tzset()


def test_nbgraders_time_is_the_time_of_handing_in(at, tmp_path, two_hours_east):
    said = {"ann": b"2026-11-28 12:00:00.123456 UTC", "ben": b"2026-11-28 12:00:00 UTC\n"}
    said |= {"carl": b"yesterday", "dora": b"\xff", "eve": b"9999-12-31 23:59:59 UTC"}
    for who, stamp in said.items():
        put(tmp_path, f"submitted/{who}/a/03_prototypes.ipynb")
        put(tmp_path, f"submitted/{who}/a/timestamp.txt", stamp)
    put(tmp_path, "plain/mallory/03_prototypes.ipynb")
    put(tmp_path, "plain/mallory/timestamp.txt", b"2020-01-01 12:00:00 UTC")
    for place in (tmp_path, tmp_path / "submitted"):
        ann, ben, *others = at(place).submissions
        assert ann.handed_in == ben.handed_in == "2026-11-28T14:00:00"
        for one in others:
            assert one.handed_in.startswith("2023-11-1")
            assert "holds no time" in one.notes[0]
    assert at(tmp_path / "plain").submissions[0].handed_in.startswith("2023-11-1")


def test_without_submitted_a_courses_folders_are_listed_and_no_students(at, tmp_path):
    put(tmp_path, "source/03_prototypes/03_prototypes.ipynb")
    put(tmp_path, "anna/03_prototypes.ipynb")
    found = at()
    assert rows(found) == [("anna", NAME)]
    assert [one.name for one in found.unrecognised] == ["source"]


def test_moodles_export_names_student_number_time_and_file(at, tmp_path):
    members = {
        "Anna Arn_1234567_assignsubmission_file_/03_prototypes.ipynb": SOLUTION,
        "Anna Arn_7654321_assignsubmission_file_/work/03.ipynb": STUB,
        "Anna Arn_1234567_assignsubmission_onlinetext_/onlinetext.html": b"<p>see file</p>",
    }
    found = at(zipped(tmp_path / "export.zip", members))
    assert rows(found) == [("Anna Arn_1234567", NAME), ("Anna Arn_7654321", NAME)]
    one = found.submissions[0]
    assert one.handed_in == "2026-11-28T12:00:00"
    assert one.lms == {
        "kind": "moodle",
        "name": "Anna Arn",
        "id": "1234567",
        "file": "Anna Arn_1234567_assignsubmission_file_/03_prototypes.ipynb",
        "late": "",
    }
    assert [one.name.rpartition("/")[2] for one in found.unrecognised] == ["onlinetext.html"]


def test_moodles_export_without_folders(at, tmp_path):
    for name in (
        "Anna Arn_1_assignsubmission_file_03.ipynb",
        "Ben_2_assignsubmission_file_x.ipynb",
    ):
        put(tmp_path, name)
    assert rows(at()) == [("Anna Arn_1", NAME), ("Ben_2", NAME)]
    assert {one.lms["kind"] for one in at().submissions} == {"moodle"}


def test_canvass_export_names_student_number_and_late(at, tmp_path):
    members = {
        "arnanna_LATE_12_100_03_prototypes.ipynb": STUB,
        "arnanna_LATE_12_101_03_prototypes-1.ipynb": SOLUTION,
        "bobben_13_102_homework.zip": inner({"hw/03.ipynb": SOLUTION}),
        "bobben_13_103_essay.pdf": b"%PDF",
    }
    found = at(zipped(tmp_path / "export.zip", members))
    assert rows(found) == [("arnanna_12", NAME), ("bobben_13", NAME)]
    anna, ben = found.submissions
    assert anna.lms == {
        "kind": "canvas",
        "name": "arnanna",
        "id": "12",
        "file": "arnanna_LATE_12_101_03_prototypes-1.ipynb",
        "late": "yes",
    }
    assert anna.read() == dump(SOLUTION)
    assert (ben.lms["late"], ben.lms["file"]) == ("", "bobben_13_102_homework.zip")
    assert [one.name for one in found.unrecognised] == ["bobben_13_103_essay.pdf"]


@pytest.mark.parametrize(
    "members",
    [
        {"anna/03_prototypes.ipynb": SOLUTION, "ben/x/04.ipynb": OTHER},
        {"course/submitted/anna/a/03.ipynb": SOLUTION, "course/submitted/ben/a/b.ipynb": OTHER},
        {"week3/anna/03.ipynb": SOLUTION, "week3/ben/04.ipynb": OTHER, "__MACOSX/._x": b""},
    ],
)
def test_a_zip_of_folders_is_read_with_or_without_a_folder_around_it(at, tmp_path, members):
    found = at(zipped(tmp_path / "all.zip", members))
    assert rows(found) == [("anna", NAME), ("ben", "04_mixture")]


def test_a_wrapped_export_keeps_its_original_names(at, tmp_path):
    name = "Anna Arn_1_assignsubmission_file_/03.ipynb"
    (one,) = at(zipped(tmp_path / "x.zip", {f"export/{name}": SOLUTION})).submissions
    assert (one.student, one.lms["file"]) == ("Anna Arn_1", name)


def test_one_students_own_folder(at, tmp_path):
    place = tmp_path / "anna"
    put(place, "03_prototypes.ipynb")
    put(place, "old/03_prototypes.ipynb", STUB)
    put(place, "figures/a.png", b"")
    assert rows(at(place)) == [("anna", NAME)]
    members = {"03_prototypes.ipynb": SOLUTION, "notes.txt": b"hello"}
    assert rows(at(zipped(tmp_path / "ben.zip", members))) == [("ben", NAME)]


def test_one_students_folder_of_nbgraders_tree(at, tmp_path):
    put(tmp_path, "anna/03_prototypes/03_prototypes.ipynb")
    put(tmp_path, "anna/03_prototypes/timestamp.txt", b"2026-11-28 12:00:00 UTC")
    put(tmp_path, "anna/04_mixture/04_mixture.ipynb", OTHER)
    found = at(tmp_path / "anna")
    assert rows(found) == [("anna", NAME), ("anna", "04_mixture")]
    assert not found.unrecognised


def test_a_notebook_beside_the_students_folders_is_nobodys(at, tmp_path):
    put(tmp_path, "anna/03_prototypes.ipynb")
    put(tmp_path, "04_mixture.ipynb", OTHER)
    put(tmp_path, "ben.zip", inner({"03.ipynb": SOLUTION}))
    found = at()
    assert rows(found) == [("anna", NAME)]
    assert [one.name for one in found.unrecognised] == ["04_mixture.ipynb", "ben.zip"]


def test_a_folder_named_as_a_student_of_the_export_does_not_get_the_row(at, tmp_path):
    put(tmp_path, "Anna_1_assignsubmission_file_/03_prototypes.ipynb")
    put(tmp_path, "Anna_1/03_prototypes.ipynb", STUB)
    found = at()
    assert rows(found) == [("Anna_1", NAME)]
    assert found.submissions[0].read() == dump(SOLUTION)
    assert [one.name for one in found.unrecognised] == ["Anna_1"]
    assert len(found.clashes) == 1


def test_one_number_under_two_names_is_reported(at, tmp_path):
    put(tmp_path, "anna_1_2_03_prototypes.ipynb")
    put(tmp_path, "ann_1_3_03_prototypes.ipynb")
    found = at()
    assert rows(found) == [("ann_1", NAME), ("anna_1", NAME)]
    assert "have the same number, 1" in found.clashes[0]
    assert all(found.clashes[0] in one.notes for one in found.submissions)


# Names


def test_a_name_that_is_not_utf8_is_collected_and_twins_stay_apart(at, tmp_path):
    for name in (b"m\xfcller", b"m\xffller", "müller".encode()):
        put(tmp_path, name + b"/03_prototypes.ipynb")
    found = at()
    names = [one.student for one in found.submissions]
    assert len(set(names)) == 3
    assert "müller" in names
    for one in found.submissions:
        json.dumps([one.student, one.name, one.notes], ensure_ascii=False).encode("utf-8")
        assert one.read() == dump(SOLUTION)


def test_composed_and_decomposed_names_are_two_students_and_it_is_said(at, tmp_path):
    for form in ("NFC", "NFD"):
        put(tmp_path, unicodedata.normalize(form, "Zoë") + "/03_prototypes.ipynb")
    found = at()
    assert len(set(rows(found))) == 2
    assert ("Zoë", NAME) in rows(found)
    assert "names that look the same" in found.clashes[0]
    assert all(one.notes for one in found.submissions)


@pytest.mark.parametrize("character", ["\x1b", "\x07", "\u202e", "\u200b", "\n", "\x9b"])
def test_what_a_terminal_would_obey_is_shown_and_not_done(at, tmp_path, character):
    put(tmp_path, f"an{character}na/03_prototypes.ipynb")
    put(tmp_path, "anna/03_prototypes.ipynb")
    put(tmp_path, f"anna/x{character}.pdf")
    put(tmp_path, f"anna/x{character}.ipynb", STUB, age=1)
    found = at()
    assert len(set(rows(found))) == 2
    said = json.dumps([vars(one) for one in found.submissions], default=str, ensure_ascii=False)
    said += str(found.unrecognised)
    assert character not in said
    assert ascii(character)[1:-1] in found.unrecognised[0].name


def test_names_of_more_than_200_characters_stay_different(at, tmp_path):
    place = zipped(
        tmp_path / "a.zip", {f"{'名' * 210}{who}/03_prototypes.ipynb": SOLUTION for who in "ab"}
    )
    names = [student for student, _ in rows(at(place))]
    assert len(set(names)) == 2
    assert all(len(name) <= 200 for name in names)


@given(st.lists(st.text(max_size=12) | st.text("aà\u0300\x1b\udcff", max_size=4), unique=True))
def test_labels_are_different_printable_and_short(names):
    made = labels(names)
    assert len(set(made.values())) == len(names)
    for shown in made.values():
        shown.encode("utf-8")
        assert printable(shown) == shown
        assert len(shown) <= 200


WORDS = st.text(string.printable + "äÄßéİıſ名\u0301", max_size=6) | st.text(max_size=300)


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


@given(WORDS, WORDS)
@settings(max_examples=500)
def test_file_names_differ_on_every_file_system(one, other):
    for again in (other, safe_file_name(one), one.upper(), one.lower(), one + ".", f"{one} "):
        if again != one:
            assert folded(safe_file_name(one)) != folded(safe_file_name(again))
    name = safe_file_name(one)
    assert 0 < len(name.encode("utf-8")) <= 80 + 11
    assert not set(name) & set('/\\:*?"<>| \x00\n')
    assert name.strip(".") == name


def test_file_names_that_once_were_the_same():
    names = ["anna!", "anna-5abaf5", "Anna", "anna", "ANNA", "con", "名" * 200, "名" * 201, "", "."]
    names += [safe_file_name(name) for name in names if safe_file_name(name) != name]
    assert len({folded(safe_file_name(name)) for name in names}) == len(names)
    assert safe_file_name("anna") == "anna"


# Of which exercise?


@pytest.mark.parametrize(
    "name",
    [
        *("03_prototypes-Copy1.ipynb", "03_prototypes (1).ipynb", "03_prototypes(1).ipynb"),
        *("Copy of 03_prototypes.ipynb", "03_prototypes - Copy.ipynb", "03_Prototypes.ipynb"),
        *("anna_arn_03_prototypes.ipynb", "03_PROTOTYPES.IPYNB", "03_prototypes.ipynb.txt"),
        *("03_prototypes.ipynb.json", "03_prototypes.ipynb (1)", "03_prototypes.json"),
        *("Exercise 3.ipynb", "Untitled.ipynb", "prototypen.ipynb", "03 - prototypes.ipynb"),
        *("03_prototypes-1.ipynb", "03-prototypes_final_v2.ipynb", "03_prototypes"),
        *("03_prototypes.txt", "deep/er/x.ipynb", "04_mixture.ipynb", "0.ipynb"),
    ],
)
def test_a_renamed_notebook_is_recognised(at, tmp_path, name):
    put(tmp_path, f"anna/{name}")
    found = at()
    assert rows(found) == [("anna", NAME)]
    assert found.submissions[0].read() == dump(SOLUTION)
    assert not found.unrecognised


@pytest.mark.parametrize("name", ["03_prototypes.zip", "work.ZIP", "a/b/03_prototypes.ipynb.zip"])
def test_a_zip_in_a_students_folder_is_looked_into(at, tmp_path, name):
    members = {"hw/03_prototypes.ipynb": SOLUTION, "__MACOSX/hw/._03_prototypes.ipynb": b"\x00"}
    put(tmp_path, f"anna/{name}", inner(members))
    found = at()
    assert rows(found) == [("anna", NAME)]
    assert found.submissions[0].name == f"anna/{name}/hw/03_prototypes.ipynb"
    assert found.submissions[0].read() == dump(SOLUTION)
    assert not found.unrecognised


@pytest.mark.parametrize("stem", [one.stem for one in EXERCISES])
@pytest.mark.parametrize("kind", ["exercises", "solutions"])
def test_every_exercise_is_recognised_also_when_its_metadata_is_lost(at, tmp_path, stem, kind):
    put(tmp_path, "anna/x.ipynb", read(kind, stem))
    put(tmp_path, "ben/y.ipynb", stripped(read(kind, stem)))
    uncalled = stripped(read(kind, stem))
    uncalled["cells"] = [
        cell
        for cell in uncalled["cells"]
        if "check(" not in "".join(cell["source"]) and "carry_on" not in "".join(cell["source"])
    ]
    put(tmp_path, f"carla/{stem}.ipynb", uncalled)
    assert rows(at()) == [(who, stem) for who in ("anna", "ben", "carla")]


def test_functions_alone_are_enough(at, tmp_path):
    source = "def class_prototypes(): ...\n%time\ndef squared_euclidean(): ..."
    code = {"cell_type": "code", "source": source, "metadata": {}, "outputs": []}
    put(tmp_path, "anna/x.ipynb", {"nbformat": 4, "metadata": {}, "cells": [code]})
    assert rows(at()) == [("anna", NAME)]


def test_what_is_in_it_counts_more_than_its_name_and_is_said(at, tmp_path):
    put(tmp_path, "anna/04_mixture.ipynb")
    (one,) = at().submissions
    assert one.exercise == NAME
    assert "Its name says 04_mixture" in one.notes[0]


def test_a_notebook_of_two_exercises_counts_for_one_and_it_is_said(at, tmp_path):
    cells = [*SOLUTION["cells"], *OTHER["cells"]]
    put(tmp_path, "anna/03_prototypes.ipynb", {**SOLUTION, "cells": cells})
    (one,) = at().submissions
    assert one.exercise == "04_mixture"
    assert "It also holds cells of 03_prototypes" in " ".join(one.notes)


def test_a_damaged_notebook_still_has_its_row(at, tmp_path):
    put(tmp_path, "anna/03_prototypes.ipynb", dump(SOLUTION)[:20])
    put(tmp_path, "ben/Copy of 03_prototypes (2).ipynb", b"\xff\x00")
    put(tmp_path, "carla/03_prototypes.ipynb", b"")
    put(tmp_path, "dora/03_prototypes.ipynb", {"nbformat": 4, "cells": []})
    put(tmp_path, "eve/x.ipynb", dump(SOLUTION)[:-100])
    found = at()
    assert [student for student, _ in rows(found)] == ["anna", "ben", "carla", "dora", "eve"]
    anna, ben, carla, dora, _ = found.submissions
    for one in (anna, ben, carla):
        assert one.problem
        with pytest.raises(Unreadable):
            one.read()
        assert one.digest()
    assert not dora.problem
    assert "by its name alone" in dora.notes[0]


def test_what_is_not_recognised_is_listed_with_a_sentence(at, tmp_path):
    put(tmp_path, "anna/03_prototypes.ipynb")
    listed = {
        "anna/answers.py": b"x = 1",
        "anna/essay.pdf": b"%PDF",
        "anna/page.html": b"<html>",
        "anna/work.docx": b"PK",
        "anna/work.tar": b"x",
        "anna/work.tar.gz": b"x",
        "anna/work.7z": b"x",
        "anna/broken.zip": b"PK\x03\x04 no zip",
        "anna/lesson.ipynb": {"nbformat": 4, "metadata": {}, "cells": []},
        "anna/notes.txt": b"hello",
        "anna/secret.zip": inner({"a.zip": inner({"03.ipynb": SOLUTION})}),
        "ben/work.md": b"# done",
    }
    for name, content in listed.items():
        put(tmp_path, name, content)
    for name in ("anna/a.png", "anna/data.csv", "anna/.DS_Store", "anna/scan.nii.gz", "anna/m.pt"):
        put(tmp_path, name, b"x")
    found = at()
    assert rows(found) == [("anna", NAME)]
    names = {one.name for one in found.unrecognised}
    assert names == {*listed} - {"anna/secret.zip"} | {"anna/secret.zip/a.zip"}
    why = {one.name: one.why for one in found.unrecognised}
    assert "unpack it" in why["anna/work.tar.gz"]
    assert all(why.values())


def test_only_one_exercise_can_be_asked_for(at, tmp_path):
    put(tmp_path, "anna/03_prototypes.ipynb")
    put(tmp_path, "anna/04_mixture.ipynb", OTHER)
    assert rows(at(only=NAME)) == [("anna", NAME)]
    with pytest.raises(NoSubmissions, match="no submission of 01_dice"):
        at(only="01_dice")


# Which of several files?


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("03_prototypes.ipynb", "03_prototypes (1).ipynb"),
        ("03_prototypes.ipynb", "03_prototypes-1.ipynb"),
        ("03_prototypes.ipynb", "03_prototypes-Copy1.ipynb"),
        ("03_prototypes (9).ipynb", "03_prototypes (10).ipynb"),
        ("03_prototypes-Copy2.ipynb", "03_prototypes-Copy3.ipynb"),
        ("03_prototypes.ipynb", "Copy of 03_prototypes.ipynb"),
        ("old/03_prototypes (7).ipynb", "03_prototypes.ipynb"),
        ("Backup/03_prototypes (7).ipynb", "sub/03_prototypes.ipynb"),
        (".hidden/03_prototypes (7).ipynb", "03_prototypes.ipynb"),
    ],
)
def test_the_newest_by_its_name_counts_and_it_is_said(at, tmp_path, older, newer):
    put(tmp_path, f"anna/{older}", STUB, age=0)
    put(tmp_path, f"anna/{newer}", SOLUTION, age=5)
    (one,) = at().submissions
    assert one.read() == dump(SOLUTION)
    assert f"2 files for {NAME}: “{newer}”" in one.notes[-1]
    assert f"“{older}” (" in one.notes[-1]


def test_without_a_number_the_newest_by_time_counts(at, tmp_path):
    put(tmp_path, "anna/03_prototypes.ipynb", STUB, age=5)
    put(tmp_path, "anna/final.ipynb", SOLUTION, age=1)
    put(tmp_path, "anna/exercise-3.ipynb", STUB, age=9)
    (one,) = at().submissions
    assert one.read() == dump(SOLUTION)
    assert "3 files" in one.notes[-1]
    assert "by its time" in one.notes[-1]
    assert one.notes[-1].count("its cells differ") == 2


@pytest.mark.parametrize(
    "lesson", sorted((COURSE / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_a_lesson_that_is_newer_never_stands_for_an_exercise(at, tmp_path, lesson):
    for path in (COURSE / "solutions").glob("*.ipynb"):
        put(tmp_path, f"anna/{path.name}", path.read_bytes(), age=9)
    put(tmp_path, "anna/Copy of lesson (3).ipynb", lesson.read_bytes(), age=0)
    for one in at().submissions:
        assert one.read() == (COURSE / "solutions" / f"{one.exercise}.ipynb").read_bytes()


def test_the_same_twice_is_called_the_same(at, tmp_path):
    put(tmp_path, "anna/03_prototypes.ipynb", age=5)
    put(tmp_path, "anna/03_prototypes (1).ipynb")
    assert "its cells are the same" in at().submissions[0].notes[-1]


def test_an_untouched_stub_that_is_newer_counts_and_the_note_says_that_the_other_differs(
    at, tmp_path
):
    put(tmp_path, "anna/03_prototypes.ipynb", SOLUTION)
    put(tmp_path, "anna/03_prototypes (1).ipynb", STUB)
    (one,) = at().submissions
    assert one.read() == dump(STUB)
    assert "“03_prototypes.ipynb” (its cells differ)" in one.notes[-1]


def test_a_newer_file_that_cannot_be_read_does_not_cost_the_older_one(at, tmp_path):
    put(tmp_path, "anna/03_prototypes.ipynb", age=5)
    put(tmp_path, "anna/03_prototypes (1).ipynb", dump(SOLUTION)[:-50])
    (one,) = at().submissions
    assert one.read() == dump(SOLUTION)
    assert "cannot be read" in one.notes[-1]


def test_in_an_export_the_systems_time_goes_before_the_number(at, tmp_path):
    folder = "Anna Arn_1_assignsubmission_file_"
    members = {f"{folder}/03_prototypes.ipynb": SOLUTION, f"{folder}/03_prototypes (1).ipynb": STUB}
    hours = {f"{folder}/03_prototypes (1).ipynb": 9}
    (one,) = at(zipped(tmp_path / "a.zip", members, hours)).submissions
    assert one.read() == dump(SOLUTION)
    assert one.handed_in == "2026-11-28T12:00:00"


def test_a_copy_of_the_whole_course_gives_its_exercises_and_never_its_solutions(at, tmp_path):
    for stem in (NAME, "04_mixture"):
        put(tmp_path, f"bob/course/exercises/{stem}.ipynb", read("exercises", stem), age=9)
        put(tmp_path, f"bob/course/solutions/{stem}.ipynb", read("solutions", stem))
        put(tmp_path, f"bob/course/notebooks/{stem}.ipynb", {"nbformat": 4, "cells": []})
    put(tmp_path, "bob/course/README.md", b"# course")
    put(tmp_path, "bob/course/fewshot_lib/x.py", b"")
    put(tmp_path, "bob/course/.git/objects/03_prototypes.ipynb")
    found = at()
    assert rows(found) == [("bob", NAME), ("bob", "04_mixture")]
    assert found.submissions[0].read() == dump(STUB)
    listed = {one.name: one.why for one in found.unrecognised}
    assert set(listed) == {"bob/course/solutions", "bob/course/notebooks"}
    assert "2 notebooks" in listed["bob/course/solutions"]
    assert rows(at(tmp_path / "bob" / "course")) == [("course", NAME), ("course", "04_mixture")]


@pytest.mark.parametrize("folder", ["solutions", "Release", "source", ".ipynb_checkpoints"])
def test_some_folders_are_never_taken_even_if_nothing_else_is_there(at, tmp_path, folder):
    put(tmp_path, f"anna/{folder}/03_prototypes.ipynb")
    with pytest.raises(NoSubmissions, match=rf"anna/{folder} \(1 notebook in this"):
        at()


@pytest.mark.parametrize("folder", ["old", ".hidden"])
def test_others_are_taken_if_nothing_else_is_there(at, tmp_path, folder):
    put(tmp_path, f"anna/{folder}/03_prototypes.ipynb")
    (one,) = at().submissions
    assert f"It stands in {folder}/" in one.notes[0]


def test_a_checkpoint_beside_the_notebook_is_passed_over_in_silence(at, tmp_path):
    put(tmp_path, "anna/03_prototypes.ipynb", STUB, age=5)
    put(tmp_path, "anna/.ipynb_checkpoints/03_prototypes-checkpoint.ipynb")
    found = at()
    assert found.submissions[0].read() == dump(STUB)
    assert not found.unrecognised


# What is odd or hostile


def test_links_pipes_and_large_files_are_rows_that_were_not_read(at, tmp_path):
    put(tmp_path, "canary.md", b"secret")
    for name in ("link", "pipe", "large", "folder link"):
        (tmp_path / "in" / name).mkdir(parents=True)
    (tmp_path / "in" / "link" / f"{NAME}.ipynb").symlink_to(tmp_path / "canary.md")
    (tmp_path / "in" / "folder link" / f"{NAME}.ipynb").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "in" / "pipe" / f"{NAME}.ipynb")
    with (tmp_path / "in" / "large" / f"{NAME}.ipynb").open("wb") as file:
        file.truncate(200 * 2**20)
    found = at(tmp_path / "in").submissions
    problems = {one.student: one.problem for one in found}
    assert "is a link" in problems["link"]
    assert "is a link" in problems["folder link"]
    assert "not an ordinary file" in problems["pipe"]
    assert "200 MiB" in problems["large"]


def test_a_file_that_is_swapped_for_a_link_later_is_not_followed(at, tmp_path):
    file = put(tmp_path, "anna/03_prototypes.ipynb")
    (one,) = at().submissions
    file.unlink()
    with pytest.raises(Unreadable, match="not read"):
        one.read()
    file.symlink_to(put(tmp_path, "secret.md", b"secret"))
    with pytest.raises(Unreadable, match="is a link"):
        one.read()
    assert one.digest()


def test_zips_that_explode_lead_outside_or_are_locked_are_refused(at, tmp_path, monkeypatch):
    put(tmp_path, "anna/03_prototypes.ipynb")
    bomb = {f"{n}.ipynb": b"0" * (MAX_BYTES - 1) for n in range(6)}
    put(tmp_path, "anna/bomb.zip", inner(bomb))
    put(tmp_path, "anna/many.zip", inner({f"{n}.ipynb": b"" for n in range(600)}))
    put(tmp_path, "anna/out.zip", inner({"../ben/03_prototypes.ipynb": SOLUTION}))
    put(tmp_path, "anna/deep.zip", inner({"a/" * 900 + "03_prototypes.ipynb": SOLUTION}))
    large = inner({"03_prototypes.ipynb": b"0" * (MAX_BYTES + 1)})
    put(tmp_path, "carla/large.zip", large)
    found = at()
    assert rows(found) == [("anna", NAME), ("carla", NAME)]
    why = {one.name: one.why for one in found.unrecognised}
    assert "unpacks to" in why["anna/bomb.zip"]
    assert "600 files" in why["anna/many.zip"]
    assert "leads outside" in why["anna/out.zip"]
    assert "anna/deep.zip" in why
    assert "20 are read" in found.submissions[1].problem


def test_an_export_with_names_that_lead_outside_gives_nobody_a_row_for_them(at, tmp_path):
    members = {"anna/03.ipynb": SOLUTION, "../ben/03.ipynb": SOLUTION, "/carla/03.ipynb": SOLUTION}
    found = at(zipped(tmp_path / "a.zip", members))
    assert rows(found) == [("anna", NAME)]
    assert len(found.unrecognised) == 2


def test_a_damaged_member_of_an_export_costs_its_student_only(at, tmp_path):
    file = zipped(tmp_path / "a.zip", {"anna/03_prototypes.ipynb": SOLUTION, "ben/03.ipynb": STUB})
    data = bytearray(file.read_bytes())
    data[200:260] = bytes(60)
    file.write_bytes(data)
    found = at(file)
    assert rows(found) == [("anna", NAME), ("ben", NAME)]
    assert found.submissions[0].problem
    assert not found.submissions[1].problem


@given(st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_change_to_a_zip_stops_the_batch(at, tmp_path, data):
    members = {"anna/03_prototypes.ipynb": SOLUTION, "ben/w.zip": inner({"03.ipynb": STUB})}
    file = zipped(tmp_path / "a.zip", members)
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        where = data.draw(st.integers(-300, len(content) - 1))
        content[where] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 60))
    file.write_bytes(content[: len(content) - cut])
    try:
        found = at(file)
    except NoSubmissions:
        return
    for one in found.submissions:
        one.digest()


def test_a_huge_tree_costs_its_student_only(at, tmp_path, monkeypatch):
    monkeypatch.setattr(places, "MAX_FILES", 30)
    monkeypatch.setattr(choice, "MAX_CANDIDATES", 10)
    put(tmp_path, "anna/03_prototypes.ipynb")
    put(tmp_path, "ben/03_prototypes.ipynb")
    put(tmp_path, "ben/" + "d/" * 40 + "x.ipynb")
    for number in range(40):
        put(tmp_path, f"carla/{number}.png", b"")
        put(tmp_path, f"dora/{number}.ipynb")
    found = at()
    assert [student for student, _ in rows(found)] == ["anna", "ben", "dora"]
    said = " ".join(f"{one.name}: {one.why}" for one in found.unrecognised)
    assert "nested more than 20 deep" in said
    assert "carla: only 30 of its files were looked at" in said
    assert "more than 10 files could be notebooks" in said


def test_forty_large_notebooks_are_not_held_in_memory(at, tmp_path):
    large = dump({**SOLUTION, "metadata": {"x": "y" * 15_000_000}})
    for number in range(40):
        put(tmp_path, f"student{number}/03_prototypes.ipynb", large)
    tracemalloc.start()
    try:
        found = at()
        digests = {one.digest() for one in found.submissions}
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.submissions) == 40
    assert len(digests) == 1
    assert most < 60_000_000


def test_the_same_place_gives_the_same_answer(at, tmp_path):
    for who in ("ben", "anna", "Zoë"):
        for number in range(3):
            put(tmp_path, f"{who}/03_prototypes ({number}).ipynb", age=number)
        put(tmp_path, f"{who}/x.pdf", b"")
    assert at() == at()
    assert rows(at()) == sorted(rows(at()))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda place: None, "no such file or folder"),
        (lambda place: place.mkdir(), "looked for <student>/<exercise>.ipynb"),
        (lambda place: place.write_bytes(b"x"), "is not a readable zip"),
        (lambda place: os.mkfifo(place), "neither a folder nor a zip"),
        (lambda place: put(place, "anna/x.pdf", b""), r"not recognised: anna/x.pdf \(it is no"),
    ],
)
def test_where_nothing_is_to_be_graded_one_sentence_says_so(at, tmp_path, make, said):
    make(tmp_path / "place")
    with pytest.raises(NoSubmissions, match=said):
        at(tmp_path / "place")


def test_collecting_does_not_import_the_course_or_torch():
    code = (
        "import sys; from fewshot_lib.grader import submissions; "
        "print([m for m in sys.modules if m == 'torch' or m.startswith('fewshot_lib.exercises')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=COURSE
    )
    assert ast.literal_eval(done.stdout) == []
