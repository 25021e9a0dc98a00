"""The client of Ollama's API: everything that talks to a server goes through here.

Facts: api/client.go, envconfig/config.go, server/routes.go of Ollama v0.33, and what 0.24 and 0.33 answered.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from modelpack.errors import ModelpackError, NotFound, Refused, Unreachable, Unsupported, Usage
from modelpack.hands.answers import Event, Listed, Shown, Version
from modelpack.hands.crew import in_parallel
from modelpack.hands.http import Answer, Http
from modelpack.hands.wire import Upload
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import Reader

_ASKING = 4  # threads
_PORT = re.compile(r"\+?\d{1,10}", re.ASCII)
_NOT_OLLAMA = "See whether the address and its port are Ollama's (11434 by default)."


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


class Ollama:
    """An Ollama server, or what speaks like one. Any thread may use it; nothing is asked before a call.

    Every method raises Unreachable where nobody answers, and Refused, with the server's own words, where it
    says no.
    """

    def __init__(
        self,
        host: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        api_key: str | None = None,
        timeout: float = 300.0,
        ca: str | None = None,
    ) -> None:
        """*host* by default `OLLAMA_HOST`, *api_key* `OLLAMA_API_KEY`; an empty key is none.

        *timeout* is the longest silence in seconds where a server has nothing long to do.
        """
        base = parse_host(os.environ.get("OLLAMA_HOST", "") if host is None else host)
        key = (os.environ.get("OLLAMA_API_KEY", "") if api_key is None else api_key).strip()
        sent = dict(headers or {})
        if key and "authorization" not in {name.lower() for name in sent}:
            sent["Authorization"] = f"Bearer {key}"
        self._http = Http(
            base,
            headers=sent,
            ca=ca,
            timeout=timeout,
            nobody="Is Ollama running there? Name another server with --to, or set OLLAMA_HOST.",
        )

    @property
    def base(self) -> str:
        """The base URL, without an end slash."""
        return self._http.base

    def close(self) -> None:
        """Hang up; the client may be used again."""
        self._http.close()

    def about(self) -> Version:
        """`GET /api/version`; raises Unsupported where the answer is not Ollama's."""
        try:
            value = self._http.ask("GET", "/api/version").json()
        except Refused as error:
            if error.status in (401, 403, 407, 429) or (error.status or 0) >= 500:
                raise
            raise Unsupported(f"not Ollama: {error.what}", where=self.base, advice=_NOT_OLLAMA) from None
        text = value.pop("version", None)
        if not isinstance(text, str) or not text:
            raise Unsupported("not Ollama: it names no version", where=self.base, advice=_NOT_OLLAMA)
        return Version(text[:100], value)

    def version(self) -> str:
        """The server's version as it spells it."""
        return self.about().text

    def tags(self) -> tuple[Listed, ...]:
        """The models that are installed, newest first."""
        models = self._http.ask("GET", "/api/tags").json().get("models") or []
        if not isinstance(models, list) or not all(isinstance(each, dict) for each in models):
            raise Unsupported("its list of models is none", where=self.base, advice=_NOT_OLLAMA)
        return tuple(Listed.read(each, self.base) for each in models)

    def installed(self) -> dict[str, Listed]:
        """The same by name folded by case, as Ollama compares names."""
        found = {}
        for each in self.tags():
            try:
                found[Name.parse(each.name).folded] = each
            except Usage:
                continue  # no name of ours can stand for it
        return found

    def show(self, name: str, *, verbose: bool = False) -> Shown:
        """What is told of a model; raises NotFound where it is not installed."""
        data = {"model": name} | ({"verbose": True} if verbose else {})
        with self._named("POST", "/api/show", data, name) as answer:
            return Shown.read(answer.json())

    def copy(self, source: str, destination: str) -> None:
        """Give *source* a second name; raises NotFound where it is not installed."""
        self._named("POST", "/api/copy", {"source": source, "destination": destination}, source).read()

    def delete(self, name: str) -> None:
        """Remove *name*, and every blob that no other model names; raises NotFound where there is none."""
        self._named("DELETE", "/api/delete", {"model": name}, name).read()

    def has_blob(self, digest: Digest) -> bool:
        """Whether a blob of this name is there. That says nothing of its bytes: the server only looks."""
        with self._http.ask("HEAD", f"/api/blobs/{digest}", fine=(404,)) as answer:
            answer.read()
            return answer.status == 200

    def which(self, digests: Sequence[Digest]) -> set[Digest]:
        """Those of *digests* that `has_blob`, several asked at a time."""
        if len(digests) < 2:
            return {digest for digest in digests if self.has_blob(digest)}
        answers = in_parallel(digests, lambda digest, _gone: self.has_blob(digest), _ASKING)
        return {digest for digest, has in answers if has}

    def upload_blob(
        self,
        digest: Digest,
        size: int,
        reader: Reader,
        moved: Callable[[int], None] = lambda _count: None,
        sent: Callable[[], None] = lambda: None,
    ) -> bool:
        """Send *size* bytes of *reader*, which the server hashes; False where it had the blob already.

        `moved` hears of bytes as they leave, `sent` once all have and only the answer is awaited, for which
        there is no time limit. Refused with status 400 is the server's "digest mismatch". Nothing is tried
        twice, as the reader's bytes come once.
        """
        body = Upload(reader, size, digest, moved=moved, sent=sent)
        headers = {"Content-Type": "application/octet-stream"}
        try:
            with self._http.ask(
                "POST", f"/api/blobs/{digest}", body=body, headers=headers, patient=True
            ) as answer:
                answer.read()
                return answer.status == 201
        except Unreachable:
            # A server that has the blob answers 200 before it reads the body, and hangs up: a broken pipe.
            if self._has_after_all(digest):
                return False
            raise

    def _has_after_all(self, digest: Digest) -> bool:
        try:
            return self.has_blob(digest)
        except ModelpackError:
            return False  # the first error says more

    def create(self, request: Mapping[str, Any]) -> Iterator[Event]:
        """`POST /api/create`: the events up to `success`; there is no time limit between them.

        Raises Refused for an `error` inside the stream, which comes under a status of 200, and Unreachable
        for a stream that ends without `success`.
        """
        return self._stream("/api/create", {**request, "stream": True})

    def _stream(self, path: str, data: Mapping[str, Any]) -> Iterator[Event]:
        with self._http.ask("POST", path, data=data, patient=True) as answer:
            for line in answer.lines():
                if "error" in line:
                    status = line.get("status")
                    words = str(line["error"])[:2000]
                    raise Refused(
                        words,
                        where=self.base,
                        status=status if isinstance(status, int) else None,
                        words=words,
                    )
                event = Event.read(line)
                yield event
                if event.status == "success":
                    return
        raise Unreachable(
            f"its answer to POST {path} ended before it said success",
            where=self.base,
            advice="The server was stopped or ran out of memory or disk: see its log, then run again.",
        )

    def _named(self, method: str, path: str, data: Mapping[str, Any], name: str) -> Answer:
        try:
            return self._http.ask(method, path, data=data)
        except Refused as error:
            if error.status == 404 and "not found" in error.words:
                raise NotFound(f"has no model {name[:400]!r}", where=self.base) from None
            raise
