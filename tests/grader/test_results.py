"""The rows of a results folder: one writer, damage that can be repaired, sizes that cannot hurt."""

from __future__ import annotations

import json
import multiprocessing
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_lib.grader import results
from fewshot_lib.grader.command import DONE, report
from fewshot_lib.tools.machine import course_folder


def row(student: str, points: float = 1.0, **more) -> dict:
    receipt = {"submission": f"hash of {student}", "specification": "s", "seed": 1, "versions": {}}
    check = {"id": "class_prototypes: x", "answer": "class_prototypes", "points": points}
    check |= {"max_points": 2.0, "status": "failed", "message": "", "mistake": ""}
    made = {"student": student, "exercise": "03_prototypes", "status": "graded", "points": points}
    made |= {"max_points": 2.0, "checks": [check], "notes": [], "printed": {}, "seconds": 0.1}
    made |= {"look_at": [], "said": [], "code": {}, "texts": {}}
    return {**made, "file": "", "receipt": receipt, **more}


@pytest.fixture
def folder(tmp_path):
    with results.Results(tmp_path / "marks", "course") as kept:
        kept.remember(seed=1, isolation="bubblewrap", limits={}, folders=[])
        for student in ("anna", "ben", "carl"):
            kept.append(row(student))
    return tmp_path / "marks"


def students(folder) -> list[str]:
    return [one["student"] for one in results.read_rows(folder / "results.jsonl")]


def damage(folder, number: int, change) -> bytes:
    file = folder / "results.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    lines[number - 1] = change(lines[number - 1])
    file.write_bytes(b"".join(lines))
    return file.read_bytes()


DAMAGES = {
    "points changed": lambda line: line.replace(b'"points":1.0', b'"points":2.0'),
    "garbled": lambda line: b"\x00\xff{" + line[9:],
    "cut in the middle": lambda line: line[:40] + b"\n",
    "an empty line": lambda line: b"\n",
    "another thing": lambda line: b'["no", "row"]\n',
    "deep": lambda line: b"[" * 100_000 + b"\n",
    "a key is gone": lambda line: line.replace(b'"notes":[],', b""),
    "no number": lambda line: line.replace(b'"max_points":2.0', b'"max_points":NaN'),
    "two rows in one line": lambda line: line[:-1] + line,
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_row_is_named_with_the_command_that_repairs(folder, kind):
    damage(folder, 2, DAMAGES[kind])
    with pytest.raises(results.BadResults, match=r"row 2 of .*fewshot report --repair") as raised:
        students(folder)
    assert str(raised.value).count("\n") == 0
    with pytest.raises(results.BadResults, match="row 2"):
        results.Results(folder, "course")


@pytest.mark.parametrize("kind", DAMAGES)
def test_repair_takes_out_what_is_damaged_and_keeps_the_old_file(folder, kind):
    before = damage(folder, 2, DAMAGES[kind])
    taken, old = results.repair(folder)
    assert [one.number for one in taken] == [2]
    assert old is not None
    assert old.read_bytes() == before
    assert students(folder) == ["anna", "carl"]
    assert results.repair(folder) == ([], None)
    with results.Results(folder, "course") as kept:
        assert {key[0] for key in kept.done()} == {"anna", "carl"}


def test_the_command_repairs_and_says_what_it_took_out(folder, monkeypatch):
    monkeypatch.chdir(course_folder() or ".")
    damage(folder, 2, DAMAGES["points changed"])
    status, said = report(folder)
    assert status == 2
    assert "--repair" in said
    status, said = report(folder, repair=True)
    assert status == DONE, said
    assert "row 2 (ben, 03_prototypes): it was changed after it was written" in said
    assert "results.damaged-" in said
    assert (folder / "report.html").is_file()


def test_a_last_row_that_was_cut_off_is_taken_back_and_said(folder):
    file = folder / "results.jsonl"
    file.write_bytes(file.read_bytes()[:-30])
    assert students(folder) == ["anna", "ben"]
    assert results.unfinished(file)
    with results.Results(folder, "course") as kept:
        (said,) = kept.remarks
        assert "cut off" in said
        assert "graded again" in said
        assert {key[0] for key in kept.done()} == {"anna", "ben"}
        kept.append(row("carl", 2.0))
    assert students(folder) == ["anna", "ben", "carl"]


def _append(folder, student, ready, go) -> None:
    ready.set()
    go.wait(20)
    with results.Results(folder, "course") as kept:
        for number in range(20):
            kept.append(row(f"{student} {number}"))
            time.sleep(0.002)


def test_two_graders_on_one_folder_come_one_after_the_other(folder):
    spawn = multiprocessing.get_context("spawn")
    go = spawn.Event()
    ready = [spawn.Event(), spawn.Event()]
    graders = [
        spawn.Process(target=_append, args=(folder, name, mine, go))
        for name, mine in zip("xy", ready, strict=True)
    ]
    for grader in graders:
        grader.start()
    assert all(mine.wait(60) for mine in ready)
    go.set()
    for grader in graders:
        grader.join(60)
        assert grader.exitcode == 0
    names = [student[0] for student in students(folder)[3:]]
    assert sorted(names) == ["x"] * 20 + ["y"] * 20
    assert len({tuple(names[:20]), tuple(names[20:])}) == 2
    assert len(set(names[:20])) == len(set(names[20:])) == 1


def _hold(folder, held, go) -> None:
    with results.Results(folder, "course"):
        held.set()
        go.wait(30)


def test_the_second_grader_says_that_it_waits_and_repair_is_refused(folder, capfd):
    spawn = multiprocessing.get_context("spawn")
    held, go = spawn.Event(), spawn.Event()
    other = spawn.Process(target=_hold, args=(folder, held, go))
    other.start()
    assert held.wait(60)
    with pytest.raises(results.BadResults, match="another grader is at work"):
        results.repair(folder)
    spawn_timer = multiprocessing.get_context("fork").Process(
        target=lambda: (time.sleep(0.5), go.set())
    )
    spawn_timer.start()
    with results.Results(folder, "course") as kept:
        assert len(kept.rows) == 3
    assert "this one waits until it has ended" in capfd.readouterr().err
    other.join(30)
    spawn_timer.join(30)


def test_one_program_cannot_open_a_folder_twice(folder):
    with (
        results.Results(folder, "course"),
        pytest.raises(results.BadResults, match="already open"),
    ):
        results.Results(folder, "course")
    with results.Results(folder, "course") as kept:
        assert len(kept.rows) == 3


@pytest.mark.parametrize("status", ["sandbox", "fault"])
def test_a_row_that_the_machine_spoilt_is_not_done(folder, status):
    with results.Results(folder, "course") as kept:
        kept.append(row("dora", status=status))
        assert "dora" not in {key[0] for key in kept.done()}
        kept.append(row("dora"))
        assert "dora" in {key[0] for key in kept.done()}


def test_a_later_row_counts_and_the_earlier_one_stays_to_be_seen(folder):
    with results.Results(folder, "course") as kept:
        kept.append(row("ben", 2.0))
    rows = list(results.read_rows(folder / "results.jsonl"))
    now = {one["student"]: one["points"] for one in results.current(rows)}
    assert now == {"anna": 1.0, "ben": 2.0, "carl": 1.0}
    ((key, (before,)),) = results.earlier(rows).items()
    assert key == ("ben", "03_prototypes")
    assert before["points"] == 1.0
    assert before["receipt"]["at"][:2] == "20"


HUGE = {
    "notes": ["x" * 10**7],
    "many notes": ["note"] * 10**5,
    "printed": {"k" * 240_000: "v" * 10**6},
    "keys": {f"{number}" * 50: "v" for number in range(10**4)},
    "said": [{"cell": "a", "error": "e" * 10**6, "printed": "\ud800" * 10**6}] * 1000,
    "code": {f"answer {number}": "c" * 10**6 for number in range(50)},
    "texts": {"temperature": "字" * 10**6},
    "number": 10**6000,
    "checks": [{**row("eve")["checks"][0], "message": "字" * 5000}] * 400,
}


@pytest.mark.parametrize("what", HUGE)
def test_no_size_makes_a_row_too_large(folder, what):
    name = {"many notes": "notes", "keys": "printed", "number": "seconds"}.get(what, what)
    with results.Results(folder, "course") as kept:
        kept.append(row("eve", **{name: HUGE[what]}))
    last = (folder / "results.jsonl").read_bytes().splitlines()[-1]
    assert len(last) < results.MAX_ROW
    assert students(folder)[-1] == "eve"
    assert {*row("eve"), name} == set(json.loads(last))


def test_a_text_of_ordinary_length_is_kept_to_the_letter(folder):
    text = "Ein Aufsatz über Prototypen. " * 300
    with results.Results(folder, "course") as kept:
        kept.append(row("eve", texts={"temperature": text}, code={"f": "x = 1\n" * 1000}))
    *_, last = results.read_rows(folder / "results.jsonl")
    assert last["texts"]["temperature"] == text
    assert last["code"]["f"] == "x = 1\n" * 1000


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=30,
)


@given(value=JSONS)
@settings(max_examples=150, deadline=None)
def test_any_value_can_be_written_and_read_again(value):
    written = results.cut_to_fit(row("anna", said=value))
    written["receipt"]["hash"] = results.row_hash(written)
    line = results.canonical(written) + b"\n"
    assert len(line) < results.MAX_ROW + 1
    assert results.parse_row(line) == (json.loads(line), "")


@given(at=st.integers(0, 700), byte=st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_one_changed_byte_never_passes_for_another_mark(at, byte):
    written = results.cut_to_fit(row("anna"))
    written["receipt"]["hash"] = results.row_hash(written)
    line = results.canonical(written)
    at %= len(line)
    found, why = results.parse_row(line[:at] + bytes([byte]) + line[at + 1 :])
    assert (found == written) if found is not None else why


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "\x00", '{"format": 1}', '{"format": 2, "folders": 3}'),
        '{"format": 2, "due": {"a": {"at": "soon", "percent": 1}}}',
        '{"format": 2, "limits": []}',
    ],
)
def test_a_damaged_run_file_is_one_sentence(folder, text):
    (folder / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(results.BadResults, match="name a new results folder"):
        results.read_settings(folder)
    with pytest.raises(results.BadResults, match="name a new results folder"):
        results.Results(folder, "course")
