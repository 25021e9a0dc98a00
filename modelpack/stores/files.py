"""Loose files: one GGUF, which becomes an image as Ollama would make it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path

from modelpack.documents.config import defaults_for, ollama_config
from modelpack.documents.gguf import Gguf, read_gguf
from modelpack.documents.gojson import go_json
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.errors import Corrupt, NotFound, Unsupported
from modelpack.hands.bytes import FileReader
from modelpack.hands.hashing import blamed
from modelpack.words.blob import CONFIG, MODEL, PARAMS, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import BytesReader, Reader


class LooseGguf:
    """The GGUF at *path*, and what modelpack makes around it: a config, and stop words where they are known.

    A link is followed (Hugging Face's cache is made of links) and its own name kept. The weights stay unread
    until somebody keeps or hashes them.
    """

    def __init__(self, path: Path, name: Name | None = None) -> None:
        self.path = path
        self.name = name or Name.of_file(path.name)
        self._made: dict[Digest, bytes] = {}
        self._mark: tuple[int, ...] = ()

    @cached_property
    def size(self) -> int:
        """Bytes of the file."""
        with self._open() as reader:
            return reader.size

    @cached_property
    def gguf(self) -> Gguf:
        """The header, checked: a file that is cut shows by the end of its last tensor."""
        with self._open() as reader, blamed(self.path):
            return read_gguf(reader, reader.size)

    @cached_property
    def model(self) -> Model:
        """The image: Ollama's config from the header, the weights, renderer and stop words where known."""
        _refuse_parts(self.gguf, self.path)
        extra = defaults_for(self.gguf)
        config = self._make(ollama_config(self.gguf, renderer=extra.renderer, parser=extra.parser), CONFIG)
        weights = Blob(self.size, MODEL, title=self.path.name, key=str(self.path))
        layers = [weights]
        if extra.stop:
            layers.append(self._make(go_json({"stop": list(extra.stop)}) + b"\n", PARAMS))
        return Model(self.name, Image.compose(config, layers))

    def _make(self, raw: bytes, media_type: str) -> Blob:
        digest = Digest.of(raw)
        self._made[digest] = raw
        return Blob(len(raw), media_type, digest)

    def models(self) -> Sequence[Model]:
        """The one model."""
        return (self.model,)

    def open(self, blob: Blob, offset: int = 0) -> AbstractContextManager[Reader]:
        """The file's bytes, or those of what was made around it."""
        if blob.key == str(self.path):
            return self._open(offset)
        if blob.digest in self._made:
            return contextlib.nullcontext(BytesReader(self._made[blob.digest], offset))
        raise NotFound(f"has no blob {blob}", where=self.path)

    def _open(self, offset: int = 0) -> FileReader:
        """The file, which must stay what it was when it was opened first: the config tells of that one."""
        reader = FileReader.at(self.path, offset)
        self._mark = self._mark or reader.mark
        if reader.mark != self._mark:
            with reader:
                raise Corrupt(
                    "changed since its header was read",
                    where=self.path,
                    advice="Wait until its writer is done.",
                )
        return reader


def _refuse_parts(gguf: Gguf, where: Path) -> None:
    """Raise Unsupported for what is no model by itself."""
    if gguf.split is not None and gguf.split.count > 1:
        raise Unsupported(
            f"is shard {gguf.split.no + 1} of {gguf.split.count}, no model without the others",
            where=where,
            advice="Join them first: llama-gguf-split --merge FIRST-SHARD OUT.gguf",
        )
    if gguf.role != "model":
        raise Unsupported(
            f"is {'an adapter' if gguf.role == 'adapter' else 'a projector'}, no model by itself",
            where=where,
            advice="It goes with the model that it was made for.",
        )
