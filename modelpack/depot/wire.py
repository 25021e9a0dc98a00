"""Cheroot, mended: no body is held in memory, nobody holds a thread for long, and headers are read strictly.

What Cheroot 11 does otherwise: it reads the unread rest of a body in one piece; it says "100 Continue"
before the application was asked; its time limit is one for each call of recv, so that a byte every nine
seconds holds a thread for ever; it takes Content-Length twice, negative, or beside Transfer-Encoding; a
connection that says nothing holds a thread, and a TLS handshake the one thread that accepts connections.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Callable
from threading import BoundedSemaphore
from typing import Any

from cheroot.makefile import MakeFile, StreamReader
from cheroot.server import DropUnderscoreHeaderReader, HTTPConnection, HTTPRequest
from cheroot.wsgi import Server

from modelpack.depot.bodies import ChunkedBody, SizedBody
from modelpack.depot.gateway import LARGE_ONES, SILENCE_SECONDS, Gateway
from modelpack.depot.workers import READERS, Workers
from modelpack.words.blob import KIB, MIB

HEADER_MOST = 64 * KIB
HEADER_SECONDS = 30.0
"""From the first byte of a request to the end of its headers; as long again for a TLS handshake."""
LINGER_MOST, LINGER_SECONDS = 256 * MIB, 10.0
"""How much of a refused body is still taken, and for how long, so that the client gets to read the answer."""
CONNECTIONS = 1000
"""The most connections that may be open and silent."""

HURRIED_SECONDS = 1.0
"""The same, while most threads are busy: who begins a request and says no more must not stop the others."""

_PIECE = 256 * KIB
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_LENGTH = re.compile(rb"[0-9]{1,18}", re.ASCII)
_ONCE = (b"Content-Length", b"Host", b"Transfer-Encoding", b"Authorization", b"Origin")


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
        if _TOKEN.fullmatch(key_name) is None:
            raise ValueError("Malformed header name")
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
        self.conn.hurry(HEADER_SECONDS if self.server.requests.spare else HURRIED_SECONDS)
        try:
            super().parse_request()
        finally:
            self.conn.hurry(None)
        if self.ready and _TOKEN.fullmatch(self.method) is None:
            self.ready = False
            self.simple_response("400 Bad Request", "Malformed method.")

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

    def deciphered(self) -> int:
        sock = self._sock  # type: ignore[attr-defined]
        return sock.pending() if isinstance(sock, ssl.SSLSocket) else 0


class _Stream(StreamReader):
    raw: Any
    _read_buf: bytes
    _read_pos: int

    def __init__(self, raw: _Raw, bufsize: int) -> None:
        super(StreamReader, self).__init__(raw, bufsize)  # StreamReader's own makes a SocketIO by itself
        self.bytes_read = 0

    def has_data(self) -> bool:
        """Whether something came that was not read: what TLS has deciphered, no selector sees."""
        return bool(len(self._read_buf) > self._read_pos or self.raw.deciphered())


def _make_file(sock: socket.socket, mode: str, bufsize: int) -> Any:
    return _Stream(_Raw(sock), bufsize) if "r" in mode else MakeFile(sock, mode, bufsize)


class _Connection(HTTPConnection):
    RequestHandlerClass = _Request

    def __init__(self, server: Any, sock: socket.socket, _makefile: object = None) -> None:
        super().__init__(server, sock, _make_file)
        self._plain = server.tls is not None
        """Whether TLS has still to begin."""

    def communicate(self) -> bool:
        """Answer a request; whether the connection stays open."""
        if self._plain:
            self._plain = False
            try:
                self._begin_tls()
            except OSError:  # of TLS, too
                return False
            return True
        going: bool = super().communicate()  # type: ignore[no-untyped-call]
        return going

    def _begin_tls(self) -> None:
        self.socket.settimeout(HEADER_SECONDS)  # for the whole handshake, not for a step of it
        self.socket = self.server.tls.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )
        self.rfile = _make_file(self.socket, "rb", self.rbufsize)
        self.wfile = _make_file(self.socket, "wb", self.wbufsize)
        self.ssl_env = {"wsgi.url_scheme": "https"}
        self.socket.do_handshake()

    def close(self) -> None:
        """Let it go, whatever state it is in: an error here would end a thread."""
        with contextlib.suppress(OSError):
            super().close()

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
    """A Cheroot server for one application; *told* hears what Cheroot would write to stderr.

    With *tls* it speaks nothing else.
    """

    ConnectionClass = _Connection
    max_request_header_size = HEADER_MOST
    keep_alive_conn_limit = 256
    expiration_interval = 0.1  # also how long a stop may take to be noticed
    _connections: Any

    def __init__(
        self,
        address: tuple[str, int],
        app: Any,
        told: Callable[[str], None],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(
            address,
            app,
            server_name="modelpack-depot",
            request_queue_size=128,
            timeout=SILENCE_SECONDS,
            shutdown_timeout=2,
        )
        self._told = told
        self.tls = tls
        self.gateway = Gateway
        self.requests = Workers(self)
        self.readers = BoundedSemaphore(READERS)
        self.large = BoundedSemaphore(LARGE_ONES)

    def process_conn(self, conn: Any) -> None:
        """Have a thread work on *conn*, once something has come from it."""
        if conn.last_used is not None:
            super().process_conn(conn)
        elif self._connections._num_connections < CONNECTIONS:
            self._connections.put(conn)
        else:
            conn.close()

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
