"""Whether unpacked files are still what they were: by names and sizes, and byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelpack.documents.modelfile_grammar import LIMIT
from modelpack.errors import Corrupt, NotFound, Refused
from modelpack.hands.crew import Gone, Stoppable, in_parallel
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import Counted, pour
from modelpack.stores.plain_layout import MODELFILE
from modelpack.stores.plain_record import Record, open_at, read_at, size_at
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.report import Moved, Report, Stage

_HANDS = 3


def joined(record: Record, path: str) -> str:
    """The file at *path* of *record*, below DIR."""
    return f"{record.folder}/{path}" if record.folder else path


def looked(root: Folder, records: Sequence[Record]) -> dict[str, str]:
    """What is wrong by names and sizes, and with Modelfiles: path below DIR → a sentence."""
    found = {}
    for record in records:
        if reason := _modelfile_changed(root, record):
            found[joined(record, MODELFILE)] = reason
    for record in records:
        for path, blob in record.files.items():
            where = joined(record, path)
            try:
                size = size_at(root, where)
            except Refused:
                size = -1
            if size is None:
                found[where] = f"{where} is missing"
            elif size != blob.size:
                found[where] = _other(where)
    return found


def hashed(root: Folder, records: Sequence[Record], passed: dict[str, str], report: Report) -> Iterator[str]:
    """A sentence for each file of *records* whose bytes are others; *passed* ones are not read.

    Several files are read at a time. Raises Local where the medium fails.
    """
    files = [(joined(record, path), blob) for record in records for path, blob in record.files.items()]
    files = [(where, blob) for where, blob in files if where not in passed]
    report(Stage("checking", sum(blob.size for _, blob in files)))

    def changed(file: tuple[str, Blob], gone: Gone) -> bool:
        where, blob = file
        try:
            with open_at(root, where, blob) as reader:
                counted = Counted(Stoppable(reader, gone), lambda count: report(Moved(count)))
                return pour(counted, blob.size).sha256 != blob.digest
        except (NotFound, Corrupt, Refused):
            return True

    for (where, _), other in in_parallel(files, changed, _HANDS):
        if other:
            yield _other(where)


def _other(where: str) -> str:
    return f"{where} is not what it was when it was unpacked"


def _modelfile_changed(root: Folder, record: Record) -> str:
    """What became of the Modelfile of *record*, as a sentence; empty where it is what it was."""
    path = joined(record, MODELFILE)
    try:
        found: Digest | None = Digest.of(read_at(root, path, LIMIT))
    except NotFound:
        found = None
    except (Corrupt, Refused):
        return f"{path} was changed"
    if found == record.modelfile:
        return ""
    if record.modelfile is None:
        return f"{path} was added"
    return f"{path} is missing" if found is None else f"{path} was changed"
