"""Say whether this machine can make sandboxes. Standard library only."""

from __future__ import annotations

import shutil
import subprocess


def bubblewrap_problem() -> str | None:
    """Say why strangers' code cannot be sandboxed here, by building an empty sandbox.

    Returns:
        None when a sandbox with namespaces of its own starts; otherwise one sentence.
    """
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap is not installed (Debian, Ubuntu: apt install bubblewrap; Linux only)"
    trial = [program, "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "true"]
    try:
        done = subprocess.run(trial, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not start: {error}"
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()
        said = reason[-1] if reason else f"exit status {done.returncode}"
        return f"bubblewrap is installed but may not make namespaces here: {said}"
    return None
