"""Change the in-plane grid of images and labels without losing an organ."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from fewshot_lib.episodes import Volume


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = size if isinstance(size, tuple | list) else (size, size)
    if height < 1 or width < 1:
        raise ValueError(f"size must be at least 1 pixel each way, got {(height, width)}")
    return height, width


def resize_images(images: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Resample images to `size`, bilinear, averaging where the grid gets coarser.

    Arguments:
        images: (Z, C, H, W) float.
        size: new H = W, or (H, W).

    Returns:
        (Z, C, size, size), same dtype.

    Raises:
        ValueError: images are not (Z, C, H, W), or the size is not positive.

    Source: this course (data); notebooks 05, 08.

    >>> resize_images(torch.ones(2, 1, 10, 8), 4).shape
    torch.Size([2, 1, 4, 4])
    """
    if images.ndim != 4:
        raise ValueError(f"images must be (Z, C, H, W), got shape {tuple(images.shape)}")
    return functional.interpolate(
        images, size=_pair(size), mode="bilinear", align_corners=False, antialias=True
    )


def resize_labels(labels: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Resample labels to `size`: each pixel gets the class that covers most of it.

    A class that would vanish from a slice keeps the pixel it covers most, so no organ is lost
    (unless all it touches are other organs' last pixels).

    Arguments:
        labels: (Z, H, W) int64.
        size: new H = W, or (H, W).

    Returns:
        (Z, size, size) int64; every class of a slice is still there.

    Raises:
        ValueError: labels are not (Z, H, W), or the size is not positive.

    Source: this course (data), after facts on mask shrinking; notebooks 05, 08.

    >>> labels = torch.zeros(1, 8, 8, dtype=torch.int64); labels[0, 3, 3] = 2
    >>> sorted(resize_labels(labels, 2).unique().tolist())
    [0, 2]
    """
    if labels.ndim != 3:
        raise ValueError(f"labels must be (Z, H, W), got shape {tuple(labels.shape)}")
    height, width = _pair(size)
    if tuple(labels.shape[1:]) == (height, width):
        return labels.clone()
    shape = (labels.shape[0], height, width)
    best = torch.zeros(shape)
    result = torch.zeros(shape, dtype=torch.int64)
    for k in labels.unique().tolist():  # one class at a time: a one-hot volume would not fit
        cover = _cover(labels, k, (height, width))
        result[cover > best] = k
        best = torch.maximum(best, cover)
    numbers, counts = labels.unique(return_counts=True)
    for k in numbers[counts.argsort()].tolist():  # the smallest has the least choice
        lost = (labels == k).flatten(1).any(1) & ~(result == k).flatten(1).any(1)
        for z in torch.nonzero(lost)[:, 0].tolist() if k else ():
            cells = result[z].view(-1)
            cover = _cover(labels[z : z + 1], k, (height, width)).view(-1)
            shared = (cells == 0) | (cells.bincount()[cells] > 1)  # never another's last pixel
            if (cover * shared).any():
                cells[int((cover * shared).argmax())] = k
    return result


def _cover(labels: Tensor, k: int, size: tuple[int, int]) -> Tensor:
    """Return the share of each new pixel that class k covers: (Z, H', W')."""
    mask = (labels == k)[:, None].float()
    return functional.interpolate(mask, size=size, mode="area")[:, 0]


def crop_square(
    volume: Volume, field_of_view_mm: float, centre: tuple[float, float], fill: float
) -> Volume:
    """Cut (or pad) a volume's slices to a square of `field_of_view_mm` around `centre`.

    Arguments:
        volume: any; its in-plane spacing must be square to 1 %.
        field_of_view_mm: side of the square, mm.
        centre: (row, column) in pixels.
        fill: intensity of the padding (air).

    Returns:
        The volume with H = W = field_of_view_mm / spacing, rounded.

    Raises:
        ValueError: pixels are not square, or the field of view is not positive.

    Source: this course (data); notebook 08.

    >>> from fewshot_lib.data.anatomy import make_volumes
    >>> volume = make_volumes(1, n_slices=1, size=32)[0]
    >>> crop_square(volume, 10 * volume.spacing[1], (16.0, 16.0), 0.0).labels.shape
    torch.Size([1, 10, 10])
    """
    _, row_mm, column_mm = volume.spacing
    if abs(row_mm - column_mm) > 0.01 * row_mm:
        raise ValueError(f"pixels must be square, got {row_mm} × {column_mm} mm")
    side = round(field_of_view_mm / row_mm)
    if side < 1:
        raise ValueError(f"field_of_view_mm must be positive, got {field_of_view_mm}")
    top, left = (round(c - side / 2) for c in centre)
    height, width = volume.labels.shape[1:]
    rows = slice(max(top, 0), min(top + side, height))
    columns = slice(max(left, 0), min(left + side, width))
    images = volume.images.new_full((*volume.images.shape[:2], side, side), fill)
    labels = volume.labels.new_zeros((volume.labels.shape[0], side, side))
    if rows.start < rows.stop and columns.start < columns.stop:
        to_rows = slice(rows.start - top, rows.stop - top)
        to_columns = slice(columns.start - left, columns.stop - left)
        images[..., to_rows, to_columns] = volume.images[..., rows, columns]
        labels[:, to_rows, to_columns] = volume.labels[:, rows, columns]
    return replace(volume, images=images, labels=labels)


def resize_volume(volume: Volume, size: int | tuple[int, int]) -> Volume:
    """Resample a volume's slices to `size`: images bilinear, labels by majority.

    Arguments:
        volume: any.
        size: new H = W, or (H, W).

    Returns:
        The volume on the new grid, with its new spacing.

    Source: this course (data); notebooks 05, 08.

    >>> from fewshot_lib.data.anatomy import make_volumes
    >>> resize_volume(make_volumes(1, n_slices=1, size=64)[0], 32).images.shape
    torch.Size([1, 1, 32, 32])
    """
    height, width = volume.labels.shape[1:]
    new_height, new_width = _pair(size)
    slice_mm, row_mm, column_mm = volume.spacing
    return replace(
        volume,
        images=resize_images(volume.images, size),
        labels=resize_labels(volume.labels, size),
        spacing=(slice_mm, row_mm * height / new_height, column_mm * width / new_width),
    )


def pad_square(volume: Volume) -> Volume:
    """Pad slices to squares with the volume's darkest intensity; nothing is cut off.

    Arguments:
        volume: any; its in-plane spacing must be square to 1 %.

    Returns:
        The volume with H = W = max(H, W), the picture in the middle.

    Raises:
        ValueError: pixels are not square.

    Source: this course (data); notebook 08.

    >>> from fewshot_lib.data.anatomy import make_volumes
    >>> pad_square(make_volumes(1, n_slices=1, size=(24, 32))[0]).labels.shape
    torch.Size([1, 32, 32])
    """
    height, width = volume.labels.shape[1:]
    side = max(height, width) * volume.spacing[1]
    return crop_square(volume, side, (height / 2, width / 2), float(volume.images.min()))
