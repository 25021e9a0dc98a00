"""What `modelpack inspect --metadata` and `--key` print."""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from modelpack.cli.inspect_models import fitting
from modelpack.cli.talk import counted
from modelpack.depot.golang import number
from modelpack.documents.gguf_header import Gguf, Skipped, Value
from modelpack.verbs.metadata import Metadata
from modelpack.words.text import visible

_LEAST, _KEY, _NAMES = 24, 48, 50
"""Characters: what a value gets at least, what a key is padded to at most, room for the models' names."""


def metadata_lines(headers: Sequence[Metadata], *, in_full: bool) -> Iterator[str]:
    """A line for each key: its type, and its value as far as the terminal is wide; or all of it."""
    for one in headers:
        gguf = one.header
        if not isinstance(gguf, Gguf) or (in_full and not one.keys):
            continue
        if one is not headers[0]:
            yield ""
        names = fitting([str(model.name) for model in one.models], _NAMES) if one.models else one.blob.title
        yield f"{names}: {gguf.role}, GGUF version {gguf.version}"
        longest = min(_KEY, max((len(key) for key in one.keys), default=0))
        for key in one.keys:
            kind, value = gguf.places[key].type, gguf.metadata[key]
            start = f"  {visible(key).ljust(longest)}  {kind.ljust(7)}  "
            if in_full:
                yield from _whole(start, value, kind)
            else:
                room = max(_LEAST, shutil.get_terminal_size().columns - len(start))
                yield start + _short(value, kind, room)
    if not headers:
        yield "no GGUF here"


def _short(value: Value, kind: str, room: int) -> str:
    if isinstance(value, tuple):
        text, tail = ", ".join(_text(item) for item in value), f", …] {len(value)} in all"
        return f"[{text}]" if len(text) + 2 <= room else f"[{text[: room - len(tail) - 1].rstrip(', ')}{tail}"
    if not isinstance(value, str):
        return _text(value, kind)
    text, tail = visible(value[: room + 1]), f"… ({len(value)} characters)"
    return text if len(text) <= room else text[: room - len(tail)] + tail


def _whole(start: str, value: Value, kind: str) -> Iterator[str]:
    if isinstance(value, tuple):
        yield f"{start}[{len(value)}]"
        for one in value:
            yield f"    {json.dumps(one, ensure_ascii=False) if isinstance(one, str) else _text(one)}"
    elif isinstance(value, str) and "\n" in value:
        yield f"{start}({len(value)} characters)"
        yield from (f"    {line}" for line in value.split("\n"))
    else:
        yield start + (value if isinstance(value, str) else _text(value, kind))


def _text(value: Value, kind: str = "") -> str:
    """A number with as few digits as say it; of an array nobody knows any more how long its floats were."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Skipped):
        return (
            f"[{counted(value.count, 'string') if value.type == 'string' else f'{value.count} {value.type}'}]"
        )
    if isinstance(value, float) and math.isfinite(value):
        return number(value, single=kind == "float32" or (not kind and _is_single(value)))
    return str(value)


def _is_single(value: float) -> bool:
    try:
        return bool(struct.unpack("<f", struct.pack("<f", value))[0] == value)
    except OverflowError:
        return False


def metadata_json(headers: Sequence[Metadata]) -> list[dict[str, Any]]:
    """A GGUF each: the keys asked for, with type and value; of an array that was not read, its count."""
    return [
        {
            "models": [model.name.full for model in one.models],
            "digest": str(one.blob.digest) if one.blob.digest is not None else None,
            "title": one.blob.title,
        }
        | (_gguf_json(one.header, one.keys) if isinstance(one.header, Gguf) else {"error": one.header.what})
        for one in headers
    ]


def _gguf_json(gguf: Gguf, keys: Sequence[str]) -> dict[str, Any]:
    return {
        "role": gguf.role,
        "version": gguf.version,
        "metadata": {key: _value_json(gguf.places[key].type, gguf.metadata[key]) for key in keys},
    }


def _value_json(kind: str, value: Value) -> dict[str, Any]:
    if isinstance(value, Skipped):
        return {"type": kind, "of": value.type, "count": value.count}
    if isinstance(value, tuple):
        return {"type": kind, "value": [_finite(one) for one in value]}
    return {"type": kind, "value": _finite(value)}


def _finite(value: Any) -> Any:
    """*value*, or its word where it is a number that JSON cannot say: `inf`, `-inf`, `nan`."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
