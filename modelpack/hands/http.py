"""HTTP, carefully: bounded answers, no redirects, and errors that say which host and what to do.

On the adapter of `requests` alone, without a Session: a Session reads netrc, keeps cookies, and reads the
whole body of a redirect that nobody follows.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from modelpack.errors import NotFound, Refused, Unreachable, Usage
from modelpack.hands.call import current_call
from modelpack.hands.paced import Paced
from modelpack.hands.refusals import SHOWN, refusal, secrets_in
from modelpack.hands.retry import Busy, again
from modelpack.hands.wire import ReaderFailed, Upload, failures, new_adapter, proxies_for, unreached
from modelpack.version import __version__
from modelpack.words.blob import KIB, MIB
from modelpack.words.nested import is_deep
from modelpack.words.reader import fill, read_at_most

if TYPE_CHECKING:  # it costs most of the start-up time of a command that talks to nobody
    import requests
    from requests.adapters import HTTPAdapter

_T = TypeVar("_T")

ANSWER = 64 * MIB
"""The most bytes of an answer: `/api/show` with every token and tensor is the largest real one."""

_LENGTH = re.compile(r"[0-9]{1,19}", re.ASCII)
_MOST_CONTAINERS = 1_000_000
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a header's name: RFC 9110, 5.6.2

_WORDS = 64 * KIB  # of an error's body, to look for the server's own words


class Http:
    """One server: its base URL, and how it is talked to. Any thread may use it."""

    def __init__(
        self,
        base: str,
        *,
        headers: Mapping[str, str] | None = None,
        ca: str | None = None,
        timeout: float = 300.0,
        connect_timeout: float = 10.0,
        pool: int = 16,
        nobody: str = "",
    ) -> None:
        """*timeout* is the longest silence, in seconds; *nobody* is the advice where nobody answers.

        Raises Usage for headers that cannot be sent, NotFound for a missing *ca* (a file of certificates; by
        default what `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE` or `SSL_CERT_FILE` name, as curl and Go do).
        """
        self.base = base.rstrip("/")
        self.nobody = nobody
        self._headers = {"User-Agent": f"modelpack/{__version__}", "Accept-Encoding": "identity"}
        self._headers |= dict(headers or {})
        for key, value in self._headers.items():
            if not _TOKEN.fullmatch(key):
                raise Usage(f"{key[:100]!r} is no name that a header can have")
            if value != value.strip(" "):
                raise Usage(f"the header {key!r} begins or ends with a space")
            if not (value.isascii() and value.isprintable()):  # the value may be a secret: it is not shown
                raise Usage(f"the header {key!r} holds characters that no header can hold")
        self._timeouts = (connect_timeout, timeout)
        self._proxies: dict[str, str] | None = None
        self._verify: bool | str = True
        self._adapter: HTTPAdapter | None = None
        self._pool = pool
        if self.base.startswith("https:"):
            named = (os.environ.get(key) for key in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"))
            self._verify = ca or next(filter(None, named), None) or True
            if isinstance(self._verify, str) and not os.path.exists(self._verify):
                raise NotFound("no such file of certificates", where=self._verify)

    def ask(
        self,
        method: str,
        path: str,
        *,
        data: Any = None,
        body: Upload | None = None,
        headers: Mapping[str, str] | None = None,
        fine: Collection[int] = (),
        patient: bool = False,
    ) -> Answer:
        """Send a request, with *data* as JSON or *body* as it comes, and give the answer, its body unread.

        *patient*: no time limit for the answer, as the server may be silent over long work. Statuses of 300
        and more that are not *fine* raise Refused; no answer raises Unreachable; an error of the body's own
        reader comes through as it is. Raises Usage for what cannot be asked: an address that is none, NaN in
        *data*.
        """
        import requests

        where = f"{self.base}{path}"
        self.check_open()
        request = requests.PreparedRequest()
        try:
            request.prepare(method=method, url=where, headers={**self._headers, **(headers or {})}, json=data)
            adapter = self._opened()
        except requests.exceptions.InvalidJSONError:
            raise Usage(
                "a number of the request is NaN or infinite, which JSON cannot hold", where=where
            ) from None
        except ValueError:  # requests' InvalidURL is one, and what urllib says of a bad address
            raise Usage(f"{where[:200]!r} is not an address that can be asked") from None
        if body is not None:
            request.body = body  # type: ignore[assignment] # urllib3 reads what has read()
            request.headers["Content-Length"] = str(len(body))
        connect, read = self._timeouts
        try:
            response = adapter.send(
                request,
                stream=True,
                timeout=(connect, None) if patient else (connect, read),
                verify=self._verify,
                proxies=self._proxies,
            )
        except ReaderFailed:
            if body is None or body.failed is None:
                raise
            raise body.failed from None
        except failures() as error:
            raise self.unreached(error) from None
        answer = Answer(self, response, f"{method} {path}", secrets_in(request.headers))
        length = response.headers.get("Content-Length")
        if length is not None and _LENGTH.fullmatch(length) is None:
            answer.close()
            raise Unreachable("what answers there does not speak HTTP: its length is none", where=where)
        if response.status_code >= 300 and response.status_code not in fine:
            with answer:
                raise Busy.of(answer.refusal(), answer.headers)
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            answer.close()
            raise Refused(f"answered in {encoding[:40]!r}, although asked not to", where=where)
        return answer

    def learn(
        self,
        method: str,
        path: str,
        read: Callable[[Answer], _T],
        *,
        data: Any = None,
        fine: Collection[int] = (),
    ) -> _T:
        """What *read* makes of an answer to what changes nothing there, asked as often as `again` says."""

        def ask() -> _T:
            with self.ask(method, path, data=data, fine=fine) as answer:
                return read(answer)

        return again(ask)

    def check_open(self) -> None:
        """Raise Unreachable where this thread's call was broken off."""
        call = current_call()
        if call is not None and call.closed:
            raise Unreachable("was broken off here", where=self.base)

    def _opened(self) -> HTTPAdapter:
        if self._adapter is None:  # two threads may both make one: the later stays
            self._proxies = proxies_for(self.base)
            self._adapter = new_adapter(self._pool)
        return self._adapter

    def close(self) -> None:
        """Hang up: connections that are kept for the next request are closed."""
        if self._adapter is not None:
            self._adapter.close()

    def unreached(self, error: BaseException) -> Unreachable:
        """The error of ours that tells of *error*, of requests or below."""
        self.check_open()
        return unreached(error, self.base, self.nobody, self._timeouts[0])


class Answer:
    """An answer whose body is still to be read; to be closed, or used by `with`."""

    def __init__(
        self, http: Http, response: requests.Response, asked: str, secrets: Collection[str] = ()
    ) -> None:
        self._http, self._response, self._secrets = http, response, secrets
        self.asked = asked
        self.where = http.base
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection: it is used again only where the body was read to its end."""
        self._response.close()

    def readinto(self, into: memoryview, /) -> int:
        """Read bytes of the body as they come: an Answer is a Reader. Raises Unreachable."""
        try:
            raw = self._response.raw
            # read1 gives what is there; read() would wait until a whole piece has come (urllib3 before 2.1)
            piece = raw.read1(len(into)) if hasattr(raw, "read1") else raw.read(min(len(into), 512))
        except failures() as error:
            raise self._http.unreached(error) from None
        if len(piece) > len(into):
            raise Unreachable("what answers there does not speak HTTP", where=self.where)
        into[: len(piece)] = piece
        return len(piece)

    def masked(self, text: str) -> str:
        """*text* of the other side's, without what was sent there to say who we are."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def read(self, limit: int = ANSWER) -> bytes:
        """The whole body; Corrupt where it has more than *limit* bytes, Unreachable where it drips."""
        with self:
            return read_at_most(Paced(self, self.where), limit, f"{self.where}: the answer to {self.asked}")

    def json(self, limit: int = ANSWER) -> dict[str, Any]:
        """The body as a JSON object; raises Refused where it is something else."""
        return self.parse(self.read(limit))

    def lines(self, limit: int = MIB) -> Generator[dict[str, Any], None, None]:
        """The JSON objects of an NDJSON stream as they come; raises Refused for a line over *limit* bytes."""
        line, blank = bytearray(), 0
        piece = memoryview(bytearray(64 * KIB))
        with self:
            while count := self.readinto(piece):
                *ends, rest = bytes(piece[:count]).split(b"\n")
                blank = 0 if any(ends) or rest else blank + count
                if blank > limit:
                    raise Refused(
                        f"sends blank lines without end as its answer to {self.asked}", where=self.where
                    )
                for end in ends:
                    yield from self._line(line, end, limit)
                    line.clear()
                line += rest  # never joined with what came before: many small pieces would cost its square
                self._bounded(line, limit)
            yield from self._line(line, b"", limit)

    def _line(self, line: bytearray, end: bytes, limit: int) -> Iterator[dict[str, Any]]:
        line += end
        self._bounded(line, limit)
        if line.strip():
            yield self.parse(bytes(line))

    def _bounded(self, line: bytearray, limit: int) -> None:
        if len(line) > limit:
            raise Refused(
                f"sent a line of more than {limit} bytes in its answer to {self.asked}", where=self.where
            )

    def refusal(self) -> Refused:
        """The error that this answer, of status 300 or more, is."""
        raw = bytearray(_WORDS)
        try:
            raw = raw[: fill(self, memoryview(raw))] if self.status >= 400 else bytearray()
        except Unreachable:
            raw.clear()
        text = self.masked(bytes(raw).decode("utf-8", "replace"))
        return refusal(self.asked, self.where, self.status, self.headers, text.encode())

    def parse(self, raw: bytes) -> dict[str, Any]:
        """*raw* as a JSON object; raises Refused where it is none, or nested so deep that it is an attack."""
        try:
            # Each takes many times its two bytes of memory; the largest real answer has thousands.
            value = json.loads(raw) if raw.count(b"{") + raw.count(b"[") <= _MOST_CONTAINERS else None
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or is_deep(value):
            raise Refused(
                f"answered {self.asked} with something that is not JSON: this is not Ollama's API",
                where=self.where,
                status=self.status,
                words=self.masked(raw[:SHOWN].decode("utf-8", "replace")),
            )
        return value
