"""JSON in and out: bounded reading of what others wrote, and the one form in which Go writes it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from modelpack.errors import Corrupt
from modelpack.words.blob import SMALL

# encoding/json's HTMLEscape is on by default, and Ollama leaves it on.
_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_STRING_OR_NUMBER = re.compile(r'"(?:[^"\\]++|\\.)*+"|-?[0-9][0-9.e+-]*+')
_DEEPEST = 100
"""Real documents are nested four or five deep."""


def go_json(value: Any) -> bytes:
    """*value* as Go's `json.Marshal` writes it: compact, keys in the given order, no newline at the end.

    A float is written as Go's float64, an int with all its digits (see `go_numbers`). Sorting the keys of
    what was a map in Go is up to the caller.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = _STRING_OR_NUMBER.sub(_number_as_go, text)
    # Go writes what UTF-8 cannot hold as the escape of U+FFFD (seen on 0.33).
    return _SURROGATE.sub(r"\\ufffd", text.translate(_ESCAPES)).encode()


def _number_as_go(found: re.Match[str]) -> str:
    token = found[0]
    if token[0] == '"' or not ("." in token or "e" in token):
        return token
    return go_number(float(token))


def go_number(value: float) -> str:
    """A finite float64 with the fewest digits that say it, and an exponent below 1e-6 and from 1e21 on.

    Source: floatEncoder in Go's encoding/json.
    """
    if value == 0 or 1e-6 <= abs(value) < 1e21:
        return f"{Decimal(repr(value)):f}".removesuffix(".0")
    mantissa, _, exponent = repr(value).partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent):+d}"


def go_numbers(value: Any) -> Any:
    """*value*, read from JSON, after Ollama has read it too: its numbers are float64 then, and round.

    Ints stay ints below 10²¹, from where on Go writes an exponent, and get the digits that Go writes:
    9223372036854775807 becomes 9223372036854776000. Raises Corrupt for an int that no float64 reaches.
    """
    if isinstance(value, dict):
        return {key: go_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [go_numbers(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    try:
        text = go_number(float(value))
    except OverflowError:
        raise Corrupt(f"holds a number of {value.bit_length()} bits, more than Ollama reads") from None
    return float(text) if "e" in text else int(text)


def canonical_json(value: Any) -> bytes:
    """*value* as modelpack's own documents have it: sorted keys, compact, ASCII, one line."""
    return (json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n").encode()


class _NoNumber(ValueError):
    """A number of ours to refuse, in words of ours."""


def _no_constant(text: str) -> Any:
    raise _NoNumber(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _NoNumber(f"{text[:20]} is no number that JSON's readers know")
    return value


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


def _below(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def parse_object(
    raw: bytes, where: object, limit: int = SMALL, *, containers: int | None = None
) -> dict[str, Any]:
    """The JSON object in *raw*; raises Corrupt where it is none, too large, or nested to no end.

    Nor may it have more than that many *containers*, which are lists and objects: each takes many times its
    two bytes of memory. Brackets in strings count, too.
    """
    if containers is not None and len(raw) <= limit and raw.count(b"{") + raw.count(b"[") > containers:
        raise Corrupt(f"holds more than {containers} lists and objects; no real one does", where=where)
    value = parse_value(raw, where, limit)
    if not isinstance(value, dict):
        raise Corrupt("is not a JSON object", where=where)
    return value


def parse_value(raw: bytes, where: object, limit: int = SMALL) -> Any:
    """The JSON value in *raw*; raises Corrupt as `parse_object` does."""
    if len(raw) > limit:
        raise Corrupt(f"is {len(raw)} bytes long; no real one has more than {limit}", where=where)
    try:
        text = raw.decode("utf-8")
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"is not JSON: {_reason(error)[:200]}", where=where) from None
    if text.count("[") + text.count("{") < _DEEPEST:
        return value
    level = [value]
    for _ in range(_DEEPEST):
        level = [one for above in level for one in _below(above)]
        if not level:
            return value
    raise Corrupt(f"is nested more than {_DEEPEST} deep; no real one is", where=where)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if type(error) is ValueError:  # of int(), which tells Python's programmers what to call
        return "a number in it has thousands of digits"
    return str(error)


def text_of(value: dict[str, Any], key: str, where: object, default: str | None = None) -> str:
    """The string at *key*, else *default*; raises Corrupt where there is neither, or something else."""
    found = value.get(key, default)
    if not isinstance(found, str):
        raise Corrupt(f"its {key!r} is missing or not a string", where=where)
    return found


def size_of(value: dict[str, Any], where: object) -> int:
    """The `size` of a descriptor: bytes, from 0 to 2⁶²; raises Corrupt otherwise."""
    found = value.get("size")
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= 1 << 62:
        raise Corrupt("its size is not a count of bytes", where=where)
    return found


def list_of(value: dict[str, Any], key: str, where: object, most: int = 100_000) -> list[dict[str, Any]]:
    """The list of objects at *key* (none where it is missing or null); raises Corrupt otherwise."""
    found = value.get(key) or []
    if not isinstance(found, list) or len(found) > most or not all(isinstance(item, dict) for item in found):
        raise Corrupt(f"its {key!r} is not a list of at most {most} objects", where=where)
    return found
