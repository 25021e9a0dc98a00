"""Where a repair writes: whole files by rename, what was there before kept aside, in the same file system."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence

from modelpack.documents.extras import Attachment
from modelpack.documents.model import Model
from modelpack.errors import Local, ModelpackError
from modelpack.hands import system
from modelpack.hands.crew import Gone, in_parallel
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import check, pour
from modelpack.hands.kept import Opened, key_of, keyed, pour_on
from modelpack.hands.scratch import SCRATCH, NewFile, Scratch, workshop
from modelpack.stores.models_dir_fsck import BAD
from modelpack.verbs.plans import HANDS, users_of
from modelpack.verbs.repair_spares import Mended, Spares
from modelpack.words.blob import Blob
from modelpack.words.report import Moved, Report, Stage


class Bench:
    """Files that go into the store *root*; owner and mode as in *like*, where that is given."""

    def __init__(self, root: Folder, scratch: Scratch, like: os.stat_result | None, report: Report) -> None:
        self._root, self._scratch, self._like, self._report = root, scratch, like, report

    def blobs(
        self, folder: Folder, wanted: Mapping[str, Blob], spares: Spares, models: Sequence[Model]
    ) -> Iterator[tuple[Blob, Mended | ModelpackError]]:
        """Put the *wanted* blobs of *models* into *folder* under their names; of each, what came of it.

        Where this side cannot keep one (Local), the others are not tried.
        """
        self._report(Stage("repairing", sum(blob.size for blob in wanted.values())))
        full: list[ModelpackError] = []

        def work(one: tuple[str, Blob], gone: Gone) -> Mended | ModelpackError:
            name, blob = one
            if full:
                return full[0]
            aside = ""

            def write(opened: Opened, afar: bool) -> None:
                nonlocal aside
                with self._new(blob, opened, afar) as file:
                    aside = self.appear(file, folder, name)

            try:
                place = spares.bring(blob, write, gone)
                return Mended("blob", str(blob), blob.size, place, aside, users_of(models, blob))
            except ModelpackError as error:
                if isinstance(error, Local):
                    full.append(error)
                return error

        for (_, blob), outcome in in_parallel(list(wanted.items()), work, HANDS):
            yield blob, outcome

    @contextlib.contextmanager
    def _new(self, blob: Blob, opened: Opened, afar: bool) -> Iterator[NewFile]:
        """A file with the bytes of *blob*, checked."""
        both = blob.blake3 is not None
        place = self._scratch.part(key_of(blob), blob.size) if afar else self._scratch.new(blob.size)
        with place as file:
            file.writer.moved = lambda count: self._report(Moved(count))
            if afar:
                file.keep = True
                pour_on(file.fd, file.writer, blob, opened, self._report, blake3=both)
            else:
                with opened(0) as reader:
                    check(blob, pour(reader, blob.size, file.writer.appending(), blake3=both))
            yield file

    def attachment(self, folder: Folder, one: Attachment) -> str:
        """Write *one*, checked, into *folder* under its name; where the file of that name is kept."""
        with self._scratch.new(one.blob.size) as file, one.open() as reader:
            file.writer.moved = lambda count: self._report(Moved(count))
            check(one.blob, pour(reader, one.blob.size, file.writer.appending()), one.path)
            return self.appear(file, folder, one.name)

    def document(self, folder: Folder, name: str, raw: bytes) -> str:
        """Write *raw* to *name* in *folder*; where the file of that name is kept."""
        with self._scratch.new(len(raw)) as file:
            file.writer.write_at(memoryview(raw), 0)
            return self.appear(file, folder, name)

    def appear(self, file: NewFile, folder: Folder, name: str) -> str:
        """Give *file* its *name* in *folder*; where the file that had it is kept."""
        if self._like is not None:
            system.give(file.fd, self._like, directory=False)
        file.writer.finish()  # before the old one moves: a full disk is told of by now
        aside = self.aside(folder, name)
        file.appear(folder, name)
        return aside

    def aside(self, folder: Folder, name: str, stem: str = "", *, move: bool = False) -> str:
        """Keep the plain file *name* of *folder* in a place of ours, too (or *move* it); where, if it is one.

        It is called there as here, or *stem*, and something behind it.
        """
        if folder.file_size(name) is None:
            return ""
        with (
            self._root.folder(SCRATCH, create=True, like=self._like) as ours,
            ours.folder(BAD, create=True, like=self._like) as bad,
        ):
            new = f"{(stem or name).replace(':', '-')}-{secrets.token_hex(4)}"
            if move:
                folder.rename(name, bad, new, replace=False)
            else:
                folder.link(name, bad, new)
            bad.sync()
            return str(bad.path / new)


@contextlib.contextmanager
def bench(
    root: Folder, blobs: Sequence[Blob], report: Report, *, like: os.stat_result | None = None
) -> Iterator[Bench]:
    """A Bench in *root*, with room for *blobs*: Local where they cannot fit."""
    mode = 0o666 if like is None else 0o600
    with workshop(root, keyed(blobs), mode=mode, like=like) as scratch:
        yield Bench(root, scratch, like, report)
