"""Read the list of a course's students, and say whose work is missing."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

#: A larger roster is not read, bytes.
MAX_BYTES = 10 * 2**20
# Columns by what they hold, in the order in which they are preferred; without case and punctuation.
_LABELS = ("username", "login", "loginid", "sisloginid", "studentid", "matriculation", "student")
_IDS = ("id", "idnumber", "sisid", "sisuserid", "identifier", "participant", "userid")
_NAMES = ("name", "fullname", "studentname", "displayname", "student")
_FIRST = ("firstname", "givenname", "first")
_LAST = ("lastname", "surname", "familyname", "last")
_EMAILS = ("email", "emailaddress", "mail")
_NOT_STUDENTS = ("pointspossible", "studenttest", "teststudent")


class BadRoster(ValueError):
    """A roster cannot be read; says why, and what is expected."""


@dataclass(frozen=True)
class RosterEntry:
    """A student who is expected to hand in.

    Arguments:
        student: the username or number; the name if there is neither.
        name: "" if the roster has none.
        email: "" if the roster has none.
        ids: every username and number that the roster has.
    """

    student: str
    name: str = ""
    email: str = ""
    ids: tuple[str, ...] = ()


#: What of a row of results is compared with a roster: ``student``, ``exercise``, ``lms``.
Row = Mapping[str, Any]


def read_roster(path: Path) -> list[RosterEntry]:
    """Read a roster: CSV with commas, semicolons or tabs, in UTF-8.

    Its first row names the columns, as exported by Moodle or Canvas or written by hand: any of
    student, username, login, id, SIS Login ID, name, Full name, First name with Last name or
    Surname, email. Or there is one column and no such row.

    Raises:
        BadRoster: it cannot be read; one sentence.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadRoster(f"{path} has more than {MAX_BYTES >> 20} MiB: name a list of students")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadRoster(f"{path} is not in UTF-8: save it as CSV in UTF-8") from None
    except OSError as error:
        raise BadRoster(f"{path} cannot be read: {error.strerror}") from None
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    try:
        rows = [
            [cell.strip() for cell in row]
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        ]
    except csv.Error as error:
        raise BadRoster(f"{path} is not a readable CSV file: {error}") from None
    rows = [row for row in rows if any(row)]
    if not rows:
        raise BadRoster(f"{path} names no students: write one per line")
    columns = [_key(cell) for cell in rows[0]]
    if {*_LABELS, *_IDS, *_NAMES, *_FIRST, *_LAST, *_EMAILS}.isdisjoint(columns):
        if any(len(row) > 1 for row in rows):
            raise BadRoster(
                f"no column of {path} is known: its first row must name one of student, username, "
                "id, name or email"
            )
        columns, rows = ["student"], [["student"], *rows]
    found = [_entry(dict(zip(columns, row, strict=False))) for row in rows[1:]]
    entries = list(dict.fromkeys(one for one in found if one is not None))
    if not entries:
        raise BadRoster(f"{path} names columns, but no students: write one per line")
    return entries


def _key(cell: str) -> str:
    return re.sub(r"[\W_]+", "", cell.casefold())


def _entry(row: Mapping[str, str]) -> RosterEntry | None:
    def some(columns: Iterable[str]) -> list[str]:
        return [row[column] for column in columns if row.get(column)]

    ids = some((*_LABELS[:-1], *_IDS))
    ids = [re.sub(r"^Participant\s+(?=\d)", "", one) for one in ids]
    both = " ".join([*some(_FIRST)[:1], *some(_LAST)[:1]])
    name = next(iter(some(_NAMES[:-1])), "") or both or row.get("student", "")
    email = next(iter(some(_EMAILS)), "")
    student = next((one for one in (*ids, name, email) if one), "")
    # a column "student" beside names is the label
    if row.get("student") and row["student"] != name:
        student = row["student"]
    if not student or _key(name or student) in _NOT_STUDENTS:
        return None
    return RosterEntry(student, name, email, tuple(ids))


def missing(roster: Sequence[RosterEntry], rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Say who handed in nothing of an exercise that anyone handed in.

    A student is found by label, the LMS's number or e-mail address, else by name, whatever its
    case, accents and order of parts, and as Canvas joins it ("arnanna"). If several on the roster
    have the same name and not all of them handed in, each of them is listed.

    Arguments:
        roster: who is expected.
        rows: of what was handed in.

    Returns:
        Student, as the roster has it, and exercise, sorted.
    """
    lacking = []
    for exercise in {row["exercise"] for row in rows}:
        handed = [row for row in rows if row["exercise"] == exercise]
        lacking += [(one.student, exercise) for one in _not_found(roster, handed)]
    return sorted(lacking)


def _not_found(roster: Sequence[RosterEntry], handed: Sequence[Row]) -> list[RosterEntry]:
    exact = {
        _exact(key): number
        for number, one in enumerate(handed)
        for key in (one["student"], _lms(one).get("id", ""))
        if key
    }
    left, used = [], set()
    for entry in roster:
        keys = (*entry.ids, entry.student, entry.email, entry.email.partition("@")[0])
        hits = [exact[_exact(key)] for key in keys if key and _exact(key) in exact]
        if hits:
            used.add(hits[0])
        else:
            left.append(entry)
    owners: dict[str, set[int]] = defaultdict(set)
    for number, one in enumerate(handed):
        if number not in used:
            for form in _forms(_lms(one).get("name") or one["student"]):
                owners[form].add(number)
    namesakes: dict[frozenset[str], list[RosterEntry]] = defaultdict(list)
    for entry in left:
        namesakes[frozenset(_forms(entry.name or entry.student))].append(entry)
    return [
        entry
        for forms, entries in namesakes.items()
        if len(set().union(*(owners[form] for form in forms))) < len(entries)
        for entry in entries
    ]


def _lms(row: Row) -> Mapping[str, str]:
    lms: Mapping[str, str] = row.get("lms") or {}
    return lms


def _exact(key: str) -> str:
    return unicodedata.normalize("NFC", key).casefold().strip()


def _forms(name: str) -> set[str]:
    """Give the ways to write a name: its parts joined in any order, without case and accents."""
    plain = "".join(
        letter
        for letter in unicodedata.normalize("NFKD", name).casefold()
        if not unicodedata.combining(letter)
    )
    parts = re.findall(r"[^\W_]+", plain)
    if len(parts) > 4:  # the orders of many parts are too many
        return {"".join(parts), "".join(parts[-1:] + parts[:-1]), " ".join(sorted(parts))}
    return {"".join(order) for order in permutations(parts)}
