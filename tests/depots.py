"""A depot to talk to over real HTTP, in this process or in its own, and raw sockets to misbehave with."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parents[1] / "fixtures"
MIB = 1 << 20


@dataclass(frozen=True)
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def kind(self) -> str | None:
        return self.headers.get("Content-Type")

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.body.splitlines()]


def ask(
    url: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> Answered:
    """One request on a connection of its own; a dict is sent as JSON."""
    if isinstance(body, dict):
        body = json.dumps(body)
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return Answered(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


def put(url: str, data: bytes) -> str:
    """Upload a blob; its digest."""
    digest = digest_of(data)
    assert ask(url, "POST", f"/api/blobs/{digest}", data).status in (200, 201)
    return digest


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def make(url: str, name: str, gguf: str = "tiny-llama.gguf", **more: Any) -> Answered:
    """Create a model of a fixture."""
    digest = put(url, (FIXTURES / gguf).read_bytes())
    return ask(url, "POST", "/api/create", {"model": name, "files": {gguf: digest}, **more})


def files_below(path: Path) -> set[str]:
    return {str(each.relative_to(path)) for each in path.rglob("*") if each.is_file()}


@contextlib.contextmanager
def raw(url: str, timeout: float = 30) -> Iterator[socket.socket]:
    """A connection to say anything over."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as connection:
        yield connection


@contextlib.contextmanager
def threads(count: int, work: Callable[[int], None]) -> Iterator[None]:
    """*work(number)* in so many threads; they have to be done by the end."""
    running = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(count)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        for thread in running:
            thread.join(30)
            assert not thread.is_alive()


def push_blob(url: str, repository: str, data: bytes) -> str:
    """Upload a blob as a registry's client does; its digest."""
    digest = digest_of(data)
    begun = ask(url, "POST", f"/v2/{repository}/blobs/uploads/")
    place = begun.headers["Location"].removeprefix(url)
    assert (begun.status, ask(url, "PATCH", place, data).status) == (202, 202)
    assert ask(url, "PUT", f"{place}?digest={digest}").status == 201
    return digest


def head(method: str, path: str, url: str, **headers: str) -> bytes:
    """The first bytes of a request: `Content_Length="5"` is a header."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {url.removeprefix('http://')}"]
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def rest_of(connection: socket.socket) -> bytes:
    """All that still comes; a reset is an end."""
    pieces = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            pieces += piece
    return bytes(pieces)


_PROGRAM = """
import sys
from pathlib import Path
from modelpack.depot.serve import serve
from modelpack.stores.archive import Archive
place = Path(sys.argv[1])
place = Archive(place) if place.is_file() else place
serve(place, port=0, writable=sys.argv[2] == "w", ready=lambda url: print(url, flush=True))
"""


class Own:
    """A depot in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url

    def peak(self) -> int:
        """The most memory that it has had, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024


@contextlib.contextmanager
def own_depot(path: Path, *, writable: bool = True) -> Iterator[Own]:
    """Start it, and stop it by SIGTERM; it has to end well unless the test killed it."""
    command = [sys.executable, "-c", _PROGRAM, str(path), "w" if writable else "r"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "LANG": "C"}
    )
    assert process.stdout is not None
    try:
        yield Own(process, process.stdout.readline().strip())
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        if process.returncode != -signal.SIGKILL:
            assert (process.returncode, errors) == (0, "")
