"""What a reader is told: shape from type from values, the mistake by name, nothing given away."""

from __future__ import annotations

import contextlib
import functools
import html
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from fewshot_lib import prototypes as library
from fewshot_lib.checker import catalogue, markup, progress
from fewshot_lib.checker import cells as checking
from fewshot_lib.checker.cells import StandIn, examine
from fewshot_lib.checker.judge import expected_results, judge, relation
from fewshot_lib.checker.report import Message, Report
from fewshot_lib.checker.run import LOST, Outcome, run
from fewshot_lib.course import carry_on, check, example, hint, rubric, solution

EXERCISE = catalogue.exercise("prototypes")
ANSWER = EXERCISE["squared_euclidean"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checking._LAST.clear()


def squared_euclidean(queries, prototypes):
    return (queries[..., :, None, :] - prototypes[..., None, :, :]).square().sum(-1)


def named(function, name="squared_euclidean"):
    function.__name__ = name
    return function


def told(function) -> str:
    return repr(Report(examine(EXERCISE, ANSWER, function)[0], ANSWER))


# ---------------------------------------------------------------------------- right and missing


def test_a_right_answer_has_all_points_and_returns_them_as_a_number(capsys):
    result = check("prototypes", squared_euclidean)
    assert repr(result) == "5"
    assert float(result) == 5.0
    assert "5 of 5 points" in capsys.readouterr().out
    assert progress.load()["prototypes.squared_euclidean"].passed


def test_the_full_name_and_the_variable_of_the_notebook_work_too():
    assert float(check("prototypes.squared_euclidean", lambda q, p: squared_euclidean(q, p))) == 5
    assert float(check("prototypes.squared_euclidean")) == 5


@pytest.mark.parametrize(
    "wrapped", [lambda q, p: squared_euclidean(q, p), functools.partial(squared_euclidean)]
)
def test_an_answer_of_another_name_is_known_by_its_variable(wrapped, capsys):
    notebook = {"check": check, "carry_on": carry_on, "squared_euclidean": wrapped}
    exec("points = check('prototypes', squared_euclidean)", notebook)
    assert float(notebook["points"]) == 5
    exec("kept = carry_on('prototypes', squared_euclidean)", notebook)
    assert notebook["kept"] is wrapped


def test_a_stub_is_not_attempted_and_no_attempt(capsys):
    def squared_euclidean(queries, prototypes):
        raise NotImplementedError("subtract, square, sum")

    assert repr(check("prototypes", squared_euclidean)) == "0"
    assert "not attempted" in capsys.readouterr().out
    assert progress.load() == {}


def test_a_missing_variable_is_not_attempted(capsys):
    assert float(check("prototypes.class_prototypes")) == 0
    assert "not attempted" in capsys.readouterr().out


def test_the_librarys_own_function_is_no_answer(capsys):
    assert float(check("prototypes", library.squared_euclidean)) == 0
    assert "library's own" in capsys.readouterr().out


def test_what_is_no_function_is_said_so(capsys):
    assert float(check("prototypes.squared_euclidean", 3.0)) == 0
    assert "not a function but a float" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["prototype", "prototypes.squared", "", "...", "prototypes."])
def test_an_unknown_name_is_told_what_there_is(name, capsys):
    assert float(check(name, len)) == 0
    assert re.search("prototypes|squared_euclidean", capsys.readouterr().out)


# ------------------------------------------------------------------------------ kinds of wrong


def test_shape_type_nan_and_values_are_told_apart():
    right = squared_euclidean
    stages = {
        "kind": lambda q, p: "a text",
        "shape": lambda q, p: right(q, p).mT.contiguous(),
        "number type": lambda q, p: right(q, p).round().long(),
        "not a number": lambda q, p: right(q, p) * float("nan"),
        "values": lambda q, p: right(q, p) + torch.arange(right(q, p).shape[-1]) ** 3,
        "error": lambda q, p: right(q, p)[10**6],
    }
    for stage, function in stages.items():
        verdict, _ = examine(EXERCISE, ANSWER, function)
        assert verdict.checks[0].stage == stage, stage


def test_an_exchange_of_axes_is_told_as_one():
    assert "two axes are exchanged" in told(lambda q, p: squared_euclidean(q, p).mT)


def test_an_exception_is_told_with_its_line():
    def answer(queries, prototypes):
        return queries @ prototypes

    text = told(answer)
    assert "RuntimeError" in text
    assert "return queries @ prototypes" in text


def test_a_forgotten_return_is_guessed():
    def answer(queries, prototypes):
        squared_euclidean(queries, prototypes)

    assert "is a `return` missing?" in told(answer)


def test_a_wrong_signature_is_told_with_the_right_one():
    assert "squared_euclidean(queries" in told(named(lambda queries: queries))


def test_an_answer_that_calls_an_unwritten_one_is_told_which():
    def other(queries, prototypes):
        raise NotImplementedError("the other one")

    def answer(queries, prototypes):
        return other(queries, prototypes)

    text = told(answer)
    assert "not written yet" in text
    assert "the other one" in text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: -a, "wrong sign"),
        (lambda a: 2.5 * a, "2.5 times"),
        (lambda a: a + 3, "same amount"),
        (lambda a: a**2, "squares"),
        (lambda a: np.exp(a), "exponentials"),
        (lambda a: np.ones_like(a), "all your numbers are the same"),
        (lambda a: a + np.arange(4)[:, None], "along axis 1"),
        (lambda a: a[::-1].copy(), "in other places"),
        (lambda a: a.T.copy(), "transpose"),
        (lambda a: a * 0 + np.sin(7 * a) + a**0.3, ""),
    ],
)
def test_simple_relations_to_the_expected_numbers_are_named(change, says):
    expected = np.abs(np.random.default_rng(0).normal(size=(4, 4))) + 0.1
    found = relation(expected, change(expected))
    assert says in found
    assert bool(found) == bool(says)


def test_a_relation_that_holds_in_one_case_only_is_not_named():
    assert "what we see" not in told(lambda q, p: squared_euclidean(q, -p))


def test_two_mistakes_in_different_checks_are_both_named():
    answer = EXERCISE["class_prototypes"]

    def class_prototypes(embeddings, labels, n_way):  # the first loop that everybody writes
        return torch.stack([embeddings[labels == k].mean(0) for k in range(n_way)])

    verdict, _ = examine(EXERCISE, answer, class_prototypes)
    assert verdict.points == 3
    assert {m.name for m in verdict.mistakes} >= {"episodes merged"}
    assert verdict.checks[0].status == "passed"


# ------------------------------------------------------------------------- nothing given away


@pytest.mark.parametrize("answer", EXERCISE.answers, ids=lambda a: a.name)
def test_no_report_shows_an_expected_number_or_the_solution(answer):
    numbers = set()
    for cases in expected_results(answer, 0).expected:
        for outcome in cases:
            if isinstance(outcome.value, np.ndarray):
                numbers |= {f"{abs(float(x)):.4f}"[:6] for x in outcome.value.ravel()}
    numbers = {text for text in numbers if not text.endswith("000")}
    for mistake in answer.mistakes:
        report = Report(examine(EXERCISE, answer, mistake.function)[0], answer)
        page = re.sub(
            r'\b(x|y|cx|cy|width|height|d|viewBox|x1|x2|y1|y2)="[^"]*"', "", report._repr_html_()
        )
        shown = set(re.findall(r"\d+\.\d{3,}", repr(report) + page))
        assert not {number[:6] for number in shown} & numbers


# ------------------------------------------------------------------------------------- hostile


def _recursion(q, p):
    return _recursion(q, p)


def _exit(q, p):
    sys.exit("bye")


def _prints(q, p):
    for _ in range(20_000):
        print("x" * 100)
    return squared_euclidean(q, p)


class Evil:
    def __eq__(self, other):
        return True

    def __array__(self, *args, **kwargs):
        raise RuntimeError("no")

    def __getattr__(self, name):
        raise SystemExit("no")

    def __repr__(self):
        raise RuntimeError("no")


class BadError(Exception):
    def __str__(self):
        raise RuntimeError("no message")


def _bad_error(q, p):
    raise BadError


def _group(q, p):
    raise BaseExceptionGroup("many", [ValueError("a"), SystemExit()])


def _deep(q, p):
    value: list = []
    for _ in range(5_000):
        value = [value]
    return value


HOSTILE = {
    "endless recursion": (_recursion, "calls itself without end"),
    "sys.exit": (_exit, "ends the program"),
    "an object equal to everything": (lambda q, p: Evil(), "you returned an Evil"),
    "an error whose message fails": (_bad_error, "BadError"),
    "a group of errors": (_group, "BaseExceptionGroup"),
    "a deep list": (_deep, "nested too deeply"),
    "a generator": (lambda q, p: (x for x in [1]), "generator"),
    "an array of objects": (lambda q, p: np.array(["a", None], dtype=object), "array of objects"),
    "a huge list": (lambda q, p: [0.0] * 10**6, "too many parts"),
    "a sparse tensor": (lambda q, p: squared_euclidean(q, p).to_sparse(), "5 of 5"),
    "a complex result": (lambda q, p: squared_euclidean(q, p) * 1j, "complex numbers"),
    "a meta tensor": (lambda q, p: torch.empty(3, device="meta"), "no numbers to read"),
    "infinities": (lambda q, p: squared_euclidean(q, p) / 0, "infinite"),
    "a class": (Evil, "cannot be"),
    "a module": (torch, "not a function"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_an_answer_does_the_check_ends_with_a_sentence(name, capsys):
    function, says = HOSTILE[name]
    result = check("prototypes.squared_euclidean", function)
    out = capsys.readouterr()
    assert says in out.out
    assert out.err == ""
    assert float(result) == (5 if "5 of 5" in says else 0)


def test_an_object_that_fights_every_question_is_no_function(capsys):
    assert float(check("prototypes.squared_euclidean", Evil())) == 0
    assert float(check("prototypes", Evil())) == 0
    assert "not a function but a Evil" in capsys.readouterr().out


def test_a_flood_of_prints_is_kept_away_and_counted(capsys):
    check("prototypes.squared_euclidean", _prints)
    out = capsys.readouterr().out
    assert len(out) < 2_000
    assert "characters" in out
    assert "5 of 5" in out


def test_an_endless_loop_is_stopped_and_said(monkeypatch, capsys):
    monkeypatch.setattr(checking, "TIME_LIMIT", 0.3)

    def loops(q, p):
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.01)

    begun = time.perf_counter()
    assert float(check("prototypes.squared_euclidean", loops)) == 0
    assert time.perf_counter() - begun < 2
    assert "too slow" in capsys.readouterr().out


def test_the_time_limit_works_in_a_thread_as_well():
    found = []

    def loops(q, p):
        while True:
            pass

    def work():
        found.extend(run(loops, expected_results(ANSWER, 0).flat[:2], seconds=0.3))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert [outcome.status for outcome in found] == ["too slow", "too slow"]


def test_code_can_be_traced_after_a_time_limit_in_a_thread():
    """In a process of its own: with a limit that is taken back, the traced call never ends."""
    script = (
        "import sys, threading\n"
        "from fewshot_lib.checker.run import time_limit\n"
        "def work():\n"
        "    with time_limit(10):\n"
        "        pass\n"
        "thread = threading.Thread(target=work)\n"
        "thread.start()\n"
        "thread.join()\n"
        "sys.settrace(lambda *_: None)\n"
        "(lambda: print('traced'))()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    assert done.stdout.split() == [b"traced"]


def test_a_slow_but_right_answer_has_all_points_and_is_told(capsys):
    def slowly(q, p):
        time.sleep(0.12)
        return squared_euclidean(q, p)

    assert float(check("prototypes.squared_euclidean", slowly)) == 5
    assert "slow" in capsys.readouterr().out


def test_an_interrupt_by_the_user_goes_through():
    def interrupted(q, p):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("prototypes.squared_euclidean", interrupted)


def test_an_answer_cannot_spoil_the_next_call_or_global_randomness(capsys):
    def writes(q, p):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        result = squared_euclidean(q, p)
        q.zero_()
        p.fill_(7)
        return result

    before = torch.get_rng_state()
    assert float(check("prototypes.squared_euclidean", writes)) == 5
    assert torch.equal(before, torch.get_rng_state())
    assert "writes into its arguments" in capsys.readouterr().out


def test_our_own_failure_is_called_ours(monkeypatch, capsys):
    monkeypatch.setattr(checking, "judge", lambda *_: 1 / 0)
    assert float(check("prototypes", squared_euclidean)) == 0
    assert "our fault" in capsys.readouterr().out


# -------------------------------------------------------------------------------------- around


def test_a_wrong_answer_is_told_within_a_second():
    examine(EXERCISE, ANSWER, squared_euclidean)  # the first call of torch itself
    begun = time.process_time()
    for answer in EXERCISE.answers:
        verdict, _ = examine(EXERCISE, answer, answer.mistakes[0].function)
        Report(verdict, answer)._repr_html_()
    assert time.process_time() - begun < 1.0


def test_carry_on_gives_the_answer_or_a_stand_in_under_a_banner(capsys):
    check("prototypes", squared_euclidean)
    assert carry_on("prototypes", squared_euclidean) is squared_euclidean
    capsys.readouterr()

    def stub(queries, prototypes):
        raise NotImplementedError("write it")

    stand_in = carry_on("prototypes", named(stub))
    assert "the course's own stands in" in capsys.readouterr().out
    assert isinstance(stand_in, StandIn)
    assert stand_in(torch.zeros(1, 2), torch.ones(1, 2)).item() == pytest.approx(2)
    assert carry_on("prototypes", stand_in) is stand_in
    assert float(check("prototypes", stand_in)) == 0
    assert "stands in" in capsys.readouterr().out

    wrong = carry_on("prototypes", named(lambda q, p: squared_euclidean(q, p).sqrt()))
    assert isinstance(wrong, StandIn)
    assert "does not pass" in capsys.readouterr().out


def test_hints_come_step_by_step_and_are_remembered(capsys):
    for step in (1, 2, 3, 3):
        hint("prototypes.squared_euclidean")
        assert f"Hint {step} of 3" in capsys.readouterr().out
    assert progress.load()["prototypes.squared_euclidean"].hints == 3
    hint("prototypes.squared_euclidean", step=1)
    assert "Hint 1 of 3" in capsys.readouterr().out


def test_the_solution_opens_after_a_pass_or_three_attempts(capsys):
    wrong = named(lambda q, p: squared_euclidean(q, p).sqrt())
    for attempt in range(3):
        solution("prototypes.squared_euclidean")
        assert f"after {3 - attempt} more attempt" in capsys.readouterr().out
        check("prototypes", wrong)
        capsys.readouterr()
    solution("prototypes.squared_euclidean")
    assert "def squared_euclidean" in capsys.readouterr().out
    check("prototypes.class_prototypes", EXERCISE["class_prototypes"].solution)
    capsys.readouterr()
    solution("prototypes.class_prototypes")
    assert "def class_prototypes" in capsys.readouterr().out


def test_the_failing_input_is_available_to_try():
    check("prototypes.squared_euclidean", lambda q, p: (q[:, None] - p[None]).square().sum(-1))
    queries, prototypes = example("prototypes.squared_euclidean")
    assert queries.ndim == prototypes.ndim == 3


def test_the_rubric_shows_the_model_answer_only_when_asked(capsys):
    rubric("prototypes.temperature")
    first = capsys.readouterr().out
    rubric("prototypes.temperature", show_model=True)
    assert EXERCISE.prose[0].model not in first
    assert EXERCISE.prose[0].model in capsys.readouterr().out


TEXTS = [(e, text) for e in catalogue.exercises() for text in e.prose]


@pytest.mark.parametrize(("of", "text"), TEXTS, ids=lambda thing: thing.name)
def test_a_live_rubric_remembers_its_ticks_and_shows_the_model_by_a_button(of, text):
    name = f"{of.name}.{text.name}"

    def shown():
        ticked = checking._ticked(name, text)
        _, *boxes, button, below = checking._live_rubric(name, text, False, ticked).children
        return boxes, button, below

    boxes, button, below = shown()
    assert [box.description for box in boxes] == [markup.plain(line) for line in text.rubric]
    assert below.value == ""
    boxes[-1].value = True
    row = progress.load()[name]
    assert (row.ticked, row.attempts, row.passed) == ((len(boxes) - 1,), 0, "")
    boxes, button, below = shown()  # run again, or the next day
    assert [box.value for box in boxes] == [False] * (len(boxes) - 1) + [True]
    for box in boxes:
        box.value = True
    row = progress.load()[name]
    assert (row.points, row.attempts) == (text.points, 0)
    assert row.passed
    button.click()
    assert markup.inline(text.model) in below.value


def test_the_saved_rubric_shows_the_ticks_and_asks_nobody_to_tick_it(capsys):
    progress.tick("prototypes.temperature", [1], 1, 4)
    rubric("prototypes.temperature")
    said = capsys.readouterr().out
    assert said.count("☑") == 1
    assert said.splitlines()[2].startswith("☑")
    assert "To tick the points, run this cell" in said


def test_progress_that_cannot_be_saved_is_said_and_costs_nothing(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEWSHOT_PROGRESS", str(tmp_path / "file" / "progress.json"))
    assert float(check("prototypes", squared_euclidean)) == 5
    assert "could not be saved" in capsys.readouterr().out


def test_a_terminal_without_colours_or_letters_gets_ascii():
    report = Report(
        examine(EXERCISE, ANSWER, lambda q, p: squared_euclidean(q, p).sqrt())[0], ANSWER
    )
    plain = report.terminal(colour=False, encoding="ascii")
    assert plain.isascii()
    assert "--" in plain
    assert "\x1b[" not in plain
    assert "\x1b[" in report.terminal(colour=True)
    assert "✗" in report.terminal(colour=False)


def test_the_name_of_a_check_holds_code_on_a_page_and_no_backtick_in_text():
    dice = catalogue.exercise("dice")
    answer = dice["dice"]
    report = Report(examine(dice, answer, answer.reference)[0], answer)
    assert "both masks empty: what <code>empty</code> says" in report._repr_html_()
    assert "both masks empty: what empty says" in repr(report)


def test_html_is_escaped_and_pictures_have_an_alt_text():
    def answer(queries, prototypes):
        raise ValueError("<script>alert(1)</script>")

    page = Report(examine(EXERCISE, ANSWER, answer)[0], ANSWER)._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;" in Message("<b>")._repr_html_()
    verdict, _ = examine(EXERCISE, ANSWER, lambda q, p: squared_euclidean(q, p).sqrt())
    assert 'aria-label="Target and your result' in Report(verdict, ANSWER)._repr_html_()


def test_a_lost_process_loses_its_checks_only():
    outcomes = run(squared_euclidean, expected_results(ANSWER, 0).flat)
    outcomes[-1] = Outcome(LOST, message="killed")
    verdict = judge(EXERCISE, ANSWER, outcomes, 0)
    assert verdict.points == 4
    assert "killed" in verdict.checks[-1].sentence


def test_as_many_outcomes_as_cases_are_needed():
    with pytest.raises(ValueError, match="one per case"):
        judge(EXERCISE, ANSWER, [], 0)


# ------------------------------------------------------------ one number, one place to read again


def _nearly(queries, prototypes):
    return squared_euclidean(queries, prototypes) * 1.02


def test_the_public_cases_show_one_wrong_number_beside_the_expected_one(capsys):
    check("prototypes", named(_nearly))
    said = " ".join(capsys.readouterr().out.split())
    yours, expected = map(float, re.search(r"yours (\S+), expected (\S+) at \[", said).groups())
    assert yours == pytest.approx(1.02 * expected, rel=1e-2)


def test_the_cases_of_another_seed_show_no_expected_number(capsys):
    check("prototypes", named(_nearly), seed=7)
    assert "yours" not in capsys.readouterr().out


def test_a_grades_report_shows_no_expected_number():
    assert "yours" not in told(_nearly)


def test_without_a_recognised_mistake_the_answers_own_section_is_to_be_read():
    verdict, _ = examine(EXERCISE, ANSWER, _nearly)
    assert not verdict.mistakes
    assert dict(Report(verdict, ANSWER).advice)["read again"] == ANSWER.section


def test_the_first_failing_checks_own_place_is_to_be_read():
    def far_off(queries, prototypes):  # right but far from the origin
        result = squared_euclidean(queries, prototypes)
        return result + (queries.abs().amax() > 100)

    verdict, _ = examine(EXERCISE, ANSWER, far_off)
    assert not verdict.mistakes
    assert dict(Report(verdict, ANSWER).advice)["read again"] == ANSWER.checks[-1].pointer


def test_the_points_are_not_shown_twice():
    points = checking.Points(3, 5)
    assert (repr(points), float(points)) == ("3", 3.0)
    assert re.sub("<[^>]*>", "", points._repr_html_()) == ""


def shown_code(page: str) -> str:
    """Give the text of a page's block of code, as somebody copies it."""
    return html.unescape(re.sub(r"<[^>]+>", "", page.split("<code>")[1].split("</code>")[0]))


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [(e, a) for e in catalogue.exercises() for a in e.answers],
    ids=lambda thing: thing.name,
)
def test_every_solution_is_shown_to_the_letter(exercise, answer, root, monkeypatch):
    from fewshot_lib.checker.notebook import answer_cells, read, without_markers

    said = []
    monkeypatch.setattr(checking, "show", said.append)
    monkeypatch.chdir(root / "exercises")
    key = f"{exercise.name}.{answer.name}"
    progress.attempt(key, 1, 1)
    solution(key)
    solved = answer_cells(read(root / "solutions" / f"{exercise.stem}.ipynb"))
    source = without_markers(solved[answer.name])
    assert f"def {answer.name}" in source
    assert shown_code(said[0]._repr_html_()) == source
    assert repr(said[0]).endswith(source)
    assert f"solutions/{exercise.stem}.ipynb" in repr(said[0])


@pytest.mark.parametrize("message", ["n_way is 3", "log_prior(x)", "x = 3", "a.b is missing"])
def test_a_name_at_the_beginning_of_a_sentence_keeps_its_letters(message):
    from fewshot_lib.checker.report import _capital

    assert _capital(message) == message
    assert _capital("you divided") == "You divided"
