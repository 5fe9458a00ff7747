"""Objects that a case hands to an answer and that are not plain values, built by name.

``Fixture("name", {...})`` among a case's arguments is built by ``FIXTURES["name"](**settings)``
beside the answer, in whatever process that runs in. A fixture takes plain values only and must give
the same object every time. It lies next to strangers' code, so it must hold no answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fewshot_lib.checker.values import fixture


@fixture
def segmenter(kind: str) -> Callable[[Any, Any, Any], Any]:
    """Make something that looks like a one-shot network, to be tested (exercise 05).

    Arguments:
        kind: what it goes by. "copies": the support mask, whatever the query shows; "brightness":
            query pixels above a half; "change": query pixels brighter than the support's; "upper
            half": the place alone; "nothing", "everything".

    Returns:
        A function (support image (H, W), support mask (H, W) bool, query image (H, W)) → (H, W)
        bool.

    Raises:
        ValueError: there is no such kind.
    """

    def segment(support_image: Any, support_mask: Any, query_image: Any) -> Any:
        rows = query_image.shape[-2]
        if kind == "copies":
            return support_mask.clone()
        if kind == "brightness":
            return query_image > 0.5
        if kind == "change":
            return query_image - support_image > 0.2
        found = query_image > float("inf")  # nothing
        if kind == "upper half":
            found[: rows // 2] = True
        elif kind == "everything":
            found[:] = True
        return found

    known = ("copies", "brightness", "change", "upper half", "nothing", "everything")
    if kind not in known:
        raise ValueError(f"a segmenter is one of {', '.join(known)}, got {kind!r}")
    return segment


class MatchingNetwork(nn.Module):
    """Embed pixels linearly and let each query pixel attend to all support pixels."""

    def __init__(self, weight: Any, drops: bool, memory: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(weight, dtype=torch.float32))
        self.drops, self.memory, self.kept = drops, memory, 0

    def forward(self, support_images: Tensor, support_masks: Tensor, query_image: Tensor) -> Tensor:
        """Map (S, C, H, W), (S, K, H, W) and one query (C, H, W) to logits (K, H, W)."""
        if query_image.ndim != 3:
            raise ValueError(
                "this network takes one query image (C, H, W), as the note's does, and got shape "
                f"{tuple(query_image.shape)}"
            )
        if torch.is_grad_enabled():
            self.kept += 1
            if self.kept > self.memory:
                raise RuntimeError(
                    f"out of memory: this network has room for the graphs of {self.memory} passes"
                )
        weight: Tensor = self.weight
        if self.drops and self.training:
            weight = torch.cat([torch.zeros_like(weight[:1]), weight[1:]])
        pixels = support_images.movedim(1, -1).flatten(0, 2).to(weight.dtype)  # (SHW, C)
        classes = support_masks.movedim(1, -1).flatten(0, 2).to(weight.dtype)  # (SHW, K)
        query = query_image.movedim(0, -1).flatten(0, 1).to(weight.dtype)  # (HW, C)
        attention = ((query @ weight.mT) @ (pixels @ weight.mT).mT).softmax(dim=1)
        logits = (attention @ classes).log().mT  # (K, HW)
        return logits.view(-1, *query_image.shape[1:]).to(query_image.dtype)


@fixture
def matching_network(weight: Any, drops: bool = False, memory: int = 10_000) -> MatchingNetwork:
    """Make a small network with the note's call form (exercise 06): one query at a time.

    Each query pixel takes the labels of the support pixels that its embedding W x resembles, as in
    Vinyals et al. 2016; a class that no support pixel shows gets −inf.

    Arguments:
        weight: (D, C), the embedding W, its only parameter.
        drops: in training mode the first feature is dropped: a dropout that repeats.
        memory: passes with gradients that it has room for, a stand-in for a device's memory.

    Returns:
        A module (support images (S, C, H, W), support masks (S, K, H, W), query (C, H, W)) →
        logits (K, H, W), in training mode.
    """
    return MatchingNetwork(weight, drops, memory)
