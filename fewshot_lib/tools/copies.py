"""The reader's own copies of the notebooks, in ``work/``: what ``fewshot lab`` opens.

Git knows the course's notebooks and not these copies, so that running, writing and saving never
stand in the way of ``git pull``. A copy that the reader has not touched follows the course; one
that was changed stays as it is.
"""

from __future__ import annotations

import datetime as dt
import difflib
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot_lib.checker.language import PARTS, SOURCE, language, short, words
from fewshot_lib.checker.notebook import read

_ = words("cli")

#: The folder of the copies, in the course's folder; git ignores it.
FOLDER = "work"
#: Which file of the course each copy was made from: hashes of that file and of the copy.
RECORD = ".copies.json"


class NoSuchNotebook(LookupError):
    """There is no exercise or notebook of that name; the message lists what there is."""


@dataclass
class Update:
    """What was done to the copies, by their paths within ``work/``."""

    made: list[str] = field(default_factory=list)
    refreshed: list[str] = field(default_factory=list)
    newer: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        said = []
        notebooks = [name for name in self.made if name.endswith(".ipynb")]
        if notebooks:
            made = _("Your copies of {n} notebooks are in {folder}/.")
            said.append(made.format(n=len(notebooks), folder=FOLDER))
        if self.refreshed:
            fresh = _("Brought up to date: {files}.")
            said.append(fresh.format(files=", ".join(self.refreshed)))
        if self.newer:
            newer = _(
                "The course has newer versions of {files}; yours stay as they are "
                "(fewshot reset {first} takes the new one, and keeps yours)."
            )
            first = Path(self.newer[0]).stem
            said.append(newer.format(files=", ".join(self.newer), first=first))
        return "\n".join(said)


def update(course: Path, language: str = SOURCE) -> Update:
    """Make missing copies, and refresh those that the reader has not touched.

    Arguments:
        course: the course's folder.
        language: of the notebooks; copies in other languages are left as they are.

    Raises:
        OSError: the folder cannot be written to.
    """
    record, done = _read_record(course), Update()
    for name in originals(course, language):
        source, copy = course / name, course / FOLDER / name
        known = record.get(name, {})
        wanted = _hash(source)
        if not copy.exists():
            done.made.append(name)
        elif known.get("original") == wanted:
            continue
        elif known.get("copy") == _hash(copy):
            done.refreshed.append(name)
        else:
            done.newer.append(name)
            continue
        _copy(source, copy)
        record[name] = {"original": wanted, "copy": _hash(copy)}
    _write_record(course, record)
    return done


def reset(course: Path, name: str) -> tuple[Path, Path | None]:
    """Put a fresh copy in place, and keep the reader's beside it.

    Arguments:
        course: the course's folder.
        name: "prototypes", "03_prototypes", "3", or a path as "notebooks/01_labels.ipynb".

    Returns:
        The fresh copy, and where the reader's is now; None if there was none or it was fresh.

    Raises:
        NoSuchNotebook: there is none of that name.
        OSError: the folder cannot be written to.
    """
    wanted = find(course, name)
    source, copy = course / wanted, course / FOLDER / wanted
    record, kept = _read_record(course), None
    known = record.get(wanted, {})
    fresh = known.get("copy") if known.get("original") == _hash(source) else None
    if copy.exists():
        if fresh == _hash(copy):
            return copy, None
        stamp = dt.datetime.now().strftime("%Y-%m-%d_%H%M%S")
        kept = copy.with_name(f"{copy.stem}.mine-{stamp}{copy.suffix}")
        number = 1
        while kept.exists():
            number += 1
            kept = copy.with_name(f"{copy.stem}.mine-{stamp}-{number}{copy.suffix}")
        copy.replace(kept)
    _copy(source, copy)
    record[wanted] = {"original": _hash(source), "copy": _hash(copy)}
    _write_record(course, record)
    return copy, kept


def find(course: Path, name: str) -> str:
    """Name a notebook of the course by what a reader calls it; exercises before lessons.

    Raises:
        NoSuchNotebook: there is none of that name.
    """
    known = [one for one in originals(course, language()) if one.endswith(".ipynb")]
    known += [one for one in originals(course) if one.endswith(".ipynb") and one not in known]
    called = name.replace("\\", "/").removeprefix("./").removeprefix(f"{FOLDER}/")
    called = called.removesuffix(".ipynb")
    exercises_first = sorted(known, key=lambda one: not one.startswith("exercises/"))
    for one in exercises_first:
        path, stem = one.removesuffix(".ipynb"), Path(one).stem
        number, _underscore, word = stem.partition("_")
        if called and called in (path, stem, word, number, number.lstrip("0")):
            return one
    stems = sorted({Path(one).stem for one in known if one.startswith("exercises/")})
    close = difflib.get_close_matches(called, stems, n=1)
    meant = _("exercises are {names}").format(names=", ".join(stems))
    if close:
        meant = _("did you mean {name}?").format(name=close[0])
    said = _("There is no exercise {name}; {meant}")
    raise NoSuchNotebook(said.format(name=repr(name), meant=meant))


def originals(course: Path, language: str = SOURCE) -> Iterator[str]:
    """Give what is copied: the notebooks of a language, and the pictures beside them."""
    for part in PARTS if language == SOURCE else [f"{part}/{short(language)}" for part in PARTS]:
        for file in sorted((course / part).glob("*")):
            if file.suffix in (".ipynb", ".png", ".svg") and file.is_file():
                yield f"{part}/{file.name}"


def language_info() -> dict[str, Any]:
    """Give what a kernel of this Python says of its language.

    JupyterLab writes it into a notebook when it opens it; if it is there already, opening a
    notebook changes nothing and does not mark it as edited.
    """
    from ipykernel.ipkernel import IPythonKernel

    return dict(IPythonKernel.language_info)


def _copy(source: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix != ".ipynb":
        shutil.copyfile(source, copy)
        return
    notebook = read(source)
    notebook["metadata"]["language_info"] = language_info()
    _write(copy, json.dumps(notebook, ensure_ascii=False, indent=1) + "\n")


def _write(file: Path, text: str) -> None:
    """Write a file; an interruption leaves the old one or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _read_record(course: Path) -> dict[str, dict[str, str]]:
    try:
        record = json.loads((course / FOLDER / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # no copies yet; without the record every copy counts as the reader's own
    if not isinstance(record, dict):
        return {}
    return {name: known for name, known in record.items() if isinstance(known, dict)}


def _write_record(course: Path, record: dict[str, dict[str, str]]) -> None:
    _write(course / FOLDER / RECORD, json.dumps(record, indent=1))
