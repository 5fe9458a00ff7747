"""Give ``pytest --nbval`` its sanitizing file, from whatever folder it is called.

``pyproject.toml`` names this module (``-p``); it does what ``--nbval-sanitize-with`` does, which
takes a path relative to where one stands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SANITIZE = Path(__file__).with_name("nbval.cfg")


def pytest_configure(config: Any) -> None:
    """Name the file where nbval is asked for and nobody named another."""
    option = config.option
    wanted = getattr(option, "nbval", False) or getattr(option, "nbval_lax", False)
    if wanted and option.nbval_sanitize_with is None:
        option.nbval_sanitize_with = str(SANITIZE)
