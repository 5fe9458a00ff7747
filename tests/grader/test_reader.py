"""A stranger's notebook, read in a process of its own: well-formed cells or one sentence."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from handed_in import COURSE, dump
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_lib.grader import reader as module
from fewshot_lib.grader.reader import (
    MAX_BYTES,
    MAX_CELLS,
    MAX_CODE,
    MAX_TEXT,
    Reader,
    SubmittedNotebook,
    Unreadable,
    defined,
    python,
)

FILES = sorted(COURSE.glob("*/[0-9]*.ipynb"))
SOLUTION = (COURSE / "solutions" / "03_prototypes.ipynb").read_bytes()
SMALL = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {"kernelspec": {"name": "python3"}},
    "cells": [
        {
            "cell_type": "code",
            "id": "a",
            "metadata": {"nbgrader": {"grade_id": "dice", "solution": True}},
            "source": ["def dice(a, b):\n", "    return 2 * (a & b).sum() / (a.sum() + b.sum())"],
            "execution_count": 1,
            "outputs": [{"output_type": "stream", "name": "stdout", "text": "1"}],
        },
        {
            "cell_type": "markdown",
            "metadata": {},
            "source": "![](attachment:a.png)",
            "attachments": {"a.png": {"image/png": "AAAA", "text/html": "<b>"}},
        },
        {"cell_type": "raw", "metadata": {}, "source": "raw"},
    ],
}


@pytest.fixture(scope="module")
def reader():
    with Reader() as one:
        yield one


def of(*sources: str, kind: str = "code") -> bytes:
    cells = [{"cell_type": kind, "metadata": {}, "source": source} for source in sources]
    return dump({"nbformat": 4, "metadata": {}, "cells": cells})


def check_form(handed: SubmittedNotebook) -> None:
    """Hold that a reply is what is promised, and within the limits."""
    assert len(handed.cells) <= MAX_CELLS
    sizes = {True: 0, False: 0}
    for cell in handed.cells:
        is_code = cell["cell_type"] == "code"
        extra = {"defines"} if is_code else {"attachments"}
        assert set(cell) == {"cell_type", "source", "id", "grade_id"} | extra
        assert cell["cell_type"] in ("code", "markdown", "raw")
        for name in ("source", "id", "grade_id"):
            assert isinstance(cell[name], str)
            cell[name].encode("utf-8")
        sizes[is_code] += len(cell["source"].encode("utf-8"))
        if is_code:
            assert all(isinstance(name, str) for name in cell["defines"])
        else:
            for pictures in cell["attachments"].values():
                assert set(pictures) <= {"image/png", "image/jpeg", "image/gif"}
                assert all(isinstance(data, str) for data in pictures.values())
    assert sizes[True] <= MAX_CODE
    assert sizes[False] <= MAX_TEXT
    assert all(isinstance(remark, str) for remark in handed.remarks)


def test_cells_come_without_outputs_and_with_what_grading_needs(reader):
    code, text, raw = reader.read(dump(SMALL)).cells
    assert (code["grade_id"], code["id"], code["defines"]) == ("dice", "a", ["dice"])
    assert code["source"] == "".join(SMALL["cells"][0]["source"])
    assert text["attachments"] == {"a.png": {"image/png": "AAAA"}}
    assert (raw["cell_type"], raw["source"], raw["grade_id"]) == ("raw", "raw", "")
    assert "stdout" not in json.dumps(code)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_notebook_of_the_course_is_read(reader, file):
    data = file.read_bytes()
    handed = reader.read(data)
    check_form(handed)
    cells = json.loads(data)["cells"]
    assert [cell["source"] for cell in handed.cells] == ["".join(c["source"]) for c in cells]
    assert not handed.remarks


def _without(notebook: dict, *names: str) -> dict:
    return {key: value for key, value in notebook.items() if key not in names}


def _each_cell(**changes: object) -> dict:
    notebook = copy.deepcopy(SMALL)
    for cell in notebook["cells"]:
        cell.update(changes)
    return notebook


@pytest.mark.parametrize(
    "notebook",
    [
        _without(SMALL, "nbformat_minor"),
        _without(SMALL, "metadata"),
        {**SMALL, "nbformat_minor": 99},
        {**SMALL, "nbformat": 4.0},
        {**SMALL, "metadata": None},
        {**SMALL, "metadata": {"colab": {"provenance": []}, "accelerator": "GPU"}},
        {**SMALL, "metadata": {"deepnote_notebook_id": "x", "kaggle": {"sources": []}}},
        {**SMALL, "metadata": {"huge": 10**20}},
        _each_cell(metadata=None),
        _each_cell(metadata={"vscode": {"languageId": "python"}, "id": "x"}),
        _each_cell(metadata={"nbgrader": None}),
        _each_cell(metadata={"nbgrader": {"grade_id": 7}}),
        _each_cell(id=None),
        _each_cell(id=3, cell_id="x", outputs=None, execution_count="?"),
    ],
)
def test_odd_but_harmless_forms_are_read(reader, notebook):
    handed = reader.read(dump(notebook))
    check_form(handed)
    assert len(handed.cells) == 3
    assert handed.cells[0]["defines"] == ["dice"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings_that_editors_write_are_read(reader, encoding):
    data = json.dumps({**SMALL, "metadata": {"x": "ünï"}}, ensure_ascii=False).encode(encoding)
    assert len(reader.read(data).cells) == 3


def test_numbers_of_thousands_of_digits_and_nan_harm_nothing(reader):
    data = dump({**SMALL, "x": "?"}).replace(b'"?"', b"[" + b"9" * 100_000 + b", NaN, -Infinity]")
    assert len(reader.read(data).cells) == 3


def test_lone_surrogates_become_writable(reader):
    (cell,) = reader.read(of("x = '\ud800'  # \ud83d\ude00")).cells
    assert cell["source"] == "x = '\ufffd'  # \U0001f600"


def test_a_cell_that_is_none_is_passed_over_and_said(reader):
    odd = copy.deepcopy(SMALL)
    odd["cells"] += [None, 7, {"cell_type": "heading", "source": "x"}, {"cell_type": ["code"]}]
    odd["cells"] += [{"cell_type": "code", "source": {"a": 1}}, {"source": [1, 2]}]
    handed = reader.read(dump(odd))
    assert len(handed.cells) == 3
    assert handed.remarks[0].startswith("6 of 9 cells")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (SOLUTION[: len(SOLUTION) // 2], "damaged or cut off"),
        (b"\xff\xd8\xff\xe0", "not a text file"),
        (b"\n<!DOCTYPE html><title>Log in</title>", "is a web page"),
        (b"[1, 2, 3]", "JSON, but not a notebook"),
        (b'{"cells": []}', "JSON, but not a notebook"),
        (dump({"nbformat": 3, "worksheets": []}), "format 3, 4 is needed"),
        (dump({"nbformat": True, "cells": []}), "format True, 4 is needed"),
        (dump({"nbformat": [[]], "cells": []}), "4 is needed"),
        (dump({"nbformat": 4}), "no list of cells"),
        (dump({"nbformat": 4, "cells": {}}), "no list of cells"),
        (b'{"nbformat": 4, "cells": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "too deeply"),
        (b'{"a":' * 200_000, "too deeply"),
        (of(*["x"] * (MAX_CELLS + 1)), f"2001 cells, at most {MAX_CELLS}"),
        (of("x=[" + "1," * 3_000_000 + "]"), "code cells hold 6.0 MB, at most 1 MB"),
        (of(*["x" * 300_000] * 4), "code cells hold 1.2 MB"),
        (of("ä" * 600_000, kind="markdown"), "text cells hold 1.2 MB"),
        (b" " * (MAX_BYTES + 1), "the file has 20 MiB, at most 20 are read"),
    ],
)
def test_what_is_no_notebook_is_said_in_one_sentence(reader, data, said):
    with pytest.raises(Unreadable, match=said) as caught:
        reader.read(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "source",
    [
        *("a;" * 490_000, "(" * 300_000, "-" * 900_000 + "1", "a." * 400_000),
        "x=[" + "1," * 99_000,
        *("f'" + "{a}" * 200_000 + "'", "[a for a in b if " * 20_000, "if 1:\n" * 150 + "x"),
        *("\x00" * 1000, "\\\n" * 90_000, "def f(" * 30_000, "'" * 199_999, "~" * 199_999),
        *("lambda:" * 20_000, "\t" * 199_000, "a=" * 90_000 + "1", "not " * 40_000 + "1"),
    ],
    ids=lambda source: ascii(source[:8]),
)
def test_code_that_is_hard_to_parse_is_handed_on_in_time(reader, source):
    begun = time.monotonic()
    handed = reader.read(of(source, "def dice(): ..."))
    check_form(handed)
    assert handed.cells[0]["source"] == source
    assert time.monotonic() - begun < module.SECONDS


@pytest.mark.parametrize(
    ("limits", "data", "said"),
    [
        ({"seconds": 0.2}, dump([[]] * 5_000_000), "takes more than 0.2 s"),
        ({"memory": 200 * 2**20}, dump([[]] * 5_000_000), "takes more than 200 MiB"),
    ],
)
def test_limits_cost_the_notebook_that_exceeds_them_and_no_other(limits, data, said):
    with Reader(**limits) as one:
        with pytest.raises(Unreadable, match=said):
            one.read(data)
        assert len(one.read(dump(SMALL)).cells) == 3


def test_a_reader_that_was_killed_starts_anew(reader):
    reader.read(dump(SMALL))
    os.kill(reader._child.pid, signal.SIGKILL)
    reader._child.wait()
    assert len(reader.read(dump(SMALL)).cells) == 3


def test_a_notebook_that_kills_the_reader_is_said_to(tmp_path, monkeypatch):
    program = tmp_path / "dies.py"
    program.write_text("import os, sys; sys.stdin.buffer.read(9); os._exit(7)", encoding="utf-8")
    monkeypatch.setattr(module, "__file__", str(program))
    with Reader() as one, pytest.raises(Unreadable, match="exit code 7"):
        one.read(SOLUTION * 20)


def test_after_an_interruption_the_next_notebook_gets_its_own_reply(reader, monkeypatch):
    def interrupted(pipe):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reader.read(SOLUTION)
    assert len(reader.read(dump(SMALL)).cells) == 3


def test_threads_get_their_own_replies(reader):
    wrong = []

    def ask(number: int) -> None:
        for again in range(20):
            (cell,) = reader.read(of(f"x = {number}, {again}")).cells
            if cell["source"] != f"x = {number}, {again}":
                wrong.append(cell)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_child_ends_with_the_reader():
    with Reader() as one:
        one.read(dump(SMALL))
        child = one._child
    assert child.poll() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_the_child_imports_the_standard_library_only():
    code = (
        "import runpy, sys; sys.argv = ['x', '5', '2000000000']; "
        f"runpy.run_path({module.__file__!r}, run_name='__main__'); "
        "print([m for m in sys.modules if m.split('.')[0] in ('numpy', 'torch', 'fewshot_lib')])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert done.stdout.strip() == b"[]"


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import a.b, c as d\nfrom e import f", ["a", "d", "f"]),
        ("def f(): x = 1\nclass G: y = 2\nasync def h(): ...", ["G", "f", "h"]),
        ("a, (b, *c) = d = e()\nf: int = 1\ng += 1", ["a", "b", "c", "d", "f", "g"]),
        ("if x:\n    def f(): ...\nelse:\n    g = 1", ["f", "g"]),
        ("%matplotlib inline\nfiles = !ls -l\nt = %timeit -o f()\nx?\ny = 1", ["files", "t", "y"]),
        ("!pip install a \\\n  b\nx = 1", ["x"]),
        ("%%time\nx = 1", ["x"]),
        ("%%bash\nx=1", []),
        ("def f(:", []),
        ("x = 5 % 2\ny = a != b", ["x", "y"]),
    ],
)
def test_names_bound_at_the_top_level(source, names):
    assert defined(source) == names


def test_plain_python_is_left_as_it_is():
    source = "x = '''\n%time\n!ls\n'''\ny = 7 %\\\n2"
    assert python(source) == source


# Fuzzing

NODES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["@huge", float("nan"), float("inf"), -0.0])
    | st.text(max_size=20)
    | st.sampled_from(["code", "markdown", "\ud800", "%%time\nx=1", "def f(): ...", "AAAA", "'''"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def places(node: object, path: tuple = ()) -> list[tuple]:
    """List the paths of all nodes."""
    found = [path]
    if isinstance(node, dict):
        for key, value in node.items():
            found += places(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            found += places(value, (*path, index))
    return found


@st.composite
def mutated(draw) -> object:
    notebook = copy.deepcopy(SMALL)
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(places(notebook)))
        if not path:
            continue
        holder = notebook
        for step in path[:-1]:
            holder = holder[step]
        what = draw(st.sampled_from(("drop", "double", "replace", "nest")))
        if what == "drop":
            del holder[path[-1]]
        elif what == "double" and isinstance(holder, list):
            holder.insert(path[-1], copy.deepcopy(holder[path[-1]]))
        elif what == "nest":
            for _ in range(draw(st.sampled_from((1, 5, 100)))):
                holder[path[-1]] = [holder[path[-1]]]
        else:
            holder[path[-1]] = draw(NODES)
    return notebook


def survives(reader: Reader, data: bytes) -> None:
    said = ""
    try:
        check_form(reader.read(data))
    except Unreadable as error:
        said = str(error)
    assert not said or 10 < len(said) < 400
    assert "program that reads notebooks" not in said


@given(mutated())
@settings(max_examples=700, deadline=None)
def test_any_change_of_a_notebook_is_read_or_refused(reader, notebook):
    survives(reader, dump(notebook).replace(b'"@huge"', b"9" * 5000))


@given(st.binary(max_size=200), st.integers(0, 2000), st.integers(0, 50))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused(reader, junk, where, cut):
    survives(reader, junk)
    whole = dump(SMALL)
    survives(reader, whole[:where] + junk + whole[where + cut :])


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_text_as_code_gives_names(source):
    assert isinstance(defined(source), list)
