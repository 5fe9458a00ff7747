"""Make strangers' names safe to print, to tell apart, and to name files after."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

#: A longer label is cut, characters.
MAX_LABEL = 200
#: A longer part of a file name is cut, bytes of UTF-8.
MAX_FILE_NAME = 80
_SURROGATE = re.compile("[\ud800-\udfff]")
# control characters, line separators, what turns the direction of writing, the byte order mark
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"
)
_UNSAFE = re.compile(r"[^\w.-]+")
_TAGGED = re.compile(r"-[0-9a-f]{10}$")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?")  # of Windows


def printable(text: str) -> str:
    r"""Show a text in valid UTF-8, without anything that a terminal or page would obey.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    readable = _SURROGATE.sub("\ufffd", text)  # how Python holds the bytes of a name in no UTF-8
    return _INVISIBLE.sub(lambda found: ascii(found[0])[1:-1], readable)


def tag(text: str, length: int = 6) -> str:
    """Give a short hash of a text, of whatever it consists."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def label(name: str) -> str:
    """Make a label of a name: printable, composed, cut; tagged if that could join two names.

    >>> label("Zoë")
    'Zoë'
    """
    shown = unicodedata.normalize("NFC", printable(name))
    lossy = bool(_SURROGATE.search(name)) or len(shown) > MAX_LABEL
    return tagged(shown, name) if lossy else shown


def tagged(shown: str, name: str) -> str:
    """Mark a label with the hash of the name that it stands for."""
    return f"{shown[: MAX_LABEL - 7]}-{tag(name)}"


def labels(names: Sequence[str]) -> Mapping[str, str]:
    """Give each name a label that no other one has.

    Of names whose labels are the same, as of "Zoë" composed and decomposed, the one that is its own
    label keeps it, and the others are tagged.

    Returns:
        Label by name.
    """
    plain = {name: label(name) for name in names}
    count = Counter(plain.values())
    return {
        name: shown if count[shown] == 1 or shown == name else tagged(shown, name)
        for name, shown in plain.items()
    }


def safe_file_name(student: str) -> str:
    """Make a student's label a safe file name that no other label gets.

    Also on file systems that take "Anna" for "anna" and compose letters, and on Windows.

    >>> safe_file_name("zoë"), safe_file_name("../Zoë")
    ('zoë', 'Zoë-8840d1f496')
    """
    composed = unicodedata.normalize("NFC", student)
    whole = _UNSAFE.sub("-", composed).strip(".-")
    cut = whole.encode("utf-8", "replace")[:MAX_FILE_NAME].decode("utf-8", "ignore")
    plain = (
        cut == student == student.casefold()
        and not _TAGGED.search(student)
        and not _RESERVED.fullmatch(student)
    )
    return cut if plain and cut else f"{cut.strip('.-') or 'student'}-{tag(student, 10)}"
