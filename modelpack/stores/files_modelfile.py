"""A Modelfile and all that it names, which become an image, or a recipe where only a server can make it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelpack.documents.compose import Base, Weights, compose, media_type_of
from modelpack.documents.config import Remark, check_quantizable, remarks_on
from modelpack.documents.gguf import read_gguf
from modelpack.documents.gojson import parse_object
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.documents.modelfile import Command, Modelfile, parse_modelfile
from modelpack.documents.modelfile_grammar import LIMIT
from modelpack.documents.recipe import Recipe
from modelpack.errors import ModelpackError, NotFound, Unsupported, Usage
from modelpack.hands.bytes import FileReader
from modelpack.hands.hashing import blamed, read_small
from modelpack.hands.links import within
from modelpack.stores import Source
from modelpack.stores.files import LooseFiles, blob_of, gguf_part
from modelpack.stores.files_parts import Part, WholeFile
from modelpack.stores.files_snapshot import licences, snapshot_files
from modelpack.words.blob import ADAPTER, DRAFT, FILE, MODEL, PARAMS, PROJECTOR, SMALL, TEMPLATE, Blob
from modelpack.words.name import Name
from modelpack.words.reader import read_at_most
from modelpack.words.text import size

Installed = Callable[[Name], "tuple[Source, Model] | None"]
"""Looks for an installed model by name: where it is, and what it is."""

_PATHLIKE = re.compile(
    r"\.{1,2}([/\\]|$)|[/\\~]|[A-Za-z]:[/\\]|.*\.(gguf|safetensors|bin)$", re.ASCII | re.I | re.S
)
_FIELDS = {"from": "files", "adapter": "adapters", "draft": "draft_files"}


def modelfile(path: Path, name: Name, installed: Installed, *, quantize: str | None = None) -> LooseFiles:
    """The model that the Modelfile at *path* describes, called *name*; *quantize* makes it a recipe.

    Raises Corrupt for what is no Modelfile, NotFound for a file that it names, Unsupported for what Ollama
    would pass over in silence, Refused for a link that leads out of its folder.
    """
    with FileReader.at(path) as reader, blamed(path):
        raw = read_at_most(reader, LIMIT, "the Modelfile")
    return _Reading(path, path.parent, name, parse_modelfile(raw, path), installed, quantize).result()


def model_folder(path: Path, name: Name, *, quantize: str | None = None) -> LooseFiles:
    """The model in the directory *path*: as `FROM .` would say, and its licence files."""
    reading = _Reading(path, path, name, parse_modelfile(b"FROM ."), lambda _: None, quantize)
    reading.add_licences(licences(path))
    return reading.result()


class _Reading:
    """What a Modelfile names, found on the disk or among the installed models."""

    def __init__(
        self,
        path: Path,
        folder: Path,
        name: Name,
        said: Modelfile,
        installed: Installed,
        quantize: str | None,
    ) -> None:
        self._path, self._folder, self._name, self._said = path, folder, name, said
        self._installed, self._quantize = installed, quantize
        self._body: dict[str, Any] = dict(said.body)
        self._weights: list[Weights] = []
        self._files: dict[str, dict[str, Part]] = {}
        self._base: tuple[Source, Model] | None = None
        self._only_a_server = quantize is not None
        self._notes = list(said.remarks)

    def result(self) -> LooseFiles:
        """The model, as the Modelfile has it."""
        for command in self._said.sources:
            self._source(command)
        for command in (*self._said.drafts, *self._said.adapters):
            self._beside(command)
        if self._quantize:
            self._body["quantize"] = self._quantize
        return self._recipe() if self._only_a_server else self._image()

    def add_licences(self, files: Mapping[str, Path]) -> None:
        """Carry along the texts of licence files, at most SMALL: Ollama's create would leave them behind."""
        texts: list[str] = []
        left = SMALL
        for title, file in files.items():
            with FileReader.at(file) as reader, blamed(file):
                if reader.size > left:
                    most = f"a model's licences have {size(SMALL)} together at most"
                    self._notes.append(f"{title} ({size(reader.size)}) is not carried along: {most}.")
                    continue
                raw = read_at_most(reader, left, "a licence")
            try:
                texts.append(raw.decode("utf-8"))
                left -= len(raw)
            except UnicodeDecodeError:
                self._notes.append(f"{title} is not UTF-8, and not carried along.")
        if texts:
            self._body["license"] = texts

    # --- what is named

    def _source(self, command: Command) -> None:
        found = self._find(command)
        if found is not None:
            self._take(command, found)
        elif len(self._said.sources) > 1:
            raise self._against(
                command,
                f"FROM {command.value} is a model's name, beside another FROM: Ollama would pass over one",
            )
        else:
            self._from_model(command)

    def _beside(self, command: Command) -> None:
        found = self._find(command)
        if found is None:
            raise self._missing(command)
        if command.name == "draft" and any(found == self._find(one) for one in self._said.sources):
            raise self._against(command, "DRAFT names the very file of FROM")
        self._take(command, found)

    def _from_model(self, command: Command) -> None:
        try:
            name = Name.parse(command.value)
        except Usage:
            raise self._missing(command) from None
        self._base = self._installed(name)
        if self._base is None or not isinstance(self._base[1].document, Image):
            self._only_a_server, self._base = True, None
            self._body["from"] = str(name)

    def _take(self, command: Command, path: Path) -> None:
        """The GGUFs, or the files for the server to convert, at *path*."""
        ggufs, others = self._listed(command, path)
        field = self._files.setdefault(_FIELDS[command.name], {})
        for title, file in others.items():
            field[title] = WholeFile(file)
        self._only_a_server |= bool(others)
        parts: dict[object, WholeFile | Any] = {}
        for gguf in ggufs:
            with blamed(gguf):
                part = gguf_part(gguf, folder=self._folder if self._plain(command) else None)
            parts.setdefault(part.key, part)
        for part in parts.values():
            kind = DRAFT if command.name == "draft" else media_type_of(part.gguf)
            if command.name == "adapter" and kind != ADAPTER:
                raise self._against(command, f"{part.title} is no adapter but a {part.gguf.role}")
            if self._quantize and kind == MODEL:
                check_quantizable(part.gguf, part.title)
            self._weights.append(Weights(blob_of(part, kind), part.gguf))
            field[_free(part.title, field)] = part

    def _listed(self, command: Command, path: Path) -> tuple[list[Path], Mapping[str, Path]]:
        """GGUFs at *path*, and files that Ollama converts, by their names in the request."""
        if not path.is_dir():
            if path.suffix.lower() == ".safetensors":
                raise self._against(command, f"{command.value} is one file of a model: name its folder")
            return [path], {}
        # A Mac puts `._x.gguf` beside every file on exFAT.
        files = [one for one in path.iterdir() if not one.name.startswith(".")]
        ggufs = sorted(one for one in files if one.name.lower().endswith(".gguf"))
        if ggufs and not any(one.suffix == ".safetensors" for one in files):
            return [self._inside(one, path) for one in ggufs], {}
        return [], snapshot_files(path, adapter=command.name == "adapter")

    def _find(self, command: Command) -> Path | None:
        """The path that *command* means, as Ollama expands it; None where it may be a name."""
        text = command.value
        here = self._folder
        try:
            path = here / Path(text).expanduser()
        except RuntimeError as error:  # ~nobody
            raise NotFound(f"line {command.line}: {error}", where=self._path) from None
        if not os.path.lexists(path):
            if _PATHLIKE.match(text):
                raise self._missing(command)
            return None
        return self._inside(path, here) if self._plain(command) else path

    def _plain(self, command: Command) -> bool:
        """Whether its path says that it stays in the Modelfile's folder: no link may lead out."""
        path = Path(command.value)
        return not path.is_absolute() and not command.value.startswith("~") and ".." not in path.parts

    def _inside(self, path: Path, folder: Path) -> Path:
        """*path* under its own name, once it is known that no link leads it out of *folder*."""
        within(path, folder)
        return path

    def _missing(self, command: Command) -> ModelpackError:
        return NotFound(
            f"line {command.line}: {command.name.upper()} {command.value[:200]}: no such file",
            where=self._path,
            advice="Paths are relative to the Modelfile's own directory.",
        )

    def _against(self, command: Command, what: str) -> ModelpackError:
        return Unsupported(f"line {command.line}: {what}", where=self._path, advice="Name one of them.")

    # --- what becomes of it

    def _recipe(self) -> LooseFiles:
        groups: dict[str, dict[str, Blob]] = {}
        parts: dict[object, Part] = {}
        for field, files in self._files.items():
            for title, part in files.items():
                parts[part.key] = part
                groups.setdefault(field, {})[title] = Blob(
                    part.size, FILE, title=title, key=part.key, shards=(None,) * part.shards
                )
        if self._base is not None:
            self._body["from"] = str(self._base[1].name)
        model = Model(self._name, Recipe.compose(self._body, groups))
        return LooseFiles(model, parts, {}, self._path, notes=self._notes)

    def _image(self) -> LooseFiles:
        base = _read_base(*self._base) if self._base else None
        image, made = compose(self._weights, self._body, base, self._path)
        parts = {part.key: part for files in self._files.values() for part in files.values()}
        remarks: frozenset[Remark] = frozenset()
        for one in self._weights:
            if one.blob.media_type == MODEL:
                remarks |= remarks_on(one.gguf)
        if image.of_kind(TEMPLATE):
            remarks -= {Remark.CHAT_TEMPLATE}
        if self._base:
            self._notes.append(f"FROM {self._base[1].name}: stacked on {self._base[1].document.id.short}.")
        return LooseFiles(
            Model(self._name, image),
            parts,
            made,
            self._path,
            base=self._base[0] if self._base else None,
            remarks=remarks,
            notes=self._notes,
        )


def _read_base(source: Source, model: Model) -> Base:
    """What of an installed model goes into one that is stacked on it: its config, parameters and headers."""
    image = model.document
    if not isinstance(image, Image):
        raise Unsupported("is no image: nothing can be stacked on it", where=model.name)
    config = parse_object(_small(source, image.config), f"{model.name}: config")
    if config.get("remote_host") or config.get("remote_model"):
        raise Unsupported(
            "runs on another host (remote_host): there is nothing to stack on", where=model.name
        )
    if config.get("model_format") == "safetensors":
        raise Unsupported(
            "is safetensors in Ollama's own form: what is stacked on it only Ollama can make",
            where=model.name,
            advice="Create the model in Ollama, and pack that.",
        )
    params: dict[str, Any] = {}
    for blob in image.of_kind(PARAMS):
        for key, value in parse_object(_small(source, blob), f"{model.name}: params").items():
            params.setdefault(key, value)  # setParameters: the first layer that says it wins
    ggufs = {}
    for blob in image.of_kind(MODEL, PROJECTOR, ADAPTER, DRAFT):
        with source.open(blob) as reader:
            ggufs[blob.id] = read_gguf(reader, blob.size, where=f"{model.name}: {blob.kind}")
    return Base(image, config, params, ggufs)


def _small(source: Source, blob: Blob) -> bytes:
    with source.open(blob) as reader:
        return read_small(reader, blob)


def _free(title: str, taken: Mapping[str, Part]) -> str:
    """*title*, or another that nothing has yet: two folders may hold files of one name."""
    stem, dot, suffix = title.rpartition(".")
    number, free = 2, title
    there = {one.lower() for one in taken}
    while free.lower() in there:
        free, number = f"{stem or suffix}-{number}{dot}{suffix if stem else ''}", number + 1
    return free
