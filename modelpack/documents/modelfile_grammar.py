"""The grammar of Modelfiles: bytes to instructions, and where a value begins and ends.

Facts: parser/parser.go (ParseFile, parseRuneForState, unquote) of Ollama v0.33, in this the same as v0.24.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

from modelpack.documents.gotext import unprintable
from modelpack.errors import Corrupt, Unsupported
from modelpack.words.blob import MIB, SMALL

LIMIT = 8 * MIB
"""The most that a Modelfile may have, in bytes; as text it takes up to four times as much, and twice that."""
MOST = 10_000
"""The most instructions that it may have."""

_MOST_DROPPED = 1000
_BLOCK = 1 << 16

KEPT = frozenset("\t\n\r")
"""What Go does not call printable, and Ollama keeps all the same."""
TEXTS = ("template", "system", "renderer", "parser", "requires")
"""Instructions with one text, of which the last counts."""
PATHS = ("from", "adapter", "draft")
"""Instructions that name a file or a model."""
ROLES = ("system", "user", "assistant")
"""Who may say a MESSAGE."""

_KNOWN = (*PATHS, *TEXTS, "parameter", "license", "message")
_MARKS = {"utf-8": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}

# NUL stands for every character that Ollama drops, those that Go's strconv.IsPrint says no to. Real ones are
# refused before. So the patterns need not know hundreds of ranges.
_BETWEEN = re.compile(r"(?:[ \t\r\n]++|#[^\r\n]*+)*+")
_WORD = re.compile(r"\0?([A-Za-z]*+)[ \t]")
_KEY = re.compile(r"([A-Za-z0-9_]++)[ \t]")
_BLANK = re.compile(r"[ \t\0]*+")
_LINE = re.compile(r"[^\r\n]*+")
_TRIPLE = re.compile(r'"\0*+"\0*+"')
# Nothing is escaped: a quoted value ends at the first of its quotes that ends a line.
_ENDS = re.compile(r'"[ \t\0]*+(?=[\r\n]|\Z)')
_TRIPLE_ENDS = re.compile(r'"\0*+"\0*+"[ \t\0]*+(?=[\r\n]|\Z)')


@dataclass(frozen=True, slots=True)
class Command:
    """One instruction: its name in lower case, its value without quotes, its first line, counted from 1.

    *key* is the name of a `parameter`, the role of a `message`, else empty.
    """

    name: str
    value: str
    line: int
    key: str = ""


def decoded(raw: bytes, where: object) -> str:
    """The text of *raw*, with NUL for each character that Ollama drops; raises Corrupt where it is none."""
    if len(raw) > LIMIT:
        raise Corrupt(f"is {len(raw)} bytes long; no Modelfile has more than {LIMIT}", where=where)
    encoding, raw = _unmarked(raw)
    try:
        text = raw.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        line = 1 + breaks(raw[: error.start].decode(error.encoding))
        raise refused(line, f"it is not {error.encoding.upper()}", where, "Save it as UTF-8.") from None
    if "\0" in text:
        reason = "there is a NUL character"
        if not encoding and 4 * raw.count(0, 0, 4096) > len(raw[:4096]):
            reason += "; is this UTF-16 without a byte order mark?"
        raise refused(1 + breaks(text, 0, text.index("\0")), reason, where, "Save it as UTF-8.")
    dropped = dropped_in(text)
    if len(dropped) > _MOST_DROPPED:
        raise refused(1, "there are thousands of different characters that Ollama drops", where)
    return _nulled(text, dropped)


def _nulled(text: str, dropped: frozenset[str]) -> str:
    return text.translate({ord(char): "\0" for char in dropped}) if dropped else text


def dropped_in(text: str) -> frozenset[str]:
    """The characters in *text* that Ollama drops: all of them, or some where there are thousands."""
    dropped: frozenset[str] = frozenset()
    for at in range(0, len(text), _BLOCK):  # a set of all characters that there are takes 150 MB
        dropped |= unprintable(text[at : at + _BLOCK]) - KEPT
        if len(dropped) > _MOST_DROPPED:
            break
    return dropped


def looks_like_modelfile(head: bytes) -> bool:
    """Whether *head*, the first bytes of a file, begins with an instruction, after blanks and comments."""
    encoding, head = _unmarked(head)
    text = head.decode(encoding or "utf-8", "ignore")  # the last character may be cut
    text = _nulled(text, dropped_in(text))
    word = _WORD.match(text, _past(_BETWEEN, text, 0))
    return word is not None and word[1].lower() in _KNOWN


def _unmarked(raw: bytes) -> tuple[str, bytes]:
    """The encoding that a byte order mark names, "" where there is none, and the bytes after it."""
    for encoding, mark in _MARKS.items():
        if raw.startswith(mark):
            return encoding, raw[len(mark) :]
    return "", raw


def commands_in(text: str, where: object) -> Iterator[tuple[Command, int, int]]:
    """Each instruction in *text*, which is `decoded`, with the places where it begins and ends.

    Raises Corrupt for what is none, Unsupported for too many, or one that is too long.
    """
    at, line, counted = _past(_BETWEEN, text, 0), 1, 0
    for _ in range(MOST):
        if at == len(text):
            return
        start, line, counted = at, line + breaks(text, counted, at), at
        word = _WORD.match(text, at)
        name = word[1].lower() if word else ""
        if word is None or name not in _KNOWN:
            raise refused(line, _not_a_word(text, at), where)
        at, key = word.end(), ""
        if name in ("parameter", "message"):
            found = _KEY.match(text, at)
            key = found[1] if found else ""
            if name == "message" and key not in ROLES:
                raise refused(line, f"MESSAGE needs a space and a role, one of {', '.join(ROLES)}", where)
            if found is None:
                raise refused(line, "PARAMETER needs a space and a name, and a space and a value", where)
            at = found.end()
        read = read_value(text, at)
        if read is None:
            advice = "The closing quotes must be the last of a line."
            raise refused(line, f"the text in quotes of {name.upper()} does not end", where, advice)
        value, at = read
        if len(value) > SMALL // 4 and len(value.encode()) > SMALL:
            raise Unsupported(f"line {line}: its {name.upper()} has more than {SMALL} bytes", where=where)
        yield Command(name, value, line, key), start, at
        read, value = None, ""  # not to be kept while the next one is read
        at = _past(_BETWEEN, text, at)
    if at < len(text):
        raise Unsupported(f"has more than {MOST} instructions", where=where)


def _not_a_word(text: str, at: int) -> str:
    line = _LINE.match(text, at)
    words = line[0][:100].replace("\0", "").split() if line else []
    if words and words[0].lower() in _KNOWN:
        return f"{words[0].upper()} needs a space and a value"
    known = ", ".join(_KNOWN).upper()
    return f"{''.join(words[:1])[:40]!r} is not an instruction; those that Ollama knows are {known}"


def read_value(text: str, at: int) -> tuple[str, int] | None:
    """The value that begins at *at*, and where it ends; None where its quotes do not end."""
    start = _past(_BLANK, text, at)
    if not text.startswith('"', start):
        end = _past(_LINE, text, start)
        return text[start:end].replace("\0", "").strip(" \t"), end
    triple = _TRIPLE.match(text, start)
    start = triple.end() if triple else start + 1
    found = (_TRIPLE_ENDS if triple else _ENDS).search(text, start)
    return (text[start : found.start()].replace("\0", ""), found.end()) if found else None


def _past(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def breaks(text: str, start: int = 0, end: int | None = None) -> int:
    """How many lines end in this part of *text*: by \\n, \\r or both."""
    return text.count("\n", start, end) + text.count("\r", start, end) - text.count("\r\n", start, end)


def refused(line: int, why: str, where: object, advice: str = "") -> Corrupt:
    """The error for what Ollama would not take, and why, on *line*."""
    return Corrupt(
        f"is not a Modelfile that Ollama would take: line {line}: {why}", where=where, advice=advice
    )
