"""Bytes that come: the smallest thing that can be read."""

from __future__ import annotations

from typing import Protocol

from modelpack.errors import Corrupt
from modelpack.words.blob import KIB


class Reader(Protocol):
    """Raw bytes in order. Nobody has checked them: whoever keeps them does."""

    def readinto(self, into: memoryview, /) -> int:
        """Fill the front of *into*, at least one byte of it; 0 means the end. Raises errors of modelpack."""
        ...


class BytesReader:
    """The bytes of *data*, from *offset* on."""

    def __init__(self, data: bytes, offset: int = 0) -> None:
        self._rest = memoryview(data)[offset:]

    def readinto(self, into: memoryview, /) -> int:
        """As Reader says."""
        count = min(len(into), len(self._rest))
        into[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def fill(reader: Reader, into: memoryview) -> int:
    """Read until *into* is full or *reader* ends; how many bytes came."""
    done = 0
    while done < len(into):
        count = reader.readinto(into[done:])
        if count == 0:
            break
        done += count
    return done


def read_at_most(reader: Reader, limit: int, what: str) -> bytes:
    """All of *reader*; raises Corrupt as soon as there is more than *limit* bytes of it."""
    pieces = []
    left = limit + 1
    while left:
        piece = bytearray(min(left, 64 * KIB))
        count = fill(reader, memoryview(piece))
        pieces.append(piece[:count])
        left -= count
        if count < len(piece):
            return b"".join(pieces)
    raise Corrupt(f"{what} is larger than {limit} bytes, more than any real one")


def read_exactly(reader: Reader, size: int, what: str) -> bytes:
    """Just *size* bytes (bounded by the caller); raises Corrupt where *reader* ends before."""
    piece = bytearray(size)
    count = fill(reader, memoryview(piece))
    if count != size:
        raise Corrupt(f"{what} ends after {count} of {size} bytes")
    return bytes(piece)
