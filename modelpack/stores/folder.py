"""A bundle in a folder: the OCI layout as plain files."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path

from modelpack.documents.bundled import Bundled
from modelpack.documents.contents import Contents, read_contents
from modelpack.documents.expects import FILE_NAME, NOTHING, Expects, absent
from modelpack.documents.extras import ATTACHMENT, FOLDER, NONE, SCRIPT, Attachment, Extras, path_of
from modelpack.documents.model import Model, blobs_of
from modelpack.documents.oci import blob_path
from modelpack.documents.sums import sums_say
from modelpack.errors import Corrupt, NotFound, Refused
from modelpack.hands.bytes import FileReader
from modelpack.hands.disk import Folder
from modelpack.hands.kept import keyed
from modelpack.hands.scratch import workshop
from modelpack.stores import Placed, Session
from modelpack.stores.folder_session import SIGNATURE, UNFINISHED, Writing, grown, refuse_taken
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.report import Report, silent


class FolderBundle(Bundled):
    """The bundle in the directory *path*: a source, and a target to which models are added.

    It may be missing or empty: the first session makes it. With *expect*, a bundle of any other fingerprint
    is Refused before anything of it is parsed; with *replace*, a name is given to another model. Blobs that
    it *expects* at the target are not added; those that come later are expected no more. Of *extras* the
    script takes the place of the one that is there; attachments come beside those that are there.
    """

    def __init__(
        self,
        path: Path,
        *,
        expect: Digest | None = None,
        replace: bool = False,
        expects: Expects = NOTHING,
        extras: Extras = NONE,
    ) -> None:
        self.path = path
        self._expect = expect
        self.replace = replace
        self._leaves = expects
        self._extras = extras

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
        """What lies at the top, among the blobs and the attachments, with its bytes; no directories."""
        found: dict[str, int] = {}
        with contextlib.ExitStack() as stack:
            folders = [("", stack.enter_context(Folder.at(self.path)))]
            with contextlib.suppress(NotFound):
                folders.append(("blobs/sha256/", stack.enter_context(_blobs(self.path))))
            with contextlib.suppress(NotFound):
                folders.append((path_of(""), stack.enter_context(folders[0][1].folder(FOLDER))))
            for prefix, folder in folders:
                for name in folder.names():
                    about = folder.stat(name)
                    if about is not None and not stat.S_ISDIR(about.st_mode):
                        found[prefix + name] = about.st_size
        return found

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

    def attachments(self) -> tuple[Attachment, ...]:
        """The files that were attached, as SHA256SUMS lists them, as far as they are there."""
        return self.attachments_in(self.contents)

    def attachments_in(self, contents: Contents) -> tuple[Attachment, ...]:
        """As `attachments`, where the documents say *contents*."""
        files = self.files() if contents.attachments else {}
        return tuple(
            Attachment(name, Blob(files[path], ATTACHMENT, digest), partial(self.open_attachment, name))
            for name, digest in contents.attachments
            if (path := path_of(name)) in files
        )

    def open_attachment(self, name: str) -> FileReader:
        """The bytes of the attachment *name*; nobody has checked them. NotFound, Refused."""
        with Folder.at(self.path) as root, root.folder(FOLDER) as folder:
            size = folder.file_size(name)
            if size is None:
                raise NotFound(f"{path_of(name)} is missing", where=self.path)
            return FileReader(folder.open_file(name), 0, size, folder.path / name)

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

        Taken where a name stands for another model, or an attachment; Refused where the bundle is signed.
        """
        there = self._there()
        if there is not None:
            if not self.replace:
                refuse_taken(there, models, self.path)
            self._refuse_signed(models)
            grown(self, there, self._extras)
        return [blob for blob in self._away(models) if blob not in self._leaves]

    def _refuse_signed(self, models: Sequence[Model]) -> None:
        with Folder.at(self.path) as root:
            signed = root.stat(SIGNATURE) is not None
        if signed and not all(self.placed(models)):
            raise Refused(
                "is signed: whatever is added would not be covered by its signature",
                where=self.path,
                advice=f"Pack into a new folder; or remove {SIGNATURE}, and sign it again afterwards.",
            )

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

    def placed(self, models: Sequence[Model]) -> Sequence[Placed | None]:
        """As Settled says: the bundle has this document under this name and all its blobs (by size).

        A blob that is to be expected at the target may be away where the bundle says so already. Extras are
        there, too, by their sums.
        """
        there = self._there()
        with contextlib.suppress(NotFound), Folder.at(self.path) as root:
            if any(root.stat(name) is not None for name in UNFINISHED):
                there = None
        if there is None or self._new_extras(there):
            return [None] * len(models)
        held = {(one.name.folded, one.document.id): one for one in there.models}
        found: list[Placed | None] = []
        for model in models:
            one = held.get((model.name.folded, model.document.id))
            if one is None or any(
                blob not in self._leaves or blob not in there.delta for blob in self._away([one])
            ):
                found.append(None)
            else:
                found.append(Placed(one.name, one.document.id, True, "folder"))
        return found

    def _new_extras(self, there: Contents) -> bool:
        """Whether something of the extras is not there yet."""
        script, sums = self._extras.script, there.sums or {}
        if script is not None and sums_say(sums, SCRIPT) != Digest.of(script):
            return True
        if script is not None and self.files().get(SCRIPT) != len(script):
            return True
        known = {(one.name, one.blob.digest, one.blob.size) for one in self.attachments_in(there)}
        return any(
            (one.name, one.blob.digest, one.blob.size) not in known for one in self._extras.attachments
        )

    @contextlib.contextmanager
    def session(self, models: Sequence[Model], report: Report = silent) -> Iterator[Session]:
        """Write: blobs by rename; then its documents, under the folder's lock, index.json late."""
        todo = keyed([*self.missing(models), *(one.blob for one in self._extras.attachments)])
        with contextlib.ExitStack() as stack:
            root = stack.enter_context(Folder.at(self.path, create=True))
            scratch = stack.enter_context(workshop(root, todo, mode=0o666))
            blobs = stack.enter_context(root.folder("blobs", create=True))
            blobs = stack.enter_context(blobs.folder("sha256", create=True))
            try:
                yield Writing(self, root, blobs, scratch, models, self._leaves, self._extras, report)
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
