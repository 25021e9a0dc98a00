"""docs/fidelity.md: what arrives, of each kind of source at each target, and on every trip between two ends.

It is found by doing it. `MODELPACK_WRITE_DOCS=1 pytest tests/test_fidelity.py` writes the tables anew.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from conftest import FIXTURES, ROOT, MemoryStore
from fidelity_ends import PLAIN, World, furnish
from fidelity_table import Notes, aligned, write_or_compare
from fidelity_trips import table
from registries import FakeRegistry, docker_registry

from modelpack.depot.app import Depot
from modelpack.depot.serve import running
from modelpack.documents.model import Model
from modelpack.errors import ModelpackError, Refused
from modelpack.hands.callback import Callback
from modelpack.hands.ollama import Ollama
from modelpack.stores import Source, Target
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.plain import PlainFolder
from modelpack.stores.server_create import ServerCreate
from modelpack.stores.server_exact import ServerExact
from modelpack.verbs.gather import gather
from modelpack.verbs.installed import Installed
from modelpack.verbs.plans import settle
from modelpack.verbs.registries import HTTPS, registry_target
from modelpack.verbs.transfer import copy
from modelpack.words.blob import LICENSE, MODEL, PARAMS, SYSTEM, TEMPLATE, TENSOR
from modelpack.words.name import Name

PAGE = ROOT / "docs" / "fidelity.md"
WEIGHTS = (FIXTURES / "tiny-llama.gguf").read_bytes()


def installed(place: Path) -> Installed:
    """A models directory with one model, as pulled, and one of safetensors in Ollama's own form."""
    store = MemoryStore()
    store.image(
        "base", (MODEL, WEIGHTS), (TEMPLATE, b"{{ .Prompt }}"), (LICENSE, b"MIT"), (PARAMS, b'{"top_k":1}\n')
    )
    store.image("mlx", (TENSOR, b"weights"), config=b'{"model_format":"safetensors"}')
    copy(store, store.models(), ModelsDir(place))
    return Installed((place,))


def gguf(place: Path) -> list[str]:
    shutil.copy(FIXTURES / "tiny-llama.gguf", place / "one.gguf")
    return [str(place / "one.gguf")]


def shards(place: Path) -> list[str]:
    for one in FIXTURES.glob("tiny-llama-0*.gguf"):
        shutil.copy(one, place)
    return [str(place / "tiny-llama-00001-of-00003.gguf")]


def modelfile(place: Path, *lines: str) -> list[str]:
    for one in FIXTURES.glob("tiny-l*a.gguf"):
        shutil.copy(one, place)
    (place / "Modelfile").write_text(
        "\n".join(lines or ("FROM tiny-llama.gguf", "SYSTEM hello", "LICENSE MIT"))
    )
    return [str(place)]


def snapshot(place: Path) -> list[str]:
    header = json.dumps({"w": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    (place / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"1234")
    (place / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    return [str(place)]


def unpacked(place: Path) -> list[str]:
    store = MemoryStore()
    store.image("u", (MODEL, WEIGHTS), (SYSTEM, b"hello"))
    copy(store, store.models(), PlainFolder(place / "u", source=store))
    return [str(place / "u")]


def edited(place: Path) -> list[str]:
    (folder,) = unpacked(place)
    with (Path(folder) / "Modelfile").open("a") as file:
        file.write("PARAMETER temperature 0\n")
    return [folder]


REGISTRY = FakeRegistry()
"""A registry that keeps what it is given; tests/test_registry.py does the same with docker-registry."""


def in_registry(place: Path) -> list[str]:
    """A model that was pushed, by its locator."""
    look = Installed((place.parent / "models",))
    found = gather(["base"], look=look)
    copy(found.source, found.models, registry_target(f"oci://{REGISTRY.server}/pushed", PLAIN))
    return [f"oci://{REGISTRY.server}/pushed/base"]


def recipe_in_registry(place: Path) -> list[str]:
    found = gather(modelfile(place, "FROM base:elsewhere", "SYSTEM x"), look=Installed(()))
    (model,) = settle(found.source, found.models)
    place_there = f"oci://{REGISTRY.server}/artifacts/recipe:latest"
    copy(found.source, [model], registry_target(place_there, replace(PLAIN, as_artifact=True)))
    return [place_there]


SOURCES: dict[str, Callable[[Path], list[str]]] = {
    "a GGUF": gguf,
    "a GGUF in shards (merged)": shards,
    "a Modelfile and its files": modelfile,
    "a Modelfile, `FROM` one installed": lambda place: modelfile(place, "FROM base", "SYSTEM x"),
    "an installed model": lambda _: ["base"],
    "an installed one of safetensors": lambda _: ["mlx"],
    "an unpacked folder as it was": unpacked,
    "an unpacked folder, edited": edited,
    "a Modelfile, `FROM` elsewhere": lambda place: modelfile(place, "FROM base:elsewhere", "SYSTEM x"),
    "a Hugging Face snapshot": snapshot,
    "a GGUF with `--quantize`": gguf,
    "a model in a registry": in_registry,
    "a recipe in a registry, as that": recipe_in_registry,
}
RECIPES_OF_ONE_ELSEWHERE = ("a Modelfile, `FROM` elsewhere", "a recipe in a registry, as that")


def to_archive(place: Path, _: Source) -> Target:
    return Archive(place / "b.tar")


def to_folder(place: Path, _: Source) -> Target:
    return FolderBundle(place / "bundle")


def to_directory(place: Path, _: Source) -> Target:
    return ModelsDir(place / "arrived")


def to_plain(place: Path, source: Source) -> Target:
    return PlainFolder(place / "plain", source=source)


def to_registry(place: Path, _: Source) -> Target:
    return registry_target(f"oci://{REGISTRY.server}/{place.parent.name}/images", PLAIN)


def to_artifacts(place: Path, _: Source) -> Target:
    where = f"oci://{REGISTRY.server}/{place.parent.name}/artifacts"
    return registry_target(where, replace(PLAIN, as_artifact=True))


TARGETS: dict[str, Callable[[Path, Source], Target]] = {
    "tar": to_archive,
    "folder": to_folder,
    "directory": to_directory,
    "unpack": to_plain,
    "registry": to_registry,
    "artifact": to_artifacts,
}


def outcome(source: Source, model: Model, target: Target, notes: Notes) -> str:
    """What arrived, in the three words of the design; or that nothing did, and the number of the reason."""
    try:
        (receipt,) = copy(source, [model], target)
    except ModelpackError as error:
        if isinstance(error, Refused) and error.status == 501:
            why = "A depot makes no such thing; `tests/live/` has a real server do it: meaning."
        else:
            why = f"{type(error).__name__}: {error.what.partition(';')[0].partition(':')[0]}."
        return f"no ({notes.number(why)})"
    same = receipt.same_bytes and receipt.id == receipt.model.document.id
    return "same" if same else "meaning" if receipt.same_bytes is False else "?"


def row(kind: str, place: Path, notes: Notes) -> list[str]:
    for part in ("files", "out", "depot"):
        (place / part).mkdir()
    look = installed(place / "models")
    texts = SOURCES[kind](place / "files")
    found = gather(
        texts,
        look=look,
        quantize="Q8_0" if "--quantize" in kind else None,
        access=PLAIN if texts[0].startswith("oci:") else HTTPS,
    )
    if "registry" in kind:  # read twice for one target, so through a folder
        there = FolderBundle(place / "from-registry")
        copy(found.source, found.models, there)
        found.source, found.models = there, list(there.models())
    (model,) = settle(found.source, found.models)
    cells = [kind]
    for make in TARGETS.values():
        cells.append(outcome(found.source, model, make(place / "out", found.source), notes))
    for way in ("exact", "create"):
        with running(Depot(place / way, writable=True)) as url:
            client = Ollama(url)
            if kind in RECIPES_OF_ONE_ELSEWHERE:  # what it is made from must be there
                base = replace(ModelsDir(place / "models").models()[0], name=Name.parse("base:elsewhere"))
                copy(ModelsDir(place / "models"), [base], ServerCreate(client))
            exact, create = (
                ServerExact(client, Callback(url)),
                ServerCreate(client, source=found.source),
            )
            cells.append(outcome(found.source, model, exact if way == "exact" else create, notes))
    return cells


def test_the_table_is_what_happens(quick: Path) -> None:
    """Every kind of source into every kind of target."""
    notes = Notes()
    rows = [["source", *TARGETS, "exact", "create"]]
    with REGISTRY.running():
        for number, kind in enumerate(SOURCES):
            place = quick / str(number)
            place.mkdir()
            rows.append(row(kind, place, notes))
    write_or_compare(PAGE, "sources", f"{aligned(rows)}\n{notes.lines()}")


def test_every_trip_is_what_happens(quick: Path) -> None:
    """From every origin by a bundle to every host; depots stand in for both servers."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(running(Depot(quick / name, writable=True))) for name in "ab"]
        registry = stack.enter_context(docker_registry())
        origin, there = (stack.enter_context(Ollama(url)) for url in servers)
        world = World(origin, quick / "a", there, quick / "b", registry.server, quick)
        furnish(world)
        trips, outcomes = table(world)
    assert {host for (_, host), outcome in outcomes.items() if outcome.word != "same"} == {"create"}
    assert not any(outcome.differs for outcome in outcomes.values())
    write_or_compare(PAGE, "trips", trips)
