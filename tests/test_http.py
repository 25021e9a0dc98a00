"""HTTP against real sockets: bounds, redirects, tokens, proxies, time limits, and broken connections."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
from servers import answering, head_of, ok, status, talking

from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unreachable, Usage
from modelpack.hands.http import Http
from modelpack.hands.wire import Upload, is_loopback, proxies_for
from modelpack.words.blob import MIB
from modelpack.words.reader import BytesReader


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_json_comes_back() -> None:
    """An object in, an object out."""
    with talking(answering(ok(b'{"a": 1}'))) as base:
        assert Http(base).ask("POST", "/x", data={"b": 2}).json() == {"a": 1}


def test_headers_that_are_sent() -> None:
    """Ours go out, no compression is asked for, and netrc stays unread."""
    heads = []

    def talk(connection: socket.socket) -> None:
        heads.append(head_of(connection).decode().lower())
        connection.sendall(ok(b"{}"))

    with talking(talk) as base:
        Http(base, headers={"Authorization": "Bearer s3cret"}).ask("GET", "/x").json()
    assert "authorization: bearer s3cret" in heads[0]
    assert "accept-encoding: identity" in heads[0]
    assert "user-agent: modelpack/" in heads[0]


def test_netrc_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password for the host in ~/.netrc is not sent."""
    (tmp_path / "netrc").write_text("default login u password p\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    heads = []

    def talk(connection: socket.socket) -> None:
        heads.append(head_of(connection).lower())
        connection.sendall(ok(b"{}"))

    with talking(talk) as base:
        Http(base).ask("GET", "/x").json()
    assert b"authorization" not in heads[0]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_named(code: int) -> None:
    """Nothing is asked of the place it points to, so no token arrives there."""
    reached = threading.Event()

    def elsewhere(connection: socket.socket) -> None:
        if head_of(connection):
            reached.set()

    with talking(elsewhere) as other:
        body = b"x" * 100_000
        with talking(answering(status(code, body, more=f"Location: {other}/stolen\r\n"))) as base:
            http = Http(base, headers={"Authorization": "Bearer s3cret"})
            with pytest.raises(Refused, match="/stolen") as caught:
                http.ask("GET", "/x")
        assert caught.value.status == code
        assert not reached.is_set()


def test_a_refusal_has_the_servers_words() -> None:
    """A JSON body's `error` is what is passed on."""
    with (
        talking(answering(status(400, b'{"error": "digest mismatch"}'))) as base,
        pytest.raises(Refused) as caught,
    ):
        Http(base).ask("GET", "/x")
    assert caught.value.words == "digest mismatch"
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("code", "kind", "body", "said"),
    [
        (413, "text/html", b"<html>413 Request Entity Too Large</html>", "client_max_body_size"),
        (404, "text/html", b"<html>nothing here</html>", "not Ollama"),
        (401, "text/plain", b"", "OLLAMA_API_KEY"),
        (403, "application/json", b"", "Origin"),
        (502, "text/html", b"<html>bad gateway</html>", "behind it"),
        (500, "application/json", b'{"error": {"message": "no space left"}}', "no space left"),
        (500, "text/plain", b"boom", "boom"),
        (500, "application/json", b"[" * 70_000, "answered 500"),
    ],
)
def test_refusals_that_need_advice(code: int, kind: str, body: bytes, said: str) -> None:
    """Each says what to do about it."""
    with talking(answering(status(code, body, kind))) as base, pytest.raises(Refused) as caught:
        Http(base).ask("GET", "/x")
    assert said in str(caught.value)
    assert caught.value.status == code
    assert len(str(caught.value)) < 1500


def test_an_endless_error_is_cut() -> None:
    """Only the front of an error's body is read."""

    def talk(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(b"HTTP/1.1 500 X\r\nContent-Length: 999999999999\r\n\r\n")
        while True:
            connection.sendall(b"a" * 65536)

    with talking(talk) as base, pytest.raises(Refused) as caught:
        Http(base).ask("GET", "/x")
    assert len(caught.value.words) <= 500


def test_a_large_answer_is_bounded() -> None:
    """More than the limit is Corrupt, before it is all in memory."""
    with talking(answering(ok(b"{" + b" " * 5000 + b"}"))) as base, pytest.raises(Corrupt, match="larger"):
        Http(base).ask("GET", "/x").json(limit=1000)


def test_gzip_that_was_not_asked_for() -> None:
    """A compressed answer is refused: nobody asked for it, and it may hold any size."""
    with (
        talking(answering(ok(b"\x1f\x8b", more="Content-Encoding: gzip\r\n"))) as base,
        pytest.raises(Refused, match="gzip"),
    ):
        Http(base).ask("GET", "/x")


def test_not_json() -> None:
    """A page where JSON should be is not Ollama's API."""
    with talking(answering(ok(b"<html>", "text/html"))) as base, pytest.raises(Refused, match="not JSON"):
        Http(base).ask("GET", "/x").json()


def test_nobody_listens() -> None:
    """Unreachable names the host and says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unreachable, match="connection refused") as caught:
        Http(f"http://127.0.0.1:{port}", nobody="Is it running?").ask("GET", "/x")
    assert f"127.0.0.1:{port}" in caught.value.where
    assert caught.value.advice == "Is it running?"


def test_no_answer_in_time() -> None:
    """A silent server is given up after the time limit, unless the request is patient."""

    def talk(connection: socket.socket) -> None:
        head_of(connection)
        time.sleep(0.6)
        connection.sendall(ok(b"{}"))

    with talking(talk, times=2) as base:
        http = Http(base, timeout=0.2)
        with pytest.raises(Unreachable, match="no answer in time"):
            http.ask("GET", "/x")
        assert http.ask("GET", "/x", patient=True).json() == {}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{}",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    ],
)
def test_an_answer_that_breaks_off(answer: bytes) -> None:
    """No answer, half of one, and no HTTP at all are Unreachable."""
    with talking(answering(answer)) as base, pytest.raises(Unreachable):
        Http(base).ask("GET", "/x").json()


def test_lines_come_one_by_one() -> None:
    """A line is given as soon as it is there, however it was cut; an end without a newline counts."""
    go_on = threading.Event()

    def talk(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b'5\r\n{"n":\r\n5\r\n 1}\n\n\r\n')
        go_on.wait(10)
        connection.sendall(b'8\r\n{"n": 2}\r\n0\r\n\r\n')

    with talking(talk) as base:
        lines = Http(base).ask("GET", "/x", patient=True).lines()
        assert next(lines) == {"n": 1}
        go_on.set()
        assert list(lines) == [{"n": 2}]


def test_a_giant_line_is_refused() -> None:
    """A line without an end is given up at the limit."""

    def talk(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"a" * 65536)

    with talking(talk) as base, pytest.raises(Refused, match="line of more than"):
        list(Http(base).ask("GET", "/x").lines())


def test_a_connection_is_used_again() -> None:
    """Three requests, among them a HEAD, go over one connection."""
    connections = []

    def talk(connection: socket.socket) -> None:
        connections.append(connection)
        while head := head_of(connection):
            body = b"" if head.startswith(b"HEAD") else b"{}"
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + body)

    with talking(talk, times=3) as base:
        http = Http(base)
        http.ask("GET", "/x").json()
        http.ask("HEAD", "/x").read()
        http.ask("GET", "/x").json()
        http.close()
    assert len(connections) == 1


def test_headers_that_cannot_be_sent() -> None:
    """A token with a line break is a usage error that does not show the token."""
    with pytest.raises(Usage) as caught:
        Http("http://127.0.0.1:1", headers={"Authorization": "Bearer a\r\nX: b"})
    assert "Bearer" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("\xc9", "x"), ("X-Bad\r\nEvil", "x"), ("", "x"), ("X Y", "x"), ("X", " x"), ("X", "x ")],
)
def test_headers_that_are_none(name: str, value: str) -> None:
    """Said of the header when the client is made, not of the address when it asks."""
    with pytest.raises(Usage, match="header"):
        Http("http://127.0.0.1:1", headers={name: value})


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_has_not(number: float) -> None:
    """An error of ours, and nothing is sent."""
    with pytest.raises(Usage, match="NaN"):
        Http("http://127.0.0.1:1").ask("POST", "/x", data={"temperature": number})


@pytest.mark.parametrize(
    "nest", [b'{"a":' + b"[" * 900 + b"]" * 900 + b"}", b'{"a":' * 900 + b"1" + b"}" * 900]
)
def test_an_answer_without_a_bottom(nest: bytes) -> None:
    """Refused before anything walks through it; as deep as real ones and deeper is fine."""
    with talking(answering(ok(nest))) as base, pytest.raises(Refused, match="not JSON"):
        Http(base).ask("GET", "/x").json()
    with talking(answering(ok(b'{"a":' * 90 + b"1" + b"}" * 90))) as base:
        assert Http(base).ask("GET", "/x").json()


def test_a_missing_file_of_certificates() -> None:
    """It is looked for only where TLS is spoken."""
    with pytest.raises(NotFound):
        Http("https://127.0.0.1:1", ca="/nowhere/ca.pem")
    Http("http://127.0.0.1:1", ca="/nowhere/ca.pem")


def test_tls_with_a_plain_server() -> None:
    """TLS that fails is Unreachable, with a word about certificates and http://."""

    def talk(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(status(400))

    with talking(talk) as base, pytest.raises(Unreachable, match="TLS"):
        Http(base.replace("http:", "https:")).ask("GET", "/x")


@pytest.mark.parametrize(
    "base", ["http://[a:b:c]:1", "http://a b:1", "http://exa\u2028mple:1", "http://*.x:1"]
)
def test_an_address_that_is_none(base: str) -> None:
    """What cannot be asked is an error of ours, whatever kind."""
    with pytest.raises((Usage, Unreachable)):
        Http(base).ask("GET", "/x")


def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are honoured, NO_PROXY too, and never asked for this machine."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    assert proxies_for("http://far.example:11434")["http"] == "http://127.0.0.1:9"
    assert "http" not in proxies_for("http://inside.example:11434")
    for host in ("127.0.0.1", "localhost", "[::1]", "127.1.2.3", "a.localhost"):
        assert proxies_for(f"http://{host}:11434") == {}
    assert not is_loopback("example.com")


def test_a_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request for another host goes to the proxy, with the large pieces and keepalive of any other."""
    heads = []

    def talk(connection: socket.socket) -> None:
        heads.append(head_of(connection))
        connection.sendall(ok(b'{"via": 1}'))

    with talking(talk) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        assert Http("http://far.example:11434").ask("GET", "/x").json() == {"via": 1}
    assert heads[0].startswith(b"GET http://far.example:11434/x ")


class Seen:
    """What an upload reports."""

    def __init__(self) -> None:
        self.moved = 0
        self.sent = 0

    def upload(self, data: bytes, size: int | None = None) -> Upload:
        def moved(count: int) -> None:
            self.moved += count

        def sent() -> None:
            self.sent += 1

        return Upload(BytesReader(data), len(data) if size is None else size, "x", moved=moved, sent=sent)


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB])
def test_an_upload_arrives(size: int) -> None:
    """With its length in front, in pieces, reported as they leave."""
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    got = bytearray()
    heads = []

    def talk(connection: socket.socket) -> None:
        heads.append(head_of(connection).lower())
        while len(got) < size:
            got.extend(connection.recv(65536))
        connection.sendall(status(201))

    seen = Seen()
    with talking(talk) as base:
        answer = Http(base).ask("POST", "/x", body=seen.upload(data), patient=True)
        answer.read()
    assert answer.status == 201
    assert bytes(got) == data
    assert b"content-length: %d\r\n" % size in heads[0]
    assert b"transfer-encoding" not in heads[0]
    assert (seen.moved, seen.sent) == (size, 1)


@pytest.mark.parametrize("size", [0, 5, 9, 10 + MIB])
def test_an_upload_of_another_length(size: int) -> None:
    """A reader that ends before or goes on after is Corrupt, and the server never has the whole."""
    got = bytearray()

    def talk(connection: socket.socket) -> None:
        head_of(connection)
        while piece := connection.recv(65536):
            got.extend(piece)

    data = b"x" * 8 if size < MIB else b"x" * MIB
    with talking(talk) as base, pytest.raises(Corrupt, match=r"ends after|goes on after"):
        Http(base).ask("POST", "/x", body=Seen().upload(data, size), patient=True)
    assert len(got) < max(size, 1)


class Broken:
    """A reader that fails after one piece."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.given = False

    def readinto(self, into: memoryview, /) -> int:
        if self.given:
            raise self.error
        self.given = True
        into[:10] = b"x" * 10
        return 10


class Odd(Exception):
    """An error of the caller's own."""


@pytest.mark.parametrize(
    "error",
    [
        Corrupt("cut"),
        OSError(5, "I/O error"),
        BrokenPipeError(32, "x"),
        ConnectionResetError(104, "x"),
        Odd("y"),
    ],
)
def test_the_readers_own_error_comes_through(error: Exception) -> None:
    """Neither swallowed nor taken for an error of the connection, whatever its type."""
    with talking(answering(status(201))) as base, pytest.raises(type(error)) as caught:
        Http(base).ask("POST", "/x", body=Upload(Broken(error), 100), patient=True)
    assert caught.value is error


def test_a_server_that_goes_in_mid_upload() -> None:
    """It hangs up after some bytes: Unreachable."""

    def talk(connection: socket.socket) -> None:
        head_of(connection)
        connection.recv(100_000)

    data = bytes(32 * MIB)
    with talking(talk) as base, pytest.raises(Unreachable):
        Http(base).ask("POST", "/x", body=Seen().upload(data), patient=True)


def test_an_answer_before_the_body_is_read() -> None:
    """A server that answers at once and hangs up is heard, or its broken pipe is Unreachable."""
    data = bytes(32 * MIB)
    with talking(answering(status(413, b"too large", "text/plain"), read_body=False)) as base:
        with pytest.raises(ModelpackError) as caught:
            Http(base).ask("POST", "/x", body=Seen().upload(data), patient=True)
        assert isinstance(caught.value, (Refused, Unreachable))


def test_a_slow_server_is_waited_for() -> None:
    """It does not read for longer than a connection may take to open: no time limit strikes."""

    def talk(connection: socket.socket) -> None:
        head_of(connection)
        time.sleep(0.8)
        left = 16 * MIB
        while left:
            left -= len(connection.recv(MIB))
        connection.sendall(status(201))

    with talking(talk) as base:
        http = Http(base, connect_timeout=0.3, timeout=0.3)
        with http.ask("POST", "/x", body=Seen().upload(bytes(16 * MIB)), patient=True) as answer:
            assert answer.status == 201


def test_keepalive_is_set() -> None:
    """A host that dies while it is waited for is noticed by the kernel."""
    with talking(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")) as base:
        http = Http(base)
        answer = http.ask("GET", "/x")
        sock = answer._response.raw._connection.sock  # what only the socket itself can tell
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
        answer.close()
