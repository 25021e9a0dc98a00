"""A session of `registry`: blobs, each into one repository and from there into others; then manifests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from modelpack.documents.model import Model
from modelpack.errors import NotFound, Unsupported
from modelpack.hands.kept import Opened
from modelpack.stores import Placed
from modelpack.stores.registry_notes import keep_name
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.reader import BytesReader, Reader
from modelpack.words.report import Moved, Report

if TYPE_CHECKING:
    from modelpack.stores.registry import RegistryTarget

WAY = "registry"


class Pushing:
    """Uploads, then one manifest a model. Left early, no tag was given."""

    def __init__(self, target: RegistryTarget, models: Sequence[Model], report: Report) -> None:
        self._target, self._models, self._report = target, models, report
        self._put: dict[Digest, str] = {}

    def put(self, blob: Blob, data: Reader) -> Blob:
        """As Session says; Refused with status 400 is the registry's word that large bytes hash otherwise."""
        return self._take(blob, data)

    def put_on(self, blob: Blob, opened: Opened) -> Blob:
        """As Continues says: where the connection breaks, in this run."""
        return self._take(blob, opened)

    def _take(self, blob: Blob, data: Opened | Reader) -> Blob:
        target = self._target
        if blob.digest is None:
            raise Unsupported(f"{blob} has to be hashed before it is pushed", where=target.client.base)
        wanting = next((one for one in self._models if _names(one, blob.digest)), self._models[0])
        repository = target.place(wanting).repository
        target.client.upload_blob(
            repository, blob.digest, blob.size, data, lambda count: self._report(Moved(count))
        )
        self._put[blob.digest] = repository
        return blob

    def commit(self, model: Model) -> Placed:
        """As Session says."""
        target = self._target
        there = target.find(model)
        target.refuse_taken(model, there)
        place = there.place if there is not None else target.place(model)
        own = target.document(model)
        for blob in model.blobs:
            self._bring(blob, place.repository)
        for raw in target.papers(model):
            if not target.has(place.repository, Digest.of(raw), len(raw)):
                target.client.upload_blob(place.repository, Digest.of(raw), len(raw), BytesReader(raw))
        note = ""
        if there is None or there.manifest.raw != own.raw:
            note = keep_name(target.client, place, own, model.name)
            target.client.put_manifest(place.repository, place.which, own.raw, own.media_type)
        return target.as_placed(model, place, note)

    def _bring(self, blob: Blob, repository: str) -> None:
        """See that *repository* has *blob*: put there, or to be had from a repository of this session."""
        target, client = self._target, self._target.client
        if blob.digest is None:
            raise NotFound(f"{blob} was not put", where=client.base)
        put = self._put.get(blob.digest)
        if put == repository or target.has(repository, blob.digest, blob.size):
            return
        source = put or target.holder(blob, self._models)
        if source is None:
            raise NotFound(f"has no {blob.kind} blob {blob}", where=f"{client.base}/{repository}")
        if not client.mount(repository, blob.digest, source):
            opened = partial(client.open_blob, source, blob.digest, blob.size)
            client.upload_blob(repository, blob.digest, blob.size, opened)


def _names(model: Model, digest: Digest) -> bool:
    return any(blob.digest == digest for blob in model.blobs)
