"""`/v2/` of a depot: pulls and pushes, by requests, by skopeo, and as Ollama was recorded to make them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import requests
from depots import FIXTURES, MIB, Answered, ask, digest_of, files_below, make, push_blob, put, rest_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpack.depot import wire
from modelpack.depot.app import Depot
from modelpack.depot.registry import Fault, _stretch
from modelpack.depot.serve import running, tls_context
from modelpack.errors import NotFound, Usage
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.verbs.transfer import copy
from modelpack.words.blob import CONFIG, MANIFEST, MODEL

RECORDED = Path(__file__).parents[2] / "shared" / "recorded"
GGUF = (FIXTURES / "tiny-llama.gguf").read_bytes()
TOKEN = "0123456789abcdef0123"
SKOPEO = pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def url(path: Path) -> Iterator[str]:
    with running(Depot(path, writable=True)) as url:
        yield url


def manifest_of(path: Path, name: str = "library/m", tag: str = "latest") -> bytes:
    return (path / "manifests/registry.ollama.ai" / name / tag).read_bytes()


def model_layer(raw: bytes) -> str:
    return str(next(each["digest"] for each in json.loads(raw)["layers"] if each["mediaType"] == MODEL))


def code(answer: Answered) -> tuple[int, str]:
    (error,) = answer.json["errors"]
    assert error["message"]
    return answer.status, error["code"]


# --- pulls


def test_the_ping_says_that_it_is_a_registry(url: str) -> None:
    for target in ("/v2/", "/v2"):
        answer = ask(url, "GET", target)
        assert (answer.status, answer.json) == (200, {})
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
        assert "WWW-Authenticate" not in answer.headers


def test_a_manifest_is_given_byte_for_byte_by_tag_and_digest(url: str, path: Path) -> None:
    make(url, "m:v1")
    raw = manifest_of(path, tag="v1")
    for reference in ("v1", "V1", digest_of(raw)):
        got = ask(url, "GET", f"/v2/library/m/manifests/{reference}")
        assert (got.status, got.body, got.kind) == (200, raw, MANIFEST)
        assert got.headers["Docker-Content-Digest"] == digest_of(raw)
        assert got.headers["ETag"] == f'"{digest_of(raw)}"'
        head = ask(url, "HEAD", f"/v2/library/m/manifests/{reference}")
        assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(raw)))
    for reference in ("latest", digest_of(b"other")):
        assert code(ask(url, "GET", f"/v2/library/m/manifests/{reference}")) == (404, "MANIFEST_UNKNOWN")
        assert ask(url, "HEAD", f"/v2/library/m/manifests/{reference}").status == 404


@pytest.mark.parametrize(
    ("name", "repositories"),
    [
        ("m", ["library/m", "m", "LIBRARY/M", "registry.ollama.ai/library/m"]),
        ("Team/m", ["team/m", "Team/M"]),
        ("hf.co/user/Repo-GGUF:Q4", ["hf.co/user/repo-gguf", "hf.co/user/Repo-GGUF"]),
        ("host:5000/ns/m", ["host:5000/ns/m"]),
    ],
)
def test_each_model_has_its_repository(url: str, name: str, repositories: list[str]) -> None:
    make(url, name)
    tag = "q4" if ":Q4" in name else "latest"
    for repository in repositories:
        raw = ask(url, "GET", f"/v2/{repository}/manifests/{tag}")
        assert raw.status == 200
        assert ask(url, "GET", f"/v2/{repository}/blobs/{model_layer(raw.body)}").body == GGUF
        assert len(ask(url, "GET", f"/v2/{repository}/tags/list").json["tags"]) == 1


def test_a_blob_comes_whole_with_the_location_that_ollama_wants(url: str, path: Path) -> None:
    make(url, "m")
    digest = digest_of(GGUF)
    target = f"/v2/library/m/blobs/{digest}"
    got, head = ask(url, "GET", target), ask(url, "HEAD", target)
    assert (got.status, got.body, head.status, head.body) == (200, GGUF, 200, b"")
    for answer in (got, head):
        assert answer.headers["Content-Length"] == str(len(GGUF))
        assert answer.headers["Location"] == target
        assert answer.headers["Docker-Content-Digest"] == digest
        assert answer.headers["ETag"] == f'"{digest}"'
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("bytes=0-0", 0, 1), ("bytes=5-9", 5, 10), ("bytes=80000-", 80000, None), ("bytes=-7", -7, None),
        ("bytes=0-999999999", 0, None), ("bytes=-999999999", 0, None),
    ],
)  # fmt: skip
def test_a_range_is_what_was_asked_for(url: str, text: str, start: int, end: int | None) -> None:
    make(url, "m")
    got = requests.get(f"{url}/v2/library/m/blobs/{digest_of(GGUF)}", headers={"Range": text}, timeout=10)
    assert (got.status_code, got.content) == (206, GGUF[start:end])
    first = start if start >= 0 else len(GGUF) + start
    assert got.headers["Content-Range"] == f"bytes {first}-{first + len(got.content) - 1}/{len(GGUF)}"


@pytest.mark.parametrize(
    "text", ["bytes=0-1,5-6", "bytes=9-5", "bytes=-", "bytes=a-b", "lines=0-1", "bytes 0-1", "bytes=0-1 "]
)
def test_what_is_no_single_range_gives_all(url: str, text: str) -> None:
    make(url, "m")
    got = ask(url, "GET", f"/v2/library/m/blobs/{digest_of(GGUF)}", headers={"Range": text})
    assert (got.status == 200 and got.body == GGUF) or text == "bytes=0-1 "


@pytest.mark.parametrize("text", [f"bytes={len(GGUF)}-", "bytes=999999999-1000000000", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused(url: str, text: str) -> None:
    make(url, "m")
    got = ask(url, "GET", f"/v2/library/m/blobs/{digest_of(GGUF)}", headers={"Range": text})
    assert code(got) == (416, "RANGE_INVALID")
    assert got.headers["Content-Range"] == f"bytes */{len(GGUF)}"
    assert ask(url, "HEAD", f"/v2/library/m/blobs/{digest_of(GGUF)}", headers={"Range": text}).status == 200


@given(st.integers(0, 50), st.integers(0, 60) | st.none(), st.integers(0, 60) | st.none())
def test_ranges_are_slices(size: int, first: int | None, last: int | None) -> None:
    data = bytes(range(size))
    text = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    if first is None:
        expected = data[max(0, size - last) :] if last is not None else data
    else:
        expected = data[first:] if last is None else data[first : last + 1]
    nonsense = first is not None and last is not None and last < first
    if nonsense:
        expected = data
    elif text != "bytes=-" and not expected:
        with pytest.raises(Fault, match="bytes"):
            _stretch(text, size)
        return
    found = _stretch(text, size)
    assert (data if found is None else data[slice(*found)]) == expected


def test_tags_are_listed_page_by_page(url: str) -> None:
    make(url, "m:a")
    for tag in ("b", "c", "D"):
        ask(url, "POST", "/api/copy", {"source": "m:a", "destination": f"m:{tag}"})
    answer = ask(url, "GET", "/v2/library/m/tags/list")
    assert answer.json == {"name": "library/m", "tags": ["D", "a", "b", "c"]}
    assert "Link" not in answer.headers
    first = ask(url, "GET", "/v2/library/m/tags/list?n=2")
    assert first.json["tags"] == ["D", "a"]
    assert first.headers["Link"] == '</v2/library/m/tags/list?n=2&last=a>; rel="next"'
    rest = ask(url, "GET", first.headers["Link"][1:].partition(">")[0])
    assert (rest.json["tags"], "Link" in rest.headers) == (["b", "c"], False)
    assert ask(url, "GET", "/v2/library/m/tags/list?n=0").json["tags"] == []
    assert code(ask(url, "GET", "/v2/library/m/tags/list?n=x")) == (400, "PAGINATION_NUMBER_INVALID")
    assert code(ask(url, "GET", "/v2/library/nope/tags/list")) == (404, "NAME_UNKNOWN")


def test_strangers_get_only_blobs_that_the_repository_names(url: str, path: Path) -> None:
    make(url, "m", system="of m")
    make(url, "n", system="of n")
    orphan = put(url, b"nobody's")
    with (
        running(Depot(path)) as reader,
        running(Depot(path, writable=True, token=TOKEN, open_pulls=True)) as o,
    ):
        for where in (reader, o):
            for repository, digest, status in (
                ("library/m", digest_of(b"of m"), 200),
                ("library/m", digest_of(b"of n"), 404),
                ("library/n", digest_of(b"of n"), 200),
                ("library/m", orphan, 404),
                ("library/none", digest_of(b"of m"), 404),
            ):
                for method in ("GET", "HEAD"):
                    assert ask(where, method, f"/v2/{repository}/blobs/{digest}").status == status
        with_token = {"Authorization": f"Bearer {TOKEN}"}
        assert ask(o, "GET", f"/v2/library/x/blobs/{orphan}", headers=with_token).body == b"nobody's"
    # Whoever may write finds what need not be sent again.
    assert ask(url, "HEAD", f"/v2/library/new/blobs/{orphan}").status == 200


@SKOPEO
def test_skopeo_reads_manifest_and_tags(url: str, path: Path) -> None:
    """skopeo 1.9.3 copies no manifest of Docker's type with Ollama's layers; it can look at them."""
    make(url, "m")
    place = f"docker://{url.removeprefix('http://')}/library/m"

    def skopeo(*words: str) -> bytes:
        return subprocess.run(["skopeo", *words], check=True, capture_output=True, timeout=30).stdout

    assert skopeo("inspect", "--raw", "--tls-verify=false", f"{place}:latest") == manifest_of(path)
    assert json.loads(skopeo("list-tags", "--tls-verify=false", place))["Tags"] == ["latest"]


# --- from a bundle


@pytest.fixture
def bundles(url: str, path: Path, tmp_path: Path) -> list[Archive | FolderBundle]:
    make(url, "m", system="S", template="{{ .Prompt }}")
    make(url, "Team/n:v2")
    made: list[Archive | FolderBundle] = [Archive(tmp_path / "b.tar"), FolderBundle(tmp_path / "b")]
    source = ModelsDir(path)
    for bundle in made:
        copy(source, source.models(), bundle)
    return made


def test_a_bundle_is_served_as_it_lies_there(bundles: list[Archive | FolderBundle], url: str) -> None:
    tags = ask(url, "GET", "/api/tags").json["models"]
    for bundle in bundles:
        with running(Depot(type(bundle)(bundle.path))) as served:
            for target in (
                "/v2/library/m/manifests/latest",
                "/v2/team/N/manifests/v2",
                "/v2/team/n/tags/list",
            ):
                assert ask(served, "GET", target).body == ask(url, "GET", target).body
            raw = ask(served, "GET", "/v2/library/m/manifests/latest").body
            for layer in [*json.loads(raw)["layers"], json.loads(raw)["config"]]:
                got = ask(served, "GET", f"/v2/library/m/blobs/{layer['digest']}")
                assert (digest_of(got.body), len(got.body)) == (layer["digest"], layer["size"])
                part = {"Range": "bytes=-9"}
                target = f"/v2/library/m/blobs/{layer['digest']}"
                assert ask(served, "GET", target, headers=part).body == got.body[-9:]
                assert ask(served, "HEAD", f"/api/blobs/{layer['digest']}").status == 200
            assert ask(served, "HEAD", f"/api/blobs/{digest_of(b'?')}").status == 404
            listed = ask(served, "GET", "/api/tags").json["models"]
            without = [{**each, "modified_at": ""} for each in listed]
            assert sorted(without, key=str) == sorted(({**each, "modified_at": ""} for each in tags), key=str)
            shown = ask(served, "POST", "/api/show", {"model": "M", "verbose": True}).json
            assert (shown["system"], shown["details"]["family"]) == ("S", "llama")
            assert ask(served, "POST", "/api/copy", {"source": "m", "destination": "x"}).status == 403
            assert code(ask(served, "POST", "/v2/library/m/blobs/uploads/")) == (403, "DENIED")
        with pytest.raises(Usage, match="bundle"):
            Depot(bundle, writable=True)


def test_a_bundle_that_is_packed_anew_is_never_read_with_old_offsets(
    bundles: list[Archive | FolderBundle], url: str, path: Path
) -> None:
    tar = bundles[0]
    with running(Depot(Archive(tar.path))) as served:
        assert ask(served, "GET", "/v2/library/m/manifests/latest").status == 200
        make(url, "a", system="comes first")
        source = ModelsDir(path)
        copy(
            source,
            [each for each in source.models() if each.name.model == "a"],
            Archive(tar.path, replace=True),
        )
        assert ask(served, "GET", "/v2/library/m/manifests/latest").status == 404
        blob = ask(served, "GET", f"/v2/library/a/blobs/{digest_of(b'comes first')}")
        assert (blob.status, blob.body) == (200, b"comes first")


def test_a_tar_that_is_no_bundle_is_refused_at_the_start(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(FIXTURES / "tiny-llama.gguf", "x")
    with pytest.raises(NotFound, match="not a bundle"):
        Depot(Archive(tmp_path / "x.tar"))


@pytest.mark.parametrize("kind", ["b.tar", "b"])
def test_modelpack_serve_takes_a_bundle(
    bundles: list[Archive | FolderBundle], tmp_path: Path, kind: str
) -> None:
    with command(tmp_path, kind, "--open-pulls", "--name", "depot") as (url, said):
        assert f"depot of {kind} (2 models) at http://127.0.0.1:" in said
        assert "(read-only, open pulls)" in said
        assert ask(url, "GET", "/v2/library/m/tags/list", headers={"Host": "depot:1"}).status == 200


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["b.tar", "--writable"], 2, "cannot be --writable"), (["nowhere"], 3, "no such file"),
        (["x.gguf"], 2, "neither a models directory nor a bundle"),
        (["models", "--tls-cert", "c"], 2, "together"),
        (["models", "--host", "192.0.2.1"], 2, "--open-pulls"),
        (["models", "--tls-cert", "x.gguf", "--tls-key", "x.gguf"], 2, "PEM"),
    ],
)  # fmt: skip
def test_modelpack_serve_says_what_it_cannot(
    bundles: list[Archive | FolderBundle], tmp_path: Path, words: list[str], status: int, text: str
) -> None:
    (tmp_path / "x.gguf").write_bytes(GGUF)
    done = subprocess.run(
        [sys.executable, "-m", "modelpack", "serve", *words, "--port", "0"],
        cwd=tmp_path, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (done.returncode, text in done.stderr) == (status, True), done.stderr


@contextlib.contextmanager
def command(cwd: Path, *words: str) -> Iterator[tuple[str, str]]:
    line = [sys.executable, "-m", "modelpack", "serve", *words, "--port", "0"]
    process = subprocess.Popen(line, cwd=cwd, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        yield said.partition(" at ")[2].split()[0], said
    finally:
        process.send_signal(signal.SIGTERM)
        assert "Traceback" not in process.communicate(timeout=20)[1]


# --- pushes


def manifest_for(*layers: tuple[str, bytes], config: bytes = b"{}") -> bytes:
    def line(kind: str, data: bytes) -> dict[str, Any]:
        return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}

    value = {"schemaVersion": 2, "mediaType": MANIFEST, "config": line(CONFIG, config)}
    return json.dumps({**value, "layers": [line(*each) for each in layers]}, indent=1).encode()


def put_manifest(url: str, repository: str, tag: str, raw: bytes) -> Answered:
    return ask(url, "PUT", f"/v2/{repository}/manifests/{tag}", raw, {"Content-Type": MANIFEST})


def test_what_is_pushed_is_pulled_byte_for_byte(url: str, path: Path) -> None:
    raw = manifest_for((MODEL, GGUF))
    assert code(put_manifest(url, "team/m", "v1", raw)) == (400, "MANIFEST_BLOB_UNKNOWN")
    push_blob(url, "team/m", GGUF)
    push_blob(url, "team/m", b"{}")
    assert files_below(path) == {f"blobs/{digest_of(data).replace(':', '-')}" for data in (GGUF, b"{}")}
    done = put_manifest(url, "team/m", "v1", raw)
    assert (done.status, done.headers["Docker-Content-Digest"]) == (201, digest_of(raw))
    assert ask(url, "GET", done.headers["Location"]).body == raw == manifest_of(path, "team/m", "v1")
    assert ask(url, "GET", "/api/tags").json["models"][0]["name"] == "team/m:v1"
    assert not ModelsDir(path).missing(ModelsDir(path).models())


def test_the_pushes_that_ollama_was_recorded_to_make_arrive(url: str, path: Path) -> None:
    blobs, parts, puts = _recorded_blobs(), [], 0
    for version in ("0.24", "0.33"):
        file = RECORDED / f"registry-traffic-{version}.jsonl"
        if not file.exists():
            pytest.skip("the recordings are not here")
        for each in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            if not each["phase"].startswith("push") or "method" not in each:
                continue
            headers = {key: each["headers"][key] for key in ("Content-Range",) if key in each["headers"]}
            if each["method"] == "POST":
                begun = ask(url, "POST", each["path"])
                assert begun.headers["Location"].startswith(url)
                place = begun.headers["Location"].removeprefix(url)
            elif each["method"] == "PATCH":
                parts.append((place, headers, each["body_bytes"]))
            elif each["path"].startswith("/v2/uploads"):
                query = each["path"].partition("?")[2]
                place, headers, size = parts.pop()
                data = blobs[parse_qs(query)["digest"][0]]
                assert len(data) == size
                assert ask(url, "PATCH", place, data, headers).status == 202
                assert ask(url, "PUT", f"{place}?{query}").status == 201
            elif each["path"].startswith("/v2/modelpack/m/manifests"):
                puts += 1
    assert puts == 2


def _recorded_blobs() -> dict[str, bytes]:
    found = [each.read_bytes() for each in RECORDED.glob("models-*/blobs/*")]
    found += [each.read_bytes() for each in (RECORDED.parent / "gguf").glob("*.gguf")]
    return {digest_of(each): each for each in found}


def test_parts_are_taken_in_order_only(url: str) -> None:
    data = os.urandom(3000)
    begun = ask(url, "POST", "/v2/a/b/blobs/uploads/")
    assert begun.headers["Docker-Upload-UUID"]
    place = begun.headers["Location"].removeprefix(url)
    assert ask(url, "GET", place).headers["Range"] == "0-0"

    def part(first: int, last: int) -> Answered:
        return ask(url, "PATCH", place, data[first : last + 1], {"Content-Range": f"{first}-{last}"})

    assert part(0, 999).status == 202
    for first, last in ((0, 999), (500, 1499), (2000, 2999)):
        answer = part(first, last)
        assert code(answer) == (416, "BLOB_UPLOAD_INVALID")
        assert answer.headers["Range"] == "0-999"
    assert code(ask(url, "PATCH", place, b"x", {"Content-Range": "1000-1999"})) == (400, "SIZE_INVALID")
    assert ask(url, "PATCH", place, data[1000:2000]).headers["Range"] == "0-1999"
    assert ask(url, "GET", place).status == 204
    last = {"Content-Range": "2000-2999"}
    done = ask(url, "PUT", f"{place}?digest={digest_of(data)}", data[2000:], last)
    assert (done.status, done.headers["Location"]) == (201, f"/v2/a/b/blobs/{digest_of(data)}")
    assert ask(url, "GET", done.headers["Location"]).body == data
    assert code(ask(url, "GET", place)) == (404, "NAME_UNKNOWN")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.binary(max_size=700), max_size=5))
def test_any_parts_come_to_the_same_blob(url: str, pieces: list[bytes]) -> None:
    place = ask(url, "POST", "/v2/a/b/blobs/uploads/").headers["Location"].removeprefix(url)
    for piece in pieces:
        assert ask(url, "PATCH", place, piece).status == 202
    data = b"".join(pieces)
    assert (
        ask(url, "PUT", f"{place}?digest=sha256%3A{hashlib.sha256(data).hexdigest()}&etag=x-1").status == 201
    )
    assert ask(url, "GET", f"/v2/a/b/blobs/{digest_of(data)}").body == data


def test_a_blob_may_come_in_one_request_or_be_here_already(url: str, path: Path) -> None:
    data = os.urandom(2 * MIB)
    uploads = "/v2/a/b/blobs/uploads/"
    assert ask(url, "POST", f"{uploads}?digest={digest_of(data)}", data).status == 201
    assert ask(url, "POST", f"{uploads}?mount={digest_of(data)}&from=c/d").status == 201
    assert ask(url, "POST", f"{uploads}?mount={digest_of(b'?')}&from=c/d").status == 202
    assert code(ask(url, "POST", f"{uploads}?digest={digest_of(b'?')}", data)) == (400, "DIGEST_INVALID")
    dropped = ask(url, "POST", uploads).headers["Location"].removeprefix(url)
    assert ask(url, "DELETE", dropped).status == 204
    assert ask(url, "DELETE", dropped).status == 404


def test_a_tag_moves_and_what_nobody_names_goes(url: str, path: Path) -> None:
    for text in (b"old", b"new"):
        push_blob(url, "t/m", text)
        push_blob(url, "t/m", b"{}")
        assert (
            put_manifest(url, "T/M", "x", manifest_for(("application/vnd.ollama.image.system", text))).status
            == 201
        )
    assert [each.name.full for each in ModelsDir(path).models()] == ["registry.ollama.ai/T/M:x"]
    assert f"blobs/{digest_of(b'old').replace(':', '-')}" not in files_below(path)


def test_only_models_of_ollama_are_installed(url: str, path: Path) -> None:
    push_blob(url, "t/m", GGUF)
    push_blob(url, "t/m", b"{}")
    good = json.loads(manifest_for((MODEL, GGUF)))
    oci = "application/vnd.oci.image.manifest.v1+json"
    tar = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    for wrong in (
        {"mediaType": oci},
        {"mediaType": "application/vnd.docker.distribution.manifest.list.v2+json", "manifests": []},
        {"layers": [{**good["layers"][0], "mediaType": tar}]},
        {"config": {**good["config"], "mediaType": "application/vnd.oci.empty.v1+json"}},
        {"layers": [{**good["layers"][0], "urls": ["http://evil.example/"]}]},
        {"schemaVersion": 1},
        {"config": None},
    ):
        answer = put_manifest(url, "t/m", "x", json.dumps({**good, **wrong}).encode())
        assert code(answer) == (400, "MANIFEST_INVALID")
    for raw in (b"", b"[]", b"{", b"[" * 100_000, b"\xff"):
        assert code(put_manifest(url, "t/m", "x", raw)) == (400, "MANIFEST_INVALID")
    assert code(put_manifest(url, "t/m", digest_of(b"x"), b"{}")) == (400, "MANIFEST_INVALID")
    assert put_manifest(url, "t/m", "x", b" " * (5 * MIB)).status == 413
    wrong_size = {**good, "layers": [{**good["layers"][0], "size": 5}]}
    assert code(put_manifest(url, "t/m", "x", json.dumps(wrong_size).encode()))[1] == "MANIFEST_BLOB_UNKNOWN"
    assert not (path / "manifests").exists()


# --- who may


def test_open_pulls_are_for_everybody_and_nothing_else_is(path: Path) -> None:
    with running(Depot(path, writable=True)) as url:
        make(url, "m")
    right = {"Authorization": f"Bearer {TOKEN}"}
    with running(Depot(path, writable=True, token=TOKEN, open_pulls=True)) as url:
        digest = digest_of(GGUF)
        for target in ("/v2/", "/v2/library/m/manifests/latest", f"/v2/library/m/blobs/{digest}"):
            for headers in ({}, {"Authorization": "Basic Ojo="}, {"Authorization": "Bearer x"}, right):
                assert ask(url, "GET", target, headers=headers).status == 200
                assert ask(url, "HEAD", target, headers=headers).status == 200
        place = (
            ask(url, "POST", "/v2/a/b/blobs/uploads/", headers=right).headers["Location"].removeprefix(url)
        )
        for method, target in (
            ("GET", "/"), ("GET", "/api/version"), ("GET", "/api/tags"), ("POST", "/api/show"),
            ("GET", "/v2x"),
            ("HEAD", f"/api/blobs/{digest}"), ("GET", "/api/../v2/"), ("GET", "/V2/"),
            ("POST", "/v2/a/b/blobs/uploads/"), ("GET", place), ("PATCH", place), ("PUT", place),
            ("DELETE", place), ("PUT", "/v2/library/m/manifests/latest"),
            ("DELETE", "/v2/library/m/manifests/latest"),
        ):  # fmt: skip
            answer = ask(url, method, target)
            challenge = 'Basic realm="modelpack depot"' if target.startswith("/v2/") else "Bearer"
            assert (answer.status, answer.headers.get("WWW-Authenticate")) == (401, challenge), target
        assert ask(url, "GET", place, headers=right).status == 204


def test_the_token_is_taken_as_a_password(path: Path) -> None:
    with running(Depot(path, writable=True, token=TOKEN)) as url:
        ping = ask(url, "GET", "/v2/")
        assert (code(ping), ping.headers["WWW-Authenticate"]) == (
            (401, "UNAUTHORIZED"),
            'Basic realm="modelpack depot"',
        )
        for auth, status in (
            (("any", TOKEN), 200),
            (("", TOKEN), 200),
            ((TOKEN, ""), 401),
            (("a", "b"), 401),
        ):
            assert requests.get(f"{url}/v2/", auth=auth, timeout=10).status_code == status
        for text in ("Basic", "Basic !", "Basic " + "A" * 5000, f"Basic {TOKEN}", "Basic gICA"):
            assert ask(url, "GET", "/v2/", headers={"Authorization": text}).status == 401


def test_off_loopback_it_takes_a_token_or_open_pulls_alone(path: Path) -> None:
    with running(Depot(path, writable=True)) as url:
        make(url, "m")
    with pytest.raises(Usage, match="token"), running(Depot(path, open_pulls=True, writable=True), "0.0.0.0"):
        pass
    app = Depot(path, open_pulls=True)
    app.guard.only_pulls = True  # as on any other address than loopback, which tests may not use
    with running(app) as url:
        assert ask(url, "GET", "/v2/library/m/manifests/latest").status == 200
        assert ask(url, "GET", "/v2/", headers={"Host": "192.0.2.7:11435"}).status == 200
        assert ask(url, "GET", "/v2/", headers={"Host": "evil.example"}).status == 403
        for method, target in (("GET", "/api/tags"), ("GET", "/"), ("POST", "/v2/a/b/blobs/uploads/")):
            assert ask(url, method, target).status == 403


def test_a_name_of_its_own_is_answered(path: Path) -> None:
    with running(Depot(path, open_pulls=True, hosts=["depot"])) as url:
        assert ask(url, "GET", "/v2/", headers={"Host": "depot:11435"}).status == 200
        assert code(ask(url, "GET", "/v2/", headers={"Host": "evil.example"})) == (403, "DENIED")
        assert ask(url, "GET", "/v2/", headers={"Origin": "https://evil.example"}).status == 403


# --- https


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    home = tmp_path_factory.mktemp("tls")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(command, cwd=home, check=True, capture_output=True)
    return home / "cert.pem", home / "key.pem"


def test_https_serves_the_same(path: Path, certificate: tuple[Path, Path]) -> None:
    big = os.urandom(3 * MIB)
    with running(Depot(path, writable=True), tls=tls_context(*certificate)) as url:
        assert url.startswith("https://127.0.0.1:")
        with requests.Session() as session:
            session.trust_env = False
            session.verify = str(certificate[0])
            place = session.post(f"{url}/v2/a/b/blobs/uploads/", timeout=10).headers["Location"]
            assert place.startswith(url)
            assert session.patch(place, data=big, timeout=10).status_code == 202
            digest = digest_of(big)
            assert session.put(place, params={"digest": digest}, timeout=10).status_code == 201
            for _ in range(3):
                got = session.get(f"{url}/v2/a/b/blobs/{digest}", timeout=10)
                assert got.content == big
            part = session.get(f"{url}/v2/a/b/blobs/{digest}", headers={"Range": "bytes=9-"}, timeout=10)
            assert part.content == big[9:]
        plain = requests.Session()
        with pytest.raises(requests.ConnectionError):
            plain.get(url.replace("https", "http"), timeout=10)
        plain.close()


def test_whoever_begins_https_and_stops_holds_up_nobody(
    path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "HEADER_SECONDS", 2)
    with running(Depot(path), tls=tls_context(*certificate)) as url, requests.Session() as session:
        session.trust_env, session.verify = False, str(certificate[0])
        silent = [socket.create_connection(("127.0.0.1", int(url[18:]))) for _ in range(20)]
        for number, connection in enumerate(silent):
            connection.sendall((b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n")[number % 3])
        started = time.monotonic()
        assert session.get(f"{url}/api/version", timeout=10).status_code == 200
        assert time.monotonic() - started < 1
        for connection in silent[1::3]:  # the handshake has to come to its end within a time
            connection.settimeout(10)
            assert rest_of(connection)[:1] in (b"", b"\x15")
        for connection in silent:
            connection.close()


def test_a_key_that_does_not_fit_is_said_in_a_sentence(
    certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(Usage, match="fits"):
        tls_context(certificate[1], certificate[0])
    with pytest.raises(NotFound):
        tls_context(tmp_path / "none.pem", certificate[1])
    locked = tmp_path / "locked.pem"
    command = ["openssl", "ec", "-aes128", "-passout", "pass:secret", "-in", certificate[1], "-out", locked]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(Usage, match="passphrase"):
        tls_context(certificate[0], locked)
    assert ssl.OPENSSL_VERSION
