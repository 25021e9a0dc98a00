"""An answer's first and last lines, held to a measure.

http.client waits for the end of any number of hints and of trailers, and takes a chunk of less than no bytes.
"""

from __future__ import annotations

import http.client

_MOST = 64  # "100 Continue"s before an answer, trailers after it; real servers send one, and none
_LINE = 65_537


class Reply(http.client.HTTPResponse):
    """As http.client reads it, and no further than sense goes. Its own errors are those of http.client."""

    _hints = 0

    def _read_status(self) -> tuple[str, int, str]:
        self._hints += 1
        if self._hints > _MOST:
            raise http.client.BadStatusLine("100 Continue without end")
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        return found

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:
            raise ValueError("a chunk of less than no bytes")
        return size

    def _read_and_discard_trailer(self) -> None:
        for _ in range(_MOST):
            if self.fp.readline(_LINE) in (b"\r\n", b"\n", b""):
                return
        raise http.client.HTTPException("trailers without end")
