"""The layers of a model that is being created: config and texts as Ollama writes them, in its order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelpack.depot.asked import Says, list_field, map_field, text_field
from modelpack.depot.golang import decoded, encode
from modelpack.documents.config import defaults_for, ollama_config
from modelpack.documents.gguf import Gguf
from modelpack.documents.gojson import go_json, parse_object
from modelpack.words.blob import DRAFT, LICENSE, MESSAGES, MODEL, PARAMS, SMALL, SYSTEM, TEMPLATE, Blob
from modelpack.words.digest import Digest

_CONFIG = (
    *("model_format", "model_family", "model_families", "model_type", "file_type"),
    *("renderer", "parser", "requires", "remote_host", "remote_model", "capabilities", "context_length"),
    *("embedding_length", "base_name", "draft", "architecture", "os"),
)
"""Fields in their order, the first five even where they are empty (ConfigV2 in types/model/config.go)."""
_INFO = {
    "model_family": "model_family",
    "base_name": "base_name",
    "quantization_level": "file_type",
    "parameter_size": "model_type",
    "context_length": "context_length",
    "embedding_length": "embedding_length",
}
_MESSAGE = ("thinking", "images", "tool_calls", "tool_name", "tool_call_id")


@dataclass(frozen=True)
class Layer:
    """A line of the manifest that will be; `gguf` is the header where it is one."""

    blob: Blob
    origin: str = ""
    name: str = ""
    gguf: Gguf | None = None

    @property
    def kind(self) -> str:
        """Its media type."""
        return self.blob.media_type

    def line(self) -> dict[str, Any]:
        """As the manifest has it."""
        blob = self.blob
        line: dict[str, Any] = {"mediaType": blob.media_type, "digest": str(blob.digest), "size": blob.size}
        return line | {key: text for key, text in (("from", self.origin), ("name", self.name)) if text}


class Small(dict[Digest, bytes]):
    """Blobs that are so small that they are made in memory."""

    def add(self, data: bytes, kind: str) -> Blob:
        """Remember *data*; Says 400 where it is more than anybody keeps."""
        if len(data) > SMALL:
            raise Says(400, f"its {kind.rpartition('.')[2]} has {len(data)} bytes; at most {SMALL} are kept")
        digest = Digest.of(data)
        self[digest] = data
        return Blob(len(data), kind, digest)


def config_of(
    asked: Mapping[str, Any], base: Mapping[str, Any], layers: Sequence[Layer]
) -> tuple[bytes, tuple[str, ...]]:
    """The config blob, and the stop words that go with it where there are none.

    *base* is the config of the model that it is made from.
    """
    renderer, parser, requires = (
        text_field(asked, key) or str(base.get(key) or "") for key in ("renderer", "parser", "requires")
    )
    weights = [layer.gguf for layer in layers if layer.kind == MODEL and layer.gguf is not None]
    drafts = [layer.gguf for layer in layers if layer.kind == DRAFT and layer.gguf is not None]
    stop: tuple[str, ...] = ()
    if weights:
        stop = defaults_for(weights[0], renderer=renderer, parser=parser).stop
        draft = drafts[-1] if drafts else None
        raw = ollama_config(weights[0], renderer=renderer, parser=parser, requires=requires, draft=draft)
        config = parse_object(raw, "config")
        config["model_families"] = [each.architecture for each in weights]
        config["model_format"] = base.get("model_format") or config["model_format"]
    else:  # made of tensors, or without weights: only what it is made from knows more
        config = {key: base.get(key, None if key == "model_families" else "") for key in _CONFIG[:5]}
        config |= {"renderer": renderer, "parser": parser, "requires": requires}
        config |= {"architecture": "amd64", "os": "linux"}
    if base.get("capabilities"):
        config["capabilities"] = base["capabilities"]
    _override(config, map_field(asked, "info") or {})
    kept = (*_CONFIG[:5], *(key for key in _CONFIG[5:] if config.get(key)))
    return go_json({key: config[key] for key in kept}) + b"\n", stop


def _override(config: dict[str, Any], info: Mapping[str, Any]) -> None:
    more = info.get("capabilities")
    if isinstance(more, list):
        given = [each if isinstance(each, str) else "" for each in more]
        config["capabilities"] = [*(config.get("capabilities") or []), *given]
    for key, into in _INFO.items():
        value = info.get(key)
        if value is None:
            continue
        if into.endswith("_length"):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise Says(400, f'info field "{key}" must be a number')
            if not 0 <= value < 1 << 63 or value != int(value):
                raise Says(400, f'info field "{key}" must be a non-negative integer')
            value = int(value)
        elif not isinstance(value, str):
            raise Says(400, f'info field "{key}" must be a string')
        if value and into == "model_family":
            config["model_families"] = [value, *(config["model_families"] or [])]
        if value:
            config[into] = value


def with_texts(
    layers: list[Layer],
    asked: Mapping[str, Any],
    small: Small,
    inherited: Mapping[str, Any],
    stop: Sequence[str],
) -> list[Layer]:
    """*layers* with those of template, system, licences, parameters and messages.

    *inherited* are the parameters in *layers*: what was asked for goes before them, and so does *stop*.
    """
    for key, kind in (("template", TEMPLATE), ("system", SYSTEM)):
        text = text_field(asked, key)
        if text:
            layers = [*_without(layers, kind), Layer(small.add(_utf8(text), kind))]
    layers = [
        *layers,
        *(Layer(small.add(_utf8(text), LICENSE)) for text in _licenses(asked.get("license"))),
    ]
    own = map_field(asked, "parameters") or {}
    params = decoded({**inherited, **({"stop": list(stop)} if stop else {}), **own})
    if params:
        layers = [*_without(layers, PARAMS), Layer(small.add(encode(params) + b"\n", PARAMS))]
    messages = [_message(each) for each in list_field(asked, "messages")]
    if messages:
        layers = [*_without(layers, MESSAGES), Layer(small.add(encode(messages) + b"\n", MESSAGES))]
    return layers


def _without(layers: list[Layer], kind: str) -> list[Layer]:
    return [layer for layer in layers if layer.kind != kind]


def _licenses(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    raise Says(400, "license must be a string or a list of strings")


def _message(value: Any) -> dict[str, Any]:
    """In the order of api.Message; all but role and content only where they say something."""
    if not isinstance(value, dict):
        raise Says(400, "messages must be a list of objects")
    message = {"role": text_field(value, "role").lower(), "content": text_field(value, "content")}
    return message | {key: decoded(value[key]) for key in _MESSAGE if value.get(key)}


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")
