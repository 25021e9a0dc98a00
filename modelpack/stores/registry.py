"""A registry: one model of it as a source, and a target that ends with the same bytes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from modelpack.documents.contents import read_contents
from modelpack.documents.gojson import canonical_json, list_of, parse_object
from modelpack.documents.image import Image
from modelpack.documents.model import Model, blobs_of
from modelpack.documents.oci import MODEL_TYPE, NOTE_FORMAT, NOTE_REF_NAME, blob_path, bundle
from modelpack.errors import NotFound, Refused, Taken, Unsupported
from modelpack.hands.registry import INDEXES, OCI_INDEX, OCI_MANIFEST, Manifest, Registry
from modelpack.hands.registry_blob import BlobReader
from modelpack.stores import Placed, Session
from modelpack.stores.registry_notes import exact_name
from modelpack.stores.registry_session import WAY, Pushing
from modelpack.words.blob import MANIFEST, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reference import Reference
from modelpack.words.report import Report, silent

_OLLAMA_LAYER = "application/vnd.ollama.image."
_STANDS_IN = re.compile(r"sha256-[0-9a-f]{64}", re.ASCII)


class RegistrySource:
    """The one model that *reference* names in the registry of *client*."""

    def __init__(self, client: Registry, reference: Reference) -> None:
        self.client = client
        self.reference = reference.model() if reference.repository else reference
        self._where = f"{client.base}/{reference.repository}"

    def models(self) -> Sequence[Model]:
        """That model; Unsupported, with what it is, where it is something else."""
        if not self.reference.repository:
            raise NotFound(
                "names a registry, not a model in it",
                where=self.reference,
                advice=f"Name one: {self.reference}/NAMESPACE/MODEL:TAG",
            )
        found = self.client.manifest(self.reference.repository, self.reference.which)
        return (self._read(found, exact_name(self.client, self.reference, found.digest)),)

    def open(self, blob: Blob, offset: int = 0) -> BlobReader:
        """The bytes of *blob* from *offset* on; connected again by a Range where the connection breaks."""
        if blob.digest is None:
            raise NotFound("has no blob without a digest", where=self._where)
        return self.client.open_blob(self.reference.repository, blob.digest, blob.size, offset)

    def afar(self) -> bool:
        """It is."""
        return True

    def _read(self, found: Manifest, name: Name) -> Model:
        where = f"{self.client.base}/{self.reference.repository}:{self.reference.which}"
        value = parse_object(found.raw, where)
        kind = value.get("mediaType") or found.media_type
        if kind in INDEXES or "manifests" in value:
            raise Unsupported(
                "is a list of manifests for several platforms, as container images have; no model",
                where=where,
            )
        if kind == OCI_MANIFEST:
            config = value.get("config")
            what = value.get("artifactType") or (
                config.get("mediaType") if isinstance(config, dict) else None
            )
            if value.get("artifactType") != MODEL_TYPE:
                raise Unsupported(f"is an artifact of type {str(what)[:100]!r}, not a model", where=where)
            return self._artifact(found, name, where)
        image = Image.parse(found.raw, where)
        strange = {
            layer.media_type for layer in image.layers if not layer.media_type.startswith(_OLLAMA_LAYER)
        }
        if strange:
            raise Unsupported(
                f"is no model of Ollama but something of {min(strange)[:100]!r}: a container image?",
                where=where,
            )
        return Model(name, image)

    def _artifact(self, found: Manifest, name: Name, where: str) -> Model:
        """A manifest as a bundle has it, read by the reader of bundles: the index is made up."""
        entry = {"mediaType": OCI_MANIFEST, "artifactType": MODEL_TYPE, "digest": str(found.digest),
                 "size": len(found.raw), "annotations": {NOTE_REF_NAME: name.full}}  # fmt: skip
        index = canonical_json(
            {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry],
             "annotations": {NOTE_FORMAT: "1"}}
        )  # fmt: skip
        known = {"index.json": index, blob_path(found.digest): found.raw}

        def read(path: str, most: int) -> bytes:
            folder, _, name = path.rpartition("/")
            if path in known or not folder:
                if path not in known:
                    raise NotFound(f"has no {path}", where=where)
                return known[path]
            return self.client.read_blob(self.reference.repository, Digest("sha256", name), most)

        return read_contents(read, where).models[0]


@dataclass(frozen=True)
class There:
    """What stands under a tag: how the tag is spelled there, and its manifest."""

    place: Reference
    manifest: Manifest


class RegistryTarget:
    """Models in the registry of *client*, each as Ollama's own manifest: the digest of its tag is its ID.

    *reference* is one model's place, or a namespace, or the registry alone: see `Reference.at`. With
    *replace*, a tag that stands for another manifest is given to the new one.
    """

    def __init__(self, client: Registry, reference: Reference, *, replace: bool = False) -> None:
        self.client, self.reference = client, reference
        self._replace = replace
        self._seen: dict[Digest, str] = {}

    def described(self) -> Mapping[str, str]:
        """As Described says."""
        return {"kind": "registry", "where": str(self.reference)}

    def afar(self) -> bool:
        """It is."""
        return True

    def apart(self) -> bool:
        """Each model has a tag of its own."""
        return True

    def missing(self, models: Sequence[Model]) -> Sequence[Blob]:
        """As Target says: blobs that none of the repositories has that want them."""
        self._places(models)
        for model in models:
            self.document(model)
            self.refuse_taken(model, self.find(model))
        return [blob for blob in blobs_of(models) if self.holder(blob, models) is None]

    def placed(self, models: Sequence[Model]) -> Sequence[Placed | None]:
        """As Settled says: a tag stands for this very manifest, and the repository has every blob."""
        return [self._placed(model) for model in models]

    def _placed(self, model: Model) -> Placed | None:
        there = self.find(model)
        if there is None or there.manifest.raw != self.document(model).raw:
            return None
        digests = {blob.digest: blob.size for blob in model.blobs}
        digests |= {Digest.of(raw): len(raw) for raw in self.papers(model)}
        if not all(self.has(there.place.repository, *one) for one in digests.items()):
            return None
        return self.as_placed(model, there.place)

    @contextlib.contextmanager
    def session(self, models: Sequence[Model], report: Report = silent) -> Iterator[Session]:
        """Write: each blob into one repository, from there into others that want it, then the manifests."""
        self._places(models)
        yield Pushing(self, models, report)

    # --- what a session needs

    def document(self, model: Model) -> Manifest:
        """The manifest of *model*, as it stands in the registry."""
        if not isinstance(model.document, Image):
            raise Unsupported(
                "is a recipe: a registry has no manifest of Ollama's for it",
                where=model.name,
                advice="Push it as an artifact, which modelpack reads: --as-artifact.",
            )
        return Manifest(model.document.raw, MANIFEST, model.document.id)

    def papers(self, _model: Model) -> Sequence[bytes]:
        """Documents that go as blobs with the model."""
        return ()

    def place(self, model: Model) -> Reference:
        """Where *model* goes."""
        there = self.reference.at(model.name)
        if there.digest is not None:
            raise Unsupported("a digest cannot be given to a model; name a tag", where=self.reference)
        return there

    def find(self, model: Model) -> There | None:
        """What is under the tag of *model*; tags that differ in case alone are one to Ollama."""
        place = self.place(model)
        with contextlib.suppress(NotFound):
            return There(place, self.client.manifest(place.repository, place.which))
        for tag in self.client.tags(place.repository):
            if tag.lower() == place.which.lower() and not _STANDS_IN.fullmatch(tag):
                there = replace(place, tag=tag)
                with contextlib.suppress(NotFound):
                    return There(there, self.client.manifest(place.repository, tag))
        return None

    def refuse_taken(self, model: Model, there: There | None) -> None:
        """Raise Taken where *there* is another manifest than that of *model*, unless it may be replaced."""
        if there is None or self._replace or there.manifest.raw == self.document(model).raw:
            return
        raise Taken(
            f"{there.place} stands there for another model ({there.manifest.digest.short}; "
            f"this one is {self.document(model).digest.short})",
            where=self.client.base,
            advice="Use --replace to give the tag to the new one, or --as NAME for another name.",
        )

    def has(self, repository: str, digest: Digest | None, size: int) -> bool:
        """Whether a blob is in *repository*, with its size as far as that is told."""
        if digest is None or self.client.blob_size(repository, digest) not in (size, -1):
            return False
        self._seen.setdefault(digest, repository)
        return True

    def holder(self, blob: Blob, models: Sequence[Model]) -> str | None:
        """A repository that has *blob*: of those of *models* that want it, or where it was seen before."""
        wanting = [self.place(one).repository for one in models if blob.id in {each.id for each in one.blobs}]
        seen = self._seen.get(blob.digest) if blob.digest is not None else None
        wanting += [seen] if seen is not None else []
        there = (one for one in dict.fromkeys(wanting) if self.has(one, blob.digest, blob.size))
        return next(there, None)

    def as_placed(self, model: Model, place: Reference, note: str = "") -> Placed:
        """*model* as it is there now."""
        document = self.document(model)
        name = exact_name(self.client, place, document.digest)
        return Placed(name, document.digest, True, WAY, note)

    def _places(self, models: Sequence[Model]) -> None:
        """Raise Refused where two of *models* would go to one place."""
        seen: dict[tuple[str, str], Name] = {}
        for model in models:
            place = self.place(model)
            other = seen.setdefault((place.repository, place.which.lower()), model.name)
            if other != model.name:
                raise Refused(
                    f"{other} and {model.name} would both become {place}",
                    where=self.client.base,
                    advice="Push them one at a time, to places or under names (--as) of their own.",
                )


class ArtifactTarget(RegistryTarget):
    """The same, each model as the OCI artifact that a bundle has of it: recipes, too. Ollama reads none."""

    def document(self, model: Model) -> Manifest:
        """As a bundle has it, bit for bit."""
        made = bundle([model])
        entry = list_of(parse_object(made.index, self.reference), "manifests", self.reference)[0]
        raw = made.document(blob_path(Digest.parse(entry["digest"])))
        return Manifest(raw, OCI_MANIFEST, Digest.of(raw))

    def papers(self, _model: Model) -> Sequence[bytes]:
        """Its own document is a blob here."""
        return (_model.document.raw,)

    def as_placed(self, model: Model, place: Reference, note: str = "") -> Placed:
        """As RegistryTarget says; the ID is the model's own."""
        return replace(super().as_placed(model, place, note), id=model.document.id)

    def takes_unread(self, models: Sequence[Model]) -> bool:
        """The manifest holds both hashes of every blob."""
        return not any(blob.digest is None or blob.blake3 is None for blob in blobs_of(models))
