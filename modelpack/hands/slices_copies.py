"""Which files in which folders are volumes of a set: by name, or by what they begin with."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelpack.errors import ModelpackError, from_os
from modelpack.hands import system
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import blake3_hasher
from modelpack.words.blob import MIB
from modelpack.words.volume import Volume

_PIECE = MIB
_MOST_FILES = 10_000
"""Files of a folder that are looked at, to find volumes that were renamed."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A file that is taken for the volume *n*: by its name, or (renamed) by its size and its first block."""

    n: int
    folder: Path
    name: str
    size: int
    renamed: bool = False

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.folder / self.name

    def open(self) -> int:
        """A descriptor on it, for reading; Refused where it is a link by now."""
        with Folder.at(self.folder) as folder:
            return folder.open_file(self.name)


def find_copies(volumes: Sequence[Volume], folders: Iterable[Path]) -> dict[int, list[Copy]]:
    """The files in *folders* that are called as one of *volumes*, by number; those of the right size first.

    What their bytes are, nobody has looked. NotFound or Local where a folder cannot be read.
    """
    found: dict[int, list[Copy]] = {volume.n: [] for volume in volumes}
    for path in folders:
        with Folder.at(path) as folder:
            for volume in volumes:
                size = _plain_size(folder, volume.name)
                if size is not None:
                    found[volume.n].append(Copy(volume.n, path, volume.name, size))
    for volume in volumes:
        found[volume.n].sort(key=lambda copy: copy.size != volume.size)
    return found


def find_renamed(
    volumes: Sequence[Volume], folders: Iterable[Path], block_size: int
) -> dict[int, list[Copy]]:
    """Files under any other name than their own whose size and first block are those of one of *volumes*."""
    found: dict[int, list[Copy]] = {volume.n: [] for volume in volumes}
    sizes = {volume.size for volume in volumes}
    for path in folders:
        with Folder.at(path) as folder:
            for name in folder.names()[:_MOST_FILES]:
                size = _plain_size(folder, name)
                if size not in sizes or size is None:
                    continue
                try:
                    fd = folder.open_file(name)
                    try:
                        first = block_hash(fd, 0, min(block_size, size), path / name)
                    finally:
                        os.close(fd)
                except ModelpackError:  # somebody else's file, or a bad sector: not for us
                    continue
                for volume in volumes:
                    if (volume.size, volume.blocks[0]) == (size, first) and volume.name != name:
                        found[volume.n].append(Copy(volume.n, path, name, size, renamed=True))
    return found


def _plain_size(folder: Folder, name: str) -> int | None:
    try:
        return folder.file_size(name)
    except ModelpackError:
        return None


def block_hash(fd: int, offset: int, size: int, where: Path) -> bytes | None:
    """The BLAKE3 of *size* bytes at *offset*; None where the file ends before. Memory: a MiB."""
    hasher = blake3_hasher()
    piece = memoryview(bytearray(min(_PIECE, size)))
    done = 0
    while done < size:
        try:
            came = system.read_into(fd, piece[: size - done], offset + done)
        except OSError as error:
            raise from_os(error, where) from error
        if came == 0:
            return None
        hasher.update(piece[:came])
        done += came
    return bytes.fromhex(hasher.hexdigest())


def need_of(volumes: Iterable[int]) -> str:
    """`need: 3, 7`: a line to read out on the telephone."""
    return "need: " + ", ".join(str(n) for n in sorted(volumes))
