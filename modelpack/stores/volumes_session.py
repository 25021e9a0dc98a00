"""A session of `volumes`: a tar from front to end, with holes where hashes are still to come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from modelpack.documents.expects import Expects
from modelpack.documents.extras import Extras, is_attached
from modelpack.documents.layout import InOrder, Layout
from modelpack.documents.model import Model, told
from modelpack.errors import NotFound, Refused, Unsupported
from modelpack.hands.hashing import check, pour
from modelpack.hands.slices import Slices
from modelpack.stores import Placed
from modelpack.words.blob import Blob
from modelpack.words.reader import Reader
from modelpack.words.report import Report, Stage


def documents(layout: Layout) -> bytes:
    """The bytes before the first blob."""
    found = []
    for piece in layout.pieces:
        if isinstance(piece.content, Blob):
            break
        found.append(piece.content)
    return b"".join(found)


def unsettled(layout: Layout) -> Iterator[tuple[int, int]]:
    """Stretches (begin, end) of the tar that change once the hashes of all blobs are known.

    Those are the documents, and the header before each blob whose SHA-256 is not known yet.
    """
    blobs = [
        (place, piece.content)
        for place, piece in enumerate(layout.pieces)
        if isinstance(piece.content, Blob) and not is_attached(piece.path)
    ]
    if any(blob.digest is None or blob.blake3 is None for _, blob in blobs):
        yield 0, layout.pieces[blobs[0][0]].offset
    for place, blob in blobs:
        if blob.digest is None:
            yield layout.pieces[place - 1].offset, layout.pieces[place].offset


def differing(begun: Layout, settled: Layout, where: object) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each stretch in which *settled* is another one than *begun*; neighbours are one."""
    if begun.size != settled.size or len(begun.pieces) != len(settled.pieces):
        raise Refused("two blobs turned out to be the same bytes: pack them again", where=where)
    offset, held = 0, b""
    for old, new in zip(begun.pieces, settled.pieces, strict=True):
        if isinstance(new.content, Blob) or old.content == new.content:
            continue
        if held and offset + len(held) != new.offset:
            yield offset, held
            held = b""
        offset, held = offset if held else new.offset, held + new.content
    if held:
        yield offset, held


class Cutting:
    """Pieces in the order of *layout*, blobs as they are put; `finish(models)` comes with the last commit."""

    def __init__(
        self,
        where: Path,
        slices: Slices,
        models: Sequence[Model],
        layout: Layout,
        expects: Expects,
        extras: Extras,
        report: Report,
        finish: Callable[[Sequence[Model]], None],
    ) -> None:
        self._where, self._slices, self._models = where, slices, models
        self._expects, self._extras, self._report, self._finish = expects, extras, report, finish
        self._told = told(models)
        self._pieces = InOrder(layout)
        self._known: dict[object, Blob] = {}
        self._committed: list[Model] = []
        self._broken = False

    def put(self, blob: Blob, data: Reader) -> Blob:
        """As Session says; the blob has to be the next one."""
        self._until_blob()
        if self._broken or not self._pieces.is_next(blob):
            raise Unsupported(
                f"{blob} cannot come now: volumes take each blob once, in its turn",
                where=self._where,
                advice="Pack it into one .tar first, and that into volumes.",
            )
        self._broken = True  # unless all of it comes: what went into a volume's hash cannot be taken back
        # Every byte goes through a SHA-256 already, that of its volume. A second one would cost more than all
        # the rest: where both hashes of the blob are known, its BLAKE3 is the check, as in `verify`.
        sha256 = blob.digest is None or blob.blake3 is None
        hashes = pour(data, blob.size, self._slices.write, sha256=sha256, blake3=True, where=self._where)
        known = check(blob, hashes)
        self._broken = False
        self._pieces.took()
        self._known[blob.id] = self._known[known.id] = known
        return known

    def commit(self, model: Model) -> Placed:
        """As Session says; the set appears with the last model."""
        for blob in model.blobs:
            if blob.id not in self._known and blob not in self._expects:
                raise NotFound(f"the {blob.kind} blob {blob} was not put", where=self._where)
        settled = model.settled(self._told).settled(self._known)
        self._committed.append(settled)
        if len(self._committed) == len(self._models):
            self._rest()
            self._finish(self._committed)
        return Placed(model.name, settled.document.id, True, "volumes")

    def _until_blob(self) -> None:
        for data in self._pieces.lead():
            self._slices.write(memoryview(data))

    def _rest(self) -> None:
        attachments = self._extras.attachments
        if attachments:
            self._report(Stage("attaching", sum(one.blob.size for one in attachments)))
        for one in self._pieces.rest(attachments):
            if isinstance(one, bytes):
                self._slices.write(memoryview(one))
                continue
            with one.open() as reader:
                check(one.blob, pour(reader, one.blob.size, self._slices.write, where=one.name), one.name)
