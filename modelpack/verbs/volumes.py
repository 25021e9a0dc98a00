"""Is a volume whole? Each alone, in any order, whatever it is called now; and all of a set together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelpack.documents.volumes import DESCRIPTOR, SUMS, Descriptor
from modelpack.errors import ModelpackError, Refused, Unexpected
from modelpack.hands.disk import Folder
from modelpack.stores.volumes import VolumeSet
from modelpack.verbs.trust import Signed
from modelpack.verbs.verdict import Remark, Verdict, check_blobs
from modelpack.verbs.volumes_look import Looked as Looked
from modelpack.verbs.volumes_look import State as State
from modelpack.verbs.volumes_look import look
from modelpack.verbs.volumes_papers import papers, unreadable
from modelpack.words.digest import Digest
from modelpack.words.report import Report, Stage, silent
from modelpack.words.volume import Volume

_VOLUME = re.compile(rf"\.tar\.\d{{3}}$|{re.escape(DESCRIPTOR)}$", re.ASCII)


@dataclass
class Set:
    """What was found of a set in some folders: each copy of each volume, wrong papers, what is odd."""

    descriptor: Descriptor
    copies: list[Looked] = field(default_factory=list)
    problems: list[ModelpackError] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    """What was not checked, in sentences."""

    def of(self, volume: Volume) -> list[Looked]:
        """The copies of *volume*."""
        return [one for one in self.copies if one.volume is not None and one.volume.n == volume.n]

    def whole(self, volume: Volume) -> bool:
        """Whether the copies of *volume* together have every block of it."""
        left = set(range(len(volume.blocks)))
        for one in self.of(volume):
            if one.state in (State.GOOD, State.DAMAGED, State.SHORT):
                left &= set(one.bad)
        return not left

    @property
    def need(self) -> tuple[int, ...]:
        """The numbers of volumes that these folders do not give, not even from several copies together."""
        return tuple(one.n for one in self.descriptor.volumes if not self.whole(one))

    @property
    def unsure(self) -> tuple[int, ...]:
        """Those of `need` of which there is a copy that could not be read: it may be good."""
        unread = {one.volume.n for one in self.copies if one.volume and one.state is State.UNCHECKED}
        return tuple(n for n in self.need if n in unread)

    @property
    def good(self) -> bool:
        """Whether every volume can be had, and the papers are right."""
        return not self.need and not self.problems


def verify_set(
    folders: Sequence[Path],
    stem: str | None = None,
    *,
    expect: Digest | None = None,
    signed: Signed | None = None,
    sha256: bool = False,
    read_back: bool = False,
    report: Report = silent,
) -> Set:
    """Check every volume of the set (of this *stem*) that lies in *folders*, and the papers beside them.

    Where it was *signed* well, what was signed is what counts. Raises what keeps it from looking: as of
    `papers`, Unexpected where the bundle is not *expect*. A folder that goes away later is among the problems
    (Unchecked).
    """
    said = papers(folders, stem, signed)
    if expect not in (None, said.descriptor.bundle):
        raise _unexpected(said.descriptor, expect, folders[0])
    foreign = {one.where: one for one in said.remarks if one.kind == "foreign"}  # by their names, so far
    others = [one for one in said.remarks if one.kind != "foreign"]
    found = Set(said.descriptor, problems=said.problems, remarks=others)
    paths = [path for folder in folders for path in candidates(folder, said.descriptor, found.problems)]
    report(Stage("checking", sum(size_of(path) for path in paths)))
    for path in paths:
        try:
            one = look(path, [said.descriptor], sha256=sha256, read_back=read_back, report=report)
        except ModelpackError as error:
            volume = next((v for v in said.descriptor.volumes if v.name == path.name), None)
            one = Looked(path, State.UNCHECKED, volume, why=unreadable(error).what)
        if one.volume is None and path.name not in {v.name for v in said.descriptor.volumes}:
            foreign.setdefault(
                str(path), Remark("foreign", "is not of this set, and was not used", str(path))
            )
            continue
        found.copies.append(one)
        if one.volume is not None and one.volume.name != path.name:
            foreign.pop(str(path), None)
            what = f"holds volume {one.volume.n}"
            advice = (
                f"Rename it before you join the set by `cat` or check it by {said.descriptor.stem}{SUMS}."
            )
            found.remarks.append(Remark("misnamed", what, str(path), advice))
    found.remarks += foreign.values()
    found.copies.sort(key=lambda one: one.volume.n if one.volume is not None else 0)
    return found


def _unexpected(descriptor: Descriptor, expect: Digest | None, where: Path) -> Unexpected:
    return Unexpected(
        f"is not the bundle that was expected: its fingerprint is {descriptor.bundle}, not {expect}",
        where=where,
        advice="Do not load it; ask where it came from.",
    )


def check_documents(
    found: Set, folders: Sequence[Path], *, blobs: bool = False, report: Report = silent
) -> None:
    """Hold the documents in the tar itself against the descriptor, where nothing else is wrong so far.

    Each volume may be what the descriptor says, and the bundle another one. With *blobs*, all of those are
    read, too, and held against the documents. What is wrong joins the problems.
    """
    if not found.good:
        return
    store = VolumeSet(folders, stem=found.descriptor.stem)
    try:
        models = store.contents.models  # they are held against the descriptor there
    except ModelpackError as error:
        found.problems.append(error)
        return
    if blobs:
        verdict = Verdict()
        check_blobs(store, models, verdict, False, report, store.expects)
        found.problems += verdict.problems


def has_volumes(path: Path, also: Sequence[Path] = ()) -> bool:
    """Whether *path* is a volume, a descriptor or a folder of them, and not a bundle or a models directory.

    Those are known by their own marks, whatever else was put into their folder.
    """
    if any((path / one).exists() for one in ("oci-layout", "index.json", "manifests")):
        return False
    return is_volumes(path, also)


def is_volumes(path: Path, also: Sequence[Path] = ()) -> bool:
    """Whether *path* is to be taken for a volume, a descriptor, or a folder of them; no bytes are looked at.

    A volume that was renamed is known by a descriptor beside it, or in one of the folders *also*.
    """
    if path.is_dir():
        try:
            with Folder.at(path) as folder:
                return bool(also) or any(_VOLUME.search(name) for name in folder.names())
        except ModelpackError:
            return False
    if not path.is_file():
        return False
    beside = (path.absolute().parent, *also)
    return bool(_VOLUME.search(path.name)) or (path.suffix != ".tar" and any(map(_has_descriptor, beside)))


def _has_descriptor(folder: Path) -> bool:
    try:
        with Folder.at(folder) as opened:
            return any(name.endswith(DESCRIPTOR) for name in opened.names())
    except ModelpackError:
        return False


def candidates(folder: Path, descriptor: Descriptor, problems: list[ModelpackError]) -> list[Path]:
    """The plain files in *folder* that may be volumes: by name, by what their name begins with, or by size.

    A folder that cannot be listed is one more of the *problems*.
    """
    names = {one.name for one in descriptor.volumes}
    sizes = {one.size for one in descriptor.volumes}
    found = []
    try:
        with Folder.at(folder) as opened:
            for name in opened.names():
                like = name in names or name.startswith(f"{descriptor.stem}.tar.")
                try:
                    size = opened.file_size(name)
                except Refused as error:
                    if like:
                        problems.append(error)
                    continue
                if size is not None and (like or size in sizes):
                    found.append(folder / name)
    except ModelpackError as error:
        problems.append(unreadable(error))
    return found


def size_of(path: Path) -> int:
    """Bytes of *path*; 0 where it is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
