"""From a locator to a store. The only module that names all of them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelpack.documents.config import Remark, remarks_on
from modelpack.documents.gguf import read_gguf
from modelpack.documents.model import Model
from modelpack.errors import NotFound, Refused, Unsupported, Usage
from modelpack.hands.bytes import FileReader, StreamReader
from modelpack.hands.hashing import blamed
from modelpack.hands.system import binary
from modelpack.stores import Source, Target
from modelpack.stores.archive import Archive
from modelpack.stores.files import LooseGguf
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.pipe import PipeSource, PipeTarget
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import fill

_STDIN = "standard input"
_URL = re.compile(r"(https?|oci)://", re.ASCII | re.IGNORECASE)
_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}(/\S*)?", re.ASCII)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://", re.ASCII)
# What systems put on a fresh volume, and what a bundle's own pack leaves when it is killed.
_VOLUME = {
    "lost+found",
    "System Volume Information",
    "$RECYCLE.BIN",
    ".DS_Store",
    ".fseventsd",
    ".Spotlight-V100",
}
_BEGUN = {".modelpack", "blobs", "oci-layout", "README.txt", "SHA256SUMS", "SHA256SUMS.new"}
_COMPRESSED = {".gz": "gzip", ".tgz": "gzip", ".zip": "zip", ".zst": "zstd", ".xz": "xz", ".bz2": "bzip2"}


@dataclass(frozen=True)
class Located:
    """A locator taken apart: the store's own words, and the model that `#NAME` picks."""

    text: str
    pick: str | None

    @classmethod
    def parse(cls, text: str) -> Located:
        """Split *text* at its `#`, unless a file is named just so."""
        place, mark, pick = text.rpartition("#")
        if not mark or (os.path.lexists(text) and not _URL.match(text)):
            return cls(text, None)
        if not place or not pick:
            raise Usage(f"{text!r} is not a locator", advice="Write LOCATOR#NAME to pick one model.")
        return cls(place, pick)


def source(text: str, *, expect: Digest | None = None) -> Source:
    """The store that *text* names: a GGUF, a bundle (file, folder, `-` for a pipe) or a models directory.

    Content decides, never a suffix. Raises NotFound, Unsupported, Corrupt or Usage with what it saw there.
    """
    if text == "-":
        return PipeSource(StreamReader(binary(sys.stdin.fileno()), _STDIN), _STDIN, expect=expect)
    if _URL.match(text):
        raise Unsupported(
            "models cannot be read from there yet",
            where=text,
            advice="Name a bundle, a GGUF or a models directory.",
        )
    path = _path(text)
    if not os.path.lexists(path):
        raise NotFound("no such file or directory", where=text)
    if path.is_dir():
        return _directory(path, expect)
    if path.is_fifo():  # as a shell's <(command) is
        return PipeSource(StreamReader(os.open(path, os.O_RDONLY), text), text, expect=expect)
    if not path.is_file():
        raise NotFound("is neither a file nor a directory (or a link that leads nowhere)", where=text)
    found = _file(path, expect)
    if expect is not None and not isinstance(found, Archive):
        raise Usage("has no fingerprint to expect: it is not a bundle", where=text)
    return found


def _path(text: str) -> Path:
    """The path that *text* means; raises Usage where it is none, or the address of something else."""
    if not text:
        raise Usage("an empty text is no place", advice="Is a variable unset?")
    if _SCHEME.match(text):
        raise Usage(
            f"{text[:200]!r} is not a kind of address that modelpack knows here",
            advice=f"It knows http:// and https://; for a directory of that name write ./{text}",
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~nobody
        raise NotFound(str(error), where=text) from None


def _strangers(path: Path, known: set[str]) -> list[str]:
    """What lies in the directory *path* besides what is *known* and what systems put on every volume."""
    names = (one.name for one in path.iterdir())
    return sorted(
        name for name in names if name not in known | _VOLUME and not name.startswith((".Trash", "._"))
    )


def _directory(path: Path, expect: Digest | None) -> Source:
    marks: list[tuple[str, Source]] = []
    if (path / "oci-layout").exists() or (path / "index.json").exists():
        marks.append(("oci-layout: a bundle", FolderBundle(path, expect=expect)))
    if (path / "manifests").is_dir() and (path / "blobs").is_dir():
        marks.append(("manifests/ and blobs/: a models directory", ModelsDir(path)))
    ggufs = sorted(one.name for one in path.iterdir() if one.name.lower().endswith(".gguf"))
    if len(marks) > 1:
        listed = "; ".join(mark for mark, _ in marks)
        raise Usage(f"is several things at once: {listed}", where=path, advice="Move one of them away.")
    if marks:
        if expect is not None and not isinstance(marks[0][1], FolderBundle):
            raise Usage("has no fingerprint to expect: it is not a bundle", where=path)
        return marks[0][1]
    if ggufs:
        shown = ", ".join(ggufs[:5]) + (", …" if len(ggufs) > 5 else "")
        raise Usage(f"is a directory of GGUF files ({shown})", where=path, advice="Name one of them.")
    raise NotFound(
        "is neither a bundle (oci-layout) nor a models directory (manifests/ and blobs/)", where=path
    )


def _file(path: Path, expect: Digest | None) -> Source:
    with FileReader.at(path) as reader:
        head = memoryview(bytearray(512))
        count = fill(reader, head)
    if bytes(head[257:262]) == b"ustar" or (count and path.suffix == ".tar"):
        return Archive(path, expect=expect)
    if bytes(head[:4]) != b"GGUF":  # whatever it is, the reader of GGUFs knows its first bytes and says so
        with FileReader.at(path) as reader, blamed(path):
            read_gguf(reader, reader.size)
    return LooseGguf(path)


def bundle_target(text: str, *, replace: bool = False) -> Target:
    """Where `pack -o` writes: `-` a pipe, `*.tar` one file, else a folder."""
    if text == "-":
        return PipeTarget(binary(sys.stdout.fileno()))
    path = _path(text)
    suffix = path.suffix.lower()
    if suffix in _COMPRESSED:
        raise Usage(
            f"modelpack writes no {_COMPRESSED[suffix]}: weights hardly shrink, and blobs are read in place",
            where=text,
            advice="Use NAME.tar for one file, or NAME for a folder.",
        )
    if suffix == ".tar":
        if path.is_dir():
            raise Usage("is a directory", where=text, advice="Name a file, or drop .tar for a folder bundle.")
        return Archive(path, replace=replace)
    if os.path.lexists(path) and not path.is_dir():
        raise Usage(
            "is a file, and its name does not end in .tar",
            where=text,
            advice="Name a folder, or NAME.tar for one file.",
        )
    if path.is_dir() and not (path / "index.json").exists():
        strangers = _strangers(path, _BEGUN)
        if strangers:
            raise Refused(
                f"is a directory with other things in it ({', '.join(strangers[:3])})",
                where=text,
                advice="Name a new or an empty folder, or an existing bundle.",
            )
    return FolderBundle(path, replace=replace)


def target(text: str | None, source: Source | None = None, *, replace: bool = False) -> Target:
    """Where `load --to` brings models: a server (`http://…`, or `$OLLAMA_HOST` for None), or a directory.

    From *source* a server learns what a model means, to tell it from one that has the name there.
    """
    if text is None or text.lower().startswith(("http://", "https://")):
        return server(text, source, replace=replace)
    if _URL.match(text):
        raise Unsupported("loading into a registry is not there yet", where=text)
    path = _path(text)
    if not os.path.lexists(path):
        if _HOST_PORT.fullmatch(text):
            raise Usage(
                f"{text!r} looks like a host and a port",
                advice=f"Did you mean http://{text}? For a directory of that name write ./{text}",
            )
        return ModelsDir(path, replace=replace)
    if not path.is_dir():
        raise Usage("is a file; models are loaded into a server or a models directory", where=text)
    names = set(_strangers(path, {".modelpack"}))
    is_bundle = bool(names & {"oci-layout", "index.json"})
    if is_bundle or (names and not names & {"manifests", "blobs"}):
        kind = "a bundle" if is_bundle else "not a models directory"
        raise Refused(
            f"is {kind}: it has {', '.join(sorted(names)[:3])}",
            where=text,
            advice="Name the directory that holds manifests/ and blobs/ (Ollama's OLLAMA_MODELS), or a new "
            "or empty one.",
        )
    return ModelsDir(path, replace=replace)


def server(url: str | None, source: Source | None = None, *, replace: bool = False) -> Target:
    """The server at *url*, or at `$OLLAMA_HOST`."""
    from modelpack.hands.ollama import Ollama  # here: requests costs a third of a start
    from modelpack.stores.server_create import ServerCreate

    return ServerCreate(Ollama(url), replace=replace, source=source)


def remarks(store: Source) -> frozenset[Remark]:
    """What is worth a warning before *store* is packed."""
    return remarks_on(store.gguf) if isinstance(store, LooseGguf) else frozenset()


def choose(models: Sequence[Model], names: Sequence[str], where: object) -> list[Model]:
    """The models named (all where none is); NotFound lists what there is."""
    if not names:
        if not models:
            raise NotFound("holds no model", where=where)
        return list(models)
    chosen: list[Model] = []
    for name in names:
        folded = Name.parse(name).folded
        found = [model for model in models if model.name.folded == folded]
        if not found:
            there = ", ".join(str(model.name) for model in models[:10]) or "nothing"
            raise NotFound(f"has no model {name!r}; it has: {there}", where=where)
        chosen += [model for model in found if model not in chosen]
    return chosen
