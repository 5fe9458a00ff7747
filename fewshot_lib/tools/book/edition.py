"""The pages of another language than English: its notebooks, and a switch on every page.

Guides, library and changes have no translation; links to them lead to the English pages.
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import nbformat

from fewshot_lib.checker import language as speech
from fewshot_lib.reading.moving import translations
from fewshot_lib.tools.book import paper
from fewshot_lib.tools.book.prepare import as_script, front_picture, prepare
from fewshot_lib.tools.language.extract import LISTED
from fewshot_lib.tools.language.paragraphs import translate

_ = speech.words("book")

HERE = resources.files("fewshot_lib.tools.book")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
#: Lists of pages of the first page that stay in other languages, by the page that they begin with.
KEPT = ("notebooks/[0-9]*", "exercises/[0-9]*", "glossary")
#: The page of questions and exercises to be printed.
PAPER = "exercises/on-paper"


def pages(course: Path, language: str) -> list[str]:
    """List the pages that there are in a language: "notebooks/00_start_here"."""
    below = speech.short(language)
    found = ["index", "glossary", "references"] + [
        f"{part}/{path.stem}"
        for part in speech.PARTS
        for ending in ("ipynb", "md")
        for path in sorted((course / part / below).glob(f"*.{ending}"))
    ]
    asks = any(one.startswith("exercises/") for one in found)
    return [*found, PAPER] if asks else found


def settings(
    course: Path, source: Path, addresses: dict[str, str], others: Sequence[str] = ()
) -> None:
    """Write what Sphinx is told: settings, address, language, and where the switch leads."""
    spoken = speech.language()
    editions: list[dict[str, Any]] = [
        {"name": _name(one), "lang": one.replace("_", "-"), "to": f"{speech.short(one)}/",
         "pages": pages(course, one)}
        for one in others
    ]  # fmt: skip
    if spoken != speech.SOURCE:
        editions = [{"name": "English", "lang": "en", "to": "../", "pages": None}]
    told = {
        **addresses,
        "language": spoken,
        "editions": editions,
        "title": _("Few-shot medical image segmentation"),
        "words": {
            "search": _("Search"),
            "kept": _("Your answers, kept in this browser only:"),
            "none": _("none yet."),
            "forget": _("Forget them"),
            "show": _("Show the folded lines"),
            "hide": _("Hide these lines"),
        },
    }
    (source / "conf.py").write_text((HERE / "conf.py").read_text("utf-8"), encoding="utf-8")
    (source / "book.json").write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")


def _name(language: str) -> str:
    """Give a language's own name for itself; its code, if Babel does not know it."""
    from babel import Locale, UnknownLocaleError

    try:
        return Locale.parse(language).get_language_name() or language
    except (ValueError, UnknownLocaleError):
        return language


def scripts(source: Path) -> None:
    """Write the script of the questions, with its words where they are not English."""
    text = as_script("questions")
    said = translations(text + (HERE / "static" / "book.js").read_text("utf-8"))
    words = (
        f"speak(window.fewshotWords = {json.dumps(said, ensure_ascii=False)});\n" if said else ""
    )
    script = (
        f'(() => {{\n"use strict";\n{text}\n{words}whileItGrows(() => mountAll(whole));\n}})();\n'
    )
    (source / "_static" / "questions.js").write_text(script, encoding="utf-8")


def lay_out(course: Path, source: Path, language: str) -> None:
    """Write the pages of a language."""
    below = speech.short(language)
    for part in speech.PARTS:
        (source / "_extra" / part).mkdir()
        (source / part).mkdir()
        for path in sorted((course / part / below).glob("*.ipynb")):
            shutil.copy(path, source / "_extra" / part)
            notebook = nbformat.read(path, as_version=4)
            for cell in notebook.cells:
                if cell.cell_type == "markdown":
                    cell.source = led(cell.source, f"{part}/{below}", course, language)
                for output in cell.get("outputs", []):
                    shown = output.get("data", {})
                    if "text/html" in shown:
                        shown["text/html"] = led_output("".join(shown["text/html"]), part, below)
            nbformat.write(prepare(notebook, path.name), source / part / path.name)
        for path in sorted((course / part / below).glob("*.md")):
            text = led(path.read_text("utf-8"), f"{part}/{below}", course, language)
            (source / part / path.name).write_text(text, encoding="utf-8")
    there = pages(course, language)
    if PAPER in there:
        text = led(paper.on_paper(course, below), f"exercises/{below}", course, language)
        (source / f"{PAPER}.md").write_text(text, encoding="utf-8")
    shutil.copy(str(HERE / "pages" / "references.bib"), source)
    for name in ("index", "references"):
        text = said((HERE / "pages" / f"{name}.md").read_text("utf-8"), there)
        text = led(text, "", course, language)
        text = text.replace("<!-- picture -->", front_picture(course))
        (source / f"{name}.md").write_text(text, encoding="utf-8")
    (source / "glossary.md").write_text(glossary(course, language), encoding="utf-8")


def say_theme(html: Path) -> None:
    """Say in the pages what the theme writes in English: it has no words of this language for it.

    Arguments:
        html: the folder of the pages.
    """
    words = {
        "Toggle primary sidebar": _("Toggle primary sidebar"),
        "Toggle secondary sidebar": _("Toggle secondary sidebar"),
        "Toggle hidden content": _("Toggle hidden content"),
        "Color mode": _("Color mode"),
        "System Settings": _("System Settings"),
        "Main": _("Main"),
        "Page": _("Page"),
    }
    written = re.compile(rf'(\b(?:title|aria-label)="|</i>\s*)({"|".join(words)})(?=["<])')
    for page in html.rglob("*.html"):
        text = page.read_text("utf-8")
        page.write_text(written.sub(lambda m: m[1] + words[m[2]], text), encoding="utf-8")


def said(page: str, there: Sequence[str]) -> str:
    """Say a page of the book in the reader's language; pages that stay English are not listed.

    Arguments:
        page: Markdown.
        there: pages of that language.
    """
    kept = [first for first in KEPT if PAPER in there or not first.startswith("exercises")]
    parts = []
    for part in LISTED.split(page):
        if LISTED.match(part):
            if not any(f"\n{first}\n" in part for first in kept):
                continue
            part = re.sub(
                r"^[\w/-]+\n", lambda m: m[0] if m[0][:-1] in there else "", part, flags=re.M
            )
            part = re.sub(r"^(:caption: )(.*)$", lambda m: m[1] + _said(m[2]), part, flags=re.M)
            parts.append(part)
        else:
            apart = part.replace("\n:::", "\n\n:::")
            parts.append(translate(apart, _said))
    return "".join(parts)


def _said(text: str) -> str:
    return speech.translate(text, "book")


def led(text: str, folder: str, course: Path, language: str) -> str:
    """Lead the links of a page: to pages of its language where there are, else to English ones.

    Arguments:
        text: Markdown.
        folder: of the notebook in the course, "notebooks/zh"; "" for the first page.
        course: the course's folder.
        language: of the page.
    """
    below = speech.short(language)
    here = folder.partition("/")[0]

    def lead(found: re.Match[str]) -> str:
        target, mark, anchor = found[3].partition("#")
        if re.match(r"[a-z]+:", target) or not target or found[1]:
            return found[0]
        goal = posixpath.normpath(posixpath.join(folder, target))
        part, _, rest = goal.partition("/")
        name = rest.removeprefix(f"{below}/")
        if (
            part in speech.PARTS
            and (course / part / below / name).is_file()
            and (rest != name or not folder)
        ):
            return f"[{found[2]}]({posixpath.relpath(f'{part}/{name}', here or '.')}{mark}{anchor})"
        page = re.sub(r"\.(ipynb|md)$", ".html", goal)
        up = "../../" if here else "../"
        return f'<a href="{up}{page}{mark}{anchor}">{found[2]}</a>'

    return LINK.sub(lead, text)


def led_output(page: str, part: str, below: str) -> str:
    """Lead the links of an output, as the panel of progress has them, like those of a text.

    >>> led_output('<a href="../../exercises/zh/01_a.ipynb">', "notebooks", "zh")
    '<a href="../exercises/01_a.ipynb">'
    """

    def lead(found: re.Match[str]) -> str:
        goal = posixpath.normpath(f"{part}/{below}/{found[1]}")
        own = goal.replace(f"/{below}/", "/", 1)
        return f'href="{posixpath.relpath(own, part) if own != goal else f"../../{goal}"}'

    return re.sub(r'href="([\w./-]+\.ipynb)', lead, page)


def switched(text: str, part: str, course: Path) -> str:
    """Lead links from an English notebook to another language's to that language's page.

    Arguments:
        text: Markdown.
        part: of the course, "notebooks".
        course: the course's folder.
    """
    for language in speech.languages()[1:]:
        below = speech.short(language)

        def lead(found: re.Match[str], below: str = below) -> str:
            if not (course / part / below / f"{found[2]}.ipynb").is_file():
                return found[1]
            return f'<a href="../{below}/{part}/{found[2]}.html">{found[1]}</a>'

        text = re.sub(rf"\[([^\]]*)\]\({below}/([\w-]+)\.ipynb\)", lead, text)
    return text


def glossary(course: Path, language: str) -> str:
    """Give the page of the glossary: the cell that begins with that heading in English."""
    for path in sorted((course / "notebooks").glob("*.ipynb")):
        other = path.parent / speech.short(language) / path.name
        cells = {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}
        for cell in nbformat.read(other, as_version=4).cells if other.is_file() else ():
            if cell.id in cells and re.match(r"#+ Glossary\b", cells[cell.id].source):
                return re.sub(r"^#+ ", "# ", cell.source) + "\n"
    return f"# {_('Glossary')}\n"
