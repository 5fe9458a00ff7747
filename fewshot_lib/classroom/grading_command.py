"""What ``fewshot grade`` and ``fewshot report`` do: call, show progress, say how it ended."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fewshot_lib.classroom import grade as grader
from fewshot_lib.classroom.edition import CannotWithhold
from fewshot_lib.classroom.machine import course_folder
from fewshot_lib.classroom.results import BadResults, NotWritten
from fewshot_lib.classroom.sandbox import NoSandbox, SandboxLimits
from fewshot_lib.classroom.submissions import NoSubmissions
from fewshot_lib.classroom.workplace import NoScheduler, OtherCourse
from fewshot_lib.exercises.catalogue import NoSuchExercise

DONE, WANTING, WRONG_USE, CANNOT = 0, 1, 2, 3
_WRONG = (NoSubmissions, NoSuchExercise, grader.NotBuilt, BadResults, CannotWithhold)
_UNSAFE = (
    "WARNING: no sandbox. Submissions run as your own programs and can read and change your files."
)


def _answered(work: Callable[[Path], tuple[int, str]]) -> tuple[int, str]:
    """Do something in the course's folder; turn what can go wrong into a status and a sentence."""
    course = course_folder()
    if course is None:
        return CANNOT, "The exercises are not beside the library: clone the course, grade there."
    try:
        return work(course)
    except _WRONG as error:
        return WRONG_USE, str(error)
    except (NoSandbox, NoScheduler, OtherCourse, NotWritten) as error:
        return CANNOT, str(error)
    except KeyboardInterrupt:
        return WANTING, "Interrupted. What is graded is kept; the same command goes on from there."
    except OSError as error:
        reason = error.strerror or str(error)
        where = f" ({error.filename})" if error.filename else ""
        status = CANNOT if error.errno in (errno.ENOSPC, errno.EDQUOT) else WRONG_USE
        return status, f"{reason}{where}. Results already written stay."


def grade(
    place: Path,
    folder: Path,
    *,
    exercise: str,
    seed: int | None,
    workers: int,
    time_limit: float,
    memory_limit: int,
    isolation: str,
    scheduler: str = "",
) -> tuple[int, str]:
    """Grade, write the reports, and say how it went: exit status and sentence."""
    limits = SandboxLimits(
        wall_seconds=time_limit,
        memory_mb=memory_limit,
        answer_seconds=min(20.0, time_limit / 2),
    )
    if isolation == "none":
        print(_UNSAFE, file=sys.stderr)

    def work(course: Path) -> tuple[int, str]:
        with tqdm(unit=" submissions", file=sys.stderr, disable=None) as bar:

            def progress(done: int, total: int, row: Mapping[str, Any]) -> None:
                bar.total = total
                bar.update(done - bar.n)
                bar.set_postfix_str(f"{row['student']}: {row['points']:g}"[:40], refresh=False)

            summary = grader.grade(
                place,
                folder,
                course,
                only=exercise,
                seed=seed,
                workers=workers,
                limits=limits,
                isolation=isolation,
                scheduler=scheduler,
                progress=progress,
            )
        page = grader.write_reports(folder, course)
        said = f"{summary.graded} graded"
        if summary.kept:
            said += f", {summary.kept} were graded before"
        if summary.graded:
            said += f"; first result after {summary.first_seconds:.1f} s, all after "
            said += f"{summary.seconds:.1f} s"
        said += f". Report: {page}"
        if summary.failed:
            lines = [f"  {who}, {what}: {why}" for who, what, why in summary.failed]
            return WANTING, "\n".join([said, "Could not be graded:", *lines])
        return DONE, said

    return _answered(work)


def verify(folder: Path, workers: int, isolation: str) -> tuple[int, str]:
    """Repeat every row and say which came out otherwise."""

    def work(course: Path) -> tuple[int, str]:
        differing = grader.verify(folder, course, workers=workers, isolation=isolation)
        if differing:
            lines = [f"  {who}, {what}: {', '.join(how)}" for who, what, how in differing]
            return WANTING, "\n".join(["These rows came out otherwise:", *lines])
        return DONE, f"Every row of {folder} came out the same."

    return _answered(work)


def report(folder: Path) -> tuple[int, str]:
    """Write the reports anew."""
    return _answered(lambda course: (DONE, f"Report: {grader.write_reports(folder, course)}"))


def export(folder: Path, url: str, root: Path | None = None) -> tuple[int, str]:
    """Bring marks into nbgrader's gradebook, and notebooks for formgrader below ``root``."""
    from fewshot_lib.classroom import gradebook

    def work(course: Path) -> tuple[int, str]:
        grader.results_settings(folder)
        try:
            count, waiting = gradebook.export(folder, url)
        except gradebook.NoGradebook as error:
            return WRONG_USE, str(error)
        texts = f"; {waiting} texts wait for you in formgrader" if waiting else ""
        said = f"{count} submissions entered{texts}."
        if root is not None:
            written = gradebook.write_notebooks(folder, course, root)
            said += f" {written} notebooks written to {root / 'autograded'}."
        return DONE, said

    return _answered(work)
