"""The book for everyone: every page in every look, its size, and how soon it answers.

Goals: no violation of WCAG A or AA (as axe sees it) and no page that scrolls sideways, in both
languages, at 1400 and 390 pixels, light and dark; under 1 s from the call of a page to its first
reply; under 40 MB for the book of a language. All of the pages take about ten minutes.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import test_book_in_browser as _book
from jupyter_page import chromium as _chromium
from playwright.sync_api import Browser, Page

from fewshot_lib.tools.machine import find_chromium

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium found"),
    pytest.mark.timeout(7200),
]
LOADS = 5
chromium, pages, page = _chromium, _book.pages, _book.page
LOOKS = [
    pytest.param(size, theme, id=f"{size['width']} in {theme}")
    for size in (_book.WIDE, _book.PHONE)
    for theme in ("light", "dark")
]


@pytest.mark.parametrize(("size", "theme"), LOOKS)
def test_every_page_is_for_everyone(
    size: dict[str, int], theme: str, pages: Path, page: Page, bench: Callable[..., None]
) -> None:
    page.set_viewport_size(size)
    page.emulate_media(color_scheme=theme)
    for language in ("English", "Chinese"):
        found, wide, seen = [], [], 0
        for path in sorted(pages.rglob("*.html")):
            name = path.relative_to(pages).as_posix()
            if "_static" in path.parts or name.startswith("zh/") != (language == "Chinese"):
                continue
            _book.visit(page, path)
            seen += 1
            found += [f"{name}: {line}" for line in _book.violations(page)]
            wide += [name] if _book.wider_than_the_screen(page) > 0 else []
        look = f"{size['width']} px, {theme}, {seen} {language} pages"
        bench(f"{look}: violations", len(found), goal="<= 0", note="; ".join(found[:2]))
        bench(f"{look}: scroll sideways", len(wide), goal="<= 0", note=", ".join(wide[:5]))


#: What answers on which page: its control, what a reader does to it, and where the reply stands.
FIRST = {
    "the organ that moves": ("index", ".fsm [role=slider]", "key", ".fsm [role=slider]"),
    "the plane": ("notebooks/03_prototypes", ".fsm [role=slider]", "key", ".fsm [role=slider]"),
    "the switchboard": ("notebooks/04_mixture", ".fsm select", "next", ".fsm"),
    "a question": (
        "notebooks/03_prototypes", '[data-name="prototypes.learned"] button', "click",
        '[data-name="prototypes.learned"] [role=status]',
    ),
    "a prediction": (
        "notebooks/01_labels", '[data-name="dice.two-pixels"] button', "click",
        '[data-name="dice.two-pixels"] [role=status]',
    ),
    "an explorer's saved pictures": (
        "notebooks/01_labels", "[data-side-by-side] [type=range]", "more", ".fewshot-now",
    ),
}  # fmt: skip

#: Runs before anything of the page: acts as soon as there is a control, and notes when the reply
#: has been drawn. Milliseconds since the page was called.
WATCH = """
(([control, action, reply]) => {
  const acts = {
    click: (found) => found.click(),
    key: (found) => { found.focus(); found.dispatchEvent(
      new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true, cancelable: true })); },
    next: (found) => { found.selectedIndex = 1; found.dispatchEvent(new Event("input",
      { bubbles: true })); found.dispatchEvent(new Event("change", { bubbles: true })); },
    more: (found) => { found.stepUp(); found.dispatchEvent(new Event("input")); },
  };
  const said = () => {
    const one = document.querySelector(reply);
    return one?.getAttribute("aria-valuetext") ?? one?.textContent;
  };
  let before, acted;
  const look = () => {
    const found = document.querySelector(control);
    if (acted && said() !== before) { window.firstReply = performance.now(); return; }
    if (found && !(performance.now() - acted < 100)) {  // nobody listened yet: once more
      before = said();
      acts[action](found);
      acted = performance.now();
    }
    requestAnimationFrame(look);
  };
  look();
})(%s)
"""


@pytest.mark.parametrize("what", FIRST)
def test_a_page_replies_soon(
    what: str, pages: Path, chromium: Browser, bench: Callable[..., None]
) -> None:
    name, *steps = FIRST[what]
    times = []
    for _ in range(LOADS + 1):
        context = chromium.new_context(viewport=_book.WIDE, reduced_motion="reduce")
        one = context.new_page()
        one.add_init_script(WATCH % json.dumps(steps))
        one.goto((pages / f"{name}.html").as_uri())
        one.wait_for_function("window.firstReply")
        times.append(one.evaluate("window.firstReply / 1000"))
        context.close()
    times = sorted(times[1:])  # the first fills the disk's cache
    bench(f"from page to first reply: {what}", statistics.median(times), "s", goal="< 1",
          interval=(times[0], times[-1]), note=f"median and range of {LOADS} loads")  # fmt: skip


def test_a_book_is_small(pages: Path, bench: Callable[..., None]) -> None:
    files = {path for path in pages.rglob("*") if path.is_file()}
    chinese = {path for path in files if path.is_relative_to(pages / "zh")}
    for language, own in (("English", files - chinese), ("Chinese", chinese)):
        size = sum(path.stat().st_size for path in own) / 1e6
        bench(f"size of the {language} book", size, "MB", goal="< 40")
