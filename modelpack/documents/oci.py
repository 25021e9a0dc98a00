"""A bundle's documents: an OCI image layout with one manifest per model, and the sums that cover them.

Which files a bundle has and what stands in them; where they lie in a tar is `layout`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelpack.documents.expects import FILE_NAME, NOTHING, Expects
from modelpack.documents.extras import NONE, README, SCRIPT, Extras
from modelpack.documents.gojson import canonical_json
from modelpack.documents.image import Image
from modelpack.documents.model import Model, blobs_of
from modelpack.documents.readme import readme
from modelpack.documents.sums import format_sums
from modelpack.errors import Refused
from modelpack.words.blob import MIB, SMALL, Blob
from modelpack.words.digest import ZERO, ZERO_BLAKE3, Digest
from modelpack.words.name import Name

FORMAT = "1"
DELTA = "delta"
"""The need of a bundle that expects blobs at the target: it does not hold all that its models name."""
KNOWN_NEEDS: frozenset[str] = frozenset({DELTA})
MOST_MEMBERS = 90_000
"""The most blobs and documents in a bundle; readers of tars stop at 100,000 headers."""
ALL_DOCUMENTS = 64 * MIB
"""The most that all documents of a bundle may have together, in bytes."""

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MODEL_TYPE = "application/vnd.ollama-modelpack.model.v1"
IMAGE_TYPE = "application/vnd.ollama-modelpack.image.v1+json"
RECIPE_TYPE = "application/vnd.ollama-modelpack.recipe.v1+json"
NOTE_REF_NAME = "org.opencontainers.image.ref.name"
NOTE_TITLE = "org.opencontainers.image.title"
NOTE_BLAKE3 = "dev.ollama-modelpack.blake3"
NOTE_SHARDS = "dev.ollama-modelpack.shards"
"""On a GGUF that was merged: the SHA-256s of its shards, in order, with commas between."""
NOTE_FORMAT = "dev.ollama-modelpack.format"
NOTE_NEEDS = "dev.ollama-modelpack.needs"
NOTE_EXPECTS = "dev.ollama-modelpack.expects"
"""On the index of a delta: the SHA-256 of its expects.json, so that the fingerprint covers that, too."""

LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'


def blob_path(digest: Digest | None) -> str:
    """Where a blob lies in an OCI layout."""
    return f"blobs/sha256/{(digest or ZERO).hex}"


@dataclass(frozen=True)
class Member:
    """One file of a bundle: a document's bytes, or the blob that goes there."""

    path: str
    content: bytes | Blob

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.content.size if isinstance(self.content, Blob) else len(self.content)


@dataclass(frozen=True)
class Bundle:
    """All files of a bundle: documents, blobs in order of use, attachments; made by `bundle`."""

    index: bytes
    members: tuple[Member, ...]

    @property
    def fingerprint(self) -> Digest:
        """SHA-256 of index.json."""
        return Digest.of(self.index)

    def document(self, path: str) -> bytes:
        """The bytes of the document at *path*."""
        return next(
            one.content for one in self.members if one.path == path and isinstance(one.content, bytes)
        )


def bundle(
    models: Sequence[Model],
    foreign: Sequence[dict[str, Any]] = (),
    expects: Expects = NOTHING,
    extras: Extras = NONE,
) -> Bundle:
    """The files of a bundle of *models*, *foreign* index entries left as they are; *extras* travel along.

    Nothing in them depends on clock, user or host. Hashes that are not known yet stand as zeros: every length
    is final. The blobs of *models* that it *expects* at the target are no files of it. Raises Refused where
    two models have one name, or the documents are too large.
    """
    expects = expects.only(blobs_of(models))
    documents: dict[str, bytes] = {}
    entries: list[dict[str, Any]] = []
    names: set[str] = set()
    for model in models:
        if model.name.folded in names:
            raise Refused(f"two models have the name {model.name}; Ollama compares without case")
        names.add(model.name.folded)
        manifest = _manifest(model, expects)
        document = model.document
        # Manifests of zeros may look the same while their blobs are unread: those keep them apart.
        mark = "".join(f"?{blob.id}" for blob in model.blobs if blob.digest is None)
        documents[blob_path(Digest.of(manifest)) + mark] = manifest
        documents[blob_path(document.id) + mark] = document.raw
        entries.append(_entry(model.name, manifest))
    index = canonical_json(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*foreign, *entries],
         "annotations": {NOTE_FORMAT: FORMAT, **_needs(expects)}}
    )  # fmt: skip
    if sum(map(len, documents.values())) + len(index) > ALL_DOCUMENTS or len(index) > SMALL:
        raise Refused("the documents of so many models are too large for one bundle", advice="Pack fewer.")
    for raw in documents.values():
        if len(raw) > SMALL:
            raise Refused("a model's document is larger than 4 MiB: no reader of bundles takes it")
    if len(expects.raw()) > SMALL:
        raise Refused("so many blobs are too many to expect at the target", advice="Pack fewer models.")
    blobs = [Member(blob_path(blob.digest), blob) for blob in blobs_of(models) if blob not in expects]
    for both in documents.keys() & {blob.path for blob in blobs}:
        raise Refused(f"{both} is a blob of one model and a document of another", advice="Pack them apart.")
    attached = [Member(one.path, one.blob) for one in extras.attachments]
    if len(blobs) + len(documents) + len(attached) > MOST_MEMBERS:
        raise Refused(f"{len(blobs)} blobs are too many for one bundle", advice="Pack fewer.")
    covered = [
        Member("oci-layout", LAYOUT_FILE), Member("index.json", index),
        *([Member(FILE_NAME, expects.raw())] if expects else []),
        Member(README, extras.readme if extras.readme is not None else _readme(models, expects, extras)),
        *([Member(SCRIPT, extras.script)] if extras.script is not None else []),
        *(Member(path.partition("?")[0], raw) for path, raw in documents.items()),
    ]  # fmt: skip
    blobs += attached
    sums = format_sums([(_digest(one), one.path) for one in (*covered, *blobs)])
    return Bundle(index, (*covered[:2], Member("SHA256SUMS", sums), *covered[2:], *blobs))


def _readme(models: Sequence[Model], expects: Expects, extras: Extras) -> bytes:
    return readme(
        models,
        script=Digest.of(extras.script) if extras.script is not None else None,
        attachments=[one.name for one in extras.attachments],
        expects=expects,
    )


def _needs(expects: Expects) -> dict[str, str]:
    if not expects:
        return {NOTE_NEEDS: ""}
    return {NOTE_NEEDS: DELTA, NOTE_EXPECTS: str(Digest.of(expects.raw()))}


def _digest(member: Member) -> Digest:
    if isinstance(member.content, Blob):
        return member.content.digest or ZERO
    return Digest.of(member.content)


def _manifest(model: Model, expects: Expects) -> bytes:
    document = model.document
    kind = IMAGE_TYPE if isinstance(document, Image) else RECIPE_TYPE
    layers = []
    for blob in model.blobs:
        # Of what does not come along nobody here has seen the bytes: a BLAKE3 of it would be hearsay.
        notes = {NOTE_BLAKE3: ((blob not in expects and blob.blake3) or ZERO_BLAKE3).hex}
        if blob.title is not None:
            notes[NOTE_TITLE] = blob.title
        if blob.shards:
            notes[NOTE_SHARDS] = ",".join(str(shard or ZERO) for shard in blob.shards)
        layers.append(
            {"mediaType": blob.media_type, "digest": str(blob.digest or ZERO), "size": blob.size,
             "annotations": notes}
        )  # fmt: skip
    return canonical_json(
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": MODEL_TYPE, "layers": layers,
         "config": {"mediaType": kind, "digest": str(document.id), "size": len(document.raw)}}
    )  # fmt: skip


def _entry(name: Name, manifest: bytes) -> dict[str, Any]:
    return {
        "mediaType": OCI_MANIFEST, "artifactType": MODEL_TYPE, "digest": str(Digest.of(manifest)),
        "size": len(manifest), "annotations": {NOTE_REF_NAME: name.full},
    }  # fmt: skip
