"""Shards of one GGUF, and the file that they are together: the very bytes of `llama-gguf-split --merge`.

Source: tools/gguf-split/gguf-split.cpp and ggml/src/gguf.cpp of llama.cpp (b10488), compared with what that
program writes: version 3; the first shard's metadata in its order, with `split.count` taken out and put at
the end as 0; then the tables in the order of the shards, without trailing dimensions of 1; then each tensor
and zeros up to the next multiple of 32. Kept apart from it on purpose: a `general.alignment` other than 32 is
heeded (llama-gguf-split copies the key but pads to 32: what it writes can seldom be read), and strings with a
NUL stay whole (it cuts them there).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from modelpack.documents.gguf import read_gguf
from modelpack.documents.gguf_cursor import DAMAGED
from modelpack.documents.gguf_header import Gguf, Split, Tensor
from modelpack.documents.gguf_magic import FIRST
from modelpack.errors import Corrupt, ModelpackError, NotFound, Unsupported
from modelpack.words.blob import KIB
from modelpack.words.reader import BytesReader

_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.ASCII | re.DOTALL)
_SPLIT = ("split.no", "split.count", "split.tensors.count")
_ALIGNMENT_MOST = 64 * KIB
"""Bytes; real ones are 32, hardly ever 64. So much may be padded after each tensor."""
_TENSORS_MOST = 1 << 17
"""Real models have some thousands; `read_gguf` takes hardly more in one file."""
_NAMED_MOST = 20
_FOREIGN = "Put all shards of one download into one folder, under the names that they had there."


@dataclass(frozen=True, slots=True)
class Shard:
    """One of the files: its name, its size in bytes, its header, and its first bytes (all of its metadata:
    `gguf.tensors_offset` of them, or more)."""

    title: str
    size: int
    gguf: Gguf
    front: bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor: `size` bytes at `offset` of a shard's file, then `padding` zeros."""

    offset: int
    size: int
    padding: int


@dataclass(frozen=True, slots=True)
class Merged:
    """The whole: `front` is all before the tensors, `pieces` what follows of each shard, in order, `size` the
    bytes of both, and `gguf` its header."""

    front: bytes
    pieces: tuple[tuple[Piece, ...], ...]
    size: int
    gguf: Gguf


def shard_name(file_name: str) -> tuple[str, int, int] | None:
    """What a name that ends in `-00001-of-00003.gguf` says: (what comes before, number from 0, count).

    None where it is none, or says what cannot be. Source: splitGGUFName in server/create.go of Ollama v0.33
    (numbers of 16 bits, counted from 1).
    """
    found = _NAME.fullmatch(file_name)
    if found is None:
        return None
    number, count = int(found[2]), int(found[3])
    return (found[1], number - 1, count) if 1 <= number <= count < 1 << 16 else None


def family_of(file_name: str) -> list[str] | None:
    """The names of all shards of the family that *file_name* belongs to, in order; None as in shard_name."""
    found = shard_name(file_name)
    if found is None:
        return None
    stem, _, count = found
    return [f"{stem}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


def not_all_there(missing: Sequence[str], where: object = "") -> NotFound:
    """The error for the shards named *missing*."""
    more = len(missing) - _NAMED_MOST
    names = ", ".join(missing[:_NAMED_MOST]) + (f" and {more} more" if more > 0 else "")
    return NotFound(
        f"{names} {'is' if len(missing) == 1 else 'are'} missing",
        where=where,
        advice="All shards of a model belong in one folder. Get what is missing from where the others came.",
    )


def merge(shards: Iterable[Shard], where: object) -> Merged:
    """The one file that *shards* are together; all of a family, in any order, looked at one by one.

    *where* is the place of all of them: errors name the file at fault in their text. NotFound: some are
    missing. Corrupt: one is there twice, or does not belong to the others, or is damaged. Unsupported: a
    tensor of a type that modelpack does not know, so that nobody can say where it ends.
    """
    family = _Family()
    try:
        for shard in shards:
            family.add(shard)
        return family.merged()
    except ModelpackError as error:
        error.where = error.where or str(where)
        raise


class _Family:
    """What was seen of the shards.

    Only the header of the first one seen is kept, and that of shard 0: a hundred shards cost little memory,
    even where each repeats all metadata.
    """

    def __init__(self) -> None:
        self._first: Shard | None = None
        self._pairs: dict[str, memoryview] = {}
        self._head: Shard | None = None
        self._seen: dict[int, tuple[str, Split]] = {}
        self._tensors: dict[int, tuple[Tensor, ...]] = {}
        self._pieces: dict[int, tuple[Piece, ...]] = {}
        self._owners: dict[str, str] = {}

    def add(self, shard: Shard) -> None:
        """Take one more, if it belongs to the others; raises what `merge` does."""
        split = _split_of(shard)
        if split.no in self._seen:
            both = f"{shard.title} and {self._seen[split.no][0]}"
            raise Corrupt(f"{both} both say that they are shard {split.no + 1}", advice=_FOREIGN)
        pairs = _pairs_of(shard)
        if self._first is None:
            self._first, self._pairs = shard, pairs
        _check_name(shard, split, self._first)
        _check_header(shard, self._first)
        for key, raw in pairs.items():
            if self._pairs.get(key, raw) != raw and key.removeprefix(shard.gguf.own("")) not in _SPLIT:
                raise Corrupt(
                    f"{shard.title} is of another model than {self._first.title}: {key[:100]!r} differs",
                    advice=_FOREIGN,
                )
        if split.no == 0:
            self._head = shard
        self._seen[split.no] = shard.title, split
        self._tensors[split.no] = shard.gguf.tensors
        self._pieces[split.no] = tuple(self._pieces_of(shard))

    def _pieces_of(self, shard: Shard) -> Iterator[Piece]:
        expected = 0
        for tensor in shard.gguf.tensors:
            what = f"{shard.title}: tensor {tensor.name[:100]!r}"
            if tensor.size is None:
                raise Unsupported(
                    f"{what} is of type {tensor.type}, which this modelpack does not know",
                    advice="See whether there is a newer modelpack, or use llama-gguf-split --merge.",
                )
            if tensor.offset != expected:
                raise Corrupt(
                    f"{what} lies at {tensor.offset} instead of {expected}",
                    advice="llama.cpp refuses such a file too: get it again, or another conversion.",
                )
            if tensor.name in self._owners:
                raise Corrupt(
                    f"{self._owners[tensor.name]} and {shard.title} both have tensor {tensor.name[:100]!r}",
                    advice=_FOREIGN,
                )
            self._owners[tensor.name] = shard.title
            if len(self._owners) > _TENSORS_MOST:
                what += f" is one of more than {_TENSORS_MOST}; no real model has so many"
                raise Corrupt(what, advice=DAMAGED)
            padding = -tensor.size % shard.gguf.alignment
            yield Piece(shard.gguf.data_offset + tensor.offset, tensor.size, padding)
            expected += tensor.size + padding

    def merged(self) -> Merged:
        """All of it, once every shard was added."""
        names = family_of(self._first.title) if self._first is not None else None
        missing = [name for number, name in enumerate(names or []) if number not in self._seen]
        if names is None or self._head is None or missing:
            raise not_all_there(missing or ["the first shard"])
        numbers = range(len(names))
        tensors = [tensor for number in numbers for tensor in self._tensors[number]]
        for title, split in self._seen.values():
            if split.tensors not in (None, len(tensors)):
                raise Corrupt(
                    f"{title} counts {split.tensors} tensors in all shards, but there are {len(tensors)}",
                    advice=_FOREIGN,
                )
        front = _front(self._head, tensors)
        pieces = tuple(self._pieces[number] for number in numbers)
        size = len(front) + sum(piece.size + piece.padding for some in pieces for piece in some)
        begun = BytesReader(front.ljust(FIRST, b"\0"))  # so much is looked at even of a shorter header
        return Merged(front, pieces, size, read_gguf(begun, size))


def _check_name(shard: Shard, split: Split, first: Shard) -> None:
    named, base = shard_name(shard.title), shard_name(first.title)
    if named is None or base is None:
        raise Corrupt(
            f"{shard.title} is a shard, but not by its name",
            advice=f"Name it as it was: …-{split.no + 1:05}-of-{split.count:05}.gguf",
        )
    if (named[0], named[2]) != (base[0], base[2]):
        raise Corrupt(f"{shard.title} is not of the family of {first.title}", advice=_FOREIGN)
    if named[1:] != (split.no, split.count):
        raise Corrupt(
            f"{shard.title} says that it is shard {split.no + 1} of {split.count}, unlike its name",
            advice=_FOREIGN,
        )


def _check_header(shard: Shard, first: Shard) -> None:
    mine, theirs = shard.gguf, first.gguf
    if mine.version != theirs.version:
        versions = f"version {mine.version}, but {first.title} of version {theirs.version}"
        raise Corrupt(f"{shard.title} is a GGUF of {versions}", advice=_FOREIGN)
    if mine.alignment != theirs.alignment:
        alignments = f"alignment {mine.alignment}, but {first.title} has {theirs.alignment}"
        raise Corrupt(f"{shard.title} has the {alignments}", advice=_FOREIGN)
    if mine.alignment > _ALIGNMENT_MOST:
        raise Corrupt(
            f"{shard.title} has the alignment {mine.alignment}; no real one is above {_ALIGNMENT_MOST}",
            advice="Get another conversion of the model.",
        )


def _split_key(gguf: Gguf, key: str) -> str:
    """*key* as *gguf* spells it: Ollama's own writer puts the architecture before it."""
    return next((full for full in (key, gguf.own(key)) if gguf.integer(full) is not None), key)


def _split_of(shard: Shard) -> Split:
    # Not Gguf.split: that is None for one shard of one, which llama-gguf-split merges as well.
    no, count, tensors = (shard.gguf.integer(_split_key(shard.gguf, key)) for key in _SPLIT)
    if no is None or count is None or not 0 <= no < count:
        raise Corrupt(
            f"{shard.title} is a shard by its name, but does not say which one inside",
            advice="If it is a whole model, give it a name without -0000N-of-0000N.",
        )
    return Split(no, count, tensors)


def _pairs_of(shard: Shard) -> dict[str, memoryview]:
    """The raw bytes of each pair of the metadata: key, type and value."""
    places = shard.gguf.places
    starts = [place.offset - 12 - len(_raw(key)) for key, place in places.items()]
    ends = [*starts[1:], shard.gguf.tensors_offset]
    front = memoryview(shard.front)
    return {key: front[start:end] for key, start, end in zip(places, starts, ends, strict=True)}


def _front(head: Shard, tensors: Sequence[Tensor]) -> bytes:
    alignment = head.gguf.alignment
    pairs = _pairs_of(head)
    key = _split_key(head.gguf, "split.count")
    count = pairs.pop(key)
    before = 12 + len(_raw(key))
    front = bytearray(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs) + 1))
    for raw in pairs.values():
        front += raw
    front += bytes(count[:before]) + bytes(len(count) - before)
    offset = 0
    for tensor in tensors:
        shape = list(tensor.shape) or [1]
        while len(shape) > 1 and shape[-1] == 1:
            shape.pop()
        name = _raw(tensor.name)
        front += struct.pack("<Q", len(name)) + name
        front += struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, tensor.type, offset)
        size = tensor.size or 0
        offset += size + -size % alignment
    return bytes(front) + bytes(-len(front) % alignment)


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
