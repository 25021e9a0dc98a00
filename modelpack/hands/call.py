"""A call that another thread can break off, even while the server is silent: what cancellation needs."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any


class Call:
    """One or several requests, one after the other or side by side, and the connections they go over.

    A thread that waits for a server's bytes hears nothing of the rest of its program. `close`, from any
    thread, shuts the sockets down: whoever waits is woken, and the server sees the connection end.
    """

    def __init__(self) -> None:
        self._over = threading.Event()
        self._connections: set[Any] = set()  # urllib3's; each has a field `call`
        self._lock = threading.Lock()

    @property
    def closed(self) -> bool:
        """Whether somebody broke it off."""
        return self._over.is_set()

    def close(self) -> None:
        """Break off what is under way; nothing more is asked under this call."""
        with self._lock:
            self._over.set()
            for connection in self._connections:
                # One that went back to the pool may serve another call by now.
                if connection.call is self and connection.sock is not None:
                    _shut_down(connection.sock)

    def wait(self, seconds: float) -> bool:
        """Sleep; False where the call was broken off meanwhile."""
        return not self._over.wait(seconds)

    def hold(self, connection: Any) -> None:
        """Keep *connection* to break it off; raises OSError where that is asked for already."""
        with self._lock:
            self._connections.add(connection)
            if self._over.is_set():
                raise ConnectionAbortedError("broken off here")


def _shut_down(sock: Any) -> None:
    # Of an SSLSocket, too, the plain shutdown: its own first drops the TLS, and a thread that is sending
    # could then send clear text.
    with contextlib.suppress(OSError, TypeError):  # gone already; or TLS within TLS, which is no socket
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


_CURRENT: ContextVar[Call | None] = ContextVar("modelpack_call", default=None)


def current_call() -> Call | None:
    """The call that requests of this thread belong to."""
    return _CURRENT.get()


def rest(seconds: float) -> bool:
    """Sleep; False where the call of this thread was broken off before or meanwhile."""
    call = current_call()
    if call is not None:
        return call.wait(seconds)
    time.sleep(seconds)
    return True


@contextlib.contextmanager
def under(call: Call | None) -> Iterator[None]:
    """Requests of this thread belong to *call* meanwhile."""
    token = _CURRENT.set(call)
    try:
        yield
    finally:
        _CURRENT.reset(token)


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[Call]:
    """What this thread asks meanwhile is a call of its own, broken off after so many *seconds*."""
    call = Call()
    timer = threading.Timer(seconds, call.close)
    timer.daemon = True
    timer.start()
    try:
        with under(call):
            yield call
    finally:
        timer.cancel()
