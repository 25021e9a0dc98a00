"""What has to be read of a model that differs from another: small texts, and headers of GGUFs."""

from __future__ import annotations

import hashlib

from modelpack.documents.difference_facts import (
    GGUFS,
    TEXTS,
    Facts,
    facts_of_image,
    facts_of_recipe,
    facts_of_show,
    part_of,
    parts_of,
)
from modelpack.documents.difference_gguf import Header
from modelpack.documents.gguf import read_gguf
from modelpack.documents.image import Image
from modelpack.errors import ModelpackError
from modelpack.hands.hashing import read_small
from modelpack.stores import Source
from modelpack.verbs.diff_sides import Known
from modelpack.words.blob import MIB, SMALL, Blob
from modelpack.words.digest import Digest
from modelpack.words.reader import Reader

_KEPT = 64 * MIB
"""Bytes of a header that are kept to hash its arrays; real ones take up to 16 MiB."""


def facts_of(known: Known, other: Known) -> tuple[Facts, tuple[str, ...]]:
    """The model *known* in its parts, and sentences on what of it could not be read.

    Nothing is read that *other* has as well, by digest.
    """
    if known.shown is not None:
        return facts_of_show(known.shown), ()
    assert known.model is not None  # noqa: S101 - one of the two is known
    assert known.source is not None  # noqa: S101 - it comes with a model
    document = known.model.document
    there = _digests(other)
    headers: dict[object, Header] = {}
    unread: list[str] = []
    for blob in _ggufs(known):
        if blob.digest in there:
            continue
        found = _header(known.source, blob)
        if isinstance(found, Header):
            headers[blob.id] = found
        else:
            unread.append(f"the inside of its {part_of(blob)} {blob}: {found.what}")
    if not isinstance(document, Image):
        return facts_of_recipe(document, headers), tuple(unread)
    texts: dict[Digest | None, bytes | str] = {}
    others = other.model.document if other.model is not None else None
    theirs = parts_of(others) if isinstance(others, Image) else {}
    for part, blobs in parts_of(document).items():
        same = [blob.digest for blob in blobs] == [blob.digest for blob in theirs.get(part, ())]
        if part in TEXTS and not same:
            texts |= {blob.digest: _text(known.source, blob) for blob in blobs}
    return facts_of_image(document, texts, headers), tuple(unread)


def _digests(known: Known) -> set[Digest | None]:
    if known.model is not None:
        return {blob.digest for blob in known.model.blobs}
    return {file.digest for file in facts_of_show(known.shown).files} if known.shown is not None else set()


def _ggufs(known: Known) -> list[Blob]:
    assert known.model is not None  # noqa: S101 - asked by whoever has one
    document = known.model.document
    if isinstance(document, Image):
        return [blob for blob in document.blobs if part_of(blob) in GGUFS]
    return [file for file in document.files if (file.title or "").lower().endswith(".gguf")]


def _text(source: Source, blob: Blob) -> bytes | str:
    """The bytes of *blob*, or why there are none."""
    if blob.size > SMALL:
        return f"{blob} has {blob.size} bytes; no real one has"
    try:
        with source.open(blob) as reader:
            return read_small(reader, blob)
    except ModelpackError as error:
        return f"{blob} cannot be read: {error.what}"


def _header(source: Source, blob: Blob) -> Header | ModelpackError:
    try:
        with source.open(blob) as reader:
            kept = _Keeping(reader)
            return Header.of(read_gguf(kept, blob.size), kept.hash)
    except ModelpackError as error:
        return error


class _Keeping:
    """*reader*, and the first bytes that came of it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._kept = bytearray()

    def readinto(self, into: memoryview, /) -> int:
        count = self._reader.readinto(into)
        self._kept += into[: min(count, _KEPT - len(self._kept))]
        return count

    def hash(self, start: int, end: int) -> Digest | None:
        """The SHA-256 of those bytes; None where not all of them were kept."""
        if end > len(self._kept):
            return None
        with memoryview(self._kept) as view:
            return Digest("sha256", hashlib.sha256(view[start:end]).hexdigest())
