"""Files that become blobs: one as it is, or all shards of a GGUF merged while they are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self

from modelpack.documents.gguf import Gguf, read_gguf
from modelpack.documents.shards import Merged, Piece, Shard, family_of, merge, not_all_there, shard_name
from modelpack.errors import Corrupt, from_os
from modelpack.hands.bytes import FileReader
from modelpack.hands.hashing import Hasher, blamed
from modelpack.words.blob import MIB
from modelpack.words.digest import Digest
from modelpack.words.reader import BytesReader, Reader, fill, read_exactly

_CHUNK = MIB
"""Bytes that are hashed as soon as they are read: so much stays in a core's cache."""


class Part(Protocol):
    """What becomes one blob."""

    @property
    def title(self) -> str:
        """The file name to keep."""
        ...

    @property
    def key(self) -> object:
        """What the blob is known by while it is unread: the same for the same files, however named."""
        ...

    @property
    def size(self) -> int:
        """Bytes of the blob."""
        ...

    @property
    def shards(self) -> int:
        """How many shards are read as one; 0 for a plain file."""
        ...

    def open(self, offset: int = 0) -> AbstractContextManager[Reader]:
        """Its bytes, from any thread; Corrupt where a file is not what it was when it was first opened."""
        ...

    def learned(self) -> tuple[Digest, ...]:
        """The SHA-256 of every shard's file, in order, once a reader from 0 came to its end; before, ()."""
        ...


class WholeFile:
    """The plain file at *path*; a link is followed, and its own name kept.

    It must stay what it was when it was opened first: what was said of its header is of that one.
    """

    shards = 0

    def __init__(self, path: Path) -> None:
        self.path = path
        self.title = path.name
        self._mark: tuple[int, ...] = ()

    @cached_property
    def key(self) -> object:
        """Its real path."""
        return os.path.realpath(self.path)

    @cached_property
    def size(self) -> int:
        """Bytes of the file."""
        with self.open() as reader:
            return reader.size

    @cached_property
    def gguf(self) -> Gguf:
        """The header, checked: a file that is cut shows by the end of its last tensor."""
        return self.header()

    def header(self) -> Gguf:
        """The header, read anew and kept nowhere."""
        with self.open() as reader, blamed(self.path):
            return read_gguf(reader, reader.size)

    def open(self, offset: int = 0) -> FileReader:
        """Its bytes; Corrupt where it changed."""
        reader = FileReader.at(self.path, offset)
        self._mark = self._mark or reader.mark
        if reader.mark != self._mark:
            with reader:
                raise Corrupt(
                    "changed since its header was read",
                    where=self.path,
                    advice="Wait until its writer is done.",
                )
        return reader

    def learned(self) -> tuple[Digest, ...]:
        """Nothing: it has no shards."""
        return ()


class MergedShards:
    """All shards of one GGUF, at *paths*, as the file that `llama-gguf-split --merge` makes of them.

    Reading it from the start reads each shard once, from its first byte to its last, and hashes that too.
    What is wrong with the family is raised by `size`, `gguf` and `open`.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [WholeFile(path) for path in sorted(paths, key=lambda path: path.name)]
        self._learned: tuple[Digest, ...] = ()

    @cached_property
    def title(self) -> str:
        """`tiny-llama.gguf`."""
        named = shard_name(self._files[0].title)
        return f"{named[0]}.gguf" if named is not None else self._files[0].title

    @cached_property
    def key(self) -> object:
        """The real paths of all."""
        return tuple(file.key for file in self._files)

    @property
    def shards(self) -> int:
        """How many they are."""
        return len(self._files)

    @property
    def size(self) -> int:
        """Bytes of the merged file."""
        return self._merged.size

    @property
    def gguf(self) -> Gguf:
        """The header of the merged file."""
        return self._merged.gguf

    @cached_property
    def _merged(self) -> Merged:
        return merge(map(_shard, self._files), self._files[0].path.parent)

    def open(self, offset: int = 0) -> AbstractContextManager[Reader]:
        """The merged bytes; Corrupt where a shard changed, or changes meanwhile."""
        return _Merging(self._merged, self._files, offset, self._learn)

    def _learn(self, digests: tuple[Digest, ...]) -> None:
        self._learned = digests

    def learned(self) -> tuple[Digest, ...]:
        """As Part says."""
        return self._learned


def find_family(path: Path) -> list[Path] | None:
    """Where all shards of the family of *path* are: beside it, in order; None where its name is no shard's.

    Raises NotFound, which names those that are not there.
    """
    names = family_of(path.name)
    if names is None:
        return None
    paths = [path.with_name(name) for name in names]
    try:
        missing = [one.name for one in paths if not one.exists()]
    except OSError as error:
        raise from_os(error, path.parent) from error
    if missing:
        raise not_all_there(missing, path.parent)
    return paths


def _shard(file: WholeFile) -> Shard:
    gguf = file.header()
    with file.open() as reader, blamed(file.path):
        return Shard(file.title, file.size, gguf, read_exactly(reader, gguf.tensors_offset, "its metadata"))


class _Merging:
    """The bytes of *merged* from *offset* on; from 0, *learn* gets the files' digests at the end."""

    def __init__(
        self,
        merged: Merged,
        files: Sequence[WholeFile],
        offset: int,
        learn: Callable[[tuple[Digest, ...]], None],
    ) -> None:
        self._merged, self._files, self._learn = merged, files, learn
        self._left = max(0, merged.size - offset)
        self._runs = self._all_runs(offset)
        self._run: Reader = BytesReader(b"")
        self._spare = memoryview(bytearray())

    def readinto(self, into: memoryview, /) -> int:
        """As Reader says; as much as there is room for."""
        into = into[: self._left]
        done = 0
        while True:
            done += fill(self._run, into[done:])
            if done == len(into):
                break
            self._run = next(self._runs)
        self._left -= done
        if done and not self._left:  # whoever knows the size does not ask again
            for _ in self._runs:
                pass
        return done

    def _all_runs(self, offset: int) -> Generator[Reader, None, None]:
        """What the whole is made of, from *offset* on, one after the other."""
        yield BytesReader(self._merged.front, offset)
        skip = max(0, offset - len(self._merged.front))
        digests = []
        for file, pieces in zip(self._files, self._merged.pieces, strict=True):
            rest = list(_beyond(pieces, skip))
            skip = max(0, skip - sum(piece.size + piece.padding for piece in pieces))
            if offset == 0:
                sha256 = hashlib.sha256()
                yield from self._runs_of(file, rest, 0, sha256)
                digests.append(Digest("sha256", sha256.hexdigest()))
            elif rest:
                yield from self._runs_of(file, rest, rest[0].offset, None)
        if offset == 0:
            self._learn(tuple(digests))

    def _runs_of(
        self, file: WholeFile, pieces: Sequence[Piece], start: int, sha256: Hasher | None
    ) -> Generator[Reader, None, None]:
        """The *pieces* of *file*, which is read from *start* to its end."""
        with file.open(start) as reader:
            window = _Window(reader, sha256)
            at = start
            for piece in pieces:
                self._pass_over(window, piece.offset - at)
                window.left = piece.size
                yield window
                yield BytesReader(bytes(piece.padding))
                at = piece.offset + piece.size
            self._pass_over(window, start + reader.size - at)

    def _pass_over(self, window: _Window, count: int) -> None:
        window.left = count
        if count and not self._spare:
            self._spare = memoryview(bytearray(_CHUNK))
        while fill(window, self._spare):
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runs.close()


class _Window:
    """The next `left` bytes of *reader*, each hashed as soon as it is read."""

    def __init__(self, reader: Reader, sha256: Hasher | None) -> None:
        self._reader, self._sha256 = reader, sha256
        self.left = 0

    def readinto(self, into: memoryview, /) -> int:
        """As Reader says."""
        want = min(len(into), self.left, _CHUNK)
        count = self._reader.readinto(into[:want])
        if self._sha256 is not None:
            self._sha256.update(into[:count])
        self.left -= count
        return count


def _beyond(pieces: Sequence[Piece], skip: int) -> Iterator[Piece]:
    """What is left of *pieces* after *skip* bytes."""
    for piece in pieces:
        whole = piece.size + piece.padding
        if skip < whole:
            gone = min(skip, piece.size)
            yield Piece(piece.offset + gone, piece.size - gone, whole - skip - (piece.size - gone))
        skip = max(0, skip - whole)
