"""The target side of `volumes`: a set is written in order, and its descriptor appears last of all."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from modelpack.documents.expects import NOTHING, Expects
from modelpack.documents.extras import NONE, README, SCRIPT, Extras
from modelpack.documents.layout import Layout, tar_layout
from modelpack.documents.model import Model, agreed, blobs_of
from modelpack.documents.oci import Bundle, bundle
from modelpack.documents.volumes import (
    BLOCK_SIZE,
    DESCRIPTOR,
    SUMS,
    Descriptor,
    check_stem,
    contents_of,
    default_stem,
    stem_of,
    sums_of,
)
from modelpack.errors import ModelpackError, Refused, Taken, Usage
from modelpack.hands.disk import Folder
from modelpack.hands.scratch import SCRATCH
from modelpack.hands.slices import Slices, bench, put_texts
from modelpack.stores import Placed, Session
from modelpack.stores.volumes import VolumeSet
from modelpack.stores.volumes_session import Cutting, differing, documents, unsettled
from modelpack.words.blob import SMALL, Blob
from modelpack.words.digest import Digest
from modelpack.words.filename import on_every_volume
from modelpack.words.report import Moved, Report, silent
from modelpack.words.text import size as shown_size
from modelpack.words.volume import MOST_VOLUMES

SIGNATURE = f"{SUMS}.sig"
_PART = re.compile(
    r"([a-z0-9_][a-z0-9._-]{0,39}?)(\.tar\.\d{3}|\.volumes\.json|\.sha256|\.sha256\.sig)", re.ASCII
)

Readme = Callable[[Sequence[Model]], bytes]
"""The README.txt that lies beside the volumes, for models all of whose hashes are known."""


class VolumesTarget:
    """A set in the folder *path*, made where it is missing: a tar, cut every *volume_size* bytes.

    The tar is the one that `Archive` would write, byte for byte. *stem* begins every file's name, by default
    after the first model. With *replace*, another set there goes once this one is whole. What is written
    leaves out the blobs that it *expects* at the target, and holds *extras*; *readme* and restore.py (of
    *extras*) lie beside the volumes, too. *volume_size* is whole blocks of *block_size*; that is another one
    in tests only.
    """

    def __init__(
        self,
        path: Path,
        volume_size: int,
        *,
        stem: str | None = None,
        replace: bool = False,
        expects: Expects = NOTHING,
        extras: Extras = NONE,
        readme: Readme | None = None,
        block_size: int = BLOCK_SIZE,
    ) -> None:
        if volume_size <= 0 or volume_size % block_size:
            raise Usage(f"a volume of {volume_size} bytes is not whole blocks")
        self.path, self.volume_size, self.block_size = path, volume_size, block_size
        self._stem = check_stem(stem) if stem is not None else None
        self._replace = replace
        self._leaves, self._extras, self._readme = expects, extras, readme
        self._settled: tuple[Model, ...] = ()
        self.descriptor: Descriptor | None = None
        """Of the set that was written, or found to be there already."""

    @property
    def fingerprint(self) -> Digest:
        """SHA-256 of the index.json that was written, or found to be there already."""
        if self.descriptor is None:
            raise Refused("nothing was written yet", where=self.path)
        return self.descriptor.bundle

    def takes_unread(self, models: Sequence[Model]) -> bool:
        """Not where a set is there to compare with, nor where two blobs might turn out to be one."""
        sizes = [blob.size for blob in blobs_of(models)]
        unread = [blob for blob in blobs_of(models) if blob.digest is None]
        compared = not self._replace and bool(self._look(models))
        return not unread or (not compared and all(sizes.count(blob.size) == 1 for blob in unread))

    def in_order(self) -> bool:
        """Volumes are hashed as they are written, from the first byte to the last."""
        return True

    def leaves(self) -> frozenset[Digest]:
        """The blobs that are not written, since they are expected at the target."""
        return self._leaves.digests

    def missing(self, models: Sequence[Model]) -> Sequence[Blob]:
        """Everything that is not expected at the target, or nothing where the very same set is here.

        Taken where another set is, Refused where other files are, Usage where volumes would be too many.
        """
        self._settled = ()
        models = agreed(models)
        layout = self._layout(models)
        count = -(-layout.size // self.volume_size)
        if count > MOST_VOLUMES:
            raise Usage(
                f"{shown_size(layout.size)} would be {count} volumes; a set has {MOST_VOLUMES} at most",
                advice="Choose larger volumes: --volume-size.",
            )
        there = self._look(models)
        others = {name for name in there if stem_of(name) not in (None, self._name(models))}
        if len(others) > 1:
            raise Refused(
                f"holds several other sets ({', '.join(sorted(others)[:3])}); one alone can be replaced",
                where=self.path,
                advice="Choose another folder.",
            )
        if there and not others and self._same(models, layout):
            self._settled = tuple(models)
            return ()
        if there and not self._replace:
            raise Taken(
                f"holds volumes already ({there[0]}), not just those that this pack would write",
                where=self.path,
                advice="Use --replace to write them anew, --only to make some of the same set again, or "
                "choose another folder.",
            )
        return [blob for blob in blobs_of(models) if blob not in self._leaves]

    def placed(self, models: Sequence[Model]) -> Sequence[Placed | None]:
        """As Settled says, where `missing` has just found the set to be of the very models asked for."""
        there = {(one.name, one.document.id) for one in self._settled}
        return [
            Placed(model.name, model.document.id, True, "volumes")
            if (model.name, model.document.id) in there
            else None
            for model in models
        ]

    @contextlib.contextmanager
    def session(self, models: Sequence[Model], report: Report = silent) -> Iterator[Session]:
        """Write unfinished volumes in the folder; they get their names with the last model's commit."""
        models = agreed(models)
        layout = self._layout(models)
        with Folder.at(self.path, create=True) as folder, bench(folder) as there:
            if (before := self._look(models)) and not self._replace:
                raise Refused("appeared meanwhile", where=self.path / before[0])
            with Slices(
                there,
                self._name(models),
                layout.size,
                self.volume_size,
                block_size=self.block_size,
                late={n for begin, end in unsettled(layout) for n in self._volumes(begin, end)},
                moved=lambda count: report(Moved(count)),
            ) as slices:

                def finish(settled: Sequence[Model]) -> None:
                    """All was written: what was not known before goes in, and all get their names."""
                    made = self._bundle(settled)
                    final = tar_layout(made)
                    for offset, data in differing(layout, final, self.path):
                        slices.patch(data, offset)
                    self.descriptor = Descriptor(
                        self._name(models), made.fingerprint, layout.size, self.volume_size,
                        contents_of(settled, final), slices.finish(), self.block_size,
                    )  # fmt: skip
                    self._appear(slices, self.descriptor, settled, folder, there)

                yield Cutting(self.path, slices, models, layout, self._leaves, self._extras, report, finish)

    def tidy(self) -> None:
        """As Tidies says: what a run left that was killed between its last name and its end."""
        with contextlib.suppress(ModelpackError), Folder.at(self.path) as folder:
            if folder.stat(SCRATCH) is not None:
                with bench(folder):
                    pass

    def _volumes(self, begin: int, end: int) -> range:
        return range(begin // self.volume_size + 1, (end - 1) // self.volume_size + 2)

    def _appear(
        self, slices: Slices, descriptor: Descriptor, models: Sequence[Model], folder: Folder, there: Folder
    ) -> None:
        old = self._look(models)
        files = self._texts(descriptor, models)
        # All that needs room is on the medium before anything of an old set goes.
        texts = put_texts(there, files)
        last = put_texts(there, {descriptor.name: descriptor.raw()})
        for suffix in (DESCRIPTOR, SUMS, SIGNATURE):
            # One of the same name is none from here on: nobody takes what comes for a part of it.
            if descriptor.stem + suffix in old:
                folder.remove(descriptor.stem + suffix)
        folder.sync()
        slices.appear(folder, replace=self._replace)
        texts(folder)
        folder.sync()  # names reach the medium in this order, too
        last(folder)
        new = {*files, descriptor.name, *(one.name for one in descriptor.volumes)}
        for name in sorted(old, key=lambda one: stem_of(one) is not None):  # by its descriptor a next run
            if name not in new:  # knows what is left
                folder.remove(name)
        folder.sync()

    def _texts(self, descriptor: Descriptor, models: Sequence[Model]) -> dict[str, bytes]:
        """The small files beside the volumes and the descriptor; the sums come last."""
        files: dict[str, bytes] = {}
        if self._readme is not None:
            files[README] = self._readme(models)
        if self._extras.script is not None:
            files[SCRIPT] = self._extras.script
        files[descriptor.stem + SUMS] = sums_of(
            descriptor, {name: Digest.of(raw) for name, raw in files.items()}
        )
        return files

    def _name(self, models: Sequence[Model]) -> str:
        return self._stem or default_stem(models)

    def _bundle(self, models: Sequence[Model]) -> Bundle:
        return bundle(models, expects=self._leaves, extras=self._extras)

    def _layout(self, models: Sequence[Model]) -> Layout:
        return tar_layout(self._bundle(models))

    def _look(self, models: Sequence[Model]) -> list[str]:
        """Names in the folder that are of a set; Refused where others are, too."""
        if not os.path.lexists(self.path):
            return []
        with Folder.at(self.path) as folder:
            names = folder.names()
        stems = {stem_of(name) for name in names} | {self._name(models)}
        parts = {name: _PART.fullmatch(name) for name in names}
        found = [name for name, part in parts.items() if part is not None and part[1] in stems]
        found += [name for name in names if found and name in (README, SCRIPT)]
        strangers = [
            name for name in names if name not in found and name != SCRATCH and not on_every_volume(name)
        ]
        if strangers:
            raise Refused(
                f"is a directory with other things in it ({', '.join(strangers[:3])})",
                where=self.path,
                advice="Name a new or an empty folder for the volumes.",
            )
        return found

    def _same(self, models: Sequence[Model], layout: Layout) -> bool:
        """Whether this very set is here: its documents byte for byte, and volumes of the right sizes."""
        if any(blob.digest is None for blob in blobs_of(models)):
            return False
        there = VolumeSet([self.path], stem=self._name(models))
        try:
            descriptor = there.descriptor
            if (descriptor.volume_size, descriptor.block_size) != (self.volume_size, self.block_size):
                return False
            if (descriptor.size, descriptor.contents) != (layout.size, contents_of(models, layout)):
                return False
            # A BLAKE3 that nobody knows yet is the one that is noted there: the SHA-256 says it is the blob.
            noted = {blob.id: blob for blob in blobs_of(there.models())}
            known = {
                blob.id: Blob(blob.size, blob.media_type, blob.digest, noted[blob.id].blake3)
                for blob in blobs_of(models)
                if blob.blake3 is None and blob.id in noted
            }
            made = self._bundle([model.settled(known) for model in models])
            if made.fingerprint != descriptor.bundle or not there.begins(documents(tar_layout(made))):
                return False
            with Folder.at(self.path) as folder:
                texts = self._texts(descriptor, models)
                if any(folder.read(name, SMALL) != raw for name, raw in texts.items()):
                    return False
        except ModelpackError:
            return False
        self.descriptor = descriptor
        return True
