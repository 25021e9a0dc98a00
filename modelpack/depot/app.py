"""The depot: Ollama's management API over a models directory, as a WSGI application.

What it answers, and to what, is held against recordings of real servers (tests/test_depot.py).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from modelpack.depot.asked import LARGEST, Says, flag_field, no_engine, read_object, says, text_field
from modelpack.depot.blobs import Blobs
from modelpack.depot.create import check, create
from modelpack.depot.golang import encode
from modelpack.depot.guard import Guard
from modelpack.depot.models import Models
from modelpack.depot.shown import show
from modelpack.errors import ModelpackError
from modelpack.version import __version__
from modelpack.words.blob import SMALL
from modelpack.words.report import Report, Said, silent

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SPEAKS = "0.24.0"
"""The `version` that a depot gives: the last Ollama that keeps an uploaded GGUF byte for byte, as it does.

A client that goes by versions so expects the right thing: 0.30 and later rewrite GGUFs. The answers have the
form of 0.33, which only adds to that of 0.24. The field `depot` says what it really is.
"""

JSON = "application/json; charset=utf-8"
_WRITES = frozenset({"put_blob", "create", "copy", "delete"})
_READ_ONLY = "this depot is read-only: start it with --writable"


def _rule(method: str, path: str, endpoint: str) -> Rule:
    return Rule(path, endpoint=endpoint, methods=[method])


_ROUTES = Map(
    [
        _rule("GET", "/", "root"),
        _rule("GET", "/api/version", "version"),
        _rule("GET", "/api/tags", "tags"),
        _rule("GET", "/api/ps", "ps"),
        _rule("POST", "/api/show", "show"),
        _rule("HEAD", "/api/blobs/<digest>", "head_blob"),
        _rule("POST", "/api/blobs/<digest>", "put_blob"),
        _rule("POST", "/api/create", "create"),
        _rule("POST", "/api/copy", "copy"),
        _rule("DELETE", "/api/delete", "delete"),
        _rule("POST", "/api/pull", "pull"),
        _rule("POST", "/api/push", "push"),
        *(_rule("POST", f"/api/{verb}", "engine") for verb in ("generate", "chat", "embed", "embeddings")),
    ],
    merge_slashes=False,
)


class Depot:
    """The models directory at *path*, served. It may be missing or empty; *writable* lets clients change it.

    With a *token* every request must bear it. *hosts* are names, besides loopback's, that the Host header may
    hold. *report* hears a `Said` for each answer, and of what went wrong inside: text from elsewhere.
    """

    def __init__(
        self,
        path: Path,
        *,
        writable: bool = False,
        token: str | None = None,
        hosts: Iterable[str] = (),
        report: Report = silent,
    ) -> None:
        path = path.absolute()  # `show` tells where blobs are
        self.path = path
        self.writable = writable
        self.guard = Guard(token, hosts)
        self._models = Models(path)
        self._blobs = Blobs(path, self._models.changing)
        self._report = report
        if writable:
            self._blobs.sweep()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request; nothing is raised."""
        request = Request(environ)
        response = self._answer(request)
        self._report(Said(f"{request.method} {request.path} {response.status_code}"))
        return response(environ, start_response)

    def tell(self, text: str) -> None:
        """Report what went wrong outside of any request."""
        self._report(Said(text))

    def _answer(self, request: Request) -> Response:
        try:
            headers = request.headers
            self.guard.check(headers.get("Host"), headers.get("Origin"), headers.get("Authorization"))
            endpoint, values = _ROUTES.bind_to_environ(request.environ).match()
            if endpoint in _WRITES and not self.writable:
                raise Says(403, _READ_ONLY)
            handler: Callable[..., Response] = getattr(self, f"_{endpoint}")
            return handler(request, **values)
        except Says as answer:
            return _said(answer)
        except MethodNotAllowed as error:
            allowed = {"Allow": ", ".join(sorted(error.valid_methods or ()))}
            return _plain("405 method not allowed", 405, allowed)
        except HTTPException:
            return _plain("404 page not found", 404)
        except ModelpackError as error:
            return _said(says(error))
        except Exception:  # noqa: BLE001 - a bug of ours: the server goes on, and somebody hears of it
            self.tell(traceback.format_exc())
            return _json({"error": "the depot failed: see its own output"}, 500)

    # --- what there is

    def _root(self, _request: Request) -> Response:
        return Response("Ollama is running")

    def _version(self, _request: Request) -> Response:
        return _json({"version": SPEAKS, "depot": __version__})

    def _tags(self, _request: Request) -> Response:
        return _json({"models": self._models.tags()})

    def _ps(self, _request: Request) -> Response:
        return _json({"models": []})

    def _show(self, request: Request) -> Response:
        with self._object(request) as asked:
            pieces = show(self._models, asked)
        return Response(self._unbroken(pieces), content_type=JSON)

    def _unbroken(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """An answer that fails in the middle must not look whole: the connection ends instead."""
        try:
            yield from pieces
        except Exception as error:
            self.tell(f"an answer was broken off: {error}")
            raise ConnectionError("broken off") from error

    def _head_blob(self, _request: Request, digest: str) -> Response:
        if not self._blobs.has(digest):
            raise Says(404, f'blob "{digest}" not found')
        return _empty(200)

    # --- what changes something

    def _put_blob(self, request: Request, digest: str) -> Response:
        if self._blobs.has(digest):
            return _empty(200)
        self._blobs.take(digest, request.stream, request.content_length)
        return _empty(201)

    def _create(self, request: Request) -> Response:
        said: list[str] = []
        failure = None
        with self._object(request, LARGEST) as asked:
            name = check(asked)
            stream = flag_field(asked, "stream", True)
            try:
                create(self._models, name, asked, said.append)
                said.append("success")
            except Says as answer:
                if answer.instead or not stream or not said:
                    raise
                failure = answer.text
        if not stream:
            return Response(encode({"status": said[-1]}), content_type="application/json")
        lines = [{"status": line} for line in said]
        if failure is not None:
            lines.append({"error": failure})
        pieces = (encode(line) + b"\n" for line in lines)  # an iterator: sent in chunks, as by Ollama
        return Response(pieces, content_type="application/x-ndjson")

    def _copy(self, request: Request) -> Response:
        with self._object(request) as asked:
            self._models.copy(text_field(asked, "source"), text_field(asked, "destination"))
        return _empty(200)

    def _delete(self, request: Request) -> Response:
        with self._object(request) as asked:
            self._models.delete(asked)
        return _empty(200)

    # --- what it is no place for

    def _pull(self, _request: Request) -> Response:
        raise Says(501, "this modelpack depot pulls nothing: load a bundle to it")

    def _push(self, _request: Request) -> Response:
        raise Says(501, "this modelpack depot pushes nothing: its directory can be packed")

    def _engine(self, _request: Request) -> Response:
        raise no_engine("run models")

    def _object(self, request: Request, limit: int = SMALL) -> AbstractContextManager[dict[str, Any]]:
        return read_object(request.stream, request.content_length, limit)


def _json(value: Mapping[str, Any], status: int = 200) -> Response:
    return Response(encode(value), status, content_type=JSON)


def _said(answer: Says) -> Response:
    kind = JSON if answer.plain else "application/json"
    response = Response(encode({"error": answer.text}), answer.status, content_type=kind)
    if answer.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _plain(text: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    return Response(text, status, headers=headers, content_type="text/plain")


def _empty(status: int) -> Response:
    response = Response(b"", status)
    response.headers.remove("Content-Type")
    return response
