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
from dataclasses import asdict, dataclass

import fewshot_lib
from fewshot_lib.checker.language import SOURCE, language, translate_message, words
from fewshot_lib.grader.bubblewrap import bubblewrap_problem
from fewshot_lib.tools.machine import (
    course_folder,
    find_chinese_font,
    find_chromium,
    find_postgresql,
    shorten_home,
)

_ = words("cli")

#: Whom a line of the report concerns; only what readers need decides whether all is well.
READERS, TEACHERS, AUTHORS = "readers", "teachers", "authors"
HEADINGS = {
    READERS: "To read the course and do the exercises",
    TEACHERS: "To grade submissions (only for teachers)",
    AUTHORS: "To run every test and build the book (only for authors)",
}
#: The packages whose versions decide most bug reports, and what installs them.
PACKAGES = {
    READERS: (
        "torch", "numpy", "scipy", "scikit-learn", "scikit-image", "matplotlib", "nibabel",
        "pydicom", "jupyterlab", "ipywidgets", "anywidget", "ipykernel", "nbclient",
        "efficientnet-lite-pytorch",
    ),
    TEACHERS: ("nbgrader", "dask", "psycopg"),
    AUTHORS: ("pytest", "nbval", "hypothesis", "playwright", "monai", "sphinx", "myst-nb"),
}  # fmt: skip
INSTALL = {
    READERS: 'pip install -c constraints.txt -e ".[lab]"',
    TEACHERS: 'pip install -c constraints.txt -e ".[lab,classroom]"',
    AUTHORS: 'pip install -c constraints.txt -e ".[lab,classroom,test,book]"',
}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Arguments:
        topic, text: what was looked at, and what was found.
        missing: what to do about it; None when all is well.
        who: whom it concerns.
    """

    topic: str
    text: str
    missing: str | None = None
    who: str = READERS


def versions() -> Iterator[Finding]:
    """Report Python, the system, and the packages against the tested versions."""
    yield Finding("fewshot_lib", fewshot_lib.__version__)
    fit = (3, 11) <= sys.version_info[:2] <= (3, 13)
    missing = None if fit else "the course needs Python 3.11, 3.12 or 3.13"
    yield Finding("python", f"{platform.python_version()} at {sys.executable}", missing)
    yield Finding("system", f"{platform.platform()}, {os.cpu_count()} cores")
    tested = tested_versions()
    for who, names in PACKAGES.items():
        for name in names:
            try:
                version = metadata.version(name)
            except metadata.PackageNotFoundError:
                yield Finding(name, "not installed", INSTALL[who], who)
                continue
            want = tested.get(name)
            same = want is None or version.split("+")[0] == want
            text = version if same else f"{version} (the course is tested with {want})"
            yield Finding(name, text, who=who)


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
        yield Finding("torch computes", f"no: {error}", INSTALL[READERS])
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
        yield Finding("kernel", "no Jupyter", INSTALL[READERS])
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
        yield Finding("kernel", f"{python}: {words[-1] if words else 'fails'}", INSTALL[READERS])
    else:
        yield Finding("kernel", f"python3 finds {done.stdout.strip()}")


def data() -> Iterator[Finding]:
    """Report the cache folder, its room, and whether the real scans are there."""
    from fewshot_lib.data import cache_dir, scans, status

    folder = cache_dir()
    free = shutil.disk_usage(folder).free / 1e9
    held = sum(entry.size for entry in status()) / 1e6
    missing = "less than 1 GB is free there" if free < 1 else None
    yield Finding("cache", f"{folder} (holds {held:.1f} MB, {free:.0f} GB free)", missing)
    text = "not here; lessons show synthetic anatomy instead (fewshot data fetch: 38 MB)"
    yield Finding("scans", "here" if scans.available() else text)


def course() -> Iterator[Finding]:
    """Report where the course lies and how many notebooks it has."""
    folder = course_folder()
    if folder is None:
        yield Finding("course", "not found beside the library", "clone the course and use it there")
        return
    count = len(list((folder / "notebooks").glob("*.ipynb")))
    missing = None if count else "there are no notebooks: is the clone complete?"
    yield Finding("course", f"{folder}, {count} notebooks", missing)


def outside_python() -> Iterator[Finding]:
    """Report what pip cannot install: the sandbox for grading, and what only tests use."""
    problem = bubblewrap_problem()
    way = "see the reason; grading needs a sandbox (Linux)"
    yield Finding("sandbox", problem or "usable", way if problem else None, TEACHERS)
    font = find_chinese_font()
    way = "apt install fonts-wqy-zenhei: Chinese characters are empty boxes without a font"
    who = AUTHORS if language() == SOURCE else READERS
    yield Finding("Chinese font", font or "none", None if font else way, who)
    for topic, place in (("chromium", find_chromium()), ("postgresql", find_postgresql())):
        way = f"apt install {topic}"
        yield Finding(topic, str(place or "none"), None if place else way, AUTHORS)


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


def missing_for_readers(findings: list[Finding]) -> list[Finding]:
    """List what a reader needs and this machine does not have."""
    return [finding for finding in findings if finding.missing and finding.who == READERS]


def verdict(findings: list[Finding]) -> str:
    """Say whether a reader has what the course needs, and otherwise what to do.

    >>> verdict([Finding("threads", "2"), Finding("nbgrader", "not installed", "…", TEACHERS)])
    'all checks passed'
    >>> verdict([Finding("kernel", "none", "make setup")])
    'MISSING kernel: none -> make setup'
    """
    lines = [
        f"MISSING {f.topic}: {_told(f.text)} -> {_told(str(f.missing))}"
        for f in missing_for_readers(findings)
    ]
    return shorten_home("\n".join(lines) or _("all checks passed"))


def _told(text: str) -> str:
    """Say a finding in the reader's language; topics and signs stay, which a bug report needs."""
    return translate_message(text, "cli")


def report(findings: list[Finding]) -> str:
    """Write the findings as aligned lines below headings, the home folder as ``~``.

    >>> print(report([Finding("threads", "2"), Finding("kernel", "none", "make setup")]))
    To read the course and do the exercises
      ok      threads  2
      MISSING kernel   none -> make setup
    """
    width = max(len(finding.topic) for finding in findings)
    lines = []
    for who, heading in HEADINGS.items():
        members = [finding for finding in findings if finding.who == who]
        lines += [_told(heading)] if members else []
        for finding in members:
            absent = "MISSING" if who == READERS else "absent "
            sign = "ok     " if finding.missing is None else absent
            advice = f" -> {_told(finding.missing)}" if finding.missing else ""
            lines.append(f"  {sign} {finding.topic:{width}}  {_told(finding.text)}{advice}")
    return shorten_home("\n".join(lines))


def as_json(findings: list[Finding]) -> str:
    """Write the findings as JSON, for programs."""
    rows = [{**asdict(finding), "text": shorten_home(finding.text)} for finding in findings]
    return json.dumps(rows, indent=1, ensure_ascii=False)
