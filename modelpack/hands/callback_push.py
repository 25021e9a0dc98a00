"""The receiving end of one push: its manifest, and the bytes of the one blob that is wanted.

What Ollama sends (server/upload.go, server/images.go, x/transfer/upload.go of v0.33, and what 0.24 and 0.33
were seen to send): HEAD for each blob; for what is missing POST uploads/, PATCHes with `Content-Range: a-b`
one after the other, an empty PUT with `?digest=`; the manifest last. A part that broke is sent again from its
start; models of tensors begin a new upload instead. A depot sends one PATCH, or all in the PUT, and asks by
GET how far it got.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections.abc import Callable

from modelpack.errors import Corrupt, ModelpackError, Unreachable
from modelpack.hands.call import current_call
from modelpack.hands.callback_wire import Body, Request
from modelpack.words.blob import SMALL, Blob

PATIENCE = 300.0
"""Seconds without a byte, or a word that something goes on: a server may hash before it sends."""
_ENDLESS = float("inf")
_LOOK = 0.5  # seconds between two looks whether anybody still waits
_UPLOADS = 64  # that are begun for one blob
_PART = re.compile(r"(?:bytes )?([0-9]{1,19})-([0-9]{1,19})(?:/.*)?", re.ASCII)
_UPLOAD = re.compile(r"blobs/uploads/([0-9a-f]{32})", re.ASCII)


class Received:
    """A push under one name; `reader` gives the bytes of the *wanted* blob as they come, unchecked.

    Whoever reads takes the bytes from the connection straight into its own memory; while nobody reads, the
    server waits. One thread reads. Blobs but the wanted one are told to be here already.
    """

    def __init__(self, place: str, tag: str, wanted: Blob | None) -> None:
        """*place* is the URL of the repository, without an end slash."""
        self._place, self._tag, self._wanted = place, tag, wanted
        self._size = wanted.size if wanted is not None else 0
        self._turn = threading.Condition()
        self._uploads: dict[str, None] = {}
        self._stream: Body | None = None
        self._taken = 0
        self._whole = self._closed = False
        self._manifest: bytes | None = None
        self._failure: ModelpackError | None = None
        self._alive = time.monotonic()
        self.reader = _BlobReader(self)

    @property
    def came(self) -> bool:
        """Whether all is here that was wanted: the blob, else the manifest."""
        return self._whole if self._wanted is not None else self._manifest is not None

    @property
    def pushed(self) -> bytes | None:
        """The manifest, once it is here."""
        return self._manifest

    @property
    def failure(self) -> ModelpackError | None:
        """What ended the push, where something did."""
        return self._failure

    def manifest(self, seconds: float) -> bytes:
        """The manifest, at most 4 MiB; raises Unreachable where none comes in so many *seconds*, or what
        `fail` was told.
        """
        with self._turn:
            self._wait(lambda: self._manifest is not None or self._failure is not None, seconds)
            if self._manifest is not None:
                return self._manifest
            raise self._failure or Unreachable(f"no manifest came within {seconds:.0f} seconds")

    def fail(self, error: ModelpackError) -> None:
        """Whoever reads or waits is told *error*; the first one stays."""
        with self._turn:
            self._failure = self._failure or error
            self._end_stream()

    def go_on(self) -> None:
        """The server says that it is busy with this push: patience begins anew."""
        self._alive = time.monotonic()

    def close(self) -> None:
        """Nobody reads any more: what is under way is ended."""
        with self._turn:
            self._closed = True
            self._end_stream()

    # --- the server's side: called by the connections' threads

    def handle(self, request: Request, rest: str) -> None:
        """Answer *request* for *rest* of the path, below the repository."""
        self.go_on()
        method = request.method
        upload = _UPLOAD.fullmatch(rest)
        if method == "HEAD" and rest.startswith("blobs/sha256:"):
            missing = self._wanted is not None and rest == f"blobs/{self._wanted.digest}" and not self._whole
            request.answer(404 if missing or self._closed else 200)
        elif method == "POST" and rest == "blobs/uploads/" and self._begin(request):
            pass
        elif upload is not None and upload[1] in self._uploads and method in ("GET", "PATCH", "PUT"):
            self._continue(request, upload[1])
        elif method == "PUT" and rest == f"manifests/{self._tag}":
            self._keep(request)
        else:
            request.answer(404)

    def _begin(self, request: Request) -> bool:
        with self._turn:
            if self._wanted is None or self._closed or len(self._uploads) >= _UPLOADS:
                return False
            upload = secrets.token_hex(16)
            self._uploads[upload] = None
        request.answer(202, headers=self._going(upload))
        return True

    def _going(self, upload: str) -> dict[str, str]:
        # The whole address: Ollama takes it as it is, and resolves no path.
        return {"Location": f"{self._place}/blobs/uploads/{upload}", "Docker-Upload-UUID": upload}

    def _continue(self, request: Request, upload: str) -> None:
        if request.method == "GET":
            so_far = {"Range": f"0-{max(0, self._taken - 1)}"}
            request.answer(204, headers=self._going(upload) | so_far)
        elif not self._came(request):
            return
        elif request.method == "PATCH":
            request.answer(202, headers=self._going(upload))
        else:
            self._finish(request)

    def _came(self, request: Request) -> bool:
        """Lend the body of *request* to the reader; whether it took all. Answers where it did not."""
        length = request.length
        if length is None:
            request.answer(411)
            return False
        if length == 0:
            return True
        text = request.headers.get("content-range")
        found = _PART.fullmatch(text) if text is not None else None
        start = int(found[1]) if found is not None else 0
        if (text is not None and found is None) or (
            found is not None and int(found[2]) + 1 - start != length
        ):
            self._refuse(request, 400, f"sends {length} bytes and calls them {(text or '')[:60]!r}")
            return False
        if start + length > self._size:
            more = f"sends bytes up to {start + length} of a blob that has {self._size}"
            self._refuse(request, 400, more)
            return False
        if start > self._taken:
            self._refuse(request, 416, f"goes on at byte {start}, after {self._taken}")
            return False
        stream = Body(request, start, length, request.early[:length])
        with self._turn:
            if self._closed or self._failure is not None or self._whole:
                request.answer(404)
                return False
            self._end_stream()  # whoever sends again has given up the connection before
            request.socket.settimeout(_LOOK)
            self._stream = stream
            self._turn.notify_all()
            self._turn.wait_for(lambda: stream.over)
        return stream.left == 0

    def _finish(self, request: Request) -> None:
        assert self._wanted is not None  # noqa: S101 - else no upload began
        digest = str(self._wanted.digest)
        told = request.query.get("digest", "")
        if told != digest:
            self._refuse(request, 400, f"sends {digest} and calls it {told[:80]!r}")
        elif self._taken < self._size:
            self._refuse(request, 400, f"has {self._taken} of the {self._size} bytes of the blob {digest}")
        else:
            with self._turn:
                self._whole = True
                self._turn.notify_all()
            request.answer(201, headers={"Docker-Content-Digest": digest})

    def _keep(self, request: Request) -> None:
        if request.length is None or request.length > SMALL:
            self._refuse(request, 413, f"sends a manifest of more than {SMALL} bytes")
            return
        raw = bytearray(request.length)
        body = Body(request, 0, len(raw), request.early[: len(raw)])
        try:
            request.socket.settimeout(30)
            while body.left and body.take(memoryview(raw)[body.at :]):
                pass
        except OSError:
            return
        if body.left:
            return
        with self._turn:
            self._manifest = bytes(raw)
            self._turn.notify_all()
        request.answer(201, headers={"Docker-Content-Digest": f"sha256:{hashlib.sha256(raw).hexdigest()}"})

    def _refuse(self, request: Request, status: int, what: str) -> None:
        self.fail(Corrupt(f"the server {what}", where=request.address))
        request.answer(status)

    # --- the reader's side

    def _end_stream(self) -> None:
        """Under the lock: the body under way is read no more; who waits for its bytes looks up soon."""
        if self._stream is not None:
            self._stream.over = True
            self._stream = None
        self._turn.notify_all()

    def _next(self) -> Body | None:
        """The body to read from, once there is one; None at the blob's end. Raises what ended the push."""
        with self._turn:
            self._wait(lambda: bool(self._stream or self._whole or self._closed or self._failure))
            if self._whole or self._stream is not None:
                return self._stream
            raise self._failure or Unreachable("was broken off here")

    def _wait(self, ready: Callable[[], bool], seconds: float = _ENDLESS) -> None:
        """Under the lock: wait until it is *ready*, or *seconds* are over. Raises as `_check_awaited`."""
        end = time.monotonic() + seconds
        while not ready() and (left := end - time.monotonic()) > 0:
            self._check_awaited()
            self._turn.wait(min(left, _LOOK))

    def _check_awaited(self) -> None:
        """Raise Unreachable where nobody waits for it any more, or it came to nothing for long."""
        call = current_call()
        if call is not None and call.closed:
            raise Unreachable("was broken off here")
        if time.monotonic() - self._alive >= PATIENCE:
            raise Unreachable(
                f"nothing came for {PATIENCE:.0f} seconds, after {self._taken} of {self._size} bytes"
            )

    def read(self, into: memoryview) -> int:
        """What `reader` does."""
        while (stream := self._next()) is not None:
            again = self._taken - stream.at  # bytes that came before, over a connection that broke
            try:
                count = stream.take(into) if again <= 0 else stream.skip(again)
            except TimeoutError:
                self._check_awaited()
                continue
            except OSError:
                count = 0
            self.go_on()
            with self._turn:
                # Of one that is over by now the connection's thread reads, too: these bytes may have gaps.
                if stream.over:
                    continue
                if count == 0 or stream.left == 0:
                    self._end_stream()
                if count and again <= 0:
                    self._taken += count
                    return count
        return 0


class _BlobReader:
    """A Reader over what a push brings."""

    def __init__(self, received: Received) -> None:
        self._received = received

    def readinto(self, into: memoryview, /) -> int:
        """As Reader says; Corrupt or Unreachable with what happened."""
        return self._received.read(into) if len(into) else 0
