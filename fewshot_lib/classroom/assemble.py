"""Decide which code of a submission is run: the student's answers in the built exercise.

Only the sources of answer cells and of cells that the student added are taken from a submission.
Everything else, with all metadata, tags and outputs, comes from the built exercise; what a student
changed there is passed over. Answer cells are matched by ``grade_id``:

- missing: the answer is as if it were the stub, unless a cell of the student's own defines it; then
  that counts, and is reported;
- twice: the first one that differs from the stub counts, and it is reported;
- elsewhere: order is that of the exercise; added cells stay behind the cell they came after.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from fewshot_lib.exercises.notebook import grading, source_of
from fewshot_lib.exercises.spec import Exercise

_MAGIC = re.compile(r"^(?P<indent>\s*)(?:%|!|\?)")
_CELL_MAGIC = re.compile(r"^\s*%%(?P<name>\w+)")
#: Cell magics that run their cell as Python; every other one makes the cell something else.
_PYTHON_MAGICS = frozenset(("time", "timeit", "capture", "prun"))


@dataclass(frozen=True)
class Assembled:
    """What is run, and what there is to say about the file.

    Arguments:
        cells: ``{"id": …, "source": …}`` in order.
        remarks: one sentence each, for student and teacher.
        sources: the answers' sources as handed in, by name; for the comparison of submissions.
        texts: prose answers, by name.
    """

    cells: tuple[Mapping[str, str], ...]
    remarks: tuple[str, ...]
    sources: Mapping[str, str]
    texts: Mapping[str, str]


def assemble(
    exercise: Exercise, built: Mapping[str, Any], submitted: Mapping[str, Any]
) -> Assembled:
    """Put a submission's answers and added cells into the built exercise.

    Arguments:
        exercise: its specification.
        built: the exercise as handed out, from ``exercises/``.
        submitted: the cells of a submission, from ``submissions.notebook``.
    """
    remarks: list[str] = []
    given = {key: cell for cell in built["cells"] for key in _keys(cell)}
    stubs = {
        grading(cell)["grade_id"]: cell for cell in built["cells"] if grading(cell).get("solution")
    }
    handed: dict[str, list[str]] = {}
    added: dict[str, list[Mapping[str, Any]]] = {}
    anchor, order = "", []
    for cell in submitted["cells"]:
        known = next((given[key] for key in _keys(cell) if key in given), None)
        if known is None:
            added.setdefault(anchor, []).append(cell)
            continue
        anchor = _place(known)
        order.append(anchor)
        name = str(grading(known).get("grade_id", ""))
        if name in stubs:
            handed.setdefault(name, []).append(source_of(cell))
    places = [_place(cell) for cell in built["cells"]]
    if [place for place in places if place in order] != list(dict.fromkeys(order)):
        remarks.append("Cells stand in another order than handed out; they were run in that order.")
    answers = {name: _chosen(name, stubs, handed, remarks) for name in stubs}
    own = {cell["source"]: cell for cells in added.values() for cell in cells}
    for answer in exercise.answers:
        if answer.name not in handed:
            remarks.append(_lost(answer.name, own))
    cells = list(_runnable(added.get("", ()), "before"))
    for cell in built["cells"]:
        name = grading(cell).get("grade_id", "")
        if cell["cell_type"] == "code" and name in stubs:
            if name in handed:  # else the stub would undo what an added cell defines
                cells.append({"id": name, "source": python(answers[name])})
        elif cell["cell_type"] == "code" and not grading(cell).get("grade"):
            cells.append({"id": f"given {len(cells)}", "source": given_definitions(cell)})
        cells.extend(_runnable(added.get(_place(cell), ()), _place(cell)))
    names = {answer.name for answer in exercise.answers}
    return Assembled(
        tuple(cell for cell in cells if cell["source"].strip()),
        tuple(remarks),
        {name: source for name, source in answers.items() if name in names},
        {name: source for name, source in answers.items() if name not in names},
    )


def _keys(cell: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Give what a cell may be known by, the surest first."""
    keys = []
    grade_id, name = grading(cell).get("grade_id"), cell.get("id")
    if isinstance(grade_id, str):
        keys.append(("grade_id", grade_id))
    if isinstance(name, str) and name:
        keys.append(("id", name))
    if not grading(cell).get("solution"):
        keys.append(("source", source_of(cell).strip()))
    return keys


def _place(cell: Mapping[str, Any]) -> str:
    return str(grading(cell).get("grade_id") or cell.get("id") or source_of(cell)[:80])


def _chosen(
    name: str,
    stubs: Mapping[str, Mapping[str, Any]],
    handed: Mapping[str, Sequence[str]],
    remarks: list[str],
) -> str:
    stub = source_of(stubs[name])
    sources = handed.get(name, [])
    if len(sources) > 1:
        remarks.append(
            f"The answer cell {name!r} is there {len(sources)} times; the first one that differs "
            "from the handed-out cell counts."
        )
    return next((source for source in sources if source.strip() != stub.strip()), stub)


def _lost(name: str, own: Mapping[str, Mapping[str, Any]]) -> str:
    for source, cell in own.items():
        if cell["cell_type"] == "code" and name in defined(source):
            return (
                f"The answer cell {name!r} has lost its identity (it was deleted and written anew, "
                "or the notebook was rebuilt); a cell of your own defines it, and that one counts."
            )
    return (
        f"The answer cell {name!r} is not in this notebook, and no other cell defines {name}. "
        "If it was renamed, hand in the notebook with the name as it was."
    )


def defined(source: str) -> set[str]:
    """Give the names that a cell's top level defines; none if it does not parse.

    >>> sorted(defined("def f(): pass\\ng = 1"))
    ['f', 'g']
    """
    try:
        body = ast.parse(python(source)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    names = {n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    for statement in body:
        if isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
    return names


def given_definitions(cell: Mapping[str, Any]) -> str:
    """Keep of a handed-out cell what answers may rely on: imports, functions, classes, constants.

    The rest shows and plots; grading does not need it.
    """
    return _given_definitions(source_of(cell))


@cache
def _given_definitions(source: str) -> str:
    # of handed-out cells only, the same for every submission
    try:
        body = ast.parse(python(source)).body
    except SyntaxError:
        return ""
    kept = [
        statement
        for statement in body
        if isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
        or (
            isinstance(statement, ast.Assign)
            and not any(isinstance(node, ast.Call) for node in ast.walk(statement.value))
        )
    ]
    return "\n".join(ast.unparse(statement) for statement in kept)


def _runnable(cells: Sequence[Mapping[str, Any]], place: str) -> list[dict[str, str]]:
    return [
        {"id": f"added {number} after {place}"[:80], "source": python(cell["source"])}
        for number, cell in enumerate(cells, 1)
        if cell["cell_type"] == "code"
    ]


def python(source: str) -> str:
    """Turn a cell into plain Python: lines of IPython's own become ``pass``.

    >>> python("%matplotlib inline\\nx = 1")
    'pass\\nx = 1'
    """
    lines = source.split("\n")
    first = next((line for line in lines if line.strip()), "")
    magic = _CELL_MAGIC.match(first)
    if magic and magic["name"] not in _PYTHON_MAGICS:
        return ""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    else:
        return source
    magics = [_MAGIC.match(line) for line in lines]
    return "\n".join(
        f"{magic['indent']}pass" if magic else line
        for line, magic in zip(lines, magics, strict=True)
    )
