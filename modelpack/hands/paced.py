"""Documents that have to come at some pace: a time limit for each piece lets one byte hold us for ever."""

from __future__ import annotations

import time

from modelpack.errors import Unreachable
from modelpack.words.blob import KIB
from modelpack.words.reader import Reader

SLOWEST, GRACE = KIB, 60.0
"""Bytes a second on average, after the first so many seconds from the first byte on."""


class Paced:
    """*reader*, with Unreachable in place of a piece that comes too late; *where* is whose it is."""

    def __init__(self, reader: Reader, where: str) -> None:
        self._reader, self._where = reader, where
        self._count, self._began = 0, 0.0

    def readinto(self, into: memoryview, /) -> int:
        """As Reader says."""
        count = self._reader.readinto(into)
        now = time.monotonic()
        self._began = self._began or now
        self._count += count
        seconds = now - self._began
        if count and seconds > GRACE and self._count < SLOWEST * seconds:
            raise Unreachable("its answer comes too slowly", where=self._where)
        return count
