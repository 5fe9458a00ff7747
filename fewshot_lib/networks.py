"""Networks that segment from a few labelled images (note §3.1, notebooks 05 and 06)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_lib._tensors import full_precision, require_count, require_floating, upcast
from fewshot_lib.heads import HEADS, Kind, Prototypes, Similarity, upsample
from fewshot_lib.prototypes import _require_masks


class UNetEncoder(nn.Module):
    """Turn images into feature maps with a U-Net: contract, expand, join what has the same size.

    f_θ: level l = 0 … depth works at 1/2^l of the size with width·2^l channels, two 3×3
    convolutions each; the way up goes back to 1/stride, joining the features of the way down at
    each level, and a 1×1 convolution makes feat_dim channels. Group normalisation looks at one
    image at a time: support and query do not leak into each other. A side that is not a multiple of
    2^depth is first resampled (bilinear) to the next one.

    Arguments:
        in_channels: C, channels of an image.
        feat_dim: D, channels of a feature map.
        width: channels of the first level, doubled at each level down.
        depth: how often the size is halved on the way down, ≥ 1.
        stride: image pixels per feature cell, along each side: 1, 2, 4 … below 2^depth.
        nonnegative: end with a ReLU, so that no cosine of two features is negative.

    Call: images (B, C, H, W) floating → (B, D, H', W'), H' = ⌈H/2^depth⌉·2^depth / stride.

    Raises:
        ValueError: settings out of range; images of another shape.

    Source: Ronneberger et al. 2015 (U-Net); note §3.1 names it without defining it. Notebook 05.

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
            require_count(name, value, 1)
        strides = [2**level for level in range(depth)]
        if stride not in strides:
            raise ValueError(f"stride must be one of {strides}, below 2^depth, got {stride}")
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
        if len(images) == 0:  # group normalisation refuses none
            return images.new_zeros(0, self.feat_dim, height // self.stride, width // self.stride)
        if images.shape[-2:] != (height, width):
            images = F.interpolate(images, size=(height, width), mode="bilinear")
        features, skips = images, []
        for level, convolve in enumerate(self.contracting):
            features = convolve(F.max_pool2d(features, 2) if level else features)
            skips.append(features)
        skips.pop()
        for enlarge, convolve in zip(self.upsampling, self.expanding, strict=True):
            features = convolve(torch.cat([skips.pop(), enlarge(features)], dim=1))
        projected: Tensor = self.projection(features)
        return projected.relu() if self.nonnegative else projected


def _double_convolution(before: int, after: int) -> nn.Sequential:
    first = *_convolution(before, after, bias=False), nn.ReLU(inplace=True)
    return nn.Sequential(*first, *_convolution(after, after, bias=False), nn.ReLU(inplace=True))


def _convolution(before: int, after: int, bias: bool = True) -> tuple[nn.Module, nn.Module]:
    convolve = nn.Conv2d(before, after, 3, padding=1, bias=bias)
    return convolve, nn.GroupNorm(math.gcd(8, after), after)


class DigitEncoder(nn.Module):
    """Turn small images into embedding vectors: three convolutions, halved twice, flattened.

    f_θ: 3×3 convolution, group normalisation, ReLU, 2×2 max-pooling; the same again with twice the
    channels; a last convolution and normalisation without ReLU, so that an embedding may point
    anywhere: the embedding of Snell et al. cut down to 8×8 digits.

    Arguments:
        in_channels: C, channels of an image.
        width: channels of the first convolution; the others have twice as many.

    Call: images (B, C, H, W) floating, H and W ≥ 4 → (B, D), D = 2·width·⌊H/4⌋·⌊W/4⌋.

    Raises:
        ValueError: settings below 1; images of another shape.

    Source: Snell et al. 2017, §3.1 (four such blocks for 28×28). Notebook 03.

    >>> DigitEncoder()(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 256])
    """

    def __init__(self, in_channels: int = 1, *, width: int = 32) -> None:
        super().__init__()
        require_count("width", width, 1)
        self.in_channels = require_count("in_channels", in_channels, 1)
        self.layers = nn.Sequential(
            *_convolution(in_channels, width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            *_convolution(width, 2 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            *_convolution(2 * width, 2 * width),
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


class PixelClassifier(nn.Module):
    """Segment in the ordinary way: an encoder, and one linear classifier for all pixels.

    logit_k(p) = w_kᵀ f_θ(x)(p) + b_k, upsampled (bilinear) to the image. By T3 of notebook 04 this
    is what a squared-Euclidean prototype network computes, with w and b learnt instead of computed.

    Arguments:
        encoder: images (B, C, H, W) → features (B, D, H', W').
        feat_dim: D, the encoder's channels.
        n_classes: K, background included.

    Call: images (B, C, H, W) → logits (B, K, H, W); −inf for a class that the buffer ``possible``
        (K,) bool rules out (none at first).

    Source: the supervised rows of notebook 06; the learning curve of notebook 01.

    >>> PixelClassifier(UNetEncoder(1, 8, width=4), 8, 3)(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(self, encoder: nn.Module, feat_dim: int, n_classes: int) -> None:
        super().__init__()
        self.encoder, self.n_classes = encoder, require_count("n_classes", n_classes, 1)
        self.classifier = nn.Conv2d(feat_dim, n_classes, 1)
        self.possible: Tensor
        self.register_buffer("possible", torch.ones(n_classes, dtype=torch.bool))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) of images (B, C, H, W)."""
        return self.classify(self.encoder(images), (images.shape[-2], images.shape[-1]))

    def classify(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Return logits (B, K, H, W) for ``size`` (H, W) of feature maps (B, D, H', W')."""
        logits = upsample(self.classifier(features), size)
        return logits.masked_fill(~self.possible[:, None, None], -math.inf)


class FewShotSegmentationNet(nn.Module):
    """Segment query images by the classes that a few support images show: an encoder and a head.

    logit_k(p) = α · s(q(p), c_k),   q = f_θ(query), s = cosine or −‖·−·‖²

    The head says what c_k is: one vector per class ("masked"), per class and window ("grid"), the
    features inside the masks themselves ("exemplars"), or one vector per class and *position*, the
    note's network, with ``scale=1.0`` to the letter. A class without any support pixel is never
    predicted (except in "position"): its logit is −inf. Half precision is computed with in float32,
    also under autocast, and comes back in its own type (why: notebook 05b).

    Arguments:
        in_channels: C.
        feat_dim: D of the ``UNetEncoder`` made when ``encoder`` is None; "cross" has to know it of
            any encoder.
        prototypes: which of the ``HEADS`` of ``fewshot_lib.heads``: "position", "masked", "grid",
            "exemplars", "local", "threshold", "attention" or "cross".
        similarity: "cosine" or "squared_euclidean".
        scale: α ≥ 0, *multiplies*. 20 suits the cosine (PANet), 1.0 the squared distance.
        encoder: any images (B, C, H, W) → (B, D, H', W') instead of a ``UNetEncoder``;
            ``nn.Identity()`` compares raw intensities.
        options: settings of the head, as its docstring has them.

    Raises:
        ValueError, TypeError: an unknown head or option, a setting out of range.

    Source: note §3.1. Notebooks 05, 06, 08 and 10.

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
        encoder: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if prototypes not in HEADS:
            raise ValueError(f"prototypes must be one of {', '.join(HEADS)}, got {prototypes!r}")
        if prototypes == "cross":
            options |= {"feat_dim": feat_dim}
        self.prototypes = prototypes
        self.head: Any = HEADS[prototypes](similarity, float(scale), **options)
        self.encoder = UNetEncoder(in_channels, feat_dim) if encoder is None else encoder

    def forward(self, support_images: Tensor, support_masks: Tensor, query_image: Tensor) -> Tensor:
        """Return logits for one query image, for several, or for several episodes.

        Arguments:
            support_images: (S, C, H, W), or (E, S, C, H, W) for E episodes.
            support_masks: (S, K, H, W) or (E, S, K, H, W), 0 … 1, one channel per class.
            query_image: (C, H, W) as in the note, (Q, C, H, W), or (E, Q, C, H, W).

        Returns:
            (K, H, W), (Q, K, H, W) or (E, Q, K, H, W), at the query's size, in the features' type.

        Raises:
            ValueError: shapes that do not fit, masks outside 0 … 1, or (except in "position") an
                episode whose support shows no class at all.
        """
        _check_episode(support_images, support_masks, query_image)
        support_features = self._encode(support_images)  # (…, S, D, H', W')
        queries = query_image.unsqueeze(0) if query_image.ndim == 3 else query_image
        query_features = self._encode(queries)  # (…, Q, D, H', W')
        prototypes = self.compute_prototypes(support_features, support_masks)
        similarity = self.match_features(query_features, prototypes)  # (…, Q, K, H', W')
        query_mask = upsample(similarity, query_image.shape[-2:])
        return query_mask.view(*query_image.shape[:-3], *query_mask.shape[-3:])

    def compute_prototypes(self, features: Tensor, masks: Tensor) -> Tensor | Prototypes:
        """Say what the support shows of each class.

        Arguments:
            features: (…, S, D, H', W'), the support's feature maps.
            masks: (…, S, K, H, W).

        Returns:
            For "position" the note's tensor (…, K, D, H', W'); otherwise ``Prototypes``.

        Raises:
            ValueError: shapes that do not fit, masks outside 0 … 1, no class with support pixels.
        """
        _require_masks(features, masks)
        with full_precision(features):
            prototypes: Tensor | Prototypes = self.head.compute_prototypes(upcast(features), masks)
        if isinstance(prototypes, Prototypes):
            shown = prototypes.valid.flatten(masks.ndim - 4).any(dim=-1)  # by any class
            if not bool(shown.all()):
                raise ValueError(
                    "no class has a support pixel, so nothing can be predicted; at least one mask "
                    "of each episode must not be empty (a background channel is one)"
                )
        return prototypes

    def match_features(self, query_features: Tensor, prototypes: Tensor | Prototypes) -> Tensor:
        """Compare every position of the query's feature maps with the prototypes.

        Arguments:
            query_features: (…, Q, D, H', W'). The note's form (1, D, H', W'), one query and no
                leading dimension, gives the note's result (K, H', W'); every other form keeps Q.
            prototypes: what ``compute_prototypes`` returned.

        Returns:
            (…, Q, K, H', W') logits at the features' size; −inf where a class cannot be predicted.
            A batch of queries is never paired with the classes, whatever Q and K.

        Raises:
            ValueError: shapes that do not fit.
        """
        if query_features.ndim < 4:
            raise ValueError(
                "expected query_features (…, Q, D, H', W'), got shape "
                f"{tuple(query_features.shape)}; a single map needs query_features[None]"
            )
        with full_precision(query_features):
            logits = self.head.match_features(upcast(query_features), prototypes)
        logits = _narrowed(logits, query_features.dtype)
        return logits[0] if logits.ndim == 4 and logits.shape[0] == 1 else logits

    def extra_repr(self) -> str:
        """Say how the network compares; a checkpoint knows its network by this text."""
        # A head with weights is a module of its own, which says its settings itself.
        settings = {} if isinstance(self.head, nn.Module) else vars(self.head)
        said = [f"{k}={v!r}" for k, v in {"prototypes": self.prototypes, **settings}.items()]
        return ", ".join(item for item in said if item != "background_grid=1")

    def _encode(self, images: Tensor) -> Tensor:
        features: Tensor = self.encoder(images.flatten(0, -4))
        return features.view(*images.shape[:-3], *features.shape[1:])


def _narrowed(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """Return logits in a narrower type, large ones as its largest numbers; −inf stays −inf."""
    if logits.dtype == dtype:
        return logits
    limit = torch.finfo(dtype).max
    return logits.clamp(-limit, limit).masked_fill(logits == -math.inf, -math.inf).to(dtype)


def _check_episode(images: Tensor, masks: Tensor, queries: Tensor) -> None:
    require_floating("support_images", images)
    require_floating("query_image", queries)
    several = images.ndim == 5
    if not (
        images.ndim in (4, 5)
        and masks.ndim == images.ndim
        and queries.ndim in ((5,) if several else (3, 4))
        and queries.shape[-3] == images.shape[-3]
        and masks.shape[-2:] == images.shape[-2:]
        and (not several or queries.shape[0] == images.shape[0])
        and 0 not in masks.shape[-4:]
    ):
        raise ValueError(
            "expected support_images (S, C, H, W), support_masks (S, K, H, W) and query_image "
            "(C, H, W) or (Q, C, H, W), or all three with the same E in front; one C, S ≥ 1, and "
            f"masks of their images' size; got {tuple(images.shape)}, {tuple(masks.shape)} and "
            f"{tuple(queries.shape)}; a map of labels becomes masks with F.one_hot"
        )
