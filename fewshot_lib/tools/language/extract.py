"""What is to be translated: extractors for Babel, and the list of the catalogues.

An extractor has the form that Babel asks of its plugins: it takes an open file, keywords, comment
tags and options, and yields (line, function, message, comments).
"""

from __future__ import annotations

import ast
import html
import itertools
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fewshot_lib.checker.notebook import source_of
from fewshot_lib.reading.moving import spoken as in_script
from fewshot_lib.tools.language.paragraphs import units

Found = Iterator[tuple[int, str | None, str, list[str]]]

#: Keys of the files of words whose values are read by people.
WORDS = {
    *("title", "section", "hints", "says", "pointer", "rubric", "model"),  # exercises
    *("text", "hint", "reply", "options", "why"),  # questions, predictions, claims
    *("xlabel", "ylabel"),  # predictions
}
FIGCAPTION = re.compile(r"<figcaption[^>]*>(.*?)</figcaption>", re.S)
#: Of an explorer's caption what the notebook gives is the title; the library says the rest.
SETTINGS = re.compile(r": (?:\d+ of )?\d+ settings?(?: \(.*|\.)", re.S)
CLAIMED = re.compile(r"<p>Seen here: ([^<]*?)\.(?: Evidence supports [^<]*)?</p>")
EXPLORED = re.compile(r"<th>what is seen</th>.*?</table>", re.S)
SEEN = re.compile(r"<tr>((?:<td>[^<]*</td>)*)<td>([^<]*)</td></tr>")
VALUE = re.compile(r"<td>([^<]*)</td>")
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


class NoSuchCatalogue(LookupError):
    """Nothing that is translated has that name; the message lists what there is."""


@dataclass(frozen=True)
class Unit:
    """One thing to translate: the words, and where they stand ("cell moved-read")."""

    text: str
    where: str


def markdown_cells(file: IO[bytes], *_: Any) -> Found:
    """Extract the paragraphs of a notebook's Markdown cells."""
    for number, cell in enumerate(json.load(file)["cells"]):
        if cell["cell_type"] == "markdown":
            for unit in units(source_of(cell)):
                yield number, None, unit, [f"cell {cell['id']}"]


#: Pages for readers that are no notebooks: the name of the catalogue, and the file.
PAGES = {"readme": "README.md", "notebooks/own-scans": "notebooks/own-scans.md"}
#: The part of README.md that is made of the ledger's rows, which have catalogues of their own.
LEDGER = re.compile(r"(<!-- claim ledger -->\n.*?<!-- end -->)", re.S)


def prose(file: IO[bytes], *_: Any) -> Found:
    """Extract the paragraphs of a page, without the rows of the ledger."""
    for part in LEDGER.split(file.read().decode()):
        for unit in units(part):
            if not unit.startswith("| §") and not re.fullmatch(r"<!--[^>]*-->", unit):
                yield 0, None, unit, []


#: Of the book's first page: lists of pages, which are no text but for their captions.
LISTED = re.compile(r"(:::\{toctree\}\n.*?\n:::\n)", re.S)


def page_words(file: IO[bytes], *_: Any) -> Found:
    """Extract the paragraphs of a page of the book, and the captions of its lists of pages."""
    for part in LISTED.split(file.read().decode()):
        caption = re.search(r"^:caption: (.*)$", part, re.M)
        if LISTED.match(part):
            yield from [(0, None, caption[1], [])] if caption else []
        else:
            for unit in units(part.replace("\n:::", "\n\n:::")):
                if not unit.startswith((":::", "<!--")):
                    yield 0, None, unit, []


def captions(file: IO[bytes], *_: Any) -> Found:
    """Extract what code cells give the library to say: captions, titles, what was seen.

    A caption may stand in the code; all else is taken as it was said when the cell ran, because it
    is put together there. What an explorer's own finding says changes with its controls: its
    numbers become gaps, and so do the words that a control has chosen; all words that can be
    chosen in their place are taken, too.
    """
    cells = [cell for cell in json.load(file)["cells"] if cell["cell_type"] == "code"]
    trees = [_parsed(source_of(cell)) for cell in cells]
    finders = {
        node.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and "finding" in ast.unparse(node)
    }
    for number, (cell, tree) in enumerate(zip(cells, trees, strict=True)):
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        said = [
            word.value.value
            for call in calls
            for word in call.keywords
            if word.arg == "caption" and isinstance(word.value, ast.Constant)
        ]
        found = any(
            getattr(call.func, "id", "") == "explore" and getattr(call.args[0], "id", "") in finders
            for call in calls
        )
        for page in ("".join(o.get("data", {}).get("text/html", "")) for o in cell["outputs"]):
            said += [SETTINGS.sub("", html.unescape(one)) for one in FIGCAPTION.findall(page)]
            said += map(html.unescape, CLAIMED.findall(page))
            rows = [row for table in EXPLORED.findall(page) for row in SEEN.findall(table)]
            for controls, row in rows if found else ():
                values = [html.unescape(value) for value in VALUE.findall(controls)]
                seen = html.unescape(row)
                inside = [one for one in values if re.search(rf"\b{re.escape(one)}\b", seen)]
                said.append(gapped(seen, [one for one in inside if not NUMBER.fullmatch(one)]))
                said += _choices(tree, inside)
        for text in dict.fromkeys(said):
            if isinstance(text, str) and re.search("[A-Za-z]{2}", text):
                yield number, None, text, [f"cell {cell['id']}"]


def gapped(text: str, chosen: Sequence[str] = ()) -> str:
    """Put a named gap in the place of every number, and of the words that a control has chosen.

    >>> gapped("For 30 volumes: all 2,400; one shot 0.5.")
    'For {n0} volumes: all {n1}; one shot {n2}.'
    >>> gapped("liver, 50%: 0.03 wide.", ["liver"])
    '{c0}, {n0}%: {n1} wide.'
    """
    count = itertools.count()
    text = NUMBER.sub(lambda _: f"{{n{next(count)}}}", text)
    for i, one in enumerate(chosen):
        text = re.sub(rf"\b{re.escape(one)}\b", f"{{c{i}}}", text)
    return text


def _choices(tree: ast.AST, values: Sequence[str]) -> Iterator[str]:
    """List all words that may be chosen where one of the values was: the lists they stand in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.List | ast.Tuple):
            there = [one.value for one in node.elts if isinstance(one, ast.Constant)]
            if set(there) & set(values):
                yield from (one for one in there if isinstance(one, str))


def toml_words(file: IO[bytes], *_: Any) -> Found:
    """Extract what people read of a file of words; lines of one paragraph are joined."""
    for where, text in _values(tomllib.loads(file.read().decode()), ""):
        yield 0, None, text, [where]


def checks(file: IO[bytes], *_: Any) -> Found:
    """Extract the checks' names, what they say, and the places they point to, of an exercise."""
    for node in ast.walk(ast.parse(file.read())):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "check":
            said = [*node.args[:1], *(k.value for k in node.keywords if k.arg in WORDS)]
            for value in said:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield node.lineno, None, value.value, [f"a check, line {node.lineno}"]


def spoken(file: IO[bytes], *_: Any) -> Found:
    """Extract what a module says by ``_("…")``, also inside of f-strings.

    Raises:
        ValueError: it says something that does not stand there as a literal.
    """
    calls = [node for node in ast.walk(ast.parse(file.read())) if isinstance(node, ast.Call)]
    for node in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
        if getattr(node.func, "id", "") == "_":
            value = node.args[0]
            if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
                raise ValueError(f"line {node.lineno}: _(…) takes the words themselves")
            yield node.lineno, "_", value.value, []


def module_words(file: IO[bytes], *_: Any) -> Found:
    """Extract what a JavaScript module says by ``_("…")``."""
    for text in in_script(file.read().decode()):
        yield 0, "_", text, []


def module_names(file: IO[bytes], *_: Any) -> Found:
    """Extract the names of classes and axes that a module is given."""
    read = json.load(file)
    for text in [*read.get("names", ()), *read.get("axes", ())]:
        yield 0, None, text, []


def outcomes(file: IO[bytes], *_: Any) -> Found:
    """Extract what an exercise says of cases and results: names of cases, what laws have found.

    It is put together where answers run or are judged, in English, and said again for the reader
    (``translate_message``). A value put in becomes a ``{gap}``.
    """
    for node in ast.parse(file.read()).body:
        if isinstance(node, ast.FunctionDef) and not _is_solution(node):
            yield from _sentences(node.body, f"{node.name}, ")


#: Where the grader's modules say what students read: lists of sentences, errors, functions.
LISTS = {"remarks", "notes", "look_at", "left_out", "said", "places"}
SAYING = {"_how_ended", "_why", "_first", "_without_student_words", "_duration", "lateness",
          "too_large", "_also"}  # fmt: skip


def remarks(file: IO[bytes], *_: Any) -> Found:
    """Extract what the grader says of a submission, as :func:`outcomes` does of results.

    The teacher reads it in English; in a student's feedback it is said again.
    """
    for node in ast.walk(ast.parse(file.read())):
        said: list[ast.AST] = []
        match node:
            case ast.Call(func=ast.Attribute(value=holder, attr="append" | "insert"), args=args):
                name = getattr(holder, "id", getattr(holder, "attr", ""))
                said += args if name in LISTS else []
            case ast.Call(func=ast.Name(id="Unreadable" | "Late"), args=args):
                said += args
            case ast.Assign(targets=[ast.Name(id="said" | "thing" | "whole" | "_NOT_GIVEN")]):
                said += [node.value]
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id="look_at"))]):
                said += [node.value]
            case ast.AugAssign(target=ast.Name(id="look_at")):
                said += [*getattr(node.value, "args", ())]
            case ast.FunctionDef(name=name) if name in SAYING:
                said += [*node.body]
        # a pattern of an error is no sentence
        yield from (one for one in _sentences(said) if not re.search(r"[|\\^]|\(\?", one[2]))


#: What is raised over a scan that cannot be used, and who else speaks of scans.
REFUSALS = {"VolumeError", "NoBody", "CannotSegment", "CannotCalibrate", "PretrainedMissing",
            "ScansUnavailable", "WrongArchive"}  # fmt: skip
OF_SCANS = {"_distance", "_sliced", "_explain", "__str__"}


def scans(file: IO[bytes], *_: Any) -> Found:
    """Extract what reading and segmenting scans says: errors and remarks."""
    for node in ast.walk(ast.parse(file.read())):
        said: list[ast.AST] = []
        match node:
            case ast.Call(func=ast.Name(id=name), args=args) if name in REFUSALS:
                said += args
            case ast.Call(func=ast.Attribute(attr="add"), args=[_, _, remark]):
                said += [remark]
            case ast.Call(func=ast.Attribute(value=ast.Name(id="said" | "remarks")), args=args):
                said += args
            case ast.AugAssign(target=ast.Name(id="remarks")):
                said += [node.value]
            case ast.Assign(targets=[ast.Name(id="what" | "kind")], value=ast.IfExp() as value):
                said += [value]
            case ast.FunctionDef(name=name) if name in OF_SCANS:
                parts = [one for one in ast.walk(node) if isinstance(one, ast.Return | ast.Assign)]
                values = [one.value for one in parts if one.value is not None]
                said += [value for value in values if not isinstance(value, ast.Tuple)]
        yield from _sentences(said)


def card_words(file: IO[bytes], *_: Any) -> Found:
    """Extract what data cards say: all that a ``Card(…)`` is given but its name."""
    for node in ast.walk(ast.parse(file.read())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Card":
            for said in node.keywords:
                if said.arg != "name":
                    yield node.lineno, None, str(ast.literal_eval(said.value)), [str(said.arg)]


IN_A_FINDING = {"missing", "way", "gpu", "text", "threads", "HEADINGS", "TYPERS"}


def findings(file: IO[bytes], *_: Any) -> Found:
    """Extract what the doctor found, what is wanting, its headings; and what typer says."""
    for node in ast.walk(ast.parse(file.read())):
        said: list[ast.AST] = []
        match node:
            case ast.Call(func=ast.Name(id="Finding"), args=[_, *args]):
                said += args[:2]
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in IN_A_FINDING:
                said += [value]
        yield from _sentences(said)


def set_up(file: IO[bytes], *_: Any) -> Found:
    """Extract what the set-up says, and the sentences that it has for pip's failures."""
    for node in ast.walk(ast.parse(file.read())):
        said: list[ast.AST] = []
        match node:
            case ast.Call(func=ast.Name(id="say" | "give_up" | "_told"), args=args):
                said += args
            case (
                ast.Yield(value=ast.JoinedStr() as value)
                | ast.Return(value=ast.JoinedStr() as value)
            ):
                said += [value]
            case ast.Assign(targets=[ast.Name(id="state")], value=value):
                said += [value]
            case ast.Assign(targets=[ast.Name(id="PIP_FAILURES")], value=ast.Tuple(elts=pairs)):
                said += [pair.elts[1] for pair in pairs if isinstance(pair, ast.Tuple)]
        yield from _sentences(said)


def template_words(file: IO[bytes], *_: Any) -> Found:
    """Extract what a template of a page says by ``_("…")``."""
    for text in re.findall(r'\b_\("((?:[^"\\]|\\.)*)"\)', file.read().decode()):
        yield 0, "_", text, []


def _sentences(said: Sequence[ast.AST], where: str = "") -> Found:
    """Give what parts of code say in words, with gaps for what is put in."""
    for part in _texts(said):
        text = _with_gaps(part)
        if re.search(r"[^\W\d_]{2}", re.sub(r"\{\w+\}", "", text)):
            yield part.lineno, None, text, [f"{where}line {part.lineno}"]


def _is_solution(function: ast.FunctionDef) -> bool:
    calls = [one.func for one in function.decorator_list if isinstance(one, ast.Call)]
    return any(isinstance(called, ast.Name) and called.id == "answer" for called in calls)


def _texts(nodes: Sequence[ast.AST]) -> Iterator[ast.expr]:
    """Give the texts that code says: no docstring, no key, no argument by name, none to compare."""
    for node in nodes:
        match node:
            case ast.Constant(value=str()):
                yield node
            case ast.JoinedStr(values=parts):
                yield node
                for part in parts:
                    if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.IfExp):
                        yield from _texts([part.value.body, part.value.orelse])
            case ast.Dict(values=said):
                yield from _texts(said)
            case ast.Expr(value=ast.Constant()) | ast.Subscript() | ast.Compare():
                pass
            case ast.Call(func=func, args=args):
                called = getattr(func, "id", getattr(func, "attr", ""))
                if called in ("Case", "append", "zip", "scatter"):
                    yield from _texts(args)
            case _:
                yield from _texts(list(ast.iter_child_nodes(node)))


def _with_gaps(text: ast.expr) -> str:
    """Write an f-string as words with gaps, each with a name of its own."""
    if isinstance(text, ast.Constant):
        return str(text.value)
    assert isinstance(text, ast.JoinedStr)
    written: list[str] = []
    names: set[str] = set()
    for part in text.values:
        if isinstance(part, ast.FormattedValue):
            found = [n for n in ast.walk(part.value) if isinstance(n, ast.Name | ast.Attribute)]
            name = getattr(found[0], "attr", getattr(found[0], "id", "")) if found else "gap"
            while name in names:
                name += "_"
            names.add(name)
            written.append(f"{{{name}}}")
        else:
            assert isinstance(part, ast.Constant)
            written.append(str(part.value))
    return "".join(written)


def _parsed(source: str) -> ast.AST:
    try:
        return ast.parse(source)
    except SyntaxError:  # an IPython magic
        return ast.Module([], [])


def _values(table: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    place = " ".join(filter(None, [where, str(table.get("id", ""))]))
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _values(value, f"{place} {key}".strip())
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for one in value:
                yield from _values(one, f"{place} {key}".strip())
        elif key in WORDS:
            for text in value if isinstance(value, list) else [value]:
                if re.search(r"[^\W\d_]", text):
                    yield f"{place} {key}".strip(), _joined(text)


def _joined(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))


def names(course: Path) -> list[str]:
    """List the catalogues: one per notebook and exercise, and one for each part of the library."""
    lessons = [f"notebooks/{path.stem}" for path in sorted((course / "notebooks").glob("*.ipynb"))]
    asked = [path.stem.partition("_")[2] for path in sorted((course / "exercises").glob("*.ipynb"))]
    words = ["captions", "questions", "predictions", "claims"]
    parts = ["checker", "outcomes", "reading", "figures", "modules", "feedback", "book", "cli"]
    parts += ["scans", "cards"]
    pages = [name for name, file in PAGES.items() if (course / file).is_file()]
    return [*lessons, *(f"exercises/{word}" for word in asked), *words, *parts, *pages]


def chosen(there: Sequence[str], only: Sequence[str]) -> list[str]:
    """Choose by what people call things: "exercises/01_dice", "01_dice", "dice"; all by default.

    Raises:
        NoSuchCatalogue: one fits nothing.
    """
    found = []
    for wanted in only:
        stem = wanted.replace("\\", "/").removesuffix(".ipynb").removesuffix(".md").lower()
        called = {name: (name, name.partition("/")[2], name.partition("_")[2]) for name in there}
        fit = [name for name in there if stem in map(str.lower, called[name])]
        if not fit:
            raise NoSuchCatalogue(f"nothing is called {wanted!r}; there are {', '.join(there)}")
        found += fit
    return found or list(there)


def extract(course: Path, name: str) -> list[Unit]:
    """List what a catalogue has to translate, each text once, in the order of the course.

    Arguments:
        course: the course's folder.
        name: of the catalogue, one of :func:`names`.
    """
    part, _, stem = name.partition("/")
    library = course / "fewshot_lib"
    reading = library / "reading"
    files: Sequence[tuple[Any, Sequence[Path]]]
    if name in PAGES:
        files = [(prose, [course / PAGES[name]])]
    elif part == "notebooks":
        files = [(markdown_cells, [course / f"{name}.ipynb"])]
    elif part == "exercises":
        files = [
            (markdown_cells, sorted((course / part).glob(f"[0-9]*_{stem}.ipynb"))),
            (toml_words, [library / f"{name}.toml"]),
            (checks, [library / f"{name}.py"]),
        ]
    elif name == "captions":
        files = [(captions, sorted(course.glob("*s/[0-9]*.ipynb")))]
    elif name in ("questions", "predictions"):
        files = [(toml_words, sorted((reading / name).glob("*.toml")))]
    elif name == "outcomes":
        asked = sorted((library / "exercises").glob("*.py"))
        files = [(outcomes, [path for path in asked if path.stem != "fixtures"])]
    elif name == "modules":
        scripts = sorted((reading / "modules").glob("*.js"))
        scripts += sorted((library / "tools/book/static").glob("*.js"))
        data = sorted((reading / "modules").glob("*.json"))
        files = [(module_words, scripts), (module_names, data)]
    elif name == "feedback":
        grader = library / "grader"
        said = ("assemble", "attempt", "choice", "marks", "reader", "recognise", "rows")
        files = [
            (template_words, sorted((grader / "templates").glob("*.j2"))),
            (spoken, [grader / f"{one}.py" for one in ("marks", "gradebook", "selfcheck")]),
            (remarks, [grader / f"{one}.py" for one in said]),
        ]
    elif name == "scans":
        speaking = [reading / "segment.py", library / "transfer.py"]
        files = [(scans, [*sorted((library / "data").glob("*.py")), *speaking])]
    elif name == "cards":
        cards = [library / "data/cards.py"]
        files = [(spoken, cards), (card_words, cards)]
    elif name == "book":
        book = library / "tools/book"
        files = [
            (page_words, sorted((book / "pages").glob("*.md"))),
            (template_words, sorted((book / "templates").glob("*.html"))),
            (spoken, [book / "edition.py", book / "prepare.py", book / "paper.py"]),
        ]
    elif name == "claims":
        files = [(toml_words, [reading / "claims.toml"])]
    else:
        learners = [library / "cli.py", library / "tools/lab.py", library / "tools/copies.py"]
        sources = learners if name == "cli" else sorted((library / name).glob("*.py"))
        files = [(spoken, sources)]
        if name == "cli":
            doctor = [library / "tools/doctor.py"]
            files = [*files, (spoken, doctor), (findings, [*doctor, library / "cli.py"])]
            files.append((set_up, [library / "tools/setup.py"]))
    found: dict[str, Unit] = {}
    for extractor, paths in files:
        for path in paths:
            with path.open("rb") as file:
                for _, _, text, comments in extractor(file):
                    where = f"{path.name}: {comments[0]}" if comments else path.name
                    found.setdefault(str(text), Unit(str(text), where))
    if name == "modules":  # what Python says as well is in its catalogue
        for unit in extract(course, "reading"):
            found.pop(unit.text, None)
    return list(found.values())
