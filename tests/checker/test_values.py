"""Plain values cross as bytes and back; whatever else comes is refused, never run.

Random and damaged bytes are in ``test_wire_fuzz.py``.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import pickle
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fewshot_lib.checker.compare import describe
from fewshot_lib.checker.values import (
    DTYPES,
    Fixture,
    Limits,
    NotPlain,
    Opaque,
    Seed,
    pack,
    plain,
    revive,
    unpack,
)

arrays = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: hnp.arrays(DTYPES[name], hnp.array_shapes(min_dims=0, max_dims=4, max_side=4))
)
numbers = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.complex_numbers(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
plain_values = st.recursive(
    numbers | arrays,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)


def equal(one, other) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    return one == other or (one != one and other != other)


@settings(max_examples=150, deadline=None)
@given(plain_values)
def test_what_is_packed_is_unpacked_bit_for_bit(value):
    assert equal(unpack(pack(value)), value)


@settings(max_examples=50, deadline=None)
@given(plain_values)
def test_plain_leaves_plain_values_as_they_are_and_shares_no_memory(value):
    made = plain(value)
    assert equal(made, value)
    if isinstance(value, np.ndarray) and value.size:
        assert not np.shares_memory(made, value)


def header(tree, announced=(), tail=b"") -> bytes:
    body = json.dumps({"value": tree, "arrays": list(announced)}).encode()
    return b"FSV1" + struct.pack("<Q", len(body)) + body + tail


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        pickle.dumps(1),
        b"FSV1" + struct.pack("<Q", 2**62) + b"{}",
        header({"array": 0}),
        header({"array": 0}, [["float64", [2**40]]]),
        header({"array": 0}, [["float64", [2]]], b"\0" * 15),
        header({"array": 0}, [["float64", [2]]], b"\0" * 17),
        header({"array": 0}, [["object", [1]]], b"\0" * 8),
        header({"array": 0}, [["float64", [-1]]]),
        header({"array": -1}, [["float64", [1]]], b"\0" * 8),
        header({"array": True}, [["float64", [1]]], b"\0" * 8),
        header({"array": 0}, [["bool", [1]]], b"\2"),
        header({"int": "9" * 5000}),
        header({"int": 3}),
        header({"int": "9" * 20}),
        header({"tuple": [{"array": 0}] * 2}, [["uint8", [1]]], b"1"),
        header({"float": "__import__"}),
        header({"class": "os.system"}),
        header({"int": "1", "float": "0x1p0"}),
        header(3),
        header({"dict": [["a"]]}),
        header({"fixture": 3}),
        header(eval("[" * 30 + "]" * 30)),
        header([None] * 30_000),
        header(None, [["float64", [0]]] * 30_000),
        header(None)[:-3],
        b"FSV1" + struct.pack("<Q", 100_000) + b"[" * 100_000,
        header({"array": 0}, [["float32", [0, 10**30]]]),
        header({"array": 0}, [["float32", [0, 2**62]]]),
        header({"array": 0}, [["float32", [0, 2**40, 2**40]]]),
        header({"array": 0}, [["float32", [float("inf")]]]),
        header({"array": 0}, [["float32", [float("nan")]]]),
        header("x" * (4 * 2**20)),
    ],
)
def test_a_forged_message_is_refused(raw):
    with pytest.raises(NotPlain):
        unpack(raw)


def test_half_a_character_becomes_one_that_a_file_can_hold():
    for text in ("\ud800", {"\udfff": 1}, Opaque("\ud900")):
        str(unpack(pack(text))).encode("utf-8")


def test_messages_over_the_limit_are_refused_before_they_are_read():
    with pytest.raises(NotPlain, match="at most"):
        unpack(pack(np.zeros(1000)), Limits(max_bytes=100))


def test_tensors_seeds_and_fixtures_cross_as_what_they_are():
    raw = pack((torch.arange(3), Seed(2**60), Fixture("net", {"width": 3, "w": torch.ones(2)})))
    tensor, seed, fixture = unpack(raw)
    assert torch.equal(tensor, torch.arange(3))
    assert seed == Seed(2**60)
    assert fixture.name == "net"
    assert torch.equal(fixture.settings["w"], torch.ones(2))
    assert revive(seed).initial_seed() == 2**60


def test_what_cannot_cross_is_refused_by_name():
    with pytest.raises(NotPlain, match="function"):
        pack(len.__class__ and (lambda: 1))
    with pytest.raises(NotPlain, match="bfloat16"):
        pack(torch.ones(2, dtype=torch.bfloat16))


def test_an_unknown_fixture_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match="no fixture 'nothing'"):
        revive(Fixture("nothing"))


Pair = collections.namedtuple("Pair", "first second")


@dataclasses.dataclass
class Result:
    score: torch.Tensor
    name: str


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.ones(2, requires_grad=True) * 2, np.full(2, 2, np.float32)),
        (torch.ones(2, dtype=torch.bfloat16), np.ones(2, np.float32)),
        (torch.eye(2).to_sparse(), np.eye(2, dtype=np.float32)),
        (torch.ones(3, 2).T, np.ones((2, 3), np.float32)),
        (np.float64(2.5), 2.5),
        (np.bool_(True), True),
        (np.ma.masked_array([1.0, 2.0], [False, True]), np.array([1.0, 2.0])),
        ({3, 1, 2}, (1, 2, 3)),
        (Pair(1, 2), {"first": 1, "second": 2}),
        (Result(torch.zeros(1), "a"), {"score": np.zeros(1, np.float32), "name": "a"}),
        ({1: 2}, {"1": 2}),
    ],
)
def test_results_of_many_kinds_become_plain(value, expected):
    assert equal(plain(value), expected)


@pytest.mark.parametrize(
    "value",
    [
        object(), len, type, b"bytes", (i for i in range(3)), 2**70, iter([]), range(3),
        np.array(["a"]), np.array([None]), torch.empty(2, device="meta"), {1, "a"},
    ],
)  # fmt: skip
def test_what_is_not_plain_is_named_and_not_touched(value):
    assert isinstance(plain(value), Opaque)
    assert describe(plain(value)).startswith("a")


def test_a_circle_and_a_heap_of_parts_are_not_followed_for_ever():
    circle: list = []
    circle.append(circle)
    assert isinstance(plain(circle), Opaque)
    assert isinstance(plain([[0] * 1000] * 1000), Opaque)
    assert isinstance(plain([np.zeros(10**6)] * 20), Opaque)


def test_revived_arguments_can_be_spoilt_without_harm():
    original = (torch.ones(2), [np.ones(2)], {"a": torch.ones(1)})
    made = revive(original)
    made[0].zero_()
    made[1][0][:] = 0
    made[2]["a"].zero_()
    assert original[0].sum() == 2
    assert original[1][0].sum() == 2
    assert original[2]["a"].sum() == 1
