"""One file that may be a volume: which it is, whatever it is called, and which of its blocks are good."""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from modelpack.documents.volumes import Descriptor
from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unchecked
from modelpack.hands.blocks import hash_blocks
from modelpack.hands.bytes import FileReader, read_at
from modelpack.hands.disk import open_path
from modelpack.hands.hashing import Counted, blake3_hasher, pour
from modelpack.hands.readback import forget
from modelpack.verbs.hashes import cores
from modelpack.words.report import Moved, Report, Stage, silent
from modelpack.words.volume import Volume


class State(StrEnum):
    """What came of looking at a volume."""

    GOOD = "good"
    DAMAGED = "damaged"
    SHORT = "short"
    FOREIGN = "not of this set"
    UNCHECKED = "could not be checked"
    MISSING = "missing"


@dataclass(frozen=True)
class Looked:
    """A file that is, or is called as, the `volume` of a set; None where it is none, or nothing is known.

    `bad` are its blocks, from 0, that are damaged, missing or `unread` (the medium does not give them back);
    `models` those whose bytes lie there. `memory` says why the bytes may have come from there, not from the
    medium, where that was asked for. `why` has more words, `advice` what to do; `read` counts bytes.
    """

    path: Path
    state: State
    volume: Volume | None = None
    bad: tuple[int, ...] = ()
    unread: tuple[int, ...] = ()
    models: tuple[str, ...] = ()
    why: str = ""
    memory: str = ""
    read: int = 0
    advice: str = ""

    @property
    def problem(self) -> ModelpackError | None:
        """The error that says so; None where it is good."""
        if self.state is State.GOOD:
            return None
        kind = {State.FOREIGN: Refused, State.UNCHECKED: Unchecked, State.MISSING: NotFound}
        error: type[ModelpackError] = kind.get(self.state, Corrupt)
        what = f"{self.state}: {self.why}" if self.why else str(self.state)
        return error(what, where=self.path, advice=self.advice)


def judge(
    descriptor: Descriptor, hashes: Sequence[bytes | None], size: int, name: str
) -> tuple[State, Volume | None, tuple[int, ...], str]:
    """What a file of *size* bytes called *name* is, whose blocks have these *hashes* (None: unreadable).

    State, volume, the blocks that are bad, and why in words. What it holds counts before what it is called.
    """
    places: dict[tuple[int, bytes], list[int]] = {}
    for one in descriptor.volumes:
        for index, block in enumerate(one.blocks):
            places.setdefault((index, block), []).append(one.n)
    found: Counter[int] = Counter()
    for index, digest in enumerate(hashes):
        if digest is not None:
            found.update(places.get((index, digest), ()))
    named = next((one for one in descriptor.volumes if one.name == name), None)
    alike = [one for one in descriptor.volumes if found[one.n]]
    best = max(alike, key=lambda one: (found[one.n], one is named, one.size == size), default=named)
    if best is None:
        if hashes and None in hashes:
            return State.UNCHECKED, None, (), "what could be read of it is of no volume"
        return State.FOREIGN, None, (), "none of its blocks is one of the set"
    right = {i for i, digest in enumerate(best.blocks) if i < len(hashes) and hashes[i] == digest}
    bad = tuple(i for i in range(len(best.blocks)) if i not in right)
    whole = size // descriptor.block_size
    # A single block that is wrong may be damage as well; several are not all wrong by chance.
    several = len(hashes) > 1 if size >= best.size else whole > 0
    if not right and several and None not in hashes and not _blank(descriptor, hashes[:whole]):
        return State.FOREIGN, None, (), "it has the name of a volume, and none of the bytes"
    if size < best.size:
        return State.SHORT, best, bad, f"has {size} of {best.size} bytes"
    if size > best.size:
        return State.DAMAGED, best, bad, f"has {size - best.size} bytes too many"
    return (State.DAMAGED if bad else State.GOOD), best, bad, ""


def _blank(descriptor: Descriptor, hashes: Sequence[bytes | None]) -> bool:
    """Whether whole blocks are what a medium without anything on it gives: zeros, or ones."""
    blank = set()
    for byte in (b"\0", b"\xff"):
        hasher = blake3_hasher()
        hasher.update(memoryview(byte * descriptor.block_size))
        blank.add(bytes.fromhex(hasher.hexdigest()))
    return bool(hashes) and set(hashes) <= blank


def look(
    path: Path,
    sets: Sequence[Descriptor],
    *,
    sha256: bool = False,
    read_back: bool = False,
    report: Report = silent,
) -> Looked:
    """Read the file at *path*, and say which volume of which of *sets* it is, and how good it is.

    Raises what keeps it from being opened; a medium that is gone is UNCHECKED. With *sha256*, a volume that
    is good so far is read again, and held against its SHA-256. With *read_back*, what memory keeps of it is
    dropped first.
    """
    fd = open_path(path)
    try:
        memory = forget(fd) if read_back else ""
        size = os.fstat(fd).st_size
        hashes: dict[int, list[bytes | None]] = {}
        try:
            for block in dict.fromkeys(one.block_size for one in sets):
                # No more than the largest volume and a block: what follows is no part of any.
                due = max(v.size for one in sets if one.block_size == block for v in one.volumes)
                hashes[block] = _hashes(fd, min(size, due + block), block, path, report)
        except Unchecked as error:
            volume = next((v for one in sets for v in one.volumes if v.name == path.name), None)
            return Looked(path, State.UNCHECKED, volume, why=error.what, memory=memory)
        each = [_looked(path, fd, one, hashes[one.block_size], size) for one in sets]
        found, descriptor = max(zip(each, sets, strict=True), key=lambda one: _rank(one[0]))
        if sha256 and found.state is State.GOOD and found.volume is not None:
            found = _sha256(fd, found, descriptor, report)
        return replace(found, memory=memory, read=size)
    finally:
        os.close(fd)


def _hashes(fd: int, size: int, block: int, where: Path, report: Report) -> list[bytes | None]:
    found: dict[int, bytes | None] = {}

    def take(index: int, digest: bytes | None, _data: memoryview) -> None:
        found[index] = digest

    hash_blocks(fd, size, block, take, where, hands=cores(), moved=lambda count: report(Moved(count)))
    return [found[index] for index in sorted(found)]


def _rank(one: Looked) -> tuple[bool, bool, int]:
    right = len(one.volume.blocks) - len(one.bad) if one.volume is not None else 0
    return one.state is State.GOOD, one.volume is not None, right


def _looked(path: Path, fd: int, descriptor: Descriptor, hashes: list[bytes | None], size: int) -> Looked:
    named = next((one for one in descriptor.volumes if one.name == path.name), None)
    last = len(named.blocks) - 1 if named is not None else 0
    if named is not None and size > named.size and last < len(hashes):
        begin = last * descriptor.block_size  # its last block may be right but for what follows
        hasher = blake3_hasher()
        with contextlib.suppress(ModelpackError):
            hasher.update(memoryview(read_at(fd, named.size - begin, begin, path)))
        if bytes.fromhex(hasher.hexdigest()) == named.blocks[last]:
            hashes = [*hashes[:last], named.blocks[last]]
    state, volume, bad, why = judge(descriptor, hashes, size, path.name)
    unread = tuple(i for i in bad if i < len(hashes) and hashes[i] is None)
    models = touched(descriptor, volume, bad) if volume is not None else ()
    return Looked(path, state, volume, bad, unread, models, why)


def touched(descriptor: Descriptor, volume: Volume, blocks: Sequence[int]) -> tuple[str, ...]:
    """Whose bytes lie in *blocks* of *volume*: models, `documents` (which all of them need), attachments."""
    bad = sorted(blocks)
    found: dict[str, None] = {}
    for one in descriptor.touched(volume.offset, volume.size):  # each is looked for once, not for each block
        first = max(one.offset - volume.offset, 0) // descriptor.block_size
        last = (one.offset + one.size - 1 - volume.offset) // descriptor.block_size
        at = bisect_left(bad, first)
        if one.size and at < len(bad) and bad[at] <= last:
            found[one.name] = None
    return tuple(found)


def _sha256(fd: int, found: Looked, descriptor: Descriptor, report: Report) -> Looked:
    volume = found.volume
    assert volume is not None  # noqa: S101 - a good one has it
    report(Stage("checking", volume.size))
    with FileReader(os.dup(fd), 0, volume.size, found.path) as reader:
        hashes = pour(Counted(reader, lambda count: report(Moved(count))), volume.size)
    if hashes.sha256 == volume.sha256:
        return found
    every = tuple(range(len(volume.blocks)))
    why = f"its BLAKE3 is right and its SHA-256 is not: {descriptor.name} is wrong"
    return Looked(found.path, State.DAMAGED, volume, every, (), touched(descriptor, volume, every), why)
