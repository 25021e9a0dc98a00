"""Real Ollama servers: the program that MODELPACK_LIVE_OLLAMA names, on loopback, with its own directory."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from modelpack.errors import Unreachable
from modelpack.hands.ollama import Ollama

PROGRAM = "MODELPACK_LIVE_OLLAMA"
Starter = Callable[[], AbstractContextManager[Ollama]]


@contextmanager
def _running(program: str, home: Path) -> Iterator[Ollama]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home.mkdir(exist_ok=True)
    dead = "http://127.0.0.1:9"  # nothing may leave this machine, whatever the server tries
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(home / "models"),
        "OLLAMA_NO_CLOUD": "1",
        "HTTP_PROXY": dead,
        "HTTPS_PROXY": dead,
        "NO_PROXY": "127.0.0.1,localhost",
    }
    with (
        (home / "serve.log").open("ab") as log,
        subprocess.Popen([program, "serve"], env=environment, cwd=home, stdout=log, stderr=log) as process,
    ):
        try:
            client = Ollama(f"http://127.0.0.1:{port}")
            for _ in range(300):
                try:
                    client.version()
                    break
                except Unreachable:
                    assert process.poll() is None, (home / "serve.log").read_text(encoding="utf-8")
                    time.sleep(0.1)
            yield client
            client.close()
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def start(tmp_path: Path) -> Starter:
    """Starts a server with an empty models directory; again, and it is the same directory."""
    program = os.environ.get(PROGRAM)
    if not program:
        pytest.skip(f"{PROGRAM} names no Ollama")
    return lambda: _running(program, tmp_path / "ollama")


@pytest.fixture
def ollama(start: Starter) -> Iterator[Ollama]:
    """A client of such a server."""
    with start() as client:
        yield client
