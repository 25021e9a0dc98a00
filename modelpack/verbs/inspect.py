"""What is in a store: its models, what they share, what their GGUFs say, the Modelfile of each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelpack.documents.expects import NOTHING, Expects
from modelpack.documents.gguf_header import Gguf
from modelpack.documents.model import Model
from modelpack.errors import Corrupt, ModelpackError
from modelpack.stores import Afar, Identified, Scans, Singles, Source
from modelpack.stores.archive import Archive
from modelpack.stores.files import LooseGguf
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.models_dir_scan import Stray
from modelpack.stores.pipe import PipeSource
from modelpack.stores.plain import PlainFolder
from modelpack.verbs.locate import choose, picked
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest

_SHOWN = 3


@dataclass(frozen=True)
class Inspected:
    """A store's kind, its fingerprint where it is a bundle, its models, and what is wrong or odd about it."""

    kind: str
    fingerprint: Digest | None
    models: tuple[Model, ...]
    """Those that were asked for."""
    beside: tuple[Model, ...] = ()
    """The others of the store."""
    problems: tuple[ModelpackError, ...] = ()
    remarks: tuple[str, ...] = ()
    """Sentences about what is odd and no damage: files that belong to no model."""
    delta: Expects = NOTHING
    """What a delta does not hold, as it expects it at the target."""
    gguf: Gguf | None = None
    """The header, where the store is one loose GGUF (which may be no model: a shard, an adapter)."""


def inspect(source: Source, names: Sequence[str] = ()) -> Inspected:
    """What *source* holds; of its models those of *names*, or all. No blob is read.

    The blobs of a models directory are looked at by name and size. Raises what keeps the documents from being
    read, and NotFound for a name that is not there.
    """
    if isinstance(source, ModelsDir):
        return _directory(source, names)
    if isinstance(source, LooseGguf):
        gguf = source.gguf
        try:
            models = source.models()
        except ModelpackError as error:
            return Inspected("GGUF", None, (), problems=(error,), gguf=gguf)
        return Inspected("GGUF", None, tuple(choose(models, names, source.path)), gguf=gguf)
    if names and isinstance(source, Singles):
        return Inspected("server", None, tuple(picked(source, names, "")))
    if isinstance(source, Scans):
        every = list(source.scan())
        unread = [one for one in every if isinstance(one, ModelpackError)]
        models = tuple(one for one in every if isinstance(one, Model))
        return Inspected("server", None, models, problems=tuple(unread))
    chosen, beside = _chosen(source.models(), names)
    if isinstance(source, PlainFolder):
        changed = source.look(chosen if names else None)
        problems = [Corrupt(what, where=source.path) for what in changed]
        return Inspected("folder of unpacked models", None, chosen, beside, tuple(problems))
    if isinstance(source, Identified):
        delta = NOTHING
        fingerprint = source.fingerprint
        if isinstance(source, Archive | FolderBundle | PipeSource):
            delta = source.contents.delta
        return Inspected("bundle", fingerprint, chosen, beside, delta=delta)
    kind = "model in a registry" if isinstance(source, Afar) else "collection of loose files"
    return Inspected(kind, None, chosen, beside)


def _chosen(
    models: Sequence[Model], names: Sequence[str], store: Source | None = None
) -> tuple[tuple[Model, ...], tuple[Model, ...]]:
    if not names:
        return tuple(models), ()
    chosen = choose(models, names, "", store)
    picked = {id(model) for model in chosen}
    return tuple(chosen), tuple(model for model in models if id(model) not in picked)


def _directory(source: ModelsDir, names: Sequence[str]) -> Inspected:
    found = list(source.scan())
    models = [one for one in found if isinstance(one, Model)]
    strays = [one for one in found if isinstance(one, Stray)]
    problems = [one for one in found if isinstance(one, ModelpackError) and not isinstance(one, Stray)]
    chosen, beside = _chosen(models, names, source)
    problems = [] if names else problems  # what is wrong with others does not touch those that are asked for
    unread = bool(problems)
    left: list[str] = []
    problems += contradictions(chosen)
    try:
        faults, left = source.look(chosen)
        problems += _used_by(faults, chosen)
    except ModelpackError as error:
        problems += [error] if chosen else []
    remarks = () if names else (*_on_manifests(strays, source.path), *_on_blobs(left, unread))
    return Inspected("models directory", None, chosen, beside, tuple(problems), remarks)


def contradictions(models: Sequence[Model]) -> Iterator[Corrupt]:
    """Blobs of one digest to which *models* give several sizes: one of them at least is wrong."""
    first: dict[object, tuple[Blob, Model]] = {}
    for model in models:
        for blob in model.blobs:
            there, other = first.setdefault(blob.id, (blob, model))
            if there.size != blob.size:
                what = f"says that {blob} has {blob.size} bytes; {other.name} says {there.size}"
                yield Corrupt(what, where=model.name)


def _used_by(
    faults: Sequence[tuple[Blob, ModelpackError]], models: Sequence[Model]
) -> Iterator[ModelpackError]:
    users: dict[object, list[str]] = {blob.id: [] for blob, _ in faults}
    for model in models if users else ():
        for blob in model.blobs:
            if blob.id in users:
                users[blob.id].append(str(model.name))
    for blob, error in faults:
        error.what += f" (used by {_some(users[blob.id])})"
        yield error


def _on_manifests(strays: Sequence[Stray], path: os.PathLike[str]) -> Iterator[str]:
    if strays:
        shown = _some([os.path.relpath(one.where, path) for one in strays])
        advice = next((f" {one.advice}" for one in strays if one.advice), "")
        yield f"{_files(strays)} in manifests/ that are no manifests: {shown}.{advice}"


def _on_blobs(left: Sequence[str], unread: bool) -> Iterator[str]:
    unfinished = [name for name in left if "-partial" in name]  # server/download.go of Ollama
    others = [name for name in left if "-partial" not in name]
    if unfinished:
        yield f"{_files(unfinished)} in blobs/ of pulls that did not end: {_some(unfinished)}."
    if others:
        doubt = " (a manifest that cannot be read may)" if unread else ""
        yield f"{_files(others)} in blobs/ that no model here names{doubt}: {_some(others)}."


def _files(some: Sequence[object]) -> str:
    return "1 file" if len(some) == 1 else f"{len(some)} files"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
