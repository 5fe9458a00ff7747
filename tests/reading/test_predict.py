"""Predictions: valid files, never in the way, remembered, the same text whatever was entered."""

from __future__ import annotations

import ast
import json
import re
import sys
from functools import cache
from pathlib import Path

import nbformat
import pytest
from test_question import parts_of
from test_question import reply_of as said

from fewshot_lib import figures
from fewshot_lib.checker import progress
from fewshot_lib.checker.frontend import WIDGET_VIEW
from fewshot_lib.reading import show
from fewshot_lib.reading.predict import (
    BadPrediction,
    NoSuchPrediction,
    NotUsable,
    Prediction,
    as_html,
    as_text,
    as_widget,
    find,
    predict,
    prediction,
    predictions,
    read_predictions,
    record,
    understand,
    words,
)

MODULE = sys.modules[predict.__module__]  # in its package the module's name is the function's
EVERY = [asked for word in words() for asked in predictions(word).values()]
each = pytest.mark.parametrize("asked", EVERY, ids=lambda asked: asked.id)
LESSONS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
NUMBER, CHOICE, CURVE = "dice.two-pixels", "start.moved", "dice.labels-buy"
HEIGHTS = [0.1, 0.4, 0.6, 0.7]
POINTS = ((1, 0.1), (5, 0.4), (20, 0.6), (50, 0.7))


@pytest.fixture(autouse=True)
def _own_kernel(tmp_path, monkeypatch):
    monkeypatch.setattr(MODULE, "_HERE", {})
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def new_kernel(monkeypatch):
    """Forget what this process was told, as a new kernel has."""
    return lambda: monkeypatch.setattr(MODULE, "_HERE", {})


def entry(asked: Prediction) -> str:
    """Something that can be entered."""
    if asked.kind == "choice":
        return "B"
    middle = (asked.low + asked.high) / 2
    return " ".join(f"{middle}" for _ in asked.x or (0,))


@pytest.mark.parametrize(
    ("name", "entered", "given"),
    [
        (NUMBER, 0.8, 0.8),
        (NUMBER, " 4/5 ", 0.8),
        (NUMBER, "80 %", 0.8),
        (CHOICE, "d", "Neither mask."),
        (CHOICE, "Neither mask.", "Neither mask."),
        (CURVE, HEIGHTS, POINTS),
        (CURVE, "0.1 0.4 0.6 0.7", POINTS),
    ],
)
def test_what_is_entered_is_given_back_now_and_in_a_later_kernel(name, entered, given, new_kernel):
    assert prediction(name) is None
    predict(name, entered)
    assert prediction(name) == given
    new_kernel()
    assert prediction(name) == given


@pytest.mark.parametrize(
    ("name", "entered"),
    [
        *((NUMBER, text) for text in ("", "much", "1.2", "-0.1", "0.1 0.2", [0.1, 0.2])),
        *((CHOICE, text) for text in ("", "E", "AB", 0.3)),
        *((CURVE, text) for text in ("0.1", "0.1 0.2 0.3 2", [0.1], "a b c d", 0.1)),
    ],
)
def test_what_is_no_prediction_is_refused_in_a_sentence_and_not_remembered(name, entered, capsys):
    with pytest.raises(NotUsable, match="Please enter"):
        understand(find(name), entered)
    predict(name, entered)  # raises nothing: it never stops a run
    assert "Please enter" in capsys.readouterr().out
    assert progress.load() == {}


@each
def test_a_skip_takes_an_earlier_prediction_back(asked, new_kernel):
    record(asked, entry(asked))
    assert prediction(asked.id) is not None
    assert "Skipped" in record(asked, None)
    assert prediction(asked.id) is None
    new_kernel()
    assert prediction(asked.id) is None
    assert progress.load()[f"prediction:{asked.id}"].attempts == 2


def test_a_prediction_that_no_longer_fits_what_is_asked_counts_as_none():
    for given in ('"of old"', "[0.1, 0.2]", "not json", "7"):
        progress.predict(f"prediction:{NUMBER}", given)
        assert prediction(NUMBER) is None


def test_a_saved_page_does_not_show_what_its_author_once_predicted(new_kernel, monkeypatch):
    predict(NUMBER, 0.8)
    new_kernel()
    monkeypatch.setenv("FEWSHOT_EXPLORE", "static")
    assert prediction(NUMBER) is None
    predict(NUMBER, 0.7)  # in a cell of this run
    assert prediction(NUMBER) == 0.7


def test_in_the_folder_of_the_solutions_nothing_is_remembered(tmp_path, monkeypatch, new_kernel):
    (tmp_path / "solutions").mkdir()
    monkeypatch.chdir(tmp_path / "solutions")
    predict(NUMBER, 0.8)
    assert prediction(NUMBER) == 0.8
    new_kernel()
    assert prediction(NUMBER) is None
    assert progress.load() == {}


@each
@pytest.mark.parametrize("form", ["live", "static", "text"])
def test_the_saved_text_is_the_same_whatever_was_entered(asked, form, outputs):
    def texts():
        outputs.clear()
        predict(asked.id, form=form)
        return [data["text/plain"] for data, _ in outputs]

    before = texts()
    record(asked, entry(asked))
    assert texts() == before
    record(asked, None)
    assert texts() == before
    assert before[-1] == as_text(asked)


@each
def test_the_live_form_and_the_saved_one_are_two_outputs(asked, outputs):
    predict(asked.id, form="live")
    [(live, _), (saved, _)] = outputs
    assert set(live) == {WIDGET_VIEW, "text/plain"}
    assert as_html(asked) in saved["text/html"]


def named(widget, start: str):
    """Find the control whose name begins so."""
    return next(p for p in parts_of(widget) if getattr(p, "description", "").startswith(start))


def test_a_number_is_entered_by_enter_or_button_and_stands_there_the_next_time():
    widget = as_widget(find(NUMBER))
    field = named(widget, "Your prediction")
    field.value = "much"
    field._handle_custom_msg({"event": "submit"}, [])
    assert "Please enter a number from 0 to 1" in said(widget)
    field.value = "0.8"
    named(widget, "Record").click()
    assert "You predict: 0.8" in said(widget)
    assert named(as_widget(find(NUMBER)), "Your prediction").value == "0.8"
    assert "You predicted: 0.8" in said(as_widget(find(NUMBER)))


def test_a_choice_is_a_click_and_a_skip_another():
    widget = as_widget(find(CHOICE))
    named(widget, "B. ").click()
    assert prediction(CHOICE) == find(CHOICE).options[1]
    named(widget, "Skip").click()
    assert prediction(CHOICE) is None
    assert "Skipped" in said(widget)


def test_a_curve_is_sketched_by_sliders():
    widget = as_widget(find(CURVE))
    for x, height in POINTS:
        named(widget, f"{x}").value = height
    named(widget, "Record").click()
    assert prediction(CURVE) == POINTS
    again = [p.value for p in parts_of(as_widget(find(CURVE))) if type(p).__name__ == "FloatSlider"]
    assert again == HEIGHTS


@each
def test_nothing_is_recorded_by_looking(asked):
    as_widget(asked)
    assert prediction(asked.id) is None
    assert progress.load() == {}


def test_lines_show_a_curve_and_a_point_and_the_text_for_nbval_does_not(outputs, monkeypatch):
    monkeypatch.setenv("FEWSHOT_EXPLORE", "static")
    look = {"xlabel": "labels", "ylabel": "Dice", "spacing": "equal"}
    series = ([1, 5, 20, 50], {"U-Net": HEIGHTS})
    show(*figures.lines(*series, **look))
    for own in (POINTS, [(5, 0.4), (20, None)]):
        figure, data = figures.lines(*series, **look, predicted=own)
        labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert labels == ["U-Net", "your prediction"]
        assert figure.axes[0].lines[-1].get_marker() == "X"
        show(figure, data)
    (plain, kept), *drawn = outputs
    for one, points in zip(drawn, ("0.10 at 1, 0.40 at 5, 0.60 at 20 and 0.70 at 50", "0.40 at 5"),
                           strict=True):  # fmt: skip
        data, metadata = one
        assert data["text/plain"] == plain["text/plain"]
        assert f"Your prediction: {points}." in metadata["image/png"]["alt"]
        assert data["text/html"].count(f"Your prediction: {points}.") == 2  # alt text and caption
    assert "prediction" not in kept["image/png"]["alt"]


@pytest.mark.parametrize("nothing", [None, [(5, None)], ()])
def test_without_a_prediction_the_figure_is_as_it_was(nothing):
    series, look = ([1, 5], {"a": [0.5, 0.9]}), {"xlabel": "shots", "ylabel": "accuracy"}
    without, _ = figures.lines(*series, **look)
    figure, data = figures.lines(*series, **look, predicted=nothing)
    assert figures.png(figure) == figures.png(without)
    assert data.predicted == ""


def test_methods_show_a_prediction_in_its_row():
    results = {"masked pooling": (0.7, 0.6, 0.8), "copied mask": 0.3}
    own = {"masked pooling": 0.5, "copied mask": None}
    figure, data = figures.methods(results, predicted=own)
    cross = next(line for line in figure.axes[0].lines if line.get_label() == "your prediction")
    assert (list(cross.get_xdata()), list(cross.get_ydata())) == ([0.5], [0])
    assert data.predicted == "Your prediction: masked pooling 0.50."
    with pytest.raises(ValueError, match="nobody"):
        figures.methods(results, predicted={"nobody": 0.5})


def test_a_choice_is_told_below_any_figure_and_printed_in_a_terminal(capsys):
    figure, data = figures.lines([1, 5], {"a": [0.5, 0.9]}, xlabel="x", ylabel="y")
    show(figure, data, predicted="Neither mask.")
    assert "Your prediction: Neither mask.\n" in capsys.readouterr().out


@cache
def tree_of(path: Path) -> ast.Module:
    """Read a notebook's code as one module, if it asks for predictions; else nothing."""
    cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    source = re.sub(r"^\s*[%!].*$", "", "\n".join(cells), flags=re.M)
    tree = ast.parse(source)
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                for alias in node.names if node.module == "fewshot_lib.reading"]  # fmt: skip
    return tree if {"predict", "prediction"} & set(imported) else ast.Module([], [])


def named_by(tree: ast.AST, function: str) -> list[str]:
    """List what a function is called with, in order."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    own = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == function]
    return [ast.literal_eval(call.args[0]) for call in sorted(own, key=lambda call: call.lineno)]


def names(tree: ast.AST, name: str, context: type) -> int:
    """Count how often a name is read (ast.Load) or bound (ast.Store)."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]
    return sum(isinstance(node.ctx, context) for node in found)


def test_every_prediction_is_asked_for_once_and_shown_afterwards():
    asked = []
    for path in LESSONS:
        tree = tree_of(path)
        asked += named_by(tree, "predict")
        assert named_by(tree, "predict") == named_by(tree, "prediction"), path.name
    assert sorted(asked) == sorted(one.id for one in EVERY)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_no_result_of_a_lesson_depends_on_a_prediction(path: Path) -> None:
    """What was predicted is handed to a figure, at once or by the name ``own``, and to nothing."""
    tree = tree_of(path)
    shown = [node.value for node in ast.walk(tree)
             if isinstance(node, ast.keyword) and node.arg == "predicted"]  # fmt: skip
    bound = [node.value for node in ast.walk(tree)
             if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "own"]  # fmt: skip
    for part in ("predict", "prediction"):
        assert names(tree, part, ast.Store) == 0, f"{path.name} gives {part} another meaning"
    in_figures = sum(names(part, "prediction", ast.Load) for part in (*shown, *bound))
    assert in_figures == names(tree, "prediction", ast.Load)
    if bound:
        in_figures = sum(names(part, "own", ast.Load) for part in shown)
        assert in_figures == names(tree, "own", ast.Load)


GOOD = '[[prediction]]\nid = "one"\nkind = "number"\ntext = "?"\nlow = 0\nhigh = 1\n'
BAD = [
    (GOOD + GOOD, "two of this name"),
    (GOOD.replace("one", "One"), "lower-case"),
    (GOOD.replace("number", "guess"), "kind must be one of"),
    (GOOD.replace("low = 0", "low = 1"), "low must be below high"),
    (GOOD + "x = [1, 2]\n", "a number has"),
    (GOOD.replace("number", "curve") + 'x = [2, 1]\nxlabel = "x"\nylabel = "y"\n', "increasing"),
    (GOOD.replace("number", "choice"), "a choice has options, text"),
    ('[[prediction]]\nid = "one"\nkind = "choice"\ntext = "?"\noptions = ["a"]', "2 to 6"),
    ("[[prediction", "predictions/some.toml"),
]


@pytest.mark.parametrize(("text", "why"), BAD, ids=[why for _, why in BAD])
def test_a_file_that_breaks_a_rule_is_refused_with_the_reason(text, why):
    assert read_predictions(GOOD, "some")["some.one"].kind == "number"
    with pytest.raises(BadPrediction, match=re.escape(why)):
        read_predictions(text, "some")


def test_an_unknown_prediction_is_refused_with_what_there_is():
    with pytest.raises(NoSuchPrediction, match=", ".join(words())):
        predict("cooking.salt")
    with pytest.raises(NoSuchPrediction, match=r"start\.moved"):
        prediction("start.salt")


def test_a_progress_that_cannot_be_saved_stops_nothing(monkeypatch, capsys):
    def refuse(*_):
        raise progress.ProgressNotSaved("the disk is full")

    monkeypatch.setattr(progress, "predict", refuse)
    predict(NUMBER, 0.5)
    assert "could not be saved: the disk is full" in capsys.readouterr().out
    assert prediction(NUMBER) == 0.5


def test_what_is_kept_is_readable_by_a_person():
    predict(CURVE, HEIGHTS)
    rows = json.loads(progress.path().read_text())["rows"]
    assert json.loads(rows[0]["given"]) == HEIGHTS
