"""Mutants are one change each, different from each other, and leave messages alone."""

from __future__ import annotations

import ast

import pytest
from mutants import mutants


def changes(body: str, signature: str = "a, b") -> list[str]:
    source = f"def f({signature}):\n" + "".join(f"    {line}\n" for line in body.split("\n"))
    return [mutant.change for mutant in mutants(source, "f")]


@pytest.mark.parametrize(
    ("body", "change"),
    [
        ("return a + b", "return a + b → return a - b"),
        ("return a + b", "return a + b → return b"),
        ("return a - b", "return a - b → return b - a"),
        ("return a * b", "return a * b → return a / b"),
        ("return a ** 2", "return a ** 2 → return a ** 3"),
        ("return a @ b", "return a @ b → return b @ a"),
        ("return a < b", "return a < b → return a <= b"),
        ("return a == b", "return a == b → return a != b"),
        ("return -a", "return -a → return a"),
        ("return not a", "return not a → return a"),
        ("return a and b", "return a and b → return a or b"),
        ("return a.sum(dim=-1)", "return a.sum(dim=-1) → return a.sum()"),
        ("return a.sum(dim=-1)", "return a.sum(dim=-1) → return a.mean(dim=-1)"),
        ("return a.sum(dim=-1)", "return a.sum(dim=-1) → return a.sum(dim=-2)"),
        ("return a.sum(dim=-1)", "return a.sum(dim=-1) → return a"),
        ("return torch.exp(a)", "return torch.exp(a) → return a"),
        ("return g(a, b)", "return g(a, b) → return g(b, a)"),
        ("return a.mT", "return a.mT → return a"),
        ("return a[1:]", "return a[1:] → return a[:]"),
        ("return a[..., None, :]", "return a[..., None, :] → return a[..., :, None]"),
        ("return a[0]", "return a[0] → return a[1]"),
        ("return a if b else 0.5", "return a if b else 0.5 → return a"),
        ("return 0.5", "return 0.5 → return 1.0"),
        ("return True", "return True → return False"),
        ("if a:\n    return b\nreturn 1", "if a: → if not a:"),
        ("if a:\n    return b\nreturn 1", "if a: → if False:"),
        (
            "if a:\n    raise ValueError('x')\nreturn 1",
            "raise ValueError('x') → raise ArithmeticError('x')",
        ),
        ("a += b\nreturn a", "a += b → pass"),
        ("a = a - b\nreturn a", "a = a - b → pass"),
        (
            "return [x for x in a if x > b]",
            "return [x for x in a if x > b] → return [x for x in a]",
        ),
        (
            "return [x for x in range(a)]",
            "return [x for x in range(a)] → return [x for x in range(a - 1)]",
        ),
        (
            "return torch.einsum('ij,jk->ik', a, b)",
            "return torch.einsum('ij,jk->ik', a, b) → "
            "return torch.einsum('ij,jk->ki', a, b)",
        ),
    ],
)  # fmt: skip
def test_each_kind_of_change_is_made(body, change):
    assert change in changes(body)


def test_messages_and_docstrings_are_left_alone():
    source = (
        'def f(a):\n    """Add 1."""\n    if a:\n        raise ValueError(f"{a + 1} is wrong")\n'
    )
    for mutant in mutants(source, "f"):
        assert "a - 1" not in mutant.source


def test_every_mutant_is_a_program_different_from_all_others():
    source = (
        "def f(a, b=1.0):\n    c = (a[..., None] - b) ** 2\n    if c.sum() > 3 and not b:\n"
        "        c = c / 2\n    return c.mean(dim=0, keepdim=True)\n"
    )
    made = mutants(source, "f")
    assert len(made) > 30
    assert len({mutant.source for mutant in made}) == len(made)
    for mutant in made:
        ast.parse(mutant.source)
    assert ast.unparse(ast.parse(source)) not in {mutant.source for mutant in made}


def test_a_source_without_the_function_is_refused():
    with pytest.raises(ValueError, match="does not define g"):
        mutants("def f(): pass", "g")
