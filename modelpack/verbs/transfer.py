"""The one verb: `copy(source, models, target)`. What is missing, in which order, by how many hands."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelpack.documents.model import Model, base_of, blobs_of
from modelpack.documents.receipt import Receipt
from modelpack.errors import Local, ModelpackError, NotFound, Partly, Refused, Unreachable, Unsupported
from modelpack.hands.crew import Gone, Stoppable, in_parallel
from modelpack.hands.hashing import Counted, check, pour
from modelpack.stores import (
    Apart,
    Foretells,
    InOrder,
    Learns,
    OneWay,
    Placed,
    Session,
    Settled,
    Source,
    TakesUnread,
    Target,
)
from modelpack.words.blob import Blob
from modelpack.words.name import Name
from modelpack.words.report import Moved, Note, Report, Stage, silent

HANDS = 3
"""Blobs that are moved at a time. Each has a ring of buffers (16 MiB at most): memory stays bounded."""

Failed = tuple[Model, ModelpackError]


@dataclass(frozen=True)
class Plan:
    """What a copy would do; making it changes nothing on either side."""

    models: tuple[Model, ...]
    placed: tuple[Placed | None, ...]
    """For each model: where it is there already, wholly."""
    missing: tuple[Blob, ...]
    notes: tuple[str, ...]
    failed: tuple[Failed, ...] = ()
    """Models that the target cannot have, and why; they are not among `models`."""

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

    Raises what the target has against it (Taken, Refused, Unsupported, …) before a byte moves. Of several
    models those that cannot be had there are left out, where the others can do without them.
    """
    keeps_documents = isinstance(target, TakesUnread)
    if not isinstance(target, TakesUnread) or not target.takes_unread(models):
        models = settle(source, models, report, blake3=keeps_documents)
    failed: list[Failed] = []
    try:
        missing = target.missing(models)
    except (Unsupported, NotFound):
        if not _stand_apart(target, models):
            raise
        models, failed = _possible(models, target)
        missing = target.missing(models)
    placed = [target.placed(model) if isinstance(target, Settled) else None for model in models]
    if all(placed):
        missing = ()
    notes = target.foretell(models) if isinstance(target, Foretells) else ()
    return Plan(tuple(models), tuple(placed), tuple(missing), tuple(notes), tuple(failed))


def copy(source: Source, models: Sequence[Model], target: Target, report: Report = silent) -> list[Receipt]:
    """Bring *models* from *source* to *target*: what is missing, then their names, last of all.

    One receipt a model. An error leaves no model half there; what moved whole may serve the next run. Where
    models stand each by itself (on a server, in a models directory), one that fails does not keep the others
    from arriving: Partly tells of both.
    """
    todo = plan(source, models, target, report)
    for note in todo.notes:
        report(Note(note))
    return carry_out(todo, source, target, report)


def carry_out(todo: Plan, source: Source, target: Target, report: Report = silent) -> list[Receipt]:
    """Do what *todo* says."""
    work = _Work(todo, source, target, report)
    pending = [model for model, placed in zip(todo.models, todo.placed, strict=True) if placed is None]
    if pending:
        work.bring(pending)
    elif isinstance(source, OneWay):  # whoever writes the pipe would fail, were it left unread
        for _ in source.passing(()):
            pass
    receipts = work.receipts()
    if work.failed:
        count = len(todo.models) + len(todo.failed)
        raise Partly(
            f"{len(work.failed)} of {count} models failed",
            failed={model.name.full: error for model, error in work.failed},
            done=receipts,
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
            known = check(blob, pour(counted, blob.size, blake3=blake3))
        return source.learned(known) if isinstance(source, Learns) else known

    known: dict[object, Blob] = {blob.id: found for blob, found in in_parallel(unread, read, HANDS)}
    return [model.settled(known) for model in models]


def _stand_apart(target: Target, models: Sequence[Model]) -> bool:
    return len(models) > 1 and isinstance(target, Apart) and target.apart()


def _possible(models: Sequence[Model], target: Target) -> tuple[list[Model], list[Failed]]:
    """*models*, without those that *target* has something against; raises that where none is left."""
    good: dict[str, Model] = {}
    failed: list[Failed] = []
    for model in models:
        base = base_of(model)
        below = good.get(base.folded) if base is not None else None
        try:
            target.missing([below, model] if below is not None else [model])
        except (Unsupported, NotFound) as error:
            failed.append((model, error))
        else:
            good[model.name.folded] = model
    if not good:
        raise failed[0][1]
    return list(good.values()), failed


class _Work:
    """A plan on its way: what is known of blobs, which models have their names, which failed."""

    def __init__(self, todo: Plan, source: Source, target: Target, report: Report) -> None:
        self._todo, self._source, self._target, self._report = todo, source, target, report
        self._apart = _stand_apart(target, [*todo.models, *(model for model, _ in todo.failed)])
        self._known: dict[object, Blob] = {}
        self._lost: dict[object, ModelpackError] = {}
        self._done: dict[Name, Placed] = {}
        self.failed: list[Failed] = list(todo.failed)

    def bring(self, models: Sequence[Model]) -> None:
        """Move what *models* miss; each is named as soon as it and those before it are whole."""
        wanted = {blob.id for blob in blobs_of(models)}
        missing = [blob for blob in self._todo.missing if blob.id in wanted]
        moving = {blob.id for blob in missing}
        waiting = deque(models)
        with self._target.session(models, self._report) as session:
            self._report(Stage("copying", sum(blob.size for blob in missing)))
            at_once = not isinstance(self._source, OneWay)  # whether a pipe is whole is known at its end
            for blob, kept in self._move(missing, models, session):
                moving.discard(blob.id)
                if isinstance(kept, ModelpackError):
                    self._lost[blob.id] = kept
                elif kept is not None:
                    self._known[blob.id] = kept
                if at_once:
                    self._name(waiting, moving, session)
            self._name(waiting, moving, session)

    def receipts(self) -> list[Receipt]:
        """Of every model that is there now."""
        found = []
        for model, placed in zip(self._todo.models, self._todo.placed, strict=True):
            there = placed or self._done.get(model.name)
            if there is None:
                continue
            sent = [blob for blob in model.blobs if blob.id in self._known]
            found.append(
                Receipt(
                    model.settled(self._known),
                    there.name,
                    there.id,
                    there.same_bytes,
                    there.way,
                    tuple(self._known[blob.id] for blob in sent),
                    tuple(blob for blob in model.blobs if blob.id not in self._known),
                    there.note,
                )
            )
        return found

    def _name(self, waiting: deque[Model], moving: set[object], session: Session) -> None:
        """Commit the models at the front of *waiting* that miss nothing any more."""
        while waiting and not any(blob.id in moving for blob in waiting[0].blobs):
            model = waiting.popleft()
            lost = [self._lost[blob.id] for blob in model.blobs if blob.id in self._lost]
            if lost:
                self.failed.append((model, lost[0]))
                continue
            try:
                self._done[model.name] = session.commit(model.settled(self._known))
            except (Local, Unreachable):
                raise
            except ModelpackError as error:
                if not self._apart:
                    raise
                self.failed.append((model, error))

    def _move(
        self, missing: Sequence[Blob], models: Sequence[Model], session: Session
    ) -> Iterator[tuple[Blob, Blob | ModelpackError | None]]:
        """Every missing blob with what the target made of it; an error, where that is its models' alone.

        None where it was not moved, as all its models had failed before.
        """
        source = self._source
        if isinstance(source, OneWay):
            for blob, reader in source.passing(missing):
                yield blob, session.put(blob, reader)
            return
        users: dict[object, set[Name]] = {}
        for model in models:
            for blob in model.blobs:
                users.setdefault(blob.id, set()).add(model.name)
        doomed: set[Name] = set()

        def put(blob: Blob, gone: Gone) -> Blob | ModelpackError | None:
            if users[blob.id] <= doomed:
                return None
            try:
                return self._put(blob, gone, session)
            except (Local, Unreachable):
                raise
            except ModelpackError as error:
                if not self._apart:
                    raise
                doomed.update(users[blob.id])
                return error

        if isinstance(self._target, InOrder):
            for blob in missing:
                yield blob, put(blob, lambda: False)
            return
        yield from in_parallel(missing, put, HANDS)

    def _put(self, blob: Blob, gone: Gone, session: Session) -> Blob:
        source = self._source
        try:
            with source.open(blob) as reader:
                kept = session.put(blob, Stoppable(reader, gone))
        except Refused as error:
            if error.status == 400:  # the server says that the bytes are wrong: whose fault is it?
                with source.open(blob) as reader:
                    check(blob, pour(reader, blob.size))
            raise
        return source.learned(kept) if isinstance(source, Learns) else kept
