"""A list of students is read, and who handed in nothing is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_lib.grader.roster import BadRoster, RosterEntry, missing, read_roster

NAME, OTHER = "03_prototypes", "04_mixture"


def row(student: str, exercise: str = NAME, lms: dict | None = None) -> dict:
    return {"student": student, "exercise": exercise, "lms": lms}


def canvas(name: str, number: str) -> dict:
    return row(f"{name}_{number}", lms={"kind": "canvas", "name": name, "id": number})


def moodle(name: str, number: str) -> dict:
    return row(f"{name}_{number}", lms={"kind": "moodle", "name": name, "id": number})


def lacking(roster: list[RosterEntry], *handed: dict) -> list[str]:
    return [student for student, _ in missing(roster, handed)]


@pytest.fixture
def roster(tmp_path: Path):
    def roster(text: str | bytes) -> list[RosterEntry]:
        file = tmp_path / "roster.csv"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_roster(file)

    return roster


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("comma", [",", ";", "\t"])
def test_separators_and_marks_that_spreadsheets_write(roster, start, end, comma):
    lines = ["username,Name,Email", "anna,Anna Arn,anna@x.org", "", "ben,Ben,ben@x.org"]
    text = end.join(line.replace(",", comma) for line in lines)
    first, second = roster(start + text.encode())
    assert (first.student, first.name, first.email) == ("anna", "Anna Arn", "anna@x.org")
    assert second.student == "ben"


@pytest.mark.parametrize(
    ("text", "student", "name"),
    [
        ("anna\nben", "anna", "anna"),
        ("Müller\n", "Müller", "Müller"),
        ("student\nanna\n", "anna", "anna"),
        ("student,name\nanna,Anna Arn", "anna", "Anna Arn"),
        ("Full name;ID\nAnna Arn;7", "7", "Anna Arn"),
        ("First name,Surname,Email address\nAnna,Arn,a@x.org", "Anna Arn", "Anna Arn"),
        ("Last name,First name\nArn,Anna", "Anna Arn", "Anna Arn"),
        (
            "Identifier,Full name,Email address,Status\nParticipant 123,Anna Arn,a@x.org,Submitted",
            "123",
            "Anna Arn",
        ),
        (
            "Student,ID,SIS User ID,SIS Login ID,Section\nPoints Possible,,,,\n"
            '"Arn, Anna",12,u9,aarn,A\n"Student, Test",99,,x,A',
            "aarn",
            "Arn, Anna",
        ),
        ("login\naarn", "aarn", ""),
        ("email\na@x.org", "a@x.org", ""),
    ],
)
def test_rosters_as_systems_export_them(roster, text, student, name):
    entries = roster(text)
    assert (entries[0].student, entries[0].name) == (student, name)
    assert len(entries) == (2 if text == "anna\nben" else 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "names no students"),
        (b"\n\n", "names no students"),
        (b"username,name\n", "names columns, but no students"),
        (b"a,b\nc,d", "no column of .* is known"),
        (b"name\nM\xfcller", "not in UTF-8"),
        (b'name,id\n"Anna,3\n', "not a readable CSV file"),
        (b"name,id\n" + b"x" * 200_000 + b",1", "not a readable CSV file"),
        (b"x" * 11_000_000, "more than 10 MiB"),
    ],
)
def test_a_roster_that_is_none_is_said_in_one_sentence(roster, text, said):
    with pytest.raises(BadRoster, match=said) as caught:
        roster(text)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_a_roster_that_is_not_there_is_said(tmp_path):
    for place in (tmp_path / "nowhere.csv", tmp_path):
        with pytest.raises(BadRoster, match="cannot be read"):
            read_roster(place)


@given(st.binary(max_size=80) | st.text("name,id;\t\"'\r\n\x00aÄ", max_size=60).map(str.encode))
@settings(max_examples=300)
def test_any_bytes_are_a_roster_or_one_sentence(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "any.csv"
    file.write_bytes(data)
    try:
        entries = read_roster(file)
    except BadRoster:
        return
    assert entries
    assert all(one.student for one in entries)
    missing(entries, [row("anna")])


ANNA = RosterEntry("aarn", "Anna Arn", "anna.arn@x.org", ("aarn", "12"))


@pytest.mark.parametrize(
    "handed",
    [
        *(row("aarn"), row("AARN"), row("anna.arn@x.org"), row("anna.arn"), row("12")),
        *(row("Anna Arn"), row("arn, anna"), row("Ánna_Arn"), row("Arn Anna"), row("ArnAnna")),
        *(canvas("arnanna", "99"), canvas("xyz", "12"), moodle("Anna Arn", "5")),
        moodle("A. A.", "12"),
    ],
    ids=lambda one: one["student"],
)
def test_a_student_is_found_by_label_number_or_name(handed):
    assert lacking([ANNA, RosterEntry("ben", "Ben Bo")], handed) == ["ben"]


@pytest.mark.parametrize("handed", [row("anna"), row("Anna Arne"), canvas("arnann", "7")])
def test_another_student_is_not_taken_for_the_missing_one(handed):
    assert lacking([ANNA], handed) == ["aarn"]


def test_names_with_accents_and_many_parts_are_found():
    names = ["José María de la Cruz Gómez", "Øystein Åse", "王 小明", "Straße Ümit"]
    entries = [RosterEntry(name, name) for name in names]
    handed = [row("jose maria de la cruz gomez"), row("Åse Øystein"), row("小明 王")]
    assert lacking(entries, *handed, canvas("strasseumit", "3")) == []


def test_of_two_namesakes_both_are_listed_unless_both_handed_in():
    twins = [RosterEntry("1", "Anna Arn", ids=("1",)), RosterEntry("2", "Anna Arn", ids=("2",))]
    assert lacking(twins, moodle("Anna Arn", "77")) == ["1", "2"]
    assert lacking(twins, moodle("Anna Arn", "77"), moodle("Anna Arn", "78")) == []
    assert lacking(twins, moodle("Anna Arn", "2")) == ["1"]


def test_missing_work_is_told_per_exercise():
    handed = [row("anna"), row("ben", OTHER)]
    entries = [RosterEntry("anna"), RosterEntry("ben")]
    assert missing(entries, handed) == [("anna", OTHER), ("ben", NAME)]
