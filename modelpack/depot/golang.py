"""JSON as Go's encoder writes it: what Ollama keeps in layers, and answers."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from modelpack.documents.gojson import go_json, go_number


class Float32(float):
    """A number that has only 32 bits, and is written with as few digits."""


def encode(value: Any) -> bytes:
    """*value* as `json.Marshal` writes it; every mapping in its own order (sort what is a map in Go)."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return go_json(value)
    if isinstance(value, float):
        return number(value, single=isinstance(value, Float32)).encode()
    if isinstance(value, int):
        return str(value).encode()
    if isinstance(value, Mapping):
        return b"{" + b",".join(go_json(str(key)) + b":" + encode(item) for key, item in value.items()) + b"}"
    if isinstance(value, Sequence):
        return b"[" + b",".join(encode(item) for item in value) + b"]"
    raise TypeError(f"{type(value).__name__} is not JSON")


def decoded(value: Any) -> Any:
    """*value*, read from JSON, as Go holds it in an `any`: all numbers float64, maps sorted when written."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if isinstance(value, dict):
        return {key: decoded(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [decoded(item) for item in value]
    return value


def number(value: float, *, single: bool = False) -> str:
    """A float64, or float32 (*single*), with the fewest digits that say it.

    What JSON cannot say becomes null.
    """
    if not math.isfinite(value):
        return "null"
    return go_number(float(_shortest32(value) if single else value))


def _shortest32(value: float) -> str:
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if _as32(float(text)) == _as32(value):
            return text
    return repr(value)


def _as32(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return b""


def quoted(text: str) -> str:
    """*text* as `%q` writes it, nearly: in double quotes, what is special escaped."""
    inner = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else _escape(char) for char in inner) + '"'


def _escape(char: str) -> str:
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    return short or char.encode("unicode_escape", "surrogatepass").decode("ascii")
