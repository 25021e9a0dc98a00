"""What speaks against a plan: found before the first byte, and shown once."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, MemoryStore
from depots import FIXTURES, own_depot
from servers import FakeOllama, full, say
from terminals import on_terminal

from modelpack.cli import plan_shown
from modelpack.documents.image import Image
from modelpack.documents.inventory import Held, Inventory
from modelpack.documents.model import Model
from modelpack.errors import Corrupt, Unsupported
from modelpack.hands import room as room_module
from modelpack.hands import system
from modelpack.hands.ollama import Ollama
from modelpack.hands.room import Room, room_at
from modelpack.stores import Source, Target
from modelpack.stores.archive import Archive
from modelpack.stores.inventory import InventoryTarget
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.server_create import ServerCreate
from modelpack.verbs import preflight as preflight_module
from modelpack.verbs.plans import Plan, plan
from modelpack.verbs.preflight import Finding, preflight, stop
from modelpack.verbs.transfer import copy
from modelpack.verbs.ways import Wish, server_target
from modelpack.words.blob import MIB, MODEL, TEMPLATE, Blob
from modelpack.words.digest import ZERO
from modelpack.words.name import Name

GGUF = (FIXTURES / "tiny-llama.gguf").read_bytes()
CHAT = (FIXTURES / "tiny-chat.gguf").read_bytes()
NEW: dict[str, Any] = {
    "model_format": "gguf", "model_family": "qwen35", "renderer": "qwen3.5", "parser": "qwen3.5",
    "requires": "0.17.1",
}  # fmt: skip


class Server(ServerCreate):
    """A server that may tell its system."""

    system = ""

    def described(self) -> Mapping[str, str]:
        return {
            "kind": "server", "where": self.client.base, "version": self.about.text, "system": self.system,
        }  # fmt: skip


def bundle(place: Path, store: MemoryStore) -> Archive:
    """A real one, with what *store* has."""
    path = place / "b.tar"
    copy(store, store.models(), Archive(path, replace=True))
    return Archive(path)


def holding(name: str = "m", data: bytes = GGUF, config: Mapping[str, Any] | None = None) -> MemoryStore:
    store = MemoryStore()
    raw = json.dumps(config if config is not None else {"model_family": "llama"}).encode()
    store.image(name, (MODEL, data), (TEMPLATE, b"{{ .Prompt }}"), config=raw)
    return store


@contextlib.contextmanager
def server(version: str = "0.24.0", source: Source | None = None) -> Iterator[Server]:
    with FakeOllama(version).running() as base, Ollama(base) as client:
        yield Server(client, source=source, replace=True)


def look(source: Source, target: Target) -> tuple[Finding, ...]:
    models = source.models()
    return preflight(plan(source, models, target), source, target)


def words(found: Sequence[Finding], level: str = "warning") -> list[str]:
    return [one.what for one in found if one.level == level]


# --- versions


def test_an_old_server(tmp_path: Path) -> None:
    source = bundle(tmp_path, holding(config=NEW))
    with server("0.12.6", source) as target:
        found = look(source, target)
    assert words(found) == [
        "what its maker says (`requires`) needs Ollama 0.17.1 or later, and there is 0.12.6: it will not run "
        "there",
        "its renderer 'qwen3.5' needs Ollama 0.17.1 or later, and there is 0.12.6: it answers wrongly there, "
        "or not at all",
        "its parser 'qwen3.5' needs Ollama 0.17.1 or later, and there is 0.12.6: thinking and calls of tools "
        "come out as plain text there",
    ]
    assert {str(one.model) for one in found if one.level == "warning"} == {"m:latest"}


def test_an_architecture_that_the_config_tells(tmp_path: Path) -> None:
    """The GGUF itself is damaged: what is known without it is said, and that it could not be looked at."""
    source = bundle(tmp_path, holding(data=b"GGUF, or so", config=NEW))
    with server("0.12.6", source) as target:
        found = look(source, target)
    assert any(what.startswith("the architecture 'qwen35' needs Ollama 0.17.1") for what in words(found))
    assert any("could not be checked: the header of its GGUF" in what for what in words(found, "note"))


@pytest.mark.parametrize("version", ["0.17.1", "0.24.0", "0.33.0-rc2"])
def test_a_server_that_is_new_enough(tmp_path: Path, version: str) -> None:
    source = bundle(tmp_path, holding(config=NEW))
    with server(version, source) as target:
        assert words(look(source, target)) == []


def test_a_chat_template_is_a_note(tmp_path: Path) -> None:
    store = MemoryStore()
    store.image("m", (MODEL, CHAT), config=b'{"model_family":"llama"}')
    source = bundle(tmp_path, store)
    with server("0.24.0", source) as target:
        # By create the server looks for a template itself.
        assert not any("chat template" in one.what for one in look(source, target))
        exactly = server_target(target.client, source, wish=Wish(exact=True))
        found = look(source, exactly)
        assert words(found) == []
        assert any("chat template" in what for what in words(found, "note"))
    with server("0.30.0", source) as target:
        exactly = server_target(target.client, source, wish=Wish(exact=True))
        assert not any("chat template" in one.what for one in look(source, exactly))


def test_headers_are_left_alone_where_they_tell_nothing() -> None:
    """A plan to a new server opens the config alone."""
    source = holding()
    with server("0.33.0", source) as target:
        todo = plan(source, source.models(), target)
        source.opened.clear()
        preflight(todo, source, target)
    assert [blob.kind for blob in source.opened] == ["config"]


def test_a_version_that_says_nothing(tmp_path: Path) -> None:
    source = bundle(tmp_path, holding(config=NEW))
    with server("0.0.0", source) as target:
        found = look(source, target)
    assert words(found) == []
    what = "no version could be compared: what is there calls itself 0.0.0; m:latest needs 0.17.1 or later"
    assert what in words(found, "note")


def test_a_depot_runs_nothing(tmp_path: Path) -> None:
    source = bundle(tmp_path, holding(config={**NEW, "requires": "99.0.0"}))
    with own_depot(tmp_path / "d") as depot, Ollama(depot.url) as client:
        assert words(look(source, Server(client, source=source))) == []


def test_a_config_that_cannot_be_read(tmp_path: Path) -> None:
    store = holding(config={})
    (model,) = store.models()
    source = bundle(tmp_path, store)
    with server("0.24.0") as target:
        todo = plan(source, source.models(), target)
        path = tmp_path / "b.tar"
        raw = path.read_bytes()
        at = raw.rindex(b"{}", 0, len(raw))
        path.write_bytes(raw[:at] + b"[]" + raw[at + 2 :])
        found = preflight(todo, Archive(path), target)
    assert model.name in {one.model for one in found}
    assert any(what.startswith("could not be checked: its config") for what in words(found, "note"))
    assert not words(found, "error")


def test_a_net_is_not_read() -> None:
    class Far(MemoryStore):
        def afar(self) -> bool:
            return True

    source = Far()
    source.image("m", (MODEL, GGUF), config=b'{"model_family":"gemma4"}')
    with server("0.12.6") as target:
        todo = plan(source, source.models(), target)
        source.opened.clear()
        found = preflight(todo, source, target)
    assert [blob.kind for blob in source.opened] == ["config"]
    assert any("not read over a net" in what for what in words(found, "note"))
    assert any("'gemma4'" in what for what in words(found))


def test_a_pipe_is_not_read() -> None:
    class Pipe(MemoryStore):
        def passing(self, wanted: Sequence[Blob]) -> Iterator[Any]:
            raise AssertionError

    source = Pipe()
    source.image("m", (MODEL, GGUF))
    with server("0.12.6") as target:
        todo = plan(source, source.models(), target)
        source.opened.clear()
        found = preflight(todo, source, target)
    assert source.opened == []
    assert any("a pipe gives each byte once" in what for what in words(found, "note"))


def test_a_server_that_goes_away(tmp_path: Path) -> None:
    source = bundle(tmp_path, holding())
    fake = FakeOllama("0.24.0")
    with fake.running() as base, Ollama(base) as client:
        target = Server(client, source=source)
        todo = plan(source, source.models(), target)
        fake.faults["GET /api/"] = lambda at: say(at, 403, {"error": "no more"})
        found = preflight(todo, source, target)
    assert found
    assert {one.level for one in found} == {"note"}
    assert any("could not be checked: what stands under the names there" in one.what for one in found)


# --- room


def test_a_disk_that_is_too_small(tmp_path: Path, small_disk: Path) -> None:
    source = bundle(tmp_path, holding(data=bytes(3 * MIB)))
    (what,) = words(look(source, ModelsDir(small_disk / "models")), "error")
    assert "4.21 MB are needed" in what
    assert "2.1 MB are free" in what


def test_the_reserve_counts(tmp_path: Path, small_disk: Path) -> None:
    """Bytes that would just fit leave nothing for manifests."""
    source = bundle(tmp_path, holding(data=bytes(3 * MIB // 2)))
    assert words(look(source, ModelsDir(small_disk)), "error")
    source = bundle(tmp_path, holding(data=bytes(MIB // 2)))
    assert not words(look(source, ModelsDir(small_disk)), "error")


def test_what_is_there_already_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = bundle(tmp_path, holding(data=bytes(3 * MIB)))
    copy(source, source.models(), ModelsDir(tmp_path / "m"))
    monkeypatch.setattr(system, "free_space", lambda *_: 0)
    assert look(source, ModelsDir(tmp_path / "m")) == ()


def test_the_largest_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = bundle(tmp_path, holding(data=bytes(MIB)))
    monkeypatch.setattr(system, "largest_file", lambda: MIB - 1)
    (what,) = words(look(source, ModelsDir(tmp_path / "m")), "error")
    assert "takes no file of more than 1.05 MB" in what


def test_a_server_does_not_tell_its_room(tmp_path: Path) -> None:
    source = bundle(tmp_path, holding())
    with server("0.24.0", source) as target:
        assert look(source, target) == ()  # so little goes anywhere
        todo = plan(source, source.models(), target)
        much = dataclasses.replace(todo, missing=(Blob(1024 * MIB + 1, MODEL, ZERO),))
        notes = words(preflight(much, source, target), "note")
        assert any("its free space cannot be known from here" in what for what in notes)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells it")
def test_file_systems_by_their_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path.stat().st_dev
    table = tmp_path / "mountinfo"
    monkeypatch.setattr(room_module, "_MOUNTS", table)
    monkeypatch.setattr(system, "largest_file", lambda: None)
    for kind, largest, narrow in (
        ("vfat", (4 << 30) - 1, True),
        ("exfat", None, True),
        ("ext4", None, False),
    ):
        lines = [
            "22 1 0:9999 / /a rw shared:1 - btrfs none rw",
            f"23 1 {os.major(device)}:{os.minor(device)} / /b rw,x shared:2 master:1 - {kind} /dev/b rw",
        ]
        table.write_text("\n".join(lines) + "\n")
        room = room_at(tmp_path / "not" / "there", {})
        assert (room.largest, room.narrow) == (largest, narrow)
    table.unlink()
    assert not room_at(tmp_path, {}).narrow


def test_what_an_earlier_run_left_counts(tmp_path: Path) -> None:
    scratch = tmp_path / ".modelpack"
    scratch.mkdir()
    (scratch / f"modelpack-kept-{'a' * 64}").write_bytes(os.urandom(MIB))
    assert room_at(tmp_path, {"a" * 64: 2 * MIB}).kept >= MIB
    assert room_at(tmp_path, {"b" * 64: 2 * MIB}).kept == 0


# --- names


def room_of(monkeypatch: pytest.MonkeyPatch, narrow: bool) -> None:
    monkeypatch.setattr(preflight_module, "room_at", lambda *_: Room(None, None, 0, narrow))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("example.com:5000/ns/m:x", "'example.com:5000' in its name holds a colon"),
        ("CON", "'CON' in its name is a device of Windows"),
        ("nul.x:1", "'nul.x' in its name is a device of Windows"),
        ("m:v1.", "'v1.' in its name ends in a dot"),
    ],
)
def test_names_that_some_disks_refuse(
    tmp_path: Path, name: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bundle(tmp_path, holding(name))
    room_of(monkeypatch, narrow=True)
    (what,) = words(look(source, ModelsDir(tmp_path / "m")), "error")
    assert what.startswith(why)
    room_of(monkeypatch, narrow=False)
    found = look(source, ModelsDir(tmp_path / "m"))
    assert words(found, "error") == []
    assert any(one.startswith(why) for one in words(found, "note"))
    with server("0.24.0", source) as target:
        assert not any(why in one.what for one in look(source, target))
        target.system = "windows"
        assert any(one.startswith(why) for one in words(look(source, target), "error"))


def test_a_name_longer_than_any_disk_takes(tmp_path: Path) -> None:
    source = bundle(tmp_path, holding(f"{'h' * 300}/ns/m"))
    (what,) = words(look(source, ModelsDir(tmp_path / "m")), "error")
    assert "300 characters" in what


def test_names_that_differ_in_case_only() -> None:
    store = holding("ns/model")
    (one,) = store.models()
    other = dataclasses.replace(one, name=Name.parse("NS/Model"))
    todo = Plan((one, other), (None, None), (), ())
    found = preflight(todo, store, MemoryStore())
    assert [(str(each.model), each.level) for each in found] == [("NS/Model:latest", "error")]
    assert preflight(Plan((one, one), (None, None), (), ()), store, MemoryStore()) == ()


# --- what stands there


def test_what_is_replaced_in_a_directory(tmp_path: Path) -> None:
    old = holding("M", config={"old": 1})
    copy(old, old.models(), ModelsDir(tmp_path / "m"))
    source = bundle(tmp_path, holding("m"))
    (model,) = source.models()
    found = look(source, ModelsDir(tmp_path / "m", replace=True))
    before, after = old.models()[0].document.id.short, model.document.id.short
    (what,) = (what for what in words(found, "note") if "stands for" in what)
    assert what.startswith(
        f"M:latest stands for another model there: {before} would become {after} (80.3 kB to"
    )


def test_what_is_replaced_on_a_server(tmp_path: Path) -> None:
    source = bundle(tmp_path, holding("m"))
    fake = FakeOllama("0.24.0")
    fake.models[full("M")] = {"files": {"a.gguf": "sha256:" + "0" * 64}}
    with fake.running() as base, Ollama(base) as client:
        found = look(source, Server(client, source=source, replace=True))
    (what,) = (what for what in words(found, "note") if "stands for" in what)
    assert what.startswith("M:latest stands for another model there: ")
    assert "would become an ID of the server's own (5 B to 80.3 kB)" in what


# --- what stops a load


def test_what_stops(tmp_path: Path) -> None:
    note, warning = Finding("note", None, "a"), Finding("warning", Name.parse("m"), "b", "c.")
    error = Finding("error", None, "d")
    stop([note])
    stop([note, warning], force=True)
    with pytest.raises(Unsupported, match="b") as caught:
        stop([warning, warning])
    assert caught.value.advice == "c. --force loads all the same."
    assert caught.value.what == "b (and 1 more: see above)"
    with pytest.raises(Unsupported, match=r"^d$"):
        stop([warning, error], force=True)


# --- inventories


def inventory_of(store: MemoryStore, *, blobs: bool = True, version: str | None = "0.12.6") -> Inventory:
    held = [
        Held(
            model.name,
            model.document.id,
            model.size,
            tuple(sorted((one.digest, one.size) for one in model.blobs if one.digest)) if blobs else None,
        )
        for model in store.models()
    ]
    return Inventory.of(held, version)


def test_an_inventory_tells_what_would_travel(tmp_path: Path) -> None:
    have = MemoryStore()
    have.image("tiny", *TINY)
    want = MemoryStore()
    want.image("tiny", *TINY)
    new = want.image("twin", *TINY, (TEMPLATE, b"another"), config=json.dumps(NEW).encode())
    source = bundle(tmp_path, want)
    target = InventoryTarget(inventory_of(have), "host.json")
    todo = plan(source, source.models(), target)
    assert [placed is not None for placed in todo.placed] == [True, False]
    assert {blob.kind for blob in todo.missing} == {"template", "config"}
    found = preflight(todo, source, target)
    assert any("qwen3.5" in what for what in words(found))
    assert {one.model for one in found if one.level == "warning"} == {new.name}
    with pytest.raises(Unsupported, match="no host"):
        target.session(source.models())


def test_an_inventory_without_blobs_knows_whole_models(tmp_path: Path) -> None:
    have = MemoryStore()
    have.image("tiny", *TINY)
    source = bundle(tmp_path, have)
    (model,) = source.models()
    target = InventoryTarget(inventory_of(have, blobs=False, version=None))
    assert target.missing([model]) == []
    assert target.placed([model])[0] is not None
    called = dataclasses.replace(model, name=Name.parse("other"))
    assert target.missing([called]) == []
    assert target.placed([called])[0] is None
    (said,) = target.foretell([model])
    assert "does not tell its blobs" in said
    changed = Model(model.name, dataclasses.replace(model.document, raw=model.document.raw + b" "))
    assert target.placed([changed])[0] is None
    assert len(target.missing([changed])) == len(model.blobs)
    found = preflight(plan(source, [changed], target), source, target)
    (one,) = (one for one in found if "stands for another model there" in one.what)
    assert one.level == "warning"
    assert "would refuse that without --replace" in one.advice
    target.replace = True
    found = preflight(plan(source, [changed], target), source, target)
    assert any("stands for another model there" in what for what in words(found, "note"))


def test_an_inventory_of_an_old_ollama(tmp_path: Path) -> None:
    """Before 0.19 a model that was loaded exactly has another ID."""
    have = MemoryStore()
    have.image("tiny", *TINY)
    (model,) = have.models()
    assert isinstance(model.document, Image)
    made = Model(model.name, Image.parse(model.document.raw + b"\n", ""))
    for version, there in (("0.12.6", True), ("0.19.0", False)):
        target = InventoryTarget(inventory_of(have, blobs=False, version=version))
        assert (target.missing([made]) == []) is there
        placed = target.placed([made])[0]
        assert (placed is not None) is there
        assert placed is None or (placed.id, placed.same_bytes) == (model.document.id, False)


# --- how it is shown


SCRIPT = """
from modelpack.cli.plan_shown import show_plan, tell
from modelpack.errors import Unsupported
from modelpack.verbs.plans import Plan
from modelpack.verbs.preflight import Finding
from modelpack.words.digest import ZERO
from modelpack.words.name import Name
long = "words of \\x1b[31m and that go on and on " * 6
found = [Finding(level, Name.parse("m"), f"{level}-one {long}", f"do-{level} {long}")
         for level in ("error", "warning", "note")]
show_plan(Plan((), (), (), ("foretold " + long,)), found, [], False)
tell(found)
tell(found, quiet=True)
"""


def test_it_is_shown_once_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown, told = on_terminal([sys.executable, "-c", SCRIPT])
    text = shown.decode()
    assert "\x1b" not in text
    assert max(map(len, text.split("\r\n"))) <= 80
    for level in ("error", "warning", "note"):
        assert text.count(f"{level}: m:latest: {level}-one") == 1
        assert text.count(f"do-{level}") == 1
    assert text.count("note: foretold") == 1
    order = [text.index(f"{level}: m:latest") for level in ("error", "warning", "note")]
    assert order == sorted(order)
    assert told.count(b"warning: m:latest: warning-one") == 2
    assert told.count(b"note: m:latest: note-one") == 1, "quiet"
    assert b"\x1b" not in told


def test_the_same_for_scripts(tmp_path: Path) -> None:
    source = bundle(tmp_path, holding(config=NEW))
    with server("0.12.6", source) as target:
        todo = dataclasses.replace(
            plan(source, source.models(), target), ways=(("create", "it cannot call back"),)
        )
        found = preflight(todo, source, target)
    value = json.loads(json.dumps(plan_shown.plan_json(todo, found, [])))
    assert set(value) == {
        "models", "missing", "present", "bytes", "notes", "failed", "findings", "create_requests",
    }  # fmt: skip
    assert value["models"][0]["way"] == "create"
    first = value["findings"][0]
    assert set(first) == {"level", "model", "what", "advice"}
    assert first["level"] == "warning"
    assert first["model"] == "registry.ollama.ai/library/m:latest"


def test_a_plan_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = bundle(tmp_path, holding())
    target = ModelsDir(tmp_path / "m")
    todo = plan(source, source.models(), target)
    todo = dataclasses.replace(
        todo, failed=((source.models()[0], Corrupt("is damaged")),), ways=(("exact", "it can call back"),)
    )
    plan_shown.show_plan(todo, preflight(todo, source, target), [{"model": "m"}], False)
    out = capsys.readouterr().out
    assert "would be loaded (exact)" in out
    assert "exact: m:latest: it can call back" in out
    assert "cannot: is damaged" in out
    assert "80.3 kB" in out
    assert "POST /api/create" in out
