"""What the book adds to Sphinx: Chinese search, docstrings as they are meant, terms that tell."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

from fewshot_lib.tools.book.terms import explain

CHINESE = "\u3400-\u9fff\uf900-\ufaff"

#: Chinese has no spaces between words: every pair of neighbours is indexed, and a query is split
#: in the same way, so that 小样本 is found inside 小样本学习.
SPLITTER = """
function splitQuery(query) {
  const words = query.split(/[^\\p{Letter}\\p{Number}_\\p{Emoji_Presentation}]+/gu);
  return words.flatMap((word) => word.split(/([CHINESE]+)/u)).flatMap((part) => {
    if (!/[CHINESE]/u.test(part) || part.length < 3) return part ? [part] : [];
    return Array.from({ length: part.length - 1 }, (_, i) => part.slice(i, i + 2));
  });
}
""".replace("CHINESE", "\\u3400-\\u9fff\\uf900-\\ufaff")


class SearchEnglishAndChinese(SearchEnglish):
    """English words, stemmed; Chinese in pairs of characters."""

    js_splitter_code = SPLITTER

    def split(self, input: str) -> list[str]:
        """Split a text into what is indexed.

        >>> SearchEnglishAndChinese({}).split("few-shot 小样本学习")
        ['few', 'shot', '小样', '样本', '本学', '学习']
        """
        found: list[str] = []
        for word in super().split(input):
            for part in re.split(f"([{CHINESE}]+)", word):
                if len(part) < 3 or not re.match(f"[{CHINESE}]", part):
                    found += [part] if part else []
                else:
                    found += [part[i : i + 2] for i in range(len(part) - 1)]
        return found


#: What stays a mark of reStructuredText in a docstring: *emphasis* of words.
EMPHASIS = re.compile(r"(?<![\w*])\*(\w[\w ]*\w)\*(?![\w*])")


def quiet_marks(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Take docstrings as they are meant: |P ∩ T|, c_k and *args are no marks of reStructuredText.

    The docstrings are written to be read in a terminal. What is in double backticks stays code,
    *a word* between asterisks is stressed, an example stays as it is, and formulas below each
    other keep their lines.
    """
    formulas = _formulas(lines)
    example = False
    for i, line in enumerate(lines):
        example = line.lstrip().startswith(">>> ") or (example and bool(line.strip()))
        if example or re.match(r"\s*\.\. ", line):
            continue
        head = re.match(r"\s*:[^:]*:", line)  # what napoleon wrote
        start = head.end() if head else 0
        parts = line[start:].split("``")
        parts[::2] = [_quiet(part) for part in parts[::2]]
        before = re.sub(r"(?<!\\)\*", r"\\*", line[:start])
        lines[i] = "| " * (i in formulas) + before + "``".join(parts)


def _quiet(text: str) -> str:
    """Escape what reStructuredText would take for a mark.

    >>> print(_quiet("|P ∩ T| of *all* x_ and *args"))
    \\|P ∩ T\\| of *all* x\\_ and \\*args
    """
    parts = EMPHASIS.split(text)
    parts[::2] = [re.sub(r"([\\|*`]|(?<=\w)_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"*{word}*" for word in parts[1::2]]
    return "".join(parts)


def _formulas(lines: list[str]) -> set[int]:
    """Number the lines of paragraphs that hold a formula in every line, or one that goes on.

    >>> sorted(_formulas(["Say it.", "", "a = b", "  + c", "", "The rest = prose,", "as x = y."]))
    [2, 3]
    """
    found: set[int] = set()
    paragraph: list[int] = []
    for i, line in enumerate([*lines, ""]):
        if line.strip():
            paragraph.append(i)
            continue
        first, *rest = [lines[j] for j in paragraph] or [""]
        prose = re.match(r"\s|:|\.\. |>>> |[-*•] |[A-Z][a-z]+ ", first)
        if rest and not prose and all(one[0] == " " or " = " in one for one in rest):
            found |= set(paragraph)
        paragraph = []
    return found


def named_fields(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> Any:
    """Leave out the fields of a named tuple: its docstring has said what they are."""
    return True if (getattr(thing, "__doc__", "") or "").startswith("Alias for field") else None


def plain_roles(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Drop the roles of a bibliography: one is deprecated, and the list's children are no items."""
    role = r' role="(?:list|doc-biblioentry)"'
    context["body"] = re.sub(
        rf'(class="citation(?:-list)?"[^>]*?){role}',
        r"\1",
        re.sub(rf'<div{role}(?= class="citation)', "<div", context.get("body", "")),
    )


def few_elements(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Unwrap names, punctuation and spaces of code, which have the colour of the text around them.

    They are nearly half of a lesson's elements; without them the page answers sooner.
    """
    context["body"] = re.sub(r'<span class="[npw]">([^<]*)</span>', r"\1", context.get("body", ""))


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx."""
    app.add_search_language(SearchEnglishAndChinese)
    app.connect("autodoc-process-docstring", quiet_marks, priority=900)
    app.connect("autodoc-skip-member", named_fields)
    app.connect("html-page-context", plain_roles)
    app.connect("html-page-context", few_elements)
    app.connect("doctree-resolved", explain)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
