"""Run the notebooks from top to bottom on fresh kernels and save them: ``make notebooks``.

A saved notebook is evidence: every cell executed, in order, on a fresh kernel, with nothing from an
earlier run. So checkpoints of earlier runs are set aside, and what changes from run to run without
meaning anything (times of execution, the interpreter's patch version) is not saved. Cells that only
print truth values hold the notebook to its words; they are folded when it is saved. The cell that
installs the course is written before the run.

A lesson begins with what you will be able to do, your minutes and the machine's seconds, and ends
with *What we saw*, *What the note claimed*, *Questions*, *References*. A cell has one idea, in
about 12 lines. Figures come from ``fewshot_lib.figures``, with an alternative text computed from
their data. A cell whose output varies is tagged ``nbval-ignore-output``, and the next one prints a
fact that does not. One that only prints such facts (``…: True``) is tagged ``check`` by saving it;
``--fold`` does that without running anything. A file stays under 1 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import nbformat

from fewshot_lib.checker.language import SOURCE, VARIABLE
from fewshot_lib.tools import install_cell
from fewshot_lib.tools.machine import course_folder

#: Metadata of a cell that says when it ran: noise in a saved notebook.
TIMING = ("execution", "ExecuteTime")
#: Tag of a cell that only prints truth values: nbval compares them, a reader sees them folded.
CHECK = "check"
TRUTH = re.compile(r": (True|False)$")


def execute(
    notebook: nbformat.NotebookNode,
    folder: Path,
    timeout: float = 900.0,
    environment: Mapping[str, str] | None = None,
    begun: Callable[[int], None] | None = None,
) -> None:
    """Run all cells of a notebook, in place, on a fresh kernel that starts in ``folder``.

    Arguments:
        notebook: is given its outputs and execution counts.
        folder: the kernel's working directory.
        timeout: seconds that one cell may take.
        environment: the kernel's variables; this process's when omitted.
        begun: is told the place of each code cell when it begins, from 0.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; the message holds its source.
    """
    from nbclient import NotebookClient

    if sys.platform == "win32":  # pyzmq needs a selector loop there
        asyncio.set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy())
    client = NotebookClient(
        notebook,
        timeout=int(timeout),
        startup_timeout=300,  # a busy machine takes longer than nbclient's minute
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
        # it warns of TCP without encryption, which here does not leave the machine
        extra_arguments=["--Application.log_level=40"],
    )
    if begun is not None:
        client.on_cell_execute = lambda cell, cell_index: begun(cell_index)
    client.execute(env=dict(os.environ if environment is None else environment))
    tidy(notebook)


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Remove what varies without meaning: times, the interpreter's version, machine paths.

    Of a progress bar its last state is kept.

    >>> cell = nbformat.v4.new_code_cell("1", metadata={"execution": {"iopub.status.busy": "now"}})
    >>> tidy(book := nbformat.v4.new_notebook(cells=[cell])); book.cells[0].metadata
    {}
    """
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    CoalesceStreamsPreprocessor(enabled=True)(notebook, {})
    for cell in notebook.cells:
        for key in TIMING:
            cell.metadata.pop(key, None)
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata["language_info"] = {"name": "python", "file_extension": ".py"}


def is_check(cell: nbformat.NotebookNode) -> bool:
    """Say whether all that a code cell puts out are lines that end in ": True" or ": False".

    >>> printed = nbformat.v4.new_output("stream", text="they agree: True\\n")
    >>> is_check(nbformat.v4.new_code_cell("print(…)", outputs=[printed]))
    True
    """
    outputs = cell.get("outputs", [])
    lines = "".join(output.get("text", "") for output in outputs).splitlines()
    printed = bool(lines) and all(output.output_type == "stream" for output in outputs)
    return printed and all(TRUTH.search(line) for line in lines)


def fold(notebook: nbformat.NotebookNode) -> int:
    """Tag the cells that only print truth values, fold what is tagged, and count them.

    The output is folded always. So is the source, unless it defines a function or a class: then it
    is part of the lesson.

    Arguments:
        notebook: is given tags and metadata, as JupyterLab and Notebook 7 know them.
    """
    folded = 0
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code" and is_check(cell) and CHECK not in tags:
            cell.metadata["tags"] = tags = [*tags, CHECK]
        if CHECK in tags:
            folded += 1
            cell.metadata["jupyter"] = {"outputs_hidden": True}
            if not re.search(r"^(?:def|class) ", cell.source, re.M):
                cell.metadata["jupyter"]["source_hidden"] = True
    return folded


def save(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a notebook; an interruption leaves the old file or the new one."""
    nbformat.validate(notebook)
    partial = path.with_suffix(".partial")
    partial.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    partial.replace(path)


def private_cache(folder: Path) -> dict[str, str]:
    """Make a cache folder with the real scans but without anything a notebook computed earlier.

    Arguments:
        folder: an empty or missing folder.

    Returns:
        This process's environment with ``FEWSHOT_CACHE`` pointing there, nobody's progress, and
        English spoken.
    """
    from fewshot_lib.data.cache import cache_dir

    scans = cache_dir() / "scans"
    folder.mkdir(parents=True, exist_ok=True)
    if scans.is_dir():
        shutil.copytree(scans, folder / "scans", dirs_exist_ok=True)
    own = {"FEWSHOT_CACHE": str(folder), "FEWSHOT_PROGRESS": str(folder / "progress.json")}
    return {**os.environ, **own, VARIABLE: SOURCE}


def rerun(paths: list[Path], address: str | None = None) -> int:
    """Run and save notebooks in the given order; the number that failed is returned.

    A notebook that fails is left as it was.

    Arguments:
        paths: of the notebooks.
        address: of the course's repository, from which their first cell installs it elsewhere.
    """
    failed = 0
    with tempfile.TemporaryDirectory(prefix="fewshot-notebooks-") as scratch:
        environment = private_cache(Path(scratch) / "cache")
        for path in paths:
            start = time.monotonic()
            notebook = nbformat.read(path, as_version=4)
            install_cell.put(notebook, address)
            try:
                execute(notebook, path.parent, environment=environment)
            except Exception as error:  # the other notebooks are still worth running
                failed += 1
                print(f"FAILED  {path.name}: {error}", file=sys.stderr, flush=True)
                continue
            fold(notebook)
            save(notebook, path)
            size = path.stat().st_size / 1000
            print(f"{time.monotonic() - start:6.1f} s {size:5.0f} kB  {path.name}", flush=True)
    return failed


def pngs(data: Mapping[str, str]) -> list[str]:
    """List the PNGs of an output, in base64: its own, else those in its HTML.

    >>> pngs({"text/html": '<img src="data:image/png;base64,iVBO">'})
    ['iVBO']
    """
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', data.get("text/html", ""))
    return [data["image/png"]] if "image/png" in data else found


def cover(course: Path) -> bool:
    """Put the picture of the cell tagged ``cover`` where the README shows it.

    Arguments:
        course: the course's folder; its ``notebooks/cover.png`` is replaced.

    Returns:
        Whether a saved notebook has such a cell, with a PNG among its outputs.
    """
    for path in sorted((course / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if "cover" not in cell.metadata.get("tags", []):
                continue
            pictures = [source for o in cell.outputs for source in pngs(o.get("data", {}))]
            if pictures:
                (course / "notebooks" / "cover.png").write_bytes(base64.b64decode(pictures[0]))
                return True
    return False


def main(arguments: list[str] | None = None) -> None:
    """Re-run the notebooks named, or all of ``notebooks/`` in order; or only fold their checks."""
    parser = argparse.ArgumentParser(prog="python -m fewshot_lib.tools.notebooks")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of notebooks/")
    parser.add_argument("--fold", action="store_true", help="only fold the checks; run nothing")
    options = parser.parse_args(arguments)
    folder = course_folder()
    paths = options.notebooks or sorted(folder.glob("notebooks/*.ipynb") if folder else [])
    if not paths:
        raise SystemExit("There are no notebooks here.")
    if options.fold:
        for path in paths:
            notebook = nbformat.read(path, as_version=4)
            print(f"{fold(notebook):3} cells folded  {path.name}")
            save(notebook, path)
        return
    failed = rerun(paths, install_cell.repository(folder) if folder else None)
    if folder:
        cover(folder)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
