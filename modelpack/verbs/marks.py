"""What lies at a path: content decides which store it is, never a suffix."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modelpack.documents.gguf import read_gguf
from modelpack.documents.modelfile import looks_like_modelfile
from modelpack.errors import NotFound, Unsupported, Usage
from modelpack.hands.bytes import FileReader
from modelpack.hands.hashing import blamed
from modelpack.stores import Source
from modelpack.stores.archive import Archive
from modelpack.stores.files import LooseGguf
from modelpack.stores.files_modelfile import model_folder, modelfile
from modelpack.stores.files_snapshot import snapshot_name, snapshot_of
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.plain import DOCUMENTS, PlainFolder
from modelpack.verbs.installed import Installed
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import fill
from modelpack.words.report import Note, Report

_NO_MODELFILE = re.compile(r"\.?modelfile\.?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Loose:
    """How loose files become a model: where a base is looked up, what they are quantized to."""

    look: Installed
    quantize: str | None
    report: Report

    def modelfile(self, path: Path) -> Source:
        """What the Modelfile at *path* says, named after its folder or its own name."""
        stem = (
            path.parent.resolve().name
            if path.name.lower() == "modelfile"
            else _NO_MODELFILE.sub("", path.name)
        )
        return modelfile(path, Name.of_file(stem), self.look.find, quantize=self.quantize)

    def folder(self, path: Path) -> Source:
        """GGUFs, or a snapshot of a model that a server converts, in the directory *path*."""
        path = snapshot_of(path)
        return model_folder(path, Name.of_file(snapshot_name(path)), quantize=self.quantize)

    def unpacked(self, path: Path) -> Source:
        """The documents of an unpacked model where its files still fit, else what its Modelfile says now."""
        plain = PlainFolder(path)
        reason = "it is to be quantized" if self.quantize else plain.fits(self.report)
        if reason is None:
            return plain
        if not (path / DOCUMENTS).is_file():
            raise Unsupported(
                f"holds unpacked models, not all of them as they were: {reason}",
                where=path,
                advice="Pack each of its folders as a SOURCE of its own.",
            )
        self.report(Note(f"{path}: {reason}: packed from the Modelfile, with an ID of its own."))
        return self.modelfile(path / "Modelfile")


def store_in(path: Path, expect: Digest | None, loose: Loose) -> Source:
    """The store in the directory *path*, by its marks; what explains itself comes before loose files."""
    names = {one.name for one in path.iterdir()}
    marks: list[tuple[str, Callable[[], Source]]] = []
    if names & {"oci-layout", "index.json"}:
        marks.append(("oci-layout: a bundle", lambda: FolderBundle(path, expect=expect)))
    if {"manifests", "blobs"} <= names:
        marks.append(("manifests/ and blobs/: a models directory", lambda: ModelsDir(path)))
    if (path / DOCUMENTS).is_file() or any((path / name / DOCUMENTS).is_file() for name in names):
        marks.append((f"{DOCUMENTS}: an unpacked model", lambda: loose.unpacked(path)))
    elif "Modelfile" in names:
        marks.append(("Modelfile: a model's files", lambda: loose.modelfile(path / "Modelfile")))
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
    """The store that the file at *path* is: an archive, a GGUF or a Modelfile."""
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
