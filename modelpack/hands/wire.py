"""What lies below HTTP: pools and sockets, the environment's proxies, and what a broken connection means."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from modelpack.errors import Corrupt, Unreachable
from modelpack.hands.call import Call, current_call
from modelpack.words.blob import MIB
from modelpack.words.reader import Reader, fill

if TYPE_CHECKING:  # it costs most of the start-up time of a command that talks to nobody
    from requests.adapters import HTTPAdapter

_PIECE = MIB
_WRITE_TIMEOUT = 900.0  # for one piece: a server that hashes onto a slow disk stops reading for minutes
# A host that died answers no probe: after three minutes the kernel gives the connection up.
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPALIVE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 6))


class ReaderFailed(Exception):
    """The reader of an upload raised; its `failed` is what. Never leaves `Http`."""


class Upload:
    """The body of a request: *size* bytes of *reader*, in pieces of 1 MiB, from one buffer.

    Raises Corrupt where the reader ends before or goes on after, always before the last piece is given away:
    the server never holds something that could be taken for the whole. `moved` hears of bytes once they are
    sent, `sent` when all are.
    """

    def __init__(
        self,
        reader: Reader,
        size: int,
        where: object = "",
        *,
        moved: Callable[[int], None] = lambda _count: None,
        sent: Callable[[], None] = lambda: None,
    ) -> None:
        self.failed: Exception | None = None
        self._reader, self._size, self._where = reader, size, where
        self._moved, self._sent = moved, sent
        self._piece = memoryview(bytearray(min(_PIECE, max(size, 1))))
        self._given = self._told = 0
        self._probed = False

    def __len__(self) -> int:
        return self._size

    def read(self, _amount: int = -1) -> memoryview:
        """The next piece; empty at the end. Whoever asks for it has sent the one before."""
        try:
            return self._next()
        except Exception as error:
            # urllib3 would take an OSError for its own socket's, and go on to wait for an answer.
            self.failed = error
            raise ReaderFailed from error

    def _next(self) -> memoryview:
        if self._given > self._told:
            self._moved(self._given - self._told)
            self._told = self._given
        if self._probed:
            self._sent()
            return self._piece[:0]
        wanted = min(len(self._piece), self._size - self._given)
        count = fill(self._reader, self._piece[:wanted])
        if count < wanted:
            raise Corrupt(f"ends after {self._given + count} of {self._size} bytes", where=self._where)
        self._given += count
        if self._given == self._size:
            if self._reader.readinto(memoryview(bytearray(1))):
                raise Corrupt(f"goes on after its {self._size} bytes", where=self._where)
            self._probed = True
            if not count:
                self._sent()
        return self._piece[:count]


class Broke(Unreachable):
    """The connection broke off in the middle: the one case where asking again may help."""


def unreached(error: BaseException, where: str, advice: str, connecting: float) -> Unreachable:
    """What *error*, of requests or urllib3, means to the user; *advice* is for where nobody answers."""
    import requests.exceptions as known
    import urllib3.exceptions as deeper

    chain = list(_chain(error))
    system = next((e for e in chain if isinstance(e, OSError) and e.strerror and _is_plain(e)), None)
    kind = Unreachable
    if any(isinstance(e, (known.SSLError, deeper.SSLError)) for e in chain):
        what = f"the TLS connection failed ({str(system or chain[-1])[:200]})"
        advice = "Name the certificate authority with SSL_CERT_FILE, or use http:// if it is plain."
    elif any(isinstance(e, (known.ProxyError, deeper.ProxyError)) for e in chain):
        what = "the proxy of the environment did not let it through"
        advice = "Set NO_PROXY for this host, or see what HTTP_PROXY and HTTPS_PROXY name."
    elif any(isinstance(e, deeper.NameResolutionError) for e in chain):
        what = "no such host is known here"
    elif system is not None and system.strerror:
        what = system.strerror[:1].lower() + system.strerror[1:]
        if isinstance(system, ConnectionResetError | BrokenPipeError | ConnectionAbortedError):
            kind = Broke
    elif any(isinstance(e, (known.ReadTimeout, deeper.ReadTimeoutError)) for e in chain):
        what, advice = "no answer in time", ""
    elif any(isinstance(e, (known.ConnectTimeout, deeper.ConnectTimeoutError)) for e in chain):
        what = f"no connection within {connecting:g} seconds"
    elif any(_is_no_http(e) for e in chain):
        what, advice = "what answers there does not speak HTTP", ""
    else:
        what, advice, kind = "the connection broke off in the middle", "", Broke
    return kind(what, where=where, advice=advice)


def failures() -> tuple[type[Exception], ...]:
    """Everything that requests and what lies below it raise."""
    import requests
    import urllib3

    return (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """*error*, and what lies behind it: causes, contexts, and what requests and urllib3 keep in arguments."""
    seen: set[int] = set()
    queue = [error]
    while queue:
        here = queue.pop(0)
        if not isinstance(here, BaseException) or id(here) in seen:
            continue
        seen.add(id(here))
        yield here
        queue += [here.__cause__, here.__context__, getattr(here, "reason", None)]
        queue += [each for each in here.args if isinstance(each, BaseException)]


def _is_no_http(error: BaseException) -> bool:
    from http.client import BadStatusLine, LineTooLong, RemoteDisconnected

    garbage = isinstance(error, BadStatusLine | LineTooLong)
    return garbage and not isinstance(error, RemoteDisconnected)  # that is an end without a word


def _is_plain(error: OSError) -> bool:
    return not type(error).__module__.startswith(("requests", "urllib3"))


def is_loopback(host: str) -> bool:
    """Whether *host*, a name or an address (IPv6 with or without brackets), is this machine's loopback."""
    host = host.lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = address_of(host)
    return address is not None and address.is_loopback


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that *host* spells; None where it is a name."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def proxies_for(url: str) -> dict[str, str]:
    """The proxies of the environment (NO_PROXY minded), none for this machine itself."""
    from requests.utils import get_environ_proxies

    return {} if is_loopback(urlsplit(url).hostname or "") else dict(get_environ_proxies(url))


def new_adapter(pool: int) -> HTTPAdapter:
    """An adapter for *pool* connections at once, with large pieces and keepalive, that minds `Call`."""
    import urllib3
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection, HTTPSConnection

    from modelpack.hands.reply import Reply

    options = [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):  # not every system has each of them
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))

    class Plain(HTTPConnection):
        response_class = Reply
        call: Call | None = None

        def connect(self) -> None:
            super().connect()
            opened(self)

        def putrequest(self, *args: Any, **more: Any) -> None:
            begin(self)
            super().putrequest(*args, **more)

    class Secure(HTTPSConnection):
        response_class = Reply
        call: Call | None = None

        def connect(self) -> None:
            super().connect()
            opened(self)

        def putrequest(self, *args: Any, **more: Any) -> None:
            begin(self)
            super().putrequest(*args, **more)

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **more: Any) -> None:
            super().init_poolmanager(*args, blocksize=_PIECE, socket_options=options, **more)
            self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}

        def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
            manager = super().proxy_manager_for(proxy, blocksize=_PIECE, socket_options=options, **more)
            manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
            return manager

    return Adapter(pool_connections=2, pool_maxsize=pool)


def opened(connection: Any) -> None:
    """What is owed to a connection that was just opened."""
    connection.sock.settimeout(_WRITE_TIMEOUT)  # urllib3 leaves the connect timeout on while it sends
    begin(connection)


def begin(connection: Any) -> None:
    """Put *connection*, open or not, under the call of this thread; raises OSError where that is over."""
    call = connection.call = current_call()
    if call is not None:
        call.hold(connection)
