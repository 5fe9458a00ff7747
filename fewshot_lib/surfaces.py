"""How far two outlines lie apart, in mm: Hausdorff distance and surface Dice (notebook 07).

One definition for all of it, MONAI's: the *surface* of a mask is its boundary voxels. Those have a
neighbour across a face (4 in a plane, 6 in a volume) outside the mask or outside the image. Each is
taken at its centre and counted once. Other programs differ, so a score without its definition
cannot be compared: DeepMind's ``surface-distance`` puts the surface between voxels and weights its
pieces by area; MedPy takes one percentile of both directions pooled, where MONAI takes the larger
of the two directions' percentiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fewshot_lib._tensors import require_masks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Distances = NDArray[np.float64]


def hausdorff(
    prediction: Tensor,
    target: Tensor,
    spacing: Sequence[float],
    percentile: float = 100.0,
    empty: float = math.nan,
) -> Tensor:
    """Measure the largest surface distance, or a percentile of the distances.

    HD_p(A, B) = max(p-th percentile of d(a, ∂B) over a ∈ ∂A, p-th percentile of d(b, ∂A) over
    b ∈ ∂B), percentiles interpolated linearly, with d(a, ∂B) = min_{b ∈ ∂B} ‖a − b‖ between
    boundary voxels. At 100 one stray voxel decides.

    Arguments:
        prediction: (…, H, W) or (…, Z, H, W) bool, or 0 and 1 in any type.
        target: likewise; leading dimensions broadcast.
        spacing: mm per voxel, (row, column) or (slice, row, column). Its length says whether the
            last two dimensions are a mask or the last three.
        percentile: 0 … 100.
        empty: the value where both masks are empty and there is nothing to measure: NaN, or 0.
            Where only one is empty the distance is infinite (MONAI says NaN for a percentile
            below 100, so a mean that leaves NaN out forgives the miss).

    Returns:
        (…) float64 in mm, or ``empty``; on the inputs' device.

    Raises:
        ValueError: sizes that differ, a spacing of another length or not positive, values other
            than 0 and 1, a percentile out of range.

    Source: Huttenlocher et al. 1993; notebook 07.

    >>> mask = torch.tensor([[1, 1, 0, 0, 0, 1]])
    >>> hausdorff(mask, torch.tensor([[1, 1, 0, 0, 0, 0]]), (1.0, 1.5)).item()
    6.0
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile must lie in 0 … 100, got {percentile}")

    def farthest(first: Distances, second: Distances) -> float:
        if not first.size or not second.size:
            return math.inf
        return float(max(np.percentile(d, percentile) for d in (first, second)))

    return _each(prediction, target, spacing, empty, farthest)


def hausdorff95(
    prediction: Tensor, target: Tensor, spacing: Sequence[float], empty: float = math.nan
) -> Tensor:
    """Measure ``hausdorff`` at the 95th percentile: the farthest 5 % of each outline are forgiven.

    Arguments, returns, raises: as ``hausdorff``.

    Source: notebook 07.

    >>> hausdorff95(torch.eye(3), torch.eye(3), (1.0, 1.0)).item()
    0.0
    """
    return hausdorff(prediction, target, spacing, 95.0, empty)


def surface_dice(
    prediction: Tensor,
    target: Tensor,
    spacing: Sequence[float],
    tolerance_mm: float,
    empty: float = math.nan,
) -> Tensor:
    """Measure the share of both outlines that lies within a tolerance of the other.

    NSD_τ(A, B) = (|{a ∈ ∂A: d(a, ∂B) ≤ τ}| + |{b ∈ ∂B: d(b, ∂A) ≤ τ}|) / (|∂A| + |∂B|)

    Boundary voxels are counted, whatever area they stand for.

    Arguments:
        prediction: (…, H, W) or (…, Z, H, W) bool, or 0 and 1 in any type.
        target: likewise; leading dimensions broadcast.
        spacing: mm per voxel, (row, column) or (slice, row, column).
        tolerance_mm: τ ≥ 0, what the use of the outline forgives. Below half the width of a voxel
            only identical boundary voxels count.
        empty: the value where both masks are empty. Where only one is empty the score is 0.

    Returns:
        (…) float64 in [0, 1], or ``empty``; on the inputs' device.

    Raises:
        ValueError: as ``hausdorff``; a tolerance that is negative or not finite.

    Source: Nikolov et al. 2021, who weight by area; notebook 07.

    >>> row = torch.tensor([[1, 0, 0, 0]])
    >>> surface_dice(row, row.roll(1), (1.0, 1.5), tolerance_mm=1.5).item()
    1.0
    """
    if not 0 <= tolerance_mm < math.inf:
        raise ValueError(f"tolerance_mm must be a length ≥ 0, got {tolerance_mm}")

    limit = tolerance_mm * (1 + 1e-9)  # a distance of exactly τ may be rounded up

    def within(first: Distances, second: Distances) -> float:
        return float(np.mean(np.concatenate([first, second]) <= limit))

    return _each(prediction, target, spacing, empty, within)


def _each(
    prediction: Tensor,
    target: Tensor,
    spacing: Sequence[float],
    empty: float,
    measure: Callable[[Distances, Distances], float],
) -> Tensor:
    """Apply ``measure`` to the distances of each pair of masks that is not empty."""
    lengths = tuple(float(side) for side in spacing)
    if len(lengths) not in (2, 3) or not all(0 < side < math.inf for side in lengths):
        raise ValueError(
            "spacing must be two or three positive lengths in mm, (row, column) or "
            f"(slice, row, column), got {tuple(spacing)}"
        )
    shape = "(…, H, W)" if len(lengths) == 2 else "(…, Z, H, W)"
    require_masks(prediction, target, len(lengths), shape)
    pairs = np.broadcast_arrays(_array(prediction), _array(target))
    leading = pairs[0].shape[: -len(lengths)]
    scores = np.full(leading, empty)
    for place in np.ndindex(leading):
        a, b = pairs[0][place], pairs[1][place]
        if a.any() or b.any():
            scores[place] = measure(*_distances(a, b, lengths))
    return torch.from_numpy(scores).to(prediction.device)


def _distances(
    first: Mask, second: Mask, spacing: tuple[float, ...]
) -> tuple[Distances, Distances]:
    from scipy.ndimage import binary_erosion  # slow to import, as is the tree
    from scipy.spatial import KDTree

    edges = [mask & ~binary_erosion(mask) for mask in (first, second)]
    points = [np.argwhere(edge) * np.asarray(spacing) for edge in edges]  # (n, 2 or 3), in mm
    if not len(points[0]) or not len(points[1]):
        return np.full(len(points[0]), math.inf), np.full(len(points[1]), math.inf)
    return KDTree(points[1]).query(points[0])[0], KDTree(points[0]).query(points[1])[0]


def _array(mask: Tensor) -> Mask:
    array: Mask = mask.detach().bool().cpu().numpy()
    return array
