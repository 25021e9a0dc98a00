"""The models of a depot as Ollama's API tells of them."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

from modelpack.depot.capabilities import Facts, listed
from modelpack.depot.golang import encode
from modelpack.depot.shelf import Shelf, image_of
from modelpack.documents.gguf import Gguf, read_gguf
from modelpack.documents.gojson import parse_object, parse_value
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.errors import ModelpackError
from modelpack.words.blob import MODEL, PROJECTOR, PROMPT, SMALL, TEMPLATE, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import read_at_most

_REMEMBERED = 4096


@dataclass(frozen=True)
class _Told:
    """What the list says of a model, since *modified* (seconds), as long as the manifest has that *mark*."""

    mark: Hashable
    modified: int
    entry: bytes


class Models:
    """The models on *shelf*."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self._facts: dict[Digest, Facts] = {}
        self._told: dict[Name, _Told] = {}

    def tags(self) -> bytes:
        """The answer to /api/tags, newest first; what has no readable config is left out, as there.

        An entry is made anew where the file of its manifest is another one.
        """
        marks = self.shelf.marks()
        told = {name: one for name, one in self._told.items() if marks.get(name) == one.mark}
        if len(told) < len(marks):
            for model in self.shelf.models():
                if model.name not in told and model.name in marks:
                    with contextlib.suppress(ModelpackError):
                        modified, entry = self._tag(model)
                        told[model.name] = _Told(marks[model.name], modified, encode(entry))
        self._told = told
        newest = sorted(
            (told[name] for name in marks if name in told), key=lambda one: one.modified, reverse=True
        )
        return b'{"models":[' + b",".join(one.entry for one in newest) + b"]}"

    def _tag(self, model: Model) -> tuple[int, dict[str, Any]]:
        image = image_of(model)
        config = self.config(image)
        facts = next((self.facts(layer) for layer in image.of_kind(MODEL)), None)
        template = next((self.text(layer) for layer in image.of_kind(TEMPLATE, PROMPT)), None)
        modified = self.shelf.modified(model.name)
        details = details_of(config, parent_of(image))
        if facts is not None:
            details["quantization_level"] = _known(details["quantization_level"], facts.file_type)
        lengths = {
            "context_length": config.get("context_length") or (facts.context_length if facts else 0),
            "embedding_length": config.get("embedding_length") or (facts.embedding_length if facts else 0),
        }
        entry: dict[str, Any] = {"name": str(model.name), "model": str(model.name)}
        for key in ("remote_model", "remote_host"):
            if config.get(key):
                entry[key] = config[key]
        entry |= {
            "modified_at": moment(modified),
            "size": sum(layer.size for layer in (*image.layers, image.config)),
            "digest": image.id.hex,
            "details": details | {key: value for key, value in lengths.items() if value},
        }
        abilities = listed(config, facts, template, len(image.of_kind(PROJECTOR)))
        if abilities:
            entry["capabilities"] = list(abilities)
        return modified // 10**9, entry

    def find(self, text: str) -> tuple[Name, Image] | None:
        """The model that *text* names, under the name it has here; raises Usage where that is no name."""
        return self.shelf.read(Name.parse(text))

    def config(self, image: Image) -> dict[str, Any]:
        """The model's config."""
        return parse_object(self.bytes(image.config), f"config {image.config}")

    def value(self, blob: Blob) -> Any:
        """The JSON in a small layer."""
        return parse_value(self.bytes(blob), f"{blob.kind} {blob}")

    def text(self, blob: Blob) -> str:
        """The text of a small layer."""
        return self.bytes(blob).decode("utf-8", "replace")

    def bytes(self, blob: Blob) -> bytes:
        """The bytes of a small layer."""
        with self.shelf.open(blob) as reader:
            return read_at_most(reader, SMALL, f"{blob.kind} {blob}")

    def gguf(self, blob: Blob) -> Gguf:
        """The header of a GGUF; raises what `read_gguf` does."""
        with self.shelf.open(blob) as reader:
            return read_gguf(reader, blob.size, where=self.shelf.blob_path(blob))

    def facts(self, blob: Blob) -> Facts | None:
        """What the header of a GGUF tells, without its chat template; None where it is none."""
        if blob.digest is None:
            return None
        found = self._facts.get(blob.digest)
        if found is None:
            try:
                # A template may have MiBs, and of thousands of models that would stay: the list needs none.
                found = replace(Facts.of(self.gguf(blob)), chat_template="")
            except ModelpackError:
                return None
            if len(self._facts) >= _REMEMBERED:
                self._facts.clear()
            self._facts[blob.digest] = found
        return found


def layers_of(image: Image) -> list[dict[str, Any]]:
    """The layers as the manifest has them, with `from` and `name`."""
    layers = parse_object(image.raw, "manifest").get("layers")
    return [layer for layer in layers or [] if isinstance(layer, dict)]


def parent_of(image: Image) -> str:
    """Which model it was made from."""
    found = (str(each.get("from") or "") for each in layers_of(image) if each.get("mediaType") == MODEL)
    return next(found, "")


def details_of(config: dict[str, Any], parent: str) -> dict[str, Any]:
    """`details`, in Ollama's order."""
    return {
        "parent_model": parent,
        "format": config.get("model_format") or "",
        "family": config.get("model_family") or "",
        "families": config.get("model_families"),
        "parameter_size": config.get("model_type") or "",
        "quantization_level": config.get("file_type") or "",
    }


def _known(file_type: str, other: str) -> str:
    return other if file_type.lower() in ("", "unknown") and other != "unknown" else file_type


def moment(nanoseconds: int) -> str:
    """As Go writes a time: RFC 3339, with as many digits as there are."""
    seconds, rest = divmod(nanoseconds, 10**9)
    text = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    return f"{text}{fraction}Z"
