"""Make the student edition of the library: everything but what an exercise asks for.

A submission is run beside this copy. What an answer withholds has lost its body and says so when it
is called; checks, solutions, references and the grader are not in it at all.
"""

from __future__ import annotations

import ast
import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

import fewshot_lib
from fewshot_lib.exercises import catalogue
from fewshot_lib.exercises.spec import Exercise

#: Modules of ``fewshot_lib.exercises`` that know no answer; the worker needs them.
NEUTRAL = ("values", "running", "given", "spec")

_INERT = '''"""What a notebook imports; while grading it does nothing."""


class _Quiet:
    """Stand for anything a notebook calls to draw, show or check something."""

    def __init__(self, *_, **__):
        pass

    def __call__(self, *_, **__):
        return self

    def __iter__(self):
        return iter((self, self))  # "figure, data = ..."

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __repr__(self):
        return "(nothing is shown while grading)"


def carry_on(name, answer=None):
    """Give back the student's own answer; what stands in for a wrong one is the grader's affair."""
    return answer


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _Quiet()
'''


class CannotWithhold(LookupError):
    """An exercise withholds a name that the library does not have."""


def build_edition(exercise: Exercise, folder: Path) -> Path:
    """Write the student edition for an exercise below ``folder``.

    Arguments:
        exercise: whose answers' ``withhold`` lists say what is left out.
        folder: an empty folder; it becomes the parent of the package ``fewshot_lib``.

    Returns:
        ``folder``, to be put on the worker's path.

    Raises:
        CannotWithhold: a withheld name does not exist, so that it would not be withheld either.
    """
    source = Path(fewshot_lib.__file__).parent
    package = folder / "fewshot_lib"
    package.mkdir(parents=True)
    for file in sorted(source.glob("*.py")):
        if file.name != "cli.py":
            shutil.copyfile(file, package / file.name)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source / "data", package / "data", ignore=ignore)
    for part in ("figures", "reading", "exercises"):  # to import matplotlib would cost a second
        (package / part).mkdir()
        (package / part / "__init__.py").write_text(_INERT, encoding="utf-8")
    for name in NEUTRAL:
        file = source / "exercises" / f"{name}.py"
        shutil.copyfile(file, package / "exercises" / file.name)
    withhold(package, {name for answer in exercise.answers for name in answer.withhold})
    return folder


def withhold(package: Path, names: Iterable[str]) -> None:
    """Take the bodies of functions, classes' methods or whole modules out of a copied package.

    "prototypes.squared_euclidean" loses its body, and so do the private functions of its module
    that it calls, for they are the answer under another name; "prototypes" loses all its functions.

    Raises:
        CannotWithhold: there is no such name.
    """
    by_module: dict[str, set[str]] = {}
    for name in names:
        module, _, inner = name.partition(".")
        while inner and not _file(package, module) and "." in inner:
            step, _, inner = inner.partition(".")
            module = f"{module}.{step}"
        by_module.setdefault(module, set()).add(inner)
    for module, inside in by_module.items():
        file = _file(package, module)
        if file is None:
            raise CannotWithhold(f"there is no module {module!r} to withhold from")
        tree = ast.parse(file.read_text(encoding="utf-8"))
        functions = dict(_functions(tree))
        wanted: set[str] = set()
        for name in inside:
            found = {
                path
                for path in functions
                if not name or path == name or path.startswith(name + ".")
            }
            if not found:
                raise CannotWithhold(f"there is no function {name!r} in {module!r}")
            wanted |= found
        wanted |= _private_helpers(functions, wanted)
        for path in wanted:
            _empty(functions[path], f"{module}.{path}")
        file.write_text(ast.unparse(ast.fix_missing_locations(tree)), encoding="utf-8")


def _file(package: Path, module: str) -> Path | None:
    base = package.joinpath(*module.split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.is_file():
            return file
    return None


def _functions(tree: ast.AST, prefix: str = "") -> Iterable[tuple[str, ast.FunctionDef]]:
    for node in getattr(tree, "body", []):
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.")


def _private_helpers(functions: dict[str, ast.FunctionDef], wanted: set[str]) -> set[str]:
    pending = list(wanted)
    found: set[str] = set()
    while pending:
        for node in ast.walk(functions[pending.pop()]):
            name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
            for path in functions:
                last = path.rpartition(".")[2]
                private = last.startswith("_") and not last.startswith(("__", "_require"))
                if last == name and private and path not in wanted | found:
                    found.add(path)
                    pending.append(path)
    return found


def _empty(function: ast.FunctionDef, name: str) -> None:
    sentence = f"{name} is what this exercise asks for; it is withheld while grading"
    raising = ast.parse(f"raise RuntimeError({sentence!r})").body
    keep = function.body[:1] if ast.get_docstring(function) is not None else []
    function.body = [*keep, *raising]


def source_digest(name: str) -> str:
    """Hash the sources that a mark of an exercise depends on: the same on every machine.

    The mathematics and the data, the exercise's specification, what judges it, and what runs it.

    Arguments:
        name: the exercise, "03_prototypes" or "prototypes".
    """
    package = Path(fewshot_lib.__file__).parent
    files = [file for file in package.glob("*.py") if file.name not in ("cli.py", "__init__.py")]
    files += package.glob("data/*.py")
    word = catalogue.exercise(name).name
    judging = ("compare", "diagnosis", "given", "running", "spec", "values", word)
    files += [package / "exercises" / f"{part}.py" for part in judging]
    files += [package / "classroom" / f"{part}.py" for part in ("assemble", "edition", "worker")]
    total = hashlib.sha256()
    for file in sorted(files):
        data = file.read_bytes()
        total.update(f"{file.relative_to(package).as_posix()} {len(data)}\n".encode() + data)
    return total.hexdigest()
