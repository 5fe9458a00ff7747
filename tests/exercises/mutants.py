"""Make small wrong programs from a right one, mechanically, to see whether the checks notice.

One change at a time: another operator, a number more or less, an axis, a dropped term, argument or
condition, exchanged arguments. Messages of errors and docstrings are left alone.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

_OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Div, ast.Mult),
    ast.Mod: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
}
_ORDERED = (ast.Sub, ast.Div, ast.MatMult, ast.Pow, ast.FloorDiv, ast.Mod)
_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq, ast.GtE),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_EXCHANGED = (
    *("sum mean", "max min", "amax amin", "maximum minimum", "argmax argmin", "any all", "exp log"),
    *("log_softmax softmax", "zeros ones", "zeros_like ones_like", "square abs", "floor ceil"),
    *("clamp_min clamp_max", "logical_and logical_or"),
)
_NAMES = dict(pair.split() for pair in _EXCHANGED)
_NAMES |= {other: one for one, other in _NAMES.items()}
_NAMES |= {"nanmean": "mean", "logsumexp": "sum", "sqrt": "square"}
_NAMES |= {"stack": "cat", "quantile": "nanquantile"}


@dataclass(frozen=True)
class Mutant:
    """A changed program: the statement before and after, and the source of the whole."""

    change: str
    source: str


def mutants(source: str, function: str) -> list[Mutant]:
    """Make all mutants of one function of a program.

    Arguments:
        source: a program that defines the function.
        function: its name; helper functions beside it are changed, too.

    Returns:
        The mutants, no two with the same source, in the order of the source.

    >>> [m.change for m in mutants("def f(a, b):\\n    return a - b", "f")][:2]
    ['return a - b → return a + b', 'return a - b → return a']
    """
    tree = ast.parse(source)
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    if function not in names:
        raise ValueError(f"the source does not define {function}; it defines {sorted(names)}")
    _strip(tree)
    original = ast.unparse(tree)
    found: dict[str, Mutant] = {}
    raises = [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    messages = {part for node in raises for part in ast.walk(node) if part is not node}
    for position, node in enumerate(ast.walk(tree)):
        for replacement in () if node in messages else _changes(node, tree):
            changed, change = _replaced(tree, position, replacement)
            text = ast.unparse(changed)
            if text == original or text in found:
                continue
            try:
                compile(text, "<mutant>", "exec")
            except (SyntaxError, ValueError):
                continue
            found[text] = Mutant(change, text)
    return list(found.values())


def _strip(tree: ast.Module) -> None:
    """Remove docstrings and annotations: no program's behaviour is in them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            for argument in [*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs]:
                argument.annotation = None


def _changes(node: ast.AST, tree: ast.Module) -> Iterator[ast.AST]:
    if isinstance(node, ast.BinOp):
        for operator in _OPERATORS.get(type(node.op), ()):
            yield ast.BinOp(node.left, operator(), node.right)
        yield node.left
        yield node.right
        if isinstance(node.op, _ORDERED):
            yield ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Compare):
        for position, operation in enumerate(node.ops):
            for comparison in _COMPARISONS.get(type(operation), ()):
                operations = [*node.ops]
                operations[position] = comparison()
                yield ast.Compare(node.left, operations, node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        yield from node.values
    elif isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.Call):
        yield from _calls(node)
    elif isinstance(node, ast.Attribute) and node.attr in ("mT", "T", "mH"):
        yield node.value
    elif isinstance(node, ast.Subscript):
        yield from _subscripts(node)
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.comprehension):
        for position in range(len(node.ifs)):
            rest = node.ifs[:position] + node.ifs[position + 1 :]
            yield ast.comprehension(node.target, node.iter, rest, node.is_async)
    elif isinstance(node, ast.If | ast.While):
        always = [ast.Constant(True)] if isinstance(node, ast.If) else []
        for test in (ast.UnaryOp(ast.Not(), node.test), *always, ast.Constant(False)):
            yield type(node)(test, node.body, node.orelse)
    elif isinstance(node, ast.AugAssign):
        for operator in _OPERATORS.get(type(node.op), ()):
            yield ast.AugAssign(node.target, operator(), node.value)
        yield ast.Pass()
    elif (isinstance(node, ast.Assign) and _reassigns(node, tree)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield ast.Pass()
    elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        yield ast.Raise(ast.Call(ast.Name("ArithmeticError", ast.Load()), node.exc.args, []), None)
    elif isinstance(node, ast.Continue):
        yield ast.Break()
    elif isinstance(node, ast.Break):
        yield ast.Continue()


def _constants(node: ast.Constant) -> Iterator[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield _number(value + 1)
        yield _number(value - 1)
    elif isinstance(value, float):
        yield _number(value * 2 if value else 1.0)
        yield _number(value / 2 if value else -1.0)


def _number(value: float) -> ast.expr:
    return ast.Constant(value) if value >= 0 else ast.UnaryOp(ast.USub(), ast.Constant(-value))


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    for position in range(len(node.keywords)):
        rest = node.keywords[:position] + node.keywords[position + 1 :]
        yield ast.Call(node.func, node.args, rest)
    method = (
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    )
    if name := _NAMES.get(method):
        if isinstance(node.func, ast.Attribute):
            function: ast.expr = ast.Attribute(node.func.value, name, ast.Load())
        else:
            function = ast.Name(name, ast.Load())
        yield ast.Call(function, node.args, node.keywords)
    if len(node.args) >= 2 and not any(isinstance(part, ast.Starred) for part in node.args[:2]):
        yield ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
    if isinstance(node.func, ast.Attribute) and not _is_module(node.func.value):
        yield node.func.value  # x.method(…) → x
    elif node.args and not isinstance(node.args[0], ast.Starred) and method != "range":
        yield node.args[0]  # function(x, …) → x
    if method == "range":
        changed = ast.BinOp(node.args[-1], ast.Sub(), ast.Constant(1))
        yield ast.Call(node.func, [*node.args[:-1], changed], node.keywords)
    if method == "einsum" and node.args and isinstance(node.args[0], ast.Constant):
        left, arrow, right = str(node.args[0].value).partition("->")
        if arrow and len(right.strip()) >= 2:
            swapped = right[:-2] + right[-1] + right[-2]
            yield ast.Call(
                node.func, [ast.Constant(left + arrow + swapped), *node.args[1:]], node.keywords
            )


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("torch", "np", "numpy", "F", "math", "nn")


def _subscripts(node: ast.Subscript) -> Iterator[ast.AST]:
    if isinstance(node.slice, ast.Tuple):
        for position in range(len(node.slice.elts) - 1):
            parts = [*node.slice.elts]
            parts[position], parts[position + 1] = parts[position + 1], parts[position]
            yield ast.Subscript(node.value, ast.Tuple(parts, ast.Load()), node.ctx)
    if isinstance(node.slice, ast.Slice):
        part = node.slice
        if part.lower is not None:
            yield ast.Subscript(node.value, ast.Slice(None, part.upper, part.step), node.ctx)
        if part.upper is not None:
            yield ast.Subscript(node.value, ast.Slice(part.lower, None, part.step), node.ctx)


def _reassigns(node: ast.Assign, tree: ast.Module) -> bool:
    """Say whether what is assigned had a value before, so that its loss is no mere NameError."""
    targets = {name.id for name in ast.walk(node.targets[0]) if isinstance(name, ast.Name)}
    known: set[str] = set()
    for other in ast.walk(tree):
        if isinstance(other, ast.FunctionDef):
            known |= {argument.arg for argument in other.args.args + other.args.kwonlyargs}
        if isinstance(other, ast.Assign) and other.lineno < node.lineno:
            known |= {name.id for name in ast.walk(other.targets[0]) if isinstance(name, ast.Name)}
    return bool(targets & known)


def _replaced(tree: ast.Module, position: int, new: ast.AST) -> tuple[ast.Module, str]:
    """Copy the tree with its ``position``-th node replaced; give it, and what the statement was."""
    changed = copy.deepcopy(tree)
    nodes = list(ast.walk(changed))
    parents = {child: node for node in nodes for child in ast.iter_child_nodes(node)}
    target, new = nodes[position], copy.deepcopy(new)
    statement = target
    while not isinstance(statement, ast.stmt):
        statement = parents[statement]
    before = _headline(statement)

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            return new if node is target else self.generic_visit(node)

    Replace().visit(changed)
    ast.fix_missing_locations(changed)
    return changed, f"{before} → {_headline(new if statement is target else statement)}"


def _headline(node: ast.AST) -> str:
    """Write a statement on one line; of a compound one only its first."""
    return ast.unparse(node).split("\n")[0].strip()
