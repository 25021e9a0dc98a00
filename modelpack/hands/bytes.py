"""Readers over files: at a position of their own, in any thread, and noticing a file that changes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from modelpack.errors import Corrupt, from_os


class FileReader:
    """`size` bytes at `offset` of an opened file. Owns the descriptor, if told so.

    Files are never mapped: where a mapped file is cut, or its drive pulled, the process dies by SIGBUS
    without a word. Reading says what happened.
    """

    def __init__(self, fd: int, offset: int, size: int, where: Path, *, owns: bool = True) -> None:
        self._fd, self._where, self._owns = fd, where, owns
        self._offset, self._left = offset, size
        self._seen = os.fstat(fd)
        if sys.platform == "linux" and size > 1 << 20:
            os.posix_fadvise(fd, offset, size, os.POSIX_FADV_SEQUENTIAL)

    def readinto(self, into: memoryview, /) -> int:
        want = min(len(into), self._left)
        if want == 0:
            self._unchanged()
            return 0
        try:
            if sys.platform == "win32":
                os.lseek(self._fd, self._offset, os.SEEK_SET)
                piece = os.read(self._fd, want)
                count = len(piece)
                into[:count] = piece
            else:
                count = os.preadv(self._fd, [into[:want]], self._offset)
        except OSError as error:
            raise from_os(error, self._where) from error
        if count == 0:
            raise Corrupt(
                f"ends {self._left} bytes too early, at {self._offset}",
                where=self._where,
                advice="Was a copy or download cut, or is somebody writing to it?",
            )
        self._offset += count
        self._left -= count
        if self._left == 0:
            self._unchanged()
        return count

    def _unchanged(self) -> None:
        now = os.fstat(self._fd)
        if (now.st_size, now.st_mtime_ns) != (self._seen.st_size, self._seen.st_mtime_ns):
            raise Corrupt(
                "changed while it was read", where=self._where, advice="Wait until its writer is done."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._owns:
            os.close(self._fd)
