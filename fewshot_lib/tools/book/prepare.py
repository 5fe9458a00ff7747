"""Make saved notebooks fit for the book: texts of pictures, folds, questions, links."""

from __future__ import annotations

import html
import json
import re
from importlib import resources
from pathlib import Path

import nbformat

from fewshot_lib.checker import language as speech
from fewshot_lib.reading.moving import source, told
from fewshot_lib.tools.book.asked import make_live

_ = speech.words("book")

#: Where the modules that run in a browser are.
MODULES = resources.files("fewshot_lib.reading") / "modules"
#: A figure that holds several pictures, as ``explore`` saves them.
FRAMES = re.compile(r'<figure( class="fewshot-figure" style="[^"]*"><div style="display:flex)')
MOVING = re.compile(r'<div class="fewshot-moving"[^>]*\bdata-module="(\w+)"')


def prepare(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """Change a notebook, in place, into what MyST-NB makes a page of.

    Arguments:
        notebook: as saved.
        name: of its file, for the link that opens the page as a notebook.
    """
    carry_alternatives(notebook)
    fold_checks(notebook)
    last: dict[str, nbformat.NotebookNode] = {}  # place of each moving picture
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            page = output.get("data", {}).get("text/html")
            if page is not None:
                output["data"]["text/html"] = for_the_page("".join(page))
                last |= dict.fromkeys(MOVING.findall("".join(page)), output)
    words = _("save the file in the course's folder and open it in JupyterLab.")
    link = (
        f'\n\n<p class="fewshot-open"><a href="{name}" download>'
        f"{_('Open this page as a notebook')}</a>{_(': ')}{words}</p>"
    )
    for cell in notebook.cells[:1]:
        cell["source"] += link
    for module, output in last.items():
        output["data"]["text/html"] += start(module)
    return notebook


def for_the_page(page: str) -> str:
    """Make an output's HTML fit: questions and frames live, links lead to pages, tables scroll."""
    page = re.sub(r'(href="[\w./-]+)\.ipynb(?=["#])', r"\1.html", make_live(page))
    # A folded table of numbers is as wide as its numbers; on a phone it scrolls by itself.
    word = html.escape(_("side by side"))
    page = FRAMES.sub(lambda found: f'<figure data-side-by-side="{word}"{found[1]}', page)
    page = re.sub(r"(<table\b.*?</table>)", r'<div class="fewshot-wide">\1</div>', page, flags=re.S)
    return page


def carry_alternatives(notebook: nbformat.NotebookNode) -> None:
    """Copy the alternative texts of a notebook's pictures to where MyST-NB looks for them.

    JupyterLab and nbconvert read them from the output, MyST-NB from the cell.
    """
    for cell in notebook.cells:
        texts = [alternative(output) for output in cell.get("outputs", [])]
        told = " ".join(text for text in texts if text)
        if told:
            cell.metadata.setdefault("mystnb", {})["image"] = {"alt": told}


def fold_checks(notebook: nbformat.NotebookNode) -> None:
    """Give cells that JupyterLab shows folded the tags by which MyST-NB folds them."""
    for cell in notebook.cells:
        hidden = cell.metadata.get("jupyter", {})
        parts = [part for part in ("source", "outputs") if hidden.get(f"{part}_hidden")]
        if parts:
            fold = {"source": "hide-input", "outputs": "hide-output"}.get("".join(parts))
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), fold or "hide-cell"]


def alternative(output: nbformat.NotebookNode) -> str | None:
    """Read the alternative text saved with a picture, or None.

    >>> alternative(nbformat.v4.new_output("display_data", {"image/png": ""},
    ...             metadata={"image/png": {"alt": "Two clouds of points."}}))
    'Two clouds of points.'
    """
    metadata = output.get("metadata", {})
    for holder in (metadata.get("image/png", {}), metadata):
        text = holder.get("alt") if hasattr(holder, "get") else None
        if text:
            return str(text)
    return None


# ------------------------------------------------------------------------------- modules


def as_script(name: str) -> str:
    """Give a module as a text without imports and exports: what is in a page can be no module's.

    A browser that opens a page from disk loads no module from a file.

    Raises:
        FileNotFoundError: there is no such module.
    """
    text = re.sub(r"^export default ", "const exported = ", source(name), flags=re.M)
    return re.sub(r"^export ", "", text, flags=re.M)


def start(name: str) -> str:
    """Give the script that sets one moving picture going in its places on a page."""
    data = told(name)
    inside = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    return (
        f'<script type="module" async>\n{as_script(name)}\nconst data = {inside};\n'
        f"for (const el of document.querySelectorAll('[data-module=\"{name}\"]')) {{\n"
        "  const kept = { data };\n"
        "  const model = { get: (key) => kept[key], set: (key, value) => { kept[key] = value; },\n"
        "    on() {}, off() {}, save_changes() {}, send() {} };\n"
        "  el.replaceChildren();\n  exported.render({ model, el });\n}\n</script>"
    )


def front_picture(course: Path) -> str:
    """Give the picture of the first page, the organ that moves or its still, as raw HTML."""
    alt = _(
        "A slice of an abdomen in three pictures: the labelled example, the same slice moved to "
        "the side, and what the note's network draws: the organs where the example had them."
    )
    still = (
        f'<img src="cover.png" alt="{html.escape(alt)}" class="fewshot-cover">'
        if (course / "notebooks" / "cover.png").is_file()
        else ""
    )
    holder = f'<div class="fewshot-moving" data-module="organ">{still}</div>'
    script = start("organ") if (MODULES / "organ.js").is_file() else ""
    return f"``````{{raw}} html\n{holder}{script}\n``````"
