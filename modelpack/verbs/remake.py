"""`pack --only 3,7`: volumes of a set that was written before, made once more and alone.

Where each byte lies is arithmetic, so only blobs that have some of their bytes in those volumes are read,
and only those bytes. Nothing gets a name unless it is what the set's descriptor says, to the last byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from modelpack.documents.expects import NOTHING, Expects
from modelpack.documents.extras import NONE, Extras, is_attached
from modelpack.documents.layout import Layout, Piece, tar_layout
from modelpack.documents.model import Model, agreed
from modelpack.documents.oci import bundle
from modelpack.documents.volumes import Descriptor, contents_of
from modelpack.errors import Corrupt, ModelpackError, Refused, Usage
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import check, pour
from modelpack.hands.scratch import check_room
from modelpack.hands.slices import Slice, bench
from modelpack.stores import Source
from modelpack.stores.volumes import read_descriptor
from modelpack.stores.volumes_session import unsettled
from modelpack.verbs.plans import settle, users_of
from modelpack.version import __version__
from modelpack.words.blob import MIB, Blob
from modelpack.words.reader import Reader, fill
from modelpack.words.report import Moved, Report, Stage, silent
from modelpack.words.volume import MOST_VOLUMES, Volume

_NUMBERS = re.compile(r"\d{1,3}(-\d{1,3})?(,\d{1,3}(-\d{1,3})?)*", re.ASCII)


def numbers(text: str) -> tuple[int, ...]:
    """The volumes in *text*, as in `3,7` or `3-5,9`: sorted, each once; raises Usage."""
    found: set[int] = set()
    spaceless = text.replace(" ", "")
    if _NUMBERS.fullmatch(spaceless):
        for part in spaceless.split(","):
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    if not found or not 0 < min(found) <= max(found) <= MOST_VOLUMES:
        raise Usage(f"{text[:100]!r} are no numbers of volumes", advice="Write them as in --only 3,7")
    return tuple(sorted(found))


def remake(
    source: Source,
    models: Sequence[Model],
    folder: Path,
    only: Sequence[int],
    *,
    stem: str | None = None,
    volume_size: int | None = None,
    expects: Expects = NOTHING,
    extras: Extras = NONE,
    report: Report = silent,
) -> Descriptor:
    """Make the volumes *only* of the set in *folder* once more, from *models* of *source*.

    The set's descriptor has to be there; the volumes need not. Raises Usage where the set has no such volume,
    or volumes of another size than *volume_size*; Refused where the bytes would be others than the descriptor
    says; Corrupt where that is a damaged blob's fault. A volume that was right gets its name, whatever
    becomes of the next.
    """
    descriptor = read_descriptor([folder], stem)
    if volume_size not in (None, descriptor.volume_size):
        raise Usage(
            f"the set's volumes have {descriptor.volume_size} bytes, not {volume_size}",
            where=folder / descriptor.name,
            advice="Leave --volume-size out, or pack the set anew with --replace.",
        )
    if unknown := [n for n in only if not 0 < n <= len(descriptor.volumes)]:
        raise Usage(
            f"the set {descriptor.stem} has no volume {unknown[0]}: it has {len(descriptor.volumes)}",
            where=folder / descriptor.name,
        )
    volumes = [descriptor.volumes[n - 1] for n in only]
    models = agreed(models)
    if any(blob.digest is None for model in models for blob in model.blobs):
        models = agreed(settle(source, models, report, blake3=False))
    made = bundle(models, expects=expects, extras=extras)
    layout = tar_layout(made)
    _same_layout(descriptor, models, layout, folder)
    if any(_meet(one, begin, end) for one in volumes for begin, end in unsettled(layout)):
        # The documents hold the BLAKE3 of every blob.
        models = agreed(settle(source, models, report, but=expects.digests))
        made = bundle(models, expects=expects, extras=extras)
        layout = tar_layout(made)
    if not list(unsettled(layout)) and made.fingerprint != descriptor.bundle:
        raise _others(descriptor, folder, "the bundle's fingerprint")
    work = _Work(source, models, layout, extras, descriptor, report)
    report(Stage("writing", sum(one.size for one in volumes)))
    with Folder.at(folder) as place, bench(place) as there:
        check_room(place, max(one.size for one in volumes))
        for volume in volumes:
            work.make(volume, there).appear(place, replace=True)
            place.sync()
    return descriptor


def _meet(volume: Volume, begin: int, end: int) -> bool:
    return begin < volume.offset + volume.size and volume.offset < end


def _same_layout(descriptor: Descriptor, models: Sequence[Model], layout: Layout, folder: Path) -> None:
    if (descriptor.size, descriptor.contents) != (layout.size, contents_of(models, layout)):
        raise _others(descriptor, folder, "models, or where they lie")


def _others(descriptor: Descriptor, folder: Path, what: str) -> Refused:
    return Refused(
        f"modelpack {__version__} would write other bytes than this set has ({what})",
        where=folder / descriptor.name,
        advice="Name the same models, --attach, --since and --no-script as then, and use the modelpack that "
        "wrote the set; or pack the set anew with --replace.",
    )


class _Work:
    def __init__(
        self,
        source: Source,
        models: Sequence[Model],
        layout: Layout,
        extras: Extras,
        descriptor: Descriptor,
        report: Report,
    ) -> None:
        self._source, self._models, self._layout = source, models, layout
        self._attached = {one.path: one for one in extras.attachments}
        self._descriptor, self._report = descriptor, report

    def make(self, volume: Volume, there: Folder) -> Slice:
        """*volume*, unfinished in *there*, and right."""
        block = self._descriptor.block_size
        made = Slice(there, volume.name, volume.n, volume.offset, volume.size, block)
        try:
            pieces = [
                one for one in self._layout.pieces if _meet(volume, one.offset, one.offset + one.length)
            ]
            for piece in pieces:
                begin = max(volume.offset, piece.offset) - piece.offset
                end = min(volume.offset + volume.size, piece.offset + piece.length) - piece.offset
                self._read(piece, begin, end - begin, made.write)
        finally:
            made.close()
        found = made.volume()
        if found != volume:
            raise self._why(volume, found, pieces, there.path.parent)
        return made

    def _read(self, piece: Piece, begin: int, size: int, write: Callable[[memoryview], None]) -> None:
        def wrote(data: memoryview) -> None:
            write(data)
            self._report(Moved(len(data)))

        if isinstance(piece.content, bytes):
            wrote(memoryview(piece.content)[begin : begin + size])
        elif is_attached(piece.path):
            with self._attached[piece.path].open() as reader:
                _skip(reader, begin)
                pour(reader, size, wrote, sha256=False, where=piece.path)
        else:
            with self._source.open(piece.content, begin) as reader:
                pour(reader, size, wrote, sha256=False, where=users_of(self._models, piece.content))

    def _why(self, volume: Volume, found: Volume, pieces: Sequence[Piece], folder: Path) -> ModelpackError:
        """What is wrong where the bytes are others: a blob that is damaged, or another set."""
        size = self._descriptor.block_size
        bad = [
            (volume.offset + place * size, volume.offset + (place + 1) * size)
            for place, (one, other) in enumerate(zip(volume.blocks, found.blocks, strict=True))
            if one != other
        ]
        for piece in pieces:
            touched = any(begin < piece.offset + piece.length and piece.offset < end for begin, end in bad)
            blob = piece.content
            if touched and isinstance(blob, Blob) and not is_attached(piece.path):
                try:
                    with self._source.open(blob) as reader:
                        check(blob, pour(reader, blob.size))
                except Corrupt as error:
                    error.where = error.where or users_of(self._models, blob)
                    return error
        return _others(self._descriptor, folder, f"in volume {volume.n}")


def _skip(reader: Reader, count: int) -> None:
    waste = memoryview(bytearray(min(count, MIB)))
    while count:
        came = fill(reader, waste[: min(count, MIB)])
        if not came:
            raise Corrupt("an attachment ends too early: it changed since")
        count -= came
