"""What Ollama's API answers, as values: a missing field is None (a list or a map: empty).

Fields that are not named here, or are of another type than Ollama's, are kept as they are in `more`. Facts:
api/types.go of Ollama v0.24 and v0.33. Times are texts as the server writes them (RFC 3339), sizes bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from modelpack.errors import Corrupt, Unsupported
from modelpack.words.digest import Digest

_NUMBER = re.compile(r"v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})", re.ASCII)
_T = TypeVar("_T", str, int, dict[str, Any])


def version_number(text: str) -> tuple[int, int, int] | None:
    """The three numbers at the front of *text*; None for none, and for 0.0.0, which unofficial builds say."""
    found = _NUMBER.match(text)
    number = (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)
    return number if any(number) else None


@dataclass(frozen=True)
class Version:
    """`GET /api/version`. A depot (modelpack's own server) says so in a field of its own."""

    text: str
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def number(self) -> tuple[int, int, int] | None:
        """Major, minor, patch; None where it cannot be told."""
        return version_number(self.text)

    @property
    def is_depot(self) -> bool:
        """Whether it is a depot: it has no engine, so it rewrites nothing."""
        return bool(self.more.get("depot"))

    def is_at_least(self, *number: int) -> bool:
        """Whether it is this version or a later one. One that cannot be told is taken for the newest."""
        return self.number is None or self.number >= number


@dataclass(frozen=True)
class Details:
    """What a model is: `format` gguf or safetensors, `quantization_level` F16, Q4_K_M, …

    The lengths, in tokens and in numbers, come since 0.33 in `GET /api/tags`.
    """

    parent_model: str | None = None
    format: str | None = None
    family: str | None = None
    families: tuple[str, ...] = ()
    parameter_size: str | None = None
    quantization_level: str | None = None
    context_length: int | None = None
    embedding_length: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def take(cls, rest: dict[str, Any]) -> Details:
        """Out of the `details` of an answer, where they are an object."""
        own = dict(_take(rest, "details", dict) or {})
        return cls(
            parent_model=_take(own, "parent_model", str),
            format=_take(own, "format", str),
            family=_take(own, "family", str),
            families=_strings(own, "families"),
            parameter_size=_take(own, "parameter_size", str),
            quantization_level=_take(own, "quantization_level", str),
            context_length=_take(own, "context_length", int),
            embedding_length=_take(own, "embedding_length", int),
            more=own,
        )


@dataclass(frozen=True)
class Listed:
    """A model in `GET /api/tags`: `digest` is its ID, `size` the bytes of all its blobs.

    `capabilities` come since 0.33. A model that runs on another host has `remote_model` and `remote_host`.
    """

    name: str
    digest: Digest
    model: str | None = None
    size: int | None = None
    modified_at: str | None = None
    details: Details = field(default_factory=Details)
    capabilities: tuple[str, ...] = ()
    remote_model: str | None = None
    remote_host: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, value: dict[str, Any], where: object) -> Listed:
        """Raises Unsupported where *value* is not an entry of Ollama's."""
        rest = dict(value)
        name, model, digest = _named(rest, where)
        return cls(
            name=name,
            digest=digest,
            model=model,
            size=_take(rest, "size", int),
            modified_at=_take(rest, "modified_at", str),
            details=Details.take(rest),
            capabilities=_strings(rest, "capabilities"),
            remote_model=_take(rest, "remote_model", str),
            remote_host=_take(rest, "remote_host", str),
            more=rest,
        )


@dataclass(frozen=True)
class Running:
    """A model in `GET /api/ps`: it is loaded, until `expires_at`; `size_vram` bytes of it on a GPU."""

    name: str
    digest: Digest
    model: str | None = None
    size: int | None = None
    size_vram: int | None = None
    context_length: int | None = None
    expires_at: str | None = None
    details: Details = field(default_factory=Details)
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, value: dict[str, Any], where: object) -> Running:
        """Raises Unsupported where *value* is not an entry of Ollama's."""
        rest = dict(value)
        name, model, digest = _named(rest, where)
        return cls(
            name=name,
            digest=digest,
            model=model,
            size=_take(rest, "size", int),
            size_vram=_take(rest, "size_vram", int),
            context_length=_take(rest, "context_length", int),
            expires_at=_take(rest, "expires_at", str),
            details=Details.take(rest),
            more=rest,
        )


@dataclass(frozen=True)
class Tensor:
    """A tensor of a verbose `show`: `type` F16, Q4_K, …; `shape` in GGUF's order."""

    name: str | None = None
    type: str | None = None
    shape: tuple[int, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, value: dict[str, Any]) -> Tensor:
        """As the module says."""
        rest = dict(value)
        shape = rest.get("shape")
        known = isinstance(shape, list) and all(type(each) is int for each in shape)
        return cls(
            name=_take(rest, "name", str),
            type=_take(rest, "type", str),
            shape=tuple(rest.pop("shape")) if known else (),
            more=rest,
        )


@dataclass(frozen=True)
class Shown:
    """`POST /api/show`. `raw` is the whole answer, as `documents.show` compares it.

    `model_info` is the GGUF's metadata, `projector_info` a projector's; long arrays in them, and `tensors`,
    come only where it was asked verbose. `messages` have at least a `role` and a `content`.
    """

    license: str | None = None
    modelfile: str | None = None
    parameters: str | None = None
    template: str | None = None
    system: str | None = None
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None
    modified_at: str | None = None
    remote_model: str | None = None
    remote_host: str | None = None
    details: Details = field(default_factory=Details)
    messages: tuple[Mapping[str, Any], ...] = ()
    capabilities: tuple[str, ...] = ()
    model_info: Mapping[str, Any] = field(default_factory=dict)
    projector_info: Mapping[str, Any] = field(default_factory=dict)
    tensors: tuple[Tensor, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, value: dict[str, Any]) -> Shown:
        """As the module says."""
        rest = dict(value)
        return cls(
            license=_take(rest, "license", str),
            modelfile=_take(rest, "modelfile", str),
            parameters=_take(rest, "parameters", str),
            template=_take(rest, "template", str),
            system=_take(rest, "system", str),
            renderer=_take(rest, "renderer", str),
            parser=_take(rest, "parser", str),
            requires=_take(rest, "requires", str),
            modified_at=_take(rest, "modified_at", str),
            remote_model=_take(rest, "remote_model", str),
            remote_host=_take(rest, "remote_host", str),
            details=Details.take(rest),
            messages=_objects(rest, "messages"),
            capabilities=_strings(rest, "capabilities"),
            model_info=_take(rest, "model_info", dict) or {},
            projector_info=_take(rest, "projector_info", dict) or {},
            tensors=tuple(Tensor.read(each) for each in _objects(rest, "tensors")),
            more=rest,
            raw=value,
        )


@dataclass(frozen=True)
class Event:
    """One line of a stream: a `status` for people and, while bytes move, `completed` of `total` of a digest.

    A `completed` of zero is not told: Go leaves it out.
    """

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, value: dict[str, Any]) -> Event:
        """As the module says; a line without a status has an empty one."""
        rest = dict(value)
        return cls(
            status=_take(rest, "status", str) or "",
            digest=_take(rest, "digest", str),
            total=_take(rest, "total", int),
            completed=_take(rest, "completed", int),
            more=rest,
        )


def _named(rest: dict[str, Any], where: object) -> tuple[str, str | None, Digest]:
    """Out of *rest*: the name, the older field for it, and the ID, which comes without `sha256:`."""
    model = _take(rest, "model", str)
    name = _take(rest, "name", str) or model or ""
    text = rest.pop("digest", None)
    try:
        digest = Digest.parse(f"sha256:{text}" if isinstance(text, str) and ":" not in text else text)
    except Corrupt:
        raise Unsupported("lists a model without an ID: this is not Ollama's answer", where=where) from None
    return name, model, digest


def _take(rest: dict[str, Any], key: str, kind: type[_T]) -> _T | None:
    """Out of *rest*: the value at *key* where it is of *kind*; one of another type stays there."""
    found = rest.get(key)
    if type(found) is not kind:
        if found is None:
            rest.pop(key, None)  # Go's null is an empty list, map or pointer
        return None
    del rest[key]
    return found


def _strings(rest: dict[str, Any], key: str) -> tuple[str, ...]:
    return tuple(_list(rest, key, str))


def _objects(rest: dict[str, Any], key: str) -> tuple[dict[str, Any], ...]:
    return tuple(_list(rest, key, dict))


def _list(rest: dict[str, Any], key: str, kind: type[_T]) -> list[_T]:
    found = rest.get(key)
    if found is None or (isinstance(found, list) and all(type(each) is kind for each in found)):
        return rest.pop(key, None) or []
    return []
