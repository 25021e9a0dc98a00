"""A bundle in one file: a tar whose blobs are read and written at their offsets. Nothing is unpacked."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from modelpack.documents.contents import Contents, read_contents
from modelpack.documents.expects import NOTHING, Expects
from modelpack.documents.extras import NONE, Extras
from modelpack.documents.layout import BLOCK, tar_layout
from modelpack.documents.model import Model, agreed, blobs_of
from modelpack.documents.oci import bundle
from modelpack.documents.tarred import Tarred
from modelpack.documents.tarwalk import walk
from modelpack.errors import Corrupt, ModelpackError, Refused, Taken
from modelpack.hands.bytes import FileReader, read_at
from modelpack.hands.disk import Folder, open_path
from modelpack.hands.scratch import NewFile, Scratch
from modelpack.stores import Placed, Session
from modelpack.stores.archive_session import Writing
from modelpack.words.blob import KIB, Blob
from modelpack.words.digest import Digest
from modelpack.words.report import Report, silent

_TAIL = 64 * KIB  # of zeros, at most, that tools write after the end: GNU tar fills up 10 KiB


class Archive(Tarred[FileReader]):
    """The tar at *path*: a source, and a target that appears whole with its last model.

    With *expect*, a bundle of any other fingerprint is Refused before anything of it is parsed; with
    *replace*, another file of that name is replaced. What is written leaves out the blobs that it *expects*
    at the target, and holds *extras* beside the models.
    """

    def __init__(
        self,
        path: Path,
        *,
        expect: Digest | None = None,
        replace: bool = False,
        expects: Expects = NOTHING,
        extras: Extras = NONE,
    ) -> None:
        self.path = path
        self._expect = expect
        self._replace = replace
        self._leaves = expects
        self._extras = extras
        self._settled: tuple[Model, ...] = ()

    @property
    def signature(self) -> Path:
        """Where a signature of it lies: beside it, as the tar itself is never touched."""
        return self.path.with_name(f"{self.path.name}.sig")

    # --- source

    @property
    def where(self) -> Path:
        """What errors are about: the tar."""
        return self.path

    @cached_property
    def contents(self) -> Contents:
        """What its documents say, all of them checked."""
        return read_contents(self.read, self.path, self._expect)

    @cached_property
    def members(self) -> dict[str, tuple[int, int]]:
        """Where each file of the tar begins, and its bytes; Corrupt where the tar is cut or damaged."""
        fd = open_path(self.path)
        try:
            return dict(members_of(fd, self.path))
        finally:
            os.close(fd)

    def _stretch(self, offset: int, size: int) -> FileReader:
        return FileReader(open_path(self.path), offset, size, self.path)

    def slack(self) -> list[ModelpackError]:
        """Bytes between members that should be zeros and are not: harmless, but not as it was written."""
        found: list[ModelpackError] = []
        fd = open_path(self.path)
        try:
            for path, (offset, size) in self.members.items():
                if read_at(fd, -size % BLOCK, offset + size, self.path).strip(b"\0"):
                    found.append(Corrupt(f"the padding after {path} is damaged", where=self.path))
            ends = max((offset + size for offset, size in self.members.values()), default=0)
            left = os.fstat(fd).st_size - ends
            if left > _TAIL or read_at(fd, left, ends, self.path).strip(b"\0"):
                found.append(Corrupt("something else stands after its end", where=self.path))
        finally:
            os.close(fd)
        return found

    # --- target

    def takes_unread(self, models: Sequence[Model]) -> bool:
        """Not where a tar is there to compare with, nor where two blobs might turn out to be one.

        A tar that may be replaced is not compared with: that would read every blob once more.
        """
        blobs = blobs_of(models)
        sizes = [blob.size for blob in blobs]
        unread = [blob for blob in blobs if blob.digest is None]
        compared = os.path.lexists(self.path) and not self._replace
        return not unread or (not compared and all(sizes.count(blob.size) == 1 for blob in unread))

    def leaves(self) -> frozenset[Digest]:
        """The blobs that are not written, since they are expected at the target."""
        return self._leaves.digests

    def missing(self, models: Sequence[Model]) -> Sequence[Blob]:
        """Everything that is not expected at the target, or nothing where the very same archive is here.

        Taken where another file is; Refused where the signature of another archive is, which this one would
        make a bad one.
        """
        self._settled = ()
        if not os.path.lexists(self.path):
            self._refuse_signed()
            return self._all(models)
        os.close(open_path(self.path))  # Refused where no plain file is: a device is not to be replaced
        if self._same(models):
            self._settled = tuple(models)
            return ()
        if not self._replace:
            raise Taken(
                "exists already, and is not what this pack would write",
                where=self.path,
                advice="Use --replace to write it anew, or choose another name.",
            )
        self._refuse_signed()
        return self._all(models)

    def _refuse_signed(self) -> None:
        if os.path.lexists(self.signature):
            raise Refused(
                f"is a signature there already; that of another {self.path.name}, as far as anybody can tell",
                where=self.signature,
                advice="Move it away, or choose another name. Where the very same bundle comes of it, move "
                "it back; else sign the new one.",
            )

    def _all(self, models: Sequence[Model]) -> Sequence[Blob]:
        return [blob for blob in blobs_of(models) if blob not in self._leaves]

    def placed(self, models: Sequence[Model]) -> Sequence[Placed | None]:
        """As Settled says, where `missing` has just found the archive to be of the very models asked for.

        One that holds them and others is no place for them: an archive is written whole, so those would go.
        """
        return [
            Placed(model.name, model.document.id, True, "archive") if model in self._settled else None
            for model in models
        ]

    def _same(self, models: Sequence[Model]) -> bool:
        """Whether every document and header is here, byte for byte, in a file of the right size."""
        if any(blob.digest is None for blob in blobs_of(models)):
            return False
        try:  # a BLAKE3 that nobody knows yet is the one that is noted here: the SHA-256 says it is the blob
            noted = {blob.id: blob for blob in blobs_of(self.contents.models)}
        except ModelpackError:
            return False
        models = agreed(models)
        known = {
            blob.id: Blob(blob.size, blob.media_type, blob.digest, noted[blob.id].blake3)
            for blob in blobs_of(models)
            if blob.blake3 is None and blob.id in noted
        }
        layout = tar_layout(
            bundle([model.settled(known) for model in models], expects=self._leaves, extras=self._extras)
        )
        try:
            fd = open_path(self.path)
        except ModelpackError:
            return False
        try:
            return os.fstat(fd).st_size == layout.size and all(
                isinstance(piece.content, Blob)
                or read_at(fd, piece.length, piece.offset, self.path) == piece.content
                for piece in layout.pieces
            )
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def session(self, models: Sequence[Model], report: Report = silent) -> Iterator[Session]:
        """Write into a scratch file beside the name; it gets the name with the last model's commit."""
        models = agreed(models)
        layout = tar_layout(bundle(models, expects=self._leaves, extras=self._extras))
        with Folder.at(self.path.parent) as folder:
            stem = os.fsencode(self.path.name)[:180].decode("utf-8", "ignore")  # it must be a name, too
            scratch = Scratch(folder, f".{stem}.modelpack-", 0o666)
            scratch.sweep(but=layout.mark)
            # Under a name of its own for these models: what a broken run fetched is found by the next.
            with scratch.part(layout.mark, layout.size) as file:
                yield Writing(self, folder, file, models, self._leaves, self._extras, report)

    def appear(self, file: NewFile, folder: Folder) -> None:
        """Give *file* the archive's name."""
        file.appear(folder, self.path.name, replace=self._replace)
        for cached in ("contents", "members"):
            self.__dict__.pop(cached, None)


def members_of(fd: int, where: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Every file of the tar in *fd*: path, (offset, bytes). Corrupt where it is cut or damaged."""
    return walk(lambda count, offset: read_at(fd, count, offset, where), os.fstat(fd).st_size, where)
