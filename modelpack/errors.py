"""What can go wrong, sorted by whose side is at fault.

    ModelpackError
    ├── Usage        2   the command line, or an argument
    ├── NotFound     3   a file, model or blob that is not there
    ├── Corrupt      4   bytes that are not what they should be
    ├── Unsupported  5   nothing is broken, but this cannot be done
    ├── Refused      6   the other side said no
    │   ├── Taken        … because the name stands for another model there
    │   └── Unexpected   … by us: not the bundle that was asked for
    ├── Unreachable  7   the other side did not answer
    ├── Partly       8   some of several failed
    ├── Local        9   this machine: disk, rights, memory
    ├── Untrusted   10   unsigned, unknown signer, expired, revoked
    ├── Unchecked   11   could not be checked: says nothing about the bytes
    └── Different   12   what was compared differs

An error is a sentence (`what`), a place (`where`) and what to do (`advice`). Its text may hold words from
elsewhere, so whoever shows it escapes it first (`words.text.visible`).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import ClassVar


class ModelpackError(Exception):
    """Root of all errors that modelpack raises on purpose; never raised itself."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: object = "", advice: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = str(where)
        self.advice = advice

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.what}" + (f"\n{self.advice}" if self.advice else "")


class Usage(ModelpackError):
    """The call is wrong, whatever the data."""

    exit_code = 2


class NotFound(ModelpackError):
    """A file, model or blob that was named is not there."""

    exit_code = 3


class Corrupt(ModelpackError):
    """Bytes are not what their digest, size or format promises."""

    exit_code = 4


class Unsupported(ModelpackError):
    """Well-formed, but not something that this modelpack or this target can do."""

    exit_code = 5


class Refused(ModelpackError):
    """The other side said no; `status` is its HTTP status where it has one, `words` its own text."""

    exit_code = 6

    def __init__(
        self, what: str, *, where: object = "", advice: str = "", status: int | None = None, words: str = ""
    ) -> None:
        super().__init__(what, where=where, advice=advice)
        self.status = status
        self.words = words


class Taken(Refused):
    """The name stands for another model there, or for one that cannot be told from another."""


class Unexpected(Refused):
    """Not the bundle whose fingerprint was expected; nothing of it was looked at."""


class Unreachable(ModelpackError):
    """No answer: nobody listens, the connection broke, or time ran out."""

    exit_code = 7


class Partly(ModelpackError):
    """Some of several models failed: `failed` says which and why, `done` has the receipts of the others."""

    exit_code = 8

    def __init__(
        self,
        what: str,
        *,
        failed: Mapping[str, ModelpackError],
        done: Sequence[object] = (),
        where: object = "",
        advice: str = "",
    ) -> None:
        super().__init__(what, where=where, advice=advice)
        self.failed = dict(failed)
        self.done = tuple(done)


class Local(ModelpackError):
    """This machine's own disk, rights or memory."""

    exit_code = 9


class Untrusted(ModelpackError):
    """Unsigned, signed by a stranger, expired or revoked."""

    exit_code = 10


class Unchecked(ModelpackError):
    """Could not be checked. Never to be read as damaged, nor as whole."""

    exit_code = 11


class Different(ModelpackError):
    """Two things that were compared are not the same."""

    exit_code = 12


_ADVICE = {
    errno.ENOSPC: "Free some room there, or choose another place.",
    errno.EDQUOT: "The disk quota is used up: free some room there, or choose another place.",
    errno.EFBIG: "That file system (or a limit on this process) does not take a file so large. "
    "FAT32 ends at 4 GiB: use exFAT, or cut the bundle (pack --volume-size fat32, or less).",
    errno.EROFS: "It is mounted read-only.",
    errno.EACCES: "Run as a user who may, or choose another place.",
    errno.EPERM: "Run as a user who may, or choose another place.",
    errno.EIO: "The medium itself fails: try another copy.",
}


def from_os(error: OSError, where: object) -> ModelpackError:
    """The error of ours that tells of *error*, which the operating system raised at *where*."""
    words = error.strerror or type(error).__name__
    words = words[:1].lower() + words[1:]
    if error.errno == errno.ENOENT:
        return NotFound("no such file or directory", where=where)
    if error.errno == errno.ELOOP:
        return Refused(
            "a symbolic link stands where a real file or directory belongs",
            where=where,
            advice="modelpack follows no link inside a store. Remove it, or name the real directory.",
        )
    return Local(words, where=where, advice=_ADVICE.get(error.errno or 0, ""))
