"""What an upload in parts is made of: the bytes of one, how far the registry is, and what broke it off."""

from __future__ import annotations

import re

from modelpack.errors import Corrupt, ModelpackError
from modelpack.hands import registry_wire
from modelpack.hands.call import rest
from modelpack.hands.http import Answer
from modelpack.hands.retry import LONGEST, Busy
from modelpack.words.digest import Digest
from modelpack.words.reader import Reader

_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})", re.ASCII)


class Broken(Exception):
    """Going on may help against *error*: with a new upload (*anew*), or in *another* way, which is anew, too.

    Never leaves an upload.
    """

    def __init__(self, error: ModelpackError, *, anew: bool = False, another: bool = False) -> None:
        self.error, self.anew, self.another = error, anew or another, another


class Part:
    """The bytes from *at* to *end* of a blob of *size* bytes, which *reader* has next: a Reader.

    Raises Corrupt where the blob ends too early, or goes on after its end.
    """

    def __init__(self, reader: Reader, at: int, end: int, size: int, digest: Digest) -> None:
        self.at = at
        """Up to where they were given away."""
        self._reader, self._end, self._size, self._digest = reader, end, size, digest

    def readinto(self, into: memoryview, /) -> int:
        """As Reader says."""
        if self.at == self._end < self._size:
            return 0
        count = self._reader.readinto(into[: max(1, self._end - self.at)])
        if count and self.at == self._size:
            raise Corrupt(f"goes on after its {self._size} bytes", where=self._digest)
        if not count and self.at < self._size:
            raise Corrupt(f"ends after {self.at} of {self._size} bytes", where=self._digest)
        self.at += count
        return count


def bytes_there(answer: Answer) -> int | None:
    """Bytes that a Range header says are there. `0-0` is docker-registry's word for none."""
    found = _RANGE.fullmatch(answer.headers.get("Range", "").strip())
    if found is None:
        return None
    return int(found[1]) + 1 if int(found[1]) else 0


def pause(error: ModelpackError, tries: int) -> None:
    """Wait before what failed *tries* times is tried again.

    Raises *error* where the registry wants too long a pause, or this call was broken off meanwhile.
    """
    seconds = registry_wire.PAUSE * 2 ** (tries - 1)
    if isinstance(error, Busy) and error.after is not None:
        if error.after > LONGEST:
            raise error
        seconds = max(seconds, error.after)
    if not rest(seconds):
        raise error
