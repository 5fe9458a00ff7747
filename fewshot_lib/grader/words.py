"""Show words on pages: the course's own Markdown, and texts of students made harmless."""

from __future__ import annotations

import html
import re
import unicodedata
import urllib.parse
from collections.abc import Mapping
from functools import cache

from markdown_it import MarkdownIt
from markupsafe import Markup

_SCHEMES = frozenset(("http", "https", "mailto"))

_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))

# What each of these matches is written otherwise, whatever a reader of Markdown makes of it.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_LINK = re.compile(r"\](?=([(:])\s*(?:<\s*)?([^\s)>]*))")
_DIAGRAM = re.compile(r"((?:`{3,}|~{3,})[ \t]*)(?=mermaid)", re.I)
_TEX = re.compile(r"\\(?=(?:href|url|require|style|class|cssId|unicode|csname|bbox)\b)")


@cache
def _markdown() -> MarkdownIt:
    rules = MarkdownIt("commonmark", {"html": False})
    return rules.disable(["link", "image", "autolink", "reference"])


def rendered(text: str) -> Markup:
    """Render a message of the course: paragraphs, lists, emphasis and code; all else is escaped.

    >>> str(rendered("use `*`, not *<b>*"))
    '<p>use <code>*</code>, not <em>&lt;b&gt;</em></p>'
    """
    return Markup(_markdown().render(visible(text)).strip())  # escaped by the renderer


def visible(text: str) -> str:
    """Write out characters that would act instead of being seen; lines and tabs stay.

    >>> visible("a\\x1b[31m")
    'a\\\\x1b[31m'
    """
    return "".join(
        _code(c) if c not in "\n\t" and unicodedata.category(c) in _UNSEEN else c for c in text
    )


def _code(c: str) -> str:
    if c in "\u200c\u200d\u00ad\ufeff":  # joiners, soft hyphen: part of ordinary words
        return c
    return c.encode("unicode_escape").decode()


def harmless(text: str, attachments: Mapping[str, Mapping[str, str]]) -> str:
    """Give a student's Markdown so that no reader of Markdown makes a program of it.

    What would act gets a space in it, so that it is shown and not obeyed: tags, links to anything
    but the web and mail, pictures that are not attached, TeX commands that make links. Diagrams
    are shown as text. Everything else stays to the letter.

    Arguments:
        text: of the cell.
        attachments: those that stay, pictures only; see ``reader.pictures``.

    >>> harmless("**x** <img src=x onerror=f()> [a](javascript:f()) 1<2", {})
    '**x** < img src=x onerror=f()> [a] (javascript:f()) 1<2'
    """
    text = _TAG.sub("< ", text)
    text = _LINK.sub(lambda found: _link(found, attachments), text)
    return _TEX.sub(r"\\ ", _DIAGRAM.sub(r"\1text ", text))


def _link(found: re.Match[str], attachments: Mapping[str, object]) -> str:
    target = found[2]
    for _ in range(3):  # as a reader of Markdown and then a browser undo it
        target = urllib.parse.unquote(html.unescape(target))
    target = re.sub(r"\\(?=[^\w\s])", "", target)
    bare = "".join(c for c in target if unicodedata.category(c)[0] not in "CZ")
    scheme = re.match(r"([^/?#]*):", bare)
    if scheme is None or scheme[1].lower() in _SCHEMES:
        return "]"
    if scheme[1] == "attachment" and bare[len("attachment:") :] in attachments:
        return "]"
    return "] "  # what follows is text, no link


def written_texts(row: Mapping[str, object], handed_out: Mapping[str, str]) -> dict[str, str]:
    """Give the texts of a row that a student wrote; the untouched placeholder is none.

    Arguments:
        row: with ``texts``, by the name of the question.
        handed_out: sources of the cells as handed out.
    """
    texts = row.get("texts")
    found = texts if isinstance(texts, Mapping) else {}
    return {
        name: text
        for name, text in found.items()
        if text.strip() and text.strip() != handed_out.get(name, "").strip()
    }
