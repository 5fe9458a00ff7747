"""The three lists of dependencies agree, cover what is imported, and are what is installed."""

from __future__ import annotations

import ast
import importlib.metadata as metadata
import os
import re
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import TypeGuard

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from fewshot_lib.tools import setup

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = canonicalize_name(PROJECT["name"])
#: What conda calls a package that pip knows under another name.
CONDA_NAMES = {"pytorch-cpu": "torch", "distributed": "dask", "playwright-python": "playwright"}
#: Import names that differ from the name of the distribution.
IMPORT_NAMES = {
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "IPython": "ipython",
    "yaml": "PyYAML",
    "markdown_it": "markdown-it-py",
}
#: Brought by another declared package, of which it is a part for our purposes.
BROUGHT = {
    "IPython": "ipykernel",
    "jupyter_client": "ipykernel",
    "traitlets": "ipywidgets",
    "distributed": "dask",
    "PIL": "matplotlib",
    "mpl_toolkits": "matplotlib",
    "click": "typer",
    "contourpy": "matplotlib",
    "packaging": "pytest",
    "yaml": "myst-nb",
    "markupsafe": "jinja2",
    "docutils": "sphinx",
    "sqlalchemy": "nbgrader",
}


def declared() -> list[Requirement]:
    """List what pyproject.toml asks for, extras included, this package's own extras left out."""
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    found = [Requirement(line) for lines in groups for line in lines]
    return [requirement for requirement in found if canonicalize_name(requirement.name) != OWN]


def constraints() -> dict[str, str]:
    """Read the tested versions by canonical name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def conda(file: str) -> dict[str, str]:
    """Read an environment.yml: name as pip has it → range, for conda's and pip's part together."""
    lists = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))["dependencies"]
    [pip_part] = [entry["pip"] for entry in lists if isinstance(entry, dict)]
    lines = [entry.replace("python=3", "python==3") for entry in lists if isinstance(entry, str)]
    lines += [line for line in pip_part if line != "-e ."]  # the course itself
    found = {}
    for line in lines:
        requirement = Requirement(line)
        name = canonicalize_name(CONDA_NAMES.get(requirement.name, requirement.name))
        found[name] = str(requirement.specifier)
    return found


def test_conda_and_pip_install_the_same_packages_in_the_same_ranges() -> None:
    wanted = {canonicalize_name(r.name): str(r.specifier) for r in declared()}
    offered = conda("environment.yml")
    python = offered.pop("python")
    assert set(python.split(",")) == set(PROJECT["requires-python"].split(","))
    assert offered.pop("pip") == ""
    assert offered == wanted


def test_binder_installs_what_readers_need_and_then_the_course() -> None:
    """Repo2docker reads .binder/environment.yml and runs .binder/postBuild; here neither is run."""
    readers = {canonicalize_name(name) for name in setup.direct_dependencies(ROOT, setup.READERS)}
    ranges = {canonicalize_name(r.name): str(r.specifier) for r in declared()}
    offered = conda(".binder/environment.yml")
    python = re.fullmatch(r"==(3\.\d+)", offered.pop("python"))
    assert python, "the one form that repo2docker understands"
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python[1]}.0")
    assert offered.pop("pip") == ""
    assert offered == {name: ranges[name] for name in readers}
    script = ROOT / ".binder" / "postBuild"
    assert "pip install --no-deps -e .\nfewshot data fetch\n" in script.read_text(encoding="utf-8")
    assert os.access(script, os.X_OK) or os.name == "nt"


@pytest.mark.parametrize("requirement", declared(), ids=lambda requirement: requirement.name)
def test_every_dependency_has_one_tested_version_within_its_range(requirement: Requirement) -> None:
    tested = constraints()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(tested)


def test_torch_is_the_agreed_version() -> None:
    assert constraints()["torch"] == "2.13.0"


def test_everything_that_gets_installed_has_a_tested_version() -> None:
    """Walk the requirements of the requirements; GPU libraries come with other builds of torch."""
    tested, seen = constraints(), set()
    waiting = [(requirement.name, frozenset(requirement.extras)) for requirement in declared()]
    while waiting:
        name, extras = waiting.pop()
        if (canonicalize_name(name), extras) in seen:
            continue
        seen.add((canonicalize_name(name), extras))
        for line in metadata.requires(name) or []:
            inner = Requirement(line)
            markers = [{"extra": extra} for extra in (extras or {""})]
            if inner.marker is None or any(inner.marker.evaluate(marker) for marker in markers):
                waiting.append((inner.name, frozenset(inner.extras)))
    names = {name for name, _ in seen if not re.match(r"nvidia|cuda|triton|setuptools", name)}
    if sys.platform != "linux":
        names &= set(tested) | {canonicalize_name(r.name) for r in declared()}
    assert names - set(tested) == set()


def test_installed_versions_are_the_tested_ones() -> None:
    """A local part such as +cpu names a build, not a version."""
    differing = {}
    for name, version in constraints().items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if Version(installed).public != version:
            differing[name] = installed
    assert differing == {}


def is_optional(node: ast.AST) -> TypeGuard[ast.Try]:
    """Say whether a node is a ``try`` whose handler expects the import to fail."""
    if not isinstance(node, ast.Try):
        return False
    caught = ast.unparse(ast.Tuple([h.type for h in node.handlers if h.type], ast.Load()))
    return "ImportError" in caught or "ModuleNotFoundError" in caught


@cache
def beside(folder: Path) -> set[str]:
    """Name the modules of a folder and of the folders in it."""
    return {path.stem for path in [*folder.glob("*.py"), *folder.glob("*/*.py")]}


def test_everything_that_is_imported_is_declared() -> None:
    names = {canonicalize_name(requirement.name) for requirement in declared()}
    missing = set()
    for path in [*ROOT.glob("fewshot_lib/**/*.py"), *ROOT.glob("tests/**/*.py")]:
        local = beside(path.parent.parent) | {"fewshot_lib", "tests"}
        if path.name == "otter_times.py":  # runs in a virtual environment of its own
            local.add("otter")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tries = [node for trial in ast.walk(tree) if is_optional(trial) for node in trial.body]
        local |= {a.name for node in tries if isinstance(node, ast.Import) for a in node.names}
        for node in ast.walk(tree):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.append(node.module or "")
            for module in modules:
                top = module.split(".")[0]
                if top in sys.stdlib_module_names or top in local:
                    continue
                distribution = BROUGHT.get(top, IMPORT_NAMES.get(top, top))
                if canonicalize_name(distribution) not in names:
                    missing.add((str(path.relative_to(ROOT)), top))
    assert missing == set()


def test_the_readme_gives_the_plain_equivalent_of_the_set_up() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert 'pip install -c constraints.txt -e ".[lab]"' in readme
    assert "python -m venv .venv" in readme
    assert "conda env create -f environment.yml" in readme


def test_contributing_gives_a_reason_for_every_dependency() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("and why each")[1]
    reasoned = " ".join(re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE))
    names = {canonicalize_name(Requirement(word.strip(",")).name) for word in reasoned.split()}
    assert {canonicalize_name(r.name) for r in declared()} - names == set()


def test_every_tested_version_takes_every_python_that_the_course_takes() -> None:
    """Some releases ask for a late 3.11, which the Python of a stable Linux may not be."""
    refusing = {}
    for name in constraints():
        try:
            wanted = metadata.metadata(name).get("Requires-Python") or ""
        except metadata.PackageNotFoundError:
            continue
        if not all(SpecifierSet(wanted).contains(f"3.{minor}.0") for minor in (11, 12, 13)):
            refusing[name] = wanted
    assert refusing == {}
