"""A session of `server_create`: uploads, then one request a model."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

from modelpack.documents.create import files_named, texts_needed
from modelpack.documents.image import Image
from modelpack.documents.meaning import compare
from modelpack.documents.model import Model
from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unsupported
from modelpack.hands.answers import Listed
from modelpack.hands.ollama import Ollama
from modelpack.hands.ollama_upload import upload
from modelpack.stores import Placed
from modelpack.words.blob import MIB, SMALL, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import Reader, read_at_most
from modelpack.words.report import Moved, Report, Said

WAY = "create"
TEXTS_LIMIT = 64 * MIB
"""The most bytes of small blobs that are kept in memory for the requests of one session."""


class Maker(Protocol):
    """What a session needs of its target: the server, and what is known of models before they are put."""

    client: Ollama

    @property
    def rewrites(self) -> bool:
        """Whether the server keeps GGUFs in a form of its own."""
        ...

    def request_for(self, model: Model, texts: Mapping[Digest, bytes]) -> dict[str, Any]:
        """The body of the create request."""
        ...

    def texts(self, model: Model) -> dict[Digest, bytes] | None:
        """The small blobs of *model*, where they can be read before they are put."""
        ...

    def check_base(self, model: Model, listed: Collection[str]) -> None:
        """NotFound where *model* is made from one that is not *listed*."""
        ...

    def judge(
        self, model: Model, texts: Mapping[Digest, bytes] | None, listed: Mapping[str, Listed]
    ) -> Placed | None:
        """The model where it is there already; None where it may be made; raises Taken."""
        ...


class CreateSession:
    """Uploads, then one request a model. Left early, no name was given."""

    def __init__(self, target: Maker, models: Sequence[Model], report: Report) -> None:
        self._target, self._report = target, report
        self._small = {
            blob.id for model in models if isinstance(model.document, Image)
            for blob in texts_needed(model.document)
        }  # fmt: skip
        self._kept: dict[Digest, bytes] = {}
        self._found: set[Digest | None] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> CreateSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kept.clear()

    def put(self, blob: Blob, data: Reader) -> Blob:
        """As Session says; Refused with status 400 is the server's word that the bytes hash otherwise."""
        if blob.id not in self._small or blob.digest is None:
            if not upload(self._target.client, blob, data, self._report):
                self._found.add(blob.digest)
            return blob
        with self._lock:
            keep(self._kept, blob, data)
        self._report(Moved(blob.size))
        return blob

    def found(self, blob: Blob) -> bool:
        """As Finds says."""
        return blob.digest in self._found

    def commit(self, model: Model) -> Placed:
        """As Session says: `POST /api/create`, read to `success`, then what the server now shows."""
        target = self._target
        texts: dict[Digest, bytes] = dict(self._kept)
        if isinstance(model.document, Image) and any(
            blob.digest not in texts for blob in texts_needed(model.document)
        ):
            texts |= target.texts(model) or {}
        request = target.request_for(model, texts)
        listed = target.client.installed()
        # Somebody may have taken the name since the plan was made, or the base may not have arrived.
        if there := target.judge(model, texts, listed):
            return there
        target.check_base(model, listed)
        self._create(model, request)
        found = target.client.installed().get(model.name.folded)
        if found is None:
            raise Refused(
                f"said success, but does not list {model.name}",
                where=target.client.base,
                advice="Somebody else may have deleted it at the same moment: run again.",
            )
        shown = target.client.show(found.name).raw
        same, reason = compare(request, shown, rewrites=target.rewrites)
        note = f"The server made something else of it: {reason}." if same is False else ""
        return placed_as(found, note)

    def _create(self, model: Model, request: Mapping[str, Any]) -> None:
        said = ""
        try:
            for event in self._target.client.create_from(request):
                step = event.status
                if event.total:
                    step += f" {min(100, 100 * (event.completed or 0) // event.total)} %"
                if step and step != said:
                    self._report(Said(step))
                    said = step
        except Refused:
            self._check_vanished(model)
            raise

    def _check_vanished(self, model: Model) -> None:
        """Raise NotFound where a blob that was there when it was asked for is no more."""
        digests = [blob.digest for blob in files_named(model) if blob.digest is not None]
        try:
            there = self._target.client.which(digests)
        except ModelpackError:
            return  # the error itself says more
        for digest in digests:
            if digest not in there:
                raise NotFound(
                    f"the blob {digest} was there, but was gone when the model was to be made",
                    where=self._target.client.base,
                    advice="Ollama removes blobs that no model names, at a restart or when a model is "
                    "deleted. Run again: what is missing is sent again.",
                ) from None


def keep(kept: dict[Digest, bytes], blob: Blob, data: Reader) -> None:
    """Put a small blob into *kept*; raises Corrupt where its bytes are not what its digest and size say."""
    if blob.size + sum(map(len, kept.values())) > TEXTS_LIMIT:
        raise Unsupported(f"the small files of these models have more than {TEXTS_LIMIT} bytes together")
    raw = read_at_most(data, min(blob.size, SMALL), str(blob))
    if len(raw) != blob.size:
        raise Corrupt(f"ends after {len(raw)} of {blob.size} bytes", where=blob)
    digest = Digest.of(raw)
    if digest != blob.digest:
        raise Corrupt(f"its bytes hash to {digest}", where=blob)
    kept[digest] = raw


def placed_as(found: Listed, note: str = "") -> Placed:
    """A model as the server lists it."""
    return Placed(Name.parse(found.name), found.digest, same_bytes=False, way=WAY, note=note)
