"""Words on pages: the course's Markdown is rendered, a student's cannot act."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from fewshot_lib.grader.reader import pictures
from fewshot_lib.grader.words import harmless, rendered, visible

ATTACKS = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<svg/onload=alert(1)>",
    "<svg><animate onbegin=alert(1) attributeName=x></svg>",
    "<details open ontoggle=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<a href='javascript:alert(1)'>x</a>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<?x <img src=x onerror=alert(1)>?>",
    "<style>@import 'https://x'</style>",
    "<form action=javascript:alert(1)><button>x</button></form>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "`<img src=x` onerror=alert(1)>",
    "```html\n</code></pre><img src=x onerror=alert(1)>\n```",
    "$<img src=x onerror=alert(1)>$",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a](java&#115;cript:alert(1))",
    "[a](java&Tab;script:alert(1))",
    "[a](&#x6A;avascript&colon;alert(1))",
    "[a](%6aavascript:alert(1))",
    "[a](\x01javascript:alert(1))",
    "[a](java\\\nscript:alert(1))",
    "[a](<javascript:alert(1)>)",
    "[a](\n  javascript:alert(1))",
    "[a](vbscript:x)",
    "[a](file:///etc/passwd)",
    "[x [a](](javascript:alert(1)))",
    "[a][b]\n\n[b]: javascript:alert(1)",
    "[a]\n\n[a]:\n<javascript:alert(1)> 'x'",
    "[a](data:text/html;base64,PHNjcmlwdD4=)",
    "![a](data:image/svg+xml;base64,PHN2Zz4=)",
    "![a](attachment:not-there.png)",
    "![a][b]\n\n[b]: attachment:not-there.png",
    "<javascript:alert(1)>",
    "```mermaid\ngraph TD; A[<img src=x onerror=alert(1)>]\n```",
    "~~~ mermaid\ngraph TD;\n~~~",
)


class Page(HTMLParser):
    """Notes what of a page could act."""

    ALLOWED = frozenset(
        ("p", "a", "img", "code", "pre", "em", "strong", "del", "ul", "ol", "li", "blockquote")
    ) | frozenset(
        ("hr", "br", "div", "span", "table", "thead", "tbody", "tr", "th", "td", "h1", "h2", "h3")
    )

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in self.ALLOWED:
            self.found.append(tag)
        for name, value in attrs:
            where = (value or "").strip().lower()
            web = where.startswith(("http:", "https:", "mailto:", "#", "data:image/png"))
            if name.startswith("on") or name in ("style", "srcdoc", "action"):
                self.found.append(name)
            if name in ("href", "src") and ":" in where.split("/")[0] and not web:
                self.found.append(where)
            if name == "class" and "mermaid" in where.split():
                self.found.append(where)


def acts(text: str) -> list[str]:
    return Page(markdown2html_mistune(harmless(text, {}))).found


@pytest.mark.parametrize("text", ATTACKS)
def test_nothing_in_a_students_text_acts(text):
    assert acts(text) == []


@pytest.mark.parametrize("text", ATTACKS[:2])
def test_the_page_that_judges_would_see_an_attack(text):
    assert Page(markdown2html_mistune(text)).found


MARKS = (*"<>[()`!|$\\a", "](", "]:", "``", "onerror=x", "src=x", "javascript:", "&colon;")
PIECES = st.sampled_from([*ATTACKS, *MARKS, "<img ", "```\n", "1. ", "> ", "\n", "\n\n", " ", "\t"])


@given(pieces=st.lists(PIECES, max_size=12))
@example(pieces=["[x ", "[a]", "(](javascript:alert(1))"])
@settings(max_examples=200, deadline=None)
def test_no_mixture_of_attacks_acts(pieces):
    assert acts("".join(pieces)) == []


@pytest.mark.parametrize(
    "text",
    [
        "The **temperature** leaves the arg-max, see [Snell](https://arxiv.org/abs/1703.05175).",
        "If $a < b$ and $b > c$: `x[i] += 1`, * as here: $\\sum_k \\exp(-d_k)$",
        "- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> quoted & 3 < 4",
        "```python\nif a < b:\n    print('<', x[1:2])\n```",
        "Zoë schrieb: ½‖z − c‖² ≤ σ², 原型",
    ],
)
def test_an_honest_text_stays_to_the_letter(text):
    assert harmless(text, {}) == text


def test_an_attached_picture_is_shown_and_other_attachments_are_not():
    kept = pictures(
        {
            "a.png": {"image/png": "iVBOR\nw0KGgo="},
            "b.svg": {"image/svg+xml": "PHN2Zz4="},
            "c.png": {"image/png": '"><script>alert(1)</script>'},
            "d": "no forms",
            "e.png": {"text/html": "PGI+", "image/png": "AAAA"},
        }
    )
    assert kept == {"a.png": {"image/png": "iVBORw0KGgo="}, "e.png": {"image/png": "AAAA"}}
    assert harmless("![x](attachment:a.png)", kept) == "![x](attachment:a.png)"
    assert harmless("![x](attachment:b.svg)", kept) == "![x] (attachment:b.svg)"
    assert pictures(None) == pictures([1]) == {}


def test_messages_are_rendered_and_hold_no_link_or_tag():
    page = str(rendered("Use `a*b`, *not* **this**:\n\n- one\n- <b>two</b> [x](https://y.org)"))
    assert "<code>a*b</code>" in page
    assert "<em>not</em> <strong>this</strong>" in page
    assert "<li>one</li>" in page
    assert "&lt;b&gt;" in page
    assert "<a" not in page


@pytest.mark.parametrize("text", ATTACKS)
def test_no_message_acts_even_if_it_quotes_a_student(text):
    assert Page(str(rendered(text))).found == []


def test_control_characters_are_seen_and_do_not_act():
    assert visible("\x1b[31mred\u202eder\x00\r") == "\\x1b[31mred\\u202eder\\x00\\r"
    assert visible("two\nlines\tZoë 👩‍🔬") == "two\nlines\tZoë 👩‍🔬"
