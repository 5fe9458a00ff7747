"""The heads of notebook 10, each against a slow specification; laws of all: test_networks.py."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_lib.heads import AttentionHead, CrossBlock, CrossHead, LocalHead, ThresholdHead
from fewshot_lib.networks import FewShotSegmentationNet

OPTIONS: dict[str, dict[str, int]] = {
    "local": {"background_grid": 4},
    "threshold": {},
    "attention": {},
    "cross": {"feat_dim": 6, "width": 4, "depth": 2},
}
every_head = pytest.mark.parametrize("kind", OPTIONS)


def encoder() -> nn.Module:
    """Make a small encoder of 6 channels and stride 2."""
    torch.manual_seed(0)
    first = nn.Conv2d(1, 8, 3, padding=1)
    return nn.Sequential(first, nn.Tanh(), nn.Conv2d(8, 6, 2, stride=2))


def network(kind: str) -> FewShotSegmentationNet:
    """Make a network with one of the heads, always with the same weights."""
    made = encoder()
    return FewShotSegmentationNet(prototypes=kind, encoder=made, scale=5.0, **OPTIONS[kind])


def random_episode(episodes: int = 2, shots: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Draw images, masks of background and two organs in blocks, and three queries."""
    chance = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (episodes, shots, 4, 4), generator=chance)
    labels[..., :2, :] = 0
    masks = F.one_hot(labels, 3).movedim(-1, -3).float()
    masks = masks.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)  # (E, S, 3, 16, 16)
    images = masks[:, :, 1:2] + torch.randn(episodes, shots, 1, 16, 16, generator=chance)
    return images, masks, torch.randn(episodes, 3, 1, 16, 16, generator=chance)


@every_head
def test_half_precision_and_autocast_give_no_nan(kind):
    images, masks, queries = random_episode()
    net = network(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not net(images, masks, queries).isnan().any()
    net.encoder.bfloat16()
    logits = net(images.bfloat16(), masks, queries.bfloat16())
    assert logits.dtype == torch.bfloat16
    assert not logits.isnan().any()


@every_head
def test_a_checkpoint_tells_the_heads_apart_by_their_text(kind):
    others = {repr(network(other)) for other in OPTIONS if other != kind}
    other_scale = FewShotSegmentationNet(
        prototypes=kind, encoder=encoder(), scale=6.0, **OPTIONS[kind]
    )
    assert repr(network(kind)) not in others | {repr(other_scale)}


# Against specifications


def features() -> tuple[Tensor, Tensor, Tensor]:
    """Make support features (2, 6, 8, 8), masks (2, 3, 8, 8) and queries (3, 6, 8, 8)."""
    _, masks, _ = random_episode(1)
    chance = torch.Generator().manual_seed(1)
    found, asked = (torch.randn(n, 6, 8, 8, generator=chance) for n in (2, 3))
    return found, masks[0, :, :, ::2, ::2], asked


def test_local_prototypes_match_a_window_by_window_specification():
    known, masks, asked = features()
    head = LocalHead(background_grid=4)
    logits = head.match_features(asked, head.compute_prototypes(known, masks))
    for k in (1, 2):
        parts = [(known * masks[:, k : k + 1]).sum((0, 2, 3)) / masks[:, k].sum()]
        for image, mask in zip(known, masks[:, k], strict=True):
            for top in range(0, 8, 2):
                for left in range(0, 8, 2):
                    window = slice(top, top + 2), slice(left, left + 2)
                    if mask[window].mean() > 0.5:
                        parts.append(image[:, *window].mean(dim=(1, 2)))
        assert len(parts) > 2
        each = torch.stack(
            [20 * F.cosine_similarity(asked, part[:, None, None], dim=1) for part in parts]
        )
        expected = (each.softmax(dim=0) * each).sum(dim=0)
        torch.testing.assert_close(logits[:, k], expected, rtol=1e-4, atol=1e-4)


def test_an_organ_too_small_for_any_window_is_known_by_its_mean():
    known, masks, asked = features()
    masks = torch.zeros_like(masks)
    masks[0, 1, 3, 3] = 1
    masks[:, 0] = 1 - masks[:, 1]
    head = LocalHead(background_grid=2)
    logits = head.match_features(asked, head.compute_prototypes(known, masks))
    expected = 20 * F.cosine_similarity(asked, known[0, :, 3, 3, None, None], dim=1)
    torch.testing.assert_close(logits[:, 1], expected, rtol=1e-4, atol=1e-4)


def test_one_organ_and_a_threshold_are_a_sigmoid():
    known, masks, asked = features()
    masks = torch.stack([1 - masks[:, 1], masks[:, 1]], dim=1)
    head = ThresholdHead(threshold=0.3)
    logits = head.match_features(asked, head.compute_prototypes(known, masks))
    mean = (known * masks[:, 1:]).sum((0, 2, 3)) / masks[:, 1].sum()
    cosine = F.cosine_similarity(asked, mean[:, None, None], dim=1)
    expected = torch.sigmoid(20 * (cosine - 0.3))
    torch.testing.assert_close(logits.softmax(dim=1)[:, 1], expected)
    (slope,) = torch.autograd.grad(logits[:, 0].sum(), head.threshold)
    assert slope.item() == pytest.approx(20 * logits[:, 0].numel())


@pytest.mark.parametrize("votes", ["pixels", "classes"])
def test_attention_matches_a_pixel_by_pixel_specification(votes):
    known, masks, asked = features()
    head = AttentionHead(scale=5.0, votes=votes)
    logits = head.match_features(asked, head.compute_prototypes(known, masks))
    keys = known.movedim(1, -1).reshape(-1, 6)
    for q, row, column in ((0, 0, 0), (1, 3, 5), (2, 7, 7)):
        weight = (5 * F.cosine_similarity(keys, asked[q, :, row, column][None])).exp()
        heard = torch.stack([(weight * masks[:, k].flatten()).sum() for k in range(3)])
        if votes == "classes":
            heard = heard / masks.sum(dim=(0, 2, 3))
        found = logits[q, :, row, column].softmax(dim=0)
        torch.testing.assert_close(found, heard / heard.sum())


def test_attention_without_scale_knows_only_how_common_a_class_is():
    known, masks, asked = features()
    shares = masks.mean(dim=(0, 2, 3))
    for votes, expected in (("pixels", shares), ("classes", torch.full((3,), 1 / 3))):
        head = AttentionHead(scale=0.0, votes=votes)
        logits = head.match_features(asked, head.compute_prototypes(known, masks))
        torch.testing.assert_close(logits.softmax(dim=1)[0, :, 2, 2], expected)


def test_a_cross_block_sees_the_support_only_through_its_mean_position_by_position():
    torch.manual_seed(0)
    block = CrossBlock(3, 4, 5)
    query, support = torch.randn(2, 3, 8, 8), torch.randn(2, 6, 4, 8, 8)
    of_all, supports = block(query, support)
    of_mean, _ = block(query, support.mean(dim=1, keepdim=True))
    torch.testing.assert_close(of_all, of_mean, rtol=1e-4, atol=1e-5)
    alone = [block(query, support[:, i : i + 1])[1][:, 0] for i in range(6)]
    torch.testing.assert_close(supports, torch.stack(alone, dim=1), rtol=1e-4, atol=1e-5)


def test_without_halving_cross_blocks_compare_nothing_far_away():
    torch.manual_seed(0)
    known, masks, asked = features()
    other = known.clone()
    other[:, :, 7, 7] += 10
    for depth, reaches in ((0, False), (2, True)):
        head = CrossHead(feat_dim=6, width=4, depth=depth)
        before, after = (
            head.match_features(asked, head.compute_prototypes(f, masks))[:, 1, 0, 0]
            for f in (known, other)
        )
        assert torch.equal(before, after) != reaches
