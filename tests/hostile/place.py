"""A place of its own for each run of the hostile suite: two runs on one machine do not meet.

Home, temporary folder, canary, port, process group and session are its own. Grading runs in a
process below, so that what an attack does to a group or a session does not reach the tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

import psutil
from handed_in import COURSE, rows_of

import fewshot_lib.course  # noqa: F401  (it says which course is graded)
from fewshot_lib.grader.grade import grade, write_reports
from fewshot_lib.grader.sandbox import SandboxLimits


class Place:
    """Where attacks are graded and watched.

    Arguments:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.canary = f"canary-{secrets.token_hex(8)}"
        self.submissions, self.results = folder / "submissions", folder / "results"
        self.home, self.temporary = folder / "home", folder / "tmp"
        for one in (self.submissions, self.home, self.temporary):
            one.mkdir()
        (folder / "canary.txt").write_text(self.canary, encoding="utf-8")
        (self.home / ".fewshot-canary").write_text(self.canary, encoding="utf-8")
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(0.0)
        self.port = int(self._server.getsockname()[1])
        self.seen: set[psutil.Process] = set()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Place:
        """Give the place."""
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        """End what was started."""
        self._server.close()
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def put(self, student: str | bytes, data: bytes, name: str) -> None:
        """Hand in a notebook."""
        folder = os.path.join(os.fsencode(self.submissions), os.fsencode(student))  # noqa: PTH118
        os.makedirs(folder)  # noqa: PTH103
        with open(os.path.join(folder, os.fsencode(f"{name}.ipynb")), "wb") as file:  # noqa: PTH118, PTH123
            file.write(data.replace(b"PORT_OF_THE_TEST", str(self.port).encode()))

    def start(self, limits: SandboxLimits, workers: int = 2) -> None:
        """Begin to grade what was handed in."""
        wanted = {"limits": vars(limits), "workers": workers}
        environment = os.environ | {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "FEWSHOT_CANARY": self.canary,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        command = [sys.executable, __file__, str(self.folder), json.dumps(wanted)]
        self.process = subprocess.Popen(command, env=environment, start_new_session=True)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        assert self.process is not None
        while self.process.poll() is None:
            self.seen |= set(self.below())
            time.sleep(0.1)

    def below(self) -> list[psutil.Process]:
        """Give the processes below the grader now."""
        assert self.process is not None
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.Error:  # it ended meanwhile
            return []

    def finish(self) -> dict[str, dict]:
        """Wait for the end of grading; give the rows by student."""
        assert self.process is not None
        assert self.process.wait() == 0
        return {row["student"]: row for row in rows_of(self.results)}

    def left(self, seconds: float = 60.0) -> list[psutil.Process]:
        """Give the processes of grading that still run; the kernel has time to bury the killed."""
        deadline = time.monotonic() + seconds
        while (left := [one for one in self.seen if one.is_running()]) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.2)
        return left

    def connected(self) -> bool:
        """Say whether somebody connected to the port."""
        try:
            self._server.accept()[0].close()
        except BlockingIOError:
            return False
        return True


def memory_mb(processes: list[psutil.Process]) -> float:
    """Add up what processes hold in memory, a shared page by its share, as the machine sees it."""
    total = 0
    for one in processes:
        with contextlib.suppress(OSError, ProcessLookupError):
            lines = Path(f"/proc/{one.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
            found = (line.split() for line in lines)
            total += sum(int(w[1]) for w in found if w[0] in ("Pss_Anon:", "Pss_Shmem:"))
    return total / 1024


def main(folder: Path, wanted: str) -> None:
    """Grade; what :meth:`Place.start` runs."""
    asked = json.loads(wanted)
    limits = SandboxLimits(**asked["limits"])
    kept = folder / "results"
    grade(folder / "submissions", kept, COURSE, seed=3, workers=asked["workers"], limits=limits)
    write_reports(kept, COURSE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
