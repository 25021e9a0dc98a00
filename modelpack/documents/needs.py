"""What a model needs of the Ollama that is to run it, and since when there is such a thing.

The tables were read in Ollama's tags v0.5.0 to v0.33.0-rc2: a version is the first release in which the thing
stands at the place that is named beside it. What older ones had is not written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelpack.documents.architectures import FIRST
from modelpack.documents.gguf_header import Gguf
from modelpack.documents.gguf_types import TENSOR_TYPES
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.documents.recipe import Recipe
from modelpack.words.blob import DRAFT, JSON, PROMPT, TEMPLATE, TENSOR

HEADERS_TELL_BEFORE = "0.30.4"
"""From this Ollama on, the headers of a model's GGUFs tell no need that its config does not."""

_FIELD = "0.12.0"  # `renderer` and `parser` in the config: ConfigV2 in server/images.go

# rendererForName in model/renderers/renderer.go.
RENDERERS = {
    "qwen3-coder": "0.12.0",
    "qwen3-vl-instruct": "0.12.6",
    "qwen3-vl-thinking": "0.12.7",
    "cogito": "0.13.0",
    "olmo3": "0.13.3",
    "olmo3-think": "0.13.3",
    "nemotron-3-nano": "0.13.4",
    "olmo3-32b-think": "0.13.4",
    "olmo3.1": "0.13.4",
    "deepseek3.1": "0.13.5",
    "functiongemma": "0.13.5",
    "glm-4.7": "0.14.3",
    "lfm2": "0.14.3",
    "lfm2-thinking": "0.14.3",
    "glm-ocr": "0.15.5",
    "qwen3.5": "0.17.1",
    "gemma4": "0.20.0",
    "gemma4-large": "0.21.0",
    "gemma4-small": "0.21.0",
    "laguna": "0.22.0",
    "cohere": "0.30.10",
    "ornith": "0.30.11",
    "poolside-v1": "0.32.3",
    "glimmer": "0.32.7",
    "nemotron-3.5-nano": "0.32.9",
    "qwen3.8": "0.32.12",
}
"""Renderers by name."""

# ParserForName in model/parsers/parsers.go.
PARSERS = {
    "passthrough": "0.12.0",
    "qwen3-coder": "0.12.0",
    "harmony": "0.12.1",
    "qwen3-vl-instruct": "0.12.6",
    "qwen3-vl-thinking": "0.12.7",
    "cogito": "0.13.1",
    "ministral": "0.13.1",
    "olmo3": "0.13.3",
    "olmo3-think": "0.13.3",
    "nemotron-3-nano": "0.13.4",
    "deepseek3": "0.13.5",
    "functiongemma": "0.13.5",
    "glm-4.7": "0.14.3",
    "lfm2": "0.14.3",
    "lfm2-thinking": "0.14.3",
    "glm-ocr": "0.15.5",
    "qwen3": "0.16.3",
    "qwen3-thinking": "0.16.3",
    "qwen3.5": "0.17.1",
    "gemma4": "0.20.0",
    "gemma4-no-thinking": "0.20.0",
    "laguna": "0.22.0",
    "cohere": "0.30.10",
    "ornith": "0.30.11",
    "poolside-v1": "0.32.3",
    "glimmer": "0.32.7",
    "nemotron-3.5-nano": "0.32.9",
}
"""Parsers by name."""

# enum ggml_type in ml/backend/ggml/ggml/include/ggml.h. 0.11.0 to 0.11.4 had MXFP4 as 4 (fs/ggml/type.go);
# 0.24.0 ends with 39: what is above came with 0.30.0 at the earliest.
TENSORS = {4: "0.11.0", 39: "0.11.5", 40: "0.30.0", 41: "0.30.0", 42: "0.30.0"}
"""Types of tensors by number."""

# MediaTypeImageDraft in manifest/layer.go; MediaTypeImageTensor in server/layer.go (x/imagegen reads them).
_DRAFT, _TENSOR_LAYERS = "0.30.0", "0.14.0"
_CAPABILITIES = "0.12.0"  # ConfigV2 in types/model/config.go (before 0.15: server/images.go)
_SPLIT = "0.30.0"  # mergeSplitGGUFLayers in server/create.go
_MMPROJ = "0.30.4"  # isProjectorGGUF in server/create.go
CHAT_TEMPLATE = "0.30.0"
"""The first Ollama that runs a model without a template by its GGUF's own (PreferChatTemplate in
server/images.go)."""

_NOT = "it will not run there"
_SHOWN = 80  # characters of a name that is shown


@dataclass(frozen=True, slots=True)
class Need:
    """What Ollama has from version `since` on.

    `what` is a noun for a sentence, `otherwise` says what becomes of the model elsewhere. Where the model is
    much the same without it, `grave` is false. May hold text from elsewhere (names, versions).
    """

    what: str
    since: str
    otherwise: str = _NOT
    grave: bool = True


def needs_of(
    model: Model, config: Mapping[str, Any], headers: Iterable[Gguf] = (), *, create: bool = False
) -> tuple[Need, ...]:
    """The needs of *model*, each once, as far as they can be seen.

    *config* is what its config blob says (empty for a recipe, or where it was not read); *headers* are those
    of its GGUFs, as far as they were read. *create*: the server is to make the model by `POST /api/create`.
    """
    document, headers = model.document, tuple(headers)
    said = document.body if isinstance(document, Recipe) else config
    found = [*_said(said), *_layers(document), *_headers(headers)]
    architectures = {gguf.architecture for gguf in headers if gguf.role == "model"}
    family = _text(said, "model_family")  # create writes the architecture there (documents/config.py)
    found += _architectures(architectures or ({family} if family else set()))
    if create:
        found += _created(headers)
    if not create and not has_prompt(document, said):  # create looks for a template itself
        found += _own_template(headers)
    return tuple(dict.fromkeys(found))


def has_prompt(document: Image | Recipe, said: Mapping[str, Any]) -> bool:
    """Whether the model says how it is prompted: by a template, or by a renderer (which *said*, the config or
    the recipe's body, names): Prompt in server/prompt.go asks for a renderer first.
    """
    templated = isinstance(document, Image) and document.of_kind(TEMPLATE, PROMPT)
    return bool(templated or _text(said, "template") or _text(said, "renderer"))


def _said(said: Mapping[str, Any]) -> Iterator[Need]:
    if requires := _text(said, "requires")[:_SHOWN]:
        yield Need("what its maker says (`requires`)", requires)
    if renderer := _text(said, "renderer")[:_SHOWN]:
        yield Need(
            f"its renderer {renderer!r}",
            RENDERERS.get(renderer, _FIELD),
            otherwise="it answers wrongly there, or not at all",
        )
    if parser := _text(said, "parser")[:_SHOWN]:
        yield Need(
            f"its parser {parser!r}",
            PARSERS.get(parser, _FIELD),
            otherwise="thinking and calls of tools come out as plain text there",
        )
    info = said.get("info")
    if said.get("capabilities") or (isinstance(info, dict) and info.get("capabilities")):
        yield Need(
            "the list of its capabilities", _CAPABILITIES, otherwise="it is passed over there", grave=False
        )


def _layers(document: Image | Recipe) -> Iterator[Need]:
    if isinstance(document, Recipe):
        if document.body.get("draft_files"):
            yield Need("its draft model", _DRAFT, otherwise="it runs there without it, and slower")
        return
    if document.of_kind(DRAFT):
        yield Need("its draft model", _DRAFT, otherwise="it runs there without it, and slower")
    if document.of_kind(TENSOR, JSON):
        yield Need("a model of safetensors (layers of tensors)", _TENSOR_LAYERS)


def _architectures(names: Iterable[str]) -> Iterator[Need]:
    for name in sorted(names):
        if name in FIRST:
            yield Need(f"the architecture {name!r}", FIRST[name])


def _headers(headers: Iterable[Gguf]) -> Iterator[Need]:
    types = {tensor.type for gguf in headers for tensor in gguf.tensors}
    for kind in sorted(types & TENSORS.keys()):
        name = "MXFP4" if kind == 4 else TENSOR_TYPES[kind].name
        yield Need(f"tensors of type {name} (number {kind})", TENSORS[kind])


def _created(headers: Iterable[Gguf]) -> Iterator[Need]:
    for gguf in headers:
        if gguf.split is not None:
            yield Need("to merge its shards on create", _SPLIT)
        # What ggufLayers in server/create.go of 0.24 takes for a projector.
        before = gguf.text("general.type") == "projector" or (
            gguf.integer(gguf.own("vision.block_count")) or 0
        )
        if gguf.role == "projector" and not before:
            yield Need("to know its projector on create", _MMPROJ)


def _own_template(headers: Iterable[Gguf]) -> Iterator[Need]:
    if any(gguf.has_chat_template and gguf.role == "model" for gguf in headers):
        yield Need(
            "to use the chat template of its GGUF (it has no other)",
            CHAT_TEMPLATE,
            otherwise="it gets the bare prompt there, and answers poorly in a chat",
            grave=False,
        )


def _text(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key)
    return found if isinstance(found, str) else ""
