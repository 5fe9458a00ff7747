"""Evaluate a formula that a reader typed: numbers, names, + − * / ^, a few functions.

Nothing else can be written in it: the expression is parsed, every node is looked at, and no Python
is executed.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping

FUNCTIONS: dict[str, Callable[[float], float]] = {
    "exp": math.exp,
    "log": math.log,
    "ln": math.log,
    "sqrt": math.sqrt,
    "abs": abs,
}
CONSTANTS = {"pi": math.pi, "e": math.e}


class BadExpression(ValueError):
    """What was typed is no expression; the message says what is not understood."""


def evaluate(text: str, names: Mapping[str, float] | None = None) -> float:
    """Compute an expression's value.

    Arguments:
        text: as typed: "exp(1)/(exp(1)+exp(-1))", "88.1%", "2^3", "v/n".
        names: values of the variables that may occur.

    Returns:
        The value, finite.

    Raises:
        BadExpression: something in it is not understood, or it has no finite value.

    >>> evaluate("2 * n^2", {"n": 3})
    18.0
    """
    known = {**CONSTANTS, **(names or {})}
    tidy = text.strip().replace("^", "**").replace("−", "-").replace("·", "*").replace("×", "*")
    percent = tidy.endswith("%")
    tidy = tidy.removesuffix("%").strip()
    if "," in tidy and "." not in tidy:
        tidy = tidy.replace(",", ".")
    if not tidy:
        raise BadExpression("nothing was typed")
    if len(tidy) > 200:
        raise BadExpression("this is too long for an answer")
    try:
        tree = ast.parse(tidy, mode="eval")
        value = _value(tree.body, known)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, BadExpression):
            raise
        raise BadExpression(f"{text.strip()!r} cannot be read as a number or formula") from None
    except (ArithmeticError, TypeError):
        raise BadExpression(f"{text.strip()!r} has no finite value") from None
    value = value / 100 if percent else value
    if not math.isfinite(value):
        raise BadExpression(f"{text.strip()!r} has no finite value")
    return value


def _value(node: ast.expr, names: Mapping[str, float]) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        if isinstance(node.value, bool):
            raise BadExpression("True and False are no numbers here")
        return float(node.value)
    if isinstance(node, ast.Name):
        if node.id in names:
            return float(names[node.id])
        raise BadExpression(f"{node.id!r} is no name here; there are {', '.join(sorted(names))}")
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand, names)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, names), _value(node.right, names)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Div):
            return left / right
        if isinstance(node.op, ast.Pow):
            result = left**right
            if isinstance(result, complex):
                raise BadExpression("a root of a negative number is no answer here")
            return result
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        if node.func.id not in FUNCTIONS or len(node.args) != 1:
            raise BadExpression(f"functions are {', '.join(sorted(FUNCTIONS))}, of one argument")
        return FUNCTIONS[node.func.id](_value(node.args[0], names))
    raise BadExpression(f"only numbers, names, + - * / ^ and {', '.join(sorted(FUNCTIONS))} here")
