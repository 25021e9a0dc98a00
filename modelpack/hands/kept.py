"""Blobs from afar, taken up where a broken run left them: what is there is hashed, then what follows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from modelpack.errors import Corrupt
from modelpack.hands import system
from modelpack.hands.hashing import check, pour
from modelpack.hands.writeback import Writer
from modelpack.words.blob import MIB, Blob
from modelpack.words.reader import Reader
from modelpack.words.report import Report, Said
from modelpack.words.text import size as shown_size

Opened = Callable[[int], AbstractContextManager[Reader]]
"""Opens a blob's bytes from an offset on."""


def key_of(blob: Blob) -> str:
    """Under which the beginning of *blob* is kept; empty where it has no digest yet."""
    return blob.digest.hex if blob.digest is not None else ""


def keyed(blobs: Iterable[Blob]) -> dict[str, int]:
    """The bytes of each of *blobs* by its key; those that have none are one."""
    sizes: dict[str, int] = {}
    for blob in blobs:
        sizes[key_of(blob)] = sizes.get(key_of(blob), 0) + blob.size
    return sizes


def pour_on(
    fd: int, writer: Writer, blob: Blob, opened: Opened, report: Report, *, at: int = 0, blake3: bool = False
) -> Blob:
    """Write *blob* into the file *fd* from offset *at* on, after what is there of it; *blob* with its hashes.

    Where what is there turns out to be wrong, all of it is fetched anew. Raises Corrupt where the source's
    own bytes are wrong.
    """
    there = beginning(fd, at, blob.size)
    if there:
        report(Said(f"{blob.kind} {blob}: {shown_size(there)} of an earlier run are taken up"))
        writer.moved(there)
    try:
        return _poured(fd, writer, blob, opened, at, there, blake3)
    except Corrupt:
        if not there:
            raise
        return _poured(fd, writer, blob, opened, at, 0, blake3)


def _poured(fd: int, writer: Writer, blob: Blob, opened: Opened, at: int, start: int, blake3: bool) -> Blob:
    with _After(fd, at, start, blob.size, opened) as reader:
        write = _skipping(start, writer.appending(at + start))
        return check(blob, pour(reader, blob.size, write, blake3=blake3, block=MIB))


def beginning(fd: int, at: int, size: int) -> int:
    """How many of *size* bytes from offset *at* on an earlier run wrote, as far as the file tells.

    Whole MiB, or all: what was written last may not have reached the medium. A guess: the hash decides.
    """
    end = os.fstat(fd).st_size
    hole = getattr(os, "SEEK_HOLE", None)
    if end > at and hole is not None:
        end = min(end, os.lseek(fd, at, hole))
    found = min(max(0, end - at), size)
    return found if found == size else found // MIB * MIB


class _After:
    """What is kept of a blob, then what its source gives from there on, which is asked for no sooner."""

    def __init__(self, fd: int, at: int, start: int, size: int, opened: Opened) -> None:
        self._fd, self._at, self._left = fd, at, start
        self._start, self._size, self._opened = start, size, opened
        self._rest: AbstractContextManager[Reader] | None = None
        self._reader: Reader | None = None

    def __enter__(self) -> _After:
        return self

    def __exit__(self, *error: object) -> None:
        if self._rest is not None:
            self._rest.__exit__(None, None, None)

    def readinto(self, into: memoryview, /) -> int:
        if self._left:
            count = system.read_into(self._fd, into[: min(len(into), self._left)], self._at)
            self._at += count
            self._left -= count
            if count:
                return count
            raise Corrupt("what was kept is gone")
        if self._start == self._size:
            return 0
        if self._reader is None:
            self._rest = self._opened(self._start)
            self._reader = self._rest.__enter__()
        return self._reader.readinto(into)


def _skipping(count: int, write: Callable[[memoryview], None]) -> Callable[[memoryview], None]:
    """*write*, but for the first *count* bytes."""

    def take(data: memoryview) -> None:
        nonlocal count
        skipped = min(count, len(data))
        count -= skipped
        if skipped < len(data):
            write(data[skipped:])

    return take
