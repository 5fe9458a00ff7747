"""The house is in order: its top level, its files' sizes, its commands, and what they promise."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from fewshot_lib.tools import install_cell, setup

ROOT = Path(__file__).resolve().parents[1]
TOP_LEVEL = {
    "README.md", "README.zh.md", "environment.yml", "pyproject.toml", "constraints.txt", "Makefile",
    "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", ".gitignore", ".ci", ".binder",
    "Dockerfile", "notebooks", "exercises", "solutions", "fewshot_lib", "tests",
}  # fmt: skip


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """List the files that git keeps, or would keep; all but the known ignored ones without git."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()}
        files = [path for path in ROOT.rglob("*") if path.is_file()]
        return [
            path
            for path in files
            if not any(path.match(pattern) for pattern in ignored)
            and not any(parent.match(pattern) for parent in path.parents for pattern in ignored)
        ]
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_top_level_is_the_agreed_one(tracked: list[Path]) -> None:
    found = {path.relative_to(ROOT).parts[0] for path in tracked}
    assert found - TOP_LEVEL == set(), "not part of the layout"
    assert TOP_LEVEL - found == set(), "missing from the layout"


def test_no_file_is_over_a_megabyte(tracked: list[Path]) -> None:
    assert [path.name for path in tracked if path.stat().st_size > 1_000_000] == []


def test_no_tracked_text_names_a_folder_of_one_machine(tracked: list[Path]) -> None:
    """Paths below a home folder or a work folder mean that somebody's machine leaked in."""
    leak = re.compile(r"(?<![\w.])/(home|Users|root|work|workspace)/\w+|[A-Z]:\\\\?Users\\")
    found = {}
    for path in tracked:
        if path == Path(__file__) or path.suffix in {".png", ".npz", ".gz"}:
            continue
        match = leak.search(path.read_text(encoding="utf-8", errors="ignore"))
        if match:
            found[str(path.relative_to(ROOT))] = match.group(0)
    assert found == {}


def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert targets is not None
    help_text = re.findall(r'@echo "make ([\w-]+)', makefile)
    assert set(help_text) == set(targets[1].split()) - {"help"}


def test_the_readme_shows_a_picture_on_its_first_screen() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"!\[[^\]]{20,}\]\([^)]+\)", "\n".join(text.splitlines()[:15]))


def test_every_command_that_the_readme_shows_exists() -> None:
    """``make X`` is a target, ``fewshot X`` a command, ``.[a,b]`` extras that exist."""
    from typer.main import get_command

    from fewshot_lib.cli import app

    commands = set(get_command(app).commands)
    makefile = (ROOT / "Makefile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        shown = "\n".join(re.findall(r"`+([^`]+)`+", text))
        for target in re.findall(r"\bmake ([a-z]+)\b", shown):
            assert f"\n{target}:" in makefile, f"{name}: make {target}"
        for command in re.findall(r"\bfewshot ([a-z]+)\b", shown):
            assert command in commands, f"{name}: fewshot {command}"
        for extras in re.findall(r"\.\[([a-z,]+)\]", shown):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), extras


@pytest.mark.parametrize(
    ("file", "spoken", "heading"),
    [
        ("README.md", "en", "## What a check says"),
        ("README.zh.md", "zh_CN", "## 检查会告诉你什么"),
    ],
)
def test_the_readme_shows_what_a_check_really_says(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    spoken: str,
    heading: str,
) -> None:
    """Twice, since cases are drawn: what is printed must not depend on luck."""
    import torch

    from fewshot_lib.checker.language import speaking
    from fewshot_lib.course import check

    section = (ROOT / file).read_text(encoding="utf-8").split(heading)[1]
    code, reply = re.findall(r"```(?:python|text)\n(.*?)```", section, re.S)[:2]
    for run in range(2):
        monkeypatch.setenv("FEWSHOT_PROGRESS", str(tmp_path / f"{run}.json"))
        with speaking(spoken):
            exec(code, {"torch": torch, "check": check})
        assert capsys.readouterr().out == reply


def test_what_is_cited_is_this_version_of_this_course() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = setup.project(ROOT)
    assert {"cff-version", "message", "title", "authors"} <= set(cited), "the format requires them"
    assert cited["version"] == project["version"]
    assert cited.get("repository-code") == install_cell.repository(ROOT)
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert licence.startswith(f"{cited['license']} License")
    assert all(author["name"] in licence for author in cited["authors"])
    assert (ROOT / "README.md").read_text(encoding="utf-8").startswith(f"# {cited['title']}\n")


def test_the_dockerfile_takes_what_is_there_and_installs_it_as_the_readme_says() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = [line.split()[2:-1] for line in text.splitlines() if line.startswith("COPY")]
    assert [name for names in copied for name in names if not (ROOT / name).exists()] == []
    python = re.search(r"^FROM python:3\.(\d+)-", text, re.M)
    assert python
    assert setup.OLDEST <= (3, int(python[1])) <= setup.NEWEST
    assert '-c constraints.txt -e ".[lab]"' in text
    opened = re.search(r"default_url=/lab/tree/([^\"]+)", text)
    assert opened
    assert (ROOT / opened[1]).exists()
