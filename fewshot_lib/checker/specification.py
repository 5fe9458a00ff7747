'''Read an exercise: code from ``NAME.py``, words from ``NAME.toml`` beside it.

In the module an answer's solution is a plain function, written as its cell in the notebook shows
it; ``fewshot build`` copies it there. Cases are generators, each a check of the answer::

    @answer(reference=library.overlap, strip=["evaluation.dice"])
    def overlap(prediction, target):
        """Measure |P ∩ T| / |P ∪ T| of two boolean masks."""
        ### BEGIN SOLUTION: divide the pixels in both masks by those in at least one
        return (prediction & target).sum() / (prediction | target).sum()
        ### END SOLUTION


    @overlap.check("intersection over union", points=2)
    def _masks(g):
        yield Case("8 by 8 pixels", (torch.rand(8, 8, generator=g) > 0.4, …))


    EXERCISE = exercise(__name__)

The file of words has ``number`` and ``title``, then a table for each answer, in the order of the
notebook, with ``minutes``, ``difficulty``, ``importance``, ``section`` (where to read again) and
``hints``; if needed ``kind`` ("derive", "repair") and ``returns`` (names of the parts). A table
``[prose.NAME]`` is a text: ``points``, ``rubric``, ``model``, ``minutes``. An answer that another
exercise has already is ``from = "segmentation"`` and what is different here. Words may be broken
over lines; a blank line separates paragraphs.

A mistake is a sentence, a pointer where it is not the answer's section, and one way to make it::

    [overlap.mistake."Dice"]
    edit = ["return → return 2 *", "prediction | target → prediction + target"]
    says = "This is the Dice score: …"

``edit``
    "before → after", one or a list: text of the solution's body that is replaced, in order. The
    body is meant without docstring, markers, comments and empty lines. Each must fit exactly once.
    Nothing after the arrow deletes. In an edit of several lines the first stands without its
    indentation, the others are indented relative to it.
``every``
    the same, but replaced wherever it stands, twice or more.
``first``
    lines that come before the solution's. These three can be combined.
``body``
    the whole body instead of the solution's, where that is shorter or clearer.
``function``
    the name of a function of the module, where no text says it.

All see the module's names, the right solutions among them. They are compiled when a wrong answer
is compared with them, not before. One that does not fit raises :class:`BadSpecification` when it is
called, so that no answer equals it; the tests call all.
'''

from __future__ import annotations

import ast
import importlib
import inspect
import io
import re
import sys
import textwrap
import tokenize
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from fewshot_lib.checker.language import SOURCE, catalogue
from fewshot_lib.checker.spec import (
    Answer,
    Case,
    Check,
    Exercise,
    LawFunction,
    Mistake,
    Picture,
    Prose,
    Tolerance,
)

Cases = Callable[[torch.Generator], Iterable[Case]]

_LEVELS = {"minutes": int, "difficulty": int, "importance": int}
_NEEDED = {**_LEVELS, "section": str, "hints": list, "mistake": dict}
_ANSWER = {**_NEEDED, "kind": str, "returns": list, "from": str}
_WAYS = {"edit": (str, list), "every": (str, list), "first": str, "body": str, "function": str}
_MISTAKE = {"says": str, "pointer": str, **_WAYS}
_PROSE = {"points": (int, float), "rubric": list, "model": str, "minutes": int}


class BadSpecification(ValueError):
    """An exercise's code and words do not fit together; the message says where."""


class Solution:
    """The solution of an answer, which can still be called, and what its checks are.

    Arguments:
        function: as the reader should write it.
        settings: arguments of :class:`~fewshot_lib.checker.spec.Answer` that are code.
    """

    def __init__(self, function: Callable[..., Any], settings: Mapping[str, Any]) -> None:
        self.function, self.settings = function, dict(settings)
        self.checks: list[Check] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def check(
        self,
        name: str,
        points: float = 1.0,
        law: LawFunction | None = None,
        says: str = "",
        pointer: str = "",
        like_reference: bool = True,
    ) -> Callable[[Cases], Cases]:
        """Make a generator of cases the next check; see :class:`~fewshot_lib.checker.spec.Check`.

        Returns:
            A decorator that gives the generator back, so that another check can use it, too.
        """

        def register(cases: Cases) -> Cases:
            self.checks.append(Check(name, cases, points, law, says, pointer, like_reference))
            return cases

        return register


def answer(
    reference: Callable[..., Any] | None = None,
    tolerance: Tolerance = Tolerance(),  # noqa: B008 - frozen
    picture: Picture | None = None,
    strip: Sequence[str] = (),
) -> Callable[[Callable[..., Any]], Solution]:
    """Make a function the solution of an answer; for the arguments see :class:`Answer`.

    Arguments:
        reference: the library's own function, if it has one; the solution itself by default.
    """

    def register(function: Callable[..., Any]) -> Solution:
        return Solution(
            function,
            {
                "reference": reference or function,
                "tolerance": tolerance,
                "picture": picture,
                "strip": strip,
            },
        )

    return register


def exercise(module: str) -> Exercise:
    """Put together the exercise of a module: the solutions defined so far, and the file of words.

    Arguments:
        module: the module's ``__name__``; its last word is the exercise's name.

    Raises:
        BadSpecification: the words cannot be read, or say more or less than the code needs.
    """
    names = vars(sys.modules[module])
    file = Path(str(names["__file__"])).with_suffix(".toml")
    return read(file.read_text(encoding="utf-8"), names, file.stem, file.name)


def read(text: str, names: dict[str, Any], name: str, file: str = "<words>") -> Exercise:
    """Put together an exercise from its words and the names of its module.

    Arguments:
        text: TOML.
        names: the module's names; every :class:`Solution` among them is an answer.
        name: the exercise's word.
        file: for messages.

    Raises:
        BadSpecification: as :func:`exercise`.
    """
    try:
        words = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadSpecification(f"{file}: {error}") from None
    number, title = words.pop("number", None), words.pop("title", None)
    if not isinstance(number, int) or not isinstance(title, str):
        raise BadSpecification(f"{file}: it begins with number (a number) and title (a text)")
    texts = words.pop("prose", {})
    for key, table in [*words.items(), *texts.items()]:
        if not isinstance(table, dict):
            raise BadSpecification(f"{file}: {key} is neither number nor title nor a table")
    solutions = {key: one for key, one in names.items() if isinstance(one, Solution)}
    shared = {key for key, table in words.items() if "from" in table}
    if missing := set(solutions) - set(words):
        raise BadSpecification(f"{file}: no table for the answers {sorted(missing)}")
    if surplus := set(words) - set(solutions) - shared:
        raise BadSpecification(f"{file}: no solution in the module for {sorted(surplus)}")
    return Exercise(
        number=number,
        name=name,
        title=title,
        answers=[
            _again(key, table, names, f"{file}: {key}")
            if key in shared
            else _answer(key, table, names, f"{file}: {key}")
            for key, table in words.items()
        ],
        prose=[_prose(key, table, f"{file}: {key}") for key, table in texts.items()],
    )


def in_language(exercise: Exercise, language: str) -> Exercise:
    """Give an exercise with its words in another language; names stay, they are keys.

    Arguments:
        exercise: in English.
        language: "zh_CN"; "en" changes nothing.
    """
    if language == SOURCE:
        return exercise
    own = catalogue(language, f"exercises/{exercise.name}")

    def say(text: str) -> str:
        return own.get(text, text)

    return replace(
        exercise,
        title=say(exercise.title),
        answers=[
            _answer_in(answer, catalogue(language, f"exercises/{words_of(answer, exercise.name)}"))
            for answer in exercise.answers
        ],
        prose=[
            replace(text, rubric=[say(point) for point in text.rubric], model=say(text.model))
            for text in exercise.prose
        ],
    )


def words_of(answer: Answer, exercise: str) -> str:
    """Name the exercise in whose file an answer's words stand: another's where it is shared."""
    module = getattr(answer.solution, "__module__", "")
    return module.rpartition(".")[2] if "." in module else exercise


def _answer_in(answer: Answer, words: Mapping[str, str]) -> Answer:
    def say(text: str) -> str:
        return words.get(text, text)

    return replace(
        answer,
        hints=[say(hint) for hint in answer.hints],
        section=say(answer.section),
        mistakes=[
            replace(mistake, says=say(mistake.says), pointer=say(mistake.pointer))
            for mistake in answer.mistakes
        ],
        checks=[
            replace(check, says=say(check.says), pointer=say(check.pointer))
            for check in answer.checks
        ],
    )


def cell(function: Callable[..., Any]) -> str:
    """Give a solution's source as it stands in its notebook's cell, markers and all."""
    lines = inspect.getsource(function).rstrip().split("\n")
    first = ast.parse("\n".join(lines)).body[0]
    return "\n".join(lines[first.lineno - 1 :])


class Edited:
    """A wrong function, made from the solution when it is first called.

    Arguments:
        solution: what it is made from.
        way: the mistake's table.
        names: of the module.
        where: exercise, answer and mistake, for messages.
    """

    def __init__(
        self,
        solution: Callable[..., Any],
        way: Mapping[str, Any],
        names: dict[str, Any],
        where: str,
    ) -> None:
        self.solution, self.way, self.names, self.where = solution, way, names, where
        self.__name__, self.__module__ = solution.__name__, solution.__module__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @cached_property
    def function(self) -> Callable[..., Any]:
        """The wrong function.

        Raises:
            BadSpecification: an edit does not fit, or its result is not a program.
        """
        made: dict[str, Any] = {}  # apart, so that the solution keeps its name in the module
        try:
            exec(compile(self.source, f"<{self.where}>", "exec"), self.names, made)
        except SyntaxError as error:
            raise BadSpecification(f"{self.where}: {error}:\n{self.source}") from None
        function: Callable[..., Any] = made[self.solution.__name__]
        return function

    @property
    def source(self) -> str:
        """The source of the wrong function."""
        head, body = _parts(cell(self.solution))
        if "body" in self.way:
            body = self.way["body"].strip("\n")
        for edit in _listed(self.way.get("edit", [])):
            body = self._edited(body, edit, once=True)
        for edit in _listed(self.way.get("every", [])):
            body = self._edited(body, edit, once=False)
        body = "\n".join([*filter(None, [self.way.get("first", "").strip("\n")]), body])
        return f"{head}\n{textwrap.indent(body, '    ')}\n"

    def _edited(self, body: str, edit: str, once: bool) -> str:
        parts = [textwrap.dedent(part).strip() for part in edit.split("→")]
        if len(parts) != 2 or not parts[0]:
            raise BadSpecification(f"{self.where}: an edit is «before → after», got {edit!r}")
        before, after = parts
        pieces, at, found = [], 0, 0
        for match in re.finditer(re.escape(before.split("\n")[0]), body):
            start = match.start()
            line = body[body.rfind("\n", 0, start) + 1 : start]
            indent = "\n" + " " * (len(line) - len(line.lstrip()))
            wanted = before.replace("\n", indent)
            if start >= at and body.startswith(wanted, start):
                pieces += [body[at:start], after.replace("\n", indent)]
                at, found = start + len(wanted), found + 1
        if found < 1 or (found > 1) == once:
            times = "once" if once else "twice or more"
            raise BadSpecification(f"{self.where}: {before!r} stands {found} times, not {times}")
        return "".join([*pieces, body[at:]])


def _parts(source: str) -> tuple[str, str]:
    """Give a function's head, and its body without docstring and comments, from the margin."""
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    lines: list[str] = source.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    first = function.body[0]
    has_docstring = ast.get_docstring(function) is not None
    begin = (first.end_lineno or 0) if has_docstring else first.lineno - 1
    body = [line for line in lines[begin:] if line.strip()]
    return "\n".join(lines[: first.lineno - 1]), textwrap.dedent("\n".join(body))


def _answer(name: str, table: dict[str, Any], names: dict[str, Any], where: str) -> Answer:
    _hold(table, _ANSWER, where)
    if missing := [key for key in _NEEDED if key not in table]:
        raise BadSpecification(f"{where}: {', '.join(missing)} missing")
    solution: Solution = names[name]
    section = _text(table["section"])
    return Answer(
        name=name,
        checks=solution.checks,
        mistakes=[
            _mistake(key, wrong, solution.function, names, section, f"{where}: {key}")
            for key, wrong in table["mistake"].items()
        ],
        hints=[_text(hint) for hint in table["hints"]],
        section=section,
        returns=tuple(table.get("returns", ())),
        kind=table.get("kind", "implement"),
        solution=solution.function,
        **{key: table[key] for key in _LEVELS},
        **solution.settings,
    )


def _again(name: str, table: dict[str, Any], names: dict[str, Any], where: str) -> Answer:
    """Take an answer from the exercise beside this one, with other levels."""
    _hold(table, {**_LEVELS, "from": str}, where)
    module = f"{names['__name__'].rpartition('.')[0]}.{table['from']}"
    found: Answer = importlib.import_module(module).EXERCISE[name]
    return replace(found, **{key: table[key] for key in _LEVELS if key in table})


def _mistake(
    name: str,
    table: dict[str, Any],
    solution: Callable[..., Any],
    names: dict[str, Any],
    section: str,
    where: str,
) -> Mistake:
    if not isinstance(table, dict):
        raise BadSpecification(f"{where}: it is not a table")
    _hold(table, _MISTAKE, where)
    ways = [key for key in table if key in _WAYS]
    if "says" not in table or not (
        len(ways) == 1 or (ways and {*ways} <= {"first", "edit", "every"})
    ):
        raise BadSpecification(f"{where}: it needs says and one of {', '.join(_WAYS)}; has {ways}")
    if "function" in table:
        function = names.get(table["function"])
        if not callable(function):
            raise BadSpecification(f"{where}: the module has no function {table['function']!r}")
        function = function.function if isinstance(function, Solution) else function
    else:
        function = Edited(solution, table, names, where)
    return Mistake(name, function, _text(table["says"]), table.get("pointer", section))


def _prose(name: str, table: dict[str, Any], where: str) -> Prose:
    _hold(table, _PROSE, where)
    if missing := [key for key in ("points", "rubric", "model") if key not in table]:
        raise BadSpecification(f"{where}: {', '.join(missing)} missing")
    return Prose(
        name=name,
        points=table["points"],
        rubric=[_text(point) for point in table["rubric"]],
        model=_text(table["model"]),
        minutes=table.get("minutes", 5),
    )


def _hold(table: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    """Refuse keys that nobody reads, and values of another kind."""
    for key, value in table.items():
        if key not in known:
            raise BadSpecification(f"{where}: {key!r} is none of {', '.join(known)}")
        lines = value if isinstance(value, list) else []
        if not isinstance(value, known[key]) or not all(isinstance(line, str) for line in lines):
            raise BadSpecification(f"{where}: {key} is of the wrong kind: {value!r}")


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _text(value: str) -> str:
    """Join the lines of each paragraph."""
    paragraphs = re.split(r"\n\s*\n", value.strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
