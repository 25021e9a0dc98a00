"""What Ollama's API answers, as values. Fields that are not named here are kept in `more`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from modelpack.errors import Corrupt, Unsupported
from modelpack.words.digest import Digest

_NUMBER = re.compile(r"v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})", re.ASCII)
_T = TypeVar("_T")


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
    """What a model is: `format` gguf or safetensors, `quantization_level` F16, Q4_K_M, …"""

    parent_model: str = ""
    format: str = ""
    family: str = ""
    families: tuple[str, ...] = ()
    parameter_size: str = ""
    quantization_level: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, value: Any) -> Details:
        """From the `details` of an answer; what is missing or of another type is empty."""
        rest = dict(value) if isinstance(value, dict) else {}
        texts = {
            key: _take(rest, key, "")
            for key in ("parent_model", "format", "family", "parameter_size", "quantization_level")
        }
        return cls(**texts, families=_strings(rest.pop("families", None)), more=rest)


@dataclass(frozen=True)
class Listed:
    """A model in `GET /api/tags`: `digest` is its ID, `size` the bytes of all its blobs."""

    name: str
    digest: Digest
    size: int
    modified_at: str
    details: Details
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, value: dict[str, Any], where: object) -> Listed:
        """Raises Unsupported where *value* is not an entry of Ollama's."""
        rest = dict(value)
        model = _take(rest, "model", "")
        name = _take(rest, "name", "") or model
        text = _take(rest, "digest", "")
        try:
            digest = Digest.parse(text if ":" in text else f"sha256:{text}")  # it comes without the prefix
        except Corrupt:
            raise Unsupported(
                "lists a model without an ID: this is not Ollama's answer", where=where
            ) from None
        return cls(
            name=name,
            digest=digest,
            size=_take(rest, "size", 0),
            modified_at=_take(rest, "modified_at", ""),
            details=Details.read(rest.pop("details", None)),
            more=rest,
        )


@dataclass(frozen=True)
class Shown:
    """`POST /api/show`. `raw` is the whole answer, as `documents.show` compares it."""

    license: str
    modelfile: str
    parameters: str
    template: str
    system: str
    requires: str
    details: Details
    messages: tuple[Mapping[str, Any], ...]
    model_info: Mapping[str, Any]
    capabilities: tuple[str, ...]
    raw: Mapping[str, Any]

    @classmethod
    def read(cls, value: dict[str, Any]) -> Shown:
        """What is missing or of another type is empty."""
        rest = dict(value)
        return cls(
            license=_take(rest, "license", ""),
            modelfile=_take(rest, "modelfile", ""),
            parameters=_take(rest, "parameters", ""),
            template=_take(rest, "template", ""),
            system=_take(rest, "system", ""),
            requires=_take(rest, "requires", ""),
            details=Details.read(rest.get("details")),
            messages=_objects(rest.get("messages")),
            model_info=_take(rest, "model_info", dict[str, Any]()),
            capabilities=_strings(rest.get("capabilities")),
            raw=value,
        )


@dataclass(frozen=True)
class Event:
    """One line of a stream: a `status` for people and, while bytes move, `completed` of `total`."""

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, value: dict[str, Any]) -> Event:
        """What is missing or of another type is empty."""
        rest = dict(value)
        return cls(
            status=_take(rest, "status", ""),
            digest=_take(rest, "digest", ""),
            total=_take(rest, "total", 0),
            completed=_take(rest, "completed", 0),
            more=rest,
        )


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _objects(value: Any) -> tuple[Mapping[str, Any], ...]:
    return tuple(each for each in value if isinstance(each, dict)) if isinstance(value, list) else ()


def _take(rest: dict[str, Any], key: str, default: _T) -> _T:
    """Out of *rest*: the value at *key* where it is of the type of *default*, else *default*."""
    found = rest.pop(key, default)
    return found if isinstance(found, type(default)) and not isinstance(found, bool) else default
