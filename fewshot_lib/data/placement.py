"""Where a synthetic subject's organs lie: an atlas's places, free places, or between the two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewshot_lib.data.atlas import ORGANS, Array, Organ


@dataclass(frozen=True)
class Pose:
    """An organ's centre, angle (radians), scale, and mirror (±1: along its own first axis)."""

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


def place_organs(
    rng: np.random.Generator,
    alignment: float,
    organ_size: float,
    cavity: tuple[float, float],
    spine: tuple[float, float],
    n_candidates: int = 48,
) -> list[Pose]:
    """Choose a pose for each organ: the atlas's, a random free place, or between the two."""
    placed = [np.array([[spine[0], spine[1], 0.17, 0.5, 9.0]], np.float32)]
    poses: dict[int, Pose] = {}
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
        where = float(u[best]), float(v[best]), float(w[best])
        poses[index] = Pose(*where, float(theta[best]), scale, float(mirror[best]))
        taken = [disc_u[best], disc_v[best], disc_r[best], disc_w[best], discs[:, 4]]
        placed.append(np.stack(taken, 1).astype(np.float32))
    return [poses[i] for i in range(len(ORGANS))]
