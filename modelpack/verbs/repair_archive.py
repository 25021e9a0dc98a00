"""Repair of a bundle in one file: written anew beside it, from itself and others, and put in its place."""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from modelpack.documents.contents import Contents
from modelpack.documents.extras import STRIPPED, Attachment, is_attached, path_of
from modelpack.documents.layout import BLOCK, Layout, tar_layout
from modelpack.documents.model import Model, blobs_of
from modelpack.documents.oci import blob_path
from modelpack.documents.tarwalk import walk
from modelpack.errors import Corrupt, ModelpackError, NotFound, Unsupported
from modelpack.hands import system
from modelpack.hands.bytes import FileReader, read_at
from modelpack.hands.crew import Gone, in_parallel
from modelpack.hands.disk import Folder, open_path
from modelpack.hands.hashing import check, pour
from modelpack.hands.kept import Opened
from modelpack.hands.scratch import NewFile, Scratch
from modelpack.hands.writeback import Writer
from modelpack.stores import Reader
from modelpack.stores.archive import Archive, members_of
from modelpack.verbs.plans import HANDS, users_of
from modelpack.verbs.repair_along import Along
from modelpack.verbs.repair_rescue import is_there, rescued
from modelpack.verbs.repair_spares import Mended, Repaired, Spare, Spares, Write
from modelpack.verbs.verdict import Verdict, check_blobs
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.reader import read_exactly
from modelpack.words.report import Moved, Report, Stage


def repair_archive(store: Archive, spares: Sequence[Spare], report: Report) -> Repaired:
    """As `repair` says, of an archive: all of it or nothing. Its fingerprint stays what it is.

    It needs room for the whole archive once more. The damaged one is kept beside it, as NAME.bad-….
    """
    path = store.path.resolve()  # where a link leads: the link stays
    own = _Torn(path)
    contents, summed = rescued(own.read, store.path, spares)
    along = Along(own, contents, spares)
    own.settle(contents, tar_layout(along.bundle()))
    along.seek(report)
    verdict = Verdict()
    check_blobs(own, contents.models, verdict, False, report, contents.expects)
    odd = own.faults(along.documents(), summed)
    verdict.problems += [*(problem for _, problem in odd), *along.bad.values()]
    done = Repaired(contents.fingerprint, left=along.left)
    if verdict.good:
        return done
    if not along.ours:
        raise Unsupported(
            "is damaged, and another tool wrote its index: its fingerprint could not be kept",
            where=store.path,
            advice="Unpack it with tar, and repair the folder.",
        )
    if unknown := along.unknown():
        raise Unsupported(
            f"is damaged, and holds what this modelpack does not know ({unknown[0]}): that would be lost",
            where=store.path,
            advice="A newer modelpack may know it. Or unpack it with tar, and repair the folder.",
        )
    if along.left:
        done.leave(verdict.problems, (), {id(one): along.left[0] for one in verdict.problems})
        return done
    bad = {blob.digest: error for blob, error in verdict.bad}
    every = Spares([Spare(str(store.path), own, wrong=bad.keys(), report=report), *spares])
    failed, came, aside = _write_anew(path, along, contents, bad, every, report)
    if failed:
        done.leave(verdict.problems, (), {id(bad[one]): why for one, why in failed.items() if one in bad})
        done.left += [why for one, why in failed.items() if one not in bad and why not in done.left]
        return done
    for blob, _ in verdict.bad:
        users = users_of(contents.models, blob)
        done.mended.append(Mended("blob", str(blob), blob.size, came[blob.digest], aside, users))
    for one in along.attached:
        if one.path in along.bad:
            done.mended.append(Mended("attachment", one.path, one.blob.size, along.came[one.path], aside))
    for where, problem in odd:
        place = along.came.get(where, "its own documents")
        done.mended.append(Mended("archive", problem.what, 0, place, aside))
    blamed = {id(one) for one in (*bad.values(), *along.bad.values(), *(problem for _, problem in odd))}
    for problem in verdict.problems:
        if id(problem) not in blamed:
            done.mended.append(Mended("archive", problem.what, 0, "its own documents", aside))
    for cached in ("contents", "members"):
        store.__dict__.pop(cached, None)
    return done


def _write_anew(
    path: Path,
    along: Along,
    contents: Contents,
    bad: Collection[Digest | None],
    spares: Spares,
    report: Report,
) -> tuple[dict[Digest | None, ModelpackError], dict[Digest | None, str], str]:
    """Write the archive anew; blobs that no source has, where each came from, and where the old one is."""
    layout = tar_layout(along.bundle())
    offsets, places = layout.offsets(), layout.places()
    failed: dict[Digest | None, ModelpackError] = {}
    came: dict[Digest | None, str] = {}
    with Folder.at(path.parent) as folder:
        stem = os.fsencode(path.name)[:180].decode("utf-8", "ignore")  # it must be a name, too
        with Scratch(folder, f".{stem}.modelpack-", 0o666).new(layout.size) as file:
            wanted = [blob for blob in blobs_of(contents.models) if blob.id in offsets]
            wanted.sort(key=lambda blob: blob.digest not in bad)  # whether they can be had is known first
            report(Stage("repairing", sum(blob.size for blob in wanted)))

            def work(blob: Blob, gone: Gone) -> str | ModelpackError | None:
                if failed:
                    return None
                try:
                    return spares.bring(blob, _at(file, offsets[blob.id], blob, report), gone)
                except ModelpackError as error:
                    return error

            for blob, outcome in in_parallel(wanted, work, HANDS):
                if isinstance(outcome, ModelpackError):
                    failed[blob.digest] = outcome
                elif outcome is not None:
                    came[blob.digest] = outcome
            for one in along.attached if not failed else ():
                try:
                    _attach(one, file, places[one.path], report)
                except ModelpackError as error:
                    failed[one.blob.digest] = error
            if failed:
                return failed, came, ""
            for piece in layout.pieces:
                if isinstance(piece.content, bytes):
                    file.writer.write_at(memoryview(piece.content), piece.offset)
            if (old := folder.stat(path.name)) is not None:
                system.give(file.fd, old, directory=False)
            file.writer.finish()
            aside = f"{stem}.bad-{secrets.token_hex(4)}"
            folder.link(path.name, folder, aside)
            file.appear(folder, path.name)
    return failed, came, str(path.parent / aside)


def _at(file: NewFile, offset: int, blob: Blob, report: Report) -> Write:
    def write(opened: Opened, _afar: bool) -> None:
        # A descriptor of its own: a hand that comes late must not write to what was closed.
        fd = os.dup(file.fd)
        try:
            writer = Writer(fd, lambda count: report(Moved(count)))
            with opened(0) as reader:
                hashes = pour(reader, blob.size, writer.appending(offset), blake3=blob.blake3 is not None)
                check(blob, hashes)
            writer.drain()
        finally:
            os.close(fd)

    return write


def _attach(one: Attachment, file: NewFile, offset: int, report: Report) -> None:
    _at(file, offset, one.blob, report)(lambda _offset: one.open(), False)


class _Torn:
    """An archive some of which may be damaged, as a source of what is not.

    Where its headers cannot be followed to the end, blobs are looked for where arithmetic says they are.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._members: dict[str, tuple[int, int]] = {}
        self._broken: ModelpackError | None = None
        self._models: Sequence[Model] = ()
        self._offsets: dict[object, int] = {}
        fd = open_path(path)
        try:
            for name, place in members_of(fd, path):
                self._members[name] = place
        except Corrupt as error:
            self._broken = error
        finally:
            os.close(fd)

    def settle(self, contents: Contents, layout: Layout) -> None:
        """From here on its models are those of *contents*, and *layout* says where its attachments begin."""
        self._models = contents.models
        if self._broken is None:
            return
        self._offsets = layout.offsets()
        begin = min(layout.places().values(), default=0) - BLOCK
        if begin < 0:
            return
        fd = open_path(self._path)
        try:
            size = os.fstat(fd).st_size - begin
            for name, (offset, count) in walk(
                lambda count, offset: read_at(fd, count, begin + offset, self._path), size, self._path
            ):
                if is_attached(name):
                    self._members.setdefault(name, (begin + offset, count))
        except Corrupt:
            pass
        finally:
            os.close(fd)

    def faults(self, documents: dict[str, bytes], summed: bool) -> list[tuple[str, ModelpackError]]:
        """What is wrong with its structure (as that of "") and with *documents*; without sums, with some."""
        if self._broken is not None:
            return [("", self._broken)]
        found: list[tuple[str, ModelpackError]] = [("", one) for one in Archive(self._path).slack()]
        for path, raw in documents.items():
            if path in STRIPPED and path not in self._members:
                continue  # as `verify` says, no damage: not worth a whole archive
            if (summed or "/" in path or path == "index.json") and not is_there(self.read, path, raw):
                found.append((path, Corrupt(f"{path} is damaged or missing", where=self._path)))
        return found

    def files(self) -> dict[str, int]:
        """As Archive's, as far as it could be followed."""
        return {path: size for path, (_, size) in self._members.items()}

    def open_attachment(self, name: str) -> FileReader:
        """As Archive's."""
        found = self._members.get(path_of(name))
        if found is None:
            raise NotFound(f"{path_of(name)} is missing", where=self._path)
        return FileReader(open_path(self._path), *found, self._path)

    def read(self, path: str, most: int) -> bytes:
        """As Archive's."""
        offset, size = self._members.get(path, (0, -1))
        if size < 0:
            raise NotFound(f"{path} is missing", where=self._path)
        if size > most:
            raise Corrupt(f"{path} has {size} bytes, not {most}", where=self._path)
        with FileReader(open_path(self._path), offset, size, self._path) as reader:
            return read_exactly(reader, size, path)

    def models(self) -> Sequence[Model]:
        """As Source says."""
        return self._models

    def open(self, blob: Blob, offset: int = 0) -> AbstractContextManager[Reader]:
        """As Source says."""
        begin, size = self._members.get(blob_path(blob.digest), (self._offsets.get(blob.id, -1), blob.size))
        if begin < 0:
            raise NotFound(f"the {blob.kind} blob {blob} is missing in the bundle", where=self._path)
        if size != blob.size:
            raise Corrupt(f"{blob_path(blob.digest)} has {size} bytes, not {blob.size}", where=self._path)
        return FileReader(open_path(self._path), begin + offset, size - offset, self._path)
