"""Both hashes of files, each file read once, several files at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelpack.errors import ModelpackError, Usage
from modelpack.hands.bytes import FileReader
from modelpack.hands.crew import Gone, Stoppable, in_parallel
from modelpack.hands.hashing import Counted, blamed, pour
from modelpack.words.digest import Digest
from modelpack.words.report import Moved, Report, Stage, silent


@dataclass(frozen=True)
class Hashed:
    """A file's size in bytes and both its hashes, or the error that kept them from being known."""

    path: Path
    size: int
    sha256: Digest | None
    blake3: Digest | None
    error: ModelpackError | None = None


def cores() -> int:
    """Processors that this process may use, four at most: more hash faster than disks read."""
    return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def hash_files(paths: Sequence[Path], report: Report = silent) -> Iterator[Hashed]:
    """SHA-256 and BLAKE3 of each of *paths*, in their order. A file that fails does not stop the others."""
    sizes = {path: _size(path) for path in paths}
    report(Stage("hashing", sum(sizes.values())))

    def work(path: Path, gone: Gone) -> Hashed:
        try:
            if path.is_dir():
                raise Usage("is a directory; hash takes files", where=path)
            with FileReader.at(path) as reader, blamed(path):
                counted = Counted(Stoppable(reader, gone), lambda count: report(Moved(count)))
                hashes = pour(counted, reader.size, blake3=True, overlap=len(paths) < cores(), where=path)
            return Hashed(path, reader.size, hashes.sha256, hashes.blake3)
        except ModelpackError as error:
            return Hashed(path, 0, None, None, error)

    found = dict(in_parallel(list(sizes), work, cores()))
    for path in paths:
        yield found[path]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
