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
