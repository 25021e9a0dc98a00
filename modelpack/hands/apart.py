"""Files that say whom to trust: they must have come by another road than what they vouch for."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from modelpack.errors import ModelpackError, Unchecked, Untrusted
from modelpack.hands.bytes import read_at
from modelpack.hands.disk import open_path

_ADVICE = "Keep it on this machine's own disk, where it came by another road: /etc/modelpack, for instance."


_MOST_LINKS = 40  # what Linux follows


def read_apart(
    path: Path, most: int, what: str, inside: Sequence[Path] = (), beside: Sequence[Path] = ()
) -> bytes:
    """All of the file at *path*, which is *what* for people; at most *most* bytes. Links are followed.

    Unchecked where it cannot be read, is empty or larger; Untrusted where everybody may write to it or to
    its directory, and, of *inside* and *beside*, as of `keep_apart`.
    """
    try:
        fd = open_path(path)
        try:
            found = os.fstat(fd)
            raw = read_at(fd, most + 1, 0, path) if found.st_size <= most else b""
        finally:
            os.close(fd)
        around = [os.stat(one) for one in {path.parent, Path(os.path.realpath(path)).parent}]
    except ModelpackError as error:
        raise Unchecked(f"{what} cannot be read: {error.what}", where=path, advice=error.advice) from None
    except OSError as error:
        raise Unchecked(f"{what} cannot be read: {error.strerror}", where=path) from None
    if not raw or len(raw) > most:
        size = "is empty" if not found.st_size else f"has more than {most} bytes"
        raise Unchecked(f"{what} {size}", where=path)
    open_to_all = any(one.st_mode & stat.S_IWOTH and not one.st_mode & stat.S_ISVTX for one in around)
    if sys.platform != "win32" and (found.st_mode & stat.S_IWOTH or open_to_all):
        raise Untrusted(
            f"everybody may change {what}",
            where=path if found.st_mode & stat.S_IWOTH else path.parent,
            advice="`chmod o-w` it, after a look at what it says.",
        )
    if inside or beside:
        keep_apart(path, what, inside, beside, found)
    return raw


def keep_apart(
    path: Path,
    what: str,
    inside: Sequence[Path],
    beside: Sequence[Path],
    read: os.stat_result | None = None,
) -> None:
    """Raise Untrusted where the file at *path*, *what* for people, may have come with the bundle.

    So it is within a folder of *inside*, wherever that is, or in the very directory of a file of *beside*
    (the tar, its signature); and on the file system of any of these, unless that file system is this
    machine's own: the one of /, /etc, /usr or /var, of the user's home, or of /tmp. Links are followed, and
    where they lie counts as well. Unchecked where nobody can tell, or where it is not what was *read*.
    """
    files = [one for one in beside if os.path.lexists(one)]
    try:
        real = Path(os.path.realpath(path))
        places = list(_places(path))
        found = os.stat(real)
        folders = [Path(os.path.realpath(one)) for one in inside]
        parents = [one.parent for one in (*files, *(Path(os.path.realpath(one)) for one in files))]
        devices = {os.stat(one).st_dev for one in (*folders, *parents, *filter(os.path.exists, files))}
        near = {Path(os.path.realpath(one)) for one in parents}
        on = {found.st_dev, *(os.lstat(place).st_dev for place in places)}
    except OSError as error:
        raise Unchecked(f"{what} cannot be read: {error.strerror}", where=path) from None
    if read is not None and not os.path.samestat(found, read):
        raise Unchecked(f"{what} changes while it is read", where=path)
    if any(place.is_relative_to(one) for one in folders for place in places):
        raise Untrusted(f"{what} lies inside what it should vouch for", where=path, advice=_ADVICE)
    if any(place.parent in near for place in places):
        raise Untrusted(
            f"{what} lies in the same directory as what it should vouch for", where=path, advice=_ADVICE
        )
    if (devices & on) - own_devices():
        raise Untrusted(
            f"{what} lies on the same medium as what it should vouch for", where=path, advice=_ADVICE
        )


def _places(path: Path) -> Iterator[Path]:
    """Where each link on the way from *path* to its file lies, and that file: whoever lays a link chooses."""
    left = [*reversed(path.absolute().parts)]
    here, links = Path(left.pop()), 0
    while left:
        part = left.pop()
        step = here.parent if part == ".." else here / part
        if not step.is_symlink():
            here = step
            continue
        yield step
        if (links := links + 1) > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        leads = Path(os.readlink(step))
        left += reversed(leads.parts)
        if leads.is_absolute():
            here = Path(left.pop())
    yield here


def own_devices() -> frozenset[int]:
    """The file systems that belong to this machine, and not to a medium, as `st_dev` tells them."""
    if sys.platform == "win32":
        places = [os.environ.get("SYSTEMROOT", r"C:\Windows")]
    else:
        # Not tempfile.gettempdir: where nothing else can be written to, that is the current directory.
        places = ["/", "/etc", "/usr", "/var", "/tmp", "/var/tmp"]  # noqa: S108 - nothing is written there
    found = set()
    for place in (*places, os.path.expanduser("~")):
        try:
            found.add(os.stat(place).st_dev)
        except OSError:
            continue
    return frozenset(found)
