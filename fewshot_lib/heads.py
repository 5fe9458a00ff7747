"""What a prototype is: one small class per head (note §3.1, notebooks 05, 05b, 06 and 08).

A head is what a prototype network has behind its encoder, with settings and without weights:
``compute_prototypes`` says what the support shows of each class, ``match_features`` compares every
position of a query with it. Both get float32 at least: ``FewShotSegmentationNet`` sees to that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot_lib._tensors import full_precision, require_count, widened
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

Kind = Literal["position", "masked", "grid", "exemplars"]
Similarity = Literal["cosine", "squared_euclidean"]

SIMILARITIES: tuple[Similarity, ...] = ("cosine", "squared_euclidean")


@dataclass(frozen=True)
class Prototypes:
    """Hold what the classes of an episode are known by, and which of it exists.

    Arguments:
        vectors: (…, K, D) for "masked", (…, K, D, rows, columns) for "grid", (…, K, M, D) for
            "exemplars".
        valid: bool, (…, K), (…, K, rows, columns) or (…, K, M): False where ``vectors`` holds a
            placeholder because the class has no support pixel there.
        background: vectors (…, R, D) and valid (…, R) of the background's parts, if it has several.
    """

    vectors: Tensor
    valid: Tensor
    background: Prototypes | None = None


@dataclass(frozen=True)
class Head:
    """Hold what all heads share: logit_k(p) = α · s(q(p), c_k).

    Arguments:
        similarity: s, "cosine" or "squared_euclidean" (−‖·−·‖²).
        scale: α ≥ 0, *multiplies*.

    Methods of every head:
        compute_prototypes: features (…, S, D, H', W'), masks (…, S, K, H, W) → prototypes.
        match_features: queries (…, Q, D, H', W'), prototypes → logits (…, Q, K, H', W'), −inf where
            a class cannot be predicted.

    Raises:
        ValueError, TypeError: a setting, also of the heads below, that is unknown or out of range.
    """

    similarity: Similarity = "cosine"
    scale: float = 20.0

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise ValueError(f"scale must be finite and at least 0, got {self.scale}")
        words = {"similarity": SIMILARITIES, "pooling": POOLINGS}
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
        prototypes = widened(prototypes)
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
        images, background = features[..., None, :, :, :], masks[..., None, :1, :, :]
        parts, filled = grid_prototypes(images, background, self.background_grid, min_share=0.5)
        parts = parts.flatten(-2).mT.flatten(-4, -2)  # (…, S, 1, D, grid, grid) → (…, R, D)
        return Prototypes(vectors, valid, background=Prototypes(parts, filled.flatten(-4)))

    def match_features(self, queries: Tensor, prototypes: Prototypes) -> Tensor:
        """Compare every position of each query with every class."""
        logits = self.scale * _map_similarity(queries, prototypes.vectors, self.similarity)
        if prototypes.background is not None:
            one_mean, organs = logits[..., :1, :, :], logits[..., 1:, :, :]
            merged = self._merged(queries, prototypes.background, one_mean)
            logits = torch.cat([merged, organs], dim=-3)
        return logits.masked_fill(~prototypes.valid[..., None, :, None, None], -math.inf)

    def _merged(self, queries: Tensor, parts: Prototypes, one_mean: Tensor) -> Tensor:
        """Return the background's logit (…, Q, 1, H', W') from those of its parts."""
        valid = parts.valid[..., None, :, None, None]
        logits = self.scale * _map_similarity(queries, parts.vectors, self.similarity)
        share = logits.masked_fill(~valid, torch.finfo(logits.dtype).min).softmax(dim=-3)
        merged = (share * torch.where(valid, logits, 0.0)).sum(dim=-3, keepdim=True)
        return torch.where(valid.any(dim=-3, keepdim=True), merged, one_mean)


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
        alike = similarity(queries.flatten(-2).mT, exemplars[..., None, :, :], self.similarity)
        alike = self.scale * alike.reshape(*alike.shape[:-1], *valid.shape[-2:])  # (…, Q, P, K, M)
        alike = alike.masked_fill(~valid[..., None, None, :, :], -math.inf)
        best = alike.topk(min(self.top_k, valid.shape[-1]), dim=-1).values
        counted = (best > -math.inf).sum(dim=-1)
        mean = best.masked_fill(best == -math.inf, 0.0).sum(dim=-1) / counted.clamp_min(1)
        logits = mean.masked_fill(counted == 0, -math.inf).mT  # (…, Q, K, P)
        return logits.reshape(*logits.shape[:-1], *queries.shape[-2:])


HEADS: dict[Kind, type[Head]] = {
    "position": PositionHead,
    "masked": MaskedHead,
    "grid": GridHead,
    "exemplars": ExemplarHead,
}


def upsample(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    """Interpolate logits (…, H', W') to ``size``, bilinear as in the note (align_corners=False).

    A pixel in a cell of −inf stays −inf; the others are interpolated among the finite cells.
    """
    with full_precision(logits):
        wide = widened(logits)
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
        alike = (F.normalize(known, dim=-1) @ maps) * inverse
    else:
        alike = similarity(maps.mT, known, kind).mT
    return alike.reshape(*alike.shape[:-1], *queries.shape[-2:])


def _shrunk(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Average maps (…, H, W) over the cells of a feature map: (…, H', W')."""
    pooled = F.adaptive_avg_pool2d(maps.reshape(-1, 1, *maps.shape[-2:]), (size[0], size[1]))
    return pooled.view(*maps.shape[:-2], *size)
