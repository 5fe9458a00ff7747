"""What the mathematics asks of its tensors: types, shapes, priors, and enough precision."""

from __future__ import annotations

import operator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor


def upcast(tensor: Tensor) -> Tensor:
    """Return half-precision numbers as float32, others as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def full_precision(tensor: Tensor) -> AbstractContextManager[Any]:
    """Switch autocast off: it would round sums and weights to half precision again."""
    kind = tensor.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def require_count(name: str, value: object, least: int) -> int:
    """Return a whole number of at least ``least`` as a Python int; NumPy's integers count.

    Raises:
        TypeError: it is not an integer. ValueError: it is too small.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__} ({value!r})")
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def require_floating(name: str, tensor: Tensor) -> None:
    """Raise TypeError unless the argument ``name`` is a floating-point tensor."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}; use torch.tensor")
    if not tensor.dtype.is_floating_point:
        raise TypeError(f"{name} must be floating point, got {tensor.dtype}; use .float()")


def require_integer(name: str, tensor: Tensor) -> None:
    """Raise TypeError unless the argument ``name`` is a tensor of integers."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}; use torch.tensor")
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex or tensor.dtype == torch.bool:
        raise TypeError(f"{name} must be integer class indices, got {tensor.dtype}; use .long()")


def require_masks(prediction: Tensor, target: Tensor, n_dims: int, shape: str) -> None:
    """Raise ValueError unless both are masks whose last ``n_dims`` dimensions agree."""
    for name, mask in (("prediction", prediction), ("target", target)):
        if mask.ndim < n_dims:
            raise ValueError(f"{name} must be {shape}, got shape {tuple(mask.shape)}")
        if mask.dtype != torch.bool and bool(((mask != 0) & (mask != 1)).any()):
            raise ValueError(
                f"{name} must hold 0 and 1 only: one mask at a time (labels == k), and "
                "probabilities thresholded first (p > 0.5)"
            )
    if prediction.shape[-n_dims:] != target.shape[-n_dims:]:
        raise ValueError(
            f"prediction and target must be of one size, got {tuple(prediction.shape)} and "
            f"{tuple(target.shape)}"
        )


def require_pair(queries: Tensor, prototypes: Tensor) -> None:
    """Raise unless every query (…, Q, D) can be compared with every prototype (…, K, D)."""
    require_floating("queries", queries)
    require_floating("prototypes", prototypes)
    if queries.ndim < 2 or prototypes.ndim < 2 or queries.shape[-1] != prototypes.shape[-1]:
        raise ValueError(
            "expected queries (…, Q, D) and prototypes (…, K, D) with one D, "
            f"got {tuple(queries.shape)} and {tuple(prototypes.shape)}"
        )
    if queries.dtype != prototypes.dtype:
        raise TypeError(
            f"queries and prototypes must have one type, got {queries.dtype} and {prototypes.dtype}"
        )
    leading_shape(queries, prototypes)


def leading_shape(queries: Tensor, prototypes: Tensor) -> tuple[int, ...]:
    """Return the leading (episode) dimensions that both broadcast to; ValueError if they do not."""
    shapes = queries.shape[:-2], prototypes.shape[:-2]
    try:
        return np.broadcast_shapes(*shapes)  # torch's own imports SymPy, which takes a second
    except ValueError as error:
        raise ValueError(
            "leading dimensions (episodes) of queries and prototypes must broadcast, "
            f"got {tuple(queries.shape)} and {tuple(prototypes.shape)}"
        ) from error


def class_bias(
    log_prior: Tensor | None, valid: Tensor | None, prototypes: Tensor, dtype: torch.dtype
) -> Tensor | None:
    """Return log prior and validity as one (…, K) term of the logits, −inf for the impossible.

    None: nothing to add. Raises ValueError for a NaN or +inf prior and where every class is
    impossible, TypeError for a ``valid`` that is not bool.
    """
    if log_prior is None and valid is None:
        return None
    n_classes = prototypes.shape[-2]
    for name, given in (("log_prior", log_prior), ("valid", valid)):
        if given is not None and (given.ndim < 1 or given.shape[-1] != n_classes):
            raise ValueError(
                f"{name} must be (…, K) with K = {n_classes} like the prototypes, "
                f"got {tuple(given.shape)}"
            )
    bias = torch.zeros(n_classes, dtype=dtype, device=prototypes.device)
    if log_prior is not None:
        require_floating("log_prior", log_prior)
        bias = log_prior.to(dtype)
        if bool((bias.isnan() | (bias == float("inf"))).any()):
            raise ValueError(
                f"log_prior must be finite or −inf, got {log_prior.tolist()}; a prior π enters as "
                "log π"
            )
    if valid is not None:
        if valid.dtype != torch.bool:
            raise TypeError(f"valid must be bool, got {valid.dtype}")
        bias = torch.where(valid, bias, -float("inf"))
    if bool((bias == -float("inf")).all(dim=-1).any()):
        raise ValueError(
            "no class is possible: every log prior is −inf or every class is invalid; at least one "
            "class must have a prototype (a background channel does)"
        )
    return bias


def unit_vectors(vectors: Tensor) -> Tensor:
    """Return (…, D) vectors divided by their lengths; zero stays zero, with finite gradient."""
    # The largest entry is divided out first, so that no square over- or underflows. It may count as
    # a constant in the gradient: the direction does not depend on it.
    if vectors.shape[-1] == 0:
        return vectors
    largest = vectors.detach().abs().amax(dim=-1, keepdim=True)
    scaled = vectors / torch.where(largest > 0, largest, 1.0)
    squared = scaled.square().sum(dim=-1, keepdim=True)
    return scaled * torch.where(squared > 0, squared, 1.0).rsqrt()
