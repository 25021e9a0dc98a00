"""What does a host have? Asked of its models directory, or of its server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelpack.documents.image import Image
from modelpack.documents.inventory import LIMIT, Held, Inventory
from modelpack.documents.model import Model, blobs_of
from modelpack.errors import Corrupt, ModelpackError, NotFound, Unsupported, Usage
from modelpack.hands.temporary import is_temporary
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.models_dir_scan import Stray
from modelpack.verbs.installed import Installed
from modelpack.verbs.own_file import OwnFile
from modelpack.verbs.registries import is_registry
from modelpack.verbs.targets import is_server
from modelpack.words.name import Name

if TYPE_CHECKING:
    from modelpack.hands.ollama import Ollama


FILE = OwnFile("inventory", LIMIT, Inventory.parse)
"""The file that an inventory is written to."""


@dataclass(frozen=True)
class Took:
    """An inventory, of which place, and the models there that it leaves out, since they are not whole."""

    inventory: Inventory
    where: str
    left_out: tuple[ModelpackError, ...] = ()


def inventory(text: str | None = None) -> Took:
    """What the models directory or the server (`http://…`) *text* has; no blob is read.

    By default that of the first models directory of this machine that may be read, else of the server at
    `$OLLAMA_HOST`. Raises NotFound, Local, Unsupported for other places, and what a client raises.
    """
    if text is not None and is_registry(text):
        raise Unsupported(
            "a registry does not list what it has",
            where=text,
            advice="Name a models directory, or a server (http://HOST:11434).",
        )
    if text is not None and not is_server(text):
        return of_directory(ModelsDir(Installed.here(text).places[0]))
    if text is None:
        for place in Installed.here().places:
            if os.access(place / "manifests", os.R_OK | os.X_OK):
                return of_directory(ModelsDir(place))
    if text is not None and "#" in text:
        raise Usage("an inventory is of all that a server has", where=text, advice="Leave #NAME away.")
    from modelpack.hands.ollama import Ollama  # here: requests costs a third of a start

    with Ollama(text) as client:
        return Took(of_server(client), client.base)


def of_directory(store: ModelsDir) -> Took:
    """What *store* has, by names and sizes; models that miss a blob, or have one of another size, are not.

    Nor are names for a moment, here and of a server: they tell addresses of whoever loaded or read there.
    """
    left: list[ModelpackError] = []
    models: list[Model] = []
    for found in store.scan():
        if isinstance(found, Model):
            if not is_temporary(found.name):
                models.append(found)
        elif not isinstance(found, Stray):
            left.append(found)
    try:
        wrong = {blob.id: error for blob, error in store.look(models)[0]}
    except NotFound:  # no blobs/
        wrong = {blob.id: _gone(store) for model in models for blob in model.blobs}
    sizes = {blob.id: blob.size for blob in blobs_of(models)}
    whole: list[Held] = []
    for model in models:
        faults = [wrong[blob.id] for blob in model.blobs if blob.id in wrong]
        faults += [
            Corrupt(f"has {sizes[blob.id]} bytes, not {blob.size}", where=blob)
            for blob in model.blobs
            if blob.size != sizes[blob.id]
        ]
        if faults:
            left.append(type(faults[0])(f"{faults[0].where}: {faults[0].what}", where=model.name))
        else:
            whole.append(held(model))
    return Took(Inventory.of(whole), str(store.path), tuple(left))


def _gone(store: ModelsDir) -> ModelpackError:
    return NotFound("is missing", where=store.path / "blobs")


def of_server(client: Ollama) -> Inventory:
    """What the server of *client* lists; of blobs it tells nothing.

    Raises Unsupported where what it says is not what Ollama says.
    """
    version = client.version()
    models: dict[str, Held] = {}
    for one in client.list():
        try:
            name = Name.parse(one.name)
        except Usage as error:
            raise Unsupported(f"lists a model without a name: {error.what}", where=client.base) from None
        if is_temporary(name):
            continue
        if one.size is None or not 0 <= one.size <= 1 << 62:
            raise Unsupported(f"does not say how large {name} is", where=client.base)
        models[name.full] = Held(name, one.digest, one.size)
    return Inventory.of(models.values(), version)


def held(model: Model) -> Held:
    """*model* as an inventory has it; the files of a recipe are not kept by the server that makes it."""
    sizes = {blob.digest: blob.size for blob in model.blobs if blob.digest is not None}
    blobs = tuple(sorted(sizes.items())) if isinstance(model.document, Image) else ()
    return Held(model.name, model.document.id, sum(sizes.values()), blobs)


def write(path: Path, made: Inventory) -> None:
    """Write *made* to *path*, whole or not at all; only another inventory is replaced, else Refused."""
    FILE.write(path, made.to_bytes())
