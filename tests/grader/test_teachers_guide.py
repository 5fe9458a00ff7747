"""The teacher's guide: its commands run, and its threat table names every attack that is tried."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from handed_in import COURSE, rows_of

GUIDE = (COURSE / "notebooks" / "instructor-guide.md").read_text(encoding="utf-8")


@pytest.mark.hostile
def test_the_lines_from_release_to_marks_run_as_they_stand(tmp_path: Path) -> None:
    """Every solution has full marks and every stub none, by the commands that teachers type."""
    section = GUIDE.split("## From release to marks")[1].split("\n## ")[0]
    lines = re.search(r"```bash\n(.*?)```", section, re.S)
    assert lines is not None
    shutil.copytree(COURSE / "exercises", tmp_path / "exercises")
    for student, source in {"ada": "solutions", "bob": "exercises"}.items():
        (tmp_path / "submitted" / student).mkdir(parents=True)
        for notebook in (COURSE / source).glob("*.ipynb"):
            shutil.copyfile(notebook, tmp_path / "submitted" / student / notebook.name)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines[1]],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = rows_of(tmp_path / "marks")
    exercises = len(list((COURSE / "exercises").glob("*.ipynb")))
    ada, bob = ([row for row in rows if row["student"] == name] for name in ("ada", "bob"))
    assert len(ada) == len(bob) == exercises
    assert {row["status"] for row in rows} == {"graded"}
    assert all(row["points"] == row["max_points"] > 0 for row in ada)
    assert all(row["points"] == 0 for row in bob)
    for made in ("marks/report.html", "marks/grades.csv", "gradebook.db"):
        assert (tmp_path / made).is_file(), made
    assert len(list((tmp_path / "release").iterdir())) == exercises
    score = json.loads((tmp_path / "marks/gradescope/ada/results.json").read_text("utf-8"))
    assert score["score"] == sum(row["points"] for row in ada)


def test_the_threat_table_names_every_attack_and_no_other() -> None:
    section = (COURSE / "notebooks" / "what-the-grader-stops.md").read_text(encoding="utf-8")
    shown = [row.split("|")[3] for row in re.findall(r"^\|.*\|$", section, re.M)[2:]]
    named = [name for cell in shown for name in re.findall(r"`([^`]+)`", cell)]
    files = {name for name in named if name.endswith(".py")}
    assert all(list((COURSE / "tests").rglob(Path(name).name)) for name in files)
    attacks = sorted(set(named) - files)
    there = sorted(path.stem for path in (COURSE / "tests/hostile/submissions").glob("*.txt"))
    assert attacks == there
    assert len(set(named)) == len(named), "an attack is named twice"
