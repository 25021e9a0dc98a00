"""`SHA256SUMS`: what `sha256sum -c` reads."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from modelpack.errors import Corrupt
from modelpack.words.blob import MIB
from modelpack.words.digest import Digest

MOST_SUMS = 16 * MIB
"""Bytes of sums that a reader has to take."""
_MOST_LINES = 100_000


def format_sums(lines: Sequence[tuple[Digest, str]]) -> bytes:
    """One line a file, sorted by path: hex digits, two spaces, path with forward slashes, line feed."""
    return "".join(
        sorted((f"{one.hex}  {path}\n" for one, path in lines), key=lambda line: line[66:])
    ).encode()


def parse_sums(raw: bytes, where: object) -> Mapping[str, Digest]:
    """Read sums; raises Corrupt where a line is not one, or there are more than any bundle has."""
    sums: dict[str, Digest] = {}
    if len(raw) > MOST_SUMS or raw.count(b"\n") > _MOST_LINES:
        raise Corrupt("has more lines than the sums of any bundle", where=where)
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if not line:
            continue
        try:
            text = line.decode("utf-8")
            hexadecimal, path = text[:64], text[66:]
            sums[path] = Digest.parse(f"sha256:{hexadecimal}")
            well = text[64:66] in ("  ", " *") and bool(path)
        except (UnicodeDecodeError, Corrupt):
            well = False
        if not well:
            raise Corrupt(f"line {number} is not a checksum and a path", where=where)
    return sums


def readable_sums(raw: bytes) -> dict[str, Digest]:
    """Those lines of damaged sums that can be read; paths without a `./` before them."""
    found: dict[str, Digest] = {}
    for line in raw.split(b"\n"):
        with contextlib.suppress(Corrupt):
            found |= {path.removeprefix("./"): digest for path, digest in parse_sums(line, "").items()}
    return found


def sums_say(sums: Mapping[str, Digest], path: str) -> Digest | None:
    """The digest of *path*, also where a tool wrote `./` before it."""
    return sums.get(path) or sums.get(f"./{path}")
