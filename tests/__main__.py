"""Run everything, quickest first: ``make test``, or ``python -m tests [STAGE ...]``.

Each stage is a program of its own, timed. A failed stage does not stop the later ones; the run as a
whole fails. The last stage is pytest's, so that the last line is its count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTEST = [sys.executable, "-m", "pytest", "-q"]
ONE_THREAD = ("unit",)  # small work, and programs side by side: a second thread trebles its time
LAST = ["tests/browser", "tests/notebooks/test_machine_time.py"]
REPORT = ROOT / "build" / "nbval.xml"
PARTS = ("notebooks", "exercises", "solutions")
SAVED = [part for part in PARTS if any((ROOT / part).glob("*.ipynb"))] or ["notebooks"]

STAGES: dict[str, list[str]] = {
    "lint": [sys.executable, "-m", "ruff", "check", "."],
    "format": [sys.executable, "-m", "ruff", "format", "--check", "."],
    "types": [sys.executable, "-m", "mypy"],
    "build": [sys.executable, "-m", "fewshot_lib.cli", "build", "--check"],
    "unit": [
        *PYTEST, "tests", "fewshot_lib", "--doctest-modules", "--durations=10",
        *(f"--ignore={path}" for path in (*LAST, "tests/benchmarks", "tests/__main__.py")),
    ],
    "nbval": [*PYTEST, "--nbval", *SAVED, f"--junitxml={REPORT}", "--durations=10"],
    "browser": [*PYTEST, *LAST, "--durations=10"],
}  # fmt: skip


def environment(scratch: Path) -> dict[str, str]:
    """Make the variables of the stages: two threads, and nothing from the user's own folders.

    The scans are copied from the user's cache; checkpoints are not, so that what the notebooks show
    is computed here. IPython and JupyterLab read no settings of the user's.
    """
    from fewshot_lib.classroom.notebooks import private_cache

    own = private_cache(scratch / "cache")
    threads = str(min(2, os.cpu_count() or 1))  # what the course is measured on
    own.setdefault("OMP_NUM_THREADS", threads)
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR"):
        own[name] = str(scratch / name.lower())
    own["FEWSHOT_PROGRESS"] = str(scratch / "progress.json")
    own["FEWSHOT_TEST_STAGES"] = str(ROOT / "build" / "test-stages.json")
    own["FEWSHOT_NBVAL_REPORT"] = str(REPORT)
    return own


def main(chosen: list[str]) -> int:
    """Run the chosen stages, all when none is named; return the exit status."""
    unknown = set(chosen) - set(STAGES)
    if unknown:
        print(f"No stage {', '.join(sorted(unknown))}; there are: {', '.join(STAGES)}")
        return 2
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "test-stages.json").unlink(missing_ok=True)
    done: list[tuple[str, float, str]] = []
    with tempfile.TemporaryDirectory(prefix="fewshot-test-") as scratch:
        variables = environment(Path(scratch))
        for name in chosen or STAGES:
            print(f"\n=== {name}: {' '.join(STAGES[name][2:])}", flush=True)
            start = time.monotonic()
            own = variables | ({"OMP_NUM_THREADS": "1"} if name in ONE_THREAD else {})
            status = subprocess.run(STAGES[name], cwd=ROOT, env=own, check=False).returncode
            result = "passed" if status == 0 else "FAILED"
            done.append((name, time.monotonic() - start, result))
            Path(variables["FEWSHOT_TEST_STAGES"]).write_text(json.dumps(done), encoding="utf-8")
    failed = [name for name, _, result in done if result == "FAILED"]
    if failed:
        print(f"Failed: {', '.join(failed)}. One stage alone: python -m tests {failed[0]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
