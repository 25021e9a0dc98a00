"""What a file is that should be a GGUF and is not: told by its first bytes, with what to do about it."""

from __future__ import annotations

import re

from modelpack.errors import Corrupt, ModelpackError, Unsupported

FIRST = 512
"""How many bytes are enough to tell: a tar says so at byte 257."""

_AGAIN = "Download it again, and look at what the server says meanwhile."
_CONVERT = "Get the model as GGUF, or convert it with llama.cpp's convert_hf_to_gguf.py."
_OLD = "llama.cpp and Ollama read it no longer: get a newer conversion of the model."
_UNPACK = "Unpack it first."

_POINTERS = (b"version https://git-lfs", b"version https://hawser", b"version http://git-media")
_OTHER = (
    (b"FUGG", "is a big-endian GGUF", "Neither Ollama nor modelpack reads it: get the little-endian one."),
    (b"lmgg", "is an old GGML file (before August 2023)", _OLD),
    (b"fmgg", "is an old GGMF file (before August 2023)", _OLD),
    (b"tjgg", "is an old GGJT file (before August 2023)", _OLD),
    (b"algg", "is an old GGLA adapter (before 2024)", _OLD),
    (b"\x1f\x8b", "is compressed with gzip", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", _UNPACK),
    (b"\xfd7zXZ\x00", "is compressed with xz", _UNPACK),
    (b"BZh", "is compressed with bzip2", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive", _UNPACK),
)
_MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<[!?a-zA-Z]")
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*[\[{]")


def not_gguf(head: bytes, size: int, where: object) -> ModelpackError:
    """The error for a file of *size* bytes whose first FIRST bytes, *head*, do not begin with `GGUF`."""
    if not head:
        return Corrupt("is empty", where=where, advice=_AGAIN)
    if b"GGUF".startswith(head):
        return Corrupt(f"ends after {size} bytes, within its first word", where=where, advice=_AGAIN)
    if head.startswith(_POINTERS):
        advice = "Run `git lfs pull` in the clone that it comes from."
        return Corrupt("is a Git LFS pointer, not the model", where=where, advice=advice)
    for magic, what, advice in _OTHER:
        if head.startswith(magic):
            return Unsupported(what, where=where, advice=advice)
    return _container(head, size, where) or _text(head, where) or _unknown(head, where)


def _container(head: bytes, size: int, where: object) -> ModelpackError | None:
    # A safetensors file is the length of its JSON header, then that header.
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8:
        return Unsupported(
            "is a safetensors file, not a GGUF",
            where=where,
            advice="Pack the directory that it lies in (with its config.json): the server converts it.",
        )
    if head.startswith(b"PK\x03\x04"):
        if b"/data.pkl" in head or b"/byteorder" in head:
            return Unsupported("is a PyTorch checkpoint, not a GGUF", where=where, advice=_CONVERT)
        return Unsupported("is a zip archive", where=where, advice=_UNPACK)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return Unsupported("is a Python pickle (an old PyTorch checkpoint)", where=where, advice=_CONVERT)
    if head[257:262] == b"ustar":
        return Unsupported("is a tar archive, not a GGUF", where=where, advice=_UNPACK)
    return None


def _text(head: bytes, where: object) -> ModelpackError | None:
    if _MARKUP.match(head):
        what = "is a web page or XML, not a model: a login or an error that was saved under its name?"
    elif _JSON.match(head):
        what = "is JSON, not a model: a server's error that was saved under its name?"
    elif all(byte in b"\t\n\r" or 0x20 <= byte < 0x7F for byte in head):
        what = "is plain text, not a model: a server's error that was saved under its name?"
    else:
        return None
    return Corrupt(what, where=where, advice=_AGAIN)


def _unknown(head: bytes, where: object) -> ModelpackError:
    if not any(head):
        return Corrupt(
            "begins with zeros: its place was reserved, but the bytes never came",
            where=where,
            advice=_AGAIN,
        )
    return Corrupt(f"does not begin with GGUF but with {head[:4].hex(' ')}", where=where, advice=_AGAIN)
