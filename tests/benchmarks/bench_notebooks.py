"""Time and memory of every notebook on a fresh kernel, with nothing cached and again with it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
import pytest
from saved import LESSONS, label, machine_seconds

from fewshot_lib.tools.notebooks import execute, private_cache

MOST_MEGABYTES = 3000


class PeakMemory:
    """Watch the resident memory of all processes that this one started."""

    def __enter__(self) -> PeakMemory:
        """Begin to watch."""
        self.peak, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._over.wait(0.1):
            total = 0
            for child in me.children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)


@pytest.mark.bench
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", LESSONS, ids=label)
def test_notebook_keeps_its_time_and_memory(
    path: Path, tmp_path: Path, bench: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = private_cache(tmp_path / "cache")
    environment["OMP_NUM_THREADS"] = str(min(2, os.cpu_count() or 1))
    environment["FEWSHOT_PROGRESS"] = str(tmp_path / "progress.json")
    for state in ("nothing cached", "again"):
        notebook = nbformat.read(path, as_version=4)
        start = time.monotonic()
        with PeakMemory() as memory:
            execute(notebook, path.parent, environment=environment)
        seconds = time.monotonic() - start
        limit = machine_seconds(path) or 60
        goal = f"<= {limit:g}"
        bench(f"{path.stem}, {state}: time", seconds, "s", goal=goal)
        bench(f"{path.stem}, {state}: memory", memory.peak / 1e6, "MB", goal=f"<= {MOST_MEGABYTES}")
