"""Take Markdown apart into what is translated, and put it together again.

A unit is what one thinks of as a paragraph: a paragraph, a heading, an item of a list, a row of a
table, a block of what a program says (```` ```text ````). What has no words (a formula, a block of
code, the rule of a table) is no unit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

#: What may stand before the words of a line and is kept as it is.
LEAD = re.compile(r"\s*(?:#{1,6}\s+|[-*+]\s+|\d+\.\s+|>\s?)?")
ITEM = re.compile(r"\s*(?:[-*+]|\d+\.)\s+")
#: What is the same in every language: formulas, code, addresses of links, tags, pictures' files.
MATHS = re.compile(r"\$\$.+?\$\$|\$[^$\n]+\$", re.S)
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
TAG = re.compile(r"</?[A-Za-z][^>]*>")
LETTER = re.compile(r"[^\W\d_]")
#: What a program says, which is in the reader's language as well.
REPLY = re.compile(r"(\s*```text\s*\n)(\S.*?)(\s*\n```\s*)", re.S)


def pieces(markdown: str) -> Iterator[tuple[str, str]]:
    r"""Give a text as pairs of what is kept and what is translated; joined, they are the text.

    >>> list(pieces("# A title\n\n- one\n- $x$"))
    [('# ', 'A title'), ('\n\n- ', 'one'), ('\n- $x$', '')]
    """
    kept = ""
    for block in _blocks(markdown):
        reply = REPLY.fullmatch(block)
        if reply and _has_words(reply[2]):
            yield kept + reply[1], reply[2]
            kept = reply[3]
            continue
        lead = "" if block.isspace() or _fixed(block) else _lead(block)
        rest = block[len(lead) :]
        said = rest.rstrip()
        if _fixed(block) or not _has_words(said):
            kept += block
            continue
        yield kept + lead, said
        kept = rest[len(said) :]
    if kept:
        yield kept, ""


def units(markdown: str) -> list[str]:
    """List what is to be translated of a text.

    >>> units("| a | b |\\n|---|---|\\n| one | `two` |")
    ['| a | b |', '| one | `two` |']
    """
    return [said for _, said in pieces(markdown) if said]


def translate(markdown: str, say: Callable[[str], str]) -> str:
    """Put a text together again, each unit said by ``say``.

    >>> translate("## one\\n\\n$$x$$\\n\\n> two", str.upper)
    '## ONE\\n\\n$$x$$\\n\\n> TWO'
    """
    return "".join(kept + (say(said) if said else "") for kept, said in pieces(markdown))


def _lead(block: str) -> str:
    found = LEAD.match(block)
    return found.group() if found else ""


def _fixed(block: str) -> bool:
    """Say whether a block is code, a formula or the rule of a table."""
    text = block.strip()
    return text.startswith(("```", "~~~", "$$")) or bool(re.fullmatch(r"[|:\s-]+", text))


def _has_words(text: str) -> bool:
    for same in (MATHS, CODE, TAG):
        text = same.sub(" ", text)
    return bool(LETTER.search(text))


def _blocks(markdown: str) -> Iterator[str]:
    """Give the blocks of a text in order, each with the white space that follows it."""
    block, fence = "", ""
    for line in markdown.splitlines(keepends=True):
        text = line.strip()
        mark = next((m for m in ("```", "~~~", "$$") if text.startswith(m)), "")
        if fence:
            block += line
            if text.endswith(fence):
                fence = ""
                yield block
                block = ""
            continue
        starts = bool(mark or ITEM.match(line) or text.startswith(("|", "#")))
        ended = block.endswith("\n\n") or block.isspace() or block.lstrip().startswith(("|", "#"))
        if block and text and (starts or ended):
            yield block
            block = ""
        block += line
        if mark and not (text.endswith(mark) and len(text) > len(mark)):
            fence = mark
    if block:
        yield block
