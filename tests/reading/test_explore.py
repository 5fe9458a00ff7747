"""explore(): one call, three forms; parameters, selections, the live panel without a browser.

What needs a browser (keys, names of sliders, time to the new picture) is in ``tests/browser``.
"""

from __future__ import annotations

import base64
import functools
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_lib import figures
from fewshot_lib.checker.frontend import WIDGET_VIEW
from fewshot_lib.reading import explore, parameters
from fewshot_lib.reading import panel as panel_module
from fewshot_lib.reading.multiples import look, select, small_multiples
from fewshot_lib.reading.panel import FLUENT, Panel
from fewshot_lib.reading.parameters import read_parameters

CALLS: list[dict[str, Any]] = []


def curve(shots: int = 1, distance: str = "cosine", **rest: Any) -> Any:
    """Draw something that depends on its parameters and remember the call."""
    CALLS.append({"shots": shots, "distance": distance} | rest)
    series = {distance: [0.1 * shots, 0.2 * shots]}
    return figures.lines([1, 5], series, xlabel="x", ylabel="y")


def picky(shots: int) -> Any:
    """Refuse one setting, as a sampler with too few examples does."""
    if shots == 2:
        raise ValueError("class 3 has 1 example, 2 are needed")
    return curve(shots)


@pytest.fixture(autouse=True)
def forget_calls() -> None:
    CALLS.clear()


def controls_of(function: Any = curve, **parameters: Any) -> list[Any]:
    return read_parameters(function, parameters)


# ---- parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "kind", "labels"),
    [
        ([1, 5, 10], "steps", ("1", "5", "10")),
        ([0.1, 20], "steps", ("0.1", "20")),
        (["cosine", "euclidean"], "menu", ("cosine", "Euclidean")),
        ({"squared": "squared_euclidean", "un-squared": "euclidean"}, "menu",
         ("squared", "un-squared")),
        ((0, 3), "range", ("0", "1", "2", "3")),
        ((0, 6, 3), "range", ("0", "3", "6")),
        ((0.0, 0.3, 0.1), "range", ("0", "0.1", "0.2", "0.3")),
        (range(2), "range", ("0", "1")),
        (True, "switch", ("off", "on")),
        ("liver", "text", ("liver",)),
    ],
)  # fmt: skip
def test_every_kind_of_parameter_gets_its_control(given_: Any, kind: str, labels: tuple) -> None:
    [control] = controls_of(shots=given_)
    assert (control.kind, control.labels) == (kind, labels)


@given(
    st.floats(-5, 5).map(lambda v: round(v, 2)),
    st.floats(0.01, 1).map(lambda v: round(v, 2)),
    st.integers(0, 60),
)
@settings(deadline=None, max_examples=60)
def test_a_range_runs_from_end_to_end_in_its_steps(low: float, step: float, count: int) -> None:
    high = round(low + count * step, 4)
    [control] = controls_of(shots=(low, high, step))
    assert len(control.values) == count + 1
    assert control.values[0] == pytest.approx(low)
    assert control.values[-1] == pytest.approx(high)


def test_a_control_starts_at_the_functions_own_default() -> None:
    shots, distance = controls_of(shots=(0, 4), distance=["euclidean", "cosine"])
    assert (shots.values[shots.start], distance.values[distance.start]) == (1, "cosine")
    assert controls_of(shots=[5, 10])[0].start == 0
    [scale] = controls_of(lambda scale=1.0: None, scale=[0.5, 1, 2])
    assert scale.values[scale.start] == 1


BAD = {
    "nothing": ({}, ValueError, "name a parameter"),
    "one number": ({"shots": 5}, TypeError, "functools.partial"),
    "None": ({"shots": None}, TypeError, "is not something to explore"),
    "no values": ({"shots": []}, ValueError, "has no values"),
    "twice": ({"shots": [1, 1]}, ValueError, "read alike: 1, 1"),
    "backwards": ({"shots": (5, 1)}, ValueError, "runs upwards"),
    "no step forward": ({"shots": (1, 5, 0)}, ValueError, "step > 0"),
    "fractions without step": ({"shots": (0.0, 1.0)}, ValueError, "needs a step"),
    "four numbers": ({"shots": (1, 2, 3, 4)}, TypeError, "for single values give a list"),
    "words in a tuple": ({"shots": ("a", "b")}, TypeError, "give a list"),
    "endless": ({"shots": (0, 1e6, 0.5)}, ValueError, "take a larger step"),
    "long range": ({"shots": range(5000)}, ValueError, "over 1000"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_parameter_is_refused_with_a_sentence(case: str) -> None:
    parameters, kind, message = BAD[case]
    with pytest.raises(kind, match=re.escape(message)):
        explore(curve, _form="text", **parameters)
    assert CALLS == []


def test_a_parameter_that_the_function_does_not_have_is_refused() -> None:
    def plain(shots: int) -> Any:
        return curve(shots)

    with pytest.raises(TypeError, match=r"plain\(shots\) cannot be called with shot"):
        explore(plain, shot=[1], _form="text")
    with pytest.raises(TypeError, match="missing a required argument: 'shots'"):
        explore(lambda shots, way: None, way=[1], _form="text")
    with pytest.raises(TypeError, match="a function that draws, got int"):
        explore(3, shots=[1], _form="text")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        explore(plain, shots=[1], _form="text", _panels=0)


def test_a_partial_function_can_be_explored(capsys) -> None:
    explore(functools.partial(curve, distance="euclidean"), shots=[3], _form="text", _title="held")
    assert CALLS == [{"shots": 3, "distance": "euclidean"}]
    assert capsys.readouterr().out.startswith("held: 1 setting.")


@pytest.mark.parametrize("answer", [None, 3, (1, 2), "figure"])
def test_a_function_that_returns_no_picture_is_refused(answer: Any) -> None:
    with pytest.raises(TypeError, match=r"returns \(figure, data\)"):
        explore(lambda shots: answer, shots=[1], _form="text")


# ---- which settings -----------------------------------------------------------------------------


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 30))
@settings(deadline=None, max_examples=80)
def test_the_selection_is_spread_distinct_and_no_larger_than_asked(
    lengths: list[int], most: int
) -> None:
    names = [f"p{i}" for i in range(len(lengths))]
    parameters = {n: list(range(length)) for n, length in zip(names, lengths, strict=True)}
    controls = read_parameters(lambda **all: None, parameters)
    chosen = list(select(controls, most))
    total = 1
    for length in lengths:
        total *= length
    assert 1 <= len(chosen) <= most
    assert len({tuple(setting.values()) for setting in chosen}) == len(chosen)
    if total <= most:
        assert len(chosen) == total
    for name, length in zip(names, lengths, strict=True):
        seen = sorted({setting[name] for setting in chosen})
        assert len(seen) == 1 or (seen[0], seen[-1]) == (0, length - 1), "both ends are shown"


def test_what_is_not_varied_in_the_selection_stays_at_its_start() -> None:
    controls = controls_of(shots=[1, 5], distance=["euclidean", "cosine"], seed=[7, 8])
    assert {setting["seed"] for setting in select(controls, 4)} == {7}


# ---- static and text ----------------------------------------------------------------------------


def test_the_static_form_is_one_output_with_sheet_table_and_words(outputs) -> None:
    explore(curve, shots=[1, 5], distance=["cosine", "euclidean"], _form="static")
    [(bundle, metadata)] = outputs
    assert set(bundle) == {"text/html", "text/plain"}
    alt = metadata["alt"]
    assert alt.startswith("4 small pictures, y against x. shots = 1, distance = cosine: y at 1")
    for setting in ("shots = 1, distance = Euclidean", "shots = 5, distance = cosine"):
        assert setting in alt
    assert bundle["text/plain"].splitlines()[:3] == [
        "curve: 4 settings.",
        "shots  distance   what is seen",
        "1      cosine     y at 1 and at 5: cosine 0.10 and 0.20.",
    ]
    assert bundle["text/html"].count("<tr>") == 5
    widths = re.findall(r'<img [^>]*width="(\d+)"', bundle["text/html"])
    assert widths == ["346"] * 4, "two in a row"


def test_a_selection_says_that_it_is_one(outputs) -> None:
    explore(curve, shots=(1, 100), distance=["cosine", "euclidean"], seed=[1, 2], _form="static",
            _panels=2)  # fmt: skip
    [(bundle, _)] = outputs
    caption = bundle["text/plain"].split("\nshots  distance")[0].replace("\n", " ")
    assert caption == (
        "curve: 2 of 400 settings (shots 1 … 100; distance = cosine only; seed = 1 only). In "
        "JupyterLab, run the cell to see the others."
    )


def test_every_saved_picture_stands_under_its_setting_and_says_what_it_shows() -> None:
    bundle, _ = small_multiples(curve, controls_of(shots=[1, 5]), "t", 6)
    panels = bundle["text/html"].split("font-weight:bold")[1:]
    assert len(panels) == 2
    for panel, shots in zip(panels, (1, 5), strict=True):
        figure, data = curve(shots)
        figure.set_size_inches(*figures.SIZES["small"])
        assert f">shots = {shots}</div>" in panel
        assert f'alt="shots = {shots}: {data.finding}"' in panel
        assert base64.b64encode(figures.picture(figure).content).decode() in panel


def test_a_small_picture_of_images_keeps_its_height_and_so_the_titles_above_them() -> None:
    def one(height: int) -> Any:
        return figures.strip(
            torch.rand(1, 32, 32), {"truth": torch.ones(32, 32).long()}, ["", "liver"]
        )

    own = one(0)[0].get_size_inches()[1] * 96
    bundle, _ = small_multiples(one, controls_of(height=[1, 2]), "t", 2)
    shown = [int(tall) for tall in re.findall(r'height="(\d+)"', bundle["text/html"])]
    assert shown == [round(own)] * 2


def test_the_same_call_says_the_same_twice(outputs) -> None:
    for _ in range(2):
        explore(curve, shots=[1, 5], _form="static")
    assert outputs[0] == outputs[1]


def test_words_that_vary_are_kept_out_of_the_compared_text(outputs) -> None:
    explore(curve, shots=[1, 5], _form="static", _varies=True)
    [(bundle, metadata)] = outputs
    assert bundle["text/plain"].startswith("curve: small multiples over shots.")
    assert not re.search(r"\d", bundle["text/plain"])
    assert "0.50 and 1.00" in metadata["alt"]


def test_the_text_form_draws_no_sheet(monkeypatch, capsys) -> None:
    monkeypatch.setattr("fewshot_lib.figures.png", lambda *a, **k: pytest.fail("drew a PNG"))
    explore(curve, shots=[1, 5], _form="text")
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "curve: 2 settings."
    assert len(printed.splitlines()) == 4


def test_a_setting_that_cannot_be_stands_as_a_sentence(outputs) -> None:
    explore(picky, shots=[1, 2, 3], _form="static")
    [(bundle, metadata)] = outputs
    assert "2      class 3 has 1 example, 2 are needed" in bundle["text/plain"]
    assert metadata["alt"].startswith("2 small pictures")


def test_a_mistake_in_the_function_is_not_saved_as_if_it_were_a_finding() -> None:
    def broken(shots: int) -> Any:
        raise ZeroDivisionError("oh")

    with pytest.raises(ZeroDivisionError):
        explore(broken, shots=[1, 2], _form="static")
    with pytest.raises(ValueError, match="class 3"):
        explore(picky, shots=[2], _form="static")


def test_looking_stops_when_its_time_is_over() -> None:
    seen = list(look(curve, controls_of(shots=(1, 50)), 50, seconds=0.0))
    assert len(seen) == 1


# ---- live ---------------------------------------------------------------------------------------


def live_panel(function: Any = curve, **parameters: Any) -> Panel:
    return Panel(function, read_parameters(function, parameters))


def test_moving_a_control_replaces_the_picture_in_place() -> None:
    panel = live_panel(shots=(1, 5), distance=["cosine", "euclidean"])
    picture, children = panel.picture, panel.box.children
    before = bytes(picture.value)
    panel.knobs[0].value = 4
    assert CALLS[-1] == {"shots": 4, "distance": "cosine"}
    assert bytes(picture.value) != before
    panel.knobs[1].value = "euclidean"
    assert CALLS[-1] == {"shots": 4, "distance": "euclidean"}
    assert panel.box.children == children
    assert panel.picture is picture


def test_many_moves_pile_nothing_up() -> None:
    import ipywidgets as widgets

    panel = live_panel(shots=(1, 20))
    count = len(widgets.widget._instances)
    for value in range(2, 20):
        panel.knobs[0].value = value
    assert len(widgets.widget._instances) == count
    assert len(CALLS) == 19


def test_the_panel_says_setting_finding_and_picture_in_words() -> None:
    panel = live_panel(shots=(1, 5))
    panel.knobs[0].value = 3
    assert panel.said.value == (
        '<p role="status">shots = 3. y at 1 and at 5: cosine 0.30 and 0.60.</p>'
    )
    assert panel.told.value == f"<p>{curve(3)[1].alt}</p>"
    assert panel.picture.width == str(int(figures.SIZES["single"][0] * 96))


def test_every_control_has_a_name_and_sliders_a_readout() -> None:
    panel = live_panel(
        k_shot=(1, 5), scale=(0.0, 1.0, 0.25), alpha=[1, 20], distance=["a", "b"], on=True, text="x"
    )
    assert [knob.description for knob in panel.knobs] == [
        "shots", "scale", "alpha", "distance", "on", "text",
    ]  # fmt: skip
    assert [type(knob).__name__ for knob in panel.knobs] == [
        "IntSlider", "FloatSlider", "SelectionSlider", "ToggleButtons", "Checkbox", "Text",
    ]  # fmt: skip
    assert all(knob.readout for knob in panel.knobs[:3])
    assert panel.knobs[1].readout_format == ".2f"
    assert panel.setting == {
        "k_shot": 1, "scale": 0.0, "alpha": 1, "distance": "a", "on": True, "text": "x",
    }  # fmt: skip


def test_a_slider_of_fractions_gives_the_values_that_were_asked_for() -> None:
    panel = live_panel(scale=(0.0, 1.0, 0.1))
    panel.knobs[0].value = 0.1 + 0.2  # 0.30000000000000004
    assert CALLS[-1]["scale"] == 0.3


def test_what_the_function_raises_is_told_and_the_next_move_mends_it() -> None:
    panel = live_panel(picky, shots=(1, 3))
    panel.knobs[0].value = 2
    assert 'role="alert"' in panel.said.value
    assert "class 3 has 1 example, 2 are needed" in panel.said.value
    assert "ValueError" not in panel.said.value
    assert panel.picture.layout.visibility == "hidden"
    panel.knobs[0].value = 3
    assert 'role="status"' in panel.said.value
    assert panel.picture.layout.visibility == "visible"


def test_a_mistake_is_named_with_its_kind_and_cannot_inject_html() -> None:
    def broken(shots: int) -> Any:
        raise KeyError("<img src=x>")

    panel = live_panel(broken, shots=(1, 3))
    assert "KeyError: &#x27;&lt;img src=x&gt;&#x27;" in panel.said.value
    assert "<img" not in panel.told.value


def test_pictures_that_are_quick_on_the_whole_follow_the_drag(monkeypatch) -> None:
    """The first picture does not decide, nor does one busy moment."""
    clock: list[float] = []
    monkeypatch.setattr(panel_module.time, "perf_counter", lambda: clock.pop(0))

    def takes(seconds: float) -> None:
        clock.extend([0.0, seconds])

    takes(FLUENT * 2)
    panel = live_panel(shots=(1, 9))
    knob = panel.knobs[0]
    assert knob.continuous_update is False
    for value in range(2, 8):
        takes(FLUENT / 10)
        knob.value = value
    assert knob.continuous_update is True
    takes(FLUENT * 1.5)
    knob.value = 8
    assert knob.continuous_update is True
    for value in (7, 6, 5, 4, 3):
        takes(FLUENT * 4)
        knob.value = value
    assert knob.continuous_update is False


def test_the_layout_grows_with_longer_labels_and_is_kept_otherwise() -> None:
    figures_drawn: list[Any] = []

    def labelled(digits: int) -> Any:
        figure, data = figures.lines([0, 1], {"a": [0.0, 1.0]}, xlabel="x", ylabel="y")
        axes = figure.axes[0]
        axes.set_yticks([0, 1], ["0", "9" * digits])
        axes.set_ylabel("hours")
        figures_drawn.append(figure)
        return figure, data

    panel = live_panel(labelled, digits=[2, 1, 30])
    for value in (1, 30, 2):
        panel.knobs[0].value = value
    first, shorter, longest, again = (f.axes[0].get_position().x0 for f in figures_drawn)
    assert shorter == pytest.approx(first)  # nothing jumps
    assert longest > first  # the label is not pushed off
    assert again == pytest.approx(longest)
    for figure in figures_drawn:
        assert panel_module._fits(figure)


@pytest.mark.parametrize(
    ("value", "reads"),
    [
        (1 / 3, "1/3"), (2 / 3, "2/3"), (1 / 12, "1/12"), (0.25, "0.25"), (0.1, "0.1"), (20, "20"),
        (0.123456, "0.123456"), (1e-5, "1e-05"), (float("inf"), "inf"), (np.float64(0.5), "0.5"),
        (np.int64(3), "3"), ("squared_euclidean", "squared Euclidean"), ("cosine", "cosine"),
        ("one_two", "one two"),
    ],
)  # fmt: skip
def test_values_read_as_words(value: Any, reads: str) -> None:
    assert parameters._written(value) == reads


def test_numpys_numbers_make_sliders_like_pythons() -> None:
    [range_, steps] = controls_of(
        lambda a, b: None, a=(np.int64(1), np.int64(3)), b=[np.float32(0.5), np.int32(2)]
    )
    assert (range_.kind, range_.values) == ("range", (1, 2, 3))
    assert (steps.kind, steps.labels) == ("steps", ("0.5", "2"))
    [knob, _] = [panel_module._knob(control) for control in (range_, steps)]
    assert type(knob).__name__ == "IntSlider"


def test_the_live_form_leaves_a_picture_for_who_opens_the_saved_notebook(
    outputs, monkeypatch
) -> None:
    monkeypatch.setattr(panel_module, "SAVED_SECONDS", 600)  # however busy this machine is
    explore(curve, shots=[1, 5], _form="live")
    (widget, _), (still, metadata) = outputs
    assert set(widget) == {WIDGET_VIEW, "text/plain"}
    assert "run this cell" in widget["text/plain"]
    assert {"text/html", "text/plain"} == set(still)
    assert metadata["alt"].startswith("2 small pictures")
    assert '<figure class="fewshot-figure"' in still["text/html"]
    assert '<div class="fewshot-still ' in still["text/html"], "hidden while the widget lives"


def test_a_function_that_fails_everywhere_still_opens_live(outputs) -> None:
    def broken(shots: int) -> Any:
        raise RuntimeError("no")

    explore(broken, shots=[1, 5], _form="live")
    (widget, _), (still, _) = outputs
    assert WIDGET_VIEW in widget
    assert "RuntimeError: no" in still["text/plain"]
