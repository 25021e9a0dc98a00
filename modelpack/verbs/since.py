"""What is there already is left out: models whole, and the blobs of others, which the bundle then expects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from modelpack.documents.expects import NOTHING, Expected, Expects
from modelpack.documents.inventory import Held, Inventory
from modelpack.documents.model import Model, blobs_of
from modelpack.documents.record import Arrived, Record
from modelpack.errors import Local, ModelpackError, Unsupported
from modelpack.stores import Afar, Source
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.verbs import locate
from modelpack.verbs.installed import Installed
from modelpack.verbs.inventory import held
from modelpack.verbs.plans import settle
from modelpack.verbs.targets import path_of
from modelpack.verbs.telling import telling
from modelpack.words.blob import CONFIG, TEXTS, Blob
from modelpack.words.digest import Digest
from modelpack.words.report import Report, silent

_NEITHER = "is neither an inventory nor a bundle nor a receipt"
_ADVICE = "Name an inventory (`modelpack inventory`), an earlier bundle, or a receipt (`load --receipt`)."


@dataclass(frozen=True)
class Known:
    """What is there: IDs by name (folded by case), and blobs with the model that each is of."""

    ids: Mapping[str, frozenset[Digest]] = field(default_factory=dict)
    blobs: Mapping[Digest, Expected] = field(default_factory=dict)

    @classmethod
    def of(cls, there: Iterable[Held]) -> Known:
        """What *there* is; of several models that a blob is of, the first by name is told."""
        ids: dict[str, frozenset[Digest]] = {}
        blobs: dict[Digest, Expected] = {}
        for one in sorted(there, key=lambda one: (one.name.folded, one.name.full, one.id)):
            ids[one.name.folded] = ids.get(one.name.folded, frozenset()) | {one.id}
            for digest, size in one.blobs or ():
                blobs.setdefault(digest, Expected(digest, size, one.name, one.id))
        return cls(ids, blobs)


@dataclass(frozen=True)
class Left:
    """What is to be packed, what of it is there wholly, and the blobs that the bundle expects there."""

    models: tuple[Model, ...]
    there: tuple[Model, ...] = ()
    expects: Expects = NOTHING


def since(
    texts: Sequence[str], source: Source, models: Sequence[Model], look: Installed, report: Report = silent
) -> Left:
    """*models* of *source* without what the inventories, bundles and receipts *texts* say is there.

    Blobs that are unread are hashed first: nobody can tell before whether they are there. The ID of a model
    without more stands for its blobs where *source*, or a models directory of *look*, has a model of that ID.
    """
    models = settle(source, models, report, blake3=False)
    return left_out(models, known(texts, lambda: _models_here(source, models, look)))


def known(texts: Sequence[str], models: Callable[[], Iterable[Model]]) -> Known:
    """What the files or folders *texts* say is there; *models* are asked for where IDs stand alone.

    Content decides what each is. Raises NotFound, Corrupt, and Unsupported for what is none of the three.
    """
    there = [one for text in texts for one in _told(text)]
    if any(one.blobs is None for one in there):
        named = {model.document.id: held(model).blobs for model in models()}
        there = [
            one if one.blobs is not None else Held(one.name, one.id, one.size, named.get(one.id))
            for one in there
        ]
    return Known.of(there)


def left_out(models: Sequence[Model], known: Known) -> Left:
    """*models* without those that are there under their names, and the blobs of the others that are.

    What is small and text, and the config, is never expected: a server that makes a model by create is told
    what it says, so it has to be at hand.
    """
    there = [one for one in models if one.document.id in known.ids.get(one.name.folded, ())]
    names = {one.name.folded for one in there}
    others = [one for one in models if one.name.folded not in names]
    found = [
        known.blobs[blob.digest]
        for blob in blobs_of(others)
        if blob.digest is not None and blob.digest in known.blobs and _may_stay(blob)
    ]
    return Left(tuple(others), tuple(there), Expects.of(found).only(blobs_of(others)))


def _may_stay(blob: Blob) -> bool:
    return blob.media_type not in TEXTS and blob.media_type != CONFIG


def _told(text: str) -> Iterable[Held]:
    path = path_of(text)
    found = telling(path)
    if isinstance(found, Inventory):
        return found.models
    if isinstance(found, Record):
        return known_of_record(found)
    try:
        store = locate.source(text)
    except ModelpackError as error:
        if isinstance(error, Local) or not path.exists():
            raise
        raise Unsupported(_NEITHER, where=text, advice=_ADVICE) from None
    if not isinstance(store, Archive | FolderBundle):
        raise Unsupported(_NEITHER, where=text, advice=_ADVICE)
    return [held(model) for model in store.models()]


def known_of_record(record: Record) -> Iterable[Held]:
    """The models that arrived by *record*; blobs only of those that are there as they were sent.

    None of which --prove found that it is there otherwise.
    """
    otherwise = record.disproved
    for one in record.models:
        if one.name in otherwise:
            continue
        if one.id is not None or one.same == "bytes":
            blobs = _blobs(one)
            yield Held(one.name, one.id or one.document, sum(size for _, size in blobs), blobs)


def _blobs(one: Arrived) -> tuple[tuple[Digest, int], ...]:
    if one.same not in ("bytes", "blobs"):  # a server made something of its own of what it was sent
        return ()
    return tuple(sorted({blob.digest: blob.size for blob in one.blobs}.items()))


def _models_here(source: Source, models: Sequence[Model], look: Installed) -> Iterable[Model]:
    """*models*, all others of a *source* at hand, and all that are installed here and can be read."""
    yield from models
    if not (isinstance(source, Afar) and source.afar()):  # a server would push every model for that
        yield from source.models()
    for place in look.places:
        try:
            yield from ModelsDir(place).models()
        except ModelpackError:
            continue  # a directory that may not be read
