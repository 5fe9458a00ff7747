"""Decide once how a place is laid out, and so whose its files are.

The student is the outermost folder, or the name that Moodle or Canvas wrote in front of a file.
Nothing that stands inside a student's folder is looked at here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from fewshot_lib.grader.labels import printable
from fewshot_lib.grader.places import Entry, Place, ZipPlace, below, unpacked

#: Folders of a course, never of a student.
COURSE_FOLDERS = frozenset(("source", "release", "autograded", "feedback", "solutions"))
#: Folders inside a student's that are passed over where there is anything else.
OLD = frozenset(("old", "backup", "backups", "bak", "archive", "previous", "trash"))
#: What nbgrader writes beside a notebook that it collected.
NBGRADER_TIME = "timestamp.txt"
_SYSTEM = frozenset(("__MACOSX", ".ipynb_checkpoints", ".git", ".Trashes", ".fseventsd"))

# Moodle, a folder per student: "Anna Arn_1234567_assignsubmission_file_/03_prototypes.ipynb"
_MOODLE = re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_[a-z]+_?", re.S)
# Moodle, all in one folder: "Anna Arn_1234567_assignsubmission_file_03_prototypes.ipynb"
_MOODLE_FILE = re.compile(
    r"(?P<name>.+?)_(?P<id>\d+)_assignsubmission_[a-z]+_(?P<late>)(?P<number>)(?P<file>.+)", re.S
)
# Canvas: "arnanna_LATE_12345_67890_03_prototypes-1.ipynb"
_CANVAS = re.compile(
    r"(?P<name>[^_]+)_(?P<late>LATE_)?(?P<id>\d+)_(?P<number>\d+)_(?P<file>.+)", re.S
)
_NOTEBOOK = re.compile(r"\.ipynb(?![a-z])", re.I)


def is_notebook_name(name: str) -> bool:
    """Say whether a file's name says that it is a notebook, ``.ipynb.txt`` and the like included.

    >>> is_notebook_name("03_prototypes.ipynb (1)"), is_notebook_name("03_prototypes.py")
    (True, False)
    """
    return bool(_NOTEBOOK.search(name)) and not name.startswith("._")


@dataclass(frozen=True)
class Unrecognised:
    """Something that could be meant as work and is not taken for a submission.

    Arguments:
        name: where it stands, printable.
        why: one sentence.
    """

    name: str
    why: str


@dataclass(frozen=True)
class StudentFile:
    """A file of a student.

    Arguments:
        entry: the file.
        inside: its path inside the student's folder.
        late: whether the LMS says so.
        number: that the LMS gave the file; a later one is larger; 0 if there is none.
    """

    entry: Entry
    inside: tuple[str, ...]
    late: bool = False
    number: int = 0

    @property
    def file(self) -> str:
        """Its own name, "" for the student's folder itself."""
        return self.inside[-1] if self.inside else ""


@dataclass
class Owner:
    """A student, as the place names one.

    Arguments:
        name: the folder's, or that in the LMS.
        kind: "moodle", "canvas" or "".
        id: the LMS's.
        folders: paths of the student's folders.
        files: single files: path, name as it was uploaded, late, number.
    """

    name: str
    kind: str = ""
    id: str = ""
    folders: list[tuple[str, ...]] = field(default_factory=list)
    files: list[tuple[tuple[str, ...], str, bool, int]] = field(default_factory=list)

    @property
    def raw_label(self) -> str:
        """The name that is unique in the place."""
        return f"{self.name}_{self.id}" if self.kind else self.name

    def found(self, place: Place) -> Iterator[StudentFile]:
        """Give the student's files."""
        for folder in self.folders:
            for entry in below(place, folder):
                yield StudentFile(entry, entry.parts[len(folder) :])
        for parts, name, late, number in self.files:
            for entry in unpacked(place.entry(parts), name):
                yield StudentFile(entry, (name, *entry.parts[len(parts) :]), late, number)


@dataclass(frozen=True)
class Layout:
    """Who handed in at a place.

    Arguments:
        words: how the place was understood, one sentence.
        owners: in a fixed order.
        base: the path of the export inside the place.
        unrecognised: what belongs to nobody.
    """

    words: str
    owners: tuple[Owner, ...]
    base: tuple[str, ...]
    unrecognised: tuple[Unrecognised, ...]


def decide(place: Place, name: str, stems: frozenset[str]) -> Layout:
    """Decide how a place is laid out.

    Arguments:
        place: a folder or zip.
        name: its name without ending: the student's, if it is one student's folder.
        stems: the exercises' file names, which are not students.

    Raises:
        OSError: the folder cannot be opened.
    """
    base = _unwrapped(place, name, stems) if isinstance(place, ZipPlace) else ()
    folders, files = place.listing(base)
    words = ["the zip's only folder was opened"] if base else []
    nbgrader = "submitted" in folders
    if nbgrader:
        base = (*base, "submitted")
        folders, files = place.listing(base)
        words.append("nbgrader's tree: only submitted/ was looked at")
    folders = [folder for folder in folders if folder not in _SYSTEM]
    kind, pattern = _kind(folders, files)
    owners: dict[tuple[str, str, str], Owner] = {}
    lost: list[Unrecognised] = []
    if kind:
        words.append(f"an export of {kind.capitalize()}: its names say who the students are")
    elif not nbgrader and _is_one_student(place, base, folders, files, stems):
        words.append("one student's own folder")
        owners["", name, ""] = Owner(name, folders=[base])
        return Layout("; ".join(words), tuple(owners.values()), base, ())
    else:
        words.append("a folder per student")
    for folder in folders:
        if folder.casefold() in COURSE_FOLDERS or folder.startswith("."):
            what = "hidden" if folder.startswith(".") else "named as a folder of the course"
            lost.append(
                _lost((*base, folder), f"it is {what} and no student's: rename it if it is")
            )
            continue
        match = _MOODLE.fullmatch(folder) if kind == "moodle" else None
        found = Owner(match["name"], kind, match["id"]) if match else Owner(folder)
        owner = owners.setdefault((found.kind, found.name, found.id), found)
        owner.folders.append((*base, folder))
    for file in files:
        match = pattern.fullmatch(file) if pattern else None
        if match:
            found = Owner(match["name"], kind, match["id"])
            owner = owners.setdefault((found.kind, found.name, found.id), found)
            number = int(match["number"][:20] or 0)
            owner.files.append(((*base, file), match["file"], bool(match["late"]), number))
        elif not is_no_work(file):
            why = "it stands beside the students' folders, so whose it is cannot be told"
            if file.lower().endswith(".zip"):
                why += "; grade the zip by itself, or unpack it into a folder per student"
            lost.append(_lost((*base, file), why))
    if isinstance(place, ZipPlace):
        lost += [_lost((out,), "its name leads outside the zip") for out in place.outside]
    return Layout("; ".join(words), tuple(owners.values()), base, tuple(lost))


def _lost(parts: tuple[str, ...], why: str) -> Unrecognised:
    return Unrecognised(shown(parts), why)


def shown(parts: tuple[str, ...]) -> str:
    """Give a path in printable words."""
    return "/".join(map(printable, parts))


def _unwrapped(place: Place, name: str, stems: frozenset[str]) -> tuple[str, ...]:
    """Give the path of a zip's only folder if the students stand in it; () if it is a student."""
    folders, files = place.listing(())
    folders = [folder for folder in folders if folder not in _SYSTEM]
    if len(folders) != 1 or any(not is_no_work(file) for file in files):
        return ()
    top = folders[0]
    inner, below_it = place.listing((top,))
    inner = [folder for folder in inner if folder not in _SYSTEM]
    if _MOODLE.fullmatch(top):
        return ()
    if "submitted" in inner or _kind(inner, below_it)[0]:
        return (top,)
    if any(not is_no_work(file) for file in below_it) or is_clone(inner):
        return ()
    if any(folder.casefold() in stems | OLD for folder in inner):
        return ()
    return (top,) if len(inner) > 1 or (inner and top == name) else ()


def _kind(folders: list[str], files: list[str]) -> tuple[str, re.Pattern[str] | None]:
    """Give the LMS whose export this is and the pattern of its single files; "" and None if none.

    Names of single files in an export begin with what the LMS wrote; a student's own folder that
    was named directly is not taken for an export unless most of its files are named so.
    """
    work = [file for file in files if not is_no_work(file)]
    for kind, pattern in (("moodle", _MOODLE_FILE), ("canvas", _CANVAS)):
        if kind == "moodle" and any(map(_MOODLE.fullmatch, folders)):
            return kind, pattern
        fitting = sum(bool(pattern.fullmatch(file)) for file in work)
        if fitting and 2 * fitting >= len(work):
            return kind, pattern
    return "", None


def is_clone(folders: list[str] | frozenset[str]) -> bool:
    """Say whether a folder with these folders is a copy of the whole course."""
    return "exercises" in folders and bool({"solutions", "fewshot_lib"} & set(folders))


def _is_one_student(
    place: Place,
    base: tuple[str, ...],
    folders: list[str],
    files: list[str],
    stems: frozenset[str],
) -> bool:
    if is_clone(folders) or not stems.isdisjoint(folders):
        return True
    if not any(map(is_notebook_name, files)):
        return False
    passed_over = COURSE_FOLDERS | OLD
    return not any(
        is_notebook_name(entry.parts[-1])
        for folder in folders
        if folder.casefold() not in passed_over and not folder.startswith(".")
        for entry in below(place, (*base, folder))
    )


# pictures, data, settings, what programs leave behind
_NO_WORK = re.compile(
    r"[.~].*|Thumbs\.db|.*\.(?:png|jpe?g|gif|svg|webp|bmp|tiff?|hei[cf]|ico|mp[34]|mov|wav"
    r"|[ct]sv|np[yz]|pth?|pkl|h5|hdf5|nii|nii\.gz|dcm|mat|parquet|sqlite|db|feather|xml"
    r"|toml|cfg|ini|ya?ml|lock|log|pyc|css|js|map|bak|tmp|swp|lnk|url)",
    re.I | re.S,
)


def is_no_work(name: str) -> bool:
    """Say whether a file's name says that nobody means it as an answer.

    >>> is_no_work("figure.png"), is_no_work(".DS_Store"), is_no_work("answers.pdf")
    (True, True, False)
    """
    return bool(_NO_WORK.fullmatch(name)) and not is_notebook_name(name)
