"""Networks that segment from a few labelled images (note §3.1, notebooks 05 and 06).

``FewShotSegmentationNet`` is the note's network made whole: the same names and call form, with a
choice of what a prototype is. ``prototypes="position", scale=1.0`` is the note's own, to the
letter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_lib._tensors import full_precision, widened
from fewshot_lib.prototypes import (
    Pooling,
    _interpolation,
    _windows,
    cells_to_positions,
    grid_prototypes,
    local_similarity,
    masked_prototypes,
    similarity,
)

Kind = Literal["position", "masked", "grid", "exemplars"]
Similarity = Literal["cosine", "squared_euclidean"]

KINDS: tuple[Kind, ...] = ("position", "masked", "grid", "exemplars")
SIMILARITIES: tuple[Similarity, ...] = ("cosine", "squared_euclidean")


class UNetEncoder(nn.Module):
    """Turn images into feature maps with a U-Net: contract, expand, join what has the same size.

    f_θ: level l = 0 … depth works at 1/2^l of the size with width·2^l channels, two 3×3
    convolutions each; the way up goes back to 1/stride, joining the features of the way down at
    each level, and a 1×1 convolution makes feat_dim channels. Group normalisation looks at one
    image at a time, so that an image's features do not depend on the others in its batch: support
    and query do not leak into each other, and a batch of one is as good as any.

    A side that is no multiple of 2^depth is first resampled (bilinear) to the next one. Feature
    cell i of n then covers exactly i/n … (i+1)/n of the image, as ``F.interpolate`` has it.

    Arguments:
        in_channels: C, channels of an image.
        feat_dim: D, channels of a feature map.
        width: channels of the first level, doubled at each level down.
        depth: how often the size is halved on the way down, ≥ 1.
        stride: image pixels a feature cell, along each side: 1, 2, 4 … below 2^depth.
        nonnegative: end with a ReLU, so that no cosine of two features is negative.

    Call: images (B, C, H, W) floating → (B, D, H', W'), H' = ⌈H/2^depth⌉·2^depth / stride.

    Raises:
        ValueError: settings out of range; images of another shape.

    Source: Ronneberger et al. 2015 (U-Net); Wu and He 2018 (group normalisation); note §3.1, which
    names ``UNetEncoder`` and does not define it. Notebooks 05 and 06.

    >>> UNetEncoder(feat_dim=8, width=4)(torch.zeros(2, 1, 64, 40)).shape
    torch.Size([2, 8, 16, 12])
    """

    def __init__(
        self,
        in_channels: int = 1,
        feat_dim: int = 256,
        *,
        width: int = 16,
        depth: int = 4,
        stride: int = 4,
        nonnegative: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "feat_dim": feat_dim, "width": width, "depth": depth}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        strides = [2**level for level in range(depth)]
        if stride not in strides:
            raise ValueError(
                f"stride must be one of {strides} (a power of two below 2^depth = {2**depth}, so "
                f"that there is a way up), got {stride}"
            )
        self.in_channels, self.feat_dim = in_channels, feat_dim
        self.depth, self.stride, self.nonnegative = depth, stride, nonnegative
        channels = [width * 2**level for level in range(depth + 1)]
        levels_up = range(depth - 1, strides.index(stride) - 1, -1)
        self.contracting = nn.ModuleList(
            _double_convolution(before, after)
            for before, after in zip([in_channels, *channels[:-1]], channels, strict=True)
        )
        self.upsampling = nn.ModuleList(
            nn.ConvTranspose2d(channels[level + 1], channels[level], 2, stride=2)
            for level in levels_up
        )
        self.expanding = nn.ModuleList(
            _double_convolution(2 * channels[level], channels[level]) for level in levels_up
        )
        self.projection = nn.Conv2d(channels[levels_up[-1]], feat_dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the feature maps (B, D, H', W') of images (B, C, H, W)."""
        if images.ndim != 4 or images.shape[1] != self.in_channels or 0 in images.shape[2:]:
            raise ValueError(
                f"expected images (B, {self.in_channels}, H, W), got shape {tuple(images.shape)}"
            )
        step = 2**self.depth
        height, width = (-(-side // step) * step for side in images.shape[-2:])
        if images.shape[0] == 0:
            size = (0, self.feat_dim, height // self.stride, width // self.stride)
            return images.new_zeros(size)
        if images.shape[-2:] != (height, width):
            images = F.interpolate(
                images, size=(height, width), mode="bilinear", align_corners=False
            )
        features, skips = images, []
        for level, convolve in enumerate(self.contracting):
            features = convolve(F.max_pool2d(features, 2) if level else features)
            skips.append(features)
        skips.pop()
        for upsample, convolve in zip(self.upsampling, self.expanding, strict=True):
            features = convolve(torch.cat([skips.pop(), upsample(features)], dim=1))
        projected: Tensor = self.projection(features)
        return projected.relu() if self.nonnegative else projected


def _double_convolution(before: int, after: int) -> nn.Sequential:
    groups = math.gcd(8, after)
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.GroupNorm(groups, after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1, bias=False),
        nn.GroupNorm(groups, after),
        nn.ReLU(inplace=True),
    )


class DigitEncoder(nn.Module):
    """Turn small images into embedding vectors: three convolutions, halved twice, flattened.

    f_θ: 3×3 convolution, group normalisation, ReLU, 2×2 max-pooling; the same again with twice the
    channels; a last convolution and normalisation without ReLU, so that an embedding may point
    anywhere. It is the embedding of Snell et al. cut down to 8×8 digits; group normalisation in the
    place of batch normalisation keeps an image's embedding free of the others in its batch.

    Arguments:
        in_channels: C, channels of an image.
        width: channels of the first convolution; the others have twice as many.

    Call: images (B, C, H, W) floating, H and W ≥ 4 → (B, D), D = 2·width·⌊H/4⌋·⌊W/4⌋.

    Raises:
        ValueError: settings below 1; images of another shape.

    Source: Snell et al. 2017, §3.1 (four such blocks for 28×28). Notebooks 03 and 04.

    >>> DigitEncoder()(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 256])
    """

    def __init__(self, in_channels: int = 1, *, width: int = 32) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("width", width)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.in_channels = in_channels
        self.layers = nn.Sequential(
            *_convolution_and_norm(in_channels, width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            *_convolution_and_norm(width, 2 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            *_convolution_and_norm(2 * width, 2 * width),
            nn.Flatten(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings (B, D) of images (B, C, H, W)."""
        if images.ndim != 4 or images.shape[1] != self.in_channels or min(images.shape[2:]) < 4:
            raise ValueError(
                f"expected images (B, {self.in_channels}, H, W) of at least 4×4 pixels, got shape "
                f"{tuple(images.shape)}; add the channel dimension with images[:, None]"
            )
        embeddings: Tensor = self.layers(images)
        return embeddings


def _convolution_and_norm(before: int, after: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(math.gcd(8, after), after)


class PixelClassifier(nn.Module):
    """Segment in the ordinary way: an encoder, and one linear classifier for all pixels.

    logit_k(p) = w_kᵀ f_θ(x)(p) + b_k, upsampled (bilinear) to the image. By T3 of notebook 04 this
    is what a squared-Euclidean prototype network computes, with w and b learnt instead of computed.

    Arguments:
        encoder: images (B, C, H, W) → features (B, D, H', W').
        feat_dim: D, the encoder's channels.
        n_classes: K, background included.

    Call: images (B, C, H, W) → logits (B, K, H, W); −inf for a class whose entry in the buffer
        ``possible`` (K,) bool is False (all are True at first).

    Source: the supervised rows of notebook 06; the learning curve of notebook 01.

    >>> PixelClassifier(UNetEncoder(1, 8, width=4), 8, 3)(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(self, encoder: nn.Module, feat_dim: int, n_classes: int) -> None:
        super().__init__()
        if n_classes < 1:
            raise ValueError(f"n_classes must be at least 1, got {n_classes}")
        self.encoder, self.n_classes = encoder, n_classes
        self.classifier = nn.Conv2d(feat_dim, n_classes, 1)
        self.possible: Tensor
        self.register_buffer("possible", torch.ones(n_classes, dtype=torch.bool))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) of images (B, C, H, W)."""
        return self.classify(self.encoder(images), (images.shape[-2], images.shape[-1]))

    def classify(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Return logits (B, K, H, W) for ``size`` (H, W) of feature maps (B, D, H', W')."""
        logits = _resized(self.classifier(features), size)
        return logits.masked_fill(~self.possible[:, None, None], -math.inf)


@dataclass(frozen=True)
class Prototypes:
    """Hold what the classes of an episode are known by, and which of it there is.

    Arguments:
        vectors: (…, K, D) for "masked", (…, K, D, rows, columns) for "grid", (…, K, M, D) for
            "exemplars".
        valid: bool, (…, K), (…, K, rows, columns) or (…, K, M): False where ``vectors`` holds a
            placeholder because the class has no support pixel there.
        places: (…, K, M, n) body-relative coordinates of each class's support cells (n = 2: row and
            column), if the network weighs location; else None.
        places_valid: (…, K, M) bool, likewise.
        parts: (…, R, D) vectors of the parts of the background, if the network keeps several;
            ``vectors`` and ``valid`` then still hold its one mean, which stands in without a part.
        parts_valid: (…, R) bool, likewise.
    """

    vectors: Tensor
    valid: Tensor
    places: Tensor | None = None
    places_valid: Tensor | None = None
    parts: Tensor | None = None
    parts_valid: Tensor | None = None


class FewShotSegmentationNet(nn.Module):
    """Segment query images by the classes that a few support images show.

    logit_k(p) = α · s(q(p), c_k) − λ · d²_k(p),   q = f_θ(query), s = cosine or −‖·−·‖²

    ``prototypes`` says what c_k is:
        "masked": one vector a class, the mean feature under its masks (``masked_prototypes``).
        "grid": one vector a class and window (``grid_prototypes``); a query position is compared
            with its own window. A class without support pixels in a window is not predicted there;
            where a window has none of any class, all classes of the episode tie at 0. As many
            windows as positions copy the support like the note.
        "exemplars": no mean: c_k are the support features inside class k themselves, at most
            ``max_exemplars`` of them, and s is the mean of the ``top_k`` largest similarities. A
            feature cell is an exemplar of k when k covers at least half of it or, for an organ
            smaller than that, as much as of any cell. Which are left out beyond ``max_exemplars``
            is drawn once and for all, evenly.
        "position": the note's network: one vector a class and *position*, masks shrunk by nearest
            neighbour, ε = 1e-5 in the mean, and the zero vector for a class that the support does
            not show. With ``scale=1.0`` and cosine this is the note's code to the letter. It copies
            the support mask (notebook 05).

    Except in "position", a class without any support pixel is never predicted: its logit is −inf.

    λ = ``location_weight`` adds a *soft* prior on place: d²_k(p) is the squared distance between
    the body-relative coordinates of p (``body_coordinates``: 0 … 1 across the body, rows and
    columns) and the nearest support cell of class k, of at most ``max_exemplars`` cells drawn as
    above. With "exemplars" each exemplar has its own place: the top-k are taken over
    α·s(q(p), e) − λ·‖x(p) − x(e)‖². With λ = 20 and cosine at α = 20, an organ a fifth of the body
    away costs as much as 0.04 of cosine; λ = 500 makes that 1.

    Arguments:
        in_channels: C.
        feat_dim: D of the ``UNetEncoder`` made when ``encoder`` is None.
        prototypes: "masked", "grid", "exemplars" or "position".
        similarity: "cosine" or "squared_euclidean".
        scale: α ≥ 0, *multiplies* the similarity. 20 suits the cosine (PANet); squared Euclidean
            needs none: give 1.0.
        grid: windows along each side, for "grid".
        top_k: similarities averaged, for "exemplars".
        max_exemplars: kept cells a class, for "exemplars" and for places; None keeps all.
        pooling: "pixels" or "images", for "masked"; see ``masked_prototypes``.
        background_grid: for "masked": class 0 is no one thing. Above 1 it has a prototype for each
            of background_grid² windows of each support image that it fills to more than half, used
            anywhere in the query; ℓ_0 = Σ_r softmax_r(ℓ_r) ℓ_r over these parts r. 1: one mean.
        location_weight: λ ≥ 0.
        encoder: any images (B, C, H, W) → (B, D, H', W') instead of a ``UNetEncoder``;
            ``nn.Identity()`` compares raw intensities.

    Raises:
        ValueError: an unknown option, a number out of range, ``location_weight`` with "position"
            (whose prototypes cannot leave their place anyway), ``background_grid`` with another
            kind than "masked".

    Source: note §3.1; Wang et al. 2019 (PANet); Yu et al. 2021 (windows); Ouyang et al. 2020, §3.3
    (windows that serve the whole query). Notebooks 05, 06 and 08.

    >>> net = FewShotSegmentationNet(feat_dim=8)
    >>> images, masks = torch.rand(3, 1, 32, 32), torch.ones(2, 1, 32, 32)
    >>> net(images[:2], masks, images[2]).shape
    torch.Size([1, 32, 32])
    """

    def __init__(
        self,
        in_channels: int = 1,
        feat_dim: int = 256,
        prototypes: Kind = "masked",
        similarity: Similarity = "cosine",
        scale: float = 20.0,
        *,
        grid: int = 4,
        top_k: int = 5,
        max_exemplars: int | None = 512,
        pooling: Pooling = "pixels",
        background_grid: int = 1,
        location_weight: float = 0.0,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("prototypes", prototypes, KINDS),
            ("similarity", similarity, SIMILARITIES),
            ("pooling", pooling, ("pixels", "images")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        for name, number in (("scale", scale), ("location_weight", location_weight)):
            if not 0 <= number < math.inf:
                raise ValueError(f"{name} must be finite and at least 0, got {number}")
        for name, count in (
            ("grid", grid),
            ("top_k", top_k),
            ("max_exemplars", max_exemplars),
            ("background_grid", background_grid),
        ):
            if count is not None and count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        if prototypes == "position" and location_weight:
            raise ValueError(
                'location_weight must be 0 with prototypes="position": they are bound to their '
                'place already; use "masked", "grid" or "exemplars"'
            )
        if background_grid > 1 and prototypes != "masked":
            raise ValueError(
                f'background_grid must be 1 with prototypes={prototypes!r}; only "masked" parts '
                "the background"
            )
        self.encoder = UNetEncoder(in_channels, feat_dim) if encoder is None else encoder
        self.prototypes, self.similarity, self.scale = prototypes, similarity, float(scale)
        self.grid, self.top_k, self.max_exemplars = grid, top_k, max_exemplars
        self.pooling, self.location_weight = pooling, float(location_weight)
        self.background_grid = background_grid

    def extra_repr(self) -> str:
        """Say how the network compares, for ``print``."""
        said = f"prototypes={self.prototypes!r}, similarity={self.similarity!r}, scale={self.scale}"
        of_kind = {
            "masked": f", pooling={self.pooling!r}",
            "grid": f", grid={self.grid}",
            "exemplars": f", top_k={self.top_k}, max_exemplars={self.max_exemplars}",
            "position": "",
        }
        placed = f", location_weight={self.location_weight}" if self.location_weight else ""
        parts = f", background_grid={self.background_grid}" if self.background_grid > 1 else ""
        return said + of_kind[self.prototypes] + parts + placed

    def forward(
        self,
        support_images: Tensor,
        support_masks: Tensor,
        query_image: Tensor,
        *,
        support_coordinates: Tensor | None = None,
        query_coordinates: Tensor | None = None,
    ) -> Tensor:
        """Return logits for one query image, for several, or for several episodes.

        Arguments:
            support_images: (S, C, H, W), or (E, S, C, H, W) for E episodes.
            support_masks: (S, K, H, W) or (E, S, K, H, W): bool, integer or floating in 0 … 1, one
                channel a class.
            query_image: (C, H, W) as in the note, (Q, C, H, W), or (E, Q, C, H, W).
            support_coordinates: (…, S, n, H, W), where each pixel is, if ``location_weight`` > 0;
                None: ``body_coordinates(support_images)``, n = 2. Another n can hold the slice too.
            query_coordinates: likewise, query_image's shape with n for C.

        Returns:
            (K, H, W), (Q, K, H, W) or (E, Q, K, H, W): logits at the query's size, in the features'
            type; −inf where a class cannot be predicted.

        Raises:
            ValueError: shapes that do not fit, masks outside 0 … 1, or (except in "position") an
                episode whose support shows no class at all.
        """
        _check_episode(support_images, support_masks, query_image)
        single = query_image.ndim == 3
        queries = query_image[None] if single else query_image
        support_features = self._encode(support_images)
        query_features = self._encode(queries)
        places = query_places = None
        if self.location_weight:
            places, query_places = support_coordinates, query_coordinates
            if places is None:
                places = body_coordinates(support_images)
            if query_places is None:
                query_places = body_coordinates(queries)
            elif single:
                query_places = query_places[None]
        size = (queries.shape[-2], queries.shape[-1])
        with full_precision(query_features):
            known = self.compute_prototypes(support_features, support_masks, places)
            alike, possible = self._match(query_features, known, query_places)
            logits = _upsampled(alike, possible, size, query_features.dtype)
        return logits[0] if single else logits

    def compute_prototypes(
        self, features: Tensor, masks: Tensor, coordinates: Tensor | None = None
    ) -> Tensor | Prototypes:
        """Compute what the support says of each class.

        Arguments:
            features: (…, S, D, H', W'), the support's feature maps.
            masks: (…, S, K, H, W).
            coordinates: (…, S, n, H, W), needed if ``location_weight`` > 0.

        Returns:
            For "position" the note's tensor (…, K, D, H', W'); otherwise ``Prototypes``.

        Raises:
            ValueError: shapes that do not fit, masks outside 0 … 1, no class with support pixels.
        """
        _check_support(features, masks)
        if self.prototypes == "position":
            with full_precision(features):
                return _position_prototypes(features, masks)
        places = places_valid = parts = parts_valid = None
        if self.location_weight and coordinates is None:
            raise ValueError(
                "location_weight > 0 needs the coordinates of the support's pixels: pass "
                "body_coordinates(support_images)"
            )
        if self.prototypes == "masked":
            vectors, valid = masked_prototypes(features, masks, self.pooling)
            if self.background_grid > 1:
                parts, parts_valid = _background_parts(features, masks, self.background_grid)
        elif self.prototypes == "grid":
            vectors, valid = grid_prototypes(features, masks, self.grid)
            valid = valid & _shown_in_window(masks, features, self.grid)
        if self.location_weight or self.prototypes == "exemplars":
            size = (features.shape[-2], features.shape[-1])
            index, chosen = _exemplar_cells(masks, size, self.max_exemplars)
            if self.prototypes == "exemplars":
                vectors, valid = _gathered(features, index), chosen
            if coordinates is not None and self.location_weight:
                places, places_valid = _gathered(_shrunk(coordinates, size), index), chosen
        some = valid.flatten(masks.ndim - 4).any(dim=-1)
        if not bool(some.all()):
            raise ValueError(
                "no class has a support pixel, so nothing can be predicted; at least one mask of "
                "each episode must not be empty (a background channel is one)"
            )
        return Prototypes(vectors, valid, places, places_valid, parts, parts_valid)

    def match_features(
        self,
        query_features: Tensor,
        prototypes: Tensor | Prototypes,
        coordinates: Tensor | None = None,
    ) -> Tensor:
        """Compare every position of the query's feature maps with the prototypes.

        Arguments:
            query_features: (…, Q, D, H', W'). The note's form (1, D, H', W'), one query and no
                leading dimension, gives the note's result (K, H', W'); every other form keeps Q.
            prototypes: what ``compute_prototypes`` returned.
            coordinates: (…, Q, n, H, W) of the query's pixels, if ``location_weight`` > 0.

        Returns:
            (…, Q, K, H', W') logits at the features' size: α · similarity, less λ · d²; −inf where
            a class cannot be predicted.

        Raises:
            ValueError: shapes that do not fit. A batch of queries is never paired with the classes,
                whatever Q and K.
        """
        if query_features.ndim < 4:
            raise ValueError(
                "expected query_features (…, Q, D, H', W'), got shape "
                f"{tuple(query_features.shape)}; a single map needs query_features[None]"
            )
        if self.location_weight and coordinates is None:
            raise ValueError(
                "location_weight > 0 needs the coordinates of the query's pixels: pass "
                "body_coordinates(query_images)"
            )
        with full_precision(query_features):
            alike, possible = self._match(query_features, prototypes, coordinates)
            alike = _narrowed(alike, possible, query_features.dtype)
        return alike[0] if alike.ndim == 4 and alike.shape[0] == 1 else alike

    def _encode(self, images: Tensor) -> Tensor:
        features: Tensor = self.encoder(images.flatten(0, -4))
        return features.view(*images.shape[:-3], *features.shape[1:])

    def _match(
        self, queries: Tensor, known: Tensor | Prototypes, coordinates: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return finite logits (…, Q, K, H', W') and where they count (broadcasts), None: all."""
        size = (queries.shape[-2], queries.shape[-1])
        queries = widened(queries)
        if isinstance(known, Tensor):
            known = widened(known)
            return self.scale * _paired_similarity(queries, known, self.similarity), None
        vectors, valid = widened(known.vectors), known.valid
        if coordinates is not None:
            coordinates = _shrunk(coordinates, size)
        if self.prototypes == "exemplars":
            alike = self._exemplar_logits(queries, known, coordinates)
            return alike, valid.any(dim=-1)[..., None, :, None, None]
        if self.prototypes == "masked":
            alike = self.scale * _map_similarity(queries, vectors, self.similarity)
            possible = valid[..., None, :, None, None]
            if known.parts is not None:
                alike = torch.cat(
                    [
                        self._background_logit(queries, known, alike[..., :1, :, :]),
                        alike[..., 1:, :, :],
                    ],
                    dim=-3,
                )
        else:
            alike = self.scale * local_similarity(queries, vectors, self.similarity)
            possible = cells_to_positions(valid[..., None, :, :, :], size)
            # Nothing is known here of any class: let those that the episode shows tie.
            unknown = ~possible.any(dim=-3, keepdim=True)
            shown = valid.flatten(-2).any(dim=-1)[..., None, :, None, None]
            alike = torch.where(unknown, 0.0, alike)
            possible = possible | (unknown & shown)
        if coordinates is not None:
            alike = alike - self.location_weight * _distance_to_class(coordinates, known)
        return alike, possible

    def _background_logit(self, queries: Tensor, known: Prototypes, mean_alike: Tensor) -> Tensor:
        """Return class 0's logit (…, Q, 1, H', W') from its parts; from its mean without any."""
        assert known.parts is not None
        assert known.parts_valid is not None
        there = known.parts_valid[..., None, :, None, None]
        alike = self.scale * _map_similarity(queries, widened(known.parts), self.similarity)
        share = alike.masked_fill(~there, torch.finfo(alike.dtype).min).softmax(dim=-3)
        merged = (share * torch.where(there, alike, 0.0)).sum(dim=-3, keepdim=True)
        return torch.where(there.any(dim=-3, keepdim=True), merged, mean_alike)

    def _exemplar_logits(
        self, queries: Tensor, known: Prototypes, coordinates: Tensor | None
    ) -> Tensor:
        n_classes, kept = known.valid.shape[-2:]
        asked = queries.flatten(-2).mT  # (…, Q, P, D)
        exemplars = widened(known.vectors).flatten(-3, -2)[..., None, :, :]  # (…, 1, K·M, D)
        alike = self.scale * similarity(asked, exemplars, self.similarity)  # (…, Q, P, K·M)
        if coordinates is not None:
            alike = alike - self.location_weight * _distances_to_places(coordinates, known)
        alike = _split(alike, n_classes, kept)  # (…, Q, P, K, M)
        valid = known.valid[..., None, None, :, :]
        best = alike.masked_fill(~valid, -math.inf).topk(min(self.top_k, kept), dim=-1).values
        counted = best > -math.inf
        total = torch.where(counted, best, 0.0).sum(dim=-1)
        mean = total / counted.sum(dim=-1).clamp_min(1)  # (…, Q, P, K)
        return _split(mean.mT, *queries.shape[-2:])


class OrientationAverage(nn.Module):
    """Average a network's logits over the eight orientations of a square.

    ℓ(x) = 1/8 Σ_T T⁻¹ ℓ(T x), T the flips and the quarter turn, applied to support and query alike.
    Eight times the work, no further training; useful when training turned its episodes too.

    Arguments:
        network: any module of ``FewShotSegmentationNet``'s call form that takes (…, W, H) as well.

    Call: as the network's.

    Source: test-time augmentation; notebook 06.

    >>> net = OrientationAverage(FewShotSegmentationNet(encoder=nn.Identity()))
    >>> images, masks = torch.rand(2, 1, 8, 6), torch.ones(1, 1, 8, 6)
    >>> net(images[:1], masks, images[1]).shape
    torch.Size([1, 8, 6])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, support_images: Tensor, support_masks: Tensor, query_image: Tensor) -> Tensor:
        """Return the mean logits, shaped as the network's."""
        given = support_images, support_masks, query_image
        logits = []
        for dims in ((), (-1,), (-2,), (-2, -1)):
            flipped = [part.flip(dims) for part in given]
            turned = [part.mT.contiguous() for part in flipped]
            logits += [self.network(*flipped).flip(dims), self.network(*turned).mT.flip(dims)]
        return torch.stack(logits).mean(dim=0)


def body_coordinates(images: Tensor) -> Tensor:
    """Say where each pixel lies in the body: 0 … 1 from its first row (column) to its last.

    The body is what is brighter than Otsu's threshold (channels averaged), which parts air from
    tissue; its extent is where the rows' (columns') share of body pixels passes 2 % and 98 %, so
    that a few bright specks outside do not stretch it. An image of one value is all body. Pixels
    outside the body have coordinates below 0 or above 1.

    Arguments:
        images: (…, C, H, W) floating, air darker than tissue.

    Returns:
        (…, 2, H, W) float32 (float64 for float64 images): row and column of each pixel's centre.

    Raises:
        ValueError: fewer than three dimensions, an empty image. TypeError: not floating point.

    Source: Otsu 1979; the location prior of notebook 08.

    >>> image = torch.zeros(1, 10, 10)
    >>> image[:, 2:6, 4:8] = 1.0
    >>> body_coordinates(image)[0, 2:6, 0].tolist()
    [0.125, 0.375, 0.625, 0.875]
    """
    if not images.dtype.is_floating_point:
        raise TypeError(f"images must be floating point, got {images.dtype}; use .float()")
    if images.ndim < 3 or 0 in images.shape[-3:]:
        raise ValueError(f"expected images (…, C, H, W), got shape {tuple(images.shape)}")
    with torch.no_grad():
        grey = widened(images).mean(dim=-3)  # (…, H, W)
        body = grey > _otsu_threshold(grey.flatten(-2))[..., None, None]
        body = body | ~body.any(dim=-1, keepdim=True).any(dim=-2, keepdim=True)
        rows, columns = _across(body.sum(dim=-1), grey.dtype), _across(body.sum(dim=-2), grey.dtype)
        height, width = grey.shape[-2:]
        return torch.stack(
            [
                rows[..., :, None].expand(*rows.shape, width),
                columns[..., None, :].expand(*columns.shape[:-1], height, width),
            ],
            dim=-3,
        )


def _otsu_threshold(values: Tensor) -> Tensor:
    """Return, for each row of (…, P), the value that best parts it into low and high."""
    ordered = values.double().sort(dim=-1).values
    total = ordered.shape[-1]
    below = torch.arange(1, total + 1, dtype=torch.float64, device=values.device)
    sums = ordered.cumsum(dim=-1)
    above = (total - below).clamp_min(1)
    means_apart = sums / below - (sums[..., -1:] - sums) / above
    between = below * (total - below) * means_apart.square()
    return ordered.gather(-1, between.argmax(dim=-1, keepdim=True))[..., 0].to(values.dtype)


def _across(counts: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn body pixels a row (…, H) into each row's place between the body's first and last."""
    passed = counts.to(dtype).cumsum(dim=-1)
    passed = passed / passed[..., -1:]
    first = (passed <= 0.02).sum(dim=-1, keepdim=True)
    last = (passed < 0.98).sum(dim=-1, keepdim=True) + 1
    centres = torch.arange(counts.shape[-1], device=counts.device) + 0.5
    return ((centres - first) / (last - first)).to(dtype)


def _position_prototypes(features: Tensor, masks: Tensor) -> Tensor:
    # The note's mean, its ε and its zero prototypes included:
    # c_k(p) = Σ_s M_sk(p) f_s(p) / (Σ_s M_sk(p) + ε)
    wide = widened(features)
    small = F.interpolate(
        masks.to(wide.dtype).flatten(0, -4), size=features.shape[-2:], mode="nearest"
    ).view(*masks.shape[:-2], *features.shape[-2:])
    summed = torch.einsum("...sdhw,...skhw->...kdhw", wide, small)
    means = summed / (small.sum(dim=-4)[..., :, None, :, :] + 1e-5)
    return means.to(features.dtype)


def _background_parts(features: Tensor, masks: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Return class 0's prototype in each window of each image, (…, S·grid², D), and validity."""
    vectors, valid = grid_prototypes(
        features[..., None, :, :, :], masks[..., None, :1, :, :], grid, min_share=0.5
    )  # (…, S, 1, D, grid, grid), (…, S, 1, grid, grid)
    vectors = vectors.flatten(-2).mT.flatten(-4, -2)
    return vectors, valid.flatten(-4)


def _shown_in_window(masks: Tensor, features: Tensor, grid: int) -> Tensor:
    # Interpolated features reach half a cell over a window's edge, and so would a class: say it is
    # in a window when it has a pixel there. (…, K, grid, grid)
    size = (features.shape[-2], features.shape[-1])
    shown = _shrunk(masks.to(torch.float32), size) > 0
    return _windows(shown, grid, grid).any(dim=-1).any(dim=-4)


def _map_similarity(queries: Tensor, prototypes: Tensor, kind: Similarity) -> Tensor:
    """Compare query maps (…, Q, D, H', W') with prototypes (…, K, D): (…, Q, K, H', W')."""
    flat, known = queries.flatten(-2), prototypes[..., None, :, :]  # (…, Q, D, P), (…, 1, K, D)
    if kind == "cosine":
        directions = F.normalize(known, dim=-1).expand(*flat.shape[:-2], -1, -1)
        alike: Tensor = _MapCosine.apply(flat, directions)  # type: ignore[no-untyped-call]
    else:
        alike = similarity(flat.mT, known, kind).mT
    return _split(alike, *queries.shape[-2:])


class _MapCosine(torch.autograd.Function):
    """ĉᵀq / ‖q‖ for maps q (…, D, P) and unit vectors ĉ (…, K, D): (…, K, P), 0 where q = 0.

    The large tensors are the maps. Left as they lie in memory, read twice and never copied forward,
    and given their gradient in one pass, they cost a third of what q/‖q‖ and autograd take.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(maps: Tensor, directions: Tensor) -> Tensor:
        return (directions @ maps) * _inverse_length(maps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor]:
        maps, directions, cosine = ctx.saved_tensors
        inverse = _inverse_length(maps)
        grad = upstream[0] * inverse
        # ∂/∂q Σ_k g_k cos_k = (Σ_k g_k ĉ_k − q̂ Σ_k g_k cos_k) / ‖q‖
        along = (grad * cosine).sum(dim=-2, keepdim=True) * inverse
        towards = (maps * -along).flatten(0, -3)
        towards.baddbmm_(directions.mT.flatten(0, -3), grad.flatten(0, -3))
        return towards.view(maps.shape), grad @ maps.mT


def _inverse_length(maps: Tensor) -> Tensor:
    squared = maps.square().sum(dim=-2, keepdim=True)
    return torch.where(squared > 0, squared, 1.0).rsqrt()


def _paired_similarity(queries: Tensor, prototypes: Tensor, kind: Similarity) -> Tensor:
    """Compare each query with each prototype map position by position: (…, Q, K, H', W')."""
    if kind == "cosine":
        queries, prototypes = F.normalize(queries, dim=-3), F.normalize(prototypes, dim=-3)
        return torch.einsum("...qdhw,...kdhw->...qkhw", queries, prototypes)
    return local_similarity(queries, prototypes, kind)


def _exemplar_cells(
    masks: Tensor, size: tuple[int, int], most: int | None
) -> tuple[Tensor, Tensor]:
    """Choose the cells that stand for each class: index into S·H'·W' and validity, (…, K, M)."""
    share = _shrunk(masks.float(), size).flatten(-2).movedim(-3, -2).flatten(-2)  # (…, K, S·P)
    enough = share.amax(dim=-1, keepdim=True).clamp_max(0.5)
    member = (share >= enough) & (share > 0)
    longest = int(member.sum(dim=-1).max()) if member.numel() else 0
    kept = max(1, longest if most is None else min(most, longest))
    shuffle = torch.Generator().manual_seed(0)  # the same choice for the same masks, always
    place = torch.randperm(share.shape[-1], generator=shuffle).to(masks.device)
    order = torch.where(member, place, share.shape[-1])
    index = order.topk(kept, dim=-1, largest=False).indices
    return index, member.gather(-1, index)


def _gathered(maps: Tensor, index: Tensor) -> Tensor:
    """Pick cells: maps (…, S, D, H', W'), index (…, K, M) into S·H'·W' → (…, K, M, D)."""
    cells = maps.movedim(-3, -1).flatten(-4, -2)  # (…, S·P, D)
    picked = index.flatten(-2)[..., None].expand(*index.shape[:-2], -1, cells.shape[-1])
    return cells.gather(-2, picked).reshape(*index.shape, cells.shape[-1])


@torch.no_grad()
def _distances_to_places(coordinates: Tensor, known: Prototypes) -> Tensor:
    """Return d² from (…, Q, n, H', W') to each place: (…, Q, P, K·M), huge where there is none."""
    assert known.places is not None
    assert known.places_valid is not None
    asked = coordinates.flatten(-2).mT  # (…, Q, P, n)
    places = known.places.flatten(-3, -2)[..., None, :, :]  # (…, 1, K·M, n)
    # ‖x‖² − 2xᵀp + ‖p‖² as one product: there are millions of pairs, all of them a few units long.
    lengths = places.square().sum(dim=-1, keepdim=True)
    lengths = torch.where(known.places_valid.flatten(-2)[..., None, :, None], lengths, _FAR)
    left = torch.cat(
        [asked, asked.square().sum(-1, keepdim=True), torch.ones_like(asked[..., :1])], -1
    )
    right = torch.cat([-2 * places, torch.ones_like(lengths), lengths], dim=-1)
    return (left @ right.mT).clamp_min(0.0)


_FAR = 1e30  # beyond any d², and finite


@torch.no_grad()
def _distance_to_class(coordinates: Tensor, known: Prototypes) -> Tensor:
    """Return d² from each place (…, Q, n, H', W') to the nearest place of each class."""
    assert known.places_valid is not None
    apart = _distances_to_places(coordinates, known)
    nearest = _split(apart, *known.places_valid.shape[-2:]).amin(dim=-1)  # (…, Q, P, K)
    nearest = nearest.masked_fill(nearest > _FAR / 2, 0.0)  # no place at all: never predicted
    return _split(nearest.mT, *coordinates.shape[-2:])


def _upsampled(
    alike: Tensor, possible: Tensor | None, size: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    """Bring finite logits to the image's size, then say −inf where a class is not possible."""
    if possible is None or possible.shape[-2:] == (1, 1):
        logits = _resized(alike, size)
    else:
        # Interpolate among the cells where the class is possible only. The cell that a pixel lies
        # in has at least a quarter of the weight.
        weight = possible.to(alike.dtype).expand_as(alike)
        share = _resized(weight, size)
        logits = _resized(alike * weight, size) / torch.where(share > 0, share, 1.0)
        possible = _nearest(possible.expand_as(alike), size)
    return _narrowed(logits, possible, dtype)


def _narrowed(logits: Tensor, possible: Tensor | None, dtype: torch.dtype) -> Tensor:
    if dtype != logits.dtype:
        limit = torch.finfo(dtype).max
        logits = logits.clamp(-limit, limit).to(dtype)
    return logits if possible is None else logits.masked_fill(~possible, -math.inf)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate maps (…, H', W') to (…, H, W), bilinear as in the note (align_corners=False).

    Two products with the interpolation's own weights, whose gradient costs a tenth of
    ``F.interpolate``'s on a CPU.
    """
    if tuple(maps.shape[-2:]) == size:
        return maps
    rows = _interpolation(maps.shape[-2], size[0], maps)  # (H', H)
    columns = _interpolation(maps.shape[-1], size[1], maps)  # (W', W)
    return rows.mT @ (maps @ columns)


def _nearest(maps: Tensor, size: tuple[int, int]) -> Tensor:
    rows = torch.arange(size[0], device=maps.device) * maps.shape[-2] // size[0]
    columns = torch.arange(size[1], device=maps.device) * maps.shape[-1] // size[1]
    return maps[..., rows[:, None], columns]


def _shrunk(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Average maps (…, H, W) over the cells of a feature map: (…, H', W')."""
    pooled = F.adaptive_avg_pool2d(maps.reshape(-1, 1, *maps.shape[-2:]), size)
    return pooled.view(*maps.shape[:-2], *size)


def _split(tensor: Tensor, rows: int, columns: int) -> Tensor:
    return tensor.reshape(*tensor.shape[:-1], rows, columns)


def _check_episode(images: Tensor, masks: Tensor, queries: Tensor) -> None:
    for name, given in (("support_images", images), ("query_image", queries)):
        if not given.dtype.is_floating_point:
            raise TypeError(f"{name} must be floating point, got {given.dtype}; use .float()")
    shapes = (
        f"got support_images {tuple(images.shape)}, support_masks {tuple(masks.shape)}, "
        f"query_image {tuple(queries.shape)}"
    )
    if images.ndim not in (4, 5) or masks.ndim != images.ndim:
        raise ValueError(
            "expected support_images (S, C, H, W) and support_masks (S, K, H, W), both with a "
            f"leading E for E episodes; {shapes}; a map of labels becomes masks with "
            "torch.nn.functional.one_hot"
        )
    if queries.ndim not in ((3, 4) if images.ndim == 4 else (5,)):
        raise ValueError(
            "expected query_image (C, H, W) or (Q, C, H, W), or (E, Q, C, H, W) with a support of "
            f"E episodes; {shapes}"
        )
    if images.ndim == 5 and queries.shape[0] != images.shape[0]:
        raise ValueError(f"support and query must have the same number of episodes; {shapes}")
    if images.shape[-3] != queries.shape[-3]:
        raise ValueError(f"support and query must have the same number of channels; {shapes}")
    if masks.shape[-2:] != images.shape[-2:]:
        raise ValueError(f"masks must have the size (H, W) of their images; {shapes}")


def _check_support(features: Tensor, masks: Tensor) -> None:
    if (
        features.ndim < 4
        or masks.ndim != features.ndim
        or masks.shape[:-3] != features.shape[:-3]
        or 0 in (*features.shape[-4:], *masks.shape[-4:])
    ):
        raise ValueError(
            "expected features (…, S, D, H', W') and masks (…, S, K, H, W) with the same S ≥ 1 and "
            f"leading dimensions and K ≥ 1, got {tuple(features.shape)} and {tuple(masks.shape)}"
        )
