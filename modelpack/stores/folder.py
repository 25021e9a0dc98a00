"""A bundle in a folder: the OCI layout as plain files."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from modelpack.documents.contents import Contents, read_contents
from modelpack.documents.expects import FILE_NAME, NOTHING, Expects, absent
from modelpack.documents.model import Model, blobs_of
from modelpack.documents.oci import blob_path
from modelpack.errors import Corrupt, NotFound
from modelpack.hands.bytes import FileReader
from modelpack.hands.disk import Folder
from modelpack.hands.kept import keyed
from modelpack.hands.scratch import workshop
from modelpack.stores import Placed, Session
from modelpack.stores.folder_session import Writing, refuse_taken
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.report import Report, silent


class FolderBundle:
    """The bundle in the directory *path*: a source, and a target to which models are added.

    It may be missing or empty: the first session makes it. With *expect*, a bundle of any other fingerprint
    is Refused before anything of it is parsed; with *replace*, a name is given to another model. Blobs that
    it *expects* at the target are not added; those that come later are expected no more.
    """

    def __init__(
        self,
        path: Path,
        *,
        expect: Digest | None = None,
        replace: bool = False,
        expects: Expects = NOTHING,
    ) -> None:
        self.path = path
        self._expect = expect
        self.replace = replace
        self._leaves = expects

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

    @property
    def expects(self) -> frozenset[Digest]:
        """Blobs that its models name and it does not hold: a delta expects them at the target."""
        return self.contents.expects

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
                raise absent(blob, self.contents.delta, self.path)
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

    def leaves(self) -> frozenset[Digest]:
        """The blobs that are not added, since they are expected at the target."""
        return self._leaves.digests

    def missing(self, models: Sequence[Model]) -> Sequence[Blob]:
        """Blobs that are not here with their size, nor expected at the target.

        Taken where a name stands for another model.
        """
        there = self._there()
        if not self.replace and there is not None:
            refuse_taken(there, models, self.path)
        return [blob for blob in self._away(models) if blob not in self._leaves]

    def _away(self, models: Sequence[Model]) -> Sequence[Blob]:
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
        """*model*, where the bundle has this document under this name and all its blobs (by size).

        A blob that is to be expected at the target may be away where the bundle says so already.
        """
        there = self._there()
        with contextlib.suppress(NotFound), Folder.at(self.path) as root:
            if root.stat("SHA256SUMS.new") is not None:  # a killed run: write the documents again
                return None
        if there is None:
            return None
        for one in there.models:
            if one.name.folded == model.name.folded and one.document.raw == model.document.raw:
                if any(blob not in self._leaves or blob not in there.delta for blob in self._away([one])):
                    return None
                return Placed(one.name, one.document.id, True, "folder")
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
                yield Writing(self, root, blobs, scratch, models, self._leaves, report)
            finally:
                self.__dict__.pop("contents", None)


def _mark(root: Folder) -> object:
    """Something that changes where index.json does, or what fits it alone beside it."""
    found = [root.stat(name) for name in ("index.json", FILE_NAME, "SHA256SUMS")]
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
