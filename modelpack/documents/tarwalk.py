"""From header to header through a tar, whoever reads the bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from modelpack.documents.layout import BLOCK, END
from modelpack.documents.tarheader import Members
from modelpack.errors import Corrupt

ReadAt = Callable[[int, int], bytes]
"""`read(count, offset)`: that many bytes, fewer only at the end; *count* is at most 64 KiB."""


def walk(read: ReadAt, size: int, where: object) -> Iterator[tuple[str, tuple[int, int]]]:
    """Every file of a tar of *size* bytes: path, (offset, bytes). Corrupt where it is cut or damaged."""
    members = Members(where)
    offset = 0
    while True:
        if size == 0:
            raise Corrupt("is empty", where=where, advice="Was the copy cut before it began?")
        if offset + BLOCK > size:
            raise _cut(where, f"after {size} bytes")
        header = members.step(read(BLOCK, offset))
        offset += BLOCK
        if header is None:
            break
        if offset + header.padded > size:
            raise _cut(where, f"in the middle of {header.path[:100]!r}")
        if members.wants_note(header):
            members.note(header, read(header.size, offset))
        elif header.kind != "5":
            yield header.path, (offset, header.size)
        offset += header.padded
    if read(len(END), offset - BLOCK) != END:
        raise _cut(where, "in its last two blocks")


def _cut(where: object, place: str) -> Corrupt:
    return Corrupt(f"is cut: it ends {place}", where=where, advice="Copy it again from where it came.")
