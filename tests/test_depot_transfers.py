"""A depot pulls and pushes by itself: from another depot, from a stock registry, in Ollama's words."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import ollama
import pytest
from conftest import bits
from depots import ask, make, own_depot, put
from registries import docker_registry

from modelpack import ModelsDir, NotFound, Ollama
from modelpack.depot import transfers
from modelpack.depot.app import Depot
from modelpack.depot.serve import running
from modelpack.words.blob import MIB

TWO = tuple[str, str]
Official = Callable[[str], ollama.Client]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[TWO]:
    """Two writable depots; the first has a model."""
    with (
        running(Depot(tmp_path / "one", writable=True)) as one,
        running(Depot(tmp_path / "two", writable=True)) as other,
    ):
        assert make(one, "tiny", system="hello").status == 200
        yield one, other


@pytest.fixture
def official() -> Iterator[Official]:
    """Makes clients of Ollama's own, and hangs up for them."""
    with contextlib.ExitStack() as stack:

        def make_one(url: str) -> ollama.Client:
            client = ollama.Client(host=url, trust_env=False)
            stack.enter_context(contextlib.closing(client._client))
            return client

        yield make_one


def place(url: str) -> str:
    return url.removeprefix("http://")


def lines(url: str, path: str, **asked: object) -> list[dict[str, object]]:
    answer = ask(url, "POST", path, dict(asked))
    assert answer.status == 200, answer.body
    return answer.lines


def test_one_pulls_from_the_other(two: TWO, tmp_path: Path) -> None:
    one, other = two
    name = f"{place(one)}/library/tiny:latest"
    said = lines(other, "/api/pull", model=name, insecure=True)
    words = [str(line["status"]) for line in said]
    assert words[0] == "pulling manifest"
    assert words[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    moved = {line["digest"]: line for line in said if "digest" in line}
    (model,) = ModelsDir(tmp_path / "two").models()
    assert set(moved) == {str(blob.digest) for blob in model.blobs}
    assert all(line["total"] == line["completed"] for line in moved.values())
    assert str(model.name) == name
    here, there = (list(bits(ModelsDir(tmp_path / which)).values()) for which in ("one", "two"))
    assert here == there
    again = lines(other, "/api/pull", model=name, insecure=True)
    assert [line["status"] for line in again if "digest" in line] == [
        f"pulling {blob.digest.short}" for blob in model.blobs if blob.digest
    ]


def test_one_pushes_to_the_other(two: TWO, tmp_path: Path) -> None:
    one, other = two
    name = f"{place(other)}/team/sent:1"
    assert ask(one, "POST", "/api/copy", {"source": "tiny", "destination": name}).status == 200
    said = lines(one, "/api/push", model=name, insecure=True)
    words = [str(line["status"]) for line in said]
    assert words[0] == "retrieving manifest"
    assert words[-2:] == ["pushing manifest", "success"]
    (model,) = ModelsDir(tmp_path / "two").models()
    assert str(model.name) == "team/sent:1"


def test_through_a_stock_registry(two: TWO, tmp_path: Path) -> None:
    one, other = two
    with docker_registry() as registry:
        name = f"{registry.server}/team/tiny:1"
        ask(one, "POST", "/api/copy", {"source": "tiny", "destination": name})
        assert lines(one, "/api/push", model=name, insecure=True)[-1] == {"status": "success"}
        assert lines(other, "/api/pull", model=name, insecure=True)[-1] == {"status": "success"}
    (model,) = ModelsDir(tmp_path / "two").models()
    assert model.document.id in {one.document.id for one in ModelsDir(tmp_path / "one").models()}


def test_what_a_pull_replaces_goes(two: TWO, tmp_path: Path) -> None:
    one, other = two
    name = f"{place(one)}/library/tiny:latest"
    lines(other, "/api/pull", model=name, insecure=True)
    before = {path.name for path in (tmp_path / "two" / "blobs").iterdir()}
    make(one, "tiny", system="another")
    lines(other, "/api/pull", model=name, insecure=True)
    after = {path.name for path in (tmp_path / "two" / "blobs").iterdir()}
    assert len(after) == len(before)
    assert after != before


def test_the_official_client_follows_it(two: TWO, official: Official) -> None:
    one, other = two
    client = official(other)
    events = list(client.pull(f"{place(one)}/library/tiny", insecure=True, stream=True))
    assert events[-1].status == "success"
    assert client.pull(f"{place(one)}/library/tiny", insecure=True).status == "success"
    client.copy(f"{place(one)}/library/tiny", f"{place(one)}/library/back")
    assert client.push(f"{place(one)}/library/back", insecure=True).status == "success"


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({}, 400, "invalid model name"),
        ({"model": "a//b"}, 400, "invalid model name"),
    ],
)
def test_requests_that_are_none(two: TWO, asked: dict[str, object], status: int, words: str) -> None:
    answer = ask(two[0], "POST", "/api/pull", asked)
    assert (answer.status, words in answer.error) == (status, True)


def test_a_model_that_is_not_there(two: TWO) -> None:
    one, other = two
    said = lines(other, "/api/pull", model=f"{place(one)}/library/none", insecure=True)
    assert said[-1] == {"error": "pull model manifest: file does not exist"}
    said = lines(other, "/api/push", model="none", insecure=True)
    assert said[-2] == {"status": "couldn't retrieve manifest"}
    assert "/none/latest: no such file" in str(said[-1]["error"])
    with Ollama(other) as client, pytest.raises(NotFound):
        client.push("none", insecure=True).last()
    answer = ask(
        other, "POST", "/api/pull", {"model": f"{place(one)}/x/none", "insecure": True, "stream": False}
    )
    assert (answer.status, "does not exist" in answer.error) == (500, True)


def test_nobody_answers(two: TWO) -> None:
    said = lines(two[0], "/api/pull", model="127.0.0.1:9/library/none", insecure=True)
    assert "refused" in str(said[-1]["error"])


def test_a_read_only_depot_does_neither(tmp_path: Path) -> None:
    with running(Depot(tmp_path)) as url:
        for verb in ("pull", "push"):
            assert ask(url, "POST", f"/api/{verb}", {"model": "x/y/z"}).status == 403


def test_whoever_leaves_ends_it_and_the_next_takes_it_up(tmp_path: Path, official: Official) -> None:
    with own_depot(tmp_path / "one") as one, own_depot(tmp_path / "two") as other:
        data = tmp_path / "big.gguf"
        _big(data)

        digest = put(one.url, data.read_bytes())
        answer = ask(one.url, "POST", "/api/create", {"model": "big", "files": {"big.gguf": digest}})
        assert answer.status == 200
        name = f"{place(one.url)}/library/big"
        client = official(other.url)
        for event in client.pull(name, insecure=True, stream=True):
            if event.completed and event.completed > 4 * MIB:
                break  # and the connection is closed
        until = time.monotonic() + 10
        while not list((tmp_path / "two").rglob("*kept-*")) and time.monotonic() < until:
            if list((tmp_path / "two" / "manifests").rglob("big/latest")):
                pytest.skip("it was faster than us")
            time.sleep(0.05)
        assert list((tmp_path / "two").rglob("*kept-*"))
        assert not ModelsDir(tmp_path / "two").models()
        assert lines(other.url, "/api/pull", model=name, insecure=True)[-1] == {"status": "success"}
        assert len(ModelsDir(tmp_path / "two").models()) == 1


def _big(path: Path) -> None:
    """A GGUF of 256 MiB."""
    import gguf

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    import numpy as np

    writer.add_tensor("w", np.frombuffer(os.urandom(256 * MIB), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@contextlib.contextmanager
def silent_registry() -> Iterator[str]:
    """It takes connections, and says nothing from the first byte on."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        yield f"127.0.0.1:{silent.getsockname()[1]}"


@contextlib.contextmanager
def begun(url: str, path: str, name: str) -> Iterator[http.client.HTTPResponse]:
    """A transfer that was asked for, its first line read; at the end the client hangs up."""
    with contextlib.closing(http.client.HTTPConnection(place(url), timeout=30)) as connection:
        connection.request("POST", path, body=json.dumps({"model": name, "insecure": True}))
        with connection.getresponse() as answer:
            assert answer.status == 200
            assert b"status" in answer.readline()
            yield answer


@pytest.mark.parametrize("verb", ["pull", "push"])
def test_a_silent_registry_does_not_keep_it_from_ending(tmp_path: Path, verb: str) -> None:
    with silent_registry() as server, contextlib.ExitStack() as stack:
        with own_depot(tmp_path / "m") as depot:
            name = f"{server}/ns/tiny:1"
            make(depot.url, "tiny")
            ask(depot.url, "POST", "/api/copy", {"source": "tiny", "destination": name})
            answer = stack.enter_context(begun(depot.url, f"/api/{verb}", name))
            time.sleep(0.5)  # by now it waits for the registry
            since = time.monotonic()
        assert time.monotonic() - since < 5
        assert b"broken off" in answer.read().splitlines()[-1]


def test_clients_that_hang_up_give_their_turns_back(two: TWO, monkeypatch: pytest.MonkeyPatch) -> None:
    """They leave while it waits for the first byte of a registry that never says one."""
    monkeypatch.setattr(transfers, "_ALIVE", 0.05)
    with silent_registry() as server:
        name = f"{server}/ns/tiny:1"
        ask(two[0], "POST", "/api/copy", {"source": "tiny", "destination": name})
        with contextlib.ExitStack() as stack:
            for number in range(transfers.AT_ONCE):
                stack.enter_context(begun(two[0], "/api/pull" if number % 2 else "/api/push", name))
            asked = {"model": "127.0.0.1:9/a/b", "insecure": True}
            assert ask(two[0], "POST", "/api/pull", asked).status == 503
        until = time.monotonic() + 10
        while (answer := ask(two[0], "POST", "/api/pull", asked)).status == 503:
            assert time.monotonic() < until, "the turns are still taken"
            time.sleep(0.05)
        assert answer.status == 200


def test_too_many_at_once(two: TWO) -> None:
    """Eight transfers wait for a registry that says nothing; more are told so."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asked = {"model": f"127.0.0.1:{silent.getsockname()[1]}/library/x", "insecure": True}
        refused: list[int] = []

        def pull() -> None:
            with contextlib.suppress(OSError):
                refused.append(ask(two[0], "POST", "/api/pull", asked).status)

        threads = [threading.Thread(target=pull, daemon=True) for _ in range(10)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 10
        while len(refused) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        assert refused == [503, 503]
        assert ask(two[0], "GET", "/api/version").status == 200
