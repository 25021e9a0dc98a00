"""New files that appear whole or not at all, and leave nothing behind for long."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from modelpack.errors import Local, ModelpackError, NotFound, Refused, Unreachable, from_os
from modelpack.hands import system
from modelpack.hands.disk import WINDOWS, Folder
from modelpack.hands.writeback import Writer
from modelpack.words.blob import GIB, MIB
from modelpack.words.text import size as shown_size

FAT32_LARGEST = 4 * GIB - 1
_PART, _KEPT = "part-", "kept-"
_WEEK = 7 * 24 * 3600  # seconds that what a broken run left waits for the next


SCRATCH = ".modelpack"
"""The directory of unfinished files in a store: beside what counts, where nobody else looks.

In the blobs/ of a models directory Ollama prunes files with other names at start-up; in manifests/ one odd
name stops all its pruning.
"""


@contextlib.contextmanager
def workshop(
    root: Folder, todo: Mapping[str, int], *, mode: int = 0o600, like: os.stat_result | None = None
) -> Iterator[Scratch]:
    """Scratch files in a directory of their own in *root*, which goes when nobody works in it any more.

    *todo* are the bytes of each file to come, by the key of its `part`: Local where they cannot fit.
    """
    with contextlib.ExitStack() as stack:

        def again() -> Folder:
            return stack.enter_context(root.folder(SCRATCH, create=True, like=like))

        kept = 0
        with contextlib.suppress(NotFound), root.folder(SCRATCH) as there:
            kept = Scratch(there).kept(todo)
        check_room(root, sum(todo.values()) - kept)
        scratch = Scratch(again(), mode=mode, again=again)
        scratch.sweep()
        try:
            yield scratch
        finally:
            with contextlib.suppress(Local, Refused):  # somebody else works in it, or something is kept
                root.remove(SCRATCH)


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

    def sweep(self, but: str | None = None) -> None:
        """Remove what dead runs left; parts only after a week, or where their key is not *but*."""
        for name in self._folder.names():
            if not name.startswith(self._prefix) or (but and self._is_part(name, but)):
                continue
            with contextlib.suppress(Local, NotFound, Refused):
                if self._is_dead(name, 5 if but or not self._is_part(name) else _WEEK):
                    self._folder.remove(name)

    def _is_part(self, name: str, key: str = "") -> bool:
        return name.startswith((f"{self._prefix}{_KEPT}{key}", f"{self._prefix}{_PART}{key}"))

    def _is_dead(self, name: str, seconds: float) -> bool:
        fd = self._folder.open_file(name)
        try:
            # Made, but not yet locked: a young file is left to its maker.
            return system.lock(fd, wait=False) and time.time() - os.fstat(fd).st_mtime > seconds
        finally:
            os.close(fd)  # Windows removes no file that is open

    @contextlib.contextmanager
    def new(self, size: int) -> Iterator[NewFile]:
        """A new file that will have *size* bytes; removed at the end unless it was named."""
        with self._file(f"{self._prefix}{secrets.token_hex(8)}", size) as file:
            yield file

    @contextlib.contextmanager
    def part(self, key: str, size: int) -> Iterator[NewFile]:
        """The file that a broken run left under *key*, or a new one, for *size* bytes.

        It is removed at the end, unless it was named; or its `keep` is set, and the connection broke, the
        other side said no, or the run ended: then the next one finds it.
        """
        name = f"{self._prefix}{_PART}{key}-{secrets.token_hex(8)}"
        self._take_up(key, name)
        with self._file(name, size, f"{self._prefix}{_KEPT}{key}") as file:
            yield file

    def _take_up(self, key: str, name: str) -> None:
        """Give what is kept under *key* the new *name*: of several runs that try, one does."""
        with contextlib.suppress(NotFound):
            self._folder.rename(f"{self._prefix}{_KEPT}{key}", self._folder, name)
            return
        for one in self._folder.names():
            if self._is_part(one, key):
                with contextlib.suppress(Local, NotFound, Refused):
                    if self._is_dead(one, 5):  # a run that was killed
                        self._folder.rename(one, self._folder, name)
                        return

    @contextlib.contextmanager
    def _file(self, name: str, size: int, kept: str = "") -> Iterator[NewFile]:
        folder, fd, file, keep = self._folder, -1, None, False
        try:  # Ctrl-C may come at any moment: what has this name goes, made or not, unless it got another
            if kept and folder.stat(name) is not None:
                fd = folder.open_file(name, write=True)
                if os.fstat(fd).st_size > size:  # what a source that lies has sent
                    os.ftruncate(fd, size)
                check_room(folder, size - _allocated(os.fstat(fd)))
            else:
                folder, fd = self._create(name)
                make_room(fd, size, folder)
            file = NewFile(folder, name, fd)
            system.lock(fd, wait=False)
            yield file
        except OSError as error:
            raise from_os(error, folder.path) from error
        except BaseException as error:
            keep = bool(kept) and file is not None and file.keep and os.fstat(fd).st_size >= MIB
            keep &= isinstance(error, Unreachable | Refused) or not isinstance(error, ModelpackError)
            raise
        finally:
            if file is not None:
                file.writer.close()
                fd = file.fd
            if fd >= 0:
                os.close(fd)
            if file is None or not file.named:
                with contextlib.suppress(Local, NotFound, Refused):
                    if keep:
                        folder.rename(name, folder, kept)
                    else:
                        folder.remove(name)

    def kept(self, keys: Iterable[str]) -> int:
        """Bytes on the medium that `part` would find under *keys*."""
        wanted = tuple(f"{self._prefix}{kind}{key}" for key in keys if key for kind in (_KEPT, _PART))
        found = (self._folder.stat(name) for name in self._folder.names() if name.startswith(wanted))
        return sum(_allocated(one) for one in found if one is not None)

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
        self.keep = False
        """Whether it stays for the next run where this one breaks."""
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


def _allocated(found: os.stat_result) -> int:
    return int(getattr(found, "st_blocks", 0)) * 512 or found.st_size


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
