"""Ports of this process that servers come to: one for each address, shared by all small registries there.

So that one fixed port, as NAT and tunnels need it, serves several servers at a time. What is answered goes by
names that nobody can guess, whoever of them gave them out.
"""

from __future__ import annotations

import errno
import re
import socket
import threading
from typing import Protocol

from modelpack.errors import Local, from_os
from modelpack.hands.callback_wire import Listener, Request
from modelpack.hands.temporary import NAMESPACE

_PATH = re.compile(rf"/v2/{NAMESPACE}/([0-9a-f]{{12}}-[0-9a-f]{{32}})/(.{{1,300}})", re.ASCII)
_BACKLOG = 128


class Answers(Protocol):
    """What stands under a name."""

    def handle(self, request: Request, rest: str) -> None:
        """Answer *request* for *rest* of the path, below the repository."""
        ...


class Port:
    """A port that is listened on; `names` are those that it answers."""

    def __init__(self, listening: socket.socket) -> None:
        self.names: dict[str, Answers] = {}
        self.users = 0
        self.address: tuple[str, int] = listening.getsockname()[:2]
        """Address and port that are bound."""
        self._listener = Listener(listening, self._answer)

    def leave(self) -> None:
        """One user less; after the last one nobody listens any more."""
        with _LOCK:
            self.users -= 1
            if not self.users:
                del _OPEN[self.address]
                self._listener.close()

    def _answer(self, request: Request) -> None:
        path = _PATH.fullmatch(request.path)
        found = self.names.get(path[1]) if path is not None else None
        if path is not None and found is not None:
            found.handle(request, path[2])
        elif request.method in ("GET", "HEAD") and request.path in ("/v2/", "/v2"):
            request.answer(200)
        else:
            request.answer(404)


_OPEN: dict[tuple[str, int], Port] = {}
_LOCK = threading.Lock()


def take(place: str, number: int) -> Port:
    """The port *number* (0: any free one) at the address *place*, for one user more until it leaves.

    Raises Local where this machine does not let it be had.
    """
    where = joined(place, number)
    try:
        found = socket.getaddrinfo(place, number, type=socket.SOCK_STREAM)
        family, *_, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        host = str(address[0])
        with _LOCK:
            port = _OPEN.get((host, number))
            if port is None:
                port = Port(socket.create_server((host, number), family=family, backlog=_BACKLOG))
                _OPEN[port.address] = port
            port.users += 1
            return port
    except socket.gaierror:
        error, advice = "no such address is known here", "Name one of this machine's: --listen ADDR[:PORT]."
    except OverflowError:
        error, advice = "no such port", ""
    except OSError as problem:
        if problem.errno == errno.EADDRINUSE:
            error = "something else listens there already"
            advice = (
                "Choose another port: --listen ADDR:PORT, and --callback HOST:PORT where it is forwarded."
            )
        elif problem.errno == errno.EACCES:
            error = "this user may not open that port"
            advice = "Choose one above 1023 (--listen ADDR:PORT), or run as a user who may."
        elif problem.errno == errno.EADDRNOTAVAIL:
            error = "is no address of this machine"
            advice = (
                "--callback HOST[:PORT] is what the server is told, --listen ADDR[:PORT] an address of this "
                "machine, to which it is forwarded."
            )
        else:
            raise from_os(problem, where) from None
    raise Local(f"cannot listen there: {error}", where=where, advice=advice)


def joined(host: str, port: int) -> str:
    """HOST:PORT, with the brackets that an IPv6 address needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
