"""Is it whole? Every problem, the cheapest questions first: structure, presence and sizes, bytes."""

from __future__ import annotations

from collections.abc import Sequence

from modelpack.documents.model import blobs_of
from modelpack.errors import Corrupt, ModelpackError, Refused, Unsupported
from modelpack.stores import Afar, OneWay, Source
from modelpack.stores.archive import Archive
from modelpack.stores.files import LooseGguf
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.plain import PlainFolder
from modelpack.stores.volumes import VolumeSet
from modelpack.verbs.fsck import fsck
from modelpack.verbs.fsck_odd import unknown
from modelpack.verbs.locate import choose
from modelpack.verbs.verdict import Verdict as Verdict
from modelpack.verbs.verify_bundle import verify_bundle
from modelpack.words.report import Moved, Report, Step, silent


def verify(
    store: Source, names: Sequence[str] = (), *, sha256: bool = False, report: Report = silent
) -> Verdict:
    """Check a bundle, a models directory, unpacked models or a GGUF; of its models those of *names*, or all.

    With *sha256*, bytes are held against SHA-256 alone.

    Problems are collected. Raised is what keeps it from looking: NotFound, Local, Unsupported for a newer
    format, Unexpected for another bundle than was asked for.
    """
    verdict = Verdict()
    if isinstance(store, LooseGguf):
        _gguf(store, verdict)
    elif isinstance(store, ModelsDir):
        fsck(store, names, verdict, sha256, report)
        verdict.unchecked += unknown(store.path)
    elif isinstance(store, PlainFolder):
        _plain(store, names, verdict, report)
    elif isinstance(store, Archive | FolderBundle):
        verify_bundle(store, names, verdict, sha256, report)
    elif isinstance(store, VolumeSet):
        raise Unsupported(
            "is a set of volumes, each of which is checked alone",
            where=store.path,
            advice="As a library call, `modelpack.verbs.volumes.verify_set` does it, given the folders.",
        )
    elif isinstance(store, OneWay):
        raise Unsupported("cannot be verified in place", advice="Save it to a file first.")
    elif isinstance(store, Afar):
        raise Unsupported(
            "is not verified where it is", advice="`modelpack pack` checks every byte of it as it comes."
        )
    else:
        what = "is loose files: nothing says what their bytes should be"
        raise Unsupported(what, advice="`modelpack pack` hashes them; a bundle can be verified.")
    return verdict


def _gguf(store: LooseGguf, verdict: Verdict) -> None:
    try:
        gguf = store.gguf
    except ModelpackError as error:
        verdict.problems.append(error)
        return
    verdict.blobs = 1
    try:
        verdict.models = 1 if gguf.split is None or gguf.split.count < 2 else len(store.models())
    except ModelpackError as error:  # the other shards
        verdict.problems.append(error)
    if gguf.end_checked:
        verdict.unchecked.append("The bytes of the tensors: a loose GGUF has no hash to hold them against.")
    else:
        verdict.unchecked.append(
            "Whether all tensors are there (some are of a type modelpack does not know)."
        )


def _plain(store: PlainFolder, names: Sequence[str], verdict: Verdict, report: Report) -> None:
    try:
        models = choose(store.models(), names, store.path)
    except (Corrupt, Refused) as error:
        verdict.problems.append(error)
        return
    verdict.models, verdict.blobs, verdict.by = len(models), len(blobs_of(models)), {"SHA-256"}
    read: list[int] = []

    def told(step: Step) -> None:  # in any thread
        if isinstance(step, Moved):
            read.append(step.count)
        report(step)

    advice = "Unpack it again; or `modelpack pack` makes another model of what is there now."
    verdict.problems += [
        Corrupt(what, where=store.path, advice=advice)
        for what in store.changes(models if names else None, told)
    ]
    verdict.bytes_read = sum(read)
