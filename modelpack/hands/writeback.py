"""Writing that keeps the medium busy, and knows which bytes have reached it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

from modelpack.hands import system
from modelpack.words.blob import MIB

_AHEAD = 64 * MIB  # bytes that may be on their way; more only hides how slow the medium is
_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4  # linux/fs.h, SYNC_FILE_RANGE_*


def _nothing(_count: int) -> None:
    pass


class Writer:
    """Writes at positions of an opened file, starting each piece on its way to the medium at once.

    Without this Linux gathers dirty pages for seconds and then stalls at fsync; with it, hashing and writing
    overlap (performance.md). `moved` is called with counts of bytes that the medium has.
    """

    def __init__(self, fd: int, moved: Callable[[int], object] = _nothing) -> None:
        self._fd = fd
        self.moved = moved
        self._underway: deque[tuple[int, int]] = deque()
        self._bytes_underway = 0
        self._range = system.sync_file_range()

    def write_at(self, data: memoryview, offset: int) -> None:
        """Write all of *data* at *offset*."""
        count, left = len(data), data
        while left:
            left = left[system.write_at(self._fd, left, offset + count - len(left)) :]
        if self._range is not None and count:
            self._range(self._fd, offset, count, _WRITE)
        self._underway.append((offset, count))
        self._bytes_underway += count
        while self._bytes_underway > _AHEAD:
            self._settle()

    def appending(self, offset: int = 0) -> Callable[[memoryview], None]:
        """A function that writes one piece after the other, from *offset* on."""

        def write(data: memoryview) -> None:
            nonlocal offset
            self.write_at(data, offset)
            offset += len(data)

        return write

    def _settle(self) -> None:
        offset, count = self._underway.popleft()
        self._bytes_underway -= count
        if self._range is not None and count:
            self._range(self._fd, offset, count, _WAIT_BEFORE | _WRITE | _WAIT_AFTER)
        self.moved(count)

    def drain(self) -> None:
        """Wait until the medium has what was written here; the file's own facts may still be on their way."""
        while self._underway:
            self._settle()

    def finish(self) -> None:
        """Wait until the medium has everything."""
        self.drain()
        os.fsync(self._fd)

    def close(self) -> None:
        """Forget what is underway."""
        self._underway.clear()
        self._bytes_underway = 0
