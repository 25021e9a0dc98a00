"""What is signed of a bundle or a set, and where its signature lies: raw bytes, nothing parsed before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from modelpack.documents.sshsig import BUNDLE, FILE_NAME, LIMIT, SET, SUMS
from modelpack.documents.sums import MOST_SUMS, parse_sums, sums_say
from modelpack.documents.volumes import DESCRIPTOR, Descriptor, stem_of
from modelpack.documents.volumes import SUMS as SET_SUMS
from modelpack.errors import Corrupt, ModelpackError, NotFound, Unchecked, Usage
from modelpack.hands.disk import Folder
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.pipe import PipeSource
from modelpack.stores.volumes import VolumeSet
from modelpack.words.blob import SMALL
from modelpack.words.digest import Digest

_CHANGED = "Use another copy. Do not load it."


Signable = Archive | FolderBundle | PipeSource | VolumeSet
"""What can be signed. Never asked for by a Protocol: to look for `contents` would parse them."""


class Papers(Protocol):
    """What is signed, and by what: of a bundle, or of a set."""

    namespace: str
    sums_name: str
    signature_name: str
    inside: tuple[Path, ...]
    """Folders that are the bundle's own."""
    beside: tuple[Path, ...]
    """Files that it consists of where it is no folder: the tar, and its signature."""

    def sums(self) -> list[bytes]:
        """What is signed: SHA256SUMS, or the different copies of STEM.sha256."""
        ...

    def signatures(self, given: bytes | None) -> list[tuple[bytes, bytes]]:
        """What is signed, and a signature over it (*given*, or the one at its place); nothing: unsigned."""
        ...

    def covered(self, sums: bytes) -> tuple[Digest, Mapping[str, Digest] | None, Digest | None]:
        """What *sums*, which are signed, say: fingerprint, lines, set id; Corrupt where they do not fit."""
        ...

    def fingerprint(self) -> Digest:
        """SHA-256 of index.json, whoever vouches for it."""
        ...

    def set_id(self) -> Digest | None:
        """SHA-256 of the descriptor that is read by; None where there is none."""
        ...


def papers_of(store: Signable) -> Papers:
    """The papers of *store*."""
    return _OfSet(store) if isinstance(store, VolumeSet) else _OfBundle(store)


class _OfBundle:
    namespace, sums_name = BUNDLE, SUMS

    def __init__(self, store: Archive | FolderBundle | PipeSource) -> None:
        self.inside: tuple[Path, ...] = (store.path,) if isinstance(store, FolderBundle) else ()
        self.beside: tuple[Path, ...] = (store.path, store.signature) if isinstance(store, Archive) else ()
        self._read = store.read
        self._at: Path | None = None
        if isinstance(store, FolderBundle):
            self._at = store.path / FILE_NAME
        elif isinstance(store, Archive):
            self._at = store.signature
        self.signature_name = self._at.name if self._at is not None else "signature in a pipe (--signature)"

    def sums(self) -> list[bytes]:
        return [self._read(SUMS, MOST_SUMS)]

    def signatures(self, given: bytes | None) -> list[tuple[bytes, bytes]]:
        raw = given if given is not None or self._at is None else beside(self._at)
        return [] if raw is None else [(self.sums()[0], raw)]

    def covered(self, sums: bytes) -> tuple[Digest, Mapping[str, Digest] | None, Digest | None]:
        lines = parse_sums(sums, SUMS)
        signed = sums_say(lines, "index.json")
        if signed is None or self.fingerprint() != signed:
            raise Corrupt("index.json is not the one that was signed", advice=_CHANGED)
        return signed, lines, None

    def fingerprint(self) -> Digest:
        return Digest.of(self._read("index.json", SMALL))

    def set_id(self) -> Digest | None:
        return None


class _OfSet:
    namespace = SET

    def __init__(self, store: VolumeSet) -> None:
        self._store = store
        self.inside: tuple[Path, ...] = store.folders
        self.beside: tuple[Path, ...] = ()
        stem = store.stem or _stem_in(store.folders)
        self.sums_name, self._descriptor = stem + SET_SUMS, stem + DESCRIPTOR
        self.signature_name = f"{self.sums_name}.sig"

    def sums(self) -> list[bytes]:
        found = self._copies(self.sums_name, SMALL)
        if not found:
            raise NotFound(f"{self.sums_name} is missing: it is what is signed", where=self.inside[0])
        return found

    def signatures(self, given: bytes | None) -> list[tuple[bytes, bytes]]:
        found = [given] if given is not None else self._copies(self.signature_name, LIMIT)
        return [(sums, one) for sums in self.sums() for one in found] if found else []

    def covered(self, sums: bytes) -> tuple[Digest, Mapping[str, Digest] | None, Digest | None]:
        lines = parse_sums(sums, self.sums_name)
        signed = sums_say(lines, self._descriptor)
        copies = self._copies(self._descriptor, SMALL)
        if not copies:
            raise Unchecked(
                f"could not check: {self._descriptor}, which was signed, is missing", where=self.inside[0]
            )
        for raw in copies:
            if Digest.of(raw) != signed:
                continue
            found = Descriptor.parse(raw, self._descriptor)
            if any(sums_say(lines, one.name) != one.sha256 for one in found.volumes):
                raise Corrupt(
                    f"{self.sums_name} and {self._descriptor} contradict each other", advice=_CHANGED
                )
            return found.bundle, lines, signed
        raise Corrupt(f"{self._descriptor} is not the one that was signed", advice=_CHANGED)

    def _copies(self, name: str, most: int) -> list[bytes]:
        """The copies of a file on all media, as far as they differ; raises where none of them can be read."""
        found: dict[bytes, None] = {}
        failed: ModelpackError | None = None
        for folder in self.inside:
            try:
                raw = beside(folder / name, most)
            except ModelpackError as error:
                failed = failed or error
            else:
                found |= {} if raw is None else {raw: None}
        if failed is not None and not found:
            raise failed
        return list(found)

    def fingerprint(self) -> Digest:
        return self._store.descriptor.bundle  # its index.json is held against it when it is read

    def set_id(self) -> Digest | None:
        return self._store.descriptor.id


def _stem_in(folders: Sequence[Path]) -> str:
    """The one stem that the descriptors in *folders* are called by; NotFound, or Usage for several."""
    found: set[str] = set()
    for path in folders:
        with Folder.at(path) as folder:
            found |= {stem for name in folder.names() if (stem := stem_of(name)) is not None}
    where = ", ".join(map(str, folders))
    if not found:
        raise NotFound(f"has no STEM{DESCRIPTOR}", where=where)
    if len(found) > 1:
        names = [stem + DESCRIPTOR for stem in sorted(found)[:3]]
        raise Usage(
            f"holds several sets: {', '.join(names)}",
            where=where,
            advice=f"Name the one that is meant, as in {folders[0] / names[0]}",
        )
    return found.pop()


def beside(path: Path, most: int = LIMIT) -> bytes | None:
    """The small file at *path*; None where there is none; Refused for a link, Corrupt where it is larger."""
    with Folder.at(path.parent) as folder:
        return None if folder.stat(path.name) is None else folder.read(path.name, most)
