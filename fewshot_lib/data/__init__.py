"""The course's data: digits, letters, synthetic anatomy, real scans, your volumes, cards."""

from importlib import import_module
from types import ModuleType

from fewshot_lib.data.cache import CacheEntry, cache_dir, clear, status
from fewshot_lib.data.cards import Card, card

__all__ = ["CacheEntry", "Card", "cache_dir", "card", "clear", "status"]

_LATER = ("anatomy", "digits", "glyphs", "prepare", "resize", "scanner", "scans", "volumes")


def __getattr__(name: str) -> ModuleType:
    """Import a module of the package when it is first asked for; together they take seconds."""
    if name in _LATER:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
