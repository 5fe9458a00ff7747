"""The pictures of the saved notebooks: sharp, sized, with a minus only before what is not zero."""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from saved import LESSONS, ROOT, SAVED, label, outputs

from fewshot_lib import figures

PICTURE = re.compile(r'width="(\d+)" height="(\d+)"[^>]*src="data:(image/[\w+]+);base64,([^"]+)"')
MOST = 1_000_000  # bytes of a notebook
CHINESE = sorted(
    path for part in ("notebooks", "exercises") for path in ROOT.glob(f"{part}/zh/*.ipynb")
)
HAN = "\u3400-\u9fff"
#: What Chinese does not have: half-width signs, spaces beside full-width ones, none beside Latin.
UNSET = re.compile(
    rf"[{HAN}][,;:!?]|[,;:] ?[{HAN}]|[，。；：、！？（] | [，。；：、！？）]|"
    rf"[{HAN}][A-Za-z0-9]|[A-Za-z0-9%][{HAN}]|\S  +\S"
)
every_notebook = pytest.mark.parametrize("path", SAVED, ids=label)


@pytest.mark.parametrize(
    "path", [*SAVED, *CHINESE], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_every_picture_is_an_svg_or_has_two_dots_per_pixel_and_fits_a_column(path: Path) -> None:
    widest = max(width for width, _ in figures.SIZES.values()) * 96
    for output in outputs(path):
        page = output.get("data", {}).get("text/html", "")
        for width, height, kind, source in PICTURE.findall(page):
            assert int(width) <= round(widest)
            if kind == "image/png":
                picture = Image.open(io.BytesIO(base64.b64decode(source)))
                dots = zip(picture.size, (int(width), int(height)), strict=True)
                assert all(abs(sharp - 2 * shown) <= 1 for sharp, shown in dots)  # half a pixel
            else:
                assert kind == "image/svg+xml"
                ElementTree.fromstring(base64.b64decode(source))  # else a browser shows nothing
        assert len(re.findall(r"<img\b", page)) == len(PICTURE.findall(page))


@pytest.mark.parametrize("path", LESSONS, ids=label)
def test_a_notebook_stays_below_one_megabyte(path: Path) -> None:
    assert path.stat().st_size < MOST


@every_notebook
def test_no_output_says_minus_zero_one_slices_or_shots_a_class(path: Path) -> None:
    for output in outputs(path):
        data = output.get("data", {})
        page = re.sub(r'src="[^"]*"', "", data.get("text/html", ""))
        for words in (output.get("text", ""), data.get("text/plain", ""), page):
            assert not re.search(r"[-−]0\.0+(?![\d])(?!e)", words)
            assert not re.search(r"(?<![\d.])1 slices\b", words)
            assert not re.search(r"\b(shots|labels|slices|queries|examples) an? class\b", words)


@pytest.mark.parametrize("path", CHINESE, ids=label)
def test_what_outputs_say_in_chinese_is_set_as_chinese(path: Path) -> None:
    for output in outputs(path):
        page = output.get("data", {}).get("text/html", "")
        page = re.sub(
            r"<(q|code|style|script)\b.*?</\1>", "·", page, flags=re.S
        )  # q: the note's words
        said = re.findall(r'\b(?:alt|title|aria-label)="([^"]*)"', page)
        said += [text for text in re.findall(r">([^<>]+)<", page) if not text.isspace()]
        told = [output.get("metadata", {}), *output.get("metadata", {}).values()]
        said += [one["alt"] for one in told if isinstance(one, dict) and "alt" in one]
        for text in map(html.unescape, said):
            found = UNSET.search(text) if re.search(f"[{HAN}]", text) else None
            assert not found, f"{found and found[0]!r} in {text}"
