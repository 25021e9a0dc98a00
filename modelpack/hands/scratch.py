"""New files that appear whole or not at all, and leave nothing behind for long."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator

from modelpack.errors import Local, NotFound, Refused, from_os
from modelpack.hands import system
from modelpack.hands.disk import WINDOWS, Folder
from modelpack.hands.writeback import Writer
from modelpack.words.blob import GIB
from modelpack.words.text import size as shown_size

FAT32_LARGEST = 4 * GIB - 1


class Scratch:
    """New files under names that nobody takes for real, locked while their maker lives.

    A file that a killed run left behind has no lock any more: the next run here removes it. Where whoever is
    done removes the empty *folder*, *again* opens a new one (and closes it, later).
    """

    def __init__(
        self,
        folder: Folder,
        prefix: str = "modelpack-",
        mode: int = 0o600,
        again: Callable[[], Folder] | None = None,
    ) -> None:
        self._folder = folder
        self._prefix = prefix
        self._mode = mode
        self._again = again
        self._reopening = threading.Lock()

    def sweep(self) -> None:
        """Remove what dead runs left."""
        for name in self._folder.names():
            if not name.startswith(self._prefix):
                continue
            with contextlib.suppress(Local, NotFound, Refused):
                fd = self._folder.open_file(name)
                try:
                    # Made, but not yet locked: a young file is left to its maker.
                    dead = system.lock(fd, wait=False) and time.time() - os.fstat(fd).st_mtime > 5
                finally:
                    os.close(fd)  # Windows removes no file that is open
                if dead:
                    self._folder.remove(name)

    @contextlib.contextmanager
    def new(self, size: int) -> Iterator[NewFile]:
        """A new file that will have *size* bytes; removed at the end unless it was named."""
        name = f"{self._prefix}{secrets.token_hex(8)}"
        folder, file = self._folder, None
        try:  # Ctrl-C may come at any moment: what has this name goes, made or not, unless it got another
            folder, fd = self._create(name)
            file = NewFile(folder, name, fd)
            system.lock(fd, wait=False)
            make_room(fd, size, folder)
            yield file
        except OSError as error:
            raise from_os(error, folder.path) from error
        finally:
            if file is not None:
                file.writer.close()
                os.close(file.fd)
            if file is None or not file.named:
                with contextlib.suppress(Local, NotFound, Refused):
                    folder.remove(name)

    def _create(self, name: str) -> tuple[Folder, int]:
        while True:
            folder = self._folder
            try:
                return folder, folder.create(name, self._mode)
            except NotFound:
                if self._again is None:
                    raise
            with self._reopening:
                if self._folder is folder:  # no other thread was faster
                    self._folder = self._again()


class NewFile:
    """A file that has no name yet that counts."""

    def __init__(self, folder: Folder, name: str, fd: int) -> None:
        self.fd = fd
        self.writer = Writer(fd)
        self.named = False
        self._folder = folder
        self._name = name

    def appear(self, into: Folder, name: str, *, replace: bool = True) -> None:
        """Put every byte on the medium, then give the file its name, then that on the medium."""
        self.writer.finish()
        if WINDOWS:  # an open file cannot be renamed there; its bytes are safe by now
            os.close(self.fd)
            self.fd = os.open(os.devnull, os.O_RDONLY)
        self._folder.rename(self._name, into, name, replace=replace)
        self.named = True
        into.sync()


def check_room(folder: Folder, size: int) -> None:
    """Raise Local before the first byte where *size* bytes cannot fit."""
    room = folder.room()
    if room is not None and size > room:
        raise Local(
            f"{shown_size(size)} are needed there and {shown_size(room)} are free",
            where=folder.path,
            advice="Free some room there, or choose another place.",
        )


def make_room(fd: int, size: int, folder: Folder) -> None:
    """Raise Local before the first byte where *size* bytes cannot fit, or not in one file."""
    check_room(folder, size)
    try:
        limit = system.largest_file()
        if limit is not None and size > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        if size > FAT32_LARGEST:  # only where it may be refused: FAT would write zeros for anything smaller
            os.ftruncate(fd, size)
            os.ftruncate(fd, 0)
    except OSError as error:
        raise from_os(error, folder.path) from error
