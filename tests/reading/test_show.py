"""Figures before the reader: alt text in every form, down to the exported page."""

from __future__ import annotations

import base64
import re
import warnings
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_lib import figures
from fewshot_lib.checker import frontend
from fewshot_lib.reading import nbval_plugin, show
from fewshot_lib.reading.show import (
    MOST_ROWS,
    ONCE,
    WIDTH,
    picture_bundle,
    table_html,
    table_text,
)

CELLS = (
    "from fewshot_lib import figures\n"
    "from fewshot_lib.reading import claim, explore, show\n"
    "def curve(shots, scale=1.0):\n"
    "    series = {'a \"quoted\" <name>': [0.5 * scale, 0.9 / shots]}\n"
    "    return figures.lines([1, 5], series, xlabel='x', ylabel='y')",
    "show(*curve(1), caption='Fewer & fewer')",
    "explore(curve, shots=[1, 2], scale=(0.5, 1.0, 0.25))",
    "claim('2.2-softmax', 'rows sum to 1.0', holds=True)",
)


def example() -> tuple[Any, figures.PlotData]:
    return figures.lines([1, 5], {"a": [0.5, 0.9]}, xlabel="shots", ylabel="accuracy")


class Page(HTMLParser):
    """The images and the text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def notebook() -> Any:
    """A tiny notebook, executed as ``make notebooks`` does it."""
    from nbclient import NotebookClient

    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    tiny = nbformat.v4.new_notebook(cells=cells)
    tiny.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    NotebookClient(tiny, timeout=120).execute()
    return tiny


@pytest.fixture(scope="module")
def page(notebook: Any) -> Page:
    """The same as ``jupyter nbconvert --to html`` exports it, template and all by default."""
    from nbconvert import HTMLExporter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Page(HTMLExporter().from_notebook_node(notebook)[0])


# ---- what is put before the reader --------------------------------------------------------------


def test_the_alt_text_is_in_the_html_in_the_metadata_and_in_the_plain_text(outputs) -> None:
    figure, data = example()
    show(figure, data, "Accuracy rises")
    [(bundle, metadata)] = outputs
    assert Page(bundle["text/html"]).images[0]["alt"] == data.alt
    assert metadata["image/png"]["alt"] == data.alt
    assert data.alt in " ".join(bundle["text/plain"].split())


def test_the_caption_stands_under_the_picture_and_defaults_to_the_finding(outputs) -> None:
    show(*example())
    show(*example(), caption="Accuracy rises")
    for (bundle, _), caption in zip(outputs, (example()[1].finding, "Accuracy rises"), strict=True):
        after_picture = bundle["text/html"].split("<img")[1]
        assert "<figcaption" in after_picture
        assert f">{caption}<" in after_picture
        assert bundle["text/plain"].startswith(caption)


def test_a_chart_is_an_svg_with_a_sharp_png_for_what_reads_no_html(outputs) -> None:
    show(*example())
    [(bundle, metadata)] = outputs
    image = Page(bundle["text/html"]).images[0]
    made = figures.picture(example()[0])
    source = base64.b64encode(made.content).decode()
    assert image["src"] == "data:image/svg+xml;base64," + source
    assert base64.b64decode(bundle["image/png"]) == made.png
    assert (image["width"], image["height"]) == (str(made.width), str(made.height))
    held = metadata["image/png"]
    assert (held["width"], held["height"]) == (made.width, made.height)


def test_a_large_png_is_saved_once_and_its_alt_text_twice(outputs) -> None:
    noise = torch.rand(24, 64, 64, generator=torch.Generator().manual_seed(0))
    figure, data = figures.examples(noise, columns=6)
    assert len(figures.png(figure)) > ONCE
    show(figure, data)
    [(bundle, metadata)] = outputs
    assert set(bundle) == {"text/html", "text/plain"}
    assert metadata == {"alt": data.alt}
    [image] = Page(bundle["text/html"]).images
    assert image["alt"] == data.alt
    assert str(image["src"]).startswith("data:image/png;base64,")


@given(st.text(min_size=1, max_size=60))
@settings(deadline=None, max_examples=30)
def test_any_alt_text_and_caption_survive_html(words: str) -> None:
    made = figures.picture(BLANK)
    bundle, _ = picture_bundle(made, "alt " + words, "caption " + words, "text")
    page = Page(bundle["text/html"])
    assert page.images[0]["alt"].split() == ("alt " + words).split()
    assert len(page.images) == 1
    if "\x00" not in words:
        assert "".join(("caption " + words).split()) in "".join(page.text.split())


with figures.drawing("small") as BLANK:
    pass


def test_a_picture_without_words_is_refused() -> None:
    figure, _ = example()
    with pytest.raises(TypeError, match="alt text"):
        show(figure)
    with pytest.raises(TypeError, match="PlotData"):
        show(figure, {"alt": "something"})  # type: ignore[arg-type]


def test_numbers_that_vary_are_left_out_of_the_compared_text_only(outputs) -> None:
    show(*example(), varies=True)
    [(bundle, _)] = outputs
    assert not re.search(r"\d", bundle["text/plain"])
    assert "accuracy against shots" in bundle["text/plain"]
    assert "0.90" in bundle["text/html"]


def test_a_pyplot_figure_is_forgotten_once_shown(outputs) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    figure = pyplot.figure()
    show(figure, example()[1])
    assert pyplot.get_fignums() == []


def test_without_a_front_end_the_text_is_printed(capsys) -> None:
    show(*example())
    printed = capsys.readouterr().out
    assert printed.splitlines()[-2:] == ["1      0.50", "5      0.90"]
    assert "<" not in printed


def test_every_output_needs_plain_text() -> None:
    with pytest.raises(ValueError, match="text/plain"):
        frontend.emit({"text/html": "<p>"})


@given(st.lists(st.tuples(st.integers(), st.text("ab ", max_size=200)), min_size=1, max_size=40))
@settings(deadline=None, max_examples=30)
def test_tables_keep_every_word_and_their_width(rows: list[tuple[int, str]]) -> None:
    text = table_text(("n", "words"), rows, most=len(rows))
    assert all(len(line) <= WIDTH + 25 for line in text.splitlines())
    assert "".join(text.split()) == "".join(
        "".join(f"{n}{words}".split()) for n, words in [("n", "words"), *rows]
    )


def test_long_tables_say_how_much_they_leave_out() -> None:
    rows = [(i,) for i in range(MOST_ROWS + 7)]
    assert table_text(("n",), rows).endswith("and 7 more rows")
    assert "and 7 more rows" in table_html(("n",), rows)


# ---- the exported page --------------------------------------------------------------------------


def test_alt_texts_reach_the_exported_page(page: Page) -> None:
    alts = [str(image["alt"]) for image in page.images]
    assert len(alts) == 7
    assert alts[0] == ('Line chart: y against x. a "quoted" <name>: from 0.50 at 1 to 0.90 at 5.')
    assert alts[1].startswith("shots = 1, scale = 0.5: y at 1")
    assert not any("No description" in alt for alt in alts)


def test_caption_table_and_claim_reach_the_exported_page(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "Fewer & fewer" in text
    assert "curve: 6 settings." in text
    assert "Claim 2.2-softmax (note §2.2): = reproduced" in text
    assert "Evidence supports this verdict: yes." in " ".join(text.split())


def test_no_widget_is_saved_where_nobody_can_move_it(notebook: Any) -> None:
    kinds = {kind for cell in notebook.cells for output in cell.outputs for kind in output.data}
    assert kinds == {"text/html", "image/png", "text/plain"}
    assert "widgets" not in notebook.metadata


def test_the_saved_claim_can_be_read_back(notebook: Any) -> None:
    [output] = notebook.cells[3].outputs
    assert output.metadata["fewshot_claim"] == {
        "id": "2.2-softmax", "status": "reproduced", "holds": True,
    }  # fmt: skip


def test_a_notebook_of_twelve_such_pictures_stays_under_600_kb(notebook: Any) -> None:
    size = len(nbformat.writes(notebook)) / 7  # it holds seven pictures
    assert 12 * size < 600_000


# ---- nbval --------------------------------------------------------------------------------------


def sanitized(text: str) -> str:
    """What nbval compares, by the rules of our file."""
    from nbval.plugin import get_sanitize_patterns

    for pattern, replacement in get_sanitize_patterns(nbval_plugin.SANITIZE.read_text("utf-8")):
        text = re.sub(pattern, replacement, text)
    return text


def test_nbval_compares_neither_pictures_nor_their_html_but_all_words(outputs) -> None:
    series = {"one": [0.5, 0.9], "other": [0.5, 0.8]}
    for values in series.values():
        show(*figures.lines([1, 5], {"a": values}, xlabel="x", ylabel="y"))
    one, other = (bundle for bundle, _ in outputs)
    assert one["text/html"] != other["text/html"]
    assert sanitized(one["text/html"]) == sanitized(other["text/html"]) == "PICTURE"
    assert sanitized(one["text/plain"]) != sanitized(other["text/plain"])
    assert sanitized("<p>text</p>") == "<p>text</p>"


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"nbval": True, "nbval_lax": False, "nbval_sanitize_with": None}, "nbval.cfg"),
        ({"nbval": False, "nbval_lax": True, "nbval_sanitize_with": None}, "nbval.cfg"),
        ({"nbval": True, "nbval_lax": False, "nbval_sanitize_with": "mine.cfg"}, "mine.cfg"),
        ({"nbval": False, "nbval_lax": False, "nbval_sanitize_with": None}, None),
    ],
)
def test_nbval_gets_our_file_unless_another_is_named(given_: dict, expected: str | None) -> None:
    option = SimpleNamespace(**given_)
    nbval_plugin.pytest_configure(SimpleNamespace(option=option))
    named = option.nbval_sanitize_with
    assert named == expected if expected is None else named.endswith(expected)
    nbval_plugin.pytest_configure(SimpleNamespace(option=SimpleNamespace()))  # without nbval


# ---- the form -----------------------------------------------------------------------------------


def shell(metadata: dict | None, kernel: bool = True) -> SimpleNamespace:
    """An IPython shell in the middle of a request with this metadata."""
    fields = {"get_parent": lambda: {"metadata": metadata} if metadata is not None else {}}
    return SimpleNamespace(**fields, **({"kernel": object()} if kernel else {}))


@pytest.mark.parametrize(
    ("running", "form"),
    [
        (None, "text"),
        (shell({}, kernel=False), "text"),
        (shell({}), "static"),
        (shell(None), "static"),
        (shell({"cellId": "a1"}), "live"),
        (shell({"cellId": "a1"}, kernel=False), "text"),
    ],
    ids=["python", "ipython", "nbclient", "no request", "jupyterlab", "odd"],
)
def test_the_front_end_decides_the_form(running, form: str, monkeypatch) -> None:
    monkeypatch.delenv(frontend.VARIABLE, raising=False)
    monkeypatch.setattr(frontend, "_shell", lambda: running)
    assert frontend.choose_form() == form


def test_argument_before_environment_before_front_end(monkeypatch) -> None:
    monkeypatch.setattr(frontend, "_shell", lambda: shell({"cellId": "a1"}))
    monkeypatch.setenv(frontend.VARIABLE, "static")
    assert frontend.choose_form() == "static"
    assert frontend.choose_form("text") == "text"
    monkeypatch.setenv(frontend.VARIABLE, "Live")
    with pytest.raises(ValueError, match=r"FEWSHOT_EXPLORE says 'Live'.*live, static, text"):
        frontend.choose_form()
    with pytest.raises(ValueError, match="the argument"):
        frontend.choose_form("widget")


def test_without_ipywidgets_a_live_front_end_gets_the_static_form(monkeypatch) -> None:
    monkeypatch.delenv(frontend.VARIABLE, raising=False)
    monkeypatch.setattr(frontend, "_shell", lambda: shell({"cellId": "a1"}))
    monkeypatch.setattr(frontend, "_has_widgets", lambda: False)
    assert frontend.choose_form() == "static"
