"""Numbers as Go's encoder writes them. What is expected here was seen of Go 1.26."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpack.documents.gojson import go_json, go_number, go_numbers, parse_object
from modelpack.errors import Corrupt

FLOATS = {
    "0": 0.0,
    "-0": -0.0,
    "1": 1.0,
    "-4096": -4096.0,
    "0.1": 0.1,
    "0.30000000000000004": 0.30000000000000004,
    "0.00001": 1e-05,
    "0.0000015": 1.5e-06,
    "0.000001": 1e-06,
    "9.99e-7": 9.99e-07,
    "1e-7": 1e-07,
    "-2.5e-10": -2.5e-10,
    "10000000000000000": 1e16,
    "12345678901234567000": 1.2345678901234567e19,
    "100000000000000000000": 1e20,
    "1e+21": 1e21,
    "1.5e+300": 1.5e300,
    "5e-324": 5e-324,
    "1.7976931348623157e+308": 1.7976931348623157e308,
}
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS.map(lambda value: value + 0.0) | st.text(),  # no -0.0
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(("text", "value"), FLOATS.items(), ids=FLOATS)
def test_floats_as_go_writes_them(text: str, value: float) -> None:
    assert go_number(value) == text
    assert go_json({"a": [value]}) == b'{"a":[%s]}' % text.encode()


@given(NUMBERS)
def test_a_float_comes_back(value: float) -> None:
    text = go_number(value)
    assert float(text) == value
    assert math.copysign(1, float(text)) == math.copysign(1, value)
    assert ("e" in text) == (value != 0 and not 1e-6 <= abs(value) < 1e21)
    assert not text.endswith(".0")
    assert "e-0" not in text


@given(JSON)
def test_all_else_stays_as_it_was(value: Any) -> None:
    """Strings that look like numbers, keys, booleans and ints are none of its business."""
    raw = go_json(value)
    back = json.loads(raw)
    assert go_json(back) == raw
    assert _kinds(back) == _kinds(value)


def _kinds(value: Any) -> Any:
    if isinstance(value, dict):
        return [_kinds(item) for item in value.values()]
    if isinstance(value, list):
        return [_kinds(item) for item in value]
    return "number" if isinstance(value, float | int) and not isinstance(value, bool) else type(value)


def test_numbers_in_strings_are_left_alone() -> None:
    text = {'1.0 "2.50\\': "1e-05, \\\\1.0", "é": "\\", "b": 1.0}
    assert go_json(text) == b'{"1.0 \\"2.50\\\\":"1e-05, \\\\\\\\1.0","\xc3\xa9":"\\\\","b":1}'


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_json_cannot_say_is_no_number(value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        go_json([value])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4096, "4096"),
        (2**53, "9007199254740992"),
        (2**53 + 1, "9007199254740992"),
        (2**63 - 1, "9223372036854776000"),
        (123456789012345678901, "123456789012345680000"),
        (-73993057775591909619, "-73993057775591920000"),
        (10**21, "1e+21"),
        (10**22 + 1, "1e+22"),
        ({"a": [True, None, "x", 0.5, 2**60]}, '{"a":[true,null,"x",0.5,1152921504606847000]}'),
    ],
)
def test_ints_as_ollama_reads_and_writes_them(value: Any, text: str) -> None:
    assert go_json(go_numbers(value)) == text.encode()


@given(st.integers(-(10**25), 10**25))
def test_ints_become_what_a_float64_holds(value: int) -> None:
    rounded = go_numbers(value)
    assert float(rounded) == float(value)
    assert go_numbers(rounded) == rounded
    assert go_json(rounded) == go_json(float(value))


def test_an_int_that_no_float64_reaches_is_refused() -> None:
    with pytest.raises(Corrupt):
        go_numbers({"num_ctx": 10**400})


def test_lists_and_objects_are_counted_before_they_are_made() -> None:
    raw = b'{"a":[[],{}]}'
    assert parse_object(raw, "x", containers=4) == {"a": [[], {}]}
    with pytest.raises(Corrupt, match="more than 3 lists and objects"):
        parse_object(raw, "x", containers=3)


def test_numbers_without_end_are_told_of_in_our_words() -> None:
    for raw in (b'{"a":%s}' % (b"1" * 5000), b'{"a":1e999}', b'{"a":NaN}'):
        with pytest.raises(Corrupt) as caught:
            parse_object(raw, "x")
        assert "sys." not in caught.value.what
        assert "is not JSON: " in caught.value.what
