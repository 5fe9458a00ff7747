"""Build the exercises from the solutions: ``fewshot build``.

The prose of an exercise is edited in ``solutions/NN_name.ipynb``, the code of its answers in
``fewshot_lib/exercises/name.py``. Building copies the answers into their cells, which it makes
where they are missing, runs the notebook, takes the solutions out, runs what is left, and saves
both with their outputs. A digest of sources and outputs is saved with each, so that ``--check`` can
say in a moment whether anything was touched since.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

import fewshot_lib.course  # noqa: F401 - whose exercises are built
from fewshot_lib.checker import catalogue
from fewshot_lib.checker.language import SOURCE, VARIABLE
from fewshot_lib.checker.notebook import (
    TEACHERS_ONLY,
    BadSolution,
    answer_cells,
    grading,
    read,
    source_of,
    stub,
    without_markers,
)
from fewshot_lib.checker.spec import Answer, Exercise
from fewshot_lib.checker.specification import cell as cell_of
from fewshot_lib.tools import install_cell
from fewshot_lib.tools.notebooks import execute, save, tidy

#: Tags that make nbval look away: not in an exercise.
BLIND = {"nbval-skip", "nbval-ignore-output", "skip-execution"}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True)
class Built:
    """What became of one notebook: seconds, and what is wrong with it (nothing, if it is right)."""

    stem: str
    seconds: float
    problems: tuple[str, ...] = ()


def solutions(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Find solution notebooks below the course's folder: all, or those named.

    Raises:
        BadSolution: a named one does not exist.
    """
    every = sorted((folder / "solutions").glob("*.ipynb"))
    if not names:
        return every
    chosen = []
    for name in names:
        stem = Path(name).stem
        found = [path for path in every if stem in (path.stem, path.stem.partition("_")[2])]
        if not found:
            known = ", ".join(path.stem for path in every) or "none"
            raise BadSolution(f"there is no solution {name!r}; there are: {known}")
        chosen += found
    return chosen


def digest(notebook: Any, outputs: bool = True) -> str:
    """Hash what a notebook says: types, sources and metadata of cells, and their outputs."""
    cells = []
    for cell in notebook["cells"]:
        entry: dict[str, Any] = {
            "type": cell["cell_type"],
            "source": source_of(cell),
            "metadata": cell["metadata"],
            "id": cell.get("id"),
        }
        if outputs and cell["cell_type"] == "code":
            entry["outputs"] = [_flat(output) for output in cell["outputs"]]
            entry["count"] = cell["execution_count"]
        cells.append(entry)
    text = json.dumps(cells, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _flat(output: Any) -> Any:
    """Join the lines that a file may hold a text as, so that reading and writing change no hash."""
    if isinstance(output, dict):
        return {key: _flat(value) for key, value in output.items()}
    if isinstance(output, list) and output and all(isinstance(line, str) for line in output):
        return "".join(output)
    if isinstance(output, list):
        return [_flat(part) for part in output]
    return output


def write_answers(solution: nbformat.NotebookNode, exercise: Exercise) -> list[str]:
    """Write into a notebook what the module of its exercise says: code of answers, and points.

    An answer that has no cells is given its two, behind those of the answer before it: no notebook
    editor shows all that is in them. What is written around them is the author's.

    Returns:
        The names of the answers whose cells were changed or made.
    """
    changed, end = [], len(solution.cells)
    for answer in exercise.answers:
        if answer.solution is None:
            continue
        place = {grading(cell).get("grade_id"): n for n, cell in enumerate(solution.cells)}
        own, check = place.get(answer.name), place.get(f"check-{answer.name}")
        if own is None and check is None:
            own, check = end, end + 1
            solution.cells[own:own] = _new_cells(exercise, answer)
            changed.append(answer.name)
        if own is not None and solution.cells[own].cell_type == "code":
            source = cell_of(answer.solution)
            if solution.cells[own].source != source:
                solution.cells[own].source = source
                changed.append(answer.name)
        if check is not None:
            meta = solution.cells[check].metadata.get("nbgrader", {})
            if meta.get("points") != answer.points:
                meta["points"] = int(answer.points) if answer.points % 1 == 0 else answer.points
                changed.append(answer.name)
            end = check + 1
    return list(dict.fromkeys(changed))


def _new_cells(exercise: Exercise, answer: Answer) -> list[nbformat.NotebookNode]:
    """Make an answer's cell, still empty, and the locked cell that checks it."""
    kept = {"schema_version": 3, "task": False, "cell_type": "code"}
    own = {"grade_id": answer.name, "solution": True, "grade": False, "locked": False}
    check = {"grade_id": f"check-{answer.name}", "solution": False, "grade": True, "locked": True}
    return [
        nbformat.v4.new_code_cell(source, id=name, metadata={"nbgrader": {**kept, **meta}})
        for name, source, meta in (
            (f"answer-{answer.name}", "", own),
            (f"check-{answer.name}", f'check("{exercise.name}", {answer.name})', check),
        )
    ]


def make_stub(solution: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Take the solutions out of a notebook; nothing is run.

    Raises:
        BadSolution: a cell breaks the rules of markers.
    """
    notebook = copy.deepcopy(solution)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        secret = TEACHERS_ONLY.search(cell.source)
        if secret:
            name = grading(cell).get("grade_id") or cell.source[:40]
            raise BadSolution(
                f"cell {name!r}: {secret.group().strip()!r} marks what students must not see, and "
                "would be handed out; checks that they do not see belong in "
                "fewshot_lib/exercises/, a scheme for marking in the text's rubric there"
            )
        if grading(cell).get("solution"):
            try:
                cell.source = stub(cell.source, text=cell.cell_type == "markdown")
            except BadSolution as error:
                raise BadSolution(f"cell {grading(cell).get('grade_id')!r}: {error}") from None
        elif "BEGIN SOLUTION" in cell.source or "END SOLUTION" in cell.source:
            raise BadSolution(f"markers in a cell that is no answer: {cell.source[:60]!r}")
    notebook.metadata.pop("fewshot", None)
    return notebook


def problems_of(solution: nbformat.NotebookNode, exercise: Exercise) -> list[str]:
    """Hold a solution notebook to the rules of nbgrader, of stubs and of its specification."""
    found: list[str] = []
    by_id: dict[str, Any] = {}
    for position, cell in enumerate(solution.cells):
        meta = grading(cell)
        blind = BLIND & set(cell.metadata.get("tags", []))
        if blind or (cell.cell_type == "code" and "NBVAL_" in cell.source):
            found.append(
                f"cell {position}: nbval must not look away ({', '.join(blind) or 'NBVAL_'})"
            )
        if not meta:
            continue
        missing = {"grade_id", "solution", "grade", "locked", "schema_version"} - set(meta)
        if missing or meta.get("schema_version") != 3:
            found.append(f"cell {position}: nbgrader metadata of schema 3 lack {sorted(missing)}")
            continue
        if meta["grade_id"] in by_id:
            found.append(f"two cells have the grade_id {meta['grade_id']!r}")
        by_id[meta["grade_id"]] = cell
    expected: dict[str, float] = {}
    for answer in exercise.answers:
        found += _answer_problems(answer.name, answer.points, by_id)
        expected[f"check-{answer.name}"] = answer.points
        expected[answer.name] = 0
    for text in exercise.prose:
        cell = by_id.get(text.name)
        if cell is None or cell.cell_type != "markdown":
            found.append(f"no text cell for {text.name!r}")
        elif grading(cell).get("points") != text.points or not grading(cell).get("solution"):
            found.append(
                f"the text cell {text.name!r} must be a solution of {text.points:g} points"
            )
        expected[text.name] = text.points
    surplus = [
        name
        for name, cell in by_id.items()
        if name not in expected and (grading(cell)["grade"] or grading(cell)["solution"])
    ]
    if surplus:
        found.append(f"no specification for the cells {', '.join(surplus)}")
    return found


def _answer_problems(name: str, points: float, by_id: dict[str, Any]) -> list[str]:
    cell, check = by_id.get(name), by_id.get(f"check-{name}")
    if cell is None or cell.cell_type != "code" or not grading(cell)["solution"]:
        return [
            f"no answer cell with the grade_id {name!r}; delete its check cell as well, and the "
            "build writes both"
        ]
    if check is None or check.cell_type != "code":
        return [
            f"no check cell with the grade_id 'check-{name}'; delete the answer cell as well, and "
            "the build writes both"
        ]
    found = []
    if grading(cell)["grade"] or grading(cell)["locked"]:
        found.append(f"the answer cell {name!r} must be neither graded nor locked")
    if not grading(check)["grade"] or grading(check)["solution"] or not grading(check)["locked"]:
        found.append(f"the check of {name!r} must be graded, locked, and no solution")
    if grading(check).get("points") != points:
        found.append(
            f"the check of {name!r} has {grading(check).get('points')} points, not {points:g}"
        )
    if not _ends_with_check(check.source):
        found.append(f"the check of {name!r} must end with check(…), which returns the points")
    functions = {
        node.name: ast.get_docstring(node)
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.FunctionDef)
    }
    if name not in functions:
        found.append(f"the answer cell {name!r} does not define {name}")
    elif not functions[name]:
        found.append(f"{name} has no docstring")
    else:
        try:
            left = stub(cell.source)
        except BadSolution as error:
            return [*found, f"cell {name!r}: {error}"]
        tree = ast.parse(left)
        bodies = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name]
        raises = [n for n in ast.walk(bodies[0]) if isinstance(n, ast.Raise)] if bodies else []
        raised = [getattr(getattr(n.exc, "func", n.exc), "id", "") for n in raises]
        if len(bodies) != 1 or "NotImplementedError" not in raised:
            found.append(f"the stub of {name} does not raise NotImplementedError")
    return found


def _ends_with_check(source: str) -> bool:
    """Say whether a cell's last statement is a call of check, so that its points are the result."""
    try:
        last = ast.parse(source).body[-1:]
    except SyntaxError:
        return False
    if source.rstrip().endswith(";") or not last or not isinstance(last[0], ast.Expr):
        return False
    call = last[0].value
    return isinstance(call, ast.Call) and getattr(call.func, "id", "") == "check"


def build_one(path: Path, course: Path) -> Built:
    """Run a solution, save it, build its exercise, run that, save it."""
    begun = time.monotonic()
    try:
        problems = _build_one(path, course)
    except BadSolution as error:
        problems = [str(error)]
    except Exception as error:
        problems = [f"{type(error).__name__}: {str(error).strip()}"]
    return Built(path.stem, time.monotonic() - begun, tuple(problems))


def _build_one(path: Path, course: Path) -> list[str]:
    solution = nbformat.read(path, as_version=4)
    exercise = catalogue.exercise(path.stem)
    install_cell.put(solution, install_cell.repository(course))
    write_answers(solution, exercise)
    make_stub(solution)  # refuses what must not be handed out before anything is run
    problems = problems_of(solution, exercise)
    if problems:
        return problems
    _run(solution, course / "solutions")
    problems += score_problems(solution, exercise, full=True)
    target = make_stub(solution)
    _run(target, course / "exercises")
    problems += score_problems(target, exercise, full=False)
    if not problems:
        solution.metadata["fewshot"] = {"run": digest(solution)}
        target.metadata["fewshot"] = {"run": digest(target), "from": digest(solution, False)}
        save(solution, path)
        save(target, course / "exercises" / path.name)
    return problems


def _run(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run a notebook as on a fresh machine: no progress of anybody's, no colours."""
    with tempfile.TemporaryDirectory(prefix="fewshot-build-") as scratch:
        environment = {
            **os.environ,
            "FEWSHOT_PROGRESS": str(Path(scratch) / "progress.json"),
            "OMP_NUM_THREADS": "1",
            VARIABLE: SOURCE,
        }
        folder.mkdir(exist_ok=True)
        execute(notebook, folder, environment=environment)
    # What is alive only in the kernel that made it goes; pieces of one stream may then meet.
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("data") != {}]
    tidy(notebook)


def score_problems(notebook: Any, exercise: Exercise, full: bool) -> list[str]:
    """Read the saved outputs: full marks in a solution, none in a stub, no error in either."""
    found = []
    counts = [
        cell["execution_count"]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and source_of(cell).strip()
    ]
    if counts != list(range(1, len(counts) + 1)):
        found.append("it is not saved executed, in order, on a fresh kernel")
    saved = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                found.append(f"a cell fails: {output['ename']}: {output['evalue'][:200]}")
            if output["output_type"] == "stream" and output["name"] == "stderr":
                found.append(f"a cell writes to stderr: {str(_flat(output['text']))[:200]}")
        name = grading(cell).get("grade_id", "")
        results = [o for o in cell["outputs"] if o["output_type"] == "execute_result"]
        if name.startswith("check-") and results:
            saved[name.removeprefix("check-")] = str(_flat(results[0]["data"]["text/plain"]))
    for answer in exercise.answers:
        wanted = f"{answer.points if full else 0:g}"
        if saved.get(answer.name) != wanted:
            found.append(
                f"{answer.name} has {saved.get(answer.name, 'no')} points as saved, not {wanted}"
            )
    return found


def check_one(path: Path, course: Path) -> Built:
    """Say what is stale or wrong about a solution and its exercise, without running either."""
    begun = time.monotonic()
    try:
        found = _check_one(path, course)
    except (BadSolution, catalogue.NoSuchExercise, SyntaxError) as error:
        found = [str(error)]
    return Built(path.stem, time.monotonic() - begun, tuple(found))


def _check_one(path: Path, course: Path) -> list[str]:
    exercise = catalogue.exercise(path.stem)
    read(path)  # says in one sentence what is wrong with the file
    solution = nbformat.read(path, as_version=4)
    if install_cell.put(copy.deepcopy(solution), install_cell.repository(course)):
        return [
            "the cell that installs the course is not what pyproject.toml's Repository makes it: "
            f"run fewshot build {exercise.name}"
        ]
    changed = write_answers(copy.deepcopy(solution), exercise)
    if changed:
        return [
            f"the cells of {', '.join(changed)} are not what exercises/{exercise.name}.py says: "
            f"run fewshot build {exercise.name}"
        ]
    found = problems_of(solution, exercise)
    if solution.metadata.get("fewshot", {}).get("run") != digest(solution):
        found.append("the solution was touched after its last run")
    found += [f"solution: {said}" for said in score_problems(solution, exercise, full=True)]
    file = course / "exercises" / path.name
    if not file.is_file():
        return [*found, f"exercises/{path.name} is missing"]
    read(file)
    target = nbformat.read(file, as_version=4)
    if digest(target, outputs=False) != digest(make_stub(solution), outputs=False):
        found.append(f"exercises/{path.name} is not what the solution makes")
    elif target.metadata.get("fewshot", {}).get("run") != digest(target):
        found.append(f"exercises/{path.name}: outputs are not those of the last run")
    found += [f"exercise: {said}" for said in score_problems(target, exercise, full=False)]
    found += [f"exercise: the answer of {name} stands in it" for name in _leaks(solution, target)]
    return found


def _leaks(solution: Any, target: Any) -> list[str]:
    """Name the answers of which a telling line is still in the exercise."""
    there = {
        line.strip()
        for cell in target.cells
        for line in source_of(cell).split("\n")
        if cell.cell_type == "code"
    }
    leaks = []
    for name, source in answer_cells(solution).items():
        given = set(map(str.strip, stub(source).split("\n")))
        asked = {line.strip() for line in without_markers(source).split("\n")} - given
        if any(len(line) > 30 and line in there for line in asked):
            leaks.append(name)
    return leaks


def orphans(course: Path) -> list[str]:
    """Name exercises that no solution makes, and specifications without a solution."""
    stems = {path.stem for path in solutions(course)}
    left = sorted(
        path.name for path in (course / "exercises").glob("*.ipynb") if path.stem not in stems
    )
    specified = [found.stem for found in catalogue.exercises() if found.stem not in stems]
    return [f"exercises/{name} has no solution" for name in left] + [
        f"solutions/{stem}.ipynb is missing" for stem in specified
    ]


def build(
    course: Path,
    names: Sequence[str] = (),
    check: bool = False,
    say: Callable[[str], None] = print,
) -> int:
    """Build exercises, or with ``check`` say which are stale: the work of ``fewshot build``.

    Arguments:
        course: the folder that holds ``solutions/`` and ``exercises/``.
        names: which ("03_prototypes", "prototypes"); all by default.
        check: run nothing and write nothing, only compare.
        say: is given one line per notebook.

    Returns:
        The exit status: 0 all right, 1 something is wrong.

    Raises:
        BadSolution: a named solution does not exist.
    """
    paths = solutions(course, names)
    work = check_one if check else build_one
    workers = 1 if check else min(2, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(lambda path: work(path, course), paths))
    problems = 0
    for result in results:
        if result.problems:
            problems += 1
            say(f"{result.stem}: " + "\n    ".join(result.problems))
        else:
            done = "up to date" if check else f"built in {result.seconds:.1f} s"
            say(f"{result.stem}: {done}")
    for line in [] if names else orphans(course):
        problems += 1
        say(line)
    if check and problems:
        say("Run `fewshot build` and commit solutions/ and exercises/ together.")
    return 1 if problems else 0
