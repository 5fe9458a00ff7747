"""Call an answer and note what happened, whatever it does.

Knows no expected value: it can run beside a stranger's code. What it returns is plain data.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import linecache
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from fewshot_lib.checker.spec import Case
from fewshot_lib.checker.values import plain, revive

#: How an outcome may end.
STATUSES = ("value", "raised", "not attempted", "too slow", "lost")
VALUE, RAISED, NOT_ATTEMPTED, TOO_SLOW, LOST = STATUSES


@dataclass(frozen=True)
class Outcome:
    """What one call of an answer came to.

    Arguments:
        status: VALUE, RAISED, NOT_ATTEMPTED (it raised the stub's NotImplementedError), TOO_SLOW,
            or LOST (its process died or replied with something unreadable).
        value: the plain value, if any.
        error: the name of the exception's class, and of the classes above it.
        message: what the exception said, shortened.
        where: the line of the answer that raised, with its number.
        seconds: how long the call took.
        printed: the beginning of what it printed.
        printed_chars: how much it printed in all.
        changed_input: whether it wrote into its arguments.
    """

    status: str
    value: Any = None
    error: tuple[str, ...] = ()
    message: str = ""
    where: str = ""
    seconds: float = 0.0
    printed: str = ""
    printed_chars: int = 0
    changed_input: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Give the outcome as a plain value, for :func:`values.pack`; what is usual is left out."""
        # not dataclasses.asdict, which copies the value
        said = ((entry.name, getattr(self, entry.name), entry.default) for entry in fields(self))
        return {name: part for name, part, usual in said if part is not usual}

    @classmethod
    def from_dict(cls, data: Any) -> Outcome:
        """Read an outcome that came from another process; trust none of its parts.

        Arguments:
            data: a plain value, or anything that :func:`values.unpack` gives.

        Returns:
            The outcome, its value once more brought into plain form; LOST if it is not an outcome.
        """
        status = data.get("status") if isinstance(data, dict) else None
        if not isinstance(status, str) or status not in STATUSES:
            return cls(LOST, message="the reply is not an outcome")

        def text(key: str, limit: int) -> str:
            return data[key][:limit] if isinstance(data.get(key), str) else ""

        def number(key: str, most: float) -> float:
            got = data.get(key)
            return float(max(0, min(got, most))) if isinstance(got, int | float) else 0.0  # NaN: 0

        error = data.get("error")
        names = error[:20] if isinstance(error, tuple | list) else ()
        return cls(
            status=status,
            value=plain(data.get("value")) if status == VALUE else None,
            error=tuple(name[:80] for name in names if isinstance(name, str)),
            message=text("message", 300),
            where=text("where", 300),
            seconds=number("seconds", 1e6),
            printed=text("printed", 2_000),
            printed_chars=int(number("printed_chars", 1e12)),
            changed_input=data.get("changed_input") is True,
        )


class TimeIsUp(BaseException):
    """Raised inside an answer that takes too long; no ``except Exception`` catches it."""


class _Capped(io.TextIOBase):
    """A text stream that keeps the beginning, counts the rest and costs no memory."""

    def __init__(self, keep: int = 2_000) -> None:
        self.kept, self.count, self.keep = "", 0, keep

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if len(self.kept) < self.keep:
            self.kept += text[: self.keep - len(self.kept)]
        self.count += len(text)
        return len(text)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`TimeIsUp` in this thread when the time is up, and again while it goes on.

    By a signal in the main thread where there is one (it ends a sleep, too), else by an exception
    that a second thread sends (it arrives at the next Python instruction). A limit set inside
    another one gives the signal back to it, with the time that is left.
    """
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):

        def ring(*_: Any) -> None:
            raise TimeIsUp

        begun = time.monotonic()
        before = signal.signal(signal.SIGALRM, ring)
        others, again = signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), 0.2)
        try:
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        finally:  # again: the alarm may have gone off on the way into the line above
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            if others:
                left = others - (time.monotonic() - begun)
                signal.setitimer(signal.ITIMER_REAL, max(left, 1e-3), again)
        return
    done = threading.Event()
    target = ctypes.c_ulong(threading.get_ident())

    def watch() -> None:
        wait = seconds
        while not done.wait(wait):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(target, ctypes.py_object(TimeIsUp))
            wait = 0.2

    def end() -> None:
        # An exception on its way is let in, never taken back: taking back leaves CPython's mark
        # that one is pending, and then a traced function never gets past its first instruction.
        done.set()
        watcher.join()
        for _ in range(3):
            pass

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        try:
            end()
        except TimeIsUp:  # the next would come 0.2 s later
            end()


def run(
    function: Callable[..., Any],
    cases: Sequence[Case],
    seconds: float = 5.0,
    *,
    ours: bool = False,
) -> list[Outcome]:
    """Call an answer on each case; never raises, except when the user interrupts.

    The answer gets its own copies of the arguments; prints and warnings are kept away from the
    notebook (the beginning is in the outcome); global random states are put back afterwards.

    Arguments:
        function: the answer.
        cases: the calls, in order.
        seconds: for all calls together; what is left over after that is TOO_SLOW.
        ours: the function is the course's own: nobody looks at what it prints or writes into,
            or at the line that raises.

    Returns:
        One outcome per case.

    >>> run(lambda a: a + 1, [Case("one", (1,))])[0].value
    2
    """
    states = torch.get_rng_state(), np.random.get_state(), torch.is_grad_enabled()  # noqa: NPY002
    outcomes: list[Outcome] = []
    rest = Outcome(TOO_SLOW, message="no time was left for this call")
    begun = time.perf_counter()
    try:
        # one limit around all calls: setting one costs as much as a short call
        with contextlib.suppress(TimeIsUp), warnings.catch_warnings(), time_limit(seconds):
            warnings.simplefilter("ignore")
            for case in cases:
                if time.perf_counter() - begun > seconds:
                    break
                outcomes.append(_call(function, case, ours))
    except Exception as error:  # a stranger's code has spoilt what sets the limit
        if ours:
            raise
        rest = Outcome(**_raised(error, ours))
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_grad_enabled(states[2])
    return [*outcomes, *[rest] * (len(cases) - len(outcomes))]


def _call(function: Callable[..., Any], case: Case, ours: bool) -> Outcome:
    args, kwargs = revive(case.args), revive(dict(case.kwargs))
    output = _Capped()
    begun = time.perf_counter()
    ended: dict[str, Any]
    try:
        with redirect_stdout(output), redirect_stderr(output):
            ended = {"status": VALUE, "value": plain(function(*args, **kwargs))}
    except KeyboardInterrupt:
        raise
    except TimeIsUp:
        ended = {
            "status": TOO_SLOW,
            "message": f"stopped after {time.perf_counter() - begun:.1f} s",
        }
    except BaseException as error:
        ended = _raised(error, ours)
    return Outcome(
        **ended,
        seconds=time.perf_counter() - begun,
        printed=output.kept,
        printed_chars=output.count,
        changed_input=not (ours or (_same(args, case.args) and _same(kwargs, dict(case.kwargs)))),
    )


def _raised(error: BaseException, ours: bool) -> dict[str, Any]:
    names = tuple(kind.__name__ for kind in type(error).__mro__ if kind is not object)
    try:
        message = str(error).strip().split("\n")[0][:300]
    except BaseException:
        message = "(its message cannot be read)"
    if ours:
        return {"status": RAISED, "error": names, "message": message}
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and not _ours(frame)]
    where = ""
    if own:
        line = linecache.getline(own[-1].filename, own[-1].lineno or 0) or own[-1].line
        where = f"line {own[-1].lineno}: {(line or '').strip()}"[:300]
    # the stub's own line: raised by the answer itself, not by torch nor by another answer it calls
    stub = type(error) is NotImplementedError and len(own) == 1 and frames[-1] is own[0]
    return {
        "status": NOT_ATTEMPTED if stub else RAISED,
        "error": names,
        "message": message,
        "where": where,
    }


def _ours(frame: traceback.FrameSummary) -> bool:
    return frame.filename == __file__ or frame.filename.endswith(("fixtures.py", "values.py"))


def _same(after: Any, before: Any) -> bool:
    if isinstance(before, torch.Tensor):
        return (
            isinstance(after, torch.Tensor)
            and after.shape == before.shape
            and (
                torch.equal(after, before)
                or torch.equal(after.nan_to_num(), before.nan_to_num())  # NaN equals no NaN
            )
        )
    if isinstance(before, np.ndarray):
        return after.shape == before.shape and np.array_equal(after, before)
    if isinstance(before, tuple | list):
        return len(after) == len(before) and all(map(_same, after, before))
    if isinstance(before, dict):
        return after.keys() == before.keys() and all(
            _same(after[key], before[key]) for key in before
        )
    return True
