"""Which files a model becomes, and what its Modelfile says of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from modelpack.documents.create import check_creatable, create_request, texts_needed
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.documents.modelfile import write_modelfile
from modelpack.documents.modelfile_grammar import LIMIT
from modelpack.documents.recipe import FILE_FIELDS, Recipe
from modelpack.errors import Corrupt, Unsupported
from modelpack.words.blob import ADAPTER, DRAFT, LICENSE, MODEL, PROJECTOR, SMALL, Blob
from modelpack.words.digest import ZERO, Digest
from modelpack.words.filename import Paths, portable
from modelpack.words.name import DEFAULT_TAG, Name
from modelpack.words.text import size

MODELFILE = "Modelfile"
FOLDER = "documents"
"""Where what is for modelpack lies, and every blob that has no name of its own."""

_GGUFS = {MODEL: "{}", PROJECTOR: "mmproj-{}", ADAPTER: "{}-adapter", DRAFT: "{}-draft"}
# What is no GGUF gets a folder for each field: Ollama takes every *.json that lies one folder deep.
_FOLDERS = {"files": "model", "adapters": "adapter", "draft_files": "draft"}
_DEEPEST = 4
_SAID = frozenset(
    {"template", "system", "license", "parameters", "messages", "renderer", "parser", "requires", "from"}
)
_WITHOUT = "Use --no-modelfile to leave it out: documents/ holds every text as it is."


@dataclass(frozen=True)
class Layout:
    """The files of a model: path below its folder, with "/", and blob; each blob at least once.

    `sources`, `adapters` and `drafts` are what its Modelfile names.
    """

    document: str
    files: Mapping[str, Blob]
    sources: tuple[str, ...]
    adapters: tuple[str, ...]
    drafts: tuple[str, ...]


def layout(model: Model) -> Layout:
    """Where the files of *model* lie; nothing in it can lead out of the folder."""
    document = model.document
    # No name here is that of the Modelfile or of documents/: GGUFs have a suffix, other files their folders.
    if isinstance(document, Recipe):
        return _of_recipe(document, Paths())
    return _of_image(document, model.name, Paths())


def staged(digest: Digest) -> str:
    """Where the blob *digest* lies until it gets its own name, and for good where it has none."""
    return f"{FOLDER}/{digest.file_name}"


def digest_of(blob: Blob) -> Digest:
    """The digest of *blob*; Unsupported where nobody has read it yet."""
    if blob.digest is None:
        raise Unsupported(f"{blob} has to be hashed before it is unpacked")
    return blob.digest


def _of_image(image: Image, name: Name, paths: Paths) -> Layout:
    stem = portable(name.model if name.tag == DEFAULT_TAG else f"{name.model}-{name.tag}")
    files: dict[str, Blob] = {}
    named: dict[str, list[str]] = {kind: [] for kind in _GGUFS}
    for blob in (*image.layers, image.config):
        path = staged(digest_of(blob))
        if blob.media_type in _GGUFS:
            path = paths.take(_gguf(blob.title or "", _GGUFS[blob.media_type].format(stem)))
            named[blob.media_type].append(path)
        elif blob.media_type == LICENSE and blob.size <= SMALL:
            path = paths.take("LICENSE")
        files[path] = blob
    groups = (named[MODEL] + named[PROJECTOR], named[ADAPTER], named[DRAFT])
    return Layout(f"{FOLDER}/manifest.json", files, *(tuple(map(_here, group)) for group in groups))


def _of_recipe(recipe: Recipe, paths: Paths) -> Layout:
    blobs = {blob.digest or ZERO: blob for blob in recipe.files}  # as composed: zeros for what is unread
    files: dict[str, Blob] = {}
    named: dict[str, tuple[str, ...]] = {}
    for field in FILE_FIELDS:
        group = recipe.body.get(field) or {}
        taken: list[str] = []
        ggufs = all(title.lower().endswith(".gguf") for title in group)
        for title, text in group.items():
            parts = [portable(part) for part in re.split(r"[/\\]", title) if part not in ("", ".", "..")]
            parts = [_FOLDERS[field], *(parts[-_DEEPEST:] or ["file"])]
            taken.append(paths.take(*([_gguf(title, "model")] if ggufs else parts)))
            files[taken[-1]] = blobs[Digest.parse(text)]
        named[field] = tuple(map(_here, taken if ggufs else [_FOLDERS[field]]))
    base = recipe.body.get("from")
    sources = (str(base),) if base else named["files"]
    return Layout(f"{FOLDER}/recipe.json", files, sources, named["adapters"], named["draft_files"])


def _gguf(title: str, otherwise: str) -> str:
    """The name of a GGUF after the last part of *title*."""
    stem = re.sub(r"\.gguf$", "", re.split(r"[/\\]", title)[-1], flags=re.IGNORECASE)
    return portable(stem, otherwise) + ".gguf"


def _here(path: str) -> str:
    return f"./{path}"


# --- the Modelfile


def why_none(model: Model) -> str:
    """Why no Modelfile can tell of *model*, in words; empty where one can.

    Raises Unsupported where one of its texts is too large for any, or all of them are together.
    """
    if isinstance(model.document, Image):
        try:
            texts = sum(blob.size for blob in texts_needed(model.document))
        except Unsupported as error:
            raise Unsupported(error.what, where=model.name, advice=_WITHOUT) from None
        if texts > LIMIT:
            what = f"its texts have {size(texts)} together, and a Modelfile {size(LIMIT)} at most"
            raise Unsupported(what, where=model.name, advice=_WITHOUT)
    try:
        check_creatable(model)
    except Unsupported as error:
        return error.what
    return ""


def small_texts(model: Model) -> tuple[Blob, ...]:
    """The blobs whose bytes stand in the Modelfile."""
    return texts_needed(model.document) if isinstance(model.document, Image) else ()


def modelfile_of(model: Model, where: Layout, read: Callable[[Blob], bytes]) -> tuple[bytes, tuple[str, ...]]:
    """The Modelfile of *model*, and the fields of a create request that it cannot say.

    *read* brings its small texts. Raises Unsupported where one of them cannot be held.
    """
    texts = {digest_of(blob): read(blob) for blob in small_texts(model)}
    try:
        request = _request(model, texts)
        texts.clear()  # the request has them by now, and they may be many
        sources = where.sources
        if isinstance(model.document, Recipe) and model.document.base is not None:
            # With its tag: a folder's name, as Ollama would take it where one is there, never has a colon.
            sources = (str(model.document.base),)
        raw = write_modelfile(request, sources, where.adapters, where.drafts)
    except (Unsupported, Corrupt) as error:  # the latter of a text that is no UTF-8, or no JSON
        raise Unsupported(error.what, where=model.name, advice=_WITHOUT) from error
    unsaid = request.keys() - _SAID - {"model", *FILE_FIELDS}
    return raw, tuple(sorted(field for field in unsaid if request[field]))


def _request(model: Model, texts: Mapping[Digest, bytes]) -> dict[str, Any]:
    request = create_request(model, texts)
    if isinstance(request.get("license"), str):  # which a recipe may have, and a list says as well
        request["license"] = [request["license"]]
    return request
