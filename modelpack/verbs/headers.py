"""The headers of the GGUFs that a model names, read from its source."""

from __future__ import annotations

from collections.abc import Sequence

from modelpack.documents.gguf import read_gguf
from modelpack.documents.gguf_header import Gguf
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.errors import ModelpackError
from modelpack.hands.hashing import blamed
from modelpack.stores import Source
from modelpack.stores.files import LooseGguf
from modelpack.words.blob import ADAPTER, DRAFT, MODEL, PROJECTOR, Blob

GGUFS = (MODEL, PROJECTOR, ADAPTER, DRAFT)
"""Layers of an image that are GGUFs."""


def ggufs(source: Source, model: Model) -> Sequence[tuple[Blob, Gguf | ModelpackError]]:
    """The header of every GGUF that *model* names, or why it cannot be read."""
    return [(blob, gguf_of(source, blob)) for blob in gguf_blobs(model)]


def gguf_blobs(model: Model) -> tuple[Blob, ...]:
    """The blobs of *model* that should be GGUFs: by media type in an image, by name in a recipe."""
    document = model.document
    if isinstance(document, Image):
        return document.of_kind(*GGUFS)
    return tuple(file for file in document.files if (file.title or "").lower().endswith(".gguf"))


def gguf_of(source: Source, blob: Blob, *, arrays: bool = False) -> Gguf | ModelpackError:
    """The header of *blob*, with all of its *arrays* where they are asked for; or why it cannot be read."""
    try:
        # A lone GGUF can be read also where it is no model; and a shard, alone.
        own = source.file if isinstance(source, LooseGguf) and blob.key == source.file.key else None
        opened = own.open() if own is not None else source.open(blob)
        with opened as reader, blamed(blob):
            return read_gguf(reader, blob.size, arrays=arrays)
    except ModelpackError as error:
        return error
