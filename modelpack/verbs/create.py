"""From files here to a model on a server, as `ollama create` does it; only what is missing is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace as changed

from modelpack.documents.model import Model, base_of
from modelpack.documents.receipt import Receipt
from modelpack.documents.recipe import Recipe
from modelpack.errors import NotFound, Usage
from modelpack.hands.hashing import Counted
from modelpack.hands.ollama import Ollama
from modelpack.stores import Placed, Session, Source
from modelpack.stores.files import LooseFiles, LooseGguf
from modelpack.stores.server_create import ServerCreate
from modelpack.stores.wrappers import Joined
from modelpack.verbs import locate
from modelpack.verbs.installed import Installed
from modelpack.verbs.transfer import copy
from modelpack.words.blob import Blob
from modelpack.words.name import Name
from modelpack.words.reader import Reader
from modelpack.words.report import Note, Report, silent

Hear = Callable[[Blob, int], object]
"""Told of a blob, and of so many more bytes of it that left for the server."""


def create_model(
    client: Ollama,
    name: Name,
    place: str | None = None,
    *,
    from_: Name | None = None,
    quantize: str | None = None,
    replace: bool = True,
    report: Report = silent,
    hear: Hear = lambda _blob, _count: None,
) -> Receipt:
    """Make the model *name* on a server from *place*: a Modelfile, a GGUF, a folder or a bundle of one model.

    A FROM that is a model's name means the server's, which must have it: no registry is asked. *from_*
    instead of *place* is such a model, with *quantize* another type of its weights. `there` of the receipt:
    nothing was to be done. Raises NotFound, Taken where *replace* is False, and as the client does.
    """
    if (place is None) == (from_ is None):
        raise Usage("a model is made from files or from a model that is there: name one of them")
    if from_ is not None:
        body = {"from": str(from_)} | ({"quantize": quantize} if quantize else {})
        model = Model(name, Recipe.compose(body, {}))
        source: Source = Joined([(Joined(()), [model])])
    else:
        source, found = _of_place(place or "", quantize, report)
        model = changed(found, name=name)
    _check_base(client, model)
    target = _Heard(client, replace, source, hear)
    (receipt,) = copy(source, [model], target, report)
    return receipt


def _check_base(client: Ollama, model: Model) -> None:
    """NotFound where the server lacks what *model* is made from: it would ask a registry for it."""
    base = base_of(model)
    if base is not None and base.folded not in client.installed():
        raise NotFound(
            f"has no model {base}, which {model.name} is to be made from",
            where=client.base,
            advice=f"Pull it first: modelpack ollama pull {base}",
        )


def _of_place(place: str, quantize: str | None, report: Report) -> tuple[Source, Model]:
    nowhere = Installed(())  # a name after FROM is the server's, whatever is installed here
    located = locate.Located.parse(place, nowhere)
    source = locate.source(located.text, look=nowhere, quantize=quantize, report=report)
    models = locate.picked(source, [located.pick] if located.pick else [], place)
    if len(models) > 1:
        raise Usage(f"holds {len(models)} models", where=place, advice=f"Pick one: {place}#NAME")
    for note in source.notes if isinstance(source, LooseFiles | LooseGguf) else ():
        report(Note(note))
    return source, models[0]


class _Heard(ServerCreate):
    """As ServerCreate, and *hear* is told of each blob's bytes."""

    def __init__(self, client: Ollama, replace: bool, source: Source, hear: Hear) -> None:
        super().__init__(client, replace=replace, source=source)
        self._hear = hear

    def session(self, models: Sequence[Model], report: Report = silent) -> AbstractContextManager[Session]:
        """As Target says."""
        return self._session(super().session(models, report))

    @contextmanager
    def _session(self, session: AbstractContextManager[Session]) -> Iterator[Session]:
        with session as inner:
            yield _HeardSession(inner, self._hear)


class _HeardSession:
    def __init__(self, inner: Session, hear: Hear) -> None:
        self._inner, self._hear = inner, hear

    def put(self, blob: Blob, data: Reader) -> Blob:
        """As Session says."""
        return self._inner.put(blob, Counted(data, lambda count: self._hear(blob, count)))

    def commit(self, model: Model) -> Placed:
        """As Session says."""
        return self._inner.commit(model)
