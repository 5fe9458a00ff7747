"""What a term or a paper means, where a page first names it: a link that says it when pointed at.

A term is one of the glossary's, a paper one of those at the end of the page ("Snell et al.").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

PAGES = ("notebooks/", "exercises/")
PAPER = "exercises/on-paper"
HEADS = {"glossary": ("Glossary", "术语表"), "references": ("References", "参考文献")}
#: In these nothing is explained: code and formulas, links, tables, and what is quoted.
LEFT = (nodes.literal, nodes.math, nodes.reference, nodes.raw, nodes.table, nodes.block_quote)
FORMULA = r"\$([^$]*)\$"
SIGNS = {r"\theta": "θ", r"\lVert ": "‖", r"\rVert": "‖", "a-b": "a − b"}


def terms(page: str, chinese: bool) -> dict[str, tuple[str, str]]:
    r"""Read the glossary's table: by term, the anchor of its row and what it means.

    >>> head = "| 中文 | English | here |\n|---|---|---|\n"
    >>> row = "| 支持集 / 查询集 | support set / query set | labelled $x$ / asked |"
    >>> terms(head + row, chinese=False)["query set"]
    ('term-1', '查询集 · query set: asked')
    """
    found = {}
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    for number, row in enumerate(rows[1:], 1):
        if len(row) < 3:
            continue
        words = list(zip(row[0].split(" / "), row[1].split(" / "), strict=True))
        meanings = row[2].split(" / ")
        if len(meanings) != len(words):
            meanings = [row[2]] * len(words)
        for both, meaning in zip(words, meanings, strict=True):
            said = f"{' · '.join(both)}: {re.sub(FORMULA, _readable, meaning)}"
            for term in re.split(r", |，", both[0 if chinese else 1]):
                found[term] = f"term-{number}", said
    return found


def _readable(formula: re.Match[str]) -> str:
    """Write a short formula without its marks."""
    text = formula[1]
    for sign, letter in SIGNS.items():
        text = text.replace(sign, letter)
    return text


def papers(page: nodes.document) -> dict[str, tuple[str, str]]:
    """Read a page's list of papers: by first author, the anchor of its line and the line.

    An author of two of them is left out: a name alone does not say which.
    """
    lines = [
        item
        for section in page.findall(nodes.section)
        if _is(section, "references")
        for item in section.findall(nodes.list_item)
    ]
    found: dict[str, tuple[str, str]] = {}
    twice = set()
    for number, item in enumerate(lines, 1):
        text = " ".join(item.astext().split())
        names = re.split(r",|:|：| et al| and ", text)[0].split()
        if not names:
            continue
        twice |= {names[-1]} & set(found)
        item["ids"].append(f"paper-{number}")
        found[names[-1]] = f"paper-{number}", text
    return {name: said for name, said in found.items() if name not in twice}


def _is(node: nodes.Node, what: str) -> bool:
    """Say whether a section is headed as the glossary or the references are."""
    if not isinstance(node, nodes.section):
        return False
    head = node.next_node(nodes.title)
    return head is not None and head.astext().startswith(HEADS[what])


def explain(app: Sphinx, page: nodes.document, name: str) -> None:
    """Make the first mention of every term and paper on a page a link that says what it is."""
    chinese = app.config.language.startswith("zh")
    if name == "glossary":
        for number, row in enumerate(page.findall(nodes.row)):
            row["ids"].append(f"term-{number}")
        return
    if not name.startswith(PAGES) or name == PAPER:
        return
    there = f"{app.builder.get_relative_uri(name, 'glossary')}#"
    glossary, said = Path(app.srcdir) / "glossary.md", {}
    table = glossary.read_text("utf-8") if glossary.is_file() else ""
    for term, (anchor, meaning) in terms(table, chinese).items():
        shape = re.escape(term) if chinese else rf"(?i:(?<![\w-]){re.escape(term)}s?(?![\w-]))"
        said[shape] = there + anchor, meaning
    for author, (anchor, line) in papers(page).items():
        shape = rf"\b{re.escape(author)}(?: et al\.| and [A-Z]\w+| ?等| [与和] ?[A-Z]\w+)"
        said[shape] = f"#{anchor}", line
    for text in list(_prose(page)):
        _replace(text, said)


def _prose(page: nodes.document) -> Iterator[nodes.Text]:
    """Give the text of a page's paragraphs in order."""
    for paragraph in page.findall(nodes.paragraph):
        around: nodes.Node | None = paragraph
        while around is not None:
            if isinstance(around, LEFT) or _is(around, "glossary") or _is(around, "references"):
                break
            around = around.parent
        else:
            for text in paragraph.findall(nodes.Text):
                inside = text.parent
                while inside is not paragraph and not isinstance(inside, LEFT):
                    inside = inside.parent
                if inside is paragraph:
                    yield text


def _replace(text: nodes.Text, said: dict[str, tuple[str, str]]) -> None:
    """Cut a text at what is named in it for the first time on the page."""
    rest = str(text)
    parts: list[nodes.Node] = []
    while hits := [(*hit.span(), shape) for shape in said if (hit := re.search(shape, rest))]:
        start, end, shape = min(hits, key=lambda hit: (hit[0], -hit[1]))  # the longest of the first
        address, meaning = said.pop(shape)
        link = nodes.reference(
            "", rest[start:end], internal=True, refuri=address, reftitle=meaning,
            classes=["fewshot-term"],
        )  # fmt: skip
        parts += [nodes.Text(rest[:start]), link]
        rest = rest[end:]
    if parts:
        text.parent.replace(text, [*parts, nodes.Text(rest)])
