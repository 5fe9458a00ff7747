"""Count, for the teacher's report, what an exercise's rows say about its answers and checks."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fewshot_lib.checker.judge import FAILED, MISSING, PASSED
from fewshot_lib.grader.marks import by_answer, number


def analyse(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise the current rows of one exercise.

    Arguments:
        name: of the exercise.
        rows: one per student.

    Returns:
        Distribution, median and share of points, per answer and per check, the typical mistakes
        with the rows that made them, and the slowest rows.
    """
    points = [row["points"] for row in rows]
    highest = max(row["max_points"] for row in rows)
    return {
        "name": name,
        "count": len(rows),
        "median": statistics.median(points),
        "max_points": highest,
        "bins": bins(points, highest),
        "answers": _answers(rows),
        "checks": _checks(rows),
        "mistakes": _mistakes(rows),
        "slowest": sorted(rows, key=lambda row: -row["seconds"])[:5],
    }


def _answers(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    got: dict[str, list[float]] = {}
    most: dict[str, float] = {}
    for row in rows:
        for answer, (points, highest) in by_answer(row["checks"]).items():
            got.setdefault(answer, []).append(points)
            most[answer] = max(most.get(answer, 0.0), highest)
    return [
        {
            "name": answer,
            "median": statistics.median(points),
            "max_points": most[answer],
            "percent": round(100 * statistics.fmean(points) / (most[answer] or 1)),
        }
        for answer, points in got.items()
    ]


def _checks(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    counts: dict[str, Counter[str]] = {}
    shares: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for check in row["checks"]:
            counts.setdefault(check["id"], Counter())[check["status"]] += 1
            rest = row["points"] - check["points"]
            shares.setdefault(check["id"], []).append((float(check["status"] == PASSED), rest))
    return [
        {
            "id": check,
            "passed": found[PASSED],
            "failed": found[FAILED],
            "missing": found[MISSING],
            "percent": round(100 * found[PASSED] / len(rows)),
            "discrimination": discrimination(shares[check]),
        }
        for check, found in counts.items()
    ]


def discrimination(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Correlate passing a check with the points for everything else (point-biserial).

    Arguments:
        pairs: per student 1 or 0 for the check, and the points of all other checks.

    Returns:
        −1 to 1; None where nothing varies.

    >>> discrimination([(1, 5), (1, 4), (0, 1), (0, 0)])
    0.97
    """
    passed, rest = zip(*pairs, strict=True) if pairs else ((), ())
    if len(set(passed)) < 2 or len(set(rest)) < 2:
        return None
    return round(statistics.correlation(passed, rest), 2)


def _mistakes(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    made: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        for named in sorted(
            {(check["answer"], check["mistake"]) for check in row["checks"] if check["mistake"]}
        ):
            made.setdefault(named, []).append(row)
    return [
        {"answer": answer, "name": mistake, "rows": found}
        for (answer, mistake), found in sorted(made.items(), key=lambda pair: -len(pair[1]))
    ]


def bins(points: Sequence[float], highest: float, count: int = 8) -> list[dict[str, Any]]:
    """Count submissions with no points, with all, and in equal steps between."""
    step = highest / count if highest else 1.0
    labels = ["0"] + [
        f"over {number(index * step)}"
        + (f" to {number((index + 1) * step)}" if index < count - 1 else ", not all")
        for index in range(count)
    ]
    labels.append(f"all {number(highest)}")
    counts = [0] * len(labels)
    for got in points:
        if got <= 0:
            counts[0] += 1
        elif got >= highest:
            counts[-1] += 1
        else:
            counts[1 + min(int(got / step - 1e-9), count - 1)] += 1
    most = max(counts) or 1
    return [
        {"label": label, "count": count, "percent": round(100 * count / most)}
        for label, count in zip(labels, counts, strict=True)
    ]
