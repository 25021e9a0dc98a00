"""Reading back: bytes that a host said it has, fetched from there and hashed here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from modelpack.documents.model import Model
from modelpack.documents.receipt import CREATE, Receipt
from modelpack.errors import Corrupt, Different, ModelpackError, NotFound, Refused
from modelpack.hands.crew import Gone, Stoppable, in_parallel
from modelpack.hands.hashing import Counted, check, pour
from modelpack.stores import Source
from modelpack.verbs.hosts import There
from modelpack.verbs.plans import HANDS, users_of
from modelpack.words.blob import CONFIG, SMALL, TEXTS, Blob
from modelpack.words.digest import Digest
from modelpack.words.reader import Reader
from modelpack.words.report import Moved, Report, Stage, silent
from modelpack.words.text import size as shown_size

Wanted = tuple[Source, Model, Sequence[Blob]]
"""Blobs of a model that are to be read back, and where."""

_DAMAGE = (Corrupt, NotFound)
_OTHERWISE = (*_DAMAGE, Different)
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
    against its ID; `unproven` says what is left.

    A wrong blob is Corrupt, a missing one NotFound, a model that is another one by now Different: nothing is
    called the `same` then. What keeps a blob from being read (Unreachable, Unsupported, …) is an error of
    another kind, and says nothing about it.
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
    found = read_back(list(wanted.values()), there, where, report)
    done = []
    for receipt in receipts:
        key = receipt.name.full
        if key in wanted:
            _, model, blobs = wanted[key]
            faults = [fault for blob in blobs if (fault := found[blob.digest]) is not None]
            errors = sorted(faults, key=lambda one: not isinstance(one, _OTHERWISE))
            if errors:
                failed[key] = errors[0]
            good = frozenset(blob.digest for blob in blobs if blob.digest and found[blob.digest] is None)
            wrong = frozenset(
                blob.digest for blob in blobs if blob.digest and isinstance(found[blob.digest], _DAMAGE)
            )
            unproven = _unproven(receipt, model, good)
            receipt = replace(receipt, proven=good, wrong=wrong, unproven=unproven)
        if isinstance(failed.get(key), _OTHERWISE):
            receipt = replace(receipt, same_bytes=None)  # whatever was said when it arrived
        done.append(receipt)
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
    wanted: Sequence[Wanted], there: There, where: object, report: Report = silent
) -> Mapping[Digest | None, ModelpackError | None]:
    """Each blob of *wanted*, read once and hashed: by digest what is wrong with it, None where nothing is.

    Corrupt or NotFound (missing) is said of the blob. Different where none of its models is *there* any more.
    """
    homes: dict[Digest | None, Blob] = {}
    users: dict[Digest | None, list[tuple[Source, Model]]] = {}
    for source, model, blobs in wanted:
        for blob in blobs:
            homes.setdefault(blob.digest, blob)
            users.setdefault(blob.digest, []).append((source, model))
    report(Stage("reading back", sum(blob.size for blob in homes.values())))

    def work(digest: Digest | None, gone: Gone) -> ModelpackError | None:
        blob = homes[digest]

        def counted(reader: Reader) -> Reader:
            return Counted(Stoppable(reader, gone), lambda count: report(Moved(count)))

        try:
            if not _read(users[digest], blob, there, counted):
                what = f"{users[digest][0][1].name} was removed or changed while it was read back"
                return Different(what, where=where)
        except (Corrupt, NotFound) as error:
            used = users_of([model for _, model in users[digest]], blob)
            return type(error)(f"{error.what} (used by {used})", where=where, advice=_ADVICE)
        except ModelpackError as error:
            return error
        return None

    largest_first = sorted(homes, key=lambda digest: -homes[digest].size)
    return dict(in_parallel(largest_first, work, HANDS))


def _read(
    users: Sequence[tuple[Source, Model]], blob: Blob, there: There, counted: Callable[[Reader], Reader]
) -> bool:
    """Read *blob* and hash it; False where none of its *users* is *there* any more.

    A host says NotFound also of a model that was removed meanwhile: that is none of its blobs.
    """
    try:
        _hash(users[0][0], blob, counted)
    except NotFound:
        pass
    else:
        return True
    for source, model in users:
        if not _is_there(there, model):
            continue
        try:
            _hash(source, blob, counted)  # `there` has read the model anew, and asks for it by that name now
        except NotFound:
            if _is_there(there, model):
                raise
        else:
            return True
    return False


def _hash(source: Source, blob: Blob, counted: Callable[[Reader], Reader]) -> None:
    try:
        with source.open(blob) as reader:
            check(blob, pour(counted(reader), blob.size))
    except Refused as error:
        # A depot hashes what it sends, and says so.
        if "its bytes hash to" in error.words and str(blob) in error.words:
            raise Corrupt(f"{blob.kind} {blob} is damaged: so says the server, which hashed it") from None
        raise


def _is_there(there: There, model: Model) -> bool:
    try:
        found = there.read(model.name)
    except NotFound:
        return False
    return found is not None and found[1].document.id == model.document.id


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
