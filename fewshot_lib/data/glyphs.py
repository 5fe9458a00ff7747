"""Letters of many alphabets, drawn on your machine, for few-shot learning with many classes.

Ten digits are too few classes to learn from; a font has thousands of letters. Matplotlib ships
DejaVu Sans, so nothing has to be fetched. The alphabets for training and for testing are different
ones, as in Omniglot (Lake et al. 2015), the data set of Snell et al. for which this stands in.
"""

from __future__ import annotations

import math
import unicodedata
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.path import Path as Outline

SIDE = 24
#: Unicode names begin with the alphabet; these two lists share none.
BASE_ALPHABETS = ("LATIN", "GREEK", "CYRILLIC", "CANADIAN", "ARABIC")
NOVEL_ALPHABETS = ("GEORGIAN", "ARMENIAN", "HEBREW", "LAO", "TIFINAGH", "NKO")
NUM_NOVEL = 100
# ‖a − b‖² below this part of the larger ‖·‖²: two letters are taken for one shape (P, Ρ and Р)
_ALIKE = 0.4


@cache
def letters() -> tuple[str, str]:
    """List the letters for training and those for testing.

    Letters with an accent (as é) are left out, and so is each letter whose upright drawing is
    much like that of one before it: the Greek Ρ is the Latin P.

    Returns:
        base and novel, two strings without a common letter, alphabet or shape; novel has
        ``NUM_NOVEL`` letters, spread over its alphabets.

    Source: this course (data); notebook 03.

    >>> base, novel = letters()
    >>> len(novel), set(base) & set(novel)
    (100, set())
    """
    order = BASE_ALPHABETS + NOVEL_ALPHABETS
    found = sorted((order.index(a), c) for c in _characters() if (a := alphabet(c)) in order)
    names = [c for _, c in found]
    upright = torch.eye(2).expand(len(names), 2, 2), torch.zeros(len(names), 2)
    flat = _render(names, *upright, SIDE).flatten(1)  # (N, SIDE²)
    own = flat.square().sum(dim=1)
    apart = own[:, None] + own - 2 * flat @ flat.mT  # (N, N) squared distances
    alike = apart < _ALIKE * torch.maximum(own[:, None], own)
    kept: list[int] = []
    for i in range(len(names)):
        if not alike[i, kept].any():
            kept.append(i)
    base = "".join(names[i] for i in kept if alphabet(names[i]) in BASE_ALPHABETS)
    rest = [names[i] for i in kept if alphabet(names[i]) in NOVEL_ALPHABETS]
    mixed = torch.randperm(len(rest), generator=torch.Generator().manual_seed(0))
    return base, "".join(rest[i] for i in sorted(mixed[:NUM_NOVEL].tolist()))


def alphabet(letter: str) -> str:
    """Name the alphabet of a letter: the first word of its Unicode name.

    >>> alphabet("q"), alphabet("ω")
    ('LATIN', 'GREEK')
    """
    return unicodedata.name(letter, "?").split()[0]


def draw(
    characters: str, per_class: int, generator: torch.Generator, size: int = SIDE
) -> tuple[Tensor, Tensor]:
    """Draw each letter several times, each time in another hand: turned, sheared, scaled, moved.

    x' = c + t + R(φ) [[1, s], [0, 1]] diag(a, b) x,   x in the letter's box, its longer side 1,
    c the centre of the picture. Uniformly and independently: turn φ in ±30°, shear s in ±0.4,
    scales a, b in 0.45 … 0.75 of the picture's side, move t in ±0.08 of it along each axis.

    Arguments:
        characters: C different letters of DejaVu Sans.
        per_class: drawings of each, ≥ 1.
        generator: the source of randomness; its state moves on.
        size: height and width of a picture in pixels, ≥ 4.

    Returns:
        images (C · per_class, 1, size, size) float32, ink from 0 to 1, letter by letter, and labels
        (C · per_class,) int64, the code point: ``chr(label)`` is the letter.

    Raises:
        ValueError: no letter, one given twice, one that the font lacks; sizes out of range.

    Source: the font is DejaVu Sans 2.37 as distributed with matplotlib; notebook 03.

    >>> images, labels = draw("ab", 3, torch.Generator().manual_seed(0))
    >>> images.shape, labels.tolist()
    (torch.Size([6, 1, 24, 24]), [97, 97, 97, 98, 98, 98])
    """
    missing = sorted(set(characters) - set(_characters()))
    if not characters or len(set(characters)) < len(characters) or missing:
        raise ValueError(
            f"characters must be different letters of DejaVu Sans, at least one, got {characters!r}"
            + (f" with {missing}" if missing else "")
        )
    if per_class < 1 or size < 4:
        raise ValueError(f"expected per_class ≥ 1 and size ≥ 4, got {per_class} and {size}")
    names = [c for c in characters for _ in range(per_class)]
    labels = torch.tensor([ord(c) for c in names])
    return _render(names, *_hands(len(names), generator), size), labels


def _hands(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw n random maps: matrices (n, 2, 2) and moves (n, 2), in sides of the picture."""
    u = torch.rand(n, 6, generator=generator) * 2 - 1  # each uniform in −1 … 1
    turn, shear = u[:, 0] * math.radians(30), u[:, 1] * 0.4
    scale = 0.6 + 0.15 * u[:, 2:4]
    cos, sin, zero = turn.cos(), turn.sin(), torch.zeros(n)
    rotate = torch.stack([cos, -sin, sin, cos], dim=1).reshape(n, 2, 2)
    slant = torch.stack([zero + 1, shear, zero, zero + 1], dim=1).reshape(n, 2, 2)
    return rotate @ slant @ torch.diag_embed(scale), 0.08 * u[:, 4:]


def _render(names: list[str], matrices: Tensor, moves: Tensor, size: int) -> Tensor:
    """Fill the outlines with Agg, antialiased: (len(names), 1, size, size) in 0 … 1."""
    import numpy as np
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.transforms import Affine2D

    renderer = RendererAgg(size, size, 72)
    gc = renderer.new_gc()
    gc.set_snap(False)  # else upright strokes jump to whole pixels
    gc.set_linewidth(0)  # fill only
    images = np.empty((len(names), 1, size, size), dtype=np.uint8)
    for i, (name, matrix, move) in enumerate(zip(names, matrices, moves, strict=True)):
        (a, b), (c, d) = matrix.tolist()
        x, y = (0.5 + move).tolist()
        place = Affine2D.from_values(a, c, b, d, x, y).scale(size)
        renderer.clear()
        renderer.draw_path(gc, _outline(name), place, (0.0, 0.0, 0.0))
        images[i, 0] = np.asarray(renderer.buffer_rgba())[..., 3]
    return torch.from_numpy(images).float() / 255


@cache
def _outline(letter: str) -> Outline:
    """Return the letter's outline, its box centred at 0 with a longer side of 1."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.path import Path as Outline
    from matplotlib.textpath import TextPath

    path = TextPath((0, 0), letter, size=1, prop=FontProperties(fname=str(_font())))
    drawn = path.vertices[path.codes != Outline.CLOSEPOLY]  # closing has no place of its own
    low, high = drawn.min(axis=0), drawn.max(axis=0)
    return Outline((path.vertices - (low + high) / 2) / (high - low).max(), path.codes)


def _font() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def _characters() -> tuple[str, ...]:
    """List the font's letters without accents, by code point."""
    from matplotlib.ft2font import FT2Font

    every = (chr(code) for code in FT2Font(str(_font())).get_charmap())
    letter = {"Lu", "Ll", "Lo"}
    return tuple(
        sorted(
            c
            for c in every
            if unicodedata.category(c) in letter and not unicodedata.decomposition(c)
        )
    )
