"""Collect submissions: whose they are, of which exercise, and which of several files counts.

A place is a folder or a zip: a folder per student, nbgrader's tree, an export of Moodle or Canvas,
or one student's own folder; ``layouts`` decides which. A notebook is recognised by what is in it
(``recognise``); of several the newest counts (``choice``). Every choice is a sentence in the
submission's notes, and what is not taken is listed. No file is kept in memory.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from fewshot_lib.grader.choice import Candidate, choose
from fewshot_lib.grader.labels import label, labels, printable
from fewshot_lib.grader.layouts import NBGRADER_TIME, Owner, Unrecognised, decide, shown
from fewshot_lib.grader.places import FolderPlace, NoSubmissions, Place, ZipPlace
from fewshot_lib.grader.reader import Reader, Unreadable
from fewshot_lib.grader.recognise import KnownExercise, Recogniser


class Source(Protocol):
    """Where a submission's bytes come from."""

    def read(self) -> bytes:
        """Read it; raise ``Unreadable`` if that cannot be done."""


@dataclass(frozen=True)
class InMemory:
    """Bytes in memory, for tests and measurements."""

    content: bytes

    def read(self) -> bytes:
        """Give the bytes."""
        return self.content


@dataclass(frozen=True)
class Submission:
    """One student's notebook of one exercise.

    Arguments:
        student: a label that no other student has.
        exercise: the exercise's file name without ending: "03_prototypes".
        name: where it was found, printable.
        source: where its bytes come from.
        problem: why it cannot be read, "" if nothing is known to stand in the way.
        handed_in: ISO 8601, local time: of the file in the export, or of the file; "" if unknown.
        lms: of an export: ``kind`` ("moodle" or "canvas"), ``name`` and ``id`` of the student,
            ``file``, the original path inside the export, ``late`` ("yes" or "").
        notes: a sentence for each choice that was made.
    """

    student: str
    exercise: str
    name: str
    source: Source
    problem: str = ""
    handed_in: str = ""
    lms: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def read(self) -> bytes:
        """Read the file anew; nothing is kept.

        Raises:
            Unreadable: it cannot be read; one sentence.
        """
        if self.problem:
            raise Unreadable(self.problem)
        return self.source.read()

    def digest(self) -> str:
        """Give the SHA-256 of the file, or of why it cannot be read."""
        try:
            data = self.read()
        except Unreadable as error:
            data = str(error).encode("utf-8", "replace")
        return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Collected:
    """What was found at a place.

    Arguments:
        submissions: one per student and exercise, sorted.
        unrecognised: what could be meant as work and was not taken, sorted.
        layout: how the place was understood.
        clashes: a sentence for each two owners who could be taken for one.
    """

    submissions: list[Submission]
    unrecognised: list[Unrecognised]
    layout: str
    clashes: list[str] = field(default_factory=list)


def collect(
    place: Path, course: Iterable[KnownExercise], only: str = "", reader: Reader | None = None
) -> Collected:
    """Collect the submissions at a folder or in a zip.

    Arguments:
        place: a folder per student, nbgrader's ``submitted/<student>/<assignment>/…``, an export of
            Moodle or Canvas, one student's own folder; or a zip of one of these.
        course: the exercises.
        only: one exercise, "03_prototypes"; others are passed over.
        reader: reads notebooks that are not recognised at first sight; one is started if needed.

    Raises:
        NoSubmissions: nothing is there that is a submission; says what was looked for.
    """
    if reader is None:
        with Reader() as own:
            return collect(place, course, only, own)
    exercises = list(course)
    where = _opened(place)
    try:
        name = place.resolve().name if place.is_dir() else place.stem
        layout = decide(where, name, frozenset(known.stem for known in exercises))
    except OSError as error:
        raise NoSubmissions(f"{place} cannot be opened: {error.strerror}") from None
    owners, clashes, doubled = _labelled(layout.owners)
    recogniser = Recogniser(exercises, reader)
    submissions: list[Submission] = []
    unrecognised = [*layout.unrecognised, *doubled]
    for owner, student, remarks in owners:
        lms_zip = bool(owner.kind) and isinstance(where, ZipPlace)
        chosen, lost = choose(owner.found(where), recogniser, lms_zip)
        unrecognised += lost
        for candidate, notes in chosen:
            if only and candidate.exercise != only:
                continue
            one = _submission(owner, student, candidate, (*remarks, *notes), len(layout.base))
            in_tree = "submitted" in (*layout.base[-1:], name) and not owner.kind
            submissions.append(_with_nbgraders_time(one, where, candidate) if in_tree else one)
    unrecognised.sort(key=lambda one: (one.name, one.why))
    if not submissions:
        raise NoSubmissions(_nothing(place, only, unrecognised))
    submissions.sort(key=lambda one: (one.student, one.exercise))
    return Collected(submissions, unrecognised, layout.words, clashes)


def _opened(place: Path) -> Place:
    if place.is_dir():
        return FolderPlace(place)
    if not place.exists():
        raise NoSubmissions(f"no such file or folder: {place}")
    if place.suffix.lower() == ".ipynb":
        raise NoSubmissions(f"{place} is one notebook: name the folder that it stands in")
    if not place.is_file():
        raise NoSubmissions(f"{place} is neither a folder nor a zip: name one of these")
    return ZipPlace(place)


def _nothing(place: Path, only: str, unrecognised: Sequence[Unrecognised]) -> str:
    asked = f" of {only}" if only else ""
    others = "; ".join(f"{one.name} ({one.why})" for one in unrecognised[:3])
    more = f", and {len(unrecognised) - 3} more" if len(unrecognised) > 3 else ""
    return (
        f"no submission{asked} at {place}: looked for <student>/<exercise>.ipynb, "
        "submitted/<student>/<assignment>/<exercise>.ipynb, and Moodle's or Canvas's file names"
        + (f"; not recognised: {others}{more}" if others else "")
    )


def _labelled(
    owners: Sequence[Owner],
) -> tuple[list[tuple[Owner, str, tuple[str, ...]]], list[str], list[Unrecognised]]:
    """Give each owner a label of its own.

    Returns:
        Owners with label and notes; clashes; folders whose row would be that of an owner in an LMS.
    """
    clashes: list[str] = []
    doubled: list[Unrecognised] = []
    kept: dict[str, Owner] = {}
    for owner in sorted(owners, key=lambda one: (not one.kind, one.raw_label)):
        name = owner.raw_label
        if name in kept:  # a folder called as the LMS's student is labelled
            said = f"“{printable(name)}” would be the row of a student of the export with this name"
            doubled += [Unrecognised(shown(path), f"{said}; rename it") for path in owner.folders]
            clashes.append(f"{said}; the folder was not taken.")
        else:
            kept[name] = owner
    named = labels(list(kept))
    by_label: dict[str, list[str]] = defaultdict(list)
    numbers: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, owner in kept.items():
        by_label[label(name)].append(named[name])
        if owner.id:
            numbers[owner.kind, owner.id].append(named[name])
    for students in by_label.values():
        if len(students) > 1:
            clashes.append(
                f"{_quoted(students)} have names that look the same; they are kept apart."
            )
    for (_, number), students in numbers.items():
        if len(students) > 1:
            clashes.append(
                f"{_quoted(students)} have the same number, {number}; are they one person?"
            )
    remarks = {
        name: tuple(said for said in clashes if f"“{name}”" in said) for name in named.values()
    }
    return [(kept[name], named[name], remarks[named[name]]) for name in kept], clashes, doubled


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"“{name}”" for name in sorted(names))


def _submission(
    owner: Owner, student: str, candidate: Candidate, notes: tuple[str, ...], base: int
) -> Submission:
    entry = candidate.found.entry
    lms = {}
    if owner.kind:
        original = "/".join(entry.parts[base : entry.outer])
        lms = {
            "kind": owner.kind,
            "name": printable(owner.name),
            "id": owner.id,
            "file": original.encode("utf-8", "replace").decode("utf-8"),
            "late": "yes" if candidate.found.late else "",
        }
    return Submission(
        student,
        candidate.exercise,
        shown(entry.parts),
        entry,
        candidate.problem,
        entry.modified,
        lms,
        notes,
    )


def _with_nbgraders_time(one: Submission, place: Place, candidate: Candidate) -> Submission:
    """Take the time of handing in from what nbgrader wrote beside the notebook, if it did."""
    entry = candidate.found.entry
    folder = entry.parts[: entry.outer - 1]
    try:
        if NBGRADER_TIME not in place.listing(folder)[1]:
            return one
        said = place.entry((*folder, NBGRADER_TIME)).read().decode("utf-8").strip()
        moment = datetime.strptime(said.partition(".")[0].removesuffix(" UTC"), "%Y-%m-%d %H:%M:%S")
        local = moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):  # Unreadable, UnicodeDecodeError: ValueErrors
        note = f"{NBGRADER_TIME} beside it holds no time in UTC; the file's own time was taken."
        return replace(one, notes=(*one.notes, note))
    return replace(one, handed_in=local.isoformat(timespec="seconds"))
