"""Registries to talk to over real HTTP: Debian's docker-registry, and one that lies as a test wants."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from modelpack.documents.model import Model
from modelpack.errors import NotFound, Unsupported
from modelpack.hands.registry import Registry
from modelpack.stores.registry import RegistrySource
from modelpack.words.blob import Blob
from modelpack.words.reader import Reader
from modelpack.words.reference import Reference

PROGRAM = shutil.which("docker-registry")
USER, PASSWORD = "somebody", "pa:ss wörd"
_HTPASSWD = f"{USER}:$2b$04$abcdefghijklmnopqrstuuC5VMwYwbzdFgvTXUffgXF6mHCmfegLa\n"


@dataclass(frozen=True)
class DockerRegistry:
    """One that runs: `host:port`, and the directory that it keeps things in, missing while it is empty."""

    server: str
    path: Path

    def clear(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


@contextlib.contextmanager
def docker_registry(*, auth: bool = False) -> Iterator[DockerRegistry]:
    """Start Debian's docker-registry on loopback, with a name and a password where *auth*."""
    if PROGRAM is None:
        pytest.skip("docker-registry is not installed")
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place, prefix="modelpack-tests-") as made:
        root = Path(made)
        with socket.create_server(("127.0.0.1", 0)) as free:
            server = f"127.0.0.1:{free.getsockname()[1]}"
        settings: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": made}, "delete": {"enabled": True}},
            "http": {"addr": server},
        }
        if auth:
            (root / "users").write_text(_HTPASSWD)
            settings["auth"] = {"htpasswd": {"realm": "here", "path": str(root / "users")}}
        (root / "config.yml").write_text(json.dumps(settings))  # JSON is YAML
        environment = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
        process = subprocess.Popen(
            [PROGRAM, "serve", str(root / "config.yml")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        try:
            _wait_for(server, process)
            yield DockerRegistry(server, root / "docker")
        finally:
            process.terminate()
            process.wait(10)


def _wait_for(server: str, process: subprocess.Popen[bytes]) -> None:
    host, _, port = server.rpartition(":")
    for _ in range(400):
        assert process.poll() is None, "docker-registry did not start"
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        time.sleep(0.025)
    raise AssertionError("docker-registry does not listen")


@dataclass
class Line:
    """A line to *server* through `place`, which is cut whenever the next of *cuts* bytes more went there."""

    server: str
    cuts: list[int]
    place: str = ""
    sent: int = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Serve; gives `host:port`."""
        line, lock = self, threading.Lock()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                host, _, port = line.server.rpartition(":")
                with socket.create_connection((host, int(port))) as there:
                    back = threading.Thread(target=_pass_on, args=(there, self.request), daemon=True)
                    back.start()
                    with contextlib.suppress(OSError):
                        while (data := self.request.recv(64 * 1024)) and self.goes(there, data):
                            pass
                    for one in (there, self.request):
                        with contextlib.suppress(OSError):
                            one.shutdown(socket.SHUT_RDWR)
                    back.join(10)

            def goes(self, there: socket.socket, data: bytes) -> bool:
                with lock:
                    over = bool(line.cuts) and line.cuts[0] <= len(data)
                    data = data[: line.cuts[0]] if over else data
                    line.sent += len(data)
                    if over:
                        line.cuts.pop(0)
                    elif line.cuts:
                        line.cuts[0] -= len(data)
                there.sendall(data)
                return not over

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        with Server(("127.0.0.1", 0), Handler) as server:
            self.place = f"127.0.0.1:{server.server_address[1]}"
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            try:
                yield self.place
            finally:
                server.shutdown()
                thread.join(10)


def _pass_on(there: socket.socket, here: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := there.recv(64 * 1024):
            here.sendall(data)
        here.shutdown(socket.SHUT_RDWR)


class EveryModel:
    """All models of a registry, as a source: the sum of its tags."""

    def __init__(self, client: Registry) -> None:
        self._client = client
        self._homes: dict[object, RegistrySource] = {}

    def models(self) -> Sequence[Model]:
        found = []
        with urllib.request.urlopen(f"{self._client.base}/v2/_catalog?n=1000") as answer:
            repositories = json.load(answer)["repositories"]
        for repository in repositories:
            for tag in self._client.tags(repository):
                source = RegistrySource(self._client, Reference(self._client.server, repository, tag))
                try:
                    (model,) = source.models()
                except Unsupported:  # what keeps a name
                    assert tag.startswith("sha256-")
                    continue
                found.append(model)
                self._homes |= {blob.digest: source for blob in model.blobs}
        return found

    def open(self, blob: Blob, offset: int = 0) -> AbstractContextManager[Reader]:
        if blob.digest not in self._homes:
            raise NotFound(f"{blob} is not here")
        return self._homes[blob.digest].open(blob, offset)


@dataclass
class FakeRegistry:
    """A registry in memory, honest until a test gives it *faults*: method, pattern, and what happens then.

    A fault that returns True has answered. `secret` is a token that every request has to bring, sold at
    /token for `basic` where that is set.
    """

    manifests: dict[str, tuple[bytes, str]] = field(default_factory=dict)  # by "repository/which"
    blobs: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    faults: list[tuple[str, str, Callable[[Any], bool | None]]] = field(default_factory=list)
    secret: str = ""
    basic: str = ""
    realm: str = ""
    sold: int = 0
    least_chunk: int = 0
    server: str = ""
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def add_image(self, place: str, *layers: tuple[str, bytes], config: bytes = b"{}") -> bytes:
        """An image of Ollama's; the manifest's bytes."""
        from modelpack.documents.image import Image
        from modelpack.words.blob import CONFIG
        from modelpack.words.digest import Digest

        blobs = [Blob(len(data), kind, Digest.of(data)) for kind, data in layers]
        for data in (config, *(data for _, data in layers)):
            self.blobs[str(Digest.of(data))] = data
        raw = Image.compose(Blob(len(config), CONFIG, Digest.of(config)), blobs).raw
        self.manifests[place] = (raw, "application/vnd.docker.distribution.manifest.v2+json")
        return raw

    def fault(self, method: str, pattern: str, what: Callable[[Any], bool | None]) -> None:
        self.faults.append((method, pattern, what))

    def heads(self, method: str, pattern: str = "") -> list[dict[str, str]]:
        return [head for how, path, head in self.asked if how == method and re.search(pattern, path)]

    @contextlib.contextmanager
    def running(self, host: str = "127.0.0.1") -> Iterator[str]:
        """Serve; gives `host:port`."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: object) -> None:
                pass

            def talk(self) -> None:
                fake.asked.append((self.command, self.path, dict(self.headers)))
                for method, pattern, what in fake.faults:
                    if method == self.command and re.search(pattern, self.path) and what(self):
                        return
                fake.answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = talk  # noqa: N815

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        with Server((host, 0), Handler) as server:
            self.server = f"{host}:{server.server_address[1]}"
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            try:
                yield self.server
            finally:
                server.shutdown()
                thread.join(10)

    def answer(self, at: Any) -> None:
        """As an honest registry would."""
        parts = urlsplit(at.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        body = at.rfile.read(int(at.headers.get("Content-Length") or 0))
        if parts.path == "/token":
            if self.basic and at.headers.get("Authorization") != self.basic:
                return say(at, 401)
            self.sold += 1
            self.secret = f"token-{self.sold}"
            return say(at, 200, json.dumps({"token": self.secret}).encode())
        if self.secret and at.headers.get("Authorization") != f"Bearer {self.secret}":
            realm = self.realm or f"http://{self.server}/token"
            return say(at, 401, **{"WWW-Authenticate": f'Bearer realm="{realm}",service="fake"'})
        if found := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", parts.path):
            return self._manifest(at, f"{found[1]}/{found[2]}", body)
        if re.fullmatch(r"/v2/(.+)/blobs/uploads/", parts.path):
            which = str(next(self.numbers))
            self.uploads[which] = bytearray()
            more = {"OCI-Chunk-Min-Length": str(self.least_chunk)} if self.least_chunk else {}
            return say(at, 202, Location=f"/upload/{which}?x=1", **more)
        if found := re.fullmatch(r"/upload/(\d+)", parts.path):
            return self._upload(at, found[1], query, body)
        if found := re.fullmatch(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})", parts.path):
            data = self.blobs.get(found[2])
            return say(at, 404) if data is None else ranged(at, data)
        if found := re.fullmatch(r"/v2/(.+)/tags/list", parts.path):
            there = [key.rpartition("/") for key in self.manifests]
            tags = [which for repository, _, which in there if repository == found[1] and ":" not in which]
            return (
                say(at, 200, json.dumps({"name": found[1], "tags": tags}).encode()) if tags else say(at, 404)
            )
        return say(at, 200 if parts.path == "/v2/" else 404, b"{}" if parts.path == "/v2/" else b"")

    def _manifest(self, at: Any, key: str, body: bytes) -> None:
        if at.command == "PUT":
            digest = "sha256:" + hashlib.sha256(body).hexdigest()
            entry = (body, at.headers["Content-Type"])
            self.manifests[key] = self.manifests[f"{key.rpartition('/')[0]}/{digest}"] = entry
            return say(at, 201)
        if key not in self.manifests:
            error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            return say(at, 404, json.dumps(error).encode())
        raw, kind = self.manifests[key]
        return say(at, 200, raw, **{"Content-Type": kind})

    def _upload(self, at: Any, which: str, query: dict[str, str], body: bytes) -> None:
        if which not in self.uploads:
            return say(at, 404)
        data = self.uploads[which]
        place = {"Location": f"/upload/{which}?x=2"}
        if at.command == "DELETE":
            del self.uploads[which]
            return say(at, 204)
        here = f"{len(data)}-{len(data) + len(body) - 1}"
        if at.command == "PATCH" and at.headers.get("Content-Range", here) != here:
            return say(at, 416, Range=f"0-{len(data) - 1}", **place)
        data += body
        if at.command == "PUT":
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            if digest != query.get("digest"):
                return say(at, 400, b'{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}')
            self.blobs[digest] = bytes(data)
            del self.uploads[which]
            return say(at, 201, **{"Docker-Content-Digest": digest})
        return say(at, 204 if at.command == "GET" else 202, Range=f"0-{max(0, len(data) - 1)}", **place)


def say(at: Any, code: int, body: bytes = b"", **headers: str) -> bool:
    """Answer; headers with a dash by ** of a dict."""
    at.send_response(code)
    for key, value in {"Content-Length": str(len(body)), **headers}.items():
        at.send_header(key, value)
    at.end_headers()
    if at.command != "HEAD":
        with contextlib.suppress(OSError):
            at.wfile.write(body)
    return True


def ranged(at: Any, data: bytes) -> bool:
    """Answer with *data*, or the range of it that is asked for."""
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", at.headers.get("Range", ""))
    if found is None:
        return say(at, 200, data)
    first, last = int(found[1]), min(int(found[2]), len(data) - 1)
    return say(at, 206, data[first : last + 1], **{"Content-Range": f"bytes {first}-{last}/{len(data)}"})


def cut(at: Any, data: bytes, count: int) -> bool:
    """Promise what was asked for of *data*, send *count* bytes of it, and hang up."""
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", at.headers.get("Range", ""))
    first = int(found[1]) if found else 0
    at.send_response(206 if found else 200)
    at.send_header("Content-Length", str(len(data) - first))
    if found:
        at.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
    at.end_headers()
    at.wfile.write(data[first : first + count])
    at.close_connection = True
    return True
