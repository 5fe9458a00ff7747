"""The ``fewshot`` command.

Exit status: 0 done, 1 something was found wanting, 2 wrong use, 3 this machine cannot (with the
reason and the way out). Every command imports what it needs when it runs, so that ``--help`` is
quick; what a command does lives in ``classroom``, ``data`` and ``reading``.
"""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

app = typer.Typer(
    name="fewshot",
    help="A course on few-shot medical image segmentation: read it, check it, teach it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 something found wanting, 2 wrong use, 3 this machine cannot.",
)

WANTING, WRONG_USE, CANNOT = 1, 2, 3


def end(status: int, sentence: str) -> NoReturn:
    """End a command with an exit status and one sentence on stderr."""
    print(sentence, file=sys.stderr)
    raise typer.Exit(status)


# ---------------------------------------------------------------------------------------- reading


@app.command(short_help="Open the course in JupyterLab.", epilog="Example: fewshot lab --port 9000")
def lab(
    port: Annotated[
        int,
        typer.Option(min=1024, max=65535, help="First port to try; a taken one means the next."),
    ] = 8888,
    browser: Annotated[
        bool | None,
        typer.Option(
            "--browser/--no-browser", help="Open a browser; default: only where there is a screen."
        ),
    ] = None,
) -> None:
    """Open the course in JupyterLab, at notebooks/00, for this machine only."""
    from fewshot_lib.classroom import lab as jupyter
    from fewshot_lib.classroom.machine import course_folder

    folder = course_folder()
    if folder is None:
        end(
            CANNOT,
            "The notebooks are not beside the library: clone the course, and run this there.",
        )
    try:
        jupyter.serve_course(folder, port, browser)
    except jupyter.CannotServe as error:
        end(CANNOT, str(error))


# ------------------------------------------------------------------------------------------- data


# -------------------------------------------------------------------------------------- exercises


# ------------------------------------------------------------------------------------------ repair


@app.command(
    short_help="Examine this installation.",
    epilog="Examples: fewshot doctor; fewshot doctor --json",
)
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Print versions, data, kernel and sandbox in a form fit for a bug report."""
    from fewshot_lib.classroom import doctor as examination

    findings = examination.examine()
    print(examination.as_json(findings) if as_json else examination.report(findings))
    if any(finding.wanting for finding in findings):
        raise typer.Exit(WANTING)


def main() -> None:
    """Run the command line; the console script ``fewshot``."""
    app(prog_name="fewshot")


if __name__ == "__main__":
    main()
