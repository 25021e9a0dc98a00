"""Who may ask: the right Host, no foreign web page, the token where there is one, anybody for open pulls.

A page in a browser on this machine can send requests to loopback. The Host check stops one whose own name was
pointed at 127.0.0.1 (DNS rebinding), the Origin check all others. Compare allowedHostsMiddleware in
server/routes.go of Ollama; it lets more through.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable

from modelpack.depot.asked import Says
from modelpack.errors import Usage
from modelpack.hands.wire import address_of, is_loopback

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?", re.ASCII)
_ORIGIN = re.compile(rf"https?://{_HOST.pattern}", re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]{16,4096}", re.ASCII)


class Guard:
    """The checks for one depot: *hosts* are names or addresses that Host may hold besides loopback's.

    With a *token* any address (not: any name) will do as well, since DNS cannot change what it means. With
    *open_pulls* nobody needs it to read a registry. Raises Usage where the token is too short to be one, or
    cannot be a header's value.
    """

    only_pulls = False
    """Whether there is nothing but open pulls: no token was given, and anybody may come."""

    def __init__(self, token: str | None, hosts: Iterable[str] = (), *, open_pulls: bool = False) -> None:
        if token is not None and _TOKEN.fullmatch(token) is None:
            raise Usage(
                "the token is not one",
                advice="It takes 16 to 4096 printable ASCII characters without spaces: openssl rand -hex 32",
            )
        self._token = None if token is None else _hash(token)
        self._hosts = {_plain(host) for host in hosts}
        self.open_pulls = open_pulls

    @property
    def has_token(self) -> bool:
        """Whether a token is asked for."""
        return self._token is not None

    def allow(self, host: str) -> None:
        """Take *host* as right from now on."""
        self._hosts.add(_plain(host))

    def check(
        self, host: str | None, origin: str | None, authorization: str | None, *, pull: bool = False
    ) -> bool:
        """Whether a request with such headers may do everything here; else it may *pull*.

        Says 400, 403 or 401 where it may do nothing, or is no pull.
        """
        found = _HOST.fullmatch(host or "")
        if found is None:
            raise Says(400, "the Host header is missing or malformed")
        if not self._is_allowed(found[1]):
            raise Says(
                403, "this depot does not go by that name (see the Host header): start it with --name HOST"
            )
        if origin is not None and not _is_local(origin):
            raise Says(403, "web pages from elsewhere are not let in: see the Origin header")
        if not self.only_pulls and (self._token is None or self._bears(authorization or "")):
            return True
        if pull and self.open_pulls:
            return False
        if self.only_pulls:
            raise Says(403, "this depot answers pulls only, GET and HEAD of /v2/")
        raise Says(401, "this depot asks for its token: Authorization: Bearer ...")

    def _bears(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        if scheme.lower() == "basic":  # as registries' clients can: any user, the token as password
            try:
                given = base64.b64decode(given, validate=True).decode("latin-1").partition(":")[2]
            except (binascii.Error, ValueError):
                return False
        elif scheme.lower() != "bearer":
            return False
        return self._token is not None and hmac.compare_digest(_hash(given), self._token)

    def _is_allowed(self, host: str) -> bool:
        if is_loopback(host) or _plain(host) in self._hosts:
            return True
        return (self._token is not None or self.open_pulls) and address_of(host) is not None


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _plain(host: str) -> str:
    address = address_of(host)
    return str(address) if address is not None else host.lower().rstrip(".")


def _is_local(origin: str) -> bool:
    found = _ORIGIN.fullmatch(origin)
    return found is not None and is_loopback(found[1])
