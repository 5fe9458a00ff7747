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

import nbformat
import pytest
import test_results
from handed_in import COURSE, NAME, STUB
from nbconvert import HTMLExporter
from nbgrader.api import Gradebook
from test_words import ATTACKS, Page

from fewshot_lib.checker import catalogue
from fewshot_lib.checker.notebook import answer_cells, grading
from fewshot_lib.grader import gradebook, results
from fewshot_lib.grader.assemble import Assembled
from fewshot_lib.grader.command import WRONG_USE, export
from fewshot_lib.grader.reader import pictures
from fewshot_lib.tools.machine import find_postgresql, is_root

TEXT = catalogue.exercise(NAME).prose[0].name


def row(student: str, share: float) -> dict:
    """Give the row of a student who has this share of the points of every check; of no texts."""
    exercise = catalogue.exercise(NAME)
    said = {"status": "passed" if share == 1 else "failed", "message": "", "mistake": ""}
    checks = [
        {
            "id": f"{answer.name}: {check.name}",
            "answer": answer.name,
            "points": share * check.points,
            "max_points": check.points,
            **said,
        }
        for answer in exercise.answers
        for check in answer.checks
    ]
    points = sum(check["points"] for check in checks)
    made = test_results.row(student, points, max_points=exercise.points, checks=checks)
    del made["texts"]
    return made


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
    assert gradebook.export(folder, url, COURSE) == (2, 2 * len(exercise.prose))
    highest = exercise.points + sum(text.points for text in exercise.prose)
    assert scores(url) == {
        "anna": (exercise.points, highest, True),
        "ben": (0.5 * exercise.points, highest, True),
    }


def test_a_persons_marks_survive_when_marks_are_brought_again(folder, url):
    gradebook.export(folder, url, COURSE)
    with contextlib.closing(Gradebook(gradebook.with_driver(url))) as book:
        written = book.find_grade(TEXT, NAME, NAME, "ben")
        written.manual_score, written.needs_manual_grade = 1.5, False
        overruled = book.find_grade("check-log_posterior", NAME, NAME, "ben")
        overruled.manual_score = 6.0
        book.db.commit()
    with results.Results(folder, "course") as kept:
        kept.append(row("ben", 0.0))
    gradebook.export(folder, url, COURSE)
    assert scores(url)["ben"][0] == 1.5 + 6.0
    assert scores(url)["anna"][0] == catalogue.exercise(NAME).points
    with contextlib.closing(Gradebook(gradebook.with_driver(url))) as book:
        assert not book.find_grade(TEXT, NAME, NAME, "ben").needs_manual_grade


def test_a_database_that_refuses_is_one_sentence(folder, tmp_path):
    with pytest.raises(gradebook.NoGradebook, match="the database refuses"):
        gradebook.export(folder, f"sqlite:///{tmp_path}/no/such/folder/gradebook.db", COURSE)
    (tmp_path / "text.db").write_text(json.dumps("no database") * 100, encoding="utf-8")
    with pytest.raises(gradebook.NoGradebook, match="Nothing of the results is lost"):
        gradebook.export(folder, f"sqlite:///{tmp_path}/text.db", COURSE)


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


def test_only_texts_that_somebody_wrote_wait(tmp_path):
    with results.Results(tmp_path / "results", "course") as kept:
        kept.remember(seed=1, isolation="bubblewrap", limits={})
        placeholder = answer_cells(STUB, texts=True)[TEXT]
        texts = {
            "anna": {TEXT: "The arg-max stays; high is flat."},
            "ben": {TEXT: f"\n{placeholder}\n"},
            "carl": {},
        }
        for student, written in texts.items():
            kept.append({**row(student, 1.0), "texts": written})
    url = f"sqlite:///{tmp_path}/gradebook.db"
    assert gradebook.export(tmp_path / "results", url, COURSE) == (3, 1)
    with contextlib.closing(Gradebook(url)) as book:
        waits = {
            one.student.id: one.needs_manual_grade for one in book.assignment_submissions(NAME)
        }
    assert waits == {"anna": True, "ben": False, "carl": False}


def test_late_marks_carry_their_penalty_and_dates(tmp_path):
    late = {**row("anna", 1.0), "handed_in": "2026-12-02T12:00:00+01:00"}
    with results.Results(tmp_path / "results", "course") as kept:
        due = {NAME: {"at": "2026-12-01T23:59:00+01:00", "percent": 25}}
        kept.remember(seed=1, isolation="bubblewrap", limits={}, due=due)
        kept.append(late)
    url = f"sqlite:///{tmp_path}/gradebook.db"
    gradebook.export(tmp_path / "results", url, COURSE)
    with contextlib.closing(Gradebook(url)) as book:
        submission = book.find_submission(NAME, "anna")
        assert submission.total_seconds_late == 12 * 3600 + 60
        assert submission.notebooks[0].late_submission_penalty == 4.0


ODD = [
    "字" * 200,
    "字" * 199 + "子",
    "a/b",
    "a\\b",
    "..",
    ".hidden",
    "\x1b[1m",
    "x" * 300,
    "a:b",
    "",
]


def test_names_that_no_folder_may_have_reach_the_gradebook_apart(tmp_path):
    with results.Results(tmp_path / "results", "course") as kept:
        kept.remember(seed=1, isolation="bubblewrap", limits={})
        for student in ODD:
            kept.append(row(student, 1.0))
    url = f"sqlite:///{tmp_path}/gradebook.db"
    assert gradebook.export(tmp_path / "results", url, COURSE)[0] == len(ODD)
    with contextlib.closing(Gradebook(url)) as book:
        names = [student.id for student in book.students]
    assert len(names) == len(ODD)
    for name in names:
        (tmp_path / "autograded" / name).mkdir(parents=True)  # a folder may be called so
    assert len({gradebook.label(name) for name in [*ODD, *names]}) == 2 * len(ODD)


def shown(text: str, attachments: dict, code: str = "", message: str = "") -> tuple[dict, str]:
    """Give the filled-in notebook and the page that nbconvert, and so formgrader, makes of it."""
    check = {**row("anna", 0.5)["checks"][0], "message": message}
    sources = {"class_prototypes": code} if code else {}
    found = Assembled((), (), sources, {TEXT: text}, {TEXT: pictures(attachments)})
    filled = gradebook.filled_in(STUB, found, {**row("anna", 0.5), "checks": [check]})
    notebook = nbformat.reads(json.dumps(filled), as_version=4)
    nbformat.validate(notebook)
    page, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    cell = next(c for c in filled["cells"] if grading(c).get("grade_id") == TEXT)
    return cell, page


def test_formgraders_copy_holds_the_text_with_its_picture():
    png = "iVBORw0KGgo="
    text = "My essay.\n\n![p](attachment:p.png)"
    cell, page = shown(text, {"p.png": {"image/png": png}})
    assert cell["source"] == text
    assert cell["attachments"] == {"p.png": {"image/png": png}}
    assert f"data:image/png;base64,{png}" in page


def test_nothing_that_a_student_wrote_acts_in_formgrader():
    text = "\n\n".join(ATTACKS)
    svg = {"a.svg": {"image/svg+xml": "PHN2Zz4="}, "not-there.png": {"text/html": "PGI+"}}
    before = Page(shown("An essay.", {})[1]).found
    cell, page = shown(text, svg, f"x = '''{text}'''", text)
    assert "attachments" not in cell
    assert Page(page).found == before
