"""Plain files: GGUFs, a Modelfile, licences; for llama.cpp and LM Studio, and to be packed again.

A folder for each model, or just one model right in DIR: its GGUFs under their own names, `LICENSE`,
`Modelfile`, and `documents/` with the model's document verbatim, the blobs that have no names, and model.json
(see `plain_record`), which says which file is which blob and is written last. DIR/attachments/ is for what
was attached to the bundle: no model has a part there.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Generator, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from modelpack.documents.extras import FOLDER as ATTACHMENTS
from modelpack.documents.model import Model, blobs_of
from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unsupported
from modelpack.hands.bytes import FileReader
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import read_small
from modelpack.hands.kept import keyed
from modelpack.hands.scratch import SCRATCH, workshop
from modelpack.stores import OneWay, Placed, Session, Source
from modelpack.stores.plain_check import hashed, joined, looked
from modelpack.stores.plain_home import Home
from modelpack.stores.plain_layout import FOLDER, MODELFILE
from modelpack.stores.plain_record import DOCUMENTS, Record, open_at, read_record, torn
from modelpack.stores.plain_seen import Seen
from modelpack.stores.plain_writing import Writing
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.filename import Paths, labelled, systems_own
from modelpack.words.report import Report, silent

__all__ = ["DOCUMENTS", "MODELFILE", "OTHERS", "PlainFolder", "Record"]

OTHERS = ("oci-layout", "index.json", "manifests", "blobs")
"""Marks of other stores: nothing is unpacked under these names, and nothing beside them."""


class PlainFolder:
    """The models in the directory *path*: a source, and a target that ends with plain files.

    From *source*, where it can be read beforehand, their small texts are read to see whether a Modelfile can
    hold them before anything moves. Without *modelfile* none is written. With *replace*, what is in the way
    goes: another model that was unpacked there, files of the same names.
    """

    def __init__(
        self, path: Path, source: Source | None = None, *, modelfile: bool = True, replace: bool = False
    ) -> None:
        self.path = path
        self._source = source
        self._modelfile = modelfile
        self._replace = replace
        self._several = False
        self._seen = Seen()

    # --- source

    @cached_property
    def records(self) -> Sequence[Record]:
        """The models as they were unpacked: the one right in the directory, else those in its folders.

        Raises Corrupt, Unsupported or Refused where the documents of one are not what they should be. What
        has no model.json is no model: see `begun`.
        """
        with Folder.at(self.path) as root:
            with contextlib.suppress(NotFound):
                return [read_record(root)]
            found = []
            for name in _folders(root):
                # Anybody's folders may lie here, too.
                with contextlib.suppress(NotFound, Refused), root.folder(name) as folder:
                    found.append(read_record(folder, name))
            return found

    def begun(self) -> list[str]:
        """Folders of models that are not there: a run broke off, or model.json was lost."""
        found = []
        with Folder.at(self.path) as root:
            for name in _folders(root) if self._seen.record(root, "") is None else ():
                with contextlib.suppress(NotFound, Refused), root.folder(name) as folder:
                    found += [name] if torn(folder) else []
        return found

    def left_out(self) -> list[str]:
        """What lies here, or in the folder of a model, and is no part of one: names below DIR."""
        folders = {record.folder for record in self.records}
        with Folder.at(self.path) as root:
            found = [] if "" in folders else [name for name in _others(root) if name not in folders]
            for record in self.records:
                known = {path.partition("/")[0] for path in record.files} | {FOLDER, MODELFILE}
                with root.folder(record.folder) if record.folder else contextlib.nullcontext(root) as folder:
                    found += [joined(record, name) for name in _others(folder) if name not in known]
        return found

    def models(self) -> Sequence[Model]:
        """The models that were unpacked here; their documents are checked, their files are not looked at."""
        return [record.model for record in self.records]

    def open(self, blob: Blob, offset: int = 0) -> FileReader:
        """The file that model.json names for *blob*: one of its size, or NotFound, Corrupt, Refused."""
        failed: ModelpackError = NotFound(f"has no blob {blob}", where=self.path)
        with Folder.at(self.path) as root:
            for record in self.records:
                for path in record.paths(blob.digest):
                    try:
                        return open_at(root, joined(record, path), blob, offset)
                    except (NotFound, Corrupt) as error:
                        failed = error
        raise failed

    def changes(
        self, models: Sequence[Model] | None = None, report: Report = silent
    ) -> Generator[str, None, None]:
        """What of *models* is not what it was when it was unpacked, in sentences; all is read.

        None: of all that were ever begun. What names and sizes tell comes first. Raises as `records` does,
        and Local where the medium fails.
        """
        with Folder.at(self.path) as root:
            records = self._of(models)
            found = looked(root, records)
            yield from self._torn(models)
            yield from found.values()
            yield from hashed(root, records, found, report)

    def look(self, models: Sequence[Model] | None = None) -> list[str]:
        """As `changes`, as far as names, sizes and Modelfiles tell."""
        with Folder.at(self.path) as root:
            return [*self._torn(models), *looked(root, self._of(models)).values()]

    def fits(self, report: Report = silent) -> str | None:
        """None where every file is still what it was when it was unpacked; else a sentence that says why not.

        Every byte is hashed, several files at a time. Raises Local where the medium fails.
        """
        try:
            with contextlib.closing(self.changes(report=report)) as found:
                return next(found, None)
        except (NotFound, Corrupt, Unsupported, Refused) as error:
            return f"{error.where}: {error.what}" if error.where else error.what

    def file_of(self, digest: Digest | None) -> Path | None:
        """The first file that is noted for the blob *digest*; None where there is none."""
        for record in self.records:
            for path in record.paths(digest):
                return self.path / joined(record, path)
        return None

    def _torn(self, models: Sequence[Model] | None) -> list[str]:
        begun = self.begun() if models is None else ()
        return [f"{name} was not unpacked to its end, or lost its {DOCUMENTS}" for name in begun]

    def _of(self, models: Sequence[Model] | None) -> list[Record]:
        return [record for record in self.records if models is None or record.model in models]

    # --- target

    def apart(self) -> bool:
        """Each model is whole by itself."""
        return True

    def missing(self, models: Sequence[Model]) -> Sequence[Blob]:
        """Blobs that are not in the folders of their models; Taken where something else is there.

        Raises Unsupported where no Modelfile can hold a text, as far as the source can be read before.
        Files that nobody noted, as a crash leaves them, are hashed to see whether they are what is missing.
        """
        self._several |= len(models) > 1
        try:
            root = Folder.at(self.path)
        except NotFound:
            for home in self._homes(None, models):
                self._text(home)
            return blobs_of(models)
        with root:
            return self._missing(root, self._homes(root, models))

    def _missing(self, root: Folder, homes: Sequence[Home]) -> Sequence[Blob]:
        pending = [home for home in homes if home.placed(root) is None]
        for home in pending:
            home.refuse(root, self._text(home))
        return [
            blob
            for blob in blobs_of([home.model for home in pending])
            if all(home.find(root, blob) is None for home in pending)
        ]

    def placed(self, models: Sequence[Model]) -> Sequence[Placed | None]:
        """As Settled says: all of it is here (by sizes), with its Modelfile as it was written."""
        try:
            with Folder.at(self.path) as root:
                return [self._homes(root, [model])[0].placed(root) for model in models]
        except NotFound:
            return [None] * len(models)

    @contextlib.contextmanager
    def session(self, models: Sequence[Model], report: Report = silent) -> Iterator[Session]:
        """Write: scratch files, then blobs by rename into documents/, then their names, model.json last."""
        todo = keyed(self.missing(models))
        with Folder.at(self.path, create=True) as root, workshop(root, todo, mode=0o666) as scratch:
            homes = {home.model.name: home for home in self._homes(root, models)}
            writing = Writing(root, homes, scratch, self._seen, report)
            try:
                yield writing
            finally:
                writing.tidy()
                self.__dict__.pop("records", None)

    def _homes(self, root: Folder | None, models: Sequence[Model]) -> list[Home]:
        """Where *models* belong: where they are, else right here if there is but one, else a folder each.

        Refused where a model is right here and others are to come beside it: no --replace helps.
        """
        there = self._there(root) if root is not None else {}
        known = {record.model.name.folded: name for name, record in reversed(there.items())}
        alone = "" in there or not (self._several or there)
        paths = Paths(SCRATCH, ATTACHMENTS, *OTHERS, *there)
        homes = []
        for model in models:
            name = known.get(model.name.folded)
            if name is None and "" in there and self._several:
                raise Refused(
                    f"{there[''].model.name} was unpacked right there, so no other can be put beside it",
                    where=self.path,
                    advice="Name another folder.",
                )
            if name is None:
                name = "" if alone else paths.take(labelled(model.name))
            homes.append(Home(name, model, self._seen, modelfile=self._modelfile, replace=self._replace))
        return homes

    def unpacked(self) -> dict[str, Record]:
        """What was unpacked here, by the folded name of the model; what cannot be read is left out."""
        with Folder.at(self.path) as root:
            there = self._there(root)
        # Somebody may have copied a folder: the first one counts, as for `_homes`.
        return {record.model.name.folded: record for record in reversed(there.values())}

    def _there(self, root: Folder) -> dict[str, Record]:
        """What was unpacked before, by folder; what cannot be read is left out."""
        if (record := self._seen.record(root, "")) is not None:
            return {"": record}
        found = {}
        for name in _folders(root):
            with contextlib.suppress(NotFound, Refused), root.folder(name) as folder:
                if (record := self._seen.record(folder, name)) is not None:
                    found[name] = record
        return found

    def _text(self, home: Home) -> bytes | None:
        """The Modelfile of *home*, where the source can be read before; None where not, or none is wanted."""
        source = self._source
        if source is None or isinstance(source, OneWay):  # a pipe gives each byte once
            _ = home.wants_modelfile, home.layout  # for what they raise
            return None

        def read(blob: Blob) -> bytes:
            with source.open(blob) as reader:
                return read_small(reader, blob)

        try:
            return home.modelfile(read)[0]
        except (Corrupt, Refused):  # damaged, or a link: whoever puts it says so, of this one model
            return None


def _others(folder: Folder) -> list[str]:
    return [name for name in folder.names() if name != SCRATCH and not systems_own(name)]


def _folders(root: Folder) -> list[str]:
    found = []
    for name in root.names():
        about = root.stat(name)
        if about is None or not stat.S_ISDIR(about.st_mode) or name == SCRATCH:
            continue
        if os.access(root.path / name, os.R_OK | os.X_OK):  # lost+found lies on many a drive
            found.append(name)
    return found
