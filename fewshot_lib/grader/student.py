"""Run a student's notebook as it was handed in, then call its answers.

This runs in the student's own process: in the sandbox beside :mod:`fewshot_lib.grader.worker`,
or in a process of its own for ``fewshot check``. It knows no expected value and decides nothing.

All code cells run from top to bottom in one of IPython's own shells, so that magics, ``x = !ls``,
``f?`` and top-level ``await`` mean what they mean in Jupyter. A cell that fails does not stop the
next one, as in Jupyter. Then the answers are called, with the definitions that stand at the end.

- Every cell has a budget of its own, and all other cells share one: a slow
  cell costs itself.
- Before each cell and each answer its place is told. If the process dies there, the grader runs the
  notebook again without it.
- A cell that is unchanged from the handed-out notebook is passed over if no cell of the student's
  reads a name that it binds: it could change no answer.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import shlex
import struct
import symtable
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.inputtransformer2 import TransformerManager
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Type
from traitlets.config import Config

#: What a code cell that looks names up by other ways than by writing them calls.
_LOOKS_AROUND = frozenset(
    (
        *("globals", "locals", "vars", "dir", "eval", "exec", "get_ipython"),
        *("__import__", "In", "Out", "_ih", "_i"),
    )
)
#: What it imports for that.
_LOOKING_MODULES = ("inspect", "__main__")
#: Programs that need a network, which is not there: they are not started.
_NEEDS_NETWORK = frozenset(
    (
        *("pip", "pip3", "conda", "mamba", "uv", "apt", "apt-get"),
        *("wget", "curl", "git", "npm", "kaggle", "gdown"),
    )
)
_WHOLE = 0.7  # this share of the time may be used by cells; the rest is for the answers


class _NoDisplay(DisplayHook):
    """Keep ``_`` and ``Out``, and show nothing."""

    def compute_format_data(self, result: Any) -> Any:
        return {}, {}

    def write_output_prompt(self) -> None:
        pass

    def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:
        pass

    def finish_displayhook(self) -> None:
        pass


class _NoPublisher(DisplayPublisher):
    """Show nothing."""

    def publish(self, *_: Any, **__: Any) -> None:
        pass


class _Manager(TransformerManager):
    """IPython's own, which looks for magics in what is no Python only: no magic is Python.

    IPython takes the whole cell apart in Python to find none.
    """

    #: The last cell that is Python as it stands.
    plain = ""

    def do_token_transforms(self, lines: list[str]) -> list[str]:
        """Leave Python as it is; anything else, or a student's transformers, is IPython's."""
        if self.token_transformers == TransformerManager().token_transformers:
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compile(cell := "".join(lines), "", "exec", dont_inherit=True)
                self.plain = cell
                return lines
        return list(super().do_token_transforms(lines))


class Shell(InteractiveShell):
    """IPython's shell without a front end: it shows nothing and keeps the error of a cell."""

    displayhook_class = Type(_NoDisplay)
    display_pub_class = Type(_NoPublisher)
    raised: BaseException | None = None
    not_run: tuple[str, ...] = ()

    def showtraceback(self, exc_tuple: Any = None, *_: Any, **__: Any) -> None:
        """Keep the error instead of writing it."""
        self.raised = exc_tuple[1] if exc_tuple else sys.exc_info()[1]

    def showsyntaxerror(self, *_: Any, **__: Any) -> None:
        """Keep the error instead of writing it."""
        self.raised = sys.exc_info()[1]

    def showindentationerror(self) -> None:
        """Keep the error instead of writing it."""
        self.raised = sys.exc_info()[1]

    def should_run_async(self, raw_cell: str, **more: Any) -> bool:
        """Say whether a cell awaits something; Python as it stands does not."""
        if more.get("transformed_cell") == self.input_transformer_manager.plain:
            return False
        return bool(super().should_run_async(raw_cell, **more))

    def enable_gui(self, gui: Any = None) -> None:
        """Do nothing: there is no screen."""

    def enable_matplotlib(self, gui: Any = None) -> tuple[str, str]:
        """Leave matplotlib as it is: it draws to memory."""
        return "agg", "agg"

    def ask_exit(self) -> None:
        """Do nothing: ``exit`` and ``quit`` end no notebook."""

    def system(self, cmd: str) -> None:
        """Run a program whose output nobody sees; one that needs a network is not run."""
        if self._may_run(cmd):
            self.system_raw(cmd)

    def getoutput(self, cmd: str, *arguments: Any, **settings: Any) -> Any:
        """Give a program's output; of one that needs a network, none."""
        return super().getoutput(cmd if self._may_run(cmd) else "true", *arguments, **settings)

    def _may_run(self, cmd: str) -> bool:
        try:
            words = shlex.split(cmd)
        except ValueError:
            words = cmd.split()
        programs = {PurePosixPath(word).name for word in words[:4]}
        if programs & _NEEDS_NETWORK:
            self.not_run = (*self.not_run, cmd.replace(sys.executable, "python")[:200])
            return False
        return True


def make_shell() -> Shell:
    """Make the shell; once in a process, before it is forked."""
    settings = Config()
    settings.HistoryManager.enabled = False  # it would keep a database and a thread
    shell: Shell = Shell.instance(config=settings)
    shell.input_transformer_manager = _Manager()
    return shell


def warm_up(shell: Shell) -> None:
    """Do once what every fork does, so that it is imported and made before the first fork."""
    import torch

    from fewshot_lib.checker import run, values

    names = {*shell.user_ns}
    shell.run_cell("def rehearsed(one):\n    return one + one\n", store_history=False)
    cases = [run.Case("", (torch.ones(2),))]
    for outcome in run.run(shell.user_ns["rehearsed"], cases):
        values.unpack(values.pack(outcome.as_dict()))
    needed([{"source": "rehearsed"}])
    for name in {*shell.user_ns} - names:
        del shell.user_ns[name]


def patch_loaders() -> None:
    """Let ``DataLoader`` load in this process and say so: its workers need sockets.

    What is loaded is the same.
    """
    from torch.utils.data import DataLoader

    original = DataLoader.__init__

    def alone(self: Any, dataset: Any, batch_size: Any = 1, *more: Any, **named: Any) -> None:
        wanted = named.pop("num_workers", 0)
        for name in ("prefetch_factor", "persistent_workers", "timeout"):
            named.pop(name, None)
        if len(more) > 3:  # shuffle, sampler, batch_sampler, num_workers
            wanted, more = more[3], (*more[:3], 0, *more[4:])
        if wanted:
            print("(DataLoader: no worker processes while grading; loaded in this one)")
        original(self, dataset, batch_size, *more, **named)

    DataLoader.__init__ = alone  # type: ignore[method-assign]


def names_read(source: str) -> set[str]:
    """Give every global name that a piece of code reads, in functions within it too.

    Raises:
        SyntaxError, ValueError: it is no Python.

    >>> sorted(names_read("def f(a): return a + torch.pi"))
    ['torch']
    """
    found: set[str] = set()
    pending = [symtable.symtable(source, "", "exec")]
    while pending:
        table = pending.pop()
        pending += table.get_children()
        if isinstance(table, symtable.Function):
            found.update(table.get_globals())
        else:  # in a module or a class every name may come from outside
            found.update(name.get_name() for name in table.get_symbols() if name.is_referenced())
    return found


def needed(cells: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Say of each cell whether it has to run; see the module's third rule.

    Arguments:
        cells: ``{"source": …}``; handed-out ones have ``"binds"`` and ``"reads"``, lists of names.
    """
    every = [True] * len(cells)
    wanted: set[str] = set()
    for cell in cells:
        if "binds" in cell:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = names_read(cell["source"])
        except Exception:  # a cell with magics, or none that is Python: it may read anything
            return every
        if found & _LOOKS_AROUND or any(name in cell["source"] for name in _LOOKING_MODULES):
            return every
        wanted |= found
    chosen = ["binds" not in cell for cell in cells]
    grew = True
    while grew:
        grew = False
        for index, cell in enumerate(cells):
            if not chosen[index] and not wanted.isdisjoint(cell["binds"]):
                chosen[index] = grew = True
                wanted.update(cell["reads"])
    return chosen


def run_notebook(request: Mapping[str, Any], shell: Shell, tell: Callable[..., None]) -> None:
    """Run the cells, then make the calls, and tell what happens as it happens.

    Arguments:
        request: ``cells`` (as JSON), ``skip`` (indices that are left out), ``seconds`` (of
            everything), ``part_seconds`` (of a cell, of an answer), ``answers`` (name, cases) and
            ``stand_in`` (None, or what the grader puts in the place of wrong answers: ``names``
            and ``sources``).
        shell: from :func:`make_shell`.
        tell: takes plain values: ``{"at": …}``, ``{"cell": …}``, ``{"answer": …, "case": …,
            "outcome": …}``; several at once where they happen at once.
    """
    from fewshot_lib.checker import run as running

    sys.path.insert(0, str(Path.cwd()))  # a module that a cell writes can be imported
    variables: dict[str, Any] = shell.user_ns
    variables["display"] = builtins.display = lambda *_, **__: None  # type: ignore[attr-defined]
    stand_ins = _stand_ins(request.get("stand_in"))
    clock = _Clock(request)
    cells = json.loads(request["cells"])
    for cell, runs in zip(cells, needed(cells), strict=True):
        left = clock.left(cell)
        if not runs or cell["index"] in request["skip"]:
            continue
        tell({"at": ["cell", str(cell["index"])]})
        note = _run_cell(shell, cell, left, running)
        clock.spent(cell, note["seconds"])
        variables.update(stand_ins)
        if "binds" not in cell and (note["error"] or note["printed"] or note["not_run"]):
            tell({"cell": note})
    for asked in request["answers"]:
        tell({"at": ["answer", asked["name"]]})
        outcomes = enumerate(_call(asked, variables, running, float(request["part_seconds"])))
        tell(*({"answer": asked["name"], "case": n, "outcome": o.as_dict()} for n, o in outcomes))


class _Clock:
    """Divide the time among the cells."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.cell = float(request["part_seconds"])
        self.others = float(request["seconds"]) / 2
        self.whole = _WHOLE * float(request["seconds"])

    def left(self, cell: Mapping[str, Any]) -> float:
        """Give the seconds that a cell may take: an answer's has the most."""
        most = self.cell if cell["answer"] else min(self.cell, self.others)
        return max(min(most, self.whole), 0.5)

    def spent(self, cell: Mapping[str, Any], seconds: float) -> None:
        """Take what a cell took from what is left."""
        self.whole -= seconds
        if not cell["answer"]:
            self.others -= seconds


def _run_cell(
    shell: Shell, cell: Mapping[str, Any], seconds: float, running: Any
) -> dict[str, Any]:
    output = running._Capped()
    shell.raised, shell.not_run = None, ()
    begun = time.perf_counter()
    try:
        with (
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(output),
            warnings.catch_warnings(),
            running.time_limit(seconds),
        ):
            shell.run_cell(cell["source"], store_history=True)
    except BaseException as error:  # the alarm may ring outside IPython's own handlers
        shell.raised = error
    raised = shell.raised
    if isinstance(raised, running.TimeIsUp):
        said = f"stopped after {seconds:.1f} s"
    else:
        said = _words(raised)
    return {
        "index": cell["index"],
        "error": said,
        "printed": output.kept,
        "not_run": list(shell.not_run),
        "seconds": time.perf_counter() - begun,
    }


def _words(error: BaseException | None) -> str:
    if error is None:
        return ""
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except BaseException:
        return type(error).__name__[:80]


def _call(
    asked: Mapping[str, Any], variables: Mapping[str, Any], running: Any, seconds: float
) -> list[Any]:
    cases = [running.Case(c["name"], tuple(c["args"]), c["kwargs"]) for c in asked["cases"]]
    function = variables.get(asked["name"])
    if function is None:
        return [running.Outcome(running.NOT_ATTEMPTED, message="not defined")] * len(cases)
    return list(running.run(function, cases, seconds))


def _stand_ins(wanted: Mapping[str, Any] | None) -> dict[str, Any]:
    """Make the functions that stand in for wrong answers, in a namespace of their own."""
    if not wanted:
        return {}
    space: dict[str, Any] = {"__name__": "the course"}
    for source in wanted["sources"]:
        exec(compile(source, "<the course's own>", "exec", dont_inherit=True), space)
    return {name: space[name] for name in wanted["names"]}


def read_request(read: Callable[[int], bytes]) -> Any:
    """Read the request: which cells to run and which calls to make of what they define."""
    from fewshot_lib.checker import values

    (size,) = struct.unpack("<Q", read(8))
    limits = values.Limits(2**30, 10**6, 16, max_header=2**30)  # it comes from the grader
    return values.unpack(read(size), limits)


def main(package: str) -> None:
    """Be the process of ``fewshot check``: the request comes from stdin, what happens to stdout."""
    sys.path.insert(0, package)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    from fewshot_lib.checker import values

    request = read_request(sys.stdin.buffer.read)

    def tell(*told: Any) -> None:
        for part in map(values.pack, told):
            out.write(struct.pack("<Q", len(part)) + part)
        out.flush()

    run_notebook(request, make_shell(), tell)


if __name__ == "__main__":
    main(sys.argv[1])
