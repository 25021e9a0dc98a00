"""The headers of tars of any origin, read with distrust."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from modelpack.documents.layout import BLOCK
from modelpack.errors import Corrupt, Unsupported


@dataclass(frozen=True)
class Header:
    """What a 512-byte header block says. `kind` is the type flag, `size` counts the bytes that follow."""

    path: str
    size: int
    kind: str

    @property
    def padded(self) -> int:
        """Bytes to the next header."""
        return self.size + -self.size % BLOCK


def parse_header(block: bytes, where: object) -> Header | None:
    """Read one header; None for a block of zeros (the end); raises Corrupt."""
    if block == bytes(BLOCK):
        return None
    sums = sum(block[:148]) + 8 * 32 + sum(block[156:])
    if len(block) != BLOCK or _number(block[148:156], where) != sums:
        raise Corrupt("is damaged, or not a tar: a member's header has a wrong checksum", where=where)
    try:
        path = block[:100].split(b"\0")[0].decode("utf-8")
        if block[257:263] == b"ustar\0":
            prefix = block[345:500].split(b"\0")[0].decode("utf-8")
            path = f"{prefix}/{path}" if prefix else path
    except UnicodeDecodeError:
        raise Corrupt("has a member whose name is not UTF-8", where=where) from None
    kind = chr(block[156] or 0x30)
    return Header(path, _number(block[124:136], where) if kind not in "12345 6" else 0, kind)


def _number(data: bytes, where: object) -> int:
    if data[0] & 0x80:  # GNU's binary form, for sizes from 8 GiB on
        value = int.from_bytes(data, "big") & ((1 << (8 * len(data) - 1)) - 1)
        if value > 1 << 62:
            raise Corrupt("has a member of an impossible size", where=where)
        return value
    digits = data.strip(b" \0")
    if (digits and not digits.isdigit()) or any(digit > 0x37 for digit in digits):
        raise Corrupt("is damaged, or not a tar: a number in a member's header is none", where=where)
    return int(digits or b"0", 8)


class Members:
    """Follows a tar's headers, whoever reads the blocks: pax and GNU long names applied, tricks refused.

    `LIMIT` members at most. Feed `step` with each header block and `note` with the bytes of the members that
    it asks for.
    """

    LIMIT = 100_000
    NOTES = 64 * 1024
    """The most that an extended header may have, in bytes."""

    def __init__(self, where: object) -> None:
        self._where = where
        self._pending: dict[str, str] = {}
        self._seen: set[str] = set()
        self._count = 0

    def step(self, block: bytes) -> Header | None:
        """The member that *block* begins; None at the end. Its bytes go to `note` where `wants_note`."""
        header = parse_header(block, self._where)
        if header is None:
            return None
        self._count += 1
        if self._count > self.LIMIT:
            raise Corrupt(f"has more than {self.LIMIT} members; no bundle has", where=self._where)
        if self.wants_note(header):
            if header.size > self.NOTES:
                raise Corrupt("has an extended header larger than 64 KiB", where=self._where)
            return header
        if "size" in self._pending:
            size = self._pending["size"]
            if not (size.isascii() and size.isdigit()) or len(size) > 19 or int(size) > 1 << 62:
                raise Corrupt("has a member of an impossible size", where=self._where)
            header = Header(header.path, int(size), header.kind)
        header = Header(self._plain(self._pending.get("path", header.path)), header.size, header.kind)
        self._pending = {}
        if header.kind == "5":
            return Header(header.path, 0, "5")
        if header.kind not in "07":
            word = {"1": "a hard link", "2": "a symbolic link", "S": "a sparse file"}.get(
                header.kind, "a device"
            )
            raise Corrupt(
                f"its member {header.path[:200]!r} is {word}",
                where=self._where,
                advice="No bundle has such members.",
            )
        if header.path in self._seen:
            raise Corrupt(f"has two members named {header.path[:200]!r}", where=self._where)
        self._seen.add(header.path)
        return header

    @staticmethod
    def wants_note(header: Header) -> bool:
        """Whether *header* only describes the next member."""
        return header.kind in "xgLK"

    def note(self, header: Header, data: bytes) -> None:
        """Take the *data* of a member that describes the next one."""
        if header.kind == "L":
            self._pending["path"] = data.split(b"\0")[0].decode("utf-8", "replace")
        elif header.kind == "x":
            for key, value in self._records(data):
                if key.startswith("GNU.sparse"):
                    raise Unsupported(
                        "holds sparse files", where=self._where, advice="Make it by `tar` without -S."
                    )
                if key in ("path", "size"):
                    self._pending[key] = value

    def _records(self, data: bytes) -> Iterator[tuple[str, str]]:
        while data.strip(b"\0"):
            count, _, _ = data.partition(b" ")
            length = int(count) if count.isdigit() and len(count) < 7 else 0
            key, equals, value = data[len(count) + 1 : length].partition(b"=")
            if not length or length > len(data) or not equals or not value.endswith(b"\n"):
                raise Corrupt("has an extended header that is damaged", where=self._where)
            yield key.decode("utf-8", "replace"), value[:-1].decode("utf-8", "replace")
            data = data[length:]

    def _plain(self, path: str) -> str:
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if path.startswith("/") or ".." in parts or "\0" in path or "\\" in path:
            raise Corrupt(
                f"its member {path[:200]!r} points out of the bundle",
                where=self._where,
                advice="Somebody made this on purpose: do not use it.",
            )
        return "/".join(parts)
