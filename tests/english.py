"""Find what is still English in a text that is said in a language of other letters."""

from __future__ import annotations

import re

#: What is the same in every language: code, names, and what Python and PyTorch say of an error.
KEPT = re.compile(r"`[^`\n]*`|\w+Error[:：].*?(?=\(第|）|\n|$)|第 \d+ 行：.*|\{[^{}]*\}")
WORD = r"(?:[A-Za-z][A-Za-z'’-]+|a)"
RUN = re.compile(rf"\b{WORD}(?:[,;:.]? {WORD}){{3,}}\b")


def left_in_english(text: str) -> list[str]:
    """List the runs of four or more English words; a list of names is none.

    >>> left_in_english("都不同 [queries (5, 4), targets (3, 4)]，见 `a b c d`，有 ab, cd, ef, gh")
    []
    >>> left_in_english("<p>它引发了 ValueError: this has no size  (第 3 行：raise)</p>")
    []
    >>> left_in_english("有 2 处：the organ lies on the wrong side")
    ['the organ lies on the wrong side']
    """
    plain = KEPT.sub(" ; 0 ; ", re.sub(r"<[^>]*>", "\n", text))
    return [run for run in RUN.findall(plain) if re.search(r"\w \w", run)]
