"""Read the saved notebooks, for the tests of this folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SAVED = [
    p
    for part in ("notebooks", "exercises", "solutions")
    for p in sorted((ROOT / part).glob("*.ipynb"))
]
#: The course, in order.
COURSE = (
    *("00_start_here", "01_labels", "02_episodes", "03_prototypes"),
    *("04_mixture", "04b_mixture_more", "05_segmentation", "05b_pooling"),
    *("06_training", "07_protocols", "08_transfer", "09_review"),
    "10_after_prototypes",
)
PICTURES = ("image/png", "image/jpeg", "image/svg+xml")


def label(path: Path) -> str:
    """Name a notebook by its folder and stem."""
    return f"{path.parent.name}/{path.stem}"


def number_of(path: Path) -> str:
    """Give a notebook's number: "04", or "04b" for a second one of the same exercise."""
    return path.stem.partition("_")[0]


@cache
def read(path: Path) -> Any:
    """Read a notebook, once for all tests: leave it as it is."""
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[Any]:
    """List the code cells that have a source."""
    return [c for c in read(path).cells if c.cell_type == "code" and c.source.strip()]


def prose(path: Path) -> list[str]:
    """List the texts of the Markdown cells."""
    return [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]


def opening(path: Path) -> str:
    """Join the Markdown before the first code cell."""
    texts = []
    for cell in read(path).cells:
        if cell.cell_type == "code":
            break
        texts.append(cell.source)
    return "\n\n".join(texts)


def headings(path: Path) -> list[str]:
    """List the headings, in order, lower case."""
    return [
        line.lstrip("# ").lower()
        for text in prose(path)
        for line in text.splitlines()
        if line.startswith("#")
    ]


def outputs(path: Path) -> Iterator[Any]:
    """Give all outputs of a notebook."""
    for cell in code_cells(path):
        yield from cell.outputs


def machine_seconds(path: Path) -> float | None:
    """Read the stated machine time: a line of the opening with "machine" and "N s" (or seconds)."""
    for line in opening(path).splitlines():
        stated = re.search(r"(\d+(?:\.\d+)?)\s*(?:s\b|seconds)", line)
        if stated and re.search(r"machine|computer", line, re.IGNORECASE):
            return float(stated[1])
    return None
