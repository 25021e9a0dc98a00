"""The one verb: `copy(source, models, target)`. What is missing, in which order, by how many hands."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from modelpack.documents.model import Model, blobs_of
from modelpack.documents.receipt import Receipt
from modelpack.errors import (
    Corrupt,
    Local,
    ModelpackError,
    Partly,
    Refused,
    Taken,
    Unreachable,
)
from modelpack.hands.crew import Gone, Stoppable, in_parallel
from modelpack.hands.hashing import check, pour
from modelpack.stores import (
    Afar,
    Continues,
    Finds,
    InOrder,
    Learns,
    OneWay,
    Placed,
    Reader,
    Session,
    Source,
    Target,
    Tidies,
)
from modelpack.verbs.plans import HANDS, Failed, Plan, plan, stand_apart, users_of
from modelpack.words.blob import Blob
from modelpack.words.name import Name
from modelpack.words.report import Note, Report, Stage, silent

Agree = Callable[[Plan], None]
"""Hears of a plan before the first byte; what it raises keeps the plan from being carried out."""


def copy(
    source: Source,
    models: Sequence[Model],
    target: Target,
    report: Report = silent,
    *,
    agree: Agree = lambda _plan: None,
) -> list[Receipt]:
    """Bring *models* from *source* to *target*: what is missing, then their names, last of all.

    One receipt a model. An error leaves no model half there; what moved whole may serve the next run. Where
    models stand each by itself (on a server, in a models directory), one that fails does not keep the others
    from arriving: Partly tells of both; so it does where the line or the disk fails after some have arrived.
    Taken, which the user can decide, is raised before anything moves.
    """
    todo = plan(source, models, target, report)
    _refuse_taken(todo)
    for note in todo.notes:
        report(Note(note))
    agree(todo)
    return carry_out(todo, source, target, report)


def carry_out(todo: Plan, source: Source, target: Target, report: Report = silent) -> list[Receipt]:
    """Do what *todo* says; raises Taken where it tells of one."""
    _refuse_taken(todo)
    work = _Work(todo, source, target, report)
    pending = [model for model, placed in zip(todo.models, todo.placed, strict=True) if placed is None]
    if pending:
        try:
            work.bring(pending)
        except (Local, Unreachable) as error:
            work.give_up(pending, error)
    elif isinstance(source, OneWay):  # whoever writes the pipe would fail, were it left unread
        for _ in source.passing(()):
            pass
    receipts = work.receipts()
    if isinstance(target, Tidies):
        target.tidy()
    if work.failed:
        count = len(todo.models) + len(todo.failed)
        raise Partly(
            f"{len(work.failed)} of {count} models failed",
            failed={model.name.full: error for model, error in work.failed},
            done=receipts,
        )
    return receipts


def _refuse_taken(todo: Plan) -> None:
    for _, error in todo.failed:
        if isinstance(error, Taken):
            raise error


class _Work:
    """A plan on its way: what is known of blobs, which models have their names, which failed."""

    def __init__(self, todo: Plan, source: Source, target: Target, report: Report) -> None:
        self._todo, self._source, self._target, self._report = todo, source, target, report
        self._apart = stand_apart(target, [*todo.models, *(model for model, _ in todo.failed)])
        self._known: dict[object, Blob] = {}
        self._lost: dict[object, ModelpackError] = {}
        self._found: set[object] = set()
        """Blobs that somebody else had brought when they were to be put."""
        self._done: dict[Name, Placed] = {}
        self.failed: list[Failed] = list(todo.failed)

    def bring(self, models: Sequence[Model]) -> None:
        """Move what *models* miss; each is named as soon as it and those before it are whole."""
        wanted = {blob.id for blob in blobs_of(models)}
        missing = [blob for blob in self._todo.missing if blob.id in wanted]
        moving = {blob.id for blob in missing}
        waiting = deque((model, deque(model.blobs)) for model in models)
        with self._target.session(models, self._report) as session:
            self._report(Stage("copying", sum(blob.size for blob in missing)))
            at_once = not isinstance(self._source, OneWay)  # whether a pipe is whole is known at its end
            for blob, kept in self._move(missing, models, session):
                moving.discard(blob.id)
                if isinstance(kept, ModelpackError):
                    self._lost[blob.id] = kept
                elif kept is not None:
                    self._known[blob.id] = kept
                    if isinstance(session, Finds) and session.found(kept):
                        self._found.add(blob.id)
                if at_once:
                    self._name(waiting, moving, session)
            self._name(waiting, moving, session)

    def give_up(self, models: Sequence[Model], error: ModelpackError) -> None:
        """*error* is that of all of *models* that have not arrived; raises it where none has."""
        if not self._apart or not self._done:
            raise error
        failed = {model.name for model, _ in self.failed}
        late = [model for model in models if model.name not in self._done and model.name not in failed]
        self.failed += [(model, error) for model in late]

    def receipts(self) -> list[Receipt]:
        """Of every model that is there now."""
        found = []
        for model, placed in zip(self._todo.models, self._todo.placed, strict=True):
            there = placed or self._done.get(model.name)
            if there is None:
                continue
            moved = () if placed else self._known.keys() - self._found
            found.append(
                Receipt(
                    model.settled(self._known),
                    there.name,
                    there.id,
                    there.same_bytes,
                    there.way,
                    tuple(self._known[blob.id] for blob in model.blobs if blob.id in moved),
                    tuple(blob for blob in model.blobs if blob.id not in moved),
                    there.note,
                    placed is not None,
                )
            )
        return found

    def _name(self, waiting: deque[tuple[Model, deque[Blob]]], moving: set[object], session: Session) -> None:
        """Commit the models at the front of *waiting* that miss nothing; each comes with blobs to look at."""
        while waiting:
            model, open_ones = waiting[0]
            while open_ones and open_ones[0].id not in moving:
                open_ones.popleft()
            if open_ones:
                return
            waiting.popleft()
            lost = [self._lost[blob.id] for blob in model.blobs if blob.id in self._lost]
            if lost:
                self.failed.append((model, lost[0]))
                continue
            try:
                self._done[model.name] = session.commit(model.settled(self._known))
            except ModelpackError as error:
                self.failed.append((model, self._of_one(error)))

    def _of_one(self, error: ModelpackError) -> ModelpackError:
        """*error*, where it is that of some models alone; else it is raised: it would be that of all."""
        if not self._apart or isinstance(error, Local | Unreachable):
            raise error
        return error

    def _move(
        self, missing: Sequence[Blob], models: Sequence[Model], session: Session
    ) -> Iterator[tuple[Blob, Blob | ModelpackError | None]]:
        """Every missing blob with what the target made of it; an error, where that is its models' alone.

        None where it was not moved, as all its models had failed before.
        """
        source = self._source
        if isinstance(source, OneWay):
            for blob, reader in source.passing(missing):
                try:
                    kept: Blob | ModelpackError = session.put(blob, reader)
                except ModelpackError as error:
                    kept = self._of_one(error)
                yield blob, kept
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
            except ModelpackError as error:
                doomed.update(users[blob.id])
                return self._of_one(error)

        if isinstance(self._target, InOrder):
            for blob in missing:
                yield blob, put(blob, lambda: False)
            return
        yield from in_parallel(missing, put, HANDS)

    def _put(self, blob: Blob, gone: Gone, session: Session) -> Blob:
        source = self._source
        try:
            if isinstance(session, Continues) and (_is_afar(source) or _is_afar(self._target)):
                kept = self._put_on(blob, gone, session)
            else:
                with source.open(blob) as reader:
                    kept = session.put(blob, Stoppable(reader, gone))
        except Corrupt as error:
            error.where = error.where or users_of(self._todo.models, blob)
            raise
        except Refused as error:
            if error.status == 400:  # the server says that the bytes are wrong: whose fault is it?
                with source.open(blob) as reader:
                    check(blob, pour(reader, blob.size))
            raise
        return source.learned(kept) if isinstance(source, Learns) else kept

    def _put_on(self, blob: Blob, gone: Gone, session: Continues) -> Blob:
        @contextmanager
        def opened(offset: int) -> Iterator[Reader]:
            with self._source.open(blob, offset) as reader:
                yield Stoppable(reader, gone)

        try:
            return session.put_on(blob, opened)
        except Unreachable as error:
            if not _is_afar(self._target):  # a disk keeps it
                error.advice = f"Run it again: what has come is kept for a week. {error.advice}".strip()
            raise


def _is_afar(side: Source | Target) -> bool:
    return isinstance(side, Afar) and side.afar()
