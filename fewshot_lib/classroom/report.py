"""Write what people read of the results: marks, feedback, Gradescope's file, the teacher's report.

Everything is made from ``results.jsonl`` alone and can be made again at any time. Students' words
are escaped, and the pages forbid scripts.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import jinja2

from fewshot_lib.classroom.results import current, read_rows
from fewshot_lib.exercises.diagnosis import FAILED, MISSING, PASSED

#: Pairs of submissions at least this alike are shown to the teacher.
ALIKE = 0.9
_UNSAFE = re.compile(r"[^\w.-]+")


def file_name(student: str) -> str:
    """Make a student's name a safe, unique file name.

    >>> file_name("../Zoë")
    'Zoë-8840d1'
    """
    safe = _UNSAFE.sub("-", student).strip(".-")[:60]
    if safe == student:
        return safe
    tag = hashlib.sha256(student.encode("utf-8", "replace")).hexdigest()[:6]
    return f"{safe}-{tag}" if safe else tag


def _number(points: float) -> str:
    return f"{points:g}"


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fewshot_lib.classroom"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = _number
    return environment


def write_all(folder: Path, prints: Mapping[tuple[str, str], frozenset[int]] | None = None) -> Path:
    """Write every file below a results folder.

    Arguments:
        folder: with ``results.jsonl`` and ``run.json``.
        prints: code fingerprints of submissions, for the comparison; see ``fingerprint``.

    Returns:
        The teacher's report.
    """
    rows = current(read_rows(folder / "results.jsonl"))
    settings = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    _write(folder / "grades.csv", grades_csv(rows))
    templates = _templates()
    page = templates.get_template("feedback.html.j2")
    for row in rows:
        answers: dict[str, list[dict[str, Any]]] = {}
        for check in row["checks"]:
            answers.setdefault(check["answer"], []).append(check)
        text = page.render(row=row, answers=answers.items(), isolation=settings["isolation"])
        student = file_name(row["student"])
        _write(folder / "feedback" / student / f"{row['exercise']}.html", text)
    by_student: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_student.setdefault(row["student"], []).append(row)
    for student, theirs in by_student.items():
        place = folder / "gradescope" / file_name(student) / "results.json"
        _write(place, json.dumps(gradescope(theirs), ensure_ascii=False, indent=1))
    report = templates.get_template("report.html.j2").render(
        rows=rows,
        students=len(by_student),
        seed=settings["seed"],
        isolation=settings["isolation"],
        troubled=[row for row in rows if row["status"] != "graded"],
        exercises=[
            _exercise(name, [row for row in rows if row["exercise"] == name])
            for name in sorted({row["exercise"] for row in rows})
        ],
        similar=similar(prints or {}),
    )
    return _write(folder / "report.html", report)


def _write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(file.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)
    return file


def _cell(text: str) -> str:
    # a spreadsheet would take these for a formula
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def grades_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write a table: a line a student, a column an exercise, and the sum."""
    names = sorted({row["exercise"] for row in rows})
    marks = {(row["student"], row["exercise"]): row["points"] for row in rows}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["student", *names, "total"])
    for student in sorted({row["student"] for row in rows}):
        theirs = [marks.get((student, name)) for name in names]
        total = sum(points for points in theirs if points is not None)
        written = ["" if points is None else _number(points) for points in theirs]
        writer.writerow([_cell(student), *written, _number(total)])
    return text.getvalue()


def gradescope(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make one student's results in the form that Gradescope's autograder reads."""
    return {
        "score": sum(row["points"] for row in rows),
        "output": "\n".join(note for row in rows for note in row["notes"]),
        "output_format": "text",
        "visibility": "visible",
        "tests": [
            {
                "name": f"{row['exercise']}: {check['id']}",
                "score": check["points"],
                "max_score": check["max_points"],
                "status": "passed" if check["status"] == PASSED else "failed",
                "output": check["message"],
                "output_format": "text",
            }
            for row in rows
            for check in row["checks"]
        ],
    }


def _exercise(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    points = [row["points"] for row in rows]
    highest = max(row["max_points"] for row in rows)
    counts: dict[str, Counter[str]] = {}
    mistakes: Counter[tuple[str, str]] = Counter()
    for row in rows:
        for check in row["checks"]:
            counts.setdefault(check["id"], Counter())[check["status"]] += 1
        named = {(check["answer"], check["mistake"]) for check in row["checks"] if check["mistake"]}
        mistakes.update(named)
    return {
        "name": name,
        "count": len(rows),
        "median": statistics.median(points),
        "max_points": highest,
        "bins": _bins(points, highest),
        "checks": [
            {
                "id": check,
                "passed": found[PASSED],
                "failed": found[FAILED],
                "missing": found[MISSING],
                "percent": round(100 * found[PASSED] / len(rows)),
            }
            for check, found in counts.items()
        ],
        "mistakes": [
            {"answer": answer, "name": mistake, "count": count}
            for (answer, mistake), count in mistakes.most_common()
        ],
        "slowest": sorted(rows, key=lambda row: -row["seconds"])[:5],
    }


def _bins(points: Sequence[float], highest: float, number: int = 8) -> list[dict[str, Any]]:
    """Count submissions with no points, with all, and in equal steps between."""
    step = highest / number if highest else 1.0
    labels = ["0"] + [
        f"over {_number(round(index * step, 2))}"
        + (f" to {_number(round((index + 1) * step, 2))}" if index < number - 1 else ", not all")
        for index in range(number)
    ]
    labels.append(f"all {_number(highest)}")
    counts = [0] * len(labels)
    for got in points:
        if got <= 0:
            counts[0] += 1
        elif got >= highest:
            counts[-1] += 1
        else:
            counts[1 + min(int(got / step - 1e-9), number - 1)] += 1
    most = max(counts) or 1
    return [
        {"label": label, "count": count, "percent": round(100 * count / most)}
        for label, count in zip(labels, counts, strict=True)
    ]


def fingerprint(sources: Mapping[str, str], stubs: Mapping[str, str]) -> frozenset[int]:
    """Take the fingerprint of answers: hashes of runs of tokens, without names, words and layout.

    Arguments:
        sources: answers as handed in.
        stubs: as handed out; runs of tokens that stand there do not count.
    """
    given = {run for source in stubs.values() for run in _runs(source)}
    return frozenset(run for source in sources.values() for run in _runs(source)) - given


def _runs(source: str, length: int = 8) -> set[int]:
    import keyword
    import tokenize

    kinds: list[str] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.NAME:
                kinds.append(token.string if keyword.iskeyword(token.string) else "name")
            elif token.type == tokenize.STRING:
                kinds.append("text")
            elif token.type in (tokenize.OP, tokenize.NUMBER):
                kinds.append(token.string)
    except (tokenize.TokenError, SyntaxError, ValueError):
        pass  # compare what could be read
    pieces = (" ".join(kinds[at : at + length]) for at in range(max(len(kinds) - length + 1, 0)))
    return {int(hashlib.blake2b(piece.encode(), digest_size=8).hexdigest(), 16) for piece in pieces}


def similar(
    prints: Mapping[tuple[str, str], frozenset[int]], least: float = ALIKE
) -> list[dict[str, Any]]:
    """Find pairs of students whose code is alike.

    Runs of tokens that a tenth of all submissions share are the typical answer and do not count.

    Arguments:
        prints: by (student, exercise), from ``fingerprint``.
        least: the share of common runs from which on a pair is named.
    """
    pairs = []
    for exercise in sorted({name for _, name in prints}):
        theirs = {student: runs for (student, name), runs in prints.items() if name == exercise}
        common = Counter(run for runs in theirs.values() for run in runs)
        usual = {run for run, count in common.items() if count > max(2, len(theirs) / 10)}
        rare = {student: runs - usual for student, runs in theirs.items()}
        rare = {student: runs for student, runs in rare.items() if len(runs) >= 12}
        for one, other in combinations(sorted(rare), 2):
            share = len(rare[one] & rare[other]) / len(rare[one] | rare[other])
            if share >= least:
                pairs.append({"exercise": exercise, "one": one, "other": other, "share": share})
    return sorted(pairs, key=lambda pair: -pair["share"])
