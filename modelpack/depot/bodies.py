"""The bodies of requests, read as they come: nothing of them is held in memory.

Cheroot 11 reads each chunk of a chunked body in one piece of the client's choice.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from typing import Any

from modelpack.words.blob import KIB

SLOWEST, GRACE_SECONDS = 1 * KIB, 60.0
"""Bytes a second that a body has to move by on average, either way, after the first so many seconds."""

_LINE_MOST = 4 * KIB
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}", re.ASCII)


def too_slow(count: int, started: float) -> bool:
    """Whether *count* bytes since *started* (time.monotonic) are fewer than anybody waits for."""
    seconds = time.monotonic() - started
    return seconds > GRACE_SECONDS and count < SLOWEST * seconds


class Body(io.RawIOBase):
    """The body of a request, read as it comes, in pieces that the reader chooses.

    Raises ConnectionError where it ends too early or is malformed, TimeoutError where it comes too slowly.
    """

    finished = False
    """Whether all of it was read: else the connection cannot be used again."""
    too_slow = False
    """Whether it was given up: then there is nothing to wait for."""

    def __init__(self, rfile: Any, before_first: Callable[[], None]) -> None:
        self._rfile = rfile
        self._before_first: Callable[[], None] | None = before_first
        self._started = 0.0
        self._count = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, into: Any, /) -> int:
        """The next bytes of the body; 0 at its end."""
        if self.finished:
            return 0
        if self._before_first is not None:
            self._started = time.monotonic()
            before, self._before_first = self._before_first, None
            before()
        view = memoryview(into).cast("B")
        return self._fill(view) if len(view) else 0

    def _fill(self, view: memoryview) -> int:
        raise NotImplementedError

    def _receive(self, view: memoryview) -> int:
        try:
            return self._receive_some(view)
        except TimeoutError:
            self.too_slow = True
            raise

    def _receive_some(self, view: memoryview) -> int:
        count: int = self._rfile.readinto1(view)
        if count == 0:
            raise ConnectionError("unexpected EOF")
        self._count += count
        if too_slow(self._count, self._started):
            raise TimeoutError("timed out")
        return count


class SizedBody(Body):
    """A body of as many bytes as Content-Length says."""

    def __init__(self, rfile: Any, before_first: Callable[[], None], length: int) -> None:
        super().__init__(rfile, before_first)
        self._left = length
        self.finished = length == 0

    def _fill(self, view: memoryview) -> int:
        count = self._receive(view[: self._left])
        self._left -= count
        self.finished = self._left == 0
        return count


class ChunkedBody(Body):
    """A body in chunks, whose sizes mean nothing to whoever reads it."""

    _left = 0

    def _fill(self, view: memoryview) -> int:
        if self._left == 0:
            self._begin_chunk()
            if self.finished:
                return 0
        count = self._receive(view[: self._left])
        self._left -= count
        if self._left == 0 and self._line():
            raise ConnectionError("malformed chunked encoding")
        return count

    def _begin_chunk(self) -> None:
        size = self._line().partition(b";")[0].strip(b" \t")
        if _CHUNK_SIZE.fullmatch(size) is None:
            raise ConnectionError("malformed chunked encoding")
        self._left = int(size, 16)
        if self._left == 0:
            for _ in range(64):  # trailers, which nobody wants
                if not self._line():
                    self.finished = True
                    return
            raise ConnectionError("too many trailers")

    def _line(self) -> bytes:
        line: bytes = self._rfile.readline(_LINE_MOST)
        if not line.endswith(b"\r\n"):
            raise ConnectionError(
                "unexpected EOF" if len(line) < _LINE_MOST else "malformed chunked encoding"
            )
        return line[:-2]
