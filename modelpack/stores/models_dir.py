"""A models directory, as Ollama has it: `blobs/sha256-<hex>`, `manifests/<host>/<namespace>/<name>/<tag>`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from modelpack.documents.image import Image
from modelpack.documents.model import Model, blobs_of
from modelpack.errors import Corrupt, ModelpackError, NotFound, Taken, Unsupported
from modelpack.hands.bytes import FileReader
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import check, pour
from modelpack.hands.kept import keyed
from modelpack.hands.scratch import workshop
from modelpack.stores import Placed, Session
from modelpack.stores.models_dir_scan import fault, look, lookup, scan
from modelpack.stores.models_dir_session import Writing
from modelpack.words.blob import SMALL, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.report import Report, silent

_Mark = tuple[int, ...]
_REMEMBERED = 4096  # blobs that were hashed


class ModelsDir:
    """The models directory at *path*: a source, and a target that ends with the same bytes.

    It may be missing or empty: then it holds nothing, and is made by the first session. With *replace*, a
    name that stands for another model is given to the new one.
    """

    def __init__(self, path: Path, *, replace: bool = False) -> None:
        self.path = path
        self._replace = replace
        self._right: dict[Digest, _Mark] = {}
        """Blobs whose bytes were hashed, with the mark of their files then."""

    def described(self) -> Mapping[str, str]:
        """As Described says."""
        return {"kind": "models directory", "where": str(self.path)}

    # --- source

    def models(self) -> Sequence[Model]:
        """Every model whose manifest can be read, by name."""
        return [found for found in self.scan() if isinstance(found, Model)]

    def scan(self) -> Iterator[Model | ModelpackError]:
        """Every manifest, in the order of names: the model, or what is wrong with that file."""
        try:
            root = Folder.at(self.path)
        except NotFound:
            return
        with root, contextlib.suppress(NotFound), root.folder("manifests") as manifests:
            yield from scan(manifests)

    def open(self, blob: Blob, offset: int = 0) -> FileReader:
        """The bytes of *blob* from *offset* on."""
        if blob.digest is None:
            raise NotFound("has no blob without a digest", where=self.path)
        with Folder.at(self.path) as root, root.folder("blobs") as blobs:
            name, size = lookup(blobs, blob.digest)
            if size != blob.size:
                raise fault(blob, blobs.path, name, size)
            return FileReader(blobs.open_file(name), offset, blob.size - offset, blobs.path / name)

    def file_of(self, digest: Digest) -> Path:
        """Where the blob of *digest* is, or would be."""
        with contextlib.suppress(ModelpackError), Folder.at(self.path) as root, root.folder("blobs") as blobs:
            return blobs.path / lookup(blobs, digest)[0]
        return self.path / "blobs" / digest.file_name

    def look(self, models: Sequence[Model]) -> tuple[list[tuple[Blob, ModelpackError]], list[str]]:
        """Blobs of *models* that are missing, of another size, or no plain files; and files that none names.

        No byte is read. Raises NotFound where there is no blobs/, and what keeps it from being listed.
        """
        with Folder.at(self.path) as root, root.folder("blobs") as blobs:
            return look(blobs, blobs_of(models))

    def strays(self, models: Sequence[Model]) -> list[str]:
        """Files in blobs/ that none of *models* names."""
        try:
            return self.look(models)[1]
        except NotFound:
            return []

    # --- target

    def placed(self, models: Sequence[Model]) -> Sequence[Placed | None]:
        """As Settled says: this very manifest and all its blobs are here (blobs by name and size)."""
        return [self._placed(model) for model in models]

    def _placed(self, model: Model) -> Placed | None:
        there = self.find(model.name)
        if there is None or there[1] != model.document.raw or self.missing([model]):
            return None
        return Placed(there[0], model.document.id, True, "directory")

    def read(self, name: Name) -> tuple[Name, Image] | None:
        """The model of this name, compared as Ollama does (without case), under the name that it has here."""
        found = self.find(name)
        if found is None:
            return None
        return found[0], Image.parse(found[1], self.path.joinpath("manifests", *found[0].parts))

    def find(self, name: Name) -> tuple[Name, bytes] | None:
        """Its manifest's bytes, whatever they are worth: a crash may have left none."""
        try:
            root = Folder.at(self.path)
        except NotFound:
            return None
        with root, contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(root.folder("manifests"))
                parts: tuple[str, ...] = ()
                for part in name.parts:
                    found = [one for one in folder.names() if one.lower() == part.lower()]
                    if not found:
                        return None
                    parts += (part if part in found else found[0],)
                    if len(parts) < 4:
                        folder = stack.enter_context(folder.folder(parts[-1]))
                return Name.of_path(parts), folder.read(parts[-1], SMALL)
            except NotFound:
                return None

    def apart(self) -> bool:
        """Each model has a manifest of its own."""
        return True

    def missing(self, models: Sequence[Model]) -> Sequence[Blob]:
        """Blobs that are not here, or not with their size; Taken where a name stands for another model."""
        for model in models:
            if not isinstance(model.document, Image):
                raise Unsupported(
                    "is a recipe: only an Ollama server can make a model of it",
                    where=model.name,
                    advice="Load it to a server: --to http://HOST:11434",
                )
            self.refuse_taken(model, self.find(model.name))
        try:
            with Folder.at(self.path) as root, root.folder("blobs") as blobs:
                there = {
                    blob: mark for blob in blobs_of(models) if (mark := _mark_of(blobs, blob)) is not None
                }
        except NotFound:
            return blobs_of(models)
        right = {blob.id for blob in there} - self._wrong(there)
        return [blob for blob in blobs_of(models) if blob.id not in right]

    def vouch(self, digest: Digest, found: os.stat_result) -> None:
        """The file *found* was hashed to *digest*: it is not read again while it stays as it is."""
        self._remember(digest, _mark(found))

    def _remember(self, digest: Digest, mark: _Mark) -> None:
        if len(self._right) >= _REMEMBERED:
            self._right.clear()
        self._right[digest] = mark

    def _wrong(self, there: Mapping[Blob, _Mark]) -> set[object]:
        """Those of *there* that no model here names, and whose bytes are others: nobody vouches for them."""
        unsure = [
            (blob.digest, blob, mark)
            for blob, mark in there.items()
            if blob.digest is not None and self._right.get(blob.digest) != mark
        ]
        if not unsure:
            return set()
        named = {blob.digest for model in self.models() for blob in model.blobs}
        wrong: set[object] = set()
        for digest, blob, mark in unsure:
            if digest not in named:
                try:
                    with self.open(blob) as reader:
                        check(blob, pour(reader, blob.size))
                except Corrupt:
                    wrong.add(blob.id)
                else:
                    self._remember(digest, mark)  # its mark before that: what changed since is read anew
        return wrong

    def refuse_taken(self, model: Model, there: tuple[Name, bytes] | None) -> None:
        """Raise Taken where *there* is another model than *model*, unless it may be replaced."""
        if there is not None and there[1] != model.document.raw and not self._replace:
            raise Taken(
                f"{there[0]} stands there for another model ({Digest.of(there[1]).short}; "
                f"this one is {model.document.id.short})",
                where=self.path,
                advice="Use --replace to give the name to the new one, or --as NAME for another name.",
            )

    def takes_unread(self, models: Sequence[Model]) -> bool:
        """A blob gets its name after its bytes; but where the model's name is here, the two are compared."""
        unread = [model for model in models if any(blob.digest is None for blob in model.blobs)]
        return all(self.find(model.name) is None for model in unread)

    @contextlib.contextmanager
    def session(self, models: Sequence[Model], report: Report = silent) -> Iterator[Session]:
        """Write: scratch files, then blobs by rename, then the manifest by rename."""
        todo = keyed(self.missing(models))
        with contextlib.ExitStack() as stack:
            root = stack.enter_context(Folder.at(self.path, create=True))
            like = root.own_stat()
            scratch = stack.enter_context(workshop(root, todo, like=like))
            blobs = stack.enter_context(root.folder("blobs", create=True, like=like))
            manifests = stack.enter_context(root.folder("manifests", create=True, like=like))
            root.sync()
            yield Writing(self, blobs, manifests, scratch, like, report)


def _mark_of(blobs: Folder, blob: Blob) -> _Mark | None:
    """The mark of *blob*'s file, where it is here with its size."""
    name, size = lookup(blobs, blob.digest) if blob.digest is not None else ("", None)
    found = blobs.stat(name) if size == blob.size else None
    return _mark(found) if found is not None else None


def _mark(found: os.stat_result) -> _Mark:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
