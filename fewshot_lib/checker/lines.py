"""Lines of a given width in every script: where Chinese may be broken, and how wide it stands.

``textwrap`` breaks at spaces and counts every letter as one column. Chinese has no spaces between
words, its characters take two columns, and a line of it must not begin with a comma.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata

_OPENS = "（《“‘「『【〔"
_CLOSES = "），。；：、！？》”’」』】〕…％"
_WIDE = "⺀-〿ぁ-ヿ㐀-鿿豈-﫿！-｠"
#: What stays on one line: a Chinese character or a word, and the signs that belong to it.
_PIECE = re.compile(rf"[{_OPENS}]*(?:[{_WIDE}]|[^\s{_WIDE}{_OPENS}{_CLOSES}]+|)[{_CLOSES}]*")


def columns(text: str) -> int:
    """Count the columns that a text takes in a terminal.

    >>> columns("Dice"), columns("掩码")
    (4, 4)
    """
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def folded(text: str, width: int, lead: str = "") -> list[str]:
    """Fold a text into lines.

    Arguments:
        text: words, or sentences.
        width: the most columns of a line; only one long word may take more.
        lead: what every line begins with.

    >>> folded("掩码是谁画的，很重要。", 12)
    ['掩码是谁画', '的，很重要。']
    >>> folded("Who drew it?", 8)
    ['Who drew', 'it?']
    """
    if not re.search(f"[{_WIDE}]", text):
        return textwrap.wrap(text, width, initial_indent=lead, subsequent_indent=lead)
    lines = [""]
    for word in text.split():
        gap = " "
        for piece in filter(None, _PIECE.findall(word)):
            space = gap if lines[-1] else ""
            if lines[-1] and columns(lead + lines[-1] + space + piece) > width:
                lines.append(piece)
            else:
                lines[-1] += space + piece
            gap = ""
    return [lead + line for line in lines]
