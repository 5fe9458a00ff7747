"""``fewshot doctor``: what this machine has, in a form fit for a bug report."""

from __future__ import annotations

import importlib.metadata as metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import fewshot_lib
from fewshot_lib.classroom.machine import (
    bubblewrap_problem,
    course_folder,
    find_chromium,
    shorten_home,
)

#: The packages whose versions decide most bug reports.
PACKAGES = (
    "torch", "numpy", "scikit-learn", "matplotlib", "nibabel", "pydicom",
    "jupyterlab", "ipywidgets", "ipykernel", "nbval", "nbgrader",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``wanting`` says what to do, None when all is well."""

    topic: str
    text: str
    wanting: str | None = None


def versions() -> Iterator[Finding]:
    """Report Python, the system, and the packages against the tested versions."""
    yield Finding("fewshot_lib", fewshot_lib.__version__)
    fit = (3, 11) <= sys.version_info[:2] <= (3, 13)
    wanting = None if fit else "the course needs Python 3.11, 3.12 or 3.13"
    yield Finding("python", f"{platform.python_version()} at {sys.executable}", wanting)
    yield Finding("system", f"{platform.platform()}, {os.cpu_count()} cores")
    tested = tested_versions()
    for name in PACKAGES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, "not installed", "repeat the set-up: make setup")
            continue
        want = tested.get(name)
        same = want is None or version.split("+")[0] == want
        yield Finding(name, version if same else f"{version} (the course is tested with {want})")


def tested_versions() -> dict[str, str]:
    """Read ``constraints.txt`` of the course; empty when the library stands alone."""
    folder = course_folder()
    if folder is None:
        return {}
    lines = (folder / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==", 1) for line in lines if "==" in line)
    return {name.strip().lower(): version.strip() for name, version in pairs}


def computing() -> Iterator[Finding]:
    """Report that PyTorch computes, with how many threads, and whether there is a GPU."""
    try:
        import torch
    except ImportError as error:
        yield Finding("torch computes", f"no: {error}", "repeat the set-up: make setup")
        return
    right = torch.ones(8, 8).matmul(torch.ones(8, 8)).sum().item() == 512.0
    yield Finding("torch computes", str(right), None if right else "reinstall torch")
    limit = os.environ.get("OMP_NUM_THREADS")
    threads = f"{torch.get_num_threads()} (OMP_NUM_THREADS {limit or 'not set'})"
    yield Finding("threads", threads)
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (none is needed)"
    yield Finding("GPU", gpu)


def kernel() -> Iterator[Finding]:
    """Report that a notebook started here finds this library, by asking the kernel's Python."""
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError:
        yield Finding("kernel", "no Jupyter", 'pip install -c constraints.txt -e ".[lab]"')
        return
    try:
        argv = KernelSpecManager().get_kernel_spec("python3").argv
    except NoSuchKernel:
        yield Finding("kernel", "no kernel python3", "python -m ipykernel install --sys-prefix")
        return
    program = shutil.which(argv[0]) or argv[0]
    python = sys.executable if argv[0] in ("python", "python3", "python3.11") else program
    question = "import fewshot_lib, ipykernel; print(fewshot_lib.__file__)"
    done = subprocess.run(
        [python, "-c", question], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        words = done.stderr.strip().splitlines()
        yield Finding("kernel", f"{python}: {words[-1] if words else 'fails'}", "make setup")
    else:
        yield Finding("kernel", f"python3 finds {done.stdout.strip()}")


def data() -> Iterator[Finding]:
    """Report the cache folder, its room, and whether the real scans are there."""
    from fewshot_lib.data import cache_dir, scans, status

    folder = cache_dir()
    free = shutil.disk_usage(folder).free / 1e9
    held = sum(entry.size for entry in status()) / 1e6
    wanting = "less than 1 GB is free there" if free < 1 else None
    yield Finding("cache", f"{folder} (holds {held:.1f} MB, {free:.0f} GB free)", wanting)
    here = scans.available()
    yield Finding("scans", "here" if here else "missing", None if here else "fewshot data fetch")


def course() -> Iterator[Finding]:
    """Report where the course lies and how many notebooks it has."""
    folder = course_folder()
    if folder is None:
        yield Finding("course", "not found beside the library", "clone the course and use it there")
        return
    count = len(list((folder / "notebooks").glob("*.ipynb")))
    wanting = None if count else "there are no notebooks: is the clone complete?"
    yield Finding("course", f"{folder}, {count} notebooks", wanting)


def outside_python() -> Iterator[Finding]:
    """Report what only tests and grading need; its absence harms no reader."""
    browser = find_chromium()
    yield Finding("chromium", str(browser) if browser else "none (only browser tests need it)")
    problem = bubblewrap_problem()
    yield Finding("sandbox", "usable" if problem is None else f"{problem}; only grading needs it")


def examine() -> list[Finding]:
    """Look at everything; a part that fails to report is itself a finding."""
    findings: list[Finding] = []
    for part in (versions, computing, kernel, data, course, outside_python):
        try:
            findings.extend(part())
        except Exception as error:  # the report must come out, whatever is broken
            text = f"{type(error).__name__}: {error}"
            findings.append(Finding(part.__name__.replace("_", " "), text, "repeat the set-up"))
    return findings


def report(findings: list[Finding]) -> str:
    """Write the findings as aligned lines, the home folder as ``~``.

    >>> report([Finding("threads", "2"), Finding("kernel", "none", "make setup")])
    'ok      threads  2\\nWANTING kernel   none -> make setup'
    """
    width = max(len(finding.topic) for finding in findings)
    lines = []
    for finding in findings:
        sign = "ok     " if finding.wanting is None else "WANTING"
        advice = f" -> {finding.wanting}" if finding.wanting else ""
        lines.append(f"{sign} {finding.topic:{width}}  {finding.text}{advice}")
    return shorten_home("\n".join(lines))


def as_json(findings: list[Finding]) -> str:
    """Write the findings as JSON, for programs."""
    rows = [
        {"topic": finding.topic, "text": shorten_home(finding.text), "wanting": finding.wanting}
        for finding in findings
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False)
