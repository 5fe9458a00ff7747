"""``fewshot segment`` of a large scan: seconds, memory, and memory against the number of slices."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from fewshot_lib.data.anatomy import make_volumes
from fewshot_lib.data.resize import resize_volume

MEASURED = """
import resource, sys, time
from pathlib import Path
began = time.perf_counter()
from fewshot_lib.reading.segment import segment_files
segment_files(*map(Path, sys.argv[1:]), overwrite=True)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(time.perf_counter() - began, time.process_time(), peak / 1024)
"""


def _scans(folder: Path, n_slices: int) -> tuple[Path, ...]:
    """Write two people on 256 × 256 × n, 1.5 mm wide; five slices of the first are labelled."""
    paths = []
    known, asked = (resize_volume(v, 256) for v in make_volumes(2, n_slices=20, size=128, seed=1))
    affine = np.diag([1.5, 1.5, 4.0, 1.0])
    index = np.linspace(0, 19, n_slices).round().astype(int)
    for name, volume in (("support", known), ("query", asked)):
        stack = volume.images[:, 0].numpy()[index].transpose(2, 1, 0)
        noise = np.random.default_rng(0).normal(0, 0.01, stack.shape)  # no two slices are copies
        path = folder / f"{name}_{n_slices}.nii.gz"
        nib.save(nib.Nifti1Image(((stack + noise) * 1000).astype(np.int16), affine), path)
        paths.append(path)
    labels = np.zeros((n_slices, 256, 256), np.uint8)
    kept = np.linspace(0, n_slices - 1, 7).round().astype(int)[1:-1]
    labels[kept] = known.labels.numpy()[index[kept]]
    labels[labels > 4] = 0  # four organs
    mask = folder / f"mask_{n_slices}.nii.gz"
    nib.save(nib.Nifti1Image(labels.transpose(2, 1, 0), affine), mask)
    return paths[0], mask, paths[1], folder / f"out_{n_slices}.nii.gz"


def _measured(paths: tuple[Path, ...]) -> tuple[float, float, float]:
    """Run in a process of its own: seconds, seconds of processor, MB at the peak."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, processor, peak = map(float, done.stdout.split()[-3:])
    return seconds, processor, peak


def test_a_large_scan_is_segmented_in_half_a_minute_within_flat_memory(
    bench: Callable[..., None], tmp_path: Path
) -> None:
    seconds, processor, few = _measured(_scans(tmp_path, 40))
    _, _, many = _measured(_scans(tmp_path, 160))
    note = "256 × 256 × 40, 5 labelled slices, 4 organs, imports included"
    bench("segment: time", seconds, "s", goal="<= 30", note=note)
    bench("segment: processor time", processor, "s", note="both cores added up")
    bench("segment: memory", few, "MB", goal="<= 2048", note=note)
    # a scan's own voxels (image, labels, body; a few copies) are 0.26 MB a slice and byte each
    bench("segment: memory of four times the slices", many / few, "×", goal="<= 1.5")
