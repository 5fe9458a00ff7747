"""Expected and returned values: near enough, or the first stage at which they differ."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fewshot_lib.checker.compare import KIND, NAN, NUMBERS, SHAPE, VALUES, as_array, difference
from fewshot_lib.checker.spec import Tolerance
from fewshot_lib.checker.values import Opaque

NEAR = Tolerance()
floats = hnp.arrays(
    np.float64, hnp.array_shapes(max_dims=3, max_side=4), elements=st.floats(-1e6, 1e6)
)


def stage(expected, got, **more):
    found = difference(expected, got, NEAR, **more)
    return found.stage if found else None


@settings(max_examples=100, deadline=None)
@given(floats)
def test_a_value_equals_itself_in_every_form(array):
    for got in (array, array.tolist(), array.astype(np.float32), tuple(array.tolist())):
        assert difference(array, got, Tolerance(rtol=1e-3, atol=1e-3)) is None


@settings(max_examples=100, deadline=None)
@given(floats, st.data())
def test_one_changed_number_is_found(array, data):
    changed = array.copy()
    place = data.draw(st.integers(0, array.size - 1))
    changed.flat[place] += 1 + abs(changed.flat[place])
    assert stage(array, changed) == VALUES


@pytest.mark.parametrize(
    ("expected", "got", "where"),
    [
        (np.zeros(3), "text", KIND),
        (np.zeros(3), None, KIND),
        (np.zeros(3), Opaque("thing"), KIND),
        (np.zeros(3), [1, [2, 3]], KIND),
        (np.zeros(3), {"a": 1}, KIND),
        (np.zeros(3), np.zeros((3, 1)), SHAPE),
        (np.zeros(3), 0.0, SHAPE),
        (np.zeros(3), [], SHAPE),
        (np.zeros(3), np.zeros(3, dtype=int), NUMBERS),
        (np.zeros(3, dtype=int), np.zeros(3), NUMBERS),
        (np.zeros(3, dtype=bool), np.zeros(3, dtype=int), NUMBERS),
        (np.zeros(3), np.zeros(3, dtype=complex), NUMBERS),
        (np.zeros(3), np.full(3, np.nan), NAN),
        (np.array([np.nan, 1]), np.array([0.0, 1]), VALUES),
        (np.array([np.nan, 1]), np.array([np.nan, 1]), None),
        (np.array([-np.inf, 1]), np.array([-np.inf, 1]), None),
        (np.array([-np.inf, 1]), np.array([np.inf, 1]), VALUES),
        (np.array([-np.inf, 1]), np.array([-1e9, 1]), VALUES),
        (np.array([0.0, 1]), np.array([np.inf, 1]), VALUES),
        (np.array([1, 2]), np.array([1, 3]), VALUES),
        (np.array([True]), np.array([False]), VALUES),
        (1.0, 1, None),
        (1.0, np.ones(()), None),
        (3, 3.0, NUMBERS),
        (3, 4, VALUES),
        (True, 1, NUMBERS),
        ("a", " a ", None),
        ("a", "b", VALUES),
        (None, None, None),
        (None, 1, KIND),
        ((1.0, "a"), (1.0, "a"), None),
        ((1.0, "a"), [1.0, "b"], VALUES),
        ((1.0, "a"), 1.0, KIND),
        ((1.0, "a"), (1.0,), KIND),
        ({"x": 1.0, "y": 2.0}, {"y": 2.0, "x": 1.0}, None),
        ({"x": 1.0, "y": 2.0}, (1.0, 2.0), None),
        ({"x": 1.0, "y": 2.0}, {"x": 1.0}, KIND),
        (np.zeros(0), [], None),
    ],
)
def test_each_difference_is_found_at_its_stage(expected, got, where):
    assert stage(expected, got) == where


def test_the_earliest_stage_of_several_parts_is_told_with_its_name():
    expected = (np.zeros(2), np.zeros(3), "x")
    found = difference(expected, (np.ones(2), np.zeros(4), "x"), NEAR, names=("a", "b", "c"))
    assert (found.stage, found.part) == (SHAPE, "b")
    assert "«b»" in found.sentence


def test_equally_shaped_parts_with_names_are_told_apart_by_them():
    expected = (np.zeros(2), np.zeros(2))
    found = difference(expected, (np.zeros(2), np.ones(2)), NEAR, names=("mean", "spread"))
    assert found.part == "spread"


def test_without_values_only_kind_shape_type_and_nan_count():
    assert stage(np.zeros(3), np.ones(3), values=False) is None
    assert stage(np.zeros(3), np.full(3, np.nan), values=False) == NAN


@pytest.mark.parametrize(
    ("expected", "got", "says"),
    [
        ((2, 5), (5, 2), "exchanged"),
        ((2, 5), (2, 1, 5), "length 1 is left over"),
        ((2, 5), (), "over everything"),
        ((3, 2, 5), (2, 5), "axis 0 (length 3) is lost"),
        ((2, 5), (2, 6), "look at axis 1"),
    ],
)
def test_a_shape_is_told_with_its_likely_reason(expected, got, says):
    assert says in difference(np.zeros(expected), np.zeros(got), NEAR).sentence


def test_no_sentence_holds_an_expected_number():
    found = difference(np.array([123.456]), np.array([7.89]), NEAR)
    assert "123" not in found.sentence
    assert "7.89" not in found.sentence


def test_an_array_is_read_from_lists_of_arrays_but_not_from_ragged_ones():
    assert as_array([np.zeros(2), np.ones(2)]).shape == (2, 2)
    assert as_array([np.zeros(2), np.ones(3)]) is None
    assert as_array(["a"]) is None
