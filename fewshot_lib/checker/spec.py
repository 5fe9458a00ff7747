"""What an exercise is: answers, and for each its checks, typical mistakes, variants and hints.

The same specification drives the reader's check, the grade and the proof that the checks work. It
never calls an answer: it draws *cases* (plain arguments, by seed) and judges *outcomes* (plain
results), so that the calls between the two can happen in another process.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Tolerance:
    """How near is near enough: ``|got - expected| <= atol + rtol * |expected|``, everywhere."""

    rtol: float = 1e-4
    atol: float = 1e-5


@dataclass(frozen=True)
class Case:
    """One call of the answer.

    Arguments:
        name: what is special about it, as the reader reads it: "classes of 1, 2 and 5 shots".
        args: plain values, tensors, :class:`values.Seed` or :class:`values.Fixture`.
        kwargs: the same, by keyword.
        tolerance: where this case needs another one than its answer.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    tolerance: Tolerance | None = None


#: A law looks at the cases and the plain results together; True, or what it found, as a sentence.
LawFunction = Callable[[Sequence[Case], Sequence[Any]], bool | str]


@dataclass(frozen=True)
class Check:
    """One line of the report: some cases, what must hold of their results, points.

    Without a law the results must equal the reference's. With one, they must be of the reference's
    kind and shape, and the law decides: for properties that hold across calls, and for answers that
    are right in many ways (a drawn episode).

    Arguments:
        name: what is checked, so that a passed line teaches too: "each class by its own size".
        cases: draws the cases from a generator; the same generator state, the same cases.
        points: what it is worth.
        law: see :data:`LawFunction`; may assume that results are of the right kind and shape.
        says: what to tell when the law returns False, if a sentence can be said beforehand.
        pointer: where to read about it.
        like_reference: False where kind and shape may differ from the reference's, too.
    """

    name: str
    cases: Callable[[torch.Generator], Iterable[Case]]
    points: float = 1.0
    law: LawFunction | None = None
    says: str = ""
    pointer: str = ""
    like_reference: bool = True


@dataclass(frozen=True)
class Mistake:
    """A small wrong implementation of what people really write, and what to say to them.

    Arguments:
        name: two to four words, the teacher's report counts by it: "divided by all shots".
        function: takes what the answer takes; wrong somewhere on the cases, and differently from
            every other mistake.
        says: one or two sentences to the reader, naming what was done, not what to type.
        pointer: where to read again: "notebook 03, «By loop»; note §2.2".
    """

    name: str
    function: Callable[..., Any]
    says: str
    pointer: str = ""


#: Draws target and answer side by side: (case, expected, got) -> SVG, or None for "not this case".
Picture = Callable[[Case, Any, Any], str | None]


@dataclass(frozen=True, eq=False)  # known by identity, so that what is drawn for it can be kept
class Answer:
    """One thing to write, wholly specified.

    Arguments:
        name: the function's name in the notebook; its answer cell has it as ``grade_id``.
        reference: the library's own function (or a right one, where the library has none).
        checks: at least one; their points add up to the answer's.
        mistakes: at least five.
        hints: in steps: pointer, idea, the line in words.
        section: where to read again if no mistake is recognised.
        tolerance: for every case that has none of its own.
        returns: names of the parts, where the answer returns several.
        picture: see :data:`Picture`; ``pictures.matrix`` suits most arrays of two dimensions.
        strip: public names of the library that give the answer away ("prototypes.dice").
        solution: as the reader should write it; its source is the answer's cell.
        kind: "implement", "derive" or "repair" (spot the bug).
        difficulty, importance: 1 … 5.
        minutes: for the reader.
    """

    name: str
    reference: Callable[..., Any]
    checks: Sequence[Check]
    mistakes: Sequence[Mistake]
    hints: Sequence[str]
    section: str
    tolerance: Tolerance = Tolerance()
    returns: Sequence[str] = ()
    picture: Picture | None = None
    strip: Sequence[str] = ()
    solution: Callable[..., Any] | None = None
    kind: str = "implement"
    difficulty: int = 2
    importance: int = 3
    minutes: int = 10

    def __post_init__(self) -> None:
        for what, things in (("check", self.checks), ("mistake", self.mistakes)):
            names = [thing.name for thing in things]
            if len(set(names)) != len(names):
                raise ValueError(f"{self.name}: two {what}s have the same name: {names}")
        if not self.checks:
            raise ValueError(f"{self.name}: an answer needs at least one check")
        if any(check.points <= 0 for check in self.checks):
            raise ValueError(f"{self.name}: every check must be worth more than 0 points")
        if self.kind not in ("implement", "derive", "repair"):
            raise ValueError(f"{self.name}: kind must be implement, derive or repair")

    @property
    def points(self) -> float:
        """All points of the answer."""
        return sum(check.points for check in self.checks)

    @property
    def signature(self) -> inspect.Signature:
        """How the answer is called."""
        return inspect.signature(self.solution or self.reference)

    def draw(self, seed: int) -> list[list[Case]]:
        """Draw all cases: a list for each check, the same for the same seed.

        Each check draws from a generator of its own, so that a new check changes no other's cases.
        """
        drawn = []
        for check in self.checks:
            digest = hashlib.sha256(f"{seed}|{self.name}|{check.name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
            drawn.append(list(check.cases(generator)))
        return drawn


@dataclass(frozen=True)
class Prose:
    """A text to write, judged by a person: by the reader against a rubric, or by the teacher.

    Arguments:
        name: the cell's ``grade_id``.
        points: what the teacher may give.
        rubric: observable points, one sentence each.
        model: a model answer, shown when the reader asks for it after writing.
    """

    name: str
    points: float
    rubric: Sequence[str]
    model: str
    minutes: int = 5


@dataclass(frozen=True)
class Exercise:
    """The answers of one notebook.

    Arguments:
        number: of the notebook: 3.
        name: the word that module, notebook and exercise share: "prototypes".
        title: as the reader reads it.
        answers: in the order of the notebook.
        prose: texts to write.
    """

    number: int
    name: str
    title: str
    answers: Sequence[Answer]
    prose: Sequence[Prose] = ()

    @property
    def stem(self) -> str:
        """The file's name without its ending: "03_prototypes"."""
        return f"{self.number:02d}_{self.name}"

    @property
    def points(self) -> float:
        """All points of the exercise that a program gives."""
        return sum(answer.points for answer in self.answers)

    def __getitem__(self, name: str) -> Answer:
        for answer in self.answers:
            if answer.name == name:
                return answer
        raise KeyError(
            f"exercise {self.name!r} has no answer {name!r}; it has "
            f"{', '.join(answer.name for answer in self.answers)}"
        )
