"""What every bundle in a tar has in common, wherever the bytes of the tar lie."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Generic, TypeVar

from modelpack.documents.bundled import Bundled
from modelpack.documents.expects import absent
from modelpack.documents.extras import ATTACHMENT, Attachment, path_of
from modelpack.documents.oci import blob_path
from modelpack.errors import Corrupt, NotFound
from modelpack.words.blob import Blob
from modelpack.words.reader import read_exactly

_R = TypeVar("_R", bound=AbstractContextManager[Any])


class Tarred(Bundled, Generic[_R]):
    """A bundle whose files are members of a tar: read in any order, straight from their places.

    _R is the Reader that gives the bytes of a stretch of the tar, to be used by `with`.
    """

    @property
    @abstractmethod
    def where(self) -> object:
        """What errors are about."""

    @property
    @abstractmethod
    def members(self) -> Mapping[str, tuple[int, int]]:
        """Where each file of the tar begins, and its bytes; Corrupt where the tar is cut or damaged."""

    @abstractmethod
    def _stretch(self, offset: int, size: int) -> _R:
        """The *size* bytes of the tar from *offset* on."""

    def _find(self, path: str) -> tuple[int, int] | None:
        """Where *path* lies, as of `members`."""
        return self.members.get(path)

    def open(self, blob: Blob, offset: int = 0) -> _R:
        """The bytes of *blob*, straight from their place in the tar."""
        path = blob_path(blob.digest)
        found = self._find(path)
        if found is None:
            raise absent(blob, self.contents.delta, self.where)
        begin, size = found
        if size != blob.size:
            raise Corrupt(f"{path} has {size} bytes, not {blob.size}", where=self.where)
        return self._stretch(begin + offset, size - offset)

    def attachments(self) -> tuple[Attachment, ...]:
        """The files that were attached, as SHA256SUMS lists them, as far as they are there."""
        return tuple(
            Attachment(
                name, Blob(self.members[path][1], ATTACHMENT, digest), partial(self.open_attachment, name)
            )
            for name, digest in self.contents.attachments
            if (path := path_of(name)) in self.members
        )

    def open_attachment(self, name: str) -> _R:
        """The bytes of the attachment *name*; nobody has held them against its digest. NotFound."""
        found = self._find(path_of(name))
        if found is None:
            raise NotFound(f"{path_of(name)} is missing", where=self.where)
        return self._stretch(*found)

    def files(self) -> dict[str, int]:
        """Every file of the tar, with its bytes."""
        return {path: size for path, (_, size) in self.members.items()}

    def read(self, path: str, most: int) -> bytes:
        """The small file at *path*; NotFound, or Corrupt where it has more than *most* bytes."""
        found = self._find(path)
        if found is None:
            raise NotFound(f"{path} is missing: not a bundle, or not all of it", where=self.where)
        offset, size = found
        if size > most:
            raise Corrupt(f"{path} has {size} bytes; no real one has more than {most}", where=self.where)
        with self._stretch(offset, size) as reader:
            return read_exactly(reader, size, path)
