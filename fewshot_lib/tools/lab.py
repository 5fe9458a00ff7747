"""Serve the course: JupyterLab on this machine only, opened at the first notebook.

``jupyter lab PATH`` would put the token on the command line, show its whole log, and not say why it
ended. The browser tests use the same server.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any
from urllib.parse import quote

from fewshot_lib.checker.language import SOURCE, short, words
from fewshot_lib.tools import copies
from fewshot_lib.tools.machine import has_display, is_root

#: JupyterLab settings of the course: no announcements, hence no question and no call at start; none
#: of the panels of nbgrader, which are for teachers (`jupyter lab` has them).
JUPYTER_SETTINGS = Path(__file__).with_name("jupyter")
HOST = "127.0.0.1"

_ = words("cli")


class CannotServe(RuntimeError):
    """JupyterLab cannot run here; the message says why and what to do."""


@dataclass(frozen=True)
class Server:
    """A running JupyterLab: its address, its token, its process."""

    port: int
    token: str
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """The address without the token, e.g. ``http://127.0.0.1:8888``."""
        return f"http://{HOST}:{self.port}"

    def address(self, notebook: str | None = None) -> str:
        """Write the address that opens a notebook (a path within the served folder), with token."""
        tree = f"/tree/{quote(notebook)}" if notebook else ""
        return f"{self.url}/lab{tree}?token={self.token}"

    def ask(self, path: str, method: str = "GET") -> Any:
        """Ask the server's interface, e.g. ``/api/status``; raise ``OSError`` when it is silent.

        Returns:
            What the JSON of the reply says; None when it is empty.
        """
        request = urllib.request.Request(
            self.url + path, headers={"Authorization": f"token {self.token}"}, method=method
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=10) as reply:
            text = reply.read()
        return json.loads(text) if text else None

    def stop(self) -> None:
        """End the server and its kernels."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def free_port(first: int) -> int:
    """Find the first free port of this machine from ``first`` on.

    Raises:
        CannotServe: when none of the next 50 is free.

    >>> free_port(8888) >= 8888
    True
    """
    for port in range(first, min(first + 50, 65536)):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(os.name != "nt"))
            with contextlib.suppress(OSError):
                trial.bind((HOST, port))
                return port
    said = _("No free port from {first} to {last}: name one with --port.")
    raise CannotServe(said.format(first=first, last=first + 49))


def first_notebook(folder: Path, language: str = SOURCE) -> str | None:
    """Name the notebook to open first, the reader's copy of 00, relative to the course's folder."""
    place = "notebooks" if language == SOURCE else f"notebooks/{short(language)}"
    found = sorted((folder / copies.FOLDER / place).glob("00*.ipynb"))
    return f"{copies.FOLDER}/{place}/{found[0].name}" if found else None


def start_server(
    folder: Path,
    port: int = 8888,
    log: IO[bytes] | None = None,
    patience: float = 300.0,  # a busy machine needs more than a minute
) -> Server:
    """Start JupyterLab in a folder and wait until it answers.

    Arguments:
        folder: what is served.
        port: the first port to try; the next free one is used if it is taken.
        log: where the server's own messages go; dropped when omitted.
        patience: seconds to wait for the first answer.

    Raises:
        CannotServe: it is not installed, it ended, or it did not answer in time.
    """
    if importlib.util.find_spec("jupyterlab") is None:
        raise CannotServe(
            _("JupyterLab is not installed: {command}").format(
                command='pip install -c constraints.txt -e ".[lab]"'
            )
        )
    port, token = free_port(port), secrets.token_hex(24)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.ip={HOST}"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    command += [f"--ServerApp.root_dir={folder}", "--ServerApp.answer_yes=True"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    if is_root():
        command.append("--allow-root")
    settings = os.pathsep.join(
        filter(None, [str(JUPYTER_SETTINGS), os.environ.get("JUPYTER_CONFIG_PATH")])
    )
    # The token travels in the environment: other users can read a command line, not that.
    environment = {**os.environ, "JUPYTER_TOKEN": token, "JUPYTER_CONFIG_PATH": settings}
    out = log if log is not None else subprocess.DEVNULL
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
    )
    server = Server(port, token, process)
    deadline = time.monotonic() + patience
    try:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                said = _("JupyterLab ended at once (exit status {status}).")
                raise CannotServe(said.format(status=process.returncode))
            with contextlib.suppress(OSError):
                server.ask("/api/status")
                return server
            time.sleep(0.1)
    except BaseException:
        server.stop()
        raise
    server.stop()
    said = _("JupyterLab did not answer within {seconds} s.")
    raise CannotServe(said.format(seconds=f"{patience:.0f}"))


@contextlib.contextmanager
def serving(folder: Path, port: int = 8888, log: IO[bytes] | None = None) -> Iterator[Server]:
    """Serve a folder for the length of a ``with`` block."""
    server = start_server(folder, port, log)
    try:
        yield server
    finally:
        server.stop()


def _end(number: int, frame: FrameType | None) -> None:
    """Treat a request to end like Ctrl-C."""
    raise KeyboardInterrupt


def serve_course(
    folder: Path, port: int = 8888, browser: bool | None = None, language: str = SOURCE
) -> None:
    """Serve the course until Ctrl-C, at the reader's copy of its first notebook.

    Arguments:
        folder: the course's folder.
        port: the first port to try.
        browser: open a browser window; decided by whether there is a screen when omitted.
        language: of the notebooks, and of what the library says in them.

    Raises:
        CannotServe: with the reason and the way out.
    """
    for name in ("SIGTERM", "SIGHUP"):  # being ended must not leave a server behind
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _end)
    log_path = folder / "build" / "jupyterlab.log"
    try:
        log_path.parent.mkdir(exist_ok=True)
        said = str(copies.update(folder, language))
    except OSError as error:
        told = _("The folder of the course cannot be written to: {error}")
        raise CannotServe(told.format(error=error)) from None
    if said:
        print(said)
    with log_path.open("wb") as log:
        try:
            server = start_server(folder, port, log)
        except CannotServe as error:
            log.flush()
            words = log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise CannotServe(f"{error} {words[-1] if words else ''}".strip()) from None
        try:
            address = server.address(first_notebook(folder, language))
            if is_root():
                print(_("Running as root, so JupyterLab was started with --allow-root."))
            if server.port != port:
                print(
                    _("Port {port} is taken: using {other}.").format(port=port, other=server.port)
                )
            wanted = has_display() if browser is None else browser
            opened = wanted and webbrowser.open(address)
            print(_("The course is open in your browser:") if opened else _("Open in a browser:"))
            ends = _("It answers to this machine only. Ctrl-C ends it.")
            print(f"\n    {address}\n\n{ends}", flush=True)
            server.process.wait()
        except KeyboardInterrupt:
            print(f"\n{_('Ending JupyterLab.')}")
        finally:
            server.stop()
        if server.process.returncode not in (0, -2, -15):
            told = _("JupyterLab ended (exit status {status}); what it said: {file}")
            status = server.process.returncode
            raise CannotServe(told.format(status=status, file="build/jupyterlab.log"))
