"""The one verb: `copy(source, models, target)`. What is missing, in which order, by how many hands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelpack.documents.model import Model, blobs_of
from modelpack.documents.receipt import Receipt
from modelpack.errors import Refused
from modelpack.hands.crew import Gone, Stoppable, in_parallel
from modelpack.hands.hashing import Counted, check, pour
from modelpack.stores import (
    Foretells,
    InOrder,
    OneWay,
    Placed,
    Session,
    Settled,
    Source,
    TakesUnread,
    Target,
)
from modelpack.words.blob import Blob
from modelpack.words.report import Moved, Note, Report, Stage, silent

HANDS = 3
"""Blobs that are moved at a time. Each has a ring of buffers (16 MiB at most): memory stays bounded."""


@dataclass(frozen=True)
class Plan:
    """What a copy would do; making it changes nothing on either side."""

    models: tuple[Model, ...]
    placed: tuple[Placed | None, ...]
    """For each model: where it is there already, wholly."""
    missing: tuple[Blob, ...]
    notes: tuple[str, ...]

    @property
    def present(self) -> tuple[Blob, ...]:
        """Blobs that the target has already, as far as names tell."""
        gone = {blob.id for blob in self.missing}
        return tuple(blob for blob in blobs_of(self.models) if blob.id not in gone)

    @property
    def bytes(self) -> int:
        """Bytes to move."""
        return sum(blob.size for blob in self.missing)


def plan(source: Source, models: Sequence[Model], target: Target, report: Report = silent) -> Plan:
    """What `copy` would do. Blobs are hashed first where the target cannot take them otherwise.

    Raises what the target has against it (Taken, Refused, Unsupported, …) before a byte moves.
    """
    keeps_documents = isinstance(target, TakesUnread)
    if not isinstance(target, TakesUnread) or not target.takes_unread(models):
        models = settle(source, models, report, blake3=keeps_documents)
    missing = target.missing(models)
    placed = [target.placed(model) if isinstance(target, Settled) else None for model in models]
    if all(placed):
        missing = ()
    notes = target.foretell(models) if isinstance(target, Foretells) else ()
    return Plan(tuple(models), tuple(placed), tuple(missing), tuple(notes))


def copy(source: Source, models: Sequence[Model], target: Target, report: Report = silent) -> list[Receipt]:
    """Bring *models* from *source* to *target*: what is missing, then their names, last of all.

    One receipt a model. An error leaves no model half there; what moved whole may serve the next run.
    """
    todo = plan(source, models, target, report)
    for note in todo.notes:
        report(Note(note))
    return carry_out(todo, source, target, report)


def carry_out(todo: Plan, source: Source, target: Target, report: Report = silent) -> list[Receipt]:
    """Do what *todo* says."""
    pending = [model for model, placed in zip(todo.models, todo.placed, strict=True) if placed is None]
    known: dict[object, Blob] = {}
    done: dict[int, Placed] = {}
    if pending:
        wanted = {blob.id for blob in blobs_of(pending)}
        missing = [blob for blob in todo.missing if blob.id in wanted]
        with target.session(pending, report) as session:
            report(Stage("copying", sum(blob.size for blob in missing)))
            for blob, kept in _move(source, missing, session, isinstance(target, InOrder)):
                known[blob.id] = kept
            done = {id(model): session.commit(model) for model in pending}
    elif isinstance(source, OneWay):  # whoever writes the pipe would fail, were it left unread
        for _ in source.passing(()):
            pass
    receipts = []
    for model, placed in zip(todo.models, todo.placed, strict=True):
        there = placed or done[id(model)]
        settled = model.settled(known)
        sent = [blob for blob in model.blobs if blob.id in known]
        receipts.append(
            Receipt(
                settled,
                there.name,
                there.id,
                there.same_bytes,
                there.way,
                tuple(known[blob.id] for blob in sent),
                tuple(blob for blob in model.blobs if blob.id not in known),
                there.note,
            )
        )
    return receipts


def settle(
    source: Source, models: Sequence[Model], report: Report = silent, *, blake3: bool = True
) -> list[Model]:
    """*models* with the SHA-256 (and BLAKE3) of every blob known: those that are not are read once."""
    unread = [blob for blob in blobs_of(models) if blob.digest is None or (blake3 and blob.blake3 is None)]
    if not unread:
        return list(models)
    report(Stage("hashing", sum(blob.size for blob in unread)))

    def read(blob: Blob, gone: Gone) -> Blob:
        with source.open(blob) as reader:
            counted = Counted(Stoppable(reader, gone), lambda count: report(Moved(count)))
            return check(blob, pour(counted, blob.size, blake3=blake3))

    known: dict[object, Blob] = {blob.id: found for blob, found in in_parallel(unread, read, HANDS)}
    return [model.settled(known) for model in models]


def _move(
    source: Source, missing: Sequence[Blob], session: Session, in_order: bool
) -> Iterable[tuple[Blob, Blob]]:
    if isinstance(source, OneWay):
        for blob, reader in source.passing(missing):
            yield blob, session.put(blob, reader)
        return

    def put(blob: Blob, gone: Gone) -> Blob:
        try:
            with source.open(blob) as reader:
                return session.put(blob, Stoppable(reader, gone))
        except Refused as error:
            if error.status == 400:  # the server says that the bytes are wrong: whose fault is it?
                _look_again(source, blob)
            raise

    if in_order:
        for blob in missing:
            yield blob, put(blob, lambda: False)
        return
    yield from in_parallel(missing, put, HANDS)


def _look_again(source: Source, blob: Blob) -> None:
    with source.open(blob) as reader:
        check(blob, pour(reader, blob.size))
