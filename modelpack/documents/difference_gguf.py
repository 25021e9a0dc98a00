"""In what the headers of two GGUFs differ: key by key, and tensor by tensor."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from modelpack.documents.difference import Change, blob_json
from modelpack.documents.difference_text import LONGEST, text_diff
from modelpack.documents.gguf_header import Gguf, Skipped
from modelpack.words.digest import Digest

Hash = Callable[[int, int], Digest | None]
"""The SHA-256 of the file's bytes from the first number up to the second; None where nobody kept them."""

_NAMED = 5  # tensors that are named, of those that differ
_DIFF_LINES = 12


@dataclass(frozen=True)
class Header:
    """Metadata as JSON has it; an array as `of` what it is, its `count`, the `digest` of its bytes.

    `types` of the values and `tensors` (their types and shapes) are None where a server *told* it: its JSON
    does not tell floats from integers, nor which keys it has left out.
    """

    file_type: str
    metadata: Mapping[str, Any]
    types: Mapping[str, str] | None = None
    tensors: Mapping[str, str] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, gguf: Gguf, digest: Hash) -> Header:
        """What *gguf* says; its arrays by what *digest* makes of their bytes."""
        values: dict[str, Any] = {}
        ends = dict(_ends(gguf))
        for key, value in gguf.metadata.items():
            if isinstance(value, Skipped | tuple):
                found = digest(gguf.places[key].offset, ends[key])
                values[key] = {
                    "of": value.type if isinstance(value, Skipped) else "number",
                    "count": value.count if isinstance(value, Skipped) else len(value),
                    "digest": str(found) if found is not None else None,
                }
            else:
                values[key] = _scalar(value)
        return cls(
            gguf.file_type,
            values,
            {key: place.type for key, place in gguf.places.items()},
            {one.name: f"{one.type_name} {list(one.shape)}" for one in gguf.tensors},
        )

    @classmethod
    def told(cls, value: Mapping[str, Any]) -> Header:
        """What a server says of a GGUF, by `model_info` or `projector_info`."""
        return cls("", value)


def _ends(gguf: Gguf) -> Iterator[tuple[str, int]]:
    """Where the value of each key ends: before the next one's length, name and type, or the tensors."""
    keys = list(gguf.places)
    for key, after in pairwise(keys):
        yield key, gguf.places[after].offset - 4 - len(after.encode("utf-8", "surrogateescape")) - 8
    if keys:
        yield keys[-1], gguf.tensors_offset


def _scalar(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def compare_headers(part: str, a: Header, b: Header) -> tuple[list[Change], list[str]]:
    """What differs between two GGUFs that are a model's *part*, and sentences on what nobody can tell."""
    changes: list[Change] = []
    unsure: list[str] = []
    told = (a.types is None) + (b.types is None)
    for key in sorted(a.metadata.keys() | b.metadata.keys()):
        ours, theirs = a.metadata.get(key), b.metadata.get(key)
        if told == 1 and (ours is None or theirs is None or isinstance(ours, dict | list)):
            continue  # a server leaves out names and long arrays, and adds a count of its own
        if told == 1 and not isinstance(theirs, dict | list):
            if not _like(ours, theirs):
                changes.append(_change(part, key, ours, theirs))
            continue
        kinds = [side.types.get(key) if side.types is not None else None for side in (a, b)]
        if ours == theirs and type(ours) is type(theirs) and kinds[0] == kinds[1]:
            if isinstance(ours, dict) and ours.get("digest", "") is None:
                unsure.append(f"the items of {key!r} in its {part}: it lies too deep in the file")
        elif told == 0 and kinds[0] != kinds[1] and key in a.metadata and key in b.metadata:
            before, after = (
                {"type": kind, "value": value} for kind, value in zip(kinds, (ours, theirs), strict=True)
            )
            changes.append(Change(f"{part} metadata", key, before, after))
        else:
            changes.append(_change(part, key, ours, theirs))
    if told:
        unsure.append(f"long arrays and tensors of its {part}, of which /api/show tells nothing")
    changes += _tensors(part, a.tensors, b.tensors)
    return changes, unsure


def _change(part: str, key: str, ours: Any, theirs: Any) -> Change:
    lines: tuple[str, ...] = ()
    if isinstance(ours, str) and isinstance(theirs, str) and max(len(ours), len(theirs)) > LONGEST:
        lines = text_diff(ours, theirs, _DIFF_LINES)
    return Change(f"{part} metadata", key, _short(ours), _short(theirs), lines)


def _short(value: Any) -> Any:
    """*value*, a long text by its digest and beginning."""
    if isinstance(value, str) and len(value) > LONGEST:
        raw = value.encode("utf-8", "surrogateescape")
        return blob_json(Digest.of(raw), len(raw), begins=value[:80])
    return value


def _like(ours: Any, theirs: Any) -> bool:
    """Whether a value of a file is what a server says of it: JSON has a float32 with fewer digits."""
    if isinstance(ours, bool) or isinstance(theirs, bool) or isinstance(ours, str):
        return bool(ours == theirs)
    try:
        return struct.pack("<f", ours) == struct.pack("<f", theirs) or bool(ours == theirs)
    except (OverflowError, struct.error):
        return bool(ours == theirs)


def _tensors(part: str, a: Mapping[str, str] | None, b: Mapping[str, str] | None) -> Iterator[Change]:
    """The tables of tensors: how many differ, and the first few of them."""
    if a is None or b is None:
        return
    names = [name for name in a.keys() | b.keys() if a.get(name) != b.get(name)]
    if names:
        shown = sorted(names)[:_NAMED]
        yield Change(
            f"{part} tensors",
            before={name: a.get(name) for name in shown},
            after={name: b.get(name) for name in shown},
            lines=tuple(f"{name}: {a.get(name) or '-'} → {b.get(name) or '-'}" for name in shown),
            note=f"{len(names)} of {max(len(a), len(b))} differ in type or shape, or are on one side alone",
        )
    elif list(a) != list(b):
        yield Change(f"{part} tensors", note="their order")
