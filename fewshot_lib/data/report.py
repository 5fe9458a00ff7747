"""What reading a scan did beyond copying its numbers, and the error of a scan that cannot be read.

Nothing is silent: which header was used, what was ignored, inverted, padded, rounded or resampled
is a remark in a `Report`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fewshot_lib.checker.language import translate_message


class VolumeError(ValueError):
    """A volume cannot be used; the message says which file, what is wrong and what to do."""

    def __str__(self) -> str:
        return translate_message(super().__str__(), "scans")


@dataclass(frozen=True)
class Remark:
    """One thing that the reader of a scan should know.

    Arguments:
        kind: "header" (which of its statements was used), "ignored", "changed" (inverted, padded,
            rounded, renumbered), "resampled", "assumed" (the file does not say) or "beware".
        file: the file or folder.
        text: what was done, without the file's name.
    """

    kind: str
    file: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {translate_message(self.text, 'scans')}"


@dataclass
class Report:
    """The remarks of one reading, each once.

    >>> report = Report()
    >>> report.add("changed", "a.nii", "3 voxels are NaN; they are read as air")
    >>> print(report)
    a.nii: 3 voxels are NaN; they are read as air
    """

    remarks: list[Remark] = field(default_factory=list)

    def add(self, kind: str, file: object, text: str) -> None:
        """Note one thing."""
        remark = Remark(kind, str(file), text)
        if remark not in self.remarks:
            self.remarks.append(remark)

    def kinds(self) -> set[str]:
        """Tell the kinds of what was noted."""
        return {remark.kind for remark in self.remarks}

    def __str__(self) -> str:
        return "\n".join(map(str, self.remarks))


@contextmanager
def reading() -> Iterator[None]:
    """Say in a sentence that the system does not let a file be read.

    Raises:
        VolumeError: no right to it, a name that is too long, …

    >>> with reading():
    ...     text = "what is read"
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        raise VolumeError(
            f"{error.filename} cannot be read ({error.strerror}); look at its name and rights"
        ) from error


@contextmanager
def reporting(report: Report | None) -> Iterator[Report]:
    """Collect in the caller's report; without one, warn of every remark at the end.

    Warns:
        UserWarning: each remark, if there is no report to hold it.

    >>> with reporting(Report()) as report:
    ...     report.add("ignored", "README", "no scan")
    """
    found = Report() if report is None else report
    with reading():
        yield found
    if report is None:
        for remark in found.remarks:
            warnings.warn(str(remark), UserWarning, stacklevel=4)
