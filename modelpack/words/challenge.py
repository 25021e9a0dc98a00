"""What a server asks of who wants in: the challenges of a `WWW-Authenticate` header (RFC 9110, 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_LONGEST = 16 * 1024
_MOST = 32  # challenges, and parameters of one
_SKIP = re.compile(r"[\s,]*")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]+))", re.DOTALL)
_TOKEN68 = re.compile(r"\s+[A-Za-z0-9._~+/-]+=*\s*(?=,|$)")
_QUOTED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True)
class Challenge:
    """A way in: `scheme` (`basic`, `bearer`, …) and its parameters (`realm`, …), keys in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(text: str) -> tuple[Challenge, ...]:
    """The challenges in *text*, several headers joined by commas among them.

    Nothing is raised: what cannot be read ends the list, as the caller can only say that it knows no way in.
    """
    found: list[tuple[str, dict[str, str]]] = []
    text = text[:_LONGEST]
    at = 0
    while (token := _TOKEN.match(text, _end(_SKIP, text, at))) is not None:
        value = _VALUE.match(text, token.end())
        if value is None:
            if len(found) == _MOST:
                break
            found.append((token[0].lower(), {}))
            at = _end(_TOKEN68, text, token.end())
            if at == token.end() and text[at : at + 1] not in ("", " ", "\t", ","):
                break
            continue
        if not found or len(found[-1][1]) == _MOST:
            break
        quoted = value[1]
        found[-1][1].setdefault(
            token[0].lower(), _QUOTED.sub(r"\1", quoted) if quoted is not None else value[2]
        )
        at = value.end()
    return tuple(Challenge(scheme, parameters) for scheme, parameters in found)


def _end(form: re.Pattern[str], text: str, at: int) -> int:
    found = form.match(text, at)
    return found.end() if found is not None else at
