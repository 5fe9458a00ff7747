"""Tasks without labels: superpixels in the place of organs (notebook 10)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot_lib._tensors import require_count, require_floating
from fewshot_lib.training import SegmentationEpisode

SMALLEST = 20  # pixels of a superpixel, as of an organ that a slice is said to show


def superpixels(image: Tensor, scale: float = 150.0, air: float = -0.8) -> Tensor:
    """Part a slice into regions of similar intensity, without any label.

    The graph-based method of Felzenszwalb and Huttenlocher merges neighbours as long as the step
    between two regions is small beside the steps inside them. Regions of air are left out.

    Arguments:
        image: (H, W) floating, normalised as ``reading.models.normalised`` does it.
        scale: > 0; larger gives larger regions.
        air: a region with a mean below this is not numbered.

    Returns:
        (H, W) int64, 0 outside all regions, then 1 … R, each of at least 20 pixels.

    Raises:
        TypeError: not floating point.
        ValueError: not (H, W), or a scale that is not positive.

    Source: Ouyang et al. 2020, §3.2. Notebook 10.

    >>> image = torch.zeros(16, 16)
    >>> image[4:12, 4:12] = 1
    >>> regions = superpixels(image)
    >>> bool(regions[8, 8] == regions[7, 7]), bool(regions[8, 8] == regions[0, 0])
    (True, False)
    """
    from skimage.segmentation import felzenszwalb  # only who trains without labels pays for it

    require_floating("image", image)
    if image.ndim != 2 or not scale > 0:
        raise ValueError(f"expected (H, W) and scale > 0, got {tuple(image.shape)} and {scale}")
    found = felzenszwalb(image.numpy(), scale=scale, sigma=0.8, min_size=SMALLEST)
    regions = torch.as_tensor(found, dtype=torch.int64)
    counts = torch.bincount(regions.flatten())
    sums = torch.bincount(regions.flatten(), image.flatten().double())
    kept = (counts >= SMALLEST) & (sums / counts.clamp_min(1) > air)
    return torch.where(kept, kept.cumsum(0), 0)[regions]


def superpixel_episodes(
    images: Tensor,
    n_way: int = 8,
    n_query: int = 3,
    episodes: int = 4,
    seed: int = 0,
) -> Iterator[SegmentationEpisode]:
    """Draw tasks from unlabelled slices, without end: find a superpixel again in a changed slice.

    The support is a slice with n_way of its superpixels for classes. The queries are the same slice
    turned, moved, scaled and with other intensities, and their masks the same superpixels moved
    along. A slice with fewer superpixels has empty masks for the rest.

    Arguments:
        images: (N, 1, H, W), normalised.
        n_way: superpixels marked, ≥ 1.
        n_query: changed copies, ≥ 1.
        episodes: E, slices per item.
        seed: of all that is drawn.

    Yields:
        ``SegmentationEpisode`` with a leading dimension E, one support slice, K = n_way + 1.

    Raises:
        ValueError, TypeError: images of another shape, numbers below 1.

    Source: Ouyang et al. 2020, §3.2, which marks one superpixel per task. Notebook 10.

    >>> item = next(superpixel_episodes(torch.rand(2, 1, 16, 16), n_way=2, episodes=1))
    >>> item.support_masks.shape, item.query_images.shape
    (torch.Size([1, 1, 3, 16, 16]), torch.Size([1, 3, 1, 16, 16]))
    """
    require_floating("images", images)
    if images.ndim != 4 or images.shape[1] != 1 or len(images) == 0:
        raise ValueError(f"expected images (N, 1, H, W), N ≥ 1, got {tuple(images.shape)}")
    for name, value in {"n_way": n_way, "n_query": n_query, "episodes": episodes}.items():
        require_count(name, value, 1)
    return _drawn(images, n_way, n_query, episodes, torch.Generator().manual_seed(seed))


def _drawn(
    images: Tensor, n_way: int, n_query: int, episodes: int, chance: torch.Generator
) -> Iterator[SegmentationEpisode]:
    while True:
        index = torch.randint(len(images), (episodes,), generator=chance)
        support = images[index]  # (E, 1, H, W)
        masks = torch.stack([_some(superpixels(one[0]), n_way, chance) for one in support])
        both = torch.cat([support, masks], dim=1)  # (E, 1 + K, H, W)
        many = both.repeat_interleave(n_query, dim=0)
        moved, moved_masks = changed(many[:, :1], many[:, 1:], chance)
        yield SegmentationEpisode(
            support[:, None],
            masks[:, None],
            moved.unflatten(0, (episodes, n_query)),
            moved_masks.unflatten(0, (episodes, n_query)),
        )


def _some(regions: Tensor, n_way: int, chance: torch.Generator) -> Tensor:
    """Choose n_way regions: masks (n_way + 1, H, W), all that is not chosen in channel 0."""
    chosen = torch.randperm(int(regions.max()), generator=chance)[:n_way] + 1
    numbers = torch.full((n_way,), -1).index_copy_(0, torch.arange(len(chosen)), chosen)
    masks = regions == numbers[:, None, None]
    return torch.cat([~masks.any(dim=0, keepdim=True), masks]).float()


def changed(images: Tensor, masks: Tensor, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    """Move slices and masks alike, and give the slices other intensities.

    Turned by up to 30°, scaled by 0.8 … 1.25, moved by up to a fifth of the size, by an affine map
    of each slice's own; then x → x^γ on intensities 0 … 1, log γ in −0.5 … 0.5. What comes in from
    outside is air and background.

    Arguments:
        images: (B, 1, H, W), normalised.
        masks: (B, K, H, W) of 0 and 1, channel 0 the background.
        chance: the source of randomness.

    Returns:
        The same shapes; masks again of 0 and 1.

    Source: Ouyang et al. 2020, §3.2, without its elastic part. Notebook 10.

    >>> image, masks = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    >>> changed(image, masks, torch.Generator().manual_seed(0))[1].unique().tolist()
    [1.0]
    """
    draw = 2 * torch.rand(5, len(images), generator=chance) - 1  # −1 … 1
    angle, grow = draw[0] * math.pi / 6, torch.exp(draw[1] * math.log(1.25))
    height, width = images.shape[-2:]
    across, along = torch.cos(angle) / grow, torch.sin(angle) / grow
    tall = height / width
    top = torch.stack([across, -along * tall, 0.4 * draw[2]], dim=1)
    bottom = torch.stack([along / tall, across, 0.4 * draw[3]], dim=1)
    affine = torch.stack([top, bottom], dim=1)  # (B, 2, 3)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    # Shifted so that air, which grid_sample puts outside, is 0.
    raw = F.grid_sample(0.3 * images + 0.3, grid, align_corners=False).clamp_min(0)
    gamma = torch.exp(0.5 * draw[4])[:, None, None, None]
    moved = F.grid_sample(masks, grid, mode="nearest", align_corners=False)
    outside = moved.sum(dim=1, keepdim=True) == 0
    moved = torch.cat([moved[:, :1] + outside, moved[:, 1:]], dim=1)
    return (raw**gamma - 0.3) / 0.3, moved
