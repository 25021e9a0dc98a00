"""Models that an Ollama on this machine has: in which directories to look, and in which one a name is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from modelpack.documents.model import Model
from modelpack.errors import Corrupt, Local, ModelpackError, NotFound, Unsupported
from modelpack.stores.models_dir import ModelsDir
from modelpack.words.name import Name

SERVICE = Path("/usr/share/ollama/.ollama/models")
"""Where the Linux service keeps its models (docs/linux.md of Ollama)."""


@dataclass(frozen=True)
class Installed:
    """The models directories to look in, in that order."""

    places: tuple[Path, ...]

    @classmethod
    def here(cls, given: str | None = None) -> Installed:
        """*given* alone, else `$OLLAMA_MODELS`, the Linux service's and the home's: those that are there."""
        if given is not None:
            place = Path(given).expanduser()
            if not (place / "manifests").is_dir():
                raise NotFound(
                    "is no models directory: it has no manifests/",
                    where=given,
                    advice="Name the directory that Ollama has as OLLAMA_MODELS.",
                )
            return cls((place,))
        named = os.environ.get("OLLAMA_MODELS")
        places = [Path(named)] if named else []
        places += [SERVICE, Path(os.path.expanduser("~")) / ".ollama" / "models"]
        return cls(tuple(place for place in dict.fromkeys(places) if os.path.lexists(place)))

    def find(self, name: Name) -> tuple[ModelsDir, Model] | None:
        """The model of this name, and the first directory that has it; None where none has.

        Raises what keeps its manifest from being read. A directory that may not be looked into at all is
        passed over.
        """
        for place in self.places:
            store = ModelsDir(place)
            try:
                found = store.read(name)
            except Local:
                if _open(place):
                    raise
                continue
            if found is not None:
                return store, Model(*found)
        return None

    def get(self, name: Name) -> tuple[ModelsDir, Model]:
        """As `find`; NotFound says where it was looked for, and where it could not be."""
        found = self.find(name)
        if found is not None:
            return found
        closed = [str(place) for place in self.places if not _open(place)]
        looked = ", ".join(str(place) for place in self.places if _open(place)) or "no models directory here"
        advice = "Another models directory is named DIR#NAME."
        if closed:
            advice = (
                f"{', '.join(closed)} may not be read by this user: run as root, or as its owner. {advice}"
            )
        raise NotFound(f"no installed model {name} (looked in {looked})", advice=advice)

    def names(self, text: str) -> bool:
        """Whether *text* is the name of an installed model."""
        try:
            return self.find(Name.parse(text)) is not None
        except (Corrupt, Unsupported):  # it is there, and damaged
            return True
        except ModelpackError:  # no name, or nothing that can be looked into
            return False


def _open(place: Path) -> bool:
    return os.access(place / "manifests", os.R_OK | os.X_OK)
