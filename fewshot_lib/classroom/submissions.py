"""Find and read submissions: folders, nbgrader's tree, zips as Moodle and Canvas export them.

Nothing here trusts a name or a byte: files are read with a limit, links are not followed, zips are
not unpacked to disk, and the student's name is only ever a label.
"""

from __future__ import annotations

import json
import os
import re
import stat
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fewshot_lib.exercises import catalogue

#: A larger notebook is not read, bytes.
MAX_BYTES = 20 * 2**20
#: More cells than this are not read.
MAX_CELLS = 2_000
_MAX_FILES = 100_000

# Moodle: "Name Surname_1234567_assignsubmission_file_/03_prototypes.ipynb"
_MOODLE = re.compile(r"^(?P<student>.+)_(?P<number>\d+)_assignsubmission_\w+?_?$")
# Canvas: "surnamename_LATE_12345_67890_03_prototypes-1.ipynb"
_CANVAS = re.compile(
    r"^(?P<student>[^_/]+)_(?:LATE_)?(?P<user>\d+)_(?P<number>\d+)_(?P<file>.+\.ipynb)$", re.I
)
_AGAIN = re.compile(r"(?:-\d+|\s*\(\d+\))$")


class NoSubmissions(ValueError):
    """There is nothing to grade at the place given; says what was looked for."""


@dataclass(frozen=True)
class Submission:
    """One student's notebook of one exercise.

    Arguments:
        student: as the folder, Moodle or Canvas name them.
        exercise: the exercise's file name without ending: "03_prototypes".
        name: where it was found, for messages.
        data: the file's bytes; None if it was not read.
        problem: why it was not read, "" if it was.
    """

    student: str
    exercise: str
    name: str
    data: bytes | None
    problem: str = ""


class Unreadable(ValueError):
    """A submission is no notebook that can be graded; says what it is instead."""


def find(place: Path, only: str = "") -> list[Submission]:
    """Find the submissions at a folder or in a zip, in a fixed order.

    Arguments:
        place: ``<student>/<exercise>.ipynb``, nbgrader's ``submitted/<student>/<assignment>/…``,
            or a zip of either or as Moodle or Canvas exports it.
        only: one exercise; others are passed over.

    Returns:
        One submission a student and exercise; of several files the newest is meant by the order
        that the exporting program writes: Canvas's "-1" after the plain one.

    Raises:
        NoSubmissions: nothing is there, or nothing that looks like a submission.
        catalogue.NoSuchExercise: ``only`` is no exercise.
    """
    wanted = catalogue.exercise(only).stem if only else ""
    if not place.exists():
        raise NoSubmissions(f"no such file or folder: {place}")
    entries = _zip_entries(place) if place.is_file() else _folder_entries(place)
    found: dict[tuple[str, str], Submission] = {}
    for parts, data, problem in entries:
        named = _whose(parts)
        if named is None:
            continue
        student, exercise = named
        if wanted and exercise != wanted:
            continue
        found[student, exercise] = Submission(student, exercise, "/".join(parts), data, problem)
    if not found:
        asked = f" of {wanted}" if wanted else ""
        raise NoSubmissions(
            f"no submission{asked} at {place}: looked for <student>/<exercise>.ipynb, "
            "submitted/<student>/<assignment>/<exercise>.ipynb, and Moodle's or Canvas's file names"
        )
    return [found[key] for key in sorted(found)]


def _whose(parts: tuple[str, ...]) -> tuple[str, str] | None:
    """Read student and exercise from a path; None for what is no submission."""
    file = parts[-1]
    if not file.lower().endswith(".ipynb") or any(
        part.startswith(".") or part == "__MACOSX" for part in parts
    ):
        return None
    canvas = _CANVAS.match(file)
    folders = parts[:-1]
    moodle = next((m for m in map(_MOODLE.match, folders) if m), None)
    if moodle:
        student = f"{moodle['student']}_{moodle['number']}"
    elif canvas and catalogue_stem(canvas["file"]):
        student, file = f"{canvas['student']}_{canvas['user']}", canvas["file"]
    elif "submitted" in folders and len(folders) > folders.index("submitted") + 1:
        student = folders[folders.index("submitted") + 1]
    elif folders:
        student = folders[-1] if len(folders) == 1 else folders[0]
    else:
        return None
    stem = catalogue_stem(file)
    # a file name may hold bytes that are no text: they become U+FFFD, so that rows can be written
    readable = student.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return (unicodedata.normalize("NFC", readable)[:200], stem) if stem else None


def catalogue_stem(file: str) -> str:
    """Give the exercise that a file's name means, "" if it means none.

    >>> catalogue_stem("03_prototypes (2).ipynb")
    '03_prototypes'
    """
    stem = _AGAIN.sub("", re.sub(r"\.ipynb$", "", file, flags=re.I)).strip()
    try:
        return catalogue.exercise(stem).stem
    except catalogue.NoSuchExercise:
        return ""


def _folder_entries(root: Path) -> Iterator[tuple[tuple[str, ...], bytes | None, str]]:
    count = 0
    for folder, names, files in os.walk(root, followlinks=False):
        names.sort()
        for name in sorted(files):
            count += 1
            if count > _MAX_FILES:
                raise NoSubmissions(
                    f"more than {_MAX_FILES} files at {root}; name a smaller folder"
                )
            path = Path(folder) / name
            parts = path.relative_to(root).parts
            if name.lower().endswith(".zip") and len(parts) <= 2:
                continue
            if name.lower().endswith(".ipynb"):
                if len(parts) == 1 and not _CANVAS.match(name):
                    # a student's own folder was named instead of its parent
                    parts = (root.resolve().name, name)
                data, problem = _read(path)
                yield parts, data, problem


def _read(path: Path) -> tuple[bytes | None, str]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        link = "it is a link, which is not followed" if path.is_symlink() else error.strerror
        return None, f"the file was not read: {link}"
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            return None, "the file was not read: it is no ordinary file"
        if state.st_size > MAX_BYTES:
            return None, _too_large(state.st_size)
        return file.read(MAX_BYTES + 1), ""


def _too_large(size: int) -> str:
    return (
        f"the file has {size / 2**20:.0f} MiB, at most {MAX_BYTES / 2**20:.0f} are read: clear its "
        "outputs and hand it in again"
    )


def _zip_entries(path: Path) -> Iterator[tuple[tuple[str, ...], bytes | None, str]]:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if len(infos) > _MAX_FILES:
                raise NoSubmissions(f"{path.name} holds more than {_MAX_FILES} files")
            for info in infos:
                parts = tuple(p for p in PurePosixPath(info.filename.replace("\\", "/")).parts)
                if info.is_dir() or not parts or not parts[-1].lower().endswith(".ipynb"):
                    continue
                if ".." in parts or parts[0] == "/" or ":" in parts[0]:
                    parts = tuple(p for p in parts if p not in ("..", "/"))
                    yield parts, None, "its name in the zip leads outside; it was not read"
                    continue
                if stat.S_ISLNK(info.external_attr >> 16):
                    yield parts, None, "the file was not read: it is a link, which is not followed"
                    continue
                if info.file_size > MAX_BYTES:
                    yield parts, None, _too_large(info.file_size)
                    continue
                try:
                    with archive.open(info) as file:
                        data = file.read(MAX_BYTES + 1)
                except (RuntimeError, zipfile.BadZipFile, OSError, EOFError) as error:
                    yield parts, None, f"it could not be read from the zip: {error}"
                    continue
                yield (
                    parts,
                    *((None, _too_large(len(data))) if len(data) > MAX_BYTES else (data, "")),
                )
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise NoSubmissions(f"{path} is no zip that can be read: {error}") from None


def notebook(data: bytes) -> dict[str, Any]:
    """Read a submission's JSON; keep only cells that are cells.

    Raises:
        Unreadable: it is no notebook of format 4; says what it is.
    """
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise Unreadable("the file is no text, so no notebook") from None
    except RecursionError:
        raise Unreadable("the file is nested too deeply to be a notebook") from None
    except ValueError as error:
        raise Unreadable(f"the file is damaged or cut off: {str(error)[:120]}") from None
    if not isinstance(found, dict) or not isinstance(found.get("nbformat"), int):
        raise Unreadable("the file is JSON, but no notebook")
    if found["nbformat"] != 4:
        raise Unreadable(
            f"the notebook has format {found['nbformat']}, 4 is needed: open it in JupyterLab and "
            "save it again"
        )
    cells = found.get("cells")
    if not isinstance(cells, list):
        raise Unreadable("the notebook has no list of cells")
    if len(cells) > MAX_CELLS:
        raise Unreadable(f"the notebook has {len(cells)} cells, at most {MAX_CELLS} are read")
    return {"nbformat": 4, "cells": [cell for cell in map(_cell, cells) if cell]}


def _cell(cell: Any) -> dict[str, Any] | None:
    if not isinstance(cell, dict) or cell.get("cell_type") not in ("code", "markdown", "raw"):
        return None
    source = cell.get("source")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        return None
    metadata = cell.get("metadata")
    grading = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = grading.get("grade_id") if isinstance(grading, dict) else None
    name = cell.get("id")
    return {
        "cell_type": cell["cell_type"],
        "source": source,
        "id": name if isinstance(name, str) else "",
        "metadata": {"nbgrader": {"grade_id": grade_id}} if isinstance(grade_id, str) else {},
    }
