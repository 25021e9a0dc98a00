"""A bundle that comes, or goes, through a pipe: a documents-first tar, in order, once."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property

from modelpack.documents.contents import Contents, read_contents
from modelpack.documents.expects import FILE_NAME, NOTHING, Expects, absent
from modelpack.documents.layout import BLOCK, END, Layout, tar_layout
from modelpack.documents.model import Model, blobs_of
from modelpack.documents.oci import ALL_DOCUMENTS, blob_path, bundle
from modelpack.documents.tarheader import Header, Members
from modelpack.errors import Corrupt, Local, NotFound, Unsupported, from_os
from modelpack.hands.hashing import check, pour
from modelpack.stores import Placed, Session
from modelpack.words.blob import MIB, SMALL, Blob
from modelpack.words.digest import Digest
from modelpack.words.reader import BytesReader, Reader, fill, read_exactly
from modelpack.words.report import Moved, Report, silent

_FIRST = "Pack it anew, or save it to a file and load that."


class PipeSource:
    """The bundle that *stream* brings. Documents are kept (bounded), blobs pass by."""

    def __init__(self, stream: Reader, where: object = "the pipe", *, expect: Digest | None = None) -> None:
        self._stream, self._where, self._expect = stream, where, expect
        self._members = Members(where)
        self._kept: dict[str, bytes] = {}
        self._next: Header | None = None
        self._begun = self._ended = False

    @cached_property
    def contents(self) -> Contents:
        """What its documents say, all of them checked; the pipe then stands before the first blob."""
        return read_contents(self._document, self._where, self._expect)

    @property
    def fingerprint(self) -> Digest:
        """SHA-256 of its index.json."""
        return self.contents.fingerprint

    @property
    def expects(self) -> frozenset[Digest]:
        """Blobs that its models name and it does not bring: a delta expects them at the target."""
        return self.contents.expects

    def models(self) -> Sequence[Model]:
        """The models of the bundle, in the order of its index."""
        return self.contents.models

    def open(self, blob: Blob, offset: int = 0) -> AbstractContextManager[Reader]:
        """Only what was kept can be opened; the rest comes by `passing`."""
        raw = self._kept.get(blob_path(blob.digest))
        if raw is None and blob in self.contents.delta:
            raise absent(blob, self.contents.delta, self._where)
        if raw is None:
            raise Unsupported(
                f"{blob} can be read only once, in its turn", where=self._where, advice="Use a file."
            )
        return contextlib.nullcontext(BytesReader(raw, offset))

    def passing(self, wanted: Sequence[Blob]) -> Iterator[tuple[Blob, Reader]]:
        """The *wanted* blobs as they come; at the end every file that the index promises has come."""
        delta = self.contents.delta
        if away := [blob for blob in wanted if blob in delta]:
            raise absent(away[0], delta, self._where)
        promised = {
            blob_path(blob.digest): blob for blob in blobs_of(self.contents.models) if blob not in delta
        }
        asked = {blob_path(blob.digest): blob for blob in wanted}
        for path, raw in list(self._kept.items()):
            if promised.pop(path, None) is not None and path in asked:
                yield asked[path], BytesReader(raw)
        while (header := self._advance()) is not None:
            self._next = None
            blob = promised.pop(header.path, None)
            if blob is not None and blob.size != header.size:
                raise Corrupt(f"{header.path} has {header.size} bytes, not {blob.size}", where=self._where)
            body = _Bounded(self._stream, header.size, self._where)
            if header.path in asked:
                yield asked[header.path], body
            body.skip()
            _read(self._stream, -header.size % BLOCK, self._where)
        if promised:
            raise Corrupt(
                f"ended, and {len(promised)} of the blobs never came ({next(iter(promised.values()))})",
                where=self._where,
                advice="The bundle is cut, or its writer failed.",
            )

    def _document(self, path: str, most: int) -> bytes:
        while path not in self._kept:
            header = self._advance()
            if header is None:
                raise NotFound(f"{path} is missing: not a bundle, or not all of it", where=self._where)
            optional = path.startswith(("SHA256SUMS", FILE_NAME)) and "index.json" in self._kept
            if optional and header.path.startswith("blobs/"):
                raise NotFound(f"{path} is missing", where=self._where)
            if header.path == path and header.size > SMALL:
                raise Corrupt(f"{path} has {header.size} bytes; no real one has", where=self._where)
            if header.size > SMALL or sum(map(len, self._kept.values())) + header.size > ALL_DOCUMENTS:
                raise Unsupported(
                    f"its documents do not come first: {path} is still to come at {header.path[:100]!r}",
                    where=self._where,
                    advice=_FIRST,
                )
            self._next = None
            self._kept[header.path] = _read(self._stream, header.size, self._where)
            _read(self._stream, -header.size % BLOCK, self._where)
        if len(self._kept[path]) > most:
            raise Corrupt(f"{path} is larger than {most} bytes; no real one is", where=self._where)
        return self._kept[path]

    def _advance(self) -> Header | None:
        """The member whose bytes come next; the same one until `_next` is cleared."""
        while self._next is None and not self._ended:
            block = _read(self._stream, BLOCK, self._where, begun=self._begun)
            self._begun = True
            header = self._members.step(block)
            if header is None:
                self._finish()
            elif self._members.wants_note(header):
                self._members.note(header, _read(self._stream, header.padded, self._where)[: header.size])
            elif header.kind != "5":
                self._next = header
        return self._next

    def _finish(self) -> None:
        self._ended = True
        if _read(self._stream, len(END) - BLOCK, self._where) != END[BLOCK:]:
            raise Corrupt("has no end: its last blocks are damaged", where=self._where)
        # GNU tar fills up its last record; a writer whose reader leaves early would see a broken pipe.
        rest = memoryview(bytearray(64 * 1024))
        for _ in range(1024):
            if fill(self._stream, rest) == 0:
                return


class _Bounded:
    def __init__(self, stream: Reader, size: int, where: object) -> None:
        self._stream, self._left, self._where = stream, size, where

    def readinto(self, into: memoryview, /) -> int:
        want = min(len(into), self._left)
        if want == 0:
            return 0
        count = self._stream.readinto(into[:want])
        if count == 0:
            raise _cut(self._where)
        self._left -= count
        return count

    def skip(self) -> None:
        waste = memoryview(bytearray(min(self._left, MIB)))
        while self._left:
            self.readinto(waste)


def _cut(where: object) -> Corrupt:
    return Corrupt(
        "is cut: it ended in the middle", where=where, advice="Did the program before the pipe fail?"
    )


def _read(stream: Reader, size: int, where: object, *, begun: bool = True) -> bytes:
    try:
        return read_exactly(stream, size, "the tar")
    except Corrupt:
        if not begun:
            raise Corrupt("brought nothing, or no tar", where=where) from None
        raise _cut(where) from None


class PipeTarget:
    """A bundle written to the pipe *fd*. Blobs must be hashed before, and come in order.

    Those that it *expects* at the target do not come.
    """

    def __init__(self, fd: int, where: object = "standard output", *, expects: Expects = NOTHING) -> None:
        self._fd, self._where, self._leaves = fd, where, expects
        self._index = b""

    @property
    def fingerprint(self) -> Digest:
        """SHA-256 of the index.json that was written."""
        return Digest.of(self._index)

    def takes_unread(self, _models: Sequence[Model]) -> bool:
        """Documents go first, and hold every digest."""
        return False

    def in_order(self) -> bool:
        """A pipe has one position."""
        return True

    def leaves(self) -> frozenset[Digest]:
        """The blobs that are not written, since they are expected at the target."""
        return self._leaves.digests

    def missing(self, models: Sequence[Model]) -> Sequence[Blob]:
        """Everything that is not expected at the target: nobody knows what is behind a pipe."""
        return [blob for blob in blobs_of(models) if blob not in self._leaves]

    @contextlib.contextmanager
    def session(self, models: Sequence[Model], report: Report = silent) -> Iterator[Session]:
        """Write documents, then blobs as they are put; the end comes with the last commit."""
        contents = bundle(models, expects=self._leaves)
        self._index = contents.index
        yield _Piping(self._fd, self._where, models, tar_layout(contents), self._leaves, report)


class _Piping:
    def __init__(
        self,
        fd: int,
        where: object,
        models: Sequence[Model],
        layout: Layout,
        expects: Expects,
        report: Report,
    ) -> None:
        self._fd, self._where, self._models, self._report = fd, where, models, report
        self._expects = expects
        self._pieces = deque(piece.content for piece in layout.pieces)
        self._put: set[object] = set()
        self._committed = 0
        self._broken = False

    def put(self, blob: Blob, data: Reader) -> Blob:
        self._until_blob()
        content = self._pieces[0] if self._pieces else None
        if self._broken or not isinstance(content, Blob) or content.id != blob.id:
            raise Unsupported(
                f"{blob} cannot come now: a pipe takes each blob once, in its turn",
                where=self._where,
                advice="Use a file.",
            )
        self._broken = True  # unless all of it comes: what has gone into a pipe cannot be taken back
        known = check(blob, pour(data, blob.size, self._write, blake3=True, where=self._where))
        self._broken = False
        self._pieces.popleft()
        self._put.add(blob.id)
        return known

    def commit(self, model: Model) -> Placed:
        for blob in model.blobs:
            if blob.id not in self._put and blob not in self._expects:
                raise NotFound(f"the {blob.kind} blob {blob} was not put", where=self._where)
        self._committed += 1
        if self._committed == len(self._models):
            self._until_blob()
        return Placed(model.name, model.document.id, True, "pipe")

    def _until_blob(self) -> None:
        while self._pieces and isinstance(content := self._pieces[0], bytes):
            self._write(memoryview(content))
            self._pieces.popleft()

    def _write(self, data: memoryview) -> None:
        left = data
        while left:
            try:
                left = left[os.write(self._fd, left[:MIB]) :]
            except BrokenPipeError as error:
                raise Local("the reader of the pipe went away", where=self._where) from error
            except OSError as error:
                raise from_os(error, self._where) from error
        self._report(Moved(len(data)))
