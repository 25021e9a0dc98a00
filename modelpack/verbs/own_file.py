"""JSON files that modelpack writes among the user's own: it replaces only what it wrote itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modelpack.errors import Corrupt, Refused, Unsupported
from modelpack.hands.disk import Folder
from modelpack.hands.scratch import Scratch


@dataclass(frozen=True)
class OwnFile:
    """A kind of such files: what it is called (`word`, as in "receipt") and what tells that a file is one.

    `parse` raises Corrupt or Unsupported for whatever is none, or one that was damaged; `limit` is the most
    bytes of one. Everybody may read a `public` one, whatever the umask says.
    """

    word: str
    limit: int
    parse: Callable[[bytes, object], object]
    public: bool = False

    def check(self, path: Path) -> None:
        """Raise what `write` would, before anything else is done.

        NotFound where there is no such directory, Refused where something else has the name.
        """
        with Folder.at(path.parent) as folder:
            self._is_there(folder, path.name)

    def write(self, path: Path, raw: bytes) -> None:
        """Write *raw* to *path*, whole or not at all; only a file of this kind is replaced, else Refused.

        Corrupt where *raw* is none itself: what is written can be read again.
        """
        self.parse(raw, path)
        with Folder.at(path.parent) as folder:
            there = self._is_there(folder, path.name)
            scratch = Scratch(folder, f".{self.word}.modelpack-", 0o644 if self.public else 0o666)
            scratch.sweep()
            with scratch.new(len(raw)) as file:
                file.writer.write_at(memoryview(raw), 0)
                if self.public and sys.platform != "win32":
                    os.fchmod(file.fd, 0o644)
                file.appear(folder, path.name, replace=there)

    def _is_there(self, folder: Folder, name: str) -> bool:
        """Whether *name* is of this kind; False where there is nothing, Refused where there is another."""
        if folder.file_size(name) is None:
            return False
        where = folder.path / name
        try:
            self.parse(folder.read(name, self.limit), where)
        except (Corrupt, Unsupported):
            raise Refused(
                f"is there already, and is no {self.word} that this modelpack wrote",
                where=where,
                advice=f"Name another file for the {self.word}.",
            ) from None
        return True
