"""What ``fewshot grade`` and ``fewshot report`` do: call, show progress, say how it ended."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fewshot_lib.checker.catalogue import NoSuchExercise
from fewshot_lib.checker.course import course as used
from fewshot_lib.checker.strip import CannotStrip
from fewshot_lib.grader import grade as grader
from fewshot_lib.grader import results
from fewshot_lib.grader.marks import BadOption, read_due
from fewshot_lib.grader.places import NoSubmissions
from fewshot_lib.grader.plan import NotBuilt
from fewshot_lib.grader.report import missing_ones
from fewshot_lib.grader.results import BadResults, NotWritten
from fewshot_lib.grader.runners import NoScheduler, OtherCourse
from fewshot_lib.grader.sandbox import NoSandbox, SandboxLimits
from fewshot_lib.grader.words import visible

DONE, PROBLEMS, WRONG_USE, CANNOT = 0, 1, 2, 3
_WRONG = (NoSubmissions, NoSuchExercise, NotBuilt, BadResults, BadOption, CannotStrip)
#: Of a long list, this many lines are printed; the report has all.
_MOST_LINES = 20
_UNSAFE = (
    "WARNING: no sandbox. Submissions run as your own programs and can read and change your files."
)


def _answered(work: Callable[[Path], tuple[int, str]]) -> tuple[int, str]:
    """Do something in the course's folder; turn what can go wrong into a status and a sentence."""
    course = used().folder()
    if course is None:
        return CANNOT, "The exercises are not beside the library: clone the course, grade there."
    try:
        status, said = work(course)
        return status, visible(said)  # it may hold names of files that strangers chose
    except _WRONG as error:
        return WRONG_USE, visible(str(error))
    except (NoSandbox, NoScheduler, OtherCourse, NotWritten) as error:
        return CANNOT, visible(str(error))
    except KeyboardInterrupt:
        return PROBLEMS, "Interrupted. What is graded is kept; the same command goes on from there."
    except OSError as error:
        reason = error.strerror or str(error)
        where = f" ({error.filename})" if error.filename else ""
        status = CANNOT if error.errno in (errno.ENOSPC, errno.EDQUOT) else WRONG_USE
        return status, visible(f"{reason}{where}. Results already written stay.")


def _listed(title: str, lines: Sequence[str]) -> list[str]:
    more = len(lines) - _MOST_LINES
    rest = [f"  and {more} more; report.html lists all"] if more > 0 else []
    return [title, *(f"  {line}" for line in lines[:_MOST_LINES]), *rest] if lines else []


def read_options(
    regrade: Sequence[str], status: Sequence[str], due: str, late: float | None, roster: Path | None
) -> grader.GradeOptions:
    """Read what a teacher typed.

    Raises:
        BadOption: one of the options means nothing; says which and what is expected.
    """
    if late is not None and not 0 <= late <= 100:  # NaN is neither
        raise BadOption(f"--late-per-day {late:g} is not a share: it must be from 0 to 100 percent")
    entries = None
    if roster is not None:
        from fewshot_lib.grader.roster import BadRoster, read_roster

        try:
            entries = [asdict(entry) for entry in read_roster(roster)]
        except (BadRoster, OSError) as error:
            raise BadOption(f"--roster: {error}") from None
    return grader.GradeOptions(regrade, status, read_due(due) if due else "", late, entries)


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
    regrade: Sequence[str] = (),
    status: Sequence[str] = (),
    due: str = "",
    late_per_day: float | None = None,
    roster: Path | None = None,
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
        options = read_options(regrade, status, due, late_per_day, roster)
        with tqdm(unit=" submissions", file=sys.stderr, disable=None) as bar:

            def progress(done: int, total: int, row: Mapping[str, Any]) -> None:
                bar.total = total
                bar.update(done - bar.n)
                said = visible(f"{row['student']}: {row['points']:g}")
                bar.set_postfix_str(said[:40], refresh=False)

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
                options=options,
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
        failed = [f"{who}, {what}: {why}" for who, what, why in summary.failed]
        strange = [f"{file}: {why}" for file, why in summary.unrecognised]
        rows = results.current(results.read_rows(folder / "results.jsonl"))
        absent = missing_ones(rows, results.read_settings(folder))
        lines = [
            *summary.remarks,
            said,
            *_listed("Could not be graded:", failed),
            *_listed("Not recognised as a submission, and not graded:", strange),
            *_listed("On the roster, nothing handed in:", [f"{s}, {e}" for s, e in absent]),
        ]
        return (PROBLEMS if failed or strange else DONE), "\n".join(lines)

    return _answered(work)


def verify(folder: Path, workers: int, isolation: str) -> tuple[int, str]:
    """Repeat every row and say which came out otherwise."""

    def work(course: Path) -> tuple[int, str]:
        differing = grader.verify(folder, course, workers=workers, isolation=isolation)
        if differing:
            lines = [f"  {who}, {what}: {', '.join(how)}" for who, what, how in differing]
            return PROBLEMS, "\n".join([f"Of {folder} these rows came out otherwise:", *lines])
        return DONE, f"Every row of {folder} came out the same."

    return _answered(work)


def report(folder: Path, repair: bool = False) -> tuple[int, str]:
    """Write the reports anew; with ``repair``, take damaged rows out first and say which."""

    def work(course: Path) -> tuple[int, str]:
        said = _repaired(folder) if repair else []
        if results.unfinished(folder / "results.jsonl"):
            said.append(
                "The last row was cut off while it was written; the next `fewshot grade` takes it "
                "out and grades that submission again."
            )
        said.append(f"Report: {grader.write_reports(folder, course)}")
        return DONE, "\n".join(said)

    return _answered(work)


def _repaired(folder: Path) -> list[str]:
    results.read_settings(folder)
    damaged, old = results.repair(folder)
    if old is None:
        return ["Nothing was damaged."]
    lines = [
        f"row {one.number}{f' ({one.about})' if one.about else ''}: {one.why}" for one in damaged
    ]
    return [
        *_listed("Taken out:", lines),
        f"The file as it was: {old}. The next `fewshot grade` grades again what has no row now.",
    ]


def export(folder: Path, url: str, root: Path | None = None) -> tuple[int, str]:
    """Bring marks into nbgrader's gradebook, and notebooks for formgrader below ``root``."""
    from fewshot_lib.grader import gradebook

    def work(course: Path) -> tuple[int, str]:
        results.read_settings(folder)
        try:
            count, waiting = gradebook.export(folder, url, course)
        except gradebook.NoGradebook as error:
            return WRONG_USE, str(error)
        texts = f"; {waiting} texts wait for you in formgrader" if waiting else ""
        said = f"{count} submissions entered{texts}."
        if root is not None:
            written = gradebook.write_notebooks(folder, course, root)
            said += f" {written} notebooks written to {root / 'autograded'}."
        return DONE, said

    return _answered(work)
