"""One request to a registry, or to where it sends us: bounded patience, and refusals in plain words."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unreachable
from modelpack.hands.http import Answer, Http
from modelpack.hands.registry_address import Address
from modelpack.hands.retry import Busy, again
from modelpack.hands.wire import Broke, Upload
from modelpack.words.blob import KIB
from modelpack.words.digest import Digest

PAUSE = 0.5
"""Seconds before a transfer that broke off is taken up again; each further time twice as long."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
BUSY = frozenset({429, 502, 503, 504})
_ANY = range(300, 600)
_SHOWN = 500


class Wire:
    """Connections to whoever the registry names. Any thread may use it."""

    def __init__(self, *, ca: str | None = None, timeout: float = 300.0) -> None:
        self._ca, self._timeout = ca, timeout
        self._opened: dict[str, Http] = {}

    def ask(
        self,
        method: str,
        address: Address,
        *,
        headers: Mapping[str, str] | None = None,
        body: Upload | bytes | memoryview | None = None,
        patient: bool = False,
    ) -> Answer:
        """The answer, whatever its status, but for those that say "later": asked again, then Refused.

        What cannot be sent twice (an Upload) is not. Raises Unreachable, and what an Upload's reader raises.
        """
        safe = method in ("GET", "HEAD")

        def once() -> Answer:
            sent = body if body is None or isinstance(body, Upload) else Upload(View(body), len(body))
            try:
                answer = self._http(address).ask(
                    method, address.target, headers=headers, body=sent, fine=_ANY, patient=patient
                )
            except Broke as error:
                if safe:
                    raise
                raise Unreachable(error.what, where=error.where, advice=error.advice) from None
            except Unreachable as error:
                raise _advised(error, address) from None
            if answer.status in BUSY and isinstance(refused := refusal(answer), Refused):
                raise Busy.of(refused, answer.headers)
            return answer

        return once() if isinstance(body, Upload) else again(once)

    def _http(self, address: Address) -> Http:
        found = self._opened.get(address.base)
        if found is None:
            if len(self._opened) >= 16:
                self.close()
            found = Http(
                address.base, ca=self._ca, timeout=self._timeout, nobody="Is a registry listening there?"
            )
            self._opened[address.base] = found
        return found

    def close(self) -> None:
        """Hang up."""
        opened, self._opened = self._opened, {}
        for http in opened.values():
            http.close()


class Asks(Protocol):
    """What the parts of the client need of it: see `Registry`."""

    @property
    def base(self) -> str:
        """Scheme, host and port."""
        ...

    def ask(
        self,
        method: str,
        place: str | Address,
        scopes: Sequence[str] = (),
        *,
        headers: Mapping[str, str] | None = None,
        body: Upload | bytes | memoryview | None = None,
        fine: Collection[int] = (),
        patient: bool = False,
    ) -> Answer:
        """A request; statuses of 300 and more that are not *fine* raise."""
        ...

    def blob_address(self, repository: str, digest: Digest) -> Address:
        """Where a blob is asked for."""
        ...

    def onward(self, here: Address, answer: Answer) -> Address:
        """Where a redirect leads."""
        ...

    def location(self, here: Address, answer: Answer) -> Address:
        """Where an upload goes on."""
        ...


def pull(repository: str) -> tuple[str, ...]:
    """The scope of reading."""
    return (f"repository:{repository}:pull",)


def push(repository: str) -> tuple[str, ...]:
    """The scope of writing."""
    return (f"repository:{repository}:pull,push",)


class View:
    """The bytes of a buffer: a Reader."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._rest = memoryview(data)

    def readinto(self, into: memoryview, /) -> int:
        """As Reader says."""
        count = min(len(into), len(self._rest))
        into[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _advised(error: Unreachable, address: Address) -> Unreachable:
    if address.scheme == "https" and "TLS" in error.what:
        error.advice = (
            "If it speaks plain HTTP, as a registry on loopback often does, say so with --plain-http. "
            "If it has a certificate of its own, name its authority with SSL_CERT_FILE."
        )
    return error


def header_number(answer: Answer, key: str) -> int | None:
    """The count in a header; None where there is none."""
    text = answer.headers.get(key, "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def refusal(answer: Answer) -> ModelpackError:
    """The error for *answer*, whose body may hold the registry's own words. It is closed."""
    status, where = answer.status, answer.where
    code, words = _words(answer)
    advice = ""
    if words.startswith("<"):
        words = "a web page: is this a registry?"
    if 300 <= status < 400:
        host = _host(answer.headers.get("Location", ""))
        words = f"it sends us elsewhere ({host})" if host else "it sends us elsewhere"
        advice = f"Name that host yourself: oci://{host}/…" if host else ""
    elif status in (401, 403):
        advice = (
            "Log in: user:password or a token in a file or in MODELPACK_REGISTRY_AUTH, or `skopeo login` or "
            "`docker login`. A login may also be good for reading only, or for other repositories."
        )
    elif status == 405 or code == "UNSUPPORTED":
        advice = "Does it only mirror another registry, or is it read-only?"
    elif status == 413:
        advice = "A proxy before it limits the size of a body: in nginx, set client_max_body_size 0."
    elif status in BUSY:
        advice = "Try again later."
    elif "HTTP request to an HTTPS server" in words:
        advice = "It speaks TLS: leave --plain-http away."
    what = f"answered {status} to {answer.asked[:300].partition('?')[0]}" + (f": {words}" if words else "")
    if status == 404:
        return NotFound(what, where=where)
    return Refused(what, where=where, advice=advice, status=status, words=code or words)


def _host(location: str) -> str:
    try:
        return (urlsplit(location).netloc.rpartition("@")[2])[:100]
    except ValueError:
        return ""


def _words(answer: Answer) -> tuple[str, str]:
    """The first error's code, and what it says; of OCI's form, or any text."""
    if answer.asked.startswith("HEAD "):
        answer.close()
        return "", ""
    piece = memoryview(bytearray(64 * KIB))
    done = 0
    with answer:
        try:
            while done < len(piece) and (count := answer.readinto(piece[done:])):
                done += count
        except Unreachable:
            pass
    text = answer.masked(bytes(piece[:done]).decode("utf-8", "replace").strip())
    try:
        found: Any = json.loads(text)
        first = found["errors"][0]
        code, message = str(first.get("code", ""))[:100], str(first.get("message", ""))[:_SHOWN]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return "", text[:_SHOWN]
    return code, f"{code}: {message}" if message else code


def read_object(answer: Answer, limit: int, where: object) -> dict[str, Any]:
    """The JSON object that *answer* brings, of at most *limit* bytes; Corrupt where it is none."""
    return parse_json(answer.read(limit), where)


def parse_json(raw: bytes, where: object) -> dict[str, Any]:
    """The JSON object in *raw*; Corrupt where it is none."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Corrupt("answered with something that is no JSON object", where=where)
    return found
