"""The client's calls: typed answers that lose nothing, requests, retries, and servers that mean harm."""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES
from depots import own_depot
from hypothesis import given
from hypothesis import strategies as st
from servers import FakeOllama, answering, head_of, ok, say, status, stream, talking

from modelpack.documents.create import fields_lost
from modelpack.documents.modelfile import parse_modelfile
from modelpack.documents.recipe import Recipe
from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unreachable, Unsupported, Usage
from modelpack.hands import retry
from modelpack.hands.answers import Details, Event, Listed, Running, Shown, Tensor, Version
from modelpack.hands.call import Call, under
from modelpack.hands.crew import Gone, in_parallel
from modelpack.hands.ollama import Ollama
from modelpack.hands.ollama_create import Fields, request_of
from modelpack.hands.retry import LONGEST, TRIES, retry_after
from modelpack.words.blob import FILE, MIB, Blob
from modelpack.words.digest import Digest

RECORDED = Path(__file__).resolve().parents[2] / "shared" / "recorded"
needs_recordings = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recordings are not here")
ONE, TWO = Digest("sha256", "1" * 64), Digest("sha256", "2" * 64)
PROGRESS = {"status": "pulling x", "digest": str(ONE), "total": 9, "completed": 3}
DONE = {"status": "success"}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLLAMA_HOST", "OLLAMA_API_KEY", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(retry, "_FIRST", 0.01)


# --- answers


def undone(value: Any) -> Any:
    """The JSON that *value* was read from, as far as it keeps it."""
    if isinstance(value, Digest):
        return value.hex
    if isinstance(value, tuple):
        return [undone(each) for each in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = {
        one.name: undone(getattr(value, one.name))
        for one in dataclasses.fields(value)
        if one.name not in ("more", "raw")
    }
    fields = {key: each for key, each in fields.items() if each not in (None, [], {})}
    return fields | dict(value.more)


def told(value: Any) -> Any:
    """*value* without empty lists and maps, and null: those are not told apart from what is missing."""
    if isinstance(value, dict):
        inner = {key: told(each) for key, each in value.items()}
        return {key: each for key, each in inner.items() if each not in (None, [], {})}
    return [told(each) for each in value] if isinstance(value, list) else value


@needs_recordings
@pytest.mark.parametrize("version", ["0.24", "0.33"])
def test_nothing_of_a_recorded_answer_is_lost(version: str) -> None:
    """Every field of it is typed, and comes out again."""
    checked: dict[str, int] = {}
    for line in (RECORDED / f"ollama-{version}.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        path, body = entry["path"], entry["body"]
        if entry["status"] != 200 or not body:
            continue
        pairs: list[tuple[dict[str, Any], Any]] = []
        if path in ("/api/tags", "/api/ps"):
            read: Callable[[dict[str, Any], object], Any] = Listed.read if "tags" in path else Running.read
            pairs = [(each, read(each, "x")) for each in json.loads(body)["models"]]
        elif path == "/api/show":
            pairs = [(json.loads(body), Shown.read(json.loads(body)))]
        elif path in ("/api/create", "/api/pull", "/api/push"):
            events = [json.loads(each) for each in body.splitlines()]
            pairs = [(each, Event.read(each)) for each in events if "error" not in each]
        for raw, value in pairs:
            assert told(undone(value)) == told(raw)
            assert not value.more, "a field without a type"
            assert isinstance(value, Event) or not value.details.more
        checked[path] = checked.get(path, 0) + len(pairs)
    assert checked["/api/tags"] >= 6
    assert checked["/api/show"] >= 5
    assert checked["/api/create"] > 30


def test_fields_that_no_recording_shows() -> None:
    """A cloud model, one that is loaded, renderers and projectors, as api/types.go names them."""
    listed = {"name": "c", "digest": "0" * 64, "remote_model": "gpt", "remote_host": "https://ollama.com:443"}
    loaded = {
        "name": "m",
        "model": "m",
        "digest": "0" * 64,
        "size": 5,
        "size_vram": 4,
        "expires_at": "2026-11-23T04:46:44Z",
        "context_length": 4096,
        "details": {"format": "gguf"},
    }
    shown = {
        "renderer": "r",
        "parser": "p",
        "remote_model": "a",
        "remote_host": "b",
        "projector_info": {"a": 1},
        "requires": "0.14.0",
        "tensors": [{"name": "t", "type": "F16", "shape": [2, 3]}],
    }
    fake = FakeOllama()
    fake.faults["GET /api/tags"] = lambda at: say(at, 200, {"models": [listed]})
    fake.faults["GET /api/ps"] = lambda at: say(at, 200, {"models": [loaded]})
    fake.faults["POST /api/show"] = lambda at: say(at, 200, shown)
    with fake.running() as base, Ollama(base) as client:
        (one,), (two,), three = client.list(), client.running(), client.show("x")
    assert (one.remote_model, one.remote_host, one.more) == ("gpt", "https://ollama.com:443", {})
    assert (two.size_vram, two.context_length, two.details.format, two.more) == (4, 4096, "gguf", {})
    assert (three.renderer, three.parser, three.remote_host, three.more) == ("r", "p", "b", {})
    assert three.tensors == (Tensor("t", "F16", (2, 3)),)
    assert three.raw == shown


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["name", "model", "details", "families", "format", "size", "capabilities", "tensors", "shape", "type",
     "messages", "model_info", "status", "total", "license", "modified_at", "new"]
)  # fmt: skip
OBJECTS = st.dictionaries(NAMES, JSON | st.dictionaries(NAMES, JSON, max_size=4), max_size=8)


@given(OBJECTS)
def test_whatever_comes_is_kept(value: dict[str, Any]) -> None:
    """Of any type, under any name: typed, or in `more`."""
    assert told(undone(Shown.read(value))) == told(value)
    event = {**value, "status": value.get("status") or "so"}
    assert told(undone(Event.read(event))) == told(event)
    entry = {**value, "digest": "0" * 64, "name": "x"}
    assert told(undone(Listed.read(entry, ""))) == told(entry)
    assert told(undone(Running.read(entry, ""))) == told(entry)


@pytest.mark.parametrize("path", ["/api/tags", "/api/ps"])
@pytest.mark.parametrize("entry", [{}, {"digest": 5}, {"digest": "sha256:zz"}, {"digest": "x" * 64}, 5])
def test_an_entry_without_an_id(path: str, entry: Any) -> None:
    """Unsupported: this is not Ollama."""
    fake = FakeOllama()
    fake.faults[f"GET {path}"] = lambda at: say(at, 200, {"models": [entry]})
    with fake.running() as base, pytest.raises(Unsupported):
        _ = Ollama(base).list() if "tags" in path else Ollama(base).running()


# --- requests


def test_every_field_of_a_create_request() -> None:
    """As api/types.go spells them; None is left out, digests go out in their one form."""
    every: Fields = {
        "from_": "base", "files": {"a.gguf": ONE}, "adapters": {"b.gguf": f"sha256-{'2' * 64}"},
        "template": "{{ .Prompt }}", "system": "", "license": ("MIT", "Apache-2.0"),
        "parameters": {"stop": ["x"]},
        "messages": [{"role": "user", "content": "hi"}], "quantize": "q4_K_M", "renderer": "r", "parser": "p",
        "requires": "0.14.0", "info": {"capabilities": ["vision"]}, "draft_files": {"d.gguf": TWO},
        "draft_quantize": "q8_0", "remote_host": None,
    }  # fmt: skip
    assert request_of("m", every) == {
        "model": "m", "from": "base", "files": {"a.gguf": str(ONE)}, "adapters": {"b.gguf": str(TWO)},
        "template": "{{ .Prompt }}", "system": "", "license": ["MIT", "Apache-2.0"],
        "parameters": {"stop": ["x"]},
        "messages": [{"role": "user", "content": "hi"}], "quantize": "q4_K_M", "renderer": "r", "parser": "p",
        "requires": "0.14.0", "info": {"capabilities": ["vision"]}, "draft_files": {"d.gguf": str(TWO)},
        "draft_quantize": "q8_0",
    }  # fmt: skip
    assert fields_lost(request_of("m", every), Version("0.13.0").number) == (
        "requires",
        "draft_files",
        "draft_quantize",
    )


def test_a_modelfile_or_a_recipe_says_what_to_create() -> None:
    """What is given by itself stands over it."""
    parsed = parse_modelfile(
        b'FROM qwen3:8b\nSYSTEM "S"\nPARAMETER temperature 0.5\nLICENSE MIT\nRENDERER r\n'
    )
    assert request_of("m", {"modelfile": parsed, "system": "T"}) == {
        "model": "m", "from": "qwen3:8b", "system": "T", "parameters": {"temperature": 0.5},
        "license": ["MIT"], "renderer": "r",
    }  # fmt: skip
    recipe = Recipe.compose({"quantize": "q4_K_M"}, {"files": {"a.safetensors": Blob(5, FILE, ONE)}})
    assert request_of("m", {"recipe": recipe}) == {
        "model": "m", "quantize": "q4_K_M", "files": {"a.safetensors": str(ONE)},
    }  # fmt: skip
    with pytest.raises(Usage):
        request_of("m", {"recipe": recipe, "modelfile": parsed})


@pytest.mark.parametrize(
    "text",
    ["FROM ./a.gguf", "FROM a.gguf", "FROM /a/b", "FROM a\nFROM b", "FROM a\nADAPTER ./b", "FROM a\nDRAFT b"],
)
def test_a_modelfile_that_names_files(text: str) -> None:
    """Usage, unless what they are is given as digests."""
    parsed = parse_modelfile(text.encode())
    with pytest.raises(Usage, match="local file"):
        request_of("m", {"modelfile": parsed})
    files = {"x.gguf": ONE}
    request = request_of("m", {"modelfile": parsed, "files": files, "adapters": files, "draft_files": files})
    assert "from" not in request
    assert request["files"] == {"x.gguf": str(ONE)}


def test_fields_that_are_none() -> None:
    """Usage before anything is asked."""
    client = Ollama("http://127.0.0.1:1")
    with pytest.raises(Usage, match="no field 'sytem'"):
        client.create("m", sytem="S")  # type: ignore[call-overload]
    with pytest.raises(Usage, match="not a digest"):
        client.create("m", files={"a.gguf": "x"})


def test_what_is_sent() -> None:
    """`stream`, `insecure` and `from` as the server wants them; the answer of each kind."""
    asked: list[tuple[str, Any]] = []

    class Kept(FakeOllama):
        def _answer(self, at: Any) -> None:
            data = json.loads(at.rfile.read(int(at.headers["Content-Length"])))
            asked.append((at.path, data))
            if data["stream"]:
                stream(at, [PROGRESS, DONE])
            else:
                say(at, 200, DONE)

    with Kept().running() as base, Ollama(base) as client:
        assert client.pull("m", stream=False) == Event("success")
        assert client.push("m", insecure=True, stream=False) == Event("success")
        assert client.create("q", from_="m", quantize="q8_0", stream=False) == Event("success")
        events = list(client.pull("m", insecure=True))
        assert events == [Event("pulling x", str(ONE), 9, 3), Event("success")]
        assert client.push("m").last() == Event("success")
        assert client.create("q", from_="m", quantize="q8_0").last() == Event("success")
    assert asked == [
        ("/api/pull", {"model": "m", "stream": False}),
        ("/api/push", {"model": "m", "insecure": True, "stream": False}),
        ("/api/create", {"model": "q", "from": "m", "quantize": "q8_0", "stream": False}),
        ("/api/pull", {"model": "m", "insecure": True, "stream": True}),
        ("/api/push", {"model": "m", "stream": True}),
        ("/api/create", {"model": "q", "from": "m", "quantize": "q8_0", "stream": True}),
    ]


def test_a_file_is_uploaded_once(tmp_path: Path) -> None:
    """Hashed where no digest is given; what is there is not sent again."""
    path = tmp_path / "a.gguf"
    path.write_bytes(bytes(range(256)) * 9000)
    digest = Digest.of(path.read_bytes())
    fake, moved = FakeOllama(), [0]
    with fake.running() as base, Ollama(base) as client:
        assert client.upload_file(path, moved=moved.append) == digest
        assert client.upload_file(str(path), digest=digest) == digest
        with pytest.raises(Refused, match="digest mismatch"):
            client.upload_file(path, digest=ONE)
        with pytest.raises(NotFound):
            client.upload_file(tmp_path / "nope")
    assert sum(moved) == path.stat().st_size
    assert [method for method, _ in fake.asked] == ["HEAD", "POST", "HEAD", "HEAD", "POST"]


def test_a_file_that_changes_while_it_is_sent(tmp_path: Path) -> None:
    """Of the same size: the server calls it a mismatch, and we know whose fault it is."""
    path = tmp_path / "a.gguf"
    path.write_bytes(b"a" * 1000)
    fake = FakeOllama()

    def change(at: Any) -> None:
        path.write_bytes(b"b" * 1000)
        say(at, 404, None)

    fake.faults["HEAD /api/blobs/"] = change
    with fake.running() as base, pytest.raises(Corrupt, match="changed while it was sent"):
        Ollama(base).upload_file(path)


def test_a_depot_takes_all_of_it(tmp_path: Path) -> None:
    """Files, a Modelfile over them, from and not streamed, against modelpack's own server."""
    parsed = parse_modelfile(
        b'FROM ./tiny-llama.gguf\nSYSTEM "S"\nPARAMETER temperature 0.5\nREQUIRES 0.14.0\n'
    )
    with own_depot(tmp_path / "models") as depot, Ollama(depot.url) as client:
        digest = client.upload_file(FIXTURES / "tiny-llama.gguf")
        made = client.create("m", modelfile=parsed, files={"tiny-llama.gguf": digest}, stream=False)
        assert made.status == "success"
        assert client.create("n", modelfile=parse_modelfile(b"FROM m\nTEMPLATE x")).last().status == "success"
        shown = client.show("n", verbose=True)
        assert (shown.system, shown.template, shown.requires) == ("S", "x", "0.14.0")
        assert shown.tensors[0].name
        assert {each.details.format for each in client.list()} == {"gguf"}
        with pytest.raises(NotFound):
            client.create("o", from_="nope", stream=False)


# --- streams


@pytest.mark.parametrize(
    ("path", "lines"),
    [
        ("pull", [{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}]),
        ("push", [{"status": "couldn't retrieve manifest"},
                  {"error": "open /m/manifests/h/ns/m/latest: no such file or directory"}]),
        ("push", [{"status": "couldn't retrieve manifest"},
                  {"error": "open C:\\o\\manifests\\m: The system cannot find the path specified."}]),
    ],
)  # fmt: skip
def test_a_model_that_does_not_exist(path: str, lines: list[dict[str, Any]]) -> None:
    """NotFound with the server's words; streamed and not."""
    fake = FakeOllama()
    fake.faults["POST "] = lambda at: stream(at, lines)
    with fake.running() as base, pytest.raises(NotFound) as caught:
        getattr(Ollama(base), path)("far/m").last()
    assert lines[1]["error"] in caught.value.what
    fake.faults["POST "] = lambda at: say(at, 500, lines[1])
    with fake.running() as base, pytest.raises(NotFound, match="no model 'far/m'"):
        getattr(Ollama(base), path)("far/m", stream=False)


@pytest.mark.parametrize(
    "words",
    ["open /blobs/sha256-0: no such file or directory", "pull model manifest: 401", "max retries exceeded"],
)
def test_other_errors_are_no_missing_model(words: str) -> None:
    """Refused."""
    fake = FakeOllama()
    fake.faults["POST "] = lambda at: stream(at, [PROGRESS, {"error": words}])
    with fake.running() as base, pytest.raises(Refused) as caught:
        Ollama(base).pull("m").last()
    assert caught.value.words == words


def test_a_request_is_sent_before_anybody_iterates() -> None:
    """Nothing is lazy, and a status that says no is raised at once."""
    fake = FakeOllama()
    fake.faults["POST /api/pull"] = lambda at: stream(at, [DONE])
    fake.faults["POST /api/push"] = lambda at: say(at, 400, {"error": "model is required"})
    with fake.running() as base, Ollama(base) as client:
        events = client.pull("m")
        assert fake.asked == [("POST", "/api/pull")]
        events.close()
        with pytest.raises(Refused, match="model is required"):
            client.push("")


@pytest.mark.parametrize("value", [{}, {"status": "pulling"}, {"error": None}])
def test_a_result_without_success(value: dict[str, Any]) -> None:
    """Unreachable: 200 alone means nothing."""
    fake = FakeOllama()
    fake.faults["POST "] = lambda at: say(at, 200, value)
    with fake.running() as base, pytest.raises(Unreachable, match="before it said success"):
        Ollama(base).pull("m", stream=False)


@pytest.mark.parametrize("streamed", [True, False])
def test_an_error_in_a_200(streamed: bool) -> None:
    """The server's own words, streamed or not; NotFound where they mean that."""
    fake = FakeOllama()
    said = {"error": "quota of this account is used up"}
    fake.faults["POST "] = lambda at: say(at, 200, said)
    with fake.running() as base, Ollama(base) as client:
        pull = (lambda: client.pull("m").last()) if streamed else (lambda: client.pull("m", stream=False))
        with pytest.raises(Refused, match="quota") as caught:
            pull()
        assert caught.value.words == said["error"]
        said["error"] = "pull model manifest: file does not exist"
        with pytest.raises(NotFound):
            pull()


def test_nothing_is_read_after_success() -> None:
    """It is the end, whatever a server goes on to say."""
    fake = FakeOllama()
    fake.faults["POST "] = lambda at: stream(at, [DONE, {"error": "late"}])
    with fake.running() as base:
        events = Ollama(base).pull("m")
        assert list(events) == [Event("success")]
        assert list(events) == []
        events.close()


@pytest.mark.parametrize("first", [b"", b'14\r\n{"status":   "one"}\n\r\n'])
def test_another_thread_closes_a_silent_stream(first: bytes) -> None:
    """Whoever waits is woken, and the server sees the connection end."""
    ended = threading.Event()

    def talk(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + first)
        connection.settimeout(20)
        while connection.recv(100):
            pass
        ended.set()

    with talking(talk) as base:
        events = Ollama(base).pull("m")
        threading.Timer(0.2, events.close).start()
        begun = time.monotonic()
        with pytest.raises(Unreachable, match="broken off"):
            events.last()
        assert ended.wait(2)
        assert time.monotonic() - begun < 2


@pytest.mark.parametrize("way", ["with", "drop"])
def test_a_stream_that_is_left_hangs_up(way: str) -> None:
    """By `with`, or by a break."""
    ended = threading.Event()

    def talk(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(
            b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n{"status":   "one"}\n\r\n'
        )
        while connection.recv(100):
            pass
        ended.set()

    with talking(talk) as base:
        client = Ollama(base)
        if way == "with":
            with client.pull("m") as events:
                next(events)
            assert list(events) == []
        else:
            for _ in client.pull("m"):
                break
        assert ended.wait(2)


def test_a_call_that_is_broken_off_leaves_others_alone() -> None:
    """Its connection went back to the pool, and serves another call by now."""
    fake, ended = FakeOllama(), []

    def slow(at: Any) -> None:
        time.sleep(0.4)
        say(at, 200, None)

    fake.faults["DELETE "] = slow
    with fake.running() as base, Ollama(base) as client:
        call = Call()
        with under(call):
            client.list()
        other = threading.Thread(target=lambda: ended.append(client.delete("m")))
        other.start()
        time.sleep(0.1)
        call.close()
        other.join()
        with under(call), pytest.raises(Unreachable, match="broken off"):
            client.list()
    assert ended == [None]


# --- retries


def test_a_silent_server_does_not_hold_ctrl_c() -> None:
    """Hands that wait for it are broken off after the first failure, unless the call is somebody else's."""
    fake, waiting, go = FakeOllama(), threading.Event(), threading.Event()
    broken: list[str] = []

    def silent(_at: Any) -> None:
        waiting.set()
        go.wait(10)

    def work(name: str, _gone: Gone) -> None:
        if not name:
            waiting.wait(10)
            raise KeyboardInterrupt
        try:
            client.show(name)
        except Unreachable as error:
            broken.append(error.what)
            raise

    fake.faults["POST /api/show"] = silent
    with fake.running() as base, Ollama(base) as client:
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(in_parallel(["m", ""], work, 2))
        assert time.monotonic() - began < 2
        assert broken == ["was broken off here"]
        waiting.clear()
        call = Call()
        threading.Timer(1, go.set).start()
        with under(call), pytest.raises(KeyboardInterrupt):
            list(in_parallel(["m", ""], work, 2))
        assert not call.closed


class Moody:
    """A server that gives *answers* one after the other, each on a connection of its own."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.heads: list[bytes] = []

    def __call__(self, connection: socket.socket) -> None:
        head = head_of(connection)
        self.heads.append(head)
        length = re.search(rb"(?i)content-length: (\d+)", head)
        left = int(length[1]) if length else 0
        while left:
            left -= len(connection.recv(min(left, 65536)))
        connection.sendall(self.answers.pop(0))


VERSION = ok(b'{"version": "0.33.0"}')


@pytest.mark.parametrize(
    "bad", [status(429), status(502, b"<html>", "text/html"), status(503), status(504), b""]
)
def test_what_is_safe_is_asked_again(bad: bytes) -> None:
    """After a status that may pass, or a connection that broke off."""
    moody = Moody(bad, bad, VERSION)
    with talking(moody, times=3) as base:
        assert Ollama(base).version() == "0.33.0"
    assert len(moody.heads) == 3


def test_a_show_and_a_head_are_asked_again() -> None:
    """They change nothing there."""
    moody = Moody(status(503), ok(b"{}"), b"", status(200))
    with talking(moody, times=4) as base:
        client = Ollama(base)
        client.show("m")
        assert client.has_blob(ONE)


def test_an_answer_cut_in_the_middle_is_asked_again() -> None:
    """A body shorter than promised is no answer."""
    moody = Moody(b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"version"', VERSION)
    with talking(moody, times=2) as base:
        assert Ollama(base).version() == "0.33.0"


def test_it_ends() -> None:
    """Four tries, and then what the last one said."""
    moody = Moody(*[status(503, b'{"error": "server busy"}', more="Retry-After: 0\r\n")] * 10)
    with talking(moody, times=10) as base, pytest.raises(Refused, match="server busy") as caught:
        Ollama(base).list()
    assert len(moody.heads) == TRIES
    assert caught.value.status == 503


def test_a_pause_that_is_too_long() -> None:
    """A server that asks for a day is not waited for, nor asked sooner than it says."""
    moody = Moody(*[status(503, more="Retry-After: 99999\r\n")] * 4)
    begun = time.monotonic()
    with talking(moody, times=4) as base, pytest.raises(Refused, match="99999 seconds"):
        Ollama(base).list()
    assert time.monotonic() - begun < 2
    assert len(moody.heads) == 1


def test_a_pause_that_is_asked_for() -> None:
    """It is kept."""
    moody = Moody(status(429, more="Retry-After: 1\r\n"), VERSION)
    begun = time.monotonic()
    with talking(moody, times=2) as base:
        Ollama(base).version()
    assert 1 <= time.monotonic() - begun < 3


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5), (" 7 ", 7), ("", None), ("soon", None), ("-1", None), ("١", None), ("9" * 5000, 999999999),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("Wed, 21 Oct 99999 07:28:00 GMT", None)],
)  # fmt: skip
def test_retry_after(text: str, seconds: float | None) -> None:
    """A number or a date; anything else is none."""
    assert retry_after(text) == seconds


def test_retry_after_a_date() -> None:
    """In the far future it is more than is waited for."""
    assert (retry_after("Wed, 21 Oct 2099 07:28:00 GMT") or 0) > LONGEST


@pytest.mark.parametrize(
    "act",
    [
        lambda client: client.delete("m"),
        lambda client: client.copy("m", "n"),
        lambda client: client.pull("m").last(),
        lambda client: client.push("m", stream=False),
        lambda client: client.create_from({"model": "m"}).last(),
    ],
)
@pytest.mark.parametrize("bad", [status(503), b""])
def test_what_changes_something_is_asked_once(act: Callable[[Ollama], object], bad: bytes) -> None:
    """Nobody knows whether it was done."""
    moody = Moody(*[bad] * 4)
    with talking(moody, times=4) as base, pytest.raises(ModelpackError):
        act(Ollama(base))
    assert len(moody.heads) == 1


def test_nobody_there_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection, silence and what is no HTTP are not tried again."""
    monkeypatch.setattr(retry, "_FIRST", 60)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unreachable, match="refused"):
        Ollama(f"127.0.0.1:{port}").version()
    with talking(answering(b"SSH-2.0-x\r\n")) as base, pytest.raises(Unreachable, match="not speak HTTP"):
        Ollama(base).version()
    with talking(lambda connection: time.sleep(0.5)) as base, pytest.raises(Unreachable, match="in time"):
        Ollama(base, timeout=0.1).version()


# --- servers that mean harm


@pytest.fixture
def thief() -> Iterator[tuple[str, list[bytes]]]:
    """A place that a redirect points to, and what arrived there."""
    heads: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        heads.append(head_of(connection))
        connection.sendall(VERSION)

    with talking(talk, times=3) as other:
        yield other, heads


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_token_goes_to_no_other_host(code: int, thief: tuple[str, list[bytes]]) -> None:
    """Not by a redirect of any call."""
    other, heads = thief
    answer = status(code, more=f"Location: {other}/api/x\r\n")
    for act in (
        lambda client: client.list(),
        lambda client: client.pull("m").last(),
        lambda client: client.upload_file(FIXTURES / "tiny-llama.gguf"),
    ):
        moody = Moody(answer)
        with talking(moody) as base, pytest.raises(Refused, match="redirects are not followed") as caught:
            act(Ollama(base, api_key="s3cret", headers={"X-Own": "pr1vate"}))
        assert b"Bearer s3cret" in moody.heads[0]
        assert "s3cret" not in f"{caught.value} {caught.value!r}"
    assert heads == []


def bomb() -> bytes:
    return gzip.compress(bytes(8 * MIB))


@pytest.mark.parametrize("code", [200, 500])
def test_a_gzip_bomb_is_not_opened(code: int) -> None:
    """Not in an answer, nor in a refusal."""
    answer = status(code, bomb(), more="Content-Encoding: gzip\r\n")
    for act in (lambda client: client.list(), lambda client: client.pull("m").last()):
        with talking(answering(answer)) as base, pytest.raises(Refused) as caught:
            act(Ollama(base))
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "body",
    [
        b'{"models":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"models":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"models": 1' + b"0" * 10_000 + b"}",
        b"<html>welcome</html>",
        b"[]",
        b"\xff\xfe",
    ],
)
def test_json_bombs(body: bytes) -> None:
    """Refused, whatever they are, in an answer and in a line."""
    for act in (lambda client: client.list(), lambda client: client.pull("m").last()):
        with talking(answering(ok(body))) as base, pytest.raises((Refused, Unsupported)):
            act(Ollama(base))


def test_lies_about_length() -> None:
    """More than is taken is Corrupt, before it is in memory; less is Unreachable."""

    def endless(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n{")
        while True:
            connection.sendall(b" " * MIB)

    with talking(endless) as base, pytest.raises(Corrupt, match="larger"):
        Ollama(base).list()
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + json.dumps(PROGRESS).encode() + b"\n"
    with talking(answering(short)) as base:
        events = Ollama(base).pull("m")
        assert next(events).total == 9
        with pytest.raises(Unreachable):
            next(events)


@pytest.mark.parametrize("piece", [b"a" * 65536, b"a" * 7])
def test_a_line_without_an_end(piece: bytes) -> None:
    """Given up at the limit, soon, in however small pieces it comes."""

    def talk(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        pieces = (b"%x\r\n%s\r\n" % (len(piece), piece)) * (65536 // len(piece))
        while True:
            connection.sendall(pieces)

    begun = time.monotonic()
    with talking(talk) as base, pytest.raises(Refused, match="line of more than"):
        Ollama(base).pull("m").last()
    assert time.monotonic() - begun < 10


def test_lines_that_do_not_end() -> None:
    """Events without end are the caller's to leave."""

    def talk(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b'{"status": "still at it"}\n' * 1000)

    with talking(talk) as base, Ollama(base).pull("m") as events:
        for _ in range(10_000):
            assert next(events).status == "still at it"


def test_details_that_are_none() -> None:
    """Kept, not trusted."""
    assert Details.take({"details": {"families": ["a", 5], "context_length": True}}) == Details(
        more={"families": ["a", 5], "context_length": True}
    )
