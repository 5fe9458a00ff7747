"""Check a reader's exercise notebook from the command line: ``fewshot check``.

The notebook is run and its answers are called and judged as the grader does it, by the same code:
what ``fewshot check`` gives, ``fewshot grade`` gives. Only the cases differ, which are the public
ones here, and the place: there is no sandbox, so a network and the files beside the notebook are
there. Programs that fetch something (``!pip install …``) are started in neither.
"""

from __future__ import annotations

import contextlib
import difflib
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from fewshot_lib.checker import language as speech
from fewshot_lib.checker import values
from fewshot_lib.checker.cells import PUBLIC_SEED, remember
from fewshot_lib.checker.course import course as used
from fewshot_lib.checker.judge import MISSING, expected_results
from fewshot_lib.checker.report import Report
from fewshot_lib.grader import student
from fewshot_lib.grader.assemble import assemble
from fewshot_lib.grader.attempt import Attempt, Prepared
from fewshot_lib.grader.conversation import (
    REPLY_LIMITS,
    Calls,
    Conversation,
    Job,
    RunReport,
)
from fewshot_lib.grader.plan import Plan, course_exercises, plan
from fewshot_lib.grader.reader import Reader, Unreadable
from fewshot_lib.grader.recognise import Recogniser
from fewshot_lib.grader.runners import WorkerResult
from fewshot_lib.grader.student_package import build_student_package
from fewshot_lib.grader.submissions import InMemory, Submission

_ = speech.words("feedback")

#: Seconds that a notebook may take; each cell and each answer has a part of it.
SECONDS, PART_SECONDS = 600.0, 120.0


class CannotRun(RuntimeError):
    """The notebook cannot be run here; the message says why."""


def check_notebook(path: Path, say: Callable[[str], None] = print) -> int:
    """Run a notebook and say what its answers are worth and why.

    The file is not changed. A cell that fails does not stop the others, and one that ends the
    process costs itself only. Texts are listed, and whether they are written; no program judges
    them.

    Arguments:
        path: the reader's notebook, made from ``exercises/``.
        say: is given the lines.

    Returns:
        The exit status: 0 full marks, 1 something is missing, 2 this is not an exercise.

    Raises:
        CannotRun: the exercises are not beside the library, or no Python starts.
    """
    course = used().folder()
    if course is None:
        raise CannotRun(
            _("the exercises are not beside the library: clone the course, check there")
        )
    refusal = _refusal(path)
    if refusal:
        say(refusal)
        return 2
    with Reader() as reader:
        try:
            data = path.read_bytes()
            handed = reader.read(data)
        except Unreadable as error:
            say(f"{path.name}: {speech.translate_message(str(error), 'feedback')}.")
            return 2
        except OSError as error:
            said = _("{path} cannot be read: {error}.")
            say(said.format(path=path, error=error.strerror))
            return 2
        found = Recogniser(course_exercises(), reader).file(path.name, data)
    if not found.sure:
        said = _("{name} is none of the course's exercises (exercises/*.ipynb).")
        say(said.format(name=path.name))
        return 2
    own = speech.claimed(handed.language) if handed.language else speech.language()
    with speech.speaking(own):
        return _checked(path, plan(found.exercise, course), handed.cells, say)


def _refusal(path: Path) -> str:
    """Say in a sentence why a file is not a notebook that can be checked; "" if it may be one."""
    if path.is_dir():
        said = _("{path} is a folder; name a notebook in it, as exercises/03_prototypes.ipynb.")
        return said.format(path=path)
    if not path.is_file():
        known = {
            file.stem: file
            for folder in dict.fromkeys([path.parent, path.parent / "exercises"])
            for file in sorted(folder.glob("*.ipynb"))
        }
        close = difflib.get_close_matches(path.stem, known, n=1)
        meant = known[close[0]].as_posix() if close else "exercises/03_prototypes.ipynb"
        said = _("There is no file {path}; name a notebook, as {name}.")
        if close:
            said = _("There is no file {path}; did you mean {name}?")
        return said.format(path=path, name=meant)
    if path.suffix != ".ipynb":
        said = _("{name} is not a notebook; name one of exercises/*.ipynb.")
        return said.format(name=path.name)
    return ""


def _checked(path: Path, one_plan: Plan, cells: Any, say: Callable[[str], None]) -> int:
    spoken = speech.language()
    exercise = one_plan.exercise_in(spoken)
    assembled = assemble(one_plan.template_in(spoken), cells)
    calls = [Calls(one.name, expected_results(one, PUBLIC_SEED).flat) for one in exercise.answers]
    submission = Submission("", exercise.stem, path.name, InMemory(b""))
    prepared = Prepared(submission, 0, PUBLIC_SEED, assembled, calls, SECONDS, spoken)
    attempt = Attempt(one_plan, prepared)
    with tempfile.TemporaryDirectory(prefix="fewshot-check-") as folder:
        package = build_student_package(exercise, Path(folder))
        while calls:
            attempt.record(WorkerResult(_run(attempt.job, package, path.resolve().parent)))
            if not attempt.next_run():
                break
    for index, note in sorted(attempt.notes.items()):
        if note["error"] and 0 <= index < len(assembled.places):
            place = speech.translate_message(assembled.places[index], "feedback")
            say(_("A cell fails ({place}): {error}").format(place=place, error=note["error"]))
    for line in (*attempt.left_out, *assembled.remarks):
        say(speech.translate_message(line, "feedback"))
    for answer in exercise.answers:
        verdict = attempt.verdicts[answer.name]
        key = f"{exercise.name}.{answer.name}"
        suggestions = [] if verdict.status == MISSING else remember(key, verdict, answer)
        say(repr(Report(verdict, answer, tuple(suggestions))))
    missing = [text for text in exercise.prose if not assembled.texts.get(text.name)]
    for text in exercise.prose:
        said = _("{name}: a text, written ({points} points, by rubric)")
        if text in missing:
            said = _("{name}: a text, not written yet ({points} points, by rubric)")
        say(said.format(name=text.name, points=f"{text.points:g}"))
    if exercise.prose:
        say(_("No program judges texts; in the notebook, rubric(...) below each says what counts."))
    if calls:
        reached = sum(verdict.points for verdict in attempt.verdicts.values())
        said = _("{name}: {reached} of {most} points")
        most = f"{exercise.points:g}"
        say(said.format(name=path.name, reached=f"{reached:g}", most=most))
        return 0 if reached >= exercise.points and not missing else 1
    return 1 if missing else 0


def _run(job: Job, package: Path, folder: Path) -> RunReport:
    """Run a notebook in a process of its own, beside the files that lie with it."""
    begun = time.monotonic()
    command = [sys.executable, "-P", "-B", str(Path(student.__file__)), str(package)]
    pipe = subprocess.PIPE
    try:
        child = subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe)
    except OSError as error:
        raise CannotRun(_("no Python starts: {error}").format(error=error.strerror)) from None
    assert child.stdin is not None
    assert child.stdout is not None
    conversation = Conversation(job)
    alarm = threading.Timer(SECONDS, child.kill)
    alarm.start()
    try:
        data = job.request(SECONDS, PART_SECONDS)
        with contextlib.suppress(OSError):  # it ended at once; how it ended is told below
            child.stdin.write(struct.pack("<Q", len(data)) + data)
            child.stdin.close()
        while not conversation.complete and (frame := _frame(child.stdout)) is not None:
            conversation.read(frame)
    except values.NotPlain as error:
        conversation.fault = f"a reply could not be read: {error}"
    late = not alarm.is_alive()
    alarm.cancel()
    with contextlib.suppress(subprocess.TimeoutExpired):  # its pipe is closed: let it end
        child.wait(5.0)
    child.kill()
    child.wait()
    child.stdout.close()
    why, detail, at = "done", "", ("", "")
    if not conversation.complete:
        why, at = "time" if late else "died", conversation.at
        detail = conversation.fault or f"exit status {child.returncode}"
    found = {c.answer: conversation.of(c, why) for c in job.calls}
    return RunReport(found, why, detail, conversation.notes, at, time.monotonic() - begun)


def _frame(stream: IO[bytes]) -> bytes | None:
    head = stream.read(8)
    if len(head) < 8:
        return None
    (size,) = struct.unpack("<Q", head)
    if size > REPLY_LIMITS.max_bytes:
        raise values.NotPlain(f"a reply of {size} bytes was announced")
    body = stream.read(size)
    return body if len(body) == size else None
