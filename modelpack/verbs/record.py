"""The receipt of a load as a file: put together, written whole or not at all, read again."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from modelpack.documents.receipt import REGISTRY, Receipt
from modelpack.documents.record import LIMIT, MODELS_DIRECTORY, SERVER, Arrived, Failure, Host, Record
from modelpack.errors import Corrupt, ModelpackError, Unsupported
from modelpack.hands.bytes import FileReader
from modelpack.verbs.own_file import OwnFile
from modelpack.version import __version__
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import read_at_most

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
        raise Unsupported(f"a receipt is of a load to a host; this is no host ({kind})", where=where)
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
            step, Name.parse(name) if name else None, kind_of(error),
            nameless(error.what), nameless(error.where), nameless(error.advice),
        )
        for step, errors in failed.items() for name, error in errors.items()
    ]  # fmt: skip
    return Record(
        __version__, bundle, host, started, ended, tuple(map(Arrived.of, receipts)), tuple(failures)
    )


def kind_of(error: ModelpackError) -> str:
    """Which of the kinds that modelpack.errors has *error* is: some are raised as a narrower one."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == ModelpackError.__module__)


FILE = OwnFile("receipt", LIMIT, Record.parse, public=True)
"""The file that a receipt is written to. Everybody may read it: it holds no secret."""


def write(path: Path, record: Record) -> None:
    """Write *record* to *path*, whole or not at all; only another receipt is replaced, else Refused."""
    FILE.write(path, record.to_bytes())


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
