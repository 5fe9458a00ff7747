"""A picture that follows a run while a person watches, and makes room for the final one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from fewshot_lib.checker.frontend import choose_form
from fewshot_lib.reading.multiples import draw as drawn
from fewshot_lib.reading.show import close, picture_bundle, picture_text


class live_picture:
    """Draw a growing list of numbers again and again in one place, while a training runs.

    In a live front end the picture is replaced every ``seconds`` and removed at the end, so that
    the notebook keeps only what ``show`` then displays. Otherwise nothing is drawn: a saved page
    has no use for it.

    Arguments:
        draw: called with the numbers so far; returns (figure, data).
        seconds: least time between two pictures, > 0.

    Returns:
        a context manager that gives a callback: call it with the numbers so far.

    Raises:
        ValueError: ``seconds`` not above 0.

    Notebooks: 01, 06.

    >>> from fewshot_lib import figures
    >>> with live_picture(figures.loss_curve) as watch:
    ...     watch([2.0, 1.0])
    """

    def __init__(self, draw: Callable[[Sequence[float]], Any], seconds: float = 1.0) -> None:
        if not seconds > 0:
            raise ValueError(f"seconds must be above 0, got {seconds}")
        self.draw, self.seconds = draw, seconds
        self._handle: Any = None
        self._last = float("-inf")

    def __enter__(self) -> live_picture:
        """Begin; nothing is shown before the first call."""
        self._live = choose_form() == "live"
        return self

    def __call__(self, numbers: Sequence[float]) -> None:
        """Draw the numbers so far, if the last picture is old enough."""
        now = time.monotonic()
        if not self._live or not numbers or now - self._last < self.seconds:
            return
        from IPython.display import display

        from fewshot_lib.figures import picture

        figure, data = drawn(lambda: self.draw(numbers), {})
        text = picture_text(data, data.finding)
        bundle, metadata = picture_bundle(picture(figure, quick=True), data.alt, data.finding, text)
        close(figure)
        if self._handle is None:
            self._handle = display(bundle, metadata=metadata, raw=True, display_id=True)
        else:
            self._handle.update(bundle, metadata=metadata, raw=True)
        self._last = time.monotonic()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the picture; after an interruption leave it, for it shows how far the run came."""
        if self._handle is not None and kind is None:
            self._handle.update({"text/plain": ""}, raw=True)
