"""Code and words make one exercise, or one sentence says why they do not."""

from __future__ import annotations

import textwrap

import pytest
import torch

from fewshot_lib.checker.spec import Case
from fewshot_lib.checker.specification import BadSpecification, answer, cell, read


@answer()
def halves(values, total):
    """Divide by the total.

    Half of values is not meant.
    """
    ### BEGIN SOLUTION: divide, if there is something to divide by
    if total == 0:  # values without a total
        raise ValueError("no total")

    scaled = values / total
    return scaled
    ### END SOLUTION


@halves.check("the second", points=2)
@halves.check("the first")
def _cases(g):
    yield Case("two values", (torch.rand(2, generator=g), 4.0))


def _doubled(values, total):
    return 2 * values


WORDS = """
number = 1
title = "Halves"

[halves]
minutes = 5
difficulty = 1
importance = 1
section = "section 1"
hints = ["one", '''two
lines''']

[halves.mistake."wrong"]
says = "This is wrong, for a reason."
edit = "values / total → values * total"

[prose.why]
points = 1
rubric = ["says why"]
model = '''Because
it is.

And so on.'''
"""


def made(way: str, words: str = WORDS):
    names = {"__name__": "toy", "halves": halves, "_doubled": _doubled, "torch": torch}
    return read(words.replace('edit = "values / total → values * total"', way), names, "toy")


def wrong(way: str):
    """Make the mistake, and give what it makes of 6 and 2."""
    return made(way)["halves"].mistakes[0].function(6.0, 2.0)


def test_code_and_words_are_one_exercise():
    found = made('edit = "values / total → values * total"')
    one, [text] = found["halves"], found.prose
    assert [(check.name, check.points) for check in one.checks] == [
        ("the first", 1),
        ("the second", 2),
    ]
    assert one.reference is one.solution
    assert halves(6.0, 2.0) == 3.0
    assert one.hints == ["one", "two lines"]
    assert one.mistakes[0].pointer == one.section == "section 1"
    assert text.model == "Because it is.\n\nAnd so on."


def test_a_cell_is_the_source_without_decorators():
    lines = cell(halves.function).split("\n")
    assert lines[0] == "def halves(values, total):"
    assert lines[-1] == "    ### END SOLUTION"


@pytest.mark.parametrize(
    ("way", "result"),
    [
        ('edit = "values / total → values * total"', 12.0),
        ('edit = ["values / total → values", "return → return -"]', -6.0),
        ('edit = "/ total →"', 6.0),
        ('first = "total = 3.0"', 2.0),
        ('first = "total = 3.0"\nedit = "values / total → values - total"', 3.0),
        ('every = "scaled → other"', 3.0),
        ('body = "return 1 - halves(values, total)"', -2.0),  # the right one
        ('function = "_doubled"', 12.0),
        ('edit = """\nif total == 0:\n    raise ValueError("no total") →\ntotal += 1"""', 2.0),
        ("edit = '''\nraise ValueError(\"no total\") →\nif total:\n    total = 1'''", 3.0),
    ],
)
def test_a_mistake_is_made_from_the_solution(way, result):
    assert wrong(way) == result


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ('edit = "meant → x"', "'meant' stands 0 times, not once"),  # docstrings are not edited
        ('edit = "scaled → x"', "'scaled' stands 2 times, not once"),
        ('every = "if → x"', "'if' stands 1 times, not twice or more"),
        ('edit = "values / total"', "an edit is «before → after»"),
        ('edit = "return → return ("', "was never closed"),
    ],
)
def test_an_edit_that_does_not_fit_says_so_when_it_is_called_and_not_before(way, says):
    function = made(way)["halves"].mistakes[0].function
    with pytest.raises(BadSpecification, match="halves: wrong") as caught:
        function(1.0, 1.0)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("number = 1", "", "it begins with number"),
        ("minutes = 5", "", "halves: minutes missing"),
        ("minutes = 5", 'minutes = "5"', "minutes is of the wrong kind"),
        ("minutes = 5", "minutes = 5\nminuets = 5", "'minuets' is none of"),
        ("[halves", "[thirds", "no table for the answers ['halves']"),
        ("[prose.why]", "[thirds]\n[prose.why]", "no solution in the module for ['thirds']"),
        ("says = ", "said = ", "'said' is none of says"),
        ("edit = ", "pointer = ", "one of edit, every, first, body, function; has []"),
        ("edit = ", 'body = "return 1"\nedit = ', "has ['body', 'edit']"),
        ("[prose.why]", '[halves.mistake."wrong"]\n[prose.why]', "twice"),
        ("model = '''", "modle = '''", "'modle' is none of points"),
        ("edit = ", 'function = "_nothing" #', "the module has no function '_nothing'"),
    ],
)
def test_words_that_do_not_fit_are_refused_with_the_place(before, after, says):
    with pytest.raises(BadSpecification) as caught:
        made('edit = "values / total → values * total"', WORDS.replace(before, after))
    assert says in str(caught.value)
    assert "\n" not in textwrap.dedent(str(caught.value)).strip()
