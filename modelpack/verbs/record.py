"""The receipt of a load as a file: put together, written whole or not at all, read again."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from modelpack.documents.receipt import REGISTRY, Receipt
from modelpack.documents.record import LIMIT, MODELS_DIRECTORY, SERVER, Arrived, Failure, Host, Record
from modelpack.errors import Corrupt, ModelpackError, Refused, Unsupported
from modelpack.hands.bytes import FileReader
from modelpack.hands.disk import Folder
from modelpack.hands.scratch import Scratch
from modelpack.version import __version__
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import read_at_most

_MODE = 0o644
_USER = re.compile(r"(?<=://)[^/\s@]*@")

Failed = Mapping[str, ModelpackError]
"""What went wrong at a step, by the full names of models; "" for what was that of all of them."""


def now() -> str:
    """The time, in UTC, as RFC 3339 writes it, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def host_of(described: Mapping[str, str]) -> Host:
    """The host that a target's `described` tells of, without anybody's name in it.

    A path is made absolute, and begins with `~` where it is below this user's home.
    """
    kind, where = described["kind"], described["where"]
    if kind not in (SERVER, MODELS_DIRECTORY, REGISTRY):
        raise Unsupported(f"a load to a {kind} has no receipt", where=where)
    if kind == MODELS_DIRECTORY:
        where = os.path.abspath(os.path.expanduser(where))
    return Host(kind, nameless(where), described.get("version"))


def record_of(
    receipts: Sequence[Receipt],
    failed: Mapping[str, Failed],
    host: Host,
    *,
    bundle: Digest | None,
    started: str,
    ended: str,
) -> Record:
    """What is to be written of a load; *failed* by step (`load`, `prove`, `try`)."""
    failures = [
        Failure(
            step, Name.parse(name) if name else None, type(error).__name__,
            nameless(error.what), nameless(error.where), nameless(error.advice),
        )
        for step, errors in failed.items() for name, error in errors.items()
    ]  # fmt: skip
    return Record(
        __version__, bundle, host, started, ended, tuple(map(Arrived.of, receipts)), tuple(failures)
    )


def check_writable(path: Path) -> None:
    """Raise before anything moves what `write` would: no such directory, or a file that is no receipt."""
    with Folder.at(path.parent) as folder:
        _is_ours(folder, path.name)


def write(path: Path, record: Record) -> None:
    """Write *record* to *path*, whole or not at all; only another receipt is replaced, else Refused.

    Everybody may read the file: it holds no secret.
    """
    raw = record.to_bytes()
    Record.parse(raw, path)  # what is written can be read
    with Folder.at(path.parent) as folder:
        ours = _is_ours(folder, path.name)
        scratch = Scratch(folder, ".receipt.modelpack-", _MODE)
        scratch.sweep()
        with scratch.new(len(raw)) as file:
            file.writer.write_at(memoryview(raw), 0)
            if sys.platform != "win32":
                os.fchmod(file.fd, _MODE)  # whatever the umask says
            file.appear(folder, path.name, replace=ours)


def read(path: Path) -> Record:
    """The receipt at *path*; raises NotFound, Local, Corrupt, or Unsupported where it is something else."""
    with FileReader.at(path) as reader:
        if reader.size > LIMIT:
            raise Corrupt("is larger than any receipt", where=path)
        raw = read_at_most(reader, LIMIT, str(path))
    return Record.parse(raw, path)


def nameless(text: str) -> str:
    """*text* without the path of this user's home, which often holds a name, and without users in URLs."""
    home = os.path.expanduser("~")
    if len(home) > 1 and not home.startswith("~"):
        text = re.sub(rf"{re.escape(home)}(?![^/\\\s'\":,)])", "~", text)
    return _USER.sub("", text)


def _is_ours(folder: Folder, name: str) -> bool:
    """Whether *name* is a receipt; False where there is nothing; Refused where there is something else."""
    if folder.file_size(name) is None:
        return False
    try:
        Record.parse(folder.read(name, LIMIT), folder.path / name)
    except (Corrupt, Unsupported):
        raise Refused(
            "is there already, and is no receipt that this modelpack wrote",
            where=folder.path / name,
            advice="Name another file for the receipt.",
        ) from None
    return True
