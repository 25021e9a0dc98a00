"""The parameters that a Modelfile may set: their types, and the texts that stand for a value.

Facts: api/types.go (Options, Runner, FormatParams), parser/parser.go (deprecatedParameters) of Ollama v0.33,
whose parameters are those of v0.24 and `draft_num_predict`; strconv of Go.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from modelpack.documents.gojson import go_number


class Kind(StrEnum):
    """What a parameter's value is, in words: an int64, a float32, a bool, or a list, a line for each item."""

    INT = "an integer"
    FLOAT = "a number"
    BOOL = "true or false"
    LIST = "a list of strings"


_INTS = (
    "num_keep", "seed", "num_predict", "top_k", "repeat_last_n", "num_ctx", "num_batch", "num_gpu",
    "main_gpu", "num_thread", "draft_num_predict",
)  # fmt: skip
_FLOATS = (
    "top_p", "min_p", "typical_p", "temperature", "repeat_penalty", "presence_penalty", "frequency_penalty",
)  # fmt: skip
PARAMETERS: Mapping[str, Kind] = MappingProxyType(
    dict.fromkeys(_INTS, Kind.INT)
    | dict.fromkeys(_FLOATS, Kind.FLOAT)
    | {"use_mmap": Kind.BOOL, "stop": Kind.LIST}
)
"""Every parameter that Ollama knows."""
DEPRECATED = frozenset({
    "penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock", "mirostat",
    "mirostat_tau", "mirostat_eta",
})  # fmt: skip
"""What were parameters once: Ollama warns, and drops them, whatever their value."""

_BOOLS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)
_INTEGER = re.compile(r"[+-]?[0-9]+")
_D, _H = r"[0-9](?:_?[0-9])*", r"[0-9a-f](?:_?[0-9a-f])*"
_DECIMAL = re.compile(rf"([+-]?)(?=\.?[0-9])({_D})?(?:\.({_D})?)?(?:e([+-]?{_D}))?")
_HEXADECIMAL = re.compile(rf"([+-]?)0x(?=_?\.?[0-9a-f])(?:_?({_H}))?(?:\.({_H})?)?p([+-]?{_D})")
_LONGEST = 800
"""Characters of a number. Go has no limit, but no number needs as many."""


def parse_parameter(name: str, text: str) -> int | float | bool | str:
    """The value of parameter *name* that *text* stands for; of a list, the one item.

    Raises ValueError, with the reason in words, where the name is not known or *text* is no such value. Texts
    of numbers are Go's: underscores between digits and hexadecimal with an exponent where they are floats,
    neither where they are integers, white space nowhere. `inf` and `nan` are numbers to Ollama until it sends
    them; here they are none. A float is a float32, as the float64 that has the same digits: 0.1 is 0.1.
    """
    kind = PARAMETERS.get(name)
    if kind is None:
        known = ", ".join(sorted(PARAMETERS))
        raise ValueError(f"{name[:80]!r} is not a parameter; those that Ollama knows are {known}")
    if kind is Kind.LIST:
        return text
    value: int | float | bool | None
    if kind is Kind.BOOL:
        value = _BOOLS.get(text)
    elif len(text) > _LONGEST:
        value = None
    else:
        value = _int64(text) if kind is Kind.INT else _float32(text)
    if value is None:
        raise ValueError(f"{name} is {kind}, which {text[:80]!r} is not")
    return value


def parameter_texts(name: str, value: Any) -> tuple[str, ...]:
    """The texts that say *value* of parameter *name*, one for each PARAMETER line.

    Raises ValueError, with the reason in words, where no text does: the name is not known (any more), the
    value has another type, or more digits than Ollama keeps.
    """
    if name not in PARAMETERS:
        known = "no longer" if name in DEPRECATED else "not"
        raise ValueError(f"{name[:80]!r} is {known} a parameter that a Modelfile can set")
    items = [value]
    if PARAMETERS[name] is Kind.LIST:
        items = value if isinstance(value, list) else []
    texts = tuple(_text(item) for item in items)
    try:
        said = bool(texts) and all(
            _same(item, parse_parameter(name, text)) for item, text in zip(items, texts, strict=True)
        )
    except ValueError:
        said = False
    if not said:
        raise ValueError(
            f"{name} is {PARAMETERS[name]}, and a Modelfile cannot make it {_text(value)[:80]!r}"
        )
    return texts


def _same(value: Any, read: object) -> bool:
    # True is 1 in Python, and "1" is true in Go: the types have to agree as well.
    numbers = {type(value), type(read)} <= {int, float}
    return bool(value == read) and (numbers or type(value) is type(read))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isfinite(value):
        return go_number(value)
    return str(value)


def _int64(text: str) -> int | None:
    # Source: strconv.ParseInt with base 10.
    value = int(text) if _INTEGER.fullmatch(text) else None
    return value if value is not None and -(1 << 63) <= value < 1 << 63 else None


def _float32(text: str) -> float | None:
    # Source: strconv.ParseFloat with 32 bits, which is an error beyond the largest.
    text = text.lower()
    base, radix, bits = 10, 10, 1
    found = _DECIMAL.fullmatch(text)
    if found is None:
        base, radix, bits = 16, 2, 4
        found = _HEXADECIMAL.fullmatch(text)
    if found is None:
        return None
    sign, whole, part, power = ((each or "").replace("_", "") for each in found.groups())
    # So short a text is 0 or too large whatever stands beyond: no need to compute with more.
    shift = max(-5000, min(5000, int(power or "0"))) - bits * len(part)
    single = _nearest32(int(whole + part, base) * Fraction(radix) ** shift)
    short = _shortest32(single) if single is not None else None
    return -short if short is not None and sign == "-" else short


def _nearest32(exact: Fraction) -> float | None:
    """The float32 nearest to *exact*, which is not negative, ties to even; None beyond the largest."""
    power = exact.numerator.bit_length() - exact.denominator.bit_length()
    if exact < Fraction(2) ** power:
        power -= 1
    unit = Fraction(2) ** (max(power, -126) - 23)
    nearest = round(exact / unit) * unit
    return float(nearest) if nearest < 1 << 128 else None


def _shortest32(single: float) -> float:
    """The number with the fewest digits that is read as the float32 *single*; the nearer of two, or the even.

    As Go has it, save 2⁻¹², where Go writes 0.00024414063.
    """
    exact, top = Fraction(single), Decimal(single).adjusted()
    for digits in range(1, 10):
        unit = Fraction(10) ** (top - digits + 1)
        below = exact // unit * unit
        fits = [each for each in (below, below + unit) if _nearest32(each) == single]
        if fits:
            off = min(abs(each - exact) for each in fits)
            nearest = [each for each in fits if abs(each - exact) == off]
            return float(next((each for each in nearest if each / unit % 2 == 0), nearest[0]))
    raise AssertionError("unreachable: nine digits tell any float32 from the others")
