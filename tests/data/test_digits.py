"""The digits: what is in them, and that base and novel are never swapped."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits

from fewshot_lib.data import digits


def test_all_digits_are_scikit_learns_own_divided_by_sixteen() -> None:
    loaded, bunch = digits.load(), load_digits()
    assert loaded.images.shape == (1797, 1, 8, 8)
    assert loaded.images.dtype == torch.float32
    assert loaded.labels.dtype == torch.int64
    assert torch.equal(loaded.images[:, 0] * 16, torch.from_numpy(bunch.images).float())
    assert torch.equal(loaded.labels, torch.from_numpy(bunch.target).long())
    assert 0 == loaded.images.min() < loaded.images.max() == 1


def test_base_is_0_to_5_and_novel_6_to_9_and_the_five_way_split_is_5_and_5() -> None:
    loaded = digits.load()
    expected = {
        "base": (0, 1, 2, 3, 4, 5),
        "novel": (6, 7, 8, 9),
        "five_base": (0, 1, 2, 3, 4),
        "five_novel": (5, 6, 7, 8, 9),
    }
    for name, classes in expected.items():
        part = loaded.split(name)  # type: ignore[arg-type]
        assert part.classes == classes
        assert tuple(part.labels.unique().tolist()) == classes
    for one, other in (("base", "novel"), ("five_base", "five_novel")):
        parts = [loaded.split(name) for name in (one, other)]  # type: ignore[arg-type]
        assert sum(map(len, parts)) == len(loaded)
        assert not set(parts[0].classes) & set(parts[1].classes)


def test_selecting_keeps_images_with_their_labels() -> None:
    loaded = digits.load()
    part = loaded.select((8, 3))
    assert torch.equal(part.images, loaded.images[(loaded.labels == 8) | (loaded.labels == 3)])
    assert part.classes == (3, 8)


def test_unknown_splits_and_classes_are_refused() -> None:
    loaded = digits.load()
    with pytest.raises(ValueError, match="no split 'test'"):
        loaded.split("test")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="distinct and among"):
        loaded.select((3, 3))
    with pytest.raises(ValueError, match="distinct and among"):
        loaded.split("base").select((9,))


def test_rotating_and_mirroring_makes_eight_classes_of_one_without_mixing_them() -> None:
    loaded = digits.load().split("five_base")
    images, labels = digits.rotate_and_mirror(loaded)
    n = len(loaded)
    assert len(images) == len(labels) == 8 * n
    assert len(labels.unique()) == 40
    assert torch.equal(labels // 8, loaded.labels.repeat(8))
    assert torch.equal(images[:n], loaded.images)
    # a quarter turn, by hand: new (r, c) = old (c, 7 − r)
    assert torch.equal(images[n, 0, 2, 5], loaded.images[0, 0, 5, 5])
    assert torch.equal(images[4 * n, 0], loaded.images[0, 0].flip(-1))
    every_variant = images.reshape(8, n, 64)
    assert all(
        not torch.equal(every_variant[i], every_variant[j]) for i in range(8) for j in range(i)
    )
