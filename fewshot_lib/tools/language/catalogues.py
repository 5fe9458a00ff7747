"""Make catalogues and bring them up to date, with Babel."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from babel.messages import Catalog
from babel.messages.pofile import read_po, write_po

from fewshot_lib.checker import language as speech
from fewshot_lib.tools.language.extract import Unit, chosen, extract, names

#: Lines of a catalogue's head that would change at every run, or say nothing.
NOISE = re.compile(r'^"(?:POT-Creation-Date|PO-Revision-Date|Last-Translator|Generated-By|'
                   r'Language-Team|Report-Msgid-Bugs-To|Project-Id-Version).*\n', re.M)  # fmt: skip


def template(units: list[Unit]) -> Catalog:
    """Make a catalogue without translations."""
    made = Catalog(fuzzy=False, header_comment="#")
    for unit in units:
        made.add(unit.text, auto_comments=[unit.where])
    return made


def merged(text: str, units: list[Unit], language: str) -> str:
    """Bring the text of a catalogue up to date with what there is to translate.

    Arguments:
        text: the catalogue as it is; "" to begin one.
        units: what is to be translated now.
        language: "zh_CN"; a name that Babel does not know is taken, too.

    Returns:
        The new text: what is new has no translation, what was changed has its old one and is marked
        as fuzzy, what is gone is gone.
    """
    known = read_po(BytesIO(text.encode())) if text else Catalog()
    known.fuzzy = False
    known.header_comment = f"# {language}: `python -m fewshot_lib.tools.language {language}`"
    known.update(template(units), no_fuzzy_matching=not text)
    out = BytesIO()
    write_po(out, known, width=96, no_location=True, ignore_obsolete=True)
    return NOISE.sub("", out.getvalue().decode())


def update(course: Path, language: str, only: Sequence[str] = ()) -> list[str]:
    """Bring the catalogues of a language up to date; say how much of each is translated.

    Raises:
        NoSuchCatalogue: a named one does not exist.
    """
    said = []
    for name in chosen(names(course), only):
        file = speech.file(language, name)
        before = file.read_text(encoding="utf-8") if file.is_file() else ""
        units = extract(course, name)
        after = merged(before, units, language) if units else ""
        if after and after != before:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(after, encoding="utf-8")
        known = speech.read(after)
        done = sum(unit.text in known for unit in units)
        said.append(f"{name}: {done} of {len(units)} translated")
    return said
