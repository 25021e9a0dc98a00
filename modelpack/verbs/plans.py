"""What a copy would do: found out before a byte moves, by asking both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelpack.documents.expects import lacking, not_there
from modelpack.documents.model import Model, base_of, blobs_of
from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Taken, Unsupported
from modelpack.hands.crew import Gone, Stoppable, in_parallel
from modelpack.hands.hashing import Counted, check, pour
from modelpack.stores import (
    Afar,
    Apart,
    Expecting,
    Foretells,
    Goes,
    Learns,
    Leaves,
    Placed,
    Settled,
    Source,
    TakesUnread,
    Target,
)
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.report import Moved, Report, Stage, silent

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
    ways: tuple[tuple[str, str], ...] = ()
    """For each model the way that it goes, and why, where the target has several; else nothing."""

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

    Raises what the target has against it (Refused, Unsupported, …) before a byte moves. Of several models
    those that cannot be had there are left out, where the others can do without them; so is one whose name
    is taken, also where it is the only one: `copy` raises that.
    """
    keeps_documents = isinstance(target, TakesUnread)
    if not isinstance(target, TakesUnread) or not target.takes_unread(models):
        leaves = target.leaves() if isinstance(target, Leaves) else frozenset()
        models = settle(source, models, report, blake3=keeps_documents, but=leaves)
    failed: list[Failed] = []
    try:
        missing = target.missing(models)
    except (Unsupported, NotFound, Taken) as error:
        if not is_apart(target) or (len(models) == 1 and not isinstance(error, Taken)):
            raise
        models, failed = _possible(models, target)
        missing = target.missing(models)
    placed = target.placed(models) if isinstance(target, Settled) else [None] * len(models)
    if all(placed):
        missing = ()
    if isinstance(source, Expecting) and (gone := lacking(missing, source.expects)):
        raise not_there(gone, models)
    notes = target.foretell(models) if isinstance(target, Foretells) else ()
    ways = [target.way(model) for model in models] if isinstance(target, Goes) else []
    return Plan(tuple(models), tuple(placed), tuple(missing), tuple(notes), tuple(failed), tuple(ways))


def settle(
    source: Source,
    models: Sequence[Model],
    report: Report = silent,
    *,
    blake3: bool = True,
    but: frozenset[Digest] = frozenset(),
) -> list[Model]:
    """*models* with the SHA-256 (and BLAKE3) of every blob known: those that are not are read once.

    The BLAKE3s of those in *but* are left as they are.
    """
    unread = [
        blob
        for blob in blobs_of(models)
        if blob.digest is None or (blake3 and blob.blake3 is None and blob.digest not in but)
    ]
    if not unread:
        return list(models)
    if isinstance(source, Afar) and source.afar():
        raise Refused(
            "what comes over a net would have to be read twice for that",
            advice="Pack it into a file or folder first, and take it from there.",
        )
    report(Stage("hashing", sum(blob.size for blob in unread)))

    def read(blob: Blob, gone: Gone) -> Blob:
        try:
            with source.open(blob) as reader:
                counted = Counted(Stoppable(reader, gone), lambda count: report(Moved(count)))
                known = check(blob, pour(counted, blob.size, blake3=blake3))
        except Corrupt as error:
            error.where = error.where or users_of(models, blob)
            raise
        return source.learned(known) if isinstance(source, Learns) else known

    known: dict[object, Blob] = {blob.id: found for blob, found in in_parallel(unread, read, HANDS)}
    return [model.settled(known) for model in models]


def users_of(models: Sequence[Model], blob: Blob) -> str:
    """Whose *blob* is: names of *models*, the first few."""
    names = [str(model.name) for model in models if any(one.id == blob.id for one in model.blobs)]
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def stand_apart(target: Target, models: Sequence[Model]) -> bool:
    """Whether one of *models* may fail at *target* without the others."""
    return len(models) > 1 and is_apart(target)


def is_apart(target: Target) -> bool:
    """Whether models stand each by itself at *target*."""
    return isinstance(target, Apart) and target.apart()


def _possible(models: Sequence[Model], target: Target) -> tuple[list[Model], list[Failed]]:
    """*models*, without those that *target* has something against.

    Raises that where none is left, unless a name is taken: then it is for the user to decide.
    """
    good: dict[str, Model] = {}
    failed: list[Failed] = []
    for model in models:
        base = base_of(model)
        below = good.get(base.folded) if base is not None else None
        try:
            target.missing([below, model] if below is not None else [model])
        except (Unsupported, NotFound, Taken) as error:
            failed.append((model, error))
        else:
            good[model.name.folded] = model
    if not good and not any(isinstance(error, Taken) for _, error in failed):
        raise failed[0][1]
    return list(good.values()), failed
