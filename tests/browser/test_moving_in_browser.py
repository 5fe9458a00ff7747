"""The pictures that move: equal to the library, from disk, and in JupyterLab and Notebook 7."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nbformat
import pytest
import torch
from jupyter_page import NotebookPage, code_notebook
from playwright.sync_api import Browser, Page

from fewshot_lib.evaluation import dice
from fewshot_lib.prototypes import class_prototypes, log_posterior
from fewshot_lib.reading import moving
from fewshot_lib.tools.lab import Server

pytestmark = pytest.mark.browser

module = sys.modules[moving.__module__]
NAMES = ("organ", "plane", "switchboard")
HEADROOM = 1e-5
#: Names that a page of the test takes out of the modules.
TAKEN = {
    "organ": "compute, allowed",
    "plane": "prototypes, logPosterior",
    "switchboard": "OFF, mixtures, prototypes, network, logJoint, compare, logSoftmax",
}


@cache
def settings(name: str) -> dict:
    return module.data(name)


def put(folder: Path, name: str) -> Path:
    """Write a page with one moving picture, as the book has it: its script stands in the page."""
    data = json.dumps(settings(name))
    file = folder / f"{name}.html"
    file.write_text(
        f'<!doctype html><html lang="en"><title>{name}</title><meta name="viewport" '
        'content="width=device-width"><main><div class="fewshot-moving"></div></main>'
        f'<script type="module">{module.source(name)}\nconst data = {data};\n'
        'render({ model: { get: () => data }, el: document.querySelector("div") });\n'
        f"window.seconds = performance.now() / 1000;\nwindow.taken = {{ data, {TAKEN[name]} }};"
        "</script></html>",
        encoding="utf-8",
    )
    return file


@pytest.fixture
def still_page(chromium: Browser):
    """Give a page at a phone's width, and fail on whatever it complains of or asks the net for."""
    context = chromium.new_context(viewport={"width": 390, "height": 800}, reduced_motion="reduce")
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: None if asked.url.startswith("file:") else wrong.append(asked))
    yield page
    context.close()
    assert wrong == []


def said(page: Page) -> str:
    return page.locator(".fsm [role=status]").inner_text()


def close(mine: object, theirs: torch.Tensor) -> bool:
    """Say whether numbers from the browser are the library's to 1e-5."""
    return torch.allclose(
        torch.tensor(mine, dtype=torch.float64), theirs.double(), rtol=0, atol=HEADROOM
    )


def check_organ(page: Page) -> None:
    for shift in ([0, 0], [24, 0], [17, -6]):
        seen = page.evaluate(
            "shift => { const one = taken.compute(taken.data, shift); return {"
            "position: one.logits.position.map(k => [...k]),"
            "masked: one.logits.masked.map(k => [...k]),"
            "masks: [...one.masks.position, ...one.masks.masked], dice: one.dice}; }",
            shift,
        )
        support, query, logits = module.organ_logits(settings("organ"), tuple(shift))
        for name, theirs in logits.items():
            assert close(seen[name], theirs.flatten(1))
            drawn = theirs.argmax(dim=0) == 1
            assert close(seen["dice"][name], dice(drawn, query.labels == 1))
        assert close(seen["dice"]["copied"], dice(support.labels == 1, query.labels == 1))
    assert "40 pixels to the right" in said(page)  # it starts moved
    page.keyboard.press("Tab")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowLeft")
    assert re.search(r"25 pixels to the right.*0\.00 for the note.*0\.9\d for masked", said(page))
    page.get_by_role("button", name="Move it for me").click()  # at once: motion is reduced
    assert "40 pixels to the right" in said(page)


def check_plane(page: Page) -> None:
    data = settings("plane")
    points = torch.tensor(data["shots"], dtype=torch.float64)
    owners = torch.arange(3).repeat_interleave(5)
    theirs = class_prototypes(points.flatten(0, 1), owners, 3)
    labelled = [{"at": at, "label": k} for k, own in enumerate(data["shots"]) for at in own]
    mine = page.evaluate("points => taken.prototypes(points, 3)", labelled)
    assert close(mine, theirs)
    asked = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)).double() * 3
    asked[0] = 0.0  # a zero vector has no direction
    for distance in data["distances"]:
        for temperature in data["temperatures"]:
            found = page.evaluate(
                "([zs, cs, d, t]) => zs.map(z => taken.logPosterior(z, cs, d, t))",
                [asked.tolist(), mine, distance, temperature],
            )
            assert close(found, log_posterior(asked, theirs, distance, 1 / temperature))
    page.get_by_role("slider", name="liver, example 1").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("row", name="liver").get_by_role("cell").nth(1).inner_text() == (
        "(1.55, 3.25)"  # an n-th of the example's move
    )
    page.keyboard.press("Delete")
    assert page.get_by_role("slider", name=re.compile("liver")).count() == 1
    assert page.get_by_role("button", name="Remove the chosen").is_disabled()
    page.get_by_role("button", name="Add a kidney").click()
    assert page.get_by_role("slider", name=re.compile("kidney")).count() == 3
    page.get_by_role("combobox", name="distance").select_option(label="cosine")
    assert "Distance: cosine" in said(page)


def check_switchboard(page: Page) -> None:
    data = settings("switchboard")
    left, right, bottom, top = data["limits"]
    lines = (
        torch.linspace(a, b, data["grid"], dtype=torch.float64)
        for a, b in ((left, right), (bottom, top))
    )
    plane = torch.cartesian_prod(*lines)
    some = plane[::97]
    alone = [
        {},
        {"prior": 10},
        {"width": 4},
        {"stretch": 9},
        {"lumps": True},
        {"shots": 1},
        {"distance": "euclidean"},
        {"prior": 3, "width": 2, "stretch": 4, "lumps": True},
    ]
    for switches in alone:
        mine = page.evaluate(
            "([on, zs]) => { const d = taken.data, s = {...taken.OFF, ...on};"
            "const cs = taken.prototypes(d, s); return {"
            "network: zs.map(z => taken.network(cs, s.distance, z)),"
            "joint: taken.mixtures(d).map(m => zs.map(taken.logJoint(d, m, s))),"
            "found: taken.compare(d, s)}; }",
            [switches, some.tolist()],
        )
        board = module.Board(**switches)
        prototypes, models = module.board_models(data, board)
        assert close(mine["network"], log_posterior(some, prototypes, board.distance))
        asked = log_posterior(plane, prototypes, board.distance).exp()
        for joint, found, (log_joint, _, _) in zip(
            mine["joint"], mine["found"], models.values(), strict=True
        ):
            assert close(joint, log_joint(some))
            truth = log_joint(plane).softmax(dim=-1)
            gap = (truth - asked).abs().amax(dim=1)
            assert close(found["apart"], gap.max())
            other = (truth.argmax(dim=1) != asked.argmax(dim=1)) & (gap > 1e-9)
            first, second, _ = torch.stack([truth, asked]).sort(descending=True)[0].unbind(-1)
            tied = (first - second < 1e-9).any(dim=0).double().mean()  # rounding decides there
            assert abs(found["otherwise"] - other.double().mean()) <= tied + HEADROOM
            assert tied < 0.001
        assert (max(one["apart"] for one in mine["found"]) < HEADROOM) == (switches == {})
    assert "no probability differs" in said(page)
    page.get_by_role("combobox", name="network: distance").focus()
    page.keyboard.press("ArrowDown")
    assert "not squared" in said(page)
    page.get_by_role("button", name="All off").press("Enter")
    assert "All conditions hold" in said(page)


CHECKS = {"organ": check_organ, "plane": check_plane, "switchboard": check_switchboard}


@pytest.mark.parametrize("name", NAMES)
def test_a_page_from_disk_computes_what_the_library_does_and_answers_the_keyboard(
    name: str, tmp_path: Path, still_page: Page, print_table: Callable[[str, str], None]
) -> None:
    clock = still_page.context.new_cdp_session(still_page)
    clock.send("Performance.enable", {"timeDomain": "threadTicks"})  # processor time
    still_page.goto(put(tmp_path, name).as_uri())
    still_page.wait_for_function("window.seconds !== undefined")
    seconds = still_page.evaluate("window.seconds")
    spent = {one["name"]: one["value"] for one in clock.send("Performance.getMetrics")["metrics"]}
    assert 0 < spent["TaskDuration"] < 1  # what a quiet machine takes
    assert still_page.evaluate("document.documentElement.scrollWidth") <= 390
    CHECKS[name](still_page)
    print_table(
        f"from page to first interaction, {name}",
        f"{seconds:.2f} s, {spent['TaskDuration']:.2f} s of them computing",
    )


@pytest.mark.parametrize("app", ["lab", "notebooks"])
def test_they_live_in_a_notebook_by_pointer_and_by_keyboard(
    app: str, served: tuple[Server, Path], visit: Callable[..., NotebookPage]
) -> None:
    sources = ["from fewshot_lib.reading import moving", *(f'moving("{one}")' for one in NAMES)]
    name = f"moving-{app}-{os.getpid()}.ipynb"
    nbformat.write(code_notebook(*sources), served[1] / name)
    page = visit(name, app)
    at_opening = list(page.complaints)
    page.run_all(120)
    pictures = page.page.locator(".fsm")
    pictures.nth(2).wait_for(timeout=30_000)
    assert pictures.count() == 3
    stills = page.page.locator(".fewshot-still img")
    assert stills.count() == 3
    assert stills.filter(visible=True).count() == 0  # exactly one of the two is seen
    for picture, handle in zip(
        pictures.all(), ("organ in the query", "query", "point, centres c, "), strict=True
    ):
        held = picture.get_by_role("slider", name=handle).first
        held.scroll_into_view_if_needed()
        before = held.get_attribute("aria-valuetext")
        box = held.bounding_box()
        assert box
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.page.mouse.move(x, y)
        page.page.mouse.down()
        page.page.mouse.move(x + 30, y + 10, steps=3)
        page.page.mouse.up()
        dragged = held.get_attribute("aria-valuetext")
        assert dragged != before
        page.page.wait_for_timeout(150)  # the notebook may take the focus to its cell
        held.focus()
        page.page.keyboard.press("ArrowLeft")
        assert held.get_attribute("aria-valuetext") != dragged
    assert [told for told in page.failures() if told not in at_opening] == []
    saved = page.contents()["cells"][1]["outputs"]
    assert any('data-module="organ"' in str(output["data"].get("text/html")) for output in saved)
