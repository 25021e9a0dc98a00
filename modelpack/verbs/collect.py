"""One drive and many discs: the good blocks of each come together in one folder, until the set is whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelpack.documents.volumes import Descriptor
from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unchecked
from modelpack.hands.blocks import hash_blocks
from modelpack.hands.disk import Folder, open_path
from modelpack.verbs.collect_papers import papers_into
from modelpack.verbs.collect_parts import Part, Parts
from modelpack.verbs.hashes import cores
from modelpack.verbs.trust import Signed
from modelpack.verbs.volumes import candidates, size_of
from modelpack.verbs.volumes_look import Looked, State, judge, look, touched
from modelpack.verbs.volumes_papers import Papers, papers, vouches
from modelpack.verbs.volumes_signed import another_set
from modelpack.words.report import Moved, Report, Stage, silent
from modelpack.words.volume import Volume

_FLIPPED = 16  # bytes of a descriptor: a fingerprint has 64 digits


@dataclass
class Collected:
    """What came of it: the set, volumes that were `made` whole now, those that were there, and the rest.

    `begun` says of volumes that are kept in part which blocks they lack. `problems` are media that are bad or
    foreign. `papers` are other files that were copied, `wrong` what is wrong with those in the folder.
    """

    descriptor: Descriptor
    made: list[Part] = field(default_factory=list)
    there: list[int] = field(default_factory=list)
    begun: dict[int, tuple[int, ...]] = field(default_factory=dict)
    papers: list[str] = field(default_factory=list)
    problems: list[ModelpackError] = field(default_factory=list)
    wrong: list[ModelpackError] = field(default_factory=list)

    @property
    def need(self) -> tuple[int, ...]:
        """Numbers of the volumes that are not whole."""
        whole = {*self.there, *(one.volume.n for one in self.made)}
        return tuple(one.n for one in self.descriptor.volumes if one.n not in whole)


def collect(
    sources: Sequence[Path],
    into: Path,
    report: Report = silent,
    stem: str | None = None,
    *,
    notes: bool = True,
    signed: Signed | None = None,
    begun: Callable[[Collected], object] = bool,
) -> Collected:
    """Put what *sources* (folders, volumes, a whole tar) have of a set together in the folder *into*.

    Every block is hashed on its way; where it is right it is kept, whatever its file is called and whatever
    else is wrong with it. A volume gets its name when all of it is there; until then its blocks wait for the
    next run, with the next disc. Right volumes in *into* stay; one that is replaced is kept aside. With
    *notes*, those that an earlier run has made are read again only when nothing else is needed any more.
    Once it is known what *into* has, *begun* gets the result, which fills up from there on.

    Where it was *signed* well, what was signed is what comes: no other set, no other papers.

    Raises as `papers` does, Unexpected where it is not the set that was signed, Refused where *sources* hold
    another set than *into*, Local where *into* cannot keep what comes. A medium that is bad, or goes away, is
    among the problems.
    """
    for one in sources:
        if not one.is_dir():
            os.close(open_path(one))  # mistyped, or not mounted
    folders = list(dict.fromkeys(one if one.is_dir() else one.absolute().parent for one in sources))
    said = _set_of(folders, into, stem, signed)
    descriptor = said.descriptor
    if signed is not None and (
        signed.set_id not in (None, descriptor.id) or signed.fingerprint not in (None, descriptor.bundle)
    ):
        raise another_set(into)
    result = Collected(descriptor)
    with Folder.at(into, create=True) as root:
        root.lock()  # of two runs, the second looks when the first has done
        parts = Parts(root, descriptor, report)
        try:
            papers_into(parts, folders, said, signed, result.papers, result.problems)
            known = parts.known() if notes else set()
            ours = _take_stock(parts, into, known, result, report)
            begun(result)
            _take(sources, ours, parts, result, result.problems, report)
            if known and not result.need:  # nothing is called whole that was not read
                result.there = [n for n in result.there if n not in known]
                if rotten := _take_stock(parts, into, set(), result, report, known):
                    _take(sources, rotten, parts, result, [], report)
                result.there.sort()
            result.made.sort(key=lambda one: one.volume.n)
            result.begun = {
                n: tuple(sorted(one.missing))
                for n, one in parts.parts.items()
                if 0 < len(one.missing) < len(one.volume.blocks)
            }
        finally:
            parts.close()
    result.wrong = papers([into], descriptor.stem, signed).problems
    return result


def _set_of(folders: Sequence[Path], into: Path, stem: str | None, signed: Signed | None) -> Papers:
    """What is gathered: the set that was *signed*, or that *into* holds already, or that *folders* hold."""
    if signed is not None and signed.set_id is not None:
        return papers([*folders, *([into] if into.is_dir() else [])], stem, signed)
    try:
        ours = papers([into], stem) if into.is_dir() else papers(folders, stem)
    except (Unchecked, Corrupt):  # no descriptor, or a damaged one
        return papers(folders, stem)
    for folder in folders:
        try:
            theirs = papers([folder], ours.descriptor.stem).descriptor
        except (Unchecked, Corrupt):  # what its bytes are is seen from them
            continue
        if theirs.id != ours.descriptor.id and vouches(folder, theirs):
            damaged = _akin(ours.descriptor, theirs) or not _has_any(into, ours.descriptor)
            if not vouches(into, ours.descriptor) and damaged:
                return papers(folders, stem)
            raise Refused(
                f"holds another set of the name {theirs.stem} than {into}",
                where=folder,
                advice="Gather it into a folder of its own.",
            )
    return ours


def _akin(one: Descriptor, other: Descriptor) -> bool:
    """Whether two descriptors are of one set, one of them damaged: all but a few bytes are the same.

    Those of two right sets, be these ever so alike, differ in every digit of the fingerprint, and in more.
    """
    ours, theirs = one.raw(), other.raw()
    changed = (a != b for a, b in zip(ours, theirs, strict=False))
    return len(ours) == len(theirs) and sum(changed) <= _FLIPPED


def _has_any(folder: Path, descriptor: Descriptor) -> bool:
    """Whether some volume in *folder* begins as *descriptor* says: then it is of this set, papers or not."""
    for volume in descriptor.volumes:
        with contextlib.suppress(ModelpackError):
            fd = open_path(folder / volume.name)
            try:
                if _begins(fd, volume, descriptor.block_size, folder / volume.name):
                    return True
            finally:
                os.close(fd)
    return False


def _take(
    sources: Sequence[Path],
    ours: Sequence[Path],
    parts: Parts,
    result: Collected,
    problems: list[ModelpackError],
    report: Report,
) -> None:
    """Offer all that *sources* have, and what is left of *ours*; volumes appear as they get whole."""
    for source in sources:
        before = len(problems)
        here = candidates(source, parts.descriptor, problems) if source.is_dir() else [source]
        if not here and len(problems) == before and any(not one.whole for one in parts.parts.values()):
            stem = parts.descriptor.stem
            problems.append(NotFound(f"has nothing that could be a volume of the set {stem}", where=source))
        for path in here:
            _feed(path, parts, problems, report)
            result.made += parts.appear()  # at once: the next may be the one that breaks
    for path in ours:
        _feed(path, parts, [], report)
    result.made += parts.appear()  # also what an earlier run had whole, and not named


def _take_stock(
    parts: Parts, into: Path, known: set[int], result: Collected, report: Report, only: set[int] | None = None
) -> list[Path]:
    """Look at what *into* has (of the volumes *only*), but for those *known*; damaged or foreign files."""
    damaged = []
    volumes = [one for one in parts.descriptor.volumes if only is None or one.n in only]
    report(
        Stage(
            "checking what is there", sum(size_of(into / one.name) for one in volumes if one.n not in known)
        )
    )
    for volume in volumes:
        there = volume.n in known
        if not there and parts.root.file_size(volume.name) is not None:
            found = look(into / volume.name, [parts.descriptor], report=report)
            there = found.state is State.GOOD and found.volume == volume
            if not there:
                damaged.append(into / volume.name)
        if there:
            result.there.append(volume.n)
        else:
            parts.want(volume)
    return damaged


def _feed(path: Path, parts: Parts, problems: list[ModelpackError], report: Report) -> None:
    """Offer every block of the file at *path*, a volume or the whole tar; what is wrong joins *problems*.

    Of a file that is called as a volume that is whole already only the first block is read, to see whether it
    is that. Raises Local, where this side cannot keep something.
    """
    descriptor = parts.descriptor
    named = next((one for one in descriptor.volumes if one.name == path.name), None)
    lacking = [one.volume for one in parts.parts.values() if not one.whole]
    if not lacking:
        return
    try:
        fd = open_path(path)
        if named is not None and named not in lacking and _begins(fd, named, descriptor.block_size, path):
            os.close(fd)
            return
    except ModelpackError as error:
        problems.append(error)
        return
    size = whole = os.fstat(fd).st_size
    if named is not None and size not in {one.size for one in descriptor.volumes}:
        size = min(size, named.size)
    joined = named is None and size == descriptor.size
    per = len(descriptor.volumes[0].blocks) if joined else 0
    hashes: dict[int, bytes | None] = {}

    def take(index: int, digest: bytes | None, data: memoryview) -> None:
        hashes[index] = digest
        parts.offer(index % per if per else index, digest, data, str(path))

    report(Stage("gathering", size))
    try:
        hash_blocks(
            fd, size, descriptor.block_size, take, path,
            hands=min(cores(), 3), whole=True, moved=lambda count: report(Moved(count)),
        )  # fmt: skip
    except Unchecked as error:
        problems.append(error)
        return
    finally:
        os.close(fd)
    if not joined:
        found = [hashes[index] for index in sorted(hashes)]
        state, volume, bad, why = judge(descriptor, found, whole, path.name)
        models = touched(descriptor, volume, bad) if volume is not None else ()
        problem = Looked(path, state, volume, bad, models=models, why=why).problem
        if problem is not None and (volume is not None or named is not None):
            problems.append(problem)


def _begins(fd: int, volume: Volume, block: int, where: Path) -> bool:
    """Whether the first block of the file is that of *volume*."""
    found: list[bytes | None] = []
    size = min(os.fstat(fd).st_size, block, volume.size)
    with contextlib.suppress(Unchecked):
        hash_blocks(fd, size, block, lambda _, digest, __: found.append(digest), where)
    return found == [volume.blocks[0]]
