"""The front of a file, read in order, where every length that it tells may be a lie."""

from __future__ import annotations

from struct import Struct

from modelpack.errors import Corrupt
from modelpack.words.blob import KIB, MIB
from modelpack.words.reader import Reader

HEADER_MOST = 256 * MIB
"""No real header comes near: the largest vocabularies (some 260,000 tokens with merges) take about 16 MiB.
It also bounds the time, where a sparse file pretends to terabytes of header."""

CUT = "A download that was cut, or a damaged copy? Get it again."
DAMAGED = "The file is damaged, or made to do harm: get it again, from a place that you trust."

_FIRST, _PIECE = 4 * KIB, MIB
_U32, _U64 = Struct("<I"), Struct("<Q")


class Cursor:
    """Reads *reader*, a file of *size* bytes, through one buffer.

    Pieces begin small and double up to 1 MiB: a short header on a remote place costs little, a long one few
    calls. Nothing is allocated for a length before the file is known to be that long.
    Every method raises Corrupt where the bytes are not there; `what` names them in its text.
    """

    def __init__(self, reader: Reader, size: int, where: object) -> None:
        self.size = size
        self.where = where
        self._reader = reader
        self._buffer = bytearray()
        self._at = 0  # next byte, in the buffer
        self._base = 0  # where the buffer begins, in the file
        self._piece = _FIRST

    @property
    def at(self) -> int:
        """The byte of the file that comes next."""
        return self._base + self._at

    def corrupt(self, what: str, advice: str = DAMAGED) -> Corrupt:
        """The error for what is wrong with this file."""
        return Corrupt(what, where=self.where, advice=advice)

    def demand(self, count: int, what: str) -> None:
        """Raise Corrupt unless *count* more bytes can be there."""
        if count > self.size - self.at:
            raise self.corrupt(
                f"{what} would take {count} bytes from byte {self.at} on, but the file has {self.size}", CUT
            )
        if self.at + count > HEADER_MOST:
            raise self.corrupt(f"{what} makes its header longer than {HEADER_MOST} bytes; no real one is")

    def peek(self, count: int) -> bytes:
        """The next *count* bytes (few), or as many as the file has, without going on."""
        count = min(count, self.size - self.at)
        self._fetch(count)
        return bytes(self._buffer[self._at : self._at + count])

    def take(self, count: int, what: str) -> bytes:
        """The next *count* bytes, which the caller has bounded."""
        self.demand(count, what)
        pieces = bytearray()
        while len(pieces) < count:
            part = min(count - len(pieces), _PIECE)
            self._fetch(part)
            pieces += self._buffer[self._at : self._at + part]
            self._at += part
        return bytes(pieces)

    def skip(self, count: int, what: str) -> None:
        """Go on by *count* bytes: read, since a Reader knows no other way, and kept nowhere."""
        self.demand(count, what)
        while count:
            part = min(count, _PIECE)
            self._fetch(part)
            self._at += part
            count -= part

    def uint32(self, what: str) -> int:
        """Four bytes, little-endian."""
        value: int = _U32.unpack(self.take(4, what))[0]
        return value

    def uint64(self, what: str) -> int:
        """Eight bytes, little-endian."""
        value: int = _U64.unpack(self.take(8, what))[0]
        return value

    def text(self, most: int, what: str) -> str:
        """A string: its length in 8 bytes, then at most *most* bytes of UTF-8.

        Bytes that are not UTF-8 become lone surrogates: two strings that differ stay different, the bytes
        can be had back, and `words.text.visible` shows them as escapes.
        """
        buffer, at = self._buffer, self._at + 8
        if at <= len(buffer):  # mostly all of it is here: vocabularies are read by this
            after = at + _U64.unpack_from(buffer, at - 8)[0]
            if after <= len(buffer) and after - at <= most:
                self._at = after
                return buffer[at:after].decode("utf-8", "surrogateescape")
        length = self.uint64(what)
        self.demand(length, what)
        if length > most:
            raise self.corrupt(f"{what} is {length} bytes long; no real one has more than {most}")
        return self.take(length, what).decode("utf-8", "surrogateescape")

    def skip_strings(self, count: int, what: str) -> None:
        """Go on past *count* strings: hundreds of thousands in a vocabulary, hence the inner loop."""
        while count:
            buffer, at, end = self._buffer, self._at, len(self._buffer)
            while count and end - at >= 8:
                after = at + 8 + _U64.unpack_from(buffer, at)[0]
                if after > end:
                    break
                at = after
                count -= 1
            self._at = at
            self.demand(0, what)
            if count:  # the next one goes beyond the buffer
                self.skip(self.uint64(what), what)
                count -= 1

    def _fetch(self, count: int) -> None:
        """Have *count* bytes (at most 1 MiB, and in the file) in the buffer."""
        have = len(self._buffer) - self._at
        if have >= count:
            return
        self._base += self._at
        buffer = bytearray(min(max(self._piece, count), self.size - self._base))
        buffer[:have] = self._buffer[self._at :]
        self._buffer, self._at = bytearray(), 0
        self._piece = min(self._piece * 2, _PIECE)
        with memoryview(buffer) as view:
            while have < count:
                got = self._reader.readinto(view[have:])
                if got == 0:
                    raise self.corrupt(f"ends after {self._base + have} of {self.size} bytes", CUT)
                have += got
        del buffer[have:]
        self._buffer = buffer
