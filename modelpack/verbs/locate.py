"""From a locator to a store. The only module that names all of them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelpack.documents.model import Model, by_base
from modelpack.errors import Corrupt, NotFound, Refused, Unsupported, Usage
from modelpack.hands.bytes import StreamReader
from modelpack.hands.system import binary
from modelpack.stores import Source, Target
from modelpack.stores.archive import Archive
from modelpack.stores.files import LooseFiles, LooseGguf
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.pipe import PipeSource, PipeTarget
from modelpack.stores.plain import OTHERS, PlainFolder
from modelpack.verbs.installed import Installed
from modelpack.verbs.marks import Loose, store_in, store_of
from modelpack.words.digest import Digest
from modelpack.words.filename import on_every_volume
from modelpack.words.name import Name
from modelpack.words.report import Report, silent

_STDIN = "standard input"
_URL = re.compile(r"(https?|oci)://", re.ASCII | re.IGNORECASE)
_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}(/\S*)?", re.ASCII)
_PATH = re.compile(r"\.{1,2}([/\\]|$)|[/\\~]|[A-Za-z]:[/\\]", re.ASCII)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://", re.ASCII)
# What a bundle's own pack leaves when it is killed.
_BEGUN = {".modelpack", "blobs", "oci-layout", "README.txt", "SHA256SUMS", "SHA256SUMS.new"}
_COMPRESSED = {".gz": "gzip", ".tgz": "gzip", ".zip": "zip", ".zst": "zstd", ".xz": "xz", ".bz2": "bzip2"}


@dataclass(frozen=True)
class Located:
    """A locator taken apart: the store's own words, and the model that `#NAME` picks.

    The name of an installed model comes out as the models directory that has it: `installed` is true then.
    """

    text: str
    pick: str | None
    installed: bool = False

    @classmethod
    def parse(cls, text: str, look: Installed | None = None) -> Located:
        """Split *text* at its `#`, unless a file is named just so; a name alone is looked up in *look*.

        Usage where a word is both a path and a model; NotFound where it is neither.
        """
        look = look or Installed.here()
        there = not _URL.match(text) and os.path.lexists(os.path.expanduser(text))
        if there and not _PATH.match(text) and look.names(text):
            raise Usage(
                f"{text!r} is a file here, and an installed model",
                advice=f"Write ./{text} for the file, or {Name.parse(text)} for the model.",
            )
        if there or text == "-":
            return cls(text, None)
        place, mark, pick = text.rpartition("#")
        if mark:
            if not place or not pick:
                raise Usage(f"{text!r} is not a locator", advice="Write LOCATOR#NAME to pick one model.")
            return cls(place, pick)
        if _PATH.match(text) or _SCHEME.match(text) or not text:
            return cls(text, None)
        try:
            store, model = look.get(Name.parse(text))
        except (Usage, NotFound) as error:
            advice = error.advice if isinstance(error, NotFound) else ""
            what = "no such file or directory"
            raise NotFound(
                f"{what}, and {error.what}" if advice else what, where=text[:200], advice=advice
            ) from None
        return cls(str(store.path), model.name.full, installed=True)


def source(
    text: str,
    *,
    expect: Digest | None = None,
    look: Installed | None = None,
    quantize: str | None = None,
    anew: bool = False,
    report: Report = silent,
) -> Source:
    """The store that *text* names: a bundle (file, folder, `-` for a pipe), a models directory, loose files.

    Loose files are a GGUF (with its shards), a Modelfile (its base looked up in *look*), a folder of either,
    a Hugging Face snapshot, an unpacked model. *quantize* makes a recipe of loose files. With *anew*, every
    byte of an unpacked model is read, and where one was changed another model is made of what is there (a
    Note to *report* says so). Content decides, never a suffix. Raises NotFound, Unsupported, Corrupt or Usage
    with what it saw there.
    """
    found = _source(text, expect, Loose(look or Installed.here(), quantize, anew, report))
    if quantize is not None and not isinstance(found, LooseFiles | LooseGguf):
        raise Usage(
            "--quantize is for GGUFs and safetensors that are not installed yet",
            where=text,
            advice="In Ollama: `ollama create NEW -f Modelfile --quantize …`, and pack that.",
        )
    if expect is not None and not isinstance(found, Archive | FolderBundle | PipeSource):
        raise Usage("has no fingerprint to expect: it is not a bundle", where=text)
    return found


def _source(text: str, expect: Digest | None, loose: Loose) -> Source:
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
        return store_in(path, expect, loose)
    if path.is_fifo():  # as a shell's <(command) is
        return PipeSource(StreamReader(os.open(path, os.O_RDONLY), text), text, expect=expect)
    if not path.is_file():
        raise NotFound("is neither a file nor a directory (or a link that leads nowhere)", where=text)
    return store_of(path, expect, loose)


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
    return sorted(name for name in names if name not in known and not on_every_volume(name))


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


def plain_target(
    text: str, source: Source | None = None, *, modelfile: bool = True, replace: bool = False
) -> Target:
    """Where `unpack` writes plain files: a directory, made where it is missing."""
    path = _path(text)
    if _URL.match(text) or (os.path.lexists(path) and not path.is_dir()):
        raise Usage("is no directory", where=text, advice="Name a new or an empty directory.")
    if others := [name for name in OTHERS if os.path.lexists(path / name)]:
        what = f"is a bundle or a models directory: it has {', '.join(others)}"
        raise Refused(what, where=text, advice="Name a new or an empty directory.")
    return PlainFolder(path, source=source, modelfile=modelfile, replace=replace)


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


def picked(store: Source, names: Sequence[str], where: object) -> list[Model]:
    """The models of *store* that are named (all where none is), as `choose` finds them, to be taken from it.

    Corrupt where names, sizes or Modelfiles tell that an unpacked one was changed. Its bytes are looked at by
    whoever keeps them.
    """
    chosen = choose(store.models(), names, where, store)
    if isinstance(store, PlainFolder) and (changed := store.look(chosen)):
        advice = "Unpack it again; or `modelpack pack` makes another model of what is there now."
        raise Corrupt(changed[0], where=where, advice=advice)
    return chosen


def choose(
    models: Sequence[Model], names: Sequence[str], where: object, store: Source | None = None
) -> list[Model]:
    """The models named (all where none is), each recipe after its base; NotFound lists what there is.

    Of a *store* that is a models directory, a manifest of that name that cannot be read raises why.
    """
    if not names:
        if not models:
            raise NotFound("holds no model", where=where)
        return by_base(models)
    chosen: list[Model] = []
    for name in names:
        wanted = Name.parse(name)
        found = [model for model in models if model.name == wanted]  # names may differ in case alone
        found = found or [model for model in models if model.name.folded == wanted.folded]
        if not found and isinstance(store, ModelsDir):
            store.read(wanted)
        if not found:
            there = ", ".join(str(model.name) for model in models[:10]) or "nothing"
            more = f", and {len(models) - 10} more" if len(models) > 10 else ""
            raise NotFound(f"has no model {name!r}; it has: {there}{more}", where=where)
        chosen += [model for model in found if model not in chosen]
    return by_base(chosen)
