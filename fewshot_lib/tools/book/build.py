"""Lay out the pages, and have Sphinx make the book of them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import nbformat

from fewshot_lib.checker import language as speech
from fewshot_lib.tools.book import edition, paper
from fewshot_lib.tools.book.prepare import front_picture, prepare

HERE = resources.files("fewshot_lib.tools.book")
#: Files of the course that become pages as they are.
AS_THEY_ARE = ("CHANGELOG.md", "CONTRIBUTING.md")


def build(course: Path, target: Path) -> Path:
    """Make the pages of a course.

    Arguments:
        course: the folder that holds ``notebooks/`` and ``exercises/``.
        target: where ``source`` and ``html`` are made anew.

    Returns:
        The first page.

    Raises:
        LookupError: there is no glossary in the notebooks.
        RuntimeError: Sphinx failed or warned (of a link that does not arrive, say); the message
            holds what it said.
    """
    first = _made(course, target / "source", target / "html", speech.SOURCE)
    for language in edited(course):
        short = speech.short(language)
        _made(course, target / f"source-{short}", target / "html" / short, language)
    return first


def edited(course: Path) -> list[str]:
    """List the languages, beside English, in which there are notebooks."""
    found = speech.languages()[1:]
    return [one for one in found if any((course / "notebooks" / speech.short(one)).glob("*.ipynb"))]


def _made(course: Path, source: Path, html: Path, language: str) -> Path:
    """Make the pages of one language."""
    for folder in (source, html):
        shutil.rmtree(folder, ignore_errors=True)
    with speech.speaking(language):
        _lay_out_frame(course, source, edited(course) if language == speech.SOURCE else ())
        if language == speech.SOURCE:
            lay_out(course, source)
        else:
            edition.lay_out(course, source, language)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"),
            *("-d", str(source.with_name(f"{source.name}-trees")), str(source), str(html)),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if done.returncode:
        raise RuntimeError(f"Sphinx failed: {done.stderr.strip()}")
    if language != speech.SOURCE:
        with speech.speaking(language):
            edition.say_theme(html)
    # Not for readers: what the build notes for itself, and the maps of the theme's scripts.
    for path in (html / ".buildinfo", html / "objects.inv", *html.rglob("_static/**/*.map")):
        path.unlink(missing_ok=True)
    shutil.rmtree(html.parent / "jupyter_execute", ignore_errors=True)  # where MyST-NB puts it
    return html / "index.html"


def _lay_out_frame(course: Path, source: Path, others: Sequence[str]) -> None:
    """Write what Sphinx reads in every language: styles, scripts, settings, the cover."""
    for part in ("static", "templates"):
        with resources.as_file(HERE / part) as own:
            shutil.copytree(own, source / f"_{part}")
    edition.settings(course, source, addresses(course), others)
    edition.scripts(source)
    (source / "_static" / "mathjax").mkdir()
    shutil.copy(mathjax(), source / "_static" / "mathjax")
    (source / "_extra").mkdir()
    cover = course / "notebooks" / "cover.png"
    if cover.is_file():
        shutil.copy(cover, source / "_extra")


def lay_out(course: Path, source: Path) -> None:
    """Write the English pages."""
    with resources.as_file(HERE / "pages") as own:
        shutil.copytree(own, source, dirs_exist_ok=True)
    for part in speech.PARTS:
        (source / "_extra" / part).mkdir()
        (source / part).mkdir(exist_ok=True)
        for path in sorted((course / part).glob("*.ipynb")):
            shutil.copy(path, source / "_extra" / part)
            notebook = prepare(nbformat.read(path, as_version=4), path.name)
            for cell in notebook.cells:
                if cell.cell_type == "markdown":
                    cell.source = edition.switched(cell.source, part, course)
            nbformat.write(notebook, source / part / path.name)
        for path in (course / part).glob("*.md"):
            write(source / part / path.name, link_to_files(path.read_text("utf-8"), course))
    for name in AS_THEY_ARE:
        if (course / name).is_file():
            text = (course / name).read_text("utf-8")
            write(source / name, link_to_files(text, course))
    first = source / "index.md"
    write(first, first.read_text("utf-8").replace("<!-- picture -->", front_picture(course)))
    write(source / "glossary.md", paper.glossary(course))
    write(source / "exercises" / "on-paper.md", paper.on_paper(course))
    for name in paper.INTERFACES:
        write(source / "api" / f"{name}.md", paper.interface(name))


def write(path: Path, text: str) -> None:
    """Write a page."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def mathjax() -> Path:
    """Find MathJax (Apache License 2.0) in the package that brings it."""
    found = importlib.util.find_spec("sphinx-mathjax-offline")
    if found is None or found.origin is None:
        raise RuntimeError("the package sphinx-mathjax-offline is missing: make setup-all")
    return Path(found.origin).parent / "static" / "mathjax" / "tex-svg.js"


def addresses(course: Path) -> dict[str, str]:
    """Read where the course is published: ``[project.urls]`` of pyproject.toml, empty if nowhere.

    ``Repository`` makes the buttons for Binder and Colab, ``JupyterHub`` beside it the one for a
    hub with nbgitpuller, ``Branch`` names another branch than main.
    """
    file = course / "pyproject.toml"
    urls = {}
    if file.is_file():
        urls = tomllib.loads(file.read_text("utf-8")).get("project", {}).get("urls", {})
    return {
        "repository": urls.get("Repository", "").rstrip("/"),
        "branch": urls.get("Branch", "main"),
        "hub": urls.get("JupyterHub", "").rstrip("/"),
    }


def link_to_files(text: str, course: Path) -> str:
    """Let links to what is no page lead to the repository; without an address they are no links."""
    address = addresses(course)

    def lead(found: re.Match[str]) -> str:
        words, place = found.groups()
        if re.search(r"\.(md|ipynb|png)(#|$)", place) or not place.startswith("../"):
            return found[0]
        if address["repository"]:
            kind = "tree" if (course / place[3:]).is_dir() else "blob"
            return f"[{words}]({address['repository']}/{kind}/{address['branch']}/{place[3:]})"
        return f"{words} (`{place[3:]}`)"

    return re.sub(r"\[([^\]]+)\]\(([^)\s:]+)\)", lead, text)
