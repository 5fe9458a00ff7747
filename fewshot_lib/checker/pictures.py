"""Target and yours, side by side: small pictures for where one says it faster than a sentence.

Drawn as SVG by hand, so that a check needs no plotting library and answers at once. They show a
pattern, never a number.
"""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from fewshot_lib.checker.compare import as_array
from fewshot_lib.checker.language import translate_message, words
from fewshot_lib.checker.spec import Case

_ = words("checker")

_LOW, _HIGH = np.array([247, 251, 255]), np.array([8, 48, 107])  # one hue, light to dark
_LINE = "var(--jp-ui-font-color1, #333)"
_WRONG = "#d55e00"


def svg(width: float, height: float, body: str, alt: str) -> str:
    """Wrap drawn elements as one SVG picture with its description."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(alt)}" '
        f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}">'
        f"<title>{html.escape(alt)}</title>{body}</svg>"
    )


def text(x: float, y: float, words: str, size: int = 12, anchor: str = "middle") -> str:
    """Draw words at a place."""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" '
        f'font-family="sans-serif" fill="{_LINE}">{html.escape(words)}</text>'
    )


def _last_two(array: np.ndarray) -> np.ndarray:
    while array.ndim > 2:
        array = array[0]
    return np.atleast_2d(array)


def matrix(case: Case, expected: Any, got: Any) -> str | None:
    """Draw two arrays as shaded squares on the target's scale; what differs is framed.

    Arguments:
        case: the case that failed.
        expected, got: plain values; of more than two dimensions the first slice is drawn.

    Returns:
        The SVG, or None if this is nothing to draw (another shape, one number, very large).
    """
    wanted, found = as_array(expected), as_array(got)
    if wanted is None or found is None or wanted.shape != found.shape or wanted.size < 2:
        return None
    if wanted.dtype.kind not in "fiub" or found.dtype.kind not in "fiub":
        return None
    right, wrong = _last_two(wanted).astype(float), _last_two(found).astype(float)
    rows, columns = right.shape
    if rows > 24 or columns > 24:
        return None
    finite = right[np.isfinite(right)]
    if finite.size == 0:
        return None
    low, high = float(finite.min()), float(finite.max())
    side = max(8.0, min(22.0, 200.0 / max(rows, columns)))
    off = ~np.isclose(right, wrong, rtol=1e-3, atol=1e-4 * max(high - low, 1e-12), equal_nan=True)
    gap, top = 36.0, 20.0

    def block(values: np.ndarray, left: float, marked: bool) -> str:
        parts = []
        for r in range(rows):
            for c in range(columns):
                x, y, value = left + c * side, top + r * side, values[r, c]
                if np.isfinite(value):
                    share = 0.5 if high == low else min(1.0, max(0.0, (value - low) / (high - low)))
                    rgb = (_LOW + share * (_HIGH - _LOW)).astype(int)
                    fill = f"rgb({rgb[0]},{rgb[1]},{rgb[2]})"
                else:
                    fill = "none"
                parts.append(
                    f'<rect x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}" fill="{fill}" '
                    f'stroke="{_LINE}" stroke-width=".3"/>'
                )
                if not np.isfinite(value):
                    parts.append(text(x + side / 2, y + side * 0.7, "?", int(side * 0.6)))
                if marked and off[r, c]:
                    parts.append(
                        f'<rect x="{x + 1.5:g}" y="{y + 1.5:g}" width="{side - 3:g}" '
                        f'height="{side - 3:g}" fill="none" stroke="{_WRONG}" stroke-width="2"/>'
                    )
        return "".join(parts)

    width = columns * side
    second = 4 + width + gap
    body = (
        text(4 + width / 2, 13, "target")
        + block(right, 4, False)
        + text(second + width / 2, 13, "yours")
        + block(wrong, second, True)
    )
    alt = _(
        "Target and your result as shaded squares, {rows} by {columns}; "
        "{n} of {all} differ and are framed."
    ).format(rows=rows, columns=columns, n=int(off.sum()), all=off.size)
    return svg(second + width + 4, top + rows * side + 6, body, alt)


def scatter(
    points: np.ndarray, groups: np.ndarray, target: np.ndarray, yours: np.ndarray, what: str
) -> str | None:
    """Draw points of a plane by class, with where the target and the answer put their marks.

    Arguments:
        points: (N, 2), drawn small, one shape and colour per class.
        groups: (N,) class of each, 0 … 5.
        target, yours: (K, 2); rings and crosses.
        what: what the marks are, for the legend: "prototypes".

    Returns:
        The SVG, or None if something is not finite or not of two dimensions.
    """
    every = [points, target, yours]
    if any(a.ndim != 2 or a.shape[1] != 2 or not np.isfinite(a).all() for a in every):
        return None
    colours = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#f0e442"]
    width, height, edge = 300.0, 190.0, 14.0
    both = np.concatenate(every)
    low, span = both.min(0), np.maximum(np.ptp(both, 0), 1e-9)
    scale = float(min((width - 2 * edge) / span[0], (height - 2 * edge) / span[1]))
    middle = low + span / 2

    def place(point: np.ndarray) -> tuple[float, float]:
        x, y = (point - middle) * scale
        return width / 2 + float(x), height / 2 - float(y)

    parts = [
        f'<rect x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1:g}" fill="none" '
        f'stroke="{_LINE}" stroke-width=".4"/>'
    ]
    for point, group in zip(points, groups, strict=True):
        (x, y), colour = place(point), colours[int(group) % len(colours)]
        shape = int(group) % 3
        if shape == 0:
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        elif shape == 1:
            parts.append(
                f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" fill="{colour}"/>'
            )
        else:
            parts.append(f'<path d="M{x:.1f} {y - 5:.1f} l5 9 h-10 z" fill="{colour}"/>')
    for mark, its in zip(target, yours, strict=False):
        (x, y), (to_x, to_y) = place(mark), place(its)
        parts.append(
            f'<path d="M{x:.1f} {y:.1f} L{to_x:.1f} {to_y:.1f}" stroke="{_LINE}" '
            'stroke-width=".8" stroke-dasharray="3 3"/>'
        )
    for mark in target:
        x, y = place(mark)
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8" fill="none" stroke="{_LINE}" '
            'stroke-width="1.6"/>'
        )
    for mark in yours:
        x, y = place(mark)
        parts.append(
            f'<path d="M{x - 6:.1f} {y - 6:.1f} l12 12 m0 -12 l-12 12" stroke="{_WRONG}" '
            'stroke-width="2.2" fill="none"/>'
        )
    legend = height + 16
    parts.append(
        f'<circle cx="10" cy="{legend - 4:g}" r="6" fill="none" stroke="{_LINE}" '
        f'stroke-width="1.6"/>{text(22, legend, f"target {what}", anchor="start")}'
        f'<path d="M{width / 2:g} {legend - 9:g} l10 10 m0 -10 l-10 10" stroke="{_WRONG}" '
        f'stroke-width="2.2"/>{text(width / 2 + 18, legend, f"your {what}", anchor="start")}'
    )
    alt = _(
        "Support points by class, with {n} rings where the {what} belong "
        "and {crosses} crosses where yours are."
    ).format(n=len(target), crosses=len(yours), what=translate_message(what, "outcomes"))
    return svg(width, height + 24, "".join(parts), alt)
