"""The set-up: quick to repeat, repairs what was left half made, fails with a sentence."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fewshot_lib.tools import setup

ROOT = Path(__file__).resolve().parents[2]
PROJECT = """
[project]
name = "tiny"
version = "0.1"
dependencies = ["pip"]
[project.optional-dependencies]
lab = ["tiny[more]"]
more = []
test = ["pip"]
"""


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one real environment; the tests take copies, which cost a tenth."""
    venv = tmp_path_factory.mktemp("ready") / ".venv"
    setup.make_venv(venv)
    return venv


@pytest.fixture
def course(tmp_path: Path, ready: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project that needs nothing but pip."""

    def copy(venv: Path) -> None:
        shutil.rmtree(venv, ignore_errors=True)
        shutil.copytree(ready, venv, symlinks=True)

    monkeypatch.setattr(setup, "make_venv", copy)
    folder = tmp_path / "a course"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "constraints.txt").write_text("")
    return folder


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Note calls of ``install`` instead of asking an index."""
    calls: list[list[str]] = []
    monkeypatch.setattr(setup, "install", lambda root, venv, extras: calls.append(extras))
    return calls


def test_set_up_is_done_once_and_again_only_when_the_wanted_packages_change(
    course: Path, installs: list[list[str]]
) -> None:
    assert setup.set_up_environment(course) is True
    assert setup.set_up_environment(course) is False
    (course / "pyproject.toml").write_text(PROJECT + "[tool.ruff]\nline-length = 90\n")
    assert setup.set_up_environment(course) is False
    (course / "constraints.txt").write_text("six==1.17.0\n")
    assert setup.set_up_environment(course) is True
    assert len(installs) == 2


def test_a_reader_gets_what_readers_need_and_what_was_there_stays(
    course: Path, installs: list[list[str]]
) -> None:
    assert setup.set_up_environment(course) is True
    mark = marked(course)
    assert setup.set_up_environment(course, ["lab", "test"]) is True
    assert setup.set_up_environment(course, ["lab", "test"]) is False
    assert setup.set_up_environment(course) is False  # `make lab` after `make test`
    (course / "constraints.txt").write_text("six==1.17.0\n")
    assert setup.set_up_environment(course) is True
    assert installs == [["lab"], ["lab", "test"], ["lab", "test"]]
    assert mark.exists()


def test_a_set_up_of_an_earlier_version_had_everything(
    course: Path, installs: list[list[str]]
) -> None:
    setup.set_up_environment(course, ["lab", "more", "test"])
    stamp = json.loads((course / ".venv" / setup.STAMP).read_text())
    del stamp["extras"]
    (course / ".venv" / setup.STAMP).write_text(json.dumps(stamp))
    assert setup.set_up_environment(course) is False


def test_a_reader_is_not_given_what_teachers_and_authors_need() -> None:
    names = set(setup.direct_dependencies(ROOT, setup.READERS))
    assert {"torch", "jupyterlab", "efficientnet-lite-pytorch"} <= names
    assert not {"nbgrader", "dask", "monai", "sphinx", "mypy", "fewshot-course"} & names
    every = setup.project(ROOT)["optional-dependencies"]
    assert {"nbgrader", "dask", "monai", "sphinx", "mypy"} <= set(
        setup.direct_dependencies(ROOT, list(every))
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize(
    ("target", "everything"),
    [("lab", False), ("setup", False), ("setup-all", True), ("test", True), ("book", True)],
)
def test_each_target_of_make_sets_up_what_it_needs(target: str, everything: bool) -> None:
    done = subprocess.run(
        ["make", "-n", target, "PYTHON=python3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    [line] = [x for x in done.stdout.splitlines() if 'exec "$PYTHON"' in x]
    assert ("--all" in line) == everything


def marked(course: Path) -> Path:
    """Name a file that lasts as long as the environment is not built anew."""
    mark = course / ".venv" / "mark"
    mark.touch()
    return mark


def delete_interpreter(venv: Path) -> None:
    for program in setup.venv_python(venv).parent.glob("python*"):
        program.unlink()


def delete_pip(venv: Path) -> None:
    for package in venv.glob("lib/*/site-packages/pip"):
        shutil.rmtree(package)


def interrupt(venv: Path) -> None:
    (venv / setup.UNFINISHED).touch()


def move(venv: Path) -> None:
    stamp = json.loads((venv / setup.STAMP).read_text())
    (venv / setup.STAMP).write_text(json.dumps({**stamp, "home": "elsewhere"}))


@pytest.mark.skipif(os.name == "nt", reason="the environment is laid out differently on Windows")
@pytest.mark.parametrize("harm", [delete_interpreter, delete_pip, interrupt, move])
def test_a_damaged_interrupted_or_moved_environment_is_built_anew(
    course: Path, installs: list[list[str]], harm: Callable[[Path], None]
) -> None:
    setup.set_up_environment(course)
    mark = marked(course)
    harm(course / ".venv")
    assert setup.set_up_environment(course) is True
    assert not mark.exists()
    assert setup.set_up_environment(course) is False


def test_an_environment_made_by_hand_is_completed_not_removed(
    course: Path, installs: list[list[str]]
) -> None:
    setup.make_venv(course / ".venv")
    mark = marked(course)
    assert setup.set_up_environment(course) is True
    assert mark.exists()


def test_an_interruption_is_remembered(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(root: Path, venv: Path, extras: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(setup, "install", interrupted)
    with pytest.raises(KeyboardInterrupt):
        setup.set_up_environment(course)
    assert (course / ".venv" / setup.UNFINISHED).exists()
    assert not (course / ".venv" / setup.STAMP).exists()


def test_a_failed_download_leaves_a_working_environment_as_it_was(
    course: Path, installs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real pip, and an index that nobody serves."""
    setup.set_up_environment(course)
    mark = marked(course)
    monkeypatch.undo()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    (course / "constraints.txt").write_text("six==1.17.0\n")
    with pytest.raises(SystemExit) as ended:
        setup.set_up_environment(course)
    assert ended.value.code == 3
    assert mark.exists()
    assert not (course / ".venv" / setup.UNFINISHED).exists()


def test_scans_are_asked_for_once_and_again_when_a_file_is_gone(
    course: Path, installs: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The fetch itself is tested with the data; here the library is a stand-in that counts."""
    setup.set_up_environment(course)
    cache = tmp_path / "cache"
    (course / "fewshot_lib" / "data").mkdir(parents=True)
    (course / "fewshot_lib" / "data" / "scans.py").write_text("")
    monkeypatch.setenv("FEWSHOT_CACHE", str(cache))
    asked: list[str] = []

    def stand_in(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command[-1])
        (cache / "scans").mkdir(parents=True, exist_ok=True)
        (cache / "scans" / "A.npz").touch()
        return subprocess.CompletedProcess(command, 0, f"{cache}\n", "")

    monkeypatch.setattr(setup.subprocess, "run", stand_in)
    setup.fetch_scans(course)
    setup.fetch_scans(course)
    assert asked.count("fetch") == 1
    (cache / "scans" / "A.npz").unlink()
    setup.fetch_scans(course)
    assert asked.count("fetch") == 2
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "other"))
    setup.fetch_scans(course)
    assert asked.count("fetch") == 3


def test_without_scans_the_set_up_says_so_and_goes_on(
    course: Path, installs: list[list[str]], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    setup.set_up_environment(course)
    (course / "fewshot_lib" / "data").mkdir(parents=True)
    (course / "fewshot_lib" / "data" / "scans.py").write_text("")
    setup.fetch_scans(course)  # there is no fewshot_lib.cli in this environment
    assert "synthetic anatomy" in capsys.readouterr().out


def test_the_set_up_speaks_the_language_that_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("check_python", "fetch_scans"):
        monkeypatch.setattr(setup, name, lambda *_: None)
    monkeypatch.setattr(setup, "set_up_environment", lambda *_: False)
    monkeypatch.setenv("FEWSHOT_LANGUAGE", "en")
    setup.main(["--language", "zh_CN"])
    assert re.fullmatch(r"安装：无事可做（\d+ s）。\n", capsys.readouterr().out)


def refuse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the set-up, which must end with status 3; give its one sentence."""
    monkeypatch.setattr(setup, "set_up_environment", lambda root, extras: setup.check_disk(root))
    with pytest.raises(SystemExit) as ended:
        setup.main(["--no-scans"])
    assert ended.value.code == 3
    [sentence] = capsys.readouterr().err.strip().splitlines()
    return sentence


@pytest.mark.parametrize("version", [(3, 10, 4), (3, 14, 0)])
def test_a_python_of_the_wrong_age_is_refused_with_the_way_out(
    version: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    assert "make setup PYTHON=" in refuse(monkeypatch, capsys)


def test_a_missing_venv_module_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup.importlib.util, "find_spec", lambda name: None)
    assert "-venv" in refuse(monkeypatch, capsys)


def test_a_full_disk_is_noticed_before_anything_is_downloaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "NEEDED_GIGABYTES", 1e9)
    assert "GB are free" in refuse(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("log", "word"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left", "disk"),
        ("WARNING: Retrying (Retry(total=4)) after NewConnectionError(...)", "network"),
        ("ERROR: No matching distribution found for torch==2.13.0", "torch==2.13.0"),
        ("ERROR: ResolutionImpossible: for help visit", "constraints.txt"),
        ("OSError: [Errno 13] Permission denied: '/usr'", "written"),
        ("ERROR: something new", "something new"),
        ("", "no output"),
    ],
)
def test_what_pip_says_becomes_one_sentence(log: str, word: str) -> None:
    sentence = setup.explain(log)
    assert word in sentence
    assert "\n" not in sentence


@pytest.fixture
def offers(course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let a real pip find these builds of torch, and nothing else."""
    setup.make_venv(course / ".venv")
    (course / "constraints.txt").write_text("six==1.17.0\ntorch==2.13.0\n")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    def offer(*versions: str) -> None:
        for version in versions:
            (tmp_path / f"torch-{version}-py3-none-any.whl").touch()

    return offer


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has two builds")
@pytest.mark.parametrize(
    ("versions", "chosen"),
    [
        (("2.13.0", "2.13.0+cpu", "2.14.0", "2.14.0+cpu"), ["torch==2.13.0+cpu"]),
        (("2.13.0", "2.13.0+cu128", "2.14.0+cpu"), []),
        ((), []),
    ],
)
def test_the_build_for_the_cpu_is_chosen_where_pip_has_it_and_else_the_way_to_it_is_said(
    versions: tuple[str, ...], chosen: list[str], course: Path, offers: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    offers(*versions)
    assert setup.choose_torch(course, course / ".venv") == chosen
    said = capsys.readouterr().out
    assert ("PIP_EXTRA_INDEX_URL=" in said) == bool(versions and not chosen)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has two builds")
def test_a_torch_that_is_installed_is_not_replaced_by_another_build(
    course: Path, offers: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    offers("2.13.0", "2.13.0+cpu")
    [packages] = (course / ".venv").glob("lib/*/site-packages")
    record = packages / "torch-2.13.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0\n")
    assert setup.choose_torch(course, course / ".venv") == []
    assert capsys.readouterr().out == ""


def test_large_downloads_are_said_and_the_rest_is_not() -> None:
    lines = [
        "Collecting numpy==2.4.6",
        "  Downloading torch-2.13.0-cp311-none-linux_x86_64.whl (899.7 MB)",
        "  Downloading six-1.17.0-py2.py3-none-any.whl (11 kB)",
        "Installing collected packages: six, numpy, torch",
    ]
    said = list(setup.worth_saying(iter(lines)))
    assert [line.split()[0] for line in said] == ["downloading", "installing"]
    assert "installing 3 packages" in said[1]


def test_system_packages_are_not_asked_for_where_a_password_would_be_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []

    def refuses(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 1, "", "a password is required")

    monkeypatch.setattr(setup, "SYSTEM_PACKAGES", {"chromium": lambda: True})
    monkeypatch.setattr(setup, "is_root", lambda: False)
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(setup.subprocess, "run", refuses)
    setup.install_system_packages()
    assert ran == [["sudo", "-n", "true"]]
    assert "sudo apt-get install chromium" in capsys.readouterr().out


def test_system_packages_are_installed_by_root_without_a_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[list[str]] = []

    def works(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(
        setup, "SYSTEM_PACKAGES", {"chromium": lambda: True, "other": lambda: False}
    )
    monkeypatch.setattr(setup, "is_root", lambda: True)
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(setup.subprocess, "run", works)
    setup.install_system_packages()
    assert [command[1] for command in ran] == ["update", "install"]
    assert ran[1][-1] == "chromium"
    assert "-y" in ran[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_says_in_one_sentence_that_a_named_python_does_not_run() -> None:
    done = subprocess.run(
        ["make", "setup", "PYTHON=/nowhere/python"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "PYTHON=/nowhere/python does not run" in done.stderr
