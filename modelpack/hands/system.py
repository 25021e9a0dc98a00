"""The few calls that differ between systems. Everything above is the same everywhere."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import threading
from pathlib import Path
from typing import Any

if sys.platform == "win32":
    # A seek and what follows it must not be parted: several threads use one file.
    _seeking = threading.Lock()

    def read_into(fd: int, into: memoryview, offset: int) -> int:
        """Read at *offset*; how many bytes came, 0 at the end."""
        with _seeking:
            os.lseek(fd, offset, os.SEEK_SET)
            return stream_into(fd, into)

    def stream_into(fd: int, into: memoryview) -> int:
        """Read what comes next from a pipe."""
        piece = os.read(fd, len(into))
        into[: len(piece)] = piece
        return len(piece)

    def write_at(fd: int, data: memoryview, offset: int) -> int:
        """Write at *offset*; how many bytes went."""
        with _seeking:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.write(fd, data)

    def free_space(path: Path, _fd: int | None) -> int | None:
        """Bytes that this user may still write there; None where the system does not tell."""
        return shutil.disk_usage(path).free

    def largest_file() -> int | None:
        """Bytes that a file of this process may have; None where there is no limit."""
        return None

    def give(_fd: int, _like: os.stat_result, *, directory: bool) -> bool:
        """Give the file of *fd* owner and mode after the directory *like*; whether the owner could be set."""
        return directory or True

    def lock(_fd: int, *, wait: bool) -> bool:
        """Take the lock of an opened file or directory; False where another holds it (and not *wait*)."""
        return wait or True

    def binary(fd: int) -> int:
        """*fd*, and no line ends are translated on it."""
        import msvcrt

        msvcrt.setmode(fd, os.O_BINARY)
        return fd

    def my_groups() -> frozenset[int]:
        """The groups whose files this process may read."""
        return frozenset()

else:

    def read_into(fd: int, into: memoryview, offset: int) -> int:
        """Read at *offset*; how many bytes came, 0 at the end."""
        return os.preadv(fd, [into], offset)

    def stream_into(fd: int, into: memoryview) -> int:
        """Read what comes next from a pipe."""
        return os.readv(fd, [into])

    def write_at(fd: int, data: memoryview, offset: int) -> int:
        """Write at *offset*; how many bytes went."""
        return os.pwrite(fd, data, offset)

    def free_space(path: Path, fd: int | None) -> int | None:
        """Bytes that this user may still write there; None where the system does not tell."""
        found = os.statvfs(path if fd is None else fd)
        free = found.f_bavail if os.geteuid() else found.f_bfree
        return free * found.f_frsize if found.f_blocks else None

    def largest_file() -> int | None:
        """Bytes that a file of this process may have; None where there is no limit."""
        import resource

        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        return None if limit == resource.RLIM_INFINITY else limit

    def give(fd: int, like: os.stat_result, *, directory: bool) -> bool:
        """Give the file of *fd* owner and mode after the directory *like*; whether the owner could be set."""
        mine = os.fstat(fd)
        owned = (mine.st_uid, mine.st_gid) == (like.st_uid, like.st_gid)
        if not owned:
            try:
                os.fchown(fd, like.st_uid, like.st_gid)
                owned = True
            except OSError:
                with contextlib.suppress(OSError):
                    os.fchown(fd, -1, like.st_gid)
        with contextlib.suppress(OSError):  # file systems without modes
            os.fchmod(fd, stat.S_IMODE(like.st_mode) & (0o7777 if directory else 0o666))
        return owned

    def lock(fd: int, *, wait: bool) -> bool:
        """Take the lock of an opened file or directory; False where another holds it (and not *wait*)."""
        import fcntl

        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError:  # no locks on this file system: go on without, as everybody else there does
            return True
        return True

    def binary(fd: int) -> int:
        """*fd*, and no line ends are translated on it."""
        return fd

    def my_groups() -> frozenset[int]:
        """The groups whose files this process may read."""
        return frozenset((os.getegid(), *os.getgroups()))


def expect_sequential(fd: int, offset: int, size: int) -> None:
    """Tell the system that this stretch will be read once, from front to end."""
    if sys.platform == "linux":
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_SEQUENTIAL)


def expect_soon(fd: int, offset: int, size: int) -> None:
    """Have the system read this stretch ahead, while something else is done."""
    if sys.platform == "linux" and size > 0:
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_WILLNEED)


_found: list[Any] = []


def sync_file_range() -> Any:
    """Linux's call of that name, which Python does not wrap: (fd, offset, count, flags); None elsewhere."""
    if not _found:
        call = None
        if sys.platform == "linux":
            import ctypes

            call = getattr(ctypes.CDLL(None), "sync_file_range", None)
            if call is not None:
                call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
        _found.append(call)
    return _found[0]
