"""Blobs that come over HTTP: to disk as they come, hashed on the way, a name at the very end."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from threading import BoundedSemaphore, Lock

from modelpack.depot.asked import Says, Stream
from modelpack.depot.golang import quoted
from modelpack.depot.shelf import Shelf
from modelpack.depot.workers import WRITERS
from modelpack.errors import Corrupt, Local, ModelpackError, NotFound, Refused, Unreachable
from modelpack.hands import system
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import Hashes, pour
from modelpack.hands.scratch import SCRATCH, NewFile, Scratch, check_room
from modelpack.stores.models_dir import ModelsDir
from modelpack.words.blob import KIB, MIB
from modelpack.words.digest import Digest

_NAME = re.compile(r"sha256[:-][0-9a-fA-F]{64}", re.ASCII)
_BLOCK, _LARGE_BLOCK = 256 * KIB, MIB
"""Four of these for each upload; the large ones, which are faster, for the first few at a time."""
_LARGE_ONES = BoundedSemaphore(4)
_WRITING = BoundedSemaphore(WRITERS)


def has(shelf: Shelf, named: str) -> bool:
    """Whether a blob of this name is there; Says 400 for a name that is no digest.

    As Ollama does, it looks for the file of the very name that was given: a digest in upper-case digits
    is not there.
    """
    if _NAME.fullmatch(named) is None:
        raise Says(400, "invalid digest format")
    digest = Digest.parse(named)
    return named[7:] == digest.hex and shelf.size_of(digest) is not None


class Blobs:
    """The blobs of the models directory *store*; *changing* is held while anything else is written."""

    def __init__(self, store: ModelsDir, changing: Lock) -> None:
        self.path = store.path
        self._store, self._changing = store, changing

    def take(self, named: str, body: Stream, length: int | None) -> None:
        """Store *body*, of *length* bytes where that is known, as the blob *named*.

        Says 400 where it has another digest: then nothing of it stays. (Ollama keeps it under the digest that
        it has, where nothing names it.)
        """
        if named != f"sha256:{named[7:].lower()}":
            # Ollama compares texts: no bytes have a digest that is spelled like that. They are read all the
            # same, for the answer says what they came to.
            raise _mismatch(named, _pour(body, length, None))
        with self.new_file(length or 0) as (file, blobs, like):
            digest = _pour(body, length, file)
            if str(digest) != named:
                raise _mismatch(named, digest)
            self.appear(file, blobs, like, digest)

    def appear(self, file: NewFile, blobs: Folder, like: os.stat_result, digest: Digest) -> None:
        """Give *file*, as `new_file` gave it, the name of *digest*, to which its bytes were hashed."""
        system.give(file.fd, like, directory=False)
        file.appear(blobs, digest.file_name)
        self._store.vouch(digest, os.fstat(file.fd))  # after that: a rename changes the ctime

    @contextlib.contextmanager
    def new_file(self, size: int) -> Iterator[tuple[NewFile, Folder, os.stat_result]]:
        """A file for *size* bytes to come, `blobs/` where it may appear, and whose owner it gets."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._tidy)  # last of all, whatever became of the upload
            root = stack.enter_context(Folder.at(self.path, create=True))
            check_room(root, size)
            like = root.own_stat()
            blobs = stack.enter_context(root.folder("blobs", create=True, like=like))

            def again() -> Folder:  # somebody who was done may have removed the directory
                return stack.enter_context(root.folder(SCRATCH, create=True, like=like))

            file = stack.enter_context(Scratch(again(), again=again).new(size))
            yield file, blobs, like

    def _tidy(self) -> None:
        with self._changing, contextlib.suppress(ModelpackError), Folder.at(self.path) as root:
            root.remove(SCRATCH)  # only where nobody works in it

    def sweep(self) -> None:
        """Remove what uploads to a depot that was killed have left."""
        with contextlib.suppress(NotFound), Folder.at(self.path) as root:
            with root.folder(SCRATCH) as scratch:
                Scratch(scratch).sweep()
            with contextlib.suppress(Local, Refused):
                root.remove(SCRATCH)


class _BodyReader:
    """A request's body as a Reader."""

    def __init__(self, body: Stream) -> None:
        self._read = body.read
        self._readinto = getattr(body, "readinto", None)

    def readinto(self, into: memoryview, /) -> int:
        try:
            if self._readinto is not None:
                count = int(self._readinto(into))
            else:
                piece = self._read(len(into))
                count = len(piece)
                into[:count] = piece
        except OSError as error:  # of the connection: one of the disk is another matter
            raise Unreachable(str(error) or "the connection broke") from None
        return count


def receive(
    body: Stream, length: int | None, write: Callable[[memoryview], object] | None, *, sha256: bool = True
) -> Hashes:
    """All of *body*, of *length* bytes where that is known, to *write*; how many they were, and their hash.

    Says 503 where too many do this at once. Unreachable where the body is cut.
    """
    if not _WRITING.acquire(blocking=False):
        raise Says(503, "too many uploads at once; try again later")
    try:
        with _cut(), _block() as block:
            return pour(_BodyReader(body), length, write, sha256=sha256, block=block)
    finally:
        _WRITING.release()


def _pour(body: Stream, length: int | None, file: NewFile | None) -> Digest:
    append = file.writer.appending() if file is not None else None
    found = receive(body, length, append).sha256
    assert found is not None  # noqa: S101 - it was asked for
    return found


@contextlib.contextmanager
def _block() -> Iterator[int]:
    large = _LARGE_ONES.acquire(blocking=False)
    try:
        yield _LARGE_BLOCK if large else _BLOCK
    finally:
        if large:
            _LARGE_ONES.release()


@contextlib.contextmanager
def _cut() -> Iterator[None]:
    try:
        yield
    except Corrupt:
        raise Unreachable("unexpected EOF") from None


def _mismatch(named: str, digest: Digest) -> Says:
    return Says(400, f"digest mismatch, expected {quoted(named)}, got {quoted(str(digest))}")
