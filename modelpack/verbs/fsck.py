"""Is a models directory whole? What is wrong there, and what is odd; also while others write to it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelpack.documents.model import Model, blobs_of
from modelpack.errors import ModelpackError, Usage
from modelpack.hands.scratch import SCRATCH
from modelpack.hands.temporary import is_temporary
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.models_dir_fsck import Entry, Mark, Owner, manifest_marks, marks, survey
from modelpack.stores.models_dir_scan import Stray
from modelpack.verbs.locate import choose
from modelpack.verbs.verdict import Remark, Verdict, blame, describe, faults
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.report import Report
from modelpack.words.text import size as shown_size

BAD = "bad"
"""Where `repair` keeps the damaged files that it has replaced: below modelpack's own directory."""

_LOOKS = 5
_PAUSE = 0.2  # seconds; Ollama's copy of a name empties the manifest before it writes it
_YOUNG = 3600.0  # seconds for which Ollama leaves a file in blobs/ alone (server/images.go)

_BLOB = re.compile(r"sha256[:-]([0-9a-fA-F]{64})(-partial(?:-\d+)?)?", re.ASCII)

_REPAIR = "Put it right with `modelpack repair`. A pull takes a file of that name and does not look into it."
_UNREADABLE = (
    "Put it right with `modelpack repair`, or pull or load the model again, before another one is removed: "
    "with that Ollama removes blobs that only this one names."
)  # Manifest.RemoveLayers in manifest/manifest.go
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


@dataclass(frozen=True)
class _Scan:
    """The manifests, once read."""

    models: tuple[Model, ...]
    torn: dict[str, ModelpackError]
    """By path."""
    strays: tuple[Stray, ...]
    marks: dict[str, Mark]
    """Of each manifest, by path, what changes where the file does; from before it was read."""

    @classmethod
    def of(cls, store: ModelsDir) -> _Scan:
        marks = manifest_marks(store.path)
        found = list(store.scan())
        wrong = [one for one in found if isinstance(one, ModelpackError) and not isinstance(one, Stray)]
        return cls(
            tuple(one for one in found if isinstance(one, Model)),
            {one.where: one for one in wrong},
            tuple(one for one in found if isinstance(one, Stray)),
            marks,
        )

    def rests(self, last: _Scan, where: str) -> bool:
        """Whether the manifest *where* is the very file that it was when *last* was made."""
        mark = self.marks.get(where)
        return mark is not None and mark == last.marks.get(where)


def fsck(store: ModelsDir, names: Sequence[str], verdict: Verdict, sha256: bool, report: Report) -> None:
    """Check the models directory *store*; what is wrong and what is odd goes into *verdict*.

    Another process may write there: what looks missing, damaged or unreadable is looked at again until it
    stays as it is, or its model is gone; what never comes to rest is said to be unchecked. With *names*, only
    those models are looked at.
    """
    before = survey(store.path)
    scan = _Scan.of(store)
    chosen = _chosen(store, scan, names)
    held = _Held(store, verdict, sha256, report)
    held.look(blobs_of(chosen))
    for _ in range(_LOOKS):
        if not held.bad and not scan.torn:
            break
        time.sleep(_PAUSE)
        last, scan = scan, _Scan.of(store)
        chosen = _chosen(store, scan, names)
        moving = held.look(blobs_of(chosen)) | held.loose(chosen, scan, last)
        fresh = [
            where for where in scan.torn if where not in last.torn or not _rests(store, scan, last, where)
        ]
        if not moving and not fresh:
            break
    else:
        restless = [str(one) for one in (*moving, *fresh)]
        verdict.unchecked.append(
            f"What changed at every look: {', '.join(restless[:3])}. Verify it again at a quieter time."
        )
        for digest in moving:
            del held.bad[digest]
        for where in fresh:
            del scan.torn[where]
    describe(chosen, verdict)
    for torn in scan.torn.values():
        torn.advice = torn.advice or _UNREADABLE
        verdict.problems.append(torn)
        if (name := _name_of(store.path, torn.where)) is not None:
            verdict.torn.append((name, torn))
    for _, error in held.bad.values():
        error.advice = _REPAIR
    blame(chosen, held.bad.values(), verdict)
    if not scan.models and not scan.torn and not scan.strays:
        verdict.unchecked.append("It holds no model.")
    if not names:
        verdict.remarks += _remarks(store, before)


def _chosen(store: ModelsDir, scan: _Scan, names: Sequence[str]) -> Sequence[Model]:
    if not names:
        return scan.models
    # What is wrong with others does not touch those that are asked for.
    wanted = {Name.parse(name).folded for name in names}
    there = {where: name.folded for where in scan.torn if (name := _name_of(store.path, where)) is not None}
    for where in list(scan.torn):
        if there.get(where) not in wanted:
            del scan.torn[where]
    rest = [name for name in names if Name.parse(name).folded not in there.values()]
    return choose(scan.models, rest, store.path) if rest else ()


def _name_of(path: Path, where: str) -> Name | None:
    """The name of the model whose manifest is *where* below *path*; None where that is none's."""
    try:
        return Name.of_path(Path(where).relative_to(path / "manifests").parts)
    except (Usage, ValueError):
        return None


def _rests(store: ModelsDir, scan: _Scan, last: _Scan, where: str) -> bool:
    return _name_of(store.path, where) is None or scan.rests(last, where)  # else it is no manifest's place


class _Held:
    """Blobs held against their hashes, each once, and again where its file is another one by then."""

    def __init__(self, store: ModelsDir, verdict: Verdict, sha256: bool, report: Report) -> None:
        self._store, self._verdict, self._sha256, self._report = store, verdict, sha256, report
        self._seen: dict[Digest, Mark] = {}
        self.bad: dict[Digest, tuple[Blob, ModelpackError]] = {}

    def look(self, wanted: Sequence[Blob]) -> set[Digest]:
        """Read those of *wanted* that need it; which of those are bad.

        Bad ones that nobody wants any more are forgotten.
        """
        now = marks(self._store.path, wanted)
        known = {blob.digest for blob in wanted}
        self.bad = {digest: one for digest, one in self.bad.items() if digest in known}
        todo: dict[Digest, Blob] = {}
        for blob in wanted:
            if blob.digest is None:
                continue
            mark = now.get(blob.digest, ())
            if blob.digest not in self._seen or (blob.digest in self.bad and self._seen[blob.digest] != mark):
                todo[blob.digest] = blob
                self._seen[blob.digest] = mark
                self.bad.pop(blob.digest, None)
        if todo:
            found = faults(self._store.open, list(todo.values()), self._verdict, self._sha256, self._report)
            self.bad |= {blob.digest: (blob, error) for blob, error in found if blob.digest is not None}
        return todo.keys() & self.bad.keys()

    def loose(self, models: Sequence[Model], scan: _Scan, last: _Scan) -> set[Digest]:
        """Bad blobs that no manifest has named all the while: their models may have gone, and come again."""
        steady = {
            blob.digest
            for model in models
            if scan.rests(last, str(self._store.path.joinpath("manifests", *model.name.parts)))
            for blob in model.blobs
        }
        return {digest for digest in self.bad if digest not in steady}


# --- what is odd


def _remarks(store: ModelsDir, before: Iterable[Entry]) -> Iterator[Remark]:
    # Manifests come after their blobs: what was there before they are read now, and they do not name, is odd.
    there = {(entry.parts, entry.found.st_ino) for entry in before}
    scan = _Scan.of(store)
    entries = [entry for entry in survey(store.path) if (entry.parts, entry.found.st_ino) in there]
    named = {blob.digest for model in scan.models for blob in model.blobs}
    for entry in entries:
        where = str(store.path.joinpath(*entry.parts))
        if entry.parts[0] == "blobs" and len(entry.parts) > 1:
            yield from _of_blob(entry, where, named, entries, bool(scan.torn))
        elif entry.parts[0] == "manifests" and len(entry.parts) == 2 and entry.folder and ":" in entry.name:
            yield Remark("colon", "is a registry's host with a colon before its port", where, _COLON_HOST)
        elif entry.parts[0] == SCRATCH and not entry.folder:
            kept = entry.parts[1] == BAD
            kind, advice = ("set-aside", _SET_ASIDE) if kept else ("unfinished", _UNFINISHED)
            yield Remark(kind, f"{shown_size(entry.bytes)} of modelpack's own", where, advice, entry.bytes)
    for stray in scan.strays:
        kind = "bad-name" if stray.advice else "foreign"  # the advice is there where Ollama looks
        yield Remark(kind, stray.what, stray.where, stray.advice or _OURS)
    yield from _of_names(store.path, scan.models)
    yield from _of_rights(store.path, entries)


def _of_blob(
    entry: Entry, where: str, named: set[Digest | None], entries: Sequence[Entry], torn: bool
) -> Iterator[Remark]:
    form = _BLOB.fullmatch(entry.name)
    if form is None or not entry.plain:
        kind = "directory" if entry.folder else "file" if entry.plain else "special file"
        yield Remark(
            "foreign", f"is a {kind} that is no blob", where, _OURS if entry.folder else _FOREIGN, entry.bytes
        )
        return
    if form[2]:
        what = f"{shown_size(entry.bytes)} of a pull that did not end"
        yield Remark("partial", what, where, _PARTIAL, entry.bytes)
        return
    digest = Digest("sha256", form[1].lower())
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
