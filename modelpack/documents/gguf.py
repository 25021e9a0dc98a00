"""The header of a GGUF: metadata and the table of tensors, every length in it doubted.

Format: docs/gguf.md in ggml-org/ggml, and what ggml/src/gguf.cpp (llama.cpp b10488) and fs/ggml/gguf.go
(Ollama v0.33) accept of it; where they are stricter than the document, so is this.
"""

from __future__ import annotations

import math
import struct
import sys
from types import MappingProxyType

from modelpack.documents.gguf_cursor import CUT, Cursor
from modelpack.documents.gguf_header import Gguf, Place, Skipped, Split, Tensor, Value
from modelpack.documents.gguf_magic import FIRST, not_gguf
from modelpack.documents.gguf_types import ARRAY, SCALARS, STRING, TENSOR_TYPES, VALUE_TYPES
from modelpack.errors import Unsupported
from modelpack.words.blob import KIB, MIB
from modelpack.words.reader import Reader

__all__ = ["Gguf", "Place", "Skipped", "Split", "Tensor", "Value", "read_gguf"]

KEY_MOST = 64 * KIB - 1  # docs/gguf.md; tensor names are shorter still
TEXT_MOST = 16 * MIB  # fs/gguf/gguf.go, MaxStringLength
SHORT = 1024
"""Arrays of numbers up to this many are kept unasked: one for each layer, and the like."""
MEMORY, MEMORY_WITH_ARRAYS = 64 * MIB, 512 * MIB
"""What a parsed header may take, about."""

_LEAST_PAIR = 8 + 4 + 1  # no name, type, one byte
_LEAST_TENSOR = 8 + 4 + 4 + 8  # no name, no dimension
_DIMENSIONS = 4
_REPEATED = "Both cannot be meant; llama.cpp refuses such a file too. Get it again, or another conversion."


def read_gguf(reader: Reader, size: int, *, arrays: bool = False, where: object = "") -> Gguf:
    """The header of a file of *size* bytes that *reader* gives from its start; reads little beyond it.

    Arrays of strings, and of more than SHORT numbers, are `Skipped` unless *arrays* asks for them.
    *where* is named in errors: Corrupt (not a GGUF, damaged, cut: the last tensor must end in the file),
    Unsupported (a version, byte order or kind of file that cannot be read), and what *reader* raises.
    """
    cursor = Cursor(reader, size, where)
    head = cursor.peek(FIRST)
    if head[:4] != b"GGUF":
        raise not_gguf(head, size, where)
    cursor.skip(4, "its magic")
    version = _version(cursor)
    tensor_count = cursor.uint64("its number of tensors")
    pair_count = cursor.uint64("its number of metadata keys")
    cursor.demand(pair_count * _LEAST_PAIR, f"metadata of {pair_count} keys")
    cursor.demand(tensor_count * _LEAST_TENSOR, f"a table of {tensor_count} tensors")
    parser = _Parser(cursor, arrays)
    parser.metadata(pair_count)
    tensors_offset = cursor.at
    alignment = parser.alignment()
    tensors = parser.tensors(tensor_count, alignment)
    # Without tensors a file may end right here, unpadded: vocabularies do.
    data_offset = -(-cursor.at // alignment) * alignment
    end = max((data_offset + tensor.offset + (tensor.size or 0) for tensor in tensors), default=cursor.at)
    if end > size:
        what = f"has {size} bytes, but its tensors end at byte {end}: {end - size} are missing"
        raise cursor.corrupt(what, CUT)
    return Gguf(
        version=version,
        size=size,
        metadata=MappingProxyType(parser.values),
        places=MappingProxyType(parser.places),
        tensors=tensors,
        alignment=alignment,
        tensors_offset=tensors_offset,
        data_offset=data_offset,
        end=end,
        end_checked=all(tensor.size is not None for tensor in tensors),
        split=parser.split(),
    )


def _version(cursor: Cursor) -> int:
    version = cursor.uint32("its version")
    if version in (2, 3):
        return version
    where = cursor.where
    if version == 1:
        advice = "llama.cpp reads it no longer: get a newer conversion of the model."
        raise Unsupported("is a GGUF of version 1 (of 2023)", where=where, advice=advice)
    if int.from_bytes(version.to_bytes(4, "little"), "big") in (1, 2, 3):
        advice = "Get the little-endian one, or turn it round with gguf-py's gguf-convert-endian."
        raise Unsupported("is a big-endian GGUF", where=where, advice=advice)
    if version == 0:
        raise cursor.corrupt("says that it is a GGUF of version 0, which never was")
    raise Unsupported(
        f"is a GGUF of version {version}; this modelpack knows 2 and 3",
        where=where,
        advice="See whether there is a newer modelpack.",
    )


class _Parser:
    def __init__(self, cursor: Cursor, arrays: bool) -> None:
        self.values: dict[str, Value] = {}
        self.places: dict[str, Place] = {}
        self._cursor = cursor
        self._arrays = arrays
        self._memory = MEMORY_WITH_ARRAYS if arrays else MEMORY

    def metadata(self, count: int) -> None:
        cursor = self._cursor
        for index in range(count):
            key = cursor.text(KEY_MOST, f"metadata key {index}")
            what = f"metadata {key[:100]!r}"
            if not key:
                raise cursor.corrupt(f"has an empty metadata key, number {index}")
            if key in self.values:
                raise cursor.corrupt(f"has {what} twice", _REPEATED)
            kind = self._type_of(cursor.uint32(f"the type of {what}"), what)
            self.places[key] = Place(VALUE_TYPES[kind], cursor.at)
            self.values[key] = value = self._value(kind, what)
            self._spend(sys.getsizeof(key) + sys.getsizeof(value) + 300)

    def alignment(self) -> int:
        place = self.places.get("general.alignment")
        if place is None:
            return 32
        value = self.values["general.alignment"]
        # Ollama takes any uint32 but 0 and passes over other types; llama.cpp refuses all but these.
        if place.type != "uint32" or not isinstance(value, int) or value.bit_count() != 1:
            what = f"has the alignment {value!r:.50} ({place.type}), which is no power of two in a uint32"
            raise self._cursor.corrupt(what)
        return value

    def split(self) -> Split | None:
        count = self._split_number("count")
        if count is None or not 1 < count < 1 << 16:  # 0 after a merge; 16 bits are all that Ollama looks at
            return None
        no = self._split_number("no")
        if no is None or not 0 <= no < count:
            raise self._cursor.corrupt(f"is one of {count} shards, but does not say rightly which: {no}")
        return Split(no, count, self._split_number("tensors.count"))

    def tensors(self, count: int, alignment: int) -> tuple[Tensor, ...]:
        seen: dict[str, Tensor] = {}
        for index in range(count):
            tensor = self._tensor(index, alignment)
            if tensor.name in seen:
                raise self._cursor.corrupt(f"has tensor {tensor.name[:100]!r} twice", _REPEATED)
            seen[tensor.name] = tensor
            self._spend(sys.getsizeof(tensor.name) + 400)
        return tuple(seen.values())

    def _tensor(self, index: int, alignment: int) -> Tensor:
        cursor = self._cursor
        name = cursor.text(KEY_MOST, f"the name of tensor {index}")
        what = f"tensor {name[:100]!r}"
        dimensions = cursor.uint32(what)
        if dimensions > _DIMENSIONS:
            raise cursor.corrupt(f"{what} has {dimensions} dimensions; ggml has at most {_DIMENSIONS}")
        rest = cursor.take(8 * dimensions + 12, what)
        *shape, kind, offset = struct.unpack(f"<{dimensions}QIQ", rest)
        elements = math.prod(shape)
        if max(elements, *shape, 0) >= 1 << 63:
            raise cursor.corrupt(f"{what} has the shape {shape}, more elements than can be")
        known = TENSOR_TYPES.get(kind)
        if known is not None and (shape[0] if shape else 1) % known.block:
            what += f" has rows that are no multiple of {known.block}, as {known.name} needs"
            raise cursor.corrupt(what)
        if offset % alignment:
            raise cursor.corrupt(f"{what} lies at {offset}, which is no multiple of {alignment}")
        size = elements // known.block * known.size if known is not None else None
        return Tensor(name, tuple(shape), kind, offset, size)

    def _split_number(self, key: str) -> int | None:
        # Ollama's own writer puts the architecture before keys that it does not know (ggufWriteKV).
        for full in (f"split.{key}", f"{self.values.get('general.architecture')}.split.{key}"):
            value = self.values.get(full)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        return None

    def _type_of(self, kind: int, what: str) -> int:
        if kind not in VALUE_TYPES:
            raise self._cursor.corrupt(f"{what} is of type {kind}, which GGUF does not have")
        return kind

    def _value(self, kind: int, what: str) -> Value:
        if kind == STRING:
            return self._cursor.text(TEXT_MOST, what)
        if kind == ARRAY:
            return self._array(what)
        form = SCALARS[kind]
        value: bool | int | float = form.unpack(self._cursor.take(form.size, what))[0]
        return value

    def _array(self, what: str) -> Value:
        cursor = self._cursor
        kind = self._type_of(cursor.uint32(f"the type of {what}"), what)
        count = cursor.uint64(f"the length of {what}")
        if kind == ARRAY:
            advice = "Neither llama.cpp nor Ollama reads it either: get another conversion."
            raise Unsupported(f"{what} is an array of arrays", where=cursor.where, advice=advice)
        cursor.demand(count * (8 if kind == STRING else SCALARS[kind].size), f"{what} of {count} elements")
        if kind == STRING:
            if self._arrays:
                return tuple([self._string(what) for _ in range(count)])
            cursor.skip_strings(count, what)
            return Skipped("string", count)
        form = SCALARS[kind]
        if count > SHORT and not self._arrays:
            cursor.skip(count * form.size, what)
            return Skipped(VALUE_TYPES[kind], count)
        self._spend(count * 40)
        numbers = struct.Struct(f"<{count}{form.format[1:]}")
        return numbers.unpack(cursor.take(numbers.size, what))

    def _string(self, what: str) -> str:
        text = self._cursor.text(TEXT_MOST, what)
        self._spend(sys.getsizeof(text) + 8)
        return text

    def _spend(self, count: int) -> None:
        self._memory -= count
        if self._memory < 0:
            raise self._cursor.corrupt("has a header that would fill the memory; no real one is so large")
