"""The cache folder: where it is, what it lists, what is deleted, and that writes are whole."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from fewshot_lib import data
from fewshot_lib.data import cache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "deep" / "cache"))
    return tmp_path / "deep" / "cache"


def test_the_environment_chooses_the_folder_and_it_is_made(folder: Path) -> None:
    assert not folder.exists()
    assert data.cache_dir() == folder
    assert folder.is_dir()


def test_without_the_variable_the_platforms_folder_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEWSHOT_CACHE", raising=False)
    monkeypatch.setattr(cache.platformdirs, "user_cache_dir", lambda app, **_: tmp_path / app)
    assert data.cache_dir() == tmp_path / "fewshot-course"


def test_a_folder_that_cannot_be_made_says_how_to_choose_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match="set FEWSHOT_CACHE to a folder you may write to"):
        data.cache_dir()


def test_status_lists_every_file_with_size_and_hash(folder: Path) -> None:
    assert data.status() == []
    (data.cache_dir() / "scans").mkdir()
    (folder / "scans" / "A.npz").write_bytes(b"abc")
    (folder / ".scans.lock").write_bytes(b"")
    [entry] = data.status()
    assert (entry.name, entry.path, entry.size) == ("scans/A.npz", folder / "scans" / "A.npz", 3)
    assert entry.sha256 == hashlib.sha256(b"abc").hexdigest()


def test_clearing_frees_what_the_course_put_there(folder: Path) -> None:
    for name in ("scans", "checkpoints"):
        (data.cache_dir() / name).mkdir()
        (folder / name / "x").write_bytes(b"1234")
    assert data.clear() == 8
    assert data.status() == []
    assert data.clear() == 0


def test_clearing_a_folder_with_other_things_in_it_deletes_nothing(folder: Path) -> None:
    (data.cache_dir() / "scans").mkdir()
    (folder / "scans" / "x").write_bytes(b"1234")
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds 'thesis\.tex'.*nothing was deleted"):
        data.clear()
    assert (folder / "scans" / "x").is_file()
    assert (folder / "thesis.tex").is_file()


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    with cache.atomic_file(target) as temporary:
        temporary.write_bytes(b"half")
        assert not target.exists()
        temporary.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"

    def interrupted() -> None:
        with cache.atomic_file(target) as temporary:
            temporary.write_bytes(b"broken")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_bytes() == b"whole"
    assert list(target.parent.iterdir()) == [target]


def test_a_lock_held_by_another_process_is_waited_for_and_then_complained_about(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import filelock, sys\n"
            "with filelock.FileLock(sys.argv[1]):\n"
            "    print('held', flush=True); sys.stdin.read()",
            str(path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TimeoutError, match="another process"), cache.lock(path, timeout=0.2):
            pytest.fail("entered")
    finally:
        holder.kill()
        holder.communicate()
    with cache.lock(path, timeout=5):  # the system freed it when the holder died
        pass


def test_a_module_that_the_package_lacks_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'faces'"):
        data.faces  # type: ignore[attr-defined]
