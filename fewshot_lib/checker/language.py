"""The language that readers are spoken to in: English, or one that has a folder of catalogues.

English is the source, and stands in the code. A translation is looked up by the English words, in
``locale/LANGUAGE/LC_MESSAGES/NAME.po``, as gettext does. The catalogues are read as they are, when
the first of their words is needed: there is no compiled file that could be older than its source or
missing from a package, and importing costs nothing. What is not translated, or marked as fuzzy, is
said in English; ``fewshot build --check`` lists it.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

#: The folder of the catalogues: a folder for each language, and the list of those that are whole.
FOLDER = Path(__file__).resolve().parents[1] / "locale"
SOURCE = "en"
#: Names the language; goes before the notebook's folder and the reader's locale.
VARIABLE = "FEWSHOT_LANGUAGE"
#: Folders of the course that have a folder of translated notebooks in them.
PARTS = ("notebooks", "exercises")

_SPOKEN: contextvars.ContextVar[str | None] = contextvars.ContextVar("language", default=None)


class NoSuchLanguage(LookupError):
    """There are no catalogues for that language; the message lists what there is."""


def languages() -> tuple[str, ...]:
    """Give the languages there are catalogues for, English first.

    >>> languages()[0]
    'en'
    """
    found = sorted(path.parent.name for path in FOLDER.glob("*/LC_MESSAGES"))
    return (SOURCE, *found)


def complete() -> tuple[str, ...]:
    """Give the languages that are declared complete, English first.

    >>> "en" in complete()
    True
    """
    file = FOLDER / "complete.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return (SOURCE, *(line.strip() for line in lines if line.strip() and line[0] != "#"))


def known(name: str) -> str:
    """Give a language by its name, which may be a locale's.

    Arguments:
        name: "zh_CN", "zh-CN", "zh_CN.UTF-8", or "zh" where that can mean only one.

    Raises:
        NoSuchLanguage: there are no catalogues for it.

    >>> known("en_GB.UTF-8")
    'en'
    """
    found = _match(name, languages())
    if found is None:
        raise NoSuchLanguage(f"there is no language {name!r}; there are {', '.join(languages())}")
    return found


def claimed(name: object) -> str:
    """Give the language that a stranger's file says it is in: one that there is, else English.

    >>> claimed("../../etc"), claimed(None)
    ('en', 'en')
    """
    return name if isinstance(name, str) and name in languages() else SOURCE


def short(language: str) -> str:
    """Give the name of a language's folder of notebooks.

    >>> short("zh_CN")
    'zh'
    """
    return language.partition("_")[0]


def language() -> str:
    """Give the language to speak: "en", "zh_CN".

    It is the one of :func:`speaking`; else the one that ``FEWSHOT_LANGUAGE`` names; in a kernel
    that of the notebook's folder (``notebooks/`` is English, ``notebooks/zh/`` is not); else that
    of the reader's locale, if it is complete; else English.
    """
    spoken = _SPOKEN.get()
    if spoken is not None:
        return spoken
    named = os.environ.get(VARIABLE)
    if named:
        return _named(named)
    return _of_notebook() or readers()


def readers() -> str:
    """Give the language of the reader's locale if it is complete, else English."""
    for variable in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        if os.environ.get(variable):
            wanted = os.environ[variable].split(":")[0]
            return _match(wanted, complete()) or SOURCE
    return SOURCE


@contextlib.contextmanager
def speaking(language: str) -> Iterator[str]:
    """Speak a language for the length of a ``with`` block; gives its name.

    >>> with speaking("en_GB"):
    ...     language()
    'en'
    """
    token = _SPOKEN.set(known(language))
    try:
        yield known(language)
    finally:
        _SPOKEN.reset(token)


def words(name: str) -> Callable[[str], str]:
    """Give the function that says English words in the reader's language.

    By custom it is called ``_``, which is also how its words are found for the catalogues.

    Arguments:
        name: of the catalogue: "checker".

    >>> words("checker")("a sentence that nobody translates")
    'a sentence that nobody translates'
    """
    return lambda text: translate(text, name)


def translate(text: str, name: str) -> str:
    """Say English words in the reader's language, by the catalogue of that name."""
    spoken = language()
    if spoken == SOURCE or not text:
        return text
    return catalogue(spoken, name).get(text, text)


def translate_message(text: str, name: str) -> str:
    """Say what was put together in English, far from the reader, in the reader's language.

    Arguments:
        text: as it was said; it is the English of the catalogue, or fits one with ``{gaps}``.
        name: of the catalogue: "outcomes".

    Returns:
        The translation, what is in the gaps said again as well; the text if there is none.
    """
    spoken = language()
    if spoken == SOURCE or not text:
        return text
    known = catalogue(spoken, name)
    if text in known:
        return known[text]
    for pattern, said in _patterns(file(spoken, name)):
        found = pattern.fullmatch(text)
        if found:
            return _filled(
                said,
                {gap: translate_message(part, name) for gap, part in found.groupdict().items()},
            )
    small = text[:1].lower() + text[1:]
    said = small if small == text else translate_message(small, name)
    return text if said == small else said


def _filled(said: str, gaps: Mapping[str, str]) -> str:
    """Fill the gaps; what else stands in braces, as a piece of JSON, stays."""
    return re.sub(r"\{(\w+)\}", lambda gap: gaps[gap[1]], said)


def file(language: str, name: str) -> Path:
    """Name the file of a catalogue, whether there is one or not."""
    return FOLDER / language / "LC_MESSAGES" / f"{name}.po"


def catalogue(language: str, name: str) -> Mapping[str, str]:
    """Give a catalogue, English → translation; {} if there is none."""
    return _read(file(language, name))


@cache
def _patterns(path: Path) -> list[tuple[re.Pattern[str], str]]:
    """Give the sentences with gaps as patterns, those with the most words of their own first."""
    made = []
    for source, said in _read(path).items():
        parts = re.split(r"\{(\w+)\}", source)
        if len(parts) > 1 and re.search(r"\w", "".join(parts[::2])):
            names = parts[1::2]
            gaps = [
                f"(?P={name})" if name in names[:i] else f"(?P<{name}>.*?)"
                for i, name in enumerate(names)
            ]
            text = "".join(map("".join, zip(map(re.escape, parts[::2]), [*gaps, ""], strict=True)))
            made.append((len("".join(parts[::2])), re.compile(text, re.S), said))
    return [(pattern, said) for _, pattern, said in sorted(made, key=lambda one: -one[0])]


@cache
def _read(path: Path) -> Mapping[str, str]:
    return read(path.read_text(encoding="utf-8")) if path.is_file() else {}


def read(text: str) -> dict[str, str]:
    r"""Read the text of a catalogue; what is not translated or is fuzzy is left out.

    Arguments:
        text: gettext's format, without plurals and contexts, which the course does not use.

    >>> read('msgid "one"\nmsgstr "yi"\n\n#, fuzzy\nmsgid "two"\nmsgstr "er"\n')
    {'one': 'yi'}
    """
    found: dict[str, str] = {}
    for entry in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")):
        parts: dict[str, list[str]] = {}
        key, fuzzy = "", False
        for line in entry.split("\n"):
            if line.startswith("#"):
                fuzzy |= line.startswith("#,") and "fuzzy" in line
                continue
            word, quote, rest = line.partition('"')
            key = word.strip() or key
            if quote:
                parts.setdefault(key, []).append(json.loads(quote + rest.rstrip(), strict=False))
        source, said = ("".join(parts.get(key, [])) for key in ("msgid", "msgstr"))
        if source and said and not fuzzy:
            found[source] = said
    return found


def _match(name: str, among: tuple[str, ...]) -> str | None:
    wanted = name.partition(".")[0].partition("@")[0].replace("-", "_")
    if wanted in among:
        return wanted
    alike = [one for one in among if short(one) == wanted]
    if short(wanted) == SOURCE or wanted in ("C", "POSIX"):
        return SOURCE
    return alike[0] if len(alike) == 1 else None


@cache
def _named(name: str) -> str:
    try:
        return known(name)
    except NoSuchLanguage as error:
        warnings.warn(f"{VARIABLE}: {error}; speaking English", stacklevel=2)
        return SOURCE


def _of_notebook() -> str | None:
    """Give the language of the notebook that this kernel runs; None elsewhere."""
    if "ipykernel" not in sys.modules:
        return None
    here = Path.cwd()
    if here.name in PARTS:
        return SOURCE
    if here.parent.name not in PARTS:
        return None
    return next((one for one in languages() if short(one) == here.name), None)
