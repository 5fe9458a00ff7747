"""The cache folder: where it is, what lies in it, and how two processes share it."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock
import platformdirs

APP = "fewshot-course"


def cache_dir() -> Path:
    """Return the folder for scans and checkpoints, made if missing.

    The environment variable ``FEWSHOT_CACHE`` overrides the platform's own cache folder.

    Raises:
        OSError: the folder cannot be made; the message says how to choose another.

    >>> cache_dir().is_dir()
    True
    """
    chosen = os.environ.get("FEWSHOT_CACHE")
    folder = (
        Path(chosen).expanduser()
        if chosen
        else Path(platformdirs.user_cache_dir(APP, appauthor=False))
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"the cache folder {folder} cannot be made ({error.strerror}); "
            "set FEWSHOT_CACHE to a folder you may write to"
        ) from error
    return folder


@dataclass(frozen=True)
class CacheEntry:
    """One file of the cache, as ``fewshot data`` lists it.

    Arguments:
        name: path relative to the cache folder.
        path: the whole path.
        size: bytes.
        sha256: of the file's content, hexadecimal.
    """

    name: str
    path: Path
    size: int
    sha256: str


def status() -> list[CacheEntry]:
    """List what is cached: name, path, size in bytes, hash.

    >>> all(entry.size >= 0 for entry in status())
    True
    """
    folder = cache_dir()
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return [
        CacheEntry(p.relative_to(folder).as_posix(), p, p.stat().st_size, file_sha256(p))
        for p in files
    ]


def clear() -> int:
    """Delete everything in the cache; the next use fetches or computes it again.

    Returns:
        The number of bytes freed.

    Raises:
        ValueError: ``FEWSHOT_CACHE`` points at a folder that this course did not fill.
    """
    folder = cache_dir()
    known = {"scans", "checkpoints"}
    strangers = [p.name for p in folder.iterdir() if p.name not in known and p.name[0] != "."]
    if strangers:
        raise ValueError(
            f"{folder} holds {strangers[0]!r}, which this course did not put there; "
            "nothing was deleted. Remove the folders "
            + ", ".join(sorted(known))
            + " by hand, or set FEWSHOT_CACHE to a folder of its own"
        )
    freed = sum(entry.size for entry in status())
    for name in known:
        shutil.rmtree(folder / name, ignore_errors=True)
    return freed


def file_sha256(path: Path) -> str:
    """Hash a file without reading it whole into memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes `path`'s name only when all went well.

    It is hidden, and ends as `path` does: some libraries read the format from the name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = path.name[-len(".nii.gz") :]
    handle, name = tempfile.mkstemp(prefix=".fewshot-", suffix=ending, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def lock(path: Path, timeout: float = 600.0) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the system frees it if the process dies.

    Raises:
        TimeoutError: another process held it for longer than `timeout` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(path, timeout=timeout):
            yield
    except filelock.Timeout as error:
        raise TimeoutError(
            f"another process has been preparing the data for {timeout:.0f} s "
            f"(it holds {path}); wait for it, or end it and try again"
        ) from error
