"""The body of `POST /api/create` that makes a model of what is carried.

Facts: api/types.go (CreateRequest), server/create.go, server/images.go (GetModel) of Ollama v0.33.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from modelpack.documents.gojson import canonical_json, parse_object, parse_value, text_of
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.documents.recipe import FILE_FIELDS, Recipe
from modelpack.errors import Corrupt, NotFound, Unsupported
from modelpack.words.blob import (
    ADAPTER,
    DRAFT,
    EMBED,
    JSON,
    LICENSE,
    MESSAGES,
    MODEL,
    PARAMS,
    PROJECTOR,
    PROMPT,
    SMALL,
    SYSTEM,
    TEMPLATE,
    TENSOR,
    TEXTS,
    Blob,
)  # fmt: skip
from modelpack.words.digest import Digest

REWRITES_SINCE = (0, 30, 0)
"""The first Ollama that keeps GGUFs in a form of its own when it creates (`llama-quantize COPY`)."""

# api/types.go, CreateRequest: before these versions a field is ignored without a word.
_FIELDS_SINCE = {
    "renderer": (0, 12, 0),
    "parser": (0, 12, 0),
    "info": (0, 12, 0),
    "requires": (0, 14, 0),
    "draft_files": (0, 30, 0),
    "draft_quantize": (0, 30, 0),
}
_FIELD = {MODEL: "files", PROJECTOR: "files", ADAPTER: "adapters", DRAFT: "draft_files"}
_FALLBACK = {MODEL: "model", PROJECTOR: "projector", ADAPTER: "adapter", DRAFT: "draft"}
_NO_LETTER = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)
_EXACT = "Load it into a models directory: that keeps every byte, and needs no create."


def texts_needed(image: Image) -> tuple[Blob, ...]:
    """The small blobs of *image* whose bytes stand in the request itself, each once, the config first.

    Raises Unsupported where one has more than SMALL bytes.
    """
    found = {blob.id: blob for blob in (image.config, *image.of_kind(*TEXTS))}
    for blob in found.values():
        if blob.size > SMALL:
            raise Unsupported(
                f"its {blob.kind} has {blob.size} bytes; a create request carries at most {SMALL}",
                where=blob,
                advice=_EXACT,
            )
    return tuple(found.values())


def files_named(model: Model) -> tuple[Blob, ...]:
    """The blobs that must be on the server before the request is sent, each once, in order of use."""
    document = model.document
    if isinstance(document, Recipe):
        return document.files
    return tuple({blob.id: blob for blob in document.of_kind(*_FIELD)}.values())


def create_request(model: Model, texts: Mapping[Digest, bytes]) -> dict[str, Any]:
    """The request that makes *model*, without `stream`; *texts* holds the bytes of `texts_needed`.

    The same model gives the same request. Raises Unsupported for what no request can carry, Corrupt where a
    text is not what it should be (UTF-8, JSON), NotFound where one is missing.
    """
    document = model.document
    request = {"model": str(model.name)}
    if isinstance(document, Recipe):
        return _of_recipe(document, str(model.name)) | request
    return request | _of_image(document, texts, str(model.name))


def check_creatable(model: Model) -> None:
    """Raise Unsupported where *model* cannot be made by create, as far as its document alone tells."""
    if isinstance(model.document, Image):
        _check_layers(model.document, str(model.name))
        texts_needed(model.document)
    elif model.document.body.get("remote_host"):
        raise _cloud(str(model.name))


def rewritten(model: Model) -> tuple[Blob, ...]:
    """The GGUFs that Ollama rewrites since 0.30: model layers; no projectors, adapters, nor what is `from`.

    One with vision, audio or MTP tensors of its own is left as it is, which the document does not tell.
    """
    document = model.document
    if isinstance(document, Image):
        return document.of_kind(MODEL)
    body = document.body
    if body.get("from") or body.get("quantize") or body.get("quantization"):
        return ()
    ggufs = {Digest.parse(text) for name, text in (body.get("files") or {}).items() if name.endswith(".gguf")}
    return tuple(file for file in document.files if file.digest in ggufs)


def fields_lost(request: Mapping[str, Any], version: tuple[int, ...] | None) -> tuple[str, ...]:
    """The fields of *request* that Ollama *version* ignores without a word; none where it is not known."""
    return tuple(
        field
        for field, since in _FIELDS_SINCE.items()
        if version is not None and version < since and request.get(field)
    )


def _of_recipe(recipe: Recipe, where: str) -> dict[str, Any]:
    if recipe.body.get("remote_host"):
        raise _cloud(where)
    files = {
        field: {name: str(Digest.parse(text, where)) for name, text in recipe.body[field].items()}
        for field in FILE_FIELDS
        if field in recipe.body
    }
    return recipe.body | files


def _of_image(image: Image, texts: Mapping[Digest, bytes], where: str) -> dict[str, Any]:
    _check_layers(image, where)
    read = _Texts(texts, where)
    config = parse_object(read.raw(image.config), f"{where}: config")
    if config.get("remote_host") or config.get("remote_model"):
        raise _cloud(where)
    if config.get("model_format") == "safetensors":
        raise Unsupported(
            "its weights are safetensors in Ollama's own form, which create cannot take",
            where=where,
            advice=_EXACT,
        )
    request: dict[str, Any] = {}
    taken: set[str] = set()
    for blob in image.of_kind(*_FIELD):
        request.setdefault(_FIELD[blob.media_type], {})[_file_name(blob, taken)] = _digest(blob, where)
    # Of several layers Ollama runs the last, save licences, which add up, and parameters, which are merged.
    for key, kinds in (("template", (TEMPLATE, PROMPT)), ("system", (SYSTEM,))):
        if found := image.of_kind(*kinds):
            request[key] = read.text(found[-1])
    if found := image.of_kind(LICENSE):
        request["license"] = [read.text(each) for each in found]
    params: dict[str, Any] = {}
    for each in image.of_kind(PARAMS):
        params |= read.object(each)
    if params:
        request["parameters"] = params
    if found := image.of_kind(MESSAGES):
        request["messages"] = read.objects(found[-1])
    for key in ("renderer", "parser", "requires"):
        request[key] = text_of(config, key, f"{where}: config", "")
    if capabilities := config.get("capabilities"):
        request["info"] = {"capabilities": capabilities}
    request = {key: value for key, value in request.items() if value}
    try:
        canonical_json([request.get("parameters"), request.get("messages")])
    except (ValueError, RecursionError):  # 1e999 is JSON, but no number of anybody's
        raise Corrupt("its parameters or messages hold what JSON cannot", where=where) from None
    return request


class _Texts:
    """The bytes of small blobs, read as text or JSON."""

    def __init__(self, texts: Mapping[Digest, bytes], where: str) -> None:
        self._texts, self._where = texts, where

    def raw(self, blob: Blob) -> bytes:
        data = self._texts.get(blob.digest) if blob.digest is not None else None
        if data is None:
            raise NotFound(f"its {blob.kind} ({blob}) is missing", where=self._where)
        return data

    def text(self, blob: Blob) -> str:
        try:
            return self.raw(blob).decode("utf-8")
        except UnicodeDecodeError:
            raise Corrupt(f"its {blob.kind} ({blob}) is not UTF-8", where=self._where) from None

    def object(self, blob: Blob) -> dict[str, Any]:
        """The JSON object in *blob*; empty for null, which is how Go writes an empty map."""
        value = self._value(blob)
        if not isinstance(value, dict | None):
            raise Corrupt(f"its {blob.kind} ({blob}) are not a JSON object", where=self._where)
        return value or {}

    def objects(self, blob: Blob) -> list[dict[str, Any]]:
        """The list of JSON objects in *blob*; empty for null."""
        value = self._value(blob) or []
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise Corrupt(f"its {blob.kind} ({blob}) are not a list of JSON objects", where=self._where)
        return value

    def _value(self, blob: Blob) -> Any:
        return parse_value(self.raw(blob), f"{self._where}: {blob.kind}")


def _check_layers(image: Image, where: str) -> None:
    kinds = [layer.media_type for layer in image.layers]
    if TENSOR in kinds or JSON in kinds:
        raise Unsupported(
            "its weights are safetensors in Ollama's own form, which create cannot take",
            where=where,
            advice=_EXACT,
        )
    for kind, what in ((MODEL, "model"), (ADAPTER, "adapter"), (DRAFT, "draft")):
        if kinds.count(kind) > 1:
            raise Unsupported(
                f"has {kinds.count(kind)} {what} layers; create makes one at most", where=where, advice=_EXACT
            )
    if MODEL not in kinds:
        raise Unsupported(
            "has no weights of its own: nothing to create",
            where=where,
            advice="It is a cloud model, or broken.",
        )
    others = sorted({kind for kind in kinds if kind not in _FIELD and kind not in TEXTS})
    if others:
        names = ", ".join("embeddings" if kind == EMBED else repr(kind[:100]) for kind in others)
        raise Unsupported(
            f"has layers that a create request cannot carry: {names}", where=where, advice=_EXACT
        )


def _cloud(where: str) -> Unsupported:
    return Unsupported(
        "runs on another host (remote_host): there is nothing to carry",
        where=where,
        advice="On the other side, name that host in a Modelfile.",
    )


def _digest(blob: Blob, where: str) -> str:
    if blob.digest is None:
        raise Unsupported(f"{blob} has not been read yet, so no digest can name it", where=where)
    return str(blob.digest)


def _file_name(blob: Blob, taken: set[str]) -> str:
    """A name for *blob* that every server takes: of its title, relative, ending .gguf, and once only."""
    base = re.split(r"[/\\]", blob.title or "")[-1]
    stem = _NO_LETTER.sub("-", re.sub(r"\.gguf$", "", base, flags=re.IGNORECASE)).strip("-.")[:200]
    stem = stem or _FALLBACK[blob.media_type]
    for name in _numbered(stem):
        if name.lower() not in taken:  # the server may keep files on a disk that folds case
            taken.add(name.lower())
            return name
    raise AssertionError("unreachable: the numbers do not end")


def _numbered(stem: str) -> Iterable[str]:
    yield f"{stem}.gguf"
    number = 2
    while True:
        yield f"{stem}-{number}.gguf"
        number += 1
