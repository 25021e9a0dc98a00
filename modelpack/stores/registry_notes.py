"""What a tag cannot say: the exact name of a model, kept beside it in the registry.

A manifest of its own refers to the model's by `subject`; nobody has to know of it, and the model's own bytes,
and so its ID, stay as they are. See docs/decisions on names in registries.
"""

from __future__ import annotations

from modelpack.documents.gojson import canonical_json
from modelpack.documents.oci import NOTE_REF_NAME
from modelpack.errors import Corrupt, NotFound, Refused, Unsupported, Usage
from modelpack.hands.registry import OCI_INDEX, OCI_MANIFEST, Manifest, Registry
from modelpack.hands.registry_wire import View
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reference import Reference

NAME_TYPE = "application/vnd.ollama-modelpack.name.v1"
NOTE_TAG = "dev.ollama-modelpack.tag"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_EMPTY = b"{}"


def exact_name(registry: Registry, place: Reference, digest: Digest) -> Name:
    """The name that was kept for the manifest *digest* at *place*; else what Ollama would call it."""
    try:
        notes = [one.get("annotations") for one in registry.referrers(place.repository, digest)
                 if one.get("artifactType") == NAME_TYPE]  # fmt: skip
    except (Corrupt, Refused):  # the model can do without
        notes = []
    for note in notes:
        if not isinstance(note, dict) or (place.tag is not None and note.get(NOTE_TAG) != place.tag):
            continue
        try:
            return Name.parse(str(note.get(NOTE_REF_NAME)))
        except Usage:
            continue
    return place.name()


def keep_name(registry: Registry, place: Reference, subject: Manifest, name: Name) -> str:
    """Keep *name* for *subject* under the tag of *place*; a sentence for the user where that cannot be."""
    if name == place.name() or exact_name(registry, place, subject.digest) == name:
        return ""
    try:
        _keep(registry, place, subject, name)
    except (Refused, NotFound, Unsupported, Corrupt):
        return f"The registry does not keep the exact name: it comes back as {place.name()}."
    return ""


def _keep(registry: Registry, place: Reference, subject: Manifest, name: Name) -> None:
    empty = {"mediaType": _EMPTY_TYPE, "digest": str(Digest.of(_EMPTY)), "size": len(_EMPTY)}
    notes = {NOTE_REF_NAME: name.full, NOTE_TAG: place.which}
    raw = canonical_json(
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": NAME_TYPE, "config": empty,
         "layers": [empty], "annotations": notes,
         "subject": {"mediaType": subject.media_type, "digest": str(subject.digest),
                     "size": len(subject.raw)}}
    )  # fmt: skip
    digest = Digest.of(raw)
    if registry.blob_size(place.repository, Digest.of(_EMPTY)) is None:
        registry.upload_blob(place.repository, Digest.of(_EMPTY), len(_EMPTY), View(_EMPTY))
    if registry.put_manifest(place.repository, str(digest), raw, OCI_MANIFEST):
        return
    # No referrers here: the index that stands for them, under the subject's digest as a tag.
    mine = {"mediaType": OCI_MANIFEST, "artifactType": NAME_TYPE, "digest": str(digest),
            "size": len(raw), "annotations": notes}  # fmt: skip
    others = [
        one
        for one in registry.referrers(place.repository, subject.digest)
        if one.get("artifactType") != NAME_TYPE or _tag(one) != place.which
    ]
    index = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*others, mine]})
    registry.put_manifest(place.repository, subject.digest.file_name, index, OCI_INDEX)


def _tag(descriptor: object) -> object:
    notes = descriptor.get("annotations") if isinstance(descriptor, dict) else None
    return notes.get(NOTE_TAG) if isinstance(notes, dict) else None
