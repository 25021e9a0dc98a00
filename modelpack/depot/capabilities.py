"""What a model can do, as `capabilities` in /api/tags and /api/show says: read, not tried.

Source: server/model_list_cache.go, server/images.go, model/parsers, template/template.go of Ollama v0.33.
Ollama parses Go templates; here their fields are looked for, which nearly always comes to the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modelpack.documents.gguf import Gguf

_ACTION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`|/\*.*?\*/', re.DOTALL)
_IDENTIFIER = re.compile(r"[.$]([A-Za-z_]\w*)")

# Parsers by what they read besides plain text: HasToolSupport and HasThinkingSupport in model/parsers.
_TOOLS_ONLY = (
    "functiongemma gemma4-no-thinking glm-ocr lfm2 ministral olmo3 qwen3 qwen3-coder qwen3-vl-instruct"
)
_THINKING_ONLY = "olmo3-think"
_BOTH = (
    "cogito cohere deepseek3 gemma4 glimmer glm-4.7 harmony laguna lfm2-thinking nemotron-3-nano "
    "nemotron-3.5-nano ornith poolside-v1 qwen3-thinking qwen3-vl-thinking qwen3.5"
)
_TOOLS = frozenset(f"{_TOOLS_ONLY} {_BOTH}".split())
_THINKING = frozenset(f"{_THINKING_ONLY} {_BOTH}".split())


@dataclass(frozen=True, slots=True)
class Facts:
    """What the header of a GGUF tells: found once, for it may be long and its bytes do not change."""

    senses: tuple[str, ...]
    context_length: int
    embedding_length: int
    file_type: str
    chat_template: str
    hears: bool

    @classmethod
    def of(cls, gguf: Gguf) -> Facts:
        """The facts of *gguf*."""
        found = [sense for sense in ("vision", "audio") if gguf.own(f"{sense}.block_count") in gguf.metadata]
        found.append("embedding" if gguf.own("pooling_type") in gguf.metadata else "completion")
        audio = any(
            value is True
            for key, value in gguf.metadata.items()
            if key == "has_audio_encoder" or key.endswith(".has_audio_encoder")
        )
        return cls(
            senses=tuple(found),
            context_length=gguf.context_length or 0,
            embedding_length=gguf.embedding_length or 0,
            file_type=gguf.file_type,
            chat_template=gguf.text("tokenizer.chat_template") or "",
            hears=audio and gguf.text("clip.vision.projector_type") != "gemma3nv",
        )


def listed(
    config: Mapping[str, Any], facts: Facts | None, template: str | None, projectors: int
) -> tuple[str, ...]:
    """`capabilities` in /api/tags."""
    found = list(facts.senses if facts else ())
    found += _strings(config.get("capabilities"))
    parser = str(config.get("parser") or "")
    tools, insert, thinking = _template_words(template)
    found += ["tools"] * (tools or (parser in _TOOLS)) + ["insert"] * insert
    found += ["thinking"] * (thinking or parser in _THINKING or _is_gptoss(config))
    found += ["vision"] * bool(projectors)
    return tuple(dict.fromkeys(found))


def shown(
    config: Mapping[str, Any], facts: Facts | None, template: str | None, projectors: Iterable[Facts]
) -> tuple[str, ...]:
    """`capabilities` in /api/show, which looks at the GGUF's own chat template as well."""
    found = _strings(config.get("capabilities"))
    parser = str(config.get("parser") or "")
    if facts is not None:
        if template is None and not parser and not config.get("renderer"):
            chat = facts.chat_template
            found += ["tools"] * ("tools" in chat or "tool_call" in chat)
            found += ["thinking"] * ("</think>" in chat and ("<think>" in chat or "split(" in chat))
        found += sorted(facts.senses, key=("embedding", "completion", "vision", "audio").index)
    for projector in projectors:
        found += ["vision"] + ["audio"] * projector.hears
    tools, insert, thinking = _template_words(template)
    found += ["tools"] * tools + ["insert"] * insert + ["thinking"] * thinking
    found += ["tools"] * (parser in _TOOLS)
    found += ["thinking"] * (parser in _THINKING or _is_gptoss(config))
    return tuple(dict.fromkeys(found))


def _is_gptoss(config: Mapping[str, Any]) -> bool:
    return config.get("model_family") in ("gptoss", "gpt-oss")


def _template_words(template: str | None) -> tuple[bool, bool, bool]:
    """Whether *template* uses tools, a suffix, and the thinking of messages."""
    words: set[str] = set()
    for action in _ACTION.findall(template or ""):
        words.update(word.lower() for word in _IDENTIFIER.findall(_TEXT.sub("", action)))
    return "tools" in words, "suffix" in words, {"thinking", "messages"} <= words


def _strings(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
