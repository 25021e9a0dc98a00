"""A bundle that comes, or goes, through a pipe: a documents-first tar, in order, once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property

from modelpack.documents.bundled import Bundled
from modelpack.documents.contents import Contents, read_contents
from modelpack.documents.expects import FILE_NAME, NOTHING, Expects, absent
from modelpack.documents.extras import ATTACHMENT, NONE, STRIPPED, Attachment, Extras, path_of
from modelpack.documents.layout import BLOCK, END, tar_layout
from modelpack.documents.model import Model, blobs_of
from modelpack.documents.oci import ALL_DOCUMENTS, blob_path, bundle
from modelpack.documents.tarheader import Header, Members
from modelpack.errors import Corrupt, NotFound, Unsupported
from modelpack.stores import Session
from modelpack.stores.pipe_session import Piping, ToPipe
from modelpack.words.blob import MIB, SMALL, Blob
from modelpack.words.digest import Digest
from modelpack.words.reader import BytesReader, Reader, fill, read_exactly
from modelpack.words.report import Report, silent

_FIRST = "Pack it anew, or save it to a file and load that."


class PipeSource(Bundled):
    """The bundle that *stream* brings. Documents are kept (bounded), blobs pass by."""

    def __init__(self, stream: Reader, where: object = "the pipe", *, expect: Digest | None = None) -> None:
        self._stream, self._where, self._expect = stream, where, expect
        self._members = Members(where)
        self._kept: dict[str, bytes] = {}
        self._next: Header | None = None
        self._begun = self._ended = False
        self.attaches: Callable[[Attachment], None] | None = None
        """Is called with each attachment as it passes by; that can be opened once, then and there."""

    @cached_property
    def contents(self) -> Contents:
        """What its documents say, all of them checked; the pipe then stands before the first blob."""
        return read_contents(self._document, self._where, self._expect)

    def read(self, path: str, most: int) -> bytes:
        """The document at *path*, before the first blob has passed; NotFound, or Corrupt where it has more
        than *most* bytes.
        """
        return self._document(path, most)

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
        for path in self._attached.keys() & self._kept.keys():  # from a tar that another tool wrote
            self._pass_on(path, len(self._kept[path]), BytesReader(self._kept[path]))
        while (header := self._advance()) is not None:
            self._next = None
            blob = promised.pop(header.path, None)
            if blob is not None and blob.size != header.size:
                raise Corrupt(f"{header.path} has {header.size} bytes, not {blob.size}", where=self._where)
            body = _Bounded(self._stream, header.size, self._where)
            if header.path in asked:
                yield asked[header.path], body
            elif header.path in self._attached:
                self._pass_on(header.path, header.size, body)
            body.skip()
            _read(self._stream, -header.size % BLOCK, self._where)
        if promised:
            raise Corrupt(
                f"ended, and {len(promised)} of the blobs never came ({next(iter(promised.values()))})",
                where=self._where,
                advice="The bundle is cut, or its writer failed.",
            )

    @cached_property
    def _attached(self) -> dict[str, tuple[str, Digest]]:
        return {path_of(name): (name, digest) for name, digest in self.contents.attachments}

    def _pass_on(self, path: str, size: int, body: Reader) -> None:
        if self.attaches is not None:
            name, digest = self._attached[path]
            blob = Blob(size, ATTACHMENT, digest)
            self.attaches(Attachment(name, blob, lambda: contextlib.nullcontext(body)))

    def _document(self, path: str, most: int) -> bytes:
        while path not in self._kept:
            header = self._advance()
            if header is None:
                raise NotFound(f"{path} is missing: not a bundle, or not all of it", where=self._where)
            optional = path.startswith(("SHA256SUMS", FILE_NAME, *STRIPPED)) and "index.json" in self._kept
            if optional and header.path.startswith(("blobs/", path_of(""))):
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
    """A bundle written to the pipe *out*. Blobs must be hashed before, and come in order.

    *out* is a descriptor, or what takes each piece as it comes, all of it or an error. Blobs that it
    *expects* at the target do not come; *extras* do.
    """

    def __init__(
        self,
        out: int | Callable[[memoryview], None],
        where: object = "standard output",
        *,
        expects: Expects = NOTHING,
        extras: Extras = NONE,
    ) -> None:
        self._out: Callable[[memoryview], None] = ToPipe(out, where) if isinstance(out, int) else out
        self._where, self._leaves, self._extras = where, expects, extras
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
        contents = bundle(models, expects=self._leaves, extras=self._extras)
        self._index = contents.index
        layout = tar_layout(contents)
        yield Piping(self._out, self._where, models, layout, self._leaves, self._extras, report)
