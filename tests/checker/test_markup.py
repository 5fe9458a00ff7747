"""Texts as HTML: code to the letter, words emphasised, formulas legible, nothing injected."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pygments.styles import get_style_by_name

from fewshot_lib.checker import catalogue, markup
from fewshot_lib.reading.question import questions, words


class Reader(HTMLParser):
    """Collects what a page shows: its text, and the text of its code."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.code, self.tags, self.inside = "", [], set(), 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "code":
            self.inside += 1
            self.code.append("")

    def handle_endtag(self, tag):
        self.inside -= tag == "code"

    def handle_data(self, data):
        self.text += data
        if self.inside:
            self.code[-1] += data


def every_text() -> list[str]:
    """List what the course says in questions, hints, mistakes and rubrics."""
    texts = []
    for exercise in catalogue.exercises():
        for answer in exercise.answers:
            texts += answer.hints
            texts += [mistake.says for mistake in answer.mistakes]
        for prose in exercise.prose:
            texts += [*prose.rubric, prose.model]
    for word in words():
        for asked in questions(word).values():
            texts += [asked.text, asked.hint, asked.reply]
            texts += [part for option in asked.options for part in (option.text, option.reply)]
    return texts


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("`a * b * c`", "<code>a * b * c</code>"),
        ("`x[*a, *b]` and *this*", "<code>x[*a, *b]</code> and <em>this</em>"),
        ("2*n and 3*m", "2*n and 3*m"),
        ("a * b * c", "a * b * c"),
        ("f(*args, **kwargs)", "f(*args, **kwargs)"),
        ("*two words*.", "<em>two words</em>."),
        ("`__init__` of c_k", "<code>__init__</code> of c<sub>k</sub>"),
        ("σ_k²I, ‖z − c_k‖, n_b/N, |S_k|", "σ<sub>k</sub>²I, ‖z − c<sub>k</sub>‖, "
         "n<sub>b</sub>/N, |S<sub>k</sub>|"),
        ("n_way, k_shot, log_prior, a_b_c", "n_way, k_shot, log_prior, a_b_c"),
        ("one ` backtick * and *", "one ` backtick * and *"),
        ("<b> & 'quote'", "&lt;b&gt; &amp; 'quote'"),
        ("`a < b`", "<code>a &lt; b</code>"),
    ],
)  # fmt: skip
def test_code_stays_words_are_emphasised_and_letters_have_their_index(text, page):
    assert markup.inline(text) == page


@given(st.text(alphabet="ab_*`<>& \\$\n'\"c", max_size=30))
@example("`*`*`")
def test_whatever_stands_in_backticks_is_shown_to_the_letter(text):
    code = text.replace("`", "")
    reader = Reader(f"<p>{markup.inline(f'*before* `{code}` after')}</p>")
    assert reader.code == [code]
    assert Reader(markup.inline(text)).tags <= {"code", "em", "sub"}


@given(st.text(max_size=60))
@example("a * b * c\n\n\n    # *x* <&> `y`\n")
@example("\n\n  leading and trailing\n\n")
def test_a_block_of_code_is_shown_to_the_letter(source):
    source = re.sub(r"\r\n?|[\x00-\x08\x0b-\x1f\x7f]", "\n", source)  # what no cell can hold
    page = markup.code_block(source)
    assert Reader(page).text == source
    assert page.count("<code>") == 1


def test_the_code_in_every_text_of_the_course_is_shown_to_the_letter():
    texts = every_text()
    assert len(texts) > 500
    for text in texts:
        assert text.count("`") % 2 == 0, text
        reader = Reader(markup.inline(text))
        assert reader.code == text.split("`")[1::2]
        assert re.sub("[*_`]", "", reader.text) == re.sub("[*_`]", "", text)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_colours_of_code_are_legible_on_their_own_page():
    for token, style in get_style_by_name(markup._STYLE):
        if style["color"] and "Generic" not in str(token):
            light = 1.05 / (luminance(style["color"]) + 0.05)
            assert light >= 4.5, token
