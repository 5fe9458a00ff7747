"""What every browser test uses."""

from __future__ import annotations

from pathlib import Path

import pytest
from jupyter_page import chromium, served, visit  # noqa: F401 - fixtures


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--screenshots DIR``."""
    parser.addoption("--screenshots", type=Path, help="keep a picture of every notebook here")
