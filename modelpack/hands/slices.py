"""Bytes written in order into volumes, each hashed on the way: SHA-256, and BLAKE3 block by block.

The volumes lie under names that nobody takes for real until `appear`. Hashes run beside the writing: the
medium is the slower one, and stays busy.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from modelpack.errors import Local, ModelpackError, Refused, from_os
from modelpack.hands.bytes import FileReader
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import Hasher, blake3_hasher, pour
from modelpack.hands.scratch import SCRATCH, check_room, make_room
from modelpack.hands.writeback import Writer
from modelpack.words.blob import KIB
from modelpack.words.digest import ZERO, Digest
from modelpack.words.volume import BLOCK_SIZE, Volume, volume_name

_INLINE = 256 * KIB  # below this a thread costs more than it gives
_PREFIX = "volume-"


@contextlib.contextmanager
def bench(folder: Folder) -> Iterator[Folder]:
    """The place for unfinished files of a set in *folder*, for one run at a time: others wait for its lock.

    What a run that was killed left there goes first; what is left in the end goes, too.
    """
    folder.lock()
    with folder.folder(SCRATCH, create=True) as there:
        _sweep(there)
        try:
            yield there
        finally:
            _sweep(there)
            with contextlib.suppress(Local, Refused):  # somebody else's files are in it
                folder.remove(SCRATCH)


def _sweep(there: Folder) -> None:
    for name in there.names():
        if name.startswith(_PREFIX):
            with contextlib.suppress(ModelpackError):
                there.remove(name)


class Blocks:
    """The BLAKE3 (32 bytes) of each *size* bytes of what it is given, in order."""

    def __init__(self, size: int) -> None:
        self._size, self._left = size, size
        self._hasher: Hasher | None = None
        self._found: list[bytes] = []

    def update(self, data: memoryview, /) -> None:
        """Take more bytes."""
        while data:
            if self._hasher is None:
                self._hasher, self._left = blake3_hasher(), self._size
            part = data[: self._left]
            self._hasher.update(part)
            self._left -= len(part)
            data = data[len(part) :]
            if not self._left:
                self._end()

    def finish(self) -> tuple[bytes, ...]:
        """Those of all blocks; the last one may have been short."""
        self._end()
        return tuple(self._found)

    def _end(self) -> None:
        if self._hasher is not None:
            self._found.append(bytes.fromhex(self._hasher.hexdigest()))
            self._hasher = None


class Slice:
    """The volume *n* of *size* bytes at *offset*, while it is written in *there*; its bytes come in order.

    Unless it is *hashed* on the way, `volume` reads it once more: some of its bytes are to be `patch`ed. Not
    for several threads at a time. Raises Local where the medium takes it not, all of it or in one file.
    """

    def __init__(
        self,
        there: Folder,
        name: str,
        n: int,
        offset: int,
        size: int,
        block_size: int,
        *,
        hashed: bool = True,
    ) -> None:
        self.n, self.name, self.offset, self.size = n, name, offset, size
        self._there, self._block_size, self._hashed = there, block_size, hashed
        self._scratch = f"{_PREFIX}{n:03}-{secrets.token_hex(8)}"
        self._sha, self._blocks = hashlib.sha256(), Blocks(block_size)
        self._fd = there.create(self._scratch, 0o666)
        try:
            make_room(self._fd, size, there)
        except BaseException:
            os.close(self._fd)
            raise
        self._writer = Writer(self._fd)
        self.filled = 0

    def write(self, data: memoryview, pool: ThreadPoolExecutor | None = None) -> None:
        """Write what comes next; hashed in *pool* meanwhile."""
        hashing: list[Future[object]] = []
        if self._hashed:
            for work in (self._sha.update, self._blocks.update):
                if pool is None or len(data) < _INLINE:
                    work(data)
                else:
                    hashing.append(pool.submit(work, data))
        try:
            self._writer.write_at(data, self.filled)
        except OSError as error:
            raise from_os(error, self._place) from error
        finally:
            for each in hashing:
                each.result()
        self.filled += len(data)

    def patch(self, data: memoryview, at: int) -> None:
        """Write *data* once more at *at* bytes of the volume; `close` was called before."""
        self._hashed = False
        fd = self._there.open_file(self._scratch, write=True)
        try:
            Writer(fd).write_at(data, at)
        except OSError as error:
            raise from_os(error, self._place) from error
        finally:
            os.close(fd)

    def close(self) -> None:
        """Wait until the medium has every byte, and let go of the file."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            self._writer.finish()
        except OSError as error:
            raise from_os(error, self._place) from error
        finally:
            self._writer.close()
            os.close(fd)

    def volume(self) -> Volume:
        """What it came to."""
        found: Digest | None = Digest("sha256", self._sha.hexdigest())
        if not self._hashed:
            self._blocks = Blocks(self._block_size)
            fd = self._there.open_file(self._scratch, write=True)
            with FileReader(fd, 0, self.size, self._there.path / self._scratch) as reader:
                found = pour(reader, self.size, self._blocks.update, where=self._place).sha256
                os.fsync(fd)
        return Volume(self.n, self.name, self.offset, self.size, found or ZERO, self._blocks.finish())

    def appear(self, folder: Folder, *, replace: bool) -> None:
        """Give the file the volume's name in *folder*."""
        self._there.rename(self._scratch, folder, self.name, replace=replace)

    @property
    def _place(self) -> object:
        return self._there.path.parent / self.name


class Slices:
    """The *size* bytes of a tar, cut every *volume_size* bytes into `STEM.tar.001` …, unfinished in *there*.

    `write` takes them in order, `patch` what was to become known later; the numbers in *late* are those of
    volumes that will be patched, which are hashed once all is written. Memory: what `write` is given.
    """

    def __init__(
        self,
        there: Folder,
        stem: str,
        size: int,
        volume_size: int,
        *,
        block_size: int = BLOCK_SIZE,
        late: Collection[int] = (),
        moved: Callable[[int], object] = lambda _count: None,
    ) -> None:
        check_room(there, size)
        self._there, self._stem, self._size, self._volume_size = there, stem, size, volume_size
        self._block_size, self._late, self._moved = block_size, late, moved
        self._slices: list[Slice] = []
        self._offset = 0
        self._pool = ThreadPoolExecutor(3, thread_name_prefix="modelpack-volumes")
        self._closing: Future[None] | None = None

    def __enter__(self) -> Slices:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for one in self._slices:
            with contextlib.suppress(ModelpackError):
                one.close()

    def write(self, data: memoryview) -> None:
        """Write what comes next, into as many volumes as it needs."""
        while data:
            here = self._slices[-1] if self._slices else None
            if here is None or here.filled == here.size:
                here = self._next()
            part = data[: here.size - here.filled]
            here.write(part, self._pool)
            self._offset += len(part)
            self._moved(len(part))
            if here.filled == here.size:
                self._settle()
                self._closing = self._pool.submit(here.close)
            data = data[len(part) :]

    def _next(self) -> Slice:
        n, offset = len(self._slices) + 1, self._offset
        size = min(self._volume_size, self._size - offset)
        name = volume_name(self._stem, n)
        here = Slice(self._there, name, n, offset, size, self._block_size, hashed=n not in self._late)
        self._slices.append(here)
        return here

    def _settle(self) -> None:
        closing, self._closing = self._closing, None
        if closing is not None:
            closing.result()

    def patch(self, data: bytes, offset: int) -> None:
        """Write *data* over what stands at *offset*; all was written before."""
        self._settle()
        left = memoryview(data)
        while left:
            n, at = divmod(offset, self._volume_size)
            part = left[: self._volume_size - at]
            self._slices[n].patch(part, at)
            offset += len(part)
            left = left[len(part) :]

    def finish(self) -> tuple[Volume, ...]:
        """Wait until the medium has everything; what the volumes came to."""
        self._settle()
        return tuple(one.volume() for one in self._slices)

    def appear(self, folder: Folder, *, replace: bool) -> None:
        """Give every volume its name in *folder*."""
        for one in self._slices:
            one.appear(folder, replace=replace)


def put_texts(there: Folder, texts: Mapping[str, bytes]) -> Callable[[Folder], None]:
    """Write small files in *there*; what comes back gives them their names in a folder, each whole."""
    written: list[tuple[str, str]] = []
    for name, raw in texts.items():
        scratch = f"{_PREFIX}text-{secrets.token_hex(8)}"
        fd = there.create(scratch, 0o666)
        try:
            Writer(fd).write_at(memoryview(raw), 0)
            os.fsync(fd)
        except OSError as error:
            raise from_os(error, there.path.parent / name) from error
        finally:
            os.close(fd)
        written.append((scratch, name))

    def appear(folder: Folder) -> None:
        for scratch, name in written:
            there.rename(scratch, folder, name)

    return appear
