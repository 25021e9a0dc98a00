"""The file that `load --receipt` writes: what arrived where, what is known of each blob there, and when.

docs/receipt.schema.json is its schema, docs/receipt.md says it in words. It ends in the SHA-256 of the rest,
so that a file that was cut or edited by accident is noticed; that is no signature.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from modelpack.documents import strict
from modelpack.documents.gojson import canonical_json, parse_object, size_of, text_of
from modelpack.documents.receipt import CREATE, DIRECTORY, EXACT, REGISTRY, Receipt, State, Tried
from modelpack.errors import Corrupt, Different, NotFound, Unsupported
from modelpack.words.blob import MIB
from modelpack.words.digest import Digest
from modelpack.words.name import Name

SCHEMA = "dev.ollama-modelpack.receipt"
VERSION = 1
LIMIT = 16 * MIB
"""The most bytes of the file."""
MOST_CONTAINERS = 70_000
"""The most models and blobs in it, together."""

SERVER, MODELS_DIRECTORY = "server", "models directory"
KINDS = (SERVER, MODELS_DIRECTORY, REGISTRY)
"""Kinds of hosts."""
WAYS = (EXACT, CREATE, DIRECTORY, REGISTRY)
SAME = ("bytes", "blobs", "meaning")
STEPS = ("load", "prove", "try")
"""What may have failed."""

_OTHERWISE = tuple(kind.__name__ for kind in (Corrupt, NotFound, Different))
_SHOWN = 4096  # characters of an error's text that are kept
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_CREDENTIALS = re.compile(r"://[^/\s]*@")


@dataclass(frozen=True)
class Host:
    """Where models went: what kind of host it is, its address or path, Ollama's version where it has one."""

    kind: str
    where: str
    version: str | None = None


@dataclass(frozen=True)
class Seen:
    """A blob of a model: its digest and size in bytes, and what is known of it there."""

    digest: Digest
    size: int
    media_type: str
    state: State


@dataclass(frozen=True)
class Arrived:
    """A model that is there: under which name, with which ID, made of what. See Receipt."""

    name: Name
    document: Digest
    id: Digest | None
    way: str
    same: str | None
    there: bool
    note: str
    unproven: str
    blobs: tuple[Seen, ...]
    tried: Tried | None = None

    @classmethod
    def of(cls, receipt: Receipt) -> Arrived:
        """What *receipt* says."""
        blobs = [
            Seen(blob.digest, blob.size, blob.media_type, state)
            for blob, state in receipt.states()
            if blob.digest is not None
        ]
        return cls(
            receipt.name, receipt.model.document.id, receipt.id, receipt.way, receipt.same, receipt.there,
            receipt.note[:_SHOWN], receipt.unproven[:_SHOWN], tuple(blobs), receipt.tried,
        )  # fmt: skip


@dataclass(frozen=True)
class Failure:
    """What went wrong: at which step, with which model (None: with all of them), as which kind of error."""

    step: str
    name: Name | None
    kind: str
    what: str
    where: str = ""
    advice: str = ""

    def __post_init__(self) -> None:
        for key in ("what", "where", "advice"):
            object.__setattr__(self, key, getattr(self, key)[:_SHOWN])


@dataclass(frozen=True)
class Record:
    """One load: by which modelpack, of which bundle (its fingerprint), to which host, from when to when.

    `started` and `ended` are UTC, as RFC 3339 writes it, to the second.
    """

    modelpack: str
    bundle: Digest | None
    host: Host
    started: str
    ended: str
    models: tuple[Arrived, ...]
    failed: tuple[Failure, ...] = ()

    @property
    def disproved(self) -> Mapping[Name, str]:
        """Models of which --prove found that they are not there as they were loaded, and what it found.

        What only kept it from looking is none: such a model is known as well as one that nobody read back.
        """
        found = {
            one.name: one.what
            for one in self.failed
            if one.step == "prove" and one.name is not None and one.kind in _OTHERWISE
        }
        wrong = {blob.digest for one in self.models for blob in one.blobs if blob.state is State.WRONG}
        for model in self.models:
            for blob in model.blobs:
                if blob.digest in wrong:
                    found.setdefault(model.name, f"the blob {blob.digest} was read back and is wrong")
        return found

    def to_json(self) -> dict[str, Any]:
        """The file's content as a JSON value, its sum last."""
        value = {
            "schema": SCHEMA,
            "version": VERSION,
            "modelpack": self.modelpack,
            "bundle": _said(self.bundle),
            "host": asdict(self.host),
            "started": self.started,
            "ended": self.ended,
            "models": [_model_json(one) for one in self.models],
            "failed": [asdict(one) | {"name": one.name.full if one.name else None} for one in self.failed],
        }
        return value | {"sum": str(_sum(value))}

    def to_bytes(self) -> bytes:
        """The file: ASCII, indented, in an order for people."""
        return (json.dumps(self.to_json(), indent=2) + "\n").encode()

    @classmethod
    def parse(cls, raw: bytes, where: object) -> Record:
        """Read the file; raises Unsupported for what is no receipt or one of another version, else Corrupt.

        Whatever the sum says, every field is held against the schema, and unknown ones are refused.
        """
        value = parse_object(raw, where, LIMIT, containers=MOST_CONTAINERS)
        if value.get("schema") != SCHEMA:
            raise Unsupported("is JSON, but no receipt of modelpack's", where=where)
        version = value.get("version")
        if type(version) is not int or version != VERSION:
            raise Unsupported(
                f"is a receipt of schema version {str(version)[:40]}; this modelpack reads version {VERSION}",
                where=where,
                advice="Use the modelpack that wrote it, or a newer one.",
            )
        rest = {key: one for key, one in value.items() if key != "sum"}
        if value.get("sum") != str(_sum(rest)):
            raise Corrupt(
                "is not as it was written: its sum is another",
                where=where,
                advice="It was cut or edited. Use another copy of it.",
            )
        strict.only(rest, {"schema", "version", *cls.__dataclass_fields__}, where)
        return cls(
            strict.text(rest, "modelpack", where),
            strict.optional(strict.digest, rest, "bundle", where),
            _host(rest["host"], where),
            _time(rest, "started", where),
            _time(rest, "ended", where),
            tuple(_model(one, where) for one in strict.objects(rest, "models", where)),
            tuple(_failure(one, where) for one in strict.objects(rest, "failed", where)),
        )


def _sum(value: Mapping[str, Any]) -> Digest:
    return Digest.of(canonical_json(value))


def _said(digest: Digest | None) -> str | None:
    return str(digest) if digest is not None else None


def _model_json(model: Arrived) -> dict[str, Any]:
    return {
        "name": model.name.full,
        "document": str(model.document),
        "id": _said(model.id),
        "way": model.way,
        "same": model.same,
        "there": model.there,
        "note": model.note,
        "unproven": model.unproven,
        "blobs": [asdict(one) | {"digest": str(one.digest), "state": str(one.state)} for one in model.blobs],
        "tried": model.tried.to_json() if model.tried is not None else None,
    }


# --- reading


def _time(value: dict[str, Any], key: str, where: object) -> str:
    found = text_of(value, key, where)
    if _TIME.fullmatch(found) is None:
        raise Corrupt(f"its {key!r} is not a time in UTC (2026-01-31T23:59:59Z)", where=where)
    return found


def _host(value: Any, where: object) -> Host:
    value = strict.only(value, set(Host.__dataclass_fields__), where)
    place = strict.text(value, "where", where)
    if _CREDENTIALS.search(place):  # not shown: it may hold a password
        raise Corrupt("the address of its host holds a user's name or a password", where=where)
    kind = strict.one_of(value, "kind", KINDS, where)
    return Host(kind, place, strict.optional(strict.text, value, "version", where))


def _model(value: dict[str, Any], where: object) -> Arrived:
    strict.only(value, set(Arrived.__dataclass_fields__), where)
    return Arrived(
        strict.name(value, "name", where),
        strict.digest(value, "document", where),
        strict.optional(strict.digest, value, "id", where),
        strict.one_of(value, "way", WAYS, where),
        None if value["same"] is None else strict.one_of(value, "same", SAME, where),
        strict.flag(value, "there", where),
        strict.text(value, "note", where),
        strict.text(value, "unproven", where),
        tuple(_seen(one, where) for one in strict.objects(value, "blobs", where)),
        None if value["tried"] is None else _tried(value["tried"], where),
    )


def _seen(value: dict[str, Any], where: object) -> Seen:
    strict.only(value, set(Seen.__dataclass_fields__), where)
    return Seen(
        strict.digest(value, "digest", where),
        size_of(value, where),
        strict.text(value, "media_type", where),
        State(strict.one_of(value, "state", [str(one) for one in State], where)),
    )


def _tried(value: Any, where: object) -> Tried:
    value = strict.only(value, set(Tried.__dataclass_fields__), where)
    return Tried(
        strict.flag(value, "ok", where),
        strict.one_of(value, "kind", ("token", "vector"), where),
        strict.text(value, "text", where),
        size_of({"size": value["length"]}, where),
        strict.text(value, "words", where),
        size_of({"size": value["milliseconds"]}, where),
    )


def _failure(value: dict[str, Any], where: object) -> Failure:
    strict.only(value, set(Failure.__dataclass_fields__), where)
    return Failure(
        strict.one_of(value, "step", STEPS, where),
        strict.optional(strict.name, value, "name", where),
        *(strict.text(value, key, where) for key in ("kind", "what", "where", "advice")),
    )
