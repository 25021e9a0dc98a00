"""What models have in common: bytes that each would cost alone, and what they cost together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelpack.documents.model import Model
from modelpack.words.blob import Blob


@dataclass(frozen=True, slots=True)
class Cost:
    """A model's bytes: `alone`, all its blobs; `own`, those that no other model of these names.

    `own` is what it adds beside the others, and what taking it away would free.
    """

    model: Model
    alone: int
    own: int


@dataclass(frozen=True, slots=True)
class Common:
    """Blobs that the same models name, two or more of them; `saved` bytes are not stored again."""

    blobs: tuple[Blob, ...]
    models: tuple[Model, ...]

    @property
    def size(self) -> int:
        """Bytes of the blobs, once."""
        return sum(blob.size for blob in self.blobs)

    @property
    def saved(self) -> int:
        """Bytes that they would take beside that, were nothing shared."""
        return self.size * (len(self.models) - 1)


@dataclass(frozen=True, slots=True)
class Shared:
    """What each model costs, in their order; what is common, the most saved bytes first; and the sums."""

    costs: tuple[Cost, ...]
    common: tuple[Common, ...]
    together: int
    """Bytes of all blobs, each once."""

    @property
    def alone(self) -> int:
        """Bytes that the models would take if each were packed alone."""
        return sum(cost.alone for cost in self.costs)


def shared(models: Sequence[Model]) -> Shared:
    """What each of *models* costs, and which blobs they share: those of one digest, or one key."""
    blobs: dict[object, Blob] = {}
    users: dict[object, list[int]] = {}
    for place, model in enumerate(models):
        for blob in model.blobs:
            blobs.setdefault(blob.id, blob)
            users.setdefault(blob.id, []).append(place)
    own = [0] * len(models)
    groups: dict[tuple[int, ...], list[Blob]] = {}
    for known, places in users.items():
        if len(places) == 1:
            own[places[0]] += blobs[known].size
        else:
            groups.setdefault(tuple(places), []).append(blobs[known])
    common = [
        Common(tuple(each), tuple(models[place] for place in places)) for places, each in groups.items()
    ]
    return Shared(
        tuple(Cost(model, model.size, own[place]) for place, model in enumerate(models)),
        tuple(sorted(common, key=lambda each: -each.saved)),
        sum(blob.size for blob in blobs.values()),
    )
