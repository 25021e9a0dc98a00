"""Answers on their way out: blobs as files, the small at once, what is large in memory a few at a time."""

from __future__ import annotations

from cheroot.wsgi import Gateway_10

from modelpack.depot.sending import FileBody
from modelpack.words.blob import KIB

SILENCE_SECONDS = 30
"""The longest time without a byte, both ways."""
LARGE, LARGE_ONES = 64 * KIB, 8
"""Answers from memory that are larger than this, and how many of them are on their way at once."""


class Gateway(Gateway_10):
    """Cheroot's, for one request."""

    def respond(self) -> None:
        """Ask the application, and send what it answers."""
        response = self.req.server.wsgi_app(self.env, self.start_response)
        try:
            if isinstance(response, FileBody):
                self._send(response)
            else:
                for piece in filter(None, response):
                    self._write(piece)
        finally:
            self.req.ensure_headers_sent()
            if hasattr(response, "close"):
                response.close()

    def _write(self, piece: bytes) -> None:
        """A small piece at once; a large one bit by bit, a few of them at a time: it waits here in memory."""
        if len(piece) <= LARGE:
            self.write(piece)
        elif not self.req.server.large.acquire(blocking=False):
            self._busy()
        else:
            try:
                for at in range(0, len(piece), LARGE):
                    self.write(piece[at : at + LARGE])
            finally:
                self.req.server.large.release()

    def _busy(self) -> None:
        if self.req.sent_headers:
            raise ConnectionError("too many large answers at once")  # it must not look whole
        self.req.status = b"503 Service Unavailable"
        self.req.outheaders = [(b"Content-Length", b"0"), (b"Retry-After", b"5")]

    def _send(self, body: FileBody) -> None:
        server, connection = self.req.server, self.req.conn
        if not server.readers.acquire(blocking=False):
            self._busy()
            return
        try:
            self.req.ensure_headers_sent()
            body.send(connection.socket, SILENCE_SECONDS, lambda: server.ready)
            connection.socket.settimeout(SILENCE_SECONDS)
        finally:
            server.readers.release()
