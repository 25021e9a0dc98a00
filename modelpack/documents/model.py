"""A model: a name and a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from modelpack.documents.image import Image
from modelpack.documents.recipe import Recipe
from modelpack.errors import Refused, Unsupported
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


def told(models: Sequence[Model]) -> dict[object, Blob]:
    """What any of *models* knows of each blob, for all of them: it has one place, and one description."""
    known: dict[object, Blob] = {}
    for model in models:
        for blob in model.blobs:
            known[blob.id] = known[blob.id].settled(blob) if blob.id in known else blob
    return known


def agreed(models: Sequence[Model]) -> list[Model]:
    """*models*, each with what the others know of its blobs."""
    known = told(models)
    return [model.settled(known) for model in models]


def base_of(model: Model) -> Name | None:
    """The model that a recipe is made from; None for an image, and where it is no name."""
    try:
        return model.document.base if isinstance(model.document, Recipe) else None
    except Unsupported:
        return None


def by_base(models: Sequence[Model]) -> list[Model]:
    """*models*, each recipe after the one of them that it is made from; Refused where they go in a circle."""
    named = {model.name.folded: model for model in models}
    ordered: dict[str, Model] = {}
    for model in models:
        chain: dict[str, Model] = {}
        step: Model | None = model
        while step is not None and step.name.folded not in ordered:
            if step.name.folded in chain:
                circle = " from ".join(str(one.name) for one in (*chain.values(), step))
                raise Refused(
                    f"FROM goes in a circle: {circle}",
                    advice="Give one of them another name, or name a file in its FROM.",
                )
            chain[step.name.folded] = step
            base = base_of(step)
            step = named.get(base.folded) if base is not None else None
        ordered |= dict(reversed(chain.items()))
    return list(ordered.values())
