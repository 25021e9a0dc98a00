"""Is a models directory whole? Also while others write to it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelpack.documents.model import Model, blobs_of
from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unchecked, Usage
from modelpack.hands.bytes import FileReader
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.models_dir_fsck import Mark, manifest_marks, marks, survey
from modelpack.stores.models_dir_scan import Stray
from modelpack.verbs.fsck_odd import remarks
from modelpack.verbs.locate import choose
from modelpack.verbs.verdict import Verdict, blame, describe, faults
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.report import Report

_LOOKS = 5
_PAUSE = 0.2  # seconds; Ollama's copy of a name empties the manifest before it writes it

_REPAIR = "Put it right with `modelpack repair`. A pull takes a file of that name and does not look into it."
_UNREADABLE = (
    "Put it right with `modelpack repair`, or pull or load the model again, before another one is removed: "
    "with that Ollama removes blobs that only this one names."
)  # Manifest.RemoveLayers in manifest/manifest.go
_IN_THE_WAY = "Move it away; then `modelpack repair` puts back what belongs there."
_LINK = "Ollama follows it. To have it checked and carried, put there what it leads to."


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
    stays as it is, or its model is gone. What never comes to rest, and what a link leads to, is Unchecked: a
    problem, and no damage. With *names*, only those models are looked at.
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
        shown = ", ".join(restless[:3]) + (", …" if len(restless) > 3 else "")
        verdict.problems.append(
            Unchecked(
                f"what looked wrong changed at every look: {shown}",
                where=store.path,
                advice="Verify it again at a quieter time.",
            )
        )
        for digest in moving:
            del held.bad[digest]
        for where in fresh:
            del scan.torn[where]
    describe(chosen, verdict)
    for found in scan.torn.values():
        torn = _judged(found, found.advice or _UNREADABLE)
        verdict.problems.append(torn)
        if (name := _name_of(store.path, torn.where)) is not None:
            verdict.torn.append((name, torn))
    verdict.blobs = len(held.opened)
    bad = [(blob, _judged(error, _REPAIR)) for blob, error in held.bad.values()]
    # What is the matter with blobs/ itself is said once.
    common = [one for one in bad if one[1].where == str(store.path / "blobs") and not _is_damage(one[1])]
    verdict.problems += [error for _, error in common[:1]]
    verdict.bad += common
    blame(chosen, [one for one in bad if one not in common], verdict)
    if not scan.models and not scan.torn and not scan.strays:
        verdict.unchecked.append("It holds no model.")
    if not names:
        last = _Scan.of(store)
        verdict.remarks += remarks(store.path, before, last.models, last.strays, bool(last.torn))


def _is_damage(error: ModelpackError) -> bool:
    return isinstance(error, Corrupt | NotFound)


def _judged(error: ModelpackError, advice: str) -> ModelpackError:
    """*error*, with its *advice* where that puts it right; Ollama may find a whole file behind a link."""
    if isinstance(error, Refused) and _leads_somewhere(error.where):
        return Unchecked(
            "is a symbolic link, which modelpack does not follow", where=error.where, advice=_LINK
        )
    if isinstance(error, Refused):
        error.advice = _IN_THE_WAY
    elif _is_damage(error):
        error.advice = advice
    return error


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


def _leads_somewhere(where: str) -> bool:
    try:
        return os.path.islink(where) and bool(os.stat(where))
    except FileNotFoundError:
        return False
    except OSError:  # whoever may look may know
        return True


class _Held:
    """Blobs held against their hashes, each once, and again where its file is another one by then."""

    def __init__(self, store: ModelsDir, verdict: Verdict, sha256: bool, report: Report) -> None:
        self._store, self._verdict, self._sha256, self._report = store, verdict, sha256, report
        self._seen: dict[Digest, Mark] = {}
        self.bad: dict[Digest, tuple[Blob, ModelpackError]] = {}
        self.opened: set[Digest | None] = set()
        """Those that were there, however often they were read."""

    def _open(self, blob: Blob) -> FileReader:
        reader = self._store.open(blob)
        self.opened.add(blob.digest)
        return reader

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
            found = faults(self._open, list(todo.values()), self._verdict, self._sha256, self._report)
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
