"""The two sides of a comparison: what each knows of its models, and what of it costs something to ask."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from modelpack.documents.difference import Blobs, Entry
from modelpack.documents.difference_facts import part_of
from modelpack.documents.inventory import Inventory
from modelpack.documents.model import Model
from modelpack.documents.record import Record
from modelpack.errors import ModelpackError, NotFound, Unchecked, Unreachable, Usage
from modelpack.hands.temporary import is_temporary
from modelpack.stores import Source
from modelpack.stores.files import LooseFiles, LooseGguf
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.models_dir_scan import Stray
from modelpack.verbs import locate
from modelpack.verbs.plans import settle
from modelpack.verbs.registries import HTTPS, Access, is_registry
from modelpack.verbs.targets import path_of
from modelpack.verbs.telling import telling
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.report import Report, silent

if TYPE_CHECKING:  # requests and a server of our own cost a good part of a start
    from modelpack.hands.callback import Calling
    from modelpack.hands.ollama import Ollama


@dataclass(frozen=True)
class Known:
    """What a side knows of one model: its document, with a *source* of its bytes; or what a server *shown*;
    or its *blobs* by digest, with the *kinds* of those that somebody wrote down; or nothing (`why`)."""

    model: Model | None = None
    source: Source | None = None
    shown: Mapping[str, Any] | None = None
    blobs: Blobs | None = None
    kinds: Mapping[Digest, str] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Side:
    """One side: its models, and `know`, which tells more of one of them.

    `single`: one model was named, not a place that happens to hold one. `unread` are models that are there
    and cannot be read; None for a name that cannot be told.
    """

    text: str
    entries: tuple[Entry, ...]
    know: Callable[[Entry], Known]
    single: bool = False
    unread: tuple[tuple[Name | None, ModelpackError], ...] = ()


@dataclass(frozen=True)
class Asking:
    """How sides are opened: which way to registries, which way back from servers, whom to tell of the work.

    What has to be closed in the end is put into `closing`.
    """

    closing: contextlib.ExitStack

    access: Access = HTTPS
    calling: Calling | None = None
    report: Report = silent


def side(text: str, asking: Asking) -> Side:
    """The side that the locator *text* names, with `#NAME` one model of it.

    Loose files are hashed for it. Raises NotFound, Usage, Corrupt, … as `locate.source` does.
    """
    place = locate.Located.parse(text)
    if locate.is_server(place.text):
        return _picked(_Host(text, place.text, asking).side(), place.pick)
    if not is_registry(place.text) and place.text != "-":
        with contextlib.suppress(Usage):
            found = telling(path_of(place.text))
            if isinstance(found, Inventory):
                return _picked(_inventory(text, found), place.pick)
            if isinstance(found, Record):
                return _picked(_record(text, found), place.pick)
    return _picked(_store(text, place, asking), place.pick)


def _picked(found: Side, pick: str | None) -> Side:
    """*found*, or of it the model *pick*; NotFound lists what there is."""
    if pick is None or found.single:
        return found
    return one_of(found, Name.parse(pick))


def one_of(found: Side, name: Name) -> Side:
    """The model *name* of *found* alone; raises why it cannot be read, or NotFound."""
    chosen = [entry for entry in found.entries if entry.name == name]
    chosen = chosen or [entry for entry in found.entries if entry.name.folded == name.folded]
    if not chosen:
        for unread, error in found.unread:
            if unread is not None and unread.folded == name.folded:
                raise error
        there = ", ".join(str(entry.name) for entry in found.entries[:10]) or "nothing"
        more = f", and {len(found.entries) - 10} more" if len(found.entries) > 10 else ""
        raise NotFound(f"has no model {str(name)!r}; it has: {there}{more}", where=found.text)
    return Side(found.text, (chosen[0],), found.know, single=True)


def _store(text: str, place: locate.Located, asking: Asking) -> Side:
    source = locate.source(place.text, access=asking.access, report=asking.report, anew=True)
    unread: list[tuple[Name | None, ModelpackError]] = []
    if isinstance(source, ModelsDir):
        models = []
        for one in source.scan():
            if isinstance(one, Model):
                if not is_temporary(one.name):
                    models.append(one)
            elif not isinstance(one, Stray):
                unread.append((_name_of(source, one), one))
    else:
        models = list(source.models())
    single = is_registry(place.text) or isinstance(source, LooseGguf | LooseFiles)
    if place.pick is not None:
        wanted = Name.parse(place.pick).folded
        models = [model for model in models if model.name.folded == wanted] or models
    models = settle(source, models, asking.report, blake3=False)
    known = {model.name: Known(model, source) for model in models}
    entries = tuple(Entry(model.name, model.document.id, model.size) for model in models)
    return Side(text, entries, lambda entry: known[entry.name], single, tuple(unread))


def _name_of(store: ModelsDir, error: ModelpackError) -> Name | None:
    """The model whose manifest *error* is about."""
    parts = os.path.relpath(error.where, store.path / "manifests").split(os.sep)
    with contextlib.suppress(Usage):
        return Name.of_path(tuple(parts))
    return None


def _inventory(text: str, found: Inventory) -> Side:
    blobs = {held.name: dict(held.blobs) if held.blobs is not None else None for held in found.models}

    def know(entry: Entry) -> Known:
        return Known(
            blobs=blobs[entry.name],
            why="" if blobs[entry.name] is not None else "an inventory of a server tells IDs alone",
        )

    return Side(text, tuple(Entry(held.name, held.id, held.size) for held in found.models), know)


def _record(text: str, found: Record) -> Side:
    known: dict[Name, Known] = {}
    entries: list[Entry] = []
    unread: list[tuple[Name | None, ModelpackError]] = []
    disproved = found.disproved
    for model in found.models:
        if model.name in disproved:
            what = f"it was not there as it was loaded: {disproved[model.name]}"
            unread.append((model.name, Unchecked(what)))
        elif model.same in ("bytes", "blobs"):
            blobs = {one.digest: one.size for one in model.blobs}
            kinds = {one.digest: part_of(Blob(one.size, one.media_type)) for one in model.blobs}
            known[model.name] = Known(blobs=blobs, kinds=kinds)
            entries.append(Entry(model.name, model.id, sum(blobs.values()), model.document))
        else:  # the blobs that are noted are those that were sent
            what = f"the server made it itself of {model.document.short}; a receipt does not say what it made"
            known[model.name] = Known(why=what)
            entries.append(Entry(model.name, model.id))
    return Side(text, tuple(entries), lambda entry: known[entry.name], unread=tuple(unread))


class _Host:
    """A server: IDs from /api/tags; of one model what it pushes to us, else what /api/show says."""

    def __init__(self, text: str, url: str, asking: Asking) -> None:
        self._text, self._url, self._asking = text, url, asking
        self._deaf = ""
        """Why it does not call back, once that is known."""

    @cached_property
    def _client(self) -> Ollama:
        from modelpack.hands.ollama import Ollama

        return self._asking.closing.enter_context(Ollama(self._url))

    @cached_property
    def _source(self) -> Source:
        found = locate.server_source(self._url, self._asking.calling)
        if isinstance(found, AbstractContextManager):  # it listens once it was asked for something
            self._asking.closing.enter_context(found)
        return found

    def side(self) -> Side:
        entries: list[Entry] = []
        unread: list[tuple[Name | None, ModelpackError]] = []
        for each in self._client.list():
            try:
                name = Name.parse(each.name)
            except Usage as error:
                unread.append((None, error))
                continue
            if not is_temporary(name):  # a load is under way, or was killed
                entries.append(Entry(name, each.digest, each.size))
        return Side(self._text, tuple(entries), self._know, unread=tuple(unread))

    def _know(self, entry: Entry) -> Known:
        why = self._deaf
        if not why:
            try:
                (model,) = locate.picked(self._source, [entry.name.full], self._url)
                return Known(model, self._source)
            except ModelpackError as error:
                why = error.what
                if isinstance(error, Unreachable):
                    self._deaf = why  # eight seconds for each model would add up
        try:
            return Known(shown=self._client.show(entry.name.full).raw, why=why)
        except ModelpackError as error:
            return Known(why=error.what)
