"""Marks in the real nbgrader gradebook: written, written again, and never over a person's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from nbgrader.api import Gradebook

from fewshot_lib.classroom import gradebook, results
from fewshot_lib.classroom.grading_command import WRONG_USE, export
from fewshot_lib.classroom.machine import find_postgresql, is_root
from fewshot_lib.exercises import catalogue

NAME = "03_prototypes"
ROOT = Path(__file__).parents[2]


def row(student: str, share: float) -> dict:
    exercise = catalogue.exercise(NAME)
    checks = [
        {
            "id": f"{answer.name}: {check.name}",
            "answer": answer.name,
            "points": share * check.points,
            "max_points": check.points,
            "status": "passed" if share == 1 else "failed",
            "message": "",
            "mistake": "",
        }
        for answer in exercise.answers
        for check in answer.checks
    ]
    return {
        "student": student,
        "exercise": NAME,
        "status": "graded",
        "points": sum(check["points"] for check in checks),
        "max_points": exercise.points,
        "checks": checks,
        "notes": [],
        "printed": {},
        "seconds": 0.1,
        "file": "",
        "receipt": {"submission": student, "specification": "s", "seed": 1, "versions": {}},
    }


@pytest.fixture
def folder(tmp_path):
    with results.Results(tmp_path / "results", "course") as kept:
        kept.remember(seed=1, isolation="bubblewrap", limits={})
        kept.append(row("anna", 1.0))
        kept.append(row("ben", 0.5))
    return tmp_path / "results"


@pytest.fixture(scope="module")
def server():
    """A PostgreSQL server of its own on a free loopback port; its folder goes when it goes."""
    programs = find_postgresql()
    assert programs is not None
    place = Path(tempfile.mkdtemp(prefix="fewshot-postgresql-"))
    # it refuses to run as root
    who = {"user": "nobody", "extra_groups": [], "cwd": "/"} if is_root() else {}
    if is_root():
        shutil.chown(place, "nobody")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder, log = str(place / "data"), str(place / "log")

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), "-D", folder, *arguments]
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        subprocess.run(
            command, check=True, env=environment, stdout=subprocess.DEVNULL, timeout=120, **who
        )

    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {place} -c fsync=off"
    try:
        run("initdb", "-U", "teacher", "-A", "trust", "-E", "UTF8")
        run("pg_ctl", "-w", "-l", log, "-o", options, "start")
        try:
            yield f"postgresql://teacher@127.0.0.1:{port}"
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(place)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request, tmp_path):
    """The address of an empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/gradebook.db"
    import psycopg

    address = request.getfixturevalue("server")
    name = f"marks_{tmp_path.name.lower()}"[:60].replace("-", "_")
    with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
        connection.execute(
            psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name))
        )
    return f"{address}/{name}"


def scores(url: str) -> dict[str, tuple[float, float, bool]]:
    with contextlib.closing(Gradebook(gradebook.with_driver(url))) as book:
        found = {}
        for student in ("anna", "ben"):
            submission = book.find_submission(NAME, student)
            found[student] = (submission.score, submission.max_score, submission.needs_manual_grade)
        return found


def test_marks_arrive_and_texts_wait_for_a_person(folder, url):
    exercise = catalogue.exercise(NAME)
    assert gradebook.export(folder, url, ROOT) == (2, 2 * len(exercise.prose))
    highest = exercise.points + sum(text.points for text in exercise.prose)
    assert scores(url) == {
        "anna": (exercise.points, highest, True),
        "ben": (0.5 * exercise.points, highest, True),
    }


def test_a_persons_marks_survive_when_marks_are_brought_again(folder, url):
    gradebook.export(folder, url, ROOT)
    text = catalogue.exercise(NAME).prose[0].name
    with contextlib.closing(Gradebook(gradebook.with_driver(url))) as book:
        written = book.find_grade(text, NAME, NAME, "ben")
        written.manual_score, written.needs_manual_grade = 1.5, False
        overruled = book.find_grade("check-log_posterior", NAME, NAME, "ben")
        overruled.manual_score = 6.0
        book.db.commit()
    with results.Results(folder, "course") as kept:
        kept.append(row("ben", 0.0))
    gradebook.export(folder, url, ROOT)
    assert scores(url)["ben"][0] == 1.5 + 6.0
    assert scores(url)["anna"][0] == catalogue.exercise(NAME).points
    with contextlib.closing(Gradebook(gradebook.with_driver(url))) as book:
        assert not book.find_grade(text, NAME, NAME, "ben").needs_manual_grade


def test_a_database_that_refuses_is_one_sentence(folder, tmp_path):
    with pytest.raises(gradebook.NoGradebook, match="the database refuses"):
        gradebook.export(folder, f"sqlite:///{tmp_path}/no/such/folder/gradebook.db", ROOT)
    (tmp_path / "text.db").write_text(json.dumps("no database") * 100, encoding="utf-8")
    with pytest.raises(gradebook.NoGradebook, match="Nothing of the results is lost"):
        gradebook.export(folder, f"sqlite:///{tmp_path}/text.db", ROOT)


@pytest.mark.postgresql
@pytest.mark.parametrize("where", ["/no_such_database", ":1/marks", "/postgres?sslmode=require"])
def test_a_postgresql_server_that_refuses_is_one_sentence(folder, server, where):
    address = f"{server}{where}" if where[0] == "/" else f"{server.rpartition(':')[0]}{where}"
    status, said = export(folder, address)
    assert status == WRONG_USE
    assert "the database refuses" in said
    assert said.count("\n") == 0
    assert (folder / "results.jsonl").stat().st_size > 0


@pytest.mark.parametrize("address", ["marks.db", "oracle://x/y", "postgresql://h:port/x", ""])
def test_an_address_that_is_none_is_one_sentence(folder, address):
    before = (folder / "results.jsonl").read_bytes()
    status, said = export(folder, address)
    assert status == WRONG_USE
    assert "the database refuses" in said
    assert (folder / "results.jsonl").read_bytes() == before
