"""Where a depot's models are: a models directory, or a bundle as it lies there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Protocol

from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.documents.oci import blob_path
from modelpack.errors import Corrupt, NotFound, from_os
from modelpack.hands.bytes import FileReader
from modelpack.hands.disk import Folder
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.models_dir_scan import marks, scan
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name


class Shelf(Protocol):
    """What a depot reads from. Names are compared as Ollama does, without case."""

    @property
    def path(self) -> Path:
        """The directory or the file."""
        ...

    def models(self) -> Sequence[Model]:
        """Every image whose manifest can be read."""
        ...

    def marks(self) -> Mapping[Name, Hashable]:
        """Their names, each with something that changes where the model does: cheaper than `models`."""
        ...

    def read(self, name: Name) -> tuple[Name, Image] | None:
        """The model *name*, under the name that it has here."""
        ...

    def tags(self, name: Name) -> Sequence[Model]:
        """The models whose names differ from *name* in nothing but the tag: a repository."""
        ...

    def open(self, blob: Blob, offset: int = 0) -> FileReader:
        """The bytes of *blob* from *offset* on; NotFound, or Corrupt where it has another size."""
        ...

    def size_of(self, digest: Digest) -> int | None:
        """Bytes of the blob's file; None where there is none."""
        ...

    def modified(self, name: Name) -> int:
        """When the manifest of *name* was written, in nanoseconds since 1970."""
        ...

    def blob_path(self, blob: Blob) -> str:
        """Where *blob* is, as `show` tells."""
        ...


def image_of(model: Model) -> Image:
    """The manifest of a model that is shelved: nothing else is."""
    if not isinstance(model.document, Image):
        raise Corrupt("is not an image", where=model.name)
    return model.document


class Directory:
    """The models directory at *path*, which may be missing or empty."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = ModelsDir(path, replace=True)

    def models(self) -> Sequence[Model]:
        """As Shelf says."""
        return self.store.models()

    def marks(self) -> Mapping[Name, Hashable]:
        """As Shelf says."""
        with contextlib.suppress(NotFound), self.folders(()) as folders:
            return dict(marks(folders[0]))
        return {}

    def read(self, name: Name) -> tuple[Name, Image] | None:
        """As Shelf says."""
        return self.store.read(name)

    def tags(self, name: Name) -> Sequence[Model]:
        """As Shelf says."""
        above = self.existing(name).parts[:3]
        with contextlib.suppress(NotFound), self.folders(above) as folders:
            return [found for found in scan(folders[-1], above) if isinstance(found, Model)]
        return ()

    def open(self, blob: Blob, offset: int = 0) -> FileReader:
        """As Shelf says."""
        return self.store.open(blob, offset)

    def size_of(self, digest: Digest) -> int | None:
        """As Shelf says."""
        with contextlib.suppress(NotFound), Folder.at(self.path) as root, root.folder("blobs") as blobs:
            return blobs.file_size(digest.file_name)
        return None

    def modified(self, name: Name) -> int:
        """As Shelf says."""
        with self.folders(name.parts[:3]) as folders:
            found = folders[-1].stat(name.tag)
        if found is None:
            raise NotFound(f"the manifest of {name} vanished", where=self.path)
        return found.st_mtime_ns

    def blob_path(self, blob: Blob) -> str:
        """As Shelf says."""
        return str(self.path / "blobs" / blob.digest.file_name) if blob.digest else ""

    def existing(self, name: Name) -> Name:
        """*name*, with the parts from the left that are here in another case as they are here."""
        parts: list[str] = []
        with contextlib.ExitStack() as stack, contextlib.suppress(NotFound):
            folder = stack.enter_context(Folder.at(self.path))
            folder = stack.enter_context(folder.folder("manifests"))
            for part in name.parts:
                same = [one for one in folder.names() if one.lower() == part.lower()]
                if not same:
                    break
                parts.append(part if part in same else same[0])
                if len(parts) < 4:
                    folder = stack.enter_context(folder.folder(parts[-1]))
        return Name(*parts, *name.parts[len(parts) :])

    @contextlib.contextmanager
    def folders(self, parts: Sequence[str]) -> Iterator[list[Folder]]:
        """`manifests/` and the directories below it, down *parts*."""
        with contextlib.ExitStack() as stack:
            root = stack.enter_context(Folder.at(self.path))
            folders = [stack.enter_context(root.folder("manifests"))]
            for part in parts:
                folders.append(stack.enter_context(folders[-1].folder(part)))
            yield folders


class Bundle:
    """A bundle; one that is packed anew meanwhile is seen as it is then. Its recipes are not shelved."""

    def __init__(self, bundle: Archive | FolderBundle) -> None:
        self.path = bundle.path.absolute()
        self._make: Callable[[], Archive | FolderBundle] = lambda: type(bundle)(self.path)
        self._lock = Lock()
        self._mark: os.stat_result | None = None
        self._store = self._make()
        self._current()

    def _current(self) -> tuple[Archive | FolderBundle, int]:
        """The bundle as it is now, and when it was written."""
        store = self._make()
        index = self.path / "index.json" if isinstance(store, FolderBundle) else self.path
        try:
            now = os.stat(index)
        except OSError as error:
            raise from_os(error, index) from error
        with self._lock:
            if self._mark is None or _identity(now) != _identity(self._mark):
                self._store, self._mark = store, now
                store.models()  # NotFound, Corrupt or Unsupported at once
            return self._store, now.st_mtime_ns

    def models(self) -> Sequence[Model]:
        """As Shelf says."""
        return [model for model in self._current()[0].models() if isinstance(model.document, Image)]

    def marks(self) -> Mapping[Name, Hashable]:
        """As Shelf says."""
        return {model.name: (image_of(model).id, self.modified(model.name)) for model in self.models()}

    def read(self, name: Name) -> tuple[Name, Image] | None:
        """As Shelf says."""
        found = next((one for one in self.models() if one.name.folded == name.folded), None)
        return None if found is None else (found.name, image_of(found))

    def tags(self, name: Name) -> Sequence[Model]:
        """As Shelf says."""
        wanted = [part.lower() for part in name.parts[:3]]
        return [one for one in self.models() if [part.lower() for part in one.name.parts[:3]] == wanted]

    def open(self, blob: Blob, offset: int = 0) -> FileReader:
        """As Shelf says."""
        while True:
            store, _ = self._current()
            reader = store.open(blob, offset)
            if self._current()[0] is store:
                return reader
            reader.__exit__()  # packed anew just then: other bytes may be at that place

    def size_of(self, digest: Digest) -> int | None:
        """As Shelf says; of a blob that no model here names, None."""
        for model in self.models():
            for blob in model.blobs:
                if blob.digest == digest:
                    with contextlib.suppress(NotFound, Corrupt), self.open(blob):
                        return blob.size
        return None

    def modified(self, name: Name) -> int:  # noqa: ARG002 - one for all
        """As Shelf says: when the bundle was written."""
        return self._current()[1]

    def blob_path(self, blob: Blob) -> str:
        """As Shelf says."""
        return str(self.path / blob_path(blob.digest)) if blob.digest else ""


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
