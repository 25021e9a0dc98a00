"""What lies in a models directory besides what its manifests name: every file, its owner and its mode."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from modelpack.errors import ModelpackError
from modelpack.hands.disk import WINDOWS, Folder
from modelpack.hands.scratch import SCRATCH
from modelpack.stores.models_dir_scan import marks as named
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest

Mark = tuple[int, ...]

BAD = "bad"
"""Where `repair` keeps the damaged files that it has replaced: below modelpack's own directory."""

_LEVELS = {"blobs": 1, "manifests": 4, SCRATCH: 3}
"""How deep each directory is looked into: manifests/<host>/<namespace>/<model>/<tag>."""


@dataclass(frozen=True)
class Entry:
    """A file or directory: its path below the models directory, and what the system said of it."""

    parts: tuple[str, ...]
    found: os.stat_result

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.parts[-1]

    @property
    def plain(self) -> bool:
        """Whether it is a plain file."""
        return stat.S_ISREG(self.found.st_mode)

    @property
    def folder(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.found.st_mode)

    @property
    def bytes(self) -> int:
        """What it takes of the medium: a pull's unfinished file has holes (server/download.go)."""
        blocks = getattr(self.found, "st_blocks", None)
        return self.found.st_size if blocks is None else min(self.found.st_size, blocks * 512)


def survey(path: Path) -> list[Entry]:
    """Everything in blobs/, manifests/ and modelpack's own directory; no link is followed.

    What vanishes meanwhile, or may not be looked into, is left out.
    """
    entries: list[Entry] = []
    with contextlib.suppress(ModelpackError), Folder.at(path) as root:
        for name, levels in _LEVELS.items():
            entries += _below(root, (name,), levels)
    return entries


def _below(folder: Folder, parts: tuple[str, ...], levels: int) -> Iterator[Entry]:
    with contextlib.suppress(ModelpackError):
        found = folder.stat(parts[-1])
        if found is None:
            return
        yield Entry(parts, found)
        if levels and stat.S_ISDIR(found.st_mode):
            with folder.folder(parts[-1]) as below:
                for name in below.names():
                    yield from _below(below, (*parts, name), levels - 1)


def marks(path: Path, blobs: Iterable[Blob]) -> dict[Digest, Mark]:
    """For each of *blobs* something that changes where a file of its name does; empty where none is."""
    found: dict[Digest, Mark] = {}
    with contextlib.suppress(ModelpackError), Folder.at(path) as root, root.folder("blobs") as folder:
        for blob in blobs:
            if blob.digest is not None:
                found[blob.digest] = tuple(_mark(folder, (blob.digest.file_name, str(blob.digest))))
    return found


def manifest_marks(path: Path) -> dict[str, Mark]:
    """For each manifest, by its path, something that changes where the file does."""
    with contextlib.suppress(ModelpackError), Folder.at(path) as root, root.folder("manifests") as folder:
        return {str(path.joinpath("manifests", *name.parts)): mark for name, mark in named(folder)}
    return {}


def _mark(folder: Folder, names: Iterable[str]) -> Iterator[int]:
    for name in list(names)[: 1 if WINDOWS else None]:
        with contextlib.suppress(ModelpackError):
            found = folder.stat(name)
            if found is not None:
                yield from (found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode)


class Owner:
    """Whoever owns the models directory: as a rule the user that Ollama runs as."""

    def __init__(self, path: Path) -> None:
        found = os.stat(path)
        self.uid = found.st_uid
        self.name = str(self.uid)
        self._groups = {found.st_gid}
        if sys.platform != "win32":
            import pwd

            with contextlib.suppress(KeyError, OSError):
                known = pwd.getpwuid(self.uid)
                self.name = known.pw_name
                self._groups = set(os.getgrouplist(known.pw_name, known.pw_gid))

    @property
    def is_root(self) -> bool:
        """Whether root owns it: then nothing here tells which user the service is."""
        return not WINDOWS and self.uid == 0

    def may(self, found: os.stat_result, rights: int) -> bool:
        """Whether it has these *rights* (an octal digit: 4 read, 2 write, 1 search) there by its mode."""
        if WINDOWS or self.uid == 0 or stat.S_ISLNK(found.st_mode):
            return True
        if found.st_uid == self.uid:
            rights <<= 6
        elif found.st_gid in self._groups:
            rights <<= 3
        return found.st_mode & rights == rights
