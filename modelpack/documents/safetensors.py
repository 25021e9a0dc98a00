"""The header of a safetensors file: names, types, shapes and places of its tensors, all of it doubted.

Format: README.md and safetensors/src/tensor.rs of huggingface/safetensors. Eight bytes, little-endian, say
how long the header is; it is a JSON object; the tensors' data follow, without hole or overlap, to the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeGuard

from modelpack.documents.gguf_cursor import CUT, Cursor
from modelpack.documents.gguf_magic import FIRST, not_gguf
from modelpack.documents.gojson import parse_object
from modelpack.errors import Corrupt, ModelpackError, Unsupported
from modelpack.words.reader import Reader

HEADER_MOST = 25_000_000
"""Bytes of the longest header, and of the longest index, that is read: some 170,000 tensors. Hugging Face's
own tools read no longer one (huggingface_hub, constants.SAFETENSORS_MAX_HEADER_LENGTH)."""

_FORMAT_MOST = 100_000_000  # safetensors/src/tensor.rs, MAX_HEADER_SIZE
_MARKS_MOST = 2_000_000  # a tensor has about ten; what they open costs Python up to thirty times the text
_COUNT_MOST = (1 << 63) - 1
# Bits of an element: safetensors/src/tensor.rs, Dtype.
_BITS = (
    dict.fromkeys(("BOOL", "U8", "I8"), 8)
    | dict.fromkeys(("F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8)
    | dict.fromkeys(("I16", "U16", "F16", "BF16"), 16)
    | dict.fromkeys(("I32", "U32", "F32"), 32)
    | dict.fromkeys(("I64", "U64", "F64", "C64"), 64)
    | {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its data are the bytes from `begin` up to `end`, counted from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """How many numbers it has; a scalar, of no dimension, has one."""
        count = 1
        for length in self.shape:
            count *= length
        return count


@dataclass(frozen=True, slots=True)
class Safetensors:
    """What a header says: the tensors in the order of their data, and free words about the file."""

    tensors: tuple[Tensor, ...]
    metadata: Mapping[str, str]

    @property
    def parameter_count(self) -> int:
        """Elements of all tensors; fewer than the model has where weights are packed into larger integers."""
        return sum(tensor.elements for tensor in self.tensors)


def read_safetensors(reader: Reader, size: int, where: object = "") -> Safetensors:
    """The header of a file of *size* bytes that *reader* gives from its start; reads little beyond it.

    *where* is named in errors: Corrupt (not safetensors, damaged, cut: the last tensor must end where the
    file does), Unsupported (another format, a header beyond HEADER_MOST), and what *reader* raises. A dtype
    that is not known is kept, and its size not checked.
    """
    cursor = Cursor(reader, size, where)
    head = cursor.peek(FIRST)
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or length > _FORMAT_MOST:
        raise unlike("a safetensors file", head, size, where)
    cursor.skip(8, "the length of its header")
    cursor.demand(length, "its header")
    if length > HEADER_MOST:
        what = f"has a header of {length} bytes; modelpack reads at most {HEADER_MOST}"
        raise Unsupported(what, where=where, advice="Save the model in more than one file.")
    raw = cursor.take(length, "its header")
    try:
        header = _object(raw)
    except Corrupt as error:
        raise cursor.corrupt(f"its header {error.what}") from None
    metadata = header.pop("__metadata__", None)
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(one, str) for one in metadata.values()):
        raise cursor.corrupt("its __metadata__ is not an object of texts")
    tensors = sorted(
        (_tensor(cursor, name, entry) for name, entry in header.items()), key=lambda one: (one.begin, one.end)
    )
    _check_places(cursor, tensors, 8 + length)
    return Safetensors(tuple(tensors), MappingProxyType(metadata))


def shards_of(index: bytes, where: object) -> frozenset[str]:
    """The file names that *index*, the bytes of a `model.safetensors.index.json`, names; raises Corrupt.

    They are a stranger's words: to be looked up among names that are there, never opened.
    """
    try:
        named = _object(index).get("weight_map")
    except Corrupt as error:
        raise Corrupt(error.what, where=where, advice=error.advice) from None
    if not isinstance(named, dict) or not all(isinstance(one, str) for one in named.values()):
        raise Corrupt("its 'weight_map' is missing, or does not name a file for each tensor", where=where)
    return frozenset(named.values())


def unlike(wanted: str, head: bytes, size: int, where: object) -> ModelpackError:
    """The error for a file of *size* bytes that should be *wanted* and, by its first FIRST bytes, is not."""
    if head.startswith(b"GGUF"):
        return Unsupported(f"is a GGUF, not {wanted}", where=where, advice="Name it *.gguf.")
    if head.startswith(b"PK\x03\x04"):
        advice = "Get the model as safetensors or GGUF."
        return Unsupported(
            f"is a zip archive or PyTorch checkpoint, not {wanted}", where=where, advice=advice
        )
    found = not_gguf(head, size, where)
    if "GGUF" not in found.what:
        return found
    what = f"does not begin as {wanted} does, but with {head[:9].hex(' ')}"
    return Corrupt(what, where=where, advice=CUT)


def _object(raw: bytes) -> dict[str, Any]:
    marks = sum(raw.count(mark) for mark in (b",", b"[", b"{"))
    if marks > _MARKS_MOST:
        raise Corrupt(f"has {marks} elements; no real one has more than {_MARKS_MOST}")
    return parse_object(raw, "", HEADER_MOST)


def _tensor(cursor: Cursor, name: str, entry: Any) -> Tensor:
    what = f"tensor {name[:100]!r}"
    if not isinstance(entry, dict):
        raise cursor.corrupt(f"{what} is not described by an object")
    dtype, shape, places = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str):
        raise cursor.corrupt(f"{what} has no dtype")
    if not _is_counts(shape) or not _is_counts(places) or len(places) != 2:
        raise cursor.corrupt(f"{what} lacks a shape or two data_offsets that can be")
    begin, end = places
    if begin > end:
        raise cursor.corrupt(f"{what} ends at {end}, before it begins at {begin}")
    elements = 1
    for length in shape:  # stopped early: a product of many long numbers takes for ever
        elements *= length
        if elements > _COUNT_MOST:
            raise cursor.corrupt(f"{what} has more elements than can be")
    bits = _BITS.get(dtype)
    if bits is not None and elements * bits != 8 * (end - begin):
        raise cursor.corrupt(f"{what} has {elements} elements of {dtype}, but {end - begin} bytes")
    return Tensor(name, dtype, tuple(shape), begin, end)


def _is_counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(one) is int and 0 <= one <= _COUNT_MOST for one in value)


def _check_places(cursor: Cursor, tensors: list[Tensor], data: int) -> None:
    """Raise Corrupt unless *tensors*, in order, fill the file from byte *data* to its end."""
    at = 0
    for tensor in tensors:
        if tensor.begin != at:
            what = "overlaps the one before it" if tensor.begin < at else "leaves a hole before it"
            raise cursor.corrupt(
                f"tensor {tensor.name[:100]!r} begins at {tensor.begin}, not {at}: it {what}"
            )
        at = tensor.end
    left = cursor.size - data - at
    if left < 0:
        what = f"has {cursor.size} bytes, but its tensors end at byte {data + at}: {-left} are missing"
        raise cursor.corrupt(what, CUT)
    if left:
        raise cursor.corrupt(f"goes on for {left} bytes after its last tensor")
