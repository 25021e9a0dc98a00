"""The two ends of a trip of the fidelity suites: what the models are, where they come from, where they go.

The servers of a World are depots (tests/test_fidelity.py) or real ones (tests/live/test_live_fidelity.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from conftest import FIXTURES, bits

from modelpack.depot.app import Depot
from modelpack.depot.serve import running
from modelpack.documents.gojson import parse_object
from modelpack.documents.model import Model
from modelpack.documents.receipt import Receipt
from modelpack.hands.callback import Callback
from modelpack.hands.hashing import read_small
from modelpack.hands.ollama import Ollama
from modelpack.stores import Source, Target
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.server import ServerSource
from modelpack.stores.server_create import ServerCreate
from modelpack.stores.server_exact import ServerExact
from modelpack.stores.wrappers import Joined
from modelpack.verbs.gather import gather
from modelpack.verbs.installed import Installed
from modelpack.verbs.registries import Access, registry_target
from modelpack.verbs.transfer import copy
from modelpack.words.name import Name

PLAIN = Access(plain_http=True)
TEXTS = '''\
TEMPLATE """{{ .System }}
{{ .Prompt }} <|é|>"""
SYSTEM "You say \\"small letters\\" & no <others>."
PARAMETER temperature 0.7
PARAMETER top_p 0.123456789
PARAMETER num_ctx 128
PARAMETER stop "<|a|>"
PARAMETER stop <|b|>
LICENSE """MIT
of the tests"""
LICENSE Apache-2.0
MESSAGE user hello
MESSAGE assistant """hi
there"""
RENDERER qwen3-coder
PARSER qwen3-coder
REQUIRES 0.12.0
'''
SHARDS = "FROM ./tiny-llama-00001-of-00003.gguf\n"
MODELFILES = {
    "whole": SHARDS + "FROM ./tiny-mmproj.gguf\nADAPTER ./tiny-lora.gguf\n" + TEXTS,
    "chat": SHARDS + TEXTS,
    "adapted": "FROM ./tiny-llama.gguf\nADAPTER ./tiny-lora.gguf\nSYSTEM short\n",
}
"""What the origin's server makes its models of. None runs `whole`: its projector is of no use."""
TAGS = {"whole:v1.5-F16": "whole", "team/Talk:2": "chat"}
"""More names at the origin, and which of the models they stand for."""


@dataclass
class World:
    """Two servers with their models directories, a registry's `host:port`, and a place for files.

    `making` are those of MODELFILES that the origin has. `say` gives what a model answers, None where it
    cannot; `remade` makes a model again until a server that is not always of one mind (0.24) does it right.
    """

    origin: Ollama
    origin_models: Path
    there: Ollama
    there_models: Path
    registry: str
    place: Path
    making: Sequence[str] = ("whole",)
    say: Callable[[Ollama, str], str | None] = lambda _client, _name: None
    remade: Callable[[Ollama, str, Callable[[], object]], None] = lambda _client, _name, make: _done(make)
    number: int = 0

    def fresh(self) -> Path:
        """A place that nothing was in."""
        self.number += 1
        return self.place / f"{self.number}"


def _done(make: Callable[[], object]) -> None:
    make()


# --- the models


def furnish(world: World) -> None:
    """Have the origin's server make the models, of files that it is given."""
    for name in world.making:
        folder = world.place / "files" / name
        folder.mkdir(parents=True)
        for one in FIXTURES.glob("tiny-*.gguf"):
            shutil.copy(one, folder)
        (folder / "Modelfile").write_text(MODELFILES[name], encoding="utf-8")

        def make(folder: Path = folder, name: str = name) -> None:
            found = gather([str(folder / "Modelfile")], look=Installed(()), name=Name.parse(name))
            copy(found.source, found.models, ServerCreate(world.origin, source=found.source))

        world.remade(world.origin, name, make)
    for tag, name in TAGS.items():
        if name in world.making:
            world.origin.copy(name, tag)
    _check_whole(world)


def _check_whole(world: World) -> None:
    """Nothing was lost on the way in: what is not there cannot get lost later."""
    found = ModelsDir(world.origin_models).read(Name.parse("whole"))
    assert found is not None
    assert sorted(layer.kind for layer in found[1].layers) == [
        "adapter", "license", "license", "messages", "model", "params", "projector", "system", "template",
    ]  # fmt: skip
    if world.origin.about().is_at_least(0, 24, 0):  # 0.12 does not know these
        with ModelsDir(world.origin_models).open(found[1].config) as reader:
            config = parse_object(read_small(reader, found[1].config), "whole")
        assert [config.get(key) for key in ("renderer", "parser")] == ["qwen3-coder"] * 2
        assert config.get("requires") == "0.12.0"


# --- origins


def in_registry(place: str, models: Sequence[Model]) -> Source:
    """*models* as they are in the registry at *place*: `oci://HOST`, or a namespace there."""
    parts = []
    for model in models:
        above = "" if place.count("/") > 2 else f"{model.name.namespace}/"
        text = f"{place}/{above}{model.name.model.lower()}:{model.name.tag}"
        found = gather([text], look=Installed(()), access=PLAIN)
        parts.append((found.source, found.models))
    return Joined(parts)


@contextmanager
def _directory(world: World) -> Iterator[Source]:
    yield ModelsDir(world.origin_models)


@contextmanager
def _read_back(world: World) -> Iterator[Source]:
    with ServerSource(world.origin) as source:
        yield source


@contextmanager
def _of_depot(world: World) -> Iterator[Source]:
    """A depot over the origin's models directory, read as the registry that it is."""
    models = ModelsDir(world.origin_models).models()
    with running(Depot(world.origin_models)) as url:
        place = url.replace("http:", "oci:")
        parts = []
        for model in models:
            text = f"{place}/{model.name.namespace}/{model.name.model}:{model.name.tag}"
            found = gather([text], look=Installed(()), access=PLAIN, name=model.name)
            parts.append((found.source, found.models))
        yield Joined(parts)


def _kept(keep: Keep) -> Origin:
    """An origin that the models of the origin's server were brought to before."""

    @contextmanager
    def origin(world: World) -> Iterator[Source]:
        models = ModelsDir(world.origin_models)
        target, back = keep(world)
        copy(models, models.models(), target)
        yield back()

    return origin


def _registry(world: World, *, artifact: bool = False) -> tuple[Target, Callable[[], Source]]:
    place = f"oci://{world.registry}/n{world.fresh().name}"
    access = replace(PLAIN, as_artifact=artifact)
    models = ModelsDir(world.origin_models).models()
    return registry_target(place, access), lambda: in_registry(place, models)


def _artifacts(world: World) -> tuple[Target, Callable[[], Source]]:
    return _registry(world, artifact=True)


def _folder(world: World) -> tuple[Target, Callable[[], Source]]:
    place = world.fresh()
    return FolderBundle(place), lambda: FolderBundle(place)


def _tar(world: World) -> tuple[Target, Callable[[], Source]]:
    place = world.fresh()
    return Archive(place), lambda: Archive(place)


Origin = Callable[[World], AbstractContextManager[Source]]
Keep = Callable[[World], tuple[Target, Callable[[], Source]]]
ORIGINS: dict[str, Origin] = {
    "models directory": _directory,
    "server, read back": _read_back,
    "depot": _of_depot,
    "registry, as image": _kept(_registry),
    "registry, as artifact": _kept(_artifacts),
    "bundle, folder": _kept(_folder),
    "bundle, tar": _kept(_tar),
}


def bundled(world: World, origin: str) -> Archive | FolderBundle:
    """Pack what *origin* has, and see that it is in the bundle to the bit: a file, of a file a folder."""
    bundle = FolderBundle(world.fresh()) if origin == "bundle, tar" else Archive(world.fresh())
    with ORIGINS[origin](world) as source:
        receipts = copy(source, source.models(), bundle)
    assert all(one.same_bytes for one in receipts)
    assert bits(bundle) == bits(ModelsDir(world.origin_models))
    return bundle


# --- hosts: from a bundle to where a server shows the models


def _to_directory(world: World, source: Source) -> Sequence[Receipt]:
    """The server sees what came into its directory at once."""
    return copy(source, source.models(), ModelsDir(world.there_models))


def _to_exact(world: World, bundle: Source) -> Sequence[Receipt]:
    return copy(bundle, bundle.models(), ServerExact(world.there, Callback(world.there.base)))


def _to_create(world: World, bundle: Source) -> Sequence[Receipt]:
    found: dict[str, Receipt] = {}
    for model in bundle.models():
        name = str(model.name)

        def make(model: Model = model, name: str = name) -> None:
            (found[name],) = copy(bundle, [model], ServerCreate(world.there, source=bundle))

        world.remade(world.there, name, make)
    return list(found.values())


def _to_depot(world: World, bundle: Source) -> Sequence[Receipt]:
    """Pushed to a depot, pulled from it by the server: nobody but that server wrote there."""
    place = world.fresh()
    with running(Depot(place, writable=True)) as url:
        receipts = copy(bundle, bundle.models(), registry_target(url.replace("http:", "oci:"), PLAIN))
        for model in bundle.models():
            held = ModelsDir(place).read(model.name)
            assert held is not None, f"{model.name} is in the depot by another name"
            name = model.name
            far = f"{url.removeprefix('http://')}/{name.namespace}/{name.model}:{name.tag}"
            world.there.pull(far, insecure=True).last()
            world.there.copy(far, str(name))
            world.there.delete(far)
    return receipts


def _over(keep: Keep) -> Host:
    """Brought to a place that runs nothing, and from there into the server's directory."""

    def host(world: World, bundle: Source) -> Sequence[Receipt]:
        target, back = keep(world)
        receipts = copy(bundle, bundle.models(), target)
        return [*receipts, *_to_directory(world, back())]

    return host


Host = Callable[[World, Source], Sequence[Receipt]]
HOSTS: dict[str, Host] = {
    "directory": _to_directory,
    "exact": _to_exact,
    "create": _to_create,
    "depot": _to_depot,
    "registry": _over(_registry),
    "artifact": _over(_artifacts),
    "folder": _over(_folder),
    "tar": _over(_tar),
}
