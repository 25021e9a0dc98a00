"""A receipt: what became of a model that was copied."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.words.blob import CONFIG, TEXTS, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name

CREATE, DIRECTORY, REGISTRY, EXACT = "create", "directory", "registry", "exact"
"""Ways by which a model arrives at a host."""


class State(StrEnum):
    """What is known of a blob at a host."""

    SENT = "sent"
    """Moved, and hashed by whoever keeps it: the server, the registry, or modelpack where it writes files."""
    TOLD = "told"
    """Moved inside the create request, after it was hashed here: the server writes it anew."""
    READ = "read back"
    """Was there before, and was read back and hashed here."""
    WRONG = "read back: wrong"
    """Was there before, by name; what came when it was read back is something else, cut, or nothing."""
    SIZED = "seen by name and size"
    """Was there before: a file of its name and its size. Nothing is known of its bytes."""
    NAMED = "seen by name only"
    """Was there before: the host says that it has one of this name. Nothing is known of its bytes."""
    UNSEEN = "not looked at"
    """The host shows a model of the same meaning; whether it has this blob was not asked."""


@dataclass(frozen=True)
class Tried:
    """What came of asking the model for one token, or an embedding model for one vector.

    `text` is the token; empty where its bytes are no whole character. `length` counts tokens, or the numbers
    of the vector. Where it is not `ok`, `words` are the server's own. `milliseconds` are with loading it.
    """

    ok: bool
    kind: str
    text: str = ""
    length: int = 0
    words: str = ""
    milliseconds: int = 0

    def to_json(self) -> dict[str, Any]:
        """For scripts, and for the file of a load."""
        return {
            "ok": self.ok,
            "kind": self.kind,
            "text": self.text,
            "length": self.length,
            "words": self.words,
            "milliseconds": self.milliseconds,
        }


@dataclass(frozen=True)
class Receipt:
    """Which model arrived where, as what, and which of its blobs moved.

    `model` is settled: every hash is known. `same_bytes` is True where the target keeps the document and
    every blob as they are, False where it made something of its own, None where it cannot be known. `present`
    blobs were there before, by name (and on disks by size); nothing else was looked at, but for those of
    `proven` and `wrong`, which were read back and hashed.
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
    proven: frozenset[Digest] = frozenset()
    wrong: frozenset[Digest] = frozenset()
    unproven: str = ""
    """What reading back could not prove, in a sentence; empty where nobody asked for it."""
    tried: Tried | None = None

    @property
    def bytes_sent(self) -> int:
        """Bytes that moved."""
        return sum(blob.size for blob in self.sent)

    @property
    def same(self) -> str | None:
        """`bytes` (the same ID), `blobs` (the server wrote the manifest anew: another ID), or `meaning`.

        None where it cannot be said: create with a note is the server's having made something else of it.
        Of blobs that were there before this is by name, but for what `states` says was read back.
        """
        if self.same_bytes is None:
            return None
        if self.same_bytes:
            return "bytes"
        if self.way != CREATE:
            return "blobs"
        return None if self.note else "meaning"

    @property
    def seen_whole(self) -> bool:
        """Whether every byte was hashed on its way there, or read back: none is there by name alone."""
        return all(state in (State.SENT, State.TOLD, State.READ) for _, state in self.states())

    def states(self) -> list[tuple[Blob, State]]:
        """Every blob of the model, in order of use, and what is known of it there."""
        sent = {blob.id for blob in self.sent}
        return [(blob, self._state(blob, blob.id in sent)) for blob in self.model.blobs]

    def _state(self, blob: Blob, sent: bool) -> State:
        if blob.digest in self.wrong:
            return State.WRONG
        if blob.digest in self.proven:
            return State.READ
        created = self.way == CREATE
        if sent:
            text = isinstance(self.model.document, Image) and blob.media_type in (CONFIG, *TEXTS)
            return State.TOLD if created and text else State.SENT
        if created and self.there:
            return State.UNSEEN
        return State.SIZED if self.way == DIRECTORY else State.NAMED

    def to_json(self) -> dict[str, Any]:
        """For scripts: digests as text, sizes in bytes."""
        return {
            "name": self.name.full,
            "document": str(self.model.document.id),
            "id": str(self.id) if self.id is not None else None,
            "same_bytes": self.same_bytes,
            "same": self.same,
            "way": self.way,
            "size": self.model.size,
            "bytes_sent": self.bytes_sent,
            "sent": [str(blob.digest) for blob in self.sent],
            "present": [str(blob.digest) for blob in self.present],
            "read_back": sorted(map(str, self.proven)),
            "wrong": sorted(map(str, self.wrong)),
            "unproven": self.unproven,
            "tried": self.tried.to_json() if self.tried is not None else None,
            "note": self.note,
            "there": self.there,
        }
