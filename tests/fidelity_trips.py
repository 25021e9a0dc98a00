"""Trips for the fidelity suites: origin → bundle → host, for every pair of ends, and what is compared."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import Bits, bits
from fidelity_ends import HOSTS, ORIGINS, World, bundled
from fidelity_table import aligned

from modelpack.hands.ollama import Ollama
from modelpack.stores import Source
from modelpack.stores.models_dir import ModelsDir


@dataclass(frozen=True)
class Seen:
    """What a server tells of its models, and what is on its disk: all by name."""

    ids: Mapping[str, str]
    bits: Bits
    shown: Mapping[str, Mapping[str, Any]]
    said: Mapping[str, str | None]

    @classmethod
    def at(cls, world: World, client: Ollama, models: Path) -> Seen:
        ids = {one.name: one.digest.hex for one in client.list()}
        return cls(
            ids,
            bits(ModelsDir(models)),
            {name: shown(client, name) for name in ids},
            {name: world.say(client, name) for name in ids},
        )


@dataclass(frozen=True)
class Outcome:
    """`word`: *same*, *same blobs* (another ID) or *meaning*; fields of `show` that are not as they were."""

    word: str
    differs: set[str]


def shown(client: Ollama, name: str) -> dict[str, Any]:
    """All that `show` tells, but for when; a Go map has no order, and directories have other names."""
    value = dict(client.show(name, verbose=True).raw)
    value.pop("modified_at", None)
    value["parameters"] = sorted(value.get("parameters", "").splitlines())
    value["modelfile"] = sorted(re.sub(r"/\S*/blobs/", "blobs/", value["modelfile"]).splitlines())
    return value


def emptied(world: World) -> None:
    """Have the host's server forget everything; what its create leaves behind goes, too."""
    for one in world.there.list():
        world.there.delete(one.name)
    for left in (world.there_models / "blobs").glob("*"):
        left.unlink()
    assert not world.there.list()


def trip(world: World, before: Seen, bundle: Source, host: str) -> Outcome:
    """Bring *bundle* to *host*, and compare what the server there tells with *before*."""
    emptied(world)
    receipts = HOSTS[host](world, bundle)
    after = Seen.at(world, world.there, world.there_models)
    assert set(after.ids) == set(before.ids)
    assert after.said == before.said
    for one in receipts:  # a receipt claims nothing that is not so
        if one.way in ("exact", "create", "directory"):
            assert one.id is not None
            assert after.ids[str(one.name)] == one.id.hex
            same = one.id.hex == before.ids[str(one.name)]
            assert one.same_bytes is (same and one.way != "create")
    same_blobs = blobs_in(after.bits) == blobs_in(before.bits)
    differs = {
        field
        for name, value in before.shown.items()
        for field in differing(masked(value, same_blobs), masked(after.shown[name], same_blobs))
    }
    if any(one.way == "create" for one in receipts):
        return Outcome("meaning", differs)
    if after.ids == before.ids and after.bits == before.bits:
        assert not differs, differs
        return Outcome("same", differs)
    assert same_blobs
    return Outcome("same blobs", differs)


def blobs_in(found: Bits) -> dict[str, dict[str, bytes]]:
    """By name, without the manifests."""
    return {name: blobs for name, (_, blobs) in found.items()}


def masked(value: Mapping[str, Any], same_blobs: bool) -> dict[str, Any]:
    """*value*; where blobs are others by design, without their digests."""
    lines = [one if same_blobs else re.sub(r"sha256-\w+", "BLOB", one) for one in value["modelfile"]]
    return {**value, "modelfile": lines}


def differing(one: Any, other: Any, above: str = "") -> Iterator[str]:
    """The fields in which two answers of `show` differ, `details.family` among others."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in {*one, *other}:
            yield from differing(one.get(key), other.get(key), f"{above}.{key}".strip("."))
    elif one != other:
        yield above


def table(world: World) -> tuple[str, dict[tuple[str, str], Outcome]]:
    """Every trip: the table, and the outcomes by origin and host."""
    before = Seen.at(world, world.origin, world.origin_models)
    assert len(before.ids) > len(set(before.ids.values())) >= len(world.making)  # several tags
    outcomes = {}
    for origin in ORIGINS:
        bundle = bundled(world, origin)
        for host in HOSTS:
            outcomes[origin, host] = trip(world, before, bundle, host)
    rows = [[origin, *(outcomes[origin, host].word for host in HOSTS)] for origin in ORIGINS]
    return aligned([["from \\ to", *HOSTS], *rows]), outcomes
