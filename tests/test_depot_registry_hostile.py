"""Readers and pushers of a depot's registry that are slow, cut off, many, or mean harm."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from depots import (
    FIXTURES,
    MIB,
    ask,
    digest_of,
    files_below,
    head,
    make,
    own_depot,
    push_blob,
    raw,
    rest_of,
    threads,
)

from modelpack.depot import bodies, gateway, uploads, wire, workers
from modelpack.depot.app import Depot
from modelpack.depot.serve import running
from modelpack.hands.scratch import SCRATCH
from modelpack.words.blob import CONFIG, MANIFEST, MODEL

GGUF = (FIXTURES / "tiny-llama.gguf").read_bytes()
MOST = 120 * MIB
NO_MEMORY_FIGURES = not Path("/proc/self/status").exists()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def url(path: Path) -> Iterator[str]:
    with running(Depot(path, writable=True)) as url:
        yield url


def shelve(path: Path, size: int) -> str:
    """A model `big` of a blob that has *size* bytes on a disk that keeps no zeros; the blob's address."""
    digest = "sha256:" + "5" * 64  # nobody on the way looks at its bytes
    folder = path / "manifests/registry.ollama.ai/library/big"
    folder.mkdir(parents=True)
    (path / "blobs").mkdir(exist_ok=True)
    config = b"{}"
    (path / "blobs" / digest_of(config).replace(":", "-")).write_bytes(config)
    with (path / "blobs" / digest.replace(":", "-")).open("wb") as file:
        file.truncate(size)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": MODEL, "digest": digest, "size": size}],
    }
    (folder / "latest").write_text(json.dumps(manifest))
    return f"/v2/library/big/blobs/{digest}"


def wait_until(holds: Callable[[], object], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.02)


def seconds_to_answer(url: str) -> float:
    started = time.monotonic()
    assert ask(url, "GET", "/api/version").status == 200
    return time.monotonic() - started


# --- many, slow


@pytest.mark.skipif(NO_MEMORY_FIGURES, reason="memory is read from /proc")
def test_readers_fast_and_slow_leave_room_for_others_and_take_no_memory(path: Path) -> None:
    size = 256 * MIB
    target = shelve(path, size)
    stop = threading.Event()
    got = [0] * 200
    with own_depot(path, writable=False) as own:

        def read(number: int) -> None:
            with raw(own.url) as connection:
                start = (number % 64) * size // 64
                connection.sendall(head("GET", target, own.url, Range=f"bytes={start}-"))
                connection.settimeout(1)
                while not stop.is_set():
                    try:
                        piece = connection.recv(4096 if number % 2 else 1 << 18)
                    except TimeoutError:
                        continue
                    got[number] += len(piece)
                    if not piece:
                        break
                    stop.wait(0.2 if number % 2 else 0)

        with threads(200, read):
            wait_until(lambda: all(got))
            worst = max(seconds_to_answer(own.url) for _ in range(10))
            stop.set()
        assert worst < 1
        assert own.peak() < MOST


@pytest.mark.skipif(NO_MEMORY_FIGURES, reason="memory is read from /proc")
def test_slow_readers_of_large_manifests_take_little_memory(path: Path) -> None:
    """A manifest may have 4 MiB, and each of three hundred readers would hold one."""
    with own_depot(path) as own:
        for data in (b"GGUF", b"{}"):
            push_blob(own.url, "a/m", data)
        parts = [{"digest": digest_of(data), "size": len(data)} for data in (b"GGUF", b"{}")]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, **parts[1]},
            "layers": [{"mediaType": MODEL, **parts[0]}],
            "annotations": {"x": "y" * (4 * MIB - 4096)},
        }
        answer = ask(own.url, "PUT", "/v2/a/m/manifests/t", json.dumps(manifest))
        assert answer.status == 201, answer.body
        readers = []
        for _ in range(300):
            reader = socket.socket()
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", int(own.url[17:])))
            reader.sendall(head("GET", "/v2/a/m/manifests/t", own.url))
            readers.append(reader)
        time.sleep(1)
        assert max(seconds_to_answer(own.url) for _ in range(5)) < 2
        assert own.peak() < MOST
        for reader in readers:
            reader.close()


def test_requests_that_never_end_hold_up_nobody(path: Path) -> None:
    with own_depot(path) as own:
        address = ("127.0.0.1", int(own.url[17:]))
        begun = [socket.create_connection(address) for _ in range(workers.THREADS + 60)]
        for connection in begun:
            connection.sendall(b"G")
        time.sleep(0.5)
        assert max(seconds_to_answer(own.url) for _ in range(3)) < 4
        for connection in begun:
            connection.close()


@pytest.mark.parametrize("line", [b"Content-Length\0: 5", b"X\x7f: 1", b"X y: 1", b": 1"])
def test_names_of_headers_are_names(url: str, line: bytes) -> None:
    with raw(url) as connection:
        connection.sendall(head("GET", "/api/version", url)[:-2] + line + b"\r\n\r\n")
        assert rest_of(connection).startswith(b"HTTP/1.1 400")


def test_a_method_is_a_word(url: str) -> None:
    with raw(url) as connection:
        connection.sendall(head("G\0T", "/api/version", url))
        assert rest_of(connection).startswith(b"HTTP/1.1 400")


@pytest.mark.skipif(NO_MEMORY_FIGURES, reason="memory is read from /proc")
def test_silent_connections_and_stalled_writers_hold_up_nobody(path: Path) -> None:
    """More that say nothing than there are threads, and as many uploads as are taken that have stopped."""
    with own_depot(path) as own:
        address = ("127.0.0.1", int(own.url[17:]))
        silent = [socket.create_connection(address) for _ in range(workers.THREADS + 16)]
        place = [
            ask(own.url, "POST", "/v2/a/b/blobs/uploads/").headers["Location"].removeprefix(own.url)
            for _ in range(uploads.MOST)
        ]
        writers = [socket.create_connection(address) for _ in range(workers.WRITERS)]
        for connection, each in zip(writers, place, strict=True):
            connection.sendall(head("PATCH", each, own.url, Content_Length=str(8 * MIB)) + bytes(100_000))
        assert max(seconds_to_answer(own.url) for _ in range(5)) < 1
        assert ask(own.url, "POST", "/v2/a/b/blobs/uploads/").status == 429
        answer = ask(own.url, "POST", f"/v2/a/b/blobs/uploads/?digest={digest_of(b'x')}", b"x")
        assert (answer.status, answer.json["errors"][0]["code"]) == (503, "TOOMANYREQUESTS")
        assert own.peak() < MOST
        for connection in (*silent, *writers):
            connection.close()
        wait_until(lambda: ask(own.url, "GET", place[0]).status == 204)


def test_a_reader_that_stops_is_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "SILENCE_SECONDS", 1)
    target = shelve(path, 256 * MIB)
    with running(Depot(path)) as url, raw(url) as connection:
        connection.sendall(head("GET", target, url))
        connection.recv(100)
        time.sleep(3)
        assert 0 < len(rest_of(connection)) < 64 * MIB


def test_a_reader_that_only_trickles_is_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(bodies, "SLOWEST", 1 << 40)
    target = shelve(path, 256 * MIB)
    with running(Depot(path)) as url, raw(url) as connection:
        connection.sendall(head("GET", target, url))
        started = time.monotonic()
        while time.monotonic() - started < 2.5:
            connection.recv(100)
            time.sleep(0.05)
        assert len(rest_of(connection)) < 64 * MIB


def test_a_stop_does_not_wait_for_a_reader(path: Path) -> None:
    target = shelve(path, 256 * MIB)
    with own_depot(path, writable=False) as own, raw(own.url) as connection:
        connection.sendall(head("GET", target, own.url))
        connection.recv(100)
        started = time.monotonic()
        own.process.terminate()
        assert own.process.wait(20) == 0
        assert time.monotonic() - started < 8


def test_more_readers_than_it_takes_are_told_to_come_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "READERS", 1)
    target = shelve(path, 64 * MIB)
    with running(Depot(path)) as url, raw(url) as connection:
        connection.sendall(head("GET", target, url))
        connection.recv(100)
        answer = ask(url, "GET", target)
        assert (answer.status, answer.headers["Retry-After"], answer.body) == (503, "5", b"")
        connection.close()
        wait_until(lambda: ask(url, "HEAD", target).status == 200)
        wait_until(lambda: ask(url, "GET", target, headers={"Range": "bytes=0-9"}).status == 206)


# --- damaged, tricks


@pytest.mark.parametrize("size", [0, 1, len(GGUF) - 1, len(GGUF) + 1])
def test_a_blob_of_another_size_is_never_given(url: str, path: Path, size: int) -> None:
    make(url, "m")
    file = path / "blobs" / digest_of(GGUF).replace(":", "-")
    os.truncate(file, size)
    target = f"/v2/library/m/blobs/{digest_of(GGUF)}"
    for headers in ({}, {"Range": "bytes=0-0"}):
        answer = ask(url, "GET", target, headers=headers)
        assert (answer.status, answer.json["errors"][0]["code"]) == (404, "BLOB_UNKNOWN")
        assert str(path) not in answer.body.decode()
    assert ask(url, "HEAD", target).status == 404
    push_blob(url, "library/m", GGUF)  # which mends it
    assert ask(url, "GET", target).body == GGUF


def test_a_file_that_is_cut_while_it_is_sent_breaks_the_connection(path: Path) -> None:
    size = 64 * MIB
    target = shelve(path, size)
    with running(Depot(path)) as url, raw(url) as connection:
        connection.sendall(head("GET", target, url))
        connection.recv(1000)
        os.truncate(path / "blobs" / ("sha256-" + "5" * 64), MIB)
        assert len(rest_of(connection)) < size


@pytest.mark.parametrize(
    "target",
    [
        "/v2/../../etc/passwd/blobs/x", "/v2/../library/m/manifests/latest",
        "/v2/library/../manifests/latest", "/v2/library/m/manifests/..", "/v2/library/m/manifests/.hidden",
        "/v2/library/m/manifests/%2e%2e%2flatest", "/v2/library/%2e%2e/m/manifests/latest",
        "/v2//m/manifests/latest", "/v2/library//manifests/latest", "/v2/a/b/c/d/manifests/latest",
        "/v2/library/m/manifests/" + "a" * 300, "/v2/library/m%00/manifests/latest",
        "/v2/library/m/manifests/latest%0a", "/v2/library/m/manifests/sha256:" + "z" * 64,
        "/v2/library/m/blobs/..", "/v2/library/m/blobs/sha256:..", "/v2/library/m/blobs/sha256-" + "0" * 64,
        "/v2/library/m/blobs/sha256:" + "A" * 64, "/v2/library/m/blobs/sha256:" + "0" * 64 + "/x",
        "/v2/library/m/blobs/sha512:" + "0" * 128, "/v2/library/m/blobs/%2e%2e%2f%2e%2e%2fmanifests",
        "/v2/library/m/tags/list/..", "/v2/.modelpack/m/tags/list", "/v2/%ff/m/tags/list", "/v2/_catalog",
        "/v2/library/m/blobs/uploads/..", "/v2/library/m/blobs/uploads/%2e%2e%2fx", "/v2/é/m/tags/list",
    ],
)  # fmt: skip
def test_only_names_and_digests_lead_anywhere(url: str, path: Path, target: str) -> None:
    make(url, "m")
    before = files_below(path)
    for method in ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"):
        with raw(url) as connection:
            connection.sendall(head(method, target, url, Content_Length="0", Connection="close"))
            status = rest_of(connection).split(b" ")[1]
        assert status in (b"400", b"404", b"405"), (method, status)
    assert files_below(path) == before


def test_a_planted_link_is_no_blob_and_no_manifest(url: str, path: Path, tmp_path: Path) -> None:
    make(url, "m")
    secret = tmp_path / "secret"
    secret.write_bytes(GGUF)
    blob = path / "blobs" / digest_of(GGUF).replace(":", "-")
    blob.unlink()
    blob.symlink_to(secret)
    manifest = path / "manifests/registry.ollama.ai/library/m/latest"
    (manifest.parent / "linked").symlink_to(manifest)
    assert ask(url, "GET", f"/v2/library/m/blobs/{digest_of(GGUF)}").status == 500
    assert ask(url, "GET", "/v2/library/m/manifests/linked").status == 500
    assert ask(url, "GET", "/v2/library/m/tags/list").json["tags"] == ["latest"]


def test_two_hundred_headers_are_read_or_refused(url: str) -> None:
    for length, statuses in ((10, (b"200",)), (1000, (b"413", b"400"))):
        lines = b"".join(b"X-%d: %s\r\n" % (number, b"y" * length) for number in range(200))
        with raw(url) as connection:
            connection.sendall(
                b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + lines + b"\r\n"
            )
            assert rest_of(connection).split(b" ")[1] in statuses


# --- pushes that break


def begin(url: str) -> str:
    return ask(url, "POST", "/v2/a/b/blobs/uploads/").headers["Location"].removeprefix(url)


def test_a_part_that_broke_is_sent_again_from_its_start(url: str, path: Path) -> None:
    """As Ollama does: with the Content-Range of before."""
    data = os.urandom(3 * MIB)
    place = begin(url)
    first, second = {"Content-Range": f"0-{MIB - 1}"}, f"{MIB}-{3 * MIB - 1}"
    assert ask(url, "PATCH", place, data[:MIB], first).status == 202
    for half_close in (True, False):
        with raw(url) as connection:
            sent = head("PATCH", place, url, Content_Length=str(2 * MIB), Content_Range=second)
            connection.sendall(sent + data[MIB : 2 * MIB])
            if half_close:
                connection.shutdown(socket.SHUT_WR)
                assert b"unexpected EOF" in rest_of(connection)
    wait_until(lambda: ask(url, "GET", place).headers.get("Range") == f"0-{MIB - 1}")
    wait_until(lambda: ask(url, "PATCH", place, data[MIB:], {"Content-Range": second}).status == 202)
    assert ask(url, "PUT", f"{place}?digest={digest_of(data)}").status == 201
    assert (path / "blobs" / digest_of(data).replace(":", "-")).read_bytes() == data


def test_what_has_another_digest_is_thrown_away(url: str, path: Path) -> None:
    place = begin(url)
    assert ask(url, "PATCH", place, b"some").status == 202
    for digest, code in (
        ("", "DIGEST_INVALID"),
        ("sha256:0", "DIGEST_INVALID"),
        (digest_of(b"x"), "DIGEST_INVALID"),
    ):
        answer = ask(url, "PUT", f"{place}?digest={digest}", b"more")
        assert (answer.status, answer.json["errors"][0]["code"]) == (400, code)
    assert ask(url, "PUT", f"{place}?digest={digest_of(b'somemore')}").status == 404
    assert files_below(path) == set()


def test_two_that_upload_one_blob_at_once_both_succeed(url: str, path: Path) -> None:
    data = os.urandom(3 * MIB)
    with threads(8, lambda number: push_blob(url, f"a/b{number}", data) and None):
        pass
    assert files_below(path) == {f"blobs/{digest_of(data).replace(':', '-')}"}


def test_two_requests_at_one_upload_are_kept_apart(url: str) -> None:
    place = begin(url)
    with raw(url) as connection:
        connection.sendall(head("PATCH", place, url, Content_Length="1000") + b"some")
        wait_until(lambda: ask(url, "GET", place).status == 409)
        assert ask(url, "PATCH", place, b"other").status == 409
        assert ask(url, "DELETE", place).status == 409
        connection.sendall(b"x" * 996)
        assert connection.recv(100).startswith(b"HTTP/1.1 202")
    assert ask(url, "GET", place.replace("/a/b/", "/a/c/")).status == 404  # nobody else's repository
    assert ask(url, "GET", place).headers["Range"] == "0-999"


def test_unfinished_uploads_are_few_and_do_not_last(
    url: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MOST", 3)
    places = [begin(url) for _ in range(3)]
    assert ask(url, "POST", "/v2/a/b/blobs/uploads/").status == 429
    monkeypatch.setattr(uploads, "AGE_SECONDS", -1.0)
    assert ask(url, "GET", places[0]).status == 404
    assert files_below(path) == set()
    assert ask(url, "POST", "/v2/a/b/blobs/uploads/").status == 202


def test_a_stop_removes_what_was_not_finished(path: Path) -> None:
    with running(Depot(path, writable=True)) as url:
        ask(url, "PATCH", begin(url), b"some")
        assert all(each.startswith(SCRATCH) for each in files_below(path))
        assert files_below(path)
    assert files_below(path) == set()


def test_kill_9_leaves_nothing_that_looks_whole(path: Path) -> None:
    data = os.urandom(2 * MIB)
    with own_depot(path) as own:
        place = begin(own.url)
        assert ask(own.url, "PATCH", place, data).status == 202
        own.process.kill()
        own.process.wait()
    left = files_below(path)
    assert left
    assert all(each.startswith(f"{SCRATCH}/modelpack-") for each in left)
    for each in left:
        os.utime(path / each, (1, 1))
    with running(Depot(path, writable=True)) as url:
        assert files_below(path) == set()
        assert ask(url, "GET", place).status == 404
        assert ask(url, "HEAD", f"/v2/a/b/blobs/{digest_of(data)}").status == 404


def test_bodies_longer_or_shorter_than_promised(url: str, path: Path) -> None:
    place = begin(url)
    with raw(url) as connection:
        connection.sendall(
            head("PATCH", place, url, Content_Length="4") + b"some" + b"more than that\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 202")
    wait_until(lambda: ask(url, "GET", place).headers.get("Range") == "0-3")
    with raw(url) as connection:
        connection.sendall(
            head("PUT", f"{place}?digest={digest_of(b'some')}", url, Content_Length="9") + b"x"
        )
        connection.shutdown(socket.SHUT_WR)
        assert rest_of(connection).startswith(b"HTTP/1.1 400")
    assert ask(url, "PUT", f"{place}?digest={digest_of(b'some')}").status == 201
    assert files_below(path) == {f"blobs/{digest_of(b'some').replace(':', '-')}"}
