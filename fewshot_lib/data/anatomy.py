"""Synthetic abdomens: exact labels, as many subjects as wanted (notebooks 01, 05, 06).

A *subject* is geometry: ellipsoidal organs inside a body, varied in size, shape and place. A
*scanner* (`scanner.py`) turns that geometry into intensities; one subject can visit two scanners.

Slices are axial and shown as radiologists show them: image left is the patient's right (the liver's
side), the top row is anterior, and slice 0 is the most inferior one (the pelvis).

Coordinates: u to image right, v downwards (posterior), both in units of 190 mm with the body's
centre at the origin; w runs from 0 (diaphragm) to 1 (pelvis).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from fewshot_lib.data.scanner import TISSUES, Scanner, find_scanner, render_tissues
from fewshot_lib.episodes import Volume

Array = NDArray[np.float32]

UNIT_MM = 190.0  # one unit of u and v
HEIGHT_MM = 320.0  # the stack's extent, diaphragm to pelvis

NAMES = (
    "background",
    "vertebrae",
    "spinal_cord",
    "ribs",
    "hips",
    "abdominal_wall",
    "autochthon",
    "iliopsoas",
    "lungs",
    "heart",
    "aorta",
    "inferior_vena_cava",
    "pancreas",
    "duodenum",
    "gallbladder",
    "colon",
    "small_bowel",
    "urinary_bladder",
    "prostate",
    "liver",
    "spleen",
    "stomach",
    "kidneys",
)
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


def _mirrored(lobe: Lobe) -> Lobe:
    return Lobe(
        -lobe.p,
        lobe.q,
        lobe.radius_p,
        lobe.radius_q,
        -lobe.angle,
        lobe.offset_w,
        lobe.radius_w,
    )


_KIDNEY = (Lobe(0.0, 0.0, 0.15, 0.19, 0.25, 0.0, 0.23),)
_HILUM = (Lobe(0.16, 0.0, 0.085, 0.075, 0.0, 0.0, 0.3),)

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
    Organ(
        "heart",
        (0.1, -0.14, 0.01),
        (Lobe(0.0, 0.0, 0.27, 0.21, 0.5, 0.0, 0.13),),
    ),
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
    Organ("kidney_right", (-0.36, 0.22, 0.52), _KIDNEY, _HILUM, core=True),
    Organ(
        "kidney_left",
        (0.36, 0.22, 0.47),
        tuple(map(_mirrored, _KIDNEY)),
        tuple(map(_mirrored, _HILUM)),
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


@dataclass(frozen=True)
class Subject:
    """The geometry of one synthetic person; `render` turns it into a `Volume`.

    Arguments:
        tissue: (Z, H, W) uint8, index into ``scanner.TISSUES`` (finer than the labels: gas, fat).
        inner: (Z, H, W) float32, 0 at an organ's centre, 1 at its border; 0 outside organs.
        labels: (Z, H, W) int64 index into `names`.
        names: class names, ``names[0] == "background"``.
        seed, index: with the settings, all that is needed to make the subject again.
        spacing: mm, (slice, row, column).
    """

    tissue: NDArray[np.uint8]
    inner: Array
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    seed: int
    index: int
    spacing: tuple[float, float, float]

    @property
    def name(self) -> str:
        """Name the subject; equal names mean the same person."""
        return f"synthetic-{self.seed}-{self.index}"

    @property
    def body(self) -> NDArray[np.bool_]:
        """Mark every pixel inside the skin: (Z, H, W) bool."""
        return self.tissue > 0


def _stream(seed: int, index: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, index, purpose])


def _smooth_field(
    rng: np.random.Generator, shape: tuple[int, ...], coarse: tuple[int, int, int], n: int
) -> Array:
    """Draw `n` smooth random fields of unit size over (Z, H, W): (n, Z, H, W)."""
    seed_values = torch.from_numpy(rng.standard_normal((1, n, *coarse), dtype=np.float32))
    field = functional.interpolate(seed_values, size=shape, mode="trilinear", align_corners=True)
    return np.asarray(field[0].numpy())


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


def _organ_value(organ: Organ, p: Array, q: Array, w: Array) -> Array:
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


@dataclass(frozen=True)
class _Pose:
    u: float
    v: float
    w: float
    angle: float
    scale: float
    mirror: float


def _discs(organ: Organ) -> Array:
    """Stand-in discs for collision tests: rows (p, q, radius, offset_w, radius_w)."""
    return np.array(
        [
            (lobe.p, lobe.q, np.sqrt(lobe.radius_p * lobe.radius_q), lobe.offset_w, lobe.radius_w)
            for lobe in organ.lobes
        ],
        np.float32,
    )


def _place(
    rng: np.random.Generator,
    alignment: float,
    organ_size: float,
    cavity: tuple[float, float],
    spine: tuple[float, float],
    n_candidates: int = 48,
) -> list[_Pose]:
    """Choose a pose for each organ: the atlas's, a random free place, or between the two."""
    placed = [np.array([[spine[0], spine[1], 0.17, 0.5, 9.0]], np.float32)]
    poses: dict[int, _Pose] = {}
    free = 1.0 - alignment
    # large organs first: they have the fewest places to go
    for index in sorted(range(len(ORGANS)), key=lambda i: -float(_discs(ORGANS[i])[:, 2].max())):
        organ = ORGANS[index]
        discs = _discs(organ)
        jitter = rng.normal(0.0, 1.0, 5)
        radius = np.sqrt(rng.uniform(0.0, 1.0, n_candidates))
        turn = rng.uniform(0.0, 2 * np.pi, n_candidates)
        angle = rng.uniform(-np.pi, np.pi, n_candidates)
        height = rng.uniform(0.2, 0.8, n_candidates)
        mirror = np.where(rng.uniform(0.0, 1.0, n_candidates) < 0.5 * free, -1.0, 1.0)
        scale = float(
            np.exp(0.09 * jitter[3])
            * organ_size
            * (1.0 - (0.3 * free if organ.name == "liver" else 0.0))
        )
        reach = float(np.hypot(discs[:, 0], discs[:, 1]).max() * 0.5 + discs[:, 2].min()) * scale
        room_u, room_v = max(cavity[0] - reach, 0.05), max(cavity[1] - reach, 0.05)
        atlas = (
            organ.centre[0] * cavity[0] / 0.7 + 0.03 * jitter[0],
            organ.centre[1] * cavity[1] / 0.47 + 0.025 * jitter[1],
            organ.centre[2] + 0.03 * jitter[2],
        )
        u = alignment * atlas[0] + free * room_u * radius * np.cos(turn)
        v = alignment * atlas[1] + free * (room_v * radius * np.sin(turn) - 0.03)
        w = np.full(n_candidates, atlas[2])
        if not organ.everywhere:
            w = alignment * atlas[2] + free * height
        theta = alignment * 0.12 * jitter[4] + free * angle

        cos, sin = np.cos(theta)[:, None], np.sin(theta)[:, None]
        p = mirror[:, None] * discs[None, :, 0]
        q = discs[None, :, 1]
        disc_u = u[:, None] + scale * (cos * p - sin * q)  # (candidates, discs)
        disc_v = v[:, None] + scale * (sin * p + cos * q)
        disc_r = np.broadcast_to(scale * discs[:, 2], disc_u.shape)
        disc_w = w[:, None] + discs[None, :, 3]
        edge = np.hypot(disc_u / cavity[0], (disc_v + 0.03) / cavity[1])
        outside = np.maximum(edge + disc_r / cavity[1] - 1.0, 0.0).sum(1) * 0.3
        others = np.concatenate(placed)
        distance = np.hypot(
            disc_u[..., None] - others[:, 0], disc_v[..., None] - others[:, 1]
        )  # (candidates, discs, others)
        close = np.maximum(disc_r[..., None] + others[:, 2] - distance, 0.0)
        shared = np.abs(disc_w[..., None] - others[:, 3]) < discs[None, :, 4, None] + others[:, 4]
        best = int(np.argmin(outside + (close * shared).sum((1, 2))))
        poses[index] = _Pose(
            float(u[best]),
            float(v[best]),
            float(w[best]),
            float(theta[best]),
            scale,
            float(mirror[best]),
        )
        placed.append(
            np.stack(
                [
                    disc_u[best],
                    disc_v[best],
                    disc_r[best],
                    disc_w[best],
                    np.asarray(discs[:, 4], float),
                ],
                1,
            ).astype(np.float32)
        )
    return [poses[i] for i in range(len(ORGANS))]


def make_subject(
    index: int,
    *,
    n_slices: int = 12,
    size: int | tuple[int, int] = 64,
    alignment: float = 1.0,
    organ_size: float = 1.0,
    split_kidneys: bool = False,
    without: tuple[str, ...] = (),
    seed: int = 0,
) -> Subject:
    """Draw the geometry of synthetic subject `index`.

    Arguments:
        index: which subject, ≥ 0; the same index and settings give the same subject.
        n_slices: Z, from pelvis to diaphragm whatever their number.
        size: H = W, or (H, W), in pixels, at least 16; the field of view is about 380 mm.
        alignment: 0 puts the organs anywhere inside the body, 1 where an atlas has them.
        organ_size: scales every organ inside the cavity; 1 is life-like.
        split_kidneys: two classes ``kidney_right``, ``kidney_left`` instead of ``kidneys``.
        without: organs of the cavity to leave out, as if removed; the others stay where they are.
            A network trained on subjects without the novel organs has never seen them, not even
            as background (the literature's setting 2, without losing slices).
        seed: selects the population.

    Returns:
        A `Subject`.

    Raises:
        ValueError: a setting outside its range.

    Source: this course (data); notebooks 01, 05, 06.

    >>> make_subject(0, n_slices=3, size=32).labels.shape
    (3, 32, 32)
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 16 or n_slices < 1 or index < 0:
        raise ValueError(
            "need size ≥ 16, n_slices ≥ 1 and index ≥ 0, "
            f"got {(height, width)}, {n_slices} and {index}"
        )
    if not 0.0 <= alignment <= 1.0 or not 0.2 <= organ_size <= 2.0:
        raise ValueError(
            "alignment must lie in 0 … 1 and organ_size in 0.2 … 2, "
            f"got {alignment} and {organ_size}"
        )
    names = NAMES_SPLIT if split_kidneys else NAMES
    label_of = {name: i for i, name in enumerate(names)}
    if not split_kidneys:
        label_of |= dict.fromkeys(("kidney_right", "kidney_left"), label_of["kidneys"])
    removable = {names[label_of[organ.name]] for organ in ORGANS}
    unknown = sorted(set(without) - removable)
    if unknown:
        raise ValueError(
            f"no organ {unknown[0]!r} that can be left out; "
            f"there are {', '.join(sorted(removable))}"
        )
    shape = (n_slices, height, width)
    rng = _stream(seed, index, 0)
    traits = rng.normal(0.0, 1.0, 16)
    free = 1.0 - alignment

    # --- the pixel grid, in the body's own (rotated, scaled, gently bent) frame
    pixel = max(1.92 / width, 1.44 / height)
    x = ((np.arange(width, dtype=np.float32) + 0.5) - width / 2) * pixel
    y = ((np.arange(height, dtype=np.float32) + 0.5) - height / 2) * pixel
    w = (1.0 - (np.arange(n_slices) + 0.5) / n_slices).astype(np.float32)[:, None, None]
    turn = (0.03 + 0.22 * free) * np.tanh(traits[0])
    scale = 0.96 + 0.03 * np.tanh(traits[1]) - 0.08 * free * abs(np.tanh(traits[2]))
    shift_x = (0.015 + 0.05 * free) * np.tanh(traits[3])
    shift_y = (0.015 + 0.05 * free) * np.tanh(traits[4])
    xx, yy = (x[None, :] - shift_x) / scale, (y[:, None] - shift_y) / scale
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u0 = (cos * xx + sin * yy)[None]
    v0 = (-sin * xx + cos * yy)[None]
    bend = _smooth_field(_stream(seed, index, 1), shape, (4, 7, 7), 2)
    u, v = u0 + 0.022 * bend[0], v0 + 0.022 * bend[1]  # (Z, H, W)

    # --- body: skin, fat, muscle wall, cavity
    half_u = 0.87 + 0.03 * np.tanh(traits[5])
    half_v = 0.65 + 0.035 * np.tanh(traits[6])
    taper = 1.0 - 0.05 * np.square(w - 0.45) * 4
    ring = np.power(
        np.power(np.abs(u0 + 0.008 * bend[0]) / (half_u * taper), 2.4)
        + np.power(np.abs(v0 + 0.008 * bend[1]) / (half_v * taper), 2.4),
        1 / 2.4,
    )
    fat = 0.11 + 0.035 * np.tanh(traits[7])
    wall = 0.075 + 0.012 * np.tanh(traits[8])
    tissue = np.zeros(shape, np.uint8)
    inner = np.zeros(shape, np.float32)
    labels = np.zeros(shape, np.int64)
    index_of = {name: i for i, name in enumerate(TISSUES)}
    tissue[ring < 1.0] = index_of["fat"]
    in_wall = (ring < 1.0 - fat) & (ring >= 1.0 - fat - wall)
    tissue[in_wall] = index_of["abdominal_wall"]
    labels[in_wall] = label_of["abdominal_wall"]
    cavity = ring < 1.0 - fat - wall
    tissue[cavity] = index_of["visceral_fat"]
    cavity_half = (half_u * (1 - fat - wall), half_v * (1 - fat - wall))

    # --- lungs: what is left of the chest beside and behind the dome of the diaphragm
    dome = np.square(u / (0.86 * cavity_half[0])) + np.square((v + 0.06) / (0.82 * cavity_half[1]))
    lungs = cavity & (dome + np.square((0.42 - w) / 0.42) * (w < 0.42) > 1.32) & (w < 0.3)
    tissue[lungs] = index_of["lungs"]
    labels[lungs] = label_of["lungs"]

    # --- organs inside the cavity
    spine = (0.0, 0.28 * half_v / 0.65)
    poses = _place(_stream(seed, index, 2), alignment, organ_size, cavity_half, spine)
    for organ, pose in zip(ORGANS, poses, strict=True):
        if names[label_of[organ.name]] in without:
            continue
        reach = max(
            float(np.hypot(lobe.p, lobe.q)) + max(lobe.radius_p, lobe.radius_q)
            for lobe in organ.lobes
        )
        reach = reach * pose.scale + 0.09
        rows = np.abs(v0[0] - pose.v).min(1) < reach
        columns = np.abs(u0[0] - pose.u).min(0) < reach
        deep = max(abs(lobe.offset_w) + lobe.radius_w for lobe in organ.lobes) * max(pose.scale, 1)
        slices = np.abs(w[:, 0, 0] - pose.w) < deep
        if not (rows.any() and columns.any() and slices.any()):
            continue
        box = tuple(
            slice(int(np.flatnonzero(m)[0]), int(np.flatnonzero(m)[-1]) + 1)
            for m in (slices, rows, columns)
        )
        du, dv = u[box] - pose.u, v[box] - pose.v
        cos, sin = np.cos(pose.angle) / pose.scale, np.sin(pose.angle) / pose.scale
        p = pose.mirror * (cos * du + sin * dv)
        q = -sin * du + cos * dv
        value = _organ_value(organ, p.astype(np.float32), q.astype(np.float32), w[box[0]] - pose.w)
        inside = (value < 1.0) & cavity[box]
        depth = np.sqrt(np.maximum(value, 0.0))
        tissue[box][inside] = index_of["kidneys" if organ.core else organ.name]
        inner[box][inside] = depth[inside]
        labels[box][inside] = label_of[organ.name]
        if organ.core:
            tissue[box][inside & (depth < 0.5)] = index_of["kidney_core"]
        if organ.gas:
            radius_q = max(lobe.radius_q for lobe in organ.lobes) * pose.scale
            bubble = inside & (depth < 0.82) & (dv < -0.45 * radius_q)
            tissue[box][bubble] = index_of[organ.name + "_gas"]

    # --- skeleton and back muscles, over everything
    for name, where in _back(u, v, w, spine, cavity, ring, 1 - fat, 1 - fat - wall).items():
        tissue[where] = index_of[name]
        labels[where] = label_of[name]
        inner[where] = 0.0

    spacing = (HEIGHT_MM / n_slices, pixel * UNIT_MM, pixel * UNIT_MM)
    return Subject(tissue, inner, labels, names, seed, index, spacing)


def _back(
    u: Array,
    v: Array,
    w: Array,
    spine: tuple[float, float],
    cavity: NDArray[np.bool_],
    ring: Array,
    wall_outside: float,
    wall_inside: float,
) -> dict[str, NDArray[np.bool_]]:
    """Mark skeleton and the muscles beside it, in painting order."""
    below_fat = ring < wall_outside
    du, dv = np.abs(u - spine[0]), v - spine[1]
    sway = 0.012 * np.sin(40.0 * w)  # discs are narrower than vertebrae
    body = np.square(du / (0.135 + sway)) + np.square(dv / (0.105 + sway)) < 1
    canal = np.square(du / 0.07) + np.square((dv - 0.145) / 0.055) < 1
    arch = np.square(du / 0.11) + np.square((dv - 0.14) / 0.09) < 1
    process = (du < 0.025) & (dv > 0.13) & (dv < 0.26)
    wings = np.square((du - 0.11) / 0.08) + np.square((dv - 0.13) / 0.022) < 1
    erector = np.square((du - 0.17) / 0.155) + np.square((dv - 0.19) / 0.1) < 1
    psoas_size = np.clip((w - 0.3) / 0.5, 0.0, 1.0)
    psoas = np.square((du - 0.2) / 0.11) + np.square((dv - 0.02) / 0.11) < psoas_size
    rib_wave = np.cos(15.0 * np.arctan2(v - 0.05, u) + 22.0 * w)
    in_wall = (ring < wall_outside - 0.02) & (ring > wall_inside + 0.005)
    ribs = in_wall & (rib_wave > 0.35) & (w < 0.55) & (v > -0.45 + 0.9 * w)
    tilt = 0.9 - 0.6 * (w - 0.7)
    hip_p = np.cos(tilt) * (du - 0.46) - np.sin(tilt) * (dv - 0.03)
    hip_q = np.sin(tilt) * (du - 0.46) + np.cos(tilt) * (dv - 0.03)
    hip_size = np.clip((w - 0.66) / 0.2, 0.0, 1.0)
    hips = (np.square(hip_p / 0.26) + np.square(hip_q / 0.06) < hip_size) & below_fat
    return {
        "iliopsoas": psoas & cavity,
        "autochthon": erector & below_fat,
        "ribs": ribs,
        "hips": hips,
        "vertebrae": (body | arch | process | wings) & below_fat,
        "spinal_cord": canal & below_fat,
    }


def make_volumes(
    n_subjects: int,
    *,
    n_slices: int = 12,
    size: int | tuple[int, int] = 64,
    alignment: float = 1.0,
    scanner: str | Scanner = "ct_a",
    organ_size: float = 1.0,
    split_kidneys: bool = False,
    without: tuple[str, ...] = (),
    first_subject: int = 0,
    seed: int = 0,
) -> list[Volume]:
    """Make synthetic subjects and scan them.

    Arguments:
        n_subjects: how many; asking for more never changes the first ones.
        n_slices, size, alignment, organ_size, split_kidneys, without, seed: as in `make_subject`.
        scanner: a preset's name (``scanner.PRESETS``) or a `Scanner`.
        first_subject: index of the first; a second set with ``first_subject`` beyond the first set
            shares no person with it.

    Returns:
        `n_subjects` volumes: images (Z, 1, H, W) float32, labels (Z, H, W) int64.

    Raises:
        ValueError: a setting outside its range, or an unknown scanner.

    Source: this course (data); notebooks 01, 05, 06.

    >>> [v.subject for v in make_volumes(2, n_slices=2, size=32)]
    ['synthetic-0-0', 'synthetic-0-1']
    """
    if n_subjects < 0:
        raise ValueError(f"n_subjects must be ≥ 0, got {n_subjects}")
    return [
        render(
            make_subject(
                first_subject + i,
                n_slices=n_slices,
                size=size,
                alignment=alignment,
                organ_size=organ_size,
                split_kidneys=split_kidneys,
                without=without,
                seed=seed,
            ),
            scanner,
        )
        for i in range(n_subjects)
    ]


def render(subject: Subject, scanner: str | Scanner = "ct_a") -> Volume:
    """Scan a subject: the same geometry under another scanner keeps its labels.

    Arguments:
        subject: from `make_subject`.
        scanner: a preset's name or a `Scanner`.

    Returns:
        images (Z, 1, H, W) float32, labels (Z, H, W) int64; ``site`` is the scanner's name.

    Raises:
        ValueError: an unknown scanner.

    Source: this course (data); notebook 06.

    >>> subject = make_subject(0, n_slices=2, size=32)
    >>> bool((render(subject, "ct_a").labels == render(subject, "mr").labels).all())
    True
    """
    chosen = find_scanner(scanner)
    images = render_tissues(
        subject.tissue,
        subject.inner,
        chosen,
        subject.spacing,
        person=_stream(subject.seed, subject.index, 3),
        visit=_stream(subject.seed, subject.index, 4),
    )
    return Volume(
        images=torch.from_numpy(images)[:, None],
        labels=torch.from_numpy(subject.labels),
        names=subject.names,
        subject=subject.name,
        spacing=subject.spacing,
        site=chosen.name,
    )
