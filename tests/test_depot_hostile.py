"""Whoever talks to a depot may mean harm, be cut off, be slow, or stand behind a browser."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from depots import MIB, Own, ask, digest_of, files_below, head, make, own_depot, put, raw, rest_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpack.depot import bodies, wire
from modelpack.depot.app import Depot
from modelpack.depot.serve import running
from modelpack.depot.workers import WRITERS

MOST = 120 * MIB
GIB = 1024 * MIB
ABSENT = "sha256:" + "0" * 64
NO_MEMORY_FIGURES = not Path("/proc/self/status").exists()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def url(path: Path) -> Iterator[str]:
    with running(Depot(path, writable=True)) as url:
        yield url


# --- memory


def _send_zeros(connection: socket.socket, count: int) -> None:
    piece = bytes(MIB)
    try:
        for _ in range(count // MIB):
            connection.sendall(piece)
    except ConnectionError:
        pass  # the depot has heard enough


def _is_alive(own: Own) -> bool:
    return ask(own.url, "GET", "/api/version").status == 200


@pytest.mark.skipif(NO_MEMORY_FIGURES, reason="memory is read from /proc")
def test_a_gibibyte_that_is_refused_takes_no_memory(path: Path) -> None:
    """Read-only, unknown routes, JSON where there is too much of it, with and without chunks."""
    with own_depot(path, writable=False) as own:
        for target in (f"/api/blobs/{ABSENT}", "/api/show", "/api/nothing"):
            with raw(own.url) as connection:
                connection.sendall(head("POST", target, own.url, Content_Length=str(GIB)))
                _send_zeros(connection, GIB)
                assert rest_of(connection).split(b" ")[1] in (b"403", b"413", b"404")
        with raw(own.url) as connection:
            connection.sendall(head("POST", "/api/show", own.url, Transfer_Encoding="chunked"))
            connection.sendall(b"%x\r\n" % GIB)
            _send_zeros(connection, GIB)
            assert rest_of(connection).startswith(b"HTTP/1.1 413")
        assert _is_alive(own)
        assert own.peak() < MOST


@pytest.mark.skipif(NO_MEMORY_FIGURES, reason="memory is read from /proc")
def test_a_chunk_of_a_gibibyte_is_taken_in_pieces(path: Path) -> None:
    with own_depot(path) as own:
        # In upper case no bytes have this digest: they are hashed, and nothing is written.
        for target, size in ((f"/api/blobs/{ABSENT}", 256 * MIB), ("/api/blobs/sha256:" + "A" * 64, GIB)):
            with raw(own.url) as connection:
                connection.sendall(head("POST", target, own.url, Transfer_Encoding="chunked"))
                connection.sendall(b"%x\r\n" % size)
                _send_zeros(connection, size)
                connection.sendall(b"\r\n0\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                answer = rest_of(connection)
                assert answer.startswith(b"HTTP/1.1 400")
                assert b"digest mismatch" in answer
        assert own.peak() < MOST
    assert files_below(path) == set()


@pytest.mark.skipif(NO_MEMORY_FIGURES, reason="memory is read from /proc")
def test_many_uploads_at_once_stay_within_memory(path: Path) -> None:
    with own_depot(path) as own:
        connections = [socket.create_connection(("127.0.0.1", int(own.url[17:]))) for _ in range(WRITERS)]
        for connection in connections:
            connection.sendall(head("POST", f"/api/blobs/{ABSENT}", own.url, Content_Length=str(8 * MIB)))
        for _ in range(7):
            for connection in connections:
                connection.sendall(bytes(MIB))
        assert own.peak() < MOST
        for connection in connections:
            connection.close()
        _wait_until(lambda: not files_below(path))


@pytest.mark.skipif(NO_MEMORY_FIGURES, reason="memory is read from /proc")
@pytest.mark.parametrize(
    "filling",
    ["\U0001f4e6", "a\U0001f4e6" + "b" * 100, '","', '","ab', '",1.5,"'],
    ids=["📦", "mixed", "empty", "short", "numbers"],
)
def test_large_requests_at_once_stay_within_memory(path: Path, filling: str) -> None:
    """As text and as values they take several times their size, and there are several."""
    piece = filling.encode()
    body = b'{"model":"m","files":{},"x":["' + piece * (5_000_000 // len(piece)) + b'"]}'
    with own_depot(path) as own:
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda: answers.append(ask(own.url, "POST", "/api/create", body).status))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(answers) <= {400, 503}
        assert own.peak() < MOST


def _wait_until(holds: object, seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b'{"model": "m", "parameters": {"stop": ' + b"[" * 490 + b"]" * 490 + b"}}",
        b"[" + b"{}," * 500_000 + b"{}]",
        b'{"a": 1e999999}',
        b"\xff\xfe{}",
    ],
    ids=["deep", "deep objects", "deeper than our stack", "many objects", "huge number", "not UTF-8"],
)
def test_json_that_is_made_to_hurt_is_refused(url: str, body: bytes) -> None:
    for target in ("/api/create", "/api/show", "/api/copy"):
        assert ask(url, "POST", target, body).status == 400


def test_parameters_nested_to_no_end_are_refused_before_any_work(url: str, path: Path) -> None:
    for depth, status in ((60, 200), (490, 400)):
        nested = json.loads("[" * depth + "]" * depth)
        answer = make(
            url, "m", parameters={"deep": nested}, messages=[{"role": "user", "tool_calls": nested}]
        )
        assert answer.status == status, answer.body
    assert "nested" in answer.error


# --- cut off, slow, killed


def test_a_body_that_is_cut_leaves_nothing(url: str, path: Path) -> None:
    data = os.urandom(3 * MIB)
    target = f"/api/blobs/{digest_of(data)}"
    for half_close in (True, False):
        with raw(url) as connection:
            connection.sendall(head("POST", target, url, Content_Length=str(len(data))) + data[:-1])
            if half_close:
                connection.shutdown(socket.SHUT_WR)
                assert b"unexpected EOF" in rest_of(connection)
    with raw(url) as connection:
        chunk = b"%x\r\n" % len(data) + data
        connection.sendall(head("POST", target, url, Transfer_Encoding="chunked") + chunk)
    _wait_until(lambda: not files_below(path))
    assert ask(url, "HEAD", target).status == 404
    assert put(url, data) == digest_of(data)


@pytest.mark.parametrize(
    "chunks",
    [b"xyz\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n", b"5" * 5000,
     b"0x5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffffffff\r\n", b"5\nhello\n0\n\n", b"\r\n",
     b"0\r\n" + b"a: b\r\n" * 100],
)  # fmt: skip
def test_malformed_chunks_are_refused(url: str, path: Path, chunks: bytes) -> None:
    with raw(url) as connection:
        connection.sendall(head("POST", f"/api/blobs/{ABSENT}", url, Transfer_Encoding="chunked") + chunks)
        connection.shutdown(socket.SHUT_WR)
        assert rest_of(connection).startswith(b"HTTP/1.1 400")
    assert files_below(path) == set()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=2000), cuts=st.lists(st.integers(1, 400), max_size=8), ending=st.booleans())
def test_chunks_of_any_sizes_come_to_the_same_bytes(
    url: str, data: bytes, cuts: list[int], ending: bool
) -> None:
    pieces, rest = [], data
    for cut in cuts:
        pieces, rest = [*pieces, rest[:cut]], rest[cut:]
    sent = b"".join(b"%x;x=y\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, rest] if piece)
    sent += b"0\r\n" + (b"Trailer: x\r\n" if ending else b"") + b"\r\n"
    named = "sha256:" + "A" * 64
    with raw(url) as connection:
        connection.sendall(head("POST", f"/api/blobs/{named}", url, Transfer_Encoding="chunked") + sent)
        connection.shutdown(socket.SHUT_WR)
        assert digest_of(data).encode() in rest_of(connection)


def test_slow_clients_hold_up_nobody_and_are_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SILENCE_SECONDS", 1)
    monkeypatch.setattr(wire, "HEADER_SECONDS", 1.5)
    with running(Depot(path, writable=True)) as url:
        slow = [socket.create_connection(("127.0.0.1", int(url[17:]))) for _ in range(64 - 4)]
        for number, connection in enumerate(slow):
            upload = head("POST", f"/api/blobs/{ABSENT}", url, Content_Length="1000")
            connection.sendall((upload + b"some", b"GET / HTTP/1.1\r\n", b"G", upload[:30])[number % 4])
        started = time.monotonic()
        assert ask(url, "GET", "/api/version").status == 200
        assert time.monotonic() - started < 1
        for connection in slow:
            connection.settimeout(10)
            rest_of(connection)
            connection.close()
        assert time.monotonic() - started < 8
        # A byte now and then is no excuse: headers have to come within a time.
        with raw(url) as connection:
            started = time.monotonic()
            try:
                for byte in head("GET", "/", url) * 100:
                    connection.sendall(bytes([byte]))
                    time.sleep(0.1)
            except ConnectionError:
                pass
            assert time.monotonic() - started < 5
    assert files_below(path) == set()


def test_a_body_that_only_trickles_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "GRACE_SECONDS", 0.5)
    with running(Depot(path, writable=True)) as url, raw(url) as connection:
        connection.sendall(head("POST", f"/api/blobs/{ABSENT}", url, Content_Length="100000"))
        started = time.monotonic()
        try:
            while time.monotonic() - started < 5:
                connection.sendall(b"x")
                time.sleep(0.05)
        except ConnectionError:
            pass
        assert time.monotonic() - started < 4


def test_kill_9_in_mid_upload_leaves_nothing_that_looks_like_a_blob(path: Path) -> None:
    data = os.urandom(8 * MIB)
    target = f"/api/blobs/{digest_of(data)}"
    with own_depot(path) as own, raw(own.url) as connection:
        connection.sendall(head("POST", target, own.url, Content_Length=str(len(data))) + data[:-MIB])
        _wait_until(lambda: (path / ".modelpack").is_dir() and any((path / ".modelpack").iterdir()))
        own.process.kill()
        own.process.wait()
    left = files_below(path)
    assert left
    assert all(each.startswith(".modelpack/modelpack-") for each in left)
    for each in left:  # the next one sweeps, after a few seconds
        os.utime(path / each, (1, 1))
    with running(Depot(path, writable=True)) as url:
        assert files_below(path) == set()
        assert put(url, data) == digest_of(data)
    assert files_below(path) == {f"blobs/{digest_of(data).replace(':', '-')}"}


def test_sigterm_in_mid_upload_ends_it_soon_and_leaves_nothing(path: Path) -> None:
    with own_depot(path) as own, raw(own.url) as connection:
        connection.sendall(
            head("POST", f"/api/blobs/{ABSENT}", own.url, Content_Length="5000000") + bytes(MIB)
        )
        _wait_until(lambda: bool(files_below(path)))
        started = time.monotonic()
        own.process.terminate()
        assert own.process.wait(timeout=20) == 0
        assert time.monotonic() - started < 10
    assert files_below(path) == set()


# --- refused before the first byte


def test_what_has_no_room_is_refused_before_the_first_byte(url: str, path: Path) -> None:
    much = shutil.disk_usage(path.parent).total + 5 * 1000**3
    with raw(url) as connection:
        sent = head("POST", f"/api/blobs/{ABSENT}", url, Content_Length=str(much), Expect="100-continue")
        connection.sendall(sent)
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 507 ")
        assert b"are free" in answer + rest_of(connection)
    assert files_below(path) == set()


def test_expect_is_answered_once_the_body_is_wanted(url: str) -> None:
    data = b"some bytes"
    with raw(url) as connection:
        sent = head("POST", f"/api/blobs/{digest_of(data)}", url, Content_Length="10", Expect="100-continue")
        connection.sendall(sent)
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(data)
        assert connection.recv(65536).startswith(b"HTTP/1.1 201 ")


def test_a_connection_is_used_again_where_its_body_was_read(url: str) -> None:
    with raw(url) as connection:
        for _ in range(3):
            connection.sendall(head("POST", "/api/show", url, Content_Length="2") + b"{}")
            answer = b""
            while b"model is required" not in answer:
                answer += connection.recv(65536)
            assert b"Connection: close" not in answer
        connection.sendall(head("POST", "/api/nothing", url, Content_Length="2") + b"{}")
        answer = rest_of(connection)
        assert b"Connection: close" in answer


def test_read_only_means_read_only(path: Path) -> None:
    with running(Depot(path, writable=True)) as url:
        make(url, "m")
    before = files_below(path)
    data = b"new"
    with running(Depot(path)) as url:
        for method, target, body in (
            ("POST", f"/api/blobs/{digest_of(data)}", data),
            ("POST", "/api/create", b'{"model":"x","from":"m"}'),
            ("POST", "/api/copy", b'{"source":"m","destination":"x"}'),
            ("DELETE", "/api/delete", b'{"model":"m"}'),
        ):
            answer = ask(url, method, target, body)
            assert (answer.status, "read-only" in answer.error) == (403, True)
        assert ask(url, "POST", "/api/show", {"model": "m"}).status == 200
    assert files_below(path) == before


# --- who asks


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:80", 200), ("127.0.0.1:1", 200), ("127.9.9.9", 200),
        ("[::1]:11434", 200), ("a.localhost", 200), ("evil.example", 403), ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.168.0.1", 403), ("0.0.0.0", 403), ("[::ffff:10.0.0.1]", 403), ("", 400), ("a b", 400),
        ("localhost@evil.example", 400), ("evil.example:80:80", 400), ("127.1", 403), ("2130706433", 403),
    ],
)  # fmt: skip
def test_only_its_own_names_are_answered(url: str, host: str, status: int) -> None:
    assert ask(url, "GET", "/api/tags", headers={"Host": host}).status == status


def test_a_missing_or_second_host_is_refused(url: str) -> None:
    for lines in (b"", b"Host: localhost\r\nHost: evil.example\r\n", b"Host: localhost\r\n evil.example\r\n"):
        with raw(url) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n" + lines + b"Connection: close\r\n\r\n")
            assert rest_of(connection).startswith(b"HTTP/1.1 400")


def test_other_names_have_to_be_allowed(path: Path) -> None:
    with running(Depot(path, hosts=["depot.lan", "192.0.2.7"])) as url:
        for host, status in (
            ("depot.lan:80", 200),
            ("DEPOT.LAN", 200),
            ("192.0.2.7", 200),
            ("192.0.2.8", 403),
        ):
            assert ask(url, "GET", "/", headers={"Host": host}).status == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200), ("https://127.0.0.1", 200), ("http://[::1]:8080", 200),
        ("https://evil.example", 403), ("null", 403), ("http://localhost.evil.example", 403),
        ("file://", 403),
        ("http://evil.example@localhost:1.evil.example", 403), ("http://[", 403), ("", 403),
    ],
)  # fmt: skip
def test_pages_from_elsewhere_are_not_answered(url: str, path: Path, origin: str, status: int) -> None:
    assert ask(url, "GET", "/api/tags", headers={"Origin": origin}).status == status
    data = b"planted"
    answer = ask(url, "POST", f"/api/blobs/{digest_of(data)}", data, headers={"Origin": origin})
    assert answer.status == (201 if status == 200 else 403)
    assert bool(files_below(path)) is (status == 200)


def test_the_token_guards_everything(path: Path) -> None:
    token = "0123456789abcdef0123"
    with running(Depot(path, writable=True, token=token)) as url:
        for method, target in (
            ("GET", "/"),
            ("GET", "/api/version"),
            ("GET", "/x"),
            ("POST", f"/api/blobs/{ABSENT}"),
        ):
            for given_ in (
                "",
                f"Bearer {token}x",
                f"Basic {token}",
                token,
                f"Bearer {token[:-1]}",
                "Bearer",
                "Bearer \xff",
            ):
                answer = ask(url, method, target, headers={"Authorization": given_})
                assert (answer.status, answer.headers.get("WWW-Authenticate")) == (401, "Bearer")
                assert token.encode() not in answer.body
        for scheme in ("Bearer", "bearer"):
            right = {"Authorization": f"{scheme} {token}"}
            assert ask(url, "GET", "/api/version", headers=right).status == 200
        # An address cannot be rebound; a name can.
        assert ask(url, "GET", "/", headers={**right, "Host": "192.0.2.7:80"}).status == 200
        assert ask(url, "GET", "/", headers={**right, "Host": "evil.example"}).status == 403


# --- paths, headers


@pytest.mark.parametrize(
    "digest",
    [
        "..", "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fmanifests",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65, "sha256:" + "g" * 64, "md5:" + "0" * 64, "sha256-" + "0" * 60 + "/../x",
        "sha256:" + "0" * 64 + "%00", "sha256:" + "0" * 64 + "%0a", "blake3:" + "0" * 64,
        "sha256:" + "%EF%BC%90" * 64,
        "sha256-partial", ".modelpack", "%ff%fe",
    ],
)  # fmt: skip
def test_only_digests_name_blobs(url: str, path: Path, digest: str) -> None:
    make(url, "m")
    before = files_below(path)
    for method in ("HEAD", "POST"):
        assert ask(url, method, f"/api/blobs/{digest}", b"x").status in (400, 404)
    assert files_below(path) == before


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "..", ".", "a/b/c/d/e", "a\0b", "-", "a:b:c", "é", " ", "a" * 500]
)
def test_only_names_name_models(url: str, path: Path, name: str) -> None:
    make(url, "m")
    before = files_below(path)
    for target, asked in (
        ("/api/create", {"model": name, "from": "m"}),
        ("/api/create", {"model": "x", "from": name}),
        ("/api/copy", {"source": "m", "destination": name}),
        ("/api/copy", {"source": name, "destination": "x"}),
        ("/api/show", {"model": name}),
    ):
        assert ask(url, "POST", target, asked).status == 400
    assert ask(url, "DELETE", "/api/delete", {"model": name}).status == 400
    assert files_below(path) == before


@pytest.mark.skipif(os.name == "nt", reason="links there need rights")
def test_planted_links_are_not_followed(url: str, path: Path, tmp_path: Path) -> None:
    make(url, "m")
    secret = tmp_path / "secret"
    secret.write_bytes(b"GGUF secret")
    digest = digest_of(b"GGUF secret")
    (path / "blobs" / digest.replace(":", "-")).symlink_to(secret)
    assert ask(url, "HEAD", f"/api/blobs/{digest}").status == 500
    asked = {"model": "x", "files": {"a.gguf": digest}, "stream": False}
    answer = ask(url, "POST", "/api/create", asked)
    assert (answer.status, b"secret" in answer.body) == (500, False)
    outside = tmp_path / "outside"
    outside.mkdir()
    (path / "manifests/evil").symlink_to(outside)
    for target in ("/api/copy", "/api/create"):
        asked = {
            "source": "m",
            "from": "m",
            "destination": "evil/a/b:c",
            "model": "evil/a/b:c",
            "stream": False,
        }
        assert ask(url, "POST", target, asked).status == 500
    assert not list(outside.iterdir())


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n", b"Content-Length: -5\r\n", b"Content-Length: 1_0\r\n",
        b"Content-Length: +5\r\n", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5,5\r\n", b"X: " + b"x" * 70_000 + b"\r\n", b"X: y\r\n" * 20_000, b"no colon\r\n",
        b"Transfer-Encoding: gzip\r\n",
    ],
)  # fmt: skip
def test_ambiguous_and_endless_headers_are_refused(url: str, lines: bytes) -> None:
    with raw(url) as connection:
        connection.sendall(b"POST /api/show HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\nhello")
        assert rest_of(connection).split(b" ")[1] in (b"400", b"413", b"501")
    assert ask(url, "GET", "/").status == 200


def test_an_underscore_does_not_make_a_header(path: Path) -> None:
    with running(Depot(path, token="0123456789abcdef0123")) as url:
        assert ask(url, "GET", "/", headers={"Authorization_": "x", "X_Y": "z"}).status == 401
