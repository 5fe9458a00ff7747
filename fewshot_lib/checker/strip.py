"""Strip the answers of an exercise from a copy of the library.

An answer lists names that give it away. A private function goes with them if nothing else leads to
it, so that what students may still use works.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

#: What a function says whose body was stripped.
MESSAGE = "{} is what this exercise asks for, so it is disabled while your answer is checked"


class CannotStrip(LookupError):
    """An exercise names something to strip that the library does not have."""


#: A function of the package: its module ("data.prepare") and its name there ("View.mask").
Place = tuple[str, str]


def strip_answers(package: Path, names: Iterable[str], passed_over: Iterable[str] = ()) -> None:
    """Take the bodies of functions, classes' methods or whole modules out of a copied package.

    "prototypes.squared_euclidean" loses its body; "networks.UNetEncoder" loses those of its
    methods; "prototypes" loses all its functions. A private function goes with them if nothing
    else leads to it.

    Arguments:
        package: the folder of the copied package; its files are rewritten.
        names: dotted, below the package; the module is the longest path that is one.
        passed_over: parts of the package that no function of an answer comes from.

    Raises:
        CannotStrip: there is no such name.
    """
    library = _Library(package, passed_over)
    places = library.stripped(names)
    for module, path in places:
        _empty(library.functions[module, path], f"{module}.{path}")
    for module in {module for module, _ in places}:
        tree = ast.fix_missing_locations(library.trees[module])
        library.files[module].write_text(ast.unparse(tree), encoding="utf-8")


def stripped(package: Path, names: Iterable[str], passed_over: Iterable[str] = ()) -> set[Place]:
    """Give the functions of a package that :func:`strip_answers` empties for these names.

    Raises:
        CannotStrip: there is no such name.
    """
    return _Library(package, passed_over).stripped(names)


class _Library:
    """The modules of a copied package and what each of their functions leads to.

    Arguments:
        package: its folder.
        passed_over: what is quiet or not there in the students' copy, so that the library itself
            gives the same as a copy.
    """

    def __init__(self, package: Path, passed_over: Iterable[str]) -> None:
        skipped = {"_quiet", *passed_over}
        self.files: dict[str, Path] = {}
        for file in sorted(package.rglob("*.py")):
            parts = file.relative_to(package).with_suffix("").parts
            if parts[0] not in skipped:
                self.files[".".join(part for part in parts if part != "__init__")] = file
        self.trees = {
            module: ast.parse(file.read_text(encoding="utf-8"))
            for module, file in self.files.items()
        }
        self.functions: dict[Place, ast.FunctionDef] = {
            (module, path): node
            for module, tree in self.trees.items()
            for path, node in _functions(tree)
        }
        self._by_name: dict[Place, set[Place]] = {}
        for module, path in self.functions:
            steps = path.split(".")
            for name in {".".join(steps[:n]) for n in range(1, len(steps) + 1)} | {steps[-1]}:
                self._by_name.setdefault((module, name), set()).add((module, path))
        self._imports = {
            module: _imports(tree, package.name) for module, tree in self.trees.items()
        }
        self._leads = {
            place: self._mentioned(place[0], [node]) for place, node in self.functions.items()
        }

    def found(self, name: str) -> set[Place]:
        """Give the functions that a dotted name means.

        Raises:
            CannotStrip: it means none.
        """
        parts = name.split(".")
        length = next((n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in self.files), 0)
        module, inner = ".".join(parts[:length]), ".".join(parts[length:])
        if not length:
            raise CannotStrip(f"there is no module {parts[0]!r} to strip")
        found = {place for place in self.functions if place[0] == module and _within(place, inner)}
        if not found:
            raise CannotStrip(f"there is no function {inner!r} in {module!r}")
        return found

    def stripped(self, names: Iterable[str]) -> set[Place]:
        """Give what the names mean, and what only that leads to.

        Raises:
            CannotStrip: a name means nothing.
        """
        wanted = {place for name in names for place in self.found(name)}
        return wanted | self.only_behind(wanted)

    def only_behind(self, wanted: set[Place]) -> set[Place]:
        """Give the private functions that ``wanted`` lead to and nothing else does."""
        used: set[Place] = set()
        for module, tree in self.trees.items():
            used |= self._mentioned(module, _outside_functions(tree))
        used |= {place for place in self.functions if not _private(place)}
        return self._reached(wanted, set()) - self._reached(used - wanted, wanted) - wanted

    def _reached(self, start: Iterable[Place], never: set[Place]) -> set[Place]:
        reached, pending = set(start), list(start)
        while pending:
            new = self._leads[pending.pop()] - reached - never
            reached |= new
            pending += new
        return reached

    def _mentioned(self, module: str, nodes: Iterable[ast.AST]) -> set[Place]:
        imports = self._imports[module]
        found: set[Place] = set()
        for node in (inner for outer in nodes for inner in ast.walk(outer)):
            if isinstance(node, ast.Name):
                found |= self._named(*imports.get(node.id, (module, node.id)))
            elif isinstance(node, ast.Attribute):
                base = imports.get(node.value.id) if isinstance(node.value, ast.Name) else None
                where = ".".join(part for part in base or () if part)
                found |= self._named(where if where in self.files else module, node.attr)
        return found

    def _named(self, module: str, name: str) -> set[Place]:
        """Give the function of a name, a class's methods, and methods of that name."""
        return self._by_name.get((module, name), set())


def _within(place: Place, inner: str) -> bool:
    return not inner or place[1] == inner or place[1].startswith(inner + ".")


def _private(place: Place) -> bool:
    parts = [*place[0].split("."), *place[1].split(".")]
    return any(part.startswith("_") and not part.startswith("__") for part in parts)


def _functions(tree: ast.AST, prefix: str = "") -> Iterable[tuple[str, ast.FunctionDef]]:
    for node in getattr(tree, "body", []):
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.")


def _outside_functions(tree: ast.AST) -> Iterable[ast.AST]:
    """Give the statements that an import executes; of a function, what stands in its head."""
    for node in getattr(tree, "body", []):
        if isinstance(node, ast.FunctionDef):
            yield from (*node.decorator_list, node.args)
        elif isinstance(node, ast.ClassDef):
            yield from (*node.decorator_list, *node.bases)
            yield from _outside_functions(node)
        else:
            yield node


def _imports(tree: ast.Module, package: str) -> dict[str, tuple[str, str]]:
    """Give where the imported names of the package's own come from: module and name there."""
    found: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package):
            module = (node.module or "").removeprefix(package).removeprefix(".")
            found |= {alias.asname or alias.name: (module, alias.name) for alias in node.names}
    return found


def _empty(function: ast.FunctionDef, name: str) -> None:
    raising = ast.parse(f"raise RuntimeError({MESSAGE.format(name)!r})").body
    keep = function.body[:1] if ast.get_docstring(function) is not None else []
    function.body = [*keep, *raising]
