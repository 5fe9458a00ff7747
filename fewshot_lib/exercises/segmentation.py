"""Exercise 05: the note's network, the test that exposes it, masked pooling (note §3.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fewshot_lib import prototypes as library
from fewshot_lib.checker import pictures
from fewshot_lib.checker.spec import Case, Tolerance
from fewshot_lib.checker.specification import answer, exercise
from fewshot_lib.checker.values import Fixture
from fewshot_lib.heads import PositionHead

GIVEN_AWAY = ["heads", "mixture", "networks", "prototypes"]
MATCHING = "notebook 05b, «One query, many queries»; note §3.1, `match_features`"
EMPTY = "notebook 05b, «A class that nobody showed»"
ONE_QUERY = "notebook 05b, «One query, many queries»"


def _masks(g: Generator, *shape: int) -> Tensor:
    """Draw complementary masks (…, K, H, W): every pixel belongs to one class."""
    *leading, n_classes, height, width = shape
    labels = torch.randint(n_classes, (*leading, height, width), generator=g)
    return F.one_hot(labels, n_classes).movedim(-1, -3).float()


def _blocks(g: Generator, *shape: int) -> Tensor:
    """Draw complementary masks in blocks of 2 by 2 pixels."""
    *leading, height, width = shape
    small = _masks(g, *leading, (height + 1) // 2, (width + 1) // 2)
    return small.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., :height, :width]


def _support(
    g: Generator, features: tuple[int, ...], masks: tuple[int, ...], draw: Any = _masks
) -> tuple[Tensor, Tensor]:
    """Draw features (…, S, D, H', W') and masks (…, S, K, H, W) of these shapes."""
    return torch.randn(features, generator=g), draw(g, *masks)


# --------------------------------------------------------------------------------- note_prototypes


@answer(reference=PositionHead.compute_prototypes, picture=pictures.matrix, strip=GIVEN_AWAY)
def note_prototypes(features, masks):
    """Compute the note's prototypes, a vector per class and position.

    c_k(p) = Σ_s M_sk(p) f_s(p) / (Σ_s M_sk(p) + 1e-5)

    Arguments:
        features: (S, D, H', W') float, of S support images.
        masks: (S, K, H, W) bool or float, of K classes; shrunk to (H', W')
            with mode "nearest".

    Returns:
        (K, D, H', W'); exactly zero where no support image shows the class.
    """
    ### BEGIN SOLUTION: shrink the masks, average under them over the support
    size = features.shape[-2:]
    small = F.interpolate(masks.to(features.dtype), size, mode="nearest")
    inside = features[:, None] * small[:, :, None]  # (S, K, D, H', W')
    return inside.sum(dim=0) / (small.sum(dim=0)[:, None] + 1e-5)
    ### END SOLUTION


@note_prototypes.check("at each position, the mean over the support images", points=2)
def _note_same_size(g: Generator) -> Iterator[Case]:
    yield Case("one shot, 2 classes", _support(g, (1, 3, 4, 5), (1, 2, 4, 5)))
    yield Case("4 shots, 3 classes", _support(g, (4, 2, 5, 4), (4, 3, 5, 4)))
    yield Case("as many shots as classes as features", _support(g, (3, 3, 3, 3), (3, 3, 3, 3)))


@note_prototypes.check(
    "masks are brought to the features' size by `nearest`", pointer="note §3.1: masks_down"
)
def _note_shrunk(g: Generator) -> Iterator[Case]:
    yield Case("masks of twice the size", _support(g, (3, 2, 4, 4), (3, 2, 8, 8)))
    yield Case("masks of 7 by 11, features of 3 by 4", _support(g, (2, 4, 3, 4), (2, 3, 7, 11)))
    features, masks = _support(g, (2, 2, 2, 3), (2, 2, 8, 12))
    yield Case("masks of True and False", (features, masks.bool()))


@note_prototypes.check(
    "a class that is nowhere, and the note's ε", pointer="note §3.1: the denominator of prototype_k"
)
def _note_absent(g: Generator) -> Iterator[Case]:
    masks = _masks(g, 2, 3, 4, 4)
    masks[:, 1] = 0
    yield Case("class 1 is nowhere", (torch.randn(2, 2, 4, 4, generator=g), masks))
    yield Case(
        "soft masks, nearly nothing",
        (torch.randn(3, 2, 3, 3, generator=g), torch.rand(3, 2, 3, 3, generator=g) * 1e-4),
    )


# -------------------------------------------------------------------------------------- shift_test


@answer()
def shift_test(segment, image, mask, shift):
    """Move the object and measure whom the prediction follows.

    Arguments:
        segment: (support image (H, W), support mask (H, W) bool, query image
            (H, W)) → (H, W) bool.
        image: (H, W) float, the support image.
        mask: (H, W) bool, its object.
        shift: (rows, columns), down and to the right; what leaves comes back
            on the other side.

    Returns:
        dice: 2 |P ∩ T| / (|P| + |T|) of the prediction P and the query's mask
            T, in 0 … 1.
        agreement: share of all pixels where P equals the support mask.

    Raises:
        ValueError: the shift leaves the mask as it was: no network could fail
            such a test.
    """
    ### BEGIN SOLUTION: roll both, refuse if nothing moved, segment, measure
    query = torch.roll(image, shift, dims=(-2, -1))
    target = torch.roll(mask, shift, dims=(-2, -1))
    if torch.equal(mask, target):
        raise ValueError(f"a shift of {shift} does not move the object")
    prediction = segment(image, mask, query)
    dice = 2 * (prediction & target).sum() / (prediction.sum() + target.sum())
    return dice, (prediction == mask).double().mean()
    ### END SOLUTION


def _scene(g: Generator, size: tuple[int, int], box: tuple[int, int, int, int]) -> tuple[Any, ...]:
    """Draw an image with a bright rectangle (top, left, height, width), and its mask."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[box[0] : box[0] + box[2], box[1] : box[1] + box[3]] = True
    return 0.15 * torch.rand(size, generator=g) + 0.65 * mask, mask


def _between(g: Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=g))


def _shifts(g: Generator, kind: str, by: tuple[int, int]) -> Case:
    box = (_between(g, 1, 3), _between(g, 1, 3), _between(g, 4, 5), _between(g, 3, 4))
    scene = _scene(g, (12, 15), box)
    return Case(f"{kind}, moved by {by}", (Fixture("segmenter", {"kind": kind}), *scene, by))


@shift_test.check("a network that copies the support mask is exposed", points=2)
def _copier(g: Generator) -> Iterator[Case]:
    yield _shifts(g, "copies", by=(6, 5))
    yield _shifts(g, "copies", by=(2, 1))
    yield _shifts(g, "copies", by=(0, 2))


@shift_test.check("a network that looks at the query is told from one that does not")
def _looker(g: Generator) -> Iterator[Case]:
    yield _shifts(g, "brightness", by=(2, 5))
    yield _shifts(g, "brightness", by=(9, 11))
    yield _shifts(g, "change", by=(1, 2))
    yield _shifts(g, "upper half", by=(4, 2))


@shift_test.check("Dice with the query; share of pixels with the support")
def _careless(g: Generator) -> Iterator[Case]:
    for kind in ("nothing", "everything", "upper half"):
        yield _shifts(g, kind, by=(3, 2))


@shift_test.check(
    "a test that moves nothing is refused", pointer="the docstring: which error, and when"
)
def _unmoved(g: Generator) -> Iterator[Case]:
    yield _shifts(g, "copies", by=(0, 0))
    yield _shifts(g, "brightness", by=(12, 15))
    image, _ = _scene(g, (8, 8), (2, 2, 3, 3))
    empty = torch.zeros(8, 8, dtype=torch.bool)
    yield Case("no object at all", (Fixture("segmenter", {"kind": "copies"}), image, empty, (2, 2)))


# ------------------------------------------------------------------------------ compute_prototypes


@answer(
    reference=library.masked_prototypes,
    picture=lambda case, expected, got: pictures.matrix(case, expected[0], got[0]),
    strip=GIVEN_AWAY,
)
def compute_prototypes(features, masks):
    """Average features under each class's masks, over all support images.

    Arguments:
        features: (…, S, D, H', W') float; leading dimensions are episodes.
        masks: (…, S, K, H, W) bool, or float weights in 0 … 1; H ≥ H', W ≥ W'.

    Returns:
        prototypes: (…, K, D); zeros for a class whose masks are zero
            everywhere.
        valid: (…, K) bool; False for such a class.
    """
    ### BEGIN SOLUTION: upsample the features, average, flag empty classes
    size = masks.shape[-2:]
    large = F.interpolate(features.flatten(0, -4), size, mode="bilinear")
    large = large.view(*features.shape[:-2], *size)  # (…, S, D, H, W)
    weights = masks.to(features.dtype)
    sums = torch.einsum("...skhw,...sdhw->...kd", weights, large)
    mass = weights.sum(dim=(-4, -2, -1))  # (…, K)
    valid = mass > 0
    return sums / torch.where(valid, mass, 1.0)[..., None], valid
    ### END SOLUTION


@compute_prototypes.check("one vector per class: the mean over its pixels", points=2)
def _pooled(g: Generator) -> Iterator[Case]:
    yield Case("2 shots, 3 classes", _support(g, (2, 4, 5, 6), (2, 3, 5, 6)))
    yield Case("one shot, 2 classes", _support(g, (1, 2, 4, 4), (1, 2, 4, 4)))
    features, masks = _support(g, (2, 3, 4, 4), (2, 2, 4, 4))
    yield Case("masks of True and False", (features, masks.bool()))


@compute_prototypes.check("every pixel counts the same, whichever image it is in")
def _unequal(g: Generator) -> Iterator[Case]:
    masks = torch.zeros(3, 2, 6, 6)
    masks[0, 0, 0:5, 0:5] = 1
    masks[1, 0, 2, 3] = 1
    masks[2, 0, 1:3, 1:4] = 1
    masks[:, 1] = 1 - masks[:, 0]
    apart = torch.tensor([0.0, 4.0, -4.0])[:, None, None, None]
    features = torch.randn(3, 4, 6, 6, generator=g) + apart
    yield Case("an organ of 25, 1 and 6 pixels", (features, masks))
    yield Case("soft masks: weights from 0 to 1", (features, torch.rand(3, 2, 6, 6, generator=g)))


@compute_prototypes.check("features come up to the masks, so that small organs stay", points=2)
def _strided(g: Generator) -> Iterator[Case]:
    small = torch.zeros(1, 2, 16, 16)
    row, column = _between(g, 1, 13), _between(g, 1, 13)
    row, column = row + (row % 4 == 0), column + (column % 4 == 0)
    small[0, 1, row, column] = 1
    small[:, 0] = 1 - small[:, 1]
    yield Case("an organ of one pixel at stride 4", (torch.randn(1, 3, 4, 4, generator=g), small))
    for name, features, masks in (
        ("masks of twice the features' size", (2, 3, 4, 5), (2, 3, 8, 10)),
        ("features of 3 by 4, masks of 10 by 9", (2, 2, 3, 4), (2, 2, 10, 9)),
    ):
        yield Case(name, _support(g, features, masks, _blocks))


@compute_prototypes.check("a class without pixels is said to be invalid", pointer=EMPTY)
def _absent(g: Generator) -> Iterator[Case]:
    masks = _masks(g, 2, 3, 5, 5)
    masks[:, 2] = 0
    yield Case("class 2 is nowhere", (torch.randn(2, 3, 5, 5, generator=g), masks))
    one = _masks(g, 2, 3, 5, 5)
    one[1, 0] = 0
    yield Case("class 0 is in one of two shots", (torch.randn(2, 3, 5, 5, generator=g), one))
    soft = _masks(g, 2, 3, 5, 5)
    soft[:, 1] = 0
    soft[0, 1, 2, 1:4] = 0.05 + 0.2 * torch.rand(3, generator=g)
    features = torch.randn(2, 3, 5, 5, generator=g)
    yield Case("class 1 has less than a pixel, in soft masks", (features, soft))


@compute_prototypes.check(
    "several episodes at once",
    pointer="notebook 05b, «What a prototype should be: masked average pooling»",
)
def _pooled_episodes(g: Generator) -> Iterator[Case]:
    masks = _blocks(g, 3, 2, 2, 8, 8)
    masks[1, :, 0] = 0
    yield Case("3 episodes of 2 shots", (torch.randn(3, 2, 4, 4, 4, generator=g), masks))
    yield Case(
        "2 × 2 episodes of one shot",
        (torch.randn(2, 2, 1, 3, 4, 3, generator=g), _masks(g, 2, 2, 1, 3, 4, 3)),
    )


# ---------------------------------------------------------------------------------- match_features


@answer(tolerance=Tolerance(rtol=1e-4, atol=1e-4), picture=pictures.matrix, strip=GIVEN_AWAY)
def match_features(queries, prototypes, valid, scale=20.0):
    """Compare every query position with every class: α · cos(q(p), c_k).

    Arguments:
        queries: (…, Q, D, H', W') float; leading dimensions are episodes.
        prototypes: (…, K, D) float.
        valid: (…, K) bool; a class that is not valid has no prototype, only a
            placeholder.
        scale: α, multiplies the cosine.

    Returns:
        (…, Q, K, H', W'); −inf for a class that is not valid, 0 where a
        feature is zero.
    """
    ### BEGIN SOLUTION: normalise, multiply, fill with −inf where not valid
    directions = F.normalize(prototypes, dim=-1)
    shown = F.normalize(queries, dim=-3)
    alike = torch.einsum("...qdhw,...kd->...qkhw", shown, directions)
    never = ~valid[..., None, :, None, None]
    return (scale * alike).masked_fill(never, -math.inf)
    ### END SOLUTION


def _episode(
    g: Generator, q: int, k: int, d: int, *leading: int, size: tuple[int, int] = (3, 4)
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(*leading, q, d, *size, generator=g) * 3,
        torch.randn(*leading, k, d, generator=g) * 3,
        torch.ones(*leading, k, dtype=torch.bool),
    )


@match_features.check("each query with each class: scaled cosines", points=2)
def _cosines(g: Generator) -> Iterator[Case]:
    yield Case("4 queries, 3 classes", _episode(g, 4, 3, 5))
    yield Case("2 queries, 4 classes, 3 features", _episode(g, 2, 4, 3, size=(2, 5)))


@match_features.check("also when there are as many queries as classes", pointer=MATCHING)
def _as_many(g: Generator) -> Iterator[Case]:
    yield Case("3 queries, 3 classes", _episode(g, 3, 3, 4))
    yield Case("2 queries, 2 classes, 2 features, 2 by 2", _episode(g, 2, 2, 2, size=(2, 2)))
    yield Case("one query, one class", _episode(g, 1, 1, 3))
    yield Case("one query, 3 classes", _episode(g, 1, 3, 4))


@match_features.check(
    "scale multiplies the cosine", pointer="notebook 05b, «The missing factor before the cosine»"
)
def _scales(g: Generator) -> Iterator[Case]:
    for scale in (1.0, 0.25):
        yield Case(f"scale {scale:g}", _episode(g, 2, 3, 4), {"scale": scale})


@match_features.check("−inf where a class is not valid, and nowhere else", pointer=EMPTY)
def _invalid(g: Generator) -> Iterator[Case]:
    queries, prototypes, valid = _episode(g, 2, 3, 4)
    valid[1] = False
    yield Case("class 1 is invalid", (queries, prototypes, valid))
    zero = prototypes.clone()
    zero[1] = 0
    yield Case("class 1 is invalid, its placeholder zeros", (queries, zero, valid))
    queries, prototypes, valid = _episode(g, 3, 3, 4)
    valid[0] = False
    queries[1, :, 2, 1] = 0
    yield Case("class 0 is invalid, a feature is zero", (queries, prototypes, valid))


@match_features.check("several episodes at once", pointer=MATCHING)
def _match_episodes(g: Generator) -> Iterator[Case]:
    queries, prototypes, valid = _episode(g, 2, 3, 4, 2)
    valid[0, 1] = valid[1, 2] = False
    yield Case("2 episodes with other classes invalid", (queries, prototypes, valid))
    yield Case("2 × 3 episodes", _episode(g, 4, 2, 3, 2, 3, size=(2, 2)))


# ----------------------------------------------------------------------------------------- predict


@answer(strip=GIVEN_AWAY)
def predict(logits, size):
    """Label every pixel: upsample the logits (bilinear), take the largest.

    Arguments:
        logits: (…, Q, K, H', W') float; a class that is never predicted is
            −inf at all positions.
        size: (H, W) of the image.

    Returns:
        (…, Q, H, W) int64 in 0 … K−1.
    """
    ### BEGIN SOLUTION: predict_as_found without its three faults
    flat = logits.flatten(0, -4)  # (N, K, H', W')
    never = flat[..., :1, :1].isneginf()  # (N, K, 1, 1)
    # Where −inf has weight 0, the result is NaN.
    large = F.interpolate(flat, size=size, mode="bilinear")
    labels = large.masked_fill(never, -math.inf).argmax(dim=1)
    return labels.view(*logits.shape[:-3], *size)
    ### END SOLUTION


def _logit_maps(g: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g) * 5 - 5


@predict.check("the class of the largest upsampled logit")
def _all_classes(g: Generator) -> Iterator[Case]:
    yield Case("2 queries, 3 classes", (_logit_maps(g, 2, 3, 3, 4), (9, 8)))
    yield Case("3 queries, 3 classes, already of that size", (_logit_maps(g, 3, 3, 5, 4), (5, 4)))


@predict.check("one query keeps its axis", pointer=ONE_QUERY)
def _single(g: Generator) -> Iterator[Case]:
    yield Case("one query, 2 classes", (_logit_maps(g, 1, 2, 3, 3), (6, 6)))
    yield Case("2 queries of one row", (_logit_maps(g, 2, 3, 1, 4), (1, 8)))


@predict.check("a class of −inf is never predicted", points=2, pointer=EMPTY)
def _some_never(g: Generator) -> Iterator[Case]:
    logits = _logit_maps(g, 2, 3, 4, 4)
    logits[:, 1] = -math.inf
    yield Case("class 1 is never predicted", (logits, (12, 10)))
    logits = _logit_maps(g, 2, 4, 3, 3)
    logits[0, 2] = logits[1, 3] = -math.inf
    yield Case("another class in each query, already of that size", (logits, (3, 3)))


@predict.check("several episodes at once", pointer=ONE_QUERY)
def _predicted_episodes(g: Generator) -> Iterator[Case]:
    logits = _logit_maps(g, 2, 3, 2, 3, 3)
    yield Case("2 episodes of 3 queries", (logits, (6, 7)))
    logits = _logit_maps(g, 2, 1, 3, 4, 4)
    logits[1, :, 0] = -math.inf
    yield Case("2 episodes of one query, one without class 0", (logits, (8, 8)))


EXERCISE = exercise(__name__)
