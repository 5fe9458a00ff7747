"""Make the row of a submission: what `results.jsonl` keeps and every report is made from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fewshot_lib.checker import language as speech
from fewshot_lib.checker.judge import FAILED, CheckVerdict, Verdict
from fewshot_lib.checker.spec import Answer
from fewshot_lib.grader import results
from fewshot_lib.grader.attempt import FAULT, Attempt, student_seed, upper_first
from fewshot_lib.grader.plan import Plan
from fewshot_lib.grader.submissions import Submission

#: A row says no more than this many things that a person must look at.
MOST_SENTENCES = 40


def unread_row(
    one_plan: Plan, submission: Submission, run_seed: int, status: str, problem: str
) -> dict[str, Any]:
    """Make the row of a submission that was not graded."""
    checks = [
        _check_row(answer, CheckVerdict(line.name, 0.0, line.points, FAILED), None, problem)
        for answer in one_plan.exercise.answers
        for line in answer.checks
    ]
    seed = student_seed(run_seed, submission)
    return _row(one_plan, submission, seed, {}, status=status, checks=checks, notes=[problem])


def row_of(one_plan: Plan, attempt: Attempt) -> dict[str, Any]:
    """Make the row of a submission that was run and judged."""
    assembled = attempt.prepared.assembled
    status = "graded" if attempt.complete else attempt.why
    reason = "" if status == "graded" else attempt.detail
    spoken = attempt.prepared.language
    with speech.speaking(spoken):
        checks = [
            _check_row(answer, line, attempt.verdicts[answer.name], reason)
            for answer in one_plan.exercise.answers
            for line in attempt.verdicts[answer.name].checks
        ]
    notes = [*assembled.remarks]
    look_at = [*attempt.left_out]
    if status != "graded":
        look_at.insert(0, f"The submission was stopped: {attempt.detail or attempt.why}.")
    for name, others in attempt.stood_in.items():
        notes.append(
            f"{name} was judged with the course's own {' and '.join(others)} in place of "
            f"{'yours, which is' if len(others) == 1 else 'yours, which are'} not right yet."
        )
    said = []
    for index, note in sorted(attempt.notes.items()):
        place = assembled.places[index] if 0 <= index < len(assembled.places) else "a cell"
        said.append({"cell": place, "error": note["error"], "printed": note["printed"][:500]})
        look_at += not_available(place, note["error"], note["not_run"])
        if re.fullmatch(r"stopped after [\d.]+ s", note["error"]):
            look_at.append(
                f"{upper_first(place)} was {note['error']}, which is all that it may take."
            )
    for check in checks:
        look_at += not_available(f"the answer {check['answer']}", check["message"], ())
    for verdict in attempt.verdicts.values():
        faults = {line.sentence for line in verdict.checks if line.stage == FAULT}
        look_at += [f"{verdict.answer}: {sentence}" for sentence in faults]
    look_at = list(dict.fromkeys(look_at))
    if len(look_at) > MOST_SENTENCES:
        more = len(look_at) - MOST_SENTENCES
        look_at[MOST_SENTENCES:] = [f"There is more to look at: {more} sentences like these."]
    return _row(
        one_plan,
        attempt.prepared.submission,
        attempt.prepared.seed,
        attempt.versions,
        status=status,
        checks=checks,
        notes=[*look_at, *notes],
        look_at=look_at,
        said=said[:40],
        code={name: source[:20_000] for name, source in assembled.sources.items()},
        texts={name: text[:20_000] for name, text in assembled.texts.items()},
        seconds=round(attempt.seconds, 3),
        language=spoken,
    )


#: What a notebook may ask for and grading does not give: how its errors look, and what to say.
_NOT_GIVEN = (
    (
        r"gaierror|URLError|HTTPError|ConnectionError|MaxRetryError|NewConnectionError|"
        r"getaddrinfo|Temporary failure in name resolution|ScansUnavailable",
        "a network",
    ),
    (r"ModuleNotFoundError: No module named '(?!fewshot_lib)([\w.]+)'", "the package {name}"),
    (r"FileNotFoundError: .*'([^']+)'", "the file {name}"),
    (r"EOFError|StdinNotImplementedError", "somebody who types"),
    (r"PermissionError|Operation not permitted", "what the operating system keeps from it here"),
    (r"BackendCompilerFailed|InvalidCxxCompiler", "a compiler"),
)


def not_available(place: str, error: str, programs: Sequence[str]) -> list[str]:
    """Say what a cell asked for and did not get because it is not there while grading.

    >>> not_available("the cell of dice", "URLError: <urlopen error ...>", ())[0][:47]
    'The cell of dice asks for a network, which is n'
    """
    said = []
    for pattern, what in _NOT_GIVEN:
        found = re.search(pattern, error)
        if found:
            name = (found.groups() or ("",))[0][:60]
            if "FileNotFoundError" in pattern:  # may be any words: they must not pass for ours
                name = repr(name)
            thing = what.format(name=name)
            said.append(
                f"{upper_first(place)} asks for {thing}, which is not there while grading. "
                "A person must look at what depends on it."
            )
            break
    for program in programs:
        said.append(
            f"{upper_first(place)} starts {program[:60]!r}, which needs a network and was not run."
        )
    return said


def _check_row(
    answer: Answer, line: CheckVerdict, verdict: Verdict | None, reason: str
) -> dict[str, Any]:
    mistake = next(
        (m for m in verdict.mistakes if m.name == line.mistake) if verdict else iter(()), None
    )
    message = line.sentence
    if mistake is not None:
        message = f"{mistake.says} ({mistake.pointer})" if mistake.pointer else mistake.says
    elif reason:
        nothing_came = speech.translate("no result came back: {message}", "checker")
        if not message or message.startswith(nothing_came.partition("{")[0]):
            message = reason
    return {
        "id": f"{answer.name}: {line.name}",
        "answer": answer.name,
        "points": line.points,
        "max_points": line.max_points,
        "status": line.status,
        "message": message,
        "mistake": line.mistake,
    }


def _row(
    one_plan: Plan, submission: Submission, seed: int, worker: Mapping[str, Any], **found: Any
) -> dict[str, Any]:
    """Put a row together of its status, checks and notes, and of what a run found besides."""
    notes = [*submission.notes, *found["notes"]]
    not_run = {"language": speech.SOURCE, "look_at": notes, "said": [], "code": {}, "texts": {}}
    return {
        **not_run,
        "seconds": 0.0,
        **found,
        "student": submission.student,
        "exercise": submission.exercise,
        "points": sum(check["points"] for check in found["checks"]),
        "max_points": sum(check["max_points"] for check in found["checks"]),
        "notes": notes,
        "file": submission.name,
        "handed_in": submission.handed_in,
        "lms": dict(submission.lms),
        "receipt": {
            "submission": submission.digest(),
            "specification": one_plan.specification,
            "seed": seed,
            "versions": results.versions(worker),
        },
    }
