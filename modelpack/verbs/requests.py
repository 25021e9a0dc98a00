"""The body of a create request, read from a source."""

from __future__ import annotations

from typing import Any

from modelpack.documents.create import create_request, texts_needed
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.hands.hashing import read_small
from modelpack.stores import MakesRequests, Source, Target
from modelpack.words.digest import Digest


def create_request_of(source: Source, model: Model) -> dict[str, Any]:
    """What `POST /api/create` would be sent for *model*, its small blobs read from *source* and checked.

    Raises Corrupt where one is damaged, Unsupported where no request can carry the model.
    """
    texts: dict[Digest, bytes] = {}
    document = model.document
    for blob in texts_needed(document) if isinstance(document, Image) else ():
        with source.open(blob) as reader:
            raw = read_small(reader, blob)
        texts[Digest.of(raw)] = raw
    return create_request(model, texts)


def makes_requests(target: Target) -> bool:
    """Whether *target* sends create requests."""
    return isinstance(target, MakesRequests)
