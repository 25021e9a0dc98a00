"""A file hashed block by block with BLAKE3: where one block is bad or cannot be read, the others count."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from modelpack.errors import Unchecked
from modelpack.hands import system
from modelpack.hands.crew import Gone, Stopped, in_parallel
from modelpack.hands.hashing import blake3_hasher
from modelpack.words.blob import KIB, MIB

Take = Callable[[int, bytes | None, memoryview], object]
"""`take(index, digest, data)`, in any thread: the 32 bytes of a block's BLAKE3, None where it is unreadable.

*data* is the block where it was asked for, else empty; it is gone when the call is over.
"""

_PIECE = 512 * KIB  # stays in a core's own cache between the copy and the hash
_SLOW = 0.05  # seconds for the first 16 MiB: a medium that one core keeps up with is read in order
_GONE = frozenset(
    getattr(errno, name)
    for name in ("ENODEV", "ENXIO", "ESTALE", "ENOTCONN", "ENOENT", "ENOMEDIUM", "ESHUTDOWN", "ETIMEDOUT",
                 "EHOSTDOWN", "ENETDOWN", "EBADF")
    if hasattr(errno, name)
)  # fmt: skip


def hash_blocks(
    fd: int,
    size: int,
    block: int,
    take: Take,
    where: Path,
    *,
    hands: int = 1,
    whole: bool = False,
    moved: Callable[[int], object] = int,
) -> None:
    """Read *size* bytes of the file *fd* and *take* each block of *block* bytes; the last may be shorter.

    *hands* blocks at a time, where the medium is faster than one core. With *whole*, their bytes are handed
    over, too; memory is *hands* times *block* then. *moved* is told of bytes that were read.

    A block that the medium does not give back is taken as None. Raises Unchecked where all of them are so, or
    the medium is gone: nothing is known then of blocks that were taken as None. What *take* raises goes
    through.
    """
    if size:
        system.expect_sequential(fd, 0, size)
    _Blocks(fd, size, block, take, where, whole, moved).run(hands)


class _Blocks:
    def __init__(
        self,
        fd: int,
        size: int,
        block: int,
        take: Take,
        where: Path,
        whole: bool,
        moved: Callable[[int], object],
    ) -> None:
        self._fd, self._size, self._block = fd, size, block
        self._take, self._where, self._whole, self._moved = take, where, whole, moved
        self._next = 0
        self._readable: int | None = None
        self._unread = 0
        self._lock = threading.Lock()

    def run(self, hands: int) -> None:
        begun = time.monotonic()
        self._hand(_never, once=True)
        slow = time.monotonic() - begun > _SLOW * min(1, self._block / (16 * MIB))
        left = -(-(self._size - self._next) // self._block)
        hands = 1 if slow else max(1, min(hands, left))
        if left > 0:
            for _ in in_parallel(list(range(hands)), lambda _, gone: self._hand(gone), hands):
                pass
        if self._unread and (self._readable is None or not self._still_there(self._readable)):
            raise _gone(self._where)

    def _hand(self, gone: Gone, *, once: bool = False) -> None:
        length = min(self._block if self._whole else _PIECE, max(self._size, 1))
        room = mmap.mmap(-1, length)
        try:
            with memoryview(room) as view:
                while (offset := self._turn()) is not None:
                    self._one(offset, view, gone)
                    if once:
                        return
        finally:
            with contextlib.suppress(BufferError):  # a failure's traceback may hold a view of it
                room.close()

    def _turn(self) -> int | None:
        with self._lock:
            offset = self._next
            if offset >= self._size:
                return None
            self._next = ahead = offset + self._block
        # The medium reads on while this block is hashed.
        system.expect_soon(self._fd, ahead, min(self._block, self._size - ahead))
        return offset

    def _one(self, offset: int, room: memoryview, gone: Gone) -> None:
        want, done = min(self._block, self._size - offset), 0
        hasher = blake3_hasher()
        while done < want:
            if gone():
                raise Stopped
            start = done if self._whole else 0
            with room[start : min(len(room), start + min(_PIECE, want - done))] as piece:
                count = self._read(piece, offset + done)
                if not count:
                    break
                hasher.update(piece[:count])
            done += count
            self._moved(count)
        index = offset // self._block
        if done < want:
            with self._lock:
                self._unread += 1
            self._moved(want - done)
            self._take(index, None, memoryview(b""))
            return
        with self._lock:
            self._readable = offset
        with room[: want if self._whole else 0] as data:
            self._take(index, bytes.fromhex(hasher.hexdigest()), data)

    def _read(self, into: memoryview, offset: int) -> int:
        """How many bytes came; 0 where the medium fails here, or the file was cut meanwhile."""
        try:
            return system.read_into(self._fd, into, offset)
        except OSError as error:
            if error.errno in _GONE:
                raise _gone(self._where) from error
            return 0

    def _still_there(self, offset: int) -> bool:
        """Whether what could be read a while ago still can be, from the medium where memory lets go of it."""
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._fd, offset, self._block, os.POSIX_FADV_DONTNEED)
        one = bytearray(1)
        try:
            return system.read_into(self._fd, memoryview(one), offset) == 1
        except OSError:
            return False


def _never() -> bool:
    return False


def _gone(where: Path) -> Unchecked:
    return Unchecked(
        "could not be read: the medium fails, or is gone",
        where=where,
        advice="That says nothing about its bytes. Put it in again, or try another drive.",
    )
