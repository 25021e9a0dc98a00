"""Links in somebody else's folder: followed inside it, and no further."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from modelpack.errors import NotFound, Refused, from_os
from modelpack.hands.disk import kind_of


def within(path: Path, folder: Path) -> Path:
    """The real path of *path*, a file or directory that was named inside *folder*, every link followed.

    How *folder* itself is reached is the user's own affair. A link out of it is Refused: nobody's model shall
    make us carry /etc/shadow to another machine. One place outside is allowed: a snapshot in Hugging Face's
    cache, `models--ORG--NAME/snapshots/REV`, is made of links into `models--ORG--NAME/blobs/`.
    Raises NotFound (nothing there, a link that leads nowhere), Refused (out of the folder, a loop, a FIFO,
    device or socket), Local.

    What is true now need not be true when the file is opened: where others may write to *folder*, they can
    put a link on the way meanwhile.
    """
    root, real = _real(folder), _real(path)
    if not real.is_relative_to(root) and _blobs_beside(root) not in real.parents:
        raise Refused(
            f"lies outside {folder}: it is really {real}",
            where=path,
            advice=f"No link is followed out of a model's folder. If it is meant, name {real} itself, "
            "or put the file there in place of the link.",
        )
    try:
        mode = real.stat().st_mode
    except OSError as error:
        raise from_os(error, path) from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise Refused(f"is {kind_of(mode)}, not a plain file", where=path)
    return real


def _real(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path, strict=True))
    except ValueError:  # NUL, or what the file system cannot encode
        raise Refused("holds characters that no path can hold", where=path) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            advice = "Put the real file in place of the link."
            raise Refused("is a link that leads back to itself", where=path, advice=advice) from None
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise from_os(error, path) from error
        if path.is_symlink():
            raise NotFound(
                f"is a link that leads nowhere: {os.readlink(path)}",
                where=path,
                advice="Was the download finished, or the folder copied without what its links lead to?",
            ) from None
        raise NotFound("no such file or directory", where=path) from None


def _blobs_beside(folder: Path) -> Path | None:
    """Where Hugging Face's cache keeps the files of the snapshot that *folder* is, or is in."""
    parts = folder.parts
    for place in range(len(parts) - 3, 0, -1):
        if parts[place].startswith("models--") and parts[place + 1] == "snapshots":
            return Path(*parts[: place + 1], "blobs")
    return None
