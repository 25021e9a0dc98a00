"""From a locator to a store: this module and what it imports here name all of them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelpack.documents.model import Model, by_base
from modelpack.errors import Corrupt, NotFound, Usage
from modelpack.hands.bytes import StreamReader
from modelpack.hands.system import binary
from modelpack.stores import Singles, Source
from modelpack.stores.archive import Archive
from modelpack.stores.files import LooseFiles, LooseGguf
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.pipe import PipeSource
from modelpack.stores.plain import PlainFolder
from modelpack.stores.volumes import VolumeSet
from modelpack.verbs.installed import Installed
from modelpack.verbs.marks import Loose, store_in, store_of
from modelpack.verbs.registries import HTTPS, Access, is_registry, only_registries, registry_source
from modelpack.verbs.targets import SCHEME, URL, path_of
from modelpack.verbs.targets import bundle_target as bundle_target
from modelpack.verbs.targets import is_server as is_server
from modelpack.verbs.targets import plain_target as plain_target
from modelpack.verbs.targets import target as target
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.report import Report, silent

if TYPE_CHECKING:
    from modelpack.hands.callback import Calling

_STDIN = "standard input"
_PATH = re.compile(r"\.{1,2}([/\\]|$)|[/\\~]|[A-Za-z]:[/\\]", re.ASCII)


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
        there = not URL.match(text) and os.path.lexists(os.path.expanduser(text))
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
            if is_registry(place):  # a registry holds too many to list: the name is a part of the address
                return cls(f"{place.rstrip('/')}/{pick}", None)
            return cls(place, pick)
        if _PATH.match(text) or SCHEME.match(text) or not text:
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
    access: Access = HTTPS,
    calling: Calling | None = None,
    also: Sequence[Path] = (),
    report: Report = silent,
) -> Source:
    """The store that *text* names: a bundle (file, folder, `-` for a pipe), a models directory, loose files,
    (`oci://…`) a model in a registry, talked to as *access* says, or (`http://…`) the models of a server,
    which it sends to us as *calling* says.

    Loose files are a GGUF (with its shards), a Modelfile (its base looked up in *look*), a folder of either,
    a Hugging Face snapshot, an unpacked model. *quantize* makes a recipe of loose files. With *anew*, every
    byte of an unpacked model is read, and where one was changed another model is made of what is there (a
    Note to *report* says so). Content decides, never a suffix. Raises NotFound, Unsupported, Corrupt or Usage
    with what it saw there.
    """
    if is_registry(text):
        found = registry_source(text, access)
    elif is_server(text):
        found = server_source(text, calling)
    else:
        only_registries(text, access)
        loose = Loose(look or Installed.here(), quantize, anew, report, tuple(also))
        found = _source(text, expect, loose)
    if quantize is not None and not isinstance(found, LooseFiles | LooseGguf):
        raise Usage(
            "--quantize is for GGUFs and safetensors that are not installed yet",
            where=text,
            advice="In Ollama: `ollama create NEW -f Modelfile --quantize …`, and pack that.",
        )
    if expect is not None and not isinstance(found, Archive | FolderBundle | PipeSource | VolumeSet):
        raise Usage("has no fingerprint to expect: it is not a bundle", where=text)
    return found


def _source(text: str, expect: Digest | None, loose: Loose) -> Source:
    if text == "-":
        return PipeSource(StreamReader(binary(sys.stdin.fileno()), _STDIN), _STDIN, expect=expect)
    path = path_of(text)
    if not os.path.lexists(path):
        raise NotFound("no such file or directory", where=text)
    if path.is_dir():
        return store_in(path, expect, loose)
    if path.is_fifo():  # as a shell's <(command) is
        return PipeSource(StreamReader(os.open(path, os.O_RDONLY), text), text, expect=expect)
    if not path.is_file():
        raise NotFound("is neither a file nor a directory (or a link that leads nowhere)", where=text)
    return store_of(path, expect, loose)


def only_servers(texts: Sequence[str], calling: Calling | None) -> None:
    """Usage where *calling* is given, and none of *texts* is a server that could call back."""
    if calling is not None and not any(is_server(text) for text in texts):
        raise Usage("--callback, --listen and --no-listen are for servers")


def server_source(text: str, calling: Calling | None = None) -> Source:
    """The models of the server at *text*, read back from it by push."""
    from modelpack.hands.callback import Calling  # here: both cost a good part of a start
    from modelpack.hands.ollama import Ollama
    from modelpack.stores.server import ServerSource

    return ServerSource(Ollama(text), calling or Calling())


def at_server(url: str, text: str) -> str:
    """The locator of what *text* means where names are those of the server at *url*.

    That is asked where a file has the name, too: Usage where it is both.
    """
    if "#" in text or SCHEME.match(text) or _PATH.match(text) or text == "-":
        return text
    there = os.path.lexists(text)
    try:
        name = Name.parse(text)
    except Usage:
        if there:
            return text
        raise
    if there and _has(url, name):
        raise Usage(
            f"{text!r} is a file here, and a model of the server",
            advice=f"Write ./{text} for the file, or {url}#{name} for the model.",
        )
    return text if there else f"{url}#{name}"


def _has(url: str, name: Name) -> bool:
    from modelpack.hands.ollama import Ollama  # here: it costs a good part of a start

    with Ollama(url) as client:
        return name.folded in client.installed()


def picked(store: Source, names: Sequence[str], where: object) -> list[Model]:
    """The models of *store* that are named (all where none is), as `choose` finds them, to be taken from it.

    Corrupt where names, sizes or Modelfiles tell that an unpacked one was changed. Its bytes are looked at by
    whoever keeps them.
    """
    if names and isinstance(store, Singles):
        return by_base([_single(store, name, where) for name in dict.fromkeys(names)])
    models = store.models()
    if not names and isinstance(store, ModelsDir):
        from modelpack.hands.temporary import is_temporary  # here: it brings the client along

        models = [model for model in models if not is_temporary(model.name)]
    chosen = choose(models, names, where, store)
    if isinstance(store, PlainFolder) and (changed := store.look(chosen if names else None)):
        advice = "Unpack it again; or `modelpack pack` makes another model of what is there now."
        raise Corrupt(changed[0], where=where, advice=advice)
    return chosen


def _single(store: Singles, name: str, where: object) -> Model:
    found = store.single(Name.parse(name))
    if found is None:
        raise NotFound(f"has no model {name!r}", where=where, advice="`modelpack ollama list` shows them.")
    return found


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
