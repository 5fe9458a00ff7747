"""An SVG of matplotlib in fewer bytes: a notebook that holds many pictures stays small."""

from __future__ import annotations

import re

#: What an SVG of matplotlib says at length, and the same in short.
SHORTER = (
    (r"^.*?(?=<svg)", ""),  # prolog
    (r"<!--.*?-->|<metadata>.*?</metadata>", ""),
    (r'<g id="[\w.]+">', "<g>"),  # names to which nothing refers
    (r"\bDejaVuSans-", "g"),  # glyphs
    (r' transform="translate\(([-\d.]+) 0\)"/>', r' x="\1"/>'),  # of glyphs in a row
    (r"\s*\n\s*", "\n"),
    (r"<defs>\n</defs>\n", ""),
    (r"(?<=[\d\w])\n(?=[A-Za-z\d])(?!\w+=)", " "),  # within a path
    (r"(?<=[:;,]) (?=[\w#])|(?<=[MLCQz]) (?=[-\d])", ""),
)
UNITS = 8  # of a letter's grid of 64 per point of its size in which its outline is written
LETTER = re.compile(r'(?<= )d="([^"]*)" transform="scale\(0\.015625\)"')
GROUP = re.compile(r"(<g\b[^>]*>|</g>)\n?")


def shortened(text: str) -> str:
    """Write an SVG of matplotlib in short; what is to be seen moves by less than 0.01 points.

    >>> shortened('<svg>\\n <g id="axes_1">\\n  <path d="M 0.1234 2.0 "/>\\n </g>\\n</svg>')
    '<svg>\\n<path d="M0.12 2 "/>\\n</svg>'
    """
    for pattern, shorter in SHORTER:
        text = re.sub(pattern, shorter, text, flags=re.DOTALL)
    text = LETTER.sub(_outline, without_bare_groups(text))
    return re.sub(r"(scale\([^)]*\))|-?\d+\.\d+", _rounded, text)


def _rounded(found: re.Match[str]) -> str:
    """Shorten a coordinate; factors of scale stay."""
    return found[1] or f"{float(found[0]):.2f}".rstrip("0").rstrip(".")


def without_bare_groups(text: str) -> str:
    """Leave out groups that hold nothing, or say nothing of what they hold.

    >>> without_bare_groups('<g>\\n<g x="1">\\n<g>\\n<use/>\\n<g x="2"/>\\n</g>\\n</g>\\n</g>\\n')
    '<g x="1">\\n<use/>\\n</g>\\n'
    """
    kept, says = [], []
    for part in GROUP.split(text):
        if part.startswith("<g") and part.endswith("/>"):
            continue
        if part == "<g>":
            says.append(False)
        elif part == "</g>":
            if says.pop():
                kept.append(f"{part}\n")
        elif part.startswith("<g "):
            says.append(True)
            kept.append(f"{part}\n")
        else:
            kept.append(part)
    return "".join(kept)


def _outline(found: re.Match[str]) -> str:
    """Write a letter's outline in whole steps, each from the point before.

    >>> LETTER.sub(_outline, '<path d="M80 16 L80 96 L8 160 z" transform="scale(0.015625)"/>')
    '<path d="M10 2v10l-9 8z" transform="scale(0.125)"/>'
    """
    parts = []
    here = (0, 0)
    for command, numbers in re.findall(r"([A-Za-z])([^A-Za-z]*)", found[1]):
        whole = [round(float(one) / UNITS) for one in numbers.split()]
        points = list(zip(whole[::2], whole[1::2], strict=True))
        if command not in "MLQCz":
            raise ValueError(f"a letter's outline has the command {command!r}")
        if command == "M":
            parts.append(f"M{_in_a_row(whole)}")
        elif command == "z":
            parts.append("z")
        else:
            steps = [(x - here[0], y - here[1]) for x, y in points]
            (x, y) = steps[-1]
            if command == "L" and 0 in (x, y):
                parts.append(f"h{x}" if y == 0 else f"v{y}")
            else:
                parts.append(command.lower() + _in_a_row([c for step in steps for c in step]))
        here = points[-1] if points else here
    return f'd="{"".join(parts)}" transform="scale({UNITS / 64})"'


def _in_a_row(numbers: list[int]) -> str:
    """Write whole numbers, a minus being separation enough.

    >>> _in_a_row([3, -4, 5])
    '3-4 5'
    """
    return " ".join(map(str, numbers)).replace(" -", "-")
