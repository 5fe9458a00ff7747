"""The book in a real browser: for everyone, without a network, on a phone, and it answers."""

from __future__ import annotations

import functools
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request

from fewshot_lib.checker.markup import inline, plain
from fewshot_lib.reading.question import Option, Question, find, judge, questions, words
from fewshot_lib.tools import book
from fewshot_lib.tools.book.asked import question_data
from fewshot_lib.tools.book.prepare import as_script

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 800}
#: What people type, rightly and wrongly; each question gets its own answers besides.
TYPED = [
    *("0.5", "1/2", "½", "50 %", "0,5", "1,000", "1,234.5", "1/2n", "2n", "3(2)", "n(n+1)", "−2^2"),
    *("2^-1", "2³", "√4", "|-3|", "π", "e^2", "7e2", "７", "٣", "= 0.7", "0.7", ".5", "5."),
    *("EXP(1)", "log(0)", "sqrt(-1)", "1/0", "0^-1", "(-8)^(1/3)", "exp(1000)", "1e999", "foo(2)"),
    *("nexp(2)", "xyz", "nn", "n2", "exp(1,2)", "1, 2", "1+", ")", "(", "", "   ", "2 3", "2//3"),
    *("exp(1)", "5%3", "True", "a" * 201, "1.2.3", "2**3**2", "--3", "+.", "3!", "exp", "exp()"),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the whole book; give its folder."""
    return book.build(ROOT, tmp_path_factory.mktemp("book")).parent


@pytest.fixture(scope="module")
def served_book(pages: Path) -> Iterator[str]:
    """Serve the book as a reader would to search it; give its address."""
    handler = functools.partial(Quiet, directory=str(pages))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves and says nothing."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """Give a page of a browser that has no network; whoever asks for it fails the test."""
    context = chromium.new_context(viewport=WIDE, locale="en-GB")
    asked: list[str] = []

    def watch(request: Request) -> None:
        if not re.match(r"file:|data:|blob:|http://127\.0\.0\.1:", request.url):
            asked.append(request.url)

    context.on("request", watch)
    context.on("weberror", lambda error: asked.append(str(error.error)))
    yield context.new_page()
    context.close()
    assert asked == []


def visit(page: Page, path: Path) -> None:
    """Open a page from disk and wait until its formulas are drawn and its colours have settled."""
    page.goto(path.as_uri())
    page.wait_for_function(
        "!document.querySelector('script[src*=mathjax]') || window.MathJax?.startup?.promise"
        "?.then(() => true)"
    )
    page.wait_for_function(
        "!document.getAnimations().some(one => one instanceof CSSTransition)"
    )  # a theme fades in: its contrast on the way is nobody's


def wider_than_the_screen(page: Page) -> int:
    """Give the pixels by which a page scrolls sideways."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


def violations(page: Page, every_text: bool = True) -> list[str]:
    """Say what axe finds of WCAG's levels A and AA, a line for each element.

    Contrast takes four fifths of the time, most of it for code. Unless ``every_text`` is asked for,
    one word is measured of those in code that have the same colour, size and grounds behind them.
    """
    page.evaluate(Axe().axe_script)
    if not every_text:
        page.evaluate(MARK_WHAT_LOOKS_LIKE_ANOTHER)
        contrast = {"id": "color-contrast", "selector": "*:not([data-seen])"}
        page.evaluate("rule => axe.configure({rules: [rule]})", contrast)
    options = {"runOnly": LEVELS, "resultTypes": ["violations"]}
    rules = page.evaluate("options => axe.run(options).then(found => found.violations)", options)
    return [f"{rule['id']}: {node['html'][:150]}" for rule in rules for node in rule["nodes"]]


MARK_WHAT_LOOKS_LIKE_ANOTHER = """() => {
  const seen = new Set(), grounds = new Map([[null, ""]]);
  const ground = (at) => {
    if (!grounds.has(at)) {
      const { backgroundColor, backgroundImage, opacity, filter } = getComputedStyle(at);
      grounds.set(at, [ground(at.parentElement), backgroundColor, backgroundImage, opacity, filter]
        .join());
    }
    return grounds.get(at);
  };
  for (const word of document.querySelectorAll(".highlight span")) {
    // axe passes over single characters, punctuation and what is hidden: these stand for no other
    const read = /[\\p{L}\\p{N}].*[\\p{L}\\p{N}]/su.test(word.textContent);
    if (word.childElementCount || !read || !word.checkVisibility()) continue;
    const { color, fontSize, fontWeight } = getComputedStyle(word);
    const look = [color, fontSize, fontWeight, ground(word)].join();
    word.toggleAttribute("data-seen", seen.has(look));
    seen.add(look);
  }
}"""


def sampled(pages: Path) -> list[tuple[Path, dict[str, int], str]]:
    """Pair every English page with one width and one theme in turn; some get all four.

    Chinese pages are made by the same templates: their first page and one notebook are looked at.
    """
    looks = [(size, theme) for size in (WIDE, PHONE) for theme in ("light", "dark")]
    all_four = ("index.html", "notebooks/01_labels.html")
    found = []
    for i, path in enumerate(sorted(p for p in pages.rglob("*.html") if "_static" not in p.parts)):
        name = path.relative_to(pages).as_posix()
        if not name.startswith("zh/") or name.removeprefix("zh/") in all_four:
            found += [(path, *look) for look in (looks if name in all_four else [looks[i % 4]])]
    return found


def test_pages_are_for_everyone_on_every_screen(
    pages: Path, page: Page, pytestconfig: pytest.Config
) -> None:
    """Every English page in one width and theme, two pages in all four."""
    wrong = []
    for path, size, theme in sorted(sampled(pages), key=lambda look: (look[1]["width"], look[2])):
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=theme)
        visit(page, path)
        where = f"{path.relative_to(pages)} at {size['width']} in {theme}"
        wrong += [f"{where}: {found}" for found in violations(page, every_text=False)]
        if wider_than_the_screen(page) > 0:
            wrong.append(f"{where}: scrolls sideways")
    assert wrong == []


def test_no_link_leads_nowhere(pages: Path) -> None:
    broken, seen = set(), 0
    anchors = {
        path: set(re.findall(r'\bid="([^"]+)"', path.read_text("utf-8")))
        for path in pages.rglob("*.html")
        if "_static" not in path.parts
    }
    for path in anchors:
        for link in re.findall(r'(?:href|src)="([^"]+)"', path.read_text("utf-8")):
            if re.match(r"[a-z]+:|//", link):
                continue
            seen += 1
            name, _, anchor = link.partition("#")
            target = (path.parent / name.partition("?")[0]).resolve() if name else path
            if not target.exists() or (anchor and anchor not in anchors.get(target, {anchor})):
                broken.add((path.name, link))
    assert seen > 1000
    assert broken == set()


def test_the_book_is_small_and_carries_nothing_of_its_making(pages: Path) -> None:
    files = [path for path in pages.rglob("*") if path.is_file()]
    chinese = [path for path in files if path.is_relative_to(pages / "zh")]
    assert sum(path.stat().st_size for path in chinese) < 40_000_000  # each language is a book
    assert sum(path.stat().st_size for path in set(files) - set(chinese)) < 40_000_000
    assert not (pages / "jupyter_execute").exists()
    assert not [path for path in files if ".doctree" in str(path)]
    title = re.search("<title>(.*?)</title>", (pages / "index.html").read_text("utf-8"), re.S)
    assert title is not None
    assert "documentation" not in title[1].lower()


def test_buttons_and_lists_of_a_chinese_page_are_named_in_chinese(pages: Path) -> None:
    english = re.compile(r'\b(?:title|aria-label|placeholder)="([A-Za-z][A-Za-z ]+)"')
    for path in (pages / "zh").rglob("*.html"):
        assert english.findall(path.read_text("utf-8")) == [], path


def test_a_question_replies_on_the_page_and_remembers(pages: Path, page: Page) -> None:
    visit(page, pages / "notebooks" / "03_prototypes.html")
    asked = find("prototypes.learned")
    box = page.locator(f'[data-name="{asked.id}"]')
    wrong, right = (next(o for o in asked.options if o.right is truth) for truth in (False, True))
    said = box.get_by_role("status")
    for option, hinted in ((wrong, False), (wrong_again(asked, wrong), True), (right, False)):
        letter = asked.letters[asked.options.index(option)]
        box.get_by_role("button", name=re.compile(f"^{letter}\\.")).click()
        shown = " ".join(said.inner_text().split())
        assert shown.startswith("✓ Right" if option.right else "✗ Not right")
        assert plain(option.reply)[:20] in shown
        assert ("Hint:" in shown) == hinted
    page.reload()
    assert "You answered this correctly" in box.get_by_role("status").inner_text()
    page.get_by_role("button", name="Forget them").click()
    page.wait_for_function("!localStorage.getItem('fewshot-course-answers')")


def wrong_again(asked: Question, first: Option) -> Option:
    """Give another wrong option."""
    return next(o for o in asked.options if not o.right and o is not first)


def test_the_page_judges_every_answer_as_the_notebook_does(page: Page) -> None:
    cases, expected = [], []
    for word in words():
        for asked in questions(word).values():
            own = [asked.value, *(value for value, _ in asked.wrong)]
            given: list[Any] = [*own, *TYPED]
            if asked.kind == "single":
                given = list(asked.letters)
            elif asked.kind == "multiple":
                rights = [letter for letter, option in asked.labelled if option.right]
                given = [[], *([letter] for letter in asked.letters), rights, list(asked.letters)]
            for one in given:
                said = judge(asked, one)
                cases.append([question_data(asked), one])
                expected.append([asked.id, one, said.right, said.counts, inline(said.text)])
    found = page.evaluate(
        "([source, cases]) => new Function('cases', source + `;return cases.map(([asked, given])"
        " => { const r = judge(asked, given); return [r.right, r.counts, r.text]; })`)(cases)",
        [as_script("questions"), cases],
    )
    differing = [
        (want, got)
        for want, got in zip(expected, found, strict=True)
        if want[2:4] != got[:2] or want[4] != got[2]
    ]
    assert differing == []
    assert len(found) > 1000


def test_predictions_are_taken_on_the_page(pages: Path, page: Page) -> None:
    visit(page, pages / "notebooks" / "01_labels.html")
    curve = page.locator('[data-name="dice.labels-buy"]')
    curve.get_by_role("slider").first.press("ArrowRight")
    curve.get_by_role("button", name="Record").click()
    assert "You predict: 0.55 at 1, 0.5 at 5" in curve.locator(".fewshot-reply").inner_text()
    number = page.locator('[data-name="dice.two-pixels"]')
    for typed, reply in (("2", "Please enter a number from 0 to 1."), ("90%", "You predict: 0.9.")):
        number.get_by_role("textbox").fill(typed)
        number.get_by_role("textbox").press("Enter")
        assert reply in number.get_by_role("status").inner_text()


MOVING = {"index": "organ", "00_start_here": "organ", "03_prototypes": "plane",
          "04_mixture": "switchboard"}  # fmt: skip


@pytest.mark.parametrize("name", MOVING)
def test_a_picture_moves_on_its_page(name: str, pages: Path, page: Page) -> None:
    visit(page, pages / (f"{name}.html" if name == "index" else f"notebooks/{name}.html"))
    picture = page.locator(f'[data-module="{MOVING[name]}"]')
    before = picture.inner_text()
    held = picture.get_by_role("slider").first
    held.focus()
    held.press("ArrowLeft")
    assert picture.inner_text() != before
    assert picture.locator("img").count() == 0  # the still has made room


def test_every_explorer_shows_one_saved_picture_at_a_time_or_all(pages: Path, page: Page) -> None:
    seen = 0
    for path in sorted(pages.glob("notebooks/*.html")):
        if "data-side-by-side" not in path.read_text("utf-8"):
            continue
        page.goto(path.as_uri())
        for figure in page.locator("figure[data-side-by-side]").all():
            pictures = figure.locator(":scope > div > div:has(img)")
            shown = pictures.filter(visible=True)
            assert (shown.count(), pictures.count() > 1) == (1, True), path.name
            before = shown.inner_text()
            slider, option = figure.locator("[type=range]"), figure.locator("[type=radio]")
            if slider.count():
                slider.first.press("ArrowRight")
            else:
                option.nth(1).check()
            assert shown.count() == 1, path.name
            assert shown.inner_text() != before, path.name
            for held in slider.all():  # through all its values, and back to the first
                for key in ("ArrowRight", "ArrowLeft"):
                    for _ in range(int(held.get_attribute("max") or 0)):
                        held.press(key)
                        assert shown.count() == 1, path.name
            figure.get_by_label("side by side").check()
            assert shown.count() == pictures.count(), path.name
            seen += 1
    assert seen > 10


@pytest.mark.parametrize(("width", "folder"), [(WIDE, ""), (PHONE, ""), (PHONE, "zh")])
def test_a_term_and_a_paper_say_what_they_are(
    width: Any, folder: str, pages: Path, page: Page
) -> None:
    page.set_viewport_size(width)
    visit(page, pages / folder / "notebooks" / "03_prototypes.html")
    tip = page.locator(".fewshot-tip")
    for link, meaning in ((r"^(prototype|原型)", "原型 · prototype"), ("^Snell", "NeurIPS 2017")):
        held = page.locator("a.fewshot-term").filter(has_text=re.compile(link)).first
        held.hover()
        assert meaning in tip.inner_text()
        assert tip.evaluate("tip => tip.scrollWidth <= tip.clientWidth")
        tip.hover()  # the pointer may rest on it
        page.wait_for_timeout(300)
        assert tip.is_visible()
        assert wider_than_the_screen(page) <= 0
        page.keyboard.press("Escape")
        assert tip.is_hidden()
        page.keyboard.press("Tab")
        held.focus()
        assert meaning in tip.inner_text()


@pytest.mark.parametrize(
    "name", ["notebooks/05b_pooling", "notebooks/09_review", "exercises/05_segmentation"]
)
def test_on_paper_nothing_is_cut_off(name: str, pages: Path, page: Page) -> None:
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 with the browser's margins
    visit(page, pages / f"{name}.html")
    page.emulate_media(media="print")
    cut = page.evaluate(
        "[...document.querySelectorAll('.bd-article *')].filter(one => one.offsetParent"
        " && !one.closest('mjx-container, details:not([open])')"
        " && (one.getBoundingClientRect().right > innerWidth + 1"
        " || getComputedStyle(one).overflowX !== 'visible' && one.clientWidth > 0"
        " && one.scrollWidth > one.clientWidth + 1"
        ")).map(one => one.outerHTML.slice(0, 120))"
    )
    assert cut == []
    assert page.locator(".fewshot-folded").filter(visible=True).count() == 0


def test_answers_cannot_be_read_at_a_glance(pages: Path) -> None:
    text = "".join(path.read_text("utf-8") for path in pages.glob("notebooks/*.html"))
    text += (pages / "exercises" / "on-paper.html").read_text("utf-8")
    replies = [o.reply for w in words() for q in questions(w).values() for o in q.options]
    assert len(replies) > 100
    assert [reply for reply in replies if inline(reply) in text] == []


def test_a_chinese_word_is_found(served_book: str, page: Page) -> None:
    page.goto(f"{served_book}/search.html?q=小样本")
    page.wait_for_selector("#search-results li a")
    page.wait_for_function("document.querySelector('.search-summary')?.textContent.match(/\\d/)")
    found = page.locator("#search-results li > a").evaluate_all("links => links.map(a => a.href)")
    assert any("/glossary.html" in link for link in found)
    assert any("/notebooks/00_start_here.html" in link for link in found)


def test_the_search_says_that_it_needs_a_server(pages: Path, page: Page) -> None:
    visit(page, pages / "search.html")
    assert page.get_by_text("The search needs a server").is_visible()


#: Marks behind a formula that stand lower than the formula ends: at the beginning of a line.
ALONE = """() => [...document.querySelectorAll("span.math")].flatMap((formula) => {
  const next = formula.nextSibling ?? formula.parentElement.nextSibling;
  if (!(next instanceof Text) || !/^[，。；：、？！）》”.,;:?!)’]/.test(next.data)) return [];
  const range = document.createRange();
  range.setStart(next, 0); range.setEnd(next, 1);
  const mark = range.getClientRects()[0], box = formula.getBoundingClientRect();
  return mark.left < box.left ? [formula.parentElement.textContent.slice(0, 80)] : [];
})"""


@pytest.mark.parametrize("folder", ["", "zh"])
def test_no_line_begins_with_the_mark_behind_a_formula(
    folder: str, pages: Path, page: Page
) -> None:
    for size in (WIDE, PHONE):
        page.set_viewport_size(size)
        for path in sorted(
            (pages / folder / "notebooks").glob("0[345]*.html")
        ):  # those with most formulas
            visit(page, path)
            assert page.evaluate(ALONE) == [], path.name


def test_formulas_are_drawn_and_the_page_for_paper_prints(pages: Path, page: Page) -> None:
    visit(page, pages / "notebooks" / "03_prototypes.html")
    assert page.locator("mjx-container svg").count() > 20
    visit(page, pages / "exercises" / "on-paper.html")
    assert page.pdf().count(b"/Type /Page\n") > 5
