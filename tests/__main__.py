"""Run everything, quickest first: ``make test``, or ``python -m tests [STAGE ...]``.

Each stage is a program of its own, timed. A failed stage does not stop the later ones; the run as a
whole fails. ``unit`` needs one core and runs beside ``nbval``; what it says is shown when it has
ended. The last stage is pytest's, so that the last line is its count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTEST = [sys.executable, "-m", "pytest", "-q"]
#: Small work, on which a second thread is lost: it runs beside, and each of the two has a core.
BESIDE = {"unit": "nbval"}
#: Real sandboxes and a clock: they have the machine to themselves.
GRADER = ["tests/grader", "tests/tools", "tests/honest", "tests/hostile"]
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
        *(f"--ignore={path}" for path in (*LAST, *GRADER, "tests/benchmarks", "tests/__main__.py")),
    ],
    "nbval": [*PYTEST, "--nbval", *SAVED, f"--junitxml={REPORT}", "--durations=10"],
    "grader": [*PYTEST, *GRADER, "--durations=10"],
    "browser": [*PYTEST, *LAST, "--durations=10"],
}  # fmt: skip


def environment(scratch: Path) -> dict[str, str]:
    """Make the variables of the stages: two threads, and nothing from the user's own folders.

    The scans are copied from the user's cache; checkpoints are not, so that what the notebooks show
    is computed here. IPython and JupyterLab read no settings of the user's.
    """
    from fewshot_lib.tools.notebooks import private_cache

    own = private_cache(scratch / "cache")
    threads = str(min(2, os.cpu_count() or 1))  # what the course is measured on
    own.setdefault("OMP_NUM_THREADS", threads)
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR"):
        own[name] = str(scratch / name.lower())
    own["FEWSHOT_PROGRESS"] = str(scratch / "progress.json")
    own["FEWSHOT_TEST_STAGES"] = str(ROOT / "build" / "test-stages.json")
    own["FEWSHOT_NBVAL_REPORT"] = str(REPORT)
    return own


class Stage:
    """One stage, running: its output goes where ours goes, or waits in a file."""

    def __init__(
        self, name: str, variables: dict[str, str], later: Path | None = None, shared: bool = False
    ) -> None:
        self.name, self.later, self.start = name, later, time.monotonic()
        how = ", shown when it has ended" if later else ""
        print(f"\n=== {name}{how}: {' '.join(STAGES[name][2:])}", flush=True)
        alone = name not in (*BESIDE, "grader") and not shared
        own = variables | ({} if alone else {"OMP_NUM_THREADS": "1"})
        out = later.open("wb") if later else None
        self.process = subprocess.Popen(STAGES[name], cwd=ROOT, env=own, stdout=out, stderr=out)
        if out:
            out.close()
        self.seconds = 0.0
        self.clock = threading.Thread(target=self._wait, daemon=True)
        self.clock.start()

    def _wait(self) -> None:
        self.process.wait()
        self.seconds = time.monotonic() - self.start

    def ended(self) -> tuple[str, float, str]:
        """Wait, show what was kept back, and give name, seconds and result."""
        self.clock.join()
        status = self.process.returncode
        if self.later:
            print(f"\n=== {self.name}, which ran beside:", flush=True)
            sys.stdout.write(self.later.read_text(encoding="utf-8", errors="replace"))
            sys.stdout.flush()
        return self.name, self.seconds, "passed" if status == 0 else "FAILED"


def main(chosen: list[str]) -> int:
    """Run the chosen stages, all when none is named; return the exit status."""
    unknown = set(chosen) - set(STAGES)
    if unknown:
        print(f"No stage {', '.join(sorted(unknown))}; there are: {', '.join(STAGES)}")
        return 2
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "test-stages.json").unlink(missing_ok=True)
    done: list[tuple[str, float, str]] = []
    beside: Stage | None = None
    names = chosen or list(STAGES)
    with tempfile.TemporaryDirectory(prefix="fewshot-test-") as scratch:
        variables = environment(Path(scratch))

        def record(stage: Stage) -> None:
            done.append(stage.ended())
            Path(variables["FEWSHOT_TEST_STAGES"]).write_text(json.dumps(done), encoding="utf-8")

        try:
            for name in names:
                if BESIDE.get(name) in names:
                    beside = Stage(name, variables, Path(scratch) / f"{name}.txt")
                    continue
                shared = beside is not None and name == BESIDE[beside.name]
                record(Stage(name, variables, shared=shared))
                if beside and shared:
                    record(beside)
                    beside = None
        finally:
            if beside:  # interrupted
                beside.process.kill()
    failed = [name for name, _, result in done if result == "FAILED"]
    if failed:
        print(f"Failed: {', '.join(failed)}. One stage alone: python -m tests {failed[0]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
