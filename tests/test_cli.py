"""The ``fewshot`` command: help, exit status, the server it starts, the report it writes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from english import left_in_english
from typer.main import get_command
from typer.testing import CliRunner

import fewshot_lib
from fewshot_lib.checker import console as _console
from fewshot_lib.checker import language
from fewshot_lib.cli import app

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = sorted(get_command(app).commands)
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def fewshot(tmp_path: Path) -> Run:
    """Give a function that runs ``fewshot`` as a person does, with a cache of its own."""

    def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Run one command."""
        return subprocess.run(
            [sys.executable, "-m", "fewshot_lib.cli", *arguments],
            cwd=cwd,
            env={**os.environ, "FEWSHOT_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert re.search(rf"Examples?: fewshot {command}", shown.stdout)


def test_help_imports_nothing_heavy() -> None:
    question = (
        "import sys; from fewshot_lib.cli import main; sys.argv = ['fewshot', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'matplotlib', 'nbformat') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]")


def test_without_a_command_the_help_is_shown_with_status_2() -> None:
    shown = CliRunner().invoke(app, [])
    assert shown.exit_code == 2
    assert "Commands:" in shown.output


def test_missing_scans_are_said_with_status_1_and_clearing_an_empty_cache_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    assert CliRunner().invoke(app, ["data"]).exit_code == 1
    assert CliRunner().invoke(app, ["data", "clear", "--yes"]).exit_code == 0


def test_the_version_is_printed(fewshot: Run) -> None:
    done = fewshot("--version")
    assert done.returncode == 0
    assert done.stdout == f"fewshot {fewshot_lib.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("data fetch --archive FOLDER/absent.tar.gz", "absent.tar.gz"),
        ("data fetch --archive FOLDER", "There is no file"),
        ("data fetch --archive", "fewshot data --help"),
        ("data fetch --archive FOLDER/README.md", "another file"),
        ("data --archive FOLDER/README.md", "--archive goes with fetch"),
        ("data clear --archive FOLDER/README.md", "--archive goes with fetch"),
        ("data --yes", "--yes goes with clear"),
        ("data fetch --yes", "--yes goes with clear"),
        ("check FOLDER/README.md", "is not a notebook"),
        ("check FOLDER/nope.ipynb", "There is no file"),
        ("check FOLDER", "is a folder"),
        ("check FOLDER/exercises/03_prototype.ipynb", "did you mean"),
        ("check", "fewshot check --help"),
        ("progress --reset p", "is called 'p'"),
        ("progress --reset prototype", "did you mean 'prototypes'?"),
        ("progress --reset nonsense", "there are after, dice, episodes"),
        ("progress --reset", "requires an argument"),
        ("progress --yes", "--reset all --yes"),
        ("progress --reset prototypes --yes", "--reset all --yes"),
        ("lab --port 5", "1024"),
        ("lab --port many", "integer"),
        ("nonsense", "fewshot --help"),
        ("--nonsense", "fewshot --help"),
        ("doctor extra", "fewshot doctor --help"),
    ],
)
def test_wrong_use_gets_one_sentence_and_status_2(
    tmp_path: Path,
    arguments: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from fewshot_lib import cli

    (tmp_path / "README.md").write_text("# A text")
    (tmp_path / "exercises").mkdir()
    (tmp_path / "exercises" / "03_prototypes.ipynb").write_text("{}")
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        sys, "argv", ["fewshot", *arguments.replace("FOLDER", str(tmp_path)).split()]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    said = (printed.out + printed.err).strip()
    assert ended.value.code == 2, said
    assert len(said.splitlines()) == 1, said
    assert says in said


#: A wrong value of each option and argument whose values typer cannot judge, in a whole command.
WRONG = {
    "data --archive": "data fetch --archive FOLDER/README.md",
    "segment --support": "segment --support FOLDER/none.nii.gz --mask m --query q --out o.nii.gz",
    "segment --mask": "segment --support s --mask FOLDER/none.nii.gz --query q --out o.nii.gz",
    "segment --query": "segment --support s --mask m --query FOLDER/none.nii.gz --out o.nii.gz",
    "segment --out": "segment --support s --mask m --query q --out FOLDER/README.md",
    "check notebook": "check FOLDER/README.md",
    "reset exercise": "reset nonsense",
    "build names": "build nonsense",
    "progress --reset": "progress --reset nonsense",
    "grade submissions": "grade FOLDER/none --results FOLDER/marks",
    "grade --results": "grade FOLDER/handed --results FOLDER/README.md",
    "grade --exercise": "grade FOLDER/handed --results FOLDER/marks --exercise 03_nope",
    "grade --scheduler": "grade FOLDER/handed --results FOLDER/marks --scheduler nonsense",
    "grade --regrade": "grade FOLDER/handed --results FOLDER/marks --regrade nobody",
    "grade --status": "grade FOLDER/handed --results FOLDER/marks --status funny",
    "grade --due": "grade FOLDER/handed --results FOLDER/marks --due yesterday",
    "grade --late-per-day": "grade FOLDER/handed --results FOLDER/marks --late-per-day nan",
    "grade --roster": "grade FOLDER/handed --results FOLDER/marks --roster FOLDER/none.csv",
    "grade --verify": "grade --verify FOLDER",
    "report results": "report FOLDER",
    "gradebook export results": "gradebook export FOLDER --db sqlite:///FOLDER/marks.db",
    "gradebook export --db": "gradebook export FOLDER --db nonsense",
    "gradebook export --course": (
        "gradebook export FOLDER --db sqlite:///FOLDER/marks.db --course FOLDER/README.md"
    ),
}


def parameters() -> list[tuple[str, Any]]:
    """List every option and argument of every command, with the command."""
    top = dict(get_command(app).commands)
    top |= {f"gradebook {name}": one for name, one in top.pop("gradebook").commands.items()}
    return [(name, one) for name, command in top.items() for one in command.params]


def test_the_wrong_values_are_of_options_that_exist() -> None:
    assert set(WRONG) <= {f"{name} {one.opts[0]}" for name, one in parameters()}


def wrong_lines(name: str, one: Any) -> list[str]:
    """Give command lines that are wrong in this one option or argument."""
    option, known = one.opts[0], WRONG.get(f"{name} {one.opts[0]}")
    if getattr(one, "is_flag", False):
        return [f"{name} {option}=x"]
    values = ["nonsense"] if known is None else []
    if getattr(one, "min", None) is not None:
        values.append(str(one.min - 1))
    if getattr(one, "max", None) is not None:
        values += [str(one.max + 1), "inf"]
    if not option.startswith("-"):
        return [known] if known else [f"{name} {value}" for value in values]
    found = [f"{name} {option}", *(f"{name} {option} {value}" for value in values)]
    return [*found, known] if known else found


@pytest.mark.parametrize(
    "line",
    [
        *(line for name, one in parameters() for line in wrong_lines(name, one)),
        *(f"{name} --nonsense" for name in sorted({name for name, _ in parameters()})),
    ],
)
def test_every_option_of_every_command_refuses_what_is_wrong_in_one_sentence(
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from fewshot_lib import cli

    (tmp_path / "README.md").write_text("# A text")
    (tmp_path / "handed" / "anna").mkdir(parents=True)
    shutil.copy(ROOT / "exercises" / "01_dice.ipynb", tmp_path / "handed" / "anna")
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FEWSHOT_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fewshot", *line.replace("FOLDER", str(tmp_path)).split()])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    said = (printed.out + printed.err).strip()
    assert ended.value.code == 2, said
    assert len(said.splitlines()) == 1, said
    assert len(said) > 20, said


def test_resetting_everything_asks_first_and_an_answer_is_needed(
    fewshot: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fewshot_lib.checker import progress

    monkeypatch.setenv("FEWSHOT_PROGRESS", str(tmp_path / "progress.json"))
    progress.attempt("prototypes.class_prototypes", 5, 5)
    asked = fewshot("progress", "--reset", "all")  # nobody answers
    assert asked.returncode == 1
    assert progress.load()
    assert CliRunner().invoke(app, ["progress", "--reset", "all"], input="n\n").exit_code == 1
    assert progress.load()
    done = CliRunner().invoke(app, ["progress", "--reset", "all", "--yes"])
    assert "Reset 1 entry." in done.stdout
    assert progress.load() == {}


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gbk", "cp932", "cp437", "koi8-r"])
@pytest.mark.parametrize("command", ["progress", "--help", "data", "check exercises/none.ipynb"])
def test_no_console_is_too_poor_for_what_a_command_says(
    command: str, encoding: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The consoles of Windows in many countries have no ✓, ● or —."""
    from fewshot_lib import cli
    from fewshot_lib.checker import progress

    monkeypatch.setenv("FEWSHOT_PROGRESS", str(tmp_path / "progress.json"))
    progress.attempt("prototypes.class_prototypes", 5, 5)
    console = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", console)
    monkeypatch.setattr(sys, "stderr", console)
    monkeypatch.setattr(sys, "argv", ["fewshot", *command.split()])
    with pytest.raises(SystemExit):
        cli.main()
    console.flush()
    assert console.buffer.getvalue().decode(encoding).strip()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gbk", "cp932"])
def test_texts_outside_the_command_are_printed_on_any_console_too(
    encoding: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from fewshot_lib.course import check, hint, rubric
    from fewshot_lib.reading import answer, question

    monkeypatch.setenv("FEWSHOT_PROGRESS", str(tmp_path / "progress.json"))
    console = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", console)
    check("prototypes.squared_euclidean", lambda q, p: q)
    rubric("prototypes.temperature", show_model=True)
    hint("prototypes.squared_euclidean")
    question("mixture.false-step")
    answer("mixture.false-step", "A")
    console.flush()
    assert console.buffer.getvalue().decode(encoding).strip()


def test_what_a_console_lacks_is_replaced_by_what_it_has() -> None:
    assert "✓ 2 × 3 ≤ c".encode("ascii", _console.HANDLER) == b"ok 2 x 3 <= c"
    assert "✓é".encode("cp1252", _console.HANDLER) == "oké".encode("cp1252")
    assert all(len(key) == 1 and value.isascii() for key, value in _console.SUBSTITUTES.items())


def test_a_cache_with_strangers_files_is_not_cleared(fewshot: Run, tmp_path: Path) -> None:
    stranger = tmp_path / "cache" / "thesis.txt"
    stranger.parent.mkdir()
    stranger.write_text("years of work")
    assert fewshot("data", "clear", "--yes").returncode == 3
    assert stranger.is_file()


def test_doctor_reports_versions_sandbox_data_and_kernel_without_the_home_folder(
    fewshot: Run,
) -> None:
    done = fewshot("doctor")
    for topic in ("python", "torch", "jupyterlab", "kernel", "cache", "scans", "sandbox"):
        assert re.search(rf"^  (ok|MISSING|absent)\s+{topic} ", done.stdout, re.MULTILINE), topic
    assert f"{Path.home()}/" not in done.stdout
    assert "scans    " in done.stdout
    assert "synthetic anatomy instead" in done.stdout  # the private cache is empty
    assert done.stdout.endswith("\nall checks passed\n")
    assert done.returncode == 0


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """Pretend that some packages are not installed."""
    from fewshot_lib.tools import doctor

    real = doctor.metadata.version

    def version(name: str) -> str:
        if name in missing:
            raise doctor.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)


def test_doctor_passes_where_only_teachers_and_authors_miss_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fewshot_lib.tools import doctor

    without(monkeypatch, *doctor.PACKAGES[doctor.TEACHERS], *doctor.PACKAGES[doctor.AUTHORS])
    monkeypatch.setattr(doctor, "find_chromium", lambda: None)
    monkeypatch.setattr(doctor, "find_postgresql", lambda: None)
    monkeypatch.setattr(doctor, "bubblewrap_problem", lambda: "bubblewrap is not installed")
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 0, shown.output
    assert "MISSING" not in shown.output
    for topic in ("nbgrader", "sandbox", "chromium", "postgresql", "pytest", "sphinx"):
        assert re.search(rf"^  absent  {topic} .*->", shown.output, re.MULTILINE), topic


def test_doctor_fails_for_each_package_that_a_reader_misses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fewshot_lib.tools import doctor

    without(monkeypatch, *doctor.PACKAGES[doctor.READERS])
    missing = doctor.missing_for_readers(list(doctor.versions()))
    assert {finding.topic for finding in missing} == set(doctor.PACKAGES[doctor.READERS])
    assert "all checks passed" not in doctor.verdict(missing)
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 1


def test_what_doctor_looks_for_is_what_the_extras_install() -> None:
    from fewshot_lib.tools import doctor, setup

    extras = {
        doctor.READERS: setup.READERS,
        doctor.TEACHERS: ("classroom",),
        doctor.AUTHORS: ("test", "book"),
    }
    for who, names in doctor.PACKAGES.items():
        assert set(names) <= set(setup.direct_dependencies(ROOT, extras[who])), who


def test_doctor_says_everything_even_when_one_part_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    from fewshot_lib.tools import doctor

    def broken() -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(doctor, "data", broken)
    found = doctor.examine()
    assert any("the disk is gone" in f.text and f.missing for f in found)
    assert any(f.topic == "torch computes" for f in found)


def test_doctor_for_programs_is_json() -> None:
    rows = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert {"topic", "text", "missing", "who"} == set(rows[0])


@pytest.mark.parametrize(
    "command",
    [
        "data",
        "data fetch --archive FOLDER/none.tar.gz",
        "data --yes",
        "check FOLDER",
        "check FOLDER/nope.ipynb",
        "reset nonsense",
        "progress --reset nonsense",
        "progress --yes",
        "lab --language tlh",
        "lab --port many",
        "lab --port 5",
        "lab --port 99999",
        "lab --prt 5",
        "data nothing",
        "check",
        "check a b",
        "chek",
        "progress --reset",
        "data --yes=1",
        "segment --support FOLDER/a.nii --mask FOLDER/b.nii --query FOLDER/c.nii --out d.nii",
        "segment --support FOLDER --mask FOLDER --query FOLDER --out FOLDER/d.nii",
        "segment --support FOLDER/x.nii --mask FOLDER --query FOLDER/x.nii --out FOLDER/d.nii",
        "segment --support FOLDER --mask FOLDER --query FOLDER --out FOLDER/d.jpg",
    ],
)
def test_a_learner_is_told_in_the_language_of_the_reader(
    tmp_path: Path,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from fewshot_lib import cli

    (tmp_path / "x.nii").write_text("no scan")
    for name, value in (("CACHE", "cache"), ("PROGRESS", "progress.json")):
        monkeypatch.setenv(f"FEWSHOT_{name}", str(tmp_path / value))
    typed = command.replace("FOLDER", str(tmp_path)).split()
    monkeypatch.setattr(sys, "argv", ["fewshot", *typed])
    with language.speaking("zh_CN"), contextlib.suppress(SystemExit):
        cli.main()
    told = "".join(capsys.readouterr())
    assert re.search(r"[\u4e00-\u9fff]", told), told
    assert left_in_english(told.replace(str(tmp_path), "FOLDER")) == []


def test_the_doctor_speaks_the_language_of_the_reader() -> None:
    from fewshot_lib.tools import doctor

    found = [*doctor.versions(), *doctor.computing(), *doctor.data(), *doctor.course()]
    absent = doctor.Finding("kernel", "no Jupyter", "repeat the set-up")
    with language.speaking("zh_CN"):
        told = doctor.report([*found, absent]), doctor.verdict(found), doctor.verdict([absent])
    assert left_in_english("\n".join(told)) == []
    assert told[2] == "MISSING kernel: 没有 Jupyter -> 请重新安装"


def test_lab_without_the_course_around_it_ends_with_status_3(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fewshot_lib.tools import machine

    monkeypatch.setattr(machine, "course_folder", lambda: None)
    assert CliRunner().invoke(app, ["lab"]).exit_code == 3


def ask(address: str) -> str:
    """Ask an address past any proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=20) as reply:
        assert reply.status == 200
        return reply.read().decode()


@pytest.mark.skipif(os.name == "nt", reason="signals differ on Windows")
def test_lab_serves_the_first_notebook_to_who_has_the_token_and_ends_when_told(
    tmp_path: Path,
) -> None:
    """With its first port taken, no screen, and as whoever runs the tests (root in CI)."""
    for name in ("notebooks", "fewshot_lib"):
        (tmp_path / name).mkdir()
    notebook = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "notebooks" / "00_start.ipynb").write_text(json.dumps(notebook))
    first = "work/notebooks/00_start.ipynb"  # the reader's copy
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        lab = subprocess.Popen(
            [sys.executable, "-c", "from fewshot_lib.cli import main; main()",
             "lab", "--no-browser", "--port", str(port)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        try:
            said = ""
            assert lab.stdout is not None
            while "Ctrl-C" not in said:
                line = lab.stdout.readline()
                assert line, f"it ended: {said}"
                said += line
            assert f"Port {port} is taken" in said
            found = re.search(rf"(http://\S+?)/lab/tree/{first}\?token=(\w+)", said)
            assert found
            server, token = found.groups()
            assert "JupyterLab" in ask(f"{server}/lab/tree/{first}?token={token}")
            listing = json.loads(ask(f"{server}/api/contents/work/notebooks?token={token}"))
            assert [entry["name"] for entry in listing["content"]] == ["00_start.ipynb"]
            with pytest.raises(OSError, match="403"):
                ask(f"{server}/api/contents/notebooks")
        finally:
            lab.send_signal(signal.SIGTERM)
            lab.wait(timeout=30)
    time.sleep(0.2)
    with pytest.raises(OSError, match="refused"):
        ask(f"{server}/api/status?token={token}")
