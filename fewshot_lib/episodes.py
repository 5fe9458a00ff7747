"""N-way K-shot tasks, and the data they are drawn from (note §2.1, notebook 02)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Volume:
    """One subject: its image slices, its organ labels, and what the numbers mean.

    Arguments:
        images: (Z, C, H, W) float32, intensities as the scanner gave them.
        labels: (Z, H, W) int64, 0 is background; a value indexes ``names``.
        names: the class names; ``names[0]`` is ``"background"``.
        subject: identifies the person; support and query never share it.
        spacing: voxel size in mm, (slice, row, column).
        site: scanner or hospital, "" if there is only one.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    subject: str
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    site: str = ""

    def __post_init__(self) -> None:
        if self.images.ndim != 4:
            raise ValueError(
                f"images must be (Z, C, H, W), got shape {tuple(self.images.shape)}; "
                "add the channel dimension with images[:, None]"
            )
        expected = (self.images.shape[0], *self.images.shape[-2:])
        if tuple(self.labels.shape) != expected:
            raise ValueError(
                f"labels must be (Z, H, W) = {expected} like images, "
                f"got {tuple(self.labels.shape)}"
            )
        if self.labels.dtype != torch.int64:
            raise TypeError(f"labels must be int64 class indices, got {self.labels.dtype}")
        if not self.names or self.names[0] != "background":
            raise ValueError(f'names[0] must be "background", got {self.names[:1]}')
        if self.labels.numel() and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(
            self.names
        ):
            raise ValueError(
                f"labels must lie in 0 … {len(self.names) - 1} (one per name), got "
                f"{int(self.labels.min())} … {int(self.labels.max())}"
            )

    def mask(self, name: str) -> Tensor:
        """Return where the organ ``name`` is: (Z, H, W) bool."""
        if name not in self.names:
            raise ValueError(f"no class {name!r} here; there are {', '.join(self.names)}")
        return self.labels == self.names.index(name)
