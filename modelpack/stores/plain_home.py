"""One model and the folder that its files go into: what is there, what is missing, what is in the way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

from modelpack.documents.extras import FOLDER as ATTACHMENTS
from modelpack.documents.model import Model
from modelpack.documents.modelfile_grammar import LIMIT
from modelpack.errors import Corrupt, NotFound, Refused, Taken
from modelpack.hands.disk import Folder
from modelpack.hands.scratch import SCRATCH
from modelpack.stores import Placed
from modelpack.stores.plain_layout import (
    FOLDER,
    MODELFILE,
    Layout,
    digest_of,
    layout,
    modelfile_of,
    staged,
    why_none,
)
from modelpack.stores.plain_record import (
    DOCUMENTS,
    OURS,
    REPLACED,
    Record,
    read_at,
    read_replaced,
    size_at,
)
from modelpack.stores.plain_seen import Seen
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.filename import systems_own

WAY = "plain"
_ELSE = "Use --replace to have it replaced, or name another folder."


class Home:
    """*model*, whose files go into the folder called *name* below DIR ("" is DIR itself).

    *modelfile*: whether one is wanted. *replace*: whether what is in the way may go.
    """

    def __init__(self, name: str, model: Model, seen: Seen, *, modelfile: bool, replace: bool) -> None:
        self.name, self.model = name, model
        self._seen, self._modelfile, self._replace = seen, modelfile, replace

    @cached_property
    def layout(self) -> Layout:
        """Where its files lie."""
        return layout(self.model)

    @cached_property
    def paths(self) -> dict[Digest, list[str]]:
        """The paths of each of its blobs."""
        found: dict[Digest, list[str]] = {}
        for path, blob in self.layout.files.items():
            found.setdefault(digest_of(blob), []).append(path)
        return found

    @cached_property
    def why_none(self) -> str:
        """Why it gets no Modelfile; empty where it gets one, or none is wanted. Unsupported as `why_none`."""
        return why_none(self.model) if self._modelfile else ""

    @property
    def wants_modelfile(self) -> bool:
        """Whether it gets one."""
        return self._modelfile and not self.why_none

    @contextlib.contextmanager
    def opened(self, root: Folder, *, create: bool = False) -> Iterator[Folder]:
        """Its folder; NotFound where that is missing."""
        if not self.name:
            yield root
            return
        with root.folder(self.name, create=create) as folder:
            if create:
                root.sync()
            yield folder

    def record(self, folder: Folder) -> Record | None:
        """What was unpacked there before; None where nothing was, or where it cannot be read."""
        return self._seen.record(folder, self.name)

    def left(self, folder: Folder) -> list[str]:
        """What is left of a model that a broken run was replacing there: files as it noted them."""
        found = []
        for path, blob in read_replaced(folder).items():
            with contextlib.suppress(Refused):
                if size_at(folder, path) == blob.size:
                    found.append(path)
        return found

    # --- what is there

    def whole(self, folder: Folder, path: str, blob: Blob) -> bool:
        """Whether *blob* stands at *path*, by its hash; what is known already is not read again.

        Refused where something else than a plain file is there.
        """
        return size_at(folder, path) == blob.size and self._seen.hashed(folder, path, blob) == blob.digest

    def find(self, root: Folder, blob: Blob) -> str | None:
        """Where *blob* is in this folder, staged or under its name."""
        digest = digest_of(blob)
        if digest not in self.paths:
            return None
        try:
            with self.opened(root) as folder:
                for path in dict.fromkeys((staged(digest), *self.paths[digest])):
                    if self.whole(folder, path, blob):
                        return path
        except NotFound:
            pass
        return None

    def placed(self, root: Folder) -> Placed | None:
        """The model, where all of it is here and its Modelfile is as it was written.

        Files count by size; where what is wrong may be replaced, by their bytes.
        """
        try:
            with self.opened(root) as folder:
                record = self.record(folder)
                if record is None or record.model.name.folded != self.model.name.folded:
                    return None
                if record.model.document.raw != self.model.document.raw:
                    return None
                if any(size_at(folder, path) != blob.size for path, blob in record.files.items()):
                    return None
                if self._replace and not all(
                    self.whole(folder, path, blob) for path, blob in record.files.items()
                ):
                    return None
                if self.wants_modelfile and (
                    record.modelfile is None or self._written(folder) != record.modelfile
                ):
                    return None
        except NotFound:
            return None
        return Placed(record.model.name, self.model.document.id, True, WAY, note=self.note())

    def _written(self, folder: Folder) -> Digest | None:
        try:
            return Digest.of(read_at(folder, MODELFILE, LIMIT))
        except (NotFound, Corrupt):
            return None

    def modelfile(self, read: Callable[[Blob], bytes]) -> tuple[bytes | None, tuple[str, ...]]:
        """Its Modelfile (None: it gets none), and what that cannot say; *read* brings its small texts."""
        if not self.wants_modelfile:
            return None, ()
        return modelfile_of(self.model, self.layout, read)

    def note(self, unsaid: tuple[str, ...] = ()) -> str:
        """What the user should know of the Modelfile."""
        if self.why_none:
            return (
                f"No Modelfile can say it ({self.why_none}), and these files cannot be run as they are: "
                "`modelpack pack` makes the same model of them again."
            )
        if unsaid:
            return f"Its Modelfile cannot say {', '.join(unsaid)}; {self.layout.document} does."
        return ""

    # --- what is in the way

    def refuse(self, root: Folder, text: bytes | None) -> None:
        """Raise Taken where something else is there than what is unpacked, unless that may be replaced.

        *text* is the Modelfile, None where it is not known yet or not wanted. Raises Refused where a link, a
        directory or a device stands in the way, whatever may be replaced.
        """
        try:
            with self.opened(root) as folder:
                reason = self._in_the_way(folder, text)
        except NotFound:
            return
        if reason and not self._replace:
            raise Taken(reason, where=self.where(root), advice=_ELSE)

    def where(self, root: Folder) -> Path:
        """The path of its folder."""
        return root.path / self.name if self.name else root.path

    def _in_the_way(self, folder: Folder, text: bytes | None) -> str:
        """What is in the way, as a sentence; all is looked at, as what is no plain file is Refused."""
        reasons = []
        record, left = self.record(folder), self.left(folder)
        if record is None and size_at(folder, DOCUMENTS) is not None:
            reasons.append(f"{DOCUMENTS} is there, and cannot be read")
        elif record is not None and record.model.document.raw != self.model.document.raw:
            reasons.append(
                f"{record.model.name} is unpacked there, another model ({record.model.document.id.short}; "
                f"this one is {self.model.document.id.short})"
            )
        elif record is not None and record.model.name.folded != self.model.name.folded:
            reasons.append(f"{record.model.name} is unpacked there, the same model by another name")
        if record is None and (strangers := self._strangers(folder, left)):
            reasons.append(f"other things are there: {', '.join(strangers[:3])}")
        for path, blob in self.layout.files.items():
            if size_at(folder, path) is None or self.whole(folder, path, blob):
                continue
            if path not in left and path != staged(digest_of(blob)):  # that name is nothing else's
                reasons.append(f"{path} is there, and is another file")
        raw = self.model.document.raw
        size = size_at(folder, self.layout.document)
        broken = (
            size_at(folder, REPLACED) is not None
        )  # then it is the document of the model that was replaced
        if (
            size is not None
            and not broken
            and (size != len(raw) or read_at(folder, self.layout.document, size) != raw)
        ):
            reasons.append(f"{self.layout.document} is there, and says something else")
        if self.wants_modelfile and size_at(folder, MODELFILE) is not None:
            written = self._written(folder)
            expected = record.modelfile if record is not None else None
            unknown = text is None and record is None  # it is looked at again once the texts are there
            if written is None or (written != expected and not unknown and written != Digest.of(text or b"")):
                reasons.append("its Modelfile says something else")
        return reasons[0] if reasons else ""

    def _strangers(self, folder: Folder, left: list[str]) -> list[str]:
        """What lies there that is none of the files to come nor what is *left*, nor the systems' own."""
        known = {path.partition("/")[0] for path in (*self.layout.files, *left)} | {FOLDER, SCRATCH}
        known |= {MODELFILE} if self.wants_modelfile else set()
        known |= set() if self.name else {ATTACHMENTS}
        found = [name for name in folder.names() if name not in known and not systems_own(name)]
        with contextlib.suppress(NotFound), folder.folder(FOLDER) as documents:
            found += [f"{FOLDER}/{name}" for name in documents.names() if not OURS.fullmatch(name)]
        return found
