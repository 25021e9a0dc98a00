"""The models of a models directory as Ollama's API tells of them: list, copy, delete.

Changes are made one at a time, under `changing`: no blob that a new manifest needs is taken away meanwhile.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

from modelpack.depot.asked import Says, text_field
from modelpack.depot.capabilities import Facts, listed
from modelpack.depot.golang import quoted
from modelpack.documents.gguf import Gguf, read_gguf
from modelpack.documents.gojson import parse_object, parse_value
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.errors import Corrupt, ModelpackError, NotFound, Usage
from modelpack.hands.disk import Folder
from modelpack.stores.models_dir import ModelsDir
from modelpack.words.blob import MODEL, PROJECTOR, PROMPT, SMALL, TEMPLATE, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import read_at_most

_REMEMBERED = 4096


class Models:
    """The models directory at *path*, which may be missing or empty."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = ModelsDir(path, replace=True)
        self.changing = Lock()
        self._facts: dict[Digest, Facts] = {}

    # --- reading

    def tags(self) -> list[dict[str, Any]]:
        """The `models` of /api/tags, newest first; what has no readable config is left out, as there."""
        found = []
        for model in self.store.models():
            with contextlib.suppress(ModelpackError):
                found.append(self._tag(model))
        found.sort(key=lambda each: each[0], reverse=True)
        return [entry for _, entry in found]

    def _tag(self, model: Model) -> tuple[int, dict[str, Any]]:
        image = image_of(model)
        config = self.config(image)
        facts = next((self.facts(layer) for layer in image.of_kind(MODEL)), None)
        template = next((self.text(layer) for layer in image.of_kind(TEMPLATE, PROMPT)), None)
        modified = self.modified(model.name)
        details = details_of(config, parent_of(image))
        if facts is not None:
            details["quantization_level"] = _known(details["quantization_level"], facts.file_type)
        lengths = {
            "context_length": config.get("context_length") or (facts.context_length if facts else 0),
            "embedding_length": config.get("embedding_length") or (facts.embedding_length if facts else 0),
        }
        entry: dict[str, Any] = {"name": str(model.name), "model": str(model.name)}
        for key in ("remote_model", "remote_host"):
            if config.get(key):
                entry[key] = config[key]
        entry |= {
            "modified_at": moment(modified),
            "size": sum(layer.size for layer in (*image.layers, image.config)),
            "digest": image.id.hex,
            "details": details | {key: value for key, value in lengths.items() if value},
        }
        abilities = listed(config, facts, template, len(image.of_kind(PROJECTOR)))
        if abilities:
            entry["capabilities"] = list(abilities)
        return modified // 10**9, entry

    def find(self, text: str) -> tuple[Name, Image] | None:
        """The model that *text* names, under the name it has here; raises Usage where that is no name."""
        return self.store.read(self.existing(Name.parse(text)))

    def existing(self, name: Name) -> Name:
        """*name*, with the parts from the left that are here in another case as they are here."""
        parts: list[str] = []
        with contextlib.ExitStack() as stack, contextlib.suppress(NotFound):
            folder = stack.enter_context(Folder.at(self.path))
            folder = stack.enter_context(folder.folder("manifests"))
            for part in name.parts:
                same = [one for one in folder.names() if one.lower() == part.lower()]
                if not same:
                    break
                parts.append(part if part in same else same[0])
                if len(parts) < 4:
                    folder = stack.enter_context(folder.folder(parts[-1]))
        return Name(*parts, *name.parts[len(parts) :])

    def modified(self, name: Name) -> int:
        """When the manifest of *name* was written, in nanoseconds since 1970."""
        with self._folders(name) as folders:
            found = folders[-1].stat(name.tag)
        if found is None:
            raise NotFound(f"the manifest of {name} vanished", where=self.path)
        return found.st_mtime_ns

    def config(self, image: Image) -> dict[str, Any]:
        """The model's config."""
        return parse_object(self.bytes(image.config), f"config {image.config}")

    def value(self, blob: Blob) -> Any:
        """The JSON in a small layer."""
        return parse_value(self.bytes(blob), f"{blob.kind} {blob}")

    def text(self, blob: Blob) -> str:
        """The text of a small layer."""
        return self.bytes(blob).decode("utf-8", "replace")

    def bytes(self, blob: Blob) -> bytes:
        """The bytes of a small layer."""
        with self.store.open(blob) as reader:
            return read_at_most(reader, SMALL, f"{blob.kind} {blob}")

    def gguf(self, blob: Blob) -> Gguf:
        """The header of a GGUF; raises what `read_gguf` does."""
        with self.store.open(blob) as reader:
            return read_gguf(reader, blob.size, where=self.blob_path(blob))

    def facts(self, blob: Blob) -> Facts | None:
        """What the header of a GGUF tells; None where it is none."""
        if blob.digest is None:
            return None
        found = self._facts.get(blob.digest)
        if found is None:
            try:
                found = Facts.of(self.gguf(blob))
            except ModelpackError:
                return None
            if len(self._facts) >= _REMEMBERED:
                self._facts.clear()
            self._facts[blob.digest] = found
        return found

    def size_of(self, digest: Digest) -> int | None:
        """Bytes of the blob's file; None where there is none."""
        with contextlib.suppress(NotFound), Folder.at(self.path) as root, root.folder("blobs") as blobs:
            return blobs.file_size(digest.file_name)
        return None

    def blob_path(self, blob: Blob) -> str:
        """Where the file of *blob* is, as `show` tells."""
        return str(self.path / "blobs" / blob.digest.file_name) if blob.digest else ""

    # --- changing

    def copy(self, source: str, destination: str) -> None:
        """Give the model *source* a second name; Says 400, 404."""
        name = _parsed(source, f"source {quoted(source)} is invalid")
        target = _parsed(destination, f"destination {quoted(destination)} is invalid")
        with self.changing:
            found = self.store.read(self.existing(name))
            if found is None:
                raise Says(404, f"model {quoted(source)} not found")
            model = Model(self.existing(target), found[1])
            with self.store.session([model]) as session:
                session.commit(model)

    def delete(self, asked: dict[str, Any]) -> None:
        """Remove a name, and the blobs that no other manifest names; Says 400, 404."""
        text = text_field(asked, "model", "name")
        if not text:
            raise Says(400, "model is required")
        name = _parsed(text, f"name {quoted(text)} is invalid")
        with self.changing:
            found = self.store.read(self.existing(name))
            if found is None:
                raise Says(404, f"model '{text}' not found")
            with self._folders(found[0]) as folders:
                folders[0].lock()  # against a load into this directory from another process
                folders[-1].remove(found[0].tag)
                for folder, above, part in reversed(
                    list(zip(folders[1:], folders, found[0].parts, strict=False))
                ):
                    if folder.names():
                        break
                    above.remove(part)
                folders[0].sync()
                self.forget(found[1])

    def forget(self, image: Image) -> None:
        """Remove the blobs of *image*, whose name is gone, that nothing else names.

        Where some manifest cannot be read, nobody knows what it names: then all blobs stay.
        """
        used: set[Digest | None] = set()
        for found in self.store.scan():
            if isinstance(found, ModelpackError):
                return
            used.update(digests_of(image_of(found)))
        with contextlib.suppress(NotFound), Folder.at(self.path) as root, root.folder("blobs") as blobs:
            for digest in digests_of(image) - used:
                blobs.remove(digest.file_name)
                blobs.remove(str(digest))  # as very old Ollamas named it
            blobs.sync()

    @contextlib.contextmanager
    def _folders(self, name: Name) -> Iterator[list[Folder]]:
        """`manifests/` and the directories below it down to the one that holds the manifest of *name*."""
        with contextlib.ExitStack() as stack:
            root = stack.enter_context(Folder.at(self.path))
            folders = [stack.enter_context(root.folder("manifests"))]
            for part in name.parts[:3]:
                folders.append(stack.enter_context(folders[-1].folder(part)))
            yield folders


def image_of(model: Model) -> Image:
    """The manifest of a model from a models directory: nothing else is there."""
    if not isinstance(model.document, Image):
        raise Corrupt("is not an image", where=model.name)
    return model.document


def digests_of(image: Image) -> set[Digest]:
    """Every digest that *image* names."""
    return {blob.digest for blob in (*image.layers, image.config) if blob.digest is not None}


def layers_of(image: Image) -> list[dict[str, Any]]:
    """The layers as the manifest has them, with `from` and `name`."""
    layers = parse_object(image.raw, "manifest").get("layers")
    return [layer for layer in layers or [] if isinstance(layer, dict)]


def parent_of(image: Image) -> str:
    """Which model it was made from."""
    found = (str(each.get("from") or "") for each in layers_of(image) if each.get("mediaType") == MODEL)
    return next(found, "")


def details_of(config: dict[str, Any], parent: str) -> dict[str, Any]:
    """`details`, in Ollama's order."""
    return {
        "parent_model": parent,
        "format": config.get("model_format") or "",
        "family": config.get("model_family") or "",
        "families": config.get("model_families"),
        "parameter_size": config.get("model_type") or "",
        "quantization_level": config.get("file_type") or "",
    }


def _known(file_type: str, other: str) -> str:
    return other if file_type.lower() in ("", "unknown") and other != "unknown" else file_type


def moment(nanoseconds: int) -> str:
    """As Go writes a time: RFC 3339, with as many digits as there are."""
    seconds, rest = divmod(nanoseconds, 10**9)
    text = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    return f"{text}{fraction}Z"


def _parsed(text: str, error: str) -> Name:
    try:
        return Name.parse(text)
    except Usage:
        raise Says(400, error) from None
