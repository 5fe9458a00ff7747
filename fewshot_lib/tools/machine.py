"""What this machine has: folders, Chromium, PostgreSQL. Standard library only.

The set-up runs this module before anything is installed; ``fewshot doctor`` and the tests ask it
the same questions later, so that all three always agree.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

#: Names under which a Chromium goes on Linux, best first.
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

#: Where a Chromium lies on systems that do not put it on the search path.
CHROMIUM_PLACES = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Google/Chrome/Application/chrome.exe",
)


def course_folder(start: Path | None = None) -> Path | None:
    """Find the folder of the course: the one that holds ``notebooks/`` and ``fewshot_lib/``.

    Arguments:
        start: where to begin; the working directory when omitted.

    Returns:
        The nearest such folder at or above ``start``, else the one that this library was installed
        from, else None (the library was installed without the course around it).

    >>> course_folder(Path(__file__)).joinpath("fewshot_lib").is_dir()
    True
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / "notebooks").is_dir() and (folder / "fewshot_lib").is_dir():
            return folder
    return None


def is_root() -> bool:
    """Say whether this process is the superuser, which JupyterLab and Chromium refuse."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def has_display() -> bool:
    """Say whether a browser window could be opened here.

    Windows and macOS always have a screen; elsewhere ``DISPLAY`` or ``WAYLAND_DISPLAY`` tells.
    """
    if os.name == "nt" or "darwin" in os.uname().sysname.lower():
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def find_chromium() -> Path | None:
    """Find the browser for the browser tests.

    Returns:
        The path in the variable ``FEWSHOT_CHROMIUM`` if it is set (None if nothing is there), else
        the first Chromium or Chrome found, else None.
    """
    named = os.environ.get("FEWSHOT_CHROMIUM")
    if named is not None:
        return Path(named) if Path(named).is_file() else None
    for name in CHROMIUM_NAMES:
        found = shutil.which(name)
        if found:
            return Path(found)
    return next((Path(place) for place in CHROMIUM_PLACES if Path(place).is_file()), None)


def find_chinese_font() -> str | None:
    """Name a font that has Chinese characters, by fontconfig; None if there is none.

    Where there is no fontconfig (macOS, Windows) the system brings such a font.
    """
    if shutil.which("fc-list") is None:
        return "the system's own" if sys.platform in ("darwin", "win32") else None
    command = ["fc-list", ":lang=zh-cn", "family"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return next((line.split(",")[0] for line in sorted(done.stdout.splitlines())), None)


def find_postgresql() -> Path | None:
    """Find the folder with PostgreSQL's server programs (``initdb``, ``pg_ctl``), for the tests.

    Debian keeps them off the search path, one folder a version; the newest is taken.
    """
    if shutil.which("initdb") and shutil.which("pg_ctl"):
        return Path(shutil.which("pg_ctl") or "").resolve().parent
    folders = [place.parent for place in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda folder: float(folder.parent.name), default=None)


def shorten_home(text: str) -> str:
    """Write the home folder as ``~``, so that a bug report does not carry a user's name.

    >>> shorten_home(str(Path.home() / "notes"))[:2] in ("~/", "~" + chr(92))
    True
    """
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text
