"""What a prototype is: one small class per head (note §3.1, notebooks 05, 05b, 06, 08 and 10).

A head is what a prototype network has behind its encoder: ``compute_prototypes`` says what the
support shows of each class, ``match_features`` compares every position of a query with it. Both get
float32 at least: ``FewShotSegmentationNet`` sees to that. Most heads have settings and no weights;
``ThresholdHead`` and ``CrossHead``, which have weights, are modules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_lib._tensors import full_precision, require_count, upcast
from fewshot_lib.prototypes import (
    POOLINGS,
    Pooling,
    _upsampling,
    _windows,
    cells_to_positions,
    grid_prototypes,
    local_similarity,
    masked_prototypes,
    similarity,
)

Kind = Literal[
    "position", "masked", "grid", "exemplars", "local", "threshold", "attention", "cross"
]
Similarity = Literal["cosine", "squared_euclidean"]

SIMILARITIES: tuple[Similarity, ...] = ("cosine", "squared_euclidean")
VOTES = ("pixels", "classes")


@dataclass(frozen=True)
class Prototypes:
    """Hold what the classes of an episode are known by, and which of it exists.

    Arguments:
        vectors: (…, K, D) for "masked", (…, K, D, rows, columns) for "grid", (…, K, M, D) for
            "exemplars".
        valid: bool, (…, K), (…, K, rows, columns) or (…, K, M): False where ``vectors`` holds a
            placeholder because the class has no support pixel there.
        background: vectors (…, R, D) and valid (…, R) of the background's parts, if it has several.
        organs: vectors (…, K − 1, R, D) and valid (…, K − 1, R) of the other classes' parts.
    """

    vectors: Tensor
    valid: Tensor
    background: Prototypes | None = None
    organs: Prototypes | None = None


@dataclass(frozen=True)
class Head:
    """Hold what all heads share: logit_k(p) = α · s(q(p), c_k).

    Arguments:
        similarity: s, "cosine" or "squared_euclidean" (−‖·−·‖²).
        scale: α ≥ 0, *multiplies*.

    Every head has ``compute_prototypes``: features (…, S, D, H', W'), masks (…, S, K, H, W) →
    prototypes; and ``match_features``: queries (…, Q, D, H', W'), prototypes → logits
    (…, Q, K, H', W'), −inf where a class cannot be predicted.

    Raises:
        ValueError, TypeError: a setting, also of the heads below, that is unknown or out of range.
    """

    similarity: Similarity = "cosine"
    scale: float = 20.0

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise ValueError(f"scale must be finite and at least 0, got {self.scale}")
        words = {"similarity": SIMILARITIES, "pooling": POOLINGS, "votes": VOTES}
        for name, value in vars(self).items():
            if name in words and value not in words[name]:
                raise ValueError(f"{name} must be one of {', '.join(words[name])}, got {value!r}")
            if name not in (*words, "scale") and value is not None:
                require_count(name, value, 1)


@dataclass(frozen=True)
class PositionHead(Head):
    """The note's head: one prototype per class and *position*, compared with that position only.

    c_k(p) = Σ_s M_sk(p) f_s(p) / (Σ_s M_sk(p) + 1e-5),   M shrunk by nearest neighbour

    With cosine and α = 1 this is the note's code to the letter, for any number of queries and
    episodes. A class that the support does not show has the zero vector, hence the logit 0. The
    head copies the support mask (notebook 05). Prototypes are a tensor (…, K, D, H', W').
    """

    @staticmethod
    def compute_prototypes(features: Tensor, masks: Tensor) -> Tensor:
        """Average each position's features over the images that show the class there."""
        size = features.shape[-2:]
        masks_down = F.interpolate(masks.to(features).flatten(0, -4), size=size, mode="nearest")
        masks_down = masks_down.view(*masks.shape[:-2], *size)  # (…, S, K, H', W')
        summed = torch.einsum("...sdhw,...skhw->...kdhw", features, masks_down)
        return summed / (masks_down.sum(dim=-4)[..., :, None, :, :] + 1e-5)

    def match_features(self, queries: Tensor, prototypes: Tensor) -> Tensor:
        """Compare each query with each prototype map, position by position."""
        prototypes = upcast(prototypes)
        if self.similarity == "cosine":
            query_norm, proto_norm = F.normalize(queries, dim=-3), F.normalize(prototypes, dim=-3)
            return self.scale * torch.einsum("...qdhw,...kdhw->...qkhw", query_norm, proto_norm)
        return self.scale * local_similarity(queries, prototypes, self.similarity)


@dataclass(frozen=True)
class MaskedHead(Head):
    """One prototype per class: the mean feature under its masks, compared with all positions.

    Arguments:
        pooling: "pixels" or "images", see ``masked_prototypes``.
        background_grid: class 0 is not one thing. Above 1 it has a prototype for each of
            background_grid² windows of each support image that it fills to more than half, used
            anywhere in the query: ℓ_0 = Σ_r softmax_r(ℓ_r) ℓ_r over these parts r. Without such a
            window its one mean stands in.

    Source: Wang et al. 2019 (PANet); Ouyang et al. 2020, §3.3 (windows that serve the whole query).
    """

    pooling: Pooling = "pixels"
    background_grid: int = 1

    def compute_prototypes(self, features: Tensor, masks: Tensor) -> Prototypes:
        """Average the features under each class's masks."""
        vectors, valid = masked_prototypes(features, masks, self.pooling)
        if self.background_grid == 1:
            return Prototypes(vectors, valid)
        parts = _parts(features, masks[..., :1, :, :], self.background_grid)
        background = Prototypes(parts.vectors[..., 0, :, :], parts.valid[..., 0, :])
        return Prototypes(vectors, valid, background=background)

    def match_features(self, queries: Tensor, prototypes: Prototypes) -> Tensor:
        """Compare every position of each query with every class."""
        logits = self.scale * _map_similarity(queries, prototypes.vectors, self.similarity)
        if prototypes.background is not None:
            parts = prototypes.background
            valid = parts.valid[..., None, :, None, None]
            each = self.scale * _map_similarity(queries, parts.vectors, self.similarity)
            merged = torch.where(valid.any(dim=-3), _merged(each, valid), logits[..., 0, :, :])
            logits = torch.cat([merged[..., None, :, :], logits[..., 1:, :, :]], dim=-3)
        return logits.masked_fill(~prototypes.valid[..., None, :, None, None], -math.inf)


@dataclass(frozen=True)
class LocalHead(MaskedHead):
    """Local prototypes of organs *and* background; all of them serve the whole query.

    ℓ_k = Σ_r softmax_r(ℓ_kr) ℓ_kr over the parts r of class k: the windows of the support images
    that k fills to more than half and, for an organ, its one mean as well. The background is that
    of ``MaskedHead``.

    Arguments:
        background_grid: windows along each side, for all classes.

    Source: ALPNet (Ouyang et al. 2020, §3.3), which asks for windows filled to 95 %. Notebook 10.
    """

    background_grid: int = 8

    def compute_prototypes(self, features: Tensor, masks: Tensor) -> Prototypes:
        """Average the features under each class's masks, in all and window by window."""
        found = super().compute_prototypes(features, masks)
        parts = _parts(features, masks[..., 1:, :, :], self.background_grid)
        # Few windows lie in an organ: keep as many places as the fullest class has.
        most = int(parts.valid.sum(dim=-1).max()) if parts.valid.numel() else 0
        valid, index = parts.valid.byte().topk(most, dim=-1)
        vectors = parts.vectors.take_along_dim(index[..., None], dim=-2)
        means, shown = found.vectors[..., 1:, None, :], found.valid[..., 1:, None]
        organs = Prototypes(torch.cat([vectors, means], -2), torch.cat([valid.bool(), shown], -1))
        return replace(found, organs=organs)

    def match_features(self, queries: Tensor, prototypes: Prototypes) -> Tensor:
        """Compare every position of each query with all parts of every class."""
        logits, organs = super().match_features(queries, prototypes), prototypes.organs
        assert organs is not None
        valid = organs.valid[..., None, :, :, None, None]  # (…, 1, K − 1, R, 1, 1)
        parts = organs.vectors.flatten(-3, -2)  # (…, (K − 1)·R, D)
        every = self.scale * _map_similarity(queries, parts, self.similarity)
        # (…, Q, K − 1, R, H', W')
        each = every.reshape(*every.shape[:-3], *organs.valid.shape[-2:], *every.shape[-2:])
        merged = _merged(each, valid).masked_fill(~valid.any(dim=-3), -math.inf)
        return torch.cat([logits[..., :1, :, :], merged], dim=-3)


class ThresholdHead(nn.Module):
    """The organs' means, and one number in the place of the background.

    ℓ_k = α s(q, c_k) for an organ k,   ℓ_0 = α t.

    What is less alike than t to every organ is background; nothing has to be known of it. With one
    organ the softmax is σ(α (s − t)).

    Arguments:
        similarity, scale: as for ``Head``.
        threshold: t at first; a weight of the network, trained along with the encoder.

    Source: ADNet (Hansen et al. 2022), for one organ; it has a factor ½ inside σ, and two more
    terms in its loss. Notebook 10.
    """

    def __init__(
        self, similarity: Similarity = "cosine", scale: float = 20.0, threshold: float = 0.5
    ) -> None:
        super().__init__()
        self.means, self.scale = MaskedHead(similarity, scale), scale
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))

    def compute_prototypes(self, features: Tensor, masks: Tensor) -> Prototypes:
        """Average the features under the masks; the background's are not looked at."""
        found = self.means.compute_prototypes(features, masks[..., 1:, :, :])
        return Prototypes(F.pad(found.vectors, (0, 0, 1, 0)), _with_background(found.valid, masks))

    def match_features(self, queries: Tensor, prototypes: Prototypes) -> Tensor:
        """Compare every position of each query with every organ, and with t."""
        logits = self.means.match_features(queries, prototypes)
        background = (self.scale * self.threshold).expand_as(logits[..., :1, :, :])
        return torch.cat([background, logits[..., 1:, :, :]], dim=-3)

    def extra_repr(self) -> str:
        """Say the settings; a checkpoint knows its network by this text."""
        return f"similarity={self.means.similarity!r}, scale={self.scale}"


@dataclass(frozen=True)
class AttentionHead(Head):
    """No mean: a query pixel attends to all support pixels and takes over what they are.

    a_j = softmax_j(α s(q, f_j)) over all positions j of all support images,
    p_k = Σ_j a_j m_jk / Σ_l Σ_j a_j m_jl,   ℓ_k = log p_k

    with m_jk the share of class k in cell j, so that softmax(ℓ) is p.

    Arguments:
        votes: "pixels": every support pixel has the same vote, so that a class with more pixels
            starts ahead. "classes": m_jk is divided by Σ_j m_jk, so that all classes start level.

    Source: Vinyals et al. 2016 (matching networks), on pixels. Notebook 10.
    """

    votes: Literal["pixels", "classes"] = "pixels"

    @staticmethod
    def compute_prototypes(features: Tensor, masks: Tensor) -> Prototypes:
        """Keep all support cells and their masks: vectors (…, S·H'·W', D + K)."""
        values = _shrunk(masks.to(features), features.shape[-2:])
        shown = (values > 0).flatten(-2).any(dim=-1).any(dim=-2)  # (…, K)
        cells = torch.cat([features, values], dim=-3)  # (…, S, D + K, H', W')
        return Prototypes(cells.movedim(-3, -1).flatten(-4, -2), shown)

    def match_features(self, queries: Tensor, prototypes: Prototypes) -> Tensor:
        """Let every position of each query ask all support cells."""
        depth = queries.shape[-3]
        keys, values = prototypes.vectors.tensor_split([depth], dim=-1)  # (…, J, D), (…, J, K)
        if self.votes == "classes":
            total = values.sum(dim=-2, keepdim=True)
            values = values / torch.where(total > 0, total, 1.0)
        asked = queries.flatten(-2).mT  # (…, Q, P, D)
        share = (self.scale * similarity(asked, keys[..., None, :, :], self.similarity)).softmax(-1)
        found = share @ values[..., None, :, :]  # (…, Q, P, K)
        tiny = torch.finfo(found.dtype).tiny
        logits = (found / found.sum(dim=-1, keepdim=True).clamp_min(tiny)).clamp_min(tiny).log().mT
        logits = logits.masked_fill(~prototypes.valid[..., None, :, None], -math.inf)
        return logits.reshape(*logits.shape[:-1], *queries.shape[-2:])


class CrossBlock(nn.Module):
    """Mix a query with each support image, position by position, and average over the support.

    z_i = W ∗ [u ‖ v_i],   u' = A(W_u ∗ mean_i z_i),   v_i' = A(W_v ∗ z_i)

    with ∗ a 3×3 convolution, ‖ the channels side by side and A the leaky ReLU.

    Arguments:
        query, support: channels of u and of v_i.
        width: channels of u' and v_i'.

    Call: u (B, C, H, W), v (B, S, C', H, W) → u' (B, width, H, W), v' (B, S, width, H, W).

    Source: UniverSeg (Butoi et al. 2023, §3.2; its published code has no A before the mean).
    Notebook 10.

    >>> block = CrossBlock(2, 3, 4)
    >>> [part.shape[1] for part in block(torch.zeros(1, 2, 8, 8), torch.zeros(1, 5, 3, 8, 8))]
    [4, 5]
    """

    def __init__(self, query: int, support: int, width: int) -> None:
        super().__init__()
        self.cross = nn.Conv2d(query + support, width, 3, padding=1)
        self.to_query = nn.Conv2d(width, width, 3, padding=1)
        self.to_support = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, query: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next query map and the next support maps."""
        beside = query[:, None].expand(-1, support.shape[1], -1, -1, -1)
        mixed = self.cross(torch.cat([beside, support], dim=2).flatten(0, 1))
        mixed = mixed.reshape(*support.shape[:2], *mixed.shape[1:])  # (B, S, width, H, W)
        following = F.leaky_relu(self.to_query(mixed.mean(dim=1)))
        supports = F.leaky_relu(self.to_support(mixed.flatten(0, 1)))
        return following, supports.reshape(*support.shape[:2], *supports.shape[1:])


class CrossHead(nn.Module):
    """Learn the comparison too: a small U of cross-blocks over query and support.

    Every organ is asked for by itself, with v_i = [f_i ‖ m_i] its features and its mask: ℓ_k is
    what the last block says of organ k, times α, and ℓ_0 = 0.

    Arguments:
        similarity: not used; what is alike is learned.
        scale: α.
        feat_dim: D of the encoder.
        width: channels of every block.
        depth: how often the maps are halved, ≥ 0. Blocks see 3×3 positions: without halving,
            nothing far from its own place is ever compared.

    Source: UniverSeg (Butoi et al. 2023), behind an encoder and smaller. Notebook 10.
    """

    def __init__(
        self,
        similarity: Similarity = "cosine",
        scale: float = 1.0,
        *,
        feat_dim: int = 32,
        width: int = 16,
        depth: int = 3,
    ) -> None:
        super().__init__()
        self.scale, depth = Head(similarity, scale).scale, require_count("depth", depth, 0)
        self.down = nn.ModuleList([CrossBlock(feat_dim, feat_dim + 1, width)])
        self.down.extend(CrossBlock(width, width, width) for _ in range(depth))
        self.up = nn.ModuleList(CrossBlock(2 * width, 2 * width, width) for _ in range(depth))
        self.last = nn.Conv2d(width, 1, 1)

    @staticmethod
    def compute_prototypes(features: Tensor, masks: Tensor) -> Prototypes:
        """Keep the support as it is, once per organ: vectors (…, K − 1, S, D + 1, H', W')."""
        shrunk = _shrunk(masks.to(features), features.shape[-2:])
        organs = shrunk[..., 1:, :, :].transpose(-4, -3).unsqueeze(-3)  # (…, K − 1, S, 1, H', W')
        beside = features[..., None, :, :, :, :].expand(*organs.shape[:-3], *features.shape[-3:])
        shown = (masks[..., 1:, :, :] > 0).flatten(-2).any(dim=-1).any(dim=-2)
        return Prototypes(torch.cat([beside, organs], dim=-3), _with_background(shown, masks))

    def match_features(self, queries: Tensor, prototypes: Prototypes) -> Tensor:
        """Ask the blocks about every query and organ."""
        support = prototypes.vectors[..., None, :, :, :, :, :]  # (…, 1, K − 1, S, D + 1, H', W')
        lead, n_classes = queries.shape[:-3], support.shape[-5]
        asked = queries[..., None, :, :, :].expand(*lead, n_classes, *queries.shape[-3:])
        told = support.expand(*lead, *support.shape[-5:])
        weights = self.last.weight  # the blocks compute in their own precision
        found = self._compared(asked.flatten(0, -4).to(weights), told.flatten(0, -5).to(weights))
        found = found.to(queries)  # (B, 1, H', W')
        organs = self.scale * found.reshape(*lead, n_classes, *queries.shape[-2:])
        logits = F.pad(organs, (0, 0, 0, 0, 1, 0))
        return logits.masked_fill(~prototypes.valid[..., None, :, None, None], -math.inf)

    def extra_repr(self) -> str:
        """Say the settings that the layers do not show."""
        return f"scale={self.scale}"

    def _compared(self, query: Tensor, support: Tensor) -> Tensor:
        """Run the U: (B, D, H', W') and (B, S, D + 1, H', W') → (B, 1, H', W')."""
        kept: list[tuple[Tensor, Tensor]] = []
        for level, block in enumerate(self.down):
            if level:
                query, support = (_resized(part, 0.5) for part in kept[-1])
            kept.append(block(query, support))
        query, support = kept.pop()
        for block in self.up:
            size = kept[-1][0].shape[-2:]
            larger = (_resized(part, size) for part in (query, support))
            pairs = zip(larger, kept.pop(), strict=True)
            query, support = block(*(torch.cat(pair, dim=-3) for pair in pairs))
        found: Tensor = self.last(query)
        return found


@dataclass(frozen=True)
class GridHead(Head):
    """One prototype per class and window; a position is compared with its own window only.

    A class without support pixels in a window is not predicted there. Where a window shows no class
    at all, those that the episode shows tie at 0. As many windows as positions copy the support,
    like the note.

    Arguments:
        grid: windows along each side, see ``grid_prototypes``.

    Source: Yu et al. 2021.
    """

    grid: int = 4

    def compute_prototypes(self, features: Tensor, masks: Tensor) -> Prototypes:
        """Average the features under each class's masks, window by window."""
        vectors, valid = grid_prototypes(features, masks, self.grid)
        # Interpolated features reach half a cell over a window's edge, and so would a class: it is
        # in a window only when it has a pixel there.
        shown = _shrunk(masks.to(torch.float32), features.shape[-2:]) > 0
        shown = _windows(shown, self.grid, self.grid).any(dim=-1).any(dim=-4)  # over the images
        return Prototypes(vectors, valid & shown)

    def match_features(self, queries: Tensor, prototypes: Prototypes) -> Tensor:
        """Compare every position of each query with the classes of its window."""
        valid, (height, width) = prototypes.valid, queries.shape[-2:]
        logits = self.scale * local_similarity(queries, prototypes.vectors, self.similarity)
        possible = cells_to_positions(valid[..., None, :, :, :], (height, width))
        unknown = ~possible.any(dim=-3, keepdim=True)
        shown = valid.flatten(-2).any(dim=-1)[..., None, :, None, None]
        logits = torch.where(unknown, 0.0, logits)
        return logits.masked_fill(~(possible | (unknown & shown)), -math.inf)


@dataclass(frozen=True)
class ExemplarHead(Head):
    """No mean: a class is known by the support features inside it.

    logit_k(p) = mean of the ``top_k`` largest α · s(q(p), e) over the exemplars e of class k

    A feature cell is an exemplar of k when k covers at least half of it or, for an organ smaller
    than that, as much as of any cell.

    Arguments:
        top_k: similarities averaged.
        max_exemplars: kept cells per class, drawn evenly and always alike; None keeps all.

    Source: notebook 08, whose recipe adds the place in the body.
    """

    top_k: int = 5
    max_exemplars: int | None = 512

    def compute_prototypes(self, features: Tensor, masks: Tensor) -> Prototypes:
        """Choose the cells that stand for each class, M at most."""
        share = _shrunk(masks.float(), features.shape[-2:])
        share = share.flatten(-2).movedim(-3, -2).flatten(-2)  # (…, K, S·H'·W')
        enough = share.amax(dim=-1, keepdim=True).clamp_max(0.5)
        member = (share >= enough) & (share > 0)
        longest = int(member.sum(dim=-1).max()) if member.numel() else 0
        kept = max(1, longest if self.max_exemplars is None else min(self.max_exemplars, longest))
        shuffle = torch.Generator().manual_seed(0)  # the same choice for the same masks, always
        place = torch.randperm(share.shape[-1], generator=shuffle).to(masks.device)
        order = torch.where(member, place, share.shape[-1])
        index = order.topk(kept, dim=-1, largest=False).indices  # (…, K, M)
        cells = features.movedim(-3, -1).flatten(-4, -2)  # (…, S·H'·W', D)
        picked = index.flatten(-2)[..., None].expand(*index.shape[:-2], -1, cells.shape[-1])
        vectors = cells.gather(-2, picked).reshape(*index.shape, cells.shape[-1])
        return Prototypes(vectors, member.gather(-1, index))

    def match_features(self, queries: Tensor, prototypes: Prototypes) -> Tensor:
        """Average, at every position, the similarities of each class's best exemplars."""
        valid, exemplars = prototypes.valid, prototypes.vectors.flatten(-3, -2)
        logits = similarity(queries.flatten(-2).mT, exemplars[..., None, :, :], self.similarity)
        # (…, Q, P, K, M)
        logits = self.scale * logits.reshape(*logits.shape[:-1], *valid.shape[-2:])
        logits = logits.masked_fill(~valid[..., None, None, :, :], -math.inf)
        best = logits.topk(min(self.top_k, valid.shape[-1]), dim=-1).values
        counted = (best > -math.inf).sum(dim=-1)
        mean = best.masked_fill(best == -math.inf, 0.0).sum(dim=-1) / counted.clamp_min(1)
        logits = mean.masked_fill(counted == 0, -math.inf).mT  # (…, Q, K, P)
        return logits.reshape(*logits.shape[:-1], *queries.shape[-2:])


HEADS: dict[Kind, type[Head | ThresholdHead | CrossHead]] = {
    "position": PositionHead,
    "masked": MaskedHead,
    "grid": GridHead,
    "exemplars": ExemplarHead,
    "local": LocalHead,
    "threshold": ThresholdHead,
    "attention": AttentionHead,
    "cross": CrossHead,
}


def upsample(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    """Interpolate logits (…, H', W') to ``size``, bilinear as in the note (align_corners=False).

    A pixel in a cell of −inf stays −inf; the others are interpolated among the finite cells.
    """
    with full_precision(logits):
        wide = upcast(logits)
        possible = wide > -math.inf
        if bool(possible.all()):
            return _upsampling(wide, size).to(logits.dtype)
        share = _upsampling(possible.to(wide.dtype), size)
        values = _upsampling(wide.masked_fill(~possible, 0.0), size)
        values = values / torch.where(share > 0, share, 1.0)
        rows = torch.arange(size[0], device=logits.device) * logits.shape[-2] // size[0]
        columns = torch.arange(size[1], device=logits.device) * logits.shape[-1] // size[1]
        possible = possible[..., rows[:, None], columns]
        return values.masked_fill(~possible, -math.inf).to(logits.dtype)


def _map_similarity(queries: Tensor, prototypes: Tensor, kind: Similarity) -> Tensor:
    """Compare query maps (…, Q, D, H', W') with prototypes (…, K, D): (…, Q, K, H', W')."""
    maps, known = queries.flatten(-2), prototypes[..., None, :, :]  # (…, Q, D, P), (…, 1, K, D)
    if kind == "cosine":
        # The maps are the large tensors: they are read as they lie and never copied.
        squared = maps.square().sum(dim=-2, keepdim=True)
        inverse = torch.where(squared > 0, squared, 1.0).rsqrt()
        logits = (F.normalize(known, dim=-1) @ maps) * inverse
    else:
        logits = similarity(maps.mT, known, kind).mT
    return logits.reshape(*logits.shape[:-1], *queries.shape[-2:])


def _merged(logits: Tensor, valid: Tensor) -> Tensor:
    """Return Σ_r softmax_r(ℓ_r) ℓ_r over the valid parts r: (…, R, H', W') → (…, H', W')."""
    share = logits.masked_fill(~valid, torch.finfo(logits.dtype).min).softmax(dim=-3)
    return (share * torch.where(valid, logits, 0.0)).sum(dim=-3)


def _shrunk(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Average maps (…, H, W) over the cells of a feature map: (…, H', W')."""
    pooled = F.adaptive_avg_pool2d(maps.reshape(-1, 1, *maps.shape[-2:]), (size[0], size[1]))
    return pooled.view(*maps.shape[:-2], *size)


def _parts(features: Tensor, masks: Tensor, grid: int) -> Prototypes:
    """Average each class in every window of each image that it fills to more than half.

    Features (…, S, D, H', W'), masks (…, S, K, H, W) → vectors (…, K, R, D), valid (…, K, R) with
    R = S·grid².
    """
    images, shown = features[..., None, :, :, :], masks[..., None, :, :, :]
    vectors, valid = grid_prototypes(images, shown, grid, min_share=0.5)  # (…, S, K, D, grid, grid)
    vectors = vectors.flatten(-2).mT.transpose(-4, -3).flatten(-3, -2)
    return Prototypes(vectors, valid.flatten(-2).transpose(-3, -2).flatten(-2))


def _resized(maps: Tensor, by: float | tuple[int, ...]) -> Tensor:
    """Halve maps (…, C, H, W) by means (0.5) or interpolate them to a size."""
    flat = maps.flatten(0, -4)
    if isinstance(by, float):
        small = F.avg_pool2d(flat, 2, ceil_mode=True)
    else:
        small = F.interpolate(flat, size=by, mode="bilinear")
    return small.reshape(*maps.shape[:-3], *small.shape[1:])


def _with_background(shown: Tensor, masks: Tensor) -> Tensor:
    """Put the background before the organs (…, K − 1): it is possible where anything is marked."""
    return torch.cat([(masks > 0).flatten(-4).any(dim=-1, keepdim=True), shown], dim=-1)
