"""Every section that an exercise or a question sends its reader to is a heading that exists."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from saved import LESSONS, ROOT, number_of, prose

#: "notebook 04, «Unequal priors»"; several sections of one notebook may follow each other.
POINTER = re.compile(r"notebook (\d\d[a-z]?)((?:,? (?:and )?«[^»]+»)+)", re.IGNORECASE)
SOURCES = sorted((ROOT / "fewshot_lib" / "exercises").glob("*.[pt]*"))
SOURCES += sorted((ROOT / "fewshot_lib" / "reading" / "questions").glob("*.toml"))


def pointers(text: str) -> Iterator[tuple[str, str]]:
    """Find (number of a notebook, section) in a source; broken lines are joined."""
    joined = re.sub(r'"\s*\n\s*f?"', "", text)  # "one string " "in two lines"
    joined = joined.replace("\n", " ")
    for lesson, sections in POINTER.findall(joined):
        for section in re.findall(r"«([^»]+)»", sections):
            yield lesson, section


def sections(path: Path) -> set[str]:
    """List a notebook's headings without their numbers."""
    lines = (line for text in prose(path) for line in text.splitlines() if line.startswith("#"))
    return {re.sub(r"^#+\s*(?:\d+(?:\.\d+)*\s+)?", "", line).strip() for line in lines}


FOUND: dict[str, set[tuple[str, str]]] = defaultdict(set)
for _source in SOURCES:
    for _number, _section in pointers(_source.read_text(encoding="utf-8")):
        FOUND[_number].add((_section, _source.name))


def test_pointers_are_found_also_in_broken_strings() -> None:
    text = 'X = "notebook 04, «Why the "\n    "mean»; note §2.2"  # notebook 03, «A» and «B»'
    assert [*pointers(text)] == [("04", "Why the mean"), ("03", "A"), ("03", "B")]
    assert len(FOUND["03"]) >= 5
    assert [*pointers("notebook 04b, «A»; notebook 04, «B»")] == [("04b", "A"), ("04", "B")]
    assert len(FOUND["04"]) >= 5
    assert len(FOUND["04b"]) >= 5


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_a_section_is_named_by_its_heading_and_never_by_its_subject(source: Path) -> None:
    text = re.sub(r'"\s*\n\s*f?"', "", source.read_text(encoding="utf-8"))
    assert re.findall(r"notebook \d\d[a-z]?(?: on|,? the section on) [^\";]+", text) == []


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_section_that_an_exercise_names_is_a_heading(path: Path) -> None:
    there = sections(path)
    lost = [
        f"{source}: «{section}»"
        for section, source in sorted(FOUND[number_of(path)])
        if section not in there
    ]
    assert lost == [], f"no such heading in {path.name}; it has {sorted(there)}"
