"""``fewshot check``, ``fewshot build`` and ``fewshot progress`` from the command line."""

from __future__ import annotations

import pytest
from handed_in import NAME as STEM
from handed_in import STUB, dump, with_answers
from typer.testing import CliRunner

from fewshot_lib import cli
from fewshot_lib.checker import progress
from fewshot_lib.grader.selfcheck import check_notebook

RIGHT = """def squared_euclidean(queries, prototypes):
    return (queries[..., :, None, :] - prototypes[..., None, :, :]).square().sum(-1)
"""


def fewshot(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def checked(tmp_path):
    """Give a function that checks exercise 03 with some answers: status, and what was said."""

    def check(**answers: str) -> tuple[int, str]:
        file = tmp_path / "mine.ipynb"
        before = dump(with_answers(STUB, **answers))
        file.write_bytes(before)
        said: list[str] = []
        status = check_notebook(file, said.append)
        assert file.read_bytes() == before
        return status, "\n".join(said)

    return check


def test_a_notebook_is_checked_cell_by_cell_and_left_as_it_was(checked):
    status, text = checked(squared_euclidean=RIGHT, log_posterior="def log_posterior(:")
    assert status == 1
    assert "class_prototypes: not attempted" in text
    assert "squared_euclidean: 5 of 5 points" in text
    assert "A cell fails (the cell of log_posterior): SyntaxError" in text
    assert text.endswith("\nmine.ipynb: 5 of 16 points")
    assert "temperature: a text, not written yet" in text
    assert progress.load()["prototypes.squared_euclidean"].passed


def test_an_answer_that_ends_the_process_is_blamed_and_the_others_are_called(checked):
    status, text = checked(
        class_prototypes="def class_prototypes(embeddings, labels, n_way):\n    return embeddings",
        squared_euclidean="def squared_euclidean(q, p):\n    import os\n    os._exit(7)",
    )
    assert status == 1
    assert "prototypes.class_prototypes: 0 of 5 points" in text
    assert "Calling squared_euclidean ended the process (exit status 7)" in text
    assert "log_posterior: not attempted" in text
    assert text.endswith("mine.ipynb: 0 of 16 points")


def test_a_cell_that_ends_the_process_is_named_and_costs_itself_only(checked):
    status, text = checked(
        class_prototypes="import os\nos.kill(os.getpid(), 9)", squared_euclidean=RIGHT
    )
    assert status == 1
    assert "The cell of class_prototypes ended the process (exit status -9)" in text
    assert text.endswith("mine.ipynb: 5 of 16 points")


def test_nothing_is_written_to_stderr(root, tmp_path, capfd):
    check_notebook(root / "exercises" / f"{STEM}.ipynb", lambda line: None)
    assert capfd.readouterr().err == ""


def test_texts_not_written_are_named_beside_the_points_of_the_checks(root):
    said: list[str] = []
    assert check_notebook(root / "exercises" / "09_self_test.ipynb", said.append) == 1
    text = "\n".join(said)
    assert "key_formulas: not attempted" in text
    assert "deployment: a text, not written yet" in text
    assert said[-1] == "09_self_test.ipynb: 0 of 32 points"


@pytest.mark.parametrize(
    "content",
    [
        *(None, "", "{}", '{"nbformat": 4, "cells": []}'),
        '{"nbformat": 4, "cells": [{"cell_type": "markdown", "source": "Dear A,"}]}',
    ],
)
def test_what_is_no_exercise_gets_one_sentence_and_status_2(tmp_path, content):
    path = tmp_path / "x.ipynb"
    if content is not None:
        path.write_text(content)
    result = fewshot("check", path)
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1
    assert "x.ipynb" in result.output


def test_build_check_says_what_is_up_to_date(root, monkeypatch):
    monkeypatch.chdir(root)
    result = fewshot("build", STEM, "--check")
    assert result.exit_code == 0, result.output
    assert f"{STEM}: up to date" in result.output


def test_build_of_an_unknown_exercise_is_wrong_use(root, monkeypatch):
    monkeypatch.chdir(root)
    result = fewshot("build", "cooking", "--check")
    assert result.exit_code == 2
    assert STEM in result.output


def test_progress_is_shown_and_reset_from_the_command_line():
    progress.attempt("prototypes.class_prototypes", 5, 5)
    assert "1 of" in fewshot("progress").output
    assert "Reset 1 entry." in fewshot("progress", "--reset", "prototypes").output
    assert progress.load() == {}
