"""Files that travel along with models: hashed before they are packed, given back where they are unpacked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from modelpack.documents.contents import Contents
from modelpack.documents.extras import ATTACHMENT, FOLDER, STRIPPED, Attachment, path_of
from modelpack.documents.sums import sums_say
from modelpack.documents.volumes import SUMS
from modelpack.errors import Corrupt, Local, ModelpackError, NotFound, Partly, Taken, Unchecked, Usage
from modelpack.hands.bytes import FileReader
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import check, pour
from modelpack.hands.scratch import workshop
from modelpack.stores import Source
from modelpack.stores.pipe import PipeSource
from modelpack.stores.volumes import VolumeSet
from modelpack.verbs.hashes import hash_files
from modelpack.verbs.volumes_papers import sums_in
from modelpack.words.blob import SMALL, Blob
from modelpack.words.digest import Digest
from modelpack.words.filename import folded
from modelpack.words.report import Moved, Report, Stage, silent


class Told(Protocol):
    """A bundle whose small files can be read."""

    @property
    def contents(self) -> Contents:
        """What its documents say."""
        ...

    def read(self, path: str, most: int) -> bytes:
        """The small file at *path*; NotFound, or Corrupt where it has more than *most* bytes."""
        ...


@runtime_checkable
class Attaches(Told, Protocol):
    """A bundle that can be read in any order."""

    def attachments(self) -> tuple[Attachment, ...]:
        """The files that were attached, as far as they are there."""
        ...


def attached(paths: Sequence[Path], report: Report = silent) -> tuple[Attachment, ...]:
    """The plain files at *paths* as attachments, each under its own name; all of them are hashed.

    Raises Usage for a directory, or a name that does not travel; NotFound, Refused, Local.
    """
    for path in paths:
        if path.is_dir():
            raise Usage("is a directory", where=path, advice="Attach files; `tar` makes one of a directory.")
        _at(path, Blob(0, ATTACHMENT))  # what is wrong with its name is said before the first is read
    found = []
    for one in hash_files(paths, report):
        if one.error is not None:
            raise one.error
        found.append(_at(one.path, Blob(one.size, ATTACHMENT, one.sha256, key=one.path)))
    return tuple(found)


def _at(path: Path, blob: Blob) -> Attachment:
    return Attachment(path.name, blob, partial(FileReader.at, path))


def attachments_of(source: Source) -> tuple[Attachment, ...]:
    """What was attached to *source*, as far as it is there; nothing of what is no bundle, nor of a pipe."""
    return source.attachments() if isinstance(source, Attaches) else ()


def merged(given: Sequence[Attachment], carried: Sequence[tuple[Attachment, str]]) -> tuple[Attachment, ...]:
    """*given* and *carried*, each with the bundle that it is of; of one name, the given one stays alone.

    Raises Usage where two bundles have different files of one name.
    """
    names = {folded(one.name) for one in given}
    kept: dict[str, tuple[Attachment, str]] = {}
    for one, place in carried:
        if folded(one.name) in names:
            continue
        other, first = kept.setdefault(folded(one.name), (one, place))
        if (other.name, other.blob.digest) != (one.name, one.blob.digest):
            raise Usage(
                f"two different files called {one.name!r} were attached to {first} and to {place}",
                advice="Name the one that is meant by --attach (`unpack` gives it back), or pack them apart.",
            )
    return (*given, *(one for one, _ in kept.values()))


def stripped(bundle: Told, lines: Mapping[str, Digest] | None = None) -> tuple[str, ...]:
    """Those of README.txt and restore.py that SHA256SUMS lists and that did not come along.

    Of a set it is STEM.sha256, or *lines*, what of it was signed; its copies need not all be there. Of a pipe
    this has to be asked before a blob has passed. Raises Corrupt where one was changed.
    """
    if isinstance(bundle, VolumeSet):
        return _stripped(bundle, lines)
    gone = []
    for path in STRIPPED:
        digest = sums_say(bundle.contents.sums or {}, path)
        if digest is None:
            continue
        found = [_digest(bundle, name) for name in (path, f"{path}.new")]  # as a killed pack leaves it
        if found == [None, None]:
            gone.append(path)
        elif digest not in found:
            raise _changed(path, "SHA256SUMS")
    return tuple(gone)


def uncovered(bundle: Source) -> tuple[str, ...]:
    """What of *bundle*, a bundle or a set, its fingerprint says nothing of, and a signature does.

    Those are its attachments, README.txt and restore.py, as SHA256SUMS lists them.
    """
    if not isinstance(bundle, Attaches | PipeSource):
        return ()
    sums = bundle.contents.sums or {}
    others = [one for one in STRIPPED if sums_say(sums, one) is not None]
    return (*(path_of(name) for name, _ in bundle.contents.attachments), *others)


def _changed(path: object, sums: str) -> Corrupt:
    return Corrupt(
        f"{path} is not the one that {sums} covers: it was changed",
        advice="Do not run it. Copy the bundle again, or use another copy.",
    )


def _stripped(bundle: VolumeSet, lines: Mapping[str, Digest] | None) -> tuple[str, ...]:
    known = [lines] if lines is not None else []
    for path in bundle.folders if lines is None else ():
        with contextlib.suppress(ModelpackError), Folder.at(path) as folder:  # a damaged copy says nothing
            known.append(sums_in(folder, bundle.descriptor))
    gone = []
    for name in STRIPPED:
        due = {sums_say(one, name) for one in known} - {None}
        there = False
        for path in bundle.folders if due else ():
            with contextlib.suppress(NotFound, Local, Unchecked), Folder.at(path) as folder:
                if Digest.of(folder.read(name, SMALL)) not in due:
                    raise _changed(path / name, f"{bundle.descriptor.stem}{SUMS}")
                there = True
        if due and not there:
            gone.append(name)
    return tuple(gone)


def _digest(bundle: Told, path: str) -> Digest | None:
    try:
        return Digest.of(bundle.read(path, SMALL))
    except NotFound:
        return None


@contextlib.contextmanager
def returned(
    source: Source, directory: Path, *, replace: bool = False, report: Report = silent
) -> Iterator[list[Attachment]]:
    """Around an unpacking of *source*: what was attached to it comes to lie in *directory*/attachments.

    Gives the list of those that are there at the end; from a pipe they are written as they pass. A file that
    is there with the same bytes stays; Taken, before anything moves, where another one has the name, unless
    that may go by *replace*. Raises Corrupt where an attachment is damaged, NotFound where one is missing.
    """
    names = source.contents.attachments if isinstance(source, Attaches | PipeSource) else ()
    same = {name for name, digest in names if _is_there(directory, name, digest, replace)}
    back: list[Attachment] = []

    def take(one: Attachment) -> None:
        if one.name not in same:
            _write(directory, one, report)
        back.append(one)

    def rest() -> None:
        for one in attachments_of(source):
            take(one)
        if lost := {name for name, _ in names} - {one.name for one in back}:
            raise NotFound(f"{path_of(min(lost))} is missing", advice="Use another copy of the bundle.")

    if isinstance(source, PipeSource):
        source.attaches = take
    try:
        yield back
    except Partly:  # the other models were unpacked
        rest()
        raise
    rest()


def _is_there(directory: Path, name: str, digest: Digest, replace: bool) -> bool:
    try:
        with Folder.at(directory) as root, root.folder(FOLDER) as folder:
            size = folder.file_size(name)
            if size is None:
                return False
            with FileReader(folder.open_file(name), 0, size, folder.path / name) as reader:
                same = pour(reader, size).sha256 == digest
    except NotFound:
        return False
    if not same and not replace:
        raise Taken(
            "is there, and is another file than the one that was attached",
            where=directory / FOLDER / name,
            advice="Use --replace to have it replaced, or name another directory.",
        )
    return same


def _write(directory: Path, one: Attachment, report: Report) -> None:
    report(Stage("attachments", one.blob.size))
    todo = {one.path: one.blob.size}
    with (
        Folder.at(directory, create=True) as root,
        workshop(root, todo, mode=0o666) as scratch,
        root.folder(FOLDER, create=True) as folder,
        scratch.new(one.blob.size) as file,
        one.open() as reader,
    ):
        file.writer.moved = lambda count: report(Moved(count))
        hashes = pour(reader, one.blob.size, file.writer.appending(), where=one.path)
        check(one.blob, hashes, one.path)
        file.appear(folder, one.name)
