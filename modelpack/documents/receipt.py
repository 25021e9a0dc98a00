"""A receipt: what became of a model that was copied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelpack.documents.model import Model
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name


@dataclass(frozen=True)
class Receipt:
    """Which model arrived where, as what, and which of its blobs moved.

    `model` is settled: every hash is known. `same_bytes` is True where the target keeps the document and
    every blob as they are, False where it made something of its own, None where it cannot be known. `present`
    blobs were there before, by name (and on disks by size); nothing else was looked at.
    """

    model: Model
    name: Name
    id: Digest | None
    same_bytes: bool | None
    way: str
    sent: tuple[Blob, ...] = ()
    present: tuple[Blob, ...] = ()
    note: str = ""
    there: bool = False
    """Whether all of it was there before, under its name."""

    @property
    def bytes_sent(self) -> int:
        """Bytes that moved."""
        return sum(blob.size for blob in self.sent)

    def to_json(self) -> dict[str, Any]:
        """For scripts: digests as text, sizes in bytes."""
        return {
            "name": self.name.full,
            "document": str(self.model.document.id),
            "id": str(self.id) if self.id is not None else None,
            "same_bytes": self.same_bytes,
            "way": self.way,
            "size": self.model.size,
            "bytes_sent": self.bytes_sent,
            "sent": [str(blob.digest) for blob in self.sent],
            "present": [str(blob.digest) for blob in self.present],
            "note": self.note,
            "there": self.there,
        }
