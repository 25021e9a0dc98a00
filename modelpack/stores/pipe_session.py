"""A session of `pipe`: documents, blobs as they are put, attachments and the end with the last commit."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from modelpack.documents.expects import Expects
from modelpack.documents.extras import Extras
from modelpack.documents.layout import InOrder, Layout
from modelpack.documents.model import Model
from modelpack.errors import Local, NotFound, Unsupported, from_os
from modelpack.hands.hashing import check, pour
from modelpack.stores import Placed
from modelpack.words.blob import MIB, Blob
from modelpack.words.reader import Reader
from modelpack.words.report import Moved, Report, Stage


class Piping:
    """What a session of PipeTarget does."""

    def __init__(
        self,
        out: Callable[[memoryview], None],
        where: object,
        models: Sequence[Model],
        layout: Layout,
        expects: Expects,
        extras: Extras,
        report: Report,
    ) -> None:
        self._out, self._where, self._models, self._report = out, where, models, report
        self._expects, self._extras = expects, extras
        self._pieces = InOrder(layout)
        self._put: set[object] = set()
        self._committed = 0
        self._broken = False

    def put(self, blob: Blob, data: Reader) -> Blob:
        """As Session says; the blob has to be the next one."""
        self._until_blob()
        if self._broken or not self._pieces.is_next(blob):
            raise Unsupported(
                f"{blob} cannot come now: a pipe takes each blob once, in its turn",
                where=self._where,
                advice="Use a file.",
            )
        self._broken = True  # unless all of it comes: what has gone into a pipe cannot be taken back
        known = check(blob, pour(data, blob.size, self._write, blake3=True, where=self._where))
        self._broken = False
        self._pieces.took()
        self._put.add(blob.id)
        return known

    def commit(self, model: Model) -> Placed:
        """As Session says; the rest is written with the last model."""
        for blob in model.blobs:
            if blob.id not in self._put and blob not in self._expects:
                raise NotFound(f"the {blob.kind} blob {blob} was not put", where=self._where)
        self._committed += 1
        if self._committed == len(self._models):
            self._rest()
        return Placed(model.name, model.document.id, True, "pipe")

    def _until_blob(self) -> None:
        for data in self._pieces.lead():
            self._write(memoryview(data))

    def _rest(self) -> None:
        attachments = self._extras.attachments
        if attachments:
            self._report(Stage("attaching", sum(one.blob.size for one in attachments)))
        for one in self._pieces.rest(attachments):
            if isinstance(one, bytes):
                self._write(memoryview(one))
                continue
            with one.open() as reader:
                check(one.blob, pour(reader, one.blob.size, self._write, where=one.name), one.name)

    def _write(self, data: memoryview) -> None:
        self._out(data)
        self._report(Moved(len(data)))


class ToPipe:
    """Writes to the descriptor *fd*."""

    def __init__(self, fd: int, where: object) -> None:
        self._fd, self._where = fd, where

    def __call__(self, data: memoryview) -> None:
        left = data
        while left:
            try:
                left = left[os.write(self._fd, left[:MIB]) :]
            except BrokenPipeError as error:
                raise Local("the reader of the pipe went away", where=self._where) from error
            except OSError as error:
                raise from_os(error, self._where) from error
