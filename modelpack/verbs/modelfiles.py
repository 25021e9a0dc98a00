"""The Modelfile of a model, as `ollama show --modelfile` prints it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelpack.documents.gojson import parse_object, parse_value, text_of
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.documents.modelfile import write_modelfile
from modelpack.documents.oci import ALL_DOCUMENTS, blob_path
from modelpack.documents.recipe import Recipe
from modelpack.documents.show import DEFAULT_TEMPLATE, modelfile_text
from modelpack.errors import Corrupt
from modelpack.hands.hashing import read_small
from modelpack.stores import Source
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.plain import PlainFolder
from modelpack.stores.plain_layout import layout
from modelpack.words.blob import (
    ADAPTER,
    DRAFT,
    LICENSE,
    MESSAGES,
    MODEL,
    PARAMS,
    PROJECTOR,
    PROMPT,
    SYSTEM,
    TEMPLATE,
    Blob,
)
from modelpack.words.text import visible

_OPTIONS = ("quantize", "draft_quantize")  # of a create request: of `ollama create` too, of no Modelfile


def modelfile_of(source: Source, model: Model) -> str:
    """What `ollama show --modelfile` would print of *model* if its server kept its blobs where *source* does.

    For a recipe, a Modelfile that says the same, to lie beside its files as `unpack` lays them; where
    they lie loose, it names them there. Raises Corrupt where a small blob is damaged, Unsupported where a
    recipe holds what no Modelfile can.
    """
    if isinstance(model.document, Recipe):
        return _of_recipe(model, model.document)
    return _OfImage(source, model.document, str(model.name)).text()


def place_of(source: Source, blob: Blob) -> str:
    """Where the file of *blob* is; `sha256-<hex>` where it has none of its own, as in a tar."""
    if isinstance(blob.key, str):  # a loose file
        return blob.key
    if isinstance(blob.key, tuple):  # shards: llama.cpp and Ollama are told of the first
        return str(blob.key[0])
    if blob.digest is None:
        return str(blob)
    if isinstance(source, ModelsDir):
        return os.path.abspath(source.file_of(blob.digest))
    if isinstance(source, FolderBundle):
        return os.path.abspath(source.path / blob_path(blob.digest))
    if isinstance(source, PlainFolder) and (path := source.file_of(blob.digest)) is not None:
        return os.path.abspath(path)
    return blob.digest.file_name


class _OfImage:
    """Facts: server/images.go (GetModel, Model.String), server/routes.go (GetModelInfo) of Ollama v0.33."""

    def __init__(self, source: Source, image: Image, name: str) -> None:
        self._source, self._image, self._name = source, image, name
        self._texts: dict[object, bytes] = {}
        self._left = ALL_DOCUMENTS

    def text(self) -> str:
        config = parse_object(self._read(self._image.config), f"{self._name}: config")
        params: dict[str, Any] = {}
        for blob in self._image.of_kind(PARAMS):
            params |= self._value(blob, dict) or {}
        messages = self._image.of_kind(MESSAGES)[-1:]
        weights = self._places(MODEL)[-1:]
        text = modelfile_text(
            self._name,
            model=weights[0] if weights else "",
            adapters=self._places(ADAPTER),
            draft="".join(self._places(DRAFT)[-1:]),
            projectors=self._places(PROJECTOR),
            template=self._last(DEFAULT_TEMPLATE, TEMPLATE, PROMPT),
            system=self._last("", SYSTEM),
            renderer=text_of(config, "renderer", self._name, ""),
            parser=text_of(config, "parser", self._name, ""),
            params=params,
            licenses=[self._text(blob) for blob in self._image.of_kind(LICENSE)],
            messages=[each for blob in messages for each in self._value(blob, list) or []],
        )
        if config.get("model_format") != "safetensors":
            return text
        first, _, rest = text.partition("\n")  # of weights in many blobs, Ollama names the model itself
        return f"{first}\nFROM {self._name}\n" + rest.partition("\n\n")[2].partition("\n")[2]

    def _places(self, kind: str) -> list[str]:
        return [place_of(self._source, blob) for blob in self._image.of_kind(kind)]

    def _last(self, default: str, *kinds: str) -> str:
        found = self._image.of_kind(*kinds)
        return self._text(found[-1]) if found else default

    def _text(self, blob: Blob) -> str:
        return self._read(blob).decode("utf-8", "replace")  # as Go's JSON writes what is not UTF-8

    def _value(self, blob: Blob, wanted: type) -> Any:
        where = f"{self._name}: {blob.kind}"
        value = parse_value(self._read(blob), where)
        items = value if isinstance(value, list) else ()
        if not isinstance(value, wanted | None) or not all(isinstance(item, dict) for item in items):
            raise Corrupt("is JSON, but not of the form that Ollama writes", where=where)
        return value

    def _read(self, blob: Blob) -> bytes:
        """The bytes of a small blob. One may be named many times: what they come to is bounded, too."""
        if blob.id not in self._texts:
            with self._source.open(blob) as reader:
                self._texts[blob.id] = read_small(reader, blob)
        self._left -= blob.size
        if self._left < 0:
            raise Corrupt(f"its texts come to more than {ALL_DOCUMENTS} bytes", where=self._name)
        return self._texts[blob.id]


def _of_recipe(model: Model, recipe: Recipe) -> str:
    name, body = str(model.name), recipe.body
    files = layout(model)
    sources = files.sources if body.get("from") else _named(recipe, "files", files.sources)
    adapters, drafts = (
        _named(recipe, field, laid)
        for field, laid in (("adapters", files.adapters), ("draft_files", files.drafts))
    )
    text = write_modelfile(body, sources, adapters, drafts).decode()
    options = [f"--{key.replace('_', '-')} {body[key]}" for key in _OPTIONS if body.get(key)]
    return f"# ollama create {visible(' '.join([name, *options]))}\n{text}" if options else text


def _named(recipe: Recipe, field: str, laid: Sequence[str]) -> Sequence[str]:
    """What FROM names of the files of *field*: where they lie loose, else where they are *laid*."""
    group = recipe.groups.get(field, {})
    keys = [(title, blob.key) for title, blob in group.items() if blob.key is not None]
    if not keys:
        return laid
    if all(title.lower().endswith(".gguf") for title, _ in keys):
        return list(dict.fromkeys(str(key[0] if isinstance(key, tuple) else key) for _, key in keys))
    folders = set()
    for title, key in keys:
        parts, end = Path(str(key)).parts, Path(title).parts
        folders.add(os.path.join(*parts[: -len(end)]) if parts[-len(end) :] == end else "")
    # Where links lead elsewhere, as in Hugging Face's cache, only the folder that was named is theirs.
    return [folders.pop() or "."] if len(folders) == 1 else ["."]
