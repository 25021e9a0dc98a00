"""What is odd in a models directory and no damage: files that nobody needs, or that Ollama stumbles over."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from modelpack.documents.model import Model
from modelpack.hands.disk import kind_of
from modelpack.hands.scratch import SCRATCH
from modelpack.hands.temporary import is_temporary
from modelpack.stores.models_dir_fsck import BAD, Entry, Owner, survey
from modelpack.stores.models_dir_scan import Stray
from modelpack.verbs.verdict import Remark
from modelpack.words.digest import Digest
from modelpack.words.text import size as shown_size

_YOUNG = 3600.0  # seconds for which Ollama leaves a file in blobs/ alone (server/images.go)

_BLOB = re.compile(r"sha256[:-]([0-9a-fA-F]{64})(-partial(?:-\d+)?)?", re.ASCII)

_ORPHAN = "Ollama removes it at a start, once it is older than an hour. No model misses it."
_PARTIAL = "The same pull goes on with it. Else Ollama removes it at a start, once it is older than an hour."
_FOREIGN = "Move it away if you want to keep it: Ollama removes such a file at a start."
_OURS = "Not Ollama's, and of no harm: remove it if you do not need it."
_COLON = "Ollama renames it at its next start. Until then it cannot be copied to Windows, FAT or exFAT."
_COLON_HOST = "It cannot be copied to Windows, FAT or exFAT: carry the model in a bundle."
_CASE = "Ollama takes one of the two for both: give one another name, or remove it."
_TEMPORARY = (
    "A run of modelpack left it; the next one finishes it. Do not remove it while it is the only name."
)
_SET_ASIDE = "What `modelpack repair` has replaced: remove it when it is of no more use."
_UNFINISHED = "A broken run left it; the next one takes it up, or removes it."
_TAKEN = "Remove it: `load` and `repair` cannot write here while it has that name."


def remarks(
    path: Path, before: Iterable[Entry], models: Sequence[Model], strays: Sequence[Stray], torn: bool
) -> Iterator[Remark]:
    """What is odd and no damage in the models directory at *path*.

    *before* is what lay there before *models* and *strays* were read from its manifests, some of which were
    *torn*. Manifests come after their blobs: what was there before, and none of them names, is odd.
    """
    there = {(entry.parts, entry.found.st_ino) for entry in before}
    entries = [entry for entry in survey(path) if (entry.parts, entry.found.st_ino) in there]
    named = {blob.digest for model in models for blob in model.blobs}
    for entry in entries:
        where = str(path.joinpath(*entry.parts))
        if entry.parts[0] == "blobs" and len(entry.parts) > 1:
            yield from _of_blob(entry, where, named, entries, torn)
        elif entry.parts[0] == "manifests" and len(entry.parts) == 2 and entry.folder and ":" in entry.name:
            yield Remark("colon", "is a registry's host with a colon before its port", where, _COLON_HOST)
        elif entry.parts in ((SCRATCH,), (SCRATCH, BAD)) and not entry.folder:
            what = f"is {kind_of(entry.found.st_mode)} where modelpack's own directory would be"
            yield Remark("foreign", what, where, _TAKEN, entry.bytes)
        elif entry.parts[0] == SCRATCH and not entry.folder:
            kept = entry.parts[1] == BAD
            kind, advice = ("set-aside", _SET_ASIDE) if kept else ("unfinished", _UNFINISHED)
            yield Remark(kind, f"{shown_size(entry.bytes)} of modelpack's own", where, advice, entry.bytes)
    for stray in strays:
        kind = "bad-name" if stray.advice else "foreign"  # the advice is there where Ollama looks
        yield Remark(kind, stray.what, stray.where, stray.advice or _OURS)
    yield from _of_names(path, models)
    yield from _of_rights(path, entries)


def unknown(path: Path) -> Iterator[str]:
    """What nobody can tell of the rights there, in sentences."""
    with contextlib.suppress(OSError):
        if Owner(path).is_root:
            yield (
                "Rights: root owns the directory; whether the user that Ollama runs as may read and write "
                "there is not known."
            )


def _of_blob(
    entry: Entry, where: str, named: set[Digest | None], entries: Sequence[Entry], torn: bool
) -> Iterator[Remark]:
    form = _BLOB.fullmatch(entry.name)
    digest = Digest("sha256", form[1].lower()) if form is not None else None
    if form is None or digest is None or not entry.plain:
        if digest is None or digest not in named:  # else it is among the problems: a model needs it
            what = f"is {kind_of(entry.found.st_mode)} that is no blob"
            yield Remark("foreign", what, where, _OURS if entry.folder else _FOREIGN, entry.bytes)
        return
    if form[2]:
        what = f"{shown_size(entry.bytes)} of a pull that did not end"
        yield Remark("partial", what, where, _PARTIAL, entry.bytes)
        return
    if ":" in entry.name:
        twin = any(one.parts == ("blobs", digest.file_name) for one in entries)
        beside = f"; at its next start Ollama puts it in the place of {digest.file_name}" if twin else ""
        yield Remark("colon", f"is a blob with a colon in its name{beside}", where, _COLON, entry.bytes)
    if digest not in named:
        doubt = " (a manifest that cannot be read may)" if torn else ""
        young = time.time() - entry.found.st_mtime < _YOUNG
        doubt += "; it is new: a pull or load may be at work" if young else ""
        what = f"{shown_size(entry.bytes)} that no manifest names{doubt}"
        yield Remark("orphan", what, where, _ORPHAN, entry.bytes)


def _of_names(path: Path, models: Iterable[Model]) -> Iterator[Remark]:
    first: dict[str, Model] = {}
    for model in models:
        where = str(path.joinpath("manifests", *model.name.parts))
        other = first.setdefault(model.name.folded, model)
        if other is not model:
            yield Remark("case", f"{model.name} and {other.name} differ in case alone", where, _CASE)
        if is_temporary(model.name):
            yield Remark("temporary", f"{model.name} is a name for a moment", where, _TEMPORARY)


def _of_rights(path: Path, entries: Iterable[Entry]) -> Iterator[Remark]:
    try:
        owner = Owner(path)
    except OSError:
        return
    advice = f"Run `chown -R --reference={path} {path}` as root."
    for entry in entries:
        rights, verb = (7, "change") if entry.folder else (4, "read")
        if entry.plain and entry.parts[0] == "manifests" and owner.may(entry.found, 4):
            rights, verb = 6, "change"  # pull and create write into the file that is there
        if entry.parts[0] != SCRATCH and not owner.may(entry.found, rights):
            what = f"the directory's owner ({owner.name}) cannot {verb} it"
            yield Remark("rights", what, os.path.join(path, *entry.parts), advice)
