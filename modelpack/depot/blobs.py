"""Blobs that come over HTTP: to disk as they come, hashed on the way, a name at the very end."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from threading import BoundedSemaphore, Lock

from modelpack.depot.asked import Says, Stream
from modelpack.depot.golang import quoted
from modelpack.errors import Corrupt, Local, ModelpackError, NotFound, Refused, Unreachable
from modelpack.hands import system
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import pour
from modelpack.hands.scratch import NewFile, Scratch, check_room
from modelpack.stores.models_dir import SCRATCH
from modelpack.words.blob import KIB, MIB
from modelpack.words.digest import Digest

_NAME = re.compile(r"sha256[:-][0-9a-fA-F]{64}", re.ASCII)
_BLOCK, _LARGE_BLOCK = 256 * KIB, MIB
"""Four of these for each upload; the large ones, which are faster, for the first few at a time."""
_LARGE_ONES = BoundedSemaphore(4)


class Blobs:
    """The blobs of the models directory at *path*; *changing* is held while anything else is written."""

    def __init__(self, path: Path, changing: Lock) -> None:
        self.path = path
        self._changing = changing

    def has(self, named: str) -> bool:
        """Whether a blob of this name is there; Says 400 for a name that is no digest.

        As Ollama does, it looks for the file of the very name that was given: a digest in upper-case digits
        is not there.
        """
        if _NAME.fullmatch(named) is None:
            raise Says(400, "invalid digest format")
        with contextlib.suppress(NotFound), Folder.at(self.path) as root, root.folder("blobs") as blobs:
            return blobs.file_size(named.replace(":", "-")) is not None
        return False

    def take(self, named: str, body: Stream, length: int | None) -> None:
        """Store *body*, of *length* bytes where that is known, as the blob *named*.

        Says 400 where it has another digest: then nothing of it stays. (Ollama keeps it under the digest that
        it has, where nothing names it.)
        """
        reader = _BodyReader(body)
        if named != f"sha256:{named[7:].lower()}":
            # Ollama compares texts: no bytes have a digest that is spelled like that. They are read all the
            # same, for the answer says what they came to.
            raise _mismatch(named, _pour(reader, length, None))
        with self._new_file(length or 0) as (file, blobs, like):
            digest = _pour(reader, length, file)
            if str(digest) != named:
                raise _mismatch(named, digest)
            system.give(file.fd, like, directory=False)
            file.appear(blobs, digest.file_name)

    @contextlib.contextmanager
    def _new_file(self, size: int) -> Iterator[tuple[NewFile, Folder, os.stat_result]]:
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


def _pour(reader: _BodyReader, length: int | None, file: NewFile | None) -> Digest:
    """Read all of *reader*, into *file* where there is one."""
    append = file.writer.appending() if file is not None else None
    with _cut(), _block() as block:
        found = pour(reader, length, append, block=block).sha256
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
