"""Sign a bundle or a set of volumes: its sums, by a key that somebody has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelpack.documents.sshsig import FILE_NAME, Signature
from modelpack.errors import Corrupt, Local, Refused, Unsupported
from modelpack.hands.disk import Folder
from modelpack.hands.scratch import Scratch
from modelpack.hands.sshsig import keygen
from modelpack.stores import Source
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.volumes import VolumeSet
from modelpack.verbs.papers import beside, papers_of
from modelpack.words.digest import Digest

_MODE = 0o644  # for everybody: it holds no secret


@dataclass(frozen=True)
class Made:
    """A signature at `path`, by the key `key` (`ED25519 SHA256:…`); `fingerprint` is the bundle's."""

    path: Path
    key: str
    fingerprint: Digest


def sign(store: Source, key: Path) -> Made:
    """Sign the bundle or set *store* by *key*: a private key's file, or the public one of an agent's key.

    The bundle's documents are checked before, its blobs are not: their digests are what is signed. The
    signature is written where `trust.check` looks for it, and read back by ssh-keygen. Refused where there
    is one already; Corrupt, NotFound, Local as they come; Unchecked where ssh-keygen is missing.
    """
    if not isinstance(store, Archive | FolderBundle | VolumeSet):
        raise Unsupported(
            "cannot be signed: it is no bundle in a file or folder, and no set of volumes",
            advice="Pack it first; sign what was packed.",
        )
    tool = keygen()
    papers = papers_of(store)
    path = _place(store, papers.signature_name)
    if beside(path) is not None:
        raise Refused("there is a signature already", where=path, advice="Remove it first.")
    copies = papers.sums()
    if len(copies) != 1:
        raise Corrupt(
            f"its folders have {len(copies)} different copies of {path.name[:-4]}", where=store.path
        )
    fingerprint, lines, set_id = papers.covered(copies[0])
    if isinstance(store, VolumeSet):
        whole = papers.set_id() == set_id
    else:
        whole = (store.fingerprint, store.contents.sums) == (fingerprint, lines)
    if not whole:
        raise Corrupt(
            "its sums do not cover what is there: a pack was broken off, or is under way",
            where=store.path,
            advice="Pack once more, then sign.",
        )
    raw = tool.sign(copies[0], key, papers.namespace)
    found = tool.holds(copies[0], Signature.parse(raw, key).raw, papers.namespace)
    if found.key is None:
        raise Local("what ssh-keygen wrote is no signature over the bundle", where=key, advice=found.words)
    with Folder.at(path.parent) as folder:
        scratch = Scratch(folder, ".signature.modelpack-", _MODE)
        scratch.sweep()
        with scratch.new(len(raw)) as file:
            file.writer.write_at(memoryview(raw), 0)
            file.appear(folder, path.name, replace=False)
    return Made(path, found.key, fingerprint)


def _place(store: Archive | FolderBundle | VolumeSet, name: str) -> Path:
    if isinstance(store, FolderBundle):
        return store.path / FILE_NAME
    return (store.path.parent if isinstance(store, Archive) else store.path) / name
