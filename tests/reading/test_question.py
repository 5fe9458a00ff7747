"""Questions: valid files, a reply for everything, nothing given away before it is answered."""

from __future__ import annotations

import json
import math
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_lib.checker import progress
from fewshot_lib.checker.frontend import WIDGET_VIEW
from fewshot_lib.checker.markup import inline, plain
from fewshot_lib.figures.style import luminance
from fewshot_lib.reading.expression import BadExpression, evaluate
from fewshot_lib.reading.question import (
    BadQuestion,
    NoSuchQuestion,
    Question,
    Reply,
    _reply_html,
    answer,
    as_html,
    as_text,
    as_widget,
    find,
    judge,
    place,
    question,
    questions,
    read_questions,
    respond,
    words,
)

EVERY = [asked for word in words() for asked in questions(word).values()]
MODULE = sys.modules[question.__module__]  # the module's name is the function's in its package
IDS = [asked.id for asked in EVERY]
each = pytest.mark.parametrize("asked", EVERY, ids=IDS)


@pytest.fixture(autouse=True)
def _own_kernel(tmp_path, monkeypatch):
    monkeypatch.setattr(MODULE, "_MISSES", {})  # of tests in this process that answered before
    monkeypatch.chdir(tmp_path)


def right_answer(asked: Question) -> str:
    if not asked.options:
        return asked.value
    return " ".join(letter for letter, o in asked.labelled if o.right)


def wrong_answer(asked: Question) -> str:
    if not asked.options:
        return "123456"
    return next(letter for letter, o in asked.labelled if not o.right)


def test_the_questions_of_the_first_notebooks_are_there():
    assert len(questions("prototypes")) >= 4
    assert len(questions("start")) >= 3


@each
def test_the_right_answer_is_right_and_every_option_has_its_own_reply(asked):
    assert judge(asked, right_answer(asked)).right
    replies = [option.reply for option in asked.options] + [reply for _, reply in asked.wrong]
    assert len(set(replies)) == len(replies)
    for value, reply in asked.wrong:
        assert judge(asked, value) == judge(asked, value)
        assert judge(asked, value).text == reply
        assert not judge(asked, value).right


@each
def test_the_hint_comes_after_the_second_miss_and_not_before(asked):
    wrong = wrong_answer(asked)
    assert asked.hint not in respond(asked, wrong).text
    assert asked.hint in respond(asked, wrong).text
    assert asked.hint not in respond(asked, right_answer(asked)).text


def parts_of(widget):
    """Walk a widget and what it holds."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from parts_of(child)


@each
def test_neither_text_nor_page_nor_widget_holds_a_reply_before_an_answer(asked):
    state = json.dumps([str(part.get_state()) for part in parts_of(as_widget(asked))])
    shown = as_text(asked) + as_html(asked) + state
    secrets = [option.reply for option in asked.options] + [asked.hint, asked.reply]
    for secret in filter(None, secrets + [reply for _, reply in asked.wrong]):
        assert secret not in shown


def kind_of(widget: object) -> str:
    return type(widget).__name__


def options_of(widget) -> dict[str, object]:
    """Give the controls of a choice by letter."""
    found = [part for part in parts_of(widget) if kind_of(part) in ("Button", "Checkbox")]
    return {part.description[0]: part for part in found if part.description != "Check"}


def check_button(widget):
    return next(p for p in parts_of(widget) if getattr(p, "description", "") == "Check")


def reply_of(widget) -> str:
    return list(parts_of(widget))[-1].value


def press_enter(field) -> None:
    field._handle_custom_msg({"event": "submit"}, [])


def test_a_click_brings_the_reply_and_a_second_miss_the_hint():
    asked = find("prototypes.learned")
    widget = as_widget(asked)
    buttons = options_of(widget)
    wrong = [letter for letter in asked.letters if letter != right_answer(asked)]
    buttons[wrong[0]].click()
    assert "✗" in reply_of(widget)
    assert inline(asked.hint) not in reply_of(widget)
    buttons[wrong[1]].click()
    assert inline(asked.hint) in reply_of(widget)
    buttons[right_answer(asked)].click()
    assert "✓" in reply_of(widget)
    assert progress.load()[f"question:{asked.id}"].attempts == 3


@each
def test_the_whole_option_is_the_control_and_its_name(asked):
    controls = options_of(as_widget(asked)) if asked.options else {}
    assert "".join(controls) == asked.letters
    for letter, option in asked.labelled:
        assert controls[letter].description == f"{letter}. {plain(option.text)}"


@pytest.mark.parametrize("way", ["button", "enter"])
@pytest.mark.parametrize("asked", [a for a in EVERY if not a.options], ids=lambda a: a.id)
def test_a_typed_answer_is_given_by_button_or_enter(asked, way):
    widget = as_widget(asked)
    field = next(part for part in parts_of(widget) if kind_of(part) == "Text")
    field.value = asked.value
    assert reply_of(widget) == ""
    if way == "enter":
        press_enter(field)
    else:
        check_button(widget).click()
    assert "✓" in reply_of(widget)


def test_keys_that_come_after_enter_still_count():
    import asyncio

    asked = find("prototypes.cosine-ceiling")
    widget = as_widget(asked)
    field = next(part for part in parts_of(widget) if kind_of(part) == "Text")

    async def typing() -> None:
        field.value = "0."
        press_enter(field)  # overtakes the last keys on their way from the browser
        field.value = "0.881"
        await asyncio.sleep(0.4)

    asyncio.run(typing())
    assert "✓" in reply_of(widget)
    assert progress.load()[f"question:{asked.id}"].attempts == 1


@each
def test_an_old_reply_goes_when_the_answer_changes(asked):
    widget = as_widget(asked)
    controls = options_of(widget)
    if asked.kind == "single":
        right = right_answer(asked)
        wrong = next(letter for letter in asked.letters if letter != right)
        controls[wrong].click()
        controls[right].click()
        assert "✓" in reply_of(widget)
        assert controls[wrong].style.button_color is None
        assert controls[right].style.button_color == "#00734f"
        return
    if asked.kind == "multiple":
        control = controls[wrong_answer(asked)]
        control.value = True
        check_button(widget).click()
        assert "✗" in reply_of(widget)
        control.value = False
    else:
        field = next(part for part in parts_of(widget) if kind_of(part) == "Text")
        field.value = wrong_answer(asked)
        check_button(widget).click()
        assert "✗" in reply_of(widget)
        field.value += "1"
    assert reply_of(widget) == ""


def test_the_same_answer_again_is_no_second_attempt():
    asked = find("prototypes.cosine-ceiling")
    widget = as_widget(asked)
    field = next(part for part in parts_of(widget) if kind_of(part) == "Text")
    field.value = "0.5"
    for _ in range(3):
        press_enter(field)
        check_button(widget).click()
    assert progress.load()[f"question:{asked.id}"].attempts == 1


def test_a_question_once_answered_says_so_when_it_is_shown_again():
    asked = find("prototypes.learned")
    respond(asked, right_answer(asked))
    assert "answered this correctly on" in reply_of(as_widget(asked))


def test_the_live_form_and_the_saved_one_are_two_outputs(outputs):
    question("prototypes.learned", form="live")
    [(live, _), (saved, _)] = outputs
    assert set(live) == {WIDGET_VIEW, "text/plain"}
    assert set(saved) == {"text/html", "text/plain"}
    assert saved["text/plain"] == as_text(find("prototypes.learned"))
    assert as_html(find("prototypes.learned")) in saved["text/html"]


def test_right_wrong_and_hint_are_legible_in_a_light_and_a_dark_theme():
    """Each colour brings its own ground, so that the theme's does not matter."""
    for reply in (Reply(True, "a"), Reply(False, "b"), Reply(False, "c", counts=False)):
        style = re.search(r'style="background:(#\w+);color:(#\w+)', _reply_html(reply))
        ground, ink = luminance(style[1]), luminance(style[2])
        assert (ink + 0.05) / (ground + 0.05) >= 4.5
        assert re.sub(r'<b style="background.*?</b>', "", _reply_html(reply)).count("color") == 0


def test_the_right_letter_is_not_always_the_same():
    letters = {right_answer(asked) for asked in EVERY if asked.kind == "single"}
    assert len(letters) > 1


def test_answers_are_remembered_and_nonsense_is_no_attempt():
    answer("prototypes.learned", "no letter at all")
    assert progress.load() == {}
    asked = find("prototypes.learned")
    answer(asked.id, wrong_answer(asked))
    answer(asked.id, right_answer(asked))
    row = progress.load()[f"question:{asked.id}"]
    assert (row.attempts, row.attempts_to_pass) == (2, 2)


def test_a_partly_right_multiple_choice_says_that_more_is_right():
    asked = find("prototypes.unsquared")
    first = right_answer(asked).split()[0]
    reply = judge(asked, first)
    assert not reply.right
    assert "one more is right" in reply.text


def test_every_file_names_its_notebook_by_number_and_title():
    places = [place(word) for word in words()]
    assert len({number for number, _ in places}) == len(places)
    assert all(0 <= number <= 10 and title for number, title in places)


def test_an_unknown_question_is_refused_with_what_there_is():
    with pytest.raises(NoSuchQuestion, match="prototypes"):
        question("cooking.salt")
    with pytest.raises(NoSuchQuestion, match=r"prototypes\.learned"):
        question("prototypes.salt")


def test_without_a_notebook_the_question_is_printed(capsys):
    question("prototypes.learned")
    assert 'answer("prototypes.learned"' in capsys.readouterr().out


GOOD = """
[[question]]
id = "one"
kind = "single"
text = "Which?"
hint = "Look."
[[question.option]]
text = "a"
right = true
reply = "because of this"
[[question.option]]
text = "b"
right = false
reply = "because of that"
[[question.option]]
text = "c"
right = false
reply = "because of nothing"
"""
TYPED = """
[[question]]
id = "two"
kind = "expression"
text = "How much?"
hint = "Count."
names = ["n"]
value = "2*n"
reply = "Twice."
[[question.wrong]]
value = "n"
reply = "Only once."
"""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('id = "one"', 'id = "One two"'), "lower-case"),
        (('kind = "single"', 'kind = "riddle"'), "kind must be"),
        (('hint = "Look."', ""), "hint is missing"),
        (('text = "Which?"', ""), "text is missing"),
        (("right = true", "right = false"), "one right option"),
        (("right = false", "right = true"), "one right option"),
        (('reply = "because of this"', 'reply = "no"'), "needs a reply"),
        (('reply = "because of this"', ""), "text, right"),
        (('hint = "Look."', 'hint = "Look."\npoints = 3'), "unknown entries"),
        (("[[question]]", "[[question"), "toml"),
    ],
)
def test_a_bad_question_file_is_refused_with_the_reason(change, says):
    assert change[0] in GOOD
    with pytest.raises(BadQuestion, match=says):
        read_questions(GOOD.replace(*change, 1), "test")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('value = "2*n"', 'value = "2*m"'), "not a variable here"),
        (('value = "n"', 'value = "n+n"'), "is right"),
        (('names = ["n"]', ""), "names of its variables"),
        (('reply = "Twice."', ""), "value and reply"),
    ],
)
def test_a_bad_typed_question_is_refused_with_the_reason(change, says):
    with pytest.raises(BadQuestion, match=says):
        read_questions(TYPED.replace(*change, 1), "test")


def test_the_same_formula_in_other_words_is_right():
    asked = read_questions(TYPED, "test")["test.two"]
    for typed in ("n*2", "n + n", "2·n", "(4*n^2)/(2*n)", "sqrt(4*n**2)"):
        assert judge(asked, typed).right, typed
    for typed in ("2", "n", "n^2", "2*n+0.01"):
        assert not judge(asked, typed).right, typed


@pytest.mark.parametrize(
    "typed",
    [
        "__import__('os')", "().__class__", "[1][0]", "1 if 1 else 2", "lambda: 1", "x", "",
        "exp", "exp(1, 2)", "exp(x=1)", "1 << 3", "9**9**9**9", "1/0", "(-1)**0.5", "log(-1)",
        "'a'", "True", "1j", "nan", "f'{1}'", "(" * 190, "1" * 300, "exp(1e9)", "print(1)",
    ],
)  # fmt: skip
def test_what_is_no_formula_is_refused_and_never_run(typed, capsys):
    with pytest.raises(BadExpression):
        evaluate(typed, {"n": 1.0})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("typed", "python"),
    [
        ("3h/12", "3*h/12"), ("0.25h", "0.25*h"), ("2n", "2*n"), ("n(n+1)", "n*(n+1)"),
        ("2(n+1)", "2*(n+1)"), ("(n)(h)", "n*h"), ("n log(h)", "n*log(h)"), ("2exp(n)", "2*exp(n)"),
        ("n h", "n*h"), ("(n+1)2", "(n+1)*2"), ("n^h", "n**h"), ("n²", "n**2"), ("n⁻¹", "1/n"),
        ("3h²", "3*h**2"), ("１２．５", "12.5"), ("（１＋２）×３", "9"), ("６÷３", "2"),
        ("n ÷ h", "n/h"), ("n·h", "n*h"), ("n∕h", "n/h"), ("−n", "-n"), ("n – h", "n-h"),
        ("2π", "2*pi"), ("π/2", "pi/2"), ("√2", "2**0.5"), ("√(n+1)", "sqrt(n+1)"),
        ("½", "0.5"), ("|n-h|", "abs(n-h)"), ("0,667", "0.667"), ("3,48", "3.48"),
        ("1,000.5", "1000.5"), ("2e3", "2000"), ("1e-3", "0.001"), ("2e", "2*e"),
        ("LOG(n)", "log(n)"),
        ("88.1 %", "0.881"),
        ("５０％", "0.5"), ("= 0.67", "0.67"), ("≈ 0.67", "0.67"), ("٠.٥", "0.5"),
    ],
)  # fmt: skip
def test_what_people_type_is_read_as_they_mean_it(typed, python):
    names = {"n": 1.7, "h": 12.3}
    known = {**names, "pi": math.pi, "e": math.e, "log": math.log, "sqrt": math.sqrt}
    assert evaluate(typed, names) == pytest.approx(eval(python, {**known, "exp": math.exp}))


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("1,000", "can mean 1000 or 1.000"),
        ("1,000,000", "can mean 1000000"),
        ("１，０００", "can mean 1000"),
        ("1/2n", r"two things.*2\*n"),
        ("1/n(n+1)", "two things"),
        ("2^2n", "two things"),
        ("banana", "'banana' is not a variable here; use n, v"),
        ("nv", r"write n\*v"),
        ("2nv", r"write n\*v"),
        ("n2", r"n\^2 or 2\*n"),
        ("sin(1)", "'sin' is not a function here"),
        ("nlog(v)", r"write n\*log"),
        ("N", "'N' is not a variable here; use n, v"),
        ("1.000,5", "write numbers with a point"),
        ("1 000", "cannot be read"),
    ],
)
def test_what_can_mean_two_things_or_nothing_is_asked_about(typed, says):
    with pytest.raises(BadExpression, match=says):
        evaluate(typed, {"n": 1.0, "v": 2.0})


NUMBERS = [
    asked
    for asked in EVERY
    if asked.kind == "number" and evaluate(asked.value) != round(evaluate(asked.value))
]


@pytest.mark.parametrize("digits", [2, 3, 4, 8])
@pytest.mark.parametrize("asked", NUMBERS, ids=[asked.id for asked in NUMBERS])
def test_a_number_is_right_as_it_is_rounded(asked, digits):
    value = evaluate(asked.value)
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    typed = f"{value:.{decimals}f}"
    comma = typed.replace(".", ",") if typed[0] == "0" or decimals != 3 else typed  # 3,476: asked
    for form in (typed, comma, f"{value * 100:.{max(0, decimals - 2)}f}%"):
        assert judge(asked, form).right, form
    if asked.tolerance < 0.5 * 10.0**-decimals / value:  # the next number of two digits is wrong
        assert not judge(asked, f"{value + 1.2 * 10.0**-decimals:.{decimals}f}").right


def test_one_digit_is_too_few_to_be_judged_and_no_attempt():
    reply = judge(next(asked for asked in NUMBERS if asked.value == "2/3"), "0.7")
    assert not reply.counts
    assert "two digits" in reply.text


def test_a_count_is_right_or_wrong():
    for asked in EVERY:
        if asked.kind == "number" and asked not in NUMBERS:
            value = evaluate(asked.value)
            assert judge(asked, f"{value:.0f}").right
            for other in (value + 0.1, value * 1.005, value + 1):
                assert not judge(asked, repr(other)).right


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_whatever_is_typed_gets_a_number_or_a_sentence(text):
    try:
        value = evaluate(text)
    except BadExpression:
        return
    assert math.isfinite(value)


@settings(max_examples=50, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_arithmetic_is_that_of_python(a, b):
    assert evaluate(f"({a!r}) + 2*({b!r}) - ({a!r})*({b!r})") == a + 2 * b - a * b
