"""Readers over files: at a position of their own, in any thread, and noticing a file that changes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from modelpack.errors import Corrupt, from_os
from modelpack.hands import system
from modelpack.hands.disk import open_path
from modelpack.words.blob import MIB


def read_at(fd: int, count: int, offset: int, where: Path) -> bytes:
    """Up to *count* bytes (bounded by the caller) at *offset*; fewer only at the file's end."""
    piece = bytearray(count)
    with memoryview(piece) as view:
        done = 0
        while done < count:
            try:
                came = system.read_into(fd, view[done:], offset + done)
            except OSError as error:
                raise from_os(error, where) from error
            if came == 0:
                break
            done += came
    return bytes(piece[:done])


class FileReader:
    """*size* bytes at *offset* of an opened file, whose descriptor it owns.

    Files are never mapped: where a mapped file is cut, or its drive pulled, the process dies by SIGBUS
    without a word. Reading says what happened. A *steady* file raises Corrupt where it was written to
    meanwhile; the files of stores have digests that say it better, and get new times without being changed.
    """

    def __init__(self, fd: int, offset: int, size: int, where: Path, *, steady: bool = False) -> None:
        self._fd, self._where, self._steady = fd, where, steady
        self.size = size
        self._offset, self._left = offset, size
        self._seen = os.fstat(fd)
        if size > MIB:
            system.expect_sequential(fd, offset, size)

    @classmethod
    def at(cls, path: Path, offset: int = 0) -> FileReader:
        """All of the plain file that the user named, from *offset* on; `size` says how much."""
        fd = open_path(path)
        return cls(fd, offset, max(0, os.fstat(fd).st_size - offset), path, steady=True)

    @property
    def mark(self) -> tuple[int, ...]:
        """Something that is another one where the file is another one, or has changed."""
        seen = self._seen
        return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns)

    def readinto(self, into: memoryview, /) -> int:
        """As Reader says; Corrupt where the file ends too early, or (steady) changed."""
        want = min(len(into), self._left)
        if want == 0:
            return 0
        try:
            count = system.read_into(self._fd, into[:want], self._offset)
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
        if self._left == 0 and self._steady:
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

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


class StreamReader:
    """A pipe, read in order."""

    def __init__(self, fd: int, where: object) -> None:
        self._fd, self._where = fd, where

    def readinto(self, into: memoryview, /) -> int:
        """As Reader says; waits for whoever writes the pipe."""
        try:
            return system.stream_into(self._fd, into)
        except OSError as error:
            raise from_os(error, self._where) from error
