"""What ``import fewshot_lib.prototypes`` costs beside ``import torch``. Goal: at most 1.15 times.

Each import is timed inside a fresh interpreter, whose own start is left out (it would flatter the
ratio). The two alternate, so that a machine that slows down slows both.
"""

import statistics
import subprocess
import sys

import pytest

REPEATS = 15


def seconds_to_import(module: str) -> float:
    code = (
        "import time; start = time.perf_counter(); "
        f"import {module}; print(time.perf_counter() - start)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(run.stdout)


def measured_ratios(repeats: int = REPEATS) -> list[float]:
    ratios = []
    for repeat in range(repeats + 1):
        order = ["torch", "fewshot_lib.prototypes"]
        times = {name: seconds_to_import(name) for name in order[:: 1 if repeat % 2 else -1]}
        if repeat:  # the first pair only fills the disk cache
            ratios.append(times["fewshot_lib.prototypes"] / times["torch"])
    return sorted(ratios)


@pytest.mark.bench
def test_importing_prototypes_costs_hardly_more_than_importing_torch(bench):
    ratios = measured_ratios()
    bench(
        "import fewshot_lib.prototypes / import torch",
        statistics.median(ratios),
        # The 4th and 12th of 15 hold the median with 96 % (binomial).
        interval=(ratios[3], ratios[-4]),
        goal="<= 1.15",
        note=f"median of {len(ratios)} alternated pairs, 96 % interval",
    )
