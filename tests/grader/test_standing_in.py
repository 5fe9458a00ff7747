"""A wrong answer does not cost the answers that call it, and what stands in wins nothing."""

from __future__ import annotations

import copy
import json
from itertools import combinations
from pathlib import Path

import pytest
from proof import namespace

from fewshot_lib.checker import catalogue
from fewshot_lib.checker.judge import PASSED, expected_results, judge
from fewshot_lib.checker.notebook import answer_cells, grading, read
from fewshot_lib.checker.run import run
from fewshot_lib.grader import results, student
from fewshot_lib.grader.grade import grade, verify
from fewshot_lib.grader.plan import plan
from fewshot_lib.grader.sandbox import SandboxLimits
from fewshot_lib.tools.machine import course_folder

COURSE = course_folder(Path(__file__))
assert COURSE is not None
NAME = "03_prototypes"
SOLUTION = json.loads((COURSE / "solutions" / f"{NAME}.ipynb").read_text(encoding="utf-8"))
LIMITS = SandboxLimits(wall_seconds=20, answer_seconds=5, memory_mb=512)

STUB = 'def squared_euclidean(queries, prototypes):\n    raise NotImplementedError("write it")\n'
WRONG = (
    "def squared_euclidean(queries, prototypes):\n"
    "    return (queries[..., :, None, :] - prototypes[..., None, :, :]).norm(dim=-1)\n"
)
CALLS_IT = """import torch
def log_posterior(queries, prototypes, scale=1.0):
    return torch.log_softmax(-scale * squared_euclidean(queries, prototypes), dim=-1)
"""
#: Looks for what stands in and tries to answer the first question with it, too.
THIEF = """import torch
squared_euclidean_of_mine = squared_euclidean
class Everywhere(dict):
    pass
def squared_euclidean(queries, prototypes):
    for value in list(globals().values()):
        code = getattr(value, "__code__", None)
        if code is not None and "course" in code.co_filename:
            return value(queries, prototypes)
    try:
        return vars(__import__("builtins"))["stolen"](queries, prototypes)
    except KeyError:
        pass
    try:
        source = open("/scratch/stolen.py").read()
    except OSError:
        return torch.zeros(1)
    space = {}
    exec(source, space)
    return space["squared_euclidean"](queries, prototypes)
def log_posterior(queries, prototypes, scale=1.0):
    import linecache
    vars(__import__("builtins"))["stolen"] = squared_euclidean
    text = "".join("".join(entry[2]) for name, entry in linecache.cache.items() if "course" in name)
    print(text)
    if scale != 1.0 and text:
        raise ValueError(text[:250])
    open("/scratch/stolen.py", "w").write(text)
    #FORGE#
    return torch.log_softmax(-scale * squared_euclidean(queries, prototypes), dim=-1)
"""
FORGERY = """
    frame = __import__("sys")._getframe()
    while frame is not None:  # the reply about the first answer, forged for the second run
        if "request" in frame.f_locals and "connection" in frame.f_locals:
            from fewshot_lib.checker import run as running, values
            import struct
            cases = frame.f_locals["request"]["answers"][0]["cases"]
            value = values.plain(squared_euclidean(queries, prototypes))
            reply = [running.Outcome(running.VALUE, value).as_dict() for _ in cases]
            data = values.pack({"answer": "squared_euclidean", "outcomes": reply})
            frame.f_locals["connection"].sendall(struct.pack("<Q", len(data)) + data)
            break
        frame = frame.f_back
"""


def with_answers(**sources: str) -> dict:
    notebook = copy.deepcopy(SOLUTION)
    for cell in notebook["cells"]:
        name = cell["metadata"].get("nbgrader", {}).get("grade_id")
        if name in sources:
            cell["source"] = sources[name]
    return notebook


def lost_identity() -> dict:
    """Two answers in one cell of the student's own: what stands in must come after it."""
    notebook = with_answers(squared_euclidean="", log_posterior="")
    for cell in notebook["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == "log_posterior":
            cell["metadata"], cell["id"], cell["source"] = {}, "own", WRONG + CALLS_IT
    return notebook


STUDENTS = {
    "wrong, then right": with_answers(squared_euclidean=WRONG, log_posterior=CALLS_IT),
    "unwritten, then right": with_answers(squared_euclidean=STUB, log_posterior=CALLS_IT),
    "wrong, and both in one cell": lost_identity(),
    "wrong, then wrong": with_answers(
        squared_euclidean=WRONG, log_posterior=CALLS_IT.replace("-scale", "scale")
    ),
    "right together only": with_answers(
        squared_euclidean=WRONG,
        log_posterior=CALLS_IT.replace("prototypes), dim", "prototypes)**2, dim"),
    ),
    "thief": with_answers(squared_euclidean=WRONG, log_posterior=THIEF),
    "forger": with_answers(
        squared_euclidean=WRONG, log_posterior=THIEF.replace("    #FORGE#", FORGERY)
    ),
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("standing-in")
    for name, notebook in STUDENTS.items():
        place = folder / "submissions" / name
        place.mkdir(parents=True)
        (place / f"{NAME}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    grade(folder / "submissions", folder / "results", COURSE, seed=5, limits=LIMITS)
    rows = results.current(results.read_rows(folder / "results" / "results.jsonl"))
    return folder, {row["student"]: row for row in rows}


def points(row: dict, answer: str) -> tuple[float, float]:
    lines = [check for check in row["checks"] if check["answer"] == answer]
    return sum(c["points"] for c in lines), sum(c["max_points"] for c in lines)


def namespace_sources(name: str) -> list[str]:
    """Give the lines of the course's own source that are no stub's."""
    lines = answer_cells(read(COURSE / "solutions" / f"{NAME}.ipynb"))[name].splitlines()
    return [line.strip() for line in lines if line.strip().startswith(("difference", "return"))]


@pytest.mark.hostile
@pytest.mark.parametrize(
    "student", ["wrong, then right", "unwritten, then right", "wrong, and both in one cell"]
)
def test_a_right_answer_that_calls_a_wrong_one_has_all_its_points(graded, student):
    row = graded[1][student]
    got, highest = points(row, "log_posterior")
    assert got == highest
    assert points(row, "squared_euclidean")[0] < points(row, "squared_euclidean")[1]
    assert any("the course's own squared_euclidean" in note for note in row["notes"])


@pytest.mark.hostile
def test_what_stands_in_does_not_make_a_wrong_answer_right(graded):
    row = graded[1]["wrong, then wrong"]
    got, highest = points(row, "log_posterior")
    assert got < highest
    mistakes = {c["mistake"] for c in row["checks"] if c["answer"] == "log_posterior"}
    assert "plus the distance" in mistakes  # named, which beside a wrong distance it cannot be


@pytest.mark.hostile
def test_two_answers_that_are_right_only_together_keep_what_they_have_as_written(graded):
    row = graded[1]["right together only"]
    got, highest = points(row, "log_posterior")
    assert got == highest
    assert not any("the course's own" in note for note in row["notes"])


@pytest.mark.hostile
def test_what_stands_in_wins_nothing_for_its_own_answer(graded):
    _, rows = graded
    thief, honest = rows["thief"], rows["wrong, then right"]
    for name in ("thief", "forger"):
        stolen, _ = points(rows[name], "squared_euclidean")
        assert stolen <= points(honest, "squared_euclidean")[0], name
    before, highest = points(honest, "log_posterior")
    assert points(thief, "log_posterior")[0] == before == highest  # its second run counted
    shown = json.dumps(thief)
    for own in namespace_sources("squared_euclidean"):
        assert own not in shown, "the course's source was shown"


@pytest.mark.hostile
def test_verify_repeats_second_runs_too(graded):
    assert verify(graded[0] / "results", COURSE) == []


@pytest.mark.parametrize(
    "exercise", [one for one in catalogue.exercises() if one.answers], ids=lambda one: one.name
)
def test_no_answer_is_given_away_by_one_that_may_stand_in_for_it(exercise):
    """Whatever stands in is called in place of the later answer, as it is: never all points."""
    notebook = read(COURSE / "solutions" / f"{exercise.stem}.ipynb")
    names = namespace(notebook)
    given_away = []
    for earlier, later in combinations(exercise.answers, 2):
        outcomes = run(names[earlier.name], expected_results(later, 11).flat, seconds=20)
        if judge(exercise, later, outcomes, 11).status == PASSED:
            given_away.append((earlier.name, later.name))
    assert given_away == []


@pytest.mark.parametrize(
    "exercise", [one for one in catalogue.exercises() if one.answers], ids=lambda one: one.name
)
def test_a_cell_that_stands_in_binds_its_answers_name_and_no_other(exercise):
    import ast

    notebook = read(COURSE / "solutions" / f"{exercise.stem}.ipynb")
    for cell in notebook["cells"]:
        name = grading(cell).get("grade_id")
        if cell["cell_type"] == "code" and grading(cell).get("solution"):
            body = ast.parse("".join(cell["source"])).body
            assert [getattr(node, "name", "") for node in body] == [name]


@pytest.mark.parametrize("exercise", catalogue.exercises(), ids=lambda one: one.name)
def test_what_stands_in_can_be_made_beside_nothing_but_what_was_handed_out(exercise):
    one_plan = plan(exercise.stem, COURSE)
    names = [answer.name for answer in exercise.answers]
    wanted = {"names": names, "sources": [*one_plan.definitions, *map(one_plan.own.get, names)]}
    assert list(student._stand_ins(wanted)) == names
