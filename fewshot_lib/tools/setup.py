"""Set the course up on a fresh machine: ``python -m fewshot_lib.tools.setup``.

``make lab`` and ``make test`` begin with this: the first installs what readers need, the second
everything. It runs on a bare Python (standard library only),
creates ``.venv`` beside the notebooks, installs the tested versions into it and fetches the real
scans. It says what it does, is quick when nothing changed, repairs an environment that was left
half made, and when it cannot go on it says why in one sentence.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fewshot_lib.tools.machine import (
    find_chinese_font,
    find_chromium,
    find_postgresql,
    is_root,
)

OLDEST, NEWEST = (3, 11), (3, 13)
NEEDED_GIGABYTES = 4.0  # the environment takes 2.2 GB, pip's temporary files the rest
#: The extras of pyproject.toml that a reader needs.
READERS = ("lab",)
STAMP = "fewshot-setup.json"
UNFINISHED = "fewshot-setup.unfinished"
CANNOT = 3  # exit status: this machine cannot, and the sentence says why

#: Debian packages for what pip cannot install, and how to see that one is missing.
SYSTEM_PACKAGES: dict[str, Callable[[], bool]] = {
    "chromium": lambda: find_chromium() is None,
    "bubblewrap": lambda: shutil.which("bwrap") is None,
    "postgresql": lambda: find_postgresql() is None,
    "fontconfig": lambda: shutil.which("fc-list") is None,
    "fonts-wqy-zenhei": lambda: find_chinese_font() is None,  # the smallest with all of GB 2312
}

#: What pip prints when it fails, and the sentence for it; the first that matches is said.
PIP_FAILURES = (
    (r"No space left on device|Errno 28", "The disk is full: free about 4 GB and repeat."),
    (
        r"name resolution|NewConnectionError|Network is unreachable|Max retries exceeded"
        r"|ConnectTimeout|ReadTimeout|ProxyError|Connection (broken|refused|reset)|SSLError"
        r"|Could not fetch URL|nodename nor servname",
        "pip cannot reach a package index: check the network or proxy (PIP_INDEX_URL, HTTPS_PROXY)"
        " and repeat; nothing that was downloaded is lost.",
    ),
    (r"Permission denied|Errno 13", "The folder of the course may not be written to."),
    (
        r"No matching distribution found for (?P<what>\S+)",
        "pip's index has no {what} for this Python and machine, or cannot be reached: use 64-bit"
        " CPython 3.11 to 3.13, check the network, or take the conda environment.",
    ),
    (
        r"ResolutionImpossible|conflicting dependencies",
        "pip does not find the tested versions together: its index cannot be reached or lacks one"
        " of them, or constraints.txt contradicts pyproject.toml (all pip said: .venv/setup.log).",
    ),
)


def say(text: str) -> None:
    """Print one line at once, in the reader's language."""
    print(_told(text), flush=True)


def _told(text: str) -> str:
    if sys.version_info[:2] < OLDEST:
        return text  # the library is not made for it
    from fewshot_lib.checker.language import translate_message

    return translate_message(text, "cli")


def give_up(sentence: str) -> NoReturn:
    """End with exit status 3 and one sentence."""
    print(_told(f"Set-up stopped: {sentence}"), file=sys.stderr, flush=True)
    raise SystemExit(CANNOT)


def check_python() -> None:
    """Stop unless this Python can carry the course."""
    version = sys.version_info[:2]
    if not OLDEST <= version <= NEWEST:
        give_up(
            f"Python {version[0]}.{version[1]} was found, but the course needs 3.11, 3.12 or 3.13:"
            " install one, or name it: make setup PYTHON=/path/to/python3.11"
        )
    if sys.maxsize < 2**32:
        give_up("this is a 32-bit Python, for which there is no PyTorch: install a 64-bit one.")
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        give_up(
            f"this Python lacks the module {missing[0]} (Debian, Ubuntu: apt install"
            f" python{version[0]}.{version[1]}-venv)."
        )


def check_disk(folder: Path) -> None:
    """Stop before a download that cannot fit."""
    free = shutil.disk_usage(folder).free / 1e9
    if free < NEEDED_GIGABYTES:
        give_up(f"{free:.1f} GB are free in this folder, about {NEEDED_GIGABYTES:.0f} GB needed.")


def venv_python(venv: Path) -> Path:
    """Say where the interpreter of an environment lies on this system."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def project(root: Path) -> dict[str, Any]:
    """Read what ``pyproject.toml`` says of the package; not how its tools are set."""
    import tomllib  # here, so that an older Python gets as far as the sentence about its age

    table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return dict(table)


def wanted(root: Path) -> dict[str, str]:
    """Describe the environment that this checkout needs.

    Returns:
        ``home``: what cannot change without building it anew (place, Python);
        ``packages``: a hash of what is to be installed in it.
    """
    home = f"{root / '.venv'} {platform.python_implementation()} {sys.version_info[0]}."
    home += f"{sys.version_info[1]} {platform.machine()}"
    packages = json.dumps(project(root), sort_keys=True)
    packages += (root / "constraints.txt").read_text(encoding="utf-8")
    return {"home": home, "packages": hashlib.sha256(packages.encode()).hexdigest()}


def read_stamp(venv: Path) -> dict[str, str]:
    """Read what an earlier set-up left; empty when there was none or it is damaged."""
    try:
        stamp = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


PROBE = """
import importlib.metadata as metadata, sys
import pip
for name in sys.argv[1:]:
    files = metadata.distribution(name).files or []
    code = [f for f in files if f.suffix in (".py", ".so", ".pyd")][:1]
    if code and not code[0].locate().exists():
        raise SystemExit(f"{name} is damaged")
"""


def direct_dependencies(root: Path, extras: Sequence[str]) -> list[str]:
    """List the distributions that ``pyproject.toml`` names, those of the given extras included."""
    table = project(root)
    optional, own = table.get("optional-dependencies", {}), table["name"]
    lines, waiting, seen = list(table.get("dependencies", [])), list(extras), set[str]()
    while waiting:
        extra = waiting.pop()
        if extra not in seen:
            seen.add(extra)
            lines += optional.get(extra, [])
            waiting += [
                inner
                for line in optional.get(extra, [])
                if line.startswith(f"{own}[")
                for inner in line[len(own) + 1 : line.index("]")].split(",")
            ]
    lines = [line for line in lines if not line.startswith(f"{own}[") and _is_for_here(line)]
    return sorted({re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines})


def _is_for_here(line: str) -> bool:
    """Whether a requirement is for this system; the one marker in use names a platform."""
    platforms = re.search(r"sys_platform\s*==\s*'(\w+)'", line)
    return platforms is None or platforms[1] == sys.platform


def wanted_extras(root: Path, extras: Sequence[str], stamp: dict[str, str]) -> list[str]:
    """Say which extras are to be there: those asked for, and those of an earlier set-up.

    An environment is never made smaller. A stamp that names none is of a set-up that took all.
    """
    every = sorted(project(root).get("optional-dependencies", {}))
    had = stamp.get("extras", ",".join(every)).split(",") if stamp else []
    return [extra for extra in every if extra in extras or extra in had]


def works(venv: Path, names: list[str]) -> bool:
    """Say whether an environment starts, has pip, and holds the named distributions."""
    python = venv_python(venv)
    if not python.exists():
        return False
    try:
        done = subprocess.run(
            [str(python), "-c", PROBE, *names], capture_output=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def make_venv(venv: Path) -> None:
    """Build an empty environment, removing whatever was there."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    say(f"Creating .venv with Python {platform.python_version()}.")
    done = subprocess.run(
        [base, "-m", "venv", "--clear", str(venv)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        words = (done.stderr or done.stdout).strip()
        for pattern, sentence in PIP_FAILURES:
            if re.search(pattern, words):
                give_up(sentence)
        give_up(f"{base} -m venv failed: {words.splitlines()[-1] if words else done.returncode}")


def explain(log: str) -> str:
    """Turn pip's output into one sentence.

    >>> explain("ERROR: No matching distribution found for torch==9")[:29]
    "pip's index has no torch==9 f"
    """
    for pattern, sentence in PIP_FAILURES:
        found = re.search(pattern, log)
        if found:
            return sentence.format(**found.groupdict())
    errors = [line for line in log.splitlines() if line.startswith("ERROR")]
    last = (errors or log.strip().splitlines() or ["no output"])[-1]
    return f"pip failed: {last} (all it said: .venv/setup.log)"


def worth_saying(lines: Iterable[str]) -> Iterator[str]:
    """Shorten pip's output to large downloads and the installation."""
    for line in lines:
        download = re.search(
            r"Downloading (\S+?)[-_]\d\S* \((?P<size>[\d.]+) (?P<unit>[MG]B)\)", line
        )
        if download and (float(download["size"]) >= 10 or download["unit"] == "GB"):
            yield f"  downloading {download[1]} ({download['size']} {download['unit']})"
        elif line.startswith("Installing collected packages"):
            yield f"  installing {line.count(',') + 1} packages; this takes a minute or two"


def choose_torch(root: Path, venv: Path) -> list[str]:
    """Say which build of PyTorch to ask pip for: on Linux the one for the CPU, if pip finds it.

    The usual build for Linux brings CUDA, several GB that the course does not need. Another index
    than pip's default has the build for the CPU. It is taken where pip knows such an index; where
    pip does not, the way to it is said and the usual build is taken. A torch of the tested version
    that is installed already stays.

    Arguments:
        root: the course's folder.
        venv: the environment, whose pip is asked.

    Returns:
        What to add to pip's command: a requirement, or nothing.
    """
    tested = re.search(
        r"^torch==(\S+)", (root / "constraints.txt").read_text(encoding="utf-8"), re.M
    )
    if sys.platform != "linux" or tested is None:
        return []
    asked = subprocess.run(
        [str(venv_python(venv)), "-m", "pip", "index", "versions", "torch"],
        capture_output=True,
        text=True,
        check=False,
    )
    installed = re.search(r"INSTALLED:\s+([^\s+]+)", asked.stdout)
    if asked.returncode or (installed and installed[1] == tested[1]):
        return []  # without an index, pip itself says what is wrong when it installs
    if re.search(rf"\b{re.escape(tested[1])}\+cpu\b", asked.stdout):
        return [f"torch=={tested[1]}+cpu"]
    say(
        "pip's index has PyTorch with CUDA only, several GB more than the course needs. For the\n"
        "small build press Ctrl-C and repeat with PIP_EXTRA_INDEX_URL=ADDRESS make setup, where\n"
        "ADDRESS is the CPU index that PyTorch's page 'Get started' shows behind --index-url."
    )
    return []


def install(root: Path, venv: Path, extras: Sequence[str]) -> None:
    """Install the library and what these extras need, at the tested versions."""
    what = f".[{','.join(extras)}]" if extras else "."
    torch = choose_torch(root, venv)
    quoted = " ".join(f'"{one}"' for one in (what, *torch))
    say(f"Installing: pip install -c constraints.txt -e {quoted}")
    command = [str(venv_python(venv)), "-m", "pip", "install", "--no-input"]
    command += ["--progress-bar", "off", "--constraint", "constraints.txt", "--editable", what]
    command += torch
    environment = {**os.environ, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment.pop("PIP_TARGET", None)
    with subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as pip:
        assert pip.stdout is not None
        log: list[str] = []
        for line in pip.stdout:
            log.append(line)
            for short in worth_saying([line]):
                say(short)
        status = pip.wait()
    (venv / "setup.log").write_text("".join(log), encoding="utf-8")
    if status:
        if not any(line.startswith("Installing collected") for line in log):
            (venv / UNFINISHED).unlink()  # pip had not begun to change anything
        give_up(explain("".join(log)))


def set_up_environment(root: Path, extras: Sequence[str] = READERS) -> bool:
    """Bring ``.venv`` to what this checkout needs.

    Arguments:
        root: the course's folder.
        extras: what is asked for beside the library itself.

    Returns:
        True when something had to be done.
    """
    venv = root / ".venv"
    stamp, unfinished = read_stamp(venv), (venv / UNFINISHED).exists()
    extras = wanted_extras(root, extras, stamp)
    want = {**wanted(root), "extras": ",".join(extras)}
    if stamp:
        stamp = {**stamp, "extras": ",".join(wanted_extras(root, (), stamp))}
    names = direct_dependencies(root, extras)
    if stamp == want and not unfinished and works(venv, names):
        return False
    check_disk(root)
    if unfinished:
        say("An earlier set-up did not finish: beginning afresh.")
    elif stamp and stamp.get("home") != want["home"]:
        say("The course was moved, or Python changed: building .venv anew.")
    elif stamp == want:
        say(".venv is damaged: building it anew.")
    anew = unfinished or (stamp and stamp.get("home") != want["home"]) or stamp == want
    if anew or not works(venv, []):
        make_venv(venv)
    (venv / UNFINISHED).touch()
    install(root, venv, extras)
    if not works(venv, names):
        give_up("pip reported success, but .venv lacks packages; remove .venv and repeat.")
    (venv / STAMP).write_text(json.dumps(want), encoding="utf-8")
    (venv / UNFINISHED).unlink()
    return True


def fetch_scans(root: Path) -> None:
    """Fetch the real scans unless they are there; without them the course uses synthetic ones.

    To ask the library costs seconds (it imports torch), so the answer is kept beside the stamp: the
    files, and under which circumstances they were what the library wanted.
    """
    kept = root / ".venv" / "fewshot-scans.json"
    library = (root / "fewshot_lib" / "data" / "scans.py").read_bytes()
    now = {
        "library": hashlib.sha256(library).hexdigest(),
        "cache": os.environ.get("FEWSHOT_CACHE", ""),
    }
    try:
        known = json.loads(kept.read_text(encoding="utf-8"))
        if known["now"] == now and all(Path(file).is_file() for file in known["files"]):
            return
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not asked yet, or the note is damaged: ask
    python = str(venv_python(root / ".venv"))
    fetch = [python, "-m", "fewshot_lib.cli", "data", "fetch"]
    if subprocess.run(fetch, cwd=root, stdin=subprocess.DEVNULL, check=False).returncode:
        say(
            "The real scans are missing, so lessons show synthetic anatomy instead and say so;\n"
            "fetch them later with: .venv/bin/fewshot data fetch"
        )
        return
    where = "from fewshot_lib.data.cache import cache_dir; print(cache_dir())"
    asked = subprocess.run(
        [python, "-c", where], cwd=root, capture_output=True, text=True, check=True
    )
    files = sorted(str(file) for file in (Path(asked.stdout.strip()) / "scans").iterdir())
    kept.write_text(json.dumps({"now": now, "files": files}), encoding="utf-8")


def install_system_packages() -> None:
    """Install what only tests need if that takes no question; else say what is missed."""
    missing = [name for name, is_missing in SYSTEM_PACKAGES.items() if is_missing()]
    if not missing:
        return
    names = " ".join(missing)
    if shutil.which("apt-get") is None:
        say(f"Not on this machine, so their tests are skipped: {names}.")
        return
    sudo: list[str] = []
    if not is_root():
        sudo = ["sudo", "-n"]
        may = (
            shutil.which("sudo")
            and not subprocess.run([*sudo, "true"], capture_output=True, check=False).returncode
        )
        if not may:
            say(f"Their tests are skipped until you run: sudo apt-get install {names}")
            return
    say(f"Installing with apt-get: {names}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *missing]):
        done = subprocess.run(
            [*sudo, "apt-get", *step],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if done.returncode:
            words = (done.stderr or done.stdout).strip().splitlines()
            say(f"apt-get {step[0]} failed ({words[-1] if words else done.returncode});")
            say(f"the tests that need {names} cannot run.")
            return


def main(arguments: list[str] | None = None) -> None:
    """Set the course up for a reader; ``--all`` adds what teachers and authors need."""
    parser = argparse.ArgumentParser(prog="python -m fewshot_lib.tools.setup")
    parser.add_argument(
        "--system",
        action="store_true",
        help="also Chromium, bubblewrap, PostgreSQL, a Chinese font (apt)",
    )
    parser.add_argument(
        "--all", action="store_true", help="also what grading, the tests and the book need"
    )
    parser.add_argument("--no-scans", action="store_true", help="do not fetch the real scans")
    parser.add_argument("--language", default="", help="to speak, as zh_CN; default: yours")
    options = parser.parse_args(arguments)
    if options.language:
        os.environ["FEWSHOT_LANGUAGE"] = options.language
    start = time.monotonic()
    root = Path(__file__).resolve().parents[2]
    check_python()
    try:
        every = sorted(project(root)["optional-dependencies"])
        changed = set_up_environment(root, every if options.all else READERS)
        if not options.no_scans:
            fetch_scans(root)
        if options.system:
            install_system_packages()
    except KeyboardInterrupt:
        print("\n" + _told("Interrupted; the same command goes on from here."), file=sys.stderr)
        raise SystemExit(130) from None
    except OSError as error:
        give_up(explain(f"{error.strerror or error} Errno {error.errno}: {error.filename or ''}"))
    state = "done" if changed else "nothing to do"
    say(f"Set-up: {state} ({time.monotonic() - start:.0f} s).")


if __name__ == "__main__":
    main()
