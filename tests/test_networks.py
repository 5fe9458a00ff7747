"""The encoder, the note's network to the letter, what it copies, and the networks that do not."""

from __future__ import annotations

import ast
import math
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fewshot_lib.networks import FewShotSegmentationNet, PixelClassifier, UNetEncoder

KINDS = ("position", "masked", "grid", "exemplars")
OTHER_KINDS = [kind for kind in KINDS if kind != "position"]
LATER = ("local", "threshold", "attention", "cross")  # more of these: test_heads.py


class NoteNet(nn.Module):
    """The note's §3.1, transcribed: an independent specification, with any encoder."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, support_images, support_masks, query_image):
        support_features = self.encoder(support_images)
        query_features = self.encoder(query_image.unsqueeze(0))
        prototypes = self.compute_prototypes(support_features, support_masks)
        similarity = self.match_features(query_features, prototypes)
        query_mask = F.interpolate(
            similarity.unsqueeze(0),
            size=query_image.shape[1:],
            mode="bilinear",
            align_corners=False,
        )
        return query_mask.squeeze(0)

    def compute_prototypes(self, features, masks):
        H, W = features.shape[-2:]
        K = masks.shape[1]
        masks_down = F.interpolate(masks.float(), size=(H, W), mode="nearest")
        prototypes = []
        for k in range(K):
            mask_k = masks_down[:, k : k + 1, :, :]
            masked_features = features * mask_k
            prototype_k = masked_features.sum(dim=0) / (mask_k.sum(dim=0) + 1e-5)
            prototypes.append(prototype_k)
        return torch.stack(prototypes, dim=0)

    def match_features(self, query_features, prototypes):
        query_norm = F.normalize(query_features, dim=1)
        proto_norm = F.normalize(prototypes, dim=1)
        similarity = (query_norm * proto_norm).sum(dim=1)
        return similarity


def convolutions(channels: int = 1, feat_dim: int = 6, stride: int = 4) -> nn.Module:
    """Make a small encoder that has nothing of ``UNetEncoder``."""
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(8, feat_dim, stride, stride=stride),
    )


def masks_of(labels: Tensor, n_classes: int) -> Tensor:
    """Turn labels (…, H, W) into masks (…, K, H, W)."""
    return F.one_hot(labels, n_classes).movedim(-1, -3).float()


def random_episode(
    shots=2, n_classes=3, queries=2, size=(24, 32), seed=0, channels=1, episodes=None
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw an episode of blocky organs and noise."""
    generator = torch.Generator().manual_seed(seed)
    leading = () if episodes is None else (episodes,)
    images = torch.randn(*leading, shots, channels, *size, generator=generator)
    coarse = torch.randint(0, n_classes, (*leading, shots, 4, 4), generator=generator)
    labels = coarse.repeat_interleave(size[0] // 4, -2).repeat_interleave(size[1] // 4, -1)
    query = torch.randn(*leading, queries, channels, *size, generator=generator)
    return images, masks_of(labels, n_classes), query


def square(top: int, left: int, side: int = 24, size: int = 96) -> Tensor:
    """Draw a mask (H, W) with one square."""
    mask = torch.zeros(size, size)
    mask[top : top + side, left : left + side] = 1
    return mask


def dice(first: Tensor, second: Tensor) -> float:
    """Dice by its definition."""
    return (2 * (first & second).sum() / (first.sum() + second.sum())).item()


# The encoder


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("size", [(64, 64), (48, 80), (33, 50), (1, 1), (7, 64)])
def test_the_feature_map_has_one_cell_a_stride_of_the_next_multiple(stride, size):
    encoder = UNetEncoder(2, 5, width=4, depth=3, stride=stride)
    features = encoder(torch.randn(2, 2, *size))
    padded = [math.ceil(side / 8) * 8 for side in size]
    assert features.shape == (2, 5, padded[0] // stride, padded[1] // stride)
    assert features.isfinite().all()


def test_an_image_has_the_same_features_alone_and_in_any_batch():
    encoder = UNetEncoder(1, 6, width=4)
    images = torch.randn(5, 1, 32, 32)
    images[1:] *= 50.0
    alone = encoder(images[:1])
    torch.testing.assert_close(encoder(images)[:1], alone, rtol=1e-4, atol=1e-5)
    encoder.eval()
    torch.testing.assert_close(encoder(images[:1]), alone)


def test_the_way_up_joins_the_way_down_at_every_level():
    encoder = UNetEncoder(1, 3, width=4, depth=3, stride=1)
    silent = [layer.register_forward_hook(lambda *io: io[2] * 0) for layer in encoder.upsampling]
    first, second = encoder(torch.randn(1, 1, 32, 32)), encoder(torch.randn(1, 1, 32, 32))
    assert not torch.allclose(first, second)  # with the way up silenced only skips carry the image
    for hook in silent:
        hook.remove()
    before = encoder(torch.ones(1, 1, 32, 32) + torch.eye(32))
    with torch.no_grad():
        encoder.contracting[3][3].weight.mul_(-1)  # the deepest level reaches the output
    assert not torch.allclose(before, encoder(torch.ones(1, 1, 32, 32) + torch.eye(32)))


def test_nonnegative_features_have_no_negative_entry_and_signed_ones_do():
    images = torch.randn(2, 1, 32, 32)
    torch.manual_seed(0)
    assert UNetEncoder(1, 16, width=4, nonnegative=True)(images).min() == 0
    assert UNetEncoder(1, 16, width=4)(images).min() < 0


def test_features_stay_where_their_image_is_when_the_size_is_no_multiple():
    encoder = UNetEncoder(1, 1, width=4, depth=2, stride=1)
    generator = torch.Generator().manual_seed(3)
    for parameter in encoder.parameters():
        with torch.no_grad():
            parameter.copy_(torch.rand(parameter.shape, generator=generator))
    image = torch.zeros(1, 1, 50, 62)
    image[..., 40:46, 12:18] = 1.0
    features = (encoder(image) - encoder(image * 0)).abs()[0, 0]
    row, column = divmod(int(features.argmax()), features.shape[1])
    assert abs((row + 0.5) / features.shape[0] - 43 / 50) < 0.06
    assert abs((column + 0.5) / features.shape[1] - 15 / 62) < 0.06


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"feat_dim": 0}, "feat_dim must be at least 1, got 0"),
        ({"width": 0}, "width must be at least 1"),
        ({"stride": 3}, "stride must be one of"),
        ({"stride": 16, "depth": 4}, "below 2"),
    ],
)
def test_the_encoder_refuses_settings_that_make_no_u_net(options, said):
    with pytest.raises(ValueError, match=said):
        UNetEncoder(**options)


@pytest.mark.parametrize("shape", [(1, 32, 32), (2, 3, 32, 32), (1, 1, 0, 32), (1, 1, 1, 32, 32)])
def test_the_encoder_says_which_images_it_takes(shape):
    with pytest.raises(ValueError, match=r"expected images \(B, 1, H, W\), got shape"):
        UNetEncoder(1, 4, width=4)(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_encoder_works_in_every_floating_type(dtype):
    encoder = UNetEncoder(1, 6, width=4).to(dtype)
    features = encoder(torch.randn(1, 1, 32, 32).to(dtype))
    assert features.dtype == dtype
    assert features.isfinite().all()


def test_a_pixel_classifier_gives_one_logit_a_class_and_pixel():
    model = PixelClassifier(UNetEncoder(1, 6, width=4), 6, 3)
    assert model(torch.zeros(2, 1, 50, 33)).shape == (2, 3, 50, 33)
    with pytest.raises(ValueError, match="n_classes"):
        PixelClassifier(nn.Identity(), 1, 0)


# The note's network, to the letter


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (32, 32)])
@pytest.mark.parametrize(("shots", "n_classes"), [(1, 2), (3, 4), (5, 1), (2, 6)])
@pytest.mark.parametrize("encoder", [convolutions(), UNetEncoder(1, 7, width=4, nonnegative=True)])
def test_the_position_network_is_the_note_s_to_the_letter(size, shots, n_classes, encoder):
    images, masks, queries = random_episode(shots, n_classes, 2, size, seed=shots)
    masks[:, n_classes // 2] = 0  # a class that the support does not show, or positions without any
    ours = FewShotSegmentationNet(prototypes="position", scale=1.0, encoder=encoder)
    note = NoteNet(encoder)
    with torch.no_grad():
        for query in queries:
            difference = ours(images, masks, query) - note(images, masks, query)
            assert difference.abs().max() <= 1e-6
            assert ours(images, masks, query).shape == (n_classes, *size)


def test_the_note_s_methods_keep_their_call_forms():
    encoder = convolutions()
    images, masks, queries = random_episode()
    ours = FewShotSegmentationNet(prototypes="position", scale=1.0, encoder=encoder)
    note = NoteNet(encoder)
    with torch.no_grad():
        features, query = encoder(images), encoder(queries[:1])
        prototypes = ours.compute_prototypes(features, masks)
        assert (prototypes - note.compute_prototypes(features, masks)).abs().max() <= 1e-6
        matched = ours.match_features(query, prototypes)
        assert matched.shape == note.match_features(query, prototypes).shape == (3, 6, 8)
        assert (matched - note.match_features(query, prototypes)).abs().max() <= 1e-6


def test_the_position_network_learns_as_the_note_s_does():
    encoder = convolutions().double()
    images, masks, queries = (tensor.double() for tensor in random_episode(queries=1))
    gradients = [
        torch.autograd.grad(net(images, masks, queries[0]).square().sum(), encoder.parameters())
        for net in (
            FewShotSegmentationNet(prototypes="position", scale=1.0, encoder=encoder),
            NoteNet(encoder),
        )
    ]
    for ours, note in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, note, rtol=1e-6, atol=1e-9)


def test_many_queries_and_episodes_give_the_note_s_answer_for_each():
    encoder = convolutions()
    images, masks, queries = random_episode(episodes=3, queries=4)
    ours = FewShotSegmentationNet(prototypes="position", scale=1.0, encoder=encoder)
    with torch.no_grad():
        together = ours(images, masks, queries)
        assert together.shape == (3, 4, 3, 24, 32)
        for episode in range(3):
            for query in range(4):
                alone = NoteNet(encoder)(images[episode], masks[episode], queries[episode, query])
                assert (together[episode, query] - alone).abs().max() <= 1e-6


def test_in_half_precision_the_note_s_code_gives_nan_and_position_does_not():
    images, masks, queries = (tensor.half() for tensor in random_episode(queries=1))
    masks[:, 1] = 0
    queries[..., :8] = 0  # no feature at all, as a ReLU may leave; the ε of normalize underflows
    encoder = nn.AvgPool2d(4)
    assert NoteNet(encoder)(images, masks, queries[0]).isnan().any()
    net = FewShotSegmentationNet(prototypes="position", scale=1.0, encoder=encoder)
    assert net(images, masks, queries[0]).isfinite().all()


# What the note's network does: it copies


@pytest.mark.parametrize("seed", range(3))
def test_the_note_s_network_does_not_notice_a_moved_object(seed):
    torch.manual_seed(seed)
    before, after = square(36, 20), square(36, 44)  # moved by 24 pixels
    support, query = (0.1 * torch.randn(96, 96) + mask for mask in (before, after))
    masks = torch.stack([1 - before, before])
    net = FewShotSegmentationNet(
        prototypes="position", scale=1.0, encoder=UNetEncoder(1, 32, width=8, nonnegative=True)
    )
    with torch.no_grad():
        predicted = net(support[None, None], masks[None], query[None]).argmax(0) == 1
        unmoved = net(support[None, None], masks[None], support[None]).argmax(0) == 1
    assert dice(predicted, after.bool()) < 0.02
    assert (predicted == before.bool()).float().mean() >= 0.99
    assert dice(unmoved, before.bool()) > 0.95  # the naive unit test passes


def test_prototypes_off_their_place_follow_the_object_that_the_note_s_network_loses():
    generator = torch.Generator().manual_seed(0)
    before, after = square(36, 20), square(36, 44)
    support, query = (
        (mask + 0.1 * torch.randn(96, 96, generator=generator)).relu() for mask in (before, after)
    )
    masks = torch.stack([1 - before, before])
    found = {}
    for kind, similarity in [
        ("position", "cosine"),
        *((kind, "squared_euclidean") for kind in OTHER_KINDS),
    ]:
        options = {"grid": 1} if kind == "grid" else {}
        net = FewShotSegmentationNet(
            prototypes=kind, similarity=similarity, encoder=nn.AvgPool2d(2), **options
        )
        predicted = net(support[None, None], masks[None], query[None]).argmax(0) == 1
        found[kind] = dice(predicted, after.bool())
    assert found["position"] < 0.02
    assert min(found[kind] for kind in OTHER_KINDS) > 0.95


@given(st.integers(0, 2**31), st.integers(2, 5), st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_position_logit_is_the_cosine_where_the_support_shows_the_class_and_zero_elsewhere(
    seed, n_classes, nonnegative
):
    generator = torch.Generator().manual_seed(seed)
    known, asked = (
        torch.randn(1, 6, 5, 7, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    if nonnegative:
        known, asked = known.abs(), asked.abs()
    labels = torch.randint(0, n_classes, (5, 7), generator=generator)
    net = FewShotSegmentationNet(prototypes="position", scale=1.0, encoder=nn.Identity())
    logits = net.match_features(
        asked, net.compute_prototypes(known, masks_of(labels, n_classes)[None])
    )
    cosine = F.cosine_similarity(asked[0], known[0], dim=0)
    expected = cosine * masks_of(labels, n_classes)  # cos(q(p), f(p)) · [k = y(p)]
    torch.testing.assert_close(logits, expected.to(logits.dtype), rtol=1e-6, atol=1e-9)
    predicted = logits.argmax(0)
    if nonnegative:
        assert (predicted == labels).all()  # whatever the query shows
    # The tie at zero: where the cosine is negative, the lowest index that is not y wins.
    tied = torch.where(labels == 0, 1, 0)
    assert (predicted == torch.where(cosine > 0, labels, tied)).all()


# The other networks, against slow specifications


def masked_specification(features: Tensor, masks: Tensor, queries: Tensor) -> Tensor:
    """Masked pooling and cosine at α = 20, pixel by pixel: (Q, K, H', W')."""
    upsampled = F.interpolate(features, masks.shape[-2:], mode="bilinear", align_corners=False)
    result = torch.empty(len(queries), masks.shape[1], *queries.shape[-2:])
    for k in range(masks.shape[1]):
        inside = [
            upsampled[s, :, i, j]
            for s in range(len(masks))
            for i in range(masks.shape[-2])
            for j in range(masks.shape[-1])
            if masks[s, k, i, j]
        ]
        prototype = torch.stack(inside).mean(0)
        for q in range(len(queries)):
            for i in range(queries.shape[-2]):
                for j in range(queries.shape[-1]):
                    vector = queries[q, :, i, j]
                    cosine = vector @ prototype / (vector.norm() * prototype.norm())
                    result[q, k, i, j] = 20 * cosine
    return result


def exemplar_specification(features: Tensor, masks: Tensor, queries: Tensor, top_k: int) -> Tensor:
    """Mean of the top-k cosines at α = 20 with every masked cell: (Q, K, H', W')."""
    size = features.shape[-2:]
    share = F.adaptive_avg_pool2d(masks, size)
    result = torch.empty(len(queries), masks.shape[1], *size)
    for k in range(masks.shape[1]):
        enough = min(0.5, share[:, k].max().item())
        cells = [tuple(cell) for cell in (share[:, k] >= enough).nonzero().tolist()]
        for q in range(len(queries)):
            for i in range(size[0]):
                for j in range(size[1]):
                    vector = queries[q, :, i, j]
                    scores = [
                        20 * F.cosine_similarity(vector, features[s, :, y, x], dim=0).item()
                        for s, y, x in cells
                    ]
                    best = sorted(scores, reverse=True)[:top_k]
                    result[q, k, i, j] = sum(best) / len(best)
    return result


def features_of(episode: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Encode an episode: features, masks, query features."""
    encoder = convolutions(stride=4)
    with torch.no_grad():
        return encoder(episode[0]), episode[1], encoder(episode[2])


def test_masked_prototypes_match_a_pixel_by_pixel_specification():
    features, masks, queries = features_of(random_episode(size=(12, 16)))
    net = FewShotSegmentationNet(encoder=nn.Identity())
    logits = net.match_features(queries, net.compute_prototypes(features, masks))
    torch.testing.assert_close(
        logits, masked_specification(features, masks, queries), rtol=1e-4, atol=1e-4
    )


def test_a_grid_of_one_window_is_the_masked_prototype():
    images, masks, queries = random_episode()
    encoder = convolutions()
    for kind in ("cosine", "squared_euclidean"):
        masked = FewShotSegmentationNet(similarity=kind, encoder=encoder)
        grid = FewShotSegmentationNet(prototypes="grid", similarity=kind, grid=1, encoder=encoder)
        torch.testing.assert_close(
            grid(images, masks, queries), masked(images, masks, queries), rtol=1e-4, atol=1e-4
        )


def test_a_grid_as_fine_as_the_features_copies_the_support_like_the_note_s_network():
    images, masks, queries = random_episode(shots=1, size=(32, 32))
    net = FewShotSegmentationNet(prototypes="grid", grid=8, encoder=convolutions())
    predicted = net(images, masks, queries).argmax(-3)
    assert (predicted == masks[0].argmax(0)).all()


def test_a_grid_between_predicts_only_what_the_window_shows_and_ties_where_it_shows_nothing():
    features = torch.rand(1, 3, 4, 4) + 0.1
    masks = torch.zeros(1, 3, 8, 8)
    masks[0, 0, :4, :4] = 1  # class 0 in the first window, class 1 in the second, none below
    masks[0, 1, :4, 4:] = 1
    net = FewShotSegmentationNet(prototypes="grid", grid=2, encoder=nn.AvgPool2d(2))
    known = net.compute_prototypes(features, masks)
    logits = net.match_features(torch.rand(2, 3, 4, 4), known)
    finite = logits.isfinite()
    assert finite[:, 0, :2, :2].all()
    assert not finite[:, 1:, :2, :2].any()
    assert finite[:, 1, :2, 2:].all()
    assert not finite[:, 0, :2, 2:].any()
    assert (logits[:, :2, 2:] == 0).all()  # no evidence of any class: those of the episode tie
    assert not finite[:, 2].any()  # nowhere in the support: never
    images = torch.rand(1, 3, 8, 8)
    assert not net(images, masks, images).isnan().any()


@pytest.mark.parametrize("top_k", [1, 3, 1000])
def test_exemplars_match_a_cell_by_cell_specification(top_k):
    features, masks, queries = features_of(random_episode(size=(16, 16)))
    masks[:, 2] = 0
    masks[0, 2, 1, 2] = 1  # an organ of one pixel is an exemplar too
    net = FewShotSegmentationNet(prototypes="exemplars", top_k=top_k, encoder=nn.Identity())
    logits = net.match_features(queries, net.compute_prototypes(features, masks))
    expected = exemplar_specification(features, masks, queries, top_k)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_too_many_exemplars_are_thinned_out_evenly_and_always_alike():
    features, masks, _ = features_of(random_episode(shots=3, size=(64, 64)))
    full, thin = (
        FewShotSegmentationNet(prototypes="exemplars", max_exemplars=most, encoder=nn.Identity())
        for most in (None, 40)
    )
    everything, some = (net.compute_prototypes(features, masks) for net in (full, thin))
    assert some.valid.sum(-1).tolist() == [40, 40, 40]
    assert torch.equal(some.vectors, thin.compute_prototypes(features, masks).vectors)
    for k in range(3):
        kept = {tuple(row) for row in some.vectors[k].tolist()}
        whole = everything.vectors[k][everything.valid[k]]
        assert len(kept) == 40
        assert kept <= {tuple(row) for row in whole.tolist()}


# Laws


OPTIONS = {
    "grid": {"grid": 2},
    "exemplars": {"max_exemplars": None},
    "local": {"background_grid": 4},
    "cross": {"feat_dim": 6, "width": 4, "depth": 1},
}


def network(kind: str, encoder: nn.Module, **options) -> FewShotSegmentationNet:
    """Make a network of any kind: with a coarse grid, with all exemplars."""
    options = {**OPTIONS.get(kind, {}), **options}
    return FewShotSegmentationNet(prototypes=kind, encoder=encoder, **options)


@given(st.integers(0, 2**31), st.sampled_from((*KINDS, *LATER)))
@settings(max_examples=40, deadline=None)
def test_the_order_of_supports_does_not_matter_and_classes_permute(seed, kind):
    images, masks, queries = random_episode(shots=3, n_classes=4, seed=seed % 1000)
    net = network(kind, convolutions()).double()
    images, masks, queries = images.double(), masks.double(), queries.double()
    generator = torch.Generator().manual_seed(seed)
    shots, classes = torch.randperm(3, generator=generator), torch.randperm(4, generator=generator)
    if kind in LATER:  # to these the background is not a class like the others
        classes = torch.cat([torch.tensor([0]), classes[classes > 0]])
    with torch.no_grad():
        logits = net(images, masks, queries)
        torch.testing.assert_close(net(images[shots], masks[shots], queries), logits)
        torch.testing.assert_close(net(images, masks[:, classes], queries), logits[:, classes])


@pytest.mark.parametrize("kind", [*KINDS, *LATER])
@pytest.mark.parametrize("similarity", ["cosine", "squared_euclidean"])
def test_episodes_and_queries_together_are_the_same_as_one_by_one(kind, similarity):
    images, masks, queries = random_episode(shots=2, n_classes=3, queries=3, episodes=2)
    masks[1, :, 1] = 0
    net = network(kind, convolutions(), similarity=similarity, scale=2.0)
    with torch.no_grad():
        together = net(images, masks, queries)  # Q = K = 3: nothing may be paired
        assert together.shape == (2, 3, 3, 24, 32)
        for episode in range(2):
            several = net(images[episode], masks[episode], queries[episode])
            torch.testing.assert_close(several, together[episode], rtol=1e-4, atol=1e-4)
            for query in range(3):
                alone = net(images[episode], masks[episode], queries[episode, query])
                torch.testing.assert_close(alone, together[episode, query], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_match_features_never_pairs_queries_with_classes(kind):
    features, masks, queries = features_of(random_episode(n_classes=3, queries=3))
    net = network(kind, nn.Identity())
    known = net.compute_prototypes(features, masks)
    together = net.match_features(queries, known)
    assert together.shape == (3, 3, 6, 8)
    for query in range(3):
        alone = net.match_features(queries[query : query + 1], known)
        assert alone.shape == (3, 6, 8)
        torch.testing.assert_close(alone, together[query], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_length_of_features_does_not_matter_to_the_cosine_and_scale_multiplies(kind):
    images, masks, queries = random_episode()
    encoder = convolutions()
    longer = nn.Sequential(encoder, Times(37.0))
    logits = network(kind, encoder)(images, masks, queries)
    torch.testing.assert_close(
        network(kind, longer)(images, masks, queries), logits, rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(
        network(kind, encoder, scale=5.0)(images, masks, queries) * 4, logits, rtol=1e-4, atol=1e-4
    )
    assert logits[logits.isfinite()].abs().max() <= 20 * (1 + 1e-5)


class Times(nn.Module):
    """Multiply by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return images * self.factor


# A class that the support does not show


@pytest.mark.parametrize("kind", [*OTHER_KINDS, *LATER])
@pytest.mark.parametrize("similarity", ["cosine", "squared_euclidean"])
def test_a_class_without_support_pixels_is_never_predicted_and_gradients_stay_finite(
    kind, similarity
):
    images, masks, queries = random_episode(n_classes=4)
    masks[:, 2] = 0
    encoder = convolutions()
    net = network(kind, encoder, similarity=similarity, scale=1.0)
    logits = net(images, masks, queries)
    assert (logits[:, 2] == -math.inf).all()
    assert not (logits.argmax(1) == 2).any()
    possible = logits > -math.inf
    loss = logits.masked_fill(~possible, -1e9).logsumexp(1).mean()
    gradients = torch.autograd.grad(loss, encoder.parameters())
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("kind", [*OTHER_KINDS, *LATER])
def test_an_episode_that_shows_no_class_at_all_is_refused(kind):
    images, masks, queries = random_episode(episodes=2)
    masks[1] = 0
    with pytest.raises(ValueError, match="no class has a support pixel"):
        network(kind, convolutions())(images, masks, queries)


# Edge cases


@pytest.mark.parametrize("kind", KINDS)
def test_one_shot_one_class_one_pixel_and_no_query_work(kind):
    net = network(kind, convolutions())
    images, masks, queries = random_episode(shots=1, n_classes=1, queries=0, size=(20, 28))
    assert net(images, masks, queries).shape == (0, 1, 20, 28)
    masks = torch.zeros(1, 2, 20, 28)
    masks[0, 0, 3, 5] = 1
    logits = net(images, masks, images)
    assert logits.shape == (1, 2, 20, 28)
    assert not logits.isnan().any()
    assert logits[0, 0].isfinite().all()
    episodes = net(images[None], masks[None], images[None, :0])
    assert episodes.shape == (1, 0, 2, 20, 28)


@pytest.mark.parametrize("kind", [*KINDS, *LATER])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_type_gives_its_own_type_back_without_nan(kind, dtype):
    images, masks, queries = random_episode()
    masks[:, 1] = 0
    for similarity in ("cosine", "squared_euclidean"):
        net = network(kind, convolutions(), similarity=similarity)
        full = net(images, masks, queries)
        for part in (net.encoder, net):  # a head that learns may stay in float32
            part.to(dtype)
            logits = net(images.to(dtype), masks.to(dtype), queries.to(dtype))
            assert logits.dtype == dtype
            assert not logits.isnan().any()
            assert torch.equal(logits.isfinite(), full.isfinite())
        if dtype == torch.float64:
            torch.testing.assert_close(logits.float(), full, rtol=1e-3, atol=1e-3)


def test_huge_half_precision_distances_stay_finite():
    images, masks, queries = (tensor.half() for tensor in random_episode())
    net = network("masked", Times(500.0), similarity="squared_euclidean")
    assert net(images, masks, queries).isfinite().all()


@pytest.mark.parametrize("kind", [*KINDS, *LATER])
def test_autocast_to_bfloat16_gives_no_nan(kind):
    images, masks, queries = random_episode()
    masks[:, 1] = 0
    net = network(kind, UNetEncoder(1, 6, width=4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net(images, masks, queries)
    assert not logits.isnan().any()


@pytest.mark.parametrize("kind", KINDS)
def test_memory_layout_and_mask_type_do_not_matter(kind):
    images, masks, queries = random_episode()
    net = network(kind, convolutions())
    logits = net(images, masks, queries)
    strided = [
        tensor.transpose(-1, -2).contiguous().transpose(-1, -2) for tensor in (images, masks)
    ]
    assert not strided[1].is_contiguous()
    torch.testing.assert_close(net(*strided, queries), logits)
    for kind_of_mask in (torch.bool, torch.uint8, torch.int64, torch.float64):
        torch.testing.assert_close(net(images, masks.to(kind_of_mask), queries), logits)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(net(channels_last, masks, queries), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_query_and_support_may_differ_in_size_except_for_position(kind):
    images, masks, _ = random_episode(size=(24, 32))
    query = torch.randn(1, 40, 16)
    assert network(kind, convolutions())(images, masks, query).shape == (3, 40, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_head_are_right(kind):
    net = network(kind, nn.AvgPool2d(2))
    generator = torch.Generator().manual_seed(0)
    images, queries = (
        torch.randn(2, 2, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    )
    _, masks, _ = random_episode(size=(4, 4))

    def logits(images: Tensor, queries: Tensor) -> Tensor:
        made = net(images, masks.double(), queries)
        return made.masked_fill(made == -math.inf, 0.0)

    assert torch.autograd.gradcheck(logits, (images, queries), eps=1e-6, atol=1e-5)


# Wrong use


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prototypes": "global"}, "prototypes must be one of position, masked, grid, exemplars"),
        ({"similarity": "dot"}, "similarity must be one of cosine, squared_euclidean"),
        ({"pooling": "mean"}, "pooling must be one of pixels, images"),
        ({"scale": -1.0}, "scale must be finite and at least 0"),
        ({"prototypes": "grid", "grid": 0}, "grid must be at least 1"),
        ({"prototypes": "exemplars", "top_k": 0}, "top_k must be at least 1"),
        ({"background_grid": 0}, "background_grid must be at least 1"),
    ],
)
def test_settings_without_meaning_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        FewShotSegmentationNet(feat_dim=4, **options)


def test_an_option_of_another_head_is_refused():
    with pytest.raises(TypeError, match="background_grid"):
        FewShotSegmentationNet(prototypes="grid", background_grid=2)


@pytest.mark.parametrize(
    ("support", "masks", "query"),
    [
        ((1, 32, 32), (2, 32, 32), (1, 32, 32)),
        ((2, 1, 32, 32), (2, 32, 32), (1, 32, 32)),
        ((2, 1, 32, 32), (2, 2, 16, 16), (1, 32, 32)),
        ((2, 1, 32, 32), (2, 2, 32, 32), (3, 32, 32)),
        ((2, 1, 32, 32), (2, 2, 32, 32), (32, 32)),
        ((2, 1, 32, 32), (2, 2, 32, 32), (1, 1, 1, 32, 32)),
        ((4, 2, 1, 32, 32), (4, 2, 2, 32, 32), (3, 1, 1, 32, 32)),
        ((4, 2, 1, 32, 32), (4, 2, 2, 32, 32), (1, 1, 32, 32)),
        ((0, 1, 32, 32), (0, 2, 32, 32), (1, 32, 32)),
    ],
)
def test_shapes_that_do_not_fit_are_refused_with_what_was_got(support, masks, query):
    net = network("masked", UNetEncoder(1, 4, width=4))
    got = f"got {support}, {masks} and {query}"
    with pytest.raises(ValueError, match=re.escape(got)):
        net(torch.zeros(support), torch.zeros(masks), torch.zeros(query))


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_types_ranges_and_numbers_of_images_are_named(kind):
    images, masks, queries = random_episode()
    net = network(kind, convolutions())
    with pytest.raises(TypeError, match=r"support_images must be floating point, got torch\.int64"):
        net(images.long(), masks, queries)
    with pytest.raises(ValueError, match=r"masks must lie in 0 … 1"):
        net(images, masks * 2, queries)
    with pytest.raises(ValueError, match="with the same leading dimensions and S"):
        net(images, masks[:1], queries)
    with pytest.raises(ValueError, match="query_features"):
        net.match_features(
            torch.rand(1, 6, 8), net.compute_prototypes(torch.rand(2, 1, 6, 8), masks)
        )


# How it is written


def functions_that_loop(source: str) -> set[tuple[str, str]]:
    """Name every function or method with a loop or comprehension, as (class or function, name)."""
    kinds = (ast.For, ast.While, ast.ListComp, ast.GeneratorExp, ast.SetComp, ast.DictComp)
    return {
        (owner.name, getattr(part, "name", ""))
        for owner in ast.parse(source).body
        if isinstance(owner, ast.FunctionDef | ast.ClassDef)
        for part in (owner.body if isinstance(owner, ast.ClassDef) else [owner])
        if any(isinstance(node, kinds) for node in ast.walk(part))
    }


def test_networks_and_heads_do_not_loop_over_classes_episodes_supports_or_positions(root):
    looping = {
        where
        for name in ("networks", "heads")
        for where in functions_that_loop((root / "fewshot_lib" / f"{name}.py").read_text("utf-8"))
    }
    # U-shaped networks build and run their levels; the others go through names of arguments.
    assert looping == {
        ("UNetEncoder", "__init__"),
        ("UNetEncoder", "forward"),
        ("CrossHead", "__init__"),
        ("CrossHead", "_compared"),
        ("Head", "__post_init__"),
        ("FewShotSegmentationNet", "extra_repr"),
    }


def test_a_network_says_how_it_compares_as_checkpoints_of_before_have_it():
    cosine = "similarity='cosine', scale=20.0"
    for kind, options, said in (
        ("position", {}, f"prototypes='position', {cosine}"),
        ("masked", {}, f"prototypes='masked', {cosine}, pooling='pixels'"),
        ("grid", {"grid": 8}, f"prototypes='grid', {cosine}, grid=8"),
        ("masked", {"background_grid": 8}, f"{cosine}, pooling='pixels', background_grid=8"),
        ("exemplars", {}, f"{cosine}, top_k=5, max_exemplars=512"),
    ):
        net = FewShotSegmentationNet(prototypes=kind, encoder=nn.Identity(), **options)
        assert net.extra_repr().endswith(said)


# --- a background of several parts


def parted_specification(features, mask, queries, grid, parts=(), scale=20.0):
    """A class's logit in one episode by loops over images, windows and queries: (Q, H, W).

    ``parts`` are prototypes besides those of its windows.
    """
    side, parts = features.shape[-1] // grid, [*parts]
    for image, own in zip(features, mask, strict=True):
        for top in range(0, features.shape[-2], side):
            for left in range(0, features.shape[-1], side):
                window = (..., slice(top, top + side), slice(left, left + side))
                if own[window].mean() > 0.5:
                    total = (image[window] * own[window]).sum((1, 2))
                    parts.append(total / own[window].sum())
    assert len(parts) > 2
    logits = []
    for query in queries:
        each = torch.stack(
            [scale * F.cosine_similarity(query, part[:, None, None], dim=0) for part in parts]
        )
        logits.append((each.softmax(dim=0) * each).sum(dim=0))
    return torch.stack(logits)


def test_a_background_of_parts_matches_a_window_by_window_specification():
    images, _, queries = random_episode(shots=2, size=(16, 16), channels=5)
    masks = masks_of((torch.arange(16)[:, None] > 9).long().expand(2, 16, 16), 3)
    plain = FewShotSegmentationNet(encoder=nn.Identity())(images, masks, queries)
    parted = FewShotSegmentationNet(encoder=nn.Identity(), background_grid=4)(
        images, masks, queries
    )
    expected = parted_specification(images, masks[:, 0], queries, 4)
    assert torch.allclose(parted[:, 0], expected, atol=1e-4)
    assert torch.equal(parted[:, 1:], plain[:, 1:])


def test_without_a_window_that_is_mostly_background_its_one_mean_stands_in():
    images = torch.rand(1, 1, 8, 8)
    plain = FewShotSegmentationNet(encoder=nn.Conv2d(1, 3, 1))
    parted = FewShotSegmentationNet(encoder=plain.encoder, background_grid=2)
    narrow = masks_of(torch.ones(1, 8, 8).long().index_fill(2, torch.tensor([3, 4]), 0), 2)
    assert torch.equal(plain(images, narrow, images), parted(images, narrow, images))
    wide = masks_of(torch.zeros(1, 8, 8).long().index_fill(2, torch.tensor([3, 4]), 1), 2)
    assert not torch.allclose(plain(images, wide, images), parted(images, wide, images))


def test_a_background_of_parts_has_a_gradient_and_episodes_of_their_own():
    net = FewShotSegmentationNet(encoder=nn.Conv2d(1, 3, 3, padding=1), background_grid=4)
    images, queries = torch.rand(2, 1, 1, 16, 16), torch.rand(2, 2, 1, 16, 16)
    masks = masks_of((torch.rand(2, 1, 16, 16) > 0.8).long(), 2)
    together = net(images, masks, queries)
    apart = torch.stack([net(images[e], masks[e], queries[e]) for e in range(2)])
    assert torch.allclose(together, apart, atol=1e-5)
    together.sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in net.parameters())
