"""Where a registry is, and where it sends us: addresses are looked at before anybody goes there."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from modelpack.errors import Refused, Usage
from modelpack.hands.wire import address_of, is_loopback
from modelpack.words.blob import KIB

LONGEST = 16 * KIB
"""Characters of a URL; signed ones have a few hundred."""


@dataclass(frozen=True, slots=True)
class Address:
    """A URL taken apart: `host` has no brackets, `target` is path and query."""

    scheme: str
    host: str
    port: int
    target: str = "/"

    @classmethod
    def parse(cls, url: str, where: object) -> Address:
        """Read *url*; Refused for what is no plain http(s) address. It is not repeated: it may be signed."""
        try:
            parts = urlsplit(url)
            port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
        except ValueError:
            parts, port = urlsplit(""), 0
        plain = len(url) <= LONGEST and url.isascii() and url.isprintable() and " " not in url
        if not (plain and port and parts.hostname and parts.username is None and "\\" not in url):
            raise Refused("names an address that modelpack does not go to", where=where)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.scheme, parts.hostname.lower().rstrip("."), port, target)

    @property
    def base(self) -> str:
        """Scheme, host and port: who is meant."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}[self.scheme]
        return f"{self.scheme}://{host}" + (f":{self.port}" if self.port != usual else "")

    def at(self, target: str) -> Address:
        """The same server, at *target*."""
        return Address(self.scheme, self.host, self.port, target)

    def onward(self, location: str, home: Address) -> Address:
        """Where the *location* that came from here leads; Refused where we do not go there.

        Never from https to http, to another scheme, or, from a registry elsewhere, to this machine itself.
        """
        if not location:
            raise Refused("sends us elsewhere without saying where", where=self.base)
        try:
            joined = urljoin(self.base + self.target, location)
        except ValueError:
            joined = ""
        there = Address.parse(joined, self.base)
        if self.scheme == "https" and there.scheme != "https":
            raise Refused(f"sends us on to plain http at {there.host}", where=self.base)
        if is_inward(there.host) and not is_inward(home.host):
            raise Refused(f"sends us on to {there.host}, which is this machine's own", where=self.base)
        return there


def is_inward(host: str) -> bool:
    """Whether *host* spells this machine or its own link: loopback, link-local, unspecified."""
    if is_loopback(host):
        return True
    address = address_of(host)
    if address is None:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(host))  # 127.1, 0x7f000001, 2130706433
        except (OSError, UnicodeError):
            return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_link_local or address.is_unspecified


def home_of(server: str, *, plain_http: bool) -> Address:
    """The address of the registry *server*, `host[:port]`."""
    try:
        return Address.parse(f"{'http' if plain_http else 'https'}://{server}", server)
    except Refused:
        raise Usage(f"{server[:100]!r} is not the address of a registry") from None
