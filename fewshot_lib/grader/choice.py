"""Choose which of a student's files counts for each exercise, and list what was not taken."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fewshot_lib.grader.labels import printable
from fewshot_lib.grader.layouts import (
    COURSE_FOLDERS,
    NBGRADER_TIME,
    OLD,
    StudentFile,
    Unrecognised,
    is_clone,
    is_no_work,
    is_notebook_name,
    shown,
)
from fewshot_lib.grader.reader import Unreadable
from fewshot_lib.grader.recognise import Recogniser

#: Notebooks of one student that are looked at.
MAX_CANDIDATES = 200
#: Lines about one student in the list of what was not recognised, and names in one note.
MAX_LISTED = 20
_AUTOMATIC = frozenset((".ipynb_checkpoints", "__macosx"))
# In a copy of the whole course, what is not the student's.
_OF_THE_COURSE = frozenset(("notebooks", "tests", "fewshot_lib"))
_MAYBE_NOTEBOOK = re.compile(r"[^.]+|.*\.(?:json|txt)", re.I | re.S)
_LOOKS_LIKE_ONE = re.compile(rb'\s*\{\s*"(?:cells|metadata|nbformat|nbformat_minor)"\s*:')
_ARCHIVE = re.compile(r".*\.(?:tar|t?gz|tgz|bz2|xz|7z|rar)", re.I | re.S)


@dataclass(frozen=True)
class Candidate:
    """A file that could count for an exercise.

    Arguments:
        found: the file.
        exercise: which exercise.
        sure: how sure this is, see ``Recognised``.
        old: the folder for which it is passed over, "" if there is none.
        problem: why it cannot be read, "" if nothing is known.
        notes: how it was recognised.
        cells: a hash of its cells, "" if there was no need to know.
    """

    found: StudentFile
    exercise: str
    sure: int
    old: str = ""
    problem: str = ""
    notes: tuple[str, ...] = ()
    cells: str = ""

    @property
    def name(self) -> str:
        """Its path inside the student's folder, printable and short."""
        name = shown(self.found.inside)
        return f"“{name}”" if len(name) <= 120 else f"“…{name[-120:]}”"


def choose(
    files: Iterable[StudentFile], recogniser: Recogniser, lms_zip: bool
) -> tuple[list[tuple[Candidate, tuple[str, ...]]], list[Unrecognised]]:
    """Choose a student's file for each exercise.

    Arguments:
        files: of the student.
        recogniser: knows the exercises.
        lms_zip: whether the files' times are those of an export as it was downloaded.

    Returns:
        What counts, with notes; and what could be meant as work and was not taken.
    """
    candidates, lost = _sorted_out(list(files), recogniser)
    chosen = [
        _newest([one for one in candidates if one.exercise == exercise], recogniser, lms_zip)
        for exercise in sorted({one.exercise for one in candidates})
    ]
    if len(lost) > MAX_LISTED:
        more = Unrecognised(lost[MAX_LISTED].name, f"this and {len(lost) - MAX_LISTED - 1} more")
        lost = [*lost[:MAX_LISTED], more]
    return chosen, lost


def _sorted_out(
    files: Sequence[StudentFile], recogniser: Recogniser
) -> tuple[list[Candidate], list[Unrecognised]]:
    candidates: list[Candidate] = []
    lost: list[Unrecognised] = []
    clones = _clones(files)
    never: Counter[tuple[tuple[str, ...], bool]] = Counter()
    looked_at = 0
    for one in files:
        closed = _closed(one, clones)
        if closed:
            automatic = closed[-1].casefold() in _AUTOMATIC
            never[closed, automatic] += is_notebook_name(one.file)
            continue
        of_clone = any(one.inside[: len(clone)] == clone for clone in clones)
        if (is_no_work(one.file) or one.file == NBGRADER_TIME) and not one.entry.is_folder:
            continue
        if looked_at == MAX_CANDIDATES:
            said = f"more than {MAX_CANDIDATES} files could be notebooks; this one and the rest"
            lost.append(Unrecognised(shown(one.entry.parts), f"{said} were not looked at"))
            break
        found = _candidate(one, recogniser)
        looked_at += found is not None and not isinstance(found, Unrecognised)
        if isinstance(found, Candidate):
            candidates.append(found)
        elif not of_clone or one.entry.is_folder or is_notebook_name(one.file):
            lost.append(found)
    for (folder, automatic), count in sorted(never.items()):
        if not count or (automatic and candidates):
            continue
        whose = "copies that a program made by itself" if automatic else "the course's own"
        these = "1 notebook in this folder was" if count == 1 else f"{count} notebooks here were"
        lost.append(Unrecognised(shown(folder), f"{these} not taken: the folder holds {whose}"))
    return candidates, lost


def _clones(files: Sequence[StudentFile]) -> list[tuple[str, ...]]:
    """Give the folders that are copies of the whole course."""
    children: dict[tuple[str, ...], set[str]] = {}
    for one in files:
        for depth in range(len(one.inside) - 1):
            children.setdefault(one.inside[:depth], set()).add(one.inside[depth])
    return [folder for folder, names in children.items() if is_clone(frozenset(names))]


def _closed(one: StudentFile, clones: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Give the path of the folder for which a file is never taken; () if it may be."""
    for depth, folder in enumerate(one.inside[:-1]):
        name = folder.casefold()
        if name in COURSE_FOLDERS | _AUTOMATIC or (
            name in _OF_THE_COURSE and one.inside[:depth] in clones
        ):
            outside = len(one.entry.parts) - len(one.inside)
            return one.entry.parts[: outside + depth + 1]
    return ()


def _candidate(one: StudentFile, recogniser: Recogniser) -> Candidate | Unrecognised:
    name = one.file
    if one.entry.problem:
        exercise = recogniser.name(name) if is_notebook_name(name) else ""
        if exercise:
            return Candidate(one, exercise, 0, _old(one), one.entry.problem)
        return _lost(one, one.entry.problem)
    if not is_notebook_name(name) and not _MAYBE_NOTEBOOK.fullmatch(name):
        return _lost(one, _why_not(name))
    try:
        data = one.entry.read()
    except Unreadable as error:
        return _candidate(replace(one, entry=replace(one.entry, problem=str(error))), recogniser)
    if not is_notebook_name(name) and not _LOOKS_LIKE_ONE.match(data[:1000]):
        return _lost(one, _why_not(name))
    what = recogniser.file(name, data)
    if not what.exercise:
        return _lost(
            one,
            what.problem
            or "it is a notebook, but no cell, call or function of an exercise is in it",
        )
    return Candidate(one, what.exercise, what.sure, _old(one), what.problem, what.notes)


def _old(one: StudentFile) -> str:
    for folder in one.inside[:-1]:
        if folder.casefold() in OLD or folder.startswith("."):
            return printable(folder)
    return ""


def _lost(one: StudentFile, why: str) -> Unrecognised:
    return Unrecognised(shown(one.entry.parts), why)


def _why_not(name: str) -> str:
    if _ARCHIVE.fullmatch(name):
        return "an archive of this kind is not opened: unpack it, or hand in a zip"
    return "it is not a notebook: hand in the .ipynb file"


def _newest(
    candidates: Sequence[Candidate], recogniser: Recogniser, lms_zip: bool
) -> tuple[Candidate, tuple[str, ...]]:
    """Choose the newest of what can be read and is recognised; say what was passed over."""
    if len(candidates) > 1:
        candidates = [_tried(one, recogniser) for one in candidates]

    def rank(one: Candidate) -> tuple[bool, int, bool]:
        return not one.problem, one.sure, not one.old

    def age(one: Candidate) -> list[tuple[str, int | str]]:
        entry = one.found.entry
        told: list[tuple[str, int | str]] = [
            ("by the number in its name", recogniser.number(one.found.file)),
            ("by its time", entry.modified),
        ]
        return [
            ("by the number that Canvas gave it", one.found.number),
            *(reversed(told) if lms_zip else told),
            ("by its time in its zip", entry.inner_modified),
            ("by its name only, for nothing else tells them apart", shown(one.found.inside)),
        ]

    ranked = sorted(candidates, key=lambda one: (rank(one), age(one)), reverse=True)
    chosen, others = ranked[0], ranked[1:]
    notes = list(chosen.notes)
    if chosen.old:
        notes.append(f"It stands in {chosen.old}/; nothing else is there for {chosen.exercise}.")
    if others:
        by = ""
        if rank(chosen) == rank(others[0]):
            pairs = zip(age(chosen), age(others[0]), strict=True)
            by = next((first[0] for first, second in pairs if first != second), "")
        passed = [f"{one.name} ({_why_passed(one, chosen)})" for one in others]
        more = f" and {len(passed) - MAX_LISTED} more" if len(passed) > MAX_LISTED else ""
        notes.append(
            f"{len(ranked)} files for {chosen.exercise}: {chosen.name}"
            f"{f', the newest {by},' if by else ''} counts; passed over: "
            f"{', '.join(passed[:MAX_LISTED])}{more}."
        )
    return chosen, tuple(notes)


def _tried(one: Candidate, recogniser: Recogniser) -> Candidate:
    if one.problem:
        return one
    try:
        return replace(one, cells=recogniser.cells(one.found.entry.read()))
    except Unreadable as error:
        return replace(one, problem=str(error))


def _why_passed(one: Candidate, chosen: Candidate) -> str:
    if one.problem:
        return f"it cannot be read: {one.problem[:120]}"
    if one.old and not chosen.old:
        return f"it stands in {one.old}/"
    return "its cells are the same" if one.cells == chosen.cells else "its cells differ"
