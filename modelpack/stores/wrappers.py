"""Stores around stores: a variation of one is a wrapper, not a flag."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from modelpack.documents.model import Model
from modelpack.errors import Corrupt, NotFound
from modelpack.stores import Afar, Closes, Expecting, Learns, Reader, Source
from modelpack.words.blob import Blob


class Joined:
    """Models of several sources as one source: each blob comes from the first that has it.

    *places* are what the sources are called where one of their blobs turns out to be damaged.
    """

    def __init__(self, parts: Sequence[tuple[Source, Sequence[Model]]], places: Sequence[str] = ()) -> None:
        self._models = [model for _, models in parts for model in models]
        self._homes: dict[object, Source] = {}
        self._first: dict[object, str] = {}
        lacks: dict[object, Source] = {}
        for (source, models), place in zip(parts, places or [""] * len(parts), strict=True):
            of = f" (of {place})" if place else ""
            gone = source.expects if isinstance(source, Expecting) else frozenset()
            for model in models:
                for blob in model.blobs:
                    home = lacks if blob.digest in gone else self._homes
                    home.setdefault(blob.id, source)
                    self._first.setdefault(blob.id, f"{model.name}{of}")
        self._homes = lacks | self._homes
        self.expects = frozenset(
            blob.digest
            for model in self._models
            for blob in model.blobs
            if blob.digest is not None and self._homes[blob.id] is lacks.get(blob.id)
        )
        """Blobs that none of them holds: deltas, all that have a model with it."""

    def models(self) -> Sequence[Model]:
        """All of them, in the order of the sources."""
        return self._models

    @contextmanager
    def open(self, blob: Blob, offset: int = 0) -> Iterator[Reader]:
        """As the source of *blob* opens it; whoever finds it damaged is told whose it is."""
        try:
            with self._home(blob).open(blob, offset) as reader:
                yield reader
        except Corrupt as error:
            error.where = error.where or self._first.get(blob.key) or self._first.get(blob.digest, "")
            raise

    def afar(self) -> bool:
        """Whether any of the sources is: a blob of the others is taken up as well."""
        return any(isinstance(home, Afar) and home.afar() for home in self._homes.values())

    def close(self) -> None:
        """Close the sources that hold something open."""
        for home in {id(home): home for home in self._homes.values()}.values():
            if isinstance(home, Closes):
                home.close()

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


@contextmanager
def closed(store: Source) -> Iterator[Source]:
    """*store*, closed in the end where it holds something open."""
    try:
        yield store
    finally:
        if isinstance(store, Closes):
            store.close()
