"""A models directory that others write to: its manifests read, its blobs looked at by name and size."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.errors import Corrupt, ModelpackError, NotFound, Usage
from modelpack.hands.bytes import read_at
from modelpack.hands.disk import Folder
from modelpack.words.blob import SMALL, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.text import size as shown_size

_LEVELS = 4  # manifests/<host>/<namespace>/<model>/<tag>
_PRUNING = "Such a file keeps Ollama from removing unused blobs: move it away."  # Manifests in manifest.go


class Stray(Corrupt):
    """A file in manifests/ that is no manifest by its name: of no use to a model, and of no harm to it."""


def scan(folder: Folder, above: tuple[str, ...] = ()) -> Iterator[Model | ModelpackError]:
    """Every manifest in *folder*, which *above* led to: the model, or what is wrong with that file.

    In the order of names; no link is followed, and nothing read that is called or sized like no manifest.
    What vanishes meanwhile is passed over.
    """
    for name in folder.names():
        parts = (*above, name)
        try:
            if len(parts) == _LEVELS:
                yield _model(folder, parts)
                continue
            found = folder.stat(name)
            if found is not None and stat.S_ISREG(found.st_mode):
                yield Stray("is not a manifest's name (host/namespace/model/tag)", where=folder.path / name)
                continue
            with folder.folder(name) as below:
                yield from scan(below, parts)
        except NotFound:
            continue
        except ModelpackError as error:
            yield error


def marks(folder: Folder, above: tuple[str, ...] = ()) -> Iterator[tuple[Name, tuple[int, ...]]]:
    """Every manifest's name in *folder*, with what changes where the file does; nothing is opened."""
    for name in folder.names():
        parts = (*above, name)
        with contextlib.suppress(ModelpackError):
            if len(parts) < _LEVELS:
                with folder.folder(name) as below:
                    yield from marks(below, parts)
            elif (found := folder.stat(name)) is not None:
                yield (
                    Name.of_path(parts),
                    (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns),
                )


def _model(folder: Folder, parts: tuple[str, ...]) -> Model:
    where = f"{folder.path}{os.sep}{parts[-1]}"  # no Path: a thousand add up
    try:
        name = Name.of_path(parts)
    except Usage:
        what = "is not a manifest's name (host/namespace/model/tag)"
        raise Stray(what, where=where, advice=_PRUNING) from None
    return Model(name, Image.parse(_read(folder, name.tag, where), where))


def _read(folder: Folder, name: str, where: str) -> bytes:
    """As Folder.read, but room is made for the bytes that are there, not for the most that may be."""
    fd = folder.open_file(name)
    try:
        size = os.fstat(fd).st_size
        if size > SMALL:
            raise Corrupt(f"is larger than {shown_size(SMALL)}; no real one is", where=where)
        return read_at(fd, size, 0, folder.path)
    finally:
        os.close(fd)


def lookup(blobs: Folder, digest: Digest) -> tuple[str, int | None]:
    """The file of *digest* and its size, None where it is missing; very old Ollamas wrote a colon."""
    size = blobs.file_size(digest.file_name)
    if size is None and sys.platform != "win32":
        old = blobs.file_size(str(digest))
        if old is not None:
            return str(digest), old
    return digest.file_name, size


def look(blobs: Folder, wanted: Iterable[Blob]) -> tuple[list[tuple[Blob, ModelpackError]], list[str]]:
    """Those of *wanted* that are missing, of another size or no plain files; and files that none names."""
    strays = dict.fromkeys(blobs.names())
    wrong: list[tuple[Blob, ModelpackError]] = []
    for blob in wanted:
        if blob.digest is None:
            continue
        name = blob.digest.file_name
        try:
            name, size = lookup(blobs, blob.digest)
            if size != blob.size:
                wrong.append((blob, fault(blob, blobs.path, name, size)))
        except ModelpackError as error:
            wrong.append((blob, error))
        strays.pop(name, None)
    return wrong, list(strays)


def fault(blob: Blob, folder: Path, name: str, size: int | None) -> ModelpackError:
    """What to say where the file *name* of *blob* has *size* bytes (None: is missing)."""
    if size is None:
        return NotFound(f"the {blob.kind} blob {blob} is missing", where=folder)
    return Corrupt(f"has {size} bytes, not {blob.size}", where=folder / name)
