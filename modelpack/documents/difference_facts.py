"""What a model is, part by part, whoever tells of it: its document, or a server's answer to /api/show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelpack.documents.difference_gguf import Header
from modelpack.documents.gojson import parse_value
from modelpack.documents.image import Image
from modelpack.documents.recipe import Recipe
from modelpack.documents.show import DEFAULT_TEMPLATE, parameters_text, quoted
from modelpack.errors import Corrupt
from modelpack.words.blob import (
    ADAPTER,
    CONFIG,
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
from modelpack.words.digest import Digest

_PARTS = {
    MODEL: "weights", PROJECTOR: "projector", ADAPTER: "adapter", DRAFT: "draft", CONFIG: "config",
    TEMPLATE: "template", PROMPT: "template", SYSTEM: "system", PARAMS: "parameters", LICENSE: "licence",
    MESSAGES: "messages",
}  # fmt: skip
TEXTS = ("template", "system", "parameters", "licence", "messages", "config")
"""Parts that are small texts."""
GGUFS = ("weights", "projector", "adapter", "draft")
"""Parts that are GGUFs, in an image."""
_GROUPS = {"files": "weights", "adapters": "adapter", "draft_files": "draft"}
_ABOUT = {
    "format": "model_format", "family": "model_family", "families": "model_families",
    "parameter_size": "model_type", "quantization_level": "file_type",
}  # fmt: skip
_NAMED = re.compile(r"(FROM|ADAPTER|DRAFT) (?:.*[/\\])?sha256[-:]([0-9a-f]{64})\"?")


@dataclass(frozen=True)
class File:
    """A large blob of a model; `header` where it is a GGUF that was looked into."""

    part: str
    digest: Digest | None
    size: int | None
    header: Header | None = None
    title: str = ""


@dataclass(frozen=True)
class Facts:
    """A model in its parts. Of a text that could not be read, `unread` has the part, and why in a sentence.

    `digests` are those of a part's blobs, where it has blobs. `told`: a server said so, by /api/show, which
    keeps some things to itself; of `config` it names the keys that are there, and no others.
    """

    kind: str
    files: tuple[File, ...] = ()
    template: str | None = None
    system: str | None = None
    parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Values as Go writes them, several for a list: what /api/show can say of them."""
    licences: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, tuple[Digest | None, ...]] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    told: bool = False


def part_of(blob: Blob) -> str:
    """The word for what *blob* is to a model: `weights`, `template`, …, or the end of its media type."""
    return _PARTS.get(blob.media_type) or blob.kind


def parts_of(image: Image) -> dict[str, tuple[Blob, ...]]:
    """The blobs of *image* by their parts, in its order."""
    found: dict[str, tuple[Blob, ...]] = {}
    for blob in (*image.layers, image.config):
        found[part_of(blob)] = (*found.get(part_of(blob), ()), blob)
    return found


def facts_of_image(
    image: Image, texts: Mapping[Digest | None, bytes | str], headers: Mapping[object, Header]
) -> Facts:
    """*image* in its parts, of *texts*: the bytes of small blobs, or why they could not be had.

    A text that is missing there is of no interest. *headers* are by the blob's `id`.
    """
    parts = parts_of(image)
    unread: dict[str, str] = {}
    values: dict[str, list[Any]] = {}
    for part in TEXTS:
        for blob in parts.get(part, ()):
            raw = texts.get(blob.digest)
            try:
                if isinstance(raw, bytes):
                    values.setdefault(part, []).append(_value(part, raw))
                elif raw is not None:
                    unread[part] = raw
            except Corrupt as error:
                unread[part] = error.what
    params: dict[str, Any] = {}
    for one in values.get("parameters", ()):
        params |= one
    return Facts(
        "image",
        files=tuple(
            File(part, blob.digest, blob.size, headers.get(blob.id), blob.title or "")
            for part, blobs in parts.items()
            if part not in TEXTS
            for blob in blobs
        ),
        template=_last(values, "template"),
        system=_last(values, "system"),
        parameters=_parameters(params),
        licences=tuple(values.get("licence", ())),
        messages=_messages(_last(values, "messages") or []),
        config=_last(values, "config") or {},
        digests={part: tuple(blob.digest for blob in blobs) for part, blobs in parts.items()},
        unread=unread,
    )


def facts_of_recipe(recipe: Recipe, headers: Mapping[object, Header]) -> Facts:
    """*recipe* in its parts; what it says of how to make the model stands in `config`."""
    body = recipe.body
    known = {blob.digest: blob for blob in recipe.files}
    files: list[File] = []
    for group, part in _GROUPS.items():
        for title, text in (body.get(group) or {}).items():
            blob = known.get(Digest.parse(text))
            if blob is not None:
                files.append(File(part, blob.digest, blob.size, headers.get(blob.id), title))
    licences = body.get("license") or []
    taken = {"template", "system", "parameters", "license", "messages", *_GROUPS}
    params = body.get("parameters")
    return Facts(
        "recipe",
        files=tuple(files),
        template=_text(body.get("template")),
        system=_text(body.get("system")),
        parameters=_parameters(params if isinstance(params, dict) else {}),
        licences=tuple(str(one) for one in (licences if isinstance(licences, list) else [licences])),
        messages=_messages(body.get("messages")),
        config={key: value for key, value in body.items() if key not in taken},
    )


def facts_of_show(shown: Mapping[str, Any]) -> Facts:
    """What *shown*, an answer of /api/show, tells. Nothing in it is trusted to have Ollama's types."""
    files, rest = _files(_text(shown.get("modelfile")) or "")
    template = _text(shown.get("template")) or DEFAULT_TEMPLATE
    unread: dict[str, str] = {}
    # Since 0.30 `template` may be the GGUF's chat template; the modelfile has the layer's, or the default.
    if not rest.startswith(f"TEMPLATE {quoted(template)}\n"):
        if rest.startswith(f"TEMPLATE {DEFAULT_TEMPLATE}\n"):
            template = DEFAULT_TEMPLATE
        else:
            unread["template"] = "/api/show tells another template than its modelfile has"
    details = shown.get("details")
    config = {
        key: details[name] for name, key in _ABOUT.items() if isinstance(details, dict) and details.get(name)
    }
    config |= {key: text for key in ("renderer", "parser", "requires") if (text := _text(shown.get(key)))}
    config |= _engine(rest, template, _text(shown.get("system")) or "")
    licence = _text(shown.get("license"))
    headers = {
        part: Header.told(value)
        for part, key in (("weights", "model_info"), ("projector", "projector_info"))
        if isinstance(value := shown.get(key), dict) and value
    }
    firsts = {file.part: file for file in reversed(files)}
    return Facts(
        "model",
        files=tuple(
            File(file.part, file.digest, None, headers.get(file.part) if firsts[file.part] is file else None)
            for file in files
        ),
        template=template,
        system=_text(shown.get("system")),
        parameters=_told_parameters(_text(shown.get("parameters")) or ""),
        licences=(licence,) if licence else (),
        messages=_messages(shown.get("messages")),
        config=config,
        unread=unread,
        told=True,
    )


def _value(part: str, raw: bytes) -> Any:
    if part in ("template", "system", "licence"):
        return raw.decode("utf-8", "surrogateescape")
    value = parse_value(raw, "") or ([] if part == "messages" else {})
    if not isinstance(value, list if part == "messages" else dict):
        raise Corrupt(f"its {part} are of no form that Ollama knows")
    return value


def _last(values: Mapping[str, list[Any]], part: str) -> Any:
    found = values.get(part)  # empty where none could be read
    return found[-1] if found else None  # of several layers Ollama runs the last


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _parameters(params: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {
        name: tuple(_go(each) for each in (value if isinstance(value, list) else [value]))
        for name, value in params.items()
    }


def _go(value: Any) -> str:
    return parameters_text({"": value})[31:]  # behind the name, which is padded to 30


def _told_parameters(text: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        found[name] = (*found.get(name, ()), value.strip())
    return found


def _messages(value: Any) -> tuple[str, ...]:
    found: list[str] = []
    for one in value if isinstance(value, Sequence) and not isinstance(value, str) else ():
        if isinstance(one, Mapping):
            more = {key: item for key, item in one.items() if key not in ("role", "content") and item}
            found.append(f"{one.get('role', '')}: {one.get('content', '')}" + (f" {more}" if more else ""))
    return tuple(found)


def _files(modelfile: str) -> tuple[list[File], str]:
    """The blobs that FROM, ADAPTER and DRAFT name at the front of *modelfile*, and the text behind them."""
    files: list[File] = []
    rest = modelfile
    while rest:
        line, _, after = rest.partition("\n")
        found = _NAMED.fullmatch(line.replace('"', ""))
        if found is not None:
            part = {"ADAPTER": "adapter", "DRAFT": "draft"}.get(found[1]) or (
                "projector" if any(file.part == "weights" for file in files) else "weights"
            )
            files.append(File(part, Digest("sha256", found[2]), None))
        elif line and not line.startswith("#") and not line.startswith("FROM "):
            break
        rest = after
    return files, rest


def _engine(rest: str, template: str, system: str) -> dict[str, str]:
    """Renderer and parser, which a modelfile has after the template and the system prompt."""
    tail = rest.removeprefix(f"TEMPLATE {quoted(template)}\n")
    tail = tail.removeprefix(f"SYSTEM {quoted(system)}\n") if system else tail
    found: dict[str, str] = {}
    for command in ("RENDERER", "PARSER"):
        if tail.startswith(f"{command} "):
            found[command.lower()], _, tail = tail.removeprefix(f"{command} ").partition("\n")
    return found
