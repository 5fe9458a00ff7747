"""What a translation is held to: all of it there, and the same where it must be the same.

Every guard is a function of texts, and gives what is wrong in words; nothing is read or written.
"""

from __future__ import annotations

import calendar
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

from fewshot_lib.tools.language.extract import Unit
from fewshot_lib.tools.language.paragraphs import CODE, LINK, MATHS, TAG

#: A number; letters of other scripts may touch it ("第3节"), Latin ones may not ("float32").
NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])(\d+(?:[.,]\d+)*)(?![A-Za-z0-9_])(?: ?(million|billion|万|亿)(?![a-z]))?"
)
SCALES = {"million": 10**6, "billion": 10**9, "万": 10**4, "亿": 10**8}
THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)")
PLACEHOLDER = re.compile(r"\{\w+\}")
EMPHASIS = re.compile(r"(?<!\*)\*(?!\*)([^*]+)\*(?!\*)")
MONTHS = {name: str(number) for number, name in enumerate(calendar.month_name) if name}
MONTH = re.compile(rf"\b({'|'.join(MONTHS)}) (?=\d{{4}})")


def numbers(text: str) -> list[str]:
    """List the numbers of a text as they stand, except that those with a word are multiplied out.

    >>> numbers("2.5 million pixels"), numbers("250 万个像素"), numbers("0.50 of 1,797")
    (['2500000'], ['2500000'], ['0.50', '1797'])
    """
    found = []
    for digits, word in NUMBER.findall(text):
        plain = digits.replace(",", "") if THOUSANDS.fullmatch(digits) else digits
        found.append(f"{Decimal(plain) * SCALES[word]:f}".split(".")[0] if word else plain)
    return found


#: What must be the same, as often, in any order.
SAME: Mapping[str, Callable[[str], list[str]]] = {
    "formula": lambda text: [m.group() for m in MATHS.finditer(_without(text, CODE))],
    "code": lambda text: [m.group() for m in CODE.finditer(text)],
    "link": lambda text: LINK.findall(text),
    "tag": lambda text: TAG.findall(_without(text, CODE, MATHS)),
    "placeholder": lambda text: PLACEHOLDER.findall(_without(text, MATHS)),
    "number": lambda text: numbers(
        MONTH.sub(lambda m: f"{MONTHS[m[1]]} ", _without(text, CODE, MATHS, LINK, TAG))
    ),
    "column of a table": lambda text: ["|"] * (text.count("|") if text.startswith("|") else 0),
}


def differences(source: str, said: str) -> list[str]:
    """Say what a translation has lost, or has and the source has not.

    >>> differences("Dice is $d$ in `dice` of 01.", "01 的 `dice` 中 Dice 是 $D$。")
    ['formula $d$ is missing', 'formula $D$ is not in the English']
    """
    found = []
    for kind, find in SAME.items():
        wanted, got = Counter(find(source)), Counter(find(said))
        found += [f"{kind} {one} is missing" for one in wanted - got]
        found += [f"{kind} {one} is not in the English" for one in got - wanted]
    return found


def untranslated(units: Iterable[Unit], known: Mapping[str, str]) -> list[Unit]:
    """List what has no translation, or one that was made for other words (a fuzzy one)."""
    return [unit for unit in units if unit.text not in known]


def glossary(table: Iterable[str], known: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Read the glossary: English term → the words for it in a language.

    Arguments:
        table: rows "| 原型 | prototype | … |" of the English notebook. A comma separates words for
            one thing, a slash the two things of a row.
        known: the notebook's catalogue. A translated row has the language's words in its first
            column, and in its second the English ones, as they are.

    >>> glossary(["| 支持集 / 查询集 | support set / query set | … |"], {})
    {'support set': ('支持集',), 'query set': ('查询集',)}
    """
    found = {}
    for row in table:
        cells = [cell.strip() for cell in row.strip().strip("|").split("|")]
        said = [cell.strip() for cell in known.get(row, row).strip().strip("|").split("|")]
        if len(cells) < 2 or len(said) < 2:
            continue
        for terms, theirs in zip(cells[1].split(" / "), said[0].split(" / "), strict=False):
            for term in terms.split(", "):
                found[term] = tuple(re.split(r"[,，、]\s*", theirs))
    return found


def wrong_terms(source: str, said: str, terms: Mapping[str, Sequence[str]]) -> list[str]:
    """Name terms of the glossary in the English whose word is not in the translation.

    Titles of papers (in italics in both) and code do not count.

    >>> wrong_terms("Two prototypes.", "两个典型。", {"prototype": ("原型",)})
    ['prototype is 原型']
    """
    kept = {m[1] for m in EMPHASIS.finditer(said)}
    source = EMPHASIS.sub(lambda m: " " if m[1] in kept else m.group(), source)
    source = _without(source, CODE, MATHS, LINK, TAG, PLACEHOLDER)
    return [
        f"{term} is {' or '.join(theirs)}"
        for term, theirs in terms.items()
        if re.search(rf"(?<![\w-]){re.escape(term)}(?:s|es)?(?![\w-])", source, re.I)
        and not any(word in said for word in theirs)
    ]


def _without(text: str, *kinds: re.Pattern[str]) -> str:
    for kind in kinds:
        text = kind.sub(" ", text)
    return text
