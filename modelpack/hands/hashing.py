"""Bytes poured from a reader through hashers, and into a file where there is one, each at its own pace.

One thread reads into a ring of page-aligned buffers, one thread for each consumer (SHA-256, BLAKE3, the
writer) takes them in order, and a buffer is read into again when the slowest has done with it. hashlib,
blake3 and the system calls all let go of Python's lock, so two cores are kept busy by one file.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from modelpack.errors import Corrupt, ModelpackError
from modelpack.words.blob import MIB, SMALL, Blob
from modelpack.words.digest import Digest
from modelpack.words.reader import Reader, fill, read_at_most

BLOCK = 4 * MIB
BUFFERS = 4
_INLINE = 1 * MIB  # up to here threads cost more than they give; and it stays in a core's cache
_ENDLESS = 1 << 62


class Hasher(Protocol):
    """What hashlib and blake3 have in common."""

    def update(self, data: memoryview, /) -> object:
        """Take more bytes."""
        ...

    def hexdigest(self) -> str:
        """What they came to."""
        ...


@dataclass(frozen=True, slots=True)
class Hashes:
    """What bytes came to, and how many they were; None for a hash that was not asked for."""

    sha256: Digest | None
    blake3: Digest | None
    size: int = 0


def blake3_hasher(threads: int = 1) -> Hasher:
    """A BLAKE3 that may use *threads* threads for one update; imported late, for it costs start-up time."""
    from blake3 import blake3

    return blake3(max_threads=threads)


class _Ring:
    """Buffers in a circle between one reader and several consumers."""

    def __init__(self, consumers: Sequence[Callable[[memoryview], object]], block: int, buffers: int) -> None:
        # Anonymous maps, not files: page-aligned, and their pages go back to the system when closed.
        self._maps = [mmap.mmap(-1, block) for _ in range(buffers)]
        self._views = [memoryview(one) for one in self._maps]
        self._filled: list[int] = [0] * buffers
        self._done = [0] * len(consumers)
        self._put = 0
        self._ended = False
        self._failure: BaseException | None = None
        self._turn = threading.Condition()
        self._threads = [
            threading.Thread(target=self._consume, args=(which, work), daemon=True)
            for which, work in enumerate(consumers)
        ]

    def run(self, reader: Reader, size: int) -> int:
        """Pour up to *size* bytes; how many came. A consumer's failure is raised here."""
        for thread in self._threads:
            thread.start()
        total = 0
        broke: BaseException | None = None
        try:
            while total < size:
                with self._turn:
                    self._turn.wait_for(
                        lambda: self._put - min(self._done) < len(self._views) or self._failure
                    )
                    if self._failure is not None:
                        break
                slot = self._put % len(self._views)
                view = self._views[slot][: min(len(self._views[slot]), size - total)]
                count = fill(reader, view)
                self._filled[slot] = count
                total += count
                with self._turn:
                    self._put += 1
                    self._turn.notify_all()
                if count < len(view):
                    break
        except BaseException as error:  # noqa: BLE001 - the consumers must end, whatever it was
            broke = error  # what came before is still poured: it may be worth keeping
        finally:
            with self._turn:
                self._ended = True
                self._turn.notify_all()
            for thread in self._threads:
                thread.join()
            for view in self._views:
                view.release()
            for one in self._maps:
                with contextlib.suppress(BufferError):  # a failed consumer's traceback may hold a view of it
                    one.close()
        failure = broke or self._failure
        if failure is not None:
            raise failure
        return total

    def _fail(self, error: BaseException) -> None:
        with self._turn:
            self._failure = self._failure or error
            self._turn.notify_all()

    def _consume(self, which: int, work: Callable[[memoryview], object]) -> None:
        while True:
            taken = self._done[which]
            with self._turn:
                while self._put == taken and not self._ended and self._failure is None:
                    self._turn.wait()
                if self._failure is not None or self._put == taken:
                    return
            slot = taken % len(self._views)
            try:
                with self._views[slot][: self._filled[slot]] as view:
                    work(view)
            except BaseException as error:  # noqa: BLE001 - raised again by run()
                self._fail(error)
                return
            with self._turn:
                self._done[which] = taken + 1
                self._turn.notify_all()


def _in_turn(reader: Reader, size: int, consumers: Sequence[Callable[[memoryview], object]]) -> int:
    piece = memoryview(bytearray(min(_INLINE, size)))
    total = 0
    while total < size:
        part = piece[: min(len(piece), size - total)]
        count = fill(reader, part)
        for consume in consumers:
            consume(part[:count])
        total += count
        if count < len(part):
            break
    return total


def pour(
    reader: Reader,
    size: int | None,
    write: Callable[[memoryview], object] | None = None,
    *,
    sha256: bool = True,
    blake3: bool = False,
    threads: int = 1,
    overlap: bool = True,
    where: object = "",
    block: int = BLOCK,
) -> Hashes:
    """Read just *size* bytes (None: to the end), hash them as asked, hand each piece to *write* in order.

    *threads* are for BLAKE3 alone. Without *overlap* all is done in this thread, piece by piece: better where
    every core has a file of its own, as the piece then stays in that core's cache. Memory: `BUFFERS * block`.
    Raises Corrupt where *reader* ends before, and what *reader* or *write* raise; by then some bytes may be
    written.
    """
    sha = hashlib.sha256() if sha256 else None
    blake = blake3_hasher(threads) if blake3 else None
    consumers: list[Callable[[memoryview], object]] = [one.update for one in (sha, blake) if one is not None]
    if write is not None:
        consumers.append(write)
    most = _ENDLESS if size is None else size
    if most <= _INLINE or not overlap:
        count = _in_turn(reader, most, consumers)
    else:
        count = _Ring(consumers, min(block, most), BUFFERS).run(reader, most)
    if count != size and size is not None:
        raise Corrupt(
            f"ends after {count} of {size} bytes", where=where, advice="Was a copy or download cut?"
        )
    return Hashes(
        Digest("sha256", sha.hexdigest()) if sha is not None else None,
        Digest("blake3", blake.hexdigest()) if blake is not None else None,
        count,
    )


def check(blob: Blob, hashes: Hashes, where: object = "") -> Blob:
    """*blob* with *hashes* filled in; raises Corrupt where it promised others."""
    for promised, found in ((blob.digest, hashes.sha256), (blob.blake3, hashes.blake3)):
        if promised is not None and found is not None and promised != found:
            raise Corrupt(
                f"{blob.kind} {blob} is damaged: its bytes hash to {found}",
                where=where,
                advice="Copy it again from where it came, or use another copy.",
            )
    return blob.settled(Blob(blob.size, blob.media_type, hashes.sha256, hashes.blake3))


class Verified:
    """*reader* as far as *blob* goes, with Corrupt in place of the last piece where the bytes are wrong."""

    def __init__(self, reader: Reader, blob: Blob, where: object = "") -> None:
        self._reader, self._blob, self._where = reader, blob, where
        self._left = blob.size
        self._hash = hashlib.sha256()
        if blob.size == 0:
            self._finish()

    def readinto(self, into: memoryview, /) -> int:
        """As Reader says; raises Corrupt in place of the last piece."""
        if self._left == 0 or len(into) == 0:
            return 0
        count = self._reader.readinto(into[: min(len(into), self._left)])
        if count == 0:
            raise Corrupt(
                f"{self._blob} ends {self._left} bytes before its {self._blob.size}", where=self._where
            )
        self._hash.update(into[:count])
        self._left -= count
        if self._left == 0:
            self._finish()
        return count

    def _finish(self) -> None:
        check(self._blob, Hashes(Digest("sha256", self._hash.hexdigest()), None), self._where)


def read_small(reader: Reader, blob: Blob) -> bytes:
    """All of a small *blob*, at most SMALL bytes of it, that *reader* gives; Corrupt where it is not that."""
    return read_at_most(Verified(reader, blob), SMALL, str(blob))


class Counted:
    """*reader*, with `moved(count)` called for the bytes that were read."""

    def __init__(self, reader: Reader, moved: Callable[[int], object]) -> None:
        self._reader, self._moved = reader, moved

    def readinto(self, into: memoryview, /) -> int:
        """As Reader says."""
        count = self._reader.readinto(into)
        if count:
            self._moved(count)
        return count


@contextlib.contextmanager
def blamed(where: object) -> Iterator[None]:
    """Errors of ours that name no place are raised as being about *where*."""
    try:
        yield
    except ModelpackError as error:
        error.where = error.where or str(where)
        raise
