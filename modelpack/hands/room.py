"""How much a file system takes: in all, in one file, and under which names."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelpack.errors import ModelpackError
from modelpack.hands import system
from modelpack.hands.disk import WINDOWS, Folder
from modelpack.hands.scratch import FAT32_LARGEST, SCRATCH, Scratch

_MOUNTS = Path("/proc/self/mountinfo")
_MOST = 4 << 20  # bytes of the table of mounts that are looked at
_FAT = frozenset({"msdos", "vfat"})
_NARROW = _FAT | {"exfat", "ntfs", "ntfs3", "fuseblk", "cifs", "smb3"}
"""Linux's words for file systems that take Windows's names only. Under `fuseblk` stands ntfs-3g, or exFAT."""


@dataclass(frozen=True)
class Room:
    """Of one file system, in bytes: what is `free` to this user, the `largest` file; None where not known.

    `kept` is what an earlier run left there of the same blobs. `narrow`: names are those that Windows takes.
    """

    free: int | None
    largest: int | None
    kept: int
    narrow: bool


def room_at(path: Path, todo: Mapping[str, int]) -> Room:
    """The file system of the store at *path*, which need not be there yet, for the blobs *todo*.

    *todo*: bytes by the keys of `hands.kept`. Raises Local, and Refused where a file is in the way.
    """
    place = path.absolute()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    with Folder.at(place) as folder:
        kind = _kind_of(folder.own_stat().st_dev)
        limits = [system.largest_file(), FAT32_LARGEST if kind in _FAT else None]
        return Room(
            free=folder.room(),
            largest=min((one for one in limits if one is not None), default=None),
            kept=_kept(folder, todo) if place == path.absolute() else 0,
            narrow=WINDOWS or kind in _NARROW,
        )


def _kept(root: Folder, todo: Mapping[str, int]) -> int:
    try:
        with root.folder(SCRATCH) as there:
            return Scratch(there).kept(todo)
    except ModelpackError:  # nothing is there, or nothing of ours
        return 0


def _kind_of(device: int) -> str:
    """Linux's word for the file system of *device*; empty elsewhere, and where it is not told."""
    if sys.platform == "linux":
        number = f"{os.major(device)}:{os.minor(device)}"
        with contextlib.suppress(OSError), _MOUNTS.open(encoding="utf-8", errors="replace") as file:
            # id, parent, major:minor, root, mount point, options, optional fields, "-", type, source, options
            for line in file.read(_MOST).splitlines():
                before, _, after = line.partition(" - ")
                if before.split(" ")[2:3] == [number]:
                    return after.split(" ")[0]
    return ""
