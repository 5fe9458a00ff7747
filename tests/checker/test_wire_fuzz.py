"""Thousands of messages and results that nobody meant: read or refused, judged, in bounded time."""

from __future__ import annotations

import contextlib
import json
import random
import struct
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fewshot_lib.checker import catalogue
from fewshot_lib.checker.compare import MAX_DESCRIPTION, describe
from fewshot_lib.checker.judge import expected_results, judge
from fewshot_lib.checker.run import LOST, STATUSES, VALUE, Outcome
from fewshot_lib.checker.spec import Answer, Exercise
from fewshot_lib.checker.values import (
    DTYPES,
    LIMITS,
    MAX_KEY,
    Limits,
    NotPlain,
    Opaque,
    pack,
    plain,
    unpack,
)

#: What the grader reads replies with.
REPLY = Limits(max_bytes=64 * 2**20, max_items=50_000, max_depth=12)
SECONDS = 2.0

fuzz = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
ANSWERS = [
    pytest.param(exercise, answer, id=f"{exercise.stem}-{answer.name}")
    for exercise in catalogue.exercises()
    for answer in exercise.answers
]

ODD = [
    np.full(shape, number).astype(name)
    for name in sorted(DTYPES)
    for shape in [(), (0,), (1,), (2,), (3,), (2, 3), (0, 3), (3, 0, 2), (1,) * 5]
    for number in (0, 1)
]
ODD += [np.full(shape, number) for shape in [(), (2,), (2, 3)] for number in (np.nan, -np.inf)]
leaves = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 2**63, -(2**63), 2**64 - 1, 10**400])
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(max_size=10)
    | st.sampled_from([Opaque(""), Opaque("x" * 300), "x" * 300])
    | st.sampled_from(ODD)
)
keys = st.text(max_size=3) | st.just("k" * 250)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=6,
)
sent = values.map(plain)  # what pack takes


def outcomes_of(value: Any) -> dict[str, Any]:
    return {"answer": "dice", "outcomes": [Outcome(VALUE, value, seconds=0.1).as_dict()] * 2}


def read(raw: bytes, limits: Limits = REPLY) -> Any:
    """Give what was read, or None if it was refused; anything else raised fails the test."""
    begun = time.process_time()
    came, said = None, ""
    try:
        came = unpack(raw, limits)
    except NotPlain as refused:
        said = str(refused)
    assert time.process_time() - begun < SECONDS
    assert len(said) < 300
    return came


def message(tree: Any, announced: Any = (), tail: bytes = b"") -> bytes:
    body = json.dumps({"value": tree, "arrays": announced}).encode()
    return b"FSV1" + struct.pack("<Q", len(body)) + body + tail


@settings(fuzz, max_examples=500)
@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_are_read_or_refused(raw: bytes, begins_well: bool) -> None:
    read(raw)
    if begins_well:
        read(b"FSV1" + struct.pack("<Q", max(len(raw) - 8, 0)) + raw)


def damaged(raw: bytes, other: bytes, chance: random.Random) -> bytes:
    """Flip, cut, insert, splice and repeat a few bytes of a message."""
    made = bytearray(raw)
    for _ in range(chance.randint(1, 5)):
        place, length = chance.randrange(len(made) + 1), chance.randint(1, 30)
        match chance.choice(["flip", "cut", "insert", "token", "splice", "repeat", "end"]):
            case "flip" if place < len(made):
                made[place] ^= 1 << chance.randrange(8)
            case "cut":
                del made[place : place + length]
            case "insert":
                made[place:place] = chance.randbytes(length)
            case "token":
                made[place:place] = chance.choice(TOKENS)
            case "splice":
                begin = chance.randrange(len(other))
                made[place:place] = other[begin : begin + 2 * length]
            case "repeat":
                made[place:place] = made[max(0, place - length) : place]
            case "end":
                del made[max(place, 12) :]
    if chance.random() < 0.7 and len(made) >= 12:  # the announced length as it should be
        end = made.rfind(b"]}") + 2
        made[4:12] = struct.pack("<Q", max(end - 12, 0))
    return bytes(made)


TOKENS = [
    *(b"[", b"]", b"{", b"}", b",", b":", b'"', b"null", b"1e999", b"NaN", b"-1", b"99999999999"),
    *(b'{"array":0}', b'{"tensor":0}', b'{"opaque":[]}', b'{"tuple":[]}', b'["float64",[0]],'),
]


@settings(fuzz, max_examples=300)
@given(sent, sent, st.integers(0, 2**32))
def test_a_damaged_message_is_read_or_refused(value: Any, other: Any, seed: int) -> None:
    raw, second = pack(outcomes_of(value)), pack(outcomes_of(other))
    chance = random.Random(seed)
    for _ in range(10):
        came = read(damaged(raw, second, chance))
        if came is not None:
            pack(came)
            Outcome.from_dict(came)


kinds = st.sampled_from(
    [
        *("int", "float", "complex", "array", "tensor", "tuple", "dict", "seed", "fixture"),
        *("opaque", "class", "", "value", "\ud800"),
    ]
)
bodies = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([2**62, 2**63, 10**30, 1e308, float("nan"), float("inf")])
    | st.text(max_size=12)
    | st.sampled_from(["0x1p0", "nan", "-inf", "9" * 19, "9" * 5000, "1_0", " 7 ", "0x1p99999"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(kinds, inner, max_size=2),
    max_leaves=4,
)
node = st.dictionaries(kinds, bodies, min_size=1, max_size=1)
trees = st.recursive(
    node | bodies,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.builds(lambda parts: {"tuple": parts}, st.lists(inner, max_size=4))
        | st.builds(
            lambda parts: {"dict": parts},
            st.lists(st.tuples(st.text(max_size=300) | bodies, inner), max_size=4),
        )
        | st.builds(lambda name, part: {"fixture": [name, part]}, st.text(max_size=5), inner)
    ),
    max_leaves=6,
)
shapes = st.lists(
    st.integers(0, 3) | st.sampled_from([-1, 2**31, 2**62, 2**63, 10**30, 1e308, True, "3", None]),
    max_size=20,
)
announcements = st.lists(
    st.tuples(st.sampled_from(sorted(DTYPES)) | bodies, shapes | bodies) | bodies, max_size=4
)


@settings(fuzz, max_examples=500)
@given(trees, announcements | bodies, st.binary(max_size=64))
def test_a_forged_tree_is_read_or_refused(tree: Any, announced: Any, tail: bytes) -> None:
    came = read(message(tree, announced, tail))
    if came is not None:
        pack(came)
        Outcome.from_dict(came)
        Outcome.from_dict({"status": VALUE, "value": came})
        assert len(describe(came)) <= MAX_DESCRIPTION


def nested(begin: str, end: str, depth: int, inside: str = "null") -> bytes:
    body = f'{{"value":{begin * depth}{inside}{end * depth},"arrays":[]}}'.encode()
    return b"FSV1" + struct.pack("<Q", len(body)) + body


FULL = 4 * 2**20 - 64  # characters that a header may have
WORST: dict[str, Callable[[], bytes]] = {
    "lists, 900 deep": lambda: nested("[", "]", 900),
    "lists, 2 million deep": lambda: nested("[", "]", FULL // 2),
    "tuples, 900 deep": lambda: nested('{"tuple":[', "]}", 900),
    "tuples, 300,000 deep": lambda: nested('{"tuple":[', "]}", FULL // 12 - 10),
    "an opaque body of lists": lambda: nested('{"tuple":[', "]}", 8, nest_opaque(980)),
    "an opaque body, 300,000 deep": lambda: message({"opaque": 0})[:-1] + b"[" * 300_000,
    "empty lists": lambda: message([[]] * (FULL // 4)),
    "empty lists, as many as allowed": lambda: message([[]] * 49_000),
    "empty lists in tuples": lambda: message([{"tuple": []}] * 49_000),
    "lists that are too many by their brackets": lambda: message([[[]] * 10] * 30_000),
    "empty dicts": lambda: message([{}] * (FULL // 4)),
    "small dicts": lambda: message([{"": 0}] * (FULL // 9)),
    "nulls": lambda: message([None] * (FULL // 6)),
    "nulls, as many as allowed": lambda: message([None] * 49_000),
    "a dict of many keys": lambda: message({"dict": [[str(n), None] for n in range(49_000)]}),
    "one key, many times": lambda: message({"dict": [["k", None]] * 49_000}),
    "one long key": lambda: message({"dict": [["k" * (FULL - 200), None]]}),
    "JSON's own keys, many times": lambda: doubled(FULL // 12),
    "a long text": lambda: message("x" * FULL),
    "a text of escapes": lambda: message("\ud800" * (FULL // 6 - 10)),
    "one int of 4 million digits": lambda: raw_header(b"9" * FULL),
    "ints of 4,000 digits": lambda: raw_header(b"[" + b",".join([b"9" * 4000] * 1000) + b"]"),
    "a digit too many": lambda: message({"int": "9" * (FULL - 200)}),
    "a float of many digits": lambda: message({"float": "0x1." + "f" * (FULL - 200)}),
    "a shape of 6,000 axes": lambda: message({"array": 0}, [["uint8", [1e308] * 6000]]),
    "a shape of 10,000 ints": lambda: message({"array": 0}, [["uint8", [10**300] * 10_000]]),
    "a shape of ones": lambda: message({"array": 0}, [["uint8", [1] * 1_000_000]], b"1"),
    "100,000 arrays": lambda: message(None, [["bool", [0]]] * 100_000),
    "49,000 arrays": lambda: message(
        [{"array": n} for n in range(49_000)], [["uint8", [1]]] * 49_000, b"1" * 49_000
    ),
    "one array, 49,000 times": lambda: message([{"array": 0}] * 49_000, [["uint8", [1]]], b"1"),
    "an array of all bytes": lambda: message(
        {"array": 0}, [["bool", [63 * 2**20]]], bytes(63 * 2**20)
    ),
    "more bytes than are read": lambda: bytes(64 * 2**20 + 1),
    "a header of all bytes": lambda: b"FSV1" + struct.pack("<Q", 60 * 2**20) + bytes(60 * 2**20),
    "a header of 2**64 bytes": lambda: b"FSV1" + b"\xff" * 8 + b"{}",
}


def nest_opaque(depth: int) -> str:
    return f'{{"opaque":{"[" * depth}{"]" * depth}}}'


def raw_header(tree: bytes) -> bytes:
    body = b'{"value":' + tree[: FULL - 10] + b',"arrays":[]}'
    return b"FSV1" + struct.pack("<Q", len(body)) + body


def doubled(count: int) -> bytes:
    return raw_header(b"{" + b",".join([b'"int":"1"'] * count) + b"}")


@pytest.mark.parametrize("name", WORST)
def test_the_worst_message_below_the_limits_is_read_or_refused_at_once(name: str) -> None:
    raw = WORST[name]()
    came = read(raw)
    if came is not None:
        begun = time.process_time()
        Outcome.from_dict({"status": VALUE, "value": came})
        assert time.process_time() - begun < SECONDS


@pytest.mark.parametrize("name", ["empty dicts", "small dicts", "nulls"])
def test_reading_takes_memory_in_proportion_to_the_limits(name: str) -> None:
    raw = WORST[name]()
    tracemalloc.start()
    try:
        with contextlib.suppress(NotPlain):
            unpack(raw, REPLY)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 400 * 2**20


def test_a_message_is_read_or_refused_far_down_the_stack_too() -> None:
    raw = pack(((((1.0, [np.zeros(2)]),),),))

    def descend() -> int:
        try:
            return descend() + 1
        except RecursionError:
            return 0

    def at(depth: int) -> Any:
        return at(depth - 1) if depth else read_quietly(raw)

    for short in range(12, 60, 3):
        at(descend() - short)


def read_quietly(raw: bytes) -> Any:
    try:
        return unpack(raw, REPLY)
    except NotPlain:
        return None


fields = st.sampled_from(
    [
        *("status", "value", "error", "message", "where", "seconds", "printed", "printed_chars"),
        "changed_input",
    ]
)


@settings(fuzz, max_examples=500)
@given(
    values
    | st.dictionaries(fields, values, max_size=3)
    | st.builds(
        lambda status, value, field, other: {"status": status, "value": value, field: other},
        st.sampled_from(STATUSES),
        values,
        fields,
        values,
    )
)
def test_whatever_comes_as_an_outcome_is_one_or_lost(data: Any) -> None:
    outcome = Outcome.from_dict(data)
    assert outcome.status in STATUSES
    assert all(type(name) is str and len(name) <= 80 for name in outcome.error)
    assert max(map(len, (outcome.message, outcome.where, outcome.printed))) <= 2_000
    assert 0 <= outcome.seconds <= 1e6
    assert type(outcome.changed_input) is bool
    assert outcome.value is None or outcome.status == VALUE
    again = Outcome.from_dict(unpack(pack(outcome.as_dict())))
    assert repr(again) == repr(outcome)


@pytest.mark.parametrize(
    "status",
    [np.zeros(2), np.array("value"), {"a": 1}, ["value"], ("value",), 1, None, "values", True],
)
def test_a_status_that_is_none_of_the_known_texts_is_lost(status: Any) -> None:
    assert Outcome.from_dict({"status": status, "value": 1.0}).status == LOST


def test_keys_and_descriptions_stay_short() -> None:
    long = {"k" * 240_000 + str(n): 0 for n in range(10)}
    made = plain(long)
    assert max(map(len, made)) == MAX_KEY
    for value in (long, made, Opaque("x" * 10_000), np.zeros((1,) * 64), Opaque("")):
        assert len(describe(value)) <= MAX_DESCRIPTION
    came = unpack(message({"dict": [["k" * 100_000, None]]}), LIMITS)
    assert list(came) == ["k" * MAX_KEY]


def strange(value: Any) -> st.SearchStrategy[Any]:
    """Draw values of an expected one's build and shape, with numbers that nobody computes."""
    if isinstance(value, tuple):
        return st.tuples(*map(strange, value))
    if isinstance(value, str):
        return st.text(max_size=20)
    array = np.asarray(value)
    filled = hnp.arrays(array.dtype, array.shape, fill=hnp.from_dtype(array.dtype))
    return filled | st.sampled_from(sorted(DTYPES)).map(lambda name: np.ones(array.shape, name))


#: No answer's result has any of these forms.
of_no_form = (
    st.none()
    | st.builds(Opaque, st.text(max_size=20))
    | st.dictionaries(st.text(max_size=3).map("not a name ".__add__), values, max_size=4)
    | hnp.arrays(np.float32, (2, 2, 2, 2, 2, 2))
    | st.lists(st.text(max_size=4), min_size=5, max_size=6)
)


@pytest.mark.parametrize(("exercise", "answer"), ANSWERS)
@settings(fuzz, max_examples=5)
@given(data=st.data())
def test_garbage_gets_a_verdict_in_time_and_never_full_marks(
    exercise: Exercise, answer: Answer, data: st.DataObject
) -> None:
    expected = [outcome for group in expected_results(answer, 3).expected for outcome in group]
    first = next(one.value for one in expected if one.status == VALUE)
    garbage = data.draw(st.lists(values | strange(first), min_size=1, max_size=6))
    outcomes = [Outcome(VALUE, garbage[n % len(garbage)]) for n in range(len(expected))]
    begun = time.process_time()
    verdict = judge(exercise, answer, outcomes, 3)
    assert time.process_time() - begun < 10
    assert verdict.points < verdict.max_points
    for line in verdict.checks:
        assert len(line.sentence) < 1_200
        assert "could not be judged" not in line.sentence
    assert not any("No typical mistake was looked for" in note for note in verdict.notes)


@pytest.mark.parametrize(("exercise", "answer"), ANSWERS)
@settings(fuzz, max_examples=3)
@given(garbage=st.lists(of_no_form, min_size=1, max_size=5))
def test_what_has_no_form_of_a_result_has_no_points(
    exercise: Exercise, answer: Answer, garbage: list[Any]
) -> None:
    count = len(expected_results(answer, 3).flat)
    outcomes = [Outcome(VALUE, garbage[n % len(garbage)]) for n in range(count)]
    assert judge(exercise, answer, outcomes, 3).points == 0
