"""The atlas of the synthetic abdomen: which organs there are, their shapes, where they belong.

Coordinates: u to image right, v downwards (posterior), both in units of 190 mm with the body's
centre at the origin; w runs from 0 (diaphragm) to 1 (pelvis).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

UNIT_MM = 190.0  # one unit of u and v
HEIGHT_MM = 320.0  # the stack's extent, diaphragm to pelvis

NAMES = (
    "background", "vertebrae", "spinal_cord", "ribs", "hips", "abdominal_wall", "autochthon",
    "iliopsoas", "lungs", "heart", "aorta", "inferior_vena_cava", "pancreas", "duodenum",
    "gallbladder", "colon", "small_bowel", "urinary_bladder", "prostate", "liver", "spleen",
    "stomach", "kidneys",
)  # fmt: skip
NAMES_SPLIT = (*NAMES[:-1], "kidney_right", "kidney_left")
NOVEL_ORGANS = ("liver", "spleen", "kidneys", "stomach")
TOO_SMALL = ("spinal_cord",)  # labelled, but a dozen pixels at 64 × 64
BASE_ORGANS = tuple(name for name in NAMES[1:] if name not in (*NOVEL_ORGANS, *TOO_SMALL))


@dataclass(frozen=True)
class Lobe:
    """One ellipsoid of an organ, in the organ's own frame: offset, radii, angle in the plane."""

    p: float
    q: float
    radius_p: float
    radius_q: float
    angle: float = 0.0
    offset_w: float = 0.0
    radius_w: float = 0.2


@dataclass(frozen=True)
class Organ:
    """A shape (union of lobes minus bites) and where an atlas puts it."""

    name: str
    centre: tuple[float, float, float]
    lobes: tuple[Lobe, ...]
    bites: tuple[Lobe, ...] = ()
    gas: bool = False  # a bubble under the anterior wall
    core: bool = False  # the innermost part is another tissue (the kidney's pelvis)
    everywhere: bool = False  # runs through the whole stack: w does not move


_KIDNEY = Lobe(0.0, 0.0, 0.15, 0.19, 0.25, 0.0, 0.23)
_HILUM = Lobe(0.16, 0.0, 0.085, 0.075, 0.0, 0.0, 0.3)

# Painted in this order; a later organ covers an earlier one.
ORGANS: tuple[Organ, ...] = (
    Organ(
        "small_bowel",
        (0.02, -0.06, 0.75),
        (
            Lobe(-0.22, -0.06, 0.12, 0.09, 0.3, 0.0, 0.13),
            Lobe(0.0, -0.14, 0.13, 0.09, -0.2, -0.04, 0.14),
            Lobe(0.22, -0.05, 0.11, 0.11, 0.0, 0.02, 0.15),
            Lobe(-0.08, 0.08, 0.13, 0.08, 0.1, 0.05, 0.12),
            Lobe(0.14, 0.11, 0.11, 0.08, -0.4, 0.0, 0.12),
        ),
    ),
    Organ(
        "colon",
        (0.0, -0.33, 0.58),
        (
            Lobe(-0.3, 0.04, 0.15, 0.075, -0.3, 0.02, 0.11),
            Lobe(0.0, 0.0, 0.18, 0.07, 0.0, 0.0, 0.1),
            Lobe(0.3, 0.05, 0.15, 0.075, 0.3, -0.03, 0.11),
        ),
        gas=True,
    ),
    Organ("colon", (-0.55, 0.06, 0.72), (Lobe(0, 0, 0.105, 0.125, 0, 0, 0.24),), gas=True),
    Organ("colon", (0.57, 0.1, 0.68), (Lobe(0, 0, 0.085, 0.1, 0, 0, 0.28),), gas=True),
    Organ("prostate", (0.0, 0.06, 0.98), (Lobe(0, 0, 0.16, 0.12, 0, 0, 0.13),)),
    Organ("heart", (0.1, -0.14, 0.01), (Lobe(0, 0, 0.27, 0.21, 0.5, 0, 0.13),)),
    Organ("urinary_bladder", (0.0, -0.14, 0.95), (Lobe(0, 0, 0.24, 0.17, 0, 0, 0.15),)),
    Organ(
        "liver",
        (-0.3, -0.08, 0.28),
        (
            Lobe(-0.1, 0.05, 0.31, 0.36, 0.15, 0.03, 0.33),
            Lobe(0.25, -0.17, 0.32, 0.15, 0.12, -0.06, 0.2),
        ),
        (Lobe(0.22, 0.16, 0.2, 0.14, -0.5, 0.1, 0.4),),
    ),
    Organ(
        "stomach",
        (0.36, -0.16, 0.27),
        (
            Lobe(0.06, 0.02, 0.17, 0.2, 0.3, -0.04, 0.2),
            Lobe(-0.14, -0.04, 0.17, 0.1, -0.2, 0.1, 0.14),
        ),
        gas=True,
    ),
    Organ(
        "spleen",
        (0.55, 0.12, 0.26),
        (Lobe(0.02, 0.0, 0.15, 0.27, -0.25, 0.0, 0.2),),
        (Lobe(-0.17, -0.03, 0.12, 0.2, -0.25, 0.0, 0.4),),
    ),
    Organ(
        "duodenum",
        (-0.16, 0.0, 0.52),
        (
            Lobe(0.0, -0.07, 0.13, 0.075, -0.3, -0.04, 0.11),
            Lobe(-0.05, 0.06, 0.085, 0.11, 0.2, 0.03, 0.13),
        ),
    ),
    Organ(
        "pancreas",
        (0.06, -0.04, 0.43),
        (
            Lobe(0.12, -0.02, 0.2, 0.065, -0.25, -0.02, 0.11),
            Lobe(-0.13, 0.05, 0.09, 0.09, 0.0, 0.04, 0.13),
        ),
    ),
    Organ("kidney_right", (-0.36, 0.22, 0.52), (_KIDNEY,), (_HILUM,), core=True),
    Organ(
        "kidney_left",
        (0.36, 0.22, 0.47),
        (replace(_KIDNEY, angle=-_KIDNEY.angle),),  # the right one's mirror image
        (replace(_HILUM, p=-_HILUM.p),),
        core=True,
    ),
    Organ("gallbladder", (-0.2, -0.2, 0.47), (Lobe(0, 0, 0.09, 0.125, 0.3, 0, 0.14),)),
    Organ(
        "inferior_vena_cava",
        (-0.13, 0.12, 0.5),
        (Lobe(0, 0, 0.095, 0.07, 0.2, 0, 9.0),),
        everywhere=True,
    ),
    Organ("aorta", (0.09, 0.11, 0.5), (Lobe(0, 0, 0.085, 0.085, 0, 0, 9.0),), everywhere=True),
)


def _lobe_value(lobe: Lobe, p: Array, q: Array, w: Array) -> Array:
    """Evaluate a lobe's implicit function: < 1 inside, 1 on the surface."""
    cos, sin = np.cos(lobe.angle), np.sin(lobe.angle)
    x, y = p - lobe.p, q - lobe.q
    a = (cos * x + sin * y) / lobe.radius_p
    b = (-sin * x + cos * y) / lobe.radius_q
    c = (w - lobe.offset_w) / lobe.radius_w
    c = c * c
    value: Array = a * a + b * b + c * c
    return value


def organ_value(organ: Organ, p: Array, q: Array, w: Array) -> Array:
    """Union the lobes, smoothly, and take the bites out: < 1 inside."""
    if len(organ.lobes) == 1:
        value = _lobe_value(organ.lobes[0], p, q, w)
    else:
        total = np.zeros(np.broadcast_shapes(p.shape, w.shape), np.float32)
        for lobe in organ.lobes:
            one = np.maximum(_lobe_value(lobe, p, q, w), 1e-2)
            total += 1.0 / (one * one * one)
        value = np.cbrt(1.0 / total)
    for bite in organ.bites:
        value = np.maximum(value, 2.0 - _lobe_value(bite, p, q, w))
    return value
