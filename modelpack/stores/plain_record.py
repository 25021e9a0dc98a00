"""`documents/model.json`: which model a folder of plain files is, and which file is which blob."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelpack.documents.gojson import canonical_json, parse_object, size_of, text_of
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.documents.recipe import Recipe
from modelpack.errors import Corrupt, NotFound, Refused, Unsupported, Usage
from modelpack.hands.bytes import FileReader
from modelpack.hands.disk import Folder
from modelpack.stores.plain_layout import FOLDER, Layout, digest_of
from modelpack.words.blob import FILE, SMALL, Blob
from modelpack.words.digest import Digest
from modelpack.words.filename import is_portable
from modelpack.words.name import Name

DOCUMENTS = f"{FOLDER}/model.json"
"""Where it lies. It is written last of all: what it names is there."""

REPLACED = f"{FOLDER}/replaced.json"
"""What model.json is called while another model takes the place of its own."""

OURS = re.compile(r"sha256-[0-9a-f]{64}|(model|replaced|manifest|recipe)\.json", re.ASCII)
"""What is in documents/ by these names was put there by a modelpack."""

FORMAT = 1
_MOST = 4 * SMALL  # bytes: it says of each blob more than a manifest does
_LONGEST = 4096
_KINDS = {"image": "manifest.json", "recipe": "recipe.json"}


@dataclass(frozen=True)
class Record:
    """A model as it was unpacked: in which folder below DIR ("" for DIR itself), which file is which blob.

    `modelfile` is the SHA-256 of the Modelfile, None where there is none.
    """

    folder: str
    model: Model
    files: Mapping[str, Blob]
    modelfile: Digest | None

    def paths(self, digest: Digest | None) -> list[str]:
        """The files that hold the blob *digest*."""
        return [path for path, blob in self.files.items() if blob.digest == digest]


def record_bytes(model: Model, where: Layout, modelfile: Digest | None) -> bytes:
    """The model.json of *model* in files as *where* has them."""
    return canonical_json(
        {
            "format": FORMAT,
            "name": model.name.full,
            "kind": "image" if isinstance(model.document, Image) else "recipe",
            "document": str(model.document.id),
            "files": {path: str(blob.digest) for path, blob in where.files.items()},
            "blobs": {str(blob.digest): _told(blob) for blob in model.blobs},
            "modelfile": str(modelfile) if modelfile is not None else None,
        }
    )


def _told(blob: Blob) -> dict[str, Any]:
    told: dict[str, Any] = {"size": blob.size}
    if blob.title is not None:
        told["title"] = blob.title
    if blob.shards and None not in blob.shards:
        told["shards"] = [str(one) for one in blob.shards]
    return told


def read_record(folder: Folder, name: str = "") -> Record:
    """The model in *folder*, which is called *name* below DIR; NotFound where there is none.

    Raises Corrupt where model.json or the document is not what it should be, Unsupported for a newer format,
    Refused for links.
    """
    here = folder.path / DOCUMENTS
    value = parse_object(read_at(folder, DOCUMENTS, _MOST), here, _MOST)
    if value.get("format") != FORMAT:
        raise Unsupported("is of another format", where=here, advice="A newer modelpack may read it.")
    blobs, files = _noted(value, here)
    kind = _KINDS.get(text_of(value, "kind", here))
    if kind is None:
        raise Unsupported("is of another kind", where=here, advice="A newer modelpack may know it.")
    raw = read_at(folder, f"{FOLDER}/{kind}", SMALL)
    where = folder.path / FOLDER / kind
    if Digest.of(raw) != Digest.parse(value.get("document"), here):
        raise Corrupt("is not the document that was unpacked", where=where)
    document: Image | Recipe = (
        Image.parse(raw, where) if kind == _KINDS["image"] else Recipe.parse(raw, list(blobs.values()), where)
    )
    placed = set(files.values())
    for one in document.blobs:
        blob = blobs.get(digest_of(one))
        if blob is None or blob.size != one.size or blob not in placed:
            raise Corrupt(f"does not say where {one} is", where=here)
    known: dict[object, Blob] = {blob.digest: blob for blob in placed}
    try:
        model = Model(Name.parse(text_of(value, "name", here)), document.settled(known))
    except Usage as error:
        raise Corrupt(error.what, where=here) from None
    kinds = {one.digest: one.media_type for one in reversed(document.blobs)}
    written = value.get("modelfile")
    return Record(
        name,
        model,
        {path: replace(blob, media_type=kinds.get(blob.digest, FILE)) for path, blob in files.items()},
        Digest.parse(written, here) if written is not None else None,
    )


def torn(folder: Folder) -> bool:
    """Whether a model was begun in *folder* and is not there: its documents/ has files, but no model.json."""
    try:
        with folder.folder(FOLDER) as documents:
            names = documents.names()
    except (NotFound, Refused):
        return False
    return DOCUMENTS.rpartition("/")[2] not in names and any(map(OURS.fullmatch, names))


def read_replaced(folder: Folder) -> Mapping[str, Blob]:
    """The files of the model that a broken run was replacing in *folder*; none where none was."""
    here = folder.path / REPLACED
    try:
        return _noted(parse_object(read_at(folder, REPLACED, _MOST), here, _MOST), here)[1]
    except (NotFound, Corrupt):
        return {}


def _noted(value: dict[str, Any], here: object) -> tuple[dict[Digest, Blob], dict[str, Blob]]:
    """The blobs that *value* tells of, and which file is which; Corrupt where a path may lead elsewhere."""
    blobs = {Digest.parse(key, here): _blob(key, told, here) for key, told in _object(value, "blobs", here)}
    files: dict[str, Blob] = {}
    for path, text in _object(value, "files", here):
        blob = blobs.get(Digest.parse(text, here))
        if blob is None or not all(map(is_portable, path.split("/"))):
            raise Corrupt(f"names {path[:100]!r}, which is no file of an unpacked model", where=here)
        files[path] = blob
    return blobs, files


def _object(value: dict[str, Any], key: str, where: object) -> list[tuple[str, Any]]:
    found = value.get(key)
    if not isinstance(found, dict):
        raise Corrupt(f"its {key!r} is not an object", where=where)
    return list(found.items())


def _blob(key: str, told: Any, where: object) -> Blob:
    if not isinstance(told, dict):
        raise Corrupt(f"does not say how large {key} is", where=where)
    title = text_of(told, "title", where) if "title" in told else None
    shards = told.get("shards") or []
    if not isinstance(shards, list) or len(title or "") > _LONGEST:
        raise Corrupt(f"says of {key} what cannot be", where=where)
    return Blob(
        size_of(told, where),
        FILE,
        Digest.parse(key, where),
        title=title,
        shards=tuple(Digest.parse(one, where) for one in shards),
    )


# --- files below a folder; no link on the way is followed


@contextlib.contextmanager
def below(folder: Folder, path: str, *, create: bool = False) -> Iterator[tuple[Folder, str]]:
    """The folder that the file at *path* below *folder* lies in (with *create* made), and its name there."""
    *above, name = path.split("/")
    with contextlib.ExitStack() as stack:
        for part in above:
            made = folder.folder(part, create=create)
            if create:
                folder.sync()
            folder = stack.enter_context(made)
        yield folder, name


def size_at(folder: Folder, path: str) -> int | None:
    """Bytes of the plain file at *path*; None where there is nothing; Refused where it is something else."""
    try:
        with below(folder, path) as (into, name):
            return into.file_size(name)
    except NotFound:
        return None


def read_at(folder: Folder, path: str, most: int) -> bytes:
    """The small file at *path*; NotFound, Refused, or Corrupt where it has more than *most* bytes."""
    with below(folder, path) as (into, name):
        return into.read(name, most)


def open_at(folder: Folder, path: str, blob: Blob, offset: int = 0) -> FileReader:
    """The file of *blob* at *path*: NotFound where it is missing, Corrupt where it has another size."""
    with below(folder, path) as (into, name):
        size = into.file_size(name)
        if size is None:
            raise NotFound("is missing", where=folder.path / path)
        if size != blob.size:
            raise Corrupt(f"has {size} bytes, not {blob.size}", where=folder.path / path)
        return FileReader(into.open_file(name), offset, size - offset, folder.path / path)
