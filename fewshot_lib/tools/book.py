"""Make a small web site of the saved notebooks: ``make book``, into ``build/book/html``.

Nothing is executed: the pages show what the notebooks were saved with.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

from fewshot_lib.tools.machine import course_folder

CONFIGURATION = """\
project = "Few-shot medical image segmentation: a critical, executable companion"
extensions = ["myst_nb"]
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath"]
html_theme = "alabaster"
html_theme_options = {"page_width": "70rem", "sidebar_width": "18rem"}
exclude_patterns = ["_build"]
suppress_warnings = ["myst.header", "myst.xref_missing", "mystnb.unknown_mime_type"]
"""

INDEX = """\
# Few-shot medical image segmentation

A critical, executable companion to a reading note.

```{toctree}
:maxdepth: 1
:glob:

notebooks/*
```

## Exercises

```{toctree}
:maxdepth: 1
:glob:

exercises/*
```
"""


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


def build(course: Path, target: Path) -> Path:
    """Make the pages of a course.

    Arguments:
        course: the folder that holds ``notebooks/`` and ``exercises/``.
        target: where ``source`` and ``html`` are made anew.

    Returns:
        The first page.

    Raises:
        RuntimeError: Sphinx failed; the message holds what it said.
    """
    source, html = target / "source", target / "html"
    for folder in (source, html):
        shutil.rmtree(folder, ignore_errors=True)
    for part in ("notebooks", "exercises"):
        (source / part).mkdir(parents=True)
        for path in sorted((course / part).glob("*.ipynb")):
            notebook = nbformat.read(path, as_version=4)
            carry_alternatives(notebook)
            fold_checks(notebook)
            nbformat.write(notebook, source / part / path.name)
        for path in (course / part).glob("*.md"):
            shutil.copy(path, source / part)
    (source / "conf.py").write_text(CONFIGURATION, encoding="utf-8")
    (source / "index.md").write_text(INDEX, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(source), str(html)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"Sphinx failed: {done.stderr.strip()}")
    return html / "index.html"


def main() -> None:
    """Make the book of this course."""
    course = course_folder()
    if course is None:
        raise SystemExit("The notebooks are not beside the library.")
    print(f"The book: {build(course, course / 'build' / 'book')}")


if __name__ == "__main__":
    main()
