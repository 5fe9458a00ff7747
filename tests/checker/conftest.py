"""Keep what readers did apart from what tests do."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _own_progress(tmp_path, monkeypatch):
    """Keep every test away from the reader's own progress."""
    monkeypatch.setenv("FEWSHOT_PROGRESS", str(tmp_path / "progress.json"))
