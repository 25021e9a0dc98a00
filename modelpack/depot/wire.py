"""Cheroot, mended: no body is held in memory, nobody holds a thread for long, and headers are read strictly.

What Cheroot 11 does otherwise: it reads the unread rest of a body in one piece, and each chunk of a chunked
body in one piece of the client's choice; it says "100 Continue" before the application was asked; its time
limit is one for each call of recv, so that a byte every nine seconds holds a thread for ever; it takes
Content-Length twice, negative, or beside Transfer-Encoding.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import time
from collections.abc import Callable
from typing import Any

from cheroot.makefile import MakeFile, StreamReader
from cheroot.server import DropUnderscoreHeaderReader, HTTPConnection, HTTPRequest
from cheroot.wsgi import Server

from modelpack.words.blob import KIB, MIB

HEADER_MOST = 64 * KIB
HEADER_SECONDS = 30.0
"""From the first byte of a request to the end of its headers."""
SILENCE_SECONDS = 30
"""The longest time without a byte, both ways."""
SLOWEST, GRACE_SECONDS = 1 * KIB, 60.0
"""Bytes a second that a body has to come by on average, after the first so many seconds."""
LINGER_MOST, LINGER_SECONDS = 256 * MIB, 10.0
"""How much of a refused body is still taken, and for how long, so that the client gets to read the answer."""
THREADS = 64

_PIECE = 256 * KIB
_LINE_MOST = 4 * KIB
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}", re.ASCII)
_LENGTH = re.compile(rb"[0-9]{1,18}", re.ASCII)
_ONCE = (b"Content-Length", b"Host", b"Transfer-Encoding", b"Authorization", b"Origin")


class Body(io.RawIOBase):
    """The body of a request, read as it comes, in pieces that the reader chooses.

    Raises ConnectionError where it ends too early or is malformed, TimeoutError where it comes too slowly.
    """

    finished = False
    """Whether all of it was read: else the connection cannot be used again."""
    too_slow = False
    """Whether it was given up: then there is nothing to wait for."""

    def __init__(self, rfile: Any, before_first: Callable[[], None]) -> None:
        self._rfile = rfile
        self._before_first: Callable[[], None] | None = before_first
        self._started = 0.0
        self._count = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, into: Any, /) -> int:
        """The next bytes of the body; 0 at its end."""
        if self.finished:
            return 0
        if self._before_first is not None:
            self._started = time.monotonic()
            before, self._before_first = self._before_first, None
            before()
        view = memoryview(into).cast("B")
        return self._fill(view) if len(view) else 0

    def _fill(self, view: memoryview) -> int:
        raise NotImplementedError

    def _receive(self, view: memoryview) -> int:
        try:
            return self._receive_some(view)
        except TimeoutError:
            self.too_slow = True
            raise

    def _receive_some(self, view: memoryview) -> int:
        count: int = self._rfile.readinto1(view)
        if count == 0:
            raise ConnectionError("unexpected EOF")
        self._count += count
        seconds = time.monotonic() - self._started
        if seconds > GRACE_SECONDS and self._count < SLOWEST * seconds:
            raise TimeoutError("timed out")
        return count


class SizedBody(Body):
    """A body of as many bytes as Content-Length says."""

    def __init__(self, rfile: Any, before_first: Callable[[], None], length: int) -> None:
        super().__init__(rfile, before_first)
        self._left = length
        self.finished = length == 0

    def _fill(self, view: memoryview) -> int:
        count = self._receive(view[: self._left])
        self._left -= count
        self.finished = self._left == 0
        return count


class ChunkedBody(Body):
    """A body in chunks, whose sizes mean nothing to whoever reads it."""

    _left = 0

    def _fill(self, view: memoryview) -> int:
        if self._left == 0:
            self._begin_chunk()
            if self.finished:
                return 0
        count = self._receive(view[: self._left])
        self._left -= count
        if self._left == 0 and self._line():
            raise ConnectionError("malformed chunked encoding")
        return count

    def _begin_chunk(self) -> None:
        size = self._line().partition(b";")[0].strip(b" \t")
        if _CHUNK_SIZE.fullmatch(size) is None:
            raise ConnectionError("malformed chunked encoding")
        self._left = int(size, 16)
        if self._left == 0:
            for _ in range(64):  # trailers, which nobody wants
                if not self._line():
                    self.finished = True
                    return
            raise ConnectionError("too many trailers")

    def _line(self) -> bytes:
        line: bytes = self._rfile.readline(_LINE_MOST)
        if not line.endswith(b"\r\n"):
            raise ConnectionError(
                "unexpected EOF" if len(line) < _LINE_MOST else "malformed chunked encoding"
            )
        return line[:-2]


class _Headers(DropUnderscoreHeaderReader):
    """Headers that mean one thing only, and `Expect` kept back until somebody reads the body."""

    def __init__(self) -> None:
        self.expects_continue = False
        self._seen: set[bytes] = set()

    def __call__(self, rfile: Any, hdict: dict[bytes, bytes] | None = None) -> dict[bytes, bytes]:
        headers: dict[bytes, bytes] = super().__call__(rfile, hdict)
        length = headers.get(b"Content-Length")
        if length is not None:
            if _LENGTH.fullmatch(length) is None:
                raise ValueError("Malformed Content-Length Header.")
            if b"Transfer-Encoding" in headers:
                raise ValueError("Content-Length and Transfer-Encoding exclude each other")
        self.expects_continue = headers.pop(b"Expect", b"").lower() == b"100-continue"
        return headers

    def _allow_header(self, key_name: bytes) -> bool:
        # Called for each header line, and for continuation lines with the key before: those fail here too.
        if key_name in _ONCE:
            if key_name in self._seen:
                raise ValueError(f"{key_name.decode('ascii')} comes twice")
            self._seen.add(key_name)
        # Not super()'s: it looks for a str in bytes and raises TypeError.
        return b"_" not in key_name


class _Request(HTTPRequest):
    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.header_reader = _Headers()

    def parse_request(self) -> None:
        self.conn.hurry(HEADER_SECONDS)
        try:
            super().parse_request()
        finally:
            self.conn.hurry(None)

    def respond(self) -> None:
        if self.chunked_read:
            self.rfile = ChunkedBody(self.conn.rfile, self._continue)
        else:
            length = int(self.inheaders.get(b"Content-Length", 0))
            self.rfile = SizedBody(self.conn.rfile, self._continue, length)
        self.server.gateway(self).respond()
        self.ensure_headers_sent()
        if self.chunked_write:
            self.conn.wfile.write(b"0\r\n\r\n")
        if not self.rfile.finished and not self.rfile.too_slow:
            self.conn.let_go()

    def _continue(self) -> None:
        if self.header_reader.expects_continue and not self.sent_headers:
            self.conn.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def send_headers(self) -> None:
        if not self.rfile.finished:
            self.close_connection = True
        super().send_headers()


class _Raw(socket.SocketIO):
    """The bytes of a socket, up to a point in time."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, "r")
        self.deadline: float | None = None

    def readinto(self, into: Any, /) -> int | None:
        if self.deadline is not None:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")  # the word by which Cheroot knows it, and answers 408
            self._sock.settimeout(min(left, SILENCE_SECONDS))  # type: ignore[attr-defined]
        return super().readinto(into)


class _Stream(StreamReader):
    def __init__(self, raw: _Raw, bufsize: int) -> None:
        super(StreamReader, self).__init__(raw, bufsize)  # StreamReader's own makes a SocketIO by itself
        self.bytes_read = 0


def _make_file(sock: socket.socket, mode: str, bufsize: int) -> Any:
    return _Stream(_Raw(sock), bufsize) if "r" in mode else MakeFile(sock, mode, bufsize)


class _Connection(HTTPConnection):
    RequestHandlerClass = _Request

    def __init__(self, server: Any, sock: socket.socket, _makefile: object = None) -> None:
        super().__init__(server, sock, _make_file)

    def hurry(self, seconds: float | None) -> None:
        """From now on everything has to come within *seconds*; None: each piece has a time of its own."""
        self.rfile.raw.deadline = None if seconds is None else time.monotonic() + seconds
        if seconds is None:
            self.socket.settimeout(SILENCE_SECONDS)

    def let_go(self) -> None:
        """Take what the client still sends, for a while: cut off now, it might not read the answer."""
        until, left = time.monotonic() + LINGER_SECONDS, LINGER_MOST
        piece = bytearray(_PIECE)
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            while left > 0 and (seconds := until - time.monotonic()) > 0:
                self.socket.settimeout(seconds)
                count = self.socket.recv_into(piece)
                if count == 0:
                    break
                left -= count


class DepotServer(Server):
    """A Cheroot server for one application; `told` hears what Cheroot would write to stderr."""

    ConnectionClass = _Connection
    max_request_header_size = HEADER_MOST
    keep_alive_conn_limit = 256
    expiration_interval = 0.1  # also how long a stop may take to be noticed

    def __init__(self, address: tuple[str, int], app: Any, told: Callable[[str], None]) -> None:
        super().__init__(
            address,
            app,
            numthreads=THREADS,
            max=THREADS,
            server_name="modelpack-depot",
            request_queue_size=128,
            timeout=SILENCE_SECONDS,
            shutdown_timeout=2,
        )
        self._told = told

    def bind(self, family: int, type: int, proto: int = 0) -> Any:  # noqa: A002 - as Cheroot calls it
        """As Cheroot calls it; raises OSError where the address is taken."""
        # Cheroot's own leaves the socket open where the address is taken.
        made = self.prepare_socket(self.bind_addr, family, type, proto, self.nodelay, None)
        try:
            made.bind(self.bind_addr)
        except OSError:
            made.close()
            raise
        self.socket = made
        self.bind_addr = made.getsockname()[:2]
        return made

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:  # noqa: ARG002
        """What Cheroot has to say, to whoever hears it."""
        if level > 20:
            self._told(str(msg))
