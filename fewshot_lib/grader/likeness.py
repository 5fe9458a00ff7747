"""Find submissions whose code is alike, in groups; a reason for a person to look, not a verdict.

What is compared are runs of tokens without names, texts, comments and layout. A run counts by how
few have it: what the whole class writes says nothing, what two of many write says much.
"""

from __future__ import annotations

import hashlib
import io
import keyword
import tokenize
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import log
from typing import Any

#: Submissions at least this alike are put into one group: the weighted share of common runs.
ALIKE = 0.9
#: What two submissions share must weigh as much as this many runs of tokens that they alone have.
LEAST_SHARED = 12
_LENGTH = 8


@dataclass(frozen=True)
class Group:
    """Submissions of one exercise that are alike.

    Arguments:
        exercise: of which.
        students: sorted.
        share: how alike the least alike pair is that holds the group together, 0 to 1.
    """

    exercise: str
    students: tuple[str, ...]
    share: float


def fingerprint(sources: Mapping[str, str], stubs: Mapping[str, str]) -> frozenset[int]:
    """Take the fingerprint of answers: hashes of runs of tokens.

    Arguments:
        sources: answers as handed in.
        stubs: as handed out; runs of tokens that stand there do not count.
    """
    given = {run for source in stubs.values() for run in _runs(source)}
    return frozenset(run for source in sources.values() for run in _runs(source)) - given


def _runs(source: str) -> set[int]:
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
        pass  # what could be read is compared; an answer may be cut off or be no Python
    pieces = (" ".join(kinds[at : at + _LENGTH]) for at in range(max(len(kinds) - _LENGTH + 1, 0)))
    return {int(hashlib.blake2b(piece.encode(), digest_size=8).hexdigest(), 16) for piece in pieces}


def groups(prints: Mapping[tuple[str, str], frozenset[int]]) -> list[Group]:
    """Find groups of students whose code is alike: each is alike with at least one other of it.

    Arguments:
        prints: by (student, exercise), from ``fingerprint``.

    Returns:
        The most alike first.
    """
    found: list[Group] = []
    for exercise in sorted({name for _, name in prints}):
        prints_of = {student: runs for (student, name), runs in prints.items() if name == exercise}
        found += _groups(exercise, prints_of)
    return sorted(found, key=lambda group: (-group.share, group.exercise, group.students))


def _groups(exercise: str, prints: Mapping[str, frozenset[int]]) -> Iterable[Group]:
    # identical ones are compared as one, so that a class that shares an answer costs no time
    same: dict[frozenset[int], list[str]] = {}
    for student in sorted(prints):
        same.setdefault(prints[student], []).append(student)
    common = Counter(run for runs in prints.values() for run in runs)
    every = len(prints) + 1
    weight = {run: log(every / count) / log(every) for run, count in common.items() if every > 1}
    total = {runs: sum(weight[run] for run in runs) for runs in same}
    order = sorted(same, key=lambda runs: (total[runs], same[runs]))
    parent = {runs: runs for runs in order}
    held: dict[frozenset[int], float] = {}

    def root(runs: frozenset[int]) -> frozenset[int]:
        while parent[runs] != runs:
            runs = parent[runs]
        return runs

    links = []
    for at, one in enumerate(order):
        if len(same[one]) > 1 and total[one] >= LEAST_SHARED * _alone(every):
            links.append((1.0, one, one))
        for other in order[at + 1 :]:
            if total[one] < ALIKE * total[other]:
                break  # all that follow weigh more still: they cannot be as alike as asked
            shared = sum(weight[run] for run in one & other)
            share = shared / (total[one] + total[other] - shared) if shared else 0.0
            if share >= ALIKE and shared >= LEAST_SHARED * _alone(every):
                links.append((share, one, other))
    for share, one, other in sorted(links, key=lambda link: -link[0]):
        one, other = root(one), root(other)
        parent[other] = one
        held[one] = share
    members: dict[frozenset[int], list[str]] = {}
    for runs in order:
        members.setdefault(root(runs), []).extend(same[runs])
    for runs, share in held.items():
        if runs == root(runs):
            yield Group(exercise, tuple(sorted(members[runs])), share)


def _alone(every: int) -> float:
    """Give the weight of a run that two of the class have."""
    return max(log(every / 2) / log(every), 0.2)


def side_by_side(
    group: Group, code: Mapping[tuple[str, str], Mapping[str, str]], most: int = 6
) -> list[dict[str, Any]]:
    """Put the code of a group's members beside each other, answer by answer.

    Arguments:
        group: of students.
        code: answers' sources by (student, exercise).
        most: how many are shown.

    Returns:
        For each answer its name and the sources, in the order of the group's students.
    """
    shown = [(student, group.exercise) for student in group.students[:most]]
    names = dict.fromkeys(name for key in shown for name in code.get(key, {}))
    return [
        {"answer": name, "sources": [code.get(key, {}).get(name, "") for key in shown]}
        for name in names
    ]
