"""`STEM.volumes.json`: how a bundle's tar was cut into volumes, and what every block of them hashes to.

One line of JSON, sorted; the same for the same bundle, size and stem on any day, and beside every copy of the
volumes. The set's id is its SHA-256.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelpack.documents import strict
from modelpack.documents.extras import is_attached
from modelpack.documents.gojson import canonical_json, parse_object, text_of
from modelpack.documents.layout import Layout
from modelpack.documents.model import Model
from modelpack.documents.sums import format_sums
from modelpack.errors import Corrupt, Refused, Unsupported, Usage
from modelpack.words.blob import KIB, MIB, SMALL, Blob
from modelpack.words.digest import Digest
from modelpack.words.filename import is_portable, labelled
from modelpack.words.text import parse_size
from modelpack.words.volume import BLOCK_SIZE, MOST_VOLUMES, Volume, volume_name

__all__ = [
    "BLOCK_SIZE", "DESCRIPTOR", "DOCUMENTS", "FORMAT", "PRESETS", "SUMS", "Content", "Descriptor", "Volume",
    "check_stem", "contents_of", "default_stem", "set_of", "stem_of", "sums_of", "volume_size",
]  # fmt: skip

FORMAT = "modelpack-volumes/1"
DESCRIPTOR = ".volumes.json"
SUMS = ".sha256"
PRESETS = {"fat32": 4278190080, "dvd": 2348810240, "dvd-dl": 4261412864, "bd25": 4026531840}
"""Bytes of a volume by medium, whole blocks: one file on FAT32; two fill a DVD, or one of two layers; six
fill a BD of 25 GB, also where that is formatted."""
DOCUMENTS = "documents"
"""What the first bytes of the tar are called among the contents; every model needs them."""

_LONGEST_STEM = 40
_STEM = re.compile(r"[a-z0-9_][a-z0-9._-]{0,39}", re.ASCII)
_NOT_STEM = re.compile(r"[^a-z0-9._-]+", re.ASCII)
_VOLUME = re.compile(r"(.{1,40})\.tar\.\d{3}", re.ASCII)
_FAMILY = re.compile(r"modelpack-volumes/\d{1,9}", re.ASCII)
_BLAKE3 = 32  # bytes
_NAME = 1000  # characters of a content's name
_MOST_CONTENTS = 10_000
_LEAST_BLOCK = 4 * KIB  # what is kept of a file in memory grows as its blocks get smaller
_MOST_BYTES = 1 << 62


def volume_size(text: str) -> int:
    """Bytes of a volume: a preset, or a size (`4GiB`, `700MB`) rounded down to whole blocks; raises Usage."""
    if text.lower() in PRESETS:
        return PRESETS[text.lower()]
    try:
        found = parse_size(text) // BLOCK_SIZE * BLOCK_SIZE
    except Usage as error:
        raise Usage(
            f"{text!r} is no size of a volume",
            advice=f"Write {', '.join(PRESETS)}, or a size as 4GiB or 700MB.",
        ) from error
    if not found:
        raise Usage(f"{text!r} is too small for a volume", advice=f"The least is {BLOCK_SIZE // MIB}MiB.")
    return found


def check_stem(text: str) -> str:
    """*text*, where it can be the stem of a set's file names; raises Usage."""
    if not _STEM.fullmatch(text) or not is_portable(text):
        raise Usage(
            f"{text[:100]!r} cannot be the stem of a set's files",
            advice=f"Use up to {_LONGEST_STEM} of a-z, 0-9, '.', '_' and '-', and no device's name.",
        )
    return text


def default_stem(models: Sequence[Model]) -> str:
    """The stem for a set of *models*: after the first of them."""
    more = f"-and-{len(models) - 1}-more" if len(models) > 1 else ""
    text = _NOT_STEM.sub("-", labelled(models[0].name).lower()) if models else ""
    text = text[: _LONGEST_STEM - len(more)].strip(".-") + more
    return text if _STEM.fullmatch(text) and is_portable(text) else f"models{more}"


def stem_of(name: str) -> str | None:
    """The stem of the set whose descriptor is called *name*; None where that is no descriptor's name."""
    stem = name.removesuffix(DESCRIPTOR)
    return stem if stem != name and _STEM.fullmatch(stem) else None


def set_of(name: str) -> str | None:
    """The stem of the set that a file called *name* is of, its descriptor or a volume; None for others."""
    found = _VOLUME.fullmatch(name)
    return stem_of(f"{found[1]}{DESCRIPTOR}") if found else stem_of(name)


@dataclass(frozen=True, slots=True)
class Content:
    """`size` bytes from `offset` of the tar on that belong to what is called `name`: a model, mostly."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Descriptor:
    """A set: `size` bytes of tar, cut every `volume_size`. `bundle` is the SHA-256 of its index.json."""

    stem: str
    bundle: Digest
    size: int
    volume_size: int
    contents: tuple[Content, ...]
    volumes: tuple[Volume, ...]
    block_size: int = BLOCK_SIZE

    @property
    def name(self) -> str:
        """How its file is called."""
        return self.stem + DESCRIPTOR

    @property
    def id(self) -> Digest:
        """The set's id: SHA-256 of the file."""
        return Digest.of(self.raw())

    def raw(self) -> bytes:
        """The file; Refused where no reader would take it."""
        raw = canonical_json(
            {
                "format": FORMAT, "name": self.stem, "bundle": str(self.bundle), "size": self.size,
                "volume_size": self.volume_size, "block_size": self.block_size, "block_hash": "blake3",
                "contents": [
                    {"name": one.name, "offset": one.offset, "size": one.size} for one in self.contents
                ],
                "volumes": [
                    {
                        "n": one.n, "name": one.name, "offset": one.offset, "size": one.size,
                        "sha256": str(one.sha256),
                        "blocks": base64.b64encode(b"".join(one.blocks)).decode("ascii"),
                    }
                    for one in self.volumes
                ],
            }
        )  # fmt: skip
        if len(raw) > SMALL:
            raise Refused("the bundle is too large for one set of volumes", advice="Pack fewer models.")
        return raw

    @classmethod
    def parse(cls, raw: bytes, where: object) -> Descriptor:
        """Read the file, 4 MiB at most; Corrupt, or Unsupported where a newer modelpack wrote it.

        Taken is the one spelling that `raw` gives: volumes in order, without gap or overlap.
        """
        value = parse_object(raw, where)
        form = text_of(value, "format", where)
        if form != FORMAT and _FAMILY.fullmatch(form):
            raise Unsupported(f"is of the format {form}", where=where, advice="A newer modelpack reads it.")
        if form != FORMAT:
            raise Corrupt("does not describe volumes", where=where)
        keys = {"format", "name", "bundle", "size", "volume_size", "block_size", "block_hash"}
        strict.only(value, keys | {"contents", "volumes"}, where)
        strict.one_of(value, "block_hash", ("blake3",), where)
        stem = text_of(value, "name", where)
        if not _STEM.fullmatch(stem) or not is_portable(stem):
            raise Corrupt(f"{stem[:100]!r} cannot be the name of a set", where=where)
        size, most = _count(value, "size", where), _count(value, "volume_size", where)
        block = _count(value, "block_size", where, least=_LEAST_BLOCK, most=BLOCK_SIZE)
        if most % block:
            raise Corrupt("its volumes are not whole blocks", where=where)
        listed = strict.objects(value, "volumes", where)
        if len(listed) > MOST_VOLUMES or len(listed) != -(-size // most):
            raise Corrupt("does not have as many volumes as its size asks for", where=where)
        volumes = [
            _volume(one, (stem, n, (n - 1) * most, min(most, size - (n - 1) * most)), block, where)
            for n, one in enumerate(listed, start=1)
        ]
        named = strict.objects(value, "contents", where)
        if len(named) > _MOST_CONTENTS:
            raise Corrupt(f"has more than {_MOST_CONTENTS} contents", where=where)
        contents = [_content(one, size, where) for one in named]
        bundle = strict.digest(value, "bundle", where)
        found = cls(stem, bundle, size, most, tuple(contents), tuple(volumes), block)
        if found.raw() != raw:
            raise Corrupt("is not spelled as modelpack writes it: somebody changed it", where=where)
        return found

    def touched(self, offset: int, length: int) -> tuple[Content, ...]:
        """The contents that have some of the *length* bytes at *offset* of the tar."""
        end = offset + length
        return tuple(one for one in self.contents if one.offset < end and offset < one.offset + one.size)


def _count(value: dict[str, Any], key: str, where: object, *, least: int = 1, most: int = _MOST_BYTES) -> int:
    found = value.get(key)
    if type(found) is not int or not least <= found <= most:
        raise Corrupt(f"its {key!r} is not a count that can be", where=where)
    return found


def _volume(value: dict[str, Any], due: tuple[str, int, int, int], block: int, where: object) -> Volume:
    """The volume that is *due*: (stem, number, offset, size), all of which follow from the set's own size."""
    stem, n, offset, size = due
    strict.only(value, {"n", "name", "offset", "size", "sha256", "blocks"}, where)
    said = (_count(value, "n", where), value["name"])
    if said != (n, volume_name(stem, n)):
        raise Corrupt(f"its volume {n} has another number or name", where=where)
    if (_count(value, "offset", where, least=0), _count(value, "size", where)) != (offset, size):
        raise Corrupt(f"its volume {n} leaves a gap, or overlaps with another", where=where)
    text, count = text_of(value, "blocks", where), -(-size // block)
    if len(text) != -(-count * _BLAKE3 // 3) * 4:
        raise Corrupt(f"its volume {n} does not have {count} blocks", where=where)
    try:
        hashes = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Corrupt(f"the hashes of its volume {n} are not base64", where=where) from None
    blocks = tuple(hashes[at : at + _BLAKE3] for at in range(0, len(hashes), _BLAKE3))
    return Volume(n, said[1], offset, size, strict.digest(value, "sha256", where), blocks)


def _content(value: dict[str, Any], size: int, where: object) -> Content:
    strict.only(value, {"name", "offset", "size"}, where)
    name = text_of(value, "name", where)
    offset, length = _count(value, "offset", where, least=0), _count(value, "size", where, least=0)
    if not name or len(name) > _NAME or offset + length > size:
        raise Corrupt("has a content that is not in it", where=where)
    return Content(name, offset, length)


def contents_of(models: Sequence[Model], layout: Layout) -> tuple[Content, ...]:
    """Where in the tar of *layout* the bytes lie that each of *models* needs; neighbours are one content.

    Documents and attachments are contents, too. Nothing here depends on a digest.
    """
    pieces = [one for one in layout.pieces if isinstance(one.content, Blob)]
    first = min((one.offset for one in pieces), default=layout.size)
    found = [Content(DOCUMENTS, 0, first)]
    for model in models:
        wanted = {blob.id for blob in model.blobs}
        begin: int | None = None
        end = 0
        for piece in pieces:
            needed = isinstance(piece.content, Blob) and piece.content.id in wanted
            if needed and not is_attached(piece.path):
                begin, end = piece.offset if begin is None else begin, piece.offset + piece.length
            elif begin is not None:
                found.append(Content(str(model.name), begin, end - begin))
                begin = None
        if begin is not None:
            found.append(Content(str(model.name), begin, end - begin))
    found += [Content(one.path, one.offset, one.length) for one in pieces if is_attached(one.path)]
    return tuple(found)


def sums_of(descriptor: Descriptor, files: Mapping[str, Digest]) -> bytes:
    """STEM.sha256: the volumes, the descriptor and the other *files* of the set, for `sha256sum -c`."""
    lines = [(one.sha256, one.name) for one in descriptor.volumes]
    lines += [(descriptor.id, descriptor.name), *((digest, name) for name, digest in files.items())]
    return format_sums(lines)
