"""Pages that are made from what the course has: glossary, questions on paper, interfaces."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

from fewshot_lib.checker import language as speech
from fewshot_lib.reading.question import place, questions, words

_ = speech.words("book")

#: The mathematics and what is nearest to it, as it is built up.
INTERFACES = (
    "episodes", "prototypes", "mixture", "heads", "networks", "training", "evaluation", "surfaces",
    "superpixels", "transfer",
)  # fmt: skip


def glossary(course: Path) -> str:
    """Give the page of the glossary: the cell of the notebook that holds it.

    Raises:
        LookupError: no notebook has a cell that begins with the heading "Glossary".
    """
    for path in sorted((course / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if re.match(r"#+ Glossary\b", cell.source):
                text = re.sub(r"^#+ ", "# ", cell.source)
                where = f"notebooks/{path.name}"
                return f"{text}\n\nFrom [notebook {path.stem[:2]}]({where}).\n"
    raise LookupError("no notebook has a cell that begins with the heading 'Glossary'")


def on_paper(course: Path, below: str = "") -> str:
    """Give the page to be printed: all questions, without answers, and the exercises' tasks.

    Arguments:
        course: the course's folder.
        below: the folder of the reader's language in ``exercises``; "" for English.
    """
    button = f'<button type="button" class="fewshot-print">{_("Print this page")}</button>'
    intro = [
        _("Everything that the course asks, without the answers."),
        button,
        _("The browser's print dialogue also saves it as a PDF."),
    ]
    lines = [f"# {_('Questions and exercises on paper')}", "", " ".join(intro), ""]
    lines.append(f"## {_('Questions')}")
    for word in sorted(words(), key=place):
        number, title = place(word)
        lines += ["", f"### {number:02d} · {title}", ""]
        for asked in questions(word).values():
            lines += ["", f"**{asked.id.partition('.')[2]}.** {escaped(asked.text)}", ""]
            lines += [f"- ☐ {letter}. {escaped(one.text)}" for letter, one in asked.labelled]
            if asked.names:
                formula = _("(A formula in {names}.)")
                lines.append(formula.format(names=", ".join(asked.names)))
            if not asked.options:
                lines += ["", '<div class="fewshot-lines"></div>']
    lines += ["", f"## {_('Exercises')}"]
    for path in sorted((course / "exercises" / below).glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                lines += ["", demoted(cell.source), ""]
            elif cell.id.startswith("answer-"):
                lines += ["", "```python", cell.source.rstrip(), "```"]
    return "\n".join(lines) + "\n"


def demoted(text: str) -> str:
    """Make the headings of a cell fit below "Exercises": title level 3, the others level 4."""
    return re.sub(r"^(#+) ", lambda found: "### " if found[1] == "#" else "#### ", text, flags=re.M)


def escaped(text: str) -> str:
    """Give a question's text as Markdown: its own marks stay, those of Markdown alone do not act.

    >>> escaped("c_k < `a_b`")
    'c\\\\_k &lt; `a_b`'
    """
    parts = text.split("`")
    parts[::2] = [re.sub(r"([_\\[\]$#])", r"\\\1", p).replace("<", "&lt;") for p in parts[::2]]
    return "`".join(parts)


def interface(name: str) -> str:
    """Give the page of one module's interface, from its docstrings."""
    return (
        f"# {name}\n\n```{{eval-rst}}\n.. automodule:: fewshot_lib.{name}\n"
        "   :members:\n   :show-inheritance:\n```\n"
    )
