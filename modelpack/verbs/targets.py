"""From a locator to a target: where bundles, plain files and models are written."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelpack.documents.expects import NOTHING, Expects
from modelpack.documents.extras import NONE, Extras
from modelpack.documents.model import Model
from modelpack.documents.readme import readme
from modelpack.errors import NotFound, Refused, Usage
from modelpack.hands.system import binary
from modelpack.stores import Source, Target
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.pipe import PipeTarget
from modelpack.stores.plain import OTHERS, PlainFolder
from modelpack.stores.volumes_target import VolumesTarget
from modelpack.verbs.registries import HTTPS, Access, is_registry, only_registries, registry_target
from modelpack.words.digest import Digest
from modelpack.words.filename import on_every_volume

if TYPE_CHECKING:
    from modelpack.verbs.ways import Wish

URL = re.compile(r"(https?|oci)://", re.ASCII | re.IGNORECASE)
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://", re.ASCII)
_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}(/\S*)?", re.ASCII)
# What a bundle's own pack leaves when it is killed.
_BEGUN = {
    ".modelpack",
    "blobs",
    "oci-layout",
    "README.txt",
    "SHA256SUMS",
    "SHA256SUMS.new",
    "expects.json",
    "expects.json.new",
    "attachments",
    "restore.py",
    "README.txt.new",
    "restore.py.new",
}
_COMPRESSED = {".gz": "gzip", ".tgz": "gzip", ".zip": "zip", ".zst": "zstd", ".xz": "xz", ".bz2": "bzip2"}


def path_of(text: str) -> Path:
    """The path that *text* means; raises Usage where it is none, or the address of something else."""
    if not text:
        raise Usage("an empty text is no place", advice="Is a variable unset?")
    if SCHEME.match(text):
        raise Usage(
            f"{text[:200]!r} is not a kind of address that modelpack knows here",
            advice=f"It knows http://, https:// and oci://; for a directory of that name write ./{text}",
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~nobody
        raise NotFound(str(error), where=text) from None


def _strangers(path: Path, known: set[str]) -> list[str]:
    """What lies in the directory *path* besides what is *known* and what systems put on every volume."""
    names = (one.name for one in path.iterdir())
    return sorted(name for name in names if name not in known and not on_every_volume(name))


@dataclass(frozen=True)
class Cut:
    """A bundle in volumes of at most `size` bytes, called after `stem` (None: the model)."""

    size: int
    stem: str | None = None


def bundle_target(
    text: str,
    *,
    replace: bool = False,
    expects: Expects = NOTHING,
    extras: Extras = NONE,
    cut: Cut | None = None,
) -> Target:
    """Where `pack -o` writes: `-` a pipe, `*.tar` one file, else a folder; less what it *expects* there.

    *extras* travel along. With a *cut* it is a folder of volumes.
    """
    if cut is not None:
        return _volumes(text, cut, replace, expects, extras)
    if text == "-":
        return PipeTarget(binary(sys.stdout.fileno()), expects=expects, extras=extras)
    path = path_of(text)
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
        return Archive(path, replace=replace, expects=expects, extras=extras)
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
    return FolderBundle(path, replace=replace, expects=expects, extras=extras)


def _volumes(text: str, cut: Cut, replace: bool, expects: Expects, extras: Extras) -> Target:
    path = path_of(text) if text != "-" else Path("-")
    if text == "-" or path.suffix.lower() == ".tar" or (os.path.lexists(path) and not path.is_dir()):
        raise Usage("volumes are written into a folder", where=text, advice="Name a new or an empty folder.")

    def papers(models: Sequence[Model]) -> bytes:
        return readme(
            models,
            script=Digest.of(extras.script) if extras.script is not None else None,
            volumes=True,
            attachments=[one.name for one in extras.attachments],
            expects=expects,
        )

    return VolumesTarget(
        path, cut.size, stem=cut.stem, replace=replace, expects=expects, extras=extras, readme=papers
    )


def plain_target(
    text: str, source: Source | None = None, *, modelfile: bool = True, replace: bool = False
) -> Target:
    """Where `unpack` writes plain files: a directory, made where it is missing."""
    path = path_of(text)
    if URL.match(text) or (os.path.lexists(path) and not path.is_dir()):
        raise Usage("is no directory", where=text, advice="Name a new or an empty directory.")
    if others := [name for name in OTHERS if os.path.lexists(path / name)]:
        what = f"is a bundle or a models directory: it has {', '.join(others)}"
        raise Refused(what, where=text, advice="Name a new or an empty directory.")
    return PlainFolder(path, source=source, modelfile=modelfile, replace=replace)


def target(
    text: str | None,
    source: Source | None = None,
    *,
    replace: bool = False,
    access: Access = HTTPS,
    wish: Wish | None = None,
) -> Target:
    """Where `load --to` brings models: a server (`http://…`, or `$OLLAMA_HOST` for None), a directory, or a
    registry (`oci://…`), talked to as *access* says.

    A server is loaded exactly, where it can call back, as *wish* says; Usage where that is given for another
    place. From *source* it learns what a model means, to tell it from one that has the name there.
    """
    only_registries(text, access)
    if text is None or is_server(text):
        return server(text, source, replace=replace, wish=wish)
    if wish is not None:
        raise Usage(
            "--exact, --create, --callback, --listen and --no-listen are for servers",
            where=text,
            advice="A models directory, a bundle and a registry get the same bytes anyway.",
        )
    if is_registry(text):
        return registry_target(text, access, replace=replace)
    path = path_of(text)
    if not os.path.lexists(path):
        if _HOST_PORT.fullmatch(text):
            raise Usage(
                f"{text!r} looks like a host and a port",
                advice=f"Did you mean http://{text}? For a directory of that name write ./{text}",
            )
        if path.suffix.lower() == ".tar":
            raise Usage(
                "is the name of a bundle; models are loaded into a server or a models directory",
                where=text,
                advice=f"`modelpack pack SOURCE -o {text}` makes a bundle.",
            )
        return ModelsDir(path, replace=replace)
    if not path.is_dir():
        return _inventory(path, replace)
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


def _inventory(path: Path, replace: bool) -> Target:
    """What `modelpack inventory` wrote of a host, as a target to plan for."""
    from modelpack.documents.inventory import Inventory  # here: only this one kind of target needs them
    from modelpack.stores.inventory import InventoryTarget
    from modelpack.verbs.telling import telling

    found = telling(path)
    if not isinstance(found, Inventory):
        raise Usage("is a file; models are loaded into a server or a models directory", where=path)
    return InventoryTarget(found, str(path), replace=replace)


def is_server(text: str) -> bool:
    """Whether *text* is the locator of a server: `http://…` or `https://…`."""
    return text.lower().startswith(("http://", "https://"))


def server(
    url: str | None, source: Source | None = None, *, replace: bool = False, wish: Wish | None = None
) -> Target:
    """The server at *url*, or at `$OLLAMA_HOST`: exactly where it can call back, else by create."""
    from modelpack.hands.ollama import Ollama  # here: requests costs a third of a start
    from modelpack.verbs.ways import ANY, server_target

    return server_target(Ollama(url), source, replace=replace, wish=wish or ANY)
