"""The client from asyncio: the same calls, streams, and cancellation that a silent server sees at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES, MemoryStore, noise
from depots import own_depot
from servers import FakeOllama, head_of, say, status, stream, talking

from modelpack import aio
from modelpack.errors import NotFound, Refused, Unreachable, Usage
from modelpack.stores.folder import FolderBundle
from modelpack.words.blob import MIB, MODEL
from modelpack.words.digest import Digest
from modelpack.words.reader import BytesReader
from modelpack.words.report import Moved, Step

GGUF = FIXTURES / "tiny-llama.gguf"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
SOON = 2.0


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLLAMA_HOST", "OLLAMA_API_KEY", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def nothing_is_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No thread of ours, and no word of asyncio about futures that nobody asked."""
    yield
    gc.collect()
    end = time.monotonic() + SOON
    while left := [one for one in threading.enumerate() if one.name.startswith("modelpack-aio")]:
        assert time.monotonic() < end, left
        time.sleep(0.01)
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


def run(work: Coroutine[Any, Any, object]) -> None:
    asyncio.run(work, debug=True)


def chunk(line: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(line), line)


class Silent:
    """A server that says *first* and then nothing; `began` when it is asked, `ended` when it sees the end."""

    def __init__(self, first: bytes = b"") -> None:
        self.first = first
        self.began, self.ended = threading.Event(), threading.Event()

    def __call__(self, connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(self.first)
        self.began.set()
        connection.settimeout(20)
        with contextlib.suppress(ConnectionError):
            while connection.recv(65536):
                pass
        self.ended.set()


async def happens(event: threading.Event) -> None:
    end = time.monotonic() + SOON
    while not event.is_set():
        assert time.monotonic() < end, "not within two seconds"
        await asyncio.sleep(0.005)


def test_every_call_against_a_depot(tmp_path: Path) -> None:
    """Upload, create, list, show, copy, delete and the rest, awaited."""

    async def work(url: str) -> None:
        async with aio.Ollama(url) as client:
            moved: list[int] = []
            digest = await client.upload_file(GGUF, moved=moved.append)
            assert sum(moved) == GGUF.stat().st_size
            assert await client.has_blob(digest)
            assert await client.which([digest, Digest("sha256", "0" * 64)]) == {digest}
            assert not await client.upload_blob(digest, 3, BytesReader(b"abc"))
            made = await client.create("m", files={GGUF.name: digest}, system="S")
            assert made.status == "success"
            async with client.create("n", from_="m") as events:
                assert [event.status async for event in events][-1] == "success"
            await client.copy("n", "o")
            await client.delete("n")
            assert {each.name for each in await client.list()} == {"m:latest", "o:latest"}
            assert "registry.ollama.ai/library/m:latest" in await client.installed()
            assert (await client.show("o")).system == "S"
            assert await client.running() == ()
            assert await client.version() == (await client.about()).text
            assert await client.run(lambda sync: len(sync.list())) == 2
            with pytest.raises(NotFound):
                await client.show("nope")
            with pytest.raises(NotFound):
                await client.create("x", from_="nope").last()
            several = await asyncio.gather(*(client.show("m") for _ in range(40)))
            assert {each.system for each in several} == {"S"}

    with own_depot(tmp_path / "models") as depot:
        run(work(depot.url))


def test_a_pull_is_iterated_or_awaited() -> None:
    """Events in order, errors as the client that waits raises them."""
    lines: list[dict[str, Any]] = [{"status": "pulling x", "digest": "d", "total": 9, "completed": 3}]
    fake = FakeOllama()
    fake.faults["POST /api/pull"] = lambda at: stream(at, [*lines, {"status": "success"}])
    fake.faults["POST /api/push"] = lambda at: stream(at, [*lines, {"error": "denied"}])

    async def work(base: str) -> None:
        async with aio.Ollama(base) as client:
            seen = [(event.status, event.completed) async for event in client.pull("m")]
            assert seen == [("pulling x", 3), ("success", None)]
            assert (await client.pull("m", insecure=True)).status == "success"
            with pytest.raises(Refused, match="denied"):
                await client.push("m")
            pushing = client.push("m")
            assert (await anext(pushing)).total == 9
            with pytest.raises(Refused):
                await anext(pushing)
            with pytest.raises(StopAsyncIteration):
                await anext(pushing)

    with fake.running() as base:
        run(work(base))


@pytest.mark.parametrize("first", [b"", CHUNKED, CHUNKED + chunk(b'{"status": "one"}\n')])
def test_cancelling_a_pull_ends_it_at_once(first: bytes) -> None:
    """Whether the server has answered, begun, or said nothing at all."""
    silent = Silent(first)

    async def work(base: str) -> None:
        async with aio.Ollama(base) as client:

            async def pull() -> None:
                async for _ in client.pull("m"):
                    pass

            task = asyncio.create_task(pull())
            await happens(silent.began)
            await asyncio.sleep(0.05)
            begun = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - begun < 0.5
            await happens(silent.ended)

    with talking(silent) as base:
        run(work(base))


@pytest.mark.parametrize("way", ["break", "with", "error", "drop", "client", "timeout"])
def test_leaving_a_pull_ends_it_at_once(way: str) -> None:
    """Every way out of the loop closes the connection, without a word from the server."""
    silent = Silent(CHUNKED + chunk(b'{"status": "one"}\n'))

    async def work(base: str) -> None:
        client = aio.Ollama(base)
        if way == "break":
            async for _ in client.pull("m"):
                break
        elif way == "with":
            async with client.pull("m") as events:
                await anext(events)
        elif way == "error":
            try:
                async for _ in client.pull("m"):
                    raise ZeroDivisionError
            except ZeroDivisionError:
                pass
        elif way == "drop":
            await anext(client.pull("m"))
        elif way == "timeout":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.pull("m").last(), 0.2)
        else:
            kept = client.pull("m")
            await anext(kept)
            await client.aclose()
        await happens(silent.ended)
        await client.aclose()

    with talking(silent) as base:
        run(work(base))


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.list(),
        lambda client: client.delete("m"),
        lambda client: client.which([Digest("sha256", "0" * 64), Digest("sha256", "1" * 64)]),
        lambda client: client.upload_blob(Digest("sha256", "0" * 64), 64 * MIB, BytesReader(bytes(64 * MIB))),
        lambda client: client.run(lambda sync: sync.show("m")),
        lambda client: client.create_from({"model": "m"}).last(),
    ],
)
def test_cancelling_any_call(ask: Callable[[aio.Ollama], Coroutine[Any, Any, object]]) -> None:
    """The server sees the connection end, and nothing is asked again."""
    silent = Silent()
    asked = 0

    def talk(connection: socket.socket) -> None:
        nonlocal asked
        asked += 1
        silent(connection)

    async def work(base: str) -> None:
        async with aio.Ollama(base) as client:
            task = asyncio.create_task(ask(client))
            await happens(silent.began)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await happens(silent.ended)

    with talking(talk) as base:
        run(work(base))
    assert asked == 1


def test_closing_the_client_breaks_off_what_is_under_way() -> None:
    """Whoever awaits it hears that it was broken off here."""
    silent = Silent()

    async def work(base: str) -> None:
        client = aio.Ollama(base)
        task = asyncio.create_task(client.list())
        await happens(silent.began)
        await client.aclose()
        with pytest.raises(Unreachable, match="broken off"):
            await task

    with talking(silent) as base:
        run(work(base))


def test_a_pause_before_another_try_can_be_cancelled() -> None:
    """A server that says "later" does not hold the task."""
    asked = threading.Event()

    def later(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(status(503, more="Retry-After: 20\r\n"))
        asked.set()

    async def work(base: str) -> None:
        async with aio.Ollama(base) as client:
            task = asyncio.create_task(client.list())
            await happens(asked)
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with talking(later) as base:
        run(work(base))


def test_a_slow_consumer_slows_the_server_down() -> None:
    """What is not asked for is not fetched: the server cannot send without end."""
    sent = 0
    line = chunk(b'{"status": "' + b"x" * 60_000 + b'"}\n')

    def talk(connection: socket.socket) -> None:
        nonlocal sent
        head_of(connection)
        connection.sendall(CHUNKED)
        while True:
            connection.sendall(line)
            sent += len(line)

    async def work(base: str) -> None:
        async with aio.Ollama(base) as client, client.pull("m") as events:
            for _ in range(3):
                await anext(events)
            await asyncio.sleep(0.5)

    with talking(talk) as base:
        run(work(base))
    assert sent < 32 * MIB  # the sockets' own buffers


def test_another_call_is_not_cut_by_one_that_is_cancelled() -> None:
    """Connections are shared; what is broken off is one call."""

    def answer(at: Any) -> None:
        time.sleep(0.3 if at.path == "/api/tags" else 5)
        say(at, 200, {"models": []})

    fake = FakeOllama()
    fake.faults["GET /api/"] = answer

    async def work(base: str) -> None:
        async with aio.Ollama(base) as client:
            await client.list()  # its connection is the one that is used again
            slow = asyncio.create_task(client.running())
            quick = [asyncio.create_task(client.list()) for _ in range(4)]
            await asyncio.sleep(0.1)
            slow.cancel()
            assert await asyncio.gather(*quick) == [()] * 4

    with fake.running() as base:
        run(work(base))


def test_a_copy_reports_in_the_loop(tmp_path: Path) -> None:
    """Every step, in the thread of the loop."""
    store = MemoryStore()
    store.image("m", (MODEL, noise(3 * MIB)))
    heard: list[Step] = []
    threads = set()

    def report(step: Step) -> None:
        heard.append(step)
        threads.add(threading.get_ident())

    async def work() -> None:
        receipts = await aio.copy(store, store.models(), FolderBundle(tmp_path / "b"), report)
        assert [each.name.full for each in receipts] == ["registry.ollama.ai/library/m:latest"]

    run(work())
    assert sum(step.count for step in heard if isinstance(step, Moved)) >= 3 * MIB
    assert threads == {threading.get_ident()}


def test_a_copy_that_is_cancelled_leaves_no_model(tmp_path: Path) -> None:
    """It ends at the next block, and the target has no bundle; the next run is whole."""
    store = MemoryStore()
    store.image("m", *((MODEL if not seed else f"x/{seed}", noise(2 * MIB, seed)) for seed in range(20)))
    begun = asyncio.Event()
    moved = 0

    def report(step: Step) -> None:
        nonlocal moved
        if isinstance(step, Moved):
            moved += step.count
            begun.set()

    async def work() -> None:
        task = asyncio.create_task(aio.copy(store, store.models(), FolderBundle(tmp_path / "b"), report))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not (tmp_path / "b" / "index.json").exists()
        await aio.copy(store, store.models(), FolderBundle(tmp_path / "b"))

    run(work())
    assert moved < 40 * MIB
    assert len(FolderBundle(tmp_path / "b").models()) == 1


def test_results_that_are_not_streamed(tmp_path: Path) -> None:
    """`stream=False` gives the one event, and is cancelled as other calls are."""
    silent = Silent()

    async def make(url: str) -> None:
        async with aio.Ollama(url) as client:
            digest = await client.upload_file(GGUF)
            done = await client.create("m", files={GGUF.name: digest}, stream=False)
            assert done.status == "success"
            assert [each.name for each in await client.list()] == ["m:latest"]

    async def move(base: str) -> None:
        async with aio.Ollama(base) as client:
            assert (await client.pull("m", stream=False)).status == "success"
            assert (await client.push("m", insecure=True, stream=False)).status == "success"

    async def leave(base: str) -> None:
        async with aio.Ollama(base) as client:
            task = asyncio.create_task(client.pull("m", stream=False))
            await happens(silent.began)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await happens(silent.ended)

    with own_depot(tmp_path / "models") as depot:
        run(make(depot.url))
    fake = FakeOllama()
    fake.faults["POST "] = lambda at: say(at, 200, {"status": "success"})
    with fake.running() as base:
        run(move(base))
    with talking(silent) as base:
        run(leave(base))


def test_import_modelpack_is_enough() -> None:
    """`modelpack.aio` as the docs write it, and every type that the library hands out."""
    names = "aio Discovered Tensor Credential Credentials Note Step"
    code = f"import modelpack; [getattr(modelpack, name) for name in {names.split()}]; modelpack.aio.Ollama"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bad_arguments_are_raised_where_they_are_awaited() -> None:
    """A stream asks nothing before."""

    async def work() -> None:
        async with aio.Ollama("http://127.0.0.1:1") as client:
            client.pull("never awaited")
            with pytest.raises(Usage):
                await client.create("m", files={"a.gguf": "no digest"})
            with pytest.raises(Unreachable, match="refused"):
                await client.list()

    run(work())


def handler() -> Any:
    """The class of the example in docs/client.md."""
    text = (Path(__file__).parents[1] / "docs" / "client.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(# handler\.py\n.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {"__name__": "handler"}
    exec(compile(code, "docs/client.md", "exec"), names)
    return names["Models"]


def test_the_handler_of_the_docs(tmp_path: Path) -> None:
    """List, info and discover against a depot."""
    models = handler()

    async def work(url: str) -> None:
        async with aio.Ollama(url) as client:
            digest = await client.upload_file(GGUF)
            await client.create("m", files={GGUF.name: digest})
            agent = models(client)
            (listed,) = await agent.local()
            assert (listed["name"], listed["size"] > GGUF.stat().st_size) == ("m:latest", True)
            info = await agent.info("m")
            assert (info["installed"], info["format"], info["can"]) == (True, "gguf", ["completion"])
            assert await agent.info("nope") == {"name": "nope", "installed": False}
            assert await agent.able("completion") == ["m:latest"]
            assert await agent.able("vision") == []

    with own_depot(tmp_path / "models") as depot:
        run(work(depot.url))


def test_the_handler_of_the_docs_pulls() -> None:
    """With progress, with the server's error, and with a reader that goes away."""
    fake, models = FakeOllama(), handler()
    lines = [{"status": "pulling x", "digest": "d", "total": 8, "completed": 2}]
    fake.faults["POST "] = lambda at: stream(
        at, [*lines, {"error": "pull model manifest: file does not exist"}]
    )

    async def work(base: str) -> None:
        async with aio.Ollama(base) as client:
            said = [json.loads(line) async for line in models(client).pull("m")]
            assert said[0] == {"status": "pulling x", "digest": "d", "done": 0.25}
            assert "does not exist" in said[1]["error"]

    with fake.running() as base:
        run(work(base))

    silent = Silent(CHUNKED + chunk(b'{"status": "one"}\n'))

    async def leave(base: str) -> None:
        async with aio.Ollama(base) as client:
            reading = models(client).pull("m")
            await anext(reading)
            await reading.aclose()
            await happens(silent.ended)

    with talking(silent) as base:
        run(leave(base))
