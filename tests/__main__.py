"""Run everything: ``make test``, or ``python -m tests [STAGE ...]``.

Each stage is a program of its own, timed. The quick ones run first, then the long ones two at a
time, a core each; what such a stage says is shown when it has ended. A failed stage does not stop
the later ones; the run as a whole fails. The last stage is pytest's, so that the last line is its
count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTEST = [sys.executable, "-m", "pytest", "-q", "--durations=10"]
BROWSER = ["tests/browser"]
BOOK = [f"tests/browser/test_{name}_in_browser.py" for name in ("book", "moving")]
LAST = ["tests/notebooks/test_machine_time.py"]  # reads nbval's report
GRADER = ["tests/grader", "tests/tools"]
STRANGERS = ["tests/honest", "tests/hostile"]
REPORT = ROOT / "build" / "nbval.xml"
PARTS = ("notebooks", "exercises", "solutions")
SAVED = [part for part in PARTS if any((ROOT / part).glob("*.ipynb"))] or ["notebooks"]
#: Other languages' editions: `build --check` compares them with the English notebooks.
EDITIONS = [
    f"--ignore={folder.relative_to(ROOT).as_posix()}"
    for part in PARTS
    for folder in sorted((ROOT / part).glob("*/"))
    if any(folder.glob("*.ipynb"))
]
SPHINX = "fewshot_lib/tools/book/conf.py"  # is read by Sphinx, beside what a build writes
ELSEWHERE = (*LAST, *BROWSER, *GRADER, *STRANGERS, "tests/benchmarks", "tests/__main__.py", SPHINX)

STAGES: dict[str, list[str]] = {
    "lint": [sys.executable, "-m", "ruff", "check", "."],
    "format": [sys.executable, "-m", "ruff", "format", "--check", "."],
    "types": [sys.executable, "-m", "mypy"],
    "build": [sys.executable, "-m", "fewshot_lib.cli", "build", "--check"],
    "nbval": [*PYTEST, "--nbval", *SAVED, *EDITIONS, f"--junitxml={REPORT}"],
    "grader": [*PYTEST, *GRADER],
    "unit": [
        *PYTEST, "tests", "fewshot_lib", "--doctest-modules",
        *(f"--ignore={path}" for path in ELSEWHERE),
    ],
    "strangers": [*PYTEST, *STRANGERS],
    "browser": [*PYTEST, *BROWSER, *(f"--ignore={path}" for path in BOOK)],
    "book": [*PYTEST, *BOOK],
    "times": [*PYTEST, *LAST],
}  # fmt: skip
#: Two of these run at any time, one thread each: small work, on which a second thread is lost.
#: The longest come first; the notebooks in a browser find trained what nbval has trained.
TWO_AT_A_TIME = ("nbval", "grader", "unit", "browser", "book", "strangers", "types")


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


class Run:
    """One run of stages: what each took, and whether it passed."""

    def __init__(self, variables: dict[str, str], scratch: Path) -> None:
        self.variables, self.scratch = variables, scratch
        self.done: list[tuple[str, float, str]] = []
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def stage(self, name: str, beside: bool = False) -> None:
        """Run a stage; beside another one its output is kept until it has ended."""
        kept = self.scratch / f"{name}.txt"
        title = f"\n=== {name}: {' '.join(STAGES[name][2:])}"
        print(f"{title}{' (shown when it has ended)' * beside}", flush=True)
        own = self.variables | ({"OMP_NUM_THREADS": "1"} if beside else {})
        begun = time.monotonic()
        with kept.open("wb") as file:
            out = file if beside else None
            process = subprocess.Popen(STAGES[name], cwd=ROOT, env=own, stdout=out, stderr=out)
        self._running.add(process)
        status = process.wait()
        self._running.discard(process)
        with self._lock:
            if beside:
                print(f"\n=== {name} has ended:", flush=True)
                sys.stdout.write(kept.read_text(encoding="utf-8", errors="replace"))
            result = "FAILED" if status else "passed"
            self.done.append((name, time.monotonic() - begun, result))
            Path(self.variables["FEWSHOT_TEST_STAGES"]).write_text(
                json.dumps(self.done), encoding="utf-8"
            )
            print(f"=== {name} {result} after {self.done[-1][1]:.0f} s", flush=True)

    def two_at_a_time(self, chosen: list[str]) -> None:
        """Run the chosen stages in their order, each as soon as one of the two before it ends."""
        with ThreadPoolExecutor(2) as pool:
            try:
                list(pool.map(lambda name: self.stage(name, beside=True), chosen))
            except BaseException:  # interrupted
                pool.shutdown(wait=False, cancel_futures=True)
                for process in self._running:
                    process.kill()
                raise


def main(chosen: list[str]) -> int:
    """Run the chosen stages, all when none is named; return the exit status."""
    unknown = set(chosen) - set(STAGES)
    if unknown:
        print(f"No stage {', '.join(sorted(unknown))}; there are: {', '.join(STAGES)}")
        return 2
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "test-stages.json").unlink(missing_ok=True)
    names = [name for name in STAGES if name in chosen] if chosen else list(STAGES)
    long = [name for name in TWO_AT_A_TIME if name in names]
    with tempfile.TemporaryDirectory(prefix="fewshot-test-") as scratch:
        run = Run(environment(Path(scratch)), Path(scratch))
        for name in names:
            if name not in long or len(long) == 1:
                run.stage(name)
            elif name == long[0]:
                run.two_at_a_time(long)
    failed = [name for name, _, result in run.done if result == "FAILED"]
    if failed:
        print(f"Failed: {', '.join(failed)}. One stage alone: python -m tests {failed[0]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
