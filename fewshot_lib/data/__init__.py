"""The course's data: digits, synthetic anatomy, real scans, the reader's volumes, and cards."""

from fewshot_lib.data.cache import CacheEntry, cache_dir, clear, status

__all__ = ["CacheEntry", "cache_dir", "clear", "status"]
