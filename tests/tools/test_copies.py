"""The reader's copies: never in the way of git, never lost, fresh when asked for."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest

from fewshot_lib.tools import copies, lab

NAME = "exercises/03_prototypes.ipynb"


@pytest.fixture
def course(tmp_path: Path, root: Path) -> Path:
    """Make a small course under git, as a reader clones it."""
    folder = tmp_path / "course"
    for name in (NAME, "exercises/01_dice.ipynb"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, folder / name)
    lesson = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    for part in ("notebooks/03_prototypes.ipynb", "notebooks/01_labels.ipynb"):
        (folder / part).parent.mkdir(exist_ok=True)
        nbformat.write(lesson, folder / part)
    (folder / "notebooks" / "cover.png").write_bytes(b"picture")
    shutil.copyfile(root / ".gitignore", folder / ".gitignore")
    git(folder, "init", "-q")
    commit(folder)
    return folder


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def commit(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a version")


def write_an_answer(copy: Path) -> None:
    """Edit a copy as a reader does: another source, other outputs, other metadata."""
    notebook = nbformat.read(copy, as_version=4)
    notebook.cells[-1].source += "\n# mine"
    notebook.metadata["language_info"]["version"] = "3.99"
    nbformat.write(notebook, copy)


def new_version(course: Path, name: str = NAME) -> None:
    notebook = nbformat.read(course / name, as_version=4)
    notebook.cells[0].source += "\nA new sentence."
    nbformat.write(notebook, course / name)
    commit(course)


def test_all_notebooks_are_copied_once_and_git_does_not_see_it(course: Path) -> None:
    done = copies.update(course)
    assert sorted(done.made) == sorted(copies.originals(course))
    assert "work/" in str(done)
    assert (course / "work" / "notebooks" / "cover.png").read_bytes() == b"picture"
    write_an_answer(course / "work" / NAME)
    assert git(course, "status", "--porcelain") == ""
    assert str(copies.update(course)) == ""


def test_pulling_never_conflicts_with_what_a_reader_did(course: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    git(tmp_path, "clone", "-q", str(course), str(mine))
    copies.update(mine)
    write_an_answer(mine / "work" / NAME)
    before = (mine / "work" / NAME).read_bytes()
    new_version(course)
    new_version(course, "exercises/01_dice.ipynb")
    git(mine, "pull", "-q")
    done = copies.update(mine)
    assert done.newer == [NAME]
    assert (mine / "work" / NAME).read_bytes() == before
    assert done.refreshed == ["exercises/01_dice.ipynb"]
    assert "A new sentence." in (mine / "work" / "exercises" / "01_dice.ipynb").read_text()
    assert "fewshot reset 03_prototypes" in str(done)


@pytest.mark.parametrize(
    "name", ["03_prototypes", "prototypes", "3", "03", NAME, f"work/{NAME}", f"./{NAME}"]
)
def test_a_reset_gives_a_fresh_stub_and_keeps_the_old_one_beside_it(
    course: Path, name: str
) -> None:
    copies.update(course)
    copy = course / "work" / NAME
    fresh = copy.read_bytes()
    write_an_answer(copy)
    mine = copy.read_bytes()
    for count in (1, 2):  # also twice in one second
        made, kept = copies.reset(course, name)
        assert (made, made.read_bytes()) == (copy, fresh)
        assert kept is not None
        assert kept.parent == copy.parent
        assert kept.read_bytes() == mine
        assert len(list(copy.parent.glob("03_prototypes.mine-*.ipynb"))) == count
        copy.write_bytes(mine)


def test_a_lesson_is_reset_by_its_path_or_where_no_exercise_is_called_so(course: Path) -> None:
    copies.update(course)
    assert copies.find(course, "notebooks/03_prototypes.ipynb").startswith("notebooks/")
    assert copies.find(course, "01_labels") == "notebooks/01_labels.ipynb"


def test_what_is_fresh_already_is_not_kept_twice(course: Path) -> None:
    copies.update(course)
    assert copies.reset(course, "prototypes")[1] is None
    assert not list((course / "work" / "exercises").glob("*mine*"))


@pytest.mark.parametrize("name", ["nonsense", "", "p", "../../etc/passwd", "work", "exercises"])
def test_a_reset_of_what_does_not_exist_changes_nothing(course: Path, name: str) -> None:
    copies.update(course)
    with pytest.raises(copies.NoSuchNotebook, match=r"01_dice, 03_prototypes|did you mean"):
        copies.reset(course, name)


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "[]",
        "{",
        '{"exercises/03_prototypes.ipynb": {}}',
        '{"exercises/03_prototypes.ipynb": 7}',
    ],
)
def test_without_a_readable_record_every_copy_counts_as_the_readers(
    course: Path, damage: str
) -> None:
    copies.update(course)
    write_an_answer(course / "work" / NAME)
    before = (course / "work" / NAME).read_bytes()
    (course / "work" / copies.RECORD).write_text(damage)
    assert NAME in copies.update(course).newer
    assert (course / "work" / NAME).read_bytes() == before


def test_a_copy_says_of_its_language_what_the_kernel_says(course: Path) -> None:
    """Else JupyterLab would change it on opening, and ask to save what nobody edited."""
    copies.update(course)
    metadata = json.loads((course / "work" / NAME).read_text(encoding="utf-8"))["metadata"]
    assert metadata["language_info"] == copies.language_info()
    assert {"version", "codemirror_mode", "pygments_lexer"} <= set(metadata["language_info"])
    assert metadata["kernelspec"]["display_name"] == "Python 3 (ipykernel)"


def test_in_another_language_its_notebooks_are_copied_and_its_first_one_opened(
    course: Path, root: Path
) -> None:
    for part, stem in (("notebooks", "00_start_here"), ("exercises", "01_dice")):
        (course / part / "zh").mkdir()
        shutil.copyfile(root / f"{part}/{stem}.ipynb", course / f"{part}/zh/{stem}.ipynb")
    assert lab.first_notebook(course, "zh_CN") is None  # no copy yet
    done = copies.update(course, "zh_CN")
    assert sorted(done.made) == ["exercises/zh/01_dice.ipynb", "notebooks/zh/00_start_here.ipynb"]
    assert lab.first_notebook(course, "zh_CN") == "work/notebooks/zh/00_start_here.ipynb"
