"""Reading back what was there before, trying a model, and the receipt that tells of both."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import FULL, TINY, MemoryStore
from depots import make, own_depot
from registries import docker_registry
from servers import FakeOllama, say

from modelpack.documents.receipt import Receipt
from modelpack.documents.record import Host
from modelpack.errors import Corrupt, Different, NotFound, Refused, Unreachable, Unsupported, Usage
from modelpack.hands.callback import Calling
from modelpack.hands.ollama import Ollama
from modelpack.stores import Target
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.registry import RegistryTarget
from modelpack.stores.server_create import ServerCreate
from modelpack.verbs.afterwards import Afterwards
from modelpack.verbs.attempt import attempt, attempts
from modelpack.verbs.hosts import opened
from modelpack.verbs.prove import prove
from modelpack.verbs.record import host_of, read
from modelpack.verbs.registries import Access
from modelpack.verbs.targets import server
from modelpack.verbs.transfer import copy
from modelpack.words.blob import MODEL
from modelpack.words.digest import Digest
from modelpack.words.reference import Reference

LOOPBACK = Calling(callback="127.0.0.1")


def there(path: Path) -> MemoryStore:
    """Two models that share their weights, loaded into the directory *path* already."""
    store = MemoryStore()
    store.image("full", *FULL)
    store.image("twin", FULL[0], TINY[1])
    copy(store, store.models(), ModelsDir(path))
    return store


def at(path: Path) -> Host:
    return host_of({"kind": "models directory", "where": str(path)})


def file_of(path: Path, store: MemoryStore, kind: str = MODEL) -> Path:
    """The file of the first model's blob of *kind*."""
    blob = next(blob for blob in store.models()[0].blobs if blob.media_type == kind)
    assert blob.digest is not None
    return path / "blobs" / blob.digest.file_name


def damage(file: Path) -> None:
    """Its last byte, with its times kept."""
    found = file.stat()
    with file.open("r+b") as opened_file:
        opened_file.seek(-1, os.SEEK_END)
        last = opened_file.read(1)
        opened_file.seek(-1, os.SEEK_END)
        opened_file.write(bytes([last[0] ^ 1]))
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))


def proven(host: Host, receipts: list[Receipt], **more: Any) -> tuple[list[Receipt], Mapping[str, Exception]]:
    with opened(host, ours=True, **more) as now:
        return prove(receipts, now, host.where)


def test_a_directory_read_back(tmp_path: Path) -> None:
    store = there(tmp_path)
    receipts = copy(store, store.models(), ModelsDir(tmp_path))
    assert all(one.there for one in receipts)
    done, failed = proven(at(tmp_path), receipts)
    assert failed == {}
    for receipt in done:
        assert {str(state) for _, state in receipt.states()} == {"read back"}


def test_what_was_sent_is_not_read_again(tmp_path: Path) -> None:
    """Only what was there before: the rest was hashed when it was written."""
    store = MemoryStore()
    store.image("full", *FULL)
    receipts = copy(store, store.models(), ModelsDir(tmp_path))
    damage(file_of(tmp_path, store))
    assert proven(at(tmp_path), receipts) == (receipts, {})


def test_a_damaged_blob_names_the_models_and_the_host(tmp_path: Path) -> None:
    store = there(tmp_path)
    receipts = copy(store, store.models(), ModelsDir(tmp_path))
    damage(file_of(tmp_path, store))
    done, failed = proven(at(tmp_path), receipts)
    assert len(failed) == 2
    for error in failed.values():
        assert isinstance(error, Corrupt)
        assert str(store.models()[0].blobs[0].digest) in error.what
        assert "used by full:latest, twin:latest" in error.what
        assert error.where == str(tmp_path)
        assert "modelpack repair" in error.advice
    for receipt in done:
        states = [str(state) for _, state in receipt.states()]
        assert states.count("seen by name and size") == 1
        assert states.count("read back") == len(states) - 1


def test_what_changed_meanwhile_is_no_damage(tmp_path: Path) -> None:
    store = there(tmp_path)
    receipts = copy(store, store.models(), ModelsDir(tmp_path))
    other = MemoryStore()
    other.image("full", *TINY)
    copy(other, other.models(), ModelsDir(tmp_path, replace=True))
    ModelsDir(tmp_path).path.joinpath("manifests", *receipts[1].name.parts).unlink()
    _, failed = proven(at(tmp_path), receipts)
    assert [type(error) for error in failed.values()] == [Different, NotFound]


def test_a_depot_read_back(tmp_path: Path) -> None:
    """By the API alone: what the server has on its disk is pushed to us and hashed here."""
    with own_depot(tmp_path / "m") as depot:
        store = MemoryStore()
        store.image("full", *FULL)
        copy(store, store.models(), server(depot.url))
        receipts = copy(store, store.models(), server(depot.url))
        assert [one.way for one in receipts] == ["exact"]
        host = Host("server", depot.url, "0")
        done, failed = proven(host, receipts, calling=LOOPBACK)
        assert failed == {}
        assert {str(state) for _, state in done[0].states()} == {"read back"}
        damage(file_of(tmp_path / "m", store))
        (_, failed) = proven(host, receipts, calling=LOOPBACK)
        (error,) = failed.values()
        assert isinstance(error, Corrupt), error
        assert (error.where, "used by full:latest" in error.what) == (depot.url, True)


def test_a_registry_read_back() -> None:
    with docker_registry() as registry:
        store = MemoryStore()
        store.image("full", *FULL)
        access, text = Access(plain_http=True), f"oci://{registry.server}/ns"
        place = Reference.parse(text)
        for _ in range(2):
            receipts = copy(store, store.models(), RegistryTarget(access.client(place), place))
        host = host_of({"kind": "registry", "where": text})
        done, failed = proven(host, receipts, access=access)
        assert failed == {}
        assert {str(state) for _, state in done[0].states()} == {"read back"}
        (data,) = [
            one for one in registry.path.rglob("data")
            if one.parent.name == _hex(store.models()[0].blobs[0].digest)
        ]  # fmt: skip
        damage(data)
        _, failed = proven(host, receipts, access=access)
        (error,) = failed.values()
        assert isinstance(error, Corrupt), error


def _hex(digest: Digest | None) -> str:
    assert digest is not None
    return digest.hex


def test_of_a_created_model_the_small_layers_are_proven(tmp_path: Path) -> None:
    """What the server made itself can only be held against its own manifest, and the receipt says so."""
    with own_depot(tmp_path / "m") as depot:
        store = MemoryStore()
        store.image("full", *FULL)
        receipts = copy(store, store.models(), ServerCreate(Ollama(depot.url), source=store))
        assert (receipts[0].way, receipts[0].same) == ("create", "meaning")
        host = Host("server", depot.url, "0")
        (done,), failed = proven(host, receipts, calling=LOOPBACK)
        assert failed == {}
        read_back = {blob.kind for blob, state in done.states() if str(state) == "read back"}
        assert read_back >= {"template", "license"}
        assert done.unproven == ""  # a depot keeps weights as they were sent: hashed by it
        rewritten = dataclasses.replace(receipts[0], sent=())
        (done,), _ = proven(host, [rewritten], calling=LOOPBACK)
        assert "The server wrote these itself" in done.unproven
        assert "model sha256:" in done.unproven


def test_a_server_that_is_gone_is_no_damage(tmp_path: Path) -> None:
    store = there(tmp_path)
    (receipt, _) = copy(store, store.models(), ModelsDir(tmp_path))
    done, failed = proven(Host("server", "http://127.0.0.1:9", "0"), [receipt])
    assert done == [receipt]
    assert [type(error) for error in failed.values()] == [Unreachable]


# --- trying


def answer(value: Any, code: int = 200) -> Callable[[Any], None]:
    return lambda at: say(at, code, value)


TOKEN = {"model": "m", "response": " the", "done": True, "done_reason": "length", "eval_count": 1}


NONE = (False, "token", "", 0, "no token came")


@pytest.mark.parametrize(
    ("value", "code", "expected"),
    [
        (TOKEN, 200, (True, "token", " the", 1, "")),
        (TOKEN | {"response": "\u202e"}, 200, (True, "token", "\u202e", 1, "")),
        (TOKEN | {"response": "", "thinking": "hm"}, 200, (True, "token", "hm", 1, "")),
        (TOKEN | {"response": ""}, 200, (True, "token", "", 1, "")),
        ({"done": True}, 200, NONE),
        (TOKEN | {"eval_count": "x", "response": 5}, 200, NONE),
        ({"error": "llama runner: exit 2"}, 500, (False, "token", "", 0, "llama runner: exit 2")),
        ({"error": "late"}, 200, (False, "token", "", 0, "late")),
    ],
)
def test_one_token(value: dict[str, Any], code: int, expected: tuple[object, ...]) -> None:
    assert tried(["completion"], generate=answer(value, code)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"embeddings": [[0.1] * 64]}, (True, "vector", "", 64, "")),
        ({"embeddings": [{}]}, (False, "vector", "", 0, "no vector came")),
        ({"embeddings": []}, (False, "vector", "", 0, "no vector came")),
    ],
)
def test_one_vector(value: dict[str, Any], expected: tuple[object, ...]) -> None:
    assert tried(["embedding"], embed=answer(value)) == expected
    refused = answer({"error": '"m" does not support generate'}, 400)
    assert tried([], generate=refused, embed=answer(value)) == expected  # an old server tells no abilities


def tried(able: list[str], **faults: Callable[[Any], None]) -> tuple[object, ...]:
    fake = FakeOllama()
    fake.faults = {f"POST /api/{key}": fault for key, fault in faults.items()}
    fake.faults["POST /api/show"] = answer({"capabilities": able})
    with fake.running() as url, Ollama(url) as client:
        found = attempt(client, "m")
    assert 0 <= found.milliseconds < 30_000
    return (found.ok, found.kind, found.text, found.length, found.words)


def test_it_is_asked_once() -> None:
    """What takes minutes is not begun again because it failed."""
    fake = FakeOllama()
    fake.faults = {
        "POST /api/show": answer({"capabilities": ["completion"]}),
        "POST /api/generate": answer({"error": "loading"}, 503),
    }
    with fake.running() as url, Ollama(url) as client:
        assert attempt(client, "m").words == "loading"
    assert [path for _, path in fake.asked] == ["/api/show", "/api/generate"]


def test_a_model_that_does_not_answer_fails_alone(tmp_path: Path) -> None:
    store = there(tmp_path)
    receipts = copy(store, store.models(), ModelsDir(tmp_path))
    answers = iter([answer({"error": "unknown model architecture: 'x'"}, 500), answer(TOKEN)])
    fake = FakeOllama()
    fake.faults = {
        "POST /api/show": answer({"capabilities": ["completion"]}),
        "POST /api/generate": lambda at: next(answers)(at),
    }
    with fake.running() as url, Ollama(url) as client:
        done, failed = attempts(client, receipts)
    assert [one.tried is not None and one.tried.ok for one in done] == [False, True]
    ((name, error),) = failed.items()
    assert (name, error.exit_code) == (receipts[0].name.full, 6)
    assert "unknown model architecture" in error.what


# --- all of it, after a load


class Fits(ModelsDir):
    """A models directory that says where it is."""

    def described(self) -> Mapping[str, str]:
        return {"kind": "models directory", "where": str(self.path)}


def afterwards(target: Target, **more: Any) -> Afterwards:
    return Afterwards(target, **more)


def test_the_receipt_is_written_where_proving_failed(tmp_path: Path) -> None:
    store = there(tmp_path / "m")
    target, file = Fits(tmp_path / "m"), tmp_path / "r.json"
    after = afterwards(target, receipt=file, proving=True, bundle=Digest.of(b"b"))
    receipts = copy(store, store.models(), target)
    damage(file_of(tmp_path / "m", store))
    found = after.finish(receipts, {"other": Refused("said no")})
    assert isinstance(found.errors[0], Corrupt)
    record = read(file)
    assert [(one.step, one.kind) for one in record.failed] == [
        ("load", "Refused"), ("prove", "Corrupt"), ("prove", "Corrupt"),
    ]  # fmt: skip
    assert record.bundle == Digest.of(b"b")
    assert {str(blob.state) for blob in record.models[1].blobs} == {"read back", "seen by name and size"}


def test_what_cannot_be_is_said_before(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(Refused):
        afterwards(Fits(tmp_path), receipt=tmp_path / "mine")
    with pytest.raises(Unsupported, match="runs no models"):
        afterwards(Fits(tmp_path), trying=True)
    with pytest.raises(Usage):
        afterwards(MemoryStore(), proving=True)
    afterwards(MemoryStore())  # nothing was asked for
    with own_depot(tmp_path / "m") as depot, pytest.raises(Unsupported, match="no engine"):
        afterwards(server(depot.url), trying=True)
    with pytest.raises(Unreachable):
        afterwards(server("http://127.0.0.1:9"), trying=True)


def test_a_load_to_a_depot_and_its_file(tmp_path: Path) -> None:
    with own_depot(tmp_path / "m") as depot:
        make(depot.url, "elsewhere")  # its weights are there already
        store = MemoryStore()
        store.image("tiny", *TINY)
        target = server(depot.url)
        after = afterwards(target, receipt=tmp_path / "r.json", proving=True, calling=LOOPBACK)
        found = after.finish(copy(store, store.models(), target), {})
        assert found.errors == []
        value = json.loads((tmp_path / "r.json").read_text())
        (model,) = value["models"]
        assert {one["media_type"].rpartition(".")[2]: one["state"] for one in model["blobs"]} == {
            "model": "read back", "template": "sent", "params": "sent", "v1+json": "sent",
        }  # fmt: skip
        assert value["host"] | {"version": 0} == {"kind": "server", "where": depot.url, "version": 0}
