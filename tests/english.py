"""Find what is still English in a text that is said in a language of other letters."""

from __future__ import annotations

import re

#: What is the same in every language: code, tags, what Python and PyTorch say of an error.
KEPT = re.compile(r"`[^`]*`|<[^>]*>|\w+Error: [^(\[（\n]*|\{[^{}]*\}")
WORD = r"(?:[A-Za-z][A-Za-z'’-]+|a)"
RUN = re.compile(rf"\b{WORD}(?:[ ,;:.]+{WORD}){{3,}}\b")


def left_in_english(text: str) -> list[str]:
    """List the runs of four or more English words; a list of names is none.

    >>> left_in_english("都不同 [queries (5, 4), targets (3, 4)]，见 `a b c d`，有 ab, cd, ef, gh")
    []
    >>> left_in_english("有 2 处：the organ lies on the wrong side")
    ['the organ lies on the wrong side']
    """
    runs = RUN.findall(KEPT.sub(" ; 0 ; ", text))
    return [run for run in runs if re.search(r"\w \w", run)]
