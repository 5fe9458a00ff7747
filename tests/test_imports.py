"""Who may import whom (the house rule), read from the source, and what an import costs."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "fewshot_lib"

MATHEMATICS = {
    "_tensors",
    "episodes",
    "prototypes",
    "mixture",
    "networks",
    "training",
    "evaluation",
}
LESSONS = {"_console", "data", "figures", "reading", "transfer"}

# Every module or package of fewshot_lib, and the others of them that it may import.
ALLOWED = {
    **{name: MATHEMATICS for name in MATHEMATICS},
    **{name: MATHEMATICS | LESSONS for name in LESSONS},
    "_console": set(),
    "transfer": MATHEMATICS | {"data"},
    "exercises": MATHEMATICS | LESSONS,
    "classroom": MATHEMATICS | LESSONS | {"exercises"},
    "cli": MATHEMATICS | LESSONS | {"exercises", "classroom"},
    "__main__": {"cli"},
    "__init__": set(),
}
# What the mathematics may import from outside. A progress bar only inside the function showing it.
MATHEMATICS_LIBRARIES = {"torch", "numpy"}
LAZY_LIBRARIES = {"training": {"tqdm"}}


def unit_of(path: Path) -> str:
    """Name the part of the house that a file belongs to: the first name below fewshot_lib."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(tree: ast.Module, package: str) -> Iterator[tuple[str, bool]]:
    """Yield every module that the source names in an import, and whether it is inside a function.

    Relative imports are made absolute, ``from fewshot_lib import data`` names fewshot_lib.data.
    """
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = [] if node.level == 0 else parts
            module = ".".join([*start, *([node.module] if node.module else [])])
            if module == "fewshot_lib":
                for alias in node.names:
                    yield f"fewshot_lib.{alias.name}", id(node) in inside
            else:
                yield module, id(node) in inside


def wrong_imports(source: str, unit: str, package: str) -> list[str]:
    """List what a source file of ``unit`` imports against the rule."""
    wrong = []
    for module, lazy in imported(ast.parse(source), package):
        top, *rest = module.split(".")
        if top == "fewshot_lib":
            target = rest[0] if rest else "__init__"
            known = target in ALLOWED and target != "__init__"
            if known and target != unit and target not in ALLOWED[unit]:
                wrong.append(f"{unit} imports fewshot_lib.{target}")
        elif unit in MATHEMATICS:
            lazily = LAZY_LIBRARIES.get(unit, set()) if lazy else set()
            if top not in sys.stdlib_module_names | MATHEMATICS_LIBRARIES | lazily:
                wrong.append(f"{unit} imports {top}")
    return wrong


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


def test_every_module_has_its_place_in_the_import_rule():
    units = {unit_of(path) for path in SOURCES}
    assert units <= set(ALLOWED), f"no rule yet for {units - set(ALLOWED)}"
    assert {"episodes", "prototypes", "mixture"} <= units


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_place_allows(path):
    package = ".".join(["fewshot_lib", *path.relative_to(PACKAGE).parent.parts])
    assert not wrong_imports(path.read_text(encoding="utf-8"), unit_of(path), package)


@pytest.mark.parametrize(
    ("source", "unit", "package"),
    [
        ("from fewshot_lib.exercises import check", "prototypes", "fewshot_lib"),
        ("import fewshot_lib.classroom.grade", "exercises", "fewshot_lib.exercises"),
        ("from fewshot_lib import figures", "mixture", "fewshot_lib"),
        ("from . import cli", "training", "fewshot_lib"),
        ("from ..classroom import grade", "reading", "fewshot_lib.reading"),
        ("def f():\n    from fewshot_lib.reading import explore", "episodes", "fewshot_lib"),
        ("import scipy.ndimage", "evaluation", "fewshot_lib"),
        ("def f():\n    import sklearn", "training", "fewshot_lib"),
        ("import tqdm", "training", "fewshot_lib"),
    ],
)
def test_the_rule_notices_a_forbidden_import(source, unit, package):
    assert wrong_imports(source, unit, package)


@pytest.mark.parametrize(
    ("source", "unit", "package"),
    [
        ("from __future__ import annotations\nimport math, torch", "prototypes", "fewshot_lib"),
        ("from . import prototypes", "mixture", "fewshot_lib"),
        ("from fewshot_lib import __version__", "cli", "fewshot_lib"),
        ("import matplotlib", "figures", "fewshot_lib.figures"),
        ("from .spec import x\nfrom ..data import y", "exercises", "fewshot_lib.exercises"),
    ],
)
def test_the_rule_lets_an_allowed_import_pass(source, unit, package):
    assert not wrong_imports(source, unit, package)


def python_says(code: str) -> object:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    return json.loads(result.stdout)


def test_importing_the_mathematics_loads_nothing_that_torch_does_not():
    modules = [f"fewshot_lib.{path.stem}" for path in SOURCES if unit_of(path) in MATHEMATICS]
    loaded = python_says(
        "import sys, json, torch, torch.utils.data, numpy\n"
        "before = set(sys.modules)\n"
        f"import {', '.join(modules)}\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    allowed = {"fewshot_lib", *sys.stdlib_module_names}
    assert [name for name in loaded if name.split(".")[0] not in allowed] == []
    assert set(modules) <= set(loaded)


def test_importing_the_package_alone_loads_no_torch():
    code = "import sys, json, fewshot_lib; print(json.dumps('torch' in sys.modules))"
    assert python_says(code) is False
