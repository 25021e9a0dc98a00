"""A session of `archive`: blobs at their offsets in a scratch file, attachments and documents last."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelpack.documents.expects import Expects
from modelpack.documents.extras import Extras
from modelpack.documents.layout import tar_layout
from modelpack.documents.model import Model, told
from modelpack.documents.oci import bundle
from modelpack.errors import NotFound, Refused
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import check, pour
from modelpack.hands.kept import Opened, pour_on
from modelpack.hands.scratch import NewFile
from modelpack.hands.writeback import Writer
from modelpack.stores import Placed
from modelpack.words.blob import Blob
from modelpack.words.reader import Reader
from modelpack.words.report import Moved, Report, Stage

if TYPE_CHECKING:
    from modelpack.stores.archive import Archive


class Writing:
    """Every blob at its place in a scratch file, then the documents; the last commit gives it its name."""

    def __init__(
        self,
        archive: Archive,
        folder: Folder,
        file: NewFile,
        models: Sequence[Model],
        expects: Expects,
        extras: Extras,
        report: Report,
    ) -> None:
        self._archive, self._folder, self._file = archive, folder, file
        self._models, self._expects, self._extras, self._report = models, expects, extras, report
        self._told = told(models)
        self._layout = tar_layout(bundle(models, expects=expects, extras=extras))
        self._offsets = self._layout.offsets()
        self._known: dict[object, Blob] = {}
        self._committed: list[Model] = []
        self._lock = threading.Lock()

    def put(self, blob: Blob, data: Reader) -> Blob:
        """As Session says."""
        # A descriptor of its own: a hand that comes late must not write to what the session has closed.
        fd = os.dup(self._file.fd)
        try:
            writer = Writer(fd, lambda count: self._report(Moved(count)))
            append = writer.appending(self._offsets[blob.id])
            hashes = pour(data, blob.size, append, blake3=True, where=self._archive.path)
            writer.drain()
        finally:
            os.close(fd)
        return self._kept(blob, check(blob, hashes))

    def put_on(self, blob: Blob, opened: Opened) -> Blob:
        """As Continues says: the archive is kept, and each blob taken up at its place in it."""
        self._file.keep = True
        fd = os.dup(self._file.fd)
        try:
            writer = Writer(fd, lambda count: self._report(Moved(count)))
            known = pour_on(fd, writer, blob, opened, self._report, at=self._offsets[blob.id], blake3=True)
            writer.drain()
        finally:
            os.close(fd)
        return self._kept(blob, known)

    def _kept(self, blob: Blob, known: Blob) -> Blob:
        with self._lock:
            self._known[blob.id] = self._known[known.id] = known
        return known

    def commit(self, model: Model) -> Placed:
        """As Session says; the archive appears with the last model."""
        for blob in model.blobs:
            if blob.id not in self._known and blob not in self._expects:
                raise NotFound(f"the {blob.kind} blob {blob} was not put", where=self._archive.path)
        settled = model.settled(self._told).settled(self._known)
        self._committed.append(settled)
        if len(self._committed) == len(self._models):
            self._finish()
        return Placed(model.name, settled.document.id, True, "archive")

    def _finish(self) -> None:
        layout = tar_layout(bundle(self._committed, expects=self._expects, extras=self._extras))
        if layout.size != self._layout.size or len(layout.pieces) != len(self._layout.pieces):
            raise Refused(
                "two blobs turned out to be the same bytes: pack them again", where=self._archive.path
            )
        places = layout.places()
        if attached := self._extras.attachments:
            self._report(Stage("attaching", sum(one.blob.size for one in attached)))
        for one in attached:
            writer = Writer(self._file.fd, lambda count: self._report(Moved(count)))
            with one.open() as reader:
                hashes = pour(reader, one.blob.size, writer.appending(places[one.path]), where=one.name)
            check(one.blob, hashes, one.name)
            writer.drain()
        for piece in layout.pieces:
            if isinstance(piece.content, bytes):
                self._file.writer.write_at(memoryview(piece.content), piece.offset)
        self._archive.appear(self._file, self._folder)
