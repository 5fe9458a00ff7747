"""Prove that the checks of an answer work: what the tests run, for every exercise there is.

A stub has no points; the solution has all, for many seeds; every typical mistake loses points and
is told its own sentence; mechanical mutants of the solution lose points; right variants lose none.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mutants import mutants
from variants import HERE, accepted, home, in_other_types

from fewshot_lib.checker.judge import MISSING, PASSED, Verdict, expected_results, judge
from fewshot_lib.checker.notebook import answer_cells, definitions, grading, source_of, stub
from fewshot_lib.checker.run import run
from fewshot_lib.checker.spec import Answer, Exercise
from fewshot_lib.checker.specification import BadSpecification, Edited

#: What an answer must have at least.
MISTAKES, VARIANTS, HINTS = 5, 1, 3


@dataclass
class Proof:
    """What was proved of one answer, and what was not."""

    exercise: str
    answer: str
    points: float
    mistakes: tuple[int, int] = (0, 0)
    mutants: tuple[int, int] = (0, 0)
    equivalent: int = 0
    variants: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    survivors: list[str] = field(default_factory=list)


def verdict_of(
    exercise: Exercise,
    answer: Answer,
    function: Callable[..., Any],
    seed: int,
    seconds: float = 10.0,
) -> Verdict:
    """Run a function as if a reader had written it, and judge it."""
    return judge(
        exercise, answer, run(function, expected_results(answer, seed).flat, seconds), seed
    )


def namespace(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """Execute the definitions of a notebook, and nothing else, in a fresh namespace."""
    sources = [
        source_of(cell)
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
        and (grading(cell).get("solution") or not grading(cell).get("grade"))
    ]
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("\n".join(definitions(sources)), "<solution>", "exec"), names)
    return names


def solution_function(notebook: dict[str, Any], answer: Answer) -> Callable[..., Any]:
    """Give an answer's function as its solution notebook defines it."""
    return namespace(notebook)[answer.name]


def stub_function(notebook: dict[str, Any], answer: Answer) -> Callable[..., Any]:
    """Give an answer's function as its stub defines it."""
    names = namespace(notebook)
    exec(compile(stub(answer_cells(notebook)[answer.name]), "<stub>", "exec"), names)
    return names[answer.name]


def equivalent(exercise: Exercise, answer: Answer) -> dict[str, str]:
    """Give the mutants of a solution that no input can tell from it: program → edit.

    ``equivalent/NAME.toml`` has a table ``[answer]`` of arguments, each with an edit of the
    solution for which it holds, or a list: "why" = "before → after", as of a mistake.
    """
    file = HERE / "equivalent" / f"{home(exercise, answer)}.toml"
    words = tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    found = {}
    for edits in words.get(answer.name, {}).values():
        for edit in [edits] if isinstance(edits, str) else edits:
            mutant = Edited(answer.solution, {"edit": edit}, {}, f"{file.name}: {answer.name}")
            found[ast.unparse(ast.parse(mutant.source))] = edit
    return found


def prove_form(exercise: Exercise, answer: Answer) -> list[str]:
    """Hold the specification to what every answer must have."""
    problems = []
    for what, number, least in (
        ("typical mistakes", len(answer.mistakes), MISTAKES),
        ("variants", len(accepted(exercise, answer)), VARIANTS),
        ("hints", len(answer.hints), HINTS),
    ):
        if number < least:
            problems.append(f"{number} {what}; {least} are needed")
    says = [mistake.says for mistake in answer.mistakes]
    if len(set(says)) != len(says):
        problems.append("two mistakes have the same sentence")
    problems += [
        f"the mistake {m.name!r} says too little" for m in answer.mistakes if len(m.says) < 30
    ]
    for mistake in answer.mistakes:
        try:
            if isinstance(mistake.function, Edited):
                mistake.function.function
        except BadSpecification as error:
            problems.append(str(error))
    return problems


def prove_seeds(
    exercise: Exercise, answer: Answer, function: Callable[..., Any], seeds: Iterable[int]
) -> list[str]:
    """Find seeds for which the right solution loses points."""
    alarms = []
    for seed in seeds:
        verdict = verdict_of(exercise, answer, function, seed)
        if verdict.status != PASSED:
            lines = [f"{c.name}: {c.sentence} [{c.case}]" for c in verdict.checks if c.sentence]
            alarms.append(f"seed {seed}: {'; '.join(lines)}")
    return alarms


def prove_mistakes(exercise: Exercise, answer: Answer, seed: int) -> list[str]:
    """Find mistakes that keep all points, or are told another's sentence."""
    problems = []
    for mistake in answer.mistakes:
        verdict = verdict_of(exercise, answer, mistake.function, seed)
        told = [other.name for other in verdict.mistakes]
        if verdict.points >= verdict.max_points:
            problems.append(f"{mistake.name!r} has full marks (seed {seed})")
        elif told != [mistake.name]:
            problems.append(f"{mistake.name!r} is told {told or 'nothing'} (seed {seed})")
    return problems


def prove_variants(
    exercise: Exercise, answer: Answer, function: Callable[..., Any], seed: int
) -> tuple[int, list[str]]:
    """Count the variants tried, and find those that lose points."""
    variants = [*accepted(exercise, answer), *in_other_types(function)]
    problems = []
    for variant in variants:
        verdict = verdict_of(exercise, answer, variant.function, seed)
        for check in verdict.checks:
            if check.status != PASSED:
                problems.append(
                    f"variant {variant.name!r}: {check.name}: {check.sentence} [{check.case}]"
                )
                break
    return len(variants), problems


def prove_stub(exercise: Exercise, answer: Answer, function: Callable[..., Any]) -> list[str]:
    """Find out whether a stub has points or counts as attempted."""
    verdict = verdict_of(exercise, answer, function, 0)
    wrong = verdict.points or verdict.status != MISSING
    return [f"the stub ends {verdict.status!r} with {verdict.points:g} points"] if wrong else []


@dataclass
class Mutation:
    """What became of an answer's mutants: number, killed, survivors, and which checks killed."""

    total: int
    killed: int
    survivors: list[str]
    killers: set[str]
    stale: list[str]


def prove_mutants(
    exercise: Exercise, answer: Answer, notebook: dict[str, Any], seed: int = 0
) -> Mutation:
    """Run every mutant of the solution; those argued equivalent are neither killed nor counted."""
    made = mutants(answer_cells(notebook)[answer.name], answer.name)
    excused = equivalent(exercise, answer)
    killed, survivors, killers = 0, [], set()
    stale = [excused[source] for source in sorted(excused.keys() - {m.source for m in made})]
    unexplained = replace(answer, mistakes=())  # which mistake it was costs more than the points
    solved = namespace(notebook)
    for mutant in made:
        names = dict(solved)
        try:
            exec(compile(mutant.source, "<mutant>", "exec"), names)
            verdict = verdict_of(exercise, unexplained, names[answer.name], seed, seconds=3.0)
        except Exception:
            killed += mutant.source not in excused
            continue
        if verdict.points < verdict.max_points:
            killers |= {check.name for check in verdict.checks if check.status != PASSED}
            if mutant.source in excused:
                stale.append(f"{mutant.change} (it is killed)")
            killed += 1
        elif mutant.source not in excused:
            survivors.append(mutant.change)
    total = killed + len(survivors)
    return Mutation(total, killed, survivors, killers, stale)


def prove_every_check_can_fail(
    exercise: Exercise, answer: Answer, killers: set[str], seed: int = 0
) -> list[str]:
    """Find checks that neither a mistake nor a mutant fails."""
    failed = set(killers)
    for mistake in answer.mistakes:
        if failed.issuperset(check.name for check in answer.checks):
            break
        verdict = verdict_of(exercise, answer, mistake.function, seed)
        failed |= {check.name for check in verdict.checks if check.status != PASSED}
    return [f"nothing fails «{check.name}»" for check in answer.checks if check.name not in failed]


def table(proofs: Iterable[Proof]) -> str:
    """Write what was proved, a line per answer."""
    line = "{:15}  {:23}  {:>6}  {:>8}  {:>7}  {:>5}  {:>8}  {:>5}".format
    lines = [line("exercise", "answer", "points", "mistakes", "mutants", "equal", "variants", "s")]
    for proof in proofs:
        caught, killed, accepted = (
            "{}/{}".format(*counts) for counts in (proof.mistakes, proof.mutants, proof.variants)
        )
        points, seconds = f"{proof.points:g}", f"{proof.seconds:.1f}"
        named = (proof.exercise, proof.answer, points, caught, killed)
        lines.append(line(*named, proof.equivalent, accepted, seconds))
    lines += [f"survives in {proof.answer}: {one}" for proof in proofs for one in proof.survivors]
    return "\n".join(lines)
