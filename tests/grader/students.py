"""The students of exercise 03 whom one run of ``fewshot grade`` grades for many tests."""

from __future__ import annotations

import copy
from pathlib import Path

from handed_in import SOLUTION, STUB, UNSQUARED, changed, prefixed, with_answers, with_code

from fewshot_lib.checker.notebook import grading, source_of

FORGED = Path(__file__).parents[1] / "hostile" / "submissions" / "forged_reply.txt"

#: Full marks, none, some, full and none.
FIVE = {
    "anna, a solution": SOLUTION,
    "ben, a stub": STUB,
    "carl, a typical mistake": changed(".square().sum(dim=-1)", ".square().sum(dim=-1).sqrt()"),
    "dora, right, warns and prints": prefixed(
        "import sys, warnings\nwarnings.warn('careful')\nprint('x' * 10**6)\n"
        "print('oh', file=sys.stderr)\n%matplotlib inline"
    ),
    "eve, hostile": with_code(FORGED.read_text(encoding="utf-8")),
}


def lost_cell() -> dict:
    """Delete an answer's cell and write it anew, as a student does who lost it."""
    notebook = copy.deepcopy(SOLUTION)
    for cell in notebook["cells"]:
        if grading(cell).get("grade_id") == "squared_euclidean":
            cell["metadata"], cell["id"] = {}, "brand-new"
    return notebook


def of_an_older_build() -> dict:
    """Hand in what an earlier build of the exercise would have been: other words, other cells."""
    notebook = copy.deepcopy(SOLUTION)
    notebook["metadata"] = {"kernelspec": {"name": "python2"}, "fewshot": {"run": "an older one"}}
    cells = []
    for number, cell in enumerate(notebook["cells"]):
        source, name = source_of(cell), grading(cell).get("grade_id")
        if "example, hint, rubric" in source:
            source = source.replace("example, hint, rubric", "rubric") + "\nimport math\n"
        elif name == "log_posterior":  # not answered, and the stub of then read otherwise
            source = "def log_posterior(queries, prototypes, scale=1.0):\n"
            source += "    raise NotImplementedError('write it')"
        elif name == "check-squared_euclidean":
            cell["metadata"]["nbgrader"] |= {"grade_id": "tests_for_distance", "points": 99}
            source = "assert squared_euclidean is not None"
        elif not name:
            source = source.replace("Exercise 03", "Exercise 3") + "\n"
        cells.append({**cell, "source": source, "id": f"old-{number}"})
        if number == 5:
            added = "from fewshot_lib.exercises import not_there_any_more\n"
            cells.append({**cells[1], "source": added, "id": "old-import"})
    notebook["cells"] = cells
    return notebook


ODD = {
    "finn (lost the cell's identity)": lost_cell(),
    "gail (numpy)": changed(
        "return difference.square().sum(dim=-1)", "return difference.square().sum(dim=-1).numpy()"
    ),
    "hans (an older build)": of_an_older_build(),
    "ida (leaves)": prefixed("import os\nos._exit(0)"),
}

UNWRITTEN = (
    'def squared_euclidean(queries, prototypes):\n    raise NotImplementedError("write it")\n'
)
CALLS_IT = """import torch
def log_posterior(queries, prototypes, scale=1.0):
    return torch.log_softmax(-scale * squared_euclidean(queries, prototypes), dim=-1)
"""
#: Looks for what stands in and tries to answer the first question with it, too.
THIEF = """import torch
def squared_euclidean(queries, prototypes):
    for value in list(globals().values()):
        code = getattr(value, "__code__", None)
        if code is not None and "course" in code.co_filename:
            return value(queries, prototypes)
    stolen = vars(__import__("builtins")).get("stolen")
    if stolen is not None and "course" in stolen.__code__.co_filename:  # not this one itself
        return stolen(queries, prototypes)
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


def lost_identity() -> dict:
    """Two answers in one cell of the student's own: what stands in must come after it."""
    notebook = with_answers(squared_euclidean="", log_posterior="")
    for cell in notebook["cells"]:
        if grading(cell).get("grade_id") == "log_posterior":
            cell["metadata"], cell["id"], cell["source"] = {}, "own", UNSQUARED + CALLS_IT
    return notebook


#: An answer that calls another one, which is wrong; and some that want what stands in for it.
CALLING = {
    "wrong, then right": with_answers(squared_euclidean=UNSQUARED, log_posterior=CALLS_IT),
    "unwritten, then right": with_answers(squared_euclidean=UNWRITTEN, log_posterior=CALLS_IT),
    "wrong, and both in one cell": lost_identity(),
    "wrong, then wrong": with_answers(
        squared_euclidean=UNSQUARED, log_posterior=CALLS_IT.replace("-scale", "scale")
    ),
    "right together only": with_answers(
        squared_euclidean=UNSQUARED,
        log_posterior=CALLS_IT.replace("prototypes), dim", "prototypes)**2, dim"),
    ),
    "thief": with_answers(squared_euclidean=UNSQUARED, log_posterior=THIEF),
    "forger": with_answers(
        squared_euclidean=UNSQUARED, log_posterior=THIEF.replace("    #FORGE#", FORGERY)
    ),
}

EVERYBODY = FIVE | ODD | CALLING
