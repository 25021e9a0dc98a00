"""An Ollama server as a source: its models are read back by having it push them to us.

`POST /api/copy` gives a model a second name under our small registry, `POST /api/push` sends it there, and
the second name is dropped. Of its blobs only those flow that we say are missing (server/upload.go).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unreachable, Unsupported, Usage
from modelpack.hands.call import under
from modelpack.hands.callback import Callback, Caller, Calling, Received, reach
from modelpack.hands.callback_push import PATIENCE
from modelpack.hands.crew import Gone, in_parallel
from modelpack.hands.ollama import Ollama
from modelpack.hands.temporary import copy_name, drop, is_temporary, sweep
from modelpack.stores import Reader
from modelpack.stores.server_push import Pushing, exactly
from modelpack.words.blob import MIB, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name

__all__ = ["ServerSource"]

_ASKING = 4  # pushes of manifests at a time
_FOR_MANIFEST = 60.0  # seconds


class ServerSource:
    """The models that are installed on the server of *client*, which calls back as *calling* says.

    A port is open while the server pushes, and not before or between. `close`, or `with`, cleans up there
    after runs that were killed. Whatever is read raises Unreachable where the server cannot call back, and
    Refused, with its words, where it says no.
    """

    def __init__(self, client: Ollama, calling: Calling = Calling()) -> None:  # noqa: B008 - it never changes
        self.client = client
        self._callback = Callback(client.base, calling)
        self._caller: Caller | None = None
        self._version = ""
        self._opening = threading.Lock()
        self._naming = threading.Lock()
        self._holders: dict[Digest, tuple[Name, Digest, int]] = {}
        """By blob: a model that names it, that model's ID, and the blob's size."""
        self._busy: dict[Digest, threading.Lock] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Where anything was read: remove old names for the moment that nobody needs. Raises nothing."""
        with self._opening:
            was_used, self._caller = self._caller is not None, None
        if was_used:
            sweep(self.client)

    def models(self) -> Sequence[Model]:
        """Every model that is installed, by name; raises what keeps one of them from being read."""
        found = []
        for one in self.scan():
            if isinstance(one, ModelpackError):
                raise one
            found.append(one)
        return found

    def scan(self) -> Iterator[Model | ModelpackError]:
        """As Scans says; what keeps all of them from being read is raised."""
        listed = {}
        for each in self.client.list():
            with contextlib.suppress(Usage):  # no name of ours can stand for it
                name = Name.parse(each.name)
                if not is_temporary(name):
                    listed[name] = each.digest
        if not listed:
            return

        def read(name: Name, _gone: Gone) -> Model | ModelpackError:
            try:
                return Model(name, self._image(name, listed[name]))
            except (Corrupt, NotFound, Refused, Unsupported) as error:
                error.where = f"{self.client.base}#{name}"
                return error

        with self._way_back():
            found = dict(in_parallel(list(listed), read, _ASKING))
        yield from (found[name] for name in sorted(listed, key=lambda one: one.full))

    def single(self, name: Name) -> Model | None:
        """The model of this name, compared as Ollama does (without case); None where there is none."""
        there = self.client.installed().get(name.folded)
        if there is None:
            return None
        name = Name.parse(there.name)
        return Model(name, self._image(name, there.digest))

    def open(self, blob: Blob, offset: int = 0) -> AbstractContextManager[Reader]:
        """The bytes of *blob*, which a model read here before names; up to *offset* they come for nothing.

        A second reader of the same blob waits for the first: the server sends a blob once at a time.
        """
        if blob.digest is None or blob.digest not in self._holders:
            raise NotFound(f"has no blob {blob} in a model that was read", where=self.client.base)
        return self._opened(blob, blob.digest, offset)

    def afar(self) -> bool:
        """It is, wherever the server runs."""
        return True

    def described(self) -> Mapping[str, str]:
        """As Described says."""
        self._version = self._version or self.client.version()
        return {"kind": "server", "where": self.client.base, "version": self._version}

    @contextlib.contextmanager
    def _way_back(self) -> Iterator[Callback]:
        """The small registry, open, once the server was seen to come to it."""
        with self._callback as callback:
            with self._opening:
                if self._caller is None:
                    self._caller = reach(self.client, callback)
            yield callback

    @contextlib.contextmanager
    def _pushed(self, name: Name, id: Digest, wanted: Blob | None) -> Iterator[Received]:  # noqa: A002
        """A push of the model *name* while it goes on, under a name that is dropped in the end."""
        with self._way_back() as callback:
            second = callback.name(id)

            def again() -> None:
                with self._naming:
                    copy_name(self.client, name, second)

            try:
                with callback.receive(second, wanted) as received:
                    again()
                    with Pushing(self.client, str(second), id, received, again):
                        yield received
            finally:
                # Also where the call of this thread was broken off; what stays is found by a later run.
                with under(None), contextlib.suppress(ModelpackError), self._naming:
                    drop(self.client, second)

    def _image(self, name: Name, id: Digest) -> Image:  # noqa: A002 - the model's
        with self._pushed(name, id, None) as received:
            raw = received.manifest(_FOR_MANIFEST)
        exact = exactly(raw, id)
        if exact is None:
            raise Unsupported(
                f"the manifest that the server sends is {Digest.of(raw).short}, its ID is {id.short}: "
                "its exact bytes cannot be had by push",
                where=f"{self.client.base}#{name}",
                advice="It is in another form on the server's disk, or was changed meanwhile: try again, or "
                "read it from the models directory.",
            )
        image = Image.parse(exact, f"{self.client.base}#{name}")
        for blob in image.blobs:
            if blob.digest is not None:
                self._holders[blob.digest] = (name, id, blob.size)
        return image

    @contextlib.contextmanager
    def _opened(self, blob: Blob, digest: Digest, offset: int) -> Iterator[Reader]:
        name, id, size = self._holders[digest]  # noqa: A001 - the model's
        if size != blob.size:
            raise Corrupt(
                f"{blob} has {size} bytes there, not {blob.size}", where=f"{self.client.base}#{name}"
            )
        busy = self._busy.setdefault(digest, threading.Lock())
        if not busy.acquire(timeout=PATIENCE):
            raise Unreachable(f"{blob} is being read by somebody else", where=self.client.base)
        try:
            with self._pushed(name, id, blob) as received:
                _skip(received.reader, offset)
                yield received.reader
        finally:
            busy.release()


def _skip(reader: Reader, count: int) -> None:
    """Read *count* bytes for nothing; fewer where it ends."""
    scratch = memoryview(bytearray(min(count, MIB)))
    while count and (came := reader.readinto(scratch[:count])):
        count -= came
