"""Small real servers on loopback: one that speaks like Ollama, and one that says whatever a test wants."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from modelpack.documents.gojson import go_json
from modelpack.documents.show import DEFAULT_TEMPLATE, modelfile_text, parameters_text
from modelpack.words.name import Name

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
BLOBS = "/usr/share/ollama/.ollama/models/blobs/sha256-"


class _Quiet(ThreadingHTTPServer):
    """Says nothing of clients that hang up."""

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def talking(talk: Callable[[socket.socket], None], times: int = 1) -> Iterator[str]:
    """A server that lets *talk* have each of its first *times* connections; gives its base URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(times):
                try:
                    connection, _address = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        talk(connection)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def head_of(connection: socket.socket) -> bytes:
    """The request line and headers, and no byte of the body."""
    got = b""
    while not got.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        if not piece:
            break
        got += piece
    return got


def answering(answer: bytes, read_body: bool = True) -> Callable[[socket.socket], None]:
    """A talk that gives *answer* to every request on the connection, and then hangs up."""

    def talk(connection: socket.socket) -> None:
        head = head_of(connection)
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        while read_body and length:
            piece = connection.recv(min(length, 65536))
            if not piece:
                return
            length -= len(piece)
        connection.sendall(answer)

    return talk


def ok(body: bytes, kind: str = "application/json", more: str = "") -> bytes:
    """An answer with status 200."""
    return status(200, body, kind, more)


def status(code: int, body: bytes = b"", kind: str = "application/json", more: str = "") -> bytes:
    """An answer with any status."""
    head = f"HTTP/1.1 {code} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}"
    return head.encode() + b"Connection: close\r\n\r\n" + body


class FakeOllama:
    """Ollama's management API in memory. `faults` maps "METHOD /path" to a function that answers instead."""

    def __init__(self, version: str = "0.24.0", *, rewrite: bool = False) -> None:
        self.version: dict[str, Any] = {"version": version}
        self.rewrite = rewrite
        self.blobs: dict[str, bytes] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.heads: list[dict[str, str]] = []
        self.received = 0  # bytes of blobs
        self.faults: dict[str, Callable[[Any], None]] = {}
        self.before_create: Callable[[], None] = lambda: None
        self.manifests: dict[str, bytes] = {}  # models that were pulled
        self.taken_up: Callable[[bytes], bytes] = lambda raw: raw  # what a pull makes of a manifest

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve; gives the base URL."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_args: object) -> None:
                pass

            def do_GET(self) -> None:
                fake._answer(self)

            do_HEAD = do_POST = do_DELETE = do_GET  # noqa: N815

        server = _Quiet(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join(10)

    def _answer(self, at: Any) -> None:
        method, path = at.command, at.path
        self.asked.append((method, path))
        self.heads.append({key.lower(): value for key, value in at.headers.items()})
        # A fault for a blob reads the body itself, or leaves it.
        blob = path.startswith("/api/blobs/")
        raw = b"" if blob else at.rfile.read(int(at.headers.get("Content-Length") or 0))
        for key, fault in self.faults.items():
            if f"{method} {path}".startswith(key):
                fault(at)
                return
        if blob:
            self._blob(at, path.removeprefix("/api/blobs/"))
            return
        data = json.loads(raw or b"{}")
        if path == "/api/version":
            say(at, 200, self.version)
        elif path == "/api/tags":
            say(at, 200, {"models": [self._listed(name) for name in {**self.models, **self.manifests}]})
        elif path == "/api/show":
            name = Name.parse(data["model"])
            found = next((each for each in self.models if Name.parse(each).folded == name.folded), None)
            if found is None:
                say(at, 404, {"error": f"model '{name}' not found"})
            else:
                say(at, 200, self._shown(found))
        elif path == "/api/create":
            self._create(at, data)
        elif path == "/api/pull":
            self._pull(at, data["model"])
        elif path == "/api/copy":
            self.manifests[full(data["destination"])] = self.manifests[full(data["source"])]
            say(at, 200, None)
        elif path == "/api/delete":
            del self.manifests[full(data["model"])]
            say(at, 200, None)
        else:
            say(at, 404, {"error": "no such route"})

    def _blob(self, at: Any, digest: str) -> None:
        if at.command == "HEAD":
            say(at, 200 if digest in self.blobs else 404, None)
            return
        if digest in self.blobs:
            say(at, 200, None, hang_up=True)  # as Ollama: at once, with the body unread
            return
        body = at.rfile.read(int(at.headers["Content-Length"]))
        self.received += len(body)
        real = "sha256:" + hashlib.sha256(body).hexdigest()
        if len(body) < int(at.headers["Content-Length"]):
            at.close_connection = True
        elif real != digest:
            say(at, 400, {"error": f'digest mismatch, expected "{digest}", got "{real}"'})
        else:
            self.blobs[digest] = body
            say(at, 201, None)

    def _create(self, at: Any, data: dict[str, Any]) -> None:
        self.before_create()
        gone = [each for each in data.get("files", {}).values() if each not in self.blobs]
        lines: list[dict[str, Any]] = [{"status": "parsing GGUF"}]
        if gone:
            name = gone[0].replace(":", "-")
            lines.append({"error": f"open {BLOBS[:-7]}{name}: no such file or directory"})
        else:
            lines += [{"status": "validating GGUF model", "total": 4, "completed": 1}] if self.rewrite else []
            lines += [{"status": "writing manifest"}, {"status": "success"}]
            old = next((each for each in self.models if each.lower() == full(data["model"]).lower()), None)
            self.models[old or full(data["model"])] = data
        stream(at, lines)

    def _pull(self, at: Any, text: str) -> None:
        name = Name.parse(text)
        url = f"http://{name.host}/v2/{name.namespace}/{name.model}/manifests/{name.tag}"
        try:
            number = self.version["version"]
            request = urllib.request.Request(url, headers={"User-Agent": f"ollama/{number} (amd64 linux)"})
            with _DIRECT.open(request, timeout=10) as answer:
                raw = self.taken_up(answer.read())
        except urllib.error.HTTPError as error:
            error.close()
            stream(at, [{"error": "pull model manifest: file does not exist"}])
            return
        except OSError as error:
            stream(at, [{"error": f"pull model manifest: Get {url}: {error}"}])
            return
        for layer in [*json.loads(raw)["layers"], json.loads(raw)["config"]]:
            if layer["digest"] not in self.blobs:
                stream(at, [{"error": "pull blob: file does not exist"}])
                return
        self.manifests[full(text)] = raw
        stream(at, [{"status": "pulling manifest"}, {"status": "success"}])

    def _listed(self, name: str) -> dict[str, Any]:
        raw = self.manifests.get(name) or json.dumps(self.models[name], sort_keys=True).encode()
        digest = hashlib.sha256(raw).hexdigest()
        details = {"format": "gguf", "families": ["llama"]}
        time = "2026-11-23T04:46:44Z"
        return {
            "name": name,
            "model": name,
            "modified_at": time,
            "size": 5,
            "digest": digest,
            "details": details,
        }

    def _shown(self, name: str) -> dict[str, Any]:
        data = self.models[name]
        paths = [each.removeprefix("sha256:") for each in data.get("files", {}).values()]
        if self.rewrite:
            paths[0] = hashlib.sha256(paths[0].encode()).hexdigest()
        text = modelfile_text(
            name,
            model=BLOBS + paths[0],
            adapters=[BLOBS + each.removeprefix("sha256:") for each in data.get("adapters", {}).values()],
            projectors=[BLOBS + each for each in paths[1:]],
            template=data.get("template") or DEFAULT_TEMPLATE,
            system=data.get("system", ""),
            renderer=data.get("renderer", ""),
            parser=data.get("parser", ""),
            params=data.get("parameters"),
            licenses=data.get("license", []),
            messages=data.get("messages", []),
        )
        return {
            "license": "\n".join(data.get("license", [])),
            "modelfile": text,
            "parameters": parameters_text(data.get("parameters", {})),
            "template": data.get("template") or DEFAULT_TEMPLATE,
            "system": data.get("system", ""),
            "messages": data.get("messages", []),
            "requires": data.get("requires", ""),
            "details": {"format": "gguf"},
            "model_info": {},
        }


def full(name: str) -> str:
    """As /api/tags spells it."""
    return str(Name.parse(name))


def say(at: Any, code: int, value: Any, *, hang_up: bool = False) -> None:
    """Answer with JSON, or with nothing."""
    body = b"" if value is None or at.command == "HEAD" else go_json(value)
    at.send_response(code)
    at.send_header("Content-Type", "application/json; charset=utf-8")
    at.send_header("Content-Length", str(len(body)))
    if hang_up:  # Go's server announces it where it leaves a body unread, or nobody could use it again
        at.send_header("Connection", "close")
    at.end_headers()
    at.wfile.write(body)
    at.close_connection = at.close_connection or hang_up


def stream(at: Any, lines: list[dict[str, Any]]) -> None:
    """Answer with NDJSON, chunked."""
    at.send_response(200)
    at.send_header("Content-Type", "application/x-ndjson")
    at.send_header("Transfer-Encoding", "chunked")
    at.end_headers()
    for line in lines:
        raw = go_json(line) + b"\n"
        at.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")
        at.wfile.flush()
    at.wfile.write(b"0\r\n\r\n")
