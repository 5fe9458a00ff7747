"""The claim ledger: what the note states, what became of it, and which cell shows it.

The ledger is data (``claims.toml``), one row for each statement of the note that can be true or
false. A notebook shows a row with ``claim(id, observed=…, holds=…)``; ``ledger()`` prints all of
them; ``find_problems`` reads the saved notebooks and says where ledger and notebooks disagree.
"""

from __future__ import annotations

import ast
import html
import re
import textwrap
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from fewshot_lib.checker.frontend import emit
from fewshot_lib.checker.language import catalogue, language, translate, words
from fewshot_lib.checker.typography import typeset
from fewshot_lib.reading.show import WIDTH, table_text, wrap

_ = words("reading")

#: Every status, with a sign beside its word so that colour is never needed.
STATUSES: Mapping[str, str] = {
    "reproduced": "=",
    "corrected": "≠",
    "holds under conditions": "≈",
    "cannot be tested here": "○",
    "no source": "?",
}
#: Of a cell of few words: a narrow table would break Chinese after every character.
WHOLE = "text-align:left;word-break:keep-all"
TESTED = ("reproduced", "corrected", "holds under conditions")
METADATA = "fewshot_claim"  # the key under which an output's metadata keeps its row
#: Rows that the README shows: one of each kind that a program can decide, and the central one.
TELLING = ("2.2-prototype", "3.1-segments", "5.1-learns", "6-mixture")


@dataclass(frozen=True)
class Claim:
    """One statement of the note.

    Arguments:
        id: section and a word, "2.2-prototype".
        section: of the note.
        quote: the note's words.
        says: the same in English.
        status: one of ``STATUSES``.
        notebook: the number of the notebook that shows it, "03" or "04b".
        why: what became of it, in one sentence.
        read: the verdict comes from reading the note and its sources; nothing is run for it.
    """

    id: str
    section: str
    quote: str
    says: str
    status: str
    notebook: str
    why: str
    read: bool = False

    def __post_init__(self) -> None:
        for name in ("id", "section", "quote", "says", "notebook", "why"):
            if not getattr(self, name).strip():
                raise ValueError(f"claim {self.id!r} has no {name}")
        if self.status not in STATUSES:
            raise ValueError(
                f"claim {self.id!r} has status {self.status!r}; there are {', '.join(STATUSES)}"
            )
        if not re.fullmatch(r"\d\d[a-z]?", self.notebook):
            raise ValueError(
                f"claim {self.id!r}: notebook is a number like 03 or 04b: {self.notebook!r}"
            )


@dataclass(frozen=True)
class Shown:
    """A claim in a notebook: where it stands, and what its saved output says (None: no output).

    Arguments:
        id: of the claim.
        notebook: its number, "03" or "04b".
        cell: the cell's number, from 0, counting texts.
        status: what its output keeps.
        holds: the same.
        printed: the status that a reader sees in its text.
        seen: what was observed, as printed; "" if nothing was.
        file: the notebook's name, "03_prototypes.ipynb".
        count: the number in brackets beside the cell, as JupyterLab shows it.
    """

    id: str
    notebook: str
    cell: int
    status: str | None
    holds: bool | None
    printed: str | None = None
    seen: str = ""
    file: str = ""
    count: int | None = None


def claims() -> Mapping[str, Claim]:
    """Return the ledger: id → claim, in the order of the note, in the reader's language.

    >>> claims()["2.2-prototype"].status
    'reproduced'
    """
    return _claims_in(language())


@cache
def _claims_in(spoken: str) -> Mapping[str, Claim]:
    said = catalogue(spoken, "claims")
    return {
        id: replace(
            one,
            says=said.get(one.says, one.says),
            why=said.get(one.why, one.why),
        )
        for id, one in _claims().items()
    }


@cache
def _claims() -> Mapping[str, Claim]:
    text = resources.files("fewshot_lib.reading").joinpath("claims.toml").read_text("utf-8")
    found: dict[str, Claim] = {}
    for row in tomllib.loads(text)["claim"]:
        one = Claim(**row)
        if one.id in found:
            raise ValueError(f"claim {one.id!r} stands twice in the ledger")
        found[one.id] = one
    return found


def claim(id: str, observed: str = "", holds: bool | None = None) -> None:
    """Show what became of one statement of the note.

    Arguments:
        id: its name in the ledger, "3.1-segments".
        observed: what this notebook saw that bears on it, with no more digits than are stable.
        holds: whether that supports the ledger's status; computed by the cell, not written down.
            Both are required, except of a statement that cannot be tested here, has no source, or
            is decided by reading.

    Raises:
        ValueError: no such claim (the nearest names are listed), or nothing observed or decided
            about one that can be tested.
        TypeError: ``holds`` is not a truth value.

    >>> claim("5.1-learns", "the layer that makes prototypes has 0 parameters", holds=True)
    Claim 5.1-learns (note §5.1): ≠ corrected
      The note: A prototypical network learns class prototypes.
      Seen here: the layer that makes prototypes has 0 parameters. Evidence supports this verdict:
      yes.
      Prototypes are computed from the support, without a parameter of their own; what is learnt is
      the embedding.
    """
    row = _find(id)
    seen = observed.strip().rstrip(".")
    if row.read and (seen or holds is not None):
        raise ValueError(
            f"claim({id!r}) is decided by reading: it takes no observed= and no holds="
        )
    if row.status in TESTED and not row.read and (not seen or holds is None):
        raise ValueError(
            f"claim({id!r}) is {row.status!r} in the ledger and needs observed=, what the cell "
            "saw, and holds=, whether that supports the status"
        )
    sentence = _("Decided by reading; nothing was run for it.") if row.read else ""
    if holds is not None:
        holds = _truth(holds)
        supports = (
            _("Evidence supports this verdict: yes."),
            _("Evidence supports this verdict: NO."),
        )
        sentence = " " + supports[not holds]
    if seen:
        sentence = _("Seen here: {seen}.").format(seen=translate(seen, "captions")) + sentence
    sentence = typeset(sentence.strip())
    sign = f"{STATUSES[row.status]} {_told_status(row.status)}"
    title = _("Claim {id} (note {section})").format(id=row.id, section=_section(row))
    lines = [_("The note: {says}").format(says=row.says), sentence, row.why]
    text = "\n".join(
        [
            _("{title}: {sign}").format(title=title, sign=sign),
            *(
                textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="  ")
                for line in lines
                if line
            ),
        ]
    )
    page = (
        '<aside class="fewshot-claim" style="border-left:4px solid #767676;padding:0.2em 0.8em">'
        f"<p><b>{html.escape(_('{title}: {sign}').format(title=title, sign=sign))}</b></p>"
        f'<p><q lang="zh">{html.escape(row.quote)}</q><br>{html.escape(row.says)}</p>'
        + (f"<p>{html.escape(sentence)}</p>" if sentence else "")
        + f"<p>{html.escape(row.why)}</p></aside>"
    )
    kept = {"id": row.id, "status": row.status, "holds": holds}
    emit({"text/html": page, "text/plain": text}, {METADATA: kept})


def ledger(notebook: str | None = None, folder: Path | str | None = None) -> None:
    """Print the ledger, whole or one notebook's part of it.

    Arguments:
        notebook: "03": only what that notebook shows; None: everything.
        folder: of saved notebooks; with it a column says in which cell each claim is shown
            ("03 [41]": the number in brackets beside the cell) and leads there, read from the
            notebooks themselves.

    Raises:
        ValueError: a notebook that shows no claim.

    >>> ledger("04")  # doctest: +ELLIPSIS
    The claim ledger, notebook 04: 1 claim (1 holds under conditions).
    claim      note            status                    what became of it
    6-mixture  §6, question 2  ≈ holds under conditions  Its posterior is that of one Gaussian per
    ...
    """
    rows = [one for one in claims().values() if notebook in (None, one.notebook)]
    if not rows:
        numbers = sorted({one.notebook for one in claims().values()})
        raise ValueError(f"no claim is shown in notebook {notebook!r}; there are {numbers}")
    places = None if folder is None else {row.id: row for row in scan(folder)}
    scope = "" if notebook is None else _(", notebook {notebook}").format(notebook=notebook)
    caption = _("The claim ledger{scope}: {summary}.").format(scope=scope, summary=summary(rows))
    columns = [_("claim"), _("note"), _("status"), *([_("shown in")] if places is not None else [])]
    cells = [
        [
            one.id,
            _section(one),
            f"{STATUSES[one.status]} {_told_status(one.status)}",
            *([_told(places.get(one.id))] if places is not None else []),
        ]
        for one in rows
    ]
    lines = [[*row, one.why] for row, one in zip(cells, rows, strict=True)]
    text = table_text([*columns, _("what became of it")], lines, most=len(lines))
    whole = [
        [
            *(_linked(c, one.id, places if n == 3 else None) for n, c in enumerate(row)),
            f'<q lang="zh">{html.escape(one.quote)}</q><br>{html.escape(one.says)}',
            html.escape(one.why),
        ]
        for row, one in zip(cells, rows, strict=True)
    ]
    columns += [_("the note says"), _("what became of it")]
    page = _table(columns, whole, f"<caption>{html.escape(caption)}</caption>")
    emit({"text/html": page, "text/plain": f"{wrap(caption)}\n{text}"})


def summary(rows: list[Claim] | None = None) -> str:
    """Count claims by status, in one line.

    >>> summary([claims()["0-paper"]])
    '1 claim (1 no source)'
    """
    rows = list(claims().values()) if rows is None else rows
    counts = Counter(one.status for one in rows)
    told = _(", ").join(
        f"{counts[status]} {_told_status(status)}" for status in STATUSES if counts[status]
    )
    said = _("1 claim ({told})") if len(rows) == 1 else _("{count} claims ({told})")
    return said.format(count=len(rows), told=told)


def scan(folder: Path | str) -> list[Shown]:
    """Read which claims the saved notebooks of a folder show, and what their outputs say.

    Arguments:
        folder: of ``NN_name.ipynb`` files; an NN may be followed by a letter, as in 04b.

    Returns:
        one row per call of ``claim`` with a literal id, in order; status and holds from its output.
    """
    found: list[Shown] = []
    for path in _lessons(folder):
        for number, cell, printed in _code_cells(path):
            for id in _calls(cell.source):
                row = printed.get(id, {})
                found.append(
                    Shown(
                        id,
                        _number(path),
                        number,
                        row.get("status"),
                        row.get("holds"),
                        *_read_text(id, row.get("text", "")),
                        path.name,
                        cell.get("execution_count"),
                    )
                )
    return found


def seen(ids: Sequence[str], folder: Path | str) -> None:
    """Print what the saved notebooks saw that bears on some claims, in their own words.

    Arguments:
        ids: of claims, in the order of printing.
        folder: of the saved notebooks.

    Raises:
        ValueError: no such claim.
    """
    shown = {row.id: row for row in scan(folder)}
    lines = [[id, _told(shown.get(id)), _find(id).says, _saw(shown.get(id))] for id in ids]
    columns = [_("claim"), _("shown in"), _("the note says"), _("seen there")]
    cells = [
        [_linked(c, row[0], shown if n == 1 else None) for n, c in enumerate(row)] for row in lines
    ]
    line = _("{id}, {where}: {saw}")
    text = "\n".join(wrap(line.format(id=i, where=at, saw=saw)) for i, at, _says, saw in lines)
    emit({"text/html": _table(columns, cells), "text/plain": text})


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """Write a table of cells in HTML; a line may break in the last two of a row only."""
    head = "".join(f"<th>{c}</th>" for c in columns)
    styles = [WHOLE] * (len(columns) - 2) + ["text-align:left"] * 2
    lines = (
        "".join(f'<td style="{style}">{c}</td>' for style, c in zip(styles, row, strict=True))
        for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def readme_summary(ids: Sequence[str] = TELLING) -> str:
    """Write the ledger's summary for the README, as Markdown: counts by status, telling rows.

    >>> print(readme_summary(["5.1-learns"]).splitlines()[-1])  # doctest: +ELLIPSIS
    | §5.1 | A prototypical network learns class prototypes. | ≠ corrected | Prototypes are ...
    """
    counts = Counter(one.status for one in claims().values())
    told = ", ".join(f"**{counts[status]}** {status}" for status in STATUSES if counts[status])
    rows = [
        f"| {_section(one)} | {one.says} | {STATUSES[one.status]} {one.status} | {one.why} |"
        for one in map(_find, ids)
    ]
    return "\n".join(
        [
            f"Of the note's {len(claims())} statements that can be true or false: {told}.",
            "",
            "| note | it says | status | what became of it |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def find_problems(folder: Path | str, strict: bool = False) -> list[str]:
    """Say where the ledger and the saved notebooks disagree; nothing when they agree.

    Arguments:
        folder: of the saved notebooks.
        strict: True: every claim must be shown; False: only those of notebooks that exist.

    Returns:
        one sentence a problem: a claim without a cell, a cell without a claim, a claim in another
        notebook than the ledger says, an output that is missing, prints another status than the
        ledger's, or does not support it.
    """
    shown = scan(folder)
    there = {_number(path) for path in _lessons(folder)}
    problems = []
    for id, one in claims().items():
        if not any(row.id == id for row in shown) and (strict or one.notebook in there):
            problems.append(f"{id}: no cell of notebook {one.notebook} shows it")
    for row in shown:
        place = f"notebook {row.notebook}, cell {row.cell}"
        known = claims().get(row.id)
        if known is None:
            problems.append(f"{row.id}: {place} shows a claim that the ledger does not have")
        elif known.notebook != row.notebook:
            problems.append(f"{row.id}: shown in {place}; the ledger says {known.notebook}")
        elif row.status is None:
            problems.append(f"{row.id}: {place} has no saved output; run and save the notebook")
        elif row.printed != row.status:
            problems.append(
                f"{row.id}: {place} keeps {row.status!r} but its text says {row.printed!r}; "
                "run and save the notebook"
            )
        elif row.status != known.status:
            problems.append(
                f"{row.id}: {place} prints {row.status!r}, the ledger says {known.status!r}"
            )
        elif row.holds is False or (
            row.holds is None and known.status in TESTED and not known.read
        ):
            problems.append(f"{row.id}: {place} saw what does not support {known.status!r}")
    return problems


def _lessons(folder: Path | str) -> list[Path]:
    """List the notebooks of a folder, in the order of the course."""
    return sorted(Path(folder).glob("[0-9][0-9]*_*.ipynb"))


def _number(path: Path) -> str:
    """Read the number of a notebook from its name: 04b of 04b_mixture_more.ipynb."""
    return path.name.partition("_")[0]


def _find(id: str) -> Claim:
    """Return a claim, or name those it may have been meant."""
    if id in claims():
        return claims()[id]
    from difflib import get_close_matches

    near = get_close_matches(id, list(claims()), n=4, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else "ledger() lists them all"
    raise ValueError(f"the ledger has no claim {id!r}; {hint}")


def _truth(holds: Any) -> bool:
    """Read True or False, also as a comparison of tensors or arrays gives it."""
    try:
        value = holds.item() if hasattr(holds, "item") else holds
    except (RuntimeError, ValueError):  # more than one
        value = None
    if not isinstance(value, bool):
        raise TypeError(f"holds must be True or False, computed by the cell, got {holds!r}")
    return value


def _told(row: Shown | None) -> str:
    """Say where a claim is shown: "03 [41]"."""
    return _("not yet") if row is None else f"{row.notebook} [{row.count}]"


def _saw(row: Shown | None) -> str:
    """Say what was seen, or why nothing is told."""
    if row is None:
        return _("not yet")
    if row.printed is None:
        return _("run and save that notebook")
    if claims()[row.id].read:
        return _("decided by reading")
    return row.seen or _("nothing that a program can see")


def _linked(text: str, id: str, shown: Mapping[str, Shown] | None) -> str:
    """Escape a cell of a table, and let it lead to where the claim is shown, if that is known."""
    if shown is None or id not in shown:
        return html.escape(text)
    return f'<a href="{html.escape(shown[id].file)}">{html.escape(text)}</a>'


def _code_cells(path: Path) -> Iterator[tuple[int, Any, dict[str, Any]]]:
    """Give (number, cell, claims that its outputs print, with their texts) of every code cell."""
    import nbformat

    for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type == "code":
            printed = {}
            for output in cell.outputs:
                if row := output.get("metadata", {}).get(METADATA):
                    printed[row["id"]] = {**row, "text": output.data.get("text/plain", "")}
            yield number, cell, printed


def _read_text(id: str, text: str) -> tuple[str | None, str]:
    """Read (status, what was seen) from the text that a claim printed, in the reader's language."""
    first, _rest, rest = text.partition("\n")
    sentences = _unwrapped(rest)
    status = None
    for known, sign in STATUSES.items():
        title = _("Claim {id} (note {section})").format(id=id, section="\0")
        shown = _("{title}: {sign}").format(title=title, sign=f"{sign} {_told_status(known)}")
        if re.fullmatch(re.escape(shown).replace(re.escape("\0"), ".*"), first):
            status = known
    supports = [_("Evidence supports this verdict: yes."), _("Evidence supports this verdict: NO.")]
    begin, end = map(re.escape, _("Seen here: {seen}.").split("{seen}"))
    after = "|".join(map(re.escape, supports))
    saw = re.search(rf"{begin}(.*?){end}(?: ?(?:{after})|$)", sentences)
    return status, saw[1] if saw else ""


def _unwrapped(text: str) -> str:
    """Put a wrapped paragraph back into one line; a new one begins with a known word."""
    text = "\n".join(line.strip() for line in text.splitlines())
    wide = "[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"  # Chinese: no space where a line ends
    text = re.sub(rf"(?<={wide})\n(?={wide})|(?<=[\u3000-\u303f\uff00-\uffef])\n", "", text)
    return re.sub(r"(?<=[^\s-])-\n(?=\S)", "-", text).replace("\n", " ")


def _calls(source: str) -> Iterator[str]:
    """Give the ids of the ``claim("…")`` calls in a cell; magics are left out."""
    plain = "\n".join(line for line in source.splitlines() if not re.match(r"\s*[%!]", line))
    try:
        tree = ast.parse(plain)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            given = [*node.args[:1], *(k.value for k in node.keywords if k.arg == "id")]
            if name == "claim" and given and isinstance(given[0], ast.Constant):
                yield str(given[0].value)


def _section(row: Claim) -> str:
    """Write the section in the reader's language: "§2.2", or its name."""
    said = translate(row.section, "claims")
    return f"§{said}" if row.section[0].isdigit() else said


def _told_status(status: str) -> str:
    """Say a status in the reader's language."""
    said = {
        "reproduced": _("reproduced"),
        "corrected": _("corrected"),
        "holds under conditions": _("holds under conditions"),
        "cannot be tested here": _("cannot be tested here"),
        "no source": _("no source"),
    }
    return said[status]
