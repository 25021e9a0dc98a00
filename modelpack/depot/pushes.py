"""`/v2/`, the other way: OCI pushes, from Ollama, skopeo or modelpack. A name appears last of all."""

from __future__ import annotations

import re

from werkzeug.wrappers import Request, Response

from modelpack.depot.asked import Says, read_whole
from modelpack.depot.blobs import Blobs
from modelpack.depot.changes import Changes
from modelpack.depot.registry import Fault, digest_of, named
from modelpack.depot.uploads import Upload, Uploads
from modelpack.documents.image import Image
from modelpack.errors import ModelpackError, NotFound
from modelpack.words.blob import CONFIG
from modelpack.words.digest import Digest

_PART = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/.*)?", re.ASCII)
_OLLAMAS = "application/vnd.ollama.image."


class Pushes:
    """Uploads of blobs, and manifests that name them, into a models directory."""

    def __init__(self, changes: Changes, blobs: Blobs) -> None:
        self._changes, self._blobs = changes, blobs
        self._uploads = Uploads(blobs)

    def close(self) -> None:
        """Remove what was not finished."""
        self._uploads.close()

    def begin(self, request: Request, repository: str) -> Response:
        """`POST uploads/`: a new upload; a whole one with `?digest=`; none at all for a blob that is here."""
        named(repository)
        text, mounted = request.args.get("digest"), request.args.get("mount")
        if text is not None:
            digest = digest_of(text)
            try:
                self._blobs.take(text, request.stream, request.content_length)
            except Says as answer:
                code = "DIGEST_INVALID" if answer.status == 400 else "TOOMANYREQUESTS"
                raise Fault(answer.status, code, answer.text) from None
            return _made(repository, digest)
        if mounted is not None:
            digest = digest_of(mounted)
            if self._changes.directory.size_of(digest) is not None:
                return _made(repository, digest)
        return _going(request, self._uploads.begin(repository), 202)

    def status(self, request: Request, repository: str, upload: str) -> Response:
        """`GET`: how far it is."""
        with self._uploads.held(repository, upload) as held:
            return _going(request, held, 204)

    def append(self, request: Request, repository: str, upload: str) -> Response:
        """`PATCH`: the next part; 416 for any other part."""
        with self._uploads.held(repository, upload) as held:
            self._take(request, held)
            return _going(request, held, 202)

    def finish(self, request: Request, repository: str, upload: str) -> Response:
        """`PUT ?digest=`: the last part, where there is one, and what all came to."""
        digest = digest_of(request.args.get("digest", ""))
        with self._uploads.held(repository, upload) as held:
            self._take(request, held)
            if not held.finish(digest):
                raise Fault(400, "DIGEST_INVALID", f"what was uploaded is not {digest}: begin again")
        return _made(repository, digest)

    def drop(self, request: Request, repository: str, upload: str) -> Response:  # noqa: ARG002 - one form
        """`DELETE`: forget it."""
        with self._uploads.held(repository, upload) as held:
            held.close()
        return _empty(204, {})

    def _take(self, request: Request, held: Upload) -> None:
        text, length = request.headers.get("Content-Range"), request.content_length
        if text is not None:
            found = _PART.fullmatch(text)
            if found is None or int(found[1]) != held.size:
                words = f"{held.size} bytes are here, so the next part begins at {held.size}"
                raise Fault(416, "BLOB_UPLOAD_INVALID", words, _progress(request, held))
            if length is not None and length != int(found[2]) + 1 - int(found[1]):
                raise Fault(400, "SIZE_INVALID", "Content-Range and Content-Length differ")
        held.append(request.stream, length)

    def manifest(self, request: Request, repository: str, reference: str) -> Response:
        """`PUT` of a manifest whose blobs are all here: the model has its name then."""
        if ":" in reference:
            raise Fault(400, "MANIFEST_INVALID", "a manifest here has a name: put it under a tag")
        name = named(repository, reference)
        raw = read_whole(request.stream, request.content_length)
        try:
            image = Image.parse(raw, "")
        except ModelpackError as error:
            words = f"the manifest {error.what}: a depot keeps Ollama's own (a bundle gets here by `load`)"
            raise Fault(400, "MANIFEST_INVALID", words) from None
        strange = {blob.media_type for blob in image.layers if not blob.media_type.startswith(_OLLAMAS)}
        strange |= {image.config.media_type} - {CONFIG}
        if strange:
            words = f"no model of Ollama's has {sorted(strange)[0][:100]!r} in its manifest"
            raise Fault(400, "MANIFEST_INVALID", words)
        try:
            self._changes.install(name, image)
        except NotFound as error:
            raise Fault(400, "MANIFEST_BLOB_UNKNOWN", error.what) from None
        place = f"/v2/{repository}/manifests/{reference}"
        return _empty(201, {"Location": place, "Docker-Content-Digest": str(image.id)})


def _made(repository: str, digest: Digest) -> Response:
    place = f"/v2/{repository}/blobs/{digest}"
    return _empty(201, {"Location": place, "Docker-Content-Digest": str(digest)})


def _going(request: Request, upload: Upload, status: int) -> Response:
    return _empty(status, _progress(request, upload))


def _progress(request: Request, upload: Upload) -> dict[str, str]:
    # The whole address: Ollama takes it as it is (server/upload.go), and resolves no path.
    place = f"{request.scheme}://{request.host}/v2/{upload.repository}/blobs/uploads/{upload.id}"
    return {
        "Location": place,
        "Range": f"0-{max(0, upload.size - 1)}",
        "Docker-Upload-UUID": upload.id,
    }


def _empty(status: int, headers: dict[str, str]) -> Response:
    response = Response(b"", status, headers)
    response.headers.remove("Content-Type")
    return response
