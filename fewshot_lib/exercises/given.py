"""Objects that a case hands to an answer and that are no plain values, built by name.

``Given("name", {...})`` among a case's arguments is built by ``FACTORIES["name"](**settings)``
beside the answer, in whatever process that runs in. A factory takes plain values only and must give
the same object every time. It lies next to strangers' code, so it must hold no answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Factories by the name that a case uses.
FACTORIES: dict[str, Callable[..., Any]] = {}


def factory(function: Callable[..., Any]) -> Callable[..., Any]:
    """Enter a factory under its own name; a second of the same name is an error."""
    name = function.__name__
    if name in FACTORIES:
        raise ValueError(f"there is a factory {name!r} already; choose another name")
    FACTORIES[name] = function
    return function


@factory
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
