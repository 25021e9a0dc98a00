"""A depot's own pull and push: models between it and a registry, told of as Ollama tells.

The words of the lines are those of server/images.go, download.go and upload.go of Ollama v0.33.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, TypeVar

from modelpack.depot.asked import Says, says
from modelpack.depot.changes import Changes
from modelpack.documents.model import Model
from modelpack.errors import ModelpackError, NotFound, Unreachable, Usage
from modelpack.hands.call import Call, under
from modelpack.hands.credentials import Credentials
from modelpack.hands.registry import Registry
from modelpack.stores import Afar, Reader, Source, Target
from modelpack.stores.registry import RegistrySource, RegistryTarget
from modelpack.verbs.plans import plan
from modelpack.verbs.transfer import carry_out
from modelpack.words.blob import Blob
from modelpack.words.name import Name
from modelpack.words.reference import Reference
from modelpack.words.report import Step

AT_ONCE = 8
"""Transfers that are under way at a time."""
_OFTEN, _ALIVE = 0.1, 5.0
"""Seconds between two lines about a blob, and between lines at all: a client that is gone shows by them."""

Line = dict[str, Any]
Tell = Callable[[Line], None]
_T = TypeVar("_T")


class Transfers:
    """Transfers of one depot. Nobody's credentials are used: whoever asks here is not the operator."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._free = threading.BoundedSemaphore(AT_ONCE)
        self._calls: set[Call] = set()
        self._lock = threading.Lock()
        self._over = False

    def close(self) -> None:
        """Break off those that are under way, whatever they wait for; what begins later ends at once."""
        with self._lock:
            self._over = True
            for call in self._calls:
                call.close()

    def pull(self, text: str, *, insecure: bool) -> Iterator[Line]:
        """Bring the model *text* (`host/namespace/model:tag`) here; Ollama's lines, Says, or our errors."""
        name = self._changes.directory.existing(_named(text))
        with self._turn() as call, _registry(name, insecure) as (client, place):
            asking = {"status": "pulling manifest"}
            yield asking
            source = _Unnamed(client, place)
            try:
                (model,) = yield from _aside(call, lambda _tell: source.models(), asking)
            except ModelpackError as error:
                words = "file does not exist" if isinstance(error, NotFound) else says(error).text
                raise Says(500, f"pull model manifest: {words}", plain=False) from None
            model = replace(model, name=name)
            before = self._changes.before(name)
            yield from _moving(call, "pulling", source, model, self._changes.store)
            yield {"status": "verifying sha256 digest"}  # done as the bytes came
            yield {"status": "writing manifest"}
            if before is not None and before.raw != model.document.raw:
                with self._changes.changing:
                    self._changes.forget(before)
            yield {"status": "success"}

    def push(self, text: str, *, insecure: bool) -> Iterator[Line]:
        """Send the model *text* of this depot to the registry that its name begins with."""
        name = _named(text)
        with self._turn() as call, _registry(name, insecure) as (client, place):
            yield {"status": "retrieving manifest"}
            found = self._changes.store.read(name)
            if found is None:
                yield {"status": "couldn't retrieve manifest"}
                manifest = self._changes.directory.path.joinpath("manifests", *name.parts)
                raise Says(500, f"open {manifest}: no such file or directory", plain=False)
            target = RegistryTarget(client, place.at(name, whole=True), replace=True)
            yield from _moving(call, "pushing", self._changes.store, Model(name, found[1]), target)
            yield {"status": "pushing manifest"}
            yield {"status": "success"}

    @contextlib.contextmanager
    def _turn(self) -> Iterator[Call]:
        """A turn, and the call that all its requests belong to."""
        if not self._free.acquire(blocking=False):
            raise Says(503, f"{AT_ONCE} transfers are under way here: try again later")
        call = Call()
        try:
            with self._lock:
                self._calls.add(call)
                if self._over:
                    call.close()
            yield call
        finally:
            with self._lock:
                self._calls.discard(call)
            self._free.release()


class _Unnamed(RegistrySource):
    """A model whose name is known: as Ollama does, nothing but its manifest is asked for."""

    def models(self) -> Sequence[Model]:
        """That model, called after its place."""
        found = self.client.manifest(self.reference.repository, self.reference.which)
        return (self._read(found, self.reference.name()),)


def _named(text: str) -> Name:
    try:
        return Name.parse(text)
    except Usage:
        raise Says(400, "invalid model name") from None


@contextlib.contextmanager
def _registry(name: Name, insecure: bool) -> Iterator[tuple[Registry, Reference]]:
    place = Reference.of(name)
    with Registry(place.server, plain_http=insecure, credentials=Credentials(environ={})) as client:
        yield client, place


def _moving(call: Call, verb: str, source: Source, model: Model, target: Target) -> Iterator[Line]:
    """Copy *model*, with lines about its blobs. Left early, the copy ends soon, and keeps what came."""

    def work(tell: Tell) -> None:
        watched = _Watched(source, verb, tell, call)
        todo = plan(watched, [model], target)
        for blob in todo.present:
            tell(_line(verb, blob, blob.size))
        carry_out(todo, watched, target, watched.hear)

    return _aside(call, work, {"status": f"{verb} manifest"})


def _aside(call: Call, work: Callable[[Tell], _T], last: Line) -> Generator[Line, None, _T]:
    """What *work* gives, done in a thread, and meanwhile the lines that it tells.

    Whoever is silent has the *last* line again and again, for only by a line does it show that a client is
    gone. Left early, *call*, to which all that *work* asks belongs, is broken off. Raises what *work* does,
    and Unreachable where somebody else broke it off.
    """
    lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
    found, failed = list[_T](), list[BaseException]()

    def run() -> None:
        try:
            with under(call):
                found.append(work(lines.put))
        except BaseException as error:  # noqa: BLE001 - raised again by whoever reads the lines
            failed.append(error)
        finally:
            lines.put(None)

    thread = threading.Thread(target=run, name="transfer", daemon=True)
    thread.start()
    try:
        while True:
            try:
                line = lines.get(timeout=_ALIVE)
            except queue.Empty:
                line = last
            if line is None:
                break
            last = line
            yield line
    except BaseException:
        call.close()
        raise
    finally:
        thread.join()
    if failed and call.closed:
        raise Unreachable("the transfer was broken off: the depot ends")
    if failed:
        raise failed[0]
    return found[0]


class _Left(Exception):
    """Whoever asked is gone."""


class _Watched:
    """*source*, with a line now and then about each blob that is read."""

    def __init__(self, source: Source, verb: str, tell: Tell, call: Call) -> None:
        self._source, self._verb, self._tell, self._call = source, verb, tell, call

    def models(self) -> Sequence[Model]:
        return self._source.models()

    def afar(self) -> bool:
        return isinstance(self._source, Afar) and self._source.afar()

    def hear(self, _step: Step | None = None) -> None:
        """A report: raises where nobody waits for the copy any more."""
        if self._call.closed:
            raise _Left

    def open(self, blob: Blob, offset: int = 0) -> AbstractContextManager[Reader]:
        return self._opened(blob, offset)

    @contextlib.contextmanager
    def _opened(self, blob: Blob, offset: int) -> Iterator[Reader]:
        with self._source.open(blob, offset) as reader:
            yield _Counting(reader, blob, offset, self)

    def read(self, blob: Blob, done: int, last: float) -> float:
        """*done* bytes of *blob* are read; when that was last told of."""
        self.hear()
        now = time.monotonic()
        if now - last < _OFTEN and done < blob.size:
            return last
        self._tell(_line(self._verb, blob, done))
        return now


class _Counting:
    def __init__(self, reader: Reader, blob: Blob, done: int, watched: _Watched) -> None:
        self._reader, self._blob, self._done, self._watched = reader, blob, done, watched
        self._last = 0.0

    def readinto(self, into: memoryview, /) -> int:
        count = self._reader.readinto(into)
        self._done += count
        if count:
            self._last = self._watched.read(self._blob, self._done, self._last)
        return count


def _line(verb: str, blob: Blob, done: int) -> Line:
    digest = blob.digest
    if digest is None:
        return {"status": verb}
    return {"status": f"{verb} {digest.short}", "digest": str(digest), "total": blob.size, "completed": done}


def told(lines: Iterator[Line]) -> Iterator[Line]:
    """*lines*, and an error as the last of them where there is one."""
    try:
        yield from lines
    except Says as answer:
        yield {"error": answer.text}
    except ModelpackError as error:
        yield {"error": says(error).text}
