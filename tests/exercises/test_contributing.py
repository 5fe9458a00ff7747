"""The worked example of CONTRIBUTING, run as a new author would write it."""

from __future__ import annotations

import re

import pytest

import proof


@pytest.fixture(scope="module")
def blocks(root):
    section = (
        (root / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Adding an exercise")[1]
    )
    return re.findall(r"```python\n(.*?)```", section, flags=re.S)


@pytest.fixture(scope="module")
def exercise(blocks):
    names: dict = {}
    exec(blocks[0], names)
    return names["EXERCISE"]


@pytest.fixture(scope="module")
def notebook(blocks):
    answer = {"grade_id": "overlap", "solution": True, "grade": False}
    cell = {"cell_type": "code", "source": blocks[1], "metadata": {"nbgrader": answer}}
    return {"cells": [cell]}


def test_the_worked_example_of_contributing_proves_itself(exercise, notebook):
    answer = exercise["overlap"]
    function = proof.solution_function(notebook, answer)
    found = proof.prove_mutants(exercise, answer, notebook)
    assert proof.prove_form(exercise, answer) == []
    assert proof.prove_stub(exercise, answer, proof.stub_function(notebook, answer)) == []
    assert proof.prove_seeds(exercise, answer, function, range(50)) == []
    assert proof.prove_mistakes(exercise, answer, 0) == []
    assert proof.prove_variants(exercise, answer, function, 0)[1] == []
    assert found.survivors == []
    assert proof.prove_every_check_can_fail(exercise, answer, found.killers) == []


def test_the_example_ends_its_check_cell_with_the_check(blocks):
    assert blocks[2].strip() == 'check("overlap", overlap)'
