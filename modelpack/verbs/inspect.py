"""What is in a store: models, layers, sizes, and what their GGUFs say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelpack.documents.gguf import read_gguf
from modelpack.documents.gguf_header import Gguf
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.errors import ModelpackError
from modelpack.hands.hashing import blamed
from modelpack.stores import Identified, Source
from modelpack.stores.files import LooseGguf
from modelpack.stores.models_dir import ModelsDir
from modelpack.words.blob import ADAPTER, DRAFT, MODEL, PROJECTOR, Blob
from modelpack.words.digest import Digest

_GGUFS = (MODEL, PROJECTOR, ADAPTER, DRAFT)


@dataclass(frozen=True)
class Inspected:
    """A store's kind, its fingerprint where it is a bundle, its models, and files that are wrong."""

    kind: str
    fingerprint: Digest | None
    models: tuple[Model, ...]
    problems: tuple[ModelpackError, ...] = ()
    gguf: Gguf | None = None
    """The header, where the store is one loose GGUF (which may be no model: a shard, an adapter)."""


def inspect(source: Source) -> Inspected:
    """What *source* holds; no blob is read. Raises what keeps the documents from being read."""
    fingerprint = source.fingerprint if isinstance(source, Identified) else None
    if isinstance(source, ModelsDir):
        found = list(source.scan())
        return Inspected(
            "models directory",
            None,
            tuple(one for one in found if isinstance(one, Model)),
            tuple(one for one in found if isinstance(one, ModelpackError)),
        )
    if isinstance(source, LooseGguf):
        gguf = source.gguf
        try:
            return Inspected("GGUF", None, tuple(source.models()), gguf=gguf)
        except ModelpackError as error:
            return Inspected("GGUF", None, (), (error,), gguf)
    return Inspected("bundle", fingerprint, tuple(source.models()))


def ggufs(source: Source, model: Model) -> Sequence[tuple[Blob, Gguf | ModelpackError]]:
    """The header of every GGUF among the layers of *model*, or why it cannot be read."""
    found: list[tuple[Blob, Gguf | ModelpackError]] = []
    layers = model.document.of_kind(*_GGUFS) if isinstance(model.document, Image) else ()
    for blob in layers:
        try:
            with source.open(blob) as reader, blamed(blob):
                found.append((blob, read_gguf(reader, blob.size)))
        except ModelpackError as error:
            found.append((blob, error))
    return found
