"""Find what is still English in a text that is said in a language of other letters."""

from __future__ import annotations

import re

#: What is the same in every language: code, tags, what Python and PyTorch say of an error.
KEPT = re.compile(r"`[^`]*`|<[^>]*>|\w+Error: [^(\[（\n]*|\{[^{}]*\}")
WORD = r"[A-Za-z][A-Za-z'’-]*"
RUN = re.compile(rf"{WORD}(?:[ ,;:.]+{WORD}){{3,}}")


def left_in_english(text: str) -> list[str]:
    """List the runs of four or more English words.

    >>> left_in_english("所有 15 个数都不同 [queries (5, 4), prototypes (3, 4)]，见 `a b c d`")
    []
    >>> left_in_english("有 2 处：the organ lies on the wrong side")
    ['the organ lies on the wrong side']
    """
    return RUN.findall(KEPT.sub(" ; 0 ; ", text))
