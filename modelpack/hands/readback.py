"""The medium, not the memory: bytes put on it for good, and what memory keeps of them dropped.

A stick with less room than it says, or a cable that flips bits, is found only by reading the medium itself;
what was just written comes from memory otherwise.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from modelpack.errors import from_os
from modelpack.hands.disk import WINDOWS, Folder, open_path
from modelpack.words.blob import MIB

_STEP = 16 * MIB  # one byte of each stretch is asked for: more than what the system reads ahead

_TRIES, _PAUSE = 5, 0.02  # seconds: a page that was just written may be held by the kernel for a moment
_HELD = "another program uses it, or it lies in memory alone"


def forget(fd: int) -> str:
    """Have what is read next from the file *fd* come from its medium: empty, or why perhaps it does not.

    Linux: what is dirty is written, then the pages are dropped (posix_fadvise), then a byte here and there is
    asked for without waiting (RWF_NOWAIT, preadv2(2)): what comes at once was still in memory. macOS: this
    descriptor reads past the cache (F_NOCACHE, fcntl(2)). Elsewhere there is no way.
    """
    with contextlib.suppress(OSError):  # a medium that is mounted read-only has nothing to write
        os.fsync(fd)
    if sys.platform == "linux":
        try:
            for _ in range(_TRIES):
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                if (why := _kept(fd)) != _HELD:
                    return why
                time.sleep(_PAUSE)
            return _HELD
        except OSError:
            return "its file system does not let go of what memory has"
    elif sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(fd, fcntl.F_NOCACHE, 1)
        except OSError:
            return "its file system reads through memory only"
        return ""
    else:
        return "this system has no way to read past its memory"


def files_at(path: Path) -> list[Path]:
    """The file at *path*, or all that lie below it."""
    return [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]


def forget_files(paths: Iterable[Path]) -> dict[Path, str]:
    """As `forget`, of files that somebody else will open: those that may come from memory, and why.

    NotFound, Refused or Local where one cannot be opened.
    """
    found: dict[Path, str] = {}
    for path in paths:
        fd = open_path(path)
        try:
            why = forget(fd)
        finally:
            os.close(fd)
        if sys.platform == "darwin":  # it was for that descriptor alone
            why = "this system reads past its memory only where modelpack holds the file open"
        if why:
            found[path] = why
    return found


def _kept(fd: int) -> str:
    """Why memory may still have something of *fd*; empty where it has nothing."""
    now = getattr(os, "RWF_NOWAIT", None)
    if now is None or not hasattr(os, "preadv"):
        return "this system does not say whether memory let go of it"
    size = os.fstat(fd).st_size
    one = bytearray(1)
    # From the end: what the system reads ahead of a byte is behind it.
    for offset in range((size - 1) // _STEP * _STEP, -1, -_STEP) if size else ():
        try:
            if os.preadv(fd, [one], offset, now):
                return _HELD
        except BlockingIOError:
            continue
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                # What tmpfs says: it has no medium but the memory.
                return "its file system lies in memory, or does not say"
            continue  # the medium itself fails: whoever reads it is told
    return ""


def settle(paths: Iterable[Path]) -> None:
    """Wait until the files *paths*, their names and their file systems are on the medium.

    It is safe to remove then. Raises what the medium says where it does not take them: Local, NotFound.
    """
    folders: dict[Path, Path] = {}
    for path in paths:
        with Folder.at(path.parent) as folder:
            # Windows flushes only what is opened for writing.
            fd = folder.open_file(path.name, write=WINDOWS)
        try:
            os.fsync(fd)
        except OSError as error:
            raise from_os(error, path) from error
        finally:
            os.close(fd)
        folders.setdefault(path.parent, path)
    for parent, path in folders.items():
        with Folder.at(parent) as folder:
            folder.sync()
            _sync_all(folder, path)


def _sync_all(folder: Folder, path: Path) -> None:
    """Linux's syncfs of the file system that *path* lies in: FAT keeps its tables apart from the files."""
    if sys.platform == "linux":
        import ctypes

        call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if call is None:
            return
        fd = folder.open_file(path.name)
        try:
            failed = call(ctypes.c_int(fd)) != 0
            number = ctypes.get_errno() if failed else 0
        finally:
            os.close(fd)
        if failed and number not in (errno.ENOSYS, errno.EINVAL, errno.EROFS):
            raise from_os(OSError(number, os.strerror(number)), path.parent)
