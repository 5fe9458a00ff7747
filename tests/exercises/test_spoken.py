"""What the checks say to a reader of Chinese holds no sentence that is still English."""

from __future__ import annotations

import html
from collections.abc import Iterator

import pytest
from english import left_in_english
from test_diagnosis_is_right import wrong_outcomes

from fewshot_lib.checker import catalogue
from fewshot_lib.checker import language as speech
from fewshot_lib.checker.judge import ExpectedResults, expected_results, judge
from fewshot_lib.checker.report import Report
from fewshot_lib.checker.run import LOST, RAISED, TOO_SLOW, Outcome

CHINESE = "zh_CN"
SEED = 0
#: Of the wrong functions, those that are told different things.
TOLD = {"zeros", "NaN", "negated", "turned round", "nothing", "an object", "ones, never refused"}
ENDED = {
    "raised": Outcome(RAISED, error=("ValueError",), message="x", where="line 2: raise"),
    "slow": Outcome(TOO_SLOW, message="stopped after 2.0 s"),
    "lost": Outcome(LOST),
}


def outcomes_of(drawn: ExpectedResults) -> Iterator[tuple[str, list[Outcome]]]:
    """Give what wrong answers make of an answer's cases, the typical mistakes and others."""
    for mistake, groups in zip(drawn.answer.mistakes, drawn.mistaken, strict=True):
        yield mistake.name, [outcome for group in groups for outcome in group]
    yield from ((name, made) for name, made in wrong_outcomes(drawn) if name in TOLD)
    for name, outcome in ENDED.items():
        yield name, [outcome] * len(drawn.flat)


@pytest.mark.parametrize("name", [exercise.name for exercise in catalogue.exercises()])
def test_a_check_says_nothing_in_english_to_a_reader_of_chinese(name: str) -> None:
    left = {}
    with speech.speaking(CHINESE):
        exercise = catalogue.exercise(name)
        for answer in exercise.answers:
            drawn = expected_results(answer, SEED)
            given = {o.value for group in drawn.expected for o in group if isinstance(o.value, str)}
            for wrong, outcomes in outcomes_of(drawn):
                verdict = judge(exercise, answer, outcomes, SEED)
                report = Report(verdict, answer, numbers=True)
                lines = report.lines(width=100_000)
                said = "\n".join(lines), html.unescape(report._repr_html_())
                found = {run for text in said for run in left_in_english(text)} - given
                if found:
                    left[f"{answer.name}, {wrong}"] = sorted(found)
            for hint in answer.hints:
                assert set(left_in_english(hint)) <= given, "what is returned stays as it is"
    assert left == {}
