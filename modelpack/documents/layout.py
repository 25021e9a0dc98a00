"""The archive is arithmetic: where each byte of a bundle's tar lies follows from its models alone.

POSIX ustar, with a pax `size` record only from 8 GiB on; mtime 0, no owner; two zero blocks at the end.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from modelpack.documents.extras import Attachment, is_attached
from modelpack.documents.oci import Bundle, Member
from modelpack.words.blob import GIB, Blob

BLOCK = 512
END = bytes(2 * BLOCK)
_LARGE = 8 * GIB
"""From here on eleven octal digits do not hold a size."""


@dataclass(frozen=True)
class Piece:
    """`length` bytes at `offset` of the archive: given, or those of the blob or attachment at `path`."""

    offset: int
    length: int
    content: bytes | Blob
    path: str = ""


@dataclass(frozen=True)
class Layout:
    """Every byte of an archive, in order and without a gap."""

    pieces: tuple[Piece, ...]
    size: int

    def offsets(self) -> dict[object, int]:
        """Where each blob of a model begins, by its id."""
        return {
            piece.content.id: piece.offset
            for piece in self.pieces
            if isinstance(piece.content, Blob) and not is_attached(piece.path)
        }

    def places(self) -> dict[str, int]:
        """Where each attachment begins, by its path."""
        return {piece.path: piece.offset for piece in self.pieces if is_attached(piece.path)}

    @property
    def mark(self) -> str:
        """Something short that two archives share only where every document and every place is the same."""
        found = hashlib.sha256()
        for piece in self.pieces:
            found.update(b"%d %d " % (piece.offset, piece.length))
            if isinstance(piece.content, bytes):
                found.update(piece.content)
        return found.hexdigest()[:16]


class InOrder:
    """The pieces of *layout* one after the other, for those who write it from front to end."""

    def __init__(self, layout: Layout) -> None:
        self._left = deque(layout.pieces)

    def lead(self) -> Iterator[bytes]:
        """The bytes before the next blob or attachment; each is gone from here when the next is asked for."""
        while self._left and isinstance(content := self._left[0].content, bytes):
            yield content
            self._left.popleft()

    def is_next(self, blob: Blob) -> bool:
        """Whether *blob*, of a model, is what comes next."""
        piece = self._left[0] if self._left else None
        if piece is None or is_attached(piece.path) or not isinstance(piece.content, Blob):
            return False
        return piece.content.id == blob.id

    def took(self) -> None:
        """The blob that came next was written."""
        self._left.popleft()

    def rest(self, attachments: Iterable[Attachment]) -> Iterator[bytes | Attachment]:
        """All that comes after the blobs: bytes, and the *attachments* in their places."""
        attached = {one.path: one for one in attachments}
        yield from self.lead()
        while self._left:
            yield attached[self._left.popleft().path]
            yield from self.lead()


def tar_layout(contents: Bundle) -> Layout:
    """Where the files of *contents* lie in a tar."""
    pieces: list[Piece] = []
    offset = 0
    for member in contents.members:
        body: bytes | Blob = member.content
        padding = bytes(-member.size % BLOCK)
        parts: list[bytes | Blob] = [_header(member)]
        parts += [body, padding] if isinstance(body, Blob) else [body + padding]
        for part in parts:
            length = part.size if isinstance(part, Blob) else len(part)
            if length or isinstance(part, Blob):  # an empty blob has its place, too
                pieces.append(Piece(offset, length, part, member.path if isinstance(part, Blob) else ""))
            offset += length
    pieces.append(Piece(offset, len(END), END))
    return Layout(tuple(pieces), offset + len(END))


def _header(member: Member) -> bytes:
    if member.size < _LARGE:
        return _ustar(member.path, member.size, b"0")
    record = _pax_record("size", str(member.size))
    extended = _ustar(f"PaxHeaders/{member.path}"[:100], len(record), b"x")
    return extended + record + bytes(-len(record) % BLOCK) + _ustar(member.path, 0, b"0")


def _ustar(path: str, size: int, kind: bytes) -> bytes:
    head = b"".join(
        (
            path.encode("ascii").ljust(100, b"\0"),
            b"0000644\0" + b"0000000\0" * 2,
            b"%011o\0" % size,
            b"%011o\0" % 0,
            b" " * 8,
            kind,
            bytes(100),
            b"ustar\0" + b"00",
        )
    ).ljust(BLOCK, b"\0")
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


def _pax_record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n"
    length = len(rest) + len(str(len(rest)))
    length = len(rest) + len(str(length))
    return f"{length}{rest}".encode("ascii")
