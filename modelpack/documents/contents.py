"""A bundle read: what its documents say, each of them bounded and checked before it is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelpack.documents.expects import FILE_NAME, NOTHING, Expects
from modelpack.documents.extras import attachments_of
from modelpack.documents.gojson import list_of, parse_object, size_of, text_of
from modelpack.documents.image import Image
from modelpack.documents.model import Model, blobs_of
from modelpack.documents.oci import (
    ALL_DOCUMENTS,
    DELTA,
    FORMAT,
    IMAGE_TYPE,
    KNOWN_NEEDS,
    MODEL_TYPE,
    NOTE_BLAKE3,
    NOTE_EXPECTS,
    NOTE_FORMAT,
    NOTE_NEEDS,
    NOTE_REF_NAME,
    NOTE_SHARDS,
    NOTE_TITLE,
    OCI_MANIFEST,
    RECIPE_TYPE,
    blob_path,
)
from modelpack.documents.recipe import Recipe
from modelpack.documents.sums import MOST_SUMS, parse_sums, sums_say
from modelpack.errors import Corrupt, NotFound, Unexpected, Unsupported, Usage
from modelpack.words.blob import SMALL, Blob
from modelpack.words.digest import ZERO_BLAKE3, Digest
from modelpack.words.name import Name

Read = Callable[[str, int], bytes]
"""`read(path, most)`: the document at *path*, at most *most* bytes; NotFound where there is none."""


@dataclass(frozen=True)
class Entry:
    """A line of an index: the manifest of a model of ours."""

    name: Name
    digest: Digest
    size: int
    raw: dict[str, Any]


@dataclass(frozen=True)
class Index:
    """An index.json: our entries, and what other tools put there; `expects` is that of expects.json."""

    raw: bytes
    entries: tuple[Entry, ...]
    foreign: tuple[dict[str, Any], ...]
    expects: Digest | None = None


@dataclass(frozen=True)
class Contents:
    """What a bundle's documents say. `sums` are the lines of SHA256SUMS, None where a tool dropped it.

    `delta` is what they say of blobs that the bundle does not hold, since the target has them.
    """

    index: Index
    models: tuple[Model, ...]
    sums: Mapping[str, Digest] | None = None
    documents: Mapping[str, bytes] = field(default_factory=dict)
    delta: Expects = NOTHING

    @property
    def expects(self) -> frozenset[Digest]:
        """The blobs that the bundle does not hold and expects at the target."""
        return self.delta.digests

    @property
    def attachments(self) -> tuple[tuple[str, Digest], ...]:
        """Names and digests of the files that were attached, as its sums list them."""
        return attachments_of(self.sums)

    @property
    def fingerprint(self) -> Digest:
        """SHA-256 of index.json."""
        return Digest.of(self.index.raw)


def expected(index: bytes, expect: Digest | None, where: object) -> None:
    """Raise Unexpected where the fingerprint of *index* is not *expect*."""
    if expect is not None and Digest.of(index) != expect:
        raise Unexpected(
            f"is not the bundle that was expected: its fingerprint is {Digest.of(index)}, not {expect}",
            where=where,
            advice="Do not load it; ask where it came from.",
        )


def parse_index(raw: bytes, where: object) -> Index:
    """Read an index.json; Unsupported where it is of a newer format or needs what this modelpack has not."""
    here = f"{where}: index.json"
    value = parse_object(raw, here)
    notes = _notes(value, here)
    form = notes.get(NOTE_FORMAT)
    if form not in (None, FORMAT):
        raise Unsupported(
            f"is a bundle of format {form[:20]!r}", where=here, advice="A newer modelpack reads it."
        )
    needs = {need.strip() for need in notes.get(NOTE_NEEDS, "").split(",")} - {""}
    if unknown := sorted(needs - KNOWN_NEEDS):
        raise Unsupported(
            f"asks for a reader that knows {', '.join(unknown)[:200]!r}",
            where=here,
            advice="A newer modelpack reads it.",
        )
    expects = Digest.parse(notes.get(NOTE_EXPECTS), here) if DELTA in needs else None
    entries: list[Entry] = []
    foreign: list[dict[str, Any]] = []
    seen: set[str] = set()
    for item in list_of(value, "manifests", here, most=10_000):
        name = _notes(item, here).get(NOTE_REF_NAME)
        # skopeo drops artifactType from the index (it stays in the manifest): a name alone makes a candidate.
        ours = item.get("artifactType", MODEL_TYPE) == MODEL_TYPE
        if item.get("mediaType") != OCI_MANIFEST or not ours or name is None:
            foreign.append(item)
            continue
        try:
            parsed = Name.parse(name)
        except Usage as error:
            if form is None:
                foreign.append(item)
                continue
            raise Corrupt(error.what, where=here) from None
        if parsed.folded in seen:
            raise Corrupt(f"names {parsed} twice", where=here)
        seen.add(parsed.folded)
        entries.append(Entry(parsed, Digest.parse(item.get("digest"), here), size_of(item, here), item))
    return Index(raw, tuple(entries), tuple(foreign), expects)


def parse_manifest(raw: bytes, where: object) -> tuple[Blob, tuple[Blob, ...]] | None:
    """Read an OCI manifest: the document's descriptor, and the blobs with what is noted of them.

    None where it is another tool's image; Unsupported where a newer modelpack wrote it.
    """
    value = parse_object(raw, where)
    if value.get("artifactType") != MODEL_TYPE:
        return None
    config = value.get("config")
    if not isinstance(config, dict):
        raise Corrupt("has no config", where=where)
    layers = [_described(layer, where) for layer in list_of(value, "layers", where)]
    if len({layer.digest for layer in layers}) != len(layers):
        raise Corrupt("lists a blob twice", where=where)
    document = _described(config, where)
    if document.media_type not in (IMAGE_TYPE, RECIPE_TYPE):
        raise Unsupported(
            f"holds a document of type {document.media_type[:100]!r}",
            where=where,
            advice="A newer modelpack may know it.",
        )
    return document, tuple(layers)


def read_contents(read: Read, where: object, expect: Digest | None = None) -> Contents:
    """What the bundle says whose documents *read* gives, every one of them checked.

    Where the fingerprint is not *expect*, Unexpected, before anything is parsed. Corrupt where documents are
    damaged or contradict each other.
    """
    raw = read("index.json", SMALL)
    expected(raw, expect, where)
    sums = read_sums(read, raw, where)
    index = parse_index(raw, where)
    delta = _read_expects(read, index.expects, where) if index.expects is not None else NOTHING
    documents: dict[str, bytes] = {}
    models: list[Model] = []
    foreign = list(index.foreign)
    entries: list[Entry] = []
    for entry in index.entries:
        place = f"{where}: manifest of {entry.name}"
        found = parse_manifest(_checked(read, entry.digest, entry.size, where, documents), place)
        if found is None:
            foreign.append(entry.raw)
            continue
        described, layers = found
        document = _checked(read, described.digest, described.size, where, documents)
        models.append(Model(entry.name, _document(described, document, layers, place)))
        entries.append(entry)
    if delta.only(blobs_of(models)) != delta:
        raise Corrupt(f"{FILE_NAME} expects blobs that no model of the bundle names", where=where)
    index = Index(raw, tuple(entries), tuple(foreign), index.expects)
    return Contents(index, tuple(models), sums, documents, delta)


def _read_expects(read: Read, digest: Digest, where: object) -> Expects:
    """The expects.json that index.json means by *digest*: a pack that was killed may have left it as .new."""
    there = False
    for path in (FILE_NAME, f"{FILE_NAME}.new"):
        try:
            raw = read(path, SMALL)
        except NotFound:
            continue
        there = True
        if Digest.of(raw) == digest:
            return Expects.parse(raw, f"{where}: {path}")
    raise Corrupt(
        f"{FILE_NAME} is {'damaged' if there else 'missing'}: what the bundle expects at the target is not "
        "known",
        where=where,
        advice="Copy the bundle again, or use another copy.",
    )


def read_sums(read: Read, index: bytes, where: object) -> Mapping[str, Digest] | None:
    """The sums that cover *index*; None where there are none; Corrupt where they cover another one.

    A pack that was killed between two renames left SHA256SUMS.new beside the new index: those that fit count.
    """
    there = False
    for path in ("SHA256SUMS", "SHA256SUMS.new"):
        try:
            found = parse_sums(read(path, MOST_SUMS), f"{where}: {path}")
        except NotFound:
            continue
        there = True
        if sums_say(found, "index.json") == Digest.of(index):
            return found
    if not there:
        return None
    raise Corrupt(
        "index.json is not the one that SHA256SUMS covers: one of the two is damaged",
        where=where,
        advice="Copy the bundle again, or use another copy.",
    )


def _checked(
    read: Read, digest: Digest | None, size: int, where: object, documents: dict[str, bytes]
) -> bytes:
    path = blob_path(digest)
    if path in documents and len(documents[path]) == size:
        return documents[path]
    if size > SMALL or sum(map(len, documents.values())) + size > ALL_DOCUMENTS:
        raise Corrupt(f"the document {digest} is said to have {size} bytes; no real one has", where=where)
    raw = read(path, size)
    if len(raw) != size or Digest.of(raw) != digest:
        raise Corrupt(
            f"the document {digest} is damaged",
            where=where,
            advice="Copy the bundle again, or use another copy.",
        )
    documents[path] = raw
    return raw


def _document(described: Blob, raw: bytes, layers: Sequence[Blob], where: object) -> Image | Recipe:
    document: Image | Recipe
    if described.media_type == RECIPE_TYPE:
        document = Recipe.parse(raw, layers, where)
    else:
        document = Image.parse(raw, where)
    known: dict[object, Blob] = {layer.digest: layer for layer in layers}
    for blob in document.blobs:
        listed = known.get(blob.digest)
        if listed is None or listed.size != blob.size:
            raise Corrupt(f"does not list {blob} as the model's own document does", where=where)
    if len(known) != len(document.blobs):
        raise Corrupt("lists blobs that the model's own document does not name", where=where)
    return document.settled(known)


def _described(value: dict[str, Any], where: object) -> Blob:
    notes = _notes(value, where)
    digest = Digest.parse(value.get("digest"), where)
    if digest.algorithm != "sha256" or "urls" in value:
        raise Unsupported("names a blob by another hash, or in another place", where=where)
    blake3 = notes.get(NOTE_BLAKE3)
    if blake3 == ZERO_BLAKE3.hex:  # stands where nobody knew
        blake3 = None
    return Blob(
        size_of(value, where),
        text_of(value, "mediaType", where),
        digest,
        Digest.parse(f"blake3:{blake3}", where) if blake3 is not None else None,
        notes.get(NOTE_TITLE),
        shards=tuple(Digest.parse(one, where) for one in notes.get(NOTE_SHARDS, "").split(",") if one),
    )


def _notes(value: dict[str, Any], where: object) -> dict[str, str]:
    notes = value.get("annotations") or {}
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise Corrupt("has annotations that are not texts", where=where)
    return notes
