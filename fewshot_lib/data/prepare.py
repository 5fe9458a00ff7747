"""Make scans comparable: intensities to 0 … 1, the body's outline and places within it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fewshot_lib.episodes import Volume

ABDOMEN = (40.0, 400.0)  # the radiologist's soft-tissue window: centre and width, HU


def window(images: Tensor, centre: float = ABDOMEN[0], width: float = ABDOMEN[1]) -> Tensor:
    """Map Hounsfield units to 0 … 1 by a window, as a CT workstation does.

    x ↦ clip((x − (centre − width/2)) / width, 0, 1)

    Arguments:
        images: any shape, HU.
        centre, width: HU; the default is the abdominal soft-tissue window, −160 … 240.

    Returns:
        Same shape, in [0, 1].

    Raises:
        ValueError: width is not positive.

    Source: radiological practice; notebooks 01, 08.

    >>> window(torch.tensor([-1000.0, 40.0, 900.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    if width <= 0:
        raise ValueError(f"width must be positive, got {width}")
    return ((images - (centre - width / 2)) / width).clamp(0.0, 1.0)


def rescale_percentiles(images: Tensor, low: float = 1.0, high: float = 99.0) -> Tensor:
    """Map the volume's own `low` … `high` percentiles to 0 … 1 (MR has no absolute unit).

    Arguments:
        images: any shape; percentiles are taken over all of it.
        low, high: percentiles, 0 ≤ low < high ≤ 100.

    Returns:
        Same shape, in [0, 1].

    Raises:
        ValueError: percentiles out of order, or the image is constant.

    Source: common MR practice; notebook 08.

    >>> rescale_percentiles(torch.arange(101.0), 0, 100)[50].item()
    0.5
    """
    if not 0 <= low < high <= 100:
        raise ValueError(f"need 0 ≤ low < high ≤ 100, got {low} and {high}")
    bottom, top = np.percentile(images.numpy(), [low, high])
    if top <= bottom:
        raise ValueError("the image is constant between its percentiles; it cannot be rescaled")
    return ((images - float(bottom)) / float(top - bottom)).clamp(0.0, 1.0)


def modality(volume: Volume) -> str:
    """Tell CT from everything else by its air: only Hounsfield units go below −500.

    >>> from fewshot_lib.data.anatomy import make_volumes
    >>> modality(make_volumes(1, n_slices=1, size=32)[0])
    'other'
    """
    return "CT" if float(volume.images.min()) < -500 else "other"


def scale_intensities(volume: Volume) -> Volume:
    """Map a volume to 0 … 1: CT by the abdominal window, anything else by its percentiles.

    Arguments:
        volume: any; `modality` decides.

    Returns:
        The volume with images in [0, 1].

    Source: notebooks 01, 08.

    >>> from fewshot_lib.data.anatomy import make_volumes
    >>> float(scale_intensities(make_volumes(1, n_slices=1, size=32)[0]).images.max())
    1.0
    """
    scale = window if modality(volume) == "CT" else rescale_percentiles
    return replace(volume, images=scale(volume.images))


def body_mask(volume: Volume) -> Tensor:
    """Find the trunk: the largest connected bright region, without table, arms and air.

    Arguments:
        volume: CT in HU, or any volume whose air is dark.

    Returns:
        (Z, H, W) bool, holes filled.

    Source: this course (data); notebook 08.

    >>> from fewshot_lib.data.anatomy import make_volumes
    >>> volume = make_volumes(1, n_slices=2, size=64)[0]
    >>> bool((body_mask(volume) | (volume.labels == 0)).float().mean() > 0.95)
    True
    """
    from scipy import ndimage
    from skimage.morphology import disk

    step = max(1, round(3.0 / min(volume.spacing[1:])))  # 3 mm are fine enough for an outline
    images = volume.images[:, 0].numpy()
    is_ct = modality(volume) == "CT"
    bright = images > (-300 if is_ct else 0.1 * np.percentile(images, 99))
    height, width = bright.shape[1:]
    padded = np.pad(bright, ((0, 0), (0, -height % step), (0, -width % step)), mode="edge")
    depth, rows, columns = padded.shape
    blocks = padded.reshape(depth, rows // step, step, columns // step, step)
    solid = np.all(blocks, axis=(2, 4))  # a thin gap between arm and trunk stays a gap
    radius = round(8.0 / (step * min(volume.spacing[1:])))  # more than a table's plate or a sleeve
    in_plane = ndimage.generate_binary_structure(2, 1)[None]  # holes are filled slice by slice
    filled = ndimage.binary_fill_holes(solid, in_plane)
    opened = ndimage.binary_opening(filled, disk(max(1, radius))[None])
    regions, n = ndimage.label(opened)
    if n:
        largest = 1 + int(np.argmax(np.bincount(regions.ravel())[1:]))
        opened = ndimage.binary_fill_holes(regions == largest, in_plane)
    whole = opened.repeat(step, 1).repeat(step, 2)[:, :height, :width]
    return torch.from_numpy(np.ascontiguousarray(whole))


def body_coordinates(mask: Tensor) -> Tensor:
    """Give each pixel its place in the body's bounding box, −1 … 1 from edge to edge.

    Arguments:
        mask: (Z, H, W) bool, the body, as from `body_mask`; one box is taken over all slices.

    Returns:
        (Z, 2, H, W) float32, (row, column); beyond ±1 outside the box.

    Raises:
        ValueError: the mask is empty.

    Source: location prior of notebook 08.

    >>> mask = torch.zeros(1, 4, 8, dtype=torch.bool); mask[:, :, 2:6] = True
    >>> body_coordinates(mask)[0, 1, 0].tolist()
    [-1.75, -1.25, -0.75, -0.25, 0.25, 0.75, 1.25, 1.75]
    """
    if not mask.any():
        raise ValueError("the body mask is empty")
    inside = mask.any(0)
    axes = []
    for axis, size in ((1, mask.shape[1]), (0, mask.shape[2])):
        where = torch.nonzero(inside.any(axis))[:, 0]
        start, stop = float(where[0]), float(where[-1]) + 1
        axes.append((2 * (torch.arange(size) + 0.5) - start - stop) / (stop - start))
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([rows, columns]).expand(len(mask), 2, *mask.shape[1:]).contiguous()
