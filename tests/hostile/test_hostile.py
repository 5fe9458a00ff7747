"""Grade hostile submissions among honest ones: none gains, learns or disturbs anything.

``submissions/`` holds one attack a file; its docstring says what it tries. The code stands in the
first answer cell of the exercise, the other answer cells are empty. Attacks on the file format are
made below. All are graded in one run, with honest neighbours between them.

They end in ``.txt`` so that nothing ever imports one by accident: no test collector, no linter, no
import of a whole package.
"""

from __future__ import annotations

import ast
import json
import os
import zipfile
from pathlib import Path

import pytest

from fewshot_lib.classroom import results
from fewshot_lib.classroom.grade import grade, write_reports
from fewshot_lib.classroom.labels import safe_file_name
from fewshot_lib.classroom.machine import course_folder
from fewshot_lib.classroom.sandbox import SandboxLimits

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(600)]

COURSE = course_folder(Path(__file__))
assert COURSE is not None
NAME = "03_prototypes"
FILES = sorted((Path(__file__).parent / "submissions").glob("*.txt"))
SOLUTION = (COURSE / "solutions" / f"{NAME}.ipynb").read_text(encoding="utf-8")
STUB = (COURSE / "exercises" / f"{NAME}.ipynb").read_text(encoding="utf-8")
LIMITS = SandboxLimits(wall_seconds=4, answer_seconds=1.5, memory_mb=400, disk_mb=32)
CANARY = "canary-7f3a51c0de"
ALARMS = (
    "CANARY-ATTACHED CANARY-WRITTEN CANARY-CONNECTED CANARY-ESCAPED CANARY-SHADOW "
    "CANARY-REWRITTEN CANARY-UNLIMITED CANARY-NICE CANARY-SHARED"
)

HONEST_WRONG = """import torch
def class_prototypes(embeddings, labels, n_way):
    return torch.zeros(*embeddings.shape[:-2], n_way, embeddings.shape[-1])
def squared_euclidean(queries, prototypes):
    return torch.zeros(*queries.shape[:-1], prototypes.shape[-2])
def log_posterior(queries, prototypes, scale=1.0):
    return torch.zeros(*queries.shape[:-1], prototypes.shape[-2])
"""


def with_code(code: str) -> str:
    notebook = json.loads(STUB)
    for cell in notebook["cells"]:
        grading = cell["metadata"].get("nbgrader", {})
        if grading.get("solution") and cell["cell_type"] == "code":
            cell["source"], code = code, ""
    return json.dumps(notebook)


def damaged() -> dict[str, bytes]:
    """Make the attacks on the file itself, by name."""
    notebook = json.loads(SOLUTION)
    doubled = json.loads(with_code(HONEST_WRONG))
    doubled["cells"] = doubled["cells"] * 3
    odd = json.loads(STUB)
    odd["cells"] += [None, 7, {"cell_type": "code"}, {"cell_type": "code", "source": {"a": 1}}]
    odd["cells"] += [{"cell_type": ["code"], "source": "x"}, {"source": [1, 2], "metadata": []}]
    tags = json.loads(with_code(HONEST_WRONG))
    for cell in tags["cells"]:
        cell["metadata"]["tags"] = ["nbval-skip", "nbval-ignore-output", "raises-exception"]
        if cell["cell_type"] == "code":
            cell["source"] = "# NBVAL_SKIP\n" + "".join(cell["source"])
    points = json.loads(with_code(HONEST_WRONG))
    for cell in points["cells"]:
        if "nbgrader" in cell["metadata"]:
            cell["metadata"]["nbgrader"].update(points=1000, locked=False, schema_version=99)
        if cell["cell_type"] == "code":
            cell["outputs"] = [{"output_type": "execute_result", "data": {"text/plain": "1000"}}]
    checks = json.loads(with_code(HONEST_WRONG))
    for cell in checks["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade") and cell["cell_type"] == "code":
            cell["source"] = "1000"
    return {
        "cut off": SOLUTION.encode()[: len(SOLUTION) // 2],
        "no JSON": b"\x00\xff\xfe PK\x03\x04 not a notebook",
        "empty": b"",
        "version 3": json.dumps({"nbformat": 3, "worksheets": [notebook]}).encode(),
        "a list": b"[1, 2, 3]",
        "deep": b'{"nbformat": 4, "cells": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        "huge number": b'{"nbformat": 4, "cells": [], "x": ' + b"9" * 100_000 + b"}",
        "200 MB": b" " * (200 * 2**20) + STUB.encode(),
        "many cells": json.dumps({"nbformat": 4, "cells": [{"cell_type": "code"}] * 5000}).encode(),
        "every cell three times": json.dumps(doubled).encode(),
        "cells that are none": json.dumps(odd).encode(),
        "told to skip": json.dumps(tags).encode(),
        "points rewritten": json.dumps(points).encode(),
        "checks rewritten": json.dumps(checks).encode(),
        "lone surrogates": with_code("x = '\\ud800'\nprint(x)")
        .replace("x =", "\\ud800 =")
        .encode(),
    }


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    submissions = folder / "submissions"
    (folder / "canary.txt").write_text(CANARY, encoding="utf-8")
    home = Path.home() / ".fewshot-canary"
    home.write_text(CANARY, encoding="utf-8")
    os.environ["FEWSHOT_CANARY"] = CANARY

    def put(student: str, data: bytes) -> None:
        (submissions / student).mkdir(parents=True)
        (submissions / student / f"{NAME}.ipynb").write_bytes(data)

    attacks = {path.stem: with_code(path.read_text(encoding="utf-8")).encode() for path in FILES}
    attacks |= damaged()
    attacks |= {"ünïcödé 名前": with_code("x = 1").encode(), "-rf": with_code("x = 2").encode()}
    for number, (name, data) in enumerate(attacks.items()):
        put(f"{number:03d} {name}", data)
        if number % 10 == 0:
            marked = SOLUTION.replace("Six embeddings", f"{CANARY} Six embeddings")
            put(f"{number:03d}~ neighbour", marked.encode())
    put("honest wrong", with_code(HONEST_WRONG).encode())
    put("zzz neighbour", SOLUTION.encode())
    (submissions / "link").mkdir()
    (submissions / "link" / f"{NAME}.ipynb").symlink_to(folder / "canary.txt")
    (submissions / "pipe").mkdir()
    os.mkfifo(submissions / "pipe" / f"{NAME}.ipynb")
    try:
        summary = grade(submissions, folder / "results", COURSE, seed=3, workers=2, limits=LIMITS)
        write_reports(folder / "results", COURSE)
    finally:
        home.unlink()
        del os.environ["FEWSHOT_CANARY"]
    rows = results.current(results.read_rows(folder / "results" / "results.jsonl"))
    found = {row["student"]: row for row in rows}
    names = {name: found[f"{number:03d} {name}"] for number, name in enumerate(attacks)}
    return folder, summary, found, names


def test_there_are_enough_attacks_each_with_its_intention():
    assert len(FILES) + len(damaged()) >= 50
    for path in FILES:
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert said, f"{path.name} does not say what it tries"


def test_every_submission_has_its_row(graded):
    folder, summary, found, _ = graded
    there = [path for path in (folder / "submissions").iterdir() if path.is_dir()]
    assert summary.graded == len(found) == len(there)


@pytest.mark.parametrize("name", [*(path.stem for path in FILES), *damaged()])
def test_no_attack_scores_above_an_honest_wrong_answer(graded, name):
    _, _, found, names = graded
    honest = found["honest wrong"]["points"]
    assert honest < 0.5 * found["honest wrong"]["max_points"]
    assert names[name]["points"] <= honest, names[name]["notes"]


def test_neighbours_are_not_disturbed(graded):
    neighbours = [row for student, row in graded[2].items() if "neighbour" in student]
    assert len(neighbours) >= 7
    for row in neighbours:
        assert (row["status"], row["points"]) == ("graded", row["max_points"]), row


def test_no_canary_is_read(graded):
    folder, _, found, _ = graded
    written = json.dumps(list(found.values()))
    for path in (folder / "results").rglob("*"):
        if path.is_file() and path.name != "run.json":
            written += path.read_text(encoding="utf-8")
    assert CANARY not in written
    for alarm in ALARMS.split():
        assert alarm not in written, alarm


def test_no_script_reaches_a_page(graded):
    folder, _, _, _ = graded
    pages = list((folder / "results").rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        text = page.read_text(encoding="utf-8").lower()
        assert "<script" not in text, page
        assert "<img" not in text, page
        assert "default-src 'none'" in text
    page = (
        folder / "results" / "feedback" / safe_file_name(_student(graded, "script_in_the_output"))
    )
    assert "&lt;script&gt;" in (page / f"{NAME}.html").read_text(encoding="utf-8")


def _student(graded, name: str) -> str:
    return graded[3][name]["student"]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("exits", "graded"),
        ("segfault", "died"),
        ("exec_another_program", "died"),
        ("never_ends", "time"),
        ("sleeps", "time"),
        ("cut off", "not read"),
        ("200 MB", "not read"),
        ("version 3", "not read"),
        ("deep", "not read"),
    ],
)
def test_the_row_says_how_it_ended(graded, name, status):
    assert graded[3][name]["status"] == status, graded[3][name]


@pytest.mark.parametrize("student", ["link", "pipe"])
def test_what_is_no_ordinary_file_is_not_read(graded, student):
    row = graded[2][student]
    assert row["status"] == "not read"
    assert CANARY not in json.dumps(row)


def test_nothing_of_a_submission_is_left_running(graded):
    left = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if b"/grader/worker.py" in command:
                left.append(command)
    assert left == []


def test_a_zip_that_leads_outside_writes_nothing(tmp_path):
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(f"../../evil/{NAME}.ipynb", STUB)
        file.writestr(f"/etc/evil/{NAME}.ipynb", STUB)
        file.writestr(f"Anna Arn_123_assignsubmission_file_/{NAME}.ipynb", SOLUTION)
        link = zipfile.ZipInfo(f"linked/{NAME}.ipynb")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    before = {path for path in tmp_path.parent.rglob("*") if path.name == "evil"}
    grade(archive, tmp_path / "results", COURSE, limits=LIMITS)
    rows = results.current(results.read_rows(tmp_path / "results" / "results.jsonl"))
    marks = {row["student"]: (row["status"], row["points"]) for row in rows}
    assert marks["Anna Arn_123"] == ("graded", 16)
    assert marks["linked"][0] == "not read"
    assert set(marks) == {"Anna Arn_123", "linked"}
    assert {path for path in tmp_path.parent.rglob("*") if path.name == "evil"} == before
