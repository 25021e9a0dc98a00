"""What lies at a path: content decides which store it is, never a suffix."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modelpack.documents.gguf import read_gguf
from modelpack.documents.modelfile import looks_like_modelfile
from modelpack.documents.volumes import set_of, stem_of
from modelpack.errors import Corrupt, ModelpackError, NotFound, Unsupported, Usage
from modelpack.hands.bytes import FileReader
from modelpack.hands.hashing import blamed
from modelpack.stores import Source
from modelpack.stores.archive import Archive
from modelpack.stores.files import LooseGguf
from modelpack.stores.files_modelfile import model_folder, modelfile
from modelpack.stores.files_snapshot import snapshot_name, snapshot_of
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.plain import DOCUMENTS, MODELFILE, PlainFolder
from modelpack.stores.volumes import VolumeSet
from modelpack.verbs.installed import Installed
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import fill
from modelpack.words.report import Note, Report, silent

_NO_MODELFILE = re.compile(r"\.?modelfile\.?", re.ASCII | re.IGNORECASE)
_SHOWN = 10


@dataclass(frozen=True)
class Loose:
    """How loose files become a model: where a base is looked up, what they are quantized to.

    With *anew*, unpacked files that were changed since become another model, and *report* is told.
    """

    look: Installed
    quantize: str | None = None
    anew: bool = False
    report: Report = silent
    also: tuple[Path, ...] = ()
    """Other folders with volumes of the same set."""

    def modelfile(self, path: Path, name: Name | None = None) -> Source:
        """What the Modelfile at *path* says, called *name*, else after its folder or its own name."""
        stem = (
            path.parent.resolve().name
            if path.name.lower() == "modelfile"
            else _NO_MODELFILE.sub("", path.name)
        )
        return modelfile(path, name or Name.of_file(stem), self.look.find, quantize=self.quantize)

    def folder(self, path: Path) -> Source:
        """GGUFs, or a snapshot of a model that a server converts, in the directory *path*."""
        path = snapshot_of(path)
        return model_folder(path, Name.of_file(snapshot_name(path)), quantize=self.quantize)

    def unpacked(self, path: Path) -> Source:
        """The models that were unpacked in *path*.

        With *anew* every byte is looked at, and where one was changed, it is what the Modelfile says now.
        """
        plain = PlainFolder(path)
        if not self.anew:
            return plain
        reason = "it is to be quantized" if self.quantize else plain.fits(self.report)
        if reason is None:
            if left := plain.left_out():
                more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
                named = ", ".join(left[:_SHOWN]) + more
                self.report(Note(f"{path}: left out, as no part of an unpacked model: {named}"))
            return plain
        if not (path / DOCUMENTS).is_file():
            plain.models()  # a folder whose documents are damaged says so itself
            if plain.begun():
                raise Corrupt(reason, where=path, advice="Unpack it again, or move that folder away.")
            raise Unsupported(
                f"holds unpacked models, not all of them as they were: {reason}",
                where=path,
                advice="Pack each of its folders as a SOURCE of its own.",
            )
        if not os.path.lexists(path / MODELFILE):
            error = Unsupported if self.quantize else Corrupt
            raise error(f"{reason}, and there is no Modelfile", where=path, advice="Unpack it again.")
        self.report(Note(f"{path}: {reason}: packed from the Modelfile, with an ID of its own."))
        try:
            (name,) = (model.name for model in plain.models())
        except ModelpackError:
            return self.modelfile(path / MODELFILE)
        return self.modelfile(path / MODELFILE, name)


def store_in(path: Path, expect: Digest | None, loose: Loose) -> Source:
    """The store in the directory *path*, by its marks; what explains itself comes before loose files."""
    names = {one.name for one in path.iterdir()}
    marks: list[tuple[str, Callable[[], Source]]] = []
    if names & {"oci-layout", "index.json"}:
        marks.append(("oci-layout: a bundle", lambda: FolderBundle(path, expect=expect)))
    if any(stem_of(name) is not None for name in names):
        marks.append(
            ("*.volumes.json: a set of volumes", lambda: VolumeSet([path, *loose.also], expect=expect))
        )
    if {"manifests", "blobs"} <= names:
        marks.append(("manifests/ and blobs/: a models directory", lambda: ModelsDir(path)))
    # Not Path.is_file: it raises where a folder may not be looked into, as lost+found.
    if any(os.path.isfile(path / name / DOCUMENTS) for name in ("", *names)):
        marks.append((f"{DOCUMENTS}: an unpacked model", lambda: loose.unpacked(path)))
    elif MODELFILE in names:
        marks.append((f"{MODELFILE}: a model's files", lambda: loose.modelfile(path / MODELFILE)))
    if not marks and (loose.also or any(set_of(name) is not None for name in names)):
        return VolumeSet([path, *loose.also], expect=expect)  # its descriptor lies elsewhere, or is missing
    if len(marks) > 1:
        listed = "; ".join(mark for mark, _ in marks)
        raise Usage(f"is several things at once: {listed}", where=path, advice="Move one of them away.")
    if marks:
        return marks[0][1]()
    suffixes = {name.rpartition(".")[2].lower() for name in names}
    if suffixes & {"gguf", "safetensors", "bin", "pth"} or {"snapshots", "config.json"} & names:
        return loose.folder(path)
    raise NotFound(
        "holds nothing that modelpack knows",
        where=path,
        advice="It knows bundles (oci-layout), models directories (manifests/ and blobs/), GGUFs, "
        "Modelfiles, and Hugging Face snapshots (config.json and safetensors).",
    )


def store_of(path: Path, expect: Digest | None, loose: Loose) -> Source:
    """The store that the file at *path* is: a set's volume, an archive, a GGUF or a Modelfile."""
    if (stem := set_of(path.name)) is not None:  # the first volume looks like a tar
        return VolumeSet([path.parent, *loose.also], stem=stem, expect=expect)
    with FileReader.at(path) as reader:
        head = bytearray(512)
        count = fill(reader, memoryview(head))
    if bytes(head[257:262]) == b"ustar" or (count and path.suffix == ".tar"):
        return Archive(path, expect=expect)
    if bytes(head[:4]) == b"GGUF":
        return LooseGguf(path, quantize=loose.quantize)
    if "modelfile" in path.name.lower() or looks_like_modelfile(bytes(head[:count])):
        return loose.modelfile(path)
    with (
        FileReader.at(path) as reader,
        blamed(path),
    ):  # the reader of GGUFs knows its first bytes, and says so
        read_gguf(reader, reader.size)
    raise AssertionError("unreachable: it is no GGUF")
