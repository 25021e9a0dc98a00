"""What a status of 300 and more means, in the server's own words, and what to do about it."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Mapping

from modelpack.errors import Refused

SHOWN = 500
"""Characters of the other side's words that are passed on."""


def secrets_in(headers: Mapping[str, str]) -> list[str]:
    """What of *headers* says who we are, in each form in which another side could repeat it."""
    found: list[str] = []
    for key, value in headers.items():
        if key.lower() in ("authorization", "proxy-authorization", "cookie", "x-api-key"):
            credential = value.partition(" ")[2].strip()
            found += [value, credential]
            with contextlib.suppress(ValueError):
                text = base64.b64decode(credential, validate=True).decode()
                found += [text, text.partition(":")[2]]
    return sorted({one for one in found if len(one) > 3}, key=len, reverse=True)


def refusal(asked: str, where: str, status: int, headers: Mapping[str, str], raw: bytes) -> Refused:
    """What an answer of *status* to *asked* (`POST /x`) means; *raw* is the front of its body."""
    if status < 400:
        return Refused(
            f"points to {headers.get('Location', 'nowhere')[:200]!r}; redirects are not followed",
            where=where,
            advice="If you trust that address, name it yourself.",
            status=status,
        )
    if "Content-Encoding" in headers:
        raw = b""  # nobody asked for it, and nobody inflates it
    text = raw.decode("utf-8", "replace").strip("\0 \r\n")
    words, advice = _own_words(text)[:SHOWN], ""
    kind = headers.get("Content-Type", "")
    if status == 413:
        advice = (
            "A proxy before the server limits the size of a body: in nginx, set client_max_body_size 0 "
            "(and proxy_request_buffering off), or load past the proxy."
        )
    elif status in (401, 403):
        advice = "Set OLLAMA_API_KEY if it wants a token." + (
            " Ollama itself answers 403 to a Host name or Origin it does not know." if status == 403 else ""
        )
    elif status in (502, 503, 504) and text[:1] == "<":
        advice = "A proxy answered in place of the server: is Ollama running behind it?"
    elif "html" in kind or text[:1] == "<":
        words = "a web page: this is not Ollama"
        advice = "See whether the address and its port are Ollama's (11434 by default)."
    return Refused(
        f"answered {status} to {asked}" + (f": {words}" if words else ""),
        where=where,
        advice=advice,
        status=status,
        words=words,
    )


def _own_words(text: str) -> str:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    error = found.get("error", text) if isinstance(found, dict) else text
    if isinstance(error, dict):
        error = error.get("message", text)
    return str(error)
