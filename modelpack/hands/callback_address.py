"""Which address the small registry binds, and which one a server is told: behind NAT they differ."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from modelpack.errors import Unreachable, Unsupported, Usage
from modelpack.hands.callback_port import Port, joined, take
from modelpack.hands.wire import address_of

_PLACE = re.compile(
    r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+|[0-9A-Fa-f:.]+:[0-9A-Fa-f:.]*)(?::([0-9]{1,5}))?", re.ASCII
)
# What a model's name can begin with: types/model/name.go of Ollama v0.33, and a colon is for the port.
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,253}", re.ASCII)
_NAME_IT = "Name this machine as the server knows it: --callback HOST:PORT (a name, or an IPv4 address)."


@dataclass(frozen=True)
class Calling:
    """How a server may call back: `callback` (HOST[:PORT]) is what it is told, `listen` (ADDR[:PORT]) what is
    bound here; both are found out where they are None. With `off` no port is opened.

    Raises Usage for a text that is no such address, Unsupported for a `callback` that is IPv6: the name of a
    model cannot hold one.
    """

    callback: str | None = None
    listen: str | None = None
    off: bool = False

    def __post_init__(self) -> None:
        if self.callback is not None:
            host, _ = _taken_apart(self.callback, "--callback", "HOST[:PORT]")
            address = address_of(host)
            if address is not None and address.version == 6:
                raise _no_ipv6(host)
            if _HOST.fullmatch(host) is None or (address is not None and address.is_unspecified):
                raise Usage(f"--callback {self.callback[:200]!r} is no host that a server can call")
        if self.listen is not None:
            _taken_apart(self.listen, "--listen", "ADDR[:PORT]")

    @property
    def told(self) -> tuple[str | None, int | None]:
        """Host and port of `callback`, as far as they are given."""
        return _taken_apart(self.callback, "", "") if self.callback is not None else (None, None)

    @property
    def bound(self) -> tuple[str | None, int | None]:
        """Address and port of `listen`, as far as they are given."""
        return _taken_apart(self.listen, "", "") if self.listen is not None else (None, None)


def _taken_apart(text: str, option: str, form: str) -> tuple[str, int | None]:
    found = _PLACE.fullmatch(text)
    port = int(found[2]) if found is not None and found[2] else None
    host = found[1].strip("[]") if found is not None else ""
    if found is None or (port is not None and not 0 < port < 65536) or (":" in host and not address_of(host)):
        raise Usage(f"{option} {text[:200]!r} is not an address", advice=f"Write {option} {form}.")
    return host, port


def _no_ipv6(address: str) -> Unsupported:
    return Unsupported(
        f"the address to call back is IPv6 ({address[:80]}), which no model's name can hold", advice=_NAME_IT
    )


@dataclass(frozen=True)
class Bound:
    """A port that is listened on, what the server is told of it, and what it is: both as HOST:PORT."""

    port: Port
    told: str
    listening: str


def bind(server: str, calling: Calling) -> Bound:
    """Listen as *calling* says, for the server whose base URL is *server*, until the port is left.

    Raises Unsupported where no port may be opened or the server could only be told an IPv6 address, Local
    where this machine does not let that address or port be bound, Unreachable for an unknown server.
    """
    if calling.off:
        raise Unsupported(
            "no port may be opened here (--no-listen), so the server cannot call back",
            advice="Leave --no-listen away.",
        )
    host, port = calling.told
    place, wanted = calling.bound
    own = place is None and host is not None and address_of(host) is not None and _is_here(host)
    if own:
        place = host  # as before a tunnel (127.0.0.1), or on the bridge to containers
    route = _way_to(server) if place is None or (host is None and _is_any(place)) else ""
    told = host or (route if place is None or _is_any(place) else place)
    address = address_of(told)
    if address is not None and address.version == 6:
        raise _no_ipv6(told)
    found = take(place or route, wanted or port or 0)
    port = port or found.address[1]
    return Bound(found, told if port == 80 else f"{told}:{port}", joined(*found.address))


def _is_any(place: str) -> bool:
    address = address_of(place)
    return address is not None and address.is_unspecified


def _is_here(host: str) -> bool:
    """Whether the IPv4 address *host* is one of this machine's."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def _way_to(server: str) -> str:
    """The address of this machine from which *server* is reached; nothing is sent."""
    parts = urlsplit(server)
    try:
        found = socket.getaddrinfo(parts.hostname or "", parts.port or 80, type=socket.SOCK_DGRAM)
    except (socket.gaierror, UnicodeError):
        raise Unreachable(
            "no such host is known here, so it is not known where it could call back",
            where=server,
            advice="Name this machine: --callback HOST[:PORT] and --listen ADDR[:PORT].",
        ) from None
    for family, kind, proto, _, address in sorted(found, key=lambda one: one[0] != socket.AF_INET):
        try:
            with socket.socket(family, kind, proto) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0])
        except OSError:
            continue
    raise Unreachable("no route leads there", where=server)
