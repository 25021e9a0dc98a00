"""Volumes that come together block by block, from whatever has a right block, over any number of runs."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from modelpack.documents.gojson import parse_object
from modelpack.documents.volumes import Descriptor
from modelpack.errors import ModelpackError, Refused, from_os
from modelpack.hands.blocks import hash_blocks
from modelpack.hands.disk import Folder
from modelpack.hands.scratch import SCRATCH, check_room, make_room
from modelpack.hands.writeback import Writer
from modelpack.verbs.hashes import cores
from modelpack.words.blob import KIB
from modelpack.words.report import Moved, Report, Stage
from modelpack.words.volume import Volume

_PREFIX = "gathered-"
_ASIDE = "bad"
_NOTES = 256 * KIB


@dataclass
class Part:
    """A `volume` that is coming together: the blocks that are `missing`, the bytes `written` in this run."""

    volume: Volume
    missing: set[int]
    written: int = 0
    sources: list[str] = field(default_factory=list)
    aside: str = ""
    named: bool = False
    fd: int = -1
    writer: Writer | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def whole(self) -> bool:
        """Whether every block of it is there."""
        return not self.missing


class Parts:
    """Every volume of a set that the folder *root* lacks, each under a name that nobody takes for real.

    What a file has of its volume is told by its blocks' hashes: no list beside it could lie. Which volumes of
    *root* this verb has made is noted, so that they need not be read again for every disc.
    """

    def __init__(self, root: Folder, descriptor: Descriptor, report: Report) -> None:
        self.root, self.descriptor, self._report = root, descriptor, report
        self._ours = root.folder(SCRATCH, create=True)
        self._mark = descriptor.id.hex[:16]
        self.parts: dict[int, Part] = {}
        self._wanted: dict[tuple[int, bytes], list[Part]] = {}

    def close(self) -> None:
        """Put down what is not whole; the next run finds it."""
        for part in self.parts.values():
            self._shut(part)
            if len(part.missing) == len(part.volume.blocks):
                self._ours.remove(self._name(part))
        if not any(not part.whole for part in self.parts.values()):
            self._ours.remove(self._notes_name)
        self._ours.close()
        with contextlib.suppress(ModelpackError):  # something is kept in it
            self.root.remove(SCRATCH)

    def want(self, volume: Volume) -> Part:
        """*volume* is to come together; what an earlier run kept of it counts."""
        part = Part(volume, set(range(len(volume.blocks))))
        self.parts[volume.n] = part
        name = self._name(part)
        size = min(self._ours.file_size(name) or 0, volume.size)
        if (there := self._ours.stat(name)) is not None and there.st_nlink > 1:
            self._ours.remove(name)  # what is written there would come into another file, too
            size = 0

        def take(index: int, digest: bytes | None, _data: memoryview) -> None:
            if digest == volume.blocks[index]:
                part.missing.discard(index)

        if size:
            self._report(Stage("checking what is kept", size))
            fd = self._ours.open_file(name)
            try:
                hash_blocks(
                    fd, size, self.descriptor.block_size, take, self._ours.path / name,
                    hands=cores(), moved=lambda count: self._report(Moved(count)),
                )  # fmt: skip
            finally:
                os.close(fd)
        for index in part.missing:
            self._wanted.setdefault((index, volume.blocks[index]), []).append(part)
        return part

    def offer(self, index: int, digest: bytes | None, data: memoryview, place: str) -> None:
        """A block at the position *index* of some volume: kept wherever it is the right one and missing.

        In any thread. Raises Local, where this side cannot keep it.
        """
        for part in self._wanted.get((index, digest), ()) if digest is not None else ():
            with part.lock:
                if index in part.missing:
                    try:
                        self._writer(part).write_at(data, index * self.descriptor.block_size)
                    except OSError as error:
                        raise from_os(error, self.root.path / part.volume.name) from error
                    part.missing.discard(index)
                    part.written += len(data)
                    if place not in part.sources:
                        part.sources.append(place)

    def appear(self) -> Iterator[Part]:
        """Give the volumes that are whole by now their names; a file that stood there is kept aside."""
        for part in self.parts.values():
            if part.whole and not part.named:
                writer = self._writer(part)
                try:
                    os.ftruncate(part.fd, part.volume.size)  # whatever a broken run left behind its end
                    writer.finish()
                except OSError as error:
                    raise from_os(error, self.root.path / part.volume.name) from error
                self._shut(part)  # an open file cannot be renamed on Windows
                part.aside = self.aside(part.volume.name)
                self._ours.rename(self._name(part), self.root, part.volume.name)
                self.root.sync()
                part.named = True
                self._note(part.volume)
                yield part

    def document(self, name: str, raw: bytes) -> None:
        """Give the small file *name* the bytes *raw*; another one of that name is kept aside."""
        new = f"{_PREFIX}document"
        self._write(new, raw)
        self.aside(name)
        self._ours.rename(new, self.root, name)
        self.root.sync()

    def known(self) -> set[int]:
        """Numbers of volumes of which it is noted that an earlier run has made them, and no other since.

        That is no proof: bits that rot change no time, and a note can be planted.
        """
        notes = self._notes()
        return {one.n for one in self.descriptor.volumes if notes.get(str(one.n), 0) == self._seen(one)}

    def _seen(self, volume: Volume) -> list[int] | None:
        there = self.root.stat(volume.name)
        return there and [there.st_size, there.st_mtime_ns, there.st_ctime_ns, there.st_ino]

    @property
    def _notes_name(self) -> str:
        return f"{_PREFIX}{self._mark}.json"

    def _notes(self) -> dict[str, object]:
        try:
            return parse_object(self._ours.read(self._notes_name, _NOTES), self._notes_name)
        except ModelpackError:
            return {}

    def _note(self, volume: Volume) -> None:
        notes = self._notes() | {str(volume.n): self._seen(volume)}
        new = f"{self._notes_name}.new"
        self._write(new, json.dumps(notes).encode())
        self._ours.rename(new, self._ours, self._notes_name)

    def _write(self, name: str, raw: bytes) -> None:
        self._ours.remove(name)  # of a run that was killed
        fd = self._ours.create(name, 0o666)
        try:
            writer = Writer(fd)
            writer.write_at(memoryview(raw), 0)
            writer.finish()
        except OSError as error:
            raise from_os(error, self._ours.path) from error
        finally:
            os.close(fd)

    def _name(self, part: Part) -> str:
        return f"{_PREFIX}{self._mark}-{part.volume.n:03}"

    def _writer(self, part: Part) -> Writer:
        if part.writer is None:
            name, size = self._name(part), part.volume.size
            there = self._ours.stat(name)
            if there is None:
                part.fd = self._ours.create(name, 0o666)
                make_room(part.fd, size, self.root)
            else:
                part.fd = self._ours.open_file(name, write=True)
                if os.fstat(part.fd).st_nlink > 1:
                    raise Refused(
                        "appeared meanwhile, as another name of a file", where=self._ours.path / name
                    )
                check_room(self.root, size - (getattr(there, "st_blocks", 0) * 512 or there.st_size))
            part.writer = Writer(part.fd)
        return part.writer

    def _shut(self, part: Part) -> None:
        if part.writer is not None:
            part.writer.close()
            part.writer = None
        if part.fd >= 0:
            os.close(part.fd)
            part.fd = -1

    def aside(self, name: str) -> str:
        """Keep what is called *name* in a place of ours, too; where, if anything is."""
        if self.root.file_size(name) is None:
            return ""
        with self._ours.folder(_ASIDE, create=True) as bad:
            for number in range(1, 1000):
                new = f"{name}-{number}"
                with contextlib.suppress(Refused):
                    self.root.link(name, bad, new)
                    bad.sync()
                    return str(bad.path / new)
        raise Refused("too many damaged files are kept there", where=bad.path)
