"""What GGUFs say of themselves, key by key."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelpack.documents.gguf_header import Gguf, Skipped
from modelpack.documents.model import Model
from modelpack.errors import ModelpackError, NotFound
from modelpack.stores import Source
from modelpack.stores.files import LooseGguf
from modelpack.verbs.headers import gguf_blobs, gguf_of
from modelpack.words.blob import MODEL, Blob

_NEAR = 5


@dataclass(frozen=True)
class Metadata:
    """A GGUF, the models that it belongs to, its header (or why there is none), and the keys asked for."""

    blob: Blob
    models: tuple[Model, ...]
    header: Gguf | ModelpackError
    keys: tuple[str, ...]


def metadata(source: Source, models: Sequence[Model], keys: Sequence[str] = ()) -> list[Metadata]:
    """Each GGUF of *models*, once, with all its keys, or those of *keys* that it has, their arrays read.

    Where *source* is a loose GGUF it is that very file, whatever *models* are. Without *keys*, long arrays
    stay `Skipped`. NotFound for a key that none of them has.
    """
    users: dict[object, tuple[Blob, list[Model]]] = {}
    for model in models:
        for blob in gguf_blobs(model):
            users.setdefault(blob.id, (blob, []))[1].append(model)
    found: list[Metadata] = []
    if isinstance(source, LooseGguf):
        blob = Blob(source.gguf.size, MODEL, title=source.path.name, key=source.file.key)
        found.append(Metadata(blob, tuple(models), source.gguf, tuple(source.gguf.metadata)))
    else:
        for blob, names in users.values():
            header = gguf_of(source, blob)
            there = tuple(header.metadata) if isinstance(header, Gguf) else ()
            found.append(Metadata(blob, tuple(names), header, there))
    if not keys:
        return found
    if all(isinstance(one.header, Gguf) for one in found):  # else it may be in the one that cannot be read
        _check(keys, list(dict.fromkeys(key for one in found for key in one.keys)))
    return [_picked(source, one, keys) for one in found]


def _check(keys: Sequence[str], there: Sequence[str]) -> None:
    for key in keys:
        if key not in there:
            near = [one for one in there if key.lower() in one.lower()]
            near += [one for one in difflib.get_close_matches(key, there, _NEAR) if one not in near]
            advice = f"Near it: {', '.join(near[:_NEAR])}" if near else "--metadata lists all keys."
            raise NotFound(f"no GGUF here has the key {key[:200]!r}", advice=advice)


def _picked(source: Source, one: Metadata, keys: Sequence[str]) -> Metadata:
    if not isinstance(one.header, Gguf):
        return one
    there = tuple(key for key in dict.fromkeys(keys) if key in one.header.metadata)
    if not any(isinstance(one.header.metadata[key], Skipped) for key in there):
        return replace(one, keys=there)
    return replace(one, header=gguf_of(source, one.blob, arrays=True), keys=there)
