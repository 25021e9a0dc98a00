"""Blobs that come in parts: what an OCI push has sent so far, in files that no one takes for blobs.

The hash goes on from part to part in memory, so an upload ends with this process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from threading import Lock

from modelpack.depot.asked import Says, Stream
from modelpack.depot.blobs import Blobs, receive
from modelpack.hands.scratch import check_room
from modelpack.words.digest import Digest

MOST = 64
"""Uploads that may be unfinished."""
AGE_SECONDS = 3600.0
"""How long one may lie without a request."""


class Upload:
    """One blob of the model named *repository*, of which `size` bytes are here."""

    def __init__(self, blobs: Blobs, repository: str) -> None:
        self.repository = repository
        self.id = secrets.token_hex(16)
        self.size = 0
        self.used = time.monotonic()
        self.busy = Lock()
        self.gone = False
        self._hash = hashlib.sha256()
        self._stack = ExitStack()
        self._depot = blobs
        self._file, self._blobs, self._like = self._stack.enter_context(blobs.new_file(0))

    def append(self, body: Stream, length: int | None) -> None:
        """Take all of *body*, or nothing: a part that broke is sent again from its start."""
        check_room(self._blobs, length or 0)
        digest = self._hash.copy()
        write = self._file.writer.appending(self.size)

        def take(piece: memoryview) -> None:
            digest.update(piece)
            write(piece)

        try:
            count = receive(body, length, take, sha256=False).size
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fd, self.size)
            raise
        self._hash = digest
        self.size += count

    def finish(self, digest: Digest) -> bool:
        """Make it the blob *digest*; False, and nothing stays of it, where its bytes have another."""
        try:
            if self._hash.hexdigest() != digest.hex:
                return False
            self._depot.appear(self._file, self._blobs, self._like, digest)
            return True
        finally:
            self.close()

    def close(self) -> None:
        """Remove what is here, unless it has become a blob."""
        self.gone = True
        self._stack.close()


class Uploads:
    """The unfinished uploads of a depot."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._all: dict[str, Upload] = {}
        self._lock = Lock()

    def begin(self, repository: str) -> Upload:
        """A new one; Says 429 where there are too many."""
        self._expire()
        with self._lock:
            if len(self._all) >= MOST:
                raise Says(429, f"{MOST} uploads are unfinished already: finish them, or DELETE one")
            upload = Upload(self._blobs, repository)
            self._all[upload.id] = upload
        return upload

    @contextlib.contextmanager
    def held(self, repository: str, name: str) -> Iterator[Upload]:
        """The upload *name*, for this thread alone; Says 404, and 409 where another request is at it."""
        self._expire()
        with self._lock:
            upload = self._all.get(name)
        if upload is None or upload.repository != repository:
            raise Says(404, "there is no such upload, or no more")
        if not upload.busy.acquire(blocking=False):
            raise Says(409, "another request is at this upload")
        try:
            if upload.gone:
                raise Says(404, "there is no such upload, or no more")
            yield upload
        finally:
            upload.used = time.monotonic()
            if upload.gone:
                with self._lock:
                    self._all.pop(name, None)
            upload.busy.release()

    def _expire(self) -> None:
        with self._lock:
            for name, upload in list(self._all.items()):
                if time.monotonic() - upload.used > AGE_SECONDS and upload.busy.acquire(blocking=False):
                    del self._all[name]
                    upload.close()
                    upload.busy.release()

    def close(self) -> None:
        """Remove them all."""
        with self._lock:
            while self._all:
                self._all.popitem()[1].close()
