"""What a store owes to whoever copies: the Protocols. No store knows of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from modelpack.documents.model import Model
from modelpack.errors import ModelpackError
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import Reader
from modelpack.words.report import Report, silent

__all__ = [
    "Afar", "Apart", "Closes", "Continues", "Described", "Expecting", "Finds", "Foretells", "Goes",
    "Identified", "InOrder", "Learns", "Leaves", "MakesRequests", "OneWay", "Placed", "Reader", "Scans",
    "Session", "Settled", "Singles", "Source", "TakesUnread", "Target", "Tidies",
]  # fmt: skip


@dataclass(frozen=True)
class Placed:
    """A model that arrived: under which name, with which ID, by which way.

    `id` is None where the target does not tell. `same_bytes` is None where it cannot be known, False where
    the target made something of its own of what it was given. `note` is for the user to read.
    """

    name: Name
    id: Digest | None
    same_bytes: bool | None
    way: str
    note: str = ""


class Source(Protocol):
    """Where models are read from."""

    def models(self) -> Sequence[Model]:
        """The models here: documents only, bounded; blobs are not touched."""
        ...

    def open(self, blob: Blob, offset: int = 0) -> AbstractContextManager[Reader]:
        """The bytes of *blob* from *offset* on, unchecked; every call has its own position, in any thread.

        Raises NotFound where the blob is not there; the reader raises Corrupt where it is cut or changes.
        """
        ...


class Session(Protocol):
    """A target while it is written to. Left without commit, nothing looks whole."""

    def put(self, blob: Blob, data: Reader) -> Blob:
        """Take *blob*, all or nothing, and give it back with its hashes filled in.

        Where *data* raises, ends early, or does not hash to the blob's digest (Corrupt), nothing of it stays
        that could be taken for the blob. Several threads may put different blobs at once.
        """
        ...

    def commit(self, model: Model) -> Placed:
        """Give *model* its name: last of all, after every blob was put or was there already.

        *model* may know its hashes by now, from what `put` gave back. Raises NotFound where a blob is
        missing. A bundle appears, or changes, with the last model of the session.
        """
        ...


class Target(Protocol):
    """Where models are written to."""

    def missing(self, models: Sequence[Model]) -> Sequence[Blob]:
        """The blobs that would have to be put, each once, unread ones among them; nothing changes by asking.

        Raises Unsupported, Refused or Taken before a byte moves.
        """
        ...

    def session(self, models: Sequence[Model], report: Report = silent) -> AbstractContextManager[Session]:
        """Begin to write *models*; `Moved` steps are reported as bytes reach the medium."""
        ...


@runtime_checkable
class Afar(Protocol):
    """A source or a target whose bytes go over a net: what went before that breaks is worth keeping."""

    def afar(self) -> bool:
        """Whether it is so."""
        ...


@runtime_checkable
class Continues(Protocol):
    """A session that goes on with a blob where the connection broke: a side of it is `Afar`.

    A disk keeps what came of the blob for the next run; a registry, in this run, tells how far it is.
    """

    def put_on(self, blob: Blob, opened: Callable[[int], AbstractContextManager[Reader]]) -> Blob:
        """`put` of *blob*, whose digest is known; `opened(offset)` gives its bytes from there on.

        `opened` may be called several times, one after the other. What a disk keeps is hashed again with
        what follows. It is no blob before it is whole: nothing finds it but the next `put_on` of the same
        target.
        """
        ...


@runtime_checkable
class Finds(Protocol):
    """A session to which a blob may come that somebody else has brought by then: its bytes are not taken."""

    def found(self, blob: Blob) -> bool:
        """Whether *blob*, which was put, was there before that; of the bytes that are there nobody knows."""
        ...


@runtime_checkable
class Expecting(Protocol):
    """A source whose models may name blobs that it does not hold, since the target has them: a delta."""

    @property
    def expects(self) -> frozenset[Digest]:
        """Those blobs."""
        ...


@runtime_checkable
class Leaves(Protocol):
    """A target that is given less than its models name: a bundle that is to be a delta."""

    def leaves(self) -> frozenset[Digest]:
        """The blobs that it is not given."""
        ...


@runtime_checkable
class OneWay(Protocol):
    """A source whose bytes come once and in their own order, as from a pipe."""

    def passing(self, wanted: Sequence[Blob]) -> Iterator[tuple[Blob, Reader]]:
        """The *wanted* blobs as they come by. Raises Corrupt where one of them never comes."""
        ...


@runtime_checkable
class Learns(Protocol):
    """A source that knows more of a blob once it was read from its start to its end."""

    def learned(self, blob: Blob) -> Blob:
        """*blob* with that (the digests of the shards that it was merged from)."""
        ...


@runtime_checkable
class Apart(Protocol):
    """A target whose models stand each by itself: one may fail, and the others are there."""

    def apart(self) -> bool:
        """Whether it is so."""
        ...


@runtime_checkable
class Closes(Protocol):
    """A store that holds something open, as the port that a server calls, from its first use on."""

    def close(self) -> None:
        """Let go of it; the next use opens it again."""
        ...


@runtime_checkable
class Singles(Protocol):
    """A source of which one model is read for itself: to ask for all would cost too much."""

    def single(self, name: Name) -> Model | None:
        """The model of this name, compared without case; None where there is none."""
        ...


@runtime_checkable
class Scans(Protocol):
    """A source of which some models may be read, and others not."""

    def scan(self) -> Iterator[Model | ModelpackError]:
        """Every model, in the order of names, or what is wrong with that one."""
        ...


@runtime_checkable
class TakesUnread(Protocol):
    """A target that can take blobs before anybody knows their hashes."""

    def takes_unread(self, models: Sequence[Model]) -> bool:
        """Whether it can for these models; else they are hashed first, which reads them twice."""
        ...


@runtime_checkable
class InOrder(Protocol):
    """A target that takes blobs one at a time, in the order of `missing`."""

    def in_order(self) -> bool:
        """Whether it must be so."""
        ...


@runtime_checkable
class Foretells(Protocol):
    """A target that has something to say before the first byte."""

    def foretell(self, models: Sequence[Model]) -> Sequence[str]:
        """Sentences for the plan: what will happen there that the user should know."""
        ...


@runtime_checkable
class Goes(Protocol):
    """A target that has several ways to bring a model there, and decides before the first byte."""

    def way(self, model: Model) -> tuple[str, str]:
        """The way that *model* goes (`exact`, `create`), and why: a sentence. Decided once, and kept."""
        ...


@runtime_checkable
class Described(Protocol):
    """A source or target that can say which place it is, for a receipt."""

    def described(self) -> Mapping[str, str]:
        """`kind` (server, models directory, registry, …), `where`; of a server Ollama's `version`, too."""
        ...


@runtime_checkable
class Tidies(Protocol):
    """A target where a run that was killed leaves more than a scratch file."""

    def tidy(self) -> None:
        """Remove what is old, and nobody's only copy; called at the end of a copy. Raises nothing."""
        ...


@runtime_checkable
class MakesRequests(Protocol):
    """A target that asks a server to make the model."""

    def request_for(self, model: Model, texts: Mapping[Digest, bytes]) -> dict[str, Any]:
        """The body of the request for *model*, whose small texts are *texts*."""
        ...


@runtime_checkable
class Settled(Protocol):
    """A target that may hold models already, wholly."""

    def placed(self, models: Sequence[Model]) -> Sequence[Placed | None]:
        """Each model, where it is there under its name with the same document and every blob; else None."""
        ...


@runtime_checkable
class Identified(Protocol):
    """A store that is a bundle: it has a fingerprint."""

    @property
    def fingerprint(self) -> Digest:
        """SHA-256 of its index.json."""
        ...
