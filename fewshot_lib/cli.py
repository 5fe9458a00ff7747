"""The ``fewshot`` command.

Exit status: 0 done, 1 problems found, 2 wrong use, 3 not possible on this machine (with the reason
and the way out). Every command imports what it needs when it runs, so that ``--help`` is
quick; what a command does lives in ``tools``, ``grader``, ``data`` and ``reading``.
"""

from __future__ import annotations

import enum
import re
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import typer

from fewshot_lib.checker.language import speaking, translate_message, words

_ = words("cli")  # what a learner is told; help, and what teachers and authors are told, is English

app = typer.Typer(
    name="fewshot",
    help="A course on few-shot medical image segmentation: read it, check it, teach it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 problems found, 2 wrong use, 3 not possible on this machine.",
)

PROBLEMS, WRONG_USE, CANNOT = 1, 2, 3


def end(status: int, sentence: str) -> NoReturn:
    """End a command with an exit status and one sentence on stderr."""
    print(sentence, file=sys.stderr)
    raise typer.Exit(status)


def _show_version(wanted: bool) -> None:
    if wanted:
        from fewshot_lib import __version__

        print(f"fewshot {__version__}")
        raise typer.Exit


@app.callback()
def general(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """A course on few-shot medical image segmentation: read it, check it, teach it."""


def course() -> Path:
    """Give the course's folder; end the command if the library is not in one."""
    from fewshot_lib.tools.machine import course_folder

    folder = course_folder()
    if folder is None:
        end(
            CANNOT,
            _("The notebooks are not beside the library: clone the course, and run this there."),
        )
    return folder


def chosen_language(name: str = "") -> str:
    """Give the language of that name, or the reader's; end the command if there is none."""
    from fewshot_lib.checker import language

    try:
        return language.known(name) if name else language.language()
    except language.NoSuchLanguage:
        said = _("--language: there is no language {name}; there are {names}")
        end(WRONG_USE, said.format(name=repr(name), names=", ".join(language.languages())))


# ---------------------------------------------------------------------------------------- reading


@app.command(short_help="Open the course in JupyterLab.", epilog="Example: fewshot lab --port 9000")
def lab(
    port: Annotated[
        int,
        typer.Option(
            min=1024, max=65535, help="First port to try; the next free one is used if it is taken."
        ),
    ] = 8888,
    browser: Annotated[
        bool | None,
        typer.Option(
            "--browser/--no-browser", help="Open a browser; default: only where there is a screen."
        ),
    ] = None,
    language: Annotated[
        str, typer.Option(help="Of the notebooks, as zh_CN; default: yours if there is one, or en.")
    ] = "",
) -> None:
    """Open your copies of the notebooks in JupyterLab, for this machine only.

    They are in work/, which git leaves alone.
    """
    from fewshot_lib.tools import lab as jupyter

    folder = course()
    try:
        with speaking(chosen_language(language)) as chosen:
            jupyter.serve_course(folder, port, browser, chosen)
    except jupyter.CannotServe as error:
        end(CANNOT, str(error))


# ------------------------------------------------------------------------------------------- data


class DataAction(enum.StrEnum):
    """What ``fewshot data`` can do."""

    STATUS = "status"
    FETCH = "fetch"
    CLEAR = "clear"


@app.command(
    short_help="Show, fetch or clear the data.",
    epilog="Examples: fewshot data; fewshot data fetch; fewshot data clear --yes",
)
def data(
    action: Annotated[
        DataAction, typer.Argument(help="status: what is here; fetch: the scans; clear: all of it.")
    ] = DataAction.STATUS,
    archive: Annotated[
        Path | None, typer.Option(help="With fetch: a copy of the source archive, for no network.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With clear: do not ask.")] = False,
) -> None:
    """Show, fetch or remove what the course keeps in its cache folder: scans and checkpoints."""
    from fewshot_lib.data import cache

    if archive is not None and action is not DataAction.FETCH:
        said = _("--archive goes with fetch, not with {action}: fewshot data fetch --archive")
        end(WRONG_USE, said.format(action=action))
    if yes and action is not DataAction.CLEAR:
        said = _("--yes goes with clear, not with {action}: fewshot data clear --yes")
        end(WRONG_USE, said.format(action=action))
    try:
        if action is DataAction.CLEAR:
            asked = _("Remove everything in {folder}?").format(folder=cache.cache_dir())
            if not yes and not typer.confirm(asked):
                raise typer.Exit(PROBLEMS)
            print(_("Freed {size} MB.").format(size=f"{cache.clear() / 1e6:.1f}"))
        elif action is DataAction.FETCH:
            _fetch_scans(archive)
        else:
            _show_data()
    except (ValueError, OSError) as error:
        end(CANNOT, str(error))


def _fetch_scans(archive: Path | None) -> None:
    from fewshot_lib.data import scans

    try:
        paths = scans.fetch(archive)
    except scans.WrongArchive as error:
        end(WRONG_USE if archive else CANNOT, str(error))
    except scans.ScansUnavailable as error:
        end(CANNOT, str(error))
    megabytes = sum(path.stat().st_size for path in paths) / 1e6
    said = _("The {n} real scans are here ({size} MB).")
    print(said.format(n=len(paths), size=f"{megabytes:.1f}"))


def _show_data() -> None:
    from fewshot_lib.data import cache, scans
    from fewshot_lib.tools.machine import shorten_home

    print(f"cache: {shorten_home(str(cache.cache_dir()))}")
    for entry in cache.status():
        print(f"{entry.size / 1e6:8.1f} MB  {entry.sha256[:12]}  {entry.name}")
    if not scans.available():
        end(PROBLEMS, _("The real scans are missing: fewshot data fetch"))


# ---------------------------------------------------------------------------------------- segment


@app.command(
    short_help="Segment a scan by another one's labels.",
    epilog="Example: fewshot segment --support anna.nii.gz --mask anna_liver.nii.gz "
    "--query bert.nii.gz --out bert_liver.nii.gz",
)
def segment(
    support: Annotated[
        list[Path],
        typer.Option(help="A scan: a file, or a folder of a DICOM series; repeat it for more."),
    ],
    mask: Annotated[
        list[Path], typer.Option(help="Its labels: whole numbers, 0 background; one per support.")
    ],
    query: Annotated[Path, typer.Option(help="Another scan, of any grid and orientation.")],
    out: Annotated[
        Path, typer.Option(help="Where its labels go: .nii.gz or .nii; .png for a picture.")
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    resample: Annotated[
        bool, typer.Option("--resample", help="Bring a mask on another grid to its scan's.")
    ] = False,
    overlay: Annotated[
        Path | None, typer.Option(help="A .png for a picture of the labels on slices of QUERY.")
    ] = None,
    probability: Annotated[
        Path | None, typer.Option(help="A .nii.gz for the calibrated probability of each label.")
    ] = None,
    reject: Annotated[
        float | None,
        typer.Option(help="Voxels of a lower probability (0 to 1) are written as undecided."),
    ] = None,
) -> None:
    """Label a scan like another one, without training; for learning, not for patients.

    NIfTI, DICOM, MetaImage, NRRD, MGH and grey pictures are read. Only slices with a label count
    as labelled. OUT keeps the query's grid, place and header, and the numbers of the mask. Nothing
    leaves this machine.
    """
    from tqdm import tqdm

    from fewshot_lib.reading import segment as segmenting

    with tqdm(unit="slice", leave=False, delay=0.5) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        try:
            outcome = segmenting.segment_files(
                support,
                mask,
                query,
                out,
                overwrite=overwrite,
                resample=resample,
                overlay=overlay,
                probability=probability,
                reject=reject,
                progress=show,
            )
        except segmenting.VolumeError as error:
            bar.close()
            end(WRONG_USE, str(error))
        except segmenting.CannotSegment as error:
            bar.close()
            end(CANNOT, str(error))
    print(outcome)


# -------------------------------------------------------------------------------------- exercises


@app.command(
    short_help="Run the checks of an exercise notebook.",
    epilog="Example: fewshot check work/exercises/03_prototypes.ipynb",
)
def check(
    notebook: Annotated[Path, typer.Argument(help="Yours, made from one of exercises/.")],
) -> None:
    """Run a notebook, call its answers, say what they are worth; the file stays as it is."""
    import fewshot_lib.course  # noqa: F401
    from fewshot_lib.grader import selfcheck

    try:
        status = selfcheck.check_notebook(notebook)
    except (ImportError, selfcheck.CannotRun) as error:
        end(CANNOT, _("The notebook cannot be run on this machine: {error}").format(error=error))
    raise typer.Exit(status)


@app.command(
    short_help="Take a fresh copy of an exercise; yours is kept.",
    epilog="Examples: fewshot reset 03_prototypes; fewshot reset notebooks/01_labels.ipynb",
)
def reset(
    exercise: Annotated[str, typer.Argument(help="As 03_prototypes, or a notebook's path.")],
) -> None:
    """Put a fresh copy of an exercise into work/, and keep yours beside it under another name."""
    from fewshot_lib.tools import copies

    folder = course()
    try:
        fresh, kept = copies.reset(folder, exercise)
    except copies.NoSuchNotebook as error:
        end(WRONG_USE, str(error))
    except OSError as error:
        end(CANNOT, _("The copy cannot be written: {error}").format(error=error))
    print(_("Fresh: {file}").format(file=fresh.relative_to(folder).as_posix()))
    if kept:
        print(_("Yours: {file}").format(file=kept.relative_to(folder).as_posix()))
    else:
        print(_("There was nothing of yours."))


@app.command(
    short_help="Build the exercises from the solutions.",
    epilog="Examples: fewshot build; fewshot build --check; fewshot build --language zh_CN",
)
def build(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which, as 03_prototypes; all by default.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Run and write nothing; say which are stale.")
    ] = False,
    language: Annotated[
        str, typer.Option(help="Build the notebooks and exercises of a language, as zh_CN.")
    ] = "",
) -> None:
    """Run every solution, take the solutions out, run what is left, and save both.

    With --language: make that language's notebooks and exercises from the English ones and its
    catalogues, run and save them. --check also holds every complete language to the English text.
    """
    from fewshot_lib.tools import build as building
    from fewshot_lib.tools.language import editions, extract

    folder = course()
    if language:
        if check:
            end(WRONG_USE, "--check takes no --language: it looks at every complete language.")
        try:
            status = editions.build_edition(folder, chosen_language(language), names or [])
        except extract.NoSuchCatalogue as error:
            end(WRONG_USE, str(error))
        raise typer.Exit(status)
    if not (folder / "solutions").is_dir():
        end(CANNOT, "There is no folder solutions here: clone the course, and run this there.")
    try:
        status = building.build(folder, names or [], check)
        if check and not names:
            status = editions.check(folder) or status
    except building.BadSolution as error:
        end(WRONG_USE, str(error))
    raise typer.Exit(status)


@app.command(
    short_help="Show or reset your progress.",
    epilog="Examples: fewshot progress; fewshot progress --reset prototypes",
)
def progress(
    reset: Annotated[
        str | None,
        typer.Option(help="Reset an exercise, one answer or question, or all (asks first)."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With --reset all: do not ask.")] = False,
) -> None:
    """Show what is done, what is left and what is next; stored in one file on this machine."""
    import fewshot_lib.course  # noqa: F401
    from fewshot_lib.checker import progress as record
    from fewshot_lib.reading import overview

    if yes and reset != "all":
        end(WRONG_USE, _("--yes goes with --reset all: fewshot progress --reset all --yes"))
    if reset == "":
        end(WRONG_USE, _("--reset needs a name, as dice, or all."))
    try:
        if reset is not None:
            if reset == "all" and not yes and not typer.confirm(_("Reset all of your progress?")):
                end(PROBLEMS, _("Nothing was reset."))
            known = [item.key for item in overview.items()]
            rows = record.reset("" if reset == "all" else reset, known)
            said = _("Reset 1 entry.") if rows == 1 else _("Reset {rows} entries.")
            print(said.format(rows=rows))
    except record.NoSuchName as error:
        end(WRONG_USE, f"{str(error)[:1].upper()}{str(error)[1:]}")
    except record.ProgressNotSaved as error:
        end(CANNOT, str(error))
    print(overview.panel())
    print(_("(kept in {file})").format(file=record.path()))


# ----------------------------------------------------------------------------------------- grading


class Isolation(enum.StrEnum):
    """What untrusted code is run in."""

    BUBBLEWRAP = "bubblewrap"
    NONE = "none"


@app.command(
    short_help="Grade submissions.",
    epilog="Examples: fewshot grade submitted --results marks; fewshot grade --verify marks",
)
def grade(
    submissions: Annotated[
        Path | None,
        typer.Argument(help="<student>/<exercise>.ipynb, nbgrader's tree, or a zip of an LMS."),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Results folder; resumes an interrupted run.")
    ] = None,
    exercise: Annotated[str, typer.Option(help="Only this one, as 03_prototypes.")] = "",
    seed: Annotated[
        int | None, typer.Option(help="Of the run; drawn and recorded if omitted.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Sandboxes side by side.")] = 1,
    time_limit: Annotated[
        float, typer.Option(min=1, max=86_400, help="Seconds per submission.")
    ] = 60.0,
    memory_limit: Annotated[int, typer.Option(min=64, help="MB per submission.")] = 1024,
    isolation: Annotated[
        Isolation, typer.Option(help="none: no sandbox; only for code you trust.")
    ] = Isolation.BUBBLEWRAP,
    scheduler: Annotated[
        str, typer.Option(help="Of Dask, tcp://HOST:8786: its workers run the submissions.")
    ] = "",
    regrade: Annotated[
        list[str] | None,
        typer.Option(help="Grade this student again, or «all»; may be repeated."),
    ] = None,
    with_status: Annotated[
        list[str] | None,
        typer.Option(
            "--status", help="Grade rows that ended so again, as «time»; may be repeated."
        ),
    ] = None,
    due: Annotated[
        str, typer.Option(help='When what is graded now was due: "2026-12-01 23:59".')
    ] = "",
    late_per_day: Annotated[
        float | None,
        typer.Option(help="Percent of the points taken off per begun day after --due; default 0."),
    ] = None,
    roster: Annotated[
        Path | None, typer.Option(help="CSV of all students; who handed in nothing is listed.")
    ] = None,
    verify: Annotated[
        Path | None, typer.Option(help="Repeat every row of this results folder and compare.")
    ] = None,
) -> None:
    """Grade untrusted notebooks in a sandbox; an interrupted run continues where it stopped.

    Of one student and exercise the last submission counts; its earlier marks stay in the report.
    --due, --late-per-day and --roster are remembered. Exit status 1: something could not be graded
    or was not recognised; it is listed.
    """
    import fewshot_lib.course  # noqa: F401
    from fewshot_lib.grader import command as grading_command

    if verify is not None:
        others = {
            "SUBMISSIONS": submissions,
            "--results": results,
            "--exercise": exercise,
            "--seed": seed,
            "--scheduler": scheduler,
            "--regrade": regrade,
            "--status": with_status,
            "--due": due,
            "--late-per-day": late_per_day,
            "--roster": roster,
        }
        given = [name for name, value in others.items() if value not in (None, "", [])]
        if given:
            end(
                WRONG_USE,
                f"--verify repeats a results folder as it was graded, so it takes no "
                f"{' and no '.join(given)}",
            )
        status, said = grading_command.verify(verify, workers, str(isolation))
    elif scheduler and not re.fullmatch(r"([a-z]+://)?\S+:\d+", scheduler):
        end(WRONG_USE, f"--scheduler {scheduler!r} is not an address; write tcp://HOST:8786")
    elif submissions is None or results is None:
        status, said = WRONG_USE, "fewshot grade SUBMISSIONS --results DIR, or --verify DIR"
    else:
        status, said = grading_command.grade(
            submissions,
            results,
            exercise=exercise,
            seed=seed,
            workers=workers,
            time_limit=time_limit,
            memory_limit=memory_limit,
            isolation=str(isolation),
            scheduler=scheduler,
            regrade=regrade or (),
            status=with_status or (),
            due=due,
            late_per_day=late_per_day,
            roster=roster,
        )
    if status:
        end(status, said)
    print(said)


@app.command(
    short_help="Write feedback and the teacher's report again.",
    epilog="Examples: fewshot report marks; fewshot report --repair marks",
)
def report(
    results: Annotated[Path, typer.Argument(help="A results folder of `fewshot grade`.")],
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Take damaged rows out first; a copy of the file is kept."),
    ] = False,
) -> None:
    """Write grades.csv, feedback, report.html and the files for Gradescope, Moodle and Canvas."""
    import fewshot_lib.course  # noqa: F401
    from fewshot_lib.grader import command as grading_command

    status, said = grading_command.report(results, repair)
    if status:
        end(status, said)
    print(said)


gradebook = typer.Typer(
    help="nbgrader's gradebook.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(
    gradebook,
    name="gradebook",
    short_help="Bring marks into nbgrader's gradebook.",
    epilog="Example: fewshot gradebook export marks --db sqlite:///gradebook.db",
)


@gradebook.command(
    name="export",
    short_help="Bring marks into the gradebook.",
    epilog="Example: fewshot gradebook export marks --db sqlite:///gradebook.db",
)
def gradebook_export(
    results: Annotated[Path, typer.Argument(help="A results folder of `fewshot grade`.")],
    db: Annotated[str, typer.Option(help="sqlite:///FILE or postgresql://USER@HOST/NAME.")],
    course: Annotated[
        Path | None,
        typer.Option(help="nbgrader's course folder: write there what formgrader opens."),
    ] = None,
) -> None:
    """Write automatic scores into nbgrader's gradebook; manual ones stay as they are."""
    import fewshot_lib.course  # noqa: F401
    from fewshot_lib.grader import command as grading_command

    if not re.match(r"(sqlite|postgresql)(\+\w+)?://", db):
        end(
            WRONG_USE,
            f"--db {db!r} is not the address of a database; write sqlite:///FILE or "
            "postgresql://USER@HOST/NAME",
        )
    if course is not None and course.exists() and not course.is_dir():
        end(WRONG_USE, f"--course {course} is not a folder")
    status, said = grading_command.export(results, db, course)
    if status:
        end(status, said)
    print(said)


# ------------------------------------------------------------------------------------------ repair


@app.command(
    short_help="Examine this installation.",
    epilog="Examples: fewshot doctor; fewshot doctor --json",
)
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Print versions, data, kernel and sandbox in a form fit for a bug report.

    The exit status is 0 when a reader has what the course needs; what teachers and authors need is
    listed apart.
    """
    from fewshot_lib.tools import doctor as examination

    findings = examination.examine()
    if as_json:
        print(examination.as_json(findings))
    else:
        print(examination.report(findings))
        print(f"\n{examination.verdict(findings)}")
    if examination.missing_for_readers(findings):
        raise typer.Exit(PROBLEMS)


#: The kinds of error that a wrong command line raises, under the names that typer keeps for them.
_USAGE_ERROR, _COMMAND_ERROR = cast(
    "tuple[type[Exception], type[Exception]]", typer.BadParameter.__mro__[1:3]
)


def main() -> None:
    """Run the command line; the console script ``fewshot``."""
    from fewshot_lib.checker.console import any_console

    any_console()
    try:
        status = app(prog_name="fewshot", standalone_mode=False)
    except typer.Abort:
        print(_("Stopped; nothing more was done."), file=sys.stderr)
        sys.exit(PROBLEMS)
    except _COMMAND_ERROR as error:
        _wrong_use(error)
    sys.exit(status if isinstance(status, int) else 0)


#: What typer itself says of a wrong command line, as the catalogues have it.
TYPERS = (
    "No such command {name}",
    "No such command {name}. Did you mean {other}?",
    "No such option: {name}",
    "No such option: {name} (Possible options: {names})",
    "Missing argument {name}",
    "Missing option {name}",
    "Option {name} requires an argument",
    "Option {name} does not take a value",
    "Got unexpected extra argument(s) ({names})",
    "Invalid value for {name}: {why}",
    "Input should be a valid integer, unable to parse string as an integer",
    "Input should be a valid number, unable to parse string as a number",
    "Input should be greater than or equal to {least}",
    "Input should be less than or equal to {most}",
    "Value error, {value} is not one of {values}",
)


def _command_typed() -> str:
    """Name the command on the command line; an option without its value does not say whose."""
    named = [word for word in sys.argv[1:2] if not word.startswith("-")]
    return " ".join(["fewshot", *named])


def _wrong_use(error: Any) -> NoReturn:
    """Say in one sentence what is wrong with a command line, and how to see what is right."""
    context, words = getattr(error, "ctx", None), str(error.format_message())
    if not isinstance(error, _USAGE_ERROR) or type(error).__name__ == "NoArgsIsHelpError":
        print(words, file=sys.stderr)
    else:
        command = context.command_path if context else _command_typed()
        said = " ".join(words.split()).rstrip(".")
        line = _("{command}: {said}; see {command} --help.")
        print(line.format(command=command, said=translate_message(said, "cli")), file=sys.stderr)
    sys.exit(WRONG_USE)


if __name__ == "__main__":
    main()
