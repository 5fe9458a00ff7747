"""The worked example of CONTRIBUTING, run as a new author would write it."""

from __future__ import annotations

import importlib
import re
import sys

import proof
import pytest

from fewshot_lib.checker import specification


@pytest.fixture(scope="module")
def exercise(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("example")
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for kind, ending in (("python", "py"), ("toml", "toml")):
        (block,) = re.findall(rf"```{kind}\n(.*?)```", text, flags=re.S)
        (folder / f"overlap.{ending}").write_text(block, encoding="utf-8")
    sys.path.insert(0, str(folder))
    yield importlib.import_module("overlap").EXERCISE
    sys.path.remove(str(folder))
    del sys.modules["overlap"]


def test_the_worked_example_of_contributing_proves_itself(exercise):
    answer = exercise["overlap"]
    nbgrader = {"grade_id": "overlap", "solution": True, "grade": False}
    source = specification.cell(answer.solution)
    cell = {"cell_type": "code", "source": source, "metadata": {"nbgrader": nbgrader}}
    notebook = {"cells": [cell]}
    found = proof.prove_mutants(exercise, answer, notebook)
    assert proof.prove_stub(exercise, answer, proof.stub_function(notebook, answer)) == []
    assert proof.prove_seeds(exercise, answer, answer.solution, range(50)) == []
    assert proof.prove_mistakes(exercise, answer, 0) == []
    assert found.survivors == []
    assert proof.prove_every_check_can_fail(exercise, answer, found.killers) == []
