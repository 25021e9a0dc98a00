"""A blob on its way into a registry: streamed, and taken up again where it broke off."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unreachable
from modelpack.hands.kept import Opened
from modelpack.hands.registry_address import Address
from modelpack.hands.registry_parts import Broken, Part, bytes_there, pause
from modelpack.hands.registry_wire import Asks, header_number, pull, push
from modelpack.hands.wire import Upload
from modelpack.words.blob import MIB
from modelpack.words.digest import Digest
from modelpack.words.reader import Reader, fill

IN_HAND = 4 * MIB
"""A blob of no more bytes is read into memory, and goes in one PUT."""
PARTS = (1024 * MIB, 64 * MIB, 4 * MIB)
"""Bytes of a PATCH: a smaller one only where a larger one does not get there. GHCR ends at 4 MiB."""
TRIES = 5
"""The most times in a row that less than PROGRESS is gained, and the most uploads that one blob is given."""
PROGRESS = MIB
_BYTES = {"Content-Type": "application/octet-stream"}
_TOO_LARGE = {413, 416}
_NO_PARTS = {400, 404, 405, 411, 501}
_PASSING = {401, 408, 409, 416, 429}  # 401: the token ran out; 409: what broke off here goes on there


class Uploading:
    """One blob, once: *data* opens it at any offset, or has its bytes once.

    A large blob is a streamed PATCH, or several, then an empty PUT: docker, crane and skopeo do so, and
    registries are ready for it. They differ in the rest: a body may be too large (413, 416), a broken upload
    gone (docker-registry 2.8: 404), a PATCH answered by 201 and the next one lost (ECR). Whoever does not
    take the first PATCH with a 202 gets all in one PUT; so goes what comes once, as from a pipe.
    """

    def __init__(
        self,
        registry: Asks,
        repository: str,
        digest: Digest,
        size: int,
        data: Opened | Reader,
        moved: Callable[[int], None],
    ) -> None:
        self._registry, self._repository, self._digest = registry, repository, digest
        self._size, self._data, self._moved = size, data, moved
        self._scopes = push(repository)
        self._where = f"{registry.base}/{repository}"
        self._place = registry.blob_address(repository, digest)
        self._begun = False  # there is an upload
        self._ending = False  # a PUT was sent
        self._taken = False  # a PATCH was
        self._part, self._least = PARTS[0], 0  # bytes of a PATCH; 0: all in one PUT
        # Bytes that the registry has, that were given to this upload, that `moved` heard of.
        self._at = self._given = self._told = 0

    def run(self) -> None:
        """Send it all; what was begun and failed is cancelled. See `Registry.upload_blob`."""
        data = self._data
        try:
            if self._size <= IN_HAND:
                with data(0) if callable(data) else contextlib.nullcontext(data) as reader:
                    self._small(reader)
            elif callable(data):
                self._large(data)
            else:
                self._begin()
                self._finish(self._body(data, self._size)[1])
        except BaseException:
            self._forget()
            raise
        self._tell(self._size)

    @staticmethod
    def cancel(registry: Asks, repository: str, place: Address) -> None:
        """Let the registry forget the upload at *place*, where it can."""
        with contextlib.suppress(ModelpackError):
            registry.ask("DELETE", place, push(repository)).close()

    def _forget(self) -> None:
        if self._begun:
            self._begun = False
            self.cancel(self._registry, self._repository, self._place)

    def _tell(self, sent: int) -> None:
        """All up to *sent* went out: `moved` hears of what is more than ever before."""
        if sent > self._told:
            more, self._told = sent - self._told, sent
            self._moved(more)

    def _small(self, reader: Reader) -> None:
        """In one PUT, from memory: it can be sent again."""
        held = memoryview(bytearray(self._size))
        fill(Part(reader, 0, self._size, self._size, self._digest), held)
        if Digest.of(held) != self._digest:
            raise Corrupt(f"its bytes hash to {Digest.of(held)}, not to {self._digest}")
        for attempt in (1, 2, 3):
            try:
                self._begin()
                self._finish(held)
            except Unreachable as error:
                if attempt == 3 or not self._begun:
                    raise
                pause(error, attempt)
            else:
                break

    def _begin(self) -> None:
        """Begin an upload."""
        path = f"/v2/{self._repository}/blobs/uploads/"
        with self._registry.ask("POST", path, self._scopes) as answer:
            answer.read(MIB)
        self._place = self._registry.location(self._place, answer)
        self._begun, self._at, self._given = True, 0, 0
        self._least = header_number(answer, "OCI-Chunk-Min-Length") or 0
        if self._part < self._least:
            self._part = 0

    def _finish(self, body: memoryview | Upload | None = None) -> None:
        """The PUT that ends the upload; with *body*, the bytes."""
        place = self._place
        target = place.at(f"{place.target}{'&' if '?' in place.target else '?'}digest={self._digest}")
        headers = _BYTES if body is not None else {}
        self._ending = True
        # The registry hashes, or copies on object storage, before it answers: that may take long.
        with self._registry.ask(
            "PUT", target, self._scopes, headers=headers, body=body, patient=True
        ) as answer:
            answer.read(MIB)
            told = answer.headers.get("Docker-Content-Digest", str(self._digest))
            if answer.status not in (201, 204) or told != str(self._digest):
                raise Refused(f"did not take the blob {self._digest}", where=self._where)
        self._begun = False

    def _body(self, reader: Reader, count: int) -> tuple[Part, Upload]:
        """The next *count* bytes, which *reader* gives: they can be sent once."""
        part = Part(reader, self._at, self._at + count, self._size, self._digest)
        sent = self._at

        def moved(more: int) -> None:
            nonlocal sent
            sent += more
            self._tell(sent)

        return part, Upload(part, count, self._digest, moved=moved)

    # --- where the source opens again

    def _large(self, opened: Opened) -> None:
        """Begin, and go on where it breaks, as long as something is gained by it."""
        best = tries = uploads = 0
        self._begin()
        while True:
            try:
                self._go_on(opened, sure=not tries)
            except Broken as broken:
                known = broken
            else:
                return
            if known.anew:
                if self._ending and self._is_there():  # only the answer to the PUT was lost
                    self._begun = False
                    return
                self._forget()
            if known.another:
                continue
            if self._at >= best + PROGRESS:
                best, tries = self._at, 0
            uploads += known.anew
            tries += not known.anew
            if max(tries, uploads) >= TRIES:
                raise known.error
            pause(known.error, max(tries, uploads))

    def _go_on(self, opened: Opened, *, sure: bool) -> None:
        """From where the upload is to its end. Raises Broken, and what going on does not help against."""
        try:
            if not self._begun:
                self._begin()
            elif not sure:
                self._ask_how_far()
        except (Unreachable, Refused, NotFound) as error:
            raise self._judged(error) from None
        if self._part == 0:
            with opened(0) as reader:
                self._end(self._body(reader, self._size)[1])
            return
        if self._at < self._size:
            with opened(self._at) as reader:
                while self._at < self._size:
                    self._patch(reader)
        self._end(None)

    def _patch(self, reader: Reader) -> None:
        """Send the next part."""
        count = min(self._part, self._size - self._at)
        end = self._at + count
        headers = dict(_BYTES)
        if self._given or count < self._size:  # else as docker, crane and skopeo do: all at once
            headers["Content-Range"] = f"{self._at}-{end - 1}"
        part, body = self._body(reader, count)
        try:
            with self._registry.ask("PATCH", self._place, self._scopes, headers=headers, body=body) as answer:
                answer.read(MIB)
        except (Unreachable, Refused, NotFound) as error:
            if body.failed is not None:  # it is of our own side
                raise
            raise self._judged(error, count) from None
        finally:
            self._given = max(self._given, part.at)
        if answer.status != 202 and not self._taken:
            self._part = 0
            raise Broken(Refused(f"answered {answer.status} to a PATCH", where=self._where), another=True)
        self._taken = True
        self._place = self._registry.location(self._place, answer)
        have = bytes_there(answer)
        if have != end and (have is not None or part.at != end):
            raise Broken(Refused(f"took {have} bytes where {end} were sent", where=self._where))
        self._at = end

    def _end(self, body: Upload | None) -> None:
        """The PUT, with *body* or as the end of the parts."""
        try:
            self._finish(body)
        except (Unreachable, Refused, NotFound) as error:
            if body is not None and body.failed is not None:
                raise
            raise self._judged(error) from None

    def _ask_how_far(self) -> None:
        """Ask what the registry has; where that cannot be, the upload is of no more use."""
        try:
            with self._registry.ask("GET", self._place, self._scopes) as answer:
                answer.read(MIB)
        except Refused as error:
            if error.status in _NO_PARTS | _TOO_LARGE:
                raise Broken(error, anew=True) from None
            raise
        if "Location" in answer.headers:
            self._place = self._registry.location(self._place, answer)
        have = bytes_there(answer)
        if have is None or have > self._given:
            told = answer.headers.get("Range", "")[:80]
            what = f"says that it has {told!r} where {self._given} bytes were sent"
            raise Broken(Refused(what, where=self._where), anew=True)
        if (
            have < self._at + PROGRESS
        ):  # where a part is kept whole or not at all, a smaller one may get there
            self._part = self._smaller(self._part) or self._part
        self._at = have

    def _judged(self, error: Unreachable | Refused | NotFound, sent: int = 0) -> ModelpackError | Broken:
        """What the registry's *error* comes to: of a PATCH of *sent* bytes, or of anything else."""
        if isinstance(error, Unreachable):
            return Broken(error)
        status = (error.status or 0) if isinstance(error, Refused) else 404
        if sent and not self._taken and status in _TOO_LARGE | _NO_PARTS:
            self._part = self._smaller(sent) if status in _TOO_LARGE else 0
            return Broken(error, another=True)
        if status == 404:
            return Broken(error, anew=True)
        # A token that ran out is bought anew with the next request, unless that was it.
        if status >= 500 or (status in _PASSING and (sent or status != 401)):
            return Broken(error)
        return error

    def _smaller(self, than: int) -> int:
        """The next smaller length of a part; 0 where there is none."""
        return next((one for one in PARTS if self._least <= one < than), 0)

    def _is_there(self) -> bool:
        """Whether the registry has the whole blob by now."""
        here = self._registry.blob_address(self._repository, self._digest)
        try:
            with self._registry.ask("HEAD", here, pull(self._repository)) as answer:
                return header_number(answer, "Content-Length") == self._size
        except ModelpackError:
            return False
