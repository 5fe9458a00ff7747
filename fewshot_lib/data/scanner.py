"""Scanners for the synthetic abdomens: what each tissue looks like, and how the picture is spoiled.

Organs differ by brightness, but little more than people differ from each other; what tells them
apart is texture: its scale, its direction, bright or dark grains, and the organ's rim.
The texture bank is 3 periods × 4 directions of band-passed noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Array = NDArray[np.float32]

PERIODS_MM = (17.0, 27.0, 45.0)
DIRECTIONS = (0.0, 45.0, 90.0, 135.0)  # degrees; 0 varies from left to right


@dataclass(frozen=True)
class Look:
    """A tissue's appearance on the reference scanner.

    Arguments:
        level: mean intensity; air 0, fat 0.25, soft tissue about 0.5, bone 0.9.
        texture: ((period, direction, weight), …), indices into PERIODS_MM and DIRECTIONS.
        amplitude: standard deviation of the texture.
        skew: > 0 bright grains on a dark ground, < 0 the reverse.
        rim: added along the border (a wall, a capsule).
    """

    level: float
    texture: tuple[tuple[int, int, float], ...] = ()
    amplitude: float = 0.0
    skew: float = 0.0
    rim: float = 0.0


def _iso(period: int) -> tuple[tuple[int, int, float], ...]:
    return tuple((period, direction, 0.5) for direction in range(4))


LOOKS: dict[str, Look] = {
    "air": Look(0.0),
    "fat": Look(0.16, _iso(2), 0.02),
    "visceral_fat": Look(0.18, _iso(2), 0.025),
    "abdominal_wall": Look(0.44, ((0, 2, 1.0),), 0.1),
    "autochthon": Look(0.46, ((1, 0, 1.0),), 0.11),
    "iliopsoas": Look(0.48, ((1, 1, 1.0),), 0.11),
    "vertebrae": Look(0.94, _iso(0), 0.1, 0.5),
    "spinal_cord": Look(0.42),
    "ribs": Look(1.02, _iso(1), 0.05),
    "hips": Look(0.96, _iso(1), 0.12, -0.5),
    "lungs": Look(0.06, ((0, 1, 1.0),), 0.05, 0.5),
    "heart": Look(0.72, ((2, 3, 1.0),), 0.05),
    "aorta": Look(0.9, rim=0.05),
    "inferior_vena_cava": Look(0.7, ((2, 0, 1.0),), 0.03),
    "pancreas": Look(0.52, _iso(1), 0.12, 0.6),
    "duodenum": Look(0.54, ((0, 1, 1.0),), 0.12, 0.0, 0.1),
    "prostate": Look(0.5, ((0, 3, 1.0),), 0.12),
    "gallbladder": Look(0.28, rim=0.12),
    "colon": Look(0.42, _iso(0), 0.13, -0.6, 0.14),
    "colon_gas": Look(0.02),
    "small_bowel": Look(0.54, ((1, 3, 1.0),), 0.12, 0.0, 0.12),
    "urinary_bladder": Look(0.3, ((2, 2, 1.0),), 0.04, 0.0, 0.1),
    "liver": Look(0.62, ((1, 2, 1.0),), 0.1),
    "spleen": Look(0.5, ((0, 0, 1.0),), 0.13),
    "kidneys": Look(0.82, ((0, 3, 1.0),), 0.1, 0.0, 0.06),
    "kidney_core": Look(0.76, ((0, 3, 1.0),), 0.1),
    "stomach": Look(0.37, ((1, 1, 1.0),), 0.13, 0.0, 0.08),
    "stomach_gas": Look(0.02),
}
TISSUES = tuple(LOOKS)  # index = code in Subject.tissue; 0 is air outside the body


@dataclass(frozen=True)
class Scanner:
    """What a scanner does to the reference look.

    Arguments:
        name: shown as the volume's site.
        contrast: tissue → level here, where it differs from the reference.
        gain, offset: intensity = gain · reference + offset.
        person_spread: standard deviation of each person's gain and offset.
        level_spread: standard deviation of each tissue's level between persons.
        texture: multiplies every texture's amplitude.
        noise: standard deviation of white noise after blur.
        bias: strength of the smooth multiplicative field (coil shading in MR).
        blur_mm: standard deviation of the point spread.
        pixel_mm: the detector's own pixel; if coarser than the image's, the image is
            averaged to it and interpolated back.
    """

    name: str
    contrast: dict[str, float] = field(default_factory=dict)
    gain: float = 1.0
    offset: float = 0.0
    person_spread: float = 0.04
    level_spread: float = 0.03
    texture: float = 1.0
    noise: float = 0.03
    bias: float = 0.0
    blur_mm: float = 2.5
    pixel_mm: float = 0.0


PRESETS: dict[str, Scanner] = {
    "ct_a": Scanner("ct_a"),
    "ct_b": Scanner(
        "ct_b",
        contrast={
            "aorta": 0.85,
            "inferior_vena_cava": 0.75,
            "liver": 0.64,
            "spleen": 0.68,
            "kidneys": 0.78,
            "kidney_core": 0.64,
            "pancreas": 0.58,
        },
        gain=0.85,
        offset=0.08,
        noise=0.05,
        blur_mm=3.5,
    ),
    "mr": Scanner(
        "mr",
        contrast={
            "fat": 0.75,
            "visceral_fat": 0.7,
            "vertebrae": 0.4,
            "ribs": 0.25,
            "hips": 0.4,
            "spinal_cord": 0.65,
            "aorta": 0.12,
            "inferior_vena_cava": 0.2,
            "liver": 0.38,
            "spleen": 0.58,
            "kidneys": 0.62,
            "kidney_core": 0.72,
            "stomach": 0.45,
            "gallbladder": 0.85,
            "urinary_bladder": 0.9,
            "abdominal_wall": 0.3,
            "autochthon": 0.3,
            "iliopsoas": 0.32,
        },
        noise=0.04,
        bias=0.25,
        blur_mm=3.0,
    ),
}


def find_scanner(scanner: str | Scanner) -> Scanner:
    """Return a preset by name, or the scanner itself.

    Raises:
        ValueError: no preset has this name.

    >>> find_scanner("mr").bias > 0
    True
    """
    if isinstance(scanner, Scanner):
        return scanner
    if scanner not in PRESETS:
        raise ValueError(f"no scanner {scanner!r}; presets are {', '.join(PRESETS)}, or make one")
    return PRESETS[scanner]


def _texture_bank(rng: np.random.Generator, shape: tuple[int, ...], pixel_mm: float) -> Tensor:
    """Draw band-passed noise of unit variance: (bank, Z, H, W), correlated between slices."""
    depth, height, width = shape
    white = rng.standard_normal(shape, dtype=np.float32)
    for z in range(1, depth):  # neighbouring slices share half of their grain
        white[z] = 0.5 * white[z - 1] + 0.866 * white[z]
    spectrum = torch.fft.rfft2(torch.from_numpy(white))
    fy = torch.fft.fftfreq(height)[:, None] / pixel_mm  # cycles per mm
    fx = torch.fft.rfftfreq(width)[None, :] / pixel_mm
    filters = []
    for period in PERIODS_MM:
        for direction in DIRECTIONS:
            angle = np.deg2rad(direction)
            cx, cy = np.cos(angle) / period, np.sin(angle) / period
            width_f = 0.3 / period
            bump = torch.exp(-((fx - cx) ** 2 + (fy - cy) ** 2) / (2 * width_f**2))
            bump = bump + torch.exp(-((fx + cx) ** 2 + (fy + cy) ** 2) / (2 * width_f**2))
            # unit variance: mean over the full plane of |filter|², from the half plane
            twice = torch.full_like(fx, 2.0)
            twice[..., 0] = 1.0
            if width % 2 == 0:
                twice[..., -1] = 1.0
            power = (bump**2 * twice).sum() / (height * width)
            filters.append(bump / power.sqrt())
    bank = torch.stack(filters)[:, None]  # (bank, 1, H, W/2+1)
    fields: Tensor = torch.fft.irfft2(bank * spectrum, s=(height, width))
    return fields


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Blur each slice with a Gaussian of `sigma` pixels."""
    if sigma < 0.2:
        return images
    radius = max(1, int(3 * sigma + 0.5))
    x = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    out = functional.pad(images[:, None], (radius, radius, radius, radius), mode="replicate")
    out = functional.conv2d(out, kernel[None, None, None, :])
    return functional.conv2d(out, kernel[None, None, :, None])[:, 0]


def render_tissues(
    tissue: NDArray[np.uint8],
    inner: Array,
    scanner: Scanner,
    spacing: tuple[float, float, float],
    person: np.random.Generator,
    visit: np.random.Generator,
) -> Array:
    """Turn tissue codes into intensities.

    Arguments:
        tissue: (Z, H, W) uint8, index into TISSUES.
        inner: (Z, H, W) float32, 1 on an organ's border.
        scanner: what to imitate.
        spacing: mm, (slice, row, column).
        person: generator of what the person brings (texture grain, tissue levels).
        visit: generator of what the visit adds (gain, bias field, noise).

    Returns:
        (Z, H, W) float32, about 0 (air) to 1 (bone).
    """
    shape = tissue.shape
    pixel_mm = spacing[1]
    looks = list(LOOKS.values())
    levels = np.array(
        [scanner.contrast.get(name, look.level) for name, look in LOOKS.items()], np.float32
    )
    spread = person.normal(0.0, 1.0, len(looks)).astype(np.float32) * scanner.level_spread
    gas = np.array([look.amplitude == 0 and look.level < 0.05 for look in looks])
    levels = levels + np.where(gas, 0.0, spread).astype(np.float32)
    weights = np.zeros((len(looks), len(PERIODS_MM) * len(DIRECTIONS)), np.float32)
    for t, look in enumerate(looks):
        for period, direction, weight in look.texture:
            weights[t, period * len(DIRECTIONS) + direction] = weight
    amplitude = np.array([look.amplitude for look in looks], np.float32) * scanner.texture
    skew = np.array([look.skew for look in looks], np.float32)
    rim = np.array([look.rim for look in looks], np.float32)

    code = torch.from_numpy(tissue.astype(np.int64))
    bank = _texture_bank(person, shape, pixel_mm)
    grain = torch.zeros(shape)
    for k in range(weights.shape[1]):
        grain += torch.from_numpy(weights[:, k])[code] * bank[k]
    bent = torch.from_numpy(skew)[code]
    grain = grain + bent * (grain * grain - 1.0)
    image = torch.from_numpy(levels)[code] + torch.from_numpy(amplitude)[code] * grain
    border = ((torch.from_numpy(inner) - 0.72) / 0.2).clamp(0.0, 1.0)
    image = image + torch.from_numpy(rim)[code] * border

    image = _blur(image, scanner.blur_mm / pixel_mm)
    if scanner.pixel_mm > pixel_mm:
        coarse = [max(4, round(n * pixel_mm / scanner.pixel_mm)) for n in shape[1:]]
        small = functional.interpolate(image[:, None], size=coarse, mode="area")
        image = functional.interpolate(small, size=shape[1:], mode="bilinear")[:, 0]
    gain = scanner.gain * float(np.exp(scanner.person_spread * visit.normal()))
    offset = scanner.offset + scanner.person_spread * float(visit.normal())
    if scanner.bias:
        coarse_field = torch.from_numpy(visit.standard_normal((1, 1, 3, 3, 3), dtype=np.float32))
        shading = functional.interpolate(
            coarse_field, size=shape, mode="trilinear", align_corners=True
        )[0, 0]
        image = image * torch.exp(scanner.bias * shading)
    noise = torch.from_numpy(visit.standard_normal(shape, dtype=np.float32))
    return np.asarray((gain * image + offset + scanner.noise * noise).numpy())
