"""A target: an Ollama server that ends with the same bytes, and so with the same ID.

Every blob is uploaded, config and texts too; then the server pulls the manifest alone from a small registry
of ours, under a name that lasts for a moment. It finds all blobs on its disk, asks for none, and keeps the
manifest byte for byte (since 0.19). Seen on 0.12.6, 0.24.0 and 0.33.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from modelpack.documents.image import KEEPS_SINCE as KEEPS_SINCE
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.errors import Taken, Unsupported
from modelpack.hands.answers import Listed, Version
from modelpack.hands.callback import Callback
from modelpack.hands.ollama import Ollama
from modelpack.hands.temporary import sweep
from modelpack.stores import Placed, Session
from modelpack.stores.server_exact_session import WAY, ExactSession
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.report import Report, silent


class ServerExact:
    """The models of an Ollama server that can call *callback*, written exactly.

    *replace* lets a name that stands for another model be given away.
    """

    def __init__(self, client: Ollama, callback: Callback, *, replace: bool = False) -> None:
        self.client = client
        self.callback = callback
        self.replace = replace
        self.system = ""
        """What the server runs on, as it said when it called back: `windows`, `linux`, `darwin`."""
        self._about: Version | None = None

    @property
    def about(self) -> Version:
        """The server's version, asked once; raises Unsupported where it is not Ollama."""
        if self._about is None:
            self._about = self.client.about()
        return self._about

    def described(self) -> Mapping[str, str]:
        """As Described says."""
        found = {"kind": "server", "where": self.client.base, "version": self.about.text}
        return found | ({"system": self.system} if self.system else {})

    def apart(self) -> bool:
        """Each model gets its name by itself."""
        return True

    def missing(self, models: Sequence[Model]) -> Sequence[Blob]:
        """As Target says: the blobs of models that are not there whole, which the server has no file of."""
        _ = self.about
        listed = self.client.installed()
        wanted: dict[object, Blob] = {}
        for model in models:
            self.expected_id(model)  # what it raises, it raises before a byte moves
            self.refuse_taken(model, listed)
            for blob in model.blobs:
                wanted.setdefault(blob.id, blob)
        there = self.client.which([blob.digest for blob in wanted.values() if blob.digest is not None])
        return tuple(blob for blob in wanted.values() if blob.digest not in there)

    def session(
        self,
        models: Sequence[Model],  # noqa: ARG002 - one form
        report: Report = silent,
    ) -> AbstractContextManager[Session]:
        """As Target says."""
        return ExactSession(self, report)

    def placed(self, models: Sequence[Model]) -> Sequence[Placed | None]:
        """As Settled says: the name is there with the same ID, and a file for every blob."""
        listed = self.client.installed()
        return [self.judge(model, listed) for model in models]

    def foretell(self, models: Sequence[Model]) -> Sequence[str]:
        """As Foretells says: an ID that such an old server changes."""
        return [
            f"{model.name}: Ollama {self.about.text} writes the manifest anew: the same blobs, but the ID "
            f"will be {self.expected_id(model).short}, not {model.document.id.short}."
            for model in models
            if self.expected_id(model) != model.document.id
        ]

    def tidy(self) -> None:
        """As Tidies says: names for the moment that runs which were killed have left."""
        sweep(self.client)

    def expected_id(self, model: Model) -> Digest:
        """The ID that *model* gets there; Unsupported for a recipe."""
        document = model.document
        if not isinstance(document, Image):
            raise Unsupported(
                "is a recipe: only the server itself can make a model of it",
                where=model.name,
                advice="Leave --exact away: it goes by create then.",
            )
        return document.id_at(None if self.about.is_depot else self.about.number)

    def judge(self, model: Model, listed: Mapping[str, Listed]) -> Placed | None:
        """The model where it is there already, whole as far as names tell."""
        found = listed.get(model.name.folded)
        if found is None or found.digest not in (model.document.id, self.expected_id(model)):
            return None
        digests = [blob.digest for blob in model.blobs if blob.digest is not None]
        if len(self.client.which(digests)) < len(set(digests)):
            return None  # it is listed, and a blob is gone
        return self.placed_as(model, found)

    def refuse_taken(self, model: Model, listed: Mapping[str, Listed]) -> None:
        """Raise Taken where the name stands for another model there, unless it may be replaced."""
        found = listed.get(model.name.folded)
        if found is None or self.replace:
            return
        if found.digest not in (model.document.id, self.expected_id(model)):
            raise Taken(
                f"{found.name} is another model there, with ID {found.digest.short} (this one is "
                f"{model.document.id.short})",
                where=self.client.base,
                advice="--replace would give the name to the model that is loaded, and remove what nothing "
                "else there needs; --as loads it under another name.",
            )

    def placed_as(self, model: Model, found: Listed, note: str = "") -> Placed:
        """*model* as the server lists it."""
        same = found.digest == model.document.id
        if not same:
            note = f"The same blobs, another ID: this Ollama wrote the manifest anew. {note}".strip()
        return Placed(Name.parse(found.name), found.digest, same, WAY, note=note)
