"""Ollama's config of a GGUF: the blob that it writes on create, byte for byte, and what else it would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from modelpack.documents.gguf_header import Gguf, Skipped
from modelpack.documents.gojson import go_json
from modelpack.errors import Unsupported

_NEMOTRON = "nemotron-3-nano"


@dataclass(frozen=True, slots=True)
class Defaults:
    """What create fills in: renderer and parser ("" for none), and stop words for the params layer.

    The stop words stand only where the model has no `stop` of its own: then they become its value, alone or
    beside the other parameters.
    """

    renderer: str = ""
    parser: str = ""
    stop: tuple[str, ...] = ()


# Source: createModel in server/create.go of v0.33.
_DEFAULTS = {
    "gemma4": Defaults("gemma4", "gemma4", ("<turn|>",)),
    "laguna": Defaults("laguna", "laguna"),
    "nemotron_h": Defaults(_NEMOTRON, _NEMOTRON),
    "nemotron_h_moe": Defaults(_NEMOTRON, _NEMOTRON),
    "nemotron_h_omni": Defaults(_NEMOTRON, _NEMOTRON),
}


def defaults_for(gguf: Gguf, *, renderer: str | None = None, parser: str | None = None) -> Defaults:
    """What create ends with for *gguf* where *renderer* and *parser* were asked for, or inherited.

    Ollama looks at the architecture only while one of the two is missing: with both given there are no stop
    words either.
    """
    if renderer and parser:
        return Defaults(renderer, parser)
    found = _DEFAULTS.get(gguf.architecture, Defaults())
    return Defaults(renderer or found.renderer, parser or found.parser, found.stop)


def ollama_config(
    gguf: Gguf,
    *,
    renderer: str | None = None,
    parser: str | None = None,
    requires: str | None = None,
    draft: Gguf | None = None,
    capabilities: Sequence[str] = (),
) -> bytes:
    """The bytes of the config blob for a model of *gguf*, as Ollama 0.33 writes them: one line of JSON.

    Projectors and adapters leave no trace in it (up to 0.24 they added to `model_families`). *gguf* is the
    whole model: of shards, their merged header. *capabilities* are those of a base. On create Ollama looks at
    its own copy of the GGUF, rewritten by llama-quantize, but all that is said here survives that: a missing
    `general.file_type` is written as "guessed", which is "unknown" as well. One exception: see
    Remark.SERVER_QUANTIZES.
    """
    filled = defaults_for(gguf, renderer=renderer, parser=parser)
    value: dict[str, Any] = {
        "model_format": "gguf",
        "model_family": gguf.architecture,
        "model_families": [gguf.architecture],
        "model_type": human_number(gguf.parameter_count),
        "file_type": gguf.file_type,
    }
    optional: dict[str, Any] = {
        "renderer": filled.renderer,
        "parser": filled.parser,
        "requires": requires,
        "capabilities": list(capabilities),
    }
    if draft is not None:
        about = {"model_format": "gguf", "architecture": draft.architecture}
        optional["draft"] = {key: text for key, text in about.items() if text}
    value |= {key: item for key, item in optional.items() if item}
    value |= {"architecture": "amd64", "os": "linux"}  # whatever the machine
    return go_json(value) + b"\n"


QUANTIZATIONS = ("Q4_K_M", "Q4_K_S", "Q4_K", "Q8_0", "F16", "BF16", "F32")
"""What create quantizes to. Source: ParseFileType in fs/ggml/type.go, the same in v0.24 and v0.33."""


def check_quantizable(gguf: Gguf, where: object) -> None:
    """Raise Unsupported where create would refuse to quantize: it takes models of F16 and BF16.

    It means to take F32, too, but reads the 0 that stands for it as "unknown" (server/create.go of v0.33).
    """
    if gguf.file_type not in ("F16", "BF16"):
        raise Unsupported(
            f"is stored as {gguf.file_type}; Ollama quantizes models of F16 and BF16",
            where=where,
            advice="Get the F16 or BF16 GGUF, or leave --quantize out.",
        )


def human_number(count: int) -> str:
    """*count* parameters as Ollama shows them: `7.6B`, `137M`, `22.57M`, `37K`, `512`.

    Source: HumanNumber in format/format.go. Kept with it: 999,999,999 is `1000.00M`.
    """
    if count >= 10**9:
        number = float(count) / 1e9
        return f"{number:.0f}B" if number.is_integer() else f"{number:.1f}B"
    if count >= 10**6:
        number = float(count) / 1e6
        return f"{number:.0f}M" if number.is_integer() else f"{number:.2f}M"
    return f"{count / 1000:.0f}K" if count >= 1000 else str(count)


class Remark(StrEnum):
    """A fact about a GGUF that whoever packs it may want to know. The words for it are the CLI's."""

    CHAT_TEMPLATE = "chat-template"
    """It has a chat template, which Ollama uses since 0.30 only where the model has none of its own."""
    NO_ARCHITECTURE = "no-architecture"
    """It does not say what it is: Ollama cannot run it."""
    NO_TENSORS = "no-tensors"
    """Nothing to run: a vocabulary (which a create refuses since 0.30), or a shard with metadata alone."""
    SCATTERED = "scattered"
    """Its tensors do not follow one another: llama.cpp refuses it ("has offset …, expected …")."""
    SERVER_QUANTIZES = "server-quantizes"
    """Converted from FP8: a create makes Q8_0 of it, unasked, and its config says so."""
    SERVER_REWRITES = "server-rewrites"
    """A create since 0.30 stores other bytes than these, under another digest."""
    SHARD = "shard"
    """One of several: no model without the others."""
    UNKNOWN_TENSORS = "unknown-tensors"
    """Tensors of types that modelpack does not know: whether the file is whole was not checked."""


def remarks_on(gguf: Gguf) -> frozenset[Remark]:
    """The facts about *gguf* that may call for a warning; what they say is written at each Remark."""
    found = {
        Remark.CHAT_TEMPLATE: gguf.has_chat_template,
        Remark.NO_ARCHITECTURE: gguf.text("general.architecture") in (None, ""),
        Remark.NO_TENSORS: not gguf.tensors,
        Remark.SCATTERED: _is_scattered(gguf),
        Remark.SERVER_QUANTIZES: _is_quantized_on_create(gguf),
        Remark.SERVER_REWRITES: _is_rewritten_on_create(gguf),
        Remark.SHARD: gguf.split is not None,
        Remark.UNKNOWN_TENSORS: not gguf.end_checked,
    }
    return frozenset(remark for remark, holds in found.items() if holds)


def _is_scattered(gguf: Gguf) -> bool:
    expected = 0
    for tensor in gguf.tensors:
        if tensor.offset != expected:
            return True
        if tensor.size is None:  # where the next one should lie cannot be told
            return False
        expected += -(-tensor.size // gguf.alignment) * gguf.alignment
    return False


def _is_quantized_on_create(gguf: Gguf) -> bool:
    # Source: hasSourceFP8Tensors and createModel in server/create.go; of F32 it only means to.
    tensors = gguf.metadata.get(gguf.own("source_fp8_tensors"))
    some = tensors.type == "string" and tensors.count > 0 if isinstance(tensors, Skipped) else bool(tensors)
    fp8 = gguf.text(gguf.own("source_quantization")) == "hf_fp8"
    return fp8 and some and gguf.role == "model" and gguf.file_type in ("F16", "BF16")


def _is_rewritten_on_create(gguf: Gguf) -> bool:
    # Source: createModel, isEmbeddedCompatibilityTensor (server/create.go), needsDefaultLlavaProjectorType
    # (server/quantization.go).
    if gguf.role == "projector":
        typed = "clip.projector_type" in gguf.metadata or "clip.vision.projector_type" in gguf.metadata
        sees = gguf.metadata.get("clip.has_vision_encoder") is True
        return gguf.architecture == "clip" and sees and not typed
    embedded = any(tensor.name.startswith(("a.", "mm.", "mtp.", "s.", "v.")) for tensor in gguf.tensors)
    return gguf.role == "model" and not embedded
