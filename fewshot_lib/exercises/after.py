"""Exercise 10: local prototypes, a threshold, attention and a cross-convolution (notebook 10)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from fewshot_lib.checker.spec import Case
from fewshot_lib.checker.specification import answer, exercise
from fewshot_lib.heads import AttentionHead, CrossBlock

GIVEN_AWAY = ["heads", "networks", "prototypes"]


def _organ(g: Generator, height: int, width: int) -> Tensor:
    """Draw a mask (H, W) of blocks of 2 by 2 pixels and single ones, never empty."""
    blocks = torch.rand((height + 1) // 2, (width + 1) // 2, generator=g) > 0.5
    blocks[0, 0] = True
    mask = blocks.repeat_interleave(2, 0).repeat_interleave(2, 1)[:height, :width]
    return (mask ^ (torch.rand(height, width, generator=g) > 0.8)).index_fill(
        0, torch.tensor([0]), True
    )


# -------------------------------------------------------------------------------- local_prototypes


@answer(strip=GIVEN_AWAY)
def local_prototypes(features, mask, side):
    """Give the means in the windows that an organ fills, and its one mean.

    Windows of side × side positions part the map from the top left; H' and W'
    are multiples of side.

    Arguments:
        features: (D, H', W') float, of one support image.
        mask: (H', W') bool, the organ; not empty.
        side: positions along each side of a window.

    Returns:
        (R + 1, D): for each of the R windows of which the organ covers *more
        than half*, the mean of the features *under the mask* in it, window by
        window from left to right and from top to bottom; then, as the last
        row, the mean under the whole mask.
    """
    ### BEGIN SOLUTION: sums and counts per window, those full enough, the mean
    inside = features * mask  # (D, H', W')
    # Both are divided by the size of a window: a count is a share.
    counts = F.avg_pool2d(mask[None].to(features.dtype), side).flatten()
    sums = F.avg_pool2d(inside, side).flatten(1).T  # (windows, D)
    full = counts > 0.5
    whole = inside.sum(dim=(1, 2)) / mask.sum()
    return torch.cat([sums[full] / counts[full, None], whole[None]])
    ### END SOLUTION


@local_prototypes.check("a prototype for each window that the organ fills", points=2)
def _windows(g: Generator) -> Iterator[Case]:
    for name, size, side in (
        ("8 by 8 in windows of 4", (8, 8), 4),
        ("6 by 12 in windows of 3", (6, 12), 3),
        ("4 by 10 in windows of 2", (4, 10), 2),
    ):
        features = torch.randn(3, *size, generator=g) + 2
        yield Case(name, (features, _organ(g, *size), side))


@local_prototypes.check("a window that is exactly half full does not count")
def _half(g: Generator) -> Iterator[Case]:
    mask = torch.zeros(4, 8, dtype=torch.bool)
    mask[:, :5] = True
    mask[0, 5:] = True
    mask[1, 6] = True
    yield Case("half, more and less", (torch.randn(2, 4, 8, generator=g), mask, 2))
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[:2, :3] = True
    mask[2, 0] = True
    yield Case("seven of nine", (torch.randn(4, 6, 6, generator=g), mask, 3))


@local_prototypes.check("an organ too small for a window has its mean alone")
def _small(g: Generator) -> Iterator[Case]:
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[3:5, 3:5] = True
    yield Case("four pixels in four windows", (torch.randn(2, 8, 8, generator=g), mask, 4))


# ---------------------------------------------------------------------------------- threshold_loss


def _with_torch(cosines: Tensor, organ: Tensor, threshold: float, scale: float) -> Tensor:
    logits = scale * (cosines - threshold)
    return F.binary_cross_entropy_with_logits(logits, organ.to(logits.dtype))


@answer(reference=_with_torch)
def threshold_loss(cosines, organ, threshold, scale):
    """Give the mean binary cross-entropy of a threshold's answer.

    p(organ) = σ(α (cos − t)): the organ's logit is α cos, the background's is
    α t.

    Arguments:
        cosines: (…) float in −1 … 1, of each pixel with the organ's mean.
        organ: (…) bool, the truth.
        threshold: t.
        scale: α; finite results are asked for, also for α = 1000.

    Returns:
        A number, the mean over all pixels.
    """
    ### BEGIN SOLUTION: the logit, its sign by the truth, a softplus
    logits = scale * (cosines - threshold)
    signed = torch.where(organ, logits, -logits)
    return F.softplus(-signed).mean()
    ### END SOLUTION


@threshold_loss.check("the mean of −log p of the true class", points=2)
def _pixels(g: Generator) -> Iterator[Case]:
    for name, size, t, scale in (
        ("12 pixels, α = 20", (12,), 0.5, 20.0),
        ("5 by 6 pixels, α = 3", (5, 6), 0.2, 3.0),
        ("2 images, t below 0", (2, 4, 3), -0.3, 5.0),
    ):
        cosines = 2 * torch.rand(size, generator=g) - 1
        organ = torch.rand(size, generator=g) > 0.6
        yield Case(name, (cosines, organ, t, scale))


@threshold_loss.check("sure and wrong costs much, and not infinitely much")
def _sure(g: Generator) -> Iterator[Case]:
    cosines = 2 * torch.rand(30, generator=g) - 1
    yield Case("α = 1000", (cosines, torch.rand(30, generator=g) > 0.5, 0.1, 1000.0))


@threshold_loss.check("a slice without the organ, and one full of it")
def _one_class(g: Generator) -> Iterator[Case]:
    cosines = 2 * torch.rand(4, 4, generator=g) - 1
    yield Case("no organ", (cosines, torch.zeros(4, 4).bool(), 0.4, 8.0))
    yield Case("organ everywhere", (cosines, torch.ones(4, 4).bool(), 0.4, 8.0))


# ------------------------------------------------------------------------------------------ attend


def _head(queries: Tensor, keys: Tensor, values: Tensor, scale: float, level: bool) -> Tensor:
    head = AttentionHead(scale=scale, votes="classes" if level else "pixels")
    known = head.compute_prototypes(keys.T[None, :, None], values.T[None, :, None])
    return head.match_features(queries.T[None, :, None], known)[0, :, 0].softmax(dim=0).T


@answer(reference=_head, strip=GIVEN_AWAY)
def attend(queries, keys, values, scale, level):
    """Let each query pixel attend to all support pixels.

    a_j = softmax_j(α cos(q, f_j)),   p_k = Σ_j a_j m_jk

    Arguments:
        queries: (P, D) float, features of query pixels; none is zero.
        keys: (J, D) float, f_j, features of support pixels; none is zero.
        values: (J, K) float, m_jk: 1 for the class of the pixel, else 0; every
            class is there.
        scale: α.
        level: True: m_jk is first divided by the number of pixels of class k,
            and the p_k are divided by their sum.

    Returns:
        (P, K) float, probabilities.
    """
    ### BEGIN SOLUTION: cosines, softmax over the support, shares of classes
    cosines = F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T
    share = (scale * cosines).softmax(dim=1)  # (P, J)
    if level:
        values = values / values.sum(dim=0)
    heard = share @ values  # (P, K)
    return heard / heard.sum(dim=1, keepdim=True)
    ### END SOLUTION


def _asked(g: Generator, p: int, j: int, d: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
    labels = torch.cat([torch.arange(k), torch.randint(k, (j - k,), generator=g) // 2])
    queries, keys = 3 * torch.randn(p, d, generator=g), 2 * torch.randn(j, d, generator=g)
    return queries, keys, F.one_hot(labels, k).float()


@attend.check("attention with one vote for each support pixel", points=2)
def _votes(g: Generator) -> Iterator[Case]:
    yield Case("4 pixels ask 9, 2 classes", (*_asked(g, 4, 9, 3, 2), 5.0, False))
    yield Case("7 pixels ask 7, 3 classes", (*_asked(g, 7, 7, 2, 3), 2.0, False))


@attend.check("the classes start level", points=2)
def _level(g: Generator) -> Iterator[Case]:
    yield Case("5 pixels ask 12, 3 classes", (*_asked(g, 5, 12, 4, 3), 4.0, True))
    yield Case("α = 0: every class the same", (*_asked(g, 2, 10, 3, 4), 0.0, True))


# ------------------------------------------------------------------------------------- cross_block


def _block(
    query: Tensor, support: Tensor, cross: Tensor, to_query: Tensor, to_support: Tensor
) -> tuple[Tensor, Tensor]:
    block = CrossBlock(len(query), support.shape[1], len(cross))
    for layer, weight in zip(
        (block.cross, block.to_query, block.to_support), (cross, to_query, to_support), strict=True
    ):
        layer.weight = nn.Parameter(weight)
        layer.bias = None
    with torch.no_grad():
        following, supports = block(query[None], support[None])
    return following[0], supports[0]


@answer(reference=_block, strip=GIVEN_AWAY)
def cross_block(query, support, cross, to_query, to_support):
    """Mix a query with each support map, and average over the support.

    z_i = W ∗ [u ‖ v_i],   u' = A(W_u ∗ mean_i z_i),   v_i' = A(W_v ∗ z_i)

    with ∗ a 3×3 convolution without bias (`F.conv2d` with padding=1), u's
    channels before v's, and A = `F.leaky_relu`.

    Arguments:
        query: (C, H, W) float, u.
        support: (S, C', H, W) float, v_1 … v_S.
        cross: (M, C + C', 3, 3), W.
        to_query, to_support: (M, M, 3, 3), W_u and W_v.

    Returns:
        u' (M, H, W) and v' (S, M, H, W).
    """
    ### BEGIN SOLUTION: query beside each map, convolution, mean for u' only
    beside = query.expand(len(support), -1, -1, -1)  # (S, C, H, W)
    mixed = F.conv2d(torch.cat([beside, support], dim=1), cross, padding=1)
    following = F.conv2d(mixed.mean(dim=0), to_query, padding=1)
    supports = F.conv2d(mixed, to_support, padding=1)  # (S, M, H, W)
    return F.leaky_relu(following), F.leaky_relu(supports)
    ### END SOLUTION


def _maps(g: Generator, s: int, c: int, d: int, m: int, *size: int) -> tuple[Tensor, ...]:
    return (
        torch.randn(c, *size, generator=g),
        torch.randn(s, d, *size, generator=g),
        torch.randn(m, c + d, 3, 3, generator=g) / 3,
        torch.randn(m, m, 3, 3, generator=g) / 3,
        torch.randn(m, m, 3, 3, generator=g) / 3,
    )


@cross_block.check("the next query map and the next support maps", points=3)
def _blocks(g: Generator) -> Iterator[Case]:
    yield Case("3 support maps", _maps(g, 3, 2, 3, 4, 5, 6))
    yield Case("4 support maps of as many channels as the query", _maps(g, 4, 3, 3, 2, 4, 4))


@cross_block.check("one support map")
def _one_shot(g: Generator) -> Iterator[Case]:
    yield Case("one shot", _maps(g, 1, 2, 3, 3, 4, 5))


EXERCISE = exercise(__name__)
