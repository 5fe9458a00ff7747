"""Recognise an exercise by what is in a notebook; by its name only as the last resort."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from fewshot_lib.grader.reader import Reader, SubmittedNotebook, Unreadable

# in the file as it is: a notebook need not be parsed to see that its cells are an exercise's
_GRADE_ID = re.compile(rb'"grade_id"\s*:\s*"([^"\\]{1,200})"')
_CALL = re.compile(r"\b(?:check|carry_on)\(\s*[\"'](\w+)")
_ENDING = re.compile(r"\.ipynb(?![a-z])(?:\.txt|\.json|\.zip)?", re.I)
_COPY = re.compile(r"\s*\((\d+)\)$|[-_ ]+(?:copy|kopie|copie|copia)[-_ ]*(\d*)$", re.I)
_COPY_OF = re.compile(r"^(?:copy of|kopie von|copie de|copia de)[-_ ]+", re.I)
_NUMBER = re.compile(r"[-_ ](\d{1,9})$")


@dataclass(frozen=True)
class KnownExercise:
    """What an exercise is recognised by.

    Arguments:
        stem: its file's name without ending, "03_prototypes".
        word: its short name, "prototypes".
        grade_ids: of all its cells.
        answers: the functions to be written.
    """

    stem: str
    word: str
    grade_ids: frozenset[str]
    answers: frozenset[str]


@dataclass(frozen=True)
class Recognised:
    """Which exercise a file is of.

    Arguments:
        exercise: "" if it is of none.
        sure: 2 if its marks or the calls in it say so, 1 if only functions in it have the names of
            answers, as in a lesson on them; 0 if only its own name does.
        problem: why it cannot be read, "" if it can or was not tried.
        notes: a sentence for each choice.
    """

    exercise: str
    sure: int
    problem: str = ""
    notes: tuple[str, ...] = ()


class Recogniser:
    """Recognise exercises.

    Arguments:
        exercises: all that there are.
        reader: parses notebooks whose metadata is lost.
    """

    def __init__(self, exercises: Iterable[KnownExercise], reader: Reader) -> None:
        self._exercises = sorted(exercises, key=lambda known: known.stem)
        self._reader = reader
        self._names = {known.stem: _pattern(known) for known in self._exercises}

    def file(self, name: str, data: bytes) -> Recognised:
        """Recognise a file's exercise.

        Arguments:
            name: the file's.
            data: its bytes.
        """
        named = self.name(name)
        keys = {key.decode("utf-8", "replace") for key in _GRADE_ID.findall(data)}
        found = self._by_grade_ids(keys)
        problem, notes, sure = "", [], 2
        if len(found) != 1:
            try:
                handed = self._reader.read(data)
            except Unreadable as error:
                problem = str(error)
            else:
                found, sure = self._by_cells(handed, found, named)
        sure = sure if found else 0
        others = self._also(keys, found)
        if len(found) > 1:
            chosen = named if named in found else found[0]
            notes.append(
                f"It could be {' or '.join(found)}; it was taken for {chosen}"
                f"{' by its name' if chosen == named else ''}."
            )
        else:
            chosen = found[0] if found else named
        if chosen and not sure:
            notes.append(
                f"It was taken for {chosen} by its name alone"
                f"{'' if problem else ': nothing in it is known'}."
            )
        elif chosen and named and chosen != named:
            notes.append(f"Its name says {named}, but what is in it is {chosen}.")
        if others:
            notes.append(
                f"It also holds cells of {' and '.join(others)}, which were not graded from it: "
                "each exercise needs a notebook of its own."
            )
        return Recognised(chosen, sure, problem, tuple(notes))

    def name(self, name: str) -> str:
        """Give the exercise that a file's name means, "" if it means none or several."""
        base = _plain(without_copy_marks(name)[0])
        found = [stem for stem, pattern in self._names.items() if pattern.search(base)]
        return found[0] if len(found) == 1 else ""

    def number(self, name: str) -> int:
        """Give the number that tells a file from earlier ones of its name: "-1", " (2)", "-Copy3".

        A number at the end counts only if it stands behind an exercise's name.
        """
        base, number = without_copy_marks(name)
        match = _NUMBER.search(base)
        return number + (int(match[1]) if match and self.name(base[: match.start()]) else 0)

    def cells(self, data: bytes) -> str:
        """Give a hash of the cells' sources, to compare two files by.

        Raises:
            Unreadable: it is not a notebook.
        """
        digest = hashlib.sha256()
        for cell in self._reader.read(data).cells:
            if cell["source"].strip():
                digest.update(f"{len(cell['source'])} {cell['source']}".encode())
        return digest.hexdigest()

    def _by_grade_ids(self, grade_ids: set[str]) -> list[str]:
        hits = {known.stem: len(known.grade_ids & grade_ids) for known in self._exercises}
        return _most(hits)

    def _also(self, grade_ids: set[str], found: list[str]) -> list[str]:
        """Give the exercises that have several cells here that those found do not have."""
        taken = {key for one in self._exercises if one.stem in found for key in one.grade_ids}
        left = grade_ids - taken
        return (
            [one.stem for one in self._exercises if len(one.grade_ids & left) > 1] if found else []
        )

    def _by_cells(
        self, handed: SubmittedNotebook, fitting: list[str], named: str
    ) -> tuple[list[str], int]:
        """Recognise by all that cells hold; if several exercises fit, one of those.

        Returns:
            The exercises that fit, and how sure this is.
        """
        among = [k for k in self._exercises if not fitting or k.stem in fitting]
        found = fitting or self._by_grade_ids({cell["grade_id"] for cell in handed.cells})
        if len(found) == 1:
            return found, 2
        code = [cell for cell in handed.cells if cell["cell_type"] == "code"]
        calls = Counter(word for cell in code for word in _CALL.findall(cell["source"]))
        by_calls = _most({known.stem: calls[known.word] for known in among})
        if len(by_calls) == 1:
            return by_calls, 2
        names = {name for cell in code for name in cell["defines"]}
        hits = {known.stem: len(known.answers & names) for known in among}
        # one function may have the same name by chance
        hits = {stem: count for stem, count in hits.items() if count > 1 or stem == named}
        by_names = _most(hits)
        return by_names or by_calls or found, 1 if by_names and not (by_calls or found) else 2


def _most(hits: dict[str, int]) -> list[str]:
    most = max(hits.values(), default=0)
    return [stem for stem, count in hits.items() if count == most] if most else []


def _pattern(known: KnownExercise) -> re.Pattern[str]:
    number, _, rest = known.stem.partition("_")
    words = "_*".join(map(re.escape, _plain(rest or known.stem).split("_")))
    whole = rf"(?<!\d)0*{int(number)}_*{words}(?![a-z])" if number.isdecimal() and rest else words
    return re.compile(rf"{whole}|^{re.escape(_plain(known.word))}$")


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "_", unicodedata.normalize("NFKC", text).casefold()).strip("_")


def without_copy_marks(name: str) -> tuple[str, int]:
    """Take from a file's name its ending and what copying wrote into it; count that.

    >>> without_copy_marks("Copy of 03_prototypes (2).ipynb")
    ('03_prototypes', 3)
    """
    base, number = _ENDING.sub("", name), 0
    while (match := _COPY.search(base)) and match.start():
        base, number = base[: match.start()], number + int((match[1] or match[2] or "1")[:9])
    while match := _COPY_OF.match(base):
        base, number = base[match.end() :], number + 1
    return base.strip(), number
