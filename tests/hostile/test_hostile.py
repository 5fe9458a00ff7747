"""Grade hostile submissions among honest ones: none gains, learns or disturbs anything.

``submissions/`` holds one attack a file; its docstring says what it tries. The code stands in the
first answer cell of the exercise, the other answer cells are empty. Attacks on the file format are
made below. All are graded in one run, with honest neighbours between them.

They end in ``.txt`` so that nothing ever imports one by accident: no test collector, no linter, no
import of a whole package.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import json
import os
import re
import time
import zipfile
from pathlib import Path

import psutil
import pytest
from handed_in import COURSE, NAME, SOLUTION, STUB, dump, rows_of, with_code
from place import Place, memory_mb

from fewshot_lib.checker.notebook import grading, source_of
from fewshot_lib.grader.grade import grade
from fewshot_lib.grader.labels import safe_file_name
from fewshot_lib.grader.sandbox import SandboxLimits

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(600)]

HERE = Path(__file__).parent / "submissions"
FILES = sorted(HERE.glob("*.txt"))
RIGHT = dump(SOLUTION)
LIMITS = SandboxLimits(wall_seconds=4, answer_seconds=1.5, memory_mb=400, disk_mb=32)
SLACK_MB = 80  # what fourteen processes take between two looks of the watcher
ALARMS = (
    "CANARY-ATTACHED CANARY-WRITTEN CANARY-CONNECTED CANARY-ESCAPED CANARY-SHADOW "
    "CANARY-REWRITTEN CANARY-UNLIMITED CANARY-NICE CANARY-SHARED CANARY-WATCHED CANARY-UNCOUNTED "
    "CANARY-INSIDE"
)

HONEST_WRONG = """import torch
def class_prototypes(embeddings, labels, n_way):
    return torch.zeros(*embeddings.shape[:-2], n_way, embeddings.shape[-1])
def squared_euclidean(queries, prototypes):
    return torch.zeros(*queries.shape[:-1], prototypes.shape[-2])
def log_posterior(queries, prototypes, scale=1.0):
    return torch.zeros(*queries.shape[:-1], prototypes.shape[-2])
"""


def attack(name: str) -> bytes:
    """Make the notebook of an attack in ``submissions/``."""
    return dump(with_code((HERE / f"{name}.txt").read_text(encoding="utf-8")))


def damaged() -> dict[str, bytes]:
    """Make the attacks on the file itself, by name."""
    doubled = with_code(HONEST_WRONG)
    doubled["cells"] = doubled["cells"] * 3
    odd = copy.deepcopy(STUB)
    odd["cells"] += [None, 7, {"cell_type": "code"}, {"cell_type": "code", "source": {"a": 1}}]
    odd["cells"] += [{"cell_type": ["code"], "source": "x"}, {"source": [1, 2], "metadata": []}]
    tags = with_code(HONEST_WRONG)
    for cell in tags["cells"]:
        cell["metadata"]["tags"] = ["nbval-skip", "nbval-ignore-output", "raises-exception"]
        if cell["cell_type"] == "code":
            cell["source"] = "# NBVAL_SKIP\n" + source_of(cell)
    points = with_code(HONEST_WRONG)
    for cell in points["cells"]:
        if "nbgrader" in cell["metadata"]:
            cell["metadata"]["nbgrader"].update(points=1000, locked=False, schema_version=99)
        if cell["cell_type"] == "code":
            cell["outputs"] = [{"output_type": "execute_result", "data": {"text/plain": "1000"}}]
    checks = with_code(HONEST_WRONG)
    for cell in checks["cells"]:
        if grading(cell).get("grade") and cell["cell_type"] == "code":
            cell["source"] = "1000"
    return {
        "cut off": RIGHT[: len(RIGHT) // 2],
        "no JSON": b"\x00\xff\xfe PK\x03\x04 not a notebook",
        "empty": b"",
        "version 3": dump({"nbformat": 3, "worksheets": [SOLUTION]}),
        "a list": b"[1, 2, 3]",
        "deep": b'{"nbformat": 4, "cells": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        "huge number": b'{"nbformat": 4, "cells": [], "x": ' + b"9" * 100_000 + b"}",
        "200 MB": b" " * (200 * 2**20) + dump(STUB),
        "many cells": dump({"nbformat": 4, "cells": [{"cell_type": "code"}] * 5000}),
        "every cell three times": dump(doubled),
        "cells that are none": dump(odd),
        "told to skip": dump(tags),
        "points rewritten": dump(points),
        "checks rewritten": dump(checks),
        "lone surrogates": dump(with_code("x = '\\ud800'\nprint(x)")).replace(b"x =", b"\\ud800 ="),
        "6 MB of code": dump(with_code("x = [" + "1," * 3_000_000 + "]")),
        "a million statements": dump(with_code("a;" * 1_000_000)),
        "600 kB in one expression": dump(with_code("x = " + "1+" * 300_000 + "1")),
        "brackets in brackets": dump(with_code("x = " + "(" * 90_000 + ")" * 90_000)),
        "blocks in blocks": dump(
            with_code("".join(" " * depth + "if 1:\n" for depth in range(600)))
        ),
        "half a character in a name": dump(with_code("x = 1")).replace(
            b'"grade_id": "class_prototypes"', b'"grade_id": "\\udcff"'
        ),
    }


NOT_UTF8 = b"m\xfcller"


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    with Place(tmp_path_factory.mktemp("hostile")) as place:
        attacks = {path.stem: attack(path.stem) for path in FILES}
        attacks |= damaged()
        attacks |= {"ünïcödé 名前": dump(with_code("x = 1")), "-rf": dump(with_code("x = 2"))}
        for number, (name, data) in enumerate(attacks.items()):
            place.put(f"{number:03d} {name}", data, NAME)
            if number % 10 == 0:
                marked = RIGHT.replace(b"Six embeddings", f"{place.canary} Six embeddings".encode())
                place.put(f"{number:03d}~ neighbour", marked, NAME)
        place.put("honest wrong", dump(with_code(HONEST_WRONG)), NAME)
        place.put("zzz neighbour", RIGHT, NAME)
        place.put(NOT_UTF8, RIGHT, NAME)
        (place.submissions / "link").mkdir()
        (place.submissions / "link" / f"{NAME}.ipynb").symlink_to(place.folder / "canary.txt")
        (place.submissions / "pipe").mkdir()
        os.mkfifo(place.submissions / "pipe" / f"{NAME}.ipynb")
        place.start(LIMITS)
        found = place.finish()
        names = {name: found[f"{number:03d} {name}"] for number, name in enumerate(attacks)}
        yield place, found, names


def test_there_are_enough_attacks_each_with_its_intention():
    assert len(FILES) + len(damaged()) >= 50
    for path in FILES:
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert said, f"{path.name} does not say what it tries"


def test_every_submission_has_its_row(graded):
    place, found, _ = graded
    there = [path for path in place.submissions.iterdir() if path.is_dir()]
    assert len(found) == len(there)


@pytest.mark.parametrize("name", [*(path.stem for path in FILES), *damaged()])
def test_no_attack_scores_above_an_honest_wrong_answer(graded, name):
    _, found, names = graded
    honest = found["honest wrong"]["points"]
    assert honest < 0.5 * found["honest wrong"]["max_points"]
    assert names[name]["points"] <= honest, names[name]["notes"]


def test_neighbours_are_not_disturbed(graded):
    neighbours = [row for student, row in graded[1].items() if "neighbour" in student]
    neighbours += [row for student, row in graded[1].items() if student.startswith("m")]
    assert len(neighbours) >= 9
    for row in neighbours:
        assert (row["status"], row["points"]) == ("graded", row["max_points"]), row


def alarms(found: dict[str, dict]) -> list[str]:
    """Give the alarms that submissions raised, in what they printed and in what is said of them."""
    told = [{**row, "code": {}} for row in found.values()]
    written = json.dumps(told)
    return [alarm for alarm in ALARMS.split() if alarm in written]


def test_no_canary_is_read(graded):
    place, found, _ = graded
    written = json.dumps(list(found.values()))
    for path in place.results.rglob("*"):
        if path.is_file() and path.name != "run.json":
            written += path.read_text(encoding="utf-8")
    assert place.canary not in written
    assert alarms(found) == []
    assert not place.connected()


def test_no_seed_is_told_to_students(graded):
    place, found, _ = graded
    pages = [*place.results.glob("feedback/**/*.html"), *place.results.glob("gradescope/**/*.json")]
    told = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert len(pages) > 100
    assert not [row["student"] for row in found.values() if str(row["receipt"]["seed"]) in told]


def test_nobody_speaks_in_the_graders_voice(graded):
    for line in graded[2]["forged_notes"]["look_at"]:
        before, forged, _ = line.partition("FORGED-VOICE")
        assert not forged or before.count("'") % 2 or before.count('"') % 2, line


def test_no_script_reaches_a_page(graded):
    place, _, _ = graded
    pages = list(place.results.rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        text = page.read_text(encoding="utf-8").lower()
        assert "<script" not in text, page
        assert "<img" not in text, page
        assert "default-src 'none'" in text
    page = place.results / "feedback" / safe_file_name(_student(graded, "script_in_the_output"))
    assert "&lt;script&gt;" in (page / f"{NAME}.html").read_text(encoding="utf-8")


def _student(graded, name: str) -> str:
    return graded[2][name]["student"]


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        ("exits", "graded", ""),
        ("segfault", "graded", "ended the process"),
        ("exec_another_program", "graded", "ended the process"),
        ("never_ends", "graded", ""),
        ("sleeps", "graded", "was stopped after|took longer"),
        ("forged_places", "graded", "ended the process"),
        ("memory_bomb_in_children", "graded", "more memory|more processes|took longer"),
        ("cut off", "not read", "damaged or cut off"),
        ("200 MB", "not read", "MiB"),
        ("version 3", "not read", "format 3"),
        ("deep", "not read", "nested"),
        ("6 MB of code", "not read", "code cells hold 6"),
        ("a million statements", "not read", "code cells hold"),
    ],
)
def test_the_row_says_how_it_ended(graded, name, status, says):
    row = graded[2][name]
    assert row["status"] == status, row
    assert any(re.search(says, line) for line in row["look_at"]) == bool(says), row["look_at"]


@pytest.mark.parametrize("student", ["link", "pipe"])
def test_what_is_no_ordinary_file_is_not_read(graded, student):
    row = graded[1][student]
    assert row["status"] == "not read"
    assert graded[0].canary not in json.dumps(row)


def test_nothing_of_a_submission_is_left_running(graded):
    assert len(graded[0].seen) > 5
    assert graded[0].left() == []


def test_no_row_and_no_page_is_large(graded):
    place, found, _ = graded
    assert max(len(json.dumps(row)) for row in found.values()) < 500_000
    assert max(page.stat().st_size for page in place.results.glob("feedback/**/*.html")) < 2**20


def test_two_runs_at_the_same_time_do_not_disturb_each_other(tmp_path):
    chosen = ("signals_everybody", "leaves_a_note", "looks_for_a_note", "network", "fork_bomb")
    with contextlib.ExitStack() as stack:
        places = []
        for number in range(2):
            (tmp_path / str(number)).mkdir()
            place = stack.enter_context(Place(tmp_path / str(number)))
            for name in chosen:
                place.put(name, attack(name), NAME)
            place.put("neighbour", RIGHT, NAME)
            places.append(place)
        for place in places:
            place.start(LIMITS, workers=1)
        for place in places:
            rows = place.finish()
            assert set(rows) == {*chosen, "neighbour"}
            assert rows["neighbour"]["points"] == rows["neighbour"]["max_points"]
            assert alarms(rows) == []
            assert not place.connected()
            assert place.left() == []


@pytest.mark.parametrize("name", [path.stem for path in FILES if path.stem.startswith("memory_")])
def test_the_machine_sees_no_more_memory_than_is_allowed(name, tmp_path):
    limits = SandboxLimits(wall_seconds=8, answer_seconds=4, memory_mb=256)
    with Place(tmp_path) as place:
        place.put("attack", attack(name), NAME)
        place.put("neighbour", RIGHT, NAME)
        place.start(limits, workers=1)
        warm, highest = 0.0, 0.0
        while place.process.poll() is None:
            inside = [one for one in place.below() if _is_inside(one)]
            held = memory_mb(inside)
            warm = max(warm, held if len(inside) == 1 else 0.0)  # the warm parent alone
            highest = max(highest, held)
            time.sleep(0.02)
        rows = place.finish()
    assert rows["neighbour"]["points"] == rows["neighbour"]["max_points"]
    assert 0 < warm < 500
    assert highest - warm < 256 + 64 + SLACK_MB, (highest, warm)


def _is_inside(process: psutil.Process) -> bool:
    """Say whether a process of the grader runs in the sandbox: it is none of the grader's own."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return "bwrap" not in "".join(words[:1]) and not any("reader.py" in word for word in words)


def test_a_zip_that_leads_outside_writes_nothing(tmp_path):
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(f"../../evil/{NAME}.ipynb", dump(STUB))
        file.writestr(f"/etc/evil/{NAME}.ipynb", dump(STUB))
        file.writestr(f"Anna Arn_123_assignsubmission_file_/{NAME}.ipynb", RIGHT)
        file.writestr(f"Bert Berta_678_assignsubmission_file_/{NAME}.ipynb", dump(STUB))
        link = zipfile.ZipInfo(f"linked/{NAME}.ipynb")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    before = {path for path in tmp_path.parent.rglob("*") if path.name == "evil"}
    summary = grade(archive, tmp_path / "results", COURSE, limits=LIMITS)
    rows = rows_of(tmp_path / "results")
    marks = {row["student"]: (row["status"], row["points"]) for row in rows}
    assert marks["Anna Arn_123"] == ("graded", 16)
    assert marks["Bert Berta_678"] == ("graded", 0)
    assert marks["linked"][0] == "not read"
    outside = [name for name, why in summary.unrecognised if "leads outside" in why]
    assert len(outside) == 2
    assert {path for path in tmp_path.parent.rglob("*") if path.name == "evil"} == before
