"""Put back what is bad in a store, from wherever it can be had; nothing is deleted."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unsupported
from modelpack.hands.disk import Folder
from modelpack.stores import Source
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.models_dir_scan import lookup
from modelpack.verbs.fsck import fsck
from modelpack.verbs.repair_archive import repair_archive
from modelpack.verbs.repair_bench import Bench, bench
from modelpack.verbs.repair_folder import repair_folder
from modelpack.verbs.repair_spares import Mended as Mended
from modelpack.verbs.repair_spares import Repaired as Repaired
from modelpack.verbs.repair_spares import Spare as Spare
from modelpack.verbs.repair_spares import Spares
from modelpack.verbs.verdict import Verdict, faults
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.report import Report, silent


def repair(
    store: Source, spares: Sequence[Spare], names: Sequence[str] = (), report: Report = silent
) -> Repaired:
    """Find what is bad in *store*, a models directory or a bundle, and put it back from *spares*.

    Each blob comes from the first of them that has it, and is hashed on its way. What stood in its place is
    kept aside, in the same file system. With *names*, only those models are looked at; an archive is repaired
    whole.

    Nothing that is whole is touched, and Ollama may run meanwhile. What cannot be put back is in `left`.
    Raised is what keeps it from beginning: NotFound, Local, Unsupported, Corrupt where a bundle's documents
    leave nothing to go by, and what keeps one of *spares* from being listed.
    """
    if isinstance(store, ModelsDir):
        return _Directory(store, spares, report).repaired(names)
    if isinstance(store, FolderBundle):
        return repair_folder(store, spares, names, report)
    if isinstance(store, Archive):
        return repair_archive(store, spares, report)
    raise Unsupported(
        "is neither a models directory nor a bundle", advice="Only those know what their bytes should be."
    )


class _Stood(NamedTuple):
    """The document that stood under a name, as far as can be told; which source has it; and a doubt."""

    image: Image
    place: str
    doubt: str


class _Directory:
    """A models directory that is repaired: its blobs by their digests, its manifests by their names."""

    def __init__(self, store: ModelsDir, spares: Sequence[Spare], report: Report) -> None:
        self._store, self._spares, self._report = store, Spares(spares), report
        self._mending = ModelsDir(store.path, replace=True)
        self._done = Repaired()
        self._mended: set[int] = set()
        self._why: dict[int, ModelpackError] = {}

    def repaired(self, names: Sequence[str]) -> Repaired:
        """What came of it."""
        with Folder.at(self._store.path) as root, contextlib.ExitStack() as stack:
            if root.stat("manifests") is None:
                raise NotFound("is no models directory: it has no manifests/", where=self._store.path)
            like = root.own_stat()
            blobs = stack.enter_context(root.folder("blobs", create=True, like=like))
            blobs.lock()  # of two repairs, the second looks when the first has done
            verdict = Verdict()
            fsck(self._store, names, verdict, True, self._report)
            self._done.unchecked = verdict.unchecked
            if not verdict.good:
                wanted = {
                    blob.digest: blob for blob, error in verdict.bad if isinstance(error, Corrupt | NotFound)
                }
                torn = self._torn(verdict, blobs, wanted)
                tools = stack.enter_context(bench(root, list(wanted.values()), self._report, like=like))
                failed = self._blobs(tools, blobs, wanted, [model for _, model, _ in torn])
                for blob, error in verdict.bad:
                    self._note(error, failed.get(blob.digest), blob.digest in wanted)
                for error, model, stood in torn:
                    lost = next((failed[one.digest] for one in model.blobs if one.digest in failed), None)
                    self._note(error, lost or self._manifest(tools, root, model, stood), True)
            self._done.leave(verdict.problems, self._mended, self._why)
        return self._done

    def _note(self, problem: ModelpackError, why: ModelpackError | None, tried: bool) -> None:
        if why is not None:
            self._why[id(problem)] = why
        elif tried:
            self._mended.add(id(problem))

    def _torn(
        self, verdict: Verdict, blobs: Folder, wanted: dict[Digest | None, Blob]
    ) -> list[tuple[ModelpackError, Model, _Stood]]:
        """Damaged manifests, the models of those names, from where; *wanted* gets what they miss."""
        found: list[tuple[ModelpackError, Model, _Stood]] = []
        for name, error in verdict.torn:
            if not isinstance(error, Corrupt):
                continue
            images = self._spares.images(name)
            if not images:
                self._why[id(error)] = NotFound(f"none of the sources has a model of the name {name}")
                continue
            stood = _likeliest(images, blobs, self._store.models())
            model = Model(name, stood.image)
            bad = {
                blob.digest: (blob, why)
                for blob, why in faults(self._store.open, model.blobs, Verdict(), True, self._report)
            }
            odd = [why for _, why in bad.values() if not isinstance(why, Corrupt | NotFound)]
            if odd:
                self._why[id(error)] = odd[0]
                continue
            wanted |= {digest: blob for digest, (blob, _) in bad.items()}
            for blob in model.blobs:
                if blob.digest not in bad:
                    self._vouch(blobs, blob)
            found.append((error, model, stood))
        return found

    def _vouch(self, blobs: Folder, blob: Blob) -> None:
        """*blob* is right: its file is not read once more before its model gets its name."""
        if blob.digest is not None and (found := blobs.stat(blob.digest.file_name)) is not None:
            self._mending.vouch(blob.digest, found)

    def _blobs(
        self, tools: Bench, blobs: Folder, wanted: dict[Digest | None, Blob], more: Sequence[Model]
    ) -> dict[Digest | None, ModelpackError]:
        """Put the *wanted* blobs back; those that could not be, and why."""
        models = [*self._store.models(), *more]
        named = {digest.file_name: blob for digest, blob in wanted.items() if digest is not None}
        failed: dict[Digest | None, ModelpackError] = {}
        for blob, outcome in tools.blobs(blobs, named, self._spares, models):
            if isinstance(outcome, ModelpackError):
                failed[blob.digest] = outcome
                continue
            self._done.mended.append(outcome)
            if blob.digest is not None:
                # Else Ollama puts it in the place of the right one when it starts (server/fixblobs.go).
                tools.aside(blobs, str(blob.digest), move=True)
                self._vouch(blobs, blob)
        return failed

    def _manifest(self, tools: Bench, root: Folder, model: Model, stood: _Stood) -> ModelpackError | None:
        """Put the manifest of *model* back, which *stood* there; or why not."""
        try:
            if not self._still_torn(model.name):  # somebody else was faster
                return None
            with self._mending.session([model], self._report) as session, contextlib.ExitStack() as stack:
                folder = stack.enter_context(root.folder("manifests"))
                for part in model.name.parts[:3]:
                    folder = stack.enter_context(folder.folder(part))
                aside = tools.aside(folder, model.name.tag, f"{model.name.model}-{model.name.tag}")
                session.commit(model)
        except ModelpackError as error:
            return error
        raw = model.document.raw
        self._done.mended.append(
            Mended(
                "manifest",
                str(model.name),
                len(raw),
                stood.place,
                aside,
                model.document.id.short,
                stood.doubt,
            )
        )
        return None

    def _still_torn(self, name: Name) -> bool:
        try:
            self._store.read(name)
        except Corrupt:
            return True
        return False


def _likeliest(images: Sequence[tuple[Image, str]], blobs: Folder, others: Sequence[Model]) -> _Stood:
    """Which of *images*, each with its place, stood where a manifest is torn, beside those of *others*.

    It says nothing any more; but the blobs that it named may still be in *blobs*, and no other names them.
    """
    named = {blob.digest for model in others for blob in model.blobs}

    def missing(image: Image) -> int:
        return sum(not _is_here(blobs, blob) for blob in image.blobs)

    def own(image: Image) -> int:
        return sum(blob.digest not in named and _is_here(blobs, blob) for blob in image.blobs)

    image, place = min(images, key=lambda one: (missing(one[0]), -own(one[0])))
    if own(image):
        return _Stood(image, place, "")
    rest = [f"{one.id.short} from {where}" for one, where in images if one is not image]
    beside = f"; it may have been {', '.join(rest)}" if rest else ""
    return _Stood(image, place, f"by its name alone: nothing here says that it was {image.id.short}{beside}")


def _is_here(blobs: Folder, blob: Blob) -> bool:
    with contextlib.suppress(Refused):  # a link
        return blob.digest is not None and lookup(blobs, blob.digest)[1] == blob.size
    return False
