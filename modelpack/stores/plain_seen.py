"""What is known of files below a folder, so that none is read twice."""

from __future__ import annotations

from modelpack.errors import Corrupt, NotFound, Unsupported
from modelpack.hands.bytes import FileReader
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import pour
from modelpack.stores.plain_record import DOCUMENTS, Record, below, open_at, read_record
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest


class Seen:
    """What is known of files: what they hashed to when last read or written, and which records they are.

    A file that was changed since is another one.
    """

    def __init__(self) -> None:
        self._digests: dict[tuple[int, ...], Digest] = {}
        self._records: dict[str, tuple[tuple[int, ...], Record]] = {}

    def record(self, folder: Folder, name: str) -> Record | None:
        """What was unpacked in *folder*, called *name*; None where nothing was, or it cannot be read."""
        try:
            mark = _mark(folder, DOCUMENTS) or ()
            if name not in self._records or self._records[name][0] != mark:
                self._records[name] = mark, read_record(folder, name)
        except (NotFound, Corrupt, Unsupported):
            return None
        return self._records[name][1]

    def note(self, folder: Folder, path: str, digest: Digest) -> None:
        """The file at *path* has these bytes."""
        mark = _mark(folder, path)
        if mark is not None:
            self._digests[mark] = digest

    def hashed(self, folder: Folder, path: str, blob: Blob) -> Digest:
        """What the file at *path*, of the size of *blob*, hashes to; read where that is not known yet."""
        mark = _mark(folder, path) or ()
        if mark not in self._digests:
            with open_at(folder, path, blob) as reader:
                self._digests[mark] = digest_in(reader)
        return self._digests[mark]


def _mark(folder: Folder, path: str) -> tuple[int, ...] | None:
    with below(folder, path) as (into, name):
        found = into.stat(name)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns) if found else None


def digest_in(reader: FileReader) -> Digest:
    """The SHA-256 of what *reader* brings."""
    found = pour(reader, reader.size).sha256
    if found is None:
        raise TypeError("it was asked for")
    return found
