"""A bundle in volumes: read from one or several folders without joining them, written into one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from modelpack.documents.contents import Contents, read_contents
from modelpack.documents.layout import BLOCK, END
from modelpack.documents.sums import parse_sums, sums_say
from modelpack.documents.tarred import Tarred
from modelpack.documents.tarwalk import walk
from modelpack.documents.volumes import DESCRIPTOR, SUMS, Descriptor, stem_of
from modelpack.errors import Corrupt, ModelpackError, NotFound, Unexpected, Usage
from modelpack.hands.disk import Folder
from modelpack.hands.slices_read import Joined, JoinedReader
from modelpack.words.blob import SMALL
from modelpack.words.digest import Digest
from modelpack.words.reader import read_exactly

_SHOWN = 3
_MOST_SETS = 32  # descriptors of a folder
_MOST_READ = 2 * SMALL  # bytes of descriptors that differ


def descriptors(
    folders: Sequence[Path], stem: str | None = None
) -> tuple[list[tuple[Path, Descriptor, bytes]], list[ModelpackError]]:
    """The descriptors in *folders* (of the set *stem*, where that is given) and their bytes; what is wrong.

    Copies are held once. Raises what keeps a folder from being listed: NotFound, Refused, Local; Usage where
    there are too many, or too large ones.
    """
    found: list[tuple[Path, Descriptor, bytes]] = []
    wrong: list[ModelpackError] = []
    kept: dict[bytes, tuple[Descriptor, bytes]] = {}
    for path in dict.fromkeys(folders):
        with Folder.at(path) as folder:
            names = [one for one in folder.names() if (of := stem_of(one)) and stem in (None, of)]
            if len(names) > _MOST_SETS:
                raise _too_many(path)
            for name in names:
                try:
                    raw = folder.read(name, SMALL)
                    one, raw = kept.get(raw) or (Descriptor.parse(raw, path / name), raw)
                    if one.name != name:
                        raise Corrupt(
                            f"describes the set {one.stem}: it was renamed",
                            where=path / name,
                            advice=f"Call it {one.name} again.",
                        )
                except ModelpackError as error:
                    wrong.append(error)
                    continue
                kept[raw] = one, raw
                if sum(map(len, kept)) > _MOST_READ:
                    raise _too_many(path)
                found.append((path / name, one, raw))
    return found, wrong


def _too_many(where: Path) -> Usage:
    return Usage(
        "too many sets lie there to tell which is meant",
        where=where,
        advice=f"Name the *{DESCRIPTOR} that is meant, or keep each set in a folder of its own.",
    )


def read_descriptor(
    folders: Sequence[Path], stem: str | None = None, set_id: Digest | None = None
) -> Descriptor:
    """The one set in *folders*, or the one called *stem*; a damaged copy of a descriptor counts for nothing.

    Where the very set is known, as by a signature, no other counts than the one with this *set_id*.

    NotFound where there is no descriptor; Corrupt where all are damaged; Usage where there are several sets,
    or two of the same name.
    """
    there, failed = descriptors(folders, stem)
    where = ", ".join(map(str, folders))
    if not there and not failed:
        called = f"{stem or 'STEM'}{DESCRIPTOR}"
        raise NotFound(
            f"has no {called}: nobody knows what the volumes should be",
            where=where,
            advice="It lies beside every copy of a set: fetch it from one, or `cat` the volumes to one .tar.",
        )
    good: dict[bytes, tuple[Path, Descriptor]] = {}
    for path, descriptor, raw in there:
        good.setdefault(raw, (path, descriptor))
    if not good:
        raise failed[0]
    if set_id is not None:
        good = {raw: one for raw, one in good.items() if one[1].id == set_id} or good
    named = {named_by_sums(one, folder) for _, one in good.values() for folder in folders}
    vouched = {raw: one for raw, one in good.items() if one[1].id in named}
    if len(good) > 1 and len({one.stem for _, one in good.values()}) == 1 and vouched:
        good = vouched  # a copy that was damaged, and is JSON still: its sums say that it is another one
    paths = [path for path, _ in good.values()]
    if len({path.name for path in paths}) > 1:
        raise Usage(
            f"holds several sets: {', '.join(path.name for path in paths[:_SHOWN])}",
            where=where,
            advice=f"Name the one that is meant, as in {paths[0]}",
        )
    if len(good) > 1:
        raise Usage(
            f"two different sets have the name {next(iter(good.values()))[1].stem}: "
            f"{', '.join(str(path) for path in paths[:_SHOWN])}",
            where=where,
            advice="Other models, or other sizes. Name folders that hold one of them.",
        )
    return next(iter(good.values()))[1]


def distinct(folders: Sequence[Path]) -> tuple[Path, ...]:
    """*folders*, each once, whatever it is called."""
    return tuple({os.path.realpath(one): one for one in folders}.values())


def named_by_sums(descriptor: Descriptor, folder: Path) -> Digest | None:
    """The digest that the STEM.sha256 in *folder* has for the descriptor of that name; None where nobody can
    tell. Anybody may have written it.
    """
    name = descriptor.stem + SUMS
    try:
        with Folder.at(folder) as opened:
            return sums_say(parse_sums(opened.read(name, SMALL), folder / name), descriptor.name)
    except ModelpackError:
        return None


class VolumeSet(Tarred[JoinedReader]):
    """The set in *folders*, the one called *stem* where they hold several: a source, and a bundle.

    With *expect*, a bundle of any other fingerprint is Refused before anything of it is parsed. A block that
    is damaged in one folder is read from another; NotFound says `need: 3, 7` where volumes are missing.
    """

    def __init__(
        self, folders: Sequence[Path], *, stem: str | None = None, expect: Digest | None = None
    ) -> None:
        if not folders:
            raise Usage("no folder is named to look for volumes in")
        self.folders = distinct(folders)
        self.path = self.folders[0]
        self.stem = stem
        self.set_id: Digest | None = None
        """The set that counts, where others of its name lie there, too: set where a signature says which."""
        self._expect = expect

    @cached_property
    def descriptor(self) -> Descriptor:
        """What the set says of itself; Unexpected where it is not of the bundle that was expected."""
        found = read_descriptor(self.folders, self.stem, self.set_id)
        if self._expect is not None and found.bundle != self._expect:
            raise Unexpected(
                f"is not the bundle that was expected: its fingerprint is {found.bundle}, not {self._expect}",
                where=self.path / found.name,
                advice="Do not load it; ask where it came from.",
            )
        return found

    @cached_property
    def joined(self) -> Joined:
        """The tar, as far as volumes are there."""
        descriptor = self.descriptor
        return Joined(descriptor.volumes, descriptor.block_size, self.folders, self._whose)

    def _whose(self, offset: int, length: int) -> str:
        names = list(dict.fromkeys(one.name for one in self.descriptor.touched(offset, length)))
        return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")

    @property
    def where(self) -> Path:
        """What errors are about: the set's descriptor."""
        return self.path / self.descriptor.name

    @cached_property
    def contents(self) -> Contents:
        """What its documents say, all of them checked, the descriptor against them."""
        found = read_contents(self.read, self.where, self._expect)
        if found.fingerprint != self.descriptor.bundle:
            raise Corrupt(
                f"describes the bundle {self.descriptor.bundle}; its volumes are of {found.fingerprint}",
                where=self.where,
                advice="Somebody made this on purpose: do not use it.",
            )
        return found

    @cached_property
    def members(self) -> dict[str, tuple[int, int]]:
        """Where each file of the tar begins, and its bytes; NotFound where volumes are missing, Corrupt."""
        self.joined.complete()
        with contextlib.suppress(ModelpackError):
            # Headers lie far apart, and a block each would have to be read to check them.
            found = dict(walk(self.joined.unchecked, self.joined.size, self.where))
            offset, length = max(found.values(), default=(0, 0))
            if offset + length + -length % BLOCK + len(END) == self.joined.size:  # zeros are no end
                return found
        return self._members

    @cached_property
    def _members(self) -> dict[str, tuple[int, int]]:
        return dict(walk(self._checked, self.joined.size, self.where))

    def _find(self, path: str) -> tuple[int, int] | None:
        """Where *path* lies; what is not there is looked for in headers that were checked, too."""
        return self.members.get(path) or self._members.get(path)

    def _checked(self, count: int, offset: int) -> bytes:
        count = min(count, self.joined.size - offset)
        with self._stretch(offset, count) as reader:
            return read_exactly(reader, count, "the tar")

    def _stretch(self, offset: int, size: int) -> JoinedReader:
        """Checked block by block, as every byte that comes from here."""
        return self.joined.open(offset, size)

    def begins(self, raw: bytes) -> bool:
        """Whether the tar begins with *raw*, its documents."""
        return len(raw) <= self.joined.size and self._checked(len(raw), 0) == raw
