"""Reading back what was there before, trying a model, and the receipt that tells of both."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import FULL, TINY, MemoryStore
from depots import make, own_depot
from registries import docker_registry
from servers import FakeOllama, say

from modelpack.cli.load import command
from modelpack.cli.words import SAME
from modelpack.documents.receipt import Receipt, State
from modelpack.documents.record import Host
from modelpack.errors import (
    Corrupt,
    Different,
    ModelpackError,
    NotFound,
    Refused,
    Unreachable,
    Unsupported,
    Usage,
)
from modelpack.hands.callback import Calling
from modelpack.hands.ollama import Ollama
from modelpack.stores import Target
from modelpack.stores.archive import Archive
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.registry import RegistryTarget
from modelpack.stores.server_create import ServerCreate
from modelpack.verbs.afterwards import Afterwards
from modelpack.verbs.attempt import attempt, attempts
from modelpack.verbs.hosts import There, opened
from modelpack.verbs.prove import prove
from modelpack.verbs.record import host_of, read
from modelpack.verbs.registries import Access
from modelpack.verbs.targets import server
from modelpack.verbs.transfer import copy
from modelpack.words.blob import MODEL
from modelpack.words.digest import Digest
from modelpack.words.name import Name
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
        assert states.count("read back: wrong") == 1
        assert states.count("read back") == len(states) - 1
        assert receipt.same is None
        assert receipt.to_json()["wrong"] == [str(store.models()[0].blobs[0].digest)]


def test_what_changed_meanwhile_is_no_damage(tmp_path: Path) -> None:
    store = there(tmp_path)
    receipts = copy(store, store.models(), ModelsDir(tmp_path))
    other = MemoryStore()
    other.image("full", *TINY)
    copy(other, other.models(), ModelsDir(tmp_path, replace=True))
    ModelsDir(tmp_path).path.joinpath("manifests", *receipts[1].name.parts).unlink()
    done, failed = proven(at(tmp_path), receipts)
    assert [type(error) for error in failed.values()] == [Different, NotFound]
    assert [one.same for one in done] == [None, None]


class Removing:
    """A host where the model *gone* is removed as soon as it was read."""

    def __init__(self, there: There, gone: str, client: Ollama) -> None:
        self.there, self.gone, self.client = there, Name.parse(gone), client

    def __getattr__(self, key: str) -> Any:
        return getattr(self.there, key)

    def read(self, name: Name) -> object:
        found = self.there.read(name)
        if name == self.gone and found is not None:
            self.client.delete(str(name))
        return found


@pytest.mark.parametrize("gone", ["full", "twin"])
def test_a_model_that_is_removed_meanwhile_is_no_damage(tmp_path: Path, gone: str) -> None:
    """Neither of itself, nor of another one that shares a blob with it."""
    store = there(tmp_path / "m")
    with own_depot(tmp_path / "m") as depot, Ollama(depot.url) as client:
        receipts = copy(store, store.models(), server(depot.url))
        host = Host("server", depot.url, "0")
        with opened(host, ours=True, calling=LOOPBACK) as now:
            done, failed = prove(receipts, Removing(now, gone, client), host.where)
    assert {key: type(error) for key, error in failed.items()} == {Name.parse(gone).full: Different}
    assert {one.name.model: one.same for one in done} == {"full": "bytes", "twin": "bytes"} | {gone: None}
    for receipt in done:
        assert State.WRONG not in {state for _, state in receipt.states()}


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
    assert {str(blob.state) for blob in record.models[1].blobs} == {"read back", "read back: wrong"}
    assert record.models[1].same is None
    assert set(record.disproved) == {one.name for one in record.models}


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


def test_no_port_and_proof_is_a_wrong_call(tmp_path: Path) -> None:
    fake = FakeOllama()
    with fake.running() as url:
        with pytest.raises(Usage, match="--no-listen"):
            afterwards(server(url), proving=True, calling=Calling(off=True))
        assert [path for _, path in fake.asked] == ["/api/version"]
    afterwards(Fits(tmp_path), proving=True, calling=Calling(off=True))  # a directory is read directly


def test_a_server_that_cannot_be_read_back_is_refused_before_the_first_byte() -> None:
    fake = FakeOllama()
    fake.faults = {"POST /api/pull": answer({"error": "pull model manifest: no route to host"}, 500)}
    with fake.running() as url:
        with pytest.raises(Unreachable, match="could not call back") as caught:
            afterwards(server(url), proving=True, calling=LOOPBACK)
        assert caught.value.advice.startswith("Leave --prove away")
        assert "--create" not in caught.value.advice
        assert {path for _, path in fake.asked} == {"/api/version", "/api/pull"}


# --- what load says


def bundle(path: Path, *names: str) -> Path:
    store = MemoryStore()
    for name, layers in zip(names, (FULL, TINY), strict=False):
        store.image(name, *layers)
    copy(store, store.models(), Archive(path))
    return path


def load(*args: object, code: int = 0) -> Result:
    """Run it; what it leaves by is *code*."""
    done = CliRunner().invoke(command, [*map(str, args)])
    raised = done.exception
    assert raised is None or isinstance(raised, ModelpackError | SystemExit), raised
    assert (raised.exit_code if isinstance(raised, ModelpackError) else done.exit_code) == code, done.output
    return done


def test_the_same_bytes_are_those_that_somebody_hashed(tmp_path: Path) -> None:
    """Sent or read back; of what is there by name only the ID is said, and of damage nothing."""
    with own_depot(tmp_path / "m") as depot:
        words = (bundle(tmp_path / "b.tar", "full"), "--to", depot.url, "--callback", "127.0.0.1")
        assert "exact: the same bytes, the same ID\n" in load(*words).stderr
        again = load(*words).stderr
        assert "the same bytes" not in again
        assert "exact: the same ID; not all of its bytes were looked at\n" in again
        assert "there before, by name alone: --prove reads them back" in again
        read_back = load(*words, "--prove").stderr
        assert "exact: the same bytes, the same ID\n" in read_back
        assert "there before, read back and hashed" in read_back
        damage(max((tmp_path / "m" / "blobs").iterdir(), key=lambda file: file.stat().st_size))
        wrong = load(*words, "--prove", "--receipt", tmp_path / "r.json", code=4).stderr
        assert "the same" not in wrong
        assert "1 blob " in wrong
        assert "there before, read back: wrong" in wrong
    (model,) = read(tmp_path / "r.json").models
    assert model.same is None
    assert [str(one.state) for one in model.blobs].count("read back: wrong") == 1


def test_what_load_says_of_ways_fits_a_terminal(tmp_path: Path) -> None:
    for words in SAME.values():
        assert len(f"directory: {words}") <= 80


def test_the_receipt_is_written_where_the_line_breaks(tmp_path: Path) -> None:
    """What arrived before is in it, and what did not."""
    fake, pulls = FakeOllama("0.33.0"), []
    pull = fake._pull

    def breaking(at: Any, name: str) -> None:
        pulls.append(name)
        if len(pulls) > 2:  # one to see whether it calls back, one for the first model
            at.connection.shutdown(socket.SHUT_RDWR)
            at.close_connection = True
            return
        pull(at, name)

    fake._pull = breaking  # type: ignore[method-assign]
    path = bundle(tmp_path / "b.tar", "full", "tiny")
    with fake.running() as url:
        words = ("--to", url, "--callback", "127.0.0.1", "--receipt", tmp_path / "r.json")
        done = load(path, *words, code=8)
    record = read(tmp_path / "r.json")
    assert ([one.name.model for one in record.models], len(fake.manifests)) == (["full"], 1)
    assert {str(one.state) for one in record.models[0].blobs} == {"sent"}
    assert [(one.step, str(one.name), one.kind) for one in record.failed] == [
        ("load", "tiny:latest", "Unreachable")
    ]
    assert "failed" in done.stdout


def test_what_arrived_is_said_where_the_receipt_cannot_be_written(tmp_path: Path, small_disk: Path) -> None:
    fill = small_disk / "fill"
    with own_depot(tmp_path / "m") as depot:
        path = bundle(tmp_path / "b.tar", "full")
        fill.write_bytes(bytes(2 * 1024 * 1024))
        words = ("--to", depot.url, "--callback", "127.0.0.1", "--receipt", small_disk / "r.json")
        done = load(path, *words, "--json", code=9)
    value = json.loads(done.stdout)
    assert [one["same"] for one in value["models"]] == ["bytes"]
    (error,) = value["afterwards"]["receipt"]
    assert "the receipt could not be written" in error["what"]


def test_standard_output_is_no_receipt(tmp_path: Path) -> None:
    load(bundle(tmp_path / "b.tar", "full"), "--to", tmp_path / "m", "--receipt", "-", code=2)
    assert not (tmp_path / "m").exists()
