"""The address of a server, in the forms of `OLLAMA_HOST`.

Facts: envconfig/config.go of Ollama v0.33; net.SplitHostPort of Go.
"""

from __future__ import annotations

import ipaddress
import re

from modelpack.errors import Usage

_PORT = re.compile(r"\+?\d{1,10}", re.ASCII)


def parse_host(text: str) -> str:
    """The base URL that *text*, in the forms of `OLLAMA_HOST`, means to a client.

    `host`, `host:port`, IPv6 with or without brackets, `http(s)://host[:port][/path]`. A bare host has port
    11434, http:// 80 and https:// 443; a port that is none gives way to these; 0.0.0.0 and :: are this
    machine; `ollama.com` is https. Raises Usage for other schemes, and for a user's name in the address.
    """
    text = text.strip().strip("\"'").strip()
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = ("https", "ollama.com:443") if text == "ollama.com" else ("http", text)
    scheme = scheme.lower()
    if scheme not in ("http", "https"):
        raise Usage(f"{text[:200]!r} is not the address of a server", advice="Write [http[s]://]host[:port].")
    default = {"http": 80, "https": 443}[scheme] if mark else 11434
    if not mark and scheme == "https":
        default = 443
    place, _, path = rest.partition("/")
    if "@" in place:
        raise Usage(
            "the address of a server holds a user's name or a password",  # not shown: it may be a secret
            advice="Give it as a header (Authorization), or set OLLAMA_API_KEY.",
        )
    host, port = _split(place)
    if port is None:
        host, port = place.strip("[]") if _is_address(place.strip("[]")) else place, str(default)
    number = int(port) if _PORT.fullmatch(port) else -1
    if not 0 <= number <= 65535:
        number = default  # Ollama warns and goes on
    if _is_address(host):
        address = ipaddress.ip_address(host)
        host = str(address)
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
    host = host or "127.0.0.1"
    place = f"[{host}]" if ":" in host else host
    return f"{scheme}://{place}:{number}" + (f"/{path.rstrip('/')}" if path.strip("/") else "")


def _split(place: str) -> tuple[str, str | None]:
    """Host and port as Go's `net.SplitHostPort` takes them apart; no port where it would raise."""
    if place.startswith("["):
        host, mark, port = place[1:].partition("]:")
        return (host, port) if mark else (place, None)
    host, mark, port = place.rpartition(":")
    return (host, port) if mark and ":" not in host else (place, None)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text  # Go's net.ParseIP takes no zone
