"""How fast, how much memory: one table of medians and ratios, everything measured in this one run.

    python benchmarks/run.py [--size 4GiB] [--runs 3] [--dir DIR] [--only WORD]

Needs modelpack with the extra `test` in the interpreter that runs it, and openssl, b3sum, curl and dd on the
PATH (a row whose yardstick is missing says so). Files lie in --dir (a temporary one): four times --size.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from exact import exactly
from hosts import hosts
from inspect_dir import inspecting
from media import media
from registry import registries
from sets import sets, shards

from modelpack.hands.bytes import FileReader
from modelpack.hands.hashing import pour
from modelpack.verbs.hashes import hash_files
from modelpack.words.text import parse_size

MODELPACK = [sys.executable, "-m", "modelpack"]
MIB = 1 << 20


def make_gguf(path: Path, size: int) -> None:
    """A GGUF of about *size* bytes with one tensor of noise: a header that every tool takes for a llama."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    facts = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("general.file_type") + struct.pack("<II", 4, 1),
        text("llama.block_count") + struct.pack("<II", 4, 1),
        text("llama.context_length") + struct.pack("<II", 4, 256),
    ]
    elements = size // 2 // 32 * 32
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(facts)) + b"".join(facts)
    head += text("w") + struct.pack("<IQIQ", 1, elements, 1, 0)
    noise = bytearray(os.urandom(MIB))
    with path.open("wb") as file:
        file.write(head + bytes(-len(head) % 32))
        left, number = elements * 2, 0
        while left:
            noise[:8] = struct.pack("<Q", number)
            number += 1
            left -= file.write(noise[: min(left, MIB)])


class Bench:
    """Rows of a table, each a figure of ours against a yardstick of the same run."""

    def __init__(self, folder: Path, runs: int, only: str | None) -> None:
        self.folder, self.runs, self.only = folder, runs, only
        print(f"{'what':44} {'ours':>10} {'yardstick':>10} {'ratio':>7}  target")

    def row(self, what: str, ours: float, yard: float, target: str, unit: str = "s") -> None:
        """One line; *target* reads like `<= 1.15` or `>= 0.95` and is of the ratio ours / yardstick."""
        ratio = ours / yard if yard else float("nan")
        sign, bound = target.split()
        met = ratio <= float(bound) if sign == "<=" else ratio >= float(bound)
        word = "ok" if met else "MISSED"
        print(f"{what:44} {ours:8.3f} {unit:1} {yard:8.3f} {unit:1} {ratio:7.3f}  {target} {word}")
        sys.stdout.flush()

    def skip(self, what: str, why: str) -> None:
        print(f"{what:44} not measured: {why}")

    def wants(self, word: str) -> bool:
        return self.only is None or self.only in word

    def pairs(self, *works: Callable[[], None], before: Callable[[], object] = int) -> list[float]:
        """Medians of the seconds that each of *works* takes, run in turn; *before* each, out of its time."""
        taken: list[list[float]] = [[] for _ in works]
        for turn in range(self.runs + 1):
            for times, work in zip(taken, works, strict=True):
                before()
                os.sync()  # nobody pays for what another has left to the disk
                begun = time.perf_counter()
                work()
                if turn:  # the first turn warms up
                    times.append(time.perf_counter() - begun)
        return [statistics.median(times) for times in taken]


def run(*command: str | Path, **kwargs: object) -> Callable[[], None]:
    """A whole process; its output thrown away."""

    def work() -> None:
        subprocess.run(  # type: ignore[call-overload]
            list(map(str, command)),
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **kwargs,
        )

    return work


def poured(path: Path, **kwargs: bool) -> Callable[[], None]:
    def work() -> None:
        with FileReader.at(path) as reader:
            pour(reader, reader.size, **kwargs)

    return work


def hashing(bench: Bench, big: Path, several: list[Path]) -> None:
    size = big.stat().st_size
    said = subprocess.run(
        ["openssl", "speed", "-evp", "sha256", "-bytes", str(MIB), "-seconds", "3"],
        capture_output=True,
        text=True,
    ).stdout
    found = re.search(r"^sha256\s+([\d.]+)k", said, re.MULTILINE)
    alone, both = bench.pairs(poured(big), poured(big, blake3=True))
    if found:
        bench.row("SHA-256 of one file (GB/s)", size / alone / 1e9, float(found[1]) / 1e6, ">= 0.95", "G")
    bench.row("SHA-256 + BLAKE3 in one read / SHA-256", both, alone, "<= 1.05")
    one, many = bench.pairs(lambda: one_by_one(several), lambda: side_by_side(several))
    bench.row("several files, one thread / side by side", one, many, ">= 1.9")


def one_by_one(paths: list[Path]) -> None:
    """The yardstick of one thread: read and hash in turn."""
    for path in paths:
        digest, buffer = hashlib.sha256(), bytearray(MIB)
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                digest.update(memoryview(buffer)[:count])


def side_by_side(paths: list[Path]) -> None:
    """As `verify` and `hash` do it where there is a file for every core."""
    with ThreadPoolExecutor(len(paths)) as pool:
        list(pool.map(lambda path: poured(path, overlap=False)(), paths))


def packing(bench: Bench, big: Path) -> None:
    out, copied = bench.folder / "b.tar", bench.folder / "copied"

    def pack() -> None:
        out.unlink(missing_ok=True)
        run(*MODELPACK, "pack", big, "-o", out, "-q")()

    def dd() -> None:
        copied.unlink(missing_ok=True)
        run("dd", f"if={big}", f"of={copied}", "bs=4M", "conv=fsync")()

    ours, copy, sha = bench.pairs(pack, dd, poured(big))
    bench.row("pack / max(SHA-256 alone, dd conv=fsync)", ours, max(sha, copy), "<= 1.15")
    copied.unlink(missing_ok=True)


def verifying(bench: Bench, big: Path, several: list[Path]) -> None:
    if not shutil.which("b3sum"):
        bench.skip("verify / b3sum", "no b3sum here")
        return
    folder = bench.folder / "several"
    for path in several:
        run(*MODELPACK, "pack", path, "-o", folder, "-q")()
    blobs = [one for one in (folder / "blobs" / "sha256").iterdir() if one.stat().st_size > MIB]
    ours, yard = bench.pairs(run(*MODELPACK, "verify", bench.folder / "b.tar", "-q"), run("b3sum", big))
    bench.row("verify of one blob / b3sum", ours, yard, "<= 1.2")
    ours, yard = bench.pairs(run(*MODELPACK, "verify", folder, "-q"), run("b3sum", *blobs))
    bench.row("verify of several blobs / b3sum", ours, yard, "<= 1.05")


def small(bench: Bench) -> None:
    ours, yard = bench.pairs(run(*MODELPACK, "--version"), run(sys.executable, "-c", "pass"))
    bench.row("--version / python -c pass", ours, yard, "<= 5")


@contextlib.contextmanager
def depot(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A writable depot in a process of its own, on a free port."""
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [*MODELPACK, "serve", str(folder), "--port", "0", "--writable"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"http://\S+", line)
    assert found, line
    threading.Thread(target=process.stderr.read, daemon=True).start()
    try:
        yield found[0].rstrip("/"), process
    finally:
        process.terminate()
        process.wait()


SINK = """
import re, socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
piece = bytearray(1 << 20)
while True:
    client, _ = listener.accept()
    with client:
        head = b""
        while b"\\r\\n\\r\\n" not in head:
            head += client.recv(65536)
        head, _, rest = head.partition(b"\\r\\n\\r\\n")
        length = re.search(rb"(?i)content-length: *([0-9]+)", head)
        if b"100-continue" in head.lower():
            client.sendall(b"HTTP/1.1 100 Continue\\r\\n\\r\\n")
        if length:
            left = int(length[1]) - len(rest)
            while left > 0:
                left -= client.recv_into(piece)
        else:
            tail = rest[-5:]
            while not tail.endswith(b"0\\r\\n\\r\\n"):
                count = client.recv_into(piece)
                tail = (tail + piece[max(0, count - 5):count])[-5:]
        client.sendall(b"HTTP/1.1 201 Created\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
"""
"""A server that takes a body and drops it: what is measured against it is the client alone."""

OURS = (
    "import sys; from pathlib import Path; from modelpack import Digest, Ollama; "
    "from modelpack.hands.bytes import FileReader; r = FileReader.at(Path(sys.argv[2])); "
    "Ollama(sys.argv[1]).upload_blob(Digest.parse(sys.argv[3]), r.size, r)"
)
OFFICIAL = (
    "import ollama, pathlib, sys; "
    "ollama.Client(host=sys.argv[1], trust_env=False).create_blob(pathlib.Path(sys.argv[2]))"
)


def sinking(bench: Bench, big: Path, digest: object) -> None:
    server = subprocess.Popen([sys.executable, "-c", SINK], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}"
    try:
        ours, yard, theirs = bench.pairs(
            run(sys.executable, "-c", OURS, url, big, str(digest)),
            run("curl", "-sf", "-X", "POST", "-T", big, f"{url}/api/blobs/{digest}"),
            run(sys.executable, "-c", OFFICIAL, url, big),
        )
    finally:
        server.kill()
    bench.row("upload, server drops it / curl -T", ours, yard, "<= 1.15")
    bench.row("upload, server drops it / official client", ours, theirs, "<= 0.6")


def uploading(bench: Bench, big: Path) -> None:
    digest = next(iter(hash_files([big]))).sha256
    sinking(bench, big, digest)
    with depot(bench.folder / "depot") as (url, _):
        blob = bench.folder / "depot" / "blobs" / f"sha256-{digest.hex}"
        manifests = bench.folder / "depot" / "manifests"

        def fresh(work: Callable[[], None]) -> Callable[[], None]:
            def cleared() -> None:
                blob.unlink(missing_ok=True)
                shutil.rmtree(manifests, ignore_errors=True)
                work()

            return cleared

        load = run(*MODELPACK, "load", bench.folder / "b.tar", "--to", url, "-q")
        curl = run("curl", "-sf", "-X", "POST", "-T", big, f"{url}/api/blobs/{digest}")
        official = run(sys.executable, "-c", OFFICIAL, url, big)
        ours, yard, theirs = bench.pairs(fresh(load), fresh(curl), fresh(official))
        bench.row("upload (load to a depot) / curl -T", ours, yard, "<= 1.15")
        bench.row("upload / the official client's create_blob", ours, theirs, "<= 0.6")
        load()
        again, _ = bench.pairs(load, lambda: None)
        bench.row("second load, depot (s)", again, 1.0, "<= 0.3")
    models = bench.folder / "models"
    run(*MODELPACK, "load", bench.folder / "b.tar", "--to", models, "-q")()
    again, _ = bench.pairs(
        run(*MODELPACK, "load", bench.folder / "b.tar", "--to", models, "-q"), lambda: None
    )
    bench.row("second load, models directory (s)", again, 1.0, "<= 0.3")
    shutil.rmtree(models)


def peak(*command: str | Path) -> float:
    """MiB of the largest resident set of one process."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
        "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True, check=True
    )
    return int(said.stdout) / 1024


def memory(bench: Bench, sizes: list[int]) -> None:
    for size in sizes:
        path, tar, models = bench.folder / "m.gguf", bench.folder / "m.tar", bench.folder / "m-models"
        make_gguf(path, size)
        word = f"{size >> 30} GiB"
        bench.row(
            f"peak memory of pack, {word} (MiB)", peak(*MODELPACK, "pack", path, "-o", tar), 120, "<= 1", "M"
        )
        path.unlink()
        bench.row(f"peak memory of verify, {word} (MiB)", peak(*MODELPACK, "verify", tar), 120, "<= 1", "M")
        to_dir = peak(*MODELPACK, "load", tar, "--to", models)
        bench.row(f"peak memory of load to a directory, {word}", to_dir, 120, "<= 1", "M")
        shutil.rmtree(models)
        with depot(bench.folder / "m-depot") as (url, process):
            sent = peak(*MODELPACK, "load", tar, "--to", url)
            status = Path(f"/proc/{process.pid}/status").read_text()
            kept = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
        bench.row(f"peak memory of load to a depot, {word}", sent, 120, "<= 1", "M")
        bench.row(f"peak memory of the depot, {word}", kept, 120, "<= 1", "M")
        shutil.rmtree(bench.folder / "m-depot")
        tar.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--size", default="4GiB", type=parse_size)
    parser.add_argument("--runs", default=3, type=int)
    parser.add_argument("--dir", type=Path)
    parser.add_argument(
        "--only",
        help="hash, pack, verify, upload, sets, inspect, registry, exact, hosts, media, start or memory",
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.dir, prefix="modelpack-bench-") as name:
        folder = Path(name)
        bench = Bench(folder, given.runs, given.only)
        big, several = folder / "big.gguf", [folder / "one.gguf", folder / "two.gguf"]
        make_gguf(big, given.size)
        for path in several:
            make_gguf(path, given.size // 2)
        if bench.wants("start"):
            small(bench)
        if bench.wants("hash"):
            hashing(bench, big, several)
        if bench.wants("pack") or bench.wants("verify") or bench.wants("upload"):
            packing(bench, big)
        if bench.wants("verify"):
            verifying(bench, big, several)
        if bench.wants("upload"):
            uploading(bench, big)
        if bench.wants("sets"):
            sets(bench, big, run, MODELPACK)
            shards(bench, given.size, run, MODELPACK, poured)
        if bench.wants("inspect"):
            inspecting(bench)
        if bench.wants("registry"):
            registries(bench, big, run, MODELPACK, depot, peak)
        if bench.wants("exact"):
            exactly(bench, big, run, MODELPACK, depot, peak, poured)
        if bench.wants("hosts"):
            hosts(bench, given.size, run, MODELPACK, depot, peak, make_gguf)
        if bench.wants("media"):
            if not (folder / "b.tar").exists():
                run(*MODELPACK, "pack", big, "-o", folder / "b.tar", "-q")()
            media(bench, folder / "b.tar", given.size, run, MODELPACK, peak)
        for path in (big, *several):
            path.unlink()
        shutil.rmtree(folder / "several", ignore_errors=True)
        (folder / "b.tar").unlink(missing_ok=True)
        if bench.wants("memory"):
            memory(bench, [1 << 30, 8 << 30])
    print(f"machine: {os.cpu_count()} cores, Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
