"""Evaluate a formula that a reader typed: numbers, names, + − * / ^, a few functions.

What people type is read as they mean it where there is one meaning: 2n, 0,5, π, ÷, full-width
digits. Where there are two (1,000 or 1/2n), they are asked. No Python is executed: the expression
is parsed, and every node is looked at. No expression library reads ``2n``, ``３h`` or ``×``, or
says what to type instead.
"""

from __future__ import annotations

import ast
import math
import re
import unicodedata
from collections.abc import Callable, Mapping

from fewshot_lib.checker.language import words

_ = words("reading")

FUNCTIONS: dict[str, Callable[[float], float]] = {
    "exp": math.exp,
    "log": math.log,
    "ln": math.log,
    "sqrt": math.sqrt,
    "abs": abs,
}
CONSTANTS = {"pi": math.pi, "e": math.e}


LONGEST = 200  # characters of an answer

#: Signs that mean what one of Python's means.
SIGNS = str.maketrans(
    {
        **dict.fromkeys("−–—‐‑﹣", "-"),
        **dict.fromkeys("×·⋅∙∗✕⨯•", "*"),
        **dict.fromkeys("÷∕⁄", "/"),
        "π": " pi ",
        "½": "(1/2)",
        "¼": "(1/4)",
        "¾": "(3/4)",
    }
)
POWERS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ", "0123456789-n", strict=True))
TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[^\W\d]\w*)"
    r"|(?P<sign>\*\*|.))",
    re.DOTALL,
)


class BadExpression(ValueError):
    """What was typed is not an expression; the message says what is not understood."""


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
    if len(text) > LONGEST:
        raise BadExpression(_("this is too long for an answer"))
    tidy = _tidy(text)
    percent = tidy.endswith("%")
    tidy = tidy.removesuffix("%").strip()
    if not tidy:
        raise BadExpression(_("nothing was typed"))
    tidy = _with_products(tidy, known)
    try:
        tree = ast.parse(tidy, mode="eval")
        value = _value(tree.body, known, tuple(names or ()))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, BadExpression):
            raise
        said = _("{text} cannot be read as a number or formula")
        raise BadExpression(said.format(text=repr(text.strip()))) from None
    except (ArithmeticError, TypeError):
        said = _("{text} has no finite value")
        raise BadExpression(said.format(text=repr(text.strip()))) from None
    value = value / 100 if percent else value
    if not math.isfinite(value):
        raise BadExpression(_("{text} has no finite value").format(text=repr(text.strip())))
    return value


def rounding(text: str) -> tuple[int, float] | None:
    """Say how finely a number was typed: its significant digits, and half of its last digit.

    Returns:
        None for what is not a plain decimal number.

    >>> rounding("0.67")
    (2, 0.005)
    """
    found = re.fullmatch(r"[+-]?(\d*)(?:\.(\d*))?(\s*%)?", _tidy(text))
    if found is None or not (found[1] or found[2]):
        return None
    whole, decimals = found[1], found[2] or ""
    significant = (whole + decimals).lstrip("0") or (whole + decimals)[-1:]
    unit = 10.0 ** -len(decimals) / (100 if found[3] else 1)
    return len(significant), unit / 2


def _tidy(text: str) -> str:
    """Write what was typed with Python's signs and digits."""
    text = re.sub(
        f"[{''.join(POWERS)}]+", lambda found: f"^({''.join(POWERS[c] for c in found[0])})", text
    )
    text = text.translate(SIGNS)
    text = unicodedata.normalize("NFKC", text).translate(SIGNS)
    text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    text = re.sub(r"^\s*[=≈~]", "", text).strip()
    text = re.sub(r"√\s*(\w+(?:\.\d+)?)", r"sqrt(\1)", text).replace("√", "sqrt")
    if text.count("|") == 2:
        text = re.sub(r"\|([^|]*)\|", r"abs(\1)", text)
    return _without_commas(text).replace("^", "**")


def _without_commas(text: str) -> str:
    """Read a comma between digits as the decimal point, where it can be nothing else."""
    grouped = re.search(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])", text)
    if grouped:
        if not re.match(r"\.\d", text[grouped.end() :]):
            bare = grouped[0].replace(",", "")
            decimal = grouped[0].replace(",", ".", 1).replace(",", "")
            said = _("{text} can mean {bare} or {decimal}; write it without a comma")
            raise BadExpression(said.format(text=repr(grouped[0]), bare=bare, decimal=decimal))
        return text.replace(grouped[0], grouped[0].replace(",", ""))
    return re.sub(r"(?<![\d.])(\d+),(\d+)(?![.,\d])", r"\1.\2", text)


def _with_products(text: str, known: Mapping[str, float]) -> str:
    """Write the * that people leave out: 2n, 3(a + b), n(n + 1); ask where it could mean two."""
    tokens = [
        (found.lastgroup or "", found[found.lastgroup or 0]) for found in TOKEN.finditer(text)
    ]
    written: list[str] = []
    opened: list[int] = []
    start = 0  # of the operand that ends with the last token
    for place, (kind, word) in enumerate(tokens):
        before = tokens[place - 1] if place else ("", "")
        ends = before[0] == "number" or before[1] == ")" or before[1] in known
        begins = word == "(" or kind == "name" or (kind == "number" and before[1] == ")")
        if ends and begins:
            if start and tokens[start - 1][1] in ("/", "**"):
                sign = tokens[start - 1][1].replace("**", "^")
                left = "".join(token for _, token in tokens[start:place])
                said = _("{text} can mean two things; write the * and brackets, as in {clear}")
                clear = f"'{sign}({left}*{word}{'…)' if word == '(' else ''})'"
                raise BadExpression(said.format(text=f"'{sign}{left}{word}'", clear=clear))
            written.append("*")
        if word == "(":
            called = before[0] == "name" and before[1] not in known
            opened.append(start if called else place)
        elif word == ")":
            start = opened.pop() if opened else place
        if kind in ("number", "name"):
            start = place
        written.append(word)
    return " ".join(written)


def _value(node: ast.expr, names: Mapping[str, float], variables: tuple[str, ...]) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        if isinstance(node.value, bool):
            raise BadExpression(_("True and False are not numbers here"))
        return float(node.value)
    if isinstance(node, ast.Name):
        if node.id in names:
            return float(names[node.id])
        raise BadExpression(_unknown(node.id, variables))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand, names, variables)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        left = _value(node.left, names, variables)
        right = _value(node.right, names, variables)
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
                raise BadExpression(_("a root of a negative number is not an answer here"))
            return result
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        function = FUNCTIONS.get(node.func.id.lower())
        if function is None:
            raise BadExpression(_no_function(node.func.id, tuple(names)))
        if len(node.args) != 1:
            said = _("{name} takes one argument, got {n}")
            raise BadExpression(said.format(name=node.func.id, n=len(node.args)))
        return function(_value(node.args[0], names, variables))
    if isinstance(node, ast.Tuple):
        raise BadExpression(_("this comma is not understood; write numbers with a point, as 0.5"))
    said = _("only numbers, names, + - * / ^ and {functions} here")
    raise BadExpression(said.format(functions=", ".join(sorted(FUNCTIONS))))


def _no_function(name: str, known: tuple[str, ...]) -> str:
    """Say that there is no such function; where a name stands before one, that a * is missing."""
    found = re.fullmatch(f"({'|'.join(map(re.escape, known))})({'|'.join(FUNCTIONS)})", name)
    if found:
        said = _("{name} is not a function here; for a product write {product}")
        return said.format(name=repr(name), product=f"{found[1]}*{found[2]}(…)")
    said = _("{name} is not a function here; there are {functions}")
    return said.format(name=repr(name), functions=", ".join(sorted(FUNCTIONS)))


def _unknown(name: str, variables: tuple[str, ...]) -> str:
    """Say that there is no such name; where it is several in a row, that a * is missing."""
    if not variables:
        said = _("{name} is not a number; there are no variables here")
        return said.format(name=repr(name))
    parts = "|".join(sorted(map(re.escape, (*variables, *CONSTANTS)), key=len, reverse=True))
    if re.fullmatch(f"(?:{parts}){{2,}}", name):
        product = "*".join(re.findall(parts, name))
        said = _("{name} is not a variable here; for a product write {product}")
        return said.format(name=repr(name), product=product)
    power = re.fullmatch(rf"({parts})(\d+)", name)
    if power:
        one, digits = power.groups()
        said = _("{name} is not a variable here; write {power} or {product}")
        return said.format(name=repr(name), power=f"{one}^{digits}", product=f"{digits}*{one}")
    said = _("{name} is not a variable here; use {variables}")
    return said.format(name=repr(name), variables=", ".join(variables))
