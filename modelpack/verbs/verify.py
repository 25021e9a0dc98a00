"""Is it whole? Every problem, the cheapest questions first: structure, presence and sizes, bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from modelpack.documents.contents import Contents
from modelpack.documents.image import Image
from modelpack.documents.model import Model, blobs_of
from modelpack.documents.oci import ALL_DOCUMENTS, blob_path, bundle
from modelpack.documents.sums import parse_sums
from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unexpected, Unsupported
from modelpack.hands.crew import Gone, Stoppable, in_parallel
from modelpack.hands.hashing import Counted, check, pour
from modelpack.stores import Afar, OneWay, Reader, Source
from modelpack.stores.archive import Archive
from modelpack.stores.files import LooseGguf
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.models_dir_scan import Stray
from modelpack.stores.plain import PlainFolder
from modelpack.verbs.hashes import cores
from modelpack.verbs.inspect import contradictions
from modelpack.verbs.locate import choose
from modelpack.words.blob import MIB, MODEL, SMALL, TENSOR, Blob
from modelpack.words.digest import Digest
from modelpack.words.report import Moved, Report, Stage, Step, silent

_BIG = 64 * MIB


@dataclass
class Verdict:
    """What was found, and what was looked at. `fingerprint` is None for what is no bundle."""

    fingerprint: Digest | None = None
    models: int = 0
    blobs: int = 0
    bytes_read: int = 0
    by: set[str] = field(default_factory=set)
    """The hashes that bytes were held against: `BLAKE3`, `SHA-256`."""
    problems: list[ModelpackError] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    """What was not checked, in sentences."""

    @property
    def good(self) -> bool:
        """Whether nothing is wrong with what was checked."""
        return not self.problems


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
        found = list(store.scan())
        odd = [one for one in found if isinstance(one, Stray)]
        verdict.problems += [
            one for one in found if isinstance(one, ModelpackError) and not isinstance(one, Stray)
        ]
        readable = [one for one in found if isinstance(one, Model)]
        if not found:
            verdict.unchecked.append("It holds no model.")
        chosen = choose(readable, names, store.path, store) if names else readable
        _blobs(store, chosen, verdict, sha256, report)
        strays = store.strays(readable)
        if strays:
            verdict.unchecked.append(f"{len(strays)} files in blobs/ that no model here names.")
        if odd:
            verdict.unchecked.append(f"{len(odd)} files in manifests/ that are no manifests by their names.")
    elif isinstance(store, PlainFolder):
        _plain(store, names, verdict, report)
    elif isinstance(store, Archive | FolderBundle):
        _bundle(store, names, verdict, sha256, report)
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


def _bundle(
    store: Archive | FolderBundle, names: Sequence[str], verdict: Verdict, sha256: bool, report: Report
) -> None:
    try:
        contents = store.contents
    except (Unexpected, Unsupported):  # nothing was found wrong: it is not for us to look into
        raise
    except ModelpackError as error:
        verdict.problems.append(error)
        _by_sums(store, verdict, report)
        return
    verdict.fingerprint = contents.fingerprint
    _sums(store, contents, verdict)
    if isinstance(store, Archive):
        verdict.problems += store.slack()
    models = choose(contents.models, names, store.path) if names else contents.models
    _blobs(store, models, verdict, sha256, report)
    foreign = len(contents.index.foreign)
    if foreign:
        verdict.unchecked.append(f"{foreign} entries of index.json that are no models of modelpack's.")


def _by_sums(store: Archive | FolderBundle, verdict: Verdict, report: Report) -> None:
    """Where the documents cannot be believed, SHA256SUMS still says what each file should be."""
    try:
        files = store.files()
        lines = parse_sums(store.read("SHA256SUMS", ALL_DOCUMENTS), "SHA256SUMS")
    except ModelpackError:
        verdict.unchecked.append("Everything else: without its documents nobody knows what belongs there.")
        return
    verdict.unchecked.append("Which models are whole: files were held against SHA256SUMS alone.")
    there = []
    for path, digest in sorted(lines.items()):
        path = path.removeprefix("./")
        if path not in files:
            verdict.problems.append(NotFound(f"{path} is missing"))
        elif path.startswith("blobs/"):
            if path == blob_path(digest):
                there.append(Blob(files[path], "application/octet-stream", digest))
            else:
                verdict.problems.append(Corrupt(f"SHA256SUMS is damaged: its line for {path}"))
        else:
            try:
                if Digest.of(store.read(path, SMALL)) != digest:
                    verdict.problems.append(Corrupt(f"{path} is damaged"))
            except ModelpackError as error:
                verdict.problems.append(error)
    report(Stage("checking", sum(blob.size for blob in there)))
    for blob, problem in _in_turn(store.open, there, True, report):
        verdict.blobs += 1
        verdict.bytes_read += blob.size
        verdict.by.add("SHA-256")
        if problem is not None:
            verdict.problems.append(problem)


def _sums(store: Archive | FolderBundle, contents: Contents, verdict: Verdict) -> None:
    """The small files beside the blobs, against SHA256SUMS; and SHA256SUMS against what they are."""
    files = store.files()
    members = {member.path for member in bundle(contents.models).members}
    if contents.sums is None:
        verdict.unchecked.append(
            "README.txt and oci-layout: there is no SHA256SUMS (another tool wrote this)."
        )
    else:
        named = {path.removeprefix("./"): digest for path, digest in contents.sums.items()}
        for path, digest in sorted(named.items()):
            if path.startswith("blobs/sha256/"):
                if path != f"blobs/sha256/{digest.hex}":
                    verdict.problems.append(Corrupt(f"SHA256SUMS is damaged: its line for {path}"))
            elif path not in files:
                verdict.problems.append(NotFound(f"{path} is missing"))
            elif path != "index.json":
                try:
                    if Digest.of(store.read(path, 4 * MIB)) != digest:
                        verdict.problems.append(Corrupt(f"{path} is damaged"))
                except ModelpackError as error:
                    verdict.problems.append(error)
        if not contents.index.foreign:
            for path in sorted(members - named.keys() - {"SHA256SUMS"}):
                verdict.problems.append(Corrupt(f"SHA256SUMS has no line for {path}"))
    strangers = [path for path in files if path not in members]
    if strangers and not contents.index.foreign:
        shown = ", ".join(strangers[:3]) + (", …" if len(strangers) > 3 else "")
        verdict.unchecked.append(f"{len(strangers)} files that are not part of the bundle: {shown}")


def _blobs(
    store: Archive | FolderBundle | ModelsDir,
    models: Sequence[Model],
    verdict: Verdict,
    sha256: bool,
    report: Report,
) -> None:
    verdict.models = len(models)
    users: dict[object, list[str]] = {}
    for model in models:
        for blob in model.blobs:
            users.setdefault(blob.id, []).append(str(model.name))
        if isinstance(model.document, Image) and not model.document.of_kind(MODEL, TENSOR):
            verdict.unchecked.append(f"{model.name} has no weights of its own (as a cloud model).")
    verdict.problems += contradictions(models)
    there: list[Blob] = []
    for blob in blobs_of(models):
        try:
            with store.open(blob):
                there.append(blob)
        except ModelpackError as error:
            verdict.problems.append(_for(error, users[blob.id]))
    verdict.blobs = len(there)
    report(Stage("checking", sum(blob.size for blob in there)))
    for blob, problem in _in_turn(store.open, there, sha256, report):
        verdict.bytes_read += blob.size
        verdict.by.add("SHA-256" if sha256 or blob.blake3 is None else "BLAKE3")
        if problem is not None:
            verdict.problems.append(_for(problem, users[blob.id]))


def _for(error: ModelpackError, names: Sequence[str]) -> ModelpackError:
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    error.what = f"{error.what} (used by {shown})"
    return error


def _in_turn(
    open_blob: Callable[[Blob], AbstractContextManager[Reader]],
    blobs: Sequence[Blob],
    sha256: bool,
    report: Report,
) -> Iterator[tuple[Blob, ModelpackError | None]]:
    """Read every blob: big ones side by side, one core each; a big one alone by all cores (BLAKE3)."""
    hands = cores()
    big = sum(blob.size >= _BIG for blob in blobs)
    threads = hands if big < hands else 1

    def work(blob: Blob, gone: Gone) -> ModelpackError | None:
        by_blake3 = blob.blake3 is not None and not sha256
        try:
            with open_blob(blob) as reader:
                counted: Reader = Counted(Stoppable(reader, gone), lambda count: report(Moved(count)))
                hashes = pour(
                    counted,
                    blob.size,
                    sha256=not by_blake3,
                    blake3=by_blake3,
                    threads=threads,
                    overlap=threads > 1,
                )
                check(blob, hashes)
        except ModelpackError as error:
            return error
        return None

    largest_first = sorted(blobs, key=lambda blob: -blob.size)
    yield from in_parallel(largest_first, work, 1 if threads > 1 else hands)
