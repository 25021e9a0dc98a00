"""Where a repair takes right bytes from: sources in turn, none of which is trusted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.errors import Corrupt, Local, ModelpackError, NotFound, Unreachable, Unsupported
from modelpack.hands.crew import Gone, Stoppable
from modelpack.hands.kept import Opened
from modelpack.stores import Afar, OneWay, Reader, Source
from modelpack.verbs.locate import picked
from modelpack.verbs.plans import settle
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.report import Report, silent

Write = Callable[[Opened, bool], None]
"""`write(opened, afar)` keeps a blob whose bytes `opened(offset)` gives, and checks them."""


@dataclass(frozen=True)
class Mended:
    """What was put back: a `blob`, `manifest`, `document` or `attachment` (`kind`), which one, from where.

    Of an `archive` the name says what was wrong between its blobs.

    `bytes` were written; `aside` is where the damaged file is kept, empty where there was none; `users` are
    models that have it, the first few. `doubt` says why this may not be what was there.
    """

    kind: str
    name: str
    bytes: int
    source: str
    aside: str = ""
    users: str = ""
    doubt: str = ""


@dataclass
class Repaired:
    """What came of a repair. `left` is what is still wrong, and why; nothing of it was changed."""

    fingerprint: Digest | None = None
    mended: list[Mended] = field(default_factory=list)
    left: list[ModelpackError] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    """What was not looked at, in sentences."""

    @property
    def good(self) -> bool:
        """Whether nothing is wrong any more with what was looked at."""
        return not self.left

    def leave(
        self, problems: Sequence[ModelpackError], mended: Collection[int], why: Mapping[int, ModelpackError]
    ) -> None:
        """Put those of *problems* into `left` that are not *mended*, each with *why*; both go by `id`.

        What keeps this machine from writing is one more problem.
        """
        for problem in problems:
            if id(problem) in mended:
                continue
            if (reason := why.get(id(problem))) is not None:
                place = f"{reason.where}: " if reason.where else ""
                problem.advice = f"Not repaired: {place}{reason.what}."
            self.left.append(problem)
        self.left += dict.fromkeys(one for one in why.values() if isinstance(one, Local))


class Spare:
    """A source to take right bytes from: *place* is what the user calls it, *names* its models that count.

    Blobs that are known to be *wrong* there are not asked of it. It is asked for its models when something is
    found to be wrong. Unsupported for a pipe, whose bytes come once.
    """

    def __init__(
        self,
        place: str,
        source: Source,
        names: Sequence[str] = (),
        report: Report = silent,
        *,
        wrong: Collection[Digest | None] = (),
    ) -> None:
        if isinstance(source, OneWay):
            what = "comes once, and a repair may want it twice"
            raise Unsupported(what, where=place, advice="Save it to a file first.")
        self.place, self.source = place, source
        self._names, self._report, self._wrong = names, report, wrong

    @cached_property
    def models(self) -> Sequence[Model]:
        """Its models, every blob with its digest: loose files are hashed for that."""
        found = picked(self.source, self._names, self.place)
        return settle(self.source, found, self._report, blake3=False)

    @cached_property
    def blobs(self) -> Mapping[Digest, Blob]:
        """Its blobs."""
        each = (blob for one in self.models for blob in one.blobs if blob.digest not in self._wrong)
        return {blob.digest: blob for blob in each if blob.digest is not None}

    def image(self, name: Name) -> Image | None:
        """The document of its model that has this *name*, compared as Ollama does."""
        for one in self.models:
            if one.name.folded == name.folded and isinstance(one.document, Image):
                return one.document
        return None

    @property
    def afar(self) -> bool:
        """Whether its bytes come over a net."""
        return isinstance(self.source, Afar) and self.source.afar()


class Spares:
    """Several of them: each blob comes from the first that has it, whole and right."""

    def __init__(self, each: Sequence[Spare]) -> None:
        self.each = each
        self._gone: dict[str, ModelpackError] = {}
        self._lock = threading.Lock()

    def images(self, name: Name) -> list[tuple[Image, str]]:
        """Each document that a model of this *name* has, and the first source that has it."""
        found: dict[Digest, tuple[Image, str]] = {}
        for spare in self.each:
            if (image := spare.image(name)) is not None:
                found.setdefault(image.id, (image, spare.place))
        return list(found.values())

    def bring(self, blob: Blob, write: Write, stop: Gone) -> str:
        """Have *write* keep *blob*; from where it came.

        A source that lies, breaks or refuses is passed over. NotFound where none has the blob, else what was
        wrong with the last that has it. What is wrong with this side ends the search.
        """
        failed: ModelpackError | None = None
        for spare in self.each:
            theirs = spare.blobs.get(blob.digest) if blob.digest is not None else None
            if theirs is None or theirs.size != blob.size:
                continue
            with self._lock:
                failed = self._gone.get(spare.place)
            if failed is not None:
                continue
            side = _Side(spare.source, theirs, stop)
            try:
                write(side.opened, spare.afar)
                return spare.place
            except ModelpackError as error:
                if error is not side.error and not isinstance(error, Corrupt):  # Corrupt: other bytes came
                    raise
                gone = isinstance(error, Local | Unreachable)
                failed = (Unreachable if gone else Corrupt)(error.what, where=spare.place)
                if gone:
                    with self._lock:
                        self._gone[spare.place] = failed
        raise failed or NotFound("none of the sources has it")


class _Side:
    """The source's side of a copy: it remembers which error was its own."""

    def __init__(self, source: Source, blob: Blob, stop: Gone) -> None:
        self._source, self._blob, self._stop = source, blob, stop
        self._reader: Reader | None = None
        self.error: ModelpackError | None = None

    @contextmanager
    def opened(self, offset: int) -> Iterator[Reader]:
        """Its bytes from *offset* on."""
        try:
            opened = self._source.open(self._blob, offset)
            self._reader = opened.__enter__()
        except ModelpackError as error:
            self.error = error
            raise
        try:
            yield Stoppable(self, self._stop)
        finally:
            opened.__exit__(None, None, None)

    def readinto(self, into: memoryview, /) -> int:
        """As Reader says."""
        if self._reader is None:
            raise Corrupt("nothing is open")
        try:
            return self._reader.readinto(into)
        except ModelpackError as error:
            self.error = error
            raise
