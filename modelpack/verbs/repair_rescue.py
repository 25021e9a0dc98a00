"""The documents of a damaged bundle: its own where their digests say so, else those of its other copies."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial

from modelpack.documents.contents import Contents, Read, read_contents
from modelpack.documents.expects import FILE_NAME
from modelpack.documents.oci import blob_path, bundle
from modelpack.documents.sums import MOST_SUMS, parse_sums, sums_say
from modelpack.errors import Corrupt, ModelpackError, NotFound
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.volumes import VolumeSet
from modelpack.verbs.repair_spares import Spare
from modelpack.words.blob import SMALL
from modelpack.words.digest import Digest

_SUMS = "SHA256SUMS"


def rescued(read: Read, where: object, spares: Sequence[Spare]) -> tuple[Contents, bool]:
    """What the bundle says whose files *read* gives, as far as its own digests vouch for it.

    And whether a SHA256SUMS belongs to it, right or not. Raises Corrupt, with what is wrong,
    where index.json is damaged and nothing says which one it was.
    """
    others = _Others(read)
    try:
        contents = read_contents(others.read, where)
        return contents, contents.sums is not None
    except (Corrupt, NotFound) as error:
        first = error
    others.learn(spares)
    for index in others.indexes():
        try:
            contents = read_contents(partial(others.instead, index), where)
        except (Corrupt, NotFound):
            continue
        if Digest.of(index) == others.wanted or is_ours(contents):
            return contents, True
    raise Corrupt(
        f"its documents are damaged, and leave nothing to go by ({first.what})",
        where=where,
        advice="Another bundle of the same fingerprint, as --from, has them; else pack it again.",
    )


def is_ours(contents: Contents) -> bool:
    """Whether its index is, to the byte, what modelpack writes of its models; else another tool wrote it."""
    return bundle(contents.models, contents.index.foreign, contents.delta).index == contents.index.raw


def is_there(read: Read, path: str, raw: bytes) -> bool:
    """Whether the document *raw* lies at *path*, or beside it as a pack leaves it that is killed late."""
    late = "/" not in path and path != "index.json"
    for name in (path, f"{path}.new") if late else (path,):
        with contextlib.suppress(Corrupt, NotFound):
            if read(name, len(raw)) == raw:
                return True
    return False


class _Others:
    """A bundle's own files, and documents of others that can stand in: by digest, or not at all."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._pool: dict[str, bytes] = {}
        self._indexes: list[bytes] = []
        self.wanted: Digest | None = None
        """What SHA256SUMS says of index.json, where it can be read."""

    def learn(self, spares: Sequence[Spare]) -> None:
        """Take in the documents of *spares*."""
        for spare in spares:
            if isinstance(spare.source, Archive | FolderBundle | VolumeSet):
                contents = spare.source.contents
                self._pool |= contents.documents
                self._pool[f"{FILE_NAME}.new"] = contents.delta.raw()  # looked for where the first is wrong
                self._indexes.append(contents.index.raw)
            self._pool |= {blob_path(one.document.id): one.document.raw for one in spare.models}

    def indexes(self) -> list[bytes]:
        """What index.json may have been: what lies there, and what SHA256SUMS says and another bundle has."""
        found = []
        try:
            self.wanted = sums_say(parse_sums(self._read(_SUMS, MOST_SUMS), _SUMS), "index.json")
        except ModelpackError:
            self.wanted = None
        try:
            found.append(self._read("index.json", SMALL))
        except (Corrupt, NotFound):
            pass
        return found + [one for one in self._indexes if Digest.of(one) == self.wanted]

    def instead(self, index: bytes, path: str, most: int) -> bytes:
        """As `read`, with *index*, and no sums: those are not believed any more."""
        if path == "index.json":
            return index
        if path.startswith(_SUMS):
            raise NotFound(f"{path} is left out")
        return self.read(path, most)

    def read(self, path: str, most: int) -> bytes:
        """The bundle's own file, or what stands in for it."""
        stand_in = self._pool.get(path)
        try:
            raw = self._read(path, most)
        except (Corrupt, NotFound):
            if stand_in is None:
                raise
            return stand_in
        ours = stand_in is None or not path.startswith("blobs/") or blob_path(Digest.of(raw)) == path
        return raw if ours or stand_in is None else stand_in
