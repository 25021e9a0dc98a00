"""A target that only tells: an inventory, in place of the host that it was made on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from modelpack.documents.image import Image
from modelpack.documents.inventory import Held, Inventory
from modelpack.documents.model import Model, blobs_of
from modelpack.errors import Unsupported
from modelpack.hands.answers import version_number
from modelpack.stores import Placed, Session
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.report import Report, silent

WAY = "inventory"


class InventoryTarget:
    """What would have to travel to the host of *inventory*, which stands at *where*; nothing is written.

    *replace* tells that a load would give away a name that stands for another model.
    """

    def __init__(self, inventory: Inventory, where: object = "", *, replace: bool = False) -> None:
        self.inventory = inventory
        self.replace = replace
        self._where = where
        self._held = {held.name.folded: held for held in reversed(inventory.models)}
        self._ids = {held.id for held in inventory.models}
        self._blobs = {digest for held in inventory.models for digest, _ in held.blobs or ()}

    def described(self) -> Mapping[str, str]:
        """As Described says; `version` is that of the Ollama there, empty where the inventory has none."""
        return {"kind": "inventory", "where": str(self._where), "version": self.inventory.version or ""}

    def apart(self) -> bool:
        """Each model stands by itself."""
        return True

    def find(self, name: Name) -> Held | None:
        """What stands under *name* there, compared without case as Ollama does."""
        return self._held.get(name.folded)

    def missing(self, models: Sequence[Model]) -> Sequence[Blob]:
        """Blobs that are not there. Where a model's ID is there, so are its blobs, whatever its name; of an
        old Ollama that is the ID that it would give the model.
        """
        there: set[Digest | None] = set(self._blobs)
        for model in models:
            if not self._ids.isdisjoint(self._ids_of(model)):
                there |= {blob.digest for blob in model.blobs}
        return [blob for blob in blobs_of(models) if blob.digest is None or blob.digest not in there]

    def placed(self, models: Sequence[Model]) -> Sequence[Placed | None]:
        """As Settled says: the inventory has the name with this ID."""
        return [self._placed(model) for model in models]

    def _placed(self, model: Model) -> Placed | None:
        held = self.find(model.name)
        if held is None or held.id not in self._ids_of(model):
            return None
        return Placed(held.name, held.id, held.id == model.document.id, WAY)

    def foretell(self, models: Sequence[Model]) -> Sequence[str]:
        """As Foretells says: what an inventory cannot tell."""
        said = [
            f"{model.name}: a recipe: whether it is there already, no inventory can tell."
            for model in models
            if not isinstance(model.document, Image)
        ]
        if any(held.blobs is None for held in self.inventory.models):
            said.append(
                "The inventory is a server's, which does not tell its blobs: of models with other IDs all "
                "blobs count as missing."
            )
        return said

    def session(
        self,
        models: Sequence[Model],  # noqa: ARG002
        report: Report = silent,  # noqa: ARG002
    ) -> AbstractContextManager[Session]:
        """Raises Unsupported."""
        raise Unsupported(
            "an inventory is no host: it tells what would have to travel",
            where=self._where,
            advice="Name the host itself (--to http://HOST:11434), or its models directory.",
        )

    def _ids_of(self, model: Model) -> set[Digest]:
        """What *model* is called there where it is there exactly; nothing of a recipe."""
        document = model.document
        if not isinstance(document, Image):
            return set()
        return {document.id, document.id_at(version_number(self.inventory.version or ""))}
