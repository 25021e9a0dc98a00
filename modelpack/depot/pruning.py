"""What a writable depot removes when it starts, as Ollama does since 0.21: blobs that no manifest names.

Source: PruneLayers in server/images.go, Manifests in manifest/manifest.go, Serve in server/routes.go; v0.33.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from pathlib import Path

from modelpack.depot.shelf import Directory
from modelpack.documents.model import Model
from modelpack.errors import ModelpackError, NotFound, Refused
from modelpack.hands import system
from modelpack.hands.disk import Folder
from modelpack.hands.scratch import SCRATCH
from modelpack.stores.models_dir_scan import Stray
from modelpack.words.digest import Digest

GRACE = 3600.0
"""Seconds for which a blob that nothing names is left: its manifest may be still to come."""
_BLOB = re.compile(r"sha256[:-][0-9a-fA-F]{64}", re.ASCII)
_PARTIAL = re.compile(_BLOB.pattern + r"-partial(-\d{1,10})?(\.json)?", re.ASCII)
_LEVELS = 4


def prune(directory: Directory) -> list[str]:
    """Remove the blobs that no manifest of *directory* names, and of pulls that did not end, once GRACE old.

    Gives their file names. As with Ollama nothing goes where a manifest cannot be read or has a name that is
    none (nobody knows what it names), nor with OLLAMA_NOPRUNE. On purpose the depot leaves more than Ollama:
    files in blobs/ that are neither blobs nor partial, all where there is no manifests/ or another run is at
    work in the directory, empty directories. Raises what keeps the directory from being read or changed.
    """
    if _is_set("OLLAMA_NOPRUNE"):
        return []
    removed: list[str] = []
    with contextlib.suppress(NotFound), directory.folders(()) as folders:
        folders[0].lock()  # as whoever gives a name to blobs does
        named = _named(directory, folders[0].path)
        with Folder.at(directory.path) as root:
            if named is None or _at_work(root):
                return []
            with root.folder("blobs") as blobs:
                for name in blobs.names():
                    if _is_orphan(blobs, name, named):
                        blobs.remove(name)
                        removed.append(name)
                blobs.sync()
    return removed


def _named(directory: Directory, manifests: Path) -> set[Digest | None] | None:
    """The blobs that manifests name; None where one of them cannot tell."""
    found: set[Digest | None] = set()
    for one in directory.store.scan():
        if isinstance(one, Model):
            found |= {blob.digest for blob in one.blobs}
        elif not isinstance(one, Stray) or _depth(one, manifests) == _LEVELS:
            return None  # elsewhere Ollama does not look: filepath.Glob of */*/*/*
    return found


def _depth(one: ModelpackError, manifests: Path) -> int:
    return len(os.path.relpath(one.where, manifests).split(os.sep))


def _at_work(root: Folder) -> bool:
    """Whether another run may be at work: it makes files in modelpack's own directory, and locks them.

    What dead runs left there counts no longer than blobs do, nor what a repair has set aside.
    """
    found = root.stat(SCRATCH)
    if found is None:
        return False
    if time.time() - found.st_mtime < GRACE or not stat.S_ISDIR(found.st_mode):
        return True
    with root.folder(SCRATCH) as ours:
        return any(_is_live(ours, name) for name in ours.names())


def _is_live(folder: Folder, name: str) -> bool:
    found = folder.stat(name)
    if found is None or not stat.S_ISREG(found.st_mode):
        return False
    with contextlib.suppress(NotFound, Refused):
        fd = folder.open_file(name)
        try:
            return not system.lock(fd, wait=False) or time.time() - found.st_mtime < GRACE
        finally:
            os.close(fd)
    return False


def _is_orphan(blobs: Folder, name: str, named: set[Digest | None]) -> bool:
    if _BLOB.fullmatch(name) is not None:
        if Digest.parse(name) in named:
            return False
    elif _PARTIAL.fullmatch(name) is None:
        return False
    found = blobs.stat(name)
    return found is not None and stat.S_ISREG(found.st_mode) and time.time() - found.st_mtime >= GRACE


def _is_set(variable: str) -> bool:
    """As Go's strconv.ParseBool has it; what it cannot read counts as set (envconfig/config.go)."""
    return os.environ.get(variable, "") not in ("", "0", "f", "F", "false", "False", "FALSE")
