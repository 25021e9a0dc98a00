"""An inventory: what models a host has, in a text that tells nothing else of the host."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from modelpack.documents import strict
from modelpack.documents.expects import check_schema
from modelpack.documents.gojson import parse_object, size_of, text_of
from modelpack.errors import Corrupt
from modelpack.words.blob import MIB
from modelpack.words.digest import Digest
from modelpack.words.name import Name

SCHEMA, VERSION = "modelpack.inventory", 1
LIMIT = 16 * MIB
"""The most bytes of the file."""
MOST_CONTAINERS = 70_000
"""The most models and blobs in it, together."""
MOST_MODELS = 20_000
"""The most models. With these bounds two of such files are compared in 120 MiB of memory."""
_OLLAMA = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,99}", re.ASCII)


@dataclass(frozen=True)
class Held:
    """A model that is there: its name, its ID, the bytes of all its blobs.

    `blobs` are their digests and sizes, in the order of digests; None where nobody told, as a server.
    """

    name: Name
    id: Digest
    size: int
    blobs: tuple[tuple[Digest, int], ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Digests as text, sizes in bytes."""
        value: dict[str, Any] = {"name": self.name.full, "id": str(self.id), "size": self.size}
        if self.blobs is not None:
            value["blobs"] = [{"digest": str(digest), "size": size} for digest, size in self.blobs]
        return value


@dataclass(frozen=True)
class Inventory:
    """What a host has. `version` is its Ollama's, None where nobody told, as a models directory.

    Nothing in it depends on the host's name, its paths, users or clock: the same models give the same bytes.
    """

    version: str | None
    models: tuple[Held, ...]

    @classmethod
    def of(cls, models: Iterable[Held], version: str | None = None) -> Inventory:
        """*models* in the order of their names; a *version* that is no version is not told."""
        known = version if version is not None and _OLLAMA.fullmatch(version) else None
        return cls(known, tuple(sorted(models, key=_order)))

    def to_json(self) -> dict[str, Any]:
        """The file's content as a JSON value."""
        value: dict[str, Any] = {"schema": SCHEMA, "version": VERSION}
        if self.version is not None:
            value["ollama"] = self.version
        return value | {"models": [model.to_json() for model in self.models]}

    def to_bytes(self) -> bytes:
        """The file: ASCII, indented, in an order for people."""
        return (json.dumps(self.to_json(), indent=2) + "\n").encode()

    @classmethod
    def parse(cls, raw: bytes, where: object) -> Inventory:
        """Read the file, of at most LIMIT bytes.

        Corrupt where it was cut, or says what cannot be: it has no sum, so not every change is seen.
        Unsupported where it is of another version.
        """
        value = parse_object(raw, where, LIMIT, containers=MOST_CONTAINERS)
        check_schema(value, SCHEMA, VERSION, where)
        strict.only(value, {"schema", "version", "models"} | (value.keys() & {"ollama"}), where)
        version = text_of(value, "ollama", where) if "ollama" in value else None
        if version is not None and _OLLAMA.fullmatch(version) is None:
            raise Corrupt("its 'ollama' is not a version", where=where)
        listed = strict.objects(value, "models", where)
        if len(listed) > MOST_MODELS:
            raise Corrupt(f"lists more than {MOST_MODELS} models; no real one does", where=where)
        models = tuple(_held(one, where) for one in listed)
        _check(models, where)
        return cls(version, models)


def _order(model: Held) -> tuple[str, str]:
    return model.name.folded, model.name.full


def _held(value: dict[str, Any], where: object) -> Held:
    strict.only(value, {"name", "id", "size"} | (value.keys() & {"blobs"}), where)
    blobs = None
    if "blobs" in value:
        blobs = tuple(_blob(one, where) for one in strict.objects(value, "blobs", where))
    return Held(
        strict.name(value, "name", where), strict.digest(value, "id", where), size_of(value, where), blobs
    )


def _blob(value: dict[str, Any], where: object) -> tuple[Digest, int]:
    strict.only(value, {"digest", "size"}, where)
    return strict.digest(value, "digest", where), size_of(value, where)


def _check(models: tuple[Held, ...], where: object) -> None:
    """What is true of every inventory, and of few that were edited by hand."""
    names = [_order(model) for model in models]
    if names != sorted(set(names)):
        raise Corrupt("names a model twice, or out of order", where=where)
    sizes: dict[Digest, int] = {}
    same: dict[Digest, tuple[tuple[Digest, int], ...]] = {}
    for model in models:
        if model.blobs is None:
            continue
        digests = [digest for digest, _ in model.blobs]
        if digests != sorted(set(digests)):
            raise Corrupt(f"names a blob of {model.name} twice, or out of order", where=where)
        if sum(size for _, size in model.blobs) != model.size:
            raise Corrupt(f"the sizes of {model.name}'s blobs are not its own", where=where)
        if same.setdefault(model.id, model.blobs) != model.blobs:
            raise Corrupt(f"gives {model.name} other blobs than another model of its ID", where=where)
        for digest, size in model.blobs:
            if sizes.setdefault(digest, size) != size:
                raise Corrupt(f"gives the blob {digest} two sizes", where=where)
