"""The client of Ollama's API: addresses, recorded answers replayed, and servers that misbehave."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers import FakeOllama, answering, head_of, ok, say, status, stream, talking

from modelpack.errors import Corrupt, NotFound, Refused, Unreachable, Unsupported, Usage
from modelpack.hands.answers import Event, Version, version_number
from modelpack.hands.ollama import Ollama, parse_host
from modelpack.words.blob import MIB
from modelpack.words.digest import Digest
from modelpack.words.reader import BytesReader

RECORDED = Path(__file__).resolve().parents[2] / "shared" / "recorded"
needs_recordings = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recordings are not here")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLLAMA_HOST", "OLLAMA_API_KEY", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


# Mostly envconfig/config_test.go's own cases; the rest by net.SplitHostPort's rules.
@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("", "http://127.0.0.1:11434"),
        ("1.2.3.4", "http://1.2.3.4:11434"),
        (":1234", "http://127.0.0.1:1234"),
        ("1.2.3.4:1234", "http://1.2.3.4:1234"),
        ("example.com", "http://example.com:11434"),
        ("example.com:1234", "http://example.com:1234"),
        ("example.com:", "http://example.com:11434"),
        (":0", "http://127.0.0.1:0"),
        (":66000", "http://127.0.0.1:11434"),
        (":-1", "http://127.0.0.1:11434"),
        ("h:12ab", "http://h:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("[::]", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ("::", "http://[::1]:11434"),
        ("[::1]:1337", "http://[::1]:1337"),
        ("[0001:0002:0003:0004:0005:0006:0007:0008]", "http://[1:2:3:4:5:6:7:8]:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        (" 1.2.3.4 ", "http://1.2.3.4:11434"),
        ('"1.2.3.4"', "http://1.2.3.4:11434"),
        ("' 1.2.3.4 '", "http://1.2.3.4:11434"),
        ("http://1.2.3.4", "http://1.2.3.4:80"),
        ("http://1.2.3.4:1234", "http://1.2.3.4:1234"),
        ("https://1.2.3.4", "https://1.2.3.4:443"),
        ("https://1.2.3.4:66000", "https://1.2.3.4:443"),
        ("HTTPS://h", "https://h:443"),
        ("https://example.com/", "https://example.com:443"),
        ("https://example.com/ollama", "https://example.com:443/ollama"),
        ("example.com/a/b/", "http://example.com:11434/a/b"),
        ("https://example.com:1234/ollama", "https://example.com:1234/ollama"),
        ("ollama.com", "https://ollama.com:443"),
        ("http://ollama.com", "http://ollama.com:80"),
    ],
)
def test_hosts(text: str, base: str) -> None:
    """Every form of OLLAMA_HOST."""
    assert parse_host(text) == base


@pytest.mark.parametrize("text", ["ftp://h", "oci://h/n", "://h", "unix:///run/x"])
def test_other_schemes(text: str) -> None:
    """Usage."""
    with pytest.raises(Usage):
        parse_host(text)


def test_a_password_in_the_address() -> None:
    """Usage that does not show it."""
    with pytest.raises(Usage) as caught:
        parse_host("http://me:s3cret@h:1")
    assert "s3cret" not in str(caught.value)


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """OLLAMA_HOST and OLLAMA_API_KEY; what is given goes before."""
    fake = FakeOllama("0.24.0")
    with fake.running() as base:
        monkeypatch.setenv("OLLAMA_HOST", base)
        monkeypatch.setenv("OLLAMA_API_KEY", " k3y\n")
        assert Ollama().version() == "0.24.0"
        assert Ollama(base, api_key="").version() == "0.24.0"
        Ollama(headers={"authorization": "Basic x"}).version()
    assert [head.get("authorization") for head in fake.heads] == ["Bearer k3y", None, "Basic x"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("0.33.0-rc2", (0, 33, 0)), ("v1.2.3", (1, 2, 3)), ("0.0.0", None), ("dev", None), ("1.2", None)],
)
def test_version_numbers(text: str, number: Any) -> None:
    """Three numbers at the front; a build without any is taken for the newest."""
    assert version_number(text) == number
    assert Version(text).is_at_least(0, 30, 0) is (number is None or number >= (0, 30, 0))


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"<html>hi</html>", "text/html"),
        ok(b"{}"),
        ok(b'{"version": 5}'),
        ok(b"[]"),
        status(404, b"<html>", "text/html"),
        status(404, b"404 page not found", "text/plain"),
        status(302, more="Location: https://login.example/\r\n"),
    ],
)
def test_not_ollama(answer: bytes) -> None:
    """Whatever answers otherwise at /api/version is Unsupported, and it says so."""
    with talking(answering(answer)) as base, pytest.raises(Unsupported, match="not Ollama"):
        Ollama(base).version()


@pytest.mark.parametrize("code", [401, 403, 500, 503])
def test_no_entry_is_not_a_stranger(code: int) -> None:
    """A server that wants a token, or is broken, may well be Ollama."""
    with talking(answering(status(code)), times=4) as base, pytest.raises(Refused) as caught:
        Ollama(base).version()
    assert caught.value.status == code


@contextmanager
def replay(version: str) -> Iterator[Ollama]:
    """A server that answers as the recorded one did, request by request."""
    lines = (RECORDED / f"ollama-{version}.jsonl").read_text(encoding="utf-8").splitlines()
    answers: dict[tuple[str, str, str], Any] = {}
    for entry in map(json.loads, lines):
        key = entry["request"] if isinstance(entry["request"], dict) else {}
        key = {name: value for name, value in key.items() if name != "stream"}
        answers[entry["method"], entry["path"], json.dumps(key, sort_keys=True)] = entry

    class Replay(FakeOllama):
        def _answer(self, at: Any) -> None:
            raw = at.rfile.read(int(at.headers.get("Content-Length") or 0))
            data = json.loads(raw) if raw[:1] == b"{" else {}
            data.pop("stream", None)
            entry = answers[at.command, at.path, json.dumps(data, sort_keys=True)]
            at.send_response(entry["status"])
            body = entry["body"].encode()
            at.send_header("Content-Type", entry["headers"].get("Content-Type", ""))
            at.send_header("Content-Length", str(len(body)))
            at.end_headers()
            at.wfile.write(body if at.command != "HEAD" else b"")

    with Replay().running() as base:
        yield Ollama(base)


BLOB = Digest.parse("sha256:f917e86025ba062c1c1f2fb167aa480c0924921f515a0c4b8cd0ae396ee32579")
NONE = Digest.parse("sha256:" + "0" * 64)


@needs_recordings
@pytest.mark.parametrize("version", ["0.24", "0.33"])
def test_recorded_answers(version: str) -> None:
    """What real servers said becomes values and errors."""
    with replay(version) as client:
        assert client.version() == f"{version}.0"
        tags = client.list()
        assert {"a:latest", "ns/b:v1", "d:latest"} <= {each.name for each in tags}
        assert all(each.digest.algorithm == "sha256" and each.size > 0 for each in tags)
        first = next(each for each in tags if each.name == "a:latest")
        assert first.details.quantization_level == "F16"
        assert first.details.families == ("llama",)
        assert (first.details.context_length is not None) == (version == "0.33")
        assert "registry.ollama.ai/library/a:latest" in client.installed()

        shown = client.show("a")
        assert shown.license == "MIT\nsecond"
        assert shown.system == "S <&> é"
        assert [each["content"] for each in shown.messages] == ["hi", "yo"]
        assert shown.model_info["general.architecture"] == "llama"
        assert client.show("rp").requires == "0.10.0"
        assert "tensors" in client.show("a", verbose=True).raw
        with pytest.raises(NotFound, match="nope"):
            client.show("nope")
        with pytest.raises(Refused, match="model is required"):
            client._http.ask("POST", "/api/show", data={}).read()

        client.copy("a", "team/copy:1")
        client.delete("team/copy:1")
        for act in (lambda: client.copy("nope", "x"), lambda: client.delete("nope")):
            with pytest.raises(NotFound):
                act()
        with pytest.raises(Refused, match="is invalid"):
            client.copy("a", "bad name")

        assert client.has_blob(BLOB)
        with pytest.raises(Refused, match="digest mismatch") as caught:
            client.upload_blob(NONE, 5, BytesReader(b"hello"))
        assert caught.value.status == 400


@needs_recordings
@pytest.mark.parametrize("version", ["0.24", "0.33"])
def test_recorded_creates(version: str) -> None:
    """Streams to success, and errors inside them."""
    lines = (RECORDED / f"ollama-{version}.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [each for each in map(json.loads, lines) if each["path"] == "/api/create"]
    tried = 0
    with replay(version) as client:
        for entry in entries:
            request = entry["request"]
            if not isinstance(request, dict) or entry["method"] != "POST":
                continue
            request = {key: value for key, value in request.items() if key != "stream"}
            if entry["status"] == 200 and '"error"' not in entry["body"]:
                events = list(client.create_from(request))
                assert events[-1] == Event("success")
            else:
                with pytest.raises(Refused) as caught:
                    list(client.create_from(request))
                assert caught.value.words
                assert caught.value.words in entry["body"].replace('\\"', '"').replace("\\\\", "\\")
            tried += 1
    assert tried > 10


def test_a_stream_that_ends_before_success() -> None:
    """Unreachable, and it says so."""
    fake = FakeOllama()
    fake.faults["POST /api/create"] = lambda at: stream(at, [{"status": "writing manifest"}])
    with fake.running() as base, pytest.raises(Unreachable, match="before it said success"):
        list(Ollama(base).create_from({"model": "m"}))


def test_a_stream_that_breaks_off() -> None:
    """The server dies in the middle."""

    def talk(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b'13\r\n{"status": "one"}\r\n\r\n')

    with talking(talk) as base:
        events = Ollama(base).create_from({"model": "m"})
        assert next(events).status == "one"
        with pytest.raises(Unreachable):
            next(events)


def test_an_error_in_the_stream() -> None:
    """Refused, with the server's words and its status, under an HTTP status of 200."""
    fake = FakeOllama()
    lines = [{"status": "parsing GGUF"}, {"error": "unknown type", "status": 400}]
    fake.faults["POST /api/create"] = lambda at: stream(at, lines)
    with fake.running() as base, pytest.raises(Refused) as caught:
        list(Ollama(base).create_from({"model": "m"}))
    assert (caught.value.words, caught.value.status) == ("unknown type", 400)


def test_silence_is_borne() -> None:
    """A server that says nothing for longer than the time limit, in create and after an upload."""

    def slow(at: Any) -> None:
        if at.path != "/api/create":
            at.rfile.read(int(at.headers["Content-Length"]))
        time.sleep(0.7)
        if at.path == "/api/create":
            stream(at, [{"status": "success"}])
        else:
            say(at, 201, None)

    fake = FakeOllama()
    fake.faults["POST "] = slow
    with fake.running() as base:
        client = Ollama(base, timeout=0.2)
        assert [event.status for event in client.create_from({"model": "m"})] == ["success"]
        assert client.upload_blob(BLOB, 3, BytesReader(b"abc"))


def test_lines_that_are_none() -> None:
    """A giant line and one that is not JSON are Refused."""
    for body, said in (
        (b'{"status": "' + b"a" * (2 * MIB) + b'"}\n', "line of more"),
        (b"hello\n", "not JSON"),
    ):
        with talking(answering(ok(body, "application/x-ndjson"))) as base, pytest.raises(Refused, match=said):
            list(Ollama(base).create_from({"model": "m"}))


def test_uploads() -> None:
    """True where it was sent, False where the server had it; the digest goes out in its one form."""
    data = bytes(range(256)) * 20_000
    digest = Digest.of(data)
    fake = FakeOllama()
    told: list[object] = []
    with fake.running() as base:
        client = Ollama(base)
        assert client.upload_blob(
            digest, len(data), BytesReader(data), told.append, lambda: told.append("sent")
        )
        assert not client.upload_blob(digest, len(data), BytesReader(data))
        assert client.which([digest, NONE]) == {digest}
        assert client.which([NONE]) == set()
    assert fake.blobs[f"sha256:{digest.hex}"] == data
    assert sum(each for each in told if isinstance(each, int)) == len(data)
    assert told[-1] == "sent"


def test_an_upload_the_server_has_and_hangs_up_on() -> None:
    """200 at once, the body unread: a broken pipe that is no failure."""
    data = bytes(64 * MIB)
    fake = FakeOllama()
    digest = Digest.of(data)
    fake.blobs[str(digest)] = b""
    with fake.running() as base:
        assert Ollama(base).upload_blob(digest, len(data), BytesReader(data)) is False
    assert fake.received == 0


def test_an_upload_that_breaks_off_though_the_blob_is_there() -> None:
    """Where nothing of the answer is heard, a HEAD decides."""

    def hang_up(at: Any) -> None:
        at.rfile.read(100_000)
        at.connection.shutdown(socket.SHUT_RDWR)
        at.close_connection = True

    data = bytes(32 * MIB)
    fake = FakeOllama()
    fake.faults["POST /api/blobs/"] = hang_up
    with fake.running() as base:
        client = Ollama(base)
        with pytest.raises(Unreachable):
            client.upload_blob(Digest.of(data), len(data), BytesReader(data))
        fake.blobs[str(Digest.of(data))] = data
        assert client.upload_blob(Digest.of(data), len(data), BytesReader(data)) is False


@pytest.mark.parametrize("code", [413, 500, 507])
def test_an_upload_that_is_refused(code: int) -> None:
    """With the status and the words of whoever refused."""

    def refuse(at: Any) -> None:
        at.rfile.read(int(at.headers["Content-Length"]))
        say(at, code, {"error": "no space left on device"})

    fake = FakeOllama()
    fake.faults["POST /api/blobs/"] = refuse
    with fake.running() as base, pytest.raises(Refused, match="no space left") as caught:
        Ollama(base).upload_blob(BLOB, 3, BytesReader(b"abc"))
    assert caught.value.status == code


def test_an_upload_cut_by_its_reader() -> None:
    """Corrupt, and the server keeps nothing."""
    fake = FakeOllama()
    with fake.running() as base, pytest.raises(Corrupt, match="ends after 3 of 10"):
        Ollama(base).upload_blob(BLOB, 10, BytesReader(b"abc"))
    assert fake.blobs == {}


@pytest.mark.parametrize("models", [[{"name": "x", "digest": "abc"}], ["x"], {"a": 1}])
def test_a_list_of_models_that_is_none(models: Any) -> None:
    """Unsupported: not Ollama."""
    fake = FakeOllama()
    fake.faults["GET /api/tags"] = lambda at: say(at, 200, {"models": models})
    with fake.running() as base, pytest.raises(Unsupported):
        Ollama(base).list()


def test_types_that_are_not_ollamas() -> None:
    """Fields of another type are taken for missing, and kept where they are unknown."""
    entry = {"name": "x", "digest": "0" * 64, "size": "big", "details": [1], "new": {"a": 1}}
    fake = FakeOllama()
    fake.faults["GET /api/tags"] = lambda at: say(at, 200, {"models": [entry]})
    fake.faults["POST /api/show"] = lambda at: say(at, 200, {"template": 5, "messages": "x", "details": None})
    with fake.running() as base:
        client = Ollama(base)
        listed = client.list()[0]
        shown = client.show("x")
    assert (listed.size, listed.details.format) == (None, None)
    assert listed.more == {"new": {"a": 1}, "size": "big", "details": [1]}
    assert (shown.template, shown.messages, shown.details.families) == (None, (), ())
    assert shown.more == {"template": 5, "messages": "x"}
