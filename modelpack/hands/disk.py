"""Directories held open, files that appear whole or not at all.

Every name is looked up relative to an opened directory and no symbolic link is followed, so that what was
checked is what is used, even where somebody else writes beside us. Windows has no such calls: there the same
steps go by path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from pathlib import Path
from typing import Self

from modelpack.errors import Corrupt, NotFound, Refused, from_os
from modelpack.hands import system
from modelpack.words.text import size as shown_size

WINDOWS = sys.platform == "win32"
_BINARY: int = getattr(os, "O_BINARY", 0)
_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK: int = getattr(os, "O_NONBLOCK", 0)  # a FIFO must not hold us before we see that it is one
_DIRECTORY: int = getattr(os, "O_DIRECTORY", 0)
_CLOEXEC: int = getattr(os, "O_CLOEXEC", 0)


class Folder:
    """A directory held open. Every method takes one plain name, never a path."""

    def __init__(self, path: Path, fd: int | None) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def at(cls, path: Path, *, create: bool = False) -> Folder:
        """Open the directory at *path*; links on the way there are the user's own. NotFound, Local."""
        try:
            if create:
                path.mkdir(parents=True, exist_ok=True)
            if WINDOWS:
                if not path.is_dir():
                    raise NotFound("no such directory", where=path)
                return cls(path, None)
            return cls(path, os.open(path, os.O_RDONLY | _DIRECTORY | _CLOEXEC))
        except (NotADirectoryError, FileExistsError):  # the latter where one is to be made
            raise Refused("is not a directory", where=path) from None
        except OSError as error:
            raise from_os(error, path) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the directory go."""
        if self._fd is not None and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1  # not None: that would mean a system where names go by path

    def _at(self, name: str) -> str:
        if not name or name in (".", "..") or "/" in name or "\0" in name or (WINDOWS and "\\" in name):
            raise Refused(f"{name!r} is not the name of a file", where=self.path)
        return name if self._fd is not None else str(self.path / name)

    def names(self) -> list[str]:
        """What lies here, sorted by bytes."""
        try:
            return sorted(os.listdir(self.path if self._fd is None else self._fd))
        except OSError as error:
            raise from_os(error, self.path) from error

    def stat(self, name: str) -> os.stat_result | None:
        """What *name* is, links not followed; None where there is nothing."""
        try:
            return os.stat(self._at(name), dir_fd=self._fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise from_os(error, self.path / name) from error

    def own_stat(self) -> os.stat_result:
        """The directory's own facts: owner, mode, device."""
        return os.stat(self.path) if self._fd is None else os.fstat(self._fd)

    def file_size(self, name: str) -> int | None:
        """Bytes of the regular file *name*; None where nothing is; Refused where it is something else."""
        found = self.stat(name)
        if found is None:
            return None
        if not stat.S_ISREG(found.st_mode):
            raise Refused(f"is {kind_of(found.st_mode)}, not a plain file", where=self.path / name)
        return found.st_size

    def folder(self, name: str, *, create: bool = False, like: os.stat_result | None = None) -> Folder:
        """The directory *name* here, made where it is missing (owner and mode as in *like*); never a link."""
        where = self.path / name
        while True:
            try:
                if self._fd is None:
                    if os.path.lexists(where) and (where.is_symlink() or not where.is_dir()):
                        raise NotADirectoryError(errno.ENOTDIR, "not a directory")
                    if not where.is_dir():
                        raise FileNotFoundError(errno.ENOENT, "no such directory")
                    return Folder(where, None)
                flags = os.O_RDONLY | _DIRECTORY | _NOFOLLOW | _CLOEXEC
                return Folder(where, os.open(self._at(name), flags, dir_fd=self._fd))
            except FileNotFoundError as error:
                if not create:
                    raise from_os(error, where) from error
            except OSError as error:
                if error.errno == errno.ENOTDIR:  # what Linux says of a link here, too
                    found = self.stat(name)
                    kind = kind_of(found.st_mode) if found else "gone"
                    raise Refused(
                        f"is {kind}, not a directory", where=where, advice="modelpack follows no link there."
                    ) from None
                raise from_os(error, where) from error
            self._make(name, like)

    def _make(self, name: str, like: os.stat_result | None) -> None:
        try:
            os.mkdir(self._at(name), dir_fd=self._fd)
        except FileExistsError:
            return
        except OSError as error:
            raise from_os(error, self.path / name) from error
        if like is not None and self._fd is not None:
            # Somebody may remove it meanwhile: whoever wanted it makes it again.
            with contextlib.suppress(NotFound), self.folder(name) as made:
                system.give(made._fd or -1, like, directory=True)

    def open_file(self, name: str, *, write: bool = False) -> int:
        """A descriptor on the plain file *name*, to read (or *write*, too).

        NotFound, Refused (link, FIFO, device), Local.
        """
        return _open_plain(self._at(name), self._fd, _NOFOLLOW, self.path / name, write=write)

    def read(self, name: str, limit: int) -> bytes:
        """All of the small file *name*; raises Corrupt where it has more than *limit* bytes."""
        fd = self.open_file(name)
        try:
            if os.fstat(fd).st_size > limit:
                raise Corrupt(f"is larger than {shown_size(limit)}; no real one is", where=self.path / name)
            with open(fd, "rb", closefd=False) as file:
                return file.read(limit + 1)[:limit]
        except OSError as error:
            raise from_os(error, self.path / name) from error
        finally:
            os.close(fd)

    def create(self, name: str, mode: int = 0o600) -> int:
        """A descriptor on the new file *name*, for writing and reading; Refused where the name is taken."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY | _NOFOLLOW | _CLOEXEC
        try:
            return os.open(self._at(name), flags, mode, dir_fd=self._fd)
        except FileExistsError:
            raise Refused("exists already", where=self.path / name) from None
        except OSError as error:
            raise from_os(error, self.path / name) from error

    def rename(self, name: str, into: Folder, new: str, *, replace: bool = True) -> None:
        """Give the file *name* the name *new* in *into*; without *replace*, Refused where that is taken."""
        try:
            if replace:
                os.replace(self._at(name), into._at(new), src_dir_fd=self._fd, dst_dir_fd=into._fd)
                return
            try:
                os.link(self._at(name), into._at(new), src_dir_fd=self._fd, dst_dir_fd=into._fd)
                self.remove(name)
            except FileExistsError:
                raise Refused("appeared meanwhile", where=into.path / new) from None
            except OSError as error:  # FAT and exFAT have no links: look, then rename
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES):
                    raise
                if into.stat(new) is not None:
                    raise Refused("appeared meanwhile", where=into.path / new) from None
                os.replace(self._at(name), into._at(new), src_dir_fd=self._fd, dst_dir_fd=into._fd)
        except OSError as error:
            raise from_os(error, into.path / new) from error

    def link(self, name: str, into: Folder, new: str) -> None:
        """Give *name* a second name, *new* in *into*; Refused where that is taken.

        Nobody finds the first one missing meanwhile; but where the file system has no links, it moves.
        """
        try:
            os.link(
                self._at(name),
                into._at(new),
                src_dir_fd=self._fd,
                dst_dir_fd=into._fd,
                follow_symlinks=os.link not in os.supports_follow_symlinks,
            )
        except FileExistsError:
            raise Refused("exists already", where=into.path / new) from None
        except OSError:
            self.rename(name, into, new, replace=False)

    def remove(self, name: str) -> None:
        """Remove the file or the empty directory *name*, where there is one."""
        try:
            found = self.stat(name)
            if found is not None and stat.S_ISDIR(found.st_mode):
                os.rmdir(self._at(name), dir_fd=self._fd)
            elif found is not None:
                os.unlink(self._at(name), dir_fd=self._fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise from_os(error, self.path / name) from error

    def touch(self, name: str) -> None:
        """Give *name* the present time, where the rights allow it."""
        follows = os.utime not in os.supports_follow_symlinks  # Windows cannot do otherwise
        with contextlib.suppress(OSError):
            os.utime(self._at(name), dir_fd=self._fd, follow_symlinks=follows)

    def sync(self) -> None:
        """Wait until the names here are on the medium."""
        if self._fd is not None:
            with contextlib.suppress(
                OSError
            ):  # some network file systems cannot; then there is nothing to do
                os.fsync(self._fd)

    def lock(self) -> None:
        """Wait for, and hold until close, the lock that everybody takes who changes this directory."""
        if self._fd is not None:
            system.lock(self._fd, wait=True)

    def room(self) -> int | None:
        """Bytes that may still be written here; None where the system does not tell."""
        return system.free_space(self.path, self._fd)


def open_path(path: Path) -> int:
    """A descriptor on the plain file that the user named, links followed; errors as of `Folder.open_file`."""
    return _open_plain(str(path), None, 0, path)


def _open_plain(name: str, dir_fd: int | None, nofollow: int, where: Path, *, write: bool = False) -> int:
    mode = os.O_RDWR if write else os.O_RDONLY
    try:
        fd = os.open(name, mode | _BINARY | _NONBLOCK | _CLOEXEC | nofollow, dir_fd=dir_fd)
    except OSError as error:
        raise from_os(error, where) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        kind = kind_of(os.fstat(fd).st_mode)
        os.close(fd)
        raise Refused(f"is {kind}, not a plain file", where=where)
    return fd


def kind_of(mode: int) -> str:
    """What a file of this mode is called."""
    for test, word in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if test(mode):
            return word
    return "a plain file"
