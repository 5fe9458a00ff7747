"""Say what is what in a submission: which cells are as handed out, which are answers, which texts.

A submission is run as it was handed in. What is found here changes no mark: it says which cells
cannot matter (unchanged ones that nothing reads), what to show beside an answer, and where the
student's texts are, wherever they were put.
"""

from __future__ import annotations

import contextlib
import dis
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fewshot_lib.checker.language import translate
from fewshot_lib.checker.notebook import WRITE_HERE, grading, source_of
from fewshot_lib.checker.spec import Exercise


@dataclass(frozen=True)
class Template:
    """A notebook as handed out, in the form in which submissions are compared with it.

    Arguments:
        exercise: its specification.
        code: of each code cell that asks nothing, by its source: the names it binds and reads.
        stubs: the sources of cells to be answered, by ``grade_id``.
        texts: for each text to be written, the source of the cell before it.
        fixed: the sources of all cells that ask nothing.
    """

    exercise: Exercise
    code: Mapping[str, Mapping[str, Sequence[str]]]
    stubs: Mapping[str, str]
    texts: Mapping[str, str]
    fixed: frozenset[str]

    @classmethod
    def of(cls, exercise: Exercise, built: Mapping[str, Any]) -> Template:
        """Take a template from an exercise's built notebook."""
        code, stubs, texts, fixed, before = {}, {}, {}, set(), ""
        for cell in built["cells"]:
            source = source_of(cell).strip()
            if grading(cell).get("solution"):
                name = str(grading(cell)["grade_id"])
                stubs[name] = source
                if cell["cell_type"] != "code":
                    texts[name] = before
            else:
                fixed.add(source)
                if cell["cell_type"] == "code":
                    with contextlib.suppress(SyntaxError):  # with magics: it runs in any case
                        code[source] = names_of(source)
            before = source
        return cls(exercise, code, stubs, texts, frozenset(fixed))


@dataclass(frozen=True)
class Assembled:
    """What is run, and what there is to say about the file.

    Arguments:
        cells: all code cells, in order, as :class:`sandbox.Job` takes them.
        remarks: one sentence each, for student and teacher.
        sources: the code of each answer as it stands in the end, by name.
        texts: what was written for each text, by name; "" where nothing was.
        attachments: pictures in those texts, by text and name.
        places: for each code cell a few words that name it.
    """

    cells: tuple[Mapping[str, Any], ...]
    remarks: tuple[str, ...]
    sources: Mapping[str, str]
    texts: Mapping[str, str]
    attachments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    places: tuple[str, ...] = ()


def names_of(source: str) -> dict[str, list[str]]:
    """Give the names that a handed-out cell binds, and those that it reads.

    >>> names_of("a = b + c")
    {'binds': ['a'], 'reads': ['b', 'c']}
    """
    binds: set[str] = set()
    reads: set[str] = set()
    pending: list[types.CodeType] = [compile(source, "", "exec", dont_inherit=True)]
    while pending:
        code = pending.pop()
        pending += [part for part in code.co_consts if isinstance(part, types.CodeType)]
        for step in dis.get_instructions(code):
            if step.opname in ("STORE_NAME", "STORE_GLOBAL", "DELETE_NAME", "DELETE_GLOBAL"):
                if code.co_name == "<module>" or step.opname.endswith("GLOBAL"):
                    binds.add(str(step.argval))
            elif step.opname in ("LOAD_NAME", "LOAD_GLOBAL"):
                reads.add(str(step.argval))
    return {"binds": sorted(binds), "reads": sorted(reads)}


def assemble(template: Template, submitted: Sequence[Mapping[str, Any]]) -> Assembled:
    """Say what is what in a submission.

    Arguments:
        template: of the exercise.
        submitted: the cells of a submission, from ``reader.Reader``.
    """
    names = [answer.name for answer in template.exercise.answers]
    cells: list[dict[str, Any]] = []
    places: list[str] = []
    remarks: list[str] = []
    sources: dict[str, str] = {}
    defining: dict[str, int] = dict.fromkeys(names, 0)
    for cell in submitted:
        if cell["cell_type"] != "code":
            if cell.get("grade_id") in defining:
                remarks.append(
                    f"The answer cell {cell['grade_id']!r} is no longer a code cell, so it was not "
                    "run. Turn it back into a code cell (in JupyterLab: press Esc, then Y)."
                )
            continue
        source = cell["source"]
        found = {"index": len(cells), "source": source, "answer": ""}
        known = template.code.get(source.strip())
        if known is not None:
            found |= known
            places.append("a handed-out cell")
        else:
            here = [name for name in names if name in cell["defines"]]
            marked = cell.get("grade_id")
            found["answer"] = here[-1] if here else marked if marked in defining else ""
            places.append(f"the cell of {found['answer']}" if found["answer"] else _first(source))
            for name in here or ([found["answer"]] if found["answer"] not in sources else []):
                if name:
                    sources[name] = source
            for name in here:
                defining[name] += source.strip() != template.stubs.get(name)
        cells.append(found)
    for name in names:
        if name not in sources:
            remarks.append(
                f"No cell of this notebook defines {name}, so that answer counts as not attempted. "
                "If it was renamed, hand in the notebook with the name as it was."
            )
        elif defining[name] > 1:
            remarks.append(
                f"{name} is defined in {defining[name]} cells; the one that runs last counts."
            )
    texts, attachments = _texts(template, submitted)
    return Assembled(tuple(cells), tuple(remarks), sources, texts, attachments, tuple(places))


def _first(source: str) -> str:
    line = next((line.strip() for line in source.split("\n") if line.strip()), "an empty cell")
    return f"the cell that begins {line[:60]!r}"


def _texts(
    template: Template, submitted: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Collect what was written for each text: in its cell, and in cells added below it.

    If the cell has lost its identity, what stands where it was counts.
    """
    texts: dict[str, str] = {}
    attachments: dict[str, dict[str, Any]] = {}
    for name, before in template.texts.items():
        marked = [i for i, cell in enumerate(submitted) if cell.get("grade_id") == name]
        if not marked:  # look for what stands after the cell that was before it
            marked = [i + 1 for i, cell in enumerate(submitted) if cell["source"].strip() == before]
        pieces: list[str] = []
        pictures: dict[str, Any] = {}
        for cell in _written(template, submitted, marked[0] if marked else len(submitted), name):
            words = cell["source"].strip()
            if words != template.stubs[name]:
                here = translate(WRITE_HERE, f"exercises/{template.exercise.name}")
                pieces.append(words.replace(here, "").replace(WRITE_HERE, "").strip())
            pictures |= cell.get("attachments", {})
        texts[name] = "\n\n".join(piece for piece in pieces if piece)
        if pictures:
            attachments[name] = pictures
    return texts, attachments


def _written(
    template: Template, submitted: Sequence[Mapping[str, Any]], start: int, name: str
) -> Iterator[Mapping[str, Any]]:
    for cell in submitted[start:]:
        own = cell.get("grade_id") == name
        other = cell.get("grade_id") in template.stubs or cell["source"].strip() in template.fixed
        if cell["cell_type"] == "code" or (other and not own):
            return
        yield cell
