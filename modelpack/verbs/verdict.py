"""What a verification found, and the reading of blobs that all kinds of stores share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from modelpack.documents.image import Image
from modelpack.documents.model import Model, blobs_of
from modelpack.errors import ModelpackError
from modelpack.hands.crew import Gone, Stoppable, in_parallel
from modelpack.hands.hashing import Counted, check, pour
from modelpack.stores import Reader, Source
from modelpack.verbs.hashes import cores
from modelpack.verbs.inspect import contradictions
from modelpack.words.blob import MIB, MODEL, TENSOR, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.report import Moved, Report, Stage

_BIG = 64 * MIB

OpenBlob = Callable[[Blob], AbstractContextManager[Reader]]


@dataclass(frozen=True)
class Remark:
    """Something odd that is no damage: its `kind` in one word, a sentence, where, and what to do.

    Kinds are `orphan`, `partial`, `foreign`, `bad-name`, `colon`, `rights`, `case`, `temporary`,
    `unfinished` and `set-aside`. `size` is in bytes on the medium, 0 where that says nothing.
    """

    kind: str
    what: str
    where: str
    advice: str = ""
    size: int = 0


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
    remarks: list[Remark] = field(default_factory=list)
    """What is odd and no damage."""
    bad: list[tuple[Blob, ModelpackError]] = field(default_factory=list)
    """The blobs among the problems: missing, damaged, or not to be read."""
    torn: list[tuple[Name, ModelpackError]] = field(default_factory=list)
    """The manifests among the problems, in a models directory: their models are not known but by name."""

    @property
    def good(self) -> bool:
        """Whether nothing is wrong with what was checked."""
        return not self.problems


def check_blobs(
    store: Source,
    models: Sequence[Model],
    verdict: Verdict,
    sha256: bool,
    report: Report,
    absent: Collection[Digest] = (),
) -> None:
    """Hold every blob of *models* in *store* against its hash, and note in *verdict* what came of it.

    Those that are *absent* need not be there.
    """
    describe(models, verdict)
    wanted = [blob for blob in blobs_of(models) if blob.digest not in absent]
    blame(models, faults(store.open, wanted, verdict, sha256, report), verdict)


def describe(models: Sequence[Model], verdict: Verdict) -> None:
    """Note in *verdict* what *models* themselves say: how many, what has no weights, what contradicts."""
    verdict.models = len(models)
    for model in models:
        if isinstance(model.document, Image) and not model.document.of_kind(MODEL, TENSOR):
            verdict.unchecked.append(f"{model.name} has no weights of its own (as a cloud model).")
    verdict.problems += contradictions(models)


def blame(models: Sequence[Model], found: Iterable[tuple[Blob, ModelpackError]], verdict: Verdict) -> None:
    """Note in *verdict* each blob that was *found* bad, and which of *models* use it."""
    users: dict[object, list[str]] = {}
    for model in models:
        for blob in model.blobs:
            users.setdefault(blob.id, []).append(str(model.name))
    for blob, error in found:
        names = users.get(blob.id, [])
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        error.what = f"{error.what} (used by {shown})"
        verdict.problems.append(error)
        verdict.bad.append((blob, error))


def faults(
    open_blob: OpenBlob, blobs: Sequence[Blob], verdict: Verdict, sha256: bool, report: Report
) -> list[tuple[Blob, ModelpackError]]:
    """Those of *blobs* that are missing or wrong, and why; *verdict* counts what was read.

    What can be told without reading comes first.
    """
    found: list[tuple[Blob, ModelpackError]] = []
    there: list[Blob] = []
    for blob in blobs:
        try:
            with open_blob(blob):
                there.append(blob)
        except ModelpackError as error:
            found.append((blob, error))
    verdict.blobs += len(there)
    report(Stage("checking", sum(blob.size for blob in there)))
    for blob, problem in in_turn(open_blob, there, sha256, report):
        verdict.bytes_read += blob.size
        verdict.by.add("SHA-256" if sha256 or blob.blake3 is None else "BLAKE3")
        if problem is not None:
            found.append((blob, problem))
    return found


def in_turn(
    open_blob: OpenBlob, blobs: Sequence[Blob], sha256: bool, report: Report
) -> Iterator[tuple[Blob, ModelpackError | None]]:
    """Read every blob: side by side, one core each; by BLAKE3 a few big ones one by one, by all cores."""
    hands = cores()
    big = sum(blob.size >= _BIG for blob in blobs)
    # SHA-256 is one core's work
    together = big < hands and not sha256 and all(blob.blake3 is not None for blob in blobs)
    threads = hands if together else 1

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
                    overlap=together or 0 < big < hands,  # a core is idle: it reads ahead
                )
                check(blob, hashes)
        except ModelpackError as error:
            return error
        return None

    largest_first = sorted(blobs, key=lambda blob: -blob.size)
    yield from in_parallel(largest_first, work, 1 if together else hands)
