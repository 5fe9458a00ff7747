"""The letters: base and novel share nothing, and a drawing is the letter under the map promised."""

from __future__ import annotations

import unicodedata

import pytest
import torch

from fewshot_lib.data import glyphs


def drawn(letters: str, n: int, seed: int = 0, size: int = glyphs.SIDE) -> torch.Tensor:
    return glyphs.draw(letters, n, torch.Generator().manual_seed(seed), size)[0]


def test_base_and_novel_share_no_letter_and_no_alphabet() -> None:
    base, novel = glyphs.letters()
    assert len(set(base)) == len(base) >= 400
    assert len(set(novel)) == len(novel) == glyphs.NUM_NOVEL
    assert {glyphs.alphabet(c) for c in base} == set(glyphs.BASE_ALPHABETS)
    assert {glyphs.alphabet(c) for c in novel} == set(glyphs.NOVEL_ALPHABETS)
    assert not set(glyphs.BASE_ALPHABETS) & set(glyphs.NOVEL_ALPHABETS)
    assert all(unicodedata.category(c)[0] == "L" for c in base + novel)


def test_of_letters_that_look_alike_one_at_most_is_kept() -> None:
    kept = "".join(glyphs.letters())
    for alike in ("OoΟоОՕ", "PРΡ", "HНΗ"):  # Latin, Greek, Cyrillic, Armenian
        assert sum(letter in kept for letter in alike) <= 1
    assert {"H", "Ψ"} <= set(kept)


def test_drawings_have_the_shape_the_range_and_the_labels_promised() -> None:
    images, labels = glyphs.draw("Ωq", 3, torch.Generator().manual_seed(0), size=16)
    assert images.shape == (6, 1, 16, 16)
    assert images.dtype == torch.float32
    assert images.min() == 0
    assert images.max() == 1
    assert labels.tolist() == [ord("Ω")] * 3 + [ord("q")] * 3
    assert (images.flatten(1).sum(dim=1) > 0).all()


def test_the_same_seed_draws_the_same_and_every_drawing_differs() -> None:
    images = drawn("ab", 5)
    assert torch.equal(images, drawn("ab", 5))
    assert not torch.equal(images, drawn("ab", 5, seed=1))
    assert len({image.numpy().tobytes() for image in images}) == 10


def test_a_letter_fills_its_box_upright_and_moves_as_the_map_says() -> None:
    """The identity puts the longer side of T's box on the picture's; its bar is at the top."""
    still = torch.eye(2)[None], torch.zeros(1, 2)
    [[upright]] = glyphs._render(["T"], *still, 24)
    rows, columns = upright.sum(dim=1), upright.sum(dim=0)
    assert rows[0] > 4 * rows[-1] > 0  # row 0 is the top: the bar there, the stem at the bottom
    torch.testing.assert_close(columns, columns.flip(0), atol=0.1, rtol=0)
    [[lower]] = glyphs._render(["T"], torch.eye(2)[None] / 2, torch.tensor([[0.25, -0.25]]), 24)
    assert lower[:12].sum() == lower[:, :12].sum() == 0  # right by a quarter, down by a quarter
    assert lower.sum().item() == pytest.approx(upright.sum().item() / 4, rel=0.05)


def test_hardly_any_ink_reaches_the_margin_of_the_picture() -> None:
    images = drawn(glyphs.letters()[1], 20)
    margin = [images[..., 0], images[..., -1], images[..., 0, :], images[..., -1, :]]
    assert 0 < sum(side.sum() for side in margin) < 0.005 * images.sum()


def test_what_cannot_be_drawn_is_refused() -> None:
    for wrong in ("", "aa", "a1", "é", "漢"):
        with pytest.raises(ValueError, match="different letters"):
            drawn(wrong, 1)
    with pytest.raises(ValueError, match="got 0 and 24"):
        drawn("a", 0)
    with pytest.raises(ValueError, match="got 1 and 3"):
        drawn("a", 1, size=3)
