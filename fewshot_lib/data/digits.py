"""Handwritten digits, for classification prototypes (notebooks 02, 03, 04, 04b).

1,797 real images of 8×8 pixels come with scikit-learn. Base classes are for training an embedding,
novel classes for testing it; no function here ever swaps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Split = Literal["base", "novel", "five_base", "five_novel"]

_SPLITS: dict[str, tuple[int, ...]] = {
    "base": (0, 1, 2, 3, 4, 5),
    "novel": (6, 7, 8, 9),
    # "03, the surprise" needs 5-way tasks on unseen classes: five to train on, the others to test
    "five_base": (0, 1, 2, 3, 4),
    "five_novel": (5, 6, 7, 8, 9),
}


@dataclass(frozen=True)
class Digits:
    """Images of digits with their labels.

    Arguments:
        images: (N, 1, 8, 8) float32, ink from 0 to 1.
        labels: (N,) int64, the digit itself, 0 … 9.
        classes: the digits that occur, ascending.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, name: Split) -> Digits:
        """Keep the classes of a split.

        Arguments:
            name: "base" (0–5), "novel" (6–9), or "five_base" (0–4), "five_novel" (5–9).

        Returns:
            The images whose digit is in the split, labels unchanged.

        Raises:
            ValueError: no split of this name.

        >>> load().split("novel").classes
        (6, 7, 8, 9)
        """
        if name not in _SPLITS:
            raise ValueError(f"no split {name!r}; there are {', '.join(_SPLITS)}")
        return self.select(_SPLITS[name])

    def select(self, classes: tuple[int, ...]) -> Digits:
        """Keep some digits.

        Arguments:
            classes: distinct digits among those here.

        Returns:
            The images of these digits, in their old order, labels unchanged.

        Raises:
            ValueError: a digit that is not here, or one asked for twice.

        >>> sorted(load().select((3, 8)).labels.unique().tolist())
        [3, 8]
        """
        if not set(classes) <= set(self.classes) or len(set(classes)) != len(classes):
            raise ValueError(f"classes must be distinct and among {self.classes}, got {classes}")
        keep = torch.isin(self.labels, torch.tensor(classes, dtype=torch.int64))
        return Digits(self.images[keep], self.labels[keep], tuple(sorted(classes)))

    def pixels(self) -> Tensor:
        """Flatten the images: (N, 64), the "embedding" that does nothing (raw pixels).

        >>> load().pixels().shape
        torch.Size([1797, 64])
        """
        return self.images.flatten(1)


def load() -> Digits:
    """Load all 1,797 digits.

    The only standardisation is ink / 16, so pixels lie in 0 … 1: one constant for all images, no
    mean or variance of any split is used, hence nothing leaks from novel to base.

    Returns:
        `Digits`: images (1797, 1, 8, 8) float32 in 0 … 1, labels (1797,) int64.

    Source: Alpaydin & Kaynak 1998, UCI "Optical Recognition of Handwritten Digits" (test part), as
    distributed with scikit-learn; notebooks 02, 03, 04, 04b.

    >>> digits = load()
    >>> digits.images.shape, len(digits.classes)
    (torch.Size([1797, 1, 8, 8]), 10)
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16.0
    labels = torch.from_numpy(bunch.target).long()
    return Digits(images, labels, tuple(range(10)))


def rotate_and_mirror(digits: Digits) -> tuple[Tensor, Tensor]:
    """Make each class into eight: four rotations by 90°, each as it is and mirrored.

    Class diversity from few classes: label' = 8·label + 4·mirrored + quarter turns. Rotating 5
    digits without mirroring gives 20 classes, with mirroring 40.

    Arguments:
        digits: N images.

    Returns:
        images (8N, 1, 8, 8) and labels (8N,) int64, the eight variants of an image at n, n+N, ….

    Source: after Snell et al. 2017 (§3.1 rotates Omniglot's characters into new classes);
    notebook 03.

    >>> images, labels = rotate_and_mirror(load().split("five_base"))
    >>> len(labels.unique())
    40
    """
    images, labels = [], []
    for mirrored in range(2):
        for turns in range(4):
            image = digits.images.flip(-1) if mirrored else digits.images
            images.append(torch.rot90(image, turns, (-2, -1)))
            labels.append(8 * digits.labels + 4 * mirrored + turns)
    return torch.cat(images), torch.cat(labels)
