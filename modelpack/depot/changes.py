"""What changes a models directory: copy, delete, install.

Changes are made one at a time, under `changing`. Loads into the directory, from this process or another, know
nothing of that: while a manifest is written or a blob removed, the lock of `manifests/` is held as well.
"""

from __future__ import annotations

import contextlib
from threading import Lock
from typing import Any

from modelpack.depot.asked import Says, text_field
from modelpack.depot.golang import quoted
from modelpack.depot.models import Models
from modelpack.depot.shelf import Directory, image_of
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.errors import ModelpackError, NotFound, Usage
from modelpack.hands.disk import Folder
from modelpack.words.digest import Digest
from modelpack.words.name import Name


class Changes:
    """The models in *directory*, as far as they change; *models* tells of them."""

    def __init__(self, directory: Directory, models: Models) -> None:
        self.directory, self.models = directory, models
        self.store = directory.store
        self.changing = Lock()

    def copy(self, source: str, destination: str) -> None:
        """Give the model *source* a second name; Says 400, 404."""
        name = _parsed(source, f"source {quoted(source)} is invalid")
        target = _parsed(destination, f"destination {quoted(destination)} is invalid")
        with self.changing:
            found = self.store.read(name)
            if found is None:
                raise Says(404, f"model {quoted(source)} not found")
            self._commit(Model(self.directory.existing(target), found[1]))

    def install(self, name: Name, image: Image) -> None:
        """Give *name* to *image*, whose blobs must all be here; what it stood for goes where it is unused.

        Raises NotFound where a blob is missing or has another size.
        """
        self.store.missing([Model(name, image)])  # what has to be hashed, is before anybody has to wait
        with self.changing:
            model = Model(self.directory.existing(name), image)
            missing = self.store.missing([model])
            if missing:
                raise NotFound(f"the {missing[0].kind} blob {missing[0]} is not here, or not whole")
            before = self.before(model.name)
            self._commit(model)
            if before is not None and before.raw != image.raw:
                self.forget(before)

    def _commit(self, model: Model) -> None:
        with self.store.session([model]) as session:
            session.commit(model)

    def before(self, name: Name) -> Image | None:
        """What *name* stands for; None, too, where nobody can tell: then nothing of it may be removed."""
        try:
            found = self.store.read(name)
        except ModelpackError:
            return None
        return found[1] if found is not None else None

    def delete(self, asked: dict[str, Any]) -> None:
        """Remove a name, and the blobs that no other manifest names; Says 400, 404."""
        text = text_field(asked, "model", "name")
        if not text:
            raise Says(400, "model is required")
        name = _parsed(text, f"name {quoted(text)} is invalid")
        with self.changing:
            found = self.store.read(name)
            if found is None:
                raise Says(404, f"model '{text}' not found")
            with self.directory.folders(found[0].parts[:3]) as folders:
                folders[0].lock()
                folders[-1].remove(found[0].tag)
                for folder, above, part in reversed(
                    list(zip(folders[1:], folders, found[0].parts, strict=False))
                ):
                    if folder.names():
                        break
                    above.remove(part)
                folders[0].sync()
            self.forget(found[1])

    def forget(self, image: Image) -> None:
        """Remove the blobs of *image*, whose name is gone, that nothing else names.

        Where some manifest cannot be read, nobody knows what it names: then all blobs stay. To be called
        under `changing`, and not under the lock of `manifests/`: that is taken here, so that no load names a
        blob between the look and the removal.
        """
        with contextlib.suppress(NotFound), self.directory.folders(()) as folders:
            folders[0].lock()
            self._forget(image)

    def _forget(self, image: Image) -> None:
        used: set[Digest | None] = set()
        for found in self.store.scan():
            if isinstance(found, ModelpackError):
                return
            used.update(_digests_of(image_of(found)))
        with Folder.at(self.directory.path) as root, root.folder("blobs") as blobs:
            for digest in _digests_of(image) - used:
                blobs.remove(digest.file_name)
                blobs.remove(str(digest))  # as very old Ollamas named it
            blobs.sync()


def _digests_of(image: Image) -> set[Digest]:
    return {blob.digest for blob in (*image.layers, image.config) if blob.digest is not None}


def _parsed(text: str, error: str) -> Name:
    try:
        return Name.parse(text)
    except Usage:
        raise Says(400, error) from None
