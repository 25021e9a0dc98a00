"""A session of `folder`: blobs by rename, then its documents, of which index.json is the one that counts."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from modelpack.documents.contents import Contents
from modelpack.documents.expects import FILE_NAME, NOTHING, Expects
from modelpack.documents.extras import ATTACHMENT, FOLDER, README, SCRIPT, Attachment, Extras, path_of
from modelpack.documents.model import Model, blobs_of
from modelpack.documents.oci import Member, bundle
from modelpack.documents.sums import sums_say
from modelpack.errors import Corrupt, ModelpackError, NotFound, Taken
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import check, pour
from modelpack.hands.kept import Opened, key_of, pour_on
from modelpack.hands.scratch import NewFile, Scratch
from modelpack.stores import Placed
from modelpack.words.blob import SMALL, Blob
from modelpack.words.digest import Digest
from modelpack.words.filename import folded
from modelpack.words.reader import Reader
from modelpack.words.report import Moved, Report, Stage

if TYPE_CHECKING:
    from modelpack.stores.folder import FolderBundle

SIGNATURE = "SHA256SUMS.sig"
"""What a signed bundle has beside its sums."""
_LATE = (README, SCRIPT)
UNFINISHED = ("SHA256SUMS.new", *(f"{path}.new" for path in _LATE))
"""What a killed run leaves: the documents are to be written again."""


class Writing:
    """Blobs by rename; then all documents at once, under the folder's lock, index.json late."""

    def __init__(
        self,
        store: FolderBundle,
        root: Folder,
        blobs: Folder,
        scratch: Scratch,
        models: Sequence[Model],
        expects: Expects,
        extras: Extras,
        report: Report,
    ) -> None:
        self._store, self._root, self._blobs = store, root, blobs
        self._scratch, self._models, self._report = scratch, models, report
        self._expects, self._extras = expects, extras
        self._known: dict[object, Blob] = {}
        self._committed: list[Model] = []

    def put(self, blob: Blob, data: Reader) -> Blob:
        """As Session says."""
        with self._scratch.new(blob.size) as file:
            file.writer.moved = lambda count: self._report(Moved(count))
            hashes = pour(data, blob.size, file.writer.appending(), blake3=True, where=self._root.path)
            return self._named(file, blob, check(blob, hashes))

    def put_on(self, blob: Blob, opened: Opened) -> Blob:
        """As Continues says: the folder keeps what came of it."""
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
        """As Session says; the bundle changes with the last model."""
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
                refuse_taken(there, models, self._root.path)
            self._write(there, models)

    def _complete(self, model: Model) -> None:
        for blob in model.blobs:
            if not self._has(blob) and blob not in self._expects:
                raise NotFound(f"the {blob.kind} blob {blob} is not in the bundle", where=self._root.path)

    def _has(self, blob: Blob) -> bool:
        return blob.digest is not None and self._blobs.file_size(blob.digest.hex) == blob.size

    def _hashed_here(self, model: Model) -> Model:
        """BLAKE3s of blobs that were here, from this bundle or by reading: the source's word is hearsay."""
        there = self._store.contents.models if self._root.stat("index.json") else ()
        noted: dict[object, Blob] = {blob.id: blob for one in there for blob in one.blobs}
        known: dict[object, Blob] = {}
        for blob in model.blobs:
            if blob.id in self._known or not self._has(blob):
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
        delta = there.delta if there is not None else NOTHING
        # What was expected and has come is hashed now: its BLAKE3 goes into the models that waited for it.
        come = {blob.id: blob for blob in blobs_of(models) if blob in delta and self._has(blob)}
        after = [one.settled(come) for one in named.values()]
        away = [blob for blob in blobs_of(after) if not self._has(blob)]
        expects = Expects.of([*self._expects.blobs, *delta.blobs]).only(away)
        extras = grown(self._store, there, self._extras)
        new = bundle(after, there.index.foreign if there else (), expects, extras)
        self._attach(there)
        for member in new.members:
            if isinstance(member.content, bytes) and member.path.startswith("blobs/"):
                self._file(member, self._blobs, member.path.rpartition("/")[2])
        self._file(Member("oci-layout", new.document("oci-layout")), self._root, "oci-layout")
        late = [README] if extras.script is None else [README, SCRIPT]
        for path in late:
            self._file(Member(path, new.document(path)), self._root, f"{path}.new", unless=path)
        sums = Member("SHA256SUMS", new.document("SHA256SUMS"))
        self._file(sums, self._root, "SHA256SUMS.new", anew=True)
        if expects:
            self._file(Member(FILE_NAME, expects.raw()), self._root, f"{FILE_NAME}.new", anew=True)
        self._file(Member("index.json", new.index), self._root, "index.json", anew=True)
        if expects:
            self._root.rename(f"{FILE_NAME}.new", self._root, FILE_NAME)
        else:
            self._root.remove(FILE_NAME)
            self._root.remove(f"{FILE_NAME}.new")  # of a run that was killed
        self._root.rename("SHA256SUMS.new", self._root, "SHA256SUMS")
        for path in late:  # until then those that the sums mean are there as .new
            if self._root.stat(f"{path}.new") is not None:
                self._root.rename(f"{path}.new", self._root, path)
        self._root.sync()
        if there is not None and not there.index.foreign:  # what those need, nobody here knows
            needed = {member.path for member in new.members}
            for member in bundle(before).members:
                if member.path not in needed and member.path.startswith("blobs/"):
                    with contextlib.suppress(ModelpackError):
                        self._blobs.remove(member.path.rpartition("/")[2])

    def _attach(self, there: Contents | None) -> None:
        """Write the new attachments; those that are listed with the same digest and size stay."""
        known = {one.name: one.blob for one in self._store.attachments_in(there)} if there else {}
        new = [
            one
            for one in self._extras.attachments
            if one.name not in known
            or (known[one.name].digest, known[one.name].size) != (one.blob.digest, one.blob.size)
        ]
        if not new:
            return
        self._report(Stage("attaching", sum(one.blob.size for one in new)))
        with self._root.folder(FOLDER, create=True) as folder:
            for one in new:
                for other in known:
                    if other != one.name and folded(other) == folded(one.name):
                        folder.remove(other)
                with self._scratch.new(one.blob.size) as file, one.open() as reader:
                    file.writer.moved = lambda count: self._report(Moved(count))
                    hashes = pour(reader, one.blob.size, file.writer.appending(), where=one.name)
                    check(one.blob, hashes, one.name)
                    file.appear(folder, one.name)
            self._root.sync()

    def _file(
        self, member: Member, folder: Folder, name: str, *, anew: bool = False, unless: str = ""
    ) -> None:
        """Write *member* as *name* into *folder*, where it is not there so, nor as *unless*."""
        content = member.content
        if not isinstance(content, bytes):
            raise TypeError("a document is bytes")
        there = unless or name
        same = not anew and folder.file_size(there) == len(content)
        if same and folder.read(there, len(content)) == content:
            if unless:
                folder.remove(name)  # of a run that was killed
            return
        with self._scratch.new(len(content)) as file:
            file.writer.write_at(memoryview(content), 0)
            file.appear(folder, name)


def refuse_taken(there: Contents, models: Sequence[Model], where: Path) -> None:
    """Raise Taken where a name of *models* stands for another model *there*."""
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


def grown(store: FolderBundle, there: Contents | None, extras: Extras) -> Extras:
    """What travels along once *extras* have come to what is *there*: its script stays where they have none.

    Raises Taken where an attachment's name stands for another file, and *store* replaces nothing; Corrupt
    where a script is to stay that is damaged.
    """
    if there is None:
        return extras
    script = extras.script
    digest = sums_say(there.sums or {}, SCRIPT)
    if script is None and digest is not None:
        try:
            script = store.read(SCRIPT, SMALL)
        except NotFound:  # on its way here something took it out
            script = None
        if script is not None and Digest.of(script) != digest:
            raise Corrupt(
                f"{SCRIPT} is damaged", where=store.path, advice="Pack with a script, or repair it."
            )
    # What is listed and missing stays listed: growing makes nothing whole.
    found = {one.name: one for one in store.attachments_in(there)}
    kept = {
        folded(name): found.get(name)
        or Attachment(name, Blob(0, ATTACHMENT, digest), partial(store.open_attachment, name))
        for name, digest in there.attachments
    }
    for one in extras.attachments:
        old = kept.get(folded(one.name))
        if old is not None and old.blob.digest != one.blob.digest and not store.replace:
            raise Taken(
                f"{path_of(old.name)} stands there for another file",
                where=store.path,
                advice="Use --replace to put the new one in its place, or give the file another name.",
            )
        kept[folded(one.name)] = one
    return Extras(script, tuple(kept.values()))
