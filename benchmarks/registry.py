"""Registries: pulls and pushes beside curl, the depot beside nginx, many readers at once, a long list."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from inspect_dir import make_models, read_all

from modelpack.verbs.hashes import hash_files

READERS, SLOW = 64, 16
NGINX = """
daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1; events {{}}
http {{ access_log off; sendfile on; tcp_nopush on;
  client_body_temp_path {folder}/n1; proxy_temp_path {folder}/n2; fastcgi_temp_path {folder}/n3;
  uwsgi_temp_path {folder}/n4; scgi_temp_path {folder}/n5;
  server {{ listen 127.0.0.1:{port}; root {root}; }} }}
"""


class Table(Protocol):
    """What of `run.Bench` is used here."""

    folder: Path

    def row(self, what: str, ours: float, yard: float, target: str, unit: str = "s") -> None: ...

    def skip(self, what: str, why: str) -> None: ...

    def pairs(self, *works: Callable[[], None]) -> list[float]: ...


Depot = Callable[[Path], AbstractContextManager[tuple[str, "subprocess.Popen[str]"]]]


def registries(
    bench: Table,
    big: Path,
    run: Callable[..., Callable[[], None]],
    modelpack: list[str],
    depot: Depot,
    peak: Callable[..., float],
) -> None:
    """All rows; the depot's models are loaded first, through its directory."""
    models, tar = bench.folder / "r-models", bench.folder / "r.tar"
    run(*modelpack, "pack", big, "--name", "m", "-o", tar, "-q")()
    run(*modelpack, "load", tar, "--to", models, "-q")()
    digest = next(iter(hash_files([big]))).sha256
    blob = models / "blobs" / f"sha256-{digest.hex}"
    with depot(models) as (url, process):
        place = url.removeprefix("http://")
        fetched = f"{url}/v2/library/m/blobs/{digest}"
        _pulling(bench, run, modelpack, place, fetched)
        _serving(bench, run, fetched, blob)
        _readers(bench, url, fetched, blob.stat().st_size, process.pid)
        pulled = [*modelpack, "pack", f"oci://{place}/library/m", "--plain-http", "-o", bench.folder / "p"]
        bench.row("peak memory of a pull (MiB)", peak(*pulled), 120, "<= 1", "M")
        shutil.rmtree(bench.folder / "p")
        pushed = [*modelpack, "load", tar, "--as", "second", "--to", f"oci://{place}/bench", "--plain-http"]
        blob.unlink()  # so that it is sent
        bench.row("peak memory of a push (MiB)", peak(*pushed), 120, "<= 1", "M")
    _pushing(bench, run, modelpack, depot, tar, big, digest)
    for path in (models, tar):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    _listing(bench, depot)


def _pulling(
    bench: Table, run: Callable[..., Callable[[], None]], modelpack: list[str], place: str, fetched: str
) -> None:
    out, copied = bench.folder / "pulled.tar", bench.folder / "pulled"

    def pull() -> None:
        out.unlink(missing_ok=True)
        run(*modelpack, "pack", f"oci://{place}/library/m", "--plain-http", "-o", out, "-q")()

    def curl() -> None:
        copied.unlink(missing_ok=True)
        run("sh", "-c", f"curl -sf -o {copied} {fetched} && sync {copied} && openssl sha256 {copied}")()

    ours, yard = bench.pairs(pull, curl)
    bench.row("pull to a tar / curl, sync and its hash", ours, yard, "<= 1.0")
    for path in (out, copied):
        path.unlink(missing_ok=True)


def _serving(bench: Table, run: Callable[..., Callable[[], None]], fetched: str, blob: Path) -> None:
    if not shutil.which("nginx"):
        bench.skip("depot to curl / nginx to curl", "no nginx here")
        return
    with _nginx(bench.folder, blob.parent) as url:
        ours, yard = bench.pairs(
            run("curl", "-sf", "-o", "/dev/null", fetched),
            run("curl", "-sf", "-o", "/dev/null", f"{url}/{blob.name}"),
        )
    size = blob.stat().st_size
    bench.row("depot to curl / nginx to curl (GB/s)", size / ours / 1e9, size / yard / 1e9, ">= 0.8", "G")


@contextmanager
def _nginx(folder: Path, root: Path) -> Iterator[str]:
    port = 18_431
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, root=root))
    for path in (folder, *folder.parents, root):  # its worker is nobody
        path.chmod(path.stat().st_mode | 0o055) if path.stat().st_mode & 0o055 != 0o055 else None
    with subprocess.Popen(["nginx", "-c", str(config), "-e", "stderr"], stderr=subprocess.DEVNULL) as process:
        time.sleep(0.5)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _readers(bench: Table, url: str, fetched: str, size: int, pid: int) -> None:
    """64 ranged readers, a quarter of them slow: how long /api/version takes meanwhile, and the memory."""
    place, path = url.removeprefix("http://"), fetched.removeprefix(url)
    before, ended = _peak(pid), threading.Event()

    def read(number: int) -> None:
        begin = size * number // READERS
        connection = http.client.HTTPConnection(place, timeout=60)
        connection.request("GET", path, headers={"Range": f"bytes={begin}-{size - 1}"})
        answer = connection.getresponse()
        while not ended.is_set() and answer.read(64 * 1024):
            if number % (READERS // SLOW) == 0:
                time.sleep(0.2)
        connection.close()

    threads = [threading.Thread(target=read, args=(number,), daemon=True) for number in range(READERS)]
    for thread in threads:
        thread.start()
    slowest = 0.0
    for _ in range(20):
        time.sleep(0.1)
        begun = time.perf_counter()
        connection = http.client.HTTPConnection(place, timeout=60)
        connection.request("GET", "/api/version")
        connection.getresponse().read()
        connection.close()
        slowest = max(slowest, time.perf_counter() - begun)
    ended.set()
    for thread in threads:
        thread.join(10)
    bench.row("version beside 64 ranged readers (s)", slowest, 1.0, "<= 1")
    bench.row("peak memory of the depot with them (MiB)", _peak(pid), 120, "<= 1", "M")
    bench.row("  of that more than before (MiB)", _peak(pid) - before, 120, "<= 0.5", "M")


def _peak(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def _pushing(
    bench: Table,
    run: Callable[..., Callable[[], None]],
    modelpack: list[str],
    depot: Depot,
    tar: Path,
    big: Path,
    digest: Any,
) -> None:
    models = bench.folder / "r-pushed"
    with depot(models) as (url, _):

        def fresh(work: Callable[[], None]) -> Callable[[], None]:
            def cleared() -> None:
                (models / "blobs" / f"sha256-{digest.hex}").unlink(missing_ok=True)
                shutil.rmtree(models / "manifests", ignore_errors=True)
                work()

            return cleared

        def curl() -> None:
            place = url.removeprefix("http://")
            connection = http.client.HTTPConnection(place)
            connection.request("POST", "/v2/library/m/blobs/uploads/", headers={"Content-Length": "0"})
            where = connection.getresponse().headers["Location"]
            where = where if where.startswith("http") else url + where
            mark = "&" if "?" in where else "?"
            run("curl", "-sf", "-T", big, f"{where}{mark}digest={digest}")()

        ours, yard = bench.pairs(
            fresh(run(*modelpack, "load", tar, "--to", f"oci://{url[7:]}/library", "--plain-http", "-q")),
            fresh(curl),
        )
    bench.row("push to a depot / curl -T", ours, yard, "<= 1.15")
    shutil.rmtree(models)


def _listing(bench: Table, depot: Depot, count: int = 1000) -> None:
    models = bench.folder / "r-listed"
    make_models(models, count)
    with depot(models) as (url, _):
        connection = http.client.HTTPConnection(url.removeprefix("http://"))

        def tags() -> None:
            connection.request("GET", "/api/tags")
            json.loads(connection.getresponse().read())

        ours, yard = bench.pairs(tags, lambda: read_all(str(models / "manifests"), json.loads))
        connection.close()
    bench.row(f"list of {count} models / read their manifests", ours, yard, "<= 2")
    shutil.rmtree(models)
