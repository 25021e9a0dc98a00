"""An image: an Ollama manifest, its exact bytes kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelpack.documents.gojson import go_json, list_of, parse_object, size_of, text_of
from modelpack.errors import Corrupt, Unsupported
from modelpack.words.blob import CONFIG, MANIFEST, Blob
from modelpack.words.digest import ZERO, Digest

KEEPS_SINCE = (0, 19, 0)
"""The first Ollama that keeps the manifest that it pulls byte for byte."""


@dataclass(frozen=True)
class Image:
    """A manifest and the blobs it names, the config first.

    `raw` is what was read, to the byte; its SHA-256 is the model's ID. Where modelpack composes the manifest
    itself and a blob is still unread, `raw` holds zeros in place of that digest: as long as the final one.
    """

    raw: bytes
    config: Blob
    layers: tuple[Blob, ...]
    composed: bool = False

    @classmethod
    def parse(cls, raw: bytes, where: object) -> Image:
        """Read a manifest; raises Corrupt, or Unsupported for other kinds of manifests."""
        value = parse_object(raw, where)
        if value.get("schemaVersion") != 2:
            raise Unsupported("is not a manifest of schema version 2", where=where)
        kind = value.get("mediaType", MANIFEST)
        if kind != MANIFEST:
            raise Unsupported(f"is not an Ollama manifest but {str(kind)[:100]!r}", where=where)
        config = value.get("config")
        if not isinstance(config, dict):
            raise Corrupt("has no config", where=where)
        blobs = [_descriptor(one, where) for one in (config, *list_of(value, "layers", where))]
        sizes: dict[Digest | None, int] = {}
        for blob in blobs:
            if sizes.setdefault(blob.digest, blob.size) != blob.size:
                raise Corrupt(f"names {blob} with two sizes", where=where)
        return cls(raw, blobs[0], tuple(blobs[1:]))

    @classmethod
    def compose(cls, config: Blob, layers: Sequence[Blob]) -> Image:
        """The manifest for *config* and *layers*, in the one form that every Ollama keeps.

        Compact, Go's field order (types/… `Manifest`, `Layer`) and escapes, no newline at the end: what
        `json.Marshal` gives, so that servers before 0.19, which write it anew, come to the same ID.
        """
        value = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _as_json(config),
            "layers": [_as_json(layer) for layer in layers],
        }
        return cls(go_json(value), config, tuple(layers), composed=True)

    @property
    def id(self) -> Digest:
        """The model's ID: SHA-256 of the manifest's bytes. Means nothing while a blob is unread."""
        return Digest.of(self.raw)

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Every blob the manifest names, each once, in order of use: weights first, small things after."""
        seen: dict[object, Blob] = {}
        for blob in (*self.layers, self.config):
            seen.setdefault(blob.id, blob)
        return tuple(seen.values())

    def marshalled(self) -> bytes:
        """The manifest as an Ollama before 0.19 writes it when it pulls: decoded, and `json.Marshal` of that.

        Other keys are lost, and a newline at the end (server/manifest.go, layer.go of v0.12). The same bytes
        for a manifest that is in that form already, as pulled ones and those of `compose` are.
        """
        value = parse_object(self.raw, "")

        def layer(of: Mapping[str, Any]) -> dict[str, Any]:
            known = {"mediaType": of.get("mediaType", ""), "digest": of.get("digest"), "size": of.get("size")}
            return known | ({"from": of["from"]} if of.get("from") else {})

        return go_json(
            {
                "schemaVersion": value.get("schemaVersion"),
                "mediaType": value.get("mediaType", ""),
                "config": layer(value["config"]),
                "layers": [layer(each) for each in value["layers"]] if value.get("layers") else None,
            }
        )

    def id_at(self, version: tuple[int, int, int] | None) -> Digest:
        """The ID that the model has on an Ollama of this *version* that was given exactly this manifest.

        One that is not known is taken for a new one.
        """
        return self.id if version is None or version >= KEEPS_SINCE else Digest.of(self.marshalled())

    def of_kind(self, *media_types: str) -> tuple[Blob, ...]:
        """The layers of these media types, in the manifest's order."""
        return tuple(layer for layer in self.layers if layer.media_type in media_types)

    def settled(self, known: Mapping[object, Blob]) -> Image:
        """This image with what became known of its blobs; only a manifest composed here changes by it."""
        config = self.config.settled(known.get(self.config.id, self.config))
        layers = tuple(layer.settled(known.get(layer.id, layer)) for layer in self.layers)
        return Image.compose(config, layers) if self.composed else Image(self.raw, config, layers)


def _descriptor(value: dict[str, Any], where: object) -> Blob:
    if "urls" in value:
        raise Unsupported("names a layer that lies elsewhere (urls)", where=where)
    kind = text_of(value, "mediaType", where, CONFIG)
    digest = Digest.parse(value.get("digest"), where)
    if digest.algorithm != "sha256":
        raise Unsupported(f"names a blob by {digest.algorithm}", where=where)
    return Blob(size_of(value, where), kind, digest)


def _as_json(blob: Blob) -> dict[str, Any]:
    return {"mediaType": blob.media_type, "digest": str(blob.digest or ZERO), "size": blob.size}
