"""What a notebook keeps of a moving picture, and that its data are the course's own."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from fewshot_lib.figures.style import PALETTE
from fewshot_lib.reading import moving

module = sys.modules[moving.__module__]
NAMES = tuple(module.STILLS)
NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


@pytest.mark.parametrize("name", NAMES)
def test_the_saved_form_is_a_still_with_its_text_in_a_place_that_a_page_can_set_going(name) -> None:
    figure, seen = module.STILLS[name](module.data(name))
    data, metadata = module.saved_form(name, figure, seen)
    assert data["text/html"].startswith(f'<div class="fewshot-moving" data-module="{name}"><figure')
    assert metadata.get("image/png", metadata)["alt"] == seen.alt
    assert seen.finding in data["text/html"].replace("&#x27;", "'")
    assert " ".join(data["text/plain"].split()).startswith(seen.finding)


def test_only_a_known_picture_moves() -> None:
    with pytest.raises(ValueError, match="no moving picture 'brain'; there are organ, plane, sw"):
        moving("brain")


@pytest.mark.parametrize("name", NAMES)
def test_a_module_is_one_text_that_loads_nothing(name: str) -> None:
    text = module.source(name)
    assert not re.search(
        r"^import |import\(|fetch\(|https?://(?!www\.w3\.org/2000/svg)", text, re.M
    )
    assert text.count("export default { render };") == 1


def test_modules_are_short() -> None:
    lengths = {
        file.name: len(file.read_text().splitlines()) for file in module.MODULES.glob("*.js")
    }
    assert set(lengths) >= {"common.js", *(f"{name}.js" for name in NAMES)}
    assert max(lengths.values()) < 300


def test_colours_are_the_palette_s() -> None:
    used = re.findall(r'"(#\w{6})"', re.findall(r"COLOURS = \[.*\]", module.source("plane"))[0])
    assert tuple(used) == PALETTE[:3]


def test_the_data_are_those_of_notebooks_03_and_04() -> None:
    plane, board = module.data("plane"), module.data("switchboard")
    noise = torch.randn(3, 2, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    assert board["noise"] == noise.tolist()
    text = "".join(
        json.dumps(cell["source"])
        for cell in json.loads((NOTEBOOKS / "03_prototypes.ipynb").read_text("utf-8"))["cells"]
    )
    assert all(json.dumps(own) in text for own in plane["shots"])
    shots = torch.tensor(plane["shots"])[:, : plane["n_shots"]]
    assert torch.allclose(shots.mean(dim=1), torch.tensor(board["centres"]))
