"""What is put before the reader, for every test of this folder."""

from __future__ import annotations

from importlib import import_module

import pytest

EMITTING = ["fewshot_lib.checker.frontend"]
EMITTING += [f"fewshot_lib.reading.{name}" for name in ("claims", "explore", "predict", "question")]
EMITTING += ["fewshot_lib.reading.show"]


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict, dict]]:
    """Collect the outputs, (bundle, metadata)."""
    seen: list[tuple[dict, dict]] = []
    for name in EMITTING:  # in their package some of these names are the functions'
        monkeypatch.setattr(
            import_module(name), "emit", lambda data, kept=None: seen.append((data, kept or {}))
        )
    return seen
