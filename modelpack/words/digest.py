"""A digest: which hash, and what it came to."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from modelpack.errors import Corrupt

_FORM = re.compile(r"(sha256|blake3)[:-]([0-9a-fA-F]{64})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """Thirty-two bytes of SHA-256 or BLAKE3, written `sha256:<64 lower-case hex digits>`.

    Both spellings come in (`sha256:` of APIs, `sha256-` of file names; Ollama accepts either and upper-case
    digits too, server/modelpath.go), one goes out.
    """

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: object, where: object = "") -> Digest:
        """Read *text*; raises Corrupt where it is not a digest."""
        found = _FORM.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise Corrupt(f"{str(text)[:100]!r} is not a digest (sha256: and 64 hex digits)", where=where)
        return cls(found[1], found[2].lower())

    @classmethod
    def of(cls, data: bytes | memoryview) -> Digest:
        """The SHA-256 of *data*."""
        return cls("sha256", hashlib.sha256(data).hexdigest())

    @property
    def short(self) -> str:
        """The first twelve digits: what `ollama list` shows of an ID."""
        return self.hex[:12]

    @property
    def file_name(self) -> str:
        """`sha256-<hex>`: how Ollama names the file of a blob."""
        return f"{self.algorithm}-{self.hex}"

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


ZERO = Digest("sha256", "0" * 64)
"""Stands in documents where a digest is not known yet: as long as any other."""

ZERO_BLAKE3 = Digest("blake3", "0" * 64)
