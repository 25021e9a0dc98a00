"""A session of `models_dir`: blobs and manifests appear by rename, each whole."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Protocol

from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.errors import NotFound, Unsupported
from modelpack.hands import system
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import check, pour
from modelpack.hands.kept import Opened, key_of, pour_on
from modelpack.hands.scratch import NewFile, Scratch
from modelpack.stores import Placed
from modelpack.stores.models_dir_scan import lookup
from modelpack.words.blob import Blob
from modelpack.words.name import Name
from modelpack.words.reader import Reader
from modelpack.words.report import Moved, Report


class Directory(Protocol):
    """What a session needs of its target."""

    path: Path

    def find(self, name: Name) -> tuple[Name, bytes] | None:
        """The manifest that has the name."""
        ...

    def refuse_taken(self, model: Model, there: tuple[Name, bytes] | None) -> None:
        """Raise Taken where it is that of another model."""
        ...


class Writing:
    """A session of `models_dir`: scratch files, then blobs by rename, then the manifest by rename."""

    def __init__(
        self,
        store: Directory,
        blobs: Folder,
        manifests: Folder,
        scratch: Scratch,
        like: os.stat_result,
        report: Report,
    ) -> None:
        self._store, self._blobs, self._manifests = store, blobs, manifests
        self._scratch, self._like, self._report = scratch, like, report
        self._known: dict[object, Blob] = {}
        self._owned = True

    def put(self, blob: Blob, data: Reader) -> Blob:
        """As Session says."""
        with self._scratch.new(blob.size) as file:
            file.writer.moved = lambda count: self._report(Moved(count))
            hashes = pour(data, blob.size, file.writer.appending(), where=self._blobs.path)
            return self._named(file, blob, check(blob, hashes))

    def put_on(self, blob: Blob, opened: Opened) -> Blob:
        """As Continues says."""
        with self._scratch.part(key_of(blob), blob.size) as file:
            file.writer.moved = lambda count: self._report(Moved(count))
            file.keep = True
            return self._named(file, blob, pour_on(file.fd, file.writer, blob, opened, self._report))

    def _named(self, file: NewFile, blob: Blob, known: Blob) -> Blob:
        self._owned &= system.give(file.fd, self._like, directory=False)
        if known.digest is not None:
            file.appear(self._blobs, known.digest.file_name)
        self._known[blob.id] = self._known[known.id] = known
        return known

    def commit(self, model: Model) -> Placed:
        """As Session says: the manifest by rename, while the directory is locked."""
        if not isinstance(model.document, Image):
            raise Unsupported("is a recipe: only an Ollama server can make a model of it", where=model.name)
        model = model.settled(self._known)
        with Folder.at(self._manifests.path) as locked:
            locked.lock()
            for blob in model.blobs:
                name, size = lookup(self._blobs, blob.digest) if blob.digest is not None else ("", None)
                if size != blob.size:
                    raise NotFound(f"the {blob.kind} blob {blob} vanished meanwhile", where=self._blobs.path)
                # Ollama prunes blobs that no manifest names once they are an hour old: not while we finish.
                self._blobs.touch(name)
            there = self._store.find(model.name)
            self._store.refuse_taken(model, there)
            called = there[0] if there else model.name
            if there is None or there[1] != model.document.raw:
                self._write(called, model.document.raw)
        return Placed(called, model.document.id, True, "directory", note=self._readable())

    def _write(self, name: Name, raw: bytes) -> None:
        with contextlib.ExitStack() as stack:
            folder = self._manifests
            for part in name.parts[:3]:
                below = stack.enter_context(folder.folder(part, create=True, like=self._like))
                folder.sync()
                folder = below
            file = stack.enter_context(self._scratch.new(len(raw)))
            file.writer.write_at(memoryview(raw), 0)
            self._owned &= system.give(file.fd, self._like, directory=False)
            file.appear(folder, name.tag)

    def _readable(self) -> str:
        if self._owned:
            return ""
        mode = stat.S_IMODE(self._like.st_mode)
        owner = f"uid {self._like.st_uid}"
        if mode & 0o004 or (mode & 0o040 and self._like.st_gid in system.my_groups()):
            return f"The files are yours; the directory's owner ({owner}) can read them."
        return (
            f"The files are yours, and the directory's owner ({owner}) cannot read them: "
            f"run `chown -R --reference={self._store.path} {self._store.path}` as root."
        )
