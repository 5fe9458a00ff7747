"""Synthetic abdomens: exact labels, as many subjects as wanted (notebooks 01, 05, 06).

A *subject* is geometry: ellipsoidal organs (`atlas.py`) inside a body, varied in size, shape and
place (`placement.py`). A *scanner* (`scanner.py`) turns that geometry into intensities; one subject
can visit two scanners.

Slices are axial and shown as radiologists show them: image left is the patient's right (the liver's
side), the top row is anterior, and slice 0 is the most inferior one (the pelvis).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from fewshot_lib.data.atlas import (
    BASE_ORGANS,
    HEIGHT_MM,
    NAMES,
    NAMES_SPLIT,
    NOVEL_ORGANS,
    ORGANS,
    TOO_SMALL,
    UNIT_MM,
    Array,
    Organ,
    organ_value,
)
from fewshot_lib.data.placement import Pose, place_organs
from fewshot_lib.data.scanner import TISSUES, Scanner, find_scanner, render_tissues
from fewshot_lib.episodes import Volume

__all__ = [
    "BASE_ORGANS",
    "NAMES",
    "NAMES_SPLIT",
    "NOVEL_ORGANS",
    "TOO_SMALL",
    "Subject",
    "make_subject",
    "make_volumes",
    "render",
]

_TISSUE = {name: code for code, name in enumerate(TISSUES)}


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
    height, width = size if isinstance(size, tuple | list) else (size, size)
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
    traits = _stream(seed, index, 0).normal(0.0, 1.0, 16)
    pixel = max(1.92 / width, 1.44 / height)
    bend = _smooth_field(_stream(seed, index, 1), shape, (4, 7, 7), 2)
    frame = _frame(shape, pixel, traits, 1.0 - alignment, bend)
    body = _body(frame, traits, bend)
    canvas = _Canvas(
        np.zeros(shape, np.uint8), np.zeros(shape, np.float32), np.zeros(shape, np.int64), label_of
    )
    _paint_body(canvas, frame, body)
    poses = place_organs(
        _stream(seed, index, 2), alignment, organ_size, body.cavity_half, body.spine
    )
    for organ, pose in zip(ORGANS, poses, strict=True):
        if names[label_of[organ.name]] not in without:
            _paint_organ(canvas, frame, body.cavity, organ, pose)
    for name, where in _back(frame, body).items():  # over everything
        canvas.paint(name, where)
        canvas.inner[where] = 0.0
    spacing = (HEIGHT_MM / n_slices, pixel * UNIT_MM, pixel * UNIT_MM)
    return Subject(canvas.tissue, canvas.inner, canvas.labels, names, seed, index, spacing)


def _stream(seed: int, index: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, index, purpose])


def _smooth_field(
    rng: np.random.Generator, shape: tuple[int, ...], coarse: tuple[int, int, int], n: int
) -> Array:
    """Draw `n` smooth random fields of unit size over (Z, H, W): (n, Z, H, W)."""
    seed_values = torch.from_numpy(rng.standard_normal((1, n, *coarse), dtype=np.float32))
    field = functional.interpolate(seed_values, size=shape, mode="trilinear", align_corners=True)
    return np.asarray(field[0].numpy())


@dataclass(frozen=True)
class _Frame:
    """The pixel grid in the body's own (rotated, scaled) frame; u and v are gently bent."""

    u: Array  # (Z, H, W)
    v: Array
    w: Array  # (Z, 1, 1)
    flat_u: Array  # (1, H, W), not bent
    flat_v: Array


def _frame(
    shape: tuple[int, int, int], pixel: float, traits: NDArray, free: float, bend: Array
) -> _Frame:
    n_slices, height, width = shape
    x = ((np.arange(width, dtype=np.float32) + 0.5) - width / 2) * pixel
    y = ((np.arange(height, dtype=np.float32) + 0.5) - height / 2) * pixel
    w = (1.0 - (np.arange(n_slices) + 0.5) / n_slices).astype(np.float32)[:, None, None]
    turn = (0.03 + 0.22 * free) * np.tanh(traits[0])
    scale = 0.96 + 0.03 * np.tanh(traits[1]) - 0.08 * free * abs(np.tanh(traits[2]))
    shift_x = (0.015 + 0.05 * free) * np.tanh(traits[3])
    shift_y = (0.015 + 0.05 * free) * np.tanh(traits[4])
    xx, yy = (x[None, :] - shift_x) / scale, (y[:, None] - shift_y) / scale
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u = (cos * xx + sin * yy)[None]
    v = (-sin * xx + cos * yy)[None]
    return _Frame(u + 0.022 * bend[0], v + 0.022 * bend[1], w, u, v)


@dataclass(frozen=True)
class _Body:
    """Skin, fat, muscle wall and cavity, by a ring coordinate: 0 at the centre, 1 on the skin."""

    ring: Array  # (Z, H, W)
    wall_outside: float
    wall_inside: float
    half: tuple[float, float]

    @property
    def cavity(self) -> NDArray[np.bool_]:
        return self.ring < self.wall_inside

    @property
    def cavity_half(self) -> tuple[float, float]:
        return self.half[0] * self.wall_inside, self.half[1] * self.wall_inside

    @property
    def spine(self) -> tuple[float, float]:
        return 0.0, 0.28 * self.half[1] / 0.65


def _body(frame: _Frame, traits: NDArray, bend: Array) -> _Body:
    half_u = 0.87 + 0.03 * np.tanh(traits[5])
    half_v = 0.65 + 0.035 * np.tanh(traits[6])
    taper = 1.0 - 0.05 * np.square(frame.w - 0.45) * 4
    ring = np.power(
        np.power(np.abs(frame.flat_u + 0.008 * bend[0]) / (half_u * taper), 2.4)
        + np.power(np.abs(frame.flat_v + 0.008 * bend[1]) / (half_v * taper), 2.4),
        1 / 2.4,
    )
    fat = 0.11 + 0.035 * np.tanh(traits[7])
    wall = 0.075 + 0.012 * np.tanh(traits[8])
    return _Body(ring, 1 - fat, 1 - fat - wall, (half_u, half_v))


@dataclass(frozen=True)
class _Canvas:
    """What is being painted: tissue codes, depth inside organs, labels."""

    tissue: NDArray[np.uint8]
    inner: Array
    labels: NDArray[np.int64]
    label_of: dict[str, int]

    def paint(self, name: str, where: NDArray[np.bool_]) -> None:
        self.tissue[where] = _TISSUE[name]
        self.labels[where] = self.label_of[name]


def _paint_body(canvas: _Canvas, frame: _Frame, body: _Body) -> None:
    u, v, w = frame.u, frame.v, frame.w
    canvas.tissue[body.ring < 1.0] = _TISSUE["fat"]
    canvas.paint("abdominal_wall", (body.ring < body.wall_outside) & ~body.cavity)
    canvas.tissue[body.cavity] = _TISSUE["visceral_fat"]
    # lungs: what is left of the chest beside and behind the dome of the diaphragm
    half_u, half_v = body.cavity_half
    dome = np.square(u / (0.86 * half_u)) + np.square((v + 0.06) / (0.82 * half_v))
    outside_dome = dome + np.square((0.42 - w) / 0.42) * (w < 0.42) > 1.32
    canvas.paint("lungs", body.cavity & outside_dome & (w < 0.3))


def _paint_organ(
    canvas: _Canvas, frame: _Frame, cavity: NDArray[np.bool_], organ: Organ, pose: Pose
) -> None:
    """Paint an organ, looking only at the box that it can reach."""
    reach = max(
        float(np.hypot(lobe.p, lobe.q)) + max(lobe.radius_p, lobe.radius_q) for lobe in organ.lobes
    )
    reach = reach * pose.scale + 0.09  # and how far the grid is bent
    deep = max(abs(lobe.offset_w) + lobe.radius_w for lobe in organ.lobes) * max(pose.scale, 1)
    near = (
        np.abs(frame.w[:, 0, 0] - pose.w) < deep,
        np.abs(frame.flat_v[0] - pose.v).min(1) < reach,
        np.abs(frame.flat_u[0] - pose.u).min(0) < reach,
    )
    if not all(axis.any() for axis in near):
        return
    box = tuple(
        slice(int(np.flatnonzero(axis)[0]), int(np.flatnonzero(axis)[-1]) + 1) for axis in near
    )
    du, dv = frame.u[box] - pose.u, frame.v[box] - pose.v
    cos, sin = np.cos(pose.angle) / pose.scale, np.sin(pose.angle) / pose.scale
    p = (pose.mirror * (cos * du + sin * dv)).astype(np.float32)
    q = (-sin * du + cos * dv).astype(np.float32)
    value = organ_value(organ, p, q, frame.w[box[0]] - pose.w)
    inside = (value < 1.0) & cavity[box]
    depth = np.sqrt(np.maximum(value, 0.0))
    tissue = canvas.tissue[box]
    tissue[inside] = _TISSUE["kidneys" if organ.core else organ.name]
    canvas.inner[box][inside] = depth[inside]
    canvas.labels[box][inside] = canvas.label_of[organ.name]
    if organ.core:
        tissue[inside & (depth < 0.5)] = _TISSUE["kidney_core"]
    if organ.gas:
        radius_q = max(lobe.radius_q for lobe in organ.lobes) * pose.scale
        bubble = inside & (depth < 0.82) & (dv < -0.45 * radius_q)
        tissue[bubble] = _TISSUE[organ.name + "_gas"]


def _back(frame: _Frame, body: _Body) -> dict[str, NDArray[np.bool_]]:
    """Mark skeleton and the muscles beside it, in painting order."""
    u, v, w, ring = frame.u, frame.v, frame.w, body.ring
    below_fat = ring < body.wall_outside
    du, dv = np.abs(u - body.spine[0]), v - body.spine[1]
    sway = 0.012 * np.sin(40.0 * w)  # discs are narrower than vertebrae
    disc = np.square(du / (0.135 + sway)) + np.square(dv / (0.105 + sway)) < 1
    canal = np.square(du / 0.07) + np.square((dv - 0.145) / 0.055) < 1
    arch = np.square(du / 0.11) + np.square((dv - 0.14) / 0.09) < 1
    process = (du < 0.025) & (dv > 0.13) & (dv < 0.26)
    wings = np.square((du - 0.11) / 0.08) + np.square((dv - 0.13) / 0.022) < 1
    erector = np.square((du - 0.17) / 0.155) + np.square((dv - 0.19) / 0.1) < 1
    psoas_size = np.clip((w - 0.3) / 0.5, 0.0, 1.0)
    psoas = np.square((du - 0.2) / 0.11) + np.square((dv - 0.02) / 0.11) < psoas_size
    rib_wave = np.cos(15.0 * np.arctan2(v - 0.05, u) + 22.0 * w)
    in_wall = (ring < body.wall_outside - 0.02) & (ring > body.wall_inside + 0.005)
    ribs = in_wall & (rib_wave > 0.35) & (w < 0.55) & (v > -0.45 + 0.9 * w)
    tilt = 0.9 - 0.6 * (w - 0.7)
    hip_p = np.cos(tilt) * (du - 0.46) - np.sin(tilt) * (dv - 0.03)
    hip_q = np.sin(tilt) * (du - 0.46) + np.cos(tilt) * (dv - 0.03)
    hip_size = np.clip((w - 0.66) / 0.2, 0.0, 1.0)
    hips = (np.square(hip_p / 0.26) + np.square(hip_q / 0.06) < hip_size) & below_fat
    return {
        "iliopsoas": psoas & body.cavity,
        "autochthon": erector & below_fat,
        "ribs": ribs,
        "hips": hips,
        "vertebrae": (disc | arch | process | wings) & below_fat,
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
