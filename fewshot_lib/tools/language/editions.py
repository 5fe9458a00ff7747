"""Make the notebooks of another language, and hold them to the English ones.

``notebooks/zh/03_prototypes.ipynb`` has the cells of ``notebooks/03_prototypes.ipynb``: the same
code, names and tags, the texts from the catalogue, and the outputs of a run in that language.
``README.zh.md`` and ``notebooks/zh/own-scans.md`` are pages made in the same way.
"""

from __future__ import annotations

import copy
import os
import posixpath
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import nbformat

from fewshot_lib.checker import language as speech
from fewshot_lib.checker.notebook import source_of
from fewshot_lib.tools import build
from fewshot_lib.tools.language import guards
from fewshot_lib.tools.language.extract import PAGES, chosen, extract, names
from fewshot_lib.tools.language.paragraphs import LINK, translate, units
from fewshot_lib.tools.notebooks import execute, private_cache, save


def translatable(course: Path, language: str) -> list[str]:
    """List the notebooks that have a catalogue: "notebooks/00_start_here", "exercises/01_dice"."""
    every = [path for part in speech.PARTS for path in sorted((course / part).glob("*.ipynb"))]
    found = [f"{path.parent.name}/{path.stem}" for path in every]
    return [name for name in found if speech.file(language, catalogue_of(name)).is_file()]


def catalogue_of(notebook: str) -> str:
    """Name a notebook's catalogue.

    >>> catalogue_of("exercises/01_dice"), catalogue_of("notebooks/01_labels")
    ('exercises/dice', 'notebooks/01_labels')
    """
    part, _, stem = notebook.partition("/")
    return f"exercises/{stem.partition('_')[2]}" if part == "exercises" else notebook


def edition(
    english: nbformat.NotebookNode, notebook: str, language: str, there: Sequence[str]
) -> nbformat.NotebookNode:
    """Make a notebook of another language from the English one, without outputs.

    Arguments:
        english: is not changed.
        notebook: its name, "notebooks/00_start_here".
        language: "zh_CN".
        there: notebooks of that language; links to others lead to the English ones.
    """
    made = copy.deepcopy(english)
    known = speech.catalogue(language, catalogue_of(notebook))
    for cell in made.cells:
        if cell.cell_type == "markdown":
            said = translate(cell.source, lambda unit: known.get(unit, unit))
            cell.source = relinked(said, notebook, language, there)
        elif cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    made.metadata["fewshot"] = {"language": language}
    return made


def pages(course: Path, language: str) -> list[str]:
    """List the pages that have a catalogue: "readme", "notebooks/own-scans"."""
    there = [name for name, file in PAGES.items() if (course / file).is_file()]
    return [name for name in there if speech.file(language, name).is_file()]


def page_file(course: Path, name: str, language: str) -> Path:
    """Name the file of a page in a language."""
    file, below = Path(PAGES[name]), speech.short(language)
    if file.parent.name:
        return course / file.parent / below / file.name
    return course / f"{file.stem}.{below}{file.suffix}"


def page(course: Path, name: str, language: str, there: Sequence[str]) -> str:
    """Make a page of another language from the English one and the catalogues.

    The rows of the ledger are said by the ledger's own catalogues.

    Arguments:
        course: the course's folder.
        name: of the page, "readme".
        language: "zh_CN".
        there: notebooks of that language; links to others lead to the English ones.
    """
    known = speech.catalogue(language, name)
    cells = {**speech.catalogue(language, "claims"), **speech.catalogue(language, "reading")}

    def cell(text: str) -> str:
        sign, _, status = text.partition(" ")
        return f"{sign} {cells[status]}" if status in cells else cells.get(text, text)

    def say(unit: str) -> str:
        if unit.startswith("| §"):
            return f"| {' | '.join(cell(one.strip()) for one in unit.strip('| ').split(' | '))} |"
        return known.get(unit, unit)

    text = translate((course / PAGES[name]).read_text(encoding="utf-8"), say)
    others = pages(course, language)
    if "/" in name:
        return relinked(text, name, language, [*there, *others])
    text = text.replace(f"]({page_file(course, name, language).name})", f"]({PAGES[name]})")
    for other in others:
        place = page_file(course, other, language).relative_to(course).as_posix()
        text = text.replace(f"]({PAGES[other]})", f"]({place})") if other != name else text
    return text


def relinked(markdown: str, notebook: str, language: str, there: Sequence[str]) -> str:
    """Lead the links of a text that has moved into the folder of its language.

    >>> relinked("[a](01_b.ipynb), [c](../exercises/01_c.ipynb)", "notebooks/00_a", "zh_CN",
    ...          ["exercises/01_c"])
    '[a](../01_b.ipynb), [c](../../exercises/zh/01_c.ipynb)'

    A link to the notebook's own edition, by which one changes to it, leads back:

    >>> relinked("[English](zh/00_a.ipynb)", "notebooks/00_a", "zh_CN", [])
    '[English](../00_a.ipynb)'
    """
    folder, below = notebook.partition("/")[0], speech.short(language)

    def lead(match: re.Match[str]) -> str:
        target, mark, anchor = match[1].partition("#")
        if re.match(r"[a-z]+:", target) or not target:
            return match.group()
        goal = posixpath.normpath(f"{folder}/{target}")
        if goal == f"{folder}/{below}/{posixpath.basename(notebook)}.ipynb":
            goal = f"{notebook}.ipynb"
            there_too: Sequence[str] = ()
        else:
            there_too = there
        if re.sub(r"\.(?:ipynb|md)$", "", goal) in there_too:
            goal = f"{posixpath.dirname(goal)}/{below}/{posixpath.basename(goal)}"
        return f"]({posixpath.relpath(goal, f'{folder}/{below}')}{mark}{anchor})"

    return LINK.sub(lead, markdown)


def build_edition(
    course: Path, language: str, only: Sequence[str] = (), say: Callable[[str], None] = print
) -> int:
    """Make, run and save the notebooks of a language: ``fewshot build --language``.

    Arguments:
        course: the course's folder.
        language: "zh_CN".
        only: "00_start_here", "exercises/01_dice", "dice", "README", "own-scans"; all that have a
            catalogue by default.
        say: is given one line per notebook.

    Returns:
        The exit status: 0 all right, 1 a notebook failed.

    Raises:
        NoSuchCatalogue: a named one does not exist, or has no catalogue.
    """
    every, texts = translatable(course, language), pages(course, language)
    asked = chosen([*every, *texts], only)
    wanted = [name for name in every if name in asked]
    there = [one for one in every if one in wanted or path_of(course, one, language).is_file()]
    for name in texts:
        if name in asked:
            file = page_file(course, name, language)
            file.parent.mkdir(exist_ok=True)
            file.write_text(page(course, name, language, there), encoding="utf-8")
            say(f"{name}: built")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="fewshot-edition-") as scratch:
        environment = {
            **(private_cache(Path(scratch) / "cache") if wanted else os.environ),
            speech.VARIABLE: language,
            "FEWSHOT_PROGRESS": str(Path(scratch) / "progress.json"),
        }
        for name in wanted:
            begun = time.monotonic()
            english = nbformat.read(course / f"{name}.ipynb", as_version=4)
            made = edition(english, name, language, [*there, *texts])
            target = path_of(course, name, language)
            target.parent.mkdir(exist_ok=True)
            try:
                execute(made, target.parent, environment=environment)
            except Exception as error:  # the others are still worth running
                failed += 1
                say(f"{name}: {error}")
                continue
            made.metadata.pop("widgets", None)
            save(made, target)
            own = catalogue_of(name)
            left = guards.untranslated(extract(course, own), speech.catalogue(language, own))
            english_still = f"; {len(left)} of its paragraphs are English still" if left else ""
            say(f"{name}: built in {time.monotonic() - begun:.1f} s{english_still}")
    return 1 if failed else 0


def path_of(course: Path, notebook: str, language: str) -> Path:
    """Give the file of a notebook in a language."""
    part, _, stem = notebook.partition("/")
    return course / part / speech.short(language) / f"{stem}.ipynb"


def check(course: Path, say: Callable[[str], None] = print) -> int:
    """Hold every language that is declared complete to the English text; 1 if it falls short."""
    status = 0
    for language in speech.complete()[1:]:
        found = problems(course, language)
        for line in found:
            say(f"{language}: {line}")
        say(f"{language}: {f'{len(found)} problems' if found else 'up to date'}")
        status |= bool(found)
    return status


def problems(course: Path, language: str) -> list[str]:
    """List all that a language's edition falls short of, a line each."""
    found = []
    terms = terms_of(course, language)
    for name in names(course):
        known = speech.catalogue(language, name)
        missing = guards.untranslated(extract(course, name), known)
        found += [f"{name}, {unit.where}: not translated: {unit.text[:70]!r}" for unit in missing]
        for source, said in known.items():
            wrong = guards.differences(source, said) + guards.wrong_terms(source, said, terms)
            found += [f"{name}: {line}: {source[:50]!r}" for line in wrong]
    there, texts = translatable(course, language), pages(course, language)
    for name in texts:
        file = page_file(course, name, language)
        wanted_text = page(course, name, language, there)
        if not file.is_file() or file.read_text(encoding="utf-8") != wanted_text:
            found.append(
                f"{file.relative_to(course).as_posix()} is not what the catalogue makes of "
                f"{PAGES[name]}; build it again: fewshot build --language {language} {name}"
            )
    for name in there:
        file = path_of(course, name, language)
        place = file.relative_to(course).as_posix()
        if not file.is_file():
            found.append(f"{place} is missing")
            continue
        english = nbformat.read(course / f"{name}.ipynb", as_version=4)
        saved = nbformat.read(file, as_version=4)
        wanted = edition(english, name, language, [*there, *texts])
        again = f"; build it again: fewshot build --language {language} {file.stem}"
        found += [f"{place}: {line}{again}" for line in unlike(english, saved, wanted)]
    return found


def unlike(
    english: nbformat.NotebookNode, saved: nbformat.NotebookNode, wanted: nbformat.NotebookNode
) -> list[str]:
    """Say where a saved notebook is not the one that the English one and the catalogue make.

    Texts, code, names and metadata of cells are compared whole; of the outputs, their kinds, the
    order of the run, and the numbers in them, except where they vary by machine.
    """
    if build.digest(saved, outputs=False) != build.digest(wanted, outputs=False):
        return ["it is not what the catalogue makes of the English one"]
    found = []
    for one, other in zip(english.cells, saved.cells, strict=True):
        if one.cell_type != "code":
            continue
        kinds = [[_kind(output) for output in _lasting(cell)] for cell in (one, other)]
        if kinds[0] != kinds[1] or one.execution_count != other.execution_count:
            found.append(f"cell {other.id} does not put out what it does in English")
        elif "nbval-ignore-output" not in one.metadata.get("tags", []):
            numbers = [Counter(guards.SAME["number"](_told(cell))) for cell in (one, other)]
            if numbers[0] != numbers[1]:
                differ = sorted((numbers[0] - numbers[1]) + (numbers[1] - numbers[0]))
                found.append(f"cell {other.id} puts out other numbers: {', '.join(differ[:5])}")
    return found


def _lasting(cell: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """List a cell's outputs without the progress of a training, which a cache spares."""
    return [output for output in cell.outputs if output.get("name") != "stderr"]


def _kind(output: nbformat.NotebookNode) -> tuple[str, ...]:
    forms = set(output.get("data", {})) - {"image/png"}  # there where it is small: by machine
    return (output.output_type, *sorted(forms), output.get("name", ""))


def _told(cell: nbformat.NotebookNode) -> str:
    """Give the text of a cell's outputs in one line."""
    texts = [o.get("text", o.get("data", {}).get("text/plain", "")) for o in _lasting(cell)]
    return " ".join(" ".join(texts).split())


def terms_of(course: Path, language: str) -> dict[str, tuple[str, ...]]:
    """Read a language's terms from the glossary, the cell of that name in notebook 00."""
    notebook = next((name for name in names(course) if name.startswith("notebooks/00")), "")
    if not notebook:
        return {}
    cells = nbformat.read(course / f"{notebook}.ipynb", as_version=4).cells
    rows = [u for cell in cells if cell.id == "glossary" for u in units(source_of(cell))]
    table = [row for row in rows if row.startswith("|")][1:]
    return guards.glossary(table, speech.catalogue(language, notebook))
