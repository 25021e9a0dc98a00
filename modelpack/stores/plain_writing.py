"""A session that unpacks: blobs under their digests first, then each model's own names, model.json last."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Mapping

from modelpack.documents.model import Model
from modelpack.errors import Corrupt, Local, NotFound, Refused, from_os
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import check, pour
from modelpack.hands.scratch import Scratch
from modelpack.stores import Placed, Reader
from modelpack.stores.plain_home import WAY, Home
from modelpack.stores.plain_layout import FOLDER, MODELFILE, digest_of, staged
from modelpack.stores.plain_record import (
    DOCUMENTS,
    REPLACED,
    Record,
    below,
    open_at,
    read_at,
    record_bytes,
    size_at,
)
from modelpack.stores.plain_seen import Seen
from modelpack.words.blob import SMALL, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.report import Moved, Report

_BLOB = re.compile(r"sha256-[0-9a-f]{64}", re.ASCII)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EXDEV, errno.EINVAL)


class Writing:
    """What a session of PlainFolder does in *root*, one of *homes* for each model."""

    def __init__(
        self, root: Folder, homes: Mapping[Name, Home], scratch: Scratch, seen: Seen, report: Report
    ) -> None:
        self._root, self._homes, self._scratch = root, homes, scratch
        self._seen, self._report = seen, report

    def put(self, blob: Blob, data: Reader) -> Blob:
        """As Session says: into the documents/ of the first model that needs it."""
        digest = digest_of(blob)
        home = next(home for home in self._homes.values() if digest in home.paths)
        with (
            home.opened(self._root, create=True) as folder,
            below(folder, staged(digest), create=True) as (into, name),
            self._scratch.new(blob.size) as file,
        ):
            file.writer.moved = lambda count: self._report(Moved(count))
            known = check(blob, pour(data, blob.size, file.writer.appending(), where=into.path))
            file.appear(into, name)
            self._seen.note(into, name, digest)
        return known

    def commit(self, model: Model) -> Placed:
        """As Session says: the files get their names, then come Modelfile and model.json."""
        home = self._homes[model.name]
        with Folder.at(self._root.path) as locked:
            locked.lock()
            if there := home.placed(self._root):
                with home.opened(self._root) as folder:
                    self._sweep(folder, home.record(folder))
                return there
            home.refuse(self._root, None)
            text, unsaid = home.modelfile(lambda blob: self._small(home, blob))
            home.refuse(self._root, text)
            for blob in model.blobs:
                self._find(home, blob)
            with home.opened(self._root, create=True) as folder:
                self._write(home, folder, text)
        return Placed(model.name, model.document.id, True, WAY, note=home.note(unsaid))

    def tidy(self) -> None:
        """Remove folders that were made and in which nothing came to lie."""
        for home in self._homes.values():
            with contextlib.suppress(NotFound, Local, Refused):
                with home.opened(self._root) as folder:
                    folder.remove(FOLDER)
                if home.name:
                    self._root.remove(home.name)

    # --- where blobs are

    def _find(self, home: Home, blob: Blob) -> tuple[Home, str]:
        """Where *blob* is: in the folder of its model, or of another one that needs it."""
        for one in (home, *self._homes.values()):
            path = one.find(self._root, blob)
            if path is not None:
                return one, path
        raise NotFound(f"the {blob.kind} blob {blob} was not put", where=home.where(self._root))

    def _small(self, asking: Home, blob: Blob) -> bytes:
        home, path = self._find(asking, blob)
        with home.opened(self._root) as folder:
            raw = read_at(folder, path, SMALL)
        if Digest.of(raw) != blob.digest:
            raise Corrupt(
                f"is not the {blob.kind} that it should be",
                where=home.where(self._root) / path,
                advice="Remove it, and run again.",
            )
        return raw

    # --- names

    def _write(self, home: Home, folder: Folder, text: bytes | None) -> None:
        record, layout = home.record(folder), home.layout
        if record is None:
            self._remove(folder, DOCUMENTS)
        elif record.model.document.raw != home.model.document.raw:
            self._retire(folder, record)  # from here on the folder promises nothing
        for path, blob in layout.files.items():
            if not home.whole(folder, path, blob):
                self._remove(folder, path)
                self._bring(home, folder, path, blob)
        for path in {*home.left(folder), *(record.files if record is not None else ())}:
            if path not in layout.files:
                with contextlib.suppress(Local, Refused):
                    self._remove(folder, path)
        if text is None and record is not None and record.modelfile is not None:
            self._remove(folder, MODELFILE)
        self._file(folder, layout.document, home.model.document.raw)
        if text is not None:
            self._file(folder, MODELFILE, text)
        self._remove(folder, REPLACED)
        written = Digest.of(text) if text is not None else None
        self._file(folder, DOCUMENTS, record_bytes(home.model, layout, written))
        self._sweep(folder, home.record(folder))

    def _retire(self, folder: Folder, record: Record) -> None:
        """Keep the list of files of *record*, so that the next run knows them should this one break."""
        if record.modelfile is not None:  # it would tell of the files of another model
            self._remove(folder, MODELFILE)
        with folder.folder(FOLDER) as documents:
            documents.rename(DOCUMENTS.rpartition("/")[2], documents, REPLACED.rpartition("/")[2])
            documents.sync()

    def _bring(self, home: Home, folder: Folder, path: str, blob: Blob) -> None:
        """Let *blob* stand at *path*, where nothing is: by rename, by a link, else by a copy."""
        owner, there = self._find(home, blob)
        with (
            below(folder, path, create=True) as (into, name),
            owner.opened(self._root) as other,
            below(other, there) as (out, old),
        ):
            if owner is home and there == staged(digest_of(blob)) and there not in home.layout.files:
                out.rename(old, into, name, replace=False)
            elif not _link(out, old, into, name):
                with self._scratch.new(blob.size) as file, open_at(out, old, blob) as reader:
                    check(blob, pour(reader, blob.size, file.writer.appending(), where=out.path / old))
                    file.appear(into, name, replace=False)
            into.sync()
            self._seen.note(into, name, digest_of(blob))

    def _file(self, folder: Folder, path: str, raw: bytes) -> None:
        with below(folder, path, create=True) as (into, name), self._scratch.new(len(raw)) as file:
            file.writer.write_at(memoryview(raw), 0)
            file.appear(into, name)

    def _remove(self, folder: Folder, path: str) -> None:
        if size_at(folder, path) is not None:
            with below(folder, path) as (into, name):
                into.remove(name)
                into.sync()

    def _sweep(self, folder: Folder, record: Record | None) -> None:
        """Remove from documents/ what *record* does not name: blobs that got names, what other runs left."""
        if record is None:
            return
        with contextlib.suppress(NotFound), folder.folder(FOLDER) as documents:
            kept = {path.rpartition("/")[2] for path in record.files}
            for name in documents.names():
                if _BLOB.fullmatch(name) and name not in kept:
                    documents.remove(name)


def _link(folder: Folder, name: str, into: Folder, new: str) -> bool:
    """Give the file *name* a second name, *new* in *into*; False where the file system has no links."""
    try:
        if folder._fd is None or into._fd is None:
            os.link(folder.path / name, into.path / new)
        else:
            os.link(name, new, src_dir_fd=folder._fd, dst_dir_fd=into._fd, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise from_os(error, into.path / new) from error
    return True
