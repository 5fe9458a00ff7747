"""Chinese as it is set: spaces and signs of a sentence put together from parts, and its lines.

A sentence from a catalogue is set rightly; what is put into its places may be Latin or Chinese, and
only the whole shows where a space or a full-width sign belongs. ``textwrap`` breaks lines at spaces
and counts every letter as one column. Chinese has no spaces between words, its characters take two
columns, and a line of it must not begin with a comma.
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

_HAN = "㐀-鿿豈-﫿"
_FULL = "，。；：、！？（）《》「」『』【】"
_TO_FULL = str.maketrans(",;:!?", "，；：！？")
_HALF = re.compile(rf"(?<=[{_HAN}）])[,;:!?](?=[ {_HAN}]|$) *|[,;:] +(?=[{_HAN}])")
_NO_SPACE = re.compile(rf"(?<=[{_FULL}]) +|(?<=\S) +(?=[{_FULL}])|(?<=[{_HAN}]) +(?=[{_HAN}])")
_A_SPACE = re.compile(rf"(?<=[{_HAN}])(?=[(\w])(?![_{_HAN}])|(?<=[%)\w])(?<![_{_HAN}])(?=[{_HAN}])")


def typeset(text: str) -> str:
    """Set a sentence that was put together: a space between Chinese and Latin, full-width signs.

    Arguments:
        text: in any language; without a Chinese character it stays as it is.

    >>> typeset("4 张切片（82、87和92）:  脾 在 4 张中; 图： Dice 为0.5。 note's network：1")
    "4 张切片（82、87 和 92）：脾在 4 张中；图：Dice 为 0.5。note's network：1"
    >>> typeset("有 55 %和53 %在p(z)处")
    '有 55 % 和 53 % 在 p(z) 处'
    >>> typeset("U-Net, trained: 0.9")
    'U-Net, trained: 0.9'
    """
    if not re.search(f"[{_HAN}]", text):
        return text
    text = _HALF.sub(lambda found: found[0].strip().translate(_TO_FULL), text)
    return _A_SPACE.sub(" ", _NO_SPACE.sub("", text))


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
