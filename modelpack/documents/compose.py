"""The image that `create` makes of GGUFs, of a base, and of what a Modelfile says beside them.

Source: CreateHandler and createModel in server/create.go, parseFromModel in server/model.go of Ollama v0.33.
Two differences: no template is guessed from the GGUF's, and the manifest is written as `Image.compose` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelpack.documents.config import defaults_for, ollama_config
from modelpack.documents.gguf_header import Gguf
from modelpack.documents.gojson import go_json, go_numbers
from modelpack.documents.image import Image
from modelpack.errors import Unsupported
from modelpack.words.blob import (
    ADAPTER,
    CONFIG,
    DRAFT,
    LICENSE,
    MESSAGES,
    MODEL,
    PARAMS,
    PROJECTOR,
    SMALL,
    SYSTEM,
    TEMPLATE,
    Blob,
)
from modelpack.words.digest import Digest
from modelpack.words.text import size

_KINDS = {"model": MODEL, "projector": PROJECTOR, "adapter": ADAPTER}
_SHOWN = 3
_ORDER = (MODEL, PROJECTOR, ADAPTER, DRAFT)


@dataclass(frozen=True)
class Weights:
    """A GGUF that becomes a layer: its blob, and what its header says."""

    blob: Blob
    gguf: Gguf


@dataclass(frozen=True)
class Base:
    """An installed model that another is stacked on.

    `config` is what its config blob says, `params` what all its params layers say together, `ggufs` the
    headers of its GGUF layers by the id of their blobs.
    """

    image: Image
    config: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    ggufs: Mapping[object, Gguf] = field(default_factory=dict)


def media_type_of(gguf: Gguf) -> str:
    """The kind of layer that Ollama makes of a GGUF that FROM or ADAPTER names."""
    return _KINDS[gguf.role]


def compose(
    weights: Sequence[Weights], body: Mapping[str, Any], base: Base | None, where: object
) -> tuple[Image, dict[Digest, bytes]]:
    """The image of *weights* (on *base*), and the small blobs that were made for it, by digest.

    *body* has the fields of a create request that are not files: template, system, license (a list),
    parameters, messages, renderer, parser, requires. Raises Unsupported where there is not just one model,
    or more adapters or drafts than Ollama runs, or a text has more than SMALL bytes.
    """
    made: dict[Digest, bytes] = {}

    def make(raw: bytes, media_type: str) -> Blob:
        _check_size(len(raw), media_type, where)
        digest = Digest.of(raw)
        made[digest] = raw
        return Blob(len(raw), media_type, digest)

    layers = list(base.image.layers) if base else []
    layers += [one.blob for one in sorted(weights, key=lambda one: _ORDER.index(one.blob.media_type))]
    ggufs = {**(base.ggufs if base else {}), **{one.blob.id: one.gguf for one in weights}}
    _check_counts(layers, where)
    (model,) = [ggufs[layer.id] for layer in layers if layer.media_type == MODEL]
    drafts = [ggufs[layer.id] for layer in layers if layer.media_type == DRAFT]

    asked = dict(body.get("parameters") or {})
    inherited = base.config if base else {}
    words = {key: body.get(key) or inherited.get(key) for key in ("renderer", "parser", "requires")}
    filled = defaults_for(model, renderer=words["renderer"], parser=words["parser"])
    if filled.stop and "stop" not in asked:  # even where the base has stop words of its own
        asked["stop"] = list(filled.stop)
    config = ollama_config(
        model, **words, draft=drafts[0] if drafts else None, capabilities=inherited.get("capabilities") or ()
    )

    for key, media_type in (("template", TEMPLATE), ("system", SYSTEM)):
        if text := body.get(key):
            layers = [layer for layer in layers if layer.media_type != media_type]
            layers.append(make(text.encode(), media_type))
    for text in body.get("license") or []:
        layers.append(make(text.encode(), LICENSE))
    params = {**(base.params if base else {}), **asked}
    if params:
        layers = [layer for layer in layers if layer.media_type != PARAMS]
        layers.append(make(go_json(go_numbers(dict(sorted(params.items())))) + b"\n", PARAMS))
    if messages := body.get("messages"):
        _check_size(sum(len(one["content"]) for one in messages), MESSAGES, where)  # before it is written out
        layers = [layer for layer in layers if layer.media_type != MESSAGES]
        layers.append(make(go_json(messages) + b"\n", MESSAGES))
    image = Image.compose(make(config, CONFIG), layers)
    return image, {blob.digest: made[blob.digest] for blob in image.blobs if blob.digest in made}


def _check_size(count: int, media_type: str, where: object) -> None:
    if count > SMALL:
        kind = Blob(count, media_type).kind
        raise Unsupported(
            f"its {kind} blob has {size(count)}; no more than {size(SMALL)} is taken", where=where
        )


def _check_counts(layers: Sequence[Blob], where: object) -> None:
    kinds = [layer.media_type for layer in layers]
    if MODEL not in kinds:
        what = "a projector" if PROJECTOR in kinds else "an adapter" if ADAPTER in kinds else "nothing"
        raise Unsupported(
            f"is {what}, no model by itself",
            where=where,
            advice="It goes with the model that it was made for: write a Modelfile that names both, "
            "FROM and FROM, or FROM and ADAPTER.",
        )
    for kind, word in ((MODEL, "models"), (ADAPTER, "adapters"), (DRAFT, "drafts")):
        if kinds.count(kind) > 1:
            named = [str(layer.title or layer) for layer in layers if layer.media_type == kind]
            titles = ", ".join(named[:_SHOWN]) + (", …" if len(named) > _SHOWN else "")
            raise Unsupported(
                f"names {kinds.count(kind)} {word} ({titles}); Ollama runs one",
                where=where,
                advice="Name one of them.",
            )
