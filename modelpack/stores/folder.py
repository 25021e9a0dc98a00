"""A bundle in a folder: the OCI layout as plain files."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from modelpack.documents.contents import Contents, read_contents
from modelpack.documents.model import Model, blobs_of
from modelpack.documents.oci import Member, blob_path, bundle
from modelpack.errors import Corrupt, ModelpackError, NotFound, Taken
from modelpack.hands.bytes import FileReader
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import check, pour
from modelpack.hands.kept import Opened, key_of, keyed, pour_on
from modelpack.hands.scratch import NewFile, Scratch, workshop
from modelpack.stores import Placed, Session
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.reader import Reader
from modelpack.words.report import Moved, Report, silent


class FolderBundle:
    """The bundle in the directory *path*: a source, and a target to which models are added.

    It may be missing or empty: the first session makes it. With *expect*, a bundle of any other fingerprint
    is Refused before anything of it is parsed; with *replace*, a name is given to another model.
    """

    def __init__(self, path: Path, *, expect: Digest | None = None, replace: bool = False) -> None:
        self.path = path
        self._expect = expect
        self.replace = replace

    # --- source

    @cached_property
    def contents(self) -> Contents:
        """What its documents say, all of them checked."""
        with Folder.at(self.path) as root:
            while True:
                before = _mark(root)
                try:
                    return self.read_contents(root)
                except (Corrupt, NotFound):
                    if _mark(root) == before:  # else a pack came between two of its documents: again
                        raise

    def read_contents(self, root: Folder) -> Contents:
        """What the documents in *root* say now."""

        return read_contents(lambda path, most: _read(root, path, most), self.path, self._expect)

    def read(self, path: str, most: int) -> bytes:
        """The small file at *path*; NotFound, or Corrupt where it has more than *most* bytes."""
        with Folder.at(self.path) as root:
            return _read(root, path, most)

    def files(self) -> dict[str, int]:
        """What lies at the top and among the blobs, with its bytes; directories are left out."""
        found: dict[str, int] = {}
        with contextlib.ExitStack() as stack:
            folders = [("", stack.enter_context(Folder.at(self.path)))]
            with contextlib.suppress(NotFound):
                folders.append(("blobs/sha256/", stack.enter_context(_blobs(self.path))))
            for prefix, folder in folders:
                for name in folder.names():
                    about = folder.stat(name)
                    if about is not None and not stat.S_ISDIR(about.st_mode):
                        found[prefix + name] = about.st_size
        return found

    @property
    def fingerprint(self) -> Digest:
        """SHA-256 of its index.json."""
        return self.contents.fingerprint

    def models(self) -> Sequence[Model]:
        """The models of the bundle, in the order of its index."""
        return self.contents.models

    def open(self, blob: Blob, offset: int = 0) -> FileReader:
        """The bytes of *blob*: a plain file of its size, or NotFound, Corrupt, Refused."""
        if blob.digest is None:
            raise NotFound("has no blob without a digest", where=self.path)
        with _blobs(self.path) as blobs:
            size = blobs.file_size(blob.digest.hex)
            if size is None:
                raise NotFound(f"the {blob.kind} blob {blob} is missing in the bundle", where=self.path)
            if size != blob.size:
                raise Corrupt(f"{blob_path(blob.digest)} has {size} bytes, not {blob.size}", where=self.path)
            return FileReader(
                blobs.open_file(blob.digest.hex), offset, size - offset, blobs.path / blob.digest.hex
            )

    # --- target

    def takes_unread(self, models: Sequence[Model]) -> bool:
        """A blob gets its name after its bytes; but where one of that size is here it may be the same."""
        there = self._there()
        sizes = {blob.size for one in (there.models if there else ()) for blob in one.blobs}
        return not any(blob.digest is None and blob.size in sizes for blob in blobs_of(models))

    def _there(self) -> Contents | None:
        try:
            with Folder.at(self.path) as root:
                return None if root.stat("index.json") is None else self.contents
        except NotFound:
            return None

    def missing(self, models: Sequence[Model]) -> Sequence[Blob]:
        """Blobs that are not here with their size; Taken where a name stands for another model."""
        there = self._there()
        if not self.replace and there is not None:
            _refuse_taken(there, models, self.path)
        try:
            with _blobs(self.path) as blobs:
                return [
                    blob
                    for blob in blobs_of(models)
                    if blob.digest is None or blobs.file_size(blob.digest.hex) != blob.size
                ]
        except NotFound:
            return blobs_of(models)

    def placed(self, model: Model) -> Placed | None:
        """*model*, where the bundle has this document under this name and all its blobs (by size)."""
        there = self._there()
        with contextlib.suppress(NotFound), Folder.at(self.path) as root:
            if root.stat("SHA256SUMS.new") is not None:  # a killed run: write the documents again
                return None
        for one in there.models if there else ():
            if one.name.folded == model.name.folded and one.document.raw == model.document.raw:
                return None if self.missing([one]) else Placed(one.name, one.document.id, True, "folder")
        return None

    @contextlib.contextmanager
    def session(self, models: Sequence[Model], report: Report = silent) -> Iterator[Session]:
        """Write: blobs by rename; then its documents, under the folder's lock, index.json late."""
        todo = keyed(self.missing(models))
        with contextlib.ExitStack() as stack:
            root = stack.enter_context(Folder.at(self.path, create=True))
            scratch = stack.enter_context(workshop(root, todo, mode=0o666))
            blobs = stack.enter_context(root.folder("blobs", create=True))
            blobs = stack.enter_context(blobs.folder("sha256", create=True))
            try:
                yield _Writing(self, root, blobs, scratch, models, report)
            finally:
                self.__dict__.pop("contents", None)


class _Writing:
    def __init__(
        self,
        store: FolderBundle,
        root: Folder,
        blobs: Folder,
        scratch: Scratch,
        models: Sequence[Model],
        report: Report,
    ) -> None:
        self._store, self._root, self._blobs = store, root, blobs
        self._scratch, self._models, self._report = scratch, models, report
        self._known: dict[object, Blob] = {}
        self._committed: list[Model] = []

    def put(self, blob: Blob, data: Reader) -> Blob:
        with self._scratch.new(blob.size) as file:
            file.writer.moved = lambda count: self._report(Moved(count))
            hashes = pour(data, blob.size, file.writer.appending(), blake3=True, where=self._root.path)
            return self._named(file, blob, check(blob, hashes))

    def put_on(self, blob: Blob, opened: Opened) -> Blob:
        with self._scratch.part(key_of(blob), blob.size) as file:
            file.writer.moved = lambda count: self._report(Moved(count))
            file.keep = True
            return self._named(
                file, blob, pour_on(file.fd, file.writer, blob, opened, self._report, blake3=True)
            )

    def _named(self, file: NewFile, blob: Blob, known: Blob) -> Blob:
        if known.digest is not None:
            file.appear(self._blobs, known.digest.hex)
        self._known[blob.id] = self._known[known.id] = known
        return known

    def commit(self, model: Model) -> Placed:
        model = model.settled(self._known)
        self._complete(model)
        self._committed.append(self._hashed_here(model))
        if len(self._committed) == len(self._models):  # all of them or none: one change of the index
            self._finish(self._committed)
        return Placed(model.name, model.document.id, True, "folder")

    def _finish(self, models: Sequence[Model]) -> None:
        with Folder.at(self._root.path) as locked:
            locked.lock()
            for model in models:
                self._complete(model)  # another pack that gave a name away may have removed one
            there = self._store.read_contents(locked) if locked.stat("index.json") is not None else None
            if there is not None and not self._store.replace:
                _refuse_taken(there, models, self._root.path)
            self._write(there, models)

    def _complete(self, model: Model) -> None:
        for blob in model.blobs:
            if blob.digest is None or self._blobs.file_size(blob.digest.hex) != blob.size:
                raise NotFound(f"the {blob.kind} blob {blob} is not in the bundle", where=self._root.path)

    def _hashed_here(self, model: Model) -> Model:
        """BLAKE3s of blobs that were here, from this bundle or by reading: the source's word is hearsay."""
        there = self._store.contents.models if self._root.stat("index.json") else ()
        noted: dict[object, Blob] = {blob.id: blob for one in there for blob in one.blobs}
        known: dict[object, Blob] = {}
        for blob in model.blobs:
            if blob.id in self._known:
                continue
            known[blob.id] = noted.get(blob.id, blob)
            if blob.id not in noted or noted[blob.id].blake3 is None:
                with self._store.open(blob) as reader:
                    known[blob.id] = check(blob, pour(reader, blob.size, blake3=True), self._root.path)
        return model.settled(known)

    def _write(self, there: Contents | None, models: Sequence[Model]) -> None:
        before = list(there.models) if there else []
        named = {one.name.folded: one for one in before}  # a new model takes the place of its namesake
        named |= {one.name.folded: one for one in models}
        new = bundle(list(named.values()), there.index.foreign if there else ())
        for member in new.members:
            if isinstance(member.content, bytes) and member.path.startswith("blobs/"):
                self._file(member, self._blobs, member.path.rpartition("/")[2])
        for path in ("oci-layout", "README.txt"):
            self._file(Member(path, new.document(path)), self._root, path)
        sums = Member("SHA256SUMS", new.document("SHA256SUMS"))
        self._file(sums, self._root, "SHA256SUMS.new", anew=True)
        self._file(Member("index.json", new.index), self._root, "index.json", anew=True)
        self._root.rename("SHA256SUMS.new", self._root, "SHA256SUMS")
        self._root.sync()
        if there is not None and not there.index.foreign:  # what those need, nobody here knows
            needed = {member.path for member in new.members}
            for member in bundle(before).members:
                if member.path not in needed and member.path.startswith("blobs/"):
                    with contextlib.suppress(ModelpackError):
                        self._blobs.remove(member.path.rpartition("/")[2])

    def _file(self, member: Member, folder: Folder, name: str, *, anew: bool = False) -> None:
        content = member.content
        if not isinstance(content, bytes):
            raise TypeError("a document is bytes")
        same = not anew and folder.file_size(name) == len(content)
        if same and folder.read(name, len(content)) == content:
            return
        with self._scratch.new(len(content)) as file:
            file.writer.write_at(memoryview(content), 0)
            file.appear(folder, name)


def _refuse_taken(there: Contents, models: Sequence[Model], where: Path) -> None:
    names = {one.name.folded: one for one in there.models}
    for model in models:
        one = names.get(model.name.folded)
        if one is None or one.document.raw == model.document.raw:
            continue
        unread = {blob.size for blob in model.blobs if blob.digest is None}
        if not unread or unread - {blob.size for blob in one.blobs}:
            this = "" if unread else f"; this one is {model.document.id.short}"
            raise Taken(
                f"{one.name} stands there for another model ({one.document.id.short}{this})",
                where=where,
                advice="Use --replace to give the name to the new one, or --name for another name.",
            )


def _mark(root: Folder) -> object:
    """Something that changes where index.json does, or the sums beside it."""
    found = [root.stat(name) for name in ("index.json", "SHA256SUMS")]
    return [one and (one.st_ino, one.st_mtime_ns) for one in found]


def _read(root: Folder, path: str, most: int) -> bytes:
    *folders, name = path.split("/")
    with contextlib.ExitStack() as stack:
        folder = root
        for part in folders:
            folder = stack.enter_context(folder.folder(part))
        return folder.read(name, most)


@contextlib.contextmanager
def _blobs(path: Path) -> Iterator[Folder]:
    with Folder.at(path) as root, root.folder("blobs") as blobs, blobs.folder("sha256") as folder:
        yield folder
