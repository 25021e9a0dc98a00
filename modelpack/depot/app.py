"""The depot: Ollama's management API and a registry over a models directory or a bundle, by WSGI.

What it answers, and to what, is held against recordings of real servers (tests/test_depot.py).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.wrappers import Request, Response

from modelpack.depot.asked import LARGEST, Says, flag_field, no_engine, read_object, says, text_field
from modelpack.depot.blobs import Blobs, has
from modelpack.depot.changes import Changes
from modelpack.depot.create import check, create
from modelpack.depot.golang import encode
from modelpack.depot.guard import Guard
from modelpack.depot.models import Models
from modelpack.depot.pruning import prune
from modelpack.depot.pushes import Pushes
from modelpack.depot.registry import Pulls, refused
from modelpack.depot.routes import ROUTES
from modelpack.depot.shelf import Bundle, Directory
from modelpack.depot.shown import show
from modelpack.depot.transfers import Transfers, told
from modelpack.errors import ModelpackError, Usage
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
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
_WRITES = frozenset({"put_blob", "create", "copy", "delete", "pull", "push"})
_READ_ONLY = "this depot is read-only: start it with --writable"


class Depot:
    """The models directory at *place*, served, or a bundle. A directory may be missing or empty.

    *writable* lets clients change it (Usage: not a bundle). With a *token* every request must bear it, but
    with *open_pulls* not those that read `/v2/`. *hosts* are names, besides loopback's, that the Host header
    may hold. *report* hears a `Said` for each answer, and of what went wrong inside: text from elsewhere.
    """

    def __init__(
        self,
        place: Path | Archive | FolderBundle,
        *,
        writable: bool = False,
        token: str | None = None,
        hosts: Iterable[str] = (),
        open_pulls: bool = False,
        report: Report = silent,
    ) -> None:
        # Absolute: `show` tells where blobs are.
        shelf = Directory(place.absolute()) if isinstance(place, Path) else Bundle(place)
        self.path = shelf.path
        self.writable = writable
        self.guard = Guard(token, hosts, open_pulls=open_pulls)
        self._models = Models(shelf)
        self._pulls = Pulls(shelf, challenge=token is not None)
        self._report = report
        if not isinstance(shelf, Directory):
            if writable:
                raise Usage("a bundle is served as it is: it cannot be --writable", where=self.path)
            return
        self._changes = Changes(shelf, self._models)
        self._blobs = Blobs(shelf.store, self._changes.changing)
        self._pushes = Pushes(self._changes, self._blobs)
        self._transfers = Transfers(self._changes)
        if writable:
            self._blobs.sweep()
            self._prune(shelf)

    def _prune(self, directory: Directory) -> None:
        try:
            removed = prune(directory)
        except ModelpackError as error:  # it can be served all the same
            self.tell(f"unused blobs were left where they are: {error}")
        else:
            if removed:
                more = f" and {len(removed) - 3} more" if len(removed) > 3 else ""
                self.tell(f"removed from blobs/, as no model names it: {', '.join(removed[:3])}{more}")

    def stop(self) -> None:
        """Break off its own pulls and pushes, which may wait for a silent registry; no more begin."""
        if self.writable:
            self._transfers.close()

    def close(self) -> None:
        """Remove what unfinished uploads have left."""
        if self.writable:
            self._pushes.close()

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
            return self._found(request)
        except Says as answer:
            return _said(request, answer)
        except MethodNotAllowed as error:
            response = _plain(request, "405 method not allowed", 405)
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
            return response
        except HTTPException:
            return _plain(request, "404 page not found", 404)
        except ModelpackError as error:
            return _said(request, says(error))
        except Exception:  # noqa: BLE001 - a bug of ours: the server goes on, and somebody hears of it
            self.tell(traceback.format_exc())
            return _said(request, Says(500, "the depot failed: see its own output"))

    def _found(self, request: Request) -> Response:
        headers = request.headers
        owner = self.guard.check(
            headers.get("Host"),
            headers.get("Origin"),
            headers.get("Authorization"),
            pull=_is_registry(request) and request.method in ("GET", "HEAD"),
        )
        endpoint, found = ROUTES.bind_to_environ(request.environ).match()
        values: dict[str, Any] = dict(found)
        part, _, verb = endpoint.rpartition(".")
        if (part == "pushes" or endpoint in _WRITES) and not self.writable:
            raise Says(403, _READ_ONLY)
        if part == "pushes" and not owner:  # GET of an upload is no pull
            raise Says(401, "this depot asks for its token to be pushed to")
        if endpoint == "pulls.blob":
            values["all_blobs"] = owner and self.writable
        handlers = getattr(self, f"_{part}") if part else self
        handler: Callable[..., Response] = getattr(handlers, verb if part else f"_{verb}")
        return handler(request, **values)

    # --- what there is

    def _root(self, _request: Request) -> Response:
        return Response("Ollama is running")

    def _version(self, _request: Request) -> Response:
        return _json({"version": SPEAKS, "depot": __version__})

    def _tags(self, _request: Request) -> Response:
        return Response(self._models.tags(), content_type=JSON)

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
        if not has(self._models.shelf, digest):
            raise Says(404, f'blob "{digest}" not found')
        return _empty(200)

    # --- what changes something

    def _put_blob(self, request: Request, digest: str) -> Response:
        if has(self._models.shelf, digest):
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
                create(self._changes, name, asked, said.append)
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
            self._changes.copy(text_field(asked, "source"), text_field(asked, "destination"))
        return _empty(200)

    def _delete(self, request: Request) -> Response:
        with self._object(request) as asked:
            self._changes.delete(asked)
        return _empty(200)

    def _pull(self, request: Request) -> Response:
        return self._transferred(request, self._transfers.pull)

    def _push(self, request: Request) -> Response:
        return self._transferred(request, self._transfers.push)

    def _transferred(self, request: Request, work: Callable[..., Iterator[dict[str, Any]]]) -> Response:
        with self._object(request) as asked:
            text = text_field(asked, "model", "name")
            insecure, stream = flag_field(asked, "insecure", False), flag_field(asked, "stream", True)
        if not text:
            raise Says(400, "invalid model name")
        lines = work(text, insecure=insecure)
        first = next(lines)  # what is wrong with the request itself has a status
        if stream:
            pieces = (encode(line) + b"\n" for line in told(chain([first], lines)))
            return Response(pieces, content_type="application/x-ndjson")
        *_, last = chain([first], lines)
        return _json(last)

    # --- what it is no place for

    def _engine(self, _request: Request) -> Response:
        raise no_engine("run models")

    def _object(self, request: Request, limit: int = SMALL) -> AbstractContextManager[dict[str, Any]]:
        return read_object(request.stream, request.content_length, limit)


def _json(value: Mapping[str, Any], status: int = 200) -> Response:
    return Response(encode(value), status, content_type=JSON)


def _is_registry(request: Request) -> bool:
    return request.path == "/v2" or request.path.startswith("/v2/")


def _said(request: Request, answer: Says) -> Response:
    if _is_registry(request):
        return refused(answer)
    kind = JSON if answer.plain else "application/json"
    response = Response(encode({"error": answer.text}), answer.status, content_type=kind)
    if answer.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _plain(request: Request, text: str, status: int) -> Response:
    if _is_registry(request):
        return refused(Says(status, text))
    return Response(text, status, content_type="text/plain")


def _empty(status: int) -> Response:
    response = Response(b"", status)
    response.headers.remove("Content-Type")
    return response
