"""Look through a place where work was handed in: a folder, a zip, zips inside either.

Nothing here trusts a name or a byte: links are not followed, sizes are limited, zips are not
unpacked to disk, and no file is held in memory.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import IO

from fewshot_lib.grader.reader import MAX_BYTES, Unreadable, too_large

#: Files of one student that are looked at, and how deep folders go.
MAX_FILES, MAX_DEPTH = 5_000, 20
#: Files in a zip that was named, and in one inside a student's folder.
MAX_MEMBERS, MAX_INNER_MEMBERS = 200_000, 500
#: What a zip inside a student's folder may unpack to, bytes.
MAX_INNER_BYTES = 100 * 2**20
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError),
    *(OSError, EOFError, ValueError),
)


class NoSubmissions(ValueError):
    """There is nothing to grade at the place given; says what was looked for."""


@dataclass(frozen=True)
class Entry:
    """A file that was handed in.

    Arguments:
        parts: its path below the place; a zip inside it is one of them.
        file: on disk; the zip that holds it.
        member: its number and name in the zip; None if it is a file of its own.
        inner: number and name in a zip inside that; None if there is none.
        modified: ISO 8601, local time; of the outer file if it stands in an inner zip; "" unknown.
        inner_modified: of the file in the inner zip.
        outer: how many parts name the outer file.
        problem: why it cannot be read, "" if it can.
        is_folder: a folder that cannot be looked at, or not wholly.
    """

    parts: tuple[str, ...]
    file: Path
    member: tuple[int, str] | None = None
    inner: tuple[int, str] | None = None
    modified: str = ""
    inner_modified: str = ""
    outer: int = 0
    problem: str = ""
    is_folder: bool = False

    def read(self) -> bytes:
        """Read the file.

        Raises:
            Unreadable: it cannot be read; says why.
        """
        if self.problem:
            raise Unreadable(self.problem)
        try:
            if self.member is None:
                data = _read_file(self.file)
            else:
                data = _read_member(_archive_at(self.file), self.member)
            if self.inner is None:
                return data
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                return _read_member(archive, self.inner)
        except Unreadable:
            raise
        except _BROKEN as error:
            raise Unreadable(f"it could not be read: {_short(error)}") from None


class FolderPlace:
    """A folder on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def listing(self, prefix: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """Give the names of the folders and of the files in a folder, sorted; links are files.

        Raises:
            OSError: it cannot be opened.
        """
        folders: list[str] = []
        files: list[str] = []
        with os.scandir(self.root.joinpath(*prefix)) as found:
            for entry in found:
                (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
        return sorted(folders), sorted(files)

    def entry(self, parts: tuple[str, ...]) -> Entry:
        """Describe a file."""
        path = self.root.joinpath(*parts)
        try:
            state = path.lstat()
        except OSError as error:
            return Entry(parts, path, outer=len(parts), problem=_not_read(error.strerror))
        problem = ""
        if stat.S_ISLNK(state.st_mode):
            problem = _not_read("it is a link, which is not followed")
        elif not stat.S_ISREG(state.st_mode):
            problem = _not_read("it is not an ordinary file")
        elif state.st_size > MAX_BYTES:
            problem = too_large(state.st_size)
        return Entry(
            parts, path, modified=_local(state.st_mtime), outer=len(parts), problem=problem
        )


class ZipPlace:
    """A zip on disk, looked through as if it were a folder.

    Attributes:
        outside: names of members that would lead outside the zip.

    Raises:
        NoSubmissions: it is not a readable zip, or holds too many files.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.outside: list[str] = []
        self._tree: dict[tuple[str, ...], tuple[set[str], set[str]]] = {(): (set(), set())}
        self._members: dict[tuple[str, ...], tuple[int, zipfile.ZipInfo]] = {}
        try:
            infos = _archive_at(file).infolist()
        except _BROKEN as error:
            raise NoSubmissions(
                f"{file} is not a readable zip ({_short(error)}): name a folder, or a zip"
            ) from None
        if len(infos) > MAX_MEMBERS:
            raise NoSubmissions(f"{file.name} holds more than {MAX_MEMBERS} files: split it")
        for number, info in enumerate(infos):
            parts = _parts(info)
            if parts is None:
                self.outside.append(info.filename)
            elif parts and not info.is_dir():
                self._members[parts] = number, info  # the last one of the same name, as unzip does
                for depth in range(1, len(parts)):
                    self._tree.setdefault(parts[:depth], (set(), set()))
                    self._tree[parts[: depth - 1]][0].add(parts[depth - 1])
                self._tree[parts[:-1]][1].add(parts[-1])

    def listing(self, prefix: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """Give the names of the folders and of the files in a folder, sorted."""
        folders, files = self._tree[prefix]
        return sorted(folders), sorted(files)

    def entry(self, parts: tuple[str, ...]) -> Entry:
        """Describe a file."""
        number, info = self._members[parts]
        return Entry(
            parts,
            self.file,
            (number, info.filename),
            modified=_zip_time(info),
            outer=len(parts),
            problem=_problem(info),
        )


Place = FolderPlace | ZipPlace


#: Folders that hold no work, and would use up the number of files that are looked at.
_PRUNED = frozenset(
    (
        *(".git", ".hg", ".svn", "__pycache__", "node_modules", "site-packages", "venv", ".venv"),
        *(".cache", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"),
    )
)


def below(place: Place, prefix: tuple[str, ...]) -> Iterator[Entry]:
    """Give the files below a folder, the least deep first; those of zips in place of the zips.

    What cannot be looked at is an entry with a problem: a folder that cannot be opened or is too
    deep, the rest when there are too many files, a zip that cannot be read.
    """
    waiting, count = deque([prefix]), 0
    while waiting:
        at = waiting.popleft()
        if len(at) - len(prefix) > MAX_DEPTH:
            yield _trouble(at, f"folders are nested more than {MAX_DEPTH} deep here")
            continue
        try:
            folders, files = place.listing(at)
        except OSError as error:
            yield _trouble(at, f"the folder cannot be opened: {error.strerror}")
            continue
        waiting.extend((*at, name) for name in folders if name not in _PRUNED)
        for name in files:
            count += 1
            if count > MAX_FILES:
                yield _trouble(prefix, f"only {MAX_FILES} of its files were looked at")
                return
            yield from unpacked(place.entry((*at, name)), name)


def unpacked(entry: Entry, name: str) -> Iterator[Entry]:
    """Give a file, or, if its name is that of a zip, the files in it."""
    return _inside(entry) if is_zip(name) else iter((entry,))


def _trouble(parts: tuple[str, ...], problem: str) -> Entry:
    return Entry(parts, Path(), outer=len(parts), problem=problem, is_folder=True)


def is_zip(name: str) -> bool:
    """Say whether a file's name is that of a zip."""
    return name.lower().endswith(".zip")


def _inside(outer: Entry) -> Iterator[Entry]:
    """Give the files of a zip that was handed in, or the zip itself with what is wrong with it."""
    try:
        data = outer.read()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
    except Unreadable as error:
        yield replace(outer, problem=str(error))
        return
    except _BROKEN as error:
        yield replace(outer, problem=f"it is not a readable zip ({_short(error)})")
        return
    if len(infos) > MAX_INNER_MEMBERS:
        said = f"the zip holds {len(infos)} files, more than {MAX_INNER_MEMBERS}"
        yield replace(outer, problem=said)
        return
    size = sum(info.file_size for info in infos)
    if size > MAX_INNER_BYTES:
        said = f"the zip unpacks to {size >> 20} MiB, more than {MAX_INNER_BYTES >> 20}"
        yield replace(outer, problem=said)
        return
    for number, info in enumerate(infos):
        parts = _parts(info)
        if parts is None:
            said = "the zip holds a file whose name leads outside it; it was not read"
            yield replace(outer, problem=said)
        elif parts and not info.is_dir():
            zipped = is_zip(parts[-1])
            yield replace(
                outer,
                parts=(*outer.parts, *parts),
                inner=(number, info.filename),
                inner_modified=_zip_time(info),
                problem="a zip inside a zip is not opened: unpack it" if zipped else _problem(info),
            )


def _parts(info: zipfile.ZipInfo) -> tuple[str, ...] | None:
    """Give the path of a zip's member; None if it leads outside the zip or too deep."""
    name = info.filename
    if not info.flag_bits & 0x800:  # not said to be UTF-8; macOS writes it without saying so
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            name = info.filename
    name = name.replace("\\", "/")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    outside = name.startswith("/") or ".." in parts or (parts and parts[0][1:2] == ":")
    return None if outside or len(parts) > 2 * MAX_DEPTH else parts


def _problem(info: zipfile.ZipInfo) -> str:
    if stat.S_ISLNK(info.external_attr >> 16):
        return _not_read("it is a link, which is not followed")
    if info.flag_bits & 1:
        return _not_read("it is encrypted")
    return too_large(info.file_size) if info.file_size > MAX_BYTES else ""


@lru_cache(maxsize=2)
def _opened(file: Path, changed: int, size: int) -> zipfile.ZipFile:
    # a directory of thousands of members is not read anew for each of them
    return zipfile.ZipFile(file)


def _archive_at(file: Path) -> zipfile.ZipFile:
    state = file.stat()
    return _opened(file, state.st_mtime_ns, state.st_size)


def _read_member(archive: zipfile.ZipFile, member: tuple[int, str]) -> bytes:
    number, name = member
    infos = archive.infolist()
    if number >= len(infos) or infos[number].filename != name:
        raise Unreadable("the zip was changed since it was looked through: repeat the command")
    problem = _problem(infos[number])
    if problem:
        raise Unreadable(problem)
    with archive.open(infos[number]) as file:
        return _limited(file)


def _read_file(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        link = "it is a link, which is not followed" if path.is_symlink() else error.strerror
        raise Unreadable(_not_read(link)) from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unreadable(_not_read("it is not an ordinary file"))
        return _limited(file)


def _limited(file: IO[bytes]) -> bytes:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Unreadable(too_large(len(data)))
    return data


def _not_read(why: str | None) -> str:
    return f"the file was not read: {why}"


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:120]


def _local(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return ""


def _zip_time(info: zipfile.ZipInfo) -> str:
    try:
        return datetime(*info.date_time).isoformat(timespec="seconds")
    except ValueError:
        return ""
