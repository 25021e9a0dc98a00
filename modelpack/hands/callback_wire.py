"""The server below the small registry: plain HTTP for a few requests, bounded in everything.

Each connection serves one request and is closed. Whoever says nothing sensible gets a bare 404, or nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from modelpack.words.blob import KIB

CONNECTIONS = 32
"""The most at a time; others wait in the kernel's queue."""
_HEAD = 16 * KIB  # bytes of a request line and headers
_IN = 10.0  # seconds for them
_UNHURRIED = 1.0  # seconds that a connection may be silent where others wait for its place
_ANSWERING = 30.0  # seconds that a peer may take to accept an answer
_PARTING = 1.0  # seconds to let the peer close first
_PIECE = 256 * KIB


@dataclass
class Request:
    """One request: `path` without host and query, decoded; `early` are bytes of its body that came with it.

    `length` is the body's in bytes; None where none was told, or in a form that is not understood.
    """

    socket: socket.socket
    address: str
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    early: memoryview
    length: int | None

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Answer with *body*, which a HEAD does not get; a peer that is gone is none of our business."""
        reason = http.client.responses.get(status, "")
        lines = [f"HTTP/1.1 {status} {reason}", "Connection: close"]
        lines += [f"{key}: {value}" for key, value in (headers or {}).items()]
        lines += [f"Content-Length: {len(body)}"] if body or self.method != "HEAD" else []
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        with contextlib.suppress(OSError):
            self.socket.settimeout(_ANSWERING)
            self.socket.sendall(head if self.method == "HEAD" else head + body)


@dataclass
class Body:
    """A body under way: the connection that brings it, where in the blob it is, and what is left of it."""

    request: Request
    at: int
    left: int
    early: memoryview
    over: bool = False  # nobody reads from it any more
    scratch: memoryview = field(default_factory=lambda: memoryview(bytearray()))

    def take(self, into: memoryview) -> int:
        """Receive into *into*; 0 where the connection ended. Raises OSError."""
        into = into[: self.left]
        if len(self.early):
            count = min(len(into), len(self.early))
            into[:count] = self.early[:count]
            self.early = self.early[count:]
        else:
            count = self.request.socket.recv_into(into)
        self.at += count
        self.left -= count
        return count

    def skip(self, count: int) -> int:
        """Receive up to *count* bytes for nothing."""
        if not len(self.scratch):
            self.scratch = memoryview(bytearray(_PIECE))
        return self.take(self.scratch[: min(count, _PIECE)])


def part(sock: socket.socket) -> None:
    """Let the peer read what was said and close first, for a second: a reset could take the answer away."""
    end = time.monotonic() + _PARTING
    scratch = bytearray(_PIECE)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        while (left := end - time.monotonic()) > 0:
            sock.settimeout(left)
            if not sock.recv_into(scratch):
                return


class Listener:
    """Serves requests that come to the *listening* socket, each in a thread, by *handle*, until `close`."""

    def __init__(self, listening: socket.socket, handle: Callable[[Request], None]) -> None:
        self._socket, self._handle = listening, handle
        self._changed = threading.Condition()
        self._silent: dict[socket.socket, float] = {}  # since when each is here; the oldest first
        self._open: set[socket.socket] = set()
        self._over = False
        self._thread = threading.Thread(target=self._accept, name="callback", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hang up everywhere; nobody listens any more when this returns."""
        with self._changed:
            self._over = True
            for one in self._open:
                _hang_up(one)
            self._changed.notify_all()
        # Closing alone wakes nobody on Linux, and shutting down nobody elsewhere.
        _hang_up(self._socket)
        self._socket.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while self._place():
            try:
                one, address = self._socket.accept()
            except OSError:
                if self._over or self._socket.fileno() < 0:
                    return
                time.sleep(0.05)  # no descriptor is left, or the peer is gone already
                continue
            with self._changed:
                if self._over:
                    one.close()
                    return
                self._open.add(one)
                self._silent[one] = time.monotonic()
            name = str(address[0])
            threading.Thread(target=self._serve, args=(one, name), name="callback", daemon=True).start()

    def _place(self) -> bool:
        """Wait until one more may be served; who is silent for long makes room. False where it is over."""
        with self._changed:
            while len(self._open) >= CONNECTIONS and not self._over:
                now = time.monotonic()
                oldest = next(iter(self._silent.items()), None)
                if oldest is not None and now - oldest[1] >= _UNHURRIED:
                    del self._silent[oldest[0]]
                    _hang_up(oldest[0])
                self._changed.wait(0.1 if oldest is None else max(0.01, oldest[1] + _UNHURRIED - now))
            return not self._over

    def _serve(self, one: socket.socket, address: str) -> None:
        try:
            request = self._read(one, address)
            with self._changed:
                self._silent.pop(one, None)
            if request is not None:
                self._handle(request)
                part(one)
        finally:
            with self._changed:
                self._silent.pop(one, None)
                self._open.discard(one)
                self._changed.notify_all()
                one.close()

    def _read(self, one: socket.socket, address: str) -> Request | None:
        end = time.monotonic() + _IN
        head = bytearray()
        try:
            while (found := head.find(b"\r\n\r\n")) < 0:
                left = end - time.monotonic()
                if left <= 0 or len(head) >= _HEAD:
                    return None
                one.settimeout(left)
                piece = one.recv(_HEAD - len(head))
                if not piece:
                    return None
                head += piece
            return _parsed(one, address, bytes(head[:found]), memoryview(bytes(head[found + 4 :])))
        except (OSError, ValueError, http.client.HTTPException):
            return None


def _parsed(one: socket.socket, address: str, head: bytes, early: memoryview) -> Request | None:
    line, _, rest = head.partition(b"\r\n")
    words = line.decode("ascii").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return None
    target = urlsplit(words[1])  # of a proxy it is the whole URL
    query = {key: values[0] for key, values in parse_qs(target.query, max_num_fields=20).items()}
    found = http.client.parse_headers(io.BytesIO(rest + b"\r\n\r\n"))
    headers = {key.lower(): value for key, value in found.items()}
    text = headers.get("content-length", "0" if "transfer-encoding" not in headers else "")
    length = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
    if headers.get("expect", "").lower() == "100-continue":
        one.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    return Request(one, address, words[0], unquote(target.path), query, headers, early, length)


def _hang_up(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
