"""What a client asks for: bodies read within bounds, JSON as Go's decoder takes it, and how it is told no."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from json import JSONDecodeError
from typing import Any, Protocol, TypeVar

from modelpack.errors import Local, ModelpackError, NotFound, Unreachable, Unsupported, Usage
from modelpack.words.blob import KIB, MIB, SMALL
from modelpack.words.nested import DEEPEST, is_deep

LARGEST = SMALL + MIB
"""The most that a create request may have: as text, and as values, it takes several times that."""

_PIECE = 64 * KIB
_UNGUARDED = 64 * KIB
_MOST_CONTAINERS = 100_000  # each takes 64 bytes or more of memory for two of the body
_large_body = threading.Lock()
_T = TypeVar("_T")


class Stream(Protocol):
    """The body of a request, as WSGI gives it."""

    def read(self, size: int, /) -> bytes: ...


class Says(Exception):
    """The request ends with this status and `{"error": text}`.

    *plain*: said before the work began. *instead*: said in place of all that was said before, even where an
    answer was to be a stream that is under way.
    """

    def __init__(self, status: int, text: str, *, plain: bool = True, instead: bool = False) -> None:
        super().__init__(text)
        self.status, self.text, self.plain, self.instead = status, text, plain, instead


def no_engine(what: str) -> Says:
    """The refusal of what only a real Ollama can do."""
    return Says(501, f"this is a modelpack depot, which has no engine: it cannot {what}", instead=True)


def says(error: ModelpackError) -> Says:
    """How a client is told of *error*."""
    if isinstance(error, Local):
        # Without a cause it is about room that was looked for before the first byte.
        cause = error.__cause__
        full = cause is None or (isinstance(cause, OSError) and cause.errno in _FULL)
        status = 507 if full else 500
    elif isinstance(error, Usage | Unreachable):
        status = 400
    elif isinstance(error, NotFound | Unsupported):
        status = 404 if isinstance(error, NotFound) else 501
    else:
        status = 500
    place = f"{error.where}: " if error.where else ""
    return Says(status, place + error.what + (f". {error.advice}" if error.advice else ""))


@contextlib.contextmanager
def read_object(stream: Stream, length: int | None, limit: int = SMALL) -> Iterator[dict[str, Any]]:
    """The JSON object that is the body; *length* is its Content-Length, where there is one.

    Of large ones there is one at a time, until the end of the `with`.
    """
    if length is not None and length > limit:
        raise Says(413, f"the request has {length} bytes; at most {limit} are read")
    with contextlib.ExitStack() as stack:
        yield _object(_read(stream, limit, stack))


def read_whole(stream: Stream, length: int | None, limit: int = SMALL) -> bytes:
    """The whole body, as bytes; Says 413 where it has more than *limit*, and 400 where it is cut."""
    if length is not None and length > limit:
        raise Says(413, f"the request has {length} bytes; at most {limit} are read")
    with contextlib.ExitStack() as stack:
        return bytes(_read(stream, limit, stack))


def _read(stream: Stream, limit: int, stack: contextlib.ExitStack) -> bytearray:
    pieces = bytearray()
    alone = False
    try:
        while piece := stream.read(_PIECE):
            pieces += piece
            if len(pieces) > limit:
                raise Says(413, f"the request has more than {limit} bytes")
            if len(pieces) > _UNGUARDED and not alone:
                if not _large_body.acquire(timeout=30):
                    raise Says(503, "too many large requests at once; try again later")
                stack.callback(_large_body.release)
                alone = True
    except OSError as error:
        raise Says(408 if isinstance(error, TimeoutError) else 400, "unexpected EOF") from None
    return pieces


def _object(raw: bytearray) -> dict[str, Any]:
    if raw.count(b"{") + raw.count(b"[") > _MOST_CONTAINERS:
        raise Says(400, f"the request holds more than {_MOST_CONTAINERS} objects and lists")
    try:
        text = raw.decode("utf-8", "replace").lstrip("\t\n\r ")  # as Go: U+FFFD for what is no UTF-8
        if not text:
            raise Says(400, "missing request body")
        value, _ = _DECODER.raw_decode(text)  # what follows the first value is not looked at
    except JSONDecodeError as error:
        raise Says(400, _go_words(error)) from None
    except (ValueError, RecursionError) as error:
        raise Says(400, f"the request is not JSON: {str(error)[:200]}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Says(400, f"json: cannot unmarshal {_kind(value)} into Go value of type an object")
    if is_deep(value):
        raise Says(400, f"the request is nested more than {DEEPEST} deep")
    return value


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):  # Go's decoder refuses it, too
        raise ValueError(f"{text[:20]} is too large a number")
    return value


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


def _go_words(error: JSONDecodeError) -> str:
    """As encoding/json words it, for the mistakes that people make."""
    if error.pos >= len(error.doc):
        return "unexpected EOF"
    place = {
        "Expecting value": "looking for beginning of value",
        "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
        "Expecting ':' delimiter": "after object key",
        "Expecting ',' delimiter": "after object key:value pair",
    }.get(error.msg)
    if place is None:
        return f"the request is not JSON: {error.msg} at character {error.pos}"
    return f"invalid character {error.doc[error.pos]!r} {place}"


def _kind(value: object) -> str:
    for kinds, word in (
        (bool, "bool"),
        (int | float, "number"),
        (str, "string"),
        (list, "array"),
        (dict, "object"),
    ):
        if isinstance(value, kinds):
            return word
    return "null"


def _field(value: Mapping[str, Any], key: str, kind: type[_T], go: str, default: _T) -> _T:
    found = value.get(key)
    if found is None:
        return default
    if not isinstance(found, kind):
        raise Says(400, f"json: cannot unmarshal {_kind(found)} into Go struct field .{key} of type {go}")
    return found


def text_field(value: Mapping[str, Any], *keys: str) -> str:
    """The first string among *keys* that is not empty; Says 400 where one of them holds something else."""
    return next((text for text in [_field(value, key, str, "string", "") for key in keys] if text), "")


def flag_field(value: Mapping[str, Any], key: str, default: bool) -> bool:
    """True or false."""
    return _field(value, key, bool, "bool", default)


def map_field(value: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """An object; None where there is none."""
    return _field(value, key, dict, "map", None)


def texts_field(value: Mapping[str, Any], key: str) -> dict[str, str] | None:
    """An object of strings; None where there is none."""
    found = map_field(value, key)
    for name, text in (found or {}).items():
        if not isinstance(text, str):
            raise Says(
                400, f"json: cannot unmarshal {_kind(text)} into Go struct field .{key}.{name} of type string"
            )
    return found


def list_field(value: Mapping[str, Any], key: str) -> list[Any]:
    """A list, empty where there is none."""
    return _field(value, key, list, "[]", [])


Say = Callable[[str], None]
"""Called with each line of progress."""
