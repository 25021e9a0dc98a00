"""Reading back: bytes that a host said it has, fetched from there and hashed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from modelpack.documents.model import Model
from modelpack.documents.receipt import CREATE, Receipt
from modelpack.errors import Corrupt, Different, ModelpackError, NotFound, Refused
from modelpack.hands.crew import Gone, Stoppable, in_parallel
from modelpack.hands.hashing import Counted, check, pour
from modelpack.stores import Source
from modelpack.verbs.hosts import There
from modelpack.verbs.plans import HANDS
from modelpack.words.blob import CONFIG, SMALL, TEXTS, Blob
from modelpack.words.digest import Digest
from modelpack.words.report import Moved, Report, Stage, silent
from modelpack.words.text import size as shown_size

Wanted = tuple[Source, Model, Sequence[Blob]]
"""Blobs of a model that are to be read back, and where."""

_ADVICE = (
    "A blob that is there is never sent again: delete these models there (`ollama rm`) and load them anew, "
    "or run `modelpack repair` on the models directory."
)


def prove(
    receipts: Sequence[Receipt], there: There, where: object, report: Report = silent
) -> tuple[list[Receipt], dict[str, ModelpackError]]:
    """*receipts* with what reading back has proven, and what went wrong, by the full names of models.

    Read back is every blob that was there before. Of a model made by create, whose manifest and perhaps
    weights are the server's own, the small layers that it has now are held against its manifest, and that
    against its ID; `unproven` says what is left. A wrong blob is Corrupt; what keeps it from being read
    (Unreachable, Unsupported, …) is an error of another kind.
    """
    wanted: dict[str, Wanted] = {}
    failed: dict[str, ModelpackError] = {}
    for receipt in receipts:
        if receipt.way != CREATE and not receipt.present:
            continue
        try:
            source, model = find(there, receipt, where)
        except ModelpackError as error:
            failed[receipt.name.full] = error
        else:
            wanted[receipt.name.full] = (source, model, _to_read(receipt, model))
    found = read_back(list(wanted.values()), where, report)
    done = []
    for receipt in receipts:
        if receipt.name.full not in wanted:
            done.append(receipt)
            continue
        _, model, blobs = wanted[receipt.name.full]
        wrong = [each for blob in blobs if (each := found[blob.digest]) is not None]
        if wrong:
            failed[receipt.name.full] = wrong[0]
        good = frozenset(blob.digest for blob in blobs if blob.digest and found[blob.digest] is None)
        done.append(replace(receipt, proven=good, unproven=_unproven(receipt, model, good)))
    return done, failed


def find(there: There, receipt: Receipt, where: object) -> tuple[Source, Model]:
    """The model of *receipt* as it is there now; NotFound, or Different where the name means another."""
    found = there.read(receipt.name)
    if found is None:
        raise NotFound(f"{receipt.name} is gone since it was loaded", where=where)
    if receipt.id is not None and found[1].document.id != receipt.id:
        raise Different(
            f"{receipt.name} is another model since it was loaded: {found[1].document.id.short}, not "
            f"{receipt.id.short}",
            where=where,
        )
    return found


def read_back(
    wanted: Sequence[Wanted], where: object, report: Report = silent
) -> Mapping[Digest | None, ModelpackError | None]:
    """Each blob of *wanted*, read once and hashed: by digest what is wrong with it, None where nothing is."""
    homes: dict[Digest | None, tuple[Source, Blob]] = {}
    users: dict[Digest | None, list[str]] = {}
    for source, model, blobs in wanted:
        for blob in blobs:
            homes.setdefault(blob.digest, (source, blob))
            users.setdefault(blob.digest, []).append(str(model.name))
    report(Stage("reading back", sum(blob.size for _, blob in homes.values())))

    def work(digest: Digest | None, gone: Gone) -> ModelpackError | None:
        source, blob = homes[digest]
        try:
            with source.open(blob) as reader:
                counted = Counted(Stoppable(reader, gone), lambda count: report(Moved(count)))
                check(blob, pour(counted, blob.size))
        except ModelpackError as error:
            if not isinstance(error, Corrupt | NotFound) and not _says_damaged(error, blob):
                return error
            names = users[digest]
            shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            kind = NotFound if isinstance(error, NotFound) else Corrupt
            return kind(f"{error.what} (used by {shown})", where=where, advice=_ADVICE)
        return None

    largest_first = sorted(homes, key=lambda digest: -homes[digest][1].size)
    return dict(in_parallel(largest_first, work, HANDS))


def _says_damaged(error: ModelpackError, blob: Blob) -> bool:
    """Whether the server itself says that *blob* is not what it should be: a depot hashes what it sends."""
    return isinstance(error, Refused) and "its bytes hash to" in error.words and str(blob) in error.words


def _to_read(receipt: Receipt, model: Model) -> list[Blob]:
    before = {blob.digest for blob in receipt.present}
    small = receipt.way == CREATE
    return [
        blob
        for blob in model.blobs
        if blob.digest in before or (small and blob.size <= SMALL and blob.media_type in (CONFIG, *TEXTS))
    ]


def _unproven(receipt: Receipt, model: Model, good: frozenset[Digest]) -> str:
    """What of *model*, which the server made itself, is neither what was sent nor read back."""
    if receipt.way != CREATE:
        return ""
    sent = {blob.digest for blob in receipt.sent}
    own = [blob for blob in model.blobs if blob.digest not in sent and blob.digest not in good]
    if not own:
        return ""
    which = ", ".join(f"{blob.kind} {blob} ({shown_size(blob.size)})" for blob in own[:5])
    return f"The server wrote these itself, and nothing here says what their bytes should be: {which}."
