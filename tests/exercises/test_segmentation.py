"""What exercise 05 shows on one made-up scene holds on others, too; its stand-ins are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from proof import namespace

from fewshot_lib.checker.notebook import read
from fewshot_lib.checker.values import Fixture, revive

SOLUTION = Path(__file__).resolve().parents[2] / "solutions" / "05_segmentation.ipynb"
SEEDS = range(12)


@pytest.fixture(scope="module")
def names():
    return namespace(read(SOLUTION))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_notes_network_is_the_copied_mask_at_every_shift(names, seed):
    image, mask = names["scene"](seed)
    for n in (2, 9, 16, 24):
        shift = (0, n)
        dice, agreement = names["shift_test"](names["note_network"], image, mask, shift)
        copied, _ = names["shift_test"](names["copied"], image, mask, shift)
        assert abs(dice - copied) <= 0.05
        assert agreement >= 0.98


@pytest.mark.parametrize("seed", SEEDS)
def test_masked_pooling_follows_the_object_wherever_it_goes(names, seed):
    image, mask = names["scene"](seed)
    for shift in ((0, 2), (0, 24), (24, 0), (20, 20)):
        dice, _ = names["shift_test"](names["masked_network"], image, mask, shift)
        assert dice >= 0.75


def test_the_note_is_nearly_perfect_where_nothing_moves(names):
    for seed in SEEDS:
        image, mask = names["scene"](seed)
        found = names["note_network"](image, mask, image)
        assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.9


def test_the_function_to_be_repaired_has_the_three_faults_that_are_told(names):
    found, size = names["predict_as_found"], (6, 6)
    logits = torch.zeros(1, 2, 3, 3)
    assert found(logits, size).shape == (6, 6)
    logits = logits.repeat(2, 1, 1, 1)
    logits[:, 1] = -torch.inf
    assert bool((found(logits, size) == 1).any())
    with pytest.raises((ValueError, RuntimeError, NotImplementedError)):
        found(logits[None], size)


def test_an_unknown_kind_of_segmenter_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match=r"copies, brightness.*got 'magic'"):
        revive(Fixture("segmenter", {"kind": "magic"}))
