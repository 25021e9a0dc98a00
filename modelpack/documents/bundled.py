"""What every bundle tells of itself by its documents, in a file, a folder, volumes or a pipe."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from modelpack.documents.contents import Contents
from modelpack.documents.model import Model
from modelpack.words.digest import Digest


class Bundled(ABC):
    """A bundle, as far as its documents tell."""

    @property
    @abstractmethod
    def contents(self) -> Contents:
        """What its documents say, all of them checked."""

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
