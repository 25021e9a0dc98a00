"""Stores around stores: a variation of one is a wrapper, not a flag."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from modelpack.documents.model import Model
from modelpack.errors import NotFound
from modelpack.stores import Learns, Reader, Source
from modelpack.words.blob import Blob


class Joined:
    """Models of several sources as one source: each blob comes from the first that has it."""

    def __init__(self, parts: Sequence[tuple[Source, Sequence[Model]]]) -> None:
        self._models = [model for _, models in parts for model in models]
        self._homes: dict[object, Source] = {}
        for source, models in parts:
            for model in models:
                for blob in model.blobs:
                    self._homes.setdefault(blob.id, source)

    def models(self) -> Sequence[Model]:
        """All of them, in the order of the sources."""
        return self._models

    def open(self, blob: Blob, offset: int = 0) -> AbstractContextManager[Reader]:
        """As the source of *blob* opens it."""
        return self._home(blob).open(blob, offset)

    def learned(self, blob: Blob) -> Blob:
        """As the source of *blob* learned it."""
        home = self._home(blob)
        return home.learned(blob) if isinstance(home, Learns) else blob

    def _home(self, blob: Blob) -> Source:
        # A blob that was unread when its home was noted has both by now.
        for known in (blob.key, blob.digest):
            if known is not None and known in self._homes:
                return self._homes[known]
        raise NotFound(f"has no blob {blob}")
