"""The bytes of a tar that lies in volumes, in one or several folders: checked block by block as they come.

A block that is damaged in one copy of its volume is taken from another. Nothing is joined on disk.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self

from modelpack.errors import Corrupt, ModelpackError, NotFound, from_os
from modelpack.hands import system
from modelpack.hands.bytes import read_at
from modelpack.hands.hashing import Hasher, blake3_hasher
from modelpack.hands.slices_copies import Copy, block_hash, find_copies, find_renamed, need_of
from modelpack.words.blob import MIB
from modelpack.words.volume import Volume

_PIECE = MIB  # what is hashed right after it was read is still in the core's cache


class Joined:
    """The tar in *volumes*, all but the last of one size, from copies of them in *folders*.

    Blocks have *block_size* bytes. *whose* says in words what some bytes (offset, length) of the tar belong
    to. For several threads.
    """

    def __init__(
        self,
        volumes: Sequence[Volume],
        block_size: int,
        folders: Sequence[Path],
        whose: Callable[[int, int], str] = lambda _offset, _length: "",
    ) -> None:
        self.volumes, self.block_size, self.folders = volumes, block_size, folders
        self.size = sum(volume.size for volume in volumes)
        self._volume_size = volumes[0].size
        self._whose = whose
        self._copies = find_copies(volumes, folders)
        self._renamed: dict[int, list[Copy]] | None = None
        self._lock = threading.Lock()
        self.spare: set[tuple[int, str]] = set()
        """Blocks that had to be taken from another copy: the volume's number, and where it is bad."""

    def need(self) -> list[int]:
        """Numbers of volumes of which there is no copy, short ones not among them; sorted."""
        lacking = [volume for volume in self.volumes if not self._whole(self._copies[volume.n], volume)]
        renamed = self.renamed() if lacking else {}
        return [volume.n for volume in lacking if not self._whole(renamed[volume.n], volume)]

    @staticmethod
    def _whole(copies: Sequence[Copy], volume: Volume) -> bool:
        # Two that were cut have no block more than the longer one.
        return any(copy.size >= volume.size for copy in copies)

    def renamed(self) -> dict[int, list[Copy]]:
        """Copies under other names; looked for once, where those by name do not do."""
        with self._lock:
            if self._renamed is None:
                self._renamed = find_renamed(self.volumes, self.folders, self.block_size)
            return self._renamed

    def complete(self) -> None:
        """Raise NotFound with `need: 3, 7` where volumes are missing."""
        if lacking := self.need():
            count = "1 volume is" if len(lacking) == 1 else f"{len(lacking)} volumes are"
            raise NotFound(
                f"{count} missing or cut; {need_of(lacking)}",
                where=", ".join(map(str, self.folders)),
                advice="Bring them: `gather DIR… --into SET` puts them together, or name each folder that "
                "holds some by --also (load, plan, verify).",
            )

    def open(self, offset: int, size: int) -> JoinedReader:
        """A reader of *size* bytes from *offset* on; every byte that it gives was checked."""
        return JoinedReader(self, offset, size)

    def unchecked(self, count: int, offset: int) -> bytes:
        """Up to *count* bytes at *offset*, a few, which nobody checks; fewer where they cannot be had."""
        got = b""
        while len(got) < count and offset + len(got) < self.size:
            index, at = divmod(offset + len(got), self._volume_size)
            volume = self.volumes[index]
            try:
                copy = self._copies[volume.n][0]
                fd = copy.open()
            except (IndexError, ModelpackError):
                break
            try:
                piece = read_at(fd, min(count - len(got), volume.size - at), at, copy.path)
            except ModelpackError:
                break
            finally:
                os.close(fd)
            if not piece:
                break
            got += piece
        return got

    def good(self, block: int, tried: _Held) -> None:
        """Put a copy into *tried* whose *block* (a number within the tar) is right.

        Corrupt where every copy of it is damaged; what the medium says (Local) where one could not be read;
        NotFound where there is none.
        """
        volume, at, size = self.place(block)
        right = volume.blocks[at // self.block_size]
        failed: ModelpackError | None = None
        bad: list[str] = []
        for copy in self._of(volume.n, tried):
            try:
                found = block_hash(tried.take(copy), at, size, copy.path)
            except ModelpackError as error:
                failed = error
                bad.append(str(copy.path))
                tried.drop()
                continue
            if found == right:
                with self._lock:
                    self.spare.update((volume.n, one) for one in bad)
                return
            bad.append(str(copy.path))
            tried.drop()
        if not bad:
            raise NotFound(f"volume {volume.n} is missing; {need_of([volume.n])}", where=volume.name)
        if failed is not None:
            raise failed
        raise self.damaged(block, bad)

    def place(self, block: int) -> tuple[Volume, int, int]:
        """The volume of *block* (a number within the tar), where in it the block begins, and its bytes."""
        index, at = divmod(block * self.block_size, self._volume_size)
        volume = self.volumes[index]
        return volume, at, min(self.block_size, volume.size - at)

    def lone(self, n: int) -> bool:
        """Whether there is but one copy of the volume *n*."""
        return len(self._copies[n]) + len(self.renamed()[n]) == 1

    def damaged(self, block: int, bad: Sequence[str]) -> Corrupt:
        """What to say of *block*, which is damaged in all copies: those at the paths *bad*."""
        volume, at, size = self.place(block)
        belongs = self._whose(volume.offset + at, size)
        return Corrupt(
            f"volume {volume.n} is damaged: its block {at // self.block_size} ({size} bytes at {at})"
            + (f", which belongs to {belongs}" if belongs else "")
            + ("" if len(bad) == 1 else f", in all {len(bad)} copies"),
            where=bad[0],
            advice=f"Bring another copy of it, or make it again: pack --only {volume.n}. "
            f"{need_of([volume.n])}",
        )

    def _of(self, n: int, tried: _Held) -> Iterable[Copy]:
        """Copies of the volume *n*: the one at hand, by name, then renamed ones."""
        first = tried.copy if tried.copy is not None and tried.copy.n == n else None
        if first is not None:
            yield first
        for copy in self._copies[n]:
            if copy != first:
                yield copy
        yield from (copy for copy in self.renamed()[n] if copy != first)


class _Held:
    """The file that a reader has open."""

    def __init__(self) -> None:
        self.copy: Copy | None = None
        self.fd = -1

    def take(self, copy: Copy) -> int:
        """A descriptor on *copy*."""
        if self.copy != copy:
            self.drop()
            self.fd = copy.open()
            self.copy = copy
            system.expect_sequential(self.fd, 0, 0)  # all of it
        return self.fd

    def drop(self) -> None:
        """Close it."""
        if self.fd >= 0:
            os.close(self.fd)
        self.copy, self.fd = None, -1


class JoinedReader:
    """*size* bytes at *offset* of a `Joined`, as Reader says.

    A block is read to be checked and then read to be given, the second time out of the page cache: so it
    takes no memory here. Where there is but one copy, it is hashed while it is given: no other could serve in
    its stead. Whoever keeps the bytes checks the blob's digest, as with every reader.
    """

    def __init__(self, joined: Joined, offset: int, size: int) -> None:
        self._joined, self._offset, self.size = joined, offset, size
        self._end = offset + size
        self._held = _Held()
        self._block = -1
        self._hasher: Hasher | None = None

    def readinto(self, into: memoryview, /) -> int:
        """As Reader says; Corrupt where a block is damaged in every copy, NotFound, Local."""
        joined = self._joined
        block, within = divmod(self._offset, joined.block_size)
        want = min(len(into), self._end - self._offset, joined.block_size - within)
        if want <= 0:
            return 0
        if block != self._block:
            self._begin(block, within)
        copy = self._held.copy
        if copy is None:
            raise ValueError("the reader was closed")
        at = self._offset - joined.volumes[copy.n - 1].offset
        if self._hasher is not None:
            want = min(want, _PIECE)
        try:
            count = system.read_into(self._held.fd, into[:want], at)
        except OSError as error:
            raise from_os(error, copy.path) from error
        if count == 0:
            raise Corrupt("was cut while it was read", where=copy.path)
        if self._hasher is not None:
            self._hasher.update(into[:count])
            self._settle(block, within + count, copy)
        self._offset += count
        return count

    def _begin(self, block: int, within: int) -> None:
        """Find a copy to read *block* from."""
        joined, held = self._joined, self._held
        volume, _, size = joined.place(block)
        whole = within == 0 and self._end - self._offset >= size
        # What is called as a volume may be something else: the first block of it is always checked first.
        if whole and held.copy is not None and held.copy.n == volume.n and joined.lone(volume.n):
            self._hasher = blake3_hasher()
        else:
            self._hasher = None
            joined.good(block, held)
        self._block = block

    def _settle(self, block: int, done: int, copy: Copy) -> None:
        volume, at, size = self._joined.place(block)
        if self._hasher is not None and done == size:
            right = volume.blocks[at // self._joined.block_size]
            if bytes.fromhex(self._hasher.hexdigest()) != right:
                raise self._joined.damaged(block, [str(copy.path)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.drop()
