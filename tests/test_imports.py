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
    "heads",
    "networks",
    "training",
    "evaluation",
    "surfaces",
}
LESSONS = {"data", "figures", "reading", "superpixels", "transfer"}
EVERYTHING = MATHEMATICS | LESSONS | {"checker", "course", "exercises", "grader", "tools"}

# Every module or package of fewshot_lib, and the others of them that it may import.
ALLOWED = {
    **{name: MATHEMATICS for name in MATHEMATICS},
    "checker": set(),
    "grader": {"checker", "__init__"},
    **{name: MATHEMATICS | LESSONS | {"checker"} for name in LESSONS},
    "transfer": MATHEMATICS | {"data"},
    "superpixels": MATHEMATICS,
    "exercises": MATHEMATICS | LESSONS | {"checker"},
    "course": EVERYTHING,
    "tools": EVERYTHING,
    "cli": EVERYTHING,
    "__main__": {"cli"},
    "__init__": set(),
}
# What the mathematics may import from outside. A progress bar or SciPy's search only
# inside the function that uses it.
MATHEMATICS_LIBRARIES = {"torch", "numpy"}
LAZY_LIBRARIES = {"training": {"tqdm"}, "surfaces": {"scipy"}}


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


def test_every_module_imports_only_what_its_place_allows():
    units = {unit_of(path) for path in SOURCES}
    assert units <= set(ALLOWED), f"no rule yet for {units - set(ALLOWED)}"
    wrong = {}
    for path in SOURCES:
        package = ".".join(["fewshot_lib", *path.relative_to(PACKAGE).parent.parts])
        found = wrong_imports(path.read_text(encoding="utf-8"), unit_of(path), package)
        wrong |= {str(path.relative_to(PACKAGE)): found} if found else {}
    assert not wrong
    assert wrong_imports("from ..tools import lab", "checker", "fewshot_lib.checker")
    assert wrong_imports("def f():\n    import sklearn", "training", "fewshot_lib")


MODULES = [f"fewshot_lib.{path.stem}" for path in SOURCES if unit_of(path) in MATHEMATICS]
#: One interpreter imports part after part, and says what each of them brought.
IMPORTING = """
import importlib, json, pkgutil, sys

brought = {}

def bring(part, *modules):
    before = set(sys.modules)
    for module in modules:
        importlib.import_module(module)
    brought[part] = sorted(set(sys.modules) - before)

bring("the package", "fewshot_lib")
bring("torch", "torch", "torch.utils.data", "numpy")
bring("the mathematics", *MODULES)
bring("data", "fewshot_lib.data")
data = sys.modules["fewshot_lib.data"]
assert data.scans.load and data.digits.load and data.anatomy.make_volumes
assert data.volumes.read_folder and data.card("digits")
settings = importlib.import_module("matplotlib").rcParams.copy()
bring("figures", "fewshot_lib.figures")
assert sys.modules["matplotlib"].rcParams.copy() == settings
for name in [name for name in sys.modules if name.startswith("fewshot_lib")]:
    del sys.modules[name]  # so that what the checker takes of them is seen
path = importlib.import_module("fewshot_lib.checker").__path__
bring("the checker", *(m.name for m in pkgutil.walk_packages(path, "fewshot_lib.checker.")))
brought["in the end"] = sorted(sys.modules)
print(json.dumps(brought))
"""


@pytest.fixture(scope="module")
def brought() -> dict[str, list[str]]:
    """Import the parts: part → the modules that came with it."""
    code = IMPORTING.replace("MODULES", repr(MODULES))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    return json.loads(done.stdout)


def test_importing_the_checker_imports_no_other_part(brought):
    names = [name for name in brought["in the end"] if name.startswith("fewshot_lib.")]
    assert {name.split(".")[1] for name in names} == {"checker"}


def test_importing_the_mathematics_loads_nothing_that_torch_does_not(brought):
    allowed = {"fewshot_lib", *sys.stdlib_module_names}
    found = brought["the mathematics"]
    assert [name for name in found if name.split(".")[0] not in allowed] == []
    assert set(MODULES) <= set(found)


def test_what_only_some_need_is_loaded_by_who_needs_it(brought):
    assert "torch" not in brought["the package"]
    assert {"nibabel", "sklearn"} & set(brought["data"]) == set()
    assert {"matplotlib.pyplot", "SimpleITK"} & set(brought["in the end"]) == set()
