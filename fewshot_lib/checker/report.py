"""The report of a check in its three forms: plain text, HTML, and a coloured terminal.

All three say the same; none shows a solution, and none an expected value but for one number of the
public cases. The text is the same for the same verdict (no times, no counts of attempts), so that
saved notebooks can be compared.
"""

from __future__ import annotations

import html
import re
import textwrap
from dataclasses import dataclass

from fewshot_lib.checker.compare import first_difference, size
from fewshot_lib.checker.judge import (
    FAILED,
    MISSING,
    PASSED,
    CheckVerdict,
    Verdict,
    case_name,
)
from fewshot_lib.checker.language import translate, words
from fewshot_lib.checker.markup import NEUTRAL, RIGHT, WRONG, badge, code_block, inline
from fewshot_lib.checker.spec import Answer
from fewshot_lib.checker.specification import words_of

_ = words("checker")

MARKS = {PASSED: "✓", FAILED: "✗", MISSING: "·"}
ASCII_MARKS = {PASSED: "ok", FAILED: "--", MISSING: ".."}
_ANSI = {PASSED: "\x1b[32m", FAILED: "\x1b[31m", MISSING: "\x1b[2m"}
_COLOURS = {PASSED: RIGHT, FAILED: WRONG, MISSING: NEUTRAL}


def number(points: float) -> str:
    """Write points as short as they are: 4, 2.5."""
    return f"{points:g}"


@dataclass(frozen=True)
class Report:
    """A verdict made readable. ``repr`` is the text, ``_repr_html_`` the HTML.

    Arguments:
        verdict: what was found.
        answer: the specification, for sections, pointers and pictures.
        suggestions: lines on what the reader may do next (hints left, solution open).
        numbers: show one wrong number beside the expected one. For the public cases only: the
            report of a grade shows no expected number.
    """

    verdict: Verdict
    answer: Answer
    suggestions: tuple[str, ...] = ()
    numbers: bool = False

    @property
    def title(self) -> str:
        """Name and score in one line."""
        verdict = self.verdict
        score = _("{points} of {most} points").format(
            points=number(verdict.points), most=number(verdict.max_points)
        )
        if verdict.status == MISSING:
            score = _("not attempted, {score}").format(score=score)
        return _("{answer}: {score}").format(
            answer=f"{verdict.exercise}.{verdict.answer}", score=score
        )

    def name_of(self, check: CheckVerdict) -> str:
        """Say what a check looks at, in the reader's language; `code` in backticks."""
        return translate(check.name, f"exercises/{words_of(self.answer, self.verdict.exercise)}")

    @property
    def causes(self) -> list[tuple[str, str]]:
        """What is to be said first, above the lines: (what it is, sentence)."""
        verdict = self.verdict
        names = (_("likely cause"), _("and another"))
        causes = [
            (name, mistake.says) for name, mistake in zip(names, verdict.mistakes, strict=False)
        ]
        causes += [(_("what we see"), verdict.relation)] if verdict.relation else []
        return causes + (
            [(_("in numbers"), said)] if self.numbers and (said := self._number()) else []
        )

    def _number(self) -> str:
        """Say of the smallest wrong result, in numbers, what it is and what is expected."""
        drawn = [check.drawn for check in self.verdict.checks if check.drawn is not None]
        if not drawn:
            return ""
        case, expected, got = min(drawn, key=lambda one: size(one[1]))
        tolerance = case.tolerance or self.answer.tolerance
        found = first_difference(expected, got, tolerance, tuple(self.answer.returns))
        if found is None:
            return ""
        where, wanted, yours = found
        return _("yours {yours}, expected {wanted}{where} [{case}]").format(
            yours=yours, wanted=wanted, where=where, case=case_name(case)
        )

    @property
    def advice(self) -> list[tuple[str, str]]:
        """What is to be said below the lines: (what it is, sentence)."""
        verdict = self.verdict
        said = [(_("note"), note) for note in verdict.notes]
        suggestions = [(_("next"), offer) for offer in self.suggestions]
        if verdict.status == MISSING:
            write = _(
                "write the answer in its cell, then run the notebook from its top to this cell"
            )
            return suggestions or [(_("next"), write)]
        if verdict.status == PASSED:
            return said + suggestions
        pointers = [mistake.pointer for mistake in verdict.mistakes[:2] if mistake.pointer]
        if not verdict.mistakes:
            first = next(check for check in verdict.checks if check.status != PASSED)
            pointers += [first.pointer] if first.pointer else []
        said.append((_("read again"), _("; ").join(dict.fromkeys(pointers)) or self.answer.section))
        return said + suggestions

    def lines(self, marks: dict[str, str] | None = None, width: int = 92) -> list[str]:
        """Give the report as lines of plain text."""
        marks = marks or MARKS
        arrow = "  → " if marks is MARKS else "  -> "
        lines = [self.title]
        lines += _told(self.causes, arrow, width)
        for check in self.verdict.checks:
            name = self.name_of(check).replace("`", "")
            lines.append(f"  {marks[check.status]} {name}  ({_score(check)})")
            if check.status == FAILED:
                lines += _wrapped(f"{check.sentence}{_in_case(check)}", "      ", width)
        return lines + _told(self.advice, arrow, width)

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def terminal(self, colour: bool = True, encoding: str = "utf-8") -> str:
        """Give the report for a terminal: coloured if wanted, ASCII if it must be."""
        marks = MARKS
        try:
            "✓✗·→«»".encode(encoding)
        except (UnicodeEncodeError, LookupError):
            marks = ASCII_MARKS
        lines = self.lines(marks)
        if colour:
            for status, mark in marks.items():
                lines = [
                    line.replace(f"  {mark} ", f"  {_ANSI[status]}{mark}\x1b[0m ", 1)
                    if line.startswith(f"  {mark} ")
                    else line
                    for line in lines
                ]
            lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
        written = "\n".join(lines)
        return written if marks is MARKS else written.encode("ascii", "replace").decode()

    def _repr_html_(self) -> str:
        verdict = self.verdict
        border = _COLOURS[verdict.status]
        rows = "".join(_html_row(check, self.name_of(check)) for check in verdict.checks)
        causes, advice = _html_said(self.causes), _html_said(self.advice)
        return (
            f'<div class="fewshot-check" style="border-left:4px solid {border};padding:.3em 1em;'
            f'max-width:52em;line-height:1.45"><div style="margin-bottom:.3em"><b>'
            f"{html.escape(self.title)}</b></div>{causes}"
            f'<table style="border-collapse:collapse;margin:.3em 0;background:none"><tbody>'
            f"{rows}</tbody></table>{self._picture()}{advice}</div>"
        )

    def _picture(self) -> str:
        if self.answer.picture is None:
            return ""
        for check in self.verdict.checks:
            if check.drawn is not None:
                try:
                    drawn = self.answer.picture(*check.drawn)
                except Exception as error:
                    return f"<!-- no picture: {html.escape(type(error).__name__)} -->"
                if drawn:
                    case = html.escape(case_name(check.drawn[0]))
                    return (
                        f'<figure style="margin:.4em 0">{drawn}<figcaption style="font-size:90%">'
                        + _("the case «{case}»").format(case=case)
                        + "</figcaption></figure>"
                    )
        return ""


def _score(check: CheckVerdict) -> str:
    return _("{points} of {most}").format(
        points=number(check.points), most=number(check.max_points)
    )


def _in_case(check: CheckVerdict) -> str:
    return f" [{check.case}]" if check.case else ""


def _told(said: list[tuple[str, str]], lead: str, width: int) -> list[str]:
    sentences = [_("{kind}: {sentence}").format(kind=kind, sentence=one) for kind, one in said]
    return [line for sentence in sentences for line in _wrapped(sentence, lead, width)]


def _wrapped(sentence: str, lead: str, width: int) -> list[str]:
    return textwrap.wrap(
        sentence,
        width,
        initial_indent=lead,
        subsequent_indent=" " * len(lead),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _capital(words: str) -> str:
    """Begin a sentence with a capital, but leave a name or a formula as it is written."""
    ordinary = re.match(r"[a-z]+(?=[ ,;:’-]|\.?$)(?! =)", words)
    return words[:1].upper() + words[1:] if ordinary else words


def _html_said(said: list[tuple[str, str]]) -> str:
    return "".join(
        '<div style="margin:.25em 0">'
        + _("<b>{kind}.</b> {sentence}").format(
            kind=html.escape(_capital(kind)), sentence=inline(_capital(sentence))
        )
        + "</div>"
        for kind, sentence in said
    )


def _html_row(check: CheckVerdict, name: str) -> str:
    colour = _COLOURS[check.status]
    below = ""
    if check.status == FAILED:
        below = (
            f'<div style="font-size:95%">{inline(check.sentence)}'
            + (f" <i>[{html.escape(check.case)}]</i>" if check.case else "")
            + "</div>"
        )
    return (
        f'<tr style="background:none"><td style="vertical-align:top;text-align:center;'
        f'padding:.1em .6em .1em 0">{badge(MARKS[check.status], colour)}</td>'
        f'<td style="text-align:left;padding:.1em 1.2em .1em 0;white-space:normal">'
        f"{inline(name)}{below}</td>"
        f'<td style="vertical-align:top;text-align:right;padding:.1em 0;white-space:nowrap">'
        f"{_score(check)}</td></tr>"
    )


@dataclass(frozen=True)
class Message:
    """A line or two to the reader: a hint, a banner, a remark; text and HTML.

    Arguments:
        title, body: sentences; `code` in backticks.
        code: Python, shown to the letter below them.
        colour: of the line beside all of it.
    """

    title: str
    body: str = ""
    code: str = ""
    colour: str = "#4c5f7a"

    def __repr__(self) -> str:
        return "\n".join(part for part in (self.title, self.body, self.code) if part)

    def _repr_html_(self) -> str:
        body = "".join(
            f'<div style="white-space:pre-wrap">{inline(line)}</div>'
            for line in self.body.split("\n")
            if self.body
        )
        code = code_block(self.code) if self.code else ""
        return (
            f'<div style="border-left:4px solid {self.colour};padding:.3em 1em;max-width:52em">'
            f"<b>{inline(self.title)}</b>{body}{code}</div>"
        )
