"""The depot's answers, held against what a real Ollama 0.33 answered, request by request; then the rest."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from depots import FIXTURES, Answered, ask, digest_of, files_below, make, put
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import Client

from modelpack.depot.app import SPEAKS, Depot
from modelpack.depot.asked import Says, read_object
from modelpack.depot.golang import Float32, decoded, encode, number
from modelpack.depot.serve import running
from modelpack.errors import Local, Usage
from modelpack.stores.models_dir import ModelsDir
from modelpack.version import __version__

RECORDED = Path(__file__).parents[2] / "shared" / "recorded"
THEIR_PATH = "/usr/share/ollama/.ollama/models"
UPLOADED = "f917e86025ba062c1c1f2fb167aa480c0924921f515a0c4b8cd0ae396ee32579"
STORED = "e9df7599f3be517d1043dc17d561542dcb5af370ca45cc7f6cf5f71edf0e34fc"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def url(path: Path) -> Iterator[str]:
    with running(Depot(path, writable=True)) as url:
        yield url


# --- recordings

# Where the depot differs, on purpose. All else has to be the same: status, content type, body.
OUR_WORDS = "no net says what is wrong in our words"
DIFFERENT: dict[str, tuple[str, int, str]] = {
    "version": ("it says what it is", 200, f'{{"version":"{SPEAKS}","depot":"{__version__}"}}'),
    "create from a model that is not there": (
        "it pulls nothing, so it says at once that the model is not there",
        404,
        '{"error":"model \'nope-nope\' not found: a depot pulls nothing, so load it first"}',
    ),
    **dict.fromkeys(
        ("create, quantize", "create, quantize from a model"),
        (
            "it has no engine",
            501,
            '{"error":"this is a modelpack depot, which has no engine: it cannot quantize to Q8_0"}',
        ),
    ),
    "pull, host unreachable": (
        OUR_WORDS,
        200,
        '{"status":"pulling manifest"}\n{"error":"pull model manifest: http://127.0.0.1:1: '
        'connection refused. Is a registry listening there?"}\n',
    ),
    "pull, plain http without insecure": (
        OUR_WORDS,
        200,
        '{"status":"pulling manifest"}\n{"error":"pull model manifest: https://127.0.0.1:1: '
        'connection refused. Is a registry listening there?"}\n',
    ),
    "pull, not streamed": (
        OUR_WORDS,
        500,
        '{"error":"pull model manifest: http://127.0.0.1:1: '
        'connection refused. Is a registry listening there?"}',
    ),
    "push, host unreachable, push": (
        OUR_WORDS,
        200,
        '{"status":"retrieving manifest"}\n{"error":"http://127.0.0.1:1: '
        'connection refused. Is a registry listening there?"}\n',
    ),
    **dict.fromkeys(("v1 models", "v1 model"), ("it speaks Ollama's API only", 404, "404 page not found")),
}

# Bodies that the recordings tell the length of only.
BODIES = {
    "wrong digest for the bytes": b"hello",
    "dash digest of the right bytes": b"other",
    "create, not JSON": b"{not json",
    "empty body": b"",
    "create, empty body": b"",
}


def _recordings() -> list[dict[str, Any]]:
    file = RECORDED / "ollama-0.33.jsonl"
    if not file.exists():
        return []
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for each in found:
        if each["what"] == "push, host unreachable" and each["path"] == "/api/push":
            each["what"] += ", push"
    return found


def _same_json(text: str, path: Path) -> Any:
    """A body as far as it can be the same twice: no times, parameters in one order, our directory."""
    value = json.loads(text.replace(THEIR_PATH, str(path)))
    for each in [value, *value.get("models", [])]:
        if "modified_at" in each:
            assert each["modified_at"].startswith("20")
            assert each["modified_at"].endswith("Z")
            each["modified_at"] = "T"
    for key in ("parameters", "modelfile"):
        if key in value:
            value[key] = sorted(value[key].splitlines())
    if "models" in value:
        # Quantized models cannot be made; of those made in the same second the order is any.
        value["models"] = sorted(
            (each for each in value["models"] if each["details"]["quantization_level"] != "Q8_0"),
            key=lambda each: each["name"],
        )
    return value


def _compare(each: dict[str, Any], answer: Answered, path: Path) -> None:
    what, body = each["what"], answer.body.decode()
    if what in DIFFERENT:
        _why, status, text = DIFFERENT[what]
        assert (answer.status, body) == (status, text)
        return
    assert (answer.status, answer.kind) == (each["status"], each["headers"].get("Content-Type"))
    assert answer.headers.get("Allow") == each["headers"].get("Allow")
    expected = each["body"].replace(THEIR_PATH, str(path))
    if what.startswith("create") and "verifying conversion" in expected:
        # Nothing is written anew, so the upload itself is the layer.
        expected = expected.replace('{"status":"verifying conversion"}\n', "")
        expected = expected.replace(
            f"creating new layer sha256:{STORED}", f"using existing layer sha256:{STORED}"
        )
    if what == "tags" or (what.startswith("show") and answer.status == 200):
        assert _same_json(body, path) == _same_json(expected, path)
        assert [*json.loads(body)] == [*json.loads(expected)]
    else:
        assert body == expected


@pytest.mark.skipif(not RECORDED.exists(), reason="the recordings are not here")
def test_every_recorded_request_is_answered_as_by_ollama(url: str, path: Path) -> None:
    """0.33 stores a GGUF that it wrote anew. Given those bytes, the depot comes to its very manifests."""
    stored = (RECORDED / "models-0.33" / "blobs" / f"sha256-{STORED}").read_bytes()
    uploaded = Path(RECORDED.parent / "gguf" / "tiny-llama.gguf").read_bytes()
    seen = set()
    for each in _recordings():
        what, request = each["what"], each["request"]
        seen.add(what)
        if isinstance(request, dict):
            request = json.dumps(request).replace(UPLOADED, STORED)
        elif request is not None:
            whole = uploaded[:1000] if request == "<1000 bytes>" else stored
            request = BODIES.get(what, whole)
        if what == "create, not a GGUF":  # Ollama keeps the bytes of a mismatch; a depot does not
            put(url, b"hello")
        where = each["path"]
        if what not in ("upper-case digest", "dash digest of the right bytes"):
            where = where.replace(UPLOADED, STORED)
            each["body"] = each["body"].replace(UPLOADED, STORED)
        _compare(each, ask(url, each["method"], where, request), path)
    assert seen >= set(DIFFERENT)
    assert len(seen) > 50


@pytest.mark.skipif(not RECORDED.exists(), reason="the recordings are not here")
def test_the_manifests_are_those_of_ollama_to_the_byte(url: str, path: Path) -> None:
    """Made as the recorded ones were, of the bytes that 0.33 stored."""
    theirs = RECORDED / "models-0.33"
    blobs = {each.name.removeprefix("sha256-"): each.read_bytes() for each in (theirs / "blobs").iterdir()}
    put(url, blobs[STORED])
    for recording in _recordings():
        if recording["path"] == "/api/create" and isinstance(recording["request"], dict):
            asked = json.loads(json.dumps(recording["request"]).replace(UPLOADED, STORED))
            if asked["model"] in ("a", "d", "rp", "ns/b:v1") and "nope" not in asked.get("from", ""):
                assert ask(url, "POST", "/api/create", asked).status == 200
    lora = put(url, (RECORDED.parent / "gguf" / "tiny-lora.gguf").read_bytes())
    mmproj = put(url, (RECORDED.parent / "gguf" / "tiny-mmproj.gguf").read_bytes())
    model = {"files": {"a.gguf": f"sha256:{STORED}"}}
    ask(url, "POST", "/api/create", {"model": "with-adapter", **model, "adapters": {"lora.gguf": lora}})
    both = {"a.gguf": f"sha256:{STORED}", "mmproj.gguf": mmproj}
    ask(url, "POST", "/api/create", {"model": "with-proj", "files": both})
    ask(url, "POST", "/api/copy", {"source": "A", "destination": "CaseD"})
    for name in ("library/a/latest", "library/d/latest", "library/rp/latest", "ns/b/v1",
                 "library/with-adapter/latest", "library/CaseD/latest"):  # fmt: skip
        below = f"manifests/registry.ollama.ai/{name}"
        assert (path / below).read_bytes() == (theirs / below).read_bytes(), name
    # The order of files is that of a Go map there, sorted here.
    below = "manifests/registry.ollama.ai/library/with-proj/latest"
    ours, recorded = (json.loads((each / below).read_bytes()) for each in (path, theirs))
    assert ours["config"] == recorded["config"]
    assert sorted(map(str, ours["layers"])) == sorted(map(str, recorded["layers"]))


@pytest.mark.skipif(not RECORDED.exists(), reason="the recordings are not here")
@pytest.mark.parametrize("version", ["0.24", "0.33"])
def test_a_directory_of_ollamas_is_listed_as_by_itself(version: str) -> None:
    directory = RECORDED / f"models-{version}"
    recorded = json.loads((directory / "tags.json").read_text(encoding="utf-8"))["models"]
    with running(Depot(directory)) as url:
        ours = {each["name"]: each for each in ask(url, "GET", "/api/tags").json["models"]}
        assert ours
        for theirs in recorded:
            if theirs["name"] not in ours:
                continue  # some were left out of the directory
            found = ours.pop(theirs["name"])
            assert (found["digest"], found["size"]) == (theirs["digest"], theirs["size"])
            for key in ("format", "family", "families", "parameter_size", "quantization_level"):
                assert found["details"][key] == theirs["details"][key]
            assert set(theirs.get("capabilities", ())) <= set(found["capabilities"])
        assert not ours


# --- create


def test_bytes_stay_as_they_were_uploaded(url: str, path: Path) -> None:
    answer = make(url, "m")
    assert answer.lines[-1] == {"status": "success"}
    digest = digest_of((FIXTURES / "tiny-llama.gguf").read_bytes())
    assert (path / "blobs" / digest.replace(":", "-")).read_bytes() == (
        FIXTURES / "tiny-llama.gguf"
    ).read_bytes()
    (model,) = ModelsDir(path).models()
    assert not ModelsDir(path).missing([model])
    assert str(model.blobs[0].digest) == digest
    assert files_below(path) == {
        "manifests/registry.ollama.ai/library/m/latest",
        *(f"blobs/{blob.digest.file_name}" for blob in model.blobs if blob.digest),
    }


def test_a_model_made_from_another_inherits_what_is_not_said(url: str) -> None:
    make(url, "a", system="S", parameters={"temperature": 1, "stop": ["x"]}, renderer="r", requires="0.9.0")
    ask(url, "POST", "/api/create", {"model": "b", "from": "a", "parameters": {"temperature": 0.25}})
    shown = ask(url, "POST", "/api/show", {"model": "b"}).json
    assert shown["system"] == "S"
    assert shown["requires"] == "0.9.0"
    assert "RENDERER r\n" in shown["modelfile"]
    assert shown["details"]["parent_model"] == "a:latest"
    assert [line.split() for line in shown["parameters"].splitlines()] == [
        ["stop", '"x"'],
        ["temperature", "0.25"],
    ]


def test_a_name_in_another_case_is_the_same_name(url: str, path: Path) -> None:
    make(url, "Team/Model:V1")
    make(url, "team/MODEL:v1", system="new")
    assert [each["name"] for each in ask(url, "GET", "/api/tags").json["models"]] == ["Team/Model:V1"]
    assert ask(url, "POST", "/api/show", {"model": "TEAM/model:V1"}).json["system"] == "new"
    make(url, "team/model:v2")
    assert (path / "manifests/registry.ollama.ai/Team/Model/v2").is_file()
    assert ask(url, "DELETE", "/api/delete", {"model": "tEAM/model:v1"}).status == 200
    assert [each["name"] for each in ask(url, "GET", "/api/tags").json["models"]] == ["Team/Model:v2"]


def test_creating_over_a_name_removes_what_only_the_old_one_had(url: str, path: Path) -> None:
    make(url, "m", system="old")
    make(url, "m", system="new")
    assert f"blobs/{digest_of(b'old').replace(':', '-')}" not in files_below(path)
    assert f"blobs/{digest_of(b'new').replace(':', '-')}" in files_below(path)


@pytest.mark.parametrize(
    ("request_", "status", "word"),
    [
        ({"files": {"model.safetensors": "sha256:" + "0" * 64}}, 501, "safetensors"),
        ({"from": "m", "quantize": "q4_K_M"}, 501, "quantize"),
        ({"from": "m", "remote_host": "https://ollama.com"}, 501, "host"),
        ({"from": "m", "license": 5}, 400, "license"),
        ({"from": "m", "messages": "hi"}, 400, "messages"),
        ({"from": "m", "parameters": []}, 400, "parameters"),
        ({"from": "m", "messages": ["hi"]}, 400, "messages"),
        ({"from": "m", "info": {"context_length": -1}}, 400, "context_length"),
        ({"from": "m", "system": "x" * ((4 << 20) + 1)}, 400, "system"),
        ({"from": "bad name"}, 400, "invalid model name"),
        ({"files": {"a.gguf": ""}}, 400, "digest"),
        ({"files": {"a.gguf": 5}}, 400, "string"),
        ({"files": {"/a.gguf": "sha256:" + "0" * 64}}, 400, "relative"),
        ({"files": {"a/./b.gguf": "sha256:" + "0" * 64}}, 400, "relative"),
        ({"files": {"a.bin": "sha256:" + "0" * 64}}, 400, "unknown type"),
        ({"from": "m", "adapters": {"a.gguf": "sha256:" + "0" * 64, "b.gguf": "x"}}, 400, "one adapter"),
        ({"from": "m", "draft_quantize": "q8_0"}, 400, "DRAFT"),
        ({"model": 7}, 400, "string"),
    ],
)  # fmt: skip
def test_what_create_refuses(url: str, path: Path, request_: dict[str, Any], status: int, word: str) -> None:
    make(url, "m")
    before = files_below(path)
    answer = ask(url, "POST", "/api/create", {"model": "new", "stream": False, **request_})
    assert (answer.status, word in answer.error) == (status, True), answer.body
    assert files_below(path) == before


def test_shards_are_refused_and_named(url: str) -> None:
    digest = put(url, (FIXTURES / "tiny-llama-00001-of-00003.gguf").read_bytes())
    asked = {"model": "m", "files": {"tiny-llama-00001-of-00003.gguf": digest}}
    answer = ask(url, "POST", "/api/create", asked)
    assert (answer.status, "merge shards" in answer.error) == (501, True)


def test_a_truncated_gguf_is_refused_in_a_sentence(url: str) -> None:
    digest = put(url, (FIXTURES / "tiny-llama.gguf").read_bytes()[:-1000])
    answer = ask(url, "POST", "/api/create", {"model": "m", "files": {"a.gguf": digest}, "stream": False})
    assert (answer.status, "missing" in answer.error) == (500, True)


def test_quantizing_to_what_it_is_already_is_no_work(url: str) -> None:
    assert make(url, "m", quantize="f16").lines[-1] == {"status": "success"}


# --- delete


def test_delete_leaves_what_others_name_and_no_empty_directory(url: str, path: Path) -> None:
    make(url, "host:5000/ns/a", system="only a")
    make(url, "b")
    assert ask(url, "DELETE", "/api/delete", {"name": "host:5000/ns/a"}).status == 200
    assert {str(each.relative_to(path)) for each in (path / "manifests").iterdir()} == {
        "manifests/registry.ollama.ai"
    }
    assert not ModelsDir(path).missing(ModelsDir(path).models())
    assert f"blobs/{digest_of(b'only a').replace(':', '-')}" not in files_below(path)
    ask(url, "DELETE", "/api/delete", {"model": "b"})
    assert files_below(path) == set()


def test_no_blob_is_removed_while_a_manifest_cannot_be_read(url: str, path: Path) -> None:
    make(url, "m")
    (path / "manifests/registry.ollama.ai/library/broken").mkdir()
    (path / "manifests/registry.ollama.ai/library/broken/latest").write_text("{")
    before = {each for each in files_below(path) if each.startswith("blobs/")}
    assert ask(url, "DELETE", "/api/delete", {"model": "m"}).status == 200
    assert {each for each in files_below(path) if each.startswith("blobs/")} == before
    assert ask(url, "GET", "/api/tags").json == {"models": []}


def test_the_list_is_whole_while_models_are_made(url: str) -> None:
    """A new manifest gives its blobs a new time; whoever reads them just then must not stumble over it."""
    make(url, "m", template="T")
    stop = threading.Event()

    def copy() -> None:
        while not stop.is_set():
            ask(url, "POST", "/api/copy", {"source": "m", "destination": "n"})
            ask(url, "DELETE", "/api/delete", {"model": "n"})

    threads = [threading.Thread(target=copy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(60):
            listed = {each["name"]: each for each in ask(url, "GET", "/api/tags").json["models"]}
            assert listed["m:latest"]["details"]["context_length"] == 256
            assert ask(url, "POST", "/api/show", {"model": "m"}).json["template"] == "T"
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# --- blobs


def test_two_uploads_of_one_blob_at_once_both_succeed(url: str, path: Path) -> None:
    data = os.urandom(3 << 20)
    answers: list[Answered] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(ask(url, "POST", f"/api/blobs/{digest_of(data)}", data))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in answers} <= {200, 201}
    assert files_below(path) == {f"blobs/{digest_of(data).replace(':', '-')}"}


@pytest.mark.parametrize("size", [0, 1, 4096, (1 << 20) + 1, 5 << 20])
def test_a_chunked_body_becomes_the_same_blob(url: str, path: Path, size: int) -> None:
    data = os.urandom(size)
    pieces = iter([data[start : start + 300_000] for start in range(0, size, 300_000)])
    answer = ask(url, "POST", f"/api/blobs/{digest_of(data)}", pieces)
    assert answer.status == 201
    assert (path / "blobs" / digest_of(data).replace(":", "-")).read_bytes() == data


def test_other_wsgi_servers_can_run_it_too(path: Path) -> None:
    client = Client(Depot(path, writable=True))
    data = b"some bytes"
    host = {"Host": "localhost:1"}
    assert client.post(f"/api/blobs/{digest_of(data)}", data=data, headers=host).status_code == 201
    assert client.head(f"/api/blobs/{digest_of(data)}", headers=host).status_code == 200


# --- the server


def test_it_listens_to_loopback_unless_there_is_a_token(path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(Usage, match="token"), running(Depot(path), host=host):
            pass
    with pytest.raises(Usage, match="not one"):
        Depot(path, token="short")


def test_a_port_that_is_taken_is_said_in_a_sentence(url: str, path: Path) -> None:
    with pytest.raises(Local, match="cannot listen"), running(Depot(path), port=int(url.rpartition(":")[2])):
        pass


def test_it_reports_each_answer_and_never_the_token(path: Path) -> None:
    said: list[str] = []
    token = "correct-horse-battery"
    app = Depot(path, token=token, report=lambda step: said.append(str(step)))
    with running(app) as url:
        ask(url, "GET", "/api/tags", headers={"Authorization": f"Bearer {token}"})
        ask(url, "GET", "/api/tags", headers={"Authorization": "Bearer wrong-horse-battery"})
    assert len(said) == 2
    assert not any("horse" in each for each in said)


def test_a_bug_is_answered_and_told_and_the_server_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    app = Depot(path, report=lambda step: said.append(str(step)))
    monkeypatch.setattr(app, "_ps", lambda _request: 1 / 0)
    with running(app) as url:
        assert ask(url, "GET", "/api/ps").status == 500
        assert ask(url, "GET", "/api/version").status == 200
    assert any("ZeroDivisionError" in each for each in said)


# --- JSON as Go has it


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"), (128.0, "128"), (1e21, "1e+21"), (1e20, "100000000000000000000"), (1e-6, "0.000001"),
        (1e-7, "1e-7"), (-0.0, "-0"), (1.5e300, "1.5e+300"), (Float32(1e-5), "0.00001"), (12.789, "12.789"),
        (float("inf"), "null"), (Float32(16777216.0), "16777216"), (2**53 + 1, "9007199254740993"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_go_writes_them(value: float, text: str) -> None:
    assert encode(value) == text.encode()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_comes_back(value: float) -> None:
    assert float(number(value)) == value


_LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()


@given(st.recursive(_LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_every_value_comes_back(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return  # lone surrogates: Go has none
    assert json.loads(encode(decoded(value))) == value


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, size: int) -> bytes:
        piece, self.data = self.data[:size], self.data[size:]
        return piece


@given(st.binary(max_size=300))
def test_no_body_makes_reading_it_fail_otherwise_than_in_words(data: bytes) -> None:
    failure = None
    try:
        with read_object(_Bytes(data), len(data)) as value:
            assert isinstance(value, dict)
    except Says as answer:
        failure = answer
    assert failure is None or (failure.status, bool(failure.text)) == (400, True)
