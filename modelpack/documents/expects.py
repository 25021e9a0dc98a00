"""`expects.json`: the blobs that a delta does not hold, because whoever it is for has them already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from modelpack.documents import strict
from modelpack.documents.gojson import canonical_json, parse_object, size_of
from modelpack.documents.model import Model
from modelpack.errors import Corrupt, NotFound, Unsupported
from modelpack.words.blob import SMALL, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.text import size as shown_size

FILE_NAME = "expects.json"
SCHEMA, VERSION = "modelpack.expects", 1
_SHOWN = 3


@dataclass(frozen=True)
class Expected:
    """A blob of `size` bytes that is there already: as a part of the model `name` with the ID `id`."""

    digest: Digest
    size: int
    name: Name
    id: Digest


@dataclass(frozen=True)
class Expects:
    """What a bundle expects at the target, by digest; nothing, unless it is a delta."""

    blobs: tuple[Expected, ...] = ()

    @classmethod
    def of(cls, blobs: Iterable[Expected]) -> Expects:
        """Each of *blobs* once, in the order of their digests."""
        return cls(tuple(sorted({one.digest: one for one in blobs}.values(), key=lambda one: one.digest)))

    @cached_property
    def digests(self) -> frozenset[Digest]:
        """What is expected."""
        return frozenset(one.digest for one in self.blobs)

    def __bool__(self) -> bool:
        return bool(self.blobs)

    def __contains__(self, blob: Blob) -> bool:
        return blob.digest in self.digests

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(one.size for one in self.blobs)

    def only(self, blobs: Iterable[Blob]) -> Expects:
        """Those that are among *blobs*, with the same size."""
        sizes = {blob.digest: blob.size for blob in blobs}
        return Expects(tuple(one for one in self.blobs if sizes.get(one.digest) == one.size))

    def to_json(self) -> list[dict[str, Any]]:
        """Each blob, for scripts: digests as text, sizes in bytes."""
        return [
            {"digest": str(one.digest), "size": one.size, "of": {"name": one.name.full, "id": str(one.id)}}
            for one in self.blobs
        ]

    def raw(self) -> bytes:
        """The file: one line of JSON, sorted."""
        return canonical_json({"schema": SCHEMA, "version": VERSION, "blobs": self.to_json()})

    @classmethod
    def parse(cls, raw: bytes, where: object) -> Expects:
        """Read the file, 4 MiB at most; Corrupt, or Unsupported where a newer modelpack wrote it."""
        value = parse_object(raw, where, SMALL)
        check_schema(value, SCHEMA, VERSION, where)
        strict.only(value, {"schema", "version", "blobs"}, where)
        found = cls(tuple(_expected(one, where) for one in strict.objects(value, "blobs", where)))
        digests = [one.digest for one in found.blobs]
        if digests != sorted(set(digests)):
            raise Corrupt("names a blob twice, or out of order", where=where)
        return found


NOTHING = Expects()


def check_schema(value: Mapping[str, Any], schema: str, version: int, where: object) -> None:
    """Raise Corrupt where *value* is not of *schema*, Unsupported where it is of another *version* of it."""
    if value.get("schema") != schema:
        raise Corrupt(f"is no {schema}", where=where)
    found = value.get("version")
    if type(found) is not int:
        raise Corrupt("does not say of which version it is", where=where)
    if found != version:
        raise Unsupported(
            f"is {schema} in version {str(found)[:40]}; this modelpack reads version {version}",
            where=where,
            advice="Use the modelpack that wrote it, or a newer one.",
        )


def _expected(value: dict[str, Any], where: object) -> Expected:
    strict.only(value, {"digest", "size", "of"}, where)
    of = strict.only(value["of"], {"name", "id"}, where)
    return Expected(
        strict.digest(value, "digest", where),
        size_of(value, where),
        strict.name(of, "name", where),
        strict.digest(of, "id", where),
    )


class Elsewhere(NotFound):
    """A `blob` that a delta does not hold: it is expected at the target, and nothing is damaged."""

    def __init__(self, what: str, blob: Blob, *, where: object = "", advice: str = "") -> None:
        super().__init__(what, where=where, advice=advice)
        self.blob = blob


def absent(blob: Blob, expects: Expects, where: object) -> NotFound:
    """What to say where a bundle is asked for *blob*, which is not in it; Elsewhere where that is right."""
    if blob not in expects:
        return NotFound(f"the {blob.kind} blob {blob} is missing in the bundle", where=where)
    of = next(one for one in expects.blobs if one.digest == blob.digest)
    return Elsewhere(
        f"the {blob.kind} blob {blob} is not in the bundle: it is a delta, and expects it at the target",
        blob,
        where=where,
        advice=f"Nothing is damaged. It is a blob of {of.name} ({of.id.short}); a bundle that was packed "
        "without --since has it.",
    )


def lacking(missing: Sequence[Blob], expects: frozenset[Digest]) -> tuple[Blob, ...]:
    """Those of the *missing* blobs that the source does not hold either, since it *expects* them there."""
    return tuple(blob for blob in missing if blob.digest is not None and blob.digest in expects)


def not_there(lacking: Sequence[Blob], models: Sequence[Model], where: object = "") -> NotFound:
    """What to say before the first byte where a delta of *models* finds the *lacking* blobs missing."""
    ids = {blob.id for blob in lacking}
    names = [str(model.name) for model in models if any(blob.id in ids for blob in model.blobs)]
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    count = "1 blob" if len(ids) == 1 else f"{len(ids)} blobs"
    verb = "is" if len(ids) == 1 else "are"
    total = shown_size(sum(blob.size for blob in lacking))
    return NotFound(
        f"the bundle is a delta: {count} ({total}) of {shown} {verb} expected at the target, and {verb} not "
        f"there: {', '.join(str(blob) for blob in lacking[:_SHOWN])}"
        + (", …" if len(lacking) > _SHOWN else ""),
        where=where,
        advice="Load first what it was packed --since (`inspect` tells of which models the blobs are), or "
        "pack it without --since.",
    )
