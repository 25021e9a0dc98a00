"""A blob on its way into a registry: in one piece, or in chunks that can be sent again."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unreachable
from modelpack.hands import registry_wire
from modelpack.hands.http import Answer
from modelpack.hands.registry_address import Address
from modelpack.hands.registry_wire import Asks, View, header_number, push
from modelpack.hands.wire import Upload
from modelpack.words.blob import MIB
from modelpack.words.digest import Digest
from modelpack.words.reader import Reader, fill

CHUNK = 8 * MIB
"""Bytes that are kept until the registry has them, and read ahead; a blob of no more goes in one piece."""
TRIES = 5
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})", re.ASCII)
_BYTES = {"Content-Type": "application/octet-stream"}
_NO_CHUNKS = {400, 404, 405, 411, 413, 416, 501}


class Uploading:
    """One blob, once. Chunks carry a Content-Range; a chunk that broke off is continued where it did.

    Registries differ here: some take no chunk, or none of this size (GHCR ends at 4 MiB), one answers 201
    and loses the second (ECR). Whoever does not take the first chunk with a 202 gets all in one piece.
    """

    def __init__(
        self,
        registry: Asks,
        repository: str,
        digest: Digest,
        size: int,
        reader: Reader,
        moved: Callable[[int], None],
    ) -> None:
        self._registry, self._repository, self._digest = registry, repository, digest
        self._size, self._reader, self._moved = size, reader, moved
        self._scopes = push(repository)
        self._where = f"{registry.base}/{repository}"
        self._place = registry.blob_address(repository, digest)
        self._begun = False

    def run(self) -> None:
        """Send it all; what was begun and failed is cancelled. See `Registry.upload_blob`."""
        chunk = memoryview(bytearray(min(CHUNK, self._size)))
        self._fill(chunk, 0)
        if len(chunk) == self._size and Digest.of(chunk) != self._digest:
            raise Corrupt(f"its bytes hash to {Digest.of(chunk)}, not to {self._digest}")
        try:
            if len(chunk) == self._size:
                self._small(chunk)
            elif (self._begin() or 0) <= len(chunk) and self._patch(chunk, 0):
                self._go_on(chunk)
            else:
                self._whole(chunk)
        except BaseException:
            if self._begun:
                self.cancel(self._registry, self._repository, self._place)
            raise

    @staticmethod
    def cancel(registry: Asks, repository: str, place: Address) -> None:
        """Let the registry forget the upload at *place*, where it can."""
        with contextlib.suppress(ModelpackError):
            registry.ask("DELETE", place, push(repository)).close()

    def _fill(self, chunk: memoryview, done: int) -> None:
        count = fill(self._reader, chunk)
        if count < len(chunk):
            raise Corrupt(f"ends after {done + count} of {self._size} bytes", where=self._digest)

    def _begin(self) -> int | None:
        """Begin an upload; the least length of a chunk, where the registry tells one."""
        path = f"/v2/{self._repository}/blobs/uploads/"
        with self._registry.ask("POST", path, self._scopes) as answer:
            answer.read(MIB)
            self._place = self._registry.location(self._place, answer)
            self._begun = True
            return header_number(answer, "OCI-Chunk-Min-Length")

    def _finish(self, body: memoryview | Upload | None) -> None:
        """The PUT that ends the upload; with *body*, the bytes."""
        place = self._place
        target = place.at(f"{place.target}{'&' if '?' in place.target else '?'}digest={self._digest}")
        headers = _BYTES if body is not None else {}
        # The registry hashes, or copies on object storage, before it answers: that may take long.
        with self._registry.ask(
            "PUT", target, self._scopes, headers=headers, body=body, patient=True
        ) as answer:
            answer.read(MIB)
            told = answer.headers.get("Docker-Content-Digest", str(self._digest))
            if answer.status not in (201, 204) or told != str(self._digest):
                raise Refused(f"did not take the blob {self._digest}", where=self._where)
        self._begun = False

    def _small(self, body: memoryview) -> None:
        """In one piece, which is in hand and can be sent again."""
        for attempt in (1, 2, 3):
            try:
                self._begin()
                self._finish(body)
            except Unreachable:
                if attempt == 3 or not self._begun:
                    raise
                time.sleep(registry_wire.PAUSE * attempt)
            else:
                break
        self._moved(self._size)

    def _whole(self, first: memoryview) -> None:
        """All in one body, which comes once."""
        self.cancel(self._registry, self._repository, self._place)
        self._begin()
        self._finish(Upload(_Joined(first, self._reader), self._size, self._digest, moved=self._moved))

    def _go_on(self, chunk: memoryview) -> None:
        """The chunks after the first, each read while the one before is on its way."""
        done = len(chunk)
        self._moved(done)
        buffers = (chunk, memoryview(bytearray(len(chunk))))
        part = chunk[: self._size - done]
        self._fill(part, done)
        with ThreadPoolExecutor(1) as ahead:
            for turn in itertools.count(1):
                after = done + len(part)
                following = buffers[turn % 2][: self._size - after]
                filling = ahead.submit(self._fill, following, after)
                self._patch(part, done)
                self._moved(len(part))
                filling.result()
                if after == self._size:
                    break
                part, done = following, after
        self._finish(None)

    def _patch(self, chunk: memoryview, at: int) -> bool:
        """Send *chunk*, whose place is *at*; False where the first one is not taken as chunks are."""
        rest, tries = chunk, 0
        while rest:
            begin = at + len(chunk) - len(rest)
            headers = {**_BYTES, "Content-Range": f"{begin}-{begin + len(rest) - 1}"}
            try:
                answer = self._registry.ask("PATCH", self._place, self._scopes, headers=headers, body=rest)
            except (Refused, NotFound) as error:
                status = error.status if isinstance(error, Refused) else 404
                if at == 0 and tries == 0 and status in _NO_CHUNKS:
                    return False
                if status != 416 and (status or 0) < 500:
                    raise
                broken: ModelpackError = error
            except Unreachable as error:
                broken = error
            else:
                with answer:
                    answer.read(MIB)
                    if answer.status != 202 and at == 0 and tries == 0:
                        return False
                    self._place = self._registry.location(self._place, answer)
                    have = _taken(answer)
                if have is None or have == at + len(chunk):
                    return True
                broken = Refused(f"took {have} bytes where {at + len(chunk)} were sent", where=self._where)
            tries += 1
            if tries >= TRIES:
                raise broken
            time.sleep(registry_wire.PAUSE * 2 ** (tries - 1))
            have = self._status(broken)
            if not at <= have <= at + len(chunk):
                raise broken
            rest = chunk[have - at :]
        return True

    def _status(self, broken: ModelpackError) -> int:
        """How many bytes the registry has; *broken* where it does not know any more."""
        try:
            with self._registry.ask("GET", self._place, self._scopes) as answer:
                answer.read(MIB)
                self._place = self._registry.location(self._place, answer)
                have = _taken(answer)
        except ModelpackError:
            raise broken from None
        if have is None:
            raise broken
        return have


def _taken(answer: Answer) -> int | None:
    """Bytes that a Range header says are there. `0-0` is docker-registry's word for none."""
    found = _RANGE.fullmatch(answer.headers.get("Range", "").strip())
    if found is None:
        return None
    return int(found[1]) + 1 if int(found[1]) else 0


class _Joined:
    """The bytes in hand, then what still comes."""

    def __init__(self, first: memoryview, rest: Reader) -> None:
        self._first, self._rest = View(first), rest

    def readinto(self, into: memoryview, /) -> int:
        return self._first.readinto(into) or self._rest.readinto(into)
