"""Loose files: GGUFs and shards, which become a model as Ollama would make it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from modelpack.documents.compose import Weights, compose, media_type_of
from modelpack.documents.config import Remark, check_quantizable, remarks_on
from modelpack.documents.gguf import Gguf
from modelpack.documents.model import Model
from modelpack.documents.recipe import Recipe
from modelpack.errors import NotFound, Unsupported
from modelpack.hands.links import within
from modelpack.stores import Source
from modelpack.stores.files_parts import MergedShards, Part, WholeFile, find_family
from modelpack.words.blob import FILE, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import BytesReader, Reader


class LooseFiles:
    """A model put together from files: *parts* by the key of their blob, and small blobs that were *made*.

    Blobs that are neither come from *base*. Parts stay unread until somebody keeps or hashes them.
    `remarks` and `notes` (sentences) are what whoever packs it may want to know.
    """

    def __init__(
        self,
        model: Model,
        parts: Mapping[object, Part],
        made: Mapping[Digest, bytes],
        where: object,
        *,
        base: Source | None = None,
        remarks: frozenset[Remark] = frozenset(),
        notes: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.remarks = remarks
        self.notes = tuple(notes)
        self._parts, self._made, self._where, self._base = parts, made, where, base

    def models(self) -> Sequence[Model]:
        """The one model."""
        return (self.model,)

    def open(self, blob: Blob, offset: int = 0) -> AbstractContextManager[Reader]:
        """The bytes of a file, of its base, or of what was made around them."""
        if blob.key in self._parts:
            return self._parts[blob.key].open(offset)
        if blob.digest is not None and blob.digest in self._made:
            return contextlib.nullcontext(BytesReader(self._made[blob.digest], offset))
        if self._base is not None:
            return self._base.open(blob, offset)
        raise NotFound(f"has no blob {blob}", where=self._where)

    def learned(self, blob: Blob) -> Blob:
        """*blob* with the digests of the shards that it was merged from."""
        part = self._parts.get(blob.key)
        return replace(blob, shards=part.learned() or blob.shards) if part is not None else blob


class LooseGguf:
    """The GGUF at *path* and what modelpack makes around it: a config, and stop words where they are known.

    A link is followed (Hugging Face's cache is made of links) and its own name kept. `gguf` is the header of
    this very file; where that is a shard, the model is merged from all of them. With *quantize* the model is
    a recipe: the server makes that type of it.
    """

    def __init__(self, path: Path, name: Name | None = None, *, quantize: str | None = None) -> None:
        self.path = path
        self.name = name or Name.of_file(path.name)
        self.file = WholeFile(path)
        self._quantize = quantize

    @property
    def gguf(self) -> Gguf:
        """The header, checked: a file that is cut shows by the end of its last tensor."""
        return self.file.gguf

    @cached_property
    def files(self) -> LooseFiles:
        """The model and where its bytes are; raises what keeps it from being one (a missing shard, …)."""
        part = gguf_part(self.path, self.file)
        blob = blob_of(part, media_type_of(part.gguf))
        image, made = compose([Weights(blob, part.gguf)], {}, None, self.path)
        if self._quantize:
            check_quantizable(part.gguf, self.path)
            file = replace(blob, media_type=FILE)
            recipe = Recipe.compose({"quantize": self._quantize}, {"files": {part.title: file}})
            return LooseFiles(Model(self.name, recipe), {part.key: part}, {}, self.path)
        return LooseFiles(
            Model(self.name, image), {part.key: part}, made, self.path, remarks=remarks_on(part.gguf)
        )

    @property
    def model(self) -> Model:
        """The image: Ollama's config from the header, the weights, renderer and stop words where known."""
        return self.files.model

    @property
    def remarks(self) -> frozenset[Remark]:
        """What whoever packs it may want to know."""
        return self.files.remarks

    @property
    def notes(self) -> tuple[str, ...]:
        """None of a lone file."""
        return ()

    def models(self) -> Sequence[Model]:
        """The one model."""
        return self.files.models()

    def open(self, blob: Blob, offset: int = 0) -> AbstractContextManager[Reader]:
        """The file's bytes, or those of what was made around it."""
        return self.files.open(blob, offset)

    def learned(self, blob: Blob) -> Blob:
        """*blob* with the digests of the shards that it was merged from."""
        return self.files.learned(blob)


def gguf_part(
    path: Path, file: WholeFile | None = None, folder: Path | None = None
) -> WholeFile | MergedShards:
    """The GGUF at *path*, all its shards together where it is one of several.

    Raises NotFound for a missing shard, Unsupported for one whose name does not say where the others are,
    Refused where a link leads one of them out of *folder*.
    """
    file = file or WholeFile(path)
    split = file.gguf.split
    if split is None or split.count < 2:
        return file
    family = find_family(path)
    if family is None:
        raise Unsupported(
            f"is shard {split.no + 1} of {split.count}, no model without the others",
            where=path,
            advice="Give all of them the names that llama.cpp gave, as "
            f"NAME-{split.no + 1:05}-of-{split.count:05}.gguf",
        )
    for one in family if folder is not None else ():
        within(one, folder or one.parent)
    return MergedShards(family)


def blob_of(part: Part, media_type: str) -> Blob:
    """The blob that *part* becomes, unread."""
    return Blob(part.size, media_type, title=part.title, key=part.key, shards=(None,) * part.shards)
