"""Time otter-grader on a notebook: ``python otter_times.py NOTEBOOK EXERCISE NUMBER``, in its venv.

Each answer is a test file of otter's own form; it runs the course's public cases.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

TEST = """
from otter.test_files import test_case

OK_FORMAT = True
test = {{
    "name": "{answer}",
    "points": {points},
    "suites": [{{"cases": [{{"code": r'''
>>> import fewshot_lib.course
>>> from fewshot_lib.checker import catalogue
>>> from fewshot_lib.checker.cells import examine
>>> exercise = catalogue.exercise("{exercise}")
>>> verdict = examine(exercise, exercise["{answer}"], {answer})[0]
>>> verdict.points == verdict.max_points
True
'''}}], "type": "doctest"}}],
}}
"""


def main(notebook: Path, name: str, number: int) -> None:
    """Print the seconds of each submission and the share of the points, as JSON."""
    from otter.api import grade_submission
    from otter.generate import main as generate

    import fewshot_lib.course  # noqa: F401 - says which course it is
    from fewshot_lib.checker import catalogue

    exercise = catalogue.exercise(name)
    folder = Path(tempfile.mkdtemp(prefix="otter-"))
    os.chdir(folder)
    (folder / "tests").mkdir()
    for answer in exercise.answers:
        text = TEST.format(answer=answer.name, points=answer.points, exercise=exercise.name)
        (folder / "tests" / f"{answer.name}.py").write_text(text, encoding="utf-8")
    generate(tests_dir="tests", no_requirements=True, no_environment=True, no_config=True)
    seconds, shares = [], []
    for student in range(number):
        copy = folder / f"student{student}" / notebook.name
        copy.parent.mkdir()
        shutil.copy(notebook, copy)
        begun = time.perf_counter()
        found = grade_submission(str(copy), "autograder.zip", quiet=True)
        seconds.append(time.perf_counter() - begun)
        shares.append(found.total / found.possible)
    print(json.dumps({"seconds": seconds, "shares": shares}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2], int(sys.argv[3]))
