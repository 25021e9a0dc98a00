"""Every trip of the fidelity suite with a real Ollama at both ends, and the tokens compared.

`MODELPACK_WRITE_DOCS=1` writes what this version did into docs/fidelity-live.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import FIXTURES, ROOT
from fidelity_ends import World, bundled, furnish
from fidelity_table import write_or_compare
from fidelity_trips import Seen, table, trip
from registries import docker_registry

from modelpack.hands.ollama import Ollama
from modelpack.stores.archive import Archive
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.server_create import REWRITES_SINCE, ServerCreate
from modelpack.stores.server_exact import KEEPS_SINCE
from modelpack.verbs.gather import gather
from modelpack.verbs.installed import Installed
from modelpack.verbs.transfer import copy, plan
from modelpack.words.blob import MODEL

from .conftest import PROGRAM, _running

pytestmark = pytest.mark.live
PAGE = ROOT / "docs" / "fidelity-live.md"
PULLED = ("exact", "depot")
"""Hosts whose server pulls the manifest, which older ones write anew."""


def say(client: Ollama, name: str) -> str | None:
    """Sixteen tokens at temperature 0; the server forgets the model at once, so that it reads it again."""
    if name.startswith("whole"):
        return None
    options = {"temperature": 0, "seed": 1, "num_predict": 16}
    asked = {"model": name, "prompt": "hello", "raw": True, "keep_alive": 0, "options": options}
    lines = list(client._http.ask("POST", "/api/generate", data=asked).lines())
    assert lines[-1]["eval_count"] == 16, lines[-1]
    return "".join(str(line.get("response", "")) for line in lines)


def remade(client: Ollama, name: str, make: Callable[[], object]) -> None:
    """0.24 takes the family of whichever file it comes to first, the weights or the projector."""
    for _ in range(50):
        make()
        if client.show(name).details.family == "llama":
            return
        client.delete(name)
    pytest.fail(f"{name} was never made of its weights first")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def world(stack: ExitStack, tmp_path: Path) -> World:
    """Two servers of one program, the origin's with its models."""
    program = os.environ.get(PROGRAM)
    if not program:
        pytest.skip(f"{PROGRAM} names no Ollama")
    registry = stack.enter_context(docker_registry())
    origin, there = (stack.enter_context(_running(program, tmp_path / name)) for name in ("origin", "there"))
    made = World(
        origin,
        tmp_path / "origin" / "models",
        there,
        tmp_path / "there" / "models",
        registry.server,
        tmp_path,
        ("whole", "chat", "adapted"),
        say,
        remade,
    )
    furnish(made)
    return made


def test_every_trip(world: World) -> None:
    version = world.there.version()
    before = Seen.at(world, world.origin, world.origin_models)
    assert before.said["chat:latest"] != before.said["adapted:latest"]
    trips, outcomes = table(world)
    keeps = world.there.about().is_at_least(*KEEPS_SINCE)
    for (origin, host), outcome in outcomes.items():
        word = "meaning" if host == "create" else "same" if keeps or host not in PULLED else "same blobs"
        assert outcome.word == word, (origin, host)
        assert outcome.word == "meaning" or not outcome.differs
    changed = {field for outcome in outcomes.values() for field in outcome.differs}
    differs = ", ".join(f"`{one}`" for one in sorted(changed)) or "nothing"
    said = ", ".join(f"`{name}` `{before.said[f'{name}:latest']}`" for name in ("chat", "adapted"))
    text = f"""{trips}
- Said at both ends of every trip: {said}.
- By create, `show` differs in: {differs}.
- {rewriting(world)}
"""
    record(version, text)


def rewriting(world: World) -> str:
    """A loose GGUF by create: what the plan foretells, what the receipt says, what the disk holds."""
    found = gather([str(FIXTURES / "tiny-chat.gguf")], look=Installed(()))
    target = ServerCreate(world.there, source=found.source)
    notes = plan(found.source, found.models, target).notes
    (receipt,) = copy(found.source, found.models, target)
    (sent,) = receipt.model.document.of_kind(MODEL)  # type: ignore[union-attr]
    held = ModelsDir(world.there_models).read(receipt.name)
    assert held is not None
    (kept,) = held[1].of_kind(MODEL)
    assert receipt.same_bytes is False
    assert receipt.id == held[1].id != receipt.model.document.id
    assert sent.digest is not None
    assert kept.digest is not None
    rewrites = world.there.about().is_at_least(*REWRITES_SINCE)
    assert rewrites is (sent.digest != kept.digest)
    assert rewrites is any("rewritten" in one for one in notes)
    what = f"written anew: {sent.digest.short} → {kept.digest.short}" if rewrites else "kept as it was sent"
    return f"A loose GGUF (`tiny-chat.gguf`) by create: {what}."


def record(version: str, text: str) -> None:
    """The section of *version* in the page, made or compared."""
    page = PAGE.read_text(encoding="utf-8")
    if f"<!-- {version} -->" not in page:
        if not os.environ.get("MODELPACK_WRITE_DOCS"):
            return
        page += f"\n## Ollama {version}\n\n<!-- {version} -->\n<!-- end -->\n"
        PAGE.write_text(page, encoding="utf-8")
    write_or_compare(PAGE, version, text)


@pytest.mark.parametrize("host", ["directory", "exact", "create", "depot"])
def test_it_survives_pruning(world: World, stack: ExitStack, tmp_path: Path, host: str) -> None:
    """A restart, hours later: what no model names is gone, and every model is as it was."""
    before = Seen.at(world, world.origin, world.origin_models)
    trip(world, before, bundled(world, "models directory"), host)
    arrived = Seen.at(world, world.there, world.there_models)
    stray = world.there_models / "blobs" / f"sha256-{'0' * 64}"
    stray.write_bytes(b"nobody's")
    long_ago = time.time() - 7200
    for one in stray.parent.iterdir():
        os.utime(one, (long_ago, long_ago))
    stack.close()
    with _running(os.environ[PROGRAM], tmp_path / "there") as again:
        assert not stray.exists()
        assert Seen.at(world, again, world.there_models) == arrived


def test_the_bundle_is_the_same_each_time(world: World) -> None:
    """Read from the disk and read back from the server: one fingerprint, so one bundle."""
    one, other = (bundled(world, origin) for origin in ("models directory", "server, read back"))
    assert isinstance(one, Archive)
    assert one.fingerprint == other.fingerprint
