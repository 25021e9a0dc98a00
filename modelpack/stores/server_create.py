"""A target: an Ollama server, by `POST /api/create`.

The server makes a model of its own from what it is given: the same meaning, not the same bytes. It writes its
own manifest and, since 0.30, rewrites GGUFs. The exact way, where it can be gone, is another target.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from modelpack.documents.create import (
    REWRITES_SINCE,
    check_creatable,
    create_request,
    files_named,
    rewritten,
    texts_needed,
)
from modelpack.documents.meaning import compare
from modelpack.documents.model import Model
from modelpack.documents.receipt import EXACT
from modelpack.documents.recipe import Recipe
from modelpack.errors import NotFound, Refused, Taken, Unsupported
from modelpack.hands.answers import Listed, Version
from modelpack.hands.hashing import blamed
from modelpack.hands.ollama import Ollama
from modelpack.hands.temporary import sweep
from modelpack.stores import OneWay, Placed, Session, Source
from modelpack.stores.server_create_session import CreateSession, keep, placed_as
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.report import Report, silent
from modelpack.words.text import size as size_text

_FILES_SINCE = (0, 5, 5)  # before, create took a Modelfile that names files of the server's own


class ServerCreate:
    """The models of an Ollama server, written by create.

    *replace* lets a name that stands for another model be given away. The small blobs of a model (template,
    config, …) travel inside the request. To tell before anything moves whether a model is there already,
    they are read from *source*; without one, a name that is taken stays taken.
    """

    def __init__(self, client: Ollama, *, replace: bool = False, source: Source | None = None) -> None:
        self.client = client
        self.replace = replace
        self.source = source
        self.coming: set[str] = set()
        """Names, folded by case, of models that the same copy brings there by another way."""
        self._about: Version | None = None
        self._read: dict[Digest, bytes] = {}

    @property
    def about(self) -> Version:
        """The server's version, asked once; raises Unsupported where it is not Ollama or too old."""
        if self._about is None:
            self._about = self.client.about()
        number = self._about.number
        if number is not None and number < _FILES_SINCE:
            raise Unsupported(
                f"Ollama {self._about.text} cannot create a model from uploaded files; 0.5.5 was the first",
                where=self.client.base,
                advice="Update it, or load into its models directory.",
            )
        return self._about

    @property
    def rewrites(self) -> bool:
        """Whether the server keeps GGUFs in a form of its own."""
        return self.about.is_at_least(*REWRITES_SINCE) and not self.about.is_depot

    def described(self) -> Mapping[str, str]:
        """As Described says."""
        return {"kind": "server", "where": self.client.base, "version": self.about.text}

    def apart(self) -> bool:
        """Each model is made by a request of its own."""
        return True

    def missing(self, models: Sequence[Model]) -> Sequence[Blob]:
        """As Target says. The small blobs of a model count as missing, as its request carries them."""
        for model in models:
            check_creatable(model)
        _ = self.about  # too old, or not Ollama at all
        listed = self.client.installed()
        todo = []
        for model in models:
            texts = self.texts(model)
            if texts is not None:
                self.request_for(model, texts)  # what it raises, it raises before a byte moves
            if self.judge(model, texts, listed) is None:
                todo.append(model)
        for model in todo:
            before = models[: list(models).index(model)]
            self.check_base(model, {*listed, *self.coming, *(each.name.folded for each in before)})
        files = {file.id: file for model in todo for file in files_named(model)}
        there = self.client.which([file.digest for file in files.values() if file.digest is not None])
        wanted: dict[object, Blob] = {}
        for model in todo:
            for blob in model.blobs:
                if blob.id not in files or blob.digest not in there:
                    wanted.setdefault(blob.id, blob)
        return tuple(wanted.values())

    def session(self, models: Sequence[Model], report: Report = silent) -> AbstractContextManager[Session]:
        """As Target says; steps say what the server is doing."""
        return CreateSession(self, models, report)

    def placed(self, models: Sequence[Model]) -> Sequence[Placed | None]:
        """As Settled says: the same ID, or what the server shows is what create would make of a model."""
        listed = self.client.installed()
        return [self.held(model, listed.get(model.name.folded)) for model in models]

    def held(self, model: Model, found: Listed | None) -> Placed | None:
        """*model*, where what is *found* under its name is that model; None where nobody can tell."""
        if found is None:
            return None
        if found.digest == model.document.id:
            return self._exactly(model, found)
        texts = self.texts(model)
        if texts is None:
            return None
        same, _ = self._compare(model, texts, found)
        return placed_as(found) if same else None

    def tidy(self) -> None:
        """As Tidies says: names for the moment that runs which were killed have left."""
        sweep(self.client)

    def foretell(self, models: Sequence[Model]) -> Sequence[str]:
        """As Foretells says: rewritten GGUFs."""
        said = []
        version = self.about
        for model in models:
            size = sum(blob.size for blob in rewritten(model)) if self.rewrites else 0
            if size:
                said.append(
                    f"{model.name}: Ollama {version.text} keeps a rewritten copy of a GGUF (unless that has "
                    f"vision, audio or MTP tensors): {size_text(size)} twice on its disk until a restart "
                    "after an hour or more, and a later load by create sends it again."
                )
        return said

    def request_for(self, model: Model, texts: Mapping[Digest, bytes]) -> dict[str, Any]:
        """The body of the request that `commit` would send for *model*, as create_request makes it."""
        return create_request(model, texts)

    def texts(self, model: Model) -> dict[Digest, bytes] | None:
        """The bytes of the small blobs; None where they cannot be read before they are put."""
        document = model.document
        if isinstance(document, Recipe):
            return {}
        if self.source is None or isinstance(self.source, OneWay):  # a pipe gives each byte once
            return None
        needed = texts_needed(document)
        for blob in needed:
            if blob.digest is None:
                return None
            if blob.digest not in self._read:
                with self.source.open(blob) as reader:
                    keep(self._read, blob, reader)
        return {blob.digest: self._read[blob.digest] for blob in needed if blob.digest is not None}

    def judge(
        self, model: Model, texts: Mapping[Digest, bytes] | None, listed: Mapping[str, Listed]
    ) -> Placed | None:
        """The model where it is there already; None where it may be made; raises Taken."""
        found = listed.get(model.name.folded)
        if found is None:
            return None
        if found.digest == model.document.id:
            return self._exactly(model, found)
        same: bool | None
        same, reason = None, "what it holds is known only once its small files are read"
        if texts is not None:
            same, reason = self._compare(model, texts, found)
        if same:
            return placed_as(found)
        if self.replace:
            return None
        what = "another model" if same is False else "a model that cannot be told from another"
        raise Taken(
            f"{found.name} is {what} there, with ID {found.digest.short} ({reason})",
            where=self.client.base,
            advice="--replace would give the name to the model that is loaded, and remove what nothing else "
            "there needs; --as loads it under another name.",
        )

    def _exactly(self, model: Model, found: Listed) -> Placed | None:
        """The model that is listed with its own ID; None where it has lost a blob."""
        digests = {blob.digest for blob in model.blobs if blob.digest is not None}
        if len(self.client.which(list(digests))) < len(digests):
            return None
        return Placed(Name.parse(found.name), found.digest, True, EXACT)

    def _compare(self, model: Model, texts: Mapping[Digest, bytes], found: Listed) -> tuple[bool | None, str]:
        request = self.request_for(model, texts)
        try:
            shown = self.client.show(found.name).raw
        except (Refused, NotFound) as error:  # a model whose blobs are gone is still listed
            return None, f"the server cannot show it: {error.what}"
        return compare(request, shown, rewrites=self.rewrites)

    def check_base(self, model: Model, listed: Collection[str]) -> None:
        """NotFound where the base of a recipe is not *listed*: it would be asked of a registry."""
        with blamed(model.name):
            name = model.document.base if isinstance(model.document, Recipe) else None
        if name is not None and name.folded not in listed:
            raise NotFound(
                f"{model.name} is made from {name}, which is not installed there",
                where=self.client.base,
                advice=f"Load {name} first, or pack it into the same bundle.",
            )
