"""Prototypes, distances, posteriors and pooling grids (note §2.2 and §3.1, notebooks 03 and 05b).

Half-precision inputs are computed with in float32, also under autocast, and returned in their own
type. A class that nothing supports has no prototype: functions that may meet one return a validity
flag beside the prototypes, and every flag is to be passed on, as ``valid``, to whoever matches.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot_lib._tensors import (
    class_bias,
    full_precision,
    leading_shape,
    require_floating,
    require_integer,
    require_pair,
    unit_vectors,
    upcast,
)

Distance = Literal["squared_euclidean", "euclidean", "cosine"]
Pooling = Literal["pixels", "images"]

DISTANCES: tuple[Distance, ...] = ("squared_euclidean", "euclidean", "cosine")
POOLINGS: tuple[Pooling, ...] = ("pixels", "images")


def class_prototypes(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Average each class's support embeddings.

    c_k = 1/|S_k| Σ_{(x_i, y_i) ∈ S_k} f_θ(x_i)

    Arguments:
        embeddings: (…, N, D) floating, f_θ(x_i); leading dimensions are episodes.
        labels: (…, N) integer, y_i in 0 … n_way−1, numbered anew in each episode.
        n_way: number of classes, ≥ 1.

    Returns:
        (…, n_way, D) prototypes in the embeddings' type; row k is c_k.

    Raises:
        ValueError: shapes that do not match, a label outside 0 … n_way−1, a class without example.
        TypeError: embeddings that are not floating point, labels that are not integers.

    Source: Snell et al. 2017, equation 1; note §2.2. Notebook 03.

    >>> class_prototypes(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]), 2).tolist()
    [[1.0], [5.0]]
    """
    require_floating("embeddings", embeddings)
    require_integer("labels", labels)
    if n_way < 1:
        raise ValueError(f"n_way must be at least 1, got {n_way}")
    if embeddings.ndim < 2 or labels.shape != embeddings.shape[:-1]:
        raise ValueError(
            "expected embeddings (…, N, D) and labels (…, N) with the same leading dimensions, "
            f"got {tuple(embeddings.shape)} and {tuple(labels.shape)}"
        )
    low, high = map(int, labels.aminmax()) if labels.numel() else (0, 0)
    if not 0 <= low <= high < n_way:
        raise ValueError(
            f"labels must lie in 0 … n_way−1 = {n_way - 1}, got {low} … {high}; number the "
            "episode's classes anew (torch.unique(labels, return_inverse=True))"
        )
    member = labels[..., None] == torch.arange(n_way, device=labels.device)  # (…, N, K)
    counts = member.sum(dim=-2)  # (…, K)
    if not bool(counts.all()):
        missing = (counts == 0).reshape(-1, n_way).any(dim=0).nonzero().flatten().tolist()
        raise ValueError(
            f"class {', '.join(map(str, missing))} has no support example, hence no prototype: "
            "every class 0 … n_way−1 needs one, in every episode"
        )
    with full_precision(embeddings):
        wide = upcast(embeddings)
        share = member.to(wide.dtype) / counts[..., None, :]  # (…, N, K), columns sum to one
        return (share.mT @ wide).to(embeddings.dtype)


def squared_euclidean(queries: Tensor, prototypes: Tensor) -> Tensor:
    """Measure the squared Euclidean distance of every query to every prototype.

    d²(z_q, c_k) = ‖z_q − c_k‖² = Σ_d (z_qd − c_kd)²

    The differences are squared, never ‖z‖² − 2zᵀc + ‖c‖², whose terms cancel when the vectors share
    a large offset; memory stays (…, Q, K). Not a metric: it breaks the triangle inequality.

    Arguments:
        queries: (…, Q, D) floating, z.
        prototypes: (…, K, D) of the same type, c; leading dimensions broadcast.

    Returns:
        (…, Q, K) ≥ 0, in the inputs' type (in float16 distances above 65504 are inf).

    Raises:
        ValueError: different D, or leading dimensions that do not broadcast.
        TypeError: inputs that are not floating point, or of different types.

    Source: Snell et al. 2017, §2.3 and §2.4; note §5.3. Notebook 03.

    >>> squared_euclidean(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 1.0], [4.0, 5.0]]))
    tensor([[ 0., 25.]])
    """
    require_pair(queries, prototypes)
    return _distances(queries, prototypes).square().to(queries.dtype)


def cosine_similarity(queries: Tensor, prototypes: Tensor) -> Tensor:
    """Measure the cosine of the angle between every query and every prototype.

    cos(z_q, c_k) = z_qᵀc_k / (‖z_q‖ ‖c_k‖) ∈ [−1, 1]

    A similarity: large means alike. A zero vector has no direction; its cosine with anything is 0
    here, with finite gradient, in every type. The length of the vectors does not matter, however
    small or large.

    Arguments:
        queries: (…, Q, D) floating, z.
        prototypes: (…, K, D) of the same type, c; leading dimensions broadcast.

    Returns:
        (…, Q, K) in [−1, 1], in the inputs' type.

    Raises:
        ValueError: different D, or leading dimensions that do not broadcast.
        TypeError: inputs that are not floating point, or of different types.

    Source: Wang et al. 2019 (PANet); note §3.1. Notebooks 03 and 05.

    >>> cosine_similarity(torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    tensor([[1., 0.]])
    """
    return similarity(queries, prototypes, "cosine")


def similarity(
    queries: Tensor, prototypes: Tensor, distance: Distance = "squared_euclidean"
) -> Tensor:
    """Say how alike every query and every prototype are: large means alike.

    −‖z − c‖² ("squared_euclidean"), −‖z − c‖ ("euclidean") or cos(z, c) ("cosine").

    "euclidean" is here to teach: it keeps the most probable class of "squared_euclidean" under
    equal priors, changes every probability, and has no Gaussian reading.

    Arguments:
        queries: (…, Q, D) floating.
        prototypes: (…, K, D) of the same type; leading dimensions broadcast.
        distance: which of the three.

    Returns:
        (…, Q, K) in the inputs' type.

    Raises:
        ValueError: an unknown distance, or shapes as for ``squared_euclidean``.
        TypeError: inputs that are not floating point, or of different types.

    Source: Snell et al. 2017, equation 2; Wang et al. 2019 (PANet). Notebooks 03 and 04b.

    >>> similarity(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]), "euclidean")
    tensor([[-5.]])
    """
    require_pair(queries, prototypes)
    return _similarity(queries, prototypes, distance).to(queries.dtype)


def log_posterior(
    queries: Tensor,
    prototypes: Tensor,
    distance: Distance = "squared_euclidean",
    scale: float | Tensor = 1.0,
    log_prior: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Return log p(y = k | z): a softmax over the classes of scaled similarity plus log prior.

    log p(y = k | z) = log_softmax_k( α · s(z, c_k) + log π_k ),   s = −‖z−c‖², −‖z−c‖ or cos

    Arguments:
        queries: (…, Q, D) floating, z.
        prototypes: (…, K, D) of the same type, c; leading dimensions broadcast.
        distance: "squared_euclidean", "euclidean" (to teach) or "cosine"; see ``similarity``.
        scale: α ≥ 0, *multiplies* (a temperature would divide); a number, or a tensor that
            broadcasts to (…, Q, K), which may be learnt and is not checked.
        log_prior: (…, K) log π_k, need not be normalised; −inf: the class is impossible. None:
            equal priors.
        valid: (…, K) bool; False: the class has no prototype and is never predicted (log p = −inf).

    Returns:
        (…, Q, K) ≤ 0 in the inputs' type; exp sums to one over K. Computed in float32 at least.

    Raises:
        ValueError: shapes, an unknown distance, a negative scale, a prior of +inf or NaN, or a row
            of classes that are all impossible.
        TypeError: inputs that are not floating point, or of different types; ``valid`` not bool.

    Source: Snell et al. 2017, equation 2; Wang et al. 2019 (PANet: cosine, α = 20); note §2.2.
    Notebooks 03, 04 and 04b.

    >>> queries, prototypes = torch.tensor([[0.0]]), torch.tensor([[0.0], [1.0]])
    >>> log_posterior(queries, prototypes, log_prior=torch.tensor([0.0, float("-inf")])).exp()
    tensor([[1., 0.]])
    """
    require_pair(queries, prototypes)
    if not isinstance(scale, Tensor) and not 0 <= scale < float("inf"):
        raise ValueError(
            f"scale must be finite and at least 0, got {scale}: it multiplies a similarity, whose "
            "sign is already right (distances enter with a minus)"
        )
    logits = scale * _similarity(queries, prototypes, distance)
    bias = class_bias(log_prior, valid, prototypes, logits.dtype)
    if bias is not None:
        logits = logits + bias[..., None, :]
    return logits.log_softmax(dim=-1).to(queries.dtype)


def masked_prototypes(
    features: Tensor, masks: Tensor, pooling: Pooling = "pixels"
) -> tuple[Tensor, Tensor]:
    """Average features under each class's masks: one prototype per class from all support images.

    pixels:  c_k = Σ_s Σ_p M_sk(p) F_s(p) / Σ_s Σ_p M_sk(p)      every pixel counts the same
    images:  c_k = mean over the images s that show k of  Σ_p M_sk(p) F_s(p) / Σ_p M_sk(p)

    with F = the features upsampled to the masks' size (bilinear, align_corners=False). F is never
    made: Σ_p M(p) (U f)(p) = Σ_j (Uᵀ M)(j) f(j), so the masks are pulled down by the transpose of
    the upsampling, which is exact, loses no small organ, and works on K channels instead of D.

    Arguments:
        features: (…, S, D, H', W') floating, f.
        masks: (…, S, K, H, W) bool, integer or floating in 0 … 1, M; soft masks are weights.
        pooling: "pixels" or "images" (PANet: each shot counts the same, whatever its area).

    Returns:
        prototypes (…, K, D) in the features' type, and valid (…, K) bool. Where valid is False the
        prototype is a placeholder of zeros: pass ``valid`` on, a zero vector is not a prototype.

    Raises:
        ValueError: shapes that do not match, masks outside 0 … 1.
        TypeError: features that are not floating point.

    Source: Wang et al. 2019 (PANet), equation 1 ("images"). Notebook 05b.

    >>> features = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2)  # (S, D, H', W')
    >>> prototypes, valid = masked_prototypes(features, torch.tensor([[[[0, 1]], [[0, 0]]]]))
    >>> prototypes.tolist(), valid.tolist()
    ([[3.0], [0.0]], [True, False])
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
    weights, wide = _pulled_down(features, masks)
    with full_precision(features):
        mass = masks.sum(dim=(-2, -1), dtype=wide.dtype)  # (…, S, K), as Uᵀ keeps it
        if pooling == "pixels":
            total = mass.sum(dim=-2)  # (…, K)
            valid = total > 0
            share = 1 / torch.where(valid, total, 1.0)[..., None, :]
        else:
            shown = mass > 0  # (…, S, K)
            valid = shown.any(dim=-2)
            n_shown = shown.sum(dim=-2, keepdim=True).clamp_min(1)
            share = shown / (torch.where(shown, mass, 1.0) * n_shown)
        weights = weights * share[..., None, None]
        # (…, S, K, P) @ (…, S, P, D) summed over S
        prototypes = (weights.flatten(-2) @ wide.flatten(-2).mT).sum(dim=-3)
        prototypes = torch.where(valid[..., None], prototypes, 0.0)
    return prototypes.to(features.dtype), valid


def grid_prototypes(
    features: Tensor, masks: Tensor, grid: int | tuple[int, int], min_share: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Average features under each class's masks within each window of a grid over the image.

    c_k(g) = Σ_s Σ_{j ∈ g} (Uᵀ M_sk)(j) f_s(j) / Σ_s Σ_{j ∈ g} (Uᵀ M_sk)(j),   Uᵀ as in
    ``masked_prototypes``

    One cell is the global prototype (``masked_prototypes`` with "pixels"); as many cells as
    positions is the note's network, a prototype for every position. The windows part the feature
    map: position i of n lies in cell ⌊i·grid/n⌋, so where grid does not divide n windows differ by
    one position. ``cells_to_positions`` and ``local_similarity`` lead a query position to its cell.

    Arguments:
        features: (…, S, D, H', W') floating, f.
        masks: (…, S, K, H, W) bool, integer or floating in 0 … 1, M.
        grid: cells along rows and along columns, 1 … H' and 1 … W'; one number stands for both.
        min_share: in [0, 1). A class is valid in a cell when its masks cover more than this share
            of the cell's area, averaged over the S images. 0, the default, accepts any mass.

    Returns:
        prototypes (…, K, D, grid, grid) in the features' type and valid (…, K, grid, grid) bool;
        zeros where not valid, as in ``masked_prototypes``.

    Raises:
        ValueError: shapes that do not match, masks outside 0 … 1, a grid finer than the features.
        TypeError: features that are not floating point.

    Source: Yu et al. 2021 (local windows); Ouyang et al. 2020 (SSL-ALPNet: the share of a window);
    note §3.1 (one per position). Notebook 05b.

    >>> features = torch.arange(16.0).view(1, 1, 4, 4)
    >>> prototypes, valid = grid_prototypes(features, torch.ones(1, 1, 4, 4), 2)
    >>> prototypes[0, 0].tolist()
    [[2.5, 4.5], [10.5, 12.5]]
    """
    if not 0 <= min_share < 1:
        raise ValueError(f"min_share must lie in [0, 1), got {min_share}")
    weights, wide = _pulled_down(features, masks)
    height, width = features.shape[-2:]
    rows, columns = _grid_shape(grid, height, width)
    with full_precision(features):
        # Uᵀ 1 is each position's share of the image's area, in mask pixels.
        area = _transposed_upsampling(
            torch.ones(masks.shape[-2:], dtype=wide.dtype, device=wide.device), (height, width)
        )
        weights_in = _windows(weights, rows, columns)  # (…, S, K, rows, columns, n)
        features_in = _windows(wide, rows, columns)  # (…, S, D, rows, columns, n)
        mass = weights_in.sum(dim=(-5, -1))  # (…, K, rows, columns)
        full = _windows(area, rows, columns).sum(dim=-1) * features.shape[-4]
        valid = mass > min_share * full
        share = weights_in / torch.where(valid, mass, 1.0)[..., None, :, :, :, None]
        prototypes = torch.einsum("...skrcn,...sdrcn->...kdrc", share, features_in)
        prototypes = torch.where(valid[..., :, None, :, :], prototypes, 0.0)
    return prototypes.to(features.dtype), valid


def cells_to_positions(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Give every position of a feature map the value of the grid cell that it lies in.

    Position i of n lies in cell ⌊i·grid/n⌋, as in ``grid_prototypes``; nothing is interpolated.

    Arguments:
        cells: (…, rows, columns), any type: prototypes, validity, …
        size: (H', W') of the feature map, each at least the number of cells.

    Returns:
        (…, H', W').

    Raises:
        ValueError: fewer positions than cells.

    Source: notebook 05b.

    >>> cells_to_positions(torch.tensor([[1, 2]]), (1, 5)).tolist()
    [[1, 1, 1, 2, 2]]
    """
    if cells.ndim < 2:
        raise ValueError(f"cells must be (…, rows, columns), got shape {tuple(cells.shape)}")
    rows, columns = _grid_shape((cells.shape[-2], cells.shape[-1]), *size)
    row = _cell_of_position(size[0], rows, cells.device)
    column = _cell_of_position(size[1], columns, cells.device)
    return cells[..., row[:, None], column]


def local_similarity(
    queries: Tensor, prototypes: Tensor, distance: Distance = "squared_euclidean"
) -> Tensor:
    """Compare every query position with the prototypes of its own grid cell.

    s_k(p) = s(q(p), c_k(g(p))),   g(p) the cell of position p, s as in ``similarity``

    Memory stays in proportion to queries + prototypes + result: the prototypes are not spread over
    the positions. Where a class is not valid in a cell the number means nothing; mask it with
    ``cells_to_positions(valid, size)``.

    Arguments:
        queries: (…, Q, D, H', W') floating, query feature maps.
        prototypes: (…, K, D, rows, columns) of the same type, from ``grid_prototypes``; leading
            dimensions broadcast.
        distance: as in ``similarity``.

    Returns:
        (…, Q, K, H', W') in the inputs' type.

    Raises:
        ValueError: shapes that do not match, more cells than positions, an unknown distance.
        TypeError: inputs that are not floating point, or of different types.

    Source: Yu et al. 2021; note §3.1 (``match_features``). Notebook 05b.

    >>> queries, prototypes = torch.ones(1, 2, 4, 4), torch.ones(3, 2, 2, 2)
    >>> local_similarity(queries, prototypes).shape
    torch.Size([1, 3, 4, 4])
    """
    require_floating("queries", queries)
    require_floating("prototypes", prototypes)
    if queries.ndim < 4 or prototypes.ndim < 4 or queries.shape[-3] != prototypes.shape[-3]:
        raise ValueError(
            "expected queries (…, Q, D, H', W') and prototypes (…, K, D, rows, columns) with one "
            f"D, got {tuple(queries.shape)} and {tuple(prototypes.shape)}"
        )
    height, width = queries.shape[-2:]
    rows, columns = _grid_shape((prototypes.shape[-2], prototypes.shape[-1]), height, width)
    n_query = queries.shape[-4]
    by_cell = _windows(queries, rows, columns)  # (…, Q, D, rows, columns, n)
    asked = by_cell.movedim((-3, -2), (-5, -4))  # (…, rows, columns, Q, D, n)
    known = prototypes.movedim((-2, -1), (-4, -3))  # (…, rows, columns, K, D)
    logits = similarity(asked.mT.flatten(-3, -2), known, distance)  # (…, rows, columns, Q·n, K)
    logits = logits.view(*logits.shape[:-2], n_query, by_cell.shape[-1], logits.shape[-1])
    # (…, rows, columns, Q, n, K) → (…, Q, K, rows, columns, n)
    return _unwindowed(logits.mT.movedim((-5, -4), (-3, -2)), height, width)


def _distances(queries: Tensor, prototypes: Tensor) -> Tensor:
    """Measure ‖z − c‖ (…, Q, K) by differences; where they coincide its gradient is 0."""
    leading = leading_shape(queries, prototypes)
    z = upcast(queries).expand(*leading, *queries.shape[-2:])
    c = upcast(prototypes).expand(*leading, *prototypes.shape[-2:])
    with full_precision(queries):
        # The other mode, ‖z‖² − 2zᵀc + ‖c‖², cancels under a common offset.
        return torch.cdist(z, c, compute_mode="donot_use_mm_for_euclid_dist")


def _similarity(queries: Tensor, prototypes: Tensor, distance: str) -> Tensor:
    if distance == "cosine":
        with full_precision(queries):
            cosine = unit_vectors(upcast(queries)) @ unit_vectors(upcast(prototypes)).mT
            return cosine.clamp(-1.0, 1.0)
    if distance == "squared_euclidean":
        return -_distances(queries, prototypes).square()
    if distance == "euclidean":
        return -_distances(queries, prototypes)
    raise ValueError(f"distance must be one of {', '.join(DISTANCES)}, got {distance!r}")


def _require_masks(features: Tensor, masks: Tensor) -> None:
    """Raise unless masks (…, S, K, H, W) in 0 … 1 fit features (…, S, D, H', W')."""
    require_floating("features", features)
    if (
        features.ndim < 4
        or masks.ndim != features.ndim
        or masks.shape[:-3] != features.shape[:-3]
        or 0 in (*features.shape[-2:], *masks.shape[-2:])
    ):
        raise ValueError(
            "expected features (…, S, D, H', W') and masks (…, S, K, H, W) with the same leading "
            f"dimensions and S, got {tuple(features.shape)} and {tuple(masks.shape)}"
        )
    if masks.dtype != torch.bool and masks.numel():
        low, high = masks.detach().aminmax()
        if not bool((low >= 0) & (high <= 1)):
            raise ValueError(
                f"masks must lie in 0 … 1, one channel per class, got {low:g} … {high:g}; a map of "
                "labels becomes masks with torch.nn.functional.one_hot"
            )


def _pulled_down(features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Check a pair of features and masks; return Uᵀ M (…, S, K, H', W') and features, upcast."""
    _require_masks(features, masks)
    wide = upcast(features)
    with full_precision(features):
        height, width = features.shape[-2:]
        return _transposed_upsampling(masks.to(wide.dtype), (height, width)), wide


def _upsampling(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Apply U, bilinear interpolation to ``size``; its gradient costs less than F.interpolate's."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    rows = _interpolation(maps.shape[-2], size[0], maps)  # (H', H)
    columns = _interpolation(maps.shape[-1], size[1], maps)  # (W', W)
    return rows.mT @ (maps @ columns)


def _transposed_upsampling(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Apply Uᵀ, U being bilinear interpolation from ``size`` to the maps' size."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    rows = _interpolation(size[0], maps.shape[-2], maps)  # (H', H)
    columns = _interpolation(size[1], maps.shape[-1], maps)  # (W', W)
    return rows @ (maps @ columns.mT)


def _interpolation(n: int, m: int, like: Tensor) -> Tensor:
    """Return (n, m): column j holds the weights by which n samples make the j-th of m."""
    identity = torch.eye(n, dtype=like.dtype, device=like.device)
    return F.interpolate(identity[None], size=m, mode="linear", align_corners=False)[0]


def _grid_shape(grid: int | tuple[int, int], height: int, width: int) -> tuple[int, int]:
    rows, columns = grid if isinstance(grid, tuple | list) else (grid, grid)
    if not (1 <= rows <= height and 1 <= columns <= width):
        raise ValueError(
            f"a grid over {height} × {width} positions has 1 … {height} by 1 … {width} cells, "
            f"got {rows} × {columns}"
        )
    return rows, columns


def _cell_of_position(n: int, cells: int, device: torch.device) -> Tensor:
    return torch.arange(n, device=device) * cells // n


def _window_index(n: int, cells: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the positions of each window, (cells, longest), and which of them are its own."""
    edges = -(-torch.arange(cells + 1, device=device) * n // cells)  # ⌈c·n/cells⌉
    index = edges[:-1, None] + torch.arange(-(-n // cells), device=device)
    own = index < edges[1:, None]
    return index.clamp_max(n - 1), own


def _windows(maps: Tensor, rows: int, columns: int) -> Tensor:
    """Sort positions into cells: (…, H', W') → (…, rows, columns, n), short windows padded by 0."""
    height, width = maps.shape[-2:]
    down, own_down = _window_index(height, rows, maps.device)
    across, own_across = _window_index(width, columns, maps.device)
    padded = down.numel() != height or across.numel() != width
    if padded:
        maps = maps.index_select(-2, down.flatten()).index_select(-1, across.flatten())
    cells = maps.reshape(*maps.shape[:-2], *down.shape, *across.shape).transpose(-3, -2)
    if padded:
        own = own_down[:, None, :, None] & own_across[None, :, None, :]
        cells = torch.where(own, cells, 0.0)
    return cells.flatten(-2)


def _unwindowed(cells: Tensor, height: int, width: int) -> Tensor:
    """Undo ``_windows``: (…, rows, columns, n) → (…, H', W')."""
    rows, columns = cells.shape[-3:-1]
    down, across = -(-height // rows), -(-width // columns)
    maps = cells.reshape(*cells.shape[:-1], down, across).transpose(-3, -2)
    maps = maps.reshape(*cells.shape[:-3], rows * down, columns * across)
    if maps.shape[-2:] != (height, width):
        _, own_down = _window_index(height, rows, cells.device)
        _, own_across = _window_index(width, columns, cells.device)
        maps = maps.index_select(-2, own_down.flatten().nonzero()[:, 0])
        maps = maps.index_select(-1, own_across.flatten().nonzero()[:, 0])
    return maps
