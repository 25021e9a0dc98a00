"""Which way a model goes to a server: exactly, or by create. Decided before the first byte, and kept."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelpack.documents.create import check_creatable
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.documents.needs import CHAT_TEMPLATE, has_prompt
from modelpack.errors import ModelpackError, Unreachable, Unsupported, Usage
from modelpack.hands.answers import Listed, version_number
from modelpack.hands.callback import Callback, Caller, Calling, reach
from modelpack.hands.ollama import Ollama
from modelpack.stores import OneWay, Source, Target
from modelpack.stores.parted import Parted
from modelpack.stores.server_create import ServerCreate
from modelpack.stores.server_exact import ServerExact
from modelpack.verbs.needs import config_of

EXACT, CREATE = "exact", "create"
_CLOSED = "--no-listen opens no port for the server to call back"


@dataclass(frozen=True)
class Wish:
    """What the user asked for: that every model goes *exact*, or by *create*; how a server calls back."""

    exact: bool = False
    create: bool = False
    calling: Calling = field(default_factory=Calling)

    def __post_init__(self) -> None:
        if self.exact and self.create:
            raise Usage("--exact and --create are two ways: name one")
        if self.exact and self.calling.off:
            raise Usage("--exact needs the server to call back, and --no-listen opens no port for that")


ANY = Wish()


def server_target(
    client: Ollama, source: Source | None = None, *, replace: bool = False, wish: Wish = ANY
) -> Target:
    """The server of *client*: images exactly where it can call back, everything else by create.

    What is decided, and why, tells the target's `way`. With `wish.exact` the first model raises Unsupported
    or Unreachable where that way is closed.
    """
    create = ServerCreate(client, replace=replace, source=source)
    if wish.create:
        return create
    callback = Callback(client.base, wish.calling)
    exact = ServerExact(client, callback, replace=replace)
    return Parted({EXACT: exact, CREATE: create}, _Chooser(exact, create, callback, wish, source).choose)


class _Chooser:
    def __init__(
        self, exact: ServerExact, create: ServerCreate, callback: Callback, wish: Wish, source: Source | None
    ) -> None:
        self._exact, self._create, self._callback, self._wish = exact, create, callback, wish
        self._source = source
        self._listed: dict[str, Listed] | None = None
        self._caller: Caller | ModelpackError | None = None

    def choose(self, model: Model) -> tuple[str, str]:
        way, why = self._choice(model)
        if way == EXACT:
            self._create.coming.add(model.name.folded)
        return way, why

    def _choice(self, model: Model) -> tuple[str, str]:
        document = model.document
        if self._wish.exact:
            self._exact.expected_id(model)  # raises for a recipe
        elif not isinstance(document, Image):
            return CREATE, "a recipe: only the server itself can make a model of it"
        if self._is_there(model):
            return EXACT, "it is there already, with the same ID"
        if not self._wish.exact:
            if self._is_made(model):
                return CREATE, "it is there already, made by create (--exact gives it the same ID)"
            if reason := self._better_by_create(model):
                return CREATE, reason
            if self._wish.calling.off:
                return self._by_create(model, _CLOSED)
        caller = self._way_back()
        if isinstance(caller, Caller):
            return EXACT, f"the server can call back (it came from {caller.address})"
        if self._wish.exact or not isinstance(caller, Unsupported | Unreachable):
            raise caller
        what = caller.what
        if not what.startswith("the server"):
            what = f"the server cannot call back: {what}"
        return self._by_create(model, what)

    def _is_there(self, model: Model) -> bool:
        if self._listed is None:
            self._listed = self._exact.client.installed()
        found = self._listed.get(model.name.folded)
        return found is not None and found.digest in (model.document.id, self._exact.expected_id(model))

    def _is_made(self, model: Model) -> bool:
        found = (self._listed or {}).get(model.name.folded)
        try:
            return self._create.held(model, found) is not None
        except Unsupported:
            return False

    def _better_by_create(self, model: Model) -> str:
        """Why create serves the user better than the same bytes would; empty where it does not."""
        about = self._exact.about
        if about.is_depot or about.is_at_least(*version_number(CHAT_TEMPLATE) or ()):
            return ""
        if self._has_prompt(model) or not _creatable(model):
            return ""
        return (
            f"it has no template, and Ollama {about.text} would send it the bare prompt: by create the "
            "server looks for one (--exact keeps the ID)"
        )

    def _has_prompt(self, model: Model) -> bool:
        document = model.document
        config: Mapping[str, Any] = {}
        if isinstance(document, Image) and self._source is not None and not isinstance(self._source, OneWay):
            with contextlib.suppress(ModelpackError):  # what it is comes out when it is copied
                config = config_of(document, self._source)
        return has_prompt(document, config)

    def _by_create(self, model: Model, reason: str) -> tuple[str, str]:
        try:
            check_creatable(model)
        except Unsupported as error:
            error.advice = f"It could go exactly, but {reason}. {error.advice}".strip()
            raise
        return CREATE, reason

    def _way_back(self) -> Caller | ModelpackError:
        if self._caller is None:
            try:
                with self._callback as callback:
                    self._caller = reach(self._exact.client, callback)
                self._exact.system = self._caller.system
            except ModelpackError as error:
                self._caller = error
        return self._caller


def _creatable(model: Model) -> bool:
    try:
        check_creatable(model)
    except Unsupported:
        return False
    return True
