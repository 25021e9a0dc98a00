"""The small registry: who may come, what they get, and what a push may do to whoever reads it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from depots import Answered, ask, head, own_depot, raw, rest_of
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import FakeOllama, say, stream

from modelpack.errors import Corrupt, Local, ModelpackError, Unreachable, Unsupported, Usage
from modelpack.hands import callback_push
from modelpack.hands.call import Call, under
from modelpack.hands.callback import Callback, Caller, Calling, Received, reach
from modelpack.hands.ollama import Ollama
from modelpack.words.blob import MODEL, SMALL, Blob
from modelpack.words.digest import ZERO, Digest
from modelpack.words.name import Name
from modelpack.words.reader import fill

SERVER = "http://127.0.0.1:11434"
DATA = bytes(range(256)) * 40
BLOB = Blob(len(DATA), MODEL, Digest.of(DATA))


@pytest.fixture
def callback() -> Iterator[Callback]:
    with Callback(SERVER) as made:
        yield made


def url(callback: Callback) -> str:
    return f"http://{callback.listening}"


def below(name: Name, rest: str) -> str:
    return f"/v2/{name.namespace}/{name.model}/{rest}"


# --- addresses


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_nothing_said_is_the_way_to_the_server(callback: Callback) -> None:
    assert callback.told == callback.listening
    assert callback.told.startswith("127.0.0.1:")


def test_nothing_listens_before_and_after() -> None:
    port = free_port()
    made = Callback(SERVER, Calling(listen=f"127.0.0.1:{port}"))
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        with made, socket.create_connection(("127.0.0.1", port), timeout=5):
            assert made.listening == f"127.0.0.1:{port}"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_what_is_told_and_what_is_bound() -> None:
    port, other = free_port(), free_port()
    for calling, told, bound in (
        (Calling("laptop"), "laptop:*", "127.0.0.1:*"),
        (Calling("laptop:80", f"127.0.0.1:{port}"), "laptop", f"127.0.0.1:{port}"),
        (Calling("laptop:9", f"127.0.0.1:{port}"), "laptop:9", f"127.0.0.1:{port}"),
        (Calling("laptop", f"127.0.0.1:{port}"), f"laptop:{port}", f"127.0.0.1:{port}"),
        (Calling(f"laptop:{port}", "127.0.0.1"), f"laptop:{port}", f"127.0.0.1:{port}"),
        (Calling(f"laptop:{port}"), f"laptop:{port}", f"127.0.0.1:{port}"),
        (Calling(f"127.0.0.2:{port}"), f"127.0.0.2:{port}", f"127.0.0.2:{port}"),
        (Calling(None, f"0.0.0.0:{other}"), f"127.0.0.1:{other}", f"0.0.0.0:{other}"),
        (Calling(None, "127.0.0.3"), "127.0.0.3:*", "127.0.0.3:*"),
        (Calling("laptop:80", f"[::1]:{port}"), "laptop", f"[::1]:{port}"),
    ):
        with Callback(SERVER, calling) as made:
            real = made.listening.rpartition(":")[2]
            assert made.told == told.replace("*", real)
            assert made.listening == bound.replace("*", real)
            name = made.name(ZERO)
            assert Name.parse(str(name)) == name
            assert name.model[:13] == "000000000000-"
            assert made.name(ZERO) != name


@pytest.mark.parametrize(
    "calling",
    [
        {"callback": ""}, {"callback": ":80"}, {"callback": "a:b"}, {"callback": "a:0"},
        {"callback": "a:70000"},
        {"callback": "http://a"}, {"callback": "a b"}, {"callback": "0.0.0.0:80"}, {"callback": "a/b:1"},
        {"callback": "-a"}, {"listen": ""}, {"listen": "1.2.3.4:"}, {"listen": "a:b:c"}, {"listen": "[::1"},
        {"callback": "a\n:1"}, {"callback": "a:१"},
    ],
)  # fmt: skip
def test_a_malformed_address_is_a_usage_error(calling: dict[str, Any]) -> None:
    with pytest.raises(Usage):
        Calling(**calling)


def test_no_name_can_hold_an_ipv6_address() -> None:
    for call in (
        lambda: Calling("[fe80::1]:80"),
        lambda: Calling("::1"),
        lambda: Callback("http://[::1]:11434").__enter__(),
        lambda: Callback(SERVER, Calling(listen="::1")).__enter__(),
    ):
        with pytest.raises(Unsupported, match="IPv6") as caught:
            call()
        assert "--callback" in caught.value.advice


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(Local, match="listens there already") as caught,
            Callback(SERVER, Calling(listen=place)),
        ):
            pass
    assert caught.value.where == place


def test_an_address_of_another_machine() -> None:
    with pytest.raises(Local, match="no address of this machine") as caught:
        Callback(SERVER, Calling(listen="192.0.2.1:5000")).__enter__()
    assert "--listen" in caught.value.advice
    assert caught.value.where == "192.0.2.1:5000"


def test_a_port_that_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object, **__: object) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("modelpack.hands.callback_address.socket.create_server", deny)
    with pytest.raises(Local, match="may not open that port"):
        Callback(SERVER, Calling(listen="127.0.0.1:80")).__enter__()


def test_no_port_may_be_opened() -> None:
    with pytest.raises(Unsupported, match="--no-listen"):
        Callback(SERVER, Calling(off=True)).__enter__()


# --- who comes


def test_strangers_learn_nothing(callback: Callback) -> None:
    with callback.offer(callback.name(ZERO), b"{}") as offered, callback.knock(callback.name(ZERO)) as knock:
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            for path in (
                "/",
                "/v2/_catalog",
                below(callback.name(ZERO), "manifests/latest"),
                "/v2/" + "a" * 900,
            ):
                answer = ask(url(callback), method, path, b"12345")
                assert (answer.status, answer.body) == (404, b"")
                assert set(answer.headers) <= {"Connection", "Content-Length"}
        assert ask(url(callback), "GET", "/v2/").status == 200
        assert (offered.served, offered.wanted, knock.caller) == (0, set(), None)


def test_a_name_is_gone_afterwards(callback: Callback) -> None:
    name = callback.name(ZERO)
    with callback.offer(name, b"{}"):
        assert ask(url(callback), "GET", below(name, "manifests/latest")).body == b"{}"
    assert ask(url(callback), "GET", below(name, "manifests/latest")).status == 404


def test_the_manifest_alone_is_offered(callback: Callback) -> None:
    name, manifest = callback.name(Digest.of(b"m")), b'{"schemaVersion":2}'
    with callback.offer(name, manifest) as offered:
        first = ask(url(callback), "HEAD", below(name, "manifests/latest"))
        assert (first.status, first.headers["Content-Length"]) == (200, str(len(manifest)))
        got = ask(url(callback), "GET", below(name, "manifests/latest"))
        assert (got.status, got.body) == (200, manifest)
        assert got.headers["Docker-Content-Digest"] == str(Digest.of(manifest))
        for rest in (f"blobs/{BLOB.digest}", "manifests/other", "blobs/uploads/", f"manifests/{ZERO}"):
            assert ask(url(callback), "GET", below(name, rest)).status == 404
        assert ask(url(callback), "POST", below(name, "blobs/uploads/")).status == 404
        assert offered.served == 1
        assert str(BLOB.digest) in offered.wanted


def test_a_request_through_a_proxy(callback: Callback) -> None:
    name = callback.name(ZERO)
    with callback.knock(name) as knock, raw(url(callback)) as connection:
        whole = f"http://{callback.told}{below(name, 'manifests/latest')}"
        connection.sendall(head("GET", whole, url(callback), User_Agent="ollama/0.33.0 (amd64 windows) Go/x"))
        assert rest_of(connection).startswith(b"HTTP/1.1 404 ")
        assert knock.wait(5) == Caller("127.0.0.1", "ollama/0.33.0 (amd64 windows) Go/x")


@pytest.mark.parametrize(
    ("agent", "system", "version"),
    [
        ("ollama/0.33.0 (amd64 linux) Go/go1.26.8", "linux", (0, 33, 0)),
        ("ollama/0.33.0-rc2 (arm64 darwin) Go/go1.26.8", "darwin", (0, 33, 0)),
        ("ollama/0.5.7 (amd64 windows) Go/go1.22", "windows", (0, 5, 7)),
        ("ollama/0.5.7 (amd64 plan9) Go/go1.22", "", (0, 5, 7)),
        ("ollama/0.0.0", "", (0, 0, 0)),
        ("modelpack/0.1.0", "", None),
        ("", "", None),
    ],
)
def test_what_a_caller_says_of_itself(agent: str, system: str, version: object) -> None:
    caller = Caller("10.0.0.1", agent)
    assert (caller.system, caller.version) == (system, version)


def test_a_hundred_that_drip(callback: Callback) -> None:
    """Whoever is silent makes room; the one that is waited for comes through in time."""
    name, over = callback.name(ZERO), threading.Event()
    place = callback.listening.split(":")
    with contextlib.ExitStack() as stack:
        drips = [
            stack.enter_context(socket.create_connection((place[0], int(place[1])), timeout=5))
            for _ in range(100)
        ]

        def drip() -> None:
            while not over.wait(0.05):
                for one in drips:
                    with contextlib.suppress(OSError):
                        one.send(b"G")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        with callback.knock(name) as knock:
            began = time.monotonic()
            ask(url(callback), "GET", below(name, "manifests/latest"))
            assert knock.caller is not None
            assert time.monotonic() - began < 7
            serving = [one for one in threading.enumerate() if one.name == "callback"]
            assert len(serving) <= 33
        over.set()
        thread.join(5)


@pytest.mark.parametrize(
    "said",
    [
        b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1 x\r\n\r\n", b"\xff\xfe /v2/ HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"GET http://[::1 HTTP/1.1\r\n\r\n", b"GET /?" + b"a=b&" * 100 + b" HTTP/1.1\r\n\r\n",
    ],
)  # fmt: skip
def test_garbage_gets_no_answer(callback: Callback, said: bytes) -> None:
    with raw(url(callback), timeout=5) as connection:
        connection.sendall(said)
        assert rest_of(connection) == b""
    assert ask(url(callback), "GET", "/v2/").status == 200


# --- whether the way back is open


def test_the_way_back_is_open(tmp_path: Path) -> None:
    with own_depot(tmp_path) as depot, Ollama(depot.url) as client, Callback(client.base) as callback:
        caller = reach(client, callback)
        assert caller.address == "127.0.0.1"
        assert caller.user_agent.startswith("modelpack/")
        assert client.list() == ()


@contextlib.contextmanager
def pulling(answer: Callable[[Any], None]) -> Iterator[tuple[Ollama, Callback]]:
    """A server that answers a pull so, and a small registry for it."""
    fake = FakeOllama()
    fake.faults["POST /api/pull"] = answer
    with fake.running() as base, Ollama(base) as client, Callback(base) as callback:
        yield client, callback


@pytest.mark.parametrize("said", [[], [{"status": "pulling manifest"}]])
def test_a_server_that_cannot_come(said: list[dict[str, str]]) -> None:
    """It is silent, or says that it tries."""
    over = threading.Event()

    def hang(at: Any) -> None:
        if said:
            raw_line = b'{"status":"pulling manifest"}\n'
            at.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + raw_line)
        over.wait(20)

    with pulling(hang) as (client, callback):
        began = time.monotonic()
        with pytest.raises(Unreachable, match=r"nobody came to 127\.0\.0\.1:[0-9]+ within 1 seconds"):
            reach(client, callback, 1.0)
        assert time.monotonic() - began < 3
        over.set()


def test_a_server_that_says_why_it_did_not_come() -> None:
    words = "pull model manifest: dial tcp: connection refused"
    with (
        pulling(lambda at: stream(at, [{"status": "pulling manifest"}, {"error": words}])) as (
            client,
            callback,
        ),
        pytest.raises(Unreachable, match="dial tcp: connection refused") as caught,
    ):
        reach(client, callback)
    assert "--callback" in caught.value.advice


def test_a_pull_that_went_elsewhere() -> None:
    words = "pull model manifest: file does not exist"
    with (
        pulling(lambda at: stream(at, [{"error": words}])) as (client, callback),
        pytest.raises(Unreachable, match="HTTP_PROXY"),
    ):
        reach(client, callback)


def test_a_pull_that_succeeds_elsewhere() -> None:
    with (
        pulling(lambda at: stream(at, [{"status": "success"}])) as (client, callback),
        pytest.raises(Unreachable, match="went elsewhere"),
    ):
        reach(client, callback)


def test_a_pull_that_is_forbidden() -> None:
    with (
        pulling(lambda at: say(at, 403, {"error": "not for you"})) as (client, callback),
        pytest.raises(Unreachable, match="not for you"),
    ):
        reach(client, callback)


def test_windows_needs_port_80(monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[Callback] = []

    def come(at: Any) -> None:
        (place,) = places
        (model,) = place._here.port.names
        agent = {"User-Agent": "ollama/0.33.0 (amd64 windows) Go/go1.26"}
        ask(url(place), "GET", f"/v2/modelpack/{model}/manifests/latest", headers=agent)
        stream(at, [{"error": "pull model manifest: file does not exist"}])

    with pulling(come) as (client, callback):
        places.append(callback)
        with pytest.raises(Unsupported, match="Windows") as caught:
            reach(client, callback)
        assert ":80" in caught.value.advice
        monkeypatch.setattr(type(callback), "told", "10.0.0.7")
        assert reach(client, callback).system == "windows"


# --- a push


class Push:
    """A push to *callback*, request by request; the blob is read meanwhile in a thread."""

    def __init__(self, callback: Callback, name: Name, received: Received) -> None:
        self.url, self.name, self.received = url(callback), name, received
        self.pool = ThreadPoolExecutor(1)
        self.read = self.pool.submit(self._read)

    def _read(self) -> bytes:
        held = bytearray(len(DATA) + 100)
        return bytes(held[: fill(self.received.reader, memoryview(held))])

    def ask(self, method: str, rest: str, body: bytes = b"", **headers: str) -> Answered:
        more = {key.replace("_", "-"): value for key, value in headers.items()}
        return ask(self.url, method, below(self.name, rest), body, more)

    def begin(self) -> str:
        """The path of a new upload."""
        answer = self.ask("POST", "blobs/uploads/")
        assert answer.status == 202
        place = answer.headers["Location"]
        assert place.startswith(f"{self.url}/v2/")
        return place.removeprefix(self.url)

    def patch(self, place: str, start: int, end: int, data: bytes | None = None) -> int:
        body = DATA[start:end] if data is None else data
        return ask(self.url, "PATCH", place, body, {"Content-Range": f"{start}-{end - 1}"}).status

    def put(self, place: str, digest: object = BLOB.digest, body: bytes = b"") -> int:
        return ask(self.url, "PUT", f"{place}?digest={str(digest).replace(':', '%3A')}&etag=x-1", body).status


@pytest.fixture
def push(callback: Callback) -> Iterator[Push]:
    name = callback.name(Digest.of(b"model"))
    with callback.receive(name, BLOB) as received:
        made = Push(callback, name, received)
        yield made
        received.close()
        made.pool.shutdown()


def test_a_push_in_parts(push: Push) -> None:
    assert push.ask("HEAD", f"blobs/{ZERO}").status == 200
    assert push.ask("HEAD", f"blobs/{BLOB.digest}").status == 404
    place = push.begin()
    for start in range(0, len(DATA), 3000):
        assert push.patch(place, start, min(start + 3000, len(DATA))) == 202
    assert not push.received.came
    assert push.put(place) == 201
    assert push.read.result(5) == DATA
    assert push.ask("HEAD", f"blobs/{BLOB.digest}").status == 200
    assert push.ask("PUT", "manifests/latest", b"{}").status == 201
    assert push.received.manifest(1) == b"{}"


def test_a_push_in_one_put(push: Push) -> None:
    assert push.put(push.begin(), body=DATA) == 201
    assert push.read.result(5) == DATA


def test_a_manifest_alone(callback: Callback) -> None:
    name = callback.name(ZERO)
    with callback.receive(name) as received:
        assert ask(url(callback), "HEAD", below(name, f"blobs/{BLOB.digest}")).status == 200
        assert ask(url(callback), "POST", below(name, "blobs/uploads/")).status == 404
        with pytest.raises(Unreachable, match="no manifest came"):
            received.manifest(0.1)
        assert ask(url(callback), "PUT", below(name, "manifests/other"), b"{}").status == 404
        assert ask(url(callback), "PUT", below(name, "manifests/latest"), b"{}").status == 201
        assert received.manifest(1) == b"{}"


def test_a_manifest_that_is_too_large(callback: Callback) -> None:
    name = callback.name(ZERO)
    with callback.receive(name) as received, raw(url(callback)) as connection:
        path = below(name, "manifests/latest")
        connection.sendall(head("PUT", path, url(callback), Content_Length=str(SMALL + 1)))
        assert rest_of(connection).startswith(b"HTTP/1.1 413 ")
        with pytest.raises(Corrupt, match="4194304"):
            received.manifest(1)


def test_a_part_that_breaks_is_sent_again(push: Push) -> None:
    place = push.begin()
    assert push.patch(place, 0, 1000) == 202
    with raw(push.url) as connection:
        connection.sendall(head("PATCH", place, push.url, Content_Length="5000", Content_Range="1000-5999"))
        connection.sendall(DATA[1000:3000])
        time.sleep(0.1)
    answer = push.ask("GET", place.partition(push.name.model + "/")[2])
    assert (answer.status, answer.headers["Range"]) == (204, "0-2999")
    assert push.patch(place, 1000, 6000) == 202
    assert push.patch(push.begin(), 0, len(DATA)) == 202  # or all of it, from a new upload
    assert push.put(place) == 201
    assert push.read.result(5) == DATA


def test_a_connection_that_nobody_uses_any_more(push: Push) -> None:
    """The part comes again while the old connection still stands, silent."""
    place = push.begin()
    with raw(push.url) as connection:
        connection.sendall(head("PATCH", place, push.url, Content_Length="5000", Content_Range="0-4999"))
        connection.sendall(DATA[:2000])
        time.sleep(0.1)
        assert push.patch(place, 0, len(DATA)) == 202
        assert push.put(place) == 201
        assert push.read.result(5) == DATA


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(DATA)), st.integers(1, 4000), st.integers(0, 4000)), max_size=6))
def test_whatever_breaks_the_bytes_are_right(tries: list[tuple[int, int, int]]) -> None:
    """Parts that begin before what is here, cut anywhere, in one upload or in new ones."""
    with Callback(SERVER) as callback:
        name = callback.name(ZERO)
        with callback.receive(name, BLOB) as received:
            push = Push(callback, name, received)
            place = push.begin()
            for back, length, sent in tries:
                start = max(0, received._taken - back)
                end = min(start + length, len(DATA))
                if start == end:
                    continue
                text = f"{start}-{end - 1}"
                with raw(push.url) as connection:
                    headers = {"Content_Length": str(end - start), "Content_Range": text}
                    connection.sendall(head("PATCH", place, push.url, **headers) + DATA[start:end][:sent])
                    connection.shutdown(socket.SHUT_WR)
                    rest_of(connection)
            assert push.patch(place, received._taken // 2, len(DATA)) == 202
            assert push.put(place) == 201
            assert push.read.result(5) == DATA
            push.pool.shutdown()


def refused(push: Push, status: int, kind: type[ModelpackError], words: str, got: int) -> None:
    assert got == status
    with pytest.raises(kind, match=words):
        push.read.result(5)


def test_parts_out_of_order(push: Push) -> None:
    refused(push, 416, Corrupt, "goes on at byte 10, after 0", push.patch(push.begin(), 10, 20))


def test_more_than_the_blob_has(push: Push) -> None:
    got = push.patch(push.begin(), 0, len(DATA) + 1, DATA + b"x")
    refused(push, 400, Corrupt, f"up to {len(DATA) + 1} of a blob that has {len(DATA)}", got)


def test_less_than_the_blob_has(push: Push) -> None:
    place = push.begin()
    assert push.patch(place, 0, 500) == 202
    refused(push, 400, Corrupt, f"has 500 of the {len(DATA)} bytes", push.put(place))


def test_another_digest(push: Push) -> None:
    place = push.begin()
    assert push.patch(place, 0, len(DATA)) == 202
    refused(push, 400, Corrupt, "calls it", push.put(place, ZERO))


def test_a_length_that_lies(push: Push) -> None:
    refused(push, 400, Corrupt, "and calls them", push.patch(push.begin(), 0, 100, DATA[:50]))


def test_a_body_of_no_length(push: Push) -> None:
    with raw(push.url) as connection:
        connection.sendall(head("PATCH", push.begin(), push.url, Transfer_Encoding="chunked"))
        assert rest_of(connection).startswith(b"HTTP/1.1 411 ")


def test_uploads_have_a_bound(push: Push) -> None:
    said = {push.ask("POST", "blobs/uploads/").status for _ in range(70)}
    assert said == {202, 404}


def test_a_server_that_sends_nothing(push: Push, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callback_push, "PATIENCE", 0.5)
    with pytest.raises(Unreachable, match="nothing came for 0 seconds, after 0 of"):
        push.read.result(5)


def test_a_server_that_stops_sending(push: Push, monkeypatch: pytest.MonkeyPatch) -> None:
    place = push.begin()
    with raw(push.url) as connection:
        connection.sendall(head("PATCH", place, push.url, Content_Length="5000", Content_Range="0-4999"))
        connection.sendall(DATA[:2000])
        monkeypatch.setattr(callback_push, "PATIENCE", 0.5)
        with pytest.raises(Unreachable, match="after 2000 of"):
            push.read.result(5)


def test_what_the_server_says_ends_the_reading(push: Push) -> None:
    place = push.begin()
    with raw(push.url) as connection:
        connection.sendall(head("PATCH", place, push.url, Content_Length="5000", Content_Range="0-4999"))
        connection.sendall(DATA[:2000])
        time.sleep(0.1)
        push.received.fail(Unreachable("the push ended"))
        with pytest.raises(Unreachable, match="the push ended"):
            push.read.result(5)
        assert rest_of(connection) == b""


def test_a_call_that_is_broken_off(callback: Callback) -> None:
    with callback.receive(callback.name(ZERO), BLOB) as received:
        call = Call()
        threading.Timer(0.2, call.close).start()
        with under(call), pytest.raises(Unreachable, match="broken off"):
            received.reader.readinto(memoryview(bytearray(10)))


def test_an_end_in_the_middle_hangs_up(callback: Callback) -> None:
    name = callback.name(ZERO)
    with contextlib.ExitStack() as stack:
        with callback.receive(name, BLOB) as received:
            place = ask(url(callback), "POST", below(name, "blobs/uploads/")).headers["Location"]
            path = place.removeprefix(url(callback))
            connection = stack.enter_context(raw(url(callback)))
            connection.sendall(
                head("PATCH", path, url(callback), Content_Length="5000", Content_Range="0-4999")
            )
            connection.sendall(DATA[:100])
            assert received.reader.readinto(memoryview(bytearray(100))) == 100
        assert rest_of(connection) == b""
        assert ask(url(callback), "PATCH", path, DATA).status == 404
        with pytest.raises(Unreachable):
            received.reader.readinto(memoryview(bytearray(100)))


# --- several small registries at one port


def test_one_fixed_port_serves_several() -> None:
    """As a copy from server to server behind NAT needs it: whoever leaves first does not close it."""
    place = f"127.0.0.1:{free_port()}"
    one, other = (Callback(server, Calling(place, place)) for server in (SERVER, "http://127.0.0.1:9"))
    with one:
        first = one.name(ZERO)
        with other, one.knock(first) as knock, other.offer(other.name(ZERO), b"{}") as offered:
            (second,) = other._here.port.names.keys() - {first.model}
            assert ask(url(one), "GET", f"/v2/modelpack/{second}/manifests/latest").body == b"{}"
            assert ask(url(other), "GET", below(first, "manifests/latest")).status == 404
            assert (offered.served, knock.caller is not None) == (1, True)
        assert ask(url(one), "GET", "/v2/").status == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(place.rpartition(":")[2])), timeout=5)


def test_a_small_registry_is_entered_again() -> None:
    """It listens until it was left as often."""
    made = Callback(SERVER)
    with made:
        told = made.told
        with made:
            assert made.told == told
        assert ask(url(made), "GET", "/v2/").status == 200


def test_a_proxy_there_that_refuses() -> None:
    words = "Get http://10.0.0.7: proxyconnect tcp: connection refused"
    with (
        pulling(lambda at: stream(at, [{"error": words}])) as (client, callback),
        pytest.raises(Unreachable) as caught,
    ):
        reach(client, callback)
    assert "NO_PROXY" in caught.value.advice
