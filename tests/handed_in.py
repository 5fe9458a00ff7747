"""Exercise 03 as students hand it in, and the rows that grading gives them."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewshot_lib.checker.notebook import answer_cells, grading, read
from fewshot_lib.grader import results
from fewshot_lib.grader.sandbox import SandboxLimits

COURSE = Path(__file__).resolve().parents[1]
NAME = "03_prototypes"
SOLUTION = read(COURSE / "solutions" / f"{NAME}.ipynb")
STUB = read(COURSE / "exercises" / f"{NAME}.ipynb")
LIMITS = SandboxLimits(wall_seconds=20, answer_seconds=5, memory_mb=512)
#: An answer with a typical mistake.
UNSQUARED = """def squared_euclidean(queries, prototypes):
    return (queries[..., :, None, :] - prototypes[..., None, :, :]).norm(dim=-1)
"""


def with_answers(notebook: dict[str, Any] = SOLUTION, /, **sources: str) -> dict[str, Any]:
    """Copy a notebook, with these sources in the cells of that ``grade_id``."""
    made = copy.deepcopy(notebook)
    for cell in made["cells"]:
        cell["source"] = sources.get(grading(cell).get("grade_id", ""), cell["source"])
    return made


def changed(old: str, new: str) -> dict[str, Any]:
    """Write one thing for another in the answers of the solution."""
    right = answer_cells(SOLUTION)
    sources = {name: source.replace(old, new) for name, source in right.items()}
    assert sources != right, f"{old!r} is not in the solution any more"
    return with_answers(**sources)


def prefixed(code: str) -> dict[str, Any]:
    """Begin every answer's cell of the solution with this code."""
    return with_answers(**{n: f"{code}\n{source}" for n, source in answer_cells(SOLUTION).items()})


def with_code(code: str) -> dict[str, Any]:
    """Put code into the first answer's cell of the stub, and nothing into the others."""
    first, *others = answer_cells(STUB)
    return with_answers(STUB, **{first: code}, **dict.fromkeys(others, ""))


def dump(notebook: object) -> bytes:
    """Write a notebook as it stands in a file."""
    return json.dumps(notebook).encode()


def hand_in(folder: Path, students: Mapping[str, dict[str, Any]], name: str = NAME) -> Path:
    """Write each student's notebook into a folder of submissions; give the folder."""
    for student, notebook in students.items():
        (folder / student).mkdir(parents=True)
        (folder / student / f"{name}.ipynb").write_bytes(dump(notebook))
    return folder


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Give the rows of a results folder that count, in order."""
    return results.current(results.read_rows(folder / "results.jsonl"))
