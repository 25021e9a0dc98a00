"""The same model on the other side: an exact load beside curl, reading back, and what a second load costs.

The server is a depot, or the Ollama that MODELPACK_LIVE_OLLAMA names: on loopback, in a directory of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from modelpack.verbs.hashes import hash_files

PROGRAM = "MODELPACK_LIVE_OLLAMA"
DEPOT = "a depot"
DEAD = "http://127.0.0.1:9"  # nothing may leave this machine, whatever the server tries


class Table(Protocol):
    """What of `run.Bench` is used here."""

    folder: Path
    runs: int

    def row(self, what: str, ours: float, yard: float, target: str, unit: str = "s") -> None: ...

    def pairs(self, *works: Callable[[], None]) -> list[float]: ...


Command = Callable[..., Callable[[], None]]
Depot = Callable[[Path], AbstractContextManager[tuple[str, "subprocess.Popen[str]"]]]


@dataclass(frozen=True)
class Server:
    """A server that runs: what to call it in a row, its address, its models directory, its process."""

    called: str
    url: str
    models: Path
    process: int

    def clear(self) -> None:
        """It has no model and no blob any more."""
        for part in ("blobs", "manifests"):
            for path in (self.models / part).iterdir() if (self.models / part).is_dir() else ():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def blobs(self) -> dict[str, tuple[int, int]]:
        """Of every blob which file it is, and when that was written last."""
        found = {path.name: path.stat() for path in (self.models / "blobs").iterdir()}
        return {name: (one.st_ino, one.st_mtime_ns) for name, one in found.items()}


def exactly(
    bench: Table,
    big: Path,
    run: Command,
    modelpack: list[str],
    depot: Depot,
    peak: Callable[..., float],
    poured: Command,
) -> None:
    """All rows. *big* is a GGUF; the bundle of it is b.tar, made here where no other row has."""
    tar = bench.folder / "b.tar"
    if not tar.exists():
        run(*modelpack, "pack", big, "-o", tar, "-q")()
    with _server(bench.folder / "x-server", depot) as server:
        ends = [tar, "--to", server.url, "--exact"]
        load, plan = [*modelpack, "load", *ends], [*modelpack, "plan", *ends]
        _sending(bench, run, server, load, big)
        server.clear()
        _planning(bench, server, "plan", plan, big)
        taken = peak(*load)
        _planning(bench, server, "plan, loaded before", plan, big)
        _planning(bench, server, "second load", [*load, "--json"], big)
        _reading_back(bench, run, server, modelpack, big, poured)
        bench.row("peak memory of an exact load (MiB)", taken, 120, "<= 1", "M")
        back = bench.folder / "back.tar"
        taken = peak(*modelpack, "pack", f"{server.url}#{big.stem}", "-o", back)
        bench.row("peak memory of reading back (MiB)", taken, 120, "<= 1", "M")
        run(*modelpack, "verify", back, "-q")()
        back.unlink()
    shutil.rmtree(bench.folder / "x-server")


@contextlib.contextmanager
def _server(folder: Path, depot: Depot) -> Iterator[Server]:
    program = os.environ.get(PROGRAM)
    if not program:
        with depot(folder) as (url, process):
            yield Server(DEPOT, url, folder, process.pid)
        return
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "OLLAMA_HOST": place,
        "OLLAMA_MODELS": str(folder / "models"),
        "OLLAMA_NO_CLOUD": "1",
        "HTTP_PROXY": DEAD,
        "HTTPS_PROXY": DEAD,
        "NO_PROXY": "127.0.0.1,localhost",
    }
    with (
        (folder / "serve.log").open("wb") as log,
        subprocess.Popen([program, "serve"], env=environment, cwd=folder, stdout=log, stderr=log) as process,
    ):
        try:
            called = f"Ollama {_version(f'http://{place}')}"
            yield Server(called, f"http://{place}", folder / "models", process.pid)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _version(url: str) -> str:
    """What the server says once it answers."""
    plain = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(299):
        with contextlib.suppress(OSError), plain.open(f"{url}/api/version", timeout=5) as answer:
            return str(json.load(answer)["version"])
        time.sleep(0.1)
    raise TimeoutError(f"no answer from {url}")


def _sending(bench: Table, run: Command, server: Server, load: list[Any], big: Path) -> None:
    """Both to a server that has nothing; what it takes to make it so is outside the clock."""
    digest = next(iter(hash_files([big]))).sha256
    works = (
        run(*load, "-q"),
        run("curl", "-sf", "-X", "POST", "-T", big, f"{server.url}/api/blobs/{digest}"),
    )
    taken: list[list[float]] = [[], []]
    for turn in range(bench.runs + 1):
        for times, work in zip(taken, works, strict=True):
            server.clear()
            os.sync()
            begun = time.perf_counter()
            work()
            if turn:  # the first turn warms up
                times.append(time.perf_counter() - begun)
    ours, yard = map(statistics.median, taken)
    bench.row(f"exact load, {server.called} / curl -T", ours, yard, "<= 1.15")


def _reading_back(
    bench: Table, run: Command, server: Server, modelpack: list[str], big: Path, poured: Command
) -> None:
    back, copied = bench.folder / "back.tar", bench.folder / "copied"

    def pack() -> None:
        back.unlink(missing_ok=True)
        run(*modelpack, "pack", f"{server.url}#{big.stem}", "-o", back, "-q")()

    def dd() -> None:
        copied.unlink(missing_ok=True)
        run("dd", f"if={big}", f"of={copied}", "bs=4M", "conv=fsync")()

    md5 = run("openssl", "md5", big)
    ours, copy, sha, pushed = bench.pairs(pack, dd, poured(big), md5)
    bench.row(f"read back, {server.called} / max(SHA-256, dd)", ours, max(sha, copy), "<= 1.15")
    if server.called != DEPOT:  # while it pushes, it makes the MD5 of every part, and one part at a time
        bench.row("  … / MD5 of it alone, which Ollama makes", ours, pushed, "<= 1.15")
    for path in (back, copied):
        path.unlink()


def _planning(bench: Table, server: Server, what: str, command: list[Any], big: Path) -> None:
    """Its seconds, and whether a blob's bytes moved: what both processes read and wrote, the files there."""
    before = server.blobs()
    flows: list[tuple[int, bytes]] = []
    took, _ = bench.pairs(lambda: flows.append(_flow(command, server)), lambda: None)
    flow, said = flows[-1]
    bench.row(f"{what}, {server.called} (s)", took, 1.0, "<= 0.5")
    bench.row(
        "  of it read and written / the blob (MiB)", flow / 2**20, big.stat().st_size / 2**20, "<= 0.5", "M"
    )
    if said.startswith(b"{"):
        sent = sum(one["bytes_sent"] for one in json.loads(said)["models"])
        bench.row("  bytes sent", sent, 1, "<= 0", "B")
    if server.blobs() != before:
        print(f"{'  the blobs of the server were changed':44} MISSED")


def _flow(command: list[Any], server: Server) -> tuple[int, bytes]:
    """Bytes that *command* and the server read and wrote meanwhile, as the kernel counts; what it printed."""
    before = _count(server.process)
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its counts are there until it is reaped
        flow = _count(process.pid)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return flow + _count(server.process) - before, said


def _count(pid: int) -> int:
    counts = Path(f"/proc/{pid}/io").read_text()
    return sum(int(one) for one in re.findall(r"^[rw]char: (\d+)", counts, re.MULTILINE))
