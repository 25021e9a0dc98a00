"""Names that a server has for a moment: `HOST[:PORT]/modelpack/<12 digits of the ID>-<32 more>:latest`.

Each is a manifest like any other: while it stands, Ollama removes none of its blobs. To delete the only name
of a model throws all of its blobs away (server/routes.go, DeleteHandler), so nothing here does.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime

from modelpack.errors import ModelpackError, NotFound, Refused, Usage
from modelpack.hands.answers import Listed
from modelpack.hands.call import patience, rest
from modelpack.hands.ollama import Ollama
from modelpack.words.digest import Digest
from modelpack.words.name import DEFAULT_TAG, Name

NAMESPACE = "modelpack"
_RACED = ("no such file or directory", "cannot find the")  # on Unix, on Windows
YOUNG = 3600.0
"""Seconds for which the name of another run is left alone: that may be at work."""
_SWEEPING = 10.0  # seconds
_MODEL = re.compile(r"[0-9a-f]{12}-[0-9a-f]{32}", re.ASCII)


def temporary(host: str, digest: Digest) -> Name:
    """A new name at *host* (`HOST[:PORT]`) for the model of ID *digest*; nobody can guess it."""
    return Name(host, NAMESPACE, f"{digest.hex[:12]}-{secrets.token_hex(16)}", DEFAULT_TAG)


def is_temporary(name: Name) -> bool:
    """Whether *name* is such a name, whichever run made it."""
    return (
        name.namespace == NAMESPACE and name.tag == DEFAULT_TAG and _MODEL.fullmatch(name.model) is not None
    )


def copy_name(client: Ollama, name: Name, second: Name) -> None:
    """Give the model *name* the name *second*, too; once more where somebody deleted a name meanwhile.

    A server that deletes a name removes directories that are empty (manifest/paths.go), also one that a copy
    has just made for its own.
    """
    for pause in (0.1, 0.3, 0.9, None):
        try:
            client.copy(str(name), str(second))
        except Refused as error:
            if pause is None or not was_raced(error) or not rest(pause):
                raise
        else:
            return


def was_raced(error: Refused) -> bool:
    """Whether *error* is that of a directory which somebody removed at the same moment."""
    return any(words in error.words for words in _RACED)


def drop(client: Ollama, name: Name, listed: Sequence[Listed] | None = None) -> bool:
    """Delete the temporary *name*, where another name that lasts holds the same ID; whether it is gone.

    *listed* is what the server lists now, where somebody asked it just so.
    """
    listed = client.list() if listed is None else listed
    own = next((each for each in listed if _folded(each) == name.folded), None)
    if own is None:
        return True
    if not is_temporary(name) or not _lasting(listed, own.digest):
        return False
    with contextlib.suppress(NotFound):
        client.delete(own.name)
    return True


def sweep(client: Ollama) -> None:
    """Delete what runs that were killed have left, where it is older than an hour and not the only name.

    The server's own times are compared: `modified_at`, and the `Date` of its answer. A name whose time lies
    ahead is young. Raises nothing of the server's, and asks no longer than ten seconds: this is housekeeping,
    and the next run does it too.
    """
    with contextlib.suppress(ModelpackError), patience(_SWEEPING):
        listed, date = client.list_dated()
        now = _date(date)
        if now is None:
            return
        for each in listed:
            then = _time(each)
            if then is not None and now - then >= YOUNG and _is_temporary(each):
                drop(client, Name.parse(each.name), listed)


def _lasting(listed: Iterable[Listed], digest: Digest) -> bool:
    return any(each.digest == digest and not _is_temporary(each) for each in listed)


def _is_temporary(listed: Listed) -> bool:
    try:
        return is_temporary(Name.parse(listed.name))
    except Usage:
        return False


def _folded(listed: Listed) -> str:
    try:
        return Name.parse(listed.name).folded
    except Usage:
        return ""


def _date(text: str) -> float | None:
    """The time that a header of that form tells, in seconds."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _time(listed: Listed) -> float | None:
    """When it was written, in seconds, by the server's clock."""
    # Nanoseconds and "Z", which fromisoformat of Python 3.11 takes but for the digits after six.
    text = re.sub(r"(\.\d{6})\d+", r"\1", listed.modified_at or "")
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
