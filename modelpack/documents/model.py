"""A model: a name and a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from modelpack.documents.image import Image
from modelpack.documents.recipe import Recipe
from modelpack.words.blob import Blob
from modelpack.words.name import Name


@dataclass(frozen=True)
class Model:
    """What is carried: `document` says which blobs, `name` what it is called."""

    name: Name
    document: Image | Recipe

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Every blob of the document, each once, in order of use."""
        return self.document.blobs

    @property
    def size(self) -> int:
        """Bytes of all blobs, as `ollama list` counts (the manifest not among them)."""
        return sum(blob.size for blob in self.blobs)

    def settled(self, known: Mapping[object, Blob]) -> Model:
        """This model with what became known of its blobs."""
        return replace(self, document=self.document.settled(known))


def blobs_of(models: Sequence[Model]) -> tuple[Blob, ...]:
    """The blobs of several models, each once, in order of use."""
    seen: dict[object, Blob] = {}
    for model in models:
        for blob in model.blobs:
            seen.setdefault(blob.id, blob)
    return tuple(seen.values())
