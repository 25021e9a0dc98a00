"""`/v2/`: the models of a depot, as a registry of OCI's distribution specification gives them.

`/v2/<namespace>/<model>/…` is registry.ollama.ai/<namespace>/<model>, which a pull from here names
`<depot>/<namespace>/<model>`. A model of another host has three parts (`/v2/hf.co/user/repo/…`), one of
`library` may have one. Ollama's own names end at two.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from threading import BoundedSemaphore
from urllib.parse import quote

from werkzeug.wrappers import Request, Response

from modelpack.depot.asked import Says
from modelpack.depot.golang import encode
from modelpack.depot.sending import FileBody
from modelpack.depot.shelf import Shelf, image_of
from modelpack.documents.image import Image
from modelpack.errors import Corrupt, NotFound, Usage
from modelpack.words.blob import MANIFEST, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import DEFAULT_TAG, Name

_CHALLENGE = 'Basic realm="modelpack depot"'  # any user, the token as password
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_CODES = {
    400: "NAME_INVALID", 401: "UNAUTHORIZED", 403: "DENIED", 404: "NAME_UNKNOWN", 405: "UNSUPPORTED",
    409: "BLOB_UPLOAD_INVALID", 413: "SIZE_INVALID", 416: "BLOB_UPLOAD_INVALID", 429: "TOOMANYREQUESTS",
    503: "TOOMANYREQUESTS",
}  # fmt: skip


class Fault(Says):
    """A refusal with one of the specification's codes, and headers."""

    def __init__(self, status: int, code: str, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, text)
        self.code, self.headers = code, headers or {}


def refused(answer: Says) -> Response:
    """*answer* as a registry words it."""
    code, headers = _CODES.get(answer.status, "UNKNOWN"), {}
    if isinstance(answer, Fault):
        code, headers = answer.code, answer.headers
    if answer.status == 401:
        headers = {"WWW-Authenticate": _CHALLENGE}
    body = {"errors": [{"code": code, "message": answer.text, "detail": None}]}
    return Response(encode(body), answer.status, headers, content_type="application/json")


def named(repository: str, tag: str = DEFAULT_TAG) -> Name:
    """The name of a model here; Fault 400."""
    try:
        return Name.parse(f"{repository}:{tag}")
    except Usage:
        raise Fault(400, "NAME_INVALID", "that is not the name of a model, or not a tag") from None


def digest_of(text: str) -> Digest:
    """The digest that *text* spells in the one right way; Fault 400."""
    with contextlib.suppress(Corrupt):
        digest = Digest.parse(text)
        if str(digest) == text and digest.algorithm == "sha256":
            return digest
    raise Fault(400, "DIGEST_INVALID", "a digest is sha256: and 64 lower-case hex digits")


class Pulls:
    """What anybody may read of *shelf* who may read at all.

    Blobs are given to those who know a model that names them; to its owner, who can do anything with a
    writable depot, whatever is there (*all_blobs*): so a push finds what need not be sent again.
    """

    def __init__(self, shelf: Shelf, *, challenge: bool) -> None:
        self._shelf = shelf
        self._challenge = challenge
        self._parsing = BoundedSemaphore(2)  # a manifest takes several times its 4 MiB while it is read

    def ping(self, _request: Request) -> Response:
        """`/v2/`: yes, this is a registry."""
        response = Response(b"{}", content_type="application/json")
        response.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
        if self._challenge:
            response.headers["WWW-Authenticate"] = _CHALLENGE  # else skopeo pushes without the token it has
        return response

    def manifest(self, _request: Request, repository: str, reference: str) -> Response:
        """The manifest, byte for byte."""
        image = self._image(repository, reference)
        if image is None:
            raise Fault(404, "MANIFEST_UNKNOWN", f"there is no {repository}:{reference} here")
        response = Response(image.raw, content_type=MANIFEST)
        return _marked(response, image.id)

    def _image(self, repository: str, reference: str) -> Image | None:
        with self._parsing:
            return self._parsed(repository, reference)

    def _parsed(self, repository: str, reference: str) -> Image | None:
        if ":" not in reference:
            found = self._shelf.read(named(repository, reference))
            return found[1] if found is not None else None
        digest = digest_of(reference)
        images = (image_of(model) for model in self._shelf.tags(named(repository)))
        return next((image for image in images if image.id == digest), None)

    def blob(self, request: Request, repository: str, digest: str, all_blobs: bool) -> Response:
        """The blob, or the stretch of it that was asked for."""
        wanted = digest_of(digest)
        blob = self._blob(named(repository), wanted, all_blobs)
        asked = request.headers.get("Range") if request.method == "GET" else None
        stretch = _stretch(asked, blob.size)
        start, end = stretch or (0, blob.size)
        with _unless_damaged(wanted):
            body = FileBody(self._shelf.open(blob, start), end - start)
        response = Response(body, 206 if stretch else 200, direct_passthrough=True)
        if stretch:
            response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size}"
        response.headers["Content-Type"] = "application/octet-stream"
        response.headers["Content-Length"] = str(end - start)
        response.headers["Accept-Ranges"] = "bytes"
        # Ollama takes the address of its ranged requests from here, even from a 200 (server/download.go),
        # and resolves it as a redirect's: a path leads back here, whatever stands between.
        response.headers["Location"] = f"/v2/{repository}/blobs/{wanted}"
        return _marked(response, wanted)

    def _blob(self, name: Name, digest: Digest, all_blobs: bool) -> Blob:
        for model in self._shelf.tags(name):
            for blob in model.blobs:
                if blob.digest == digest:
                    return blob
        size = self._shelf.size_of(digest) if all_blobs else None
        if size is None:
            raise Fault(404, "BLOB_UNKNOWN", f"no tag of that repository names {digest}")
        return Blob(size, "application/octet-stream", digest)

    def tags(self, request: Request, repository: str) -> Response:
        """The tags of a repository, in order, `n` of them after `last`."""
        tags = sorted(model.name.tag for model in self._shelf.tags(named(repository)))
        if not tags:
            raise Fault(404, "NAME_UNKNOWN", f"there is no {repository} here")
        last, text = request.args.get("last"), request.args.get("n")
        if last is not None:
            tags = [tag for tag in tags if tag > last]
        headers = {}
        if text is not None:
            if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) is None:
                raise Fault(400, "PAGINATION_NUMBER_INVALID", "n is not a number of tags")
            if 0 < int(text) < len(tags):
                after = quote(tags[int(text) - 1])
                headers["Link"] = f'</v2/{repository}/tags/list?n={text}&last={after}>; rel="next"'
            tags = tags[: int(text)]
        value = {"name": repository, "tags": tags}
        return Response(encode(value), headers=headers, content_type="application/json")


@contextlib.contextmanager
def _unless_damaged(digest: Digest) -> Iterator[None]:
    try:
        yield
    except (NotFound, Corrupt) as error:  # without the place: strangers need not know our paths
        raise Fault(404, "BLOB_UNKNOWN", f"{digest} is damaged here: {error.what}") from None


def _stretch(text: str | None, size: int) -> tuple[int, int] | None:
    """Where the range begins and ends that *text* asks for; None for none, several, or nonsense."""
    found = _RANGE.fullmatch(text or "")
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, end = max(0, size - int(found[2])), size
    elif found[2] and int(found[2]) < int(found[1]):
        return None
    else:
        start, end = int(found[1]), min(int(found[2]) + 1 if found[2] else size, size)
    if start >= end:
        raise Fault(416, "RANGE_INVALID", f"it has {size} bytes", {"Content-Range": f"bytes */{size}"})
    return start, end


def _marked(response: Response, digest: Digest) -> Response:
    response.headers["Docker-Content-Digest"] = str(digest)
    response.headers["ETag"] = f'"{digest}"'
    return response
