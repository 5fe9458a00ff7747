"""A live picture is replaced in its place, removed at the end, and silent where nobody watches."""

from __future__ import annotations

import IPython.display
import pytest

from fewshot_lib import figures
from fewshot_lib.reading.live import live_picture


class Place:
    """Stand in for a front end: remember what is displayed and what replaces it."""

    def __init__(self) -> None:
        self.shown: list[dict] = []

    def display(self, bundle, **how):
        assert how["raw"]
        assert how["display_id"]
        self.shown.append(bundle)
        return self

    def update(self, bundle, **how):
        assert how["raw"]
        self.shown.append(bundle)


@pytest.fixture
def place(monkeypatch) -> Place:
    where = Place()
    monkeypatch.setattr(IPython.display, "display", where.display)
    return where


def test_a_live_picture_is_replaced_in_its_place_and_removed_at_the_end(monkeypatch, place):
    monkeypatch.setenv("FEWSHOT_EXPLORE", "live")
    with live_picture(figures.loss_curve, seconds=1e-9) as watch:
        watch([])
        watch([2.0, 1.0])
        watch([2.0, 1.0, 0.5])
    assert [set(bundle) for bundle in place.shown] == [
        {"text/html", "image/png", "text/plain"},
        {"text/html", "image/png", "text/plain"},
        {"text/plain"},
    ]
    assert "3 episodes" in place.shown[1]["text/plain"]
    assert place.shown[-1]["text/plain"] == ""


def test_pictures_are_not_drawn_faster_than_asked(monkeypatch, place):
    monkeypatch.setenv("FEWSHOT_EXPLORE", "live")
    with live_picture(figures.loss_curve, seconds=1000) as watch:
        for _ in range(20):
            watch([2.0, 1.0])
    assert len(place.shown) == 2  # one picture, and its removal


def test_a_picture_of_an_interrupted_run_stays(monkeypatch, place):
    monkeypatch.setenv("FEWSHOT_EXPLORE", "live")

    def interrupted():
        with live_picture(figures.loss_curve, seconds=1e-9) as watch:
            watch([2.0, 1.0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "image/png" in place.shown[-1]


@pytest.mark.parametrize("form", ["static", "text"])
def test_where_nobody_watches_nothing_is_drawn(monkeypatch, place, form):
    monkeypatch.setenv("FEWSHOT_EXPLORE", form)
    with live_picture(lambda numbers: pytest.fail("drawn for nobody")) as watch:
        watch([2.0, 1.0])
    assert place.shown == []


def test_seconds_must_be_positive():
    with pytest.raises(ValueError, match="above 0"):
        live_picture(figures.loss_curve, seconds=0)
