"""Sentences and code as HTML: code stays as it is to the letter, words may be emphasised.

The texts of questions, hints and messages hold three marks: `code` in backticks, *emphasis*, and
a letter's index (c_k). Everything else is shown as it was written.
"""

from __future__ import annotations

import html
import re

#: Beside a star a letter of ASCII means a product; Chinese has no spaces between words.
_EMPHASIS = re.compile(r"(?a:(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*]))")
#: One letter (or a word that takes an index in formulas), then one letter or digit.
_INDEX = re.compile(
    r"(?<![^\W\d])([^\W\d_]\u0302?|softmax|max|argmax|Σ)_([^\W_])(?![^\W²³¹⁰ᵀ])", re.UNICODE
)
#: Colours of code: a light page of its own, so that they are legible in a dark theme too.
_STYLE = "xcode"


def inline(text: str) -> str:
    """Give a sentence as HTML, escaped.

    >>> inline("*twice*: `a * b * c` < c_k")
    '<em>twice</em>: <code>a * b * c</code> &lt; c<sub>k</sub>'
    >>> inline("\u5b83*\u6ca1\u6709*\u8bf4")
    '\u5b83<em>\u6ca1\u6709</em>\u8bf4'
    """
    parts = html.escape(text, quote=False).split("`")
    if len(parts) % 2 == 0:  # a backtick that is not closed is a character like others
        parts[-2:] = ["`".join(parts[-2:])]
    return "".join(f"<code>{p}</code>" if i % 2 else _words(p) for i, p in enumerate(parts))


def _words(escaped: str) -> str:
    return _INDEX.sub(r"\1<sub>\2</sub>", _EMPHASIS.sub(r"<em>\1</em>", escaped))


#: Indices that Unicode has; for labels that cannot hold HTML.
_SMALL = dict(zip("0123456789aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ", strict=True))


def plain(text: str) -> str:
    """Give a sentence as plain text for a label: without marks, indices as Unicode has them.

    >>> plain("*twice*: `a * b` is c_k")
    'twice: a * b is cₖ'
    """
    parts = text.split("`")
    if len(parts) % 2 == 0:
        parts[-2:] = ["`".join(parts[-2:])]
    return "".join(p if i % 2 else _plain_words(p) for i, p in enumerate(parts))


def _plain_words(text: str) -> str:
    return _INDEX.sub(
        lambda found: f"{found[1]}{_SMALL.get(found[2], '_' + found[2])}",
        _EMPHASIS.sub(r"\1", text),
    )


#: White on these is legible (WCAG AA) whatever the theme of the page is.
RIGHT, WRONG, NEUTRAL = "#00734f", "#b84a00", "#5c5c5c"


def badge(text: str, colour: str) -> str:
    """Give a short mark as HTML, white on a colour: as legible on a dark page as on a light one."""
    return (
        f'<b style="background:{colour};color:#ffffff;border-radius:.25em;padding:0 .35em">'
        f"{html.escape(text)}</b>"
    )


def code_block(source: str) -> str:
    """Give Python code as HTML: highlighted, and to be copied as it is, to the letter.

    >>> "<pre" in code_block("a * b") and "<code>" in code_block("a * b")
    True
    """
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    lexer = PythonLexer(stripnl=False, ensurenl=False)
    coloured = highlight(source, lexer, HtmlFormatter(nowrap=True, noclasses=True, style=_STYLE))
    if not source.endswith("\n"):
        coloured = coloured.removesuffix("\n")  # the formatter ends every line
    return (
        '<pre style="background:#ffffff;color:#000000;padding:.5em .7em;overflow-x:auto;'
        f'line-height:1.4;white-space:pre" tabindex="0"><code>{coloured}</code></pre>'
    )
