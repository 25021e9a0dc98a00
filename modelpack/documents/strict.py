"""Fields of modelpack's own JSON files, read strictly: each of its type, none too much, none too few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from modelpack.documents.gojson import list_of, text_of
from modelpack.errors import Corrupt, Usage
from modelpack.words.blob import SMALL
from modelpack.words.digest import Digest
from modelpack.words.name import Name

_T = TypeVar("_T")


def only(value: Any, keys: set[str], where: object) -> dict[str, Any]:
    """*value*, an object of just these *keys*; raises Corrupt, as all functions here do."""
    if not isinstance(value, dict):
        raise Corrupt("has something else where an object belongs", where=where)
    if value.keys() != keys:
        odd = sorted(value.keys() ^ keys)[0]
        raise Corrupt(f"has a field too much or too few: {odd[:100]!r}", where=where)
    return value


def optional(
    read: Callable[[dict[str, Any], str, object], _T], value: dict[str, Any], key: str, where: object
) -> _T | None:
    """What *read* finds at *key*, or None where null stands there."""
    return None if value.get(key, "") is None else read(value, key, where)


def text(value: dict[str, Any], key: str, where: object) -> str:
    """A string of at most SMALL characters."""
    found = text_of(value, key, where)
    if len(found) > SMALL:
        raise Corrupt(f"its {key!r} is longer than any real one", where=where)
    return found


def one_of(value: dict[str, Any], key: str, known: Sequence[str], where: object) -> str:
    """One of *known*."""
    found = text_of(value, key, where)
    if found not in known:
        raise Corrupt(f"its {key!r} is none of: {', '.join(known)}", where=where)
    return found


def digest(value: dict[str, Any], key: str, where: object) -> Digest:
    """A SHA-256 in the one spelling that modelpack writes."""
    found = Digest.parse(value.get(key), where)
    if str(found) != value[key] or found.algorithm != "sha256":
        raise Corrupt(f"its {key!r} is not a SHA-256 as modelpack writes it", where=where)
    return found


def name(value: dict[str, Any], key: str, where: object) -> Name:
    """A model's name, every part of it written out."""
    found = text_of(value, key, where)
    try:
        parsed = Name.parse(found[:1000])
    except Usage as error:
        raise Corrupt(error.what, where=where) from None
    if parsed.full != found:
        raise Corrupt(f"{found[:200]!r} is not a whole name", where=where)
    return parsed


def flag(value: dict[str, Any], key: str, where: object) -> bool:
    """True or false."""
    found = value.get(key)
    if not isinstance(found, bool):
        raise Corrupt(f"its {key!r} is neither true nor false", where=where)
    return found


def objects(value: dict[str, Any], key: str, where: object) -> list[dict[str, Any]]:
    """A list of objects; null is none."""
    if not isinstance(value.get(key), list):
        raise Corrupt(f"its {key!r} is not a list", where=where)
    return list_of(value, key, where)
