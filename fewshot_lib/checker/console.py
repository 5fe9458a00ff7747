"""Print on any console: a character that it does not have is replaced by one that it has.

The consoles of Windows in many countries (cp1252, GBK, cp932) have no ✓; Python would raise.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import sys

#: What stands for a character that a console does not have.
SUBSTITUTES = {
    "✓": "ok", "✗": "--", "·": "..", "●": "*", "◐": "+", "○": "o", "☐": "[ ]", "☑": "[x]",
    "→": "->", "←": "<-", "↔": "<->", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "×": "x",
    "−": "-", "–": "-", "—": "-", "…": "...", "«": '"', "»": '"', "“": '"', "”": '"', "‘": "'",
    "’": "'", "‖": "||", "½": "1/2", "²": "^2", "µ": "u",
}  # fmt: skip
HANDLER = "fewshot"


def _substitute(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(SUBSTITUTES.get(character, "?") for character in lost), error.end


codecs.register_error(HANDLER, _substitute)


def any_console() -> None:
    """Let this program print whatever it has to say, whatever its console can show."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError, OSError):  # closed already: nothing will be said
                stream.reconfigure(errors=HANDLER)


def say(text: str) -> None:
    """Print text; what the console cannot show is replaced."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, HANDLER).decode(encoding))
