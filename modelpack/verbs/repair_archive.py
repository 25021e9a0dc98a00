"""Repair of a bundle in one file: written anew beside it, from itself and others, and put in its place."""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from modelpack.documents.contents import Contents
from modelpack.documents.layout import tar_layout
from modelpack.documents.model import Model, blobs_of
from modelpack.documents.oci import blob_path, bundle
from modelpack.errors import Corrupt, ModelpackError, NotFound, Unsupported
from modelpack.hands import system
from modelpack.hands.bytes import FileReader
from modelpack.hands.crew import Gone, in_parallel
from modelpack.hands.disk import Folder, open_path
from modelpack.hands.hashing import check, pour
from modelpack.hands.kept import Opened
from modelpack.hands.scratch import NewFile, Scratch
from modelpack.hands.writeback import Writer
from modelpack.stores import Reader
from modelpack.stores.archive import Archive, walk
from modelpack.verbs.plans import HANDS, users_of
from modelpack.verbs.repair_rescue import made_of, rescued
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
    own.settle(contents)
    documents = made_of(contents)
    verdict = Verdict()
    check_blobs(own, contents.models, verdict, False, report, contents.expects)
    verdict.problems += own.faults(documents or {}, summed)
    done = Repaired(contents.fingerprint)
    if verdict.good:
        return done
    if documents is None:
        raise Unsupported(
            "is damaged, and another tool wrote its index: its fingerprint could not be kept",
            where=store.path,
            advice="Unpack it with tar, and repair the folder.",
        )
    bad = {blob.digest: error for blob, error in verdict.bad}
    every = Spares([Spare(str(store.path), own, wrong=bad.keys(), report=report), *spares])
    failed, came, aside = _write_anew(path, contents, bad, every, report)
    if failed:
        done.leave(verdict.problems, (), {id(bad[one]): why for one, why in failed.items() if one in bad})
        done.left += [why for one, why in failed.items() if one not in bad and why not in done.left]
        return done
    for blob, _ in verdict.bad:
        users = users_of(contents.models, blob)
        done.mended.append(Mended("blob", str(blob), blob.size, came[blob.digest], aside, users))
    blamed = {id(error) for error in bad.values()}
    for problem in verdict.problems:
        if id(problem) not in blamed:
            done.mended.append(Mended("archive", problem.what, 0, "its own documents", aside))
    for cached in ("contents", "members"):
        store.__dict__.pop(cached, None)
    return done


def _write_anew(
    path: Path, contents: Contents, bad: Collection[Digest | None], spares: Spares, report: Report
) -> tuple[dict[Digest | None, ModelpackError], dict[Digest | None, str], str]:
    """Write the archive anew; blobs that no source has, where each came from, and where the old one is."""
    layout = tar_layout(bundle(contents.models, contents.index.foreign, contents.delta))
    offsets = layout.offsets()
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
            for name, place in walk(fd, path):
                self._members[name] = place
        except Corrupt as error:
            self._broken = error
        finally:
            os.close(fd)

    def settle(self, contents: Contents) -> None:
        """From here on its models are those of *contents*."""
        self._models = contents.models
        if self._broken is not None:
            layout = tar_layout(bundle(contents.models, contents.index.foreign, contents.delta))
            self._offsets = layout.offsets()

    def faults(self, documents: dict[str, bytes], summed: bool) -> list[ModelpackError]:
        """What is wrong besides its blobs, where *documents* belong there; without sums, but for some."""
        if self._broken is not None:
            return [self._broken]
        found = Archive(self._path).slack()
        for path, raw in documents.items():
            if summed or "/" in path or path == "index.json":
                try:
                    same = self.read(path, len(raw)) == raw
                except (Corrupt, NotFound):
                    same = False
                if not same:
                    found.append(Corrupt(f"{path} is damaged or missing", where=self._path))
        return found

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
