"""The client of Ollama's API: everything that talks to a server goes through here.

Facts: api/client.go, envconfig/config.go, server/routes.go of Ollama v0.33, and what 0.24 and 0.33 answered.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unreachable, Unsupported, Usage
from modelpack.hands.answers import Event, Listed, Running, Shown, Version
from modelpack.hands.bytes import FileReader
from modelpack.hands.crew import in_parallel
from modelpack.hands.hashing import pour
from modelpack.hands.http import Answer, Http
from modelpack.hands.ollama_create import Fields, request_of
from modelpack.hands.ollama_events import Events, result
from modelpack.hands.ollama_host import parse_host
from modelpack.hands.wire import Upload
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import Reader

__all__ = ["Ollama", "parse_host"]

_T = TypeVar("_T")

_ASKING = 4  # threads
_NOT_OLLAMA = "See whether the address and its port are Ollama's (11434 by default)."


class Ollama:
    """An Ollama server, or what speaks like one. Any thread may use it; nothing is asked before a call.

    Every method raises Unreachable where nobody answers, and Refused, with the server's own words, where it
    says no. What changes nothing there is asked again as `hands.retry` says; nothing else is.
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
            nobody="Is Ollama running there? Name another server, or set OLLAMA_HOST.",
        )

    @property
    def base(self) -> str:
        """The base URL, without an end slash."""
        return self._http.base

    def close(self) -> None:
        """Hang up; the client may be used again."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def about(self) -> Version:
        """`GET /api/version`; raises Unsupported where the answer is not Ollama's."""
        try:
            value = self._http.learn("GET", "/api/version", Answer.json)
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

    def list(self) -> tuple[Listed, ...]:
        """`GET /api/tags`: the models that are installed, newest first."""
        return self._models("/api/tags", Listed.read)[0]

    def list_dated(self) -> tuple[tuple[Listed, ...], str]:
        """The same, and the `Date` of the answer (empty for none): the server's own clock."""
        return self._models("/api/tags", Listed.read)

    def installed(self) -> dict[str, Listed]:
        """The same by name folded by case, as Ollama compares names."""
        found = {}
        for each in self.list():
            try:
                found[Name.parse(each.name).folded] = each
            except Usage:
                continue  # no name of ours can stand for it
        return found

    def running(self) -> tuple[Running, ...]:
        """`GET /api/ps`: the models that are in memory now."""
        return self._models("/api/ps", Running.read)[0]

    def _models(self, path: str, read: Callable[[dict[str, Any], object], _T]) -> tuple[tuple[_T, ...], str]:
        value, date = self._http.learn("GET", path, lambda one: (one.json(), one.headers.get("Date", "")))
        models = value.get("models") or []
        if not isinstance(models, list) or not all(isinstance(each, dict) for each in models):
            raise Unsupported("its list of models is none", where=self.base, advice=_NOT_OLLAMA)
        return tuple(read(each, self.base) for each in models), date

    def show(self, name: str, *, verbose: bool = False) -> Shown:
        """`POST /api/show`: what is told of a model; raises NotFound where it is not installed."""
        data = {"model": name} | ({"verbose": True} if verbose else {})
        with self._missing(name):
            return Shown.read(self._http.learn("POST", "/api/show", Answer.json, data=data))

    def copy(self, source: str, destination: str) -> None:
        """Give *source* a second name; raises NotFound where it is not installed."""
        with self._missing(source):
            self._http.ask("POST", "/api/copy", data={"source": source, "destination": destination}).read()

    def delete(self, name: str) -> None:
        """Remove *name*, and every blob that no other model names; raises NotFound where there is none."""
        with self._missing(name):
            self._http.ask("DELETE", "/api/delete", data={"model": name}).read()

    @contextlib.contextmanager
    def _missing(self, name: str) -> Iterator[None]:
        try:
            yield
        except Refused as error:
            if error.status == 404 and "not found" in error.words:
                raise NotFound(f"has no model {name[:400]!r}", where=self.base) from None
            raise

    def has_blob(self, digest: Digest) -> bool:
        """Whether a blob of this name is there. That says nothing of its bytes: the server only looks."""

        def read(answer: Answer) -> bool:
            answer.read()
            return answer.status == 200

        return self._http.learn("HEAD", f"/api/blobs/{digest}", read, fine=(404,))

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

    def upload_file(
        self,
        path: Path | str,
        *,
        digest: Digest | None = None,
        moved: Callable[[int], None] = lambda _count: None,
    ) -> Digest:
        """Send the file at *path*, unless a blob of its name is there; its digest.

        Hashes the file first where no *digest* is given, and then raises Corrupt where the file changes
        meanwhile. Raises NotFound where there is none, and what `upload_blob` does.
        """
        path = Path(path)
        found = digest or _digest_of(path)
        if not self.has_blob(found):
            try:
                with FileReader.at(path) as reader:
                    self.upload_blob(found, reader.size, reader, moved)
            except Refused as error:
                if digest is None and error.status == 400 and _digest_of(path) != found:
                    raise Corrupt("changed while it was sent", where=path) from None
                raise
        return found

    def create_from(self, request: Mapping[str, Any]) -> Events:
        """`POST /api/create` of a whole request, as `documents.create.create_request` makes it."""
        base = str(request.get("from") or request.get("model", ""))
        return Events(self._http, "/api/create", {**request, "stream": True}, base)

    @overload
    def create(self, model: str, *, stream: Literal[True] = ..., **fields: Unpack[Fields]) -> Events:
        """The events."""

    @overload
    def create(self, model: str, *, stream: Literal[False], **fields: Unpack[Fields]) -> Event:
        """The one result."""

    def create(self, model: str, *, stream: bool = True, **fields: Unpack[Fields]) -> Events | Event:
        """`POST /api/create`: make *model* of what `Fields` says; its events, or the one result.

        What an older server ignores without a word, `documents.create.fields_lost` tells.
        """
        request = request_of(model, fields)
        if stream:
            return self.create_from(request)
        return result(self._http, "/api/create", request, str(request.get("from") or model))

    @overload
    def pull(self, model: str, *, insecure: bool = ..., stream: Literal[True] = ...) -> Events:
        """The events."""

    @overload
    def pull(self, model: str, *, insecure: bool = ..., stream: Literal[False]) -> Event:
        """The one result."""

    def pull(self, model: str, *, insecure: bool = False, stream: bool = True) -> Events | Event:
        """`POST /api/pull`: have the server fetch *model*; *insecure* allows plain http.

        Raises NotFound where its registry has no such model.
        """
        return self._moved("/api/pull", model, insecure, stream)

    @overload
    def push(self, model: str, *, insecure: bool = ..., stream: Literal[True] = ...) -> Events:
        """The events."""

    @overload
    def push(self, model: str, *, insecure: bool = ..., stream: Literal[False]) -> Event:
        """The one result."""

    def push(self, model: str, *, insecure: bool = False, stream: bool = True) -> Events | Event:
        """`POST /api/push`: have the server send *model* to the registry in its name.

        Raises NotFound where it is not installed.
        """
        return self._moved("/api/push", model, insecure, stream)

    def _moved(self, path: str, model: str, insecure: bool, stream: bool) -> Events | Event:
        data: dict[str, Any] = {"model": model} | ({"insecure": True} if insecure else {})
        if stream:
            return Events(self._http, path, {**data, "stream": True}, model)
        return result(self._http, path, data, model)


def _digest_of(path: Path) -> Digest:
    with FileReader.at(path) as reader:
        digest = pour(reader, reader.size, where=path).sha256
    assert digest is not None  # noqa: S101 - it was asked for
    return digest
