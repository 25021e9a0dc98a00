"""A blob as it comes from a registry: over redirects, and connected again where it broke."""

from __future__ import annotations

import re
from typing import Self

from modelpack.errors import Corrupt, NotFound, Refused, Unreachable
from modelpack.hands import registry_wire
from modelpack.hands.call import rest
from modelpack.hands.http import Answer
from modelpack.hands.registry_wire import REDIRECTS, Asks, header_number, pull
from modelpack.words.blob import MIB
from modelpack.words.digest import Digest

_HOPS = 5
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)
TRIES = 6
"""Connections in a row that may bring less than PROGRESS."""
PROGRESS = MIB


class BlobReader:
    """The bytes of a blob from *offset* on: a Reader, to be used by `with`.

    Where the connection breaks, the rest is asked for by a Range, as long as some progress is made. Raises
    Corrupt where the registry tells another size or range, or sends more than the size.
    """

    def __init__(self, registry: Asks, repository: str, digest: Digest, size: int, offset: int = 0) -> None:
        self._registry, self._repository, self._digest = registry, repository, digest
        self._size, self._at = size, offset
        self._where = f"{registry.base}/{repository}"
        self._answer: Answer | None = None
        self._open_end = False
        self._mark, self._tries = offset, 0
        if offset < size or size == 0:
            self._connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hang_up()

    def readinto(self, into: memoryview, /) -> int:
        """As Reader says."""
        left = self._size - self._at
        if left <= 0 or len(into) == 0:
            return 0
        while True:
            try:
                answer = self._answer or self._connect()
                count = answer.readinto(into[: min(len(into), left)])
                if count:
                    break
                broken = Unreachable("the connection ended too early", where=self._where)
            except Unreachable as error:
                broken = error
            self._again(broken)
        self._at += count
        if self._at == self._size:
            self._check_end()
        return count

    def _again(self, error: Unreachable) -> None:
        self._hang_up()
        if self._at - self._mark >= PROGRESS:
            self._mark, self._tries = self._at, 0
        self._tries += 1
        if self._tries >= TRIES:
            raise Unreachable(
                f"{error.what} (at {self._at} of {self._size} bytes of {self._digest}, after {TRIES} tries)",
                where=self._where,
                advice=error.advice,
            )
        if not rest(registry_wire.PAUSE * 2 ** (self._tries - 1)):
            raise error

    def _connect(self) -> Answer:
        here = self._registry.blob_address(self._repository, self._digest)
        headers = {"Range": f"bytes={self._at}-{self._size - 1}"} if self._at else {}
        scopes = pull(self._repository)
        for _ in range(_HOPS + 1):
            try:
                answer = self._registry.ask("GET", here, scopes, headers=headers, fine=REDIRECTS)
            except NotFound:
                raise NotFound(f"has no blob {self._digest}", where=self._where) from None
            if answer.status not in REDIRECTS:
                break
            answer.close()
            here = self._registry.onward(here, answer)
        else:
            raise Refused(f"sends us on more than {_HOPS} times for {self._digest}", where=self._where)
        try:
            self._begin(answer)
        except BaseException:
            answer.close()
            raise
        self._answer = answer
        return answer

    def _begin(self, answer: Answer) -> None:
        """Check what *answer* says of its bytes, and read past those that were not asked for."""
        told = answer.headers.get("Docker-Content-Digest", str(self._digest))
        if told != str(self._digest):
            raise Corrupt(f"gives {told[:80]!r} for the blob {self._digest}", where=self._where)
        length = header_number(answer, "Content-Length")
        self._open_end = length is None
        if answer.status == 206:
            found = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
            first, last, whole = (found[1], found[2], found[3]) if found else ("", "", "")
            good = found and int(first) == self._at and self._at <= int(last) < self._size
            if not good or whole not in ("*", str(self._size)):
                raise Corrupt(
                    f"gives the range {answer.headers.get('Content-Range', '')[:80]!r} of {self._digest}, "
                    f"where {self._at} to {self._size - 1} of {self._size} was asked for",
                    where=self._where,
                )
            if length is not None and length != int(last) - int(first) + 1:
                raise Corrupt(f"gives a range of {self._digest} with another length", where=self._where)
            return
        if answer.status != 200:
            raise Refused(f"answered {answer.status} to a GET of {self._digest}", where=self._where)
        if length is not None and length != self._size:
            raise Corrupt(
                f"says that {self._digest} has {length} bytes; its manifest says {self._size}",
                where=self._where,
            )
        if self._at:
            self._skip(answer, self._at)

    def _skip(self, answer: Answer, count: int) -> None:
        """Read past *count* bytes: the server knows no ranges."""
        piece = memoryview(bytearray(min(count, MIB)))
        while count:
            came = answer.readinto(piece[: min(count, len(piece))])
            if not came:
                raise Unreachable("the connection ended too early", where=self._where)
            count -= came

    def _check_end(self) -> None:
        answer = self._answer
        if answer is not None and self._open_end and answer.readinto(memoryview(bytearray(1))):
            raise Corrupt(f"sends more than the {self._size} bytes of {self._digest}", where=self._where)
        self._hang_up()

    def _hang_up(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None
